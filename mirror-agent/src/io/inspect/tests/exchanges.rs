//! Enters: captures as networks make them. Leaves: whether each exchange is told as it was.

use super::*;

const GET: &[u8] = b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc";
/// FIPS 180-4, the example "abc".
const ABC_SHA256: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

#[test]
fn exchange_is_one_line_of_json() {
    let mut capture = Capture::ethernet();
    let mut talk = capture.connect(4000);
    let head = b"POST /p HTTP/1.1\r\nhOst: h\xe9\"\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n";
    capture.client(&mut talk, head);
    capture.server(&mut talk, b"HTTP/1.1 100 Continue\r\n\r\n");
    capture.client(&mut talk, b"abc");
    capture.server(&mut talk, b"HTTP/1.1 204 No Content\r\n\r\n");
    capture.client(&mut talk, b"GET /2 HTTP/1.1\nA:\n b\n\n");
    let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let flow = r#""flow":{"client":"192.0.2.1:4000","server":"192.0.2.2:80"}"#;
    let expected = [
        format!(
            concat!(
                r#"{{{flow},"request":{{"method":"POST","target":"/p","version":"HTTP/1.1","#,
                r#""headers":[["hOst","h{e}\""],["Expect","100-continue"],["Content-Length","3"]],"#,
                r#""body_bytes":3,"body_sha256":"{abc}","complete":true,"offset":0,"seq":4294967276}},"#,
                r#""response":{{"status":204,"reason":"No Content","version":"HTTP/1.1","headers":[],"#,
                r#""body_bytes":0,"body_sha256":"{empty}","complete":true,"offset":25,"seq":5026}},"#,
                r#""interim":[{{"status":100,"reason":"Continue","version":"HTTP/1.1","headers":[],"#,
                r#""body_bytes":0,"body_sha256":"{empty}","complete":true,"offset":0,"seq":5001}}],"#,
                r#""times":{{"request_first_byte":1700000000004000000,"#,
                r#""request_last_byte":1700000000006000000,"response_first_byte":1700000000007000000,"#,
                r#""response_last_byte":1700000000007000000}}}}"#,
            ),
            flow = flow,
            e = '\u{e9}',
            abc = ABC_SHA256,
            empty = empty,
        ),
        format!(
            concat!(
                r#"{{{flow},"request":{{"method":"GET","target":"/2","version":"HTTP/1.1","#,
                r#""headers":[["A","b"]],"body_bytes":0,"body_sha256":"{empty}","complete":true,"#,
                r#""offset":75,"seq":55,"refused":"ambiguous_framing"}},"response":null,"#,
                r#""times":{{"request_first_byte":1700000000008000000,"#,
                r#""request_last_byte":1700000000008000000,"response_first_byte":null,"#,
                r#""response_last_byte":null}}}}"#,
            ),
            flow = flow,
            empty = empty,
        ),
    ];
    assert_eq!(capture.text().lines().collect::<Vec<_>>(), expected);
}

#[test]
fn exchange_is_the_same_behind_each_link_layer() {
    let told = [0, 1, 12, 14, 101, 108, 113, 228, 276].map(|link_type| {
        let mut capture = Capture::new(link_type);
        let mut talk = capture.connect(4000);
        capture.client(&mut talk, GET);
        capture.server(&mut talk, OK);
        capture.text()
    });
    assert!(told.iter().all(|lines| *lines == told[0] && lines.lines().count() == 1), "{told:?}");
}

#[test]
fn retransmitted_and_reordered_segments_make_one_exchange() {
    let mut capture = Capture::ethernet();
    let mut talk = capture.connect(4000);
    let (ack, client, server) = (TcpFlags::ACK, Side::Client, Side::Server);
    // Across the wrap of the sequence numbers: a tail, the middle, the head, all of it again.
    capture.frame(&talk, client, ack, 22, &GET[22..]);
    capture.frame(&talk, client, ack, 10, &GET[10..24]);
    capture.frame(&talk, client, ack, 0, &GET[..12]);
    capture.frame(&talk, client, ack, 0, GET);
    talk.skip(client, GET.len());
    capture.frame(&talk, server, ack, 20, &OK[20..]);
    capture.frame(&talk, server, ack, 0, &OK[..30]);
    capture.frame(&talk, server, ack, 0, OK);
    let lines = capture.lines();
    assert_eq!(lines.iter().map(summary).collect::<Vec<_>>(), ["GET /a > 200 3"]);
    assert_eq!(lines[0]["response"]["body_sha256"], ABC_SHA256);
    // The first byte came last.
    let times =
        ["request_first_byte", "request_last_byte"].map(|key| lines[0]["times"][key].as_u64().unwrap());
    assert_eq!(times, [START + 6_000_000, START + 6_000_000]);
}

#[test]
fn gap_in_a_body_is_stepped_over() {
    let mut capture = Capture::ethernet();
    let mut talk = capture.connect(4000);
    capture.client(&mut talk, GET);
    capture.server(&mut talk, b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nab");
    talk.skip(Side::Server, 3);
    capture.server(&mut talk, b"cdefg");
    capture.client(&mut talk, GET);
    capture.server(&mut talk, OK);
    let lines = capture.lines();
    assert_eq!(
        lines.iter().map(summary).collect::<Vec<_>>(),
        ["GET /a > 200 7 incomplete", "GET /a > 200 3"]
    );
    assert_eq!(lines[0]["response"]["body_sha256"], Value::Null);
}

#[test]
fn gap_that_hides_a_response_does_not_shift_the_others() {
    let mut capture = Capture::ethernet();
    let mut talk = capture.connect(4000);
    capture.client(&mut talk, b"GET /1 HTTP/1.1\r\n\r\n");
    talk.skip(Side::Server, OK.len());
    capture.client(&mut talk, b"GET /2 HTTP/1.1\r\n\r\n");
    capture.server(&mut talk, b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(capture.summary(), ["GET /1 > -", "GET /2 > 404 0"]);
}

#[test]
fn capture_that_starts_with_a_response_has_no_request_for_it() {
    let mut capture = Capture::ethernet();
    let mut talk = Talk::older(4000);
    capture.server(&mut talk, OK);
    capture.client(&mut talk, GET);
    capture.server(&mut talk, OK);
    capture.fin(&mut talk, Side::Client);
    assert_eq!(capture.summary(), ["- > 200 3", "GET /a > 200 3"]);
}

#[test]
fn capture_of_one_direction_tells_that_one() {
    let mut requests = Capture::ethernet();
    let mut talk = Talk::older(4000);
    requests.client(&mut talk, GET);
    requests.client(&mut talk, GET);
    assert_eq!(requests.summary(), ["GET /a > -", "GET /a > -"]);
    let mut responses = Capture::ethernet();
    responses.server(&mut talk, OK);
    responses.server(&mut talk, OK);
    assert_eq!(responses.summary(), ["- > 200 3", "- > 200 3"]);
}

#[test]
fn pipelined_requests_meet_their_responses_in_order() {
    let mut capture = Capture::ethernet();
    let mut talk = capture.connect(4000);
    capture
        .client(&mut talk, b"GET /1 HTTP/1.1\r\n\r\nHEAD /2 HTTP/1.1\r\n\r\nGET /3 HTTP/1.1\r\n\r\nGET /4");
    capture.client(&mut talk, b" HTTP/1.1\r\n\r\nGET /5 HTTP/1.1\r\n\r\n");
    let head_only =
        b"HTTP/1.1 201 OK\r\nContent-Length: 9\r\n\r\nHTTP/1.1 304 No\r\nContent-Length: 9\r\n\r\n";
    capture.server(&mut talk, &[OK, head_only].concat());
    capture
        .server(&mut talk, b"HTTP/1.1 204 No\r\nContent-Length: 9\r\n\r\nHTTP/1.1 500 E\r\n\r\nto the end");
    capture.fin(&mut talk, Side::Server);
    let expected =
        ["GET /1 > 200 3", "HEAD /2 > 201 0", "GET /3 > 304 0", "GET /4 > 204 0", "GET /5 > 500 10"];
    assert_eq!(capture.summary(), expected);
}

#[test]
fn chunked_body_is_told_without_its_framing_however_it_is_cut() {
    let request =
        b"POST /c HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;x=y\r\na\r\n2\r\nbc\r\n0\r\nT: 1\r\n\r\n";
    let response = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    for len in [1, 7, 1000] {
        let mut capture = Capture::ethernet();
        let mut talk = capture.connect(4000);
        request.chunks(len).for_each(|piece| capture.client(&mut talk, piece));
        response.chunks(len).for_each(|piece| capture.server(&mut talk, piece));
        let lines = capture.lines();
        assert_eq!(lines.iter().map(summary).collect::<Vec<_>>(), ["POST /c > 200 3"]);
        for message in ["request", "response"] {
            assert_eq!(lines[0][message]["body_sha256"], ABC_SHA256, "{message}, {len}");
            assert_eq!(lines[0][message]["complete"], true);
        }
        assert_eq!(lines[0]["times"]["request_first_byte"], START + 4_000_000);
    }
}

#[test]
fn connection_that_is_handed_over_is_told_no_further() {
    let upgrade = (&b"GET /ws HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"[..], "101 Switching");
    let connect = (&b"CONNECT h:1 HTTP/1.1\r\n\r\n"[..], "200 OK");
    for (request, status) in [upgrade, connect] {
        let mut capture = Capture::ethernet();
        let mut talk = capture.connect(4000);
        capture.client(&mut talk, request);
        capture.server(&mut talk, format!("HTTP/1.1 {status}\r\n\r\n\x02tunnel").as_bytes());
        capture.client(&mut talk, GET);
        capture.server(&mut talk, OK);
        let line = capture.summary().join("; ");
        assert!(line.ends_with(&format!("> {} 0", &status[..3])) && !line.contains(';'), "{line}");
    }
}

#[test]
fn upgrade_that_is_declined_leaves_the_connection_as_it_was() {
    let mut capture = Capture::ethernet();
    let mut talk = capture.connect(4000);
    capture.client(&mut talk, b"GET /ws HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n");
    capture.server(&mut talk, OK);
    capture.client(&mut talk, GET);
    capture.server(&mut talk, OK);
    assert_eq!(capture.summary(), ["GET /ws > 200 3", "GET /a > 200 3"]);
}

#[test]
fn request_that_run_would_refuse_keeps_decoding_in_step() {
    let mut capture = Capture::ethernet();
    let mut talk = capture.connect(4000);
    let smuggled =
        b"POST / HTTP/1.1\r\nContent-Length: 99\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    capture.client(&mut talk, &[smuggled, GET].concat());
    capture.server(&mut talk, &[OK, OK].concat());
    assert_eq!(capture.summary(), ["POST / (ambiguous_framing) > 200 3", "GET /a > 200 3"]);
}

#[test]
fn request_whose_head_is_contested_is_told_with_the_reason() {
    let mut capture = Capture::ethernet();
    let mut talk = capture.connect(4000);
    let (ack, client) = (TcpFlags::ACK, Side::Client);
    capture.frame(&talk, client, ack, 4, b"/x");
    capture.client(&mut talk, GET);
    capture.server(&mut talk, OK);
    assert_eq!(capture.summary(), ["GET /a (conflict) > 200 3"]);
}

#[test]
fn request_behind_a_gap_is_told_though_more_was_answered_since() {
    let mut capture = Capture::ethernet();
    let mut talk = capture.connect(4000);
    capture.client(&mut talk, b"GET /1 HTTP/1.1\r\nHo");
    talk.skip(Side::Client, 6);
    capture.client(&mut talk, b"\r\n\r\n");
    capture.server(&mut talk, OK);
    // Held back until it is certain that the gap will not be filled.
    capture.client(&mut talk, GET);
    capture.server(&mut talk, OK);
    let told = capture.summary();
    assert!(told.iter().any(|line| line.starts_with("GET /a")), "{told:?}");
}

#[test]
fn response_that_ends_with_the_connection_is_incomplete_without_an_orderly_end() {
    let response = b"HTTP/1.1 200 OK\r\n\r\nabc";
    let ends: [(Option<u8>, &str); 3] =
        [(None, " incomplete"), (Some(0x14), " incomplete"), (Some(0x11), "")];
    for (flags, expected) in ends {
        let mut capture = Capture::ethernet();
        let mut talk = capture.connect(4000);
        capture.client(&mut talk, GET);
        capture.server(&mut talk, response);
        if let Some(flags) = flags {
            capture.frame(&talk, Side::Server, TcpFlags(flags), 0, b"");
        }
        assert_eq!(capture.summary(), [format!("GET /a > 200 3{expected}")]);
    }
}

#[test]
fn head_that_is_too_long_for_run_is_told_with_the_reason() {
    let mut capture = Capture::ethernet();
    let mut talk = capture.connect(4000);
    let request = format!("GET /l HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(70_000));
    request.as_bytes().chunks(1400).for_each(|piece| capture.client(&mut talk, piece));
    capture.server(&mut talk, OK);
    assert_eq!(capture.summary(), ["GET /l (head_too_large) > 200 3"]);
}

#[test]
fn responses_to_what_is_no_request_are_told() {
    let mut capture = Capture::ethernet();
    let mut talk = capture.connect(4000);
    capture.client(&mut talk, b"GET/ HTTP/1.1\r\n\r\n");
    capture.server(&mut talk, b"HTTP/1.1 400 Bad\r\nContent-Length: 0\r\n\r\n");
    capture.client(&mut talk, GET);
    capture.server(&mut talk, OK);
    assert_eq!(capture.summary(), ["- > 400 0", "GET /a > 200 3"]);
}

#[test]
fn one_wrong_time_harms_nothing() {
    let mut capture = Capture::ethernet();
    let mut first = capture.connect(4000);
    capture.client(&mut first, &GET[..10]);
    let before = capture.now;
    capture.pause(Duration::from_secs(1_000_000_000));
    let mut second = capture.connect(4001);
    capture.client(&mut second, GET);
    capture.now = before;
    capture.client(&mut first, &GET[10..]);
    // What the client acknowledges here never comes: waiting for it must end, also behind the wrong time.
    first.skip(Side::Server, 1_000);
    capture.client(&mut first, b"GET /b HTTP/1.1\r\n\r\n");
    for _ in 0..5 {
        capture.pause(Duration::from_millis(400));
        capture.frame(&first, Side::Client, TcpFlags::ACK, -1, b"\n");
    }
    capture.server(&mut first, OK);
    capture.server(&mut second, OK);
    assert_eq!(capture.summary(), ["GET /a > -", "GET /b > 200 3", "GET /a > 200 3"]);
}

#[test]
fn lines_stand_in_order_of_time_where_segments_had_to_wait() {
    let mut capture = Capture::ethernet();
    // Nobody knows who the client is before the line is whole, and by then another exchange is over.
    let mut late = Talk::older(4000);
    capture.client(&mut late, b"GET /late");
    let mut other = capture.connect(4001);
    capture.client(&mut other, GET);
    capture.server(&mut other, OK);
    capture.client(&mut late, b" HTTP/1.1\r\n\r\n");
    assert_eq!(capture.summary(), ["GET /late > -", "GET /a > 200 3"]);
}

#[test]
fn plaintext_answer_to_another_protocol_is_told() {
    for hello in [TLS_HELLO, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"] {
        let mut capture = Capture::ethernet();
        let mut talk = capture.connect(4000);
        capture.client(&mut talk, hello);
        capture.server(&mut talk, b"HTTP/1.1 400 Bad Request\r\nContent-Le");
        capture.server(&mut talk, b"ngth: 3\r\n\r\nabc");
        // What a client of another protocol sends is nothing else.
        capture.client(&mut talk, GET);
        assert_eq!(capture.summary(), ["- > 400 3"]);
    }
}

#[test]
fn nothing_is_told_of_other_protocols_on_both_sides() {
    for (hello, answer) in [
        (TLS_HELLO, &b"\x16\x03\x03\0\x04\x02\0\0\0"[..]),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\0\0\0\x04\0\0\0\0\0"),
    ] {
        let mut capture = Capture::ethernet();
        let mut talk = capture.connect(4000);
        capture.client(&mut talk, hello);
        capture.server(&mut talk, answer);
        capture.client(&mut talk, GET);
        capture.server(&mut talk, OK);
        let (told, warnings) = capture.run();
        assert!(told.is_empty() && warnings.contains("no HTTP/1.x message was found"), "{told}, {warnings}");
    }
}

#[test]
fn exchange_with_a_long_pause_is_one() {
    let mut capture = Capture::ethernet();
    let mut slow = capture.connect(4000);
    capture.client(&mut slow, GET);
    pause_among_others(&mut capture);
    capture.server(&mut slow, OK);
    let told = capture.summary();
    assert_eq!((told.len(), told[0].as_str()), (1001, "GET /a > 200 3"));
}

#[test]
fn connection_without_a_handshake_is_another_after_a_long_pause() {
    let mut capture = Capture::ethernet();
    let mut talk = Talk::older(4000);
    capture.client(&mut talk, GET);
    capture.server(&mut talk, OK);
    pause_among_others(&mut capture);
    let mut talk = Talk { next: [3_000_000_000, 2_000_000_000], ..talk };
    capture.client(&mut talk, b"GET /later HTTP/1.1\r\n\r\n");
    capture.server(&mut talk, OK);
    let told = capture.summary();
    assert_eq!((told.len(), told[1001].as_str()), (1002, "GET /later > 200 3"));
}

#[test]
fn the_same_in_a_small_file_of_which_nothing_else_moves_the_time() {
    for next in [[3_777_777_777, 2_999_999_999], [777_777, 999_999]] {
        let mut capture = Capture::ethernet();
        let mut talk = capture.connect(4000);
        capture.client(&mut talk, GET);
        capture.server(&mut talk, OK);
        capture.pause(Duration::from_secs(400));
        talk.next = next;
        capture.client(&mut talk, b"GET /2 HTTP/1.1\r\n\r\n");
        capture.server(&mut talk, OK);
        capture.client(&mut talk, b"GET /3 HTTP/1.1\r\n\r\n");
        capture.server(&mut talk, OK);
        assert_eq!(capture.summary(), ["GET /a > 200 3", "GET /2 > 200 3", "GET /3 > 200 3"], "{next:?}");
    }
}

#[test]
fn request_behind_a_gap_of_both_sides_is_told() {
    let mut capture = Capture::ethernet();
    let mut talk = capture.connect(4000);
    capture.client(&mut talk, GET);
    capture.server(&mut talk, OK);
    talk.skip(Side::Client, 30);
    talk.skip(Side::Server, 70);
    capture.client(&mut talk, b"GET /2 HTTP/1.1\r\n\r\n");
    capture.server(&mut talk, OK);
    assert_eq!(capture.summary(), ["GET /a > 200 3", "GET /2 > 200 3"]);
}

#[test]
fn connection_without_a_handshake_is_another_right_after_the_end_of_one() {
    let mut capture = Capture::ethernet();
    let mut talk = capture.connect(4000);
    capture.client(&mut talk, GET);
    capture.server(&mut talk, OK);
    let first = Talk { port: 4000, next: talk.next };
    capture.fin(&mut talk, Side::Client);
    capture.fin(&mut talk, Side::Server);
    capture.frame(&first, Side::Client, TcpFlags::ACK, -i32::try_from(GET.len()).unwrap(), GET);
    capture.pause(Duration::from_secs(2));
    let mut talk = Talk { next: [777_777, 999_999], ..talk };
    capture.client(&mut talk, b"GET /2 HTTP/1.1\r\n\r\n");
    capture.server(&mut talk, OK);
    assert_eq!(capture.summary(), ["GET /a > 200 3", "GET /2 > 200 3"]);
}

/// Another connection has a thousand seconds for itself: the time moves by half a second with a segment, at most.
fn pause_among_others(capture: &mut Capture) {
    let mut other = capture.connect(4001);
    for _ in 0..1000 {
        capture.pause(Duration::from_secs(1));
        capture.client(&mut other, b"GET /b HTTP/1.1\r\n\r\n");
        capture.server(&mut other, OK);
    }
}

#[test]
fn hundreds_of_pipelined_requests_meet_their_responses() {
    let mut capture = Capture::ethernet();
    let mut talk = capture.connect(4000);
    for number in 0..300 {
        capture.client(&mut talk, format!("GET /{number} HTTP/1.1\r\n\r\n").as_bytes());
    }
    for number in 0..300 {
        capture.server(&mut talk, &numbered(number));
    }
    let expected: Vec<_> = (0..300).map(|number| format!("GET /{number} > 200 {number}")).collect();
    assert_eq!(capture.summary(), expected);
}

const TLS_HELLO: &[u8] = b"\x16\x03\x01\0\x05\x01\0\0\x01\x03";

/// A response with so many bytes of content.
fn numbered(len: usize) -> Vec<u8> {
    [format!("HTTP/1.1 200 OK\r\nContent-Length: {len}\r\n\r\n").into_bytes(), vec![b'x'; len]].concat()
}
