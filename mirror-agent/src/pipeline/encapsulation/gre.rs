//! Enters: GRE that is not looked into at a hook. Leaves: the packet that it carries.

use mirror_common::packet::{CapturedBytes, Layer, Network, PacketBytes as _, ether_type};

use super::{NSH, PPP, inside, load, start_type};
use crate::pipeline::{
    frame::{Frame, FrameReason},
    link,
};

/// RouterOS's Ethernet over IP, in the form of version 1.
const EOIP: u16 = 0x6400;

/// Raw frame relay (RFC 1701, the list of protocols).
const FRAME_RELAY: u16 = 0x6559;

/// The packet that the GRE of `network` carries.
///
/// # Errors
///
/// The reason why there is none that is looked into.
pub(super) fn enter(
    frame: &Frame<'_>,
    bytes: &CapturedBytes<'_>,
    network: &Network,
) -> Result<Layer, FrameReason> {
    // RFC 2784 section 2, RFC 2890 section 2.
    let [flags, version, type_high, type_low] = load(bytes, network.at)?;
    let kind = u16::from_be_bytes([type_high, type_low]);
    let has = |bits: u8, flag: u8| if bits & flag == 0 { 0 } else { 4 };
    let (checksum, key, sequence) = (has(flags, 0xc0), has(flags, 0x20), has(flags, 0x10));
    let mut at =
        network.at.saturating_add(4).saturating_add(checksum).saturating_add(key).saturating_add(sequence);
    let has_route = flags & 0x40 != 0;
    if has_route {
        // RFC 1701: a list of routes, which an empty one ends. Routers that are on one take it off where that ends. A hook
        // follows none of them: a packet that ends within the list is to it what one with a list is.
        let ends_within = at.saturating_add(4) > bytes.wire_len();
        if ends_within || load(bytes, at)? != [0; 4] {
            return Err(FrameReason::Tunnel);
        }
        at = at.saturating_add(4);
    }
    let (at, ether_type) = match (version & 0x07, kind) {
        // RFC 2637 section 4.1: the key is always there.
        (1, PPP) if key != 0 => (at.saturating_add(has(version, 0x80)), PPP),
        // Length and number of the tunnel.
        (1, EOIP) => (network.at.saturating_add(8), ether_type::BRIDGED),
        _ if version & 0x07 != 0 => return Err(FrameReason::Tunnel),
        (_, FRAME_RELAY) => {
            let start = usize::try_from(at).or(Err(FrameReason::Truncated))?;
            let rest = frame.bytes.get(start..).ok_or(FrameReason::Truncated)?;
            let (len, begins_with) = link::frame_relay(rest)?;
            let behind = at.saturating_add(len);
            (behind, start_type(bytes, behind, begins_with)?)
        }
        // draft-foschiano-erspan-03 section 4: without a number there is no header (type I), else one of eight bytes.
        (_, ether_type::ERSPAN) => {
            (at.saturating_add(if sequence == 0 { 0 } else { 8 }), ether_type::BRIDGED)
        }
        (_, ether_type::ERSPAN_3) => {
            // Twelve bytes, and eight of a platform's own, which the last bit announces.
            let [last] = load(bytes, at.saturating_add(11))?;
            (at.saturating_add(if last & 1 == 0 { 12 } else { 20 }), ether_type::BRIDGED)
        }
        // Version 2 has a header of four bytes (draft-wilson-wrec-wccp-v2-00 section 4.12), version 1 none.
        (_, ether_type::WCCP) => {
            let [first] = load(bytes, at)?;
            (at.saturating_add(if first >> 4 == 4 { 0 } else { 4 }), ether_type::IPV4)
        }
        (_, PPP | NSH) => (at, kind),
        // Without a route it would have been looked into before.
        _ if has_route => (at, kind),
        _ => return Err(FrameReason::NotTcp),
    };
    Ok(inside(network, at, ether_type))
}
