//! Enters: byte streams of clients. Leaves: whether the requests in them are found, and kept in step with.

use super::{
    super::{EndEffect, Event, Framing, GapEffect, Refusal, RequestDecoder},
    Fate, Message, feed_request, only, request_refusal, requests,
};
use crate::pipeline::limits::Limits;

const POST_CHUNKED: &str = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";

fn decoder() -> RequestDecoder {
    RequestDecoder::new(&Limits::default())
}

fn chunked(body: &str) -> Vec<u8> {
    format!("{POST_CHUNKED}{body}").into_bytes()
}

/// The requests that arrive in `pieces`.
fn in_pieces(pieces: &[&[u8]]) -> Vec<Message> {
    let mut decoder = decoder();
    let mut messages = Vec::new();
    pieces.iter().for_each(|piece| feed_request(&mut decoder, piece, &mut messages));
    messages
}

#[test]
fn two_pipelined_gets_in_one_segment_are_two_requests() {
    let messages = requests(b"GET /1 HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n");
    let lines: Vec<_> = messages.iter().map(|message| (message.line.as_str(), message.fate)).collect();
    assert_eq!(lines, [("GET /1", Fate::Complete), ("GET /2", Fate::Complete)]);
}

#[test]
fn terminator_split_behind_its_zero_line_ends_the_body() {
    let head = chunked("5\r\nhello\r\n0\r\n");
    let message = only(in_pieces(&[&head, b"\r\n"]));
    assert_eq!((message.fate, message.content.as_slice()), (Fate::Complete, &b"hello"[..]));
}

#[test]
fn chunk_data_that_looks_like_a_terminator_does_not_end_the_body() {
    let head = chunked("a\r\nabc0\r\n\r\n");
    let message = only(in_pieces(&[&head, b"de\r\n0\r\n\r\n"]));
    assert_eq!((message.fate, message.content.as_slice()), (Fate::Complete, &b"abc0\r\n\r\nde"[..]));
}

#[test]
fn trailers_need_no_trailer_field() {
    let message = only(requests(&chunked("1\r\nx\r\n0\r\nDigest: abc\r\nX:\r\n\r\n")));
    assert_eq!(message.fate, Fate::Complete);
    assert_eq!(message.body, b"1\r\nx\r\n0\r\nDigest: abc\r\nX:\r\n\r\n");
    assert_eq!(message.content, b"x");
}

#[test]
fn body_of_nothing_but_nul_bytes_is_a_body() {
    let nul = [0_u8; 64];
    let messages =
        in_pieces(&[b"PUT / HTTP/1.1\r\nContent-Length: 64\r\n\r\n", &nul, b"GET / HTTP/1.1\r\n\r\n"]);
    assert_eq!(messages.len(), 2);
    assert_eq!((messages[0].fate, messages[0].content.as_slice()), (Fate::Complete, &nul[..]));
}

#[test]
fn chunk_framing_that_all_servers_read_alike_is_taken() {
    let cases = [
        ("0\r\n\r\n", ""),
        ("5\r\nhello\r\n0\r\n\r\n", "hello"),
        ("A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n", "01234567890123456789"),
        ("0000000000000005\r\nhello\r\n000\r\n\r\n", "hello"),
        ("5;a=b;c=\"d;e\"\r\nhello\r\n0;last\r\n\r\n", "hello"),
        ("5 ; a = b\r\nhello\r\n0\r\n\r\n", "hello"),
        ("5;\r\nhello\r\n0\r\n\r\n", "hello"),
        ("2\r\n\r\n\r\n0\r\n\r\n", "\r\n"),
    ];
    for (body, content) in cases {
        let message = only(requests(&chunked(body)));
        assert_eq!(
            (message.fate, message.content.as_slice()),
            (Fate::Complete, content.as_bytes()),
            "{body:?}"
        );
        assert_eq!(message.body, body.as_bytes());
    }
}

#[test]
fn chunk_framing_that_is_none_is_malformed() {
    let cases = [
        "\r\n\r\n",
        ";x\r\n\r\n",
        "g\r\n",
        "0x5\r\nhello\r\n",
        "-5\r\nhello\r\n",
        "+5\r\nhello\r\n",
        " 5\r\nhello\r\n",
        "5 \r\nhello\r\n",
        "5 5\r\nhello\r\n",
        "5\rhello",
        "5;\0\r\nhello\r\n",
        "5;a\rb\r\nhello\r\n",
        "5\r\nhelloworld\r\n",
        "5\r\nhello0\r\n\r\n",
        "5\r\nhello\r0\r\n\r\n",
        "0\r\nno colon\r\n\r\n",
        "0\r\n: x\r\n\r\n",
        "0\r\n folded\r\n\r\n",
        "0\r\nA: \0\r\n\r\n",
        "0\r\nA: b\rC: d\r\n\r\n",
    ];
    for body in cases {
        assert_eq!(request_refusal(&chunked(body)), Some(Refusal::Malformed), "{body:?}");
    }
}

#[test]
fn chunk_framing_that_servers_read_differently_is_ambiguous() {
    let cases = [
        "5\nhello\r\n0\r\n\r\n",
        "5;a\nhello\r\n0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "0\n\r\n",
        "0\r\n\n",
        "0\r\nA: b\n\r\n",
        "00000000000000005\r\nhello\r\n0\r\n\r\n",
        "10000000000000000\r\n",
        "fffffffffffffffff\r\n",
    ];
    for body in cases {
        assert_eq!(request_refusal(&chunked(body)), Some(Refusal::AmbiguousFraming), "{body:?}");
    }
}

#[test]
fn largest_chunk_size_does_not_overflow() {
    let message = only(requests(&chunked("ffffffffffffffff\r\nhello")));
    assert_eq!((message.fate, message.content.as_slice()), (Fate::Open, &b"hello"[..]));
}

#[test]
fn chunk_lines_and_trailers_are_bounded() {
    let limit = 16 * 1024;
    let line = |fill: usize| chunked(&format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(fill)));
    // Beside the fill stand the digit, the semicolon and CRLF.
    assert_eq!(request_refusal(&line(limit - 4)), None);
    assert_eq!(request_refusal(&line(limit - 3)), Some(Refusal::Malformed));
    let trailers = chunked(&format!("0\r\n{}", "A: b\r\n".repeat(limit)));
    assert_eq!(request_refusal(&trailers), Some(Refusal::Malformed));
    let many = chunked(&format!("{}0\r\n\r\n", "1\r\nx\r\n".repeat(limit)));
    assert_eq!(only(requests(&many)).content.len(), limit);
}

#[test]
fn ambiguous_head_is_given_before_it_is_refused() {
    let bytes = b"POST /x HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab";
    let message = only(requests(bytes));
    assert_eq!((message.line.as_str(), message.framing), ("POST /x", Framing::Ambiguous));
    assert_eq!(message.fate, Fate::Refused(Refusal::AmbiguousFraming));
    assert!(message.body.is_empty());
}

#[test]
fn empty_lines_before_a_request_are_no_part_of_it() {
    let messages = requests(b"\r\nGET /1 HTTP/1.1\r\n\r\n\r\n\r\nGET /2 HTTP/1.1\r\n\r\n\r\n");
    let heads: Vec<_> = messages.iter().map(|message| message.head.as_slice()).collect();
    assert_eq!(heads, [&b"GET /1 HTTP/1.1\r\n\r\n"[..], b"GET /2 HTTP/1.1\r\n\r\n"]);
}

#[test]
fn bytes_behind_the_last_request_of_a_connection_are_swallowed() {
    let messages = requests(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\nGET / HTTP/1.1\r\n\r\n");
    assert_eq!(only(messages).fate, Fate::Complete);
}

#[test]
fn refused_stream_is_swallowed_until_reset() {
    let mut decoder = decoder();
    let mut messages = Vec::new();
    feed_request(&mut decoder, b"\x00\x01GET / HTTP/1.1\r\n\r\n", &mut messages);
    feed_request(&mut decoder, b"GET / HTTP/1.1\r\n\r\n", &mut messages);
    assert_eq!(messages.len(), 1);
    assert_eq!(decoder.handle_gap(1), GapEffect::Ignored);
    decoder.reset();
    feed_request(&mut decoder, b"GET / HTTP/1.1\r\n\r\n", &mut messages);
    assert_eq!(messages[1].fate, Fate::Complete);
}

#[test]
fn byte_that_rules_a_request_out_is_the_same_in_pieces() {
    let refused_after = |pieces: &[&[u8]]| {
        let mut decoder = decoder();
        let mut messages = Vec::new();
        let feed = |piece: &&[u8]| {
            feed_request(&mut decoder, piece, &mut messages);
            messages.last().is_some_and(|message| message.fate != Fate::Open)
        };
        pieces.iter().map(feed).collect::<Vec<_>>()
    };
    assert_eq!(refused_after(&[b"GE\xf1"]), [true]);
    assert_eq!(refused_after(&[b"G", b"E", b"\xf1"]), [false, false, true]);
    assert_eq!(refused_after(&[b"GET /", b" b HTTP/1.1\r", b"\n"]), [false, false, true]);
    let long = [b'G'; 100];
    assert_eq!(refused_after(&[&long, b"\xf1", b"\r\n"]), [false, false, true], "not looked at byte by byte");
}

#[test]
fn what_is_no_http_is_refused_before_the_limit() {
    let messages = in_pieces(&[b"*1\r\n$4\r\nPING\r\n"]);
    assert_eq!(only(messages).fate, Fate::Refused(Refusal::Malformed));
    let messages = in_pieces(&[b"GET / HT", b"TP/3.0\r\n"]);
    assert_eq!(only(messages).fate, Fate::Refused(Refusal::Malformed));
    let messages = in_pieces(&[b"GET / HTTP/1.1\r\n", b"\r\n", b"GET / HTTP/3.0\r\n"]);
    assert_eq!(messages[1].fate, Fate::Refused(Refusal::Malformed));
}

#[test]
fn gap_inside_content_of_known_length_stays_in_step() {
    let mut decoder = decoder();
    let mut messages = Vec::new();
    feed_request(&mut decoder, b"PUT / HTTP/1.1\r\nContent-Length: 10\r\n\r\nab", &mut messages);
    assert_eq!(decoder.handle_gap(3), GapEffect::InBody);
    feed_request(&mut decoder, b"cdefgGET /2 HTTP/1.1\r\n\r\n", &mut messages);
    assert_eq!(messages[0].content, b"abcdefg");
    assert_eq!((messages[0].fate, messages[1].line.as_str()), (Fate::Complete, "GET /2"));
}

#[test]
fn gap_up_to_the_end_of_the_body_completes_it() {
    let mut decoder = decoder();
    let mut messages = Vec::new();
    feed_request(&mut decoder, b"PUT / HTTP/1.1\r\nContent-Length: 10\r\n\r\nab", &mut messages);
    assert_eq!(decoder.handle_gap(8), GapEffect::InBody);
    feed_request(&mut decoder, b"", &mut messages);
    assert_eq!(only(messages).fate, Fate::Complete);
    assert!(decoder.is_between_messages());
}

#[test]
fn gap_inside_the_data_of_a_chunk_stays_in_step() {
    let mut decoder = decoder();
    let mut messages = Vec::new();
    feed_request(&mut decoder, &chunked("a\r\nab"), &mut messages);
    assert_eq!(decoder.handle_gap(8), GapEffect::InBody);
    feed_request(&mut decoder, b"\r\n1\r\nx\r\n0\r\n\r\n", &mut messages);
    assert_eq!((messages[0].fate, messages[0].content.as_slice()), (Fate::Complete, &b"abx"[..]));
}

#[test]
fn gap_that_may_hide_the_end_of_a_message_loses_it() {
    let cases: [(&[u8], u64, GapEffect); 6] = [
        (b"GET / HT", 1, GapEffect::Lost),
        (b"PUT / HTTP/1.1\r\nContent-Length: 10\r\n\r\nab", 9, GapEffect::Lost),
        (b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", 4, GapEffect::Lost),
        (b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5", 1, GapEffect::Lost),
        (b"GET / HTTP/1.1\r\n\r\n", 1, GapEffect::Between),
        (b"", u64::MAX, GapEffect::Between),
    ];
    for (bytes, len, effect) in cases {
        let mut decoder = decoder();
        feed_request(&mut decoder, bytes, &mut Vec::new());
        assert_eq!(decoder.handle_gap(len), effect, "{}", bytes.escape_ascii());
    }
}

#[test]
fn lost_head_leaves_no_trace_in_the_one_after_reset() {
    let mut decoder = decoder();
    let mut messages = Vec::new();
    feed_request(&mut decoder, b"GET /old HTTP/1.1\r\nA: b", &mut messages);
    assert_eq!(decoder.handle_gap(100), GapEffect::Lost);
    assert_eq!(decoder.bytes_held(), 0);
    feed_request(&mut decoder, b"swallowed\r\n\r\n", &mut messages);
    assert_eq!(messages[0].fate, Fate::Open);
    decoder.reset();
    feed_request(&mut decoder, b"GET /new HTTP/1.1\r\n\r\n", &mut messages);
    assert_eq!(messages[1].head, b"GET /new HTTP/1.1\r\n\r\n");
}

#[test]
fn reset_and_end_give_back_the_memory_of_a_head() {
    let mut decoder = decoder();
    feed_request(&mut decoder, b"GET /old HTTP/1.1\r\n", &mut Vec::new());
    assert!(decoder.bytes_held() > 0);
    decoder.reset();
    assert_eq!(decoder.bytes_held(), 0);
    feed_request(&mut decoder, b"GET /new HTTP/1.1\r\n", &mut Vec::new());
    assert_eq!(decoder.handle_end(), EndEffect::Truncated);
    assert_eq!(decoder.bytes_held(), 0);
}

#[test]
fn end_behind_a_gap_that_completed_the_body_completes_the_request() {
    let mut decoder = decoder();
    feed_request(&mut decoder, b"PUT / HTTP/1.1\r\nContent-Length: 2\r\n\r\n", &mut Vec::new());
    assert_eq!(decoder.handle_gap(2), GapEffect::InBody);
    assert_eq!(decoder.handle_end(), EndEffect::Complete);
}

#[test]
fn end_truncates_what_is_under_way() {
    let cases: [(&[u8], EndEffect); 5] = [
        (b"", EndEffect::Clean),
        (b"GET / HTTP/1.1\r\n\r\n", EndEffect::Clean),
        (b"GET /", EndEffect::Truncated),
        (b"PUT / HTTP/1.1\r\nContent-Length: 2\r\n\r\na", EndEffect::Truncated),
        (b"\x00", EndEffect::Clean),
    ];
    for (bytes, effect) in cases {
        let mut decoder = decoder();
        feed_request(&mut decoder, bytes, &mut Vec::new());
        assert_eq!(decoder.handle_end(), effect, "{}", bytes.escape_ascii());
    }
}

#[test]
fn head_that_lies_whole_in_the_input_is_borrowed_from_it() {
    let bytes = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut input = &bytes[..];
    let mut decoder = decoder();
    assert!(matches!(decoder.poll(&mut input), Event::Start));
    let Event::Head(head) = decoder.poll(&mut input) else { panic!("a head") };
    assert!(std::ptr::eq(head.raw, &bytes[..]));
    assert_eq!(decoder.bytes_held(), 0);
}
