//! Enters: requests from capture threads, which never wait. Leaves: the same requests, in order, for the replay.

use std::{
    collections::VecDeque,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU8, AtomicUsize, Ordering},
    },
};

use tokio::sync::Notify;

use super::{
    at_once::AtOnce,
    doubt::Doubt,
    held::Held,
    lanes::{Lanes, Live, Turn},
};
use crate::{
    io::{
        compare::Part,
        config::{CopyOrder, DropPolicy},
        ledger::{DropReason, Ticket},
    },
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
    /// Where its answer is awaited; `None` where nobody wants it.
    pub part: Option<Part>,
    /// Whether it counts against the target's rate already: it was written behind another, and is back.
    pub has_paid: bool,
}

/// The bounded queue between the capture threads and the replay: capture --jobs--> replay.
///
/// The lock is held for as long as it takes to move one batch into place. Nothing is settled under it, nothing is
/// allocated or freed but what `Lanes` need, and nobody waits for anything else while holding it.
pub struct Queue {
    jobs_limit: usize,
    bytes_limit: AtomicUsize,
    drop_policy: DropPolicy,
    order: CopyOrder,
    /// How it stands; changed under the lock of `waiting`, and read without it.
    standing: AtomicU8,
    waiting: Arc<Mutex<Waiting>>,
    /// Bytes of requests queued or being written: a slow shadow must not let more be held than the limit says.
    held_bytes: Arc<AtomicUsize>,
    arrived: Notify,
    /// How jobs are sent as they are brought.
    pub(super) at_once: AtOnce,
    /// Whether they wait until it is known where the target leads.
    pub(super) doubt: Doubt,
}

#[derive(Debug)]
pub(super) struct Waiting {
    /// Never more than `jobs_limit`, but for those that were put back.
    jobs: Jobs,
    /// Bytes of their requests.
    bytes: usize,
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

#[derive(Debug)]
enum Jobs {
    /// In the order in which they came; never reallocated.
    InLine(VecDeque<Job>),
    /// That of each live connection for itself.
    InLanes(Lanes),
}

impl Waiting {
    pub(super) const fn lanes(&mut self) -> Option<&mut Lanes> {
        match &mut self.jobs {
            Jobs::InLanes(lanes) => Some(lanes),
            Jobs::InLine(_) => None,
        }
    }

    fn len(&self) -> usize {
        match &self.jobs {
            Jobs::InLine(jobs) => jobs.len(),
            Jobs::InLanes(lanes) => lanes.len(),
        }
    }

    fn push(&mut self, job: Job) {
        self.bytes += job.request.raw.len();
        match &mut self.jobs {
            Jobs::InLine(jobs) => jobs.push_back(job),
            Jobs::InLanes(lanes) => lanes.push(job),
        }
    }

    fn pop_oldest(&mut self) -> Option<Job> {
        let job = match &mut self.jobs {
            Jobs::InLine(jobs) => jobs.pop_front(),
            Jobs::InLanes(lanes) => lanes.pop_oldest(),
        };
        self.left(job)
    }

    fn oldest(&self) -> Option<Timestamp> {
        match &self.jobs {
            Jobs::InLine(jobs) => jobs.front().map(|job| job.queued_at),
            Jobs::InLanes(lanes) => lanes.oldest(),
        }
    }

    fn left(&mut self, job: Option<Job>) -> Option<Job> {
        self.bytes -= job.as_ref().map_or(0, |job| job.request.raw.len());
        job
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
            drop_policy: DropPolicy::Newest,
            order: CopyOrder::None,
            standing: AtomicU8::new(Standing::Open as u8),
            waiting: Arc::new(Mutex::new(Waiting {
                jobs: Jobs::InLine(VecDeque::with_capacity(jobs_limit)),
                bytes: 0,
            })),
            held_bytes: Arc::default(),
            arrived: Notify::new(),
            at_once: AtOnce::default(),
            doubt: Doubt::default(),
        }
    }

    /// Says what is dropped where more come than there is room for; the newest unless said.
    #[must_use]
    pub const fn with_drop_policy(mut self, drop_policy: DropPolicy) -> Self {
        self.drop_policy = drop_policy;
        self
    }

    /// Says what order is kept; none unless said. It is said before there are jobs.
    #[must_use]
    pub fn with_order(mut self, order: CopyOrder) -> Self {
        self.order = order;
        if order == CopyOrder::Connection {
            self.lock().jobs = Jobs::InLanes(Lanes::default());
        }
        self
    }

    /// Whether the order of each live connection is kept.
    pub(super) fn is_ordered(&self) -> bool {
        self.order == CopyOrder::Connection
    }

    /// Queues jobs in their order, and sends them where that is possible at once; where there is no room for all, some are
    /// dropped and counted. Never waits for the replay.
    ///
    /// The iterator runs under the lock, so it should do no more than hand out what is ready.
    pub fn push_batch(&self, jobs: impl IntoIterator<Item = Job>) {
        let mut guard = None;
        let mut has_pushed = false;
        for job in jobs {
            let len = job.request.raw.len();
            let refused = loop {
                let waiting = guard.get_or_insert_with(|| self.lock());
                if let Some(reason) = self.standing().refuses() {
                    break Some((job, reason));
                }
                if self.has_room(waiting, len) {
                    self.held_bytes.fetch_add(len, Ordering::Relaxed);
                    waiting.push(job);
                    has_pushed = true;
                    break None;
                }
                let Some(oldest) = self.give_way(waiting, len) else {
                    break Some((job, DropReason::QueueFull));
                };
                guard = None;
                self.hold(oldest).drop_for(DropReason::QueueFull);
            };
            if let Some((job, reason)) = refused {
                guard = None;
                job.ticket.dropped(reason);
            }
        }
        let waiting = guard.as_ref().map_or(0, |waiting| waiting.len());
        drop(guard);
        if has_pushed && !self.at_once.send(waiting, self.held_bytes()) {
            self.arrived.notify_one();
        }
    }

    fn has_room(&self, waiting: &Waiting, len: usize) -> bool {
        waiting.len() < self.jobs_limit
            && self.held_bytes.load(Ordering::Relaxed).saturating_add(len)
                <= self.bytes_limit.load(Ordering::Relaxed)
    }

    /// Takes the oldest job out for one of `len` bytes, where the policy says so and room can be made at all: bytes that
    /// are being written do not give way.
    fn give_way(&self, waiting: &mut Waiting, len: usize) -> Option<Job> {
        let being_written = self.held_bytes.load(Ordering::Relaxed).saturating_sub(waiting.bytes);
        let can_fit = being_written.saturating_add(len) <= self.bytes_limit.load(Ordering::Relaxed);
        if self.drop_policy == DropPolicy::Oldest && can_fit { waiting.pop_oldest() } else { None }
    }

    /// Requests that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().len()
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

    /// Has the target judged anew before another copy is begun: more is captured than was, and it may lead there.
    pub fn doubt(&self) {
        self.doubt.raise();
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
        let waiting = self.lock();
        if self.standing() == Standing::Closing && standing == Standing::Paused {
            // Who stops pauses no more.
            return 0;
        }
        self.standing.fetch_max(standing as u8, Ordering::AcqRel);
        drop(waiting);
        // From here on nothing comes any more, so that this comes to an end.
        let mut count = 0;
        while let Some(held) = self.pop() {
            held.drop_for(standing.refuses().unwrap_or(DropReason::Shutdown));
            count += 1;
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

    /// Lets the one who waits for jobs look, though none has come.
    pub(super) fn knock(&self) {
        self.arrived.notify_one();
    }

    /// Takes the oldest job; where order is kept it may not be its turn.
    pub(super) fn pop(&self) -> Option<Held> {
        let job = self.lock().pop_oldest();
        job.map(|job| self.hold(job))
    }

    /// Takes the oldest job if it was queued before `cutoff`.
    pub(super) fn pop_older(&self, cutoff: Timestamp) -> Option<Held> {
        let mut waiting = self.lock();
        let is_old = waiting.oldest().is_some_and(|queued_at| queued_at < cutoff);
        let job = if is_old { waiting.pop_oldest() } else { None };
        drop(waiting);
        job.map(|job| self.hold(job))
    }

    /// The live connection whose turn it is, and the number by which to take its job. `None` where all that waits has to
    /// wait for what is under way, and where no order is kept.
    pub(super) fn next_ready(&self) -> Option<(u64, Live)> {
        self.lock().lanes()?.next_ready()
    }

    /// Takes the job of this number, if it is still its turn.
    pub(super) fn pop_ready(&self, number: u64) -> Option<Held> {
        let mut waiting = self.lock();
        let job = waiting.lanes()?.pop_ready(number);
        let job = waiting.left(job)?;
        drop(waiting);
        let turn = Turn { waiting: Arc::clone(&self.waiting), key: job.request.flow };
        let mut held = self.hold(job);
        (held.turn, held.number) = (Some(Box::new(turn)), number);
        Some(held)
    }

    /// Takes the job that waits behind one of `live` that has its turn, if it is meant; where no order is kept, the
    /// oldest, if more than `places` wait.
    pub(super) fn pop_behind(
        &self,
        live: &Live,
        places: usize,
        is_meant: impl FnOnce(&Job) -> bool,
    ) -> Option<Held> {
        let mut waiting = self.lock();
        let (number, job) = match &mut waiting.jobs {
            Jobs::InLine(jobs) => {
                let is_due = jobs.len() > places && is_meant(jobs.front()?);
                if is_due { (0, jobs.pop_front()?) } else { return None }
            }
            Jobs::InLanes(lanes) => lanes.pop_behind(live, is_meant)?,
        };
        let job = waiting.left(Some(job))?;
        drop(waiting);
        let mut held = self.hold(job);
        held.number = number;
        Some(held)
    }

    /// Takes back what was taken from behind another, in the order in which it was, before the turn of their lane ends.
    pub(super) fn put_back(&self, jobs: Vec<Held>) {
        if !jobs.is_empty() {
            // Who takes jobs as they come may have seen none.
            self.knock();
        }
        for held in jobs.into_iter().rev() {
            let mut waiting = self.lock();
            if let Some(reason) = self.forbids() {
                drop(waiting);
                held.drop_for(reason);
                continue;
            }
            let (number, len) = (held.number, held.request.raw.len());
            match &mut waiting.jobs {
                Jobs::InLine(jobs) => jobs.push_front(held.into_job()),
                Jobs::InLanes(lanes) => lanes.put_back(number, held.into_job()),
            }
            waiting.bytes += len;
        }
    }

    fn hold(&self, job: Job) -> Held {
        Held::new(job, Arc::clone(&self.held_bytes))
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
    use crate::pipeline::ExchangeId;

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
    fn oldest_gives_way_by_count_and_by_bytes_whatever_order_is_kept() {
        for order in [CopyOrder::None, CopyOrder::Connection] {
            let books = Books::default();
            let queue = Queue::new(3, 100).with_drop_policy(DropPolicy::Oldest).with_order(order);
            let job = |id, len| {
                let mut request = request(&vec![b'x'; len], len);
                request.id = ExchangeId(id);
                books.job(request)
            };
            queue.push_batch((0..5).map(|id| job(id, 10)));
            assert_eq!((queue.len(), queue.held_bytes()), (3, 30));
            assert_eq!(books.dropped(DropReason::QueueFull), 2);
            queue.push_batch([job(5, 75)]);
            assert_eq!((queue.len(), queue.held_bytes()), (3, 95), "2 is out by count");
            queue.push_batch([job(6, 25)]);
            assert_eq!((queue.len(), queue.held_bytes()), (2, 100), "3 and 4 are out by bytes");
            let held = queue.pop().unwrap();
            assert_eq!(held.request.id, ExchangeId(5));
            queue.push_batch([job(7, 26)]);
            assert_eq!((queue.len(), queue.held_bytes()), (1, 100), "bytes being written give no way");
            assert_eq!(books.dropped(DropReason::QueueFull), 6);
            queue.push_batch([job(8, 101)]);
            assert_eq!(
                (queue.len(), books.dropped(DropReason::QueueFull)),
                (1, 7),
                "nothing gives way in vain"
            );
            assert_eq!(queue.pop().unwrap().request.id, ExchangeId(6));
        }
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
