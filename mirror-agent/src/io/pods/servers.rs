//! Enters: what an experiment says of pods, and the pods that there are. Leaves: its servers.

use std::net::SocketAddr;

use super::Pod;
use crate::io::config::{PodPort, PodsConfig};

/// What was found of the pods of an experiment.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Found {
    /// How many of the pods run.
    pub pods: usize,
    /// Where they serve, in ascending order.
    pub servers: Vec<SocketAddr>,
}

/// Finds the servers among these pods of the namespace.
#[must_use]
pub fn find(wanted: &PodsConfig, pods: &[Pod]) -> Found {
    let mut found = Found::default();
    let meant =
        |pod: &&Pod| pod.is_running && !pod.addresses.is_empty() && wanted.selector.matches(&pod.labels);
    for pod in pods.iter().filter(meant) {
        found.pods += 1;
        let ports = ports(wanted, pod);
        let at = |address| ports.iter().map(move |port| SocketAddr::new(address, *port));
        found.servers.extend(pod.addresses.iter().copied().flat_map(at));
    }
    found.servers.sort_unstable();
    found.servers.dedup();
    found
}

fn ports(wanted: &PodsConfig, pod: &Pod) -> Vec<u16> {
    if wanted.ports.is_empty() {
        return pod.ports.iter().map(|(_, port)| *port).collect();
    }
    let named = |name: &str| {
        let declared = pod.ports.iter().filter(move |(known, _)| known.as_deref() == Some(name));
        declared.map(|(_, port)| *port).collect()
    };
    let numbers = wanted.ports.iter().flat_map(|port| match port {
        PodPort::Number(port) => vec![*port],
        PodPort::Name(name) => named(name),
    });
    numbers.collect()
}
