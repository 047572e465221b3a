//! Enters: fields of tracing. Leaves: the bytes of the copy, with sampled flags cleared and kept.

use super::{Given, MARKERS, assert_copies, copy_of};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331";

#[test]
fn sampled_flags_are_cleared_and_all_else_of_a_trace_is_kept() {
    for (line, expected) in [
        ("traceparent: 00-TRACE-01", "traceparent: 00-TRACE-00"),
        ("traceparent: 00-TRACE-00", "traceparent: 00-TRACE-00"),
        ("TraceParent:00-TRACE-03  ", "TraceParent:00-TRACE-02  "),
        ("traceparent:\t 00-TRACE-ff", "traceparent:\t 00-TRACE-fe"),
        ("traceparent: 00-TRACE-0b", "traceparent: 00-TRACE-0a"),
        ("traceparent: 00-TRACE-1d", "traceparent: 00-TRACE-1c"),
        (
            "traceparent: 00-TRACE-09\r\ntraceparent: 00-TRACE-07",
            "traceparent: 00-TRACE-08\r\ntraceparent: 00-TRACE-06",
        ),
        ("traceparent: 00-TRACE-f5", "traceparent: 00-TRACE-f4"),
        ("traceparent:\r\n 00-TRACE-01\r\n ", "traceparent:\r\n 00-TRACE-00\r\n "),
        // A version that is not known yet is read as this one (section 4.3).
        ("traceparent: 01-TRACE-01", "traceparent: 01-TRACE-00"),
        ("traceparent: cc-TRACE-01-what-else", "traceparent: cc-TRACE-00-what-else"),
        // B3.
        ("b3: TRACE-1", "b3: TRACE-0"),
        ("b3: TRACE-d", "b3: TRACE-0"),
        ("B3: TRACE-1-05e3ac9a4f6e3b90", "B3: TRACE-0-05e3ac9a4f6e3b90"),
        ("b3: e457b5a2e4d86bd1-05e3ac9a4f6e3b90-1", "b3: e457b5a2e4d86bd1-05e3ac9a4f6e3b90-0"),
        ("b3: 1", "b3: 0"),
        ("b3:d", "b3:0"),
        ("b3: 0", "b3: 0"),
        ("b3: TRACE-0", "b3: TRACE-0"),
        ("X-B3-Sampled: 1", "X-B3-Sampled: 0"),
        ("x-b3-sampled: true ", "x-b3-sampled: 0 "),
        ("x-b3-sampled: 0", "x-b3-sampled: 0"),
        ("X-B3-Flags: 1", "X-B3-Flags: 0"),
        // The receiver decides, as live did.
        ("b3: TRACE", "b3: TRACE"),
        (
            "x-b3-traceid: e457b5a2e4d86bd1\r\nx-b3-spanid: 1",
            "x-b3-traceid: e457b5a2e4d86bd1\r\nx-b3-spanid: 1",
        ),
        // Left alone.
        ("tracestate: dd=s:2,ot=th:0,a=1", "tracestate: dd=s:2,ot=th:0,a=1"),
        ("x-request-id: 1", "x-request-id: 1"),
        ("baggage: sampled=1", "baggage: sampled=1"),
    ] {
        let head = |line: &str| format!("GET / HTTP/1.1\r\n{}\r\nA: 1\r\n", line.replace("TRACE", TRACE));
        let (live, copy) = (head(line), head(expected));
        assert_copies(&[("clear", live.as_bytes(), copy.as_bytes()), ("", live.as_bytes(), live.as_bytes())]);
    }
}

#[test]
fn malformed_trace_fields_are_left_as_they_are() {
    for value in [
        "",
        "00",
        "00-TRACE",
        "00-TRACE-1",
        "00-TRACE-011",
        "00-TRACE-01-",
        "00-TRACE-01-00",
        "00-TRACE-0g",
        "00-TRACE-0B",
        "0-TRACE-01",
        "ff-TRACE-01",
        "0x-TRACE-01",
        "01-TRACE-01.x",
        "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319-b7ad6b7169203331-01",
        "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b716920333-01",
        "00 TRACE 01",
        "00-TRACE-01\r\n 0",
    ] {
        let head = format!("GET / HTTP/1.1\r\ntraceparent: {}\r\n", value.replace("TRACE", TRACE));
        assert_copies(&[("clear", head.as_bytes(), head.as_bytes())]);
    }
    for value in [
        "",
        "2",
        "11",
        "1-1",
        "true",
        "TRACE-2",
        "TRACE-1-",
        "TRACE-1-1",
        "x-y-1",
        "--1",
        "TRACE-1-05e3ac9a4f6e3b90-1",
    ] {
        let head = format!("GET / HTTP/1.1\r\nb3: {}\r\n", value.replace("TRACE", TRACE));
        assert_copies(&[("clear", head.as_bytes(), head.as_bytes())]);
    }
    for line in ["x-b3-sampled: d", "x-b3-sampled: 11", "x-b3-sampled:", "x-b3-flags: 2", "x-b3-flags: true"]
    {
        let head = format!("GET / HTTP/1.1\r\n{line}\r\n");
        assert_copies(&[("clear", head.as_bytes(), head.as_bytes())]);
    }
}

#[test]
fn what_is_configured_of_a_trace_field_is_what_is_written() {
    let live = format!("GET / HTTP/1.1\r\ntraceparent: 00-{TRACE}-01\r\nb3: 1\r\n");
    let set = format!("traceparent: 00-{TRACE}-03");
    let rules = format!("clear; set traceparent 00-{TRACE}-03; remove b3");
    assert_copies(&[(&rules, live.as_bytes(), format!("GET / HTTP/1.1\r\n{set}\r\n").as_bytes())]);
}

#[test]
fn flags_in_a_head_cut_off_at_any_byte_are_no_concern() {
    let head = format!("GET / HTTP/1.1\r\nb3: 1\r\ntraceparent: 00-{TRACE}-01\r\n\r\n");
    let rewrite = Given::parse("clear; host h; set a 1").rewrite();
    for len in 0..head.len() {
        let copy = copy_of(&rewrite, &head.as_bytes()[..len]);
        assert!(copy.ends_with(MARKERS.as_bytes()));
    }
}
