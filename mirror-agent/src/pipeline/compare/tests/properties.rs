//! Enters: values made up. Leaves: proof that spelling never counts, and that one change is found where it was made.

use proptest::{collection::vec, prelude::*, sample::Index};

use super::{compare, json};
use crate::pipeline::{
    compare::{CompareRules, Compared, Divergence},
    reason::DivergenceKind,
};

/// A value, its numbers as digits, exponent and all.
#[derive(Clone, Debug)]
enum Made {
    Null,
    Bool(bool),
    Number(i64),
    String(String),
    Array(Vec<Self>),
    Object(Vec<(String, Self)>),
}

fn made() -> impl Strategy<Value = Made> {
    let leaf = prop_oneof![
        Just(Made::Null),
        any::<bool>().prop_map(Made::Bool),
        (-1000_i64..1000).prop_map(Made::Number),
        "[a-z \"\\\\/é😀\n]{0,6}".prop_map(Made::String),
    ];
    leaf.prop_recursive(4, 48, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(Made::Array),
            proptest::collection::btree_map("[a-e]{1,2}", inner, 0..6)
                .prop_map(|members| Made::Object(members.into_iter().collect())),
        ]
    })
}

/// A source of choices that a value is spelled by.
struct Choices(u64);

impl Choices {
    fn next(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }
}

/// The value as JSON, spelled as the choices say.
fn spelled(made: &Made, choices: &mut Choices) -> String {
    let space = ["", " ", "\n\t"][choices.next(3) as usize];
    let text = match made {
        Made::Null => "null".to_owned(),
        Made::Bool(value) => value.to_string(),
        Made::Number(value) => match choices.next(5) {
            0 => format!("{value}.0"),
            1 => format!("{value}.000e0"),
            // A zero before digits would be no number.
            2 if *value != 0 => format!("{value}0E-1"),
            3 if *value != 0 => format!("{value}000e-3"),
            _ => value.to_string(),
        },
        Made::String(text) => {
            let chars = text.chars().map(|char| match char {
                char if choices.next(3) == 0 => {
                    let mut units = [0; 2];
                    char.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")).collect()
                }
                '"' => "\\\"".to_owned(),
                '\\' => "\\\\".to_owned(),
                '\n' => "\\n".to_owned(),
                char => char.to_string(),
            });
            format!("\"{}\"", chars.collect::<String>())
        }
        Made::Array(elements) => {
            let elements: Vec<String> = elements.iter().map(|element| spelled(element, choices)).collect();
            format!("[{}]", elements.join(","))
        }
        Made::Object(members) => {
            let mut members: Vec<String> = members
                .iter()
                .map(|(key, value)| format!("\"{key}\"{space}:{}", spelled(value, choices)))
                .collect();
            for at in (1..members.len()).rev() {
                members.swap(at, choices.next(at as u64 + 1) as usize);
            }
            format!("{{{}}}", members.join(","))
        }
    };
    format!("{space}{text}{space}")
}

/// A change to a value, and how it should be told.
struct Change {
    kind: DivergenceKind,
    place: String,
}

/// Changes one scalar, element or member, the one that `at` chooses.
fn change(made: &mut Made, at: &Index, how: u8) -> Option<Change> {
    let mut places = Vec::new();
    list(made, "$".to_owned(), &mut places);
    let place = places.get(at.index(places.len()))?.clone();
    let target = find(made, &place)?;
    let (kind, changed) = match (&*target, how % 3) {
        (Made::Number(value), 0) => (DivergenceKind::Value, Made::Number(value + 100_000)),
        (Made::String(text), 0) => (DivergenceKind::Value, Made::String(format!("{text}!"))),
        (Made::Bool(value), 0) => (DivergenceKind::Value, Made::Bool(!value)),
        (Made::Object(members), 1) => {
            let mut members = members.clone();
            members.push(("zz".to_owned(), Made::Null));
            let place = format!("{place}.zz");
            *target = Made::Object(members);
            return Some(Change { kind: DivergenceKind::Extra, place });
        }
        (Made::Object(members), 2) if !members.is_empty() => {
            let mut members = members.clone();
            let (key, _) = members.remove(0);
            let place = format!("{place}.{key}");
            *target = Made::Object(members);
            return Some(Change { kind: DivergenceKind::Missing, place });
        }
        (Made::Null, _) => (DivergenceKind::Type, Made::Bool(true)),
        _ => (DivergenceKind::Type, Made::Null),
    };
    *target = changed;
    Some(Change { kind, place })
}

fn list(made: &Made, place: String, places: &mut Vec<String>) {
    match made {
        Made::Array(elements) => {
            for (index, element) in elements.iter().enumerate() {
                list(element, format!("{place}[{index}]"), places);
            }
        }
        Made::Object(members) => {
            for (key, value) in members {
                list(value, format!("{place}.{key}"), places);
            }
        }
        Made::Null | Made::Bool(_) | Made::Number(_) | Made::String(_) => {}
    }
    places.push(place);
}

fn find<'a>(made: &'a mut Made, place: &str) -> Option<&'a mut Made> {
    fn below<'a>(made: &'a mut Made, here: String, place: &str) -> Option<&'a mut Made> {
        if here == place {
            return Some(made);
        }
        match made {
            Made::Array(elements) => elements
                .iter_mut()
                .enumerate()
                .find_map(|(index, element)| below(element, format!("{here}[{index}]"), place)),
            Made::Object(members) => {
                members.iter_mut().find_map(|(key, value)| below(value, format!("{here}.{key}"), place))
            }
            Made::Null | Made::Bool(_) | Made::Number(_) | Made::String(_) => None,
        }
    }
    below(made, "$".to_owned(), place)
}

/// `$.a[3].b` as `$.a[].b`.
fn templated(place: &str) -> String {
    let mut path = String::new();
    let mut is_index = false;
    for char in place.chars() {
        is_index &= char != ']';
        if !is_index {
            path.push(char);
        }
        is_index |= char == '[';
    }
    path
}

proptest! {
    #[test]
    fn spelling_does_not_count(made in made(), one in any::<u64>(), other in any::<u64>()) {
        let live = spelled(&made, &mut Choices(one));
        let other = spelled(&made, &mut Choices(other));

        let compared = compare(&CompareRules::default(), &json(&live), &json(&other));

        prop_assert_eq!(compared, Compared::default(), "{} against {}", live, other);
    }

    #[test]
    fn one_change_is_found_where_it_is(made in made(), at in any::<Index>(), how in any::<u8>(), seed in any::<u64>()) {
        let mut changed = made.clone();
        let Some(change) = change(&mut changed, &at, how) else { return Ok(()) };
        let live = spelled(&made, &mut Choices(seed));
        let other = spelled(&changed, &mut Choices(seed.wrapping_add(1)));

        let compared = compare(&CompareRules::default(), &json(&live), &json(&other));

        let kinds = (compared.divergences.len(), compared.divergences.first());
        let (1, Some(Divergence { kind, path, .. })) = kinds else {
            return Err(TestCaseError::fail(format!("{compared:#?}\n{live}\n{other}")));
        };
        prop_assert_eq!(*kind, change.kind, "{} against {}", live, other);
        prop_assert_eq!(path.as_ref(), templated(&change.place), "{} against {}", live, other);
    }

    #[test]
    fn sides_can_be_swapped(one in made(), other in made(), seed in any::<u64>()) {
        let (one, other) = (spelled(&one, &mut Choices(seed)), spelled(&other, &mut Choices(seed)));
        let rules = CompareRules::default();

        let there = compare(&rules, &json(&one), &json(&other));
        let back = compare(&rules, &json(&other), &json(&one));

        let mirrored = |divergence: &Divergence| {
            let kind = match divergence.kind {
                DivergenceKind::Missing => DivergenceKind::Extra,
                DivergenceKind::Extra => DivergenceKind::Missing,
                kind @ (DivergenceKind::Value
                | DivergenceKind::Type
                | DivergenceKind::Order
                | DivergenceKind::Length
                | DivergenceKind::Status
                | DivergenceKind::Header) => kind,
            };
            (kind.as_str(), divergence.path.to_string(), divergence.other.clone(), divergence.live.clone())
        };
        let same = |divergence: &Divergence| {
            (divergence.kind.as_str(), divergence.path.to_string(), divergence.live.clone(), divergence.other.clone())
        };
        if !there.is_cut && !back.is_cut {
            let mut forth: Vec<_> = there.divergences.iter().map(same).collect();
            let mut back: Vec<_> = back.divergences.iter().map(mirrored).collect();
            forth.sort();
            back.sort();
            prop_assert_eq!(forth, back);
        }
    }
}
