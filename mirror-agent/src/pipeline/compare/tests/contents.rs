//! Enters: contents of every type. Leaves: proof that each is compared as what it is.

use std::io::Write as _;

use flate2::{Compression, write::GzEncoder};

use super::{answer, compare, json, told, try_compare};
use crate::pipeline::{
    compare::{CompareRules, FieldPair},
    reason::IncomparableReason,
};

fn told_as(content_type: &str, live: &str, other: &str) -> String {
    let lines = if content_type.is_empty() { String::new() } else { format!("content-type: {content_type}") };
    let of = |content: &str| answer(200, &lines, content.as_bytes());
    told(&compare(&CompareRules::default(), &of(live), &of(other)))
}

#[test]
fn status_that_differs_is_the_only_divergence() {
    let compared = compare(
        &CompareRules { fields: vec!["$.a".to_owned()], ..CompareRules::default() },
        &json("{\"a\":1}"),
        &answer(404, "content-encoding: nonsense\nx: y", b"not found"),
    );

    assert_eq!(told(&compared), "status status 200 404");
    assert_eq!(compared.fields, []);
}

#[test]
fn lines_of_what_should_have_been_json_are_told_as_such() {
    for (content_type, place) in [
        ("application/json", "malformed line 2"),
        ("application/x-ndjson", "malformed line 2"),
        ("text/plain", "text line 2"),
        ("", "text line 2"),
    ] {
        let lines =
            if content_type.is_empty() { String::new() } else { format!("content-type: {content_type}") };
        let of = |content: &str| answer(200, &lines, content.as_bytes());
        let compared = compare(&CompareRules::default(), &of("{\n\"a\": 1,\n}"), &of("{\n\"a\": 2,\n}"));
        let places: Vec<_> = compared.divergences.iter().map(|told| told.place.as_str()).collect();
        assert_eq!(places, [place], "{content_type}");
    }
}

#[test]
fn contents_are_compared_by_their_type() {
    let cases = [
        ("application/json", "{\"a\":1}", "{ \"a\" : 1 }", ""),
        ("application/problem+json; charset=utf-8", "{\"a\":1}", "{\"a\":2}", "value $.a 1 2"),
        ("application/json", "{\"a\":1}", "{\"a\":", "type body json text"),
        ("application/json", "{\"a\":1}", "", "missing body 7 bytes -"),
        ("application/json", " ", "{\"a\":1}", "extra body - 7 bytes"),
        ("application/json", "", " \n", ""),
        ("", "{\"a\":1}", "{\"a\":2}", "value $.a 1 2"),
        ("text/plain", "[1,2]", "[1,3]", "value $[] 2 3"),
        ("text/html", "{\"a\":1}", "<p>", "type body json text"),
        ("application/x-ndjson", "{\"a\":1}\n{\"a\":2}\n", "{\"a\":1.0}\n{\"a\":3}\n", "value $.a 2 3"),
        ("application/jsonl", "1\n2\n3", "1\n3", "missing $ 2 -; length body 3 2"),
        ("application/x-ndjson", "[1]\n[2]\n[3]", "[2]\n[1]\n[3]", "order body [1 elements] [1 elements]"),
        ("application/x-www-form-urlencoded", "a=1&b=x+y", "b=x%20y&a=1", ""),
        (
            "application/x-www-form-urlencoded",
            "a=1&b=2",
            "a=2&c=3",
            "value form:a 1 2; missing form:b 2 -; extra form:c - 3",
        ),
        ("application/x-www-form-urlencoded", "a=1&a=2", "a=1", "missing form:a 2 -"),
        ("text/html", "a\nb\nc", "a\nx\nc", "value text b x"),
        ("text/html", "a\nb\nc", "a\nb\nb2\nc", "length text 3 4"),
        ("text/html", "a\nb\nc", "a\nx", "value text b x; length text 3 2"),
        ("application/xml", "<a/>", "<b/>", "value text <a/> <b/>"),
        ("image/svg+xml", "<a/>", "<b/>", "value text <a/> <b/>"),
        ("image/png", "abc", "abcd", "length body 3 4"),
        ("image/png", "{\"a\":1}", "{\"a\": 1}", "length body 7 8"),
        ("multipart/mixed; boundary=x1", "--x1\na", "--x1\na", ""),
        ("something/else", "a", "b", "value text a b"),
        ("application/x-ndjson", "1\nx", "1\ny", "value text x y"),
    ];

    for (content_type, live, other, expected) in cases {
        assert_eq!(
            told_as(content_type, live, other),
            expected,
            "{content_type}: {live:?} against {other:?}"
        );
    }
}

#[test]
fn binary_content_is_told_by_its_hash() {
    let told = told_as("application/pdf", "abc", "abd");

    assert!(told.starts_with("value body sha256:ba7816bf"), "{told}");
}

#[test]
fn boundary_of_a_multipart_content_does_not_count() {
    let of = |boundary: &str, part: &str| {
        let content = format!("--{boundary}\r\n\r\n{part}\r\n--{boundary}--");
        answer(200, &format!("content-type: multipart/mixed; boundary=\"{boundary}\""), content.as_bytes())
    };
    let rules = CompareRules::default();

    assert_eq!(told(&compare(&rules, &of("one", "same"), &of("another", "same"))), "");
    let told = told(&compare(&rules, &of("one", "same"), &of("another", "other")));
    assert!(told.starts_with("length body "), "{told}");
}

#[test]
fn gzip_against_plain_is_no_difference() {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(b"{\"a\":1}").unwrap();
    let coded = encoder.finish().unwrap();
    let lines = "content-type: application/json\ncontent-encoding: gzip\ncontent-length: 27";

    let compared = compare(&CompareRules::default(), &answer(200, lines, &coded), &json("{\"a\":1}"));

    assert_eq!(compared, super::Compared::default());
}

#[test]
fn content_that_cannot_be_had_is_a_reason() {
    let rules = CompareRules { content_bytes: 10, ..CompareRules::default() };
    let plain = answer(200, "", b"0123456789");
    let try_both = |answer: &super::Answer| {
        assert_eq!(try_compare(&rules, &plain, answer), try_compare(&rules, answer, &plain));
        try_compare(&rules, &plain, answer).unwrap_err()
    };

    assert_eq!(try_both(&answer(200, "", b"01234567890")), IncomparableReason::TooLarge);
    assert_eq!(try_both(&answer(200, "content-encoding: x", b"0")), IncomparableReason::Coding);
    assert!(try_compare(&rules, &plain, &plain).is_ok());
}

#[test]
fn content_that_is_not_what_its_coding_says_is_a_difference_where_lives_can_be_decoded() {
    let rules = CompareRules::default();
    let plain = answer(200, "content-type: text/plain", b"0123456789");
    let broken = |codings: &str| answer(200, &format!("content-encoding: {codings}"), b"0123456789");

    assert_eq!(told(&compare(&rules, &plain, &broken("gzip"))), "type body text broken gzip");
    assert_eq!(try_compare(&rules, &broken("gzip"), &plain).unwrap_err(), IncomparableReason::Coding);
    assert_eq!(try_compare(&rules, &plain, &broken("gzip, x")).unwrap_err(), IncomparableReason::Coding);
    // A part of what was coded as a whole.
    let part = |lines| answer(206, lines, b"0123456789");
    let of_part = try_compare(&rules, &part(""), &part("content-encoding: gzip"));
    assert_eq!(of_part.unwrap_err(), IncomparableReason::Coding);
}

#[test]
fn answers_without_content_have_none() {
    let lines = "content-encoding: gzip\ncontent-type: application/json";
    for status in [204, 304] {
        let compared =
            compare(&CompareRules::default(), &answer(status, lines, b""), &answer(status, lines, b"junk"));
        assert_eq!(told(&compared), "", "{status}");
    }
}

#[test]
fn fields_are_taken_from_both_sides() {
    let rules = CompareRules {
        fields: vec!["$.total".to_owned(), "$.items[*].price".to_owned()],
        ..CompareRules::default()
    };
    let pair = |field, live, other| FieldPair { field, live, other };

    let compared = compare(
        &rules,
        &json("{\"total\":\"12.5\",\"items\":[{\"price\":1},{\"price\":2e1}]}"),
        &json("{\"total\":12.25,\"items\":[{\"price\":1}]}"),
    );
    let same = compare(&rules, &json("{\"total\":7}"), &json("{\"total\":7}"));

    assert_eq!(
        compared.fields,
        [pair(0, Some(12.5), Some(12.25)), pair(1, Some(1.0), Some(1.0)), pair(1, Some(20.0), None)]
    );
    assert_eq!(same.fields, [pair(0, Some(7.0), Some(7.0))]);
}

#[test]
fn fields_are_taken_from_each_line() {
    let rules = CompareRules { fields: vec!["$.n".to_owned()], ..CompareRules::default() };
    let lines = answer(200, "content-type: application/x-ndjson", b"{\"n\":1}\n{\"n\":2}\n");

    let numbers: Vec<_> = compare(&rules, &lines, &lines).fields.iter().map(|pair| pair.live).collect();

    assert_eq!(numbers, [Some(1.0), Some(2.0)]);
}
