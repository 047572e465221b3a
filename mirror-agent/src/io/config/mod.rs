//! Enters: a configuration file, or the flags of `run`. Leaves: what to capture and which experiments to run, as one
//! value.

#[cfg(feature = "runtime")]
mod args;
mod comparison;
mod file;
mod fit;
mod model;
mod pods;
mod rewrite;
#[cfg(feature = "runtime")]
mod source;

use ipnet::IpNet;

#[cfg(feature = "runtime")]
pub use self::{
    args::Listens,
    source::{LoadError, read},
};
pub use self::{
    comparison::{
        ComparisonConfig, EvidenceConfig, KafkaTopics, SessionConfig, SessionSource, SessionUse, SinkConfig,
        SinkPlace, SinkTake, TargetRole,
    },
    file::{Fault, Faults, parse, parse_interlock, parse_rule, schema},
    fit::{Key, default_max_body, default_queue_bytes},
    model::*,
    pods::{LabelExpression, LabelOperator, LabelSelector, PodPort, PodsConfig},
};
pub use crate::pipeline::redact::RedactRules;

impl Config {
    /// The live ports of all experiments, each once.
    #[must_use]
    pub fn ports(&self) -> Vec<u16> {
        let mut ports: Vec<_> =
            self.experiments.iter().flat_map(|experiment| &experiment.ports).copied().collect();
        ports.sort_unstable();
        ports.dedup();
        ports
    }

    /// The live addresses of all experiments; none where one of them takes any.
    #[must_use]
    pub fn addresses(&self) -> Vec<IpNet> {
        networks(self.experiments.iter())
    }

    /// Whether a target has a rate that all agents share.
    #[must_use]
    pub fn shares_rates(&self) -> bool {
        let targets = self.experiments.iter().flat_map(|experiment| &experiment.targets);
        targets
            .map(|target| target.limits.requests_per_second)
            .any(|rate| matches!(rate, Some(Rate::Total(_))))
    }

    /// Whether an experiment is about pods.
    #[must_use]
    pub fn asks_for_pods(&self) -> bool {
        self.experiments.iter().any(|experiment| experiment.pods.is_some())
    }

    /// How many targets there are.
    #[must_use]
    pub fn targets(&self) -> usize {
        self.experiments.iter().map(|experiment| experiment.targets.len()).sum()
    }
}

/// The live addresses of these experiments, each once; none where one of them takes any. Those without a port yet are
/// left aside.
pub fn networks<'a>(experiments: impl Iterator<Item = &'a ExperimentConfig> + Clone) -> Vec<IpNet> {
    let experiments = experiments.filter(|experiment| !experiment.ports.is_empty());
    if experiments.clone().any(|experiment| experiment.addresses.is_empty()) {
        return Vec::new();
    }
    let mut networks: Vec<_> = experiments.flat_map(|experiment| &experiment.addresses).copied().collect();
    networks.sort_unstable();
    networks.dedup();
    networks
}
