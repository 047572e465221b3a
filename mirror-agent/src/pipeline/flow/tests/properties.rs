//! Enters: random segments. Leaves: what must hold for all of them.

use std::time::Duration;

use proptest::{collection::vec, prelude::*, sample::Index};

use super::{
    super::{
        arrival::{Arrival, Bounds},
        assembler::Assembler,
        stats::SideStats,
    },
    model::Receiver,
    *,
};

/// Room for everything that a property sends.
fn roomy() -> Limits {
    Limits::default()
}

/// A stream in which no two places close to each other look the same.
fn stream(len: usize) -> Vec<u8> {
    (0..len).map(|idx| u8::try_from(idx * 7 % 251).unwrap()).collect()
}

/// Cuts `0..len` into segments.
fn cut(len: usize, cuts: &[Index]) -> Vec<(usize, usize)> {
    let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(len) + 1).collect();
    ends.push(len);
    ends.sort_unstable();
    ends.dedup();
    let starts = std::iter::once(0).chain(ends.iter().copied());
    starts.zip(ends.iter().copied()).collect()
}

proptest! {
    #[test]
    fn bytes_are_those_that_a_linux_receiver_reads(
        isn in any::<u32>(),
        segments in vec((0_usize..40, vec(b'a'..b'c', 1..12)), 1..40),
    ) {
        let mut receiver = Receiver::default();
        let mut wire = Wire::silent(&roomy());
        wire.client_isn = isn;
        wire.handshake();
        for (start, bytes) in &segments {
            receiver.receive(*start, bytes);
            wire.client(i64::try_from(*start).unwrap(), 0, bytes, ACK);
            let client = &wire.record().client;
            prop_assert_eq!(String::from_utf8_lossy(&client.data), String::from_utf8_lossy(&receiver.read));
            prop_assert_eq!(&client.gaps, &[]);
            for place in &receiver.disputed {
                prop_assert!(client.conflicts.contains(place), "{} of {}", place, client.detail);
            }
        }
        prop_assert_eq!(receiver.disputed.is_empty(), wire.record().client.conflicts.is_empty());
    }

    #[test]
    fn any_segmentation_in_any_order_gives_the_stream(
        isn in any::<u32>(),
        len in 1_usize..3_000,
        cuts in vec(any::<Index>(), 0..30),
        again in vec((any::<Index>(), 1_usize..400), 0..20),
        order in any::<u64>(),
        fin in any::<bool>(),
    ) {
        let bytes = stream(len);
        let mut segments = cut(len, &cuts);
        // Duplicates and retransmissions that overlap several segments.
        segments.extend(again.iter().map(|(start, length)| {
            let start = start.index(len);
            (start, len.min(start + length))
        }));
        shuffle(&mut segments, order);
        let mut wire = Wire::silent(&roomy());
        wire.client_isn = isn;
        wire.handshake();
        for (start, end) in segments {
            let flags = if fin && end == len { FIN_ACK } else { ACK };
            wire.client(i64::try_from(start).unwrap(), 0, &bytes[start..end], flags);
        }
        let client = &wire.record().client;
        prop_assert_eq!(&client.data, &bytes);
        prop_assert_eq!((client.gaps.len(), client.conflicts.len(), client.ended), (0, 0, fin));
        prop_assert_eq!(wire.table.reorder_bytes_held(), 0);
    }

    #[test]
    fn gaps_are_where_segments_were_dropped(
        isn in any::<u32>(),
        len in 2_usize..3_000,
        cuts in vec(any::<Index>(), 0..30),
        dropped in vec(any::<bool>(), 31),
        acked in vec(any::<bool>(), 31),
        patient in any::<bool>(),
    ) {
        let bytes = stream(len);
        let gap_patience = Duration::from_secs(u64::from(patient));
        let mut wire = Wire::silent(&Limits { gap_patience, ..roomy() });
        wire.client_isn = isn;
        wire.handshake();
        let mut gaps: Vec<(u64, u64)> = Vec::new();
        for ((start, end), (dropped, acked)) in cut(len, &cuts).into_iter().zip(dropped.into_iter().zip(acked)) {
            if dropped {
                match gaps.last_mut() {
                    Some((at, missing)) if *at + *missing == start as u64 => *missing += (end - start) as u64,
                    _ => gaps.push((start as u64, (end - start) as u64)),
                }
            } else {
                wire.client(i64::try_from(start).unwrap(), 0, &bytes[start..end], ACK);
            }
            if acked {
                wire.server(0, i64::try_from(end).unwrap(), b"", ACK);
            }
        }
        let end = i64::try_from(len).unwrap();
        wire.client(end, 0, b"", FIN_ACK);
        wire.server(0, end + 1, b"", ACK);
        wire.wait(gap_patience);
        wire.wait(gap_patience);
        let client = &wire.record().client;
        // A run of missing bytes may have been acknowledged, and so declared, in parts.
        let declared = client.gaps.iter().fold(Vec::<(u64, u64)>::new(), |mut runs, (at, missing)| {
            match runs.last_mut() {
                Some((from, so_far)) if *from + *so_far == *at => *so_far += missing,
                _ => runs.push((*at, *missing)),
            }
            runs
        });
        prop_assert_eq!(&declared, &gaps);
        prop_assert!(client.ended);
        prop_assert_eq!(client.offset, len as u64);
        prop_assert_eq!(client.data.len() as u64 + gaps.iter().map(|gap| gap.1).sum::<u64>(), len as u64);
        prop_assert_eq!(wire.table.stats().client.gap_bytes, gaps.iter().map(|gap| gap.1).sum::<u64>());
    }

    #[test]
    fn one_side_holds_no_more_than_it_may(
        start in any::<u32>(),
        patient in any::<bool>(),
        early in any::<bool>(),
        steps in vec((step(), 0_u32..80, any::<bool>(), any::<bool>(), 0_u8..8), 1..120),
    ) {
        let bounds = Bounds {
            bytes: 200,
            pieces: 5,
            patience: Duration::from_nanos(u64::from(patient) * 3),
            age_one_sided: Duration::MAX,
            age: Duration::MAX,
            doubt: Duration::MAX,
        };
        let mut assembler = Assembler::default();
        let mut stats = SideStats::default();
        let mut seen = SideRecord::default();
        assembler.start(SeqNumber(start));
        if early {
            let (seq, at) = (SeqNumber(start), Timestamp::ZERO);
            assembler.hold_early(&Arrival { seq, payload: b"early", len: 5, fin: false, at, acked: Acked::Unknown });
        }
        for (idx, (ahead, len, copied, ack, fin)) in steps.into_iter().enumerate() {
            let at = Timestamp::from_nanos(idx as u64);
            let seq = assembler.next_seq().advance(ahead.cast_unsigned());
            let bytes = vec![b'x'; if copied { len as usize } else { len as usize / 3 }];
            if ack {
                assembler.handle_ack(seq, at, &bounds, &mut stats, &mut |span| seen.note(span));
            } else {
                let arrival = Arrival { seq, payload: &bytes, len, fin: fin == 0, at, acked: Acked::Unknown };
                assembler.handle_data(&arrival, &bounds, &mut stats, &mut |span| seen.note(span));
            }
            if let Some(held) = assembler.held() {
                prop_assert!(held.payload_bytes() <= bounds.bytes && held.pieces() <= bounds.pieces);
                prop_assert!(!held.is_empty());
            }
            prop_assert_eq!(seen.ended, assembler.is_ended());
            prop_assert_eq!(assembler.start_seq(), SeqNumber(start));
        }
        assembler.flush(Timestamp::ZERO, &mut stats, &mut |span| seen.note(span));
        prop_assert!(assembler.held().is_none());
    }

    #[test]
    fn table_keeps_its_bounds_whatever_comes(
        patient in any::<bool>(),
        ignore_after in proptest::option::weighted(0.2, 0_u64..200),
        operations in vec(operation(), 1..120),
    ) {
        let gap_patience = Duration::from_nanos(u64::from(patient) * 50);
        let limits = Limits {
            flows: 3,
            flow_idle: Duration::from_nanos(2_000),
            flow_linger: Duration::from_nanos(100),
            reorder_bytes: 400,
            reorder_pieces: 6,
            gap_patience,
            memory_bytes: 6_000,
            ..Limits::default()
        };
        let mut wire = Wire::silent(&limits);
        wire.recorder.ignore_after = ignore_after;
        // Where each side of each flow stands, so that many segments are near the mark.
        let mut next = [[SeqNumber(0), SeqNumber(u32::MAX - 50)]; 3];
        for operation in operations {
            match operation {
                Operation::Segment { flow, interface, side, ahead, ack_ahead, flags, len, copied } => {
                    let own = usize::from(side == Side::Server);
                    // Two keys for each of three clients: their connections are the same, or not.
                    let client = flow % 3;
                    let vlan = u32::try_from(flow / 3).unwrap();
                    let seq = next[client][own].advance(ahead.cast_unsigned());
                    if ahead.unsigned_abs() < 500 {
                        next[client][own] = seq.advance(len);
                    }
                    let payload = vec![b'x'; len.min(copied) as usize];
                    let segment = Segment {
                        flow: FlowKey { vlan, ..key(u16::try_from(client).unwrap()) },
                        interface,
                        side,
                        at: wire.now,
                        seq,
                        ack: next[client][1 - own].advance(ack_ahead.cast_unsigned()),
                        flags: TcpFlags(flags),
                        payload: &payload,
                        payload_len: len,
                    };
                    wire.table.handle_segment(&segment, &mut wire.recorder);
                }
                Operation::Wait(nanos) => wire.wait(Duration::from_nanos(nanos)),
            }
            let open = wire.closings().iter().filter(|closed| closed.is_none()).count();
            prop_assert_eq!(wire.table.flows(), open);
            prop_assert!(open <= limits.flows);
            prop_assert!(wire.table.reorder_bytes_held() <= limits.memory_bytes / 4);
            prop_assert!(wire.table.bytes_held() <= limits.memory_bytes / 2);
        }
        wire.finish();
        prop_assert_eq!(wire.table.flows(), 0);
        prop_assert_eq!(wire.table.reorder_bytes_held(), 0);
        prop_assert!(wire.closings().iter().all(Option::is_some));
        prop_assert_eq!(wire.table.stats().opened, wire.closings().len() as u64);
    }
}

/// What can happen to a table.
#[derive(Clone, Debug)]
enum Operation {
    Segment {
        flow: usize,
        interface: u32,
        side: Side,
        ahead: i32,
        ack_ahead: i32,
        flags: u8,
        len: u32,
        copied: u32,
    },
    Wait(u64),
}

/// A distance from the next expected byte: mostly near.
fn step() -> impl Strategy<Value = i32> {
    prop_oneof![
        6 => Just(0),
        6 => -100_i32..300,
        2 => -5_000_i32..5_000,
        1 => any::<i32>(),
    ]
}

fn operation() -> impl Strategy<Value = Operation> {
    let side = prop_oneof![Just(Side::Client), Just(Side::Server)];
    // SYN, FIN and RST are rare, or nothing would last.
    let flags = prop_oneof![12 => Just(ACK.0), 2 => Just(0), 2 => Just(SYN.0), 1 => any::<u8>()];
    let len = prop_oneof![1 => Just(0_u32), 8 => 1_u32..150, 1 => any::<u32>()];
    let segment = (0_usize..6, 0_u32..3, side, step(), step(), flags, len, 0_u32..150).prop_map(
        |(flow, interface, side, ahead, ack_ahead, flags, len, copied)| Operation::Segment {
            flow,
            interface,
            side,
            ahead,
            ack_ahead,
            flags,
            len,
            copied,
        },
    );
    prop_oneof![20 => segment, 3 => (0_u64..400).prop_map(Operation::Wait)]
}

/// Puts `items` into an order that `seed` decides.
fn shuffle<T>(items: &mut [T], mut seed: u64) {
    for idx in (1..items.len()).rev() {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        items.swap(idx, usize::try_from(seed >> 33).unwrap() % (idx + 1));
    }
}
