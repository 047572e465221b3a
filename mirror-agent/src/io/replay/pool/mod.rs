//! Enters: jobs from the queue. Leaves: each on a connection, or dropped with its reason.

mod ways;

use std::{
    mem,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError, atomic::Ordering},
    time::Duration,
};

use tokio::{runtime::Handle, sync::Notify, task::JoinSet, time::timeout};
use tracing::{debug, error};

use self::ways::Way;
use super::{
    ReplayConfig,
    addresses::Addresses,
    at_once::Sender,
    clock,
    concurrency::Concurrency,
    connection::Connection,
    gauges::Gauges,
    health::Health,
    held::Held,
    idle::Idle,
    interlock::Gate,
    lanes::{Live, Turn},
    pipelining::Pipelining,
    protection::Protection,
    queue::Queue,
    socket::{Connector, Registration},
    stream::Stream,
    tls::Complaints,
};
use crate::{
    io::ledger::{CopyBooks, DropReason, ReplayOutcome},
    pipeline::{Timestamp, reason::SkipReason},
};

/// The connections to one target.
pub(super) struct Pool {
    pub(super) config: ReplayConfig,
    pub(super) queue: Arc<Queue>,
    pub(super) gauges: Arc<Gauges>,
    pub(super) protection: Arc<Protection>,
    pub(super) pipelining: Pipelining,
    pub(super) books: Arc<CopyBooks>,
    pub(super) connector: Connector,
    pub(super) complaints: Arc<Complaints>,
    /// No connection could be opened: what the target stands for may have changed.
    pub(super) unreachable: Notify,
    inner: Mutex<Inner>,
    /// Of the replay, for what is begun on other threads.
    pub(super) runtime: Handle,
    /// Answers are decoded where they are read and then forgotten, so one buffer serves all connections.
    read_buffer: Mutex<Vec<u8>>,
}

struct Inner {
    idle: Idle,
    /// Connections, idle or not, and those being opened; never more than the cap.
    open: usize,
    /// Connections that are open.
    established: usize,
    concurrency: Concurrency,
    health: Health,
    addresses: Addresses,
    tasks: JoinSet<()>,
    write_buffer: Vec<u8>,
    is_stopped: bool,
}

impl Inner {
    /// What jobs have waited for that are too old.
    const fn waiting_for(&self) -> DropReason {
        if self.established == 0 { DropReason::Connect } else { DropReason::InFlight }
    }
}

/// What is left after [`Pool::pump`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Left {
    /// No job.
    Nothing,
    /// Jobs that can be sent.
    Jobs,
    /// Jobs that have to wait for a connection.
    Waiting,
    /// Jobs that have to wait for the moment at which another connection may be opened.
    Paced,
}

impl Pool {
    pub(super) fn new(
        config: ReplayConfig,
        queue: Arc<Queue>,
        books: Arc<CopyBooks>,
        connector: Connector,
        complaints: Arc<Complaints>,
    ) -> Self {
        let concurrency = Concurrency::new(config.in_flight);
        let limit = concurrency.limit().into();
        let inner = Inner {
            idle: Idle::new(queue.is_ordered()),
            open: 0,
            established: 0,
            concurrency,
            health: Health::default(),
            addresses: Addresses::default(),
            tasks: JoinSet::new(),
            write_buffer: Vec::new(),
            is_stopped: false,
        };
        let gauges = Arc::new(Gauges { limit, gate: Gate::new(&config, &books), ..Gauges::default() });
        let protection = Protection::new(&config, Arc::clone(&books), Arc::clone(&gauges));
        let pipelining = Pipelining::new(config.pipeline);
        Self {
            config,
            queue,
            gauges,
            protection: Arc::new(protection),
            pipelining,
            books,
            connector,
            complaints,
            unreachable: Notify::new(),
            inner: Mutex::new(inner),
            runtime: Handle::current(),
            read_buffer: Mutex::new(vec![0; READ_BUFFER_BYTES]),
        }
    }

    /// Sends up to `limit` jobs, as far as there are connections for them.
    pub(super) fn pump(self: &Arc<Self>, limit: usize) -> Left {
        self.pump_as(Sender::Replay, limit)
    }

    /// The same for one or the other sender.
    pub(super) fn pump_as(self: &Arc<Self>, sender: Sender, limit: usize) -> Left {
        for _ in 0..limit {
            if self.queue.is_empty() {
                return Left::Nothing;
            }
            if self.queue.doubt.is_raised() {
                // Whoever settles it knocks.
                return if sender == Sender::Bringer { Left::Jobs } else { Left::Nothing };
            }
            let now = clock::now();
            if self.protection.is_shut(now) {
                if sender == Sender::Bringer {
                    return Left::Jobs;
                }
                self.drop_waiting();
                return Left::Nothing;
            }
            let Some(mut inner) = self.lock_as(sender) else { return Left::Jobs };
            let next = if self.queue.is_ordered() {
                let Some(next) = self.queue.next_ready() else { return Left::Waiting };
                Some(next)
            } else {
                None
            };
            let live = next.as_ref().map(|(_, live)| live);
            let way = match self.find_way(sender, &mut inner, live, now) {
                Ok(way) => way,
                Err(left) => return left,
            };
            let reason = inner.waiting_for();
            let popped = match next {
                Some((number, _)) => {
                    self.queue.pop_ready(number).and_then(|held| self.fresh(held, now, reason))
                }
                None => self.pop_fresh(now, reason),
            };
            match popped {
                Some(held) => self.go(inner, way, held, now),
                None => self.give_back(&mut inner, way),
            }
        }
        Left::Jobs
    }

    /// The same where something has changed for jobs that wait. Those that have to wait for a moment to come are left to the one
    /// who takes jobs as they come.
    fn pump_on(self: &Arc<Self>, limit: usize) {
        if self.pump(limit) == Left::Paced {
            self.queue.knock();
        }
    }

    /// Sends a job on its way, or drops it.
    fn go(self: &Arc<Self>, mut inner: MutexGuard<'_, Inner>, way: Way, mut held: Held, now: Timestamp) {
        if !self.permits_way(&way, &held, now) {
            self.give_back(&mut inner, way);
            drop(inner);
            held.ticket.skipped(SkipReason::Interlock);
            return;
        }
        let allowed = match &way {
            Way::Reuse(_) => self.admit(&mut held, now),
            Way::Open => {
                // Each of those takes a token once it is open.
                let opening = inner.open - inner.established;
                self.protection.let_out(&mut held, opening, now)
            }
            Way::Drop => Err(DropReason::Connect),
        };
        match (way, allowed) {
            (Way::Reuse(connection), Ok(())) => {
                let Inner { write_buffer, .. } = &mut *inner;
                if let Err(held) = connection.send(held, self, now, write_buffer) {
                    self.open(&mut inner, *held);
                }
            }
            (Way::Open | Way::Drop, Ok(())) => self.open(&mut inner, held),
            (way, Err(reason)) => {
                let is_unreachable = matches!(way, Way::Drop);
                self.give_back(&mut inner, way);
                drop(inner);
                if is_unreachable {
                    self.protection.unreachable(now);
                }
                held.drop_for(reason);
            }
        }
    }

    /// Whether the first byte of a copy may be written.
    pub(super) fn admit(&self, held: &mut Held, now: Timestamp) -> Result<(), DropReason> {
        self.queue.forbids().map_or_else(|| self.protection.admit(held, now), Err)
    }

    /// Whether the copy may be written to a connection to `addr` at this moment.
    pub(super) fn permits(&self, held: &Held, addr: SocketAddr, now: Timestamp) -> bool {
        self.gauges.gate.as_ref().is_none_or(|gate| gate.permits(&held.request, addr, now))
    }

    fn permits_way(&self, way: &Way, held: &Held, now: Timestamp) -> bool {
        match (&self.gauges.gate, way) {
            (None, _) | (_, Way::Drop) => true,
            (Some(gate), Way::Reuse(connection)) => gate.permits(&held.request, connection.addr, now),
            (Some(gate), Way::Open) => gate.permits_somewhere(&held.request, now),
        }
    }

    /// Undoes [`Self::find_way`].
    fn give_back(&self, inner: &mut Inner, way: Way) {
        match way {
            Way::Reuse(connection) => self.keep(inner, connection),
            Way::Open => inner.health.abandoned(),
            Way::Drop => {}
        }
    }

    /// Drops what waits, for the circuit breaker, and closes what is idle: the probe shall show that the target can be
    /// reached, not that a connection from before its trouble can. What comes meanwhile is for the next round.
    fn drop_waiting(&self) {
        self.retire_idle(&mut self.lock(), |_| true);
        for held in (0..self.queue.len()).map_while(|_| self.queue.pop()) {
            held.drop_for(DropReason::Breaker);
        }
    }

    /// Drops the jobs that have waited for too long.
    pub(super) fn expire(&self) {
        let now = clock::now();
        let max_age = self.config.queue_age;
        let cutoff = now.before(max_age);
        if self.queue.doubt.is_raised() || cutoff < self.queue.doubt.settled_at() {
            return;
        }
        let reason = self.lock().waiting_for();
        while let Some(held) = self.queue.pop_older(cutoff) {
            held.drop_for(reason);
        }
    }

    /// Takes the addresses of the target; connections to others are not used again.
    pub(super) fn set_addresses(&self, addrs: &[SocketAddr]) {
        if let Some(gate) = &self.gauges.gate {
            gate.set_addresses(addrs);
        }
        let mut inner = self.lock();
        if inner.addresses.is_empty() {
            // What failed until now, failed for want of an address.
            inner.health = Health::default();
        }
        inner.addresses.replace(addrs);
        *self.gauges.addresses.lock().unwrap_or_else(PoisonError::into_inner) = addrs.to_vec();
        // Before anybody else takes one of them.
        self.retire_idle(&mut inner, |addr| !addrs.contains(&addr));
    }

    /// Closes the idle connections to some addresses.
    fn retire_idle(&self, inner: &mut Inner, is_meant: impl Fn(SocketAddr) -> bool) {
        inner.idle.retain(|connection| {
            let is_kept = !is_meant(connection.addr);
            if !is_kept {
                connection.retire();
            }
            is_kept
        });
        self.gauges.idle.store(inner.idle.len(), Ordering::Relaxed);
    }

    /// Takes a connection whose exchange has ended, and gives it the next job if one waits.
    pub(super) fn free(self: &Arc<Self>, connection: &Arc<Connection>, turn: Option<Box<Turn>>) {
        let mut inner = self.lock();
        if inner.addresses.contains(connection.addr) && !inner.is_stopped {
            self.keep(&mut inner, Arc::clone(connection));
            drop(inner);
            // The lane's next copy finds the connection idle.
            let jobs = if turn.is_some() { PUMP_JOBS } else { 1 };
            drop(turn);
            self.pump_on(jobs);
        } else {
            connection.retire();
        }
    }

    /// Forgets a connection that is over.
    pub(super) fn forget(&self, connection: &Arc<Connection>) {
        let mut inner = self.lock();
        inner.idle.forget(connection);
        self.gauges.idle.store(inner.idle.len(), Ordering::Relaxed);
    }

    /// Whether no job waits or is under way.
    pub(super) fn is_drained(&self) -> bool {
        let inner = self.lock();
        self.queue.is_empty() && inner.open == inner.idle.len()
    }

    /// Closes all connections and drops all jobs.
    pub(super) async fn stop(&self) {
        let mut tasks = {
            let mut inner = self.lock();
            inner.is_stopped = true;
            inner.idle.clear();
            mem::take(&mut inner.tasks)
        };
        tasks.shutdown().await;
        while let Some(held) = self.queue.pop() {
            held.drop_for(DropReason::Shutdown);
        }
        self.gauges.idle.store(0, Ordering::Relaxed);
    }

    /// The buffer to read into; it is empty for everybody who takes it.
    pub(super) fn read_buffer(&self) -> MutexGuard<'_, Vec<u8>> {
        self.read_buffer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The oldest job that has not waited for too long; those that have are dropped.
    fn pop_fresh(&self, now: Timestamp, reason: DropReason) -> Option<Held> {
        loop {
            if let Some(held) = self.fresh(self.queue.pop()?, now, reason) {
                return Some(held);
            }
        }
    }

    /// The job, unless it has waited for too long: then it is dropped.
    fn fresh(&self, held: Held, now: Timestamp, reason: DropReason) -> Option<Held> {
        let waits_since = held.queued_at.max(self.queue.doubt.settled_at());
        if now.since(waits_since) <= self.config.queue_age {
            return Some(held);
        }
        held.drop_for(reason);
        None
    }

    fn keep(&self, inner: &mut Inner, connection: Arc<Connection>) {
        if let Some(displaced) = inner.idle.put(connection) {
            displaced.retire();
        }
        self.gauges.idle.store(inner.idle.len(), Ordering::Relaxed);
    }

    fn open(self: &Arc<Self>, inner: &mut Inner, held: Held) {
        inner.open += 1;
        self.gauges.open.store(inner.open, Ordering::Relaxed);
        while let Some(ended) = inner.tasks.try_join_next() {
            if let Err(error) = ended {
                error!(%error, "A replay connection failed.");
            }
        }
        inner.tasks.spawn(serve(Slot(Arc::clone(self)), held));
    }

    /// Opens a connection, trying a few of the target's addresses.
    async fn connect(&self) -> Option<(SocketAddr, Stream, Registration)> {
        for _ in 0..MAX_ADDRESSES_TRIED {
            let Some(addr) = self.lock().addresses.pick(clock::now()) else { break };
            match timeout(self.config.connect_timeout, self.connector.open(addr)).await {
                Ok(Ok((stream, registration))) => {
                    self.queue.doubt.settled().await;
                    let mut inner = self.lock();
                    inner.health.opened();
                    if inner.addresses.contains(addr) {
                        return Some((addr, stream, registration));
                    }
                    drop(inner);
                    // Struck off the list meanwhile: it may lead to live by now. The socket is closed first.
                    drop(stream);
                    continue;
                }
                Ok(Err(error)) => {
                    debug!(%addr, %error, "No connection to the shadow could be opened.");
                    self.complaints.hear(&error);
                }
                Err(_) => debug!(%addr, "Opening a connection to the shadow took too long."),
            }
            let mut inner = self.lock();
            let now = clock::now();
            inner.addresses.failed(addr, now);
            if !inner.addresses.has_rested(now) {
                break;
            }
        }
        self.lock().health.failed(clock::now());
        self.unreachable.notify_one();
        self.books.replay_ended(ReplayOutcome::Connect, None);
        None
    }

    /// `None` where another thread has the lock and the sender must not wait for it.
    fn lock_as(&self, sender: Sender) -> Option<MutexGuard<'_, Inner>> {
        if sender == Sender::Replay {
            return Some(self.lock());
        }
        match self.inner.try_lock() {
            Ok(inner) => Some(inner),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // The numbers are changed by guards that run on a panic too.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The life of one connection: opened for a job, which is written at most once, then used for others.
async fn serve(slot: Slot, held: Held) {
    let pool = Arc::clone(&slot.0);
    carry(&pool, held).await;
    drop(slot);
    // There is room for another connection, and perhaps the news that the target is dead.
    pool.pump_on(PUMP_JOBS);
}

async fn carry(pool: &Arc<Pool>, mut held: Held) {
    // Counted with each job: one connection may end on several in its life.
    while held.openings <= MAX_RETRIES {
        held.openings += 1;
        if let Some(reason) = pool.queue.forbids() {
            // The permission to open one was perhaps the only one there is.
            pool.lock().health.abandoned();
            held.drop_for(reason);
            return;
        }
        let Some((addr, stream, registration)) = pool.connect().await else {
            held.fail(ReplayOutcome::Connect, DropReason::Connect);
            return;
        };
        // Dropped after the stream: the socket is closed before it is struck off the list.
        let _registration = registration;
        let _established = Established::new(pool);
        let now = clock::now();
        if !pool.permits(&held, addr, now) {
            // The connection is to an address that has not proven; others have.
            drop(stream);
            held.ticket.skipped(SkipReason::Interlock);
            return;
        }
        let live = held.turn.is_some().then(|| Live::of(&held.request));
        let retire_at = pool.config.max_connection_age.map(|age| now.after(with_jitter(age, now)));
        let connection = Arc::new(Connection::new(addr, stream, &pool.books, live, retire_at));
        match pool.admit(&mut held, now) {
            Ok(()) => {
                let sent = connection.send(held, pool, now, &mut pool.lock().write_buffer);
                if let Err(unsent) = sent {
                    held = *unsent;
                    continue;
                }
                // Others may have waited for the proof that the target is there.
                pool.pump_on(PUMP_JOBS);
            }
            Err(reason) => {
                let turn = held.turn.take();
                held.drop_for(reason);
                if reason == DropReason::Breaker {
                    return;
                }
                connection.rest(now.after(pool.config.idle_timeout));
                pool.free(&connection, turn);
            }
        }
        let Some(unwritten) = connection.drive(pool).await else { return };
        held = unwritten;
    }
    held.fail(ReplayOutcome::Write, DropReason::Write);
}

/// An age, a tenth more or less: connections opened together are not all replaced at the same moment.
fn with_jitter(age: Duration, now: Timestamp) -> Duration {
    // The low bits of the clock differ between connections as well as a random number would.
    let jitter = u32::try_from(now.as_nanos() % 1024).unwrap_or(0);
    age * 9 / 10 + age / 5 * jitter / 1024
}

/// A place among the connections. It is taken before the task runs, which may be stopped before it starts.
struct Slot(Arc<Pool>);

impl Drop for Slot {
    fn drop(&mut self) {
        let mut inner = self.0.lock();
        inner.open -= 1;
        self.0.gauges.open.store(inner.open, Ordering::Relaxed);
    }
}

/// A connection that is open.
struct Established<'a>(&'a Arc<Pool>);

impl<'a> Established<'a> {
    fn new(pool: &'a Arc<Pool>) -> Self {
        pool.lock().established += 1;
        Self(pool)
    }
}

impl Drop for Established<'_> {
    fn drop(&mut self) {
        self.0.lock().established -= 1;
    }
}

/// Jobs sent before the runtime gets a chance to look at sockets.
pub(super) const PUMP_JOBS: usize = 512;

/// Fresh connections that one job may be tried on after the first, while no byte of it was accepted.
const MAX_RETRIES: usize = 2;

/// Addresses that one opening tries: enough to step around a dead one, too few to keep a job waiting.
const MAX_ADDRESSES_TRIED: usize = 3;

/// Most answers fit; a longer one takes more reads, each of which is large enough to be cheap per byte.
const READ_BUFFER_BYTES: usize = 64 * 1024;
