//! Enters: nothing. Leaves: the answer to a request, live's or a target's, as a comparison takes it.

use std::time::Duration;

use bytes::Bytes;

use crate::pipeline::{
    Timestamp,
    reason::{IncomparableReason, UntimedReason},
};

/// A final response, seen up to its end.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// Status line and header section as on the wire, the empty line included.
    pub head: Bytes,
    /// The content: the transfer coding is removed, content codings are not.
    pub content: Bytes,
    /// How long it took.
    pub timing: Result<Timing, UntimedReason>,
}

/// When a request was asked and answered, at the point where it was observed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Timing {
    /// When the last byte of the request passed.
    pub asked_at: Timestamp,
    /// When the first byte of the final response passed.
    pub first_byte_at: Timestamp,
    /// When its last byte did.
    pub last_byte_at: Timestamp,
    /// The smallest round trip known between the point of observation and the server, to be subtracted; zero where the
    /// point lies at the server.
    pub round_trip: Duration,
}

impl Timing {
    /// From the last byte of the request to the first byte of the response, the round trip subtracted.
    #[must_use]
    pub fn to_first_byte(&self) -> Duration {
        self.first_byte_at.since(self.asked_at).saturating_sub(self.round_trip)
    }

    /// From the last byte of the request to the last byte of the response, the round trip subtracted.
    #[must_use]
    pub fn to_last_byte(&self) -> Duration {
        self.last_byte_at.since(self.asked_at).saturating_sub(self.round_trip)
    }
}

/// What is known of how a request was answered. An answer that is cut, missing or damaged is a reason, and never a
/// divergence.
#[derive(Clone, Debug)]
pub enum Answered {
    /// In full.
    Whole(Answer),
    /// There is an answer of this status, of which not everything can be compared.
    Partly {
        /// The status code.
        status: u16,
        /// Why it cannot be compared.
        reason: IncomparableReason,
        /// How long it took, as far as it is known.
        timing: Result<Timing, UntimedReason>,
    },
    /// Not that anybody knows.
    Not(IncomparableReason),
}

impl Answered {
    /// The status code, where there is an answer.
    #[must_use]
    pub const fn status(&self) -> Option<u16> {
        match self {
            Self::Whole(answer) => Some(answer.status),
            Self::Partly { status, .. } => Some(*status),
            Self::Not(_) => None,
        }
    }

    /// How long the answer took, where there is one.
    #[must_use]
    pub const fn timing(&self) -> Option<Result<Timing, UntimedReason>> {
        match self {
            Self::Whole(answer) => Some(answer.timing),
            Self::Partly { timing, .. } => Some(*timing),
            Self::Not(_) => None,
        }
    }
}
