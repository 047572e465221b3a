//! Enters: that something failed, or worked. Leaves: how long to wait until it is tried again.

use std::time::Duration;

use crate::io::random::random;

/// After a first failure: what was only interrupted goes on at once.
const SHORTEST: Duration = Duration::from_millis(100);

/// Thousands of agents may ask the same server, which has to come up again: longer would spare it more, and make a pod
/// that came meanwhile wait for as long.
const LONGEST: Duration = Duration::from_secs(20);

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
}
