//! Enters: nothing. Leaves: the shape of what a file says of what is redacted, of sinks, and of sessions.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::values::{
    Broker, Count, Expression, HeaderName, JsonPath, Label, Name, ParameterName, Size, Time, Topic,
};

/// What must not be kept or handed on, beside what never is.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RedactFile {
    /// Header fields.
    #[serde(default)]
    pub(super) headers: Vec<HeaderName>,
    /// Keys of JSON objects, forms and queries, in any case, with or without - and _.
    #[serde(default)]
    pub(super) keys: Vec<Label>,
    /// JSON paths.
    #[serde(default)]
    pub(super) paths: Vec<JsonPath>,
    /// Regular expressions; what they find in any value is taken out.
    #[serde(default)]
    pub(super) patterns: Vec<Expression>,
}

/// Where exchanges are written to: a `file` or `kafka`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct SinkFile {
    /// Its name, unique within the experiment: 1 to 63 of a-z, 0-9 and -.
    pub(super) name: Name,
    /// Which exchanges: `divergent` ones, or `all`.
    #[serde(default)]
    pub(super) take: TakeWord,
    /// A file of JSON lines.
    pub(super) file: Option<SinkPathFile>,
    /// A topic of Kafka's, or two.
    pub(super) kafka: Option<KafkaFile>,
}

/// Which exchanges a sink takes.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum TakeWord {
    /// Those that diverge.
    #[default]
    Divergent,
    /// All that were compared, or could not be.
    All,
}

/// A file of JSON lines.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct SinkPathFile {
    /// Where it is.
    pub(super) path: PathBuf,
    /// At which size another one is begun.
    #[serde(default = "file_size")]
    pub(super) max_size: Size,
    /// How many full ones are kept.
    #[serde(default = "file_keep")]
    pub(super) keep: Count,
}

/// A topic of Kafka's, or two: `topic` or `topics`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct KafkaFile {
    /// Where to ask for the brokers: HOST:PORT.
    #[schemars(length(min = 1))]
    pub(super) brokers: Vec<Broker>,
    /// One record an exchange goes there, with both answers.
    pub(super) topic: Option<Topic>,
    /// The answers of live and of the targets go there apart.
    pub(super) topics: Option<TopicsFile>,
}

/// Where answers go apart.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct TopicsFile {
    /// Live's.
    pub(super) live: Topic,
    /// The targets'.
    pub(super) shadow: Topic,
}

/// A value of live's that a target knows by another.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct SessionFile {
    /// Where both answers have it.
    pub(super) from: SessionFromFile,
    /// Where later requests bear it: there live's is replaced by the target's.
    #[schemars(length(min = 1))]
    pub(super) into: Vec<SessionIntoFile>,
    /// For how long it is known after it was last used.
    #[serde(default = "session_ttl")]
    pub(super) ttl: Time,
    /// How many of them are known; those not used for longest are forgotten.
    #[serde(default = "session_max")]
    pub(super) max: Count,
}

/// Where an answer has a value: one of these.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct SessionFromFile {
    /// The value of this header field.
    pub(super) header: Option<HeaderName>,
    /// The value of this cookie, in `set-cookie`.
    pub(super) cookie: Option<HeaderName>,
    /// A string at this JSON path.
    pub(super) path: Option<JsonPath>,
}

/// Where a request bears a value: one of these.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct SessionIntoFile {
    /// In the value of this header field, wherever in it.
    pub(super) header: Option<HeaderName>,
    /// The value of this cookie.
    pub(super) cookie: Option<HeaderName>,
    /// The value of this query parameter.
    pub(super) query: Option<ParameterName>,
}

const fn file_size() -> Size {
    Size(64 * 1024 * 1024)
}

const fn file_keep() -> Count {
    Count(4)
}

const fn session_ttl() -> Time {
    Time(std::time::Duration::from_secs(30 * 60))
}

const fn session_max() -> Count {
    Count(10_000)
}
