//! Enters: the first bytes of a stream, or of a segment. Leaves: what they are.

use super::{Method, Version, find_line_feed, is_target_byte, is_token_byte, lenient};

/// What the first bytes of a client's byte stream are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Sniff {
    /// A request of HTTP/1.x.
    Request,
    /// A response of HTTP/1.x: the sides are the other way round.
    Response,
    /// Too few bytes to say; more can still make it any of the others.
    Partial,
    /// A TLS record.
    Tls,
    /// The connection preface of HTTP/2 with prior knowledge.
    Http2,
    /// A PROXY protocol header, version 1 or 2: what it announces begins behind it.
    Proxy {
        /// Length of the whole header in bytes. Not all of them need to be there yet.
        len: usize,
    },
    /// None of these.
    NotHttp,
}

/// Tells what a client's byte stream is from its first bytes. Empty lines before a start line are tolerated.
#[must_use]
pub fn classify(bytes: &[u8]) -> Sniff {
    if let Some(sniff) = classify_proxy(bytes) {
        return sniff;
    }
    let start = behind_empty_lines(bytes);
    match start {
        [] => Sniff::Partial,
        [0x14..=0x17, ..] => classify_tls(start),
        _ if HTTP2_PREFACE.starts_with(start) && start.len() < HTTP2_PREFACE_LINE => Sniff::Partial,
        _ if shares_prefix(start, HTTP2_PREFACE) => Sniff::Http2,
        [b'H', b'T', b'T', b'P', b'/', ..] => classify_response(start),
        _ => classify_request(start),
    }
}

/// Whether a request starts at the first of `bytes`, judged so strictly that the middle of a body hardly ever
/// passes: for streams whose start was missed, and after gaps.
///
/// The whole request line must be there. Where `bytes` end before it does, only known methods and common forms of
/// the target are accepted.
#[must_use]
pub fn strict_request_start(bytes: &[u8]) -> bool {
    let Some((method, rest)) = split_word(bytes) else { return false };
    if !looks_like_method(method) {
        return false;
    }
    if let Some(line_feed) = find_line_feed(rest) {
        let line = rest.get(..line_feed).and_then(|line| line.strip_suffix(b"\r"));
        return line.and_then(split_word).is_some_and(|(target, version)| {
            !target.is_empty() && target.iter().copied().all(is_target_byte) && parse_version(version)
        });
    }
    let (target, version) = split_word(rest).unwrap_or((rest, b""));
    let line_end: [&[u8]; 2] = [b"HTTP/1.0\r", b"HTTP/1.1\r"];
    Method::from_bytes(method) != Method::Other
        && TARGET_STARTS.iter().any(|start| target.starts_with(start))
        && target.iter().copied().all(is_target_byte)
        && line_end.iter().any(|end| end.starts_with(version))
}

/// The same where the first bytes of the request may be missing: the method must be a registered one, of which no
/// other ends with. `OST /` is the rest of something, not a request.
#[must_use]
pub fn whole_request_start(bytes: &[u8]) -> bool {
    split_word(bytes).is_some_and(|(method, _)| WHOLE_METHODS.contains(&method))
        && strict_request_start(bytes)
}

/// Whether a request starts at the first of `bytes` for a lenient [`RequestDecoder`](super::RequestDecoder); `None`
/// where more bytes are needed to say.
#[must_use]
pub fn lenient_request_start(bytes: &[u8]) -> Option<bool> {
    lenient::request_start(behind_empty_lines(bytes))
}

/// [`strict_request_start`] for a lenient decoder: the line must be whole, and the method look like one.
#[must_use]
pub fn lenient_pick_up(bytes: &[u8]) -> bool {
    let start = behind_empty_lines(bytes);
    split_word(start).is_some_and(|(method, _)| looks_like_method(method))
        && lenient::request_start(start) == Some(true)
}

/// Whether a response starts at the first of `bytes` for a lenient [`ResponseDecoder`](super::ResponseDecoder), judged
/// as [`response_start`] does where the line is not whole.
#[must_use]
pub fn lenient_response_start(bytes: &[u8]) -> bool {
    response_start(bytes).is_some() || lenient::response_start(behind_empty_lines(bytes))
}

/// `bytes` without the empty lines before a start line (RFC 9112 section 2.2).
fn behind_empty_lines(mut bytes: &[u8]) -> &[u8] {
    while let [b'\r' | b'\n', rest @ ..] = bytes {
        bytes = rest;
    }
    bytes
}

/// The status code, if a response starts at the first of `bytes`.
#[must_use]
pub fn response_start(bytes: &[u8]) -> Option<u16> {
    let [minor, b' ', code @ ..] = bytes.strip_prefix(b"HTTP/1.")? else { return None };
    let (digits, rest) = code.split_first_chunk::<3>()?;
    let ends = matches!(rest, [] | [b' ' | b'\r' | b'\n', ..]);
    if !ends || !minor.is_ascii_digit() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// RFC 9113 section 3.4.
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Its first line alone says enough.
const HTTP2_PREFACE_LINE: usize = b"PRI * HTTP/2.0".len();

/// How targets begin: origin and asterisk form, absolute form.
const TARGET_STARTS: [&[u8]; 3] = [b"/", b"*", b"http"];

/// The methods registered with IANA (RFC 9110 section 16.1.1) less those that another one ends with: BIND, LINK, LOCK.
const WHOLE_METHODS: [&[u8]; 36] = [
    b"ACL",
    b"BASELINE-CONTROL",
    b"CHECKIN",
    b"CHECKOUT",
    b"CONNECT",
    b"COPY",
    b"DELETE",
    b"GET",
    b"HEAD",
    b"LABEL",
    b"MERGE",
    b"MKACTIVITY",
    b"MKCALENDAR",
    b"MKCOL",
    b"MKREDIRECTREF",
    b"MKWORKSPACE",
    b"MOVE",
    b"OPTIONS",
    b"ORDERPATCH",
    b"POST",
    b"PROPFIND",
    b"PROPPATCH",
    b"PUT",
    b"QUERY",
    b"REBIND",
    b"REPORT",
    b"SEARCH",
    b"TRACE",
    b"UNBIND",
    b"UNCHECKOUT",
    b"UNLINK",
    b"UNLOCK",
    b"UPDATE",
    b"UPDATEREDIRECTREF",
    b"VERSION-CONTROL",
    b"PATCH",
];

/// A request line of which this many bytes fit is believed before its end is there: targets of some kilobytes are common,
/// and waiting for the rest would only hold bytes.
const CREDIBLE_LINE_BYTES: usize = 256;

/// Longest method believed in bytes; the longest registered one has 17.
const METHOD_BYTES: usize = 32;

/// The signature of the PROXY protocol, version 2.
const PROXY_V2: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// Longest header of the PROXY protocol, version 1, in bytes, CRLF included.
const PROXY_V1_BYTES: usize = 107;

/// How a version 1 header begins.
const PROXY_V1: [&[u8]; 3] = [b"PROXY TCP4 ", b"PROXY TCP6 ", b"PROXY UNKNOWN"];

fn classify_proxy(bytes: &[u8]) -> Option<Sniff> {
    if bytes.starts_with(PROXY_V2) {
        let Some((fixed, _)) = bytes.split_first_chunk::<16>() else { return Some(Sniff::Partial) };
        let [.., version_command, _, len_high, len_low] = *fixed;
        let len = usize::from(u16::from_be_bytes([len_high, len_low]));
        let is_known = version_command >> 4 == 2;
        return Some(if is_known { Sniff::Proxy { len: len.saturating_add(16) } } else { Sniff::NotHttp });
    }
    if !bytes.is_empty() && PROXY_V2.starts_with(bytes) {
        return Some(Sniff::Partial);
    }
    if bytes.len() > 3 && PROXY_V1.iter().any(|start| start.starts_with(bytes)) {
        return Some(Sniff::Partial);
    }
    if !PROXY_V1.iter().any(|start| bytes.starts_with(start)) {
        return None;
    }
    let longest = bytes.get(..PROXY_V1_BYTES).unwrap_or(bytes);
    Some(match find_line_feed(longest).and_then(|line_feed| longest.get(..line_feed)) {
        Some(line) if line.ends_with(b"\r") => Sniff::Proxy { len: line.len().saturating_add(1) },
        None if longest.len() < PROXY_V1_BYTES => Sniff::Partial,
        Some(_) | None => Sniff::NotHttp,
    })
}

/// The record header of TLS: content type, then version 3.0 to 3.4 (RFC 8446 section 5.1).
const fn classify_tls(bytes: &[u8]) -> Sniff {
    match bytes {
        [_, 3, 0..=4, ..] => Sniff::Tls,
        [_] | [_, 3] => Sniff::Partial,
        _ => Sniff::NotHttp,
    }
}

fn classify_response(bytes: &[u8]) -> Sniff {
    if response_start(bytes).is_some() {
        return Sniff::Response;
    }
    let pattern = b"HTTP/1.0 000";
    let fits = bytes.iter().zip(pattern).all(|(byte, expected)| match expected {
        b'0' => byte.is_ascii_digit(),
        _ => byte == expected,
    });
    if fits && bytes.len() < pattern.len() { Sniff::Partial } else { Sniff::NotHttp }
}

fn classify_request(bytes: &[u8]) -> Sniff {
    let method_len = bytes.iter().take_while(|byte| is_token_byte(**byte)).count();
    let Some((method, rest)) = bytes.split_at_checked(method_len) else { return Sniff::NotHttp };
    if method.is_empty() || method.len() > METHOD_BYTES {
        return Sniff::NotHttp;
    }
    let rest = match rest {
        [] => return Sniff::Partial,
        [b' ', rest @ ..] => rest,
        _ => return Sniff::NotHttp,
    };
    let target_len = rest.iter().take_while(|byte| is_target_byte(**byte)).count();
    let Some((target, rest)) = rest.split_at_checked(target_len) else { return Sniff::NotHttp };
    match rest {
        [] if bytes.len() >= CREDIBLE_LINE_BYTES => {
            let is_credible =
                looks_like_method(method) && TARGET_STARTS.iter().any(|start| target.starts_with(start));
            if is_credible { Sniff::Request } else { Sniff::Partial }
        }
        [] => Sniff::Partial,
        [b' ', version @ ..] if !target.is_empty() => classify_version(version),
        _ => Sniff::NotHttp,
    }
}

/// What a request line is that goes on with `version`.
fn classify_version(version: &[u8]) -> Sniff {
    let versions = [Version::Http10.as_str().as_bytes(), Version::Http11.as_str().as_bytes()];
    if versions.iter().any(|known| known.starts_with(version) && known.len() > version.len()) {
        return Sniff::Partial;
    }
    let after = versions.iter().find_map(|known| version.strip_prefix(*known));
    match after {
        Some([] | [b'\r' | b'\n', ..]) => Sniff::Request,
        Some(_) | None => Sniff::NotHttp,
    }
}

/// Whether a word has the shape that methods in use have, registered or not. The end of a common one, as in
/// `OST /`, is what is left of a method whose beginning was missed; one with a letter before it, as in `FPUT /`, has
/// the end of a body before it.
fn looks_like_method(word: &[u8]) -> bool {
    let is_miscut = |method: &Method| {
        let method = method.as_str().as_bytes();
        let before = word.strip_suffix(method).and_then(<[u8]>::last);
        (method.len() > word.len() && method.ends_with(word)) || before.is_some_and(u8::is_ascii_uppercase)
    };
    (3..=20).contains(&word.len())
        && word.iter().all(|byte| matches!(byte, b'A'..=b'Z' | b'-' | b'_'))
        && (Method::from_bytes(word) != Method::Other || !Method::ALL.iter().any(is_miscut))
}

/// Whether one begins with the other.
fn shares_prefix(bytes: &[u8], other: &[u8]) -> bool {
    bytes.iter().zip(other).all(|(byte, expected)| byte == expected)
}

/// What stands before and behind the first space.
fn split_word(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (word, rest) = bytes.split_at_checked(bytes.iter().position(|byte| *byte == b' ')?)?;
    Some((word, rest.get(1..)?))
}

fn parse_version(bytes: &[u8]) -> bool {
    matches!(bytes, b"HTTP/1.0" | b"HTTP/1.1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_bytes_tell_the_protocol() {
        let cases: &[(&[u8], Sniff)] = &[
            (b"", Sniff::Partial),
            (b"GE", Sniff::Partial),
            (b"GET ", Sniff::Partial),
            (b"GET /", Sniff::Partial),
            (b"GET / HTT", Sniff::Partial),
            (b"GET / HTTP/1.1", Sniff::Request),
            (b"GET /\xe9 HTTP/1.0\r\n", Sniff::Request),
            (b"\r\n\nmkcola * HTTP/1.1\r\nA: b", Sniff::Request),
            (b"\r\n", Sniff::Partial),
            (b"GET / HTTP/1.10", Sniff::NotHttp),
            (b"GET / HTTP/2.0\r\n", Sniff::NotHttp),
            (b"GET /\r\n", Sniff::NotHttp),
            (b"GET  / HTTP/1.1\r\n", Sniff::NotHttp),
            (b"EHLO mail.example.com\r\n", Sniff::NotHttp),
            (b"*1\r\n$4\r\nPING\r\n", Sniff::NotHttp),
            (b"SSH-2.0-OpenSSH_9.2\r\n", Sniff::NotHttp),
            (b"abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz", Sniff::NotHttp),
            (b"HTTP", Sniff::Partial),
            (b"HTTP/1.1 2", Sniff::Partial),
            (b"HTTP/1.1 200", Sniff::Response),
            (b"HTTP/1.1 200 OK\r\n", Sniff::Response),
            (b"HTTP/2 200\r\n", Sniff::NotHttp),
            (b"\x16", Sniff::Partial),
            (b"\x16\x03", Sniff::Partial),
            (b"\x16\x03\x01\x02\x00", Sniff::Tls),
            (b"\x17\x03\x03\x40", Sniff::Tls),
            (b"\x16\x04\x01", Sniff::NotHttp),
            (b"\x13\x03\x01", Sniff::NotHttp),
            (b"PRI", Sniff::Partial),
            (b"PRI * HTTP/2.0", Sniff::Http2),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0", Sniff::Http2),
            (b"PRI * HTTP/2.0\r\nHost: a", Sniff::NotHttp),
            (b"PRI * HTTP/1.1\r\n", Sniff::Request),
            (b"\0", Sniff::NotHttp),
        ];
        for (bytes, sniff) in cases {
            assert_eq!(classify(bytes), *sniff, "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn proxy_headers_are_measured() {
        let v1 = b"PROXY TCP4 192.0.2.1 192.0.2.2 1 80\r\n";
        assert_eq!(classify(&[v1, &b"GET / HTTP/1.1\r\n"[..]].concat()), Sniff::Proxy { len: v1.len() });
        assert_eq!(classify(b"PROXY UNKNOWN\r\n"), Sniff::Proxy { len: 15 });
        assert_eq!(classify(b"PROXY TCP6 ::1"), Sniff::Partial);
        assert_eq!(classify(b"PROXY TCP4 1\n"), Sniff::NotHttp);
        assert_eq!(classify(&[b"PROXY TCP4 ", &[b'x'; 107][..]].concat()), Sniff::NotHttp);
        assert_eq!(classify(b"PROXY /a HTTP/1.1\r\n"), Sniff::Request);

        let v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x01\x0c";
        for len in 1..v2.len() {
            assert_eq!(classify(&v2[..len]), Sniff::Partial, "{len}");
        }
        assert_eq!(classify(v2), Sniff::Proxy { len: 16 + 0x10c });
        assert_eq!(classify(b"\r\n\r\n\0\r\nQUIT\n\x11\x11\0\x0c"), Sniff::NotHttp);
    }

    #[test]
    fn long_target_behind_what_looks_like_a_method_is_believed() {
        let line = |method: &str| format!("{method} /{}", "x".repeat(1_000));
        assert_eq!(classify(line("GET").as_bytes()), Sniff::Request);
        assert_eq!(classify(line("PROPFIND").as_bytes()), Sniff::Request);
        assert_eq!(classify(line("propfind").as_bytes()), Sniff::Partial);
        assert_eq!(classify(line("UT").as_bytes()), Sniff::Partial);
        assert!(strict_request_start(line("POST").as_bytes()));
        assert!(!strict_request_start(line("POTS").as_bytes()));
    }

    #[test]
    fn pick_up_takes_whole_request_lines_only() {
        let cases: &[(&[u8], bool)] = &[
            (b"GET / HTTP/1.1\r\n", true),
            (b"M-SEARCH * HTTP/1.0\r\nA: b", true),
            (b"GET /caf\xe9 HTTP/1.1\r\n", true),
            (b"get / HTTP/1.1\r\n", false),
            (b"GO / HTTP/1.1\r\n", false),
            (b"OST / HTTP/1.1\r\n", false),
            (b"TIONS * HTTP/1.1\r\n", false),
            (b"FPUT / HTTP/1.1\r\n", false),
            (b"CCM_POST / HTTP/1.1\r\n", true),
            (b"\r\nGET / HTTP/1.1\r\n", false),
            (b"GET / HTTP/1.1\n", false),
            (b"GET / HTTP/1.2\r\n", false),
            (b"GET  HTTP/1.1\r\n", false),
            (b"GET / x HTTP/1.1\r\n", false),
            (b"THE quick brown fox", false),
            (b"GET brown", false),
            (b"GET /a b", false),
            (b"GET /a HTTP/1.1\r", true),
            (b"GET /a H", true),
            (b"GET http://a/", true),
            (b"GET ", false),
            (b"", false),
        ];
        for (bytes, is_start) in cases {
            assert_eq!(strict_request_start(bytes), *is_start, "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn lenient_pick_up_takes_whole_lines_with_a_method() {
        for bytes in [
            &b"GET / HTTP/1.1\n"[..],
            b"GET  /a b HTTP/1.1 \r\n",
            b"CCM_POST / HTTP/1.\n\n",
            b"\r\nGET / HTTP/1.1\n",
        ] {
            assert!(lenient_pick_up(bytes), "{}", bytes.escape_ascii());
        }
        for bytes in [&b"T / HTTP/1.1\r\n"[..], b"GET / HTTP/1.1", b"GET /\n", b"get / HTTP/1.1\n", b""] {
            assert!(!lenient_pick_up(bytes), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn lenient_response_starts_are_whole_status_lines() {
        for bytes in
            [&b"HTTP/1.1 200 O"[..], b"HTTP/1.1  200 OK\r\n", b"\r\nHTTP/1.\t200-OK\n", b" HTTP/1.1 200\n"]
        {
            assert!(lenient_response_start(bytes), "{}", bytes.escape_ascii());
        }
        for bytes in
            [&b"HTTP/1.1  200 OK"[..], b"HTTP/1.1 2000 OK\n", b"HTTP/1.x 200 OK\n", b"x HTTP/1.1 200\n", b""]
        {
            assert!(!lenient_response_start(bytes), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn response_starts_are_recognised() {
        assert_eq!(response_start(b"HTTP/1.1 200 OK\r\n"), Some(200));
        assert_eq!(response_start(b"HTTP/1.0 404\r\n"), Some(404));
        for bytes in [&b"HTTP/1.1 20"[..], b"HTTP/1.1 2000", b"HTTP/2 200 OK", b"HTTP/1.x 200 ", b"x"] {
            assert_eq!(response_start(bytes), None, "{}", bytes.escape_ascii());
        }
    }
}
