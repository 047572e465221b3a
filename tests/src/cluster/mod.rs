//! Enters: how a network plugin wires pods. Leaves: a node with such pods, and an API server that tells of them.
//!
//! Nothing of Kubernetes runs here. What the agent sees of it is all there: routes, rules, bridges and veth on the node,
//! and the lists and watches of an API server.

mod api;
mod query;
mod store;

use std::{fs, net::Ipv4Addr, path::PathBuf};

use anyhow::Result;
use serde_json::{Value, json};
use tempfile::TempDir;

pub use self::{api::ApiServer, store::Trouble};
use crate::{
    agent::{Agent, Arguments},
    netns::{Host, INTERFACE, Topology},
    scenario::{PORT, Turn, Weight},
    server::{Record, Server},
};

/// The name of the node.
pub const NODE: &str = "node-1";

/// The namespace of the pods.
pub const NAMESPACE: &str = "shop";

/// How pods hang on their node.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Wiring {
    /// A route to each pod through its veth, `cali*`, which answers for its gateway.
    Calico,
    /// A bridge, `cni0`, as of Flannel, of kubenet and of the plugin `bridge`.
    Bridge,
    /// A route to each pod through its veth, `eni*`, in a table that a rule of the pod leads to.
    Aws,
    /// A route to each pod through its veth, `lxc*`, as with `endpointRoutes`.
    Cilium,
    /// A route to each pod through a router: its interface is not to be found.
    Routed,
}

impl Wiring {
    /// Those by which a pod's interface can be found.
    pub const FOUND: [Self; 4] = [Self::Calico, Self::Bridge, Self::Aws, Self::Cilium];

    /// The node's end of a pod's interface.
    #[must_use]
    pub fn interface(self, number: u8) -> String {
        match self {
            Self::Calico => format!("cali{number}"),
            Self::Bridge | Self::Routed => format!("veth{number}"),
            Self::Aws => format!("eni{number}"),
            Self::Cilium => format!("lxc{number}"),
        }
    }
}

/// A node, with a client, a shadow, and an API server that listens on the node's loopback.
#[derive(Debug)]
pub struct Cluster {
    /// The API server.
    pub api: ApiServer,
    /// Gets the copies.
    pub shadow: Server,
    /// The node is `live`, the others are outside.
    pub net: Topology,
    wiring: Wiring,
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
    /// Its number, the last of its address.
    pub number: u8,
}

impl Cluster {
    /// Starts all but the agent; there are no pods.
    ///
    /// # Errors
    ///
    /// Something does not start.
    pub fn start(wiring: Wiring) -> Result<Self> {
        let turn = Turn::take(Weight::Light)?;
        let net = Topology::new()?;
        let node = &net.live;
        node.within(|| Ok(fs::write("/proc/sys/net/ipv4/ip_forward", "1")?))?;
        // Without a default route nobody answers for a gateway that is not there.
        node.ip(&format!("route add default via {}\n", net.client.v4))?;
        net.client.ip(&format!("route add 10.78.0.0/24 via {}\n", node.v4))?;
        if wiring == Wiring::Bridge {
            node.ip("link add cni0 type bridge\naddr add 10.78.0.1/24 dev cni0\nlink set cni0 up\n")?;
        }
        let shadow = Server::start(&net.shadow, PORT, Record::Raw)?;
        let api = ApiServer::start(node)?;
        let cluster = Self { api, shadow, net, wiring, directory: tempfile::tempdir()?, _turn: turn };
        fs::write(cluster.file("kubeconfig"), cluster.kubeconfig())?;
        Ok(cluster)
    }

    /// Starts an agent on the node, with this configuration file. It knows its node and where the API server is.
    ///
    /// # Errors
    ///
    /// It does not start.
    pub fn agent(&self, text: &str) -> Result<Agent> {
        Agent::start(&self.net.live, &self.arguments(text)?)
    }

    /// The command line of such an agent.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub fn arguments(&self, text: &str) -> Result<Arguments> {
        let file = self.file("mirror.yaml");
        fs::write(&file, text)?;
        let kubeconfig = self.file("kubeconfig").display().to_string();
        Ok(Arguments::from_file(&file)
            .with_variable("NODE_NAME", NODE)
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

    /// Wires a pod as the network plugin does, and starts a server in it. The API server is not told.
    ///
    /// # Errors
    ///
    /// A command is refused.
    pub fn wire(&self, number: u8) -> Result<Pod> {
        let node = &self.net.live;
        let (address, interface) = (address(number), self.wiring.interface(number));
        let host = Host::alone(&format!("pod{number}"), address)?;
        node.ip(&format!(
            "link add {interface} address ee:ee:ee:ee:ee:ee type veth peer name {INTERFACE} netns {}\nlink set {interface} up\n",
            host.name()
        ))?;
        host.ip(&format!("link set lo up\nlink set {INTERFACE} up\n"))?;
        if self.wiring == Wiring::Bridge {
            node.ip(&format!("link set {interface} master cni0\n"))?;
            host.ip(&format!("addr add {address}/24 dev {INTERFACE}\nroute add default via 10.78.0.1\n"))?;
        } else if self.wiring == Wiring::Routed {
            node.ip(&format!(
                "addr add 169.254.9.1/30 dev {interface}\nroute add {address}/32 via 169.254.9.2 dev {interface}\n"
            ))?;
            host.ip(&format!(
                "addr add {address}/32 dev lo\naddr add 169.254.9.2/30 dev {INTERFACE}\nroute add default via 169.254.9.1\n"
            ))?;
        } else {
            // The gateway is nobody's address: the veth answers for it.
            let settings = format!("/proc/sys/net/ipv4/{{}}/{interface}");
            node.within(|| {
                fs::write(settings.replace("{}", "conf") + "/proxy_arp", "1")?;
                Ok(fs::write(settings.replace("{}", "neigh") + "/proxy_delay", "0")?)
            })?;
            host.ip(&format!(
                "addr add {address}/32 dev {INTERFACE}\nroute add 169.254.1.1 dev {INTERFACE} scope link\n\
                 route add default via 169.254.1.1 dev {INTERFACE}\n"
            ))?;
            node.ip(&match self.wiring {
                Wiring::Aws => format!(
                    "route add {address}/32 dev {interface} scope link table 42\nrule add to {address} lookup 42 priority 512\n"
                ),
                Wiring::Bridge | Wiring::Calico | Wiring::Cilium | Wiring::Routed => {
                    format!("route add {address}/32 dev {interface} scope link\n")
                }
            })?;
        }
        let server = Server::start(&host, PORT, Record::Count)?;
        Ok(Pod { server, host, number })
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

/// The address of a pod.
#[must_use]
pub fn address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 78, 0, number)
}

/// A running pod of this node, as the API server writes it, with much that the agent has no use for.
#[must_use]
pub fn running(name: &str, address: Ipv4Addr) -> Value {
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
            "nodeName": NODE,
            "containers": [{
                "name": "web",
                "image": "registry.example/shop:1",
                "ports": [{ "name": "http", "containerPort": PORT, "protocol": "TCP" }],
            }],
        },
        "status": {
            "phase": "Running",
            "hostIP": "10.77.0.2",
            "podIP": address.to_string(),
            "podIPs": [{ "ip": address.to_string() }],
            "conditions": [{ "type": "Ready", "status": "True" }],
        },
    })
}
