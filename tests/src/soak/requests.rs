//! Enters: a seed and a number. Leaves: the request with that number, every byte of it, for all who want to check one.

use crate::{http, rng::Rng};

/// The header that carries the number.
const NUMBER: &str = "x-soak-number";

/// The longest body in bytes.
const LONGEST: usize = 1 << 20;

/// A request.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) bytes: Vec<u8>,
    /// Whether its answer has no body.
    pub(super) is_head: bool,
    /// Whether it asks for the connection's end.
    pub(super) closes: bool,
}

/// Makes the request with this number.
pub(super) fn request(seed: u64, number: u64) -> Request {
    let mut rng = Rng::new(seed ^ number.wrapping_mul(0xd6e8_feb8_6659_fd93));
    // GET, HEAD, small POST, chunked POST, 64 KiB POST, the largest.
    let kind = rng.weighted(&[500, 60, 250, 120, 60, 10]);
    let closes = rng.percent(6);
    let method = ["GET", "HEAD", "POST", "POST", "PUT", "POST"][kind];
    let mut bytes = format!(
        "{method} /soak/{number}?q={:x} HTTP/1.1\r\nHost: live.example\r\nUser-Agent:  soak/1\r\n{NUMBER}: {number}\r\n",
        rng.quad()
    )
    .into_bytes();
    if closes {
        bytes.extend_from_slice(b"connection: close\r\n");
    }
    match kind {
        0 | 1 => bytes.extend_from_slice(b"\r\n"),
        3 => {
            bytes.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
            for _ in 0..rng.between(1, 8) {
                let len = rng.between(1, 3_000);
                bytes.extend_from_slice(format!("{len:x};n={number}\r\n").as_bytes());
                bytes.extend(body(&mut rng, len));
                bytes.extend_from_slice(b"\r\n");
            }
            bytes.extend_from_slice(format!("0\r\nX-Sum: {number}\r\n\r\n").as_bytes());
        }
        _ => {
            let len = match kind {
                2 => rng.below(4_000),
                4 => 65_536,
                _ => LONGEST,
            };
            bytes.extend_from_slice(format!("Content-Length: {len}\r\n\r\n").as_bytes());
            bytes.extend(body(&mut rng, len));
        }
    }
    Request { bytes, is_head: method == "HEAD", closes }
}

/// A body: any bytes, or text that looks like requests, to tempt whoever loses the thread.
fn body(rng: &mut Rng, len: usize) -> Vec<u8> {
    if rng.percent(85) {
        return rng.bytes(len);
    }
    let line = b"GET /never-sent HTTP/1.1\r\nHost: nowhere\r\n\r\n";
    line.iter().copied().cycle().take(len).collect()
}

/// The number that a request carries.
pub(super) fn number_of(raw: &[u8]) -> Option<u64> {
    let head = raw.get(..http::head_len(raw)?)?;
    std::str::from_utf8(http::header(head, NUMBER)?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{number_of, request};
    use crate::http::{BodyScan, head_len, request_framing};

    #[test]
    fn requests_are_complete_and_carry_their_number() {
        for number in 0..300 {
            let bytes = request(7, number).bytes;
            let head = head_len(&bytes).unwrap();
            let mut scan = BodyScan::new(request_framing(&bytes[..head]));
            let body = scan.advance(&bytes[head..]);

            assert!(scan.is_done() && head + body == bytes.len(), "request {number}");
            assert_eq!(number_of(&bytes), Some(number));
            assert_eq!(bytes, request(7, number).bytes);
        }
    }
}
