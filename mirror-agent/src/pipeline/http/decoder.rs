//! Enters: one side's byte stream, cut anywhere, gaps included. Leaves: the events of its messages.

use super::{
    Framing, Refusal, RequestHead, ResponseHead,
    body::{BodyDecoder, Leniency, Part},
    head::{is_hopeless_request, is_hopeless_response},
    head_buffer::{HeadBuffer, Taken},
    lenient,
};
use crate::pipeline::{limits::Limits, message::ReplyTo};

/// One step through a byte stream. `'i` is the input's lifetime, `H` the type of a head.
///
/// Each [`Event::Start`] is followed by exactly one of [`Event::End`], [`Event::Refused`], [`GapEffect::Lost`],
/// [`EndEffect::Complete`] and [`EndEffect::Truncated`], unless the decoder is reset.
#[derive(Debug)]
pub enum Event<'i, H> {
    /// All input was consumed.
    NeedMore,
    /// The first byte of a message comes next. Nothing of it was consumed, only empty lines before it.
    Start,
    /// The head, whole.
    Head(H),
    /// Bytes of the content; never empty.
    Content(&'i [u8]),
    /// Bytes of the body that are not content: chunk-size lines, the CRLF behind each chunk, trailers. Never empty.
    /// Content and framing, in the order given, are the body as sent.
    Framing(&'i [u8]),
    /// The message is complete.
    End,
    /// The byte stream is not understood from here on: input is swallowed until the decoder is reset.
    Refused(Refusal),
}

/// What a gap means for the message it falls into.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum GapEffect {
    /// It lies inside content of known length and was stepped over: the message is damaged, the decoder in step.
    InBody,
    /// The message is damaged and its end unknown: input is swallowed until the decoder is reset.
    Lost,
    /// No message was under way. The gap may hide one, or the first part of one: the decoder takes the next byte for
    /// the start of a message unless the caller looks for it first.
    Between,
    /// The decoder swallows this byte stream anyway: refused, lost, finished or a tunnel.
    Ignored,
}

/// What the end of a byte stream means for the message it falls into.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum EndEffect {
    /// No message was under way.
    Clean,
    /// The message is complete: a response that ends with the connection, or a body whose last bytes a gap stepped
    /// over. No [`Event::End`] follows.
    Complete,
    /// The message lacks its end.
    Truncated,
}

/// Decodes the requests of one client.
///
/// After a request that closes the connection input is swallowed, as the server does. Behind CONNECT and Upgrade the
/// bytes belong to another protocol if the response says so, which only the caller can see: it holds them back until
/// then.
#[derive(Debug)]
pub struct RequestDecoder {
    head: HeadBuffer,
    machine: Machine,
}

impl RequestDecoder {
    /// A decoder between messages.
    #[must_use]
    pub fn new(limits: &Limits) -> Self {
        Self {
            head: HeadBuffer::new(limits.head_bytes),
            machine: Machine::new(limits.chunk_line_bytes, Leniency::Strict, Reader::Strict),
        }
    }

    /// A decoder between messages that takes whatever a forgiving server could make sense of, and says of each
    /// message why a strict one refuses it: see [`super::RequestFacts::refusal`] and [`Self::body_refusal`]. It goes
    /// on behind a request that closes the connection. For looking at requests, never for sending them.
    #[must_use]
    pub fn lenient(limits: &Limits) -> Self {
        Self {
            head: HeadBuffer::new(limits.head_bytes),
            machine: Machine::new(limits.chunk_line_bytes, Leniency::Lenient, Reader::Lenient),
        }
    }

    /// Takes the next event off `input`. To be called until it gives [`Event::NeedMore`], with empty input too: the
    /// end of a message is an event that consumes nothing.
    ///
    /// A head that lies whole in `input` is borrowed from there. One with [`Framing::Ambiguous`] or
    /// [`Framing::Garbled`] is given, and refused by the next call, which takes nothing off `input`.
    pub fn poll<'d, 'i: 'd>(&'d mut self, input: &mut &'i [u8]) -> Event<'i, RequestHead<'d>> {
        let Self { head, machine } = self;
        let reader = machine.reader;
        if machine.phase != Phase::Head {
            head.release();
            return machine.poll(input);
        }
        let is_hopeless = match reader {
            Reader::Strict => is_hopeless_request,
            Reader::Lenient => lenient::is_hopeless_request,
        };
        match head.take(input, is_hopeless) {
            Taken::NeedMore => Event::NeedMore,
            Taken::Refused(refusal) => machine.refuse(refusal),
            Taken::Whole(raw) => match reader.parse_request(raw) {
                Ok(head) => {
                    let stays = head.facts.keep_alive || reader == Reader::Lenient;
                    let after = if stays { Phase::Between } else { Phase::Finished };
                    machine.begin_body(head.facts.framing, after);
                    Event::Head(head)
                }
                Err(refusal) => machine.refuse(refusal),
            },
        }
    }

    /// Why a strict decoder refuses the body under way, or the one that ended last, as far as it was followed.
    #[must_use]
    pub const fn body_refusal(&self) -> Option<Refusal> {
        self.machine.body.refusal()
    }

    /// Steps over `len` bytes that were not seen.
    pub fn handle_gap(&mut self, len: u64) -> GapEffect {
        self.machine.handle_gap(&mut self.head, len)
    }

    /// Notes that no more bytes will come.
    pub fn handle_end(&mut self) -> EndEffect {
        self.machine.handle_end(&mut self.head)
    }

    /// Whether no message is under way: the next byte starts one, or is swallowed.
    #[must_use]
    pub const fn is_between_messages(&self) -> bool {
        self.machine.is_between_messages()
    }

    /// Forgets the message under way, if any: the next byte starts one.
    pub fn reset(&mut self) {
        self.head.release();
        self.machine.phase = Phase::Between;
    }

    /// Heap memory in bytes. At most the limit of a head, rounded up by the allocator's growth.
    #[must_use]
    pub fn bytes_held(&self) -> usize {
        self.head.bytes_held()
    }
}

/// Decodes the responses of one server, live or shadow.
///
/// An interim response is a message of its own, see [`super::ResponseFacts::interim`]. After a response that closes
/// the connection, and in a tunnel, input is swallowed.
#[derive(Debug)]
pub struct ResponseDecoder {
    head: HeadBuffer,
    machine: Machine,
}

impl ResponseDecoder {
    /// A decoder between messages.
    #[must_use]
    pub fn new(limits: &Limits) -> Self {
        Self {
            head: HeadBuffer::new(limits.head_bytes),
            machine: Machine::new(limits.chunk_line_bytes, Leniency::Lenient, Reader::Strict),
        }
    }

    /// A decoder between messages that takes whatever a forgiving client could make sense of, and goes on behind a
    /// response that closes the connection, see [`RequestDecoder::lenient`].
    #[must_use]
    pub fn lenient(limits: &Limits) -> Self {
        Self {
            head: HeadBuffer::new(limits.head_bytes),
            machine: Machine::new(limits.chunk_line_bytes, Leniency::Lenient, Reader::Lenient),
        }
    }

    /// Takes the next event off `input`, see [`RequestDecoder::poll`]. `reply_to` is the request that the response
    /// under way answers; it is looked at when the head is complete.
    pub fn poll<'d, 'i: 'd>(
        &'d mut self,
        input: &mut &'i [u8],
        reply_to: ReplyTo,
    ) -> Event<'i, ResponseHead<'d>> {
        let Self { head, machine } = self;
        let reader = machine.reader;
        if machine.phase != Phase::Head {
            head.release();
            return machine.poll(input);
        }
        let is_hopeless = match reader {
            Reader::Strict => is_hopeless_response,
            Reader::Lenient => lenient::is_hopeless_response,
        };
        match head.take(input, is_hopeless) {
            Taken::NeedMore => Event::NeedMore,
            Taken::Refused(refusal) => machine.refuse(refusal),
            Taken::Whole(raw) => match reader.parse_response(raw, reply_to) {
                Ok(head) => {
                    let stays = head.facts.keep_alive || reader == Reader::Lenient;
                    let after = match head.facts {
                        facts if facts.tunnel => Phase::Tunnel,
                        facts if facts.interim || stays => Phase::Between,
                        _ => Phase::Finished,
                    };
                    machine.begin_body(head.facts.framing, after);
                    Event::Head(head)
                }
                Err(refusal) => machine.refuse(refusal),
            },
        }
    }

    /// Steps over `len` bytes that were not seen.
    pub fn handle_gap(&mut self, len: u64) -> GapEffect {
        self.machine.handle_gap(&mut self.head, len)
    }

    /// Notes that no more bytes will come.
    pub fn handle_end(&mut self) -> EndEffect {
        self.machine.handle_end(&mut self.head)
    }

    /// Whether no message is under way: the next byte starts one, or is swallowed.
    #[must_use]
    pub const fn is_between_messages(&self) -> bool {
        self.machine.is_between_messages()
    }

    /// Whether the response under way ends with the connection.
    #[must_use]
    pub fn is_until_close(&self) -> bool {
        self.machine.phase == Phase::Body && self.machine.body.is_until_close()
    }

    /// Bytes of content of which it is certain that they come next: the rest of a body, or of its chunk, of known length.
    #[must_use]
    pub fn content_ahead(&self) -> u64 {
        if self.machine.phase == Phase::Body { self.machine.body.content_ahead() } else { 0 }
    }

    /// Whether the connection speaks another protocol: after 101, or a 2xx to CONNECT.
    #[must_use]
    pub fn is_tunnel(&self) -> bool {
        self.machine.phase == Phase::Tunnel
    }

    /// Forgets the message under way, if any: the next byte starts one.
    pub fn reset(&mut self) {
        self.head.release();
        self.machine.phase = Phase::Between;
    }

    /// Heap memory in bytes. At most the limit of a head, rounded up by the allocator's growth.
    #[must_use]
    pub fn bytes_held(&self) -> usize {
        self.head.bytes_held()
    }
}

/// Who reads the heads.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Reader {
    /// What two readers could understand differently is refused.
    Strict,
    /// What one reader could understand is given.
    Lenient,
}

impl Reader {
    fn parse_request(self, raw: &[u8]) -> Result<RequestHead<'_>, Refusal> {
        match self {
            Self::Strict => RequestHead::parse(raw),
            Self::Lenient => lenient::parse_request(raw),
        }
    }

    fn parse_response(self, raw: &[u8], reply_to: ReplyTo) -> Result<ResponseHead<'_>, Refusal> {
        match self {
            Self::Strict => ResponseHead::parse(raw, reply_to),
            Self::Lenient => lenient::parse_response(raw, reply_to),
        }
    }
}

/// What both decoders do outside of a head.
#[derive(Debug)]
struct Machine {
    reader: Reader,
    phase: Phase,
    /// The phase behind the body under way.
    after: Phase,
    body: BodyDecoder,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    /// The next byte starts a message.
    Between,
    /// In a head.
    Head,
    /// In a body, which may have ended without [`Event::End`] having been given.
    Body,
    /// The head was given and cannot be relied on.
    Ambiguous,
    /// Refused or lost: input is swallowed.
    Lost,
    /// The last message of the connection was complete: input is swallowed.
    Finished,
    /// Another protocol: input is swallowed.
    Tunnel,
}

impl Machine {
    fn new(line_limit: usize, leniency: Leniency, reader: Reader) -> Self {
        Self {
            reader,
            phase: Phase::Between,
            after: Phase::Between,
            body: BodyDecoder::new(line_limit, leniency),
        }
    }

    /// The next event outside of a head.
    fn poll<'i, H>(&mut self, input: &mut &'i [u8]) -> Event<'i, H> {
        match self.phase {
            Phase::Between => {
                // RFC 9112 section 2.2: empty lines before a start line are ignored.
                while let [b'\r' | b'\n', rest @ ..] = *input {
                    *input = rest;
                }
                if input.is_empty() {
                    return Event::NeedMore;
                }
                self.phase = Phase::Head;
                Event::Start
            }
            Phase::Body => match self.body.decode(input) {
                Part::NeedMore => Event::NeedMore,
                Part::Content(bytes) => Event::Content(bytes),
                Part::Framing(bytes) => Event::Framing(bytes),
                Part::Complete => {
                    self.phase = self.after;
                    Event::End
                }
                Part::Refused(refusal) => self.refuse(refusal),
            },
            Phase::Ambiguous => self.refuse(Refusal::AmbiguousFraming),
            Phase::Head | Phase::Lost | Phase::Finished | Phase::Tunnel => {
                *input = &[];
                Event::NeedMore
            }
        }
    }

    const fn refuse<'i, H>(&mut self, refusal: Refusal) -> Event<'i, H> {
        self.phase = Phase::Lost;
        Event::Refused(refusal)
    }

    const fn begin_body(&mut self, framing: Framing, after: Phase) {
        self.body.begin(framing);
        self.after = after;
        self.phase = match framing {
            Framing::Ambiguous | Framing::Garbled => Phase::Ambiguous,
            Framing::None | Framing::Length(_) | Framing::Chunked | Framing::UntilClose => Phase::Body,
        };
    }

    fn handle_gap(&mut self, head: &mut HeadBuffer, len: u64) -> GapEffect {
        match self.phase {
            Phase::Between => GapEffect::Between,
            Phase::Body if self.body.skip(len) => GapEffect::InBody,
            Phase::Head | Phase::Body | Phase::Ambiguous => {
                head.release();
                self.phase = Phase::Lost;
                GapEffect::Lost
            }
            Phase::Lost | Phase::Finished | Phase::Tunnel => GapEffect::Ignored,
        }
    }

    fn handle_end(&mut self, head: &mut HeadBuffer) -> EndEffect {
        head.release();
        let effect = match self.phase {
            Phase::Body if self.body.is_until_close() || self.body.is_complete() => EndEffect::Complete,
            Phase::Head | Phase::Body | Phase::Ambiguous => EndEffect::Truncated,
            Phase::Between | Phase::Lost | Phase::Finished | Phase::Tunnel => EndEffect::Clean,
        };
        self.phase = Phase::Finished;
        effect
    }

    const fn is_between_messages(&self) -> bool {
        matches!(self.phase, Phase::Between | Phase::Finished)
    }
}
