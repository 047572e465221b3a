//! Enters: the first bytes that one end of a flow was seen to send. Leaves: whether a request or a response begins
//! there.

/// What begins at the start of some bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Opening {
    /// A request: the sender is the client.
    Request,
    /// A response: the sender is the server.
    Status,
}

/// What begins at the start of `bytes`; `None` where that is neither, or too short to tell.
pub(super) fn opening(bytes: &[u8]) -> Option<Opening> {
    // Only who opened the connection sends a PROXY protocol header.
    if bytes.starts_with(PROXY_V1) || bytes.starts_with(PROXY_V2) {
        return Some(Opening::Request);
    }
    // RFC 9112 section 2.2: empty lines before a request line are to be ignored.
    let start = bytes.iter().position(|byte| !matches!(byte, b'\r' | b'\n'))?;
    let bytes = bytes.get(start..)?;
    if begins_status_line(bytes) {
        return Some(Opening::Status);
    }
    begins_request_line(bytes).then_some(Opening::Request)
}

const PROXY_V1: &[u8] = b"PROXY TCP";
const PROXY_V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// RFC 9112 section 4: `HTTP/1.1 200 OK`. Responses of HTTP/1.x only.
fn begins_status_line(bytes: &[u8]) -> bool {
    matches!(
        bytes.strip_prefix(b"HTTP/1."),
        Some([minor, b' ', status, ..]) if minor.is_ascii_digit() && status.is_ascii_digit()
    )
}

/// RFC 9112 section 3: `GET /index.html HTTP/1.1`. Where the line does not end within `bytes`, a usual method and
/// the first byte of a target have to do.
fn begins_request_line(bytes: &[u8]) -> bool {
    let Some(method_len) = bytes.iter().position(|byte| !is_token_byte(*byte)) else {
        return false;
    };
    let Some((method, [b' ', target @ ..])) = bytes.split_at_checked(method_len) else {
        return false;
    };
    if method.is_empty() {
        return false;
    }
    match target.iter().position(|byte| *byte == b'\n') {
        Some(line_len) => target.get(..line_len).is_some_and(ends_with_version),
        None => {
            USUAL_METHODS.contains(&method)
                && target.first().is_some_and(u8::is_ascii_graphic)
                && !target.contains(&0)
        }
    }
}

fn ends_with_version(line: &[u8]) -> bool {
    let line = line.trim_ascii_end();
    matches!(line.split_last_chunk::<9>(), Some((_, [b' ', b'H', b'T', b'T', b'P', b'/', b'1', b'.', minor]))
        if minor.is_ascii_digit())
}

/// RFC 9110 section 5.6.2.
const fn is_token_byte(byte: u8) -> bool {
    matches!(
        byte,
        b'!' | b'#'
            | b'$'
            | b'%'
            | b'&'
            | b'\''
            | b'*'
            | b'+'
            | b'-'
            | b'.'
            | b'^'
            | b'_'
            | b'`'
            | b'|'
            | b'~'
    ) || byte.is_ascii_alphanumeric()
}

/// RFC 9110 section 9.3, RFC 5789, and the commonest of WebDAV. Few other protocols begin a line with one of these
/// words, and none of those goes on for longer than a segment.
const USUAL_METHODS: &[&[u8]] = &[
    b"CONNECT",
    b"DELETE",
    b"GET",
    b"HEAD",
    b"OPTIONS",
    b"PATCH",
    b"POST",
    b"PROPFIND",
    b"PUT",
    b"REPORT",
    b"TRACE",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openings_are_told_from_other_bytes() {
        let cases: &[(&[u8], Option<Opening>)] = &[
            (b"GET / HTTP/1.1\r\n", Some(Opening::Request)),
            (b"\r\nGET / HTTP/1.0\r\n", Some(Opening::Request)),
            (b"MKCOLA /a b HTTP/1.1\n", Some(Opening::Request)),
            (b"GET /a-target-that-goes-on-in-the-next-segment", Some(Opening::Request)),
            (b"MKCOLA /a-target-that-goes-on", None),
            (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 80\r\n", Some(Opening::Request)),
            (b"\r\n\r\n\0\r\nQUIT\n\x21\x11", Some(Opening::Request)),
            (b"HTTP/1.1 200 OK\r\n", Some(Opening::Status)),
            (b"HTTP/1.0 404", Some(Opening::Status)),
            (b"HTTP/2.0 200 OK\r\n", None),
            (b"HTTP/1.", None),
            (b"GET", None),
            (b"GET ", None),
            (b" / HTTP/1.1\r\n", None),
            (b"GET /\r\n", None),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", None),
            (b"OPTIONS rtsp://host/ RTSP/1.0\r\n", None),
            (b"EHLO example.com\r\n", None),
            (b"SSH-2.0-OpenSSH_9.2\r\n", None),
            (b"\x16\x03\x01\x02\0\x01", None),
            (b"\r\n", None),
            (b"", None),
        ];
        for (bytes, expected) in cases {
            assert_eq!(opening(bytes), *expected, "{}", bytes.escape_ascii());
        }
    }
}
