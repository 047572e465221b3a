//! Enters: what became of each request. Leaves: counters that add up.
//!
//! `seen = pending + mirrored + skipped + dropped + lost`. A request handed to the replay carries a [`Ticket`], which
//! is settled exactly once; one that is let go unsettled counts as dropped for shutdown, so no request can vanish.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::pipeline::reason::{LostReason, SkipReason, reasons};

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
    replay_duration: Histogram,
    replay_lag: Histogram,
}

impl Ledger {
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
}
