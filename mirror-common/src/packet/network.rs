//! Enters: where the headers of a packet begin. Leaves: what its IP header says and where what it carries begins.

use super::{
    ETHERNET_LEN, Layer, MAX_EXTENSION_HEADERS, MAX_LABELS, MAX_TAGS, PacketBytes, Step, Unparsed,
    ether_type, load, load_u16, protocol, v4_mapped, with_tag,
};

/// Length of an IPv6 header in bytes.
const IPV6_LEN: u32 = 40;

/// An IP header, with TCP or something that may hold it after it.
///
/// Any bytes are a valid value, which lets the kernel program keep it in a map.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(C)]
pub struct Network {
    /// Source address.
    pub src: Address,
    /// Destination address.
    pub dst: Address,
    /// What is known from outside, the tags included.
    pub layer: Layer,
    /// Where that which `protocol` announces begins.
    pub at: u32,
    /// Where the packet ends by its IP header; `u32::MAX` where that does not say (BIG TCP).
    pub end: u32,
    /// The packet's part that is cut into fragments begins here; of a fragment that is not the first, its own bytes.
    pub part_at: u32,
    /// Identification of the packet that a fragment is of.
    pub fragment_id: u32,
    /// Offset of a fragment in that part, in bytes.
    pub fragment_offset: u16,
    /// Non-zero: more fragments come after this one.
    pub has_more: u8,
    /// A [`protocol`] number: TCP, UDP, IPv4, IPv6 or GRE. In an IPv6 fragment that is not the first it may be that of
    /// an extension header.
    pub protocol: u8,
}

impl Network {
    /// Whether this is a part of a packet only.
    #[inline(always)]
    #[must_use]
    pub fn is_fragment(&self) -> bool {
        self.fragment_offset != 0 || self.has_more != 0
    }

    /// Whether the packet has `len` bytes or more at `at`, by its headers.
    #[inline(always)]
    pub(super) fn holds(&self, len: u32) -> bool {
        // A packet that claims to go on past the one around it is one that its receiver throws away.
        self.end <= self.layer.end && self.end >= self.at.saturating_add(len)
    }
}

/// An address in network byte order, v4-mapped for IPv4, held as two words: an array of bytes the compiler takes apart
/// where branches meet, for which the kernel program has neither the registers nor the stack.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
#[repr(C)]
pub struct Address([u64; 2]);

impl Address {
    /// The address as it stands in a header.
    #[inline(always)]
    #[must_use]
    pub fn to_bytes(self) -> [u8; 16] {
        let [high, low] = self.0;
        let ([a0, a1, a2, a3, a4, a5, a6, a7], [b0, b1, b2, b3, b4, b5, b6, b7]) =
            (high.to_ne_bytes(), low.to_ne_bytes());
        [a0, a1, a2, a3, a4, a5, a6, a7, b0, b1, b2, b3, b4, b5, b6, b7]
    }

    #[inline(always)]
    fn from_v4(addr: [u8; 4]) -> Self {
        const PREFIX: [u8; 16] = v4_mapped([0; 4]);
        let low = (0xffff_u64 << 32 | u64::from(u32::from_be_bytes(addr))).to_be();
        const { assert!(PREFIX[10] == 0xff && PREFIX[11] == 0xff && PREFIX[9] == 0) };
        Self([0, low])
    }
}

impl From<[u8; 16]> for Address {
    /// The address that stands so in a header.
    #[inline(always)]
    fn from(bytes: [u8; 16]) -> Self {
        let [a0, a1, a2, a3, a4, a5, a6, a7, b0, b1, b2, b3, b4, b5, b6, b7] = bytes;
        let word = u64::from_ne_bytes;
        Self([word([a0, a1, a2, a3, a4, a5, a6, a7]), word([b0, b1, b2, b3, b4, b5, b6, b7])])
    }
}

/// Finds what IP carries in the packet of `layer`, or the packet in a pseudowire.
///
/// # Errors
///
/// The reason why there is nothing that could hold a TCP segment.
#[inline(always)]
pub fn find_network<B: PacketBytes>(bytes: &B, layer: &Layer) -> Result<Step<Network>, Unparsed> {
    find_bounded::<B, MAX_TAGS, MAX_LABELS, MAX_EXTENSION_HEADERS>(bytes, layer)
}

/// Does as [`find_network`] with other bounds.
#[inline(always)]
pub(super) fn find_bounded<
    B: PacketBytes,
    const TAGS: u8,
    const LABELS: u32,
    const EXTENSION_HEADERS: u32,
>(
    bytes: &B,
    layer: &Layer,
) -> Result<Step<Network>, Unparsed> {
    let mut layer = *layer;
    if layer.ether_type == ether_type::BRIDGED {
        layer.ether_type = load_u16(bytes, layer.at.saturating_add(12))?;
        layer.at = layer.at.saturating_add(ETHERNET_LEN);
    }
    // One round more than tags fit: the last one only finds that there is no room.
    for _ in 0..=TAGS {
        if !ether_type::is_tag(layer.ether_type) {
            break;
        }
        if layer.tags >= TAGS {
            return Err(Unparsed::TooDeep);
        }
        let [tci_high, tci_low, type_high, type_low] = load(bytes, layer.at)?;
        layer.vlan = with_tag(layer.vlan, u16::from_be_bytes([tci_high, tci_low]));
        layer.ether_type = u16::from_be_bytes([type_high, type_low]);
        layer.tags = layer.tags.saturating_add(1);
        layer.at = layer.at.saturating_add(4);
    }
    if layer.ether_type == ether_type::MPLS || layer.ether_type == ether_type::MPLS_UPSTREAM {
        if LABELS == 0 {
            return Err(Unparsed::TooDeep);
        }
        layer.at = skip_labels::<B, LABELS>(bytes, layer.at)?;
        let first: [u8; 4] = load(bytes, layer.at)?;
        // Nothing says what is below the labels. Routers go by the first half byte (RFC 4928 section 3).
        layer.ether_type = match first[0] >> 4 {
            4 => ether_type::IPV4,
            6 => ether_type::IPV6,
            0 if first == [0; 4] => return find_in_pseudowire(bytes, &layer),
            // An associated channel of the network's own (RFC 5586 section 2).
            1 => return Err(Unparsed::NotIp),
            _ => return Err(Unparsed::Tunnel),
        };
    }
    match layer.ether_type {
        ether_type::IPV4 => parse_ipv4(bytes, layer).map(Step::Found),
        ether_type::IPV6 => parse_ipv6::<B, EXTENSION_HEADERS>(bytes, layer).map(Step::Found),
        other if ether_type::is_closed_tunnel(other) => Err(Unparsed::Tunnel),
        _ => Err(Unparsed::NotIp),
    }
}

/// Where the MPLS labels that begin at `at` end.
#[inline(always)]
fn skip_labels<B: PacketBytes, const LABELS: u32>(bytes: &B, mut at: u32) -> Result<u32, Unparsed> {
    for _ in 0..LABELS {
        // RFC 3032 section 2.1: the last bit of the third byte marks the bottom of the stack.
        let [_, _, label_end, _] = load(bytes, at)?;
        at = at.saturating_add(4);
        if label_end & 1 != 0 {
            return Ok(at);
        }
    }
    Err(Unparsed::TooDeep)
}

/// The Ethernet packet behind a control word of zeros (RFC 4448 section 4.6), where it is one beyond doubt: the same
/// bytes could be a hardware address.
#[inline(always)]
fn find_in_pseudowire<B: PacketBytes>(bytes: &B, layer: &Layer) -> Result<Step<Network>, Unparsed> {
    let at = layer.at.saturating_add(4);
    let ether_type = load_u16(bytes, at.saturating_add(12))?;
    if ether_type == ether_type::IPV4 || ether_type == ether_type::IPV6 || ether_type::is_tag(ether_type) {
        layer.inside(at, layer.end, ether_type::BRIDGED).map(Step::Inside)
    } else {
        Err(Unparsed::Tunnel)
    }
}

/// Whether TCP may follow.
#[inline(always)]
const fn may_hold_tcp(protocol: u8) -> bool {
    matches!(protocol, protocol::TCP | protocol::UDP | protocol::IPV4 | protocol::IPV6 | protocol::GRE)
}

#[inline(always)]
fn parse_ipv4<B: PacketBytes>(bytes: &B, layer: Layer) -> Result<Network, Unparsed> {
    // RFC 791 section 3.1.
    let [
        version_ihl,
        _,
        len_high,
        len_low,
        id_high,
        id_low,
        fragment_high,
        fragment_low,
        _,
        protocol,
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
    ] = load::<20, B>(bytes, layer.at)?;
    let header_len = u32::from(version_ihl & 0x0f) * 4;
    if version_ihl >> 4 != 4 || header_len < 20 {
        return Err(Unparsed::Malformed);
    }
    if !may_hold_tcp(protocol) {
        return Err(Unparsed::NotTcp);
    }
    let total = u32::from(u16::from_be_bytes([len_high, len_low]));
    // The kernel writes 0 where a GSO packet is too long for the field (BIG TCP).
    let end = if total == 0 && layer.depth == 0 { u32::MAX } else { layer.at.saturating_add(total) };
    let at = layer.at.saturating_add(header_len);
    let fragment = u16::from_be_bytes([fragment_high, fragment_low]);
    Ok(Network {
        src: Address::from_v4([s0, s1, s2, s3]),
        dst: Address::from_v4([d0, d1, d2, d3]),
        layer,
        at,
        end,
        part_at: at,
        fragment_id: u32::from(u16::from_be_bytes([id_high, id_low])),
        fragment_offset: (fragment & 0x1fff) << 3,
        has_more: u8::from(fragment & 0x2000 != 0),
        protocol,
    })
}

#[inline(always)]
fn parse_ipv6<B: PacketBytes, const EXTENSION_HEADERS: u32>(
    bytes: &B,
    layer: Layer,
) -> Result<Network, Unparsed> {
    // RFC 8200 section 3.
    let [version, _, _, _, len_high, len_low, mut next, _] = load::<8, B>(bytes, layer.at)?;
    if version >> 4 != 6 {
        return Err(Unparsed::Malformed);
    }
    let addr = |offset: u32| -> Result<Address, Unparsed> {
        let high = u64::from_ne_bytes(load(bytes, layer.at.saturating_add(offset))?);
        Ok(Address([high, u64::from_ne_bytes(load(bytes, layer.at.saturating_add(offset + 8))?)]))
    };
    let (src, dst) = (addr(8)?, addr(24)?);
    let after = layer.at.saturating_add(IPV6_LEN);
    // 0 with a jumbo option (RFC 2675), and without one where the kernel makes BIG TCP packets.
    let len = u32::from(u16::from_be_bytes([len_high, len_low]));
    let mut end = if len == 0 && layer.depth == 0 { u32::MAX } else { after.saturating_add(len) };
    let mut header = after;
    let mut part_at = after;
    let mut fragment_id = 0;
    let mut fragment = 0_u16;
    for _ in 0..EXTENSION_HEADERS {
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
                let [following, _, offset_high, offset_low, i0, i1, i2, i3] = load(bytes, header)?;
                next = following;
                // An atomic fragment has offset 0 and no more to come (RFC 6946): it is the whole packet.
                fragment = u16::from_be_bytes([offset_high, offset_low]) & 0xfff9;
                fragment_id = u32::from_be_bytes([i0, i1, i2, i3]);
                part_at = header.saturating_add(8);
                8
            }
            _ => break,
        };
        header = header.saturating_add(header_len);
        // What comes after is data of the packet, from the offset on.
        if fragment & 0xfff8 != 0 {
            break;
        }
    }
    let is_extension = matches!(
        next,
        protocol::HOP_BY_HOP
            | protocol::ROUTING
            | protocol::FRAGMENT
            | protocol::AUTHENTICATION
            | protocol::DESTINATION_OPTIONS
    );
    if is_extension && fragment & 0xfff8 == 0 {
        return Err(if fragment == 0 { Unparsed::TooDeep } else { Unparsed::Fragment });
    }
    if !is_extension && !may_hold_tcp(next) {
        return Err(Unparsed::NotTcp);
    }
    Ok(Network {
        src,
        dst,
        layer,
        at: header,
        end,
        part_at,
        fragment_id,
        fragment_offset: fragment & 0xfff8,
        has_more: u8::from(fragment & 1 != 0),
        protocol: next,
    })
}
