//! Enters: whether copies are late, and when one was queued. Leaves: whether the thread that sends gives way.

use std::time::Duration;

use crate::pipeline::Timestamp;

/// When the thread gives way and when it does not.
#[derive(Debug)]
pub(super) struct Course {
    /// Whether it does.
    pub(super) gives_way: bool,
    /// It never will again.
    pub(super) is_over: bool,
    /// It does, though it should not: the kernel does not let it stop.
    pub(super) is_stuck: bool,
    /// Since when it does, or does not.
    since: Timestamp,
    /// How long it will not, when it next has to stop.
    pub(super) pause: Duration,
    /// Until when it does not.
    until: Timestamp,
    /// Since when copies come without a lull; `None` in one.
    steady_since: Option<Timestamp>,
}

impl Course {
    /// Decides anew.
    pub(super) fn review(&mut self, now: Timestamp, is_late: bool, latest: Timestamp) {
        let is_lull = now.since(latest) > LULL;
        self.steady_since = if is_lull { None } else { self.steady_since.or(Some(now)) };
        if self.gives_way && is_late {
            let was_worth_it = now.since(self.since) >= WORTH;
            self.pause = if was_worth_it { SHORTEST_PAUSE } else { (self.pause * 2).min(LONGEST_PAUSE) };
            self.until = now.after(self.pause);
        }
        let is_steady = self.steady_since.is_some_and(|since| now.since(since) >= STEADY);
        let is_due = is_steady && now >= self.until;
        self.set(!self.is_over && !is_late && !is_lull && (self.gives_way || is_due), now);
    }

    /// Nobody looks.
    pub(super) fn interrupt(&mut self, now: Timestamp) {
        self.steady_since = None;
        self.set(false, now);
    }

    /// It does not give way any more.
    pub(super) fn end(&mut self) {
        (self.gives_way, self.is_over) = (false, true);
    }

    fn set(&mut self, gives_way: bool, now: Timestamp) {
        if gives_way != self.gives_way {
            (self.gives_way, self.since) = (gives_way, now);
        }
    }
}

impl Default for Course {
    fn default() -> Self {
        Self {
            gives_way: false,
            is_over: false,
            is_stuck: false,
            since: Timestamp::ZERO,
            pause: SHORTEST_PAUSE,
            until: Timestamp::ZERO,
            steady_since: None,
        }
    }
}

/// After so long without a copy the thread is an ordinary one: what else it does, and who waits for that, is not looked after by
/// who queues copies.
const LULL: Duration = Duration::from_millis(10);

/// So long copies must have come without a lull.
const STEADY: Duration = Duration::from_millis(20);

/// Having given way for so long, until a copy was late, was worth a copy that was late.
const WORTH: Duration = Duration::from_millis(50);

/// How long the thread is an ordinary one at least, after a copy was late; twice as long each time when giving way was not worth
/// it.
pub(super) const SHORTEST_PAUSE: Duration = Duration::from_millis(2);

/// How long at most: on a node without idle time the copies of one moment a second are late for this.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
