//! Enters: durations. Leaves: how many were how long, in fixed buckets.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use super::{add, load};

/// Upper bounds of the histogram buckets in nanoseconds, 100 µs to 10 s.
const BUCKET_BOUNDS_NANOS: [u64; 16] = [
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
];

/// A histogram at one moment.
#[derive(Clone, Debug)]
pub struct HistogramSnapshot {
    /// Sum of all observations in seconds.
    pub sum_seconds: f64,
    /// Upper bound in seconds, inclusive, and observations of each bucket, not cumulative; the last has no bound
    /// (infinity).
    pub buckets: Vec<(f64, u64)>,
}

/// A histogram of durations with fixed buckets.
#[derive(Debug, Default)]
pub(super) struct Histogram {
    /// Observations per bucket, not cumulative; the last one is above all bounds.
    buckets: [AtomicU64; BUCKET_BOUNDS_NANOS.len() + 1],
    sum_nanos: AtomicU64,
}

impl Histogram {
    pub(super) fn observe(&self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let bucket = BUCKET_BOUNDS_NANOS.partition_point(|bound| *bound < nanos);
        add(self.buckets.get(bucket), 1);
        self.sum_nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    pub(super) fn snapshot(&self) -> HistogramSnapshot {
        let counts = load(&self.buckets);
        let sum_seconds = Duration::from_nanos(self.sum_nanos.load(Ordering::Relaxed)).as_secs_f64();
        let bounds = BUCKET_BOUNDS_NANOS.map(|nanos| Duration::from_nanos(nanos).as_secs_f64());
        HistogramSnapshot {
            sum_seconds,
            buckets: bounds.into_iter().chain([f64::INFINITY]).zip(counts).collect(),
        }
    }
}
