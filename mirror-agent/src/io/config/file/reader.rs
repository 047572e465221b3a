//! Enters: a tree of values. Leaves: a value of a type that serde knows, or what is wrong and where.

use std::fmt;

use serde::{
    de::{
        self, DeserializeSeed, Deserializer, EnumAccess, Error as _, IntoDeserializer, MapAccess, SeqAccess,
        Unexpected, VariantAccess, Visitor,
    },
    forward_to_deserialize_any,
};

use super::{
    fault::Place,
    tree::{Key, Node, Step, Value},
};

/// Why a tree is not a value of the type that is asked for.
#[derive(Debug)]
pub(super) struct ReadError {
    /// What is wrong.
    pub(super) problem: Problem,
    /// Where, once that is known.
    pub(super) place: Option<Place>,
    /// The way to it, from the inside to the outside.
    steps: Vec<Step>,
}

/// What is wrong.
#[derive(Debug)]
pub(super) enum Problem {
    /// A key that must be there is not.
    Missing(&'static str),
    /// Anything else, as the user reads it.
    Other(String),
}

impl ReadError {
    /// The way to it.
    pub(super) fn path(&self) -> Vec<Step> {
        self.steps.iter().rev().cloned().collect()
    }

    fn at(mut self, place: Place) -> Self {
        self.place.get_or_insert(place);
        self
    }

    fn within(mut self, step: Step, place: Place) -> Self {
        self.steps.push(step);
        self.at(place)
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.problem {
            Problem::Missing(key) => write!(f, "the key `{key}` is missing"),
            Problem::Other(message) => f.write_str(message),
        }
    }
}

impl std::error::Error for ReadError {}

impl de::Error for ReadError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self { problem: Problem::Other(message.to_string()), place: None, steps: Vec::new() }
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        let is_plain = matches!(
            found,
            Unexpected::Bool(_) | Unexpected::Signed(_) | Unexpected::Unsigned(_) | Unexpected::Float(_)
        );
        let expected = expected.to_string();
        let expected = plainly(&expected);
        let advice = if is_plain && matches!(expected, TEXT | PATH) { "; put it in quotes" } else { "" };
        Self::custom(format_args!("expected {expected}, found {}{advice}", named(&found)))
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        let expected = expected.to_string();
        Self::custom(format_args!("expected {}, found {}", plainly(&expected), named(&found)))
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        Self::custom(format_args!("{variant:?} is not known here; expected {}", any_of(expected)))
    }

    fn unknown_field(_field: &str, expected: &'static [&'static str]) -> Self {
        Self::custom(format_args!("unknown key; there are {}", any_of(expected)))
    }

    fn missing_field(field: &'static str) -> Self {
        Self { problem: Problem::Missing(field), place: None, steps: Vec::new() }
    }
}

/// What serde's own types expect, in the words of a user.
fn plainly(expected: &str) -> &str {
    match expected {
        "a sequence" => "a list",
        "a string" => TEXT,
        "a boolean" => "`true` or `false`",
        "path string" => PATH,
        _ if expected.starts_with("struct ") => KEYS,
        _ => expected,
    }
}

const KEYS: &str = "keys with values";
const TEXT: &str = "a text";
const PATH: &str = "a path";

fn any_of(words: &[&str]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

fn named(found: &Unexpected<'_>) -> String {
    match found {
        Unexpected::Bool(value) => format!("`{value}`"),
        Unexpected::Unsigned(value) => format!("the number {value}"),
        Unexpected::Signed(value) => format!("the number {value}"),
        Unexpected::Float(value) => format!("the number {value}"),
        Unexpected::Str(text) => format!("{text:?}"),
        Unexpected::Unit | Unexpected::Option => "nothing".to_owned(),
        Unexpected::Seq => "a list".to_owned(),
        Unexpected::Map | Unexpected::StructVariant => KEYS.to_owned(),
        Unexpected::Other(other) => (*other).to_owned(),
        Unexpected::Char(_)
        | Unexpected::Bytes(_)
        | Unexpected::NewtypeStruct
        | Unexpected::Enum
        | Unexpected::UnitVariant
        | Unexpected::NewtypeVariant
        | Unexpected::TupleVariant => found.to_string(),
    }
}

impl<'de> Deserializer<'de> for &'de Node {
    type Error = ReadError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        let told = match &self.value {
            Value::Nothing => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Integer(value) => match (u64::try_from(*value), i64::try_from(*value)) {
                (Ok(value), _) => visitor.visit_u64(value),
                (_, Ok(value)) => visitor.visit_i64(value),
                _ => Err(ReadError::custom(format_args!("{value} is too large"))),
            },
            Value::Float(value) => visitor.visit_f64(*value),
            Value::Text(text) => visitor.visit_borrowed_str(text),
            Value::List(items) => visitor.visit_seq(Items { items: items.iter(), index: 0 }),
            Value::Map(entries) => visitor.visit_map(Entries { entries: entries.iter(), value: None }),
        };
        told.map_err(|error| error.at(self.place))
    }

    /// A key that may be left out. One that is there without a value may be meant to stand for its defaults, as `compare:` does in
    /// the eyes of whoever has made comments of all below it; that it is not there would be the opposite.
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        if matches!(self.value, Value::Nothing) {
            let error = ReadError::custom(
                "the key has no value: leave it out, or write `{}` for the defaults of what is below it",
            );
            return Err(error.at(self.place));
        }
        visitor.visit_some(self)
    }

    /// Only by its keys: of a list nobody could say which value is meant for which.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        if matches!(self.value, Value::List(_)) {
            return Err(ReadError::invalid_type(Unexpected::Seq, &KEYS).at(self.place));
        }
        self.deserialize_any(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        let told = match &self.value {
            Value::Text(text) => visitor.visit_enum(Word(text)),
            Value::Nothing
            | Value::Bool(_)
            | Value::Integer(_)
            | Value::Float(_)
            | Value::List(_)
            | Value::Map(_) => Err(ReadError::custom(format_args!("expected one of {}", any_of(variants)))),
        };
        told.map_err(|error| error.at(self.place))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map identifier ignored_any
    }
}

/// The items of a list that are not left aside.
struct Items<'de> {
    items: std::slice::Iter<'de, Node>,
    index: usize,
}

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = ReadError;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, ReadError> {
        loop {
            let Some(node) = self.items.next() else { return Ok(None) };
            let index = self.index;
            self.index = index.saturating_add(1);
            if !node.is_skipped {
                let told = seed.deserialize(node);
                return told.map(Some).map_err(|error| error.within(Step::Item(index), node.place));
            }
        }
    }
}

/// The entries of a map that are not left aside.
struct Entries<'de> {
    entries: std::slice::Iter<'de, (Key, Node)>,
    value: Option<&'de (Key, Node)>,
}

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = ReadError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, ReadError> {
        self.value = self.entries.find(|(_, node)| !node.is_skipped);
        let Some((key, _)) = self.value else { return Ok(None) };
        let told = seed.deserialize(key.text.as_str().into_deserializer());
        told.map(Some).map_err(|error: ReadError| error.within(Step::Key(key.text.clone()), key.place))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, ReadError> {
        let Some((key, node)) = self.value.take() else {
            return Err(ReadError::custom("a value without a key"));
        };
        seed.deserialize(node).map_err(|error| error.within(Step::Key(key.text.clone()), node.place))
    }
}

/// A word that stands for one of several things.
struct Word<'de>(&'de str);

impl<'de> EnumAccess<'de> for Word<'de> {
    type Error = ReadError;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), ReadError> {
        Ok((seed.deserialize(self.0.into_deserializer())?, self))
    }
}

impl<'de> VariantAccess<'de> for Word<'de> {
    type Error = ReadError;

    fn unit_variant(self) -> Result<(), ReadError> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, _seed: T) -> Result<T::Value, ReadError> {
        Err(ReadError::custom("expected keys with values"))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _len: usize, _visitor: V) -> Result<V::Value, ReadError> {
        Err(ReadError::custom("expected keys with values"))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _fields: &'static [&'static str],
        _visitor: V,
    ) -> Result<V::Value, ReadError> {
        Err(ReadError::custom("expected keys with values"))
    }
}
