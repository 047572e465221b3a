//! Enters: that something failed, or worked. Leaves: how long to wait until it is tried again.

use std::time::Duration;

use crate::io::random::random;

/// After a first failure: what was only interrupted goes on at once.
const SHORTEST: Duration = Duration::from_millis(100);

/// Thousands of agents may ask the same server, which has to come up again: longer would spare it more, and make a pod
/// that came meanwhile wait for as long.
const LONGEST: Duration = Duration::from_secs(20);

/// A watch that lasted for so long after it was granted has worked, though nothing was said and however it ended.
const LONG_ENOUGH: Duration = Duration::from_secs(5);

/// Waits that become longer, each a part of what it may be at most, so that agents do not come all at once.
#[derive(Debug)]
pub(super) struct Wait(Duration);

impl Wait {
    pub(super) const fn new() -> Self {
        Self(SHORTEST)
    }

    /// It worked.
    pub(super) const fn reset(&mut self) {
        self.0 = SHORTEST;
    }

    /// What was tried lasted for so long; whether it has worked by that.
    pub(super) fn lasted(&mut self, time: Duration) -> bool {
        let has_worked = time >= LONG_ENOUGH;
        if has_worked {
            self.reset();
        }
        has_worked
    }

    /// It failed: how long to wait now.
    pub(super) fn next(&mut self) -> Duration {
        let longest = self.0;
        self.0 = (longest * 2).min(LONGEST);
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
        let mut wait = Wait::new();
        let waits: Vec<_> = (0..20).map(|_| wait.next()).collect();
        assert!((SHORTEST / 2..=SHORTEST).contains(&waits[0]), "{waits:?}");
        assert!(waits[10..].iter().all(|wait| (LONGEST / 2..=LONGEST).contains(wait)), "{waits:?}");
        wait.reset();
        assert!(wait.next() <= SHORTEST);
    }

    #[test]
    fn waits_begin_again_after_what_lasted_and_go_on_growing_after_what_did_not() {
        let mut wait = Wait::new();
        for _ in 0..20 {
            assert!(!wait.lasted(LONG_ENOUGH / 2));
            wait.next();
        }
        assert!(wait.next() > SHORTEST);
        assert!(wait.lasted(LONG_ENOUGH));
        assert!(wait.next() <= SHORTEST);
    }
}
