//! Enters: packets of both ends. Leaves: nothing; the facts of orientation.

use proptest::prelude::*;

use super::*;
use crate::pipeline::seq::SeqNumber;

const GET: &[u8] = b"GET / HTTP/1.1\r\n\r\n";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\n\r\n";
const SYN: u8 = 0x02;
const SYN_ACK: u8 = 0x12;
const ACK: u8 = 0x10;

#[test]
fn port_decides_at_once() {
    let mut run = Run::with_ports(&[80]);
    assert_eq!(run.packet(4000, 80, b"\0"), [(Side::Client, 80, 1)]);
    assert_eq!(run.packet(80, 4000, b"\0"), [(Side::Server, 80, 1)]);
    assert_eq!(run.packet(4000, 81, GET), []);
}

#[test]
fn handshake_decides_where_both_ports_match() {
    let mut run = Run::with_ports(&[80, 4000]);
    assert_eq!(run.packet(80, 4000, b"\0"), []);
    assert_eq!(run.flags(80, 4000, SYN), [(Side::Client, 4000, 0)]);
    assert_eq!(run.flags(4000, 80, SYN_ACK), [(Side::Server, 4000, 0)]);
    assert_eq!(run.packet(80, 4000, b"\0"), [(Side::Client, 4000, 1)]);
}

#[test]
fn handshake_decides_without_ports() {
    let mut run = Run::with_ports(&[]);
    assert_eq!(run.flags(80, 4000, SYN_ACK), [(Side::Server, 80, 0)]);
    assert_eq!(run.packet(4000, 80, b"\x16\x03"), [(Side::Client, 80, 2)]);
}

#[test]
fn request_line_shows_the_client() {
    let mut run = Run::with_ports(&[]);
    assert_eq!(run.packet(4000, 80, GET), [(Side::Client, 80, 18)]);
    assert_eq!(run.packet(80, 4000, b"anything"), [(Side::Server, 80, 8)]);
}

#[test]
fn capture_that_starts_with_the_response_is_oriented_by_it() {
    let mut run = Run::with_ports(&[]);
    assert_eq!(run.packet(80, 4000, OK), [(Side::Server, 80, 19)]);
    assert_eq!(run.packet(4000, 80, GET), [(Side::Client, 80, 18)]);
}

#[test]
fn segment_that_its_receiver_drops_shows_nothing() {
    let mut run = Run::with_ports(&[]);
    assert_eq!(run.handle(80, 4000, GET, 0), []);
    assert_eq!(run.packet(80, 4000, OK), [(Side::Server, 80, 19)]);
}

#[test]
fn held_packets_are_released_in_order() {
    let mut run = Run::with_ports(&[]);
    assert_eq!(run.packet(80, 4000, b"end of a body"), []);
    assert_eq!(run.packet(4000, 80, b"tail"), []);
    assert_eq!(
        run.packet(80, 4000, OK),
        [(Side::Server, 80, 13), (Side::Client, 80, 4), (Side::Server, 80, 19)]
    );
}

#[test]
fn request_line_in_single_bytes_is_recognised_in_any_order() {
    let mut order: Vec<usize> = (0..GET.len()).collect();
    order.swap(2, 9);
    order.swap(0, 4);
    let mut run = Run::with_ports(&[]);
    let mut released = Vec::new();
    for at in order {
        run.seq = u32::try_from(at).unwrap();
        released.extend(run.packet(4000, 80, &GET[at..=at]));
    }
    assert_eq!(released, vec![(Side::Client, 80, 1); GET.len()]);
}

#[test]
fn flow_without_http_is_never_released_and_not_held_for_ever() {
    let limits = OrientLimits { held_packets: 4, ..OrientLimits::default() };
    let mut run = Run { orienter: Orienter::new(vec![], limits), ..Run::with_ports(&[]) };
    for _ in 0..5 {
        assert_eq!(run.packet(22, 4000, b"SSH-2.0"), []);
    }
    assert_eq!(run.packet(80, 4000, OK), [(Side::Server, 80, 19)]);
    assert_eq!(run.packet(22, 4000, OK), [(Side::Server, 22, 19)], "what was held is gone");
}

#[test]
fn port_reused_from_the_other_end_is_turned_round() {
    let mut run = Run::with_ports(&[]);
    run.packet(4000, 80, GET);
    assert_eq!(run.flags(80, 4000, SYN), [(Side::Client, 4000, 0)]);
    assert_eq!(run.packet(4000, 80, b"x"), [(Side::Server, 4000, 1)]);
}

#[test]
fn equal_addresses_of_different_vlans_are_different_flows() {
    let mut run = Run::with_ports(&[]);
    run.packet(4000, 80, GET);
    run.packet(80, 4000, OK);
    run.vlan = 7;
    assert_eq!(run.packet(80, 4000, b"x"), []);
}

#[test]
fn flow_that_is_tagged_in_one_direction_only_stays_one_flow() {
    let mut run = Run::with_ports(&[]);
    run.packet(4000, 80, GET);
    run.vlan = 7;
    assert_eq!(run.packet(80, 4000, b"x"), [(Side::Server, 80, 1)]);
}

#[test]
fn start_line_of_a_forgiving_reader_shows_the_side() {
    for (src, dst, line, side) in [
        (4000, 80, &b"GET /a;cat /b|?c HTTP/1.1\r\n"[..], Side::Client),
        (80, 4000, b" HTTP/1.1 200 OK\r\n", Side::Server),
    ] {
        let len = u32::try_from(line.len()).unwrap();
        assert_eq!(Run::with_ports(&[]).packet(src, dst, line), [(side, 80, len)]);
    }
    assert_eq!(Run::with_ports(&[]).packet(4000, 80, b"INVITE sip:a SIP/2.0\r\n"), []);
}

#[test]
fn packets_between_equal_ends_are_of_one_side() {
    for ports in [&[][..], &[80]] {
        let mut run = Run::with_ports(ports);
        assert_eq!(run.packet(80, 80, GET), [(Side::Client, 80, 18)]);
        assert_eq!(run.packet(80, 80, OK), [(Side::Client, 80, 19)]);
    }
}

proptest! {
    #[test]
    fn no_packets_exceed_the_bounds(
        packets in prop::collection::vec((0_u16..6, 0_u16..6, 0_u32..40, 0_usize..60, 0_u8..32), 0..200),
    ) {
        let limits = OrientLimits {
            oriented_flows: 4,
            held_flows: 4,
            held_packets: 5,
            held_flow_bytes: 1000,
            held_bytes: 2000,
        };
        let mut run = Run { orienter: Orienter::new(vec![], limits), ..Run::with_ports(&[]) };
        for (src, dst, seq, len, flags) in packets {
            run.seq = seq;
            run.handle(src, dst, &[b'a'; 60][..len], flags);
            prop_assert!(run.orienter.held.weight() <= 2000);
            prop_assert!(run.orienter.oriented.len() <= 4);
        }
    }
}

struct Run {
    orienter: Orienter,
    seq: u32,
    vlan: u32,
}

/// What of a segment the tests look at: side, the server's port, length of the payload.
type Released = (Side, u16, u32);

impl Run {
    fn with_ports(ports: &[u16]) -> Self {
        Self { orienter: Orienter::new(ports.to_vec(), OrientLimits::default()), seq: 0, vlan: 0 }
    }

    fn packet(&mut self, src: u16, dst: u16, payload: &[u8]) -> Vec<Released> {
        self.handle(src, dst, payload, ACK)
    }

    fn flags(&mut self, src: u16, dst: u16, flags: u8) -> Vec<Released> {
        self.handle(src, dst, b"", flags)
    }

    fn handle(&mut self, src: u16, dst: u16, payload: &[u8], flags: u8) -> Vec<Released> {
        let addr = std::net::Ipv6Addr::LOCALHOST;
        let packet = TcpPacket {
            src: Endpoint { addr, port: src },
            dst: Endpoint { addr, port: dst },
            vlan: self.vlan,
            vni: 0,
            seq: SeqNumber(self.seq),
            ack: SeqNumber(0),
            flags: TcpFlags(flags),
            payload,
            payload_len: u32::try_from(payload.len()).unwrap(),
        };
        let mut released = Vec::new();
        self.orienter.handle_packet(Timestamp::ZERO, &packet, &mut |segment| {
            released.push((segment.side, segment.flow.server.port, segment.payload_len));
        });
        released
    }
}
