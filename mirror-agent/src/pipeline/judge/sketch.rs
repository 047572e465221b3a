//! Enters: numbers. Leaves: their quantiles, to a known relative error.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::interval::{ranks, real};

/// Largest relative error of a value that is read from a sketch.
pub const RELATIVE_ERROR: f64 = 0.005;

/// Values nearer to zero than this are zero: a nanosecond, where the unit is seconds.
const LEAST: f64 = 1e-9;

/// Values above this are this.
const MOST: f64 = 1e15;

/// How many positive numbers were how large, in bins whose bounds grow by a constant factor.
///
/// The idea is that of DDSketch (Masson, Rim and Lee, "DDSketch: a fast and fully-mergeable quantile sketch with
/// relative-error guarantees", PVLDB 12, 2019); bins lie in one run, at most 5,500 of four bytes, a few hundred for
/// the times of a service.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(try_from = "Travelling", into = "Travelling")]
pub(super) struct Sketch {
    zeros: u64,
    /// Exponent of the first bin.
    first: i32,
    bins: Vec<u32>,
    count: u64,
}

/// A sketch as it travels.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Travelling {
    zeros: u64,
    first: i32,
    bins: Vec<u32>,
}

/// Bins that no number could have filled, or empty ones at the ends, which say nothing.
#[derive(Debug, Error)]
#[error("no sketch of numbers")]
struct NoSketch;

impl TryFrom<Travelling> for Sketch {
    type Error = NoSketch;

    fn try_from(told: Travelling) -> Result<Self, NoSketch> {
        let Travelling { zeros, first, bins } = told;
        let is_filled = |bin: Option<&u32>| bin.is_none_or(|count| *count > 0);
        let last = i64::from(first).saturating_add(i64::try_from(bins.len()).unwrap_or(i64::MAX));
        let (Bin(Some(least)), Bin(Some(most))) = (Bin::of(LEAST), Bin::of(MOST)) else {
            return Err(NoSketch);
        };
        let is_within = bins.is_empty() || (first >= least && last <= i64::from(most).saturating_add(1));
        if !is_within || !is_filled(bins.first()) || !is_filled(bins.last()) {
            return Err(NoSketch);
        }
        let count = bins.iter().fold(zeros, |sum, count| sum.saturating_add(u64::from(*count)));
        Ok(Self { zeros, first: if bins.is_empty() { 0 } else { first }, bins, count })
    }
}

impl From<Sketch> for Travelling {
    fn from(sketch: Sketch) -> Self {
        let Sketch { zeros, first, bins, .. } = sketch;
        Self { zeros, first, bins }
    }
}

/// A bin: its exponent; `None` for zero.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Bin(Option<i32>);

impl Bin {
    /// The bin of a number that is not negative; what is not a number is zero.
    pub(super) fn of(value: f64) -> Self {
        if value.is_nan() || value < LEAST {
            return Self(None);
        }
        Self(Some((value.min(MOST).ln() / ln_growth()).ceil() as i32))
    }
}

/// A value as a sketch tells it, with the bounds of its bin.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Told {
    pub(super) lower: f64,
    pub(super) value: f64,
    pub(super) upper: f64,
}

impl Told {
    const ZERO: Self = Self { lower: 0.0, value: 0.0, upper: LEAST };

    fn of(exponent: i32) -> Self {
        let upper = (f64::from(exponent) * ln_growth()).exp();
        let lower = (f64::from(exponent.saturating_sub(1)) * ln_growth()).exp();
        Self { lower, value: upper * (1.0 - RELATIVE_ERROR), upper }
    }
}

impl Sketch {
    pub(super) const fn count(&self) -> u64 {
        self.count
    }

    pub(super) fn add(&mut self, bin: Bin) {
        self.add_many(bin, 1);
    }

    fn add_many(&mut self, bin: Bin, count: u32) {
        self.count = self.count.saturating_add(u64::from(count));
        let Some(exponent) = bin.0 else {
            self.zeros = self.zeros.saturating_add(u64::from(count));
            return;
        };
        if self.bins.is_empty() {
            self.first = exponent;
        }
        if exponent < self.first {
            let missing = usize::try_from(self.first.abs_diff(exponent)).unwrap_or(0);
            self.bins.splice(0..0, std::iter::repeat_n(0, missing));
            self.first = exponent;
        }
        let index = usize::try_from(exponent.abs_diff(self.first)).unwrap_or(0);
        if index >= self.bins.len() {
            self.bins.resize(index.saturating_add(1), 0);
        }
        if let Some(bin) = self.bins.get_mut(index) {
            *bin = bin.saturating_add(count);
        }
    }

    /// Adds what another one has seen.
    pub(super) fn merge(&mut self, other: &Self) {
        self.zeros = self.zeros.saturating_add(other.zeros);
        self.count = self.count.saturating_add(other.zeros);
        for (exponent, count) in other.filled() {
            self.add_many(Bin(Some(exponent)), count);
        }
    }

    /// Bytes of memory that it takes, about.
    pub(super) const fn bytes(&self) -> usize {
        self.bins.len().saturating_mul(size_of::<u32>())
    }

    fn filled(&self) -> impl Iterator<Item = (i32, u32)> {
        (self.first..).zip(self.bins.iter().copied()).filter(|(_, count)| *count > 0)
    }

    /// The value of this rank, counted from 1 at the smallest; `None` where there are fewer, and for rank 0.
    pub(super) fn at_rank(&self, rank: u64) -> Option<Told> {
        if rank == 0 || rank > self.count {
            return None;
        }
        let mut below = self.zeros;
        if rank <= below {
            return Some(Told::ZERO);
        }
        self.filled().find_map(|(exponent, count)| {
            below = below.saturating_add(u64::from(count));
            (rank <= below).then(|| Told::of(exponent))
        })
    }

    /// The quantile as it was seen.
    pub(super) fn quantile(&self, q: f64) -> Option<f64> {
        let rank = (real(self.count) * q).ceil() as u64;
        self.at_rank(rank.max(1)).map(|told| told.value)
    }

    /// Between what the true quantile lies, the error of the sketch included; `None` where that side is not known.
    pub(super) fn quantile_bounds(&self, q: f64, alpha: f64) -> (Option<f64>, Option<f64>) {
        let (lower, upper) = ranks(self.count, q, alpha);
        (self.at_rank(lower).map(|told| told.lower), self.at_rank(upper).map(|told| told.upper))
    }
}

/// The logarithm of the factor from bin to bin.
fn ln_growth() -> f64 {
    ((1.0 + RELATIVE_ERROR) / (1.0 - RELATIVE_ERROR)).ln()
}

/// The same for numbers of either sign.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SignedSketch {
    positive: Sketch,
    negative: Sketch,
}

impl SignedSketch {
    pub(super) fn add(&mut self, value: f64) {
        if value < 0.0 {
            self.negative.add(Bin::of(-value));
        } else {
            self.positive.add(Bin::of(value));
        }
    }

    pub(super) const fn count(&self) -> u64 {
        self.negative.count().saturating_add(self.positive.count())
    }

    /// Adds what another one has seen.
    pub(super) fn merge(&mut self, other: &Self) {
        self.positive.merge(&other.positive);
        self.negative.merge(&other.negative);
    }

    /// Bytes of memory that it takes, about.
    pub(super) const fn bytes(&self) -> usize {
        self.positive.bytes().saturating_add(self.negative.bytes())
    }

    /// The quantile as it was seen.
    pub(super) fn quantile(&self, q: f64) -> Option<f64> {
        let below = self.negative.count();
        let count = self.count();
        let rank = ((real(count) * q).ceil() as u64).max(1);
        if rank <= below {
            // The smallest are the largest of those below zero.
            let from_zero = below.saturating_sub(rank).saturating_add(1);
            return self.negative.at_rank(from_zero).map(|told| -told.value);
        }
        self.positive.at_rank(rank.saturating_sub(below)).map(|told| told.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sketch(values: impl IntoIterator<Item = f64>) -> Sketch {
        let mut sketch = Sketch::default();
        values.into_iter().for_each(|value| sketch.add(Bin::of(value)));
        sketch
    }

    #[test]
    fn quantiles_are_within_the_stated_error() {
        let sketch = sketch((1..=10_000).rev().map(|n| f64::from(n) * 1e-6));
        for q in [0.01, 0.5, 0.95, 0.99, 1.0] {
            let told = sketch.quantile(q).unwrap();
            assert!((told / (q * 1e-2) - 1.0).abs() <= RELATIVE_ERROR + 1e-9, "{q}: {told}");
        }
    }

    #[test]
    fn bounds_of_a_bin_hold_its_values() {
        for value in [1.1e-9, 3e-7, 0.02, 1.0, 17.0, 1e9] {
            let told = sketch([value]).at_rank(1).unwrap();
            assert!(told.lower <= value && value <= told.upper * (1.0 + 1e-12), "{value}: {told:?}");
        }
    }

    #[test]
    fn merged_sketches_are_as_one_that_saw_all() {
        let mut merged = sketch((1..500).map(f64::from));
        merged.merge(&sketch((500..=1000).map(f64::from).chain([0.0])));
        let whole = sketch((0..=1000).map(f64::from));
        assert_eq!(merged.count(), 1001);
        for q in [0.0, 0.1, 0.5, 0.9, 1.0] {
            assert_eq!(merged.quantile(q), whole.quantile(q));
        }
    }

    #[test]
    fn sketch_travels_and_what_is_none_does_not() {
        for told in [sketch([]), sketch([0.0]), sketch([0.0, 1e-9, 0.02, 1e15])] {
            let text = serde_json::to_string(&told).unwrap();
            assert_eq!(serde_json::from_str::<Sketch>(&text).unwrap(), told);
        }
        for wrong in [
            r#"{"zeros":0,"first":2147483647,"bins":[1,1]}"#,
            r#"{"zeros":0,"first":-9999,"bins":[1]}"#,
            r#"{"zeros":0,"first":0,"bins":[0,1]}"#,
            r#"{"zeros":0,"first":0,"bins":[1,0]}"#,
            r#"{"zeros":0,"first":0,"bins":[-1]}"#,
            r#"{"zeros":0,"first":0,"bins":[],"more":1}"#,
        ] {
            assert!(serde_json::from_str::<Sketch>(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn hostile_numbers_stay_within_bounds() {
        let sketch = sketch([f64::NAN, f64::INFINITY, -1.0, f64::MAX, f64::MIN_POSITIVE, 0.0]);
        assert_eq!(sketch.count(), 6);
        assert!(sketch.bins.len() < 6000);
        assert!(sketch.quantile(1.0).unwrap() <= MOST * 1.01);
    }

    #[test]
    fn negative_numbers_come_before_positive_ones() {
        let mut sketch = SignedSketch::default();
        [-10.0, -1.0, 0.0, 1.0, 10.0].into_iter().for_each(|value| sketch.add(value));
        assert!((sketch.quantile(0.1).unwrap() + 10.0).abs() < 0.06);
        assert_eq!(sketch.quantile(0.5), Some(0.0));
        assert!((sketch.quantile(1.0).unwrap() - 10.0).abs() < 0.06);
    }

    #[test]
    fn nothing_seen_has_no_quantile() {
        assert_eq!(Sketch::default().quantile(0.5), None);
        assert_eq!(Sketch::default().quantile_bounds(0.5, 0.05), (None, None));
    }
}
