//! Enters: the bytes of a configuration file. Leaves: a panic where a file that is taken is not whole, or one that is
//! not is refused without saying where.

use mirror_agent::io::config::{
    ComparisonConfig, Config, Interlock, KafkaTopics, SinkPlace, TargetConfig, TargetRole, parse,
};

/// Most experiments of a configuration.
const MAX_EXPERIMENTS: usize = 128;

/// Whatever is in a file, it is either a configuration that fits together or a list of errors, each with its line.
pub(crate) fn run(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let lines = u64::try_from(text.lines().count()).unwrap_or(u64::MAX);
    match parse(&text, "fuzz", None) {
        Ok(config) => check(&config),
        Err(faults) => {
            assert!(!faults.list().is_empty(), "refused without a reason");
            for fault in faults.list() {
                assert!(!fault.message().is_empty() && !fault.message().contains('\n'), "{fault:?}");
                assert!(fault.path().is_empty() || fault.line() >= 1, "{fault:?} is nowhere");
                // Other characters than line feeds end lines for YAML, too.
                assert!(fault.line() <= lines + bytes.len() as u64 + 1, "{fault:?} is past the end");
            }
            assert!(!faults.to_string().contains('\0'), "{faults}");
        }
    }
}

fn check(config: &Config) {
    assert!(config.misfits().is_empty());
    assert!((1..=MAX_EXPERIMENTS).contains(&config.experiments.len()));
    assert!(!config.capture.interfaces.is_empty() && !config.ports().is_empty() && config.agents >= 1);
    for experiment in &config.experiments {
        assert!(!experiment.targets.is_empty() && !experiment.matches.is_empty());
        let is_unsafe = experiment.matches.iter().any(|entry| !entry.methods.are_safe());
        let is_shadow = |target: &&TargetConfig| target.role == TargetRole::Shadow;
        assert!(experiment.targets.iter().any(|target| is_shadow(&target)), "nothing but a control");
        let controls = experiment.targets.iter().filter(|target| !is_shadow(target)).count();
        assert!(
            controls <= usize::from(experiment.compare.is_some()),
            "a control that nothing is compared with"
        );
        if let Some(compare) = &experiment.compare {
            check_comparison(compare);
        }
        for target in &experiment.targets {
            for session in &target.sessions {
                assert!(!session.into.is_empty() && session.max > 0, "{session:?}");
            }
            assert!(!is_unsafe || target.interlock != Interlock::Unsaid, "a write without consent");
            let lines = target.headers.set.iter().chain(&target.headers.add);
            for (name, value) in lines {
                assert!(!name.is_empty() && !name.contains([':', ' ', '\r', '\n', '\0']), "{name:?}");
                assert!(!value.contains(['\r', '\n', '\0']), "{value:?}");
            }
        }
    }
}

fn check_comparison(compare: &ComparisonConfig) {
    assert!(compare.evidence.clusters > 0 && compare.evidence.samples > 0);
    let mut names: Vec<_> = compare.rules.rules.iter().map(|rule| &rule.name).collect();
    names.sort_unstable();
    assert!(names.windows(2).all(|pair| pair.first() != pair.last()), "two rules of one name: {names:?}");
    for share in [compare.judge.noise.relative, compare.judge.noise.absolute] {
        assert!((0.0..=1.0).contains(&share), "{share}");
    }
    if let Some(gate) = &compare.judge.gate {
        assert!(gate.divergence > 0.0 && gate.divergence <= 1.0, "{gate:?}");
        assert!(gate.errors > 0.0 && gate.errors <= 1.0 && gate.min_samples > 0, "{gate:?}");
        assert!(gate.p95.is_none_or(|factor| (0.1..=100.0).contains(&factor)), "{gate:?}");
    }
    let mut names: Vec<_> = compare.sinks.iter().map(|sink| &sink.name).collect();
    names.sort_unstable();
    assert!(names.windows(2).all(|pair| pair.first() != pair.last()), "two sinks of one name: {names:?}");
    for sink in &compare.sinks {
        if let SinkPlace::Kafka { brokers, topics } = &sink.to {
            let topic = match topics {
                KafkaTopics::Joined(topic) => topic,
                KafkaTopics::Apart { live, .. } => live,
            };
            assert!(!brokers.is_empty() && !topic.is_empty(), "{sink:?}");
        }
    }
}
