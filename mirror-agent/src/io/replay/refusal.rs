//! Enters: an address that copies would go to, and what is captured. Leaves: whether that is the live service itself.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

/// What the agent captures, as far as it decides whether a target is a live endpoint.
#[derive(Clone, Debug, Default)]
pub struct Captured {
    /// The matched ports.
    pub ports: Vec<u16>,
    /// The addresses of this network namespace.
    pub local: Vec<IpAddr>,
    /// The networks that capture is narrowed to; none for all addresses.
    pub networks: Vec<IpNet>,
    /// Where the agent itself listens.
    pub listeners: Vec<SocketAddr>,
}

/// A target that is a captured live endpoint, leads to one, or is the agent. Copies sent there would be writes to the live
/// service, or go round in circles.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// Its address belongs to this host.
    #[error("shadow {target} is a captured live endpoint: {} is an address of this host and port {} is captured", target.ip(), target.port())]
    Local {
        /// The target's address.
        target: SocketAddr,
    },
    /// Its address is a loopback address, behind which the live service listens too.
    #[error("shadow {target} is a captured live endpoint: {} is a loopback address and port {} is captured on this host", target.ip(), target.port())]
    Loopback {
        /// The target's address.
        target: SocketAddr,
    },
    /// It is the agent itself.
    #[error("shadow {target} is this agent: it listens there itself")]
    Agent {
        /// The target's address.
        target: SocketAddr,
    },
    /// What is sent there arrives at the captured live service.
    #[error(
        "shadow {target} leads back to the live service: a probe sent there arrived at a captured endpoint, as copies would (if that is the shadow itself, narrow the capture to the live service's addresses)"
    )]
    LeadsBack {
        /// The target's address.
        target: SocketAddr,
    },
    /// Its address is the unspecified one, which connects to this host.
    #[error("shadow {target} is a captured live endpoint: {} means this host and port {} is captured", target.ip(), target.port())]
    Unspecified {
        /// The target's address.
        target: SocketAddr,
    },
}

impl Captured {
    /// Why `target` must not receive copies; `None` where it may.
    ///
    /// Where capture is narrowed to networks, another address of this host may be a shadow. A loopback address may
    /// not: the live service usually listens on all addresses, that one included. Another host may be, whatever its
    /// address: what is sent there does not arrive here.
    #[must_use]
    pub fn refuse(&self, target: SocketAddr) -> Option<Refusal> {
        let ip = target.ip().to_canonical();
        if self.is_listener(target.port(), ip) {
            return Some(Refusal::Agent { target });
        }
        if !self.ports.contains(&target.port()) {
            return None;
        }
        if ip.is_unspecified() {
            return Some(Refusal::Unspecified { target });
        }
        if ip.is_loopback() {
            return Some(Refusal::Loopback { target });
        }
        let is_local = self.is_local(ip);
        let contains = |network: &IpNet| network.contains(&ip) || network.contains(&mapped(ip));
        let is_captured = self.networks.is_empty() || self.networks.iter().any(contains);
        (is_local && is_captured).then_some(Refusal::Local { target })
    }

    fn is_local(&self, ip: IpAddr) -> bool {
        self.local.iter().any(|local| local.to_canonical() == ip)
    }

    /// Whether the agent listens at the port of `ip`. An unspecified address means every one of this host, on either end.
    fn is_listener(&self, port: u16, ip: IpAddr) -> bool {
        self.listeners.iter().filter(|listener| listener.port() == port).any(|listener| {
            let own = listener.ip().to_canonical();
            own == ip
                || ip.is_unspecified()
                || own.is_unspecified() && (ip.is_loopback() || self.is_local(ip))
        })
    }
}

/// The v4-mapped form, in which a network may have been written too.
fn mapped(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().into(),
        IpAddr::V6(_) => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn captured(networks: &[&str]) -> Captured {
        Captured {
            ports: vec![80, 8080],
            local: ["10.0.0.7", "10.0.0.8", "2001:db8::7"].map(|ip| ip.parse().unwrap()).to_vec(),
            networks: networks.iter().map(|network| network.parse().unwrap()).collect(),
            listeners: vec!["127.0.0.1:9477".parse().unwrap(), "[::]:9478".parse().unwrap()],
        }
    }

    #[test]
    fn captured_local_endpoint_is_refused_in_every_spelling() {
        for (target, why) in [
            ("10.0.0.7:8080", "10.0.0.7 is an address of this host"),
            ("[::ffff:10.0.0.7]:80", "is an address of this host"),
            ("[2001:db8::7]:80", "2001:db8::7 is an address of this host"),
            ("127.0.0.1:8080", "127.0.0.1 is a loopback address"),
            ("127.9.8.7:8080", "is a loopback address"),
            ("[::1]:8080", "is a loopback address"),
            ("[::ffff:127.0.0.1]:8080", "is a loopback address"),
            ("0.0.0.0:8080", "0.0.0.0 means this host"),
            ("[::]:8080", "means this host"),
            ("[::ffff:0.0.0.0]:8080", "means this host"),
        ] {
            for networks in [&[][..], &["0.0.0.0/0", "::/0"]] {
                let refusal = captured(networks).refuse(target.parse().unwrap()).unwrap().to_string();
                assert!(refusal.contains(why), "{target}: {refusal}");
                assert!(refusal.contains(&format!("shadow {target} ")), "{refusal}");
                assert!(refusal.contains("port 80"), "{refusal}");
            }
        }
    }

    #[test]
    fn other_hosts_and_other_ports_are_accepted() {
        for target in ["10.0.0.9:8080", "10.0.0.7:81", "127.0.0.1:9000", "[2001:db8::9]:80", "0.0.0.0:81"] {
            assert_eq!(captured(&[]).refuse(target.parse().unwrap()), None, "{target}");
        }
    }

    #[test]
    fn the_agents_own_listeners_are_refused() {
        for (target, is_refused) in [
            ("127.0.0.1:9477", true),
            ("[::ffff:127.0.0.1]:9477", true),
            ("0.0.0.0:9477", true),
            ("10.0.0.7:9477", false),
            ("127.0.0.1:9478", true),
            ("10.0.0.7:9478", true),
            ("[2001:db8::7]:9478", true),
            ("10.0.0.9:9478", false),
        ] {
            let refusal = captured(&[]).refuse(target.parse().unwrap());
            assert_eq!(matches!(refusal, Some(Refusal::Agent { .. })), is_refused, "{target}");
        }
    }

    #[test]
    fn networks_narrow_what_is_captured() {
        let narrow = captured(&["10.0.0.7/32", "10.1.0.0/16"]);
        let refuse = |target: &str| narrow.refuse(target.parse().unwrap());
        assert!(matches!(refuse("10.0.0.7:80"), Some(Refusal::Local { .. })));
        assert!(matches!(refuse("[::ffff:10.0.0.7]:80"), Some(Refusal::Local { .. })));
        assert!(matches!(refuse("127.0.0.1:80"), Some(Refusal::Loopback { .. })));
        assert_eq!(refuse("10.0.0.8:80"), None, "another address of this host, not captured");
        assert_eq!(refuse("10.1.2.3:80"), None, "another host, whose requests do not arrive here");
        let mapped = captured(&["::ffff:10.0.0.0/112"]);
        assert!(matches!(mapped.refuse("10.0.0.7:80".parse().unwrap()), Some(Refusal::Local { .. })));
    }
}
