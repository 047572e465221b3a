//! Enters: byte streams of servers. Leaves: whether the responses in them are found, and kept in step with.

use super::{
    super::{EndEffect, Framing, GapEffect, Refusal, ResponseDecoder},
    Fate, feed_response, only, responses,
};
use crate::pipeline::{limits::Limits, message::ReplyTo};

fn decoder() -> ResponseDecoder {
    ResponseDecoder::new(&Limits::default())
}

#[test]
fn head_response_with_content_length_has_no_body() {
    let mut decoder = decoder();
    let mut messages = Vec::new();
    feed_response(
        &mut decoder,
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
        ReplyTo::Head,
        &mut messages,
    );
    let next = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";
    feed_response(&mut decoder, next, ReplyTo::Other, &mut messages);
    assert_eq!((messages[0].fate, messages[0].framing), (Fate::Complete, Framing::None));
    assert_eq!((messages[1].fate, messages[1].content.as_slice()), (Fate::Complete, &b"hi"[..]));
}

#[test]
fn close_delimited_response_ends_with_the_connection() {
    let mut decoder = decoder();
    let mut messages = Vec::new();
    let bytes = b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 is not a head here";
    feed_response(&mut decoder, bytes, ReplyTo::Other, &mut messages);
    assert_eq!(decoder.handle_gap(1_000), GapEffect::InBody);
    feed_response(&mut decoder, b"!", ReplyTo::Other, &mut messages);
    assert_eq!(decoder.handle_end(), EndEffect::Complete);
    let message = only(messages);
    assert_eq!(
        (message.fate, message.content.as_slice()),
        (Fate::Open, &b"HTTP/1.1 is not a head here!"[..])
    );
}

#[test]
fn interim_responses_are_messages_of_their_own() {
    let bytes =
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: a\r\nConnection: close\r\n\r\n\
        HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx";
    let messages = responses(bytes, ReplyTo::Other);
    let lines: Vec<_> = messages.iter().map(|message| (message.line.as_str(), message.fate)).collect();
    assert_eq!(lines, [("100", Fate::Complete), ("103", Fate::Complete), ("200", Fate::Complete)]);
}

#[test]
fn tunnel_begins_behind_101_and_an_accepted_connect() {
    let cases: [(&[u8], ReplyTo, bool); 4] = [
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n\x81\x05HTTP/1.1 ", ReplyTo::Other, true),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n\x16\x03", ReplyTo::Connect, true),
        (b"HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n", ReplyTo::Connect, false),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", ReplyTo::Other, false),
    ];
    for (bytes, reply_to, tunnel) in cases {
        let mut decoder = decoder();
        let mut messages = Vec::new();
        feed_response(&mut decoder, bytes, reply_to, &mut messages);
        assert_eq!(only(messages).fate, Fate::Complete);
        assert_eq!(decoder.is_tunnel(), tunnel, "{}", bytes.escape_ascii());
    }
}

#[test]
fn line_feeds_alone_are_taken_as_clients_take_them() {
    let bytes = b"HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n5 \nhello\n3;x\r\nabc\r\n0\nA: b\n\n";
    let message = only(responses(bytes, ReplyTo::Other));
    assert_eq!((message.fate, message.content.as_slice()), (Fate::Complete, &b"helloabc"[..]));
}

#[test]
fn chunk_sizes_may_have_any_number_of_zeros_before_them() {
    let (some, last) = ("0".repeat(40), "0".repeat(17));
    let bytes =
        format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{some}3\r\nabc\r\n{last}\r\n\r\n");
    let message = only(responses(bytes.as_bytes(), ReplyTo::Other));
    assert_eq!((message.fate, message.content.as_slice()), (Fate::Complete, &b"abc"[..]));
}

#[test]
fn line_of_one_space_does_not_end_a_head() {
    let message = only(responses(b"HTTP/1.1 204 No\r\nA: b\r\n \n c\r\n\r\n", ReplyTo::Other));
    assert_eq!((message.fate, message.headers.len()), (Fate::Complete, 1));
}

#[test]
fn chunk_size_without_digits_does_not_end_a_response() {
    for body in ["\r\n\r\n", "\n", ";x\r\n\r\n", "5\r\nhello\r\n\r\n"] {
        let bytes = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
        let message = only(responses(bytes.as_bytes(), ReplyTo::Other));
        assert_eq!(message.fate, Fate::Refused(Refusal::Malformed), "{body:?}");
    }
}

#[test]
fn response_that_closes_the_connection_is_the_last() {
    let bytes = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\nxHTTP/1.1 200 OK\r\n\r\n";
    let message = only(responses(bytes, ReplyTo::Other));
    assert_eq!((message.fate, message.content.as_slice()), (Fate::Complete, &b"x"[..]));
}

#[test]
fn truncated_responses_are_told_from_complete_ones() {
    let cases: [(&[u8], EndEffect); 4] = [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nx", EndEffect::Truncated),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n", EndEffect::Truncated),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx", EndEffect::Clean),
        (b"HTTP/1.0 200 OK\r\n\r\n", EndEffect::Complete),
    ];
    for (bytes, effect) in cases {
        let mut decoder = decoder();
        feed_response(&mut decoder, bytes, ReplyTo::Other, &mut Vec::new());
        assert_eq!(decoder.handle_end(), effect, "{}", bytes.escape_ascii());
    }
}
