//! Enters: what sinks count. Leaves: its metrics.

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, NoLabelSet},
    metrics::MetricType,
    registry::Registry,
};

use super::encoder::Encoder;
use crate::{io::sinks::SinkLedger, pipeline::reason::SinkResult};

/// Adds the metrics of the sinks. There is a line for each result of each sink from its beginning on.
pub fn register_sinks(registry: &mut Registry, ledger: SinkLedger) {
    registry.register_collector(Box::new(SinkMetrics(ledger)));
}

#[derive(Debug)]
struct SinkMetrics(SinkLedger);

impl Collector for SinkMetrics {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut out = Encoder(encoder);
        let mut family =
            out.describe("sink_records", "Records that sinks were to take", MetricType::Counter)?;
        for books in self.0.books() {
            for (result, count) in SinkResult::LABELS.iter().zip(books.counts()) {
                let labels =
                    [("experiment", &*books.experiment), ("sink", &*books.sink), ("result", *result)];
                family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
            }
        }
        Ok(())
    }
}
