//! Enters: requests in the smallest pieces, and requests that never end.

use mirror_agent::pipeline::{Stats, reason::LostReason};

use crate::attack::{ACK, Attack};

const MIB: usize = 1024 * 1024;

#[test]
fn one_byte_segments_are_put_together() {
    let mut attack = Attack::on(32 * MIB);
    let head = format!("GET /small HTTP/1.1\r\nX-Filler: {}\r\n\r\n", "f".repeat(1_000));
    for stranger in 0..200 {
        attack.handshake(stranger);
    }
    // Every second stranger sends its odd bytes first.
    let len = u32::try_from(head.len()).unwrap();
    let order = |stranger: u32| {
        let odd_first = (1..len).step_by(2).chain((0..len).step_by(2));
        let in_order: Box<dyn Iterator<Item = u32>> =
            if stranger.is_multiple_of(2) { Box::new(0..len) } else { Box::new(odd_first) };
        in_order
    };
    let mut offsets: Vec<_> = (0..200).map(order).collect();
    for round in 0..len {
        for (stranger, offsets) in (0..).zip(&mut offsets) {
            let offset = offsets.next().unwrap();
            let byte = &head.as_bytes()[offset as usize..=offset as usize];
            attack.client(stranger, offset, 0, ACK, byte);
        }
        if round % 100 == 0 {
            attack.settle();
        }
    }
    attack.settle();
    assert_eq!(attack.mirrored, 200);
    assert_eq!(attack.finish("one-byte segments").settled(), 0);
}

#[test]
fn endless_heads_are_given_up() {
    let field = format!("X-Filler: {}\r\n", "f".repeat(900));
    let stats = unending("endless heads", "GET / HTTP/1.1\r\n", &field, 100);
    assert!(lost(&stats, LostReason::Memory) > 0 && lost(&stats, LostReason::HeadTooLarge) > 0, "{stats:?}");
}

#[test]
fn endless_start_lines_are_given_up() {
    let stats = unending("endless start lines", "GET /", &"s".repeat(900), 100);
    assert!(lost(&stats, LostReason::Memory) > 0 && lost(&stats, LostReason::HeadTooLarge) > 0, "{stats:?}");
}

#[test]
fn endless_chunk_extensions_are_given_up() {
    let start = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;";
    let stats = unending("endless chunk extensions", start, &"e".repeat(900), 30);
    assert!(lost(&stats, LostReason::Malformed) > 0, "{stats:?}");
}

#[test]
fn endless_trailers_are_given_up() {
    let start = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n";
    let stats =
        unending("endless trailers", start, "X-Trailer: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n", 400);
    assert!(lost(&stats, LostReason::Malformed) > 0, "{stats:?}");
}

#[test]
fn endless_bodies_are_given_up() {
    let start = "POST / HTTP/1.1\r\nContent-Length: 16000000\r\n\r\n";
    let stats = unending("endless bodies", start, &"b".repeat(1_400), 100);
    assert!(lost(&stats, LostReason::Memory) > 0, "{stats:?}");
}

#[test]
fn endless_chunks_of_one_byte_are_given_up() {
    let start = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
    let stats = unending("endless chunks", start, &"1\r\nx\r\n".repeat(200), 100);
    assert!(lost(&stats, LostReason::Memory) > 0, "{stats:?}");
}

#[test]
fn bodies_that_are_announced_and_never_sent_shut_nobody_out() {
    let mut attack = Attack::on(16 * MIB);
    // Each announces half of what is left of the memory for messages, and then says a byte now and then.
    let lens = [64 * 1024; 200].into_iter().chain((0..1_000).map(|shift| (64 * 1024) >> (shift / 3 % 17)));
    let starts: Vec<_> =
        lens.map(|len: u32| format!("GET / HTTP/1.1\r\nContent-Length:{len}\r\n\r\n")).collect();
    for round in 0..5 {
        for (stranger, start) in (0..).zip(&starts) {
            match round {
                0 => {
                    attack.handshake(stranger);
                    attack.client(stranger, 0, 0, ACK, start.as_bytes());
                }
                _ => {
                    let offset = u32::try_from(start.len()).unwrap() + round - 1;
                    attack.client(stranger, offset, 0, ACK, b"b");
                }
            }
            if stranger % 50 == 0 {
                attack.settle();
            }
        }
    }
    attack.finish("announced bodies");
}

/// A thousand strangers that begin a request and go on with it for ever.
fn unending(what: &str, start: &str, more: &str, rounds: u32) -> Stats {
    const STRANGERS: u32 = 1_000;
    let mut attack = Attack::on(16 * MIB);
    for stranger in 0..STRANGERS {
        attack.handshake(stranger);
        attack.client(stranger, 0, 0, ACK, start.as_bytes());
    }
    let (start, more_len) = (u32::try_from(start.len()).unwrap(), u32::try_from(more.len()).unwrap());
    for round in 0..rounds {
        for stranger in 0..STRANGERS {
            attack.client(stranger, start + round * more_len, 0, ACK, more.as_bytes());
            if stranger % 250 == 0 {
                attack.settle();
            }
        }
    }
    assert_eq!(attack.mirrored, 0);
    attack.finish(what)
}

fn lost(stats: &Stats, reason: LostReason) -> u64 {
    stats.lost[reason.index()]
}
