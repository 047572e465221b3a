//! Enters: heads, one a case. Leaves: whether each is taken, and for what.

use super::{
    super::{
        Framing, Method, Refusal, RequestFacts, RequestHead, ResponseHead, Version, find_line_feed,
        head_buffer::HeadBuffer, headers, unfold,
    },
    request_refusal,
};
use crate::pipeline::message::ReplyTo;

use Refusal::{AmbiguousFraming, HeadTooLarge, Malformed};

fn facts(bytes: &str) -> RequestFacts {
    RequestHead::parse(bytes.as_bytes()).unwrap().facts
}

fn response(bytes: &str, reply_to: ReplyTo) -> Result<ResponseHead<'_>, Refusal> {
    ResponseHead::parse(bytes.as_bytes(), reply_to)
}

#[test]
fn heads_that_servers_take_are_taken() {
    let cases: &[&[u8]] = &[
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.0\r\n\r\n",
        b"GET http://example.com/a?b=c HTTP/1.1\r\nHost: example.com\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
        b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n",
        b"GET /caf\xc3\xa9 HTTP/1.1\r\n\r\n",
        b"GET /caf\xe9?\xff HTTP/1.1\r\n\r\n",
        b"GET /<>\"`{}|\\^[] HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: \xe9\xff\r\n\r\n",
        b"GET / HTTP/1.1\r\nX:\r\nY: \t \r\nZ:a\tb\r\n\r\n",
        b"M-SEARCH * HTTP/1.1\r\n\r\n",
        b"mkcola /x HTTP/1.1\r\n\r\n",
        b"!#$%&'*+-.^_`|~ / HTTP/1.1\r\n!#$%&'*+-.^_`|~: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\nX: 1\r\nx: 2\r\n\r\n",
        b"\r\n\n\r\nGET / HTTP/1.1\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: \t000\t\r\n\r\n",
    ];
    for case in cases {
        assert_eq!(request_refusal(case), None, "{}", case.escape_ascii());
    }
}

#[test]
fn heads_that_are_no_request_are_malformed() {
    let cases: &[&[u8]] = &[
        b"GET /\r\n\r\n",
        b"GET  / HTTP/1.1\r\n\r\n",
        b"GET /  HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1 \r\n\r\n",
        b"GET / HTTP/1.2\r\n\r\n",
        b"GET / HTTP/2.0\r\n\r\n",
        b"GET / http/1.1\r\n\r\n",
        b"GET / RTSP/1.0\r\n\r\n",
        b"GET /a b HTTP/1.1\r\n\r\n",
        b"GET /a\tb HTTP/1.1\r\n\r\n",
        b"GET /a\0b HTTP/1.1\r\n\r\n",
        b"GET /a\x7fb HTTP/1.1\r\n\r\n",
        b" GET / HTTP/1.1\r\n\r\n",
        b"G(T / HTTP/1.1\r\n\r\n",
        b"\xffGET / HTTP/1.1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: \0\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: x\x01\r\n\r\n",
        b"GET / HTTP/1.1\r\nA\0: x\r\n\r\n",
        b"GET / HTTP/1.1\r\n: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\nTransfer\xe9: x\r\n\r\n",
    ];
    for case in cases {
        assert_eq!(request_refusal(case), Some(Malformed), "{}", case.escape_ascii());
    }
}

#[test]
fn heads_that_two_servers_may_read_differently_are_ambiguous() {
    let lines: &[&str] = &[
        // Both, or several lengths.
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: 5\r\ncontent-length: 5",
        "Content-Length: 5, 5",
        "Content-Length: 5,",
        // Lengths that are no number.
        "Content-Length:",
        "Content-Length: 4 2",
        "Content-Length: +5",
        "Content-Length: -5",
        "Content-Length: 0x5",
        "Content-Length: 5.0",
        "Content-Length: 5;",
        "Content-Length: \"5\"",
        "Content-Length: 18446744073709551616",
        "Content-Length: 99999999999999999999999999999",
        // Transfer codings that do not end with one chunked.
        "Transfer-Encoding:",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: chunkedx",
        "Transfer-Encoding: chunk",
        "Transfer-Encoding: gzip",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: chunked, gzip",
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked;q=1",
        "Transfer-Encoding: \"chunked\"",
        "Transfer-Encoding: chunked,",
        "Transfer-Encoding: ,chunked",
        // Lines that end or begin elsewhere for some.
        "Transfer-Encoding : chunked",
        "Transfer-Encoding\t: chunked",
        "Content-Length : 5",
        " Content-Length: 5",
        "X: y\n Content-Length: 5",
        "X: y\r\n Content-Length: 5",
        "X: y\r\n\tfolded",
        "X: x\nTransfer-Encoding: chunked",
        "X: x\n",
        "X: x\rTransfer-Encoding: chunked",
        "X: x\r\r",
        "\rX: x",
    ];
    for line in lines {
        let case = format!("POST / HTTP/1.1\r\nHost: a\r\n{line}\r\n\r\n");
        assert_eq!(request_refusal(case.as_bytes()), Some(AmbiguousFraming), "{line:?}");
    }
    let whole: &[&[u8]] = &[
        b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET / HTTP/1.1\n\r\n",
        b"GET / HTTP/1.1\r\n\n",
        b"GET / HTTP/1.1\n\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n\n",
    ];
    for case in whole {
        assert_eq!(request_refusal(case), Some(AmbiguousFraming), "{}", case.escape_ascii());
    }
}

#[test]
fn framing_of_a_request_is_read_off_its_fields() {
    let cases = [
        ("Host: a", Framing::None),
        ("Content-Length: 0", Framing::Length(0)),
        ("cOnTeNt-LeNgTh:18446744073709551615", Framing::Length(u64::MAX)),
        ("Transfer-Encoding: chunked", Framing::Chunked),
        ("TRANSFER-ENCODING:\tCHUNKED ", Framing::Chunked),
        ("Transfer-Encoding: gzip, chunked", Framing::Chunked),
        ("X-Content-Length: 5", Framing::None),
    ];
    for (line, framing) in cases {
        assert_eq!(facts(&format!("POST / HTTP/1.1\r\n{line}\r\n\r\n")).framing, framing, "{line:?}");
    }
}

#[test]
fn connection_stays_open_as_the_version_and_the_options_say() {
    let cases = [
        ("HTTP/1.1", "X: y", true),
        ("HTTP/1.1", "Connection: close", false),
        ("HTTP/1.1", "Connection: foo ,\tCLOSE", false),
        ("HTTP/1.1", "Connection: foo\r\nConnection: close", false),
        ("HTTP/1.1", "Connection: closed", true),
        ("HTTP/1.0", "X: y", false),
        ("HTTP/1.0", "Connection: Keep-Alive", true),
        ("HTTP/1.0", "Connection: keep-alive, close", false),
    ];
    for (version, line, keep_alive) in cases {
        let head = format!("GET / {version}\r\n{line}\r\n\r\n");
        assert_eq!(facts(&head).keep_alive, keep_alive, "{head:?}");
    }
}

#[test]
fn facts_name_what_decides_about_a_copy() {
    assert!(facts("POST / HTTP/1.1\r\nExpect: 100-Continue\r\n\r\n").expect_continue);
    assert!(!facts("POST / HTTP/1.0\r\nExpect: 100-continue\r\n\r\n").expect_continue);
    assert!(facts("GET / HTTP/1.1\r\nupgrade: websocket\r\n\r\n").upgrade);
    assert!(facts("GET / HTTP/1.1\r\nX-Mirror-ID:\r\n\r\n").has_mirror_id);
    for marker in ["X-Shadow: false", "x-mirror-experiment:", "x-mirror-MATCH: 1"] {
        assert!(facts(&format!("GET / HTTP/1.1\r\n{marker}\r\n\r\n")).has_marker, "{marker}");
    }
    assert!(facts("CONNECT a:1 HTTP/1.1\r\n\r\n").connect);
    let plain = facts("GET / HTTP/1.1\r\nAccept: x-mirror-id\r\n\r\n");
    assert!(
        !plain.upgrade
            && !plain.has_mirror_id
            && !plain.has_marker
            && !plain.connect
            && !plain.expect_continue
    );
}

#[test]
fn parts_of_a_request_can_be_found_in_it() {
    let raw = b"GET /a HTTP/1.0\r\nhOST:  one \r\nHost: two\r\n\r\n";
    let head = RequestHead::parse(raw).unwrap();
    assert_eq!((head.method, head.target, head.version), (&b"GET"[..], &b"/a"[..], Version::Http10));
    assert_eq!(head.host, Some(&b"one"[..]));
    assert_eq!(head.reply_to(), ReplyTo::Other);
}

#[test]
fn fields_come_in_wire_order_as_sent() {
    let raw = b"GET / HTTP/1.1\r\nB: 1\r\na:\r\nB:\t2 \t\r\nUrl: http://x:1/\r\n\r\nbody: no\r\n";
    let fields: Vec<_> = headers(raw).collect();
    let expected: [(&[u8], &[u8]); 4] = [(b"B", b"1"), (b"a", b""), (b"B", b"2"), (b"Url", b"http://x:1/")];
    assert_eq!(fields, expected);
    assert_eq!(headers(b"").count(), 0);
    assert_eq!(headers(b"GET / HTTP/1.1\r\n\r\n").count(), 0);
    assert_eq!(headers(b"no line end").count(), 0);
}

#[test]
fn folded_lines_of_a_response_are_one_field() {
    let head = response("HTTP/1.1 200 OK\r\nA: x \r\n\t y\r\n  z\nB:\r\n b\r\n\r\n", ReplyTo::Other).unwrap();
    let fields: Vec<_> = head.headers().map(|(name, value)| (name, unfold(value).into_owned())).collect();
    assert_eq!(fields, [(&b"A"[..], b"x y z".to_vec()), (&b"B"[..], b"b".to_vec())]);
    let head = response("HTTP/1.1 200 OK\r\nContent-Length:\r\n 5\r\n\r\n", ReplyTo::Other).unwrap();
    assert_eq!(head.facts.framing, Framing::Length(5));
}

#[test]
fn methods_are_told_apart_by_case() {
    for method in Method::ALL {
        let expected = if method == Method::Other { Method::Other } else { method };
        assert_eq!(Method::from_bytes(method.as_str().as_bytes()), expected);
    }
    assert_eq!(Method::from_bytes(b"get"), Method::Other);
}

#[test]
fn framing_of_a_response_follows_the_request_and_the_status() {
    let cases = [
        ("HTTP/1.1 200 OK", "Content-Length: 5", ReplyTo::Other, Framing::Length(5)),
        ("HTTP/1.1 200 OK", "Content-Length: 5", ReplyTo::Head, Framing::None),
        ("HTTP/1.1 200 OK", "Transfer-Encoding: chunked", ReplyTo::Head, Framing::None),
        ("HTTP/1.1 204 No Content", "Content-Length: 5", ReplyTo::Other, Framing::None),
        ("HTTP/1.1 304 Not Modified", "Content-Length: 5", ReplyTo::Other, Framing::None),
        ("HTTP/1.1 100 Continue", "Content-Length: 5", ReplyTo::Other, Framing::None),
        ("HTTP/1.1 101 Switching", "Transfer-Encoding: chunked", ReplyTo::Other, Framing::None),
        ("HTTP/1.1 200 OK", "Content-Length: 5", ReplyTo::Connect, Framing::None),
        ("HTTP/1.1 407 No", "Content-Length: 5", ReplyTo::Connect, Framing::Length(5)),
        ("HTTP/1.1 200 OK", "X: y", ReplyTo::Other, Framing::UntilClose),
        ("HTTP/1.0 200 OK", "X: y", ReplyTo::Other, Framing::UntilClose),
        ("HTTP/1.1 200 OK", "Transfer-Encoding: chunked", ReplyTo::Other, Framing::Chunked),
        (
            "HTTP/1.1 200 OK",
            "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked",
            ReplyTo::Other,
            Framing::Chunked,
        ),
        ("HTTP/1.1 200 OK", "Transfer-Encoding: gzip", ReplyTo::Other, Framing::UntilClose),
        (
            "HTTP/1.1 200 OK",
            "Content-Length: 5\r\nTransfer-Encoding: chunked",
            ReplyTo::Other,
            Framing::Chunked,
        ),
        ("HTTP/1.1 200 OK", "Content-Length: 5, 5\r\nContent-Length: 5", ReplyTo::Other, Framing::Length(5)),
        ("HTTP/1.1 200 OK", "Content-Length: 5, 6", ReplyTo::Other, Framing::Ambiguous),
        ("HTTP/1.1 200 OK", "Content-Length: x", ReplyTo::Other, Framing::Ambiguous),
        ("HTTP/1.1 200 OK", "Transfer-Encoding: chunked, chunked", ReplyTo::Other, Framing::Ambiguous),
        ("HTTP/1.1 200 OK", "Transfer-Encoding: chunked, gzip", ReplyTo::Other, Framing::Ambiguous),
        ("HTTP/1.0 200 OK", "Transfer-Encoding: chunked", ReplyTo::Other, Framing::Ambiguous),
    ];
    for (line, field, reply_to, framing) in cases {
        let head = format!("{line}\r\n{field}\r\n\r\n");
        assert_eq!(response(&head, reply_to).unwrap().facts.framing, framing, "{head:?} {reply_to:?}");
    }
}

#[test]
fn status_lines_are_read_as_clients_read_them() {
    let cases = [
        ("HTTP/1.1 200 OK\r\n\r\n", Ok((200, "OK"))),
        ("HTTP/1.0 404 Not  Found \r\n\r\n", Ok((404, "Not  Found"))),
        ("HTTP/1.1 200\r\n\r\n", Ok((200, ""))),
        ("HTTP/1.1 200 \r\n\r\n", Ok((200, ""))),
        ("HTTP/1.1 200 \u{e9}\r\n\r\n", Ok((200, "\u{e9}"))),
        ("HTTP/1.1 200 OK\nA: b\n\n", Ok((200, "OK"))),
        ("HTTP/1.1 999 ?\r\n\r\n", Ok((999, "?"))),
        ("HTTP/1.1 20 OK\r\n\r\n", Err(Malformed)),
        ("HTTP/1.1 2000 OK\r\n\r\n", Err(Malformed)),
        ("HTTP/1.1  200 OK\r\n\r\n", Err(Malformed)),
        ("HTTP/2.0 200 OK\r\n\r\n", Err(Malformed)),
        ("HTTP/1.1 200 O\0K\r\n\r\n", Err(Malformed)),
        ("ICY 200 OK\r\n\r\n", Err(Malformed)),
        ("HTTP/1.1 200 OK\r\nContent-Length : 5\r\n\r\n", Err(AmbiguousFraming)),
        ("HTTP/1.1 200 OK\r\nA: b\rContent-Length: 5\r\n\r\n", Err(AmbiguousFraming)),
        ("HTTP/1.1 200 OK\r\nA: \0\r\n\r\n", Err(Malformed)),
    ];
    for (raw, expected) in cases {
        let got = response(raw, ReplyTo::Other).map(|head| (head.status, head.reason));
        assert_eq!(got, expected.map(|(status, reason)| (status, reason.as_bytes())), "{raw:?}");
    }
}

#[test]
fn a_head_may_fill_its_limit_and_not_exceed_it() {
    let head = |fill: usize| format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", "x".repeat(fill));
    let limit = 64 * 1024;
    let overhead = head(0).len();
    assert_eq!(request_refusal(head(limit - overhead).as_bytes()), None);
    assert_eq!(request_refusal(head(limit - overhead + 1).as_bytes()), Some(HeadTooLarge));
    assert_eq!(request_refusal(format!("GET /{}", "x".repeat(limit)).as_bytes()), Some(HeadTooLarge));
}

#[test]
fn a_head_of_very_many_fields_is_taken() {
    let lines: String = (0..10_000).map(|_| "a:\r\n").collect();
    let raw = format!("GET / HTTP/1.1\r\n{lines}X-Mirror-Id: 1\r\n\r\n");
    let head = RequestHead::parse(raw.as_bytes()).unwrap();
    assert!(head.facts.has_mirror_id);
    assert_eq!(head.headers().count(), 10_001);
}

#[test]
fn first_line_feed_is_found_wherever_it_is() {
    for len in 0..40 {
        for position in 0..len {
            let mut bytes = vec![0x0b_u8; len];
            bytes[position..].fill(0x8a);
            bytes[position] = b'\n';
            assert_eq!(find_line_feed(&bytes), Some(position));
            assert_eq!(find_line_feed(&bytes[position + 1..]), None);
            assert_eq!(find_line_feed(&bytes[..position]), None);
        }
    }
}

#[test]
fn a_head_in_one_piece_takes_no_memory_and_one_in_two_gives_it_back() {
    let mut buffer = HeadBuffer::new(1024);
    let mut input: &[u8] = b"GET / HTTP/1.1\r\n\r\n";
    buffer.take(&mut input, |_| false);
    assert_eq!(buffer.bytes_held(), 0);
    buffer.release();
    for mut piece in [&b"GET / HT"[..], b"TP/1.1\r\n\r\n"] {
        buffer.take(&mut piece, |_| false);
        assert!(buffer.bytes_held() > 0);
    }
    buffer.release();
    assert_eq!(buffer.bytes_held(), 0);
}
