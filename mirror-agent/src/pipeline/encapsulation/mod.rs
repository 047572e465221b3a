//! Enters: a frame and where its headers begin. Leaves: the segment of its innermost packet, or a fragment of one.
//!
//! What [`packet::find_innermost`](mirror_common::packet::find_innermost) does at a hook is done here for files, which are
//! searched for more. At a hook each of these headers would be more work for every packet, and more for the verifier to
//! walk, for networks that few services are mirrored in.
//!
//! Identifiers of tunnels that only files are searched for are not part of a flow: many differ between the two directions.

mod datagram;
mod gre;
mod lower;

use mirror_common::packet::{
    CapturedBytes, Layer, Network, PacketBytes, Start, Step, TcpPacket, Unparsed, UsualPorts, ether_type,
    find_network, find_segment, protocol,
};

use crate::pipeline::frame::{Frame, FrameReason};

/// Packets followed, one inside the other. A capture at a mirror port of a network with overlays has four or five.
const MAX_PACKETS: usize = 8;

/// Ethernet in IP (RFC 3378).
const ETHERIP: u8 = 97;

/// MPLS in IP (RFC 4023).
const MPLS_IN_IP: u8 = 137;

/// EtherType of a network service header (RFC 8300 section 2).
const NSH: u16 = ether_type::NSH;

/// EtherType of PPP (RFC 7042 appendix B.1).
const PPP: u16 = 0x880b;

/// What the innermost packet that can be looked into holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Found {
    /// A whole segment.
    Segment(TcpPacket),
    /// A fragment of one, or a later fragment of a packet of which only the first tells what it holds.
    TcpPart(Network),
    /// A fragment of a packet that may carry another.
    Part(Network),
}

/// Finds the segment of the innermost packet, or the fragment of one, of the packet that begins at `offset` with `start`.
pub(super) fn find_innermost(frame: &Frame<'_>, offset: u32, start: Start) -> Result<Found, FrameReason> {
    let bytes = CapturedBytes::new(frame.bytes, frame.wire_len);
    let mut layer = Layer::outermost(offset, start_type(&bytes, offset, start)?, None);
    for _ in 0..MAX_PACKETS {
        layer = lower::open(frame, &bytes, layer)?;
        // Only whether it is the outermost packet is asked of the depth: the bound is this loop's.
        layer.depth = layer.depth.min(1);
        let network = network(&bytes, &layer)?;
        if network.is_fragment() {
            let may_hold_others =
                !network.is_tcp_fragment() || matches!(network.protocol, ETHERIP | MPLS_IN_IP);
            // IPv6 may go on with headers of its own behind that of a fragment.
            return if !may_hold_others {
                Ok(Found::TcpPart(network))
            } else if network.part_at == network.at {
                Ok(Found::Part(network))
            } else {
                Err(FrameReason::Fragment)
            };
        }
        layer = match find_segment(&bytes, &network, &UsualPorts) {
            Ok(Step::Found(packet)) => return Ok(Found::Segment(packet)),
            Ok(Step::Inside(layer)) => layer,
            Err(Unparsed::NotTcp) if network.protocol == protocol::UDP => {
                datagram::enter(frame, &bytes, &network)?
            }
            Err(Unparsed::NotTcp | Unparsed::Tunnel) if network.protocol == protocol::GRE => {
                gre::enter(frame, &bytes, &network)?
            }
            Err(Unparsed::NotTcp) => enter_ip(&bytes, &network)?,
            Err(reason) => return Err(reason.into()),
        };
    }
    Err(FrameReason::Tunnel)
}

/// The EtherType of what begins at `offset` with `start`.
fn start_type(bytes: &CapturedBytes<'_>, offset: u32, start: Start) -> Result<u16, FrameReason> {
    match start {
        Start::Ethernet => Ok(ether_type::BRIDGED),
        Start::EtherType(ether_type) => Ok(ether_type),
        Start::Ip => ip_type(bytes, offset)?.ok_or(FrameReason::NotIp),
    }
}

/// The IP header of `layer`, whatever IP carries that is looked into.
fn network(bytes: &CapturedBytes<'_>, layer: &Layer) -> Result<Network, FrameReason> {
    let protocol_at = layer.at.saturating_add(if layer.ether_type == ether_type::IPV4 { 9 } else { 6 });
    let reason = match find_network(bytes, layer) {
        Ok(Step::Found(network)) => return Ok(network),
        Ok(Step::Inside(_)) => FrameReason::Tunnel,
        Err(reason) => reason.into(),
    };
    let [carried] = load(bytes, protocol_at)?;
    if reason != FrameReason::NotTcp || !matches!(carried, protocol::AUTHENTICATION | ETHERIP | MPLS_IN_IP) {
        return Err(reason);
    }
    // The same header with a protocol that is known to hold packets.
    let read_as = ReadAs { bytes, at: protocol_at, value: protocol::GRE };
    let Step::Found(mut network) = find_network(&read_as, layer)? else { return Err(reason) };
    network.protocol = carried;
    // RFC 4302 section 2: in units of four bytes, minus two. One header, and no more: it protects the whole packet.
    if carried == protocol::AUTHENTICATION {
        if network.is_fragment() {
            return Err(FrameReason::Fragment);
        }
        let [next, units] = load(bytes, network.at)?;
        network.protocol = next;
        let len = u32::from(units).saturating_add(2).saturating_mul(4);
        network.at = network.at.saturating_add(len);
        network.part_at = network.at;
    }
    Ok(network)
}

/// The packet that `network` carries behind a header of its own, or MPLS labels.
fn enter_ip(bytes: &CapturedBytes<'_>, network: &Network) -> Result<Layer, FrameReason> {
    if !matches!(network.protocol, ETHERIP | MPLS_IN_IP) {
        return Err(FrameReason::NotTcp);
    }
    if network.protocol == MPLS_IN_IP {
        return Ok(inside(network, network.at, ether_type::MPLS));
    }
    // RFC 3378 section 2: the version is 3, what is reserved is 0.
    let header: [u8; 2] = load(bytes, network.at)?;
    if header != [0x30, 0] {
        return Err(FrameReason::NotTcp);
    }
    Ok(inside(network, network.at.saturating_add(2), ether_type::BRIDGED))
}

/// The packet at `at` that a tunnel over `network` carries. The tags of an Ethernet header are those of the network that it
/// comes from; without one, the packet is still in that of the tunnel.
fn inside(network: &Network, at: u32, ether_type: u16) -> Layer {
    let (vlan, tags) =
        if ether_type == ether_type::BRIDGED { (0, 0) } else { (network.layer.vlan, network.layer.tags) };
    let end = network.end.min(network.layer.end);
    Layer { at, end, vlan, tags, ether_type, depth: 1, ..network.layer }
}

/// The EtherType of what a network service header at `at` announces, and where that begins (RFC 8300 section 2.2).
fn after_nsh(bytes: &CapturedBytes<'_>, at: u32) -> Result<(u32, u16), FrameReason> {
    let [_, length, _, next] = load(bytes, at)?;
    let ether_type = match next {
        1 => ether_type::IPV4,
        2 => ether_type::IPV6,
        3 => ether_type::BRIDGED,
        4 => NSH,
        5 => ether_type::MPLS,
        _ => return Err(FrameReason::Tunnel),
    };
    // In units of four bytes, of which there are two at least.
    let units = u32::from(length & 0x3f);
    if units < 2 {
        return Err(FrameReason::Malformed);
    }
    Ok((at.saturating_add(units * 4), ether_type))
}

/// The EtherType of the IP packet at `at`; `None` where there is none.
fn ip_type(bytes: &CapturedBytes<'_>, at: u32) -> Result<Option<u16>, FrameReason> {
    let [version]: [u8; 1] = load(bytes, at)?;
    Ok(match version >> 4 {
        4 => Some(ether_type::IPV4),
        6 => Some(ether_type::IPV6),
        _ => None,
    })
}

fn load<const N: usize>(bytes: &CapturedBytes<'_>, at: u32) -> Result<[u8; N], FrameReason> {
    bytes.load(at).ok_or(FrameReason::Truncated)
}

fn load_u16(bytes: &CapturedBytes<'_>, at: u32) -> Result<u16, FrameReason> {
    load(bytes, at).map(u16::from_be_bytes)
}

/// A packet of which one byte reads as another.
struct ReadAs<'a> {
    bytes: &'a CapturedBytes<'a>,
    at: u32,
    value: u8,
}

impl PacketBytes for ReadAs<'_> {
    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        let mut loaded = self.bytes.load::<N>(offset)?;
        let index = self.at.checked_sub(offset).and_then(|index| usize::try_from(index).ok());
        if let Some(byte) = index.and_then(|index| loaded.get_mut(index)) {
            *byte = self.value;
        }
        Some(loaded)
    }

    fn wire_len(&self) -> u32 {
        self.bytes.wire_len()
    }
}
