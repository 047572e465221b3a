//! Enters: nothing. Leaves: captures of messages that are made to be read in two ways, as those who attack and those who
//! err send them.

use super::{
    Case,
    expected::{Told, told},
    script::{GET, OK, Script, case},
};

const CHUNKED_RESPONSE: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

pub(super) fn cases() -> Vec<Case> {
    let mut cases = lengths();
    cases.extend(chunks());
    cases.extend(lines());
    cases.extend(bodies());
    cases.extend(sequences());
    cases
}

/// A connection for each of these requests, which is told so and answered, and a usual exchange behind it.
fn asked(s: &mut Script, requests: impl IntoIterator<Item = (Vec<u8>, Told)>) {
    for (index, (request, expected)) in requests.into_iter().enumerate() {
        let mut talk = s.connect(4000 + index as u16);
        s.client(&mut talk, request);
        s.server(&mut talk, OK);
        s.expect(expected, told("200").body("abc"));
        s.usual(&mut talk);
        s.close(&mut talk);
    }
}

/// A connection for each of these responses, which is told so, and a usual exchange behind it.
fn answered(s: &mut Script, responses: impl IntoIterator<Item = (Vec<u8>, Told)>) {
    for (index, (response, expected)) in responses.into_iter().enumerate() {
        let mut talk = s.connect(5000 + index as u16);
        s.client(&mut talk, GET);
        s.server(&mut talk, response);
        s.expect(told("GET /a"), expected);
        s.usual(&mut talk);
        s.close(&mut talk);
    }
}

fn lengths() -> Vec<Case> {
    let with = |length: &str| {
        format!("POST /l HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\nX: y\r\n\r\nxyz").into_bytes()
    };
    let response =
        |length: &str| format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nX: y\r\n\r\nxyz").into_bytes();
    vec![
        case(
            "invalid-lengths",
            "Lengths with signs, words, other digits and contradictions: no reader knows the content.",
            move |s| {
                let lengths = ["+3", "-3", "0x3", "3.0", "3 3", "3 bytes", "3,", "x, 3", "3, 5", "", "\"3\""];
                let more = ["3\r\nContent-Length: 5", "99999999999999999999"];
                let refused = told("POST /l").cut().refused("ambiguous_framing");
                asked(s, lengths.iter().chain(&more).map(|length| (with(length), refused.clone())));
            },
        ),
        case(
            "listed-lengths",
            "Equal lengths in one line are one (RFC 9112 section 6.3, rule 5).",
            move |s| {
                let taken = told("POST /l").body("xyz").refused("ambiguous_framing");
                asked(s, ["3, 3", "03,3", "3,3,3"].map(|length| (with(length), taken.clone())));
            },
        ),
        case("invalid-lengths-of-responses", "The same in responses, and equal ones.", move |s| {
            let refused = told("200").cut().refused("ambiguous_framing");
            let contradictory = ["+3", "3 bytes", "3, 5", "3\r\nContent-Length: 5"];
            let contradictory = contradictory.map(|length| (response(length), refused.clone()));
            let equal = (response("3, 3"), told("200").body("xyz"));
            answered(s, contradictory.into_iter().chain([equal]));
        }),
        case("long-lengths", "Lengths beyond 31 and 32 bits are lengths like others.", move |s| {
            for (index, length) in ["2147483651", "4294967299", "18446744073709551615"].iter().enumerate() {
                let mut talk = s.connect(4000 + index as u16);
                s.client(&mut talk, with(length));
                s.server(&mut talk, response(length));
                s.expect(told("POST /l").body("xyz").cut(), told("200").body("xyz").cut());
                s.close(&mut talk);
            }
            let mut talk = s.connect(4010);
            s.client(&mut talk, GET);
            s.server(&mut talk, format!("{CHUNKED_RESPONSE}100000003\r\nxyz\r\n0\r\n\r\n"));
            s.expect(told("GET /a"), told("200").body("xyz\r\n0\r\n\r\n").cut());
            s.close(&mut talk);
        }),
        case("space-before-the-colon-of-a-length", "The white space is not part of the name.", move |s| {
            let request = "POST /l HTTP/1.1\r\nContent-Length : 3\r\n\r\nxyz";
            asked(s, [(request.into(), told("POST /l").body("xyz").refused("ambiguous_framing"))]);
            let response = "HTTP/1.1 200 OK\r\nContent-Length\t: 3\r\n\r\nxyz";
            answered(s, [(response.into(), told("200").body("xyz").refused("ambiguous_framing"))]);
        }),
        case(
            "white-space-before-fields",
            "A line with white space before it, right behind the start line, means nothing (RFC 9112 section 2.2).",
            |s| {
                let mut talk = s.connect(4000);
                s.client(&mut talk, GET);
                s.server(&mut talk, "HTTP/1.1 200 OK\r\n Content-Length: 1\r\nX: y\r\n\r\nxyz");
                s.expect(told("GET /a"), told("200").body("xyz").refused("ambiguous_framing"));
                s.close(&mut talk);
            },
        ),
    ]
}

fn chunks() -> Vec<Case> {
    let with =
        |body: &str| format!("POST /k HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{body}").into_bytes();
    let response = |body: &str| format!("{CHUNKED_RESPONSE}{body}").into_bytes();
    let sizes = ["+3", " 3", "0x3", "3.0", "3 x", "3,", "3;\0", "\x0b3", "3\r"];
    vec![
        case(
            "chunk-sizes-beyond-the-grammar",
            "Sizes with signs, spaces and words: the content ends before them.",
            move |s| {
                let broken = told("POST /k").body("w").cut().refused("malformed");
                let bodies = sizes.map(|size| format!("1\r\nw\r\n{size}\r\nxyz\r\n0\r\n\r\n"));
                asked(s, bodies.iter().map(|body| (with(body), broken.clone())));
                let broken = told("200").body("w").cut().refused("malformed");
                answered(s, bodies.iter().map(|body| (response(body), broken.clone())));
            },
        ),
        case("chunk-size-with-many-zeros", "A size may have any number of zeros before it.", move |s| {
            let body = format!("{}3\r\nxyz\r\n{}\r\n\r\n", "0".repeat(40), "0".repeat(20));
            asked(s, [(with(&body), told("POST /k").body("xyz").refused("ambiguous_framing"))]);
            answered(s, [(response(&body), told("200").body("xyz"))]);
        }),
        case(
            "chunks-that-break-off",
            "The next request is found behind chunks that have no end, at the start of its segment.",
            move |s| {
                let broken = |content: &str| told("POST /k").body(content).cut().refused("malformed");
                let cases =
                    [("3\r\nxyz\r\n0\r\n\r", "xyz"), ("3", ""), ("3\r\nxyz\r\n0\r\nno colon\r\n\r\n", "xyz")];
                asked(s, cases.map(|(body, content)| (with(body), broken(content))));
            },
        ),
        case(
            "identity-in-responses",
            "The coding identity is none: the length counts, and chunked before it is the last.",
            |s| {
                let fields = "Transfer-Encoding: identity\r\nContent-Length: 3";
                let by_length = format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\nxyz");
                let chunked =
                    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, identity\r\n\r\n3\r\nxyz\r\n0\r\n\r\n";
                let expected = told("200").body("xyz").refused("ambiguous_framing");
                answered(s, [(by_length.into(), expected.clone()), (chunked.into(), expected)]);
            },
        ),
        case("empty-coding", "An empty element of a list is none (RFC 9110 section 5.6.1.2).", |s| {
            let request = "POST /k HTTP/1.1\r\nTransfer-Encoding: chunked,\r\n\r\n3\r\nxyz\r\n0\r\n\r\n";
            asked(s, [(request.into(), told("POST /k").body("xyz").refused("ambiguous_framing"))]);
        }),
    ]
}

fn lines() -> Vec<Case> {
    vec![
        case(
            "white-space-around-request-lines",
            "Any white space may stand between the words of a line, and around them; `run` refuses it.",
            |s| {
                let lines = [
                    " GET /w HTTP/1.1",
                    "\tGET /w HTTP/1.1",
                    "GET\x0b/w\x0cHTTP/1.1",
                    "GET /w HTTP/1.1\r",
                    "GET /w HTTP/1.1 ",
                ];
                let expected = told("GET /w").refused("malformed");
                asked(s, lines.map(|line| (format!("{line}\r\nHost: h\r\n\r\n").into(), expected.clone())));
            },
        ),
        case("white-space-around-status-lines", "So it may in a status line.", |s| {
            let lines = [" HTTP/1.1 200 OK", "HTTP/1.1\t200\tOK", "HTTP/1.1 \t200 OK", "HTTP/1.1\x0c200"];
            let expected = told("200").body("xyz").refused("malformed");
            let response = |line| format!("{line}\r\nContent-Length: 3\r\n\r\nxyz").into();
            answered(s, lines.map(|line| (response(line), expected.clone())));
        }),
        case("status-lines-that-are-none", "A status is three digits behind a version of HTTP/1.", |s| {
            let lines = [
                "HTTP/1.1 2000 OK",
                "HTTP/1.1 +200 OK",
                "HTTP/1.1 OK",
                "HTTP/1.x 200 OK",
                "HTTP/1.1.1 200 OK",
                "HTTP/2.0 200 OK",
            ];
            for (index, line) in lines.iter().enumerate() {
                let mut talk = s.connect(4000 + index as u16);
                s.client(&mut talk, GET);
                s.server(&mut talk, format!("{line}\r\nContent-Length: 3\r\n\r\nxyz"));
                s.expect_request(told("GET /a"));
                s.close(&mut talk);
            }
        }),
        case(
            "request-lines-that-are-none",
            "Nor is one without a target a request, or of another version.",
            |s| {
                let lines = [
                    "GET  HTTP/1.1",
                    "GET /a HTTP/1.1 x",
                    "GET /a HTTP/1.1a",
                    "GET /a HTTP/1.1\0",
                    "HTTP/1.1 GET /a",
                ];
                for (index, line) in lines.iter().enumerate() {
                    let mut talk = s.connect(4000 + index as u16);
                    s.client(&mut talk, format!("{line}\r\nHost: h\r\n\r\n"));
                    s.server(&mut talk, OK);
                    s.expect_response(told("200").body("abc"));
                    s.usual(&mut talk);
                    s.close(&mut talk);
                }
            },
        ),
        case(
            "bare-carriage-returns",
            "A carriage return alone ends no line (RFC 9112 section 2.2); `run` refuses it.",
            |s| {
                let fields = ["X: a\rb", "X: y\r", "X\r: y", "X: \r\n\r", "X: y\rContent-Length: 3"];
                let expected = told("GET /r").refused("ambiguous_framing");
                let request = |field| format!("GET /r HTTP/1.1\r\nHost: h\r\n{field}\r\nY: z\r\n\r\n").into();
                asked(s, fields.map(|field| (request(field), expected.clone())));
            },
        ),
        case("start-line-among-fields", "A start line without a colon further down is no start line.", |s| {
            let request = "GET /r HTTP/1.1\r\nHost: h\r\nGET /x HTTP/1.1\r\nY: z\r\n\r\n";
            asked(s, [(request.into(), told("GET /r").refused("malformed"))]);
        }),
        case("credentials-of-any-kind", "Credentials that Wireshark cannot dissect are no content.", |s| {
            let request = "GET /n HTTP/1.1\r\nAuthorization: Negotiate YII=\r\nX: y\r\n\r\n";
            asked(s, [(request.into(), told("GET /n"))]);
        }),
    ]
}

fn bodies() -> Vec<Case> {
    vec![
        case("content-where-there-is-none", "Content behind HEAD and 304 is no part of the response.", |s| {
            let mut talk = s.connect(4000);
            s.client(&mut talk, "HEAD /a HTTP/1.1\r\nHost: h\r\n\r\n");
            s.server(&mut talk, OK);
            s.expect(told("HEAD /a"), told("200"));
            s.usual(&mut talk);
            s.client(&mut talk, GET);
            s.server(&mut talk, "HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\nabc");
            s.expect(told("GET /a"), told("304"));
            s.usual(&mut talk);
            s.close(&mut talk);
        }),
        case("bytes-behind-a-response", "What is behind a complete response begins no other one.", |s| {
            answered(
                s,
                ["abc", "<html>"].map(|more| ([OK, more.as_bytes()].concat(), told("200").body("abc"))),
            );
        }),
        case("content-nobody-understands", "What is behind content that Wireshark gives up is told.", |s| {
            let mut talk = s.connect(4000);
            let kind = "Content-Type: application/dns-message";
            let request = format!("POST /d HTTP/1.1\r\n{kind}\r\nContent-Length: 5\r\n\r\n{{\"a\":");
            s.client(&mut talk, [request.as_bytes(), GET].concat());
            s.server(&mut talk, [OK, OK].concat());
            s.expect(told("POST /d").body("{\"a\":"), told("200").body("abc"));
            s.expect_usual();
            s.close(&mut talk);
        }),
        case("notify-without-content", "NOTIFY without a length has no content.", |s| {
            let mut talk = s.connect(4000);
            s.client(&mut talk, [b"NOTIFY /n HTTP/1.1\r\nNT: n\r\n\r\n", GET].concat());
            s.server(&mut talk, [OK, OK].concat());
            s.expect(told("NOTIFY /n"), told("200").body("abc"));
            s.expect_usual();
            s.close(&mut talk);
        }),
        case("calls-in-content", "A request of RPC over HTTP carries calls, and never ends.", |s| {
            let mut talk = s.connect(4000);
            s.client(
                &mut talk,
                "RPC_IN_DATA /rpc/rpcproxy.dll?h:6001 HTTP/1.1\r\nContent-Length: 1073741824\r\n\r\n",
            );
            s.client(&mut talk, b"\x05\0\x14\x03\x10\0\0\0");
            s.expect_request(
                told("RPC_IN_DATA /rpc/rpcproxy.dll?h:6001").body(b"\x05\0\x14\x03\x10\0\0\0").cut(),
            );
            s.close(&mut talk);
        }),
        case("chunked-in-capitals-pipelined", "What is behind a coding in capitals is told.", |s| {
            let mut talk = s.connect(4000);
            s.client(&mut talk, [GET, GET].concat());
            let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: CHUNKED\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
            s.server(&mut talk, [chunked.as_bytes(), OK].concat());
            s.expect_usual();
            s.expect_usual();
            s.close(&mut talk);
        }),
    ]
}

fn sequences() -> Vec<Case> {
    vec![
        case("connect-not-ok", "Any 2xx to CONNECT opens a tunnel (RFC 9110 section 9.3.6).", |s| {
            let mut talk = s.connect(4000);
            s.client(&mut talk, "CONNECT h:80 HTTP/1.1\r\nHost: h\r\n\r\n");
            s.server(&mut talk, "HTTP/1.1 204 No Content\r\n\r\n");
            s.expect(told("CONNECT h:80"), told("204"));
            s.client(&mut talk, GET);
            s.server(&mut talk, OK);
            s.close(&mut talk);
        }),
        case(
            "connect-refused-pipelined",
            "A request behind CONNECT that is refused in one segment with its own answer.",
            |s| {
                let mut talk = s.connect(4000);
                s.client(&mut talk, [b"CONNECT h:80 HTTP/1.1\r\nHost: h\r\n\r\n", GET].concat());
                s.server(&mut talk, [b"HTTP/1.1 407 Who\r\nContent-Length: 3\r\n\r\nxyz", OK].concat());
                s.expect(told("CONNECT h:80"), told("407").body("xyz"));
                s.expect_usual();
                s.close(&mut talk);
            },
        ),
        case("switched-unasked", "Behind 101 that nobody asked for there is no HTTP either.", |s| {
            let mut talk = s.connect(4000);
            s.client(&mut talk, GET);
            s.server(&mut talk, "HTTP/1.1 101 Switching Protocols\r\n\r\n");
            s.expect(told("GET /a"), told("101"));
            s.client(&mut talk, GET);
            s.server(&mut talk, OK);
            s.close(&mut talk);
        }),
        case("answered-the-other-way", "A request of the end that was connected to is none.", |s| {
            let mut talk = s.connect(4000);
            s.client(&mut talk, "GIVE 123\r\n\r\n");
            s.server(&mut talk, GET);
            s.client(&mut talk, OK);
            s.close(&mut talk);
        }),
        case("preface-answered-in-http1", "A server that knows no HTTP/2 answers its preface.", |s| {
            let mut talk = s.connect(4000);
            s.client(&mut talk, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
            s.server(&mut talk, OK);
            s.expect_response(told("200").body("abc"));
            s.close(&mut talk);
        }),
        case("behind-an-unknown-method", "What is behind a request with a method of its own is told.", |s| {
            let mut talk = s.connect(4000);
            s.client(&mut talk, [b"123 /m HTTP/1.1\r\nHost: h\r\n\r\n", GET].concat());
            s.server(&mut talk, [OK, OK].concat());
            s.expect(told("123 /m"), told("200").body("abc"));
            s.expect_usual();
            s.close(&mut talk);
        }),
    ]
}
