//! Enters: the events of one message as it passes. Leaves: the report of it.

use crate::pipeline::{
    Timestamp,
    exchange::report::{BodyDigest, MessageReport, Place, StartLine},
    http::{Headers, RequestHead, ResponseHead, unfold},
    reason::LostReason,
};

/// A message report in the making. Content is digested as it passes, never held.
#[derive(Debug)]
pub(crate) struct MessageBuilder {
    start_line: StartLine,
    start: Place,
    headers: Vec<(Vec<u8>, Vec<u8>)>,
    digest: BodyDigest,
    refused: Option<LostReason>,
    first_byte_at: Timestamp,
    last_byte_at: Timestamp,
}

impl MessageBuilder {
    /// A report of the request with this head.
    pub(crate) fn request(
        head: &RequestHead<'_>,
        start: Place,
        first_byte_at: Timestamp,
        at: Timestamp,
    ) -> Self {
        let start_line = StartLine::Request {
            method: head.method.to_vec(),
            target: head.target.to_vec(),
            version: head.version,
        };
        Self::new(start_line, start, head.headers(), first_byte_at, at)
    }

    /// A report of the response with this head.
    pub(crate) fn response(
        head: &ResponseHead<'_>,
        start: Place,
        first_byte_at: Timestamp,
        at: Timestamp,
    ) -> Self {
        let start_line =
            StartLine::Status { status: head.status, reason: head.reason.to_vec(), version: head.version };
        Self::new(start_line, start, head.headers(), first_byte_at, at)
    }

    fn new(
        start_line: StartLine,
        start: Place,
        headers: Headers<'_>,
        first_byte_at: Timestamp,
        at: Timestamp,
    ) -> Self {
        Self {
            start_line,
            start,
            headers: headers.map(|(name, value)| (name.to_vec(), unfold(value).into_owned())).collect(),
            digest: BodyDigest::default(),
            refused: None,
            first_byte_at,
            last_byte_at: first_byte_at.max(at),
        }
    }

    /// Takes bytes of the body; only content, not the framing around it, is digested.
    pub(crate) fn body(&mut self, bytes: &[u8], is_content: bool, at: Timestamp) {
        if is_content {
            self.digest.update(bytes);
        }
        // What was held out of order was seen before what it waited for.
        self.last_byte_at = self.last_byte_at.max(at);
    }

    /// Whether no content was taken, nor any missing.
    pub(crate) const fn is_without_content(&self) -> bool {
        self.digest.is_untouched()
    }

    /// Notes that content is missing here.
    pub(crate) fn gap(&mut self) {
        self.digest.gap();
    }

    /// Notes why `run` would not replay the message. What is merely incomplete is not refused.
    pub(crate) fn refuse(&mut self, reason: LostReason) {
        match reason {
            LostReason::AmbiguousFraming
            | LostReason::Conflict
            | LostReason::HeadTooLarge
            | LostReason::Malformed => self.refused = self.refused.or(Some(reason)),
            LostReason::Aborted
            | LostReason::Evicted
            | LostReason::Gap
            | LostReason::Memory
            | LostReason::TooLarge => {}
        }
    }

    /// The report; `at_end` tells whether the message was followed to its end.
    pub(crate) fn finish(self, at_end: bool) -> MessageReport {
        let (body_bytes, body_sha256) = self.digest.finish();
        MessageReport {
            start_line: self.start_line,
            start: self.start,
            headers: self.headers,
            body_bytes,
            body_sha256,
            complete: at_end && body_sha256.is_some(),
            refused: self.refused,
            first_byte_at: self.first_byte_at,
            last_byte_at: self.last_byte_at,
        }
    }
}
