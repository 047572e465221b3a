//! Enters: what both sides of a flow send, and when. Leaves: whether nothing was outstanding as a request began.

use std::time::Duration;

use crate::pipeline::{Timestamp, exchange::observer::Run, http::sniff::response_start};

/// What is known of a flow's pauses.
///
/// A server whose latest answer began when it had received all that the client had sent, and whose client has taken all
/// of it and then waited, has nothing more to say: unless a client sends several requests at a time, and the server is
/// slower with one of them than it ever was. So the pause must be as long as any in which the server was waited for.
#[derive(Debug, Default)]
pub(super) struct Lull {
    /// How far the server had received when its latest final response began.
    answered_up_to: Option<u64>,
    /// Offset behind the last byte of the server's stream.
    server_end: u64,
    server_at: Timestamp,
    client_at: Timestamp,
    /// The longest time in which the server was silent before it sent something.
    longest_wait: Duration,
}

/// The least pause. On one machine a client that sends several requests at a time does so within less, and a server that
/// has the answer ready sends it within less; with a longer one, busy connections would never be taken up.
const LEAST_PAUSE: Duration = Duration::from_millis(10);

impl Lull {
    /// Takes note of bytes of the client's stream that were sent `at`.
    pub(super) fn client_sent(&mut self, at: Timestamp) {
        self.client_at = self.client_at.max(at);
    }

    /// Takes note of bytes of the server's stream.
    pub(super) fn server_sent(&mut self, run: &Run<'_>) {
        let is_final = |status: &u16| *status == 101 || !(100..=199).contains(status);
        if response_start(run.bytes).filter(is_final).is_some() {
            self.answered_up_to = run.acked.offset();
        }
        let before = self.server_at.max(self.client_at);
        if before > Timestamp::ZERO {
            self.longest_wait = self.longest_wait.max(run.at.since(before));
        }
        self.server_at = self.server_at.max(run.at);
        self.server_end = run.start.advance(run.bytes.len()).offset;
    }

    /// Takes note of bytes of the server's stream that are not there, and were sent `by` then at the latest: no pause is
    /// older than they may be.
    pub(super) fn server_missed(&mut self, offset: u64, len: u64, by: Timestamp) {
        self.server_end = offset.saturating_add(len);
        self.server_at = self.server_at.max(by);
    }

    /// Offset behind the last byte of the server's stream.
    pub(super) const fn server_end(&self) -> u64 {
        self.server_end
    }

    /// Whether nothing was outstanding when the client sent `run`, which begins with a request at `offset`.
    pub(super) fn is_at(&self, offset: u64, run: &Run<'_>) -> bool {
        offset == run.start.offset
            && self.answered_up_to == Some(offset)
            && run.acked.offset() == Some(self.server_end)
            && run.at.since(self.server_at.max(self.client_at)) >= self.longest_wait.max(LEAST_PAUSE)
    }
}
