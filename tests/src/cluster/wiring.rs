//! Enters: how a network plugin wires pods, and by which addresses. Leaves: a node that is ready for pods, and pods on it.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use anyhow::Result;

use crate::netns::{Host, INTERFACE};

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
    /// A route to each pod through a router: its interface is not to be found. For IPv4 alone.
    Routed,
}

/// Which addresses pods have.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stack {
    /// IPv4 alone.
    V4,
    /// IPv6 alone.
    V6,
    /// One of each.
    Both,
}

impl Stack {
    /// The addresses of a pod.
    #[must_use]
    pub fn addresses(self, number: u8) -> Vec<IpAddr> {
        let (v4, v6) = (IpAddr::V4(address(number)), IpAddr::V6(address_v6(number)));
        match self {
            Self::V4 => vec![v4],
            Self::V6 => vec![v6],
            Self::Both => vec![v4, v6],
        }
    }
}

/// The IPv4 address of a pod.
#[must_use]
pub fn address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 78, 0, number)
}

/// The IPv6 address of a pod.
#[must_use]
pub fn address_v6(number: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfd78, 0, 0, 0, 0, 0, 0, number.into())
}

/// The networks of all pods.
const NETWORKS: [&str; 2] = ["10.78.0.0/24", "fd78::/64"];

/// The hardware address of the node's end of each pod's interface, as Calico sets it, and the address that the kernel makes
/// of it (RFC 4291, appendix A), which is the gateway of IPv6.
const NODE_MAC: &str = "ee:ee:ee:ee:ee:ee";
const NODE_LINK_LOCAL: &str = "fe80::ecee:eeff:feee:eeee";

/// The table of routes that rules lead to.
const TABLE: &str = "42";

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

    /// Makes a host a node.
    pub(super) fn prepare(self, node: &Host, router: &Host) -> Result<()> {
        node.within(|| {
            fs::write("/proc/sys/net/ipv4/ip_forward", "1")?;
            fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1")?;
            // No address here is anybody else's: none waits until that is known.
            Ok(fs::write("/proc/sys/net/ipv6/conf/default/accept_dad", "0")?)
        })?;
        // Without a default route nobody answers for a gateway that is not there.
        node.ip(&format!("route add default via {}\n", router.v4))?;
        if self == Self::Bridge {
            node.ip(
                "link add cni0 type bridge\naddr add 10.78.0.1/24 dev cni0\naddr add fd78::1/64 dev cni0 nodad\n\
                 link set cni0 up\n",
            )?;
        }
        Ok(())
    }

    /// Has a host outside know that pods are at a node: all of them, or the one with this number.
    pub(super) fn lead(from: &Host, node: &Host, number: Option<u8>) -> Result<()> {
        let [v4, v6] = match number {
            Some(number) => [format!("{}/32", address(number)), format!("{}/128", address_v6(number))],
            None => NETWORKS.map(str::to_owned),
        };
        from.ip(&format!("route replace {v4} via {}\nroute replace {v6} via {}\n", node.v4, node.v6))
    }

    /// Hangs a pod on a node.
    pub(super) fn wire(self, node: &Host, pod: &Host, number: u8, stack: Stack) -> Result<()> {
        let interface = self.interface(number);
        node.ip(&format!(
            "link add {interface} address {NODE_MAC} type veth peer name {INTERFACE} netns {}\nlink set {interface} up\n",
            pod.name()
        ))?;
        let dad = format!("/proc/sys/net/ipv6/conf/{INTERFACE}/accept_dad");
        pod.within(|| Ok(fs::write(dad, "0")?))?;
        pod.ip(&format!("link set lo up\nlink set {INTERFACE} up\n"))?;
        for address in stack.addresses(number) {
            match (self, address) {
                (Self::Bridge, _) => {}
                (Self::Routed, _) => route_through(node, pod, &interface, address)?,
                _ => self.route_to(node, pod, &interface, address)?,
            }
        }
        if self == Self::Bridge {
            node.ip(&format!("link set {interface} master cni0\n"))?;
            for address in stack.addresses(number) {
                let (length, gateway) = if address.is_ipv4() { (24, "10.78.0.1") } else { (64, "fd78::1") };
                pod.ip(&format!(
                    "addr add {address}/{length} dev {INTERFACE}\nroute add default via {gateway}\n"
                ))?;
            }
        }
        Ok(())
    }

    /// A route to the pod itself.
    fn route_to(self, node: &Host, pod: &Host, interface: &str, address: IpAddr) -> Result<()> {
        let whole = if address.is_ipv4() { 32 } else { 128 };
        pod.ip(&format!("addr add {address}/{whole} dev {INTERFACE}\n"))?;
        if address.is_ipv4() {
            // The gateway is nobody's address: the veth answers for it.
            let settings = format!("/proc/sys/net/ipv4/{{}}/{interface}");
            node.within(|| {
                fs::write(settings.replace("{}", "conf") + "/proxy_arp", "1")?;
                Ok(fs::write(settings.replace("{}", "neigh") + "/proxy_delay", "0")?)
            })?;
            pod.ip(&format!(
                "route add 169.254.1.1 dev {INTERFACE} scope link\nroute add default via 169.254.1.1 dev {INTERFACE}\n"
            ))?;
        } else {
            pod.ip(&format!("route add default via {NODE_LINK_LOCAL} dev {INTERFACE}\n"))?;
        }
        let scope = if address.is_ipv4() { "scope link" } else { "" };
        if self != Self::Aws {
            return node.ip(&format!("route add {address}/{whole} dev {interface} {scope}\n"));
        }
        node.ip(&format!("route add {address}/{whole} dev {interface} {scope} table {TABLE}\n"))?;
        let rule = format!("rule add to {address} lookup {TABLE} priority 512\n");
        if address.is_ipv4() { node.ip(&rule) } else { node.ip_v6(&rule) }
    }
}

/// A route to the pod through a router on the way.
fn route_through(node: &Host, pod: &Host, interface: &str, address: IpAddr) -> Result<()> {
    node.ip(&format!(
        "addr add 169.254.9.1/30 dev {interface}\nroute add {address}/32 via 169.254.9.2 dev {interface}\n"
    ))?;
    pod.ip(&format!(
        "addr add {address}/32 dev lo\naddr add 169.254.9.2/30 dev {INTERFACE}\nroute add default via 169.254.9.1\n"
    ))
}
