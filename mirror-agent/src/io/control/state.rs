//! Enters: nothing. Leaves: the shape of what the agent says of itself, which is also its JSON.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    io::{config::Expiry, replay::BreakerState},
    pipeline::reason::{VerdictState, reasons},
};

reasons! {
    /// What of an experiment can be changed by hand.
    ChangedKey {
        /// When it ends.
        Expires => "expires",
        /// Whether it is paused, by itself.
        Paused => "paused",
        /// The share of requests that it takes.
        Percent => "percent",
    }
}

/// Counts by label; what never happened is left out.
pub type Counted = BTreeMap<String, u64>;

/// How things are.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// Version of the agent.
    pub version: String,
    /// Seconds since it began to mirror.
    pub uptime_seconds: f64,
    /// Whether all is paused.
    pub paused: bool,
    /// What is captured.
    pub capture: CaptureState,
    /// The experiments, in the order of the configuration.
    pub experiments: Vec<ExperimentState>,
}

/// What is captured.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CaptureState {
    /// Interfaces with programs attached.
    pub interfaces: u64,
    /// The share of new connections that the guard of the node leaves to be captured, in percent: 100 where it sheds
    /// nothing; `None` where it is off.
    pub guard_percent: Option<f64>,
    /// Frames of which a record was made.
    #[serde(default)]
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

/// The books of the requests: `seen = pending + mirrored + skipped + dropped + lost`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RequestState {
    /// Begun.
    pub seen: u64,
    /// None of the following yet.
    pub pending: u64,
    /// Sent to at least one target.
    pub mirrored: u64,
    /// Deliberately not sent.
    pub skipped: u64,
    /// Could not be sent.
    pub dropped: u64,
    /// Damaged or incomplete.
    pub lost: u64,
    /// The last three by reason.
    #[serde(default)]
    pub reasons: Reasons,
}

/// Why requests, or copies of them, were not sent.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Reasons {
    /// Deliberately.
    #[serde(default)]
    pub skipped: Counted,
    /// They could not be.
    #[serde(default)]
    pub dropped: Counted,
    /// Damaged or incomplete; never of copies.
    #[serde(default)]
    pub lost: Counted,
}

/// One experiment.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ExperimentState {
    /// Its name.
    pub name: String,
    /// Who answers for it.
    pub owner: Option<String>,
    /// When it ends by itself: RFC 3339, or `never`.
    #[serde(with = "super::time::expiry")]
    pub expires: Expiry,
    /// Whether it has ended by itself.
    pub expired: bool,
    /// The share of requests that it takes, in percent.
    pub percent: f64,
    /// Whether it is paused, by itself or with all.
    pub paused: bool,
    /// What of these was changed by hand, so that it is not as the configuration has it and ends with the agent.
    #[serde(default)]
    pub changed: Vec<ChangedKey>,
    /// Its targets.
    pub targets: Vec<TargetState>,
    /// Its exchanges by what came of comparing them; none where they are not compared.
    #[serde(default)]
    pub comparisons: Counted,
    /// Those of them that could not be compared, by reason.
    #[serde(default)]
    pub incomparable: Counted,
    /// Its verdict; `None` where none is asked for.
    #[serde(default)]
    pub verdict: Option<VerdictState>,
}

/// One target.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TargetState {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub url: String,
    /// Whether it is a second copy of the live version.
    #[serde(default)]
    pub is_control: bool,
    /// The books of its copies.
    pub copies: CopyState,
    /// Copies that wait for a connection.
    pub queued: u64,
    /// Copies being written or waiting for their response.
    pub in_flight: u64,
    /// Its circuit breaker; `None` where it has none.
    pub breaker: Option<BreakerState>,
    /// Its interlock; `None` where it has none.
    pub interlock: Option<InterlockState>,
    /// Attempts to replay by how they ended.
    #[serde(default)]
    pub replays: Counted,
}

/// The books of the copies for one target: `copies = pending + mirrored + skipped + dropped`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CopyState {
    /// To be made, and those left aside.
    pub copies: u64,
    /// None of the following yet.
    pub pending: u64,
    /// All bytes accepted by a socket of the target.
    pub mirrored: u64,
    /// Deliberately not made.
    pub skipped: u64,
    /// Could not be made.
    pub dropped: u64,
    /// The last two by reason.
    #[serde(default)]
    pub reasons: Reasons,
}

/// State of an interlock.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum InterlockState {
    /// The target has proven that it is a shadow: copies of unsafe methods flow.
    Proven,
    /// It has not, or no longer.
    Unproven,
}

impl InterlockState {
    /// As in audit records and in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Proven => "proven",
            Self::Unproven => "unproven",
        }
    }
}
