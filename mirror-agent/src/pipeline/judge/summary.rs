//! Enters: a judge. Leaves: all that is shown of what it knows.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde::Serialize;

use super::{
    Judge, Look, Proposal, RELATIVE_ERROR, Standing,
    cluster::ClusterKey,
    field::{Field, FieldSummary},
    interval::{rate, real},
    latency::{Latency, Of, Phase},
    proposal,
    scope::{ALPHA, Diverging, Errors, Scope, WHOLE_ALPHA, check_alpha, scope_alpha},
    verdict::{Check, CheckName, Measured, Verdict},
};
use crate::pipeline::{
    reason::{ComparisonResult, DivergenceKind, IncomparableReason, UntimedReason, VerdictState, reasons},
    stats::bump,
};

/// Places that are told of, at most; the most important ones.
const MAX_PLACES: usize = 500;

/// Clusters that are told of, at most; the most important ones.
const MAX_CLUSTERS: usize = 500;

/// Counts by label.
pub type Counts = BTreeMap<&'static str, u64>;

reasons! {
    /// How certain it is that a cluster is more than noise.
    Certainty {
        /// It holds a place that is known to be.
        Certain => "certain",
        /// It holds a place of which it is not known.
        Unclear => "unclear",
        /// All its places look like noise.
        Unlikely => "unlikely",
    }
}

/// A figure, and between what the truth lies.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Figure {
    /// As it was seen.
    pub point: f64,
    /// The lower end of its interval; `None` where nothing is known.
    pub low: Option<f64>,
    /// The upper end.
    pub high: Option<f64>,
}

impl Figure {
    pub(super) const fn new(point: f64, low: f64, high: f64) -> Self {
        Self { point, low: Some(low), high: Some(high) }
    }
}

/// All that is known of one shadow of one experiment.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// The verdict; `None` where there is no gate.
    pub verdict: Option<Verdict>,
    /// Whether more than twice the allowed share of exchanges diverges, for certain.
    pub burn: bool,
    /// Whether there is a control.
    pub has_control: bool,
    /// With which probability any interval of any check ever misses the truth.
    pub alpha: f64,
    /// Largest relative error of times and quantiles, which the intervals include.
    pub relative_error: f64,
    /// The whole experiment.
    #[serde(flatten)]
    pub whole: ScopeSummary,
    /// Exchanges in which something differed, by kind, as they were judged.
    pub divergences: Counts,
    /// Its endpoints, those with the most exchanges first.
    pub endpoints: Vec<EndpointSummary>,
    /// Divergences by their causes, as far as these can be told apart; the most important first.
    pub clusters: Vec<ClusterSummary>,
    /// The places at which answers differ; those that are more than noise first.
    pub places: Vec<PlaceSummary>,
    /// Numbers that are followed.
    pub fields: Vec<FieldSummary>,
    /// What looks like noise and was not accepted yet.
    pub proposals: Vec<Proposal>,
}

/// An endpoint.
#[derive(Clone, Debug, Serialize)]
pub struct EndpointSummary {
    /// Its name: `GET /orders/{id}`.
    pub endpoint: Arc<str>,
    /// Whether it keeps to the gate; `None` where there is none.
    pub state: Option<VerdictState>,
    /// What is known of it.
    #[serde(flatten)]
    pub of: ScopeSummary,
}

/// What is known of an endpoint, or of the whole.
#[derive(Clone, Debug, Serialize)]
pub struct ScopeSummary {
    /// Exchanges that were observed.
    pub exchanges: u64,
    /// The same by result, by what is known of noise today.
    pub results: Counts,
    /// The same as they were judged when they came; these counts only grow.
    pub judged: Counts,
    /// Those that could not be compared, by reason.
    pub incomparable: Counts,
    /// The share of exchanges that diverge beyond noise.
    pub divergence: Figure,
    /// Errors.
    pub errors: ErrorSummary,
    /// The p95 of the service time, held against live's or the control's.
    pub p95: RatioSummary,
    /// Service times.
    pub times: Vec<TimeSummary>,
    /// Exchanges whose times are left out, by reason.
    pub untimed: Counts,
    /// The smallest round trips that were subtracted, in seconds; none where none is known.
    pub round_trips: BTreeMap<&'static str, f64>,
}

/// How often answers are errors: a status of 500 or above, or none.
#[derive(Clone, Debug, Serialize)]
pub struct ErrorSummary {
    /// Answers of which it is known, by side.
    pub known: Counts,
    /// Errors among them.
    pub errors: Counts,
    /// By how much the shadow's share exceeds that of what it is held against.
    pub excess: Figure,
}

/// A time as a multiple of another.
#[derive(Clone, Debug, Serialize)]
pub struct RatioSummary {
    /// What the shadow is held against.
    pub against: Of,
    /// The multiple; `None` where there are no times.
    pub ratio: Option<Figure>,
    /// Whether it keeps to the gate; `None` where the gate does not ask.
    pub state: Option<VerdictState>,
}

/// Service times of one side, in seconds.
#[derive(Clone, Debug, Serialize)]
pub struct TimeSummary {
    /// Whose.
    pub of: Of,
    /// Up to which byte.
    pub phase: Phase,
    /// How many.
    pub count: u64,
    /// The median.
    pub p50: Figure,
    /// What 95 in 100 do not exceed.
    pub p95: Figure,
    /// What 99 in 100 do not exceed.
    pub p99: Figure,
}

/// Exchanges of one endpoint that differ alike.
#[derive(Clone, Debug, Serialize)]
pub struct ClusterSummary {
    /// By what it is known.
    pub key: ClusterKey,
    /// The endpoint.
    pub endpoint: Arc<str>,
    /// Live's status code, and the shadow's.
    pub statuses: (u16, u16),
    /// Where they differ: paths, each once.
    pub paths: Vec<Arc<str>>,
    /// How they differ there.
    pub kinds: Vec<DivergenceKind>,
    /// How certain it is that this is more than noise.
    pub certainty: Certainty,
    /// Exchanges with the shadow.
    pub count: u64,
    /// Exchanges with the control that differ alike.
    pub control_count: u64,
    /// The share of the endpoint's exchanges, the control's taken off.
    pub rate: Figure,
    /// When it was first seen, in nanoseconds of the clock of [`Timestamp`](crate::pipeline::Timestamp).
    pub first_seen: u64,
    /// When it was last seen.
    pub last_seen: u64,
}

/// A place at which answers differ.
#[derive(Clone, Debug, Serialize)]
pub struct PlaceSummary {
    /// The endpoint.
    pub endpoint: Arc<str>,
    /// The path.
    pub path: Arc<str>,
    /// How they differ.
    pub kind: DivergenceKind,
    /// What the values look like.
    pub look: Look,
    /// The share of exchanges in which live and shadow differ there.
    pub raw: f64,
    /// The share in which live and control do; `None` where there is no control.
    pub noise: Option<f64>,
    /// What is known of it.
    pub standing: Standing,
    /// Whether it is known to be more than noise.
    pub counts: bool,
}

impl Summary {
    /// Everything that `judge` knows. Its places have been looked at.
    pub(super) fn of(judge: &Judge) -> Self {
        let mut sum = Sum::default();
        let mut endpoints = Vec::new();
        let mut checks = Vec::new();
        for scope in judge.scopes.values() {
            sum.add(scope, judge);
            let measured = measure(judge, scope);
            let of_scope = judge.gate.as_ref().map(|gate| measured.checks(gate));
            let state = judge.gate.as_ref().zip(of_scope.as_ref()).map(|(gate, checks)| {
                state_of(checks, scope.compared.current(judge.clock) >= gate.min_samples)
            });
            let of =
                Part { judged: scope.judged, results: scope.results(), incomparable: scope.incomparable };
            let of = of.summary(&measured, &scope.latency, of_scope.as_deref());
            endpoints.push(EndpointSummary { endpoint: Arc::clone(&scope.name), state, of });
            checks.push((scope.compared.current(judge.clock), of_scope.unwrap_or_default()));
        }
        endpoints.sort_by_key(|endpoint| std::cmp::Reverse(endpoint.of.exchanges));
        let measured = sum.measured(judge);
        let of_whole = judge.gate.as_ref().map(|gate| measured.checks(gate));
        let whole = sum.part.summary(&measured, &sum.latency, of_whole.as_deref());
        let samples = sum.diverging.shadow_of;
        Self {
            burn: judge.gate.as_ref().is_some_and(|gate| measured.burns(gate)),
            verdict: judge
                .gate
                .as_ref()
                .zip(of_whole)
                .map(|(gate, of_whole)| Verdict::of(gate, of_whole, samples, checks)),
            has_control: judge.has_control,
            alpha: ALPHA,
            relative_error: RELATIVE_ERROR,
            divergences: counts(DivergenceKind::LABELS, &sum.divergences),
            whole,
            endpoints,
            clusters: clusters(judge),
            places: places(judge),
            fields: of_fields(&judge.fields),
            proposals: proposal::proposals(judge.scopes.values()),
        }
    }
}

/// What is known of each of the numbers that are followed.
pub(super) fn of_fields(fields: &[Field]) -> Vec<FieldSummary> {
    let alpha = check_alpha(WHOLE_ALPHA) / real(u64::try_from(fields.len()).unwrap_or(1)).max(1.0);
    fields.iter().enumerate().map(|(at, field)| field.summary(at, alpha)).collect()
}

/// What the endpoints come to together.
#[derive(Debug, Default)]
struct Sum {
    part: Part,
    divergences: [u64; DivergenceKind::ALL.len()],
    diverging: Diverging,
    errors: Errors,
    latency: Latency,
    /// Exchanges that the most certain place of any endpoint stands for, at least.
    least: f64,
}

impl Sum {
    fn add(&mut self, scope: &Scope, judge: &Judge) {
        let add = |mine: &mut [u64], theirs: &[u64]| {
            theirs.iter().enumerate().for_each(|(index, count)| bump(mine, index, *count));
        };
        add(&mut self.part.judged, &scope.judged);
        add(&mut self.part.results, &scope.results());
        add(&mut self.part.incomparable, &scope.incomparable);
        add(&mut self.divergences, &scope.divergences);
        self.diverging.add(&scope.diverging(judge.clock));
        self.errors.merge(&scope.errors);
        self.latency.merge(&scope.latency);
        self.least = self.least.max(least(judge, scope) * real(scope.compared.total()));
    }

    fn measured(&self, judge: &Judge) -> Measured<'_> {
        let baseline = if judge.has_control { Of::Control } else { Of::Live };
        Measured {
            endpoint: None,
            has_control: judge.has_control,
            clock: judge.clock,
            alpha: WHOLE_ALPHA / judge.clock.starts(),
            diverging: self.diverging,
            least: self.least / real(self.diverging.shadow_of).max(1.0),
            errors: &self.errors,
            shadow: self.latency.current(Of::Shadow, judge.clock),
            baseline: self.latency.current(baseline, judge.clock),
        }
    }
}

fn measure<'a>(judge: &Judge, scope: &'a Scope) -> Measured<'a> {
    let baseline = if judge.has_control { Of::Control } else { Of::Live };
    Measured {
        endpoint: Some(&scope.name),
        has_control: judge.has_control,
        clock: judge.clock,
        alpha: scope_alpha(scope.order) / judge.clock.starts(),
        diverging: scope.diverging(judge.clock),
        least: least(judge, scope),
        errors: &scope.errors,
        shadow: scope.latency.current(Of::Shadow, judge.clock),
        baseline: scope.latency.current(baseline, judge.clock),
    }
}

/// What the rate of divergences of an endpoint is at least, by one of its places. Places are counted over all time: in a
/// window they say nothing.
fn least(judge: &Judge, scope: &Scope) -> f64 {
    if judge.has_control && judge.clock.slot().is_none() { scope.least_excess(judge.setting()) } else { 0.0 }
}

fn state_of(checks: &[Check], has_enough: bool) -> VerdictState {
    let is = |state: VerdictState| move |check: &Check| check.state == state;
    if checks.iter().any(is(VerdictState::Fail)) {
        VerdictState::Fail
    } else if has_enough && checks.iter().all(is(VerdictState::Pass)) {
        VerdictState::Pass
    } else {
        VerdictState::NotEnoughData
    }
}

/// Plain counts of an endpoint, or of all.
#[derive(Clone, Copy, Debug, Default)]
struct Part {
    judged: [u64; ComparisonResult::ALL.len()],
    results: [u64; ComparisonResult::ALL.len()],
    incomparable: [u64; IncomparableReason::ALL.len()],
}

impl Part {
    fn summary(&self, measured: &Measured<'_>, latency: &Latency, checks: Option<&[Check]>) -> ScopeSummary {
        let p95 = checks.and_then(|checks| checks.iter().find(|check| check.name == CheckName::P95));
        let seconds = |time: Duration| time.as_secs_f64();
        let round_trips = Of::LABELS.into_iter().zip(latency.round_trips);
        ScopeSummary {
            exchanges: self.judged.iter().fold(0, |sum, count| sum.saturating_add(*count)),
            results: counts(ComparisonResult::LABELS, &self.results),
            judged: counts(ComparisonResult::LABELS, &self.judged),
            incomparable: counts(IncomparableReason::LABELS, &self.incomparable),
            divergence: measured.divergence(),
            errors: ErrorSummary {
                known: counts(Of::LABELS, &measured.errors.known),
                errors: counts(Of::LABELS, &measured.errors.errors),
                excess: measured.errors(),
            },
            p95: RatioSummary {
                against: if measured.has_control { Of::Control } else { Of::Live },
                ratio: measured.p95(),
                state: p95.map(|check| check.state),
            },
            times: times(latency, measured.alpha),
            untimed: counts(UntimedReason::LABELS, &latency.untimed),
            round_trips: round_trips.filter_map(|(of, time)| Some((of, seconds(time?)))).collect(),
        }
    }
}

/// Service times over all that was seen. Half of what times may be wrong with is shared by their 36 ends.
fn times(latency: &Latency, alpha: f64) -> Vec<TimeSummary> {
    let alpha = check_alpha(alpha) / 36.0;
    let mut times = Vec::new();
    for of in Of::ALL {
        for phase in Phase::ALL {
            let Some(sketch) = latency.sketch(of, phase).filter(|sketch| sketch.count() > 0) else {
                continue;
            };
            let figure = |q: f64| {
                let (low, high) = sketch.quantile_bounds(q, alpha);
                Figure { point: sketch.quantile(q).unwrap_or(0.0), low, high }
            };
            times.push(TimeSummary {
                of,
                phase,
                count: sketch.count(),
                p50: figure(0.5),
                p95: figure(0.95),
                p99: figure(0.99),
            });
        }
    }
    times
}

fn clusters(judge: &Judge) -> Vec<ClusterSummary> {
    let mut clusters = Vec::new();
    for scope in judge.scopes.values() {
        let compared = scope.diverging(judge.clock);
        // Only shown: an equal part for each row that there may be.
        let alpha = check_alpha(scope_alpha(scope.order)) / 128.0;
        for (key, cluster) in scope.clusters.iter().filter(|(_, cluster)| cluster.shadow.total() > 0) {
            let of_cluster = || cluster.places.iter().filter_map(|id| scope.places.get(*id));
            let has = |standing| of_cluster().any(|place| place.standing == standing);
            let mut paths: Vec<_> = of_cluster().map(|place| Arc::clone(&place.path)).collect();
            paths.sort();
            paths.dedup();
            let (count, control_count) = (cluster.shadow.total(), cluster.control.total());
            let shadow = rate(count, scope.compared.total(), alpha);
            let control = rate(control_count, scope.control_compared.total(), alpha);
            let taken_off = |of: f64| if compared.control_of > 0 { of } else { 0.0 };
            let share = real(count) / real(scope.compared.total()).max(1.0);
            let control_share = real(control_count) / real(scope.control_compared.total()).max(1.0);
            clusters.push(ClusterSummary {
                key,
                endpoint: Arc::clone(&scope.name),
                statuses: cluster.statuses,
                paths,
                kinds: DivergenceKind::ALL
                    .into_iter()
                    .filter(|kind| of_cluster().any(|place| place.kind == *kind))
                    .collect(),
                certainty: if has(Standing::Real) {
                    Certainty::Certain
                } else if has(Standing::Unclear) {
                    Certainty::Unclear
                } else {
                    Certainty::Unlikely
                },
                count,
                control_count,
                rate: Figure::new(
                    (share - control_share).max(0.0),
                    (shadow.lower - taken_off(control.upper)).max(0.0),
                    (shadow.upper - taken_off(control.lower)).max(0.0),
                ),
                first_seen: cluster.first_seen.as_nanos(),
                last_seen: cluster.last_seen.as_nanos(),
            });
        }
    }
    let low = |cluster: &ClusterSummary| cluster.rate.low.unwrap_or(0.0);
    clusters.sort_by(|one, other| {
        let by_certainty = one.certainty.index().cmp(&other.certainty.index());
        by_certainty.then(low(other).total_cmp(&low(one))).then(other.count.cmp(&one.count))
    });
    clusters.truncate(MAX_CLUSTERS);
    clusters
}

fn places(judge: &Judge) -> Vec<PlaceSummary> {
    let mut places = Vec::new();
    for scope in judge.scopes.values() {
        let compared = real(scope.compared.total()).max(1.0);
        let control_compared = scope.control_compared.total();
        for (_, place) in scope.places.iter() {
            places.push(PlaceSummary {
                endpoint: Arc::clone(&scope.name),
                path: Arc::clone(&place.path),
                kind: place.kind,
                look: place.look,
                raw: real(place.raw) / compared,
                noise: (control_compared > 0).then(|| real(place.noise) / real(control_compared)),
                standing: place.standing,
                counts: place.standing == Standing::Real,
            });
        }
    }
    places.sort_by(|one, other| other.counts.cmp(&one.counts).then(other.raw.total_cmp(&one.raw)));
    places.truncate(MAX_PLACES);
    places
}

fn counts<const N: usize>(labels: [&'static str; N], counts: &[u64; N]) -> Counts {
    labels.into_iter().zip(counts.iter().copied()).collect()
}
