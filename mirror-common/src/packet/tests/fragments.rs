//! Enters: fragments, and what the first of a packet said. Leaves: nothing; the parts of a segment that they are.

extern crate std;

use std::vec::Vec;

use super::{TCP, UDP, extension, frame, ipv4, ipv6, join, tcp};
use crate::packet::{
    CapturedBytes, FirstFragment, Innermost, Network, Start, TcpPacket, Unparsed, UsualPorts, find_innermost,
};

const HAS_MORE: u16 = 1;

#[test]
fn extension_headers_in_the_first_fragment_count_towards_offsets() {
    let part = join(&extension(TCP, 1), &tcp(&[1; 4], b"hello, hello"));
    let (first, later) = part.split_at(48);
    let (packet, mut kept) = open(&v6(60, HAS_MORE, first)).unwrap();
    let rest = follow(&mut kept, &v6(60, 48, later)).unwrap();

    assert_eq!((packet.dst_port, packet.seq, packet.payload_len), (80, 0x0102_0304, 8));
    assert_eq!((rest.dst_port, rest.seq, rest.payload_len), (80, 0x0102_0304 + 8, 4));
    assert_eq!((packet.flags, rest.flags), (0x10, 0x18));
    assert!(kept.is_complete());
}

#[test]
fn last_fragment_before_the_others_does_not_complete_the_packet() {
    let segment = tcp(&[], &[7; 100]);
    let (_, mut kept) = open(&v4(HAS_MORE, &segment[..40])).unwrap();

    follow(&mut kept, &v4(80, &segment[80..])).unwrap();
    assert!(!kept.is_complete());
    follow(&mut kept, &v4(40 | HAS_MORE, &segment[40..80])).unwrap();
    assert!(kept.is_complete());
}

#[test]
fn sequence_number_goes_round() {
    let mut segment = tcp(&[], &[7; 100]);
    segment[4..8].fill(0xff);
    let (_, mut kept) = open(&v4(HAS_MORE, &segment[..40])).unwrap();

    assert_eq!(follow(&mut kept, &v4(40, &segment[40..])).map(|p| p.seq), Ok(19));
}

#[test]
fn fragment_that_cannot_be_placed_is_refused() {
    let segment = tcp(&[1; 20], &[7; 100]);
    let (_, mut kept) = open(&v4(HAS_MORE, &segment[..48])).unwrap();
    let mut cut = v4(48, &segment[48..]);
    cut[16] = 0xff;

    assert_eq!(open(&v4(HAS_MORE, &segment[..16])).map(|_| ()), Err(Unparsed::Fragment));
    assert_eq!(open(&v4(HAS_MORE, &segment[..32])).map(|_| ()), Err(Unparsed::Fragment), "in its options");
    assert_eq!(follow(&mut kept, &v4(32, &segment[32..])), Err(Unparsed::Fragment), "in the header");
    assert_eq!(follow(&mut kept, &cut).map(|p| p.payload_len), Ok(92), "cut in the capture");
    let network = network(&v4(48, &segment[48..])).unwrap();
    let short = CapturedBytes::whole(&segment[..20]);
    assert_eq!(kept.segment_of(&short, &network), Err(Unparsed::Truncated));
}

#[test]
fn only_what_may_be_tcp_is_followed() {
    let innermost = |bytes: &[u8]| network(bytes).map(|network| network.is_tcp_fragment());
    let mut udp = ipv4(&[], UDP, &[0; 40]);
    udp[6] = 0x20;

    assert_eq!(innermost(&frame(0x0800, &udp)), Err(Unparsed::NotTcp));
    assert_eq!(innermost(&v6(UDP, 48, &[0; 16])), Err(Unparsed::NotTcp));
    assert_eq!(innermost(&v6(47, 48, &[0; 16])), Err(Unparsed::Fragment), "a tunnel");
    assert_eq!(innermost(&v6(60, 48, &[0; 16])), Ok(true));
    assert_eq!(innermost(&v4(48, &[0; 16])), Ok(true));
}

#[test]
fn packets_are_told_apart_by_identification_addresses_and_network() {
    let bytes = v4(48, &[0; 16]);
    let patched = |at: usize| {
        let mut bytes = bytes.clone();
        bytes[at] ^= 1;
        network(&bytes).unwrap().fragment_key(1)
    };
    let key = network(&bytes).unwrap().fragment_key(1);

    assert_eq!(network(&v4(8, &[0; 8])).unwrap().fragment_key(1), key);
    assert_ne!(network(&bytes).unwrap().fragment_key(2), key);
    for at in [18, 26, 30] {
        assert_ne!(patched(at), key, "byte {at}");
    }
    let tagged = frame(0x8100, &join(&[0, 5, 8, 0], &bytes[14..]));
    assert_ne!(network(&tagged).unwrap().fragment_key(1), key);
}

fn open(bytes: &[u8]) -> Result<(TcpPacket, FirstFragment), Unparsed> {
    FirstFragment::open(&CapturedBytes::whole(bytes), &network(bytes)?)
}

fn follow(first: &mut FirstFragment, bytes: &[u8]) -> Result<TcpPacket, Unparsed> {
    first.segment_of(&CapturedBytes::whole(bytes), &network(bytes)?)
}

/// The network header of a frame with a fragment that is followed.
fn network(bytes: &[u8]) -> Result<Network, Unparsed> {
    match find_innermost(&CapturedBytes::whole(bytes), 0, Start::Ethernet, None, &UsualPorts)? {
        Innermost::Fragment(network) => Ok(network),
        Innermost::Segment(packet) => panic!("{packet:?} is whole"),
    }
}

/// A frame with an IPv4 fragment; `field` is its offset in bytes, and [`HAS_MORE`].
fn v4(field: u16, part: &[u8]) -> Vec<u8> {
    let mut ip = ipv4(&[], TCP, part);
    ip[6..8].copy_from_slice(&((field & HAS_MORE) << 13 | field >> 3).to_be_bytes());
    frame(0x0800, &ip)
}

/// The same over IPv6.
fn v6(next: u8, field: u16, part: &[u8]) -> Vec<u8> {
    let [high, low] = field.to_be_bytes();
    frame(0x86dd, &ipv6(44, &join(&[next, 0, high, low, 0, 0, 0, 9], part)))
}
