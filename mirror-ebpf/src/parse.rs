//! Enters: any packet. Leaves: its TCP segment in the scratch, or a counter raised.
//!
//! Each step is a global function: it takes nothing but the context, finds what is known so far in the scratch, and
//! leaves what it found there. Such functions the verifier walks once, whatever calls them; kernels before 6.12 would
//! else walk each step again for every way that leads to it, and give up.

use aya_ebpf::bindings::__sk_buff;
use mirror_common::Counter;
use mirror_common::packet::{
    Layer, MAX_TUNNELS, PacketBytes, Step, Unparsed, ether_type, find_network, find_segment,
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
    let protocol = u16::from_be(skb.protocol_be());
    let first: [u8; 16] = skb.load(0)?;
    match starts_with_ip(protocol, &first) {
        Reading::Ip => Some(protocol),
        Reading::Ethernet => None,
        // The kernel knows where the network header is, but does not give its offset: compare what is there.
        Reading::Either => {
            (u128::from_ne_bytes(skb.network_header()?) == u128::from_ne_bytes(first)).then_some(protocol)
        }
    }
}

/// How the first bytes of a packet can be read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Reading {
    Ethernet,
    Ip,
    Either,
}

/// Tells an IP header from an Ethernet header by the EtherType that the stack goes by.
#[inline(always)]
fn starts_with_ip(protocol: u16, first: &[u8; 16]) -> Reading {
    let version = match protocol {
        ether_type::IPV4 => 4,
        ether_type::IPV6 => 6,
        _ => return Reading::Ethernet,
    };
    let is_ip = first[0] >> 4 == version;
    let is_ethernet = u16::from_be_bytes([first[12], first[13]]) == protocol;
    match (is_ip, is_ethernet) {
        (false, _) => Reading::Ethernet,
        (true, false) => Reading::Ip,
        (true, true) => Reading::Either,
    }
}

#[cfg(test)]
mod tests {
    use mirror_common::packet::ether_type;

    use super::{Reading, starts_with_ip};

    #[test]
    fn ip_header_is_told_from_ethernet_header() {
        let ethernet = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0];
        let ip = [0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0, 192, 0, 2, 1];
        let both = [0x46, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0];

        assert_eq!(starts_with_ip(ether_type::IPV4, &ethernet), Reading::Ethernet);
        assert_eq!(starts_with_ip(ether_type::IPV4, &ip), Reading::Ip);
        assert_eq!(starts_with_ip(ether_type::IPV4, &both), Reading::Either);
        assert_eq!(starts_with_ip(ether_type::VLAN, &both), Reading::Ethernet);
    }
}
