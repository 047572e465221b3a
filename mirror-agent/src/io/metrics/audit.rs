//! Enters: what the audit log counts. Leaves: its metrics.

use std::fmt;

use prometheus_client::{collector::Collector, encoding::DescriptorEncoder, registry::Registry};

use super::encoder::Encoder;
use crate::io::audit::{Audit, Event, LossReason};

/// Adds the metrics of the audit log.
pub fn register_audit(registry: &mut Registry, audit: Audit) {
    registry.register_collector(Box::new(AuditMetrics(audit)));
}

#[derive(Debug)]
struct AuditMetrics(Audit);

impl Collector for AuditMetrics {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut out = Encoder(encoder);
        let Self(audit) = self;
        out.family(
            "audit_records",
            "Audit records made, whether or not a file takes them",
            "event",
            &Event::LABELS,
            &audit.records(),
        )?;
        out.family(
            "audit_records_dropped",
            "Audit records that are missing from the file",
            "reason",
            &LossReason::LABELS,
            &audit.dropped(),
        )
    }
}
