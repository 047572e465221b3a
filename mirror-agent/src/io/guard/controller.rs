//! Enters: how much of what was given is used, time and again. Leaves: the shares of connections to capture.
//!
//! Too much is answered at once and in proportion, too little by small steps: what was left out in vain is only a smaller
//! sample, what was taken in excess is felt by the node. Between the two the shares stay as they are, so that a load that
//! does not change leads to shares that do not change.
//!
//! New connections are left out first, and those that are followed are spared. Where that did not help, since it is they that
//! are the load, the same share holds for both until everything is captured again.

use std::time::Duration;

/// From this use on, connections are shed: early enough that the limit is not met while it takes effect.
const SHED_FROM: f64 = 0.8;
/// The use to which shedding leads, if use is in proportion to the share.
const TARGET: f64 = 0.7;
/// Below this use of processors, connections are taken up again.
const RECOVER_BELOW: f64 = 0.6;
/// The same of memory, of which much stays in use that is free again: closer to where shedding begins, since it does not
/// rise and fall with every burst.
pub(super) const RECOVER_MEMORY_BELOW: f64 = 0.75;
/// What a reduction leaves of the share at least: a measurement that errs must not end everything at once.
const MOST_AT_ONCE: f64 = 0.5;
/// The same where two measurements agree: the first, and the one after a reduction that did not help.
const MOST_AT_ONCE_CONFIRMED: f64 = 0.1;
/// The part of what a reduction is to do that it does at least where new connections are the load.
const EFFECT: f64 = 0.25;
/// How often it is measured.
const PERIOD: Duration = Duration::from_secs(1);
/// How often while more of the processors is used than was given: live feels each moment of that.
const PERIOD_OVER_LIMIT: Duration = Duration::from_millis(500);
/// Time for a reduction to take effect before the next one; connections that are followed go on being followed.
const SETTLE: Duration = Duration::from_secs(4);
/// Time after a reduction in which nothing is taken up again.
const RECOVER_AFTER: Duration = Duration::from_secs(10);
/// A step of recovery: this part of the share, within bounds that lead out of nothing and prevent leaps.
const STEP: f64 = 0.1;
const LEAST_STEP: f64 = 0.002;
const LARGEST_STEP: f64 = 0.03;
/// A smaller share is nothing.
const LEAST_SHARE: f64 = 0.001;

/// The shares of connections to capture, 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Shares {
    /// Of those that begin.
    pub(super) new: f64,
    /// Of those that are followed already; not less than of new ones.
    pub(super) followed: f64,
}

impl Shares {
    /// Everything.
    pub(super) const WHOLE: Self = Self { new: 1.0, followed: 1.0 };

    /// What both ask for.
    pub(super) fn lesser(self, other: Self) -> Self {
        Self { new: self.new.min(other.new), followed: self.followed.min(other.followed) }
    }
}

/// Decides on the shares of connections to capture.
#[derive(Clone, Debug)]
pub(super) struct Controller {
    /// Of new connections.
    share: f64,
    /// Use of what was given, smoothed.
    level: f64,
    /// The last one.
    reduction: Option<Reduction>,
    followed: Followed,
    recover_below: f64,
    /// Time for a reduction to take effect where the limit is met: then it cannot wait for [`SETTLE`].
    settle_over_limit: Duration,
}

/// A reduction of the share: what there was before it, and when.
#[derive(Clone, Copy, Debug)]
struct Reduction {
    at: Duration,
    share: f64,
    level: f64,
    /// The level that it is to lead to.
    expected: f64,
}

impl Reduction {
    /// Whether it did next to nothing of what it was to do. Something it does wherever connections come and go, though
    /// less than expected where the agent uses much that no share changes.
    fn is_in_vain(&self, level: f64) -> bool {
        level > self.level - EFFECT * (self.level - self.expected)
    }
}

/// What becomes of connections that are followed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Followed {
    /// They are, whatever happens: to let go of them would not help.
    Always,
    /// They are, as long as leaving out new ones helps.
    Spared,
    /// As few as of new ones.
    LetGo,
}

impl Controller {
    /// One that goes by the use of processors.
    pub(super) const fn of_processors() -> Self {
        Self {
            share: 1.0,
            level: 0.0,
            reduction: None,
            followed: Followed::Spared,
            recover_below: RECOVER_BELOW,
            settle_over_limit: PERIOD_OVER_LIMIT,
        }
    }

    /// One that goes by the use of memory, of which what is held for a connection is not free when that is let go: its
    /// requests are being sent, or it is idle.
    pub(super) const fn of_memory() -> Self {
        Self {
            recover_below: RECOVER_MEMORY_BELOW,
            followed: Followed::Always,
            settle_over_limit: Duration::from_secs(1),
            ..Self::of_processors()
        }
    }

    /// Takes the use of what was given, where 1 is all of it, each time that it is measured ([`pause_after`]), and returns
    /// the shares of connections to capture. `now` counts from any moment and moves only forward.
    pub(super) fn handle_use(&mut self, now: Duration, used: f64) -> Shares {
        if !used.is_finite() {
            return self.shares();
        }
        // A rise is believed at once, a fall by halves: of bursts the peaks count.
        self.level = if used > self.level { used } else { self.level.midpoint(used) };
        let since = self.reduction.map(|reduction| now.saturating_sub(reduction.at));
        let settle = if self.level >= 1.0 { self.settle_over_limit } else { SETTLE };
        if self.level >= SHED_FROM {
            if since.is_none_or(|since| since >= settle) {
                self.reduce(now);
            }
        } else if self.level < self.recover_below && since.is_none_or(|since| since >= RECOVER_AFTER) {
            self.share = (self.share + (self.share * STEP).clamp(LEAST_STEP, LARGEST_STEP)).min(1.0);
            if self.share >= 1.0 && self.followed == Followed::LetGo {
                self.followed = Followed::Spared;
            }
        }
        self.shares()
    }

    fn reduce(&mut self, now: Duration) {
        let in_vain = self.reduction.filter(|reduction| reduction.is_in_vain(self.level));
        let (from, most_at_once) = match (self.followed, in_vain) {
            // The load is what was captured before it.
            (Followed::Spared, Some(reduction)) => {
                self.followed = Followed::LetGo;
                (reduction.share, MOST_AT_ONCE_CONFIRMED)
            }
            (Followed::Always | Followed::Spared | Followed::LetGo, _) => (self.share, MOST_AT_ONCE),
        };
        let kept = (TARGET / self.level).clamp(most_at_once, 1.0);
        let expected = self.level * kept;
        self.reduction = Some(Reduction { at: now, share: self.share, level: self.level, expected });
        self.share = self.share.min(from * kept);
        if self.share < LEAST_SHARE {
            self.share = 0.0;
        }
        // What it will lead to, so that the same excess is not answered twice.
        self.level = expected;
    }

    fn shares(&self) -> Shares {
        let followed = match self.followed {
            Followed::Always | Followed::Spared => 1.0,
            Followed::LetGo => self.share,
        };
        Shares { new: self.share, followed }
    }
}

/// Time until it is measured again, after processors were found to be used so far, 1 being all that was given.
pub(super) fn pause_after(cpu: Option<f64>) -> Duration {
    if cpu.is_some_and(|used| used >= 1.0) { PERIOD_OVER_LIMIT } else { PERIOD }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A node whose use follows the share of connections as these come and go.
    struct Plant {
        controller: Controller,
        /// Use with every connection captured, and with none.
        full: f64,
        idle: f64,
        /// How much of the connections is replaced by new ones each second.
        turnover: f64,
        /// How much more is sent when nothing is captured than when all is: the load takes the processors that it finds.
        thirst: f64,
        captured: f64,
        noise: u64,
        now: Duration,
    }

    impl Plant {
        fn new(full: f64, turnover: f64) -> Self {
            let controller = Controller::of_processors();
            Self {
                controller,
                full,
                idle: 0.05,
                turnover,
                thirst: 0.0,
                captured: 1.0,
                noise: 1,
                now: Duration::ZERO,
            }
        }

        /// Runs for so many seconds; of each the share of new connections at its end and the highest use.
        fn run(&mut self, seconds: u64) -> Vec<(f64, f64)> {
            let second = |_| {
                let end = self.now + Duration::from_secs(1);
                let (mut share, mut highest) = (1.0, 0.0_f64);
                while self.now < end {
                    let used;
                    (share, used) = self.step();
                    highest = highest.max(used);
                }
                (share, highest)
            };
            (0..seconds).map(second).collect()
        }

        /// Measures once, and goes on to when it is measured again.
        fn step(&mut self) -> (f64, f64) {
            self.noise = self.noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let noise = f64::from(u32::try_from(self.noise >> 33).unwrap()) / f64::from(1_u32 << 31) - 0.5;
            let sent = self.full * (1.0 + self.thirst * (1.0 - self.captured));
            let used = (self.idle + sent * self.captured) * (1.0 + 0.1 * noise);
            let Shares { new, followed } = self.controller.handle_use(self.now, used);
            assert!(new <= followed, "{new} of new ones, {followed} of those that are followed");
            let pause = pause_after(Some(used));
            self.now += pause;
            self.captured += (new - self.captured) * self.turnover * pause.as_secs_f64();
            if followed < 1.0 {
                // What was let go is taken up as soon as there is room.
                self.captured = followed;
            }
            (new, used)
        }
    }

    #[test]
    fn nothing_is_shed_below_the_level() {
        assert!(Plant::new(0.65, 0.5).run(300).iter().all(|(share, _)| *share == 1.0));
    }

    #[test]
    fn load_is_brought_below_the_limit_and_stays_there() {
        for full in [1.2, 2.0, 5.0, 20.0, 100.0] {
            for turnover in [1.0, 0.3, 0.05, 0.0] {
                let seconds = Plant::new(full, turnover).run(1_200);
                let settled = &seconds[600..];
                let worst = settled.iter().map(|(_, used)| *used).fold(0.0, f64::max);
                assert!(worst < 1.05, "{full}, {turnover}: {worst}");
                let least = settled.iter().map(|(_, used)| *used).fold(1.0, f64::min);
                assert!(least > 0.3, "{full}, {turnover}: {least} is of no use to anyone");
            }
        }
    }

    #[test]
    fn share_hardly_changes_under_a_load_that_does_not() {
        for (full, turnover) in [1.5, 5.0, 50.0].into_iter().flat_map(|full| [(full, 0.3), (full, 0.0)]) {
            let seconds = Plant::new(full, turnover).run(1_200);
            let shares: Vec<_> = seconds[600..].iter().map(|(share, _)| *share).collect();
            let reductions = shares.windows(2).filter(|pair| pair[1] < pair[0]).count();
            assert!(reductions <= 30, "{full}, {turnover}: {reductions} reductions in ten minutes");
            let highest = shares.iter().copied().fold(0.0, f64::max);
            let lowest = shares.iter().copied().fold(1.0, f64::min);
            assert!(lowest * 2.5 > highest, "{full}, {turnover}: {lowest} to {highest}");
        }
    }

    #[test]
    fn everything_is_captured_again_after_the_load() {
        for turnover in [0.3, 0.0] {
            let mut plant = Plant::new(20.0, turnover);
            assert!(plant.run(120).last().unwrap().0 < 0.1);
            plant.full = 0.2;
            let seconds = plant.run(180);
            assert_eq!(seconds.last().unwrap().0, 1.0);
            let leap = seconds.windows(2).map(|pair| pair[1].0 - pair[0].0).fold(0.0, f64::max);
            assert!(leap <= LARGEST_STEP + 1e-9, "{leap}");
            assert_eq!(plant.controller.shares(), Shares::WHOLE, "those that are followed are spared again");
        }
    }

    #[test]
    fn connections_that_do_not_end_are_below_the_limit_within_seconds() {
        for full in [1.2, 2.0, 5.0, 9.0] {
            for thirst in [0.0, 1.0] {
                let mut plant = Plant { thirst, ..Plant::new(full, 0.0) };
                let seconds = plant.run(60);
                let late = seconds[3..].iter().map(|(_, used)| *used).fold(0.0, f64::max);
                assert!(late < 1.0, "{full}, {thirst}: {late}");
                let use_of_all = full * (1.0 + thirst);
                assert!(seconds[59].0 * use_of_all > 0.4, "{full}, {thirst}: few are captured");
            }
        }
    }

    #[test]
    fn connections_are_spared_while_leaving_out_new_ones_helps() {
        for (full, idle) in [(1.2, 0.05), (2.0, 0.05), (5.0, 0.05), (5.0, 0.4)] {
            let mut plant = Plant { idle, ..Plant::new(full, 0.9) };
            for _ in 0..300 {
                plant.run(1);
                assert_eq!(plant.controller.shares().followed, 1.0, "{full}, {idle}");
            }
            assert!(plant.controller.shares().new < 1.0, "{full}, {idle}");
        }
    }

    #[test]
    fn memory_that_stays_in_use_does_not_keep_connections_out() {
        let mut controller = Controller::of_memory();
        let mut run = |seconds: std::ops::Range<u64>, used| {
            let last = seconds.map(|second| controller.handle_use(Duration::from_secs(second), used)).last();
            let Shares { new, followed } = last.unwrap();
            assert_eq!(followed, 1.0);
            new
        };
        assert_eq!(run(0..1, 1.4), 0.5);
        assert_eq!(run(1..2, 1.4), 0.25, "it did not help, and to let go would not either");
        assert!(run(2..120, 0.72) > 0.9);
        assert_eq!(run(120..240, 0.78), run(240..241, 0.78), "there is a range in which nothing changes");
    }

    #[test]
    fn excess_that_shedding_does_not_cure_ends_capture() {
        let mut controller = Controller::of_processors();
        let shares = (0..60).map(|second| controller.handle_use(Duration::from_secs(second), 3.0)).last();
        assert_eq!(shares, Some(Shares { new: 0.0, followed: 0.0 }));
        assert_eq!(
            Some(controller.handle_use(Duration::from_secs(61), f64::NAN)),
            shares,
            "no measurement, no change"
        );
    }
}
