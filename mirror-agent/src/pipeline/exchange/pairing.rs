//! Enters: the server's byte stream in full, and when requests began. Leaves: exchanges, each response with its request.

use std::collections::VecDeque;

use crate::pipeline::{
    Acked, ExchangeId, FlowKey, GapCause, ReplyTo, Timestamp,
    exchange::{
        builder::MessageBuilder,
        context::Context,
        lull::Lull,
        missing,
        observer::{RequestObserver, Run},
        open::{Key, Part},
        quiet::QuietMoments,
        report::{MessageReport, Place},
    },
    http::{
        EndEffect, Event, GapEffect, ResponseDecoder,
        sniff::{lenient_response_start, response_start},
    },
};

/// The responses of one flow and the requests they answer, oldest first.
#[derive(Debug)]
pub(crate) struct Pairing {
    flow: FlowKey,
    exchanges: VecDeque<OpenExchange>,
    outstanding_limit: usize,
    /// There were more unanswered requests than that: no response is paired until nothing is outstanding.
    has_given_up: bool,
    lull: Lull,
    decoder: ResponseDecoder,
    /// False while the start of the next response is looked for.
    in_step: bool,
    /// Bytes went missing that may have hidden the start of a response.
    may_have_missed: bool,
    current: Option<OpenResponse>,
    quiet: QuietMoments,
    /// Of responses that stand alone, how far the server had received: of a request before that, written to the file
    /// later, one of them is the answer. At most as many as requests may be outstanding.
    alone: VecDeque<u64>,
}

/// A response in progress.
#[derive(Debug)]
struct OpenResponse {
    id: ExchangeId,
    builder: Option<Box<MessageBuilder>>,
    start: Place,
    first_byte_at: Timestamp,
    /// How far the server had received of the client's stream when it began.
    acked: Acked,
    is_interim: bool,
}

/// An exchange of which not everything has been seen.
#[derive(Debug)]
struct OpenExchange {
    id: ExchangeId,
    begun_at: Timestamp,
    /// Offset of the request's first byte in the client's stream; `None` where there is no request.
    start: Option<u64>,
    /// How far the client had received of the server's stream when the request began.
    acked: Option<u64>,
    reply_to: ReplyTo,
    request_over: bool,
    response_over: bool,
}

/// A status that may concern the client's side: `(status, offset acknowledged)` of the newest request's response, and
/// what follows its head.
pub(crate) type Answer<'a> = (u16, Option<u64>, Run<'a>);

impl RequestObserver for Pairing {
    fn begun(&mut self, context: &mut Context, id: ExchangeId, offset: u64, run: &Run<'_>) {
        if self.has_given_up && self.lull.is_at(offset, run) {
            self.take_up(context);
        }
        let unanswered = self.exchanges.iter().filter(|exchange| !exchange.response_over).count();
        if unanswered >= self.outstanding_limit || context.open.is_crowded() {
            self.give_up(context);
        }
        let mut exchange = OpenExchange::new(id, run.at, Some(offset), run.acked.offset());
        let answered = self.alone.iter().position(|acked| *acked > offset);
        exchange.response_over = self.has_given_up || answered.is_some();
        if let Some(answered) = answered {
            self.alone.remove(answered);
        }
        self.exchanges.push_back(exchange);
    }

    fn head(&mut self, id: ExchangeId, reply_to: ReplyTo) {
        if let Some(exchange) = self.find(id) {
            exchange.reply_to = reply_to;
        }
    }

    fn ended(&mut self, context: &mut Context, id: ExchangeId, report: Option<MessageReport>) {
        let flow = self.flow;
        if let Some(exchange) = self.find(id) {
            exchange.request_over = true;
            if let Some(report) = report {
                context.keep(exchange.key(), flow, Part::Request(report));
            }
        }
        self.tell_finished(context);
    }

    fn quiet_moments(&self) -> Option<&QuietMoments> {
        Some(&self.quiet)
    }
}

impl Pairing {
    pub(crate) fn new(context: &Context, flow: FlowKey, adopted: bool) -> Self {
        Self {
            flow,
            exchanges: VecDeque::new(),
            outstanding_limit: context.limits.outstanding,
            has_given_up: false,
            lull: Lull::default(),
            decoder: ResponseDecoder::lenient(&context.limits),
            in_step: !adopted,
            may_have_missed: false,
            current: None,
            quiet: QuietMoments::default(),
            alone: VecDeque::new(),
        }
    }

    /// Takes note of bytes of the client's stream that were sent `at`.
    pub(crate) fn client_sent(&mut self, at: Timestamp) {
        self.lull.client_sent(at);
    }

    /// Takes note of bytes of the server's stream, which begin with `status` where they begin like a response; see
    /// [`QuietMoments::note`].
    pub(crate) fn server_sent(&mut self, status: Option<u16>, run: &Run<'_>) {
        self.quiet.note(status, run.acked.offset());
        self.lull.server_sent(run);
    }

    /// Takes bytes of the server's stream; `run.acked` is how far it had received of the client's. Stops at the head of a
    /// response to the newest request, which may change what the client's stream is: what is behind it is to be given
    /// once the client's side knows.
    pub(crate) fn data<'a>(&mut self, context: &mut Context, run: Run<'a>) -> Option<Answer<'a>> {
        if !self.in_step {
            if !lenient_response_start(run.bytes) {
                return None;
            }
            self.in_step = true;
        }
        let mut input = run.bytes;
        loop {
            if response_start(input).is_some() && self.may_answer_head(run.acked) {
                self.decoder.reset();
                self.finish(context, true);
            }
            let reply_to = self.reply_to();
            match self.decoder.poll(&mut input, reply_to) {
                Event::NeedMore => return None,
                Event::Start => {
                    let position = run.bytes.len().saturating_sub(input.len());
                    let start = run.start.advance(position);
                    let id = self.assign(context, start.offset, &run);
                    let first_byte_at = run.at;
                    let (acked, is_interim) = (run.acked, false);
                    self.current =
                        Some(OpenResponse { id, builder: None, start, first_byte_at, acked, is_interim });
                }
                Event::Head(head) => {
                    if let Some(current) = &mut self.current {
                        let mut builder =
                            MessageBuilder::response(&head, current.start, current.first_byte_at, run.at);
                        if let Some(refusal) = head.facts.refusal {
                            builder.refuse(refusal.into());
                        }
                        current.builder = Some(Box::new(builder));
                        current.is_interim = head.facts.interim;
                        if self.exchanges.back().is_some_and(|newest| newest.id == current.id) {
                            let taken = run.bytes.len().saturating_sub(input.len());
                            let behind = Run { bytes: input, start: run.start.advance(taken), ..run };
                            return Some((head.status, run.acked.offset(), behind));
                        }
                    }
                }
                Event::Content(bytes) => self.body(bytes, true, run.at),
                Event::Framing(bytes) => self.body(bytes, false, run.at),
                Event::End => self.finish(context, true),
                Event::Refused(refusal) => {
                    if let Some(builder) = self.current.as_mut().and_then(|current| current.builder.as_mut())
                    {
                        builder.refuse(refusal.into());
                    }
                    self.lose_step(context);
                    return None;
                }
            }
        }
    }

    /// Whether the head of a response was taken, none of its content, and nobody knows what it answers: what was asked for by
    /// HEAD announces content that does not come (RFC 9112 section 6.3). Nor may it come with what the server sends once it has
    /// received more, as far as `now`: content that begins like a response is sent without another request.
    fn may_answer_head(&self, now: Acked) -> bool {
        let Some(OpenResponse { id, builder: Some(builder), acked, .. }) = &self.current else {
            return false;
        };
        let has_received_more = match (*acked, now) {
            (Acked::Unseen(before), Acked::Unseen(now)) => before.is_before(now),
            (before, now) => before.offset().zip(now.offset()).is_none_or(|(before, now)| before < now),
        };
        let is_alone =
            || self.exchanges.iter().any(|exchange| exchange.id == *id && exchange.start.is_none());
        has_received_more && builder.is_without_content() && !self.decoder.is_between_messages() && is_alone()
    }

    /// Whether the last bytes of the server's stream were understood.
    pub(crate) const fn is_in_step(&self) -> bool {
        self.in_step
    }

    /// Takes bytes that are missing from the server's stream.
    pub(crate) fn gap(
        &mut self,
        context: &mut Context,
        (offset, len): (u64, u64),
        by: Timestamp,
        cause: GapCause,
    ) {
        self.lull.server_missed(offset, len, by);
        if !self.in_step {
            self.may_have_missed = true;
            return;
        }
        match self.decoder.handle_gap(missing(len, cause)) {
            GapEffect::InBody => {
                if let Some(builder) = self.current.as_mut().and_then(|current| current.builder.as_mut()) {
                    builder.gap();
                }
            }
            GapEffect::Ignored => {}
            GapEffect::Lost | GapEffect::Between => self.lose_step(context),
        }
    }

    /// Takes the end of the server's stream: an orderly one completes a response that ends with the connection.
    pub(crate) fn end(&mut self, context: &mut Context, is_orderly: bool) {
        // RFC 9112 section 8: such a response is complete unless the connection indicated an error.
        let ends_here = is_orderly || !self.decoder.is_until_close();
        let complete = self.decoder.handle_end() == EndEffect::Complete && ends_here;
        self.finish(context, complete);
        for exchange in &mut self.exchanges {
            exchange.response_over = true;
        }
        self.tell_finished(context);
    }

    /// Takes the end of the flow: whatever is open is told as it is.
    pub(crate) fn close(&mut self, context: &mut Context) {
        self.end(context, false);
        for exchange in &mut self.exchanges {
            exchange.request_over = true;
        }
        self.tell_finished(context);
    }

    /// The exchange that a response starting at `offset` belongs to: the oldest unanswered request that the server
    /// had received any of. Without one, the response stands alone.
    fn assign(&mut self, context: &mut Context, offset: u64, run: &Run<'_>) -> ExchangeId {
        if std::mem::take(&mut self.may_have_missed) {
            self.give_up_answered_unseen(offset);
        }
        let waiting = self.exchanges.iter().find(|exchange| {
            let received = match (exchange.start, run.acked.offset()) {
                (Some(start), Some(acked)) => acked > start,
                (Some(_), None) => true,
                (None, _) => false,
            };
            !exchange.response_over && received
        });
        if let Some(exchange) = waiting {
            return exchange.id;
        }
        if let Some(acked) = run.acked.offset() {
            if self.alone.len() >= self.outstanding_limit {
                self.alone.pop_front();
            }
            self.alone.push_back(acked);
        }
        let id = context.begin(run.at);
        let mut alone = OpenExchange::new(id, run.at, None, None);
        alone.request_over = true;
        self.exchanges.push_back(alone);
        id
    }

    /// After a gap: a client that had received the stream up to an offset no later than this response, and then sent
    /// another request, has had its earlier ones answered inside the gap.
    fn give_up_answered_unseen(&mut self, offset: u64) {
        let sent_after = |exchange: &OpenExchange| exchange.acked.filter(|acked| *acked <= offset);
        let newest = self.exchanges.iter().filter_map(sent_after).max();
        for exchange in &mut self.exchanges {
            if exchange.start.is_some() && exchange.acked < newest {
                exchange.response_over = true;
            }
        }
    }

    /// A peer that never answers must not make the queue grow. Whatever is unanswered goes without its response, and so do
    /// the requests that follow: of a response nobody could say whose it is, nor what of it is its body.
    fn give_up(&mut self, context: &mut Context) {
        self.has_given_up = true;
        let current = self.current.as_ref().map(|current| current.id);
        for exchange in &mut self.exchanges {
            exchange.response_over |= Some(exchange.id) != current;
        }
        self.tell_finished(context);
    }

    /// Nothing is outstanding: the next response belongs to the next request.
    fn take_up(&mut self, context: &mut Context) {
        self.has_given_up = false;
        if !self.decoder.is_between_messages() {
            self.lose_step(context);
        }
    }

    fn reply_to(&self) -> ReplyTo {
        let current = self.current.as_ref().map(|current| current.id);
        self.exchanges
            .iter()
            .find(|exchange| Some(exchange.id) == current)
            .map_or(ReplyTo::Other, |exchange| exchange.reply_to)
    }

    fn body(&mut self, bytes: &[u8], is_content: bool, at: Timestamp) {
        if let Some(builder) = self.current.as_mut().and_then(|current| current.builder.as_mut()) {
            builder.body(bytes, is_content, at);
        }
    }

    /// The current response, if any, is over.
    fn finish(&mut self, context: &mut Context, complete: bool) {
        let Some(current) = self.current.take() else { return };
        let report = current.builder.map(|builder| builder.finish(complete));
        let flow = self.flow;
        if let Some(exchange) = self.find(current.id) {
            exchange.response_over |= !current.is_interim;
            if let Some(report) = report {
                let part = if current.is_interim { Part::Interim(report) } else { Part::Response(report) };
                context.keep(exchange.key(), flow, part);
            }
        }
        self.tell_finished(context);
    }

    /// Bytes are missing or not understood: the next response is looked for.
    fn lose_step(&mut self, context: &mut Context) {
        self.finish(context, false);
        self.decoder.reset();
        self.in_step = false;
        self.may_have_missed = true;
    }

    fn find(&mut self, id: ExchangeId) -> Option<&mut OpenExchange> {
        self.exchanges.iter_mut().find(|exchange| exchange.id == id)
    }

    /// Reports what is over on both sides.
    fn tell_finished(&mut self, context: &mut Context) {
        self.exchanges.retain(|exchange| {
            let finished = exchange.request_over && exchange.response_over;
            if finished {
                context.report(exchange.key());
            }
            !finished
        });
    }
}

impl OpenExchange {
    fn new(id: ExchangeId, begun_at: Timestamp, start: Option<u64>, acked: Option<u64>) -> Self {
        Self {
            id,
            begun_at,
            start,
            acked,
            reply_to: ReplyTo::Other,
            request_over: false,
            response_over: false,
        }
    }

    const fn key(&self) -> Key {
        (self.begun_at, self.id)
    }
}
