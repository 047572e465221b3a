//! Enters: for how long the thread that sends gave way. Leaves: its metric.

use std::{fmt, sync::Arc};

use prometheus_client::{collector::Collector, encoding::DescriptorEncoder, registry::Registry};

use super::encoder::Encoder;
use crate::io::precedence::Precedence;

/// Adds the metric of the precedence.
pub fn register_precedence(registry: &mut Registry, precedence: Arc<Precedence>) {
    registry.register_collector(Box::new(PrecedenceMetrics(precedence)));
}

#[derive(Debug)]
struct PrecedenceMetrics(Arc<Precedence>);

impl Collector for PrecedenceMetrics {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut out = Encoder(encoder);
        let Self(precedence) = self;
        out.seconds(
            "replay_gave_way_seconds",
            "Time in which the thread that sends copies gave way to all else that runs on the node",
            precedence.gave_way(),
        )
    }
}
