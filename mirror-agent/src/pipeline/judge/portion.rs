//! Enters: what judges of one shadow know, each on a machine of its own. Leaves: the same in a form that travels and adds
//! up, and a judge of the sum.
//!
//! Counts, sketches and places add up: what is known of noise by the control is found out anew from the sum. What was
//! learned from values is not, as values do not travel: there the one who has seen more is believed. Numbers that are
//! followed add up, but for the last digits of their means. Clocks of two
//! machines have nothing in common, so times travel as ages, and what lies in the window as one count.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{
    Judge, JudgeConfig, MAX_FIELDS,
    cluster::{Cluster, ClusterKey, key_of},
    field::Field,
    latency::{Latency, LatencyPortion, Of},
    place::{PlacePortion, Places},
    scope::{Errors, Scope},
    tally::{Clock, Pair, Tally},
};
use crate::pipeline::{
    Timestamp,
    reason::{ComparisonResult, DivergenceKind, IncomparableReason},
    stats::bump,
};

/// Most endpoints that a judge may know, and places and clusters of each; the agent's own know fewer.
const MAX_SCOPES: usize = 4096;
const MAX_PLACES: usize = 1024;
const MAX_CLUSTERS: usize = 4096;

/// Longest name of an endpoint or a path, in bytes; the agent's own are shorter.
const MAX_NAME_BYTES: usize = 16 * 1024;

/// What one judge knows, or several. Merging is commutative and, but for the last digits of means, associative.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(try_from = "Travelling")]
pub struct Portion {
    /// By endpoint.
    scopes: BTreeMap<Arc<str>, ScopePortion>,
    /// Numbers that are followed, in the order of the configuration, as far as any was seen.
    fields: Vec<Field>,
}

/// A portion as it travels, not checked yet.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Travelling {
    scopes: BTreeMap<Arc<str>, ScopePortion>,
    fields: Vec<Field>,
}

/// Why what came is not what a judge knows.
#[derive(Debug, Error)]
pub enum PortionError {
    /// The name of an endpoint or a path is longer than any.
    #[error("a name of {bytes} bytes")]
    LongName {
        /// Its length.
        bytes: usize,
    },
    /// What is told of numbers is of none.
    #[error("no numbers")]
    Numbers,
    /// More endpoints, places, clusters or numbers than any judge tells apart.
    #[error("more than any judge knows")]
    TooMany,
    /// A place or a cluster is not known by its own key.
    #[error("a key that is another's")]
    Key,
    /// A cluster is of places that are not told.
    #[error("a cluster of unknown places")]
    UnknownPlace,
}

/// What is known of one endpoint.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
struct ScopePortion {
    order: u32,
    judged: [u64; ComparisonResult::ALL.len()],
    incomparable: [u64; IncomparableReason::ALL.len()],
    divergences: [u64; DivergenceKind::ALL.len()],
    compared: Pair,
    control_compared: Pair,
    both: u64,
    known: [u64; Of::ALL.len()],
    errors: [u64; Of::ALL.len()],
    pairs: Pair,
    only_shadow: Pair,
    only_baseline: Pair,
    latency: LatencyPortion,
    /// By their hashes.
    places: BTreeMap<u64, PlacePortion>,
    /// By their keys.
    clusters: BTreeMap<u64, ClusterPortion>,
}

/// Exchanges that differ alike.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
struct ClusterPortion {
    statuses: (u16, u16),
    /// Hashes of the places, in ascending order, each once.
    places: Vec<u64>,
    shadow: Pair,
    control: Pair,
    /// How long ago it was first seen, in nanoseconds.
    first_age: u64,
    /// How long ago it was last seen.
    last_age: u64,
}

impl Portion {
    /// Adds what another judge knows.
    pub fn merge(&mut self, other: &Self) {
        for (name, theirs) in &other.scopes {
            match self.scopes.get_mut(name) {
                Some(mine) => mine.merge(theirs),
                None => {
                    self.scopes.insert(Arc::clone(name), theirs.clone());
                }
            }
        }
        if self.fields.len() < other.fields.len() {
            self.fields.resize_with(other.fields.len(), Field::default);
        }
        self.fields.iter_mut().zip(&other.fields).for_each(|(mine, theirs)| mine.merge(theirs));
    }

    /// The same under other names: endpoints and paths as `rename` says. Those that get the same name become one.
    #[must_use]
    pub fn renamed(&self, rename: impl Fn(&str) -> String) -> Self {
        let mut renamed = Self { scopes: BTreeMap::new(), fields: self.fields.clone() };
        for (name, scope) in &self.scopes {
            let name: Arc<str> = rename(name).into();
            let scope = scope.renamed(Scope::hash_of(&name), &rename);
            renamed.merge(&Self { scopes: BTreeMap::from([(name, scope)]), fields: Vec::new() });
        }
        renamed
    }

    /// Bytes of memory that it takes, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let of = |(name, scope): (&Arc<str>, &ScopePortion)| name.len().saturating_add(scope.bytes());
        let fields = self.fields.iter().map(Field::bytes);
        self.scopes.iter().map(of).chain(fields).fold(0, usize::saturating_add)
    }

    /// Exchanges that were observed.
    #[must_use]
    pub fn exchanges(&self) -> u64 {
        let counts = self.scopes.values().flat_map(|scope| scope.judged);
        counts.fold(0, u64::saturating_add)
    }
}

impl TryFrom<Travelling> for Portion {
    type Error = PortionError;

    fn try_from(told: Travelling) -> Result<Self, PortionError> {
        let Travelling { scopes, fields } = told;
        if scopes.len() > MAX_SCOPES || fields.len() > MAX_FIELDS {
            return Err(PortionError::TooMany);
        }
        for (name, scope) in &scopes {
            check_name(name)?;
            scope.check(name)?;
        }
        if fields.iter().any(|field| field.check().is_err()) {
            return Err(PortionError::Numbers);
        }
        Ok(Self { scopes, fields })
    }
}

fn check_name(name: &str) -> Result<(), PortionError> {
    let bytes = name.len();
    if bytes > MAX_NAME_BYTES { Err(PortionError::LongName { bytes }) } else { Ok(()) }
}

impl ScopePortion {
    fn of(scope: &Scope, clock: Clock, now: Timestamp) -> Self {
        let hash = |id| scope.places.get(id).map(|place| place.hash);
        let age = |at: Timestamp| now.as_nanos().saturating_sub(at.as_nanos());
        let clusters = scope.clusters.iter().map(|(key, cluster)| {
            let mut places: Vec<u64> = cluster.places.iter().filter_map(|id| hash(*id)).collect();
            places.sort_unstable();
            let portion = ClusterPortion {
                statuses: cluster.statuses,
                places,
                shadow: cluster.shadow.pair(clock),
                control: cluster.control.pair(clock),
                first_age: age(cluster.first_seen),
                last_age: age(cluster.last_seen),
            };
            (key.0, portion)
        });
        Self {
            order: scope.order,
            judged: scope.judged,
            incomparable: scope.incomparable,
            divergences: scope.divergences,
            compared: scope.compared.pair(clock),
            control_compared: scope.control_compared.pair(clock),
            both: scope.both,
            known: scope.errors.known,
            errors: scope.errors.errors,
            pairs: scope.errors.pairs.pair(clock),
            only_shadow: scope.errors.only_shadow.pair(clock),
            only_baseline: scope.errors.only_baseline.pair(clock),
            latency: scope.latency.portion(clock),
            places: scope.places.iter().map(|(id, place)| (place.hash, place.portion(id))).collect(),
            clusters: clusters.collect(),
        }
    }

    /// The endpoint of which this is known, as the how-manieth of all.
    fn scope(&self, name: &Arc<str>, order: u32, clock: Clock, now: Timestamp) -> Scope {
        let tally = |pair| Tally::of(pair, clock);
        let mut scope = Scope::new(Arc::clone(name), order);
        scope.judged = self.judged;
        scope.incomparable = self.incomparable;
        scope.divergences = self.divergences;
        scope.compared = tally(self.compared);
        scope.control_compared = tally(self.control_compared);
        scope.both = self.both;
        scope.errors = Errors {
            known: self.known,
            errors: self.errors,
            pairs: tally(self.pairs),
            only_shadow: tally(self.only_shadow),
            only_baseline: tally(self.only_baseline),
        };
        scope.latency = Latency::of(self.latency.clone(), clock);
        // What a place may be wrong with depends on when it came up.
        let mut in_order: Vec<_> = self.places.iter().collect();
        in_order.sort_by_key(|(hash, place)| (place.order, **hash));
        let mut places = Places::default();
        let ids: BTreeMap<u64, _> =
            in_order.into_iter().map(|(hash, place)| (*hash, places.take(place))).collect();
        scope.places = places;
        let at = |age: u64| Timestamp::from_nanos(now.as_nanos().saturating_sub(age));
        for cluster in self.clusters.values() {
            let mut set: Vec<_> = cluster.places.iter().filter_map(|hash| ids.get(hash).copied()).collect();
            set.sort_unstable();
            set.dedup();
            let cluster = Cluster {
                statuses: cluster.statuses,
                places: set.into(),
                shadow: tally(cluster.shadow),
                control: tally(cluster.control),
                first_seen: at(cluster.first_age),
                last_seen: at(cluster.last_age),
            };
            scope.clusters.put(cluster, scope.hash, &scope.places);
        }
        scope
    }

    fn merge(&mut self, other: &Self) {
        let add = |mine: &mut [u64], theirs: &[u64]| {
            theirs.iter().enumerate().for_each(|(index, count)| bump(mine, index, *count));
        };
        self.order = self.order.min(other.order);
        add(&mut self.judged, &other.judged);
        add(&mut self.incomparable, &other.incomparable);
        add(&mut self.divergences, &other.divergences);
        self.compared.add(other.compared);
        self.control_compared.add(other.control_compared);
        self.both = self.both.saturating_add(other.both);
        add(&mut self.known, &other.known);
        add(&mut self.errors, &other.errors);
        self.pairs.add(other.pairs);
        self.only_shadow.add(other.only_shadow);
        self.only_baseline.add(other.only_baseline);
        self.latency.merge(&other.latency);
        for (hash, place) in &other.places {
            match self.places.get_mut(hash) {
                Some(mine) => mine.merge(place),
                None => {
                    self.places.insert(*hash, place.clone());
                }
            }
        }
        for (key, cluster) in &other.clusters {
            self.put(*key, cluster.clone());
        }
    }

    fn put(&mut self, key: u64, cluster: ClusterPortion) {
        match self.clusters.get_mut(&key) {
            Some(mine) => {
                mine.shadow.add(cluster.shadow);
                mine.control.add(cluster.control);
                mine.first_age = mine.first_age.max(cluster.first_age);
                mine.last_age = mine.last_age.min(cluster.last_age);
            }
            None => {
                self.clusters.insert(key, cluster);
            }
        }
    }

    fn renamed(&self, endpoint: u64, rename: impl Fn(&str) -> String) -> Self {
        let mut names = BTreeMap::new();
        let mut renamed = Self { places: BTreeMap::new(), clusters: BTreeMap::new(), ..self.clone() };
        for (hash, place) in &self.places {
            let place = place.renamed(rename(&place.path).into());
            names.insert(*hash, place.hash());
            match renamed.places.get_mut(&place.hash()) {
                Some(known) => known.merge(&place),
                None => {
                    renamed.places.insert(place.hash(), place);
                }
            }
        }
        for cluster in self.clusters.values() {
            let mut places: Vec<u64> =
                cluster.places.iter().filter_map(|hash| names.get(hash).copied()).collect();
            places.sort_unstable();
            places.dedup();
            let key = key_of(endpoint, cluster.statuses, places.iter().copied());
            renamed.put(key.0, ClusterPortion { places, ..cluster.clone() });
        }
        renamed
    }

    fn check(&self, name: &str) -> Result<(), PortionError> {
        if self.places.len() > MAX_PLACES || self.clusters.len() > MAX_CLUSTERS {
            return Err(PortionError::TooMany);
        }
        for (hash, place) in &self.places {
            check_name(&place.path)?;
            if place.hash() != *hash {
                return Err(PortionError::Key);
            }
        }
        let endpoint = Scope::hash_of(name);
        for (key, cluster) in &self.clusters {
            let hashes = cluster.places.iter().copied();
            if !cluster.places.is_sorted_by(|one, other| one < other)
                || key_of(endpoint, cluster.statuses, hashes) != ClusterKey(*key)
            {
                return Err(PortionError::Key);
            }
            if !cluster.places.iter().all(|hash| self.places.contains_key(hash)) {
                return Err(PortionError::UnknownPlace);
            }
        }
        Ok(())
    }

    fn bytes(&self) -> usize {
        let places =
            self.places.values().map(|place| size_of::<PlacePortion>().saturating_add(place.path.len()));
        let of_cluster = |cluster: &ClusterPortion| size_of::<u64>().saturating_mul(cluster.places.len());
        let clusters = self
            .clusters
            .values()
            .map(|cluster| size_of::<ClusterPortion>().saturating_add(of_cluster(cluster)));
        let own = size_of::<Self>().saturating_add(self.latency.bytes());
        places.chain(clusters).fold(own, usize::saturating_add)
    }
}

impl Judge {
    /// What is known at this moment, in a form that adds up.
    pub fn portion(&mut self, now: Timestamp) -> Portion {
        self.settle(now);
        let of =
            |(name, scope): (&Arc<str>, &Scope)| (Arc::clone(name), ScopePortion::of(scope, self.clock, now));
        Portion { scopes: self.scopes.iter().map(of).collect(), fields: self.fields.clone() }
    }

    /// A judge who knows all that `portion` tells, and can be asked for a summary at `now`.
    ///
    /// Endpoints share what may be wrong in the order in which they came up with anybody, those that did at the same time
    /// by their names.
    #[must_use]
    pub fn of_portion(config: &JudgeConfig, has_control: bool, portion: &Portion, now: Timestamp) -> Self {
        let mut judge = Self::new(config, has_control);
        judge.clock.advance(now);
        judge.fields.clone_from(&portion.fields);
        let mut in_order: Vec<_> = portion.scopes.iter().collect();
        in_order.sort_by(|(one_name, one), (other_name, other)| {
            one.order.cmp(&other.order).then_with(|| one_name.cmp(other_name))
        });
        for ((name, scope), order) in in_order.into_iter().zip(1_u32..) {
            judge.scopes.insert(Arc::clone(name), scope.scope(name, order, judge.clock, now));
            judge.came_up = order;
        }
        judge
    }
}
