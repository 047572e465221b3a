//! Enters: configurations, orders, and the time. Leaves: experiments, kernel tables and senders that do as they say.
//!
//! One value, owned by the main loop, knows what is to run: what the file says, and what was changed by hand since. All
//! changes go through it one at a time. What takes time, finding the targets that do not run yet, is done beside the main
//! loop and has no effect until it has succeeded for all of them; then everything is put in force at once.
//!
//! The order in which that is done never takes traffic that neither the old nor the new configuration asks for: the
//! kernel program takes less first, then capture threads and targets turn to what is to run, then the kernel program takes
//! more.

mod control;
mod news;
mod offer;
mod overrides;
mod pods;
mod restart;
mod source;
mod status;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    error::Error,
    future::pending,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Interval, MissedTickBehavior, interval, sleep, sleep_until},
};
use tracing::{error, warn};

use self::{
    news::Rest,
    overrides::Overrides,
    source::{Reading, Source},
    status::seconds,
};
pub use self::{
    pods::PodsParts,
    status::{ExperimentStatus, ReloadResult, Status},
};
use crate::{
    io::{
        audit::{Audit, Who},
        capture::{Matched, PortSample},
        compare::Comparing,
        config::{Config, ExperimentConfig, Expiry, Listens, SinkConfig, SinkPlace, TargetConfig, networks},
        experiments::{
            Activity, ExperimentSinks, Experiments, PrepareError, Prepared, Reach, Wanted, answer_ports,
            connection_samples, try_sinks,
        },
        ledger::Ledger,
        metrics::Gauges,
        replay::Captured,
        telling::{Installed, Teller},
    },
    pipeline::policy::ExperimentSet,
};

/// How often the clock is looked at.
const TICK: Duration = Duration::from_millis(500);

/// How long it takes until a target that could not be found is looked for again.
const RETRY_INTERVAL: Duration = Duration::from_secs(30);

/// How long it takes until what was told of pods is put in force: a rollout is many changes at a time.
const PODS_DELAY: Duration = Duration::from_millis(50);

/// How often it is looked whether targets were judged.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// Anything that may go wrong in the parts that are steered.
pub type AnyError = Box<dyn Error + Send + Sync>;

/// The kernel program, as far as it is steered.
pub trait Tap {
    /// Takes nothing more that `matched` does not ask for.
    ///
    /// # Errors
    ///
    /// The kernel's. Nothing has changed.
    fn take_less(&mut self, matched: &Matched) -> Result<(), AnyError>;

    /// Takes all that `matched` asks for.
    ///
    /// # Errors
    ///
    /// The kernel's. Nothing has changed.
    fn take_more(&mut self, matched: &Matched) -> Result<(), AnyError>;

    /// Leaves out the connections to some ports that these do not take.
    ///
    /// # Errors
    ///
    /// The kernel's. Nothing has changed.
    fn set_samples(&mut self, samples: &[PortSample]) -> Result<(), AnyError>;

    /// Takes what servers of these ports send in full, and of others only how a response begins.
    ///
    /// # Errors
    ///
    /// The kernel's. Nothing has changed.
    fn set_answer_ports(&mut self, ports: &BTreeSet<u16>) -> Result<(), AnyError>;

    /// Takes nothing at all for the time being, or goes on.
    ///
    /// # Errors
    ///
    /// The kernel's. Nothing has changed.
    fn set_paused(&mut self, is_paused: bool) -> Result<(), AnyError>;
}

/// What a configuration is read and judged by.
#[derive(Clone, Copy, Debug)]
pub struct Reader {
    /// Reads the text of the file of this name.
    pub parse: fn(text: &str, name: &str) -> Result<Config, AnyError>,
    /// Whether its values fit together.
    pub judge: fn(&Config) -> Result<(), AnyError>,
    /// What of it is captured.
    pub captured: fn(&Config) -> Result<Captured, AnyError>,
    /// The time of the wall clock.
    pub now: fn() -> SystemTime,
}

/// What must not receive copies, as it is in force.
#[derive(Debug, Default)]
pub struct CapturedCell(Mutex<Arc<Captured>>);

impl CapturedCell {
    /// What is in force.
    #[must_use]
    pub fn load(&self) -> Arc<Captured> {
        Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn store(&self, captured: Captured) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(captured);
    }
}

/// A configuration file that is followed.
#[derive(Clone, Debug)]
pub struct Followed {
    /// Where it is.
    pub path: PathBuf,
    /// What the command line says in place of the file.
    pub listens: Listens,
}

/// What the owner is made of.
pub struct Parts {
    /// The configuration at the start.
    pub config: Config,
    /// None yet.
    pub experiments: Experiments,
    /// The kernel program.
    pub tap: Box<dyn Tap>,
    /// What must not receive copies.
    pub captured: Arc<CapturedCell>,
    /// How configurations are read.
    pub reader: Reader,
    /// What is written down.
    pub audit: Audit,
    /// The books.
    pub ledger: Arc<Ledger>,
    /// Figures.
    pub gauges: Arc<dyn Gauges>,
    /// What the metrics show.
    pub status: Arc<Status>,
    /// Who compares the answers.
    pub teller: Teller,
    /// That other interfaces are attached to: follower of interfaces --news--> owner.
    pub attached: watch::Receiver<()>,
    /// Who knows of pods.
    pub pods: PodsParts,
}

/// The owner of what runs.
pub struct Helm {
    parts: Parts,
    overrides: Overrides,
    is_paused: bool,
    /// What the experiments and their targets were told last.
    reach: Reach,
    rest: Rest,
    begun: Instant,
    tick: Interval,
    source: Option<(Followed, Source)>,
    /// What is being prepared.
    preparing: Option<Preparing>,
    /// Readings that wait for that.
    waiting: VecDeque<Reading>,
    /// Whether the kernel program takes less than what is asked for.
    takes_too_little: bool,
    /// Not before this is tried again what failed.
    retry_at: Option<Instant>,
    /// A configuration that is offered again then, unless another is read before.
    offered_again: Option<(Instant, Offer)>,
    /// Of each experiment about pods how many of them, and how many servers, were shown last.
    shown_pods: BTreeMap<String, (usize, usize)>,
    /// When what was told of pods is put in force.
    pods_due: Option<Instant>,
}

/// A configuration that is offered.
struct Offer {
    config: Config,
    who: Who,
    /// It was rejected, since a target could not be found; that is said already.
    is_again: bool,
}

/// Targets that are being looked for.
struct Preparing {
    /// The configuration that has them; `None` for the one in force.
    offer: Option<Offer>,
    task: JoinHandle<Result<Prepared, PrepareError>>,
}

/// Why a configuration cannot be put in force.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SteerError {
    /// It cannot be read, or is not one.
    #[error("{0}")]
    Invalid(AnyError),
    /// It changes what is read at the start only.
    #[error("needs a restart: {}", keys.join(", "))]
    NeedsRestart {
        /// The keys.
        keys: Vec<&'static str>,
    },
    /// There are more experiments than a request can be in.
    #[error("{count} experiments are more than {}", ExperimentSet::CAPACITY)]
    TooMany {
        /// How many.
        count: usize,
    },
    /// A target cannot be found or must not receive copies.
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    /// An experiment is about pods, of which nobody can be asked.
    #[error(
        "experiments about `pods` need NODE_NAME in the environment (spec.nodeName), and an API server, when the agent starts"
    )]
    NoPods,
    /// The kernel program could not be told.
    #[error("tell the kernel program: {0}")]
    Kernel(AnyError),
}

impl Helm {
    /// Starts the experiments of the configuration.
    ///
    /// # Errors
    ///
    /// A target cannot be found, or must not receive copies; the kernel program cannot be told.
    pub async fn start(parts: Parts) -> Result<Self, SteerError> {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut helm = Self {
            parts,
            overrides: Overrides::default(),
            is_paused: false,
            reach: Reach::default(),
            rest: Rest::over(),
            begun: Instant::now(),
            tick,
            source: None,
            preparing: None,
            waiting: VecDeque::new(),
            takes_too_little: false,
            retry_at: None,
            offered_again: None,
            shown_pods: BTreeMap::new(),
            pods_due: None,
        };
        helm.can_watch(&helm.parts.config)?;
        let captured = (helm.parts.reader.captured)(&helm.parts.config).map_err(SteerError::Invalid)?;
        helm.parts.captured.store(captured.clone());
        let wanted = helm.wanted();
        for expired in wanted.iter().filter(|wanted| wanted.activity == Activity::Expired) {
            warn!(
                experiment = expired.config.name,
                "The experiment has expired; nothing is mirrored for it."
            );
        }
        try_sinks(sinks_of(&wanted), helm.written_beside(&[])).await?;
        let missing = helm.parts.experiments.missing(&wanted);
        let prepared = helm.parts.experiments.common().clone().prepare_first(missing, captured).await?;
        helm.enforce(wanted, prepared)?;
        helm.watch_pods();
        helm.parts.status.started((helm.parts.reader.now)());
        Ok(helm)
    }

    /// Follows a configuration file from here on.
    pub fn follow(&mut self, file: Followed) {
        let source = Source::watch(file.path.clone());
        self.source = Some((file, source));
    }

    /// Has the configuration file read now.
    pub fn reload(&self) {
        match &self.source {
            Some((_, source)) => source.ask(),
            None => warn!("There is no configuration file to be read again."),
        }
    }

    /// Does the next thing that is due by itself. May be given up while it waits.
    pub async fn turn(&mut self) {
        let Self { preparing, source, tick, parts, pods_due, rest, .. } = self;
        tokio::select! {
            result = async {
                match preparing {
                    Some(preparing) => (&mut preparing.task).await,
                    None => pending().await,
                }
            } => {
                if let Some(Preparing { offer, .. }) = self.preparing.take() {
                    // It neither panics nor is it cut off.
                    if let Ok(result) = result {
                        self.prepared(offer, result);
                    }
                }
                if let Some(reading) = self.waiting.pop_front() {
                    self.read(reading);
                }
            }
            reading = async {
                match source {
                    Some((_, source)) => source.next().await,
                    None => pending().await,
                }
            } => {
                if let Some(reading) = reading {
                    self.read(reading);
                }
            }
            () = async {
                match &parts.pods.pods {
                    Some(pods) => pods.changed().await,
                    None => pending().await,
                }
            } => {
                self.pods_due.get_or_insert(Instant::now() + PODS_DELAY);
            }
            () = async {
                match *pods_due {
                    Some(due) => sleep_until(due.into()).await,
                    None => pending().await,
                }
            } => {
                self.pods_due = None;
                self.pods_changed();
            }
            Ok(()) = rest.changed(&mut parts.attached) => parts.experiments.doubt(),
            _ = tick.tick() => self.look_at_the_clock(),
        }
    }

    /// Waits until the targets were judged with which it started, as long as `is_paused` does not say that nothing can be
    /// seen. Capture has to be attached.
    ///
    /// # Errors
    ///
    /// A target leads back to the live service.
    pub async fn judged(&self, is_paused: impl Fn() -> bool) -> Result<(), PrepareError> {
        for (experiment, target, lane) in self.parts.experiments.lanes() {
            let refusal = loop {
                match lane.gauges.verdict() {
                    Some(refusal) => break refusal,
                    None if is_paused() => break None,
                    None => sleep(LOOK_INTERVAL).await,
                }
            };
            if let Some(source) = refusal {
                let (experiment, target) = (experiment.name.clone(), target.name.clone());
                return Err(PrepareError::Refused { experiment, target, source });
            }
        }
        Ok(())
    }

    /// Ends the replays; every copy is settled when this returns.
    pub async fn stop(self) {
        if let Some(preparing) = self.preparing {
            preparing.task.abort();
        }
        self.parts.experiments.stop().await;
    }

    /// Names of the experiments.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        offer::names(&self.parts.config)
    }

    /// How each experiment is to run at this moment.
    fn wanted(&mut self) -> Vec<Wanted> {
        let now = (self.parts.reader.now)();
        let wanted = self.overrides.apply(&self.parts.config, now);
        self.with_pods(wanted)
    }

    fn look_at_the_clock(&mut self) {
        self.offer_again();
        if self.retry_at.is_some_and(|retry_at| Instant::now() < retry_at) {
            return;
        }
        self.retry_at = None;
        if let Err(error) = self.reconcile() {
            error!(%error, "What is to run could not be put in force; it is tried again.");
            self.retry_at = Some(Instant::now() + RETRY_INTERVAL);
        }
    }

    /// Puts what is wanted in force, but for experiments whose targets have to be found first: those follow.
    fn reconcile(&mut self) -> Result<(), SteerError> {
        let mut wanted = self.wanted();
        let missing = self.parts.experiments.missing(&wanted);
        for wanted in &mut wanted {
            if missing.iter().any(|(experiment, _)| experiment.name == wanted.config.name) {
                wanted.activity = Activity::Expired;
            }
        }
        if !self.is_in_force(&wanted) || self.takes_too_little {
            self.capture_pods(&wanted)?;
            self.enforce(wanted, Prepared::default())?;
        }
        if !missing.is_empty() && self.preparing.is_none() {
            let captured = (*self.parts.captured.load()).clone();
            self.prepare(missing, captured, Default::default(), None);
        }
        Ok(())
    }

    fn is_in_force(&self, wanted: &[Wanted]) -> bool {
        self.parts.experiments.running().eq(wanted)
    }

    /// Puts `wanted` in force, all or nothing.
    fn enforce(&mut self, wanted: Vec<Wanted>, prepared: Prepared) -> Result<(), SteerError> {
        let active = wanted.iter().filter(|wanted| wanted.activity == Activity::Active);
        let active: Vec<_> = active.map(|wanted| wanted.config.clone()).collect();
        let reach = Reach { matched: matched(&wanted), samples: connection_samples(&active) };
        let (Reach { matched, samples }, answer_ports) = (&reach, answer_ports(&active));
        let Parts { experiments, tap, config, audit, .. } = &mut self.parts;
        let expired: Vec<ExperimentConfig> = {
            let is_new = |wanted: &&Wanted| {
                wanted.activity == Activity::Expired
                    && experiments.running().any(|running| {
                        running.config.name == wanted.config.name && running.activity != Activity::Expired
                    })
            };
            wanted.iter().filter(is_new).map(|wanted| wanted.config.clone()).collect()
        };
        tap.take_less(matched).map_err(SteerError::Kernel)?;
        if self.takes_too_little || reach.shows_more_than(&self.reach) {
            // A probe that was not seen then might be by now. Those that are to start are judged when they do.
            experiments.doubt();
        }
        let queue_bytes = usize::try_from(config.capture.queue_bytes).unwrap_or(usize::MAX);
        let body_bytes = usize::try_from(config.capture.max_body).unwrap_or(usize::MAX);
        if let Err(error) = experiments.apply(wanted, prepared, &reach, (queue_bytes, body_bytes)) {
            return Err(self.take_back(error.into()));
        }
        let taken = tap
            .set_samples(samples)
            .and_then(|()| tap.set_answer_ports(&answer_ports))
            .and_then(|()| tap.take_more(matched));
        if let Some(probes) = &experiments.common().probes {
            probes.set_samples(samples.clone());
        }
        self.takes_too_little = taken.is_err();
        if let Err(error) = taken {
            // The targets are there, but some traffic does not come: better than to stop what goes on.
            error!(error = &*error, "The kernel program does not take all that is asked for.");
            self.retry_at = Some(Instant::now() + RETRY_INTERVAL);
        }
        for ExperimentConfig { name, owner, expires, .. } in &expired {
            warn!(
                experiment = name,
                "The experiment has reached its end; nothing is mirrored for it any more."
            );
            if let Expiry::At(time) = expires {
                audit.expired(name, owner.as_deref(), *time);
            }
        }
        self.reach = reach;
        self.tell();
        self.tell_addresses();
        self.show();
        Ok(())
    }

    /// Has the answers compared of the experiments that are in force.
    fn tell(&self) {
        let Parts { experiments, teller, .. } = &self.parts;
        let owner = |comparing: &Comparing| {
            let mut running = experiments.running();
            running.find(|wanted| wanted.config.name == comparing.experiment)?.config.owner.clone()
        };
        let compared = experiments.comparing().filter(|comparing| comparing.config.is_some());
        let installed =
            compared.map(|comparing| Installed { comparing: Arc::clone(comparing), owner: owner(comparing) });
        teller.install(installed.collect());
    }

    /// Takes again what was taken before.
    fn take_back(&mut self, error: SteerError) -> SteerError {
        if let Err(error) = self.parts.tap.take_more(&self.reach.matched) {
            error!(error = &*error, "The kernel program does not take all that is asked for.");
        }
        error
    }

    /// Has the metrics show what is in force.
    fn show(&self) {
        let show = |wanted: &Wanted| ExperimentStatus {
            name: wanted.config.name.clone(),
            is_paused: self.is_paused || wanted.activity == Activity::Paused,
            expires: match wanted.config.expires {
                Expiry::Never => 0,
                Expiry::At(time) => seconds(time),
            },
        };
        self.parts.status.set_experiments(self.parts.experiments.running().map(show).collect());
    }

    /// Files that are written to beside the sinks that are to be opened: the audit records', and those of the sinks that `stay`.
    fn written_beside(&self, stay: &[(String, SinkConfig)]) -> Vec<PathBuf> {
        let of_sinks = stay.iter().filter_map(|(_, sink)| match &sink.to {
            SinkPlace::File { path, .. } => Some(path.clone()),
            SinkPlace::Kafka { .. } => None,
        });
        self.parts.config.audit.file.iter().cloned().chain(of_sinks).collect()
    }

    fn prepare(
        &mut self,
        missing: Vec<(ExperimentConfig, TargetConfig)>,
        captured: Captured,
        (sinks, written): (ExperimentSinks, Vec<PathBuf>),
        offer: Option<Offer>,
    ) {
        let experiments = &self.parts.experiments;
        // Of the targets that run, those that the offer keeps.
        let is_kept = |experiment: &ExperimentConfig, target: &TargetConfig| {
            let config = offer.as_ref().map_or(&self.parts.config, |offer| &offer.config);
            let kept = config.experiments.iter().find(|kept| kept.name == experiment.name);
            kept.is_some_and(|kept| kept.targets.contains(target))
        };
        let running = experiments
            .lanes()
            .filter(|(experiment, target, _)| is_kept(experiment, target))
            .map(|(experiment, target, lane)| {
                (experiment.name.clone(), target.name.clone(), lane.gauges.addresses())
            })
            .collect();
        let prepared = experiments.common().clone().prepare(missing, running, captured);
        let task = tokio::spawn(async move {
            try_sinks(sinks, written).await?;
            prepared.await
        });
        self.preparing = Some(Preparing { offer, task });
    }
}

/// The sinks of experiments that have not expired.
fn sinks_of<'w>(wanted: impl IntoIterator<Item = &'w Wanted>) -> ExperimentSinks {
    let wanted = wanted.into_iter().filter(|wanted| wanted.activity != Activity::Expired);
    wanted
        .flat_map(|Wanted { config, .. }| {
            let sinks = config.compare.iter().flat_map(|compare| &compare.sinks);
            sinks.map(|sink| (config.name.clone(), sink.clone()))
        })
        .collect()
}

/// What the experiments that take requests ask for together.
fn matched(wanted: &[Wanted]) -> Matched {
    let active =
        || wanted.iter().filter(|wanted| wanted.activity == Activity::Active).map(|wanted| &wanted.config);
    let ports: Vec<_> = active().flat_map(|config| &config.ports).copied().collect();
    Matched::new(&ports, &networks(active()))
}
