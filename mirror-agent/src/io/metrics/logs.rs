//! Enters: what became of lines of the log. Leaves: its metrics.

use std::{fmt, sync::Arc};

use prometheus_client::{collector::Collector, encoding::DescriptorEncoder, registry::Registry};

use super::encoder::Encoder;
use crate::io::logs::LogCounts;

/// Adds the metrics of the log.
pub fn register_logs(registry: &mut Registry, counts: Arc<LogCounts>) {
    registry.register_collector(Box::new(LogMetrics(counts)));
}

#[derive(Debug)]
struct LogMetrics(Arc<LogCounts>);

impl Collector for LogMetrics {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut out = Encoder(encoder);
        let Self(counts) = self;
        out.counter(
            "log_lines_dropped",
            "Lines of the log that standard error did not take in time",
            counts.dropped(),
        )?;
        out.counter(
            "log_lines_held_back",
            "Warnings and errors that were not written, since the same was said less than a minute before",
            counts.held_back(),
        )
    }
}
