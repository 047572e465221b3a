//! Enters: segments of several connections, and time. Leaves: flows that open and close.

use std::time::Duration;

use super::*;
use crate::pipeline::reason::EvictReason;

const ENDED: Option<CloseCause> = Some(CloseCause::Ended);

fn evicted(reason: EvictReason) -> Option<CloseCause> {
    Some(CloseCause::Evicted(reason))
}

#[test]
fn only_a_syn_or_data_opens_a_flow() {
    for (flags, payload, opens, adopted) in [
        (SYN, &b""[..], true, false),
        (ACK, b"x", true, true),
        (FIN_ACK, b"x", true, true),
        (ACK, b"", false, false),
        (FIN_ACK, b"", false, false),
        (RST, b"", false, false),
        (RST, b"x", false, false),
        (TcpFlags(SYN.0 | RST.0), b"x", false, false),
        (TcpFlags::default(), b"x", false, false),
        (FIN, b"x", false, false),
    ] {
        let mut wire = Wire::silent(&Limits::default());
        wire.client(0, 0, payload, flags);
        let adoptions: Vec<bool> = wire.recorder.flows.values().map(|(flow, _)| flow.adopted).collect();
        let expected = if opens { vec![adopted] } else { vec![] };
        assert_eq!(adoptions, expected, "{flags:?} with {payload:?}");
        assert_eq!(wire.table.flows(), usize::from(opens));
    }
}

#[test]
fn missed_syn_is_made_up_for_by_the_syn_ack() {
    let mut wire = Wire::silent(&Limits::default());
    wire.server(-1, 0, b"", SYN_ACK);
    wire.client(3, 0, b"def", ACK);
    wire.client(0, 0, b"abc", ACK);
    assert_eq!(wire.client_text(), "abcdef");
}

#[test]
fn flow_is_closed_when_both_sides_have_ended() {
    let mut wire = Wire::connected(&Limits::default());
    wire.client(0, 0, b"req", FIN_ACK);
    assert_eq!(wire.closings(), [None]);
    wire.server(0, 4, b"resp", FIN_ACK);
    assert_eq!(wire.closings(), [ENDED]);
    assert_eq!((wire.client_text(), wire.server_text()), ("req.", "resp."));
    assert_eq!(wire.table.flows(), 0);
}

#[test]
fn late_duplicates_of_a_flow_that_ended_open_nothing() {
    for end in [FIN_ACK, RST_ACK] {
        let mut wire = Wire::connected(&Limits::default());
        wire.client(0, 0, b"req", ACK);
        wire.server(0, 3, b"", end);
        wire.client(3, 1, b"", end);
        wire.client(0, 0, b"req", ACK);
        wire.client(-1, 0, b"", SYN);
        wire.wait(Duration::from_secs(4));
        wire.client(0, 0, b"req", ACK);
        assert_eq!(wire.closings(), [ENDED]);
        wire.wait(Duration::from_secs(1));
        wire.client(0, 0, b"req", ACK);
        assert_eq!(wire.closings(), [ENDED, None], "the entry is kept for five seconds, no longer");
    }
}

/// A connection that has ended, of which the client has sent 60 bytes and the server 4.
fn ended_wire(end: TcpFlags) -> Wire {
    let mut wire = Wire::connected(&Limits::default());
    wire.client(0, 0, b"GET /a HTTP/1.1\r\nHost: a.test\r\n\r\n", ACK);
    wire.client(34, 0, b"GET /b HTTP/1.1\r\n\r\n", ACK);
    wire.client(53, 0, b"\r\n--end", ACK);
    wire.server(0, 60, b"resp", end);
    wire.client(60, 5, b"", end);
    assert_eq!(wire.closings(), [ENDED]);
    wire
}

#[test]
fn request_with_other_numbers_after_the_end_is_of_another_connection() {
    for end in [FIN_ACK, RST_ACK] {
        for (seq, ack) in [
            (62, 6),
            (2_000_000, 3_000_000),
            (-40, -1),
            (-2_000_000_000, 7_000),
            (i64::from(u32::MAX / 2), -9),
        ] {
            let mut wire = ended_wire(end);
            wire.client(seq, ack, b"GET /c HTTP/1.1\r\n\r\n", ACK);
            wire.server(ack, seq + 19, b"HTTP/1.1 200 OK\r\n\r\n", ACK);
            assert_eq!(wire.closings(), [ENDED, None], "{seq} {ack}");
            assert_eq!(wire.client_text(), "GET /c HTTP/1.1\r\n\r\n");
            assert_eq!(wire.server_text(), "HTTP/1.1 200 OK\r\n\r\n");
        }
    }
}

#[test]
fn what_may_be_of_a_connection_that_ended_opens_nothing() {
    let request = &b"GET /c HTTP/1.1\r\n\r\n"[..];
    for (seq, ack, payload) in [
        // Both sent again, or shortly behind the end.
        (0, 0, request),
        (34, 4, request),
        (60, 5, request),
        (61, 5, request),
        (-10, 0, request),
        // One of the numbers is.
        (34, 3_000_000, request),
        (2_000_000, 4, request),
        // No request.
        (2_000_000, 3_000_000, b"DATA"),
        (2_000_000, 3_000_000, b"HTTP/1.1 200 OK\r\n\r\n"),
    ] {
        let mut wire = ended_wire(FIN_ACK);
        wire.client(seq, ack, payload, ACK);
        wire.server(2_000_000, 3_000_000, request, ACK);
        wire.client(seq, ack, payload, RST_ACK);
        assert_eq!(wire.closings(), [ENDED], "{seq} {ack}");
    }
}

#[test]
fn of_a_connection_that_lacks_its_beginning_what_lay_before_may_be_sent_again_after_its_end() {
    let mut wire = Wire::silent(&Limits::default());
    wire.client(1_000_000, 9_000_000, b"x", FIN_ACK);
    wire.server(9_000_000, 1_000_002, b"", FIN_ACK);
    wire.client(900_000, 8_000_000, b"GET /c HTTP/1.1\r\n\r\n", ACK);
    assert_eq!(wire.closings(), [ENDED]);
    wire.client(-20_000_000, -20_000_000, b"GET /c HTTP/1.1\r\n\r\n", ACK);
    assert_eq!(wire.closings(), [ENDED, None]);
}

#[test]
fn reset_ends_both_sides_and_what_was_not_acknowledged_is_not_handed_on() {
    let mut wire = Wire::connected(&Limits::default());
    wire.client(0, 0, b"abc", ACK);
    wire.client(6, 0, b"ghi", ACK);
    wire.server(0, 3, b"", RST_ACK);
    assert_eq!((wire.client_text(), wire.server_text()), ("abc#", "#"));
    assert_eq!(wire.table.reorder_bytes_held(), 0);
}

#[test]
fn reset_that_acknowledges_a_gap_hands_on_what_the_receiver_read() {
    let mut wire = Wire::connected(&Limits::default());
    wire.client(3, 0, b"def", ACK);
    wire.server(0, 6, b"", RST_ACK);
    assert_eq!(wire.client_text(), "<3 lost>def#");
}

#[test]
fn reset_ends_patience() {
    let mut wire = Wire::connected(&Limits { gap_patience: Duration::from_secs(1), ..Limits::default() });
    wire.client(3, 0, b"def", ACK);
    wire.client(9, 0, b"jkl", ACK);
    wire.server(0, 6, b"", ACK);
    wire.client(12, 0, b"", RST);
    assert_eq!(wire.client_text(), "<3 lost>def#");
}

#[test]
fn fin_in_a_syn_is_not_believed() {
    let mut wire = Wire::silent(&Limits::default());
    wire.client(-1, 0, b"", TcpFlags(SYN.0 | FIN.0));
    wire.handshake();
    wire.client(0, 0, b"abc", ACK);
    assert_eq!(wire.client_text(), "abc");
}

#[test]
fn reset_out_of_place_is_not_believed() {
    let mut wire = Wire::connected(&Limits::default());
    wire.client(0, 0, b"abc", ACK);
    wire.client(100_000_000, 0, b"", RST);
    wire.server(-100_000_000, 0, b"", RST);
    wire.client(3, 0, b"def", ACK);
    assert_eq!(wire.client_text(), "abcdef");
    assert_eq!(wire.table.stats().client.out_of_window, 1);
    assert_eq!(wire.table.stats().server.out_of_window, 1);
}

#[test]
fn refused_connection_is_closed() {
    let mut wire = Wire::silent(&Limits::default());
    wire.client(-1, 0, b"", SYN);
    // A refusal has the number 0, whatever the server would have chosen.
    wire.server_isn = u32::MAX;
    wire.server(0, 5_000_000, b"", RST_ACK);
    assert_eq!(wire.closings(), [None], "it must acknowledge the SYN");
    wire.server(0, 0, b"", RST_ACK);
    assert_eq!(wire.closings(), [ENDED]);
}

#[test]
fn syn_sent_again_is_no_news() {
    let mut wire = Wire::silent(&Limits::default());
    wire.client(-1, 0, b"", SYN);
    wire.client(-1, 0, b"", SYN);
    wire.server(-1, 0, b"", SYN_ACK);
    wire.server(-1, 0, b"", SYN_ACK);
    wire.client(0, 0, b"req", ACK);
    wire.client(-1, 0, b"", SYN);
    wire.server(-1, 0, b"", SYN_ACK);
    wire.client(3, 0, b"!", ACK);
    assert_eq!(wire.closings(), [None]);
    assert_eq!(wire.client_text(), "req!");
}

#[test]
fn syn_with_another_number_is_a_new_connection() {
    for (end, cause) in [(ACK, evicted(EvictReason::Reused)), (FIN_ACK, ENDED)] {
        let mut wire = Wire::connected(&Limits::default());
        wire.client(0, 0, b"old", end);
        wire.client(6, 0, b"", ACK);
        wire.client_isn = 99;
        wire.server_isn = 1_234_567;
        wire.handshake();
        wire.client(0, 0, b"new", ACK);
        wire.server(0, 3, b"resp", ACK);
        assert_eq!(wire.closings(), [cause, None]);
        assert_eq!((wire.client_text(), wire.server_text()), ("new", "resp"));
    }
}

#[test]
fn port_is_taken_again_while_the_old_flow_lingers() {
    let mut wire = Wire::connected(&Limits::default());
    wire.client(0, 0, b"", FIN_ACK);
    wire.server(0, 1, b"", FIN_ACK);
    wire.client_isn = 99;
    wire.handshake();
    wire.client(0, 0, b"new", ACK);
    assert_eq!(wire.closings(), [ENDED, None]);
    assert_eq!(wire.client_text(), "new");
    assert_eq!(wire.table.stats().evicted(EvictReason::Reused), 0);
}

#[test]
fn data_of_one_who_has_not_heard_the_server_is_not_taken() {
    let mut wire = Wire::silent(&Limits::default());
    wire.client(-1, 0, b"", SYN);
    wire.server(-1, 0, b"", SYN_ACK);
    for ack in [-1, 2, 1 << 20, -(1 << 20), 1 << 31] {
        wire.client(0, ack, b"evil", ACK);
        wire.client(0, ack, b"", FIN_ACK);
    }
    assert_eq!((wire.client_text(), wire.table.stats().client.refused), ("", 10));
    wire.client(0, 0, b"good", ACK);
    assert_eq!(wire.client_text(), "good");
    // Who has heard it once may acknowledge what the capture has lost.
    wire.client(4, 500, b"more", ACK);
    assert_eq!((wire.client_text(), wire.server_text()), ("goodmore", "<500 lost>"));
}

#[test]
fn client_is_heard_also_where_its_first_request_and_the_beginning_of_the_answer_were_lost() {
    let mut wire = Wire::silent(&Limits::default());
    wire.client(-1, 0, b"", SYN);
    wire.server(-1, 0, b"", SYN_ACK);
    wire.server(5, 3, b"end", ACK);
    wire.client(3, 8, b"next", ACK);
    assert_eq!((wire.client_text(), wire.server_text()), ("<3 lost>next", "<5 lost>end"));
    assert_eq!(wire.table.stats().client.refused, 0);
}

#[test]
fn where_the_answer_to_the_syn_or_the_syn_was_not_seen_any_number_may_be_right() {
    let mut wire = Wire::silent(&Limits::default());
    wire.client(-1, 0, b"", SYN);
    wire.client(0, 77, b"one", ACK);
    assert_eq!(wire.client_text(), "one");
    let mut wire = Wire::silent(&Limits::default());
    wire.server(0, 0, b"old", ACK);
    wire.client(0, 77, b"one", ACK);
    assert_eq!(wire.client_text(), "one");
    let mut wire = Wire::connected(&Limits { gap_patience: Duration::from_secs(1), ..Limits::default() });
    wire.client(0, 77, b"one", ACK);
    assert_eq!(wire.client_text(), "one", "the answer may come later in a file");
}

#[test]
fn stale_syn_ack_changes_nothing() {
    let mut wire = Wire::silent(&Limits::default());
    wire.client(-1, 0, b"", SYN);
    wire.server(5_000, 9_000, b"", SYN_ACK);
    wire.server(-1, 0, b"", SYN_ACK);
    wire.server(0, 0, b"hello", ACK);
    assert_eq!(wire.closings(), [None]);
    assert_eq!(wire.server_text(), "hello");
}

#[test]
fn idle_flow_is_evicted_and_taken_up_again() {
    let mut wire = Wire::connected(&Limits::default());
    wire.client(0, 0, b"abc", ACK);
    wire.wait(Duration::from_secs(299));
    wire.server(0, 3, b"", ACK);
    wire.wait(Duration::from_secs(299));
    assert_eq!(wire.closings(), [None]);
    // A segment that cannot belong to the flow keeps nothing alive.
    wire.client(1 << 30 | 1 << 20, 0, b"far", ACK);
    wire.wait(Duration::from_secs(1));
    assert_eq!(wire.closings(), [evicted(EvictReason::Idle)]);
    wire.client(3, 0, b"def", ACK);
    assert_eq!(wire.client_text(), "def");
    assert_eq!(wire.table.stats().evicted(EvictReason::Idle), 1);
    assert_eq!(wire.table.stats().adopted, 1);
}

#[test]
fn ignored_flow_is_not_forgotten_for_being_idle() {
    let mut wire = Wire::connected(&Limits::default());
    wire.recorder.ignore_after = Some(0);
    wire.client(0, 0, b"abc", ACK);
    wire.wait(Duration::from_secs(1_000));
    wire.client(3, 0, b"def", ACK);
    assert_eq!(wire.closings(), [None]);
    assert_eq!(wire.table.stats().adopted, 0);
}

#[test]
fn flow_without_a_segment_for_longest_makes_room() {
    let mut wire = Wire::silent(&Limits { flows: 3, ..Limits::default() });
    for port in [1, 2, 3, 1, 4] {
        wire.key = key(port);
        wire.client(0, 0, b"x", ACK);
    }
    let open: Vec<u16> = wire
        .recorder
        .flows
        .values()
        .filter(|(_, record)| record.closed.is_none())
        .map(|(flow, _)| flow.key.client.port)
        .collect();
    assert_eq!(open, [1, 3, 4]);
    assert_eq!(wire.table.stats().evicted(EvictReason::Limit), 1);
}

#[test]
fn flows_in_which_nobody_is_heard_make_room_first() {
    let mut wire = Wire::connected(&Limits { flows: 8, ..Limits::default() });
    wire.client(0, 0, b"abc", ACK);
    let heard = wire.key;
    // SYNs that are answered, data without a handshake, and guesses at the server's number.
    for port in 2..100 {
        wire.key = key(port);
        wire.client(-1, 0, b"", SYN);
        wire.server(-1, 0, b"", SYN_ACK);
        wire.client(0, 1_000, b"x", ACK);
        wire.key = key(port + 100);
        wire.client(0, 0, b"x", ACK);
    }
    wire.key = heard;
    wire.client(3, 0, b"def", ACK);
    assert_eq!(wire.recorder.flows.first_key_value().unwrap().1.1.client.text, "abcdef");
    assert_eq!(wire.table.stats().evicted(EvictReason::Limit), 189);
}

#[test]
fn new_flow_finds_a_place_among_many_that_are_heard() {
    let mut wire = Wire::silent(&Limits { flows: 8, ..Limits::default() });
    for port in 1..20 {
        wire.key = key(port);
        wire.handshake();
        wire.client(0, 0, b"abc", ACK);
        wire.wait(Duration::from_secs(1));
    }
    wire.key = key(50);
    wire.client(-1, 0, b"", SYN);
    wire.key = key(51);
    wire.client(-1, 0, b"", SYN);
    wire.key = key(50);
    wire.server(-1, 0, b"", SYN_ACK);
    wire.client(0, 0, b"def", ACK);
    assert_eq!(wire.recorder.flows.values().nth(19).unwrap().1.client.text, "def");
    assert_eq!(wire.table.stats().adopted, 0, "it was not evicted between");
}

#[test]
fn flows_that_ended_make_room_first() {
    let mut wire = Wire::silent(&Limits { flows: 2, ..Limits::default() });
    wire.client(-1, 0, b"", SYN);
    wire.key = key(2);
    wire.client(-1, 0, b"", SYN);
    wire.server(0, 0, b"", RST_ACK);
    wire.key = key(3);
    wire.client(-1, 0, b"", SYN);
    assert_eq!(wire.closings(), [None, ENDED, None]);
}

#[test]
fn entries_cost_at_most_a_quarter_of_the_memory() {
    let limits = Limits { memory_bytes: 400_000, ..Limits::default() };
    let mut wire = Wire::silent(&limits);
    for port in 1..5_000 {
        wire.key = key(port);
        wire.client(-1, 0, b"", SYN);
        assert!(wire.table.bytes_held() <= 100_000);
    }
    assert!(wire.table.flows() > 300, "{} flows", wire.table.flows());
}

#[test]
fn all_flows_together_hold_at_most_a_quarter_of_the_memory() {
    let limits = Limits { memory_bytes: 400_000, ..Limits::default() };
    let mut wire = Wire::silent(&limits);
    for round in 1..20 {
        for port in 1..20 {
            wire.key = key(port);
            wire.client(-1, 0, b"", SYN);
            wire.client(round * 2_000, 0, &[b'x'; 1_000], ACK);
            assert!(wire.table.reorder_bytes_held() <= 100_000);
        }
    }
    // Those that have waited for longest gave way.
    let texts: Vec<&str> =
        wire.recorder.flows.values().map(|(_, record)| record.client.text.as_str()).collect();
    assert!(texts[0].starts_with("<2000 lost>xxx"));
    assert!(wire.table.flows() == 19);
}

#[test]
fn ignored_flow_is_followed_to_its_end() {
    let mut wire = Wire::connected(&Limits::default());
    wire.recorder.ignore_after = Some(3);
    wire.client(6, 0, b"ghi", ACK);
    wire.client(0, 0, b"abc", ACK);
    assert_eq!(wire.table.reorder_bytes_held(), 0);
    wire.client(3, 0, b"def", ACK);
    wire.server(0, 3, b"resp", ACK);
    assert_eq!((wire.client_text(), wire.server_text()), ("abc", ""));
    wire.client(9, 0, b"", FIN_ACK);
    assert_eq!(wire.closings(), [None]);
    wire.server(4, 10, b"", FIN_ACK);
    assert_eq!(wire.closings(), [ENDED]);
}

#[test]
fn time_only_moves_forward() {
    let mut wire = Wire::connected(&Limits::default());
    wire.wait(Duration::from_secs(200));
    wire.client(0, 0, b"abc", ACK);
    wire.now = Timestamp::ZERO;
    wire.client(3, 0, b"def", ACK);
    wire.wait(Duration::from_secs(250));
    assert_eq!(wire.closings(), [None]);
    assert_eq!(wire.client_text(), "abcdef");
}

#[test]
fn flows_that_differ_in_the_virtual_network_only_are_two() {
    let mut wire = Wire::silent(&Limits::default());
    wire.client(0, 0, b"abc", ACK);
    wire.key.vni = 7;
    wire.client(0, 0, b"def", ACK);
    assert_eq!(wire.table.flows(), 2);
}
