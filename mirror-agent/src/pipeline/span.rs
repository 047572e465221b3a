//! Enters: nothing. Leaves: the runs of a byte stream that the flow stage hands on.

use crate::pipeline::{seq::SeqNumber, time::Timestamp};

/// Why bytes of a stream are missing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum GapCause {
    /// The capture never saw them, though the receiver did.
    Lost,
    /// The capture saw the segment but left its payload out on purpose.
    NotCopied,
    /// The capture was not there for so long that TCP's numbers, which wrap, do not tell how many bytes passed: as many as
    /// the gap says, or any multiple of 2^32 more.
    Unmeasured,
}

/// How far the sender of a segment had received its peer's stream.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Acked {
    /// It does not say, or what it says cannot be.
    #[default]
    Unknown,
    /// Up to this offset into that stream, exclusive.
    Offset(u64),
    /// The same, and it lies beyond all that was seen of that stream.
    Beyond(u64),
    /// Up to this number, exclusive. Nothing was seen of that stream, so the number has no offset.
    Unseen(SeqNumber),
}

impl Acked {
    /// The offset, where there is one.
    #[must_use]
    pub const fn offset(self) -> Option<u64> {
        match self {
            Self::Offset(offset) | Self::Beyond(offset) => Some(offset),
            Self::Unknown | Self::Unseen(_) => None,
        }
    }

    /// The number, where the stream was not seen.
    #[must_use]
    pub const fn unseen(self) -> Option<SeqNumber> {
        match self {
            Self::Unseen(number) => Some(number),
            Self::Unknown | Self::Offset(_) | Self::Beyond(_) => None,
        }
    }
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
        /// How far the sender had acknowledged its peer's stream, as of the segment that carried these bytes.
        acked: Acked,
        /// Another segment claimed other bytes for a part of this run, or TCP calls a byte of it or before it urgent: what
        /// the receiver got is not certain.
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
