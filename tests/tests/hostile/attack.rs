//! Enters: segments of strangers. Leaves: the pipeline's account of them, held against its memory and against one good
//! connection beside them.

use std::{net::Ipv6Addr, time::Duration};

use mirror_agent::pipeline::{
    Endpoint, FlowKey, Limits, Pipeline, Segment, SeqNumber, Side, Stats, TcpFlags, Timestamp,
    exchange::Purpose,
    policy::{Experiment, Methods},
};

use crate::sys;

/// The flags of a segment with data.
pub(crate) const ACK: TcpFlags = TcpFlags::ACK;
pub(crate) const SYN: TcpFlags = TcpFlags::SYN;
pub(crate) const RST: TcpFlags = TcpFlags::RST;
pub(crate) const SYN_ACK: TcpFlags = TcpFlags(TcpFlags::SYN.0 | TcpFlags::ACK.0);

/// The sequence numbers behind each side's SYN.
const CLIENT_FIRST: u32 = 1_000;
const SERVER_FIRST: u32 = 9_000;

/// The good connection's client port, which no stranger has.
const GOOD_PORT: u16 = 1;

/// A pipeline under attack.
pub(crate) struct Attack {
    pipeline: Pipeline,
    memory_bytes: usize,
    allocated_before: isize,
    now: Timestamp,
    pub(crate) stats: Stats,
    good: Good,
    /// Requests of strangers that were handed out.
    pub(crate) mirrored: u64,
}

/// The connection that is to be mirrored in full.
#[derive(Default)]
struct Good {
    client_sent: u32,
    server_sent: u32,
    /// The request of which the first part was sent.
    under_way: Option<Vec<u8>>,
    sent: u64,
    mirrored: u64,
}

impl Attack {
    /// A pipeline with this much memory and every other limit as `run` has it, and the good connection's handshake.
    pub(crate) fn on(memory_bytes: usize) -> Self {
        let allocated_before = sys::bytes_allocated();
        let limits = Limits { memory_bytes, ..Limits::default() };
        let experiment = Experiment::of_methods(Methods::All);
        let mut attack = Self {
            pipeline: Pipeline::new(Purpose::replay(experiment), limits, 7),
            memory_bytes,
            allocated_before,
            now: Timestamp::ZERO,
            stats: Stats::default(),
            good: Good::default(),
            mirrored: 0,
        };
        let good = good_key();
        attack.hand_in(good, Side::Client, CLIENT_FIRST - 1, 0, SYN, b"", 0);
        attack.hand_in(good, Side::Server, SERVER_FIRST - 1, CLIENT_FIRST, SYN_ACK, b"", 0);
        attack.exchange();
        attack
    }

    /// A segment of the stranger of this number: offsets of its first byte and of what it acknowledges.
    pub(crate) fn client(&mut self, stranger: u32, offset: u32, ack: u32, flags: TcpFlags, payload: &[u8]) {
        let (seq, ack) = (CLIENT_FIRST.wrapping_add(offset), SERVER_FIRST.wrapping_add(ack));
        self.hand_in(key(stranger), Side::Client, seq, ack, flags, payload, len_of(payload));
    }

    /// An answer to it, of which the kernel copies the first bytes at most.
    pub(crate) fn server(&mut self, stranger: u32, offset: u32, ack: u32, flags: TcpFlags, len: u32) {
        let (seq, ack) = (SERVER_FIRST.wrapping_add(offset), CLIENT_FIRST.wrapping_add(ack));
        let peeked = if len == 0 { &b""[..] } else { b"HTTP/1.1 200" };
        self.hand_in(key(stranger), Side::Server, seq, ack, flags, peeked, len);
    }

    /// The handshake of a stranger that hears the server. Its last segment carries no payload and is never captured.
    pub(crate) fn handshake(&mut self, stranger: u32) {
        self.client(stranger, u32::MAX, 0, SYN, b"");
        self.server(stranger, u32::MAX, 0, SYN_ACK, 0);
    }

    /// The end of a batch: the good connection's request that was begun before it is whole, and the bounds hold.
    pub(crate) fn settle(&mut self) {
        self.finish_request();
        self.collect();
        self.now = self.now.after(Duration::from_millis(100));
        self.pipeline.handle_time(self.now);
        self.collect();
        assert_eq!(self.good.mirrored, self.good.sent, "a good request is missing: {:?}", self.stats);
        let (table, messages) = self.pipeline.bytes_held();
        assert!(table + messages <= self.memory_bytes, "{table} and {messages} bytes held");
        let allocated = sys::bytes_allocated() - self.allocated_before;
        assert!(allocated <= self.memory_bytes.cast_signed(), "{allocated} bytes are allocated");
        let settled = self.stats.settled() + self.mirrored + self.good.mirrored;
        assert_eq!(self.stats.seen, settled + self.pipeline.pending(), "the books do not balance");
        self.begin_request();
    }

    /// Flows in the table.
    pub(crate) fn flows(&self) -> usize {
        self.pipeline.flows()
    }

    /// The end of the attack: the last batch, and what is left of it.
    pub(crate) fn finish(mut self, what: &str) -> Stats {
        self.settle();
        self.finish_request();
        self.collect();
        assert_eq!(self.good.mirrored, self.good.sent);
        println!(
            "{what}: {} good requests mirrored beside {} of strangers, {} flows left, {} bytes allocated, {:?}",
            self.good.mirrored,
            self.mirrored,
            self.flows(),
            sys::bytes_allocated() - self.allocated_before,
            self.stats
        );
        self.pipeline.finish(self.now);
        self.collect();
        assert_eq!(self.stats.seen, self.stats.settled() + self.mirrored + self.good.mirrored);
        self.stats
    }

    fn exchange(&mut self) {
        self.begin_request();
        self.finish_request();
        self.collect();
    }

    /// The first part of a request with a body.
    fn begin_request(&mut self) {
        let body = vec![b'g'; 3_000];
        let head =
            format!("POST /good/{} HTTP/1.1\r\nHost: live\r\nContent-Length: 3000\r\n\r\n", self.good.sent);
        let request = [head.as_bytes(), &body].concat();
        self.good.sent += 1;
        self.good_client(&request[..1_400]);
        self.good.under_way = Some(request);
    }

    /// The rest of it, and the answer.
    fn finish_request(&mut self) {
        let Some(request) = self.good.under_way.take() else { return };
        for part in request[1_400..].chunks(1_400) {
            self.good_client(part);
        }
        let (seq, ack) = (SERVER_FIRST.wrapping_add(self.good.server_sent), self.good.client_sent);
        self.good.server_sent += 500;
        self.hand_in(
            good_key(),
            Side::Server,
            seq,
            CLIENT_FIRST.wrapping_add(ack),
            ACK,
            b"HTTP/1.1 200",
            500,
        );
    }

    fn good_client(&mut self, payload: &[u8]) {
        let (seq, ack) = (self.good.client_sent, SERVER_FIRST.wrapping_add(self.good.server_sent));
        self.good.client_sent += len_of(payload);
        let seq = CLIENT_FIRST.wrapping_add(seq);
        self.hand_in(good_key(), Side::Client, seq, ack, ACK, payload, len_of(payload));
    }

    fn collect(&mut self) {
        let stats = self.pipeline.take_stats();
        let add = |sums: &mut [u64], counts: &[u64]| {
            sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
        };
        self.stats.seen += stats.seen;
        self.stats.conflicts += stats.conflicts;
        self.stats.out_of_window += stats.out_of_window;
        add(&mut self.stats.skipped, &stats.skipped);
        add(&mut self.stats.lost, &stats.lost);
        add(&mut self.stats.flows_skipped, &stats.flows_skipped);
        add(&mut self.stats.flows_evicted, &stats.flows_evicted);
        add(&mut self.stats.gap_bytes, &stats.gap_bytes);
        while let Some(request) = self.pipeline.poll_request() {
            if request.flow == good_key() {
                let start = format!("POST /good/{} HTTP/1.1\r\n", self.good.mirrored);
                assert!(request.raw.starts_with(start.as_bytes()), "out of order");
                assert_eq!(request.raw.len() - request.head_len, 3_000);
                assert!(request.raw[request.head_len..].iter().all(|byte| *byte == b'g'));
                self.good.mirrored += 1;
            } else {
                self.mirrored += 1;
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of a segment")]
    fn hand_in(
        &mut self,
        flow: FlowKey,
        side: Side,
        seq: u32,
        ack: u32,
        flags: TcpFlags,
        payload: &[u8],
        payload_len: u32,
    ) {
        self.now = self.now.after(Duration::from_nanos(200));
        let (seq, ack) = (SeqNumber(seq), SeqNumber(ack));
        self.pipeline.handle_segment(&Segment {
            flow,
            side,
            interface: 0,
            at: self.now,
            seq,
            ack,
            flags,
            payload,
            payload_len,
        });
    }
}

/// Numbers that look like chance and are the same in every run.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let [high @ .., _, _, _, _] = self.0.to_be_bytes();
        u32::from_be_bytes(high)
    }

    pub(crate) fn fill(&mut self, bytes: &mut [u8]) {
        bytes.iter_mut().for_each(|byte| *byte = self.roll().to_be_bytes()[0]);
    }
}

fn good_key() -> FlowKey {
    FlowKey { client: Endpoint { addr: Ipv6Addr::LOCALHOST, port: GOOD_PORT }, ..key(0) }
}

fn key(stranger: u32) -> FlowKey {
    // Some thousands of ports of each of many addresses.
    let port = 1_024 + u16::try_from(stranger % 50_000).unwrap();
    let client = Endpoint { addr: Ipv6Addr::from_bits(u128::from(stranger / 50_000) + 1_000), port };
    let server = Endpoint { addr: Ipv6Addr::LOCALHOST, port: 80 };
    FlowKey { client, server, vlan: 0, vni: 0 }
}

fn len_of(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap()
}
