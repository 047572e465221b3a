//! Enters: how far a server had received whenever it began to send. Leaves: where a request may begin behind a gap.
//!
//! Only for files. What was held behind a gap is handed on late: by then the server has answered some of it, and the
//! latest such moment is no longer the one that counts.

use std::collections::VecDeque;

use crate::pipeline::exchange::observer::Run;

/// The latest moments at which nothing of a flow's requests was outstanding, as offsets of the client's stream.
#[derive(Debug, Default)]
pub(crate) struct QuietMoments {
    offsets: VecDeque<u64>,
}

/// Moments remembered of one flow: more than there are answers in the time for which a gap is kept open.
const MOST: usize = 256;

impl QuietMoments {
    /// Takes note that the server began to send, having received `acked` bytes; `status` where what it sends begins
    /// like a response.
    pub(crate) fn note(&mut self, status: Option<u16>, acked: Option<u64>) {
        // Interim responses say nothing of what the client does next.
        let is_interim = matches!(status, Some(100 | 102..=199));
        if let Some(acked) = acked.filter(|acked| !is_interim && self.offsets.back() != Some(acked)) {
            if self.offsets.len() >= MOST {
                self.offsets.pop_front();
            }
            self.offsets.push_back(acked);
        }
    }

    /// Whether the server was never seen to send.
    pub(crate) fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }

    /// What follows the moments that lie within `run`, in the order of the moments.
    pub(crate) fn parts_of<'a>(&self, run: Run<'a>) -> impl Iterator<Item = Run<'a>> {
        self.offsets.iter().filter_map(move |offset| {
            let ahead = usize::try_from(offset.checked_sub(run.start.offset)?).ok()?;
            let bytes = run.bytes.get(ahead..).filter(|bytes| !bytes.is_empty())?;
            Some(Run { bytes, start: run.start.advance(ahead), ..run })
        })
    }
}
