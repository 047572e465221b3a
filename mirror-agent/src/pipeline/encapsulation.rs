//! Enters: a frame and where its headers begin. Leaves: the segment of its innermost packet, or a fragment of one.
//!
//! What [`packet::find_innermost`](mirror_common::packet::find_innermost) does at a hook is done here for files, which are
//! searched for more: GTP-U, LISP, L2TP and AYIYA. At a hook each of them would be more work for every packet with UDP, and
//! more for the verifier to walk, for networks that few services are mirrored in.
//!
//! Their identifiers are not part of a flow: those of GTP-U and L2TP differ between the two directions.

use mirror_common::packet::{
    CapturedBytes, Innermost, Layer, MAX_TUNNELS, Network, PacketBytes, Start, Step, Unparsed, UsualPorts,
    ether_type, find_network, find_segment, protocol,
};

use crate::pipeline::{
    frame::{Frame, FrameReason},
    link,
};

/// GTP-U (3GPP TS 29.281 section 4.4.2).
const GTP_U_PORT: u16 = 2152;

/// LISP (RFC 9300 section 5.1).
const LISP_PORT: u16 = 4341;

/// L2TP (RFC 2661 section 8.1).
const L2TP_PORT: u16 = 1701;

/// AYIYA (draft-massar-v6ops-ayiya-02).
const AYIYA_PORT: u16 = 5072;

/// Length of a UDP header in bytes.
const UDP_LEN: u32 = 8;

/// Length of what each of these headers has at least, in bytes: the first of L2TP.
const LEAST_LEN: u32 = 6;

/// Finds the segment of the innermost packet, or the fragment of one, of the packet that begins at `offset` with `start`.
pub(super) fn find_innermost(frame: &Frame<'_>, offset: u32, start: Start) -> Result<Innermost, FrameReason> {
    let bytes = CapturedBytes::new(frame.bytes, frame.wire_len);
    let ether_type = match start {
        Start::Ethernet => ether_type::BRIDGED,
        Start::EtherType(ether_type) => ether_type,
        Start::Ip => ip_type(&bytes, offset)?.ok_or(FrameReason::NotIp)?,
    };
    let mut layer = Layer::outermost(offset, ether_type, None);
    loop {
        layer = open_ethernet(frame, &bytes, layer)?;
        // A layer inside is one deeper, and the depth is bounded: the loop ends.
        layer = match find_network(&bytes, &layer)? {
            Step::Found(network) if network.is_tcp_fragment() => return Ok(Innermost::Fragment(network)),
            Step::Found(network) => match find_segment(&bytes, &network, &UsualPorts) {
                Ok(Step::Found(packet)) => return Ok(Innermost::Segment(packet)),
                Ok(Step::Inside(layer)) => layer,
                Err(Unparsed::NotTcp) if network.protocol == protocol::UDP => enter(frame, &bytes, &network)?,
                Err(reason) => return Err(reason.into()),
            },
            Step::Inside(layer) => layer,
        };
    }
}

/// What is behind the LLC and SNAP header (RFC 1042) of an Ethernet packet, tagged or not, that has a length in place of its
/// type (IEEE 802.3 section 3.2.6), or behind the headers of a session of PPPoE (RFC 2516 section 4); else `layer`. At a hook
/// neither is looked for: Linux takes no IP from the one, and from the other hands it to a device of its own.
fn open_ethernet(frame: &Frame<'_>, bytes: &CapturedBytes<'_>, layer: Layer) -> Result<Layer, FrameReason> {
    const MAX_LENGTH: u16 = 1500;
    const MAX_TAGS: u8 = 2;
    let number = |at: u32| load(bytes, at).map(u16::from_be_bytes);
    let mut found = layer;
    if layer.ether_type == ether_type::BRIDGED {
        found.ether_type = number(layer.at.saturating_add(12))?;
        found.at = layer.at.saturating_add(14);
    }
    while found.tags < MAX_TAGS && ether_type::is_tag(found.ether_type) {
        let tag = Layer::outermost(0, 0, Some(number(found.at)?));
        found.vlan = if found.vlan == 0 { tag.vlan } else { found.vlan | tag.vlan << 16 };
        found.tags = found.tags.saturating_add(1);
        found.ether_type = number(found.at.saturating_add(2))?;
        found.at = found.at.saturating_add(4);
    }
    if found.ether_type <= MAX_LENGTH && starts_with_snap(bytes, found.at)? {
        found.ether_type = number(found.at.saturating_add(6))?;
        found.at = found.at.saturating_add(8);
        return Ok(found);
    }
    if found.ether_type == ether_type::PPPOE_SESSION {
        let ppp = usize::try_from(found.at.saturating_add(6)).map_err(|_overflow| FrameReason::Truncated)?;
        found.at = link::ppp(frame.bytes, ppp)?.0;
        found.ether_type = ip_type(bytes, found.at)?.ok_or(FrameReason::NotIp)?;
        return Ok(found);
    }
    Ok(layer)
}

/// Whether an LLC and SNAP header is at `at`, where the packet has room for one.
fn starts_with_snap(bytes: &CapturedBytes<'_>, at: u32) -> Result<bool, FrameReason> {
    let end = at.saturating_add(8);
    Ok(end <= bytes.wire_len() && load(bytes, at)? == link::SNAP)
}

/// The packet that the UDP of `network` carries.
fn enter(frame: &Frame<'_>, bytes: &CapturedBytes<'_>, network: &Network) -> Result<Layer, FrameReason> {
    // RFC 768. Only the first fragment of a packet has its ports.
    let ports = if network.fragment_offset == 0 { bytes.load(network.at) } else { None };
    let Some([from_high, from_low, to_high, to_low]) = ports else { return Err(FrameReason::NotTcp) };
    let ports = [u16::from_be_bytes([to_high, to_low]), u16::from_be_bytes([from_high, from_low])];
    let end = network.end.min(network.layer.end);
    let at = network.at.saturating_add(UDP_LEN);
    if end < at.saturating_add(LEAST_LEN) {
        return Err(FrameReason::NotTcp);
    }
    // Where one end of a tunnel chooses its port, what it is sent has the other's as its source.
    let inner = match ports {
        [GTP_U_PORT, _] => after_gtp_u(bytes, at)?,
        [LISP_PORT, _] => at.saturating_add(8),
        [L2TP_PORT, _] | [_, L2TP_PORT] => after_l2tp(frame, bytes, at)?,
        [AYIYA_PORT, _] | [_, AYIYA_PORT] => after_ayiya(bytes, at)?,
        _ => return Err(FrameReason::NotTcp),
    };
    if inner >= end {
        return Err(FrameReason::NotTcp);
    }
    if network.is_fragment() {
        return Err(FrameReason::Fragment);
    }
    let Some(ether_type) = ip_type(bytes, inner)? else { return Err(FrameReason::NotTcp) };
    let depth = network.layer.depth.saturating_add(1);
    if depth > MAX_TUNNELS {
        return Err(FrameReason::Tunnel);
    }
    Ok(Layer { at: inner, end, ether_type, depth, ..network.layer })
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

/// Where the packet begins that a data message of L2TP has in PPP (RFC 2661 section 3.1).
fn after_l2tp(frame: &Frame<'_>, bytes: &CapturedBytes<'_>, at: u32) -> Result<u32, FrameReason> {
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
    let offset = usize::try_from(ppp).map_err(|_overflow| FrameReason::Truncated)?;
    link::ppp(frame.bytes, offset).map(|(inner, _)| inner)
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
