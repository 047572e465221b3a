//! Enters: nothing. Leaves: captures of messages as they should not be, and of what only looks like them.

use super::{
    Case,
    expected::{Told, told},
    script::{GET, OK, Script, Talk, case},
};

pub(super) fn cases() -> Vec<Case> {
    let mut cases = requests();
    cases.extend(responses());
    cases.extend(heads());
    cases.extend(other_protocols());
    cases
}

/// A request that is told, answered by the usual response; the usual exchange follows.
fn asked(s: &mut Script, request: impl AsRef<[u8]>, expected: Told) {
    let mut talk = s.connect(4000);
    s.client(&mut talk, request);
    s.server(&mut talk, OK);
    s.expect(expected, told("200").body("abc"));
    s.usual(&mut talk);
    s.close(&mut talk);
}

/// A response that is told, to the usual request; the usual exchange follows.
fn answered(s: &mut Script, response: impl AsRef<[u8]>, expected: Told) {
    let mut talk = s.connect(4000);
    s.client(&mut talk, GET);
    s.server(&mut talk, response);
    s.expect(told("GET /a"), expected);
    s.usual(&mut talk);
    s.close(&mut talk);
}

fn requests() -> Vec<Case> {
    vec![
        case("methods", "Every registered method, and some that are not.", |s| {
            let mut talk = s.connect(4000);
            for method in METHODS {
                s.client(&mut talk, format!("{method} /a HTTP/1.1\r\nHost: h\r\n\r\n"));
                s.server(&mut talk, OK);
                s.expect(told(&format!("{method} /a")), told("200").body("abc"));
            }
            s.close(&mut talk);
        }),
        case(
            "unknown-methods",
            "Methods nobody registered are methods all the same (RFC 9110 section 16.1).",
            |s| {
                let mut talk = s.connect(4000);
                for method in ["PURGE", "BAN", "X-FETCH", "get", "Foo"] {
                    s.client(&mut talk, format!("{method} /a HTTP/1.1\r\nHost: h\r\n\r\n"));
                    s.server(&mut talk, OK);
                    s.expect(told(&format!("{method} /a")), told("200").body("abc"));
                }
                s.close(&mut talk);
            },
        ),
        case("notifications", "NOTIFY and its like have fields as any request has.", |s| {
            let mut talk = s.connect(4000);
            for method in ["NOTIFY", "SUBSCRIBE", "UNSUBSCRIBE"] {
                let fields = "Host: h\r\nNT: upnp:event\r\nContent-Length: 3\r\n";
                s.client(&mut talk, format!("{method} /a:b HTTP/1.1\r\n{fields}\r\nabc"));
                s.server(&mut talk, OK);
                s.expect(told(&format!("{method} /a:b")).body("abc"), told("200").body("abc"));
            }
            s.close(&mut talk);
        }),
        case("ntlm", "Credentials that Wireshark dissects further end no head.", |s| {
            let credentials = "NTLM TlRMTVNTUAABAAAAB4IIAAAAAAAAAAAAAAAAAAAAAAA=";
            let fields = format!("Authorization: {credentials}\r\nContent-Length: 3\r\nX: y\r\n");
            asked(s, format!("POST /n HTTP/1.1\r\n{fields}\r\nabc"), told("POST /n").body("abc"));
        }),
        case("bare-line-feeds", "A head whose lines end with a line feed alone; `run` refuses it.", |s| {
            asked(s, "GET /n HTTP/1.1\nHost: h\n\n", told("GET /n").refused("ambiguous_framing"));
        }),
        case(
            "empty-lines-first",
            "Empty lines before a request are passed over (RFC 9112 section 2.2).",
            |s| {
                asked(s, "\r\n\r\nGET /e HTTP/1.1\r\nHost: h\r\n\r\n\r\n", told("GET /e"));
            },
        ),
        case("white-space-in-the-line", "Several spaces in a request line; `run` refuses it.", |s| {
            asked(s, "GET  /w  HTTP/1.1\r\nHost: h\r\n\r\n", told("GET /w").refused("malformed"));
        }),
        case("space-in-the-target", "A space within the target; `run` refuses it.", |s| {
            asked(s, "GET /a b HTTP/1.1\r\nHost: h\r\n\r\n", told("GET /a b").refused("malformed"));
        }),
        case("high-bytes", "Bytes above 0x7f in target and values are kept.", |s| {
            asked(
                s,
                b"GET /caf\xc3\xa9?\xff HTTP/1.1\r\nHost: h\r\nX: \xe9\x80\r\n\r\n",
                told("GET /caf\u{c3}\u{a9}?\u{ff}"),
            );
        }),
        case("long-target", "A target of 20,000 bytes.", |s| {
            let target = format!("/{}", "t".repeat(20_000));
            let request = format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n");
            let mut talk = s.connect(4000);
            request.as_bytes().chunks(1400).for_each(|piece| s.client(&mut talk, piece));
            s.server(&mut talk, OK);
            s.expect(told(&format!("GET {target}")), told("200").body("abc"));
            s.close(&mut talk);
        }),
        case("long-head", "A head of 200,000 bytes: too long for `run`, and told all the same.", |s| {
            let request = format!("GET /l HTTP/1.1\r\nHost: h\r\nX: {}\r\n\r\n", "x".repeat(200_000));
            let mut talk = s.connect(4000);
            request.as_bytes().chunks(1400).for_each(|piece| s.client(&mut talk, piece));
            s.server(&mut talk, OK);
            s.expect(told("GET /l").refused("head_too_large"), told("200").body("abc"));
            s.usual(&mut talk);
            s.close(&mut talk);
        }),
        case("many-headers", "A thousand field lines, equal names among them.", |s| {
            let fields: String = (0..1000).map(|at| format!("X-{}: {at}\r\n", at % 7)).collect();
            asked(s, format!("GET /m HTTP/1.1\r\n{fields}\r\n"), told("GET /m"));
        }),
        case(
            "other-minor-version",
            "HTTP/1.2 is read as the highest known minor version (RFC 9110 section 2.5).",
            |s| {
                asked(s, "GET /v HTTP/1.2\r\nHost: h\r\n\r\n", told("GET /v").refused("malformed"));
            },
        ),
        case("http-1-0", "HTTP/1.0, with keep-alive and without.", |s| {
            let mut talk = s.connect(4000);
            s.client(&mut talk, b"GET /0 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
            s.server(&mut talk, b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\nabc");
            s.expect(told("GET /0"), told("200").body("abc"));
            s.client(&mut talk, b"GET /1 HTTP/1.0\r\n\r\n");
            s.server(&mut talk, b"HTTP/1.0 200 OK\r\n\r\nto the end");
            s.expect(told("GET /1"), told("200").body("to the end"));
            s.close(&mut talk);
        }),
    ]
}

/// Those of the IANA registry but CONNECT, HEAD and PRI, which change what follows.
const METHODS: [&str; 37] = [
    "ACL",
    "BASELINE-CONTROL",
    "BIND",
    "CHECKIN",
    "CHECKOUT",
    "COPY",
    "DELETE",
    "GET",
    "LABEL",
    "LINK",
    "LOCK",
    "MERGE",
    "MKACTIVITY",
    "MKCALENDAR",
    "MKCOL",
    "MKREDIRECTREF",
    "MKWORKSPACE",
    "MOVE",
    "OPTIONS",
    "ORDERPATCH",
    "PATCH",
    "POST",
    "PROPFIND",
    "PROPPATCH",
    "PUT",
    "QUERY",
    "REBIND",
    "REPORT",
    "SEARCH",
    "TRACE",
    "UNBIND",
    "UNCHECKOUT",
    "UNLINK",
    "UNLOCK",
    "UPDATE",
    "UPDATEREDIRECTREF",
    "VERSION-CONTROL",
];

fn responses() -> Vec<Case> {
    vec![
        case("no-reason", "A status line without reason phrase, with its space and without.", |s| {
            let mut talk = s.connect(4000);
            for line in ["HTTP/1.1 200 ", "HTTP/1.1 200"] {
                s.client(&mut talk, GET);
                s.server(&mut talk, format!("{line}\r\nContent-Length: 3\r\n\r\nabc"));
                s.expect_usual();
            }
            s.close(&mut talk);
        }),
        case("unknown-status", "Status codes nobody registered.", |s| {
            let mut talk = s.connect(4000);
            for status in ["299", "599", "999", "600"] {
                s.client(&mut talk, GET);
                s.server(&mut talk, format!("HTTP/1.1 {status} Whatever\r\nContent-Length: 3\r\n\r\nabc"));
                s.expect(told("GET /a"), told(status).body("abc"));
            }
            s.close(&mut talk);
        }),
        case("response-bare-line-feeds", "A response whose lines end with a line feed alone.", |s| {
            answered(s, "HTTP/1.1 200 OK\nContent-Length: 3\n\nabc", told("200").body("abc"));
        }),
        case(
            "chunked-in-capitals",
            "Names of transfer codings are case-insensitive (RFC 9112 section 7).",
            |s| {
                let response = "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
                answered(s, response, told("200").body("abc"));
            },
        ),
        case("padded-length", "Spaces around a length, and leading zeros.", |s| {
            answered(s, "HTTP/1.1 200 OK\r\nContent-Length:   003  \r\n\r\nabc", told("200").body("abc"));
        }),
        case("empty-line-before-response", "An empty line before a status line.", |s| {
            answered(s, [b"\r\n", OK].concat(), told("200").body("abc"));
        }),
    ]
}

fn heads() -> Vec<Case> {
    vec![
        case(
            "folded-field",
            "A folded field line is one value (RFC 9112 section 5.2); `run` refuses it.",
            |s| {
                asked(
                    s,
                    "GET /f HTTP/1.1\r\nHost: h\r\nX: one\r\n  two\r\n\tthree\r\nY: z\r\n\r\n",
                    told("GET /f").refused("ambiguous_framing"),
                );
            },
        ),
        case("folded-field-with-colon", "So is one whose second line looks like a field.", |s| {
            asked(
                s,
                "GET /g HTTP/1.1\r\nHost: h\r\nX: one\r\n two: three\r\nY: z\r\n\r\n",
                told("GET /g").refused("ambiguous_framing"),
            );
        }),
        case("space-before-colon", "White space between a name and its colon; `run` refuses it.", |s| {
            asked(
                s,
                "GET /c HTTP/1.1\r\nHost : h\r\nX\t: y\r\n\r\n",
                told("GET /c").refused("ambiguous_framing"),
            );
        }),
        case("no-colon", "A line without a colon is no field; `run` refuses the request.", |s| {
            asked(
                s,
                "GET /x HTTP/1.1\r\nHost: h\r\nnonsense\r\nX: y\r\n\r\n",
                told("GET /x").refused("malformed"),
            );
        }),
        case(
            "white-space-around-values",
            "White space around values is not part of them, within it is.",
            |s| {
                asked(
                    s,
                    "GET /o HTTP/1.1\r\nHost:h\r\nA:   b  c  \r\nD:\r\nE:\t\tf\t\r\n\r\n",
                    told("GET /o"),
                );
            },
        ),
        case("no-host", "HTTP/1.1 without Host.", |s| asked(s, "GET /h HTTP/1.1\r\n\r\n", told("GET /h"))),
    ]
}

fn other_protocols() -> Vec<Case> {
    let other = |name, proves, port: u16, said: &'static [u8], answer: &'static [u8]| {
        case(name, proves, move |s: &mut Script| {
            let server = ([192, 0, 2, 2], port).into();
            let mut talk = s.open(Talk::between(([192, 0, 2, 1], 4000).into(), server));
            s.client(&mut talk, said);
            s.server(&mut talk, answer);
            s.close(&mut talk);
        })
    };
    vec![
        case("unusual-port", "HTTP on a port that is not known for it.", |s| {
            let mut talk =
                s.open(Talk::between(([192, 0, 2, 1], 45_000).into(), ([192, 0, 2, 2], 31_337).into()));
            s.usual(&mut talk);
            s.usual(&mut talk);
            s.close(&mut talk);
        }),
        case("port-of-another-protocol", "HTTP on a port that is known for SSH.", |s| {
            let mut talk = s.open(Talk::between(([192, 0, 2, 1], 4000).into(), ([192, 0, 2, 2], 22).into()));
            s.usual(&mut talk);
            s.usual(&mut talk);
            s.close(&mut talk);
        }),
        case(
            "client-port-of-another-protocol",
            "Older than the capture, from a port known for a database.",
            |s| {
                let mut talk = Talk::between(([192, 0, 2, 1], 1433).into(), ([192, 0, 2, 2], 8080).into());
                s.usual(&mut talk);
                s.usual(&mut talk);
                s.close(&mut talk);
            },
        ),
        case("client-port-below", "A client whose port is lower than the server's.", |s| {
            let mut talk =
                s.open(Talk::between(([192, 0, 2, 1], 1025).into(), ([192, 0, 2, 2], 50_000).into()));
            s.usual(&mut talk);
            s.close(&mut talk);
        }),
        other(
            "rtsp",
            "RTSP looks like HTTP and is none.",
            554,
            b"OPTIONS rtsp://h/a RTSP/1.0\r\nCSeq: 1\r\n\r\n",
            b"RTSP/1.0 200 OK\r\nCSeq: 1\r\n\r\n",
        ),
        other(
            "sip",
            "Nor is SIP over TCP.",
            5060,
            b"OPTIONS sip:a@h SIP/2.0\r\nCall-ID: 1\r\nContent-Length: 0\r\n\r\n",
            b"SIP/2.0 200 OK\r\nCall-ID: 1\r\nContent-Length: 0\r\n\r\n",
        ),
        other("http-0-9", "A simple request of HTTP/0.9 is no HTTP/1.", 80, b"GET /a\r\n", b"<html></html>"),
        case("shoutcast", "A response that says ICY is no HTTP/1; its request is.", |s| {
            let mut talk = s.connect(4000);
            s.client(&mut talk, GET);
            s.server(&mut talk, b"ICY 200 OK\r\nicy-name: radio\r\n\r\nmusic");
            s.expect_request(told("GET /a"));
            s.close(&mut talk);
        }),
        other(
            "tls",
            "TLS holds nothing that could be told.",
            443,
            b"\x16\x03\x01\0\x05hello",
            b"\x15\x03\x01\0\x02\x02\x28",
        ),
        other(
            "smtp",
            "Lines that begin with capital letters are no requests.",
            25,
            b"EHLO h\r\n",
            b"250 h\r\n",
        ),
    ]
}
