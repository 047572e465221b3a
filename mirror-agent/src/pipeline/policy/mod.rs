//! Enters: the head of a request. Leaves: the experiments that take it, or the reason to skip it.

use std::sync::Arc;

use crate::pipeline::{http::RequestHead, reason::SkipReason};

/// A set of HTTP methods (RFC 9110 section 9.1: case-sensitive).
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Methods {
    /// Every method.
    All,
    /// These only.
    Only(Vec<String>),
}

impl Methods {
    const SAFE: [&str; 3] = ["GET", "HEAD", "OPTIONS"];

    /// Whether `method` is in the set.
    #[must_use]
    pub fn contains(&self, method: &[u8]) -> bool {
        match self {
            Self::All => true,
            Self::Only(list) => list.iter().any(|entry| entry.as_bytes() == method),
        }
    }

    /// Whether all of them are safe: RFC 9110 section 9.2.1, of those that are mirrored unless said otherwise.
    #[must_use]
    pub fn are_safe(&self) -> bool {
        match self {
            Self::All => false,
            Self::Only(list) => list.iter().all(|method| Self::SAFE.contains(&method.as_str())),
        }
    }
}

impl Default for Methods {
    /// The methods that RFC 9110 section 9.2.1 calls safe and that servers answer: a copy of any other is a write.
    fn default() -> Self {
        Self::Only(Self::SAFE.map(String::from).to_vec())
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

/// Tells experiments apart for as long as the agent runs, also after the configuration was loaded again.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ExperimentId(pub u32);

/// Which requests one experiment takes.
#[derive(Clone, Debug)]
pub struct Experiment {
    /// Its number.
    pub id: ExperimentId,
    /// Methods to mirror.
    pub methods: Methods,
    /// Share of the requests to mirror.
    pub sample: Share,
}

impl Experiment {
    /// Why the request is not the experiment's; `None` where it is. `draw` is uniform over all `u64` and of this
    /// request alone.
    fn refuse(&self, head: &RequestHead<'_>, draw: u64) -> Option<SkipReason> {
        if !self.methods.contains(head.method) {
            Some(SkipReason::Method)
        } else if self.sample != Share::ALL && !self.sample.takes(mix(draw ^ u64::from(self.id.0))) {
            Some(SkipReason::Sampled)
        } else {
            None
        }
    }
}

impl Default for Experiment {
    fn default() -> Self {
        Self { id: ExperimentId::default(), methods: Methods::default(), sample: Share::ALL }
    }
}

/// Which experiments take which requests.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    experiments: Vec<Experiment>,
}

impl Policy {
    /// The policy of these experiments; of more than [`ExperimentSet::CAPACITY`] the rest takes nothing.
    #[must_use]
    pub const fn new(experiments: Vec<Experiment>) -> Self {
        Self { experiments }
    }

    /// The experiments; an [`ExperimentSet`] holds positions in this list.
    #[must_use]
    pub fn experiments(&self) -> &[Experiment] {
        &self.experiments
    }

    /// Decides on one request. `draw` is uniform over all `u64` and of this request alone. Each experiment that leaves
    /// the request aside is told of, by its position, with the reason.
    ///
    /// # Errors
    ///
    /// The reason to skip it: the marker before all else, since a copy must never be copied again; of those of several
    /// experiments that of the one that came closest to taking it.
    pub fn decide(
        &self,
        head: &RequestHead<'_>,
        draw: u64,
        mut skipped: impl FnMut(usize, SkipReason),
    ) -> Result<ExperimentSet, SkipReason> {
        if head.facts.has_mirror_id {
            return Err(SkipReason::Marked);
        } else if head.facts.connect {
            return Err(SkipReason::Connect);
        } else if head.facts.upgrade {
            return Err(SkipReason::Upgrade);
        }
        let mut taken = ExperimentSet::default();
        let mut closest = SkipReason::Method;
        for (position, experiment) in self.experiments.iter().enumerate().take(ExperimentSet::CAPACITY) {
            match experiment.refuse(head, draw) {
                None => taken.insert(position),
                Some(reason) => {
                    skipped(position, reason);
                    if stage(reason) > stage(closest) {
                        closest = reason;
                    }
                }
            }
        }
        if taken.is_empty() { Err(closest) } else { Ok(taken) }
    }
}

impl From<Experiment> for Policy {
    fn from(experiment: Experiment) -> Self {
        Self::new(vec![experiment])
    }
}

/// How far a request came before an experiment left it aside.
const fn stage(reason: SkipReason) -> u8 {
    match reason {
        SkipReason::Marked | SkipReason::Connect | SkipReason::Upgrade => 0,
        SkipReason::Method => 1,
        SkipReason::Sampled => 2,
        // The experiment took it.
        SkipReason::Interlock => 3,
    }
}

/// Positions in a policy's list of experiments.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ExperimentSet(u128);

impl ExperimentSet {
    /// How many experiments a policy can have.
    pub const CAPACITY: usize = 128;

    /// Adds a position below [`Self::CAPACITY`]; others are left out.
    pub fn insert(&mut self, position: usize) {
        self.0 |= Self::bit(position);
    }

    /// Whether `position` is among them.
    #[must_use]
    pub fn contains(self, position: usize) -> bool {
        self.0 & Self::bit(position) != 0
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The positions, in their order.
    pub fn iter(self) -> impl Iterator<Item = usize> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let position = usize::try_from(rest.trailing_zeros()).unwrap_or(Self::CAPACITY);
            rest &= rest.wrapping_sub(1);
            (position < Self::CAPACITY).then_some(position)
        })
    }

    fn bit(position: usize) -> u128 {
        u32::try_from(position).ok().and_then(|position| 1_u128.checked_shl(position)).unwrap_or(0)
    }
}

/// Which experiments of which policy took a request.
#[derive(Debug)]
pub struct Selection {
    /// The policy that was in force when the request's head was complete.
    pub policy: Arc<Policy>,
    /// Those of its experiments that took the request; at least one.
    pub experiments: ExperimentSet,
}

/// A bijection of `u64` with good avalanche (the finaliser of `SplitMix64`): consecutive numbers become uniform draws.
pub(super) fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(raw: &str) -> RequestHead<'_> {
        RequestHead::parse(raw.as_bytes()).unwrap()
    }

    fn decide(policy: &Policy, start_line: &str, draw: u64) -> Result<Vec<usize>, SkipReason> {
        let raw = format!("{start_line}\r\nhost: a\r\n\r\n");
        let head = head(&raw);
        policy.decide(&head, draw, |_, _| {}).map(|taken| taken.iter().collect())
    }

    fn one(experiment: Experiment) -> Policy {
        experiment.into()
    }

    #[test]
    fn only_safe_methods_are_mirrored_unless_asked_for() {
        let policy = one(Experiment::default());
        assert_eq!(decide(&policy, "GET / HTTP/1.1", 1), Ok(vec![0]));
        assert_eq!(decide(&policy, "POST / HTTP/1.1", 1), Err(SkipReason::Method));
        assert_eq!(decide(&policy, "get / HTTP/1.1", 1), Err(SkipReason::Method));
        let all = one(Experiment { methods: Methods::All, ..Experiment::default() });
        assert_eq!(decide(&all, "POST / HTTP/1.1", 1), Ok(vec![0]));
    }

    #[test]
    fn a_copy_is_never_copied_again_whatever_else_it_is() {
        let all = one(Experiment { methods: Methods::All, ..Experiment::default() });
        let marked = "CONNECT a:1 HTTP/1.1\r\nx-mirror-id: 1\r\nupgrade: x";
        assert_eq!(decide(&all, marked, 1), Err(SkipReason::Marked));
    }

    #[test]
    fn the_sample_is_as_large_as_asked_for() {
        for (percent, low, high) in
            [(0.0, 0, 0), (0.5, 400, 600), (10.0, 9_700, 10_300), (100.0, 100_000, 100_000)]
        {
            let sample = Share::from_percent(percent).unwrap();
            let policy = one(Experiment { sample, ..Experiment::default() });
            let is_taken = |id: &u64| decide(&policy, "GET / HTTP/1.1", mix(7 ^ *id)).is_ok();
            let taken = (0..100_000).filter(is_taken).count();
            assert!((low..=high).contains(&taken), "{percent} %: {taken}");
        }
        assert_eq!(Share::from_percent(100.1), None);
        assert_eq!(Share::from_percent(f64::NAN), None);
    }

    #[test]
    fn each_experiment_decides_for_itself_and_says_why_not() {
        let experiment = |id, methods: &str, percent| Experiment {
            id: ExperimentId(id),
            methods: Methods::Only(vec![methods.to_owned()]),
            sample: Share::from_percent(percent).unwrap(),
        };
        let policy = Policy::new(vec![
            experiment(0, "GET", 100.0),
            experiment(1, "POST", 100.0),
            experiment(2, "GET", 0.0),
        ]);
        let head = RequestHead::parse(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        let mut skipped = Vec::new();
        let taken = policy.decide(&head, 1, |position, reason| skipped.push((position, reason))).unwrap();
        assert_eq!(taken.iter().collect::<Vec<_>>(), [0]);
        assert_eq!(skipped, [(1, SkipReason::Method), (2, SkipReason::Sampled)]);
        let none = Policy::new(policy.experiments()[1..].to_vec());
        assert_eq!(decide(&none, "GET / HTTP/1.1", 1), Err(SkipReason::Sampled), "the one that came closest");
    }

    #[test]
    fn a_set_holds_every_position_that_a_policy_can_have() {
        let mut set = ExperimentSet::default();
        assert!(set.is_empty());
        for position in [0, 63, 64, 127, 128, usize::MAX] {
            set.insert(position);
        }
        assert_eq!(set.iter().collect::<Vec<_>>(), [0, 63, 64, 127]);
        assert!(set.contains(127) && !set.contains(1) && !set.contains(128));
    }
}
