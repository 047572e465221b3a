//! Enters: a packet's bytes, from its Ethernet or IP header on. Leaves: its TCP segment's place and fields, or why not.
//!
//! The kernel program and the reader of capture files parse with the same code, so that what is tested over
//! slices is what runs in the kernel. It is written for the verifier: every loop has a constant bound, bytes are
//! copied out by constant sizes, and nothing is returned by reference into the packet. Checksums are not
//! verified: at a TC hook they are often not there yet.

#[cfg(test)]
mod tests;

/// Where the bytes of a packet come from.
pub trait PacketBytes {
    /// Copies the `N` bytes at `offset`; `None` where any of them is not there.
    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]>;

    /// Length of the packet on the wire in bytes, from offset 0 on; may be more than can be loaded.
    fn wire_len(&self) -> u32;
}

/// A captured packet in memory, perhaps cut at the capture's snap length.
#[derive(Clone, Copy, Debug)]
pub struct CapturedBytes<'a> {
    bytes: &'a [u8],
    wire_len: u32,
}

impl<'a> CapturedBytes<'a> {
    /// Takes `bytes` as the beginning of a packet of `wire_len` bytes; a `wire_len` below what was captured
    /// is not believed.
    #[must_use]
    pub fn new(bytes: &'a [u8], wire_len: u32) -> Self {
        let captured = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        Self { bytes, wire_len: wire_len.max(captured) }
    }

    /// Takes `bytes` as a whole packet.
    #[must_use]
    pub fn whole(bytes: &'a [u8]) -> Self {
        Self::new(bytes, 0)
    }
}

impl PacketBytes for CapturedBytes<'_> {
    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        self.bytes.get(usize::try_from(offset).ok()?..)?.first_chunk::<N>().copied()
    }

    fn wire_len(&self) -> u32 {
        self.wire_len
    }
}

/// What stands at the offset where parsing starts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Start {
    /// An Ethernet header.
    Ethernet,
    /// What this EtherType announces: an IP header or a VLAN tag's remainder (tag control, next EtherType).
    EtherType(u16),
    /// An IP header; its version field tells which.
    Ip,
}

/// The TCP segment of a packet.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct TcpPacket {
    /// Source address, v4-mapped for IPv4, in network byte order.
    pub src: [u8; 16],
    /// Destination address, likewise.
    pub dst: [u8; 16],
    /// Source port.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number; meaningful only where the ACK flag is set.
    pub ack: u32,
    /// The low eight flag bits, FIN = 0x01 up to CWR = 0x80.
    pub flags: u8,
    /// Offset of the payload in bytes from offset 0 of the packet.
    pub payload_offset: u32,
    /// Bytes of payload on the wire; a capture file may hold fewer.
    pub payload_len: u32,
    /// VLAN identifiers as in [`RecordHeader::vlan`](crate::RecordHeader::vlan).
    pub vlan: u32,
    /// Virtual network identifier; 0, as overlays are not looked into.
    pub vni: u32,
}

/// Why a packet has no TCP segment for us.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u32)]
pub enum Unparsed {
    /// Neither IPv4 nor IPv6.
    NotIp = 1,
    /// IP without TCP.
    NotTcp = 2,
    /// A part of a fragmented IP packet that carries, or may carry, TCP.
    Fragment = 3,
    /// A header goes on past the packet's end, or past the bytes captured of it.
    Truncated = 4,
    /// A header contradicts itself or its surroundings.
    Malformed = 5,
    /// More VLAN tags or extension headers than are followed.
    TooDeep = 6,
}

/// Bits of the TCP flags field (RFC 9293 section 3.1).
pub mod tcp_flag {
    /// The sender has no more data.
    pub const FIN: u8 = 0x01;
    /// The sequence number is the initial one.
    pub const SYN: u8 = 0x02;
    /// The connection is reset.
    pub const RST: u8 = 0x04;
    /// The sender asks for delivery without delay.
    pub const PSH: u8 = 0x08;
    /// The acknowledgement number is meaningful.
    pub const ACK: u8 = 0x10;
}

/// EtherTypes that are looked at.
pub mod ether_type {
    /// IPv4.
    pub const IPV4: u16 = 0x0800;
    /// IPv6.
    pub const IPV6: u16 = 0x86dd;
    /// IEEE 802.1Q tag.
    pub const VLAN: u16 = 0x8100;
    /// IEEE 802.1ad service tag.
    pub const SERVICE_VLAN: u16 = 0x88a8;
}

/// Length of an Ethernet header in bytes.
pub const ETHERNET_LEN: u32 = 14;

/// Length of an IPv6 header in bytes.
const IPV6_LEN: u32 = 40;

/// Length of a TCP header without options in bytes.
const TCP_LEN: u32 = 20;

/// A record has room for two VLAN identifiers, the offloaded one included.
const MAX_TAGS: u32 = 2;

/// IPv6 extension headers followed. Real packets have one or two (RFC 8200 section 4.1 recommends each at most
/// once, which makes five before TCP, destination options counted twice).
const MAX_EXTENSION_HEADERS: u32 = 6;

/// Protocol numbers (RFC 8200 section 4, RFC 4302).
mod protocol {
    pub(super) const HOP_BY_HOP: u8 = 0;
    pub(super) const TCP: u8 = 6;
    pub(super) const ROUTING: u8 = 43;
    pub(super) const FRAGMENT: u8 = 44;
    pub(super) const AUTHENTICATION: u8 = 51;
    pub(super) const DESTINATION_OPTIONS: u8 = 60;
}

/// Finds the TCP segment of the packet whose headers begin at `offset`.
///
/// `offloaded_tag` is the identifier of a VLAN tag that the interface took off the packet; it counts as the outermost.
/// A tag with identifier 0 only carries a priority (IEEE 802.1Q section 9.6) and is no part of a flow's identity.
///
/// # Errors
///
/// The reason why the packet has no TCP segment that could be used.
#[inline(always)]
pub fn parse<B: PacketBytes>(
    bytes: &B,
    offset: u32,
    start: Start,
    offloaded_tag: Option<u16>,
) -> Result<TcpPacket, Unparsed> {
    let mut vlan = 0;
    let mut tags = 0;
    if let Some(id) = offloaded_tag {
        vlan = with_tag(vlan, id);
        tags = 1;
    }
    let mut at = offset;
    let mut ether_type = match start {
        Start::Ethernet => {
            let ether_type = load_u16(bytes, at.saturating_add(12))?;
            at = at.saturating_add(ETHERNET_LEN);
            ether_type
        }
        Start::EtherType(ether_type) => ether_type,
        Start::Ip => match load::<1, B>(bytes, at)?[0] >> 4 {
            4 => ether_type::IPV4,
            6 => ether_type::IPV6,
            _ => return Err(Unparsed::NotIp),
        },
    };
    // One round more than tags fit: the last one only finds that there is no room.
    for _ in 0..=MAX_TAGS {
        if ether_type != ether_type::VLAN && ether_type != ether_type::SERVICE_VLAN {
            break;
        }
        if tags == MAX_TAGS {
            return Err(Unparsed::TooDeep);
        }
        let [tci_high, tci_low, type_high, type_low] = load(bytes, at)?;
        vlan = with_tag(vlan, u16::from_be_bytes([tci_high, tci_low]));
        ether_type = u16::from_be_bytes([type_high, type_low]);
        tags += 1;
        at = at.saturating_add(4);
    }
    let ip = match ether_type {
        ether_type::IPV4 => parse_ipv4(bytes, at)?,
        ether_type::IPV6 => parse_ipv6(bytes, at)?,
        _ => return Err(Unparsed::NotIp),
    };
    parse_tcp(bytes, &ip, vlan)
}

/// Maps an IPv4 address into IPv6 (RFC 4291 section 2.5.5.2).
#[inline(always)]
#[must_use]
pub const fn v4_mapped(addr: [u8; 4]) -> [u8; 16] {
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, addr[0], addr[1], addr[2], addr[3]]
}

/// Adds the identifier of the next inner VLAN tag to those found so far.
#[inline(always)]
fn with_tag(vlan: u32, tci: u16) -> u32 {
    let id = u32::from(tci & 0x0fff);
    if vlan == 0 { id } else { vlan | id << 16 }
}

/// An IP header, with TCP after it.
struct Ip {
    src: [u8; 16],
    dst: [u8; 16],
    /// Where the TCP header begins.
    tcp: u32,
    /// Where the packet ends by its IP header; `u32::MAX` where that does not say (BIG TCP).
    end: u32,
}

#[inline(always)]
fn parse_ipv4<B: PacketBytes>(bytes: &B, at: u32) -> Result<Ip, Unparsed> {
    // RFC 791 section 3.1.
    let [
        version_ihl,
        _,
        len_high,
        len_low,
        _,
        _,
        fragment_high,
        fragment_low,
        _,
        proto,
        _,
        _,
        s0,
        s1,
        s2,
        s3,
        d0,
        d1,
        d2,
        d3,
    ] = load::<20, B>(bytes, at)?;
    let header_len = u32::from(version_ihl & 0x0f) * 4;
    if version_ihl >> 4 != 4 || header_len < 20 {
        return Err(Unparsed::Malformed);
    }
    if proto != protocol::TCP {
        return Err(Unparsed::NotTcp);
    }
    // More fragments, or an offset.
    if u16::from_be_bytes([fragment_high, fragment_low]) & 0x3fff != 0 {
        return Err(Unparsed::Fragment);
    }
    // The kernel writes 0 where a GSO packet is too long for the field (BIG TCP).
    let end = match u32::from(u16::from_be_bytes([len_high, len_low])) {
        0 => u32::MAX,
        total if total < header_len => return Err(Unparsed::Malformed),
        total => at.saturating_add(total),
    };
    Ok(Ip {
        src: v4_mapped([s0, s1, s2, s3]),
        dst: v4_mapped([d0, d1, d2, d3]),
        tcp: at.saturating_add(header_len),
        end,
    })
}

#[inline(always)]
fn parse_ipv6<B: PacketBytes>(bytes: &B, at: u32) -> Result<Ip, Unparsed> {
    // RFC 8200 section 3.
    let [version, _, _, _, len_high, len_low, mut next, _] = load::<8, B>(bytes, at)?;
    if version >> 4 != 6 {
        return Err(Unparsed::Malformed);
    }
    let src = load(bytes, at.saturating_add(8))?;
    let dst = load(bytes, at.saturating_add(24))?;
    let after = at.saturating_add(IPV6_LEN);
    // 0 with a jumbo option (RFC 2675), and without one where the kernel makes BIG TCP packets.
    let len = u32::from(u16::from_be_bytes([len_high, len_low]));
    let mut end = if len == 0 { u32::MAX } else { after.saturating_add(len) };
    let mut header = after;
    let mut fragmented = false;
    for _ in 0..MAX_EXTENSION_HEADERS {
        let header_len = match next {
            protocol::HOP_BY_HOP | protocol::ROUTING | protocol::DESTINATION_OPTIONS => {
                let [following, units, option, option_len, j0, j1, j2, j3] = load(bytes, header)?;
                // The jumbo option is aligned to 4n+2 (RFC 2675 section 2), so alone it stands first. Where
                // others come before it, the packet's own length has to do.
                if next == protocol::HOP_BY_HOP && len == 0 && option == 0xc2 && option_len == 4 {
                    end = after.saturating_add(u32::from_be_bytes([j0, j1, j2, j3]));
                }
                next = following;
                (u32::from(units) + 1) * 8
            }
            // RFC 4302 section 2.2: in units of four bytes, minus two.
            protocol::AUTHENTICATION => {
                let [following, units] = load(bytes, header)?;
                next = following;
                (u32::from(units) + 2) * 4
            }
            protocol::FRAGMENT => {
                let [following, _, offset_high, offset_low] = load(bytes, header)?;
                // An atomic fragment has offset 0 and no more to come (RFC 6946): it is the whole packet.
                fragmented |= u16::from_be_bytes([offset_high, offset_low]) & 0xfff9 != 0;
                next = following;
                8
            }
            _ => break,
        };
        header = header.saturating_add(header_len);
        if fragmented {
            break;
        }
    }
    match next {
        protocol::TCP if fragmented => Err(Unparsed::Fragment),
        protocol::TCP => Ok(Ip { src, dst, tcp: header, end }),
        protocol::HOP_BY_HOP
        | protocol::ROUTING
        | protocol::FRAGMENT
        | protocol::AUTHENTICATION
        | protocol::DESTINATION_OPTIONS => {
            Err(if fragmented { Unparsed::Fragment } else { Unparsed::TooDeep })
        }
        _ => Err(Unparsed::NotTcp),
    }
}

#[inline(always)]
fn parse_tcp<B: PacketBytes>(bytes: &B, ip: &Ip, vlan: u32) -> Result<TcpPacket, Unparsed> {
    if ip.end < ip.tcp.saturating_add(TCP_LEN) {
        return Err(Unparsed::Malformed);
    }
    // RFC 9293 section 3.1.
    let [sp0, sp1, dp0, dp1, s0, s1, s2, s3, a0, a1, a2, a3, data_offset, flags, _, _] =
        load::<16, B>(bytes, ip.tcp)?;
    let header_len = u32::from(data_offset >> 4) * 4;
    if header_len < TCP_LEN {
        return Err(Unparsed::Malformed);
    }
    let payload_offset = ip.tcp.saturating_add(header_len);
    if payload_offset > ip.end {
        return Err(Unparsed::Malformed);
    }
    // What lies past the end that IP gives is padding of a short Ethernet frame.
    let Some(payload_len) = bytes.wire_len().min(ip.end).checked_sub(payload_offset) else {
        return Err(Unparsed::Truncated);
    };
    Ok(TcpPacket {
        src: ip.src,
        dst: ip.dst,
        src_port: u16::from_be_bytes([sp0, sp1]),
        dst_port: u16::from_be_bytes([dp0, dp1]),
        seq: u32::from_be_bytes([s0, s1, s2, s3]),
        ack: u32::from_be_bytes([a0, a1, a2, a3]),
        flags,
        payload_offset,
        payload_len,
        vlan,
        vni: 0,
    })
}

#[inline(always)]
fn load<const N: usize, B: PacketBytes>(bytes: &B, offset: u32) -> Result<[u8; N], Unparsed> {
    bytes.load(offset).ok_or(Unparsed::Truncated)
}

#[inline(always)]
fn load_u16<B: PacketBytes>(bytes: &B, offset: u32) -> Result<u16, Unparsed> {
    load(bytes, offset).map(u16::from_be_bytes)
}
