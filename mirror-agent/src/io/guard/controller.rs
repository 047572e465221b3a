//! Enters: how much of what was given is used, time and again. Leaves: the share of new connections to capture.
//!
//! Too much is answered at once and in proportion, too little by small steps: what was left out in vain is only a smaller
//! sample, what was taken in excess is felt by the node. Between the two the share stays as it is, so that a load that
//! does not change leads to a share that does not change.

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
/// Time for a reduction to take effect before the next one; connections that are followed go on being followed.
const SETTLE: Duration = Duration::from_secs(4);
/// The same where the limit is met: then it cannot wait for that.
const SETTLE_OVER_LIMIT: Duration = Duration::from_secs(1);
/// Time after a reduction in which nothing is taken up again.
const RECOVER_AFTER: Duration = Duration::from_secs(10);
/// A step of recovery: this part of the share, within bounds that lead out of nothing and prevent leaps.
const STEP: f64 = 0.1;
const LEAST_STEP: f64 = 0.002;
const LARGEST_STEP: f64 = 0.03;
/// A smaller share is nothing.
const LEAST_SHARE: f64 = 0.001;

/// Decides on the share of new connections.
#[derive(Clone, Debug)]
pub(super) struct Controller {
    share: f64,
    /// Use of what was given, smoothed.
    level: f64,
    reduced_at: Option<Duration>,
    recover_below: f64,
}

impl Controller {
    /// One that goes by the use of processors.
    pub(super) const fn of_processors() -> Self {
        Self { share: 1.0, level: 0.0, reduced_at: None, recover_below: RECOVER_BELOW }
    }

    /// One that goes by the use of memory.
    pub(super) const fn of_memory() -> Self {
        Self { recover_below: RECOVER_MEMORY_BELOW, ..Self::of_processors() }
    }

    /// Takes the use of what was given, where 1 is all of it, once a second, and returns the share of new connections
    /// to capture, 0 to 1. `now` counts from any moment and moves only forward.
    pub(super) fn handle_use(&mut self, now: Duration, used: f64) -> f64 {
        if !used.is_finite() {
            return self.share;
        }
        // A rise is believed at once, a fall by halves: of bursts the peaks count.
        self.level = if used > self.level { used } else { self.level.midpoint(used) };
        let since = self.reduced_at.map(|at| now.saturating_sub(at));
        let settle = if self.level >= 1.0 { SETTLE_OVER_LIMIT } else { SETTLE };
        if self.level >= SHED_FROM {
            if since.is_none_or(|since| since >= settle) {
                let kept = (TARGET / self.level).clamp(MOST_AT_ONCE, 1.0);
                self.share *= kept;
                // What it will lead to, so that the same excess is not answered twice.
                self.level *= kept;
                self.reduced_at = Some(now);
                if self.share < LEAST_SHARE {
                    self.share = 0.0;
                }
            }
        } else if self.level < self.recover_below && since.is_none_or(|since| since >= RECOVER_AFTER) {
            self.share = (self.share + (self.share * STEP).clamp(LEAST_STEP, LARGEST_STEP)).min(1.0);
        }
        self.share
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A node whose use follows the share of new connections as these come and go.
    struct Plant {
        controller: Controller,
        /// Use with every connection captured, and with none.
        full: f64,
        idle: f64,
        /// How much of the connections is replaced by new ones each second.
        turnover: f64,
        captured: f64,
        noise: u64,
        second: u64,
    }

    impl Plant {
        fn new(full: f64, turnover: f64) -> Self {
            let controller = Controller::of_processors();
            Self { controller, full, idle: 0.05, turnover, captured: 1.0, noise: 1, second: 0 }
        }

        /// Runs for so many seconds; shares and uses of each.
        fn run(&mut self, seconds: u64) -> Vec<(f64, f64)> {
            let second = |_| {
                self.noise = self.noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let noise =
                    f64::from(u32::try_from(self.noise >> 33).unwrap()) / f64::from(1_u32 << 31) - 0.5;
                let used = (self.idle + self.full * self.captured) * (1.0 + 0.1 * noise);
                let share = self.controller.handle_use(Duration::from_secs(self.second), used);
                self.second += 1;
                self.captured += (share - self.captured) * self.turnover;
                (share, used)
            };
            (0..seconds).map(second).collect()
        }
    }

    #[test]
    fn nothing_is_shed_below_the_level() {
        assert!(Plant::new(0.65, 0.5).run(300).iter().all(|(share, _)| *share == 1.0));
    }

    #[test]
    fn load_is_brought_below_the_limit_and_stays_there() {
        for full in [1.2, 2.0, 5.0, 20.0, 100.0] {
            for turnover in [1.0, 0.3, 0.05] {
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
        for full in [1.5, 5.0, 50.0] {
            let seconds = Plant::new(full, 0.3).run(1_200);
            let shares: Vec<_> = seconds[600..].iter().map(|(share, _)| *share).collect();
            let reductions = shares.windows(2).filter(|pair| pair[1] < pair[0]).count();
            assert!(reductions <= 30, "{full}: {reductions} reductions in ten minutes");
            let highest = shares.iter().copied().fold(0.0, f64::max);
            let lowest = shares.iter().copied().fold(1.0, f64::min);
            assert!(lowest * 2.5 > highest, "{full}: {lowest} to {highest}");
        }
    }

    #[test]
    fn everything_is_captured_again_after_the_load() {
        let mut plant = Plant::new(20.0, 0.3);
        assert!(plant.run(120).last().unwrap().0 < 0.1);
        plant.full = 0.2;
        let seconds = plant.run(180);
        assert_eq!(seconds.last().unwrap().0, 1.0);
        let leap = seconds.windows(2).map(|pair| pair[1].0 - pair[0].0).fold(0.0, f64::max);
        assert!(leap <= LARGEST_STEP + 1e-9, "{leap}");
    }

    #[test]
    fn memory_that_stays_in_use_does_not_keep_connections_out() {
        let mut controller = Controller::of_memory();
        let mut run = |seconds: std::ops::Range<u64>, used| {
            seconds.map(|second| controller.handle_use(Duration::from_secs(second), used)).last().unwrap()
        };
        assert_eq!(run(0..1, 1.4), 0.5);
        assert!(run(1..120, 0.72) > 0.9);
        assert_eq!(run(120..240, 0.78), run(240..241, 0.78), "there is a range in which nothing changes");
    }

    #[test]
    fn excess_that_shedding_does_not_cure_ends_capture_of_new_connections() {
        let mut controller = Controller::of_processors();
        let share = (0..60).map(|second| controller.handle_use(Duration::from_secs(second), 3.0)).last();
        assert_eq!(share, Some(0.0));
        assert_eq!(
            controller.handle_use(Duration::from_secs(61), f64::NAN),
            0.0,
            "no measurement, no change"
        );
    }
}
