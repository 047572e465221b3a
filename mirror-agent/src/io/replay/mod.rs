//! Enters: captured requests. Leaves: their copies at the shadow, each written at most once, and what became of them.
//!
//! Capture threads put [`Job`]s into a bounded [`Queue`] and go on. [`Replay::run`] takes them out: whoever has a
//! job and an idle connection writes the copy at once, and the connection's own task reads the answer. All of it
//! runs well on one thread; nothing here blocks.
//!
//! A copy is tried again only while no socket has accepted a byte of it. A shadow that is dead, slow or hostile costs
//! connections and time up to the limits of [`ReplayConfig`], and requests dropped with their reason.

mod addresses;
mod at_once;
mod breaker;
mod certificates;
pub mod clock;
mod concurrency;
mod connection;
mod copy;
mod doubt;
mod event;
mod exchange;
mod gauges;
mod health;
mod held;
mod idle;
mod interlock;
mod kept;
mod lanes;
mod limiter;
mod openings;
mod pipelining;
mod pool;
mod probe;
mod protection;
mod queue;
mod refusal;
mod response;
mod sampled;
mod socket;
mod stream;
mod sys;
#[cfg(test)]
pub(in crate::io) mod tests;
mod tls;

use std::{
    future::pending,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio::{
    select,
    task::yield_now,
    time::{Instant, sleep, timeout},
};
use tracing::{debug, info, warn};

pub(in crate::io) use self::copy::exchange_text;
pub use self::{
    breaker::BreakerState,
    event::{Event, Observer},
    gauges::Gauges,
    interlock::InterlockGauge,
    probe::{Arrived, Hook, Probes},
    queue::{Job, QUEUE_BYTES, QUEUE_JOBS, Queue},
    refusal::{Captured, Refusal},
    socket::OwnSocketRegistry,
    tls::{TlsError, check_certificates},
};
use self::{
    certificates::keep_certificates,
    doubt::Doubt,
    held::Held,
    pool::{Left, PUMP_JOBS, Pool},
    probe::{Ask, Judge},
    socket::Connector,
    tls::{Complaints, Tls},
};
pub use crate::io::target::{Target, TargetError};
use crate::{
    io::{
        audit::TargetAudit,
        compare::Sessions,
        config::{BreakerConfig, Interlock, TlsConfig},
        ledger::CopyBooks,
    },
    pipeline::{
        rewrite::{Chosen, Rewrite, RewriteError},
        session::SourceError,
    },
};

/// Why a replay could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// The target has no addresses.
    #[error("cannot find the shadow")]
    Target(#[from] TargetError),
    /// The target is a captured live endpoint.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The target cannot be spoken to by TLS as is configured.
    #[error("cannot speak TLS with the shadow")]
    Tls(#[source] Box<TlsError>),
    /// Its copies cannot be made as the configuration says.
    #[error(transparent)]
    Rewrite(#[from] RewriteError),
    /// Its sessions cannot be found as the configuration says.
    #[error("cannot find sessions")]
    Sessions(#[from] SourceError),
}

impl From<TlsError> for ReplayError {
    fn from(error: TlsError) -> Self {
        // Much larger than the others, and rare.
        Self::Tls(Box::new(error))
    }
}

/// How requests are replayed.
#[derive(Clone, Debug)]
pub struct ReplayConfig {
    /// Where copies go.
    pub target: Target,
    /// Tells this run of the agent from all others: the first part of `x-mirror-id`.
    pub instance: u64,
    /// `SO_MARK` of the connections, by which the kernel program knows them; 0 for none.
    pub own_mark: u32,
    /// Most requests under way, and so most connections.
    pub in_flight: usize,
    /// Most copies on one connection that are written before the first of them is answered, where they wait; 1 for one
    /// after the other.
    pub pipeline: usize,
    /// How long a connection may take to be opened.
    pub connect_timeout: Duration,
    /// How long the shadow may take to accept a copy.
    pub write_timeout: Duration,
    /// How long the shadow may take to answer, from the last byte written to the last byte read.
    pub response_timeout: Duration,
    /// How long a connection is kept for the next request.
    pub idle_timeout: Duration,
    /// How long a request may wait for a connection.
    pub queue_age: Duration,
    /// Longest answer in bytes, inclusive, that is read to its end.
    pub response_bytes: u64,
    /// How often the target's name is resolved again, and its addresses checked.
    pub resolve_interval: Duration,
    /// How long requests queued and under way have to finish when the replay stops.
    pub drain_timeout: Duration,
    /// How the head of each copy is made.
    pub rewrite: Arc<Rewrite>,
    /// Whether the experiment takes a share of the requests only, as copies say. Shared with whoever may change it.
    pub is_sampled: Arc<AtomicBool>,
    /// Most copies a second; `None` for any number.
    pub requests_per_second: Option<f64>,
    /// By how many agents that is shared, itself included; may change.
    pub shared_by: Arc<AtomicU32>,
    /// Most bytes of copies a second; `None` for any number.
    pub bandwidth: Option<u64>,
    /// When the target is left alone because it fails; `None` for never.
    pub circuit_breaker: Option<BreakerConfig>,
    /// How long a connection is used, a tenth more or less; `None` for as long as it lasts.
    pub max_connection_age: Option<Duration>,
    /// Who is told what changes about the target.
    pub observer: Option<Arc<dyn Observer>>,
    /// Who writes down what happens to the target, and the copies that are writes.
    pub audit: TargetAudit,
    /// How the target is known, where it speaks TLS.
    pub tls: TlsConfig,
    /// How often it is looked whether the files that are named there are others.
    pub certificates_interval: Duration,
    /// How the target proves that it is a shadow.
    pub interlock: Interlock,
    /// Sees where probes arrive; `None` where nothing is captured, and no address is probed.
    pub probes: Option<Arc<Probes>>,
    /// What the target knows by other values than live; `None` where it knows nothing so.
    pub sessions: Option<Arc<Sessions>>,
    /// Whether the target is not looked for before the replay runs: its name could not be resolved, and may be later.
    pub is_sought: bool,
}

impl ReplayConfig {
    /// The defaults.
    #[must_use]
    pub fn new(target: Target, instance: u64) -> Self {
        Self {
            target,
            instance,
            own_mark: 0,
            in_flight: 256,
            pipeline: 1,
            connect_timeout: Duration::from_secs(1),
            write_timeout: Duration::from_secs(10),
            response_timeout: Duration::from_secs(10),
            // Below the 5 s after which common servers close an idle connection: a copy written to a connection that
            // the shadow is closing is lost.
            idle_timeout: Duration::from_secs(4),
            queue_age: Duration::from_secs(1),
            response_bytes: 64 * 1024 * 1024,
            resolve_interval: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(2),
            rewrite: Arc::default(),
            is_sampled: Arc::default(),
            requests_per_second: None,
            shared_by: Arc::new(AtomicU32::new(1)),
            bandwidth: None,
            circuit_breaker: None,
            max_connection_age: None,
            observer: None,
            audit: TargetAudit::none(),
            tls: TlsConfig::default(),
            certificates_interval: Duration::from_secs(10),
            interlock: Interlock::None,
            probes: None,
            sessions: None,
            is_sought: false,
        }
    }

    fn chosen(&self) -> Chosen {
        if self.is_sampled.load(Ordering::Relaxed) { Chosen::Sampled } else { Chosen::Targeted }
    }

    /// Writes down a copy of which the shadow has accepted a byte, if it is a write.
    fn note(&self, held: &Held) {
        self.audit.accepted(&held.request, || exchange_text(self.instance, held.pipeline, held.request.id));
    }

    fn shortest_timeout(&self) -> Duration {
        self.idle_timeout.min(self.response_timeout).min(self.write_timeout)
    }
}

/// Whether an address must not receive copies, and why; asked at every resolution.
pub type RefuseAddress = Arc<dyn Fn(SocketAddr) -> Option<Refusal> + Send + Sync>;

/// A replay that is ready to run.
pub struct Replay {
    pool: Arc<Pool>,
    judge: Judge,
    /// What the target stands for.
    addrs: Vec<SocketAddr>,
    /// Whether there are addresses of which it is not known where they lead.
    is_undecided: bool,
}

impl Replay {
    /// Resolves the target and checks all its addresses. Needs a tokio runtime with its drivers for I/O and time.
    ///
    /// # Errors
    ///
    /// [`ReplayError::Target`] if the target has no addresses, [`ReplayError::Refused`] if it is one that must not
    /// receive copies, [`ReplayError::Tls`] if it speaks TLS and a certificate or a key cannot be used.
    pub async fn prepare(
        config: ReplayConfig,
        queue: Arc<Queue>,
        books: Arc<CopyBooks>,
        registry: Arc<dyn OwnSocketRegistry>,
        refuse: RefuseAddress,
    ) -> Result<Self, ReplayError> {
        let addrs = if config.is_sought { Vec::new() } else { config.target.resolve().await? };
        let is_probed = config.probes.is_some();
        if is_probed && let Some(refusal) = addrs.iter().find_map(|addr| refuse(*addr)) {
            return Err(refusal.into());
        }
        let tls = Tls::new(&config.target, &config.tls)?;
        if config.tls.insecure_skip_verify {
            let (experiment, target) = (books.experiment(), books.target());
            warn!(
                experiment,
                target, "The shadow's certificate is not checked: anybody may receive the copies."
            );
        }
        let complaints = Arc::new(Complaints::new(&books));
        let judge = Judge::new(&config, tls.clone(), refuse, &books, Arc::clone(&complaints));
        let connector = Connector::new(registry, config.own_mark, tls);
        let pool = Arc::new(Pool::new(config, queue, books, connector, complaints));
        let mut replay = Self { pool, judge, addrs, is_undecided: true };
        if !is_probed && let Some(refusal) = replay.review(Ask::Open).await {
            return Err(refusal.into());
        }
        Ok(replay)
    }

    /// Figures to be read while the replay runs.
    #[must_use]
    pub fn gauges(&self) -> Arc<Gauges> {
        Arc::clone(&self.pool.gauges)
    }

    /// Replays until `shutdown` completes. Then lets nothing more into the queue, gives what is queued and under way
    /// until the deadline to finish, and drops the rest: every ticket is settled when this returns.
    ///
    /// Nothing is sent before the target's addresses were judged, for which capture has to be attached; copies wait in
    /// the queue.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) {
        let pool = Arc::clone(&self.pool);
        select! {
            () = shutdown => {}
            () = self.work() => {}
        }
        pool.queue.close();
        if pool.queue.doubt.is_raised() {
            // Nobody will find out any more where its addresses lead.
            pool.set_addresses(&[]);
            pool.queue.doubt.settle(u64::MAX);
        }
        // On the deadline nothing remains to be said: what is dropped is counted.
        let is_drained = timeout(pool.config.drain_timeout, drain(&pool)).await.is_ok();
        debug!(is_drained, "Replay stops.");
        pool.stop().await;
    }

    async fn work(&mut self) {
        let pool = Arc::clone(&self.pool);
        if self.is_undecided {
            self.judge.watched().await;
            self.review(Ask::Open).await;
        }
        select! {
            () = dispatch(&pool) => {}
            () = self.keep_addresses() => {}
            () = keep_proving(&pool) => {}
            () = keep_certificates(pool.connector.tls(), pool.config.certificates_interval, &pool.books) => {}
        }
    }

    /// Resolves the target again and again, sooner where it cannot be reached or was never found: a name may stand for
    /// something else by then, and an address, of a service for instance, may lead elsewhere. A failed resolution changes
    /// nothing.
    async fn keep_addresses(&mut self) {
        let pool = Arc::clone(&self.pool);
        let is_name = pool.config.target.is_name();
        let interval = |addrs: &[SocketAddr]| {
            if addrs.is_empty() { RESOLVE_PAUSE } else { pool.config.resolve_interval }
        };
        let mut due = Instant::now() + interval(&self.addrs);
        let mut soonest = Instant::now() + RESOLVE_PAUSE;
        let mut asked = Instant::now();
        loop {
            let wait = due.saturating_duration_since(Instant::now());
            select! {
                () = sleep(if self.is_undecided { wait.min(PROBE_INTERVAL) } else { wait }) => {}
                () = pool.unreachable.notified(), if is_name && soonest < due => {
                    due = soonest.max(Instant::now());
                    continue;
                }
                number = pool.queue.doubt.raised() => {
                    self.judge_anew(&pool.queue.doubt, number).await;
                    pool.queue.knock();
                    continue;
                }
            }
            if Instant::now() < due {
                self.review(Ask::Open).await;
                continue;
            }
            match self.pool.config.target.resolve().await {
                Ok(addrs) => {
                    if self.addrs.is_empty() {
                        let (experiment, target) = (pool.books.experiment(), pool.books.target());
                        info!(experiment, target, "The shadow was found.");
                    }
                    self.addrs = addrs;
                }
                Err(error) if self.addrs.is_empty() => debug!(%error, "The shadow is still not found."),
                Err(error) => {
                    warn!(%error, "Cannot resolve the shadow again; its known addresses stay in use.");
                }
            }
            if !self.addrs.is_empty() {
                self.judge.strike_off(&self.addrs);
                pool.set_addresses(self.judge.accepted());
                let is_asked = asked.elapsed() < pool.config.resolve_interval;
                select! {
                    biased;
                    // They are judged anew.
                    _number = pool.queue.doubt.raised() => continue,
                    _refusal = self.review(if is_asked { Ask::Open } else { Ask::Accepted }) => {}
                }
                if !is_asked {
                    asked = Instant::now();
                }
            }
            due = Instant::now() + interval(&self.addrs);
            soonest = Instant::now() + RESOLVE_PAUSE;
        }
    }

    /// Judges them as if none of them was known, again from the beginning where more is captured meanwhile.
    async fn judge_anew(&mut self, doubt: &Doubt, mut number: u64) {
        loop {
            self.judge.forget_accepted();
            let judged = async {
                self.judge.watched().await;
                self.review(Ask::Open).await;
            };
            select! {
                () = judged => return doubt.settle(number),
                newer = doubt.raised_after(number) => number = newer,
            }
        }
    }

    /// Judges the addresses that are known, `whom` of them anew, and uses those that may be. Returns why one of them may
    /// not.
    async fn review(&mut self, whom: Ask) -> Option<Refusal> {
        let judgement = self.judge.judge(&self.addrs, whom).await;
        let refused = judgement.refusals.len();
        let known = self.pool.gauges.refused.swap(refused, Ordering::Relaxed);
        for refusal in &judgement.refusals {
            debug!(%refusal, "An address of the shadow is refused.");
        }
        let left = self.judge.accepted();
        if refused != known && refused > 0 {
            warn!(
                refused,
                left = left.len(),
                "Addresses of the shadow are captured live endpoints; not used."
            );
        }
        self.pool.set_addresses(left);
        self.is_undecided = judgement.is_open;
        let refusal = judgement.refusals.first().copied();
        // What comes later changes nothing about the first.
        let _known = self.pool.gauges.verdict.set(refusal);
        refusal
    }
}

/// Takes jobs out of the queue as they come, but for those that whoever brings them could send.
async fn dispatch(pool: &Arc<Pool>) {
    pool.queue.at_once.lead_to(pool);
    let arrived = || async {
        pool.queue.arrived().await;
        // What woke this task may have come together with the end of an idle connection. Its task runs first, so
        // that no copy is written to a connection that is known to be closed.
        yield_now().await;
    };
    loop {
        match pool.pump(PUMP_JOBS) {
            Left::Nothing => arrived().await,
            Left::Jobs => yield_now().await,
            // Which of the two it was does not matter.
            Left::Paced => drop(timeout(OPENINGS_STEP, arrived()).await),
            Left::Waiting => {
                let mut next = pin!(arrived());
                let step = LONGEST_WAIT.min(pool.config.queue_age / EXPIRY_STEPS);
                while timeout(step, next.as_mut()).await.is_err() {
                    pool.expire();
                    if pool.pump(PUMP_JOBS) != Left::Waiting {
                        break;
                    }
                }
                pool.expire();
            }
        }
    }
}

/// Has the target prove again and again that it is a shadow, where it has to.
async fn keep_proving(pool: &Pool) {
    match &pool.gauges.gate {
        Some(gate) => gate.keep_asking(&pool.connector).await,
        None => pending().await,
    }
}

/// Returns when no job is queued or under way.
async fn drain(pool: &Arc<Pool>) {
    while !pool.is_drained() {
        if pool.pump(PUMP_JOBS) != Left::Jobs {
            pool.expire();
            sleep(DRAIN_STEP).await;
        }
    }
}

/// A request that waits for too long is dropped this fraction of its time too late at most.
const EXPIRY_STEPS: u32 = 8;

/// How often it is looked at the least, while copies wait, whether what is under way hangs.
const LONGEST_WAIT: Duration = Duration::from_millis(10);

/// How often it is looked whether another connection may be opened.
const OPENINGS_STEP: Duration = Duration::from_millis(1);

/// How often a stopping replay looks whether it has finished.
const DRAIN_STEP: Duration = Duration::from_millis(5);

/// How long after a resolution the target is resolved again at the earliest, where it cannot be reached.
const RESOLVE_PAUSE: Duration = Duration::from_secs(2);

/// How often an address that cannot be reached is probed again. It gets no copies until it was.
const PROBE_INTERVAL: Duration = Duration::from_millis(250);
