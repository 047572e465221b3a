//! Enters: captures in which a connection is reset. Leaves: whether what stands behind the reset is told.

use std::net::SocketAddr;

use super::{super::resets::Resets, *};
use crate::pipeline::{FlowKey, Segment, SeqNumber, Timestamp};

const GET: &[u8] = b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc";

#[test]
fn bytes_behind_a_reset_of_the_other_side_are_told() {
    let mut capture = Capture::ethernet();
    let mut talk = capture.connect(4000);
    capture.client(&mut talk, GET);
    capture.server(&mut talk, &OK[..20]);
    // One for each segment that still comes.
    for part in [&OK[20..30], &OK[30..]] {
        capture.frame(&talk, Side::Client, TcpFlags::RST, 0, b"");
        capture.server(&mut talk, part);
    }
    // And the other way round.
    let mut talk = capture.connect(4001);
    capture.client(&mut talk, &GET[..10]);
    capture.frame(&talk, Side::Server, TcpFlags::RST, 0, b"");
    capture.client(&mut talk, &GET[10..]);
    assert_eq!(capture.summary(), ["GET /a > 200 3", "GET /a > -"]);
}

#[test]
fn reset_by_whom_data_follows_ends_nothing() {
    let mut capture = Capture::ethernet();
    let mut talk = capture.connect(4000);
    for side in Side::ALL {
        capture.client(&mut talk, GET);
        capture.frame(&talk, side, TcpFlags::RST, 1000, b"");
        if side == Side::Server {
            capture.pause(Duration::from_secs(10));
        }
        capture.server(&mut talk, OK);
        capture.client(&mut talk, GET);
        capture.server(&mut talk, OK);
        capture.pause(Duration::from_secs(10));
    }
    assert_eq!(capture.summary(), ["GET /a > 200 3"; 4]);
}

#[test]
fn connection_goes_on_behind_a_reset_however_long_after_it() {
    for (resetting, hours) in [(Side::Client, 0), (Side::Client, 1), (Side::Server, 1)] {
        let mut capture = Capture::ethernet();
        let mut talk = capture.connect(4000);
        capture.client(&mut talk, GET);
        capture.server(&mut talk, &OK[..OK.len() - 1]);
        capture.frame(&talk, resetting, TcpFlags::RST, 0, b"");
        capture.pause(Duration::from_secs(1 + hours * 3600));
        let mut next = capture.connect(4001);
        capture.client(&mut next, GET);
        capture.server(&mut talk, &OK[OK.len() - 1..]);
        capture.client(&mut talk, GET);
        capture.server(&mut talk, OK);
        assert_eq!(capture.summary(), ["GET /a > 200 3", "GET /a > -", "GET /a > 200 3"]);
    }
}

#[test]
fn reset_ends_its_connection_where_the_next_one_begins() {
    let mut capture = Capture::ethernet();
    for isn in [1_000, 500_000_000] {
        let mut talk = Talk { next: [isn, isn + 77], ..Talk::older(4000) };
        capture.frame(&talk, Side::Client, TcpFlags::SYN, 0, b"");
        talk.skip(Side::Client, 1);
        capture.frame(&talk, Side::Server, TcpFlags(0x12), 0, b"");
        talk.skip(Side::Server, 1);
        capture.client(&mut talk, GET);
        capture.server(&mut talk, b"HTTP/1.1 200 OK\r\n\r\nto the");
        capture.frame(&talk, Side::Server, TcpFlags::RST, 0, b"");
    }
    assert_eq!(capture.summary(), ["GET /a > 200 6 incomplete"; 2]);
}

#[test]
fn resets_are_held_within_bounds_and_none_is_forgotten() {
    let segment = |port: u16, at: u64, flags: TcpFlags| Segment {
        flow: FlowKey {
            client: SocketAddr::from(([192, 0, 2, 1], port)).into(),
            server: SocketAddr::from(([192, 0, 2, 2], 80)).into(),
            vlan: 0,
            vni: 0,
        },
        interface: 0,
        side: Side::Client,
        at: Timestamp::from_nanos(at),
        seq: SeqNumber(1),
        ack: SeqNumber(0),
        flags,
        payload: b"text",
        payload_len: 4,
    };
    let mut resets = Resets::default();
    let mut seen = Vec::new();
    for port in 1..=10_000 {
        resets.handle_segment(&segment(port, 1, TcpFlags::RST), &mut |segment| {
            assert_eq!((segment.payload, segment.payload_len), (&b""[..], 0));
            seen.push(segment.flow.client.port);
        });
        assert!(usize::from(port) - seen.len() <= 4096);
    }
    // A connection between the ends of one that is held, then the end.
    resets.handle_segment(&segment(9_999, 2, TcpFlags::SYN), &mut |segment| {
        seen.push(segment.flow.client.port)
    });
    assert!(seen.ends_with(&[9_999, 9_999]));
    resets.handle_end(&mut |segment| seen.push(segment.flow.client.port));
    seen.sort_unstable();
    assert_eq!(seen.len(), 10_001);
    seen.dedup();
    assert_eq!(seen, (1..=10_000).collect::<Vec<_>>());
}
