//! Enters: packets of all kinds. Leaves: nothing; which are recorded, where, and which are counted.

use aya::maps::HashMap;
use aya::maps::lpm_trie::{Key, LpmTrie};
use mirror_common::Counter;
use mirror_common::maps::{KernelConfig, SocketKey, map, program, ring_index};
use mirror_common::packet::v4_mapped;

use crate::kernel::{ALL, Kernel};
use crate::packet::{
    CLIENT_PORT, CLIENT4, PSH_ACK, Packet, SERVER_PORT, SERVER4, SERVER6, request, response,
};

#[test]
fn each_program_keeps_to_its_port() {
    let Some(mut kernel) = Kernel::load(KernelConfig::default()) else { return };
    let sides =
        [(program::REQUESTS, &[0_u8][..]), (program::RESPONSES, &[1][..]), (program::BOTH, &[0, 1][..])];
    for (name, expected) in sides {
        for v6 in [false, true] {
            for packet in [request(PSH_ACK, b"a"), response(PSH_ACK, b"b")] {
                kernel.run(name, &Packet { v6, ..packet }.ethernet());
            }
            let mut found = Vec::new();
            while let Some((header, _)) = kernel.record_of(0) {
                found.push(header.side);
            }
            assert_eq!(found, expected, "{name}");
        }
    }
}

#[test]
fn packets_that_are_none_of_ours_leave_no_trace() {
    let Some(mut kernel) = Kernel::load(KernelConfig::default()) else { return };
    let with_byte = |packet: &Packet, at: usize, value| {
        let mut bytes = packet.ethernet();
        bytes[at] = value;
        bytes
    };
    let ours = request(PSH_ACK, b"hello");
    let arp = [&ours.ethernet()[..12], &[8, 6], &[0; 46][..]].concat();
    for name in ALL {
        kernel.run(name, &Packet { ports: (1, 2), ..ours.clone() }.ethernet());
        kernel.run(
            name,
            &Packet { ports: (SERVER_PORT ^ 0x100, SERVER_PORT + 1), ..ours.clone() }.v6().ethernet(),
        );
        kernel.run(name, &with_byte(&ours, 23, 17));
        kernel.run(name, &with_byte(&ours.clone().v6(), 20, 17));
        kernel.run(name, &with_byte(&ours.clone().v6(), 20, 59));
        kernel.run(name, &arp);
        kernel.run(name, &arp[..14]);
    }

    kernel.assert_no_record();
    assert_eq!(kernel.counters(), []);
}

#[test]
fn unusable_packets_are_counted_by_reason() {
    let patched = |packet: &Packet, at: usize, value| {
        let mut bytes = packet.ethernet();
        bytes[at] = value;
        bytes
    };
    let v4 = request(PSH_ACK, b"hello");
    let tags = vec![(0x88a8, 7), (0x8100, 5), (0x8100, 6)];
    let cases = [
        ("later fragment", patched(&v4, 21, 5), Counter::Fragment),
        (
            "later IPv6 fragment",
            Packet { extensions: vec![(44, vec![0, 0, 0, 8, 0, 0, 0, 1])], ..v4.clone().v6() }.ethernet(),
            Counter::Fragment,
        ),
        ("TCP header length", patched(&v4, 46, 0x40), Counter::Malformed),
        ("cut in TCP", v4.ethernet()[..44].to_vec(), Counter::Malformed),
        ("three tags", Packet { tags, ..v4.clone() }.ethernet(), Counter::TooDeep),
    ];
    for (name, bytes, counter) in cases {
        let Some(mut kernel) = Kernel::load(KernelConfig::default()) else { return };
        kernel.run(program::REQUESTS, &bytes);

        kernel.assert_no_record();
        assert_eq!(kernel.counters(), [(counter, 1)], "{name}");
    }
}

#[test]
fn paused_leaves_matched_packets_alone() {
    let Some(mut kernel) = Kernel::load(KernelConfig { paused: 1, ..KernelConfig::default() }) else {
        return;
    };
    for packet in
        [request(PSH_ACK, b"hello"), Packet { ip_options: vec![1; 4], ..request(PSH_ACK, b"hello") }]
    {
        kernel.run(program::REQUESTS, &packet.ethernet());
    }

    kernel.assert_no_record();
    assert_eq!(kernel.counters(), []);

    kernel.set_config(KernelConfig { rings: 1, ..KernelConfig::default() });
    kernel.run(program::REQUESTS, &request(PSH_ACK, b"hello").ethernet());
    assert_eq!(kernel.record().1, b"hello");
}

#[test]
fn own_traffic_is_left_out_by_mark_and_by_socket() {
    let Some(mut kernel) = Kernel::load(KernelConfig { own_mark: 0x4d49, ..KernelConfig::default() }) else {
        return;
    };
    let ours = request(PSH_ACK, b"hello").ethernet();
    let theirs = Packet { ports: (CLIENT_PORT + 1, SERVER_PORT), ..request(PSH_ACK, b"other") }.ethernet();
    kernel.run_marked(program::REQUESTS, &ours, 0x4d49);
    assert_eq!(kernel.counters(), [(Counter::Own, 1)]);

    kernel.set_port(map::OWN_PORTS, CLIENT_PORT);
    kernel.run(program::REQUESTS, &ours);
    assert_eq!(kernel.record().1, b"hello", "another host's socket with the same port");

    let key = SocketKey { addr: v4_mapped(CLIENT4), port: CLIENT_PORT, reserved: 0 };
    let sockets = kernel.ebpf().map_mut(map::OWN_SOCKETS).unwrap();
    HashMap::<_, [u8; SocketKey::LEN], u8>::try_from(sockets).unwrap().insert(key.to_bytes(), 1, 0).unwrap();
    kernel.run(program::REQUESTS, &ours);
    kernel.run(program::RESPONSES, &response(PSH_ACK, b"HTTP/1.1 200 OK").ethernet());
    kernel.run(program::REQUESTS, &theirs);

    assert_eq!(kernel.record().1, b"other");
    kernel.assert_no_record();
    assert_eq!(kernel.counters(), [(Counter::CopiedClient, 2), (Counter::Own, 3)]);
}

#[test]
fn only_servers_in_the_trie_are_recorded() {
    let Some(mut kernel) = Kernel::load(KernelConfig { match_addresses: 1, ..KernelConfig::default() })
    else {
        return;
    };
    let packets = [
        request(PSH_ACK, b"a"),
        response(PSH_ACK, b"b"),
        request(PSH_ACK, b"c").v6(),
        response(PSH_ACK, b"d").v6(),
    ];
    let run_all = |kernel: &mut Kernel| {
        packets.iter().for_each(|packet| kernel.run(program::BOTH, &packet.ethernet()));
        std::iter::from_fn(|| kernel.record_of(0)).map(|(header, _)| header.server_addr).collect::<Vec<_>>()
    };
    assert_eq!(run_all(&mut kernel), [[0; 16]; 0]);

    let mut trie =
        LpmTrie::<_, [u8; 16], u8>::try_from(kernel.ebpf().map_mut(map::ADDRESSES).unwrap()).unwrap();
    trie.insert(&Key::new(96 + 24, v4_mapped([198, 51, 100, 0])), 1, 0).unwrap();
    assert_eq!(run_all(&mut kernel), [v4_mapped(SERVER4); 2]);

    let mut trie =
        LpmTrie::<_, [u8; 16], u8>::try_from(kernel.ebpf().map_mut(map::ADDRESSES).unwrap()).unwrap();
    trie.insert(&Key::new(128, SERVER6), 1, 0).unwrap();
    assert_eq!(run_all(&mut kernel).len(), 4);
}

#[test]
fn both_sides_of_a_flow_meet_in_one_ring() {
    let Some(mut kernel) = Kernel::load(KernelConfig { rings: 4, ..KernelConfig::default() }) else { return };
    let mut used = [false; 4];
    for port in CLIENT_PORT..CLIENT_PORT + 32 {
        let there = Packet { ports: (port, SERVER_PORT), ..request(PSH_ACK, b"a") };
        let back = Packet { ports: (SERVER_PORT, port), ..response(PSH_ACK, b"b") };
        kernel.run(program::REQUESTS, &there.ethernet());
        kernel.run(program::RESPONSES, &back.ethernet());

        let ring = usize::try_from(ring_index(&v4_mapped(CLIENT4), port, 4)).unwrap();
        for side in [0, 1] {
            let (header, _) = kernel.record_of(ring).expect("in the ring that user space computes");
            assert_eq!((header.side, header.client_port), (side, port));
        }
        used[ring] = true;
    }
    assert_eq!(used, [true; 4]);
}

#[test]
fn full_ring_drops_and_counts_until_it_is_read() {
    let Some(mut kernel) = Kernel::load_with(KernelConfig::default(), 4096) else { return };
    let bytes = request(PSH_ACK, &[b'x'; 1000]).ethernet();
    for _ in 0..10 {
        kernel.run(program::REQUESTS, &bytes);
    }

    let kept = u64::try_from(std::iter::from_fn(|| kernel.record_of(0)).count()).unwrap();
    assert!((1..10).contains(&kept), "{kept}");
    assert_eq!(kernel.counters(), [(Counter::CopiedClient, kept), (Counter::DroppedRingFull, 10 - kept)]);

    kernel.run(program::REQUESTS, &bytes);
    assert_eq!(kernel.record().1.len(), 1000);
}
