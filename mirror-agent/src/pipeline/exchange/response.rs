//! Enters: the events of one live response as it passes. Leaves: the answer, or why it cannot be compared.

use bytes::Bytes;

use crate::pipeline::{
    Answer, Answered, Timestamp, Timing,
    exchange::{context::Context, message::make_room},
    http::{Framing, ResponseHead},
    reason::{IncomparableReason, UntimedReason},
};

/// Most bytes set aside for content on the word of its Content-Length alone.
const MAX_ADVANCE_BYTES: usize = 64 * 1024;

/// A response in progress.
#[derive(Debug)]
pub(super) struct Response {
    /// `None` before the head is complete.
    status: Option<u16>,
    pub(super) is_interim: bool,
    /// It began before its request had ended.
    is_early: bool,
    /// Its last bytes are missing, as far as it was followed.
    ends_in_gap: bool,
    first_byte_at: Timestamp,
    last_byte_at: Timestamp,
    keep: Keep,
}

/// What is kept of a response.
#[derive(Debug)]
enum Keep {
    /// Nobody asks for it, or the head is not complete.
    Nothing,
    /// All of it.
    Whole { head: Bytes, content: Vec<u8> },
    /// It cannot be compared; its remaining bytes are stepped over.
    Damaged(IncomparableReason),
}

/// What the answer's request was like.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asking {
    /// When its last byte passed; `None` where it goes on, or nobody asks for the answer.
    pub(super) asked_at: Option<Timestamp>,
    /// It began before the one ahead of it was answered.
    pub(super) is_pipelined: bool,
}

impl Response {
    /// A response of which the first byte was seen `at`.
    pub(super) const fn begin(at: Timestamp, is_early: bool) -> Self {
        Self {
            status: None,
            is_interim: false,
            is_early,
            ends_in_gap: false,
            first_byte_at: at,
            last_byte_at: at,
            keep: Keep::Nothing,
        }
    }

    /// Takes the complete head. `is_wanted` where somebody may ask for the answer.
    pub(super) fn head(
        &mut self,
        context: &mut Context,
        head: &ResponseHead<'_>,
        at: Timestamp,
        is_wanted: bool,
    ) {
        self.last_byte_at = self.last_byte_at.max(at);
        self.status = Some(head.status);
        self.is_interim = head.facts.interim;
        if !is_wanted || self.is_interim {
            return;
        }
        let length = match head.facts.framing {
            Framing::Length(length) => usize::try_from(length).unwrap_or(usize::MAX),
            Framing::None
            | Framing::Chunked
            | Framing::UntilClose
            | Framing::Ambiguous
            | Framing::Garbled => 0,
        };
        let advance = length.min(MAX_ADVANCE_BYTES);
        let needed = advance.saturating_add(head.raw.len());
        self.keep = if length > context.limits.answer_bytes {
            Keep::Damaged(IncomparableReason::TooLarge)
        } else if !context.may_hold_answer(0, needed) {
            Keep::Damaged(IncomparableReason::Memory)
        } else {
            let (head, content) = (Bytes::copy_from_slice(head.raw), Vec::with_capacity(advance));
            context.hold(0, held(&head, &content));
            Keep::Whole { head, content }
        };
    }

    /// Takes bytes of the body: content, or the framing around it.
    pub(super) fn body(&mut self, context: &mut Context, bytes: &[u8], is_content: bool, at: Timestamp) {
        self.last_byte_at = self.last_byte_at.max(at);
        self.ends_in_gap = false;
        let Keep::Whole { content, .. } = &mut self.keep else { return };
        if !is_content {
            return;
        }
        if content.len().saturating_add(bytes.len()) > context.limits.answer_bytes {
            self.damage(context, IncomparableReason::TooLarge);
        } else if make_room(context, content, bytes.len(), Context::may_hold_answer) {
            content.extend_from_slice(bytes);
        } else {
            self.damage(context, IncomparableReason::Memory);
        }
    }

    /// Notes that bytes of the body are missing, or not certain, while the framing stays known; `sent_at` where they were
    /// seen nevertheless.
    pub(super) fn gap(
        &mut self,
        context: &mut Context,
        reason: IncomparableReason,
        sent_at: Option<Timestamp>,
    ) {
        self.ends_in_gap = sent_at.is_none();
        self.last_byte_at = self.last_byte_at.max(sent_at.unwrap_or_default());
        self.damage(context, reason);
    }

    /// Whether nobody reads what is left of it.
    pub(super) const fn is_unread(&self) -> bool {
        self.status.is_some() && !matches!(self.keep, Keep::Whole { .. })
    }

    /// Lets go of what is held; the first reason stands.
    fn damage(&mut self, context: &mut Context, reason: IncomparableReason) {
        if let Keep::Whole { head, content } = &self.keep {
            context.hold(held(head, content), 0);
            self.keep = Keep::Damaged(reason);
        }
    }

    /// The answer, now that the response was followed to its end, and the bytes that are charged for it.
    pub(super) fn finish(self, asking: Asking) -> (Answered, usize) {
        let timing = self.timing(asking);
        match (self.keep, self.status) {
            (Keep::Whole { head, content }, Some(status)) => {
                let bytes = held(&head, &content);
                let content = Bytes::from(content);
                (Answered::Whole(Answer { status, head, content, timing }), bytes)
            }
            (Keep::Damaged(reason), Some(status)) => (Answered::Partly { status, reason, timing }, 0),
            (_, None) | (Keep::Nothing, _) => (Answered::Not(IncomparableReason::Unpaired), 0),
        }
    }

    /// What is known of a response that was not followed to its end, for `reason`.
    pub(super) fn cut_short(mut self, context: &mut Context, reason: IncomparableReason) -> Answered {
        self.damage(context, reason);
        match (self.keep, self.status) {
            (Keep::Damaged(reason), Some(status)) => {
                Answered::Partly { status, reason, timing: Err(UntimedReason::Unknown) }
            }
            _ if self.is_interim => Answered::Not(IncomparableReason::Unpaired),
            _ => Answered::Not(reason),
        }
    }

    fn timing(&self, asking: Asking) -> Result<Timing, UntimedReason> {
        let Self { first_byte_at, last_byte_at, is_early, ends_in_gap, .. } = *self;
        match asking.asked_at {
            _ if is_early => Err(UntimedReason::Early),
            Some(asked_at) if first_byte_at < asked_at => Err(UntimedReason::Early),
            _ if asking.is_pipelined => Err(UntimedReason::Pipelined),
            Some(asked_at) if !ends_in_gap => {
                // The point of observation lies at the server.
                Ok(Timing { asked_at, first_byte_at, last_byte_at, round_trip: std::time::Duration::ZERO })
            }
            _ => Err(UntimedReason::Unknown),
        }
    }
}

/// Bytes that are charged for what is held of a response.
fn held(head: &Bytes, content: &Vec<u8>) -> usize {
    head.len().saturating_add(content.capacity())
}
