//! Enters: the ends of a segment. Leaves: whether it is one of a replay connection of the agent.

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::btf_maps::{Array, HashMap, LruHashMap};
use aya_ebpf::macros::btf_map;
use mirror_common::maps::{
    KernelConfig, MAX_NAMESAKES, MAX_OWN_SOCKETS, Namesake, PORT_WORDS, SocketKey, own_end,
};
use mirror_common::packet::TcpPacket;

use crate::address::bytes_of;
use crate::config::config;
use crate::ports::has_bit;
use crate::scratch::{Slot, scratch};
use crate::skb::Skb;
use crate::sock::{mark_of_connection, mark_of_sender};

/// [`mirror_common::maps::map::OWN_PORTS`].
#[btf_map]
static OWN_PORTS: Array<u64, { PORT_WORDS as usize }> = Array::new();

/// [`mirror_common::maps::map::OWN_SOCKETS`].
#[btf_map]
static OWN_SOCKETS: HashMap<SocketKey, u8, { MAX_OWN_SOCKETS as usize }> = HashMap::new();

/// [`mirror_common::maps::map::NAMESAKES`].
#[btf_map]
static NAMESAKES: LruHashMap<Namesake, u8, { MAX_NAMESAKES as usize }> = LruHashMap::new();

/// Which of a segment's ends a function is to look at.
const SOURCE: u32 = 0;
/// The other.
const DESTINATION: u32 = 1;

/// Whether the agent's own replay sends or receives the segment in the scratch.
///
/// Both ends are looked at: where a matched port lies in the range from which the kernel takes local ports, the
/// agent's end can be the one that looks like a server.
#[inline(always)]
pub(crate) fn is_own(skb: Skb, slot: Slot, config: &KernelConfig) -> bool {
    let TcpPacket { src_port, dst_port, .. } = slot.take().packet;
    (may_be_own(src_port) && mirror_is_own_end(skb.raw(), SOURCE) != 0)
        || (may_be_own(dst_port) && mirror_is_own_end(skb.raw(), DESTINATION) != 0)
        || (config.own_mark != 0 && skb.mark() == config.own_mark)
}

#[inline(always)]
fn may_be_own(port: u16) -> bool {
    has_bit(OWN_PORTS.get(u32::from(port) / 64), port)
}

/// Whether an end of the segment in the scratch is that of a replay connection.
///
/// Its address and port do not tell: Linux gives a local port to several connections as long as they lead elsewhere.
/// Where they lead does not tell either: the agent knows the address it connected to, which may have been translated since.
/// So it is asked whose the socket is, where it can be found, and remembered for the segments where it cannot.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn mirror_is_own_end(skb: *mut __sk_buff, which: u32) -> u32 {
    let Some(config) = config() else { return 0 };
    let Some(scratch) = scratch() else { return 0 };
    let packet = &scratch.packet;
    let source = SocketKey { addr: bytes_of(packet.src), port: packet.src_port, reserved: 0 };
    let destination = SocketKey { addr: bytes_of(packet.dst), port: packet.dst_port, reserved: 0 };
    let ends = if which == SOURCE {
        Namesake { local: source, peer: destination }
    } else {
        Namesake { local: destination, peer: source }
    };
    // SAFETY: the value is one byte, which is read once.
    let Some(known) = (unsafe { OWN_SOCKETS.get(ends.local) }) else { return 0 };
    if *known != own_end::MARKED || config.own_mark == 0 {
        return 1;
    }
    u32::from(!is_namesake(Skb::new(skb), &ends, which == SOURCE, config.own_mark))
}

/// Whether a connection with an own local end is that of another socket. It is not where nothing tells: of a copy nothing
/// may be copied again.
#[inline(always)]
fn is_namesake(skb: Skb, ends: &Namesake, is_sent: bool, own_mark: u32) -> bool {
    if is_sent {
        // The one place where an address that is translated does not hide the socket.
        let mark = if skb.mark() == own_mark { Some(own_mark) } else { mark_of_sender(skb, ends.local.port) };
        if let Some(mark) = mark {
            return remember(ends, mark != own_mark);
        }
    }
    match mark_of_connection(skb, ends) {
        Some(mark) => mark != own_mark,
        None => is_remembered(ends),
    }
}

#[inline(always)]
fn remember(ends: &Namesake, is_namesake: bool) -> bool {
    if is_remembered(ends) == is_namesake {
        return is_namesake;
    }
    let remembered = if is_namesake { NAMESAKES.insert(ends, 1, 0) } else { NAMESAKES.remove(ends) };
    // For want of memory the connection is taken for the agent's, on both sides.
    is_namesake && remembered.is_ok()
}

#[inline(always)]
fn is_remembered(ends: &Namesake) -> bool {
    // SAFETY: only whether there is a value is asked, so it does not matter that its slot may be used again.
    unsafe { NAMESAKES.get(ends) }.is_some()
}
