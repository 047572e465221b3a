//! Enters: any packet. Leaves: its TCP segment in the scratch, or a counter raised.
//!
//! Each step is a global function: it takes nothing but the context, finds what is known so far in the scratch, and
//! leaves what it found there. Such functions the verifier walks once, whatever calls them; kernels before 6.12 would
//! else walk each step again for every way that leads to it, and give up.

use aya_ebpf::bindings::__sk_buff;
use mirror_common::Counter;
use mirror_common::packet::{
    Layer, MAX_TUNNELS, PacketBytes, Step, Unparsed, ether_type, find_network, find_segment, protocol,
};

use crate::counters::add_at;
use crate::fragments::find_fragment;
use crate::ports::ConfiguredPorts;
use crate::scratch::scratch;
use crate::skb::Skb;

/// What a step came to: what it looked for is in the scratch.
const FOUND: u32 = 0;
/// What a step came to: the layer in the scratch is that of a packet to be parsed.
const INSIDE: u32 = 1;
/// What a step came to: the packet is none of ours.
const LEAVE: u32 = 2;
/// What a step came to: the network header in the scratch is that of a fragment.
const FRAGMENT: u32 = 3;
/// What a step came to: the packet may be ours, but cannot be used; plus the index of its counter.
const COUNT: u32 = 16;

/// Parses any packet, and counts those that may have been ours but cannot be used.
///
/// The scratch must not be referred to across this call.
#[inline(always)]
pub(crate) fn try_parse_any(skb: Skb) -> Option<()> {
    let outcome = mirror_parse(skb.raw());
    if outcome == FOUND {
        return Some(());
    }
    if let Some(index) = outcome.checked_sub(COUNT) {
        #[cfg(feature = "log")]
        aya_log_ebpf::debug!(&skb.context(), "Left out a packet, counter {}.", index);
        add_at(index, 1);
    }
    None
}

/// Goes from the packet's beginning to the innermost packet's segment.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn mirror_parse(skb: *mut __sk_buff) -> u32 {
    let mut outcome = mirror_find_start(skb);
    for _ in 0..=MAX_TUNNELS {
        if outcome != INSIDE {
            break;
        }
        outcome = mirror_find_network(skb);
        if outcome == FOUND {
            outcome = mirror_find_segment(skb);
        }
    }
    if outcome == FRAGMENT { mirror_find_fragment(skb) } else { outcome }
}

/// Finds where the packet's headers begin, and leaves that in the scratch as a layer.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn mirror_find_start(skb: *mut __sk_buff) -> u32 {
    let layer = outermost(Skb::new(skb));
    let Some(scratch) = scratch() else { return LEAVE };
    scratch.layer = layer;
    INSIDE
}

/// Goes from the layer in the scratch to what IP carries.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn mirror_find_network(skb: *mut __sk_buff) -> u32 {
    let Some(scratch) = scratch() else { return LEAVE };
    match find_network(&Skb::new(skb), &scratch.layer) {
        Ok(Step::Found(network)) => {
            scratch.network = network;
            FOUND
        }
        Ok(Step::Inside(layer)) => {
            scratch.layer = layer;
            INSIDE
        }
        Err(reason) => outcome(reason),
    }
}

/// Goes from the network header in the scratch to the segment, or into a tunnel.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn mirror_find_segment(skb: *mut __sk_buff) -> u32 {
    let Some(scratch) = scratch() else { return LEAVE };
    if scratch.network.is_tcp_fragment() {
        return FRAGMENT;
    }
    match find_segment(&Skb::new(skb), &scratch.network, &ConfiguredPorts) {
        Ok(Step::Found(packet)) => {
            scratch.packet = packet;
            FOUND
        }
        Ok(Step::Inside(layer)) => {
            scratch.layer = layer;
            INSIDE
        }
        Err(reason) => outcome(reason),
    }
}

/// Goes from the network header of a fragment in the scratch to its part of a segment.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn mirror_find_fragment(skb: *mut __sk_buff) -> u32 {
    let Some(scratch) = scratch() else { return LEAVE };
    match find_fragment(Skb::new(skb), &scratch.network) {
        Ok(packet) => {
            scratch.packet = packet;
            FOUND
        }
        Err(reason) => outcome(reason),
    }
}

/// What a step comes to that found a reason to go no further.
#[inline(always)]
fn outcome(reason: Unparsed) -> u32 {
    let counter = match reason {
        Unparsed::NotIp | Unparsed::NotTcp => return LEAVE,
        Unparsed::Fragment => Counter::Fragment,
        Unparsed::Truncated | Unparsed::Malformed => Counter::Malformed,
        Unparsed::TooDeep => Counter::TooDeep,
        Unparsed::Tunnel => Counter::Tunnel,
    };
    COUNT + counter as u32
}

/// Where the packet's headers begin.
#[inline(always)]
fn outermost(skb: Skb) -> Layer {
    let ether_type = ip_start(skb).unwrap_or(ether_type::BRIDGED);
    Layer::outermost(0, ether_type, skb.offloaded_tag())
}

/// The EtherType of the packet where it starts with an IP header instead of an Ethernet header.
#[inline(always)]
fn ip_start(skb: Skb) -> Option<u16> {
    let stack = u16::from_be(skb.protocol_be());
    let [first] = skb.load(0)?;
    let ether_type = if is_ip(stack, first) {
        stack
    } else if stack == ether_type::IPV6 && starts_with_outer(skb, first) {
        ether_type::IPV4
    } else {
        return None;
    };
    // Too short for an Ethernet header, it has none.
    let Some(type_there) = skb.load(12) else { return Some(ether_type) };
    (u16::from_be_bytes(type_there) != stack || skb.starts_with_network_header()).then_some(ether_type)
}

/// Whether IPv4 that carries IPv6 comes first. The stack goes by what is inside already at the device of such a tunnel, which shows the
/// header outside as well before Linux 5.14 (commit 730eed2772e7).
#[inline(always)]
fn starts_with_outer(skb: Skb, first: u8) -> bool {
    is_ip(ether_type::IPV4, first) && skb.load(9) == Some([protocol::IPV6])
}

/// Whether a packet that begins with this byte can begin with the IP header of this EtherType.
#[inline(always)]
fn is_ip(ether_type: u16, first: u8) -> bool {
    match ether_type {
        ether_type::IPV4 => first >> 4 == 4,
        ether_type::IPV6 => first >> 4 == 6,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use mirror_common::packet::ether_type;

    use super::is_ip;

    #[test]
    fn version_has_to_be_that_of_the_ether_type() {
        assert!(is_ip(ether_type::IPV4, 0x46) && is_ip(ether_type::IPV6, 0x6f));
        assert!(!is_ip(ether_type::IPV4, 0x60) && !is_ip(ether_type::IPV6, 0x45));
        assert!(!is_ip(ether_type::VLAN, 0x45));
    }
}
