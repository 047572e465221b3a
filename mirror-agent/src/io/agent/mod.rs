//! Enters: the configuration. Leaves: a running mirror, and at its end the balanced books.
//!
//! Threads: one a ring for capture, and the caller's, which runs the replay, the admin listener and the signals on
//! one tokio runtime. Capture never waits for the replay; the queue between them refuses what does not fit.

mod gauges;
mod pods;
mod signals;
mod turn;
mod values;

use std::{
    collections::BTreeSet,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use tokio::sync::watch;
use tracing::{info, warn};

use self::{
    gauges::{AgentGauges, Heartbeats, KernelTap, OwnHook, Registry},
    signals::{Signals, Told},
    turn::{Front, Outcome, await_turn},
    values::{READER, attach_mode, limits, rules},
};
use crate::{
    io::{
        admin::{Answers, Stage, StageCell},
        audit::{Audit, Event, Who},
        capture::{
            AgentName, Capture, Kernel,
            follow::Follower,
            kernel::{Capabilities, Capability},
        },
        compare::Shared,
        config::Config,
        control::{self, Command, Listeners, Order},
        experiments::{Common, Dispatcher, Experiments},
        guard::Guard,
        interfaces::{Interfaces, Tally},
        ledger::{Ledger, Snapshot},
        logs::LogCounts,
        metrics::{self, PipelineGauges},
        object::EBPF_OBJECT,
        pods::PodsStatus,
        random::random,
        replay::Probes,
        sinks::SinkLedger,
        steering::{CapturedCell, Followed, Helm, Parts, PodsParts, Status},
        telling::{Telling, TellingThread},
        worker::{Heartbeat, Orders, Warned, Worker},
    },
    pipeline::{Pipeline, exchange::Purpose},
};

/// SO_MARK of the replay sockets: the letters `mirr`, unlikely to be anybody else's.
const OWN_MARK: u32 = 0x6d69_7272;

/// How old a look at the interfaces may be when it is attached to them.
const FRESH: Duration = Duration::from_millis(100);

/// How often the kernel program's log is handed on, where it was built with one.
const KERNEL_LOG_INTERVAL: Duration = Duration::from_secs(1);

/// What a run has beside its configuration.
#[derive(Debug)]
pub struct Surroundings {
    /// Where the configuration came from, which is read again when it changes.
    pub file: Option<Followed>,
    /// What tells it from agents that run beside it on purpose.
    pub name: Option<AgentName>,
    /// For the metrics.
    pub log: Arc<LogCounts>,
}

/// Runs the mirror until SIGTERM or SIGINT and returns the books. While another agent of the same name runs in the network
/// namespace, it waits for that to end.
///
/// # Errors
///
/// Values that do not fit together, an interface or a target that cannot be used, missing privileges, a kernel that
/// refuses the programs: all of them before anything is captured.
pub fn run(config: &Config, surroundings: Surroundings) -> Result<Snapshot> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(mirror(config, surroundings))
}

async fn mirror(config: &Config, Surroundings { file, name, log }: Surroundings) -> Result<Snapshot> {
    let capture = &config.capture;
    let limits = limits(config)?;
    let rules = rules(config)?;
    require_capabilities()?;
    let specs = capture.interfaces.iter().map(|spec| spec.parse()).collect::<Result<Vec<_>, _>>()?;
    let pods_status = Arc::<PodsStatus>::default();
    let pods = pods::pods(config, &pods_status).await?;
    let mut follower = Follower::open(specs.clone(), attach_mode(capture.attach))?;
    // Caught from here on: a signal during the start must not skip the detaching.
    let mut signals = Signals::new().context("catch signals")?;
    let stage = Arc::<StageCell>::default();
    let mut front = Front::open(capture.metrics_listen, Arc::clone(&stage)).await?;
    // Before the turn: loading takes longest of all, and meanwhile another agent may still capture.
    let Capture { kernel, own_sockets, counters, rings, unread } = Capture::load(EBPF_OBJECT, &rules)?;
    let waiting_since = Instant::now();
    let (turn, paused) = match await_turn(name.as_ref(), &mut front, &stage, &mut signals).await? {
        Outcome::Turn { turn, paused } => (turn, paused),
        Outcome::Stopped => return Ok(Ledger::default().snapshot()),
    };
    if waiting_since.elapsed() > FRESH {
        // Interfaces may have come and gone.
        follower = Follower::open(specs, attach_mode(capture.attach))?;
    }
    let (addresses, pod_addresses) = watch::channel(BTreeSet::new());
    let mut follower = follower.with_pods(pod_addresses, Arc::clone(&pods_status));

    let (audit, audit_writer) = Audit::open(&config.audit).with_context(|| audit_file(config))?;
    let (teller, telling) = Telling::new();
    let (control, mut commands) = control::channel(teller.clone(), audit.clone());
    let listeners = Listeners::start(&config.control, &control).await?;
    let ledger = Arc::new(Ledger::default());
    let compare = Shared::default();
    let sink_ledger = SinkLedger::default();
    let telling = telling
        .start(Arc::clone(&compare.queue), Arc::clone(&ledger), sink_ledger.clone(), control)
        .context("start the thread that compares")?;
    let counters = Arc::new(counters);
    let kernel = Arc::new(Mutex::new(kernel));
    let mut guard = Guard::new(config.guard);
    let captured = Arc::<CapturedCell>::default();
    let is_captured = Arc::clone(&captured);
    let orders = Arc::new(Orders::default());
    let heartbeats: Vec<_> = rings.iter().map(|_| Arc::new(Heartbeat::default())).collect();
    let attached = Arc::new(AtomicBool::new(false));
    let probes = Arc::new(Probes::new(OwnHook {
        attached: Arc::clone(&attached),
        orders: Arc::clone(&orders),
        counters: Arc::clone(&counters),
        guard: guard.gauges(),
        heartbeats: heartbeats.clone(),
    }));
    let experiments = Experiments::new(Common {
        ledger: Arc::clone(&ledger),
        registry: Arc::new(Registry::new(own_sockets)),
        refuse: Arc::new(move |address| is_captured.load().refuse(address)),
        own_mark: OWN_MARK,
        instance: random(),
        drain_timeout: config.drain_timeout,
        audit: audit.clone(),
        agents: Arc::new(AtomicU32::new(config.agents)),
        probes: Some(Arc::clone(&probes)),
        compare,
    });
    let directory = experiments.directory();
    let status = Arc::<Status>::default();
    let gauges = Arc::new(AgentGauges {
        counters: Arc::clone(&counters),
        ring_bytes: capture.ring_size.saturating_mul(u64::try_from(rings.len())?),
        directory: Arc::clone(&directory),
        attached: follower.attached(),
        guard: guard.gauges(),
    });
    let mut helm = Helm::start(Parts {
        config: config.clone(),
        experiments,
        tap: Box::new(KernelTap { kernel: Arc::clone(&kernel), orders: Arc::clone(&orders) }),
        captured,
        reader: READER,
        audit: audit.clone(),
        ledger: Arc::clone(&ledger),
        gauges: Arc::<AgentGauges>::clone(&gauges),
        status: Arc::clone(&status),
        teller,
        attached: follower.news(),
        pods: PodsParts { pods, addresses, status: Arc::clone(&pods_status) },
    })
    .await?;

    let pipelines: Vec<_> = rings.iter().map(|_| Arc::new(PipelineGauges::default())).collect();
    let interfaces_seen = Arc::new(Interfaces::default());
    let mut registry = metrics::registry(
        Arc::clone(&ledger),
        pipelines.clone(),
        Box::new(gauges),
        Arc::clone(&orders),
        Arc::clone(&interfaces_seen),
    );
    metrics::register_audit(&mut registry, audit.clone());
    metrics::register_fleet(&mut registry, Arc::clone(&listeners.fleet_gauges));
    metrics::register_sinks(&mut registry, sink_ledger);
    metrics::register_steering(&mut registry, status);
    metrics::register_pods(&mut registry, pods_status);
    metrics::register_logs(&mut registry, log);
    let healthy = Arc::new(Heartbeats(heartbeats.clone()));
    front.exchange(Answers { registry, stage: Arc::clone(&stage), healthy });

    let warned = Arc::new(Warned::default());
    let mut workers = Vec::new();
    for (number, (((reader, unread), gauges), heartbeat)) in
        rings.into_iter().zip(unread).zip(pipelines).zip(heartbeats).enumerate()
    {
        let number = u16::try_from(number)?;
        let dispatcher = Dispatcher::new(number, Arc::clone(&ledger), Arc::clone(&directory));
        let worker = Worker {
            number,
            reader,
            unread,
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
    if let Err(error) = follower.attach_all(&mut lock(&kernel)) {
        orders.stop.store(true, Ordering::Release);
        return Err(error.into());
    }
    attached.store(true, Ordering::Release);
    if let Err(error) = helm.judged(|| orders.is_paused()).await {
        listeners.stop().await;
        detach(Arc::clone(&kernel)).await;
        orders.stop.store(true, Ordering::Release);
        join(workers).await;
        helm.stop().await;
        audit_writer.close();
        return Err(error.into());
    }
    stage.set(Stage::Ready);
    let (count, targets) = (config.experiments.len(), config.targets());
    audit.life(Event::Start, &helm.names());
    info!(experiments = count, targets, metrics = %capture.metrics_listen, "Mirroring.");

    if let Some(file) = file {
        helm.follow(file);
    }
    if let Some(told) = paused {
        heed(told, &mut helm, &audit).await;
    }

    let has_log = lock(&kernel).has_log();
    let mut log_due = tokio::time::interval(KERNEL_LOG_INTERVAL);
    let bind_deadline = Front::deadline(config.drain_timeout);
    let mut failure = None;
    loop {
        tokio::select! {
            told = signals.next() => match told {
                Told::Stop => break,
                Told::Pause | Told::Resume | Told::Reload => heed(told, &mut helm, &audit).await,
            },
            listener = front.bound(bind_deadline) => match listener {
                Ok(listener) => front.serve(listener),
                Err(error) => {
                    failure = Some(error);
                    break;
                }
            },
            Some(order) = commands.recv() => order.obey(&mut helm, &audit).await,
            _ = log_due.tick(), if has_log => lock(&kernel).flush_log(),
            () = helm.turn() => {}
            () = follower.follow(&kernel) => {}
            () = guard.tick(&kernel) => {}
        }
    }
    listeners.stop().await;
    info!("Stopping: capture is detached, copies under way are finished.");
    stage.set(Stage::Stopping);
    follower.stop().await;
    detach(Arc::clone(&kernel)).await;
    // The next agent may begin: nothing that it sees is seen here as well.
    drop(turn);
    lock(&kernel).flush_log();
    orders.stop.store(true, Ordering::Release);
    join(workers).await;
    let names = helm.names();
    helm.stop().await;
    stop_telling(telling).await;
    front.close();
    audit.life(Event::Stop, &names);
    audit_writer.close();
    let mut books = ledger.snapshot();
    counters.read().unwrap_or_default().add_left_out(&mut books.flows_skipped);
    failure.map_or(Ok(books), Err)
}

fn audit_file(config: &Config) -> String {
    let file = config.audit.file.as_deref().unwrap_or(Path::new(""));
    format!("open {} for audit records", file.display())
}

/// Has what waits compared, without stopping what else the runtime does.
async fn stop_telling(telling: TellingThread) {
    if tokio::task::spawn_blocking(|| telling.stop()).await.is_err() {
        warn!("The thread that compares could not be waited for.");
    }
}

/// Does what a signal tells a running agent.
async fn heed(told: Told, helm: &mut Helm, audit: &Audit) {
    let (name, command) = match told {
        Told::Pause => ("SIGUSR1", Command::Pause { experiment: None }),
        Told::Resume => ("SIGUSR2", Command::Resume { experiment: None }),
        Told::Reload => return helm.reload(),
        Told::Stop => return,
    };
    Order::unasked(Who::Signal { name }, command).obey(helm, audit).await;
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
