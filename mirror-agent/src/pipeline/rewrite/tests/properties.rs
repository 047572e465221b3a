//! Enters: generated heads and rules. Leaves: proof that copies are what the model says, and well-formed.

use proptest::{collection::vec, option, prelude::*};

use super::{
    Given, MARKERS, Rewrite, copy_of,
    model::{Parts, expected},
};
use crate::pipeline::http::{RequestHead, Version, headers};

fn parts(head: &RequestHead<'_>) -> Parts {
    Parts {
        method: head.method.to_vec(),
        target: head.target.to_vec(),
        is_old: head.version == Version::Http10,
        fields: head.headers().map(|(name, value)| (name.to_vec(), value.to_vec())).collect(),
    }
}

fn markers() -> Vec<(Vec<u8>, Vec<u8>)> {
    let head = format!("\r\n{MARKERS}\r\n");
    headers(head.as_bytes()).map(|(name, value)| (name.to_vec(), value.to_vec())).collect()
}

/// Names that heads and rules share.
fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[abAB]{1,2}",
        1 => "[Tt]racePARENT|[Bb]3|x-[Bb]3-[Ss]ampled|x-b3-[fF]lags|tracestate",
        1 => "[-A-Za-z0-9!#$%&'*+.^_`|~]{1,70}",
    ]
}

fn edited_name() -> impl Strategy<Value = String> {
    name()
        .prop_filter("a field that is not to be edited", |name| super::super::check_header_edit(name).is_ok())
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![4 => 0x20_u8..=0x7e, 1 => 0x80_u8..=0xff, 1 => Just(b'\t'), 1 => Just(b':')];
    let hex =
        "[ \t]{0,2}(00|01|ff|0)-(0{32}|[0-9a-f]{32})-(0{16}|[0-9a-fA]{16})-0?[0-9a-f]{1,2}(-x|-)?[ \t]{0,2}";
    let b3 = "([0-9a-fA-F]{16}|[0-9a-f]{32})-[0-9a-f]{16}(-[01dx](-[0-9a-f]{15,16}){0,2})?|[01dx]|[tT]rue";
    prop_oneof![
        3 => vec(byte, 0..12),
        2 => hex.prop_map(String::into_bytes),
        2 => b3.prop_map(String::into_bytes),
    ]
}

fn field() -> impl Strategy<Value = Vec<u8>> {
    let names = prop_oneof![8 => name(), 1 => "[hH]o[sS]t", 1 => "[cC]onnection|cookie|[xX]-shadow|x-[mM]irror-(match|experiment)"];
    (names, value()).prop_map(|(name, value)| [name.as_bytes(), b":", &value, b"\r\n"].concat())
}

/// Heads that a strict decoder takes.
fn head() -> impl Strategy<Value = Vec<u8>> {
    let target = prop_oneof![
        6 => "(/[ab]{0,2}){1,4}(\\?([ab]{0,2}|%61|%6[12]b|[ab]=[ab+%&?/]{0,3}|[&=+;]){0,6})?(#[ab?/&]{0,3})?",
        3 => "[a-c]{1,2}[a+1.-]{0,2}://[a:@]{0,3}(/[ab]{0,2}){0,3}(\\?([ab]{0,2}|[&=]){0,5})?(#[ab?/&]{0,3})?",
        1 => "\\*|[ab]:1|[ab/:?#&=]{1,12}",
        1 => "[!-~\u{80}-\u{ff}]{1,20}",
    ];
    ("[A-Z]{1,7}", target, 0..=1_u8, vec(field(), 0..8)).prop_map(|(method, target, minor, fields)| {
        let line = format!("{method} {target} HTTP/1.{minor}\r\n").into_bytes();
        [line, fields.concat(), b"\r\n".to_vec()].concat()
    })
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![2 => "[ -~\u{e9}]{0,8}", 1 => "[ \t]{0,2}[a-b]{0,2}[ \t]{0,2}"]
}

fn given() -> impl Strategy<Value = Given> {
    let lines =
        (vec(edited_name(), 0..3), vec((edited_name(), text()), 0..4), vec((edited_name(), text()), 0..3));
    let paths = vec(("(/[ab]{0,2}){1,3}", "((/[ab]{0,2}){1,3})?"), 0..4);
    let query = (vec("[ab]{1,2}", 0..3), vec(("[ab]{1,2}|[ -~]{1,3}", ".{0,4}"), 0..4));
    let host = option::of("[a-c]{1,3}(:8080)?|\\[::1\\](:1)?");
    (lines, paths, query, host, any::<bool>()).prop_map(
        |((remove, set, add), prefixes, (remove_query, set_query), host, clear)| Given {
            prefixes,
            host,
            remove,
            set,
            add,
            remove_query,
            set_query,
            clear,
        },
    )
}

/// Bytes that look like a head often enough to come far.
fn garbage() -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![
        Just(b"GET /a HTTP/1.1\r\n".to_vec()),
        Just(b"GET http://a/a?a HTTP/1.1\n".to_vec()),
        Just(b"a: 1\r\n".to_vec()),
        Just(b"a: 1\n b\n".to_vec()),
        Just(b"host: 1\r".to_vec()),
        Just(b"\r\n".to_vec()),
        Just(b"traceparent: 00-".to_vec()),
        Just(b"b3:1\n".to_vec()),
        vec(any::<u8>(), 0..12),
        vec(prop_oneof![Just(b' '), Just(b':'), Just(b'/'), Just(b'?'), Just(b'\n')], 0..6),
    ];
    vec(word, 0..10).prop_map(|words| words.concat())
}

proptest! {
    #[test]
    fn copies_are_what_the_model_says(head in head(), given in given()) {
        // Two rules for one thing are refused.
        if let Ok(rewrite) = Rewrite::new(&given.rules()) {
            let live = RequestHead::parse(&head).unwrap();
            let copy = copy_of(&rewrite, &head);
            let parsed = RequestHead::parse(&copy).unwrap();
            let mut expected = expected(&given, &parts(&live));
            expected.fields.extend(markers());
            prop_assert_eq!(parts(&parsed), expected);
            prop_assert_eq!(parsed.facts.framing, live.facts.framing);
            prop_assert_eq!(parsed.facts.keep_alive, live.facts.keep_alive);
            prop_assert!(parsed.facts.has_mirror_id);
        }
    }

    #[test]
    fn any_bytes_gain_no_lines_but_those_configured(head in garbage(), given in given()) {
        if let Ok(rewrite) = Rewrite::new(&given.rules()) {
            let copy = copy_of(&rewrite, &head);
            let feeds = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == b'\n').count();
            let configured = given.set.len() + given.add.len() + usize::from(given.host.is_some());
            prop_assert!(feeds(&copy) <= feeds(&head) + configured + 4);
            let lines = copy.strip_suffix(b"\r\n").or(copy.strip_suffix(b"\n")).unwrap_or(&copy);
            prop_assert!(lines.ends_with(MARKERS.as_bytes()) || copy.ends_with(MARKERS.as_bytes()));
        }
    }

    #[test]
    fn no_configured_text_makes_another_line(name in ".{0,6}", value in "[\0\r\n\t a:\u{7f}\u{e9}]{0,6}", at in 0..8_usize) {
        let pair = || vec![(name.clone(), value.clone())];
        let given = match at {
            0 => Given { set: pair(), ..Given::default() },
            1 => Given { add: pair(), ..Given::default() },
            2 => Given { remove: vec![name.clone()], ..Given::default() },
            3 => Given { host: Some(value.clone()), ..Given::default() },
            4 => Given { prefixes: vec![("/".to_owned(), format!("/{value}"))], ..Given::default() },
            5 => Given { set_query: pair(), ..Given::default() },
            6 => Given { set: vec![("a".to_owned(), value.clone())], ..Given::default() },
            _ => Given { prefixes: vec![(format!("/{value}"), "/".to_owned())], ..Given::default() },
        };
        if let Ok(rewrite) = Rewrite::new(&given.rules()) {
            let copy = copy_of(&rewrite, b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n");
            let parsed = RequestHead::parse(&copy).unwrap();
            let lines = 1 + given.set.len() + given.add.len() + markers().len();
            prop_assert_eq!(parsed.headers().count(), lines);
        }
    }
}
