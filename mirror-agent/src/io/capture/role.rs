//! Enters: what the user said of an interface and what the kernel says of it. Leaves: its role.

use std::{fmt, str::FromStr};

use mirror_common::maps::program;

use crate::io::capture::{glob::Glob, links::Link};

/// The longest interface name in bytes: `IFNAMSIZ` of the kernel less the closing zero.
const NAME_MAX_BYTES: usize = 15;

/// Where an interface stands between clients and servers, which decides the hook that sees requests.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Role {
    /// A node's uplink, or a pod's own interface: requests arrive at it.
    Node,
    /// The host side of a pod's veth, or a bridge that pods hang on: requests leave through it.
    Pod,
    /// The loopback device: both sides arrive at it.
    Loopback,
}

/// A hook of an interface.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Hook {
    /// Packets that arrive.
    Ingress,
    /// Packets that leave.
    Egress,
}

impl Hook {
    /// Both hooks.
    pub const ALL: [Self; 2] = [Self::Ingress, Self::Egress];

    /// The name in logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }
}

impl Role {
    /// All roles.
    pub const ALL: [Self; 3] = [Self::Node, Self::Pod, Self::Loopback];

    /// The words of all roles, in the order of [`Self::ALL`].
    pub const LABELS: [&str; 3] = [Self::ALL[0].as_str(), Self::ALL[1].as_str(), Self::ALL[2].as_str()];

    /// The role of `link`, where the user did not say it.
    #[must_use]
    pub fn detect(link: &Link) -> Self {
        if link.is_loopback {
            return Self::Loopback;
        }
        let is_pod_side = match link.kind.as_str() {
            "bridge" => true,
            // A veth with an address of its own is an end point: a pod's eth0 seen from within, or a routed link
            // between namespaces.
            // The same goes for netkit, which is a veth for containers.
            "veth" | "netkit" => link.master.is_some() || !link.has_global_address,
            _ => false,
        };
        if is_pod_side { Self::Pod } else { Self::Node }
    }

    /// The programs of this role and where they are attached.
    #[must_use]
    pub const fn programs(self) -> &'static [(&'static str, Hook)] {
        match self {
            Self::Node => &[(program::REQUESTS, Hook::Ingress), (program::RESPONSES, Hook::Egress)],
            Self::Pod => &[(program::REQUESTS, Hook::Egress), (program::RESPONSES, Hook::Ingress)],
            Self::Loopback => &[(program::BOTH, Hook::Ingress)],
        }
    }

    /// The word of the command line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Pod => "pod",
            Self::Loopback => "lo",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What an item of `--interface` says of the interfaces that it means.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Pattern {
    /// The one of this name.
    Name(String),
    /// All but loopback whose names match.
    Glob(Glob),
    /// Those by which the default routes leave, IPv4 and IPv6.
    Auto,
}

/// One item of `--interface`: a name, a pattern or `auto`, and maybe `:ROLE`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct InterfaceSpec {
    /// Which interfaces.
    pub pattern: Pattern,
    /// Their role; `None` where it is to be found.
    pub role: Option<Role>,
}

impl InterfaceSpec {
    /// The name, where the item is one.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        match &self.pattern {
            Pattern::Name(name) => Some(name),
            Pattern::Glob(_) | Pattern::Auto => None,
        }
    }
}

impl fmt::Display for InterfaceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.pattern {
            Pattern::Name(name) => f.write_str(name),
            Pattern::Glob(glob) => glob.fmt(f),
            Pattern::Auto => f.write_str(AUTO),
        }?;
        self.role.map_or(Ok(()), |role| write!(f, ":{role}"))
    }
}

/// The word for the interfaces of the default routes. An interface of this name can be had by `[a]uto`.
const AUTO: &str = "auto";

/// Why an item of `--interface` cannot be used.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum InterfaceSpecError {
    /// No interface has such a name.
    #[error("{name:?} cannot be an interface's name: 1 to {NAME_MAX_BYTES} bytes, no slash, colon or space")]
    Name {
        /// What was given.
        name: String,
    },
    /// The pattern is not one.
    #[error("{pattern:?} is not a pattern: a set in brackets does not end, or holds nothing")]
    Pattern {
        /// What was given.
        pattern: String,
    },
    /// The word after the colon is not a role.
    #[error("{role:?} is not a role: node, pod or lo")]
    Role {
        /// What was given.
        role: String,
    },
}

impl FromStr for InterfaceSpec {
    type Err = InterfaceSpecError;

    fn from_str(spec: &str) -> Result<Self, Self::Err> {
        let (name, role) = match spec.split_once(':') {
            Some((name, "node")) => (name, Some(Role::Node)),
            Some((name, "pod")) => (name, Some(Role::Pod)),
            Some((name, "lo")) => (name, Some(Role::Loopback)),
            Some((_, role)) => return Err(InterfaceSpecError::Role { role: role.to_owned() }),
            None => (spec, None),
        };
        if name == AUTO {
            return Ok(Self { pattern: Pattern::Auto, role });
        }
        if Glob::is_pattern(name) {
            let glob = Glob::parse(name);
            let glob = glob.ok_or_else(|| InterfaceSpecError::Pattern { pattern: name.to_owned() })?;
            return Ok(Self { pattern: Pattern::Glob(glob), role });
        }
        // The kernel's own rule, dev_valid_name() in net/core/dev.c.
        let is_valid = (1..=NAME_MAX_BYTES).contains(&name.len())
            && !matches!(name, "." | "..")
            && !name.contains(|c: char| matches!(c, '/' | ':') || c.is_ascii_whitespace());
        if !is_valid {
            return Err(InterfaceSpecError::Name { name: name.to_owned() });
        }
        Ok(Self { pattern: Pattern::Name(name.to_owned()), role })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(kind: &str, master: Option<u32>, has_global_address: bool) -> Link {
        Link {
            index: 7,
            name: "x".to_owned(),
            kind: kind.to_owned(),
            master,
            is_up: true,
            is_loopback: false,
            has_global_address,
        }
    }

    #[test]
    fn role_follows_from_kind_master_and_addresses() {
        let cases = [
            ("", None, true, Role::Node),
            ("", Some(3), false, Role::Node),
            ("bond", None, true, Role::Node),
            ("wireguard", None, true, Role::Node),
            ("vxlan", Some(3), false, Role::Node),
            ("bridge", None, true, Role::Pod),
            ("bridge", None, false, Role::Pod),
            ("veth", None, false, Role::Pod),
            ("veth", Some(3), false, Role::Pod),
            ("veth", Some(3), true, Role::Pod),
            ("veth", None, true, Role::Node),
            ("netkit", None, false, Role::Pod),
            ("netkit", None, true, Role::Node),
        ];
        for (kind, master, has_global_address, role) in cases {
            assert_eq!(Role::detect(&link(kind, master, has_global_address)), role, "{kind} {master:?}");
        }
        assert_eq!(Role::detect(&Link { is_loopback: true, ..link("", None, true) }), Role::Loopback);
    }

    #[test]
    fn interface_specs_parse() {
        let spec = |name: &str, role| Ok(InterfaceSpec { pattern: Pattern::Name(name.to_owned()), role });
        let glob = |pattern: &str, role| {
            Ok(InterfaceSpec { pattern: Pattern::Glob(Glob::parse(pattern).unwrap()), role })
        };
        let auto = |role| Ok(InterfaceSpec { pattern: Pattern::Auto, role });
        let bad_pattern = |pattern: &str| Err(InterfaceSpecError::Pattern { pattern: pattern.to_owned() });
        let bad_name = |name: &str| Err(InterfaceSpecError::Name { name: name.to_owned() });
        let bad_role = |role: &str| Err(InterfaceSpecError::Role { role: role.to_owned() });
        let cases = [
            ("eth0", spec("eth0", None)),
            ("eth0.100:node", spec("eth0.100", Some(Role::Node))),
            ("cali0123456789a:pod", spec("cali0123456789a", Some(Role::Pod))),
            ("lo:lo", spec("lo", Some(Role::Loopback))),
            ("cali0123456789ab", bad_name("cali0123456789ab")),
            ("", bad_name("")),
            (":pod", bad_name("")),
            ("a/b", bad_name("a/b")),
            ("a b:node", bad_name("a b")),
            ("..", bad_name("..")),
            ("eth0:", bad_role("")),
            ("eth0:Pod", bad_role("Pod")),
            ("eth0:1:pod", bad_role("1:pod")),
            ("lxc*", glob("lxc*", None)),
            ("cali[0-9a-f]?*:pod", glob("cali[0-9a-f]?*", Some(Role::Pod))),
            ("[a]uto", glob("[a]uto", None)),
            ("veth[", bad_pattern("veth[")),
            ("auto", auto(None)),
            ("auto:node", auto(Some(Role::Node))),
        ];
        for (text, expected) in cases {
            assert_eq!(text.parse(), expected, "{text}");
            if let Ok(spec) = expected {
                assert_eq!(spec.to_string(), text);
            }
        }
    }
}
