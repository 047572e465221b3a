//! Enters: the text of a configuration file. Leaves: the configuration that it means, or all that is wrong with it.
//!
//! The text becomes a tree of values, and the tree the types in `shape`. What is wrong with one value is noted, the value
//! left aside, and the rest read again, until nothing new is found: so the user is told of everything at once. Where
//! values have to fit together, that is checked as the types become a [`Config`].

mod comparing;
mod comparison;
mod fault;
mod fleet;
mod keeping;
mod matching;
mod ordered;
mod pods;
mod reader;
mod resolve;
mod shape;
mod target;
#[cfg(test)]
mod tests;
mod tree;
mod values;
mod words;

use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime},
};

use schemars::{Schema, schema_for};
use serde::Deserialize;
use serde_json::Value;

pub use self::fault::{Fault, Faults};
use self::{
    comparison::RuleFile,
    reader::{Problem, ReadError},
    resolve::{Checker, resolve},
    shape::File,
    tree::{Node, Step},
};
use super::{Config, ProbeConfig};
use crate::pipeline::compare::Rule;

/// Reads the text of a configuration file, YAML or JSON. `name` is the file's, for messages. Of an experiment that has
/// expired at `now` is said so; where that is `None`, as when a file is read again, it may have.
///
/// # Errors
///
/// All that is wrong with it.
pub fn parse(text: &str, name: &str, now: Option<SystemTime>) -> Result<Config, Faults> {
    let mut tree = match tree::parse(text) {
        Ok(tree) => tree,
        Err(fault) => return Err(Faults::new(name, vec![fault])),
    };
    let mut faults: Vec<Fault> = tree
        .skip_doubles()
        .into_iter()
        .take(MAX_FAULTS)
        .map(|(path, place)| Fault::of(&path, place, "the key is there twice"))
        .collect();
    let config = read(&mut tree, &mut faults).and_then(|file| resolve(file, &tree, now, &mut faults));
    match config {
        Some(config) if faults.is_empty() => Ok(config),
        _ => Err(Faults::new(name, faults)),
    }
}

/// The JSON Schema of a configuration file, for editors.
#[must_use]
pub fn schema() -> Schema {
    let mut schema = schema_for!(File);
    if let Some(fields) = schema.as_object_mut() {
        fields.values_mut().for_each(without_null);
    }
    schema
}

/// Takes out that a key may have no value: where it may be left out, that is all that is meant.
fn without_null(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            if let Some(Value::Array(kinds)) = fields.get_mut("type") {
                kinds.retain(|kind| kind != "null");
                if let [kind] = &kinds[..] {
                    let kind = kind.clone();
                    fields.insert("type".to_owned(), kind);
                }
            }
            if let Some(Value::Array(options)) = fields.get_mut("anyOf") {
                options.retain(|option| option["type"] != "null");
            }
            fields.values_mut().for_each(without_null);
        }
        Value::Array(items) => items.iter_mut().for_each(without_null),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Parses the `HEADER=VALUE` of a probe, which is sent to `/` every 5 s.
///
/// # Errors
///
/// What would be right in its place.
pub fn parse_interlock(text: &str) -> Result<ProbeConfig, String> {
    let (header, value) = text.split_once('=').ok_or("expected HEADER=VALUE, such as x-shadow-mode=on")?;
    Ok(ProbeConfig {
        header: words::header_name(header)?,
        value: words::header_value(value)?,
        path: "/".to_owned(),
        every: PROBE_INTERVAL,
    })
}

/// Parses a rule, written as an entry of `compare.rules`.
///
/// # Errors
///
/// What is wrong with it.
pub fn parse_rule(rule: &Value) -> Result<Rule, Faults> {
    const NAME: &str = "rule";
    let tree = tree::parse(&rule.to_string()).map_err(|fault| Faults::new(NAME, vec![fault]))?;
    let file = RuleFile::deserialize(&tree).map_err(|error| {
        let fault = Fault::of(&error.path(), error.place.unwrap_or(tree.place), &error.to_string());
        Faults::new(NAME, vec![fault])
    })?;
    let mut faults = Vec::new();
    let rule = comparing::rule(file, &mut BTreeSet::new(), &mut Checker::new(&tree, &mut faults));
    rule.filter(|_| faults.is_empty()).ok_or_else(|| Faults::new(NAME, faults))
}

/// Reads as much as can be read; `None` where that is too little to go on with.
fn read(tree: &mut Node, faults: &mut Vec<Fault>) -> Option<File> {
    loop {
        let error = match File::deserialize(&*tree) {
            Ok(file) => return Some(file),
            Err(error) => error,
        };
        let mut path = error.path();
        faults.extend(told(tree, &path, &error));
        // An unknown key, a value that is none: that alone. A thing without what it must have: all of it.
        while !tree.skip(&path) {
            path.pop()?;
        }
        if path.is_empty() || faults.len() >= MAX_FAULTS {
            return None;
        }
    }
}

/// What to say of an error; nothing where it only follows from what was said.
fn told(tree: &Node, path: &[Step], error: &ReadError) -> Option<Fault> {
    if let Problem::Missing(key) = error.problem {
        let key = Step::Key(key.to_owned());
        let inside: Vec<_> = path.iter().cloned().chain([key]).collect();
        if tree.at(&inside).is_some() {
            return None;
        }
    }
    Some(Fault::of(path, error.place.unwrap_or(tree.place), &error.to_string()))
}

/// More than this nobody reads.
const MAX_FAULTS: usize = 50;

/// How often a target proves that it is a shadow, where nothing is said.
const PROBE_INTERVAL: Duration = Duration::from_secs(5);
