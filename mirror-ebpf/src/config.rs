//! Enters: nothing. Leaves: what the agent told the program.

use aya_ebpf::btf_maps::Array;
use aya_ebpf::macros::btf_map;
use mirror_common::maps::KernelConfig;

/// [`mirror_common::maps::map::CONFIG`].
#[btf_map]
static CONFIG: Array<KernelConfig, 1> = Array::new();

/// The configuration; the agent may change it while the program runs.
#[inline(always)]
pub(crate) fn config() -> Option<&'static KernelConfig> {
    CONFIG.get(0)
}
