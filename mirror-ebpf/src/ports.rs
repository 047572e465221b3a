//! Enters: a port. Leaves: whether it is matched, or that of a tunnel.

use aya_ebpf::btf_maps::Array;
use aya_ebpf::macros::btf_map;
use mirror_common::maps::{PORT_WORDS, TUNNEL_PORT_WORDS, tunnel_of_bits, tunnel_port_place};
use mirror_common::packet::{TunnelPorts, UdpTunnel};

/// [`mirror_common::maps::map::PORTS`]; array look-ups are inlined, which makes this a shift and a load.
#[btf_map]
static PORTS: Array<u64, { PORT_WORDS as usize }> = Array::new();

/// [`mirror_common::maps::map::ANSWER_PORTS`].
#[btf_map]
static ANSWER_PORTS: Array<u64, { PORT_WORDS as usize }> = Array::new();

/// [`mirror_common::maps::map::TUNNEL_PORTS`].
#[btf_map]
static TUNNEL_PORTS: Array<u64, { TUNNEL_PORT_WORDS as usize }> = Array::new();

/// The UDP ports of tunnels, as the agent gave them.
pub(crate) struct ConfiguredPorts;

impl TunnelPorts for ConfiguredPorts {
    #[inline(always)]
    fn tunnel(&self, port: u16) -> Option<UdpTunnel> {
        let (index, shift) = tunnel_port_place(port);
        tunnel_of_bits(TUNNEL_PORTS.get(index)? >> shift)
    }
}

/// Whether segments of this port are to be copied.
#[inline(always)]
pub(crate) fn is_matched(port: u16) -> bool {
    has_bit(PORTS.get(u32::from(port) / 64), port)
}

/// Whether payload that servers of this port send is to be copied whole.
#[inline(always)]
pub(crate) fn is_answer_read(port: u16) -> bool {
    has_bit(ANSWER_PORTS.get(u32::from(port) / 64), port)
}

/// Whether the bit of `port` is set in its word.
#[inline(always)]
pub(crate) fn has_bit(word: Option<&u64>, port: u16) -> bool {
    match word {
        Some(word) => word >> (port % 64) & 1 != 0,
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::has_bit;

    #[test]
    fn port_is_bit_of_its_word() {
        let word = 1 << (8080 % 64);

        assert!(has_bit(Some(&word), 8080));
        assert!(!has_bit(Some(&word), 8081));
        assert!(!has_bit(None, 8080));
    }
}
