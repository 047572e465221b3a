//! Enters: packets put together header by header. Leaves: nothing; the parser's facts.

mod fragments;
mod tunnels;

extern crate std;

use std::vec;
use std::vec::Vec;

use super::{CapturedBytes, Start, TcpPacket, Unparsed, ether_type, parse, parse_plain, tcp_flag, v4_mapped};

const SRC4: [u8; 4] = [192, 0, 2, 1];
const DST4: [u8; 4] = [198, 51, 100, 2];
const SRC6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const DST6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];

const TCP: u8 = 6;
const UDP: u8 = 17;

#[test]
fn ipv4_segment_is_found() {
    let packet = parse_frame(&frame(0x0800, &ipv4(&[], TCP, &tcp(&[], b"hello"))));

    assert_eq!(
        packet,
        Ok(TcpPacket {
            src: v4_mapped(SRC4).into(),
            dst: v4_mapped(DST4).into(),
            src_port: 40_000,
            dst_port: 80,
            seq: 0x0102_0304,
            ack: 0x0506_0708,
            flags: tcp_flag::PSH | tcp_flag::ACK,
            payload_offset: 54,
            payload_len: 5,
            vlan: 0,
            vni: 0,
        })
    );
}

#[test]
fn ipv6_segment_is_found() {
    let packet = parse_frame(&frame(0x86dd, &ipv6(TCP, &tcp(&[], b"hello")))).unwrap();

    assert_eq!((packet.src.to_bytes(), packet.dst.to_bytes()), (SRC6, DST6));
    assert_eq!((packet.payload_offset, packet.payload_len), (74, 5));
}

#[test]
fn options_of_ipv4_and_tcp_are_stepped_over() {
    let packet = parse_frame(&frame(0x0800, &ipv4(&[1; 8], TCP, &tcp(&[1; 12], b"hello")))).unwrap();

    assert_eq!((packet.dst_port, packet.payload_offset, packet.payload_len), (80, 74, 5));
}

#[test]
fn each_kind_of_extension_header_is_stepped_over() {
    for (kind, bytes) in [
        (0, extension(TCP, 0)),
        (43, extension(TCP, 2)),
        (60, extension(TCP, 1)),
        (51, vec![TCP, 4, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9]),
        (44, vec![TCP, 0, 0, 0, 0, 0, 0, 7]),
    ] {
        let packet = parse_frame(&frame(0x86dd, &ipv6(kind, &join(&bytes, &tcp(&[], b"hello")))));

        assert_eq!(packet.map(|p| (p.dst_port, p.payload_len)), Ok((80, 5)), "header {kind}");
    }
}

#[test]
fn extension_headers_are_followed_up_to_a_bound() {
    let chain = |count: usize| {
        let mut bytes = Vec::new();
        for i in 0..count {
            bytes.extend(extension(if i + 1 == count { TCP } else { 60 }, 0));
        }
        parse_frame(&frame(0x86dd, &ipv6(60, &join(&bytes, &tcp(&[], b""))))).map(|p| p.dst_port)
    };

    assert_eq!(chain(6), Ok(80));
    assert_eq!(chain(7), Err(Unparsed::TooDeep));
}

#[test]
fn jumbo_option_gives_the_length_and_cuts_padding() {
    let segment = tcp(&[], b"hello");
    let jumbo_len = u32::try_from(8 + segment.len()).unwrap().to_be_bytes();
    let mut header = vec![TCP, 0, 0xc2, 4];
    header.extend(jumbo_len);
    let mut ip = ipv6(0, &join(&header, &segment));
    ip[4..6].fill(0);
    ip.extend([0; 9]);

    assert_eq!(parse_frame(&frame(0x86dd, &ip)).map(|p| p.payload_len), Ok(5));
}

#[test]
fn length_zero_means_up_to_the_end_of_the_packet() {
    let payload = vec![7; 70_000];
    let mut v4 = ipv4(&[], TCP, &tcp(&[], &payload));
    v4[2..4].fill(0);
    let mut v6 = ipv6(TCP, &tcp(&[], &payload));
    v6[4..6].fill(0);

    assert_eq!(parse_frame(&frame(0x0800, &v4)).map(|p| p.payload_len), Ok(70_000));
    assert_eq!(parse_frame(&frame(0x86dd, &v6)).map(|p| p.payload_len), Ok(70_000));
}

#[test]
fn tags_are_read_outermost_first() {
    let ip = ipv4(&[], TCP, &tcp(&[], b"hello"));
    let one = frame(0x8100, &join(&[0xe0, 5, 8, 0], &ip));
    let two = frame(0x88a8, &join(&[0, 7, 0x81, 0, 0x10, 5, 8, 0], &ip));
    let three = frame(0x88a8, &join(&[0, 7, 0x81, 0, 0, 5, 0x81, 0, 0, 1, 8, 0], &ip));

    assert_eq!(parse_frame(&one).map(|p| (p.vlan, p.payload_offset)), Ok((5, 58)));
    assert_eq!(parse_frame(&two).map(|p| (p.vlan, p.payload_offset)), Ok((7 | 5 << 16, 62)));
    assert_eq!(parse_frame(&three), Err(Unparsed::TooDeep));
    assert_eq!(with_tag(&one, 9).map(|p| p.vlan), Ok(9 | 5 << 16));
    assert_eq!(with_tag(&two, 9), Err(Unparsed::TooDeep));
}

#[test]
fn priority_tag_is_no_vlan() {
    let ip = ipv4(&[], TCP, &tcp(&[], b"hello"));

    assert_eq!(parse_frame(&frame(0x8100, &join(&[0xe0, 0, 8, 0], &ip))).map(|p| p.vlan), Ok(0));
    assert_eq!(with_tag(&frame(0x8100, &join(&[0xe0, 5, 8, 0], &ip)), 0xe000).map(|p| p.vlan), Ok(5));
}

#[test]
fn short_way_agrees_where_it_succeeds() {
    let segment = tcp(&[1; 12], b"hello");
    let tagged = frame(0x8100, &join(&[0, 5, 8, 0], &ipv4(&[], TCP, &segment)));
    let plain = |bytes: &[u8]| parse_plain(&CapturedBytes::whole(bytes), Some(9));

    for bytes in [frame(0x0800, &ipv4(&[1; 4], TCP, &segment)), frame(0x86dd, &ipv6(TCP, &segment))] {
        assert_eq!(plain(&bytes), with_tag(&bytes, 9));
        assert_eq!(plain(&bytes).map(|p| p.vlan), Ok(9));
    }
    assert_eq!(plain(&tagged), Err(Unparsed::TooDeep));
    assert_eq!(plain(&frame(0x86dd, &ipv6(60, &join(&extension(TCP, 0), &segment)))), Err(Unparsed::TooDeep));
}

#[test]
fn ethernet_padding_is_no_payload() {
    let mut bytes = frame(0x0800, &ipv4(&[], TCP, &tcp(&[], b"")));
    bytes.resize(60, 0);

    assert_eq!(parse_frame(&bytes).map(|p| p.payload_len), Ok(0));
}

#[test]
fn packet_may_start_at_its_ip_header() {
    let v4 = ipv4(&[], TCP, &tcp(&[], b"hello"));
    let v6 = ipv6(TCP, &tcp(&[], b"hello"));
    let at = |bytes: &[u8], start| parse(&CapturedBytes::whole(bytes), 0, start, None);

    assert_eq!(at(&v4, Start::Ip).map(|p| (p.payload_offset, p.payload_len)), Ok((40, 5)));
    assert_eq!(at(&v6, Start::Ip).map(|p| (p.payload_offset, p.payload_len)), Ok((60, 5)));
    assert_eq!(at(&v6, Start::EtherType(ether_type::IPV6)).map(|p| p.payload_len), Ok(5));
    assert_eq!(at(&v6, Start::EtherType(ether_type::IPV4)), Err(Unparsed::Malformed));
    assert_eq!(at(&[0xff; 60], Start::Ip), Err(Unparsed::NotIp));
}

#[test]
fn offsets_count_from_the_start_of_the_bytes() {
    let bytes = join(&[0; 16], &ipv4(&[], TCP, &tcp(&[], b"hello")));
    let packet = parse(&CapturedBytes::whole(&bytes), 16, Start::EtherType(ether_type::IPV4), None);

    assert_eq!(packet.map(|p| (p.payload_offset, p.payload_len)), Ok((56, 5)));
    assert_eq!(
        parse(&CapturedBytes::whole(&bytes), u32::MAX, Start::Ethernet, None),
        Err(Unparsed::Truncated)
    );
}

#[test]
fn cut_capture_still_tells_the_length_on_the_wire() {
    let bytes = frame(0x0800, &ipv4(&[], TCP, &tcp(&[], &[7; 1000])));
    let wire_len = u32::try_from(bytes.len()).unwrap();
    let packet = parse(&CapturedBytes::new(&bytes[..96], wire_len), 0, Start::Ethernet, None);

    assert_eq!(packet.map(|p| p.payload_len), Ok(1000));
}

#[test]
fn fragments_of_tcp_are_told_from_other_fragments() {
    let v4 = |proto, field: u16| {
        let mut ip = ipv4(&[], proto, &tcp(&[], b"hello"));
        ip[6..8].copy_from_slice(&field.to_be_bytes());
        parse_frame(&frame(0x0800, &ip)).map(|p| p.dst_port)
    };
    let v6 = |next, field: u16| {
        let [high, low] = field.to_be_bytes();
        let ip = ipv6(44, &join(&[next, 0, high, low, 0, 0, 0, 1], &tcp(&[], b"hello")));
        parse_frame(&frame(0x86dd, &ip)).map(|p| p.dst_port)
    };

    assert_eq!(v4(TCP, 0x4000), Ok(80), "do not fragment");
    assert_eq!(v4(TCP, 0x2000), Err(Unparsed::Fragment));
    assert_eq!(v4(TCP, 0x0010), Err(Unparsed::Fragment));
    assert_eq!(v4(UDP, 0x2000), Err(Unparsed::NotTcp));
    assert_eq!(v6(TCP, 0x0001), Err(Unparsed::Fragment));
    assert_eq!(v6(TCP, 0x0008), Err(Unparsed::Fragment));
    assert_eq!(v6(60, 0x0008), Err(Unparsed::Fragment));
    assert_eq!(v6(UDP, 0x0001), Err(Unparsed::NotTcp));
}

#[test]
fn other_protocols_are_left_alone() {
    assert_eq!(parse_frame(&frame(0x0806, &[0; 46])), Err(Unparsed::NotIp));
    assert_eq!(parse_frame(&frame(0x0800, &ipv4(&[], UDP, &[0; 20]))), Err(Unparsed::NotTcp));
    assert_eq!(parse_frame(&frame(0x86dd, &ipv6(UDP, &[0; 20]))), Err(Unparsed::NotTcp));
    assert_eq!(parse_frame(&frame(0x86dd, &ipv6(50, &[0; 20]))), Err(Unparsed::NotTcp));
}

#[test]
fn contradictory_headers_are_malformed() {
    let patched = |ether_type, ip: &[u8], at: usize, value: u8| {
        let mut ip = ip.to_vec();
        ip[at] = value;
        parse_frame(&frame(ether_type, &ip)).map(|p| p.dst_port)
    };
    let v4 = ipv4(&[], TCP, &tcp(&[], b""));
    let v6 = ipv6(TCP, &tcp(&[], b""));

    assert_eq!(patched(0x0800, &v4, 0, 0x65), Err(Unparsed::Malformed), "version");
    assert_eq!(patched(0x0800, &v4, 0, 0x44), Err(Unparsed::Malformed), "header length");
    assert_eq!(patched(0x0800, &v4, 3, 19), Err(Unparsed::Malformed), "total length below the header");
    assert_eq!(patched(0x0800, &v4, 3, 39), Err(Unparsed::Malformed), "total length within TCP");
    assert_eq!(patched(0x0800, &v4, 32, 0x40), Err(Unparsed::Malformed), "TCP header length");
    assert_eq!(patched(0x0800, &v4, 32, 0x60), Err(Unparsed::Malformed), "TCP options past the end");
    assert_eq!(patched(0x86dd, &v6, 0, 0x40), Err(Unparsed::Malformed), "version");
    assert_eq!(patched(0x86dd, &v6, 5, 19), Err(Unparsed::Malformed), "payload length within TCP");
}

#[test]
fn packet_cut_anywhere_in_its_headers_is_truncated() {
    let tags = [0, 7, 0x81, 0, 0, 5, 0x86, 0xdd];
    let chain = join(&extension(43, 0), &join(&extension(44, 1), &[TCP, 0, 0, 0, 0, 0, 0, 1]));
    let bytes = frame(0x88a8, &join(&tags, &ipv6(0, &join(&chain, &tcp(&[1; 8], b"hello")))));
    let payload_offset = bytes.len() - 5;

    for len in 0..bytes.len() {
        let packet = parse_frame(&bytes[..len]);
        if len < payload_offset {
            assert_eq!(packet, Err(Unparsed::Truncated), "{len} bytes");
        } else {
            let expected = u32::try_from(len - payload_offset).unwrap();
            assert_eq!(packet.map(|p| p.payload_len), Ok(expected), "{len} bytes");
        }
    }
}

#[test]
fn no_byte_value_makes_the_parser_panic_or_point_outside() {
    let v6 = frame(0x86dd, &ipv6(0, &join(&extension(44, 0), &join(&[TCP; 8], &tcp(&[1; 4], b"hi")))));
    for bytes in [frame(0x0800, &ipv4(&[1; 4], TCP, &tcp(&[1; 4], b"hi"))), v6] {
        for at in 12..bytes.len() {
            for value in 0..=255 {
                let mut bytes = bytes.clone();
                bytes[at] = value;
                if let Ok(packet) = parse_frame(&bytes) {
                    let end = packet.payload_offset + packet.payload_len;
                    assert!(usize::try_from(end).unwrap() <= bytes.len());
                }
            }
        }
    }
}

fn parse_frame(bytes: &[u8]) -> Result<TcpPacket, Unparsed> {
    parse(&CapturedBytes::whole(bytes), 0, Start::Ethernet, None)
}

fn with_tag(bytes: &[u8], tci: u16) -> Result<TcpPacket, Unparsed> {
    parse(&CapturedBytes::whole(bytes), 0, Start::Ethernet, Some(tci))
}

fn frame(ether_type: u16, rest: &[u8]) -> Vec<u8> {
    let mut bytes = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    bytes.extend(ether_type.to_be_bytes());
    bytes.extend(rest);
    bytes
}

fn ipv4(options: &[u8], proto: u8, rest: &[u8]) -> Vec<u8> {
    let header_len = 20 + options.len();
    // A packet too long for the field is patched by its test.
    let [len_high, len_low] = u16::try_from(header_len + rest.len()).unwrap_or(0).to_be_bytes();
    let version_ihl = 0x40 | u8::try_from(header_len / 4).unwrap();
    let mut bytes = vec![version_ihl, 0, len_high, len_low, 0, 1, 0x40, 0, 64, proto, 0, 0];
    bytes.extend(SRC4);
    bytes.extend(DST4);
    bytes.extend(options);
    bytes.extend(rest);
    bytes
}

fn ipv6(next: u8, rest: &[u8]) -> Vec<u8> {
    let [len_high, len_low] = u16::try_from(rest.len()).unwrap_or(0).to_be_bytes();
    let mut bytes = vec![0x60, 0, 0, 0, len_high, len_low, next, 64];
    bytes.extend(SRC6);
    bytes.extend(DST6);
    bytes.extend(rest);
    bytes
}

fn extension(next: u8, units: u8) -> Vec<u8> {
    let mut bytes = vec![0; (usize::from(units) + 1) * 8];
    bytes[0] = next;
    bytes[1] = units;
    // A PadN option to the end.
    bytes[2] = 1;
    bytes[3] = u8::try_from(bytes.len() - 4).unwrap();
    bytes
}

fn tcp(options: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x9c, 0x40, 0, 80, 1, 2, 3, 4, 5, 6, 7, 8];
    bytes.push(u8::try_from((20 + options.len()) / 4).unwrap() << 4);
    bytes.extend([0x18, 0xff, 0xff, 0, 0, 0, 0]);
    bytes.extend(options);
    bytes.extend(payload);
    bytes
}

fn join(a: &[u8], b: &[u8]) -> Vec<u8> {
    [a, b].concat()
}
