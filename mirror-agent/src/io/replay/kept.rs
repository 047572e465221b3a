//! Enters: the events of an answer that somebody waits for. Leaves: the answer, as far as it can be compared.

use std::time::Duration;

use bytes::Bytes;

use super::clock;
use crate::{
    io::{
        compare::{Charge, Part},
        ledger::ReplayOutcome,
    },
    pipeline::{
        Answer, Answered, Timestamp, Timing,
        http::{Framing, ResponseHead},
        reason::{IncomparableReason, UntimedReason},
    },
};

/// The answer to one copy while it comes in. Let go, it says that there is none.
#[derive(Debug)]
pub(super) struct Keeping {
    part: Part,
    charge: Charge,
    /// Longest content that is kept, in bytes.
    limit: usize,
    /// When the last byte of the copy was handed to the socket; `None` before.
    asked_at: Option<Timestamp>,
    /// When the first byte of the latest response came, and whether that was before the copy had ended.
    begun: Option<(Timestamp, bool)>,
    /// When the latest bytes came.
    came_at: Timestamp,
    status: Option<u16>,
    head: Bytes,
    content: Vec<u8>,
    /// Why what is here cannot be compared.
    spoilt: Option<IncomparableReason>,
    is_complete: bool,
    /// It is not read to its end.
    is_too_long: bool,
}

impl Keeping {
    pub(super) fn new(part: Part) -> Self {
        let comparing = part.comparing();
        Self {
            charge: comparing.budget().charge(),
            limit: comparing.content_bytes(),
            part,
            asked_at: None,
            begun: None,
            came_at: Timestamp::ZERO,
            status: None,
            head: Bytes::new(),
            content: Vec::new(),
            spoilt: None,
            is_complete: false,
            is_too_long: false,
        }
    }

    /// The copy was not written after all.
    pub(super) fn into_part(self) -> Part {
        self.part
    }

    /// A byte of the copy was accepted by the socket.
    pub(super) const fn sent(&mut self) {
        self.part.sent();
    }

    /// The last byte was handed to the socket.
    pub(super) const fn asked(&mut self, at: Timestamp) {
        self.asked_at = Some(at);
    }

    /// Bytes have come; by the kernel's clock, or else when they were read.
    pub(super) fn came(&mut self, at: Option<Timestamp>) {
        self.came_at = at.unwrap_or_else(clock::now);
    }

    /// A response begins, interim or final.
    pub(super) fn begun(&mut self) {
        // What came while the last bytes were still to be handed over may be read only after they are.
        let is_early = self.asked_at.is_none_or(|asked_at| self.came_at < asked_at);
        self.begun = Some((self.came_at, is_early));
    }

    /// The head of the final response is here.
    pub(super) fn head(&mut self, head: &ResponseHead<'_>) {
        self.status = Some(head.status);
        if !self.charge.grow(head.raw.len()) {
            return self.spoil(IncomparableReason::Memory);
        }
        self.head = Bytes::copy_from_slice(head.raw);
        if let Framing::Length(len) = head.facts.framing {
            match usize::try_from(len).ok().filter(|len| *len <= self.limit) {
                Some(len) => self.reserve(len),
                None => self.spoil(IncomparableReason::TooLarge),
            }
        }
    }

    /// The connection was handed to another protocol.
    pub(super) fn upgraded(&mut self, status: u16) {
        self.status = Some(status);
        self.spoil(IncomparableReason::Upgraded);
        self.is_complete = true;
    }

    pub(super) fn content(&mut self, bytes: &[u8]) {
        if self.spoilt.is_some() {
            return;
        }
        let len = self.content.len() + bytes.len();
        if len > self.limit {
            return self.spoil(IncomparableReason::TooLarge);
        }
        if len > self.content.capacity() {
            self.reserve(len.max(self.content.capacity().saturating_mul(2)).min(self.limit));
        }
        if self.spoilt.is_none() {
            self.content.extend_from_slice(bytes);
        }
    }

    /// The final response is complete.
    pub(super) const fn complete(&mut self) {
        self.is_complete = true;
    }

    /// The final response goes on, and is not waited for any longer.
    pub(super) fn too_long(&mut self) {
        self.spoil(IncomparableReason::TooLarge);
        self.is_too_long = true;
    }

    /// Hands on what there is. `outcome` says how the attempt ended that brought no complete answer.
    pub(super) fn finish(self, outcome: ReplayOutcome, round_trip: Option<Duration>) {
        let timing = self.timing(round_trip);
        let Self { part, charge, status, head, content, spoilt, is_complete, is_too_long, .. } = self;
        let Some(status) = status else {
            // The part says whether there was a copy at all.
            return drop(part);
        };
        let answered = match (is_complete, spoilt) {
            (true, None) => Answered::Whole(Answer { status, head, content: content.into(), timing }),
            (true, Some(reason)) => Answered::Partly { status, reason, timing },
            (false, Some(reason)) if is_too_long => {
                Answered::Partly { status, reason, timing: Err(UntimedReason::Unknown) }
            }
            (false, _) if outcome == ReplayOutcome::Protocol => Answered::Not(IncomparableReason::NoAnswer),
            (false, _) => {
                let timing = Err(UntimedReason::Unknown);
                Answered::Partly { status, reason: IncomparableReason::Aborted, timing }
            }
        };
        part.answered(answered, charge);
    }

    fn timing(&self, round_trip: Option<Duration>) -> Result<Timing, UntimedReason> {
        let (first_byte_at, is_early) = self.begun.ok_or(UntimedReason::Unknown)?;
        if is_early {
            return Err(UntimedReason::Early);
        }
        let asked_at = self.asked_at.ok_or(UntimedReason::Unknown)?;
        let round_trip = round_trip.unwrap_or_default();
        Ok(Timing { asked_at, first_byte_at, last_byte_at: self.came_at, round_trip })
    }

    /// Makes room for `len` bytes of content in all.
    fn reserve(&mut self, len: usize) {
        if self.charge.grow(len - self.content.capacity().min(len)) {
            self.content.reserve_exact(len - self.content.len());
        } else {
            self.spoil(IncomparableReason::Memory);
        }
    }

    /// Gives up what is kept; the rest of the answer is read all the same.
    fn spoil(&mut self, reason: IncomparableReason) {
        self.spoilt = Some(reason);
        self.head = Bytes::new();
        self.content = Vec::new();
        self.charge.clear();
    }
}
