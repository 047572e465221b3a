//! Enters: packets inside packets. Leaves: nothing; which are recorded, and which are counted.

use aya::programs::TcAttachType;
use mirror_common::Counter;
use mirror_common::maps::{KernelConfig, program};
use mirror_common::packet::{UdpTunnel, UsualPorts, v4_mapped};
use mirror_tests::overlay::{
    BRIDGED, IPV4, IPV6, MPLS, ethernet, geneve, gre, ipv4, ipv6, labels, protocol, udp, vxlan,
};

use crate::kernel::{ALL, Kernel};
use crate::packet::{
    CLIENT_PORT, CLIENT4, CLIENT6, PSH_ACK, Packet, SERVER_PORT, SERVER4, SERVER6, request, response,
};

const VNI: u32 = 0x00ab_cdef;
const VXLAN_PORT: u16 = UsualPorts::VXLAN[0];
const GENEVE_PORT: u16 = UsualPorts::GENEVE[0];

/// Frames with `inner` in every kind of tunnel that is looked into, each with its virtual network identifier.
fn wrapped(inner: &Packet) -> Vec<(&'static str, Vec<u8>, u32)> {
    let (frame, ip) = (inner.ethernet(), inner.ip());
    let (kind, ip_protocol) = if inner.v6 { (IPV6, protocol::IPV6) } else { (IPV4, protocol::IPV4) };
    let in_v4 = |protocol, rest: &[u8]| ethernet(IPV4, &ipv4(protocol, rest));
    let in_v6 = |protocol, rest: &[u8]| ethernet(IPV6, &ipv6(protocol, rest));
    let vxlan_to = |port| udp(port, &vxlan(VNI, &frame));
    let geneve_with = |words, inner_type, rest: &[u8]| {
        in_v4(protocol::UDP, &udp(GENEVE_PORT, &geneve(VNI, words, inner_type, rest)))
    };
    let gre_with = |flags, inner_type, fields: &[u32], rest: &[u8]| {
        in_v4(protocol::GRE, &gre(flags, inner_type, fields, rest))
    };
    vec![
        ("VXLAN", in_v4(protocol::UDP, &vxlan_to(VXLAN_PORT)), VNI),
        ("VXLAN, old port", in_v4(protocol::UDP, &vxlan_to(UsualPorts::VXLAN[1])), VNI),
        ("VXLAN over IPv6", in_v6(protocol::UDP, &vxlan_to(VXLAN_PORT)), VNI),
        ("Geneve", geneve_with(0, BRIDGED, &frame), VNI),
        ("Geneve with most options", geneve_with(63, BRIDGED, &frame), VNI),
        ("Geneve without Ethernet", geneve_with(2, kind, &ip), VNI),
        ("IP in IPv4", in_v4(ip_protocol, &ip), 0),
        ("IP in IPv6", in_v6(ip_protocol, &ip), 0),
        ("GRE", gre_with(0, kind, &[], &ip), 0),
        ("GRE with Ethernet", gre_with(0, BRIDGED, &[], &frame), 0),
        ("GRE with all fields", gre_with(0xb000, kind, &[1, 0xdead_beef, 3], &ip), 0xdead_beef),
        ("MPLS in GRE", gre_with(0, MPLS, &[], &labels(2, &ip)), 0),
        ("MPLS", ethernet(MPLS, &labels(4, &ip)), 0),
        ("pseudowire", ethernet(MPLS, &labels(2, &[&[0; 4], &frame[..]].concat())), 0),
        (
            "VXLAN in IP in IP",
            in_v4(protocol::IPV6, &ipv6(protocol::UDP, &udp(VXLAN_PORT, &vxlan(VNI, &frame)))),
            VNI,
        ),
        (
            "Geneve in VXLAN",
            in_v4(
                protocol::UDP,
                &udp(
                    VXLAN_PORT,
                    &vxlan(7, &in_v4(protocol::UDP, &udp(GENEVE_PORT, &geneve(VNI, 3, kind, &ip)))),
                ),
            ),
            VNI,
        ),
    ]
}

#[test]
fn inner_segment_is_recorded_from_every_tunnel() {
    let Some(mut kernel) = Kernel::load(KernelConfig::default()) else { return };
    let plain = request(PSH_ACK, b"hello");
    let options = Packet { ip_options: vec![1; 8], tcp_options: vec![1; 12], ..plain.clone() };
    for inner in [plain.clone(), options, plain.v6()] {
        let (client, server) =
            if inner.v6 { (CLIENT6, SERVER6) } else { (v4_mapped(CLIENT4), v4_mapped(SERVER4)) };
        for (name, bytes, vni) in wrapped(&inner) {
            kernel.run(program::REQUESTS, &bytes);

            let (header, payload) = kernel.record_of(0).unwrap_or_else(|| panic!("{name}: no record"));
            assert_eq!((header.client_addr, header.server_addr), (client, server), "{name}");
            assert_eq!((header.client_port, header.server_port), (CLIENT_PORT, SERVER_PORT), "{name}");
            assert_eq!((header.vni, header.vlan, header.seq), (vni, 0, 1000), "{name}");
            assert_eq!((header.payload_len, &payload[..]), (5, &b"hello"[..]), "{name}");
        }
    }
    kernel.assert_no_record();
}

#[test]
fn inner_ports_choose_the_program() {
    let Some(mut kernel) = Kernel::load(KernelConfig::default()) else { return };
    for (name, bytes, _) in wrapped(&response(PSH_ACK, b"HTTP/1.1 200 OK")) {
        kernel.run(program::REQUESTS, &bytes);
        kernel.assert_no_record();
        kernel.run(program::RESPONSES, &bytes);
        assert_eq!(kernel.record().1, b"HTTP/1.1 200", "{name}");
    }
    for (_, bytes, _) in wrapped(&Packet { ports: (1, 2), ..request(PSH_ACK, b"hello") }) {
        ALL.into_iter().for_each(|program| kernel.run(program, &bytes));
    }
    kernel.assert_no_record();
}

#[test]
fn inner_tags_are_recorded_in_place_of_the_outer() {
    let Some(mut kernel) = Kernel::load(KernelConfig::default()) else { return };
    let plain = request(PSH_ACK, b"hello");
    let tagged = Packet { tags: vec![(0x9100, 7), (0x8100, 5)], ..plain.clone() };
    let outer = |ip: &[u8]| ethernet(0x8100, &[&[0, 9, 8, 0], ip].concat());
    let cases = [
        (outer(&ipv4(protocol::UDP, &udp(VXLAN_PORT, &vxlan(1, &tagged.ethernet())))), 7 | 5 << 16),
        (outer(&ipv4(protocol::UDP, &udp(VXLAN_PORT, &vxlan(1, &plain.ethernet())))), 0),
        (outer(&ipv4(protocol::IPV4, &plain.ip())), 9),
    ];
    for (bytes, vlan) in cases {
        kernel.run(program::REQUESTS, &bytes);
        assert_eq!(kernel.record().0.vlan, vlan);
    }
}

#[test]
fn tunnels_that_are_not_looked_into_are_counted() {
    let frame = request(PSH_ACK, b"hello").ethernet();
    let ip = request(PSH_ACK, b"hello").ip();
    let in_v4 = |protocol, rest: &[u8]| ethernet(IPV4, &ipv4(protocol, rest));
    let third = ipv4(protocol::IPV4, &ipv4(protocol::IPV4, &ipv4(protocol::IPV4, &ip)));
    let cases = [
        ("a third tunnel", ethernet(IPV4, &third), Counter::Tunnel),
        ("ERSPAN", in_v4(protocol::GRE, &gre(0x1000, 0x88be, &[1, 2, 3], &frame)), Counter::Tunnel),
        ("PPTP", in_v4(protocol::GRE, &gre(0x3081, 0x880b, &[1, 2], &ip)), Counter::Tunnel),
        ("PPPoE", ethernet(0x8864, &[&[0x11, 0, 0, 1, 0, 47, 0, 0x21], &ip[..]].concat()), Counter::Tunnel),
        ("NSH", ethernet(0x894f, &[&[0x0f, 0xc6, 1, 3, 0, 0, 1, 0], &ip[..]].concat()), Counter::Tunnel),
        ("pseudowire", ethernet(MPLS, &labels(1, &frame)), Counter::Tunnel),
        ("five labels", ethernet(MPLS, &labels(5, &ip)), Counter::TooDeep),
        (
            "Geneve with another type",
            in_v4(protocol::UDP, &udp(GENEVE_PORT, &geneve(VNI, 0, 0x894f, &ip))),
            Counter::Tunnel,
        ),
        ("fragment", with_byte(in_v4(protocol::IPV4, &ip), 20, 0x20), Counter::Fragment),
        (
            "first fragment of VXLAN",
            with_byte(in_v4(protocol::UDP, &udp(VXLAN_PORT, &vxlan(VNI, &frame))), 20, 0x20),
            Counter::Fragment,
        ),
        ("inner packet too long", with_byte(in_v4(protocol::IPV4, &ip), 37, 200), Counter::Malformed),
    ];
    for (name, bytes, counter) in cases {
        let Some(mut kernel) = Kernel::load(KernelConfig::default()) else { return };
        kernel.run(program::REQUESTS, &bytes);

        kernel.assert_no_record();
        assert_eq!(kernel.counters(), [(counter, 1)], "{name}");
    }
}

#[test]
fn what_only_looks_like_a_tunnel_leaves_no_trace() {
    let Some(mut kernel) = Kernel::load(KernelConfig::default()) else { return };
    let frame = request(PSH_ACK, b"hello").ethernet();
    let in_v4 = |protocol, rest: &[u8]| ethernet(IPV4, &ipv4(protocol, rest));
    let mut other = vxlan(VNI, &frame);
    other[0] = 0;
    let cases = [
        in_v4(protocol::UDP, &udp(VXLAN_PORT, &other)),
        in_v4(protocol::UDP, &udp(VXLAN_PORT + 1, &vxlan(VNI, &frame))),
        ethernet(IPV6, &ipv6(protocol::UDP, &udp(VXLAN_PORT + 1, &vxlan(VNI, &frame)))),
        in_v4(protocol::UDP, &udp(VXLAN_PORT, &vxlan(VNI, &ethernet(0x0806, &[0; 46])))),
        in_v4(protocol::GRE, &gre(0, 0x0806, &[], &[0; 28])),
        ethernet(0x8863, &[0; 46]),
    ];
    for bytes in cases {
        ALL.into_iter().for_each(|program| kernel.run(program, &bytes));
    }

    kernel.assert_no_record();
    assert_eq!(kernel.counters(), []);
}

#[test]
fn ports_of_tunnels_are_those_that_the_agent_gives() {
    let Some(mut kernel) = Kernel::load(KernelConfig::default()) else { return };
    let frame = request(PSH_ACK, b"hello").ethernet();
    let to = |port| ethernet(IPV4, &ipv4(protocol::UDP, &udp(port, &vxlan(VNI, &frame))));
    let is_recorded = |kernel: &mut Kernel, port| {
        kernel.run(program::REQUESTS, &to(port));
        kernel.record_of(0).is_some()
    };

    assert!(is_recorded(&mut kernel, VXLAN_PORT));
    kernel.set_tunnel_port(VXLAN_PORT, None);
    kernel.set_tunnel_port(65_535, Some(UdpTunnel::Vxlan));
    assert!(!is_recorded(&mut kernel, VXLAN_PORT));
    assert!(is_recorded(&mut kernel, 65_535));
    assert_eq!(kernel.counters(), [(Counter::CopiedClient, 2)]);
}

#[test]
fn own_sockets_are_those_of_the_inner_packet() {
    let Some(mut kernel) = Kernel::load(KernelConfig::default()) else { return };
    kernel.set_own_socket(CLIENT4, CLIENT_PORT);
    let tunnels = wrapped(&request(PSH_ACK, b"hello"));
    for (_, bytes, _) in &tunnels {
        kernel.run(program::REQUESTS, bytes);
    }

    kernel.assert_no_record();
    assert_eq!(kernel.counters(), [(Counter::Own, u64::try_from(tunnels.len()).unwrap())]);
}

#[test]
fn tunnels_are_looked_into_at_an_interface() {
    let Some(hosts) = crate::live::Hosts::create("o") else { return };
    let Some(mut kernel) = Kernel::load(KernelConfig::default()) else { return };
    hosts.server.inside(|| {
        crate::live::attach(&mut kernel, program::REQUESTS, "eth0", TcAttachType::Ingress);
    });
    let tunnels = wrapped(&request(PSH_ACK, b"hello"));
    let tagged: Vec<_> = tunnels
        .iter()
        .map(|(name, bytes, vni)| (*name, [&bytes[..12], &[0x81, 0, 0, 9], &bytes[12..]].concat(), *vni))
        .collect();

    for (name, bytes, vni) in tunnels.into_iter().chain(tagged) {
        hosts.client.inside(|| crate::sys::send_frame("eth0", &bytes));

        let (header, payload) = kernel.record_within(std::time::Duration::from_secs(5));
        assert_eq!((header.vni, &payload[..]), (vni, &b"hello"[..]), "{name}");
    }
}

/// A frame that `overlay` made, with one byte changed.
fn with_byte(mut frame: Vec<u8>, at: usize, value: u8) -> Vec<u8> {
    frame[at] = value;
    frame
}
