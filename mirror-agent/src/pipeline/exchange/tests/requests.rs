//! Enters: conversations. Leaves: which requests are mirrored, skipped and lost, and why.

use super::*;

#[test]
fn a_request_in_one_segment_comes_out_byte_for_byte() {
    let mut talk = Conversation::new();
    let odd = b"GET /\xc3\xa9?q HTTP/1.1\r\nhOSt:  live \r\nX: 1\r\nx: 2\r\n\r\n";
    talk.client(odd);
    talk.server(OK);
    assert_eq!(talk.requests(), [odd]);
    assert_eq!((talk.seen(), talk.settled()), (1, 0));
}

#[test]
fn chunk_layout_and_trailers_are_kept() {
    let mut talk = Conversation::new();
    let chunked =
        b"POST /c HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\nT: 1\r\n\r\n";
    for byte in chunked {
        talk.client(&[*byte]);
    }
    assert_eq!(talk.requests(), [chunked]);
}

#[test]
fn methods_that_were_not_asked_for_are_skipped_and_their_bodies_stepped_over() {
    let mut talk = Conversation::with(Purpose::replay(Experiment::default()), Limits::default());
    talk.client(&post(&[b'x'; 5_000]));
    talk.client(&get("/after"));
    assert_eq!(talk.requests(), [get("/after")]);
    assert_eq!(talk.skipped(SkipReason::Method), 1);
}

#[test]
fn a_marked_request_is_never_mirrored_again() {
    let mut talk = Conversation::new();
    talk.client(b"GET / HTTP/1.1\r\nHost: live\r\nX-Mirror-Id: 1\r\n\r\n");
    assert!(talk.requests().is_empty());
    assert_eq!(talk.skipped(SkipReason::Marked), 1);
}

#[test]
fn a_probe_that_arrives_is_told_of_and_never_mirrored() {
    let mut talk = Conversation::new();
    let (one, two) = (probe_id(1), probe_id(u64::MAX));
    let others = ["0-1-2", "interlock-1", "probe-1", &format!("{one}0"), "probe-000000000000000A"];
    for id in [&one[..]].into_iter().chain(others).chain([&two[..]]) {
        talk.client(format!("HEAD / HTTP/1.1\r\nHost: live\r\nX-Mirror-ID: {id}\r\n\r\n").as_bytes());
    }
    assert!(talk.requests().is_empty());
    assert_eq!(talk.skipped(SkipReason::Marked), 7);
    let server = Endpoint::from(SocketAddr::from(([10, 0, 0, 2], 80)));
    let [one, two] = [one, two].map(|id| Probe { id: id.into_bytes(), server });
    assert_eq!(talk.probes(), [one, two]);
}

#[test]
fn probes_of_strangers_do_not_take_the_place_of_one_unnoticed() {
    let mut talk = Conversation::new();
    let probe = |number| format!("HEAD / HTTP/1.1\r\nx-mirror-id: {}\r\n\r\n", probe_id(number));
    let line = |number| format!("x-mirror-id:{}\r\n", probe_id(number));
    talk.client(probe(1).as_bytes());
    // A head counts once, however often it is marked.
    let lines: String = (2..1_500).map(line).collect();
    talk.client(format!("GET / HTTP/1.1\r\n{lines}\r\n").as_bytes());
    talk.client(format!("GET / HTTP/1.1\r\n{lines}\r\n").as_bytes());
    assert_eq!(talk.probes().len(), 3);
    assert!(!talk.pipeline.take_dropped_probes());
    // They can send as many as they like.
    for number in 0..3_000 {
        talk.client(probe(number).as_bytes());
    }
    assert!(talk.pipeline.take_dropped_probes());
    let probes = talk.probes();
    assert_eq!((probes.len(), &probes.last().unwrap().id[..]), (2048, probe_id(2_999).as_bytes()));
    talk.client(probe(1).as_bytes());
    assert!(!talk.pipeline.take_dropped_probes());
}

#[test]
fn after_an_accepted_upgrade_nothing_is_taken_for_a_request() {
    let mut talk = Conversation::new();
    talk.client(b"GET /ws HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n");
    talk.client(&get("/looks-like-one"));
    talk.server(b"HTTP/1.1 101 Switching Protocols\r\n\r\n");
    talk.client(&get("/looks-like-another"));
    assert!(talk.requests().is_empty());
    assert_eq!((talk.seen(), talk.skipped(SkipReason::Upgrade)), (1, 1));
    assert_eq!(talk.flows_skipped(FlowSkipReason::Upgraded), 1);
}

#[test]
fn after_a_declined_upgrade_requests_go_on() {
    let mut talk = Conversation::new();
    talk.client(b"GET /ws HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n");
    talk.client(&get("/early"));
    talk.server(OK);
    talk.client(&get("/late"));
    assert_eq!(talk.requests(), [get("/early"), get("/late")]);
}

#[test]
fn a_tunnel_is_left_alone_and_a_refused_one_is_not() {
    for (answer, mirrored) in [(&b"HTTP/1.1 200 OK\r\n\r\n"[..], 0), (b"HTTP/1.1 403 No\r\n\r\n", 1)] {
        let mut talk = Conversation::new();
        talk.client(b"CONNECT other:443 HTTP/1.1\r\nHost: other:443\r\n\r\n");
        talk.server(answer);
        talk.client(&get("/"));
        assert_eq!(talk.requests().len(), mirrored);
        assert_eq!(talk.skipped(SkipReason::Connect), 1);
    }
}

#[test]
fn a_client_that_awaits_a_go_ahead_is_followed_either_way() {
    let head = b"POST /e HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n";
    let mut talk = Conversation::new();
    talk.client(head);
    talk.server(b"HTTP/1.1 100 Continue\r\n\r\n");
    talk.client(b"body");
    assert_eq!(talk.requests(), [[&head[..], b"body"].concat()]);

    let purge = b"PURGE /next HTTP/1.1\r\n\r\n".to_vec();
    for (count, next) in (1..).zip([get("/next"), [b"\r\n", &get("/next")[..]].concat(), purge]) {
        talk.client(head);
        talk.server(b"HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n");
        talk.client(&next);
        talk.server(OK);
        assert_eq!(talk.requests(), [next.trim_ascii_start()]);
        assert_eq!(talk.lost(LostReason::Aborted), count);
    }
}

#[test]
fn behind_a_lost_answer_to_an_expectation_nothing_is_believed_that_may_be_body_or_request() {
    let next = get("/next");
    let head = format!("POST /e HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: {}\r\n\r\n", next.len());
    let upload = [head.as_bytes(), &vec![b'x'; next.len()]].concat();
    for (answer_len, sent, expected) in [
        // A refusal, or the go-ahead for a body that looks like a request.
        (60, &next, vec![get("/third")]),
        // A client that waits no longer, having heard nothing.
        (0, &next, vec![[head.as_bytes(), &next].concat(), get("/third")]),
        // A body that can be nothing else.
        (25, &upload[head.len()..].to_vec(), vec![upload.clone(), get("/third")]),
    ] {
        let mut talk = Conversation::new();
        talk.client(&get("/first"));
        talk.server(OK);
        assert_eq!(talk.requests(), [get("/first")]);
        talk.client(head.as_bytes());
        talk.skip(Side::Server, answer_len); // lost in the ring
        talk.client(sent);
        talk.server(OK);
        talk.client(&get("/third"));
        talk.server(OK);
        assert_eq!(talk.requests(), expected, "{answer_len}");
        assert_eq!(talk.lost(LostReason::Aborted), u64::from(answer_len == 60));
    }
}

#[test]
fn a_body_after_its_go_ahead_is_a_body_whatever_it_looks_like() {
    let mut talk = Conversation::new();
    let body = get("/not-a-request");
    let head = format!("POST /b HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: {}\r\n\r\n", body.len());
    talk.client(&[get("/a"), head.clone().into_bytes()].concat());
    talk.server(OK);
    talk.server(b"HTTP/1.1 100 Continue\r\n\r\n");
    talk.client(&body);
    assert_eq!(talk.requests(), [get("/a"), [head.into_bytes(), body].concat()]);
}

#[test]
fn a_go_ahead_is_no_quiet_moment() {
    let mut talk = Conversation::new();
    talk.skip(Side::Client, 100);
    talk.server(b"HTTP/1.1 100 Continue\r\n\r\n");
    talk.client(&get("/in-the-body"));
    talk.server(OK);
    talk.client(&get("/next"));
    assert_eq!(talk.requests(), [get("/next")]);
}

#[test]
fn switching_protocols_ends_http_whatever_was_answered_before() {
    let mut talk = Conversation::new();
    let upgrade = b"GET /ws HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: raw\r\n\r\n";
    talk.client(&[get("/a"), upgrade.to_vec()].concat());
    talk.server(OK);
    talk.server(b"HTTP/1.1 101 Switching Protocols\r\n\r\n");
    talk.client(&get("/tunnelled"));
    assert_eq!(talk.requests(), [get("/a")]);
    assert_eq!(talk.flows_skipped(FlowSkipReason::Upgraded), 1);
}

#[test]
fn requests_behind_a_declined_upgrade_are_seen_though_the_client_has_ended() {
    let mut talk = Conversation::new();
    talk.client(b"GET /ws HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: raw\r\n\r\n");
    talk.client(&get("/behind"));
    talk.fin(Side::Client);
    talk.server(OK);
    assert_eq!(talk.requests(), [get("/behind")]);
    assert_eq!(talk.seen(), 2);
}

#[test]
fn a_row_of_proxy_prefixes_is_nothing_to_step_over() {
    let mut talk = Conversation::new();
    talk.client(&b"PROXY UNKNOWN\r\n".repeat(5_000));
    talk.client(&get("/"));
    assert_eq!((talk.seen(), talk.flows_skipped(FlowSkipReason::NotHttp)), (0, 1));
}

#[test]
fn a_gap_in_a_body_of_known_length_costs_that_request_only() {
    let mut talk = Conversation::new();
    talk.client(b"POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\n01");
    talk.skip(Side::Client, 6);
    talk.client(b"89");
    talk.server(OK);
    talk.client(&get("/next"));
    assert_eq!(talk.requests(), [get("/next")]);
    assert_eq!(talk.lost(LostReason::Gap), 1);
}

#[test]
fn a_gap_in_a_head_is_left_at_the_next_quiet_moment_and_never_inside_a_body() {
    let mut talk = Conversation::new();
    talk.client(b"POST / HTTP/1.1\r\nConte");
    talk.skip(Side::Client, 300);
    talk.server(b"HTTP/1.1 100 Continue\r\n\r\n");
    talk.skip(Side::Client, 1);
    talk.client(&get("/inside-the-body"));
    talk.server(OK);
    talk.client(&get("/next"));
    assert_eq!(talk.requests(), [get("/next")]);
    assert_eq!((talk.seen(), talk.lost(LostReason::Gap)), (2, 1));
}

#[test]
fn a_request_without_its_first_byte_is_not_taken_for_another() {
    let mut talk = Conversation::new();
    talk.skip(Side::Client, 1);
    talk.server(b"HTTP/1.1 100 Continue\r\n\r\n");
    talk.client(b"OST /p HTTP/1.1\r\nHost: live\r\nContent-Length: 0\r\n\r\n");
    talk.server(OK);
    talk.client(&get("/next"));
    assert_eq!(talk.requests(), [get("/next")]);
}

#[test]
fn a_connection_older_than_the_capture_is_picked_up_at_its_next_request() {
    let purpose = Purpose::replay(Experiment::default());
    let mut talk = Conversation::adopted(purpose, Limits::default(), u32::MAX - 10, 5);
    talk.client(b"tail of a body that began before");
    talk.server(OK);
    talk.client(&get("/first"));
    talk.server(OK);
    talk.client(&get("/second"));
    assert_eq!(talk.requests(), [get("/first"), get("/second")]);
    assert_eq!(talk.seen(), 2);
}

#[test]
fn what_looks_like_several_requests_in_a_connection_older_than_the_capture_may_be_a_body() {
    let text = get("/in-the-body");
    let ends_within = [&text[..], b"GET /in-the-b"].concat();
    let goes_on = [&text[..], b"\r\n<p>That was a request.</p>"].concat();
    let upload = b"POST /whole HTTP/1.1\r\nContent-Length: 10\r\n\r\n01234";
    let posts = || Purpose::replay(Experiment::of_methods(Methods::All));
    for (begin, is_believed) in [
        (text.repeat(2), false),
        (ends_within, false),
        (goes_on, false),
        ([&upload[..], b"56789", &text].concat(), false),
        (text.clone(), true),
        (text[..20].to_vec(), true),
        (upload.to_vec(), true),
    ] {
        let mut talk = Conversation::adopted(posts(), Limits::default(), 1, 1);
        talk.client(&begin);
        // More of the same is believed no sooner.
        let more: Vec<u8> = match begin.len() {
            20 => text[20..].to_vec(),
            _ if begin == upload => b"56789".to_vec(),
            _ if is_believed => Vec::new(),
            _ => text.clone(),
        };
        if !more.is_empty() {
            talk.client(&more);
        }
        talk.server(OK);
        talk.client(&get("/next"));
        let expected =
            if is_believed { vec![[begin, more].concat(), get("/next")] } else { vec![get("/next")] };
        assert_eq!(talk.requests(), expected);
        assert_eq!(talk.seen(), expected.len() as u64);
    }
}

#[test]
fn ambiguous_framing_is_counted_and_never_replayed() {
    let mut talk = Conversation::new();
    talk.client(b"POST / HTTP/1.1\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n");
    talk.client(&get("/smuggled"));
    talk.finish();
    assert!(talk.requests().is_empty());
    assert_eq!((talk.seen(), talk.lost(LostReason::AmbiguousFraming)), (1, 1));
}

#[test]
fn other_protocols_are_recognised_and_counted_once_a_flow() {
    for (bytes, reason) in [
        (&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..], FlowSkipReason::Tls),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00", FlowSkipReason::Http2),
        (b"\x00\x01\x02\x03 binary", FlowSkipReason::NotHttp),
    ] {
        let mut talk = Conversation::new();
        talk.client(bytes);
        talk.client(&get("/"));
        assert_eq!((talk.flows_skipped(reason), talk.seen()), (1, 0), "{reason:?}");
    }
}

#[test]
fn a_proxy_protocol_prefix_is_stepped_over() {
    let mut talk = Conversation::new();
    talk.client(b"PROXY TCP4 192.0.2.1 192.0.2.2 5");
    talk.client(&[&b"6324 443\r\n"[..], &get("/")].concat());
    assert_eq!(talk.requests(), [get("/")]);
}

#[test]
fn a_body_over_the_limit_is_lost_whether_its_length_was_told_or_not() {
    let limits = Limits { body_bytes: 100, ..Limits::default() };
    let purpose = Purpose::replay(Experiment::of_methods(Methods::All));
    let mut talk = Conversation::with(purpose, limits);
    talk.client(&post(&[0; 101]));
    talk.client(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n");
    for _ in 0..11 {
        talk.client(b"a\r\n0123456789\r\n");
    }
    talk.client(b"0\r\n\r\n");
    talk.client(&get("/next"));
    assert_eq!(talk.requests(), [get("/next")]);
    assert_eq!(talk.lost(LostReason::TooLarge), 2);
    assert_eq!(talk.pipeline.bytes_held().1, 0);
}

#[test]
fn bodies_beyond_the_memory_are_lost_and_let_go() {
    let limits = Limits { memory_bytes: 256 * 1024, ..Limits::default() };
    let purpose = Purpose::replay(Experiment::of_methods(Methods::All));
    let mut talk = Conversation::with(purpose, limits);
    talk.client(&post(&vec![1; 200 * 1024]));
    assert_eq!(talk.lost(LostReason::Memory), 1);
    talk.client(&get("/next"));
    assert_eq!(talk.requests(), [get("/next")]);
    assert_eq!(talk.pipeline.bytes_held().1, 0);
}

#[test]
fn requests_that_nobody_takes_are_bounded_by_the_memory() {
    let limits = Limits { memory_bytes: 256 * 1024, ..Limits::default() };
    let mut talk = Conversation::with(Purpose::replay(Experiment::default()), limits);
    for _ in 0..100 {
        talk.client(&get("/").repeat(100));
    }
    let held = talk.pipeline.bytes_held().1;
    // Half of the memory is for messages.
    assert!((100 * 1024..130 * 1024).contains(&held), "{held}");
    let taken = u64::try_from(talk.requests().len()).unwrap();
    assert_eq!((talk.seen(), taken + talk.lost(LostReason::Memory)), (10_000, 10_000));
    assert!(taken <= 128 * 1024 / 128, "{taken}");
    assert_eq!(talk.pipeline.bytes_held().1, 0);
    talk.client(&get("/"));
    assert_eq!(talk.requests().len(), 1);
}

#[test]
fn unfinished_head_beyond_the_memory_is_lost_and_let_go() {
    let limits = Limits { memory_bytes: 64 * 1024, ..Limits::default() };
    let mut talk = Conversation::with(Purpose::replay(Experiment::default()), limits);
    talk.client(b"GET /slow HTTP/1.1\r\nHost: live\r\nX: ");
    assert!(talk.pipeline.bytes_held().1 > 0, "an incomplete head is in no account");
    talk.client(&[b'x'; 40 * 1024]);
    assert_eq!((talk.lost(LostReason::Memory), talk.pipeline.bytes_held().1), (1, 0));
    talk.server(OK);
    talk.client(&get("/next"));
    assert_eq!(talk.requests(), [get("/next")]);
    assert_eq!((talk.seen(), talk.settled(), talk.pipeline.bytes_held().1), (2, 1, 0));
}

#[test]
fn a_request_cut_short_by_the_end_of_its_flow_is_lost() {
    let mut talk = Conversation::new();
    talk.client(b"POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\n0123");
    talk.fin(Side::Client);
    talk.fin(Side::Server);
    assert_eq!((talk.seen(), talk.lost(LostReason::Aborted)), (1, 1));
    assert_eq!(talk.pipeline.pending(), 0);
}

#[test]
fn bytes_that_two_segments_claim_differently_are_not_sent() {
    let mut talk = Conversation::new();
    talk.client_at(4, b"/aaaa");
    talk.client_at(4, b"/bbbb");
    talk.client(b"GET /aaaa HTTP/1.1\r\nHost: live\r\n\r\n");
    talk.client(&get("/next"));
    assert_eq!(talk.requests(), [get("/next")]);
    assert_eq!(talk.lost(LostReason::Conflict), 1);
}

#[test]
fn exchanges_are_reported_with_their_responses() {
    let mut talk = Conversation::inspected();
    talk.client(&[get("/1"), b"HEAD /2 HTTP/1.1\r\n\r\n".to_vec(), post(b"abc")].concat());
    talk.server_full(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n");
    talk.server_full(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nHTTP/1.1 103 Early\r\n\r\n");
    talk.server_full(b"HTTP/1.1 201 Made\r\n\r\nuntil close");
    talk.fin(Side::Server);
    talk.fin(Side::Client);
    let reports = talk.reports();
    let bodies: Vec<_> = reports
        .iter()
        .map(|report| {
            let response = report.response.as_ref().unwrap();
            (response.body_bytes, response.complete, report.interim.len())
        })
        .collect();
    assert_eq!(bodies, [(2, true, 0), (0, true, 0), (11, true, 1)]);
    assert_eq!(talk.pipeline.open_since(), None);
}

#[test]
fn after_a_gap_in_the_responses_the_next_one_meets_its_own_request() {
    let mut talk = Conversation::inspected();
    talk.client(&get("/1"));
    talk.skip(Side::Server, OK.len());
    talk.client(&get("/2"));
    talk.server_full(b"HTTP/1.1 202 Two\r\nContent-Length: 0\r\n\r\n");
    talk.finish();
    let paired: Vec<_> = talk.reports().iter().map(|report| report.response.is_some()).collect();
    assert_eq!(paired, [false, true]);
}

#[test]
fn a_response_without_its_request_stands_alone() {
    let mut talk = Conversation::adopted(Purpose::Inspect, Limits::default(), 1, 1);
    talk.server_full(OK);
    talk.client(&get("/1"));
    talk.server_full(OK);
    talk.finish();
    let reports = talk.reports();
    assert_eq!(reports.len(), 2);
    assert!(reports[0].request.is_none() && reports[1].request.is_some() && reports[1].response.is_some());
}

#[test]
fn two_hundred_thousand_idle_flows_take_less_than_64_mib() {
    let mut pipeline = Pipeline::new(Purpose::replay(Experiment::default()), Limits::default(), 7);
    for number in 0..200_000_u32 {
        let client = SocketAddr::from((
            std::net::Ipv4Addr::from(0x0a00_0000 | (number >> 8)),
            1024 + (number & 0xff) as u16,
        ));
        pipeline.handle_segment(&Segment {
            flow: FlowKey {
                client: client.into(),
                server: "10.0.0.2:80".parse::<SocketAddr>().unwrap().into(),
                vlan: 0,
                vni: 0,
            },
            interface: 2,
            side: Side::Client,
            at: Timestamp::from_nanos(1),
            seq: SeqNumber(0),
            ack: SeqNumber(0),
            flags: TcpFlags::SYN,
            payload: b"",
            payload_len: 0,
        });
    }
    assert_eq!(pipeline.flows(), 200_000);
    let (flows, messages) = pipeline.bytes_held();
    assert!(flows < 64 << 20, "{flows}");
    assert_eq!(messages, 0);
}

#[test]
fn contradiction_about_the_first_bytes_of_a_connection_is_not_forgotten() {
    let mut talk = Conversation::new();
    talk.client_at(1, b"ET");
    talk.client_at(1, b"XT");
    talk.client(b"G");
    talk.skip(Side::Client, 2);
    talk.client(b" / HTTP/1.1\r\n\r\n");
    assert_eq!(talk.requests(), [b""; 0]);
    assert_eq!(talk.lost(LostReason::Conflict), 1);
}

#[test]
fn request_with_urgent_bytes_and_those_behind_it_are_lost() {
    let mut talk = Conversation::new();
    talk.client(&get("/before"));
    talk.server(OK);
    for (flags, path) in [(TcpFlags(0x30), "/urgent"), (TcpFlags::ACK, "/behind")] {
        talk.segment(Side::Client, flags, 0, &get(path), get(path).len());
        talk.skip(Side::Client, get(path).len());
        talk.server(OK);
    }
    assert_eq!(talk.requests(), [get("/before")]);
    assert_eq!((talk.lost(LostReason::Conflict), talk.seen()), (2, 3));
}
