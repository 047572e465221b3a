//! Enters: durations from one thread. Leaves: their percentiles, to any thread at any time.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// Values below this many microseconds have a bucket of their own; above it each octave has half as many.
const LINEAR: u64 = 128;
/// Buckets per octave.
const PER_OCTAVE: u64 = LINEAR / 2;
/// Octaves above the linear part: enough for an hour.
const OCTAVES: u64 = 25;
/// All buckets.
const BUCKETS: usize = (LINEAR + PER_OCTAVE * OCTAVES) as usize;

/// A log-linear histogram in microseconds with an error of at most 1 %.
#[derive(Debug)]
pub struct Histogram {
    buckets: Box<[AtomicU64]>,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect() }
    }
}

impl Histogram {
    /// Notes one value.
    pub fn observe(&self, value: Duration) {
        if let Some(bucket) = self.buckets.get(index(u64::try_from(value.as_micros()).unwrap_or(u64::MAX))) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The values so far, as they stand.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot { counts: self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).collect() }
    }
}

/// A histogram at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    counts: Vec<u64>,
}

impl Snapshot {
    /// What was added since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let earlier = earlier.counts.iter().copied().chain(std::iter::repeat(0));
        Self { counts: self.counts.iter().zip(earlier).map(|(now, then)| now.saturating_sub(then)).collect() }
    }

    /// The values of both.
    #[must_use]
    pub fn merged(&self, other: &Self) -> Self {
        if self.counts.is_empty() {
            return other.clone();
        }
        let other = other.counts.iter().copied().chain(std::iter::repeat(0));
        Self { counts: self.counts.iter().zip(other).map(|(one, two)| one + two).collect() }
    }

    /// How many values there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The value that `percent` of all values do not exceed; zero where there is none.
    #[must_use]
    pub fn percentile(&self, percent: f64) -> Duration {
        let wanted = ((self.count() as f64) * percent / 100.0).ceil().max(1.0) as u64;
        let mut below = 0;
        for (index, count) in self.counts.iter().enumerate() {
            below += count;
            if below >= wanted {
                return Duration::from_micros(midpoint(index as u64));
            }
        }
        Duration::ZERO
    }
}

/// The bucket of a value.
fn index(micros: u64) -> usize {
    if micros < LINEAR {
        return micros as usize;
    }
    let octave = u64::from(micros.ilog2()) - u64::from(LINEAR.ilog2());
    // Shifted right by `octave + 1`, the value lies in [PER_OCTAVE, LINEAR).
    let within = (micros >> (octave + 1)) - PER_OCTAVE;
    usize::try_from(LINEAR + octave * PER_OCTAVE + within).unwrap_or(BUCKETS).min(BUCKETS - 1)
}

/// The middle of a bucket in microseconds.
fn midpoint(index: u64) -> u64 {
    if index < LINEAR {
        return index;
    }
    let octave = (index - LINEAR) / PER_OCTAVE;
    let within = (index - LINEAR) % PER_OCTAVE;
    ((PER_OCTAVE + within) << (octave + 1)) + (1 << octave)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_within_one_percent() {
        let histogram = Histogram::default();
        for micros in 1..=100_000_u64 {
            histogram.observe(Duration::from_micros(micros));
        }
        let snapshot = histogram.snapshot();
        for percent in [1.0, 50.0, 90.0, 99.0, 99.9] {
            let exact = percent * 1000.0;
            let found = snapshot.percentile(percent).as_micros() as f64;
            assert!((found - exact).abs() <= exact * 0.01 + 1.0, "{percent} %: {found} instead of {exact}");
        }
    }

    #[test]
    fn difference_holds_what_came_later() {
        let histogram = Histogram::default();
        histogram.observe(Duration::from_micros(5));
        let earlier = histogram.snapshot();
        histogram.observe(Duration::from_millis(7));
        let later = histogram.snapshot().since(&earlier);
        assert_eq!(later.count(), 1);
        assert!(later.percentile(50.0) > Duration::from_millis(6));
    }
}
