//! Enters: heads. Leaves: proof that fields are compared as what they are, and those of the moment are not.

use super::{answer, compare, explained, rule, told};
use crate::pipeline::compare::{Action, CompareRules, Place};

fn told_of(rules: &CompareRules, live: &str, other: &str) -> String {
    told(&compare(rules, &answer(200, live, b""), &answer(200, other, b"")))
}

#[test]
fn fields_are_compared_by_name() {
    let cases = [
        ("ETag: \"1\"", "etag: \"1\"", ""),
        ("etag: \"1\"", "etag: \"2\"", "header header:etag \"1\" \"2\""),
        ("a: 1\nb: 2", "b: 2\na: 1", ""),
        ("a: 1", "", "header header:a 1 -"),
        ("", "a: 1", "header header:a - 1"),
        ("a: 1\na: 2", "a: 1, 2", ""),
        ("a: 1\na: 2", "a: 2\na: 1", "header header:a 1, 2 2, 1"),
        ("vary: a\nvary: b", "vary: B, A", ""),
        ("vary: Accept-Encoding", "", ""),
        ("vary: accept-encoding, a", "vary: A", ""),
        ("vary: a", "vary: a, b", "header header:vary a a, b"),
        ("content-type: text/html; charset=UTF-8", "content-type: text/html;charset=utf-8", ""),
        (
            "content-type: text/html",
            "content-type: text/css",
            "header header:content-type text/html text/css",
        ),
        ("date: a\nage: 1\nserver: x\nx-request-id: 1\ncontent-length: 7", "x-b3-traceid: 2\nvia: y", ""),
        ("connection: x-hop, close\nx-hop: 1", "connection: close", ""),
    ];

    for (live, other, expected) in cases {
        assert_eq!(told_of(&CompareRules::default(), live, other), expected, "{live:?} against {other:?}");
    }
}

#[test]
fn cookies_are_compared_by_name() {
    let cases = [
        ("set-cookie: a=1; Path=/\nset-cookie: b=2", "set-cookie: b=2\nset-cookie: a=1; path=/", ""),
        ("set-cookie: a=1", "set-cookie: a=2", "header header:set-cookie:a 1 2"),
        ("set-cookie: a=1", "", "header header:set-cookie:a 1 -"),
        ("set-cookie: a=1; HttpOnly", "set-cookie: a=1", "header header:set-cookie:a;httponly  -"),
        ("set-cookie: a=1; SameSite=Lax", "set-cookie: a=1; SameSite=lax", ""),
        (
            "set-cookie: a=1; Max-Age=60",
            "set-cookie: a=1; Max-Age=61",
            "header header:set-cookie:a;max-age 60 61",
        ),
        (
            "set-cookie: a=1; Expires=Sat, 21 Nov 2026 10:00:00 GMT",
            "set-cookie: a=1; Expires=Sat, 21-Nov-2026 10:00:01 GMT",
            "",
        ),
        (
            "date: Sat, 21 Nov 2026 09:00:00 GMT\nset-cookie: a=1; Expires=Sat, 21 Nov 2026 10:00:00 GMT",
            "date: Sat, 21 Nov 2026 09:01:00 GMT\nset-cookie: a=1; Expires=Sat, 21 Nov 2026 10:01:01 GMT",
            "",
        ),
        (
            "date: Sat, 21 Nov 2026 09:00:00 GMT\nset-cookie: a=1; Expires=Sat, 21 Nov 2026 10:00:00 GMT",
            "date: Sat, 21 Nov 2026 09:00:00 GMT\nset-cookie: a=1; Expires=Sat, 21 Nov 2026 09:01:00 GMT",
            "header header:set-cookie:a;expires Sat, 21 Nov 2026 10:00:00 GMT Sat, 21 Nov 2026 09:01:00 GMT",
        ),
        (
            "date: Sat, 21 Nov 2026 09:00:00 GMT\nset-cookie: a; Max-Age=9; Expires=Sat, 21 Nov 2026 10:00:00 GMT",
            "date: Sat, 21 Nov 2026 09:00:00 GMT\nset-cookie: a; Max-Age=9; Expires=Sat, 21 Nov 2026 09:00:09 GMT",
            "",
        ),
        (
            "set-cookie: a=1; Expires=Sat, 21 Nov 2026 10:00:00 GMT",
            "set-cookie: a=1",
            "header header:set-cookie:a;expires Sat, 21 Nov 2026 10:00:00 GMT -",
        ),
        (
            "set-cookie: s123456=1",
            "set-cookie: s654321=1",
            "header header:set-cookie:{} 1 -; header header:set-cookie:{} - 1",
        ),
    ];

    for (live, other, expected) in cases {
        assert_eq!(told_of(&CompareRules::default(), live, other), expected, "{live:?} against {other:?}");
    }
}

#[test]
fn answers_that_are_fresh_as_long_do_not_differ() {
    let cases = [
        (
            "date: Sat, 21 Nov 2026 09:00:00 GMT\nexpires: Sat, 21 Nov 2026 10:00:00 GMT",
            "date: Sat, 21 Nov 2026 09:00:31 GMT\nexpires: Sat, 21 Nov 2026 10:00:30 GMT",
            "",
        ),
        (
            "date: Sat, 21 Nov 2026 09:00:00 GMT\nexpires: Sat, 21 Nov 2026 10:00:00 GMT",
            "date: Sat, 21 Nov 2026 09:00:00 GMT\nexpires: Sat, 21 Nov 2026 09:01:00 GMT",
            "header header:expires Sat, 21 Nov 2026 10:00:00 GMT Sat, 21 Nov 2026 09:01:00 GMT",
        ),
        ("expires: 0", "expires: -1", ""),
        ("expires: 0", "etag: 1", "header header:expires 0 -; header header:etag - 1"),
        (
            "cache-control: Max-Age=9\nexpires: 0",
            "cache-control: max-age=9\nexpires: Sat, 21 Nov 2026 09:01:00 GMT",
            "",
        ),
        (
            "cache-control: s-maxage=9\nexpires: 0",
            "cache-control: s-maxage=9\nexpires: Sat, 21 Nov 2026 09:01:00 GMT",
            "header header:expires 0 Sat, 21 Nov 2026 09:01:00 GMT",
        ),
    ];

    for (live, other, expected) in cases {
        assert_eq!(told_of(&CompareRules::default(), live, other), expected, "{live:?} against {other:?}");
    }
}

#[test]
fn fields_are_ignored_on_request() {
    let rules = CompareRules {
        ignored_headers: vec!["ETag".to_owned(), "x-debug-*".to_owned()],
        ..CompareRules::default()
    };

    assert_eq!(told_of(&rules, "etag: 1\nx-debug-a: 1", "etag: 2\nx-debug-b: 2"), "");
}

#[test]
fn rules_explain_fields_and_cookies() {
    let rules = CompareRules {
        rules: vec![
            rule(Place::Header("Last-Modified".to_owned()), Action::Timestamp),
            rule(Place::Header("set-cookie:sid".to_owned()), Action::Ignore),
            rule(Place::Header("set-cookie".to_owned()), Action::Uuid),
            rule(
                Place::Header("location".to_owned()),
                Action::Replace { pattern: "^https?://[^/]+".to_owned(), with: String::new() },
            ),
        ],
        ..CompareRules::default()
    };
    let live = "last-modified: Sat, 21 Nov 2026 10:00:00 GMT\nset-cookie: sid=1; Secure\n\
                set-cookie: t=6ba7b810-9dad-11d1-80b4-00c04fd430c8\nlocation: http://a/x";
    let other = "last-modified: Sat, 21 Nov 2026 10:00:07 GMT\nset-cookie: sid=2\n\
                 set-cookie: t=00000000-9dad-11d1-80b4-00c04fd430c8\nlocation: http://b/x";

    let compared = compare(&rules, &answer(200, live, b""), &answer(200, other, b""));

    assert_eq!(told(&compared), "header header:set-cookie:sid;secure  -");
    assert_eq!(
        explained(&compared),
        "0 header:last-modified; 3 header:location; 1 header:set-cookie:sid; 2 header:set-cookie:t"
    );
}
