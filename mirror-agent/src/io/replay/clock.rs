//! Enters: nothing. Leaves: the time on the clock that the kernel stamps its records with.

use rustix::time::{ClockId, clock_gettime};

use crate::pipeline::Timestamp;

/// `CLOCK_MONOTONIC`, which `bpf_ktime_get_ns` reads too.
#[must_use]
pub fn now() -> Timestamp {
    let time = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    Timestamp::from_nanos(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
}
