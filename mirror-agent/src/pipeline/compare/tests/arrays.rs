//! Enters: JSON values. Leaves: proof that each difference has its kind and its path.

use super::{compare, json, told_of};
use crate::pipeline::compare::{ArrayForm, ArrayRule, CompareRules, NumberForm};

fn with_array(path: &str, form: ArrayForm) -> CompareRules {
    CompareRules { arrays: vec![ArrayRule { path: path.to_owned(), form }], ..CompareRules::default() }
}

#[test]
fn differences_have_kinds_and_paths() {
    let cases = [
        ("1", "1", ""),
        ("1", "2", "value $ 1 2"),
        ("{\"a\":1}", "{\"a\":2}", "value $.a 1 2"),
        ("{\"a\":\"x\"}", "{\"a\":\"y\"}", "value $.a x y"),
        ("{\"a\":true}", "{\"a\":false}", "value $.a true false"),
        ("{\"a\":1}", "{\"a\":\"1\"}", "type $.a 1 \"1\""),
        ("{\"a\":1}", "{\"a\":null}", "type $.a 1 null"),
        ("{\"a\":{}}", "{\"a\":[]}", "type $.a {} [0 elements]"),
        ("{\"a\":1,\"b\":2}", "{\"b\":2}", "missing $.a 1 -"),
        ("{\"b\":2}", "{\"b\":2,\"c\":[1]}", "extra $.c - [1 elements]"),
        ("{\"b\":{\"x\":1,\"y\":2}}", "{}", "missing $.b {x, y} -"),
        ("{\"a\":{\"b\":[{\"c\":1}]}}", "{\"a\":{\"b\":[{\"c\":2}]}}", "value $.a.b[].c 1 2"),
        ("{\"a b\":1}", "{\"a b\":2}", "value $[\"a b\"] 1 2"),
        ("{\"1001\":1}", "{\"1001\":2}", "value $.{} 1 2"),
        ("0.10005", "0.1001", "value $ 0.10005 0.1001"),
        ("[1,2]", "[1, 2.0]", ""),
        ("\"\\u0041\"", "\"A\"", ""),
        ("{\"a\":1,\"a\":2}", "{\"a\":2}", ""),
        ("{\"a\":1}", "[1]", "type $ {a} [1 elements]"),
    ];

    for (live, other, expected) in cases {
        assert_eq!(told_of(&CompareRules::default(), live, other), expected, "{live} against {other}");
    }
}

#[test]
fn spelling_of_numbers_counts_where_it_is_asked_for() {
    let rules = CompareRules { numbers: NumberForm::Text, ..CompareRules::default() };

    assert_eq!(told_of(&rules, "[1, 2]", "[1.0,2]"), "value $[] 1 1.0");
}

#[test]
fn place_has_the_indices_of_each_side_where_they_differ() {
    let keyed = with_array("$.items", ArrayForm::KeyedBy("id".to_owned()));
    let live = r#"{"items":[{"id":1,"at":[5,6,7]},{"id":2,"n":1}]}"#;
    let other = r#"{"items":[{"id":2,"n":2},{"id":1,"at":[6,7,9]},{"id":3}]}"#;

    let compared = compare(&keyed, &json(live), &json(other));

    let places: Vec<_> = compared
        .divergences
        .iter()
        .map(|found| (found.kind.as_str(), found.place.as_str(), found.other_place.as_deref()))
        .collect();
    assert_eq!(
        places,
        [
            ("missing", "$.items[0].at[0]", Some("$.items[1].at[0]")),
            ("extra", "$.items[0].at[2]", Some("$.items[1].at[2]")),
            ("value", "$.items[1].n", Some("$.items[0].n")),
            ("extra", "$.items[2]", None),
        ]
    );
    let same = compare(&CompareRules::default(), &json("[1,[2]]"), &json("[1,[3]]"));
    assert_eq!((&*same.divergences[0].place, &same.divergences[0].other_place), ("$[1][0]", &None));
}

#[test]
fn sequences_tell_each_cause_once() {
    let cases = [
        ("[1,2,3]", "[1,9,3]", "value $[] 2 9"),
        ("[1,2,3]", "[3,1,2]", "order $ 1 3"),
        ("[1,2]", "[2,1]", "order $ 1 2"),
        ("[1,2,3]", "[1,2,4,3]", "extra $[] - 4; length $ 3 4"),
        ("[1,2,3]", "[1,3]", "missing $[] 2 -; length $ 3 2"),
        ("[1,2,3,4]", "[0,1,2,3]", "missing $[] 4 -; extra $[] - 0"),
        ("[1,2,3,4]", "[2,9,3,1]", "order $ 1 2; extra $[] - 9; missing $[] 4 -"),
        ("[]", "[1]", "extra $[] - 1; length $ 0 1"),
        ("[{\"a\":1},{\"a\":2}]", "[{\"a\":3},{\"a\":4}]", "value $[].a 1 3; value $[].a 2 4"),
        ("[[1,2],[3,4]]", "[[1,2],[4,3]]", "order $[] 3 4"),
    ];

    for (live, other, expected) in cases {
        let told = told_of(&CompareRules::default(), live, other);
        let sorted = |told: &str| {
            let mut parts: Vec<String> = told.split("; ").map(str::to_owned).collect();
            parts.sort();
            parts
        };
        assert_eq!(sorted(&told), sorted(expected), "{live} against {other}: {told}");
    }
}

#[test]
fn one_element_put_in_is_no_cascade() {
    let elements: Vec<String> = (0..500).map(|id| format!("{{\"id\":{id},\"name\":\"n{id}\"}}")).collect();
    let mut longer = elements.clone();
    longer.insert(3, "{\"id\":1000,\"name\":\"new\"}".to_owned());

    let told = told_of(
        &CompareRules::default(),
        &format!("{{\"items\":[{}]}}", elements.join(",")),
        &format!("{{\"items\":[{}]}}", longer.join(", ")),
    );

    assert_eq!(told, "extra $.items[] - {id, name}; length $.items 500 501");
}

#[test]
fn elements_that_all_changed_are_held_against_those_they_were() {
    let rows = |ids: std::ops::Range<u32>, at: u32| {
        let rows: Vec<String> =
            ids.map(|id| format!("{{\"id\":{id},\"name\":\"n{id}\",\"at\":{at}}}")).collect();
        format!("[{}]", rows.join(","))
    };

    let told = told_of(&CompareRules::default(), &rows(0..5, 1), &rows(1..6, 2));

    let of_each = ["value $[].at 1 2"; 4].join("; ");
    assert_eq!(told, format!("{of_each}; missing $[] {{at, id, name}} -; extra $[] - {{at, id, name}}"));
}

#[test]
fn places_are_concrete() {
    let compared = compare(
        &CompareRules::default(),
        &json("{\"o\":[0,{\"1001\":{\"a\":1}}]}"),
        &json("{\"o\":[0,{\"1001\":{\"a\":2}}]}"),
    );

    assert_eq!(compared.divergences[0].path.as_ref(), "$.o[].{}.a");
    assert_eq!(compared.divergences[0].place, "$.o[1].1001.a");
}

#[test]
fn order_of_sets_does_not_count() {
    let rules = with_array("$.tags", ArrayForm::Set);
    let cases = [
        ("[\"a\",\"b\",\"c\"]", "[\"c\",\"a\",\"b\"]", ""),
        ("[\"a\",\"a\",\"b\"]", "[\"a\",\"b\",\"b\"]", "value $.tags[] a b"),
        ("[\"a\",\"b\"]", "[\"b\"]", "missing $.tags[] a -"),
        ("[1,2]", "[2.0,1e0]", ""),
        ("[{\"x\":1,\"y\":[1,2]},{}]", "[{},{\"y\":[1,2],\"x\":1}]", ""),
        ("[{\"x\":1,\"y\":[1,2]},{}]", "[{},{\"y\":[2,1],\"x\":1}]", "order $.tags[].y 1 2"),
    ];

    for (live, other, expected) in cases {
        let told = told_of(&rules, &format!("{{\"tags\":{live}}}"), &format!("{{\"tags\":{other}}}"));
        assert_eq!(told, expected, "{live} against {other}");
    }
}

#[test]
fn rows_are_told_by_their_keys() {
    let rules = with_array("$.rows", ArrayForm::KeyedBy("id".to_owned()));
    let cases = [
        ("[{\"id\":1,\"p\":5},{\"id\":2,\"p\":6}]", "[{\"p\":6,\"id\":2},{\"id\":1.0,\"p\":5}]", ""),
        (
            "[{\"id\":1,\"p\":5},{\"id\":2,\"p\":6}]",
            "[{\"id\":2,\"p\":7},{\"id\":1,\"p\":5}]",
            "value $.rows[].p 6 7",
        ),
        (
            "[{\"id\":1,\"p\":5},{\"id\":2,\"p\":6}]",
            "[{\"id\":3,\"p\":5},{\"id\":2,\"p\":6}]",
            "missing $.rows[] {id, p} -; extra $.rows[] - {id, p}",
        ),
        (
            "[{\"id\":1,\"p\":5},{\"id\":1,\"p\":6}]",
            "[{\"id\":1,\"p\":5},{\"id\":1,\"p\":7}]",
            "value $.rows[].p 6 7",
        ),
        ("[{\"p\":5},{\"id\":\"1\"}]", "[{\"id\":\"1\"},{\"p\":5}]", ""),
        ("[1,2]", "[2,1]", ""),
    ];

    for (live, other, expected) in cases {
        let told = told_of(&rules, &format!("{{\"rows\":{live}}}"), &format!("{{\"rows\":{other}}}"));
        assert_eq!(told, expected, "{live} against {other}");
    }
}

#[test]
fn each_kind_of_a_path_is_told_a_few_times() {
    let rows = |price: &str| vec![format!("{{\"price\":{price},\"id\":1}}"); 100].join(",");
    let compared = compare(
        &CompareRules::default(),
        &json(&format!("{{\"rows\":[{}],\"z\":1}}", rows("1"))),
        &json(&format!("{{\"rows\":[{}],\"z\":2}}", rows("2"))),
    );

    assert_eq!(compared.divergences.len(), 5);
    assert!(compared.is_cut);
    assert_eq!(compared.divergences[4].path.as_ref(), "$.z");
}
