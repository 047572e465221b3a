//! Enters: UDP to or from the port of a tunnel. Leaves: the packet that it carries.

use mirror_common::packet::{CapturedBytes, Layer, Network, PacketBytes, Start, ether_type, protocol};

use super::{PPP, after_nsh, inside, ip_type, load, load_u16, lower::is_ethernet, start_type};
use crate::pipeline::{
    frame::{Frame, FrameReason},
    link,
};

/// GTP-U (3GPP TS 29.281 section 4.4.2).
const GTP_U_PORT: u16 = 2152;

/// GTP of version 0 (3GPP TS 09.60 section 11).
const GTP_0_PORT: u16 = 3386;

/// LISP (RFC 9300 section 5.1).
const LISP_PORT: u16 = 4341;

/// L2TP (RFC 2661 section 8.1).
const L2TP_PORT: u16 = 1701;

/// AYIYA (draft-massar-v6ops-ayiya-02).
const AYIYA_PORT: u16 = 5072;

/// Teredo (RFC 4380 section 2.7).
const TEREDO_PORT: u16 = 3544;

/// MPLS in UDP (RFC 7510 section 3).
const MPLS_PORT: u16 = 6635;

/// VXLAN with a protocol of its choice (draft-ietf-nvo3-vxlan-gpe-13).
const VXLAN_GPE_PORT: u16 = 4790;

/// CAPWAP's data (RFC 5415 section 3.1).
const CAPWAP_PORT: u16 = 5247;

/// What access points and sniffers send of what they hear: TaZmen Sniffer Protocol.
const TZSP_PORT: u16 = 37_008;

/// Length of a UDP header in bytes.
const UDP_LEN: u32 = 8;

/// Length of what each of these headers has at least, in bytes: an MPLS label.
const LEAST_LEN: u32 = 4;

/// The packet that the UDP of `network` carries.
///
/// # Errors
///
/// The reason why there is none that is looked into.
pub(super) fn enter(
    frame: &Frame<'_>,
    bytes: &CapturedBytes<'_>,
    network: &Network,
) -> Result<Layer, FrameReason> {
    // RFC 768.
    let Some([from_high, from_low, to_high, to_low]) = bytes.load(network.at) else {
        return Err(FrameReason::NotTcp);
    };
    let ports = [u16::from_be_bytes([to_high, to_low]), u16::from_be_bytes([from_high, from_low])];
    let end = network.end.min(network.layer.end);
    let at = network.at.saturating_add(UDP_LEN);
    if end < at.saturating_add(LEAST_LEN) {
        return Err(FrameReason::NotTcp);
    }
    let ip = |at: u32| (at, ether_type::IPV4);
    // Where one end of a tunnel chooses its port, what it is sent has the other's as its source.
    let (inner, announced) = match ports {
        [GTP_U_PORT, _] | [_, GTP_U_PORT] => after_gtp(bytes, at)?,
        [GTP_0_PORT, _] | [_, GTP_0_PORT] => after_gtp(bytes, at)?,
        [LISP_PORT, _] => ip(at.saturating_add(8)),
        [L2TP_PORT, _] | [_, L2TP_PORT] => after_l2tp(bytes, at)?,
        [AYIYA_PORT, _] | [_, AYIYA_PORT] => ip(after_ayiya(bytes, at)?),
        [TEREDO_PORT, _] | [_, TEREDO_PORT] => ip(after_teredo(bytes, at)?),
        [MPLS_PORT, _] => (at, ether_type::MPLS),
        [VXLAN_GPE_PORT, _] => after_vxlan_gpe(bytes, at)?,
        [CAPWAP_PORT, _] | [_, CAPWAP_PORT] => after_capwap(frame, bytes, at)?,
        [TZSP_PORT, _] => after_tzsp(frame, bytes, at)?,
        _ => return Err(FrameReason::NotTcp),
    };
    if inner >= end {
        return Err(FrameReason::NotTcp);
    }
    // Those that carry IP do not say which.
    let ether_type = match announced {
        ether_type::IPV4 | ether_type::IPV6 => ip_type(bytes, inner)?.ok_or(FrameReason::NotTcp)?,
        other => other,
    };
    Ok(inside(network, inner, ether_type))
}

/// What GTP carries, of whichever version: IP, or Ethernet of a 5G network's session (3GPP TS 23.501 section 5.6.10.2), which is
/// known by its own type alone.
fn after_gtp(bytes: &CapturedBytes<'_>, at: u32) -> Result<(u32, u16), FrameReason> {
    let inner = after_gtp_0(bytes, at).or_else(|_| after_gtp_u(bytes, at))?;
    if ip_type(bytes, inner) == Ok(None) && is_ethernet(bytes, inner) == Ok(true) {
        return Ok((inner, ether_type::BRIDGED));
    }
    Ok((inner, ether_type::IPV4))
}

/// Where a G-PDU's packet begins (3GPP TS 29.281 section 5.1).
fn after_gtp_u(bytes: &CapturedBytes<'_>, at: u32) -> Result<u32, FrameReason> {
    /// Extension headers followed: there is one, for the flow of a 5G network's session (TS 38.415), seldom two.
    const MAX_EXTENSION_HEADERS: u32 = 4;
    const G_PDU: u8 = 0xff;
    let [flags, kind] = load(bytes, at)?;
    let is_version_1 = flags >> 4 == 0b0011;
    if !is_version_1 || kind != G_PDU {
        return Err(FrameReason::NotTcp);
    }
    let mut inner = at.saturating_add(8);
    // With any of the flags E, S and PN there are all three fields; the last says what extension follows.
    if flags & 0x07 == 0 {
        return Ok(inner);
    }
    let [mut next]: [u8; 1] = load(bytes, inner.saturating_add(3))?;
    inner = inner.saturating_add(4);
    if flags & 0x04 == 0 {
        return Ok(inner);
    }
    for _ in 0..MAX_EXTENSION_HEADERS {
        if next == 0 {
            return Ok(inner);
        }
        // Section 5.2.1: in units of four bytes, the last of which says what follows.
        let [units] = load(bytes, inner)?;
        if units == 0 {
            return Err(FrameReason::Malformed);
        }
        inner = inner.saturating_add(u32::from(units) * 4);
        [next] = load(bytes, inner.saturating_sub(1))?;
    }
    if next == 0 { Ok(inner) } else { Err(FrameReason::TooDeep) }
}

/// The PPP of a data message of L2TP (RFC 2661 section 3.1).
fn after_l2tp(bytes: &CapturedBytes<'_>, at: u32) -> Result<(u32, u16), FrameReason> {
    let flags = u16::from_be_bytes(load(bytes, at)?);
    let has = |flag: u16, len: u32| if flags & flag == 0 { 0 } else { len };
    // T, the reserved bits and the version: a data message of version 2.
    if flags & 0xb4ff != 0x0002 {
        return Err(FrameReason::NotTcp);
    }
    let (length, sequence) = (has(0x4000, 2), has(0x0800, 4));
    let mut ppp = at.saturating_add(6).saturating_add(length).saturating_add(sequence);
    if has(0x0200, 2) != 0 {
        let pad = u16::from_be_bytes(load(bytes, ppp)?);
        ppp = ppp.saturating_add(2).saturating_add(u32::from(pad));
    }
    Ok((ppp, PPP))
}

/// Where the packet begins that AYIYA forwards (draft-massar-v6ops-ayiya-02 section 3).
fn after_ayiya(bytes: &CapturedBytes<'_>, at: u32) -> Result<u32, FrameReason> {
    const FORWARD: u8 = 1;
    let [identity, signature, operation, next] = load(bytes, at)?;
    if operation & 0x0f != FORWARD || !matches!(next, protocol::IPV4 | protocol::IPV6) {
        return Err(FrameReason::NotTcp);
    }
    // The identity's length is a power of two, the signature's in units of four bytes.
    let identity_len = 1_u32 << (identity >> 4);
    let signature_len = u32::from(signature >> 4) * 4;
    Ok(at.saturating_add(8).saturating_add(identity_len).saturating_add(signature_len))
}

/// Where a T-PDU's packet begins (3GPP TS 09.60 section 6).
fn after_gtp_0(bytes: &CapturedBytes<'_>, at: u32) -> Result<u32, FrameReason> {
    const T_PDU: u8 = 0xff;
    let [flags, kind] = load(bytes, at)?;
    let is_version_0 = flags >> 4 == 0b0001;
    if is_version_0 && kind == T_PDU { Ok(at.saturating_add(20)) } else { Err(FrameReason::NotTcp) }
}

/// Where the packet of Teredo begins, behind what a server may put before it (RFC 4380 section 5.1.1).
fn after_teredo(bytes: &CapturedBytes<'_>, mut at: u32) -> Result<u32, FrameReason> {
    if load(bytes, at)? == [0, 1] {
        // Authentication: the lengths of an identifier and of a value, then both, a nonce, and a byte.
        let [id_len, value_len] = load(bytes, at.saturating_add(2))?;
        at = at.saturating_add(13).saturating_add(u32::from(id_len)).saturating_add(u32::from(value_len));
    }
    if load(bytes, at)? == [0, 0] {
        // Origin: an address and a port.
        at = at.saturating_add(8);
    }
    let [version] = load(bytes, at)?;
    if version >> 4 == 6 { Ok(at) } else { Err(FrameReason::NotTcp) }
}

/// What VXLAN carries that says what it is (draft-ietf-nvo3-vxlan-gpe-13 section 3.1).
fn after_vxlan_gpe(bytes: &CapturedBytes<'_>, at: u32) -> Result<(u32, u16), FrameReason> {
    let [flags, _, _, next] = load(bytes, at)?;
    let inner = at.saturating_add(8);
    if flags & 0x04 == 0 {
        return Ok((inner, ether_type::BRIDGED));
    }
    match next {
        1 => Ok((inner, ether_type::IPV4)),
        2 => Ok((inner, ether_type::IPV6)),
        3 => Ok((inner, ether_type::BRIDGED)),
        4 => after_nsh(bytes, inner),
        5 => Ok((inner, ether_type::MPLS)),
        _ => Err(FrameReason::Tunnel),
    }
}

/// What CAPWAP carries: Ethernet, or 802.11 as it was on the air (RFC 5415 section 4.3).
fn after_capwap(frame: &Frame<'_>, bytes: &CapturedBytes<'_>, at: u32) -> Result<(u32, u16), FrameReason> {
    let [preamble, length, native, flags] = load(bytes, at)?;
    // Encrypted, or a fragment.
    if preamble != 0 || flags & 0x80 != 0 {
        return Err(FrameReason::NotTcp);
    }
    let inner = at.saturating_add(u32::from(length >> 3).saturating_mul(4));
    if native & 1 == 0 {
        return Ok((inner, ether_type::BRIDGED));
    }
    // Controllers send the two bytes of its frame control the other way round.
    let [high, low] = load(bytes, inner)?;
    let control = if low & 0x0c == 0x08 && low & 0x03 == 0 { [low, high] } else { [high, low] };
    announced(bytes, link::wireless(frame.bytes, to_index(inner)?, control, link::Padding::None)?)
}

/// What is behind the tags of TZSP.
fn after_tzsp(frame: &Frame<'_>, bytes: &CapturedBytes<'_>, at: u32) -> Result<(u32, u16), FrameReason> {
    /// There are ten kinds of tags.
    const MAX_TAGS: usize = 32;
    let [version, kind] = load(bytes, at)?;
    // Received, or to be sent.
    if version != 1 || kind > 1 {
        return Err(FrameReason::NotTcp);
    }
    let protocol = load_u16(bytes, at.saturating_add(2))?;
    let mut inner = at.saturating_add(4);
    for _ in 0..MAX_TAGS {
        let [tag] = load(bytes, inner)?;
        inner = inner.saturating_add(1);
        match tag {
            0 => {}
            1 => {
                return match protocol {
                    1 => Ok((inner, ether_type::BRIDGED)),
                    18 => {
                        let start = to_index(inner)?;
                        let control = load(bytes, inner)?;
                        announced(bytes, link::wireless(frame.bytes, start, control, link::Padding::None)?)
                    }
                    _ => Err(FrameReason::NotTcp),
                };
            }
            _ => {
                let [len] = load(bytes, inner)?;
                inner = inner.saturating_add(1).saturating_add(u32::from(len));
            }
        }
    }
    Err(FrameReason::Malformed)
}

/// The same with an EtherType.
fn announced(bytes: &CapturedBytes<'_>, (at, start): (u32, Start)) -> Result<(u32, u16), FrameReason> {
    Ok((at, start_type(bytes, at, start)?))
}

fn to_index(at: u32) -> Result<usize, FrameReason> {
    usize::try_from(at).or(Err(FrameReason::Truncated))
}
