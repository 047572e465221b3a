//! Enters: numbers that both answers have. Leaves: how they are distributed on both sides, and by how much they differ.

use serde::Serialize;

use super::{
    interval::{Interval, mean_difference, real},
    sketch::SignedSketch,
};
use crate::pipeline::compare::FieldPair;

/// The quantiles that are told of a field.
const QUANTILES: [f64; 5] = [0.05, 0.25, 0.5, 0.75, 0.95];

/// A number that is followed.
#[derive(Clone, Debug, Default)]
pub(super) struct Field {
    live: Numbers,
    shadow: Numbers,
    difference: Moments,
}

/// Numbers of one side.
#[derive(Clone, Debug, Default)]
struct Numbers {
    moments: Moments,
    sketch: SignedSketch,
}

/// Count, mean and spread, kept as Welford does ("Note on a method for calculating corrected sums of squares and
/// products", Technometrics 4, 1962), which loses no digits.
#[derive(Clone, Copy, Debug, Default)]
struct Moments {
    count: u64,
    sum: f64,
    mean: f64,
    squares: f64,
}

/// What is known of a number that is followed.
#[derive(Clone, Debug, Serialize)]
pub struct FieldSummary {
    /// Position of the field in the configuration.
    pub field: usize,
    /// Live's.
    pub live: NumbersSummary,
    /// The shadow's.
    pub shadow: NumbersSummary,
    /// Mean of the shadow's less live's, over answers of which both have it; `None` where there is none.
    pub difference: Option<f64>,
    /// Between what the true mean lies; `None` while there are fewer than a hundred.
    pub difference_interval: Option<Interval>,
}

/// Numbers of one side.
#[derive(Clone, Debug, Serialize)]
pub struct NumbersSummary {
    /// How many there were.
    pub count: u64,
    /// Their sum.
    pub sum: f64,
    /// Their mean; `None` where there are none.
    pub mean: Option<f64>,
    /// Their standard deviation; `None` where there are fewer than two.
    pub deviation: Option<f64>,
    /// Quantiles and their values, within half a percent.
    pub quantiles: Vec<(f64, f64)>,
}

impl Field {
    pub(super) fn add(&mut self, pair: &FieldPair) {
        let is_number = |value: &f64| value.is_finite();
        let (live, shadow) = (pair.live.filter(is_number), pair.other.filter(is_number));
        live.into_iter().for_each(|value| self.live.add(value));
        shadow.into_iter().for_each(|value| self.shadow.add(value));
        if let (Some(live), Some(shadow)) = (live, shadow) {
            self.difference.add(shadow - live);
        }
    }

    pub(super) fn summary(&self, field: usize, alpha: f64) -> FieldSummary {
        let difference = &self.difference;
        FieldSummary {
            field,
            live: self.live.summary(),
            shadow: self.shadow.summary(),
            difference: (difference.count > 0).then_some(difference.mean),
            difference_interval: difference
                .variance()
                .and_then(|variance| mean_difference(difference.mean, variance, difference.count, alpha)),
        }
    }
}

impl Numbers {
    fn add(&mut self, value: f64) {
        self.moments.add(value);
        self.sketch.add(value);
    }

    fn summary(&self) -> NumbersSummary {
        NumbersSummary {
            count: self.moments.count,
            sum: self.moments.sum,
            mean: (self.moments.count > 0).then_some(self.moments.mean),
            deviation: self.moments.variance().map(f64::sqrt),
            quantiles: QUANTILES.iter().filter_map(|q| Some((*q, self.sketch.quantile(*q)?))).collect(),
        }
    }
}

impl Moments {
    fn add(&mut self, value: f64) {
        self.count = self.count.saturating_add(1);
        self.sum += value;
        let before = value - self.mean;
        self.mean += before / real(self.count);
        self.squares += before * (value - self.mean);
    }

    fn variance(&self) -> Option<f64> {
        (self.count > 1).then(|| self.squares / (real(self.count) - 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_and_their_difference_are_told() {
        let mut field = Field::default();
        for n in 0..1000_u32 {
            let live = f64::from(n % 10);
            field.add(&FieldPair { field: 0, live: Some(live), other: Some(live + 0.5) });
        }
        field.add(&FieldPair { field: 0, live: Some(4.5), other: None });
        field.add(&FieldPair { field: 0, live: None, other: Some(f64::NAN) });
        let summary = field.summary(0, 0.05);
        assert_eq!((summary.live.count, summary.shadow.count), (1001, 1000));
        assert!((summary.live.mean.unwrap() - 4.5).abs() < 1e-9);
        assert!((summary.live.deviation.unwrap() - 2.87).abs() < 0.01);
        assert!((summary.difference.unwrap() - 0.5).abs() < 1e-9);
        let interval = summary.difference_interval.unwrap();
        assert!(interval.lower <= 0.5 + 1e-9 && 0.5 - 1e-9 <= interval.upper);
        assert_eq!(summary.shadow.quantiles.len(), 5);
    }
}
