//! Enters: a frame of any link type, perhaps cut. Leaves: a panic where the parser contradicts itself.

use mirror_agent::pipeline::frame::{Frame, FrameReason, LinkType, TcpPacket};
use mirror_common::packet::{self, CapturedBytes, PacketBytes as _, Start, Unparsed};

use crate::input::Input;

/// Link types that are read, and one that is not.
const LINK_TYPES: [u16; 11] = [1, 101, 113, 276, 0, 108, 12, 14, 228, 229, 105];

/// A frame is parsed or refused; a shorter capture of it gives the same packet with less payload, or is truncated;
/// and an IP packet is the same bare and behind an Ethernet header.
pub(crate) fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let link_type = LinkType(LINK_TYPES[usize::from(input.byte()) % LINK_TYPES.len()]);
    let more_on_the_wire = u32::from(input.byte()) * 8;
    let cut = usize::from(input.word());
    let offset = u32::from(input.byte());
    let frame = input.rest();

    let wire_len = len_of(frame).saturating_add(more_on_the_wire);
    let whole = parse(link_type, frame, wire_len);
    if let Ok(packet) = &whole {
        check(packet, frame);
    }
    let mut parsed = parse(link_type, &frame[..cut.min(frame.len())], wire_len);
    if parsed == Err(FrameReason::NotTcp) && whole != parsed {
        // UDP is taken for a tunnel by its port alone: without that it is what most UDP is. It may be missing with the end of
        // the IP header, of which nothing is read.
        let cut = cut.saturating_add(IP_OPTIONS_LEN + UDP_PORTS_LEN).min(frame.len());
        parsed = parse(link_type, &frame[..cut], wire_len);
    }
    compare_with_cut(&whole, &parsed);
    compare_behind_ethernet(frame, wire_len);
    parse_anywhere(frame, wire_len, offset);
}

/// Most bytes of options of an IPv4 header.
const IP_OPTIONS_LEN: usize = 40;

/// Length of the two ports of a UDP header in bytes.
const UDP_PORTS_LEN: usize = 4;

fn parse(link_type: LinkType, bytes: &[u8], wire_len: u32) -> Result<TcpPacket<'_>, FrameReason> {
    Frame { link_type, bytes, wire_len }.parse()
}

fn check(packet: &TcpPacket<'_>, frame: &[u8]) {
    assert!(len_of(packet.payload) <= packet.payload_len, "more payload than there was on the wire");
    if !packet.payload.is_empty() {
        let (payload, frame) = (packet.payload.as_ptr_range(), frame.as_ptr_range());
        assert!(frame.start < payload.start && payload.end <= frame.end, "payload from outside of the frame");
    }
}

fn compare_with_cut(whole: &Result<TcpPacket<'_>, FrameReason>, cut: &Result<TcpPacket<'_>, FrameReason>) {
    match (whole, cut) {
        (_, Err(FrameReason::Truncated)) => {}
        (Ok(whole), Ok(cut)) => {
            assert!(whole.payload.starts_with(cut.payload), "a cut changes the payload");
            assert_eq!(TcpPacket { payload: &[], ..*whole }, TcpPacket { payload: &[], ..*cut });
        }
        (whole, cut) => assert_eq!(whole, cut, "a cut changes what the frame is taken for"),
    }
}

fn compare_behind_ethernet(ip: &[u8], wire_len: u32) {
    let ether_type: u16 = match ip.first().map(|byte| byte >> 4) {
        Some(4) => 0x0800,
        Some(6) => 0x86dd,
        _ => return,
    };
    let frame = [&[0; 12], &ether_type.to_be_bytes()[..], ip].concat();
    let bare = parse(LinkType(101), ip, wire_len);
    let framed = parse(LinkType(1), &frame, wire_len.saturating_add(packet::ETHERNET_LEN));
    assert_eq!(bare, framed, "an Ethernet header makes a difference");
}

/// The parser alone, at any offset, the short way too: what the short way finds is what the long way finds.
fn parse_anywhere(bytes: &[u8], wire_len: u32, offset: u32) {
    let captured = CapturedBytes::new(bytes, wire_len);
    let tag = (offset & 1 == 1).then(|| u16::try_from(offset).unwrap_or(0));
    for start in [Start::Ethernet, Start::Ip, Start::EtherType(0x0800), Start::EtherType(0x8100)] {
        if let Ok(packet) = packet::parse(&captured, offset, start, tag) {
            let end = packet.payload_offset.checked_add(packet.payload_len);
            assert!(
                end.is_some_and(|end| end <= captured.wire_len()),
                "a payload that ends behind the packet"
            );
            assert!(packet.payload_offset > offset);
        }
    }
    match (packet::parse_plain(&captured, tag), packet::parse(&captured, 0, Start::Ethernet, tag)) {
        (Ok(plain), full) => assert_eq!(Ok(plain), full, "the short way finds something else"),
        // It follows no more than one header of each kind, and looks into no tunnel.
        (Err(Unparsed::TooDeep | Unparsed::NotTcp | Unparsed::Tunnel), _) => {}
        (Err(plain), full) => assert!(full.is_err(), "the short way gives up with {plain:?}"),
    }
}

fn len_of(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}
