//! Enters: requests with a key of every kind, and with odd ones. Leaves: whose key was found to be whose.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use super::*;

/// Two heads have the same key where both are in or out of all of many samples; `None` where there is none.
fn print(by: &SampleBy, lines: &str) -> Option<u64> {
    let raw = format!("GET {lines}\r\n\r\n");
    let flow = flow_of("192.0.2.1:40000");
    (0..64).try_fold(0_u64, |bits, number| {
        let policy = sampling(&format!("experiment {number}"), 50.0, by, WithoutKey::Skip);
        match decide_bytes(&policy, &flow, raw.as_bytes(), number) {
            Ok(_) => Some(bits << 1 | 1),
            Err(SkipReason::NoKey) => None,
            Err(_) => Some(bits << 1),
        }
    })
}

/// The print of a key, as it is documented.
fn expected(key: &[u8]) -> u64 {
    use std::hash::Hasher as _;
    (0..64).fold(0, |bits, number| {
        let mut hasher = siphasher::sip::SipHasher24::new_with_key(b"mirror-sample-v1");
        hasher.write(&[format!("experiment {number}\0").as_bytes(), key].concat());
        bits << 1 | u64::from(hasher.finish() >> 63 == 0)
    })
}

fn assert_keys(by: &SampleBy, cases: &[(String, Option<&str>)]) {
    for (lines, key) in cases {
        assert_eq!(print(by, lines), key.map(|key| expected(key.as_bytes())), "{by:?} {lines:?} {key:?}");
    }
}

#[test]
fn a_header_field_is_a_key() {
    let lines = |lines: &str| format!("/ HTTP/1.1\r\nhost: a\r\n{lines}");
    assert_keys(
        &SampleBy::Header("X-User".to_owned()),
        &[
            (lines("x-user: 7"), Some("7")),
            (lines("X-USER:\t7 "), Some("7")),
            (lines("x-user: 07"), Some("07")),
            (lines("x-user: a\r\nx-user: b"), Some("a,b")),
            (lines("x-user: b\r\nx-user: a"), Some("b,a")),
            (lines("x-user:"), None),
            (lines("x-user:\r\nx-user:"), Some(",")),
            (lines("x-users: 7"), None),
            (lines("accept: x-user"), None),
        ],
    );
}

#[test]
fn a_cookie_is_a_key() {
    let lines = |lines: &str| format!("/ HTTP/1.1\r\nhost: a\r\n{lines}");
    assert_keys(
        &SampleBy::Cookie("uid".to_owned()),
        &[
            (lines("cookie: uid=7"), Some("7")),
            (lines("Cookie: a=1; uid=7; b=2"), Some("7")),
            (lines("cookie: a=1;uid=7"), Some("7")),
            (lines("cookie: uid=7; uid=8"), Some("7")),
            (lines("cookie: a=1\r\ncookie: uid=7"), Some("7")),
            (lines("cookie: uid=7\r\ncookie: uid=8"), Some("7")),
            (lines("cookie: uid=\"7\""), Some("7")),
            (lines("cookie: uid=\""), Some("\"")),
            (lines("cookie: uid = 7 "), Some("7")),
            (lines("cookie: uid=7=8"), Some("7=8")),
            (lines("cookie: uid=%37"), Some("%37")),
            (lines("cookie: uid="), None),
            (lines("cookie: uid=\"\""), None),
            (lines("cookie: uid=; uid=7"), None),
            (lines("cookie: uid"), None),
            (lines("cookie: uid; uid=7"), Some("7")),
            (lines("cookie: UID=7"), None),
            (lines("cookie: xuid=7; uidx=7"), None),
            (lines("cookie: =7; ;; ="), None),
            (lines("cookie:"), None),
            (lines("set-cookie: uid=7"), None),
            (lines("x: uid=7"), None),
        ],
    );
}

#[test]
fn a_query_parameter_is_a_key() {
    let target = |target: &str| format!("{target} HTTP/1.1\r\nhost: a");
    assert_keys(
        &SampleBy::Query("uid".to_owned()),
        &[
            (target("/?uid=7"), Some("7")),
            (target("/?a&uid=7&uid=8"), Some("7")),
            (target("http://a?uid=7"), Some("7")),
            (target("/?uid=%37"), Some("%37")),
            (target("/?u%69d=7"), None),
            (target("/?uid=7;a=1"), Some("7;a=1")),
            (target("/?uid=a+b"), Some("a+b")),
            (target("/?uid=7#x"), Some("7#x")),
            (target("/?uid="), None),
            (target("/?uid"), None),
            (target("/?UID=7"), None),
            (target("/uid=7"), None),
            (target("*"), None),
        ],
    );
}

/// An Authorization line with a token of this payload.
fn bearer(payload: &str) -> String {
    let part = |part: &str| URL_SAFE_NO_PAD.encode(part);
    format!("Authorization: Bearer {}.{}.{}", part(r#"{"alg":"none"}"#), part(payload), part("signature"))
}

#[test]
fn a_claim_is_a_key() {
    let lines = |lines: &str| format!("/ HTTP/1.1\r\nhost: a\r\n{lines}");
    let payload = |payload: &str| lines(&bearer(payload));
    let sub = bearer(r#"{"sub":"7"}"#);
    let deep = format!(r#"{{"a":{}1{},"sub":"7"}}"#, "[".repeat(1000), "]".repeat(1000));
    let long = |len| format!(r#"{{"a":"{}","sub":"7"}}"#, "x".repeat(len));
    let token = |token: &str| lines(&format!("authorization: Bearer {token}"));
    let encoded = URL_SAFE_NO_PAD.encode(r#"{"sub":"7"}"#);
    assert!(!encoded.len().is_multiple_of(4), "padding makes a difference");
    assert_keys(
        &SampleBy::Jwt("sub".to_owned()),
        &[
            (lines(&sub), Some("7")),
            (lines(&sub.replace("Bearer", "bEARER ")), Some("7")),
            (lines(&sub.replace("Bearer", "Basic")), None),
            (lines(&sub.replace("Bearer ", "Bearer")), None),
            (lines(&format!("{sub}\r\n{sub}")), None),
            (payload(r#"{"sub":7}"#), Some("7")),
            (payload(r#"{"sub":7.0}"#), Some("7")),
            (payload(r#"{"sub":-7}"#), Some("-7")),
            (payload(r#"{"sub":1.5}"#), Some("1.5")),
            (payload(r#"{"sub":18446744073709551615}"#), Some("18446744073709551615")),
            (payload(r#"{"sub":true}"#), Some("true")),
            (payload(r#"{"sub":"\u0037\u00e4"}"#), Some("7\u{e4}")),
            (payload(r#"{"sub":"6","sub":"7"}"#), Some("7")),
            (payload(r#" { "a" : {"sub":"6"} , "sub" : "7" } "#), Some("7")),
            (payload(r#"{"sub":""}"#), None),
            (payload(r#"{"sub":null}"#), None),
            (payload(r#"{"sub":["7"]}"#), None),
            (payload(r#"{"sub":{"sub":"7"}}"#), None),
            (payload(r#"{"Sub":"7"}"#), None),
            (payload(r#"["sub","7"]"#), None),
            (payload(r#"{"sub":"7""#), None),
            (payload(r#"{"sub":"7"}x"#), None),
            (payload(""), None),
            (payload(&deep), None),
            (payload(&long(12_000)), Some("7")),
            (payload(&long(13_000)), None),
            (token(&format!("a.{encoded}.b")), Some("7")),
            (token(&format!("a.{encoded}.")), Some("7")),
            (token(&format!("a.{encoded}=.b")), Some("7")),
            (token(&format!("a.{encoded}")), None),
            (token(&format!("a.{encoded}.b.c")), None),
            (token(&format!("a.{encoded}.b.c.d")), None),
            (token(&encoded), None),
            (token("a.%%%.b"), None),
            (token("a.e30.b"), None),
            (token(".."), None),
            (token(""), None),
            (lines("authorization: Bearer"), None),
            (lines("authorization:"), None),
            (lines("x: y"), None),
        ],
    );
}

#[test]
fn requests_without_a_key_can_be_drawn_for_themselves() {
    for by in [
        SampleBy::Header("uid".to_owned()),
        SampleBy::Cookie("uid".to_owned()),
        SampleBy::Query("uid".to_owned()),
        SampleBy::Jwt("uid".to_owned()),
    ] {
        let policy = sampling("a", 50.0, &by, WithoutKey::Draw);
        let is_taken = |draw: &u64| decide(&policy, "GET / HTTP/1.1", mix(*draw)).is_ok();
        let taken = (0..1000).filter(is_taken).count();
        assert!((420..580).contains(&taken), "{by:?}: {taken}");
        let whole = sampling("a", 100.0, &by, WithoutKey::Draw);
        assert!(decide(&whole, "GET / HTTP/1.1", 1).is_ok());
        let skipping = sampling("a", 100.0, &by, WithoutKey::Skip);
        assert_eq!(decide(&skipping, "GET / HTTP/1.1", 1), Err(SkipReason::NoKey));
    }
}

#[test]
fn a_client_is_its_address_and_a_connection_its_port_too() {
    let of = |by: &SampleBy, client: &str| {
        let flow = flow_of(client);
        (0..64).fold(0_u64, |bits, number| {
            let policy = sampling(&format!("experiment {number}"), 50.0, by, WithoutKey::Skip);
            let taken = decide_bytes(&policy, &flow, b"GET / HTTP/1.1\r\n\r\n", number).is_ok();
            bits << 1 | u64::from(taken)
        })
    };
    let client = |addr| of(&SampleBy::Client, addr);
    assert_eq!(client("192.0.2.1:1"), client("192.0.2.1:2"));
    assert_eq!(client("192.0.2.1:1"), client("[::ffff:192.0.2.1]:1"));
    assert_eq!(client("192.0.2.1:1"), expected(b"\0\0\0\0\0\0\0\0\0\0\xff\xff\xc0\0\x02\x01"));
    assert_ne!(client("192.0.2.1:1"), client("192.0.2.2:1"));
    assert_ne!(client("[2001:db8::1]:1"), client("[2001:db8::2]:1"));
    let connection = |addr| of(&SampleBy::Connection, addr);
    assert_eq!(connection("192.0.2.1:1"), connection("192.0.2.1:1"));
    assert_ne!(connection("192.0.2.1:1"), connection("192.0.2.1:2"));
    assert_ne!(connection("[2001:db8::1]:1"), connection("[2001:db8::2]:1"));
}

#[test]
fn the_kernel_program_decides_about_a_connection_as_the_agent_does() {
    let policy = sampling("orders", 30.0, &SampleBy::Connection, WithoutKey::Skip);
    for port in 0..2000 {
        let flow = flow_of(&format!("192.0.2.1:{port}"));
        let draw = mirror_common::sample::connection_draw(
            connection_key("orders"),
            flow.client.addr.octets(),
            flow.client.port,
        );
        let expected = mirror_common::sample::is_in_share(draw, 300_000);
        assert_eq!(decide_bytes(&policy, &flow, b"GET / HTTP/1.1\r\n\r\n", 1).is_ok(), expected, "{port}");
    }
}
