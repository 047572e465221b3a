//! Enters: exchanges in packets in packets. Leaves: whether they are told, or missed with a warning.

use etherparse::PacketBuilder;

use super::*;

const GET: &[u8] = b"GET /a HTTP/1.1\r\n\r\n";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc";

/// IP behind a header of these bytes, in UDP to this port.
const TUNNELS: &[(&str, u16, &[u8])] = &[
    ("GTP-U", 2152, &[0x30, 0xff, 0, 0, 0, 0, 0, 1]),
    ("GTP-U with a number", 2152, &[0x32, 0xff, 0, 0, 0, 0, 0, 1, 0, 7, 0, 0]),
    ("GTP-U of 5G", 2152, &[0x34, 0xff, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0x85, 1, 0x10, 9, 0]),
    ("LISP", 4341, &[0x80, 1, 2, 3, 0, 0, 0, 1]),
    ("L2TP", 1701, &[0, 2, 0, 1, 0, 1, 0xff, 3, 0, 0x21]),
    ("L2TP with all fields", 1701, &[0x4a, 2, 0, 0, 0, 1, 0, 1, 0, 1, 0, 2, 0, 2, 0, 0, 0x21]),
    ("AYIYA", 5072, &[0x44, 0x52, 0x11, 41, 0, 0, 0, 1]),
    ("GTP of version 0", 3386, &[0x1e, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
    ("MPLS", 6635, &[0, 6, 0x40, 64, 0, 6, 0x41, 64]),
    ("VXLAN-GPE", 4790, &[0x0c, 0, 0, 1, 0, 0, 5, 0]),
    ("NSH in VXLAN-GPE", 4790, &[0x0c, 0, 0, 4, 0, 0, 5, 0, 0, 2, 2, 1, 0, 0, 1, 0xff]),
    ("Ethernet in VXLAN-GPE", 4790, &[8, 0, 0, 0, 0, 0, 5, 0, 2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0]),
    ("GTP of version 1 at the port of version 0", 3386, &[0x30, 0xff, 0, 0, 0, 0, 0, 1]),
    ("Ethernet in GTP-U", 2152, &[0x30, 0xff, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0]),
    ("TZSP", 37_008, &[1, 0, 0, 1, 0, 10, 1, 7, 1, 2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0]),
    ("CAPWAP", 5247, &[0, 0x10, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0]),
];

/// IP behind these bytes, as what this protocol carries.
const IN_IP: &[(&str, u8, &[u8])] = &[
    ("authentication header", 51, &[4, 4, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
    ("EtherIP", 97, &[0x30, 0, 2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0]),
    ("MPLS", 137, &[0, 6, 0x41, 64]),
    ("ERSPAN I", 47, &[0, 0, 0x88, 0xbe, 2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0]),
    (
        "ERSPAN II",
        47,
        &[
            0x10, 0, 0x88, 0xbe, 0, 0, 0, 9, 0x10, 5, 0, 1, 0, 0, 0, 0, 2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2,
            8, 0,
        ],
    ),
    (
        "ERSPAN III",
        47,
        &[
            0x10, 0, 0x22, 0xeb, 0, 0, 0, 9, 0x20, 5, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 1, 2, 0,
            0, 0, 0, 2, 8, 0,
        ],
    ),
    (
        "ERSPAN III with a platform's own",
        47,
        &[
            0x10, 0, 0x22, 0xeb, 0, 0, 0, 9, 0x20, 5, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0,
            2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0,
        ],
    ),
    ("GRE with an empty route", 47, &[0x40, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
    ("frame relay", 47, &[0, 0, 0x65, 0x59, 0x18, 0x41, 3, 0xcc]),
    ("several links of PPP", 47, &[0, 0, 0x88, 0x0b, 0xff, 3, 0, 0x3d, 0xc0, 0, 0, 1, 0, 0x21]),
    ("WCCP 2", 47, &[0, 0, 0x88, 0x3e, 0, 0, 0, 0]),
    ("WCCP 1", 47, &[0, 0, 0x88, 0x3e]),
    ("PPTP", 47, &[0x30, 1, 0x88, 0x0b, 0, 9, 0, 5, 0, 0, 0, 1, 0xff, 3, 0, 0x21]),
    ("PPTP with an acknowledgement", 47, &[0x30, 0x81, 0x88, 0x0b, 0, 9, 0, 5, 0, 0, 0, 1, 0, 0, 0, 1, 0x21]),
    ("NSH", 47, &[0, 0, 0x89, 0x4f, 0, 2, 2, 1, 0, 0, 1, 0xff]),
    ("Ethernet over IP", 47, &[0x20, 1, 0x64, 0, 0, 9, 5, 0, 2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0]),
];

/// IP behind these bytes, which begin with an EtherType.
const IN_ETHERNET: &[(&str, &[u8])] = &[
    ("three tags", &[0x81, 0, 0, 5, 0x81, 0, 0, 6, 0x81, 0, 0, 7, 8, 0]),
    ("Cisco metadata", &[0x89, 9, 1, 1, 0, 1, 0, 100, 8, 0]),
    ("E-tag", &[0x89, 0x3f, 0x10, 1, 0, 0, 0, 0, 8, 0]),
    ("VN-tag", &[0x89, 0x26, 0, 1, 0, 2, 8, 0]),
    ("HSR", &[0x89, 0x2f, 0, 0x50, 0, 7, 8, 0]),
    ("R-tag", &[0xf1, 0xc1, 0, 0, 0, 7, 8, 0]),
    ("MACsec", &[0x88, 0xe5, 0, 0, 0, 0, 0, 5, 8, 0]),
    ("MACsec with a channel", &[0x88, 0xe5, 0x20, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 1, 8, 0]),
    ("backbone", &[0x88, 0xe7, 0, 0, 0, 5, 2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0]),
    ("TRILL", &[0x22, 0xf3, 0, 2, 0, 1, 0, 2, 2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0]),
    (
        "TRILL with options",
        &[0x22, 0xf3, 0, 0x42, 0, 1, 0, 2, 0, 0, 0, 0, 2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0],
    ),
    ("NSH", &[0x89, 0x4f, 0, 2, 2, 1, 0, 0, 1, 0xff]),
    (
        "five labels",
        &[0x88, 0x47, 0, 6, 0x40, 64, 0, 6, 0x40, 64, 0, 6, 0x40, 64, 0, 6, 0x40, 64, 0, 6, 0x41, 64],
    ),
    (
        "a wire",
        &[0x88, 0x47, 0, 6, 0x41, 64, 0, 0, 0, 7, 0, 0x1b, 0x21, 0, 0, 1, 0, 0x1b, 0x21, 0, 0, 2, 8, 0],
    ),
    (
        "a wire without control",
        &[0x88, 0x47, 0, 6, 0x41, 64, 0, 0x1b, 0x21, 0, 0, 1, 0, 0x1b, 0x21, 0, 0, 2, 8, 0],
    ),
    ("LLC in long packets", &[0x88, 0x70, 0xaa, 0xaa, 3, 0, 0, 0, 8, 0]),
    ("SNAP of a bridge", &[0, 90, 0xaa, 0xaa, 3, 0, 0, 0xf8, 8, 0]),
    ("LLC of IP", &[0, 90, 6, 6, 3]),
    ("MPLS in PPPoE", &[0x88, 0x64, 0x11, 0, 0, 1, 0, 90, 2, 0x81, 0, 6, 0x41, 64]),
];

#[test]
fn exchange_is_told_behind_each_header_that_is_opened() {
    for (name, protocol, header) in IN_IP {
        let capture = talk_with(|packet| in_ip(*protocol, &[header, packet].concat()));
        assert_eq!(capture.summary(), ["GET /a > 200 3"], "{name}");
    }
    for (name, header) in IN_ETHERNET {
        let mut capture = Capture::ethernet();
        packets().iter().for_each(|packet| capture.record(&[&[2; 12][..], header, packet].concat()));
        assert_eq!(capture.summary(), ["GET /a > 200 3"], "{name}");
        // Inter-Switch Link, around all that.
        let mut capture = Capture::ethernet();
        let outer = [&[1, 0, 0x0c, 0, 0, 0][..], &[0; 20], &[2; 12]].concat();
        packets().iter().for_each(|packet| capture.record(&[&outer, *header, packet].concat()));
        assert_eq!(capture.summary(), ["GET /a > 200 3"], "{name}");
    }
}

#[test]
fn segment_is_found_behind_an_authentication_header() {
    let capture = talk_with(|packet| {
        let header = [6, 4, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let mut packet = [&packet[..20], &header, &packet[20..]].concat();
        packet[9] = 51;
        let len = u16::try_from(packet.len()).unwrap();
        packet[2..4].copy_from_slice(&len.to_be_bytes());
        packet
    });
    assert_eq!(capture.summary(), ["GET /a > 200 3"]);
}

#[test]
fn packet_of_teredo_is_found_behind_what_a_server_adds() {
    let origin = [0, 0, 1, 2, 3, 4, 5, 6];
    let authentication = [0, 1, 2, 3, 9, 9, 9, 9, 9, 1, 2, 3, 4, 5, 6, 7, 8, 0];
    for header in [&[][..], &origin, &authentication, &[&authentication[..], &origin].concat()] {
        for ports in [(40_000, 3544), (3544, 40_000)] {
            let mut capture = Capture::new(101);
            for packet in packets() {
                // IPv4 in IPv6: what is inside has to be IPv6.
                let inner = ip6(4, &packet);
                capture.record(&udp(ports.0, ports.1, &[header, &inner].concat()));
            }
            assert_eq!(capture.summary(), ["GET /a > 200 3"], "{header:?}");
        }
    }
}

#[test]
fn frame_of_802_11_is_found_in_capwap_and_tzsp() {
    // Frame control the other way round, as controllers send it.
    for (port, header, control) in [
        (5247, &[0, 0x10, 3, 0, 0, 0, 0, 0][..], [1, 8]),
        (5247, &[0, 0x10, 3, 0, 0, 0, 0, 0], [8, 1]),
        (37_008, &[1, 0, 0, 18, 1], [8, 1]),
    ] {
        let frame = [header, &control, &[0; 22], &[0xaa, 0xaa, 3, 0, 0, 0, 8, 0]].concat();
        let capture = talk_with(|packet| in_udp(port, &[&frame, packet].concat()));
        assert_eq!(capture.summary(), ["GET /a > 200 3"], "{port}, {control:?}");
    }
}

#[test]
fn exchange_is_told_behind_each_encapsulation_that_is_opened() {
    for (name, port, header) in TUNNELS {
        let header = if *port == 5072 { [header, &[0; 36][..]].concat() } else { header.to_vec() };
        let capture = talk_with(|packet| in_udp(*port, &[&header, packet].concat()));
        assert_eq!(capture.summary(), ["GET /a > 200 3"], "{name}");
    }
}

#[test]
fn answers_of_tunnels_that_choose_a_port_are_known_by_their_source() {
    for (name, port, header) in
        TUNNELS.iter().filter(|(_, port, _)| [1701, 2152, 3386, 5072, 5247].contains(port))
    {
        let header = if *port == 5072 { [header, &[0; 36][..]].concat() } else { header.to_vec() };
        let capture = talk_with(|packet| udp(*port, 40_000, &[&header, packet].concat()));
        assert_eq!(capture.summary(), ["GET /a > 200 3"], "{name}");
    }
}

#[test]
fn what_these_ports_carry_besides_is_left_alone() {
    for (port, payload) in [
        (2152, &[0x30, 1, 0, 0, 0, 0, 0, 1][..]),
        (2152, &[0x50, 0xff, 0, 0, 0, 0, 0, 1]),
        (4341, b"GET / HTTP/1.1"),
        (1701, &[0xc8, 2, 0, 12, 0, 0, 0, 0, 0, 0, 0, 0]),
        (1701, &[0, 2, 0, 1, 0, 1, 0xff, 3, 0xc0, 0x21, 1, 1, 0, 4]),
        (5072, &[0x44, 0x52, 0x10, 59, 0, 0, 0, 1]),
        (2152, &[]),
        (3386, &[0x1e, 1, 0, 0, 0, 0, 0, 1]),
        (3544, &[0x45, 0, 0, 0, 0, 0]),
        (4790, &[0x0c, 0, 0, 99, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        (5247, &[1, 0x10, 0, 0, 0, 0, 0, 0]),
        (5247, &[0, 0x10, 0, 0x80, 0, 0, 0, 0]),
        (37_008, &[1, 3, 0, 1, 1]),
        (37_008, &[2, 0, 0, 1, 1]),
    ] {
        let mut capture = Capture::new(101);
        capture.record(&in_udp(port, payload));
        let (told, warnings) = capture.run();
        let is_tunnel = u32::from(port) == 4790;
        assert_eq!(told, "", "{port}, {payload:?}");
        assert_eq!(warnings.lines().count(), 1 + usize::from(is_tunnel), "{port}, {payload:?}: {warnings}");
    }
}

#[test]
fn eighth_tunnel_is_warned_of() {
    let header = &[0x30, 0xff, 0, 0, 0, 0, 0, 1][..];
    let wrap = |packet: &[u8]| in_udp(2152, &[header, packet].concat());
    let wrapped = |packet: &[u8], times: usize| (0..times).fold(packet.to_vec(), |packet, _| wrap(&packet));
    assert_eq!(talk_with(|packet| wrapped(packet, 7)).summary(), ["GET /a > 200 3"]);
    let (_, warnings) = talk_with(|packet| wrapped(packet, 8)).run();
    assert!(warnings.contains("2 frames are in tunnels that are not looked into"), "{warnings}");
}

#[test]
fn exchange_is_told_behind_llc_and_snap() {
    let mut capture = Capture::ethernet();
    for packet in packets() {
        let len = u16::try_from(packet.len() + 8).unwrap().to_be_bytes();
        let snap = [0xaa, 0xaa, 3, 0, 0, 0, 8, 0];
        capture.record(&[&[0; 12][..], &len, &snap, &packet].concat());
    }
    assert_eq!(capture.summary(), ["GET /a > 200 3"]);
}

#[test]
fn several_packets_in_a_frame_are_warned_of() {
    let mut capture = Capture::new(105);
    capture.record(&[&[0x88, 2][..], &[0; 22], &[0x80, 0], &[0; 40]].concat());
    let (_, warnings) = capture.run();
    assert!(
        warnings.contains("1 frames hold several packets each (802.11 A-MSDU), which are not looked into"),
        "{warnings}"
    );
}

/// An exchange in raw IP, each packet of which `wrap` puts into another.
fn talk_with(wrap: impl Fn(&[u8]) -> Vec<u8>) -> Capture {
    let mut capture = Capture::new(101);
    for packet in packets() {
        capture.record(&wrap(&packet));
    }
    capture
}

/// A request and its response.
fn packets() -> [Vec<u8>; 2] {
    let (client, server) = ([192, 0, 2, 1], [192, 0, 2, 2]);
    let mut packets = [Vec::new(), Vec::new()];
    let request = PacketBuilder::ipv4(client, server, 64).tcp(4000, 80, 1, 1000).ack(1);
    request.write(&mut packets[0], GET).unwrap();
    let ack = 1 + u32::try_from(GET.len()).unwrap();
    let response = PacketBuilder::ipv4(server, client, 64).tcp(80, 4000, 1, 1000).ack(ack);
    response.write(&mut packets[1], OK).unwrap();
    packets
}

fn in_udp(port: u16, payload: &[u8]) -> Vec<u8> {
    udp(40_000, port, payload)
}

fn udp(from: u16, to: u16, payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    PacketBuilder::ipv6([1; 16], [2; 16], 64).udp(from, to).write(&mut packet, payload).unwrap();
    packet
}

/// `payload` in IPv4, as what this protocol carries.
fn in_ip(protocol: u8, payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(payload.len() + 20).unwrap().to_be_bytes();
    let header = [0x45, 0, len[0], len[1], 0, 1, 0, 0, 64, protocol, 0, 0, 198, 51, 100, 1, 198, 51, 100, 2];
    [&header, payload].concat()
}

/// The same in IPv6.
fn ip6(protocol: u8, payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(payload.len()).unwrap().to_be_bytes();
    [&[0x60, 0, 0, 0, len[0], len[1], protocol, 64][..], &[1; 16], &[2; 16], payload].concat()
}
