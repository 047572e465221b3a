//! Enters: a message head. Leaves: its field lines in wire order.

use std::borrow::Cow;

use super::{find_line_feed, trim_whitespace};

/// The field lines of a head, as sent: order, case and duplicates kept. Made by [`headers`].
#[derive(Clone, Debug)]
pub struct Headers<'a> {
    rest: &'a [u8],
}

/// The field lines of `raw`, a head as a decoder gave it: start line through the empty line.
///
/// The value is without the whitespace around it; where the line was folded (RFC 9112 section 5.2) it holds the line
/// breaks as sent, see [`unfold`]. What a lenient decoder let pass is tidied: whitespace around a name, lines without
/// a colon.
#[must_use]
pub fn headers(raw: &[u8]) -> Headers<'_> {
    let rest = find_line_feed(raw)
        .and_then(|line_feed| raw.get(line_feed..))
        .and_then(|rest| rest.split_first())
        .map_or(raw.get(raw.len()..).unwrap_or_default(), |(_, rest)| rest);
    Headers { rest }
}

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (first, mut rest) = split_line(self.rest)?;
            if matches!(first, b"\n" | b"\r\n") {
                return None;
            }
            let mut line = first;
            // A line that begins with whitespace continues the one before it. The slice grows over both.
            while let [b' ' | b'\t', ..] = rest {
                let (_, after) = split_line(rest)?;
                let len = self.rest.len().saturating_sub(after.len());
                line = self.rest.get(..len)?;
                rest = after;
            }
            self.rest = rest;
            // Without a colon it is no field: only a lenient decoder lets it pass.
            let Some(colon) = first.iter().position(|byte| *byte == b':') else { continue };
            let (name, value) = line.split_at_checked(colon)?;
            return Some((trim_whitespace(name), trim_line(value.get(1..)?)));
        }
    }
}

/// A folded value with each line break and the whitespace around it replaced by one space, as RFC 9112 section 5.2
/// asks of a reader; any other value as it is.
#[must_use]
pub fn unfold(value: &[u8]) -> Cow<'_, [u8]> {
    if find_line_feed(value).is_none() {
        return Cow::Borrowed(value);
    }
    let lines = value.split(|byte| *byte == b'\n').map(trim_line).filter(|line| !line.is_empty());
    let mut unfolded = Vec::with_capacity(value.len());
    for line in lines {
        if !unfolded.is_empty() {
            unfolded.push(b' ');
        }
        unfolded.extend_from_slice(line);
    }
    Cow::Owned(unfolded)
}

/// The first line with its line feed, and what follows. `None` where there is no line feed.
fn split_line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    bytes.split_at_checked(find_line_feed(bytes)?.checked_add(1)?)
}

/// `bytes` without whitespace and line ends around it.
fn trim_line(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t' | b'\r' | b'\n', rest @ ..] = bytes {
        bytes = rest;
    }
    while let [rest @ .., b'\r' | b'\n'] = trim_whitespace(bytes) {
        bytes = rest;
    }
    trim_whitespace(bytes)
}
