//! Enters: a segment of a known flow. Leaves: what it means for the two streams of that flow.
//!
//! Here stand the entries of the table and the TCP rules of a flow as a whole: which SYN belongs to it, which RST is
//! believed, what an acknowledgement says about the other side.

use std::hash::Hasher;

use super::{
    arrival::{Arrival, Bounds, Fit},
    assembler::Assembler,
    clock::Clock,
    handler::{FlowHandler, FlowInfo, Outlet},
    holders::Standing,
    reorder::Reorder,
    stats::{FlowStats, bump},
};
use crate::pipeline::{
    http::sniff::strict_request_start,
    list::{Linked, Links},
    segment::{Endpoint, Segment, Side, TcpFlags},
    seq::SeqNumber,
    span::{Acked, Span},
    time::Timestamp,
};

/// The slots of the table.
#[derive(Debug)]
pub(super) struct Slots<S>(pub(super) Vec<Entry<S>>);

/// One flow.
#[derive(Debug)]
pub(super) struct Entry<S> {
    pub(super) info: FlowInfo,
    /// When the last plausible segment was seen; of a flow that ended, when that was.
    pub(super) touched_at: Timestamp,
    links: Links,
    pub(super) phase: Phase<S>,
    pub(super) streams: Streams,
}

/// With its share of the index, an idle flow takes about 200 bytes and the handler's state.
#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<Entry<()>>() <= 136);

/// How near a number must be that alone is to prove what connection a segment is of. Two interfaces on one machine see
/// the same bytes with no more than a few super-packets between them; that a stranger's number is as near has a
/// probability of 1 in 8,192, and it would have to be of the same client's port at the same time.
const LONE_NUMBER_BYTES: usize = 256 * 1024;

/// What is being done with an entry.
#[derive(Debug)]
pub(super) enum Phase<S> {
    /// Its spans are handed on.
    Open(S),
    /// The handler wants no more of it.
    Ignored(S),
    /// It was closed; late duplicates are expected.
    Ended,
    /// It stands for no flow.
    Free,
}

/// The two byte streams of a flow.
#[derive(Debug, Default)]
pub(super) struct Streams {
    client: Assembler,
    server: Assembler,
}

/// What the streams of a flow hold out of order.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Holding {
    client: Option<Standing>,
    server: Option<Standing>,
    /// Memory of both together.
    pub(super) bytes: usize,
}

impl Holding {
    /// Where `side` stands among the holders; `None` where it holds nothing.
    pub(super) const fn standing(&self, side: Side) -> Option<Standing> {
        match side {
            Side::Client => self.client,
            Side::Server => self.server,
        }
    }
}

/// Whether a segment belongs to the flow whose addresses it bears.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Recognised {
    /// It does.
    Known,
    /// It is a late duplicate, or nothing that could be trusted.
    Late,
    /// It opens another connection between the same ends, or is of another flow with the same hash.
    Other,
}

impl<S> Slots<S> {
    pub(super) fn get_mut(&mut self, slot: u32) -> Option<&mut Entry<S>> {
        self.0.get_mut(usize::try_from(slot).ok()?)
    }

    /// Adds an entry, growing to `max` entries at most.
    pub(super) fn push(&mut self, entry: Entry<S>, max: usize) -> Option<u32> {
        /// Entries of a table that has any.
        const LEAST: usize = 64;
        let len = self.0.len();
        let slot = u32::try_from(len).ok()?;
        if len == self.0.capacity() {
            self.0.reserve_exact(len.max(LEAST).min(max.saturating_sub(len)).max(1));
        }
        self.0.push(entry);
        Some(slot)
    }

    /// When `slot` was last touched.
    pub(super) fn touched_at(&self, slot: u32) -> Timestamp {
        let idx = usize::try_from(slot).unwrap_or(usize::MAX);
        self.0.get(idx).map(|entry| entry.touched_at).unwrap_or_default()
    }

    /// Whether `segment` belongs to the flow in `slot`.
    pub(super) fn recognise(
        &self,
        slot: u32,
        segment: &Segment<'_>,
        clock: &Clock,
        bounds: &Bounds,
    ) -> Recognised {
        let idx = usize::try_from(slot).unwrap_or(usize::MAX);
        match self.0.get(idx).filter(|entry| entry.info.key == segment.flow) {
            Some(entry) if entry.is_over_before(segment, clock, bounds) => Recognised::Other,
            Some(entry) if entry.is_followed_by(segment) => Recognised::Other,
            Some(entry) => entry.recognise(segment),
            None => Recognised::Other,
        }
    }

    /// Whether `segment`, whose key is an alias of the flow in `slot`, belongs to it.
    pub(super) fn recognise_alias(&self, slot: u32, segment: &Segment<'_>) -> Recognised {
        let idx = usize::try_from(slot).unwrap_or(usize::MAX);
        self.0.get(idx).map_or(Recognised::Other, |entry| entry.recognise(segment))
    }

    /// Whether `segment`, whose key says nothing, is of the same connection as the flow in `slot`.
    pub(super) fn is_same(&self, slot: u32, segment: &Segment<'_>, bounds: &Bounds) -> bool {
        let idx = usize::try_from(slot).unwrap_or(usize::MAX);
        self.0.get(idx).is_some_and(|entry| entry.streams.proves(segment, bounds))
    }
}

impl<S> Entry<S> {
    /// Whether `segment`, which has data, comes after a long silence and does not go on where that began: a connection
    /// between the same ends of which the capture lacks the handshake. That the silence was long only the segments
    /// themselves may say, which can be wrong: then it has to begin like a request, too.
    fn is_over_before(&self, segment: &Segment<'_>, clock: &Clock, bounds: &Bounds) -> bool {
        let is_certain = clock.now().since(self.touched_at) >= bounds.doubt;
        (is_certain || clock.pause_since(self.touched_at) >= bounds.doubt)
            && self.is_live()
            && segment.payload_len > 0
            && !self.streams.proves(segment, bounds)
            && (is_certain || segment.side == Side::Client && strict_request_start(segment.payload))
    }

    /// Whether `segment`, which comes when both sides have ended, is of the next connection between the same ends, of
    /// which the capture lacks the handshake: it begins like a request, and none of its numbers is one of this connection's.
    /// What is sent again of it bears both.
    fn is_followed_by(&self, segment: &Segment<'_>) -> bool {
        let flags = segment.flags;
        self.is_ended()
            && segment.side == Side::Client
            && !flags.has(TcpFlags::SYN)
            && !flags.has(TcpFlags::RST)
            && self.streams.client.excludes(segment.seq, segment.payload_len, self.info.adopted)
            && self.streams.server.excludes(segment.ack, 0, self.info.adopted)
            && strict_request_start(segment.payload)
    }

    /// Whether `segment`, which has the addresses of this flow, belongs to it.
    #[inline]
    fn recognise(&self, segment: &Segment<'_>) -> Recognised {
        let known = if self.is_ended() { Recognised::Late } else { Recognised::Known };
        if !segment.flags.has(TcpFlags::SYN) || segment.flags.has(TcpFlags::RST) {
            return known;
        }
        let (own, peer) = self.streams.of(segment.side);
        // A SYN-ACK acknowledges the SYN and what came with it (RFC 7413), nothing else.
        let fits = !segment.flags.has(TcpFlags::ACK)
            || !peer.is_started()
            || !segment.ack.is_before(peer.start_seq()) && !peer.sent_seq().is_before(segment.ack);
        let starts_here = own.start_seq() == segment.seq.advance(1);
        match (own.has_position(), starts_here, fits) {
            (true, true, true) => known,
            (true, false, _) => Recognised::Other,
            (false, _, true) if self.is_live() => Recognised::Known,
            (false, _, true) => Recognised::Other,
            (_, _, false) => Recognised::Late,
        }
    }
}

impl<S> Linked for Slots<S> {
    fn links(&mut self, slot: u32) -> Option<&mut Links> {
        self.get_mut(slot).map(|entry| &mut entry.links)
    }
}

impl<S> Entry<S> {
    pub(super) fn new(info: FlowInfo, state: S, now: Timestamp) -> Self {
        Self {
            info,
            touched_at: now,
            links: Links::default(),
            phase: Phase::Open(state),
            streams: Streams::default(),
        }
    }

    /// The client of a flow that is open or lingers.
    pub(super) const fn client(&self) -> Option<Endpoint> {
        match self.phase {
            Phase::Open(_) | Phase::Ignored(_) | Phase::Ended => Some(self.info.key.client),
            Phase::Free => None,
        }
    }

    pub(super) const fn is_live(&self) -> bool {
        matches!(self.phase, Phase::Open(_) | Phase::Ignored(_))
    }

    pub(super) const fn is_ignored(&self) -> bool {
        matches!(self.phase, Phase::Ignored(_))
    }

    pub(super) const fn is_ended(&self) -> bool {
        matches!(self.phase, Phase::Ended)
    }

    /// Whether a side has shown that it hears the other.
    pub(super) const fn is_proven(&self) -> bool {
        self.streams.client.is_heard() || self.streams.server.is_heard()
    }

    /// Notes that the sender of `segment` hears its peer.
    pub(super) const fn note_proven(&mut self, segment: &Segment<'_>) {
        self.streams.of_mut(segment.side).1.note_heard();
    }

    /// Whether the sender of `segment` hears its peer: it acknowledges what the peer was seen to send, and a stranger who
    /// only knows the addresses would have to guess that number. A SYN-ACK shows nothing: every SYN is answered by one.
    pub(super) fn is_proven_by(&self, segment: &Segment<'_>) -> bool {
        let (_, peer) = self.streams.of(segment.side);
        let flags = segment.flags;
        let acknowledges = flags.has(TcpFlags::ACK)
            && !flags.has(TcpFlags::SYN)
            && !flags.has(TcpFlags::RST)
            && peer.is_started();
        // A FIN counts one.
        acknowledges
            && !segment.ack.is_before(peer.start_seq())
            && !peer.next_seq().advance(1).is_before(segment.ack)
    }

    /// Whether `segment` of a flow that is not [proven](Self::is_proven) is of somebody who does not hear the server: it has
    /// data of a client, and acknowledges what the server, that has answered its SYN, did not send.
    // RFC 9293 section 3.10.7.4, fifth, SYN-RECEIVED; Linux drops it too (`tcp_check_req`).
    pub(super) fn is_guessed(&self, segment: &Segment<'_>) -> bool {
        let server = &self.streams.server;
        let flags = segment.flags;
        let counts = segment.side == Side::Client
            && flags.has(TcpFlags::ACK)
            && !flags.has(TcpFlags::SYN)
            && !flags.has(TcpFlags::RST)
            && (segment.payload_len > 0 || flags.has(TcpFlags::FIN));
        // A FIN counts one.
        counts
            && !self.info.adopted
            && server.is_started()
            && (segment.ack.is_before(server.start_seq())
                || server.sent_seq().advance(1).is_before(segment.ack))
    }

    /// Assembles no more.
    pub(super) fn ignore(&mut self) {
        self.streams.client.discard_held();
        self.streams.server.discard_held();
        self.phase = match std::mem::replace(&mut self.phase, Phase::Free) {
            Phase::Open(state) => Phase::Ignored(state),
            other @ (Phase::Ignored(_) | Phase::Ended | Phase::Free) => other,
        };
    }
}

impl Streams {
    /// Applies a segment of a flow whose spans are wanted. What it carries bears its own time; waiting goes by `now`.
    pub(super) fn handle_segment<H: FlowHandler>(
        &mut self,
        segment: &Segment<'_>,
        now: Timestamp,
        bounds: &Bounds,
        stats: &mut FlowStats,
        outlet: &mut Outlet<'_, H>,
    ) -> Fit {
        let side = segment.side;
        let flags = segment.flags;
        if flags.has(TcpFlags::RST) && !self.believes_reset(segment, bounds) {
            bump(&mut stats.side_mut(side).out_of_window, 1);
            return Fit::OutOfWindow;
        }
        let (own, peer) = self.of_mut(side);
        // Within a connection a SYN is answered and dropped (RFC 5961 section 4.2): only the first brings data (RFC 7413).
        let is_late_syn = flags.has(TcpFlags::SYN) && own.is_started();
        if flags.has(TcpFlags::SYN) {
            own.start(segment.seq.advance(1));
            if flags.has(TcpFlags::ACK) {
                peer.start(segment.ack);
            }
        }
        let mut acked = Acked::Unknown;
        // A refusal acknowledges also the data that came with the SYN, which it does not take.
        let is_refusal = flags.has(TcpFlags::RST) && self.of(side).1.is_early_open();
        if flags.has(TcpFlags::ACK) && !is_refusal {
            let (_, peer) = self.of_mut(side);
            if peer.goes_on_at(segment.ack, side, bounds) {
                self.jump(side.peer(), segment.ack, now, stats, outlet);
            }
            // First, because what the peer's bytes brought about comes after them.
            let (_, peer) = self.of_mut(side);
            if peer.is_early_open() {
                let stats = stats.side_mut(side.peer());
                peer.settle_early(segment.ack, flags.has(TcpFlags::SYN), stats, &mut |span| {
                    outlet.hand_on(side.peer(), span);
                });
            }
            let fit = peer.handle_ack(segment.ack, now, bounds, stats.side_mut(side.peer()), &mut |span| {
                outlet.hand_on(side.peer(), span);
            });
            if fit == Fit::OutOfWindow {
                bump(&mut stats.side_mut(side).out_of_window, 1);
            }
            acked = peer.acked(segment.ack);
        }
        if flags.has(TcpFlags::RST) {
            for side in Side::ALL {
                let (own, _) = self.of_mut(side);
                own.reset(segment.at, stats.side_mut(side), &mut |span| outlet.hand_on(side, span));
            }
            return Fit::Plausible;
        }
        let Some(arrival) = Arrival::of(segment, acked) else { return Fit::Plausible };
        if is_late_syn {
            bump(&mut stats.side_mut(side).refused, 1);
            return Fit::Plausible;
        }
        let (own, _) = self.of_mut(side);
        if flags.has(TcpFlags::URG) {
            own.note_urgent(arrival.seq);
        }
        if flags.has(TcpFlags::SYN) && bounds.is_causal() {
            own.hold_early(&arrival);
            return Fit::Plausible;
        }
        if own.goes_on_at(arrival.seq.advance(arrival.len), side, bounds) {
            self.jump(side, arrival.seq, segment.at, stats, outlet);
        }
        let (own, _) = self.of_mut(side);
        own.handle_data(&arrival, bounds, stats.side_mut(side), &mut |span| outlet.hand_on(side, span))
    }

    /// Has the stream of `side` go on at `seq`.
    #[cold]
    fn jump<H: FlowHandler>(
        &mut self,
        side: Side,
        seq: SeqNumber,
        at: Timestamp,
        stats: &mut FlowStats,
        outlet: &mut Outlet<'_, H>,
    ) {
        let (own, _) = self.of_mut(side);
        own.jump(seq, at, stats.side_mut(side), &mut |span| outlet.hand_on(side, span));
    }

    /// Follows a flow of which nothing is wanted, far enough to see its end.
    pub(super) fn skim(&mut self, segment: &Segment<'_>, bounds: &Bounds, stats: &mut FlowStats) -> Fit {
        if segment.flags.has(TcpFlags::RST) {
            if !self.believes_reset(segment, bounds) {
                bump(&mut stats.side_mut(segment.side).out_of_window, 1);
                return Fit::OutOfWindow;
            }
            for side in Side::ALL {
                let (own, _) = self.of_mut(side);
                own.reset(segment.at, stats.side_mut(side), &mut |_| ());
            }
            return Fit::Plausible;
        }
        match Arrival::of(segment, Acked::Unknown) {
            Some(arrival) => self.of_mut(segment.side).0.skim(&arrival, stats.side_mut(segment.side)),
            None => Fit::Plausible,
        }
    }

    /// Gives up the first gap of `side`.
    pub(super) fn give_up_gap<H: FlowHandler>(
        &mut self,
        side: Side,
        at: Timestamp,
        stats: &mut FlowStats,
        outlet: &mut Outlet<'_, H>,
    ) {
        let (own, _) = self.of_mut(side);
        own.give_up_gap(at, stats.side_mut(side), &mut |span| outlet.hand_on(side, span));
    }

    /// Declares the gaps of `side` for which patience has ended, or which are too old.
    pub(super) fn handle_time<H: FlowHandler>(
        &mut self,
        side: Side,
        now: Timestamp,
        bounds: &Bounds,
        stats: &mut FlowStats,
        outlet: &mut Outlet<'_, H>,
    ) {
        let (own, peer) = self.of_mut(side);
        let age = bounds.age_beside(peer);
        let deliver = &mut |span: Span<'_>| outlet.hand_on(side, span);
        own.handle_time(now, bounds, stats.side_mut(side), deliver);
        own.give_up_old_gaps(now, age, stats.side_mut(side), deliver);
    }

    /// Takes note that segments may have passed unseen; see [`Assembler::interrupt`].
    pub(super) const fn interrupt(&mut self) {
        self.client.interrupt();
        self.server.interrupt();
    }

    /// Hands on all that is held.
    pub(super) fn flush<H: FlowHandler>(
        &mut self,
        at: Timestamp,
        stats: &mut FlowStats,
        outlet: &mut Outlet<'_, H>,
    ) {
        for side in Side::ALL {
            let (own, _) = self.of_mut(side);
            own.flush(at, stats.side_mut(side), &mut |span| outlet.hand_on(side, span));
        }
    }

    pub(super) const fn are_ended(&self) -> bool {
        self.client.is_ended() && self.server.is_ended()
    }

    pub(super) const fn is_any_ended(&self) -> bool {
        self.client.is_ended() || self.server.is_ended()
    }

    /// What is held out of order; `None` where that is nothing.
    pub(super) fn holding(&self) -> Option<Holding> {
        let (client, server) = (self.client.held(), self.server.held());
        if client.is_none() && server.is_none() {
            return None;
        }
        let bytes = |held: Option<&Reorder>| held.map_or(0, Reorder::memory_bytes);
        Some(Holding {
            client: client.map(|held| held.standing),
            server: server.map(|held| held.standing),
            bytes: bytes(client).saturating_add(bytes(server)),
        })
    }

    /// What `side` holds out of order, and when something of it may be given up.
    pub(super) fn held_mut(&mut self, side: Side, bounds: &Bounds) -> Option<(&mut Reorder, Timestamp)> {
        let (own, peer) = self.of_mut(side);
        let age = bounds.age_beside(peer);
        own.held_mut().map(|held| {
            let due = held.due(bounds.patience, age);
            (held, due)
        })
    }

    /// Whether an RST is believed. The receiver takes only the number it expects next (RFC 5961 section 3.2); how
    /// far it has read is known here only within what may be in flight, so that much is allowed on either side.
    /// Where the sender has not been seen, it must acknowledge what its peer sent, as a refusal does.
    fn believes_reset(&self, segment: &Segment<'_>, bounds: &Bounds) -> bool {
        let (own, peer) = self.of(segment.side);
        let near = |seq: SeqNumber, next: SeqNumber| {
            usize::try_from(seq.distance(next).unsigned_abs()).is_ok_and(|distance| distance <= bounds.bytes)
        };
        if own.is_started() {
            near(segment.seq, own.next_seq())
        } else {
            segment.flags.has(TcpFlags::ACK) && peer.is_started() && near(segment.ack, peer.next_seq())
        }
    }

    /// Whether the numbers of `segment` prove that it is of this connection, though it may have other addresses: the
    /// initial numbers exactly, or those of a segment within what may be in flight on both sides. Of a connection of
    /// which one side is not seen there is one number only, of which more is asked.
    fn proves(&self, segment: &Segment<'_>, bounds: &Bounds) -> bool {
        let (own, peer) = self.of(segment.side);
        let acks = segment.flags.has(TcpFlags::ACK) && peer.has_position();
        if segment.flags.has(TcpFlags::SYN) {
            // What a SYN brought along (RFC 7413) is acknowledged with it, or not.
            let answers = segment.ack == peer.start_seq() || segment.ack == peer.sent_seq();
            return match own.is_started() {
                true => own.start_seq() == segment.seq.advance(1) && (!acks || answers),
                false => acks && answers,
            };
        }
        let near = |number: SeqNumber, next: SeqNumber, bytes: usize| {
            usize::try_from(number.distance(next).unsigned_abs()).is_ok_and(|distance| distance <= bytes)
        };
        let lone = bounds.bytes.min(LONE_NUMBER_BYTES);
        // A position from before an interruption may be far behind by now, which says nothing.
        let fits = |side: &Assembler, number: SeqNumber| {
            let is_near = near(number, side.next_seq(), bounds.bytes);
            (side.is_started() || is_near).then_some(is_near)
        };
        let own_fits = own.has_position().then(|| fits(own, segment.seq)).flatten();
        let peer_fits = acks.then(|| fits(peer, segment.ack)).flatten();
        match (own_fits, peer_fits) {
            (Some(own_fits), Some(peer_fits)) => own_fits && peer_fits,
            (Some(_), None) => near(segment.seq, own.next_seq(), lone),
            (None, Some(_)) => near(segment.ack, peer.next_seq(), lone),
            (None, None) => false,
        }
    }

    /// The stream of `side` and that of its peer.
    const fn of(&self, side: Side) -> (&Assembler, &Assembler) {
        match side {
            Side::Client => (&self.client, &self.server),
            Side::Server => (&self.server, &self.client),
        }
    }

    const fn of_mut(&mut self, side: Side) -> (&mut Assembler, &mut Assembler) {
        match side {
            Side::Client => (&mut self.client, &mut self.server),
            Side::Server => (&mut self.server, &mut self.client),
        }
    }
}

/// The hasher of the index, whose keys are hashes already.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

/// The most entries, at most `limit` and at least one, that cost no more than `budget` bytes.
pub(super) fn affordable_entries<S>(limit: usize, budget: usize) -> usize {
    let cost = |entries: usize| {
        // A hash map whose keys come and go may be twice as large as one that only grows.
        entries.saturating_mul(size_of::<Entry<S>>()).saturating_add(index_bytes(entries).saturating_mul(2))
    };
    let (mut affordable, mut above) = (1, limit.saturating_add(1).max(2));
    while above.saturating_sub(affordable) > 1 {
        let middle = affordable.midpoint(above);
        if cost(middle) <= budget {
            affordable = middle;
        } else {
            above = middle;
        }
    }
    affordable
}

/// Bytes of memory of an index with room for `entries`: a power of two of buckets, an eighth of them kept empty,
/// each with one byte of control.
pub(super) const fn index_bytes(entries: usize) -> usize {
    const BUCKET_BYTES: usize = size_of::<(u64, u32)>() + 1;
    if entries == 0 {
        return 0;
    }
    let buckets = entries.saturating_mul(8).div_ceil(7);
    match buckets.checked_next_power_of_two() {
        Some(buckets) => buckets.saturating_mul(BUCKET_BYTES),
        None => usize::MAX,
    }
}
