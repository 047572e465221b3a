//! Enters: what became of each request. Leaves: counters that add up.
//!
//! `seen = pending + mirrored + skipped + dropped + lost`. A request handed to the replay carries a [`Ticket`], which
//! is settled exactly once; one that is let go unsettled counts as dropped for shutdown, so no request can vanish.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::pipeline::{
    Stats,
    reason::{EvictReason, FlowSkipReason, LostReason, SkipReason, reasons},
    segment::Side,
};

reasons! {
    /// Why a request that could have been mirrored was not.
    DropReason {
        /// No connection to the shadow could be opened.
        Connect => "connect",
        /// It waited for a free connection until it was too old.
        InFlight => "in_flight",
        /// The replay queue was full.
        QueueFull => "queue_full",
        /// The agent is stopping.
        Shutdown => "shutdown",
        /// The connection broke before the shadow's socket had accepted all bytes.
        Write => "write",
    }
}

reasons! {
    /// How an attempt to replay a request ended.
    ReplayOutcome {
        /// The shadow answered with a complete response.
        Answered => "answered",
        /// The shadow closed the connection before its response was complete.
        Closed => "closed",
        /// The connection could not be opened.
        Connect => "connect",
        /// The shadow's answer is not HTTP/1.x.
        Protocol => "protocol",
        /// Reading failed.
        Read => "read",
        /// The agent stopped before the response was complete.
        Shutdown => "shutdown",
        /// No complete response in time.
        Timeout => "timeout",
        /// Writing failed.
        Write => "write",
    }
}

/// The books. Shared by all threads; every figure only grows.
#[derive(Debug, Default)]
pub struct Ledger {
    seen: AtomicU64,
    mirrored: AtomicU64,
    skipped: [AtomicU64; SkipReason::ALL.len()],
    dropped: [AtomicU64; DropReason::ALL.len()],
    lost: [AtomicU64; LostReason::ALL.len()],
    replays: [AtomicU64; ReplayOutcome::ALL.len()],
    flows_skipped: [AtomicU64; FlowSkipReason::ALL.len()],
    flows_evicted: [AtomicU64; EvictReason::ALL.len()],
    flows_observed_twice: AtomicU64,
    gap_bytes: [AtomicU64; Side::ALL.len()],
    conflicts: AtomicU64,
    out_of_window: AtomicU64,
    replay_duration: Histogram,
    replay_lag: Histogram,
}

impl Ledger {
    /// Takes over what a pipeline counted. It must be called before the requests of the same batch are queued, so
    /// that no request can be settled before it is seen.
    pub fn publish(&self, stats: &Stats) {
        self.seen.fetch_add(stats.seen, Ordering::Release);
        for (counters, counts) in [
            (&self.skipped[..], &stats.skipped[..]),
            (&self.lost[..], &stats.lost[..]),
            (&self.flows_skipped[..], &stats.flows_skipped[..]),
            (&self.flows_evicted[..], &stats.flows_evicted[..]),
            (&self.gap_bytes[..], &stats.gap_bytes[..]),
        ] {
            for (counter, count) in counters.iter().zip(counts).filter(|(_, count)| **count > 0) {
                counter.fetch_add(*count, Ordering::Release);
            }
        }
        self.flows_observed_twice.fetch_add(stats.flows_observed_twice, Ordering::Relaxed);
        self.conflicts.fetch_add(stats.conflicts, Ordering::Relaxed);
        self.out_of_window.fetch_add(stats.out_of_window, Ordering::Relaxed);
    }

    /// The books at one moment. What settles a request is read before what makes it seen, so `pending` is never
    /// negative, though other threads go on counting meanwhile.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let mirrored = self.mirrored.load(Ordering::Acquire);
        let skipped = load(&self.skipped);
        let dropped = load(&self.dropped);
        let lost = load(&self.lost);
        let seen = self.seen.load(Ordering::Acquire);
        let settled = mirrored + sum(&skipped) + sum(&dropped) + sum(&lost);
        Snapshot {
            seen,
            pending: seen.saturating_sub(settled),
            mirrored,
            skipped,
            dropped,
            lost,
            replays: load(&self.replays),
            flows_skipped: load(&self.flows_skipped),
            flows_evicted: load(&self.flows_evicted),
            flows_observed_twice: self.flows_observed_twice.load(Ordering::Relaxed),
            gap_bytes: load(&self.gap_bytes),
            conflicts: self.conflicts.load(Ordering::Relaxed),
            out_of_window: self.out_of_window.load(Ordering::Relaxed),
            replay_duration: self.replay_duration.snapshot(),
            replay_lag: self.replay_lag.snapshot(),
        }
    }

    /// A ticket for one request that has been counted as seen.
    #[must_use]
    pub fn ticket(self: &Arc<Self>) -> Ticket {
        Ticket { ledger: Some(Arc::clone(self)) }
    }

    /// Counts the end of one attempt. `duration` runs from the first byte written to the last byte read.
    pub fn replay_ended(&self, outcome: ReplayOutcome, duration: Option<Duration>) {
        add(self.replays.get(outcome.index()), 1);
        if let Some(duration) = duration {
            self.replay_duration.observe(duration);
        }
    }

    /// Notes the time from a live request's last byte to the first byte written to the shadow.
    pub fn replay_lag(&self, lag: Duration) {
        self.replay_lag.observe(lag);
    }

    /// Requests mirrored so far.
    #[must_use]
    pub fn mirrored(&self) -> u64 {
        self.mirrored.load(Ordering::Acquire)
    }

    /// Requests dropped so far for `reason`.
    #[must_use]
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.dropped.get(reason.index()).map_or(0, |count| count.load(Ordering::Acquire))
    }

    /// Attempts that ended so far with `outcome`.
    #[must_use]
    pub fn replays(&self, outcome: ReplayOutcome) -> u64 {
        self.replays.get(outcome.index()).map_or(0, |count| count.load(Ordering::Acquire))
    }
}

/// The books at one moment; see [`Ledger::snapshot`].
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Requests of which the first byte was taken as a message start.
    pub seen: u64,
    /// Seen, and none of the others yet.
    pub pending: u64,
    /// All bytes accepted by one shadow socket.
    pub mirrored: u64,
    /// Deliberately not mirrored, by [`SkipReason`].
    pub skipped: [u64; SkipReason::ALL.len()],
    /// Could not be mirrored, by [`DropReason`].
    pub dropped: [u64; DropReason::ALL.len()],
    /// Seen but damaged, by [`LostReason`].
    pub lost: [u64; LostReason::ALL.len()],
    /// Attempts, by [`ReplayOutcome`].
    pub replays: [u64; ReplayOutcome::ALL.len()],
    /// Flows not parsed, by [`FlowSkipReason`].
    pub flows_skipped: [u64; FlowSkipReason::ALL.len()],
    /// Flows evicted, by [`EvictReason`].
    pub flows_evicted: [u64; EvictReason::ALL.len()],
    /// Flows recognised at another interface under another key.
    pub flows_observed_twice: u64,
    /// Bytes missing from streams, by [`Side`].
    pub gap_bytes: [u64; Side::ALL.len()],
    /// Overlapping segments whose bytes differ.
    pub conflicts: u64,
    /// Segments too far from their flow's position.
    pub out_of_window: u64,
    /// First byte written to last byte read.
    pub replay_duration: HistogramSnapshot,
    /// Live request's last byte to first byte written.
    pub replay_lag: HistogramSnapshot,
}

impl fmt::Display for Snapshot {
    /// The ledger as a person reads it: one line for the sum, one for each reason that occurred.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (skipped, dropped, lost) = (sum(&self.skipped), sum(&self.dropped), sum(&self.lost));
        writeln!(
            f,
            "ledger: seen {} = pending {} + mirrored {} + skipped {skipped} + dropped {dropped} + lost {lost}",
            self.seen, self.pending, self.mirrored
        )?;
        let reasons = |f: &mut fmt::Formatter<'_>, name: &str, labels: &[&str], counts: &[u64]| {
            for (label, count) in labels.iter().zip(counts).filter(|(_, count)| **count > 0) {
                writeln!(f, "  {name}{{{label}}} {count}")?;
            }
            Ok(())
        };
        reasons(f, "skipped", &SkipReason::LABELS, &self.skipped)?;
        reasons(f, "dropped", &DropReason::LABELS, &self.dropped)?;
        reasons(f, "lost", &LostReason::LABELS, &self.lost)?;
        reasons(f, "replays", &ReplayOutcome::LABELS, &self.replays)?;
        reasons(f, "flows skipped", &FlowSkipReason::LABELS, &self.flows_skipped)
    }
}

/// The duty to settle one request.
#[derive(Debug)]
pub struct Ticket {
    ledger: Option<Arc<Ledger>>,
}

impl Ticket {
    /// All bytes of the request were accepted by one shadow socket.
    pub fn mirrored(mut self) {
        if let Some(ledger) = self.ledger.take() {
            ledger.mirrored.fetch_add(1, Ordering::Release);
        }
    }

    /// The request could not be mirrored.
    pub fn dropped(mut self, reason: DropReason) {
        if let Some(ledger) = self.ledger.take() {
            add(ledger.dropped.get(reason.index()), 1);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(ledger) = self.ledger.take() {
            add(ledger.dropped.get(DropReason::Shutdown.index()), 1);
        }
    }
}

/// Adds to a counter of a fixed table; the index comes from the same enum that sized the table.
fn add(counter: Option<&AtomicU64>, count: u64) {
    if let Some(counter) = counter {
        counter.fetch_add(count, Ordering::Release);
    }
}

/// The values of a table of counters.
fn load<const N: usize>(counters: &[AtomicU64; N]) -> [u64; N] {
    counters.each_ref().map(|counter| counter.load(Ordering::Acquire))
}

/// The sum of a table.
fn sum(counts: &[u64]) -> u64 {
    counts.iter().sum()
}

/// Upper bounds of the histogram buckets in nanoseconds, 100 µs to 10 s.
const BUCKET_BOUNDS_NANOS: [u64; 16] = [
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
];

/// A histogram at one moment.
#[derive(Clone, Debug)]
pub struct HistogramSnapshot {
    /// Sum of all observations in seconds.
    pub sum_seconds: f64,
    /// Upper bound in seconds, inclusive, and observations of each bucket, not cumulative; the last has no bound
    /// (infinity).
    pub buckets: Vec<(f64, u64)>,
}

/// A histogram of durations with fixed buckets.
#[derive(Debug, Default)]
struct Histogram {
    /// Observations per bucket, not cumulative; the last one is above all bounds.
    buckets: [AtomicU64; BUCKET_BOUNDS_NANOS.len() + 1],
    sum_nanos: AtomicU64,
}

impl Histogram {
    fn observe(&self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let bucket = BUCKET_BOUNDS_NANOS.partition_point(|bound| *bound < nanos);
        add(self.buckets.get(bucket), 1);
        self.sum_nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    fn snapshot(&self) -> HistogramSnapshot {
        let counts = load(&self.buckets);
        let sum_seconds = Duration::from_nanos(self.sum_nanos.load(Ordering::Relaxed)).as_secs_f64();
        let bounds = BUCKET_BOUNDS_NANOS.map(|nanos| Duration::from_nanos(nanos).as_secs_f64());
        HistogramSnapshot {
            sum_seconds,
            buckets: bounds.into_iter().chain([f64::INFINITY]).zip(counts).collect(),
        }
    }
}
