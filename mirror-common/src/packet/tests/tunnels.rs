//! Enters: packets inside packets. Leaves: nothing; which are looked into, and what is kept of the way there.

extern crate std;

use std::vec;
use std::vec::Vec;

use super::{DST4, TCP, UDP, frame, ipv4, ipv6, join, parse_frame, tcp};
use crate::packet::{
    CapturedBytes, Start, TcpPacket, TunnelPorts, UdpTunnel, Unparsed, parse, parse_plain, parse_with,
    v4_mapped,
};

const IPIP: u8 = 4;
const IN6: u8 = 41;
const GRE: u8 = 47;

#[test]
fn segment_is_found_in_every_kind_of_tunnel() {
    let v4 = ipv4(&[], TCP, &tcp(&[], b"hello"));
    let v6 = ipv6(TCP, &tcp(&[], b"hello"));
    let bridged = frame(0x0800, &v4);
    let cases = [
        ("VXLAN", frame(0x0800, &vxlan(4789, &bridged)), 0x0001_0203),
        ("VXLAN, old port", frame(0x0800, &vxlan(8472, &bridged)), 0x0001_0203),
        ("VXLAN over IPv6", frame(0x86dd, &ipv6(UDP, &udp(4789, &vxlan_header(&bridged)))), 0x0001_0203),
        ("Geneve", frame(0x0800, &geneve(&[], 0x6558, &bridged)), 0x0004_0506),
        ("Geneve with options", frame(0x0800, &geneve(&[7; 252], 0x6558, &bridged)), 0x0004_0506),
        ("Geneve, IPv4", frame(0x0800, &geneve(&[7; 8], 0x0800, &v4)), 0x0004_0506),
        ("Geneve, IPv6", frame(0x0800, &geneve(&[], 0x86dd, &v6)), 0x0004_0506),
        ("IPv4 in IPv4", frame(0x0800, &ipv4(&[1; 4], IPIP, &v4)), 0),
        ("IPv6 in IPv4", frame(0x0800, &ipv4(&[], IN6, &v6)), 0),
        ("IPv4 in IPv6", frame(0x86dd, &ipv6(IPIP, &v4)), 0),
        ("IPv6 in IPv6", frame(0x86dd, &ipv6(IN6, &v6)), 0),
        ("GRE", gre(&[0, 0], 0x0800, &[], &v4), 0),
        ("GRE, IPv6", gre(&[0, 0], 0x86dd, &[], &v6), 0),
        ("GRE, Ethernet", gre(&[0, 0], 0x6558, &[], &bridged), 0),
        ("GRE, MPLS", gre(&[0, 0], 0x8847, &[], &labels(1, &v4)), 0),
        ("GRE with checksum", gre(&[0x80, 0], 0x0800, &[9; 4], &v4), 0),
        ("GRE with key", gre(&[0x20, 0], 0x0800, &[1, 2, 3, 4], &v4), 0x0102_0304),
        ("GRE with sequence", gre(&[0x10, 0], 0x0800, &[9; 4], &v4), 0),
        ("GRE with all", gre(&[0xb0, 0], 0x0800, &[9, 9, 9, 9, 1, 2, 3, 4, 8, 8, 8, 8], &v4), 0x0102_0304),
        ("MPLS", frame(0x8847, &labels(1, &v4)), 0),
        ("MPLS, four labels", frame(0x8848, &labels(4, &v6)), 0),
        ("pseudowire", frame(0x8847, &labels(2, &join(&[0; 4], &bridged))), 0),
    ];
    for (name, bytes, vni) in cases {
        let packet = parse_frame(&bytes);
        let len = u32::try_from(bytes.len()).unwrap();

        assert_eq!(packet.map(|p| (p.src_port, p.dst_port, p.vni)), Ok((40_000, 80, vni)), "{name}");
        assert_eq!(packet.map(|p| (p.payload_offset, p.payload_len)), Ok((len - 5, 5)), "{name}");
    }
}

#[test]
fn addresses_are_those_of_the_innermost_packet() {
    let inner = ipv6(TCP, &tcp(&[], b""));
    let packet = parse_frame(&frame(0x0800, &ipv4(&[], IN6, &inner))).unwrap();

    assert_eq!((packet.src.to_bytes(), packet.dst.to_bytes()), (super::SRC6, super::DST6));
    assert_ne!(packet.dst.to_bytes(), v4_mapped(DST4));
}

#[test]
fn two_tunnels_are_followed_and_a_third_is_named() {
    let v4 = ipv4(&[], TCP, &tcp(&[], b"hello"));
    let two = ipv4(&[], IPIP, &ipv4(&[], IPIP, &v4));
    let three = ipv4(&[], IPIP, &two);
    let mixed = frame(0x0800, &vxlan(4789, &gre(&[0x20, 0], 0x6558, &[0, 0, 0, 9], &frame(0x0800, &v4))));
    let wired = labels(1, &join(&[0; 4], &frame(0x0800, &vxlan(4789, &frame(0x0800, &v4)))));
    let third = frame(0x0800, &ipv4(&[], IPIP, &ipv4(&[], IPIP, &vxlan(4789, &frame(0x0800, &v4)))));
    let third_wire = frame(0x0800, &two_around(&labels(1, &join(&[0; 4], &frame(0x0800, &v4)))));

    assert_eq!(parse_frame(&frame(0x0800, &two)).map(|p| p.payload_len), Ok(5));
    assert_eq!(parse_frame(&mixed).map(|p| (p.vni, p.payload_len)), Ok((9, 5)));
    assert_eq!(parse_frame(&frame(0x8847, &wired)).map(|p| (p.vni, p.payload_len)), Ok((0x0001_0203, 5)));
    assert_eq!(parse_frame(&frame(0x0800, &three)), Err(Unparsed::Tunnel));
    assert_eq!(parse_frame(&third), Err(Unparsed::Tunnel));
    assert_eq!(parse_frame(&third_wire), Err(Unparsed::Tunnel));
}

#[test]
fn identifier_of_the_tunnel_around_stays_where_the_inner_has_none() {
    let v4 = ipv4(&[], TCP, &tcp(&[], b""));
    let in_vxlan = |ip: &[u8]| parse_frame(&frame(0x0800, &vxlan(4789, &frame(0x0800, ip)))).map(|p| p.vni);

    assert_eq!(in_vxlan(&ipv4(&[], IPIP, &v4)), Ok(0x0001_0203));
    assert_eq!(in_vxlan(&geneve(&[], 0x0800, &v4)), Ok(0x0004_0506));
}

#[test]
fn inner_ethernet_header_begins_the_tags_anew() {
    let v4 = ipv4(&[], TCP, &tcp(&[], b""));
    let tagged = |tci: u8, inner_type: u16, rest: &[u8]| {
        let [high, low] = inner_type.to_be_bytes();
        frame(0x8100, &join(&[0, tci, high, low], rest))
    };
    let vlan = |bytes: &[u8]| parse_frame(bytes).map(|p| p.vlan);

    assert_eq!(vlan(&tagged(5, 0x0800, &vxlan(4789, &tagged(9, 0x0800, &v4)))), Ok(9));
    assert_eq!(vlan(&tagged(5, 0x0800, &vxlan(4789, &frame(0x0800, &v4)))), Ok(0));
    assert_eq!(vlan(&tagged(5, 0x0800, &ipv4(&[], IPIP, &v4))), Ok(5));
    assert_eq!(vlan(&tagged(5, 0x8847, &labels(1, &v4))), Ok(5));
    let double = frame(0x88a8, &join(&[0, 7, 0x81, 0, 0, 5, 8, 0], &v4));
    assert_eq!(vlan(&double), Ok(7 | 5 << 16));
    assert_eq!(vlan(&tagged(3, 0x0800, &vxlan(4789, &double))), Ok(7 | 5 << 16));
}

#[test]
fn old_types_of_outer_tags_are_tags() {
    let v4 = ipv4(&[], TCP, &tcp(&[], b""));
    for ether_type in [0x9100, 0x9200] {
        let bytes = frame(ether_type, &join(&[0, 7, 0x81, 0, 0, 5, 8, 0], &v4));
        assert_eq!(parse_frame(&bytes).map(|p| p.vlan), Ok(7 | 5 << 16), "{ether_type:#x}");
    }
}

#[test]
fn what_is_not_looked_into_is_named() {
    let v4 = ipv4(&[], TCP, &tcp(&[], b"hello"));
    let bridged = frame(0x0800, &v4);
    let mut extended = vxlan(4789, &bridged);
    extended[28] = 0x0c;
    let cases = [
        ("ERSPAN I", gre(&[0, 0], 0x88be, &[], &bridged)),
        ("ERSPAN II", gre(&[0x10, 0], 0x88be, &[0; 12], &bridged)),
        ("ERSPAN III", gre(&[0x10, 0], 0x22eb, &[0; 16], &bridged)),
        ("WCCP", gre(&[0, 0], 0x883e, &[0; 4], &v4)),
        ("PPTP", gre(&[0x30, 0x81], 0x880b, &[0; 12], &v4)),
        ("GRE of another version", gre(&[0, 7], 0x0800, &[], &v4)),
        ("GRE with routing", gre(&[0x40, 0], 0x0800, &[0; 8], &v4)),
        ("PPPoE session", frame(0x8864, &join(&[0x11, 0, 0, 1, 0, 47, 0, 0x21], &v4))),
        ("NSH", frame(0x894f, &join(&[0x0f, 0xc6, 1, 3], &v4))),
        ("Geneve, another type", frame(0x0800, &geneve(&[], 0x894f, &v4))),
        ("VXLAN with a protocol field", frame(0x0800, &extended)),
        ("pseudowire without control word", frame(0x8847, &labels(1, &join(&[0x02, 0, 0, 1], &bridged)))),
        ("pseudowire with a sequence", frame(0x8847, &labels(1, &join(&[0, 0, 0, 1], &bridged)))),
        ("pseudowire or address", frame(0x8847, &labels(1, &[0; 60]))),
    ];
    for (name, bytes) in cases {
        assert_eq!(parse_frame(&bytes), Err(Unparsed::Tunnel), "{name}");
    }
}

#[test]
fn what_only_looks_like_a_tunnel_is_left_alone() {
    let bridged = frame(0x0800, &ipv4(&[], TCP, &tcp(&[], b"hello")));
    let patched = |mut ip: Vec<u8>, at: usize, value: u8| {
        ip[at] = value;
        parse_frame(&frame(0x0800, &ip)).map(|p| p.vni)
    };

    assert_eq!(patched(vxlan(4789, &bridged), 28, 0), Err(Unparsed::NotTcp), "no I flag");
    assert_eq!(patched(vxlan(4789, &bridged), 28, 0x88), Ok(0x0001_0203), "another flag besides");
    assert_eq!(patched(geneve(&[], 0x6558, &bridged), 28, 0x40), Err(Unparsed::NotTcp), "version");
    assert_eq!(patched(geneve(&[], 0x6558, &bridged), 29, 0xc0), Ok(0x0004_0506), "control, critical");
    assert_eq!(parse_frame(&frame(0x0800, &vxlan(4790, &bridged))), Err(Unparsed::NotTcp));
    assert_eq!(parse_frame(&frame(0x0800, &ipv4(&[], UDP, &udp(4789, &[8; 7])))), Err(Unparsed::NotTcp));
    assert_eq!(parse_frame(&frame(0x0800, &ipv4(&[], UDP, &[0; 3]))), Err(Unparsed::NotTcp));
    assert_eq!(parse_frame(&frame(0x0800, &vxlan(4789, &frame(0x0806, &[0; 28])))), Err(Unparsed::NotIp));
    assert_eq!(parse_frame(&gre(&[0, 0], 0x0806, &[], &[0; 28])), Err(Unparsed::NotTcp));
    assert_eq!(parse_frame(&frame(0x8863, &[0; 40])), Err(Unparsed::NotIp), "PPPoE discovery");
    assert_eq!(parse_frame(&frame(0x8847, &labels(1, &[0x10; 40]))), Err(Unparsed::NotIp), "channel");
}

#[test]
fn labels_are_followed_up_to_a_bound() {
    let v4 = ipv4(&[], TCP, &tcp(&[], b""));

    assert_eq!(parse_frame(&frame(0x8847, &labels(5, &v4))), Err(Unparsed::TooDeep));
    assert_eq!(
        parse_plain(&CapturedBytes::whole(&frame(0x8847, &labels(1, &v4))), None),
        Err(Unparsed::TooDeep)
    );
}

#[test]
fn ports_of_tunnels_are_those_given() {
    struct Only(u16);
    impl TunnelPorts for Only {
        fn tunnel(&self, port: u16) -> Option<UdpTunnel> {
            (port == self.0).then_some(UdpTunnel::Geneve)
        }
    }
    let v4 = ipv4(&[], TCP, &tcp(&[], b""));
    let mut other = geneve(&[], 0x0800, &v4);
    other[22..24].copy_from_slice(&999_u16.to_be_bytes());
    let with = |bytes: &[u8]| {
        parse_with(&CapturedBytes::whole(&frame(0x0800, bytes)), 0, Start::Ethernet, None, &Only(999))
            .map(|p| p.vni)
    };

    assert_eq!(with(&other), Ok(0x0004_0506));
    assert_eq!(with(&geneve(&[], 0x0800, &v4)), Err(Unparsed::NotTcp));
    assert_eq!(with(&vxlan(4789, &frame(0x0800, &v4))), Err(Unparsed::NotTcp));
}

#[test]
fn fragment_of_a_tunnel_is_counted_once_a_packet_where_ports_tell() {
    let v4 = ipv4(&[], TCP, &tcp(&[], b"hello"));
    let cut = |mut ip: Vec<u8>, field: u16| {
        ip[6..8].copy_from_slice(&field.to_be_bytes());
        parse_frame(&frame(0x0800, &ip)).map(|p| p.dst_port)
    };
    let first = 0x2000;
    let later = 0x0002;

    assert_eq!(cut(vxlan(4789, &frame(0x0800, &v4)), first), Err(Unparsed::Fragment));
    assert_eq!(cut(vxlan(4789, &frame(0x0800, &v4)), later), Err(Unparsed::NotTcp));
    assert_eq!(cut(ipv4(&[], UDP, &udp(53, &[8; 40])), first), Err(Unparsed::NotTcp));
    for field in [first, later] {
        assert_eq!(cut(ipv4(&[], IPIP, &v4), field), Err(Unparsed::Fragment));
        assert_eq!(cut(gre(&[0, 0], 0x0800, &[], &v4)[14..].to_vec(), field), Err(Unparsed::Fragment));
    }
    let mut inner = v4.clone();
    inner[6] = 0x20;
    assert_eq!(parse_frame(&frame(0x0800, &vxlan(4789, &frame(0x0800, &inner)))), Err(Unparsed::Fragment));
}

#[test]
fn inner_packet_ends_where_its_header_says_and_not_after_the_outer() {
    let v4 = ipv4(&[], TCP, &tcp(&[], b"hello"));
    let v6 = ipv6(TCP, &tcp(&[], b"hello"));
    let padded = frame(0x0800, &vxlan(4789, &join(&frame(0x0800, &v4), &[0; 6])));
    let longer = |ip: &[u8], len_at: usize, inner_type| {
        let mut ip = ip.to_vec();
        ip[len_at] += 1;
        parse_frame(&join(&frame(0x0800, &geneve(&[], inner_type, &ip)), &[0; 9])).map(|p| p.payload_len)
    };
    let zero = |ip: &[u8], len_at: usize, inner_type| {
        let mut ip = ip.to_vec();
        ip[len_at..len_at + 2].fill(0);
        parse_frame(&frame(0x0800, &geneve(&[], inner_type, &ip))).map(|p| p.payload_len)
    };

    assert_eq!(parse_frame(&padded).map(|p| p.payload_len), Ok(5));
    assert_eq!(longer(&v4, 3, 0x0800), Err(Unparsed::Malformed));
    assert_eq!(longer(&v6, 5, 0x86dd), Err(Unparsed::Malformed));
    assert_eq!(zero(&v4, 2, 0x0800), Err(Unparsed::Malformed));
    assert_eq!(zero(&v6, 4, 0x86dd), Err(Unparsed::Malformed));
    assert_eq!(parse_frame(&frame(0x0800, &ipv4(&[], IPIP, &[]))), Err(Unparsed::Malformed));
    assert_eq!(parse_frame(&frame(0x0800, &ipv4(&[], GRE, &[0, 0, 8]))), Err(Unparsed::Malformed));
}

#[test]
fn outer_packet_too_long_for_its_length_field_is_read_to_its_end() {
    let v4 = ipv4(&[], TCP, &tcp(&[], &vec![7; 65_000]));
    let mut outer = vxlan(4789, &frame(0x0800, &v4));
    outer.extend(vec![0; 600]);
    outer[2..4].fill(0);

    assert_eq!(parse_frame(&frame(0x0800, &outer)).map(|p| p.payload_len), Ok(65_000));
}

#[test]
fn tunnel_cut_anywhere_in_its_headers_is_truncated() {
    let wire = labels(2, &gre(&[0xb0, 0], 0x6558, &[0; 12], &tagged_vxlan())[14..]);
    let bytes = frame(0x8847, &wire);
    let payload_offset = bytes.len() - 5;
    let wire_len = u32::try_from(bytes.len()).unwrap();
    assert_eq!(parse_frame(&bytes).map(|p| (p.vni, p.payload_len)), Ok((0x0001_0203, 5)));

    // Cut within the first four bytes of UDP, nothing says that it is a tunnel.
    let udp_at = 14 + 8 + 20 + 16 + 14 + 4 + 20;
    for len in 0..payload_offset {
        let packet = parse(&CapturedBytes::new(&bytes[..len], wire_len), 0, Start::Ethernet, None);
        if (udp_at..udp_at + 4).contains(&len) {
            assert_eq!(packet, Err(Unparsed::NotTcp), "{len} bytes");
        } else if len < payload_offset - 4 {
            // The last words of a TCP header are not looked at.
            assert_eq!(packet, Err(Unparsed::Truncated), "{len} bytes");
        }
    }
}

#[test]
fn no_byte_value_makes_the_parser_point_outside_a_tunnel() {
    let bridged = frame(0x0800, &ipv4(&[], TCP, &tcp(&[], b"hi")));
    let packets = [
        frame(0x0800, &geneve(&[1; 4], 0x6558, &frame(0x0800, &vxlan(4789, &bridged)))),
        frame(0x8847, &labels(2, &gre(&[0xb0, 0], 0x6558, &[0; 12], &bridged)[14..])),
    ];
    for whole in packets {
        for at in 12..whole.len() {
            for value in 0..=255 {
                let mut bytes = whole.clone();
                bytes[at] = value;
                if let Ok(TcpPacket { payload_offset, payload_len, .. }) = parse_frame(&bytes) {
                    assert!(usize::try_from(payload_offset + payload_len).unwrap() <= bytes.len());
                }
            }
        }
    }
}

fn udp(port: u16, rest: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0xc0, 1];
    bytes.extend(port.to_be_bytes());
    bytes.extend(u16::try_from(8 + rest.len()).unwrap_or(0).to_be_bytes());
    bytes.extend([0, 0]);
    bytes.extend(rest);
    bytes
}

fn vxlan_header(rest: &[u8]) -> Vec<u8> {
    join(&[8, 0, 0, 0, 1, 2, 3, 0], rest)
}

/// An IPv4 packet to a port, with a VXLAN header.
fn vxlan(port: u16, rest: &[u8]) -> Vec<u8> {
    ipv4(&[], UDP, &udp(port, &vxlan_header(rest)))
}

/// An IPv4 packet with a Geneve header.
fn geneve(options: &[u8], inner_type: u16, rest: &[u8]) -> Vec<u8> {
    let [high, low] = inner_type.to_be_bytes();
    let mut header = vec![u8::try_from(options.len() / 4).unwrap(), 0, high, low, 4, 5, 6, 0];
    header.extend(options);
    ipv4(&[], UDP, &udp(6081, &join(&header, rest)))
}

/// An Ethernet frame with an IPv4 and a GRE header.
fn gre(flags: &[u8; 2], inner_type: u16, fields: &[u8], rest: &[u8]) -> Vec<u8> {
    let header = [&flags[..], &inner_type.to_be_bytes(), fields].concat();
    frame(0x0800, &ipv4(&[], GRE, &join(&header, rest)))
}

fn labels(count: usize, rest: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for at in 1..=count {
        bytes.extend([0, 1, u8::from(at == count), 64]);
    }
    bytes.extend(rest);
    bytes
}

/// Two GRE tunnels around labels.
fn two_around(labels: &[u8]) -> Vec<u8> {
    gre(&[0, 0], 0x0800, &[], &gre(&[0, 0], 0x8847, &[], labels)[14..])[14..].to_vec()
}

/// A tagged frame with VXLAN in it.
fn tagged_vxlan() -> Vec<u8> {
    let bridged = frame(0x0800, &ipv4(&[], TCP, &tcp(&[], b"hello")));
    frame(0x8100, &join(&[0, 5, 8, 0], &vxlan(4789, &bridged)))
}
