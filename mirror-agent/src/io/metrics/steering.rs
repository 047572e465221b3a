//! Enters: what is steered, as it stands. Leaves: its metrics.

use std::{fmt, sync::Arc};

use prometheus_client::{collector::Collector, encoding::DescriptorEncoder, registry::Registry};

use super::encoder::Encoder;
use crate::io::steering::{ReloadResult, Status};

/// Adds the metrics of the steering to those of a registry.
pub fn register_steering(registry: &mut Registry, status: Arc<Status>) {
    registry.register_collector(Box::new(SteeringMetrics(status)));
}

#[derive(Debug)]
struct SteeringMetrics(Arc<Status>);

impl Collector for SteeringMetrics {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut out = Encoder(encoder);
        let Self(status) = self;
        let experiments = status.experiments();
        let names: Vec<&str> = experiments.iter().map(|experiment| &*experiment.name).collect();
        let paused: Vec<f64> = experiments.iter().map(|experiment| f64::from(experiment.is_paused)).collect();
        out.gauges(
            "experiment_paused",
            "1 while the experiment is paused, by itself or with all, else 0",
            "experiment",
            &names,
            &paused,
        )?;
        let expiries: Vec<f64> = experiments.iter().map(|experiment| experiment.expires as f64).collect();
        out.gauges(
            "experiment_expiry_timestamp_seconds",
            "When the experiment ends or has ended, in seconds since 1970; 0 for never",
            "experiment",
            &names,
            &expiries,
        )?;
        out.gauge(
            "config_last_reload_successful",
            "1 if the configuration that was offered last is in force, else 0",
            f64::from(status.is_last_in_force()),
        )?;
        out.gauge(
            "config_last_reload_success_timestamp_seconds",
            "When the configuration in force was loaded, in seconds since 1970",
            status.loaded_at() as f64,
        )?;
        out.family(
            "config_reloads",
            "Configurations offered since the start",
            "result",
            &ReloadResult::LABELS,
            &status.reloads(),
        )
    }
}
