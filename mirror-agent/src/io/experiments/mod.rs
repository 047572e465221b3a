//! Enters: the experiments of the configuration. Leaves: for each of their targets a replay that runs, and a table by
//! which capture threads find the targets of a request.
//!
//! All of it runs on the main thread's runtime. Capture threads see no more than the [`Directory`]: its table is
//! replaced as a whole, and each of them takes the next one between two rounds.
//!
//! A change is made in two steps. [`Common::prepare`] finds the targets that do not run yet, which takes time and may
//! fail; nothing has changed then. [`Experiments::apply`] puts all in force at once and cannot fail any more.

mod compile;
mod directory;
mod dispatch;
mod plan;
mod prepare;
mod samples;

use std::{
    mem,
    sync::{Arc, atomic::Ordering},
};

use tokio::{sync::watch, task::JoinHandle};
use tracing::error;

use self::plan::plan;
#[cfg(test)]
pub(in crate::io) use self::plan::tests::config;
pub use self::{
    compile::{CompileError, compile, compile_exclusion},
    directory::{Directory, Lane, Route, Table},
    dispatch::Dispatcher,
    plan::{Activity, Wanted},
    prepare::{Common, ExperimentSinks, PrepareError, Prepared, try_sinks},
    samples::{Reach, answer_ports, connection_samples},
};
use crate::{
    io::{
        compare::{ComparedTarget, Comparing},
        config::{ExperimentConfig, TargetConfig},
        ledger::CopyBooks,
        replay::Replay,
    },
    pipeline::{
        Limits, Policy,
        policy::{Exclusion, Experiment, ExperimentId, Share},
    },
};

/// How many changes of what is captured a capture thread may miss at a time: it takes one each 100 ms at the latest.
const CHANGES_KEPT: usize = 16;

/// The experiments that run.
pub struct Experiments {
    common: Common,
    directory: Arc<Directory>,
    running: Vec<Running>,
    /// Targets that were removed, and finish what is in flight.
    leaving: Vec<JoinHandle<()>>,
    stop: watch::Sender<bool>,
    is_paused: bool,
    captured: Vec<(u64, Arc<Reach>)>,
    next_id: u32,
}

/// One of them.
struct Running {
    id: ExperimentId,
    wanted: Wanted,
    /// The part that decides on requests.
    policy: Experiment,
    targets: Vec<RunningTarget>,
    /// Where answers are read.
    comparing: Option<Arc<Comparing>>,
    /// The books of all its targets, also of those that do not run.
    _books: Vec<Arc<CopyBooks>>,
}

/// A target that runs.
struct RunningTarget {
    lane: Lane,
    /// Removes it.
    remove: watch::Sender<bool>,
    replay: JoinHandle<()>,
}

impl Experiments {
    /// None yet.
    #[must_use]
    pub fn new(common: Common) -> Self {
        Self {
            common,
            directory: Arc::default(),
            running: Vec::new(),
            leaving: Vec::new(),
            stop: watch::Sender::new(false),
            is_paused: false,
            captured: Vec::new(),
            next_id: 0,
        }
    }

    /// Where capture threads look the targets up.
    #[must_use]
    pub fn directory(&self) -> Arc<Directory> {
        Arc::clone(&self.directory)
    }

    /// What all replays have in common.
    #[must_use]
    pub const fn common(&self) -> &Common {
        &self.common
    }

    /// The experiments that read answers.
    pub fn comparing(&self) -> impl Iterator<Item = &Arc<Comparing>> {
        self.running.iter().filter_map(|running| running.comparing.as_ref())
    }

    /// What runs.
    pub fn running(&self) -> impl Iterator<Item = &Wanted> {
        self.running.iter().map(|running| &running.wanted)
    }

    /// The targets that run: experiment, target, and the way to it.
    pub fn lanes(&self) -> impl Iterator<Item = (&ExperimentConfig, &TargetConfig, &Lane)> {
        self.running.iter().flat_map(|running| {
            let targets = running.wanted.targets().iter().zip(&running.targets);
            targets.map(|(config, target)| (&running.wanted.config, config, &target.lane))
        })
    }

    /// Has all targets that run judged anew before they get another copy: more is captured than was, or is about to be.
    pub fn doubt(&self) {
        for (_, _, lane) in self.lanes() {
            lane.queue.doubt();
        }
    }

    /// The targets of `wanted` that do not run yet, each with its experiment.
    #[must_use]
    pub fn missing(&self, wanted: &[Wanted]) -> Vec<(ExperimentConfig, TargetConfig)> {
        let running: Vec<_> = self.running().cloned().collect();
        let steps = plan(&running, wanted);
        let missing = |(wanted, step): (&Wanted, plan::Step)| {
            let targets = wanted.targets().iter().zip(step.targets);
            let missing = targets.filter(|(_, place)| place.is_none());
            missing.map(|(target, _)| (wanted.config.clone(), target.clone())).collect::<Vec<_>>()
        };
        wanted.iter().zip(steps).flat_map(missing).collect()
    }

    /// Puts `wanted` in force. What did not change goes on as it is: experiments keep their numbers, targets their
    /// queues, connections and books. What a target that is removed has queued is dropped; what is in flight there
    /// is finished in the background.
    ///
    /// Bodies are held up to `body_bytes`. All targets share `queue_bytes` evenly. A queue that holds more than its share takes nothing until it holds less;
    /// what removed targets still hold comes on top until it is written, or the drain timeout has passed.
    ///
    /// # Errors
    ///
    /// [`PrepareError::Missing`] if `prepared` lacks a target that does not run yet, [`PrepareError::Rule`] if a rule
    /// cannot be held against requests. Nothing has changed.
    pub fn apply(
        &mut self,
        wanted: Vec<Wanted>,
        prepared: Prepared,
        captured: &Reach,
        (queue_bytes, body_bytes): (usize, usize),
    ) -> Result<(), PrepareError> {
        let mut prepared = prepared;
        let missing = self.missing(&wanted);
        if let Some((experiment, target)) =
            missing.into_iter().find(|(experiment, target)| !prepared.has(&experiment.name, target))
        {
            return Err(PrepareError::Missing { experiment: experiment.name, target: target.name });
        }
        let known: Vec<_> = self.running().cloned().collect();
        let policies = self.compile(&wanted)?;
        let exclusion = |wanted: &Wanted| {
            let name = || wanted.config.name.clone();
            compile_exclusion(&wanted.config)
                .map_err(|source| PrepareError::Rule { experiment: name(), source })
        };
        let exclusions = wanted.iter().map(exclusion).collect::<Result<Vec<_>, _>>()?;
        let mut before: Vec<_> = mem::take(&mut self.running).into_iter().map(Some).collect();
        let mut before_targets: Vec<Vec<_>> = before
            .iter_mut()
            .map(|running| {
                running.as_mut().map(|running| mem::take(&mut running.targets)).unwrap_or_default()
            })
            .map(|targets| targets.into_iter().map(Some).collect())
            .collect();
        let compiled = policies.into_iter().zip(exclusions);
        for ((step, wanted), (mut policy, exclusion)) in
            plan(&known, &wanted).into_iter().zip(wanted).zip(compiled)
        {
            let kept = step.kept.and_then(|kept| before.get_mut(kept)?.take());
            let id = kept.as_ref().map_or_else(|| self.next_id(), |running| running.id);
            policy.id = id;
            policy.is_paused = wanted.activity != Activity::Active;
            let mut targets = Vec::new();
            for (config, place) in wanted.targets().iter().zip(step.targets) {
                let kept = step.kept.zip(place).and_then(|(experiment, target)| {
                    before_targets.get_mut(experiment)?.get_mut(target)?.take()
                });
                let mut fresh = || prepared.take(&wanted.config.name, config);
                let target = kept.or_else(|| fresh().map(|(lane, replay)| self.start(lane, replay)));
                let is_sampled = wanted.config.sample.share != Share::ALL;
                targets.extend(
                    target.inspect(|target| target.lane.is_sampled.store(is_sampled, Ordering::Relaxed)),
                );
            }
            let books = |target: &TargetConfig| self.common.ledger.copies(&wanted.config.name, &target.name);
            let books = wanted.config.targets.iter().map(books).collect();
            let comparing = wanted.config.reads_answers().then(|| {
                let known = kept.and_then(|running| running.comparing);
                self.compare(id, known, &wanted, &targets, exclusion)
            });
            self.running.push(Running { id, wanted, policy, targets, comparing, _books: books });
        }
        prepared.commit();
        let count = self.running.iter().map(|running| running.wanted.config.targets.len()).sum::<usize>();
        for (_, _, lane) in self.lanes() {
            lane.queue.set_bytes_limit(queue_bytes / count.max(1));
        }
        self.settle_pauses();
        self.publish(captured, body_bytes);
        for target in before_targets.into_iter().flatten().flatten() {
            target.lane.queue.remove();
            target.remove.send_replace(true);
            self.leaving.push(target.replay);
        }
        self.leaving.retain(|replay| !replay.is_finished());
        // Books that nobody has any more are settled: a ticket has them too.
        self.common.ledger.retain_copies(|books| Arc::strong_count(books) > 1);
        Ok(())
    }

    /// The same as is `known` where nothing of it differs, so that what it has counted goes on.
    fn compare(
        &self,
        id: ExperimentId,
        known: Option<Arc<Comparing>>,
        wanted: &Wanted,
        targets: &[RunningTarget],
        exclusion: Option<Exclusion>,
    ) -> Arc<Comparing> {
        let compared = |(config, target): (&TargetConfig, &RunningTarget)| ComparedTarget {
            name: config.name.clone(),
            role: config.role,
            sessions: target.lane.sessions.clone(),
        };
        let targets: Vec<_> = wanted.targets().iter().zip(targets).map(compared).collect();
        let Wanted { config, activity, .. } = wanted;
        // What an experiment that has ended found out stays to be told.
        let is_same = |known: &Arc<Comparing>| {
            known.is_of(config.compare.as_ref(), &targets) || *activity == Activity::Expired
        };
        known.filter(is_same).unwrap_or_else(|| {
            let (compare, common) = (config.compare.clone(), &self.common);
            let shared = (common.instance, common.compare.clone());
            Arc::new(Comparing::new((id, &config.name), compare, exclusion, targets, shared))
        })
    }

    /// The parts that decide on requests. Those that did not change are not made anew.
    fn compile(&self, wanted: &[Wanted]) -> Result<Vec<Experiment>, PrepareError> {
        let compile_one = |Wanted { config, .. }: &Wanted| match self
            .running
            .iter()
            .find(|running| running.wanted.config == *config)
        {
            Some(running) => Ok(running.policy.clone()),
            None => compile(ExperimentId::default(), config)
                .map_err(|source| PrepareError::Rule { experiment: config.name.clone(), source }),
        };
        wanted.iter().map(compile_one).collect()
    }

    /// Pauses or resumes all of them, without touching which of them are paused by themselves. Nothing is begun at any
    /// target once this returns.
    pub fn set_paused(&mut self, is_paused: bool) {
        self.is_paused = is_paused;
        self.settle_pauses();
    }

    /// Lets nothing more into the queues, and gives what waits and is under way its time. Every copy is settled when
    /// this returns.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        let replays = self.running.into_iter().flat_map(|running| running.targets);
        for replay in replays.map(|target| target.replay).chain(self.leaving) {
            if let Err(error) = replay.await {
                error!(%error, "A replay failed; what it held is counted as dropped.");
            }
        }
    }

    fn settle_pauses(&self) {
        for running in &self.running {
            let is_paused = self.is_paused || running.wanted.activity != Activity::Active;
            for target in &running.targets {
                if is_paused {
                    target.lane.queue.pause();
                } else {
                    target.lane.queue.resume();
                }
            }
        }
    }

    /// Puts the table of what runs in force for the capture threads.
    fn publish(&mut self, captured: &Reach, body_bytes: usize) {
        if self.captured.last().is_none_or(|(_, last)| **last != *captured) {
            let number = self.captured.last().map_or(1, |(number, _)| number + 1);
            self.captured.push((number, Arc::new(captured.clone())));
            self.captured.drain(..self.captured.len().saturating_sub(CHANGES_KEPT));
        }
        let mut table = Table {
            body_bytes,
            answer_bytes: answer_bytes(self.running().map(|wanted| &wanted.config)),
            captured: self.captured.clone(),
            ..Table::default()
        };
        let mut policy = Vec::new();
        for running in self.running.iter().filter(|running| running.wanted.activity != Activity::Expired) {
            policy.push(running.policy.clone());
            let lanes = running.targets.iter().map(|target| table.add(target.lane.clone())).collect();
            table.routes.push(Route { id: running.id, lanes, comparing: running.comparing.clone() });
        }
        table.policy = Arc::new(Policy::new(policy));
        self.directory.replace(table);
    }

    fn start(&self, lane: Lane, replay: Replay) -> RunningTarget {
        let (remove, mut removed) = watch::channel(false);
        let mut stop = self.stop.subscribe();
        let replay = tokio::spawn(replay.run(async move {
            // The senders live as long as the replay does, or have no more to say.
            tokio::select! {
                _ = stop.wait_for(|stops| *stops) => {}
                _ = removed.wait_for(|removed| *removed) => {}
            }
        }));
        RunningTarget { lane, remove, replay }
    }

    const fn next_id(&mut self) -> ExperimentId {
        let id = ExperimentId(self.next_id);
        self.next_id += 1;
        id
    }
}

/// Longest content of an answer that any of the experiments reads, in bytes.
fn answer_bytes<'a>(experiments: impl Iterator<Item = &'a ExperimentConfig>) -> usize {
    let compared =
        experiments.filter_map(|experiment| Some(experiment.compare.as_ref()?.rules.content_bytes));
    compared.max().unwrap_or(Limits::default().answer_bytes)
}
