//! Enters: how the fleet was when it was last asked. Leaves: its metrics.

use std::{
    fmt,
    sync::{Arc, atomic::Ordering},
};

use prometheus_client::{collector::Collector, encoding::DescriptorEncoder, registry::Registry};

use super::encoder::Encoder;
use crate::io::fleet::FleetGauges;

/// Adds the metrics of the fleet to those of a registry.
pub fn register_fleet(registry: &mut Registry, gauges: Arc<FleetGauges>) {
    registry.register_collector(Box::new(FleetMetrics(gauges)));
}

#[derive(Debug)]
struct FleetMetrics(Arc<FleetGauges>);

impl Collector for FleetMetrics {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut out = Encoder(encoder);
        let Self(gauges) = self;
        out.gauge(
            "fleet_peers_known",
            "Agents that were known of when the fleet was last asked, this one included",
            gauges.known.load(Ordering::Relaxed) as f64,
        )?;
        out.gauge(
            "fleet_peers_answered",
            "Those of them that answered and were understood",
            gauges.answered.load(Ordering::Relaxed) as f64,
        )?;
        out.gauge(
            "fleet_asked_timestamp_seconds",
            "When the fleet was last asked, in seconds since 1970; 0 for never",
            gauges.asked_at.load(Ordering::Relaxed) as f64,
        )
    }
}
