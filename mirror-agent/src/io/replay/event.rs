//! Enters: what changes about a target. Leaves: the same, for whoever keeps a record of it.

use std::fmt;

use super::breaker::BreakerState;
use crate::io::ledger::CopyBooks;

/// What changed about a target.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// Its circuit breaker.
    Breaker {
        /// Where it stood.
        from: BreakerState,
        /// Where it stands.
        to: BreakerState,
    },
    /// Whether it proves that it is a shadow.
    Interlock {
        /// Whether it does.
        is_open: bool,
    },
    /// One of its addresses leads back to the live service, and is not used.
    Refused,
}

/// Who is told of events.
pub trait Observer: fmt::Debug + Send + Sync {
    /// Takes an event of the target that has these books. It is told in the midst of sending: it must not wait.
    fn handle_event(&self, target: &CopyBooks, event: Event);
}
