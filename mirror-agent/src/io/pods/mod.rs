//! Enters: what the API server tells of pods. Leaves: the servers that experiments about pods are about.
//!
//! One watch for each namespace that an experiment names, cut to this node by the API server: so a right to the pods of
//! those namespaces is enough. What was told last stays in force for as long as nothing else is told.

#[cfg(feature = "kube")]
mod cluster;
#[cfg(any(test, feature = "kube"))]
mod copy;
mod pod;
mod servers;
mod status;
#[cfg(test)]
mod tests;
#[cfg(any(test, feature = "kube"))]
mod wait;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{sync::Notify, task::JoinHandle};

#[cfg(feature = "kube")]
pub use self::cluster::{Cluster, ClusterError};
pub use self::{
    pod::Pod,
    servers::{Found, find},
    status::{PodsStatus, WatchFailure},
};
use crate::io::config::{Config, PodsConfig};

/// A configuration names pods, and this program cannot ask for them.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PodsError {
    /// It was built without the client.
    #[error("`pods` needs a program that was built with --features kube, which this one was not")]
    NotBuilt,
}

/// Checks whether this program can do what the configuration says of pods.
///
/// # Errors
///
/// [`PodsError::NotBuilt`]
pub fn check_pods(config: &Config) -> Result<(), PodsError> {
    if config.asks_for_pods() && !cfg!(feature = "kube") { Err(PodsError::NotBuilt) } else { Ok(()) }
}

/// Which pods are watched.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Scope {
    /// Their namespace.
    pub namespace: String,
    /// Which of them.
    pub which: Which,
}

/// Which pods of a namespace are watched.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Which {
    /// Those that run on this node.
    OfNode(String),
    /// Those with these labels, as the API server takes it.
    Labelled(String),
}

/// Starts to watch, and tells the sink until it is stopped.
pub type Follow = Box<dyn Fn(Scope, Sink) -> JoinHandle<()> + Send + Sync>;

/// The pods of this node in the namespaces that are asked for, and how many agents are ready.
pub struct Pods {
    /// The node; `None` where that is not known.
    node: Option<String>,
    /// Which pods are agents; `None` where that is not known.
    agents: Option<Scope>,
    follow: Follow,
    tasks: BTreeMap<String, JoinHandle<()>>,
    told: Arc<Told>,
}

/// The key under which the agents are told of; no namespace has such a name.
const AGENTS: &str = "";

/// What was told last, by namespace.
#[derive(Debug, Default)]
struct Told {
    pods: Mutex<BTreeMap<String, Vec<Pod>>>,
    changed: Notify,
    status: Arc<PodsStatus>,
}

impl Told {
    fn pods(&self) -> MutexGuard<'_, BTreeMap<String, Vec<Pod>>> {
        // Lists are replaced as a whole.
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes what is told of one scope: the watch of one namespace --pods--> owner.
#[derive(Clone, Debug)]
pub struct Sink {
    key: String,
    told: Arc<Told>,
}

impl Sink {
    /// These are all pods that there are.
    pub fn replace(&self, pods: Vec<Pod>) {
        let before = self.told.pods().insert(self.key.clone(), pods.clone());
        if before.as_ref() != Some(&pods) {
            self.told.changed.notify_one();
        }
    }

    /// The API server has said something; at least that nothing has changed.
    pub fn heard(&self) {
        self.told.status.heard(&self.key);
    }

    /// The watch does not work.
    pub fn failed(&self, failure: WatchFailure) {
        self.told.status.failed(failure);
    }
}

impl Pods {
    /// Of this node; nothing is watched yet. Which pods are `agents` is needed only where they are to be counted.
    #[must_use]
    pub fn new(node: Option<String>, agents: Option<Scope>, follow: Follow, status: Arc<PodsStatus>) -> Self {
        let told = Arc::new(Told { status, ..Told::default() });
        Self { node, agents, follow, tasks: BTreeMap::new(), told }
    }

    /// Whether pods of this node can be watched.
    #[must_use]
    pub const fn knows_node(&self) -> bool {
        self.node.is_some()
    }

    /// Watches what this configuration asks for, and nothing else. Must be called within a tokio runtime.
    pub fn watch(&mut self, config: &Config) {
        let namespaces = config.experiments.iter().filter_map(|experiment| experiment.pods.as_ref());
        let of_node = |pods: &PodsConfig| {
            let (namespace, which) = (pods.namespace.clone(), Which::OfNode(self.node.clone()?));
            Some((namespace.clone(), Scope { namespace, which }))
        };
        let mut wanted: BTreeMap<String, Scope> = namespaces.filter_map(of_node).collect();
        if config.shares_rates() {
            wanted.extend(self.agents.clone().map(|agents| (AGENTS.to_owned(), agents)));
        }
        self.tasks.retain(|key, task| {
            let stays = wanted.contains_key(key);
            if !stays {
                task.abort();
                self.told.pods().remove(key);
                self.told.status.forget(key);
            }
            stays
        });
        for (key, scope) in wanted {
            if !self.tasks.contains_key(&key) {
                self.told.status.heard(&key);
                let sink = Sink { key: key.clone(), told: Arc::clone(&self.told) };
                self.tasks.insert(key, (self.follow)(scope, sink));
            }
        }
    }

    /// Waits until something else was told. Nothing is lost where the wait is given up.
    pub async fn changed(&self) {
        self.told.changed.notified().await;
    }

    /// The servers that these pods are, as far as was told.
    #[must_use]
    pub fn find(&self, pods: &PodsConfig) -> Found {
        self.told.pods().get(&pods.namespace).map(|known| find(pods, known)).unwrap_or_default()
    }

    /// How many agents are ready, this one at least; `None` where that was not told.
    #[must_use]
    pub fn agents(&self) -> Option<u32> {
        let ready = self.told.pods().get(AGENTS)?.iter().filter(|pod| pod.is_ready).count();
        Some(u32::try_from(ready).unwrap_or(u32::MAX).max(1))
    }
}

impl Drop for Pods {
    fn drop(&mut self) {
        self.tasks.values().for_each(JoinHandle::abort);
    }
}
