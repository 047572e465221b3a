//! Enters: the bytes of a body, cut anywhere. Leaves: the same bytes, told apart into content and framing.

use super::{Framing, Refusal, is_text_byte, is_token_byte};

/// How much a reader of chunk framing forgives.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Leniency {
    /// Requests: whatever servers are known to read in two ways is refused.
    Strict,
    /// Responses: line feeds without carriage return and spaces behind a chunk size are accepted, as clients do, and
    /// any number of zeros before it, as the grammar does.
    Lenient,
}

/// A run of body bytes.
#[derive(Debug)]
pub(super) enum Part<'i> {
    /// All input was consumed, the body goes on.
    NeedMore,
    /// Content: never empty.
    Content(&'i [u8]),
    /// Chunk framing or trailers: never empty.
    Framing(&'i [u8]),
    /// The body has ended; nothing was consumed.
    Complete,
    /// The framing is not understood.
    Refused(Refusal),
}

/// Follows a body to its end. Holds a few numbers, never content.
#[derive(Debug)]
pub(super) struct BodyDecoder {
    state: State,
    /// Bytes of framing since the last content: of a chunk-size line, and of the trailer section behind the last one.
    line_len: u32,
    /// Longest run of framing in bytes, inclusive.
    line_limit: u32,
    leniency: Leniency,
    /// Why a strict reader refuses the framing so far.
    refusal: Option<Refusal>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    /// Content of known length.
    Fixed {
        left: u64,
    },
    /// Content until the connection closes.
    UntilClose,
    /// Content of one chunk.
    Data {
        left: u64,
    },
    /// Between chunks, in a chunk-size line or in the trailer section.
    Line(Line),
    Complete,
}

/// Where in the chunk framing the next byte stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Line {
    /// Before the CR behind the data of a chunk.
    DataEnd,
    /// Before the LF behind the data of a chunk.
    DataEndLf,
    /// In the hexadecimal digits of a chunk size.
    Size { size: u64, digits: u8 },
    /// In whitespace behind the size, where only an extension may follow.
    Space { size: u64 },
    /// In an extension.
    Extension { size: u64 },
    /// Before the LF of a chunk-size line.
    SizeLf { size: u64 },
    /// At the start of a trailer line, or of the empty line that ends the section.
    Trailer,
    /// In the name of a trailer field.
    TrailerName,
    /// In the value of a trailer field.
    TrailerValue,
    /// Before the LF of a trailer line.
    TrailerLf,
    /// Before the LF of the empty line.
    LastLf,
}

/// The start of a chunk-size line.
const SIZE_START: Line = Line::Size { size: 0, digits: 0 };

/// Digits that a chunk size may have, leading zeros included: as many as fill 64 bits. Readers differ in what they
/// do with more.
const SIZE_DIGITS: u8 = 16;

impl BodyDecoder {
    /// A decoder at the end of a body.
    pub(super) fn new(line_limit: usize, leniency: Leniency) -> Self {
        let line_limit = u32::try_from(line_limit).unwrap_or(u32::MAX);
        Self { state: State::Complete, line_len: 0, line_limit, leniency, refusal: None }
    }

    /// Begins the body of a message.
    pub(super) const fn begin(&mut self, framing: Framing) {
        self.line_len = 0;
        self.refusal = None;
        self.state = match framing {
            Framing::Length(left) => State::Fixed { left },
            Framing::Chunked => State::Line(SIZE_START),
            Framing::UntilClose => State::UntilClose,
            Framing::None | Framing::Ambiguous | Framing::Garbled => State::Complete,
        };
    }

    /// Takes one run off `input`.
    pub(super) fn decode<'i>(&mut self, input: &mut &'i [u8]) -> Part<'i> {
        loop {
            match self.state {
                State::Complete | State::Fixed { left: 0 } => return Part::Complete,
                State::Data { left: 0 } => self.state = State::Line(Line::DataEnd),
                _ if input.is_empty() => return Part::NeedMore,
                State::UntilClose => return Part::Content(std::mem::take(input)),
                State::Fixed { left } => {
                    let (content, left) = split_content(input, left);
                    self.state = State::Fixed { left };
                    return Part::Content(content);
                }
                State::Data { left } => {
                    let (content, left) = split_content(input, left);
                    self.state = State::Data { left };
                    return Part::Content(content);
                }
                State::Line(line) => return self.decode_framing(line, input),
            }
        }
    }

    /// Why a strict reader refuses the framing of this body, as far as it was followed.
    pub(super) const fn refusal(&self) -> Option<Refusal> {
        self.refusal
    }

    pub(super) const fn is_until_close(&self) -> bool {
        matches!(self.state, State::UntilClose)
    }

    pub(super) const fn is_complete(&self) -> bool {
        matches!(self.state, State::Complete | State::Fixed { left: 0 })
    }

    /// Bytes of content of which it is certain that they come next; 0 where nothing is.
    pub(super) const fn content_ahead(&self) -> u64 {
        match self.state {
            State::Fixed { left } | State::Data { left } => left,
            State::UntilClose | State::Line(_) | State::Complete => 0,
        }
    }

    /// Steps over `len` bytes that were not seen. False where that is not certain to stay in step.
    pub(super) fn skip(&mut self, len: u64) -> bool {
        let next = match self.state {
            State::Fixed { left } => left.checked_sub(len).map(|left| State::Fixed { left }),
            State::Data { left } => left.checked_sub(len).map(|left| State::Data { left }),
            State::UntilClose => Some(State::UntilClose),
            State::Line(_) | State::Complete => None,
        };
        next.map(|next| self.state = next).is_some()
    }

    /// Follows chunk framing up to content, the end of the body or of the input.
    fn decode_framing<'i>(&mut self, mut line: Line, input: &mut &'i [u8]) -> Part<'i> {
        let bytes = *input;
        let mut rest = bytes;
        self.state = loop {
            let Some((byte, after)) = rest.split_first() else { break State::Line(line) };
            self.line_len = self.line_len.saturating_add(1);
            if self.line_len > self.line_limit {
                return Part::Refused(Refusal::Malformed);
            }
            rest = after;
            let next = match line.step(*byte, Leniency::Strict) {
                Ok(next) => next,
                Err(refusal) if self.leniency == Leniency::Strict => return Part::Refused(refusal),
                Err(refusal) => match line.step(*byte, Leniency::Lenient) {
                    Ok(next) => {
                        self.refusal = self.refusal.or(Some(refusal));
                        next
                    }
                    Err(refusal) => return Part::Refused(refusal),
                },
            };
            match next {
                State::Line(next) => line = next,
                State::Data { .. } => {
                    self.line_len = 0;
                    break next;
                }
                State::Fixed { .. } | State::UntilClose | State::Complete => break next,
            }
        };
        let len = bytes.len().saturating_sub(rest.len());
        *input = rest;
        Part::Framing(bytes.get(..len).unwrap_or_default())
    }
}

impl Line {
    /// What follows `byte`. RFC 9112 section 7.1.
    fn step(self, byte: u8, leniency: Leniency) -> Result<State, Refusal> {
        let line = match (self, byte) {
            (Self::DataEnd, b'\r') => Self::DataEndLf,
            (Self::DataEndLf, b'\n') => SIZE_START,

            (Self::Size { size: 0, .. }, _) if byte.is_ascii_hexdigit() && leniency == Leniency::Lenient => {
                Self::Size { size: u64::from(hex_digit(byte)), digits: 1 }
            }
            (Self::Size { size, digits }, _) if byte.is_ascii_hexdigit() => match digits.checked_add(1) {
                Some(digits) if digits <= SIZE_DIGITS => {
                    Self::Size { size: (size << 4) | u64::from(hex_digit(byte)), digits }
                }
                _ => return Err(Refusal::AmbiguousFraming),
            },
            // Without a digit there is no size: some readers take that for 0, the end of the body.
            (Self::Size { digits: 0, .. }, _) => return Err(Refusal::Malformed),
            (Self::Size { size, .. } | Self::Space { size }, b';') => Self::Extension { size },
            (Self::Size { size, .. } | Self::Space { size }, b' ' | b'\t') => Self::Space { size },
            (Self::Space { .. }, b'\r') if leniency == Leniency::Strict => return Err(Refusal::Malformed),
            (Self::Size { size, .. } | Self::Space { size } | Self::Extension { size }, b'\r') => {
                Self::SizeLf { size }
            }
            (Self::Extension { size }, _) if is_text_byte(byte) => Self::Extension { size },
            (Self::SizeLf { size }, b'\n') => return Ok(after_size(size)),

            (Self::Trailer, b'\r') => Self::LastLf,
            (Self::LastLf, b'\n') => return Ok(State::Complete),
            (Self::Trailer | Self::TrailerName, _) if is_token_byte(byte) => Self::TrailerName,
            (Self::TrailerName, b':') => Self::TrailerValue,
            (Self::TrailerValue, b'\r') => Self::TrailerLf,
            (Self::TrailerValue, _) if is_text_byte(byte) => Self::TrailerValue,
            (Self::TrailerLf, b'\n') => Self::Trailer,

            // A line feed alone: clients take it for a line end, servers disagree.
            (_, b'\n') if leniency == Leniency::Strict => return Err(Refusal::AmbiguousFraming),
            (Self::DataEnd, b'\n') => SIZE_START,
            (Self::Size { size, .. } | Self::Space { size } | Self::Extension { size }, b'\n') => {
                return Ok(after_size(size));
            }
            (Self::Trailer, b'\n') => return Ok(State::Complete),
            (Self::TrailerValue, b'\n') => Self::Trailer,
            _ => return Err(Refusal::Malformed),
        };
        Ok(State::Line(line))
    }
}

/// What follows a chunk-size line.
const fn after_size(size: u64) -> State {
    if size == 0 { State::Line(Line::Trailer) } else { State::Data { left: size } }
}

/// The value of a hexadecimal digit; of any other byte 0.
const fn hex_digit(byte: u8) -> u8 {
    match byte {
        b'0'..=b'9' => byte.wrapping_sub(b'0'),
        b'a'..=b'f' => byte.wrapping_sub(b'a').wrapping_add(10),
        b'A'..=b'F' => byte.wrapping_sub(b'A').wrapping_add(10),
        _ => 0,
    }
}

/// Takes at most `left` bytes off `input`; gives them, and how many are left to come.
fn split_content<'i>(input: &mut &'i [u8], left: u64) -> (&'i [u8], u64) {
    let bytes = *input;
    let wanted = usize::try_from(left).unwrap_or(usize::MAX);
    let (content, rest) = bytes.split_at_checked(wanted).unwrap_or((bytes, &[]));
    *input = rest;
    let taken = u64::try_from(content.len()).unwrap_or(left);
    (content, left.saturating_sub(taken))
}
