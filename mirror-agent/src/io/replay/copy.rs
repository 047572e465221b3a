//! Enters: a captured request and its number. Leaves: the bytes of its copy: a head made anew, the body as it was.

use bytes::Bytes;

use super::{ReplayConfig, clock};
use crate::pipeline::{
    ExchangeId, Request,
    rewrite::{CopyFacts, MIRROR_ID_BYTES},
};

/// Appends the head of the copy to `out` and, where it is short, the body; returns the body where it is not.
pub(super) fn write_copy(
    out: &mut Vec<u8>,
    request: &Request,
    config: &ReplayConfig,
    pipeline: u16,
) -> Option<Bytes> {
    let head_len = request.head_len.min(request.raw.len());
    let (mut head, body) = request.raw.split_at(head_len);
    let mut substituted = Vec::new();
    if let Some(sessions) = &config.sessions
        && sessions.substitute(&mut substituted, head, clock::now())
    {
        head = &substituted;
    }
    let id = exchange_text(config.instance, pipeline, request.id);
    let facts = CopyFacts { id: &id, chosen: config.chosen(), has_marker: request.has_marker };
    config.rewrite.write(out, head, facts);
    if body.len() <= INLINE_BODY_BYTES {
        out.extend_from_slice(body);
        None
    } else {
        Some(request.raw.slice(head_len..))
    }
}

/// `x-mirror-id` of an exchange, of fixed length: agent, pipeline, number of the exchange.
///
/// Unlike one number for all it needs no coordination: pipelines count for themselves, agents draw theirs.
pub(in crate::io) fn exchange_text(instance: u64, pipeline: u16, id: ExchangeId) -> [u8; MIRROR_ID_BYTES] {
    let mut text = [b'-'; MIRROR_ID_BYTES];
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
        let config = ReplayConfig::new("http://192.0.2.1".parse().unwrap(), 0x0123_4567_89ab_cdef);
        let rest = write_copy(&mut out, &request, &config, 2);
        (out, rest)
    }

    const MARKERS: &str = "x-mirror-id: 0123456789abcdef-0002-0000000000000abc\r\nx-shadow: true\r\n\
                           x-mirror-experiment: default\r\nx-mirror-match: targeted\r\n";

    #[test]
    fn body_is_the_requests_own_whatever_it_looks_like() {
        for (lines, body) in [
            ("GET / HTTP/1.1\r\nHost: a\r\n", &b""[..]),
            ("POST / HTTP/1.1\r\nContent-Length: 4\r\n", b"\r\n\r\n"),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n", b"1;x=y\r\na\r\n0\r\nT: 1\r\n\r\n"),
        ] {
            let (out, rest) = copy_of(&format!("{lines}\r\n"), body);
            let expected = [b"kept", lines.as_bytes(), MARKERS.as_bytes(), b"\r\n", body].concat();
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
