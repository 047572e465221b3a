//! Enters: nothing. Leaves: the counters of the flow stage.

use crate::pipeline::{reason::EvictReason, segment::Side};

/// What the flow stage counted; every figure only grows until it is taken.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct FlowStats {
    /// Flows opened, adopted ones included.
    pub opened: u64,
    /// Flows opened without a SYN: they are older than the capture, or their SYN was lost.
    pub adopted: u64,
    /// Flows that were recognised under another key at another interface.
    pub observed_twice: u64,
    /// Counters of the client's side.
    pub client: SideStats,
    /// Counters of the server's side.
    pub server: SideStats,
    evicted: [u64; EvictReason::ALL.len()],
}

/// Counters of one side of all flows.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct SideStats {
    /// Bytes in gaps that the capture lost; bytes left out on purpose are not among them.
    pub gap_bytes: u64,
    /// Segments that began beyond the next expected byte.
    pub out_of_order_segments: u64,
    /// Bytes that were there already.
    pub duplicate_bytes: u64,
    /// Segments that claimed other bytes for a place than a segment before them.
    pub conflicts: u64,
    /// Segments ignored because their place in the stream is not plausible, or lies beyond its end.
    pub out_of_window: u64,
    /// Segments that the receiver's TCP drops, whatever they carry.
    pub refused: u64,
}

impl FlowStats {
    /// The counters of `side`.
    #[must_use]
    pub const fn side(&self, side: Side) -> &SideStats {
        match side {
            Side::Client => &self.client,
            Side::Server => &self.server,
        }
    }

    /// Flows evicted for `reason`.
    #[must_use]
    pub fn evicted(&self, reason: EvictReason) -> u64 {
        self.evicted.get(reason.index()).copied().unwrap_or_default()
    }

    pub(super) const fn side_mut(&mut self, side: Side) -> &mut SideStats {
        match side {
            Side::Client => &mut self.client,
            Side::Server => &mut self.server,
        }
    }

    pub(super) fn count_eviction(&mut self, reason: EvictReason) {
        if let Some(count) = self.evicted.get_mut(reason.index()) {
            bump(count, 1);
        }
    }
}

/// Adds to a counter.
pub(super) const fn bump(counter: &mut u64, by: u64) {
    *counter = counter.saturating_add(by);
}
