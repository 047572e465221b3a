//! Enters: the fragments of packets. Leaves: nothing; the records of the segments in them.

use std::time::Duration;

use aya::programs::TcAttachType;
use mirror_common::Counter;
use mirror_common::maps::{KernelConfig, program};
use mirror_common::packet::tcp_flag;
use mirror_tests::overlay::{IPV4, IPV6, ethernet, ipv4, protocol};

use crate::kernel::Kernel;
use crate::live::{Hosts, attach};
use crate::packet::{ACK, PSH_ACK, Packet, request};
use crate::sys::send_frame;

const PAYLOAD: &[u8] = b"GET /fragments HTTP/1.1\r\nhost: somewhere.example\r\n\r\n";

/// What a record says: sequence number, flags, payload.
type Seen = (u32, u8, Vec<u8>);

/// A packet as the fragments that begin at these offsets of its TCP segment, all but the first multiples of eight.
fn cut(packet: &Packet, id: u16, starts: &[u16]) -> Vec<Vec<u8>> {
    let ip = packet.ip();
    let header_len = if packet.v6 { 40 } else { 20 + packet.ip_options.len() };
    let (header, segment) = ip.split_at(header_len);
    let fragment = |(at, &from): (usize, &u16)| {
        let to = starts.get(at + 1).map_or(segment.len(), |to| usize::from(*to));
        let (part, has_more) = (&segment[usize::from(from)..to], u16::from(to != segment.len()));
        let mut header = header.to_vec();
        if packet.v6 {
            header[4..6].copy_from_slice(&u16::try_from(8 + part.len()).unwrap().to_be_bytes());
            header[6] = 44;
            let field = (from | has_more).to_be_bytes();
            header.extend([6, 0, field[0], field[1], 0, 0, id.to_be_bytes()[0], id.to_be_bytes()[1]]);
        } else {
            header[2..4].copy_from_slice(&u16::try_from(header_len + part.len()).unwrap().to_be_bytes());
            header[4..6].copy_from_slice(&id.to_be_bytes());
            header[6..8].copy_from_slice(&((has_more << 13) | (from / 8)).to_be_bytes());
        }
        ethernet(if packet.v6 { IPV6 } else { IPV4 }, &[&header, part].concat())
    };
    starts.iter().enumerate().map(fragment).collect()
}

fn drain(kernel: &mut Kernel) -> Vec<Seen> {
    std::iter::from_fn(|| kernel.record_of(0))
        .map(|(header, payload)| (header.seq, header.tcp_flags, payload))
        .collect()
}

#[test]
fn fragments_are_recorded_as_parts_of_the_segment() {
    let Some(mut kernel) = Kernel::load(KernelConfig::default()) else { return };
    let plain = request(tcp_flag::FIN | PSH_ACK, PAYLOAD);
    let options = Packet { ip_options: vec![1; 8], tcp_options: vec![1; 12], ..plain.clone() };
    for packet in [plain.clone(), options, plain.v6()] {
        let data_at = 20 + packet.tcp_options.len();
        for fragment in cut(&packet, 7, &[0, 40, 56]) {
            kernel.run(program::REQUESTS, &fragment);
        }

        let (one, two) = (40 - data_at, 56 - data_at);
        let seq = |at: usize| 1000 + u32::try_from(at).unwrap();
        assert_eq!(
            drain(&mut kernel),
            [
                (1000, ACK, PAYLOAD[..one].to_vec()),
                (seq(one), ACK, PAYLOAD[one..two].to_vec()),
                (seq(two), tcp_flag::FIN | PSH_ACK, PAYLOAD[two..].to_vec()),
            ]
        );
    }
    assert_eq!(kernel.counters(), [(Counter::CopiedClient, 9)]);
}

#[test]
fn fragment_without_its_first_is_counted() {
    let Some(mut kernel) = Kernel::load(KernelConfig::default()) else { return };
    for packet in [request(PSH_ACK, PAYLOAD), request(PSH_ACK, PAYLOAD).v6()] {
        let fragments = cut(&packet, 7, &[0, 40, 56]);
        for at in [1, 0, 2] {
            kernel.run(program::REQUESTS, &fragments[at]);
        }
        assert_eq!(drain(&mut kernel).iter().map(|(seq, ..)| *seq).collect::<Vec<_>>(), [1000, 1036]);
    }
    assert_eq!(kernel.counters(), [(Counter::CopiedClient, 4), (Counter::Fragment, 2)]);
}

#[test]
fn packet_is_forgotten_once_it_is_complete() {
    let Some(mut kernel) = Kernel::load(KernelConfig::default()) else { return };
    let fragments = cut(&request(PSH_ACK, PAYLOAD), 7, &[0, 40]);
    for at in [0, 1, 1] {
        kernel.run(program::REQUESTS, &fragments[at]);
    }

    assert_eq!(kernel.counters(), [(Counter::CopiedClient, 2), (Counter::Fragment, 1)]);
}

#[test]
fn fragments_without_a_whole_header_in_the_first_are_counted() {
    let Some(mut kernel) = Kernel::load(KernelConfig::default()) else { return };
    // The first ends within the header; then one whose options go on in the second.
    let options = Packet { tcp_options: vec![1; 20], ..request(PSH_ACK, PAYLOAD) };
    for fragment in cut(&request(PSH_ACK, PAYLOAD), 7, &[0, 16]).iter().chain(&cut(&options, 8, &[0, 24])) {
        kernel.run(program::REQUESTS, fragment);
    }
    // A whole header, and one that claims to lie within it.
    let (first, within) = (&cut(&options, 9, &[0, 48])[0], &cut(&options, 9, &[0, 16])[1]);
    kernel.run(program::REQUESTS, first);
    assert_eq!(drain(&mut kernel).len(), 1);
    kernel.run(program::REQUESTS, within);

    assert_eq!(drain(&mut kernel), []);
    assert_eq!(kernel.counters(), [(Counter::CopiedClient, 1), (Counter::Fragment, 5)]);
}

#[test]
fn fragments_of_other_ports_leave_no_trace() {
    let Some(mut kernel) = Kernel::load(KernelConfig::default()) else { return };
    let other = Packet { ports: (1, 2), ..request(PSH_ACK, PAYLOAD) };
    for packet in [other.clone(), other.v6()] {
        for fragment in cut(&packet, 7, &[0, 40, 56]) {
            kernel.run(program::REQUESTS, &fragment);
        }
    }

    assert_eq!((drain(&mut kernel), kernel.counters()), (vec![], vec![]));
}

#[test]
fn fragments_in_a_tunnel_are_followed() {
    let Some(mut kernel) = Kernel::load(KernelConfig::default()) else { return };
    for fragment in cut(&request(PSH_ACK, PAYLOAD), 7, &[0, 40]) {
        kernel.run(program::REQUESTS, &ethernet(IPV4, &ipv4(protocol::IPV4, &fragment[14..])));
    }

    let whole: Vec<u8> = drain(&mut kernel).into_iter().flat_map(|(.., payload)| payload).collect();
    assert_eq!(whole, PAYLOAD);
}

#[test]
fn fragments_are_followed_at_an_interface() {
    let Some(hosts) = Hosts::create("f") else { return };
    let Some(mut kernel) = Kernel::load(KernelConfig::default()) else { return };
    hosts.server.inside(|| attach(&mut kernel, program::REQUESTS, "eth0", TcAttachType::Ingress));
    for packet in [request(PSH_ACK, PAYLOAD), request(PSH_ACK, PAYLOAD).v6()] {
        for fragment in cut(&packet, 7, &[0, 40]) {
            hosts.client.inside(|| send_frame("eth0", &fragment));
            kernel.record_within(Duration::from_secs(5));
        }
    }

    assert_eq!(kernel.counters(), [(Counter::CopiedClient, 4)]);
}
