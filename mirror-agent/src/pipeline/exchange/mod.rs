//! Enters: spans of both sides of each flow. Leaves: requests to replay, reports of exchanges, and counts.

mod answers;
mod builder;
mod client;
mod context;
mod holders;
mod lull;
mod message;
mod mode;
mod observer;
mod open;
mod pairing;
mod quiet;
pub mod report;
mod response;
mod trust;

#[cfg(test)]
mod tests;

pub(crate) use context::Context;
pub use context::{Probe, Purpose, Unread, probe_id};

use crate::pipeline::{
    Acked, Answered, ExchangeId, FlowKey, GapCause, Side, Span, Timestamp,
    exchange::{
        answers::Answers,
        client::ClientSide,
        observer::{RequestObserver, Run},
        pairing::Pairing,
        quiet::QuietMoments,
        report::{MessageReport, Place},
    },
    flow::{CloseCause, FlowHandler, FlowInfo, Interest},
    http::sniff::response_start,
    message::ReplyTo,
    reason::{IncomparableReason, LostReason},
};

/// What the HTTP stage remembers of one flow.
#[derive(Debug)]
pub(crate) struct Connection {
    client: ClientSide,
    server: ServerSide,
}

/// With its entry in the flow table, 200,000 idle flows take less than 64 MiB.
#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<Connection>() <= 152);

/// How the server's side is followed.
#[derive(Debug)]
enum ServerSide {
    /// Its payload is not copied but for the first bytes of a segment that begins a response.
    Peek(NoPairing),
    /// Its payload is there in full.
    Full(Box<Paired>),
}

/// What is made of the server's payload.
#[derive(Debug)]
enum Paired {
    /// Reports of all exchanges.
    Reports(Pairing),
    /// Answers to requests that were handed out.
    Answers(Answers),
}

/// Requests are not paired with responses.
#[derive(Debug)]
struct NoPairing;

impl RequestObserver for NoPairing {
    fn begun(&mut self, _context: &mut Context, _id: ExchangeId, _offset: u64, _run: &Run<'_>) {}
    fn head(&mut self, _id: ExchangeId, _reply_to: ReplyTo) {}
    fn ended(&mut self, context: &mut Context, id: ExchangeId, _report: Option<MessageReport>) {
        if context.take_asked(id).is_some() {
            context.answer(id, Answered::Not(IncomparableReason::Unpaired));
            context.misses_answers = true;
        }
    }
    fn quiet_moments(&self) -> Option<&QuietMoments> {
        None
    }
}

impl Connection {
    /// Pairs requests with responses from here on; `is_new` where nothing but the handshake has been sent before what was
    /// sent `at`.
    fn follow_answers(&mut self, context: &mut Context, is_new: bool, at: Timestamp) {
        if let Some(answers) = Answers::follow(context, is_new, at) {
            self.server = ServerSide::Full(Box::new(Paired::Answers(answers)));
        }
    }

    /// Pairs them no more: whatever is open is settled for `reason`.
    fn leave_answers(&mut self, context: &mut Context, reason: IncomparableReason) {
        if let ServerSide::Full(paired) = &mut self.server {
            match paired.as_mut() {
                Paired::Reports(pairing) => pairing.close(context),
                Paired::Answers(answers) => answers.close(context, reason),
            }
            self.server = ServerSide::Peek(NoPairing);
        }
    }
}

impl FlowHandler for Context {
    type State = Connection;

    fn open(&mut self, flow: &FlowInfo) -> Connection {
        Connection {
            client: ClientSide::new(self, flow.adopted),
            server: match self.purpose {
                Purpose::Replay(_) => ServerSide::Peek(NoPairing),
                Purpose::Inspect => {
                    ServerSide::Full(Box::new(Paired::Reports(Pairing::new(self, flow.key, flow.adopted))))
                }
            },
        }
    }

    fn span(&mut self, flow: &FlowInfo, connection: &mut Connection, side: Side, span: Span<'_>) -> Interest {
        self.flow_id = flow.id;
        let (Span::Data { at, .. } | Span::Gap { at, .. } | Span::End { at, .. }) = span;
        if self.reads_answers()
            && matches!((&connection.server, side), (ServerSide::Peek(_), Side::Client))
            && !flow.adopted
            && matches!(span, Span::Data { offset: 0, acked: Acked::Offset(0), .. })
            && self.reads_answers_of(&flow.key.server)
        {
            connection.follow_answers(self, true, at);
        }
        let Connection { client, server } = connection;
        let interest = match server {
            ServerSide::Peek(observer) => match side {
                Side::Client => client_span(self, &flow.key, client, observer, span),
                Side::Server => peek(self, &flow.key, client, observer, span),
            },
            ServerSide::Full(paired) => match (side, paired.as_mut()) {
                (Side::Client, Paired::Reports(pairing)) => {
                    let interest = client_span(self, &flow.key, client, pairing, span);
                    if matches!(span, Span::Data { .. }) {
                        pairing.client_sent(at);
                    }
                    interest
                }
                (Side::Server, Paired::Reports(pairing)) => {
                    server_span(self, &flow.key, client, pairing, span)
                }
                (side, Paired::Answers(answers)) => {
                    answers_span(self, &flow.key, client, answers, (side, span))
                }
            },
        };
        // The flow table keeps the state of a flow that nobody wants until it ends: as little as possible.
        let misses_answers = std::mem::take(&mut self.misses_answers);
        if interest == Interest::Ignore {
            connection.leave_answers(self, IncomparableReason::Upgraded);
        } else if self.reads_answers() {
            if misses_answers {
                connection.follow_answers(self, false, at);
            }
        } else if matches!(self.purpose, Purpose::Replay(_)) {
            connection.leave_answers(self, IncomparableReason::Unpaired);
        }
        interest
    }

    fn relieve(&mut self, flow: &FlowInfo, connection: &mut Connection) -> Interest {
        self.flow_id = flow.id;
        let Connection { client, server } = &mut *connection;
        let interest = match server {
            ServerSide::Peek(observer) => client.relieve(self, observer),
            ServerSide::Full(paired) => match paired.as_mut() {
                Paired::Reports(pairing) => client.relieve(self, pairing),
                Paired::Answers(answers) => client.relieve(self, answers),
            },
        };
        if interest == Interest::Ignore {
            connection.leave_answers(self, IncomparableReason::Upgraded);
        }
        interest
    }

    fn close(&mut self, flow: &FlowInfo, mut connection: Connection, cause: CloseCause, _at: Timestamp) {
        self.flow_id = flow.id;
        let reason = match cause {
            CloseCause::Ended | CloseCause::Finished => LostReason::Aborted,
            CloseCause::Evicted(_) => LostReason::Evicted,
        };
        let Connection { client, server } = &mut connection;
        match server {
            ServerSide::Peek(observer) => client.close(self, reason, observer),
            ServerSide::Full(paired) => match paired.as_mut() {
                Paired::Reports(pairing) => {
                    client.close(self, reason, pairing);
                    pairing.close(self);
                }
                Paired::Answers(answers) => {
                    // First, so that what is open is not taken for unpaired.
                    answers.close(self, IncomparableReason::Aborted);
                    client.close(self, reason, &mut NoPairing);
                }
            },
        }
    }
}

fn client_span(
    context: &mut Context,
    flow: &FlowKey,
    client: &mut ClientSide,
    observer: &mut impl RequestObserver,
    span: Span<'_>,
) -> Interest {
    match span {
        Span::Data { bytes, offset, seq, at, acked, conflict } => {
            let run = Run { bytes, start: Place { offset, seq }, at, acked, conflict };
            return client.data(context, flow, run, observer);
        }
        Span::Gap { len, cause, .. } => client.gap(context, missing(len, cause), observer),
        Span::End { .. } => client.end(context, flow, observer),
    }
    Interest::Continue
}

/// How many bytes a decoder has to step over: more than any message has where nobody knows how many they are.
const fn missing(len: u64, cause: GapCause) -> u64 {
    match cause {
        GapCause::Lost | GapCause::NotCopied => len,
        GapCause::Unmeasured => u64::MAX,
    }
}

/// Follows either side of a flow of which the answers are read.
fn answers_span(
    context: &mut Context,
    flow: &FlowKey,
    client: &mut ClientSide,
    answers: &mut Answers,
    (side, span): (Side, Span<'_>),
) -> Interest {
    match (side, span) {
        (Side::Client, Span::Data { at, conflict, .. }) => {
            if conflict {
                answers.out_of_step(context);
            }
            let interest = client_span(context, flow, client, answers, span);
            answers.client_sent(at);
            return interest;
        }
        (Side::Client, span) => return client_span(context, flow, client, answers, span),
        (Side::Server, Span::Data { bytes, offset, seq, at, acked, conflict }) => {
            // As much is taken from it for the client's side as where nothing else is copied.
            let is_start = !answers.is_within_response() && bytes.starts_with(b"HTTP/");
            let status = response_start(bytes).filter(|_| is_start);
            if is_start {
                client.server_sent(status, acked.offset());
            }
            let start = Place { offset, seq };
            answers.data(context, &Run { bytes, start, at, acked, conflict });
            answers.tell_unread(context, flow, start.advance(bytes.len()));
            if let Some(status) = status {
                return client.answered(context, flow, status, acked.offset(), answers);
            }
        }
        (Side::Server, Span::Gap { len, offset, at, cause }) => {
            if cause != GapCause::NotCopied {
                client.server_missed();
            }
            answers.gap(context, (offset, len), at, cause);
        }
        (Side::Server, Span::End { reset, .. }) => answers.end(context, reset),
    }
    Interest::Continue
}

/// Follows a server of which only the first bytes of responses are copied.
fn peek(
    context: &mut Context,
    flow: &FlowKey,
    client: &mut ClientSide,
    observer: &mut NoPairing,
    span: Span<'_>,
) -> Interest {
    match span {
        Span::Data { bytes, acked, .. } => {
            let (status, acked) = (response_start(bytes), acked.offset());
            client.server_sent(status, acked);
            if let Some(status) = status {
                return client.answered(context, flow, status, acked, observer);
            }
        }
        Span::Gap { cause: GapCause::Lost | GapCause::Unmeasured, .. } => client.server_missed(),
        Span::Gap { cause: GapCause::NotCopied, .. } | Span::End { .. } => {}
    }
    Interest::Continue
}

fn server_span(
    context: &mut Context,
    flow: &FlowKey,
    client: &mut ClientSide,
    pairing: &mut Pairing,
    span: Span<'_>,
) -> Interest {
    match span {
        Span::Data { bytes, offset, seq, at, acked, conflict } => {
            let status = response_start(bytes);
            client.server_sent(status, acked.offset());
            let mut run = Run { bytes, start: Place { offset, seq }, at, acked, conflict };
            pairing.server_sent(status, &run);
            while let Some((status, acked, behind)) = pairing.data(context, run) {
                if client.answered(context, flow, status, acked, pairing) == Interest::Ignore {
                    return Interest::Ignore;
                }
                run = behind;
            }
            if !pairing.is_in_step() {
                return client.server_is_foreign(context);
            }
        }
        Span::Gap { len, offset, at, cause } => pairing.gap(context, (offset, len), at, cause),
        Span::End { reset, .. } => pairing.end(context, !reset),
    }
    Interest::Continue
}
