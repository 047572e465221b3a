//! Enters: copies about to be written, and how they ended. Leaves: whether they are written, or the reason why not.
//!
//! All that stands between a target and more than it can bear: its rate, its bandwidth and its circuit breaker. The locks
//! are taken last and held for a few instructions; a target without such limits takes none.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering},
};

use tracing::{info, warn};

use super::{
    ReplayConfig,
    breaker::{Breaker, BreakerState, Change, Permit},
    clock,
    event::{Event, Observer},
    gauges::Gauges,
    held::Held,
    limiter::Bucket,
};
use crate::{
    io::ledger::{CopyBooks, DropReason, ReplayOutcome},
    pipeline::Timestamp,
};

/// Where the circuit breaker stands, to be read while the replay runs.
#[derive(Debug, Default)]
pub(super) struct BreakerGauges {
    /// Position of the state among [`BreakerState::ALL`].
    state: AtomicUsize,
    changes: [AtomicU64; BreakerState::ALL.len()],
}

impl BreakerGauges {
    pub(super) fn state(&self) -> BreakerState {
        let index = self.state.load(Ordering::Relaxed);
        BreakerState::ALL.get(index).copied().unwrap_or(BreakerState::Closed)
    }

    pub(super) fn changes(&self) -> [u64; BreakerState::ALL.len()] {
        self.changes.each_ref().map(|count| count.load(Ordering::Relaxed))
    }

    fn note(&self, to: BreakerState) {
        self.state.store(to.index(), Ordering::Relaxed);
        if let Some(count) = self.changes.get(to.index()) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// What protects one target.
#[derive(Debug)]
pub(super) struct Protection {
    rate: Option<SharedRate>,
    bandwidth: Option<Mutex<Bucket>>,
    breaker: Option<Mutex<Breaker>>,
    gauges: Arc<Gauges>,
    books: Arc<CopyBooks>,
    observer: Option<Arc<dyn Observer>>,
}

impl Protection {
    pub(super) fn new(config: &ReplayConfig, books: Arc<CopyBooks>, gauges: Arc<Gauges>) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "bandwidths stay below 2^53 bytes a second")]
        let bandwidth = config.bandwidth.map(|bytes| bytes as f64);
        let bucket = |rate| Mutex::new(Bucket::new(rate));
        Self {
            rate: config.requests_per_second.map(|rate| SharedRate::new(rate, Arc::clone(&config.shared_by))),
            bandwidth: bandwidth.map(bucket),
            breaker: config.circuit_breaker.map(|breaker| Mutex::new(Breaker::new(breaker))),
            gauges,
            books,
            observer: config.observer.clone(),
        }
    }

    /// Whether no copy at all may be sent at this moment.
    pub(super) fn is_shut(&self, now: Timestamp) -> bool {
        self.breaker.as_ref().is_some_and(|breaker| lock(breaker).is_shut(now))
    }

    /// Whether how one copy ends decides on those after it.
    pub(super) const fn has_breaker(&self) -> bool {
        self.breaker.is_some()
    }

    /// Lets a copy on its way to a connection that is yet to be opened, while `opening` others are. It has to be
    /// [admitted](Self::admit) all the same.
    ///
    /// # Errors
    ///
    /// Why the copy would not be admitted.
    pub(super) fn let_out(
        self: &Arc<Self>,
        held: &mut Held,
        opening: usize,
        now: Timestamp,
    ) -> Result<(), DropReason> {
        if !held.has_paid {
            if !self.rate.as_ref().is_none_or(|rate| rate.ask(|bucket| bucket.has(now, opening))) {
                return Err(DropReason::RateLimited);
            }
            self.find_bandwidth(now)?;
        }
        self.pass(held, now)
    }

    /// Lets a copy be written. A copy that no socket accepted a byte of has paid already when it is tried again, and so has
    /// one that the target cannot have taken in behind another.
    ///
    /// # Errors
    ///
    /// Why it must not be.
    pub(super) fn admit(self: &Arc<Self>, held: &mut Held, now: Timestamp) -> Result<(), DropReason> {
        self.pass(held, now)?;
        if !held.has_paid {
            self.find_bandwidth(now)?;
            if !self.rate.as_ref().is_none_or(|rate| rate.ask(|bucket| bucket.take(now))) {
                return Err(DropReason::RateLimited);
            }
            held.has_paid = true;
        }
        Ok(())
    }

    /// A copy of so many bytes was begun to be written.
    pub(super) fn written(&self, bytes: usize, now: Timestamp) {
        if let Some(bandwidth) = &self.bandwidth {
            lock(bandwidth).charge(now, bytes);
        }
    }

    /// A copy was dropped because the target cannot be reached.
    pub(super) fn unreachable(&self, now: Timestamp) {
        if let Some(breaker) = &self.breaker {
            let change = lock(breaker).unreachable(now);
            self.tell(change);
        }
    }

    /// A copy may be longer than what the bucket holds, so any is let through while nothing is owed.
    fn find_bandwidth(&self, now: Timestamp) -> Result<(), DropReason> {
        let has_room = self.bandwidth.as_ref().is_none_or(|bandwidth| lock(bandwidth).has(now, 0));
        if has_room { Ok(()) } else { Err(DropReason::Bandwidth) }
    }

    fn pass(self: &Arc<Self>, held: &mut Held, now: Timestamp) -> Result<(), DropReason> {
        let Some(breaker) = &self.breaker else { return Ok(()) };
        let mut breaker = lock(breaker);
        if let Some(pass) = &held.pass {
            return if breaker.is_valid(pass.permit) { Ok(()) } else { Err(DropReason::Breaker) };
        }
        let Some((permit, change)) = breaker.ask(now) else { return Err(DropReason::Breaker) };
        drop(breaker);
        held.pass = Some(Pass { protection: Arc::clone(self), permit });
        self.tell(change);
        Ok(())
    }

    fn tell(&self, change: Option<Change>) {
        let Some(Change { from, to, open_for }) = change else { return };
        self.gauges.breaker.note(to);
        let (experiment, target) = (self.books.experiment(), self.books.target());
        match to {
            BreakerState::Open => {
                let seconds = open_for.as_secs_f64();
                warn!(experiment, target, seconds, "Circuit breaker opened: too many copies failed.");
            }
            BreakerState::HalfOpen => info!(experiment, target, "Circuit breaker lets one copy through."),
            BreakerState::Closed => info!(experiment, target, "Circuit breaker closed."),
        }
        if let Some(observer) = &self.observer {
            observer.handle_event(&self.books, Event::Breaker { from, to });
        }
    }
}

/// A rate that agents share, of whom there may be more or fewer at any time.
#[derive(Debug)]
struct SharedRate {
    /// Of all of them together, copies a second.
    rate: f64,
    agents: Arc<AtomicU32>,
    /// The bucket, and the number of agents that it is of.
    bucket: Mutex<(Bucket, u32)>,
}

impl SharedRate {
    fn new(rate: f64, agents: Arc<AtomicU32>) -> Self {
        let count = agents.load(Ordering::Relaxed);
        let bucket = Mutex::new((Bucket::new(part(rate, count)), count));
        Self { rate, agents, bucket }
    }

    /// Asks the bucket of this agent's part.
    fn ask(&self, question: impl FnOnce(&mut Bucket) -> bool) -> bool {
        let mut guard = lock(&self.bucket);
        let (bucket, known) = &mut *guard;
        let count = self.agents.load(Ordering::Relaxed);
        if *known != count {
            bucket.set_rate(part(self.rate, count));
            *known = count;
        }
        question(bucket)
    }
}

/// What one of so many agents may send.
fn part(rate: f64, agents: u32) -> f64 {
    rate / f64::from(agents.max(1))
}

/// The duty to say how a copy ended. One that is let go says that the copy was given up.
#[derive(Debug)]
pub(super) struct Pass {
    protection: Arc<Protection>,
    permit: Permit,
}

impl Pass {
    /// The copy was answered, or not. `status` is that of the answer.
    pub(super) fn ended(self, outcome: ReplayOutcome, status: Option<u16>) {
        match outcome {
            // By these a gateway says that there is nobody behind it, or a server that it is overloaded. Any other answer,
            // a 500 too, may be what live says to the same request.
            ReplayOutcome::Answered => self.settle(matches!(status, Some(502..=504))),
            ReplayOutcome::Shutdown => {}
            ReplayOutcome::Closed
            | ReplayOutcome::Connect
            | ReplayOutcome::Protocol
            | ReplayOutcome::Read
            | ReplayOutcome::Timeout
            | ReplayOutcome::Write => self.settle(true),
        }
    }

    fn settle(self, has_failed: bool) {
        let Some(breaker) = &self.protection.breaker else { return };
        let change = lock(breaker).ended(self.permit, has_failed, clock::now());
        // A probe that has ended is one of a time that is over: that this lets it go means nothing more.
        self.protection.tell(change);
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if let Some(breaker) = &self.protection.breaker {
            lock(breaker).abandoned(self.permit);
        }
    }
}

fn lock<T>(part: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each is a few numbers; none is left half changed where something could panic.
    part.lock().unwrap_or_else(PoisonError::into_inner)
}
