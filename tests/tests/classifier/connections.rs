//! Enters: segments of many connections. Leaves: nothing; of which none is copied, on either side and at either hook.

use mirror_common::maps::{ConnectionFlags, KernelConfig, PortSample, SHED_KEY, SampleLane, program};
use mirror_common::packet::{tcp_flag, v4_mapped};
use mirror_common::sample::{connection_draw, is_in_share};
use mirror_common::{Counter, RecordFlags, RecordSide};

use crate::kernel::Kernel;
use crate::packet::{ACK, CLIENT_PORT, CLIENT4, CLIENT6, PSH_ACK, Packet, SERVER_PORT, request, response};

const SYN: u8 = tcp_flag::SYN;
const KEY: u64 = 0x1234_5678_9abc_def0;
const THIRD: u32 = 333_333;

#[test]
fn connection_is_in_the_sample_by_its_draw_on_both_sides() {
    let Some(mut kernel) = Kernel::load(sampled()) else { return };
    kernel.set_sample(SERVER_PORT, sample(&[(KEY, THIRD)]));
    let mut taken = 0;
    for port in ports() {
        for (v6, addr) in [(false, v4_mapped(CLIENT4)), (true, CLIENT6)] {
            let is_in = is_in_share(connection_draw(KEY, addr, port), THIRD);
            taken += u32::from(is_in);
            for (name, packet) in both_sides(port) {
                kernel.run(name, &Packet { v6, ..packet.clone() }.ethernet());
                assert_eq!(kernel.record_of(0).is_some(), is_in, "{name} {port}");
                // At loopback, too.
                kernel.run(program::BOTH, &Packet { v6, ..packet }.ethernet());
                assert_eq!(kernel.record_of(0).is_some(), is_in, "both {port}");
            }
        }
    }
    assert!((200..=330).contains(&taken), "{taken} of 800");
}

#[test]
fn connections_left_out_are_counted_at_their_syn() {
    let Some(mut kernel) = Kernel::load(sampled()) else { return };
    kernel.set_sample(SERVER_PORT, sample(&[(KEY, 0)]));

    for (name, packet) in both_sides(40_000) {
        kernel.run(name, &packet.ethernet());
    }
    kernel.run(program::REQUESTS, &of(40_001, request(SYN, b"")).ethernet());

    kernel.assert_no_record();
    assert_eq!(kernel.counters(), [(Counter::SampledOut, 2)], "no other segment is");
}

#[test]
fn connection_in_any_experiments_sample_is_copied() {
    let lanes = [(KEY, 100_000), (!KEY, 200_000), (7, 0), (8, 50_000)];
    let Some(mut kernel) = Kernel::load(sampled()) else { return };
    kernel.set_sample(SERVER_PORT, sample(&lanes));
    for port in ports() {
        let draw = |key| connection_draw(key, v4_mapped(CLIENT4), port);
        let is_in = lanes.iter().any(|(key, share)| is_in_share(draw(*key), *share));

        kernel.run(program::REQUESTS, &of(port, request(PSH_ACK, b"x")).ethernet());

        assert_eq!(kernel.record_of(0).is_some(), is_in, "{port}");
    }
}

#[test]
fn port_without_a_sample_has_all_its_connections_copied() {
    let Some(mut kernel) = Kernel::load(sampled()) else { return };
    kernel.set_sample(SERVER_PORT + 1, sample(&[(KEY, 0)]));
    kernel.run(program::REQUESTS, &request(PSH_ACK, b"x").ethernet());
    kernel.record();

    kernel.set_sample(SERVER_PORT, sample(&[(KEY, 0)]));
    kernel.set_config(KernelConfig { connections: 0, ..sampled() });
    kernel.run(program::REQUESTS, &request(PSH_ACK, b"x").ethernet());
    kernel.record();
}

#[test]
fn shedding_leaves_running_connections_alone_and_new_ones_out() {
    let Some(mut kernel) = Kernel::load(KernelConfig::default()) else { return };
    kernel.run(program::REQUESTS, &of(1, request(SYN, b"")).ethernet());
    kernel.record();
    kernel.set_config(shedding(1_000_000, 1));

    kernel.run(program::REQUESTS, &of(2, request(SYN, b"")).ethernet());
    for (name, packet) in both_sides(2) {
        kernel.run(name, &packet.ethernet());
    }
    kernel.assert_no_record();
    assert_eq!(kernel.counters(), [(Counter::CopiedClient, 1), (Counter::Shed, 2)]);
    for (name, packet) in both_sides(1).skip(1) {
        kernel.run(name, &packet.ethernet());
        kernel.record();
    }
}

#[test]
fn share_of_new_connections_is_shed_by_their_draw() {
    let Some(mut kernel) = Kernel::load(shedding(THIRD, 1)) else { return };
    for port in ports() {
        let is_shed = is_in_share(connection_draw(SHED_KEY, v4_mapped(CLIENT4), port), THIRD);
        for (name, packet) in both_sides(port) {
            kernel.run(name, &packet.ethernet());
            assert_eq!(kernel.record_of(0).is_none(), is_shed, "{name} {port}");
        }
    }
}

#[test]
fn shed_connection_is_picked_up_once_its_share_is_taken_and_stays() {
    let draw = |port| connection_draw(SHED_KEY, v4_mapped(CLIENT4), port);
    let is_early = |port: &u16| is_in_share(draw(*port), 500_000) && !is_in_share(draw(*port), THIRD);
    let early = (1..).find(is_early).unwrap();
    let late = (1..).find(|port| is_in_share(draw(*port), THIRD)).unwrap();
    let Some(mut kernel) = Kernel::load(shedding(500_000, 1)) else { return };
    let mut copied = |config: KernelConfig, port, flags| {
        kernel.set_config(KernelConfig { rings: 1, ..config });
        kernel.run(program::REQUESTS, &of(port, request(flags, b"x")).ethernet());
        kernel.record_of(0).is_some()
    };
    assert!(!copied(shedding(500_000, 1), early, SYN) && !copied(shedding(500_000, 1), late, SYN));

    assert!(copied(shedding(THIRD, 1), early, PSH_ACK) && !copied(shedding(THIRD, 1), late, PSH_ACK));
    assert!(copied(shedding(500_000, 1), early, PSH_ACK), "it stays");
    assert!(!copied(shedding(500_000, 1), early, SYN), "a new one with its address does not");
    assert!(copied(shedding(0, 1), late, PSH_ACK), "shedding has ended");
}

#[test]
fn what_was_shed_before_shedding_began_anew_does_not_count() {
    let Some(mut kernel) = Kernel::load(shedding(1_000_000, 1)) else { return };
    kernel.run(program::REQUESTS, &request(SYN, b"").ethernet());
    kernel.assert_no_record();
    for config in [KernelConfig { rings: 1, ..KernelConfig::default() }, shedding(1_000_000, 2)] {
        kernel.set_config(config);
        kernel.run(program::REQUESTS, &request(PSH_ACK, b"x").ethernet());
        kernel.record();
        kernel.run(program::RESPONSES, &response(PSH_ACK, b"x").ethernet());
        kernel.record();
    }
}

#[test]
fn syn_that_is_taken_undoes_what_was_shed() {
    let Some(mut kernel) = Kernel::load(shedding(1_000_000, 1)) else { return };
    kernel.run(program::REQUESTS, &request(SYN, b"").ethernet());
    kernel.assert_no_record();

    kernel.set_config(shedding(0, 1));
    kernel.run(program::REQUESTS, &request(SYN, b"").ethernet());
    kernel.record();
    kernel.set_config(shedding(1_000_000, 1));

    kernel.run(program::RESPONSES, &response(SYN | ACK, b"").ethernet());
    kernel.record();
}

#[test]
fn followed_connection_is_let_go_where_its_client_sends_something() {
    let Some(mut kernel) = Kernel::load(shedding(1_000_000, 1)) else { return };
    let sent = request(PSH_ACK, b"GET / HTTP/1.1\r\n\r\n");
    kernel.run(program::REQUESTS, &sent.ethernet());
    let followed = kernel.record().0;
    kernel.set_config(letting_go(1_000_000, 1_000_000));
    for (name, packet) in [
        (program::RESPONSES, response(PSH_ACK, b"HTTP/1.1 200 OK\r\n\r\n")),
        (program::REQUESTS, request(tcp_flag::FIN | ACK, b"")),
    ] {
        kernel.run(name, &packet.ethernet());
        assert_eq!(kernel.record().0.flags & RecordFlags::LET_GO, 0, "{name}");
    }

    kernel.run(program::REQUESTS, &sent.ethernet());

    let (header, payload) = kernel.record();
    assert_eq!((header.flags, header.side), (RecordFlags::LET_GO, RecordSide::Client as u8));
    assert_eq!((header.payload_len, header.tcp_flags, payload.len()), (0, 0, 0));
    assert_eq!((header.seq, header.client_port), (followed.seq, followed.client_port));
    for (name, packet) in both_sides(CLIENT_PORT).skip(1) {
        kernel.run(name, &packet.ethernet());
    }
    kernel.assert_no_record();
    let counted = [(Counter::CopiedClient, 2), (Counter::CopiedServer, 1), (Counter::Shed, 1)];
    assert_eq!(kernel.counters(), counted);
}

#[test]
fn connections_of_the_share_are_let_go_and_no_others() {
    let Some(mut kernel) = Kernel::load(letting_go(500_000, THIRD)) else { return };
    for port in ports() {
        let is_in = is_in_share(connection_draw(SHED_KEY, v4_mapped(CLIENT4), port), THIRD);
        for at in 0..3 {
            kernel.run(program::REQUESTS, &of(port, request(PSH_ACK, b"x")).ethernet());
            let flags = kernel.record_of(0).map(|(header, _)| header.flags);
            let expected = if !is_in { Some(0) } else { (at == 0).then_some(RecordFlags::LET_GO) };
            assert_eq!(flags, expected, "{port}, {at}");
        }
    }
}

#[test]
fn connection_that_was_let_go_is_taken_up_and_may_be_let_go_again() {
    let Some(mut kernel) = Kernel::load(letting_go(1_000_000, 1_000_000)) else { return };
    let mut flags = |config: KernelConfig| {
        kernel.set_config(config);
        kernel.run(program::REQUESTS, &request(PSH_ACK, b"x").ethernet());
        kernel.record_of(0).map(|(header, _)| header.flags)
    };
    for _ in 0..2 {
        assert_eq!(flags(letting_go(1_000_000, 1_000_000)), Some(RecordFlags::LET_GO));
        assert_eq!(flags(letting_go(1_000_000, 0)), None, "it is one that was left out");
        assert_eq!(flags(letting_go(0, 0)), Some(0));
        assert_eq!(flags(letting_go(1_000_000, 0)), Some(0), "it is followed again, and spared");
    }
}

fn ports() -> std::ops::Range<u16> {
    32_768..33_168
}

fn sampled() -> KernelConfig {
    KernelConfig { rings: 1, connections: ConnectionFlags::SAMPLED, ..KernelConfig::default() }
}

fn shedding(millionths: u32, epoch: u32) -> KernelConfig {
    KernelConfig {
        rings: 1,
        connections: ConnectionFlags::SHED,
        shed_millionths: millionths,
        shed_epoch: epoch,
        ..KernelConfig::default()
    }
}

fn letting_go(shed_millionths: u32, let_go_millionths: u32) -> KernelConfig {
    KernelConfig { let_go_millionths, ..shedding(shed_millionths, 1) }
}

fn sample(lanes: &[(u64, u32)]) -> PortSample {
    let mut sample = PortSample::default();
    for (lane, (key, millionths)) in sample.lanes.iter_mut().zip(lanes) {
        *lane = SampleLane { key: *key, millionths: *millionths, reserved: 0 };
    }
    sample
}

/// The packet from or to this port of the client.
fn of(client_port: u16, packet: Packet) -> Packet {
    let ports = if packet.from_client { (client_port, SERVER_PORT) } else { (SERVER_PORT, client_port) };
    Packet { ports, ..packet }
}

/// A connection's segments, from the SYN on, and the program of the hook that each passes.
fn both_sides(port: u16) -> impl Iterator<Item = (&'static str, Packet)> {
    [
        (program::REQUESTS, request(SYN, b"")),
        (program::RESPONSES, response(SYN | ACK, b"")),
        (program::REQUESTS, request(PSH_ACK, b"GET / HTTP/1.1\r\n\r\n")),
        (program::RESPONSES, response(PSH_ACK, b"HTTP/1.1 200 OK\r\n\r\n")),
        (program::REQUESTS, request(tcp_flag::FIN | ACK, b"")),
    ]
    .into_iter()
    .map(move |(name, packet)| (name, of(port, packet)))
}
