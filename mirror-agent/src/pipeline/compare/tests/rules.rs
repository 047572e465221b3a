//! Enters: rules. Leaves: proof that each explains what it says, where it says, and is counted.

use super::{answer, compare, explained, json, rule, told};
use crate::pipeline::compare::{
    Action, ArrayForm, ArrayRule, CompareRules, Comparer, Place, Rule, RulesError, StatusClass, Tolerance,
};

fn at(path: &str) -> Place {
    Place::Path(path.to_owned())
}

fn with(rules: Vec<Rule>) -> CompareRules {
    CompareRules { rules, ..CompareRules::default() }
}

fn replace(pattern: &str, with: &str) -> Action {
    Action::Replace { pattern: pattern.to_owned(), with: with.to_owned() }
}

/// Both, as `TOLD | EXPLAINED`.
fn both(rules: &CompareRules, live: &str, other: &str) -> String {
    let compared = compare(rules, &json(live), &json(other));
    format!("{} | {}", told(&compared), explained(&compared))
}

#[test]
fn differences_are_explained_where_the_rule_is() {
    let tolerate = |absolute, relative| Action::Tolerate(Tolerance { absolute, relative });
    let cases = [
        (at("$.a"), Action::Ignore, "{\"a\":1,\"b\":1}", "{\"a\":2,\"b\":2}", "value $.b 1 2 | 0 $.a"),
        (at("$.a"), Action::Ignore, "{\"a\":1}", "{}", " | 0 $.a"),
        (at("$.a"), Action::Ignore, "{\"a\":1}", "{\"a\":{\"x\":[]}}", " | 0 $.a"),
        (at("$.a"), Action::Ignore, "{\"a\":[1,2.0]}", "{ \"a\":[1,2]}", " | "),
        (
            at("$..t"),
            Action::Ignore,
            "{\"a\":[{\"t\":1},{\"t\":2}]}",
            "{\"a\":[{\"t\":3},{\"t\":4}]}",
            " | 0 $.a[].t",
        ),
        (at("$.a[*]"), Action::Ignore, "{\"a\":[1,2]}", "{\"a\":[3]}", " | 0 $.a[]"),
        (at("$.a"), tolerate(0.01, 0.0), "{\"a\":0.10}", "{\"a\":0.11}", " | 0 $.a"),
        (at("$.a"), tolerate(0.01, 0.0), "{\"a\":0.10}", "{\"a\":0.111}", "value $.a 0.10 0.111 | "),
        (at("$.a"), tolerate(0.0, 0.1), "{\"a\":\"100\"}", "{\"a\":\"91\"}", " | 0 $.a"),
        (at("$.a"), tolerate(1.0, 0.0), "{\"a\":1}", "{\"a\":\"1\"}", "type $.a 1 \"1\" | "),
        (
            at("$.a"),
            Action::Timestamp,
            "{\"a\":\"2026-11-21\"}",
            "{\"a\":\"2026-11-22T10:00:00Z\"}",
            " | 0 $.a",
        ),
        (at("$.a"), Action::Timestamp, "{\"a\":1795255200}", "{\"a\":1795255300}", " | 0 $.a"),
        (
            at("$.a"),
            Action::Timestamp,
            "{\"a\":\"2026-11-21\"}",
            "{\"a\":\"never\"}",
            "value $.a 2026-11-21 never | ",
        ),
        (
            at("$.a"),
            Action::Timestamp,
            "{\"a\":\"2026-11-21\"}",
            "{\"a\":1795255300}",
            "type $.a \"2026-11-21\" 1795255300 | ",
        ),
        (
            at("$.a"),
            Action::Uuid,
            "{\"a\":\"6ba7b810-9dad-11d1-80b4-00c04fd430c8\"}",
            "{\"a\":\"00000000-9dad-11d1-80b4-00c04fd430c8\"}",
            " | 0 $.a",
        ),
        (
            at("$.a"),
            replace("host-[0-9]+", "host"),
            "{\"a\":\"x host-1\"}",
            "{\"a\":\"x host-22\"}",
            " | 0 $.a",
        ),
        (
            at("$.a"),
            replace("host-[0-9]+", "host"),
            "{\"a\":\"x host-1\"}",
            "{\"a\":\"y host-22\"}",
            "value $.a x host-1 y host-22 | ",
        ),
        (
            at("$.a"),
            replace("(.)-(.)", "$2-$1"),
            "{\"a\":\"1-2\"}",
            "{\"a\":\"1-3\"}",
            "value $.a 1-2 1-3 | ",
        ),
        (
            at("$.items[].price"),
            Action::Ignore,
            "{\"items\":[{\"price\":1}]}",
            "{\"items\":[{\"price\":2}]}",
            " | 0 $.items[].price",
        ),
        (
            at("$.by.{}.n"),
            Action::Ignore,
            "{\"by\":{\"1\":{\"n\":1}}}",
            "{\"by\":{\"1\":{\"n\":2}}}",
            " | 0 $.by.{}.n",
        ),
        (at("$"), Action::Ignore, "{}", "[]", " | 0 $"),
        (at("$"), Action::Ignore, "{}", "", " | 0 body"),
    ];

    for (place, action, live, other, expected) in cases {
        let rules = with(vec![rule(place.clone(), action.clone())]);
        assert_eq!(both(&rules, live, other), expected, "{place:?} {action:?}: {live} against {other}");
    }
}

#[test]
fn rule_applies_to_its_endpoint_alone() {
    let of = |endpoint: &str| {
        with(vec![Rule { endpoint: Some(endpoint.to_owned()), ..rule(at("$.a"), Action::Ignore) }])
    };

    assert_eq!(both(&of("GET /"), "{\"a\":1}", "{\"a\":2}"), " | 0 $.a");
    assert_eq!(both(&of("GET /x"), "{\"a\":1}", "{\"a\":2}"), "value $.a 1 2 | ");
}

#[test]
fn rules_at_the_same_place_work_together() {
    let rules = with(vec![
        rule(at("$.a"), replace("^at ", "")),
        rule(at("$.*"), Action::Timestamp),
        rule(at("$.b"), Action::Ignore),
    ]);

    assert_eq!(both(&rules, "{\"a\":\"at 2026-11-21\"}", "{\"a\":\"2026-11-22\"}"), " | 0 $.a; 1 $.a");
}

#[test]
fn elements_are_found_in_sets_though_rules_change_them() {
    let rules = CompareRules {
        arrays: vec![ArrayRule { path: "$".to_owned(), form: ArrayForm::Set }],
        ..with(vec![
            rule(at("$[*].id"), Action::Ignore),
            rule(at("$[*].at"), Action::Timestamp),
            rule(at("$[*].host"), replace("[0-9]", "")),
            rule(at("$[*].n"), Action::Tolerate(Tolerance { absolute: 0.1, relative: 0.0 })),
        ])
    };
    let live = "[{\"id\":1,\"at\":\"2026-11-21\",\"host\":\"a1\",\"n\":1,\"k\":\"x\"},{\"k\":\"y\"}]";
    let other =
        "[{\"k\":\"y\",\"id\":9},{\"id\":2,\"at\":\"2026-11-22\",\"host\":\"a2\",\"n\":1.1,\"k\":\"x\"}]";

    let told = both(&rules, live, other);

    assert_eq!(told, " | 1 $[].at; 2 $[].host; 0 $[].id; 3 $[].n");
}

#[test]
fn elements_that_rules_make_the_same_are_in_order() {
    let rules = with(vec![rule(at("$[*].id"), Action::Uuid)]);
    let row = |id: u32, name: &str| {
        format!("{{\"id\":\"{id:08}-9dad-11d1-80b4-00c04fd430c8\",\"name\":\"{name}\"}}")
    };
    let live = format!("[{},{},{}]", row(1, "a"), row(2, "b"), row(3, "c"));
    let other = format!("[{},{}]", row(4, "a"), row(5, "c"));

    assert_eq!(both(&rules, &live, &other), "missing $[] {id, name} -; length $ 3 2 | 0 $[].id");
}

#[test]
fn rules_apply_to_each_line() {
    let rules = with(vec![rule(at("$.t"), Action::Ignore)]);
    let lines = |text: &str| answer(200, "content-type: application/x-ndjson", text.as_bytes());

    let compared =
        compare(&rules, &lines("{\"t\":1}\n{\"t\":2,\"a\":1}"), &lines("{\"t\":3}\n{\"t\":4,\"a\":2}"));

    assert_eq!((told(&compared).as_str(), explained(&compared).as_str()), ("value $.a 1 2", "0 $.t"));
    assert_eq!(compared.divergences[0].place, "line 2: $.a");
}

#[test]
fn rules_apply_to_text_and_forms() {
    let rules = with(vec![
        rule(Place::Text, replace("id=[0-9]+", "id")),
        rule(Place::Form("token".to_owned()), Action::Ignore),
    ]);
    let text = |text: &str| answer(200, "content-type: text/html", text.as_bytes());
    let form = |text: &str| answer(200, "content-type: application/x-www-form-urlencoded", text.as_bytes());

    let compared = compare(&rules, &text("id=1\na\n"), &text("id=2\nb\n"));
    assert_eq!((told(&compared).as_str(), explained(&compared).as_str()), ("value text a b", "0 text"));
    let compared = compare(&rules, &text("id=1"), &text("id=2"));
    assert_eq!((told(&compared).as_str(), explained(&compared).as_str()), ("", "0 text"));
    let compared = compare(&rules, &form("token=1&a=1"), &form("token=2&a=2"));
    assert_eq!(
        (told(&compared).as_str(), explained(&compared).as_str()),
        ("value form:a 1 2", "1 form:token")
    );
}

#[test]
fn status_class_explains_what_is_not_compared() {
    let of = |action| with(vec![rule(Place::Status(StatusClass(4)), action)]);
    let (live, other) = (answer(404, "x: 1", b"a"), answer(404, "x: 2", b"b"));
    let found = answer(200, "", b"");

    let compared = compare(&of(Action::Ignore), &live, &other);
    assert_eq!((told(&compared).as_str(), explained(&compared).as_str()), ("", "0 header:x; 0 text"));
    let compared = compare(&of(Action::Ignore), &live, &found);
    assert_eq!((told(&compared).as_str(), explained(&compared).as_str()), ("", "0 status"));
    let compared = compare(&of(Action::Uuid), &live, &found);
    assert_eq!(told(&compared), "status status 404 200");
    let compared = compare(&of(Action::Uuid), &live, &other);
    assert_eq!(told(&compared), "");
    let compared = compare(&of(Action::Ignore), &found, &other);
    assert_eq!(told(&compared), "status status 200 404");
}

#[test]
fn rules_that_cannot_be_applied_are_named() {
    let refused = |rules: CompareRules| {
        let error = Comparer::new(&rules).unwrap_err();
        let source = std::error::Error::source(&error).map(|source| format!(": {source}"));
        format!("{error}{}", source.unwrap_or_default())
    };
    let of = |place, action| refused(with(vec![rule(place, action)]));

    assert_eq!(
        of(at("items.price"), Action::Ignore),
        "rule `rule`: `items.price` is no JSON path: a JSON path begins with `$`"
    );
    assert!(of(at("$"), replace("(", "")).starts_with("rule `rule`: `(` is no regular expression: "));
    assert!(of(at("$"), replace("(a{1000}){1000}", "")).contains("is no regular expression: "));
    assert_eq!(
        of(at("$"), replace("a", &"b".repeat(257))),
        "rule `rule`: the replacement is longer than 256 bytes"
    );
    assert_eq!(
        of(Place::Header("a b".to_owned()), Action::Uuid),
        "rule `rule`: `a b` is no name of a header field"
    );
    assert_eq!(of(Place::Status(StatusClass(6)), Action::Ignore), "rule `rule`: there is no status 6xx");
    let bad = Tolerance { absolute: -1.0, relative: 0.0 };
    assert_eq!(of(at("$"), Action::Tolerate(bad)), "rule `rule`: a tolerance is a number from 0 up");
    let array = ArrayRule { path: "$.a".to_owned(), form: ArrayForm::KeyedBy(String::new()) };
    assert_eq!(
        refused(CompareRules { arrays: vec![array], ..CompareRules::default() }),
        "array `$.a`: the field that elements are told apart by has no name"
    );
    assert!(matches!(
        Comparer::new(&CompareRules { fields: vec!["total".to_owned()], ..CompareRules::default() }),
        Err(RulesError::Path { .. })
    ));
}
