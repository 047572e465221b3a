//! Enters: what became of each request and of each of its copies. Leaves: counters that add up.
//!
//! Two books are kept. `seen = pending + mirrored + skipped + dropped + lost` is of requests; `copies = pending +
//! mirrored + skipped + dropped` is of the copies of one experiment for one target ([`CopyBooks`]). A copy handed to the
//! replay carries a [`Ticket`], which is settled exactly once; one that is let go unsettled counts as dropped for
//! shutdown, so nothing can vanish. A request of several copies is mirrored by the first that is.

mod comparisons;
mod copies;
mod histogram;
mod left_aside;
mod ticket;

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

pub use self::{
    comparisons::{AnswerOf, ComparisonBooks, ComparisonSnapshot, FieldFigures, NumberFigures, Phase},
    copies::{CopyBooks, CopySnapshot},
    histogram::HistogramSnapshot,
    left_aside::LeftAside,
    ticket::{Claim, Ticket},
};
use crate::pipeline::{
    Stats,
    reason::{EvictReason, FlowSkipReason, LostReason, SkipReason, reasons},
    segment::Side,
};

reasons! {
    /// Why a request that could have been mirrored was not.
    DropReason {
        /// The target's bandwidth is used up.
        Bandwidth => "bandwidth",
        /// The target's circuit breaker is open.
        Breaker => "breaker",
        /// No connection to the shadow could be opened.
        Connect => "connect",
        /// It waited for a free connection until it was too old.
        InFlight => "in_flight",
        /// Capture, or its experiment, was paused.
        Paused => "paused",
        /// The target's queue was full.
        QueueFull => "queue_full",
        /// The target takes no more requests in this second.
        RateLimited => "rate_limited",
        /// Its experiment ended, or has the target no longer.
        Removed => "removed",
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
    flows_skipped: [AtomicU64; FlowSkipReason::ALL.len()],
    flows_evicted: [AtomicU64; EvictReason::ALL.len()],
    flows_observed_twice: AtomicU64,
    gap_bytes: [AtomicU64; Side::ALL.len()],
    conflicts: AtomicU64,
    out_of_window: AtomicU64,
    refused: AtomicU64,
    starts_doubted: AtomicU64,
    copies: Mutex<Vec<Arc<CopyBooks>>>,
    /// One for each capture thread.
    left_aside: Mutex<Vec<Arc<LeftAside>>>,
    comparisons: Mutex<Vec<Arc<ComparisonBooks>>>,
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
            add_all(counters, counts);
        }
        self.flows_observed_twice.fetch_add(stats.flows_observed_twice, Ordering::Relaxed);
        self.conflicts.fetch_add(stats.conflicts, Ordering::Relaxed);
        self.out_of_window.fetch_add(stats.out_of_window, Ordering::Relaxed);
        self.refused.fetch_add(stats.refused, Ordering::Relaxed);
        self.starts_doubted.fetch_add(stats.starts_doubted, Ordering::Relaxed);
    }

    /// The books of the copies that `experiment` makes for `target`: those there are, else new ones.
    #[must_use]
    pub fn copies(&self, experiment: &str, target: &str) -> Arc<CopyBooks> {
        let mut all = self.lock_copies();
        if let Some(books) = all.iter().find(|books| books.is_of(experiment, target)) {
            return Arc::clone(books);
        }
        let books = Arc::new(CopyBooks::new(experiment, target));
        all.push(Arc::clone(&books));
        books
    }

    /// A new account of what experiments leave aside, for one capture thread. It stays until the ledger goes.
    #[must_use]
    pub fn left_aside(&self) -> Arc<LeftAside> {
        let account = Arc::<LeftAside>::default();
        self.lock_left_aside().push(Arc::clone(&account));
        account
    }

    /// Closes the books of copies that `is_kept` does not keep: they are shown no longer.
    pub fn retain_copies(&self, is_kept: impl FnMut(&Arc<CopyBooks>) -> bool) {
        self.lock_copies().retain(is_kept);
    }

    /// The books of the comparisons of `experiment`: those there are, else new ones.
    #[must_use]
    pub fn comparisons(&self, experiment: &str) -> Arc<ComparisonBooks> {
        let mut all = self.lock_comparisons();
        if let Some(books) = all.iter().find(|books| books.experiment() == experiment) {
            return Arc::clone(books);
        }
        let books = Arc::new(ComparisonBooks::new(experiment));
        all.push(Arc::clone(&books));
        books
    }

    /// Closes the books of comparisons that `is_kept` does not keep: they are shown no longer.
    pub fn retain_comparisons(&self, is_kept: impl FnMut(&Arc<ComparisonBooks>) -> bool) {
        self.lock_comparisons().retain(is_kept);
    }

    /// The duty to settle one request, which is to be shared by `copies` tickets.
    #[must_use]
    pub fn claim(self: &Arc<Self>, copies: usize) -> Claim {
        Claim::new(self, copies)
    }

    /// Settles a request of which no copy is made.
    pub fn drop_request(&self, reason: DropReason) {
        add(self.dropped.get(reason.index()), 1);
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
        // Behind the requests: of those that are settled, all copies are shown.
        self.lock_left_aside().iter().for_each(|account| account.settle());
        Snapshot {
            seen,
            pending: seen.saturating_sub(settled),
            mirrored,
            skipped,
            dropped,
            lost,
            flows_skipped: load(&self.flows_skipped),
            flows_evicted: load(&self.flows_evicted),
            flows_observed_twice: self.flows_observed_twice.load(Ordering::Relaxed),
            gap_bytes: load(&self.gap_bytes),
            conflicts: self.conflicts.load(Ordering::Relaxed),
            out_of_window: self.out_of_window.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            starts_doubted: self.starts_doubted.load(Ordering::Relaxed),
            copies: self.lock_copies().iter().map(|books| books.snapshot()).collect(),
            comparisons: self.lock_comparisons().iter().map(|books| books.snapshot()).collect(),
        }
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

    fn lock_copies(&self) -> MutexGuard<'_, Vec<Arc<CopyBooks>>> {
        // A list to which something is pushed, or not.
        self.copies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_left_aside(&self) -> MutexGuard<'_, Vec<Arc<LeftAside>>> {
        self.left_aside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_comparisons(&self) -> MutexGuard<'_, Vec<Arc<ComparisonBooks>>> {
        self.comparisons.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The books at one moment; see [`Ledger::snapshot`].
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Requests of which the first byte was taken as a message start.
    pub seen: u64,
    /// Seen, and none of the others yet.
    pub pending: u64,
    /// All bytes of a copy accepted by one shadow socket.
    pub mirrored: u64,
    /// Deliberately not mirrored, by [`SkipReason`].
    pub skipped: [u64; SkipReason::ALL.len()],
    /// Could not be mirrored, by [`DropReason`].
    pub dropped: [u64; DropReason::ALL.len()],
    /// Seen but damaged, by [`LostReason`].
    pub lost: [u64; LostReason::ALL.len()],
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
    /// Segments that the receiver's TCP drops.
    pub refused: u64,
    /// What begins like a request and was not taken for one.
    pub starts_doubted: u64,
    /// Those of the copies, an entry for each target of each experiment.
    pub copies: Vec<CopySnapshot>,
    /// Those of the comparisons, an entry for each experiment that compares.
    pub comparisons: Vec<ComparisonSnapshot>,
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
        show(f, "skipped", &SkipReason::LABELS, &self.skipped)?;
        show(f, "dropped", &DropReason::LABELS, &self.dropped)?;
        show(f, "lost", &LostReason::LABELS, &self.lost)?;
        show(f, "flows skipped", &FlowSkipReason::LABELS, &self.flows_skipped)?;
        self.copies.iter().try_for_each(|copies| copies.fmt(f))
    }
}

/// A line for each of `counts` that is not zero.
fn show(f: &mut fmt::Formatter<'_>, name: &str, labels: &[&str], counts: &[u64]) -> fmt::Result {
    for (label, count) in labels.iter().zip(counts).filter(|(_, count)| **count > 0) {
        writeln!(f, "  {name}{{{label}}} {count}")?;
    }
    Ok(())
}

/// Adds to a counter of a fixed table; the index comes from the same enum that sized the table.
fn add(counter: Option<&AtomicU64>, count: u64) {
    if let Some(counter) = counter {
        counter.fetch_add(count, Ordering::Release);
    }
}

/// Adds to each counter of a table what is not zero.
fn add_all(counters: &[AtomicU64], counts: &[u64]) {
    for (counter, count) in counters.iter().zip(counts).filter(|(_, count)| **count > 0) {
        counter.fetch_add(*count, Ordering::Release);
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
