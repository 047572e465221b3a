//! Enters: segments of connections that pass two interfaces, or only seem to. Leaves: one flow for each connection.

use std::time::Duration;

use super::*;
use crate::pipeline::reason::EvictReason;

const ENDED: Option<CloseCause> = Some(CloseCause::Ended);

/// Interface of the keys that [`Wire`] begins with, and another.
const UPLINK: u32 = 1;
const VETH: u32 = 2;

/// What the same connection looks like behind something that translates, tags or encapsulates.
fn translated() -> [FlowKey; 4] {
    let key = key(40_000);
    let pod = Endpoint::from(std::net::SocketAddr::new("10.1.0.9".parse().unwrap(), 8_080));
    [
        FlowKey { server: pod, ..key },
        FlowKey { vlan: 7, ..key },
        FlowKey { vni: 9, ..key },
        FlowKey { server: pod, vlan: 7, vni: 9, ..key },
    ]
}

impl Wire {
    /// A connection whose segments pass the uplink, then an interface at which it has the key `other`.
    fn at_two(other: FlowKey) -> (Self, FlowKey) {
        (Self::silent(&Limits::default()), other)
    }

    fn pass(&mut self, interface: u32, key: FlowKey) -> &mut Self {
        self.interface = interface;
        self.key = key;
        self
    }
}

/// Does the same at the uplink and at the other interface, in this order.
macro_rules! at_both {
    ($wire:ident, $other:expr, $($call:tt)+) => {
        $wire.pass(UPLINK, key(40_000)).$($call)+;
        $wire.pass(VETH, $other).$($call)+;
    };
}

#[test]
fn connection_that_passes_two_interfaces_is_one_flow_from_first_to_last_segment() {
    for other in translated() {
        let (mut wire, other) = Wire::at_two(other);
        at_both!(wire, other, client(-1, 0, b"", SYN));
        at_both!(wire, other, server(-1, 0, b"", SYN_ACK));
        at_both!(wire, other, client(0, 0, b"request", ACK));
        at_both!(wire, other, server(0, 7, b"answer", ACK));
        at_both!(wire, other, client(7, 6, b"again", FIN_ACK));
        at_both!(wire, other, server(6, 13, b"", FIN_ACK));
        at_both!(wire, other, client(13, 7, b"", ACK));
        assert_eq!(wire.closings(), [ENDED], "{other:?}");
        assert_eq!((wire.client_text(), wire.server_text()), ("requestagain.", "answer."));
        at_both!(wire, other, client(0, 0, b"request", ACK));
        at_both!(wire, other, client(-1, 0, b"", SYN));
        at_both!(wire, other, client(13, 7, b"", RST));
        assert_eq!(wire.closings(), [ENDED], "late duplicates open nothing at either");
        let stats = wire.table.take_stats();
        assert_eq!((stats.opened, stats.observed_twice), (1, 1));
        for side in Side::ALL.map(|side| *stats.side(side)) {
            assert_eq!((side.gap_bytes, side.conflicts, side.out_of_window), (0, 0, 0));
        }
        assert_eq!(stats.evicted(EvictReason::Reused), 0);
    }
}

#[test]
fn connection_with_the_same_key_at_two_interfaces_is_one_flow() {
    let (mut wire, same) = Wire::at_two(key(40_000));
    at_both!(wire, same, client(-1, 0, b"", SYN));
    at_both!(wire, same, server(-1, 0, b"", SYN_ACK));
    at_both!(wire, same, client(0, 0, b"request", FIN_ACK));
    at_both!(wire, same, server(0, 8, b"answer", FIN_ACK));
    assert_eq!(wire.closings(), [ENDED]);
    assert_eq!((wire.client_text(), wire.server_text()), ("request.", "answer."));
    assert_eq!(wire.table.stats().observed_twice, 0, "there is no second key to be recognised");
}

#[test]
fn equal_addresses_in_two_networks_of_one_interface_are_two_flows() {
    for other in translated() {
        let mut wire = Wire::silent(&Limits::default());
        wire.pass(VETH, key(1)).handshake();
        for key in [key(40_000), other] {
            wire.pass(UPLINK, key).handshake();
            wire.client(0, 0, b"request", ACK);
        }
        assert_eq!(wire.table.flows(), 3);
        assert_eq!(wire.table.stats().observed_twice, 0);
    }
}

#[test]
fn each_of_two_networks_of_an_interface_has_its_own_second_observation() {
    let [pod, ..] = translated();
    let mut wire = Wire::silent(&Limits::default());
    for (vlan, isn) in [(7, 1_000), (8, 2_000)] {
        wire.client_isn = isn;
        wire.pass(UPLINK, FlowKey { vlan, ..key(40_000) }).client(-1, 0, b"", SYN);
    }
    for (vlan, isn, text) in [(7, 1_000, &b"seven"[..]), (8, 2_000, b"eight")] {
        wire.client_isn = isn;
        let key = FlowKey { vlan: vlan + 100, ..pod };
        wire.pass(VETH, key).client(-1, 0, b"", SYN);
        wire.client(0, 0, text, ACK);
    }
    let texts: Vec<&str> =
        wire.recorder.flows.values().map(|(_, record)| record.client.text.as_str()).collect();
    assert_eq!(texts, ["seven", "eight"]);
}

#[test]
fn what_one_interface_missed_the_other_makes_up_for() {
    let [other, ..] = translated();
    let (mut wire, other) = Wire::at_two(other);
    at_both!(wire, other, client(-1, 0, b"", SYN));
    wire.pass(VETH, other).server(-1, 0, b"", SYN_ACK);
    wire.pass(UPLINK, key(40_000)).client(3, 0, b"def", ACK);
    wire.pass(VETH, other).client(0, 0, b"abcd", ACK);
    wire.pass(UPLINK, key(40_000)).server(0, 6, b"ok", ACK);
    assert_eq!((wire.client_text(), wire.server_text()), ("abcdef", "ok"));
    assert_eq!(wire.table.stats().client.gap_bytes, 0);
}

#[test]
fn requests_at_one_interface_and_responses_at_another_are_one_flow() {
    let [other, ..] = translated();
    for adopted in [false, true] {
        let (mut wire, other) = Wire::at_two(other);
        if !adopted {
            wire.pass(UPLINK, key(40_000)).client(-1, 0, b"", SYN);
            wire.pass(VETH, other).server(-1, 0, b"", SYN_ACK);
        }
        wire.pass(UPLINK, key(40_000)).client(0, 0, b"request", ACK);
        wire.pass(VETH, other).server(0, 7, b"answer", ACK);
        wire.pass(UPLINK, key(40_000)).client(7, 6, b"again", ACK);
        assert_eq!((wire.client_text(), wire.server_text()), ("requestagain", "answer"));
        assert_eq!(wire.table.flows(), 1);
    }
}

#[test]
fn connection_older_than_the_capture_is_recognised_by_its_numbers() {
    for first in [Side::Client, Side::Server] {
        let [other, ..] = translated();
        let (mut wire, other) = Wire::at_two(other);
        // Before there is a second interface.
        wire.pass(UPLINK, key(40_000)).send(first, 100, 500, b"abc", 3, ACK);
        wire.pass(VETH, other).send(first, 100, 500, b"abc", 3, ACK);
        at_both!(wire, other, send(first.peer(), 500, 103, b"xyz", 3, ACK));
        assert_eq!(wire.table.flows(), 1);
        let texts = (wire.client_text(), wire.server_text());
        assert_eq!(texts, if first == Side::Client { ("abc", "xyz") } else { ("xyz", "abc") });
    }
}

#[test]
fn another_connection_of_the_same_client_port_is_another_flow() {
    let [other, ..] = translated();
    for (client, server) in [(50_000_000, SERVER_ISN), (CLIENT_ISN, 90_000_000), (50_000_000, 90_000_000)] {
        for has_syn in [false, true] {
            let mut wire = Wire::silent(&Limits::default());
            for (interface, key, isns) in
                [(UPLINK, key(40_000), (CLIENT_ISN, SERVER_ISN)), (VETH, other, (client, server))]
            {
                (wire.client_isn, wire.server_isn) = isns;
                wire.pass(interface, key);
                if has_syn {
                    wire.handshake();
                }
                wire.client(0, 0, b"request", ACK);
                wire.server(0, 7, b"answer", ACK);
            }
            let texts: Vec<_> = wire
                .recorder
                .flows
                .values()
                .map(|(_, record)| (record.client.text.as_str(), record.server.text.as_str()))
                .filter(|texts| *texts != ("", ""))
                .collect();
            assert_eq!(texts, [("request", "answer"); 2], "{client} {server} {has_syn}");
        }
    }
}

#[test]
fn next_connection_of_the_same_ports_is_one_flow_wherever_it_shows_first() {
    let [other, ..] = translated();
    for veth_first in [false, true] {
        for end in [ACK, FIN_ACK] {
            let (mut wire, other) = Wire::at_two(other);
            at_both!(wire, other, handshake());
            at_both!(wire, other, client(0, 0, b"old", end));
            at_both!(wire, other, server(0, if end == ACK { 3 } else { 4 }, b"ok", end));
            (wire.client_isn, wire.server_isn) = (77_000_000, 88_000_000);
            let mut places = [(UPLINK, key(40_000)), (VETH, other)];
            if veth_first {
                places.reverse();
            }
            for flags in [SYN, SYN_ACK] {
                for (interface, key) in places {
                    wire.pass(interface, key);
                    let side = if flags == SYN { Side::Client } else { Side::Server };
                    wire.send(side, -1, 0, b"", 0, flags);
                }
            }
            for (interface, key) in places {
                wire.pass(interface, key).client(0, 0, b"new", ACK);
                wire.server(0, 3, b"yes", ACK);
            }
            let cause = if end == FIN_ACK { ENDED } else { Some(CloseCause::Evicted(EvictReason::Reused)) };
            assert_eq!(wire.closings(), [cause, None]);
            assert_eq!((wire.client_text(), wire.server_text()), ("new", "yes"));
        }
    }
}

#[test]
fn keys_of_a_flow_are_forgotten_with_it() {
    let [other, ..] = translated();
    let (mut wire, other) = Wire::at_two(other);
    at_both!(wire, other, handshake());
    wire.wait(Duration::from_secs(400));
    assert_eq!(wire.table.flows(), 0);
    at_both!(wire, other, client(0, 0, b"abc", ACK));
    assert_eq!(wire.closings(), [Some(CloseCause::Evicted(EvictReason::Idle)), None]);
    assert_eq!((wire.client_text(), wire.table.stats().observed_twice), ("abc", 2));
}

#[test]
fn flow_that_nobody_wants_is_followed_at_both_interfaces_to_its_end() {
    let [other, ..] = translated();
    let (mut wire, other) = Wire::at_two(other);
    wire.recorder.ignore_after = Some(3);
    at_both!(wire, other, handshake());
    at_both!(wire, other, client(0, 0, b"abc", ACK));
    at_both!(wire, other, client(3, 0, b"def", FIN_ACK));
    at_both!(wire, other, server(0, 7, b"", FIN_ACK));
    assert_eq!(wire.closings(), [ENDED]);
    assert_eq!(wire.client_text(), "abc");
}

#[test]
fn what_is_known_of_interfaces_takes_its_memory_from_what_is_held() {
    let limits = Limits { memory_bytes: 400_000, ..Limits::default() };
    let mut wire = Wire::silent(&limits);
    let [other, ..] = translated();
    for round in 1..20 {
        for port in 1..200 {
            for (interface, key) in
                [(UPLINK, key(port)), (VETH, FlowKey { client: key(port).client, ..other })]
            {
                wire.pass(interface, key).client(-1, 0, b"", SYN);
                wire.client(round * 2_000, 0, &[b'x'; 1_000], ACK);
                assert!(wire.table.bytes_held() <= 200_000, "{}", wire.table.bytes_held());
            }
        }
    }
    assert_eq!(wire.table.flows(), 199);
}

#[test]
fn gap_that_nobody_can_acknowledge_is_given_up_after_five_seconds() {
    let mut wire = Wire::silent(&Limits::default());
    wire.client(-1, 0, b"", SYN);
    wire.client(3, 0, b"def", ACK);
    wire.wait(Duration::from_secs(4));
    wire.client(9, 0, b"jkl", ACK);
    assert_eq!(wire.client_text(), "");
    wire.wait(Duration::from_secs(3));
    assert_eq!(wire.client_text(), "<3 lost>def", "the second gap is younger");
    wire.client(6, 0, b"ghi", ACK);
    wire.wait(Duration::from_secs(10));
    assert_eq!((wire.client_text(), wire.table.stats().client.gap_bytes), ("<3 lost>defghijkl", 3));
}

#[test]
fn gap_that_the_peer_may_acknowledge_is_kept_open_for_a_minute() {
    let mut wire = Wire::connected(&Limits::default());
    wire.client(3, 0, b"def", FIN_ACK);
    wire.wait(Duration::from_secs(59));
    assert_eq!(wire.client_text(), "");
    wire.wait(Duration::from_secs(3));
    assert_eq!(wire.client_text(), "<3 lost>def.");
}
