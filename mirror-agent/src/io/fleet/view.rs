//! Enters: nothing. Leaves: the shape of what is told of all agents together, which is also its JSON.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Identity;
use crate::{
    io::control::{CopyState, Counted, RequestState},
    pipeline::reason::{VerdictState, reasons},
};

reasons! {
    /// Why an agent is not among those that are added up.
    Problem {
        /// What it sent is not what an agent sends.
        Garbled => "garbled",
        /// There was no time left to ask it, or there are too many.
        NotAsked => "not_asked",
        /// It tells in another format: it is of another version.
        OtherFormat => "other_format",
        /// It did not let us in: its token is another.
        Refused => "refused",
        /// It did not answer in time.
        Timeout => "timeout",
        /// It sent more than may be.
        TooLarge => "too_large",
        /// No connection, or it broke.
        Unreachable => "unreachable",
        /// Its name has no address.
        Unresolved => "unresolved",
    }
}

reasons! {
    /// Why what an agent knows of an experiment is not added to what the others know.
    LeftOutReason {
        /// It compares or judges by something else: another configuration, or rules that were accepted there alone.
        OtherRules => "other_rules",
        /// All agents together would take too much memory.
        TooLarge => "too_large",
        /// The agent that was asked does not compare it.
        Unknown => "unknown",
    }
}

/// A problem with what is known of it, in words of this agent.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Trouble {
    /// Which.
    pub problem: Problem,
    /// What is known of it.
    pub text: String,
}

impl Trouble {
    pub(super) const fn with(problem: Problem, text: String) -> Self {
        Self { problem, text }
    }
}

/// All agents together.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct View {
    /// Number of the shape in which agents tell.
    pub format: u64,
    /// When they were asked, in RFC 3339.
    pub asked: String,
    /// Agents that are known of, those included whose names have no address.
    pub known: u64,
    /// Those of them that answered and were understood.
    pub answered: u64,
    /// Each of them, the one that was asked first.
    pub agents: Vec<AgentView>,
    /// Requests of all that answered.
    pub capture: CaptureSum,
    /// The experiments of all that answered.
    pub experiments: Vec<ExperimentView>,
}

/// One agent.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentView {
    /// Where it was asked; none for the one that asks, unless it asked itself too.
    pub addresses: Vec<String>,
    /// Who it is; `None` where it did not say.
    pub agent: Option<Identity>,
    /// Why it did not answer; `None` where it did.
    pub trouble: Option<Trouble>,
    /// How long it took to answer, in seconds.
    pub seconds: f64,
    /// Seconds since it began to mirror.
    pub uptime_seconds: f64,
    /// Whether all is paused there.
    pub paused: bool,
    /// The books of its requests, and its frames.
    pub capture: CaptureSum,
    /// Copies of all its targets that wait, and that are in flight.
    pub queued: u64,
    /// Copies being written or waiting for their response.
    pub in_flight: u64,
    /// The worst verdict that it has by itself; `None` where no experiment has a gate.
    pub verdict: Option<VerdictState>,
}

impl AgentView {
    /// Whether it answered and was understood.
    #[must_use]
    pub const fn has_answered(&self) -> bool {
        self.trouble.is_none()
    }
}

/// Counts of requests, frames and connections.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CaptureSum {
    /// Interfaces with programs attached.
    pub interfaces: u64,
    /// Frames of which a record was made.
    pub frames_captured: u64,
    /// Frames that were not copied in full.
    pub frames_dropped: u64,
    /// The same by reason.
    #[serde(default)]
    pub frames_dropped_by: Counted,
    /// Connections that were left out, by reason.
    #[serde(default)]
    pub flows_skipped: Counted,
    /// The books of the requests.
    pub requests: RequestState,
}

/// An experiment.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct ExperimentView {
    /// Its name.
    pub name: String,
    /// Who answers for it.
    pub owner: Option<String>,
    /// Agents that have it.
    pub agents: u64,
    /// Those of them in which it is paused.
    pub paused: u64,
    /// Agents of which comparisons are added up.
    pub compared_by: u64,
    /// Agents of which they are not, though they compare.
    pub left_out: Vec<LeftOut>,
    /// Exchanges by what came of comparing them, of all agents that answered.
    pub comparisons: Counted,
    /// Those of them that could not be compared, by reason.
    #[serde(default)]
    pub incomparable: Counted,
    /// Whether a verdict is asked for.
    pub has_gate: bool,
    /// Whether a second copy of the live version tells what is noise.
    pub has_control: bool,
    /// The verdict of the fleet: that of `judged`, but `not_enough_data` in place of `pass` where an agent is missing.
    pub state: Option<VerdictState>,
    /// The verdict of all exchanges that are added up.
    pub judged: Option<VerdictState>,
    /// Who is missing: each agent with why.
    pub missing: Vec<String>,
    /// Each target.
    pub targets: Vec<TargetView>,
    /// Nothing; rules are each agent's own.
    pub rules: Vec<Value>,
    /// Nothing, likewise.
    pub arrays: Vec<Value>,
}

/// What an agent knows of an experiment and is not added up.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct LeftOut {
    /// Which agent: its pod or node.
    pub agent: String,
    /// Why.
    pub reason: LeftOutReason,
}

/// A target.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct TargetView {
    /// Its name.
    pub target: String,
    /// Whether it is a second copy of the live version.
    #[serde(default)]
    pub is_control: bool,
    /// The books of its copies.
    pub copies: CopyState,
    /// Copies that wait for a connection.
    pub queued: u64,
    /// Copies being written or waiting for their response.
    pub in_flight: u64,
    /// Agents by the state of its circuit breaker.
    pub breakers: Counted,
    /// Agents by the state of its interlock.
    pub interlocks: Counted,
    /// Attempts to replay by how they ended.
    pub replays: Counted,
    /// How it compares, as in a report; nothing where it does not.
    #[serde(flatten)]
    pub summary: Option<Value>,
    /// Nothing; samples are each agent's own.
    pub kept: Vec<Value>,
}
