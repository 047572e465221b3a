//! Enters: nothing. Leaves: the runs of a byte stream that the flow stage hands on.

use crate::pipeline::{seq::SeqNumber, time::Timestamp};

/// Why bytes of a stream are missing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum GapCause {
    /// The capture never saw them, though the receiver did.
    Lost,
    /// The capture saw the segment but left its payload out on purpose.
    NotCopied,
}

/// A run of one side's byte stream. Spans of a side are contiguous: each starts where the one before it ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Span<'a> {
    /// Bytes of the stream.
    Data {
        /// The bytes; never empty.
        bytes: &'a [u8],
        /// Position of the first byte in this side's stream, 0 for the first byte seen.
        offset: u64,
        /// Sequence number of the first byte.
        seq: SeqNumber,
        /// When the segment that carried them was seen.
        at: Timestamp,
        /// How far the sender had acknowledged its peer's stream (an offset into that stream, exclusive), as of the
        /// segment that carried these bytes. `None` where the peer's stream has not been seen or ACK is not set.
        acked: Option<u64>,
        /// Another segment claimed other bytes for a part of this run: what the receiver got is not certain.
        conflict: bool,
    },
    /// Bytes that are not there.
    Gap {
        /// How many bytes; never 0.
        len: u64,
        /// Position of the first missing byte.
        offset: u64,
        /// When the gap was declared.
        at: Timestamp,
        /// Why they are missing.
        cause: GapCause,
    },
    /// The sender will send no more: FIN in sequence, or a reset by either side.
    End {
        /// When it was seen.
        at: Timestamp,
        /// True for a reset, false for an orderly FIN.
        reset: bool,
    },
}
