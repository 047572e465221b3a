//! Enters: flows that hold much out of order. Leaves: which of them give up for it.

use super::*;

/// A quarter of it is for what is held.
const MEMORY_BYTES: usize = 1 << 20;

/// A flow that holds one byte for as long as any, and gets the one before it once so many `others` have come.
fn oldest_beside(count: u16, others: impl Fn(&mut Wire)) -> String {
    let limits = Limits { memory_bytes: MEMORY_BYTES, ..Limits::default() };
    let mut wire = Wire::connected(&limits);
    let good = wire.key;
    wire.client(1, 0, b"b", ACK);
    for port in 1..=count {
        wire.key = key(port);
        others(&mut wire);
        assert!(wire.table.reorder_bytes_held() <= MEMORY_BYTES / 4);
    }
    wire.key = good;
    wire.client(0, 0, b"a", ACK);
    wire.recorder.flows.first_key_value().unwrap().1.1.client.text.clone()
}

#[test]
fn strangers_give_up_before_others() {
    let text = oldest_beside(300, |wire| {
        wire.client(-1, 0, b"", SYN);
        wire.client(1, 0, &[b'x'; 2000], ACK);
    });
    assert_eq!(text, "ab");
}

#[test]
fn those_that_hold_much_give_up_before_others() {
    let text = oldest_beside(300, |wire| {
        wire.handshake();
        for piece in 0..8 {
            wire.client(1 + 1001 * piece, 0, &[b'x'; 1000], ACK);
        }
    });
    assert_eq!(text, "ab");
}

#[test]
fn of_equals_the_one_that_has_held_for_longest_gives_up() {
    let text = oldest_beside(700, |wire| {
        wire.handshake();
        wire.client(1, 0, b"x", ACK);
    });
    assert_eq!(text, "<1 lost>b");
}
