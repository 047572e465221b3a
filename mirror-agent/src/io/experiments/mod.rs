//! Enters: the experiments of the configuration. Leaves: for each of their targets a replay that runs, and a table by
//! which capture threads find the targets of a request.
//!
//! All of it runs on the main thread's runtime. Capture threads see no more than the [`Directory`]: its table is
//! replaced as a whole, and each of them takes the next one between two rounds.

mod directory;
mod dispatch;

use std::sync::{Arc, atomic::AtomicBool};

use anyhow::{Context as _, Result};
use tokio::{sync::watch, task::JoinHandle};
use tracing::error;

pub use self::{
    directory::{Directory, Lane, Route, Table},
    dispatch::Dispatcher,
};
use crate::{
    io::{
        config::{ExperimentConfig, TargetConfig},
        join::join_all,
        ledger::Ledger,
        replay::{OwnSocketRegistry, Probes, Queue, RefuseAddress, Replay, ReplayConfig, TargetObserver},
    },
    pipeline::{
        Policy,
        policy::{Experiment, ExperimentId, Share},
    },
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
    /// Bytes of copies that may wait for one target or be written to it.
    pub queue_bytes: usize,
    /// How long copies may still take at the end.
    pub drain_timeout: std::time::Duration,
    /// Who is told of what changes about targets by itself.
    pub observer: Arc<dyn TargetObserver>,
    /// Sees where probes of targets arrive.
    pub probes: Arc<Probes>,
}

/// The experiments that run.
pub struct Experiments {
    common: Common,
    directory: Arc<Directory>,
    stop: watch::Sender<bool>,
    /// Ready, but nothing is sent yet: with the names of experiment and target.
    prepared: Vec<(String, Replay)>,
    replays: Vec<JoinHandle<()>>,
    next_id: u32,
}

impl Experiments {
    /// None yet.
    #[must_use]
    pub fn new(common: Common) -> Self {
        Self {
            common,
            directory: Arc::default(),
            stop: watch::Sender::new(false),
            prepared: Vec::new(),
            replays: Vec::new(),
            next_id: 0,
        }
    }

    /// Where capture threads look the targets up.
    #[must_use]
    pub fn directory(&self) -> Arc<Directory> {
        Arc::clone(&self.directory)
    }

    /// Makes the experiments ready: all of them, or none. Copies wait in their queues until [`launch`](Self::launch).
    ///
    /// # Errors
    ///
    /// A target that cannot be found, or must not receive copies.
    pub async fn start(&mut self, experiments: &[ExperimentConfig]) -> Result<()> {
        let mut prepared = Vec::new();
        let mut table = Table::default();
        let mut policy = Vec::new();
        for experiment in experiments {
            let id = self.next_id();
            let methods = experiment.matches.first().map(|entry| entry.methods.clone()).unwrap_or_default();
            policy.push(Experiment { id, methods, sample: experiment.sample.share });
            let mut lanes = Vec::new();
            for target in &experiment.targets {
                let name = format!("target {} of experiment {}", target.name, experiment.name);
                let (lane, replay) = self.prepare(experiment, target).await.with_context(|| name.clone())?;
                lanes.push(table.add(lane));
                prepared.push((name, replay));
            }
            table.routes.push(Route { id, lanes });
        }
        table.policy = Arc::new(Policy::new(policy));
        self.prepared.append(&mut prepared);
        self.directory.replace(table);
        Ok(())
    }

    /// Sends probes to the targets that were made ready, and starts to send copies once it is known of all of them that they
    /// do not lead back to the live service. To be called once capture is attached.
    ///
    /// # Errors
    ///
    /// A target leads back; then nothing is sent to any of them.
    pub async fn launch(&mut self) -> Result<()> {
        let mut prepared = std::mem::take(&mut self.prepared);
        let judged = join_all(prepared.iter_mut().map(|(_, replay)| replay.judge())).await;
        for (judged, (name, _)) in judged.into_iter().zip(&prepared) {
            judged.with_context(|| name.clone())?;
        }
        for (_, replay) in prepared {
            let mut stop = self.stop.subscribe();
            self.replays.push(tokio::spawn(replay.run(async move {
                // The sender lives as long as the replays do.
                drop(stop.wait_for(|stops| *stops).await);
            })));
        }
        Ok(())
    }

    /// Lets nothing more into the queues, and gives what waits and is under way its time. Every copy is settled when
    /// this returns.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        for replay in self.replays {
            if let Err(error) = replay.await {
                error!(%error, "A replay failed; what it held is counted as dropped.");
            }
        }
    }

    async fn prepare(&self, experiment: &ExperimentConfig, target: &TargetConfig) -> Result<(Lane, Replay)> {
        let common = &self.common;
        let queue = Arc::new(Queue::new(target.limits.queue, common.queue_bytes));
        let books = common.ledger.copies(&experiment.name, &target.name);
        let replay = Replay::prepare(
            common.replay_config(experiment, target)?,
            Arc::clone(&queue),
            Arc::clone(&books),
            Arc::clone(&common.registry),
            Arc::clone(&common.refuse),
        )
        .await?;
        Ok((Lane { queue, books, gauges: replay.gauges() }, replay))
    }

    fn next_id(&mut self) -> ExperimentId {
        let id = ExperimentId(self.next_id);
        self.next_id += 1;
        id
    }
}

impl Common {
    fn replay_config(&self, experiment: &ExperimentConfig, target: &TargetConfig) -> Result<ReplayConfig> {
        Ok(ReplayConfig {
            rewrite: Arc::new(target.rewrite(&experiment.name)?),
            is_sampled: Arc::new(AtomicBool::new(experiment.sample.share != Share::ALL)),
            own_mark: self.own_mark,
            in_flight: target.limits.max_in_flight,
            connect_timeout: target.connect_timeout,
            write_timeout: target.timeout,
            response_timeout: target.timeout,
            queue_age: target.queue_timeout,
            drain_timeout: self.drain_timeout,
            tls: target.tls.clone(),
            interlock: target.interlock.clone(),
            observer: Arc::clone(&self.observer),
            probes: Some(Arc::clone(&self.probes)),
            ..ReplayConfig::new(target.url.clone(), self.instance)
        })
    }
}
