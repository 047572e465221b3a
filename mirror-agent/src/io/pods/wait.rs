//! Enters: that something failed, or worked. Leaves: how long to wait until it is tried again.

use std::time::Duration;

use super::WatchFailure;
use crate::io::random::random;

/// After a first failure: what was only interrupted goes on at once.
const SHORTEST: Duration = Duration::from_millis(100);

/// Thousands of agents may ask the same server, which fails and is asked in vain: longer would spare it more, and make a
/// pod that came meanwhile wait for as long.
const LONGEST: Duration = Duration::from_secs(20);

/// The same for a server that is not there. To be asked costs it nothing then, and what it costs when it is there again, one
/// connection and one list of each agent, is spread over half of this.
const LONGEST_AWAY: Duration = Duration::from_secs(5);

/// A watch that lasted for so long after it was granted has worked, though nothing was said and however it ended.
const LONG_ENOUGH: Duration = Duration::from_secs(5);

/// How long to wait, by what failed. A server that was away and is there again is not waited for any longer, even if the
/// first that it says is that it does not know any more what changed; one that answers and fails is, though lists work.
#[derive(Debug)]
pub(super) struct Waits {
    /// For a server that does not answer.
    away: Wait,
    /// For one that does, and not as it should.
    failing: Wait,
}

impl Waits {
    pub(super) const fn new() -> Self {
        Self { away: Wait::new(LONGEST_AWAY), failing: Wait::new(LONGEST) }
    }

    /// The server has answered.
    pub(super) const fn answered(&mut self) {
        self.away.reset();
    }

    /// It has told of changes.
    pub(super) const fn worked(&mut self) {
        self.answered();
        self.failing.reset();
    }

    /// A watch lasted for so long; whether it has worked by that.
    pub(super) fn lasted(&mut self, time: Duration) -> bool {
        let has_worked = time >= LONG_ENOUGH;
        if has_worked {
            self.worked();
        }
        has_worked
    }

    /// Something failed: how long to wait now.
    pub(super) fn after(&mut self, failure: WatchFailure) -> Duration {
        match failure {
            WatchFailure::Timeout | WatchFailure::Unreachable => self.away.next(),
            WatchFailure::Cut
            | WatchFailure::Expired
            | WatchFailure::Forbidden
            | WatchFailure::Malformed
            | WatchFailure::Server => {
                self.answered();
                self.failing.next()
            }
        }
    }

    /// A watch was over too soon to have worked: how long to wait now.
    pub(super) fn after_short_watch(&mut self) -> Duration {
        self.failing.next()
    }
}

/// Waits that become longer, each a part of what it may be at most, so that agents do not come all at once.
#[derive(Debug)]
struct Wait {
    next: Duration,
    longest: Duration,
}

impl Wait {
    const fn new(longest: Duration) -> Self {
        Self { next: SHORTEST, longest }
    }

    const fn reset(&mut self) {
        self.next = SHORTEST;
    }

    fn next(&mut self) -> Duration {
        let longest = self.next;
        self.next = (longest * 2).min(self.longest);
        // Half of it at least.
        let part = u32::try_from(random() % 512).unwrap_or(0);
        longest / 2 + longest / 1024 * part
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_their_bound_and_begin_again() {
        for longest in [LONGEST, LONGEST_AWAY] {
            let mut wait = Wait::new(longest);
            let waits: Vec<_> = (0..20).map(|_| wait.next()).collect();
            assert!((SHORTEST / 2..=SHORTEST).contains(&waits[0]), "{waits:?}");
            assert!(waits[10..].iter().all(|wait| (longest / 2..=longest).contains(wait)), "{waits:?}");
            wait.reset();
            assert!(wait.next() <= SHORTEST);
        }
    }

    #[test]
    fn waits_begin_again_after_what_lasted_and_go_on_growing_after_what_did_not() {
        let mut waits = Waits::new();
        for _ in 0..20 {
            assert!(!waits.lasted(LONG_ENOUGH / 2));
            waits.after_short_watch();
        }
        assert!(waits.after_short_watch() > SHORTEST);
        assert!(waits.lasted(LONG_ENOUGH));
        assert!(waits.after_short_watch() <= SHORTEST);
    }

    /// The server is away for long.
    fn away(waits: &mut Waits) {
        for _ in 0..20 {
            waits.after(WatchFailure::Unreachable);
        }
    }

    #[test]
    fn server_that_is_there_again_is_not_waited_for() {
        for first in [WatchFailure::Expired, WatchFailure::Server, WatchFailure::Cut] {
            let mut waits = Waits::new();
            away(&mut waits);
            assert!(waits.after(WatchFailure::Timeout) <= LONGEST_AWAY);
            assert!(waits.after(first) <= SHORTEST, "{first:?}");
            assert!(waits.after(WatchFailure::Unreachable) <= SHORTEST, "{first:?}");
        }
        let mut waits = Waits::new();
        away(&mut waits);
        waits.answered();
        assert!(waits.after(WatchFailure::Unreachable) <= SHORTEST);
    }

    #[test]
    fn server_whose_lists_work_and_whose_watches_do_not_is_spared() {
        let mut waits = Waits::new();
        for _ in 0..20 {
            waits.answered();
            waits.after(WatchFailure::Expired);
        }
        assert!(waits.after(WatchFailure::Expired) >= LONGEST / 2);
    }
}
