//! Enters: a quantile and the number of samples. Leaves: the ranks between which its true value lies.

use super::{gamma::ln_beta, ln_likelihood, real};

/// Weight of the mixture, in samples. The interval is narrowest at some fifteen times as many, which is where the
/// p95 of a service is first told from another.
const WEIGHT: f64 = 400.0;

/// The ranks, counted from 1, of the samples between which the quantile `q` lies: it is not below the first and not
/// above the second. Rank 0 and one above `count` say that nothing is known on that side.
///
/// Howard and Ramdas, "Sequential estimation of quantiles with applications to A/B testing and best-arm identification",
/// Bernoulli 28 (2022), section 3: the number of samples that do not exceed the quantile is a sum of Bernoulli variables
/// of probability `q`, ties being broken by a coin, so a boundary for that sum bounds the rank. Of its boundaries for one fixed
/// quantile (theorem 1) the beta-binomial one is taken here instead of the stitched one, exactly, as a mixture with mean
/// `q`: it is narrower by a quarter at the thousands of samples that decide here.
pub(in super::super) fn ranks(count: u64, q: f64, alpha: f64) -> (u64, u64) {
    let n = real(count);
    let (a, b) = (WEIGHT * q, WEIGHT * (1.0 - q));
    let prior = ln_beta(a, b);
    let limit = -alpha.ln();
    let is_refuted = |below: u64| {
        let below = real(below);
        let above = n - below;
        ln_beta(a + below, b + above) - prior - ln_likelihood(below, above, q) >= limit
    };
    // The martingale is convex in the count, and least near the middle.
    let middle = (n * q) as u64;
    let lower = if is_refuted(0) { edge(0, middle, is_refuted) } else { 0 };
    let upper = if is_refuted(count) { edge(count, middle, is_refuted) } else { count };
    (lower, upper.saturating_add(1))
}

/// The last count that is not refuted on the way from `inside` to `outside`, which is.
fn edge(mut outside: u64, mut inside: u64, is_refuted: impl Fn(u64) -> bool) -> u64 {
    while outside.abs_diff(inside) > 1 {
        let middle = outside.midpoint(inside);
        if is_refuted(middle) {
            outside = middle;
        } else {
            inside = middle;
        }
    }
    inside
}
