//! Enters: nothing. Leaves: captures of what TCP and the way to the capture do to a byte stream.

use super::{
    Case,
    container::Taped,
    expected::told,
    script::{DATA, GET, OK, RST, Script, Talk, Who, case},
};
use crate::frames::{Envelope, TAG_AD, TAG_Q, flag};

/// A request of some length.
const POST: &[u8] = b"POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 20\r\n\r\nabcdefghijklmnopqrst";

pub(super) fn cases() -> Vec<Case> {
    let mut cases = order();
    cases.extend(beginnings_and_ends());
    cases.extend(probes());
    cases.extend(losses());
    cases.extend(networks());
    cases
}

fn expect_post(script: &mut Script) {
    script.expect(told("POST /p").body("abcdefghijklmnopqrst"), told("200").body("abc"));
}

fn order() -> Vec<Case> {
    vec![
        case("reorder", "Segments out of order make the stream that was sent.", |s| {
            let mut talk = s.connect(4000);
            for (from, to) in [(40, 60), (20, 40), (60, POST.len()), (0, 20)] {
                s.say_at(&talk, Who::Client, from, DATA, &POST[from as usize..to]);
            }
            talk.skip(Who::Client, POST.len());
            s.say_at(&talk, Who::Server, 20, DATA, &OK[20..]);
            s.say_at(&talk, Who::Server, 0, DATA, &OK[..20]);
            talk.skip(Who::Server, OK.len());
            expect_post(s);
            s.usual(&mut talk);
            s.close(&mut talk);
        }),
        case("retransmit", "Retransmissions, also cut otherwise, add nothing.", |s| {
            let mut talk = s.connect(4000);
            s.say_at(&talk, Who::Client, 0, DATA, &POST[..40]);
            s.say_at(&talk, Who::Client, 0, DATA, &POST[..40]);
            s.say_at(&talk, Who::Client, 20, DATA, &POST[20..60]);
            s.say_at(&talk, Who::Client, 0, DATA, POST);
            talk.skip(Who::Client, POST.len());
            s.server(&mut talk, OK);
            s.say_at(&talk, Who::Server, -(OK.len() as i32), DATA, OK);
            expect_post(s);
            s.usual(&mut talk);
            s.close(&mut talk);
        }),
        case("duplicate-frames", "A mirror port that sends each frame twice doubles no exchange.", |s| {
            let mut talk = s.connect(4000);
            s.usual(&mut talk);
            s.client(&mut talk, POST);
            s.server(&mut talk, OK);
            expect_post(s);
            s.close(&mut talk);
            s.frames = s.frames.iter().flat_map(|frame| [frame.clone(), frame.clone()]).collect();
        }),
        case(
            "overlap-delivered",
            "Bytes that were delivered are not changed by a retransmission with others.",
            |s| {
                let mut talk = s.connect(4000);
                s.client(&mut talk, &POST[..60]);
                s.say_at(&talk, Who::Client, -10, DATA, b"XXXXXXXXXX");
                s.client(&mut talk, &POST[60..]);
                s.server(&mut talk, OK);
                expect_post(s);
                s.close(&mut talk);
            },
        ),
        case(
            "overlap-held",
            "An in-order segment beats other bytes held out of order; the request is refused.",
            |s| {
                let mut talk = s.connect(4000);
                s.client(&mut talk, &POST[..51]);
                s.say_at(&talk, Who::Client, 4, DATA, b"XXXX");
                s.client(&mut talk, &POST[51..]);
                s.server(&mut talk, OK);
                s.expect(
                    told("POST /p").body("abcdefghijklmnopqrst").refused("conflict"),
                    told("200").body("abc"),
                );
                s.close(&mut talk);
            },
        ),
        case(
            "response-captured-first",
            "A response written to the file before its request: both are told, each by itself, and no other is shifted.",
            |s| {
                let mut talk = s.connect(4000);
                s.client(&mut talk, GET);
                s.server(&mut talk, OK);
                s.expect_request(told("GET /a"));
                s.expect_response(told("200").body("abc"));
                let last = s.frames.len() - 1;
                s.frames.swap(last - 1, last);
                s.usual(&mut talk);
            },
        ),
        case("times-out-of-order", "Times that go back do no harm.", |s| {
            let mut talk = s.connect(4000);
            s.usual(&mut talk);
            s.client(&mut talk, POST);
            s.server(&mut talk, OK);
            expect_post(s);
            for (index, frame) in s.frames.iter_mut().enumerate() {
                frame.at -= if index % 3 == 0 { 1_500_000 } else { 0 };
            }
        }),
        case("wrap", "The sequence numbers of both sides wrap within a message.", |s| {
            let mut talk =
                s.open(Talk { client_seq: u32::MAX - 20, server_seq: u32::MAX - 30, ..Talk::new(4000) });
            s.client(&mut talk, &POST[..30]);
            s.client(&mut talk, &POST[30..]);
            s.server(&mut talk, &OK[..35]);
            s.server(&mut talk, &OK[35..]);
            expect_post(s);
            s.usual(&mut talk);
            s.close(&mut talk);
        }),
        case("one-byte-segments", "Messages in segments of one byte.", |s| {
            let mut talk = s.connect(4000);
            POST.iter().for_each(|byte| s.client(&mut talk, [*byte]));
            OK.iter().for_each(|byte| s.server(&mut talk, [*byte]));
            expect_post(s);
            s.close(&mut talk);
        }),
    ]
}

fn beginnings_and_ends() -> Vec<Case> {
    vec![
        case("no-syn", "A connection older than the capture is read from its next message on.", |s| {
            let mut talk = Talk::new(4000);
            s.usual(&mut talk);
            s.usual(&mut talk);
        }),
        case("mid-message", "A capture that begins within bodies finds the next messages.", |s| {
            let mut talk = Talk::new(4000);
            s.client(&mut talk, b"end of an upload");
            s.server(&mut talk, b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n");
            s.expect_response(told("201"));
            s.usual(&mut talk);
            s.close(&mut talk);
        }),
        case("requests-only", "A capture of the client's packets only.", |s| {
            let mut talk = s.connect(4000);
            s.client(&mut talk, GET);
            s.client(&mut talk, POST);
            s.expect_request(told("GET /a"));
            s.expect_request(told("POST /p").body("abcdefghijklmnopqrst"));
            s.frames.remove(1);
        }),
        case("responses-only", "A capture of the server's packets only.", |s| {
            let mut talk = s.connect(4000);
            s.server(&mut talk, OK);
            s.server(&mut talk, OK);
            s.expect_response(told("200").body("abc"));
            s.expect_response(told("200").body("abc"));
            s.frames.remove(2);
            s.frames.remove(0);
        }),
        case("port-reuse", "The same ports again after an orderly end are another connection.", |s| {
            for seq in [1000, 900_000_000, 70_000] {
                let mut talk = s.open(Talk { client_seq: seq, ..Talk::new(4000) });
                s.usual(&mut talk);
                s.close(&mut talk);
            }
        }),
        case(
            "port-reuse-without-end",
            "The same ports again without any end of the first connection.",
            |s| {
                for seq in [1000, 900_000_000, 70_000] {
                    let mut talk =
                        s.open(Talk { client_seq: seq, server_seq: seq ^ 0x5555_5555, ..Talk::new(4000) });
                    s.usual(&mut talk);
                    s.pause(1_000);
                }
            },
        ),
        case("reset", "A reset ends what ends with the connection.", |s| {
            let mut talk = s.connect(4000);
            s.client(&mut talk, GET);
            s.server(&mut talk, b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc");
            s.say(&mut talk, Who::Server, RST | flag::ACK, b"");
            s.expect(told("GET /a"), told("200").body("abc").cut());
        }),
        case(
            "reset-with-text",
            "What a reset carries (RFC 9293 section 3.10.7.4 allows text) is no part of the stream.",
            |s| {
                let mut talk = s.connect(4000);
                s.usual(&mut talk);
                s.say(&mut talk, Who::Server, RST | flag::ACK, b"connection refused by policy");
            },
        ),
        case("bytes-behind-a-reset", "What the other side had sent when it was reset is told.", |s| {
            let mut talk = s.connect(4000);
            s.client(&mut talk, GET);
            s.server(&mut talk, &OK[..20]);
            s.say(&mut talk, Who::Client, RST, b"");
            s.server(&mut talk, &OK[20..30]);
            s.say(&mut talk, Who::Client, RST, b"");
            s.server(&mut talk, &OK[30..]);
            s.expect_usual();
        }),
        case("data-with-fin", "The last bytes come with the FIN.", |s| {
            let mut talk = s.connect(4000);
            s.client(&mut talk, GET);
            s.say(&mut talk, Who::Server, DATA | flag::FIN, b"HTTP/1.1 200 OK\r\n\r\nto the end");
            s.say(&mut talk, Who::Client, flag::ACK | flag::FIN, b"");
            s.expect(told("GET /a"), told("200").body("to the end"));
        }),
        case("data-with-syn", "A request that comes with the SYN (RFC 7413).", |s| {
            let mut talk = Talk::new(4000);
            s.say(&mut talk, Who::Client, flag::SYN, GET);
            s.say(&mut talk, Who::Server, flag::SYN | flag::ACK, b"");
            s.server(&mut talk, OK);
            s.expect_usual();
            s.close(&mut talk);
        }),
        case(
            "data-without-acknowledgement",
            "What a segment without ACK carries is no part of the stream (RFC 9293 section 3.10.7.4).",
            |s| {
                let forged = b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n";
                let mut talk = s.connect(4000);
                s.say_at(&talk, Who::Client, 0, flag::PSH, forged);
                s.usual(&mut talk);
                s.client(&mut talk, &POST[..51]);
                s.say_at(&talk, Who::Client, 0, 0, b"efghijklXXXXXXXX");
                s.client(&mut talk, &POST[51..]);
                s.server(&mut talk, OK);
                expect_post(s);
                s.say_at(&talk, Who::Server, 0, flag::PSH, OK);
                s.client(&mut talk, GET);
                s.server(&mut talk, b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\ndef");
                s.expect(told("GET /a"), told("200").body("def"));
                s.close(&mut talk);
                let mut talk = s.connect(4001);
                s.usual(&mut talk);
                s.say_at(&talk, Who::Client, 0, flag::PSH, forged);
                s.close(&mut talk);
            },
        ),
        case("half-closed", "A client that closes its side after the request is still answered.", |s| {
            let mut talk = s.connect(4000);
            s.say(&mut talk, Who::Client, DATA | flag::FIN, GET);
            s.server(&mut talk, b"HTTP/1.1 200 OK\r\n\r\nto ");
            s.say(&mut talk, Who::Server, DATA | flag::FIN, b"the end");
            s.expect(told("GET /a"), told("200").body("to the end"));
        }),
    ]
}

fn probes() -> Vec<Case> {
    vec![
        case("keep-alive-probes", "Probes repeat the byte before the next one, with any value.", |s| {
            let mut talk = s.connect(4000);
            s.usual(&mut talk);
            s.say_at(&talk, Who::Client, -1, flag::ACK, b"\0");
            s.say_at(&talk, Who::Server, 0, flag::ACK, b"");
            s.say_at(&talk, Who::Server, -1, flag::ACK, b"\0");
            s.usual(&mut talk);
            s.close(&mut talk);
        }),
        case(
            "zero-window-probe",
            "A probe of a closed window sends the next byte alone, and it comes again.",
            |s| {
                let mut talk = s.connect(4000);
                s.client(&mut talk, &POST[..60]);
                s.say_at(&talk, Who::Client, 0, flag::ACK, &POST[60..61]);
                s.say_at(&talk, Who::Client, 0, flag::ACK, &POST[60..61]);
                s.client(&mut talk, &POST[60..]);
                s.server(&mut talk, OK);
                expect_post(s);
                s.close(&mut talk);
            },
        ),
    ]
}

fn losses() -> Vec<Case> {
    vec![
        case("gap-in-body", "Bytes missing from a body of known length cost that body only.", |s| {
            let mut talk = s.connect(4000);
            s.client(&mut talk, GET);
            s.server(&mut talk, b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nab");
            talk.skip(Who::Server, 3);
            s.server(&mut talk, b"fghij");
            s.expect(told("GET /a"), told("200").holed(7));
            s.pause(2_000);
            s.usual(&mut talk);
            s.close(&mut talk);
        }),
        case("gap-between-messages", "A response that is missing as a whole shifts no other.", |s| {
            let mut talk = s.connect(4000);
            s.client(&mut talk, b"GET /1 HTTP/1.1\r\nHost: h\r\n\r\n");
            talk.skip(Who::Server, OK.len());
            s.expect_request(told("GET /1"));
            s.usual(&mut talk);
            s.close(&mut talk);
        }),
        case("gap-in-head", "A request with a part of its head missing is not told; the next one is.", |s| {
            let mut talk = s.connect(4000);
            s.client(&mut talk, b"GET /1 HTTP/1.1\r\nHo");
            talk.skip(Who::Client, 6);
            s.client(&mut talk, b"\r\n\r\n");
            s.server(&mut talk, OK);
            s.expect_response(told("200").body("abc"));
            // By the time at which the gap is certain the second answer has passed.
            s.client(&mut talk, GET);
            s.server(&mut talk, OK);
            s.expect_request(told("GET /a"));
            s.expect_response(told("200").body("abc"));
            s.close(&mut talk);
        }),
        case("snaplen", "Frames cut by the capture's length limit leave a gap, not a shift.", |s| {
            let mut talk = s.connect(4000);
            let body = "x".repeat(200);
            s.client(&mut talk, GET);
            s.server(&mut talk, format!("HTTP/1.1 200 OK\r\nContent-Length: 200\r\n\r\n{body}"));
            if let Some(frame) = s.frames.last_mut() {
                frame.bytes.truncate(160);
            }
            let there = 160 - 54 - 40;
            s.expect(told("GET /a"), told("200").holed(there));
            s.usual(&mut talk);
            s.close(&mut talk);
        }),
    ]
}

fn networks() -> Vec<Case> {
    let tagged = |tags: &[(u16, u16)]| Envelope { tags: tags.to_vec(), ..Envelope::default() };
    let plain = |s: &mut Script, envelope: Envelope| {
        let mut talk = s.open(Talk::new(4000).in_envelope(envelope));
        s.usual(&mut talk);
        s.close(&mut talk);
    };
    vec![
        case("ipv6", "IPv6.", |s| {
            let mut talk = s.open(Talk::over_ipv6());
            s.usual(&mut talk);
            s.close(&mut talk);
        }),
        case("ipv6-extension-headers", "Hop-by-hop and destination options before TCP.", |s| {
            let ip_extra = vec![60, 0, 1, 4, 0, 0, 0, 0, 6, 0, 1, 4, 0, 0, 0, 0];
            let envelope = Envelope { ip_extra, next_header: 0, ..Envelope::default() };
            let mut talk = s.open(Talk::over_ipv6().in_envelope(envelope));
            s.usual(&mut talk);
            s.close(&mut talk);
        }),
        case("ipv4-options", "IPv4 options before TCP, and TCP options before the data.", |s| {
            let ip_extra = vec![0x94, 4, 0, 0, 1, 1, 1, 0];
            let tcp_options = vec![1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2];
            plain(s, Envelope { ip_extra, tcp_options, ..Envelope::default() });
        }),
        case("vlan", "An 802.1Q tag.", |s| plain(s, tagged(&[(TAG_Q, 7)]))),
        case("qinq", "Two tags, 802.1ad around 802.1Q.", |s| plain(s, tagged(&[(TAG_AD, 7), (TAG_Q, 8)]))),
        case("snap", "A length, LLC and SNAP in place of the EtherType.", |s| {
            plain(s, Envelope::default());
            s.frames.iter_mut().for_each(put_snap);
        }),
        case("vlan-snap", "The same behind an 802.1Q tag.", |s| {
            plain(s, tagged(&[(TAG_Q, 7)]));
            s.frames.iter_mut().for_each(put_snap);
        }),
        case("vlan-one-way", "A flow that is tagged on one side only is one flow.", |s| {
            let mut talk = s.connect(4000);
            s.usual(&mut talk);
            s.usual(&mut talk);
            // The last byte of the source address tells who sent the frame.
            for frame in s.frames.iter_mut().filter(|frame| frame.bytes[11] == 2) {
                frame.bytes.splice(12..12, [0x81, 0, 0, 7]);
                frame.wire_len += 4;
            }
        }),
        case("vlan-collision", "Equal addresses and ports in two VLANs are two flows.", |s| {
            let mut one = s.open(Talk::new(4000).in_envelope(tagged(&[(TAG_Q, 7)])));
            let mut other = Talk { client_seq: 5, server_seq: 77, ..Talk::new(4000) };
            other = s.open(other.in_envelope(tagged(&[(TAG_Q, 8)])));
            s.client(&mut one, GET);
            s.client(&mut other, POST);
            s.server(&mut other, OK);
            s.server(&mut one, b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n");
            s.expect(told("GET /a"), told("404"));
            expect_post(s);
        }),
        case("ethernet-padding", "Padding and a check sequence behind the packet are no data.", |s| {
            let mut talk = s.connect(4000);
            s.usual(&mut talk);
            s.close(&mut talk);
            for frame in &mut s.frames {
                frame.bytes.resize(frame.bytes.len().max(60), 0);
                frame.bytes.extend([0xde, 0xad, 0xbe, 0xef]);
                frame.wire_len = frame.bytes.len() as u32;
            }
        }),
        case(
            "length-left-to-the-card",
            "A total length of zero: the sender's card would have filled it in.",
            |s| {
                let mut talk = s.connect(4000);
                s.usual(&mut talk);
                for frame in &mut s.frames {
                    frame.bytes[16..18].fill(0);
                }
            },
        ),
    ]
}

/// Puts a length, LLC and SNAP (RFC 1042) in the place of a frame's EtherType, behind its tag where it has one.
fn put_snap(frame: &mut Taped) {
    let at = if frame.bytes[12..14] == [0x81, 0] { 16 } else { 12 };
    let ether_type = [frame.bytes[at], frame.bytes[at + 1]];
    let len = (frame.bytes.len() - at - 2 + 8) as u16;
    frame.bytes.splice(at..at + 2, [&len.to_be_bytes()[..], &[0xaa, 0xaa, 3, 0, 0, 0], &ether_type].concat());
    frame.wire_len += 8;
}
