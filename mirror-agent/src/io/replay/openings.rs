//! Enters: wishes for one more connection. Leaves: whether it may be opened now.

use std::time::Duration;

use crate::pipeline::Timestamp;

/// How many connections there may be: a few at once, one more each [`STEP`], and as many as there were of late.
///
/// To open a connection costs agent and shadow more than to send a copy. Where a load begins at once, or a shadow has stalled,
/// copies wait that the connections there are will soon take. Were one opened for each of them, the processors would be kept
/// from those that are open, more copies would wait, and more connections be opened, up to the limit.
#[derive(Debug)]
pub(super) struct Openings {
    most: usize,
    asked: Timestamp,
    grown: Timestamp,
}

impl Default for Openings {
    fn default() -> Self {
        Self { most: AT_ONCE, asked: Timestamp::ZERO, grown: Timestamp::ZERO }
    }
}

impl Openings {
    /// Whether one may be opened beside `open` others, which are open or on their way.
    pub(super) fn allow(&mut self, open: usize, now: Timestamp) -> bool {
        if now.since(self.asked) > QUIET {
            self.most = open.max(AT_ONCE);
            self.grown = now;
        }
        self.asked = now;
        if open >= self.most {
            let steps =
                usize::try_from(now.since(self.grown).as_nanos() / STEP.as_nanos()).unwrap_or(usize::MAX);
            if steps > 0 {
                self.most = open.saturating_add(steps.min(AT_ONCE));
                self.grown = now;
            }
        }
        open < self.most
    }
}

/// As many may be opened at once.
const AT_ONCE: usize = 4;

/// After so long there may be one more: 256 within 64 ms.
const STEP: Duration = Duration::from_micros(250);

/// After so long without a wish for another one, how many there were no longer counts.
const QUIET: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    const BEGUN: Timestamp = Timestamp::from_nanos(10_000_000_000);

    /// Opens as many as may be; returns how many there are then.
    fn opened(openings: &mut Openings, open: usize, now: Timestamp) -> usize {
        (open..).find(|open| !openings.allow(*open, now)).unwrap()
    }

    #[test]
    fn a_few_are_opened_at_once_and_then_one_a_step() {
        let mut openings = Openings::default();
        let mut open = opened(&mut openings, 0, BEGUN);
        assert_eq!(open, 4);
        for (millis, expected) in [(0, 4), (1, 8), (2, 12), (3, 16), (103, 20)] {
            open = opened(&mut openings, open, BEGUN.after(Duration::from_millis(millis)));
            assert_eq!(open, expected, "after {millis} ms");
        }
        assert!(!openings.allow(20, BEGUN.after(Duration::from_millis(103) + STEP / 2)));
        assert!(openings.allow(20, BEGUN.after(Duration::from_millis(103) + STEP)));
    }

    #[test]
    fn as_many_as_there_were_may_be_opened_again_at_once() {
        let mut openings = Openings::default();
        let mut open = 0;
        for step in 0..100 {
            open = opened(&mut openings, open, BEGUN.after(STEP * step));
        }
        assert_eq!(open, 103);
        // A shadow that closes each connection after its answer.
        let now = BEGUN.after(STEP * 99);
        assert_eq!(opened(&mut openings, 0, now), 103);
        let later = now.after(QUIET + Duration::from_nanos(1));
        assert_eq!(opened(&mut openings, 0, later), 4, "after a quiet time");
    }
}
