//! Enters: segments that came too early. Leaves: the same in order, overlaps decided as Linux decides them.
//!
//! This is the out-of-order queue of the receiver. Linux keeps it ordered by the segments' starts
//! (`tcp_data_queue_ofo` in net/ipv4/tcp_input.c) and takes it off from the front, so:
//! where two overlap, the one that starts earlier gives the bytes; a segment that lies within one already there is
//! dropped; one that covers another replaces it. The rules were measured against a real socket as well.

use std::{collections::VecDeque, ops::Range, time::Duration};

use super::holders::{NEVER, Standing};
use crate::pipeline::{segment::Side, seq::SeqNumber, span::Acked, time::Timestamp};

/// A segment held until its place comes up.
#[derive(Debug)]
pub(super) struct Piece {
    /// Offset of its first byte.
    pub(super) start: u64,
    /// Length in bytes; what `bytes` does not hold of it was not copied.
    pub(super) len: u64,
    /// The bytes from `start` on that were copied.
    pub(super) bytes: Box<[u8]>,
    /// When the segment was seen.
    pub(super) at: Timestamp,
    /// As in [`Span::Data`](crate::pipeline::Span).
    pub(super) acked: Acked,
    /// Another segment claimed other bytes for a part of it.
    pub(super) conflict: bool,
}

impl Piece {
    /// One that holds a copy of what `claim` has.
    pub(super) fn of(claim: &Claim<'_>) -> Self {
        let Claim { start, len, bytes, at, acked } = *claim;
        Self { start, len, bytes: bytes.into(), at, acked, conflict: false }
    }

    /// It as a claim.
    pub(super) const fn as_claim(&self) -> Claim<'_> {
        Claim { start: self.start, len: self.len, bytes: &self.bytes, at: self.at, acked: self.acked }
    }

    const fn end(&self) -> u64 {
        self.start.saturating_add(self.len)
    }
}

/// A segment that is not held yet: where it lies and what is known of its bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claim<'a> {
    pub(super) start: u64,
    /// Length in bytes, at least `bytes.len()`.
    pub(super) len: u64,
    pub(super) bytes: &'a [u8],
    pub(super) at: Timestamp,
    pub(super) acked: Acked,
}

impl Claim<'_> {
    pub(super) const fn end(&self) -> u64 {
        self.start.saturating_add(self.len)
    }

    /// Gives up the first `count` bytes, at most all.
    pub(super) fn skip(&mut self, count: u64) {
        let count = count.min(self.len);
        self.bytes = usize::try_from(count).ok().and_then(|idx| self.bytes.get(idx..)).unwrap_or_default();
        self.start = self.start.saturating_add(count);
        self.len = self.len.saturating_sub(count);
    }

    /// Gives up what lies at `end` or behind it.
    pub(super) fn cut(&mut self, end: u64) {
        self.len = self.len.min(end.saturating_sub(self.start));
        let kept = usize::try_from(self.len).ok();
        self.bytes = kept.and_then(|kept| self.bytes.get(..kept)).unwrap_or(self.bytes);
    }
}

/// An acknowledgement beyond what was seen, while the capture is given time to bring the missing bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Awaited {
    /// What is missing below this offset is declared a gap when patience ends.
    pub(super) mark: u64,
    /// Since when `mark` is waited for.
    pub(super) since: Timestamp,
    /// The highest offset acknowledged; at least `mark`.
    pub(super) latest: u64,
}

/// What became of a [`Claim`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Held {
    /// It is held.
    Kept,
    /// All of it was held already.
    Covered,
    /// It overlaps more pieces than anybody sends who means well, and is not held.
    Refused,
}

/// Most pieces that a claim may overlap and leave in place. The bytes of so many segments about one place are told from each
/// other only by whoever made them up, and each further segment there is held against all of them.
const MOST_OVERLAPPED: usize = 32;

/// All that a side holds beyond its next expected byte. It exists only while there is something of the kind.
#[derive(Debug, Default)]
pub(super) struct Reorder {
    /// Starts and ends both strictly increase from piece to piece: a piece within another is never kept.
    pieces: VecDeque<Piece>,
    /// Bytes copied into `pieces`.
    bytes: usize,
    /// Where the stream ends, by a FIN that came too early, and when that was seen.
    pub(super) fin: Option<(u64, Timestamp)>,
    /// The acknowledgement being waited for.
    pub(super) awaited: Option<Awaited>,
    /// The data of a SYN, of which its receiver has not said yet whether it takes them.
    pub(super) early: Option<Piece>,
    /// The number given last, and by whom, where that is too far away to be of what may be in flight.
    pub(super) stray: Option<(SeqNumber, Side)>,
    /// Where it stands among the holders of the table.
    pub(super) standing: Standing,
}

impl Reorder {
    /// Bytes of payload held.
    pub(super) const fn payload_bytes(&self) -> usize {
        self.bytes
    }

    /// Pieces held.
    pub(super) fn pieces(&self) -> usize {
        self.pieces.len()
    }

    /// Bytes of memory that this takes, the allocator's share estimated.
    pub(super) fn memory_bytes(&self) -> usize {
        /// What the allocator adds to a block, rounding included.
        const BLOCK_OVERHEAD_BYTES: usize = 16;
        size_of::<Self>()
            .saturating_add(self.pieces.capacity().saturating_mul(size_of::<Piece>()))
            .saturating_add(self.pieces.len().saturating_mul(BLOCK_OVERHEAD_BYTES))
            .saturating_add(self.bytes)
            .saturating_add(self.early.as_ref().map_or(0, |early| early.bytes.len()))
    }

    /// Whether nothing is held any more.
    pub(super) fn is_empty(&self) -> bool {
        let is_told = self.awaited.is_none() && self.stray.is_none();
        self.pieces.is_empty() && self.fin.is_none() && self.early.is_none() && is_told
    }

    /// The nearest offset at which something is known: a piece or the end.
    pub(super) fn resume_at(&self) -> Option<u64> {
        self.resume().map(|(offset, _)| offset)
    }

    /// Since when what is missing before the nearest known offset is missed: that of the segment that showed it.
    pub(super) fn missed_since(&self) -> Option<Timestamp> {
        self.resume().map(|(_, at)| at)
    }

    /// When something of it may be given up, though nothing comes: a gap that was acknowledged is waited for as long as
    /// `patience` says, any other as long as `age` says.
    pub(super) fn due(&self, patience: Duration, age: Duration) -> Timestamp {
        let acked = self.awaited.map_or(NEVER, |awaited| awaited.since.after(patience));
        acked.min(self.missed_since().map_or(NEVER, |since| since.after(age)))
    }

    /// The offset behind all that is held; `None` where nothing is.
    pub(super) fn end(&self) -> Option<u64> {
        let fin = self.fin.map(|(offset, _)| offset);
        let early = self.early.as_ref().map(Piece::end);
        self.pieces.back().map(Piece::end).max(early).max(fin)
    }

    fn resume(&self) -> Option<(u64, Timestamp)> {
        let piece = self.pieces.front().map(|piece| (piece.start, piece.at));
        piece.into_iter().chain(self.fin).min_by_key(|(offset, _)| *offset)
    }

    /// Notes a FIN; of several the earliest counts, because the stream reaches it first.
    pub(super) fn note_fin(&mut self, offset: u64, at: Timestamp) {
        if self.fin.is_none_or(|(earlier, _)| offset < earlier) {
            self.fin = Some((offset, at));
        }
    }

    /// Takes the first piece where it starts at `offset` or before it.
    pub(super) fn pop_due(&mut self, offset: u64) -> Option<Piece> {
        if self.pieces.front()?.start > offset {
            return None;
        }
        let piece = self.pieces.pop_front()?;
        self.bytes = self.bytes.saturating_sub(piece.bytes.len());
        Some(piece)
    }

    /// Whether a segment that is delivered at once contradicts pieces held, or pieces about which there was
    /// contradiction. It beats them all; those that it covers fall away when they come up.
    pub(super) fn contradicts(&self, claim: &Claim<'_>) -> Contradiction {
        let range = self.overlapping(claim);
        let mut found = Contradiction::default();
        for idx in range {
            if let Some(piece) = self.pieces.get(idx) {
                found.fresh |= self.differs(idx, claim);
                found.inherited |= piece.conflict;
            }
        }
        found
    }

    /// Holds a segment. The second value says whether it contradicts what is held.
    pub(super) fn insert(&mut self, claim: &Claim<'_>) -> (Held, bool) {
        if self.extend_last(claim) {
            return (Held::Kept, false);
        }
        if self.is_refused(claim) {
            return (Held::Refused, true);
        }
        let range = self.overlapping(claim);
        let mut fresh = false;
        let mut conflict = false;
        let mut covered = false;
        // The pieces that the claim covers are neighbours, because starts and ends increase.
        let mut replaced = range.end..range.end;
        for idx in range {
            let differs = self.differs(idx, claim);
            fresh |= differs;
            let Some(piece) = self.pieces.get_mut(idx) else { continue };
            if piece.start <= claim.start && piece.end() >= claim.end() {
                covered = true;
            }
            let replaces = piece.start >= claim.start && piece.end() <= claim.end() && !covered;
            if replaces {
                replaced.start = replaced.start.min(idx);
                replaced.end = idx.saturating_add(1);
            }
            if replaces || claim.start < piece.start {
                conflict |= differs || piece.conflict;
            } else {
                piece.conflict |= differs;
            }
        }
        if covered {
            return (Held::Covered, fresh);
        }
        let at = if replaced.is_empty() {
            self.pieces.partition_point(|piece| piece.start < claim.start)
        } else {
            let at = replaced.start;
            for gone in self.pieces.drain(replaced) {
                self.bytes = self.bytes.saturating_sub(gone.bytes.len());
            }
            at
        };
        self.bytes = self.bytes.saturating_add(claim.bytes.len());
        self.pieces.insert(at, Piece { conflict, ..Piece::of(claim) });
        (Held::Kept, fresh)
    }

    /// Lengthens the last piece by a claim that follows it, where neither has bytes: a long response of which
    /// nothing is copied takes one piece, not thousands.
    fn extend_last(&mut self, claim: &Claim<'_>) -> bool {
        match self.pieces.back_mut() {
            Some(last) if last.end() == claim.start && last.bytes.is_empty() && claim.bytes.is_empty() => {
                last.len = last.len.saturating_add(claim.len);
                true
            }
            _ => false,
        }
    }

    /// The pieces that share at least one place with `claim`.
    fn overlapping(&self, claim: &Claim<'_>) -> Range<usize> {
        let from = self.pieces.partition_point(|piece| piece.end() <= claim.start);
        let to = self.pieces.partition_point(|piece| piece.start < claim.end());
        from..to.max(from)
    }

    /// Whether `claim` overlaps so many pieces, neither covering them nor covered itself, that it is not held. So no place is
    /// in more than these and one.
    fn is_refused(&self, claim: &Claim<'_>) -> bool {
        let range = self.overlapping(claim);
        if range.len() <= MOST_OVERLAPPED {
            return false;
        }
        let begins_within = self.pieces.partition_point(|piece| piece.start < claim.start);
        let ends_beyond = self.pieces.partition_point(|piece| piece.end() < claim.end());
        let is_covered = self.pieces.get(ends_beyond).is_some_and(|piece| piece.start <= claim.start);
        let before = begins_within.saturating_sub(range.start);
        let behind = range.end.saturating_sub(ends_beyond);
        !is_covered && before.saturating_add(behind) > MOST_OVERLAPPED
    }

    /// Whether `claim` has other bytes than the piece at `idx`, where both have some and no piece before it gives
    /// them. What an earlier piece hides was compared when it was hidden, so all comparisons of one claim together
    /// are no longer than the claim.
    fn differs(&self, idx: usize, claim: &Claim<'_>) -> bool {
        let Some(piece) = self.pieces.get(idx) else { return false };
        let hidden = idx.checked_sub(1).and_then(|before| self.pieces.get(before)).map_or(0, Piece::end);
        let from = piece.start.max(claim.start).max(hidden);
        let to = piece.end().min(claim.end());
        let known = run(&piece.bytes, piece.start, from, to);
        let claimed = run(claim.bytes, claim.start, from, to);
        let both = known.len().min(claimed.len());
        known.get(..both) != claimed.get(..both)
    }
}

/// What a segment that is delivered at once found among the pieces held.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Contradiction {
    /// It has other bytes than one of them.
    pub(super) fresh: bool,
    /// One of them was contradicted before.
    pub(super) inherited: bool,
}

/// The part of `bytes`, which begin at offset `start`, between the offsets `from` and `to`, as far as there is one.
fn run(bytes: &[u8], start: u64, from: u64, to: u64) -> &[u8] {
    let idx =
        |offset: u64| usize::try_from(offset.saturating_sub(start)).unwrap_or(usize::MAX).min(bytes.len());
    bytes.get(idx(from)..idx(to)).unwrap_or_default()
}
