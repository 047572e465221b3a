//! Enters: what an IP packet carries. Leaves: its TCP segment, or the packet that a tunnel carries in it.

use super::{Layer, Network, PacketBytes, Step, TcpPacket, Unparsed, ether_type, load, parse_tcp, protocol};

/// A tunnel over UDP.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum UdpTunnel {
    /// VXLAN (RFC 7348).
    Vxlan,
    /// Geneve (RFC 8926).
    Geneve,
}

/// Which UDP ports are those of tunnels.
pub trait TunnelPorts {
    /// The tunnel whose packets go to this port; `None` where it is none.
    fn tunnel(&self, port: u16) -> Option<UdpTunnel>;
}

/// The ports that are usual.
#[derive(Clone, Copy, Debug)]
pub struct UsualPorts;

impl UsualPorts {
    /// VXLAN: that of RFC 7348 section 5, and the one that Linux used before it was assigned.
    pub const VXLAN: [u16; 2] = [4789, 8472];
    /// Geneve: that of RFC 8926 section 3.3.
    pub const GENEVE: [u16; 1] = [6081];
}

impl TunnelPorts for UsualPorts {
    fn tunnel(&self, port: u16) -> Option<UdpTunnel> {
        if Self::VXLAN.contains(&port) {
            Some(UdpTunnel::Vxlan)
        } else if Self::GENEVE.contains(&port) {
            Some(UdpTunnel::Geneve)
        } else {
            None
        }
    }
}

/// Length of a UDP header in bytes.
const UDP_LEN: u32 = 8;

/// Length of a VXLAN header, and of a Geneve header without options, in bytes.
const UDP_TUNNEL_LEN: u32 = 8;

/// Finds the TCP segment that `network` carries, or the packet inside it.
///
/// # Errors
///
/// The reason why there is neither.
#[inline(always)]
pub fn find_segment<B: PacketBytes>(
    bytes: &B,
    network: &Network,
    ports: &impl TunnelPorts,
) -> Result<Step<TcpPacket>, Unparsed> {
    match network.protocol {
        protocol::TCP => parse_tcp(bytes, network).map(Step::Found),
        protocol::UDP => enter_udp(bytes, network, ports).map(Step::Inside),
        // Of a tunnel that is cut into fragments there is nothing to be had.
        _ if network.is_fragment() => Err(Unparsed::Fragment),
        protocol::IPV4 => enter_ip(network, ether_type::IPV4).map(Step::Inside),
        protocol::IPV6 => enter_ip(network, ether_type::IPV6).map(Step::Inside),
        protocol::GRE => enter_gre(bytes, network).map(Step::Inside),
        _ => Err(Unparsed::NotTcp),
    }
}

/// RFC 2003, RFC 2473, RFC 4213: the packet follows at once.
#[inline(always)]
fn enter_ip(network: &Network, ether_type: u16) -> Result<Layer, Unparsed> {
    if !network.holds(1) {
        return Err(Unparsed::Malformed);
    }
    network.layer.inside(network.at, network.end, ether_type)
}

#[inline(always)]
fn enter_udp<B: PacketBytes>(
    bytes: &B,
    network: &Network,
    ports: &impl TunnelPorts,
) -> Result<Layer, Unparsed> {
    // Only the first fragment of a packet has its ports, so it stands for all of them.
    if network.fragment_offset != 0 {
        return Err(Unparsed::NotTcp);
    }
    // RFC 768.
    let Some([_, _, port_high, port_low]) = bytes.load(network.at) else {
        return Err(Unparsed::NotTcp);
    };
    let Some(tunnel) = ports.tunnel(u16::from_be_bytes([port_high, port_low])) else {
        return Err(Unparsed::NotTcp);
    };
    if !network.holds(UDP_LEN + UDP_TUNNEL_LEN) {
        return Err(Unparsed::NotTcp);
    }
    let at = network.at.saturating_add(UDP_LEN);
    // RFC 7348 section 5, RFC 8926 section 3.4: the identifier is at the same place.
    let [first, _, type_high, type_low, v0, v1, v2, _] = load::<8, B>(bytes, at)?;
    let mut inner_at = at.saturating_add(UDP_TUNNEL_LEN);
    let inner_type = match tunnel {
        UdpTunnel::Vxlan => {
            // Without this flag it is not VXLAN.
            if first & 0x08 == 0 {
                return Err(Unparsed::NotTcp);
            }
            // The extension that says what is inside, which need not be Ethernet.
            if first & 0x04 != 0 {
                return Err(Unparsed::Tunnel);
            }
            ether_type::BRIDGED
        }
        UdpTunnel::Geneve => {
            // A version to come.
            if first >> 6 != 0 {
                return Err(Unparsed::NotTcp);
            }
            // In units of four bytes. That the packet is for the tunnel's ends (O), or that an option matters to them
            // (C), does not change what it carries.
            inner_at = inner_at.saturating_add(u32::from(first & 0x3f) * 4);
            let inner_type = u16::from_be_bytes([type_high, type_low]);
            if !is_open(inner_type) {
                return Err(Unparsed::Tunnel);
            }
            inner_type
        }
    };
    if network.is_fragment() {
        return Err(Unparsed::Fragment);
    }
    let inner = network.layer.inside(inner_at, network.end, inner_type)?;
    Ok(Layer { vni: u32::from_be_bytes([0, v0, v1, v2]), ..inner })
}

#[inline(always)]
fn enter_gre<B: PacketBytes>(bytes: &B, network: &Network) -> Result<Layer, Unparsed> {
    if !network.holds(4) {
        return Err(Unparsed::Malformed);
    }
    // RFC 2784 section 2, RFC 2890 section 2; R is RFC 1701's.
    let [flags_high, flags_low, type_high, type_low] = load(bytes, network.at)?;
    let inner_type = u16::from_be_bytes([type_high, type_low]);
    // Another version (1 is PPTP's, RFC 2637 section 4.1), or a route of unknown length.
    if flags_low & 0x07 != 0 || flags_high & 0x40 != 0 || ether_type::is_closed_tunnel(inner_type) {
        return Err(Unparsed::Tunnel);
    }
    if !is_open(inner_type) {
        return Err(Unparsed::NotTcp);
    }
    let has = |flag: u8| u32::from(flags_high & flag != 0) * 4;
    let (checksum, key, sequence) = (has(0x80), has(0x20), has(0x10));
    let key_at = network.at.saturating_add(4).saturating_add(checksum);
    let inner =
        network.layer.inside(key_at.saturating_add(key).saturating_add(sequence), network.end, inner_type)?;
    if key == 0 {
        return Ok(inner);
    }
    Ok(Layer { vni: u32::from_be_bytes(load(bytes, key_at)?), ..inner })
}

/// Whether a packet of this type inside a tunnel is looked into.
#[inline(always)]
const fn is_open(ether_type: u16) -> bool {
    matches!(
        ether_type,
        ether_type::BRIDGED
            | ether_type::IPV4
            | ether_type::IPV6
            | ether_type::MPLS
            | ether_type::MPLS_UPSTREAM
    )
}
