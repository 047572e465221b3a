//! Enters: nothing. Leaves: the shape of what is told of the comparisons of an agent.

use std::{sync::Arc, time::SystemTime};

use serde::Serialize;
use serde_json::{Value, json};

use super::{curl::curl, history::VerdictHistory};
use crate::io::{
    control::time,
    evidence::{Cluster, Record},
};

/// What is known of the experiments that compare.
#[derive(Debug, Default, Serialize)]
pub(super) struct Report {
    /// Each of them.
    pub(super) experiments: Vec<ExperimentReport>,
}

/// What is known of one experiment.
#[derive(Debug, Serialize)]
pub(super) struct ExperimentReport {
    /// Its name.
    pub(super) name: String,
    /// Who answers for it.
    pub(super) owner: Option<String>,
    /// Since when it compares as it does, in RFC 3339.
    pub(super) since: String,
    /// Whether a verdict is asked for.
    pub(super) has_gate: bool,
    /// Whether a second copy of the live version tells what is noise.
    pub(super) has_control: bool,
    /// Each new version.
    pub(super) targets: Vec<TargetReport>,
    /// The rules by which is compared, in their order.
    pub(super) rules: Vec<RuleReport>,
    /// Arrays that are no sequences.
    pub(super) arrays: Vec<ArrayReport>,
}

/// What is known of one new version.
#[derive(Debug, Serialize)]
pub(super) struct TargetReport {
    /// Its name.
    pub(super) target: String,
    /// How it compares: a [`Summary`](crate::pipeline::judge::Summary).
    #[serde(flatten)]
    pub(super) summary: Value,
    /// Clusters of divergences with some of their exchanges.
    pub(super) kept: Vec<ClusterReport>,
}

/// Exchanges that differ in the same way.
#[derive(Debug, Serialize)]
pub(super) struct ClusterReport {
    /// By what the cluster is known.
    pub(super) key: String,
    /// How many there were.
    pub(super) count: u64,
    /// When the first was seen, in RFC 3339.
    pub(super) first_seen: String,
    /// When the last was seen.
    pub(super) last_seen: String,
    /// Some of them.
    #[serde(serialize_with = "each")]
    pub(super) samples: Vec<Arc<Record>>,
}

impl ClusterReport {
    pub(super) fn new(key: u64, kept: &Cluster) -> Self {
        let time = |at: SystemTime| time::rfc3339(at);
        Self {
            key: format!("{key:016x}"),
            count: kept.count,
            first_seen: time(kept.first_seen),
            last_seen: time(kept.last_seen),
            samples: kept.samples.clone(),
        }
    }
}

/// What is kept of one cluster.
#[derive(Debug, Serialize)]
pub(super) struct ClusterEvidence {
    /// Name of the experiment.
    pub(super) experiment: String,
    /// Of each new version that shows it.
    pub(super) targets: Vec<TargetEvidence>,
}

/// What is kept of one cluster of one new version.
#[derive(Debug, Serialize)]
pub(super) struct TargetEvidence {
    /// Name of the target.
    target: String,
    /// By what the cluster is known.
    key: String,
    /// How many exchanges there were.
    count: u64,
    /// When the first was seen, in RFC 3339.
    first_seen: String,
    /// When the last was seen.
    last_seen: String,
    /// Some of them: each a [`Record`], and its request as a command.
    samples: Vec<Value>,
}

impl TargetEvidence {
    pub(super) fn new(target: String, key: u64, kept: &Cluster) -> Self {
        let ClusterReport { key, count, first_seen, last_seen, samples } = ClusterReport::new(key, kept);
        let sample = |record: Arc<Record>| {
            // Texts, numbers and lists: nothing that JSON cannot hold.
            let mut sample = serde_json::to_value(&*record).unwrap_or_default();
            let command = curl(&sample["request"]);
            if let Some(fields) = sample.as_object_mut() {
                fields.insert("curl".to_owned(), json!(command));
            }
            sample
        };
        let samples = samples.into_iter().map(sample).collect();
        Self { target, key, count, first_seen, last_seen, samples }
    }
}

/// What the verdict was, and since when.
#[derive(Debug, Serialize)]
pub(super) struct Verdicts<'a> {
    /// Name of the experiment.
    pub(super) experiment: &'a str,
    /// Whether a verdict is asked for.
    pub(super) has_gate: bool,
    /// Its changes.
    #[serde(flatten)]
    pub(super) history: &'a VerdictHistory,
}

fn each<S: serde::Serializer>(samples: &[Arc<Record>], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(samples.iter().map(|sample| &**sample))
}

/// An array that is no sequence.
#[derive(Debug, Serialize)]
pub(super) struct ArrayReport {
    /// As in a configuration file, under `compare.arrays`.
    pub(super) array: Value,
    /// Whether it was accepted since the start, and so ends with the agent.
    pub(super) is_own: bool,
}

/// A rule, and how often it has explained a difference.
#[derive(Debug, Serialize)]
pub(super) struct RuleReport {
    /// As in a configuration file, under `compare.rules`.
    pub(super) rule: Value,
    /// How often.
    pub(super) matched: u64,
    /// Whether it was accepted or added since the start, and so ends with the agent.
    pub(super) is_own: bool,
}
