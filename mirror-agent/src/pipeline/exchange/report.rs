//! Enters: what the decoders learnt of an exchange. Leaves: the account of it that `inspect` prints.

use std::fmt;

use sha2::{Digest, Sha256};

use crate::pipeline::{ExchangeId, FlowKey, Timestamp, http::Version, reason::LostReason, seq::SeqNumber};

/// One exchange of a capture, told after it ended. At least one of `request` and `response` is there.
#[derive(Clone, Debug)]
pub struct ExchangeReport {
    /// Its number.
    pub id: ExchangeId,
    /// The flow it belongs to.
    pub flow: FlowKey,
    /// The request; `None` where the capture holds only its response.
    pub request: Option<MessageReport>,
    /// Interim (1xx) responses, in order; 101 is not among them, it is final.
    pub interim: Vec<MessageReport>,
    /// How many more of them there were than are told.
    pub interim_left_out: u64,
    /// The final response; `None` where the capture does not hold it.
    pub response: Option<MessageReport>,
}

impl ExchangeReport {
    /// One of which nothing was seen yet.
    pub(crate) const fn new(id: ExchangeId, flow: FlowKey) -> Self {
        Self { id, flow, request: None, interim: Vec::new(), interim_left_out: 0, response: None }
    }

    /// About the memory that it takes, in bytes.
    #[must_use]
    pub fn weight(&self) -> usize {
        let messages = self.request.iter().chain(&self.interim).chain(&self.response);
        messages.map(MessageReport::weight).fold(size_of::<Self>(), usize::saturating_add)
    }

    /// When the exchange began: the first byte of its request, else of its earliest response.
    ///
    /// [`Timestamp::ZERO`] for a report without any message.
    #[must_use]
    pub fn first_byte_at(&self) -> Timestamp {
        self.request
            .as_ref()
            .or(self.interim.first())
            .or(self.response.as_ref())
            .map_or(Timestamp::ZERO, |message| message.first_byte_at)
    }
}

/// Where in a byte stream something begins.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Place {
    /// Bytes of the stream before it, from the first one that was seen.
    pub offset: u64,
    /// Sequence number of its first byte.
    pub seq: SeqNumber,
}

impl Place {
    /// The place `len` bytes further on.
    #[must_use]
    pub fn advance(self, len: usize) -> Self {
        let len = u64::try_from(len).unwrap_or(u64::MAX);
        let [_, _, _, _, low @ ..] = len.to_be_bytes();
        Self { offset: self.offset.saturating_add(len), seq: self.seq.advance(u32::from_be_bytes(low)) }
    }

    /// The place `len` bytes before.
    #[must_use]
    pub fn back(self, len: usize) -> Self {
        let len = u64::try_from(len).unwrap_or(u64::MAX);
        let [_, _, _, _, low @ ..] = len.wrapping_neg().to_be_bytes();
        Self { offset: self.offset.saturating_sub(len), seq: self.seq.advance(u32::from_be_bytes(low)) }
    }
}

/// One message as seen on the wire.
#[derive(Clone, Debug)]
pub struct MessageReport {
    /// The request line or status line.
    pub start_line: StartLine,
    /// Where its first byte stands in its side's stream.
    pub start: Place,
    /// Field names and values in order, names in their own case, folded values in one line.
    pub headers: Vec<(Vec<u8>, Vec<u8>)>,
    /// Bytes of content that were captured, after the transfer coding is removed.
    pub body_bytes: u64,
    /// SHA-256 of that content; `None` where some of its bytes are missing.
    pub body_sha256: Option<[u8; 32]>,
    /// Whether the message was seen up to its end.
    pub complete: bool,
    /// Why `run` would not replay it; `None` where it would, and for responses that are well-formed.
    pub refused: Option<LostReason>,
    /// When the segment with its first byte was seen.
    pub first_byte_at: Timestamp,
    /// When the last of its segments was seen: it was not complete before.
    pub last_byte_at: Timestamp,
}

impl MessageReport {
    /// About the memory that it takes, in bytes.
    #[must_use]
    pub fn weight(&self) -> usize {
        let start_line = match &self.start_line {
            StartLine::Request { method, target, .. } => method.len().saturating_add(target.len()),
            StartLine::Status { reason, .. } => reason.len(),
        };
        let field = |(name, value): &(Vec<u8>, Vec<u8>)| {
            size_of::<(Vec<u8>, Vec<u8>)>().saturating_add(allocated(name)).saturating_add(allocated(value))
        };
        let fields = self.headers.iter().map(field).fold(0, usize::saturating_add);
        size_of::<Self>().saturating_add(start_line).saturating_add(fields)
    }
}

/// About what it takes to have these bytes: a few of them take as much as many.
const fn allocated(bytes: &[u8]) -> usize {
    if bytes.is_empty() { 0 } else { bytes.len().saturating_add(16) }
}

/// The first line of a message.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum StartLine {
    /// Of a request.
    Request {
        /// The method as written.
        method: Vec<u8>,
        /// The request target as written.
        target: Vec<u8>,
        /// The protocol version.
        version: Version,
    },
    /// Of a response.
    Status {
        /// The status code.
        status: u16,
        /// The reason phrase; may be empty.
        reason: Vec<u8>,
        /// The protocol version.
        version: Version,
    },
}

/// Length and SHA-256 of a message's content, taken as it passes.
#[derive(Clone, Default)]
pub struct BodyDigest {
    hasher: Sha256,
    bytes: u64,
    has_gap: bool,
}

impl BodyDigest {
    /// Takes the next bytes of the content.
    pub fn update(&mut self, bytes: &[u8]) {
        // A digest of part of the content is of no use, so its cost is saved.
        if !self.has_gap {
            self.hasher.update(bytes);
        }
        self.bytes = self.bytes.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
    }

    /// Notes that bytes of the content are missing here.
    pub const fn gap(&mut self) {
        self.has_gap = true;
    }

    /// Whether no bytes were taken and none are missing.
    #[must_use]
    pub const fn is_untouched(&self) -> bool {
        self.bytes == 0 && !self.has_gap
    }

    /// The number of bytes taken, and their digest where none were missing.
    #[must_use]
    pub fn finish(self) -> (u64, Option<[u8; 32]>) {
        let digest = (!self.has_gap).then(|| self.hasher.finalize().into());
        (self.bytes, digest)
    }
}

impl fmt::Debug for BodyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BodyDigest")
            .field("bytes", &self.bytes)
            .field("has_gap", &self.has_gap)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_of_pieces_is_digest_of_the_whole() {
        let mut digest = BodyDigest::default();
        digest.update(b"a");
        digest.update(b"bc");
        let (bytes, sha256) = digest.finish();
        assert_eq!(bytes, 3);
        // FIPS 180-4, the example "abc".
        assert_eq!(sha256.unwrap()[..4], [0xba, 0x78, 0x16, 0xbf]);
    }

    #[test]
    fn gap_leaves_the_length_but_no_digest() {
        let mut digest = BodyDigest::default();
        digest.update(b"a");
        digest.gap();
        digest.update(b"b");
        assert_eq!(digest.finish(), (2, None));
    }
}
