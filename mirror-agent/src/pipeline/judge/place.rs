//! Enters: divergences at one place of an endpoint's answers. Leaves: whether they are noise.
//!
//! With a control the thresholds are those that Diffy publishes: a difference counts where its rate exceeds that of the
//! noise, which is how often live and control differ there, by a share of both and by a share of all exchanges. Here the
//! lower end of an interval has to exceed them, so that a handful of samples convicts nothing.

use std::{collections::BTreeMap, hash::Hasher, sync::Arc};

use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher13;

use super::{
    NoiseThresholds,
    evidence::Evidence,
    interval::{Interval, paired, rate, real},
    look::Look,
};
use crate::pipeline::{
    compare::Divergence,
    reason::{DivergenceKind, reasons},
};

/// Places of one endpoint that are told apart; the rest are one.
const MAX_PLACES: usize = 200;

/// The path of everything beyond that bound.
const OTHERS: &str = "(others)";

/// Times that a control must differ at a place before it is noise.
const NOISE_SEEN: u64 = 3;

/// Exchanges of an endpoint before anything is learned from them.
const LEARN_FROM: u64 = 50;

/// Divergences at a place before it is learned that they are noise.
const LEARN_SEEN: u64 = 8;

/// Divergences of values at a place before it is said that they are none.
const PATIENCE: u64 = 30;

/// What may be wrong with learning from the rate of a place; nothing is decided by it but what is proposed.
const LEARN_ALPHA: f64 = 0.01;

reasons! {
    /// What is known of a place.
    Standing {
        /// Not yet whether its differences are noise.
        Unclear => "unclear",
        /// They are: the control differs as often.
        Noise => "noise",
        /// They look generated; somebody has to say so.
        Proposed => "proposed",
        /// They were accepted as noise.
        Explained => "explained",
        /// They are more than noise.
        Real => "real",
    }
}

reasons! {
    /// What makes differences look like noise.
    Looks {
        /// Whole numbers that rise on both sides.
        Counter => "counter",
        /// Few values that both sides draw from.
        Drawn => "drawn",
        /// Hosts, hashes, tokens, cursors.
        Identifier => "identifier",
        /// Numbers that differ in their last bits.
        LastBits => "last_bits",
        /// The order of a set.
        Order => "order",
        /// Points in time.
        Timestamp => "timestamp",
        /// UUIDs.
        Uuid => "uuid",
    }
}

/// Position of a place in its endpoint's table.
pub(super) type PlaceId = u16;

/// Where answers differ, and how.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) path: Arc<str>,
    pub(super) kind: DivergenceKind,
    pub(super) look: Look,
    /// Of path, kind and look; the same in every process.
    pub(super) hash: u64,
    /// Exchanges in which live and shadow differ here.
    pub(super) raw: u64,
    /// Exchanges in which live and control do.
    pub(super) noise: u64,
    /// Of those that both could be compared in: how often only the shadow differed, only the control, or both.
    only_shadow: u64,
    only_control: u64,
    together: u64,
    pub(super) standing: Standing,
    pub(super) looks: Option<Looks>,
    evidence: Option<Box<Evidence>>,
    /// What was learned elsewhere, where values were seen: it is not learned again without them.
    learned: Option<Learned>,
    checked_at: u64,
}

/// What one agent has learned of a place from values, and from how many divergences.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Learned {
    seen: u64,
    standing: Standing,
    looks: Option<Looks>,
}

impl Learned {
    /// Who has seen more knows better.
    fn or(self, other: Self) -> Self {
        let rank = |learned: &Self| {
            (
                learned.seen,
                learned.standing.index(),
                learned.looks.map(|looks| looks.index().saturating_add(1)),
            )
        };
        if rank(&other) > rank(&self) { other } else { self }
    }
}

/// A place in a form that adds up.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PlacePortion {
    pub(super) path: Arc<str>,
    kind: DivergenceKind,
    look: Look,
    /// The how-manieth place it was, from 0; the earliest of all who know it.
    pub(super) order: u32,
    raw: u64,
    noise: u64,
    only_shadow: u64,
    only_control: u64,
    together: u64,
    learned: Learned,
}

impl PlacePortion {
    /// Of path, kind and look; the same in every process.
    pub(super) fn hash(&self) -> u64 {
        Key { path: &self.path, kind: self.kind, look: self.look }.hash()
    }

    /// The same at another path.
    pub(super) fn renamed(&self, path: Arc<str>) -> Self {
        Self { path, ..self.clone() }
    }

    pub(super) fn merge(&mut self, other: &Self) {
        let add = |mine: &mut u64, theirs: u64| *mine = mine.saturating_add(theirs);
        self.order = self.order.min(other.order);
        add(&mut self.raw, other.raw);
        add(&mut self.noise, other.noise);
        add(&mut self.only_shadow, other.only_shadow);
        add(&mut self.only_control, other.only_control);
        add(&mut self.together, other.together);
        self.learned = self.learned.or(other.learned);
    }
}

/// What a place is held against.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bar {
    pub(super) has_control: bool,
    pub(super) thresholds: NoiseThresholds,
    /// Exchanges of the endpoint that were compared.
    pub(super) exchanges: u64,
    /// Those in which the control could be compared, too.
    pub(super) both: u64,
    /// What the whole table may be wrong with.
    pub(super) alpha: f64,
}

impl Place {
    fn new(key: Key<'_>) -> Self {
        Self {
            path: Arc::clone(key.path),
            kind: key.kind,
            look: key.look,
            hash: key.hash(),
            raw: 0,
            noise: 0,
            only_shadow: 0,
            only_control: 0,
            together: 0,
            standing: Standing::Unclear,
            looks: None,
            evidence: None,
            learned: None,
            checked_at: 0,
        }
    }

    /// The same as it travels.
    pub(super) fn portion(&self, id: PlaceId) -> PlacePortion {
        PlacePortion {
            path: Arc::clone(&self.path),
            kind: self.kind,
            look: self.look,
            order: u32::from(id),
            raw: self.raw,
            noise: self.noise,
            only_shadow: self.only_shadow,
            only_control: self.only_control,
            together: self.together,
            learned: self.learned.unwrap_or(Learned {
                seen: self.raw,
                standing: self.standing,
                looks: self.looks,
            }),
        }
    }

    /// Counts an exchange in which the shadow differs; whether the control does, `None` where that is not known.
    pub(super) fn count(&mut self, control: Option<bool>) {
        self.raw = self.raw.saturating_add(1);
        match control {
            Some(true) => {
                self.noise = self.noise.saturating_add(1);
                self.together = self.together.saturating_add(1);
            }
            Some(false) => self.only_shadow = self.only_shadow.saturating_add(1),
            None => {}
        }
    }

    /// Counts an exchange in which the control differs and the shadow does not; `is_known` is whether that is known.
    pub(super) fn count_control(&mut self, is_known: bool) {
        self.noise = self.noise.saturating_add(1);
        if is_known {
            self.only_control = self.only_control.saturating_add(1);
        }
    }

    /// Whether what differs here is known to be noise.
    pub(super) const fn is_noise(&self) -> bool {
        matches!(self.standing, Standing::Noise | Standing::Explained)
    }

    /// Learns from the values of a divergence.
    pub(super) fn learn(&mut self, divergence: &Divergence) {
        if matches!(self.standing, Standing::Explained | Standing::Noise) {
            return;
        }
        match self.look {
            Look::Order => self.evidence.get_or_insert_default().add_order(divergence),
            Look::Number | Look::Identifier => self.evidence.get_or_insert_default().add(divergence),
            Look::Plain if self.is_value() => self.evidence.get_or_insert_default().add(divergence),
            Look::Plain | Look::LastBits | Look::Timestamp | Look::Uuid => {}
        }
    }

    /// Whether enough has happened since the standing was last looked at.
    pub(super) fn is_due(&self) -> bool {
        let events = self.raw.saturating_add(self.noise);
        events > self.checked_at.saturating_add(self.checked_at / 8)
    }

    /// Looks at the standing again; returns whether it became noise.
    pub(super) fn stand(&mut self, id: PlaceId, bar: &Bar) -> bool {
        self.checked_at = self.raw.saturating_add(self.noise);
        if self.standing == Standing::Explained {
            return false;
        }
        let before = self.standing;
        self.standing = if bar.has_control { self.with_control(id, bar) } else { self.without_control(bar) };
        self.standing == Standing::Noise && before != Standing::Noise
    }

    /// By how much the rate of the shadow's differences exceeds that of the noise. The places of an endpoint share what they
    /// may be wrong with in the order in which they came up: the sum of 6 / (π² k²) is 1.
    pub(super) fn excess(&self, id: PlaceId, bar: &Bar) -> Interval {
        let order = f64::from(id) + 1.0;
        let alpha = bar.alpha * 6.0 / (std::f64::consts::PI * order).powi(2);
        paired(self.only_shadow, self.only_control, bar.both, alpha)
    }

    fn with_control(&self, id: PlaceId, bar: &Bar) -> Standing {
        let both = real(bar.both);
        let sum = real(self.only_shadow) + real(self.only_control) + 2.0 * real(self.together);
        let exceeds =
            |excess: f64| excess * both > bar.thresholds.relative * sum && excess > bar.thresholds.absolute;
        if self.only_shadow > self.only_control && exceeds(self.excess(id, bar).lower) {
            return Standing::Real;
        }
        let seen = (real(self.only_shadow) - real(self.only_control)) / both.max(1.0);
        if self.noise >= NOISE_SEEN && !exceeds(seen) { Standing::Noise } else { Standing::Unclear }
    }

    fn without_control(&mut self, bar: &Bar) -> Standing {
        if !self.is_value() {
            return Standing::Real;
        }
        if let Some(Learned { standing, looks, .. }) = self.learned {
            self.looks = looks;
            return standing;
        }
        self.looks = self.conclude(bar);
        if self.looks.is_some() {
            Standing::Proposed
        } else if self.raw < PATIENCE || bar.exchanges < LEARN_FROM {
            Standing::Unclear
        } else {
            Standing::Real
        }
    }

    /// Whether both sides have a value here that can be held against the other.
    const fn is_value(&self) -> bool {
        matches!(self.kind, DivergenceKind::Value | DivergenceKind::Header | DivergenceKind::Order)
    }

    fn conclude(&self, bar: &Bar) -> Option<Looks> {
        if bar.exchanges < LEARN_FROM || self.raw < LEARN_SEEN {
            return None;
        }
        let is_above = |share: f64| rate(self.raw, bar.exchanges, LEARN_ALPHA).lower > share;
        let evidence = self.evidence.as_deref();
        match self.look {
            Look::LastBits => Some(Looks::LastBits),
            Look::Timestamp => Some(Looks::Timestamp),
            Look::Uuid => Some(Looks::Uuid),
            // What is ever new is drawn from so many values that nobody chose it, but the name of a wrong article is now and
            // then new, too; what comes again must come more often.
            Look::Identifier if evidence.is_some_and(Evidence::is_ever_new) => {
                is_above(0.3).then_some(Looks::Identifier)
            }
            Look::Identifier => is_above(0.5).then_some(Looks::Identifier),
            // Two elements in random order are swapped in every second exchange.
            Look::Order => match evidence?.has_no_order() {
                Some(has_no_order) => (has_no_order && is_above(0.01)).then_some(Looks::Order),
                None => is_above(0.3).then_some(Looks::Order),
            },
            Look::Number => {
                let is_nearly_all = real(self.raw) >= 0.9 * real(bar.exchanges);
                (evidence?.is_counter() && is_nearly_all).then_some(Looks::Counter)
            }
            Look::Plain => (evidence?.is_drawn() && is_above(0.1)).then_some(Looks::Drawn),
        }
    }

    fn absorb(&mut self, other: Self) {
        let add = |mine: &mut u64, theirs: u64| *mine = mine.saturating_add(theirs);
        add(&mut self.raw, other.raw);
        add(&mut self.noise, other.noise);
        add(&mut self.only_shadow, other.only_shadow);
        add(&mut self.only_control, other.only_control);
        add(&mut self.together, other.together);
        if other.standing == Standing::Explained {
            self.standing = Standing::Explained;
        }
        if let Some(evidence) = other.evidence {
            self.evidence.get_or_insert_default().merge(*evidence);
        }
    }
}

/// What places are told apart by.
#[derive(Clone, Copy, Debug)]
struct Key<'a> {
    path: &'a Arc<str>,
    kind: DivergenceKind,
    look: Look,
}

impl Key<'_> {
    fn hash(&self) -> u64 {
        let mut hasher = SipHasher13::new_with_keys(0, 0);
        hasher.write(self.path.as_bytes());
        hasher.write(&[0xff, self.kind as u8, self.look as u8]);
        hasher.finish()
    }
}

/// The places of one endpoint.
#[derive(Clone, Debug, Default)]
pub(super) struct Places {
    list: Vec<Place>,
    by_hash: BTreeMap<u64, PlaceId>,
}

impl Places {
    /// The place of a divergence, and whether it was not known.
    pub(super) fn find(&mut self, divergence: &Divergence) -> (PlaceId, bool) {
        self.enter(Key { path: &divergence.path, kind: divergence.kind, look: Look::of(divergence) })
    }

    fn enter(&mut self, key: Key<'_>) -> (PlaceId, bool) {
        if let Some(id) = self.by_hash.get(&key.hash()) {
            return (*id, false);
        }
        let last = MAX_PLACES.saturating_sub(1);
        if self.list.len() < last {
            return (self.push(key), true);
        }
        match PlaceId::try_from(last) {
            Ok(id) if self.list.len() > last => (id, false),
            _ => {
                let others = Arc::from(OTHERS);
                (self.push(Key { path: &others, kind: DivergenceKind::Extra, look: Look::Plain }), true)
            }
        }
    }

    fn push(&mut self, key: Key<'_>) -> PlaceId {
        let id = PlaceId::try_from(self.list.len()).unwrap_or(PlaceId::MAX);
        let place = Place::new(key);
        self.by_hash.insert(place.hash, id);
        self.list.push(place);
        id
    }

    pub(super) fn get(&self, id: PlaceId) -> Option<&Place> {
        self.list.get(usize::from(id))
    }

    pub(super) fn get_mut(&mut self, id: PlaceId) -> Option<&mut Place> {
        self.list.get_mut(usize::from(id))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (PlaceId, &Place)> {
        (0..).zip(&self.list)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (PlaceId, &mut Place)> {
        (0..).zip(&mut self.list)
    }

    /// Takes in a place that has travelled; returns what it is called here.
    pub(super) fn take(&mut self, portion: &PlacePortion) -> PlaceId {
        let PlacePortion {
            path, kind, look, raw, noise, only_shadow, only_control, together, learned, ..
        } = portion;
        let key = Key { path, kind: *kind, look: *look };
        let (id, _) = self.enter(key);
        if let Some(mine) = self.get_mut(id) {
            mine.absorb(Place {
                raw: *raw,
                noise: *noise,
                only_shadow: *only_shadow,
                only_control: *only_control,
                together: *together,
                standing: learned.standing,
                ..Place::new(key)
            });
            mine.learned = Some(mine.learned.map_or(*learned, |known| known.or(*learned)));
        }
        id
    }

    /// Takes in the places of another endpoint; returns what each of them is called here.
    pub(super) fn absorb(&mut self, other: Self) -> Vec<PlaceId> {
        let take = |place: Place| {
            let key = Key { path: &place.path, kind: place.kind, look: place.look };
            let (id, _) = self.enter(key);
            if let Some(mine) = self.get_mut(id) {
                mine.absorb(place);
            }
            id
        };
        other.list.into_iter().map(take).collect()
    }
}
