//! Enters: what became of the copies of one experiment for one target. Leaves: counters that add up.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use super::{DropReason, ReplayOutcome, add, add_all, histogram::Histogram, load, show, sum};
use crate::{io::ledger::HistogramSnapshot, pipeline::reason::SkipReason};

/// The books of the copies that one experiment makes for one target: `copies = pending + mirrored + skipped + dropped`.
#[derive(Debug)]
pub struct CopyBooks {
    experiment: String,
    target: String,
    copies: AtomicU64,
    pub(super) mirrored: AtomicU64,
    pub(super) skipped: [AtomicU64; SkipReason::ALL.len()],
    pub(super) dropped: [AtomicU64; DropReason::ALL.len()],
    replays: [AtomicU64; ReplayOutcome::ALL.len()],
    replay_duration: Histogram,
    replay_lag: Histogram,
}

impl CopyBooks {
    /// Empty books.
    #[must_use]
    pub fn new(experiment: &str, target: &str) -> Self {
        Self {
            experiment: experiment.to_owned(),
            target: target.to_owned(),
            copies: AtomicU64::default(),
            mirrored: AtomicU64::default(),
            skipped: Default::default(),
            dropped: Default::default(),
            replays: Default::default(),
            replay_duration: Histogram::default(),
            replay_lag: Histogram::default(),
        }
    }

    /// Name of the experiment.
    #[must_use]
    pub fn experiment(&self) -> &str {
        &self.experiment
    }

    /// Name of the target.
    #[must_use]
    pub fn target(&self) -> &str {
        &self.target
    }

    pub(super) fn is_of(&self, experiment: &str, target: &str) -> bool {
        self.experiment == experiment && self.target == target
    }

    /// A copy is to be made.
    pub(super) fn open(&self) {
        self.copies.fetch_add(1, Ordering::Release);
    }

    /// Requests that the experiment left aside: copies that are skipped before they are made.
    pub fn skip(&self, counts: &[u64; SkipReason::ALL.len()]) {
        self.copies.fetch_add(sum(counts), Ordering::Release);
        add_all(&self.skipped, counts);
    }

    /// Counts the end of one attempt. `duration` runs from the first byte written to the last byte read.
    pub fn replay_ended(&self, outcome: ReplayOutcome, duration: Option<Duration>) {
        add(self.replays.get(outcome.index()), 1);
        if let Some(duration) = duration {
            self.replay_duration.observe(duration);
        }
    }

    /// Notes the time from a live request's last byte to the first byte written to the target.
    pub fn replay_lag(&self, lag: Duration) {
        self.replay_lag.observe(lag);
    }

    /// Attempts that ended so far with `outcome`.
    #[must_use]
    pub fn replays(&self, outcome: ReplayOutcome) -> u64 {
        self.replays.get(outcome.index()).map_or(0, |count| count.load(Ordering::Acquire))
    }

    /// The books at one moment; as with requests, `pending` is never negative.
    #[must_use]
    pub fn snapshot(&self) -> CopySnapshot {
        let mirrored = self.mirrored.load(Ordering::Acquire);
        let skipped = load(&self.skipped);
        let dropped = load(&self.dropped);
        let copies = self.copies.load(Ordering::Acquire);
        let settled = mirrored + sum(&skipped) + sum(&dropped);
        CopySnapshot {
            experiment: self.experiment.clone(),
            target: self.target.clone(),
            copies,
            pending: copies.saturating_sub(settled),
            mirrored,
            skipped,
            dropped,
            replays: load(&self.replays),
            replay_duration: self.replay_duration.snapshot(),
            replay_lag: self.replay_lag.snapshot(),
        }
    }
}

/// The books of one target at one moment.
#[derive(Clone, Debug)]
pub struct CopySnapshot {
    /// Name of the experiment.
    pub experiment: String,
    /// Name of the target.
    pub target: String,
    /// Copies to be made, and requests that the experiment left aside.
    pub copies: u64,
    /// None of the following yet.
    pub pending: u64,
    /// All bytes accepted by one socket of the target.
    pub mirrored: u64,
    /// Deliberately not made, by [`SkipReason`].
    pub skipped: [u64; SkipReason::ALL.len()],
    /// Could not be made, by [`DropReason`].
    pub dropped: [u64; DropReason::ALL.len()],
    /// Attempts, by [`ReplayOutcome`].
    pub replays: [u64; ReplayOutcome::ALL.len()],
    /// First byte written to last byte read.
    pub replay_duration: HistogramSnapshot,
    /// Live request's last byte to first byte written.
    pub replay_lag: HistogramSnapshot,
}

impl fmt::Display for CopySnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (skipped, dropped) = (sum(&self.skipped), sum(&self.dropped));
        writeln!(
            f,
            "{}/{}: copies {} = pending {} + mirrored {} + skipped {skipped} + dropped {dropped}",
            self.experiment, self.target, self.copies, self.pending, self.mirrored
        )?;
        show(f, "skipped", &SkipReason::LABELS, &self.skipped)?;
        show(f, "dropped", &DropReason::LABELS, &self.dropped)?;
        show(f, "replays", &ReplayOutcome::LABELS, &self.replays)
    }
}
