//! Enters: a message as `inspect` tells it, and its bytes as Wireshark shows them. Leaves: why Wireshark reads it
//! otherwise, where the bytes prove it.

use super::{
    chunked,
    layer::{header, transfer_codings},
    message::{Body, Headers, Message, StartLine},
};

/// A form of messages that Wireshark reads otherwise than RFC 9112 says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Shape {
    /// A field value over several lines; Wireshark takes the second for content.
    FoldedField,
    /// A line without a colon among the fields; Wireshark takes it for content.
    LineWithoutColon,
    /// White space within the request target.
    SpaceInTarget,
    /// White space other than one space between the parts of a request line.
    WhiteSpaceInLine,
    /// Empty lines before a request.
    EmptyLinesFirst,
    /// A header of the PROXY protocol before a request.
    ProxyHeader,
    /// Transfer codings of which the last is not chunked.
    LastCodingNotChunked,
}

impl Shape {
    /// The word for it in verdicts.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::FoldedField => "folded-field",
            Self::LineWithoutColon => "line-without-colon",
            Self::SpaceInTarget => "space-in-target",
            Self::WhiteSpaceInLine => "white-space-in-line",
            Self::EmptyLinesFirst => "empty-lines-first",
            Self::ProxyHeader => "proxy-header",
            Self::LastCodingNotChunked => "last-coding-not-chunked",
        }
    }
}

/// A message whose head Wireshark ends early or cuts otherwise, read from the bytes that it shows.
#[derive(Debug)]
pub(super) struct Reread {
    /// Why the head was misread.
    pub(super) shape: Shape,
    headers: Headers,
    /// `None` where the bytes do not hold all of it, or it ends with the connection.
    pub(super) body: Option<Body>,
    /// Bytes from the message's first to behind its last, where bytes behind the early end hold it all.
    len: Option<usize>,
}

/// Reads a message again whose head Wireshark misreads. `None` where it does not, where the end of the head is not
/// shown, or where nothing explains it.
pub(super) fn reread(theirs: &Message) -> Option<Reread> {
    let shown = &theirs.shown;
    let fields = shown.lines.get(1..)?.iter().map(Vec::as_slice);
    if shown.is_ended {
        // With a colon in it the second line of a value is a field to Wireshark.
        let is_folded = fields.clone().skip(1).any(is_fold);
        return is_folded.then(|| Reread {
            shape: Shape::FoldedField,
            headers: unfold(fields),
            body: Some(theirs.body.clone()),
            len: None,
        });
    }
    let behind: Vec<&[u8]> = shown.rest.split_inclusive(|byte| *byte == b'\n').collect();
    let shape = match *behind.first()? {
        line if is_fold(line) => Shape::FoldedField,
        line if !line.contains(&b':') && !line.trim_ascii().is_empty() => Shape::LineWithoutColon,
        _ => return None,
    };
    let empty = behind.iter().position(|line| matches!(*line, b"\r\n" | b"\n"))?;
    let headers = unfold(fields.chain(behind[..empty].iter().copied()));
    let head_len: usize = behind[..=empty].iter().map(|line| line.len()).sum();
    let (body, body_len) = body(&headers, &theirs.start_line, &shown.rest[head_len..]);
    let len = body.is_some().then(|| theirs.shown.lines_len() + head_len + body_len);
    Some(Reread { shape, headers, body, len })
}

/// Whether a line goes on with the value of the one before.
fn is_fold(line: &[u8]) -> bool {
    line.starts_with(b" ") || line.starts_with(b"\t")
}

/// Names and values of field lines, RFC 9112 section 5.2 applied.
fn unfold<'a>(lines: impl Iterator<Item = &'a [u8]>) -> Headers {
    let mut fields: Vec<Vec<u8>> = Vec::new();
    for line in lines {
        match fields.last_mut() {
            Some(last) if is_fold(line) => last.extend_from_slice(line),
            _ => fields.push(line.to_vec()),
        }
    }
    fields.iter().filter_map(|field| header(field)).collect()
}

/// The body that these fields announce at the start of `bytes`, and how many bytes it takes.
fn body(headers: &Headers, start_line: &StartLine, bytes: &[u8]) -> (Option<Body>, usize) {
    let codings = transfer_codings(headers);
    let lengths: Vec<_> =
        headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case(b"content-length")).collect();
    // RFC 9112 section 6.3, rules 3 to 6.
    match (codings.last(), lengths.as_slice()) {
        (Some(last), _) if last == b"chunked" => match chunked::content(bytes) {
            Some((content, used)) => (Some(Body::of(&content)), used),
            None => (None, 0),
        },
        (None, [(_, length)]) => {
            let length = str::from_utf8(length).ok().and_then(|length| length.parse::<usize>().ok());
            match length.and_then(|length| bytes.get(..length)) {
                Some(content) => (Some(Body::of(content)), content.len()),
                None => (None, 0),
            }
        }
        (None, []) if matches!(start_line, StartLine::Request { .. }) => (Some(Body::of(b"")), 0),
        _ => (None, 0),
    }
}

impl Reread {
    /// Whether it has these fields.
    pub(super) fn has_fields_of(&self, ours: &Message) -> bool {
        self.headers == ours.headers
    }

    /// Whether `ours` stands right behind it, and the bytes that Wireshark took for content of `theirs` say so.
    pub(super) fn is_followed_by(&self, theirs: &Message, ours: &Message) -> bool {
        let Some(len) = self.len else { return false };
        usize::try_from(ours.seq.wrapping_sub(theirs.seq)) == Ok(len)
            && theirs
                .shown
                .rest
                .get(len - theirs.shown.lines_len()..)
                .is_some_and(|rest| tells(rest, &ours.start_line))
    }
}

/// Why the two differ about a body both of whose messages announce it alike.
pub(super) fn of_body(ours: &Message) -> Option<Shape> {
    // RFC 9112 section 6.3, rule 4; identity is none (RFC 9112 section 7).
    let codings = transfer_codings(&ours.headers);
    let last = codings.last().filter(|last| *last != b"chunked" && *last != b"identity");
    last.map(|_| Shape::LastCodingNotChunked)
}

/// Why `inspect` does not tell of a message of Wireshark's, given one in the same direction of which it does.
pub(super) fn of_message_behind(before: &Message, theirs: &Message) -> Option<Shape> {
    let is_behind = (1..=u32::MAX / 2).contains(&theirs.seq.wrapping_sub(before.seq));
    // What is behind such a response is its content, up to the end of the connection.
    let is_response = matches!(before.start_line, StartLine::Response { .. });
    of_body(before).filter(|_| is_behind && is_response && before.complete)
}

/// Why the two differ about the target, by the request line.
pub(super) fn of_request_line(theirs: &Message, ours: &Message) -> Option<Shape> {
    of_line(theirs.shown.lines.first()?, &ours.start_line)
}

/// Why Wireshark does not tell of a request `into` bytes behind the first one of a segment.
pub(super) fn of_segment(payload: &[u8], into: usize, ours: &Message) -> Option<Shape> {
    let (before, from_it) = payload.split_at_checked(into)?;
    if before.is_empty() {
        return of_line(from_it, &ours.start_line);
    }
    if is_proxy_header(before) && tells(from_it, &ours.start_line) {
        return Some(Shape::ProxyHeader);
    }
    let is_empty_lines = before.ends_with(b"\n") && before.iter().all(|byte| matches!(byte, b'\r' | b'\n'));
    (is_empty_lines && tells(from_it, &ours.start_line)).then_some(Shape::EmptyLinesFirst)
}

/// Whether these bytes are a header of the PROXY protocol (its sections 2.1 and 2.2) and no more.
fn is_proxy_header(bytes: &[u8]) -> bool {
    if let Some(behind) = bytes.strip_prefix(b"\r\n\r\n\0\r\nQUIT\n") {
        // Version and command, family, then the length of what follows.
        let [_, _, high, low, rest @ ..] = behind else { return false };
        return rest.len() == usize::from(u16::from_be_bytes([*high, *low]));
    }
    bytes.starts_with(b"PROXY ") && bytes.iter().position(|byte| *byte == b'\n') == Some(bytes.len() - 1)
}

/// What is odd about the line that `bytes` begin with, if it tells this request.
fn of_line(bytes: &[u8], start_line: &StartLine) -> Option<Shape> {
    let StartLine::Request { method, target } = start_line else { return None };
    if !tells(bytes, start_line) {
        return None;
    }
    let is_white = |byte: &u8| matches!(byte, b' ' | b'\t');
    if target.iter().any(is_white) {
        return Some(Shape::SpaceInTarget);
    }
    // RFC 9112 section 3: one space stands between the parts.
    let usual = [method.as_slice(), b" ", target, b" HTTP/1."].concat();
    (!bytes.starts_with(&usual)).then_some(Shape::WhiteSpaceInLine)
}

/// Whether `bytes` begin with a line that tells this, be the white space in it what it may.
fn tells(bytes: &[u8], start_line: &StartLine) -> bool {
    let Some(line) = bytes.split_inclusive(|byte| *byte == b'\n').next().filter(|line| line.ends_with(b"\n"))
    else {
        return false;
    };
    let is_white = |byte: &u8| byte.is_ascii_whitespace();
    let line = line.trim_ascii_end();
    match start_line {
        StartLine::Request { method, target } => {
            let Some(behind) = line.strip_prefix(method.as_slice()) else { return false };
            let Some(space) = behind.iter().rposition(is_white) else { return false };
            let (between, version) = behind.split_at(space);
            // Else the last word of the target is the version.
            let is_apart = behind.first().is_some_and(is_white);
            is_apart && between.trim_ascii() == target && version.trim_ascii_start().starts_with(b"HTTP/1.")
        }
        StartLine::Response { status } => {
            let mut words = line.split(is_white).filter(|word| !word.is_empty());
            words.next().is_some_and(|version| version.starts_with(b"HTTP/1."))
                && words.next() == Some(status.to_string().as_bytes())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parity::message::Shown;

    #[test]
    fn head_that_ends_early_is_read_to_its_end() {
        let cases: [(&[&str], &str, Shape); 3] = [
            (&["X: one\r\n"], " two\r\n\tthree\r\nY: z\r\n\r\n", Shape::FoldedField),
            (&["X: one two three\r\n"], "nonsense\r\nY: z\r\n\r\n", Shape::LineWithoutColon),
            (&["X: one\r\n", " two\r\n", " three\r\n", "Y: z\r\n"], "", Shape::FoldedField),
        ];
        let ours = with_fields(&[("X", "one two three"), ("Y", "z")]);
        for (lines, rest, shape) in cases {
            let again = reread(&shown("GET / HTTP/1.1\r\n", lines, rest)).unwrap();
            assert_eq!(again.shape, shape);
            assert!(again.has_fields_of(&ours), "{:?}", again.headers);
            assert!(!again.has_fields_of(&with_fields(&[("X", "one")])));
            assert_eq!(again.body, Some(Body::of(b"")));
        }
    }

    #[test]
    fn head_without_its_end_or_without_a_reason_is_not_read_again() {
        assert!(reread(&shown("GET / HTTP/1.1\r\n", &["X: one\r\n"], " two\r\n")).is_none());
        assert!(reread(&shown("GET / HTTP/1.1\r\n", &["X: one\r\n"], "Y: z\r\n\r\n")).is_none());
        assert!(reread(&shown("GET / HTTP/1.1\r\n", &["X: one\r\n"], "\r\nabc")).is_none());
        assert!(reread(&shown("GET / HTTP/1.1\r\n", &["X: one\r\n"], "")).is_none());
        assert!(reread(&request("/")).is_none());
    }

    #[test]
    fn message_behind_such_a_one_has_to_stand_where_its_body_ends() {
        let rest = " chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nGET /b HTTP/1.1\r\n\r\n";
        let theirs = shown("POST / HTTP/1.1\r\n", &["Transfer-Encoding:\r\n"], rest);
        let again = reread(&theirs).unwrap();
        assert_eq!(again.body, Some(Body::of(b"abc")));
        let at = |seq, target| Message { seq: theirs.seq.wrapping_add(seq), ..request(target) };
        assert!(again.is_followed_by(&theirs, &at(62, "/b")));
        assert!(!again.is_followed_by(&theirs, &at(61, "/b")));
        assert!(!again.is_followed_by(&theirs, &at(62, "/c")));
    }

    #[test]
    fn request_line_proves_what_is_odd_about_it() {
        let cases = [
            ("GET /a b HTTP/1.1\r\n", "/a b", Some(Shape::SpaceInTarget)),
            ("GET  /a  HTTP/1.1\r\n", "/a", Some(Shape::WhiteSpaceInLine)),
            ("GET\t/a\tHTTP/1.1\n", "/a", Some(Shape::WhiteSpaceInLine)),
            ("GET /a HTTP/1.1\r\n", "/a", None),
            ("GET /a b HTTP/1.1\r\n", "/a", None),
            ("GET  /a  HTTP/1.1", "/a", None),
            ("GET  /a b\r\n", "/a", None),
        ];
        for (line, target, shape) in cases {
            assert_eq!(of_request_line(&shown(line, &[], ""), &request(target)), shape, "{line}");
            assert_eq!(of_segment(line.as_bytes(), 0, &request(target)), shape, "{line}");
        }
    }

    #[test]
    fn what_stands_before_a_request_is_looked_at_to_the_last_byte() {
        let v2 = "\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x04\x01\x02\x03\x04";
        let cases = [
            ("\r\n", Some(Shape::EmptyLinesFirst)),
            ("\n\r\n", Some(Shape::EmptyLinesFirst)),
            ("PROXY UNKNOWN\r\n", Some(Shape::ProxyHeader)),
            (v2, Some(Shape::ProxyHeader)),
            (&v2[..v2.len() - 1], None),
            ("\r", None),
            (" \r\n", None),
            ("PROXY UNKNOWN\r\n\r\n", None),
        ];
        for (before, shape) in cases {
            let payload = format!("{before}GET /a HTTP/1.1\r\n");
            assert_eq!(of_segment(payload.as_bytes(), before.len(), &request("/a")), shape, "{before:?}");
            assert_eq!(of_segment(payload.as_bytes(), before.len(), &request("/b")), None);
        }
    }

    #[test]
    fn last_coding_decides_about_the_body_and_what_is_behind_it() {
        let response = |coding| Message {
            start_line: StartLine::Response { status: 200 },
            ..with_fields(&[("Transfer-Encoding", coding)])
        };
        let behind = Message { seq: 9, ..response("") };
        for (coding, shape) in [
            ("chunked, gzip", Some(Shape::LastCodingNotChunked)),
            ("xchunked", Some(Shape::LastCodingNotChunked)),
            ("gzip, Chunked", None),
            ("identity", None),
        ] {
            assert_eq!(of_body(&response(coding)), shape);
            assert_eq!(of_message_behind(&response(coding), &behind), shape);
            assert_eq!(of_message_behind(&behind, &response(coding)), None);
        }
        assert_eq!(of_message_behind(&with_fields(&[("Transfer-Encoding", "x")]), &behind), None);
    }

    /// A request as Wireshark shows it.
    fn shown(line: &str, lines: &[&str], rest: &str) -> Message {
        let all = [&[line], lines].concat();
        let lines = all.iter().map(|line| line.as_bytes().to_vec()).collect();
        let shown = Shown { lines, is_ended: rest.is_empty() && all.len() > 2, rest: rest.into() };
        Message { shown, ..request("/") }
    }

    fn with_fields(fields: &[(&str, &str)]) -> Message {
        let headers = fields.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        Message { headers, ..request("/") }
    }

    fn request(target: &str) -> Message {
        Message {
            sender: "192.0.2.1:4000".parse().unwrap(),
            receiver: "192.0.2.2:80".parse().unwrap(),
            seq: 5,
            offset: 0,
            place: String::new(),
            start_line: StartLine::Request { method: b"GET".to_vec(), target: target.into() },
            headers: Headers::new(),
            body: Body::of(b""),
            complete: true,
            shown: Shown::default(),
        }
    }
}
