//! Enters: the configuration. Leaves: a running mirror, and at its end the balanced books.
//!
//! Threads: one a ring for capture, and the caller's, which runs the replay, the admin listener and the signals on
//! one tokio runtime. Capture never waits for the replay; the queue between them refuses what does not fit.

use std::{
    hash::{BuildHasher, RandomState},
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{error, info, warn};

use crate::{
    io::{
        admin::{self, Admin, Health},
        capture::{
            AttachMode, Capture, CounterValues, Kernel, KernelCounters, KernelRules, OwnSockets,
            OwnSocketsError,
            follow::{AttachedCounts, Follower},
            kernel::{Capabilities, Capability},
            links,
            role::Role,
        },
        config::{Attach, CaptureConfig, Config},
        experiments::{Common, Directory, Dispatcher, Experiments, Lane},
        interfaces::{Interfaces, Tally},
        ledger::{Ledger, Snapshot},
        metrics::{self, Gauges, PipelineGauges, TargetGauges},
        object::EBPF_OBJECT,
        replay::{Captured, OwnSocketRegistry, Probes, RefuseAddress, Unobserved},
        worker::{Heartbeat, Orders, Warned, Worker},
    },
    pipeline::{Limits, Pipeline, exchange::Purpose},
};

/// SO_MARK of the replay sockets: the letters `mirr`, unlikely to be anybody else's.
const OWN_MARK: u32 = 0x6d69_7272;

/// How often the kernel wakes a sleeping capture thread at most, per processor. A wake-up costs ten times the copy of
/// a small packet; a longer pause only adds to the lag.
const WAKE_INTERVAL: Duration = Duration::from_millis(1);

/// How often the kernel program's log is handed on, where it was built with one.
const KERNEL_LOG_INTERVAL: Duration = Duration::from_secs(1);

/// Runs the mirror until SIGTERM or SIGINT and returns the books.
///
/// # Errors
///
/// Values that do not fit together, an interface or a target that cannot be used, missing privileges, a kernel that
/// refuses the programs: all of them before anything is captured.
pub fn run(config: &Config) -> Result<Snapshot> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(mirror(config))
}

async fn mirror(config: &Config) -> Result<Snapshot> {
    let capture = &config.capture;
    let limits = limits(config)?;
    let rules = rules(config)?;
    require_capabilities()?;
    let specs = capture.interfaces.iter().map(|spec| spec.parse()).collect::<Result<Vec<_>, _>>()?;
    let mut follower = Follower::open(specs, attach_mode(capture.attach))?;
    let listener = admin::bind(capture.metrics_listen)
        .await
        .with_context(|| format!("listen on {} for metrics", capture.metrics_listen))?;
    // Caught from here on: a signal during the start must not skip the detaching.
    let mut signals = Signals::new().context("catch signals")?;

    let ledger = Arc::new(Ledger::default());
    let Capture { mut kernel, own_sockets, counters, rings } = Capture::load(EBPF_OBJECT, &rules)?;
    let orders = Arc::new(Orders::default());
    let watching = Arc::clone(&orders);
    let probes = Arc::new(Probes::new(move || !watching.is_paused()));
    let mut experiments = Experiments::new(Common {
        ledger: Arc::clone(&ledger),
        registry: Arc::new(Registry(Mutex::new(own_sockets))),
        refuse: refuse_captured(config)?,
        own_mark: OWN_MARK,
        instance: random(),
        queue_bytes: to_usize(config.queue_bytes_of_target()),
        drain_timeout: config.drain_timeout,
        observer: Arc::new(Unobserved),
        probes: Arc::clone(&probes),
    });
    experiments.start(&config.experiments).await?;
    let directory = experiments.directory();

    let pipelines: Vec<_> = rings.iter().map(|_| Arc::new(PipelineGauges::default())).collect();
    let heartbeats: Vec<_> = rings.iter().map(|_| Arc::new(Heartbeat::default())).collect();
    let ring_bytes = capture.ring_size.saturating_mul(u64::try_from(rings.len())?);
    let ready = Arc::new(AtomicBool::new(false));
    let interfaces_seen = Arc::new(Interfaces::default());
    let admin = Arc::new(Admin {
        registry: metrics::registry(
            Arc::clone(&ledger),
            pipelines.clone(),
            Box::new(AgentGauges {
                counters,
                ring_bytes,
                directory: Arc::clone(&directory),
                attached: follower.counts(),
            }),
            Arc::clone(&orders),
            Arc::clone(&interfaces_seen),
        ),
        ready: Arc::clone(&ready),
        healthy: Arc::new(Heartbeats(heartbeats.clone())),
    });
    let admin = tokio::spawn(admin::serve(listener, admin));

    let warned = Arc::new(Warned::default());
    let mut workers = Vec::new();
    for (number, ((reader, gauges), heartbeat)) in
        rings.into_iter().zip(pipelines).zip(heartbeats).enumerate()
    {
        let number = u16::try_from(number)?;
        let dispatcher = Dispatcher::new(number, Arc::clone(&ledger), Arc::clone(&directory));
        let worker = Worker {
            number,
            reader,
            pipeline: Pipeline::new(Purpose::Replay(dispatcher.policy()), limits.clone(), random()),
            dispatcher,
            ledger: Arc::clone(&ledger),
            gauges,
            heartbeat,
            orders: Arc::clone(&orders),
            warned: Arc::clone(&warned),
            probes: Arc::clone(&probes),
            tally: Tally::default(),
            interfaces: Arc::clone(&interfaces_seen),
        };
        let thread = thread::Builder::new().name(format!("capture-{number}"));
        workers.push(thread.spawn(move || worker.run()).context("start a capture thread")?);
    }
    if let Err(error) = follower.attach_all(&mut kernel) {
        orders.stop.store(true, Ordering::Release);
        return Err(error.into());
    }
    let kernel = Arc::new(Mutex::new(kernel));
    // No copy is sent before it is known where the targets lead, which only shows with capture attached.
    if let Err(error) = experiments.launch().await {
        detach(Arc::clone(&kernel)).await;
        orders.stop.store(true, Ordering::Release);
        join(workers).await;
        return Err(error);
    }
    ready.store(true, Ordering::Release);
    let (count, targets) = (config.experiments.len(), config.targets());
    info!(experiments = count, targets, metrics = %capture.metrics_listen, "Mirroring.");

    let has_log = lock(&kernel).has_log();
    let mut log_due = tokio::time::interval(KERNEL_LOG_INTERVAL);
    loop {
        tokio::select! {
            order = signals.pause_or_stop() => match order {
                Some(order) => pause(&mut lock(&kernel), &orders, order),
                None => break,
            },
            _ = log_due.tick(), if has_log => lock(&kernel).flush_log(),
            () = follower.follow(&kernel) => {}
        }
    }
    info!("Stopping: capture is detached, copies under way are finished.");
    ready.store(false, Ordering::Release);
    follower.stop().await;
    detach(Arc::clone(&kernel)).await;
    lock(&kernel).flush_log();
    orders.stop.store(true, Ordering::Release);
    join(workers).await;
    experiments.stop().await;
    admin.abort();
    Ok(ledger.snapshot())
}

/// Says which privilege is missing. The kernel would not: it answers "permission denied", after pages of the verifier's
/// log where CAP_PERFMON is what it wants.
fn require_capabilities() -> Result<()> {
    // Where /proc does not say, the kernel has the last word.
    let missing = Capabilities::effective().map(Capabilities::missing).unwrap_or_default();
    ensure!(
        missing.is_empty(),
        "missing capabilities: {}; run as root, or with {}",
        Capability::list(&missing),
        Capability::list(&Capability::NEEDED)
    );
    Ok(())
}

/// Waits for the capture threads without stopping the replay: they empty their rings into its queue.
async fn join(workers: Vec<thread::JoinHandle<()>>) {
    let joined = tokio::task::spawn_blocking(move || {
        for worker in workers {
            if worker.join().is_err() {
                warn!("A capture thread ended in a panic; what it held is missing from the books.");
            }
        }
    });
    if joined.await.is_err() {
        warn!("The capture threads could not be waited for.");
    }
}

const fn attach_mode(attach: Attach) -> AttachMode {
    match attach {
        Attach::Auto => AttachMode::Auto,
        Attach::Tcx => AttachMode::Tcx,
        Attach::Clsact => AttachMode::Clsact,
    }
}

/// Detaches everything without stopping the replay: the kernel takes tens of milliseconds for each interface.
async fn detach(kernel: Arc<Mutex<Kernel>>) {
    let detached = tokio::task::spawn_blocking(move || lock(&kernel).detach());
    for error in detached.await.unwrap_or_default() {
        warn!(error = &error as &dyn std::error::Error, "Detaching a mirror program failed.");
    }
}

/// What a thread that panicked left in the value is still what is attached.
fn lock(kernel: &Mutex<Kernel>) -> MutexGuard<'_, Kernel> {
    kernel.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The bounds of each pipeline. The memory covers the copies that wait as well; the pipelines share the rest.
fn limits(config: &Config) -> Result<Limits> {
    let CaptureConfig { memory, queue_bytes, max_body, threads, .. } = config.capture;
    let threads = u64::try_from(threads)?;
    let memory_bytes = to_usize(memory.saturating_sub(queue_bytes) / threads.max(1));
    Ok(Limits { memory_bytes, body_bytes: to_usize(max_body), ..Limits::default() })
}

fn rules(config: &Config) -> Result<KernelRules> {
    let capture = &config.capture;
    let Ok(ring_bytes) = u32::try_from(capture.ring_size) else {
        bail!("--ring-size {}: take at most 1 GiB", capture.ring_size);
    };
    Ok(KernelRules {
        ports: config.ports(),
        addresses: config.addresses(),
        vxlan_ports: tunnel_ports(&capture.vxlan_ports),
        geneve_ports: tunnel_ports(&capture.geneve_ports),
        ring_bytes,
        rings: u32::try_from(capture.threads)?,
        own_mark: OWN_MARK,
        copies_responses: false,
        wake_interval_ns: u32::try_from(WAKE_INTERVAL.as_nanos())?,
    })
}

/// Which addresses must not receive copies: captured live endpoints.
fn refuse_captured(config: &Config) -> Result<RefuseAddress> {
    let captured = Captured {
        ports: config.ports(),
        local: links::local_addresses().context("list the addresses of this host")?.iter().collect(),
        networks: config.addresses(),
        listeners: [Some(config.capture.metrics_listen), config.control.listen]
            .into_iter()
            .flatten()
            .collect(),
    };
    Ok(Arc::new(move |addr| captured.refuse(addr)))
}

/// The ports of a tunnel, where 0 stands for none.
fn tunnel_ports(ports: &[u16]) -> Vec<u16> {
    ports.iter().copied().filter(|port| *port != 0).collect()
}

/// A number that no stranger can guess and no other run shares: the standard library keys its hasher from the kernel.
fn random() -> u64 {
    RandomState::new().hash_one(0)
}

/// Sizes are of this machine's memory, so they fit; on a 32-bit one the largest is taken.
fn to_usize(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// The signals that steer a run: SIGTERM and SIGINT end it, SIGUSR1 pauses and SIGUSR2 resumes capture.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    pause: Signal,
    resume: Signal,
}

/// Whether capture goes on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Order {
    Pause,
    Resume,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            pause: signal(SignalKind::user_defined1())?,
            resume: signal(SignalKind::user_defined2())?,
        })
    }

    /// The next order; `None` to stop.
    async fn pause_or_stop(&mut self) -> Option<Order> {
        tokio::select! {
            _ = self.terminate.recv() => None,
            _ = self.interrupt.recv() => None,
            _ = self.pause.recv() => Some(Order::Pause),
            _ = self.resume.recv() => Some(Order::Resume),
        }
    }
}

/// Pauses or resumes capture: one write to the kernel program's configuration.
fn pause(kernel: &mut Kernel, orders: &Orders, order: Order) {
    let is_paused = order == Order::Pause;
    match kernel.set_paused(is_paused) {
        Ok(()) => {
            orders.set_paused(is_paused);
            info!("{}", if is_paused { "Capture is paused." } else { "Capture is resumed." });
        }
        Err(error) => error!(%error, "The kernel program could not be told to pause or resume."),
    }
}

/// The kernel's list of own sockets, shared by the tasks of the replay.
struct Registry(Mutex<OwnSockets>);

impl Registry {
    fn with(&self, change: impl FnOnce(&mut OwnSockets) -> Result<(), OwnSocketsError>) {
        let mut sockets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = change(&mut sockets) {
            // The mark and the marker headers still tell copies from live requests.
            warn!(%error, "The kernel program could not be told of a replay connection.");
        }
    }
}

impl OwnSocketRegistry for Registry {
    fn opened(&self, local: SocketAddr) {
        self.with(|sockets| sockets.insert(local));
    }

    fn closed(&self, local: SocketAddr) {
        self.with(|sockets| sockets.remove(local));
    }
}

/// What the metrics ask for.
#[derive(Debug)]
struct AgentGauges {
    counters: KernelCounters,
    ring_bytes: u64,
    directory: Arc<Directory>,
    attached: Arc<AttachedCounts>,
}

impl Gauges for AgentGauges {
    fn kernel_counts(&self) -> CounterValues {
        // The map was made by this process; if it cannot be read, zeros show that something is very wrong.
        self.counters.read().unwrap_or_default()
    }

    fn ring_bytes(&self) -> u64 {
        self.ring_bytes
    }

    fn targets(&self) -> Vec<TargetGauges> {
        let count = |value| u64::try_from(value).unwrap_or(u64::MAX);
        let table = self.directory.table();
        let of_lane = |lane: &Lane| TargetGauges {
            books: Arc::clone(&lane.books),
            queued: count(lane.queue.len()),
            bytes: count(lane.queue.held_bytes()),
            in_flight: count(lane.gauges.in_flight()),
            interlock: lane.gauges.interlock(),
        };
        table.lanes.iter().map(of_lane).collect()
    }

    fn interfaces_attached(&self) -> [u64; Role::ALL.len()] {
        self.attached.read()
    }
}

#[derive(Debug)]
struct Heartbeats(Vec<Arc<Heartbeat>>);

impl Health for Heartbeats {
    fn is_alive(&self) -> bool {
        self.0.iter().all(|heartbeat| heartbeat.is_alive())
    }
}
