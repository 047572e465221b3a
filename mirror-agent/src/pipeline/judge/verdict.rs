//! Enters: what is known of an endpoint, or of all. Leaves: whether it keeps to the gate.

use std::sync::Arc;

use serde::Serialize;

use super::{
    GateConfig,
    interval::Interval,
    scope::{Diverging, Errors, check_alpha},
    sketch::Sketch,
    summary::Figure,
    tally::Clock,
};
use crate::pipeline::reason::{VerdictState, reasons};

reasons! {
    /// What a gate checks.
    CheckName {
        /// The share of exchanges that diverge.
        Divergence => "divergence",
        /// By how much the share of errors exceeds that of what the shadow is held against.
        Errors => "errors",
        /// The p95 of the service time, as a multiple of that.
        P95 => "p95",
    }
}

reasons! {
    /// Why it cannot be told yet.
    UndecidedReason {
        /// The experiment has a control of which nothing could be compared.
        NoControl => "no_control",
        /// There are fewer exchanges than the gate asks for.
        TooFewSamples => "too_few_samples",
        /// The limit lies within the interval.
        Undecided => "undecided",
        /// Differences that look like noise would decide, and nobody has said whether they are.
        UnreviewedNoise => "unreviewed_noise",
        /// No service time is known.
        Untimed => "untimed",
    }
}

/// Differences of service times below this are not told from those of the two ways by which they are observed: live's
/// by the hook, the shadow's by its socket. With a control, which is observed like the shadow, there is no such slack.
const SLACK_SECONDS: f64 = 0.0002;

/// A figure held against its limit.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// Which.
    pub name: CheckName,
    /// Of which endpoint; `None` for the whole experiment.
    pub endpoint: Option<Arc<str>>,
    /// The figure, and between what it lies; `None` where there is none.
    pub figure: Option<Figure>,
    /// The limit, inclusive.
    pub limit: f64,
    /// Whether the figure keeps to it for certain.
    pub state: VerdictState,
    /// Why that cannot be told.
    pub reason: Option<UndecidedReason>,
}

/// Whether the new version keeps to the gate.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    /// The answer.
    pub state: VerdictState,
    /// What decided it, or is missing: `divergence`, `p95 GET /orders/{id}`, `too_few_samples`.
    pub reasons: Vec<String>,
    /// The checks of the whole experiment, then those of its endpoints.
    pub checks: Vec<Check>,
}

/// What a scope is judged by.
#[derive(Clone, Debug)]
pub(super) struct Measured<'a> {
    pub(super) endpoint: Option<&'a Arc<str>>,
    pub(super) has_control: bool,
    pub(super) clock: Clock,
    /// What all its checks may be wrong with.
    pub(super) alpha: f64,
    pub(super) diverging: Diverging,
    /// What the rate of divergences is at least, by its most certain place.
    pub(super) least: f64,
    pub(super) errors: &'a Errors,
    /// Times to the last byte: the shadow's, and of what it is held against.
    pub(super) shadow: Sketch,
    pub(super) baseline: Sketch,
}

impl Measured<'_> {
    /// Share of exchanges that diverge.
    pub(super) fn divergence(&self) -> Figure {
        self.figure_of(self.diverging.interval(self.rate_alpha()))
    }

    fn figure_of(&self, interval: Interval) -> Figure {
        let lower = interval.lower.max(self.least);
        let upper = interval.upper.max(lower);
        Figure::new(self.diverging.estimate().clamp(lower, upper), lower, upper)
    }

    fn rate_alpha(&self) -> f64 {
        check_alpha(self.alpha) / 2.0
    }

    /// By how much errors exceed those of what the shadow is held against.
    pub(super) fn errors(&self) -> Figure {
        let (point, interval) = self.errors.excess(self.clock, check_alpha(self.alpha));
        Figure::new(point, interval.lower, interval.upper)
    }

    /// The p95 as a multiple of what it is held against.
    pub(super) fn p95(&self) -> Option<Figure> {
        self.ratio(0.0)
    }

    /// The same, once `less` seconds are taken from the shadow's.
    fn ratio(&self, less: f64) -> Option<Figure> {
        let point = ratio(self.shadow.quantile(P95), self.baseline.quantile(P95), 0.0)?;
        // Half of what times may be wrong with is for this check, a half of that for each side.
        let alpha = check_alpha(self.alpha) / 4.0;
        let shadow = self.shadow.quantile_bounds(P95, alpha);
        let baseline = self.baseline.quantile_bounds(P95, alpha);
        Some(Figure {
            point,
            low: ratio(shadow.0, baseline.1, less),
            high: ratio(shadow.1, baseline.0, less),
        })
    }

    /// Holds all figures against the gate.
    pub(super) fn checks(&self, gate: &GateConfig) -> Vec<Check> {
        let errors = self.errors();
        let mut checks = vec![
            self.divergence_check(gate),
            self.check(CheckName::Errors, Some(errors), &errors, gate.errors, UndecidedReason::Undecided),
        ];
        if let Some(limit) = gate.p95 {
            let slack = if self.has_control { 0.0 } else { SLACK_SECONDS };
            let reason =
                if self.shadow.count() == 0 { UndecidedReason::Untimed } else { UndecidedReason::Undecided };
            let decisive = self.ratio(slack).unwrap_or(Figure { point: 1.0, low: None, high: None });
            checks.push(self.check(CheckName::P95, self.p95(), &decisive, limit, reason));
        }
        checks
    }

    fn divergence_check(&self, gate: &GateConfig) -> Check {
        let figure = self.divergence();
        let reviewed = self.diverging.interval_if_reviewed(self.rate_alpha());
        let would_decide = self.diverging.has_proposed()
            && (reviewed.lower > gate.divergence || reviewed.upper <= gate.divergence);
        let reason = if would_decide {
            UndecidedReason::UnreviewedNoise
        } else if self.has_control && self.diverging.control_of == 0 {
            UndecidedReason::NoControl
        } else {
            UndecidedReason::Undecided
        };
        self.check(CheckName::Divergence, Some(figure), &figure, gate.divergence, reason)
    }

    fn check(
        &self,
        name: CheckName,
        figure: Option<Figure>,
        decisive: &Figure,
        limit: f64,
        reason: UndecidedReason,
    ) -> Check {
        let state = state_of(decisive, limit);
        Check {
            name,
            endpoint: self.endpoint.map(Arc::clone),
            figure,
            limit,
            state,
            reason: (state == VerdictState::NotEnoughData).then_some(reason),
        }
    }

    /// Whether more than twice the allowed share diverges for certain.
    pub(super) fn burns(&self, gate: &GateConfig) -> bool {
        self.divergence().low.is_some_and(|low| low > 2.0 * gate.divergence)
    }
}

const P95: f64 = 0.95;

fn state_of(figure: &Figure, limit: f64) -> VerdictState {
    if figure.low.is_some_and(|low| low > limit) {
        VerdictState::Fail
    } else if figure.high.is_some_and(|high| high <= limit) {
        VerdictState::Pass
    } else {
        VerdictState::NotEnoughData
    }
}

fn ratio(above: Option<f64>, below: Option<f64>, less: f64) -> Option<f64> {
    let (above, below) = (above?, below?);
    (below > 0.0).then(|| (above - less).max(0.0) / below)
}

impl Verdict {
    /// Makes one verdict of the checks of the whole and of each endpoint with its number of exchanges.
    ///
    /// Nothing is said before the whole has as many samples as the gate asks for. Then any certain failure is one, of an
    /// endpoint too, however rare: its interval knows how few its exchanges are. The whole has to pass all its checks; an
    /// endpoint that has enough samples itself holds that up where a figure of its own is beyond a limit, be it only by
    /// estimate. Others are judged as part of the whole.
    pub(super) fn of(
        gate: &GateConfig,
        whole: Vec<Check>,
        samples: u64,
        endpoints: Vec<(u64, Vec<Check>)>,
    ) -> Self {
        let leans = |check: &Check| {
            check.state == VerdictState::NotEnoughData
                && check.figure.is_some_and(|figure| figure.point > check.limit)
        };
        let holds_up: Vec<String> = endpoints
            .iter()
            .filter(|(samples, _)| *samples >= gate.min_samples)
            .flat_map(|(_, checks)| checks.iter().filter(|check| leans(check)).filter_map(undecided))
            .collect();
        let checks: Vec<Check> = whole.into_iter().chain(endpoints.into_iter().flat_map(|of| of.1)).collect();
        let failed: Vec<String> =
            checks.iter().filter(|check| check.state == VerdictState::Fail).map(Check::title).collect();
        let of_whole = checks.iter().filter(|check| check.endpoint.is_none());
        let missing: Vec<String> = of_whole.filter_map(undecided).chain(holds_up).collect();
        let (state, mut reasons) = if samples < gate.min_samples {
            (VerdictState::NotEnoughData, vec![UndecidedReason::TooFewSamples.as_str().to_owned()])
        } else if !failed.is_empty() {
            (VerdictState::Fail, failed)
        } else if missing.is_empty() {
            (VerdictState::Pass, Vec::new())
        } else {
            (VerdictState::NotEnoughData, missing)
        };
        reasons.dedup();
        Self { state, reasons, checks }
    }
}

impl Check {
    fn title(&self) -> String {
        match &self.endpoint {
            Some(endpoint) => format!("{} {endpoint}", self.name.as_str()),
            None => self.name.as_str().to_owned(),
        }
    }
}

fn undecided(check: &Check) -> Option<String> {
    let reason = check.reason?;
    Some(match reason {
        UndecidedReason::Undecided => format!("undecided: {}", check.title()),
        UndecidedReason::NoControl
        | UndecidedReason::TooFewSamples
        | UndecidedReason::UnreviewedNoise
        | UndecidedReason::Untimed => reason.as_str().to_owned(),
    })
}
