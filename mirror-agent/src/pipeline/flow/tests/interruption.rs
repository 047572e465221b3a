//! Enters: conversations of which a stretch was not watched. Leaves: nothing; what is old stays old.

use super::*;

#[test]
fn what_is_sent_again_after_an_interruption_is_old() {
    let mut wire = Wire::connected(&Limits::default());
    wire.client(0, 0, b"abc", ACK);
    wire.server(0, 3, b"xyz", ACK);
    wire.interrupt();
    wire.client(0, 0, b"abc", ACK);
    wire.server(0, 3, b"xyz", ACK);
    assert_eq!((wire.client_text(), wire.server_text()), ("", ""));
    // What is sent again together with what follows is new from there on.
    wire.client(0, 3, b"abcdef", ACK);
    wire.server(1, 6, b"yz!", ACK);
    assert_eq!((wire.client_text(), wire.server_text()), ("def", "!"));
    assert_eq!(wire.closings(), [Some(CloseCause::Finished), None]);
    assert_eq!(wire.table.flows(), 1);
}

#[test]
fn stream_goes_on_after_an_interruption_wherever_it_is_seen_next() {
    let mut wire = Wire::connected(&Limits::default());
    wire.client(0, 0, b"abc", ACK);
    wire.interrupt();
    wire.client(50, 9, b"def", ACK);
    wire.client(53, 9, b"ghi", ACK);
    wire.interrupt();
    wire.interrupt();
    wire.client(53, 9, b"ghijkl", ACK);
    assert_eq!(wire.client_text(), "jkl");
    let (info, _) = wire.recorder.flows.last_key_value().unwrap().1;
    assert!(info.adopted);
}

#[test]
fn what_was_held_at_an_interruption_is_handed_on_before_it() {
    let mut wire = Wire::connected(&Limits::default());
    wire.client(3, 0, b"def", ACK);
    wire.interrupt();
    assert_eq!(wire.recorder.flows.first_key_value().unwrap().1.1.client.text, "<3 lost>def");
    assert_eq!(wire.table.reorder_bytes_held(), 0);
    wire.client(3, 0, b"def", ACK);
    assert_eq!(wire.client_text(), "");
}

#[test]
fn end_is_seen_across_an_interruption() {
    let mut wire = Wire::connected(&Limits::default());
    wire.client(0, 0, b"abc", FIN_ACK);
    wire.interrupt();
    wire.client(0, 0, b"abc", FIN_ACK);
    wire.server(0, 4, b"xyz", FIN_ACK);
    assert_eq!(wire.closings(), [Some(CloseCause::Finished), Some(CloseCause::Ended)]);
    assert_eq!((wire.client_text(), wire.server_text()), ("", "xyz."));
}

#[test]
fn connection_that_takes_the_place_of_another_unseen_is_followed() {
    for distance in [1_u32 << 25, 1 << 31] {
        let mut wire = Wire::connected(&Limits::default());
        wire.client(0, 0, b"abc", ACK);
        wire.interrupt();
        wire.client_isn = wire.client_isn.wrapping_sub(distance);
        wire.client(0, 0, b"new", ACK);
        assert_eq!(wire.client_text(), "new");
    }
    let mut wire = Wire::connected(&Limits::default());
    wire.client(0, 0, b"abc", ACK);
    wire.interrupt();
    (wire.client_isn, wire.server_isn) =
        (wire.client_isn.wrapping_sub(100), wire.server_isn.wrapping_sub(100));
    wire.handshake();
    wire.client(0, 0, b"new", ACK);
    wire.server(0, 3, b"too", ACK);
    assert_eq!((wire.client_text(), wire.server_text()), ("new", "too"));
}

/// Further than any window, ahead or, as numbers wrap, behind.
const FAR: [i64; 3] = [(1 << 30) + 100, 1 << 31, (3 << 30) - 100];

#[test]
fn stream_goes_on_far_from_what_was_seen_of_it_where_both_sides_say_so() {
    for far in FAR {
        // The server's, by what the client acknowledges first, or by what it sends itself.
        for first in [Side::Client, Side::Server] {
            let mut wire = Wire::connected(&Limits::default());
            wire.client(0, 0, b"abc", ACK);
            wire.server(0, 3, b"xyz", ACK);
            if first == Side::Server {
                wire.server(far, 3, b"unconfirmed", ACK);
            }
            wire.client(3, far + 11, b"def", ACK);
            wire.server(far + 11, 6, b"new", ACK);
            let gap = far + 11 - 3;
            assert_eq!(wire.server_text(), format!("xyz<{gap} unmeasured>new"), "{first:?} first");
            assert_eq!(wire.client_text(), "abcdef");
            assert_eq!(wire.closings(), [None]);
            assert_eq!(wire.table.stats().server.gap_bytes, u64::try_from(gap).unwrap());
        }
        // The client's likewise.
        let mut wire = Wire::connected(&Limits::default());
        wire.client(0, 0, b"abc", ACK);
        wire.client(far, 0, b"unconfirmed", ACK);
        wire.server(0, far + 11, b"ok", ACK);
        wire.client(far + 11, 2, b"new", FIN_ACK);
        assert_eq!(wire.client_text(), format!("abc<{} unmeasured>new.", far + 8));
    }
}

#[test]
fn both_streams_go_on_far_from_what_was_seen_of_them() {
    let mut wire = Wire::connected(&Limits::default());
    wire.client(0, 0, b"abc", ACK);
    let (mut client, mut server) = (FAR[0], FAR[1]);
    for _ in 0..3 {
        wire.client(client, server, b"ask", ACK);
        client += 3;
        wire.server(server, client, b"tell", ACK);
        server += 4;
    }
    assert!(wire.client_text().ends_with("unmeasured>askask"), "{}", wire.client_text());
    assert!(wire.server_text().ends_with("unmeasured>telltelltell"), "{}", wire.server_text());
}

#[test]
fn number_far_from_what_was_seen_is_not_believed_of_one_side_nor_where_a_nearer_one_comes_between() {
    for far in FAR {
        let mut wire = Wire::connected(&Limits::default());
        wire.server(0, 0, b"xyz", ACK);
        for ahead in 0..5 {
            wire.server(far + ahead, 0, b"u", ACK);
        }
        wire.server(3, 0, b"!", ACK);
        wire.client(0, far + 5, b"", ACK);
        // Nor where the two are far from each other.
        wire.server((1 << 31) + (5 << 20), 0, b"u", ACK);
        wire.finish();
        assert_eq!(wire.server_text(), "xyz!");
        assert_eq!(wire.table.stats().server.out_of_window, 6);
        assert_eq!(wire.table.stats().client.out_of_window, 1);
    }
}

#[test]
fn what_is_held_is_handed_on_before_a_stream_goes_on_far_from_it() {
    let mut wire = Wire::connected(&Limits::default());
    wire.client(3, 0, b"def", ACK);
    wire.client(FAR[0], 0, b"far", ACK);
    wire.server(0, FAR[0] + 3, b"ok", ACK);
    assert_eq!(wire.client_text(), format!("<3 lost>def<{} unmeasured>", FAR[0] + 3 - 6));
    assert_eq!(wire.table.reorder_bytes_held(), 0);
}
