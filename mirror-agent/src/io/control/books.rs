//! Enters: nothing. Leaves: the shape of the books with all their reasons, as JSON.

use std::collections::BTreeMap;

use serde::Serialize;

/// How often each reason occurred; reasons that did not are left out.
pub type Counts = BTreeMap<&'static str, u64>;

/// From packets to comparisons: what was taken, and why the rest was not.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Books {
    /// What the kernel program saw.
    pub frames: FrameBooks,
    /// Connections that were left out, by reason.
    pub flows_skipped: Counts,
    /// The requests.
    pub requests: RequestBooks,
    /// The copies, an entry for each target of each experiment.
    pub copies: Vec<CopyBooks>,
    /// What was compared, an entry for each experiment that compares.
    pub comparisons: Vec<ComparisonBooks>,
}

/// Packets of matched ports with payload.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FrameBooks {
    /// Taken.
    pub copied: u64,
    /// Not taken in full, by reason.
    pub dropped: Counts,
}

/// Requests: `seen = pending + mirrored + skipped + dropped + lost`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RequestBooks {
    /// Begun.
    pub seen: u64,
    /// None of the following yet.
    pub pending: u64,
    /// Sent to at least one target.
    pub mirrored: u64,
    /// Deliberately not sent, by reason.
    pub skipped: Counts,
    /// Could not be sent, by reason.
    pub dropped: Counts,
    /// Damaged or incomplete, by reason.
    pub lost: Counts,
}

/// Copies for one target: `copies = pending + mirrored + skipped + dropped`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CopyBooks {
    /// Name of the experiment.
    pub experiment: String,
    /// Name of the target.
    pub target: String,
    /// Whether it is a second copy of the live version.
    pub is_control: bool,
    /// To be made, and those left aside.
    pub copies: u64,
    /// None of the following yet.
    pub pending: u64,
    /// All bytes accepted by a socket of the target.
    pub mirrored: u64,
    /// Deliberately not made, by reason.
    pub skipped: Counts,
    /// Could not be made, by reason.
    pub dropped: Counts,
    /// How attempts ended.
    pub replays: Counts,
}

/// Exchanges of one experiment, each once for each new version.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ComparisonBooks {
    /// Name of the experiment.
    pub experiment: String,
    /// By what came of them.
    pub results: Counts,
    /// Those that could not be compared, by reason.
    pub incomparable: Counts,
}
