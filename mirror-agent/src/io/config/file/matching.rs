//! Enters: nothing. Leaves: the shape of what a file says of requests, in the words of Gateway API.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize,
    de::{self, Deserializer, SeqAccess, Visitor},
};

use super::values::{By, HeaderName, Hostname, Method, ParameterName, Percent};
use crate::{
    io::config::{MissingKey, SampleKey},
    pipeline::policy::{Methods, Share},
};

/// What a request must be like: all that is said.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct MatchFile {
    /// Its path, without the query.
    pub(super) path: Option<PathFile>,
    /// Its method: a list of these, or `all`. Where nothing is said, in `matches` GET, HEAD and OPTIONS, in `excludes`
    /// all. Others than these three are writes at the target, and need its `interlock`.
    pub(super) methods: Option<MethodsFile>,
    /// Header fields that it must have.
    #[serde(default)]
    pub(super) headers: Vec<HeaderFile>,
    /// Query parameters that it must have.
    #[serde(default)]
    pub(super) query_params: Vec<ParameterFile>,
    /// Its host, without the port: any of these names, or `*.` and the end of names.
    #[serde(default)]
    pub(super) hostnames: Vec<Hostname>,
}

impl MatchFile {
    /// Whether nothing is said.
    pub(super) const fn is_empty(&self) -> bool {
        self.path.is_none()
            && self.methods.is_none()
            && self.headers.is_empty()
            && self.query_params.is_empty()
            && self.hostnames.is_empty()
    }
}

/// What a path must be like.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct PathFile {
    /// `Exact`: the same. `PathPrefix`: it begins with these path elements. `RegularExpression`: the expression fits
    /// all of it.
    #[serde(rename = "type", default)]
    pub(super) kind: PathKind,
    /// The path or the expression.
    pub(super) value: String,
}

/// How a path is compared.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, serde::Serialize)]
pub(super) enum PathKind {
    /// The same, byte for byte.
    Exact,
    /// It begins with these path elements.
    #[default]
    PathPrefix,
    /// The expression fits all of it.
    RegularExpression,
}

/// How a value is compared.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, serde::Serialize)]
pub(super) enum ValueKind {
    /// The same, byte for byte.
    #[default]
    Exact,
    /// The expression fits all of it.
    RegularExpression,
    /// Any.
    Present,
}

/// A header field that a request must have.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct HeaderFile {
    /// Its name, in any case.
    pub(super) name: HeaderName,
    /// How its value is compared; with `Present` it is not.
    #[serde(rename = "type", default)]
    pub(super) kind: ValueKind,
    /// The value or the expression.
    pub(super) value: Option<String>,
}

/// A query parameter that a request must have.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ParameterFile {
    /// Its name.
    pub(super) name: ParameterName,
    /// How its value is compared; with `Present` it is not.
    #[serde(rename = "type", default)]
    pub(super) kind: ValueKind,
    /// The value or the expression.
    pub(super) value: Option<String>,
}

/// A share of requests.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct SampleFile {
    /// How many, from 0 to 100; fractions are allowed.
    #[serde(default)]
    pub(super) percent: Percent,
    /// What is in or out together: `request`, `connection`, `client` (the address), `header:NAME`, `cookie:NAME`,
    /// `query:NAME` or `jwt:CLAIM`.
    #[serde(default)]
    pub(super) by: By,
    /// What happens to a request without that key: `skip` or `request`, sampled for itself.
    #[serde(default)]
    pub(super) missing: MissingKey,
}

impl Default for By {
    fn default() -> Self {
        Self(SampleKey::Request)
    }
}

impl Default for Percent {
    fn default() -> Self {
        Self(Share::ALL)
    }
}

/// A list of methods, or `all`.
#[derive(Debug)]
pub(super) enum MethodsFile {
    /// Every method.
    All,
    /// These.
    List(Vec<Method>),
}

impl JsonSchema for MethodsFile {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Methods".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let method = generator.subschema_for::<Method>();
        json_schema!({ "anyOf": [{ "const": "all" }, { "type": "array", "items": method, "minItems": 1 }] })
    }
}

impl From<MethodsFile> for Methods {
    fn from(file: MethodsFile) -> Self {
        match file {
            MethodsFile::All => Self::All,
            MethodsFile::List(list) => Self::Only(list.into_iter().map(|method| method.0).collect()),
        }
    }
}

impl<'de> Deserialize<'de> for MethodsFile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MethodsVisitor;

        impl<'de> Visitor<'de> for MethodsVisitor {
            type Value = MethodsFile;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a list of methods such as [GET, POST], or `all`")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<MethodsFile, E> {
                if text == "all" {
                    return Ok(MethodsFile::All);
                }
                Err(E::invalid_value(de::Unexpected::Str(text), &self))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<MethodsFile, A::Error> {
                let list = Vec::deserialize(de::value::SeqAccessDeserializer::new(items))?;
                Ok(MethodsFile::List(list))
            }
        }

        deserializer.deserialize_any(MethodsVisitor)
    }
}
