//! Enters: a percentage. Leaves: which of all numbers are in it.

use mirror_common::sample::WHOLE_MILLIONTHS;

/// A share of requests, in millionths.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Share(u32);

impl Share {
    /// All of them.
    pub const ALL: Self = Self(WHOLE_MILLIONTHS);

    /// The share of `percent`; `None` outside 0 to 100. Resolution is a ten-thousandth of a percent.
    #[must_use]
    pub fn from_percent(percent: f64) -> Option<Self> {
        if !(0.0..=100.0).contains(&percent) {
            return None;
        }
        // In range by the line above, so the cast can neither wrap nor lose its sign.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 1,000,000")]
        Some(Self((percent * 10_000.0).round() as u32))
    }

    /// In percent, 0 to 100.
    #[must_use]
    pub fn percent(self) -> f64 {
        f64::from(self.0) / 10_000.0
    }

    /// In millionths, 0 to 1,000,000.
    #[must_use]
    pub const fn millionths(self) -> u32 {
        self.0
    }

    /// Whether a request whose draw is `draw`, uniform over all `u64`, is in. What is in a share is in every larger
    /// one.
    #[must_use]
    pub fn takes(self, draw: u64) -> bool {
        (u128::from(draw).saturating_mul(u128::from(WHOLE_MILLIONTHS))) >> 64 < u128::from(self.0)
    }
}

/// A bijection of `u64` with good avalanche (the finaliser of `SplitMix64`): consecutive numbers become uniform draws.
pub fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}
