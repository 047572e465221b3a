//! Enters: the head of a request. Leaves: the experiments that take it, or the reason to skip it.

mod asked;
mod beginnings;
mod clue;
mod exclusion;
mod experiment;
mod index;
mod methods;
#[cfg(any(test, feature = "model"))]
pub mod model;
mod names;
mod pattern;
mod rule;
mod sample;
mod servers;
mod set;
mod share;
mod skips;
mod target;
mod token;

#[cfg(test)]
mod tests;

pub use self::{
    exclusion::Exclusion,
    experiment::{Experiment, ExperimentId, MatchedHow, Network},
    methods::{MethodSet, Methods},
    pattern::Pattern,
    rule::{HostRule, PathRule, Rule, RuleError, ValueRule},
    sample::{Sample, SampleBy, WithoutKey, connection_key},
    set::{ExperimentSet, Selection},
    share::{Share, mix},
    skips::SkipCounts,
};

use self::{
    asked::{Asked, Wanted},
    index::{Place, RuleIndex},
    sample::Refused,
    servers::Servers,
};
use crate::pipeline::{Endpoint, FlowKey, http::RequestHead, reason::SkipReason};

/// Which experiments take which requests.
///
/// What a decision costs depends on the rules that a request nearly fits, and hardly on how many there are.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    experiments: Vec<Experiment>,
    wanted: Wanted,
    servers: Servers,
    matches: RuleIndex,
    excludes: RuleIndex,
    paused: ExperimentSet,
    /// Those that read live's answers.
    readers: ExperimentSet,
}

impl Policy {
    /// The policy of these experiments; of more than [`ExperimentSet::CAPACITY`] the rest takes nothing.
    #[must_use]
    pub fn new(mut experiments: Vec<Experiment>) -> Self {
        let mut policy = Self::default();
        experiments.iter_mut().for_each(|experiment| experiment.bind(&mut policy.wanted));
        for (position, experiment) in experiments.iter().enumerate().take(ExperimentSet::CAPACITY) {
            policy.servers.add(position, experiment);
            if experiment.is_paused {
                policy.paused.insert(position);
            }
            if experiment.reads_answers {
                policy.readers.insert(position);
            }
        }
        policy.matches = RuleIndex::new(places(&experiments, |experiment| &experiment.matches));
        policy.excludes = RuleIndex::new(places(&experiments, |experiment| &experiment.excludes));
        Self { experiments, ..policy }
    }

    /// The experiments; an [`ExperimentSet`] holds positions in this list.
    #[must_use]
    pub fn experiments(&self) -> &[Experiment] {
        &self.experiments
    }

    /// Whether any experiment reads live's answers.
    #[must_use]
    pub const fn reads_answers(&self) -> bool {
        !self.readers.is_empty()
    }

    /// Whether an experiment that is about requests to `server` reads its answers.
    #[must_use]
    pub fn reads_answers_of(&self, server: &Endpoint) -> bool {
        let readers = self.readers.without(self.paused);
        !readers.is_empty() && !readers.intersection(self.servers.about(server)).is_empty()
    }

    /// Decides on one request of `flow`. `draw` is uniform over all `u64` and of this request alone. Of the experiments
    /// that are about the request's server, those that leave the request aside are told of, once for each reason.
    ///
    /// # Errors
    ///
    /// The reason to skip it: the marker before all else, since a copy must never be copied again; of those of several
    /// experiments that of the one that came closest to taking it.
    pub fn decide(
        &self,
        flow: &FlowKey,
        head: &RequestHead<'_>,
        draw: u64,
        mut skipped: impl FnMut(ExperimentSet, SkipReason),
    ) -> Result<ExperimentSet, SkipReason> {
        if head.facts.has_mirror_id {
            return Err(SkipReason::Marked);
        } else if head.facts.connect {
            return Err(SkipReason::Connect);
        } else if head.facts.upgrade {
            return Err(SkipReason::Upgrade);
        }
        let concerned = self.servers.about(&flow.server);
        let awake = concerned.without(self.paused);
        let asked = Asked::new(&self.wanted, flow, head, draw);
        let matching = self
            .matches
            .fitting(&asked, awake, |place| self.experiments.get(place.experiment)?.matches.get(place.rule));
        let matched = matching.fits;
        let beside_method = matching.fits_beside_method.without(matched);
        let excluding = self.excludes.fitting(&asked, matched, |place| {
            self.experiments.get(place.experiment)?.excludes.get(place.rule)
        });

        let [mut taken, mut without_key, mut not_drawn] = [ExperimentSet::default(); 3];
        for position in matched.without(excluding.fits).iter() {
            let Some(experiment) = self.experiments.get(position) else { continue };
            match experiment.sample.refuse(&asked) {
                None => taken.insert(position),
                Some(Refused::NoKey) => without_key.insert(position),
                Some(Refused::NotDrawn) => not_drawn.insert(position),
            }
        }
        // The further down, the closer it came.
        let mut closest = SkipReason::Unmatched;
        for (experiments, reason) in [
            (awake.without(matched).without(beside_method), SkipReason::Unmatched),
            (concerned.intersection(self.paused), SkipReason::Paused),
            (beside_method, SkipReason::Method),
            (excluding.fits, SkipReason::Excluded),
            (without_key, SkipReason::NoKey),
            (not_drawn, SkipReason::Sampled),
        ] {
            if !experiments.is_empty() {
                skipped(experiments, reason);
                closest = reason;
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

/// The rules of the experiments that can take something, with where they stand.
fn places<'e>(
    experiments: &'e [Experiment],
    rules: impl Fn(&'e Experiment) -> &'e [Rule] + Clone,
) -> impl Iterator<Item = (Place, &'e Rule)> + Clone {
    experiments.iter().enumerate().take(ExperimentSet::CAPACITY).flat_map(move |(experiment, one)| {
        rules(one).iter().enumerate().map(move |(rule, it)| (Place { experiment, rule }, it))
    })
}
