//! Enters: connections on which it was lost where messages begin. Leaves: requests again, and a count of what may have been some.

use super::*;

const UPGRADE: &[u8] = b"GET /ws HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n";

#[test]
fn what_begins_like_a_request_and_is_not_believed_is_counted() {
    let mut talk = Conversation::new();
    talk.client(&get("/1"));
    talk.server(OK);
    // The ring was full.
    talk.skip(Side::Client, get("/lost").len());
    talk.skip(Side::Server, OK.len());
    talk.client(&get("/2"));
    talk.server(OK);
    talk.client(&get("/3"));
    talk.server(OK);
    assert_eq!(talk.requests(), [get("/1"), get("/3")]);
    assert_eq!((talk.seen(), talk.stats.starts_doubted), (2, 1));
}

#[test]
fn several_requests_in_the_first_segment_of_an_old_connection_are_counted_as_one_doubt() {
    let mut talk = Conversation::adopted(Purpose::replay(Experiment::default()), Limits::default(), 1, 1);
    talk.client(&[get("/1"), get("/2")].concat());
    assert!(talk.requests().is_empty());
    assert_eq!((talk.seen(), talk.stats.starts_doubted), (0, 1));
}

#[test]
fn body_that_was_asked_for_on_an_old_connection_is_not_taken_for_a_request() {
    for is_asked_for in [false, true] {
        let mut talk = Conversation::adopted(Purpose::replay(Experiment::default()), Limits::default(), 1, 1);
        talk.client(b"nt-Length: 37\r\n\r\n");
        if is_asked_for {
            talk.server(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        talk.client(&get("/in-the-body"));
        talk.server(OK);
        talk.client(&get("/next"));
        // Without a word from the server nobody can tell.
        let guess = (!is_asked_for).then(|| get("/in-the-body"));
        let expected: Vec<_> = guess.into_iter().chain([get("/next")]).collect();
        assert_eq!(talk.requests(), expected);
    }
}

#[test]
fn upgrade_that_is_declined_before_its_body_has_ended_holds_nothing_up() {
    let mut talk = Conversation::new();
    talk.client(b"POST /u HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 8\r\n\r\n0123");
    talk.server(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n");
    talk.client(b"4567");
    let large = post(&[b'x'; 100_000]);
    for part in large.chunks(10_000) {
        talk.client(part);
    }
    talk.server(OK);
    talk.client(&get("/next"));
    let requests = talk.requests();
    assert_eq!((requests.len(), talk.flows_skipped(FlowSkipReason::Upgraded)), (2, 0));
    assert!(requests[0] == large && requests[1] == get("/next"));
    assert_eq!(talk.skipped(SkipReason::Upgrade), 1);
}

#[test]
fn upgrade_whose_answer_was_lost_costs_no_more_than_what_is_too_long_to_wait_for() {
    for (sent, is_http) in [(post(&[b'x'; 100_000]), true), (vec![0; 100_000], false)] {
        let mut talk = Conversation::new();
        talk.client(UPGRADE);
        talk.skip(Side::Server, OK.len());
        for part in sent.chunks(10_000) {
            talk.client(part);
        }
        talk.server(OK);
        talk.client(&get("/next"));
        let expected = if is_http { vec![get("/next")] } else { vec![] };
        assert_eq!(talk.requests(), expected);
        assert_eq!(talk.flows_skipped(FlowSkipReason::Upgraded), u64::from(!is_http));
        assert_eq!(talk.stats.starts_doubted, u64::from(is_http));
    }
}

#[test]
fn text_of_requests_in_a_body_costs_one_copy_however_it_is_cut() {
    let text = [get("/never-sent"), get("/nor-this")];
    for first in [text[0].clone(), text[0][..20].to_vec()] {
        let mut talk = Conversation::adopted(Purpose::replay(Experiment::default()), Limits::default(), 1, 1);
        talk.client(&first);
        let rest = [&text[0][first.len()..], &text.concat()].concat();
        talk.client(&rest);
        for _ in 0..5 {
            talk.client(&text.concat());
        }
        talk.server(OK);
        talk.client(&get("/next"));
        assert_eq!(talk.requests(), [get("/never-sent"), get("/next")]);
        assert!(talk.stats.starts_doubted > 0);
    }
}

#[test]
fn first_request_of_an_old_connection_is_confirmed_by_its_answer() {
    for is_seen in [false, true] {
        let purpose = Purpose::replay(Experiment::of_methods(Methods::All));
        let mut talk = Conversation::adopted(purpose, Limits::default(), 1, 1);
        let requests = [post(b"0123456789"), get("/2"), get("/3"), get("/4")];
        talk.client(&requests[0][..30]);
        talk.client(&requests[0][30..]);
        for request in &requests[1..] {
            if is_seen {
                talk.server(OK);
            } else {
                talk.skip(Side::Server, OK.len());
            }
            talk.client(request);
        }
        assert_eq!(talk.requests(), requests, "answers seen: {is_seen}");
        assert_eq!(talk.stats.starts_doubted, 0);
    }
}

#[test]
fn pipelined_requests_behind_the_first_of_an_old_connection_are_doubted_until_it_is_quiet() {
    let mut talk = Conversation::adopted(Purpose::replay(Experiment::default()), Limits::default(), 1, 1);
    for path in ["/1", "/2", "/3"] {
        talk.client(&get(path));
    }
    for _ in 0..3 {
        talk.server(OK);
    }
    for path in ["/4", "/5", "/6"] {
        talk.client(&get(path));
    }
    assert_eq!(talk.requests(), ["/1", "/4", "/5", "/6"].map(get));
    assert_eq!(talk.stats.starts_doubted, 2);
}
