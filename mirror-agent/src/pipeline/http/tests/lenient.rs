//! Enters: messages that a strict decoder refuses. Leaves: what a lenient one makes of them.

use proptest::prelude::*;

use super::{
    super::{EndEffect, Event, Framing, Refusal, RequestDecoder, ResponseDecoder, headers, unfold},
    Fate, Message, feed_request, feed_response, request_refusal,
};
use crate::pipeline::{limits::Limits, message::ReplyTo};

use Refusal::{AmbiguousFraming, Malformed};

/// The requests in `bytes` and why each would be refused, whole and byte by byte.
fn requests(bytes: &[u8]) -> Vec<(Message, Option<Refusal>)> {
    let whole = requests_in(&mut [bytes].into_iter());
    assert_eq!(whole, requests_in(&mut bytes.chunks(1)), "{}", bytes.escape_ascii());
    whole
}

fn requests_in(pieces: &mut dyn Iterator<Item = &[u8]>) -> Vec<(Message, Option<Refusal>)> {
    let mut decoder = RequestDecoder::lenient(&Limits::default());
    let mut told: Vec<(Message, Option<Refusal>)> = Vec::new();
    for piece in pieces {
        let mut input = piece;
        loop {
            match decoder.poll(&mut input) {
                Event::NeedMore => break,
                Event::Start => told.push((Message::empty(), None)),
                Event::Head(head) => {
                    let line = format!(
                        "{} {}",
                        String::from_utf8_lossy(head.method),
                        String::from_utf8_lossy(head.target)
                    );
                    let (message, refusal) = told.last_mut().unwrap();
                    message.note_head(head.raw, line, head.facts.framing);
                    *refusal = head.facts.refusal;
                }
                event @ (Event::Content(_) | Event::Framing(_) | Event::End | Event::Refused(_)) => {
                    let (message, refusal) = told.last_mut().unwrap();
                    message.note(&event);
                    *refusal = refusal.or(decoder.body_refusal());
                }
            }
        }
    }
    told
}

#[test]
fn heads_are_read_as_tolerant_servers_read_them() {
    let cases: &[(&[u8], &str, Framing, Refusal)] = &[
        (b"GET / HTTP/1.1\nHost: a\n\n", "GET /", Framing::None, AmbiguousFraming),
        (b"GET / HTTP/1.1\r\nHost: a\n\r\n", "GET /", Framing::None, AmbiguousFraming),
        (b"GET  /a  HTTP/1.1\r\n\r\n", "GET /a", Framing::None, Malformed),
        (b"GET\t/a\tHTTP/1.1 \r\n\r\n", "GET /a", Framing::None, Malformed),
        (b"\t GET\x0b/a\x0cHTTP/1.1\r\r\n\r\n", "GET /a", Framing::None, Malformed),
        (b"GET /a b HTTP/1.1\r\n\r\n", "GET /a b", Framing::None, Malformed),
        (b"GET / HTTP/1.2\r\n\r\n", "GET /", Framing::None, Malformed),
        (b"GET / HTTP/1.\r\n\r\n", "GET /", Framing::None, Malformed),
        (b"CCM_POST /\x01 HTTP/1.0\n\n", "CCM_POST /\x01", Framing::None, AmbiguousFraming),
        (b"P / HTTP/1.1\r\nContent-Length : 0\r\n\r\n", "P /", Framing::Length(0), AmbiguousFraming),
        (b"P / HTTP/1.1\r\n Content-Length: 0\r\nX: y\r\n\r\n", "P /", Framing::None, AmbiguousFraming),
        (
            b"P / HTTP/1.1\r\n no colon\r\nContent-Length: 0\r\n\r\n",
            "P /",
            Framing::Length(0),
            AmbiguousFraming,
        ),
        (
            b"P / HTTP/1.1\r\nContent-Length: 0\r\nContent-Length:0\r\n\r\n",
            "P /",
            Framing::Length(0),
            AmbiguousFraming,
        ),
        (b"P / HTTP/1.1\r\nno colon\r\nContent-Length: 0\r\n\r\n", "P /", Framing::Length(0), Malformed),
        (
            b"P / HTTP/1.1\r\nTransfer-Encoding: identity\r\nContent-Length: 0\r\n\r\n",
            "P /",
            Framing::Length(0),
            AmbiguousFraming,
        ),
    ];
    for (bytes, line, framing, refusal) in cases {
        let told = requests(bytes);
        let [(message, refused)] = &told[..] else { panic!("{}: {told:?}", bytes.escape_ascii()) };
        assert_eq!((message.line.as_str(), message.framing, message.fate), (*line, *framing, Fate::Complete));
        assert_eq!(*refused, Some(*refusal), "{}", bytes.escape_ascii());
        assert_eq!(request_refusal(bytes), Some(*refusal), "{}", bytes.escape_ascii());
    }
}

#[test]
fn transfer_coding_overrides_the_length_and_the_decoder_stays_in_step() {
    for lines in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: gzip, chunked\r\nContent-Length: x",
        "Transfer-Encoding:\r\n chunked",
        "Transfer-Encoding\t: chunked",
        "Transfer-Encoding: chunked, , identity,",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    ] {
        let bytes = format!("POST / HTTP/1.1\r\n{lines}\r\n\r\n1\r\nx\r\n0\r\n\r\nGET /2 HTTP/1.1\r\n\r\n");
        let told = requests(bytes.as_bytes());
        assert_eq!(told.len(), 2, "{lines}");
        assert_eq!((&told[0].0.content[..], told[0].1), (&b"x"[..], Some(AmbiguousFraming)), "{lines}");
        assert_eq!((told[1].0.line.as_str(), told[1].1), ("GET /2", None), "{lines}");
    }
}

#[test]
fn chunk_framing_that_is_refused_elsewhere_is_followed_and_marked() {
    for (body, refusal) in [
        ("1\nx\n0\n\n", AmbiguousFraming),
        ("1\r\nx\r\n0\r\n\n", AmbiguousFraming),
        ("1 \r\nx\r\n0\r\n\r\n", Malformed),
        ("00000000000000000001\r\nx\r\n00000000000000000000\r\n\r\n", AmbiguousFraming),
    ] {
        let bytes =
            format!("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{body}GET /2 HTTP/1.1\r\n\r\n");
        let told = requests(bytes.as_bytes());
        assert_eq!(told.len(), 2, "{body:?}");
        assert_eq!((&told[0].0.content[..], told[0].1), (&b"x"[..], Some(refusal)), "{body:?}");
        assert_eq!(told[1].1, None, "{body:?}");
    }
}

#[test]
fn request_behind_one_that_closes_is_still_told() {
    let told = requests(
        b"GET /1 HTTP/1.0\r\n\r\nGET /2 HTTP/1.1\r\nConnection: close\r\n\r\nGET /3 HTTP/1.1\r\n\r\n",
    );
    let lines: Vec<_> = told.iter().map(|(message, refusal)| (message.line.as_str(), *refusal)).collect();
    assert_eq!(lines, [("GET /1", None), ("GET /2", None), ("GET /3", None)]);
}

#[test]
fn what_nobody_understands_stays_refused() {
    // Without a version: HTTP/0.9.
    for bytes in [
        &b"GET /\r\n\r\n"[..],
        b"GET /HTTP/1.1\n\n",
        b"OPTIONS HTTP/1.1\n\n",
        b"G\xc3T / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/2.0\r\n\r\n",
        b"\x16\x03\x01\x02\x00",
    ] {
        let told = requests(bytes);
        assert!(matches!(told[0].0.fate, Fate::Refused(_)) && told[0].0.head.is_empty(), "{told:?}");
    }
    let told = requests(b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx");
    assert_eq!((told[0].0.line.as_str(), told[0].0.fate), ("POST /", Fate::Refused(AmbiguousFraming)));
}

#[test]
fn responses_are_read_as_tolerant_clients_read_them() {
    let cases: &[(&str, &str, Framing)] = &[
        ("HTTP/1.1  200  OK \n\n", "200", Framing::UntilClose),
        ("HTTP/1.1 200 OK\r\nContent-Length : 3\r\n\r\nabc", "200", Framing::Length(3)),
        ("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "200", Framing::Chunked),
        ("HTTP/1.1 404 No\r\nbad line\r\nContent-Length: 0\r\n\r\n", "404", Framing::Length(0)),
        ("HTTP/1.1 204 No\r\nX : y\r\n\r\n", "204", Framing::None),
        (" HTTP/1.1\t200\x0cOK\r\r\nContent-Length: 0\r\n\r\n", "200", Framing::Length(0)),
        ("HTTP/1.1 200 OK\r\n Content-Length: 0\r\nX: y\r\n\r\n", "200", Framing::UntilClose),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: Identity\r\nContent-Length: 0\r\n\r\n",
            "200",
            Framing::Length(0),
        ),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", "200", Framing::Chunked),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\nContent-Length: 9\r\n\r\n",
            "200",
            Framing::UntilClose,
        ),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding:\r\nContent-Length: 9\r\n\r\n", "200", Framing::UntilClose),
    ];
    for (bytes, status, framing) in cases {
        let mut messages = Vec::new();
        let mut decoder = ResponseDecoder::lenient(&Limits::default());
        feed_response(&mut decoder, bytes.as_bytes(), ReplyTo::Other, &mut messages);
        assert_eq!((messages[0].line.as_str(), messages[0].framing), (*status, *framing), "{bytes}");
        assert!(messages[0].fate == Fate::Complete || decoder.handle_end() == EndEffect::Complete, "{bytes}");
    }
}

#[test]
fn response_behind_one_that_closes_is_still_told() {
    let bytes = b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nxHTTP/1.1 204 No\r\n\r\n";
    let mut messages = Vec::new();
    feed_response(&mut ResponseDecoder::lenient(&Limits::default()), bytes, ReplyTo::Other, &mut messages);
    assert_eq!(messages.len(), 2);
}

#[test]
fn fields_of_a_head_that_is_let_pass_are_tidied() {
    let raw = b"GET / HTTP/1.1\n lead: x\nno colon\nA : b\nC:\r\n d\r\n\te\nno\n colon: f\n\n";
    let fields: Vec<_> = headers(raw).map(|(name, value)| (name, unfold(value).into_owned())).collect();
    assert_eq!(
        fields,
        [(&b"lead"[..], b"x".to_vec()), (&b"A"[..], b"b".to_vec()), (&b"C"[..], b"d e".to_vec())]
    );
}

proptest! {
    #[test]
    fn what_a_strict_decoder_takes_a_lenient_one_takes_the_same_way(
        line in prop_oneof![Just("GET / HTTP/1.1"), Just("POST /a?b HTTP/1.0"), Just("GET /  HTTP/1.1")],
        fields in prop::collection::vec(
            prop_oneof![
                Just("Host: a\r\n"), Just("Content-Length: 2\r\n"), Just("Transfer-Encoding: chunked\r\n"),
                Just("X: é\r\n"), Just("Connection: keep-alive\r\n"), Just(" fold\r\n"), Just("Y : z\n"),
            ],
            0..4,
        ),
        body in prop_oneof![Just(""), Just("ab"), Just("2\r\nab\r\n0\r\n\r\n"), Just("2\nab\n0\n\n")],
    ) {
        let bytes = format!("{line}\r\n{}\r\n{body}", fields.concat());
        let mut strict = Vec::new();
        feed_request(&mut RequestDecoder::new(&Limits::default()), bytes.as_bytes(), &mut strict);
        let lenient = requests(bytes.as_bytes());
        prop_assert!(!strict.is_empty() && !lenient.is_empty());
        let refused = matches!(strict[0].fate, Fate::Refused(_));
        prop_assert_eq!(lenient[0].1.is_some(), refused);
        if !refused {
            prop_assert_eq!(&lenient[0].0, &strict[0]);
        }
    }
}
