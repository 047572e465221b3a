//! Enters: the kernel program's per-CPU counters. Leaves: their sums.

use std::fmt;

use aya::maps::{MapData, MapError, PerCpuArray};
use mirror_common::Counter;

const COUNT: usize = Counter::COUNT as usize;

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
}
