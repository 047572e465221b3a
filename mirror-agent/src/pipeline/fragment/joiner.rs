//! Enters: fragments of IP packets that may carry others. Leaves: these packets, put together.
//!
//! Headers of a tunnel are followed by others, wherever the fragments were cut: unlike TCP's, one is of no use by itself.

use std::collections::{BTreeMap, btree_map::Entry};

use mirror_common::packet::{Network, ether_type, protocol};

use super::{MAX_HELD_BYTES, packets::Packets};
use crate::pipeline::{Timestamp, frame::Frame};

/// Holds fragments until their packets are whole.
#[derive(Debug, Default)]
pub(super) struct Joiner {
    packets: Packets<Partial>,
    /// Sum of the weights of what is held.
    held_bytes: usize,
    /// Fragments of tunnels whose packets never were whole.
    lost: u64,
}

/// A packet of which fragments have come, but not all.
#[derive(Debug)]
struct Partial {
    /// By where they belong, in bytes.
    parts: BTreeMap<usize, Vec<u8>>,
    /// Bytes of `parts`.
    received: usize,
    /// Up to where nothing is missing.
    unbroken: usize,
    /// Bytes of them all, once the last has come.
    len: Option<usize>,
    /// It carries a packet for sure, which UDP seldom does.
    is_tunnel: bool,
}

/// What a fragment takes beside its bytes.
const PART_WEIGHT: usize = 64;

impl Joiner {
    /// Takes the fragment that was found in `frame`. Gives its packet, as a frame of Ethernet, where that is whole by it.
    pub(super) fn handle_fragment(
        &mut self,
        at: Timestamp,
        frame: &Frame<'_>,
        network: &Network,
    ) -> Option<Vec<u8>> {
        let outdated = self.packets.take_outdated(at);
        self.give_up(outdated);
        // One that was not captured to its end is of no use.
        let part = usize::try_from(network.part_at).ok()?..usize::try_from(network.end).ok()?;
        let part = frame.bytes.get(part)?;
        let offset = usize::from(network.fragment_offset);
        while self.held_bytes.saturating_add(part.len()) > MAX_HELD_BYTES && !self.packets.is_empty() {
            let earliest = self.packets.take_earliest();
            self.give_up(earliest);
        }
        let key = network.fragment_key(0);
        if self.packets.get_mut(&key).is_none() {
            let gone = self.packets.open(at, key, Partial::new(network.protocol != protocol::UDP));
            self.give_up(gone);
        }
        let packet = self.packets.get_mut(&key)?;
        if packet.put(offset, part) {
            self.held_bytes = self.held_bytes.saturating_add(part.len()).saturating_add(PART_WEIGHT);
        }
        if network.has_more == 0 {
            packet.len = Some(offset.saturating_add(part.len()));
        }
        let content = packet.join()?;
        let whole = self.packets.remove(&key);
        self.let_go(whole.as_ref());
        ethernet(network, &content)
    }

    /// How many fragments of tunnels came to nothing, those that still wait included.
    pub(super) fn lost(&self) -> u64 {
        self.packets.values().fold(self.lost, |sum, packet| sum.saturating_add(packet.loss()))
    }

    /// Lets go of packets that are not whole.
    fn give_up(&mut self, packets: impl IntoIterator<Item = Partial>) {
        for packet in packets {
            self.lost = self.lost.saturating_add(packet.loss());
            self.let_go(Some(&packet));
        }
    }

    fn let_go(&mut self, packet: Option<&Partial>) {
        self.held_bytes = self.held_bytes.saturating_sub(packet.map_or(0, Partial::weight));
    }
}

impl Partial {
    const fn new(is_tunnel: bool) -> Self {
        Self { parts: BTreeMap::new(), received: 0, unbroken: 0, len: None, is_tunnel }
    }

    /// Puts in a part, but in place of one: what came first stays. `false` where there is one.
    fn put(&mut self, offset: usize, part: &[u8]) -> bool {
        let Entry::Vacant(place) = self.parts.entry(offset) else { return false };
        place.insert(part.to_vec());
        self.received = self.received.saturating_add(part.len());
        let mut from = self.unbroken;
        if offset <= from {
            self.unbroken = from.max(offset.saturating_add(part.len()));
        }
        // Each part is looked at once: when what is before it has come.
        while self.unbroken > from {
            let next = self.parts.range(from.saturating_add(1)..=self.unbroken);
            let end = next.map(|(offset, part)| offset.saturating_add(part.len())).max();
            from = self.unbroken;
            self.unbroken = from.max(end.unwrap_or(0));
        }
        true
    }

    /// All of it, where nothing is missing.
    fn join(&self) -> Option<Vec<u8>> {
        let len = self.len.filter(|len| self.unbroken == *len)?;
        let mut whole = Vec::with_capacity(len);
        for (offset, part) in &self.parts {
            let known = whole.len().checked_sub(*offset)?;
            whole.extend_from_slice(part.get(known..).unwrap_or_default());
        }
        (whole.len() == len).then_some(whole)
    }

    /// What it takes of what may be held, in bytes.
    fn weight(&self) -> usize {
        self.parts.len().saturating_mul(PART_WEIGHT).saturating_add(self.received)
    }

    /// Fragments that are lost with it.
    fn loss(&self) -> u64 {
        if self.is_tunnel { self.parts.len() as u64 } else { 0 }
    }
}

/// The packet of which `network` is a fragment, with this content, in Ethernet with the same tags; `None` where it is longer
/// than IP's.
fn ethernet(network: &Network, content: &[u8]) -> Option<Vec<u8>> {
    let mut frame = vec![0; 12];
    for tag in [network.layer.vlan & 0xffff, network.layer.vlan >> 16].into_iter().filter(|tag| *tag != 0) {
        frame.extend(ether_type::VLAN.to_be_bytes());
        frame.extend(u16::try_from(tag).ok()?.to_be_bytes());
    }
    frame.extend(network.layer.ether_type.to_be_bytes());
    let (src, dst) = (network.src.to_bytes(), network.dst.to_bytes());
    if network.layer.ether_type == ether_type::IPV4 {
        // RFC 791 section 3.1; the checksum is not looked at.
        let [high, low] = u16::try_from(content.len().saturating_add(20)).ok()?.to_be_bytes();
        frame.extend([0x45, 0, high, low, 0, 0, 0, 0, 64, network.protocol, 0, 0]);
        frame.extend(src.last_chunk::<4>()?);
        frame.extend(dst.last_chunk::<4>()?);
    } else {
        // RFC 8200 section 3.
        let [high, low] = u16::try_from(content.len()).ok()?.to_be_bytes();
        frame.extend([0x60, 0, 0, 0, high, low, network.protocol, 64]);
        frame.extend(src);
        frame.extend(dst);
    }
    frame.extend_from_slice(content);
    Some(frame)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::{
        fragment::{Fragments, MAX_PACKETS},
        frame::{FrameReason, LinkType, TcpPacket},
    };

    const PAYLOAD: &[u8] = b"GET /a HTTP/1.1\r\nhost: somewhere.example\r\n\r\n";

    #[test]
    fn packet_in_a_tunnel_that_is_cut_is_found_in_any_order() {
        for (protocol, header) in
            [(4, &[][..]), (47, &[0, 0, 8, 0]), (17, &UDP), (97, &ETHERIP), (137, &MPLS)]
        {
            for v6 in [false, true].into_iter().take(if protocol < 97 { 2 } else { 1 }) {
                let mut frames = cut(7, v6, protocol, &[header, &segment()].concat(), &[16, 48]);
                for _ in 0..3 {
                    frames.rotate_left(1);
                    let mut fragments = Fragments::new();
                    assert_eq!(run(&mut fragments, &frames), [PAYLOAD], "{protocol}, {v6}");
                    assert_eq!((fragments.lost(), fragments.joiner.held_bytes), (0, 0));
                }
            }
        }
    }

    #[test]
    fn tunnel_that_is_cut_in_one_that_is_cut_is_found_and_no_deeper_than_that() {
        let deep = |levels: usize| {
            let mut frames = vec![segment()];
            for level in 0..levels {
                let parts = frames.iter().enumerate().flat_map(|(index, packet)| {
                    let id = u16::try_from(level * 100 + index).unwrap();
                    cut(id, false, 4, packet, &[24])
                });
                frames = parts.collect();
            }
            run(&mut Fragments::new(), &frames)
        };
        assert_eq!((deep(2), deep(3)), (vec![PAYLOAD.to_vec()], vec![PAYLOAD.to_vec()]));
        assert!(deep(6).is_empty());
    }

    #[test]
    fn tunnel_with_a_part_missing_is_counted_and_held_within_bounds() {
        let mut fragments = Fragments::new();
        for id in 0..20_000 {
            let frames = cut(id, id % 2 == 0, 47, &[&[0, 0, 8, 0][..], &segment()].concat(), &[16, 48]);
            assert_eq!(run(&mut fragments, &frames[1..]), [[0; 0]; 0]);
            assert!(fragments.joiner.packets.len().1 <= MAX_PACKETS);
            assert!(fragments.joiner.held_bytes <= MAX_HELD_BYTES + 65_536);
        }
        assert_eq!(fragments.lost(), 40_000);
        // Of UDP nobody knows that it was a tunnel.
        let mut fragments = Fragments::new();
        run(&mut fragments, &cut(7, false, 17, &[&UDP[..], &segment()].concat(), &[16])[..1]);
        assert_eq!(fragments.lost(), 0);
    }

    #[test]
    fn parts_that_overlap_hide_no_hole() {
        let parts: [(usize, &[u8]); 5] =
            [(8, b"bbbbbbbb"), (12, b"bbbb"), (24, b"d"), (0, b"aaaaaaaa"), (4, b"aaaa")];
        let mut packet = Partial::new(true);
        packet.len = Some(25);
        for (offset, part) in parts {
            assert!(packet.put(offset, part) && !packet.put(offset, part));
        }
        // As many bytes as it has, and a hole.
        assert_eq!((packet.received, packet.unbroken, packet.join()), (25, 16, None));
        assert!(packet.put(16, b"cccccccc"));
        assert_eq!(packet.join().as_deref(), Some(&b"aaaaaaaabbbbbbbbccccccccd"[..]));
    }

    #[test]
    fn fragment_that_is_not_captured_to_its_end_makes_no_packet() {
        let mut frames = cut(7, false, 4, &segment(), &[48]);
        frames[1].pop();
        assert_eq!(run(&mut Fragments::new(), &frames), [[0; 0]; 0]);
    }

    const UDP: [u8; 16] = [0x9c, 0x40, 8, 0x68, 0, 0, 0, 0, 0x30, 0xff, 0, 0, 0, 0, 0, 1];
    const ETHERIP: [u8; 16] = [0x30, 0, 2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
    const MPLS: [u8; 4] = [0, 6, 0x41, 64];

    fn run(fragments: &mut Fragments, frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let mut seen = Vec::new();
        for bytes in frames {
            let frame = Frame { link_type: LinkType(101), bytes, wire_len: 0 };
            let mut sink = |packet: &TcpPacket<'_>| seen.push(packet.payload.to_vec());
            match fragments.handle_frame(Timestamp::from_nanos(1), &frame, &mut sink) {
                Ok(()) | Err(FrameReason::Tunnel) => {}
                Err(reason) => panic!("{reason:?}"),
            }
        }
        seen
    }

    /// A segment in IPv4.
    fn segment() -> Vec<u8> {
        let tcp = [0x9c, 0x40, 0, 80, 0, 0, 3, 0xe8, 0, 0, 0, 9, 0x50, 0x18, 0xff, 0xff, 0, 0, 0, 0];
        ipv4(0, 0, 6, &[&tcp, PAYLOAD].concat())
    }

    /// A packet with this content, cut into fragments at these offsets.
    fn cut(id: u16, v6: bool, protocol: u8, content: &[u8], at: &[usize]) -> Vec<Vec<u8>> {
        let starts = [&[0], at].concat();
        let ends = at.iter().copied().chain([content.len()]);
        let fragment = |(from, to): (&usize, usize)| {
            let field = u16::try_from(*from).unwrap() | u16::from(to != content.len());
            let part = &content[*from..to];
            if v6 { ipv6(id, field, protocol, part) } else { ipv4(id, field, protocol, part) }
        };
        starts.iter().zip(ends).map(fragment).collect()
    }

    /// `field` is the offset in bytes, and whether more follow in its last bit.
    fn ipv4(id: u16, field: u16, protocol: u8, part: &[u8]) -> Vec<u8> {
        let total = u16::try_from(20 + part.len()).unwrap().to_be_bytes();
        let field = (((field & 1) << 13) | (field / 8)).to_be_bytes();
        let [id_high, id_low] = id.to_be_bytes();
        let header = [0x45, 0, total[0], total[1], id_high, id_low, field[0], field[1], 64, protocol, 0, 0];
        [&header[..], &[192, 0, 2, 1, 192, 0, 2, 2], part].concat()
    }

    fn ipv6(id: u16, field: u16, protocol: u8, part: &[u8]) -> Vec<u8> {
        let len = u16::try_from(8 + part.len()).unwrap().to_be_bytes();
        let (field, [id_high, id_low]) = (field.to_be_bytes(), id.to_be_bytes());
        let header = [0x60, 0, 0, 0, len[0], len[1], 44, 64];
        let fragment = [protocol, 0, field[0], field[1], 0, 0, id_high, id_low];
        [&header[..], &[1; 16], &[2; 16], &fragment, part].concat()
    }
}
