//! Enters: a packet that begins with what an EtherType announces. Leaves: the same from its IP header on.
//!
//! At a hook few of these headers are looked for: Linux takes no IP from most of them, or hands it to a device of its own.

use mirror_common::packet::{CapturedBytes, Layer, PacketBytes, Start, ether_type};

use super::{NSH, PPP, after_nsh, load, load_u16, start_type};
use crate::pipeline::{
    frame::{Frame, FrameReason},
    link,
};

/// Headers between an Ethernet header and that of IP: tags, labels, and one or two of what is below. More are in no network.
const MAX_HEADERS: usize = 24;

/// What stands in place of a type up to here is a length (IEEE 802.3 section 3.2.6).
const MAX_LENGTH: u16 = 1500;

/// A length in the form of a type, for packets that are longer.
const LONG_LLC: u16 = 0x8870;

/// Cisco metadata: a security group's tag.
const CISCO_METADATA: u16 = 0x8909;

/// The tag of a port extender (IEEE 802.1BR).
const E_TAG: u16 = 0x893f;

/// High-availability seamless redundancy (IEC 62439-3).
const HSR: u16 = 0x892f;

/// The tag of Cisco's virtual interfaces.
const VN_TAG: u16 = 0x8926;

/// Redundancy tag (IEEE 802.1CB section 7.8).
const R_TAG: u16 = 0xf1c1;

/// MACsec (IEEE 802.1AE section 9).
const MACSEC: u16 = 0x88e5;

/// Service tag of a provider's backbone (IEEE 802.1Q section 9.7).
const BACKBONE: u16 = 0x88e7;

/// TRILL (RFC 6325 section 3).
const TRILL: u16 = 0x22f3;

/// Cisco's Inter-Switch Link sends to one of these addresses, of which the last byte says what is inside.
const ISL: [[u8; 5]; 2] = [[1, 0, 0x0c, 0, 0], [3, 0, 0x0c, 0, 0]];

/// What `layer` is from its IP header on.
///
/// # Errors
///
/// The reason why it has none that could be used.
pub(super) fn open(
    frame: &Frame<'_>,
    bytes: &CapturedBytes<'_>,
    mut layer: Layer,
) -> Result<Layer, FrameReason> {
    for _ in 0..MAX_HEADERS {
        let at = layer.at;
        let number = |from: u32| load_u16(bytes, at.saturating_add(from));
        // Where the next header begins, from here, and with what.
        let (len, ether_type) = match layer.ether_type {
            ether_type::IPV4 | ether_type::IPV6 => return Ok(layer),
            ether_type::BRIDGED => ethernet(bytes, at)?,
            tag if ether_type::is_tag(tag) => {
                layer.vlan = with_tag(layer.vlan, number(0)?);
                (4, number(2)?)
            }
            ether_type::MPLS | ether_type::MPLS_UPSTREAM => label(bytes, at, layer.ether_type)?,
            CISCO_METADATA | E_TAG => (8, number(6)?),
            HSR | R_TAG | VN_TAG => (6, number(4)?),
            MACSEC => after_macsec(bytes, at)?,
            BACKBONE => (4, ether_type::BRIDGED),
            // RFC 6325 section 3: the options' length in units of four bytes.
            TRILL => {
                (u32::from(number(0)? >> 6 & 0x1f).saturating_mul(4).saturating_add(6), ether_type::BRIDGED)
            }
            NSH => {
                let (next_at, ether_type) = after_nsh(bytes, at)?;
                (next_at.saturating_sub(at), ether_type)
            }
            // RFC 2516 section 4.
            ether_type::PPPOE_SESSION => relative(at, bytes, after_ppp(frame, at.saturating_add(6))?)?,
            PPP => relative(at, bytes, after_ppp(frame, at)?)?,
            // Shorter than any LLC header that announces IP: nothing to be missed there.
            length if length <= MAX_LENGTH || length == LONG_LLC => {
                if at.saturating_add(4) > bytes.wire_len() {
                    return Err(FrameReason::NotIp);
                }
                relative(at, bytes, link::llc(frame.bytes, to_index(at)?, link::Padding::None)?)?
            }
            other if ether_type::is_closed_tunnel(other) => return Err(FrameReason::Tunnel),
            _ => return Err(FrameReason::NotIp),
        };
        // A packet inside another, as in a tunnel.
        if ether_type == ether_type::BRIDGED {
            layer.vlan = 0;
            layer.depth = 1;
        }
        layer.at = at.saturating_add(len);
        layer.ether_type = ether_type;
    }
    Err(FrameReason::TooDeep)
}

/// Length and EtherType of an Ethernet header, or of what stands before one.
fn ethernet(bytes: &CapturedBytes<'_>, at: u32) -> Result<(u32, u16), FrameReason> {
    const ISL_LEN: u32 = 26;
    let [d0, d1, d2, d3, d4, kind, ..] = load::<12>(bytes, at)?;
    // Its type in the upper half: 0 is Ethernet.
    if ISL.contains(&[d0, d1, d2, d3, d4]) && kind >> 4 == 0 {
        return Ok((ISL_LEN, ether_type::BRIDGED));
    }
    Ok((14, load_u16(bytes, at.saturating_add(12))?))
}

/// Adds the identifier of the next inner VLAN tag to those found so far, of which the outer two are kept.
fn with_tag(vlan: u32, tci: u16) -> u32 {
    let id = Layer::outermost(0, 0, Some(tci)).vlan;
    match vlan {
        0 => id,
        one if one >> 16 == 0 => one | id << 16,
        two => two,
    }
}

/// Length of an MPLS label, and what is behind it, where `kind` announces it.
fn label(bytes: &CapturedBytes<'_>, at: u32, kind: u16) -> Result<(u32, u16), FrameReason> {
    let [_, _, end, _] = load(bytes, at)?;
    // RFC 3032 section 2.1: the last bit of the third byte marks the bottom of the stack.
    if end & 1 == 0 {
        return Ok((4, kind));
    }
    let first: [u8; 4] = load(bytes, at.saturating_add(4))?;
    // Nothing says what is below the labels. Routers go by the first half byte (RFC 4928 section 3).
    match first[0] >> 4 {
        4 => return Ok((4, ether_type::IPV4)),
        6 => return Ok((4, ether_type::IPV6)),
        // An associated channel of the network's own (RFC 5586 section 2).
        1 => return Err(FrameReason::NotIp),
        _ => {}
    }
    // Ethernet behind a control word (RFC 4448 section 4.6), or without one, where it is that beyond doubt: the same bytes
    // could be a hardware address.
    if first[..2] == [0; 2] && is_ethernet(bytes, at.saturating_add(8))? {
        return Ok((8, ether_type::BRIDGED));
    }
    if is_ethernet(bytes, at.saturating_add(4))? {
        return Ok((4, ether_type::BRIDGED));
    }
    Err(FrameReason::Tunnel)
}

/// Whether the EtherType of an Ethernet header at `at` announces IP or a tag.
pub(super) fn is_ethernet(bytes: &CapturedBytes<'_>, at: u32) -> Result<bool, FrameReason> {
    let found = load_u16(bytes, at.saturating_add(12))?;
    Ok(found == ether_type::IPV4 || found == ether_type::IPV6 || ether_type::is_tag(found))
}

/// Length of a MACsec tag, and what it protects where that is not encrypted.
fn after_macsec(bytes: &CapturedBytes<'_>, at: u32) -> Result<(u32, u16), FrameReason> {
    const ENCRYPTED: u8 = 0x08;
    const CHANGED: u8 = 0x04;
    const HAS_CHANNEL: u8 = 0x20;
    let [control] = load(bytes, at)?;
    if control & (ENCRYPTED | CHANGED) != 0 {
        return Err(FrameReason::NotIp);
    }
    let len = if control & HAS_CHANNEL == 0 { 8 } else { 16 };
    Ok((len, load_u16(bytes, at.saturating_add(len).saturating_sub(2))?))
}

/// What PPP at `at` carries.
fn after_ppp(frame: &Frame<'_>, at: u32) -> Result<(u32, Start), FrameReason> {
    link::ppp(frame.bytes, to_index(at)?)
}

/// How far from `at` something begins, and its EtherType.
fn relative(
    at: u32,
    bytes: &CapturedBytes<'_>,
    (next_at, start): (u32, Start),
) -> Result<(u32, u16), FrameReason> {
    Ok((next_at.saturating_sub(at), start_type(bytes, next_at, start)?))
}

fn to_index(at: u32) -> Result<usize, FrameReason> {
    usize::try_from(at).or(Err(FrameReason::Truncated))
}
