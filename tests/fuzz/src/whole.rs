//! Enters: segments and frames of a few connections with parts of HTTP in them, and time. Leaves: a panic where the
//! pipeline holds more than it may, its books do not balance, or a request is not answered exactly once.

use std::{
    collections::HashSet,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use mirror_agent::pipeline::{
    Answered, Endpoint, ExchangeId, FlowKey, Limits, Pipeline, Segment, SeqNumber, Side, TcpFlags, Timestamp,
    exchange::Purpose,
    frame::{Frame, LinkType},
    orient::{OrientLimits, Orienter},
    policy::{Experiment, Methods},
};

use crate::{input::Input, pairing};

/// Operations looked at: more cost time and reach nothing else.
const MOST_OPERATIONS: usize = 300;

/// Connections, of which a tight table holds fewer.
const FLOWS: usize = 6;

/// What messages are made of.
const PARTS: [&[u8]; 32] = [
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST /p HTTP/1.1\r\nContent-Length: 40\r\n\r\n",
    b"POST /p HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"5\r\nhello\r\n",
    b"0\r\n\r\n",
    b"0\r\nX: y\r\n",
    b"1;a=b",
    b"HEAD /h HTTP/1.1\r\n",
    b"Host: a\r\n",
    b"Content-Length: 4000\r\n",
    b"Content-Length: 3\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Expect: 100-continue\r\n",
    b"Upgrade: websocket\r\nConnection: upgrade\r\n",
    b"Connection: close\r\n",
    b"\r\n",
    b"CONNECT a:1 HTTP/1.1\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.0 404 N\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\x16\x03\x01\x02\x00",
    b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\n",
    b"X-Long: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n",
    b"x-mirror-id: 1\r\n",
    b"PUT /u HTTP/1.1\r\n",
    b"a",
    b"GET",
    b"fff\r\n",
];

/// After every step: bytes held are within the limits, every request seen is accounted for, and none is handed out
/// twice. At the end nothing is left.
pub(crate) fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let config = input.byte();
    if config & 0x80 != 0 {
        pairing::run(input.rest());
        return;
    }
    let mut world = World::new(config);
    let mut left = MOST_OPERATIONS;
    while !input.is_empty() && left > 0 {
        left -= 1;
        world.apply(&mut input);
        world.collect();
        world.check();
    }
    world.finish();
}

struct World {
    pipeline: Pipeline,
    orienter: Orienter,
    limits: Limits,
    is_replay: bool,
    reads_answers: bool,
    /// Requests whose answers are awaited.
    unanswered: HashSet<ExchangeId>,
    now: Timestamp,
    /// Next sequence number of each side of each connection.
    next: [[u32; 2]; FLOWS],
    seen: u64,
    settled: u64,
    requests: HashSet<ExchangeId>,
    reports: HashSet<ExchangeId>,
    /// Reports with a request in them.
    told: u64,
}

impl World {
    fn new(config: u8) -> Self {
        let limits = limits(config);
        let is_replay = config & 4 == 0;
        let purpose = if is_replay {
            let methods = if config & 8 == 0 { Methods::All } else { Methods::default() };
            let reads_answers = config & 0x20 != 0;
            Purpose::replay(Experiment { reads_answers, ..Experiment::of_methods(methods) })
        } else {
            Purpose::Inspect
        };
        let orient =
            OrientLimits { oriented_flows: 4, held_flows: 4, held_packets: 8, ..OrientLimits::default() };
        Self {
            pipeline: Pipeline::new(purpose, limits.clone(), 0),
            orienter: Orienter::new(if config & 0x10 == 0 { vec![80] } else { Vec::new() }, orient),
            limits,
            is_replay,
            reads_answers: is_replay && config & 0x20 != 0,
            unanswered: HashSet::new(),
            now: Timestamp::ZERO,
            next: [[1_000, u32::MAX - 200]; FLOWS],
            seen: 0,
            settled: 0,
            requests: HashSet::new(),
            reports: HashSet::new(),
            told: 0,
        }
    }

    /// Takes one operation off `input` and performs it.
    fn apply(&mut self, input: &mut Input<'_>) {
        let choice = input.byte();
        let flow = usize::from(choice >> 5) % FLOWS;
        let side = usize::from(choice >> 4 & 1);
        match choice & 0x0f {
            0 => self.open(flow),
            1..=5 => {
                let part = PARTS[usize::from(input.byte()) % PARTS.len()];
                self.send(flow, side, part, part.len());
            }
            6 | 7 => {
                let len = usize::from(input.byte());
                let bytes = input.take(len);
                self.send(flow, side, bytes, bytes.len());
            }
            8 => {
                // A part of the segment was not copied, or the capture lost it.
                let (copied, len) = (usize::from(input.byte()), usize::from(input.word()));
                let part = PARTS[copied % PARTS.len()];
                self.send(flow, side, &part[..part.len().min(copied)], len.max(copied));
            }
            9 => {
                // Bytes sent again, or too early.
                let (back, part) = (input.byte(), PARTS[usize::from(input.byte()) % PARTS.len()]);
                let seq = self.next[flow][side].wrapping_add_signed(i32::from(back.cast_signed()) * 4);
                self.hand_in(flow, side, seq, TcpFlags::ACK, part, part.len());
            }
            10 => self.segment(flow, side, TcpFlags(TcpFlags::ACK.0)),
            11 => self.segment(flow, side, TcpFlags(TcpFlags::FIN.0 | TcpFlags::ACK.0)),
            12 => self.segment(flow, side, TcpFlags::RST),
            13 => self.wait(Duration::from_nanos(u64::from(input.byte()) * 16)),
            14 => {
                // A body, or a head that never ends.
                let (byte, len) = (input.byte(), usize::from(input.word() & 0x1fff));
                let bytes = vec![byte; len];
                self.send(flow, side, &bytes, len);
            }
            _ => {
                let len = usize::from(input.byte());
                self.frame(input.take(len));
            }
        }
    }

    fn open(&mut self, flow: usize) {
        self.next[flow] = self.next[flow].map(|next| next.wrapping_add(1 << 24));
        let [client, server] = self.next[flow];
        self.hand_in(flow, 0, client.wrapping_sub(1), TcpFlags::SYN, b"", 0);
        self.hand_in(flow, 1, server.wrapping_sub(1), TcpFlags(TcpFlags::SYN.0 | TcpFlags::ACK.0), b"", 0);
    }

    fn send(&mut self, flow: usize, side: usize, bytes: &[u8], len: usize) {
        let seq = self.next[flow][side];
        self.next[flow][side] = seq.wrapping_add(u32::try_from(len).unwrap_or(0));
        self.hand_in(flow, side, seq, TcpFlags::ACK, bytes, len);
    }

    fn segment(&mut self, flow: usize, side: usize, flags: TcpFlags) {
        self.hand_in(flow, side, self.next[flow][side], flags, b"", 0);
    }

    fn hand_in(&mut self, flow: usize, side: usize, seq: u32, flags: TcpFlags, bytes: &[u8], len: usize) {
        let segment = Segment {
            flow: key(flow),
            side: Side::ALL[side],
            // Flows take turns at two interfaces, so that one may be taken for the second observation of another.
            interface: u32::from(flow % 2 == 1),
            at: self.now,
            seq: SeqNumber(seq),
            ack: SeqNumber(self.next[flow][1 - side]),
            flags,
            payload: bytes,
            payload_len: u32::try_from(len.max(bytes.len())).unwrap_or(u32::MAX),
        };
        self.pipeline.handle_segment(&segment);
    }

    fn frame(&mut self, bytes: &[u8]) {
        let frame = Frame { link_type: LinkType(101), bytes, wire_len: 0 };
        if let Ok(packet) = frame.parse() {
            let Self { pipeline, orienter, now, .. } = self;
            orienter.handle_packet(*now, &packet, &mut |segment| pipeline.handle_segment(&segment));
        }
    }

    fn wait(&mut self, duration: Duration) {
        self.now = self.now.after(duration);
        self.pipeline.handle_time(self.now);
    }

    /// Takes what the pipeline gives.
    fn collect(&mut self) {
        let stats = self.pipeline.take_stats();
        self.seen += stats.seen;
        self.settled += stats.settled();
        while let Some(request) = self.pipeline.poll_request() {
            assert!(self.requests.insert(request.id), "a request is handed out twice");
            let (head, body) = request.raw.split_at(request.head_len);
            assert!(head.ends_with(b"\r\n\r\n") && head.len() <= self.limits.head_bytes);
            assert!(body.len() <= self.limits.body_bytes, "a body over the limit");
            assert!(request.first_byte_at <= request.last_byte_at);
            if self.reads_answers {
                self.unanswered.insert(request.id);
            }
        }
        while let Some((id, answered)) = self.pipeline.poll_answer() {
            assert!(self.unanswered.remove(&id), "what was not asked is answered, or twice");
            if let Answered::Whole(answer) = answered {
                assert!(answer.head.starts_with(b"HTTP/1.") && answer.head.ends_with(b"\n\r\n"));
                assert!(answer.content.len() <= self.limits.answer_bytes, "an answer over the limit");
            }
        }
        while let Some(report) = self.pipeline.poll_report() {
            assert!(self.reports.insert(report.id), "an exchange is told twice");
            self.told += u64::from(report.request.is_some());
        }
    }

    fn check(&self) {
        let (table, messages) = self.pipeline.bytes_held();
        let half = self.limits.memory_bytes / 2;
        assert!(table <= half, "{table} bytes in the flow table");
        assert!(messages <= half, "{messages} bytes in messages");
        assert!(self.pipeline.flows() <= self.limits.flows);
        let handed_out = self.requests.len() as u64;
        if self.is_replay {
            let decided = self.settled + handed_out;
            assert_eq!(self.seen, decided + self.pipeline.pending(), "the books do not balance");
            assert!(self.reports.is_empty());
        } else {
            // A request that ended is told when its response has ended, too.
            assert!(
                self.settled + self.told + self.pipeline.pending() <= self.seen,
                "the books do not balance"
            );
            assert!(self.requests.is_empty());
        }
    }

    fn finish(&mut self) {
        self.pipeline.finish(self.now);
        self.collect();
        self.check();
        assert_eq!(
            (self.pipeline.pending(), self.pipeline.flows()),
            (0, 0),
            "something is open behind the end"
        );
        assert_eq!(
            self.seen,
            self.settled + self.told + self.requests.len() as u64,
            "a request is never told"
        );
        assert!(self.unanswered.is_empty(), "a request is never answered");
        assert_eq!(self.pipeline.bytes_held().1, 0, "bytes of messages are held behind the end");
        assert_eq!(self.pipeline.open_since(), None, "an exchange is open behind the end");
    }
}

fn limits(config: u8) -> Limits {
    let patience = Duration::from_nanos(if config & 2 == 0 { 0 } else { 50 });
    let limits = Limits { gap_patience: patience, ..Limits::default() };
    if config & 1 == 0 {
        return limits;
    }
    Limits {
        flows: 4,
        flow_idle: Duration::from_nanos(2_000),
        flow_linger: Duration::from_nanos(100),
        reorder_bytes: 600,
        reorder_pieces: 6,
        memory_bytes: 40_000,
        head_bytes: 512,
        chunk_line_bytes: 64,
        body_bytes: 6_000,
        answer_bytes: 3_000,
        outstanding: 3,
        ..limits
    }
}

fn key(flow: usize) -> FlowKey {
    let end = |host, port| Endpoint::from(SocketAddr::from((Ipv4Addr::new(10, 0, 0, host), port)));
    let port = u16::try_from(flow).unwrap_or(0) + 4_000;
    FlowKey { client: end(1, port), server: end(2, 80), vlan: 0, vni: 0 }
}
