//! Enters: bytes that begin with a message. Leaves: how RFC 9112 reads them, and what is odd about them.
//!
//! It shares nothing with `inspect`: what both read alike out of odd bytes is no accident.

use super::{
    chunked::{self, End},
    message::{Body, Headers, Message, Paired, StartLine},
    shape::Shape,
};

/// A message, read from its bytes.
#[derive(Debug)]
pub(super) struct Reading {
    start_line: StartLine,
    /// `None` where the head has no end in the bytes.
    section: Option<Section>,
    /// What is odd about the start line.
    pub(super) of_line: Vec<Shape>,
}

/// What is behind the start line.
#[derive(Debug)]
struct Section {
    headers: Headers,
    /// Bytes from the message's first to the empty line's last.
    head_len: usize,
    content: Content,
    /// What is odd about the field lines.
    of_fields: Vec<Shape>,
    /// What is odd about the content, or how its length is told.
    of_content: Vec<Shape>,
}

/// The content of a message.
#[derive(Debug)]
enum Content {
    /// All of it; with what is around it, it takes `len` bytes.
    Whole { content: Vec<u8>, len: usize },
    /// As much as there is; it goes on behind that, up to `len` bytes where that is told beforehand.
    Beginning { content: Vec<u8>, len: Option<usize> },
    /// It ends with the connection.
    UntilClose(Vec<u8>),
    /// It ends where the grammar is broken, and nobody knows the end of the message.
    Broken(Vec<u8>),
    /// Nobody knows; this follows the head.
    Unknown(Vec<u8>),
}

impl Reading {
    /// Reads the message that `bytes` begin with, which `paired` says to be a response to some method where it is one.
    /// `None` where no start line of HTTP/1 stands there.
    pub(super) fn of(bytes: &[u8], paired: &Paired) -> Option<Self> {
        let line_feed = bytes.iter().position(|byte| *byte == b'\n')?;
        let line = &bytes[..line_feed];
        let start_line = start_line(line)?;
        let of_line = oddities(line.strip_suffix(b"\r").unwrap_or(line), &start_line);
        let section = Section::of(bytes, line_feed + 1, &start_line, paired);
        Some(Self { start_line, section, of_line })
    }

    /// Whether a message tells the same; `next` says how many bytes behind its first one the next message begins.
    pub(super) fn is_told_by(&self, message: &Message, next: Option<usize>) -> bool {
        let Some(section) = &self.section else { return false };
        let is = |content: &[u8]| message.body == Body::of(content);
        let has_body = match &section.content {
            _ if section.is_unsent(message, next) => true,
            Content::Whole { content, .. } => message.complete && is(content),
            Content::Beginning { .. } if section.is_cut(message, next) => true,
            Content::Beginning { content, .. } | Content::Broken(content) => !message.complete && is(content),
            Content::UntilClose(content) => next.is_none() && is(content),
            Content::Unknown(rest) => is(b"") || is(rest),
        };
        self.has_head_of(message) && has_body
    }

    /// Whether start line and fields are those of a message.
    pub(super) fn has_head_of(&self, message: &Message) -> bool {
        self.start_line == message.start_line
            && self.section.as_ref().is_some_and(|section| section.headers == message.headers)
    }

    /// Bytes from the message's first to behind its last, as this message tells it; `None` where that is not known.
    pub(super) fn len(&self, message: &Message, next: Option<usize>) -> Option<usize> {
        let section = self.section.as_ref()?;
        match &section.content {
            _ if section.is_unsent(message, next) => Some(section.head_len),
            Content::Whole { len, .. } => Some(section.head_len + len),
            Content::Beginning { .. } if section.is_cut(message, next) => next,
            Content::Beginning { .. } | Content::UntilClose(_) | Content::Broken(_) | Content::Unknown(_) => {
                None
            }
        }
    }

    /// What is odd about the field lines.
    pub(super) fn of_fields(&self) -> &[Shape] {
        self.section.as_ref().map_or(&[], |section| &section.of_fields)
    }

    /// What is odd about the content as this message tells it.
    pub(super) fn of_content(&self, message: &Message, next: Option<usize>) -> Vec<Shape> {
        let Some(section) = &self.section else { return Vec::new() };
        let unsent = section.is_unsent(message, next).then_some(Shape::UnsentBody);
        unsent.into_iter().chain(section.of_content.iter().copied()).collect()
    }
}

impl Section {
    /// Reads what is behind a start line that takes `at` bytes.
    fn of(bytes: &[u8], at: usize, start_line: &StartLine, paired: &Paired) -> Option<Self> {
        let mut head_len = at;
        let mut lines: Vec<&[u8]> = Vec::new();
        loop {
            let len = bytes[head_len..].iter().position(|byte| *byte == b'\n')? + 1;
            let line = &bytes[head_len..head_len + len];
            head_len += len;
            if matches!(line, b"\n" | b"\r\n") {
                break;
            }
            lines.push(line);
        }
        let mut fields = Fields::default();
        fields.take(&lines);
        let Fields { headers, consumed, odd: of_fields } = fields;
        let mut of_content = Vec::new();
        let content = content(&headers[consumed..], start_line, paired, &bytes[head_len..], &mut of_content);
        Some(Self { headers, head_len, content, of_fields, of_content })
    }

    /// Whether a client left out a body that it had announced, as one may that expected to be told to go on
    /// (RFC 9110 section 10.1.1): the next message begins where the body would.
    fn is_unsent(&self, message: &Message, next: Option<usize>) -> bool {
        let expects = self.headers.iter().any(|(name, value)| {
            name.eq_ignore_ascii_case(b"expect") && value.eq_ignore_ascii_case(b"100-continue")
        });
        expects && !message.complete && message.body == Body::of(b"") && next == Some(self.head_len)
    }

    /// Whether bytes of the content are missing, and the next message begins where its length says that it ends.
    fn is_cut(&self, message: &Message, next: Option<usize>) -> bool {
        let Content::Beginning { len: Some(len), .. } = &self.content else { return false };
        let end = self.head_len.checked_add(*len);
        matches!(message.body, Body::Damaged { .. }) && end.is_some() && end == next
    }
}

/// White space between the words of a start line (RFC 9112 sections 3 and 4).
fn is_white(byte: &u8) -> bool {
    matches!(byte, b' ' | b'\t' | 0x0b | 0x0c | b'\r')
}

fn trim(bytes: &[u8], is_white: fn(&u8) -> bool) -> &[u8] {
    let start = bytes.iter().position(|byte| !is_white(byte)).unwrap_or(bytes.len());
    let end = bytes.iter().rposition(|byte| !is_white(byte)).map_or(start, |last| last + 1);
    &bytes[start..end]
}

/// Reads a line without its line feed by its words: status lines by their first, request lines by their last.
fn start_line(line: &[u8]) -> Option<StartLine> {
    let line = trim(line, is_white);
    let first = line.iter().position(is_white)?;
    let (word, rest) = (&line[..first], trim(&line[first..], is_white));
    if is_version(word) {
        let (digits, behind) = rest.split_first_chunk::<3>()?;
        let is_status =
            digits.iter().all(u8::is_ascii_digit) && !behind.first().is_some_and(u8::is_ascii_digit);
        let status = str::from_utf8(digits).ok().filter(|_| is_status)?.parse().ok()?;
        return Some(StartLine::Response { status });
    }
    let last = rest.iter().rposition(is_white)?;
    let target = trim(&rest[..last], is_white);
    let is_request = is_version(&rest[last + 1..]) && word.iter().all(is_token) && !target.is_empty();
    is_request.then(|| StartLine::Request { method: word.to_vec(), target: target.to_vec() })
}

/// One of HTTP/1. The minor version is a digit (RFC 9112 section 2.3); some send two, or none.
fn is_version(word: &[u8]) -> bool {
    let minor = word.strip_prefix(b"HTTP/1.");
    minor.is_some_and(|minor| minor.len() <= 2 && minor.iter().all(u8::is_ascii_digit))
}

/// RFC 9110 section 5.6.2.
fn is_token(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte)
}

/// What is odd about a start line, which is given without its end.
fn oddities(line: &[u8], start_line: &StartLine) -> Vec<Shape> {
    let mut odd = Vec::new();
    if line.contains(&b'\r') {
        odd.push(Shape::BareCarriageReturn);
    }
    match start_line {
        StartLine::Request { method, target } => {
            // RFC 9112 section 3: one space stands between the parts.
            let usual = [method, &b" "[..], target, b" HTTP/1."].concat();
            if target.iter().any(is_white) {
                odd.push(Shape::SpaceInTarget);
            } else if !line.starts_with(&usual) || line.ends_with(b" ") || line.ends_with(b"\t") {
                odd.push(Shape::WhiteSpaceInLine);
            }
            if !WIRESHARKS_METHODS.iter().any(|known| known.as_bytes() == method) {
                odd.push(Shape::UnknownMethod);
            }
        }
        StartLine::Response { status } => {
            let usual = format!(" {status:03}");
            let words = line.iter().position(|byte| *byte == b' ').map(|space| line.split_at(space));
            if !words.is_some_and(|(version, rest)| is_version(version) && rest.starts_with(usual.as_bytes()))
            {
                odd.push(Shape::WhiteSpaceInLine);
            }
        }
    }
    odd
}

/// Those that Wireshark 4.0 knows.
const WIRESHARKS_METHODS: [&str; 42] = [
    "GET",
    "PUT",
    "COPY",
    "HEAD",
    "LOCK",
    "MOVE",
    "POLL",
    "POST",
    "BCOPY",
    "BMOVE",
    "MKCOL",
    "TRACE",
    "PATCH",
    "LABEL",
    "MERGE",
    "DELETE",
    "SEARCH",
    "UNLOCK",
    "REPORT",
    "UPDATE",
    "NOTIFY",
    "BDELETE",
    "CONNECT",
    "OPTIONS",
    "CHECKIN",
    "PROPFIND",
    "CHECKOUT",
    "CCM_POST",
    "SUBSCRIBE",
    "PROPPATCH",
    "BPROPFIND",
    "BPROPPATCH",
    "UNCHECKOUT",
    "MKACTIVITY",
    "MKWORKSPACE",
    "UNSUBSCRIBE",
    "RPC_CONNECT",
    "VERSION-CONTROL",
    "BASELINE-CONTROL",
    "SSTP_DUPLEX_POST",
    "RPC_IN_DATA",
    "RPC_OUT_DATA",
];

/// Field lines, read.
#[derive(Debug, Default)]
struct Fields {
    headers: Headers,
    /// How many of them mean nothing.
    consumed: usize,
    odd: Vec<Shape>,
}

impl Fields {
    fn take(&mut self, lines: &[&[u8]]) {
        let is_fold = |line: &[u8]| matches!(line.first(), Some(b' ' | b'\t'));
        let mut rest = lines;
        while let Some((first, behind)) = rest.split_first() {
            let folds = behind.iter().take_while(|line| is_fold(line)).count();
            if is_fold(first) {
                // Only the first line can be one. RFC 9112 section 2.2: it is consumed without further processing.
                self.odd.push(Shape::WhiteSpaceBeforeFields);
            }
            if folds > 0 {
                self.odd.push(Shape::FoldedField);
            }
            let all = &rest[..=folds];
            // RFC 9112 section 2.2: alone, a carriage return ends no line.
            if all.iter().any(|line| line.strip_suffix(b"\r\n").unwrap_or(line).contains(&b'\r')) {
                self.odd.push(Shape::BareCarriageReturn);
            }
            match first.iter().position(|byte| *byte == b':') {
                Some(colon) => self.add(&first[..colon], &first[colon + 1..], &all[1..], is_fold(first)),
                None => self.odd.push(Shape::LineWithoutColon),
            }
            rest = &behind[folds..];
        }
    }

    fn add(&mut self, name: &[u8], value: &[u8], folds: &[&[u8]], is_consumed: bool) {
        let is_white = |byte: &u8| matches!(byte, b' ' | b'\t');
        let is_white_or_end = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
        if name.last().is_some_and(is_white) {
            self.odd.push(Shape::SpaceBeforeColon);
        }
        // RFC 9112 section 5.2: a line break within a value stands for spaces.
        let parts = [value].into_iter().chain(folds.iter().copied());
        let parts: Vec<&[u8]> =
            parts.map(|part| trim(part, is_white_or_end)).filter(|part| !part.is_empty()).collect();
        self.headers.push((trim(name, is_white).to_vec(), parts.join(&b' ')));
        self.consumed += usize::from(is_consumed);
    }
}

/// The content of a message with these fields, at the start of `bytes`.
// RFC 9112 section 6.3.
fn content(
    headers: &[(Vec<u8>, Vec<u8>)],
    start_line: &StartLine,
    paired: &Paired,
    bytes: &[u8],
    odd: &mut Vec<Shape>,
) -> Content {
    let nothing = Content::Whole { content: Vec::new(), len: 0 };
    let method = match (start_line, paired) {
        (StartLine::Request { method, .. }, _) | (_, Paired::Method(method)) => method.as_slice(),
        _ => b"",
    };
    let status = match start_line {
        StartLine::Response { status } => Some(*status),
        StartLine::Request { .. } => None,
    };
    // Rules 1 and 2.
    if status.is_some_and(|status| {
        matches!(status, 100..=199 | 204 | 304)
            || method == b"HEAD"
            || (method == b"CONNECT" && matches!(status, 200..=299))
    }) {
        odd.push(Shape::NoBody);
        return nothing;
    }
    let values = |wanted: &'static str| {
        let of_name = headers.iter().filter(move |(name, _)| name.eq_ignore_ascii_case(wanted.as_bytes()));
        of_name.map(|(_, value)| value.as_slice())
    };
    let listed = |wanted| values(wanted).flat_map(|value| value.split(|byte| *byte == b','));
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    // RFC 2616 section 3.6 had the coding identity for none.
    let has_codings = values("transfer-encoding").next().is_some();
    let codings: Vec<&[u8]> = listed("transfer-encoding").map(|coding| trim(coding, blank)).collect();
    let is_coding = |coding: &&&[u8]| !coding.eq_ignore_ascii_case(b"identity");
    // RFC 9110 section 5.6.1.2: empty elements of a list are none, but one alone is a coding that nobody knows.
    let last = codings.iter().filter(is_coding).rfind(|coding| !coding.is_empty());
    let last = last.or_else(|| codings.iter().find(is_coding));
    let lengths: Vec<Option<u64>> = listed("content-length").map(|text| decimal(trim(text, blank))).collect();
    match (last, status, lengths.first()) {
        // Rule 4.
        (Some(last), ..) if last.eq_ignore_ascii_case(b"chunked") => {
            if *last != b"chunked" || codings.last() != Some(last) {
                odd.push(Shape::CodingInOtherWords);
            }
            chunked_content(bytes, odd)
        }
        (Some(_), Some(_), _) => {
            odd.push(Shape::LastCodingNotChunked);
            Content::UntilClose(bytes.to_vec())
        }
        // Nobody can tell; whoever goes on goes by the length.
        (Some(_), None, Some(Some(length))) => {
            odd.push(Shape::LastCodingNotChunked);
            fixed_content(bytes, *length, odd)
        }
        (Some(_), None, _) => {
            odd.push(Shape::LastCodingNotChunked);
            Content::Unknown(bytes.to_vec())
        }
        (None, None, None) if has_codings => {
            odd.push(Shape::LastCodingNotChunked);
            Content::Unknown(bytes.to_vec())
        }
        // Rule 5.
        (None, _, Some(first)) => {
            if !codings.is_empty() {
                odd.push(Shape::CodingInOtherWords);
            }
            let Some(length) = first.filter(|_| lengths.iter().all(|length| length == first)) else {
                odd.push(Shape::InvalidLength);
                return Content::Unknown(bytes.to_vec());
            };
            if values("content-length").any(|value| value.contains(&b',')) {
                odd.push(Shape::ListedLength);
            }
            if matches!(method, b"RPC_IN_DATA" | b"RPC_OUT_DATA") {
                odd.push(Shape::RpcOverHttp);
            }
            fixed_content(bytes, length, odd)
        }
        // Rule 7; with it, a response that says nothing ends with the connection (rule 8).
        (None, None, None) => {
            if method == b"NOTIFY" {
                odd.push(Shape::Notification);
            }
            nothing
        }
        (None, Some(_), None) => Content::UntilClose(bytes.to_vec()),
    }
}

fn chunked_content(bytes: &[u8], odd: &mut Vec<Shape>) -> Content {
    let chunked = chunked::read(bytes);
    let found = [
        (chunked.has_long_chunk, Shape::LengthBeyond31Bits),
        (chunked.end == End::Broken, Shape::BrokenChunk),
        (chunked.has_bare_line_feed, Shape::BareLineFeedInChunks),
    ];
    odd.extend(found.into_iter().filter_map(|(is_so, shape)| is_so.then_some(shape)));
    match chunked.end {
        End::At(len) => Content::Whole { content: chunked.content, len },
        End::Beyond => Content::Beginning { content: chunked.content, len: None },
        End::Broken => Content::Broken(chunked.content),
    }
}

fn fixed_content(bytes: &[u8], length: u64, odd: &mut Vec<Shape>) -> Content {
    if i32::try_from(length).is_err() {
        odd.push(Shape::LengthBeyond31Bits);
    }
    let len = usize::try_from(length).ok();
    match len.and_then(|len| bytes.get(..len)) {
        Some(content) => Content::Whole { content: content.to_vec(), len: content.len() },
        None => Content::Beginning { content: bytes.to_vec(), len },
    }
}

/// Digits and nothing else.
fn decimal(text: &[u8]) -> Option<u64> {
    let is_number = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    str::from_utf8(text).ok().filter(|_| is_number)?.parse().ok()
}
