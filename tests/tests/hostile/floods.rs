//! Enters: more connections than there is room for, and what is no connection at all.

use mirror_agent::pipeline::{
    TcpFlags,
    reason::{EvictReason, FlowSkipReason},
};

use crate::attack::{ACK, Attack, Dice, RST, SYN, SYN_ACK};

const MIB: usize = 1024 * 1024;

#[test]
fn syn_flood_evicts_its_own() {
    let mut attack = Attack::on(16 * MIB);
    for stranger in 0..300_000 {
        attack.client(stranger, u32::MAX, 0, SYN, b"");
        // Two in three are answered; the answers are answered by nobody.
        if stranger % 3 != 0 {
            attack.server(stranger, u32::MAX, 0, SYN_ACK, 0);
        }
        // More than the table has room for.
        if stranger % 20_000 == 0 {
            attack.settle();
        }
    }
    let stats = attack.finish("SYN flood");
    assert!(stats.flows_evicted[EvictReason::Limit.index()] > 250_000);
    assert_eq!(stats.settled(), 0);
}

#[test]
fn data_from_nowhere_evicts_its_own() {
    let mut attack = Attack::on(16 * MIB);
    for stranger in 0..200_000 {
        attack.client(stranger, stranger, stranger, ACK, b"GET /forged HTTP/1.1\r\nHost: a\r\n\r\n");
        if stranger % 20_000 == 0 {
            attack.settle();
        }
    }
    let stats = attack.finish("data without connections");
    assert!(stats.flows_evicted[EvictReason::Limit.index()] > 150_000);
}

#[test]
fn two_hundred_thousand_idle_flows_fit_into_the_default_memory() {
    let mut attack = Attack::on(256 * MIB);
    idle_flows(&mut attack, 200_000);
    assert_eq!(attack.flows(), 200_001);
    let stats = attack.finish("200,000 idle flows");
    assert_eq!(stats.flows_evicted[EvictReason::Limit.index()], 0);
}

#[test]
fn idle_flows_that_do_not_fit_make_room_for_each_other() {
    let mut attack = Attack::on(16 * MIB);
    idle_flows(&mut attack, 200_000);
    let stats = attack.finish("200,000 idle flows in a small memory");
    assert!(stats.flows_evicted[EvictReason::Limit.index()] > 150_000);
}

/// Connections with one exchange each, and then silence.
fn idle_flows(attack: &mut Attack, count: u32) {
    let request = b"GET /idle HTTP/1.1\r\nHost: a\r\n\r\n";
    for stranger in 0..count {
        attack.handshake(stranger);
        attack.client(stranger, 0, 0, ACK, request);
        attack.server(stranger, 0, 31, ACK, 300);
        if stranger % 4_000 == 0 {
            attack.settle();
        }
    }
    attack.settle();
    assert_eq!(attack.mirrored, u64::from(count));
}

#[test]
fn port_scans_leave_nothing_behind() {
    let mut attack = Attack::on(16 * MIB);
    for stranger in 0..200_000 {
        match stranger % 4 {
            // A half-open scan: the scanner's kernel knows nothing of the connection.
            0 => {
                attack.client(stranger, u32::MAX, 0, SYN, b"");
                attack.server(stranger, u32::MAX, 0, SYN_ACK, 0);
                attack.client(stranger, 0, 0, RST, b"");
            }
            // A closed port.
            1 => {
                attack.client(stranger, u32::MAX, 0, SYN, b"");
                attack.server(stranger, u32::MAX, 0, TcpFlags(0x14), 0);
            }
            // A filtered one.
            2 => attack.client(stranger, u32::MAX, 0, SYN, b""),
            // FIN, Xmas and null scans.
            _ => {
                for flags in [0x01, 0x29, 0x00, 0x3f] {
                    attack.client(stranger, 0, 0, TcpFlags(flags), b"");
                }
            }
        }
        if stranger % 2_000 == 0 {
            attack.settle();
        }
    }
    let stats = attack.finish("port scans");
    assert_eq!(stats.settled(), 0);
}

#[test]
fn random_data_is_no_http() {
    let mut attack = Attack::on(16 * MIB);
    let mut dice = Dice(3);
    let mut bytes = [0; 200];
    for stranger in 0..60_000 {
        attack.handshake(stranger);
        for part in 0..3 {
            dice.fill(&mut bytes);
            // Not by chance the start of a method.
            bytes[0] |= 0x80;
            attack.client(stranger, part * 200, 0, ACK, &bytes);
        }
        if stranger % 1_000 == 0 {
            attack.settle();
        }
    }
    let stats = attack.finish("random data");
    assert_eq!(stats.flows_skipped[FlowSkipReason::NotHttp.index()], 60_000);
    assert_eq!(stats.settled(), 0);
}

#[test]
fn overlapping_garbage_is_held_within_bounds() {
    let mut attack = Attack::on(16 * MIB);
    let mut dice = Dice(5);
    let mut bytes = [0; 1_400];
    for stranger in 0..300 {
        attack.handshake(stranger);
    }
    for round in 0..60_000 {
        let len = 1 + dice.roll() as usize % 1_400;
        let fill = &mut bytes[..64.min(len)];
        dice.fill(fill);
        let (stranger, offset) = (dice.roll() % 300, 1 + dice.roll() % 200_000);
        attack.client(stranger, offset, 0, ACK, &bytes[..len]);
        if round % 1_000 == 0 {
            attack.settle();
        }
    }
    let stats = attack.finish("overlapping garbage");
    assert!(stats.conflicts > 1_000);
    assert!(stats.gap_bytes[0] > 0, "what did not fit was given up");
}
