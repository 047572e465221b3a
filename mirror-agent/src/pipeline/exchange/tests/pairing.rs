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
