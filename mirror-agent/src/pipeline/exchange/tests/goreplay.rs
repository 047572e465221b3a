//! Enters: the conversations that GoReplay loses, alters or doubles. Leaves: that none of it happens here.

use super::*;

#[test]
fn two_pipelined_gets_in_one_segment() {
    let mut talk = Conversation::new();
    talk.client(&[get("/1"), get("/2")].concat());
    assert_eq!(talk.requests(), [get("/1"), get("/2")]);
}

#[test]
fn post_whose_ack_number_advances_within_it() {
    let mut talk = Conversation::new();
    let request = post(b"0123456789");
    let (first, rest) = request.split_at(60);
    talk.client(first);
    talk.server(b"HTTP/1.1 100 Continue\r\n\r\n");
    talk.client(rest);
    assert_eq!(talk.requests(), [request]);
}

#[test]
fn chunked_terminator_split_over_two_segments() {
    let mut talk = Conversation::new();
    let head = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n";
    talk.client(head);
    talk.client(b"0\r\n");
    talk.client(b"\r\n");
    assert_eq!(talk.requests(), [[&head[..], b"0\r\n\r\n"].concat()]);
}

#[test]
fn chunk_data_that_ends_a_segment_like_a_terminator() {
    let mut talk = Conversation::new();
    let first = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n0\r\n\r\n";
    talk.client(first);
    assert!(talk.requests().is_empty());
    talk.client(b"abc\r\n0\r\n\r\n");
    assert_eq!(talk.requests(), [[&first[..], b"abc\r\n0\r\n\r\n"].concat()]);
}

#[test]
fn trailers_without_a_trailer_field() {
    let mut talk = Conversation::new();
    let request = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nSum: 1\r\n\r\n";
    talk.client(request);
    assert_eq!(talk.requests(), [request]);
}

#[test]
fn segment_of_only_nul_bytes() {
    let mut talk = Conversation::new();
    let request = post(&[0; 600]);
    let (first, rest) = request.split_at(request.len() - 500);
    talk.client(first);
    talk.client(rest);
    assert_eq!(talk.requests(), [request]);
}

#[test]
fn sequence_wrap_inside_a_body() {
    let purpose = Purpose::replay(Experiment::of_methods(Methods::All));
    let mut talk = Conversation::adopted(purpose, Limits::default(), u32::MAX - 100, 5);
    let request = post(&[b'w'; 300]);
    request.chunks(50).for_each(|piece| talk.client(piece));
    assert_eq!(talk.requests(), [request]);
}

#[test]
fn retransmission_longer_than_the_first_copy() {
    let mut talk = Conversation::new();
    let request = get("/long");
    talk.client_at(0, &request[..10]);
    talk.client(&request);
    assert_eq!(talk.requests(), [request]);
}

#[test]
fn get_retransmitted_after_delivery() {
    let mut talk = Conversation::new();
    talk.client(&get("/once"));
    talk.client_at(-i32::try_from(get("/once").len()).unwrap(), &get("/once"));
    talk.server(OK);
    talk.client_at(-i32::try_from(get("/once").len()).unwrap(), &get("/once"));
    assert_eq!(talk.requests(), [get("/once")]);
    assert_eq!(talk.seen(), 1);
}

#[test]
fn head_response_with_content_length() {
    let mut talk = Conversation::inspected();
    talk.client(b"HEAD / HTTP/1.1\r\n\r\n");
    talk.server_full(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n");
    talk.client(&get("/next"));
    talk.server_full(OK);
    let reports = talk.reports();
    assert_eq!(reports.len(), 2);
    assert!(reports.iter().all(|report| report.response.as_ref().is_some_and(|response| response.complete)));
}

#[test]
fn close_delimited_response() {
    let mut talk = Conversation::inspected();
    talk.client(&get("/"));
    talk.server_full(b"HTTP/1.0 200 OK\r\n\r\nbody");
    talk.fin(Side::Server);
    talk.fin(Side::Client);
    assert_eq!(talk.reports()[0].response.as_ref().map(|response| response.body_bytes), Some(4));
}

#[test]
fn websocket_handshake_is_not_replayed_as_a_plain_get() {
    let mut talk = Conversation::new();
    talk.client(b"GET /ws HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n");
    talk.server(b"HTTP/1.1 101 Switching Protocols\r\n\r\n");
    talk.client(b"\x81\x85abcdHELLO");
    assert!(talk.requests().is_empty());
}
