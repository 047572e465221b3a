//! Enters: the bytes of one head. Leaves: its parts and what they mean, or why it is refused.

use httparse::{EMPTY_HEADER, Header, ParserConfig, Status};

use super::{
    Framing, Headers, Method, Refusal, fields::Fields, find_line_feed, headers, is_target_byte,
    is_token_byte, trim_whitespace,
};
use crate::pipeline::message::ReplyTo;

/// A version of HTTP that the decoders understand.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Version {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1.
    Http11,
}

impl Version {
    /// As it stands in a start line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http10 => "HTTP/1.0",
            Self::Http11 => "HTTP/1.1",
        }
    }

    const fn from_bytes(bytes: &[u8]) -> Option<Self> {
        match bytes {
            b"HTTP/1.0" => Some(Self::Http10),
            b"HTTP/1.1" => Some(Self::Http11),
            _ => None,
        }
    }
}

/// The head of a request, borrowed from the byte stream.
#[derive(Clone, Copy, Debug)]
pub struct RequestHead<'a> {
    /// Start line through the empty line, as sent. Empty lines before the start line are no part of it.
    pub raw: &'a [u8],
    /// The method.
    pub method: &'a [u8],
    /// The request target, in whatever form: origin, absolute, authority or asterisk.
    pub target: &'a [u8],
    /// The version.
    pub version: Version,
    /// Value of the first Host line.
    pub host: Option<&'a [u8]>,
    /// What the field lines say.
    pub facts: RequestFacts,
}

/// What the head of a request says about its body and its connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RequestFacts {
    /// How the end of the body is known. Never [`Framing::UntilClose`].
    pub framing: Framing,
    /// The connection stays open after the exchange (RFC 9112 section 9.3), as far as the client is concerned.
    pub keep_alive: bool,
    /// The client waits for an interim response before it sends the body (RFC 9110 section 10.1.1).
    pub expect_continue: bool,
    /// There is an Upgrade line, whatever Connection says.
    pub upgrade: bool,
    /// The method is CONNECT.
    pub connect: bool,
    /// There is an `x-mirror-id` line: the request is a copy.
    pub has_mirror_id: bool,
    /// There is a line by which a copy says what it is, though the request is none: `x-shadow`, for example.
    pub has_marker: bool,
    /// Why a strict decoder refuses the head, which only a lenient one gives all the same.
    pub refusal: Option<Refusal>,
}

impl<'a> RequestHead<'a> {
    /// Takes apart `raw`, which is one head: start line through the empty line.
    ///
    /// # Errors
    ///
    /// [`Refusal::AmbiguousFraming`] where readers could disagree about where a line or a field ends: bare CR or LF,
    /// a folded line, whitespace before a colon. [`Refusal::Malformed`] for anything else that is not a request.
    /// Where readers could disagree about the length of the body the head is given, with [`Framing::Ambiguous`].
    pub fn parse(raw: &'a [u8]) -> Result<Self, Refusal> {
        let (line, section) = split_start_line(raw)?;
        let (method, target, version) = parse_request_line(line).ok_or(Refusal::Malformed)?;
        let mut fields = Fields::default();
        with_field_table(section, |table| match httparse::parse_headers(section, table) {
            Ok(Status::Complete((len, lines))) if len == section.len() && has_only_crlf(raw, lines) => {
                lines.iter().for_each(|field| fields.note(field.name.as_bytes(), field.value));
                Parsed::Good(())
            }
            Err(httparse::Error::TooManyHeaders) => Parsed::TableTooSmall,
            Ok(_) | Err(_) => Parsed::Bad,
        })?;
        let facts = RequestFacts {
            framing: fields.request_framing(version),
            keep_alive: fields.keep_alive(version),
            expect_continue: fields.expects_continue && version == Version::Http11,
            upgrade: fields.has_upgrade,
            connect: method == b"CONNECT",
            has_mirror_id: fields.has_mirror_id,
            has_marker: fields.has_marker,
            refusal: None,
        };
        Ok(Self { raw, method, target, version, host: fields.host, facts })
    }

    /// The field lines in wire order.
    #[must_use]
    pub fn headers(&self) -> Headers<'a> {
        headers(self.raw)
    }

    /// How the response is framed.
    #[must_use]
    pub const fn reply_to(&self) -> ReplyTo {
        Method::from_bytes(self.method).reply_to()
    }
}

/// The head of a response, borrowed from the byte stream.
#[derive(Clone, Copy, Debug)]
pub struct ResponseHead<'a> {
    /// Start line through the empty line, as sent.
    pub raw: &'a [u8],
    /// The version.
    pub version: Version,
    /// The status code, 000 to 999 as sent.
    pub status: u16,
    /// The reason phrase; may be empty, may hold bytes from 0x80 up.
    pub reason: &'a [u8],
    /// What the field lines say.
    pub facts: ResponseFacts,
}

/// What the head of a response says about its body and its connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ResponseFacts {
    /// How the end of the body is known.
    pub framing: Framing,
    /// The connection stays open after the exchange (RFC 9112 section 9.3), as far as the server is concerned.
    pub keep_alive: bool,
    /// An interim response: another one follows for the same request. Not so 101.
    pub interim: bool,
    /// After this response the connection speaks another protocol: 101, or 2xx to CONNECT.
    pub tunnel: bool,
    /// As [`RequestFacts::refusal`].
    pub refusal: Option<Refusal>,
}

impl ResponseFacts {
    /// What follows from `framing` and the status; `keep_alive` is what the field lines say of the connection.
    pub(super) fn new(framing: Framing, keep_alive: bool, status: u16, reply_to: ReplyTo) -> Self {
        let tunnel = status == 101 || (reply_to == ReplyTo::Connect && (200..=299).contains(&status));
        Self {
            framing,
            keep_alive: keep_alive && framing != Framing::UntilClose,
            interim: (100..=199).contains(&status) && !tunnel,
            tunnel,
            refusal: None,
        }
    }
}

impl<'a> ResponseHead<'a> {
    /// Takes apart `raw`, which is one head: start line through the empty line.
    ///
    /// Line feeds without carriage return and folded lines are accepted, as clients do.
    ///
    /// # Errors
    ///
    /// [`Refusal::AmbiguousFraming`] for whitespace before a colon or a bare CR; [`Refusal::Malformed`] for anything
    /// else that is not a response.
    pub fn parse(raw: &'a [u8], reply_to: ReplyTo) -> Result<Self, Refusal> {
        let line_feed = find_line_feed(raw).ok_or(Refusal::Malformed)?;
        let (line, rest) = raw.split_at_checked(line_feed).ok_or(Refusal::Malformed)?;
        let section = rest.get(1..).unwrap_or_default();
        let mut fields = Fields::default();
        let (version, status) = with_field_table(section, |table| {
            let mut response = httparse::Response::new(table);
            let mut config = ParserConfig::default();
            config.allow_obsolete_multiline_headers_in_responses(true);
            match (config.parse_response(&mut response, raw), response.version, response.code) {
                (Ok(Status::Complete(len)), Some(version), Some(code)) if len == raw.len() => {
                    response.headers.iter().for_each(|field| fields.note(field.name.as_bytes(), field.value));
                    Parsed::Good((if version == 0 { Version::Http10 } else { Version::Http11 }, code))
                }
                (Err(httparse::Error::TooManyHeaders), ..) => Parsed::TableTooSmall,
                _ => Parsed::Bad,
            }
        })?;
        // `HTTP/1.1 200` is 12 bytes; what follows the space after it is the reason.
        let reason = trim_whitespace(line.strip_suffix(b"\r").unwrap_or(line).get(12..).unwrap_or_default());
        let framing = fields.response_framing(version, status, reply_to);
        let facts = ResponseFacts::new(framing, fields.keep_alive(version), status, reply_to);
        Ok(Self { raw, version, status, reason, facts })
    }

    /// The field lines in wire order.
    #[must_use]
    pub fn headers(&self) -> Headers<'a> {
        headers(self.raw)
    }
}

/// Whether `line`, the first bytes of a message that is still incomplete, can no longer become a request.
pub(super) fn is_hopeless_request(line: &[u8]) -> bool {
    if let Ok((line, _)) = split_start_line(line) {
        return parse_request_line(line).is_none();
    }
    let method_len = line.iter().position(|byte| !is_token_byte(*byte));
    method_len.is_some_and(|len| len == 0 || line.get(len) != Some(&b' '))
}

/// Whether `line`, the first bytes of a message that is still incomplete, can no longer become a response.
pub(super) fn is_hopeless_response(line: &[u8]) -> bool {
    let prefix = b"HTTP/1.";
    let len = line.len().min(prefix.len());
    line.get(..len) != prefix.get(..len)
}

/// The start line without its CRLF, and what follows it.
fn split_start_line(raw: &[u8]) -> Result<(&[u8], &[u8]), Refusal> {
    let line_feed = find_line_feed(raw).ok_or(Refusal::Malformed)?;
    let (line, rest) = raw.split_at_checked(line_feed).ok_or(Refusal::Malformed)?;
    let line = line.strip_suffix(b"\r").ok_or(Refusal::AmbiguousFraming)?;
    Ok((line, rest.get(1..).unwrap_or_default()))
}

/// Method, target and version of a request line (RFC 9112 section 3). `httparse` would refuse a target that is not
/// UTF-8.
fn parse_request_line(line: &[u8]) -> Option<(&[u8], &[u8], Version)> {
    let (line, version) = line.split_last_chunk::<8>()?;
    let version = Version::from_bytes(version)?;
    let line = line.strip_suffix(b" ")?;
    let (method, target) = line.split_at_checked(line.iter().position(|byte| !is_token_byte(*byte))?)?;
    let target = target.strip_prefix(b" ")?;
    // Without a way out in the middle, many bytes are looked at at once.
    let is_clean = target.iter().fold(true, |clean, byte| clean & is_target_byte(*byte));
    (is_clean && !method.is_empty() && !target.is_empty()).then_some((method, target, version))
}

/// What came of parsing a header section into a table.
enum Parsed<T> {
    Good(T),
    TableTooSmall,
    Bad,
}

/// Runs `parse` with room for the field lines of `section`: on the stack for common heads; where they are more,
/// again with an allocated table. The length of a head bounds the number of its lines.
fn with_field_table<'a, T>(
    section: &'a [u8],
    mut parse: impl FnMut(&mut [Header<'a>]) -> Parsed<T>,
) -> Result<T, Refusal> {
    // Browsers send up to 30 lines. Each costs 32 bytes to initialise.
    const COMMON_LINES: usize = 48;
    let mut parsed = parse(&mut [EMPTY_HEADER; COMMON_LINES]);
    if matches!(parsed, Parsed::TableTooSmall) {
        let lines = section.iter().filter(|byte| **byte == b'\n').count();
        parsed = parse(&mut vec![EMPTY_HEADER; lines]);
    }
    match parsed {
        Parsed::Good(value) => Ok(value),
        Parsed::TableTooSmall | Parsed::Bad => Err(refusal_of(section)),
    }
}

/// Whether the head ends in CRLF CRLF and each field line begins behind a CRLF: `httparse` takes a bare LF, too.
/// Values cannot hold one.
fn has_only_crlf(raw: &[u8], lines: &[Header<'_>]) -> bool {
    raw.ends_with(b"\r\n\r\n")
        && lines.iter().all(|field| {
            let start = field.name.as_ptr().addr().checked_sub(raw.as_ptr().addr());
            start.and_then(|start| raw.get(..start)).is_some_and(|before| before.ends_with(b"\r\n"))
        })
}

/// Why a header section that could not be parsed is refused.
fn refusal_of(section: &[u8]) -> Refusal {
    for line in section.split_inclusive(|byte| *byte == b'\n') {
        let Some(line) = line.strip_suffix(b"\r\n") else { return Refusal::AmbiguousFraming };
        let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
        let has_loose_name = trim_whitespace(name).len() != name.len();
        if has_loose_name || line.contains(&b'\r') {
            return Refusal::AmbiguousFraming;
        }
    }
    Refusal::Malformed
}
