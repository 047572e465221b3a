//! Enters: wishes for one more copy under way, and how many were answered. Leaves: whether there may be one more.

use std::time::Duration;

use crate::pipeline::Timestamp;

/// How many copies may be under way to a target at once: no more than make it answer more of them in a second.
///
/// A target whose processors are busy does not get faster by more copies at once. They cost it time, and the agent where both share
/// a machine, so that it gets slower. Response times do not tell it from one of which some requests take long; so the limit
/// is found by trials: twice as many, or half, which is kept if the answers say so. It is felt only where copies wait.
///
/// Where too few are answered to be counted, what is under way hangs or takes its time, and the limit is raised at once.
#[derive(Debug)]
pub(super) struct Concurrency {
    /// What is configured.
    most: usize,
    limit: usize,
    step: Step,
    window: Option<Window>,
    /// Before then a window would still see the limit before this one.
    settled: Timestamp,
}

/// A time through which as many as may be were under way, and others waited.
#[derive(Clone, Copy, Debug)]
struct Window {
    begun: Timestamp,
    /// Answers before.
    answers: u64,
}

/// What the next window is for.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// To know the rate at the limit, which was `rate`. From `until` on another one is tried.
    Hold { rate: f64, until: Timestamp, next: Direction, failures: u32 },
    /// To know the rate at another limit than `from`, at which it was `rate`. It means nothing after `until`.
    Try { from: usize, rate: f64, until: Timestamp, to: Direction, failures: u32 },
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Direction {
    Up,
    Down,
}

impl Direction {
    const fn other(self) -> Self {
        match self {
            Self::Up => Self::Down,
            Self::Down => Self::Up,
        }
    }

    /// The part of the rate before that a trial has to reach to be kept.
    const fn kept_from(self) -> f64 {
        match self {
            Self::Up => 1.125,
            Self::Down => 0.9375,
        }
    }
}

impl Concurrency {
    /// `most` may be under way in any case.
    pub(super) fn new(most: usize) -> Self {
        let step = first_step();
        Self { most, limit: FIRST.min(most), step, window: None, settled: Timestamp::ZERO }
    }

    /// As many may be under way.
    pub(super) const fn limit(&self) -> usize {
        self.limit
    }

    /// Whether there may be one more beside `under_way` others. `answers` came up to now.
    pub(super) fn allows(&mut self, under_way: usize, answers: u64, now: Timestamp) -> bool {
        if under_way >= self.limit {
            self.saturated(answers, now);
        } else if self.limit - under_way > 1 + self.limit / SLACK {
            // Copies did not wait for the limit all the time.
            self.window = None;
        }
        under_way < self.limit
    }

    fn saturated(&mut self, answers: u64, now: Timestamp) {
        let Some(window) = self.window else {
            if now >= self.settled {
                self.window = Some(Window { begun: now, answers });
                if matches!(self.step, Step::Try { until, .. } if until < now) {
                    self.step = first_step();
                }
            }
            return;
        };
        let lasted = now.since(window.begun);
        if lasted < GLANCE {
            return;
        }
        let rate = rate(answers.saturating_sub(window.answers), lasted);
        if rate < COUNTABLE {
            self.step = first_step();
            self.set(self.limit.saturating_mul(2), now);
            // There is no rate that would have to settle.
            self.settled = now;
        } else if lasted >= WINDOW {
            self.window = None;
            self.measured(rate, now);
        }
    }

    /// Copies waited through a window, and so many were answered in a second.
    fn measured(&mut self, rate: f64, now: Timestamp) {
        match self.step {
            Step::Hold { rate: before, next, .. } if rate < before * FALLEN => {
                // The target is not what it was.
                self.step = Step::Hold { rate, until: now, next, failures: 0 };
                self.try_out(Direction::Up, rate, 0, now);
            }
            Step::Hold { until, next, failures, .. } if until <= now => {
                self.try_out(next, rate, failures, now);
            }
            Step::Hold { until, next, failures, .. } => {
                self.step = Step::Hold { rate, until, next, failures };
            }
            Step::Try { rate: before, to, .. } if rate >= before * to.kept_from() => {
                self.try_out(to, rate, 0, now);
            }
            Step::Try { from, rate, to, failures, .. } => {
                self.set(from, now);
                let until = now.after(PAUSE * 2_u32.pow(failures.min(LONGEST_PAUSE)));
                self.step =
                    Step::Hold { rate, until, next: to.other(), failures: failures.saturating_add(1) };
            }
        }
    }

    /// Goes on to another limit, if there is one to that side.
    fn try_out(&mut self, to: Direction, rate: f64, failures: u32, now: Timestamp) {
        let from = self.limit;
        self.set(
            match to {
                Direction::Up => from.saturating_mul(2),
                Direction::Down => from / 2,
            },
            now,
        );
        self.step = if self.limit == from {
            Step::Hold { rate, until: now, next: to.other(), failures }
        } else {
            Step::Try { from, rate, until: now.after(FORGOTTEN), to, failures }
        };
    }

    fn set(&mut self, limit: usize, now: Timestamp) {
        self.limit = limit.max(FIRST).min(self.most);
        self.window = None;
        self.settled = now.after(SETTLING);
    }
}

const fn first_step() -> Step {
    Step::Hold { rate: 0.0, until: Timestamp::ZERO, next: Direction::Up, failures: 0 }
}

/// Answers a second.
fn rate(answers: u64, lasted: Duration) -> f64 {
    f64::from(u32::try_from(answers).unwrap_or(u32::MAX)) / lasted.as_secs_f64()
}

/// As many may be under way at first, and in any case: enough for a processor or a few, and for a burst.
const FIRST: usize = 16;

/// Through how long the answers are counted.
const WINDOW: Duration = Duration::from_millis(40);

/// After how long it shows that there are hardly any.
const GLANCE: Duration = Duration::from_millis(10);

/// Fewer answers a second are too few to compare: 16 in the shorter of these times, 64 in the longer one.
const COUNTABLE: f64 = 1600.0;

/// How long it takes until answers are those at another limit.
const SETTLING: Duration = Duration::from_millis(5);

/// This fraction of the limit may be free for a moment while copies wait.
const SLACK: usize = 8;

/// A rate below this part of the last one is another.
const FALLEN: f64 = 0.875;

/// After a trial that did not succeed; twice as long after each further one, as often as this.
const PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: u32 = 4;

/// For how long a rate may be compared with.
const FORGOTTEN: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use super::*;

    /// A target by how many copies it answers in a millisecond of so many under way.
    struct Simulation {
        concurrency: Concurrency,
        answered_of: fn(f64) -> f64,
        now: Timestamp,
        answers: u64,
        /// Parts of an answer.
        rest: f64,
    }

    impl Simulation {
        fn new(answered_of: fn(f64) -> f64) -> Self {
            let now = Timestamp::from_nanos(10_000_000_000);
            Self { concurrency: Concurrency::new(256), answered_of, now, answers: 0, rest: 0.0 }
        }

        /// Lets copies wait for so long; returns the limit after each millisecond.
        fn run(&mut self, millis: u32) -> Vec<usize> {
            (0..millis)
                .map(|_| {
                    self.now = self.now.after(Duration::from_millis(1));
                    let limit = self.concurrency.limit();
                    self.rest += (self.answered_of)(f64::from(u32::try_from(limit).unwrap()));
                    while self.rest >= 1.0 {
                        self.rest -= 1.0;
                        self.answers += 1;
                        assert!(self.concurrency.allows(limit - 1, self.answers, self.now));
                    }
                    self.concurrency.allows(limit, self.answers, self.now);
                    self.concurrency.limit()
                })
                .collect()
        }

        /// How much of the last `millis` was spent at each limit of at least `least`.
        fn share_of(&mut self, millis: u32, least: usize) -> f64 {
            let limits = self.run(millis);
            let there = limits.iter().filter(|limit| **limit >= least).count();
            f64::from(u32::try_from(there).unwrap()) / f64::from(millis)
        }
    }

    #[test]
    fn target_at_the_end_of_its_processor_gets_few_at_once() {
        let mut busy = Simulation::new(|_| 20.0);
        let limits = busy.run(10_000);
        assert!(limits.iter().all(|limit| *limit <= 32));
        assert!(busy.share_of(10_000, 32) < 0.02, "trials cost next to nothing");
    }

    #[test]
    fn target_that_is_only_far_away_gets_as_many_as_it_needs() {
        // 20 ms each.
        let mut far = Simulation::new(|under_way| under_way / 20.0);
        let limits = far.run(1000);
        let at = limits.iter().position(|limit| *limit == 256).unwrap();
        assert!(at < 250, "after {at} ms");
        far.run(5000);
        assert!(far.share_of(20_000, 256) > 0.98);
    }

    #[test]
    fn limit_rests_where_the_processors_are_used() {
        // 48 processors, 2 ms each.
        let mut wide = Simulation::new(|under_way| under_way.min(48.0) / 2.0);
        wide.run(2000);
        assert!(wide.share_of(10_000, 64) > 0.95);
        assert!(wide.share_of(10_000, 128) < 0.03);
    }

    #[test]
    fn slow_and_hanging_targets_are_given_all_at_once() {
        let slow: [fn(f64) -> f64; 3] = [|_| 0.0, |_| 0.3, |_| 1.0];
        for answered_of in slow {
            let limits = Simulation::new(answered_of).run(100);
            let at = limits.iter().position(|limit| *limit == 256).unwrap();
            assert!(at < 70, "after {at} ms");
        }
    }

    #[test]
    fn after_a_stall_it_comes_down_again_by_halves() {
        let mut busy = Simulation::new(|_| 20.0);
        busy.run(500);
        busy.now = busy.now.after(Duration::from_millis(100));
        let mut stalled = Simulation { answered_of: |_| 0.0, ..busy };
        assert_eq!(stalled.run(200).last(), Some(&256));
        let mut busy = Simulation { answered_of: |_| 20.0, ..stalled };
        let limits = busy.run(500);
        assert_eq!(limits.last(), Some(&16));
        assert!([128, 64, 32].iter().all(|limit| limits.contains(limit)));
    }

    #[test]
    fn target_that_grows_slower_is_noticed_within_a_window() {
        let mut busy = Simulation::new(|_| 20.0);
        busy.run(8000);
        // The pause after as many trials is 4 s.
        let mut far = Simulation { answered_of: |under_way| under_way / 8.0, ..busy };
        let limits = far.run(400);
        assert_eq!(limits.last(), Some(&256));
    }

    #[test]
    fn nothing_is_tried_while_no_copy_waits() {
        let mut concurrency = Concurrency::new(256);
        for millis in 0..1000 {
            let now = Timestamp::ZERO.after(Duration::from_millis(millis));
            // It is reached again and again, but not all the time.
            for under_way in [3, 15, 16] {
                assert_eq!(concurrency.allows(under_way, millis * 20, now), under_way < 16);
            }
        }
    }

    #[test]
    fn what_is_configured_is_never_exceeded() {
        for most in [1, 7, 16, 20, 33] {
            let mut concurrency = Concurrency::new(most);
            for millis in 0..5000 {
                let now = Timestamp::ZERO.after(Duration::from_millis(millis));
                let limit = concurrency.limit();
                assert!((FIRST.min(most)..=most).contains(&limit));
                let is_allowed = concurrency.allows(limit, millis / 1000 * millis * 5, now);
                assert_eq!(is_allowed, limit < concurrency.limit());
            }
        }
    }
}
