//! Enters: records. Leaves: their lines in a file, one JSON object each.

use std::{
    sync::PoisonError,
    time::{Duration, Instant},
};

use tracing::warn;

use super::{SinkBooks, queue::Queue};
use crate::{
    io::lines::{Loss, RotatingFile},
    pipeline::reason::SinkResult,
};

/// Records that are taken at once.
const BATCH: usize = 256;

/// Bytes of lines that are written in one go.
const WRITE_BYTES: usize = 256 * 1024;

/// How often a warning about the same thing is given at most.
const WARN_INTERVAL: Duration = Duration::from_secs(60);

/// Nothing but records is waited for.
const PATIENCE: Duration = Duration::from_secs(3600);

/// Writes until the queue is closed and empty.
pub(super) fn write(mut file: RotatingFile, queue: &Queue, books: &SinkBooks) {
    let turn = books.turn.try_lock();
    let _turn = match turn {
        Ok(turn) => turn,
        // The thread before this one has not ended yet; what it does to the file is looked at behind it.
        Err(_) => {
            let turn = books.turn.lock().unwrap_or_else(PoisonError::into_inner);
            file.look_again();
            turn
        }
    };
    let mut lines = Vec::new();
    let mut count = 0_u64;
    let mut warned: Option<Instant> = None;
    let mut write = |lines: &mut Vec<u8>, count: &mut u64| {
        let lost = match file.write_lines(lines) {
            Ok(()) => 0,
            Err(Loss { records, error }) => {
                if warned.is_none_or(|at| at.elapsed() >= WARN_INTERVAL) {
                    warned = Some(Instant::now());
                    let (experiment, sink) = (&*books.experiment, &*books.sink);
                    warn!(%error, records, experiment, sink, "Records could not be written; see mirror_sink_records_total.");
                }
                records
            }
        };
        books.count(SinkResult::Failed, lost);
        books.count(SinkResult::Written, count.saturating_sub(lost));
        lines.clear();
        *count = 0;
    };
    while let Some(batch) = queue.take(BATCH, PATIENCE) {
        for record in batch {
            let begin = lines.len();
            // Text, numbers and lists: nothing that JSON cannot hold.
            if serde_json::to_writer(&mut lines, &*record).is_err() {
                lines.truncate(begin);
                books.count(SinkResult::Failed, 1);
                continue;
            }
            lines.push(b'\n');
            count += 1;
            if lines.len() >= WRITE_BYTES {
                write(&mut lines, &mut count);
            }
        }
        write(&mut lines, &mut count);
    }
}
