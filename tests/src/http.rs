//! Enters: bytes of HTTP/1.1 messages as they come. Leaves: where each message ends.
//!
//! Written apart from the agent's decoder and on purpose simpler: it is what the agent is measured against.

/// What the end of a body depends on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Framing {
    /// So many bytes.
    Length(u64),
    /// Chunks up to the last one and the trailer section.
    Chunked,
    /// All bytes until the connection closes.
    UntilClose,
}

/// The length of the head, the empty line included, where it is complete.
#[must_use]
pub fn head_len(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|window| window == b"\r\n\r\n").map(|start| start + 4)
}

/// The lines of a head after the first, without their ends.
fn header_lines(head: &[u8]) -> impl Iterator<Item = &[u8]> {
    head.split(|byte| *byte == b'\n')
        .skip(1)
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
        .filter(|line| !line.is_empty())
}

/// The first value of a header, without surrounding white space.
#[must_use]
pub fn header<'a>(head: &'a [u8], name: &str) -> Option<&'a [u8]> {
    header_lines(head).find_map(|line| {
        let (found, value) = line.split_at_checked(name.len())?;
        if !found.eq_ignore_ascii_case(name.as_bytes()) {
            return None;
        }
        Some(value.strip_prefix(b":")?.trim_ascii())
    })
}

/// Whether a header's value contains a word, whatever the case.
#[must_use]
pub fn header_has(head: &[u8], name: &str, word: &str) -> bool {
    header(head, name).is_some_and(|value| {
        value.to_ascii_lowercase().windows(word.len()).any(|part| part == word.as_bytes())
    })
}

/// The method of a request or the version of a response.
#[must_use]
pub fn first_word(head: &[u8]) -> &[u8] {
    head.split(|byte| *byte == b' ').next().unwrap_or_default()
}

/// The target of a request or the code of a response.
#[must_use]
pub fn second_word(head: &[u8]) -> &[u8] {
    head.split(|byte| *byte == b' ').nth(1).unwrap_or_default()
}

/// How the body of a request with this head ends.
#[must_use]
pub fn request_framing(head: &[u8]) -> Framing {
    declared_framing(head).unwrap_or(Framing::Length(0))
}

/// How the body of a response with this head ends; `head_only` for an answer to HEAD.
#[must_use]
pub fn response_framing(head: &[u8], head_only: bool) -> Framing {
    let code = second_word(head);
    if head_only || code.starts_with(b"1") || code == b"204" || code == b"304" {
        return Framing::Length(0);
    }
    declared_framing(head).unwrap_or(Framing::UntilClose)
}

fn declared_framing(head: &[u8]) -> Option<Framing> {
    if header_has(head, "transfer-encoding", "chunked") {
        return Some(Framing::Chunked);
    }
    let length = header(head, "content-length")?;
    Some(Framing::Length(std::str::from_utf8(length).ok()?.parse().ok()?))
}

/// Follows a body to its end.
#[derive(Debug)]
pub struct BodyScan {
    state: ScanState,
}

#[derive(Debug)]
enum ScanState {
    Length(u64),
    ChunkSize {
        size: u64,
        digits: Digits,
    },
    ChunkData(u64),
    /// Bytes of the line end after a chunk that are still to come.
    ChunkEnd(u8),
    /// Bytes of the current trailer line so far.
    Trailer(usize),
    UntilClose,
    Done,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Digits {
    Open,
    Over,
}

impl BodyScan {
    /// A body that ends as `framing` says.
    #[must_use]
    pub fn new(framing: Framing) -> Self {
        let state = match framing {
            Framing::Length(0) => ScanState::Done,
            Framing::Length(length) => ScanState::Length(length),
            Framing::Chunked => ScanState::ChunkSize { size: 0, digits: Digits::Open },
            Framing::UntilClose => ScanState::UntilClose,
        };
        Self { state }
    }

    /// Whether the body is complete.
    #[must_use]
    pub fn is_done(&self) -> bool {
        matches!(self.state, ScanState::Done)
    }

    /// Takes bytes; says how many of them belong to the body.
    pub fn advance(&mut self, bytes: &[u8]) -> usize {
        let mut used = 0;
        while used < bytes.len() && !self.is_done() {
            used += self.step(&bytes[used..]);
        }
        used
    }

    /// Takes at least one byte of `bytes`, which is not empty.
    fn step(&mut self, bytes: &[u8]) -> usize {
        let available = bytes.len() as u64;
        match &mut self.state {
            ScanState::Length(left) | ScanState::ChunkData(left) if *left > available => {
                *left -= available;
                bytes.len()
            }
            ScanState::Length(left) => {
                let used = *left as usize;
                self.state = ScanState::Done;
                used
            }
            ScanState::ChunkData(left) => {
                let used = *left as usize;
                self.state = ScanState::ChunkEnd(2);
                used
            }
            ScanState::ChunkSize { size, digits } => {
                let byte = bytes[0];
                match (char::from(byte).to_digit(16), *digits) {
                    (Some(digit), Digits::Open) => *size = *size * 16 + u64::from(digit),
                    _ if byte == b'\n' && *size == 0 => self.state = ScanState::Trailer(0),
                    _ if byte == b'\n' => self.state = ScanState::ChunkData(*size),
                    _ => *digits = Digits::Over,
                }
                1
            }
            ScanState::ChunkEnd(left) => {
                *left -= 1;
                if *left == 0 {
                    self.state = ScanState::ChunkSize { size: 0, digits: Digits::Open };
                }
                1
            }
            ScanState::Trailer(line) => {
                match bytes[0] {
                    b'\n' if *line == 0 => self.state = ScanState::Done,
                    b'\n' => *line = 0,
                    b'\r' => {}
                    _ => *line += 1,
                }
                1
            }
            ScanState::UntilClose => bytes.len(),
            ScanState::Done => 0,
        }
    }
}

/// A request at the shadow, taken apart into what the client sent and what the mirror added.
#[derive(Debug, Eq, PartialEq)]
pub struct Marked {
    /// The request without the markers.
    pub original: Vec<u8>,
    /// The value of `x-mirror-id`.
    pub id: String,
    /// The value of `x-mirror-experiment`.
    pub experiment: String,
    /// The value of `x-mirror-match`.
    pub chosen: String,
}

/// Takes the four markers out of a copy. `None` where it does not carry exactly one of each.
#[must_use]
pub fn without_markers(copy: &[u8]) -> Option<Marked> {
    let (head, body) = copy.split_at(head_len(copy)?);
    let mut original = Vec::with_capacity(copy.len());
    let mut values: [Vec<String>; 4] = Default::default();
    for line in head.split_inclusive(|byte| *byte == b'\n') {
        let value = MARKERS
            .iter()
            .zip(&mut values)
            .find_map(|(name, values)| Some((line.strip_prefix(name.as_bytes())?, values)));
        match value {
            Some((value, values)) => values.push(String::from_utf8_lossy(value.trim_ascii()).into_owned()),
            None => original.extend_from_slice(line),
        }
    }
    original.extend_from_slice(body);
    let [id, shadow, experiment, chosen] =
        values.map(|mut values| values.pop().filter(|_| values.is_empty()));
    if shadow? != "true" {
        return None;
    }
    Some(Marked { original, id: id?, experiment: experiment?, chosen: chosen? })
}

/// Whether this is a probe by which the agent finds out where a target leads.
#[must_use]
pub fn is_probe(raw: &[u8]) -> bool {
    raw.starts_with(b"HEAD /?") && raw.windows(MARK.len()).any(|window| window == MARK)
}

const MARK: &[u8] = b"x-mirror-id: probe-";

/// How the mirror's lines begin.
const MARKERS: [&str; 4] = ["x-mirror-id: ", "x-shadow: ", "x-mirror-experiment: ", "x-mirror-match: "];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunked_body_ends_at_the_empty_trailer_line_however_it_is_cut() {
        let body = b"5;ext=\"a\"\r\nab\r\nc\r\n00\r\nX: y\r\n\r\nGET";
        let end = body.len() - 3;
        for cut in 0..body.len() {
            let mut scan = BodyScan::new(Framing::Chunked);
            let first = scan.advance(&body[..cut]);
            let second = scan.advance(&body[cut.min(first)..]);
            assert_eq!(first.min(cut) + second, end, "cut at {cut}");
            assert!(scan.is_done());
        }
    }

    #[test]
    fn markers_come_out_wherever_they_stand() {
        let copy = b"POST / HTTP/1.1\r\nA: b\r\nx-mirror-id: 12-3\r\nx-shadow: true\r\n\
                     x-mirror-experiment: default\r\nx-mirror-match: sampled\r\n\r\nbody";
        let marked = without_markers(copy).unwrap();
        assert_eq!(marked.original, b"POST / HTTP/1.1\r\nA: b\r\n\r\nbody");
        assert_eq!([marked.id, marked.experiment, marked.chosen], ["12-3", "default", "sampled"]);
        assert_eq!(without_markers(&marked.original), None);
    }

    #[test]
    fn header_names_match_whole_and_in_any_case() {
        let head = b"GET / HTTP/1.1\r\nContent-Lengthy: 1\r\ncOnTent-lEngth:  7 \r\n\r\n";
        assert_eq!(header(head, "content-length"), Some(&b"7"[..]));
        assert_eq!(request_framing(head), Framing::Length(7));
    }
}
