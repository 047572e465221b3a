//! Enters: a packet. Leaves: it is left alone, counted, or given on to be copied.
//!
//! Most packets are none of ours, and of those most are plain: TCP or UDP after an Ethernet and an IP header without
//! options. They are told by a few loads at constant offsets and one look-up. Everything else takes the slow way
//! through [`crate::parse`]: tags, options, extension headers, tunnels, links without Ethernet, and packets whose
//! headers are not in the linear part.

use mirror_common::maps::KernelConfig;
use mirror_common::packet::{TcpPacket, TunnelPorts, ether_type, parse_plain, protocol, tcp_flag};
use mirror_common::{Counter, RecordSide};

use crate::config::config;
use crate::connection::Fate;
use crate::counters::count;
use crate::emit::{emit, emit_let_go};
use crate::parse::try_parse_any;
use crate::ports::ConfiguredPorts;
use crate::scratch::{Slot, slot};
use crate::skb::Skb;
use crate::{address, connection, own, ports};

/// Which port makes a packet ours: a constant of each entry point.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(crate) enum Role {
    /// The destination port; the packet was sent by a client.
    Requests,
    /// The source port; the packet was sent by a server.
    Responses,
    /// The destination port, else the source port.
    Both,
}

/// What the first look at a packet found.
enum Glance {
    /// No TCP over IP, and no tunnel that could hold it.
    Leave,
    /// TCP, with the ports that the plain layout gives.
    Tcp { src_port: u16, dst_port: u16 },
    /// Not plain.
    Unclear,
}

const IPV4_BE: u16 = ether_type::IPV4.to_be();
const IPV6_BE: u16 = ether_type::IPV6.to_be();

/// More fragments, or a fragment offset.
const FRAGMENT_BE: u16 = 0x3fff_u16.to_be();

/// Looks at a packet and copies its segment where it is matched.
///
/// What follows the first look is in functions of their own: the entry points stay short, and each part has
/// the stack to itself.
#[inline(always)]
pub(crate) fn try_classify(skb: Skb, role: Role) -> Option<()> {
    match glance(skb) {
        Glance::Leave => None,
        Glance::Tcp { src_port, dst_port } => try_plain(skb, side(role, src_port, dst_port)?),
        Glance::Unclear => try_unclear(skb, role),
    }
}

/// Copies the segment of a plain packet of which the ports are known to be matched.
#[inline(never)]
fn try_plain(skb: Skb, side: RecordSide) -> Option<()> {
    let config = config()?;
    if config.paused != 0 {
        return None;
    }
    let slot = match parse_plain(&skb.linear(), skb.offloaded_tag()) {
        Ok(packet) => {
            let slot = slot()?;
            slot.take().packet = packet;
            slot
        }
        Err(_) => {
            try_parse_any(skb)?;
            slot()?
        }
    };
    try_record(skb, side, config, slot)
}

/// Copies the segment of a packet if it turns out to be matched.
#[inline(always)]
fn try_unclear(skb: Skb, role: Role) -> Option<()> {
    let config = config()?;
    if config.paused != 0 {
        return None;
    }
    try_parse_any(skb)?;
    let slot = slot()?;
    let packet = &slot.take().packet;
    let side = side(role, packet.src_port, packet.dst_port)?;
    try_record(skb, side, config, slot)
}

/// Copies a matched segment, unless it says nothing or is none of the clients' and servers' asked for.
#[inline(never)]
fn try_record(skb: Skb, side: RecordSide, config: &KernelConfig, slot: Slot) -> Option<()> {
    if is_pure_ack(&slot.take().packet) {
        return None;
    }
    if own::is_own(skb, slot, config) {
        count(Counter::Own);
        return None;
    }
    if config.match_addresses != 0 {
        let packet = &slot.take().packet;
        let server = match side {
            RecordSide::Client => packet.dst,
            RecordSide::Server => packet.src,
        };
        if !address::is_matched(server) {
            return None;
        }
    }
    if config.connections != 0 {
        match connection::fate(side) {
            Fate::Copied => {}
            Fate::LeftOut => return None,
            Fate::LetGo => return emit_let_go(skb, config, slot),
        }
    }
    emit(skb, side, config, slot)
}

/// Tells plain packets from the others by as few loads as it takes.
///
/// On a link without Ethernet the IP header comes first, and the context does not say so. Where the bytes of an address
/// stand for an EtherType there, they are told from one by the EtherType that the stack goes by, and where both are the
/// same, by where the stack has its network header.
#[inline(always)]
fn glance(skb: Skb) -> Glance {
    let linear = skb.linear();
    // Up to the ports of TCP after IPv4.
    let Some(head) = linear.first::<38>() else {
        return Glance::Unclear;
    };
    let ether_type = head.half_be::<12>();
    if ether_type != skb.protocol_be() {
        return Glance::Unclear;
    }
    match ether_type {
        IPV4_BE => {
            if head.byte::<14>() != 0x45 || is_ip_itself(skb, head.byte::<0>() >> 4 == 4) {
                return Glance::Unclear;
            }
            match head.byte::<23>() {
                protocol::TCP => {}
                protocol::UDP => return glance_at_udp(head.half_be::<36>()),
                protocol::IPV4 | protocol::IPV6 | protocol::GRE => return Glance::Unclear,
                _ => return Glance::Leave,
            }
            if head.half_be::<20>() & FRAGMENT_BE != 0 {
                return Glance::Unclear;
            }
            Glance::Tcp {
                src_port: u16::from_be(head.half_be::<34>()),
                dst_port: u16::from_be(head.half_be::<36>()),
            }
        }
        IPV6_BE => {
            // Up to the ports of TCP after IPv6.
            let Some(head) = linear.first::<58>() else {
                return Glance::Unclear;
            };
            if head.byte::<14>() >> 4 != 6 || is_ip_itself(skb, head.byte::<0>() >> 4 == 6) {
                return Glance::Unclear;
            }
            match head.byte::<20>() {
                protocol::TCP => Glance::Tcp {
                    src_port: u16::from_be(head.half_be::<54>()),
                    dst_port: u16::from_be(head.half_be::<56>()),
                },
                protocol::UDP => glance_at_udp(head.half_be::<56>()),
                protocol::ICMPV6 => Glance::Leave,
                _ => Glance::Unclear,
            }
        }
        other if may_hold_ip(u16::from_be(other)) => Glance::Unclear,
        _ => Glance::Leave,
    }
}

/// Whether a packet that looks like Ethernet has no such header, which is asked only where it `may` be so.
#[inline(always)]
fn is_ip_itself(skb: Skb, may: bool) -> bool {
    may && skb.starts_with_network_header()
}

/// A UDP packet is left alone unless it goes to the port of a tunnel.
#[inline(always)]
fn glance_at_udp(dst_port_be: u16) -> Glance {
    match ConfiguredPorts.tunnel(u16::from_be(dst_port_be)) {
        Some(_) => Glance::Unclear,
        None => Glance::Leave,
    }
}

/// Whether an IP packet may come after this, if not at once.
#[inline(always)]
fn may_hold_ip(ether_type: u16) -> bool {
    ether_type::is_tag(ether_type)
        || ether_type::is_closed_tunnel(ether_type)
        || matches!(ether_type, ether_type::MPLS | ether_type::MPLS_UPSTREAM)
}

/// The side that sent a packet with these ports; `None` where they are not matched.
#[inline(always)]
fn side(role: Role, src_port: u16, dst_port: u16) -> Option<RecordSide> {
    if role != Role::Responses && ports::is_matched(dst_port) {
        return Some(RecordSide::Client);
    }
    if role != Role::Requests && ports::is_matched(src_port) {
        return Some(RecordSide::Server);
    }
    None
}

/// Whether a segment neither carries payload nor opens or ends its side.
#[inline(always)]
fn is_pure_ack(packet: &TcpPacket) -> bool {
    packet.payload_len == 0 && packet.flags & (tcp_flag::SYN | tcp_flag::FIN | tcp_flag::RST) == 0
}

#[cfg(test)]
mod tests {
    use mirror_common::packet::{TcpPacket, tcp_flag};

    use super::is_pure_ack;

    #[test]
    fn segment_that_opens_or_ends_a_side_is_no_pure_ack() {
        let with = |flags, payload_len| TcpPacket { flags, payload_len, ..TcpPacket::default() };

        assert!(is_pure_ack(&with(tcp_flag::ACK, 0)));
        assert!(!is_pure_ack(&with(tcp_flag::ACK, 1)));
        for flag in [tcp_flag::SYN, tcp_flag::FIN, tcp_flag::RST] {
            assert!(!is_pure_ack(&with(tcp_flag::ACK | flag, 0)));
        }
    }
}
