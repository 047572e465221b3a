//! Enters: ports, networks, ring sizes as the user says them. Leaves: keys and values of the kernel program's maps.

use std::{
    mem::{offset_of, size_of},
    net::{IpAddr, SocketAddr},
};

use ipnet::IpNet;
use mirror_common::{
    maps::{
        KernelConfig, MAX_ADDRESSES, MAX_RINGS, PORT_WORDS, SocketKey, TUNNEL_PORT_WORDS, tunnel_bits,
        tunnel_port_place,
    },
    packet::UdpTunnel,
};

use crate::io::capture::sys::page_bytes;

/// What the kernel program is to match, and through what it hands it over.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct KernelRules {
    /// The matched ports, none of them zero; nothing is matched where there are none yet.
    pub ports: Vec<u16>,
    /// Networks that a server's address must be in; empty for any.
    pub addresses: Vec<IpNet>,
    /// UDP ports to which VXLAN packets go; empty where none are to be looked into.
    pub vxlan_ports: Vec<u16>,
    /// UDP ports to which Geneve packets go; likewise.
    pub geneve_ports: Vec<u16>,
    /// Size of each ring in bytes: a power of two, and a multiple of the page size.
    pub ring_bytes: u32,
    /// How many rings there are, one a capture thread: a power of two, 1 to [`MAX_RINGS`].
    pub rings: u32,
    /// The SO_MARK of the agent's replay sockets; 0 for none.
    pub own_mark: u32,
    /// The reader is woken at most once in so many nanoseconds a CPU.
    pub wake_interval_ns: u32,
}

/// Why the rules cannot be given to the kernel program.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum RulesError {
    /// Port 0 is no port.
    #[error("port 0 cannot be matched")]
    PortZero,
    /// There are more networks than the map holds.
    #[error("{count} networks are more than the {MAX_ADDRESSES} that can be matched")]
    TooManyAddresses {
        /// How many were given.
        count: usize,
    },
    /// A UDP port can be that of one kind of tunnel only.
    #[error("UDP port {port} cannot be that of VXLAN and of Geneve")]
    TunnelPort {
        /// The port given for both.
        port: u16,
    },
    /// The ring size is not one that the kernel takes.
    #[error(
        "a ring of {bytes} bytes is not possible: take a power of two from {page_bytes} to 1073741824 bytes"
    )]
    RingSize {
        /// What was given.
        bytes: u32,
        /// The page size of this machine.
        page_bytes: u32,
    },
    /// The number of rings is not one that the kernel program takes.
    #[error("{count} capture threads are not possible: take 1, 2, 4 or {MAX_RINGS}")]
    RingCount {
        /// What was given.
        count: u32,
    },
}

/// The largest ring that this agent makes: half of what 32 bits of size can say as a power of two.
const RING_MAX_BYTES: u32 = 1 << 30;

impl KernelRules {
    /// The smallest size of a ring on this machine: a page.
    #[must_use]
    pub fn smallest_ring_bytes() -> u32 {
        page_bytes()
    }

    /// Checks all that the kernel would refuse with a bare number.
    ///
    /// # Errors
    ///
    /// Any of [`RulesError`], the first that applies.
    pub fn validate(&self, page_bytes: u32) -> Result<(), RulesError> {
        if self.ports.contains(&0) {
            return Err(RulesError::PortZero);
        }
        if self.addresses.len() > usize::try_from(MAX_ADDRESSES).unwrap_or(usize::MAX) {
            return Err(RulesError::TooManyAddresses { count: self.addresses.len() });
        }
        if let Some(&port) = self.vxlan_ports.iter().find(|port| self.geneve_ports.contains(port)) {
            return Err(RulesError::TunnelPort { port });
        }
        if !self.ring_bytes.is_power_of_two() || !(page_bytes..=RING_MAX_BYTES).contains(&self.ring_bytes) {
            return Err(RulesError::RingSize { bytes: self.ring_bytes, page_bytes });
        }
        if !self.rings.is_power_of_two() || self.rings > MAX_RINGS {
            return Err(RulesError::RingCount { count: self.rings });
        }
        Ok(())
    }

    /// The value of the configuration map, not paused.
    pub(super) fn config(&self) -> KernelConfig {
        KernelConfig {
            paused: 0,
            rings: self.rings,
            own_mark: self.own_mark,
            match_addresses: u32::from(!self.addresses.is_empty()),
            wake_interval_ns: self.wake_interval_ns,
            ..KernelConfig::default()
        }
    }
}

/// A set of ports, in the shape of the kernel program's port maps: port `p` is bit `p % 64` of word `p / 64`.
#[derive(Clone, Debug)]
pub(super) struct PortSet(Vec<u64>);

impl PortSet {
    /// The empty set.
    pub(super) fn new() -> Self {
        Self(vec![0; usize::try_from(PORT_WORDS).unwrap_or_default()])
    }

    /// Sets or clears the bit of `port` and returns the index and the value of its word.
    pub(super) fn set(&mut self, port: u16, is_member: bool) -> (u32, u64) {
        let index = port / 64;
        let bit = 1 << (port % 64);
        let Some(word) = self.0.get_mut(usize::from(index)) else { return (u32::from(index), 0) };
        *word = if is_member { *word | bit } else { *word & !bit };
        (u32::from(index), *word)
    }
}

/// The words of the kernel program's map of tunnel ports for these, all that are not zero: index and value.
pub(super) fn tunnel_port_words(rules: &KernelRules) -> Vec<(u32, u64)> {
    let mut words = vec![0; usize::try_from(TUNNEL_PORT_WORDS).unwrap_or_default()];
    let kinds = [(&rules.vxlan_ports, UdpTunnel::Vxlan), (&rules.geneve_ports, UdpTunnel::Geneve)];
    for (ports, tunnel) in kinds {
        for &port in ports {
            let (index, shift) = tunnel_port_place(port);
            if let Some(word) = usize::try_from(index).ok().and_then(|index| words.get_mut(index)) {
                *word |= tunnel_bits(tunnel) << shift;
            }
        }
    }
    (0..).zip(words).filter(|(_, word)| *word != 0).collect()
}

/// The key of the address trie for `network`: its prefix length in v4-mapped form, and its address.
pub(super) fn trie_key(network: IpNet) -> (u32, [u8; 16]) {
    match network {
        IpNet::V4(v4) => (96 + u32::from(v4.prefix_len()), v4.network().to_ipv6_mapped().octets()),
        IpNet::V6(v6) => (u32::from(v6.prefix_len()), v6.network().octets()),
    }
}

/// Length of a [`SocketKey`] in bytes.
pub(super) const SOCKET_KEY_LEN: usize = size_of::<SocketKey>();

/// The bytes of the [`SocketKey`] of a local end.
pub(super) fn socket_key(address: SocketAddr) -> [u8; SOCKET_KEY_LEN] {
    let octets = match address.ip() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    };
    let mut key = [0; SOCKET_KEY_LEN];
    key[..octets.len()].copy_from_slice(&octets);
    key[offset_of!(SocketKey, port)..][..2].copy_from_slice(&address.port().to_ne_bytes());
    key
}

const _: () = {
    assert!(offset_of!(SocketKey, addr) == 0);
};

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> KernelRules {
        KernelRules {
            ports: vec![80],
            addresses: Vec::new(),
            vxlan_ports: vec![4789],
            geneve_ports: vec![6081],
            ring_bytes: 1 << 20,
            rings: 2,
            own_mark: 0,
            wake_interval_ns: 1_000_000,
        }
    }

    #[test]
    fn rules_that_the_kernel_would_refuse_are_named() {
        let size = |bytes| RulesError::RingSize { bytes, page_bytes: 4096 };
        let cases = [
            (KernelRules { ports: vec![80, 0], ..rules() }, RulesError::PortZero),
            (KernelRules { vxlan_ports: vec![4789, 6081], ..rules() }, RulesError::TunnelPort { port: 6081 }),
            (KernelRules { ring_bytes: 2048, ..rules() }, size(2048)),
            (KernelRules { ring_bytes: 12_288, ..rules() }, size(12_288)),
            (KernelRules { ring_bytes: 1 << 31, ..rules() }, size(1 << 31)),
            (KernelRules { ring_bytes: 0, ..rules() }, size(0)),
            (KernelRules { rings: 0, ..rules() }, RulesError::RingCount { count: 0 }),
            (KernelRules { rings: 3, ..rules() }, RulesError::RingCount { count: 3 }),
            (KernelRules { rings: 16, ..rules() }, RulesError::RingCount { count: 16 }),
        ];
        for (rules, error) in cases {
            assert_eq!(rules.validate(4096), Err(error));
        }
        assert_eq!(rules().validate(4096), Ok(()));
    }

    #[test]
    fn a_port_is_one_bit_of_one_word() {
        let mut ports = PortSet::new();
        assert_eq!(ports.set(64, true), (1, 1));
        assert_eq!(ports.set(127, true), (1, 1 | 1 << 63));
        assert_eq!(ports.set(64, false), (1, 1 << 63));
        assert_eq!(ports.set(65_535, true), (1023, 1 << 63));
        assert_eq!(ports.set(0, true), (0, 1));
    }

    #[test]
    fn tunnel_ports_are_two_bits_each() {
        let words = |vxlan: &[u16], geneve: &[u16]| {
            tunnel_port_words(&KernelRules {
                vxlan_ports: vxlan.to_vec(),
                geneve_ports: geneve.to_vec(),
                ..rules()
            })
        };
        assert_eq!(words(&[], &[]), []);
        assert_eq!(words(&[32, 8472], &[63]), [(1, 1 | 2 << 62), (264, 1 << 48)]);
        assert_eq!(words(&[], &[65_535]), [(2047, 2 << 62)]);
    }

    #[test]
    fn an_ipv4_network_is_96_bits_deeper_in_the_trie() {
        let mapped = |a, b, c, d| [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d];
        assert_eq!(trie_key("10.1.2.3/8".parse().unwrap()), (104, mapped(10, 0, 0, 0)));
        assert_eq!(trie_key("192.0.2.1/32".parse().unwrap()), (128, mapped(192, 0, 2, 1)));
        assert_eq!(trie_key("0.0.0.0/0".parse().unwrap()), (96, mapped(0, 0, 0, 0)));
        let (len, octets) = trie_key("2001:db8:ffff::/33".parse().unwrap());
        assert_eq!((len, &octets[..6]), (33, &[0x20, 0x01, 0x0d, 0xb8, 0x80, 0][..]));
    }

    #[test]
    fn a_v4_mapped_local_end_has_the_key_of_the_ipv4_one() {
        let v4 = socket_key("192.0.2.1:4242".parse().unwrap());
        assert_eq!(v4, socket_key("[::ffff:192.0.2.1]:4242".parse().unwrap()));
        assert_eq!(u16::from_ne_bytes([v4[16], v4[17]]), 4242);
    }
}
