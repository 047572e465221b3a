//! Enters: the segments of a capture file. Leaves: the same, but resets later than they came.
//!
//! A reset ends both sides of its connection, as it does for who receives it. What the other side has sent meanwhile is
//! still on its way and stands behind the reset in the file: `run` has no use for it, since nobody got it; whoever looks
//! into a capture wants to see it. And resets that were forged, or refused (RFC 5961), end nothing, however long after them
//! the connection goes on. So a reset waits for the next connection between the same ends, or for the end of the file.

use std::collections::{HashMap, VecDeque};

use crate::pipeline::{FlowKey, Segment, Side, TcpFlags};

/// Most resets that are held; beyond it the one that has been held for longest goes on.
const MAX_HELD: usize = 4096;

/// Holds resets.
#[derive(Debug, Default)]
pub(super) struct Resets {
    held: VecDeque<Segment<'static>>,
    /// How many are held of each side of a connection, where there are any.
    counts: HashMap<(FlowKey, Side), usize>,
}

impl Resets {
    /// Takes the next segment, and hands on what its turn has come for.
    pub(super) fn handle_segment(&mut self, segment: &Segment<'_>, sink: &mut impl FnMut(&Segment<'_>)) {
        let resets = segment.flags.has(TcpFlags::RST);
        if !resets && !self.counts.is_empty() {
            self.hold_against(segment, sink);
        }
        if !resets {
            return sink(segment);
        }
        if self.held.len() >= MAX_HELD {
            self.release(sink);
        }
        let count = self.counts.entry((segment.flow, segment.side)).or_default();
        *count = count.saturating_add(1);
        // What a reset carries is no part of the stream.
        self.held.push_back(Segment { payload: &[], payload_len: 0, ..*segment });
    }

    /// Hands on all that is held: there are no more segments.
    pub(super) fn handle_end(&mut self, sink: &mut impl FnMut(&Segment<'_>)) {
        while !self.held.is_empty() {
            self.release(sink);
        }
    }

    /// Hands on the one that has been held for longest.
    fn release(&mut self, sink: &mut impl FnMut(&Segment<'_>)) {
        let Some(held) = self.held.pop_front() else { return };
        let key = (held.flow, held.side);
        if let Some(count) = self.counts.get_mut(&key) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.counts.remove(&key);
            }
        }
        sink(&held);
    }

    /// Takes note of a segment that is no reset. A SYN begins another connection between the same ends: those of the one before
    /// go on. Who sends data did not reset the connection: nobody obeyed what another sent in its name, or it came too early.
    fn hold_against(&mut self, segment: &Segment<'_>, sink: &mut impl FnMut(&Segment<'_>)) {
        let begins = segment.flags.has(TcpFlags::SYN);
        if !begins && segment.payload_len == 0 {
            return;
        }
        let is_about = |side: Side| begins || side == segment.side;
        let sides = Side::ALL.into_iter().filter(|side| is_about(*side));
        // All of a side go at once, so that it is gone through what is held no more often than there are resets.
        let counts = sides.filter_map(|side| self.counts.remove(&(segment.flow, side)));
        if counts.count() == 0 {
            return;
        }
        self.held.retain(|held| {
            let is_meant = held.flow == segment.flow && is_about(held.side);
            if is_meant && begins {
                sink(held);
            }
            !is_meant
        });
    }
}
