//! Enters: records, from any thread. Leaves: the same, many at a time.

use std::{
    mem,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::record::Record;

/// Records that may wait: what a shadow that takes 50,000 writes a second makes in the third part of a second, in two
/// megabytes.
const RECORDS: usize = 16 * 1024;

/// Of those for changes alone: a flood of copies must not keep a change out of the log.
const RESERVED: usize = 1024;

/// The least time between two batches, so that the thread is not woken for every copy.
const BATCH_INTERVAL: Duration = Duration::from_millis(20);

/// What waits to be written. Its lock is held for a push, or while everything is taken at once.
#[derive(Debug)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    arrived: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    records: Vec<Record>,
    is_closed: bool,
}

impl Default for Queue {
    fn default() -> Self {
        Self { waiting: Mutex::default(), arrived: Condvar::new() }
    }
}

impl Queue {
    /// Puts a record in; false if it is full or closed. Never waits for the disk.
    pub(super) fn push(&self, record: Record) -> bool {
        let limit = match record {
            Record::Entry(_) => RECORDS,
            Record::Copy(_) => RECORDS - RESERVED,
        };
        let mut waiting = self.lock();
        if waiting.is_closed || waiting.records.len() >= limit {
            return false;
        }
        waiting.records.push(record);
        let is_first = waiting.records.len() == 1;
        drop(waiting);
        if is_first {
            self.arrived.notify_one();
        }
        true
    }

    /// Exchanges what waits for the empty `batch`, as soon as there is something. False once the queue is closed and
    /// empty.
    pub(super) fn take(&self, batch: &mut Vec<Record>) -> bool {
        // Nothing is written for a moment after a batch; whoever closes the queue does not wait for that.
        let waiting = self.lock();
        let paced = self.arrived.wait_timeout_while(waiting, BATCH_INTERVAL, |waiting| !waiting.is_closed);
        let (waiting, _) = paced.unwrap_or_else(PoisonError::into_inner);
        let has_none = |waiting: &mut Waiting| waiting.records.is_empty() && !waiting.is_closed;
        let arrived = self.arrived.wait_while(waiting, has_none);
        let mut waiting = arrived.unwrap_or_else(PoisonError::into_inner);
        mem::swap(&mut waiting.records, batch);
        !batch.is_empty()
    }

    /// Lets nothing more in.
    pub(super) fn close(&self) {
        self.lock().is_closed = true;
        self.arrived.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // A list and a flag: neither can be left half changed.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::record::Entry, *};
    use crate::io::audit::{Audit, Event, Who, record::CopyRecord};
    use crate::pipeline::http::Method;

    #[test]
    fn flood_of_copies_leaves_room_for_changes() {
        let queue = Queue::default();
        let target = Audit::default().of_target("e", None, "t");
        let subject = target.0.unwrap();
        let copy = || {
            Record::Copy(CopyRecord {
                time: std::time::SystemTime::now(),
                subject: std::sync::Arc::clone(&subject),
                id: [b'0'; 38],
                method: Method::Post,
            })
        };
        let change = || Record::Entry(Box::new(Entry::new(Event::Pause, &Who::Agent)));
        let copies = (0..RECORDS).filter(|_| queue.push(copy())).count();
        assert_eq!(copies, RECORDS - RESERVED);
        let changes = (0..RECORDS).filter(|_| queue.push(change())).count();
        assert_eq!(changes, RESERVED);
        let mut batch = Vec::new();
        assert!(queue.take(&mut batch));
        assert_eq!(batch.len(), RECORDS);
        queue.close();
        assert!(!queue.push(change()));
        batch.clear();
        assert!(!queue.take(&mut batch));
    }
}
