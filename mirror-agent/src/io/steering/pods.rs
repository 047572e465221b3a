//! Enters: what was told of pods. Leaves: experiments that are about those that run on this node.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use ipnet::IpNet;
use tokio::sync::watch;
use tracing::{error, info};

use crate::io::{
    config::Config,
    experiments::{Activity, Wanted},
    pods::{Found, Pods, PodsStatus},
    replay::Captured,
    steering::{Helm, RETRY_INTERVAL, SteerError},
};

/// What experiments about pods need.
pub struct PodsParts {
    /// Who knows of pods; `None` where nobody can be asked.
    pub pods: Option<Pods>,
    /// Whose interfaces are to be attached to: owner --addresses--> follower of interfaces.
    pub addresses: watch::Sender<BTreeSet<IpAddr>>,
    /// What the metrics show.
    pub status: Arc<PodsStatus>,
}

impl Helm {
    /// Whether what `config` asks of pods can be had.
    pub(super) fn can_watch(&self, config: &Config) -> Result<(), SteerError> {
        let knows_node = self.parts.pods.pods.as_ref().is_some_and(Pods::knows_node);
        if config.asks_for_pods() && !knows_node { Err(SteerError::NoPods) } else { Ok(()) }
    }

    /// Watches what the configuration in force asks for.
    pub(super) fn watch_pods(&mut self) {
        if let Some(pods) = &mut self.parts.pods.pods {
            pods.watch(&self.parts.config);
        }
        self.count_agents();
        self.show_pods();
    }

    /// Something else was told of pods.
    pub(super) fn pods_changed(&mut self) {
        self.count_agents();
        self.show_pods();
        if let Err(error) = self.reconcile() {
            error!(%error, "The servers of pods could not be put in force; it is tried again.");
            self.retry_at = Some(Instant::now() + RETRY_INTERVAL);
        }
    }

    /// The same, with the servers of the pods that run on this node.
    pub(super) fn with_pods(&self, mut wanted: Vec<Wanted>) -> Vec<Wanted> {
        for Wanted { config, .. } in &mut wanted {
            let Some(pods) = &mut config.pods else { continue };
            let Found { servers, .. } =
                self.parts.pods.pods.as_ref().map(|known| known.find(pods)).unwrap_or_default();
            config.ports =
                servers.iter().map(|server| server.port()).collect::<BTreeSet<_>>().into_iter().collect();
            let addresses: BTreeSet<IpAddr> = servers.iter().map(|server| server.ip()).collect();
            config.addresses = addresses.into_iter().map(IpNet::from).collect();
            pods.servers = servers;
        }
        wanted
    }

    /// What must not receive copies while `wanted` of `config` is in force.
    pub(super) fn captured_by(&self, config: &Config, wanted: &[Wanted]) -> Result<Captured, SteerError> {
        let experiments = wanted.iter().map(|wanted| wanted.config.clone()).collect();
        (self.parts.reader.captured)(&Config { experiments, ..config.clone() }).map_err(SteerError::Invalid)
    }

    /// Has `wanted` kept from receiving copies where pods are among it.
    pub(super) fn capture_pods(&mut self, wanted: &[Wanted]) -> Result<(), SteerError> {
        if self.parts.config.asks_for_pods() {
            let captured = self.captured_by(&self.parts.config, wanted)?;
            self.parts.captured.store(captured);
            self.show_pods();
        }
        Ok(())
    }

    /// Has the interfaces attached to of the pods that experiments are about.
    pub(super) fn tell_addresses(&self) {
        let running = self.parts.experiments.running().filter(|wanted| wanted.activity != Activity::Expired);
        let pods = running.filter_map(|wanted| wanted.config.pods.as_ref());
        let addresses: BTreeSet<IpAddr> =
            pods.flat_map(|pods| &pods.servers).map(|server| server.ip()).collect();
        self.parts.pods.addresses.send_if_modified(|known| {
            let is_changed = *known != addresses;
            *known = addresses;
            is_changed
        });
    }

    fn count_agents(&self) {
        let told = self.parts.pods.pods.as_ref().and_then(Pods::agents);
        let agents = told.unwrap_or(self.parts.config.agents);
        let before = self.parts.experiments.common().agents.swap(agents, Ordering::Relaxed);
        self.parts.pods.status.set_agents(agents);
        if before != agents {
            info!(agents, "Rates of all agents together are divided by another number of them.");
        }
    }

    fn show_pods(&mut self) {
        let mut shown = BTreeMap::new();
        for experiment in &self.parts.config.experiments {
            let Some(wanted) = &experiment.pods else { continue };
            let found = self.parts.pods.pods.as_ref().map(|known| known.find(wanted)).unwrap_or_default();
            let (pods, servers) = (found.pods, found.servers.len());
            if self.shown_pods.get(&experiment.name).copied().unwrap_or_default() != (pods, servers) {
                info!(experiment = experiment.name, pods, servers, "The pods of an experiment changed.");
            }
            shown.insert(experiment.name.clone(), (pods, servers));
        }
        let count = |(name, (pods, _)): (&String, &(usize, usize))| {
            (name.clone(), u64::try_from(*pods).unwrap_or(u64::MAX))
        };
        self.parts.pods.status.set_experiments(shown.iter().map(count).collect());
        self.shown_pods = shown;
    }
}
