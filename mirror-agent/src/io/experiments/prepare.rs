//! Enters: targets that are to run. Leaves: all of them found and allowed, or none; at a start some may be found later.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};

use tokio::task::spawn_blocking;
use tracing::warn;

use crate::io::{
    audit::Audit,
    compare::{Sessions, Shared},
    config::{ExperimentConfig, Rate, SinkConfig, TargetConfig},
    experiments::{CompileError, Lane},
    ledger::Ledger,
    replay::{
        Captured, OwnSocketRegistry, Probes, Queue, Refusal, RefuseAddress, Replay, ReplayConfig, ReplayError,
    },
    sinks::{SinkError, Written},
    target::TargetError,
};

/// What all replays have in common.
#[derive(Clone)]
pub struct Common {
    /// The books.
    pub ledger: Arc<Ledger>,
    /// Who is told of the agent's own connections.
    pub registry: Arc<dyn OwnSocketRegistry>,
    /// Which addresses must not receive copies.
    pub refuse: RefuseAddress,
    /// The mark of the connections.
    pub own_mark: u32,
    /// The first part of `x-mirror-id`.
    pub instance: u64,
    /// How long copies may still take at the end.
    pub drain_timeout: std::time::Duration,
    /// What is written down.
    pub audit: Audit,
    /// How many agents share what is limited for all of them together.
    pub agents: Arc<AtomicU32>,
    /// Sees where probes of targets arrive; `None` where nothing is captured.
    pub probes: Option<Arc<Probes>>,
    /// Where exchanges go whose answers are read.
    pub compare: Shared,
}

/// Why a change cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PrepareError {
    /// A target cannot be found, or must not receive copies.
    #[error("target {target} of experiment {experiment}")]
    Target {
        /// Name of the experiment.
        experiment: String,
        /// Name of the target.
        target: String,
        /// What is wrong with it.
        #[source]
        source: ReplayError,
    },
    /// A target that runs must not receive copies any more.
    #[error("target {target} of experiment {experiment}")]
    Refused {
        /// Name of the experiment.
        experiment: String,
        /// Name of the target.
        target: String,
        /// What is wrong with it.
        #[source]
        source: Refusal,
    },
    /// What it takes cannot be said to the pipeline.
    #[error("experiment {experiment}")]
    Rule {
        /// Name of the experiment.
        experiment: String,
        /// What is wrong.
        #[source]
        source: CompileError,
    },
    /// A sink cannot be written to.
    #[error("experiment {experiment}")]
    Sink {
        /// Name of the experiment.
        experiment: String,
        /// What is wrong.
        #[source]
        source: SinkError,
    },
    /// A target was not prepared.
    #[error("target {target} of experiment {experiment} was not prepared")]
    Missing {
        /// Name of the experiment.
        experiment: String,
        /// Name of the target.
        target: String,
    },
}

impl PrepareError {
    /// Whether the same may succeed later though nobody changes the configuration: name servers do not always answer.
    #[must_use]
    pub const fn may_pass(&self) -> bool {
        matches!(
            self,
            Self::Target {
                source: ReplayError::Target(TargetError::Resolve { .. } | TargetError::NoAddress { .. }),
                ..
            }
        )
    }
}

/// Sinks, by the names of their experiments.
pub type ExperimentSinks = Vec<(String, SinkConfig)>;

/// Tries whether sinks can be written to, each to a file that is none of `others`.
///
/// # Errors
///
/// [`PrepareError::Sink`].
pub async fn try_sinks(sinks: ExperimentSinks, others: Vec<PathBuf>) -> Result<(), PrepareError> {
    let tried = spawn_blocking(move || {
        let mut written = Written::of(others);
        sinks.into_iter().try_for_each(|(experiment, sink)| {
            written.claim(&sink).map_err(|source| PrepareError::Sink { experiment, source })
        })
    });
    // Should it panic, who opens them says what is wrong.
    tried.await.unwrap_or(Ok(()))
}

/// Targets that are ready to run. They stop being so where this is dropped.
#[derive(Default)]
pub struct Prepared {
    targets: Vec<(String, TargetConfig, Lane, Replay)>,
    is_committed: Arc<AtomicBool>,
}

impl Common {
    /// Finds the targets with which an agent starts and checks them against what will be captured. Those that cannot be
    /// found are looked for while it runs, unless that is all of them: then one is as good as a mistake.
    ///
    /// # Errors
    ///
    /// [`PrepareError::Target`].
    pub async fn prepare_first(
        self,
        targets: Vec<(ExperimentConfig, TargetConfig)>,
        captured: Captured,
    ) -> Result<Prepared, PrepareError> {
        // All at once: a name may take long not to be found.
        let look_up = |(experiment, target): (ExperimentConfig, TargetConfig)| {
            let url = target.url.clone();
            (experiment, target, tokio::spawn(async move { url.resolve().await }))
        };
        let under_way: Vec<_> = targets.into_iter().map(look_up).collect();
        let mut looked_up = Vec::new();
        for (experiment, target, answer) in under_way {
            looked_up.push((experiment, target, answer.await.ok().and_then(Result::err)));
        }
        if looked_up.iter().all(|(_, _, error)| error.is_some())
            && let Some((experiment, target, Some(error))) = looked_up.pop()
        {
            let (experiment, target) = (experiment.name, target.name);
            return Err(PrepareError::Target { experiment, target, source: error.into() });
        }
        let sought = |(experiment, target, error): (ExperimentConfig, TargetConfig, Option<TargetError>)| {
            if let Some(error) = &error {
                let (experiment, target) = (&experiment.name, &target.name);
                warn!(experiment, target, %error, "The shadow cannot be found; its copies are dropped until it is.");
            }
            (experiment, target, error.is_some())
        };
        let targets = looked_up.into_iter().map(sought).collect();
        self.prepare_all(targets, captured).await
    }

    /// Finds the `missing` targets and checks them against what will be captured. `running` are the addresses of the
    /// targets that go on, which are checked too.
    ///
    /// # Errors
    ///
    /// [`PrepareError::Target`] and [`PrepareError::Refused`].
    pub async fn prepare(
        self,
        missing: Vec<(ExperimentConfig, TargetConfig)>,
        running: Vec<(String, String, Vec<SocketAddr>)>,
        captured: Captured,
    ) -> Result<Prepared, PrepareError> {
        for (experiment, target, addresses) in running {
            if let Some(source) = addresses.into_iter().find_map(|address| captured.refuse(address)) {
                return Err(PrepareError::Refused { experiment, target, source });
            }
        }
        let targets = missing.into_iter().map(|(experiment, target)| (experiment, target, false)).collect();
        self.prepare_all(targets, captured).await
    }

    /// Prepares targets, of which some may have to be looked for once they run.
    async fn prepare_all(
        self,
        targets: Vec<(ExperimentConfig, TargetConfig, bool)>,
        captured: Captured,
    ) -> Result<Prepared, PrepareError> {
        let mut prepared = Prepared::default();
        // Until the change is made a target is held against what will be captured, from then on against what is.
        let (is_committed, then) = (Arc::clone(&prepared.is_committed), Arc::clone(&self.refuse));
        let refuse: RefuseAddress = Arc::new(move |address| {
            if is_committed.load(Ordering::Acquire) { then(address) } else { captured.refuse(address) }
        });
        for (experiment, target, is_sought) in targets {
            match self.prepare_one(&experiment, &target, &refuse, is_sought).await {
                Ok((lane, replay)) => prepared.targets.push((experiment.name, target, lane, replay)),
                Err(source) => {
                    // Not to be shown: there are no copies of it.
                    drop(prepared);
                    let is_used = |books: &Arc<_>| Arc::strong_count(books) > 1;
                    self.ledger.retain_copies(|books| is_used(books) || books.snapshot().copies > 0);
                    let (experiment, target) = (experiment.name, target.name);
                    return Err(PrepareError::Target { experiment, target, source });
                }
            }
        }
        Ok(prepared)
    }

    /// Makes a target ready; where it `is_sought` it is looked for once it runs.
    async fn prepare_one(
        &self,
        experiment: &ExperimentConfig,
        target: &TargetConfig,
        refuse: &RefuseAddress,
        is_sought: bool,
    ) -> Result<(Lane, Replay), ReplayError> {
        // Its share of the bytes is told when it starts.
        let queue = Queue::new(target.limits.queue, 0)
            .with_drop_policy(target.limits.drop_policy)
            .with_order(target.order);
        let queue = Arc::new(queue);
        let is_sampled = Arc::<AtomicBool>::default();
        let books = self.ledger.copies(&experiment.name, &target.name);
        let sessions = Sessions::new(&target.sessions)?;
        let config = self.replay_config(experiment, target, Arc::clone(&is_sampled))?;
        let replay = Replay::prepare(
            ReplayConfig { sessions: sessions.clone(), is_sought, ..config },
            Arc::clone(&queue),
            Arc::clone(&books),
            Arc::clone(&self.registry),
            Arc::clone(refuse),
        )
        .await?;
        Ok((Lane { queue, books, gauges: replay.gauges(), is_sampled, sessions }, replay))
    }

    fn replay_config(
        &self,
        experiment: &ExperimentConfig,
        target: &TargetConfig,
        is_sampled: Arc<AtomicBool>,
    ) -> Result<ReplayConfig, ReplayError> {
        let audit = self.audit.of_target(&experiment.name, experiment.owner.as_deref(), &target.name);
        Ok(ReplayConfig {
            rewrite: Arc::new(target.rewrite(&experiment.name)?),
            is_sampled,
            own_mark: self.own_mark,
            in_flight: target.limits.max_in_flight,
            pipeline: target.limits.pipeline,
            connect_timeout: target.connect_timeout,
            write_timeout: target.timeout,
            response_timeout: target.timeout,
            queue_age: target.queue_timeout,
            drain_timeout: self.drain_timeout,
            observer: Some(Arc::new(audit.clone())),
            audit,
            requests_per_second: target.limits.requests_per_second.map(Rate::value),
            shared_by: match target.limits.requests_per_second {
                Some(Rate::Total(_)) => Arc::clone(&self.agents),
                Some(Rate::Each(_)) | None => Arc::new(AtomicU32::new(1)),
            },
            bandwidth: target.limits.bandwidth,
            circuit_breaker: target.circuit_breaker,
            max_connection_age: target.max_connection_age,
            tls: target.tls.clone(),
            interlock: target.interlock.clone(),
            probes: self.probes.clone(),
            ..ReplayConfig::new(target.url.clone(), self.instance)
        })
    }
}

impl Prepared {
    #[must_use]
    pub(in crate::io) fn has(&self, experiment: &str, target: &TargetConfig) -> bool {
        self.targets.iter().any(|(name, known, ..)| name == experiment && known == target)
    }

    pub(super) fn take(&mut self, experiment: &str, target: &TargetConfig) -> Option<(Lane, Replay)> {
        let place =
            self.targets.iter().position(|(name, known, ..)| name == experiment && known == target)?;
        let (_, _, lane, replay) = self.targets.swap_remove(place);
        Some((lane, replay))
    }

    pub(super) fn commit(&self) {
        self.is_committed.store(true, Ordering::Release);
    }
}
