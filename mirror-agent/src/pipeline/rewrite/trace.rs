//! Enters: the value of a field that belongs to tracing. Leaves: the place of its sampled flag, and the flag cleared.
//!
//! W3C Trace Context and B3, in one field and in several. `tracestate` stays: what vendors put there is theirs to
//! weigh against the flag. So do `x-request-id` and all that is not mentioned here. A value that is malformed means
//! nothing to its readers and is left as it is, and so is one that leaves the choice to its receiver.

/// A field that says whether a trace is recorded.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum TraceField {
    /// W3C Trace Context, section 3.2.
    Traceparent,
    /// B3 in one field.
    B3,
    /// B3 in several: whether the trace is recorded.
    B3Sampled,
    /// B3 in several: 1 is debug, which implies that it is.
    B3Flags,
}

/// Bytes of a value that one other takes the place of; `end` is exclusive.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Patch {
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) with: u8,
}

impl TraceField {
    pub(super) const ALL: [Self; 4] = [Self::Traceparent, Self::B3, Self::B3Sampled, Self::B3Flags];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Traceparent => "traceparent",
            Self::B3 => "b3",
            Self::B3Sampled => "x-b3-sampled",
            Self::B3Flags => "x-b3-flags",
        }
    }

    /// What clears the flag; `None` where it is not set. `value` begins with the colon.
    pub(super) fn clear(self, value: &[u8]) -> Option<Patch> {
        let value = value.strip_prefix(b":")?;
        let text = value.trim_ascii();
        // The colon, and what stands before the text.
        let start = value.len().checked_sub(value.trim_ascii_start().len())?.checked_add(1)?;
        let (offset, len, with) = match self {
            Self::Traceparent => (54, 1, traceparent(text)?),
            Self::B3 => (b3(text)?, 1, b'0'),
            // Older senders wrote words.
            Self::B3Sampled if text == b"1" || text.eq_ignore_ascii_case(b"true") => (0, text.len(), b'0'),
            Self::B3Flags if text == b"1" => (0, 1, b'0'),
            Self::B3Sampled | Self::B3Flags => return None,
        };
        let start = start.checked_add(offset)?;
        Some(Patch { start, end: start.checked_add(len)?, with })
    }
}

/// The last digit of the flags with bit 0 cleared (W3C Trace Context, section 3.2.2.5); `None` where it is not set.
fn traceparent(text: &[u8]) -> Option<u8> {
    let mut parts = text.splitn(5, |byte| *byte == b'-');
    let (version, trace, parent, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let is_valid = is_lower_hex(version, 2)
        && version != b"ff"
        // Only a version that is not known yet may have more parts (section 4.3).
        && (version != b"00" || parts.next().is_none())
        && is_lower_hex(trace, 32)
        && trace.iter().any(|digit| *digit != b'0')
        && is_lower_hex(parent, 16)
        && parent.iter().any(|digit| *digit != b'0')
        && is_lower_hex(flags, 2);
    let digit = *flags.last().filter(|_| is_valid)?;
    match digit {
        b'1' | b'3' | b'5' | b'7' | b'9' => digit.checked_sub(1),
        b'b' | b'd' | b'f' => digit.checked_sub(1),
        _ => None,
    }
}

/// The place of the sampling state, where it is "accept" or "debug".
fn b3(text: &[u8]) -> Option<usize> {
    if matches!(text, b"1" | b"d") {
        return Some(0);
    }
    let mut parts = text.splitn(4, |byte| *byte == b'-');
    let (trace, span, state) = (parts.next()?, parts.next()?, parts.next()?);
    let is_valid = (is_hex(trace, 32) || is_hex(trace, 16))
        && is_hex(span, 16)
        && parts.next().is_none_or(|parent| is_hex(parent, 16));
    let place = trace.len().checked_add(span.len())?.checked_add(2)?;
    (is_valid && matches!(state, b"1" | b"d")).then_some(place)
}

fn is_hex(text: &[u8], len: usize) -> bool {
    text.len() == len && text.iter().all(u8::is_ascii_hexdigit)
}

fn is_lower_hex(text: &[u8], len: usize) -> bool {
    is_hex(text, len) && !text.iter().any(u8::is_ascii_uppercase)
}
