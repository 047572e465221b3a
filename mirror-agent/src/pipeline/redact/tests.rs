//! Enters: messages and divergences with secrets. Leaves: whether any of them is to be seen.

use std::sync::Arc;

use bytes::Bytes;

use super::{LeftReason, RedactRules, RedactedContent, Redactor};
use crate::pipeline::{compare::Divergence, reason::DivergenceKind};

fn redactor() -> Redactor {
    let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    let rules = RedactRules {
        headers: texts(&["X-Customer"]),
        keys: texts(&["iban"]),
        paths: texts(&["$.user.name", "$.rows[*].note"]),
        patterns: texts(&["MARK[0-9a-f]+"]),
    };
    Redactor::new(&rules, [1, 2]).unwrap()
}

/// The content of this type, redacted.
fn content(kind: &str, content: &str) -> RedactedContent {
    redactor().content(Some(kind.as_bytes()), b"", &Bytes::copy_from_slice(content.as_bytes()), 10_000)
}

fn text(kind: &str, text: &str) -> String {
    let RedactedContent::Text { text, is_cut: false } = content(kind, text) else {
        panic!("{text} is not kept")
    };
    text
}

fn stamp(secret: &str) -> String {
    redactor().stamp(secret.as_bytes())
}

#[test]
fn credentials_and_cookies_of_a_head_are_stamped_and_what_is_around_them_stays() {
    let head = b"GET /a?user=bo&access%5Ftoken=s%33cret&q=MARK01 HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer abc.def\r\n\
                 Proxy-Authorization: opaque\r\nCookie: sid=s3cret; theme=dark\r\nX-Customer: bob\r\n\
                 Referer: https://u:pw@a/b?token=s3cret#x\r\nX-Note: password=s3cret; MARKff\r\nAccept: */*\r\n\r\n";

    let message = redactor().message(head, &Bytes::new(), 100);

    let secret = stamp("s3cret");
    let line = format!("GET /a?user=bo&access%5Ftoken={secret}&q={} HTTP/1.1", stamp("MARK01"));
    assert_eq!(message.line, line);
    let fields: Vec<_> = message.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
    assert_eq!(
        fields,
        [
            "Host: a".to_owned(),
            format!("Authorization: Bearer {}", stamp("abc.def")),
            format!("Proxy-Authorization: {}", stamp("opaque")),
            format!("Cookie: sid={secret}; theme={}", stamp("dark")),
            format!("X-Customer: {}", stamp("bob")),
            format!("Referer: https:{}a/b?token={secret}#x", stamp("//u:pw@")),
            format!("X-Note: password={secret}; {}", stamp("MARKff")),
            "Accept: */*".to_owned(),
        ]
    );
    assert_eq!(message.content, RedactedContent::Empty);
}

#[test]
fn a_cookie_that_is_set_keeps_its_name_and_its_attributes() {
    let head = b"HTTP/1.1 200 OK\r\nset-cookie: sid=s3cret; Path=/; HttpOnly\r\n\r\n";
    let message = redactor().message(head, &Bytes::new(), 100);
    assert_eq!(message.line, "HTTP/1.1 200 OK");
    assert_eq!(message.headers[0].1, format!("sid={}; Path=/; HttpOnly", stamp("s3cret")));
}

#[test]
fn json_loses_its_secrets_and_nothing_else() {
    for (json, expected) in [
        (
            r#"{"total": 1.10, "n": 12345678901234567890, "e": -1E+5}"#,
            r#"{"total":1.10,"n":12345678901234567890,"e":-1E+5}"#.to_owned(),
        ),
        (r#"{"password":"s3cret"}"#, format!(r#"{{"password":"{}"}}"#, stamp("s3cret"))),
        (r#"{"password":"s3\u0063ret"}"#, format!(r#"{{"password":"{}"}}"#, stamp("s3cret"))),
        (r#"{"pass\u0077ord":"s3cret"}"#, format!(r#"{{"password":"{}"}}"#, stamp("s3cret"))),
        (
            r#"{"card":{"no":[1,{"a":"}"}]},"id":7}"#,
            format!(r#"{{"card":"{}","id":7}}"#, stamp(r#"{"no":[1,{"a":"}"}]}"#)),
        ),
        (r#"{"pin":1234}"#, format!(r#"{{"pin":"{}"}}"#, stamp("1234"))),
        (r#"{"user":{"name":"Bo","age":3}}"#, format!(r#"{{"user":{{"name":"{}","age":3}}}}"#, stamp("Bo"))),
        (
            r#"{"rows":[{"note":"x"},{"note":null}]}"#,
            format!(r#"{{"rows":[{{"note":"{}"}},{{"note":"{}"}}]}}"#, stamp("x"), stamp("null")),
        ),
        (r#"["a MARK0f b","M\u0041RK0f"]"#, format!(r#"["a {0} b","{0}"]"#, stamp("MARK0f"))),
        (r#"{"MARK01":1}"#, format!(r#"{{"{}":1}}"#, stamp("MARK01"))),
        (
            r#"{"raw":"{\"password\":\"s3cret\"}"}"#,
            format!(r#"{{"raw":"{{\"password\":\"{}\"}}"}}"#, stamp("s3cret")),
        ),
        (r#"{"raw":"token=s3cret&a=b"}"#, format!(r#"{{"raw":"token={}&a=b"}}"#, stamp("s3cret"))),
        (r#"{"a":1,"a":2}"#, r#"{"a":1,"a":2}"#.to_owned()),
        ("[]", "[]".to_owned()),
        (" {} ", "{}".to_owned()),
    ] {
        assert_eq!(text("application/json; charset=utf-8", json), expected);
        assert_eq!(text("application/problem+json", json), expected);
    }
    let lines = text("application/x-ndjson", "{\"pin\":1}\n\n{\"a\":2}\n");
    assert_eq!(lines, format!("{{\"pin\":\"{}\"}}\n{{\"a\":2}}\n", stamp("1")));
}

#[test]
fn what_is_not_what_it_says_is_kept_as_length_and_hash() {
    for (kind, given, expected) in [
        ("application/json", "{\"password\":\"s3cret\"", LeftReason::Malformed),
        ("application/json", "{'password':'s3cret'}", LeftReason::Malformed),
        ("application/json", "{\"a\":01}", LeftReason::Malformed),
        ("application/json", "{\"a\":1,}", LeftReason::Malformed),
        ("application/json", "{\"a\":\"\\ud800\"}", LeftReason::Malformed),
        ("application/json", &"[".repeat(1000), LeftReason::Malformed),
        ("application/octet-stream", "password=s3cret", LeftReason::Binary),
        ("multipart/form-data; boundary=x", "--x password s3cret", LeftReason::Binary),
        ("image/png", "s3cret", LeftReason::Binary),
    ] {
        let RedactedContent::Left { bytes, hash, reason } = content(kind, given) else {
            panic!("{kind}: {given}")
        };
        assert_eq!((bytes, hash.len(), reason), (given.len(), 16, expected), "{kind}: {given}");
    }
    let left = redactor().content(Some(b"text/plain"), b"", &Bytes::from_static(b"\xff\xfe"), 100);
    assert!(matches!(left, RedactedContent::Left { reason: LeftReason::Malformed, .. }), "{left:?}");
    let coded = redactor().content(Some(b"text/plain"), b"gzip", &Bytes::from_static(b"s3cret"), 100);
    assert!(matches!(coded, RedactedContent::Left { reason: LeftReason::Coding, .. }), "{coded:?}");
}

#[test]
fn forms_lose_the_values_of_their_secrets() {
    let form = "user=b+o&password=s%33cret&user%5Bpin%5D=1&q=%4dARK01&json=%7B%22pin%22%3A%221%22%7D&pin=&x";
    let json = super::encode_percent(format!(r#"{{"pin":"{}"}}"#, stamp("1")).as_bytes());
    let expected = format!(
        "user=b+o&password={}&user%5Bpin%5D={}&q={}&json={json}&pin=&x",
        stamp("s3cret"),
        stamp("1"),
        stamp("MARK01")
    );
    assert_eq!(text("application/x-www-form-urlencoded", form), expected);
}

#[test]
fn text_loses_what_is_named_and_what_looks_like_a_secret() {
    for (given, expected) in [
        ("all is well", "all is well".to_owned()),
        ("password=s3cret rest", format!("password={} rest", stamp("s3cret"))),
        ("api-key: s3cret\nrest", format!("api-key: {}\nrest", stamp("s3cret"))),
        ("<password>s3cret</password>", format!("<password>{}</password>", stamp("s3cret"))),
        ("<pin>1</pin> of <b>you</b>", format!("<pin>{}</pin> of <b>you</b>", stamp("1"))),
        (
            "<a><w:Password Type=\"x#y\">s3cret</w:Password>\n<b>c</b></a>",
            format!(
                "<a><w:Password Type=\"{}\">{}</w:Password>\n<b>c</b></a>",
                stamp("x#y"),
                stamp("s3cret")
            ),
        ),
        ("<pin><![CDATA[s3>cret]]></pin><a/>", format!("<pin>{}</pin><a/>", stamp("<![CDATA[s3>cret]]>"))),
        (
            "<token><value>s3cret</value></token><a>b</a>",
            format!("<token>{}</token><a>b</a>", stamp("<value>s3cret</value>")),
        ),
        ("<token value='s3cret'/><a>b</a>", format!("<token value='{}'/><a>b</a>", stamp("s3cret"))),
        ("<token></token><pin/>b", "<token></token><pin/>b".to_owned()),
        ("<password>s3cret", format!("<password>{}", stamp("s3cret"))),
        ("is 1 <pin or not", "is 1 <pin or not".to_owned()),
        (
            "call({\"token\": [\"s3cret\", {\"a\": 1}], \"b\": 2})",
            format!("call({{\"token\": {}, \"b\": 2}})", stamp("[\"s3cret\", {\"a\": 1}]")),
        ),
        ("call({\"card\": {\"no\": \"41", format!("call({{\"card\": {}", stamp("{\"no\": \"41"))),
        ("{'token': 's3 cret', 'a': 1}", format!("{{'token': '{}', 'a': 1}}", stamp("s3 cret"))),
        ("\\\"token\\\": \\\"s3cret\\\"", format!("\\\"token\\\": \\\"{}\\\"", stamp("s3cret"))),
        (
            "x {\"pin\":\"a\\\"b\\\"c\",\"d\":1}",
            format!("x {{\"pin\":\"{}\",\"d\":1}}", stamp("a\\\"b\\\"c")),
        ),
        ("x {\"pin\":\"ab\\\\\",\"d\":1}", format!("x {{\"pin\":\"{}\",\"d\":1}}", stamp("ab\\\\"))),
        ("x \\\"pin\\\":\\\"a\\\\\\\"b\\\",d", format!("x \\\"pin\\\":\\\"{}\\\",d", stamp("a\\\\\\\"b"))),
        ("use Bearer abcdefgh12 now", format!("use {} now", stamp("Bearer abcdefgh12"))),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIi", stamp("eyJhbGciOiJIUzI1NiJ9.eyJzdWIi")),
        ("-----BEGIN PRIVATE KEY-----\nMII", stamp("-----BEGIN PRIVATE KEY-----\nMII")),
        ("the password, of which", "the password, of which".to_owned()),
        ("[{\"pin\":\"1\"}]", format!("[{{\"pin\":\"{}\"}}]", stamp("1"))),
    ] {
        assert_eq!(text("text/plain", given), expected);
    }
}

#[test]
fn compressed_content_is_redacted_and_kept_without_its_coding() {
    use std::io::Write as _;

    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(b"{\"pin\":\"1\"}").unwrap();
    let content = Bytes::from(encoder.finish().unwrap());
    let redacted = redactor().content(Some(b"application/json"), b"gzip", &content, 100);
    let text = format!("{{\"pin\":\"{}\"}}", stamp("1"));
    assert_eq!(redacted, RedactedContent::Text { text, is_cut: false });
}

#[test]
fn content_is_cut_behind_its_redaction() {
    let text = Bytes::from("é".repeat(100));
    let RedactedContent::Text { text, is_cut: true } = redactor().content(Some(b"text/plain"), b"", &text, 7)
    else {
        panic!()
    };
    assert_eq!(text, "ééé");
}

#[test]
fn equal_secrets_look_equal_and_only_with_the_same_key() {
    let rules = RedactRules::default();
    let other = Redactor::new(&rules, [1, 3]).unwrap();
    assert_eq!(stamp("a"), redactor().stamp(b"a"));
    assert_ne!(stamp("a"), stamp("b"));
    assert_ne!(stamp("a"), other.stamp(b"a"));
    assert!(super::Stamp::is(stamp("a").as_bytes()));
}

#[test]
fn divergences_are_redacted_by_their_place() {
    let long = format!("{} MARK", "x".repeat(251));
    let whole = format!("{{\"a\":\"{}", "x".repeat(251));
    for (place, value, expected) in [
        ("status", "404", "404".to_owned()),
        ("header:location", "/a?token=s3cret", format!("/a?token={}", stamp("s3cret"))),
        ("header:x-api-key", "s3cret", stamp("s3cret")),
        ("header:set-cookie", "sid=s3cret; Path=/", format!("sid={}; Path=/", stamp("s3cret"))),
        ("header:set-cookie:sid", "s3cret", stamp("s3cret")),
        ("header:set-cookie:sid;path", "/", "/".to_owned()),
        ("$.x", "{id, name}", "{id, name}".to_owned()),
        ("form:user[password]", "s3cret", stamp("s3cret")),
        ("form:user", "bo", "bo".to_owned()),
        ("$.items[3].password", "s3cret", stamp("s3cret")),
        ("$.card[0].x.y", "1", stamp("1")),
        ("$['card']", "{\"no\":1}", stamp("{\"no\":1}")),
        ("$.user.name", "Bo", stamp("Bo")),
        ("$.rows[7].note.deep", "x", stamp("x")),
        ("$.user", "{\"name\":\"Bo\",\"age\":3}", format!("{{\"name\":\"{}\",\"age\":3}}", stamp("Bo"))),
        ("$.user", "{\"name\":\"Bo", stamp("{\"name\":\"Bo")),
        ("$.items[3].price", "12.50", "12.50".to_owned()),
        ("$.items[3].text", "a MARK01", format!("a {}", stamp("MARK01"))),
        ("$.items[3].text", "\"a MARK01\"", format!("\"a {}\"", stamp("MARK01"))),
        ("body", &long, stamp(&long)),
        ("$.items", &whole, stamp(&whole)),
    ] {
        let given = Divergence {
            kind: DivergenceKind::Value,
            path: Arc::from(place),
            place: place.to_owned(),
            other_place: None,
            live: Some(value.to_owned()),
            other: None,
        };
        let redacted = redactor().divergence(&given);
        assert_eq!((redacted.live.as_deref(), redacted.other), (Some(&expected[..]), None), "{place}");
        assert_eq!((&*redacted.path, &redacted.place[..]), (place, place));
    }
    let elsewhere = Divergence {
        kind: DivergenceKind::Value,
        path: Arc::from("$.x[].below"),
        place: "$.x[1].below".to_owned(),
        other_place: Some("$.x[0].below".to_owned()),
        live: Some("shown".to_owned()),
        other: Some("12.50".to_owned()),
    };
    let by_index =
        Redactor::new(&RedactRules { paths: vec!["$.x[0]".to_owned()], ..RedactRules::default() }, [1, 2]);
    let redacted = by_index.unwrap().divergence(&elsewhere);
    assert_eq!(redacted.live.as_deref(), Some("shown"));
    assert!(redacted.other.unwrap().starts_with("redacted-"), "each value is looked at where it is");
    assert_eq!(redactor().place("$.by.MARK01.x"), format!("$.by.{}.x", stamp("MARK01")));
    assert_eq!(redactor().place_for_all("$.by.MARK01.MARK02"), "$.by.redacted.redacted");
}

/// What is shown of a value of this divergence.
fn shown(kind: DivergenceKind, place: &str, value: &str) -> String {
    let given = Divergence {
        kind,
        path: Arc::from(place),
        place: place.to_owned(),
        other_place: None,
        live: Some(value.to_owned()),
        other: None,
    };
    redactor().divergence(&given).live.unwrap()
}

#[test]
fn elements_that_changed_places_are_shown_where_no_path_leads_to_any_of_them() {
    for (place, value, expected) in [
        ("$.rows", "Bo", stamp("Bo")),
        ("$.rows", "12", stamp("12")),
        ("$.password", "Bo", stamp("Bo")),
        ("$.tags", "MARK0f", stamp("MARK0f")),
        ("$.tags", "red", "red".to_owned()),
        ("header:vary", "accept", "accept".to_owned()),
    ] {
        assert_eq!(shown(DivergenceKind::Order, place, value), expected, "{place}");
    }
}

#[test]
fn nothing_is_shown_of_a_place_that_is_not_known_to_its_end() {
    let deep = |last: &str| format!("$.{}.{last}", "deeper.".repeat(70).trim_end_matches('.'));
    let whole = deep("a");
    assert!(whole.len() < 504, "{}", whole.len());
    assert_eq!(shown(DivergenceKind::Value, &whole, "seen"), "seen");
    let long = format!("$.{}password", "deeper.".repeat(80));
    let cut = format!("{}…", &long[..509]);
    assert_eq!(shown(DivergenceKind::Value, &cut, "s3cret"), stamp("s3cret"));
    let cut = format!("form:{}…", "a".repeat(504));
    assert_eq!(shown(DivergenceKind::Value, &cut, "s3cret"), stamp("s3cret"));
}

#[test]
fn lines_are_shown_of_text_and_not_of_what_should_have_been_json_or_is_encoded() {
    let line = "    \"number\": \"4111\",";
    assert_eq!(shown(DivergenceKind::Value, "text line 3", line), line);
    assert_eq!(shown(DivergenceKind::Value, "malformed line 3", line), stamp(line));
    let line = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7";
    assert_eq!(shown(DivergenceKind::Value, "text line 3", line), stamp(line));
    assert_eq!(shown(DivergenceKind::Value, "$.image", line), line);
}

#[test]
fn rules_that_cannot_be_are_refused() {
    let path = RedactRules { paths: vec!["$.a[".to_owned()], ..RedactRules::default() };
    assert!(Redactor::new(&path, [0, 0]).unwrap_err().to_string().contains("$.a["));
    let pattern = RedactRules { patterns: vec!["(".to_owned()], ..RedactRules::default() };
    assert!(Redactor::new(&pattern, [0, 0]).is_err());
}
