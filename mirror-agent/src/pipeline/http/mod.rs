//! Enters: bytes of one side of a flow. Leaves: HTTP/1.x messages, event by event.
//!
//! [`RequestDecoder`] and [`ResponseDecoder`] turn a byte stream, cut anywhere, into events that are slices of it:
//! the head, the content, the framing around it, in order and complete, so that what is concatenated is what was
//! sent. [`sniff`] tells what a byte stream is before a decoder sees it, and where to pick up one whose start was
//! missed. A message whose length two readers could understand differently is refused, never guessed at.

mod body;
mod decoder;
mod fields;
mod head;
mod head_buffer;
mod headers;
mod lenient;
mod method;
pub mod sniff;

#[cfg(test)]
mod tests;

pub use decoder::{EndEffect, Event, GapEffect, RequestDecoder, ResponseDecoder};
pub use fields::Framing;
pub(super) use fields::MARKERS;
pub use head::{RequestFacts, RequestHead, ResponseFacts, ResponseHead, Version};
pub use headers::{Headers, headers, unfold};
pub use method::Method;
pub use sniff::Sniff;

use crate::pipeline::reason::LostReason;

/// Why a message is not decoded any further.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Refusal {
    /// Two readers could disagree about where a line, a field or the message ends: the shape of request smuggling.
    AmbiguousFraming,
    /// The head is longer than the limit.
    HeadTooLarge,
    /// The head or the chunk framing is not HTTP/1.x.
    Malformed,
}

impl Refusal {
    /// The label value: that of the [`LostReason`] it becomes.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.lost_reason().as_str()
    }

    /// The reason under which a request so refused is lost.
    #[must_use]
    pub const fn lost_reason(self) -> LostReason {
        match self {
            Self::AmbiguousFraming => LostReason::AmbiguousFraming,
            Self::HeadTooLarge => LostReason::HeadTooLarge,
            Self::Malformed => LostReason::Malformed,
        }
    }
}

impl From<Refusal> for LostReason {
    fn from(refusal: Refusal) -> Self {
        refusal.lost_reason()
    }
}

/// Whether `byte` may stand in a token (RFC 9110 section 5.6.2): a method or a field name.
pub(super) const fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
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
        )
}

/// Whether `byte` may stand in a request target as it is met in the field: anything but space, controls and DEL.
/// RFC 3986 allows less, but what the live server took is what the shadow gets.
const fn is_target_byte(byte: u8) -> bool {
    byte > b' ' && byte != 0x7f
}

/// Whether `byte` may stand in a field value, a reason phrase or a chunk extension (RFC 9110 section 5.5).
pub(super) const fn is_text_byte(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

/// Position of the first line feed.
pub(super) fn find_line_feed(bytes: &[u8]) -> Option<usize> {
    // Eight bytes at a time: heads are searched once for each request, and a loop over bytes costs as much as the
    // parser. A byte of `differing` is 0 where there is a line feed; subtracting 1 from each byte borrows into the
    // high bit of the first such byte, which was not set before.
    const ONES: u64 = u64::from_ne_bytes([0x01; 8]);
    const HIGH_BITS: u64 = u64::from_ne_bytes([0x80; 8]);
    const LINE_FEEDS: u64 = u64::from_ne_bytes([b'\n'; 8]);
    let (words, tail) = bytes.as_chunks::<8>();
    let mut before = 0_usize;
    for word in words {
        let differing = u64::from_le_bytes(*word) ^ LINE_FEEDS;
        let found = differing.wrapping_sub(ONES) & !differing & HIGH_BITS;
        if found != 0 {
            let position = usize::try_from(found.trailing_zeros() >> 3).ok()?;
            return before.checked_add(position);
        }
        before = before.saturating_add(8);
    }
    tail.iter().position(|byte| *byte == b'\n').and_then(|position| before.checked_add(position))
}

/// `bytes` without the spaces and tabs around it: optional whitespace (RFC 9110 section 5.6.3).
pub(super) fn trim_whitespace(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = bytes {
        bytes = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}
