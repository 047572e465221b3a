//! Enters: the segments of one side, in any order. Leaves: contiguous spans of its byte stream.
//!
//! What the receiver's kernel would deliver is handed on: bytes once handed on never change; a segment that is in
//! order beats what is held; among segments held the rules of [`Reorder`] decide. A segment that contradicts bytes
//! still held marks the run that wins with `conflict`. Bytes handed on are gone, so a retransmission is not compared
//! with them; it changes nothing, here as at the receiver.
//!
//! In-order segments pass through without being copied, and a side with nothing out of order holds no heap memory.

use std::time::Duration;

use super::{
    arrival::{Arrival, Bounds, Fit},
    reorder::{Awaited, Claim, Held, Piece, Reorder},
    stats::{SideStats, bump},
};
use crate::pipeline::{
    segment::Side,
    seq::SeqNumber,
    span::{Acked, GapCause, Span},
    time::Timestamp,
};

/// The largest window that TCP can announce (65,535 bytes shifted by 14, RFC 7323 section 2.3, rounded up): what is
/// further than this from the next expected byte, ahead or behind, belongs to some other connection.
pub(super) const WINDOW_BYTES: u32 = 1 << 30;

/// How far behind the next expected byte a segment may begin that is sent again after an interruption: more than Linux
/// lets a sender keep without an acknowledgement (`tcp_wmem`, 4 MiB at most by default), and little enough that a new
/// connection with the same ends, whose numbers are chosen at random, hardly ever begins there.
const RESENT_BYTES: u32 = 16 << 20;

/// One side's byte stream.
#[derive(Debug, Default)]
pub(super) struct Assembler {
    /// Offset of the next byte to be handed on.
    offset: u64,
    /// Its sequence number; without meaning while `position` is unknown.
    next: SeqNumber,
    position: Position,
    ended: bool,
    /// It has had bytes that TCP calls urgent, or more segments about one place than are told from each other: what its
    /// receiver makes of it is not known any more.
    uncertain: bool,
    /// Its receiver has shown that it hears it.
    heard: bool,
    /// Pieces out of order, a FIN out of order, an acknowledgement being waited for; `None` when there is none.
    held: Option<Box<Reorder>>,
}

/// What is known of where a stream is.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Position {
    /// Nothing was seen of it.
    #[default]
    Unknown,
    /// It begins anew, somewhere behind the next byte: what lies before has been handed on.
    Interrupted,
    /// The next byte is known.
    Known,
}

impl Assembler {
    /// Whether the position in the stream is known.
    pub(super) const fn is_started(&self) -> bool {
        matches!(self.position, Position::Known)
    }

    /// Whether the position is known, or was before an interruption.
    pub(super) const fn has_position(&self) -> bool {
        !matches!(self.position, Position::Unknown)
    }

    /// Whether the end of the stream was handed on.
    pub(super) const fn is_ended(&self) -> bool {
        self.ended
    }

    /// Whether the receiver has shown that it hears this side.
    pub(super) const fn is_heard(&self) -> bool {
        self.heard
    }

    /// Notes that it has.
    pub(super) const fn note_heard(&mut self) {
        self.heard = true;
    }

    /// Sequence number of the stream's first byte.
    pub(super) const fn start_seq(&self) -> SeqNumber {
        let [_, _, _, _, low @ ..] = self.offset.to_be_bytes();
        SeqNumber(self.next.0.wrapping_sub(u32::from_be_bytes(low)))
    }

    /// Sequence number of the next byte to be handed on.
    pub(super) const fn next_seq(&self) -> SeqNumber {
        self.next
    }

    /// Sequence number behind all that was seen of the stream, what is held out of order included.
    pub(super) fn sent_seq(&self) -> SeqNumber {
        let ahead = self.held().and_then(Reorder::end).map_or(0, |end| end.saturating_sub(self.offset));
        let [_, _, _, _, low @ ..] = ahead.to_be_bytes();
        self.next.advance(u32::from_be_bytes(low))
    }

    /// Whether `len` bytes at `seq` can be no part of this stream, which has ended: they lie behind its end, or before all
    /// that was seen of it. Where its beginning was not seen, what lies shortly before may be sent again.
    pub(super) fn excludes(&self, seq: SeqNumber, len: u32, lacks_beginning: bool) -> bool {
        let distance = seq.distance(self.next);
        let before = if lacks_beginning { RESENT_BYTES } else { 0 };
        let oldest = self.offset.saturating_add(u64::from(before)).saturating_add(u64::from(len));
        // The FIN has a number, too, which is acknowledged with one more.
        self.has_position() && (distance > 1 || u64::from(distance.min(0).unsigned_abs()) > oldest)
    }

    /// What is held out of order.
    pub(super) fn held(&self) -> Option<&Reorder> {
        self.held.as_deref()
    }

    /// What is held out of order.
    pub(super) fn held_mut(&mut self) -> Option<&mut Reorder> {
        self.held.as_deref_mut()
    }

    /// Lets go of all that is held.
    pub(super) fn discard_held(&mut self) {
        self.held = None;
    }

    /// Whether the stream goes on near a number that `by` gave and that is far from what was seen of it: the capture was not
    /// there for long. One side alone is not believed: both have to give such a number, the one in what it sends and the
    /// other in what it acknowledges, and neither gives one in between that is nearer to what was seen.
    #[inline]
    pub(super) fn goes_on_at(&mut self, number: SeqNumber, by: Side, bounds: &Bounds) -> bool {
        if !self.is_far(number) {
            if let Some(held) = self.held.as_deref_mut().filter(|held| held.stray.is_some()) {
                held.stray = None;
                self.held = self.held.take().filter(|held| !held.is_empty());
            }
            return false;
        }
        let before = self.held.get_or_insert_default().stray.replace((number, by));
        before.is_some_and(|(other, giver)| {
            let distance = usize::try_from(other.distance(number).unsigned_abs());
            giver != by && distance.is_ok_and(|distance| distance <= bounds.bytes)
        })
    }

    /// Whether `number` is further away than what may be in flight: it is of another connection, or the capture was not
    /// there for long.
    const fn is_far(&self, number: SeqNumber) -> bool {
        self.is_started() && !self.ended && number.distance(self.next).unsigned_abs() > WINDOW_BYTES
    }

    /// Takes note that the sender calls bytes at `seq`, or within the 64 KiB behind it, urgent. A receiver takes one of them
    /// out of the stream, or not, as its application wants (RFC 6093 section 2); which one, is not known here, since it may
    /// have been said in a segment without data. From there on nothing is certain.
    pub(super) const fn note_urgent(&mut self, seq: SeqNumber) {
        if !self.is_far(seq) {
            self.uncertain = true;
        }
    }

    /// Fixes the position of the stream's first byte, unless it is known.
    pub(super) const fn start(&mut self, seq: SeqNumber) {
        if !self.is_started() {
            self.position = Position::Known;
            self.next = seq;
        }
    }

    /// Takes note that segments may have passed unseen. What was handed on is remembered, since it may be sent again; the
    /// stream begins anew behind it, with the next data that is seen. Nothing may be held, and a stream that has ended
    /// stays so.
    pub(super) const fn interrupt(&mut self) {
        if self.is_started() && !self.ended {
            self.position = Position::Interrupted;
            self.offset = 0;
        }
    }

    /// Fixes the position of the stream's first byte by the first data that is seen. `false` where that is old.
    fn start_with(&mut self, arrival: &Arrival<'_>, stats: &mut SideStats) -> bool {
        if self.position != Position::Interrupted {
            self.start(arrival.seq);
            return true;
        }
        let behind = arrival.seq.distance(self.next).min(0).unsigned_abs();
        if behind == 0 || behind > RESENT_BYTES {
            self.start(arrival.seq);
        } else if behind > arrival.len || (behind == arrival.len && !arrival.fin) {
            bump(&mut stats.duplicate_bytes, u64::from(arrival.len));
            return false;
        } else {
            self.start(self.next);
        }
        true
    }

    /// What an acknowledgement of this stream up to `ack` says. Offset 0 where that lies before the first byte seen.
    pub(super) fn acked(&self, ack: SeqNumber) -> Acked {
        if !self.is_started() {
            return Acked::Unseen(ack);
        }
        let distance = ack.distance(self.next);
        if distance.unsigned_abs() > WINDOW_BYTES {
            return Acked::Unknown;
        }
        // An acknowledgement of the FIN counts one more than there are bytes.
        let ahead = if self.ended { distance.min(0) } else { distance };
        let offset = self.offset.saturating_add_signed(i64::from(ahead));
        if ahead > 0 { Acked::Beyond(offset) } else { Acked::Offset(offset) }
    }

    /// Holds the data of the SYN until the receiver says whether it takes them (RFC 7413 section 3), and whatever follows
    /// until then.
    pub(super) fn hold_early(&mut self, arrival: &Arrival<'_>) {
        let early = Piece::of(&claim_at(self.offset, arrival));
        self.held.get_or_insert_default().early = Some(early);
    }

    /// Whether data of the SYN are held.
    pub(super) fn is_early_open(&self) -> bool {
        self.held().is_some_and(|held| held.early.is_some())
    }

    /// Takes the receiver's word on the data of the SYN. Who does not take them acknowledges the SYN alone.
    pub(super) fn settle_early(
        &mut self,
        ack: SeqNumber,
        is_syn_ack: bool,
        stats: &mut SideStats,
        deliver: &mut impl FnMut(Span<'_>),
    ) {
        let ahead = u64::try_from(ack.distance(self.next)).unwrap_or(0);
        let Some(held) = self.held_mut() else { return };
        let Some(early) = held.early.take_if(|_| is_syn_ack || ahead > 0) else { return };
        if ahead >= early.len {
            self.hand_on(&early.as_claim(), 0, false, deliver);
        } else {
            bump(&mut stats.refused, 1);
        }
        self.drain(stats, deliver);
    }

    /// Takes the data of a segment.
    pub(super) fn handle_data(
        &mut self,
        arrival: &Arrival<'_>,
        bounds: &Bounds,
        stats: &mut SideStats,
        deliver: &mut impl FnMut(Span<'_>),
    ) -> Fit {
        if !self.start_with(arrival, stats) {
            return Fit::Plausible;
        }
        let in_order = arrival.seq == self.next && self.held.is_none() && !self.ended;
        if in_order && arrival.len <= WINDOW_BYTES {
            self.hand_on(&claim_at(self.offset, arrival), 0, false, deliver);
            if arrival.fin {
                self.end(arrival.at, false, deliver);
            }
            return Fit::Plausible;
        }
        self.handle_irregular(arrival, bounds, stats, deliver)
    }

    /// Takes data that is out of order, overlaps what is known, or comes while something is held.
    #[inline(never)]
    fn handle_irregular(
        &mut self,
        arrival: &Arrival<'_>,
        bounds: &Bounds,
        stats: &mut SideStats,
        deliver: &mut impl FnMut(Span<'_>),
    ) -> Fit {
        let distance = arrival.seq.distance(self.next);
        if distance.unsigned_abs() > WINDOW_BYTES || arrival.len > WINDOW_BYTES {
            bump(&mut stats.out_of_window, 1);
            return Fit::OutOfWindow;
        }
        let behind = if distance < 0 { distance.unsigned_abs() } else { 0 };
        let known = behind.min(arrival.len);
        bump(&mut stats.duplicate_bytes, u64::from(known));
        if behind > arrival.len {
            // Also a keep-alive probe, which repeats the byte before the next one (RFC 9293 section 3.8.4).
            return Fit::Plausible;
        }
        let ahead = u64::from(distance.max(0).unsigned_abs());
        let mut claim = claim_at(0, arrival);
        claim.skip(u64::from(known));
        // What is left; the known part may have begun before offset 0.
        claim.start = self.offset.saturating_add(ahead);
        let fin_at = arrival.fin.then(|| claim.end());
        let end = if self.ended {
            Some(self.offset)
        } else {
            self.held().and_then(|held| held.fin).map(|fin| fin.0)
        };
        if let Some(end) = end {
            if claim.end() > end {
                bump(&mut stats.out_of_window, 1);
            }
            claim.cut(end);
        }
        if self.ended {
            return Fit::Plausible;
        }
        if claim.start == self.offset && !self.is_early_open() {
            self.overtake(&claim, stats, deliver);
        } else if claim.len > 0 {
            bump(&mut stats.out_of_order_segments, 1);
            let (held, contradicts) = self.held.get_or_insert_default().insert(&claim);
            bump(&mut stats.conflicts, u64::from(contradicts));
            match held {
                Held::Kept => {}
                Held::Covered => bump(&mut stats.duplicate_bytes, claim.len),
                Held::Refused => self.uncertain = true,
            }
        }
        if let Some(fin_at) = fin_at {
            self.held.get_or_insert_default().note_fin(fin_at, arrival.at);
        }
        self.drain(stats, deliver);
        while self
            .held()
            .is_some_and(|held| held.payload_bytes() > bounds.bytes || held.pieces() > bounds.pieces)
        {
            self.give_up_gap(arrival.at, stats, deliver);
        }
        Fit::Plausible
    }

    /// Takes an acknowledgement of this stream by its receiver.
    ///
    /// What the receiver has and the capture has not was lost to the capture. One byte beyond all that is known is
    /// left open: it may as well be the FIN.
    pub(super) fn handle_ack(
        &mut self,
        ack: SeqNumber,
        at: Timestamp,
        bounds: &Bounds,
        stats: &mut SideStats,
        deliver: &mut impl FnMut(Span<'_>),
    ) -> Fit {
        let ahead = ack.distance(self.next);
        if !self.is_started() || self.ended {
            return Fit::Plausible;
        }
        if ahead.unsigned_abs() > WINDOW_BYTES {
            return Fit::OutOfWindow;
        }
        if ahead > 0 && !(ahead == 1 && self.held.is_none()) {
            let acked = self.offset.saturating_add(u64::from(ahead.unsigned_abs()));
            if bounds.patience.is_zero() {
                self.close_gaps(acked, at, stats, deliver);
            } else {
                let held = self.held.get_or_insert_default();
                let awaited = held.awaited.get_or_insert(Awaited { mark: acked, since: at, latest: acked });
                awaited.latest = awaited.latest.max(acked);
            }
        }
        if self.held.is_some() {
            self.handle_time(at, bounds, stats, deliver);
        }
        Fit::Plausible
    }

    /// Declares the gaps for which patience has ended.
    pub(super) fn handle_time(
        &mut self,
        now: Timestamp,
        bounds: &Bounds,
        stats: &mut SideStats,
        deliver: &mut impl FnMut(Span<'_>),
    ) {
        let Some(awaited) = self.held().and_then(|held| held.awaited) else { return };
        if now.since(awaited.since) < bounds.patience {
            return;
        }
        self.close_gaps(awaited.mark, now, stats, deliver);
        let offset = self.offset;
        if let Some(held) = self.held_mut() {
            held.awaited = (awaited.latest > offset).then_some(Awaited {
                mark: awaited.latest,
                since: now,
                latest: awaited.latest,
            });
        }
        self.drain(stats, deliver);
    }

    /// Declares the gaps that were shown longer ago than `age`.
    pub(super) fn give_up_old_gaps(
        &mut self,
        now: Timestamp,
        age: Duration,
        stats: &mut SideStats,
        deliver: &mut impl FnMut(Span<'_>),
    ) {
        while self.held().and_then(Reorder::missed_since).is_some_and(|since| now.since(since) >= age) {
            self.give_up_gap(now, stats, deliver);
        }
    }

    /// Declares the first gap and hands on what follows it, or lets go of what cannot follow. Each call leaves less
    /// held than before.
    pub(super) fn give_up_gap(
        &mut self,
        at: Timestamp,
        stats: &mut SideStats,
        deliver: &mut impl FnMut(Span<'_>),
    ) {
        let Some(held) = self.held_mut() else { return };
        held.stray = None;
        if held.early.take().is_some() {
            bump(&mut stats.refused, 1);
        }
        match held.resume_at() {
            Some(offset) => self.declare_gap(offset, at, stats, deliver),
            None => {
                // Only an acknowledgement is left.
                let mark = held.awaited.take().map_or(0, |awaited| awaited.latest);
                self.close_gaps(mark, at, stats, deliver);
            }
        }
        self.drain(stats, deliver);
    }

    /// Declares all gaps, so that nothing stays held.
    pub(super) fn flush(&mut self, at: Timestamp, stats: &mut SideStats, deliver: &mut impl FnMut(Span<'_>)) {
        while self.held.is_some() {
            self.give_up_gap(at, stats, deliver);
        }
    }

    /// Goes on at `seq`, which is far: all that is held is handed on, and what lies between is missing.
    pub(super) fn jump(
        &mut self,
        seq: SeqNumber,
        at: Timestamp,
        stats: &mut SideStats,
        deliver: &mut impl FnMut(Span<'_>),
    ) {
        self.flush(at, stats, deliver);
        let (offset, len) = (self.offset, u64::from(seq.distance(self.next).cast_unsigned()));
        if len == 0 || self.ended {
            return;
        }
        self.advance(len);
        bump(&mut stats.gap_bytes, len);
        deliver(Span::Gap { len, offset, at, cause: GapCause::Unmeasured });
    }

    /// Ends the stream by a reset. Of what is held, what was not acknowledged never reached the receiver's
    /// application.
    pub(super) fn reset(&mut self, at: Timestamp, stats: &mut SideStats, deliver: &mut impl FnMut(Span<'_>)) {
        if let Some(awaited) = self.held().and_then(|held| held.awaited) {
            self.close_gaps(awaited.latest, at, stats, deliver);
        }
        if !self.ended {
            self.end(at, true, deliver);
        }
    }

    /// Follows the position of a stream whose bytes nobody wants.
    pub(super) fn skim(&mut self, arrival: &Arrival<'_>, stats: &mut SideStats) -> Fit {
        self.start(arrival.seq);
        let ahead = arrival.seq.advance(arrival.len).distance(self.next);
        if ahead.unsigned_abs() > WINDOW_BYTES {
            bump(&mut stats.out_of_window, 1);
            return Fit::OutOfWindow;
        }
        self.advance(u64::from(ahead.max(0).unsigned_abs()));
        self.ended |= arrival.fin;
        Fit::Plausible
    }

    /// Hands on a segment that is in order while something is held, which it beats.
    fn overtake(&mut self, claim: &Claim<'_>, stats: &mut SideStats, deliver: &mut impl FnMut(Span<'_>)) {
        let found = self.held().map(|held| held.contradicts(claim)).unwrap_or_default();
        bump(&mut stats.conflicts, u64::from(found.fresh));
        self.hand_on(claim, 0, found.fresh || found.inherited, deliver);
    }

    /// Declares gaps up to `acked`, handing on what lies between them.
    fn close_gaps(
        &mut self,
        acked: u64,
        at: Timestamp,
        stats: &mut SideStats,
        deliver: &mut impl FnMut(Span<'_>),
    ) {
        // What follows the data of a SYN is no gap while they wait for their receiver's word.
        while self.offset < acked && !self.ended && !self.is_early_open() {
            let resume_at = self.held().and_then(Reorder::resume_at);
            if resume_at.is_none() && acked == self.offset.saturating_add(1) {
                return;
            }
            self.declare_gap(resume_at.unwrap_or(acked).min(acked), at, stats, deliver);
            self.drain(stats, deliver);
        }
    }

    /// Declares the bytes up to `end` lost.
    fn declare_gap(
        &mut self,
        end: u64,
        at: Timestamp,
        stats: &mut SideStats,
        deliver: &mut impl FnMut(Span<'_>),
    ) {
        let len = end.saturating_sub(self.offset);
        let offset = self.offset;
        self.advance(len);
        bump(&mut stats.gap_bytes, len);
        if len > 0 {
            deliver(Span::Gap { len, offset, at, cause: GapCause::Lost });
        }
    }

    /// Hands on all that is held and whose place has come up.
    fn drain(&mut self, stats: &mut SideStats, deliver: &mut impl FnMut(Span<'_>)) {
        while let Some(held) = self.held.as_deref_mut() {
            let end = held.fin.map_or(u64::MAX, |fin| fin.0);
            if held.early.is_some() {
                return;
            }
            if let Some((_, at)) = held.fin.filter(|_| end <= self.offset) {
                self.end(at, false, deliver);
            } else if let Some(piece) = held.pop_due(self.offset) {
                let mut claim = piece.as_claim();
                claim.cut(end);
                let known = self.offset.saturating_sub(claim.start).min(claim.len);
                bump(&mut stats.duplicate_bytes, known);
                self.hand_on(&claim, known, piece.conflict, deliver);
            } else {
                // One byte beyond all that is known may be the FIN: nothing to wait for.
                let end = self.offset.saturating_add(u64::from(held.resume_at().is_none()));
                held.awaited = held.awaited.filter(|awaited| awaited.latest > end);
                if held.is_empty() {
                    self.held = None;
                }
                return;
            }
        }
    }

    /// Hands on a claim, but for its first `known` bytes, which went before.
    fn hand_on(&mut self, claim: &Claim<'_>, known: u64, conflict: bool, deliver: &mut impl FnMut(Span<'_>)) {
        let mut claim = *claim;
        claim.skip(known);
        let Claim { len, bytes, at, acked, .. } = claim;
        let (offset, seq) = (self.offset, self.next);
        self.advance(len);
        if !bytes.is_empty() {
            deliver(Span::Data { bytes, offset, seq, at, acked, conflict: conflict || self.uncertain });
        }
        let copied = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let left_out = len.saturating_sub(copied);
        if left_out > 0 {
            let offset = offset.saturating_add(copied);
            deliver(Span::Gap { len: left_out, offset, at, cause: GapCause::NotCopied });
        }
    }

    fn end(&mut self, at: Timestamp, reset: bool, deliver: &mut impl FnMut(Span<'_>)) {
        self.ended = true;
        self.held = None;
        deliver(Span::End { at, reset });
    }

    const fn advance(&mut self, len: u64) {
        self.offset = self.offset.saturating_add(len);
        let [_, _, _, _, low @ ..] = len.to_be_bytes();
        self.next = self.next.advance(u32::from_be_bytes(low));
    }
}

/// The data of `arrival` as a claim to the place at offset `start`.
fn claim_at<'a>(start: u64, arrival: &Arrival<'a>) -> Claim<'a> {
    Claim { start, len: u64::from(arrival.len), bytes: arrival.payload, at: arrival.at, acked: arrival.acked }
}
