//! Enters: one packet of each kind, many times. Leaves: what it costs, printed, and that what is less work costs less.

use aya::programs::TestRunOptions;
use mirror_common::Counter;
use mirror_common::maps::{ConnectionFlags, KernelConfig, PortSample, SampleLane, map, program};
use mirror_common::packet::tcp_flag;
use mirror_common::sample::WHOLE_MILLIONTHS;
use mirror_tests::overlay::{ethernet, ipv4, protocol, udp, vxlan};
use mirror_tests::slowness::slowdown;

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
fn what_is_not_matched_costs_less_than_what_is_copied() {
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
    let costs: Vec<_> = cases
        .iter()
        .map(|(name, bytes)| {
            let cost = cost(&mut kernel, bytes);
            println!("{name:<32} {cost:>5} ns");
            (*name, cost)
        })
        .collect();
    assert!(kernel.counters().iter().all(|(counter, _)| *counter == Counter::CopiedClient));
    let of = |wanted| costs.iter().find(|(name, _)| *name == wanted).unwrap().1;
    for (less, more) in [
        ("unmatched IPv4", "matched, pure ACK"),
        ("unmatched IPv6", "matched, 100 B"),
        ("VXLAN, unmatched inside", "VXLAN, matched inside, 100 B"),
        ("matched, 100 B", "matched, 3000 B"),
    ] {
        assert_less((less, of(less)), (more, of(more)));
    }
}

#[test]
fn what_is_left_out_costs_less_than_what_is_copied() {
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
    let copied = cost(&mut kernel, &packet);
    println!("{:<32} {copied:>5} ns", "matched, 100 B");
    kernel.set_config(sampled);
    for (name, lanes) in samples {
        kernel.set_sample(SERVER_PORT, PortSample { lanes });
        let cost = cost(&mut kernel, &packet);
        println!("{name:<32} {cost:>5} ns");
        if !lanes.contains(&one) {
            assert_less((name, cost), ("copied", copied));
        }
    }
    let shed =
        KernelConfig { connections: ConnectionFlags::SHED, shed_millionths: WHOLE_MILLIONTHS, ..config };
    kernel.set_config(shed);
    println!("{:<32} {:>5} ns", "shedding, taken", cost(&mut kernel, &packet));
    let syn = request(tcp_flag::SYN, b"").ethernet();
    println!("{:<32} {:>5} ns", "shedding, SYN left out", cost(&mut kernel, &syn));
    let left_out = cost(&mut kernel, &packet);
    println!("{:<32} {left_out:>5} ns", "shedding, left out");
    assert_less(("shedding, left out", left_out), ("copied", copied));
}

#[test]
fn answers_that_are_not_read_cost_less_than_those_that_are() {
    let config = KernelConfig { rings: 1, wake_interval_ns: 1_000_000, ..KernelConfig::default() };
    let Some(mut kernel) = Kernel::load_with(config, 1 << 25) else { return };
    kernel.set_port(map::ANSWER_PORTS, 1);
    let head = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
    let of = |len: usize| response(PSH_ACK, &[head.clone(), vec![b'x'; len]].concat()).ethernet();
    let (small, large) = (of(100), of(3_000));
    let costs = |kernel: &mut Kernel, name: &str| {
        [(100, &small), (3_000, &large)].map(|(len, bytes)| {
            let cost = cost_of(kernel, program::RESPONSES, bytes);
            println!("{name:<24} {len:>5} B {cost:>5} ns");
            cost
        })
    };
    let [_, not_asked_for] = costs(&mut kernel, "answer, no port is read");
    kernel.set_config(KernelConfig { copy_responses: 1, ..config });
    let [_, of_another] = costs(&mut kernel, "answer, another is read");
    kernel.set_port(map::ANSWER_PORTS, SERVER_PORT);
    let [_, read] = costs(&mut kernel, "answer, read");
    kernel.run(program::RESPONSES, &large);
    let flow = kernel.record().0;
    kernel.set_unread(&flow, flow.seq, flow.payload_len);
    let [_, unread] = costs(&mut kernel, "answer, unread");
    for less in [("no port is read", not_asked_for), ("another is read", of_another), ("unread", unread)] {
        assert_less(less, ("read", read));
    }
}

/// Asserts that this costs less than that, but on machines that are emulated: what costs much there costs little elsewhere.
fn assert_less((less, cost): (&str, u128), (more, other): (&str, u128)) {
    if slowdown() > 1.0 {
        println!("not compared, this machine is emulated: {less}, {more}");
    } else {
        assert!(cost < other, "{less} costs {cost} ns, {more} {other} ns");
    }
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
