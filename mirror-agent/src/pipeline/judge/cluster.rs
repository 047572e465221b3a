//! Enters: the places at which an exchange differs. Leaves: exchanges that differ alike, counted as one row.

use std::{collections::BTreeMap, fmt};

use serde::{Serialize, Serializer};

use super::{
    place::{PlaceId, Places, Standing},
    tally::{Clock, Tally},
};
use crate::pipeline::{Timestamp, policy::mix};

/// Sets of places of one endpoint that are told apart. Beyond, an exchange is counted by the most telling of its places
/// alone, of which there are few.
const MAX_SETS: usize = 64;

/// By what a cluster is known: a hash of endpoint, status codes and places, the same in every process.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ClusterKey(pub u64);

impl fmt::Display for ClusterKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:016x}", self.0)
    }
}

impl Serialize for ClusterKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Exchanges of one endpoint that differ alike.
#[derive(Clone, Debug)]
pub(super) struct Cluster {
    /// Live's status code, and the other's.
    pub(super) statuses: (u16, u16),
    /// In ascending order, each once.
    pub(super) places: Box<[PlaceId]>,
    /// How often the shadow differs so.
    pub(super) shadow: Tally,
    /// How often the control does.
    pub(super) control: Tally,
    pub(super) first_seen: Timestamp,
    pub(super) last_seen: Timestamp,
}

/// Who differs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Who {
    Shadow,
    Control,
}

/// An exchange that differs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Differing<'a> {
    pub(super) who: Who,
    pub(super) statuses: (u16, u16),
    pub(super) places: &'a [PlaceId],
    pub(super) at: Timestamp,
    pub(super) clock: Clock,
}

/// The clusters of one endpoint.
#[derive(Clone, Debug, Default)]
pub(super) struct Clusters(BTreeMap<ClusterKey, Cluster>);

impl Clusters {
    pub(super) fn iter(&self) -> impl Iterator<Item = (ClusterKey, &Cluster)> {
        self.0.iter().map(|(key, cluster)| (*key, cluster))
    }

    /// Exchanges of the shadow that are counted here.
    pub(super) fn total(&self) -> u64 {
        self.0.values().fold(0, |sum, cluster| sum.saturating_add(cluster.shadow.total()))
    }

    /// Counts an exchange that differs at these places, which are no noise; there is at least one.
    pub(super) fn count(&mut self, endpoint: u64, places: &Places, exchange: Differing<'_>) -> ClusterKey {
        let mut set = exchange.places;
        let mut key = key(endpoint, places, exchange.statuses, set);
        if self.0.len() >= MAX_SETS && !self.0.contains_key(&key) {
            let is_real =
                |id: &PlaceId| places.get(*id).is_some_and(|place| place.standing == Standing::Real);
            let telling = set.iter().position(is_real).unwrap_or(0);
            set = set.get(telling..telling.saturating_add(1)).unwrap_or_default();
            key = self::key(endpoint, places, exchange.statuses, set);
        }
        let cluster = self.0.entry(key).or_insert_with(|| Cluster {
            statuses: exchange.statuses,
            places: set.into(),
            shadow: Tally::default(),
            control: Tally::default(),
            first_seen: exchange.at,
            last_seen: exchange.at,
        });
        match exchange.who {
            Who::Shadow => cluster.shadow.add(exchange.clock),
            Who::Control => cluster.control.add(exchange.clock),
        }
        cluster.last_seen = cluster.last_seen.max(exchange.at);
        key
    }

    /// Takes a place that is noise out of all clusters; those that differed nowhere else are gone.
    pub(super) fn strip(&mut self, noise: PlaceId, endpoint: u64, places: &Places) {
        if !self.0.values().any(|cluster| cluster.places.contains(&noise)) {
            return;
        }
        for (_, mut cluster) in std::mem::take(&mut self.0) {
            cluster.places = cluster.places.iter().copied().filter(|id| *id != noise).collect();
            self.put(cluster, endpoint, places);
        }
    }

    /// Takes in the clusters of another endpoint, whose places are called as `names` says.
    pub(super) fn absorb(&mut self, other: Self, names: &[PlaceId], endpoint: u64, places: &Places) {
        for (_, mut cluster) in other.0 {
            let mut set: Vec<PlaceId> =
                cluster.places.iter().filter_map(|id| names.get(usize::from(*id)).copied()).collect();
            set.sort_unstable();
            set.dedup();
            cluster.places = set.into();
            self.put(cluster, endpoint, places);
        }
    }

    /// Adds a cluster to those that there are.
    pub(super) fn put(&mut self, cluster: Cluster, endpoint: u64, places: &Places) {
        if cluster.places.is_empty() {
            return;
        }
        let key = key(endpoint, places, cluster.statuses, &cluster.places);
        match self.0.get_mut(&key) {
            None => {
                self.0.insert(key, cluster);
            }
            Some(known) => {
                known.shadow.merge(&cluster.shadow);
                known.control.merge(&cluster.control);
                known.first_seen = known.first_seen.min(cluster.first_seen);
                known.last_seen = known.last_seen.max(cluster.last_seen);
            }
        }
    }
}

/// A hash that does not depend on the order in which places came up.
fn key(endpoint: u64, places: &Places, statuses: (u16, u16), set: &[PlaceId]) -> ClusterKey {
    key_of(endpoint, statuses, set.iter().map(|id| places.get(*id).map_or(0, |place| place.hash)))
}

/// The same of the hashes of places.
pub(super) fn key_of(endpoint: u64, statuses: (u16, u16), hashes: impl Iterator<Item = u64>) -> ClusterKey {
    let sum = hashes.fold(0_u64, |sum, hash| sum.wrapping_add(mix(hash)));
    let codes = u64::from(statuses.0) << 16 | u64::from(statuses.1);
    ClusterKey(mix(mix(endpoint ^ codes).wrapping_add(sum)))
}
