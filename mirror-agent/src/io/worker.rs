//! Enters: segments from one ring. Leaves: requests in the replay queue, and the counts of everything else.
//!
//! A worker is one thread. It never waits for anything but its ring: what the replay cannot take is dropped.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tracing::{debug, error, warn};

use crate::{
    io::{
        capture::{Captured, RingReader, UnreadFlows},
        experiments::Dispatcher,
        interfaces::{Interfaces, Tally},
        ledger::Ledger,
        metrics::PipelineGauges,
        replay::{Probes, clock},
    },
    pipeline::{Pipeline, Stats, Timestamp, reason::FlowSkipReason},
};

/// Records taken from the ring before their requests are handed on: large enough to share the cost of the hand-over,
/// small enough not to add to the lag.
const ROUND_RECORDS: usize = 512;

/// So many requests and answers are handed on before the round is over. A client that does not wait for its answers can put
/// hundreds of requests into one record, and each takes many times its length until somebody has it. Where clients wait, a
/// round finds far fewer.
const ROUND_READY: usize = 4096;

/// By how much records may stand in a ring in another order than that of their times.
const DISORDER: Duration = Duration::from_millis(10);

/// A worker that has not gone round for this long is stuck. Its longest wait is 100 ms.
const HEARTBEAT_LIMIT: Duration = Duration::from_secs(5);

/// One capture thread.
pub struct Worker {
    /// Which of the workers it is.
    pub number: u16,
    /// The ring it reads.
    pub reader: RingReader,
    /// To whom it tells what it does not read.
    pub unread: UnreadFlows,
    /// The state of its flows.
    pub pipeline: Pipeline,
    /// Where requests go.
    pub dispatcher: Dispatcher,
    /// Where everything is counted.
    pub ledger: Arc<Ledger>,
    /// What it says of itself.
    pub gauges: Arc<PipelineGauges>,
    /// The sign that it is alive.
    pub heartbeat: Arc<Heartbeat>,
    /// What it is to do.
    pub orders: Arc<Orders>,
    /// The warnings given, by whichever worker.
    pub warned: Arc<Warned>,
    /// Who has to know of probes that arrive.
    pub probes: Arc<Probes>,
    /// What it has seen of each interface of late.
    pub tally: Tally,
    /// What all workers have.
    pub interfaces: Arc<Interfaces>,
}

/// What all workers are to do.
#[derive(Debug, Default)]
pub struct Orders {
    /// Nothing more is captured: each worker empties its ring and returns.
    pub stop: AtomicBool,
    /// How often capture was paused. Each time what was incomplete is lost, and flows keep no more than their position:
    /// what is seen of them later does not follow what was seen before.
    pauses: AtomicU64,
    paused: AtomicBool,
}

impl Orders {
    /// Notes that capture was paused or resumed.
    pub fn set_paused(&self, is_paused: bool) {
        if is_paused {
            self.pauses.fetch_add(1, Ordering::Release);
        }
        self.paused.store(is_paused, Ordering::Release);
    }

    /// How often capture was paused.
    #[must_use]
    pub fn pauses(&self) -> u64 {
        self.pauses.load(Ordering::Acquire)
    }

    /// Whether nothing is captured for the time being.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.paused.load(Ordering::Acquire)
    }
}

impl Worker {
    /// Goes round until told to stop and the ring is empty.
    pub fn run(mut self) {
        self.pipeline.set_answer_limit(self.dispatcher.answer_bytes());
        let mut idle_rounds: u32 = 0;
        let mut pauses = 0;
        loop {
            // Asked before the ring is read: what was captured before the order is read after it.
            let is_stopping = self.orders.stop.load(Ordering::Acquire);
            let has_paused = pauses != self.orders.pauses.load(Ordering::Acquire);
            if has_paused && !self.orders.is_paused() {
                // It is over already, and the ring may hold what came after it.
                pauses = self.interrupt_flows();
            }
            if self.dispatcher.is_outdated() {
                // What was decided so far is counted for the experiments that it was decided for.
                self.publish();
                self.dispatcher.count_skips(&mut self.pipeline);
                let policy = self.dispatcher.turn();
                self.pipeline.set_policy(policy);
                self.pipeline.set_body_limit(self.dispatcher.body_bytes());
                self.pipeline.set_answer_limit(self.dispatcher.answer_bytes());
            }
            let taken = self.round();
            if taken == ROUND_RECORDS {
                idle_rounds = 0;
                continue;
            }
            if self.dispatcher.has_missed() {
                // The ring is empty: what was captured before that changed has been taken in.
                self.dispatcher.interrupt(&mut self.pipeline);
                self.publish();
            }
            if is_stopping {
                break;
            }
            if has_paused && self.orders.is_paused() {
                pauses = self.interrupt_flows();
            }
            idle_rounds = if taken == 0 { idle_rounds.saturating_add(1) } else { 0 };
            if let Err(error) = self.reader.wait(idle_rounds, self.dispatcher.is_ahead()) {
                error!(%error, worker = self.number, "Waiting for the ring buffer failed; this worker stops.");
                break;
            }
        }
        self.pipeline.finish(clock::now());
        self.publish();
        self.dispatcher.count_skips(&mut self.pipeline);
    }

    /// Tells the pipeline of a pause, and returns how many pauses that is good for.
    fn interrupt_flows(&mut self) -> u64 {
        let pauses = self.orders.pauses.load(Ordering::Acquire);
        self.pipeline.interrupt(clock::now());
        self.publish();
        pauses
    }

    /// Takes what is in the ring, up to a limit, and returns how many records that were.
    fn round(&mut self) -> usize {
        let Self { reader, pipeline, dispatcher, ledger, gauges, warned, tally, interfaces, probes, .. } =
            self;
        let begun = clock::now();
        let fill = reader.utilization();
        let mut last_at = None;
        let taken = reader.drain(ROUND_RECORDS, |captured| {
            last_at = Some(captured.at());
            take(captured, tally, pipeline, |pipeline| hand_on(pipeline, ledger, warned, dispatcher));
            tell_probes(pipeline, probes);
        });
        let now = clock::now();
        gauges.ring_fill.note(fill, now);
        interfaces.take(tally, now);
        pipeline.handle_time(now);
        self.heartbeat.beat(now);
        self.publish();
        // A ring that is filled as fast as it is read is never empty.
        let is_empty = taken < ROUND_RECORDS;
        self.heartbeat.note_read(if is_empty {
            begun
        } else {
            last_at.map_or(begun, |at| at.before(DISORDER))
        });
        taken
    }

    /// Tells all that the pipeline has to tell.
    fn publish(&mut self) {
        let Self { pipeline, dispatcher, ledger, gauges, reader, unread, warned, probes, .. } = self;
        hand_on(pipeline, ledger, warned, dispatcher);
        while let Some(run) = pipeline.poll_unread() {
            if let Err(error) = unread.tell(&run) {
                // What is copied in vain costs time; what is left out in error is counted as a gap.
                debug!(%error, "The kernel program was not told what of an answer nobody reads.");
            }
        }
        tell_probes(pipeline, probes);
        let (flow_bytes, message_bytes) = pipeline.bytes_held();
        gauges.publish(pipeline.flows(), flow_bytes, message_bytes, reader.malformed());
    }
}

/// Takes a record, and hands on what is ready where that is much.
fn take(
    captured: Captured<'_>,
    tally: &mut Tally,
    pipeline: &mut Pipeline,
    hand_on: impl FnOnce(&mut Pipeline),
) {
    match captured {
        Captured::Segment(segment) => {
            tally.note(&segment);
            pipeline.handle_segment(&segment);
        }
        Captured::LetGo(at, flow) => pipeline.let_go(at, &flow),
    }
    if pipeline.ready() >= ROUND_READY {
        hand_on(pipeline);
    }
}

/// Tells whoever sent probes of those that arrived, and whether there may have been others.
fn tell_probes(pipeline: &mut Pipeline, probes: &Probes) {
    while let Some(probe) = pipeline.poll_probe() {
        probes.saw(&probe);
    }
    if pipeline.take_dropped_probes() {
        probes.missed();
    }
}

/// Counts first, then hands on: a request is seen before it can be settled.
fn hand_on(pipeline: &mut Pipeline, ledger: &Ledger, warned: &Warned, dispatcher: &mut Dispatcher) {
    let stats = pipeline.take_stats();
    ledger.publish(&stats);
    warned.warn(&stats);
    dispatcher.dispatch(pipeline);
}

/// The kinds of flows that are not parsed of which a warning was given.
#[derive(Debug, Default)]
pub struct Warned([AtomicBool; FlowSkipReason::ALL.len()]);

impl Warned {
    /// Says once for each kind that a matched port carries something that cannot be mirrored.
    fn warn(&self, stats: &Stats) {
        for (reason, (count, warned)) in
            FlowSkipReason::ALL.iter().zip(stats.flows_skipped.iter().zip(&self.0))
        {
            if *count == 0 || warned.swap(true, Ordering::Relaxed) {
                continue;
            }
            match reason {
                FlowSkipReason::Http2 | FlowSkipReason::NotHttp | FlowSkipReason::Tls => {
                    let kind = reason.as_str();
                    warn!(
                        kind,
                        "A matched port carries flows that are not HTTP/1.x; they are counted, not mirrored."
                    );
                }
                FlowSkipReason::Own
                | FlowSkipReason::Sampled
                | FlowSkipReason::Shed
                | FlowSkipReason::Upgraded => {}
            }
        }
    }
}

/// When a worker last went round.
#[derive(Debug, Default)]
pub struct Heartbeat {
    beat_at: AtomicU64,
    read_until: AtomicU64,
}

impl Heartbeat {
    /// Notes that the worker is alive.
    pub fn beat(&self, now: Timestamp) {
        self.beat_at.store(now.as_nanos(), Ordering::Relaxed);
    }

    /// Whether the worker went round lately.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        clock::now().since(Timestamp::from_nanos(self.beat_at.load(Ordering::Relaxed))) < HEARTBEAT_LIMIT
    }

    /// Notes that everything was read that was in the ring at `until`.
    fn note_read(&self, until: Timestamp) {
        self.read_until.fetch_max(until.as_nanos(), Ordering::Release);
    }

    /// Whether everything that was in the ring at `at` has been read, and its probes told.
    #[must_use]
    pub fn has_read_until(&self, at: Timestamp) -> bool {
        at <= Timestamp::from_nanos(self.read_until.load(Ordering::Acquire))
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv6Addr, SocketAddr};

    use super::*;
    use crate::pipeline::{
        Endpoint, FlowKey, Limits, Segment, SeqNumber, Side, TcpFlags, exchange::Purpose, policy::Experiment,
    };

    #[test]
    fn what_many_short_requests_in_few_records_make_is_handed_on_before_the_round_is_over() {
        let endpoint = |port| Endpoint::from(SocketAddr::from((Ipv6Addr::LOCALHOST, port)));
        let flow = FlowKey { client: endpoint(9), server: endpoint(80), vlan: 0, vni: 0 };
        let request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        let payload = request.repeat(600);
        let mut pipeline = Pipeline::new(Purpose::replay(Experiment::default()), Limits::default(), 0);
        let mut tally = Tally::default();
        let (mut handed_on, mut most) = (0, 0);
        let of = |flags, seq| Segment {
            flow,
            interface: 1,
            side: Side::Client,
            at: Timestamp::from_nanos(1),
            seq,
            ack: SeqNumber(1),
            flags,
            payload: b"",
            payload_len: 0,
        };
        pipeline.handle_segment(&of(TcpFlags::SYN, SeqNumber(0)));
        let payload_len = u32::try_from(payload.len()).unwrap();
        let mut seq = SeqNumber(1);
        for _ in 0..ROUND_RECORDS {
            let segment = Segment { payload: &payload, payload_len, ..of(TcpFlags::ACK, seq) };
            seq = seq.advance(payload_len);
            take(Captured::Segment(segment), &mut tally, &mut pipeline, |pipeline| {
                most = most.max(pipeline.ready());
                handed_on += std::iter::from_fn(|| pipeline.poll_request()).count();
            });
        }
        assert_eq!(handed_on + pipeline.ready(), 600 * ROUND_RECORDS);
        assert!(most < 5000 && pipeline.ready() < 5000, "{most}");
    }
}
