//! Enters: a packet and the ends of its connection. Leaves: the mark of the socket it belongs to, where there is one here.

use core::mem::size_of;
use core::ptr;

use aya_ebpf::bindings::{
    BPF_F_CURRENT_NETNS, bpf_sock, bpf_sock_tuple, bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1 as Tuple4,
    bpf_sock_tuple__bindgen_ty_1__bindgen_ty_2 as Tuple6,
};
use aya_ebpf::helpers::{bpf_sk_fullsock, bpf_sk_lookup_tcp, bpf_sk_release};
use mirror_common::maps::Namesake;

use crate::skb::Skb;

/// A socket that waits for connections: what is found where the connection asked for is not there (`TCP_LISTEN` of
/// `include/net/tcp_states.h`).
const LISTEN: u32 = 10;

/// What precedes an IPv4 address in the form for both families.
const MAPPED: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];

/// Reads one field of a socket. The verifier wants each as a load of its own size at its own offset.
macro_rules! field {
    ($socket:expr, $field:ident) => {
        // SAFETY: every caller has the socket from a helper, by which it is valid, and has seen that it is not null.
        unsafe { ptr::read_volatile(&raw const (*$socket).$field) }
    };
}

/// The mark of the socket that sends the packet from `local_port`; `None` where it is not known any more, as it is of packets
/// that were forwarded or have arrived.
#[inline(always)]
pub(crate) fn mark_of_sender(skb: Skb, local_port: u16) -> Option<u32> {
    let socket = skb.socket();
    if socket.is_null() {
        return None;
    }
    // SAFETY: the context's socket, which is not null.
    let socket = unsafe { bpf_sk_fullsock(socket) };
    // A packet can arrive with the socket that sent it, of another network namespace: its port is the peer's.
    if socket.is_null() || field!(socket, src_port) != u32::from(local_port) {
        return None;
    }
    Some(field!(socket, mark))
}

/// The mark of the socket of a connection in the network namespace of the packet's interface; `None` where there is no
/// such socket, be it that it is of another namespace, or that an address of the connection was translated.
#[inline(always)]
pub(crate) fn mark_of_connection(skb: Skb, ends: &Namesake) -> Option<u32> {
    let (local, peer) = (&ends.local, &ends.peer);
    let (sport, dport) = (peer.port.to_be(), local.port.to_be());
    if local.addr.starts_with(&MAPPED) && peer.addr.starts_with(&MAPPED) {
        let tuple = Tuple4 { saddr: quad(&peer.addr, 12), daddr: quad(&local.addr, 12), sport, dport };
        look_up(skb, tuple)
    } else {
        let words = |addr| [quad(addr, 0), quad(addr, 4), quad(addr, 8), quad(addr, 12)];
        look_up(skb, Tuple6 { saddr: words(&peer.addr), daddr: words(&local.addr), sport, dport })
    }
}

/// Looks a connection up, as the stack would for a packet that arrives on it. The helper tells the family by the length.
#[inline(always)]
fn look_up<T>(skb: Skb, mut tuple: T) -> Option<u32> {
    // SAFETY: the context is valid while the program runs, and the tuple is as long as is said.
    let socket = unsafe {
        bpf_sk_lookup_tcp(
            skb.raw().cast(),
            (&raw mut tuple).cast::<bpf_sock_tuple>(),
            size_of::<T>() as u32,
            BPF_F_CURRENT_NETNS as u64,
            0,
        )
    };
    if socket.is_null() {
        return None;
    }
    let (state, mark) = (field!(socket, state), field!(socket, mark));
    // SAFETY: the look-up has taken a reference, which is given back once.
    let _ = unsafe { bpf_sk_release(socket.cast::<bpf_sock>().cast()) };
    (state != LISTEN).then_some(mark)
}

/// Four bytes of an address as they stand.
#[inline(always)]
fn quad(addr: &[u8; 16], at: usize) -> u32 {
    u32::from_ne_bytes([addr[at], addr[at + 1], addr[at + 2], addr[at + 3]])
}
