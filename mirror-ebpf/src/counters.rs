//! Enters: what happened to a segment. Leaves: its counter raised.

use aya_ebpf::btf_maps::PerCpuArray;
use aya_ebpf::macros::btf_map;
use mirror_common::Counter;

/// [`mirror_common::maps::map::COUNTERS`].
#[btf_map]
static COUNTERS: PerCpuArray<u64, { Counter::COUNT as usize }> = PerCpuArray::new();

/// Raises a counter of this CPU by one.
#[inline(always)]
pub(crate) fn count(counter: Counter) {
    add(counter, 1);
}

/// Raises a counter of this CPU.
#[inline(always)]
pub(crate) fn add(counter: Counter, events: u64) {
    add_at(counter as u32, events);
}

/// Raises the counter with this index of this CPU.
#[inline(always)]
pub(crate) fn add_at(index: u32, events: u64) {
    if let Some(value) = COUNTERS.get_ptr_mut(index) {
        // SAFETY: a per-CPU slot is written by nobody else while the program runs, which the kernel does not move to
        // another CPU, and the agent only reads.
        unsafe { *value += events }
    }
}
