//! Enters: what the owner of what runs does. Leaves: the same, to be read by the metrics.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::SystemTime,
};

use crate::pipeline::reason::reasons;

reasons! {
    /// What became of a configuration that was offered.
    ReloadResult {
        /// It is in force.
        Applied => "applied",
        /// The one before it stays in force.
        Rejected => "rejected",
    }
}

/// What the metrics show of the steering.
#[derive(Debug, Default)]
pub struct Status {
    experiments: Mutex<Vec<ExperimentStatus>>,
    reloads: [AtomicU64; ReloadResult::ALL.len()],
    is_last_rejected: AtomicBool,
    /// Seconds since 1970.
    loaded_at: AtomicU64,
}

/// What the metrics show of one experiment.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ExperimentStatus {
    /// Its name.
    pub name: String,
    /// Whether it is paused, by itself or with all.
    pub is_paused: bool,
    /// When it ends or has ended, in seconds since 1970; 0 for never.
    pub expires: u64,
}

impl Status {
    /// The experiments as they are.
    pub fn set_experiments(&self, experiments: Vec<ExperimentStatus>) {
        *self.experiments.lock().unwrap_or_else(PoisonError::into_inner) = experiments;
    }

    /// The experiments as they are.
    #[must_use]
    pub fn experiments(&self) -> Vec<ExperimentStatus> {
        self.experiments.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A configuration was loaded at the start.
    pub fn started(&self, now: SystemTime) {
        self.loaded_at.store(seconds(now), Ordering::Relaxed);
    }

    /// A configuration was offered.
    pub fn reloaded(&self, result: ReloadResult, now: SystemTime) {
        if let Some(count) = self.reloads.get(result.index()) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.is_last_rejected.store(result == ReloadResult::Rejected, Ordering::Relaxed);
        if result == ReloadResult::Applied {
            self.started(now);
        }
    }

    /// How often a configuration was offered, by what became of it.
    #[must_use]
    pub fn reloads(&self) -> [u64; ReloadResult::ALL.len()] {
        self.reloads.each_ref().map(|count| count.load(Ordering::Relaxed))
    }

    /// Whether the configuration that was offered last is in force.
    #[must_use]
    pub fn is_last_in_force(&self) -> bool {
        !self.is_last_rejected.load(Ordering::Relaxed)
    }

    /// When the configuration in force was loaded, in seconds since 1970.
    #[must_use]
    pub fn loaded_at(&self) -> u64 {
        self.loaded_at.load(Ordering::Relaxed)
    }
}

/// Seconds since 1970; 0 before.
pub(super) fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
