//! Enters: how a network plugin wires pods. Leaves: a node with such pods, and an API server that tells of them.
//!
//! Nothing of Kubernetes runs here. What the agent sees of it is all there: routes, rules, bridges and veth on the node,
//! and the lists and watches of an API server.

mod api;
mod query;
mod store;
mod wiring;

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use anyhow::Result;
use serde_json::{Value, json};
use tempfile::TempDir;

pub use self::{
    api::ApiServer,
    store::Trouble,
    wiring::{Stack, Wiring, address, address_v6},
};
use crate::{
    agent::{Agent, Arguments},
    netns::{Host, Topology},
    scenario::{PORT, Turn, Weight},
    server::{Record, Server},
};

/// The names of the nodes.
pub const NODES: [&str; 2] = ["node-1", "node-2"];

/// The namespace of the pods.
pub const NAMESPACE: &str = "shop";

/// Two nodes, with a client, a shadow, and an API server on the first of them. Most tests use that one alone.
#[derive(Debug)]
pub struct Cluster {
    /// The API server.
    pub api: ApiServer,
    /// Gets the copies.
    pub shadow: Server,
    /// The nodes are `live` and `other`, the others are outside.
    pub net: Topology,
    wiring: Wiring,
    stack: Stack,
    directory: TempDir,
    _turn: Turn,
}

/// A pod's network, with a server in it.
#[derive(Debug)]
pub struct Pod {
    /// Answers requests.
    pub server: Server,
    /// Its namespace.
    pub host: Host,
    /// Its number, the last of its addresses.
    pub number: u8,
    /// Where its server is, an entry for each address.
    pub at: Vec<SocketAddr>,
}

impl Cluster {
    /// Starts all but the agents; there are no pods, and those that come have addresses of IPv4.
    ///
    /// # Errors
    ///
    /// Something does not start.
    pub fn start(wiring: Wiring) -> Result<Self> {
        Self::start_with(wiring, Stack::V4)
    }

    /// The same with other addresses.
    ///
    /// # Errors
    ///
    /// Something does not start.
    pub fn start_with(wiring: Wiring, stack: Stack) -> Result<Self> {
        let turn = Turn::take(Weight::Light)?;
        let net = Topology::new()?;
        for node in [&net.live, &net.other] {
            wiring.prepare(node, &net.client)?;
        }
        Wiring::lead(&net.client, &net.live, None)?;
        let shadow = Server::start(&net.shadow, PORT, Record::Raw)?;
        let api = ApiServer::start(&net.live)?;
        let cluster = Self { api, shadow, net, wiring, stack, directory: tempfile::tempdir()?, _turn: turn };
        fs::write(cluster.file("kubeconfig"), cluster.kubeconfig())?;
        Ok(cluster)
    }

    /// Starts an agent on the first node, with this configuration file. It knows its node and where the API server is.
    ///
    /// # Errors
    ///
    /// It does not start.
    pub fn agent(&self, text: &str) -> Result<Agent> {
        self.agent_on(0, text)
    }

    /// The same on a node by its position in [`NODES`].
    ///
    /// # Errors
    ///
    /// It does not start.
    pub fn agent_on(&self, node: usize, text: &str) -> Result<Agent> {
        Agent::start(self.node(node), &self.arguments_on(node, text)?)
    }

    /// The command line of such an agent.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub fn arguments(&self, text: &str) -> Result<Arguments> {
        self.arguments_on(0, text)
    }

    fn arguments_on(&self, node: usize, text: &str) -> Result<Arguments> {
        let file = self.file(&format!("{}.yaml", NODES[node]));
        fs::write(&file, text)?;
        let kubeconfig = self.file("kubeconfig").display().to_string();
        Ok(Arguments::from_file(&file)
            .with_variable("NODE_NAME", NODES[node])
            .with_variable("KUBECONFIG", &kubeconfig))
    }

    /// A configuration with one experiment, about the pods labelled `app: shop`, whose port is called `http`. Where no
    /// interface is given it names none.
    #[must_use]
    pub fn config(&self, interface: &str, more: &str) -> String {
        let capture = if interface.is_empty() { String::new() } else { format!("interfaces: [{interface}]") };
        let shadow = self.net.shadow.at_v4(PORT);
        format!(
            "capture: {{ {capture} }}\n{more}experiments:\n  - name: shop\n    expires: never\n    pods:\n      \
             namespace: {NAMESPACE}\n      selector: {{ matchLabels: {{ app: shop }} }}\n      ports: [http]\n    targets:\n      \
             - {{ name: shadow, url: \"http://{shadow}\", limits: {{ requestsPerSecond: {{ total: 10000 }} }} }}\n"
        )
    }

    /// Wires a pod of the first node as the network plugin does, and starts a server in it. The API server is not told.
    ///
    /// # Errors
    ///
    /// A command is refused.
    pub fn wire(&self, number: u8) -> Result<Pod> {
        self.wire_on(0, number)
    }

    /// The same of a node by its position in [`NODES`].
    ///
    /// # Errors
    ///
    /// A command is refused.
    pub fn wire_on(&self, node: usize, number: u8) -> Result<Pod> {
        let mut host = Host::alone(&format!("pod{number}"), address(number))?;
        host.v6 = address_v6(number);
        self.wiring.wire(self.node(node), &host, number, self.stack)?;
        if node > 0 {
            Wiring::lead(&self.net.client, self.node(node), Some(number))?;
        }
        let server = Server::start(&host, PORT, Record::Count)?;
        let at =
            self.stack.addresses(number).into_iter().map(|address| SocketAddr::new(address, PORT)).collect();
        Ok(Pod { server, host, number, at })
    }

    /// Has the API server tell of a running pod of this name, on the node with this position, with the address of the pod
    /// of this number.
    pub fn tell(&self, name: &str, node: usize, number: u8) {
        let mut pod = running(name, &self.stack.addresses(number));
        pod["spec"]["nodeName"] = json!(NODES[node]);
        // One that is made anew is another one.
        pod["metadata"]["uid"] = json!(format!("uid-of-{name}-{number}"));
        self.api.apply(pod);
    }

    /// The host that a node is.
    #[must_use]
    pub const fn node(&self, position: usize) -> &Host {
        if position == 0 { &self.net.live } else { &self.net.other }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn kubeconfig(&self) -> String {
        json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{ "name": "c", "cluster": { "server": format!("http://{}", self.api.address()) } }],
            "users": [{ "name": "u", "user": { "token": TOKEN } }],
            "contexts": [{ "name": "x", "context": { "cluster": "c", "user": "u" } }],
            "current-context": "x",
        })
        .to_string()
    }
}

/// The token that the API server wants to see.
const TOKEN: &str = "of-the-service-account";

/// A running pod of the first node, as the API server writes it, with much that the agent has no use for.
#[must_use]
pub fn running(name: &str, addresses: &[IpAddr]) -> Value {
    let addresses: Vec<Value> =
        addresses.iter().map(|address| json!({ "ip": address.to_string() })).collect();
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": NAMESPACE,
            "uid": format!("uid-of-{name}"),
            "labels": { "app": "shop", "pod-template-hash": "7d4b9c" },
            "ownerReferences": [{ "kind": "ReplicaSet", "name": "shop-7d4b9c" }],
            "managedFields": [{ "manager": "kubelet", "fieldsV1": { "f:status": {} } }],
        },
        "spec": {
            "nodeName": NODES[0],
            "containers": [{
                "name": "web",
                "image": "registry.example/shop:1",
                "ports": [{ "name": "http", "containerPort": PORT, "protocol": "TCP" }],
            }],
        },
        "status": {
            "phase": "Running",
            "hostIP": "10.77.0.2",
            "podIP": addresses.first().map(|first| first["ip"].clone()),
            "podIPs": addresses,
            "conditions": [{ "type": "Ready", "status": "True" }],
        },
    })
}
