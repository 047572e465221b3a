//! Enters: what a file says of pods. Leaves: the pods that an experiment is about.

use std::{borrow::Cow, fmt};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize,
    de::{self, Deserializer, Visitor},
};

use super::{
    ordered::Ordered,
    resolve::Checker,
    values::{LabelValue, PodName},
    words,
};
use crate::io::config::{LabelExpression, LabelOperator, LabelSelector, PodPort, PodsConfig};

/// Which pods; those of them that run on the agent's node count.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct PodsFile {
    /// Their namespace.
    pub(super) namespace: PodName,
    /// Which of them, as a Deployment says it.
    pub(super) selector: SelectorFile,
    /// Their ports: numbers, or names that containers give their ports. Where nothing is said, all TCP ports that their
    /// containers declare.
    #[serde(default)]
    pub(super) ports: Vec<PodPortFile>,
}

/// Which pods, by their labels: all that is said.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct SelectorFile {
    /// Labels with their values.
    #[serde(default)]
    pub(super) match_labels: Ordered<LabelValue, LabelValue>,
    /// What else is to be true of labels.
    #[serde(default)]
    pub(super) match_expressions: Vec<ExpressionFile>,
}

/// What is to be true of one label.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ExpressionFile {
    /// Its key.
    pub(super) key: LabelValue,
    /// `In` and `NotIn` the values; `Exists` and `DoesNotExist` without values.
    pub(super) operator: LabelOperator,
    /// The values.
    #[serde(default)]
    pub(super) values: Vec<LabelValue>,
}

/// A port by number or by name.
#[derive(Debug)]
pub(super) struct PodPortFile(PodPort);

impl<'de> Deserialize<'de> for PodPortFile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PortVisitor;

        impl Visitor<'_> for PortVisitor {
            type Value = PodPortFile;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a port from 1 to 65535, or the name of one")
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<PodPortFile, E> {
                match u16::try_from(number) {
                    Ok(port @ 1..) => Ok(PodPortFile(PodPort::Number(port))),
                    _ => Err(E::invalid_value(de::Unexpected::Unsigned(number), &self)),
                }
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<PodPortFile, E> {
                words::port_name(text).map(|name| PodPortFile(PodPort::Name(name))).map_err(E::custom)
            }
        }

        deserializer.deserialize_any(PortVisitor)
    }
}

impl JsonSchema for PodPortFile {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "PodPort".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [
                { "type": "integer", "minimum": 1, "maximum": 65_535 },
                { "type": "string", "pattern": "^[a-z0-9-]{1,15}$" },
            ]
        })
    }
}

/// The pods of an experiment, at the path of `pods`.
pub(super) fn pods(file: PodsFile, checker: &mut Checker<'_>) -> PodsConfig {
    let selector = checker.within("selector", |checker| selector(file.selector, checker));
    PodsConfig {
        namespace: file.namespace.0,
        selector,
        ports: file.ports.into_iter().map(|port| port.0).collect(),
        servers: Vec::new(),
    }
}

fn selector(file: SelectorFile, checker: &mut Checker<'_>) -> LabelSelector {
    if file.match_labels.0.is_empty() && file.match_expressions.is_empty() {
        checker.fault("it means every pod of the namespace: say at least one label".to_owned());
    }
    let labels = file.match_labels.0.into_iter().map(|(key, value)| (key.0, value.0)).collect();
    let expressions = checker.within("matchExpressions", |checker| {
        checker.each(file.match_expressions, |checker, ExpressionFile { key, operator, values }| {
            if operator.has_values() == values.is_empty() {
                let message = if values.is_empty() {
                    "the operator needs `values`"
                } else {
                    "the operator takes no `values`"
                };
                checker.fault(message.to_owned());
            }
            LabelExpression {
                key: key.0,
                operator,
                values: values.into_iter().map(|value| value.0).collect(),
            }
        })
    });
    LabelSelector { labels, expressions }
}
