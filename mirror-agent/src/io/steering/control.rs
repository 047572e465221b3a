//! Enters: orders. Leaves: what changed by them.

use crate::{
    io::{
        config::{Expiry, TargetRole},
        control::{
            CaptureState, Change, ChangedKey, ControlError, CopyState, Counted, ExperimentState,
            InterlockState, Reasons, RequestState, Setting, State, Steering, TargetState,
        },
        experiments::{Activity, Wanted},
        ledger::{CopySnapshot, DropReason, ReplayOutcome, Snapshot},
        metrics::Gauges as _,
        steering::Helm,
    },
    pipeline::{
        policy::Share,
        reason::{ComparisonResult, FlowSkipReason, IncomparableReason, LostReason, SkipReason},
    },
};

impl Steering for Helm {
    fn state(&mut self) -> State {
        // All of them at one moment.
        let books = self.parts.ledger.snapshot();
        let running: Vec<_> = self.parts.experiments.running().cloned().collect();
        State {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_seconds: self.begun.elapsed().as_secs_f64(),
            paused: self.is_paused,
            capture: self.capture_state(&books),
            experiments: running.iter().map(|wanted| self.experiment_state(wanted, &books)).collect(),
        }
    }

    async fn pause(&mut self, experiment: Option<&str>) -> Result<Vec<Change>, ControlError> {
        self.set_paused(experiment, true)
    }

    async fn resume(&mut self, experiment: Option<&str>) -> Result<Vec<Change>, ControlError> {
        self.set_paused(experiment, false)
    }

    async fn set_percent(&mut self, experiment: &str, percent: f64) -> Result<Vec<Change>, ControlError> {
        let share = Share::from_percent(percent).ok_or(ControlError::Percent { percent })?;
        let before = self.find(experiment)?;
        let known = self.overrides.clone();
        self.overrides.of(experiment).share = Some(share);
        self.enforce_or(known)?;
        let was = before.config.sample.share;
        let (was, is) = (Setting::Percent(was.percent()), Setting::Percent(share.percent()));
        Ok(change(&before, was, is))
    }

    async fn set_expiry(&mut self, experiment: &str, expires: Expiry) -> Result<Vec<Change>, ControlError> {
        let before = self.find(experiment)?;
        let known = self.overrides.clone();
        self.overrides.of(experiment).expires = Some(expires);
        self.retry_at = None;
        self.enforce_or(known)?;
        Ok(change(&before, Setting::Expires(before.config.expires), Setting::Expires(expires)))
    }
}

impl Helm {
    fn set_paused(&mut self, experiment: Option<&str>, is_paused: bool) -> Result<Vec<Change>, ControlError> {
        let Some(name) = experiment else { return self.set_all_paused(is_paused) };
        let before = self.find(name)?;
        let known = self.overrides.clone();
        let was = std::mem::replace(&mut self.overrides.of(name).is_paused, is_paused);
        self.enforce_or(known)?;
        Ok(change(&before, Setting::Paused(was), Setting::Paused(is_paused)))
    }

    /// Pauses all, or resumes all, those too that were paused by name.
    fn set_all_paused(&mut self, is_paused: bool) -> Result<Vec<Change>, ControlError> {
        let failed = |error| ControlError::Failed(error);
        let mut changes = Vec::new();
        if is_paused != self.is_paused {
            if is_paused {
                // What is captured already meets queues that take nothing.
                self.parts.tap.set_paused(true).map_err(failed)?;
                self.parts.experiments.set_paused(true);
            } else {
                self.parts.experiments.set_paused(false);
                if let Err(error) = self.parts.tap.set_paused(false) {
                    self.parts.experiments.set_paused(true);
                    return Err(failed(error));
                }
            }
            self.is_paused = is_paused;
            tracing::info!("{}", if is_paused { "Capture is paused." } else { "Capture is resumed." });
            let (before, after) = (Setting::Paused(!is_paused), Setting::Paused(is_paused));
            changes.push(Change { experiment: None, owner: None, before, after });
        }
        if !is_paused {
            for name in self.names() {
                if self.overrides.of(&name).is_paused {
                    changes.extend(self.set_paused(Some(&name), false)?);
                }
            }
        }
        self.show();
        Ok(changes)
    }

    /// Puts what is wanted in force; where that fails, what was changed by hand is what it was before.
    fn enforce_or(&mut self, known: super::Overrides) -> Result<(), ControlError> {
        if let Err(error) = self.reconcile() {
            self.overrides = known;
            return Err(ControlError::Failed(Box::new(error)));
        }
        Ok(())
    }

    fn find(&self, name: &str) -> Result<Wanted, ControlError> {
        let mut running = self.parts.experiments.running();
        running.find(|wanted| wanted.config.name == name).cloned().ok_or_else(|| {
            let known: Vec<_> = self.parts.experiments.running().map(|wanted| &*wanted.config.name).collect();
            ControlError::unknown(name, known)
        })
    }

    /// What of an experiment is otherwise than the configuration has it.
    fn changed(&self, name: &str) -> Vec<ChangedKey> {
        let mut experiments = self.parts.config.experiments.iter();
        let found = experiments.find(|experiment| experiment.name == name);
        found.map(|experiment| self.overrides.changed(experiment)).unwrap_or_default()
    }

    fn capture_state(&self, books: &Snapshot) -> CaptureState {
        let guard = self.parts.config.guard;
        let is_guarded = guard.cpu.is_some() || guard.memory.is_some();
        let kernel = self.parts.gauges.kernel_counts();
        let mut flows_skipped = books.flows_skipped;
        kernel.add_left_out(&mut flows_skipped);
        CaptureState {
            interfaces: self.parts.gauges.interfaces_attached().iter().sum(),
            guard_percent: is_guarded.then(|| self.parts.gauges.guard().capture * 100.0),
            frames_captured: kernel.frames_captured(),
            frames_dropped: kernel.frame_drops().map(|(_, count)| count).sum(),
            frames_dropped_by: kernel
                .frame_drops()
                .filter(|(_, count)| *count > 0)
                .map(|(reason, count)| (reason.to_owned(), count))
                .collect(),
            flows_skipped: counted(&FlowSkipReason::LABELS, &flows_skipped),
            requests: RequestState {
                seen: books.seen,
                pending: books.pending,
                mirrored: books.mirrored,
                skipped: books.skipped.iter().sum(),
                dropped: books.dropped.iter().sum(),
                lost: books.lost.iter().sum(),
                reasons: Reasons {
                    skipped: counted(&SkipReason::LABELS, &books.skipped),
                    dropped: counted(&DropReason::LABELS, &books.dropped),
                    lost: counted(&LostReason::LABELS, &books.lost),
                },
            },
        }
    }

    fn experiment_state(&self, wanted: &Wanted, books: &Snapshot) -> ExperimentState {
        let Wanted { config, activity } = wanted;
        let lanes = || {
            let lanes = self.parts.experiments.lanes();
            lanes.filter(|(experiment, ..)| experiment.name == config.name)
        };
        let targets = config.targets.iter().map(|target| {
            let lane = lanes().find(|(_, running, _)| running.name == target.name).map(|(.., lane)| lane);
            let count = |value: usize| u64::try_from(value).unwrap_or(u64::MAX);
            let is_it =
                |books: &&CopySnapshot| books.experiment == config.name && books.target == target.name;
            let books = books.copies.iter().find(is_it);
            TargetState {
                name: target.name.clone(),
                url: target.url.to_string(),
                is_control: target.role == TargetRole::Control,
                copies: books.map(copies).unwrap_or_default(),
                replays: books
                    .map_or_else(Counted::new, |books| counted(&ReplayOutcome::LABELS, &books.replays)),
                queued: lane.map_or(0, |lane| count(lane.queue.len())),
                in_flight: lane.map_or(0, |lane| count(lane.gauges.in_flight())),
                breaker: lane.filter(|_| target.circuit_breaker.is_some()).map(|lane| lane.gauges.breaker()),
                interlock: lane.and_then(|lane| lane.gauges.interlock()).map(|interlock| {
                    if interlock.is_open { InterlockState::Proven } else { InterlockState::Unproven }
                }),
            }
        });
        let compared = books.comparisons.iter().find(|books| books.experiment == config.name);
        ExperimentState {
            name: config.name.clone(),
            owner: config.owner.clone(),
            expires: config.expires,
            expired: *activity == Activity::Expired,
            percent: config.sample.share.percent(),
            paused: self.is_paused || *activity == Activity::Paused,
            changed: self.changed(&config.name),
            targets: targets.collect(),
            comparisons: compared
                .map_or_else(Counted::new, |books| counted(&ComparisonResult::LABELS, &books.results)),
            incomparable: compared
                .map_or_else(Counted::new, |books| counted(&IncomparableReason::LABELS, &books.incomparable)),
            verdict: compared.and_then(|books| books.verdict),
        }
    }
}

fn copies(books: &CopySnapshot) -> CopyState {
    CopyState {
        copies: books.copies,
        pending: books.pending,
        mirrored: books.mirrored,
        skipped: books.skipped.iter().sum(),
        dropped: books.dropped.iter().sum(),
        reasons: Reasons {
            skipped: counted(&SkipReason::LABELS, &books.skipped),
            dropped: counted(&DropReason::LABELS, &books.dropped),
            lost: Counted::new(),
        },
    }
}

/// Counts by label, as far as there is anything to count.
fn counted(labels: &[&str], counts: &[u64]) -> Counted {
    let all = labels.iter().zip(counts).filter(|(_, count)| **count > 0);
    all.map(|(label, count)| ((*label).to_owned(), *count)).collect()
}

/// What is different; nothing where it was so already.
fn change(wanted: &Wanted, before: Setting, after: Setting) -> Vec<Change> {
    if before == after {
        return Vec::new();
    }
    let Wanted { config, .. } = wanted;
    vec![Change { experiment: Some(config.name.clone()), owner: config.owner.clone(), before, after }]
}
