//! Enters: conversations with many requests at a time, from files. Leaves: which response is told with which request.

use super::*;
use crate::pipeline::exchange::report::StartLine;

#[test]
fn beyond_the_limit_of_outstanding_requests_no_response_is_paired() {
    let mut talk = Conversation::with(Purpose::Inspect, Limits { outstanding: 2, ..Limits::default() });
    talk.client(&[get("/1"), get("/2"), get("/3"), get("/4")].concat());
    talk.server_full(&[OK, OK].concat());
    // Two answers are still to come.
    talk.client(&get("/5"));
    talk.server_full(&[OK, OK, OK].concat());
    talk.wait(100);
    talk.client(&[get("/6"), get("/7")].concat());
    talk.server_full(b"HTTP/1.1 206 Six\r\nContent-Length: 0\r\n\r\n");
    talk.server_full(b"HTTP/1.1 207 Seven\r\nContent-Length: 0\r\n\r\n");
    talk.finish();
    let told: Vec<_> = talk.reports().iter().map(pair).collect();
    let alone = |target: &str| (Some(target.to_owned()), None);
    let unasked = || (None, Some(200));
    assert_eq!(
        told,
        [
            alone("/1"),
            alone("/2"),
            alone("/3"),
            alone("/4"),
            unasked(),
            unasked(),
            alone("/5"),
            unasked(),
            unasked(),
            unasked(),
            (Some("/6".to_owned()), Some(206)),
            (Some("/7".to_owned()), Some(207)),
        ]
    );
}

#[test]
fn response_under_way_is_told_with_its_request_though_pairing_is_given_up() {
    let mut talk = Conversation::with(Purpose::Inspect, Limits { outstanding: 2, ..Limits::default() });
    talk.client(&[get("/1"), get("/2")].concat());
    talk.server_full(b"HTTP/1.1 201 One\r\nContent-Length: 2\r\n\r\no");
    talk.client(&get("/3"));
    talk.server_full(b"k");
    talk.finish();
    let told: Vec<_> = talk.reports().iter().map(pair).collect();
    assert_eq!(
        told,
        [(Some("/2".to_owned()), None), (Some("/3".to_owned()), None), (Some("/1".to_owned()), Some(201)),]
    );
}

#[test]
fn response_that_may_answer_head_has_no_content_where_another_one_follows() {
    let head_alone = b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n";
    for follows in [&b"HTTP/1.1 204 No Content\r\n\r\n"[..], b"<h1>"] {
        let mut talk = Conversation::with(Purpose::Inspect, Limits::default());
        talk.client(&get("/1"));
        talk.server_full(OK);
        // A request is missing from the capture.
        talk.skip(Side::Client, 40);
        talk.server_full(head_alone);
        talk.skip(Side::Client, 30);
        talk.server_full(follows);
        talk.finish();
        let told = talk.reports();
        let statuses: Vec<_> = told.iter().map(|report| pair(report).1).collect();
        let complete: Vec<_> = told
            .iter()
            .map(|report| report.response.as_ref().is_some_and(|response| response.complete))
            .collect();
        if follows.starts_with(b"HTTP/") {
            assert_eq!((statuses, complete), (vec![Some(200), Some(200), Some(204)], vec![true; 3]));
        } else {
            assert_eq!((statuses, complete), (vec![Some(200); 2], vec![true, false]));
        }
    }

    // Whoever was asked by GET sends what he announces.
    let mut talk = Conversation::with(Purpose::Inspect, Limits::default());
    talk.client(&get("/1"));
    talk.server_full(head_alone);
    talk.server_full(OK);
    talk.finish();
    assert_eq!(talk.reports().len(), 1);
}

#[test]
fn interim_responses_are_told_up_to_a_limit_and_counted_beyond() {
    let mut talk = Conversation::with(Purpose::Inspect, Limits::default());
    talk.client(&get("/1"));
    for _ in 0..10 {
        talk.server_full(&b"HTTP/1.1 103 Early Hints\r\n\r\n".repeat(100));
    }
    talk.server_full(OK);
    let told = talk.reports();
    assert_eq!((told.len(), pair(&told[0])), (1, (Some("/1".to_owned()), Some(200))));
    assert_eq!((told[0].interim.len(), told[0].interim_left_out), (64, 936));
}

#[test]
fn open_exchanges_hold_so_much_and_beyond_it_the_oldest_are_told_as_they_are() {
    let limits = Limits { memory_bytes: 2 * 1024 * 1024, outstanding: 1_000, ..Limits::default() };
    let mut talk = Conversation::with(Purpose::Inspect, limits);
    for number in 0..500 {
        talk.client(format!("GET /{number} HTTP/1.1\r\na: {}\r\n\r\n", "x".repeat(8_000)).as_bytes());
    }
    let early = talk.reports();
    let targets: Vec<_> = early.iter().filter_map(|report| pair(report).0).collect();
    let oldest: Vec<_> = (0..targets.len()).map(|number| format!("/{number}")).collect();
    assert_eq!(targets, oldest);
    // Half of the memory holds about 130 requests of 8 kB.
    assert!((370..450).contains(&early.len()), "{}", early.len());
    for _ in 0..500 {
        talk.server_full(OK);
    }
    talk.finish();
    let late = talk.reports();
    let (alone, whole): (Vec<_>, Vec<_>) = late.iter().map(pair).partition(|(request, _)| request.is_none());
    assert_eq!((alone.len(), whole.len()), (early.len(), 500 - early.len()), "responses come alone");
    assert!(alone.iter().chain(&whole).all(|(_, response)| *response == Some(200)));
    let mut ids: Vec<_> = early.iter().chain(&late).map(|report| report.id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), early.len() + late.len());
}

#[test]
fn content_that_begins_like_a_response_is_one_where_no_other_request_was_received() {
    let inner = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfake and more";
    let head = format!("HTTP/1.1 203 Outer\r\nContent-Length: {}\r\n\r\n", inner.len());
    for pieces in [vec![[head.as_bytes(), inner].concat()], vec![head.as_bytes().to_vec(), inner.to_vec()]] {
        for has_client in [false, true] {
            let mut talk = Conversation::with(Purpose::Inspect, Limits::default());
            if has_client {
                talk.client(&get("/1"));
                talk.server_full(OK);
            }
            talk.skip(Side::Client, 40);
            pieces.iter().for_each(|piece| talk.server_full(piece));
            talk.skip(Side::Client, 40);
            talk.server_full(OK);
            talk.finish();
            let told = talk.reports();
            let told: Vec<_> = told.iter().skip(usize::from(has_client)).map(|told| pair(told).1).collect();
            assert_eq!(told, [Some(203), Some(200)]);
        }
    }
}

/// The target of the request and the status of its response.
fn pair(report: &ExchangeReport) -> (Option<String>, Option<u16>) {
    let target = report.request.as_ref().map(|request| match &request.start_line {
        StartLine::Request { target, .. } => String::from_utf8_lossy(target).into_owned(),
        StartLine::Status { .. } => panic!("a status line of a request"),
    });
    let status = report.response.as_ref().map(|response| match &response.start_line {
        StartLine::Status { status, .. } => *status,
        StartLine::Request { .. } => panic!("a request line of a response"),
    });
    (target, status)
}
