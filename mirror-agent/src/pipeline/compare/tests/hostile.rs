//! Enters: contents that mean harm. Leaves: proof that they cost little, and break nothing.

use super::{answer, compare, json, rule, told};
use crate::pipeline::compare::{
    Action, ArrayForm, ArrayRule, CompareRules, MAX_DIVERGENCES, Place, VALUE_BYTES,
};

#[test]
fn divergences_are_bounded() {
    let object = |value: u32| {
        let members: Vec<String> = (0..5000).map(|key| format!("\"k{key}\":{value}")).collect();
        format!("{{{}}}", members.join(","))
    };

    let compared = compare(&CompareRules::default(), &json(&object(1)), &json(&object(2)));

    assert_eq!(compared.divergences.len(), MAX_DIVERGENCES);
    assert!(compared.is_cut && compared.misses_places);
}

#[test]
fn values_are_cut_between_characters() {
    let of = |char: &str| json(&format!("\"{}\"", char.repeat(200)));

    let compared = compare(&CompareRules::default(), &of("é"), &of("€"));

    let divergence = &compared.divergences[0];
    let (live, other) = (divergence.live.as_ref().unwrap(), divergence.other.as_ref().unwrap());
    assert!(live.len() <= VALUE_BYTES && live.chars().all(|char| char == 'é'), "{live}");
    assert!(other.len() <= VALUE_BYTES && other.chars().all(|char| char == '€'), "{other}");
}

#[test]
fn long_keys_and_deep_places_make_short_paths() {
    let of = |value: u32| {
        let open: String = (0..127).map(|_| format!("{{\"{}\":", "long key ".repeat(7))).collect();
        json(&format!("{open}{value}{}", "}".repeat(127)))
    };

    let compared = compare(&CompareRules::default(), &of(1), &of(2));

    let divergence = &compared.divergences[0];
    assert!(divergence.path.len() <= 512 && divergence.place.len() <= 512);
    assert!(divergence.path.ends_with('…'));
}

#[test]
fn long_key_over_many_differences_costs_little() {
    let of = |value: u32| {
        let members: Vec<String> =
            (0..20_000).map(|at| format!("\"{}\":{value}", "m".repeat(at % 50))).collect();
        let rows = vec![format!("{{{}}}", members[..50].join(",")); 400].join(",");
        json(&format!("{{\"{}\":[{rows}]}}", "k".repeat(300_000)))
    };

    let compared = compare(&CompareRules::default(), &of(1), &of(2));

    assert!(compared.is_cut);
    assert!(compared.divergences.iter().all(|divergence| divergence.path.starts_with("$.{}[]")));
}

#[test]
fn what_is_nested_too_deep_is_text() {
    let of = |value: u32| json(&format!("{}{value}{}", "[".repeat(200), "]".repeat(200)));

    let compared = compare(&CompareRules::default(), &of(1), &of(2));

    assert!(told(&compared).starts_with("value text "));
}

#[test]
fn large_arrays_in_any_form_are_compared_in_no_time() {
    let count = 30_000;
    let numbers = |of: &dyn Fn(u32) -> u32| {
        let numbers: Vec<String> = (0..count).map(|at| of(at).to_string()).collect();
        json(&format!("[{}]", numbers.join(",")))
    };
    let (up, down) = (numbers(&|at| at), numbers(&|at| count - 1 - at));
    let (same, shifted) = (numbers(&|_| 7), numbers(&|at| at + 1));

    let of = |form: ArrayForm| CompareRules {
        arrays: vec![ArrayRule { path: "$".to_owned(), form }],
        ..CompareRules::default()
    };
    let rules = of(ArrayForm::Ordered);
    assert_eq!(told(&compare(&rules, &up, &down)), "order $ 0 29999");
    assert_eq!(told(&compare(&rules, &up, &shifted)), "missing $[] 0 -; extra $[] - 30000");
    // All of them are at one place, which is told.
    let compared = compare(&rules, &up, &same);
    assert!(compared.is_cut && !compared.misses_places);
    for form in [ArrayForm::Set, ArrayForm::KeyedBy("id".to_owned())] {
        assert_eq!(told(&compare(&of(form), &up, &down)), "");
    }
}

#[test]
fn nested_sets_are_hashed_once() {
    let nested = |inner: &str| json(&format!("{}{inner}{}", "[1,".repeat(120), "]".repeat(120)));
    let rules = CompareRules {
        arrays: vec![ArrayRule { path: "$..[*]".to_owned(), form: ArrayForm::Set }],
        ..CompareRules::default()
    };

    let compared = compare(&rules, &nested("2"), &nested("3"));

    assert_eq!(compared.divergences.len(), 1);
}

#[test]
fn replacement_that_grows_without_end_is_left_out() {
    let rules = CompareRules {
        rules: vec![rule(
            Place::Path("$".to_owned()),
            Action::Replace { pattern: "a".to_owned(), with: "$0".repeat(128) },
        )],
        ..CompareRules::default()
    };
    let of = |end: &str| json(&format!("\"{}{end}\"", "a".repeat(500_000)));

    assert_eq!(compare(&rules, &of("x"), &of("y")).divergences.len(), 1);
}

#[test]
fn bytes_that_are_no_text_are_compared_all_the_same() {
    let of = |byte: u8| answer(200, "content-type: application/json", &[b'"', 0xff, byte, b'"']);

    assert_eq!(compare(&CompareRules::default(), &of(0xfe), &of(0xfe)).divergences, []);
    assert_eq!(compare(&CompareRules::default(), &of(0xfe), &of(0xfd)).divergences.len(), 1);
}
