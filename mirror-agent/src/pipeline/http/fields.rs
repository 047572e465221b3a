//! Enters: field lines, one by one. Leaves: what they say about framing and the connection.

use super::head::Version;
use super::trim_whitespace;
use crate::pipeline::message::ReplyTo;

/// How the end of a message's body is known (RFC 9112 section 6.3).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Framing {
    /// There is no body.
    None,
    /// So many bytes; may be 0.
    Length(u64),
    /// Chunked transfer coding.
    Chunked,
    /// A response that ends with the connection.
    UntilClose,
    /// Two readers could disagree: the message is refused right after its head.
    Ambiguous,
    /// The length is not a number, so readers who go on know nothing of a body: the request is refused right after its
    /// head, and what follows may be the next one. Only a lenient decoder tells this from [`Framing::Ambiguous`].
    Garbled,
}

/// What the field lines of one head say, as far as a decoder or a decision needs to know.
#[derive(Debug, Default)]
pub(super) struct Fields<'a> {
    length: Length,
    codings: Codings,
    pub(super) has_close: bool,
    has_keep_alive: bool,
    pub(super) has_upgrade: bool,
    pub(super) expects_continue: bool,
    pub(super) has_mirror_id: bool,
    pub(super) has_marker: bool,
    pub(super) host: Option<&'a [u8]>,
}

/// What all Content-Length lines say together.
#[derive(Clone, Copy, Debug, Default)]
enum Length {
    #[default]
    Absent,
    /// One line with one number.
    Once(u64),
    /// The same number several times: valid in a response (RFC 9112 section 6.3, rule 5).
    Repeated(u64),
    /// Nothing that any reader takes for a number.
    Garbled,
    /// Different numbers, a number and something else, or what only some readers take for a number.
    Contradictory,
}

/// What all Transfer-Encoding lines say together.
#[derive(Debug, Default)]
struct Codings {
    lines: u32,
    chunked: u32,
    last_is_chunked: bool,
    /// The same with `identity` left out, which RFC 2616 section 3.6 had for no coding, and with empty ones.
    ends_chunked: bool,
    /// There is another one than `identity`, be it an empty one.
    has_coding: bool,
    has_empty: bool,
}

impl<'a> Fields<'a> {
    pub(super) fn note(&mut self, name: &[u8], value: &'a [u8]) {
        // The length alone rules out most names.
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => self.host = self.host.or(Some(value)),
            6 if name.eq_ignore_ascii_case(b"expect") => {
                self.expects_continue |= value.eq_ignore_ascii_case(b"100-continue");
            }
            8 | 14 | 19 if MARKERS.iter().any(|marker| name.eq_ignore_ascii_case(marker.as_bytes())) => {
                self.has_marker = true;
            }
            7 if name.eq_ignore_ascii_case(b"upgrade") => self.has_upgrade = true,
            10 if name.eq_ignore_ascii_case(b"connection") => self.note_connection(value),
            11 if name.eq_ignore_ascii_case(b"x-mirror-id") => self.has_mirror_id = true,
            14 if name.eq_ignore_ascii_case(b"content-length") => self.length.note(value),
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => self.codings.note(value),
            _ => {}
        }
    }

    fn note_connection(&mut self, value: &[u8]) {
        for option in value.split(|byte| *byte == b',').map(trim_whitespace) {
            self.has_close |= option.eq_ignore_ascii_case(b"close");
            self.has_keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
        }
    }

    /// RFC 9112 section 9.3.
    pub(super) const fn keep_alive(&self, version: Version) -> bool {
        match version {
            _ if self.has_close => false,
            Version::Http10 => self.has_keep_alive,
            Version::Http11 => true,
        }
    }

    /// RFC 9112 section 6.3, read strictly: whatever servers are known to read in two ways is ambiguous, also where
    /// the RFC allows to repair it.
    pub(super) const fn request_framing(&self, version: Version) -> Framing {
        let codings = &self.codings;
        match (codings.lines, self.length) {
            (0, Length::Absent) => Framing::None,
            (0, Length::Once(len)) => Framing::Length(len),
            (1, Length::Absent)
                if matches!(version, Version::Http11)
                    && codings.chunked == 1
                    && codings.last_is_chunked
                    && !codings.has_empty =>
            {
                Framing::Chunked
            }
            _ => Framing::Ambiguous,
        }
    }

    /// RFC 9112 section 6.3, read as servers do that repair what they can: a transfer coding overrides a length, equal
    /// lengths are one, a coding that is not known is none.
    pub(super) const fn request_framing_leniently(&self) -> Framing {
        match (self.codings.ends_chunked, self.length) {
            (true, _) => Framing::Chunked,
            (false, Length::Absent) => Framing::None,
            (false, Length::Once(len) | Length::Repeated(len)) => Framing::Length(len),
            (false, Length::Garbled) => Framing::Garbled,
            (false, Length::Contradictory) => Framing::Ambiguous,
        }
    }

    /// [`Self::response_framing`], repaired likewise: `identity` is no coding, a length that is no number is none, and
    /// such a response ends with the connection, which its client must close (section 6.3, rule 5).
    pub(super) const fn response_framing_leniently(
        &self,
        version: Version,
        status: u16,
        reply_to: ReplyTo,
    ) -> Framing {
        match (self.response_framing(version, status, reply_to), self.length) {
            (Framing::None, _) => Framing::None,
            _ if self.codings.ends_chunked => Framing::Chunked,
            (_, Length::Once(len) | Length::Repeated(len)) if !self.codings.has_coding => {
                Framing::Length(len)
            }
            (Framing::Ambiguous, Length::Once(len) | Length::Repeated(len)) => Framing::Length(len),
            (Framing::Ambiguous, Length::Absent | Length::Garbled) => Framing::UntilClose,
            (framing, _) => framing,
        }
    }

    /// RFC 9112 section 6.3.
    pub(super) const fn response_framing(&self, version: Version, status: u16, reply_to: ReplyTo) -> Framing {
        let codings = &self.codings;
        match (reply_to, status) {
            // Rules 1 and 2.
            (ReplyTo::Head, _) | (_, 100..=199 | 204 | 304) | (ReplyTo::Connect, 200..=299) => {
                return Framing::None;
            }
            (ReplyTo::Connect | ReplyTo::Other, _) => {}
        }
        match (codings.lines, self.length) {
            (0, Length::Absent) => Framing::UntilClose,
            (0, Length::Once(len) | Length::Repeated(len)) => Framing::Length(len),
            (0, Length::Garbled | Length::Contradictory) => Framing::Ambiguous,
            // Section 6.1: a coding in a response of HTTP/1.0 is faulty, and clients differ in what they do with it.
            _ if matches!(version, Version::Http10) => Framing::Ambiguous,
            // Rules 3 and 4: a transfer coding overrides a length.
            _ if codings.chunked == 1 && codings.last_is_chunked => Framing::Chunked,
            _ if codings.chunked == 0 => Framing::UntilClose,
            _ => Framing::Ambiguous,
        }
    }
}

impl Length {
    fn note(&mut self, value: &[u8]) {
        for number in value.split(|byte| *byte == b',').map(trim_whitespace) {
            *self = match (*self, parse_decimal(number)) {
                (Self::Absent, Some(len)) => Self::Once(len),
                (Self::Once(known) | Self::Repeated(known), Some(len)) if known == len => Self::Repeated(len),
                (Self::Absent | Self::Garbled, None) if !begins_with_number(number) => Self::Garbled,
                (
                    Self::Absent | Self::Once(_) | Self::Repeated(_) | Self::Garbled | Self::Contradictory,
                    _,
                ) => Self::Contradictory,
            };
        }
    }
}

impl Codings {
    fn note(&mut self, value: &[u8]) {
        self.lines = self.lines.saturating_add(1);
        for coding in value.split(|byte| *byte == b',').map(trim_whitespace) {
            self.last_is_chunked = coding.eq_ignore_ascii_case(b"chunked");
            self.chunked = self.chunked.saturating_add(u32::from(self.last_is_chunked));
            let is_identity = coding.eq_ignore_ascii_case(b"identity");
            // A recipient ignores empty elements of a list (RFC 9110 section 5.6.1.2).
            let is_none = is_identity || coding.is_empty();
            self.ends_chunked = self.last_is_chunked || (self.ends_chunked && is_none);
            self.has_coding |= !is_identity;
            self.has_empty |= coding.is_empty();
        }
    }
}

/// The lines of a copy that say what it is, but for the one that says which: 8, 19 and 14 bytes long.
pub(in crate::pipeline) const MARKERS: [&str; 3] = ["x-shadow", "x-mirror-experiment", "x-mirror-match"];

/// Whether a reader that stops at white space, and takes a sign, finds a number: in `+3`, in `3 bytes`.
fn begins_with_number(value: &[u8]) -> bool {
    let value = value.strip_prefix(b"+").unwrap_or(value);
    value.split(|byte| matches!(byte, b' ' | b'\t')).next().is_some_and(|word| parse_decimal(word).is_some())
}

/// Digits and nothing else. `None` for an empty string, a sign, a space, or a number above `u64::MAX`.
fn parse_decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, byte| {
        let digit = byte.checked_sub(b'0').filter(|digit| *digit <= 9)?;
        number.checked_mul(10)?.checked_add(u64::from(digit))
    })
}
