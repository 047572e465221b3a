//! Enters: what is known where bytes come out of step. Leaves: whether a request may begin there.

use crate::pipeline::{
    SeqNumber,
    exchange::observer::Run,
    http::{
        Event, RequestDecoder,
        sniff::{lenient_pick_up, strict_request_start, whole_request_start},
    },
};

/// Length of `HTTP/1.1 100 Continue` with its two line ends, the least that a server says without an answer.
const GO_AHEAD_BYTES: i32 = 25;

/// A request that was taken for one by its shape alone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Guess {
    /// What was heard before the next run.
    heard: Heard,
    /// Whether it has begun: the next is another one.
    pub(super) has_begun: bool,
}

impl Guess {
    /// One that begins next.
    pub(super) const fn new(heard: Heard) -> Self {
        Self { heard, has_begun: false }
    }

    /// What was heard before `run`, behind which the next will be.
    pub(super) fn heard_before(&mut self, run: &Run<'_>) -> Heard {
        let behind = self.heard.behind(run);
        std::mem::replace(&mut self.heard, behind)
    }
}

/// What makes a message start believable.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Trust {
    /// A segment that begins like a request, and like no more than one: nothing else can be known of a connection older than
    /// the capture, until its server has answered. From then on as below.
    Shape,
    /// The same, where the server had received everything before it and begun to answer. After a gap a segment in the
    /// middle of a body must not be taken for a request.
    ShapeWhenQuiet,
}

/// What the flow says of the moment at which a run was sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Moment {
    /// The server had received everything before it and begun to answer.
    Quiet,
    /// It had not.
    Busy,
    /// The server has not been heard yet, nor does the client tell.
    Untold,
}

/// Where the server is never seen, how far the client had received its stream when it sent the bytes right before those that
/// come next.
#[derive(Clone, Copy, Debug)]
pub(super) enum Heard {
    /// A gap is between, or the client does not tell.
    Nothing,
    /// Up to here.
    UpTo(SeqNumber),
    /// Up to here, and among the bytes that were passed over may be a request after which the server says more than its answer;
    /// it has said nothing since.
    AwaitsGoAhead(SeqNumber),
}

impl Heard {
    /// The same behind `run`, which is passed over, too.
    pub(super) fn behind(self, run: &Run<'_>) -> Self {
        let Some(now) = run.acked.unseen() else { return Self::Nothing };
        match self {
            _ if may_await_go_ahead(run.bytes) => Self::AwaitsGoAhead(now),
            Self::AwaitsGoAhead(before) if !says_more(before, now) => self,
            Self::Nothing | Self::UpTo(_) | Self::AwaitsGoAhead(_) => Self::UpTo(now),
        }
    }

    /// Whether that shows that the server had answered everything before `run`.
    fn is_answered_before(self, run: &Run<'_>) -> bool {
        match (self, run.acked.unseen()) {
            (Self::UpTo(before), Some(now)) => says_more(before, now),
            _ => false,
        }
    }
}

/// Whether a server that had said all `before` and has said all up to `now` must have said more than a go-ahead.
fn says_more(before: SeqNumber, now: SeqNumber) -> bool {
    now.distance(before) > GO_AHEAD_BYTES
}

/// Whether bytes hold an expectation. What the server says to it may bear fields, and be of any length (RFC 9110 section
/// 15.2.1).
fn may_await_go_ahead(bytes: &[u8]) -> bool {
    const EXPECTATION: &[u8] = b"100-continue";
    bytes.windows(EXPECTATION.len()).any(|window| window.eq_ignore_ascii_case(EXPECTATION))
}

impl Moment {
    /// The moment of `run`. `answered_up_to` is how far the server had received when it last began to send, `None`
    /// before it did; `heard` is what is known before the run.
    ///
    /// Of a server that is never seen, the client tells: where it has received more than a go-ahead since the bytes
    /// before, those have been answered. That a client goes on with a body when it has an answer is possible, but
    /// what it goes on with must begin with a request, at the beginning of a segment.
    pub(super) fn of(run: &Run<'_>, answered_up_to: Option<u64>, heard: Heard) -> Self {
        match answered_up_to {
            Some(offset) if offset == run.start.offset => Self::Quiet,
            Some(_) => Self::Busy,
            None if heard.is_answered_before(run) => Self::Quiet,
            None => Self::Untold,
        }
    }
}

impl Trust {
    /// Whether a run that was sent at `moment` begins a request, judged by its first bytes.
    pub(super) fn believes(self, run: &Run<'_>, moment: Moment) -> bool {
        match (self, moment) {
            (Self::Shape, Moment::Quiet | Moment::Untold) => strict_request_start(run.bytes),
            (Self::ShapeWhenQuiet, Moment::Quiet) => whole_request_start(run.bytes),
            (_, Moment::Busy) | (Self::ShapeWhenQuiet, Moment::Untold) => false,
        }
    }
}

/// Whether a request that `bytes` begin with ends where they do, or goes on behind them. Of one that others follow in the same
/// run nobody knows whether it was sent together with them, or all of them are text in a body. The decoder is one between two
/// messages, and is left so.
pub(super) fn is_alone(decoder: &mut RequestDecoder, bytes: &[u8]) -> bool {
    let mut input = bytes;
    let is_alone = loop {
        match decoder.poll(&mut input) {
            Event::NeedMore => break true,
            Event::End => break input.is_empty(),
            Event::Refused(_) => break false,
            Event::Start | Event::Head(_) | Event::Content(_) | Event::Framing(_) => {}
        }
    };
    decoder.reset();
    is_alone
}

/// Whether a request starts at the first of `bytes`, for a lenient decoder.
pub(super) fn is_pick_up(bytes: &[u8]) -> bool {
    strict_request_start(bytes) || lenient_pick_up(bytes)
}
