//! Enters: the server's byte stream in full, and when requests began and ended. Leaves: how each request was answered.
//!
//! One wrong pair would look like a bug in every later one, so nothing is guessed. In step, the streams of both sides are
//! known to their last byte since a moment at which nothing was outstanding: then a response belongs to the oldest
//! request that has none, and the server must have received some of it. Whatever may hide the start of a message, on
//! either side, ends that; until the next [`Lull`], requests go without their answers.

use std::collections::VecDeque;

use crate::pipeline::{
    Acked, Answered, ExchangeId, FlowKey, GapCause, ReplyTo, SeqNumber, Timestamp,
    exchange::{
        context::{Context, Unread},
        lull::Lull,
        missing,
        observer::{RequestObserver, Run},
        quiet::QuietMoments,
        report::{MessageReport, Place},
        response::{Asking, Response},
    },
    http::{EndEffect, Event, GapEffect, Refusal, ResponseDecoder},
    reason::IncomparableReason,
};

/// What is left of a response must be at least so many bytes for saying that nobody reads them: of less, most has passed by
/// the time that the kernel program knows.
const LEAST_UNREAD_BYTES: u64 = 128 * 1024;

/// Most bytes of which it is said at a time: sequence numbers wrap.
const MAX_UNREAD_BYTES: u64 = 1 << 30;

/// The responses of one flow and the requests that they answer.
#[derive(Debug)]
pub(crate) struct Answers {
    step: Step,
    /// Requests whose answer or end is awaited, oldest first; all but the last have ended.
    waiting: VecDeque<Waiting>,
    /// That of shadows' responses: both sides are judged by the same yardstick.
    decoder: ResponseDecoder,
    /// The response to the first of `waiting`.
    current: Option<Response>,
    /// What was said to be unread of it.
    unread: Option<Stretch>,
    lull: Lull,
}

/// A run of a flow's server stream.
#[derive(Debug)]
struct Stretch {
    flow: FlowKey,
    /// Offset behind its last byte.
    end: u64,
}

/// What is known of which response belongs to which request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Step {
    /// All.
    In,
    /// Nothing, until nothing is outstanding.
    Out,
    /// There will be no more answers, for this reason.
    Over(IncomparableReason),
}

/// A request that is not over on both sides.
#[derive(Debug)]
struct Waiting {
    id: ExchangeId,
    /// Offset of its first byte in the client's stream.
    start: u64,
    reply_to: ReplyTo,
    has_head: bool,
    has_ended: bool,
    /// Somebody may ask for its answer.
    is_wanted: bool,
    asking: Asking,
    /// Its answer, which came before it had ended, and the bytes that are charged for that.
    early: Option<(Answered, usize)>,
}

impl RequestObserver for Answers {
    fn begun(&mut self, context: &mut Context, id: ExchangeId, offset: u64, run: &Run<'_>) {
        self.accounted(context, |answers, context| answers.add(context, id, offset, run));
    }

    fn head(&mut self, id: ExchangeId, reply_to: ReplyTo) {
        if let Some(waiting) = self.waiting.back_mut().filter(|waiting| waiting.id == id) {
            waiting.reply_to = reply_to;
            waiting.has_head = true;
        }
    }

    fn ended(&mut self, context: &mut Context, id: ExchangeId, _report: Option<MessageReport>) {
        let asked_at = context.take_asked(id);
        let Some(waiting) = self.waiting.back_mut().filter(|waiting| waiting.id == id) else {
            if asked_at.is_some() {
                context.answer(id, Answered::Not(self.step.reason()));
            }
            return;
        };
        waiting.has_ended = true;
        waiting.is_wanted = asked_at.is_some();
        waiting.asking.asked_at = asked_at;
        if let Some((answered, bytes)) = waiting.early.take() {
            context.hold(bytes, 0);
            if asked_at.is_some() {
                context.answer(id, answered);
            }
            self.waiting.pop_back();
        }
    }

    fn out_of_step(&mut self, context: &mut Context) {
        self.accounted(context, |answers, context| {
            answers.lose_step(context, IncomparableReason::Unpaired);
        });
    }

    fn quiet_moments(&self) -> Option<&QuietMoments> {
        None
    }
}

impl Answers {
    /// Follows a flow of which the client has sent something `at`; `is_new` where nothing but the handshake was sent before
    /// that. `None` where the memory for messages is
    /// exhausted.
    pub(super) fn follow(context: &mut Context, is_new: bool, at: Timestamp) -> Option<Self> {
        if !context.may_hold_answer(0, size_of::<Self>()) {
            return None;
        }
        let mut answers = Self {
            step: if is_new { Step::In } else { Step::Out },
            waiting: VecDeque::new(),
            decoder: ResponseDecoder::new(&context.limits),
            current: None,
            unread: None,
            lull: Lull::default(),
        };
        answers.client_sent(at);
        context.hold(0, answers.own_bytes());
        Some(answers)
    }

    /// Takes note of bytes of the client's stream, which were sent `at`.
    pub(super) fn client_sent(&mut self, at: Timestamp) {
        self.lull.client_sent(at);
    }

    /// Whether what the server sends next cannot be the start of a response.
    pub(super) const fn is_within_response(&self) -> bool {
        matches!(self.step, Step::In) && !self.decoder.is_between_messages()
    }

    /// Takes bytes of the server's stream; `run.acked` is how far it had received of the client's.
    pub(super) fn data(&mut self, context: &mut Context, run: &Run<'_>) {
        let has_spoken_before = run.start.offset != self.lull.server_end();
        self.lull.server_sent(run);
        self.accounted(context, |answers, context| {
            if has_spoken_before {
                // Before it was asked anything.
                answers.lose_step(context, IncomparableReason::Unpaired);
            } else if run.conflict {
                let len = u64::try_from(run.bytes.len()).unwrap_or(u64::MAX);
                answers.step_over(context, len, IncomparableReason::Conflict, None);
            } else if answers.step == Step::In {
                answers.decode(context, run);
            }
        });
    }

    /// Takes bytes that are missing from the server's stream, and were sent `by` then at the latest; at that time where they
    /// were seen and left out.
    pub(super) fn gap(
        &mut self,
        context: &mut Context,
        (offset, len): (u64, u64),
        by: Timestamp,
        cause: GapCause,
    ) {
        self.lull.server_missed(offset, len, by);
        let sent_at = (cause == GapCause::NotCopied).then_some(by);
        self.accounted(context, |answers, context| {
            answers.step_over(context, missing(len, cause), IncomparableReason::Gap, sent_at);
        });
    }

    /// Says what nobody reads of the response under way on `flow`, where it is worth saying and has not been said; `next`
    /// is the place behind the bytes that were taken last.
    pub(super) fn tell_unread(&mut self, context: &mut Context, flow: &FlowKey, next: Place) {
        let is_unread = self.step == Step::In && self.current.as_ref().is_some_and(Response::is_unread);
        if !is_unread || self.unread.as_ref().is_some_and(|unread| next.offset < unread.end) {
            return;
        }
        let len = self.decoder.content_ahead().min(MAX_UNREAD_BYTES);
        if len >= LEAST_UNREAD_BYTES {
            self.unread = Some(Stretch { flow: *flow, end: next.offset.saturating_add(len) });
            context.tell_unread(Unread { flow: *flow, seq: next.seq, len: u32::try_from(len).unwrap_or(0) });
        }
    }

    /// What comes next is read again.
    fn end_unread(&mut self, context: &mut Context) {
        if let Some(Stretch { flow, .. }) = self.unread.take() {
            context.tell_unread(Unread { flow, seq: SeqNumber(0), len: 0 });
        }
    }

    /// Takes the end of the server's stream.
    pub(super) fn end(&mut self, context: &mut Context, is_reset: bool) {
        self.accounted(context, |answers, context| {
            if answers.step == Step::In {
                let is_cut = is_reset && answers.decoder.is_until_close();
                // RFC 9112 section 8: what ends with the connection is complete unless that indicated an error.
                if answers.decoder.handle_end() == EndEffect::Complete && !is_cut {
                    answers.finish(context);
                }
            }
            answers.end_unread(context);
            answers.give_up(context, IncomparableReason::Aborted, IncomparableReason::Aborted);
            answers.step = Step::Over(IncomparableReason::Aborted);
        });
    }

    /// Nothing more is taken: whatever is open is settled for `reason`.
    pub(super) fn close(&mut self, context: &mut Context, reason: IncomparableReason) {
        self.end_unread(context);
        self.give_up(context, reason, reason);
        for (_, bytes) in self.waiting.drain(..).filter_map(|waiting| waiting.early) {
            context.hold(bytes, 0);
        }
        self.step = Step::Over(reason);
        context.hold(self.own_bytes(), 0);
    }

    /// Takes note of a request.
    fn add(&mut self, context: &mut Context, id: ExchangeId, offset: u64, run: &Run<'_>) {
        if self.step == Step::Out && self.lull.is_at(offset, run) {
            self.decoder.reset();
            self.step = Step::In;
        }
        if self.step != Step::In {
            return;
        }
        if self.waiting.len() >= context.limits.outstanding {
            return self.lose_step(context, IncomparableReason::Unpaired);
        }
        self.waiting.push_back(Waiting {
            id,
            start: offset,
            reply_to: ReplyTo::Other,
            has_head: false,
            has_ended: false,
            is_wanted: true,
            asking: Asking { asked_at: None, is_pipelined: !self.waiting.is_empty() },
            early: None,
        });
    }

    /// Decodes bytes of a stream that is in step.
    fn decode(&mut self, context: &mut Context, run: &Run<'_>) {
        let mut input = run.bytes;
        loop {
            let reply_to = self.waiting.front().map_or(ReplyTo::Other, |waiting| waiting.reply_to);
            match self.decoder.poll(&mut input, reply_to) {
                Event::NeedMore => return,
                Event::Start => {
                    // What the server says without having been asked leaves open what its next words answer.
                    let Some(asked) = self.waiting.front().filter(|asked| asked.is_answered_by(run.acked))
                    else {
                        return self.lose_step(context, IncomparableReason::Unpaired);
                    };
                    self.current = Some(Response::begin(run.at, !asked.has_ended));
                }
                Event::Head(head) => {
                    let (Some(current), Some(asked)) = (&mut self.current, self.waiting.front()) else {
                        return;
                    };
                    let (has_head, is_tunnel) = (asked.has_head, head.facts.tunnel);
                    current.head(context, &head, run.at, asked.is_wanted);
                    if is_tunnel {
                        let reason = IncomparableReason::Upgraded;
                        self.give_up(context, reason, reason);
                        self.step = Step::Over(reason);
                        return;
                    }
                    if !has_head {
                        // How it is framed depends on a method that nobody knows.
                        return self.lose_step(context, IncomparableReason::Unpaired);
                    }
                }
                Event::Content(bytes) => self.body(context, bytes, true, run.at),
                Event::Framing(bytes) => self.body(context, bytes, false, run.at),
                Event::End => self.finish(context),
                Event::Refused(refusal) => {
                    return self.lose_step(
                        context,
                        match refusal {
                            Refusal::HeadTooLarge => IncomparableReason::TooLarge,
                            Refusal::AmbiguousFraming | Refusal::Malformed => IncomparableReason::Malformed,
                        },
                    );
                }
            }
        }
    }

    fn body(&mut self, context: &mut Context, bytes: &[u8], is_content: bool, at: Timestamp) {
        if let Some(current) = &mut self.current {
            current.body(context, bytes, is_content, at);
        }
    }

    /// Steps over bytes that are missing, or not certain.
    fn step_over(
        &mut self,
        context: &mut Context,
        len: u64,
        reason: IncomparableReason,
        sent_at: Option<Timestamp>,
    ) {
        if self.step != Step::In {
            return;
        }
        match self.decoder.handle_gap(len) {
            GapEffect::InBody => {
                if let Some(current) = &mut self.current {
                    current.gap(context, reason, sent_at);
                }
                // The gap may reach to the end of the body.
                if matches!(self.decoder.poll(&mut &[][..], ReplyTo::Other), Event::End) {
                    self.finish(context);
                }
            }
            GapEffect::Ignored => {}
            GapEffect::Lost | GapEffect::Between => self.lose_step(context, reason),
        }
    }

    /// The current response was followed to its end.
    fn finish(&mut self, context: &mut Context) {
        self.end_unread(context);
        let Some(current) = self.current.take().filter(|current| !current.is_interim) else { return };
        let Some(mut asked) = self.waiting.pop_front() else { return };
        let (answered, bytes) = current.finish(asked.asking);
        if asked.has_ended {
            context.hold(bytes, 0);
            if asked.is_wanted {
                context.answer(asked.id, answered);
            }
        } else {
            asked.early = Some((answered, bytes));
            self.waiting.push_front(asked);
        }
    }

    /// It is not certain any more which response belongs to which request; the one under way is damaged for `reason`.
    fn lose_step(&mut self, context: &mut Context, reason: IncomparableReason) {
        self.end_unread(context);
        if self.step == Step::In {
            self.give_up(context, reason, IncomparableReason::Unpaired);
            self.decoder.reset();
            self.step = Step::Out;
        }
    }

    /// Settles the request whose response is under way for one reason, and the others for another. Of the last one, if
    /// it goes on, an answer that is there stays.
    fn give_up(&mut self, context: &mut Context, reason: IncomparableReason, others: IncomparableReason) {
        let current = self.current.take().map(|current| current.cut_short(context, reason));
        let mut firsts = current.into_iter();
        self.waiting.retain(|waiting| {
            let is_early = waiting.early.is_some();
            let answered = if is_early { None } else { firsts.next() };
            if waiting.has_ended && waiting.is_wanted {
                context.answer(waiting.id, answered.unwrap_or(Answered::Not(others)));
            }
            is_early
        });
    }

    /// Acts, and keeps the context's account of [`Self::own_bytes`]. Where the memory does not allow it, pairing is given
    /// up.
    fn accounted(&mut self, context: &mut Context, act: impl FnOnce(&mut Self, &mut Context)) {
        let before = self.own_bytes();
        act(self, context);
        let after = self.own_bytes();
        context.hold(before, after);
        if after > before && !context.may_hold_answer(after, 0) {
            self.lose_step(context, IncomparableReason::Memory);
            self.waiting.shrink_to_fit();
            context.hold(after, self.own_bytes());
        }
    }

    /// Bytes of memory beside what is held of responses.
    fn own_bytes(&self) -> usize {
        let waiting = self.waiting.capacity().saturating_mul(size_of::<Waiting>());
        size_of::<Self>().saturating_add(self.decoder.bytes_held()).saturating_add(waiting)
    }
}

impl Step {
    /// Why a request goes without its answer.
    const fn reason(self) -> IncomparableReason {
        match self {
            Self::In | Self::Out => IncomparableReason::Unpaired,
            Self::Over(reason) => reason,
        }
    }
}

impl Waiting {
    /// Whether a response may answer it that the server began when it had received so much of the client's stream.
    fn is_answered_by(&self, acked: Acked) -> bool {
        self.early.is_none() && acked.offset().is_some_and(|acked| acked > self.start)
    }
}
