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
    /// When as many were answered, all were that were under way when the limit was set, or as many: what comes then is its rate.
    settled: u64,
    /// When it was asked last.
    asked: Timestamp,
}

/// A time through which as many as may be were under way, and others waited.
#[derive(Clone, Copy, Debug)]
struct Window {
    begun: Timestamp,
    /// Answers before.
    answers: u64,
    /// Whether all that came since is of this limit.
    is_settled: bool,
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
        Self { most, limit: FIRST.min(most), step, window: None, settled: 0, asked: Timestamp::ZERO }
    }

    /// As many may be under way.
    pub(super) const fn limit(&self) -> usize {
        self.limit
    }

    /// Whether there may be one more beside `under_way` others. `answers` came up to now.
    pub(super) fn allows(&mut self, under_way: usize, answers: u64, now: Timestamp) -> bool {
        if now.since(self.asked) > LONGEST_GAP {
            self.window = None;
        }
        self.asked = now;
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
            self.begin(answers, now);
            return;
        };
        let lasted = now.since(window.begun);
        if lasted < GLANCE {
            return;
        }
        let answered = answers.saturating_sub(window.answers);
        let rate = rate(answered, lasted);
        if rate < COUNTABLE {
            self.hardly_any(answers, now);
        } else if window.is_settled && lasted >= WINDOW && answered >= as_answers(self.limit) {
            self.window = None;
            self.measured(rate, answers, now);
        } else if answers >= self.settled && !window.is_settled {
            self.window = Some(Window { begun: now, answers, is_settled: true });
        }
    }

    fn begin(&mut self, answers: u64, now: Timestamp) {
        match self.step {
            Step::Try { from, until, .. } if until < now => {
                // Copies did not wait for so long that the rate before means nothing any more.
                self.step = first_step();
                self.set(from, answers);
            }
            Step::Try { .. } | Step::Hold { .. } => {}
        }
        self.window = Some(Window { begun: now, answers, is_settled: answers >= self.settled });
    }

    /// What is under way hangs or takes its time; or too much of it does for as many as are tried.
    fn hardly_any(&mut self, answers: u64, now: Timestamp) {
        match self.step {
            Step::Try { from, rate, to: Direction::Down, failures, .. } => {
                self.give_up(from, rate, Direction::Down, failures, answers, now);
            }
            // There are no more. What is known of fewer stays known: answers that come all at once are as good as others.
            Step::Try { .. } | Step::Hold { .. } if self.limit == self.most => self.window = None,
            Step::Try { .. } | Step::Hold { .. } => {
                self.step = first_step();
                self.set(self.limit.saturating_mul(2), answers);
                // There is no rate that would have to settle.
                self.settled = answers;
            }
        }
    }

    /// Copies waited through a window, and so many were answered in a second.
    fn measured(&mut self, rate: f64, answers: u64, now: Timestamp) {
        match self.step {
            Step::Hold { rate: before, .. } if rate < before * FALLEN && self.limit < self.most => {
                // The target is not what it was, and may need more.
                self.try_out(Direction::Up, rate, 0, answers, now);
            }
            Step::Hold { until, next, failures, .. } if until <= now => {
                self.try_out(next, rate, failures, answers, now);
            }
            Step::Hold { until, next, failures, .. } => {
                self.step = Step::Hold { rate, until, next, failures };
            }
            Step::Try { rate: before, to, .. } if rate >= before * to.kept_from() => {
                // Small losses do not add up: what comes next is held against the best before.
                self.try_out(to, rate.max(before), 0, answers, now);
            }
            Step::Try { from, rate, to, failures, .. } => {
                self.give_up(from, rate, to, failures, answers, now);
            }
        }
    }

    /// Goes on to another limit, if there is one to that side.
    fn try_out(&mut self, to: Direction, rate: f64, failures: u32, answers: u64, now: Timestamp) {
        let from = self.limit;
        let limit = match to {
            Direction::Up => from.saturating_mul(2),
            Direction::Down => from / 2,
        };
        self.set(limit, answers);
        self.step = if self.limit == from {
            Step::Hold { rate, until: now, next: to.other(), failures }
        } else {
            let settles_in = Duration::from_secs_f64(count(from.max(self.limit)) / rate.max(COUNTABLE));
            Step::Try { from, rate, until: now.after(FORGOTTEN + settles_in), to, failures }
        };
    }

    /// Goes back to where a trial began, and waits before the next one.
    fn give_up(
        &mut self,
        from: usize,
        rate: f64,
        to: Direction,
        failures: u32,
        answers: u64,
        now: Timestamp,
    ) {
        self.set(from, answers);
        let until = now.after(PAUSE * 2_u32.pow(failures.min(LONGEST_PAUSE)));
        self.step = Step::Hold { rate, until, next: to.other(), failures: failures.saturating_add(1) };
    }

    fn set(&mut self, limit: usize, answers: u64) {
        let before = self.limit;
        self.limit = limit.max(FIRST).min(self.most);
        self.window = None;
        let under_way = if self.limit == before { 0 } else { before.max(self.limit) };
        self.settled = answers.saturating_add(as_answers(under_way));
    }
}

const fn first_step() -> Step {
    Step::Hold { rate: 0.0, until: Timestamp::ZERO, next: Direction::Up, failures: 0 }
}

/// Answers a second.
fn rate(answers: u64, lasted: Duration) -> f64 {
    count(usize::try_from(answers).unwrap_or(usize::MAX)) / lasted.as_secs_f64()
}

fn as_answers(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

fn count(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

/// As many may be under way at first, and in any case: enough for a processor or a few, and for a burst.
const FIRST: usize = 16;

/// Through how long the answers are counted at least, and until each that is under way may have been answered once: they
/// may come all at once, again and again.
const WINDOW: Duration = Duration::from_millis(40);

/// After how long it shows that there are hardly any.
const GLANCE: Duration = Duration::from_millis(10);

/// Fewer answers a second are too few to compare: 16 in the shorter of these times, 64 in the longer one.
const COUNTABLE: f64 = 1600.0;

/// While copies wait it is looked more often. Where it was not, the agent had no processor, and answers wait to be read.
const LONGEST_GAP: Duration = Duration::from_millis(30);

/// This fraction of the limit may be free for a moment while copies wait.
const SLACK: usize = 8;

/// A rate below this part of the last one is another.
const FALLEN: f64 = 0.875;

/// After a trial that did not succeed; twice as long after each further one, as often as this.
const PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: u32 = 4;

/// For how long a rate may be compared with, once the other one has settled.
const FORGOTTEN: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use std::{cmp::Reverse, collections::BinaryHeap};

    use super::*;

    /// A target that answers no more than one copy each so many nanoseconds, and each after a time of its own.
    #[derive(Clone, Copy)]
    struct Target {
        cost: u64,
        /// By the copy's number, in microseconds.
        takes: Takes,
    }

    type Takes = fn(u64) -> u64;

    /// 20 copies in a millisecond, however many are under way.
    const BUSY: Target = Target { cost: 50_000, takes: |_| 200 };

    /// It answers nothing.
    const HANGING: Target = Target { cost: 0, takes: |_| u64::MAX >> 20 };

    struct Simulation {
        concurrency: Concurrency,
        target: Target,
        now: u64,
        begun: u64,
        answers: u64,
        /// When each that is under way is answered.
        under_way: BinaryHeap<Reverse<u64>>,
        /// When the last one is that has to wait for its turn.
        last: u64,
    }

    impl Simulation {
        fn new(target: Target) -> Self {
            Self::of_most(256, target)
        }

        fn of_most(most: usize, target: Target) -> Self {
            Self {
                concurrency: Concurrency::new(most),
                target,
                now: 10_000_000_000,
                begun: 0,
                answers: 0,
                under_way: BinaryHeap::new(),
                last: 0,
            }
        }

        /// Sends one more, if it may be.
        fn send(&mut self) -> bool {
            let now = Timestamp::from_nanos(self.now);
            if !self.concurrency.allows(self.under_way.len(), self.answers, now) {
                return false;
            }
            let due = self.now.saturating_add((self.target.takes)(self.begun).saturating_mul(1000));
            self.begun += 1;
            // What takes very long waits for something else.
            let due = if self.target.cost == 0 || due > self.now + 500_000_000 {
                due
            } else {
                self.last = due.max(self.last + self.target.cost);
                self.last
            };
            self.under_way.push(Reverse(due));
            true
        }

        /// Lets time pass. Each answer makes room for a copy that waits, if any do.
        fn pass(&mut self, nanos: u64, do_wait: bool) {
            self.now += nanos;
            while self.under_way.peek().is_some_and(|Reverse(due)| *due <= self.now) {
                self.under_way.pop();
                self.answers += 1;
                let _is_sent = do_wait && self.send();
            }
        }

        /// Lets copies wait for so long; returns the limit after each millisecond.
        fn run(&mut self, millis: usize) -> Vec<usize> {
            let step = |simulation: &mut Self| {
                for _ in 0..10 {
                    simulation.pass(100_000, true);
                    // There may be a few connections more.
                    let _are_left = (0..8).any(|_| !simulation.send());
                }
                simulation.concurrency.limit()
            };
            (0..millis).map(|_| step(self)).collect()
        }

        /// The part of a time in which copies waited and the limit was within `limits`.
        fn share(&mut self, millis: usize, limits: std::ops::RangeInclusive<usize>) -> f64 {
            let found = self.run(millis);
            count(found.iter().filter(|limit| limits.contains(limit)).count()) / count(millis)
        }

        /// Answers in a millisecond through such a time.
        fn rate(&mut self, millis: usize) -> f64 {
            let before = self.answers;
            self.run(millis);
            rate(self.answers - before, Duration::from_secs(1)) / count(millis)
        }
    }

    /// A tenth more or less than `micros`, by the copy's number.
    const fn about(micros: u64, number: u64) -> u64 {
        micros * 9 / 10 + micros / 5 * (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 54) / 1024
    }

    #[test]
    fn target_at_the_end_of_its_processor_gets_few_at_once() {
        let mut busy = Simulation::new(BUSY);
        assert!(busy.run(10_000).iter().all(|limit| *limit <= 32));
        assert!(busy.share(20_000, 17..=256) < 0.02, "trials cost next to nothing");
    }

    #[test]
    fn target_that_is_only_far_away_gets_as_many_as_it_needs() {
        let far: [(f64, Takes); 5] = [
            (10.0, |number| about(10_000, number)),
            (20.0, |_| 20_000),
            (45.0, |number| about(45_000, number)),
            (60.0, |number| about(60_000, number)),
            (100.0, |number| about(100_000, number)),
        ];
        for (millis, takes) in far {
            let mut far = Simulation::new(Target { cost: 0, takes });
            let limits = far.run(1000);
            let at = limits.iter().position(|limit| *limit == 256);
            assert!(at.is_some_and(|at| at < 350), "{millis} ms away: {at:?}");
            far.run(2000);
            let part = far.rate(20_000) / (256.0 / millis);
            assert!(part > 0.94, "{millis} ms away: {part}");
        }
    }

    #[test]
    fn limit_rests_where_the_processors_are_used() {
        // 48 processors, 2 ms each.
        let mut wide = Simulation::new(Target { cost: 41_667, takes: |_| 2000 });
        wide.run(3000);
        let share = wide.share(20_000, 64..=64);
        assert!(share > 0.9, "{share}");
    }

    #[test]
    fn slow_and_hanging_targets_are_given_all_at_once() {
        let slow: [Takes; 3] = [HANGING.takes, |_| 1_000_000, |_| 150_000];
        for takes in slow {
            let limits = Simulation::new(Target { cost: 0, takes }).run(200);
            let at = limits.iter().position(|limit| *limit == 256);
            assert!(at.is_some_and(|at| at < 80), "{at:?}");
        }
    }

    #[test]
    fn target_of_which_some_requests_hang_is_not_held_up_by_trials() {
        // The others take 10 ms.
        let mut partly = Simulation::new(Target {
            cost: 0,
            takes: |number| if number.is_multiple_of(40) { 1_000_000 } else { 10_000 },
        });
        partly.run(3000);
        let part = partly.rate(20_000) / (256.0 / (1000.0 / 40.0 + 10.0 * 39.0 / 40.0));
        assert!(part > 0.9, "{part}");
        // Nearly all places are taken for good.
        partly.target.takes = |number| if number.is_multiple_of(2) { u64::MAX >> 20 } else { 10_000 };
        while partly.under_way.iter().filter(|Reverse(due)| *due > partly.now + 5_000_000_000).count() < 200 {
            partly.run(1);
        }
        partly.target.takes = |_| 10_000;
        partly.run(2000);
        let part = partly.rate(20_000) / (56.0 / 10.0);
        assert!(part > 0.9, "{part}");
    }

    #[test]
    fn after_a_stall_it_comes_down_again_by_halves() {
        let mut simulation = Simulation::new(BUSY);
        simulation.run(500);
        simulation.target = HANGING;
        assert_eq!(simulation.run(200).last(), Some(&256));
        simulation.under_way.clear();
        simulation.target = BUSY;
        let limits = simulation.run(800);
        assert_eq!(limits.last(), Some(&16));
        assert!([128, 64, 32].iter().all(|limit| limits.contains(limit)));
    }

    #[test]
    fn target_that_grows_slower_is_noticed_though_the_next_trial_is_far_off() {
        let mut simulation = Simulation::new(BUSY);
        // The pause after as many trials is 4 s.
        simulation.run(8200);
        simulation.target = Target { cost: 0, takes: |_| 8000 };
        assert_eq!(simulation.run(500).last(), Some(&256));
    }

    #[test]
    fn trial_that_has_not_ended_when_no_copy_waits_any_more_is_taken_back() {
        let mut busy = Simulation::new(BUSY);
        for _ in 0..20 {
            let limits = busy.run(60);
            assert!(limits.iter().all(|limit| *limit <= 32), "{limits:?}");
            busy.pass(940_000_000, false);
        }
    }

    #[test]
    fn agent_that_had_no_processor_for_a_while_does_not_hold_that_against_the_target() {
        let mut busy = Simulation::new(BUSY);
        for _ in 0..50 {
            busy.run(20);
            // What was answered meanwhile is not read yet when it is asked.
            busy.now += 40_000_000;
            let now = Timestamp::from_nanos(busy.now);
            let under_way = busy.concurrency.limit();
            assert!(!busy.concurrency.allows(under_way, busy.answers, now));
            assert!(busy.concurrency.limit() <= 32);
        }
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
            let targets = [BUSY, HANGING, Target { cost: 0, takes: |_| 3000 }];
            let mut simulation = Simulation::of_most(most, BUSY);
            for target in targets.into_iter().cycle().take(9) {
                simulation.target = target;
                let limits = simulation.run(700);
                assert!(limits.iter().all(|limit| (FIRST.min(most)..=most).contains(limit)));
                assert!(simulation.under_way.len() <= most);
                simulation.under_way.clear();
            }
        }
    }
}
