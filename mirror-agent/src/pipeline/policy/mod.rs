//! Enters: the head of a request. Leaves: the experiments that take it, or the reason to skip it.

mod asked;
mod exclusion;
mod experiment;
mod methods;
mod names;
mod pattern;
mod rule;
mod sample;
mod set;
mod share;
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
};

use self::asked::{Asked, Wanted};
use crate::pipeline::{Endpoint, FlowKey, http::RequestHead, reason::SkipReason};

/// Which experiments take which requests.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    experiments: Vec<Experiment>,
    wanted: Wanted,
    reads_answers: bool,
}

impl Policy {
    /// The policy of these experiments; of more than [`ExperimentSet::CAPACITY`] the rest takes nothing.
    #[must_use]
    pub fn new(mut experiments: Vec<Experiment>) -> Self {
        let mut wanted = Wanted::default();
        experiments.iter_mut().for_each(|experiment| experiment.bind(&mut wanted));
        let reads_answers = experiments.iter().any(|experiment| experiment.reads_answers);
        Self { experiments, wanted, reads_answers }
    }

    /// The experiments; an [`ExperimentSet`] holds positions in this list.
    #[must_use]
    pub fn experiments(&self) -> &[Experiment] {
        &self.experiments
    }

    /// Whether any experiment reads live's answers.
    #[must_use]
    pub const fn reads_answers(&self) -> bool {
        self.reads_answers
    }

    /// Whether an experiment that is about requests to `server` reads its answers.
    #[must_use]
    pub fn reads_answers_of(&self, server: &Endpoint) -> bool {
        let reads = |one: &Experiment| one.reads_answers && !one.is_paused && one.concerns(server);
        self.reads_answers && self.experiments.iter().take(ExperimentSet::CAPACITY).any(reads)
    }

    /// Decides on one request of `flow`. `draw` is uniform over all `u64` and of this request alone. Each experiment
    /// that is about the request's server and leaves the request aside is told of, by its position, with the reason.
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
        mut skipped: impl FnMut(usize, SkipReason),
    ) -> Result<ExperimentSet, SkipReason> {
        if head.facts.has_mirror_id {
            return Err(SkipReason::Marked);
        } else if head.facts.connect {
            return Err(SkipReason::Connect);
        } else if head.facts.upgrade {
            return Err(SkipReason::Upgrade);
        }
        let asked = Asked::new(&self.wanted, flow, head, draw);
        let mut taken = ExperimentSet::default();
        let mut closest = SkipReason::Unmatched;
        for (position, experiment) in self.experiments.iter().enumerate().take(ExperimentSet::CAPACITY) {
            if !experiment.concerns(&flow.server) {
                continue;
            }
            match experiment.refuse(&asked) {
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
        SkipReason::Marked | SkipReason::Connect | SkipReason::Upgrade | SkipReason::Unmatched => 0,
        SkipReason::Paused => 1,
        SkipReason::Method => 2,
        SkipReason::Excluded => 3,
        SkipReason::NoKey => 4,
        SkipReason::Sampled => 5,
        // The experiment took it.
        SkipReason::Interlock => 6,
    }
}
