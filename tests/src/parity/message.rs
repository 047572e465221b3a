//! Enters: nothing. Leaves: an HTTP message as either side of the comparison tells of it.

use std::{fmt, net::SocketAddr};

use sha2::{Digest as _, Sha256};

/// One HTTP/1.x message of a capture.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Message {
    /// Who sent it.
    pub sender: SocketAddr,
    /// To whom.
    pub receiver: SocketAddr,
    /// Sequence number of its first byte.
    pub seq: u32,
    /// Bytes of the sender's stream before it, counted from the first byte that the teller saw.
    pub offset: u64,
    /// Where the teller says that it is, beyond the flow: stream and frame, or VLAN.
    pub place: String,
    /// Its start line.
    pub start_line: StartLine,
    /// Names and values in order.
    pub headers: Headers,
    /// Its content without transfer coding.
    pub body: Body,
    /// Whether the teller saw all of it.
    pub complete: bool,
    /// What `inspect` pairs it with; Wireshark's word on that is not asked for.
    pub paired: Paired,
    /// A dissector of something in its frame gave up, says Wireshark.
    pub is_marred: bool,
    /// Wireshark shows the head to its end.
    pub has_whole_head: bool,
    /// Wireshark shows less of the content than its head or its chunks announce.
    pub is_short: bool,
}

/// The other message of an exchange.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Paired {
    /// There is none.
    #[default]
    Nothing,
    /// Of a response, the method of the request.
    Method(Vec<u8>),
    /// Of a request, the status of the final response.
    Status(u16),
}

/// Names and values of fields, in order.
pub type Headers = Vec<(Vec<u8>, Vec<u8>)>;

/// The length that the first field of that name tells, if it is a number.
pub(super) fn content_length(headers: &Headers) -> Option<u64> {
    let (_, value) = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(b"content-length"))?;
    str::from_utf8(value).ok()?.trim().parse().ok()
}

/// The first line of a message.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum StartLine {
    /// Of a request.
    Request {
        /// The method.
        method: Vec<u8>,
        /// The target.
        target: Vec<u8>,
    },
    /// Of a response.
    Response {
        /// The status code.
        status: u16,
    },
}

/// The content of a message.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Body {
    /// All that was there of it, without a byte missing in between.
    Whole {
        /// Bytes.
        len: u64,
        /// SHA-256 in hexadecimal.
        sha256: String,
    },
    /// Some of its bytes are missing.
    Damaged {
        /// Bytes that are there.
        len: u64,
    },
    /// The teller did not look at it.
    Unknown,
}

impl Body {
    /// A whole one of these bytes.
    #[must_use]
    pub fn of(content: &[u8]) -> Self {
        let sha256 = Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect();
        Self::Whole { len: content.len() as u64, sha256 }
    }
}

impl Message {
    /// The sender and the receiver, for people.
    #[must_use]
    pub fn flow(&self) -> String {
        format!("{} > {}", self.sender, self.receiver)
    }

    /// Whether the teller, being Wireshark, has all of the content that head and chunks announce.
    pub(super) const fn is_in_full(&self) -> bool {
        self.complete && !self.is_short
    }

    /// Whether start line and headers are the same.
    #[must_use]
    pub fn has_head_of(&self, other: &Self) -> bool {
        self.start_line == other.start_line && self.headers == other.headers
    }
}

impl fmt::Display for StartLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Request { method, target } => {
                write!(f, "{} {}", method.escape_ascii(), target.escape_ascii())
            }
            Self::Response { status } => write!(f, "{status}"),
        }
    }
}

impl fmt::Display for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole { len, sha256 } => write!(f, "{len} bytes, SHA-256 {sha256}"),
            Self::Damaged { len } => write!(f, "{len} bytes, others missing"),
            Self::Unknown => f.write_str("not looked at"),
        }
    }
}
