//! Enters: the configuration. Leaves: a running mirror, and at its end the balanced books.
//!
//! Threads: one a ring for capture, and the caller's, which runs the replay, the admin listener and the signals on
//! one tokio runtime. Capture never waits for the replay; the queue between them refuses what does not fit.

mod gauges;
mod signals;
mod values;

use std::{
    hash::{BuildHasher, RandomState},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use tracing::{error, info, warn};

use self::{
    gauges::{AgentGauges, Heartbeats, Registry},
    signals::{Order, Signals},
    values::{attach_mode, limits, queue_bytes_of_target, refuse_captured, rules, to_usize},
};
use crate::{
    io::{
        admin::{self, Admin},
        capture::{
            Capture, Kernel,
            follow::Follower,
            kernel::{Capabilities, Capability},
        },
        config::Config,
        experiments::{Common, Dispatcher, Experiments},
        interfaces::{Interfaces, Tally},
        ledger::{Ledger, Snapshot},
        metrics::{self, PipelineGauges},
        object::EBPF_OBJECT,
        worker::{Heartbeat, Orders, Warned, Worker},
    },
    pipeline::{Pipeline, exchange::Purpose},
};

/// SO_MARK of the replay sockets: the letters `mirr`, unlikely to be anybody else's.
const OWN_MARK: u32 = 0x6d69_7272;

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
    let mut experiments = Experiments::new(Common {
        ledger: Arc::clone(&ledger),
        registry: Arc::new(Registry::new(own_sockets)),
        refuse: refuse_captured(config)?,
        own_mark: OWN_MARK,
        instance: random(),
        queue_bytes: to_usize(queue_bytes_of_target(config)),
        drain_timeout: config.drain_timeout,
    });
    experiments.start(&config.experiments).await?;
    let directory = experiments.directory();

    let pipelines: Vec<_> = rings.iter().map(|_| Arc::new(PipelineGauges::default())).collect();
    let heartbeats: Vec<_> = rings.iter().map(|_| Arc::new(Heartbeat::default())).collect();
    let ring_bytes = capture.ring_size.saturating_mul(u64::try_from(rings.len())?);
    let ready = Arc::new(AtomicBool::new(false));
    let orders = Arc::new(Orders::default());
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

/// A number that no stranger can guess and no other run shares: the standard library keys its hasher from the kernel.
fn random() -> u64 {
    RandomState::new().hash_one(0)
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
