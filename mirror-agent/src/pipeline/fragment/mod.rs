//! Enters: frames of a capture file. Leaves: the TCP packets in them, each IP fragment as a packet of its own.
//!
//! The flow's assembler puts bytes in order, so fragments need not be put together: the first says where in the byte
//! stream the others belong. Those that come before it are held, within bounds, until it is there. Packets that carry others
//! are put together.

mod joiner;
mod packets;

use std::{mem::size_of, time::Duration};

use mirror_common::packet::{CapturedBytes, FirstFragment, FragmentKey, MAX_FRAGMENT_AGE_NS, Network};

use crate::pipeline::{
    Timestamp,
    encapsulation::Found,
    frame::{Frame, FrameReason, LinkType, TcpPacket},
};
use joiner::Joiner;
use packets::Packets;

/// How long the fragments of a packet may take.
const MAX_AGE: Duration = Duration::from_nanos(MAX_FRAGMENT_AGE_NS);

/// Packets of which not all fragments have come. Fragments of TCP are rare, and those of a packet close together.
const MAX_PACKETS: usize = 4096;

/// Memory for fragments that came before their first: as much as Linux takes (`net.ipv4.ipfrag_high_thresh`).
const MAX_HELD_BYTES: usize = 4 * 1024 * 1024;

/// Follows the fragments of packets.
#[derive(Debug, Default)]
pub struct Fragments {
    packets: Packets<Packet>,
    /// Sum of the weights of what is held.
    held_bytes: usize,
    /// Fragments that were held and came to nothing.
    lost: u64,
    /// Those of packets that may carry others.
    joiner: Joiner,
}

/// How many packets that are put together are looked for in one another.
const MAX_JOINED: usize = 3;

/// What packets that were put together are given on as.
const ETHERNET: LinkType = LinkType(1);

/// A packet of which fragments have come, but not all.
#[derive(Debug)]
struct Packet {
    /// `None` until it has come.
    first: Option<FirstFragment>,
    /// Those before it.
    held: Vec<Held>,
}

/// A fragment, with all of its frame.
#[derive(Debug)]
struct Held {
    bytes: Vec<u8>,
    link_type: LinkType,
    wire_len: u32,
    network: Network,
}

impl Fragments {
    /// Follows no packet yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next frame, and gives its TCP packet and those that it sets free, be it none.
    ///
    /// # Errors
    ///
    /// The reason why the frame holds no TCP packet that could be used, not even later.
    pub fn handle_frame(
        &mut self,
        at: Timestamp,
        frame: &Frame<'_>,
        sink: &mut impl FnMut(&TcpPacket<'_>),
    ) -> Result<(), FrameReason> {
        self.handle_nested(at, frame, 0, sink)
    }

    /// Takes a frame that stands in so many others.
    fn handle_nested(
        &mut self,
        at: Timestamp,
        frame: &Frame<'_>,
        joined: usize,
        sink: &mut impl FnMut(&TcpPacket<'_>),
    ) -> Result<(), FrameReason> {
        match frame.find_innermost()? {
            Found::Segment(packet) => {
                sink(&frame.packet(&packet));
                Ok(())
            }
            Found::TcpPart(network) => {
                let outdated = self.packets.take_outdated(at);
                self.give_up(outdated);
                if network.fragment_offset == 0 {
                    self.handle_first(at, frame, &network, sink)
                } else {
                    self.handle_later(at, frame, network, sink)
                }
            }
            Found::Part(_) if joined >= MAX_JOINED => Err(FrameReason::Tunnel),
            Found::Part(network) => match self.joiner.handle_fragment(at, frame, &network) {
                Some(whole) => {
                    let frame = Frame { link_type: ETHERNET, bytes: &whole, wire_len: 0 };
                    self.handle_nested(at, &frame, joined.saturating_add(1), sink)
                }
                None => Ok(()),
            },
        }
    }

    /// How many fragments were held and came to nothing, those that still wait included.
    #[must_use]
    pub fn lost(&self) -> u64 {
        let waiting = self.packets.values().map(|packet| packet.held.len());
        let lost = self.lost.saturating_add(self.joiner.lost());
        waiting.fold(lost, |sum, held| sum.saturating_add(held as u64))
    }

    fn handle_first(
        &mut self,
        at: Timestamp,
        frame: &Frame<'_>,
        network: &Network,
        sink: &mut impl FnMut(&TcpPacket<'_>),
    ) -> Result<(), FrameReason> {
        let key = network.fragment_key(0);
        let opened = FirstFragment::open(&CapturedBytes::new(frame.bytes, frame.wire_len), network);
        let (packet, mut first) = match opened {
            Ok(opened) => opened,
            Err(reason) => {
                // Whatever was known of a packet with this identification is of another.
                let other = self.packets.remove(&key);
                self.give_up(other);
                return Err(reason.into());
            }
        };
        sink(&frame.packet(&packet));
        let held = self.packets.remove(&key).map(|packet| packet.held).unwrap_or_default();
        self.let_go(&held);
        for held in &held {
            let frame = Frame { link_type: held.link_type, bytes: &held.bytes, wire_len: held.wire_len };
            let bytes = CapturedBytes::new(frame.bytes, frame.wire_len);
            match first.segment_of(&bytes, &held.network) {
                Ok(packet) => sink(&frame.packet(&packet)),
                Err(_) => self.lost = self.lost.saturating_add(1),
            }
        }
        if !first.is_complete() {
            self.open(at, key, Packet { first: Some(first), held: Vec::new() });
        }
        Ok(())
    }

    fn handle_later(
        &mut self,
        at: Timestamp,
        frame: &Frame<'_>,
        network: Network,
        sink: &mut impl FnMut(&TcpPacket<'_>),
    ) -> Result<(), FrameReason> {
        let key = network.fragment_key(0);
        if let Some(first) = self.packets.get_mut(&key).and_then(|packet| packet.first.as_mut()) {
            let packet = first.segment_of(&CapturedBytes::new(frame.bytes, frame.wire_len), &network)?;
            if first.is_complete() {
                // Nothing is held of one whose first fragment has come.
                self.packets.remove(&key);
            }
            sink(&frame.packet(&packet));
            return Ok(());
        }
        let held = Held {
            bytes: frame.bytes.to_vec(),
            link_type: frame.link_type,
            wire_len: frame.wire_len,
            network,
        };
        while self.held_bytes.saturating_add(held.weight()) > MAX_HELD_BYTES && !self.packets.is_empty() {
            let earliest = self.packets.take_earliest();
            self.give_up(earliest);
        }
        self.held_bytes = self.held_bytes.saturating_add(held.weight());
        match self.packets.get_mut(&key) {
            Some(packet) => packet.held.push(held),
            None => self.open(at, key, Packet { first: None, held: vec![held] }),
        }
        Ok(())
    }

    /// Begins to follow a packet, in place of any that had its key.
    fn open(&mut self, at: Timestamp, key: FragmentKey, packet: Packet) {
        let gone = self.packets.open(at, key, packet);
        self.give_up(gone);
    }

    /// Stops following packets; what is held of them is lost.
    fn give_up(&mut self, packets: impl IntoIterator<Item = Packet>) {
        for packet in packets {
            self.lost = self.lost.saturating_add(packet.held.len() as u64);
            self.let_go(&packet.held);
        }
    }

    fn let_go(&mut self, held: &[Held]) {
        let weight = held.iter().map(Held::weight).fold(0_usize, usize::saturating_add);
        self.held_bytes = self.held_bytes.saturating_sub(weight);
    }
}

impl Held {
    fn weight(&self) -> usize {
        self.bytes.len().saturating_add(size_of::<Self>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAYLOAD: &[u8] = b"GET /a HTTP/1.1\r\nhost: somewhere.example\r\n\r\n";
    const RAW: LinkType = LinkType(101);

    /// What is known of a packet given on: sequence number, flags and payload.
    type Seen = (u32, u8, Vec<u8>);

    #[test]
    fn fragments_become_parts_of_the_byte_stream() {
        for v6 in [false, true] {
            let mut fragments = Fragments::new();
            let seen = run(&mut fragments, &cut(7, v6, 0x19, &[32, 48]));
            assert_eq!(
                seen,
                [
                    (1000, 0x10, PAYLOAD[..12].to_vec()),
                    (1012, 0x10, PAYLOAD[12..28].to_vec()),
                    (1028, 0x19, PAYLOAD[28..].to_vec()),
                ]
            );
            assert_eq!((fragments.packets.len().0, fragments.lost()), (0, 0), "nothing is kept of it");
        }
    }

    #[test]
    fn fragments_before_the_first_wait_for_it() {
        let mut fragments = Fragments::new();
        let mut frames = cut(7, false, 0x18, &[32, 48]);
        frames.rotate_left(1);
        let seen = run(&mut fragments, &frames);
        assert_eq!(seen.iter().map(|(seq, ..)| *seq).collect::<Vec<_>>(), [1000, 1012, 1028]);
        assert_eq!((fragments.packets.len().0, fragments.held_bytes, fragments.lost()), (0, 0, 0));
    }

    #[test]
    fn syn_stands_in_the_first_part_and_counts() {
        let seen = run(&mut Fragments::new(), &cut(7, false, 0x02, &[32]));
        assert_eq!(
            seen.iter().map(|(seq, flags, _)| (*seq, *flags)).collect::<Vec<_>>(),
            [(1000, 2), (1013, 0)]
        );
    }

    #[test]
    fn tiny_first_fragment_and_those_within_its_header_are_refused() {
        let mut fragments = Fragments::new();
        let frames = cut(7, false, 0x18, &[8, 16]);
        let refused = |fragments: &mut Fragments, frame: &[u8]| handle(fragments, 1, frame, &mut |_| ());
        assert_eq!(refused(&mut fragments, &frames[0]), Err(FrameReason::Fragment));
        assert_eq!(refused(&mut fragments, &frames[1]), Ok(()), "its first may still come");
        // Another first, whose header goes beyond where that one begins.
        assert_eq!(refused(&mut fragments, &cut(7, false, 0x18, &[32])[0]), Ok(()));
        assert_eq!(fragments.lost(), 1);
        assert_eq!(refused(&mut fragments, &frames[1]), Err(FrameReason::Fragment));
    }

    #[test]
    fn fragments_of_different_packets_are_kept_apart() {
        let mut fragments = Fragments::new();
        let (one, two) = (cut(7, false, 0x18, &[32]), cut(8, false, 0x18, &[40]));
        let seen = run(&mut fragments, &[&one[0], &two[0], &two[1], &one[1]].map(Clone::clone));
        assert_eq!(seen.iter().map(|(seq, ..)| *seq).collect::<Vec<_>>(), [1000, 1000, 1020, 1012]);
    }

    #[test]
    fn packet_is_forgotten_after_its_time() {
        let mut fragments = Fragments::new();
        let frames = cut(7, false, 0x18, &[32]);
        let after = MAX_FRAGMENT_AGE_NS + 2;
        let mut count = 0;
        for (at, frame) in [(1, &frames[0]), (after, &frames[1]), (2 * after, &cut(9, false, 0x18, &[32])[0])]
        {
            assert_eq!(handle(&mut fragments, at, frame, &mut |_| count += 1), Ok(()));
        }
        assert_eq!((count, fragments.lost()), (2, 1));
    }

    #[test]
    fn packets_that_never_come_to_an_end_stay_within_bounds() {
        let mut fragments = Fragments::new();
        let mut refused = 0_u64;
        for id in 0..20_000 {
            let frames = cut(id, id % 2 == 0, 0x18, &[32, 48]);
            refused += u64::from(handle(&mut fragments, 1, &frames[1], &mut |_| ()).is_err());
            assert!(fragments.packets.len().0 <= MAX_PACKETS && fragments.packets.len().1 <= MAX_PACKETS);
            assert!(fragments.held_bytes <= MAX_HELD_BYTES);
        }
        assert_eq!(fragments.lost() + refused, 20_000);
    }

    #[test]
    fn fragments_whose_first_never_comes_make_way_for_others() {
        let mut fragments = Fragments::new();
        for id in 0..2000 {
            let frame = ipv4(id, 800, true, &[0; 4096]);
            assert_eq!(handle(&mut fragments, 1, &frame, &mut |_| ()), Ok(()));
        }
        let mut frames = cut(7000, false, 0x18, &[32]);
        frames.reverse();
        assert_eq!(run(&mut fragments, &frames).len(), 2);
        assert!(fragments.held_bytes <= MAX_HELD_BYTES && fragments.lost() == 2000);
    }

    #[test]
    fn one_identification_used_over_and_over_stays_within_bounds() {
        let mut fragments = Fragments::new();
        let frames = cut(7, false, 0x18, &[32]);
        for _ in 0..3 * MAX_PACKETS {
            run(&mut fragments, &frames);
            assert!(fragments.packets.len().1 <= MAX_PACKETS);
        }
        assert_eq!((fragments.packets.len().0, fragments.lost()), (0, 0));
    }

    fn run(fragments: &mut Fragments, frames: &[Vec<u8>]) -> Vec<Seen> {
        let mut seen = Vec::new();
        for frame in frames {
            let mut sink =
                |packet: &TcpPacket<'_>| seen.push((packet.seq.0, packet.flags.0, packet.payload.to_vec()));
            handle(fragments, 1, frame, &mut sink).unwrap();
        }
        seen
    }

    fn handle(
        fragments: &mut Fragments,
        at: u64,
        frame: &[u8],
        sink: &mut impl FnMut(&TcpPacket<'_>),
    ) -> Result<(), FrameReason> {
        let frame = Frame { link_type: RAW, bytes: frame, wire_len: 0 };
        fragments.handle_frame(Timestamp::from_nanos(at), &frame, sink)
    }

    /// A segment with `PAYLOAD`, cut into fragments at these offsets of it, its header of 20 bytes included.
    fn cut(id: u16, v6: bool, flags: u8, at: &[u16]) -> Vec<Vec<u8>> {
        let header = [0x9c, 0x40, 0, 80, 0, 0, 3, 0xe8, 0, 0, 0, 9, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0];
        let segment = [&header[..], PAYLOAD].concat();
        let end = u16::try_from(segment.len()).unwrap();
        let starts = [&[0], at].concat();
        let ends = at.iter().copied().chain([end]);
        let fragment = |(from, to): (&u16, u16)| {
            let part = &segment[usize::from(*from)..usize::from(to)];
            if v6 { ipv6(id, *from, to != end, part) } else { ipv4(id, *from, to != end, part) }
        };
        starts.iter().zip(ends).map(fragment).collect()
    }

    fn ipv4(id: u16, offset: u16, has_more: bool, part: &[u8]) -> Vec<u8> {
        let total = u16::try_from(20 + part.len()).unwrap().to_be_bytes();
        let field = ((u16::from(has_more) << 13) | (offset / 8)).to_be_bytes();
        let [id_high, id_low] = id.to_be_bytes();
        let header = [0x45, 0, total[0], total[1], id_high, id_low, field[0], field[1], 64, 6, 0, 0];
        [&header[..], &[192, 0, 2, 1, 192, 0, 2, 2], part].concat()
    }

    fn ipv6(id: u16, offset: u16, has_more: bool, part: &[u8]) -> Vec<u8> {
        let len = u16::try_from(8 + part.len()).unwrap().to_be_bytes();
        let field = (offset | u16::from(has_more)).to_be_bytes();
        let [id_high, id_low] = id.to_be_bytes();
        let header = [0x60, 0, 0, 0, len[0], len[1], 44, 64];
        let fragment = [6, 0, field[0], field[1], 0, 0, id_high, id_low];
        [&header[..], &[1; 16], &[2; 16], &fragment, part].concat()
    }
}
