//! Enters: events of one pipeline. Leaves: counts since the last time somebody asked.

use crate::pipeline::{
    reason::{EvictReason, FlowSkipReason, LostReason, SkipReason},
    segment::Side,
};

/// What happened in a pipeline since the counts were last taken.
///
/// `seen` requests are settled here (skipped, lost) or leave the pipeline as a [`Request`](super::Request).
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Stats {
    /// Requests of which the first byte was taken as a message start.
    pub seen: u64,
    /// Requests deliberately not mirrored, by [`SkipReason`].
    pub skipped: [u64; SkipReason::ALL.len()],
    /// Damaged requests, by [`LostReason`].
    pub lost: [u64; LostReason::ALL.len()],
    /// Flows that are not parsed, by [`FlowSkipReason`].
    pub flows_skipped: [u64; FlowSkipReason::ALL.len()],
    /// Flows that left the table before they ended, by [`EvictReason`].
    pub flows_evicted: [u64; EvictReason::ALL.len()],
    /// Flows that were recognised at another interface under another key.
    pub flows_observed_twice: u64,
    /// What begins like a request and was not taken for one, since nothing says that it does not stand in a body.
    pub starts_doubted: u64,
    /// Bytes that the capture never saw though the receiver did, by [`Side`].
    pub gap_bytes: [u64; Side::ALL.len()],
    /// Overlapping segments whose bytes differ.
    pub conflicts: u64,
    /// Segments too far from their flow's position to belong to it.
    pub out_of_window: u64,
    /// Segments that the receiver's TCP drops, whatever they carry.
    pub refused: u64,
}

impl Stats {
    /// The counts, which start again from zero.
    #[must_use]
    pub fn take(&mut self) -> Self {
        std::mem::take(self)
    }

    /// Requests settled inside the pipeline.
    #[must_use]
    pub fn settled(&self) -> u64 {
        self.skipped.iter().chain(&self.lost).fold(0, |sum, count| sum.saturating_add(*count))
    }
}

/// Adds `count` to the entry at `index` of a table that is sized by the enum which gave the index.
pub(crate) fn bump(table: &mut [u64], index: usize, count: u64) {
    if let Some(entry) = table.get_mut(index) {
        *entry = entry.saturating_add(count);
    }
}
