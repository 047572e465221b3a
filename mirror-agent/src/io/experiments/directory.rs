//! Enters: which experiment has which targets. Leaves: the same for the capture threads, which look once a round.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use crate::{
    io::{
        compare::{Comparing, Sessions},
        experiments::Reach,
        ledger::CopyBooks,
        replay::{Gauges, Queue},
    },
    pipeline::{Policy, policy::ExperimentId},
};

/// The way to one target.
#[derive(Clone, Debug)]
pub struct Lane {
    /// Where its copies wait.
    pub queue: Arc<Queue>,
    /// Where they are counted.
    pub books: Arc<CopyBooks>,
    /// Figures of its replay.
    pub gauges: Arc<Gauges>,
    /// Whether the experiment takes a share of the requests only, as copies say.
    pub is_sampled: Arc<AtomicBool>,
    /// What the target knows by other values than live.
    pub sessions: Option<Arc<Sessions>>,
}

/// The targets of one experiment.
#[derive(Clone, Debug)]
pub struct Route {
    /// The experiment.
    pub id: ExperimentId,
    /// Positions in [`Table::lanes`].
    pub lanes: Vec<usize>,
    /// Where answers are read: the experiment, of which the targets have the order of `lanes`.
    pub comparing: Option<Arc<Comparing>>,
}

/// What runs.
#[derive(Debug, Default)]
pub struct Table {
    /// Which experiments take which requests.
    pub policy: Arc<Policy>,
    /// Of each experiment, at the position that it has in the policy.
    pub routes: Vec<Route>,
    /// All targets.
    pub lanes: Vec<Lane>,
    /// Longest body that is mirrored, in bytes.
    pub body_bytes: usize,
    /// Longest content of an answer that is read, in bytes.
    pub answer_bytes: usize,
    /// What has been captured of late, each with a number that grows; the last is in force. A capture thread that was
    /// busy may have missed some, after each of which flows may have gone on unseen.
    pub captured: Vec<(u64, Arc<Reach>)>,
}

impl Table {
    /// Adds a target and returns its position.
    pub fn add(&mut self, lane: Lane) -> usize {
        self.lanes.push(lane);
        self.lanes.len() - 1
    }

    /// The route of an experiment by its number.
    #[must_use]
    pub fn route(&self, id: ExperimentId) -> Option<&Route> {
        self.routes.iter().find(|route| route.id == id)
    }
}

/// The table in force.
#[derive(Debug, Default)]
pub struct Directory {
    version: AtomicU64,
    table: Mutex<Arc<Table>>,
}

impl Directory {
    /// Puts another table in force.
    pub fn replace(&self, table: Table) {
        *self.lock() = Arc::new(table);
        self.version.fetch_add(1, Ordering::Release);
    }

    /// The table in force.
    #[must_use]
    pub fn table(&self) -> Arc<Table> {
        Arc::clone(&self.lock())
    }

    /// Changes with each table.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    fn lock(&self) -> MutexGuard<'_, Arc<Table>> {
        // The pointer is replaced in one step.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
