//! Enters: what the watches do. Leaves: the same, to be read by the metrics.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::pipeline::reason::reasons;

reasons! {
    /// Why a watch did not work. What was told last stays in force.
    WatchFailure {
        /// The API server could not be connected to.
        Unreachable => "unreachable",
        /// It does not let this agent list or watch these pods.
        Forbidden => "forbidden",
        /// It answered that it cannot answer.
        Server => "server",
        /// What the watch was to go on from is too old (410 Gone): everything is listed anew.
        Expired => "expired",
        /// It was silent for too long.
        Timeout => "timeout",
        /// The connection ended in the middle of an answer.
        Cut => "cut",
        /// Its answer was none.
        Malformed => "malformed",
    }
}

/// What the metrics show of the watches and of what they find.
#[derive(Debug, Default)]
pub struct PodsStatus {
    /// When the API server was last heard of, by what is watched.
    heard: Mutex<BTreeMap<String, Instant>>,
    failures: [AtomicU64; WatchFailure::ALL.len()],
    experiments: Mutex<Vec<(String, u64)>>,
    without_interface: AtomicU64,
    agents: AtomicU32,
}

impl PodsStatus {
    /// Something is not watched any more.
    pub(super) fn forget(&self, key: &str) {
        lock(&self.heard).remove(key);
    }

    /// The API server said something of what is watched, or it is watched from now on.
    pub(super) fn heard(&self, key: &str) {
        lock(&self.heard).insert(key.to_owned(), Instant::now());
    }

    pub(super) fn failed(&self, failure: WatchFailure) {
        if let Some(count) = self.failures.get(failure.index()) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How long ago the API server was last heard of, of all that is watched where that is longest; zero where nothing
    /// is.
    #[must_use]
    pub fn age(&self) -> Duration {
        lock(&self.heard).values().map(Instant::elapsed).max().unwrap_or_default()
    }

    /// How often a watch did not work, in the order of [`WatchFailure::ALL`].
    #[must_use]
    pub fn failures(&self) -> [u64; WatchFailure::ALL.len()] {
        self.failures.each_ref().map(|count| count.load(Ordering::Relaxed))
    }

    /// The experiments about pods, with how many of theirs run on this node.
    pub fn set_experiments(&self, experiments: Vec<(String, u64)>) {
        *lock(&self.experiments) = experiments;
    }

    /// The experiments about pods, with how many of theirs run on this node.
    #[must_use]
    pub fn experiments(&self) -> Vec<(String, u64)> {
        lock(&self.experiments).clone()
    }

    /// How many addresses of pods there are whose interface was not found.
    pub fn set_without_interface(&self, count: u64) {
        self.without_interface.store(count, Ordering::Relaxed);
    }

    /// How many addresses of pods there are whose interface was not found.
    #[must_use]
    pub fn without_interface(&self) -> u64 {
        self.without_interface.load(Ordering::Relaxed)
    }

    /// By how many agents a rate of all of them is divided.
    pub fn set_agents(&self, agents: u32) {
        self.agents.store(agents, Ordering::Relaxed);
    }

    /// By how many agents a rate of all of them is divided.
    #[must_use]
    pub fn agents(&self) -> u32 {
        self.agents.load(Ordering::Relaxed)
    }
}

fn lock<T>(part: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each is replaced as a whole.
    part.lock().unwrap_or_else(PoisonError::into_inner)
}
