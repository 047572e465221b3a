//! Enters: conversations written down as segments. Leaves: whether the pipeline made the right requests of them.

mod answers;
mod goreplay;
mod memory;
mod one_sided;
mod pairing;
mod pauses;
mod pick_up;
mod properties;
mod requests;
mod two_interfaces;
mod unread;

use std::net::SocketAddr;

use crate::pipeline::{
    Endpoint, ExchangeId, FlowKey, Limits, Pipeline, Probe, Segment, SeqNumber, Side, Stats, TcpFlags,
    Timestamp,
    exchange::{Purpose, report::ExchangeReport},
    policy::{Experiment, Methods},
    probe_id,
    reason::{FlowSkipReason, LostReason, SkipReason},
};

/// A client and a server whose segments are fed to a pipeline, one millisecond apart.
pub(super) struct Conversation {
    pub(super) pipeline: Pipeline,
    flow: FlowKey,
    /// The interface at which what is sent is seen.
    interface: u32,
    /// Next sequence number of each side.
    next: [SeqNumber; 2],
    now: u64,
    stats: Stats,
    /// Requests that were taken and whose answers are awaited.
    taken: Vec<ExchangeId>,
}

const CLIENT: usize = 0;
const SERVER: usize = 1;

impl Conversation {
    /// A connection from its handshake on, mirrored with every method.
    pub(super) fn new() -> Self {
        Self::with(Purpose::replay(Experiment::of_methods(Methods::All)), Limits::default())
    }

    pub(super) fn inspected() -> Self {
        Self::with(Purpose::Inspect, Limits::default())
    }

    pub(super) fn with(purpose: Purpose, limits: Limits) -> Self {
        let mut conversation = Self::adopted(purpose, limits, 1_000, 2_000);
        conversation.segment(Side::Client, TcpFlags::SYN, 0, b"", 0);
        conversation.next[CLIENT] = SeqNumber(1_001);
        conversation.segment(Side::Server, TcpFlags(0x12), 0, b"", 0);
        conversation.next[SERVER] = SeqNumber(2_001);
        conversation
    }

    /// A connection that is older than the capture.
    pub(super) fn adopted(purpose: Purpose, limits: Limits, client: u32, server: u32) -> Self {
        let addr = |text: &str| text.parse::<SocketAddr>().unwrap().into();
        Self {
            pipeline: Pipeline::new(purpose, limits, 7),
            flow: FlowKey { client: addr("10.0.0.1:40000"), server: addr("10.0.0.2:80"), vlan: 0, vni: 0 },
            interface: 1,
            next: [SeqNumber(client), SeqNumber(server)],
            now: 0,
            stats: Stats::default(),
            taken: Vec::new(),
        }
    }

    /// The client sends `bytes` in one segment.
    pub(super) fn client(&mut self, bytes: &[u8]) {
        self.segment(Side::Client, TcpFlags::ACK, 0, bytes, bytes.len());
        self.skip(Side::Client, bytes.len());
    }

    /// The client sends `bytes`, `ahead` bytes further on than the next expected one; the stream's position stays.
    pub(super) fn client_at(&mut self, ahead: i32, bytes: &[u8]) {
        self.segment(Side::Client, TcpFlags::ACK, ahead, bytes, bytes.len());
    }

    /// `len` bytes of a side that the capture does not see.
    pub(super) fn skip(&mut self, side: Side, len: usize) {
        let next = &mut self.next[side as usize];
        *next = next.advance(u32::try_from(len).unwrap());
    }

    /// The server sends `bytes`, of which a hook copies only the status.
    pub(super) fn server(&mut self, bytes: &[u8]) {
        let peek = if bytes.starts_with(b"HTTP/") { &bytes[..bytes.len().min(12)] } else { &[] };
        self.segment(Side::Server, TcpFlags::ACK, 0, peek, bytes.len());
        self.skip(Side::Server, bytes.len());
    }

    /// The server sends `bytes`, copied in full.
    pub(super) fn server_full(&mut self, bytes: &[u8]) {
        self.segment(Side::Server, TcpFlags::ACK, 0, bytes, bytes.len());
        self.skip(Side::Server, bytes.len());
    }

    /// The server sends `bytes`, copied in full, `ahead` bytes further on than the next expected one; the stream's
    /// position stays.
    pub(super) fn server_at(&mut self, ahead: i32, bytes: &[u8]) {
        self.segment(Side::Server, TcpFlags::ACK, ahead, bytes, bytes.len());
    }

    /// Nothing is sent for so many milliseconds.
    pub(super) const fn wait(&mut self, milliseconds: u64) {
        self.now += milliseconds * 1_000_000;
    }

    pub(super) fn fin(&mut self, side: Side) {
        self.segment(side, TcpFlags(0x11), 0, b"", 0);
        self.skip(side, 1);
    }

    fn segment(&mut self, side: Side, flags: TcpFlags, ahead: i32, payload: &[u8], payload_len: usize) {
        self.now += 1_000_000;
        let (own, peer) = (self.next[side as usize], self.next[1 - side as usize]);
        self.pipeline.handle_segment(&Segment {
            flow: self.flow,
            interface: self.interface,
            side,
            at: Timestamp::from_nanos(self.now),
            seq: own.advance(ahead.cast_unsigned()),
            ack: peer,
            flags,
            payload,
            payload_len: u32::try_from(payload_len).unwrap(),
        });
        self.count();
    }

    fn count(&mut self) {
        let stats = self.pipeline.take_stats();
        self.stats.seen += stats.seen;
        self.stats.conflicts += stats.conflicts;
        self.stats.out_of_window += stats.out_of_window;
        self.stats.starts_doubted += stats.starts_doubted;
        let tables = [
            (&mut self.stats.gap_bytes[..], &stats.gap_bytes[..]),
            (&mut self.stats.flows_evicted[..], &stats.flows_evicted[..]),
            (&mut self.stats.skipped[..], &stats.skipped[..]),
            (&mut self.stats.lost[..], &stats.lost[..]),
            (&mut self.stats.flows_skipped[..], &stats.flows_skipped[..]),
        ];
        for (sums, counts) in tables {
            sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
        }
    }

    /// The capture ends.
    pub(super) fn finish(&mut self) {
        self.pipeline.finish(Timestamp::from_nanos(self.now));
        self.count();
    }

    /// The requests ready for replay, as bytes.
    pub(super) fn requests(&mut self) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| self.pipeline.poll_request()).map(|request| request.raw.to_vec()).collect()
    }

    pub(super) fn probes(&mut self) -> Vec<Probe> {
        std::iter::from_fn(|| self.pipeline.poll_probe()).collect()
    }

    pub(super) fn reports(&mut self) -> Vec<ExchangeReport> {
        std::iter::from_fn(|| self.pipeline.poll_report()).collect()
    }

    pub(super) fn seen(&self) -> u64 {
        self.stats.seen
    }

    pub(super) fn settled(&self) -> u64 {
        self.stats.settled()
    }

    pub(super) fn skipped(&self, reason: SkipReason) -> u64 {
        self.stats.skipped[reason.index()]
    }

    pub(super) fn lost(&self, reason: LostReason) -> u64 {
        self.stats.lost[reason.index()]
    }

    pub(super) fn flows_skipped(&self, reason: FlowSkipReason) -> u64 {
        self.stats.flows_skipped[reason.index()]
    }
}

/// A small GET for `path`.
pub(super) fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: live\r\n\r\n").into_bytes()
}

/// A POST with `body`.
pub(super) fn post(body: &[u8]) -> Vec<u8> {
    let head = format!("POST /p HTTP/1.1\r\nHost: live\r\nContent-Length: {}\r\n\r\n", body.len());
    let mut request = head.into_bytes();
    request.extend_from_slice(body);
    request
}

pub(super) const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
