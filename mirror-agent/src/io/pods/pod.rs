//! Enters: a pod as the API server writes it. Leaves: the little of it that matters here.
//!
//! What is missing or has another shape than it should is left out: a pod with an odd part must not cost the others.

use std::{collections::BTreeMap, net::IpAddr};

use serde::Deserialize;
use serde_json::Value;

/// A pod, as far as it matters here.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Pod {
    /// Its name, unique in its namespace at any one time.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Whether its containers run: from its start until the last has ended, also while it is being deleted.
    pub is_running: bool,
    /// Whether it is ready to serve, and is to stay.
    pub is_ready: bool,
    /// Its addresses, at most one of each family; those of the node where it uses the node's network.
    pub addresses: Vec<IpAddr>,
    /// The TCP ports that its containers declare, with their names.
    pub ports: Vec<(Option<String>, u16)>,
}

impl Pod {
    /// Reads one; `None` where it has no name.
    #[must_use]
    pub fn read(object: &Value) -> Option<Self> {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let status = &object["status"];
        let is_leaving = !object["metadata"]["deletionTimestamp"].is_null();
        let is_ready = list(&status["conditions"])
            .iter()
            .any(|condition| condition["type"] == "Ready" && condition["status"] == "True");
        let labels = object["metadata"]["labels"].as_object().into_iter().flatten();
        let is_running = status["phase"] == "Running";
        Some(Self {
            name: text(&object["metadata"]["name"])?,
            labels: labels.filter_map(|(key, value)| Some((key.clone(), text(value)?))).collect(),
            is_running,
            is_ready: is_running && is_ready && !is_leaving,
            addresses: addresses(status),
            ports: ports(&object["spec"]),
        })
    }
}

/// `podIPs` has `podIP` too, but not in the answers of every server.
fn addresses(status: &Value) -> Vec<IpAddr> {
    let several = list(&status["podIPs"]).iter().map(|address| &address["ip"]);
    let all = several.chain([&status["podIP"]]);
    let mut addresses: Vec<IpAddr> = all.filter_map(|address| address.as_str()?.parse().ok()).collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

/// Sidecars are among the containers that are started first.
fn ports(spec: &Value) -> Vec<(Option<String>, u16)> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Declared {
        name: Option<String>,
        container_port: u16,
        protocol: Option<String>,
    }

    let containers = list(&spec["containers"]).iter().chain(list(&spec["initContainers"]));
    containers
        .flat_map(|container| list(&container["ports"]))
        .filter_map(|port| Declared::deserialize(port).ok())
        .filter(|port| port.container_port != 0 && port.protocol.as_deref().unwrap_or("TCP") == "TCP")
        .map(|port| (port.name, port.container_port))
        .collect()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}
