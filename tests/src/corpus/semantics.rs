//! Enters: nothing. Leaves: captures of interim responses, hand-overs and whatever else changes what comes next.

use super::{
    Case,
    expected::told,
    script::{GET, OK, Who, case},
};
use crate::frames::flag;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = interim();
    cases.extend(handovers());
    cases.extend(orders());
    cases
}

fn interim() -> Vec<Case> {
    vec![
        case("continue", "100 belongs to the request whose body it lets go.", |s| {
            let mut talk = s.connect(4000);
            s.client(&mut talk, b"POST /p HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n");
            s.server(&mut talk, b"HTTP/1.1 100 Continue\r\n\r\n");
            s.client(&mut talk, b"xyz");
            s.server(&mut talk, OK);
            s.expect_interim(told("POST /p").body("xyz"), &[100], told("200").body("abc"));
            s.usual(&mut talk);
            s.close(&mut talk);
        }),
        case(
            "early-hints",
            "Several interim responses before the final one, in its segment or before.",
            |s| {
                let mut talk = s.connect(4000);
                s.client(&mut talk, GET);
                s.server(&mut talk, b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n");
                s.server(&mut talk, [b"HTTP/1.1 102 Processing\r\n\r\n", OK].concat());
                s.expect_interim(told("GET /a"), &[103, 102], told("200").body("abc"));
                s.usual(&mut talk);
                s.close(&mut talk);
            },
        ),
        case("expectation-failed", "A client that is refused does not send the body it announced.", |s| {
            let mut talk = s.connect(4000);
            s.client(&mut talk, b"POST /p HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n");
            s.server(&mut talk, b"HTTP/1.1 417 No\r\nContent-Length: 0\r\n\r\n");
            s.expect(told("POST /p").cut(), told("417"));
            s.usual(&mut talk);
            s.close(&mut talk);
        }),
    ]
}

fn handovers() -> Vec<Case> {
    vec![
        case("websocket", "Behind 101 the connection is no HTTP any more.", |s| {
            let mut talk = s.connect(4000);
            s.client(
                &mut talk,
                b"GET /ws HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                  Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n",
            );
            s.server(
                &mut talk,
                b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
            );
            s.client(&mut talk, b"\x81\x85\x01\x02\x03\x04\x69\x67\x6f\x68\x6e");
            s.server(&mut talk, b"\x81\x05hello");
            s.expect(told("GET /ws"), told("101"));
            s.close(&mut talk);
        }),
        case("upgrade-declined", "An upgrade that is not granted changes nothing.", |s| {
            let mut talk = s.connect(4000);
            s.client(&mut talk, b"GET /u HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n");
            s.server(&mut talk, OK);
            s.expect(told("GET /u"), told("200").body("abc"));
            s.usual(&mut talk);
            s.close(&mut talk);
        }),
        case("upgrade-h2c", "An upgrade to HTTP/2: its frames are not told.", |s| {
            let mut talk = s.connect(4000);
            s.client(
                &mut talk,
                b"GET /u HTTP/1.1\r\nHost: h\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\
                  HTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
            );
            s.server(&mut talk, b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n\0\0\0\x04\0\0\0\0\0");
            s.client(&mut talk, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
            s.expect(told("GET /u"), told("101"));
            s.close(&mut talk);
        }),
        case("http2-prior-knowledge", "HTTP/2 from the first byte holds no HTTP/1 message.", |s| {
            let mut talk = s.connect(4000);
            s.client(&mut talk, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
            s.server(&mut talk, b"\0\0\0\x04\0\0\0\0\0");
            s.close(&mut talk);
        }),
        case("connect", "CONNECT and 200: what follows is a tunnel.", |s| {
            let mut talk = s.connect(4000);
            s.client(&mut talk, b"CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\n\r\n");
            s.server(&mut talk, b"HTTP/1.1 200 Connection established\r\n\r\n");
            s.client(&mut talk, b"\x16\x03\x01\0\x05hello");
            s.server(&mut talk, b"\x16\x03\x01\0\x05hello");
            s.expect(told("CONNECT h:443"), told("200"));
            s.close(&mut talk);
        }),
        case("connect-http", "HTTP within a tunnel is not the proxy's.", |s| {
            let mut talk = s.connect(4000);
            s.client(&mut talk, b"CONNECT h:80 HTTP/1.1\r\nHost: h:80\r\n\r\n");
            s.server(&mut talk, b"HTTP/1.1 200 Connection established\r\n\r\n");
            s.client(&mut talk, GET);
            s.server(&mut talk, OK);
            s.expect(told("CONNECT h:80"), told("200"));
            s.close(&mut talk);
        }),
        case("connect-refused", "CONNECT that is refused leaves the connection as it was.", |s| {
            let mut talk = s.connect(4000);
            s.client(&mut talk, b"CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\n\r\n");
            s.server(&mut talk, b"HTTP/1.1 407 No\r\nContent-Length: 3\r\n\r\nabc");
            s.expect(told("CONNECT h:443"), told("407").body("abc"));
            s.usual(&mut talk);
            s.close(&mut talk);
        }),
        case("proxied", "Requests to a proxy name the whole URL.", |s| {
            let mut talk = s.connect(4000);
            s.client(&mut talk, b"GET http://h.example/a?b=c#d HTTP/1.1\r\nHost: h.example\r\nProxy-Connection: keep-alive\r\n\r\n");
            s.server(&mut talk, OK);
            s.expect(told("GET http://h.example/a?b=c#d"), told("200").body("abc"));
            s.client(&mut talk, b"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n");
            s.server(&mut talk, OK);
            s.expect(told("OPTIONS *"), told("200").body("abc"));
            s.close(&mut talk);
        }),
    ]
}

fn orders() -> Vec<Case> {
    vec![
        case("answer-before-the-end", "A server that answers before the request is complete.", |s| {
            let mut talk = s.connect(4000);
            s.client(&mut talk, b"POST /p HTTP/1.1\r\nContent-Length: 10\r\n\r\nabcde");
            s.server(&mut talk, b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n");
            s.client(&mut talk, b"fghij");
            s.expect(told("POST /p").body("abcdefghij"), told("413"));
            s.usual(&mut talk);
            s.close(&mut talk);
        }),
        case("unsolicited-response", "A response that nobody asked for stands alone.", |s| {
            let mut talk = s.connect(4000);
            s.server(&mut talk, b"HTTP/1.1 408 Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            s.expect_response(told("408"));
            s.close(&mut talk);
        }),
        case("interleaved", "Two connections at once are kept apart.", |s| {
            let (mut one, mut other) = (s.connect(4000), s.connect(4001));
            s.client(&mut one, &GET[..9]);
            s.client(&mut other, b"HEAD /b HTTP/1.1\r\n\r\n");
            s.client(&mut one, &GET[9..]);
            s.server(&mut other, b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n");
            s.server(&mut one, OK);
            s.expect_usual();
            s.expect(told("HEAD /b"), told("200"));
            s.close(&mut one);
            s.close(&mut other);
        }),
        case("after-connection-close", "Requests behind one that closes are told as they were sent.", |s| {
            let mut talk = s.connect(4000);
            s.client(&mut talk, b"GET /a HTTP/1.1\r\nConnection: close\r\n\r\n");
            s.server(&mut talk, OK);
            s.expect_usual();
            s.usual(&mut talk);
            s.close(&mut talk);
        }),
        case("not-answered", "A request without an answer, and the client gives up.", |s| {
            let mut talk = s.connect(4000);
            s.client(&mut talk, GET);
            s.say(&mut talk, Who::Client, flag::FIN | flag::ACK, b"");
            s.expect_request(told("GET /a"));
        }),
    ]
}
