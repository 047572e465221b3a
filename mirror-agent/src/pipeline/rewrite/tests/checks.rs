//! Enters: rules that must not be. Leaves: the reason for which each is refused.

use super::{
    super::{RewriteError, check_header_edit, check_header_value, check_host},
    Given, Rewrite, Rules,
};

fn refused(rules: &str) -> RewriteError {
    let given = Given::parse(rules);
    Rewrite::new(&given.rules()).map(|_| ()).expect_err(rules)
}

#[test]
fn framing_connection_and_host_are_not_to_be_edited_in_any_case() {
    for name in ["Content-Length", "transfer-encoding", "CONNECTION", "te", "Trailer", "upgrade", "expect"] {
        for key in ["remove", "set", "add"] {
            assert!(
                matches!(refused(&format!("{key} {name} 1")), RewriteError::FramingHeader { .. }),
                "{name}"
            );
        }
    }
    assert!(matches!(refused("remove Host"), RewriteError::HostHeader { .. }));
    for name in ["x-shadow", "X-Mirror-Id", "x-mirror-experiment", "x-mirror-match", "x-mirror-"] {
        assert!(matches!(refused(&format!("add {name} 1")), RewriteError::MarkerHeader { .. }), "{name}");
    }
    for name in
        ["x-mirrored", "x-shadowy", "cookie", "accept-encoding", "content-type", "hosts", "keep-alive"]
    {
        assert_eq!(check_header_edit(name), Ok(()), "{name}");
    }
}

#[test]
fn names_and_values_cannot_end_their_line() {
    for name in
        ["", " ", "a b", "a:", "a\r", "a\n", "a\0", "a\r\nx", "\u{e9}", "a\t", "(a)", "a\"", "a,", "a/"]
    {
        assert!(matches!(check_header_edit(name), Err(RewriteError::HeaderName { .. })), "{name:?}");
    }
    for value in ["\r", "\n", "a\r\nx: y", "\0", "a\u{b}", "\u{7f}", "\u{1b}[0m", "a\r\n b"] {
        assert!(matches!(check_header_value("a", value), Err(RewriteError::HeaderValue { .. })), "{value:?}");
        assert!(matches!(refused(&format!("set a {value}")), RewriteError::HeaderValue { .. }), "{value:?}");
        assert!(matches!(refused(&format!("add a {value}")), RewriteError::HeaderValue { .. }), "{value:?}");
        let rules = Rules { experiment: value, ..Rules::default() };
        assert!(matches!(Rewrite::new(&rules), Err(RewriteError::Experiment { .. })), "{value:?}");
    }
    for value in ["", " ", "a\tb", "\u{e9}", "a: b, \"c\"; d=e"] {
        assert_eq!(check_header_value("a", value), Ok(()), "{value:?}");
    }
}

#[test]
fn hosts_are_names_or_addresses_and_nothing_more() {
    for host in [
        "a",
        "my_shadow.svc.cluster.local.",
        "10.0.0.1:8080",
        "a:1",
        "[::1]",
        "[2001:db8::1]:65535",
        "[::ffff:1.2.3.4]",
    ] {
        assert_eq!(check_host(host), Ok(()), "{host}");
    }
    for host in [
        "",
        ":80",
        "a:",
        "a:0",
        "a:65536",
        "a:+1",
        "a b",
        "a/b",
        "a?b",
        "a#b",
        "u@a",
        "a\r\nx: y",
        "a\0",
        "::1",
        "[::1",
        "[::1]x",
        "[::1]:",
        "[a]",
        "[fe80::1%eth0]",
        "\u{e9}",
        "a,b",
        "http://a",
    ] {
        assert!(matches!(check_host(host), Err(RewriteError::Host { .. })), "{host:?}");
        let rules = Rules { host: Some(host), ..Rules::default() };
        assert!(Rewrite::new(&rules).is_err(), "{host:?}");
    }
}

#[test]
fn prefixes_and_what_takes_their_place_are_paths() {
    for prefix in ["", "a", "/a?b", "/a#b", "/a b", "/a\r", "/\n", "/\0", "*", "http://a/"] {
        let pair = [(prefix.to_owned(), "/x".to_owned())];
        let error = Rewrite::new(&Rules { replace_prefix: &pair, ..Rules::default() }).unwrap_err();
        assert!(matches!(error, RewriteError::Prefix { .. }), "{prefix:?}");
    }
    for path in [
        "a",
        "/a?b",
        "/a#b",
        "/a b",
        "/a\r\nx: y",
        "/\0",
        "/%",
        "/%2",
        "/%zz",
        "/\u{e9}",
        "/<",
        "/\"",
        "\u{7f}",
    ] {
        let pair = [("/x".to_owned(), path.to_owned())];
        let error = Rewrite::new(&Rules { replace_prefix: &pair, ..Rules::default() }).unwrap_err();
        assert!(matches!(error, RewriteError::Replacement { .. }), "{path:?}");
    }
}

#[test]
fn nothing_is_set_twice_nor_without_a_name() {
    for (rules, key) in [
        ("set a 1; set A 2", "headers"),
        ("+query a 1; +query a 2", "query"),
        ("prefix /a /b; prefix /a/ /c", "rewrite"),
    ] {
        let error = refused(rules);
        assert!(matches!(error, RewriteError::Twice { .. }), "{rules}");
        assert_eq!(error.key(), key);
    }
    for rules in ["-query ", "+query  1"] {
        assert_eq!(refused(rules), RewriteError::QueryName, "{rules}");
    }
    for (word, key) in [("set", "headers"), ("+query", "query")] {
        let rules: Vec<String> = (0..65).map(|number| format!("{word} x{number} 1")).collect();
        assert_eq!(refused(&rules.join("; ")), RewriteError::TooMany { key, limit: 64 });
    }
}

#[test]
fn messages_show_no_raw_control_characters() {
    for error in [
        check_header_edit("a\r\n\u{1b}").unwrap_err(),
        check_header_value("a", "\r\n\u{1b}").unwrap_err(),
        check_host("a\r\n\u{1b}").unwrap_err(),
    ] {
        let shown = error.to_string();
        assert!(!shown.chars().any(char::is_control), "{shown:?}");
    }
}
