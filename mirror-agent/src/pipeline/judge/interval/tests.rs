//! Enters: seeded runs, looked at after each sample. Leaves: how often an interval ever missed the truth.

use super::*;

/// A small generator of random numbers (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

const RUNS: u64 = 1000;

/// Runs in which `misses`, called after each sample, ever says so; the interval is at 5 %.
fn runs_that_miss(samples: u64, mut misses: impl FnMut(&mut Random, &mut [u64; 4], u64) -> bool) -> u64 {
    let mut missed = 0;
    for seed in 0..RUNS {
        let mut random = Random(seed);
        let mut counts = [0; 4];
        let mut has_missed = false;
        for n in 1..=samples {
            has_missed |= misses(&mut random, &mut counts, n);
        }
        missed += u64::from(has_missed);
    }
    missed
}

/// Five in a hundred, and three standard deviations of that for the luck of the seeds.
const TOLERATED: u64 = RUNS / 20 + 21;

/// Looks at every sample at first, then at every hundredth: what is missed in between is little.
fn is_looked_at(n: u64) -> bool {
    n < 20 || n.is_multiple_of(50)
}

#[test]
fn interval_of_a_rate_holds_under_continuous_peeking() {
    for p in [0.003, 0.05, 0.5] {
        let missed = runs_that_miss(2000, |random, counts, n| {
            counts[0] += u64::from(random.unit() < p);
            is_looked_at(n) && {
                let interval = rate(counts[0], n, 0.05);
                p < interval.lower || interval.upper < p
            }
        });
        assert!(missed <= TOLERATED, "{missed} of {RUNS} at {p}");
    }
}

#[test]
fn interval_of_a_paired_difference_holds_under_continuous_peeking() {
    for (first, second) in [(0.02, 0.02), (0.03, 0.005), (0.3, 0.3)] {
        let missed = runs_that_miss(1500, |random, counts, n| {
            let both = random.unit() < 0.2;
            let a = both || random.unit() < first;
            let b = both || random.unit() < second;
            counts[0] += u64::from(a && !b);
            counts[1] += u64::from(b && !a);
            let truth = 0.8 * (first - second);
            is_looked_at(n) && {
                let interval = paired(counts[0], counts[1], n, 0.05);
                truth < interval.lower || interval.upper < truth
            }
        });
        assert!(missed <= TOLERATED, "{missed} of {RUNS} at {first} and {second}");
    }
}

#[test]
fn ranks_of_a_quantile_hold_under_continuous_peeking() {
    // What counts of a sample is whether it exceeds the true quantile, whatever the distribution.
    for q in [0.5, 0.95, 0.99] {
        let missed = runs_that_miss(3000, |random, counts, n| {
            counts[0] += u64::from(random.unit() < q);
            is_looked_at(n) && {
                let (lower, upper) = ranks(n, q, 0.05);
                counts[0] < lower || upper <= counts[0]
            }
        });
        assert!(missed <= TOLERATED, "{missed} of {RUNS} at {q}");
    }
}

#[test]
fn interval_of_a_mean_holds_under_peeking() {
    let mut missed = 0;
    for seed in 0..RUNS {
        let mut random = Random(seed);
        let (mut sum, mut squares, mut has_missed) = (0.0, 0.0, false);
        for n in 1..=3000_u64 {
            // Skewed: mean 1, as a waiting time.
            let value = -(1.0 - random.unit()).ln();
            sum += value;
            squares += value * value;
            if is_looked_at(n) {
                let mean = sum / n as f64;
                let variance = (squares / n as f64 - mean * mean).max(0.0);
                has_missed |= mean_difference(mean, variance, n, 0.05)
                    .is_some_and(|interval| 1.0 < interval.lower || interval.upper < 1.0);
            }
        }
        missed += u64::from(has_missed);
    }
    assert!(missed <= TOLERATED, "{missed} of {RUNS}");
}

#[test]
fn rate_is_known_to_a_tenth_of_a_percent_at_fifty_thousand() {
    let interval = rate(150, 50_000, 0.005);
    assert!(interval.lower > 0.0015 && interval.upper < 0.005, "{interval:?}");
}

#[test]
fn few_samples_tell_little() {
    assert!(rate(2, 3, 0.05).lower < 0.1);
    assert!(rate(0, 20, 0.05).upper > 0.1);
}

#[test]
fn nothing_seen_is_nothing_known() {
    assert_eq!(rate(0, 0, 0.05), Interval { lower: 0.0, upper: 1.0 });
    assert_eq!(paired(0, 0, 0, 0.05), Interval { lower: -1.0, upper: 1.0 });
    assert_eq!(ranks(0, 0.95, 0.05), (0, 1));
    assert_eq!(mean_difference(1.0, 1.0, 10, 0.05), None);
}

#[test]
fn rate_of_certainty_ends_at_the_ends() {
    assert_eq!(rate(0, 1000, 0.05).lower, 0.0);
    assert_eq!(rate(1000, 1000, 0.05).upper, 1.0);
    assert!(rate(0, 1000, 0.01).upper < 0.01);
}

#[test]
fn ranks_close_in_around_the_quantile() {
    let (lower, upper) = ranks(5000, 0.95, 0.003);
    assert!(lower > 4670 && lower < 4750, "{lower}");
    assert!(upper < 4810 && upper > 4750, "{upper}");
}
