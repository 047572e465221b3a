//! Enters: how opening connections went. Leaves: whether another one may be opened at this moment.

use std::time::Duration;

use crate::pipeline::Timestamp;

/// Whether a connection to the target may be opened.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Permission {
    /// Yes: the caller opens one and says how it went.
    Open,
    /// Not yet: the first one is on its way and tells whether the target is there.
    Wait,
    /// No: the target cannot be reached, and it is too early to try again.
    Refuse,
}

/// What is known of a target's being there. A dead one costs one attempt per back-off and nothing per request.
#[derive(Debug)]
pub(super) enum Health {
    /// Nothing yet.
    Unknown { is_probing: bool },
    /// The last connection could be opened.
    Up,
    /// The last connections could not be opened.
    Down { failures: u32, until: Timestamp, is_probing: bool },
}

impl Health {
    /// Whether a connection may be opened. After [`Permission::Open`] one of the other methods has to be called.
    pub(super) fn ask(&mut self, now: Timestamp) -> Permission {
        match self {
            Self::Up => Permission::Open,
            Self::Unknown { is_probing: true } => Permission::Wait,
            Self::Down { until, is_probing, .. } if *is_probing || now < *until => Permission::Refuse,
            Self::Unknown { is_probing } | Self::Down { is_probing, .. } => {
                *is_probing = true;
                Permission::Open
            }
        }
    }

    /// A connection was opened.
    pub(super) fn opened(&mut self) {
        *self = Self::Up;
    }

    /// A connection could not be opened.
    pub(super) fn failed(&mut self, now: Timestamp) {
        let failures = match self {
            Self::Unknown { .. } | Self::Up => 0,
            // Attempts that began before the back-off did are part of the same failure.
            Self::Down { until, is_probing: false, .. } if now < *until => return,
            Self::Down { failures, .. } => failures.saturating_add(1),
        };
        *self = Self::Down { failures, until: now.after(back_off(failures, now)), is_probing: false };
    }

    /// The attempt was given up without an answer.
    pub(super) fn abandoned(&mut self) {
        match self {
            Self::Up => {}
            Self::Unknown { is_probing } | Self::Down { is_probing, .. } => *is_probing = false,
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
        let mut health = Health::Unknown { is_probing: false };
        let now = Timestamp::ZERO;
        assert_eq!([health.ask(now), health.ask(now)], [Permission::Open, Permission::Wait]);
        health.opened();
        assert_eq!([health.ask(now), health.ask(now)], [Permission::Open, Permission::Open]);
    }

    #[test]
    fn dead_target_is_tried_once_per_back_off_which_doubles_to_a_limit() {
        let mut health = Health::Up;
        let mut now = Timestamp::ZERO;
        for millis in [100, 200, 400, 800, 1600, 2000, 2000] {
            assert_eq!(health.ask(now), Permission::Open);
            health.failed(now);
            health.failed(now);
            let early = now.after(Duration::from_millis(millis) * 3 / 4 - Duration::from_nanos(1));
            assert_eq!(health.ask(early), Permission::Refuse, "{millis}");
            now = now.after(Duration::from_millis(millis));
        }
        assert_eq!([health.ask(now), health.ask(now)], [Permission::Open, Permission::Refuse]);
        health.abandoned();
        assert_eq!(health.ask(now), Permission::Open);
        health.opened();
        assert_eq!(health.ask(now), Permission::Open);
    }
}
