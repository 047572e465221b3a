//! Enters: nothing. Leaves: the numbers by which headers announce what comes after them.

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
    /// What switches wrote for an outer tag before 802.1ad.
    pub const OLD_SERVICE_VLAN: u16 = 0x9100;
    /// The same of other makers.
    pub const OTHER_SERVICE_VLAN: u16 = 0x9200;
    /// An Ethernet header (transparent Ethernet bridging). Tunnels announce it; parsing starts with it too.
    pub const BRIDGED: u16 = 0x6558;
    /// MPLS labels (RFC 3032 section 5).
    pub const MPLS: u16 = 0x8847;
    /// MPLS labels assigned upstream (RFC 5332 section 3).
    pub const MPLS_UPSTREAM: u16 = 0x8848;
    /// A PPP packet of a PPPoE session (RFC 2516 section 4): not looked into.
    pub const PPPOE_SESSION: u16 = 0x8864;
    /// Network service header (RFC 8300 section 2): not looked into.
    pub const NSH: u16 = 0x894f;
    /// ERSPAN types I and II in GRE: not looked into.
    pub const ERSPAN: u16 = 0x88be;
    /// ERSPAN type III in GRE: not looked into.
    pub const ERSPAN_3: u16 = 0x22eb;
    /// A redirected packet of WCCP in GRE, behind a header of its own: not looked into.
    pub const WCCP: u16 = 0x883e;

    /// Whether this is one of the types of a VLAN tag.
    #[inline(always)]
    #[must_use]
    pub const fn is_tag(ether_type: u16) -> bool {
        matches!(ether_type, VLAN | SERVICE_VLAN | OLD_SERVICE_VLAN | OTHER_SERVICE_VLAN)
    }

    /// Whether this announces a packet inside that is not looked into.
    #[inline(always)]
    #[must_use]
    pub const fn is_closed_tunnel(ether_type: u16) -> bool {
        matches!(ether_type, PPPOE_SESSION | NSH | ERSPAN | ERSPAN_3 | WCCP)
    }
}

/// IP protocol numbers (RFC 8200 section 4, RFC 4302).
pub mod protocol {
    /// IPv6 hop-by-hop options.
    pub const HOP_BY_HOP: u8 = 0;
    /// An IPv4 packet (RFC 2003).
    pub const IPV4: u8 = 4;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// An IPv6 packet (RFC 2473, RFC 4213).
    pub const IPV6: u8 = 41;
    /// IPv6 routing header.
    pub const ROUTING: u8 = 43;
    /// IPv6 fragment header.
    pub const FRAGMENT: u8 = 44;
    /// Generic routing encapsulation (RFC 2784).
    pub const GRE: u8 = 47;
    /// Authentication header.
    pub const AUTHENTICATION: u8 = 51;
    /// ICMP for IPv6.
    pub const ICMPV6: u8 = 58;
    /// IPv6 destination options.
    pub const DESTINATION_OPTIONS: u8 = 60;
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
