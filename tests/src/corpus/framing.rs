//! Enters: nothing. Leaves: captures of every way to say where a message ends.

use super::{
    Case,
    expected::told,
    script::{GET, OK, case},
};

const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

/// `abc`, compressed by gzip.
const GZIP: &[u8] = b"\x1f\x8b\x08\0\0\0\0\0\0\x03KLJ\x06\0\xc2\x41\x24\x35\x03\0\0\0";

pub(super) fn cases() -> Vec<Case> {
    let mut cases = lengths();
    cases.extend(chunks());
    cases.extend(without_a_body());
    cases.extend(ambiguous());
    cases
}

fn lengths() -> Vec<Case> {
    vec![
        case("pipelined", "Requests and responses that share segments.", |s| {
            let mut talk = s.connect(4000);
            let post = "POST /2 HTTP/1.1\r\nContent-Length: 2\r\n\r\nxy";
            s.client(&mut talk, format!("GET /1 HTTP/1.1\r\n\r\n{post}GET /3 HT"));
            s.client(&mut talk, "TP/1.1\r\n\r\nGET /4 HTTP/1.1\r\n\r\n");
            s.server(&mut talk, [OK, OK, &OK[..9]].concat());
            s.server(&mut talk, [&OK[9..], OK].concat());
            for request in [told("GET /1"), told("POST /2").body("xy"), told("GET /3"), told("GET /4")] {
                s.expect(request, told("200").body("abc"));
            }
            s.close(&mut talk);
        }),
        case("keep-alive", "Many exchanges on one connection, with bodies over several segments.", |s| {
            let mut talk = s.connect(4000);
            for turn in 0..20_u8 {
                let body = vec![b'a' + turn; 3000];
                s.client(&mut talk, format!("PUT /{turn} HTTP/1.1\r\nContent-Length: 3000\r\n\r\n"));
                body.chunks(1000).for_each(|piece| s.client(&mut talk, piece));
                s.server(&mut talk, b"HTTP/1.1 200 OK\r\nContent-Length: 3000\r\n\r\n");
                body.chunks(1400).for_each(|piece| s.server(&mut talk, piece));
                s.expect(told(&format!("PUT /{turn}")).body(&body), told("200").body(&body));
            }
            s.close(&mut talk);
        }),
        case("until-close", "A response that ends with the connection.", |s| {
            let mut talk = s.connect(4000);
            s.client(&mut talk, GET);
            s.server(&mut talk, b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nfirst ");
            s.server(&mut talk, b"HTTP/1.1 200 OK\r\n\r\n");
            s.server(&mut talk, b"last");
            s.expect(told("GET /a"), told("200").body("first HTTP/1.1 200 OK\r\n\r\nlast"));
            s.close(&mut talk);
        }),
        case("until-close-cut", "The same, and the capture ends first.", |s| {
            let mut talk = s.connect(4000);
            s.client(&mut talk, GET);
            s.server(&mut talk, b"HTTP/1.1 200 OK\r\n\r\nfirst ");
            s.server(&mut talk, b"second");
            s.expect(told("GET /a"), told("200").body("first second").cut());
        }),
        case("large-body", "A body of a megabyte.", |s| {
            let mut talk = s.connect(4000);
            let body: Vec<u8> =
                (0..1_048_576_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
            s.client(&mut talk, GET);
            s.server(&mut talk, format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()));
            body.chunks(32_000).for_each(|piece| s.server(&mut talk, piece));
            s.expect(told("GET /a"), told("200").body(&body));
            s.close(&mut talk);
        }),
        case("gzip", "Compressed content is told as sent.", |s| {
            let mut talk = s.connect(4000);
            s.client(&mut talk, GET);
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n",
                GZIP.len()
            );
            s.server(&mut talk, [head.as_bytes(), GZIP].concat());
            s.expect(told("GET /a"), told("200").body(GZIP));
            s.client(&mut talk, GET);
            let head = "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n";
            let (first, rest) = GZIP.split_at(5);
            let between = format!("\r\n{:x}\r\n", rest.len());
            s.server(
                &mut talk,
                [head.as_bytes(), first, between.as_bytes(), rest, b"\r\n0\r\n\r\n"].concat(),
            );
            s.expect(told("GET /a"), told("200").body(GZIP));
            s.close(&mut talk);
        }),
        case("multipart", "A multipart body, which may hold what looks like messages.", |s| {
            let mut talk = s.connect(4000);
            let body = "--x\r\nContent-Range: bytes 0-1/9\r\n\r\nGET / HTTP/1.1\r\n\r\n\r\n--x--\r\n";
            let kind = "Content-Type: multipart/byteranges; boundary=x";
            s.client(&mut talk, GET);
            s.server(
                &mut talk,
                format!("HTTP/1.1 206 Partial\r\n{kind}\r\nContent-Length: {}\r\n\r\n{body}", body.len()),
            );
            s.expect(told("GET /a"), told("206").body(body));
            s.close(&mut talk);
        }),
        case("media-types", "Bodies that Wireshark dissects further are told whole all the same.", |s| {
            let mut talk = s.connect(4000);
            for (kind, body) in [
                ("application/json", "{\"a\":[1,2]}"),
                ("text/xml", "<a><b/></a>"),
                ("application/x-www-form-urlencoded", "a=b&c=d"),
                ("image/png", "no image"),
                (
                    "multipart/form-data; boundary=y",
                    "--y\r\nContent-Disposition: form-data; name=f\r\n\r\nv\r\n--y--\r\n",
                ),
                ("application/grpc-web", "\0\0\0\0\0"),
                ("application/ocsp-response", "no response"),
            ] {
                s.client(
                    &mut talk,
                    format!(
                        "POST / HTTP/1.1\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n{body}",
                        body.len()
                    ),
                );
                s.server(
                    &mut talk,
                    format!(
                        "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n{body}",
                        body.len()
                    ),
                );
                s.expect(told("POST /").body(body), told("200").body(body));
            }
            s.close(&mut talk);
        }),
    ]
}

fn chunks() -> Vec<Case> {
    vec![
        case("chunked-every-split", "A chunked body cut in two at each of its bytes.", |s| {
            let body = "3\r\nabc\r\nA;x=y\r\ndefghijklm\r\n0\r\n\r\n";
            for cut in 1..body.len() {
                let mut talk = s.connect(4000 + cut as u16);
                s.client(
                    &mut talk,
                    format!("POST /p HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{}", &body[..cut]),
                );
                s.client(&mut talk, &body[cut..]);
                s.server(&mut talk, CHUNKED);
                s.server(&mut talk, &body[..cut]);
                s.server(&mut talk, &body[cut..]);
                s.expect(told("POST /p").body("abcdefghijklm"), told("200").body("abcdefghijklm"));
                s.close(&mut talk);
            }
        }),
        case("chunk-details", "Extensions, leading zeros, upper and lower case.", |s| {
            let mut talk = s.connect(4000);
            for body in [
                "0003\r\nabc\r\n000\r\n\r\n",
                "3;a=b;c=\"d;e\"\r\nabc\r\n0;last\r\n\r\n",
                "1\r\na\r\n1\r\nb\r\n1\r\nc\r\n0\r\n\r\n",
            ] {
                s.client(&mut talk, GET);
                s.server(&mut talk, format!("{CHUNKED}{body}"));
                s.expect_usual();
            }
            let long = "x".repeat(0xab);
            s.client(&mut talk, GET);
            s.server(&mut talk, format!("{CHUNKED}aB\r\n{long}\r\n0\r\n\r\n"));
            s.expect(told("GET /a"), told("200").body(long));
            s.close(&mut talk);
        }),
        case("trailers", "Trailer fields end a chunked body and are no headers.", |s| {
            let mut talk = s.connect(4000);
            s.client(&mut talk, GET);
            s.server(&mut talk, format!("{CHUNKED}3\r\nabc\r\n0\r\nExpires: never\r\nX: y\r\n\r\n"));
            s.expect_usual();
            s.usual(&mut talk);
            s.close(&mut talk);
        }),
        case("chunked-empty", "A chunked body without content.", |s| {
            let mut talk = s.connect(4000);
            s.client(&mut talk, GET);
            s.server(&mut talk, format!("{CHUNKED}0\r\n\r\n"));
            s.expect(told("GET /a"), told("200"));
            s.usual(&mut talk);
            s.close(&mut talk);
        }),
        case(
            "chunked-bare-line-feeds",
            "Chunk lines that end with a line feed alone, as clients accept.",
            |s| {
                let mut talk = s.connect(4000);
                s.client(&mut talk, GET);
                s.server(&mut talk, format!("{CHUNKED}3\nabc\n0\n\n"));
                s.expect_usual();
                s.close(&mut talk);
            },
        ),
        case("chunked-cut", "A chunked body whose end is not in the capture.", |s| {
            let mut talk = s.connect(4000);
            s.client(&mut talk, GET);
            s.server(&mut talk, format!("{CHUNKED}3\r\nabc\r\n5\r\nde"));
            s.expect(told("GET /a"), told("200").body("abcde").cut());
        }),
        case("chunk-size-with-spaces", "Spaces behind a chunk size (old servers pad it).", |s| {
            let mut talk = s.connect(4000);
            s.client(&mut talk, GET);
            s.server(&mut talk, format!("{CHUNKED}3  \r\nabc\r\n0  \r\n\r\n"));
            s.expect_usual();
            s.close(&mut talk);
        }),
    ]
}

fn without_a_body() -> Vec<Case> {
    vec![
        case("head", "The answer to HEAD has no body, whatever its length says.", |s| {
            let mut talk = s.connect(4000);
            s.client(&mut talk, b"HEAD /a HTTP/1.1\r\nHost: h\r\n\r\n");
            s.server(&mut talk, b"HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n");
            s.expect(told("HEAD /a"), told("200"));
            s.client(&mut talk, b"HEAD /a HTTP/1.1\r\nHost: h\r\n\r\n");
            s.server(&mut talk, CHUNKED);
            s.expect(told("HEAD /a"), told("200"));
            s.usual(&mut talk);
            s.close(&mut talk);
        }),
        case("no-content", "204 and 304 have no body, whatever their length says.", |s| {
            let mut talk = s.connect(4000);
            for status in ["204", "304"] {
                s.client(&mut talk, GET);
                s.server(&mut talk, format!("HTTP/1.1 {status} N\r\nContent-Length: 99\r\n\r\n"));
                s.expect(told("GET /a"), told(status));
                s.client(&mut talk, GET);
                s.server(&mut talk, format!("HTTP/1.1 {status} N\r\n\r\n"));
                s.expect(told("GET /a"), told(status));
            }
            s.usual(&mut talk);
            s.close(&mut talk);
        }),
        case("empty-bodies", "A length of zero, in both directions.", |s| {
            let mut talk = s.connect(4000);
            s.client(&mut talk, b"POST /a HTTP/1.1\r\nContent-Length: 0\r\n\r\n");
            s.server(&mut talk, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
            s.expect(told("POST /a"), told("200"));
            s.client(&mut talk, b"POST /b HTTP/1.1\r\n\r\n");
            s.server(&mut talk, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
            s.expect(told("POST /b"), told("200"));
            s.close(&mut talk);
        }),
    ]
}

fn ambiguous() -> Vec<Case> {
    let request = |name, proves, fields: &'static str, body: &'static str, content: &'static str| {
        case(name, proves, move |s| {
            let mut talk = s.connect(4000);
            s.client(&mut talk, format!("POST /s HTTP/1.1\r\nHost: h\r\n{fields}\r\n\r\n{body}"));
            s.server(&mut talk, OK);
            s.expect(told("POST /s").body(content).refused("ambiguous_framing"), told("200").body("abc"));
            s.usual(&mut talk);
            s.close(&mut talk);
        })
    };
    vec![
        request(
            "smuggle-cl-te",
            "A length beside chunked: chunked wins (RFC 9112 section 6.3, rule 3), and `run` refuses.",
            "Content-Length: 4\r\nTransfer-Encoding: chunked",
            "3\r\nxyz\r\n0\r\n\r\n",
            "xyz",
        ),
        request(
            "smuggle-te-cl",
            "The same in the other order.",
            "Transfer-Encoding: chunked\r\nContent-Length: 4",
            "3\r\nxyz\r\n0\r\n\r\n",
            "xyz",
        ),
        request(
            "equal-lengths",
            "The same length twice is one (RFC 9112 section 6.3, rule 5), and `run` refuses.",
            "Content-Length: 3\r\nContent-Length: 3",
            "xyz",
            "xyz",
        ),
        request(
            "identity-coding",
            "The coding identity, which RFC 7230 removed, is none.",
            "Transfer-Encoding: identity\r\nContent-Length: 3",
            "xyz",
            "xyz",
        ),
        case(
            "two-lengths",
            "Two lengths that differ: nobody knows the end, nothing behind is believed.",
            |s| {
                let mut talk = s.connect(4000);
                s.client(&mut talk, b"POST /s HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 5\r\n\r\nxyz");
                s.server(&mut talk, b"HTTP/1.1 400 Bad\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                s.expect(told("POST /s").cut().refused("ambiguous_framing"), told("400"));
                s.close(&mut talk);
            },
        ),
        case("smuggled-response-length", "A length beside chunked in a response: chunked wins.", |s| {
            let mut talk = s.connect(4000);
            s.client(&mut talk, GET);
            s.server(&mut talk, b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
            s.expect_usual();
            s.usual(&mut talk);
            s.close(&mut talk);
        }),
    ]
}
