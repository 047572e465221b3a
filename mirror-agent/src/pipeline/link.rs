//! Enters: a link type and the bytes of a frame. Leaves: where its network layer begins, and with what.

use mirror_common::packet::Start;

use crate::pipeline::frame::{FrameReason, LinkType};

/// Whether frames of this link type can be read at all.
#[must_use]
pub const fn is_read(link_type: LinkType) -> bool {
    !matches!(layout(link_type), Layout::Unknown)
}

/// Where the headers that [`mirror_common::packet::parse`] understands begin, and with what.
pub(super) fn network_layer(link_type: LinkType, bytes: &[u8]) -> Result<(u32, Start), FrameReason> {
    match layout(link_type) {
        Layout::Ethernet => Ok((0, Start::Ethernet)),
        Layout::Ip => Ok((0, Start::Ip)),
        Layout::EtherTypeAt { type_offset, header_len } => {
            let ether_type = u16::from_be_bytes(array(bytes, type_offset)?);
            Ok((header_len, Start::EtherType(ether_type)))
        }
        Layout::AddressFamily { header_len } => {
            let family = array(bytes, 0)?;
            // In the byte order of the machine that captured, which need not be that of the file.
            if is_ip_family(u32::from_le_bytes(family)) || is_ip_family(u32::from_be_bytes(family)) {
                Ok((header_len, Start::Ip))
            } else {
                Err(FrameReason::NotIp)
            }
        }
        Layout::PfLog => {
            let [len, family] = array(bytes, 0)?;
            let len = u32::from(len).next_multiple_of(4);
            if is_ip_family(u32::from(family)) { Ok((len, Start::Ip)) } else { Err(FrameReason::NotIp) }
        }
        Layout::Ppi => {
            let len = u16::from_le_bytes(array(bytes, 2)?);
            inner(bytes, u32::from(len), u32::from_le_bytes(array(bytes, 4)?))
        }
        Layout::PkTap => {
            let len = u32::from_le_bytes(array(bytes, 0)?);
            inner(bytes, len, u32::from_le_bytes(array(bytes, 8)?))
        }
        Layout::Ppp { direction_len } => ppp(bytes, direction_len),
        Layout::NfLog => nflog(bytes),
        Layout::Wireless => wireless(bytes, 0),
        Layout::Radiotap => {
            // Its length, in little-endian, counts from its own first byte.
            let len = u16::from_le_bytes(array(bytes, 2)?);
            wireless(bytes, usize::from(len))
        }
        Layout::Unknown => Err(FrameReason::LinkType),
    }
}

enum Layout {
    Ethernet,
    Ip,
    /// A header of `header_len` bytes with the EtherType at `type_offset`.
    EtherTypeAt {
        type_offset: usize,
        header_len: u32,
    },
    /// Four bytes with the socket address family, at the beginning of a header.
    AddressFamily {
        header_len: u32,
    },
    /// The length of a header, before padding, and the socket address family.
    PfLog,
    /// A header with its length, then a frame of another link type.
    Ppi,
    PkTap,
    /// RFC 1661 and 1662, behind so many bytes that tell the direction.
    Ppp {
        direction_len: usize,
    },
    NfLog,
    Wireless,
    Radiotap,
    Unknown,
}

const fn layout(link_type: LinkType) -> Layout {
    match link_type.0 {
        // LINKTYPE_NULL, LINKTYPE_LOOP; LINKTYPE_ENC.
        0 | 108 => Layout::AddressFamily { header_len: 4 },
        109 => Layout::AddressFamily { header_len: 12 },
        1 => Layout::Ethernet,
        // LINKTYPE_PPP, LINKTYPE_PPP_HDLC; LINKTYPE_PPP_PPPD and LINKTYPE_PPP_WITH_DIR.
        9 | 50 => Layout::Ppp { direction_len: 0 },
        166 | 204 => Layout::Ppp { direction_len: 1 },
        // LINKTYPE_RAW, what OpenBSD and others wrote for it (DLT_RAW), LINKTYPE_IPV4, LINKTYPE_IPV6.
        101 | 12 | 14 | 228 | 229 => Layout::Ip,
        // LINKTYPE_C_HDLC: address, control, and an EtherType for IP.
        104 => Layout::EtherTypeAt { type_offset: 2, header_len: 4 },
        105 => Layout::Wireless,
        // LINKTYPE_LINUX_SLL, LINKTYPE_LINUX_SLL2.
        113 => Layout::EtherTypeAt { type_offset: 14, header_len: 16 },
        276 => Layout::EtherTypeAt { type_offset: 0, header_len: 20 },
        127 => Layout::Radiotap,
        117 => Layout::PfLog,
        192 => Layout::Ppi,
        239 => Layout::NfLog,
        258 => Layout::PkTap,
        _ => Layout::Unknown,
    }
}

/// What the frame of another link type begins with that is `start` bytes further on.
fn inner(bytes: &[u8], start: u32, link_type: u32) -> Result<(u32, Start), FrameReason> {
    let link_type = LinkType(u16::try_from(link_type).or(Err(FrameReason::LinkType))?);
    // One that holds another is in none.
    if matches!(layout(link_type), Layout::Ppi | Layout::PkTap) {
        return Err(FrameReason::LinkType);
    }
    let rest = usize::try_from(start).ok().and_then(|start| bytes.get(start..));
    let (offset, begins_with) = network_layer(link_type, rest.ok_or(FrameReason::Truncated)?)?;
    Ok((start.saturating_add(offset), begins_with))
}

/// AF_INET is 2 everywhere; AF_INET6 is 10 on Linux, 23 on Windows, 24 on NetBSD and OpenBSD, 28 on FreeBSD, 30 on
/// macOS. Which of the two is seen from the IP header.
const fn is_ip_family(family: u32) -> bool {
    matches!(family, 2 | 10 | 23 | 24 | 28 | 30)
}

/// PPP: address and control, which may be compressed away, then the protocol, in one byte where that is odd (RFC 1661
/// section 6.5 and 6.6).
pub(super) fn ppp(bytes: &[u8], mut offset: usize) -> Result<(u32, Start), FrameReason> {
    const ADDRESS_AND_CONTROL: [u8; 2] = [0xff, 0x03];
    if array(bytes, offset)? == ADDRESS_AND_CONTROL {
        offset = offset.saturating_add(2);
    }
    let [first] = array(bytes, offset)?;
    let (protocol, len) =
        if first & 1 == 1 { (u16::from(first), 1) } else { (u16::from_be_bytes(array(bytes, offset)?), 2) };
    match protocol {
        // IPv4 and IPv6.
        0x0021 | 0x0057 => Ok((to_offset(offset.saturating_add(len))?, Start::Ip)),
        _ => Err(FrameReason::NotIp),
    }
}

/// A message of nfnetlink_log: family, version and resource, then attributes of which one is the packet.
fn nflog(bytes: &[u8]) -> Result<(u32, Start), FrameReason> {
    const PAYLOAD: u16 = 9;
    let [family] = array(bytes, 0)?;
    if !is_ip_family(u32::from(family)) {
        return Err(FrameReason::NotIp);
    }
    let mut offset = 4_usize;
    loop {
        // In the byte order of the machine that captured: in practice little-endian.
        let len = usize::from(u16::from_le_bytes(array(bytes, offset)?));
        let kind = u16::from_le_bytes(array(bytes, offset.saturating_add(2))?);
        if kind == PAYLOAD {
            return Ok((to_offset(offset.saturating_add(4))?, Start::Ip));
        }
        if len < 4 {
            return Err(FrameReason::Malformed);
        }
        offset = offset.saturating_add(len.next_multiple_of(4));
    }
}

/// A frame of IEEE 802.11: that of data which is not encrypted, with an LLC and SNAP header.
fn wireless(bytes: &[u8], start: usize) -> Result<(u32, Start), FrameReason> {
    let at = |offset: usize| start.saturating_add(offset);
    let [control, flags] = array(bytes, start)?;
    let is_data = control & 0x0c == 0x08;
    let (has_body, has_qos) = (control & 0x40 == 0, control & 0x80 != 0);
    let is_encrypted = flags & 0x40 != 0;
    if !is_data || !has_body || is_encrypted {
        return Err(FrameReason::NotIp);
    }
    let mut len = 24_usize;
    if flags & 0x03 == 0x03 {
        len = len.saturating_add(6); // between access points there is a fourth address
    }
    if has_qos {
        let [qos] = array(bytes, at(len))?;
        if qos & 0x80 != 0 {
            return Err(FrameReason::Aggregate);
        }
        let has_more_control = flags & 0x80 != 0;
        len = len.saturating_add(if has_more_control { 6 } else { 2 });
    }
    snap(bytes, at(len))
}

/// The LLC and SNAP header before an EtherType (RFC 1042).
pub(super) const SNAP: [u8; 6] = [0xaa, 0xaa, 0x03, 0, 0, 0];

/// The EtherType of an LLC and SNAP header.
fn snap(bytes: &[u8], at: usize) -> Result<(u32, Start), FrameReason> {
    if array(bytes, at)? != SNAP {
        return Err(FrameReason::NotIp);
    }
    let ether_type = u16::from_be_bytes(array(bytes, at.saturating_add(6))?);
    Ok((to_offset(at.saturating_add(8))?, Start::EtherType(ether_type)))
}

fn array<const N: usize>(bytes: &[u8], offset: usize) -> Result<[u8; N], FrameReason> {
    bytes.get(offset..).and_then(|rest| rest.first_chunk().copied()).ok_or(FrameReason::Truncated)
}

fn to_offset(offset: usize) -> Result<u32, FrameReason> {
    u32::try_from(offset).or(Err(FrameReason::Truncated))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn network_layer_is_found_behind_each_link_layer() {
        let snap = [0xaa, 0xaa, 3, 0, 0, 0, 0x86, 0xdd];
        let wireless =
            |control: u8, flags: u8, rest: &[u8]| [&[control, flags][..], &[0; 22], rest, &snap].concat();
        let cases: &[(u16, Vec<u8>, Result<u32, FrameReason>)] = &[
            (9, vec![0xff, 3, 0, 0x21], Ok(4)),
            (9, vec![0, 0x57], Ok(2)),
            (9, vec![0x21, 0x45], Ok(1)),
            (50, vec![0xff, 3, 0x57, 0x60], Ok(3)),
            (50, vec![0xff, 3, 0xc0, 0x21], Err(FrameReason::NotIp)),
            (166, vec![1, 0xff, 3, 0, 0x21], Ok(5)),
            (104, vec![0x0f, 0, 8, 0], Ok(4)),
            (
                239,
                [&[2, 0, 0, 0, 8, 0, 10, 0, 0, 0, 0, 1, 5, 0, 1, 0, 9, 0, 0, 0, 4, 0, 9, 0][..]].concat(),
                Ok(24),
            ),
            (239, vec![2, 0, 0, 0, 0, 0, 1, 0], Err(FrameReason::Malformed)),
            (239, vec![7, 0, 0, 0, 4, 0, 9, 0], Err(FrameReason::NotIp)),
            (105, wireless(0x08, 0x01, &[]), Ok(32)),
            (105, wireless(0x88, 0x02, &[0, 0]), Ok(34)),
            (105, wireless(0x88, 0x83, &[0; 12]), Ok(44)),
            (105, wireless(0x08, 0x40, &[]), Err(FrameReason::NotIp)),
            (105, wireless(0x48, 0x01, &[]), Err(FrameReason::NotIp)),
            (105, wireless(0x80, 0x00, &[]), Err(FrameReason::NotIp)),
            (105, wireless(0x88, 0x02, &[0x80, 0]), Err(FrameReason::Aggregate)),
            (109, [&2_u32.to_be_bytes()[..], &[0; 8]].concat(), Ok(12)),
            (109, vec![0; 12], Err(FrameReason::NotIp)),
            (117, [&[61, 2][..], &[0; 62]].concat(), Ok(64)),
            (117, vec![61, 7, 0, 0], Err(FrameReason::NotIp)),
            (192, [&[0, 0, 10, 0, 101, 0, 0, 0, 1, 2][..]].concat(), Ok(10)),
            (192, [&[0, 0, 8, 0, 105, 0, 0, 0][..], &wireless(0x08, 0x01, &[])].concat(), Ok(40)),
            (192, vec![0, 0, 8, 0, 192, 0, 0, 0, 0, 0, 8, 0, 1, 0, 0, 0], Err(FrameReason::LinkType)),
            (192, vec![0, 0, 9, 0, 1, 0, 0, 0], Err(FrameReason::Truncated)),
            (258, [&[108, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0][..], &[0; 96], &[2, 0, 0, 0]].concat(), Ok(112)),
            (258, vec![12, 0, 0, 0, 1, 0, 0, 0, 1, 0, 1, 0], Err(FrameReason::LinkType)),
            (127, [&[0, 0, 10, 0, 0, 0, 0, 0, 0, 0][..], &wireless(0x08, 0x01, &[])].concat(), Ok(42)),
        ];
        for (link_type, bytes, expected) in cases {
            let found = network_layer(LinkType(*link_type), bytes).map(|(offset, _)| offset);
            assert_eq!(found, *expected, "link type {link_type}, {bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_understood_or_refused(
            link_type in prop::sample::select(&[9_u16, 50, 104, 105, 109, 117, 127, 166, 192, 204, 239, 258][..]),
            bytes in prop::collection::vec(any::<u8>(), 0..80),
        ) {
            // An offset beyond the frame is for the parser to refuse.
            network_layer(LinkType(link_type), &bytes).ok();
        }
    }
}
