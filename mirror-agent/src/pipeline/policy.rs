//! Enters: the head of a request. Leaves: the decision to replay or to skip it.

use crate::pipeline::{message::ExchangeId, reason::SkipReason};

/// A set of HTTP methods (RFC 9110 section 9.1: case-sensitive).
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Methods {
    /// Every method.
    All,
    /// These only.
    Only(Vec<String>),
}

impl Methods {
    /// Whether `method` is in the set.
    #[must_use]
    pub fn contains(&self, method: &[u8]) -> bool {
        match self {
            Self::All => true,
            Self::Only(list) => list.iter().any(|entry| entry.as_bytes() == method),
        }
    }
}

impl Default for Methods {
    /// The methods that RFC 9110 section 9.2.1 calls safe and that servers answer: a copy of any other is a write.
    fn default() -> Self {
        Self::Only(["GET", "HEAD", "OPTIONS"].map(String::from).to_vec())
    }
}

/// A share of requests, in millionths.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Share(u32);

impl Share {
    /// All of them.
    pub const ALL: Self = Self(Self::WHOLE);
    const WHOLE: u32 = 1_000_000;

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

    /// Whether a request whose draw is `draw`, uniform over all `u64`, is in.
    #[must_use]
    pub fn takes(self, draw: u64) -> bool {
        (u128::from(draw).saturating_mul(u128::from(Self::WHOLE))) >> 64 < u128::from(self.0)
    }
}

/// What is known of a request when its head is complete.
#[derive(Clone, Copy, Debug)]
pub struct RequestTraits<'a> {
    /// The method as sent.
    pub method: &'a [u8],
    /// It carries `x-mirror-id`: it is a copy itself.
    pub marked: bool,
    /// It asks for another protocol on this connection.
    pub upgrade: bool,
}

/// Which requests are mirrored.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Methods to mirror.
    pub methods: Methods,
    /// Share of the requests to mirror.
    pub sample: Share,
    /// Key of the draws: other pipelines and other runs draw differently.
    pub seed: u64,
}

impl Policy {
    /// Decides on one request: `Err` holds the reason to skip it.
    ///
    /// # Errors
    ///
    /// The first reason that applies, the marker before all else: a copy must never be copied again.
    pub fn decide(&self, id: ExchangeId, request: &RequestTraits<'_>) -> Result<(), SkipReason> {
        if request.marked {
            Err(SkipReason::Marked)
        } else if request.method == b"CONNECT" {
            Err(SkipReason::Connect)
        } else if request.upgrade {
            Err(SkipReason::Upgrade)
        } else if !self.methods.contains(request.method) {
            Err(SkipReason::Method)
        } else if self.sample != Share::ALL && !self.sample.takes(mix(self.seed ^ id.0)) {
            Err(SkipReason::Sampled)
        } else {
            Ok(())
        }
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self { methods: Methods::default(), sample: Share::ALL, seed: 0 }
    }
}

/// A bijection of `u64` with good avalanche (the finaliser of `SplitMix64`): consecutive numbers become uniform draws.
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get() -> RequestTraits<'static> {
        RequestTraits { method: b"GET", marked: false, upgrade: false }
    }

    #[test]
    fn only_safe_methods_are_mirrored_unless_asked_for() {
        let policy = Policy::default();
        let post = RequestTraits { method: b"POST", ..get() };
        assert_eq!(policy.decide(ExchangeId(1), &get()), Ok(()));
        assert_eq!(policy.decide(ExchangeId(1), &post), Err(SkipReason::Method));
        let lower = RequestTraits { method: b"get", ..get() };
        assert_eq!(policy.decide(ExchangeId(1), &lower), Err(SkipReason::Method));
        let all = Policy { methods: Methods::All, ..Policy::default() };
        assert_eq!(all.decide(ExchangeId(1), &post), Ok(()));
    }

    #[test]
    fn a_copy_is_never_copied_again_whatever_else_it_is() {
        let all = Policy { methods: Methods::All, ..Policy::default() };
        let marked = RequestTraits { method: b"CONNECT", marked: true, upgrade: true };
        assert_eq!(all.decide(ExchangeId(1), &marked), Err(SkipReason::Marked));
    }

    #[test]
    fn the_sample_is_as_large_as_asked_for() {
        for (percent, low, high) in
            [(0.0, 0, 0), (0.5, 400, 600), (10.0, 9_700, 10_300), (100.0, 100_000, 100_000)]
        {
            let policy =
                Policy { sample: Share::from_percent(percent).unwrap(), seed: 7, ..Policy::default() };
            let taken = (0..100_000).filter(|id| policy.decide(ExchangeId(*id), &get()).is_ok()).count();
            assert!((low..=high).contains(&taken), "{percent} %: {taken}");
        }
        assert_eq!(Share::from_percent(100.1), None);
        assert_eq!(Share::from_percent(f64::NAN), None);
    }
}
