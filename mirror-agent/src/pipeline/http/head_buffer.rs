//! Enters: the bytes of a head, cut anywhere. Leaves: the head in one piece.

use super::{Refusal, find_line_feed};
use crate::pipeline::limits::boxed_bytes;

/// Finds the end of a head. Holds bytes only where the head does not lie whole in one input, and looks at each byte
/// once however small the pieces are.
#[derive(Debug)]
pub(super) struct HeadBuffer {
    /// `None` but for a head that did not lie whole in one input: every idle flow has one of these.
    partial: Option<Box<Partial>>,
    /// Longest head in bytes, inclusive.
    limit: u32,
}

/// A head that goes on in the next input.
#[derive(Debug, Default)]
struct Partial {
    held: Vec<u8>,
    line: LineState,
    /// Whether the start line was looked at when it was complete.
    has_start_line: bool,
}

/// The line that is not complete yet.
#[derive(Clone, Copy, Debug, Default)]
struct LineState {
    /// Its length in bytes, its CR included.
    len: usize,
    /// Its last byte; significant where `len` is not 0.
    last: u8,
}

/// Bytes of a start line that are looked at with each piece, until it is complete. All tokens of the protocol's own
/// methods fit; more would let a stream of single bytes cost more than it carries.
const PROBE_BYTES: usize = 64;

/// What became of a piece.
#[derive(Debug)]
pub(super) enum Taken<'a> {
    /// The piece was consumed, the head goes on.
    NeedMore,
    /// The head, in one piece.
    Whole(&'a [u8]),
    /// The head cannot become one that is accepted.
    Refused(Refusal),
}

impl HeadBuffer {
    pub(super) fn new(limit: usize) -> Self {
        Self { partial: None, limit: u32::try_from(limit).unwrap_or(u32::MAX) }
    }

    /// Takes bytes off `input` up to the end of the head. `is_hopeless` looks at the first bytes of a head that is
    /// not complete, so that what is no HTTP is refused before the limit is reached.
    pub(super) fn take<'d, 'i: 'd>(
        &'d mut self,
        input: &mut &'i [u8],
        is_hopeless: fn(&[u8]) -> bool,
    ) -> Taken<'d> {
        let bytes = *input;
        let mut line = self.partial.as_ref().map_or(LineState::default(), |partial| partial.line);
        let end = line.find_end(bytes);
        let piece_len = end.unwrap_or(bytes.len());
        let len = self.partial.as_ref().map_or(0, |partial| partial.held.len()).saturating_add(piece_len);
        if u32::try_from(len).map_or(true, |len| len > self.limit) {
            return Taken::Refused(Refusal::HeadTooLarge);
        }
        let (piece, rest) = bytes.split_at_checked(piece_len).unwrap_or((bytes, &[]));
        *input = rest;
        if end.is_some() && self.partial.is_none() {
            return Taken::Whole(piece);
        }
        let partial = self.partial.get_or_insert_default();
        partial.held.extend_from_slice(piece);
        partial.line = line;
        if end.is_some() {
            return Taken::Whole(&partial.held);
        }
        if partial.is_hopeless(piece, is_hopeless) {
            Taken::Refused(Refusal::Malformed)
        } else {
            Taken::NeedMore
        }
    }

    /// Forgets the head and frees what it took.
    pub(super) fn release(&mut self) {
        if self.partial.is_some() {
            self.partial = None;
        }
    }

    /// Memory of what is held, the allocator's share estimated.
    pub(super) fn bytes_held(&self) -> usize {
        self.partial.as_ref().map_or(0, |partial| boxed_bytes::<Partial>(partial.held.capacity()))
    }
}

impl LineState {
    /// Position behind the empty line that ends the head, if it lies in `bytes`, which continue what was searched
    /// before. A line feed without carriage return counts: whether it is allowed is for the parser to say.
    fn find_end(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut rest = bytes;
        while let Some(line_feed) = find_line_feed(rest) {
            let (line, after) = rest.split_at_checked(line_feed)?;
            let last = line.last().copied().unwrap_or(self.last);
            let line_len = self.len.saturating_add(line.len());
            self.len = 0;
            rest = after.get(1..)?;
            if line_len == 0 || (line_len == 1 && last == b'\r') {
                return Some(bytes.len().saturating_sub(rest.len()));
            }
        }
        self.len = self.len.saturating_add(rest.len());
        self.last = rest.last().copied().unwrap_or(self.last);
        None
    }
}

impl Partial {
    /// Looks at the first bytes of the start line, and at all of it when it is complete: what is refused, and after
    /// which byte, does not depend on the pieces.
    fn is_hopeless(&mut self, piece: &[u8], is_hopeless: fn(&[u8]) -> bool) -> bool {
        if self.has_start_line {
            return false;
        }
        self.has_start_line = find_line_feed(piece).is_some();
        if self.has_start_line {
            return is_hopeless(&self.held);
        }
        let before = self.held.len().saturating_sub(piece.len());
        before < PROBE_BYTES && is_hopeless(self.held.get(..PROBE_BYTES).unwrap_or(&self.held))
    }
}
