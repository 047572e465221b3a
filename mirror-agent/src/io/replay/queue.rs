//! Enters: requests from capture threads, which never wait. Leaves: the same requests, in order, for the replay.

use std::{
    collections::VecDeque,
    fmt, mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU8, AtomicUsize, Ordering},
    },
};

use tokio::sync::Notify;

use crate::{
    io::ledger::{DropReason, Ticket},
    pipeline::{Request, Timestamp},
};

/// A request that waits to be replayed.
#[derive(Debug)]
pub struct Job {
    /// The request.
    pub request: Request,
    /// The duty to settle it.
    pub ticket: Ticket,
    /// The number of the pipeline that it came from; it makes the number of its exchange unique.
    pub pipeline: u16,
    /// When it was queued, by [`clock::now`](super::clock::now).
    pub queued_at: Timestamp,
}

/// The bounded queue between the capture threads and the replay: capture --jobs--> replay.
///
/// The lock is held for as long as it takes to move one batch into place. Nothing is allocated, freed, or settled
/// under it, and nobody waits for anything else while holding it.
pub struct Queue {
    jobs_limit: usize,
    bytes_limit: AtomicUsize,
    /// How it stands; changed under the lock of `waiting`, and read without it.
    standing: AtomicU8,
    waiting: Mutex<Waiting>,
    /// Bytes of requests queued or being written: a slow shadow must not let more be held than the limit says.
    held_bytes: Arc<AtomicUsize>,
    arrived: Notify,
}

#[derive(Debug)]
struct Waiting {
    /// Never more than `jobs_limit`; never reallocated.
    jobs: VecDeque<Job>,
}

/// Whether copies go through a queue. Each is closed in more ways than the one before it.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[repr(u8)]
enum Standing {
    /// They come and are sent.
    Open,
    /// None comes any more; those that wait are sent.
    Closing,
    /// None comes and none is begun, for the time being.
    Paused,
    /// None comes and none is begun, ever again.
    Removed,
}

impl Standing {
    const fn of(value: u8) -> Self {
        match value {
            0 => Self::Open,
            1 => Self::Closing,
            2 => Self::Paused,
            _ => Self::Removed,
        }
    }

    /// What a copy that comes is dropped for.
    const fn refuses(self) -> Option<DropReason> {
        match self {
            Self::Open => None,
            Self::Closing => Some(DropReason::Shutdown),
            Self::Paused => Some(DropReason::Paused),
            Self::Removed => Some(DropReason::Removed),
        }
    }
}

impl Queue {
    /// An empty queue for at most `jobs_limit` requests, which together hold at most `bytes_limit` bytes until they are
    /// written. A request longer than `bytes_limit` never fits.
    #[must_use]
    pub fn new(jobs_limit: usize, bytes_limit: usize) -> Self {
        Self {
            jobs_limit,
            bytes_limit: AtomicUsize::new(bytes_limit),
            standing: AtomicU8::new(Standing::Open as u8),
            waiting: Mutex::new(Waiting { jobs: VecDeque::with_capacity(jobs_limit) }),
            held_bytes: Arc::default(),
            arrived: Notify::new(),
        }
    }

    /// Queues jobs in their order; those that do not fit are dropped and counted. Never waits for the replay.
    ///
    /// The iterator runs under the lock, so it should do no more than hand out what is ready.
    pub fn push_batch(&self, jobs: impl IntoIterator<Item = Job>) {
        let mut guard = None;
        let mut has_pushed = false;
        for job in jobs {
            let waiting = guard.get_or_insert_with(|| self.lock());
            let len = job.request.raw.len();
            let has_room = waiting.jobs.len() < self.jobs_limit
                && self.held_bytes.load(Ordering::Relaxed).saturating_add(len)
                    <= self.bytes_limit.load(Ordering::Relaxed);
            let refusal = self.standing().refuses().or((!has_room).then_some(DropReason::QueueFull));
            if let Some(reason) = refusal {
                guard = None;
                job.ticket.dropped(reason);
                continue;
            }
            self.held_bytes.fetch_add(len, Ordering::Relaxed);
            waiting.jobs.push_back(job);
            has_pushed = true;
        }
        drop(guard);
        if has_pushed {
            self.arrived.notify_one();
        }
    }

    /// Requests that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().jobs.len()
    }

    /// Whether no request waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of the requests that wait or are being written.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.held_bytes.load(Ordering::Relaxed)
    }

    /// Changes how many bytes may be held. What is held beyond that stays, and nothing more comes until there is room.
    pub fn set_bytes_limit(&self, bytes: usize) {
        self.bytes_limit.store(bytes, Ordering::Relaxed);
    }

    /// Drops what waits, and from now on what comes. A copy of which a socket has accepted a byte is finished, no other
    /// is begun. Returns how many were dropped.
    pub fn pause(&self) -> usize {
        self.shut(Standing::Paused)
    }

    /// Lets copies come again after [`pause`](Self::pause).
    pub fn resume(&self) {
        let _waiting = self.lock();
        if self.standing() == Standing::Paused {
            self.standing.store(Standing::Open as u8, Ordering::Release);
        }
    }

    /// The same as [`pause`](Self::pause), for good.
    pub fn remove(&self) -> usize {
        self.shut(Standing::Removed)
    }

    /// What a copy is dropped for of which no byte has been written; `None` where it may be sent. Asked for each before
    /// its first byte.
    pub(super) fn forbids(&self) -> Option<DropReason> {
        let standing = self.standing();
        if standing >= Standing::Paused { standing.refuses() } else { None }
    }

    /// Lets nothing more in.
    pub(super) fn close(&self) {
        let _waiting = self.lock();
        self.standing.fetch_max(Standing::Closing as u8, Ordering::AcqRel);
    }

    fn shut(&self, standing: Standing) -> usize {
        let fresh = VecDeque::with_capacity(self.jobs_limit);
        let mut waiting = self.lock();
        if self.standing() == Standing::Closing && standing == Standing::Paused {
            // Who stops pauses no more.
            return 0;
        }
        self.standing.fetch_max(standing as u8, Ordering::AcqRel);
        let jobs = mem::replace(&mut waiting.jobs, fresh);
        drop(waiting);
        let count = jobs.len();
        for job in jobs {
            let held = self.hold(job);
            held.ticket.dropped(standing.refuses().unwrap_or(DropReason::Shutdown));
        }
        count
    }

    fn standing(&self) -> Standing {
        Standing::of(self.standing.load(Ordering::Acquire))
    }

    /// Waits until jobs have been pushed since the last wait.
    pub(super) async fn arrived(&self) {
        self.arrived.notified().await;
    }

    /// Takes the oldest job.
    pub(super) fn pop(&self) -> Option<Held> {
        let job = self.lock().jobs.pop_front();
        job.map(|job| self.hold(job))
    }

    /// Takes the oldest job if it was queued before `cutoff`.
    pub(super) fn pop_older(&self, cutoff: Timestamp) -> Option<Held> {
        let mut waiting = self.lock();
        let is_old = waiting.jobs.front().is_some_and(|job| job.queued_at < cutoff);
        let job = if is_old { waiting.jobs.pop_front() } else { None };
        drop(waiting);
        job.map(|job| self.hold(job))
    }

    fn hold(&self, job: Job) -> Held {
        let lease = Lease { held_bytes: Arc::clone(&self.held_bytes), len: job.request.raw.len() };
        Held {
            request: job.request,
            ticket: job.ticket,
            pipeline: job.pipeline,
            queued_at: job.queued_at,
            _lease: lease,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Nothing can panic between a lock and its release that would leave the queue half changed.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Queue {
    fn default() -> Self {
        Self::new(QUEUE_JOBS, QUEUE_BYTES)
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").field("len", &self.len()).field("held_bytes", &self.held_bytes()).finish()
    }
}

/// A job that has left the queue. Its bytes count as held until the lease is let go.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) request: Request,
    pub(super) ticket: Ticket,
    pub(super) pipeline: u16,
    pub(super) queued_at: Timestamp,
    /// Held for as long as the request is.
    _lease: Lease,
}

/// Bytes that count against the queue's limit.
#[derive(Debug)]
pub(super) struct Lease {
    held_bytes: Arc<AtomicUsize>,
    len: usize,
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.held_bytes.fetch_sub(self.len, Ordering::Relaxed);
    }
}

/// Requests that a queue holds by default: 0.2 s of 20,000 requests/s, enough to ride out a stall of the shadow.
pub const QUEUE_JOBS: usize = 4096;

/// Bytes of requests that a queue holds by default.
pub const QUEUE_BYTES: usize = 32 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{Books, request},
        *,
    };

    fn jobs(books: &Books, count: usize, len: usize) -> Vec<Job> {
        (0..count).map(|_| books.job(request(&vec![b'x'; len], len))).collect()
    }

    #[test]
    fn queue_full_by_count_drops_the_newest() {
        let books = Books::default();
        let queue = Queue::new(3, 1000);
        queue.push_batch(jobs(&books, 5, 10));
        assert_eq!((queue.len(), queue.held_bytes()), (3, 30));
        assert_eq!(books.dropped(DropReason::QueueFull), 2);
    }

    #[test]
    fn queue_full_by_bytes_counts_requests_being_written() {
        let books = Books::default();
        let queue = Queue::new(10, 100);
        queue.push_batch(jobs(&books, 2, 50));
        let held = queue.pop().unwrap();
        queue.push_batch(jobs(&books, 1, 50));
        assert_eq!(books.dropped(DropReason::QueueFull), 1);
        drop(held);
        queue.push_batch(jobs(&books, 1, 50));
        assert_eq!((queue.len(), queue.held_bytes()), (2, 100));
        assert_eq!(books.dropped(DropReason::QueueFull), 1);
    }

    #[test]
    fn closed_queue_drops_for_shutdown() {
        let books = Books::default();
        let queue = Queue::new(10, 100);
        queue.close();
        queue.push_batch(jobs(&books, 2, 1));
        assert_eq!((queue.is_empty(), books.dropped(DropReason::Shutdown)), (true, 2));
    }

    #[test]
    fn paused_queue_drops_what_waits_and_what_comes_until_it_is_resumed() {
        let books = Books::default();
        let queue = Queue::new(10, 100);
        queue.push_batch(jobs(&books, 2, 1));
        assert_eq!((queue.pause(), queue.len(), queue.held_bytes()), (2, 0, 0));
        queue.push_batch(jobs(&books, 3, 1));
        assert_eq!((queue.forbids(), books.dropped(DropReason::Paused)), (Some(DropReason::Paused), 5));
        queue.resume();
        queue.push_batch(jobs(&books, 1, 1));
        assert_eq!((queue.forbids(), queue.len()), (None, 1));
    }

    #[test]
    fn removed_queue_stays_removed() {
        let books = Books::default();
        let queue = Queue::new(10, 100);
        queue.push_batch(jobs(&books, 1, 1));
        queue.remove();
        queue.pause();
        queue.resume();
        queue.close();
        queue.push_batch(jobs(&books, 1, 1));
        assert_eq!((queue.forbids(), books.dropped(DropReason::Removed)), (Some(DropReason::Removed), 2));
    }

    #[test]
    fn queue_that_closes_sends_what_waits() {
        let books = Books::default();
        let queue = Queue::new(10, 100);
        queue.push_batch(jobs(&books, 1, 1));
        queue.close();
        assert_eq!((queue.forbids(), queue.pop().is_some()), (None, true));
    }

    #[test]
    fn queue_that_holds_more_than_it_may_waits_until_there_is_room() {
        let books = Books::default();
        let queue = Queue::new(10, 100);
        queue.push_batch(jobs(&books, 2, 40));
        queue.set_bytes_limit(50);
        queue.push_batch(jobs(&books, 1, 10));
        assert_eq!((queue.len(), books.dropped(DropReason::QueueFull)), (2, 1));
        drop(queue.pop());
        queue.push_batch(jobs(&books, 1, 10));
        assert_eq!((queue.len(), queue.held_bytes()), (2, 50));
    }

    #[test]
    fn only_old_jobs_leave_by_age() {
        let books = Books::default();
        let queue = Queue::new(10, 100);
        for nanos in [5, 6, 7] {
            let mut job = books.job(request(b"x", 1));
            job.queued_at = Timestamp::from_nanos(nanos);
            queue.push_batch([job]);
        }
        assert!(queue.pop_older(Timestamp::from_nanos(5)).is_none());
        assert!(queue.pop_older(Timestamp::from_nanos(7)).is_some());
        assert!(queue.pop_older(Timestamp::from_nanos(7)).is_some());
        assert!(queue.pop_older(Timestamp::from_nanos(7)).is_none());
        assert_eq!(queue.len(), 1);
    }
}
