//! Enters: accounts of exchanges. Leaves: lines of JSON.

use std::{
    fmt,
    io::{self, BufWriter, Write},
    num::NonZeroU64,
};

use serde::{Serialize, Serializer};

use crate::pipeline::{
    Endpoint, FlowKey, Timestamp,
    exchange::report::{ExchangeReport, MessageReport, StartLine},
};

/// Writes one line for each exchange.
#[derive(Debug)]
pub struct JsonLines<W: Write> {
    out: BufWriter<W>,
    lines: u64,
}

impl<W: Write> JsonLines<W> {
    /// Writes to `out`, through a buffer of its own.
    pub fn new(out: W) -> Self {
        Self { out: BufWriter::new(out), lines: 0 }
    }

    /// How many lines were written.
    #[must_use]
    pub const fn lines(&self) -> u64 {
        self.lines
    }

    /// Writes the line of one exchange.
    ///
    /// # Errors
    ///
    /// Those of the writer; `BrokenPipe` says that nobody reads any further.
    pub fn write(&mut self, report: &ExchangeReport) -> io::Result<()> {
        serde_json::to_writer(&mut self.out, &Line::from(report))?;
        self.lines = self.lines.saturating_add(1);
        self.out.write_all(b"\n")
    }

    /// Writes what is still in the buffer.
    ///
    /// # Errors
    ///
    /// As [`Self::write`].
    pub fn finish(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// The fields stand in the order in which they are written.
#[derive(Serialize)]
struct Line<'a> {
    flow: Flow,
    request: Option<Message<'a>>,
    response: Option<Message<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    interim: Vec<Message<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    interim_left_out: Option<NonZeroU64>,
    times: Times,
}

impl<'a> From<&'a ExchangeReport> for Line<'a> {
    fn from(report: &'a ExchangeReport) -> Self {
        let request = report.request.as_ref();
        let response = report.response.as_ref();
        Self {
            flow: Flow::from(&report.flow),
            request: request.map(Message::from),
            response: response.map(Message::from),
            interim: report.interim.iter().map(Message::from).collect(),
            interim_left_out: NonZeroU64::new(report.interim_left_out),
            times: Times {
                request_first_byte: request.map(|message| nanos(message.first_byte_at)),
                request_last_byte: request.map(|message| nanos(message.last_byte_at)),
                response_first_byte: response.map(|message| nanos(message.first_byte_at)),
                response_last_byte: response.map(|message| nanos(message.last_byte_at)),
            },
        }
    }
}

#[derive(Serialize)]
struct Flow {
    #[serde(serialize_with = "as_text")]
    client: Endpoint,
    #[serde(serialize_with = "as_text")]
    server: Endpoint,
    /// Identifiers, outer first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    vlan: Vec<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vni: Option<u32>,
}

impl From<&FlowKey> for Flow {
    fn from(key: &FlowKey) -> Self {
        let tags = [key.vlan & 0xffff, key.vlan >> 16];
        Self {
            client: key.client,
            server: key.server,
            vlan: tags.into_iter().filter(|tag| *tag != 0).collect(),
            vni: (key.vni != 0).then_some(key.vni),
        }
    }
}

#[derive(Serialize)]
struct Message<'a> {
    #[serde(flatten)]
    start_line: Start<'a>,
    version: &'static str,
    headers: Vec<(Text<'a>, Text<'a>)>,
    body_bytes: u64,
    #[serde(serialize_with = "as_hex")]
    body_sha256: Option<[u8; 32]>,
    complete: bool,
    /// Bytes of the side's stream before the message, from the first one in the capture.
    offset: u64,
    /// TCP sequence number of the message's first byte.
    seq: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<&'static str>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Start<'a> {
    Request { method: Text<'a>, target: Text<'a> },
    Status { status: u16, reason: Text<'a> },
}

impl<'a> From<&'a MessageReport> for Message<'a> {
    fn from(report: &'a MessageReport) -> Self {
        let (start_line, version) = match &report.start_line {
            StartLine::Request { method, target, version } => {
                (Start::Request { method: Text(method), target: Text(target) }, version)
            }
            StartLine::Status { status, reason, version } => {
                (Start::Status { status: *status, reason: Text(reason) }, version)
            }
        };
        Self {
            start_line,
            version: version.as_str(),
            headers: fields(&report.headers),
            body_bytes: report.body_bytes,
            body_sha256: report.body_sha256,
            complete: report.complete,
            offset: report.start.offset,
            seq: report.start.seq.0,
            refused: report.refused.map(|reason| reason.as_str()),
        }
    }
}

fn fields(fields: &[(Vec<u8>, Vec<u8>)]) -> Vec<(Text<'_>, Text<'_>)> {
    fields.iter().map(|(name, value)| (Text(name), Text(value))).collect()
}

/// Nanoseconds since the Unix epoch; null for a message that is not there.
#[derive(Serialize)]
struct Times {
    request_first_byte: Option<u64>,
    request_last_byte: Option<u64>,
    response_first_byte: Option<u64>,
    response_last_byte: Option<u64>,
}

const fn nanos(at: Timestamp) -> u64 {
    at.as_nanos()
}

/// Bytes as text: each byte is the code point of the same number, so that no byte is lost.
struct Text<'a>(&'a [u8]);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match str::from_utf8(self.0) {
            Ok(text) if text.is_ascii() => f.write_str(text),
            Ok(_) | Err(_) => self.0.iter().try_for_each(|byte| fmt::Write::write_char(f, char::from(*byte))),
        }
    }
}

impl Serialize for Text<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

fn as_text<S: Serializer>(endpoint: &Endpoint, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(endpoint)
}

#[expect(clippy::ref_option, reason = "serde passes fields by reference")]
fn as_hex<S: Serializer>(digest: &Option<[u8; 32]>, serializer: S) -> Result<S::Ok, S::Error> {
    match digest {
        Some(digest) => serializer.collect_str(&Hex(digest)),
        None => serializer.serialize_none(),
    }
}

struct Hex<'a>(&'a [u8; 32]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::pipeline::{ExchangeId, exchange::report::Place, http::Version, reason::LostReason};

    #[test]
    fn exchange_is_one_line_with_its_fields_in_order() {
        let mut report = exchange(1, 1_700_000_000_000_000_001);
        report.flow.vlan = 10 | 20 << 16;
        report.response = Some(response(204));
        report.interim.push(response(100));
        report.interim_left_out = 7;
        assert_eq!(
            line(&report),
            concat!(
                r#"{"flow":{"client":"192.0.2.1:4000","server":"[2001:db8::2]:80","vlan":[10,20]},"#,
                r#""request":{"method":"GET","target":"/","version":"HTTP/1.1","headers":[["Host","a"]],"#,
                r#""body_bytes":0,"body_sha256":null,"complete":true,"offset":0,"seq":0},"#,
                r#""response":{"status":204,"reason":"No","version":"HTTP/1.0","headers":[],"#,
                r#""body_bytes":3,"#,
                r#""body_sha256":"0101010101010101010101010101010101010101010101010101010101010101","#,
                r#""complete":false,"offset":0,"seq":0},"#,
                r#""interim":[{"status":100,"reason":"No","version":"HTTP/1.0","headers":[],"#,
                r#""body_bytes":3,"#,
                r#""body_sha256":"0101010101010101010101010101010101010101010101010101010101010101","#,
                r#""complete":false,"offset":0,"seq":0}],"interim_left_out":7,"#,
                r#""times":{"request_first_byte":1700000000000000001,"request_last_byte":1700000000000000001,"#,
                r#""response_first_byte":5,"response_last_byte":6}}"#,
                "\n"
            )
        );
    }

    #[test]
    fn message_that_is_missing_is_null() {
        let mut report = exchange(1, 1);
        report.request = None;
        let line = line(&report);
        assert!(
            line.contains(r#""request":null,"response":null,"times":{"request_first_byte":null"#),
            "{line}"
        );
    }

    #[test]
    fn every_byte_can_be_told_from_every_other() {
        let mut report = exchange(1, 1);
        let all: Vec<u8> = (0..=255).collect();
        report.request.as_mut().unwrap().headers = vec![(b"X".to_vec(), all.clone())];
        let value: serde_json::Value = serde_json::from_str(&line(&report)).unwrap();
        let text = value["request"]["headers"][0][1].as_str().unwrap();
        assert_eq!(text.chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect::<Vec<_>>(), all);
    }

    #[test]
    fn refusal_names_its_reason() {
        let mut report = exchange(1, 1);
        report.request.as_mut().unwrap().refused = Some(LostReason::AmbiguousFraming);
        assert!(
            line(&report).contains(r#""complete":true,"offset":0,"seq":0,"refused":"ambiguous_framing"}"#)
        );
    }

    fn line(report: &ExchangeReport) -> String {
        let mut bytes = Vec::new();
        let mut lines = JsonLines::new(&mut bytes);
        lines.write(report).unwrap();
        lines.finish().unwrap();
        drop(lines);
        String::from_utf8(bytes).unwrap()
    }

    /// A GET without an answer, begun and ended `at` nanoseconds.
    pub(in crate::io::inspect) fn exchange(id: u64, at: u64) -> ExchangeReport {
        let endpoint = |text: &str| Endpoint::from(text.parse::<std::net::SocketAddr>().unwrap());
        ExchangeReport {
            id: ExchangeId(id),
            flow: FlowKey {
                client: endpoint("192.0.2.1:4000"),
                server: endpoint("[2001:db8::2]:80"),
                vlan: 0,
                vni: 0,
            },
            request: Some(MessageReport {
                start_line: StartLine::Request {
                    method: b"GET".to_vec(),
                    target: b"/".to_vec(),
                    version: Version::Http11,
                },
                start: Place::default(),
                headers: vec![(b"Host".to_vec(), b"a".to_vec())],
                body_bytes: 0,
                body_sha256: None,
                complete: true,
                refused: None,
                first_byte_at: Timestamp::from_nanos(at),
                last_byte_at: Timestamp::from_nanos(at),
            }),
            interim: vec![],
            interim_left_out: 0,
            response: None,
        }
    }

    fn response(status: u16) -> MessageReport {
        MessageReport {
            start_line: StartLine::Status { status, reason: b"No".to_vec(), version: Version::Http10 },
            start: Place::default(),
            headers: vec![],
            body_bytes: 3,
            body_sha256: Some([1; 32]),
            complete: false,
            refused: None,
            first_byte_at: Timestamp::from_nanos(5),
            last_byte_at: Timestamp::from_nanos(6),
        }
    }
}
