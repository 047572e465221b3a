//! Enters: a frame, and what the kernel program was told. Leaves: what it has to do with the frame.
//!
//! Where a segment is and what its header says comes from the parser that reads capture files. The rules of matching
//! and of cutting segments into records are written down here a second time.

use std::collections::{BTreeMap, HashSet};

use mirror_agent::pipeline::frame::{Frame, FrameReason, LinkType};
use mirror_common::maps::{
    ConnectionFlags, KernelConfig, PortSample, STATUS_PEEK_BYTES, SampleLane, SocketKey, program, ring_index,
};
use mirror_common::packet::{
    Address, CapturedBytes, FirstFragment, FragmentKey, Innermost, Start, TcpPacket, Unparsed, UsualPorts,
    find_innermost, parse, tcp_flag,
};
use mirror_common::sample::{connection_draw, is_in_share};
use mirror_common::unread::{LEAST_UNREAD_SEGMENT, UnreadKey, UnreadRun};
use mirror_common::{Counter, RecordFlags, RecordHeader, RecordSide};
use mirror_tests::classifier::Counts;

/// Payload of the largest record: 16 KiB with the header.
const LARGEST_PAYLOAD: usize = 16_384 - RecordHeader::LEN;

/// What the program was told.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rules {
    pub(crate) config: KernelConfig,
    pub(crate) ports: HashSet<u16>,
    /// Ports of which the answers are read.
    pub(crate) answer_ports: HashSet<u16>,
    /// Prefix lengths and addresses, v4-mapped.
    pub(crate) networks: Vec<(u32, [u8; 16])>,
    pub(crate) own: HashSet<SocketKey>,
    /// Of which connections to a port segments are copied.
    pub(crate) samples: Vec<(u16, PortSample)>,
    /// A run of one flow that nobody reads.
    pub(crate) unread: Option<(UnreadKey, UnreadRun)>,
}

/// A frame as it stands at a hook.
#[derive(Clone, Debug)]
pub(crate) struct Passing {
    pub(crate) bytes: Vec<u8>,
    pub(crate) start: Start,
    /// Control information of a tag that the kernel took off.
    pub(crate) tag: Option<u16>,
    /// The socket mark.
    pub(crate) mark: u32,
    /// How many bytes are in the linear part; the program need not look at more before it knows the ports.
    pub(crate) linear: usize,
}

impl Passing {
    /// An Ethernet frame, all of it linear.
    pub(crate) fn ethernet(bytes: &[u8], mark: u32) -> Self {
        Self { bytes: bytes.to_vec(), start: Start::Ethernet, tag: None, mark, linear: bytes.len() }
    }
}

/// The first fragments that have passed at a hook.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fragments(BTreeMap<FragmentKey, FirstFragment>);

impl Fragments {
    /// Finds the segment of a frame, or the part of one.
    fn parse(&mut self, frame: &Passing) -> Result<TcpPacket, Unparsed> {
        let bytes = CapturedBytes::whole(&frame.bytes);
        let network = match find_innermost(&bytes, 0, frame.start, frame.tag, &UsualPorts)? {
            Innermost::Segment(packet) => return Ok(packet),
            Innermost::Fragment(network) => network,
        };
        // There is one interface.
        let key = network.fragment_key(0);
        if network.fragment_offset == 0 {
            let (packet, first) = FirstFragment::open(&bytes, &network)?;
            self.0.insert(key, first);
            return Ok(packet);
        }
        let first = self.0.get_mut(&key).ok_or(Unparsed::Fragment)?;
        let packet = first.segment_of(&bytes, &network)?;
        if first.is_complete() {
            self.0.remove(&key);
        }
        Ok(packet)
    }

    /// Forgets all of them.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}

/// What came of a frame.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Verdict {
    /// The ring, the header without time and interface, and the payload of each record.
    pub(crate) records: Vec<(usize, RecordHeader, Vec<u8>)>,
    /// How far each counter moved.
    pub(crate) counts: Counts,
}

impl Verdict {
    fn counted(counter: Counter) -> Self {
        let mut verdict = Self::default();
        verdict.counts[counter as usize] = 1;
        verdict
    }
}

impl Rules {
    /// What the program of this name has to do. To be asked once for each time that the frame passes.
    pub(crate) fn verdict(&self, fragments: &mut Fragments, name: &str, frame: &Passing) -> Verdict {
        if self.config.paused != 0 {
            return Verdict::default();
        }
        let packet = match fragments.parse(frame) {
            Ok(packet) => packet,
            Err(reason) => return self.refusal(name, frame, reason),
        };
        let Some(side) = self.side(name, packet.src_port, packet.dst_port) else { return Verdict::default() };
        let opens_or_ends = packet.flags & (tcp_flag::SYN | tcp_flag::FIN | tcp_flag::RST) != 0;
        if packet.payload_len == 0 && !opens_or_ends {
            return Verdict::default();
        }
        let is_own =
            |addr: Address, port| self.own.contains(&SocketKey { addr: addr.to_bytes(), port, reserved: 0 });
        let is_marked = self.config.own_mark != 0 && self.config.own_mark == frame.mark;
        if is_marked || is_own(packet.src, packet.src_port) || is_own(packet.dst, packet.dst_port) {
            return Verdict::counted(Counter::Own);
        }
        let server = if side == RecordSide::Client { packet.dst.to_bytes() } else { packet.src.to_bytes() };
        if self.config.match_addresses != 0 && !self.networks.iter().any(|network| holds(*network, server)) {
            return Verdict::default();
        }
        if self.is_sampled_out(&packet, side) {
            let is_start = packet.flags & (tcp_flag::SYN | tcp_flag::ACK) == tcp_flag::SYN;
            let counts = is_start && side == RecordSide::Client;
            return if counts { Verdict::counted(Counter::SampledOut) } else { Verdict::default() };
        }
        self.copied(frame, &packet, side)
    }

    fn is_sampled_out(&self, packet: &TcpPacket, side: RecordSide) -> bool {
        let (client, client_port, server_port) = match side {
            RecordSide::Client => (packet.src, packet.src_port, packet.dst_port),
            RecordSide::Server => (packet.dst, packet.dst_port, packet.src_port),
        };
        let of_port = self.samples.iter().find(|(port, _)| *port == server_port);
        self.config.connections & ConnectionFlags::SAMPLED != 0
            && of_port.is_some_and(|(_, sample)| {
                let is_in = |lane: &SampleLane| {
                    is_in_share(connection_draw(lane.key, client.to_bytes(), client_port), lane.millionths)
                };
                !sample.lanes.iter().any(is_in)
            })
    }

    /// What comes of a frame without a segment: counted by its reason, unless the ports of the plain layout show that
    /// it is not ours, or it cannot be.
    fn refusal(&self, name: &str, frame: &Passing, reason: Unparsed) -> Verdict {
        let counter = match reason {
            Unparsed::NotIp | Unparsed::NotTcp => return Verdict::default(),
            Unparsed::Fragment => Counter::Fragment,
            Unparsed::Truncated | Unparsed::Malformed => Counter::Malformed,
            Unparsed::TooDeep => Counter::TooDeep,
            Unparsed::Tunnel => Counter::Tunnel,
        };
        match plain_ports(frame) {
            Some((src, dst)) if self.side(name, src, dst).is_none() => Verdict::default(),
            _ => Verdict::counted(counter),
        }
    }

    fn side(&self, name: &str, src_port: u16, dst_port: u16) -> Option<RecordSide> {
        if name != program::RESPONSES && self.ports.contains(&dst_port) {
            return Some(RecordSide::Client);
        }
        (name != program::REQUESTS && self.ports.contains(&src_port)).then_some(RecordSide::Server)
    }

    fn copied(&self, frame: &Passing, packet: &TcpPacket, side: RecordSide) -> Verdict {
        let from = usize::try_from(packet.payload_offset).unwrap();
        let payload = &frame.bytes[from..from + usize::try_from(packet.payload_len).unwrap()];
        let is_client = side == RecordSide::Client;
        let whole = RecordHeader {
            timestamp_ns: 0,
            client_addr: if is_client { packet.src } else { packet.dst }.to_bytes(),
            server_addr: if is_client { packet.dst } else { packet.src }.to_bytes(),
            client_port: if is_client { packet.src_port } else { packet.dst_port },
            server_port: if is_client { packet.dst_port } else { packet.src_port },
            vlan: packet.vlan,
            vni: packet.vni,
            ifindex: 0,
            seq: packet.seq,
            ack: packet.ack,
            payload_len: packet.payload_len,
            captured_len: packet.payload_len,
            tcp_flags: packet.flags,
            side: side as u8,
            flags: 0,
            reserved: 0,
        };
        let ring = ring_index(&whole.client_addr, whole.client_port, self.config.rings);
        let ring = usize::try_from(ring).unwrap();
        let is_read = self.config.copy_responses != 0 && self.answer_ports.contains(&packet.src_port);
        let is_unread = !is_client && is_read && self.is_unread(&whole);
        let records = if is_client || (is_read && !is_unread) {
            parts(&whole, payload)
        } else {
            let peek = payload.len().min(usize::try_from(STATUS_PEEK_BYTES).unwrap());
            let peek = if payload.starts_with(b"HTTP/") { &payload[..peek] } else { &[] };
            let captured_len = u32::try_from(peek.len()).unwrap();
            let flags = if captured_len < whole.payload_len { RecordFlags::NOT_COPIED } else { 0 };
            vec![(RecordHeader { captured_len, flags, ..whole }, peek.to_vec())]
        };
        let counter = if is_client { Counter::CopiedClient } else { Counter::CopiedServer };
        let mut verdict = Verdict::counted(counter);
        verdict.records = records.into_iter().map(|(header, payload)| (ring, header, payload)).collect();
        verdict.counts[Counter::Unread as usize] = u64::from(is_unread);
        verdict
    }

    /// Whether a segment worth the question lies in what nobody reads.
    fn is_unread(&self, whole: &RecordHeader) -> bool {
        let ahead_of = |run: &UnreadRun| u64::from(whole.seq.wrapping_sub(run.seq));
        whole.payload_len >= LEAST_UNREAD_SEGMENT
            && self.unread.as_ref().is_some_and(|(key, run)| {
                *key == UnreadKey::of(whole)
                    && ahead_of(run) + u64::from(whole.payload_len) <= u64::from(run.len)
            })
    }
}

/// Cuts a segment into records.
fn parts(whole: &RecordHeader, payload: &[u8]) -> Vec<(RecordHeader, Vec<u8>)> {
    let ends = tcp_flag::FIN | tcp_flag::RST | tcp_flag::PSH;
    let count = payload.len().div_ceil(LARGEST_PAYLOAD).max(1);
    let syn = u32::from(whole.tcp_flags & tcp_flag::SYN != 0);
    let part = |index: usize| {
        let offset = index * LARGEST_PAYLOAD;
        let part = &payload[offset..payload.len().min(offset + LARGEST_PAYLOAD)];
        let len = u32::try_from(part.len()).unwrap();
        let mut header = RecordHeader { payload_len: len, captured_len: len, ..*whole };
        if index > 0 {
            header.seq = whole.seq.wrapping_add(syn).wrapping_add(u32::try_from(offset).unwrap());
            header.tcp_flags &= !tcp_flag::SYN;
        }
        if index + 1 < count {
            header.tcp_flags &= !ends;
        }
        (header, part.to_vec())
    };
    (0..count).map(part).collect()
}

fn holds((prefix_len, network): (u32, [u8; 16]), addr: [u8; 16]) -> bool {
    let differing = u128::from_be_bytes(network) ^ u128::from_be_bytes(addr);
    differing.leading_zeros() >= prefix_len
}

/// The ports of a packet that is TCP right after an Ethernet and an IP header without options, be it cut short or unsound
/// after them. These are known before anything else is, so that a packet of other ports is nobody's loss.
fn plain_ports(frame: &Passing) -> Option<(u16, u16)> {
    let bytes = frame.bytes.get(..frame.linear)?;
    if frame.start != Start::Ethernet || bytes.len() < 38 {
        return None;
    }
    let half = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    let at = match half(12) {
        0x0800 if bytes[14] == 0x45 && bytes[23] == 6 && half(20) & 0x3fff == 0 => 34,
        0x86dd if bytes.len() >= 58 && bytes[14] >> 4 == 6 && bytes[20] == 6 => 54,
        _ => return None,
    };
    Some((half(at), half(at + 2)))
}

/// What the two parsers of user space make of a frame: the one of packets, and the one of frames in files.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum InUserSpace {
    /// They say the same.
    Same,
    /// The frame holds something that files alone are searched behind, and there they say different things.
    Deeper,
    /// They differ, in this.
    Different(String),
}

pub(crate) fn in_user_space(bytes: &[u8]) -> InUserSpace {
    let wire_len = u32::try_from(bytes.len()).unwrap();
    let frame = Frame { link_type: LinkType(1), bytes, wire_len }.parse();
    let packet = parse(&CapturedBytes::whole(bytes), 0, Start::Ethernet, None);
    let is_same = match (&frame, &packet) {
        (Ok(frame), Ok(packet)) => {
            let from = usize::try_from(packet.payload_offset).unwrap();
            let payload = &bytes[from..from + usize::try_from(packet.payload_len).unwrap()];
            frame.src.addr.octets() == packet.src.to_bytes()
                && frame.dst.addr.octets() == packet.dst.to_bytes()
                && (frame.src.port, frame.dst.port) == (packet.src_port, packet.dst_port)
                && (frame.vlan, frame.vni) == (packet.vlan, packet.vni)
                && (frame.seq.0, frame.ack.0, frame.flags.0) == (packet.seq, packet.ack, packet.flags)
                && (frame.payload, frame.payload_len) == (payload, packet.payload_len)
        }
        (Err(frame), Err(packet)) => *frame == (*packet).into(),
        _ => false,
    };
    if is_same {
        return InUserSpace::Same;
    }
    let is_deeper = match (&frame, &packet) {
        (_, Err(Unparsed::NotIp)) => may_hold(bytes, &LOWER_HEADERS) || may_be_behind_llc(bytes),
        // Parts of what may be a tunnel are put together, whatever its ports.
        (Err(FrameReason::Fragment), Err(Unparsed::NotTcp | Unparsed::Fragment)) => true,
        (_, Err(Unparsed::NotTcp)) => may_hold(bytes, &PORTS) || ip_headers(bytes, &PROTOCOLS) > 0,
        (_, Err(Unparsed::Tunnel)) => {
            // GRE whose list of routes is empty is one of them.
            let may_hold_route =
                || ip_headers(bytes, &[GRE]) > 0 && bytes.windows(4).any(|some| some == [0; 4]);
            may_hold(bytes, &TUNNELS)
                || may_hold(bytes, &LABELS)
                || ip_headers(bytes, &CARRIERS) > 2
                || may_hold_route()
        }
        (_, Err(Unparsed::TooDeep)) => may_hold(bytes, &TAGS) || may_hold(bytes, &LABELS),
        _ => false,
    };
    if is_deeper {
        return InUserSpace::Deeper;
    }
    InUserSpace::Different(format!("frame: {frame:?}\npacket: {packet:?}"))
}

/// EtherTypes of headers that files alone are searched behind: Cisco metadata, E-tag, HSR, R-tag, MACsec, backbone, TRILL, LLC
/// in long packets, PPP.
const LOWER_HEADERS: [u16; 9] = [0x8909, 0x893f, 0x892f, 0xf1c1, 0x88e5, 0x88e7, 0x22f3, 0x8870, 0x880b];

/// Those of tunnels that files alone are searched in: PPPoE, NSH, ERSPAN, WCCP, PPP and Ethernet in GRE of version 1.
const TUNNELS: [u16; 7] = [0x8864, 0x894f, 0x88be, 0x22eb, 0x883e, 0x880b, 0x6400];

/// Those of tags and of labels, of which files may have any number.
const TAGS: [u16; 4] = [0x8100, 0x88a8, 0x9100, 0x9200];
const LABELS: [u16; 2] = [0x8847, 0x8848];

/// Ports of UDP that files alone are searched behind: GTP, LISP, L2TP, AYIYA, Teredo, MPLS, VXLAN-GPE, CAPWAP, TZSP.
const PORTS: [u16; 10] = [2152, 3386, 4341, 1701, 5072, 3544, 6635, 4790, 5247, 37_008];

/// What IP carries that files alone are searched in: GRE of other kinds, an authentication header, Ethernet, MPLS.
const PROTOCOLS: [u8; 4] = [GRE, 51, 97, 137];
const GRE: u8 = 47;

/// Whether any of these numbers is somewhere in a frame.
fn may_hold(bytes: &[u8], numbers: &[u16]) -> bool {
    bytes.windows(2).any(|pair| numbers.contains(&u16::from_be_bytes([pair[0], pair[1]])))
}

/// Whether there may be LLC (IEEE 802.2) that announces IP or SNAP somewhere in a frame.
fn may_be_behind_llc(bytes: &[u8]) -> bool {
    bytes.windows(3).any(|three| matches!(three, [0xaa, 0xaa, 3] | [6, 6, 3]))
}

/// What IP carries when it carries more of it, or TCP: the above, IP, TCP, UDP, and headers that stand before them.
const CARRIERS: [u8; 12] = [47, 51, 97, 137, 4, 41, 6, 17, 0, 43, 44, 60];

/// How many places of a frame may be headers of IP that announce one of `protocols`, at once or behind extensions.
fn ip_headers(bytes: &[u8], protocols: &[u8]) -> usize {
    let announced = |from: usize| -> Option<u8> {
        match bytes[from] {
            0x45..=0x4f => bytes.get(from + 9).copied(),
            0x60..=0x6f => {
                let (mut protocol, mut at) = (*bytes.get(from + 6)?, from + 40);
                // Hop by hop, routing, fragment, destination options, mobility, HIP, shim6 (IANA's list of such headers).
                while !protocols.contains(&protocol) && matches!(protocol, 0 | 43 | 44 | 60 | 135 | 139 | 140)
                {
                    let units = if protocol == 44 { 0 } else { usize::from(*bytes.get(at + 1)?) };
                    (protocol, at) = (*bytes.get(at)?, at + 8 * (units + 1));
                }
                Some(protocol)
            }
            _ => None,
        }
    };
    (0..bytes.len()).filter(|from| announced(*from).is_some_and(|one| protocols.contains(&one))).count()
}

#[test]
fn headers_of_ip_are_counted_by_what_they_announce() {
    let v4 = |protocol| [&[0x45][..], &[0; 8], &[protocol], &[0; 10]].concat();
    let v6 = |next: &[u8]| [&[0x60, 0, 0, 0, 0, 0], &next[..1], &[0; 33], &next[1..]].concat();
    assert_eq!(ip_headers(&[v4(47), v4(6), v4(47)].concat(), &[47]), 2);
    assert_eq!(ip_headers(&v6(&[51]), &[51]), 1);
    // A destination option of 16 bytes before it; one that ends early.
    let options = [&[60, 47, 1][..], &[0; 14]].concat();
    assert_eq!((ip_headers(&v6(&options), &[47]), ip_headers(&v6(&[60]), &[47])), (1, 0));
}
