//! Enters: batches of records. Leaves: their lines in the file, and the count of those that are not.

use std::time::{Duration, Instant};

use tracing::warn;

use super::{Counters, LossReason, queue::Queue};
use crate::io::lines::{Loss, RotatingFile};

/// Bytes of lines that are written in one go.
const WRITE_BYTES: usize = 64 * 1024;

/// How often a warning about the same thing is given at most.
const WARN_INTERVAL: Duration = Duration::from_secs(60);

/// Writes until the queue is closed and empty.
pub(super) fn write(mut file: RotatingFile, queue: Option<&Queue>, counters: &Counters) {
    let Some(queue) = queue else { return };
    let mut batch = Vec::new();
    let mut lines = Vec::with_capacity(WRITE_BYTES);
    let mut warned: Option<Instant> = None;
    let mut write = |lines: &mut Vec<u8>| {
        if let Err(Loss { records, error }) = file.write_lines(lines) {
            counters.lose(LossReason::Write, records);
            if warned.is_none_or(|at| at.elapsed() >= WARN_INTERVAL) {
                warned = Some(Instant::now());
                warn!(%error, records, "Audit records could not be written; see mirror_audit_records_dropped_total.");
            }
        }
        lines.clear();
    };
    while queue.take(&mut batch) {
        for record in batch.drain(..) {
            record.write(&mut lines);
            if lines.len() >= WRITE_BYTES {
                write(&mut lines);
            }
        }
        write(&mut lines);
    }
}
