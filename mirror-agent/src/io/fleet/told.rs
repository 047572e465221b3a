//! Enters: what another agent has sent. Leaves: what it says of itself, checked, or why that is not believed.

use std::{env, fs};

use serde::{Deserialize, Serialize};

use super::view::{Problem, Trouble};
use crate::{
    io::{
        capture::FRAME_DROPS,
        control::{Counted, ExperimentState, State},
        ledger::{DropReason, ReplayOutcome},
        random::random,
        telling::ExperimentPortion,
    },
    pipeline::reason::{ComparisonResult, FlowSkipReason, IncomparableReason, LostReason, SkipReason},
};

/// Number of the shape of what agents tell each other. It is another one whenever a key, a label or the meaning of a
/// figure changes: of agents that tell it otherwise is said so, and nothing of theirs is added up.
pub(super) const FORMAT: u64 = 2;

/// Longest name of a node, a pod or a version, in bytes (RFC 1123 allows names of 253).
const MAX_NAME_BYTES: usize = 253;

/// Most experiments and targets of each that an agent may tell of; a configuration has no more.
const MAX_EXPERIMENTS: usize = 256;

/// What an agent says of itself, for others to be added up: counts, sketches, names of what differs, no samples.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Told {
    /// Number of this shape.
    pub format: u64,
    /// Who says it.
    pub agent: Identity,
    /// How things are.
    pub state: State,
    /// What it knows of the experiments that compare.
    pub compared: Vec<ExperimentPortion>,
}

/// Who an agent is.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Identity {
    /// Of this run alone: 16 hexadecimal digits.
    pub instance: String,
    /// The node: `NODE_NAME` of the environment, or the host's name.
    pub node: String,
    /// The pod: `POD_NAME` of the environment.
    pub pod: Option<String>,
    /// Version of the program.
    pub version: String,
}

impl Identity {
    /// This agent's.
    #[must_use]
    pub fn own() -> Self {
        let named = |key| env::var(key).ok().filter(|name| is_name(name));
        let host = || fs::read_to_string("/proc/sys/kernel/hostname").ok().map(|name| name.trim().to_owned());
        Self {
            instance: format!("{:016x}", random()),
            node: named("NODE_NAME").or_else(|| host().filter(|name| is_name(name))).unwrap_or_default(),
            pod: named("POD_NAME"),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    fn is_plausible(&self) -> bool {
        let Self { instance, node, pod, version } = self;
        instance.len() == 16
            && instance.bytes().all(|byte| byte.is_ascii_hexdigit())
            && [Some(node), pod.as_ref(), Some(version)].into_iter().flatten().all(|name| is_name(name))
    }
}

/// What nodes, pods, versions and experiments are called, or nothing.
fn is_name(text: &str) -> bool {
    text.len() <= MAX_NAME_BYTES
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'+'))
}

/// What another agent sent, understood. Nothing of what it says reaches the problem but numbers.
pub(super) fn understand(body: &[u8]) -> Result<Told, Trouble> {
    #[derive(Deserialize)]
    struct Shape {
        format: u64,
    }
    let garbled = |error: serde_json::Error| {
        Trouble::with(Problem::Garbled, format!("not understood at byte {} of its answer", error.column()))
    };
    let Shape { format } = serde_json::from_slice(body).map_err(garbled)?;
    if format != FORMAT {
        return Err(Trouble::with(
            Problem::OtherFormat,
            format!("it tells format {format}, here it is {FORMAT}"),
        ));
    }
    let told: Told = serde_json::from_slice(body).map_err(garbled)?;
    if told.is_plausible() {
        Ok(told)
    } else {
        Err(Trouble::with(Problem::Garbled, "it says what no agent would say".to_owned()))
    }
}

impl Told {
    fn is_plausible(&self) -> bool {
        let Self { agent, state, compared, .. } = self;
        let reasons = &state.capture.requests.reasons;
        agent.is_plausible()
            && has_labels(&state.capture.frames_dropped_by, &FRAME_DROPS.map(|(reason, _)| reason))
            && has_labels(&state.capture.flows_skipped, &FlowSkipReason::LABELS)
            && has_labels(&reasons.skipped, &SkipReason::LABELS)
            && has_labels(&reasons.dropped, &DropReason::LABELS)
            && has_labels(&reasons.lost, &LostReason::LABELS)
            && state.experiments.len() <= MAX_EXPERIMENTS
            && compared.len() <= MAX_EXPERIMENTS
            && state.experiments.iter().all(is_plausible)
            && compared.iter().all(|experiment| {
                is_name(&experiment.name)
                    && experiment.targets.len() <= MAX_EXPERIMENTS
                    && experiment.targets.iter().all(|target| is_name(&target.target))
            })
    }
}

fn is_plausible(experiment: &ExperimentState) -> bool {
    is_name(&experiment.name)
        && has_labels(&experiment.comparisons, &ComparisonResult::LABELS)
        && has_labels(&experiment.incomparable, &IncomparableReason::LABELS)
        && experiment.targets.len() <= MAX_EXPERIMENTS
        && experiment.targets.iter().all(|target| {
            let reasons = &target.copies.reasons;
            is_name(&target.name)
                && has_labels(&target.replays, &ReplayOutcome::LABELS)
                && has_labels(&reasons.skipped, &SkipReason::LABELS)
                && has_labels(&reasons.dropped, &DropReason::LABELS)
                && reasons.lost.is_empty()
        })
}

fn has_labels(counts: &Counted, labels: &[&str]) -> bool {
    counts.keys().all(|label| labels.contains(&label.as_str()))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn told() -> Value {
        let told = Told {
            format: FORMAT,
            agent: Identity { pod: Some("mirror-agent-x".to_owned()), ..Identity::own() },
            state: State::default(),
            compared: Vec::new(),
        };
        serde_json::to_value(told).unwrap()
    }

    fn problem(value: &Value) -> Option<Problem> {
        understand(value.to_string().as_bytes()).err().map(|trouble| trouble.problem)
    }

    #[test]
    fn what_an_agent_says_is_understood() {
        assert_eq!(problem(&told()), None);
        assert_eq!(Identity::own().version, env!("CARGO_PKG_VERSION"));
        assert_ne!(Identity::own().instance, Identity::own().instance);
    }

    #[test]
    fn another_format_is_named_whatever_else_is_there() {
        assert_eq!(problem(&json!({ "format": FORMAT + 1, "all": "else" })), Some(Problem::OtherFormat));
    }

    #[test]
    fn what_no_agent_says_is_not_believed() {
        for (at, value) in [
            ("/agent/instance", json!("g".repeat(16))),
            ("/agent/instance", json!("0123")),
            ("/agent/node", json!("\u{1b}[2J")),
            ("/agent/pod", json!("a".repeat(254))),
            ("/state/capture/requests/reasons/skipped", json!({ "\u{1b}]0;x": 1 })),
            ("/state/capture/requests/seen", json!(-1)),
            ("/state/capture/framesDroppedBy", json!({ "<script>": 1 })),
            ("/state/capture/flowsSkipped", json!({ "\u{202e}": 1 })),
            ("/state/experiments", json!([{}])),
            ("/compared", json!([{ "name": "a b", "rules": 1, "targets": [] }])),
            ("/compared", json!("all")),
            ("/agent", json!({ "instance": "0123456789abcdef", "more": 1 })),
        ] {
            let mut wrong = told();
            *wrong.pointer_mut(at).unwrap_or_else(|| panic!("{at}")) = value;
            assert_eq!(problem(&wrong), Some(Problem::Garbled), "{at}");
        }
        for text in ["", "null", "[", "{\"format\":2}", &"[".repeat(100_000)] {
            assert_eq!(understand(text.as_bytes()).unwrap_err().problem, Problem::Garbled, "{:.20}", text);
        }
    }
}
