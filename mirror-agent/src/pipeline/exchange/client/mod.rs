//! Enters: the client's byte stream, and what the server's says about hand-overs. Leaves: requests.

mod memory;

use crate::pipeline::{
    Acked, FlowKey,
    exchange::{
        context::{Context, Purpose},
        message::{GoAhead, OpenRequest},
        mode::{AwaitAnswer, MAX_HELD_BYTES, MAX_OPENING_BYTES, Mode, Opening},
        observer::{RequestObserver, Run},
        report::Place,
        trust::{Guess, Heard, Moment, Trust, is_alone, is_pick_up},
    },
    flow::Interest,
    http::{
        EndEffect, Event, Framing, GapEffect, RequestDecoder,
        sniff::{
            Sniff, classify, lenient_pick_up, lenient_request_start, strict_request_start,
            whole_request_start,
        },
    },
    message::ReplyTo,
    reason::{FlowSkipReason, LostReason},
};

/// An offset that no stream reaches.
const UNKNOWN: u64 = u64::MAX;

/// One client's side of a flow.
#[derive(Debug)]
pub(crate) struct ClientSide {
    mode: Mode,
    decoder: RequestDecoder,
    current: Option<OpenRequest>,
    /// How far the server had received when it last began to send, [`UNKNOWN`] before it did: a request that starts
    /// there starts when nothing is outstanding.
    answered_up_to: u64,
}

impl ClientSide {
    pub(crate) fn new(context: &Context, adopted: bool) -> Self {
        Self {
            mode: if adopted { Mode::resync(Trust::Shape) } else { Mode::Opening(None) },
            decoder: match context.purpose {
                Purpose::Replay(_) => RequestDecoder::new(&context.limits),
                Purpose::Inspect => RequestDecoder::lenient(&context.limits),
            },
            current: None,
            answered_up_to: UNKNOWN,
        }
    }

    /// Takes bytes of the client's stream.
    pub(crate) fn data(
        &mut self,
        context: &mut Context,
        flow: &FlowKey,
        run: Run<'_>,
        observer: &mut impl RequestObserver,
    ) -> Interest {
        let (before, request_before) = (self.waiting_bytes(), self.request_bytes());
        let interest = self.take(context, flow, run, observer);
        let after = self.waiting_bytes();
        context.hold(before, after);
        if after > before && !context.may_hold(after, 0) {
            return self.give_up(context, observer);
        }
        // Most messages come in one piece, and are never heard of.
        if before | request_before | after | self.request_bytes() != 0 {
            self.note(context, flow);
        }
        interest
    }

    fn take(
        &mut self,
        context: &mut Context,
        flow: &FlowKey,
        run: Run<'_>,
        observer: &mut impl RequestObserver,
    ) -> Interest {
        match &mut self.mode {
            Mode::HandedOff => Interest::Ignore,
            Mode::Foreign(_) => Interest::Continue,
            Mode::InStep | Mode::Guess(_) => {
                self.leave_unsent_body(context, &run, observer);
                if matches!(self.mode, Mode::Resync { .. }) {
                    context.note_doubted_start();
                    return Interest::Continue;
                }
                self.feed(context, flow, run, observer)
            }
            Mode::Resync { trust, heard } => {
                let (trust, before) = (*trust, *heard);
                *heard = before.behind(&run);
                if let Some(run) = self.find_start(trust, before, run, observer) {
                    let is_guess =
                        observer.quiet_moments().is_none() && self.moment_of(&run, before) == Moment::Untold;
                    self.mode = if is_guess { Mode::Guess(Guess::new(before)) } else { Mode::InStep };
                    return self.feed(context, flow, run, observer);
                }
                if strict_request_start(run.bytes) {
                    context.note_doubted_start();
                }
                Interest::Continue
            }
            Mode::Opening(opening) => {
                let opening = opening.take();
                self.open(context, flow, opening, run, observer)
            }
            Mode::AwaitAnswer(awaiting) => {
                if awaiting.held.is_empty() {
                    awaiting.held_at = run.at;
                }
                awaiting.conflict |= run.conflict;
                awaiting.held.extend_from_slice(run.bytes);
                // More than any client sends while it waits: the answer was lost to us, or this is no HTTP.
                if awaiting.held.len() <= MAX_HELD_BYTES {
                    return Interest::Continue;
                }
                if awaiting.reply_to == ReplyTo::Connect || !whole_request_start(&awaiting.held) {
                    return self.hand_off(context);
                }
                context.note_doubted_start();
                observer.out_of_step(context);
                self.mode = Mode::resync(Trust::ShapeWhenQuiet);
                Interest::Continue
            }
        }
    }

    /// What of `run`, a run of a stream out of step, begins with a message that is believed. For `heard` see
    /// [`Moment::of`].
    fn find_start<'a>(
        &mut self,
        trust: Trust,
        heard: Heard,
        run: Run<'a>,
        observer: &impl RequestObserver,
    ) -> Option<Run<'a>> {
        let Some(quiet) = observer.quiet_moments() else {
            let moment = self.moment_of(&run, heard);
            let is_believed = trust.believes(&run, moment);
            if is_believed && moment == Moment::Untold && !is_alone(&mut self.decoder, run.bytes) {
                // What may be text in a body is followed by more of it.
                self.mode = Mode::Resync { trust: Trust::ShapeWhenQuiet, heard: heard.behind(&run) };
                return None;
            }
            return is_believed.then_some(run);
        };
        match trust {
            Trust::Shape => is_pick_up(run.bytes).then_some(run),
            Trust::ShapeWhenQuiet => {
                let is_start = |run: &Run<'_>| whole_request_start(run.bytes) || lenient_pick_up(run.bytes);
                // A file may hold one direction only, and what is read from it is not sent anywhere. Where the client has
                // received what was not seen, the server has answered since, and both go on behind their gaps.
                let is_unseen = quiet.is_empty() || matches!(run.acked, Acked::Beyond(_));
                let is_free = is_unseen && is_start(&run);
                is_free.then_some(run).or_else(|| quiet.parts_of(run).find(is_start))
            }
        }
    }

    fn moment_of(&self, run: &Run<'_>, heard: Heard) -> Moment {
        Moment::of(run, Some(self.answered_up_to).filter(|offset| *offset != UNKNOWN), heard)
    }

    /// Whether a message that starts at `start`, within `run`, is another one behind a guess that nothing has confirmed: then all
    /// of it may be text in a body. `heard` is what is known before the run.
    fn is_behind_a_guess(&mut self, start: u64, run: &Run<'_>, heard: Heard) -> bool {
        let Mode::Guess(guess) = &mut self.mode else { return false };
        if !guess.has_begun {
            guess.has_begun = true;
            return false;
        }
        let at_start = Run { start: Place { offset: start, ..run.start }, ..*run };
        let heard = if start == run.start.offset { heard } else { Heard::Nothing };
        if self.moment_of(&at_start, heard) != Moment::Quiet {
            return true;
        }
        self.mode = Mode::InStep;
        false
    }

    /// Takes bytes that are missing from the client's stream.
    pub(crate) fn gap(&mut self, context: &mut Context, len: u64, observer: &mut impl RequestObserver) {
        self.accounted(context, |client, context| client.step_over(context, len, observer));
    }

    fn step_over(&mut self, context: &mut Context, len: u64, observer: &mut impl RequestObserver) {
        match &mut self.mode {
            Mode::HandedOff | Mode::Foreign(_) => return,
            Mode::AwaitAnswer(awaiting) => {
                awaiting.has_gap = true;
                return observer.out_of_step(context);
            }
            Mode::Opening(_) | Mode::Resync { .. } => observer.out_of_step(context),
            Mode::InStep | Mode::Guess(_) => match self.decoder.handle_gap(len) {
                GapEffect::InBody => {
                    if let Some(request) = &mut self.current {
                        request.gap(context);
                    }
                    return;
                }
                // A stream that is over: the client closes after this request.
                GapEffect::Ignored => return,
                GapEffect::Lost | GapEffect::Between => self.abandon(context, LostReason::Gap, observer),
            },
        }
        self.mode = Mode::resync(Trust::ShapeWhenQuiet);
    }

    /// Takes the end of the client's stream.
    pub(crate) fn end(&mut self, context: &mut Context, flow: &FlowKey, observer: &mut impl RequestObserver) {
        self.accounted(context, |client, context| client.finish_stream(context, flow, observer));
    }

    fn finish_stream(&mut self, context: &mut Context, flow: &FlowKey, observer: &mut impl RequestObserver) {
        if let Mode::AwaitAnswer(awaiting) = &mut self.mode {
            // What is held has not been decoded.
            awaiting.has_end = true;
            return;
        }
        match self.decoder.handle_end() {
            EndEffect::Clean => {}
            EndEffect::Complete => self.finish(context, flow, Place::default(), observer),
            EndEffect::Truncated => self.abandon(context, LostReason::Aborted, observer),
        }
    }

    /// Takes the end of the flow; what is still open is lost for `reason`.
    pub(crate) fn close(
        &mut self,
        context: &mut Context,
        reason: LostReason,
        observer: &mut impl RequestObserver,
    ) {
        self.accounted(context, |client, context| {
            client.abandon(context, reason, observer);
            client.mode = Mode::HandedOff;
        });
    }

    /// Takes note that the server began to send, having received `acked` bytes of the client's stream; `status` where
    /// what it sends begins like a response.
    pub(crate) fn server_sent(&mut self, status: Option<u16>, acked: Option<u64>) {
        match (status, acked) {
            // The go-ahead: what comes next is a body, whatever it looks like.
            (Some(100), _) => {
                self.answered_up_to = UNKNOWN;
                if let Mode::Resync { trust, .. } = &mut self.mode {
                    *trust = Trust::ShapeWhenQuiet;
                }
                self.turn_go_ahead(&[GoAhead::AnsweredEarly, GoAhead::Unclear], GoAhead::Awaited);
            }
            // Other interim responses say nothing of what the client does.
            (Some(102..=199), _) | (_, None) => {}
            (_, Some(acked)) => self.answered_up_to = acked,
        }
        if status.is_none() {
            self.server_missed();
        }
    }

    /// Takes note that the server sent something of which nothing is known.
    pub(crate) fn server_missed(&mut self) {
        self.turn_go_ahead(&[GoAhead::Awaited], GoAhead::Unclear);
    }

    /// Takes note that the server's stream, too, is not HTTP/1.x as far as it was followed.
    pub(crate) fn server_is_foreign(&mut self, context: &mut Context) -> Interest {
        if let Mode::Foreign(reason) = self.mode { self.skip(context, reason) } else { Interest::Continue }
    }

    /// Takes the status of a response that the server began after it had received `acked` bytes.
    pub(crate) fn answered(
        &mut self,
        context: &mut Context,
        flow: &FlowKey,
        status: u16,
        acked: Option<u64>,
        observer: &mut impl RequestObserver,
    ) -> Interest {
        let is_interim = (100..=199).contains(&status) && status != 101;
        if is_interim {
            return Interest::Continue;
        }
        if status == 101 {
            // Whatever it answers: this is the end of HTTP here.
            return self.accounted(context, |client, context| {
                client.abandon(context, LostReason::Aborted, observer);
                client.hand_off(context)
            });
        }
        let interest = self
            .accounted(context, |client, context| client.conclude(context, flow, status, acked, observer));
        if self.bytes_held() > 0 {
            self.note(context, flow);
        }
        interest
    }

    /// Takes the status of a final response.
    fn conclude(
        &mut self,
        context: &mut Context,
        flow: &FlowKey,
        status: u16,
        acked: Option<u64>,
        observer: &mut impl RequestObserver,
    ) -> Interest {
        if let Mode::AwaitAnswer(awaiting) = &mut self.mode {
            if acked.is_some_and(|acked| acked < awaiting.end.offset) {
                return Interest::Continue; // the answer to an earlier request
            }
            if awaiting.reply_to == ReplyTo::Connect && (200..=299).contains(&status) {
                return self.hand_off(context);
            }
            let (held, at, start) = (std::mem::take(&mut awaiting.held), awaiting.held_at, awaiting.end);
            let (conflict, has_end) = (awaiting.conflict, awaiting.has_end);
            self.mode = if awaiting.has_gap { Mode::resync(Trust::ShapeWhenQuiet) } else { Mode::InStep };
            let mut interest = Interest::Continue;
            if !held.is_empty() && matches!(self.mode, Mode::InStep) {
                let run = Run { bytes: &held, start, at, acked: Acked::Unknown, conflict };
                interest = self.take(context, flow, run, observer);
            }
            if has_end {
                self.finish_stream(context, flow, observer);
            }
            return interest;
        }
        self.turn_go_ahead(&[GoAhead::Awaited, GoAhead::Unclear], GoAhead::AnsweredEarly);
        if let Some(request) = &mut self.current {
            // Nothing is handed over any more: nobody waits for an answer that has come. One that does is obeyed anywhere.
            request.handover = false;
        }
        Interest::Continue
    }

    /// Tells what a new stream is from its first bytes: those held and those of `run`.
    fn open(
        &mut self,
        context: &mut Context,
        flow: &FlowKey,
        mut opening: Option<Box<Opening>>,
        run: Run<'_>,
        observer: &mut impl RequestObserver,
    ) -> Interest {
        let held_len = opening.as_ref().map_or(0, |opening| opening.held.len());
        if let Some(Opening { held, conflict, .. }) = opening.as_deref_mut() {
            *conflict |= run.conflict;
            held.extend_from_slice(run.bytes);
        }
        let bytes = opening.as_ref().map_or(run.bytes, |opening| opening.held.as_slice());
        let is_inspected = matches!(context.purpose, Purpose::Inspect);
        let mut sniff = classify(bytes);
        if is_inspected && sniff == Sniff::NotHttp {
            sniff = match lenient_request_start(bytes) {
                Some(true) => Sniff::Request,
                None => Sniff::Partial,
                Some(false) => Sniff::NotHttp,
            };
        }
        let reason = match sniff {
            Sniff::Request => {
                self.mode = Mode::InStep;
                if let Some(Opening { held, held_at, conflict }) = opening.as_deref() {
                    // Held bytes ended right before this run; alone they did not say what they are.
                    let start = run.start.back(held_len);
                    let bytes = held.get(..held_len).unwrap_or_default();
                    let first = Run { bytes, start, at: *held_at, conflict: *conflict, ..run };
                    self.feed(context, flow, first, observer);
                }
                return self.feed(context, flow, run, observer);
            }
            Sniff::Proxy { len } => match bytes.get(len..) {
                // Stepped over; what follows it is the stream.
                Some(rest) => {
                    let skipped = run.bytes.len().saturating_sub(rest.len());
                    let start = run.start.advance(skipped);
                    let bytes = run.bytes.get(skipped..).unwrap_or_default();
                    if bytes.is_empty() {
                        return Interest::Continue;
                    }
                    if matches!(classify(bytes), Sniff::Proxy { .. }) {
                        // One is stepped over; a row of them is nothing that a proxy sends.
                        return self.skip(context, FlowSkipReason::NotHttp);
                    }
                    return self.open(context, flow, None, Run { bytes, start, ..run }, observer);
                }
                None if bytes.len() < MAX_OPENING_BYTES => None,
                None => Some(FlowSkipReason::NotHttp),
            },
            Sniff::Partial if bytes.len() < MAX_OPENING_BYTES => None,
            Sniff::Partial | Sniff::Response | Sniff::NotHttp => Some(FlowSkipReason::NotHttp),
            Sniff::Tls => Some(FlowSkipReason::Tls),
            Sniff::Http2 => Some(FlowSkipReason::Http2),
        };
        let Some(reason) = reason else {
            let opening = opening.unwrap_or_else(|| {
                let held = run.bytes.to_vec();
                Box::new(Opening { held, held_at: run.at, conflict: run.conflict })
            });
            self.mode = Mode::Opening(Some(opening));
            return Interest::Continue;
        };
        if is_inspected {
            // What the server says is told anyway, and a request may follow what is none.
            self.mode = if reason == FlowSkipReason::NotHttp {
                Mode::resync(Trust::ShapeWhenQuiet)
            } else {
                Mode::Foreign(reason)
            };
            return Interest::Continue;
        }
        self.skip(context, reason)
    }

    /// Decodes bytes of a stream that is in step.
    fn feed(
        &mut self,
        context: &mut Context,
        flow: &FlowKey,
        run: Run<'_>,
        observer: &mut impl RequestObserver,
    ) -> Interest {
        let Run { bytes, start, at, acked, conflict } = run;
        let mut input = bytes;
        if conflict && let Some(request) = &mut self.current {
            request.lose(context, LostReason::Conflict);
        }
        let position = |input: &[u8]| start.advance(bytes.len().saturating_sub(input.len()));
        let mut is_garbled = false;
        let mut has_begun_here = false;
        let heard =
            if let Mode::Guess(guess) = &mut self.mode { guess.heard_before(&run) } else { Heard::Nothing };
        loop {
            match self.decoder.poll(&mut input) {
                Event::NeedMore => return Interest::Continue,
                Event::Start => {
                    has_begun_here = true;
                    let start = position(input);
                    if self.is_behind_a_guess(start.offset, &run, heard) {
                        context.note_doubted_start();
                        self.decoder.reset();
                        observer.out_of_step(context);
                        self.mode = Mode::Resync { trust: Trust::ShapeWhenQuiet, heard: heard.behind(&run) };
                        return Interest::Continue;
                    }
                    let mut request = OpenRequest::begin(context, start, at);
                    observer.begun(context, request.id, start.offset, &run);
                    if conflict {
                        request.lose(context, LostReason::Conflict);
                    }
                    self.current = Some(request);
                }
                Event::Head(head) => {
                    if let Some(request) = &mut self.current {
                        if head.facts.has_mirror_id {
                            context.note_probe(flow, &head);
                        }
                        is_garbled = head.facts.framing == Framing::Garbled;
                        request.head(context, flow, &head, input.len(), at);
                        observer.head(request.id, request.reply_to);
                    }
                }
                Event::Content(bytes) => {
                    if let Some(request) = &mut self.current {
                        request.body(context, bytes, true, at);
                    }
                }
                Event::Framing(bytes) => {
                    let refusal = self.decoder.body_refusal();
                    if let Some(request) = &mut self.current {
                        request.body(context, bytes, false, at);
                        if let Some(refusal) = refusal {
                            request.lose(context, refusal.into());
                        }
                    }
                }
                Event::End => {
                    let end = position(input);
                    self.finish(context, flow, end, observer);
                    if matches!(self.mode, Mode::AwaitAnswer(_)) {
                        return match input {
                            [] => Interest::Continue,
                            rest => {
                                let run = Run { bytes: rest, start: end, at, acked, conflict };
                                self.take(context, flow, run, observer)
                            }
                        };
                    }
                }
                Event::Refused(refusal) => {
                    self.abandon(context, refusal.into(), observer);
                    // Nothing says where such a request ends, as nothing says where one older than the capture does.
                    let trust = if is_garbled { Trust::Shape } else { Trust::ShapeWhenQuiet };
                    if is_garbled && is_pick_up(input) {
                        is_garbled = false;
                        continue;
                    }
                    self.mode = Mode::Resync { trust, heard: Heard::Nothing.behind(&run) };
                    // What was waited for in vain may have ended before this run.
                    return if has_begun_here || !matches!(context.purpose, Purpose::Inspect) {
                        Interest::Continue
                    } else {
                        self.take(context, flow, run, observer)
                    };
                }
            }
        }
    }

    fn turn_go_ahead(&mut self, from: &[GoAhead], to: GoAhead) {
        if let Some(request) = self.current.as_mut().filter(|request| from.contains(&request.go_ahead)) {
            request.go_ahead = to;
        }
    }

    /// A client that waited for a go-ahead and got a final answer need not send the body (RFC 9110 section 10.1.1):
    /// if what it sends then begins like a request, it is one. Where what the server said was not seen, nobody can tell
    /// whether that is the body: neither is believed.
    fn leave_unsent_body(
        &mut self,
        context: &mut Context,
        run: &Run<'_>,
        observer: &mut impl RequestObserver,
    ) {
        let Some(go_ahead) = self.current.as_ref().map(|request| request.go_ahead) else { return };
        let is_unclear = go_ahead == GoAhead::Unclear
            || (go_ahead == GoAhead::Awaited && matches!(run.acked, Acked::Beyond(_) | Acked::Unseen(_)));
        if go_ahead == GoAhead::AnsweredEarly {
            // The server had all that comes before, so nothing of a method can be missing. Empty lines may precede it.
            let lines = run.bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
            let is_request = run.bytes.get(lines..).is_some_and(strict_request_start);
            if self.answered_up_to == run.start.offset && is_request {
                self.abandon(context, LostReason::Aborted, observer);
            }
        } else if is_unclear
            && matches!(context.purpose, Purpose::Replay(_))
            && whole_request_start(run.bytes)
        {
            self.abandon(context, LostReason::Aborted, observer);
            self.mode = Mode::Resync { trust: Trust::ShapeWhenQuiet, heard: Heard::Nothing.behind(run) };
        }
    }

    /// The current request is complete; it ended at `end`.
    fn finish(
        &mut self,
        context: &mut Context,
        flow: &FlowKey,
        end: Place,
        observer: &mut impl RequestObserver,
    ) {
        let Some(request) = self.current.take() else { return };
        if request.handover {
            self.mode = Mode::AwaitAnswer(Box::new(AwaitAnswer::behind(end, request.reply_to)));
        }
        let id = request.id;
        let report = request.end(context, flow);
        observer.ended(context, id, report);
    }

    /// The current request, if any, is damaged, and the decoder out of step.
    fn abandon(&mut self, context: &mut Context, reason: LostReason, observer: &mut impl RequestObserver) {
        self.decoder.reset();
        observer.out_of_step(context);
        let Some(request) = self.current.take() else { return };
        let id = request.id;
        let report = request.cut_short(context, reason);
        observer.ended(context, id, report);
    }

    /// The connection speaks another protocol from here on.
    fn hand_off(&mut self, context: &mut Context) -> Interest {
        self.skip(context, FlowSkipReason::Upgraded)
    }

    /// The flow is not parsed any further.
    fn skip(&mut self, context: &mut Context, reason: FlowSkipReason) -> Interest {
        context.skip_flow(reason);
        self.mode = Mode::HandedOff;
        Interest::Ignore
    }
}
