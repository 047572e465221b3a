//! Enters: records, from any thread. Leaves: the same in their order, many at a time.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::io::evidence::Record;

/// Records that may wait: some seconds of what is compared at all, so that a sink may stop for a moment.
pub(super) const RECORDS: usize = 4096;

/// Bytes that they may have, about.
pub const BYTES: usize = 16 * 1024 * 1024;

/// What waits to be written. Its lock is held for a push, or while a batch is taken.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    records: VecDeque<Arc<Record>>,
    bytes: usize,
    is_closed: bool,
}

impl Queue {
    /// Puts a record in; false if it is full or closed. Never waits for who takes it.
    pub(super) fn push(&self, record: &Arc<Record>) -> bool {
        let bytes = record.bytes();
        let mut waiting = self.lock();
        let has_room = waiting.records.len() < RECORDS && waiting.bytes.saturating_add(bytes) <= BYTES;
        if waiting.is_closed || !has_room {
            return false;
        }
        waiting.records.push_back(Arc::clone(record));
        waiting.bytes += bytes;
        drop(waiting);
        self.changed.notify_one();
        true
    }

    /// Takes at most `most` records, as soon as there is one; none where there was none for the time of `patience`. `None`
    /// once the queue is closed and empty.
    pub(super) fn take(&self, most: usize, patience: Duration) -> Option<Vec<Arc<Record>>> {
        let is_idle = |waiting: &mut Waiting| waiting.records.is_empty() && !waiting.is_closed;
        let waited = self.changed.wait_timeout_while(self.lock(), patience, is_idle);
        let (mut waiting, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if waiting.records.is_empty() && waiting.is_closed {
            return None;
        }
        let count = most.min(waiting.records.len());
        let batch: Vec<_> = waiting.records.drain(..count).collect();
        let taken: usize = batch.iter().map(|record| record.bytes()).sum();
        waiting.bytes = waiting.bytes.saturating_sub(taken);
        Some(batch)
    }

    /// Lets nothing more in.
    pub(super) fn close(&self) {
        self.lock().is_closed = true;
        self.changed.notify_all();
    }

    /// Whether nothing more comes in.
    #[cfg(feature = "kafka")]
    pub(super) fn is_closed(&self) -> bool {
        self.lock().is_closed
    }

    /// Takes what is left out; how many records that is.
    #[cfg(feature = "kafka")]
    pub(super) fn clear(&self) -> usize {
        let mut waiting = self.lock();
        waiting.bytes = 0;
        std::mem::take(&mut waiting.records).len()
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // A list and its length: a panic between the two would only make it seem fuller.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
