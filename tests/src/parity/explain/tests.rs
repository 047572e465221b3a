//! Enters: bytes of made-up flows and what is told of them. Leaves: nothing; the facts of explaining disagreements.

use super::*;
use crate::parity::{
    compare::{self, Accounts},
    message::{Body, Headers},
};

const NEXT: &str = "GET /b HTTP/1.1\r\n\r\n";
const DONE: &str = "HTTP/1.1 204 No\r\n\r\n";

#[test]
fn message_whose_bytes_are_odd_is_explained_where_inspect_reads_them_as_the_standards_do() {
    let cases: &[(&str, &str, Shape)] = &[
        ("GET /a b HTTP/1.1\r\n\r\n", "GET /a b", Shape::SpaceInTarget),
        ("GET  /a  HTTP/1.1\r\n\r\n", "GET /a", Shape::WhiteSpaceInLine),
        (" GET\x0b/a\x0cHTTP/1.1\n\n", "GET /a", Shape::WhiteSpaceInLine),
        ("GET /a HTTP/1.1\r\r\n\r\n", "GET /a", Shape::BareCarriageReturn),
        ("PURGE /a HTTP/1.1\r\n\r\n", "PURGE /a", Shape::UnknownMethod),
    ];
    for (bytes, line, shape) in cases {
        let told = request(0, line, &[], whole(""));
        assert_eq!(untold(&[bytes], std::slice::from_ref(&told)), [Some(*shape)], "{bytes:?}");
        let other = Message { headers: headers(&[("X", "y")]), ..told.clone() };
        assert_eq!(untold(&[bytes], &[other]), [None], "{bytes:?}");
        assert_eq!(untold(&[NEXT], &[told]), [None], "{bytes:?}");
    }
    assert_eq!(untold(&[NEXT], &[request(0, "GET /b", &[], whole(""))]), [None]);
}

#[test]
fn first_message_is_explained_by_a_segment_that_ends_within_its_first_word() {
    let told = request(0, "GET /b", &[], whole(""));
    assert_eq!(untold(&["G", &NEXT[1..]], std::slice::from_ref(&told)), [Some(Shape::SplitMethod)]);
    assert_eq!(untold(&["GET ", &NEXT[4..]], &[told]), [None]);
}

#[test]
fn fields_are_explained_by_what_miscuts_them() {
    type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], Option<Shape>);
    let cases: &[Case<'_>] = &[
        (
            "X: one\r\n two\r\n\tthree\r\nY: z\r\n",
            &[("X", "one two three"), ("Y", "z")],
            Some(Shape::FoldedField),
        ),
        ("X: one\r\nnonsense\r\nY: z\r\n", &[("X", "one"), ("Y", "z")], Some(Shape::LineWithoutColon)),
        ("X: a\rb\r\nY: z\r\n", &[("X", "a\rb"), ("Y", "z")], Some(Shape::BareCarriageReturn)),
        ("X: a\r\r\nY: z\r\n", &[("X", "a"), ("Y", "z")], Some(Shape::BareCarriageReturn)),
        (" X: a\r\nY: z\r\n", &[("X", "a"), ("Y", "z")], Some(Shape::WhiteSpaceBeforeFields)),
        ("X : a\r\nY: z\r\n", &[("X", "a"), ("Y", "z")], None),
        ("X: a\r\nY: z\r\n", &[("X", "a"), ("Y", "z")], None),
        ("X: one\r\n two\r\nY: z\r\n", &[("X", "one"), ("Y", "z")], None),
    ];
    for (lines, told, shape) in cases {
        let bytes = format!("GET /a HTTP/1.1\r\n{lines}\r\n");
        let ours = request(0, "GET /a", told, whole(""));
        let theirs = request(0, "GET /a", &[("X", "other")], whole(""));
        assert_eq!(shapes(&[&bytes], &[theirs], &[ours]), [*shape], "{lines:?}");
    }
}

#[test]
fn content_is_explained_by_the_way_its_length_is_told() {
    let cases: &[(&str, &str, Content, Option<Shape>)] = &[
        ("Content-Length: +3", "xyz", cut(""), Some(Shape::InvalidLength)),
        ("Content-Length: 3, 5", "xyz", cut(""), Some(Shape::InvalidLength)),
        ("Content-Length: 3, 3", "xyz", whole("xyz"), Some(Shape::ListedLength)),
        ("Content-Length: 4294967299", "xyz", cut("xyz"), Some(Shape::LengthBeyond31Bits)),
        ("Content-Length : 3", "xyz", whole("xyz"), Some(Shape::SpaceBeforeColon)),
        ("Transfer-Encoding: gzip", "xyz", whole(""), Some(Shape::LastCodingNotChunked)),
        ("Transfer-Encoding: CHUNKED", "1\r\nx\r\n0\r\n\r\n", whole("x"), Some(Shape::CodingInOtherWords)),
        ("Transfer-Encoding: chunked", "1\r\nx\r\n+1\r\ny\r\n", cut("x"), Some(Shape::BrokenChunk)),
        ("Transfer-Encoding: chunked", "1\nx\n0\n\n", whole("x"), Some(Shape::BareLineFeedInChunks)),
        // Of other content than the standards see, and of bytes that are not odd, nothing is excused.
        ("Content-Length: 3, 3", "xyz", whole("xy"), None),
        ("Content-Length: +3", "xyz", whole("xy"), None),
        ("Transfer-Encoding: chunked", "1\r\nx\r\n+1\r\ny\r\n", cut("xy"), None),
        ("Content-Length: 3", "xyz", whole("xyz"), None),
        ("Content-Length: 3", "xyz", whole("xy"), None),
    ];
    for (field, content, told, shape) in cases {
        let bytes = format!("POST /a HTTP/1.1\r\n{field}\r\n\r\n{content}");
        let (name, value) = field.split_once(':').unwrap();
        let ours = request(0, "POST /a", &[(name.trim(), value.trim())], told.clone());
        let theirs = Message { body: Body::of(b"other"), ..ours.clone() };
        assert_eq!(shapes(&[&bytes], &[theirs], &[ours]), [*shape], "{field}, {content:?}");
    }
}

#[test]
fn message_behind_an_odd_one_is_explained_by_it() {
    let post = |field: &str, content: &str| format!("POST /a HTTP/1.1\r\n{field}\r\n\r\n{content}");
    let cases: &[(&str, &str, Content, Shape)] = &[
        ("Content-Length: +3", "xyz", cut(""), Shape::InvalidLength),
        ("Transfer-Encoding: chunked", "1\r\nx\r\n0\r\n\r", cut("x"), Shape::BrokenChunk),
    ];
    for (field, content, told, shape) in cases {
        let bytes = post(field, content);
        let (name, value) = field.split_once(": ").unwrap();
        let first = request(0, "POST /a", &[(name, value)], told.clone());
        let next = request(bytes.len(), "GET /b", &[], whole(""));
        // Where the end is not known, a segment must begin there.
        assert_eq!(
            shapes(&[&bytes, NEXT], std::slice::from_ref(&first), &[first.clone(), next.clone()]),
            [Some(*shape)]
        );
        let joined = format!("{bytes}{NEXT}");
        assert_eq!(shapes(&[&joined], std::slice::from_ref(&first), &[first.clone(), next.clone()]), [None]);
        // There Wireshark may tell what `inspect` does not believe.
        assert_eq!(shapes(&[&joined], &[first.clone(), next], &[first]), [Some(*shape)]);
    }
    let bytes = post("Content-Length: 3, 3", "xyz");
    let first = request(0, "POST /a", &[("Content-Length", "3, 3")], whole("xyz"));
    let next = request(bytes.len(), "GET /b", &[], whole(""));
    let joined = format!("{bytes}{NEXT}");
    assert_eq!(
        shapes(&[&joined], std::slice::from_ref(&first), &[first.clone(), next.clone()]),
        [Some(Shape::ListedLength)]
    );
    // Where the end is known, what stands there is to be told.
    assert_eq!(shapes(&[&joined], &[first.clone(), next], &[first]), [None]);
}

#[test]
fn message_behind_one_that_wireshark_does_not_tell_is_explained_by_that() {
    let bytes = format!("PURGE /a HTTP/1.1\r\n\r\n{NEXT}");
    let first = request(0, "PURGE /a", &[], whole(""));
    let next = request(bytes.len() - NEXT.len(), "GET /b", &[], whole(""));
    assert_eq!(untold(&[&bytes], &[first, next]), [Some(Shape::UnknownMethod); 2]);
}

#[test]
fn message_behind_content_that_was_given_up_is_explained_in_its_segment() {
    let bytes = "POST /a HTTP/1.1\r\nContent-Length: 1\r\n\r\nx";
    let first = request(0, "POST /a", &[("Content-Length", "1")], whole("x"));
    let marred = Message { is_marred: true, ..first.clone() };
    let ours = [first.clone(), request(bytes.len(), "GET /b", &[], whole(""))];
    let joined = format!("{bytes}{NEXT}");
    assert_eq!(shapes(&[&joined], std::slice::from_ref(&marred), &ours), [Some(Shape::GivenUp)]);
    assert_eq!(shapes(&[&joined], &[first], &ours), [None]);
    assert_eq!(shapes(&[bytes, NEXT], &[marred], &ours), [None]);
}

#[test]
fn what_stands_before_a_message_is_looked_at_to_the_last_byte() {
    let v2 = "\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x04\x01\x02\x03\x04";
    for (before, shape) in [
        ("\r\n", Some(Shape::EmptyLinesFirst)),
        ("\n\r\n", Some(Shape::EmptyLinesFirst)),
        ("PROXY UNKNOWN\r\n", Some(Shape::ProxyHeader)),
        (v2, Some(Shape::ProxyHeader)),
        (&v2[..v2.len() - 1], None),
        ("PROXY UNKNOWN\r\nx\r\n", None),
        ("\x01\x02", None),
    ] {
        let told = request(before.len(), "GET /b", &[], whole(""));
        assert_eq!(untold(&[&format!("{before}{NEXT}")], &[told]), [shape], "{before:?}");
    }
    let told = request(2, "GET /b", &[], whole(""));
    assert_eq!(untold(&["\x01\x02", NEXT], std::slice::from_ref(&told)), [Some(Shape::NoStartLine)]);
    assert_eq!(untold(&["xy", NEXT], &[told]), [Some(Shape::NoStartLine)]);
    // What is told elsewhere must not be passed over.
    let told = request(NEXT.len(), "GET /b", &[], whole(""));
    assert_eq!(untold(&[NEXT, NEXT], &[told]), [None]);
}

#[test]
fn body_that_was_not_sent_is_explained_by_the_request_in_its_place() {
    let (expect, length) = (("Expect", "100-continue"), ("Content-Length", "3"));
    let bytes = "POST /a HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n";
    let first = request(0, "POST /a", &[expect, length], cut(""));
    let next = request(bytes.len(), "GET /b", &[], whole(""));
    let theirs = Message { body: Body::of(b"GET"), ..first.clone() };
    let found = shapes(&[bytes, NEXT], std::slice::from_ref(&theirs), &[first.clone(), next]);
    assert_eq!(found, [Some(Shape::UnsentBody); 2]);
    // Not where none was to be told to go on.
    let bytes = "POST /a HTTP/1.1\r\nContent-Length: 3\r\n\r\n";
    let first = request(0, "POST /a", &[length], cut(""));
    let next = request(bytes.len(), "GET /b", &[], whole(""));
    let theirs = Message { headers: first.headers.clone(), ..theirs };
    assert_eq!(shapes(&[bytes, NEXT], &[theirs], &[first, next]), [None; 2]);
}

#[test]
fn message_that_only_wireshark_tells_is_explained_where_none_can_be() {
    let invented = |bytes: &[&str], at, line| shapes(bytes, &[request(at, line, &[], whole(""))], &[]);
    assert_eq!(invented(&["GET  HTTP/1.1\r\n\r\n"], 0, "GET "), [Some(Shape::NoStartLine)]);
    assert_eq!(invented(&["GET /a HTTP/1.1x\r\n\r\n"], 0, "GET /a"), [Some(Shape::NoStartLine)]);
    assert_eq!(invented(&[NEXT], 0, "GET /b"), [None]);
    let behind = format!("GET /a\r\n\r\n{NEXT}");
    assert_eq!(invented(&[&behind], 10, "GET /b"), [Some(Shape::NoStartLine)]);
    assert_eq!(invented(&["GET /a\r\n\r\n", NEXT], 10, "GET /b"), [None]);
}

#[test]
fn what_wireshark_makes_of_bytes_that_nobody_took_is_explained_by_that() {
    let [theirs, ours] = ["GET /x", "GET /b"].map(|line| [request(0, line, &[], whole(""))]);
    let forged = "~GET /x HTTP/1.1\r\n\r\n";
    assert_eq!(shapes(&[forged, NEXT], &theirs, &ours), [Some(Shape::WithoutAck)]);
    assert_eq!(shapes(&[forged], &theirs, &[]), [Some(Shape::WithoutAck)]);
    assert_eq!(shapes(&[forged, NEXT], &ours, &theirs), [None]);
    assert_eq!(shapes(&[NEXT, forged], &theirs, &ours), [None]);
}

#[test]
fn message_behind_a_hand_over_is_explained_by_it() {
    for (line, paired, shape) in [
        ("GET /b", Paired::Status(101), Some(Shape::HandOver)),
        ("GET /b", Paired::Status(200), None),
        ("CONNECT /b", Paired::Status(204), Some(Shape::HandOver)),
        ("CONNECT /b", Paired::Status(407), None),
        ("GET /b", Paired::Nothing, None),
    ] {
        let first = Message { paired, ..request(0, line, &[], whole("")) };
        let bytes = format!("{line} HTTP/1.1\r\n\r\n");
        let next = request(bytes.len(), "GET /b", &[], whole(""));
        assert_eq!(shapes(&[&bytes, NEXT], &[first.clone(), next], &[first]), [shape], "{line}");
    }
}

#[test]
fn direction_is_that_in_which_the_connection_was_opened() {
    let streams = streams(&[DONE], &[NEXT]);
    let reversed =
        |message: Message| Message { sender: message.receiver, receiver: message.sender, ..message };
    let request = Message { seq: SERVER_SEQ, ..reversed(request(0, "GET /b", &[], whole(""))) };
    let response = Message { seq: CLIENT_SEQ, ..reversed(response(204, whole(""), b"GET")) };
    assert_eq!(explained(&streams, &[request, response], &[]), [Some(Shape::WrongDirection); 2]);
}

#[test]
fn response_without_a_body_is_told_by_its_request_and_status() {
    let bytes = |status: u16| format!("HTTP/1.1 {status} S\r\nContent-Length: 3\r\n\r\nabc");
    for (status, method, shape) in [
        (200, &b"HEAD"[..], Some(Shape::NoBody)),
        (200, b"GET", None),
        (304, b"GET", Some(Shape::NoBody)),
        (204, b"GET", Some(Shape::NoBody)),
        (200, b"CONNECT", Some(Shape::NoBody)),
        (407, b"CONNECT", None),
    ] {
        let length = headers(&[("Content-Length", "3")]);
        let ours = Message { headers: length, ..response(status, whole(""), method) };
        let theirs = Message { body: Body::of(b"abc"), ..ours.clone() };
        let found = explained(&streams(&[NEXT], &[&bytes(status)]), &[theirs], &[ours]);
        assert_eq!(found, [shape], "{status} to {}", method.escape_ascii());
    }
}

#[test]
fn answer_to_a_preface_of_http2_is_explained_by_it() {
    let ours = [response(204, whole(""), b"")];
    let found = |client: &str| explained(&streams(&[client], &[DONE]), &[], &ours);
    assert_eq!(found("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), [Some(Shape::Http2Preface)]);
    assert_eq!(found(NEXT), [None]);
}

#[test]
fn message_behind_a_gap_is_explained_by_what_is_left_before_it() {
    let found = |rest: &str| {
        let (way, seq) = ("192.0.2.1,,192.0.2.2,,4000,80,0", CLIENT_SEQ.wrapping_add(100));
        let hex = |text: &str| text.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
        let behind = seq.wrapping_add(rest.len() as u32);
        let lines = [(CLIENT_SEQ, NEXT), (seq, rest), (behind, NEXT)]
            .map(|(seq, text)| format!("{way},{seq},0,1,0,0,{}\n", hex(text)))
            .concat();
        let first = request(0, "GET /b", &[], whole(""));
        let ours = [first.clone(), request(100 + rest.len(), "GET /b", &[], whole(""))];
        explained(&Streams::of_lines(&lines), &[first], &ours)
    };
    assert_eq!(found("rest of a body"), [Some(Shape::NoStartLine)]);
    assert_eq!(found(""), [None]);
    assert_eq!(found("GET /a HTTP/1.1\r\n\r\n"), [None]);
}

/// Content as `inspect` tells it, and whether it saw all of it.
type Content = (Body, bool);

#[test]
fn message_behind_content_with_bytes_missing_is_explained_where_its_length_ends() {
    let head = "PUT /a HTTP/1.1\r\nContent-Length: 9\r\n\r\n";
    let fields: &[(&str, &str)] = &[("Content-Length", "9")];
    let shape_of = |content: &str, told: Content| {
        let first = format!("{head}{content}");
        let ours = [request(0, "PUT /a", fields, told), request(first.len(), "GET /b", &[], whole(""))];
        shapes(&[&first, NEXT], &ours[..1], &ours)
    };
    let damaged = || (Body::Damaged { len: 9 }, true);
    assert_eq!(shape_of("1234~~~~~", damaged()), [Some(Shape::CutContent)]);
    // Where nothing is missing, or the message does not begin there, it explains nothing.
    assert_eq!(shape_of("123456789", whole("123456789")), [None]);
    assert_eq!(shape_of("1234~~~~", damaged()), [None]);
    assert_eq!(shape_of("1234~~~~~", whole("1234")), [None]);
}

fn whole(content: &str) -> Content {
    (Body::of(content.as_bytes()), true)
}

#[test]
fn bytes_behind_the_end_of_the_stream_are_none_of_the_message() {
    let whole = "POST /a HTTP/1.1\r\nContent-Length: 5\r\n\r\nabcde";
    let ended = "POST /a HTTP/1.1\r\nContent-Length: 5\r\n\r\nabc^de";
    let fields = [("Content-Length", "5")];
    let theirs = [request(0, "POST /a", &fields, (Body::of(b"abcde"), true))];
    let ours = [request(0, "POST /a", &fields, cut("abc"))];
    assert_eq!(shapes(&[ended], &theirs, &ours), [Some(Shape::BehindEnd)]);
    assert_eq!(shapes(&[whole], &theirs, &ours), [None]);
    assert_eq!(shapes(&[ended], &theirs, &[request(0, "POST /a", &fields, cut("ab"))]), [None]);
}

fn cut(content: &str) -> Content {
    (Body::of(content.as_bytes()), false)
}

/// The shapes of what `inspect` tells of a client's segments and Wireshark does not.
fn untold(segments: &[&str], ours: &[Message]) -> Vec<Option<Shape>> {
    shapes(segments, &[], ours)
}

/// The shapes of the disagreements about a client's segments.
fn shapes(segments: &[&str], theirs: &[Message], ours: &[Message]) -> Vec<Option<Shape>> {
    explained(&streams(segments, &[]), theirs, ours)
}

fn explained(streams: &Streams, theirs: &[Message], ours: &[Message]) -> Vec<Option<Shape>> {
    let accounts = Accounts { whole: theirs.to_vec(), ..Accounts::default() };
    let mut comparison = compare::compare(&accounts, ours);
    explain(&mut comparison, theirs, ours, streams);
    comparison.disagreements.iter().map(|one| one.shape).collect()
}

const CLIENT_SEQ: u32 = u32::MAX - 20;
const SERVER_SEQ: u32 = 5000;

/// A connection that the client opened, with these segments of each end. One that begins with `~` has no ACK, and the next stands
/// in its place; those that end with `~` are captured up to there. FIN stands in the place of `^`, and what
/// follows it was sent in its segment all the same.
fn streams(client: &[&str], server: &[&str]) -> Streams {
    let mut lines = String::new();
    let ways = [
        ("192.0.2.1,,192.0.2.2,,4000,80,0", CLIENT_SEQ, "1,0", client),
        ("192.0.2.2,,192.0.2.1,,80,4000,0", SERVER_SEQ, "1,1", server),
    ];
    for (way, mut seq, syn, segments) in ways {
        lines += &format!("{way},{},{syn},0,0,\n", seq.wrapping_sub(1));
        for segment in segments {
            let unacknowledging = segment.strip_prefix('~');
            let captured = unacknowledging.unwrap_or(segment).trim_end_matches('~');
            let fin = captured.find('^').map(|at| seq.wrapping_add(at as u32));
            let captured = captured.replace('^', "");
            let hex: String = captured.bytes().map(|byte| format!("{byte:02x}")).collect();
            lines += &format!("{way},{seq},0,{},0,0,{hex}\n", u8::from(unacknowledging.is_none()));
            if let Some(fin) = fin {
                lines += &format!("{way},{fin},0,1,0,1,\n");
            }
            if unacknowledging.is_none() {
                seq = seq.wrapping_add(segment.len() as u32);
            }
        }
    }
    Streams::of_lines(&lines)
}

fn headers(fields: &[(&str, &str)]) -> Headers {
    fields.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
}

/// A request `at` bytes into the client's stream.
fn request(at: usize, line: &str, fields: &[(&str, &str)], (body, complete): Content) -> Message {
    let (method, target) = line.split_once(' ').unwrap();
    Message {
        sender: "192.0.2.1:4000".parse().unwrap(),
        receiver: "192.0.2.2:80".parse().unwrap(),
        seq: CLIENT_SEQ.wrapping_add(at as u32),
        offset: at as u64,
        place: String::new(),
        start_line: StartLine::Request { method: method.into(), target: target.into() },
        headers: headers(fields),
        body,
        complete,
        paired: Paired::Nothing,
        is_marred: false,
        has_whole_head: true,
        is_short: false,
    }
}

/// A response at the start of the server's stream.
fn response(status: u16, content: Content, method: &[u8]) -> Message {
    let request = request(0, "GET /b", &[], content);
    Message {
        sender: request.receiver,
        receiver: request.sender,
        seq: SERVER_SEQ,
        start_line: StartLine::Response { status },
        paired: Paired::Method(method.to_vec()),
        ..request
    }
}
