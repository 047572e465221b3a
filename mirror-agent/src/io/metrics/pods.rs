//! Enters: what watching pods finds. Leaves: its metrics.

use std::{fmt, sync::Arc};

use prometheus_client::{collector::Collector, encoding::DescriptorEncoder, registry::Registry};

use super::encoder::Encoder;
use crate::io::pods::{PodsStatus, WatchFailure};

/// Adds the metrics of pods. There is a line for each experiment about pods, also while none runs on the node.
pub fn register_pods(registry: &mut Registry, status: Arc<PodsStatus>) {
    registry.register_collector(Box::new(PodsMetrics(status)));
}

#[derive(Debug)]
struct PodsMetrics(Arc<PodsStatus>);

impl Collector for PodsMetrics {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut out = Encoder(encoder);
        let Self(status) = self;
        let experiments = status.experiments();
        let names: Vec<&str> = experiments.iter().map(|(name, _)| &**name).collect();
        let pods: Vec<f64> = experiments.iter().map(|(_, pods)| *pods as f64).collect();
        out.gauges(
            "experiment_pods",
            "Pods of the experiment that run on this node",
            "experiment",
            &names,
            &pods,
        )?;
        out.gauge(
            "pods_without_interface",
            "Addresses of pods on this node whose interface on the node was not found",
            status.without_interface() as f64,
        )?;
        out.gauge(
            "pods_state_age_seconds",
            "Seconds since the API server was last heard of; 0 where it is not asked",
            status.age().as_secs_f64(),
        )?;
        out.family(
            "pods_watch_errors",
            "Watches of pods that did not work",
            "reason",
            &WatchFailure::LABELS,
            &status.failures(),
        )?;
        out.gauge(
            "agents_ready",
            "Agents by which a rate of all of them is divided: those that are ready, or as configured",
            f64::from(status.agents()),
        )
    }
}
