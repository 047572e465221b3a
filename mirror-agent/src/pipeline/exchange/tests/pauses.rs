//! Enters: connections that are captured with a pause. Leaves: nothing; each request comes out once, as it was sent.

use super::*;

fn at(talk: &mut Conversation, interface: u32, flow: FlowKey) {
    (talk.interface, talk.flow) = (interface, flow);
}

fn pair(talk: &mut Conversation, a: FlowKey, b: FlowKey, side: Side, flags: TcpFlags, bytes: &[u8]) {
    for (interface, key) in [(1, a), (2, b)] {
        at(talk, interface, key);
        talk.segment(side, flags, 0, bytes, bytes.len());
    }
    let syn = usize::from(flags.has(TcpFlags::SYN));
    talk.skip(side, bytes.len() + syn);
}

fn keys() -> (Conversation, FlowKey, FlowKey, FlowKey) {
    let purpose = Purpose::replay(Experiment::of_methods(Methods::All));
    let talk = Conversation::adopted(purpose, Limits::default(), 1_000, 2_000);
    let vip = talk.flow;
    let pod = |text: &str| FlowKey { server: text.parse::<SocketAddr>().unwrap().into(), ..vip };
    (talk, vip, pod("10.1.0.1:80"), pod("10.1.0.2:80"))
}

fn interrupt(talk: &mut Conversation) {
    let now = Timestamp::from_nanos(talk.now);
    talk.pipeline.interrupt(now);
}

#[test]
fn port_used_again_after_a_pause_towards_another_pod_is_one_connection() {
    let (mut talk, vip, one, two) = keys();
    pair(&mut talk, vip, one, Side::Client, TcpFlags::SYN, b"");
    pair(&mut talk, vip, one, Side::Server, TcpFlags(0x12), b"");
    pair(&mut talk, vip, one, Side::Client, TcpFlags::ACK, &get("/old"));
    assert_eq!(talk.requests().len(), 1);
    interrupt(&mut talk);
    talk.next = [SeqNumber(500_000_000), SeqNumber(700_000_000)];
    pair(&mut talk, vip, two, Side::Client, TcpFlags::SYN, b"");
    pair(&mut talk, vip, two, Side::Server, TcpFlags(0x12), b"");
    pair(&mut talk, vip, two, Side::Client, TcpFlags::ACK, &get("/new"));
    assert_eq!(talk.requests().len(), 1);
}

#[test]
fn interface_attached_while_paused_shows_no_second_connection() {
    for (paused, unseen) in [(false, 0), (true, 0), (true, 20_000_000)] {
        let (mut talk, vip, one, _) = keys();
        at(&mut talk, 2, one);
        talk.segment(Side::Client, TcpFlags::SYN, 0, b"", 0);
        talk.skip(Side::Client, 1);
        talk.segment(Side::Server, TcpFlags(0x12), 0, b"", 0);
        talk.skip(Side::Server, 1);
        talk.client(&get("/old"));
        talk.server(OK);
        assert_eq!(talk.requests().len(), 1);
        if paused {
            interrupt(&mut talk);
            talk.skip(Side::Server, unseen);
        }
        let mut count = Vec::new();
        for _ in 0..3 {
            pair(&mut talk, vip, one, Side::Client, TcpFlags::ACK, &get("/new"));
            count.push(talk.requests().len());
            // Responses pass the pod's interface first.
            for (interface, key) in [(2, one), (1, vip)] {
                at(&mut talk, interface, key);
                talk.segment(Side::Server, TcpFlags::ACK, 0, b"HTTP/1.1 200", OK.len());
            }
            talk.skip(Side::Server, OK.len());
        }
        assert_eq!(count, [1, 1, 1], "paused: {paused}, {unseen} bytes unseen");
    }
}

#[test]
fn response_that_comes_first_after_a_pause_shows_no_second_connection() {
    let (mut talk, vip, one, _) = keys();
    // Adopted at the uplink before the pause; the pod's interface had shown nothing of it (idle there).
    at(&mut talk, 1, vip);
    talk.client(&get("/old"));
    assert_eq!(talk.requests().len(), 1);
    at(&mut talk, 2, FlowKey { client: "10.9.9.9:1".parse::<SocketAddr>().unwrap().into(), ..one });
    talk.segment(Side::Client, TcpFlags::SYN, 0, b"", 0);
    interrupt(&mut talk);
    for (interface, key) in [(2, one), (1, vip)] {
        at(&mut talk, interface, key);
        talk.segment(Side::Server, TcpFlags::ACK, 0, b"HTTP/1.1 200", OK.len());
    }
    talk.skip(Side::Server, OK.len());
    pair(&mut talk, vip, one, Side::Client, TcpFlags::ACK, &get("/new"));
    assert_eq!(talk.requests().len(), 1);
}

#[test]
fn request_sent_again_after_a_pause_past_another_interface_is_old() {
    let (mut talk, vip, one, _) = keys();
    at(&mut talk, 2, one);
    talk.segment(Side::Client, TcpFlags::SYN, 0, b"", 0);
    talk.skip(Side::Client, 1);
    talk.segment(Side::Server, TcpFlags(0x12), 0, b"", 0);
    talk.skip(Side::Server, 1);
    let old = get("/old");
    talk.client_at(0, &old);
    assert_eq!(talk.requests().len(), 1);
    interrupt(&mut talk);
    at(&mut talk, 1, vip);
    talk.client_at(0, &old);
    assert_eq!(talk.requests().len(), 0);
}

#[test]
fn body_behind_a_go_ahead_with_fields_is_no_request() {
    let purpose = Purpose::replay(Experiment::of_methods(Methods::All));
    let mut talk = Conversation::adopted(purpose, Limits::default(), 1_000, 2_000);
    talk.client(&get("/first"));
    talk.skip(Side::Server, OK.len());
    assert_eq!(talk.requests().len(), 1);
    talk.skip(Side::Client, 100); // lost in the ring
    talk.client(b"POST /up HTTP/1.1\r\nHost: live\r\nExpect: 100-continue\r\nContent-Length: 41\r\n\r\n");
    talk.pipeline.handle_time(Timestamp::from_nanos(6_000_000_000));
    talk.now = 6_000_000_000;
    talk.skip(Side::Server, b"HTTP/1.1 100 Continue\r\nServer: nobody\r\n\r\n".len());
    talk.client(&get("/body"));
    let got = talk.requests();
    assert!(
        got.is_empty(),
        "{:?}",
        got.iter().map(|r| String::from_utf8_lossy(r).into_owned()).collect::<Vec<_>>()
    );
}

#[test]
fn request_open_on_a_port_that_is_captured_no_longer_is_lost_at_once_and_others_go_on() {
    for (port, lost) in [(80, 0), (81, 1)] {
        let (mut talk, ..) = keys();
        talk.client(&get("/whole"));
        talk.server(OK);
        talk.client(b"GET /half HTTP/1.1\r\n");
        let now = Timestamp::from_nanos(talk.now);
        talk.pipeline.interrupt_some(now, |flow| flow.server.port != port);
        assert_eq!(talk.pipeline.pending(), 1 - lost, "port {port}");
        talk.client(b"Host: a\r\n\r\n");
        assert_eq!(talk.requests().len() as u64, 2 - lost);
        assert_eq!(talk.lost(LostReason::Aborted), lost);
    }
}

#[test]
fn connection_that_was_let_go_is_taken_up_with_no_request_altered_or_twice() {
    // As many bytes pass meanwhile; with the last, sequence numbers come round to just before where they were.
    for passed in [0_usize, 1_000_000, 0xe000_0000] {
        let (mut talk, ..) = keys();
        let whole = get("/whole");
        talk.client(&whole);
        talk.server(OK);
        talk.client(b"POST /half HTTP/1.1\r\nHost: live\r\nContent-Length: 500000\r\n\r\nhalf");
        assert_eq!((talk.requests(), talk.pipeline.pending()), (vec![whole.clone()], 1));

        talk.pipeline.let_go(Timestamp::from_nanos(talk.now), &talk.flow);

        assert_eq!(talk.pipeline.pending(), 0, "what is incomplete does not wait for what is not captured");
        talk.client_at(-i32::try_from(whole.len()).unwrap(), b"half");
        assert!(talk.requests().is_empty(), "sent again");
        talk.skip(Side::Client, passed);
        talk.client(b" of a body");
        talk.client(&post(b"next"));
        assert_eq!(talk.requests(), [post(b"next")], "{passed} bytes later");
        assert_eq!((talk.lost(LostReason::Aborted), talk.seen(), talk.settled()), (1, 3, 1));
    }
}

#[test]
fn flow_is_let_go_by_any_key_that_it_is_known_by_and_others_stay() {
    let let_go = |key: fn([FlowKey; 3]) -> FlowKey| {
        let (mut talk, vip, one, two) = keys();
        pair(&mut talk, vip, one, Side::Client, TcpFlags::SYN, b"");
        pair(&mut talk, vip, one, Side::Client, TcpFlags::ACK, b"GET /half HTTP/1.1\r\n");
        talk.pipeline.let_go(Timestamp::from_nanos(talk.now), &key([vip, one, two]));
        talk.pipeline.pending()
    };
    assert_eq!((let_go(|keys| keys[0]), let_go(|keys| keys[1]), let_go(|keys| keys[2])), (0, 0, 1));
}

#[test]
fn connection_goes_on_after_its_server_sent_more_unseen_than_its_numbers_can_tell() {
    for unseen in [(1_usize << 30) + 1000, 1 << 31, (3 << 30) - 1000] {
        let (mut talk, ..) = keys();
        talk.client(&get("/before"));
        talk.server(OK);
        assert_eq!(talk.requests(), [get("/before")]);
        talk.skip(Side::Server, unseen);
        // Nothing of the client is missing.
        for path in ["/1", "/2"] {
            talk.client(&get(path));
            talk.server(OK);
            assert_eq!(talk.requests(), [get(path)], "{unseen} bytes later");
        }
        // Here a request is, as well: where the next one begins, the server's answer to the one in between tells.
        talk.skip(Side::Client, 100);
        talk.skip(Side::Server, unseen);
        talk.client(&get("/between"));
        talk.server(OK);
        talk.client(&get("/3"));
        assert_eq!(talk.requests(), [get("/3")], "{unseen} bytes later");
        talk.finish();
        assert_eq!((talk.seen(), talk.settled()), (4, 0));
    }
}

#[test]
fn request_that_was_open_then_is_lost_to_the_gap() {
    let (mut talk, ..) = keys();
    talk.client(&get("/before"));
    talk.server(OK);
    talk.client(b"POST /up HTTP/1.1\r\nHost: live\r\nContent-Length: 500000\r\n\r\nhalf");
    talk.skip(Side::Client, 2 << 30);
    talk.client(&get("/unconfirmed"));
    assert_eq!(talk.pipeline.pending(), 1);
    talk.server(OK);
    assert_eq!((talk.lost(LostReason::Gap), talk.seen(), talk.pipeline.pending()), (1, 2, 0));
}

#[test]
fn body_within_which_more_was_unseen_than_numbers_can_tell_is_not_taken_to_go_on() {
    let (mut talk, ..) = keys();
    talk.client(&get("/before"));
    talk.server(OK);
    talk.client(b"POST /up HTTP/1.1\r\nHost: live\r\nContent-Length: 9000000000\r\n\r\nhalf");
    assert_eq!(talk.requests(), [get("/before")]);
    talk.skip(Side::Client, 2 << 30);
    talk.client(&get("/in-a-body"));
    talk.server(OK);
    talk.client(&get("/after"));
    assert_eq!(talk.requests(), [get("/after")]);
    assert_eq!((talk.lost(LostReason::TooLarge), talk.seen(), talk.pipeline.pending()), (1, 3, 0));
}
