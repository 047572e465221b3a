//! Enters: jobs that were just queued, on the thread that brought them. Leaves: all of them sent, or a word to the replay.
//!
//! To wake another thread for a small copy would cost more than to write it.

use std::sync::{Arc, OnceLock, Weak};

use super::pool::{Left, Pool};

/// Most jobs that wait with which the thread that brings jobs sends them itself: what takes longer is left to the replay's
/// thread, so that capture goes on.
const MOST_JOBS: usize = 64;

/// The same in bytes of requests queued or being written.
const MOST_BYTES: usize = 256 * 1024;

/// Who sends jobs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Sender {
    /// The replay, which may wait for a lock, open connections and drop what waits.
    Replay,
    /// Who brings them: it only writes to connections that are idle.
    Bringer,
}

/// The way from a queue to the connections for its jobs, once there is one.
#[derive(Default)]
pub(super) struct AtOnce(OnceLock<Weak<Pool>>);

impl AtOnce {
    /// Has jobs sent to the connections of `pool` from here on.
    pub(super) fn lead_to(&self, pool: &Arc<Pool>) {
        // It is said once, by the one replay that the queue belongs to.
        let _said = self.0.set(Arc::downgrade(pool));
    }

    /// Whether the jobs that wait, so many of so many bytes a moment ago, have been sent; nothing is waited for.
    pub(super) fn send(&self, jobs: usize, bytes: usize) -> bool {
        let Some(pool) = self.0.get() else { return false };
        if jobs > MOST_JOBS || bytes > MOST_BYTES {
            return false;
        }
        let Some(pool) = pool.upgrade() else { return false };
        // Tasks and timers are those of the replay.
        let _replay = pool.runtime.enter();
        // One more, to find that there is none.
        pool.pump_as(Sender::Bringer, jobs + 1) == Left::Nothing
    }
}
