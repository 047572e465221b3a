//! Enters: a time that suits a real machine. Leaves: the one to give this machine.

use std::{env, time::Duration};

/// How many times slower than planned an open loop goes, and how many times longer than elsewhere is waited: 1 unless
/// `MIRROR_TEST_SLOWDOWN` says more, for machines that are emulated.
#[must_use]
pub fn slowdown() -> f64 {
    let said = env::var("MIRROR_TEST_SLOWDOWN").ok().and_then(|text| text.parse().ok());
    said.filter(|factor: &f64| factor.is_finite()).map_or(1.0, |factor| factor.max(1.0))
}

/// So long, or as many times longer as this machine is slower.
#[must_use]
pub fn slowed(time: Duration) -> Duration {
    time.mul_f64(slowdown())
}
