//! Enters: the configuration, and what Kubernetes says of this pod in its environment. Leaves: who knows of pods.

use std::sync::Arc;

use anyhow::Result;

use crate::io::{
    config::Config,
    pods::{Pods, PodsStatus, check_pods},
};

/// Who knows of pods; `None` where nobody can be asked, and the configuration does not.
///
/// # Errors
///
/// The configuration asks for pods, and this program was built without them, does not know on which node it runs, or
/// does not know an API server. That none answers is no error.
#[cfg(feature = "kube")]
pub(super) async fn pods(config: &Config, status: &Arc<PodsStatus>) -> Result<Option<Pods>> {
    use std::env;

    use anyhow::ensure;

    use crate::io::pods::{Cluster, Scope, Which};

    check_pods(config)?;
    let said = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
    let node = said(NODE);
    ensure!(
        node.is_some() || !config.asks_for_pods(),
        "experiments about `pods` need to know the node: set {NODE} from spec.nodeName (downward API)"
    );
    let agents = said(NAMESPACE).zip(said(SELECTOR));
    let agents = agents.map(|(namespace, selector)| Scope { namespace, which: Which::Labelled(selector) });
    if node.is_none() && agents.is_none() {
        return Ok(None);
    }
    let cluster = match Cluster::find().await {
        Ok(cluster) => cluster,
        Err(error) if config.asks_for_pods() => return Err(error.into()),
        Err(error) => {
            tracing::debug!(error = &error as &dyn std::error::Error, "No API server is known.");
            return Ok(None);
        }
    };
    Ok(Some(Pods::new(node, agents, cluster.follow(), Arc::clone(status))))
}

/// The same for a program that cannot ask.
#[cfg(not(feature = "kube"))]
#[expect(clippy::unused_async, reason = "asks where it can")]
pub(super) async fn pods(config: &Config, _status: &Arc<PodsStatus>) -> Result<Option<Pods>> {
    check_pods(config)?;
    Ok(None)
}

/// The node on which this pod runs.
#[cfg(feature = "kube")]
const NODE: &str = "NODE_NAME";

/// The namespace of this pod.
#[cfg(feature = "kube")]
const NAMESPACE: &str = "POD_NAMESPACE";

/// The labels by which the agents are known, as in `kubectl get pods --selector`.
#[cfg(feature = "kube")]
const SELECTOR: &str = "AGENT_SELECTOR";
