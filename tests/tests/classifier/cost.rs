//! Enters: one packet of each kind, many times. Leaves: what it costs, printed.

use aya::programs::TestRunOptions;
use mirror_common::Counter;
use mirror_common::maps::{ConnectionFlags, KernelConfig, PortSample, SampleLane, map, program};
use mirror_common::packet::tcp_flag;
use mirror_common::sample::WHOLE_MILLIONTHS;
use mirror_tests::overlay::{ethernet, ipv4, protocol, udp, vxlan};

use crate::kernel::{ALL, Kernel};
use crate::packet::{ACK, PSH_ACK, Packet, SERVER_PORT, request, response};

#[test]
fn programs_take_the_verifier_a_fraction_of_its_limit() {
    let Some(mut kernel) = Kernel::load(KernelConfig::default()) else { return };
    for name in ALL {
        // Kernels before 5.16 do not say.
        let Some(count) = kernel.program(name).info().unwrap().verified_instruction_count() else { continue };
        println!("{name:<32} {count:>6} instructions verified");
        // Of 1,000,000. Linux 6.1 prunes less and takes more than twice as many as 6.18.
        assert!(count < 500_000, "{name}: {count}");
    }
}

#[test]
fn cost_of_a_packet_is_printed() {
    let config = KernelConfig { wake_interval_ns: 1_000_000, ..KernelConfig::default() };
    let Some(mut kernel) = Kernel::load_with(config, 1 << 25) else { return };
    let other = Packet { ports: (1, 2), ..request(ACK, &[b'x'; 100]) };
    let arp = [&other.ethernet()[..12], &[8, 6], &[0; 46][..]].concat();
    let in_vxlan =
        |inner: &Packet| ethernet(0x0800, &ipv4(protocol::UDP, &udp(4789, &vxlan(1, &inner.ethernet()))));
    let cases = [
        ("ARP: harness and the least work", arp),
        ("unmatched IPv4", other.ethernet()),
        ("unmatched IPv6", other.clone().v6().ethernet()),
        ("unmatched 802.1Q", Packet { tags: vec![(0x8100, 5)], ..other.clone() }.ethernet()),
        ("UDP", ethernet(0x0800, &ipv4(protocol::UDP, &udp(53, &[0; 100])))),
        ("VXLAN, unmatched inside", in_vxlan(&other)),
        ("VXLAN, matched inside, 100 B", in_vxlan(&request(PSH_ACK, &[b'x'; 100]))),
        ("matched, pure ACK", request(ACK, b"").ethernet()),
        ("matched, 100 B", request(PSH_ACK, &[b'x'; 100]).ethernet()),
        ("matched, 1400 B", request(PSH_ACK, &[b'x'; 1400]).ethernet()),
        ("matched, 3000 B", request(PSH_ACK, &[b'x'; 3000]).ethernet()),
    ];
    for (name, bytes) in cases {
        println!("{name:<32} {:>5} ns", cost(&mut kernel, &bytes));
    }
    assert!(kernel.counters().iter().all(|(counter, _)| *counter == Counter::CopiedClient));
}

#[test]
fn cost_of_choosing_connections_is_printed() {
    let config = KernelConfig { rings: 1, wake_interval_ns: 1_000_000, ..KernelConfig::default() };
    let Some(mut kernel) = Kernel::load_with(config, 1 << 25) else { return };
    let lane = |millionths| SampleLane { key: 7, millionths, reserved: 0 };
    let (out, one) = (lane(1), lane(WHOLE_MILLIONTHS));
    let unused = SampleLane::default();
    let packet = request(PSH_ACK, &[b'x'; 100]).ethernet();
    let sampled = KernelConfig { connections: ConnectionFlags::SAMPLED, ..config };
    let samples = [
        ("sampled, in by 1 of 1", [one, unused, unused, unused]),
        ("sampled, in by the last of 4", [out, out, out, one]),
        ("sampled, out by 1 of 1", [out, unused, unused, unused]),
        ("sampled, out by 4 of 4", [out; 4]),
    ];
    println!("{:<32} {:>5} ns", "matched, 100 B", cost(&mut kernel, &packet));
    kernel.set_config(sampled);
    for (name, lanes) in samples {
        kernel.set_sample(SERVER_PORT, PortSample { lanes });
        println!("{name:<32} {:>5} ns", cost(&mut kernel, &packet));
    }
    let shed =
        KernelConfig { connections: ConnectionFlags::SHED, shed_millionths: WHOLE_MILLIONTHS, ..config };
    kernel.set_config(shed);
    println!("{:<32} {:>5} ns", "shedding, taken", cost(&mut kernel, &packet));
    let syn = request(tcp_flag::SYN, b"").ethernet();
    println!("{:<32} {:>5} ns", "shedding, SYN left out", cost(&mut kernel, &syn));
    println!("{:<32} {:>5} ns", "shedding, left out", cost(&mut kernel, &packet));
}

#[test]
fn cost_of_answers_is_printed() {
    let config = KernelConfig { rings: 1, wake_interval_ns: 1_000_000, ..KernelConfig::default() };
    let Some(mut kernel) = Kernel::load_with(config, 1 << 25) else { return };
    kernel.set_port(map::ANSWER_PORTS, 1);
    let head = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
    let of = |len: usize| response(PSH_ACK, &[head.clone(), vec![b'x'; len]].concat()).ethernet();
    let (small, large) = (of(100), of(3_000));
    let print = |kernel: &mut Kernel, name: &str| {
        for (len, bytes) in [(100, &small), (3_000, &large)] {
            println!("{name:<24} {len:>5} B {:>5} ns", cost_of(kernel, program::RESPONSES, bytes));
        }
    };
    print(&mut kernel, "answer, no port is read");
    kernel.set_config(KernelConfig { copy_responses: 1, ..config });
    print(&mut kernel, "answer, another is read");
    kernel.set_port(map::ANSWER_PORTS, SERVER_PORT);
    print(&mut kernel, "answer, read");
    kernel.run(program::RESPONSES, &large);
    let flow = kernel.record().0;
    kernel.set_unread(&flow, flow.seq, flow.payload_len);
    print(&mut kernel, "answer, unread");
}

/// What a packet costs the program for requests at the least, in nanoseconds.
fn cost(kernel: &mut Kernel, bytes: &[u8]) -> u128 {
    cost_of(kernel, program::REQUESTS, bytes)
}

fn cost_of(kernel: &mut Kernel, name: &str, bytes: &[u8]) -> u128 {
    // The ring holds the records of one round.
    let (rounds, repeat) = (40, 5000);
    let mut best = u128::MAX;
    for _ in 0..rounds {
        let options = TestRunOptions { data_in: Some(bytes), repeat, ..TestRunOptions::default() };
        best = best.min(kernel.test_run(name, options).duration.as_nanos());
        while kernel.record_of(0).is_some() {}
    }
    best
}
