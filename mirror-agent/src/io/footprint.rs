//! Enters: a configuration. Leaves: how much memory an agent may take that runs it, and for what.
//!
//! It is what a container's memory limit has to hold. What is bounded in bytes is counted with its bound; what is bounded
//! by number, with what each was measured to take.

use std::fmt;

use crate::{
    io::{
        compare::{ANSWER_BYTES, STORE_BYTES},
        config::{ComparisonConfig, Config, ExperimentConfig, TargetConfig, TargetRole},
        sinks::SINK_BYTES,
    },
    pipeline::Limits,
};

/// The program as it stands after the start, with the buffers of its log, and the kernel's tables.
const PROGRAM_BYTES: u64 = 16 << 20;

/// Head of a copy that is being written, and that of its answer in a buffer that may be twice as large.
const HEADS_OF_A_COPY: u64 = 3;

/// Both directions of a TLS connection.
const TLS_BYTES: u64 = 128 << 10;

/// What is learned of an endpoint at which thirty places differ, as measured; at the two hundred that are told apart it
/// is six times as much.
const ENDPOINT_BYTES: u64 = 128 << 10;

/// What two answers take while they are compared, in multiples of the content of one: JSON of very short values is
/// worst.
const COMPARED_TIMES: u64 = 64;

/// Why memory is taken.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Use {
    /// Flows, reassembly, bodies, waiting copies.
    Capture,
    /// Rings between kernel and agent, which are charged to the agent's control group.
    Rings,
    /// Heads of copies and of their answers.
    Heads,
    /// TLS connections to targets.
    Tls,
    /// Answers that wait for each other.
    Answers,
    /// Two answers that are being compared.
    Comparing,
    /// What is learned of endpoints.
    Learned,
    /// Samples of divergences.
    Evidence,
    /// Records that wait for sinks.
    Sinks,
    /// Values of sessions.
    Sessions,
    /// The program and the kernel's tables.
    Program,
}

impl Use {
    /// What it is reckoned from.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Capture => "capture.memoryLimit",
            Self::Rings => "rings: capture.threads x capture.ringSize",
            Self::Heads => "heads: maxInFlight of all targets x 192 KiB",
            Self::Tls => "TLS: maxInFlight of https targets x 128 KiB",
            Self::Answers => "answers that wait, where any are read",
            Self::Comparing => "two answers being compared: largest compare.maxBody x 64",
            Self::Learned => "endpoints: compare.maxEndpoints x 128 KiB a shadow",
            Self::Evidence => "compare.evidence.memory a shadow",
            Self::Sinks => "sinks x 16 MiB",
            Self::Sessions => "entries of sessions x 32 MiB",
            Self::Program => "the program and the kernel's tables",
        }
    }
}

/// How much memory an agent may take.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Footprint(Vec<(Use, u64)>);

impl Footprint {
    /// That of an agent that runs `config`, with all experiments active.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        let capture = &config.capture;
        let head_bytes = count(Limits::default().head_bytes);
        let in_flight = |is_counted: fn(&TargetConfig) -> bool| -> u64 {
            targets(config)
                .filter(|target| is_counted(target))
                .map(|target| count(target.limits.max_in_flight))
                .sum()
        };
        let compared = || config.experiments.iter().filter_map(|experiment| experiment.compare.as_ref());
        let reads_answers = config.experiments.iter().any(ExperimentConfig::reads_answers);
        let largest = compared().map(|compare| count(compare.rules.content_bytes)).max().unwrap_or(0);
        let of_shadows = |bytes: fn(&ComparisonConfig) -> u64| -> u64 {
            let experiments = config.experiments.iter();
            experiments
                .filter_map(|experiment| {
                    Some(bytes(experiment.compare.as_ref()?).saturating_mul(shadows(experiment)))
                })
                .fold(0, u64::saturating_add)
        };
        let sinks: usize = compared().map(|compare| compare.sinks.len()).sum();
        let sessions: usize = targets(config).map(|target| target.sessions.len()).sum();
        let uses = vec![
            (Use::Capture, capture.memory),
            (Use::Rings, count(capture.threads).saturating_mul(capture.ring_size)),
            (Use::Heads, in_flight(|_| true).saturating_mul(HEADS_OF_A_COPY * head_bytes)),
            (Use::Tls, in_flight(|target| target.url.is_tls()).saturating_mul(TLS_BYTES)),
            (Use::Answers, if reads_answers { count(ANSWER_BYTES) } else { 0 }),
            (Use::Comparing, largest.saturating_mul(COMPARED_TIMES)),
            (
                Use::Learned,
                of_shadows(|compare| count(compare.judge.max_endpoints).saturating_mul(ENDPOINT_BYTES)),
            ),
            (Use::Evidence, of_shadows(|compare| compare.evidence.bytes)),
            (Use::Sinks, count(sinks).saturating_mul(count(SINK_BYTES))),
            (Use::Sessions, count(sessions).saturating_mul(count(STORE_BYTES))),
            (Use::Program, PROGRAM_BYTES),
        ];
        Self(uses.into_iter().filter(|(_, bytes)| *bytes > 0).collect())
    }

    /// All of it, in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.0.iter().fold(0, |sum, (_, bytes)| sum.saturating_add(*bytes))
    }
}

impl fmt::Display for Footprint {
    /// A line for the sum, and one for each use.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "memory   {} MiB at most", mebibytes(self.bytes()))?;
        for (purpose, bytes) in &self.0 {
            writeln!(f, "         {:>5} MiB  {}", mebibytes(*bytes), purpose.as_str())?;
        }
        Ok(())
    }
}

/// Rounded up.
const fn mebibytes(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}

fn targets(config: &Config) -> impl Iterator<Item = &TargetConfig> {
    config.experiments.iter().flat_map(|experiment| &experiment.targets)
}

/// How many targets of an experiment are judged.
fn shadows(experiment: &ExperimentConfig) -> u64 {
    let shadows = experiment.targets.iter().filter(|target| target.role == TargetRole::Shadow);
    count(shadows.count())
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::config;

    const BASE: &str = include_str!("../../../deploy/kubernetes/base/daemonset.yaml");
    const SIZING: &str = include_str!("../../../docs/sizing.md");

    /// Each configuration in `deploy`, and the manifest that says how much memory its agents may take.
    const DEPLOYED: [(&str, &str, &str); 6] = [
        ("minimal", include_str!("../../../deploy/kubernetes/overlays/minimal/config.yaml"), BASE),
        (
            "compare",
            include_str!("../../../deploy/kubernetes/overlays/compare/config.yaml"),
            include_str!("../../../deploy/kubernetes/overlays/compare/memory.yaml"),
        ),
        (
            "fleet",
            include_str!("../../../deploy/kubernetes/overlays/fleet/config.yaml"),
            include_str!("../../../deploy/kubernetes/overlays/fleet/memory.yaml"),
        ),
        ("pods", include_str!("../../../deploy/kubernetes/overlays/pods/config.yaml"), BASE),
        (
            "development",
            include_str!("../../../deploy/kubernetes/overlays/development/config.yaml"),
            include_str!("../../../deploy/kubernetes/overlays/development/development.yaml"),
        ),
        (
            "helm",
            include_str!("../../../deploy/kubernetes/overlays/minimal/config.yaml"),
            include_str!("../../../deploy/helm/mirror/values.yaml"),
        ),
    ];

    fn footprint(text: &str) -> Footprint {
        Footprint::of(&config::parse(text, "config.yaml", None).unwrap())
    }

    /// The memory limit of a manifest, in MiB.
    fn limit(manifest: &str) -> u64 {
        let (_, limits) = manifest.split_once("limits:").unwrap();
        let (_, memory) = limits.split_once("memory: ").unwrap();
        memory.split_once("Mi").unwrap().0.parse().unwrap()
    }

    #[test]
    fn memory_limits_in_deploy_hold_what_their_configurations_may_take_and_little_more() {
        for (name, config, manifest) in DEPLOYED {
            let footprint = footprint(config);
            let (needed, limit) = (mebibytes(footprint.bytes()), limit(manifest));
            assert!(limit >= needed && limit < needed + 32, "{name}: {limit} MiB for\n{footprint}");
        }
    }

    #[test]
    fn every_part_that_is_configured_is_counted() {
        let before = footprint(&file("", "", "", "")).bytes();
        let sum = |footprint: &Footprint, wanted: Use| -> u64 {
            footprint.0.iter().filter(|(found, _)| *found == wanted).map(|(_, bytes)| bytes >> 20).sum()
        };
        let all = footprint(&file(
            "threads: 2, ringSize: 32Mi, ",
            "s",
            ", sessions: [{ from: { cookie: a }, into: [{ cookie: a }] }]",
            "compare: { maxBody: 2Mi, maxEndpoints: 400, evidence: { memory: 8Mi } }, sinks: [{ name: f, file: { path: /f } }], ",
        ));
        let expected = [
            (Use::Capture, 256),
            (Use::Rings, 64),
            (Use::Heads, 48),
            (Use::Tls, 32),
            (Use::Answers, 64),
            (Use::Comparing, 128),
            (Use::Learned, 50),
            (Use::Evidence, 8),
            (Use::Sinks, 16),
            (Use::Sessions, 32),
            (Use::Program, 16),
        ];
        for (purpose, mebibytes) in expected {
            assert_eq!(sum(&all, purpose), mebibytes, "{}", purpose.as_str());
        }
        assert_eq!(before >> 20, 256 + 16 + 48 + 16);
        assert_eq!(all.bytes() >> 20, expected.iter().map(|(_, mebibytes)| mebibytes).sum::<u64>());
    }

    /// A configuration of one target.
    fn file(capture: &str, tls: &str, target: &str, experiment: &str) -> String {
        format!(
            "capture: {{ {capture}interfaces: [eth0] }}\n\
             experiments: [{{ name: e, expires: never, ports: [80], {experiment}\
             targets: [{{ name: t, url: \"http{tls}://s\"{target} }}] }}]\n"
        )
    }

    #[test]
    fn page_on_sizing_names_every_use() {
        for purpose in footprint(&file("", "s", "", "compare: {}, ")).0.iter().map(|(purpose, _)| purpose) {
            assert!(SIZING.contains(purpose.as_str()), "{} is not in docs/sizing.md", purpose.as_str());
        }
    }
}
