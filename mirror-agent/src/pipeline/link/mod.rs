//! Enters: a link type and the bytes of a frame. Leaves: where its network layer begins, and with what.

mod exported;

use mirror_common::packet::{Start, ether_type};

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
        Layout::AddressFamily { header_len } => address_family(bytes, header_len),
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
        Layout::FrameRelay => frame_relay(bytes),
        Layout::Llc { header_len, padding } => llc(bytes, header_len, padding),
        Layout::TokenRing => token_ring(bytes),
        Layout::NfLog => nflog(bytes),
        Layout::Juniper => juniper(bytes),
        Layout::Erf => erf(bytes),
        Layout::Wireless => wireless(bytes, 0, array(bytes, 0)?, Padding::None),
        Layout::Prism => {
            let len = prism_len(bytes)?;
            wireless(bytes, len, array(bytes, len)?, Padding::None)
        }
        Layout::Radiotap => radiotap(bytes),
        Layout::Exported => exported::packet(bytes),
        Layout::Cooked { device_offset, type_offset, header_len } => {
            if u16::from_be_bytes(array(bytes, device_offset)?) == RADIOTAP_DEVICE {
                return inner(bytes, header_len, RADIOTAP.into());
            }
            let ether_type = u16::from_be_bytes(array(bytes, type_offset)?);
            Ok((header_len, Start::EtherType(ether_type)))
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
    /// RFC 2427, and Cisco's own.
    FrameRelay,
    /// An LLC header behind one of `header_len` bytes.
    Llc {
        header_len: usize,
        padding: Padding,
    },
    TokenRing,
    NfLog,
    Juniper,
    Erf,
    Wireless,
    /// 802.11 behind what drivers put before it: of Prism, or of AVS.
    Prism,
    Radiotap,
    /// Behind tags that Wireshark writes.
    Exported,
    /// As `EtherTypeAt`, with the kind of the device at `device_offset`, of which one has no EtherType.
    Cooked {
        device_offset: usize,
        type_offset: usize,
        header_len: u32,
    },
    Unknown,
}

/// LINKTYPE_IEEE802_11_RADIOTAP, and the kind of a device with it (ARPHRD_IEEE80211_RADIOTAP).
const RADIOTAP: u16 = 127;
const RADIOTAP_DEVICE: u16 = 803;

/// What stands before a bridged Ethernet header, or behind the header of 802.11.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Padding {
    None,
    /// Two bytes before bridged Ethernet in ATM (RFC 2684 section 5.2).
    Two,
    /// As much as makes the length of an 802.11 header a multiple of four.
    ToFour,
}

const fn layout(link_type: LinkType) -> Layout {
    match link_type.0 {
        // LINKTYPE_NULL, LINKTYPE_LOOP; LINKTYPE_ENC.
        0 | 108 => Layout::AddressFamily { header_len: 4 },
        109 => Layout::AddressFamily { header_len: 12 },
        1 => Layout::Ethernet,
        6 => Layout::TokenRing,
        // LINKTYPE_FDDI, LINKTYPE_IP_OVER_FC: kind and addresses.
        10 => Layout::Llc { header_len: 13, padding: Padding::None },
        122 => Layout::Llc { header_len: 16, padding: Padding::None },
        // LINKTYPE_ATM_RFC1483, what some wrote for it (DLT_ATM_RFC1483), LINKTYPE_SUNATM.
        100 | 11 => Layout::Llc { header_len: 0, padding: Padding::Two },
        123 => Layout::Llc { header_len: 4, padding: Padding::Two },
        // LINKTYPE_FRELAY.
        107 => Layout::FrameRelay,
        // LINKTYPE_PPP, LINKTYPE_PPP_HDLC; LINKTYPE_PPP_PPPD and LINKTYPE_PPP_WITH_DIR.
        9 | 50 => Layout::Ppp { direction_len: 0 },
        166 | 204 => Layout::Ppp { direction_len: 1 },
        // LINKTYPE_PPP_ETHER: a session of PPPoE without Ethernet.
        51 => Layout::Ppp { direction_len: 6 },
        // LINKTYPE_RAW, what OpenBSD and others wrote for it (DLT_RAW), LINKTYPE_IPV4, LINKTYPE_IPV6.
        101 | 12 | 14 | 228 | 229 => Layout::Ip,
        // LINKTYPE_C_HDLC: address, control, and an EtherType for IP.
        104 => Layout::EtherTypeAt { type_offset: 2, header_len: 4 },
        105 => Layout::Wireless,
        // LINKTYPE_LINUX_SLL, LINKTYPE_LINUX_SLL2.
        113 => Layout::Cooked { device_offset: 2, type_offset: 14, header_len: 16 },
        276 => Layout::Cooked { device_offset: 8, type_offset: 0, header_len: 20 },
        // LINKTYPE_APPLE_IP_OVER_IEEE1394, LINKTYPE_IPOIB: addresses and an EtherType.
        138 => Layout::EtherTypeAt { type_offset: 16, header_len: 18 },
        242 => Layout::EtherTypeAt { type_offset: 40, header_len: 44 },
        // LINKTYPE_IEEE802_11_PRISM, LINKTYPE_IEEE802_11_AVS.
        119 | 163 => Layout::Prism,
        RADIOTAP => Layout::Radiotap,
        // LINKTYPE_JUNIPER_ETHER, LINKTYPE_ERF.
        178 => Layout::Juniper,
        197 => Layout::Erf,
        117 => Layout::PfLog,
        192 => Layout::Ppi,
        239 => Layout::NfLog,
        // LINKTYPE_WIRESHARK_UPPER_PDU.
        252 => Layout::Exported,
        // What macOS wrote for LINKTYPE_PKTAP at first was a number for everybody's use.
        149 | 258 => Layout::PkTap,
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

/// A header of `header_len` bytes that begins with a socket address family, or with what some systems write there.
fn address_family(bytes: &[u8], header_len: u32) -> Result<(u32, Start), FrameReason> {
    let header: [u8; 4] = array(bytes, 0)?;
    // FreeBSD's of a link with PPP.
    if header.starts_with(&HDLC) {
        return ppp(bytes, 0);
    }
    // In the byte order of the machine that captured, which need not be that of the file, and with its halves as they were
    // on Alpha. An EtherType stands there behind some drivers.
    let number = match header {
        [0, 0, high, low] if u16::from_be_bytes([high, low]) > 0x00ff || low != 0 => {
            let number = u16::from_be_bytes([high, low]);
            if is_ip_family(number.swap_bytes().into()) { number.swap_bytes() } else { number }
        }
        [low, high, 0, 0] => {
            let number = u16::from_le_bytes([low, high]);
            if is_ip_family(number.swap_bytes().into()) { number.swap_bytes() } else { number }
        }
        _ => return Err(FrameReason::NotIp),
    };
    match number {
        family if is_ip_family(family.into()) => Ok((header_len, Start::Ip)),
        ether_type if ether_type >= MIN_ETHER_TYPE => Ok((header_len, Start::EtherType(ether_type))),
        _ => Err(FrameReason::NotIp),
    }
}

/// IEEE 802.3 section 3.2.6.
const MIN_ETHER_TYPE: u16 = 0x0600;

/// Address and control of PPP in HDLC-like framing (RFC 1662 section 3.1).
const HDLC: [u8; 2] = [0xff, 0x03];

/// PPP: address and control, which may be compressed away, then the protocol, in one byte where that is odd (RFC 1661
/// section 6.5 and 6.6). Some say there that it is Cisco's HDLC (RFC 1547 section 4.3.1).
pub(super) fn ppp(bytes: &[u8], mut offset: usize) -> Result<(u32, Start), FrameReason> {
    const MULTILINK: u16 = 0x003d;
    const BRIDGED: u16 = 0x0031;
    const CISCO_HDLC: [[u8; 2]; 2] = [[0x0f, 0], [0x8f, 0]];
    let start: [u8; 2] = array(bytes, offset)?;
    if CISCO_HDLC.contains(&start) {
        let ether_type = u16::from_be_bytes(array(bytes, offset.saturating_add(2))?);
        return Ok((to_offset(offset.saturating_add(4))?, Start::EtherType(ether_type)));
    }
    if start == HDLC {
        offset = offset.saturating_add(2);
    }
    let mut protocol = ppp_protocol(bytes, &mut offset)?;
    // RFC 1990 section 3: the first two bits mark the beginning and the end of a packet, a number follows, then the packet
    // without address and control. Its short form is negotiated, and seldom.
    if protocol == MULTILINK {
        let [marks, ..]: [u8; 4] = array(bytes, offset)?;
        if marks & 0xc0 != 0xc0 {
            return Err(FrameReason::Fragment);
        }
        offset = offset.saturating_add(4);
        protocol = ppp_protocol(bytes, &mut offset)?;
    }
    let behind = to_offset(offset)?;
    match protocol {
        // RFC 3518 section 4.2: flags, one of which announces a number of four bytes, and the kind of network.
        BRIDGED => match array(bytes, offset)? {
            [flags, 1] => Ok((behind.saturating_add(if flags & 0x40 == 0 { 2 } else { 6 }), Start::Ethernet)),
            _ => Err(FrameReason::NotIp),
        },
        // IPv4 and IPv6.
        0x0021 | 0x0057 => Ok((behind, Start::Ip)),
        // RFC 3032 section 4.3.
        0x0281 => Ok((behind, Start::EtherType(ether_type::MPLS))),
        _ => Err(FrameReason::NotIp),
    }
}

/// The protocol at `offset`, which is moved behind it.
fn ppp_protocol(bytes: &[u8], offset: &mut usize) -> Result<u16, FrameReason> {
    let [first] = array(bytes, *offset)?;
    let (protocol, len) =
        if first & 1 == 1 { (u16::from(first), 1) } else { (u16::from_be_bytes(array(bytes, *offset)?), 2) };
    *offset = offset.saturating_add(len);
    Ok(protocol)
}

/// Frame relay: an address of two to four bytes, of which the last one's last bit is set, then control and a protocol (RFC
/// 2427 section 3), or an EtherType.
pub(super) fn frame_relay(bytes: &[u8]) -> Result<(u32, Start), FrameReason> {
    const MAX_ADDRESS_LEN: usize = 4;
    let ends = |byte: &u8| byte & 1 == 1;
    let is_cut_off = bytes.len() < MAX_ADDRESS_LEN;
    let no_end = if is_cut_off { FrameReason::Truncated } else { FrameReason::NotIp };
    let last = bytes.iter().take(MAX_ADDRESS_LEN).position(ends).ok_or(no_end)?;
    let at = last.saturating_add(1);
    let [control, mut protocol] = array(bytes, at)?;
    if control != 0x03 {
        let ether_type = u16::from_be_bytes([control, protocol]);
        return Ok((to_offset(at.saturating_add(2))?, Start::EtherType(ether_type)));
    }
    let mut behind = at.saturating_add(2);
    if protocol == 0 {
        [protocol] = array(bytes, behind)?;
        behind = behind.saturating_add(1);
    }
    match protocol {
        // IPv4, IPv6, PPP, and SNAP.
        0xcc | 0x8e => Ok((to_offset(behind)?, Start::Ip)),
        0xcf => ppp(bytes, behind),
        0x80 => snap(bytes, behind, Padding::None),
        _ => Err(FrameReason::NotIp),
    }
}

/// Token ring: access and frame control, the addresses, and a route where the source's first bit says so.
fn token_ring(bytes: &[u8]) -> Result<(u32, Start), FrameReason> {
    const HEADER_LEN: usize = 14;
    let [source] = array(bytes, 8)?;
    let route_len = if source & 0x80 == 0 {
        0
    } else {
        let [control] = array(bytes, HEADER_LEN)?;
        usize::from(control & 0x1f)
    };
    llc(bytes, HEADER_LEN.saturating_add(route_len), Padding::None)
}

/// Ethernet behind what a router of Juniper's adds, with extensions where a flag says so.
fn juniper(bytes: &[u8]) -> Result<(u32, Start), FrameReason> {
    const HAS_EXTENSIONS: u8 = 0x80;
    const HAS_NO_LINK_LAYER: u8 = 0x02;
    let [m, g, c, flags] = array(bytes, 0)?;
    if [m, g, c] != *b"MGC" {
        return Err(FrameReason::Malformed);
    }
    if flags & HAS_NO_LINK_LAYER != 0 {
        return Err(FrameReason::NotIp);
    }
    let extensions = if flags & HAS_EXTENSIONS == 0 {
        0
    } else {
        u32::from(u16::from_be_bytes(array(bytes, 4)?)).saturating_add(2)
    };
    Ok((extensions.saturating_add(4), Start::Ethernet))
}

/// A record of Endace's: time, kind, flags, lengths, then headers more where a bit of the kind says so.
fn erf(bytes: &[u8]) -> Result<(u32, Start), FrameReason> {
    const HEADER_LEN: u32 = 16;
    const MAX_EXTENSIONS: u32 = 8;
    let [mut kind] = array(bytes, 8)?;
    let what = kind & 0x7f;
    let mut behind = HEADER_LEN;
    for _ in 0..MAX_EXTENSIONS {
        if kind & 0x80 == 0 {
            break;
        }
        [kind] = array(bytes, usize::try_from(behind).or(Err(FrameReason::Truncated))?)?;
        behind = behind.saturating_add(8);
    }
    match what {
        // HDLC, plain, coloured, and with a hash.
        1 | 10 | 15 | 17 => ppp(bytes, usize::try_from(behind).or(Err(FrameReason::Truncated))?),
        // Ethernet likewise, behind two bytes.
        2 | 11 | 16 | 20 => Ok((behind.saturating_add(2), Start::Ethernet)),
        22 | 23 => Ok((behind, Start::Ip)),
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

/// Length of the header of Prism, or of AVS, before that of 802.11.
fn prism_len(bytes: &[u8]) -> Result<usize, FrameReason> {
    const PRISM: u32 = 0x44;
    const AVS: [u8; 3] = [0x80, 0x21, 0x10];
    let (start, len): ([u8; 4], [u8; 4]) = (array(bytes, 0)?, array(bytes, 4)?);
    // Prism's in the byte order of the machine that captured, AVS's always the same.
    let len = if start.starts_with(&AVS) || u32::from_be_bytes(start) == PRISM {
        u32::from_be_bytes(len)
    } else if u32::from_le_bytes(start) == PRISM {
        u32::from_le_bytes(len)
    } else {
        // No header at all, as some drivers do.
        0
    };
    usize::try_from(len).or(Err(FrameReason::Truncated))
}

/// 802.11 behind radiotap, whose length, in little-endian, counts from its own first byte.
fn radiotap(bytes: &[u8]) -> Result<(u32, Start), FrameReason> {
    const MAX_WORDS: usize = 32;
    const IS_PADDED: u8 = 0x20;
    let start = usize::from(u16::from_le_bytes(array(bytes, 2)?));
    let present =
        |word: usize| array(bytes, word.saturating_mul(4).saturating_add(4)).map(u32::from_le_bytes);
    let first = present(0)?;
    let mut padding = Padding::None;
    // Fields stand behind the words that say which there are; the first may be a time, in eight bytes, the second is flags.
    if first & 0x02 != 0 {
        let mut words = 1_usize;
        while words < MAX_WORDS && present(words.saturating_sub(1))? >> 31 != 0 {
            words = words.saturating_add(1);
        }
        let mut at = words.saturating_mul(4).saturating_add(4);
        if first & 0x01 != 0 {
            at = at.next_multiple_of(8).saturating_add(8);
        }
        let [flags] = array(bytes, at)?;
        if flags & IS_PADDED != 0 {
            padding = Padding::ToFour;
        }
    }
    wireless(bytes, start, array(bytes, start)?, padding)
}

/// A frame of IEEE 802.11 with this frame control: that of data which is not encrypted, with an LLC and SNAP header.
pub(super) fn wireless(
    bytes: &[u8],
    start: usize,
    [control, flags]: [u8; 2],
    padding: Padding,
) -> Result<(u32, Start), FrameReason> {
    let at = |offset: usize| start.saturating_add(offset);
    let is_data = control & 0x0c == 0x08;
    let (has_body, has_qos) = (control & 0x40 == 0, control & 0x80 != 0);
    let is_encrypted = flags & 0x40 != 0;
    if !is_data || !has_body || is_encrypted {
        return Err(FrameReason::NotIp);
    }
    // More to come, or not the first.
    let [number, _] = array(bytes, at(22))?;
    if flags & 0x04 != 0 || number & 0x0f != 0 {
        return Err(FrameReason::Fragment);
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
    if padding == Padding::ToFour {
        len = len.next_multiple_of(4);
    }
    llc(bytes, at(len), Padding::None)
}

/// What an LLC header announces (RFC 1042).
pub(super) fn llc(bytes: &[u8], at: usize, padding: Padding) -> Result<(u32, Start), FrameReason> {
    let header: [u8; 3] = array(bytes, at)?;
    let behind = at.saturating_add(3);
    match header {
        [0xaa, 0xaa, 0x03] => snap(bytes, behind, padding),
        // IP's own number.
        [0x06, 0x06, 0x03] => Ok((to_offset(behind)?, Start::Ip)),
        _ => Err(FrameReason::NotIp),
    }
}

/// What a SNAP header announces: an EtherType, or bridged Ethernet.
fn snap(bytes: &[u8], at: usize, padding: Padding) -> Result<(u32, Start), FrameReason> {
    let organisation: [u8; 3] = array(bytes, at)?;
    let kind = u16::from_be_bytes(array(bytes, at.saturating_add(3))?);
    let behind = to_offset(at.saturating_add(5))?;
    match (organisation, kind) {
        // RFC 1042; the second is for bridges between different networks (IEEE 802.1H).
        ([0, 0, 0] | [0, 0, 0xf8], ether_type) => Ok((behind, Start::EtherType(ether_type))),
        // With a check sequence and without (RFC 2684 section 5.2, RFC 2427 section 4.2).
        ([0, 0x80, 0xc2], 1 | 7) => {
            let padding = if padding == Padding::Two { 2 } else { 0 };
            Ok((behind.saturating_add(padding), Start::Ethernet))
        }
        _ => Err(FrameReason::NotIp),
    }
}

fn array<const N: usize>(bytes: &[u8], offset: usize) -> Result<[u8; N], FrameReason> {
    bytes.get(offset..).and_then(|rest| rest.first_chunk().copied()).ok_or(FrameReason::Truncated)
}

fn to_offset(offset: usize) -> Result<u32, FrameReason> {
    u32::try_from(offset).or(Err(FrameReason::Truncated))
}

#[cfg(test)]
mod tests;
