//! Enters: what is open and idle. Leaves: the way of the next job.

use std::sync::{Arc, atomic::Ordering};

use super::{Inner, Left, Pool};
use crate::{
    io::{
        ledger::ReplayOutcome,
        replay::{at_once::Sender, connection::Connection, health::Permission, lanes::Live},
    },
    pipeline::Timestamp,
};

/// How the next job leaves the queue.
pub(super) enum Way {
    Reuse(Arc<Connection>),
    Open,
    Drop,
}

impl Pool {
    /// The way of the next job, whose live connection is `live` where order is kept. Who brings it finds none but over an idle
    /// connection of which nothing has come that its task has not seen, its end say: all else is for the replay.
    pub(super) fn find_way(
        &self,
        sender: Sender,
        inner: &mut Inner,
        live: Option<&Live>,
        now: Timestamp,
    ) -> Result<Way, Left> {
        if !self.may_begin(inner, now) {
            return Err(Left::Waiting);
        }
        match (sender, self.take_idle(inner, live, now)) {
            (Sender::Replay, None) => {}
            (Sender::Bringer, None) => return Err(Left::Jobs),
            (Sender::Bringer, Some(connection)) if !connection.is_silent() => {
                self.keep(inner, connection);
                return Err(Left::Jobs);
            }
            (_, Some(connection)) => return Ok(Way::Reuse(connection)),
        }
        if inner.open >= self.config.in_flight {
            return self.borrow(inner, live, now).map(Way::Reuse).ok_or(Left::Waiting);
        }
        match inner.health.ask(inner.open, now) {
            Permission::Open => Ok(Way::Open),
            Permission::Wait => Err(Left::Waiting),
            Permission::Later => Err(Left::Paced),
            // With connections open the target is not dead, perhaps full: one of them is free, or will be.
            Permission::Refuse if inner.established > 0 => {
                self.borrow(inner, live, now).map(Way::Reuse).ok_or(Left::Waiting)
            }
            Permission::Refuse => Ok(Way::Drop),
        }
    }

    /// Whether one more job may be under way.
    fn may_begin(&self, inner: &mut Inner, now: Timestamp) -> bool {
        if inner.is_stopped {
            return false;
        }
        let (under_way, answers) =
            (inner.open.saturating_sub(inner.idle.len()), self.books.replays(ReplayOutcome::Answered));
        let is_allowed = inner.concurrency.allows(under_way, answers, now);
        self.gauges.limit.store(inner.concurrency.limit(), Ordering::Relaxed);
        is_allowed
    }

    /// An idle connection that may be used; those that may not any more are closed.
    fn take_idle(&self, inner: &mut Inner, live: Option<&Live>, now: Timestamp) -> Option<Arc<Connection>> {
        loop {
            let connection = inner.idle.take(live)?;
            self.gauges.idle.store(inner.idle.len(), Ordering::Relaxed);
            if !connection.is_outdated(live, now) {
                return Some(connection);
            }
            connection.retire();
        }
    }

    /// Where each lane has a connection of its own and there can be no more: that of another lane, the one that has rested for
    /// longest. To close it and open one anew would cost more than the copy, for each copy, and a port for a minute.
    fn borrow(&self, inner: &mut Inner, live: Option<&Live>, now: Timestamp) -> Option<Arc<Connection>> {
        let live = live?;
        loop {
            let connection = inner.idle.take_longest()?;
            self.gauges.idle.store(inner.idle.len(), Ordering::Relaxed);
            if !connection.is_old(now) {
                connection.lend(*live);
                return Some(connection);
            }
            connection.retire();
        }
    }
}
