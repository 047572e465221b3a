//! Enters: exchanges of one endpoint. Leaves: what is known of it.

use std::{hash::Hasher, sync::Arc};

use siphasher::sip::SipHasher13;

use super::{
    Judged, NoiseThresholds, Seen,
    cluster::{Clusters, Differing, Who},
    interval::{Interval, paired, rate, real},
    latency::{Answers, Latency, Of},
    place::{Bar, PlaceId, Places, Standing},
    proposal::Accepted,
    tally::{Clock, Tally},
};
use crate::pipeline::{
    Answered,
    compare::Compared,
    reason::{ComparisonResult, DivergenceKind, IncomparableReason},
    stats::bump,
};

/// What all endpoints of an experiment share.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setting<'a> {
    pub(super) has_control: bool,
    pub(super) thresholds: NoiseThresholds,
    pub(super) clock: Clock,
    pub(super) accepted: &'a [Accepted],
}

/// One endpoint.
#[derive(Clone, Debug)]
pub(super) struct Scope {
    pub(super) name: Arc<str>,
    pub(super) hash: u64,
    /// The how-manieth endpoint it is, from 1.
    pub(super) order: u32,
    /// Exchanges by [`ComparisonResult`], as they were judged.
    pub(super) judged: [u64; ComparisonResult::ALL.len()],
    pub(super) incomparable: [u64; IncomparableReason::ALL.len()],
    /// Exchanges in which something differed that was no noise, by [`DivergenceKind`].
    pub(super) divergences: [u64; DivergenceKind::ALL.len()],
    /// Exchanges that could be compared with the shadow's.
    pub(super) compared: Tally,
    /// Those with the control's.
    pub(super) control_compared: Tally,
    /// Those with both.
    pub(super) both: u64,
    pub(super) errors: Errors,
    pub(super) latency: Latency,
    pub(super) places: Places,
    pub(super) clusters: Clusters,
    shadow_places: Vec<PlaceId>,
    control_places: Vec<PlaceId>,
}

impl Scope {
    pub(super) fn new(name: Arc<str>, order: u32) -> Self {
        Self {
            hash: Self::hash_of(&name),
            name,
            order,
            judged: Default::default(),
            incomparable: Default::default(),
            divergences: Default::default(),
            compared: Tally::default(),
            control_compared: Tally::default(),
            both: 0,
            errors: Errors::default(),
            latency: Latency::default(),
            places: Places::default(),
            clusters: Clusters::default(),
            shadow_places: Vec::new(),
            control_places: Vec::new(),
        }
    }

    /// A hash of an endpoint's name, the same in every process.
    pub(super) fn hash_of(name: &str) -> u64 {
        let mut hasher = SipHasher13::new_with_keys(0, 0);
        hasher.write(name.as_bytes());
        hasher.finish()
    }

    pub(super) fn observe(&mut self, seen: &Seen<'_>, setting: Setting<'_>) -> Judged {
        let answers = Answers {
            live: seen.live,
            shadow: seen.shadow,
            control: seen.control.map(|(answered, _)| answered),
            by_control: setting.has_control,
        };
        self.latency.observe(answers, setting.clock);
        self.errors.observe(answers, setting.clock);
        let judged = self.compare(seen, setting);
        bump(&mut self.judged, judged.result.index(), 1);
        if let Some(reason) = judged.reason {
            bump(&mut self.incomparable, reason.index(), 1);
        }
        judged
    }

    fn compare(&mut self, seen: &Seen<'_>, setting: Setting<'_>) -> Judged {
        let control = seen.control.and_then(|(answered, compared)| Some((answered, compared.as_ref().ok()?)));
        let shadow = seen.compared.as_ref();
        let mut shadow_places = std::mem::take(&mut self.shadow_places);
        let mut control_places = std::mem::take(&mut self.control_places);
        self.places_of(shadow.ok(), setting, &mut shadow_places);
        self.places_of(control.map(|(_, compared)| compared), setting, &mut control_places);
        let shadow_told = Told::new(shadow.ok(), &shadow_places);
        let control_told = Told::new(control.map(|(_, compared)| compared), &control_places);
        self.count_places(&shadow_told, &control_told);
        self.look_again(&shadow_places, &control_places, setting);
        let is_kept = |id: &PlaceId| self.places.get(*id).is_some_and(|place| !place.is_noise());
        shadow_places.retain(is_kept);
        control_places.retain(is_kept);
        if let Some((answered, _)) = control {
            self.control_compared.add(setting.clock);
            self.count_cluster(Who::Control, answered, &control_places, seen, setting.clock);
        }
        let judged = match shadow {
            Err(reason) => {
                Judged { result: ComparisonResult::Incomparable, reason: Some(*reason), cluster: None }
            }
            Ok(compared) => {
                self.compared.add(setting.clock);
                let cluster =
                    self.count_cluster(Who::Shadow, seen.shadow, &shadow_places, seen, setting.clock);
                // What the control shows in this very exchange needs no more proof, unless it is known to be more.
                let is_shown = |id: &PlaceId| {
                    control_places.contains(id)
                        && self.places.get(*id).is_some_and(|place| place.standing != Standing::Real)
                };
                let result = if compared.divergences.is_empty() && compared.explained.is_empty() {
                    ComparisonResult::Equal
                } else if shadow_places.iter().all(is_shown) {
                    ComparisonResult::Noise
                } else {
                    self.count_kinds(&shadow_places);
                    ComparisonResult::Divergent
                };
                let cluster = cluster.filter(|_| result == ComparisonResult::Divergent);
                Judged { result, reason: None, cluster }
            }
        };
        (self.shadow_places, self.control_places) = (shadow_places, control_places);
        judged
    }

    /// The places at which two answers differ, in order, each once. Where not all divergences are told, those that are
    /// stand for the rest: beyond noise nothing is hidden for long, as what is known to be noise becomes a rule.
    fn places_of(&mut self, compared: Option<&Compared>, setting: Setting<'_>, ids: &mut Vec<PlaceId>) {
        ids.clear();
        let Some(compared) = compared else { return };
        for divergence in &compared.divergences {
            let (id, is_new) = self.places.find(divergence);
            if is_new
                && let Some(place) = self.places.get_mut(id)
                && setting.accepted.iter().any(|accepted| accepted.covers(&self.name, place))
            {
                place.standing = Standing::Explained;
            }
            if !setting.has_control
                && !ids.contains(&id)
                && let Some(place) = self.places.get_mut(id)
            {
                place.learn(divergence);
            }
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
        ids.sort_unstable();
    }

    fn count_places(&mut self, shadow: &Told<'_>, control: &Told<'_>) {
        if shadow.is_compared && control.is_compared {
            self.both = self.both.saturating_add(1);
        }
        for id in shadow.places {
            if let Some(place) = self.places.get_mut(*id) {
                place.count(control.says(*id));
            }
        }
        for id in control.places.iter().filter(|id| !shadow.places.contains(id)) {
            if let Some(place) = self.places.get_mut(*id) {
                place.count_control(shadow.says(*id).is_some());
            }
        }
    }

    fn look_again(&mut self, shadow: &[PlaceId], control: &[PlaceId], setting: Setting<'_>) {
        let bar = self.bar(setting, place_alpha(scope_alpha(self.order)));
        for id in shadow.iter().chain(control) {
            let Some(place) = self.places.get_mut(*id) else { continue };
            if place.is_due() && place.stand(*id, &bar) {
                self.clusters.strip(*id, self.hash, &self.places);
            }
        }
    }

    /// Looks at the standing of all places, as exchanges without divergences change them too.
    pub(super) fn settle(&mut self, setting: Setting<'_>) {
        let bar = self.bar(setting, place_alpha(scope_alpha(self.order)));
        let stand = |(id, place): (PlaceId, &mut super::place::Place)| place.stand(id, &bar).then_some(id);
        let noise: Vec<PlaceId> = self.places.iter_mut().filter_map(stand).collect();
        for id in noise {
            self.clusters.strip(id, self.hash, &self.places);
        }
    }

    /// Takes everything as explained that was accepted since.
    pub(super) fn explain(&mut self, accepted: &[Accepted]) {
        let mut explained = Vec::new();
        for (id, place) in self.places.iter_mut() {
            if accepted.iter().any(|accepted| accepted.covers(&self.name, place)) {
                place.standing = Standing::Explained;
                explained.push(id);
            }
        }
        for id in explained {
            self.clusters.strip(id, self.hash, &self.places);
        }
    }

    pub(super) fn bar(&self, setting: Setting<'_>, alpha: f64) -> Bar {
        Bar {
            has_control: setting.has_control,
            thresholds: setting.thresholds,
            exchanges: self.compared.total(),
            both: self.both,
            alpha,
        }
    }

    fn count_cluster(
        &mut self,
        who: Who,
        other: &Answered,
        places: &[PlaceId],
        seen: &Seen<'_>,
        clock: Clock,
    ) -> Option<super::ClusterKey> {
        if places.is_empty() {
            return None;
        }
        let statuses = (seen.live.status().unwrap_or(0), other.status().unwrap_or(0));
        let exchange = Differing { who, statuses, places, at: seen.at, clock };
        Some(self.clusters.count(self.hash, &self.places, exchange))
    }

    fn count_kinds(&mut self, places: &[PlaceId]) {
        let kinds = DivergenceKind::ALL.into_iter().filter(|kind| {
            places.iter().any(|id| self.places.get(*id).is_some_and(|place| place.kind == *kind))
        });
        for kind in kinds {
            bump(&mut self.divergences, kind.index(), 1);
        }
    }

    /// Exchanges by [`ComparisonResult`], by what is known of noise today.
    pub(super) fn results(&self) -> [u64; ComparisonResult::ALL.len()] {
        let [equal, .., incomparable] = self.judged;
        let divergent = self.clusters.total();
        let noise = self.compared.total().saturating_sub(equal).saturating_sub(divergent);
        [equal, noise, divergent, incomparable]
    }

    /// How often the shadow diverges, in numbers that can be added up over endpoints.
    pub(super) fn diverging(&self, clock: Clock) -> Diverging {
        let mut sum = Diverging {
            shadow_of: self.compared.current(clock),
            control_of: self.control_compared.current(clock),
            ..Diverging::default()
        };
        for (_, cluster) in self.clusters.iter() {
            let has = |wanted: &[Standing]| {
                cluster
                    .places
                    .iter()
                    .any(|id| self.places.get(*id).is_some_and(|place| wanted.contains(&place.standing)))
            };
            let counts = (cluster.shadow.current(clock), cluster.control.current(clock));
            let add = |to: &mut (u64, u64)| {
                *to = (to.0.saturating_add(counts.0), to.1.saturating_add(counts.1));
            };
            add(&mut sum.any);
            if has(&[Standing::Real]) {
                add(&mut sum.real);
            }
            if has(&[Standing::Real, Standing::Proposed]) {
                add(&mut sum.real_or_proposed);
            }
            if has(&[Standing::Real, Standing::Unclear]) {
                add(&mut sum.not_proposed);
            }
        }
        sum
    }

    /// The largest excess of one place over its noise, at least. It holds also for what happened before the place was known to be
    /// more than noise.
    pub(super) fn least_excess(&self, setting: Setting<'_>) -> f64 {
        let bar = self.bar(setting, place_alpha(scope_alpha(self.order)));
        let real = self.places.iter().filter(|(_, place)| place.standing == Standing::Real);
        real.map(|(id, place)| place.excess(id, &bar).lower).fold(0.0, f64::max)
    }

    /// Takes in another endpoint that turned out to be the same.
    pub(super) fn absorb(&mut self, other: Self) {
        let add = |mine: &mut [u64], theirs: &[u64]| {
            theirs.iter().enumerate().for_each(|(index, count)| bump(mine, index, *count));
        };
        add(&mut self.judged, &other.judged);
        add(&mut self.incomparable, &other.incomparable);
        add(&mut self.divergences, &other.divergences);
        self.order = self.order.min(other.order);
        self.compared.merge(&other.compared);
        self.control_compared.merge(&other.control_compared);
        self.both = self.both.saturating_add(other.both);
        self.errors.merge(&other.errors);
        self.latency.merge(&other.latency);
        let names = self.places.absorb(other.places);
        self.clusters.absorb(other.clusters, &names, self.hash, &self.places);
    }
}

/// Where one answer of an exchange differs from live's, as far as was told.
struct Told<'a> {
    is_compared: bool,
    misses_places: bool,
    places: &'a [PlaceId],
}

impl<'a> Told<'a> {
    fn new(compared: Option<&Compared>, places: &'a [PlaceId]) -> Self {
        let misses_places = compared.is_some_and(|compared| compared.misses_places);
        Self { is_compared: compared.is_some(), misses_places, places }
    }

    /// Whether it differs at a place, where that is known: a list that was cut convicts nothing that is not in it.
    fn says(&self, id: PlaceId) -> Option<bool> {
        let differs = self.places.contains(&id);
        (self.is_compared && (differs || !self.misses_places)).then_some(differs)
    }
}

/// What one endpoint may be wrong with: half of the 5 % is the whole experiment's, and endpoints share the other half in the
/// order in which they came up: the sum of 6 / (π² k²) is 1. So it need not be known how many there will be.
pub(super) fn scope_alpha(order: u32) -> f64 {
    ENDPOINTS_ALPHA * 6.0 / (std::f64::consts::PI * f64::from(order)).powi(2)
}

/// What all verdicts of an experiment may be wrong with, together, however often they are looked at.
pub const ALPHA: f64 = 0.05;

/// The part of it that is the whole experiment's.
pub(super) const WHOLE_ALPHA: f64 = ALPHA / 2.0;
const ENDPOINTS_ALPHA: f64 = ALPHA - WHOLE_ALPHA;

/// Of what an endpoint or the whole may be wrong with, a quarter each is for divergences, errors, service times, and
/// what is only shown. Of the first, half is for places and half for the rate.
pub(super) fn check_alpha(scope: f64) -> f64 {
    scope / 4.0
}

fn place_alpha(scope: f64) -> f64 {
    check_alpha(scope) / 2.0
}

/// How often shadow and control diverge, of how many exchanges. Pairs are of shadow and control.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Diverging {
    pub(super) shadow_of: u64,
    pub(super) control_of: u64,
    /// At any place that is no noise.
    any: (u64, u64),
    /// At a place that is more than noise.
    real: (u64, u64),
    real_or_proposed: (u64, u64),
    /// At a place that is not merely proposed as noise.
    not_proposed: (u64, u64),
}

impl Diverging {
    pub(super) fn add(&mut self, other: &Self) {
        let add = |mine: &mut u64, theirs: u64| *mine = mine.saturating_add(theirs);
        add(&mut self.shadow_of, other.shadow_of);
        add(&mut self.control_of, other.control_of);
        for (mine, theirs) in [
            (&mut self.any, other.any),
            (&mut self.real, other.real),
            (&mut self.real_or_proposed, other.real_or_proposed),
            (&mut self.not_proposed, other.not_proposed),
        ] {
            add(&mut mine.0, theirs.0);
            add(&mut mine.1, theirs.1);
        }
    }

    /// Share of exchanges that diverge beyond noise.
    pub(super) fn estimate(&self) -> f64 {
        let shadow = real(self.any.0) / real(self.shadow_of).max(1.0);
        let control = real(self.any.1) / real(self.control_of).max(1.0);
        (shadow - control).max(0.0)
    }

    /// Between what it lies: at least what is known to be more than noise, at most what is not known to be noise.
    pub(super) fn interval(&self, alpha: f64) -> Interval {
        Interval { lower: self.lower(self.real, alpha), upper: self.upper(self.any, alpha) }
    }

    /// The same if what is proposed were no noise at the lower end, and if it were at the upper.
    pub(super) fn interval_if_reviewed(&self, alpha: f64) -> Interval {
        Interval {
            lower: self.lower(self.real_or_proposed, alpha),
            upper: self.upper(self.not_proposed, alpha),
        }
    }

    /// Whether there is anything that looks like noise and was not accepted.
    pub(super) const fn has_proposed(&self) -> bool {
        self.any.0 > self.not_proposed.0 || self.real_or_proposed.0 > self.real.0
    }

    fn lower(&self, counts: (u64, u64), alpha: f64) -> f64 {
        if self.control_of == 0 {
            return rate(counts.0, self.shadow_of, alpha).lower;
        }
        let shadow = rate(counts.0, self.shadow_of, alpha / 2.0).lower;
        (shadow - rate(counts.1, self.control_of, alpha / 2.0).upper).max(0.0)
    }

    fn upper(&self, counts: (u64, u64), alpha: f64) -> f64 {
        let shadow = rate(counts.0, self.shadow_of, alpha / 2.0).upper;
        let control = rate(counts.1, self.control_of, alpha / 2.0).lower;
        (shadow - control).clamp(0.0, 1.0)
    }
}

/// How often answers are errors: a status of 500 or above, none, or none that was ended.
#[derive(Clone, Debug, Default)]
pub(super) struct Errors {
    /// Answers of which it is known, and errors among them, by [`Of`].
    pub(super) known: [u64; Of::ALL.len()],
    pub(super) errors: [u64; Of::ALL.len()],
    /// Exchanges in which it is known of the shadow and of what it is held against.
    pub(super) pairs: Tally,
    pub(super) only_shadow: Tally,
    pub(super) only_baseline: Tally,
}

impl Errors {
    fn observe(&mut self, answers: Answers<'_>, clock: Clock) {
        for of in Of::ALL {
            if let Some(is_error) = answers.of(of).and_then(|answered| is_error(of, answered)) {
                bump(&mut self.known, of.index(), 1);
                bump(&mut self.errors, of.index(), u64::from(is_error));
            }
        }
        let baseline = answers.baseline();
        let baseline = answers.of(baseline).and_then(|answered| is_error(baseline, answered));
        if let (Some(shadow), Some(baseline)) = (is_error(Of::Shadow, answers.shadow), baseline) {
            self.pairs.add(clock);
            match (shadow, baseline) {
                (true, false) => self.only_shadow.add(clock),
                (false, true) => self.only_baseline.add(clock),
                (true, true) | (false, false) => {}
            }
        }
    }

    pub(super) fn merge(&mut self, other: &Self) {
        for index in 0..Of::ALL.len() {
            bump(&mut self.known, index, other.known.get(index).copied().unwrap_or(0));
            bump(&mut self.errors, index, other.errors.get(index).copied().unwrap_or(0));
        }
        self.pairs.merge(&other.pairs);
        self.only_shadow.merge(&other.only_shadow);
        self.only_baseline.merge(&other.only_baseline);
    }

    /// By how much the share of errors exceeds that of what the shadow is held against.
    pub(super) fn excess(&self, clock: Clock, alpha: f64) -> (f64, Interval) {
        let (shadow, baseline) = (self.only_shadow.current(clock), self.only_baseline.current(clock));
        let pairs = self.pairs.current(clock);
        ((real(shadow) - real(baseline)) / real(pairs).max(1.0), paired(shadow, baseline, pairs, alpha))
    }
}

/// Whether there is no answer, or one of a server that failed; `None` where nobody knows. A target that does not end its answer
/// has failed; of live's it may be the client that went away, or the capture.
fn is_error(of: Of, answered: &Answered) -> Option<bool> {
    match answered {
        Answered::Whole(answer) => Some(answer.status >= 500),
        Answered::Partly { reason: IncomparableReason::Aborted, .. } if of != Of::Live => Some(true),
        Answered::Partly { status, .. } => Some(*status >= 500),
        Answered::Not(reason) => (*reason == IncomparableReason::NoAnswer).then_some(true),
    }
}
