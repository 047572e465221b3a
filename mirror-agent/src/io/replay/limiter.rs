//! Enters: what a target gets at most in a second, and the time. Leaves: whether one more copy may be written now.

use crate::pipeline::Timestamp;

/// A token bucket, kept as the time at which the next token is due (the generic cell rate algorithm): nothing is added
/// up, so nothing is rounded away however long it runs.
#[derive(Clone, Debug)]
pub(super) struct Bucket {
    /// What one token takes to come, in ticks.
    cost: u128,
    /// How long before it is due a token may be taken, in ticks: what a full bucket holds but for one token.
    tolerance: u128,
    /// When the bucket would be full, in ticks.
    full_at: u128,
    /// The latest time that was told.
    latest: Timestamp,
}

impl Bucket {
    /// A full bucket into which `rate` tokens a second fall; it holds those of [`BURST_SECONDS`], at least one.
    pub(super) fn new(rate: f64) -> Self {
        let mut bucket = Self { cost: 0, tolerance: 0, full_at: 0, latest: Timestamp::ZERO };
        bucket.set_rate(rate);
        bucket
    }

    /// Lets another number of tokens fall into it from the latest time on that was told. As many are owed as before.
    pub(super) fn set_rate(&mut self, rate: f64) {
        let holds = (rate * BURST_SECONDS).max(1.0);
        let ticks_per_second = 1e9 * TICKS_PER_NANO;
        let cost = to_ticks(ticks_per_second / rate);
        if self.cost > 0 {
            let latest = in_ticks(self.latest);
            let owed = self.full_at.saturating_sub(latest) as f64 / self.cost as f64 * cost as f64;
            self.full_at = latest.saturating_add(to_ticks(owed));
        }
        self.cost = cost;
        self.tolerance = to_ticks(ticks_per_second / rate * (holds - 1.0));
    }

    /// Whether a token is left after `others` that are spoken for.
    pub(super) fn has(&mut self, now: Timestamp, others: usize) -> bool {
        let now = self.ticks(now);
        let others = u128::try_from(others).unwrap_or(u128::MAX);
        let full_at = self.full_at.max(now).saturating_add(self.cost.saturating_mul(others));
        full_at <= now.saturating_add(self.tolerance)
    }

    /// Takes a token, if one is left.
    pub(super) fn take(&mut self, now: Timestamp) -> bool {
        let has_one = self.has(now, 0);
        if has_one {
            self.charge(now, 1);
        }
        has_one
    }

    /// Takes tokens whether they are left or not; those that are not are owed.
    pub(super) fn charge(&mut self, now: Timestamp, tokens: usize) {
        let now = self.ticks(now);
        let tokens = u128::try_from(tokens).unwrap_or(u128::MAX);
        self.full_at = self.full_at.max(now).saturating_add(self.cost.saturating_mul(tokens));
    }

    /// The time in ticks. What is owed stays owed for as long where the clock went back: it would else be for hours.
    fn ticks(&mut self, now: Timestamp) -> u128 {
        let back = in_ticks(self.latest).saturating_sub(in_ticks(now));
        self.full_at = self.full_at.saturating_sub(back);
        self.latest = now;
        in_ticks(now)
    }
}

fn in_ticks(at: Timestamp) -> u128 {
    u128::from(at.as_nanos()) << TICK_BITS
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates, and is not negative")]
const fn to_ticks(ticks: f64) -> u128 {
    ticks as u128
}

/// Time is counted in fractions of a nanosecond, so that the cost of a token is exact to one in a billion at the least.
const TICK_BITS: u32 = 32;
const TICKS_PER_NANO: f64 = (1_u64 << TICK_BITS) as f64;

/// What comes at once after a pause: a tenth of a second's. Capture hands copies on in batches a few milliseconds apart,
/// which are not to be cut down; much more than that would let a shadow that is sized for the rate feel the burst.
const BURST_SECONDS: f64 = 0.1;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(nanos: u64) -> Timestamp {
        Timestamp::from_nanos(1_000_000_000_000 + nanos)
    }

    fn taken(bucket: &mut Bucket, now: Timestamp) -> usize {
        (0..1_000_000).take_while(|_| bucket.take(now)).count()
    }

    #[test]
    fn a_full_bucket_holds_a_tenth_of_a_second_and_at_least_one() {
        for (rate, burst) in [(5000.0, 500), (10.0, 1), (15.0, 1), (25.0, 2), (0.1, 1), (1e6, 100_000)] {
            let mut bucket = Bucket::new(rate);
            assert_eq!(taken(&mut bucket, at(0)), burst, "{rate}");
            assert!(!bucket.has(at(0), 0));
            assert_eq!(taken(&mut bucket, at(3_600_000_000_000)), burst, "full again after an hour: {rate}");
        }
    }

    #[test]
    fn count_over_time_is_exact_whatever_the_rate_and_the_steps() {
        for (rate, step_nanos, steps, expected) in [
            (5000.0, 37_000, 1_000_000, 185_000),
            (30.0, 1_000_000, 1_000_000, 30_000),
            (0.5, 250_000_000, 40_000, 5000),
            (7_000_000.0, 1000, 1_000_000, 7_000_000),
        ] {
            let mut bucket = Bucket::new(rate);
            let burst = taken(&mut bucket, at(0));
            let count: usize = (1..=steps).map(|step| taken(&mut bucket, at(step * step_nanos))).sum();
            assert!(count.abs_diff(expected) <= 1, "{rate}: {count} after {burst}, not {expected}");
        }
    }

    #[test]
    fn tokens_spoken_for_are_not_there() {
        let mut bucket = Bucket::new(100.0);
        assert!(bucket.has(at(0), 9));
        assert!(!bucket.has(at(0), 10));
        assert_eq!(taken(&mut bucket, at(0)), 10);
    }

    #[test]
    fn what_is_charged_beyond_the_bucket_is_owed() {
        let mut bucket = Bucket::new(1000.0);
        bucket.charge(at(0), 5100);
        assert!(!bucket.has(at(4_999_000_000), 0));
        assert!(bucket.has(at(5_001_000_000), 0), "5,100 less the 100 that it held take 5 s");
    }

    #[test]
    fn clock_that_jumps_gives_no_more_than_a_full_bucket_and_withholds_nothing() {
        let mut bucket = Bucket::new(100.0);
        assert_eq!(taken(&mut bucket, at(0)), 10);
        let hour = Duration::from_secs(3600);
        assert_eq!(taken(&mut bucket, at(0).after(hour)), 10);
        let back = at(0).before(hour / 10);
        assert_eq!(taken(&mut bucket, back), 0);
        assert_eq!(taken(&mut bucket, back.after(Duration::from_millis(51))), 5);
    }

    #[test]
    fn another_rate_holds_from_there_on_and_gives_nothing_at_once() {
        let mut bucket = Bucket::new(100.0);
        assert_eq!(taken(&mut bucket, at(0)), 10);
        bucket.set_rate(25.0);
        assert_eq!(taken(&mut bucket, at(0)), 0);
        let a_second: usize = (1..=100).map(|step| taken(&mut bucket, at(step * 10_000_000))).sum();
        assert!((15..=25).contains(&a_second), "{a_second}");
        bucket.set_rate(1000.0);
        let another: usize = (101..=200).map(|step| taken(&mut bucket, at(step * 10_000_000))).sum();
        assert!((990..=1101).contains(&another), "{another}");
    }

    #[test]
    fn rate_of_zero_lets_through_what_the_bucket_holds_and_nothing_after() {
        let mut bucket = Bucket::new(0.0);
        assert_eq!(taken(&mut bucket, at(0)), 1);
        assert_eq!(taken(&mut bucket, Timestamp::from_nanos(u64::MAX)), 0);
    }
}
