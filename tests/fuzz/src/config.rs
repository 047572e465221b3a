//! Enters: the bytes of a configuration file. Leaves: a panic where a file that is taken is not whole, or one that is
//! not is refused without saying where.

use mirror_agent::io::config::{Config, Interlock, parse};

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
        for target in &experiment.targets {
            assert!(!is_unsafe || target.interlock != Interlock::Unsaid, "a write without consent");
            let lines = target.headers.set.iter().chain(&target.headers.add);
            for (name, value) in lines {
                assert!(!name.is_empty() && !name.contains([':', ' ', '\r', '\n', '\0']), "{name:?}");
                assert!(!value.contains(['\r', '\n', '\0']), "{value:?}");
            }
        }
    }
}
