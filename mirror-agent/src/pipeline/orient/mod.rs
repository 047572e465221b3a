//! Enters: TCP packets of a capture, whose ends are only source and destination. Leaves: segments, whose ends are
//! client and server.
//!
//! A port that was asked for decides at once. Where no ports were asked for, or both ends have one, the handshake
//! decides, or else the bytes: who sends a request line is the client, who sends a status line is the server. Until
//! then the packets of a flow are held and released in order; a flow that shows neither is never released. Flows are
//! told apart by their VLAN tags, too.

mod held;
mod lanes;

use crate::pipeline::{
    frame::TcpPacket,
    segment::{Endpoint, FlowKey, Segment, Side, TcpFlags},
    time::Timestamp,
};
use held::{Generations, Held};
use lanes::Lanes;

/// Bounds of what is remembered of flows.
#[derive(Clone, Debug)]
pub struct OrientLimits {
    /// Flows whose sides are remembered. Beyond it, those silent for longest are forgotten.
    pub oriented_flows: usize,
    /// Flows whose sides are not known yet. Beyond it, those silent for longest are forgotten.
    pub held_flows: usize,
    /// Packets held for one flow.
    pub held_packets: usize,
    /// Memory of the packets held for one flow, in bytes; at most half of `held_bytes`.
    pub held_flow_bytes: usize,
    /// Memory of the packets held for all flows, in bytes.
    pub held_bytes: usize,
}

impl Default for OrientLimits {
    fn default() -> Self {
        Self {
            oriented_flows: 262_144,
            held_flows: 65_536,
            held_packets: 64,
            held_flow_bytes: 256 * 1024,
            held_bytes: 64 * 1024 * 1024,
        }
    }
}

/// Tells client from server, for all flows of one capture.
#[derive(Debug)]
pub struct Orienter {
    /// The ports that servers listen on; empty where every port may be one.
    ports: Vec<u16>,
    limits: OrientLimits,
    lanes: Generations<Ends, Lanes>,
    oriented: Generations<Ends, Lower>,
    held: Generations<Ends, Held>,
}

impl Orienter {
    /// An orienter for servers on `ports`, or on any port where `ports` is empty.
    #[must_use]
    pub fn new(ports: Vec<u16>, limits: OrientLimits) -> Self {
        Self {
            ports,
            lanes: Generations::new(limits.oriented_flows, usize::MAX),
            oriented: Generations::new(limits.oriented_flows, usize::MAX),
            held: Generations::new(limits.held_flows, limits.held_bytes),
            limits,
        }
    }

    /// Takes a packet and hands on the segments that it sets free: none, itself, or itself after those held.
    ///
    /// Segments of one flow leave in the order of capture; those that were held carry the time of their capture,
    /// which may lie before that of segments of other flows that left earlier.
    pub fn handle_packet(
        &mut self,
        at: Timestamp,
        packet: &TcpPacket<'_>,
        sink: &mut impl FnMut(Segment<'_>),
    ) {
        let by_port = self.side_by_port(packet);
        if by_port == PortMatch::Neither {
            return;
        }
        let (ends, sender) = Ends::of(packet);
        let vlan = self.flow_vlan(&ends, sender);
        let (ends, packet) = (Ends { vlan, ..ends }, &TcpPacket { vlan, ..*packet });
        match by_port {
            PortMatch::Side(side) => sink(segment(at, packet, side)),
            PortMatch::Either | PortMatch::Neither => self.orient(at, packet, ends, sender, sink),
        }
    }

    /// The tags by which the flow is known, of which one sender's may differ.
    fn flow_vlan(&mut self, ends: &Ends, sender: Sender) -> u32 {
        let key = Ends { vlan: 0, ..*ends };
        let mut lanes = self.lanes.get(&key).unwrap_or_default();
        let before = lanes;
        let vlan = lanes.assign(sender, ends.vlan);
        if lanes != before {
            self.lanes.insert(key, lanes, 0);
        }
        vlan
    }

    fn side_by_port(&self, packet: &TcpPacket<'_>) -> PortMatch {
        if self.ports.is_empty() {
            return PortMatch::Either;
        }
        match (self.ports.contains(&packet.src.port), self.ports.contains(&packet.dst.port)) {
            (false, false) => PortMatch::Neither,
            (false, true) => PortMatch::Side(Side::Client),
            (true, false) => PortMatch::Side(Side::Server),
            (true, true) => PortMatch::Either,
        }
    }

    fn orient(
        &mut self,
        at: Timestamp,
        packet: &TcpPacket<'_>,
        ends: Ends,
        sender: Sender,
        sink: &mut impl FnMut(Segment<'_>),
    ) {
        // The handshake overrules what was known: the addresses and ports may be those of an earlier connection.
        if packet.flags.has(TcpFlags::SYN) {
            let side = if packet.flags.has(TcpFlags::ACK) { Side::Server } else { Side::Client };
            // What was held is of an earlier connection, which ended without a word of HTTP.
            self.held.remove(&ends);
            self.oriented.insert(ends, Lower::from_sender(sender, side), 0);
            return sink(segment(at, packet, side));
        }
        if let Some(lower) = self.oriented.get(&ends) {
            return sink(segment(at, packet, lower.side_of(sender)));
        }
        let mut held = self.held.remove(&ends).unwrap_or_default();
        let Some(side) = held.side_shown_by(packet, sender) else {
            held.push(at, packet, sender, &self.limits);
            let bytes = held.bytes();
            self.held.insert(ends, held, bytes);
            return;
        };
        let lower = Lower::from_sender(sender, side);
        self.oriented.insert(ends, lower, 0);
        for earlier in held.packets() {
            let (at, packet, sender) = earlier.as_packet(&ends);
            sink(segment(at, &packet, lower.side_of(sender)));
        }
        sink(segment(at, packet, side));
    }
}

#[derive(Clone, Copy, PartialEq)]
enum PortMatch {
    Side(Side),
    Either,
    Neither,
}

/// The two ends of a flow, whichever of them is the client: the key under which both directions meet.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
struct Ends {
    lower: Endpoint,
    upper: Endpoint,
    vlan: u32,
    vni: u32,
}

impl Ends {
    /// The ends of a packet and which of them sent it. Where they are the same, as in packets made by hand, nothing tells one
    /// direction from the other: all is taken for the side that shows first.
    fn of(packet: &TcpPacket<'_>) -> (Self, Sender) {
        let src = (packet.src.addr, packet.src.port);
        let dst = (packet.dst.addr, packet.dst.port);
        let (lower, upper, sender) = if src <= dst {
            (packet.src, packet.dst, Sender::Lower)
        } else {
            (packet.dst, packet.src, Sender::Upper)
        };
        (Self { lower, upper, vlan: packet.vlan, vni: packet.vni }, sender)
    }
}

/// Which of the [`Ends`] sent a packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Sender {
    Lower,
    Upper,
}

impl Sender {
    const fn peer(self) -> Self {
        match self {
            Self::Lower => Self::Upper,
            Self::Upper => Self::Lower,
        }
    }
}

/// What side the lower end of a flow is.
#[derive(Clone, Copy, Debug)]
struct Lower(Side);

impl Lower {
    const fn from_sender(sender: Sender, side: Side) -> Self {
        match sender {
            Sender::Lower => Self(side),
            Sender::Upper => Self(side.peer()),
        }
    }

    const fn side_of(self, sender: Sender) -> Side {
        match sender {
            Sender::Lower => self.0,
            Sender::Upper => self.0.peer(),
        }
    }
}

fn segment<'a>(at: Timestamp, packet: &TcpPacket<'a>, side: Side) -> Segment<'a> {
    let (client, server) = match side {
        Side::Client => (packet.src, packet.dst),
        Side::Server => (packet.dst, packet.src),
    };
    Segment {
        flow: FlowKey { client, server, vlan: packet.vlan, vni: packet.vni },
        interface: 0,
        side,
        at,
        seq: packet.seq,
        ack: packet.ack,
        flags: packet.flags,
        payload: packet.payload,
        payload_len: packet.payload_len,
    }
}

#[cfg(test)]
mod tests;
