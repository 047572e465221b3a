//! Enters: segments of one connection. Leaves: its two streams.

use std::time::Duration;

use super::*;

/// Sends client data to a connection in this order and gives the client's stream in detail.
fn client_detail(segments: &[(i64, &str)]) -> String {
    let mut wire = Wire::connected(&Limits::default());
    for (offset, bytes) in segments {
        wire.client(*offset, 0, bytes.as_bytes(), ACK);
    }
    wire.record().client.detail.replace("@0", "")
}

#[test]
fn overlaps_are_decided_as_linux_does() {
    // Measured with crafted segments into a real socket.
    for (segments, expected) in [
        (&[(0, "abc"), (0, "XYZd")][..], "abc|d"),
        (&[(1, "XXX"), (0, "GOOD")], "!GOOD"),
        (&[(1, "AAA"), (1, "BBB"), (0, "x")], "x|!AAA"),
        (&[(1, "AAA"), (2, "BBB"), (0, "x")], "x|!AAA|B"),
        (&[(3, "AAA"), (2, "BB"), (0, "xx")], "xx|!BB|AA"),
        (&[(3, "A"), (2, "BBB"), (0, "xx")], "xx|!BBB"),
    ] {
        assert_eq!(client_detail(segments), expected, "{segments:?}");
    }
}

#[test]
fn equal_bytes_are_no_conflict() {
    for segments in [
        &[(1, "bcd"), (0, "abcd")][..],
        &[(1, "bcd"), (1, "bcd"), (0, "a")],
        &[(1, "bcd"), (2, "cde"), (0, "ab")],
        &[(3, "def"), (2, "cd"), (0, "ab")],
        &[(3, "d"), (2, "cde"), (0, "abc")],
    ] {
        let detail = client_detail(segments);
        assert!(!detail.contains('!'), "{segments:?} gave {detail}");
    }
}

#[test]
fn conflict_outlives_the_piece_it_was_found_on() {
    // The middle one contradicts the first, the last one covers and repeats what was kept.
    assert_eq!(client_detail(&[(2, "AA"), (2, "BB"), (2, "AAA"), (0, "xx")]), "xx|!AAA");
    assert_eq!(client_detail(&[(2, "AA"), (2, "BB"), (0, "xxAA")]), "!xxAA");
}

#[test]
fn retransmission_longer_than_the_first_copy_extends_the_stream() {
    assert_eq!(client_detail(&[(0, "GET / HT"), (0, "GET / HTTP/1.1")]), "GET / HT|TP/1.1");
}

#[test]
fn retransmission_after_delivery_is_dropped() {
    let mut wire = Wire::connected(&Limits::default());
    for _ in 0..3 {
        wire.client(0, 0, b"GET / HTTP/1.1\r\n\r\n", ACK);
    }
    assert_eq!(wire.client_text(), "GET / HTTP/1.1\r\n\r\n");
    assert_eq!(wire.table.stats().client.duplicate_bytes, 36);
}

#[test]
fn ack_number_that_advances_within_a_request_does_not_split_it() {
    let mut wire = Wire::connected(&Limits::default());
    wire.client(0, 0, b"POST / HTTP/1.1\r\n", ACK);
    wire.server(0, 17, b"HTTP/1.1 100 Continue\r\n\r\n", ACK);
    wire.client(17, 25, b"Content-Length: 1\r\n\r\nx", ACK);
    assert_eq!(wire.record().client.detail, "POST / HTTP/1.1\r\n@0|Content-Length: 1\r\n\r\nx@25");
    assert_eq!(wire.record().server.detail, "HTTP/1.1 100 Continue\r\n\r\n@17");
}

#[test]
fn sequence_wrap_inside_a_body_is_crossed() {
    let mut wire = Wire::connected(&Limits::default());
    // The client's numbers wrap six bytes after the SYN.
    assert!(number(CLIENT_ISN, 8).0 < number(CLIENT_ISN, 0).0);
    wire.client(0, 0, b"0123", ACK);
    wire.client(8, 0, b"89ab", ACK);
    wire.client(4, 0, b"4567", ACK);
    assert_eq!(wire.client_text(), "0123456789ab");
}

#[test]
fn segments_without_acknowledgement_carry_nothing() {
    let mut wire = Wire::connected(&Limits::default());
    let (psh, all_but_ack) = (TcpFlags(0x08), TcpFlags(0xe9));
    for flags in [TcpFlags::default(), psh, FIN, all_but_ack] {
        wire.client(0, 0, b"evil", flags);
        wire.client(4, 0, b"", flags);
        wire.server(0, 0, b"evil", flags);
    }
    wire.client(0, 0, b"good", ACK);
    wire.server(0, 4, b"too", ACK);
    assert_eq!((wire.client_text(), wire.server_text()), ("good", "too"));
    assert_eq!((wire.table.stats().client.refused, wire.table.stats().server.refused), (8, 4));
    wire.client(4, 3, b"", RST);
    assert_eq!(wire.client_text(), "good#", "a reset needs none");
}

#[test]
fn nothing_is_certain_from_urgent_bytes_on() {
    let mut wire = Wire::connected(&Limits::default());
    wire.client(0, 0, b"GET ", ACK);
    wire.client(1 << 30 | 1 << 20, 0, b"far", TcpFlags(0x30));
    wire.client(4, 0, b"/", ACK);
    wire.client(6, 0, b"vil", TcpFlags(0x38));
    wire.client(5, 0, b"e", ACK);
    wire.client(9, 0, b" HTTP/1.1", ACK);
    wire.server(0, 9, b"HTTP/1.1 200", ACK);
    assert_eq!(wire.record().client.detail, "GET @0|/@0|!e@0|!vil@0|! HTTP/1.1@0");
    assert_eq!(wire.record().server.detail, "HTTP/1.1 200@9");
    let mut wire = Wire::silent(&Limits::default());
    wire.client(-1, 0, b"GET ", TcpFlags(0x22));
    wire.server(-1, 4, b"", SYN_ACK);
    assert_eq!(wire.record().client.detail, "!GET ");
}

#[test]
fn segment_of_nul_bytes_is_data() {
    let mut wire = Wire::connected(&Limits::default());
    wire.client(0, 0, &[0; 6], ACK);
    assert_eq!(wire.record().client.data, [0; 6]);
}

#[test]
fn probes_are_harmless() {
    let mut wire = Wire::connected(&Limits::default());
    wire.client(0, 0, b"abc", ACK);
    // Keep-alive without and with a byte, then a zero-window probe that carries the next byte, sent again later.
    wire.client(2, 0, b"", ACK);
    wire.client(2, 0, b"?", ACK);
    wire.client(3, 0, b"d", ACK);
    wire.client(3, 0, b"def", ACK);
    assert_eq!(wire.client_text(), "abcdef");
}

#[test]
fn data_in_the_syn_belongs_to_the_stream() {
    let mut wire = Wire::silent(&Limits::default());
    wire.client(-1, 0, b"GET ", SYN);
    wire.server(-1, 4, b"", SYN_ACK);
    wire.client(0, 0, b"GET /", ACK);
    assert_eq!(wire.client_text(), "GET /");
}

#[test]
fn data_in_the_syn_are_taken_where_the_server_acknowledges_them() {
    for (acked, text, refused) in [(4, "evil", 0), (0, "go", 1)] {
        let mut wire = Wire::silent(&Limits::default());
        wire.client(-1, 0, b"evil", SYN);
        // Before the server's word has passed.
        wire.client(0, 0, b"go", ACK);
        assert_eq!(wire.client_text(), "");
        wire.server(-1, acked, b"", SYN_ACK);
        wire.client(i64::try_from(text.len()).unwrap(), 0, b"!", ACK);
        assert_eq!(wire.client_text(), format!("{text}!"));
        assert_eq!(wire.table.stats().client.refused, refused);
        assert_eq!((wire.record().client.gaps.len(), wire.table.reorder_bytes_held()), (0, 0));
    }
}

#[test]
fn data_in_the_syn_are_taken_where_only_a_later_word_of_the_server_was_seen() {
    let mut wire = Wire::silent(&Limits::default());
    wire.client(-1, 0, b"GET ", SYN);
    wire.server(0, 0, b"", FIN_ACK);
    assert_eq!(wire.client_text(), "");
    wire.server(0, 4, b"ok", ACK);
    assert_eq!(wire.client_text(), "GET ");
}

#[test]
fn data_in_the_syn_on_which_there_is_no_word_are_given_up() {
    let mut wire = Wire::silent(&Limits::default());
    wire.client(-1, 0, b"GET ", SYN);
    wire.client(4, 0, b"/", ACK);
    wire.wait(Duration::from_secs(4));
    wire.wait(Duration::from_secs(2));
    assert_eq!((wire.client_text(), wire.table.stats().client.refused), ("<4 lost>/", 1));
    for end in [RST, ACK] {
        let mut wire = Wire::silent(&Limits::default());
        wire.client(-1, 0, b"GET ", SYN);
        wire.server(0, 4, b"", TcpFlags(end.0 | ACK.0));
        wire.finish();
        assert_eq!(wire.client_text().trim_end_matches('#'), if end == RST { "" } else { "GET " });
        assert_eq!(wire.table.reorder_bytes_held(), 0);
    }
    let mut wire = Wire::silent(&Limits { gap_patience: Duration::from_secs(1), ..Limits::default() });
    wire.client(-1, 0, b"GET ", SYN);
    assert_eq!(wire.client_text(), "GET ", "in a file the word may come later");
}

#[test]
fn data_in_a_later_syn_is_not_taken() {
    let mut wire = Wire::connected(&Limits::default());
    wire.client(-1, 0, b"evil", SYN);
    wire.client(0, 0, b"good", ACK);
    wire.client(-1, 0, b"good and evil", SYN);
    wire.client(4, 0, b"!", ACK);
    assert_eq!((wire.client_text(), wire.table.stats().client.refused), ("good!", 2));
}

#[test]
fn fin_ends_the_stream_in_its_place_only() {
    let mut wire = Wire::connected(&Limits::default());
    wire.client(3, 0, b"def", FIN_ACK);
    wire.client(6, 0, b"beyond", ACK);
    assert_eq!(wire.client_text(), "");
    wire.client(0, 0, b"abc", ACK);
    wire.client(6, 0, b"beyond", ACK);
    wire.client(3, 0, b"def", FIN_ACK);
    assert_eq!(wire.client_text(), "abcdef.");
    assert_eq!(wire.table.stats().client.out_of_window, 2);
}

#[test]
fn data_held_beyond_a_fin_is_cut() {
    let mut wire = Wire::connected(&Limits::default());
    wire.client(2, 0, b"cdefgh", ACK);
    wire.client(9, 0, b"j", ACK);
    wire.client(3, 0, b"", FIN_ACK);
    wire.client(0, 0, b"ab", ACK);
    assert_eq!(wire.client_text(), "abc.");
    assert_eq!(wire.table.reorder_bytes_held(), 0);
}

#[test]
fn gap_that_the_peer_acknowledged_is_declared_at_once() {
    let mut wire = Wire::connected(&Limits::default());
    wire.client(0, 0, b"abc", ACK);
    wire.client(6, 0, b"ghi", ACK);
    assert_eq!(wire.client_text(), "abc");
    wire.server(0, 9, b"", ACK);
    assert_eq!(wire.client_text(), "abc<3 lost>ghi");
    // The last segment of a request, lost without anything behind it.
    wire.server(0, 14, b"HTTP", ACK);
    assert_eq!(wire.client_text(), "abc<3 lost>ghi<5 lost>");
    assert_eq!(wire.record().server.detail, "HTTP@14");
    assert_eq!(wire.table.stats().client.gap_bytes, 8);
}

#[test]
fn ack_inside_a_gap_declares_what_it_covers() {
    let mut wire = Wire::connected(&Limits::default());
    wire.client(6, 0, b"ghi", ACK);
    wire.server(0, 4, b"", ACK);
    wire.client(0, 0, b"abcdef", ACK);
    assert_eq!(wire.client_text(), "<4 lost>efghi");
}

#[test]
fn ack_of_an_unseen_fin_is_no_gap() {
    let mut wire = Wire::connected(&Limits::default());
    wire.client(0, 0, b"abc", ACK);
    wire.server(0, 4, b"", FIN_ACK);
    wire.client(3, 1, b"", FIN_ACK);
    assert_eq!(wire.client_text(), "abc.");
    assert_eq!(wire.closings(), [Some(CloseCause::Ended)]);
}

#[test]
fn ack_of_an_unseen_fin_behind_a_gap_is_no_second_gap() {
    let mut wire = Wire::connected(&Limits::default());
    wire.client(3, 0, b"def", ACK);
    wire.server(0, 7, b"HTTP", ACK);
    assert_eq!(wire.client_text(), "<3 lost>def");
    assert_eq!(wire.record().server.detail, "HTTP@7");
}

#[test]
fn acked_gap_waits_for_as_long_as_patience_lasts() {
    let limits = Limits { gap_patience: Duration::from_secs(1), ..Limits::default() };
    let mut wire = Wire::connected(&limits);
    wire.client(3, 0, b"def", ACK);
    wire.server(0, 6, b"", ACK);
    wire.wait(Duration::from_millis(900));
    assert_eq!(wire.client_text(), "");
    wire.client(0, 0, b"abc", ACK);
    assert_eq!(wire.client_text(), "abcdef");
    wire.client(9, 0, b"jkl", ACK);
    wire.server(0, 12, b"", ACK);
    wire.wait(Duration::from_secs(2));
    assert_eq!(wire.client_text(), "abcdef<3 lost>jkl");
    assert_eq!(wire.table.reorder_bytes_held(), 0);
}

#[test]
fn oldest_gap_is_declared_when_a_side_holds_too_much() {
    let limits = Limits { reorder_bytes: 4, reorder_pieces: 2, ..Limits::default() };
    let mut wire = Wire::connected(&limits);
    wire.client(2, 0, b"cd", ACK);
    wire.client(6, 0, b"gh", ACK);
    assert_eq!(wire.client_text(), "");
    wire.client(10, 0, b"k", ACK);
    assert_eq!(wire.client_text(), "<2 lost>cd");
    wire.client(12, 0, b"m", ACK);
    assert_eq!(wire.client_text(), "<2 lost>cd<2 lost>gh");
}

#[test]
fn payload_not_copied_is_a_gap_of_its_own_kind() {
    let mut wire = Wire::connected(&Limits::default());
    wire.send(Side::Server, 0, 0, b"HTTP", 1_000, ACK);
    wire.send(Side::Server, 1_000, 0, b"", 500, ACK);
    // Bytes that come later do not fill it.
    wire.server(0, 0, b"HTTP/1.1 200 OK", ACK);
    assert_eq!(wire.server_text(), "HTTP<996 not copied><500 not copied>");
    assert_eq!(wire.table.stats().server.gap_bytes, 0);
}

#[test]
fn long_response_without_bytes_behind_a_gap_takes_one_piece() {
    let mut wire = Wire::connected(&Limits::default());
    for idx in 1..10_000 {
        wire.send(Side::Server, idx * 1_000, 0, b"", 1_000, ACK);
    }
    assert!(wire.table.reorder_bytes_held() < 1_000);
    wire.client(0, 10_000_000, b"GET", ACK);
    assert_eq!(wire.server_text(), "<1000 lost><9999000 not copied>");
}

#[test]
fn stream_without_a_syn_begins_at_its_first_data() {
    let mut wire = Wire::silent(&Limits::default());
    wire.client(100, 50, b"abc", ACK);
    wire.client(97, 50, b"xyz", ACK);
    wire.client(98, 50, b"yzabc", ACK);
    wire.server(40, 103, b"0123456789", ACK);
    wire.client(103, 50, b"def", ACK);
    assert!(wire.recorder.flows.values().all(|(flow, _)| flow.adopted));
    wire.client(95, 50, b"vwxyzabcdefgh", ACK);
    assert_eq!(wire.record().client.detail, "abc|def@10|gh@10");
    assert_eq!(wire.record().server.detail, "0123456789@3");
}

#[test]
fn ack_of_bytes_before_the_first_seen_is_offset_zero() {
    let mut wire = Wire::silent(&Limits::default());
    wire.client(100, 0, b"abc", ACK);
    wire.server(40, 60, b"resp", ACK);
    assert_eq!(wire.record().server.detail, "resp@0");
}

#[test]
fn held_data_keeps_the_ack_of_its_own_segment() {
    let mut wire = Wire::connected(&Limits::default());
    wire.client(0, 0, b"req1req2", ACK);
    wire.server(4, 4, b"two.", ACK);
    wire.server(0, 8, b"one.", ACK);
    assert_eq!(wire.record().server.detail, "one.@8|two.@4");
}

#[test]
fn segment_outside_any_window_moves_nothing() {
    let mut wire = Wire::connected(&Limits::default());
    wire.client(0, 0, b"abc", ACK);
    wire.client(1 << 30 | 1 << 20, 0, b"far", ACK);
    wire.client(-(1 << 30 | 1 << 20), 0, b"far", ACK);
    wire.server(0, 1 << 30 | 1 << 20, b"", ACK);
    wire.client(3, 0, b"def", ACK);
    wire.finish();
    assert_eq!(wire.client_text(), "abcdef");
    assert_eq!(wire.table.stats().client.out_of_window, 2);
    assert_eq!(wire.table.stats().server.out_of_window, 1);
}

#[test]
fn end_of_capture_hands_on_what_is_held() {
    let mut wire = Wire::connected(&Limits::default());
    wire.client(0, 0, b"abc", ACK);
    wire.client(6, 0, b"ghi", ACK);
    wire.client(12, 0, b"mno", FIN_ACK);
    wire.finish();
    assert_eq!(wire.client_text(), "abc<3 lost>ghi<3 lost>mno.");
    assert_eq!(wire.closings(), [Some(CloseCause::Finished)]);
    assert_eq!(wire.table.reorder_bytes_held(), 0);
}

#[test]
fn in_order_data_is_lent_and_nothing_is_held() {
    struct Lender<'a>(&'a [u8], usize);
    impl FlowHandler for Lender<'_> {
        type State = ();
        fn open(&mut self, _: &FlowInfo) {}
        fn span(&mut self, _: &FlowInfo, (): &mut (), _: Side, span: Span<'_>) -> Interest {
            if let Span::Data { bytes, .. } = span {
                assert!(std::ptr::eq(bytes, self.0));
                self.1 += 1;
            }
            Interest::Continue
        }
        fn close(&mut self, _: &FlowInfo, (): (), _: CloseCause, _: Timestamp) {}
    }
    let payload = *b"GET / HTTP/1.1\r\n\r\n";
    let mut table = FlowTable::new(&Limits::default(), 1);
    let mut lender = Lender(&payload, 0);
    for idx in 0..3 {
        let segment = Segment {
            flow: key(1),
            interface: 1,
            side: Side::Client,
            at: Timestamp::ZERO,
            seq: number(0, idx * 18),
            ack: SeqNumber(0),
            flags: ACK,
            payload: &payload,
            payload_len: 18,
        };
        table.handle_segment(&segment, &mut lender);
        assert_eq!(table.reorder_bytes_held(), 0);
    }
    assert_eq!(lender.1, 3);
}

#[test]
fn segments_that_overlap_without_end_are_not_held_and_leave_nothing_certain() {
    let mut wire = Wire::connected(&Limits::default());
    for offset in 1..=1000 {
        wire.client(offset, 0, &[b'a'; 1000], ACK);
    }
    assert!(wire.table.reorder_bytes_held() < 50_000, "{}", wire.table.reorder_bytes_held());
    wire.client(0, 0, b"x", ACK);
    assert_eq!(wire.record().client.conflicts.len(), wire.record().client.data.len());
}

#[test]
fn one_segment_in_place_of_many_is_held() {
    let mut wire = Wire::connected(&Limits::default());
    for offset in 1..=1000 {
        wire.client(2 * offset, 0, b"a", ACK);
    }
    // One that is covered, too.
    for (offset, len) in [(1, 3000), (700, 1), (700, 1000)] {
        wire.client(offset, 0, &vec![b'a'; len], ACK);
    }
    wire.client(0, 0, b"a", ACK);
    assert_eq!((wire.client_text().len(), wire.record().client.conflicts.len()), (3001, 0));
}
