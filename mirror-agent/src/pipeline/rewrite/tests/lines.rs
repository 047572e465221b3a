//! Enters: field lines, tidy and odd ones. Leaves: the bytes of the copy for every edit of lines and of the host.

use super::{Chosen, CopyFacts, Given, ID, MARKERS, Rewrite, assert_copies, copy_of};

#[test]
fn without_rules_a_copy_is_the_request_and_its_markers() {
    for (lines, empty_line) in [
        (&b"GET / HTTP/1.1\r\nHost: a\r\n"[..], "\r\n"),
        (b"GET / HTTP/1.0\r\n", "\r\n"),
        (b"GET /a%20b?\xc3\xa9&&x=+ HTTP/1.1\r\nhOST:a \r\nA:1\r\n  folded\r\nA:2\r\n", "\r\n"),
        (b"GET / HTTP/1.1\nHost: a\n", "\n"),
        (b"GET / HTTP/1.1\nHost: a\n", "\r\n"),
        (b"GET / HTTP/1.1\r\nHost: a\r\n", "\n"),
        (b"\xff\xfe /\r\n:\r\n: \r\nno colon\r\n", "\r\n"),
        (b"OPTIONS * HTTP/1.1\r\ntraceparent: 1\r\n", "\r\n"),
    ] {
        // Neither where nothing is to be done, nor where all lines are gone through and none is concerned.
        for rules in ["", "clear; remove x-absent; -query absent; prefix /absent /x"] {
            let copy = copy_of(&Given::parse(rules).rewrite(), &[lines, empty_line.as_bytes()].concat());
            let expected = [lines, MARKERS.as_bytes(), empty_line.as_bytes()].concat();
            assert_eq!(copy.escape_ascii().to_string(), expected.escape_ascii().to_string());
        }
    }
}

#[test]
fn markers_say_whose_copy_it_is_and_how_it_was_chosen() {
    let mut out = Vec::new();
    let facts = CopyFacts { id: ID, chosen: Chosen::Sampled, has_marker: false };
    Rewrite::default().write(&mut out, b"GET / HTTP/1.1\r\n\r\n", facts);
    let expected = "GET / HTTP/1.1\r\nx-mirror-id: 0123456789abcdef-0002-0000000000000abc\r\nx-shadow: true\r\n\
                    x-mirror-experiment: default\r\nx-mirror-match: sampled\r\n\r\n";
    assert_eq!(String::from_utf8(out).unwrap(), expected);
}

#[test]
fn markers_of_the_client_are_left_out() {
    let live =
        b"GET / HTTP/1.1\r\nX-Shadow: false\r\nHost: a\r\nx-mirror-match: x\r\nX-MIRROR-EXPERIMENT:\r\n\
                 x-mirror-other: 1\r\nx-shadowy: 1\r\n";
    let copy = b"GET / HTTP/1.1\r\nHost: a\r\nx-mirror-other: 1\r\nx-shadowy: 1\r\n";
    assert_copies(&[("", live, copy), ("clear; remove x-absent", live, copy)]);
    assert_copies(&[("host b", live, b"GET / HTTP/1.1\r\nHost: b\r\nx-mirror-other: 1\r\nx-shadowy: 1\r\n")]);
}

#[test]
fn fields_are_removed_set_and_added_where_they_should_be() {
    assert_copies(&[
        // Removed, in any case, however often, at either end.
        ("remove a", b"GET / HTTP/1.1\r\nA: 1\r\nB: 2\r\na:3\r\n", b"GET / HTTP/1.1\r\nB: 2\r\n"),
        ("remove A", b"GET / HTTP/1.1\r\na: 1\r\n", b"GET / HTTP/1.1\r\n"),
        ("remove a", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\n"),
        ("remove a; remove B", b"GET / HTTP/1.1\r\nb:\r\nc:\r\na:\r\n", b"GET / HTTP/1.1\r\nc:\r\n"),
        // A name is the whole name.
        (
            "remove a",
            b"GET / HTTP/1.1\r\naa: 1\r\n-a: 2\r\nb: a\r\n",
            b"GET / HTTP/1.1\r\naa: 1\r\n-a: 2\r\nb: a\r\n",
        ),
        (
            "remove cookie",
            b"GET / HTTP/1.1\r\ncookie2: 1\r\nCOOKIE: 2\r\n",
            b"GET / HTTP/1.1\r\ncookie2: 1\r\n",
        ),
        // What continues a line goes with it.
        ("remove a", b"GET / HTTP/1.1\r\nA: 1\r\n 2\r\n\t3\r\nB: 2\r\n", b"GET / HTTP/1.1\r\nB: 2\r\n"),
        ("remove a", b"GET / HTTP/1.1\r\nA:\r\n  b: 2\r\nB: 2\r\n", b"GET / HTTP/1.1\r\nB: 2\r\n"),
        ("remove b", b"GET / HTTP/1.1\r\nA:\r\n b: 2\r\n", b"GET / HTTP/1.1\r\nA:\r\n b: 2\r\n"),
        // Odd spacing, bare line feeds, bytes beyond ASCII.
        ("remove a", b"GET / HTTP/1.1\r\nA : 1\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n"),
        ("remove a", b"GET / HTTP/1.1\nA: 1\nB: 2\n", b"GET / HTTP/1.1\nB: 2\n"),
        ("remove a", b"GET / HTTP/1.1\r\na: \xff\xc3\r\nb: \xff\r\n", b"GET / HTTP/1.1\r\nb: \xff\r\n"),
        ("remove a", b"GET / HTTP/1.1\r\n:\r\nno colon\r\na:\r\n", b"GET / HTTP/1.1\r\n:\r\nno colon\r\n"),
        // Set: the first in its place, the others gone, or at the end.
        (
            "set x-env shadow",
            b"GET / HTTP/1.1\r\nX-ENV:live\r\nB: 2\r\nx-env: 3\r\n",
            b"GET / HTTP/1.1\r\nx-env: shadow\r\nB: 2\r\n",
        ),
        ("set X-Env a b", b"GET / HTTP/1.1\r\nB: 2\r\n", b"GET / HTTP/1.1\r\nB: 2\r\nX-Env: a b\r\n"),
        ("set b 1; set a 2", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nb: 1\r\na: 2\r\n"),
        ("set b 1; set a 2", b"GET / HTTP/1.1\r\na: x\r\n", b"GET / HTTP/1.1\r\na: 2\r\nb: 1\r\n"),
        ("set a 1", b"GET / HTTP/1.1\r\nA: x\r\n y\r\nB: 2\r\n", b"GET / HTTP/1.1\r\na: 1\r\nB: 2\r\n"),
        ("set a 1", b"GET / HTTP/1.1\nA: x\nB: 2\n", b"GET / HTTP/1.1\na: 1\r\nB: 2\n"),
        ("set a", b"GET / HTTP/1.1\r\nA: x\r\n", b"GET / HTTP/1.1\r\na: \r\n"),
        ("set a \u{e9}", b"GET / HTTP/1.1\r\nA: x\r\n", b"GET / HTTP/1.1\r\na: \xc3\xa9\r\n"),
        // Added: behind all others, though there are such.
        ("add a 1", b"GET / HTTP/1.1\r\na: 0\r\nb: 2\r\n", b"GET / HTTP/1.1\r\na: 0\r\nb: 2\r\na: 1\r\n"),
        ("add a 1; add a 2", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\na: 1\r\na: 2\r\n"),
        // In this order: removed, set, added.
        (
            "add a 3; set a 2; remove a",
            b"GET / HTTP/1.1\r\na: 1\r\nb:\r\n",
            b"GET / HTTP/1.1\r\nb:\r\na: 2\r\na: 3\r\n",
        ),
        ("add a 3; remove a", b"GET / HTTP/1.1\r\na: 1\r\n", b"GET / HTTP/1.1\r\na: 3\r\n"),
        (
            "add a 3; set a 2",
            b"GET / HTTP/1.1\r\na: 1\r\nb:\r\n",
            b"GET / HTTP/1.1\r\na: 2\r\nb:\r\na: 3\r\n",
        ),
        // What frames the message stays.
        (
            "remove a; set b 1",
            b"POST / HTTP/1.1\r\nA:\r\ncontent-length:3\r\nconnection:  close \r\n",
            b"POST / HTTP/1.1\r\ncontent-length:3\r\nconnection:  close \r\nb: 1\r\n",
        ),
    ]);
}

#[test]
fn host_is_replaced_in_its_place_or_added_where_it_must_be() {
    assert_copies(&[
        (
            "host b",
            b"GET / HTTP/1.1\r\nA: 1\r\nhOST:a\r\nB: 2\r\n",
            b"GET / HTTP/1.1\r\nA: 1\r\nhOST: b\r\nB: 2\r\n",
        ),
        ("host b:81", b"GET / HTTP/1.1\r\nHost:  a:80 \r\n", b"GET / HTTP/1.1\r\nHost: b:81\r\n"),
        (
            "host [2001:db8::1]:81",
            b"GET / HTTP/1.1\r\nHost: a\r\n",
            b"GET / HTTP/1.1\r\nHost: [2001:db8::1]:81\r\n",
        ),
        ("host b", b"GET / HTTP/1.1\r\nHost:\r\n", b"GET / HTTP/1.1\r\nHost: b\r\n"),
        ("host b", b"GET / HTTP/1.1\r\nHost: a\r\nhost: c\r\n", b"GET / HTTP/1.1\r\nHost: b\r\n"),
        ("host b", b"GET / HTTP/1.1\r\nHost: a\r\n .x\r\nB:\r\n", b"GET / HTTP/1.1\r\nHost: b\r\nB:\r\n"),
        ("host b", b"GET / HTTP/1.1\nHost: a\nB:\n", b"GET / HTTP/1.1\nHost: b\r\nB:\n"),
        (
            "host b",
            b"GET / HTTP/1.1\r\nHosts: a\r\nX-Host: a\r\n",
            b"GET / HTTP/1.1\r\nHosts: a\r\nX-Host: a\r\nHost: b\r\n",
        ),
        ("host b", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nHost: b\r\n"),
        ("host b; set c 1; add d 2", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nHost: b\r\nc: 1\r\nd: 2\r\n"),
        // HTTP/1.0 need not have one.
        ("host b", b"GET / HTTP/1.0\r\nA: 1\r\n", b"GET / HTTP/1.0\r\nA: 1\r\n"),
        ("host b", b"GET / HTTP/1.0\r\nHost: a\r\n", b"GET / HTTP/1.0\r\nHost: b\r\n"),
        // Absolute form says it twice; the user that it names is a part of it.
        ("host b", b"GET http://a/x HTTP/1.1\r\nHost: a\r\n", b"GET http://b/x HTTP/1.1\r\nHost: b\r\n"),
        (
            "host b",
            b"GET https://u:p@a:443?x HTTP/1.1\r\nHost: a\r\n",
            b"GET https://b?x HTTP/1.1\r\nHost: b\r\n",
        ),
        ("host b", b"GET http://[::1]:8/ HTTP/1.1\r\nHost: a\r\n", b"GET http://b/ HTTP/1.1\r\nHost: b\r\n"),
        ("host b", b"GET http:///x HTTP/1.0\r\n", b"GET http://b/x HTTP/1.0\r\n"),
        ("host b", b"OPTIONS http://a HTTP/1.1\r\nHost: a\r\n", b"OPTIONS http://b HTTP/1.1\r\nHost: b\r\n"),
        // These forms do not.
        ("host b", b"OPTIONS * HTTP/1.1\r\nHost: a\r\n", b"OPTIONS * HTTP/1.1\r\nHost: b\r\n"),
        ("host b", b"GET //a/x HTTP/1.1\r\nHost: a\r\n", b"GET //a/x HTTP/1.1\r\nHost: b\r\n"),
        ("host b", b"GET /?http://a/ HTTP/1.1\r\nHost: a\r\n", b"GET /?http://a/ HTTP/1.1\r\nHost: b\r\n"),
        ("host b", b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n", b"CONNECT a:1 HTTP/1.1\r\nHost: b\r\n"),
        // Kept, both may say what they like.
        ("", b"GET http://a/x HTTP/1.1\r\nHost: c\r\n", b"GET http://a/x HTTP/1.1\r\nHost: c\r\n"),
    ]);
}

#[test]
fn more_names_than_fit_a_word_are_told_apart() {
    let long = "x".repeat(70);
    let rules = format!("remove {long}; set {long}y 1");
    let head = format!("GET / HTTP/1.1\r\n{long}: 1\r\n{long}z: 2\r\n{long}Y: 3\r\n");
    let expected = format!("GET / HTTP/1.1\r\n{long}z: 2\r\n{long}y: 1\r\n");
    assert_copies(&[(&rules, head.as_bytes(), expected.as_bytes())]);
    let names: Vec<String> = (0..64).map(|number| format!("set x-{number} {number}")).collect();
    let lines: String = (0..64).map(|number| format!("x-{number}: {number}\r\n")).collect();
    let head = "GET / HTTP/1.1\r\n".to_owned();
    assert_copies(&[(&names.join("; "), head.as_bytes(), (head.clone() + &lines).as_bytes())]);
}
