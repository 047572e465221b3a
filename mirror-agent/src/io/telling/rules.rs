//! Enters: a rule. Leaves: the same as it is written in a configuration file.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use crate::{
    io::control::ctl::escaped,
    pipeline::compare::{Action, ArrayForm, ArrayRule, Place, Rule},
};

/// The rule as an entry of `compare.rules`.
#[must_use]
pub(super) fn rule_json(rule: &Rule) -> Value {
    let Rule { name, place, endpoint, action } = rule;
    let mut entry = Map::new();
    entry.insert("name".to_owned(), json!(name));
    let (key, value) = match place {
        Place::Path(path) => ("path", json!(path)),
        Place::Header(name) => ("header", json!(name)),
        Place::Form(name) => ("form", json!(name)),
        Place::Text => ("text", json!(true)),
        Place::Status(class) => ("status", json!(format!("{}xx", class.0))),
    };
    entry.insert(key.to_owned(), value);
    if let Some(endpoint) = endpoint {
        entry.insert("endpoint".to_owned(), json!(endpoint));
    }
    let (key, value) = match action {
        Action::Ignore => ("ignore", json!(true)),
        Action::Tolerate(tolerance) => {
            let both = [("absolute", tolerance.absolute), ("relative", tolerance.relative)];
            let said = both.into_iter().filter(|(_, by)| *by > 0.0);
            ("tolerate", said.map(|(key, by)| (key.to_owned(), json!(by))).collect::<Map<_, _>>().into())
        }
        Action::Timestamp => ("normalize", json!("timestamp")),
        Action::Uuid => ("normalize", json!("uuid")),
        Action::Replace { pattern, with } => ("replace", json!({ "pattern": pattern, "with": with })),
    };
    entry.insert(key.to_owned(), value);
    Value::Object(entry)
}

/// The array as an entry of `compare.arrays`.
#[must_use]
pub(super) fn array_json(array: &ArrayRule) -> Value {
    let ArrayRule { path, form } = array;
    match form {
        ArrayForm::Ordered => json!({ "path": path, "as": "ordered" }),
        ArrayForm::Set => json!({ "path": path, "as": "set" }),
        ArrayForm::KeyedBy(field) => json!({ "path": path, "keyedBy": field }),
    }
}

/// A field of a rule that is told otherwise than it is, since redaction hides a part of it.
pub(super) const REDACTED: &str = "redacted";

/// The rule in one line of YAML, to be put under `compare.rules`, without anything that a terminal could obey. One that is not told in full is a comment, since it would
/// match nothing.
#[must_use]
pub(super) fn rule_yaml(rule: &Value) -> String {
    let mut line = String::from(if rule.get(REDACTED).is_some() { "# redacted: - { " } else { "- { " });
    for (position, (key, value)) in rule.as_object().into_iter().flatten().enumerate() {
        let separator = if position == 0 { "" } else { ", " };
        // Writing to a string does not fail; what JSON writes is YAML in flow style, too.
        let _written = write!(line, "{separator}{key}: {value}");
    }
    line.push_str(" }");
    escaped(&line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        io::config::parse_rule,
        pipeline::compare::{StatusClass, Tolerance},
    };

    fn rules() -> Vec<Rule> {
        let rule = |name: &str, place, action| Rule { name: name.to_owned(), place, endpoint: None, action };
        let path = || Place::Path("$.items[*].id".to_owned());
        vec![
            rule("a", path(), Action::Ignore),
            Rule { endpoint: Some("GET /orders/{id}".to_owned()), ..rule("b", path(), Action::Uuid) },
            Rule { endpoint: Some("GET /loyalty/{}".to_owned()), ..rule("learned", path(), Action::Ignore) },
            Rule { endpoint: Some("other".to_owned()), ..rule("beyond", path(), Action::Ignore) },
            rule("c", Place::Header("x-node".to_owned()), Action::Timestamp),
            rule(
                "d",
                Place::Form("q".to_owned()),
                Action::Tolerate(Tolerance { absolute: 0.5, relative: 0.0 }),
            ),
            rule("e", Place::Status(StatusClass(5)), Action::Ignore),
            rule(
                "f",
                Place::Text,
                Action::Replace { pattern: "node-[0-9]+: \"x\"".to_owned(), with: "node".to_owned() },
            ),
        ]
    }

    #[test]
    fn what_is_written_is_read_as_the_same_rule() {
        for rule in rules() {
            assert_eq!(parse_rule(&rule_json(&rule)).unwrap(), rule);
        }
    }

    #[test]
    fn rule_obeys_no_character_of_others_and_stays_what_it_is() {
        let name = "a\u{1b}[2J\u{9b}31m\u{7f}\u{202e}\n- b";
        let rule = Rule {
            name: name.to_owned(),
            place: Place::Path("$.id".to_owned()),
            endpoint: None,
            action: Action::Ignore,
        };
        let line = rule_yaml(&rule_json(&rule));
        assert!(line.chars().all(|char| char.is_ascii() && !char.is_ascii_control()), "{line:?}");
        let file = serde_saphyr::from_str::<Vec<Value>>(&line).unwrap();
        assert_eq!(file[0]["name"], name);
    }

    #[test]
    fn rule_that_is_not_told_in_full_is_a_comment() {
        let line = rule_yaml(&json!({ "name": "a", "path": "$.[redacted]", REDACTED: true }));
        assert_eq!(line, r##"# redacted: - { name: "a", path: "$.[redacted]", redacted: true }"##);
        assert_eq!(rule_yaml(&json!({ "path": "$.a" })), r#"- { path: "$.a" }"#);
    }

    #[test]
    fn line_of_yaml_says_the_same() {
        for rule in rules() {
            let line = rule_yaml(&rule_json(&rule));
            let read: Vec<Value> = serde_saphyr::from_str(&line).unwrap();
            assert_eq!(read, [rule_json(&rule)], "{line}");
        }
    }
}
