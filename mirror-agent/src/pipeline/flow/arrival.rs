//! Enters: a segment. Leaves: its data, and the bounds within which it is taken.

use std::time::Duration;

use super::assembler::Assembler;
use crate::pipeline::{
    limits::Limits,
    segment::{Segment, TcpFlags},
    seq::SeqNumber,
    span::Acked,
    time::Timestamp,
};

/// The data of one segment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival<'a> {
    /// Sequence number of its first byte; a SYN is not part of it.
    pub(super) seq: SeqNumber,
    /// The bytes that were copied.
    pub(super) payload: &'a [u8],
    /// Length of the data in bytes; at least `payload.len()`.
    pub(super) len: u32,
    /// Whether the stream ends behind it.
    pub(super) fin: bool,
    /// When it was seen.
    pub(super) at: Timestamp,
    /// As in [`Span::Data`](crate::pipeline::Span).
    pub(super) acked: Acked,
}

impl<'a> Arrival<'a> {
    /// The data of `segment`; `None` where it has neither data nor FIN.
    pub(super) fn of(segment: &Segment<'a>, acked: Acked) -> Option<Self> {
        // Linux discards a SYN with a FIN: were it believed, the connection that follows would be missed.
        let fin = segment.flags.has(TcpFlags::FIN) && !segment.flags.has(TcpFlags::SYN);
        // The capture source promises this; a length that is too small must not make bytes appear twice.
        let len = segment.payload_len.max(u32::try_from(segment.payload.len()).ok()?);
        if len == 0 && !fin {
            return None;
        }
        let syn = u32::from(segment.flags.has(TcpFlags::SYN));
        let seq = segment.seq.advance(syn);
        Some(Self { seq, payload: segment.payload, len, fin, at: segment.at, acked })
    }
}

/// What one side may hold, and for how long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Payload bytes out of order.
    pub(super) bytes: usize,
    /// Pieces out of order.
    pub(super) pieces: usize,
    /// How long an acknowledged gap is kept open.
    pub(super) patience: Duration,
    /// How long a gap is kept open that is not acknowledged, where its sender's peer was never seen.
    pub(super) age_one_sided: Duration,
    /// The same where it was.
    pub(super) age: Duration,
    /// How long a flow may be silent and its next segment still be believed to be of it, whatever its numbers.
    pub(super) doubt: Duration,
}

impl Bounds {
    /// How long a gap is kept open that is not acknowledged, by its sender's `peer`.
    pub(super) const fn age_beside(&self, peer: &Assembler) -> Duration {
        if peer.is_started() { self.age } else { self.age_one_sided }
    }

    /// Whether segments come in the order in which they passed, so that what one acknowledges has been seen or never will be.
    pub(super) const fn is_causal(&self) -> bool {
        self.patience.is_zero()
    }
}

impl From<&Limits> for Bounds {
    fn from(limits: &Limits) -> Self {
        Self {
            bytes: limits.reorder_bytes,
            pieces: limits.reorder_pieces,
            patience: limits.gap_patience,
            age_one_sided: limits.gap_age_one_sided,
            age: limits.gap_age,
            doubt: limits.flow_doubt,
        }
    }
}

/// Whether a sequence or acknowledgement number can belong to this stream.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Fit {
    /// It can.
    Plausible,
    /// It is too far away.
    OutOfWindow,
}
