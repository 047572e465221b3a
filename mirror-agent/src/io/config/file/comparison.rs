//! Enters: nothing. Leaves: the shape of what a file says of comparing answers.

use std::{borrow::Cow, fmt};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Serialize,
    de::{self, Deserializer, Visitor},
};

use super::{
    matching::MatchFile,
    values::{
        Count, Distance, EndpointName, Expression, Factor, HeaderName, JsonPath, Label, Part, Ratio, Size,
        StatusDigit, Template, Time,
    },
};
use crate::{
    io::config::EvidenceConfig,
    pipeline::{
        compare::CompareRules,
        judge::{GateConfig, JudgeConfig, NoiseThresholds},
    },
};

/// How the answers of live and of the targets are compared.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct CompareFile {
    /// A request that fits any of these is mirrored, but not compared: labelled test traffic.
    #[serde(default)]
    pub(super) excludes: Vec<MatchFile>,
    /// Largest content that is compared, decoded; what is longer is incomparable.
    #[serde(default = "max_body")]
    pub(super) max_body: Size,
    /// Header fields that are not compared, beside those that never are.
    #[serde(default)]
    pub(super) ignore_headers: Vec<HeaderName>,
    /// Whether 1 and 1.0 are the same number, by `value`, or not, as `text`.
    #[serde(default)]
    pub(super) numbers: NumbersFile,
    /// Arrays that are no sequences.
    #[serde(default)]
    pub(super) arrays: Vec<ArrayFile>,
    /// What else does not count as a difference.
    #[serde(default)]
    pub(super) rules: Vec<RuleFile>,
    /// Templates of paths, such as /orders/{id}; others are learned.
    #[serde(default)]
    pub(super) endpoints: Vec<Template>,
    /// Most endpoints that are told apart; the rest are one.
    #[serde(default = "max_endpoints")]
    pub(super) max_endpoints: Count,
    /// By how much the rate of a difference must exceed that of its noise: both.
    #[serde(default)]
    pub(super) noise: NoiseFile,
    /// What is kept of divergences, in memory.
    #[serde(default)]
    pub(super) evidence: EvidenceFile,
}

/// When two numbers are the same.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum NumbersFile {
    /// Where they have the same value.
    #[default]
    Value,
    /// Where they are written in the same way.
    Text,
}

/// An array that is no sequence.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ArrayFile {
    /// JSON path of the array.
    pub(super) path: JsonPath,
    /// What it is: a `set`, whose order does not count, or `ordered`.
    #[serde(rename = "as")]
    pub(super) form: Option<ArrayWord>,
    /// It is a table by this field of its elements.
    pub(super) keyed_by: Option<Label>,
}

/// What an array is.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) enum ArrayWord {
    /// The order of its elements does not count.
    Set,
    /// A sequence.
    Ordered,
}

/// What does not count as a difference: one place, and one thing that is done there.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RuleFile {
    /// Its name in reports, unique in the experiment; by default its place.
    pub(super) name: Option<Label>,
    /// The place: a JSON path.
    pub(super) path: Option<JsonPath>,
    /// The place: a header field, or a cookie as `set-cookie:NAME`.
    pub(super) header: Option<Label>,
    /// The place: a field of a form.
    pub(super) form: Option<Label>,
    /// The place: content that is text, as a whole.
    pub(super) text: Option<Yes>,
    /// The place: answers where live's has a status of this class, such as 5xx.
    pub(super) status: Option<StatusDigit>,
    /// Only in answers of this endpoint, as in reports: `GET /orders/{id}`.
    pub(super) endpoint: Option<EndpointName>,
    /// What is done: differences there do not count.
    pub(super) ignore: Option<Yes>,
    /// What is done: numbers may differ by so much.
    pub(super) tolerate: Option<ToleranceFile>,
    /// What is done: a `timestamp` or a `uuid` is as good as another.
    pub(super) normalize: Option<NormalWord>,
    /// What is done: what an expression finds is replaced on both sides before they are compared.
    pub(super) replace: Option<ReplaceFile>,
}

/// `true`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Yes;

/// By how much two numbers may differ: either is enough.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ToleranceFile {
    /// The largest difference.
    pub(super) absolute: Option<Distance>,
    /// The largest difference as a share of the larger of the two, such as 0.1%.
    pub(super) relative: Option<Ratio>,
}

/// Values of which one is as good as another.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) enum NormalWord {
    /// Points in time.
    Timestamp,
    /// UUIDs.
    Uuid,
}

/// What is replaced on both sides.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ReplaceFile {
    /// The regular expression, which is looked for anywhere.
    pub(super) pattern: Expression,
    /// What takes the place of each find.
    pub(super) with: String,
}

/// By how much the rate of a difference must exceed that of its noise: both.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct NoiseFile {
    /// As a share of the sum of both.
    #[serde(default = "noise_relative")]
    pub(super) relative: Part,
    /// As a share of the endpoint's exchanges.
    #[serde(default = "noise_absolute")]
    pub(super) absolute: Part,
}

/// What is kept of divergences, in memory.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct EvidenceFile {
    /// Clusters of divergences that are told apart; those not seen for longest make room.
    #[serde(default = "clusters")]
    pub(super) clusters: Count,
    /// Full samples of each.
    #[serde(default = "samples")]
    pub(super) samples: Count,
    /// For how long a cluster is kept after it was last seen.
    #[serde(default = "retention")]
    pub(super) retention: Time,
    /// Most memory of all of them.
    #[serde(default = "evidence_memory")]
    pub(super) memory: Size,
}

/// What a new version has to keep to.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct GateFile {
    /// Largest share of exchanges that diverge.
    #[serde(default = "gate_divergence")]
    pub(super) divergence: Ratio,
    /// Largest p95 of the service time, as a multiple of live's, or of the control's where there is one; or `any`.
    #[serde(default)]
    pub(super) p95: FactorFile,
    /// By how much the share of errors may exceed live's.
    #[serde(default = "gate_errors")]
    pub(super) errors: Ratio,
    /// Exchanges that a verdict needs.
    #[serde(default = "min_samples")]
    pub(super) min_samples: Count,
    /// How far back a verdict looks; to the beginning where nothing is said.
    pub(super) window: Option<Time>,
    /// What happens where it is missed: `report`, or `pause` too, the experiment.
    #[serde(default)]
    pub(super) on_fail: OnFailWord,
    /// Whether more than twice the allowed share of divergences pauses the experiment at once.
    #[serde(default)]
    pub(super) pause_on_burn: bool,
}

/// What happens where the gate is missed.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum OnFailWord {
    /// It is told.
    #[default]
    Report,
    /// The experiment is paused, too.
    Pause,
}

/// A multiple of a time, or any.
#[derive(Clone, Copy, Debug)]
pub(super) struct FactorFile(pub(super) Option<f64>);

impl Default for FactorFile {
    fn default() -> Self {
        Self(GateConfig::default().p95)
    }
}

impl Default for NoiseFile {
    fn default() -> Self {
        Self { relative: noise_relative(), absolute: noise_absolute() }
    }
}

impl Default for EvidenceFile {
    fn default() -> Self {
        Self { clusters: clusters(), samples: samples(), retention: retention(), memory: evidence_memory() }
    }
}

impl<'de> Deserialize<'de> for Yes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct YesVisitor;

        impl Visitor<'_> for YesVisitor {
            type Value = Yes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`true`: leave the key out otherwise")
            }

            fn visit_bool<E: de::Error>(self, value: bool) -> Result<Yes, E> {
                value.then_some(Yes).ok_or_else(|| E::invalid_value(de::Unexpected::Bool(value), &self))
            }
        }

        deserializer.deserialize_bool(YesVisitor)
    }
}

impl JsonSchema for Yes {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Yes".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "const": true })
    }
}

impl<'de> Deserialize<'de> for FactorFile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FactorVisitor;

        impl Visitor<'_> for FactorVisitor {
            type Value = FactorFile;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number from 0.1 to 100, or `any`")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<FactorFile, E> {
                if text == "any" {
                    return Ok(FactorFile(None));
                }
                Err(E::invalid_value(de::Unexpected::Str(text), &self))
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<FactorFile, E> {
                let factor = Factor::deserialize(de::value::U64Deserializer::new(number))?;
                Ok(FactorFile(Some(factor.0)))
            }

            fn visit_f64<E: de::Error>(self, number: f64) -> Result<FactorFile, E> {
                let factor = Factor::deserialize(de::value::F64Deserializer::new(number))?;
                Ok(FactorFile(Some(factor.0)))
            }
        }

        deserializer.deserialize_any(FactorVisitor)
    }
}

impl Serialize for FactorFile {
    /// For the default in the schema.
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl JsonSchema for FactorFile {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "FactorOrAny".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [{ "const": "any" }, generator.subschema_for::<Factor>()] })
    }
}

fn max_body() -> Size {
    Size(u64::try_from(CompareRules::default().content_bytes).unwrap_or(u64::MAX))
}

fn max_endpoints() -> Count {
    count(JudgeConfig::default().max_endpoints)
}

fn noise_relative() -> Part {
    Part(NoiseThresholds::default().relative)
}

fn noise_absolute() -> Part {
    Part(NoiseThresholds::default().absolute)
}

fn clusters() -> Count {
    count(EvidenceConfig::default().clusters)
}

fn samples() -> Count {
    count(EvidenceConfig::default().samples)
}

fn retention() -> Time {
    Time(EvidenceConfig::default().retention)
}

fn evidence_memory() -> Size {
    Size(EvidenceConfig::default().bytes)
}

fn gate_divergence() -> Ratio {
    Ratio(GateConfig::default().divergence)
}

fn gate_errors() -> Ratio {
    Ratio(GateConfig::default().errors)
}

fn min_samples() -> Count {
    Count(u32::try_from(GateConfig::default().min_samples).unwrap_or(u32::MAX))
}

fn count(number: usize) -> Count {
    Count(u32::try_from(number).unwrap_or(u32::MAX))
}
