//! Enters: targets, hosts and lines. Leaves: which rules fit them.

use proptest::prelude::*;

use super::*;

fn fits(rule: Rule, head: &str) -> bool {
    decide(&taking(rule), head, 1).is_ok()
}

fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nhost: a.example.com")
}

fn exactly(value: &str) -> ValueRule {
    ValueRule::Exact(value.as_bytes().into())
}

fn like(pattern: &str) -> ValueRule {
    ValueRule::Pattern(Pattern::new(pattern).unwrap())
}

#[test]
fn a_prefix_is_of_whole_elements() {
    for (prefix, target, expected) in [
        ("/api", "/api", true),
        ("/api", "/api/", true),
        ("/api", "/api/x", true),
        ("/api", "/api?x", true),
        ("/api", "/apix", false),
        ("/api", "/ap", false),
        ("/api", "/API", false),
        ("/api", "/%61pi", false),
        ("/api", "/x/../api", false),
        ("/api", "//api", false),
        ("/api/", "/api", true),
        ("/api/", "/api/x", true),
        ("/api/", "/apix", false),
        ("/api/v1", "/api", false),
        ("/", "/", true),
        ("/", "//x", true),
        ("/", "/?", true),
        ("/", "*", false),
        ("/", "http://a", true),
        ("/api", "http://a/api/x?y", true),
        ("/api", "http://api/x", false),
    ] {
        let rule = every().with_path(PathRule::prefix(prefix).unwrap());
        assert_eq!(fits(rule, &get(target)), expected, "{prefix} {target}");
    }
}

#[test]
fn a_path_is_what_stands_before_the_query_as_sent() {
    for (path, target, expected) in [
        ("/a", "/a", true),
        ("/a", "/a?b", true),
        ("/a", "/a/", false),
        ("/a", "http://h/a?b/c", true),
        ("/a", "HTTPS://u:p@h:1/a", true),
        ("/", "http://h", true),
        ("/", "http://h?x=/a", true),
        ("*", "*", true),
        ("/%7Ea", "/%7Ea", true),
        ("/~a", "/%7Ea", false),
        ("/a#b", "/a#b", true),
        ("/a:b://c", "/a:b://c", true),
    ] {
        let rule = every().with_path(PathRule::exact(path).unwrap());
        assert_eq!(fits(rule, &get(target)), expected, "{path} {target}");
    }
}

#[test]
fn a_pattern_must_describe_the_whole_value() {
    for (pattern, target, expected) in [
        ("/a|/ab", "/ab", true),
        ("/a|/ab", "/abc", false),
        ("a", "/a", false),
        ("(?i)/A", "/a", true),
        ("(?m)^/a$", "/a", true),
        (r"/item/\d+", "/item/12?x", true),
        (r"/item/\d+", "/item/1x", false),
        ("/.*", "/\u{e4}", true),
        ("", "/", false),
    ] {
        let rule = every().with_path(PathRule::pattern(Pattern::new(pattern).unwrap()));
        assert_eq!(fits(rule, &get(target)), expected, "{pattern} {target}");
    }
}

#[test]
fn a_byte_that_is_not_utf8_slips_past_no_pattern() {
    let policy = taking(every().with_path(PathRule::pattern(Pattern::new("/admin/.*").unwrap())));
    let raw = b"GET /admin/\xff\xfe HTTP/1.1\r\nhost: a\r\n\r\n";
    assert_eq!(decide_bytes(&policy, &flow_of("192.0.2.1:1"), raw, 1), Ok(vec![0]));
}

#[test]
fn lines_of_one_name_count_as_one_value() {
    for (name, value, lines, expected) in [
        ("x-beta", exactly("1"), "x-beta: 1", true),
        ("x-beta", exactly("1"), "X-BETA:1  ", true),
        ("X-Beta", exactly("1"), "x-beta: 1", true),
        ("x-beta", exactly("1"), "x-beta: 10", false),
        ("x-beta", exactly("1"), "x-beta2: 1", false),
        ("x-beta", exactly("1"), "x-beta: 1\r\nX-Beta: 2", false),
        ("x-beta", exactly("1,2"), "x-beta: 1\r\nX-Beta: 2", true),
        ("x-beta", exactly("1,1"), "x-beta: 1\r\nx-beta: 1", true),
        ("x-beta", exactly(""), "x-beta:", true),
        ("x-beta", exactly(""), "x-other: 1", false),
        ("x-beta", like("1(,.*)?"), "x-beta: 1\r\nx-beta: 2", true),
        ("x-beta", like("[0-9]"), "x-beta: 12", false),
        ("x-beta", ValueRule::Present, "x-beta:", true),
        ("x-beta", ValueRule::Present, "x-alpha: x-beta", false),
        ("cookie", exactly("a=1; b=2"), "cookie: a=1\r\ncookie: b=2", true),
    ] {
        let rule = every().with_field(name, value.clone()).unwrap();
        let head = format!("GET / HTTP/1.1\r\nhost: a\r\n{lines}");
        assert_eq!(fits(rule, &head), expected, "{value:?} {lines:?}");
    }
}

#[test]
fn of_equal_parameters_the_first_counts() {
    for (name, value, target, expected) in [
        ("q", exactly("1"), "/?q=1", true),
        ("q", exactly("1"), "/?a=2&q=1&b", true),
        ("q", exactly("1"), "/?q=1&q=2", true),
        ("q", exactly("2"), "/?q=1&q=2", false),
        ("q", exactly("1"), "/?Q=1", false),
        ("q", exactly("1=2"), "/?q=1=2", true),
        ("q", exactly("a b"), "/?q=a%20b", false),
        ("q", exactly("a+b"), "/?q=a+b", true),
        ("q", exactly(""), "/?q", true),
        ("q", exactly(""), "/?q=", true),
        ("q", ValueRule::Present, "/?&&q&", true),
        ("q", ValueRule::Present, "/q", false),
        ("q", ValueRule::Present, "/?=q", false),
        ("q", like("[0-9]+"), "http://h?q=77", true),
        ("a?b", ValueRule::Present, "/?a?b", true),
    ] {
        let rule = every().with_param(name, value.clone()).unwrap();
        assert_eq!(fits(rule, &get(target)), expected, "{name} {value:?} {target}");
    }
}

#[test]
fn a_host_is_without_port_and_in_any_case() {
    for (pattern, host, expected) in [
        ("a.example.com", "a.example.com", true),
        ("a.example.com", "A.Example.com:8080", true),
        ("A.example.com", "a.example.com.", true),
        ("a.example.com", "a.example.com.:80", true),
        ("a.example.com", "b.example.com", false),
        ("example.com", "a.example.com", false),
        ("*.example.com", "a.example.com:80", true),
        ("*.EXAMPLE.com", "a.b.example.COM", true),
        ("*.example.com", "example.com", false),
        ("*.example.com", ".example.com", false),
        ("*.example.com", "aexample.com", false),
        ("*.example.com", "a.example.com.evil.org", false),
        ("[2001:db8::1]", "[2001:DB8::1]:80", true),
        ("2001:db8::1", "[2001:db8::1]", true),
        ("2001:db8::1", "[2001:db8::10]", false),
        ("192.0.2.1", "192.0.2.1:80", true),
        ("a", "", false),
    ] {
        let rule = every().with_host(HostRule::new(pattern).unwrap());
        assert_eq!(fits(rule, &format!("GET / HTTP/1.1\r\nhost: {host}")), expected, "{pattern} {host}");
    }
    let two = || every().with_host(HostRule::new("a").unwrap()).with_host(HostRule::new("b").unwrap());
    assert!(fits(two(), "GET / HTTP/1.1\r\nhost: b"), "any of them");
    assert!(!fits(two(), "GET / HTTP/1.0"), "no host");
}

#[test]
fn the_host_of_an_absolute_target_counts_before_the_line() {
    for (target, expected) in [
        ("http://a", true),
        ("http://u:b@a:81/x", true),
        ("http://b@c@a?x", true),
        ("http://b/a", false),
        ("http:///a", false),
        ("/http://a", false),
        ("a://a", true),
        ("1a://a", false),
    ] {
        let rule = every().with_host(HostRule::new("a").unwrap());
        let head = format!("GET {target} HTTP/1.1\r\nhost: b");
        assert_eq!(fits(rule, &head), expected, "{target}");
    }
}

#[test]
fn any_rule_will_do_and_all_that_it_says_must_be() {
    let first =
        every().with_path(PathRule::prefix("/a").unwrap()).with_param("q", ValueRule::Present).unwrap();
    let second = every().with_path(PathRule::prefix("/b").unwrap());
    let excluded = every().with_path(PathRule::prefix("/b/health").unwrap());
    let policy = Policy::from(Experiment {
        matches: vec![first, second],
        excludes: vec![excluded],
        ..Experiment::default()
    });
    for (target, expected) in [
        ("/a?q", Ok(vec![0])),
        ("/a", Err(SkipReason::Unmatched)),
        ("/b", Ok(vec![0])),
        ("/b/healthy", Ok(vec![0])),
        ("/b/health/x", Err(SkipReason::Excluded)),
    ] {
        assert_eq!(decide(&policy, &get(target), 1), expected, "{target}");
    }
}

#[test]
fn method_is_the_reason_only_where_nothing_else_is_amiss() {
    let only = |method: &str| Rule::of_methods(Methods::Only(vec![method.to_owned()]));
    let policy = Policy::from(Experiment {
        matches: vec![
            only("POST").with_path(PathRule::prefix("/a").unwrap()),
            only("GET").with_path(PathRule::prefix("/b").unwrap()),
        ],
        ..Experiment::default()
    });
    assert_eq!(decide(&policy, &get("/a"), 1), Err(SkipReason::Method));
    assert_eq!(decide(&policy, &get("/c"), 1), Err(SkipReason::Unmatched));
    assert_eq!(decide(&policy, "PUT /b HTTP/1.1", 1), Err(SkipReason::Method));
}

#[test]
fn more_names_than_usual_are_all_found() {
    let name = |number: usize| format!("x-{number}");
    let rules = (0..40).map(|number| every().with_field(&name(number), exactly("1")).unwrap());
    let policy =
        Policy::new(rules.map(|rule| Experiment { matches: vec![rule], ..Experiment::default() }).collect());
    for number in 0..40 {
        let head = format!("GET / HTTP/1.1\r\n{}: 1", name(number));
        assert_eq!(decide(&policy, &head, 1), Ok(vec![number]));
    }
    let every: String = (0..40).map(|number| format!("\r\n{}: 1", name(number))).collect();
    assert_eq!(decide(&policy, &format!("GET / HTTP/1.1{every}"), 1), Ok((0..40).collect()));
}

fn path() -> impl Strategy<Value = String> {
    prop::collection::vec("[a-c%.]{0,2}", 0..4)
        .prop_map(|elements| elements.iter().map(|element| format!("/{element}")).collect::<String>())
        .prop_map(|path| if path.is_empty() { "/".to_owned() } else { path })
}

proptest! {
    #[test]
    fn a_prefix_fits_what_is_below_it_and_nothing_else(prefix in path(), path in path()) {
        let is_below = |prefix: &str| fits(every().with_path(PathRule::prefix(prefix).unwrap()), &get(&path));
        let trimmed = prefix.strip_suffix('/').unwrap_or(&prefix);
        let elements: Vec<_> = trimmed.split('/').collect();
        let expected = path.split('/').collect::<Vec<_>>().starts_with(&elements);
        prop_assert_eq!(is_below(&prefix), expected);
        prop_assert!(is_below("/"));
        prop_assert!(is_below(&path));
        // A longer prefix fits less.
        if is_below(&format!("{trimmed}/x")) {
            prop_assert!(is_below(&prefix));
        }
        prop_assert!(fits(every().with_path(PathRule::exact(&path).unwrap()), &get(&path)));
    }

    #[test]
    fn a_wildcard_stands_for_one_label_or_more(
        labels in prop::collection::vec("[a-cA-C0-9]{1,2}", 1..4),
        suffix in prop::collection::vec("[a-c]{1,2}", 1..3),
        port in prop::option::of(any::<u16>()),
    ) {
        let suffix = suffix.join(".");
        let port = port.map(|port| format!(":{port}")).unwrap_or_default();
        let fits = |host: String| {
            let rule = every().with_host(HostRule::new(&format!("*.{suffix}")).unwrap());
            fits(rule, &format!("GET / HTTP/1.1\r\nhost: {host}{port}"))
        };
        let below = fits(format!("{}.{suffix}", labels.join(".")));
        prop_assert!(below, "below the suffix");
        let others = [suffix.clone(), format!("x{suffix}"), format!("{suffix}.zz")].map(fits);
        prop_assert_eq!(others, [false; 3]);
    }
}
