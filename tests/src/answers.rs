//! Enters: the head of a request. Leaves: the answer that it asks for.

use crate::http;

/// An answer to one request.
pub(crate) struct Answer {
    /// Head and body.
    pub(crate) bytes: Vec<u8>,
    /// Whether the connection ends with it.
    pub(crate) closing: bool,
}

/// Whether the server answers by changing to another protocol: `/refuse` asks it not to.
pub(crate) fn opens_tunnel(head: &[u8]) -> bool {
    let connect = head.starts_with(b"CONNECT ");
    (connect || http::header(head, "upgrade").is_some()) && http::second_word(head) != b"/refuse"
}

/// The answer that the target asks for: 1 KB of JSON unless it is one of the special ones.
pub(crate) fn answer_to(head: &[u8]) -> Answer {
    let (method, target) = (http::first_word(head), http::second_word(head));
    if opens_tunnel(head) {
        let bytes: &[u8] = if method == b"CONNECT" {
            b"HTTP/1.1 200 Connection established\r\n\r\n"
        } else {
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n"
        };
        return Answer { bytes: bytes.to_vec(), closing: false };
    }
    let version_10 = head.split(|byte| *byte == b'\r').next().is_some_and(|line| line.ends_with(b"HTTP/1.0"));
    let mut closing = http::header_has(head, "connection", "close")
        || (version_10 && !http::header_has(head, "connection", "keep-alive"));
    let body = &JSON[..];
    let (fields, framed) = match target {
        b"/chunked" => {
            let mut chunks = Vec::new();
            for chunk in body.chunks(400) {
                chunks.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                chunks.extend_from_slice(chunk);
                chunks.extend_from_slice(b"\r\n");
            }
            chunks.extend_from_slice(b"0\r\n\r\n");
            ("Transfer-Encoding: chunked\r\n", chunks)
        }
        b"/until-close" => {
            closing = true;
            ("", body.to_vec())
        }
        b"/no-content" => ("", Vec::new()),
        _ => ("Content-Length: 1024\r\n", body.to_vec()),
    };
    let status = if target == b"/no-content" { "204 No Content" } else { "200 OK" };
    let connection = if closing { "Connection: close\r\n" } else { "" };
    let mut bytes =
        format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\n{fields}{connection}\r\n")
            .into_bytes();
    if method != b"HEAD" {
        bytes.extend_from_slice(&framed);
    }
    Answer { bytes, closing }
}

/// 1 KB of JSON.
pub const JSON: &[u8; 1024] = &{
    let mut body = [b'x'; 1024];
    let (start, end) = (b"{\"filler\":\"", b"\"}");
    let mut index = 0;
    while index < start.len() {
        body[index] = start[index];
        index += 1;
    }
    body[1022] = end[0];
    body[1023] = end[1];
    body
};
