//! Enters: a packet's bytes, from its Ethernet or IP header on. Leaves: its TCP segment's place and fields, or why not.
//!
//! A packet is parsed in steps: [`find_network`] goes from an Ethernet header or an EtherType to what IP carries,
//! [`find_segment`] from there to a TCP segment or to the packet inside a tunnel, with which it begins again. The
//! innermost packet is the one that counts.
//!
//! The kernel program and the reader of capture files parse with the same code, so that what is tested over
//! slices is what runs in the kernel. It is written for the verifier: every loop has a constant bound, bytes are
//! copied out by constant sizes, and nothing is returned by reference into the packet. Checksums are not
//! verified: at a TC hook they are often not there yet.

mod fragment;
mod network;
mod numbers;
#[cfg(test)]
mod tests;
mod tunnel;

pub use fragment::{FirstFragment, FragmentKey, MAX_FRAGMENT_AGE_NS};
pub use network::{Address, Network, find_network};
pub use numbers::{ether_type, protocol, tcp_flag};
pub use tunnel::{TunnelPorts, UdpTunnel, UsualPorts, find_segment};

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
    /// Source address.
    pub src: Address,
    /// Destination address.
    pub dst: Address,
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
    /// Virtual network identifier as in [`RecordHeader::vni`](crate::RecordHeader::vni).
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
    /// A part of a fragmented IP packet that carries, or may carry, TCP or a tunnel.
    Fragment = 3,
    /// A header goes on past the packet's end, or past the bytes captured of it.
    Truncated = 4,
    /// A header contradicts itself or its surroundings.
    Malformed = 5,
    /// More VLAN tags, MPLS labels or extension headers than are followed.
    TooDeep = 6,
    /// A packet inside another, of a kind that is not looked into or deeper than [`MAX_TUNNELS`].
    Tunnel = 7,
}

/// Length of an Ethernet header in bytes.
pub const ETHERNET_LEN: u32 = 14;

/// Tunnels followed, one inside the other: that of a pod network, and one more around it or in it.
pub const MAX_TUNNELS: u8 = 2;

/// A record has room for two VLAN identifiers, the offloaded one included.
const MAX_TAGS: u8 = 2;

/// MPLS labels followed: transport, service, and two for load balancing (RFC 6790 section 2).
const MAX_LABELS: u32 = 4;

/// IPv6 extension headers followed. Real packets have one or two (RFC 8200 section 4.1 recommends each at most
/// once, which makes five before TCP, destination options counted twice).
const MAX_EXTENSION_HEADERS: u32 = 6;

/// Length of a TCP header without options in bytes.
const TCP_LEN: u32 = 20;

/// Where the headers of a packet begin, and what is known of it from outside.
///
/// Any bytes are a valid value, which lets the kernel program keep it in a map.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(C)]
pub struct Layer {
    /// Offset in bytes of what `ether_type` announces.
    pub at: u32,
    /// Where the packet around it ends; `u32::MAX` for the outermost.
    pub end: u32,
    /// VLAN identifiers so far.
    pub vlan: u32,
    /// Virtual network identifier so far.
    pub vni: u32,
    /// What begins at `at`.
    pub ether_type: u16,
    /// VLAN tags so far.
    pub tags: u8,
    /// Tunnels entered.
    pub depth: u8,
}

impl Layer {
    /// A packet as it passes an interface.
    ///
    /// `offloaded_tag` is the control information of a VLAN tag that the interface took off the packet; it counts as
    /// the outermost. A tag with identifier 0 only carries a priority (IEEE 802.1Q section 9.6) and is no part of a
    /// flow's identity.
    #[inline(always)]
    #[must_use]
    pub fn outermost(at: u32, ether_type: u16, offloaded_tag: Option<u16>) -> Self {
        let layer = Self { at, end: u32::MAX, vlan: 0, vni: 0, ether_type, tags: 0, depth: 0 };
        match offloaded_tag {
            Some(tci) => Self { vlan: with_tag(0, tci), tags: 1, ..layer },
            None => layer,
        }
    }

    /// The packet of a tunnel, which begins at `at` and ends before `end`.
    ///
    /// # Errors
    ///
    /// [`Unparsed::Tunnel`] where it is too deep.
    #[inline(always)]
    fn inside(&self, at: u32, end: u32, ether_type: u16) -> Result<Self, Unparsed> {
        if self.depth >= MAX_TUNNELS {
            return Err(Unparsed::Tunnel);
        }
        // The tags of an Ethernet header are those of the network that it comes from; without one, the packet is still
        // in that of the tunnel.
        let (vlan, tags) = if ether_type == ether_type::BRIDGED { (0, 0) } else { (self.vlan, self.tags) };
        Ok(Self { at, end, vlan, vni: self.vni, ether_type, tags, depth: self.depth.saturating_add(1) })
    }
}

/// Where a step of parsing led.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Step<T> {
    /// To what was looked for.
    Found(T),
    /// Into a tunnel.
    Inside(Layer),
}

/// Finds the TCP segment of the packet whose headers begin at `offset`. Tunnels over UDP are known by the usual ports.
///
/// `offloaded_tag` is as in [`Layer::outermost`].
///
/// # Errors
///
/// The reason why the packet has no TCP segment that could be used.
pub fn parse<B: PacketBytes>(
    bytes: &B,
    offset: u32,
    start: Start,
    offloaded_tag: Option<u16>,
) -> Result<TcpPacket, Unparsed> {
    parse_with(bytes, offset, start, offloaded_tag, &UsualPorts)
}

/// What the innermost packet holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Innermost {
    /// A whole segment.
    Segment(TcpPacket),
    /// A fragment of one, or a later fragment of a packet of which only the first tells what it holds.
    Fragment(Network),
}

/// Does as [`parse`] with other ports of tunnels.
///
/// # Errors
///
/// As [`parse`].
pub fn parse_with<B: PacketBytes>(
    bytes: &B,
    offset: u32,
    start: Start,
    offloaded_tag: Option<u16>,
    ports: &impl TunnelPorts,
) -> Result<TcpPacket, Unparsed> {
    match find_innermost(bytes, offset, start, offloaded_tag, ports)? {
        Innermost::Segment(packet) => Ok(packet),
        Innermost::Fragment(_) => Err(Unparsed::Fragment),
    }
}

/// Does as [`parse_with`], and gives fragments too.
///
/// # Errors
///
/// As [`parse`].
pub fn find_innermost<B: PacketBytes>(
    bytes: &B,
    offset: u32,
    start: Start,
    offloaded_tag: Option<u16>,
    ports: &impl TunnelPorts,
) -> Result<Innermost, Unparsed> {
    let ether_type = match start {
        Start::Ethernet => ether_type::BRIDGED,
        Start::EtherType(ether_type) => ether_type,
        Start::Ip => match load::<1, B>(bytes, offset)?[0] >> 4 {
            4 => ether_type::IPV4,
            6 => ether_type::IPV6,
            _ => return Err(Unparsed::NotIp),
        },
    };
    let mut layer = Layer::outermost(offset, ether_type, offloaded_tag);
    loop {
        // A layer inside is one deeper, and the depth is bounded: the loop ends.
        layer = match find_network(bytes, &layer)? {
            Step::Found(network) if network.is_tcp_fragment() => return Ok(Innermost::Fragment(network)),
            Step::Found(network) => match find_segment(bytes, &network, ports)? {
                Step::Found(packet) => return Ok(Innermost::Segment(packet)),
                Step::Inside(layer) => layer,
            },
            Step::Inside(layer) => layer,
        };
    }
}

/// Does as [`parse`] for an Ethernet packet without tags in its bytes, extension headers, and tunnels: the short way
/// for nearly every packet.
///
/// # Errors
///
/// As [`parse`], which may succeed where this does not.
#[inline(always)]
pub fn parse_plain<B: PacketBytes>(bytes: &B, offloaded_tag: Option<u16>) -> Result<TcpPacket, Unparsed> {
    let layer = Layer::outermost(0, ether_type::BRIDGED, offloaded_tag);
    match network::find_bounded::<B, 0, 0, 0>(bytes, &layer)? {
        Step::Found(network) if network.protocol == protocol::TCP => parse_tcp(bytes, &network),
        Step::Found(_) => Err(Unparsed::NotTcp),
        Step::Inside(_) => Err(Unparsed::Tunnel),
    }
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

/// Reads the TCP header that `network` carries.
#[inline(always)]
fn parse_tcp<B: PacketBytes>(bytes: &B, network: &Network) -> Result<TcpPacket, Unparsed> {
    if network.is_fragment() { Err(Unparsed::Fragment) } else { read_tcp(bytes, network) }
}

/// Reads the TCP header that `network` carries, be it in the first fragment of a packet.
#[inline(always)]
fn read_tcp<B: PacketBytes>(bytes: &B, network: &Network) -> Result<TcpPacket, Unparsed> {
    if !network.holds(TCP_LEN) {
        return Err(Unparsed::Malformed);
    }
    // RFC 9293 section 3.1.
    let [sp0, sp1, dp0, dp1, s0, s1, s2, s3, a0, a1, a2, a3, data_offset, flags, _, _] =
        load::<16, B>(bytes, network.at)?;
    let header_len = u32::from(data_offset >> 4) * 4;
    if header_len < TCP_LEN {
        return Err(Unparsed::Malformed);
    }
    let payload_offset = network.at.saturating_add(header_len);
    if payload_offset > network.end {
        return Err(Unparsed::Malformed);
    }
    // What lies past the end that IP gives is padding of a short Ethernet frame.
    let Some(payload_len) = bytes.wire_len().min(network.end).checked_sub(payload_offset) else {
        return Err(Unparsed::Truncated);
    };
    Ok(TcpPacket {
        src: network.src,
        dst: network.dst,
        src_port: u16::from_be_bytes([sp0, sp1]),
        dst_port: u16::from_be_bytes([dp0, dp1]),
        seq: u32::from_be_bytes([s0, s1, s2, s3]),
        ack: u32::from_be_bytes([a0, a1, a2, a3]),
        flags,
        payload_offset,
        payload_len,
        vlan: network.layer.vlan,
        vni: network.layer.vni,
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
