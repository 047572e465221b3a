//! Enters: the events of one request as it passes. Leaves: the request held whole, a report of it, or nothing.

use std::sync::Arc;

use bytes::Bytes;

use crate::pipeline::{
    ExchangeId, FlowKey, Limits, ReplyTo, Request, Timestamp,
    exchange::{
        builder::MessageBuilder,
        context::{Context, Purpose},
        report::{MessageReport, Place},
    },
    http::{Framing, RequestFacts, RequestHead},
    policy::Selection,
    reason::LostReason,
};

/// Most bytes set aside for a body on the word of its Content-Length alone, where there is much room.
const MAX_ADVANCE_BYTES: usize = 64 * 1024;

/// A request in progress.
#[derive(Debug)]
pub(crate) struct OpenRequest {
    pub(crate) id: ExchangeId,
    pub(crate) reply_to: ReplyTo,
    /// The flow may be handed to another protocol by the answer: an upgrade was asked for, or CONNECT.
    pub(crate) handover: bool,
    pub(crate) go_ahead: GoAhead,
    flags: HeadFlags,
    /// Length of the head in bytes; 0 before it is complete.
    head_len: u32,
    first_byte_at: Timestamp,
    last_byte_at: Timestamp,
    keep: Keep,
}

/// What the head says and the copy needs, in one byte: every flow in the table has room for it.
#[derive(Clone, Copy, Debug)]
struct HeadFlags(u8);

impl HeadFlags {
    const KEEP_ALIVE: u8 = 1;
    const HAS_MARKER: u8 = 2;

    const fn of(facts: &RequestFacts) -> Self {
        let keep_alive = if facts.keep_alive { Self::KEEP_ALIVE } else { 0 };
        Self(keep_alive | if facts.has_marker { Self::HAS_MARKER } else { 0 })
    }

    const fn has(self, flag: u8) -> bool {
        self.0 & flag != 0
    }
}

/// Whether a client sends the body of its request without being asked for it (RFC 9110 section 10.1.1).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum GoAhead {
    /// It does not wait.
    NotAwaited,
    /// It waits for an interim response.
    Awaited,
    /// It waits, and the server has sent something that was not seen or does not begin like a response.
    Unclear,
    /// A final answer came while it waited.
    AnsweredEarly,
    /// There is no question any more: the body has begun.
    BodyBegun,
}

/// What is kept of a request.
#[derive(Debug)]
enum Keep {
    /// The head is not complete.
    Undecided {
        start: Place,
        /// Why `run` would not replay it. Only for [`Purpose::Inspect`], which tells of the request all the same.
        refused: Option<LostReason>,
    },
    /// It is settled; its remaining bytes are stepped over.
    Settled,
    /// All its bytes.
    Whole { raw: Vec<u8>, selection: Arc<Selection> },
    /// A description.
    Report(Box<MessageBuilder>),
}

impl OpenRequest {
    /// A request of which the first byte, at `start`, was seen `at`.
    pub(crate) fn begin(context: &mut Context, start: Place, at: Timestamp) -> Self {
        Self {
            id: context.see(at),
            reply_to: ReplyTo::Other,
            handover: false,
            go_ahead: GoAhead::NotAwaited,
            flags: HeadFlags(HeadFlags::KEEP_ALIVE),
            head_len: 0,
            first_byte_at: at,
            last_byte_at: at,
            keep: Keep::Undecided { start, refused: None },
        }
    }

    /// Takes the complete head, with which `arrived` bytes behind it have come, and decides what to keep.
    pub(crate) fn head(
        &mut self,
        context: &mut Context,
        flow: &FlowKey,
        head: &RequestHead<'_>,
        arrived: usize,
        at: Timestamp,
    ) {
        self.last_byte_at = self.last_byte_at.max(at);
        self.reply_to = head.reply_to();
        self.handover = head.facts.upgrade || head.facts.connect;
        if head.facts.expect_continue {
            self.go_ahead = GoAhead::Awaited;
        }
        // Heads are at most as long as the limit for them, which is far below.
        self.head_len = u32::try_from(head.raw.len()).unwrap_or(u32::MAX);
        self.flags = HeadFlags::of(&head.facts);
        let Keep::Undecided { start, refused } = self.keep else {
            return; // damaged before its head was complete
        };
        if let Purpose::Inspect = &context.purpose {
            let mut builder = MessageBuilder::request(head, start, self.first_byte_at, at);
            let is_too_long = head.raw.len() > Limits::default().head_bytes;
            let too_long = is_too_long.then_some(LostReason::HeadTooLarge);
            if let Some(reason) = refused.or(too_long).or(head.facts.refusal.map(LostReason::from)) {
                builder.refuse(reason);
            }
            self.keep = Keep::Report(Box::new(builder));
            return;
        }
        let body_len = match head.facts.framing {
            Framing::Length(len) => usize::try_from(len).unwrap_or(usize::MAX),
            Framing::None
            | Framing::Chunked
            | Framing::UntilClose
            | Framing::Ambiguous
            | Framing::Garbled => 0,
        };
        let with_head = |body: usize| head.raw.len().saturating_add(body);
        let selection = match context.select(self.id, flow, head) {
            Ok(selection) => selection,
            Err(reason) => {
                self.keep = Keep::Settled;
                context.skip(reason);
                return;
            }
        };
        if body_len > context.limits.body_bytes {
            self.lose(context, LostReason::TooLarge);
        } else if !context.may_hold(0, with_head(body_len.min(arrived))) {
            self.lose(context, LostReason::Memory);
        } else {
            let advance = with_head(body_len.min(MAX_ADVANCE_BYTES));
            // Else anybody could take much memory by a few bytes that announce many.
            let is_set_aside = context.may_set_aside(advance);
            let capacity = if is_set_aside { advance } else { with_head(body_len.min(arrived)) };
            let mut raw = Vec::with_capacity(capacity);
            raw.extend_from_slice(head.raw);
            context.hold(0, raw.capacity());
            self.keep = Keep::Whole { raw, selection };
        }
    }

    /// Takes bytes of the body: content, or the framing around it.
    pub(crate) fn body(&mut self, context: &mut Context, bytes: &[u8], is_content: bool, at: Timestamp) {
        self.go_ahead = GoAhead::BodyBegun;
        self.last_byte_at = self.last_byte_at.max(at);
        match &mut self.keep {
            Keep::Undecided { .. } | Keep::Settled => {}
            Keep::Report(builder) => builder.body(bytes, is_content, at),
            Keep::Whole { raw, .. } => {
                let body_len = raw.len().saturating_sub(to_usize(self.head_len)).saturating_add(bytes.len());
                if body_len > context.limits.body_bytes {
                    self.lose(context, LostReason::TooLarge);
                } else if !make_room(context, raw, bytes.len(), Context::may_hold) {
                    self.lose(context, LostReason::Memory);
                } else {
                    raw.extend_from_slice(bytes);
                }
            }
        }
    }

    /// Notes that bytes of the body are missing while the framing stays known.
    pub(crate) fn gap(&mut self, context: &mut Context) {
        self.go_ahead = GoAhead::BodyBegun;
        if let Keep::Report(builder) = &mut self.keep {
            builder.gap();
        }
        self.lose(context, LostReason::Gap);
    }

    /// Settles the request as lost, unless it is settled already; its bytes are let go.
    pub(crate) fn lose(&mut self, context: &mut Context, reason: LostReason) {
        match &mut self.keep {
            Keep::Settled => return,
            // A report goes on: it says what was there. The count is made when it is told.
            Keep::Report(builder) => return builder.refuse(reason),
            Keep::Undecided { refused, .. } if matches!(context.purpose, Purpose::Inspect) => {
                *refused = refused.or(Some(reason));
                return;
            }
            Keep::Undecided { .. } => {}
            Keep::Whole { raw, .. } => context.hold(raw.capacity(), 0),
        }
        self.keep = Keep::Settled;
        context.lose(reason);
    }

    /// Bytes of memory that it takes, not counting its head before that is complete.
    pub(crate) const fn bytes_held(&self) -> usize {
        match &self.keep {
            Keep::Whole { raw, .. } => raw.capacity(),
            Keep::Undecided { .. } | Keep::Settled | Keep::Report(_) => 0,
        }
    }

    /// Takes the end of the message: a whole request is handed out, a report is closed.
    pub(crate) fn end(self, context: &mut Context, flow: &FlowKey) -> Option<MessageReport> {
        match self.keep {
            Keep::Undecided { .. } | Keep::Settled => None,
            Keep::Report(builder) => {
                context.tell();
                Some(builder.finish(true))
            }
            Keep::Whole { mut raw, selection } => {
                context.hold(raw.capacity(), 0);
                // From here on it is charged by its length: a buffer that grew by doubling must not hold more.
                if raw.capacity().saturating_sub(raw.len()) > raw.len() / 8 {
                    raw.shrink_to_fit();
                }
                context.hand_out(Request {
                    id: self.id,
                    selection,
                    flow: *flow,
                    raw: Bytes::from(raw),
                    head_len: to_usize(self.head_len),
                    reply_to: self.reply_to,
                    keep_alive: self.flags.has(HeadFlags::KEEP_ALIVE),
                    first_byte_at: self.first_byte_at,
                    last_byte_at: self.last_byte_at,
                    has_marker: self.flags.has(HeadFlags::HAS_MARKER),
                    flow_id: context.flow_id,
                });
                None
            }
        }
    }

    /// Takes the end of a message that is not complete.
    pub(crate) fn cut_short(mut self, context: &mut Context, reason: LostReason) -> Option<MessageReport> {
        self.lose(context, reason);
        match self.keep {
            Keep::Report(builder) => {
                context.tell();
                Some(builder.finish(false))
            }
            Keep::Undecided { refused, .. } => {
                context.lose(refused.unwrap_or(reason));
                None
            }
            Keep::Settled | Keep::Whole { .. } => None,
        }
    }
}

fn to_usize(len: u32) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}

/// Makes room for `more` bytes in `raw`, twice what is there if possible, so that bytes are seldom moved. False where the
/// memory does not allow it, as `may_hold` says.
pub(super) fn make_room(
    context: &mut Context,
    raw: &mut Vec<u8>,
    more: usize,
    may_hold: impl Fn(&Context, usize, usize) -> bool,
) -> bool {
    let capacity = raw.capacity();
    let needed = raw.len().saturating_add(more).saturating_sub(capacity);
    if needed == 0 {
        return true;
    }
    let Some(growth) =
        [needed.max(capacity), needed].into_iter().find(|growth| may_hold(context, capacity, *growth))
    else {
        return false;
    };
    raw.reserve_exact(capacity.saturating_sub(raw.len()).saturating_add(growth));
    context.hold(capacity, raw.capacity());
    true
}
