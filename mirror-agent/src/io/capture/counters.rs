//! Enters: the kernel program's per-CPU counters. Leaves: their sums, and what they say of frames and connections.

use std::fmt;

use aya::maps::{MapData, MapError, PerCpuArray};
use mirror_common::Counter;

use crate::pipeline::reason::FlowSkipReason;

const COUNT: usize = Counter::COUNT as usize;

/// Reasons for which the kernel program could not copy a packet of a matched port, and their counters.
pub const FRAME_DROPS: [(&str, Counter); 7] = [
    ("fragment", Counter::Fragment),
    ("malformed", Counter::Malformed),
    ("ring_full", Counter::DroppedRingFull),
    ("too_deep", Counter::TooDeep),
    ("too_long", Counter::DroppedTooLong),
    ("tunnel", Counter::Tunnel),
    ("unreadable", Counter::DroppedUnreadable),
];

/// The kernel program's counters. It owns its handle of the map: the metrics keep it and need nothing else.
pub struct KernelCounters {
    map: PerCpuArray<MapData, u64>,
}

/// The counters at one moment, summed over all CPUs.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct CounterValues([u64; COUNT]);

impl KernelCounters {
    pub(super) const fn new(map: PerCpuArray<MapData, u64>) -> Self {
        Self { map }
    }

    /// Reads the counters.
    ///
    /// # Errors
    ///
    /// The kernel's, where the map cannot be read.
    pub fn read(&self) -> Result<CounterValues, MapError> {
        let mut values = CounterValues::default();
        for (index, sum) in (0..Counter::COUNT).zip(&mut values.0) {
            *sum = self.map.get(&index, 0)?.iter().fold(0, |sum: u64, value| sum.wrapping_add(*value));
        }
        Ok(values)
    }
}

impl fmt::Debug for KernelCounters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KernelCounters").finish_non_exhaustive()
    }
}

impl CounterValues {
    /// Values given by the counters' indices.
    #[cfg(test)]
    pub(crate) fn from_fn(value: impl Fn(u64) -> u64) -> Self {
        Self(std::array::from_fn(|index| value(index as u64)))
    }

    /// The value of one counter.
    #[must_use]
    pub fn get(&self, counter: Counter) -> u64 {
        usize::try_from(counter as u32).ok().and_then(|index| self.0.get(index)).copied().unwrap_or_default()
    }

    /// Frames of matched ports of which a record was made.
    #[must_use]
    pub fn frames_captured(&self) -> u64 {
        self.get(Counter::CopiedClient).saturating_add(self.get(Counter::CopiedServer))
    }

    /// Segments that were copied nowhere though nothing about them stood in the way.
    #[must_use]
    pub fn overlooked(&self) -> u64 {
        self.get(Counter::DroppedRingFull).saturating_add(self.get(Counter::DroppedUnreadable))
    }

    /// Frames of matched ports that were not copied in full, by reason.
    pub fn frame_drops(&self) -> impl Iterator<Item = (&'static str, u64)> {
        FRAME_DROPS.iter().map(|(reason, counter)| (*reason, self.get(*counter)))
    }

    /// Adds the connections that were left out to those that were not parsed, by [`FlowSkipReason`].
    pub fn add_left_out(&self, flows_skipped: &mut [u64; FlowSkipReason::ALL.len()]) {
        for (reason, counter) in
            [(FlowSkipReason::Sampled, Counter::SampledOut), (FlowSkipReason::Shed, Counter::Shed)]
        {
            if let Some(count) = flows_skipped.get_mut(reason.index()) {
                *count = count.saturating_add(self.get(counter));
            }
        }
    }
}
