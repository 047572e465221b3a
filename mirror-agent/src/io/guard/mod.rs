//! Enters: what the agent may take of the node. Leaves: the share of connections that it captures.
//!
//! Time and again it is measured how much of what was given is used. Before it is all of it, the kernel program sheds: it
//! copies nothing of a share of the connections that begin from then on. Those that are followed already stay, unless that
//! does not help: then as many of them are let go, each when its client next sends something.

mod controller;
mod group;
mod sys;
mod usage;

use std::{
    future,
    sync::atomic::{AtomicU64, Ordering},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use aya::maps::MapError;
use mirror_common::sample::WHOLE_MILLIONTHS;
use tokio::time::{Instant, sleep_until};
use tracing::{error, info, warn};

use self::{
    controller::{Controller, RECOVER_MEMORY_BELOW, Shares, pause_after},
    usage::{Meter, Use},
};
use crate::io::{
    capture::{Kernel, Shed},
    config::GuardConfig,
};

/// How often memory that is free is given back at most, while too much is used.
const GIVE_BACK_PERIOD: Duration = Duration::from_secs(5);
/// How long everything must have been captured before what is still left out is forgotten: long enough that most of it
/// was taken up one by one, as something was sent on it.
const FORGET_AFTER: Duration = Duration::from_secs(30);
/// How often a share that goes on changing is logged.
const LOG_PERIOD: Duration = Duration::from_secs(30);

/// What the guard shows; ratios of what was given, 1 being all of it, and 0 of what is not guarded.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct GuardValues {
    /// The share of new connections that is captured.
    pub capture: f64,
    /// Use of processors.
    pub cpu: f64,
    /// Use of memory.
    pub memory: f64,
}

/// What the guard last found, for the metrics.
#[derive(Debug)]
pub struct GuardGauges {
    capture: AtomicU64,
    cpu: AtomicU64,
    memory: AtomicU64,
}

impl GuardGauges {
    /// The values.
    #[must_use]
    pub fn read(&self) -> GuardValues {
        let load = |gauge: &AtomicU64| f64::from_bits(gauge.load(Ordering::Relaxed));
        GuardValues { capture: load(&self.capture), cpu: load(&self.cpu), memory: load(&self.memory) }
    }

    /// Of a million connections that begin, those that are shed.
    #[must_use]
    pub fn shed_millionths(&self) -> u32 {
        shed_millionths(self.read().capture)
    }

    fn set(&self, GuardValues { capture, cpu, memory }: GuardValues) {
        for (gauge, value) in [(&self.capture, capture), (&self.cpu, cpu), (&self.memory, memory)] {
            gauge.store(value.to_bits(), Ordering::Relaxed);
        }
    }
}

impl Default for GuardGauges {
    fn default() -> Self {
        let gauges = Self { capture: AtomicU64::new(0), cpu: AtomicU64::new(0), memory: AtomicU64::new(0) };
        gauges.set(GuardValues { capture: 1.0, ..GuardValues::default() });
        gauges
    }
}

/// Watches the use of the node. It is one branch of the agent's loop.
#[derive(Debug)]
pub struct Guard {
    /// `None` where nothing is guarded.
    watch: Option<Watch>,
    gauges: Arc<GuardGauges>,
}

#[derive(Debug)]
struct Watch {
    meter: Meter,
    /// By the use of processors, and by that of memory: the lesser share counts.
    controllers: [Controller; 2],
    /// When it is measured next.
    next: Instant,
    started: Instant,
    /// When memory that is free was given back last.
    given_back: Option<Instant>,
    /// The shares of connections that the kernel program captures.
    shares: Shares,
    /// When all were last found to be captured for the first time; `None` while connections are shed, and after what was
    /// left out was forgotten.
    whole_since: Option<Instant>,
    logged: Option<Instant>,
}

impl Guard {
    /// A guard of what `config` gives; of nothing where that says nothing.
    #[must_use]
    pub fn new(config: GuardConfig) -> Self {
        let is_guarded = config.cpu.is_some() || config.memory.is_some();
        Self { watch: is_guarded.then(|| Watch::new(config)), gauges: Arc::default() }
    }

    /// What it shows.
    #[must_use]
    pub fn gauges(&self) -> Arc<GuardGauges> {
        Arc::clone(&self.gauges)
    }

    /// Waits until it is time, measures, and has the kernel program capture the share that is right. Nothing is lost
    /// where it is given up while it waits.
    pub async fn tick(&mut self, kernel: &Mutex<Kernel>) {
        let Some(watch) = &mut self.watch else { return future::pending().await };
        sleep_until(watch.next).await;
        watch.look(kernel, &self.gauges);
    }
}

impl Watch {
    fn new(config: GuardConfig) -> Self {
        let meter = Meter::new(config);
        let memory = meter.memory().map_or(0, |memory| memory.given);
        info!(
            processors = meter.processors(),
            memory_bytes = memory,
            cpu_share = config.cpu,
            memory_share = config.memory,
            "Guarding the node."
        );
        let started = Instant::now();
        Self {
            meter,
            controllers: [Controller::of_processors(), Controller::of_memory()],
            next: started,
            started,
            given_back: None,
            shares: Shares::WHOLE,
            whole_since: None,
            logged: None,
        }
    }

    fn look(&mut self, kernel: &Mutex<Kernel>, gauges: &GuardGauges) {
        let now = Instant::now();
        let elapsed = now.saturating_duration_since(self.started);
        let Use { cpu, mut memory } = self.meter.measure(elapsed);
        let is_due = self.given_back.is_none_or(|at| now.saturating_duration_since(at) >= GIVE_BACK_PERIOD);
        if is_due && memory.is_some_and(|used| used >= RECOVER_MEMORY_BELOW) {
            // What the allocator keeps of a burst is no reason to shed.
            sys::give_back_memory();
            self.given_back = Some(now);
            memory = self.meter.memory_use();
        }
        self.next = now + pause_after(cpu);
        let uses = self.controllers.iter_mut().zip([cpu, memory]);
        let shares = uses.filter_map(|(controller, used)| Some(controller.handle_use(elapsed, used?)));
        if let Some(shares) = shares.reduce(Shares::lesser)
            && let Err(error) = self.apply(shares, now, kernel)
        {
            self.log_failure(now, &error);
        }
        gauges.set(GuardValues {
            capture: self.shares.new,
            cpu: cpu.unwrap_or_default(),
            memory: memory.unwrap_or_default(),
        });
    }

    fn apply(&mut self, shares: Shares, now: Instant, kernel: &Mutex<Kernel>) -> Result<(), MapError> {
        let lock = || kernel.lock().unwrap_or_else(PoisonError::into_inner);
        if shares != self.shares {
            lock().set_shed(Shed {
                new_millionths: shed_millionths(shares.new),
                followed_millionths: shed_millionths(shares.followed),
            })?;
            self.whole_since = (shares == Shares::WHOLE).then_some(now);
            self.log(shares, now);
            self.shares = shares;
        } else if self.whole_since.is_some_and(|since| now.saturating_duration_since(since) > FORGET_AFTER) {
            lock().forget_shed()?;
            self.whole_since = None;
        }
        Ok(())
    }

    fn log(&mut self, shares: Shares, now: Instant) {
        let is_due = self.is_log_due(now);
        let Shares { new: share, followed } = shares;
        if self.shares == Shares::WHOLE {
            warn!(share, "New connections are shed: the agent uses nearly all that it was given.");
        } else if followed < 1.0 && self.shares.followed >= 1.0 {
            warn!(share, "Connections that are followed are let go: shedding new ones did not help.");
        } else if shares == Shares::WHOLE {
            info!("All connections are captured again.");
        } else if is_due {
            info!(share, "The share of connections that are captured changes.");
        } else {
            return;
        }
        self.logged = Some(now);
    }

    fn log_failure(&mut self, now: Instant, error: &MapError) {
        if self.is_log_due(now) {
            error!(%error, "The kernel program could not be told which connections to shed.");
            self.logged = Some(now);
        }
    }

    fn is_log_due(&self, now: Instant) -> bool {
        self.logged.is_none_or(|logged| now.saturating_duration_since(logged) >= LOG_PERIOD)
    }
}

/// The share to shed where `share`, 0 to 1, is to be captured.
fn shed_millionths(share: f64) -> u32 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 1,000,000")]
    let captured = (share.clamp(0.0, 1.0) * f64::from(WHOLE_MILLIONTHS)).round() as u32;
    WHOLE_MILLIONTHS.saturating_sub(captured)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_captured_is_shed() {
        for (share, shed) in [(1.0, 0), (0.0, 1_000_000), (0.75, 250_000), (0.999_999_9, 0), (2.0, 0)] {
            assert_eq!(shed_millionths(share), shed, "{share}");
        }
    }

    #[test]
    fn all_is_captured_until_it_is_known_better() {
        let gauges = Guard::new(GuardConfig::default()).gauges();
        assert_eq!(gauges.read(), GuardValues { capture: 1.0, cpu: 0.0, memory: 0.0 });
        assert_eq!(gauges.shed_millionths(), 0);
    }
}
