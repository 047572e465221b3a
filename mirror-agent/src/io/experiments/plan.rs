//! Enters: what runs, and what is to run. Leaves: which of it is the same.

use crate::io::config::{ExperimentConfig, TargetConfig};

/// An experiment as it is to run.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    /// What it is.
    pub config: ExperimentConfig,
    /// Whether it takes requests.
    pub activity: Activity,
}

/// Whether an experiment takes requests.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Activity {
    /// It does.
    Active,
    /// Not for the time being. Its targets keep what they have.
    Paused,
    /// Not any more: it has no targets.
    Expired,
}

impl Wanted {
    /// The targets that are to run.
    #[must_use]
    pub fn targets(&self) -> &[TargetConfig] {
        if self.activity == Activity::Expired { &[] } else { &self.config.targets }
    }
}

/// What becomes of one experiment.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Step {
    /// Its place among those that run, where it is one of them.
    pub(super) kept: Option<usize>,
    /// For each of its targets, the place among those of the same experiment that run; `None` for one to be started.
    pub(super) targets: Vec<Option<usize>>,
}

/// Compares. An experiment is known by its name; a target is the same where nothing of it differs, and is replaced where
/// anything does. What is not named by any step stops.
pub(super) fn plan(running: &[Wanted], wanted: &[Wanted]) -> Vec<Step> {
    let step = |wanted: &Wanted| {
        let kept = running.iter().position(|running| running.config.name == wanted.config.name);
        let known = kept.and_then(|kept| running.get(kept)).map(Wanted::targets).unwrap_or_default();
        let place = |target| known.iter().position(|known| known == target);
        Step { kept, targets: wanted.targets().iter().map(place).collect() }
    };
    wanted.iter().map(step).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::{Duration, SystemTime};

    use clap::Parser as _;

    use super::*;
    use crate::{
        io::{
            cli::{Cli, Command},
            config::{Config, Expiry, MatchConfig},
        },
        pipeline::policy::{Methods, Share},
    };

    /// The configuration of `run` with these experiments, each with targets named by their URLs.
    pub(in crate::io) fn config(experiments: &[(&str, &[&str])]) -> Config {
        let flags = ["mirror-agent", "run", "-i", "lo", "-p", "80", "--shadow", "http://192.0.2.1"];
        let Command::Run(args) = Cli::try_parse_from(flags).unwrap().command else { panic!("not run") };
        let mut config = Config::from_args(&args).unwrap();
        let pattern = config.experiments.remove(0);
        config.experiments = experiments
            .iter()
            .map(|(name, urls)| {
                let target = |url: &&str| TargetConfig {
                    name: (*url).to_owned(),
                    url: url.parse().unwrap(),
                    ..pattern.targets[0].clone()
                };
                let targets = urls.iter().map(target).collect();
                ExperimentConfig { name: (*name).to_owned(), targets, ..pattern.clone() }
            })
            .collect();
        config
    }

    /// The experiments of [`config`], all active.
    pub(in crate::io) fn wanted(experiments: &[(&str, &[&str])]) -> Vec<Wanted> {
        let active = |config| Wanted { config, activity: Activity::Active };
        config(experiments).experiments.into_iter().map(active).collect()
    }

    const A: &str = "http://192.0.2.1";
    const B: &str = "http://192.0.2.2";

    fn step(kept: Option<usize>, targets: &[Option<usize>]) -> Step {
        Step { kept, targets: targets.to_vec() }
    }

    #[test]
    fn nothing_changes_where_all_is_the_same_in_another_order() {
        let running = wanted(&[("x", &[A, B]), ("y", &[A])]);
        let turned = wanted(&[("y", &[A]), ("x", &[B, A])]);
        let same = [step(Some(1), &[Some(0)]), step(Some(0), &[Some(1), Some(0)])];
        assert_eq!(plan(&running, &turned), same);
    }

    #[test]
    fn a_change_of_policy_keeps_the_targets() {
        let running = wanted(&[("x", &[A])]);
        let change = |change: fn(&mut ExperimentConfig)| {
            let mut wanted = running.clone();
            change(&mut wanted[0].config);
            plan(&running, &wanted)
        };
        let kept = [step(Some(0), &[Some(0)])];
        assert_eq!(change(|x| x.sample.share = Share::from_percent(1.0).unwrap()), kept);
        assert_eq!(change(|x| x.matches = vec![MatchConfig::of_methods(Methods::All)]), kept);
        assert_eq!(change(|x| x.excludes = vec![MatchConfig::of_methods(Methods::All)]), kept);
        assert_eq!(change(|x| x.owner = Some("me".to_owned())), kept);
        assert_eq!(change(|x| x.ports = vec![81]), kept);
        let later = |x: &mut ExperimentConfig| {
            x.expires = Expiry::At(SystemTime::UNIX_EPOCH + Duration::from_secs(1))
        };
        assert_eq!(change(later), kept);
    }

    #[test]
    fn a_target_that_differs_is_replaced_and_its_neighbour_is_not() {
        let running = wanted(&[("x", &[A, B])]);
        let mut changed = running.clone();
        changed[0].config.targets[0].limits.max_in_flight += 1;
        assert_eq!(plan(&running, &changed), [step(Some(0), &[None, Some(1)])]);
    }

    #[test]
    fn an_equal_target_of_another_experiment_is_another_target() {
        let running = wanted(&[("x", &[A])]);
        assert_eq!(plan(&running, &wanted(&[("y", &[A])])), [step(None, &[None])]);
        assert_eq!(plan(&running, &[]), []);
    }

    #[test]
    fn a_paused_experiment_keeps_its_targets_and_an_expired_one_does_not() {
        let running = wanted(&[("x", &[A])]);
        let with = |activity| vec![Wanted { activity, ..running[0].clone() }];
        assert_eq!(plan(&running, &with(Activity::Paused)), [step(Some(0), &[Some(0)])]);
        assert_eq!(plan(&running, &with(Activity::Expired)), [step(Some(0), &[])]);
        assert_eq!(plan(&with(Activity::Expired), &running), [step(Some(0), &[None])]);
    }
}
