//! Enters: pairs of answers, and requests that bear live's values. Leaves: requests with the target's.

use std::{sync::Arc, time::Duration};

use super::{super::*, answer, comparing, cookie};
use crate::{
    io::{
        config::{SessionConfig, SessionSource, SessionUse},
        replay::{clock, tests::request},
    },
    pipeline::Answered,
};

fn learn(sessions: &Sessions, live: &Answered, target: &Answered) {
    let (Answered::Whole(live), Answered::Whole(target)) = (live, target) else { panic!() };
    sessions.learn(live, target, clock::now());
}

fn copy(sessions: &Sessions, head: &str) -> Option<String> {
    let mut out = Vec::new();
    sessions.substitute(&mut out, head.as_bytes(), clock::now()).then(|| String::from_utf8(out).unwrap())
}

fn gauges(sessions: &Sessions) -> (u64, u64, u64) {
    let SessionGauges { values, substitutions, unknown } = sessions.gauges(clock::now());
    (values, substitutions, unknown)
}

#[test]
fn session_is_known_once_both_have_answered_whoever_is_first() {
    for live_is_first in [true, false] {
        let shared = Shared::default();
        let comparing = comparing(None, &[&[cookie("sid")]], &shared);
        let sessions = comparing.targets[0].sessions.clone().unwrap();
        let open = OpenExchange::open(&comparing, 0, &request(b"x", 1)).unwrap();
        let part = open.part(0);
        let head = "GET / HTTP/1.1\r\nCookie: a=b; sid=live; c=d\r\n\r\n";
        assert_eq!(copy(&sessions, head), None);
        let of = |value: &str| answer(&format!("set-cookie: sid={value}; path=/\r\n"), "");
        if live_is_first {
            open.live_answered(of("live"));
            part.answered(of("shadow"), shared.budget.charge());
        } else {
            part.answered(of("shadow"), shared.budget.charge());
            assert_eq!(copy(&sessions, head), None);
            open.live_answered(of("live"));
        }
        let expected = head.replace("sid=live", "sid=shadow");
        assert_eq!(copy(&sessions, head).as_deref(), Some(&*expected), "before the exchange is over");
        let unknown = if live_is_first { 1 } else { 2 };
        assert_eq!(gauges(&sessions), (1, 1, unknown));
    }
}

#[test]
fn answers_that_are_not_there_or_have_no_value_teach_nothing() {
    let config = SessionConfig {
        from: SessionSource::Json("$.token".to_owned()),
        into: vec![SessionUse::Header("authorization".to_owned())],
        ..cookie("sid")
    };
    let sessions = Sessions::new(&[config]).unwrap().unwrap();
    for (live, target) in [("{}", r#"{"token":"t"}"#), (r#"{"token":"t"}"#, "[]"), ("", "")] {
        learn(&sessions, &answer("", live), &answer("", target));
    }
    assert_eq!(gauges(&sessions).0, 0);
    learn(&sessions, &answer("", r#"{"token":"live-token"}"#), &answer("", r#"{"token":"other"}"#));
    let head = "GET / HTTP/1.1\r\nauthorization: Bearer live-token\r\n\r\n";
    assert_eq!(copy(&sessions, head).unwrap(), head.replace("live-token", "other"));
}

#[test]
fn what_a_target_answers_never_becomes_a_line_or_a_cookie_of_its_own() {
    let config = SessionConfig {
        from: SessionSource::Json("$.token".to_owned()),
        into: ["header", "cookie", "query"]
            .map(|kind| match kind {
                "header" => SessionUse::Header("x-token".to_owned()),
                "cookie" => SessionUse::Cookie("sid".to_owned()),
                _ => SessionUse::Query("token".to_owned()),
            })
            .to_vec(),
        ..cookie("sid")
    };
    let head = "GET /?token=live-token&a HTTP/1.1\r\nx-token: live-token\r\ncookie: sid=live-token\r\n\r\n";
    for (value, expected) in [
        ("a\\r\\nx-evil: 1", None),
        ("a\\nb", None),
        ("a\\u0000b", None),
        ("a b", None),
        (
            "a;b=c&d#e",
            Some(
                "GET /?token=a%3Bb%3Dc%26d%23e&a HTTP/1.1\r\nx-token: a;b=c&d#e\r\ncookie: sid=live-token\r\n\r\n",
            ),
        ),
    ] {
        let sessions = Sessions::new(std::slice::from_ref(&config)).unwrap().unwrap();
        let of = |value: &str| answer("", &format!("{{\"token\":\"{value}\"}}"));
        learn(&sessions, &of("live-token"), &of(value));
        assert_eq!(copy(&sessions, head).as_deref(), expected, "{value}");
    }
}

#[test]
fn no_more_values_are_known_than_the_limit_says() {
    let sessions = Sessions::new(&[SessionConfig { max: 10, ..cookie("sid") }]).unwrap().unwrap();
    for number in 0..1000 {
        let of = |side: &str| answer(&format!("set-cookie: sid={side}{number}\r\n"), "");
        learn(&sessions, &of("live"), &of("shadow"));
    }
    assert_eq!(gauges(&sessions).0, 10);
    assert!(copy(&sessions, "GET / HTTP/1.1\r\ncookie: sid=live999\r\n\r\n").unwrap().contains("shadow999"));
    assert_eq!(copy(&sessions, "GET / HTTP/1.1\r\ncookie: sid=live989\r\n\r\n"), None);
    let short = SessionConfig { ttl: Duration::ZERO, ..cookie("sid") };
    let sessions: Arc<Sessions> = Sessions::new(&[short]).unwrap().unwrap();
    learn(&sessions, &answer("set-cookie: sid=a\r\n", ""), &answer("set-cookie: sid=b\r\n", ""));
    assert_eq!(gauges(&sessions).0, 0);
}
