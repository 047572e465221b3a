//! Enters: heads that bear live's values in every place. Leaves: the same with the target's, and no other byte changed.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::super::session::{Known, Substituted, Use, substitute};

/// What a target calls live's values.
struct Table(BTreeMap<Vec<u8>, Vec<u8>>);

impl Known for Table {
    fn has_length(&self, _: usize, len: usize) -> bool {
        self.0.keys().any(|live| live.len() == len)
    }

    fn find(&mut self, _: usize, live: &[u8]) -> Option<&[u8]> {
        self.0.get(live).map(Vec::as_slice)
    }
}

fn uses() -> Vec<(usize, Use)> {
    vec![
        (0, Use::Header("Authorization".to_owned())),
        (0, Use::Cookie("sid".to_owned())),
        (0, Use::Query("to ken".to_owned())),
    ]
}

fn run(head: &[u8], known: &[(&str, &str)]) -> (Vec<u8>, Substituted) {
    let pair = |(live, target): &(&str, &str)| (live.as_bytes().to_vec(), target.as_bytes().to_vec());
    let mut table = Table(known.iter().map(pair).collect());
    let mut out = Vec::new();
    let done = substitute(&mut out, head, &uses(), &mut table);
    (out, done)
}

const KNOWN: &[(&str, &str)] = &[
    ("live-session", "S"),
    ("live.session.long", "L"),
    ("ab+/cd==efgh", "x+y/z="),
    ("1", "2"),
    ("a b c d e", "never"),
];

#[test]
fn value_is_replaced_where_it_is_meant_and_nowhere_else() {
    for (line, fields, expected_line, expected_fields, replaced, unknown) in [
        ("/", "authorization: Bearer live-session", "/", "authorization: Bearer S", 1, 0),
        ("/", "AUTHORIZATION:live-session", "/", "AUTHORIZATION:S", 1, 0),
        (
            "/",
            "authorization: T a=\"live-session\", b=live-session",
            "/",
            "authorization: T a=\"S\", b=S",
            2,
            0,
        ),
        ("/", "authorization: live.session.long", "/", "authorization: L", 1, 0),
        ("/", "authorization: ab+/cd==efgh", "/", "authorization: x+y/z=", 1, 0),
        ("/", "authorization: 1", "/", "authorization: 2", 1, 0),
        ("/", "authorization: Bearer 1", "/", "", 0, 1),
        ("/", "authorization: xlive-session", "/", "", 0, 1),
        ("/", "authorization: live-sessionx", "/", "", 0, 1),
        ("/", "x-other: live-session", "/", "", 0, 0),
        ("/", "cookie: a=live-session; sid=live-session ;b", "/", "cookie: a=live-session; sid=S ;b", 1, 0),
        ("/", "cookie: sid=\"live-session\"", "/", "cookie: sid=\"S\"", 1, 0),
        ("/", "cookie: sid=live-session\r\ncookie: sid=1", "/", "cookie: sid=S\r\ncookie: sid=2", 2, 0),
        ("/", "cookie: SID=live-session; sid=xlive-session", "/", "", 0, 1),
        ("/?to+ken=live-session&a=live-session#f", "a: b", "/?to+ken=S&a=live-session#f", "a: b", 1, 0),
        ("http://h/p?x&to%20ken=live%2Dsession", "a: b", "http://h/p?x&to%20ken=S", "a: b", 1, 0),
        ("/?to+ken=ab+/cd==efgh", "a: b", "/?to+ken=x%2By/z%3D", "a: b", 1, 0),
        ("/?to+ken=ab%2B%2Fcd%3D%3Defgh", "a: b", "/?to+ken=x%2By/z%3D", "a: b", 1, 0),
        ("/?to+ken=a+b+c+d+e", "a: b", "/?to+ken=never", "a: b", 1, 0),
        ("/?to+ken=&to+ken", "a: b", "/", "", 0, 1),
        ("/live-session?token=live-session", "a: b", "/", "", 0, 0),
    ] {
        let head = |line: &str, fields: &str| format!("GET {line} HTTP/1.1\r\nhost: h\r\n{fields}\r\n\r\n");
        let (out, done) = run(head(line, fields).as_bytes(), KNOWN);
        let expected = if replaced == 0 { String::new() } else { head(expected_line, expected_fields) };
        assert_eq!(String::from_utf8(out).unwrap(), expected);
        assert_eq!(done, Substituted { replaced, unknown }, "{line} {fields}");
    }
}

#[test]
fn output_is_appended_and_what_stands_there_is_kept() {
    let mut table = Table(BTreeMap::from([(b"live-session".to_vec(), b"S".to_vec())]));
    let mut out = b"kept".to_vec();
    let head = b"GET / HTTP/1.1\r\ncookie: sid=live-session\r\n\r\n";
    substitute(&mut out, b"GET / HTTP/1.1\r\ncookie: sid=none\r\n\r\n", &uses(), &mut table);
    assert_eq!(out, b"kept");
    substitute(&mut out, head, &uses(), &mut table);
    assert!(out.starts_with(b"keptGET / HTTP/1.1\r\ncookie: sid=S\r\n"));
}

/// Knows nothing, and says that it might.
#[derive(Default)]
struct Asked {
    finds: usize,
    rules: BTreeSet<usize>,
}

impl Known for &mut Asked {
    fn has_length(&self, _: usize, _: usize) -> bool {
        true
    }

    fn find(&mut self, rule: usize, _: &[u8]) -> Option<&[u8]> {
        self.finds += 1;
        self.rules.insert(rule);
        None
    }
}

#[test]
fn head_costs_no_more_however_many_places_it_has() {
    let uses = [uses(), vec![(1, Use::Header("x-other".to_owned()))]].concat();
    for lines in [
        format!("authorization: {}\r\n", ".".repeat(129)).repeat(400),
        format!("cookie: {}\r\n", "sid=live-session;".repeat(400)).repeat(8),
    ] {
        let head = format!("GET /?{} HTTP/1.1\r\n{lines}\r\n", "to+ken=1&".repeat(40));
        let mut asked = Asked::default();
        let done = substitute(&mut Vec::new(), head.as_bytes(), &uses, &mut &mut asked);
        assert!(asked.finds > 80 && asked.finds <= 128 * 128 / 2, "{}", asked.finds);
        assert!(asked.rules.iter().eq(&[0]), "a rule is asked where its values may stand");
        assert!(done.unknown > 400, "what is not looked for is told");
    }
}

proptest! {
    #[test]
    fn any_bytes_come_through_and_only_values_differ(head in prop::collection::vec(any::<u8>(), 0..300)) {
        let (out, done) = run(&head, KNOWN);
        prop_assert_eq!(out.is_empty(), done.replaced == 0);
    }

    #[test]
    fn lines_stay_as_many_and_keep_their_names(
        values in prop::collection::vec("[ -~]{0,40}", 1..6),
        place in 0..5_usize,
    ) {
        let names = ["authorization", "cookie", "Cookie", "x", "Authorization"];
        let mut head = "GET /?to+ken=live-session&b HTTP/1.1\r\n".to_owned();
        for (number, value) in values.iter().enumerate() {
            let name = names[(number + place) % names.len()];
            head.push_str(&format!("{name}: {value} live-session; sid=live-session\r\n"));
        }
        head.push_str("\r\n");
        let (out, done) = run(head.as_bytes(), KNOWN);
        let out = String::from_utf8(out).unwrap();
        prop_assert!(done.replaced > 0);
        let names = |text: &str| -> Vec<String> {
            text.split("\r\n").map(|line| line.split([':', '?']).next().unwrap().to_owned()).collect()
        };
        prop_assert_eq!(names(&out), names(&head));
    }
}
