//! Enters: a captured request and its number. Leaves: the bytes of its copy, the request's own but for two markers.

use bytes::Bytes;

use crate::pipeline::{ExchangeId, Request};

/// Appends the head of the copy to `out` and, where it is short, the body; returns the body where it is not.
///
/// The markers stand right before the empty line that ends the head, so that everything else keeps its place.
pub(super) fn write_copy(
    out: &mut Vec<u8>,
    request: &Request,
    instance: u64,
    pipeline: u16,
) -> Option<Bytes> {
    let head_len = request.head_len.min(request.raw.len());
    let (head, body) = request.raw.split_at(head_len);
    let (lines, empty_line) = head.split_at(head.len() - empty_line_len(head));
    out.extend_from_slice(lines);
    out.extend_from_slice(b"x-mirror-id: ");
    out.extend_from_slice(&exchange_text(instance, pipeline, request.id));
    out.extend_from_slice(b"\r\nx-shadow: true\r\n");
    out.extend_from_slice(empty_line);
    if body.len() <= INLINE_BODY_BYTES {
        out.extend_from_slice(body);
        None
    } else {
        Some(request.raw.slice(head_len..))
    }
}

/// Length of the line terminator that ends the head: a lone LF is one too (RFC 9112 section 2.2).
fn empty_line_len(head: &[u8]) -> usize {
    if head.ends_with(b"\n\r\n") { 2 } else { usize::from(head.ends_with(b"\n\n")) }
}

/// `x-mirror-id` of an exchange, of fixed length: agent, pipeline, number of the exchange.
///
/// Unlike one number for all it needs no coordination: pipelines count for themselves, agents draw theirs.
pub(super) fn exchange_text(instance: u64, pipeline: u16, id: ExchangeId) -> [u8; 38] {
    let mut text = [b'-'; 38];
    let (agent, rest) = text.split_at_mut(16);
    hex(agent, instance);
    let (pipe, exchange) = rest.split_at_mut(5);
    hex(pipe.split_at_mut(1).1, pipeline.into());
    hex(exchange.split_at_mut(1).1, id.0);
    text
}

/// Fills `digits` with the low digits of `value`.
fn hex(digits: &mut [u8], mut value: u64) {
    for digit in digits.iter_mut().rev() {
        let [low, ..] = value.to_le_bytes();
        *digit = DIGITS[usize::from(low & 0xf)];
        value >>= 4;
    }
}

/// Up to here copying a body costs less than the second entry of a vectored write.
pub(super) const INLINE_BODY_BYTES: usize = 16 * 1024;

const DIGITS: &[u8; 16] = b"0123456789abcdef";

#[cfg(test)]
mod tests {
    use super::{super::tests::request, *};

    fn copy_of(head: &str, body: &[u8]) -> (Vec<u8>, Option<Bytes>) {
        let mut request = request(&[head.as_bytes(), body].concat(), head.len());
        request.id = ExchangeId(0xabc);
        let mut out = b"kept".to_vec();
        let rest = write_copy(&mut out, &request, 0x0123_4567_89ab_cdef, 2);
        (out, rest)
    }

    const MARKERS: &str = "x-mirror-id: 0123456789abcdef-0002-0000000000000abc\r\nx-shadow: true\r\n";

    #[test]
    fn markers_stand_before_the_empty_line_and_all_else_is_unchanged() {
        for (lines, empty_line, body) in [
            ("GET / HTTP/1.1\r\nHost: a\r\n", "\r\n", &b""[..]),
            ("GET / HTTP/1.0\r\n", "\r\n", b""),
            ("GET /a%20b?\u{e9} HTTP/1.1\r\nhOST:a \r\nA:1\r\n  folded\r\nA:2\r\n", "\r\n", b""),
            ("POST / HTTP/1.1\r\nContent-Length: 4\r\n", "\r\n", b"\r\n\r\n"),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n", "\r\n", b"1;x=y\r\na\r\n0\r\nT: 1\r\n\r\n"),
            ("GET / HTTP/1.1\nHost: a\n", "\n", b""),
            ("GET / HTTP/1.1\nHost: a\n", "\r\n", b""),
            ("GET / HTTP/1.1\r\nHost: a\r\n", "\n", b""),
        ] {
            let (out, rest) = copy_of(&format!("{lines}{empty_line}"), body);
            let expected =
                [b"kept", lines.as_bytes(), MARKERS.as_bytes(), empty_line.as_bytes(), body].concat();
            assert_eq!(out.escape_ascii().to_string(), expected.escape_ascii().to_string());
            assert_eq!(rest, None);
        }
    }

    #[test]
    fn long_body_is_shared_and_not_copied() {
        let head = "POST / HTTP/1.1\r\nContent-Length: 16385\r\n\r\n";
        let (out, rest) = copy_of(head, &[b'x'; INLINE_BODY_BYTES]);
        assert_eq!((out.len(), rest), (4 + head.len() + MARKERS.len() + INLINE_BODY_BYTES, None));
        let (out, rest) = copy_of(head, &[b'x'; INLINE_BODY_BYTES + 1]);
        assert_eq!((out.len(), rest.unwrap().len()), (4 + head.len() + MARKERS.len(), INLINE_BODY_BYTES + 1));
    }
}
