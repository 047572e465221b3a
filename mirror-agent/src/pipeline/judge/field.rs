//! Enters: numbers that both answers have. Leaves: how they are distributed on both sides, and by how much they differ.
//!
//! What several judges know adds up: counts and sketches exactly, means and spreads but for the last digits.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{
    interval::{Interval, mean_difference, real},
    sketch::SignedSketch,
};
use crate::pipeline::compare::FieldPair;

/// The quantiles that are told of a field.
const QUANTILES: [f64; 5] = [0.05, 0.25, 0.5, 0.75, 0.95];

/// Numbers beyond this, of either sign, are not counted: of these, sums and squares stay finite however many there are.
const LARGEST: f64 = 1e100;

/// A number that is followed.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Field {
    live: Numbers,
    shadow: Numbers,
    difference: Moments,
}

/// Numbers of one side.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
struct Numbers {
    moments: Moments,
    sketch: SignedSketch,
}

/// Count, mean and spread, kept as Welford does ("Note on a method for calculating corrected sums of squares and
/// products", Technometrics 4, 1962), which loses no digits; those of two add up as Chan, Golub and LeVeque show ("Updating
/// formulae and a pairwise algorithm for computing sample variances", COMPSTAT 1982).
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
struct Moments {
    count: u64,
    sum: f64,
    mean: f64,
    squares: f64,
}

/// What came is not what is known of numbers.
#[derive(Debug, Error)]
#[error("no numbers that anybody has counted")]
pub(super) struct NoNumbers;

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
        let is_number = |value: &f64| value.abs() <= LARGEST;
        let (live, shadow) = (pair.live.filter(is_number), pair.other.filter(is_number));
        live.into_iter().for_each(|value| self.live.add(value));
        shadow.into_iter().for_each(|value| self.shadow.add(value));
        if let (Some(live), Some(shadow)) = (live, shadow) {
            self.difference.add(shadow - live);
        }
    }

    /// Adds what another judge knows of the same field.
    pub(super) fn merge(&mut self, other: &Self) {
        self.live.merge(&other.live);
        self.shadow.merge(&other.shadow);
        self.difference.merge(other.difference);
    }

    /// Whether a judge could know this.
    pub(super) fn check(&self) -> Result<(), NoNumbers> {
        let sides = [&self.live, &self.shadow];
        let least = self.live.moments.count.min(self.shadow.moments.count);
        let is_right = sides.iter().all(|side| side.moments.is_plausible(1.0) && side.is_whole())
            && self.difference.is_plausible(2.0)
            && self.difference.count <= least;
        if is_right { Ok(()) } else { Err(NoNumbers) }
    }

    /// Bytes of memory that it takes, about.
    pub(super) fn bytes(&self) -> usize {
        let sketches = self.live.sketch.bytes().saturating_add(self.shadow.sketch.bytes());
        size_of::<Self>().saturating_add(sketches)
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

    fn merge(&mut self, other: &Self) {
        self.moments.merge(other.moments);
        self.sketch.merge(&other.sketch);
    }

    fn is_whole(&self) -> bool {
        self.moments.count == self.sketch.count()
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

    fn merge(&mut self, other: Self) {
        if other.count == 0 {
            return;
        }
        let count = self.count.saturating_add(other.count);
        let (mine, theirs, all) = (real(self.count), real(other.count), real(count));
        let apart = other.mean - self.mean;
        *self = Self {
            count,
            sum: self.sum + other.sum,
            mean: (mine * self.mean + theirs * other.mean) / all,
            squares: self.squares + other.squares + apart * apart * (mine * theirs / all),
        };
    }

    /// Whether these are of numbers that are at most `times` the largest.
    fn is_plausible(&self, times: f64) -> bool {
        let (count, most) = (real(self.count), times * LARGEST);
        // A little more, for the last digits.
        let within = |value: f64, bound: f64| value.abs() <= bound * 1.001;
        within(self.sum, count * most)
            && within(self.mean, most)
            && self.squares >= 0.0
            && within(self.squares, 4.0 * count * most * most)
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

    fn field(values: impl IntoIterator<Item = f64>) -> Field {
        let mut field = Field::default();
        values.into_iter().for_each(|value| {
            field.add(&FieldPair { field: 0, live: Some(value), other: Some(2.0 * value) })
        });
        field
    }

    #[test]
    fn what_several_know_is_what_one_would_know_who_saw_all() {
        let values: Vec<f64> = (0..3000_u32).map(|n| f64::from(n % 97) - 31.5).collect();
        let whole = field(values.iter().copied()).summary(0, 0.05);
        let parts: Vec<_> = values.chunks(701).map(|chunk| field(chunk.iter().copied())).collect();
        for parts in [parts.clone(), parts.into_iter().rev().collect()] {
            let mut sum = Field::default();
            parts.iter().for_each(|part| sum.merge(part));
            assert!(sum.check().is_ok());
            let told = sum.summary(0, 0.05);
            assert_eq!((told.live.count, &told.live.quantiles), (3000, &whole.live.quantiles));
            for (told, whole) in [
                (told.live.sum, whole.live.sum),
                (told.shadow.mean.unwrap(), whole.shadow.mean.unwrap()),
                (told.shadow.deviation.unwrap(), whole.shadow.deviation.unwrap()),
                (told.difference.unwrap(), whole.difference.unwrap()),
                (told.difference_interval.unwrap().upper, whole.difference_interval.unwrap().upper),
            ] {
                assert!((told - whole).abs() <= 1e-9 * whole.abs().max(1.0), "{told} is not {whole}");
            }
        }
    }

    #[test]
    fn numbers_travel_and_what_nobody_has_counted_does_not() {
        for known in [Field::default(), field([1.5, -2.0, 0.0]), field([LARGEST, -LARGEST, LARGEST])] {
            let text = serde_json::to_string(&known).unwrap();
            let again: Field = serde_json::from_str(&text).unwrap();
            assert!(again.check().is_ok(), "{text}");
            assert_eq!(again.summary(0, 0.05).live.count, known.summary(0, 0.05).live.count);
        }
        let text = serde_json::to_string(&field([1.0])).unwrap();
        for (from, to) in [
            ("\"count\":1", "\"count\":2"),
            ("\"sum\":1.0", "\"sum\":1e101"),
            ("\"mean\":1.0", "\"mean\":-1e200"),
            ("\"squares\":0.0", "\"squares\":-1.0"),
        ] {
            let wrong = text.replacen(from, to, 1);
            assert_ne!(wrong, text, "{from}");
            assert!(serde_json::from_str::<Field>(&wrong).unwrap().check().is_err(), "{wrong}");
        }
    }

    #[test]
    fn numbers_beyond_all_bounds_are_not_counted() {
        let summary = field([f64::INFINITY, f64::NAN, 1e101, -1e308, 7.0]).summary(0, 0.05);
        assert_eq!((summary.live.count, summary.live.mean), (1, Some(7.0)));
    }
}
