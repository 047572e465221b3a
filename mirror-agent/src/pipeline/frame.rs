//! Enters: a frame of a capture file and its link type. Leaves: its TCP packet, or why there is none.

use std::net::Ipv6Addr;

use mirror_common::packet::{self, Unparsed};

use crate::pipeline::{
    encapsulation::{self, Found},
    link::network_layer,
    reason::reasons,
    segment::{Endpoint, TcpFlags},
    seq::SeqNumber,
};

/// What a frame begins with: a LINKTYPE_ value as in pcap and pcapng files
/// (<https://www.tcpdump.org/linktypes.html>).
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct LinkType(pub u16);

/// A frame as a capture file holds it.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// What it begins with.
    pub link_type: LinkType,
    /// The bytes captured: a prefix of the frame.
    pub bytes: &'a [u8],
    /// Length of the frame on the wire in bytes. Some writers put less than what they captured: not believed.
    pub wire_len: u32,
}

/// A TCP packet as captured: its ends are source and destination, not yet client and server.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TcpPacket<'a> {
    /// Where it came from.
    pub src: Endpoint,
    /// Where it went.
    pub dst: Endpoint,
    /// As in [`FlowKey::vlan`](crate::pipeline::FlowKey::vlan).
    pub vlan: u32,
    /// As in [`FlowKey::vni`](crate::pipeline::FlowKey::vni).
    pub vni: u32,
    /// Sequence number of the first payload byte, or of the SYN where that flag is set.
    pub seq: SeqNumber,
    /// Next sequence number that the sender expects; meaningful only with [`TcpFlags::ACK`].
    pub ack: SeqNumber,
    /// The TCP flags.
    pub flags: TcpFlags,
    /// The payload that was captured: a prefix of the packet's payload.
    pub payload: &'a [u8],
    /// Length of the whole payload in bytes; at least `payload.len()`.
    pub payload_len: u32,
}

reasons! {
    /// Why a frame holds no TCP packet that could be used.
    FrameReason {
        /// Several packets in one frame of IEEE 802.11 (A-MSDU).
        Aggregate => "aggregate",
        /// A part of a fragmented IP packet with TCP.
        Fragment => "fragment",
        /// The link type is not one of those read.
        LinkType => "link_type",
        /// A header contradicts itself.
        Malformed => "malformed",
        /// Neither IPv4 nor IPv6.
        NotIp => "not_ip",
        /// IP without TCP.
        NotTcp => "not_tcp",
        /// More VLAN tags, MPLS labels or extension headers than are followed.
        TooDeep => "too_deep",
        /// The frame ends, or was cut, within its headers.
        Truncated => "truncated",
        /// In a tunnel that is not looked into.
        Tunnel => "tunnel",
    }
}

impl From<Unparsed> for FrameReason {
    fn from(unparsed: Unparsed) -> Self {
        match unparsed {
            Unparsed::Fragment => Self::Fragment,
            Unparsed::Malformed => Self::Malformed,
            Unparsed::NotIp => Self::NotIp,
            Unparsed::NotTcp => Self::NotTcp,
            Unparsed::TooDeep => Self::TooDeep,
            Unparsed::Truncated => Self::Truncated,
            Unparsed::Tunnel => Self::Tunnel,
        }
    }
}

impl<'a> Frame<'a> {
    /// Finds the TCP packet of the frame. Fragments of one are put to use by
    /// [`Fragments`](crate::pipeline::fragment::Fragments).
    ///
    /// # Errors
    ///
    /// The reason why the frame holds none that could be used.
    pub fn parse(&self) -> Result<TcpPacket<'a>, FrameReason> {
        match self.find_innermost()? {
            Found::Segment(packet) => Ok(self.packet(&packet)),
            Found::TcpPart(_) | Found::Part(_) => Err(FrameReason::Fragment),
        }
    }

    /// Finds the segment of the frame's innermost packet, or the fragment of one.
    pub(super) fn find_innermost(&self) -> Result<Found, FrameReason> {
        let (offset, start) = network_layer(self.link_type, self.bytes)?;
        encapsulation::find_innermost(self, offset, start)
    }

    /// The TCP packet of a segment that was found in the frame.
    pub(super) fn packet(&self, parsed: &packet::TcpPacket) -> TcpPacket<'a> {
        let captured = usize::try_from(parsed.payload_offset).ok().and_then(|from| self.bytes.get(from..));
        let len = usize::try_from(parsed.payload_len).unwrap_or(usize::MAX);
        TcpPacket {
            src: endpoint(parsed.src.to_bytes(), parsed.src_port),
            dst: endpoint(parsed.dst.to_bytes(), parsed.dst_port),
            vlan: parsed.vlan,
            vni: parsed.vni,
            seq: SeqNumber(parsed.seq),
            ack: SeqNumber(parsed.ack),
            flags: TcpFlags(parsed.flags),
            // Nothing captured where the frame was cut within the TCP options; what follows the payload is padding.
            payload: captured.map_or(&[], |rest| rest.get(..len).unwrap_or(rest)),
            payload_len: parsed.payload_len,
        }
    }
}

const fn endpoint(addr: [u8; 16], port: u16) -> Endpoint {
    Endpoint { addr: Ipv6Addr::from_octets(addr), port }
}

#[cfg(test)]
mod tests {
    use etherparse::{EtherType, LinuxSllPacketType, PacketBuilder, PacketBuilderStep, TcpHeader, VlanId};
    use proptest::prelude::*;

    use super::*;

    const ETHERNET: LinkType = LinkType(1);
    const LINK_TYPES: [u16; 9] = [0, 1, 12, 14, 101, 108, 113, 228, 276];

    #[test]
    fn packet_is_found_behind_each_link_layer() {
        let v4 = ip_packet(PacketBuilder::ipv4([192, 0, 2, 1], [192, 0, 2, 2], 64).tcp(4000, 80, 7, 100));
        let v6 = ip_packet(PacketBuilder::ipv6([1; 16], [2; 16], 64).tcp(4000, 80, 7, 100));
        let sll2 = |ether_type: u16| [&ether_type.to_be_bytes()[..], &[0; 18]].concat();
        let cases: &[(u16, Vec<u8>, &[u8])] = &[
            (0, 2_u32.to_le_bytes().into(), &v4),
            (0, 2_u32.to_be_bytes().into(), &v4),
            (0, 30_u32.to_le_bytes().into(), &v6),
            (108, 24_u32.to_be_bytes().into(), &v6),
            (12, vec![], &v4),
            (14, vec![], &v4),
            (101, vec![], &v6),
            (228, vec![], &v4),
            (229, vec![], &v6),
            (276, sll2(0x0800), &v4),
            (276, [sll2(0x8100), vec![0, 5, 0x86, 0xdd]].concat(), &v6),
        ];
        for (link_type, header, ip) in cases {
            let bytes = [header, *ip].concat();
            let packet = parse(LinkType(*link_type), &bytes).unwrap();
            assert_eq!((packet.src.port, packet.dst.port), (4000, 80), "link type {link_type}");
            assert_eq!((packet.payload, packet.payload_len), (&b"hello"[..], 5), "link type {link_type}");
            assert_eq!(packet.seq, SeqNumber(7), "link type {link_type}");
        }
    }

    #[test]
    fn packet_is_found_behind_a_cooked_header() {
        let builder = PacketBuilder::linux_sll(LinuxSllPacketType::HOST, 6, [1, 2, 3, 4, 5, 6, 0, 0])
            .ipv4([192, 0, 2, 1], [192, 0, 2, 2], 64)
            .tcp(4000, 80, 7, 100);
        let bytes = ip_packet(builder);
        assert_eq!(parse(LinkType(113), &bytes).unwrap().payload, b"hello");
    }

    #[test]
    fn vlan_tags_are_part_of_the_packet() {
        let bytes = ip_packet(
            PacketBuilder::ethernet2([1; 6], [2; 6])
                .double_vlan(VlanId::try_new(10).unwrap(), VlanId::try_new(20).unwrap())
                .ipv4([192, 0, 2, 1], [192, 0, 2, 2], 64)
                .tcp(4000, 80, 7, 100),
        );
        let packet = parse(ETHERNET, &bytes).unwrap();
        assert_eq!((packet.payload, packet.vlan), (&b"hello"[..], 10 | 20 << 16));
    }

    #[test]
    fn packet_is_found_behind_a_length_and_snap_in_tags_or_none() {
        const SNAP: [u8; 8] = [0xaa, 0xaa, 3, 0, 0, 0, 8, 0];
        let ip = ip_packet(PacketBuilder::ipv4([192, 0, 2, 1], [192, 0, 2, 2], 64).tcp(4000, 80, 7, 100));
        let found = |tags: &[u8], length: u16, llc: &[u8]| {
            let bytes = [&[1; 12], tags, &length.to_be_bytes(), llc, &ip].concat();
            parse(ETHERNET, &bytes).map(|packet| (packet.vlan, packet.payload.to_vec()))
        };
        let tags = [0x88, 0xa8, 0, 10, 0x81, 0, 0x60, 20];
        for (tags, vlan) in [(&tags[..0], 0), (&tags[4..], 20), (&tags[..], 10 | 20 << 16)] {
            assert_eq!(found(tags, 53, &SNAP), Ok((vlan, b"hello".to_vec())), "{tags:?}");
            assert_eq!(found(tags, 1500, &SNAP), Ok((vlan, b"hello".to_vec())), "{tags:?}");
            assert_eq!(found(tags, 1501, &SNAP), Err(FrameReason::NotIp), "{tags:?}");
            assert_eq!(found(tags, 53, &[0x42, 0x42, 3, 0, 0, 0, 8, 0]), Err(FrameReason::NotIp), "{tags:?}");
        }
        // The outer two are kept of any number.
        let many = tags.repeat(3);
        assert_eq!(found(&many, 53, &SNAP), Ok((10 | 20 << 16, b"hello".to_vec())));
        assert_eq!(found(&tags.repeat(15), 53, &SNAP), Err(FrameReason::TooDeep));
    }

    #[test]
    fn packet_is_found_in_a_session_of_pppoe() {
        let ip = ip_packet(PacketBuilder::ipv4([192, 0, 2, 1], [192, 0, 2, 2], 64).tcp(4000, 80, 7, 100));
        let found = |tags: &[u8], protocol: &[u8]| {
            let session = [&[0x88, 0x64, 0x11, 0, 0, 1, 0, 47], protocol, &ip].concat();
            let bytes = [&[1; 12], tags, &session].concat();
            parse(ETHERNET, &bytes).map(|packet| (packet.vlan, packet.payload.to_vec()))
        };
        assert_eq!(found(&[], &[0, 0x21]), Ok((0, b"hello".to_vec())));
        assert_eq!(found(&[0x81, 0, 0, 20], &[0x21]), Ok((20, b"hello".to_vec())));
        // LCP.
        assert_eq!(found(&[], &[0xc0, 0x21]), Err(FrameReason::NotIp));
    }

    #[test]
    fn payload_not_captured_still_has_its_length() {
        let bytes = ethernet();
        let headers = bytes.len() - 5;
        for captured in headers..bytes.len() {
            let frame = Frame {
                link_type: ETHERNET,
                bytes: &bytes[..captured],
                wire_len: u32::try_from(bytes.len()).unwrap(),
            };
            let packet = frame.parse().unwrap();
            assert_eq!((packet.payload, packet.payload_len), (&b"hello"[..captured - headers], 5));
        }
    }

    #[test]
    fn padding_is_not_payload() {
        let bytes = [ethernet(), vec![0; 9]].concat();
        assert_eq!(parse(ETHERNET, &bytes).unwrap().payload, b"hello");
    }

    #[test]
    fn frames_without_tcp_have_their_reasons() {
        let udp = {
            let mut bytes = Vec::new();
            let builder = PacketBuilder::ipv4([192, 0, 2, 1], [192, 0, 2, 2], 64).udp(53, 53);
            builder.write(&mut bytes, b"hello").unwrap();
            bytes
        };
        let mut fragment =
            ip_packet(PacketBuilder::ipv4([192, 0, 2, 1], [192, 0, 2, 2], 64).tcp(4000, 80, 7, 100));
        fragment[6] = 0x20;
        let arp = [&[0; 12][..], &EtherType::ARP.0.to_be_bytes(), &[0; 28]].concat();
        let cases: &[(u16, &[u8], FrameReason)] = &[
            (101, &udp, FrameReason::NotTcp),
            (101, &fragment, FrameReason::Fragment),
            (101, &[0x50; 40], FrameReason::NotIp),
            (1, &arp, FrameReason::NotIp),
            (0, &[1, 2, 3, 4, 5], FrameReason::NotIp),
            (147, &ethernet(), FrameReason::LinkType),
            (113, &[0; 15], FrameReason::Truncated),
            (276, &[8], FrameReason::Truncated),
            (0, &[2, 0, 0], FrameReason::Truncated),
        ];
        for (link_type, bytes, reason) in cases {
            assert_eq!(parse(LinkType(*link_type), bytes), Err(*reason), "link type {link_type}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_or_refused(
            link_type in prop::sample::select(&LINK_TYPES[..]),
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            wire_len: u32,
        ) {
            check(&Frame { link_type: LinkType(link_type), bytes: &bytes, wire_len });
        }

        #[test]
        fn any_damage_and_any_cut_is_parsed_or_refused(
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
            cut in 0_usize..80,
            wire_len in 0_u32..100,
        ) {
            let mut bytes = ethernet();
            for (at, value) in damage {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            bytes.truncate(cut);
            check(&Frame { link_type: ETHERNET, bytes: &bytes, wire_len });
        }
    }

    fn check(frame: &Frame<'_>) {
        if let Ok(packet) = frame.parse() {
            assert!(packet.payload.len() <= usize::try_from(packet.payload_len).unwrap());
        }
    }

    fn parse(link_type: LinkType, bytes: &[u8]) -> Result<TcpPacket<'_>, FrameReason> {
        Frame { link_type, bytes, wire_len: 0 }.parse()
    }

    fn ethernet() -> Vec<u8> {
        ip_packet(
            PacketBuilder::ethernet2([1; 6], [2; 6])
                .ipv4([192, 0, 2, 1], [192, 0, 2, 2], 64)
                .tcp(4000, 80, 7, 100),
        )
    }

    fn ip_packet(builder: PacketBuilderStep<TcpHeader>) -> Vec<u8> {
        let mut bytes = Vec::new();
        builder.write(&mut bytes, b"hello").unwrap();
        bytes
    }
}
