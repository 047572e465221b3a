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
