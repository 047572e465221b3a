//! Enters: requests whose answers take another way. Leaves: the same requests, and after a gap none that is a guess.

use std::time::Duration;

use super::*;

/// A connection of which the capture sees the client alone, from its SYN on.
fn requests_only() -> Conversation {
    let purpose = Purpose::replay(Experiment::of_methods(Methods::All));
    let mut talk = Conversation::adopted(purpose, Limits::default(), 1_000, 2_000);
    talk.segment(Side::Client, TcpFlags::SYN, 0, b"", 0);
    talk.next = [SeqNumber(1_001), SeqNumber(2_001)];
    talk
}

/// The server answers by its other way.
fn unseen(talk: &mut Conversation) {
    talk.skip(Side::Server, OK.len());
}

/// Time in which nothing passes.
fn wait(talk: &mut Conversation, time: Duration) {
    talk.now += u64::try_from(time.as_nanos()).unwrap();
    talk.pipeline.handle_time(Timestamp::from_nanos(talk.now));
    talk.count();
}

#[test]
fn requests_are_mirrored_when_they_are_complete() {
    let mut talk = requests_only();
    let body = post(&[b'x'; 3_000]);
    let pipelined = [get("/3"), post(b"four"), get("/5")].concat();
    for bytes in [&get("/1")[..], &body[..1_000], &body[1_000..], &pipelined] {
        talk.client(bytes);
        unseen(&mut talk);
    }
    assert_eq!(talk.requests(), [get("/1"), body, get("/3"), post(b"four"), get("/5")]);
    talk.fin(Side::Client);
    talk.finish();
    assert_eq!((talk.seen(), talk.settled()), (5, 0));
}

#[test]
fn after_a_gap_the_second_request_is_believed() {
    let mut talk = requests_only();
    talk.client(&get("/1"));
    unseen(&mut talk);
    talk.skip(Side::Client, get("/lost").len());
    unseen(&mut talk);
    for path in ["/2", "/3", "/4"] {
        talk.client(&get(path));
        unseen(&mut talk);
    }
    wait(&mut talk, Duration::from_secs(7));
    talk.client(&get("/5"));
    assert_eq!(talk.requests(), [get("/1"), get("/3"), get("/4"), get("/5")]);
    assert_eq!(talk.stats.gap_bytes[CLIENT], get("/lost").len() as u64);
}

#[test]
fn after_a_gap_what_looks_like_requests_in_a_body_is_not_believed() {
    let mut talk = requests_only();
    talk.client(&get("/1"));
    unseen(&mut talk);
    // The head of an upload, and a part of it.
    talk.skip(Side::Client, 500);
    for _ in 0..5 {
        talk.client(&get("/in-the-body"));
    }
    wait(&mut talk, Duration::from_secs(7));
    // Acknowledged by a go-ahead that came late, say.
    talk.skip(Side::Server, 25);
    talk.client(&get("/in-the-body"));
    unseen(&mut talk);
    talk.client(&get("/2"));
    assert_eq!(talk.requests(), [get("/1"), get("/2")]);
}

#[test]
fn each_gap_ends_what_was_heard_before_it() {
    let mut talk = requests_only();
    talk.client(&get("/1"));
    for _ in 0..3 {
        talk.skip(Side::Client, 100);
        unseen(&mut talk);
        talk.client(&get("/right-behind-a-gap"));
        wait(&mut talk, Duration::from_secs(7));
    }
    assert_eq!(talk.requests(), [get("/1")]);
}

#[test]
fn what_follows_an_unanswered_expectation_is_neither_body_nor_request_where_it_may_be_both() {
    let head = b"POST /e HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 40\r\n\r\n";
    for body in [&[b'x'; 40][..], b"GET /a HTTP/1.1\r\nHost: live\r\n\r\n0123456789"] {
        let is_clear = body.starts_with(b"x");
        let mut talk = requests_only();
        talk.client(head);
        talk.skip(Side::Server, 25);
        talk.client(&body[..33]);
        talk.client(&body[33..40]);
        unseen(&mut talk);
        talk.client(&get("/next"));
        let expected =
            if is_clear { vec![[&head[..], body].concat(), get("/next")] } else { vec![get("/next")] };
        assert_eq!(talk.requests(), expected);
        assert_eq!(talk.lost(LostReason::Aborted), u64::from(!is_clear));
    }
}

#[test]
fn once_the_server_has_answered_an_old_connection_is_picked_up_only_where_it_was_quiet() {
    let mut talk = Conversation::adopted(Purpose::replay(Experiment::default()), Limits::default(), 1, 1);
    talk.client(b"tail of an upload");
    talk.server(b"HTTP/1.1 413 Content Too Large\r\n\r\n");
    talk.client(b"goes on all the same, with ");
    talk.client(&get("/in-the-body"));
    talk.server(OK);
    talk.client(&get("/next"));
    assert_eq!(talk.requests(), [get("/next")]);
}

/// More than any go-ahead without fields.
const GO_AHEAD: usize = 80;

#[test]
fn after_an_expectation_that_is_sent_again_its_body_is_not_believed() {
    let head = b"POST /e HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 40\r\n\r\n";
    let mut talk = requests_only();
    talk.client(head);
    // Refused, and tried again.
    unseen(&mut talk);
    talk.client(head);
    talk.skip(Side::Server, GO_AHEAD);
    talk.client(&get("/in-the-body"));
    unseen(&mut talk);
    talk.client(&get("/next"));
    assert_eq!(talk.requests(), [get("/next")]);
    assert_eq!((talk.lost(LostReason::Aborted), talk.stats.starts_doubted), (1, 2));
}

#[test]
fn expectation_in_a_head_of_several_segments_that_is_passed_over_has_a_body_that_is_not_believed() {
    for expects in [false, true] {
        let mut talk = requests_only();
        talk.client(&get("/1"));
        unseen(&mut talk);
        talk.skip(Side::Client, get("/lost").len());
        unseen(&mut talk);
        let field = if expects { "Expect: 100-continue" } else { "Accept: text/plain, */*" };
        talk.client(format!("POST /e HTTP/1.1\r\n{field}\r\n").as_bytes());
        talk.client(b"Content-Length: 40\r\n\r\n");
        talk.skip(Side::Server, GO_AHEAD);
        talk.client(&get("/answered-or-invited"));
        unseen(&mut talk);
        talk.client(&get("/next"));
        wait(&mut talk, Duration::from_secs(7));
        let doubtful = (!expects).then(|| get("/answered-or-invited"));
        let expected: Vec<_> = [get("/1")].into_iter().chain(doubtful).chain([get("/next")]).collect();
        assert_eq!(talk.requests(), expected);
    }
}
