//! Enters: packets of flows whose sides are not known yet. Leaves: the same packets in the same order, or nothing
//! where bounds were exceeded first.

use std::{collections::HashMap, hash::Hash, mem};

use super::{Ends, OrientLimits, Sender};
use crate::pipeline::{
    frame::TcpPacket,
    http::{Sniff, sniff},
    segment::{Side, TcpFlags},
    seq::SeqNumber,
    time::Timestamp,
};

/// The packets held for one flow.
#[derive(Debug, Default)]
pub(super) struct Held {
    packets: Vec<HeldPacket>,
    /// Sum of the weights of `packets`.
    bytes: usize,
    /// The limits were exceeded: nothing is held any longer, but each packet is still looked at.
    overflowed: bool,
}

impl Held {
    /// The side of the sender, where `packet` shows it by itself or joined with its neighbours among those held.
    pub(super) fn side_shown_by(&self, packet: &TcpPacket<'_>, sender: Sender) -> Option<Side> {
        // What its receiver drops shows nothing.
        if packet.payload.is_empty() || packet.flags.lack_ack() {
            return None;
        }
        side_shown(packet.payload).or_else(|| side_shown(&self.run_through(packet, sender)?))
    }

    /// Holds a packet, or lets go of all where that would exceed the limits.
    pub(super) fn push(
        &mut self,
        at: Timestamp,
        packet: &TcpPacket<'_>,
        sender: Sender,
        limits: &OrientLimits,
    ) {
        let ends_flow = packet.flags.has(TcpFlags::FIN) || packet.flags.has(TcpFlags::RST);
        if self.overflowed || packet.flags.lack_ack() || (packet.payload_len == 0 && !ends_flow) {
            return;
        }
        let held = HeldPacket::new(at, packet, sender);
        let bytes = self.bytes.saturating_add(held.weight());
        if self.packets.len() >= limits.held_packets || bytes > limits.held_flow_bytes {
            *self = Self { overflowed: true, ..Self::default() };
            return;
        }
        self.bytes = bytes;
        self.packets.push(held);
    }

    /// The packets in the order of capture.
    pub(super) fn packets(&self) -> &[HeldPacket] {
        &self.packets
    }

    /// Memory held, in bytes.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// The bytes from the start of the contiguous run of held packets of `sender` that `packet` completes, at most
    /// [`RUN_BYTES`]; `None` where it has no neighbour.
    fn run_through(&self, packet: &TcpPacket<'_>, sender: Sender) -> Option<Vec<u8>> {
        let of_sender = || self.packets.iter().filter(|held| held.sender == sender && held.is_whole());
        let mut run: Vec<&HeldPacket> = Vec::new();
        let mut start = packet.seq;
        while let Some(before) = of_sender().find(|held| held.end() == start) {
            run.push(before);
            start = before.seq;
            // Sequence numbers of a hostile capture may go in a circle.
            if run.len() > self.packets.len() {
                return None;
            }
        }
        run.reverse();
        let mut bytes: Vec<u8> = run.iter().flat_map(|held| &held.payload).copied().take(RUN_BYTES).collect();
        bytes.extend_from_slice(packet.payload);
        let mut end = packet.seq.advance(packet.payload_len);
        while bytes.len() < RUN_BYTES
            && let Some(after) = of_sender().find(|held| held.seq == end)
        {
            bytes.extend_from_slice(&after.payload);
            end = after.end();
        }
        (bytes.len() > packet.payload.len()).then_some(bytes)
    }
}

/// More than enough to tell a start line.
const RUN_BYTES: usize = 1024;

/// The side that sends what begins with `bytes`; a whole start line may be one that only a forgiving reader takes.
fn side_shown(bytes: &[u8]) -> Option<Side> {
    match sniff::classify(bytes) {
        // Only who opened the connection sends a PROXY protocol header.
        Sniff::Request | Sniff::Proxy { .. } => Some(Side::Client),
        Sniff::Response => Some(Side::Server),
        Sniff::NotHttp if sniff::lenient_pick_up(bytes) => Some(Side::Client),
        Sniff::NotHttp if sniff::lenient_response_start(bytes) => Some(Side::Server),
        Sniff::Partial | Sniff::Tls | Sniff::Http2 | Sniff::NotHttp => None,
    }
}

/// A packet without the parts that are the same for the whole flow.
#[derive(Debug)]
pub(super) struct HeldPacket {
    at: Timestamp,
    sender: Sender,
    seq: SeqNumber,
    ack: SeqNumber,
    flags: TcpFlags,
    payload: Box<[u8]>,
    payload_len: u32,
}

impl HeldPacket {
    fn new(at: Timestamp, packet: &TcpPacket<'_>, sender: Sender) -> Self {
        Self {
            at,
            sender,
            seq: packet.seq,
            ack: packet.ack,
            flags: packet.flags,
            payload: packet.payload.into(),
            payload_len: packet.payload_len,
        }
    }

    /// The packet again, with when it was captured and who sent it.
    pub(super) fn as_packet(&self, ends: &Ends) -> (Timestamp, TcpPacket<'_>, Sender) {
        let (src, dst) = match self.sender {
            Sender::Lower => (ends.lower, ends.upper),
            Sender::Upper => (ends.upper, ends.lower),
        };
        let packet = TcpPacket {
            src,
            dst,
            vlan: ends.vlan,
            vni: ends.vni,
            seq: self.seq,
            ack: self.ack,
            flags: self.flags,
            payload: &self.payload,
            payload_len: self.payload_len,
        };
        (self.at, packet, self.sender)
    }

    fn weight(&self) -> usize {
        self.payload.len().saturating_add(size_of::<Self>())
    }

    /// Whether the packet has payload, and all of it was captured.
    fn is_whole(&self) -> bool {
        !self.payload.is_empty() && u32::try_from(self.payload.len()) == Ok(self.payload_len)
    }

    const fn end(&self) -> SeqNumber {
        self.seq.advance(self.payload_len)
    }
}

/// A map of bounded size and weight that forgets what was not touched for longest, about: entries are young or old,
/// a touched one is young, and when the young fill half of a bound the old are dropped and the young become old.
/// No entry may weigh more than half the bound.
#[derive(Debug)]
pub(super) struct Generations<K, V> {
    young: HashMap<K, (V, usize)>,
    old: HashMap<K, (V, usize)>,
    /// Sum of the weights in `young`.
    young_weight: usize,
    max_entries: usize,
    max_weight: usize,
}

impl<K: Eq + Hash, V> Generations<K, V> {
    /// A map of at most `max_entries` entries that weigh at most `max_weight` together.
    pub(super) fn new(max_entries: usize, max_weight: usize) -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), young_weight: 0, max_entries, max_weight }
    }

    pub(super) fn insert(&mut self, key: K, value: V, weight: usize) {
        self.remove(&key);
        let is_full = self.young.len() >= self.max_entries / 2;
        let too_heavy = self.young_weight.saturating_add(weight) > self.max_weight / 2;
        if is_full || too_heavy {
            self.old = mem::take(&mut self.young);
            self.young_weight = 0;
        }
        self.young_weight = self.young_weight.saturating_add(weight);
        self.young.insert(key, (value, weight));
    }

    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        if let Some((value, weight)) = self.young.remove(key) {
            self.young_weight = self.young_weight.saturating_sub(weight);
            return Some(value);
        }
        self.old.remove(key).map(|(value, _)| value)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }

    #[cfg(test)]
    pub(super) fn weight(&self) -> usize {
        self.young.values().chain(self.old.values()).map(|(_, weight)| weight).sum()
    }
}

impl<K: Copy + Eq + Hash, V: Copy> Generations<K, V> {
    /// The value of `key`, which counts as touching it.
    pub(super) fn get(&mut self, key: &K) -> Option<V> {
        if let Some((value, _)) = self.young.get(key) {
            return Some(*value);
        }
        let (value, weight) = self.old.remove(key)?;
        self.insert(*key, value, weight);
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn untouched_entries_are_forgotten_first() {
        let mut map = Generations::new(4, usize::MAX);
        for key in 0..4 {
            map.insert(key, key, 0);
        }
        assert_eq!(map.get(&0), Some(0));
        map.insert(4, 4, 0);
        assert_eq!(map.get(&0), Some(0));
        assert_eq!(map.get(&1), None);
    }

    #[test]
    fn weight_is_bounded() {
        let mut map = Generations::new(1000, 100);
        for key in 0..1000 {
            map.insert(key, (), 10);
            assert!(map.weight() <= 100);
        }
    }
}
