//! Enters: counts, sums and the share of error that is allowed. Leaves: intervals that hold however often one looks.
//!
//! An interval that is computed anew after each exchange and looked at each time would, made the usual way, sooner or
//! later miss the truth. Those made here are *confidence sequences*: the probability that any of them ever misses, at
//! any number of samples, is at most `alpha`. All rest on Ville's inequality: a non-negative martingale that begins at 1
//! ever reaches `1/alpha` with a probability of at most `alpha`.

mod gamma;
mod mean;
mod rank;

use serde::Serialize;

use self::gamma::ln_beta;
pub(super) use self::{mean::mean_difference, rank::ranks};

/// A range that holds the truth, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Interval {
    /// Its lower end.
    pub lower: f64,
    /// Its upper end.
    pub upper: f64,
}

impl Interval {
    /// What is known of a share without having looked.
    pub(super) const SHARE: Self = Self { lower: 0.0, upper: 1.0 };

    /// What is known of the difference of two shares without having looked.
    pub(super) const DIFFERENCE: Self = Self { lower: -1.0, upper: 1.0 };
}

/// Weights of the mixture over rates: a Beta(½, ½), which expects rates near 0 and 1 rather than in the middle, as those
/// of divergences and errors are.
const PRIOR: f64 = 0.5;

/// Halvings of an interval until its end is known: 2⁻⁴⁸ of it.
const HALVINGS: u32 = 48;

/// The rate at which something happens that happened `hits` times in `trials`.
///
/// Robbins' method of mixtures: the likelihood ratio of a Beta-distributed rate against the rate `p` is a martingale
/// where `p` is true; the interval is all `p` of which it has not reached `1/alpha`. Robbins, "Statistical methods related
/// to the law of the iterated logarithm", Annals of Mathematical Statistics 41 (1970), section 2; for the Beta mixture
/// Lai, "On confidence sequences", Annals of Statistics 4 (1976), section 3.
pub(super) fn rate(hits: u64, trials: u64, alpha: f64) -> Interval {
    if trials == 0 {
        return Interval::SHARE;
    }
    let hits = hits.min(trials);
    let (yes, no) = (real(hits), real(trials.saturating_sub(hits)));
    let mixture = ln_beta(PRIOR + yes, PRIOR + no) - ln_beta(PRIOR, PRIOR);
    let limit = -alpha.ln();
    let is_refuted = |p: f64| mixture - ln_likelihood(yes, no, p) >= limit;
    let estimate = yes / (yes + no);
    Interval {
        lower: if hits == 0 { 0.0 } else { edge(0.0, estimate, is_refuted) },
        upper: if hits == trials { 1.0 } else { edge(1.0, estimate, is_refuted) },
    }
}

/// By how much the rate of one thing exceeds that of another, where both are looked for in each of `trials`:
/// `only_first` times the first came alone, `only_second` times the second.
///
/// What they have in common cancels out. The difference is `d (2t - 1)`, where `d` is the rate of trials in which exactly
/// one of them came, and `t` the share of the first among those; each gets a confidence sequence of its own, as in
/// [`rate`], at half of `alpha`.
pub(super) fn paired(only_first: u64, only_second: u64, trials: u64, alpha: f64) -> Interval {
    if trials == 0 {
        return Interval::DIFFERENCE;
    }
    let apart = only_first.saturating_add(only_second);
    let discordant = rate(apart, trials, alpha / 2.0);
    let share = rate(only_first, apart, alpha / 2.0);
    let at = |share: f64, towards_zero: f64, away: f64| {
        let lean = 2.0 * share - 1.0;
        lean * if lean > 0.0 { towards_zero } else { away }
    };
    Interval {
        lower: at(share.lower, discordant.lower, discordant.upper),
        upper: at(share.upper, discordant.upper, discordant.lower),
    }
}

/// The logarithm of the probability of `yes` and `no` in a given order.
fn ln_likelihood(yes: f64, no: f64, p: f64) -> f64 {
    let of = |count: f64, p: f64| if count > 0.0 { count * p.ln() } else { 0.0 };
    of(yes, p) + of(no, 1.0 - p)
}

/// The last value that is not refuted on the way from `inside` to `outside`; errs to the outside.
fn edge(mut outside: f64, mut inside: f64, is_refuted: impl Fn(f64) -> bool) -> f64 {
    for _ in 0..HALVINGS {
        let middle = f64::midpoint(outside, inside);
        if is_refuted(middle) {
            outside = middle;
        } else {
            inside = middle;
        }
    }
    outside
}

/// A count as a real number; exact up to 2⁵³.
pub(super) const fn real(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests;
