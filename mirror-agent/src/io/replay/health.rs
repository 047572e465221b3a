//! Enters: how opening connections went. Leaves: whether another one may be opened at this moment.

use std::time::Duration;

use super::openings::Openings;
use crate::pipeline::Timestamp;

/// Whether a connection to the target may be opened.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Permission {
    /// Yes: the caller opens one and says how it went.
    Open,
    /// Not yet: the first one is on its way and tells whether the target is there.
    Wait,
    /// Not yet: enough were opened of late.
    Later,
    /// No: the target cannot be reached, and it is too early to try again.
    Refuse,
}

/// What is known of a target's being there. A dead one costs one attempt per back-off and nothing per request.
#[derive(Debug, Default)]
pub(super) struct Health {
    state: State,
    openings: Openings,
}

#[derive(Debug)]
enum State {
    /// Nothing yet.
    Unknown { is_probing: bool },
    /// The last connection could be opened.
    Up,
    /// The last connections could not be opened.
    Down { failures: u32, until: Timestamp, is_probing: bool },
}

impl Default for State {
    fn default() -> Self {
        Self::Unknown { is_probing: false }
    }
}

impl Health {
    /// Whether a connection may be opened beside `open` others, which are open or on their way. After [`Permission::Open`] one
    /// of the other methods has to be called.
    pub(super) fn ask(&mut self, open: usize, now: Timestamp) -> Permission {
        match &mut self.state {
            State::Up if self.openings.allow(open, now) => Permission::Open,
            State::Up => Permission::Later,
            State::Unknown { is_probing: true } => Permission::Wait,
            State::Down { until, is_probing, .. } if *is_probing || now < *until => Permission::Refuse,
            State::Unknown { is_probing } | State::Down { is_probing, .. } => {
                *is_probing = true;
                Permission::Open
            }
        }
    }

    /// A connection was opened.
    pub(super) fn opened(&mut self) {
        self.state = State::Up;
    }

    /// A connection could not be opened.
    pub(super) fn failed(&mut self, now: Timestamp) {
        let failures = match &self.state {
            State::Unknown { .. } | State::Up => 0,
            // Attempts that began before the back-off did are part of the same failure.
            State::Down { until, is_probing: false, .. } if now < *until => return,
            State::Down { failures, .. } => failures.saturating_add(1),
        };
        self.state = State::Down { failures, until: now.after(back_off(failures, now)), is_probing: false };
    }

    /// The attempt was given up without an answer.
    pub(super) fn abandoned(&mut self) {
        match &mut self.state {
            State::Up => {}
            State::Unknown { is_probing } | State::Down { is_probing, .. } => *is_probing = false,
        }
    }
}

/// Doubles with each failure and is shortened by up to a quarter, so that many agents do not knock in step.
fn back_off(failures: u32, now: Timestamp) -> Duration {
    let full = FIRST_BACK_OFF.saturating_mul(1 << failures.min(16)).min(LONGEST_BACK_OFF);
    // The low bits of the clock differ between agents as well as a random number would.
    let jitter = u32::try_from(now.as_nanos() % 1024).unwrap_or(0);
    full - full / 4 * jitter / 1024
}

const FIRST_BACK_OFF: Duration = Duration::from_millis(100);
const LONGEST_BACK_OFF: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_connection_is_awaited_before_others_are_opened() {
        let mut health = Health::default();
        let now = Timestamp::ZERO;
        assert_eq!([health.ask(0, now), health.ask(1, now)], [Permission::Open, Permission::Wait]);
        health.opened();
        assert_eq!([health.ask(0, now), health.ask(1, now)], [Permission::Open, Permission::Open]);
        assert_eq!(health.ask(100, now), Permission::Later, "enough were opened");
    }

    #[test]
    fn dead_target_is_tried_once_per_back_off_which_doubles_to_a_limit() {
        let mut health = Health { state: State::Up, ..Health::default() };
        let mut now = Timestamp::ZERO;
        for millis in [100, 200, 400, 800, 1600, 2000, 2000] {
            assert_eq!(health.ask(0, now), Permission::Open);
            health.failed(now);
            health.failed(now);
            let early = now.after(Duration::from_millis(millis) * 3 / 4 - Duration::from_nanos(1));
            assert_eq!(health.ask(0, early), Permission::Refuse, "{millis}");
            now = now.after(Duration::from_millis(millis));
        }
        assert_eq!([health.ask(0, now), health.ask(0, now)], [Permission::Open, Permission::Refuse]);
        health.abandoned();
        assert_eq!(health.ask(0, now), Permission::Open);
        health.opened();
        assert_eq!(health.ask(0, now), Permission::Open);
    }
}
