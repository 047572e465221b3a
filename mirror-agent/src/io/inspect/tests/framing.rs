//! Enters: messages of which nothing says, or not clearly, where they end. Leaves: whether what follows is told.

use super::*;

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc";

#[test]
fn response_whose_length_is_no_number_ends_with_the_connection() {
    for length in ["", "-1", "abc", "3x", "99999999999999999999", "-1\r\nContent-Length: -1"] {
        let mut capture = Capture::ethernet();
        let mut talk = capture.connect(4000);
        capture.client(&mut talk, b"GET /a HTTP/1.1\r\n\r\n");
        let response = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\nabc");
        capture.server(&mut talk, response.as_bytes());
        capture.server(&mut talk, b"HTTP/1.1 is a protocol");
        capture.fin(&mut talk, Side::Server);
        let lines = capture.lines();
        assert_eq!(lines.iter().map(summary).collect::<Vec<_>>(), ["GET /a > 200 25"], "{length:?}");
        assert_eq!(lines[0]["response"]["refused"], "ambiguous_framing", "{length:?}");
    }
}

#[test]
fn response_whose_lengths_contradict_each_other_has_no_content() {
    for length in ["3\r\nContent-Length: 4", "3, x", "x, 3", "+3", "3 bytes"] {
        let mut capture = Capture::ethernet();
        let mut talk = capture.connect(4000);
        capture.client(&mut talk, b"GET /a HTTP/1.1\r\n\r\n");
        let response = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\nabc");
        capture.server(&mut talk, response.as_bytes());
        capture.client(&mut talk, b"GET /b HTTP/1.1\r\n\r\n");
        capture.server(&mut talk, OK);
        assert_eq!(capture.summary(), ["GET /a > 200 0 incomplete", "GET /b > 200 3"], "{length:?}");
    }
}

#[test]
fn request_behind_one_whose_length_is_no_number_is_told() {
    let garbled = b"POST /a HTTP/1.1\r\nContent-Length: -1\r\n\r\n";
    let next = b"GET /b HTTP/1.1\r\n\r\n";
    let cuts: [&[&[u8]]; 4] = [
        &[&[&garbled[..], next].concat()],
        &[garbled, next],
        &[&[&garbled[..], b"body"].concat(), next],
        &[garbled, b"body", next],
    ];
    for pieces in cuts {
        let mut capture = Capture::ethernet();
        let mut talk = capture.connect(4000);
        pieces.iter().for_each(|piece| capture.client(&mut talk, piece));
        capture.server(&mut talk, &[&b"HTTP/1.1 400 Bad\r\nContent-Length: 0\r\n\r\n"[..], OK].concat());
        let lines = capture.lines();
        assert_eq!(
            lines.iter().map(summary).collect::<Vec<_>>(),
            ["POST /a (ambiguous_framing) > 400 0", "GET /b > 200 3"],
            "{pieces:?}"
        );
        assert_eq!(lines[0]["request"]["complete"], false);
    }
}

#[test]
fn many_requests_whose_length_is_no_number_are_told_in_one_segment() {
    let mut capture = Capture::ethernet();
    let mut talk = capture.connect(4000);
    capture.client(&mut talk, &b"GET /a HTTP/1.1\nContent-Length:\n\n".repeat(900));
    assert_eq!(capture.summary().len(), 900);
}

#[test]
fn nothing_is_believed_behind_a_request_whose_lengths_contradict_each_other() {
    let mut capture = Capture::ethernet();
    let mut talk = capture.connect(4000);
    let both = b"POST /a HTTP/1.1\r\nContent-Length: 0\r\nContent-Length: 19\r\n\r\n";
    capture.client(&mut talk, &[&both[..], b"GET /b HTTP/1.1\r\n\r\n"].concat());
    capture.server(&mut talk, OK);
    assert_eq!(capture.summary(), ["POST /a (ambiguous_framing) > 200 3"]);
}

#[test]
fn identity_behind_chunked_says_nothing() {
    let mut capture = Capture::ethernet();
    let mut talk = capture.connect(4000);
    let head = b"POST /a HTTP/1.1\r\nTransfer-Encoding: chunked, identity\r\n\r\n";
    capture.client(&mut talk, &[&head[..], b"3\r\nabc\r\n0\r\n\r\nGET /b HTTP/1.1\r\n\r\n"].concat());
    capture.server(&mut talk, &[OK, OK].concat());
    let lines = capture.lines();
    assert_eq!(
        lines.iter().map(summary).collect::<Vec<_>>(),
        ["POST /a (ambiguous_framing) > 200 3", "GET /b > 200 3"]
    );
    assert_eq!(lines[0]["request"]["body_bytes"], 3);
}

#[test]
fn request_behind_chunks_that_break_off_is_told_where_nothing_is_outstanding() {
    let head = b"POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
    let next = b"GET /b HTTP/1.1\r\n\r\n";
    for broken in [&b"3\r\nabc\r\n0\r\n\r"[..], b"3\r\nabc\r\n", b"3\r\nabc\r\n0\r\n"] {
        for is_answered in [true, false] {
            let mut capture = Capture::ethernet();
            let mut talk = capture.connect(4000);
            capture.client(&mut talk, next);
            capture.server(&mut talk, OK);
            capture.client(&mut talk, &[head, broken].concat());
            if is_answered {
                capture.server(&mut talk, OK);
            }
            capture.client(&mut talk, next);
            capture.server(&mut talk, OK);
            let expected: &[&str] = match is_answered {
                true => &["GET /b > 200 3", "POST /a (malformed) > 200 3", "GET /b > 200 3"],
                false => &["GET /b > 200 3", "POST /a (malformed) > 200 3"],
            };
            assert_eq!(capture.summary(), expected, "{}", broken.escape_ascii());
        }
    }
}

#[test]
fn refusal_of_connect_is_heard_with_the_answer_behind_it() {
    let mut capture = Capture::ethernet();
    let mut talk = capture.connect(4000);
    capture.client(&mut talk, b"CONNECT h:80 HTTP/1.1\r\n\r\nGET /b HTTP/1.1\r\n\r\n");
    capture.server(&mut talk, &[b"HTTP/1.1 407 Who\r\nContent-Length: 2\r\n\r\nno", OK].concat());
    assert_eq!(capture.summary(), ["CONNECT h:80 > 407 2", "GET /b > 200 3"]);
}

#[test]
fn odd_messages_of_a_connection_older_than_the_capture_are_told() {
    let mut capture = Capture::ethernet();
    let mut talk = Talk::older(4000);
    capture.client(&mut talk, b"\r\nGET  /a HTTP/1.1\r\n\r\n");
    capture.server(&mut talk, b"\r\nHTTP/1.1  200 OK\r\nContent-Length: 3\r\n\r\nabc");
    capture.client(&mut talk, b"GET /b HTTP/1.1\r\n\r\n");
    capture.server(&mut talk, OK);
    assert_eq!(capture.summary(), ["GET /a (malformed) > 200 3", "GET /b > 200 3"]);
}

#[test]
fn request_written_behind_its_response_takes_no_other_ones() {
    let mut capture = Capture::ethernet();
    let mut talk = capture.connect(4000);
    let mut late = Talk { port: talk.port, next: talk.next };
    let first = b"GET /a HTTP/1.1\r\n\r\n";
    talk.skip(Side::Client, first.len());
    capture.server(&mut talk, OK);
    capture.client(&mut late, first);
    capture.client(&mut talk, b"HEAD /b HTTP/1.1\r\n\r\n");
    capture.server(&mut talk, b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n");
    capture.client(&mut talk, b"GET /c HTTP/1.1\r\n\r\n");
    capture.server(&mut talk, b"HTTP/1.1 204 No\r\n\r\n");
    assert_eq!(capture.summary(), ["- > 200 3", "GET /a > -", "HEAD /b > 200 0", "GET /c > 204 0"]);
}
