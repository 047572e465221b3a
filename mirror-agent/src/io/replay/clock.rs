//! Enters: nothing. Leaves: the time on the clock that the kernel stamps its records with.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::pipeline::Timestamp;

/// `CLOCK_MONOTONIC`, which `bpf_ktime_get_ns` reads too.
#[must_use]
pub fn now() -> Timestamp {
    Timestamp::ZERO.after(read(ClockId::Monotonic))
}

/// The same of a point on the wall clock, in time since the Unix epoch, that has just passed.
pub(super) fn of_wall(at: Duration) -> Timestamp {
    now().before(read(ClockId::Realtime).saturating_sub(at))
}

fn read(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}
