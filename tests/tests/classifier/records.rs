//! Enters: segments of matched ports. Leaves: nothing; what the records hold of them.

use mirror_common::maps::{KernelConfig, map, program};
use mirror_common::packet::{tcp_flag, v4_mapped};
use mirror_common::{Counter, RecordFlags, RecordHeader};

use crate::kernel::Kernel;
use crate::packet::{
    ACK, CLIENT_PORT, CLIENT4, CLIENT6, PSH_ACK, Packet, SERVER_PORT, SERVER4, SERVER6, request, response,
};

#[test]
fn request_segment_is_recorded_field_by_field() {
    let Some(mut kernel) = Kernel::load(KernelConfig::default()) else { return };
    let bytes = request(PSH_ACK, b"GET / HTTP/1.1\r\n\r\n").ethernet();

    kernel.run(program::REQUESTS, &bytes);

    let (header, payload) = kernel.record();
    assert_ne!(header.timestamp_ns, 0);
    assert_ne!(header.ifindex, 0);
    assert_eq!(
        header,
        RecordHeader {
            timestamp_ns: header.timestamp_ns,
            client_addr: v4_mapped(CLIENT4),
            server_addr: v4_mapped(SERVER4),
            client_port: CLIENT_PORT,
            server_port: SERVER_PORT,
            vlan: 0,
            vni: 0,
            ifindex: header.ifindex,
            seq: 1000,
            ack: 2000,
            payload_len: 18,
            captured_len: 18,
            tcp_flags: PSH_ACK,
            side: 0,
            flags: 0,
            reserved: 0,
        }
    );
    assert_eq!(payload, b"GET / HTTP/1.1\r\n\r\n");
    kernel.assert_no_record();
    assert_eq!(kernel.counters(), [(Counter::CopiedClient, 1)]);
}

#[test]
fn every_shape_of_headers_is_recorded() {
    let Some(mut kernel) = Kernel::load(KernelConfig::default()) else { return };
    let plain = request(PSH_ACK, b"hello");
    let extension = |kind, len: usize| {
        (kind, [&[0, u8::try_from(len / 8 - 1).unwrap(), 1, 4][..], &vec![0; len - 4]].concat())
    };
    let cases = [
        ("IPv4", plain.clone(), 0),
        ("IPv4 options", Packet { ip_options: vec![1; 12], ..plain.clone() }, 0),
        ("TCP options", Packet { tcp_options: vec![1; 40], ..plain.clone() }, 0),
        ("both options", Packet { ip_options: vec![1; 40], tcp_options: vec![1; 40], ..plain.clone() }, 0),
        ("IPv6", plain.clone().v6(), 0),
        ("hop-by-hop", Packet { extensions: vec![extension(0, 8)], ..plain.clone().v6() }, 0),
        ("routing", Packet { extensions: vec![extension(43, 24)], ..plain.clone().v6() }, 0),
        ("atomic fragment", Packet { extensions: vec![(44, vec![0; 8])], ..plain.clone().v6() }, 0),
        (
            "authentication",
            Packet { extensions: vec![(51, [&[0, 4], &[0; 22][..]].concat())], ..plain.clone().v6() },
            0,
        ),
        (
            "a chain",
            Packet {
                extensions: vec![extension(0, 8), extension(60, 16), extension(43, 8), extension(60, 8)],
                ..plain.clone().v6()
            },
            0,
        ),
        ("802.1Q", Packet { tags: vec![(0x8100, 5)], ..plain.clone() }, 5),
        ("802.1ad", Packet { tags: vec![(0x88a8, 7), (0x8100, 5)], ..plain.clone().v6() }, 7 | 5 << 16),
    ];
    for (name, packet, vlan) in cases {
        kernel.run(program::REQUESTS, &packet.ethernet());

        let (header, payload) = kernel.record_of(0).unwrap_or_else(|| panic!("{name}: no record"));
        let (client, server) =
            if packet.v6 { (CLIENT6, SERVER6) } else { (v4_mapped(CLIENT4), v4_mapped(SERVER4)) };
        assert_eq!((header.client_addr, header.server_addr), (client, server), "{name}");
        assert_eq!((header.client_port, header.server_port), (CLIENT_PORT, SERVER_PORT), "{name}");
        assert_eq!((header.seq, header.ack, header.tcp_flags), (1000, 2000, PSH_ACK), "{name}");
        assert_eq!((header.vlan, header.payload_len), (vlan, 5), "{name}");
        assert_eq!(payload, b"hello", "{name}");
    }
    kernel.assert_no_record();
}

#[test]
fn ethernet_padding_is_not_recorded() {
    let Some(mut kernel) = Kernel::load(KernelConfig::default()) else { return };
    let mut bytes = request(PSH_ACK, b"hi").ethernet();
    bytes.resize(60, 0x55);

    kernel.run(program::REQUESTS, &bytes);

    assert_eq!(kernel.record().1, b"hi");
}

#[test]
fn payload_of_every_size_arrives_whole() {
    let Some(mut kernel) = Kernel::load(KernelConfig::default()) else { return };
    // About the sizes of records, of which a header takes 80 bytes.
    for len in [0, 1, 2, 100, 175, 176, 177, 431, 432, 433, 943, 944, 945, 1455, 1456, 1457, 1460, 3500] {
        let expected: Vec<u8> = (0..len).map(|at: u32| at.to_le_bytes()[0] ^ at.to_le_bytes()[1]).collect();

        kernel.run(program::REQUESTS, &request(tcp_flag::FIN | PSH_ACK, &expected).ethernet());

        let (header, payload) = kernel.record();
        assert_eq!((header.payload_len, header.captured_len), (len, len));
        assert_eq!((header.seq, header.tcp_flags), (1000, tcp_flag::FIN | PSH_ACK));
        assert!(payload == expected, "{len} bytes differ");
        kernel.assert_no_record();
    }
}

#[test]
fn segment_without_payload_is_recorded_only_where_it_opens_or_ends() {
    let Some(mut kernel) = Kernel::load(KernelConfig::default()) else { return };
    for flags in [tcp_flag::SYN, tcp_flag::FIN | ACK, tcp_flag::RST, tcp_flag::SYN | ACK] {
        kernel.run(program::BOTH, &request(flags, b"").ethernet());
        kernel.run(program::BOTH, &response(flags, b"").v6().ethernet());

        for side in [0, 1] {
            let (header, payload) = kernel.record();
            assert_eq!((header.side, header.tcp_flags, header.flags), (side, flags, 0));
            assert_eq!((header.payload_len, payload.len()), (0, 0));
        }
    }
    kernel.run(program::BOTH, &request(ACK, b"").ethernet());
    kernel.run(program::BOTH, &response(ACK, b"").ethernet());
    kernel.assert_no_record();
}

#[test]
fn response_is_recorded_without_its_payload() {
    let Some(mut kernel) = Kernel::load(KernelConfig::default()) else { return };
    let cases: [(&[u8], &[u8]); 6] = [
        (b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 200"),
        (b"HTTP/1.1 101", b"HTTP/1.1 101"),
        (b"HTTP/1", b"HTTP/1"),
        (b"HTTP", b""),
        (b"<html>HTTP/1.1 200", b""),
        (&[b'x'; 1460], b""),
    ];
    for (sent, captured) in cases {
        kernel.run(program::RESPONSES, &response(PSH_ACK, sent).ethernet());

        let (header, payload) = kernel.record();
        let len = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap();
        let left_out = if captured.len() < sent.len() { RecordFlags::NOT_COPIED } else { 0 };
        assert_eq!(payload, captured);
        assert_eq!((header.side, header.flags, header.payload_len), (1, left_out, len(sent)));
        assert_eq!((header.client_addr, header.client_port), (v4_mapped(CLIENT4), CLIENT_PORT));
        assert_eq!((header.server_addr, header.server_port), (v4_mapped(SERVER4), SERVER_PORT));
        assert_eq!((header.seq, header.ack), (1000, 2000));
    }
}

#[test]
fn response_is_copied_whole_of_ports_whose_answers_are_read() {
    const OTHER_PORT: u16 = SERVER_PORT + 64;
    let Some(mut kernel) = Kernel::load(KernelConfig { copy_responses: 1, ..KernelConfig::default() }) else {
        return;
    };
    kernel.set_port(map::PORTS, OTHER_PORT);
    kernel.set_port(map::ANSWER_PORTS, SERVER_PORT);
    let sent = [b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), vec![b'x'; 3_000]].concat();
    let read = response(PSH_ACK, &sent);
    let other = Packet { ports: (OTHER_PORT, CLIENT_PORT), ..read.clone() };

    for is_v6 in [false, true] {
        let of = |packet: &Packet| if is_v6 { packet.clone().v6() } else { packet.clone() }.ethernet();
        kernel.run(program::RESPONSES, &of(&read));
        let (header, payload) = kernel.record();
        assert_eq!((header.side, header.flags, header.payload_len), (1, 0, 3_019));
        assert_eq!(payload, sent);

        kernel.run(program::RESPONSES, &of(&other));
        let (header, payload) = kernel.record();
        assert_eq!((header.side, header.flags), (1, RecordFlags::NOT_COPIED));
        assert_eq!((header.payload_len, payload), (3_019, b"HTTP/1.1 200".to_vec()));
        kernel.assert_no_record();
    }
    kernel.set_config(KernelConfig { rings: 1, ..KernelConfig::default() });
    kernel.run(program::RESPONSES, &read.ethernet());
    assert_eq!(kernel.record().1, b"HTTP/1.1 200");
}

#[test]
fn payload_that_nobody_reads_is_left_out_of_what_is_copied_whole() {
    let config = KernelConfig { copy_responses: 1, ..KernelConfig::default() };
    let Some(mut kernel) = Kernel::load(config) else { return };
    kernel.set_port(map::ANSWER_PORTS, SERVER_PORT);
    for is_v6 in [false, true] {
        let of = |packet: Packet| if is_v6 { packet.v6() } else { packet }.ethernet();
        let answer = |len: usize| of(response(PSH_ACK, &vec![b'x'; len]));
        kernel.run(program::RESPONSES, &answer(3_000));
        let (flow, payload) = kernel.record();
        assert_eq!((flow.seq, payload.len()), (1000, 3_000));

        for (what, seq, len, sent, captured) in [
            ("all of it", 1000, 3_000, 3_000, 0),
            ("all but the last byte", 1000, 2_999, 3_000, 3_000),
            ("all but the first byte", 1001, 9_000, 3_000, 3_000),
            ("more than it", 1000_u32.wrapping_sub(5_000), 9_000, 3_000, 0),
            ("all of what is not worth the question", 1000, 3_000, 1_023, 1_023),
            ("the least that is", 1000, 3_000, 1_024, 0),
        ] {
            kernel.set_unread(&flow, seq, len);
            kernel.run(program::RESPONSES, &answer(sent));
            let (header, payload) = kernel.record();
            let flags = if captured < sent { RecordFlags::NOT_COPIED } else { 0 };
            assert_eq!((header.flags, payload.len()), (flags, captured), "{what}");
            assert_eq!(usize::try_from(header.payload_len).unwrap(), sent, "{what}");
        }
        // Its client's payload, and that of other flows, is.
        kernel.set_unread(&flow, 0, u32::MAX);
        kernel.run(program::REQUESTS, &of(request(PSH_ACK, &[b'x'; 3_000])));
        assert_eq!(kernel.record().1.len(), 3_000);
        let other = Packet { ports: (SERVER_PORT, CLIENT_PORT + 1), ..response(PSH_ACK, &[b'x'; 3_000]) };
        kernel.run(program::RESPONSES, &of(other));
        assert_eq!(kernel.record().1.len(), 3_000);
        kernel.assert_no_record();
    }
    let unread = kernel.counters().into_iter().find(|(counter, _)| *counter == Counter::Unread);
    assert_eq!(unread, Some((Counter::Unread, 6)));
}
