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
];

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
    for (name, port, header) in TUNNELS.iter().filter(|(_, port, _)| [1701, 5072].contains(port)) {
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
    ] {
        let mut capture = Capture::new(101);
        capture.record(&in_udp(port, payload));
        let (told, warnings) = capture.run();
        assert_eq!((told.as_str(), warnings.lines().count()), ("", 1), "{port}, {payload:?}: {warnings}");
    }
}

#[test]
fn third_tunnel_is_warned_of() {
    let header = &[0x30, 0xff, 0, 0, 0, 0, 0, 1][..];
    let wrap = |packet: &[u8]| in_udp(2152, &[header, packet].concat());
    assert_eq!(talk_with(|packet| wrap(&wrap(packet))).summary(), ["GET /a > 200 3"]);
    let (_, warnings) = talk_with(|packet| wrap(&wrap(&wrap(packet)))).run();
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
