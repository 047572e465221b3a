//! Enters: the times of segments, right or wrong, and those of a clock. Leaves: one time that only moves forward.

use std::time::Duration;

use crate::pipeline::time::Timestamp;

/// The time of a flow table.
///
/// Live, a clock tells it and segments follow closely. In a capture file there are only the times of segments, some of
/// them wrong: each moves the time by [`MAX_STEP`] at most, so that one from the far future neither makes all flows
/// idle nor stops the time until then.
#[derive(Debug, Default)]
pub(super) struct Clock {
    now: Option<Timestamp>,
    /// The time from which the next step is measured.
    latest: Timestamp,
    /// The time before the last pause between two segments that was a long one, and how long that was by their own times.
    pause: (Timestamp, Duration),
}

/// Longest step that the time of one segment brings about. Short against what is waited for, so that one wrong time
/// ends no waiting; after a pause in a capture, a few segments make up for it.
const MAX_STEP: Duration = Duration::from_millis(500);

/// Pauses between two segments that are remembered: as long as a flow is idle before it is forgotten elsewhere.
const LONG_PAUSE: Duration = Duration::from_secs(300);

/// Segments may be this much older than the latest one, as in captures of several queues. If one is older still, the
/// latest one was wrong, or the clock was set back.
const MAX_DISORDER: Duration = Duration::from_secs(60);

impl Clock {
    /// The time; [`Timestamp::ZERO`] before there is any.
    pub(super) const fn now(&self) -> Timestamp {
        match self.now {
            Some(now) => now,
            None => Timestamp::ZERO,
        }
    }

    /// How long the last long pause between two segments was by their own times, where it came after `time`.
    pub(super) fn pause_since(&self, time: Timestamp) -> Duration {
        let (before, length) = self.pause;
        if time <= before { length } else { Duration::ZERO }
    }

    /// Takes the time of a clock that is right.
    pub(super) fn set(&mut self, time: Timestamp) {
        if self.now.is_none_or(|now| now < time) {
            self.now = Some(time);
            self.latest = time;
        }
    }

    /// Takes the time of a segment.
    pub(super) fn note_segment(&mut self, at: Timestamp) {
        let Some(now) = self.now else {
            self.now = Some(at);
            self.latest = at;
            return;
        };
        if at > self.latest {
            let step = at.since(self.latest);
            if step >= LONG_PAUSE {
                self.pause = (now, step);
            }
            self.now = Some(now.after(step.min(MAX_STEP)));
            self.latest = at;
        } else if self.latest.since(at) > MAX_DISORDER {
            self.latest = at;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_that_are_right_move_the_time_with_them() {
        let mut clock = Clock::default();
        assert_eq!(clock.now(), Timestamp::ZERO);
        for millis in [1_000, 1_200, 1_100, 1_600] {
            clock.note_segment(at(millis));
        }
        assert_eq!(clock.now(), at(1_600));
        clock.set(at(90_000));
        clock.note_segment(at(90_100));
        clock.set(at(50));
        assert_eq!(clock.now(), at(90_100));
    }

    #[test]
    fn wrong_time_moves_it_by_one_step_and_does_not_stop_it() {
        let mut clock = Clock::default();
        clock.note_segment(at(1_000));
        clock.note_segment(Timestamp::from_nanos(u64::MAX));
        assert_eq!(clock.now(), at(1_500));
        clock.note_segment(at(1_100));
        assert_eq!(clock.now(), at(1_500), "never back");
        for millis in 1_101..=1_300 {
            clock.note_segment(at(millis));
        }
        assert_eq!(clock.now(), at(1_700));
    }

    #[test]
    fn long_pause_is_known_of_what_was_before_it() {
        let mut clock = Clock::default();
        for millis in [1_000, 1_200, 400_000] {
            clock.note_segment(at(millis));
        }
        assert_eq!(clock.now(), at(1_700));
        assert_eq!(clock.pause_since(at(1_200)), Duration::from_millis(398_800));
        assert_eq!(clock.pause_since(clock.now()), Duration::ZERO);
    }

    #[test]
    fn first_time_may_be_the_wrong_one() {
        let mut clock = Clock::default();
        clock.note_segment(at(1_000_000_000));
        for millis in 1_000..=1_010 {
            clock.note_segment(at(millis));
            clock.set(clock.now());
        }
        assert_eq!(clock.now(), at(1_000_000_010));
    }

    fn at(millis: u64) -> Timestamp {
        Timestamp::ZERO.after(Duration::from_millis(millis))
    }
}
