//! Enters: divergent exchanges, cluster by cluster. Leaves: how often and when each cluster was seen, and a few of its
//! exchanges, all of them chosen with the same probability.
//!
//! Nothing here grows: clusters that were not seen for longest make room for others, and so do samples where they take
//! more bytes than they may. Records come without secrets: see [`crate::pipeline::redact`].

mod record;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::SystemTime,
};

use serde::{Serialize, Serializer, ser::SerializeSeq as _};

#[cfg(feature = "kafka")]
pub(in crate::io) use self::record::written;
pub use self::record::{AnswerRecord, DivergenceRecord, Record, Told};
use crate::io::config::EvidenceConfig;

/// What is kept of the divergences of one target. A cluster is known by a number.
#[derive(Debug)]
pub struct Evidence {
    config: EvidenceConfig,
    clusters: HashMap<u64, Cluster>,
    /// The clusters in the order in which they were seen last.
    order: BTreeMap<u64, u64>,
    /// Of the next sight of a cluster.
    sight: u64,
    bytes: u64,
    evicted: u64,
}

/// Exchanges that differ in the same way.
#[derive(Clone, Debug, Serialize)]
pub struct Cluster {
    /// What it is called.
    pub title: String,
    /// How many there were.
    pub count: u64,
    /// When the first was seen.
    #[serde(serialize_with = "record::written")]
    pub first_seen: SystemTime,
    /// When the last was seen.
    #[serde(serialize_with = "record::written")]
    pub last_seen: SystemTime,
    /// Some of them.
    #[serde(serialize_with = "listed")]
    pub samples: Vec<Arc<Record>>,
    #[serde(skip)]
    sight: u64,
    #[serde(skip)]
    bytes: u64,
}

/// Where a record is to be kept.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Slot {
    cluster: u64,
    index: usize,
}

impl Evidence {
    /// Keeps nothing yet.
    #[must_use]
    pub fn new(config: EvidenceConfig) -> Self {
        Self { config, clusters: HashMap::new(), order: BTreeMap::new(), sight: 0, bytes: 0, evicted: 0 }
    }

    /// Counts an exchange of a cluster. Gives where its record is to be kept, if it is: of `n` exchanges each of the last
    /// has the chance of `samples / n`. `draw` is uniform over all `u64`. `title` is asked for once a cluster.
    pub fn observe(
        &mut self,
        cluster: u64,
        now: SystemTime,
        draw: u64,
        title: impl FnOnce() -> String,
    ) -> Option<Slot> {
        self.sight += 1;
        let sight = self.sight;
        if !self.clusters.contains_key(&cluster) {
            while self.clusters.len() >= self.config.clusters.max(1) {
                self.evict_oldest();
            }
        }
        let known = self.clusters.entry(cluster).or_insert_with(|| Cluster {
            title: title(),
            count: 0,
            first_seen: now,
            last_seen: now,
            samples: Vec::new(),
            sight,
            bytes: 0,
        });
        self.order.remove(&known.sight);
        self.order.insert(sight, cluster);
        (known.sight, known.last_seen) = (sight, now);
        known.count = known.count.saturating_add(1);
        // Algorithm R; the bias of the remainder is below 2^-32 for any count that there will be.
        let index =
            if known.samples.len() < self.config.samples && known.count <= as_count(self.config.samples) {
                known.samples.len()
            } else {
                usize::try_from(draw % known.count).unwrap_or(usize::MAX)
            };
        (index < self.config.samples).then_some(Slot { cluster, index })
    }

    /// Keeps a record where [`Self::observe`] said, in place of what is there. Where that takes too many bytes, the
    /// samples of clusters that were not seen for longest go; a record that is larger than all may be is not kept.
    pub fn keep(&mut self, slot: Slot, record: Arc<Record>) {
        let bytes = as_count(record.bytes());
        let Some(cluster) = self.clusters.get_mut(&slot.cluster) else { return };
        if bytes > self.config.bytes {
            return;
        }
        match cluster.samples.get_mut(slot.index) {
            Some(kept) => {
                let freed = as_count(std::mem::replace(kept, record).bytes());
                cluster.bytes = cluster.bytes.saturating_sub(freed);
                self.bytes = self.bytes.saturating_sub(freed);
            }
            None => cluster.samples.push(record),
        }
        cluster.bytes = cluster.bytes.saturating_add(bytes);
        self.bytes = self.bytes.saturating_add(bytes);
        let oldest_first: Vec<u64> = if self.bytes > self.config.bytes {
            self.order
                .values()
                .copied()
                .filter(|cluster| *cluster != slot.cluster)
                .chain([slot.cluster])
                .collect()
        } else {
            Vec::new()
        };
        for cluster in oldest_first {
            let Some(cluster) = self.clusters.get_mut(&cluster) else { continue };
            // The last one to come goes last.
            while self.bytes > self.config.bytes && !cluster.samples.is_empty() {
                let freed = as_count(cluster.samples.remove(0).bytes());
                cluster.bytes = cluster.bytes.saturating_sub(freed);
                self.bytes = self.bytes.saturating_sub(freed);
            }
        }
    }

    /// Forgets clusters that were not seen for the time of retention.
    pub fn expire(&mut self, now: SystemTime) {
        let retention = self.config.retention;
        while let Some((_, oldest)) = self.order.first_key_value() {
            // A clock that was set back makes nothing old.
            let age = |cluster: &Cluster| now.duration_since(cluster.last_seen).unwrap_or_default();
            if self.clusters.get(oldest).is_some_and(|cluster| age(cluster) <= retention) {
                return;
            }
            self.evict_oldest();
        }
    }

    fn evict_oldest(&mut self) {
        let Some((_, oldest)) = self.order.pop_first() else { return };
        if let Some(cluster) = self.clusters.remove(&oldest) {
            self.bytes = self.bytes.saturating_sub(cluster.bytes);
            self.evicted = self.evicted.saturating_add(1);
        }
    }

    /// All clusters by their numbers, the most frequent ones first.
    #[must_use]
    pub fn clusters(&self) -> Vec<(u64, &Cluster)> {
        let mut clusters: Vec<_> = self.clusters.iter().map(|(number, cluster)| (*number, cluster)).collect();
        clusters.sort_by_key(|(number, cluster)| (std::cmp::Reverse(cluster.count), *number));
        clusters
    }

    /// One cluster.
    #[must_use]
    pub fn cluster(&self, number: u64) -> Option<&Cluster> {
        self.clusters.get(&number)
    }

    /// Bytes of all samples, about.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Clusters that were forgotten, for room or for their age.
    #[must_use]
    pub const fn evicted(&self) -> u64 {
        self.evicted
    }
}

fn as_count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

fn listed<S: Serializer>(samples: &[Arc<Record>], serializer: S) -> Result<S::Ok, S::Error> {
    let mut list = serializer.serialize_seq(Some(samples.len()))?;
    for sample in samples {
        list.serialize_element(&**sample)?;
    }
    list.end()
}

#[cfg(test)]
pub(in crate::io) mod tests;
