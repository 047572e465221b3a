//! Enters: the configuration, what was changed by hand since, and the time. Leaves: how each experiment is to run.
//!
//! What was changed by hand goes before what the file says, until the file itself says something else of that very key.
//! No key of the file says whether an experiment is paused, so that stays for as long as the file names it.

use std::{collections::BTreeMap, time::SystemTime};

use crate::{
    io::{
        config::{Config, ExperimentConfig, Expiry},
        control::ChangedKey,
        experiments::{Activity, Wanted},
    },
    pipeline::policy::Share,
};

/// What was changed by hand, by the name of the experiment.
#[derive(Clone, Debug, Default)]
pub(super) struct Overrides(BTreeMap<String, Override>);

/// What was changed by hand of one experiment.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Override {
    pub(super) share: Option<Share>,
    pub(super) expires: Option<Expiry>,
    pub(super) is_paused: bool,
    /// The expiry that has come. The clock may be set back: what has ended stays so until it is given another end.
    ended_at: Option<SystemTime>,
}

impl Overrides {
    /// How each experiment of `config` is to run at `now`.
    pub(super) fn apply(&mut self, config: &Config, now: SystemTime) -> Vec<Wanted> {
        config.experiments.iter().map(|experiment| self.apply_to(experiment, now)).collect()
    }

    fn apply_to(&mut self, experiment: &ExperimentConfig, now: SystemTime) -> Wanted {
        let mut config = experiment.clone();
        let by_hand = self.of(&config.name);
        if let Some(share) = by_hand.share {
            config.sample.share = share;
        }
        if let Some(expires) = by_hand.expires {
            config.expires = expires;
        }
        by_hand.ended_at = match config.expires {
            Expiry::At(end) if end <= now || by_hand.ended_at == Some(end) => Some(end),
            Expiry::At(_) | Expiry::Never => None,
        };
        let activity = if by_hand.ended_at.is_some() {
            Activity::Expired
        } else if by_hand.is_paused {
            Activity::Paused
        } else {
            Activity::Active
        };
        Wanted { config, activity }
    }

    /// What was changed of this experiment.
    pub(super) fn of(&mut self, name: &str) -> &mut Override {
        self.0.entry(name.to_owned()).or_default()
    }

    /// What is otherwise than `experiment` has it.
    pub(super) fn changed(&self, experiment: &ExperimentConfig) -> Vec<ChangedKey> {
        let Some(by_hand) = self.0.get(&experiment.name) else { return Vec::new() };
        let is_changed = |key: &ChangedKey| match key {
            ChangedKey::Expires => by_hand.expires.is_some_and(|expires| expires != experiment.expires),
            ChangedKey::Paused => by_hand.is_paused,
            ChangedKey::Percent => by_hand.share.is_some_and(|share| share != experiment.sample.share),
        };
        ChangedKey::ALL.into_iter().filter(is_changed).collect()
    }

    /// Goes on under another configuration: what the file says anew goes before what was said by hand.
    pub(super) fn carried_over(&self, from: &Config, to: &Config) -> Self {
        let find = |name: &str| from.experiments.iter().find(|experiment| experiment.name == name);
        let carry = |new: &ExperimentConfig| {
            let old = find(&new.name)?;
            let mut by_hand = *self.0.get(&new.name)?;
            if old.sample.share != new.sample.share {
                by_hand.share = None;
            }
            if old.expires != new.expires {
                by_hand.expires = None;
            }
            Some((new.name.clone(), by_hand))
        };
        Self(to.experiments.iter().filter_map(carry).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::io::experiments::config;

    fn at(secs: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(secs)
    }

    fn share(percent: f64) -> Share {
        Share::from_percent(percent).unwrap()
    }

    fn one(expires: Expiry) -> Config {
        let mut config = config(&[("x", &["http://192.0.2.1"])]);
        config.experiments[0].expires = expires;
        config
    }

    fn activity(overrides: &mut Overrides, config: &Config, now: u64) -> Activity {
        overrides.apply(config, at(now))[0].activity
    }

    #[test]
    fn an_experiment_ends_at_its_time_and_stays_ended_though_the_clock_is_set_back() {
        let (mut overrides, config) = (Overrides::default(), one(Expiry::At(at(100))));
        assert_eq!(activity(&mut overrides, &config, 99), Activity::Active);
        assert_eq!(activity(&mut overrides, &config, 100), Activity::Expired);
        assert_eq!(activity(&mut overrides, &config, 50), Activity::Expired);
        overrides.of("x").expires = Some(Expiry::At(at(200)));
        assert_eq!(activity(&mut overrides, &config, 150), Activity::Active);
        assert_eq!(activity(&mut overrides, &config, 100_000), Activity::Expired, "the clock jumps ahead");
        overrides.of("x").expires = Some(Expiry::Never);
        assert_eq!(activity(&mut overrides, &config, 100_000), Activity::Active);
    }

    #[test]
    fn an_experiment_that_was_paused_and_ends_has_ended() {
        let (mut overrides, config) = (Overrides::default(), one(Expiry::At(at(100))));
        overrides.of("x").is_paused = true;
        overrides.of("x").share = Some(config.experiments[0].sample.share);
        assert_eq!(overrides.changed(&config.experiments[0]), [ChangedKey::Paused], "the rest is as it was");
        assert_eq!(activity(&mut overrides, &config, 1), Activity::Paused);
        assert_eq!(activity(&mut overrides, &config, 100), Activity::Expired);
    }

    #[test]
    fn what_was_changed_by_hand_stays_until_the_file_changes_that_key() {
        let old = one(Expiry::At(at(100)));
        let mut overrides = Overrides::default();
        overrides.of("x").share = Some(share(5.0));
        overrides.of("x").expires = Some(Expiry::At(at(500)));
        overrides.of("x").is_paused = true;
        assert_eq!(overrides.changed(&old.experiments[0]), ChangedKey::ALL);
        let mut new = old.clone();
        new.experiments[0].owner = Some("somebody else".to_owned());
        let kept = overrides.carried_over(&old, &new).apply(&new, at(1));
        assert_eq!((kept[0].config.sample.share, kept[0].config.expires), (share(5.0), Expiry::At(at(500))));
        assert_eq!(kept[0].activity, Activity::Paused);
        new.experiments[0].sample.share = share(20.0);
        let percent = overrides.carried_over(&old, &new).apply(&new, at(1));
        let changed = overrides.carried_over(&old, &new).changed(&new.experiments[0]);
        assert_eq!(changed, [ChangedKey::Expires, ChangedKey::Paused]);
        let of = |wanted: &[Wanted]| (wanted[0].config.sample.share, wanted[0].config.expires);
        assert_eq!(of(&percent), (share(20.0), Expiry::At(at(500))));
        new.experiments[0].expires = Expiry::Never;
        assert_eq!(of(&overrides.carried_over(&old, &new).apply(&new, at(1))), (share(20.0), Expiry::Never));
    }

    #[test]
    fn what_was_changed_of_an_experiment_goes_with_it() {
        let (old, gone) = (one(Expiry::Never), config(&[("y", &["http://192.0.2.1"])]));
        let mut overrides = Overrides::default();
        overrides.of("x").is_paused = true;
        let mut later = overrides.carried_over(&old, &gone).carried_over(&gone, &old);
        assert_eq!(activity(&mut later, &old, 1), Activity::Active);
    }
}
