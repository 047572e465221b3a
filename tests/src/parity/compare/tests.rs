//! Enters: two made-up accounts of a capture. Leaves: nothing; the facts of comparing them.

use super::*;
use crate::parity::message::Paired;

#[test]
fn equal_accounts_agree() {
    let messages = [get("/a", 0), response(200, 0), get("/b", 50)];
    let comparison = compare(&whole(&messages), &messages);
    assert_eq!((comparison.requests, comparison.responses), (2, 1));
    assert!(comparison.disagreements.is_empty() && comparison.not_compared.is_empty());
}

#[test]
fn what_is_set_aside_is_counted_as_not_compared() {
    let ours = [get("/a", 0), get("/b", 50)];
    let mut comparison = compare(&Accounts::default(), &ours);
    comparison.set_aside("unread", |disagreement| disagreement.offset == 50);
    comparison.set_aside("else", |_| false);
    assert_eq!(comparison.disagreements.len(), 1);
    assert_eq!(comparison.not_compared, [("unread", 1)].into());
}

#[test]
fn each_difference_is_named_with_both_values() {
    let ours = get("/a", 7);
    let with_method = |method: &[u8]| StartLine::Request { method: method.to_vec(), target: b"/a".to_vec() };
    let cases = [
        (Message { start_line: with_method(b"PUT"), ..ours.clone() }, "method: PUT GET"),
        (get("/b", 7), "target: /b /a"),
        (with_header(&ours, b"Host", b"b"), "header: 1. Host: b 1. Host: a"),
        (with_header(&ours, b"host", b"a"), "header: 1. host: a 1. Host: a"),
        (Message { headers: vec![], ..ours.clone() }, "header: only 0 headers 1. Host: a"),
        (with_body(&ours, 3, "ff"), "body: 3 bytes, SHA-256 ff 0 bytes, SHA-256 00"),
        (with_body(&ours, 0, "ff"), "body: 0 bytes, SHA-256 ff 0 bytes, SHA-256 00"),
    ];
    for (theirs, expected) in cases {
        let comparison = compare(&whole(&[theirs]), std::slice::from_ref(&ours));
        assert_eq!(told(&comparison), [expected]);
        assert_eq!(comparison.disagreements[0].flow, "192.0.2.1:4000 > 192.0.2.2:80");
        assert_eq!(comparison.disagreements[0].offset, 7);
    }
    let comparison = compare(&whole(&[response(500, 7)]), &[response(200, 7)]);
    assert_eq!(told(&comparison), ["status: 500 200"]);
}

#[test]
fn order_of_headers_counts() {
    let headers = [(b"A".to_vec(), vec![]), (b"B".to_vec(), vec![])];
    let one = Message { headers: headers.to_vec(), ..get("/a", 0) };
    let other = Message { headers: headers.iter().rev().cloned().collect(), ..get("/a", 0) };
    assert_eq!(told(&compare(&whole(&[one]), &[other])), ["header: 1. A:  1. B: "]);
}

#[test]
fn message_of_one_side_only_is_a_disagreement() {
    let both = get("/a", 0);
    let theirs = compare(&whole(&[both.clone(), get("/b", 50)]), std::slice::from_ref(&both));
    assert_eq!(told(&theirs), ["message: GET /b with 1 headers, body 0 bytes, SHA-256 00 -"]);
    let ours = compare(&whole(std::slice::from_ref(&both)), &[both.clone(), response(204, 0)]);
    assert_eq!(told(&ours), ["message: - 204 with 0 headers, body 0 bytes, SHA-256 00"]);
}

#[test]
fn messages_are_told_apart_by_place_not_by_order() {
    let comparison = compare(&whole(&[get("/a", 100)]), &[get("/a", 0), get("/a", 50), get("/a", 100)]);
    assert_eq!(comparison.requests, 1);
    let missing: Vec<u64> = comparison.disagreements.iter().map(|one| one.offset).collect();
    assert_eq!(missing, [0, 50]);
}

#[test]
fn head_alone_is_compared_where_nobody_saw_the_end() {
    let cut = Message { complete: false, ..with_body(&get("/a", 0), 7, "77") };
    let heads = |message| Accounts { heads: vec![message], ..Accounts::default() };
    let comparison = compare(&heads(get("/a", 0)), std::slice::from_ref(&cut));
    assert!(comparison.disagreements.is_empty());
    assert_eq!((comparison.requests, comparison.not_compared.values().sum::<u64>()), (1, 1));
    let comparison = compare(&heads(get("/b", 0)), std::slice::from_ref(&cut));
    assert_eq!(told(&comparison), ["target: /b /a"]);
    // Without its head nothing is excused.
    assert_eq!(compare(&Accounts::default(), &[cut]).disagreements.len(), 1);
}

#[test]
fn message_behind_a_gap_is_compared_in_full_with_a_less_patient_account() {
    let present = |message| Accounts { present: vec![message], ..Accounts::default() };
    let comparison = compare(&present(get("/a", 0)), &[get("/a", 0)]);
    assert!(comparison.disagreements.is_empty() && comparison.not_compared.is_empty());
    let comparison = compare(&present(with_body(&get("/a", 0), 3, "33")), &[get("/a", 0)]);
    assert_eq!(told(&comparison), ["body: 3 bytes, SHA-256 33 0 bytes, SHA-256 00"]);
    // What only the less patient account tells of is a guess of Wireshark's.
    assert!(compare(&present(get("/a", 0)), &[]).disagreements.is_empty());
}

#[test]
fn head_in_one_segment_stands_in_where_wireshark_took_content_for_a_head() {
    let accounts = |segments| Accounts { segments, ..Accounts::default() };
    let comparison = compare(&accounts(vec![get("/a", 0)]), &[get("/a", 0)]);
    assert!(comparison.disagreements.is_empty());
    assert_eq!((comparison.requests, comparison.not_compared.values().sum::<u64>()), (1, 1));
    assert_eq!(told(&compare(&accounts(vec![get("/b", 0)]), &[get("/a", 0)])), ["target: /b /a"]);
}

#[test]
fn body_that_wireshark_shows_a_part_of_is_not_compared_up_to_its_length() {
    let length = |text: &str| vec![(b"Content-Length".to_vec(), text.as_bytes().to_vec())];
    let of = |len, hash: &str, announced| Message {
        headers: length(announced),
        ..with_body(&get("/a", 0), len, hash)
    };
    let differences = |is_short, ours: &Message, announced| {
        let theirs = Message { is_short, ..of(3, "33", announced) };
        compare(&whole(&[theirs]), std::slice::from_ref(ours)).disagreements.len()
    };
    assert_eq!(differences(true, &of(7, "77", "7"), "7"), 0);
    assert_eq!(differences(false, &of(7, "77", "7"), "7"), 1);
    assert_eq!(differences(true, &of(7, "77", "5"), "5"), 1);
    assert_eq!(differences(true, &of(3, "77", "7"), "7"), 1);
}

#[test]
fn body_with_bytes_missing_is_counted_where_wireshark_lacks_them_too() {
    let damaged = Message { body: Body::Damaged { len: 3 }, complete: false, ..get("/a", 0) };
    let lacking = [
        Message { is_short: true, ..get("/a", 0) },
        Message { body: Body::Unknown, complete: false, ..get("/a", 0) },
    ];
    for theirs in lacking {
        let comparison = compare(&whole(&[theirs]), std::slice::from_ref(&damaged));
        assert!(comparison.disagreements.is_empty());
        assert_eq!(comparison.not_compared.values().sum::<u64>(), 1);
    }
    let comparison = compare(&whole(&[get("/a", 0)]), &[damaged]);
    assert_eq!(told(&comparison), ["body: 0 bytes, SHA-256 00 3 bytes, others missing"]);
}

#[test]
fn equal_copies_are_counted_and_unequal_ones_are_not_excused() {
    let message = get("/a", 0);
    let in_vlan = |message: Message| Message { place: "vlan 7".to_owned(), ..message };
    let with = |other| compare(&whole(std::slice::from_ref(&message)), &[message.clone(), other]);
    let comparison = with(in_vlan(message.clone()));
    assert!(comparison.disagreements.is_empty());
    assert_eq!(comparison.not_compared.values().sum::<u64>(), 1);
    // Another one, and the same one told twice.
    for other in [in_vlan(get("/b", 0)), get("/b", 0), message.clone()] {
        assert_eq!(with(other).disagreements.len(), 1);
    }
}

#[test]
fn head_of_which_wireshark_shows_the_beginning_is_counted_where_that_is_equal() {
    let ours = with_header(&get("/a", 0), b"Host", b"a");
    for (theirs, is_begun) in [
        (Message { headers: vec![], ..ours.clone() }, true),
        (ours.clone(), true),
        (Message { headers: vec![], ..get("/b", 0) }, false),
        (Message { headers: vec![], ..get("/a", 50) }, false),
        (with_header(&ours, b"Host", b"b"), false),
    ] {
        let accounts = Accounts { beginnings: vec![theirs], ..Accounts::default() };
        let comparison = compare(&accounts, std::slice::from_ref(&ours));
        assert_eq!(comparison.disagreements.is_empty(), is_begun);
        assert_eq!(comparison.requests, 0);
    }
}

#[test]
fn retransmissions_that_wireshark_tells_apart_are_counted() {
    let at = |message: Message, place: &str| Message { place: place.to_owned(), ..message };
    let first = at(get("/a", 0), "tcp.stream 0, frame 1");
    for (other, is_repeat) in [
        (at(get("/a", 0), "tcp.stream 0, frame 2"), true),
        (at(get("/a", 0), "tcp.stream 1, frame 2"), false),
        (at(get("/b", 0), "tcp.stream 0, frame 2"), false),
        (at(get("/a", 50), "tcp.stream 0, frame 2"), false),
        (get("/a", 0), false),
    ] {
        let comparison = compare(&whole(&[first.clone(), other]), std::slice::from_ref(&first));
        assert_eq!(comparison.disagreements.is_empty(), is_repeat);
        assert_eq!(!comparison.not_compared.is_empty(), is_repeat);
    }
}

#[test]
fn flow_is_told_anew_where_a_direction_was_not_told_and_more_is_told_of_it() {
    let elsewhere = |message: Message| {
        let other = |end: SocketAddr| SocketAddr::new(end.ip(), end.port() + 1);
        Message { sender: other(message.sender), receiver: other(message.receiver), ..message }
    };
    let ours = [get("/a", 0), response(200, 0), elsewhere(get("/a", 0))];
    let mut theirs = vec![response(200, 0), elsewhere(get("/a", 0))];
    let flows = untold_flows(&theirs, &ours);
    assert_eq!(flows.len(), 1);
    replace_flows(&mut theirs, &[response(500, 0)], &flows);
    assert_eq!(theirs[0].start_line, ours[1].start_line);
    replace_flows(&mut theirs, &ours[..2], &flows);
    assert!(compare(&whole(&theirs), &ours).disagreements.is_empty());
    assert!(untold_flows(&theirs, &ours).is_empty());
}

fn whole(messages: &[Message]) -> Accounts {
    Accounts { whole: messages.to_vec(), ..Accounts::default() }
}

/// What differs, and both values.
fn told(comparison: &Comparison) -> Vec<String> {
    let side = |said: &Option<String>| said.clone().unwrap_or_else(|| "-".to_owned());
    let tell = |one: &Disagreement| {
        format!("{}: {} {}", one.what.as_str(), side(&one.wireshark), side(&one.inspect))
    };
    comparison.disagreements.iter().map(tell).collect()
}

fn get(target: &str, offset: u32) -> Message {
    let (client, server) = ("192.0.2.1:4000".parse().unwrap(), "192.0.2.2:80".parse().unwrap());
    let start_line = StartLine::Request { method: b"GET".to_vec(), target: target.into() };
    Message {
        sender: client,
        receiver: server,
        seq: offset.wrapping_sub(20),
        offset: offset.into(),
        place: String::new(),
        start_line,
        headers: vec![(b"Host".to_vec(), b"a".to_vec())],
        body: Body::Whole { len: 0, sha256: "00".to_owned() },
        complete: true,
        paired: Paired::Nothing,
        is_marred: false,
        has_whole_head: true,
        is_short: false,
    }
}

fn response(status: u16, offset: u32) -> Message {
    let Message { sender, receiver, .. } = get("/", 0);
    let start_line = StartLine::Response { status };
    Message { sender: receiver, receiver: sender, start_line, headers: vec![], ..get("/", offset) }
}

fn with_header(message: &Message, name: &[u8], value: &[u8]) -> Message {
    Message { headers: vec![(name.to_vec(), value.to_vec())], ..message.clone() }
}

fn with_body(message: &Message, len: u64, sha256: &str) -> Message {
    Message { body: Body::Whole { len, sha256: sha256.to_owned() }, ..message.clone() }
}
