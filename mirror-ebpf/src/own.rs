//! Enters: the ends of a segment. Leaves: whether one of them is a replay connection of the agent.

use aya_ebpf::btf_maps::{Array, HashMap};
use aya_ebpf::macros::btf_map;
use mirror_common::maps::{MAX_OWN_SOCKETS, PORT_WORDS, SocketKey};
use mirror_common::packet::TcpPacket;

use crate::ports::has_bit;

/// [`mirror_common::maps::map::OWN_PORTS`].
#[btf_map]
static OWN_PORTS: Array<u64, { PORT_WORDS as usize }> = Array::new();

/// [`mirror_common::maps::map::OWN_SOCKETS`].
#[btf_map]
static OWN_SOCKETS: HashMap<SocketKey, u8, { MAX_OWN_SOCKETS as usize }> = HashMap::new();

/// Whether the agent's own replay sends or receives the segment.
///
/// Both ends are looked at: where a matched port lies in the range from which the kernel takes local ports, the
/// agent's end can be the one that looks like a server.
#[inline(always)]
pub(crate) fn is_own(packet: &TcpPacket) -> bool {
    is_own_end(&packet.src, packet.src_port) || is_own_end(&packet.dst, packet.dst_port)
}

#[inline(always)]
fn is_own_end(addr: &[u8; 16], port: u16) -> bool {
    if !has_bit(OWN_PORTS.get(u32::from(port) / 64), port) {
        return false;
    }
    let key = SocketKey { addr: *addr, port, reserved: 0 };
    // SAFETY: only whether there is a value is asked, so it does not matter that its slot may be used again.
    unsafe { OWN_SOCKETS.get(key) }.is_some()
}
