//! Enters: exchanges, compared. Leaves: rates with their intervals, clusters of divergences, and a verdict.
//!
//! An exchange is counted at its endpoint (`endpoint`, `scope`), what differs in it at its places (`place`, told apart by
//! `look`) and in a cluster of exchanges that differ alike (`cluster`). Places are told from noise by the control, or
//! become proposals by what their values look like (`evidence`, `proposal`). A verdict (`verdict`) is made of intervals
//! (`interval`) that hold however often one looks. What several judges know adds up (`portion`).

mod cluster;
mod config;
mod endpoint;
mod evidence;
mod field;
mod interval;
mod latency;
mod look;
mod place;
mod portion;
mod proposal;
mod scope;
mod sketch;
mod summary;
mod tally;
mod verdict;

use std::{collections::BTreeMap, sync::Arc};

pub use self::{
    cluster::ClusterKey,
    config::{GateConfig, JudgeConfig, NoiseThresholds, OnFail},
    field::{FieldSummary, NumbersSummary},
    interval::Interval,
    latency::{Of, Phase},
    look::Look,
    place::{Looks, Standing},
    portion::{Portion, PortionError},
    proposal::{Proposal, Remedy},
    scope::ALPHA,
    sketch::RELATIVE_ERROR,
    summary::{
        Certainty, ClusterSummary, Counts, EndpointSummary, ErrorSummary, Figure, PlaceSummary, RatioSummary,
        ScopeSummary, Summary, TimeSummary,
    },
    verdict::{Check, CheckName, UndecidedReason, Verdict},
};
use self::{
    endpoint::Endpoints,
    field::Field,
    proposal::Accepted,
    scope::{Scope, Setting},
    tally::Clock,
};
use crate::pipeline::{
    Answered, Timestamp,
    compare::Compared,
    reason::{ComparisonResult, IncomparableReason},
};

/// Fields that are followed, at most.
const MAX_FIELDS: usize = 64;

/// Proposals that can be accepted, at most.
const MAX_ACCEPTED: usize = 4096;

/// An exchange, once live and all targets are done with it.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// When. Time moves forward; what comes late counts as of the latest time.
    pub at: Timestamp,
    /// What [`Judge::endpoint`] said.
    pub endpoint: &'a Arc<str>,
    /// Live's answer.
    pub live: &'a Answered,
    /// The shadow's.
    pub shadow: &'a Answered,
    /// How the two compare.
    pub compared: &'a Result<Compared, IncomparableReason>,
    /// The control's, and how live's compares with it; `None` where the experiment has no control, or this exchange none.
    pub control: Option<(&'a Answered, &'a Result<Compared, IncomparableReason>)>,
}

/// What came of an exchange.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Judged {
    /// By what is known of noise at this moment.
    pub result: ComparisonResult,
    /// Why it could not be compared, where it could not.
    pub reason: Option<IncomparableReason>,
    /// Which exchanges differ like it, where it diverges.
    pub cluster: Option<ClusterKey>,
}

/// Judges one shadow of one experiment.
///
/// All that traffic can make grow is bounded: endpoints by [`JudgeConfig::max_endpoints`], places and clusters of each by
/// a few hundred. The cost of an exchange does not depend on how many there were.
#[derive(Clone, Debug)]
pub struct Judge {
    has_control: bool,
    thresholds: NoiseThresholds,
    gate: Option<GateConfig>,
    endpoints: Endpoints,
    scopes: BTreeMap<Arc<str>, Scope>,
    /// Endpoints that came up, those included that became part of others.
    came_up: u32,
    fields: Vec<Field>,
    accepted: Vec<Accepted>,
    clock: Clock,
}

impl Judge {
    /// A judge who has seen nothing. `has_control` says whether the experiment has a control at all.
    #[must_use]
    pub fn new(config: &JudgeConfig, has_control: bool) -> Self {
        Self {
            has_control,
            thresholds: config.noise,
            gate: config.gate.clone(),
            endpoints: Endpoints::new(&config.endpoints, config.max_endpoints),
            scopes: BTreeMap::new(),
            came_up: 0,
            fields: Vec::new(),
            accepted: Vec::new(),
            clock: Clock::new(config.gate.as_ref().and_then(|gate| gate.window)),
        }
    }

    /// The endpoint of a request by its method and target: `GET /orders/{id}`; `other` beyond the bound.
    pub fn endpoint(&mut self, method: &[u8], target: &[u8]) -> Arc<str> {
        let endpoint = self.endpoints.find(method, target);
        for (old, new) in self.endpoints.take_renamed() {
            if let Some(scope) = self.scopes.remove(&old) {
                self.scope(&new).absorb(scope);
            }
        }
        endpoint
    }

    /// Counts an exchange.
    pub fn observe(&mut self, seen: &Seen<'_>) -> Judged {
        self.clock.advance(seen.at);
        if let Ok(compared) = seen.compared {
            for pair in compared.fields.iter().filter(|pair| pair.field < MAX_FIELDS) {
                if pair.field >= self.fields.len() {
                    self.fields.resize_with(pair.field.saturating_add(1), Field::default);
                }
                if let Some(field) = self.fields.get_mut(pair.field) {
                    field.add(pair);
                }
            }
        }
        let setting = Setting {
            has_control: self.has_control,
            thresholds: self.thresholds,
            clock: self.clock,
            accepted: &self.accepted,
        };
        if let Some(scope) = self.scopes.get_mut(seen.endpoint) {
            return scope.observe(seen, setting);
        }
        // It is new, or became part of another while the exchange was on its way.
        let endpoint = self.endpoints.again(seen.endpoint);
        let accepted = std::mem::take(&mut self.accepted);
        let setting = Setting { accepted: &accepted, ..self.setting() };
        let judged = self.scope(&endpoint).observe(seen, setting);
        self.accepted = accepted;
        judged
    }

    /// What is known of the numbers that are followed, in the order of the configuration, as far as any was seen.
    #[must_use]
    pub fn fields(&self) -> Vec<FieldSummary> {
        summary::of_fields(&self.fields)
    }

    /// What is known at this moment: all that is shown anywhere. It takes some milliseconds where there are many
    /// endpoints, and looks at every place again.
    pub fn summary(&mut self, now: Timestamp) -> Summary {
        self.settle(now);
        Summary::of(self)
    }

    /// What looks like noise and nobody has accepted yet.
    pub fn proposals(&mut self, now: Timestamp) -> Vec<Proposal> {
        self.settle(now);
        proposal::proposals(self.scopes.values())
    }

    /// Accepts proposals by their names: from here on, and for all that was counted, what they are about is explained by
    /// noise. Returns those that were found; their remedies belong into the rules of the comparison.
    pub fn accept(&mut self, names: &[impl AsRef<str>]) -> Vec<Proposal> {
        let mut found = proposal::proposals(self.scopes.values());
        found.retain(|proposal| names.iter().any(|name| name.as_ref() == proposal.name));
        let room = MAX_ACCEPTED.saturating_sub(self.accepted.len());
        found.truncate(room);
        self.accepted.extend(found.iter().map(Proposal::accepted));
        for scope in self.scopes.values_mut() {
            scope.explain(&self.accepted);
        }
        found
    }

    fn settle(&mut self, now: Timestamp) {
        self.clock.advance(now);
        let setting = Setting {
            has_control: self.has_control,
            thresholds: self.thresholds,
            clock: self.clock,
            accepted: &self.accepted,
        };
        for scope in self.scopes.values_mut() {
            scope.settle(setting);
        }
    }

    fn setting(&self) -> Setting<'_> {
        Setting {
            has_control: self.has_control,
            thresholds: self.thresholds,
            clock: self.clock,
            accepted: &self.accepted,
        }
    }

    fn scope(&mut self, name: &Arc<str>) -> &mut Scope {
        let came_up = &mut self.came_up;
        self.scopes.entry(Arc::clone(name)).or_insert_with(|| {
            *came_up = came_up.saturating_add(1);
            Scope::new(Arc::clone(name), *came_up)
        })
    }
}

#[cfg(test)]
mod tests;
