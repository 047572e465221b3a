//! Enters: how copies fared that were written behind others. Leaves: whether more may be.
//!
//! A server may answer requests that come before their turn (RFC 9112 section 9.3.2), and nearly all do, but some forget
//! what they have read beyond the first. So one copy tries it out, and where copies are lost so, none is risked for a time.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use super::{held::Held, lanes::Live, pool::Pool};
use crate::pipeline::{Request, Timestamp};

/// Whether copies of one target are written before those before them are answered.
#[derive(Debug)]
pub(super) struct Pipelining {
    /// Most copies on one connection that are not answered.
    depth: usize,
    /// Copies that are written behind another that is not answered.
    following: AtomicUsize,
    standing: Mutex<Standing>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Standing {
    /// It is not known whether the target answers them: one at a time.
    Untried,
    /// It has answered one.
    Proven,
    /// It has not; tried again from then on.
    Failed { until: Timestamp },
}

impl Pipelining {
    /// For connections with at most `depth` copies that are not answered; 1 for none behind another.
    pub(super) const fn new(depth: usize) -> Self {
        Self { depth, following: AtomicUsize::new(0), standing: Mutex::new(Standing::Untried) }
    }

    /// Whether another copy may be written to a connection with those `unanswered`, of which none but the first has
    /// [joined](Self::joined) yet.
    pub(super) fn may_follow(&self, unanswered: usize, now: Timestamp) -> bool {
        if unanswered >= self.depth {
            return false;
        }
        let mut standing = self.lock();
        if matches!(*standing, Standing::Failed { until } if until <= now) {
            *standing = Standing::Untried;
        }
        match *standing {
            Standing::Untried => unanswered == 1 && self.following.load(Ordering::Relaxed) == 0,
            Standing::Proven => true,
            Standing::Failed { .. } => false,
        }
    }

    /// A copy was written behind another.
    pub(super) fn joined(&self) {
        self.following.fetch_add(1, Ordering::Relaxed);
    }

    /// Such a copy is behind no other any more.
    pub(super) fn left(&self) {
        self.following.fetch_sub(1, Ordering::Relaxed);
    }

    /// A copy that was written behind another was answered, or was not.
    pub(super) fn ended(&self, is_answered: bool, now: Timestamp) {
        let mut standing = self.lock();
        match *standing {
            _ if !is_answered => *standing = Standing::Failed { until: now.after(PAUSE) },
            Standing::Untried => *standing = Standing::Proven,
            Standing::Proven | Standing::Failed { .. } => {}
        }
    }

    fn lock(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes the copy behind `before`, the last of `unanswered` on its connection, if it may be written at once.
///
/// Only what changes nothing and has no body goes so, on behalf of nobody who waits for the answer or must see it first. Where
/// no order is kept, copies of different clients would wait for each other: they do so only where more wait anyway than
/// there are places left.
pub(super) fn follower(pool: &Pool, before: &Held, unanswered: usize, now: Timestamp) -> Option<Held> {
    let (config, request) = (&pool.config, &before.request);
    if pool.gauges.gate.is_some()
        || config.sessions.is_some()
        || before.part.is_some()
        || !(request.keep_alive && only_reads(request))
        || pool.protection.has_breaker()
        || !pool.pipelining.may_follow(unanswered, now)
    {
        return None;
    }
    let places = pool.gauges.in_flight_limit().saturating_sub(pool.gauges.in_flight());
    let mut held = pool.queue.pop_behind(&Live::of(request), places, |job| {
        let is_fresh = now.since(job.queued_at) <= config.queue_age;
        is_fresh && job.part.is_none() && only_reads(&job.request)
    })?;
    match pool.admit(&mut held, now) {
        Ok(()) => Some(held),
        Err(reason) => {
            held.drop_for(reason);
            None
        }
    }
}

/// Whether a request has no body and asks for nothing to be changed (RFC 9110 section 9.2.1).
fn only_reads(request: &Request) -> bool {
    request.raw.len() == request.head_len
        && (request.raw.starts_with(b"GET ") || request.raw.starts_with(b"HEAD "))
}

/// How long none is risked after some were lost.
const PAUSE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::ZERO;

    #[test]
    fn one_copy_tries_it_out_and_then_as_many_may_follow_as_are_allowed() {
        let pipelining = Pipelining::new(3);
        let may = |unanswered| pipelining.may_follow(unanswered, NOW);
        assert!(may(1) && !may(2), "one");
        pipelining.joined();
        assert!(!may(1), "one at a time");
        pipelining.left();
        pipelining.ended(true, NOW);
        pipelining.joined();
        assert!(may(1) && may(2) && !may(3));
    }

    #[test]
    fn where_copies_were_lost_none_is_risked_for_a_time() {
        let pipelining = Pipelining::new(8);
        let may = |now| pipelining.may_follow(1, now);
        pipelining.ended(true, NOW);
        pipelining.ended(false, NOW);
        pipelining.ended(true, NOW);
        let until = NOW.after(PAUSE);
        assert!(!may(NOW) && may(until));
        pipelining.joined();
        assert!(!may(until), "it has to prove it again");
    }

    #[test]
    fn depth_of_one_lets_none_follow() {
        assert!(!Pipelining::new(1).may_follow(1, NOW));
    }
}
