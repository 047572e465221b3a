//! Enters: what was read of the configuration file. Leaves: a configuration in force, or a reason why it is not.

use std::{error::Error, time::Instant};

use tracing::{error, info};

use crate::{
    io::{
        audit::Who,
        config::{Config, ExperimentConfig, TargetConfig},
        experiments::{Activity, PrepareError, Prepared, Wanted},
        steering::{
            Helm, Offer, RETRY_INTERVAL, ReloadResult, SteerError, restart::needs_restart, sinks_of,
            source::Reading,
        },
    },
    pipeline::policy::ExperimentSet,
};

impl Helm {
    /// Takes a reading of the configuration file.
    pub(super) fn read(&mut self, reading: Reading) {
        if self.preparing.is_some() {
            // One thing at a time; of several readings that wait, the last one counts.
            self.waiting.clear();
            self.waiting.push_back(reading);
            return;
        }
        let Reading { who, text, is_first } = reading;
        self.offered_again = None;
        let file = self.source.as_ref().map(|(file, _)| file);
        let path = file.map(|file| file.path.display().to_string()).unwrap_or_default();
        let listens = file.map(|file| file.listens).unwrap_or_default();
        let offer = text
            .map_err(|error| SteerError::Invalid(format!("read {path}: {error}").into()))
            .and_then(|text| (self.parts.reader.parse)(&text, &path).map_err(SteerError::Invalid))
            .map(|mut offer| {
                listens.apply(&mut offer);
                offer
            });
        if is_first && offer.as_ref().is_ok_and(|offer| *offer == self.parts.config) {
            return;
        }
        let begun = offer.and_then(|config| self.offer(Offer { config, who, is_again: false }));
        if let Err(error) = begun {
            self.reject(who, &error);
        }
    }

    /// Checks a configuration, and has the targets looked for that it brings.
    fn offer(&mut self, offered: Offer) -> Result<(), SteerError> {
        let offer = &offered.config;
        let keys = needs_restart(&self.parts.config, offer);
        if !keys.is_empty() {
            return Err(SteerError::NeedsRestart { keys });
        }
        let count = offer.experiments.len();
        if count > ExperimentSet::CAPACITY {
            return Err(SteerError::TooMany { count });
        }
        let reader = self.parts.reader;
        (reader.judge)(offer).map_err(SteerError::Invalid)?;
        self.can_watch(offer)?;
        let wanted = self.overrides.carried_over(&self.parts.config, offer).apply(offer, (reader.now)());
        let wanted = self.with_pods(wanted);
        let captured = self.captured_by(offer, &wanted)?;
        let missing = self.parts.experiments.missing(&wanted);
        // What those write to that are in force is theirs, whatever has become of it.
        let in_force = sinks_of(self.parts.experiments.running());
        let (stay, sinks): (Vec<_>, Vec<_>) =
            sinks_of(&wanted).into_iter().partition(|sink| in_force.contains(sink));
        let written = self.written_beside(&stay);
        self.prepare(missing, captured, (sinks, written), Some(offered));
        Ok(())
    }

    /// Offers again what was rejected since a target could not be found, once it is time.
    pub(super) fn offer_again(&mut self) {
        let is_due = |(due, _): &mut (Instant, Offer)| Instant::now() >= *due;
        if self.preparing.is_none()
            && let Some((_, offer)) = self.offered_again.take_if(is_due)
        {
            let who = offer.who;
            if let Err(error) = self.offer(offer) {
                self.reject(who, &error);
            }
        }
    }

    /// The targets of an offer, or those of experiments that are to run again, were found, or not.
    pub(super) fn prepared(&mut self, offer: Option<Offer>, result: Result<Prepared, PrepareError>) {
        let Some(Offer { config, who, is_again }) = offer else {
            if let Err(error) = result.map_err(SteerError::from).and_then(|prepared| self.revive(prepared)) {
                error!(
                    error = &error as &dyn Error,
                    "An experiment cannot run again yet; it is tried again."
                );
                self.retry_at = Some(Instant::now() + RETRY_INTERVAL);
            }
            return;
        };
        let error = match result {
            Ok(prepared) => self.accept(config, who, prepared).err(),
            Err(error) => {
                let may_pass = error.may_pass();
                if may_pass {
                    let again = Offer { config, who, is_again: true };
                    self.offered_again = Some((Instant::now() + RETRY_INTERVAL, again));
                }
                (!may_pass || !is_again).then(|| error.into())
            }
        };
        if let Some(error) = error {
            self.reject(who, &error);
        }
    }

    fn revive(&mut self, prepared: Prepared) -> Result<(), SteerError> {
        let wanted = self.wanted();
        let wanted = self.without_missing(wanted, &prepared);
        self.enforce(wanted, prepared)
    }

    /// Puts an offer in force whose targets have been found.
    fn accept(&mut self, offer: Config, who: Who, prepared: Prepared) -> Result<(), SteerError> {
        let reader = self.parts.reader;
        let mut overrides = self.overrides.carried_over(&self.parts.config, &offer);
        // What was changed by hand meanwhile counts, and so does what became of pods.
        let wanted = self.with_pods(overrides.apply(&offer, (reader.now)()));
        let captured = self.captured_by(&offer, &wanted)?;
        let wanted = self.without_missing(wanted, &prepared);
        let before = std::mem::replace(&mut self.parts.config, offer);
        let captured_before = self.parts.captured.load();
        self.parts.captured.store(captured);
        if let Err(error) = self.enforce(wanted, prepared) {
            self.parts.config = before;
            self.parts.captured.store((*captured_before).clone());
            return Err(error);
        }
        self.overrides = overrides;
        self.watch_pods();
        self.parts.status.reloaded(ReloadResult::Applied, (reader.now)());
        let changed = changed(&before, &self.parts.config);
        let (before, after) = (names(&before), self.names());
        self.parts.audit.reloaded(&who, &before, &after, &changed);
        info!(experiments = after.len(), ?changed, "The configuration was loaded again.");
        Ok(())
    }

    /// Lets experiments wait of which a target is neither running nor prepared.
    fn without_missing(&self, mut wanted: Vec<Wanted>, prepared: &Prepared) -> Vec<Wanted> {
        let missing = self.parts.experiments.missing(&wanted);
        let is_missing = |wanted: &Wanted| {
            let of =
                |(experiment, _): &&(ExperimentConfig, TargetConfig)| experiment.name == wanted.config.name;
            missing.iter().filter(of).any(|(experiment, target)| !prepared.has(&experiment.name, target))
        };
        for wanted in &mut wanted {
            if is_missing(wanted) {
                wanted.activity = Activity::Expired;
            }
        }
        wanted
    }

    fn reject(&mut self, who: Who, error: &SteerError) {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(error) = source {
            text = format!("{text}: {error}");
            source = error.source();
        }
        error!(error = text, "The configuration is not loaded; the one before it stays in force.");
        self.parts.status.reloaded(ReloadResult::Rejected, (self.parts.reader.now)());
        self.parts.audit.reload_failed(&who, &text);
    }
}

pub(super) fn names(config: &Config) -> Vec<String> {
    config.experiments.iter().map(|experiment| experiment.name.clone()).collect()
}

/// Names of the experiments that both have and that differ.
fn changed(before: &Config, after: &Config) -> Vec<String> {
    let differs = |new: &&ExperimentConfig| {
        let old = before.experiments.iter().find(|old| old.name == new.name);
        old.is_some_and(|old| old != *new)
    };
    after.experiments.iter().filter(differs).map(|experiment| experiment.name.clone()).collect()
}
