//! Enters: jobs from the queue. Leaves: each on a connection, or dropped with its reason.

use std::{
    mem,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{task::JoinSet, time::timeout};
use tracing::{debug, error};

use super::{
    ReplayConfig,
    addresses::Addresses,
    clock,
    connection::Connection,
    health::{Health, Permission},
    interlock::{Gate, InterlockState},
    queue::{Held, Queue},
    socket::{Connector, Registration},
    stream::Stream,
    tls::Complaints,
};
use crate::{
    io::ledger::{CopyBooks, DropReason, ReplayOutcome},
    pipeline::{Timestamp, reason::SkipReason},
};

/// Figures of the replay at this moment.
#[derive(Debug, Default)]
pub struct Gauges {
    open: AtomicUsize,
    idle: AtomicUsize,
    /// `None` where the target need not prove that it is a shadow.
    pub(super) gate: Option<Gate>,
}

impl Gauges {
    /// Connections that carry a request or are being opened for one.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        let idle = self.idle();
        self.open.load(Ordering::Relaxed).saturating_sub(idle)
    }

    /// Open connections that wait for the next request.
    #[must_use]
    pub fn idle(&self) -> usize {
        self.idle.load(Ordering::Relaxed)
    }

    /// How the interlock stands; `None` where the target has none.
    #[must_use]
    pub fn interlock(&self) -> Option<InterlockState> {
        self.gate.as_ref().map(Gate::state)
    }
}

/// The connections to one target.
pub(super) struct Pool {
    pub(super) config: ReplayConfig,
    pub(super) queue: Arc<Queue>,
    pub(super) gauges: Arc<Gauges>,
    books: Arc<CopyBooks>,
    pub(super) connector: Connector,
    inner: Mutex<Inner>,
    /// Answers are decoded where they are read and then forgotten, so one buffer serves all connections.
    read_buffer: Mutex<Vec<u8>>,
    pub(super) complaints: Arc<Complaints>,
}

struct Inner {
    /// The one used last is used next: the others may then fall idle and be closed.
    idle: Vec<Arc<Connection>>,
    /// Connections, idle or not, and those being opened; never more than the cap.
    open: usize,
    /// Connections that are open.
    established: usize,
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
}

/// How the next job leaves the queue.
enum Way {
    Reuse(Arc<Connection>),
    Open,
    Drop,
}

impl Pool {
    pub(super) fn new(
        config: ReplayConfig,
        queue: Arc<Queue>,
        books: Arc<CopyBooks>,
        connector: Connector,
        complaints: Arc<Complaints>,
    ) -> Self {
        let inner = Inner {
            idle: Vec::new(),
            open: 0,
            established: 0,
            health: Health::Unknown { is_probing: false },
            addresses: Addresses::default(),
            tasks: JoinSet::new(),
            write_buffer: Vec::new(),
            is_stopped: false,
        };
        Self {
            gauges: Arc::new(Gauges { gate: Gate::new(&config, &books), ..Gauges::default() }),
            config,
            queue,
            books,
            connector,
            inner: Mutex::new(inner),
            read_buffer: Mutex::new(vec![0; READ_BUFFER_BYTES]),
            complaints,
        }
    }

    /// Sends up to `limit` jobs, as far as there are connections for them.
    pub(super) fn pump(self: &Arc<Self>, limit: usize) -> Left {
        for _ in 0..limit {
            if self.queue.is_empty() {
                return Left::Nothing;
            }
            let now = clock::now();
            let mut inner = self.lock();
            let Some(way) = self.find_way(&mut inner, now) else { return Left::Waiting };
            let Some(held) = self.pop_fresh(now, inner.waiting_for()) else {
                match way {
                    Way::Reuse(connection) => self.keep(&mut inner, connection),
                    Way::Open => inner.health.abandoned(),
                    Way::Drop => {}
                }
                return Left::Nothing;
            };
            match way {
                Way::Reuse(connection) if !self.permits(&held, connection.addr, now) => {
                    self.keep(&mut inner, connection);
                    drop(inner);
                    held.ticket.skipped(SkipReason::Interlock);
                }
                Way::Reuse(connection) => {
                    let Inner { write_buffer, .. } = &mut *inner;
                    if let Err(held) = connection.send(held, self, now, write_buffer) {
                        self.open(&mut inner, *held);
                    }
                }
                Way::Open if !self.permits_somewhere(&held, now) => {
                    inner.health.abandoned();
                    drop(inner);
                    held.ticket.skipped(SkipReason::Interlock);
                }
                Way::Open => self.open(&mut inner, held),
                Way::Drop => {
                    drop(inner);
                    held.ticket.dropped(DropReason::Connect);
                }
            }
        }
        Left::Jobs
    }

    /// Drops the jobs that have waited for too long.
    pub(super) fn expire(&self) {
        let now = clock::now();
        let max_age = self.config.queue_age;
        let cutoff = Timestamp::ZERO.after(now.since(Timestamp::ZERO).saturating_sub(max_age));
        let reason = self.lock().waiting_for();
        while let Some(held) = self.queue.pop_older(cutoff) {
            held.ticket.dropped(reason);
        }
    }

    /// Whether the copy may be written to a connection to `addr` at this moment.
    pub(super) fn permits(&self, held: &Held, addr: SocketAddr, now: Timestamp) -> bool {
        self.gauges.gate.as_ref().is_none_or(|gate| gate.permits(&held.request, addr, now))
    }

    fn permits_somewhere(&self, held: &Held, now: Timestamp) -> bool {
        self.gauges.gate.as_ref().is_none_or(|gate| gate.permits_somewhere(&held.request, now))
    }

    /// Takes the addresses of the target; connections to others are not used again.
    pub(super) fn set_addresses(&self, addrs: &[SocketAddr]) {
        if let Some(gate) = &self.gauges.gate {
            gate.set_addresses(addrs);
        }
        let mut inner = self.lock();
        let Inner { addresses, idle, health, .. } = &mut *inner;
        if addresses.is_empty() {
            // What failed until now, failed for want of an address.
            *health = Health::Unknown { is_probing: false };
        }
        addresses.replace(addrs);
        idle.retain(|connection| {
            let is_current = addresses.contains(connection.addr);
            if !is_current {
                connection.retire();
            }
            is_current
        });
        self.gauges.idle.store(inner.idle.len(), Ordering::Relaxed);
    }

    /// Takes a connection whose exchange has ended, and gives it the next job if one waits.
    pub(super) fn free(self: &Arc<Self>, connection: &Arc<Connection>) {
        let mut inner = self.lock();
        if inner.addresses.contains(connection.addr) && !inner.is_stopped {
            self.keep(&mut inner, Arc::clone(connection));
            drop(inner);
            self.pump(1);
        } else {
            connection.retire();
        }
    }

    /// Forgets a connection that is over.
    pub(super) fn forget(&self, connection: &Arc<Connection>) {
        let mut inner = self.lock();
        inner.idle.retain(|idle| !Arc::ptr_eq(idle, connection));
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
            held.ticket.dropped(DropReason::Shutdown);
        }
        self.gauges.idle.store(0, Ordering::Relaxed);
    }

    /// The buffer to read into; it is empty for everybody who takes it.
    pub(super) fn read_buffer(&self) -> MutexGuard<'_, Vec<u8>> {
        self.read_buffer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find_way(&self, inner: &mut Inner, now: Timestamp) -> Option<Way> {
        if inner.is_stopped {
            return None;
        }
        if let Some(connection) = inner.idle.pop() {
            self.gauges.idle.store(inner.idle.len(), Ordering::Relaxed);
            return Some(Way::Reuse(connection));
        }
        if inner.open >= self.config.in_flight {
            return None;
        }
        match inner.health.ask(now) {
            Permission::Open => Some(Way::Open),
            Permission::Wait => None,
            // With connections open the target is not dead, perhaps full: one of them will be free again.
            Permission::Refuse if inner.established > 0 => None,
            Permission::Refuse => Some(Way::Drop),
        }
    }

    /// The oldest job that has not waited for too long; those that have are dropped.
    fn pop_fresh(&self, now: Timestamp, reason: DropReason) -> Option<Held> {
        loop {
            let held = self.queue.pop()?;
            if now.since(held.queued_at) <= self.config.queue_age {
                return Some(held);
            }
            held.ticket.dropped(reason);
        }
    }

    fn keep(&self, inner: &mut Inner, connection: Arc<Connection>) {
        inner.idle.push(connection);
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
                    self.lock().health.opened();
                    return Some((addr, stream, registration));
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
        self.books.replay_ended(ReplayOutcome::Connect, None);
        None
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
    pool.pump(PUMP_JOBS);
}

async fn carry(pool: &Arc<Pool>, mut held: Held) {
    for _ in 0..=MAX_RETRIES {
        let Some((addr, stream, registration)) = pool.connect().await else {
            held.ticket.dropped(DropReason::Connect);
            return;
        };
        // Dropped after the stream: the socket is closed before it is struck off the list.
        let _registration = registration;
        if !pool.permits(&held, addr, clock::now()) {
            // The connection is to an address that has not proven; others have.
            drop(stream);
            held.ticket.skipped(SkipReason::Interlock);
            return;
        }
        let _established = Established::new(pool);
        let connection = Arc::new(Connection::new(addr, stream, &pool.books));
        if let Err(unsent) = connection.send(held, pool, clock::now(), &mut pool.lock().write_buffer) {
            held = *unsent;
            continue;
        }
        // Others may have waited for the proof that the target is there.
        pool.pump(PUMP_JOBS);
        let Some(unwritten) = connection.drive(pool).await else { return };
        held = unwritten;
    }
    held.ticket.dropped(DropReason::Write);
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
