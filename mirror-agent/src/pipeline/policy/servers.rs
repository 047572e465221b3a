//! Enters: a server. Leaves: the experiments that are about requests to it.

use std::collections::BTreeMap;

use super::{Experiment, ExperimentSet};
use crate::pipeline::Endpoint;

/// Which experiments are about which servers, found without asking each of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Servers {
    /// Those that name their servers.
    named: BTreeMap<Endpoint, ExperimentSet>,
    /// Of the others, those that name ports, and those that name none.
    ports: BTreeMap<u16, ExperimentSet>,
    any_port: ExperimentSet,
    /// Of the same, those that name networks, by mask and then by prefix, and those that name none.
    networks: BTreeMap<u128, BTreeMap<u128, ExperimentSet>>,
    any_address: ExperimentSet,
}

impl Servers {
    /// Adds the experiment at this position.
    pub(super) fn add(&mut self, position: usize, experiment: &Experiment) {
        if let Some(servers) = &experiment.servers {
            for server in servers {
                self.named.entry(*server).or_default().insert(position);
            }
            return;
        }
        for port in &experiment.ports {
            self.ports.entry(*port).or_default().insert(position);
        }
        if experiment.ports.is_empty() {
            self.any_port.insert(position);
        }
        for network in &experiment.addresses {
            let of_mask = self.networks.entry(network.mask).or_default();
            of_mask.entry(network.prefix).or_default().insert(position);
        }
        if experiment.addresses.is_empty() {
            self.any_address.insert(position);
        }
    }

    /// Those that are about `server`.
    pub(super) fn about(&self, server: &Endpoint) -> ExperimentSet {
        let found = |set: Option<&ExperimentSet>| set.copied().unwrap_or_default();
        let by_port = self.any_port.union(found(self.ports.get(&server.port)));
        let addr = u128::from(server.addr);
        let by_address = self
            .networks
            .iter()
            .fold(self.any_address, |set, (mask, networks)| set.union(found(networks.get(&(addr & mask)))));
        found(self.named.get(server)).union(by_port.intersection(by_address))
    }
}
