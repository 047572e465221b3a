//! Enters: the text of a configuration file. Leaves: its values as a tree, each with the place where it stands.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{
    DuplicateKeyPolicy, NonFiniteFloatPolicy, Spanned, alias_limits, budget, budget::BudgetBreach, options,
};

use super::fault::{Fault, Place};

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Node {
    /// Where it begins.
    pub(super) place: Place,
    /// The value.
    pub(super) value: Value,
    /// Something was wrong with it, which was said: it is read as if it were not there.
    pub(super) is_skipped: bool,
}

/// What a file can hold.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Nothing,
    Bool(bool),
    Integer(i128),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

/// A key and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Key {
    pub(super) text: String,
    pub(super) place: Place,
}

/// One step from a value to one inside of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Step {
    Key(String),
    Item(usize),
}

/// Reads YAML, of which JSON is a part.
///
/// # Errors
///
/// The text is not YAML, or more than a configuration can sensibly be.
pub(super) fn parse(text: &str) -> Result<Node, Fault> {
    let budget = budget! {
        max_nodes: MAX_NODES,
        max_events: MAX_NODES,
        max_depth: MAX_DEPTH,
        max_documents: 1,
        max_aliases: MAX_ALIASES,
        max_merge_keys: MAX_ALIASES,
        max_total_scalar_bytes: MAX_TEXT_BYTES,
    };
    let options = options! {
        budget: budget,
        alias_limits: alias_limits! { max_total_replayed_events: MAX_NODES },
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        strict_booleans: true,
        non_finite_float_policy: NonFiniteFloatPolicy::AsString,
        with_snippet: false,
    };
    match serde_saphyr::from_str_with_options::<Spanned<Value>>(text, options) {
        Ok(spanned) => Ok(spanned.into()),
        Err(error) => {
            let place =
                error.location().map(|location| Place { line: location.line(), column: location.column() });
            Err(Fault::new(place.unwrap_or_default(), &message_of(error.without_snippet())))
        }
    }
}

fn message_of(error: &serde_saphyr::Error) -> String {
    if let serde_saphyr::Error::Budget { breach, .. } = error {
        let message = if matches!(breach, BudgetBreach::Documents { .. }) {
            "a second document begins here (`---`): a configuration is one"
        } else {
            "there is more here than a configuration can sensibly have"
        };
        return message.to_owned();
    }
    let message = error.to_string();
    // The place is told by itself.
    message.split_once(" at line ").map_or(message.as_str(), |(before, _)| before).to_owned()
}

/// Values of a file: a configuration with all experiments and targets that there may be has fewer.
const MAX_NODES: usize = 100_000;

/// Uses of what is written once. With them a file of a few lines can stand for much more than its size.
const MAX_ALIASES: usize = 2_000;

/// Bytes of all texts, what is used again included: twice what a file can have.
const MAX_TEXT_BYTES: usize = 2 * 1024 * 1024;

/// How deep values may lie in each other. A configuration needs 9.
const MAX_DEPTH: usize = 32;

impl From<Spanned<Value>> for Node {
    fn from(spanned: Spanned<Value>) -> Self {
        let place = Place { line: spanned.referenced.line(), column: spanned.referenced.column() };
        Self { place, value: spanned.value, is_skipped: false }
    }
}

impl Node {
    /// The value at the end of `path`, or the last one on the way that is there.
    pub(super) fn nearest(&self, path: &[Step]) -> &Self {
        let mut node = self;
        for step in path {
            match node.child(step) {
                Some(child) => node = child,
                None => break,
            }
        }
        node
    }

    /// The value at the end of `path`.
    pub(super) fn at(&self, path: &[Step]) -> Option<&Self> {
        path.iter().try_fold(self, |node, step| node.child(step))
    }

    /// Whether nothing was left aside, here and further inside.
    pub(super) fn is_whole(&self) -> bool {
        !self.is_skipped
            && match &self.value {
                Value::List(items) => items.iter().all(Self::is_whole),
                Value::Map(entries) => entries.iter().all(|(_, node)| node.is_whole()),
                Value::Nothing | Value::Bool(_) | Value::Integer(_) | Value::Float(_) | Value::Text(_) => {
                    true
                }
            }
    }

    /// Leaves the value at the end of `path` aside. Gives false where there is none, or it was left aside already.
    pub(super) fn skip(&mut self, path: &[Step]) -> bool {
        let mut node = self;
        for step in path {
            let child = match (&mut node.value, step) {
                (Value::List(items), Step::Item(index)) => items.get_mut(*index),
                (Value::Map(entries), Step::Key(name)) => {
                    let is_meant = |(key, node): &&mut (Key, Self)| key.text == *name && !node.is_skipped;
                    entries.iter_mut().find(is_meant).map(|(_, node)| node)
                }
                _ => None,
            };
            match child {
                Some(child) => node = child,
                None => return false,
            }
        }
        !std::mem::replace(&mut node.is_skipped, true)
    }

    /// Leaves aside each value whose key was there before, and gives their paths.
    pub(super) fn skip_doubles(&mut self) -> Vec<(Vec<Step>, Place)> {
        let mut found = Vec::new();
        self.find_doubles(&mut Vec::new(), &mut found);
        found
    }

    fn find_doubles(&mut self, path: &mut Vec<Step>, found: &mut Vec<(Vec<Step>, Place)>) {
        match &mut self.value {
            Value::List(items) => {
                for (index, item) in items.iter_mut().enumerate() {
                    path.push(Step::Item(index));
                    item.find_doubles(path, found);
                    path.pop();
                }
            }
            Value::Map(entries) => {
                let mut seen = std::collections::BTreeSet::new();
                for (key, node) in entries {
                    path.push(Step::Key(key.text.clone()));
                    if seen.insert(key.text.as_str()) {
                        node.find_doubles(path, found);
                    } else {
                        node.is_skipped = true;
                        found.push((path.clone(), key.place));
                    }
                    path.pop();
                }
            }
            Value::Nothing | Value::Bool(_) | Value::Integer(_) | Value::Float(_) | Value::Text(_) => {}
        }
    }

    /// The positions of those items of a list that were not left aside.
    pub(super) fn items_left(&self) -> Vec<usize> {
        let Value::List(items) = &self.value else { return Vec::new() };
        items.iter().enumerate().filter(|(_, item)| !item.is_skipped).map(|(index, _)| index).collect()
    }

    fn child(&self, step: &Step) -> Option<&Self> {
        match (&self.value, step) {
            (Value::List(items), Step::Item(index)) => items.get(*index),
            (Value::Map(entries), Step::Key(name)) => {
                entries.iter().find(|(key, _)| key.text == *name).map(|(_, node)| node)
            }
            _ => None,
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Nothing)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Nothing)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        Value::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Integer(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Integer(value.into()))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Value, E> {
        Ok(Value::Integer(value))
    }

    fn visit_u128<E: serde::de::Error>(self, value: u128) -> Result<Value, E> {
        i128::try_from(value).map(Value::Integer).map_err(|_error| E::custom("the number is too large"))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::Text(value))
    }

    fn visit_bytes<E: serde::de::Error>(self, _: &[u8]) -> Result<Value, E> {
        Err(E::custom("binary values are not used here"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element::<Spanned<Value>>()? {
            list.push(item.into());
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Vec::new();
        while let Some(key) = entries.next_key::<Spanned<Value>>()? {
            let place = Place { line: key.referenced.line(), column: key.referenced.column() };
            let text = match key.value {
                Value::Text(text) => text,
                Value::Bool(value) => value.to_string(),
                Value::Integer(value) => value.to_string(),
                Value::Nothing | Value::Float(_) | Value::List(_) | Value::Map(_) => {
                    return Err(A::Error::custom("a key is a text"));
                }
            };
            map.push((Key { text, place }, entries.next_value::<Spanned<Value>>()?.into()));
        }
        Ok(Value::Map(map))
    }
}
