//! Enters: what two ends and those between them do. Leaves: segments for the flow table, and what must come of them.

use std::{net::Ipv6Addr, time::Duration};

use mirror_agent::pipeline::{
    Endpoint, FlowKey, Limits, Segment, SeqNumber, Side, TcpFlags, Timestamp,
    flow::{FlowId, FlowTable},
};

use super::recorder::{Current, Record, Recorder};

/// Pairs of ends. More than a tight table has room for.
pub(super) const FLOWS: usize = 3;

/// Segments under way at once.
const MOST_DELAYED: usize = 16;

const SYN_ACK: TcpFlags = TcpFlags(TcpFlags::SYN.0 | TcpFlags::ACK.0);
const FIN_ACK: TcpFlags = TcpFlags(TcpFlags::FIN.0 | TcpFlags::ACK.0);

/// The byte at `place` of a side of a connection.
pub(super) fn byte_at(connection: u32, side: usize, place: u64) -> u8 {
    let mixed = place.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (u64::from(connection) << 1);
    let mixed = (mixed ^ u64::from(side == 1)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed.to_be_bytes()[0]
}

/// The ends, what is between them, and the table that looks on.
pub(super) struct Wire {
    table: FlowTable<FlowId>,
    recorder: Recorder,
    limits: Limits,
    now: Timestamp,
    /// The connection that each pair of ends has.
    connections: [Connection; FLOWS],
    delayed: Vec<Delayed>,
    next_connection: u32,
    /// The limits are too wide to be met.
    is_roomy: bool,
}

#[derive(Clone, Copy, Debug)]
struct Connection {
    id: u32,
    sides: [Ends; 2],
    /// The table was told all of it, in an order from which all of it can be put together.
    is_faultless: bool,
}

/// Where one side stands.
#[derive(Clone, Copy, Debug)]
struct Ends {
    /// Sequence number of its first byte.
    first: u32,
    /// Bytes that it has sent.
    sent: u64,
    /// Bytes that the receiver has got in one piece, as far as it says so.
    acked: u64,
}

/// A segment under way.
#[derive(Clone, Debug)]
struct Delayed {
    flow: usize,
    connection: u32,
    side: usize,
    place: u64,
    len: u32,
    flags: TcpFlags,
}

impl Wire {
    pub(super) fn new(limits: Limits, ignore_after: Option<u64>, is_roomy: bool) -> Self {
        let recorder = Recorder::new(ignore_after);
        let mut id = 0;
        let connections = [(); FLOWS].map(|()| {
            id += 1;
            // The server's numbers wrap soon.
            let ends = |first| Ends { first, sent: 0, acked: 0 };
            Connection { id, sides: [ends(1_000), ends(u32::MAX - 300)], is_faultless: false }
        });
        Self {
            table: FlowTable::new(&limits, 0),
            recorder,
            limits,
            now: Timestamp::ZERO,
            connections,
            delayed: Vec::new(),
            next_connection: id + 1,
            is_roomy,
        }
    }

    /// A handshake between two ends, which may have a connection already; bits of `lost` tell what of it is not seen.
    pub(super) fn open(&mut self, flow: usize, number: u32, lost: u8) {
        let before = self.connections[flow];
        self.delayed.retain(|segment| segment.flow != flow);
        if lost & 3 != 0 {
            // What is seen of the next connection may be taken for the one before.
            self.recorder.tainted.insert(before.id);
        }
        let ends = |first| Ends { first, sent: 0, acked: 0 };
        // Another number than before: with the same the segments of both connections could not be told apart.
        let client = before.sides[0].first.wrapping_add(number | 0x4000_0000);
        let server = before.sides[1].first.wrapping_sub(number | 0x2000_0000);
        self.connections[flow] = Connection {
            id: self.next_connection,
            sides: [ends(client), ends(server)],
            is_faultless: lost & 3 == 0,
        };
        self.next_connection += 1;
        let connection = self.connections[flow];
        if lost & 1 == 0 {
            self.segment(flow, 0, u64::MAX, TcpFlags::SYN, [true, false], connection);
        }
        if lost & 2 == 0 {
            self.segment(flow, 1, u64::MAX, SYN_ACK, [true, true], connection);
        }
        if lost & 4 == 0 {
            self.segment(flow, 0, 0, TcpFlags::ACK, [false, false], connection);
        }
    }

    /// New bytes that arrive at once.
    pub(super) fn send(&mut self, flow: usize, side: Side, len: u32) {
        let segment = self.new_bytes(flow, side, len);
        self.deliver(&segment);
    }

    /// New bytes that the capture never sees.
    pub(super) fn send_and_lose(&mut self, flow: usize, side: Side, len: u32) {
        self.new_bytes(flow, side, len);
        self.connections[flow].is_faultless &= len == 0;
    }

    /// New bytes that come later.
    pub(super) fn send_and_delay(&mut self, flow: usize, side: Side, len: u32) {
        if self.delayed.len() < MOST_DELAYED {
            let segment = self.new_bytes(flow, side, len);
            self.delayed.push(segment);
        }
    }

    /// One of those under way arrives.
    pub(super) fn deliver_delayed(&mut self, number: usize) {
        if !self.delayed.is_empty() {
            let segment = self.delayed.remove(number % self.delayed.len());
            self.deliver(&segment);
        }
    }

    /// One of those under way arrives, and again later.
    pub(super) fn repeat_delayed(&mut self, number: usize) {
        if !self.delayed.is_empty() {
            let segment = self.delayed[number % self.delayed.len()].clone();
            self.deliver(&segment);
        }
    }

    /// Bytes that were sent before, cut otherwise.
    pub(super) fn resend(&mut self, flow: usize, side: Side, back: u32, len: u32) {
        let connection = self.connections[flow];
        let side = index(side);
        let sent = connection.sides[side].sent;
        let place = sent.saturating_sub(u64::from(back));
        let len = len.min(u32::try_from(sent - place).unwrap_or(u32::MAX));
        let flags = TcpFlags::ACK;
        self.deliver(&Delayed { flow, connection: connection.id, side, place, len, flags });
    }

    /// Other bytes than those that were, or will be, sent.
    pub(super) fn contradict(&mut self, flow: usize, side: Side, back: u32, len: u32) {
        let connection = &mut self.connections[flow];
        connection.is_faultless = false;
        let (connection, side) = (*connection, index(side));
        let place = connection.sides[side].sent.saturating_sub(u64::from(back));
        let payload: Vec<u8> =
            (place..).take(len as usize).map(|place| !byte_at(connection.id, side, place)).collect();
        self.recorder.contradicted.insert((connection.id, side));
        let seq = seq_at(&connection.sides[side], place);
        self.hand_in(flow, side, place, seq, TcpFlags::ACK, &payload, len, [false; 2]);
    }

    /// An acknowledgement of what has arrived, or of all that was sent.
    pub(super) fn acknowledge(&mut self, flow: usize, side: Side, all: bool) {
        let connection = &mut self.connections[flow];
        let peer = 1 - index(side);
        let first_missing = first_missing(&self.delayed, connection, peer);
        let ends = &mut connection.sides[peer];
        if all {
            connection.is_faultless &= first_missing == ends.sent;
            ends.acked = ends.sent;
        } else {
            ends.acked = ends.acked.max(first_missing);
        }
        let connection = *connection;
        let place = connection.sides[index(side)].sent;
        self.segment(flow, index(side), place, TcpFlags::ACK, [false; 2], connection);
    }

    /// The end of a side. It takes a sequence number, so nothing is sent behind it that is checked.
    pub(super) fn fin(&mut self, flow: usize, side: Side) {
        self.connections[flow].is_faultless = false;
        let connection = self.connections[flow];
        let place = connection.sides[index(side)].sent;
        self.segment(flow, index(side), place, FIN_ACK, [false; 2], connection);
    }

    /// The end of both sides.
    pub(super) fn reset(&mut self, flow: usize, side: Side) {
        self.connections[flow].is_faultless = false;
        let connection = self.connections[flow];
        let place = connection.sides[index(side)].sent;
        self.segment(flow, index(side), place, TcpFlags::RST, [false; 2], connection);
    }

    /// New bytes of which only the first `copied` are seen.
    pub(super) fn send_uncopied(&mut self, flow: usize, side: Side, len: u32, copied: usize) {
        self.connections[flow].is_faultless &= copied >= len as usize;
        let segment = self.new_bytes(flow, side, len);
        let connection = self.connections[flow];
        let payload = payload_of(&segment);
        let seq = seq_at(&connection.sides[segment.side], segment.place);
        let copied = &payload[..copied.min(payload.len())];
        self.hand_in(flow, segment.side, segment.place, seq, TcpFlags::ACK, copied, len, [false; 2]);
    }

    /// A segment of somebody who knows the addresses.
    pub(super) fn forge(&mut self, flow: usize, side: Side, seq: u32, ack: u32, flags: u8, payload: &[u8]) {
        let connection = &mut self.connections[flow];
        connection.is_faultless = false;
        let (id, ends) = (connection.id, connection.sides);
        // Every other one is near the mark.
        let near = |base: u32, number: u32| {
            if number & 1 == 0 { number } else { base.wrapping_add(number >> 20).wrapping_sub(2_000) }
        };
        let (own, peer) = (&ends[index(side)], &ends[1 - index(side)]);
        let segment = Segment {
            flow: key(flow),
            side,
            interface: 0,
            at: self.now,
            seq: SeqNumber(near(own.first, seq)),
            ack: SeqNumber(near(peer.first, ack)),
            flags: TcpFlags(flags),
            payload,
            payload_len: u32::try_from(payload.len()).unwrap_or(u32::MAX),
        };
        self.recorder.tainted.insert(id);
        self.recorder.current = Current { connection: id, side: index(side), ..Current::default() };
        self.table.handle_segment(&segment, &mut self.recorder);
    }

    pub(super) fn wait(&mut self, duration: Duration) {
        self.now = self.now.after(duration);
        self.recorder.current = Current::default();
        self.table.handle_time(self.now, &mut self.recorder);
    }

    /// What holds after every step.
    pub(super) fn check_bounds(&self) {
        assert_eq!(
            self.table.flows(),
            self.recorder.open_flows(),
            "the table counts other flows than it opened"
        );
        assert!(self.table.flows() <= self.limits.flows);
        let (held, all) = (self.table.reorder_bytes_held(), self.table.bytes_held());
        assert!(held <= self.limits.memory_bytes / 4, "{held} bytes held out of order");
        assert!(all <= self.limits.memory_bytes / 2, "{all} bytes held");
    }

    /// Delivers what is under way and ends the capture.
    pub(super) fn finish(&mut self) {
        while !self.delayed.is_empty() {
            self.deliver_delayed(0);
        }
        self.check_faultless();
        self.recorder.current = Current::default();
        self.table.finish(self.now, &mut self.recorder);
        assert_eq!((self.table.flows(), self.table.reorder_bytes_held()), (0, 0), "something is left");
        assert_eq!(self.recorder.open_flows(), 0, "a flow never closes");
    }

    /// Where everything arrived and nothing had to be given up, everything was handed on.
    fn check_faultless(&mut self) {
        if !self.is_roomy {
            return;
        }
        for connection in self.connections.iter().filter(|connection| connection.is_faultless) {
            // One that was evicted for being idle and taken up again lacks its beginning.
            let is_whole = |record: &&mut Record| {
                !record.is_ignored() && record.sides.iter().all(|stream| stream.is_anchored)
            };
            for record in self.recorder.open_records(connection.id).filter(is_whole) {
                for (stream, ends) in record.sides.iter().zip(&connection.sides) {
                    assert_eq!(
                        (stream.offset, stream.gap_bytes),
                        (ends.sent, 0),
                        "bytes that arrived are missing"
                    );
                }
            }
        }
    }

    fn new_bytes(&mut self, flow: usize, side: Side, len: u32) -> Delayed {
        let connection = &mut self.connections[flow];
        let ends = &mut connection.sides[index(side)];
        let place = ends.sent;
        ends.sent += u64::from(len);
        Delayed { flow, connection: connection.id, side: index(side), place, len, flags: TcpFlags::ACK }
    }

    fn deliver(&mut self, segment: &Delayed) {
        let connection = self.connections[segment.flow];
        let payload = payload_of(segment);
        let seq = seq_at(&connection.sides[segment.side], segment.place);
        let Delayed { flow, side, place, flags, len, .. } = *segment;
        self.hand_in(flow, side, place, seq, flags, &payload, len, [false; 2]);
    }

    /// A segment without data at `place`, or, where that is none, of a SYN.
    fn segment(
        &mut self,
        flow: usize,
        side: usize,
        place: u64,
        flags: TcpFlags,
        anchors: [bool; 2],
        connection: Connection,
    ) {
        let seq = seq_at(&connection.sides[side], place);
        self.hand_in(flow, side, place, seq, flags, &[], 0, anchors);
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of a segment, and what the test knows of it")]
    fn hand_in(
        &mut self,
        flow: usize,
        side: usize,
        place: u64,
        seq: SeqNumber,
        flags: TcpFlags,
        payload: &[u8],
        payload_len: u32,
        anchors: [bool; 2],
    ) {
        let connection = self.connections[flow];
        let peer = &connection.sides[1 - side];
        let segment = Segment {
            flow: key(flow),
            side: Side::ALL[side],
            interface: 0,
            at: self.now,
            seq,
            ack: seq_at(peer, peer.acked),
            flags,
            payload,
            payload_len,
        };
        self.recorder.current = Current { connection: connection.id, side, place, anchors };
        self.table.handle_segment(&segment, &mut self.recorder);
        for record in self.recorder.open_records(connection.id) {
            for (stream, is_anchor) in record.sides.iter_mut().zip(anchors) {
                stream.is_anchored |= is_anchor && stream.base.is_none();
            }
        }
    }
}

/// The first place of a side that is still under way; all that was sent where nothing is.
fn first_missing(delayed: &[Delayed], connection: &Connection, side: usize) -> u64 {
    let under_way =
        delayed.iter().filter(|segment| segment.connection == connection.id && segment.side == side);
    under_way.map(|segment| segment.place).min().unwrap_or(connection.sides[side].sent)
}

fn payload_of(segment: &Delayed) -> Vec<u8> {
    let places = (segment.place..).take(segment.len as usize);
    places.map(|place| byte_at(segment.connection, segment.side, place)).collect()
}

/// The sequence number of `place`; the one before the first for no place.
const fn seq_at(ends: &Ends, place: u64) -> SeqNumber {
    let [_, _, _, _, low @ ..] = place.to_be_bytes();
    SeqNumber(ends.first.wrapping_add(u32::from_be_bytes(low)))
}

const fn index(side: Side) -> usize {
    match side {
        Side::Client => 0,
        Side::Server => 1,
    }
}

fn key(flow: usize) -> FlowKey {
    let endpoint = |port| Endpoint { addr: Ipv6Addr::LOCALHOST, port };
    let port = u16::try_from(flow).unwrap_or(0) + 4_000;
    FlowKey { client: endpoint(port), server: endpoint(80), vlan: 0, vni: 0 }
}
