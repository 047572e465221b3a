//! Enters: requests of many connections that never end. Leaves: whether the others still find room.

use std::net::{Ipv4Addr, SocketAddr};

use super::get;
use crate::pipeline::{
    FlowKey, Limits, Pipeline, Segment, SeqNumber, Side, Stats, TcpFlags, Timestamp,
    exchange::Purpose,
    policy::{Experiment, Methods},
    reason::LostReason,
};

const MEMORY_BYTES: usize = 1024 * 1024;

/// Half of the memory is for messages.
const ROOM_BYTES: usize = MEMORY_BYTES / 2;

#[test]
fn bodies_that_are_announced_and_never_sent_shut_nobody_out() {
    let mut crowd = Crowd::new();
    // Each takes half of what is left, were it charged for what it announces.
    for (flow, len) in (0..).zip([65536; 20].into_iter().chain((1..16).map(|shift| 65536 >> shift))) {
        crowd.send(flow, format!("GET / HTTP/1.1\r\nContent-Length:{len}\r\n\r\n").as_bytes());
    }
    for flow in 100..200 {
        crowd.send(flow, &get("/good"));
        assert_eq!(crowd.handed_out(), 1);
    }
    assert_eq!(crowd.stats().lost, [0; LostReason::ALL.len()]);
}

#[test]
fn messages_that_stand_still_give_way_to_those_that_go_on() {
    let proxy = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x0f\xff";
    for start in [&b"POST / HTTP/1.1\r\nContent-Length: 9000\r\n\r\n"[..], b"GET / HTTP/1.1\r\nX: ", proxy] {
        let mut crowd = Crowd::new();
        for flow in 0..3000 {
            crowd.send(flow, start);
            crowd.send(flow, &[b'b'; 2000]);
            // One that comes byte by byte, and one that is small.
            let head = get("/slow");
            let at = usize::from(flow) % head.len();
            crowd.send(5000, &head[at..=at]);
            crowd.send(6000 + flow, &get("/good"));
            let whole = usize::from(at + 1 == head.len());
            assert_eq!(crowd.handed_out(), 1 + whole, "{flow}");
            assert!(crowd.pipeline.bytes_held().1 <= ROOM_BYTES - ROOM_BYTES / 8);
        }
        let stats = crowd.stats();
        let lost = stats.lost[LostReason::Memory.index()];
        // What comes before the first request is none yet.
        assert!(lost > 2000 || start == proxy, "{lost}");
        assert_eq!(stats.settled(), lost);
        crowd.pipeline.finish(Timestamp::ZERO);
        assert_eq!(crowd.pipeline.bytes_held().1, 0);
    }
}

#[test]
fn body_that_gave_way_is_stepped_over() {
    let mut crowd = Crowd::new();
    let head = b"POST / HTTP/1.1\r\nContent-Length: 200000\r\n\r\n";
    crowd.send(1, head);
    crowd.send(1, &[b'b'; 100_000]);
    for flow in 2..6 {
        crowd.send(flow, head);
        crowd.send(flow, &[b'b'; 100_000]);
    }
    assert!(crowd.stats().lost[LostReason::Memory.index()] >= 1);
    crowd.send(1, &[b'b'; 100_000]);
    crowd.send(1, &get("/next"));
    assert_eq!(crowd.handed_out(), 1);
}

#[test]
fn beginnings_are_charged_with_all_that_they_take() {
    let upgrade = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n";
    for begun in [&b"G"[..], b"GET / HTTP/1.1\r\n", upgrade] {
        let mut crowd = Crowd::new();
        for flow in 0..10 {
            crowd.send(flow, begun);
        }
        crowd.handed_out();
        // Two blocks of memory each, if the second is empty.
        let held = crowd.pipeline.bytes_held().1;
        assert!((10 * 64..10 * 200).contains(&held), "{held}");
    }
}

/// A pipeline with many connections.
struct Crowd {
    pipeline: Pipeline,
    /// Bytes that each client has sent.
    sent: Vec<u32>,
}

impl Crowd {
    fn new() -> Self {
        let limits = Limits { memory_bytes: MEMORY_BYTES, ..Limits::default() };
        let purpose = Purpose::replay(Experiment::of_methods(Methods::All));
        Self { pipeline: Pipeline::new(purpose, limits, 7), sent: vec![0; 10_000] }
    }

    fn send(&mut self, flow: u16, bytes: &[u8]) {
        let sent = self.sent[usize::from(flow)];
        if sent == 0 {
            self.segment(flow, TcpFlags::SYN, 0, b"");
        }
        self.segment(flow, TcpFlags::ACK, 1 + sent, bytes);
        self.sent[usize::from(flow)] += u32::try_from(bytes.len()).unwrap();
    }

    fn segment(&mut self, flow: u16, flags: TcpFlags, seq: u32, payload: &[u8]) {
        let [client, server] =
            [1000 + flow, 80].map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into());
        self.pipeline.handle_segment(&Segment {
            flow: FlowKey { client, server, vlan: 0, vni: 0 },
            interface: 1,
            side: Side::Client,
            at: Timestamp::ZERO,
            seq: SeqNumber(seq),
            ack: SeqNumber(0),
            flags,
            payload,
            payload_len: u32::try_from(payload.len()).unwrap(),
        });
    }

    fn handed_out(&mut self) -> usize {
        std::iter::from_fn(|| self.pipeline.poll_request()).count()
    }

    fn stats(&mut self) -> Stats {
        self.pipeline.take_stats()
    }
}
