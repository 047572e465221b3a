//! Enters: nothing. Leaves: the shape of the part of a configuration that says how answers are compared.

use std::{path::PathBuf, time::Duration};

use super::MatchConfig;
use crate::pipeline::{
    compare::CompareRules,
    judge::JudgeConfig,
    redact::RedactRules,
    session::{Source, SourceError},
};

/// How the answers of an experiment are compared, judged and kept.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ComparisonConfig {
    /// Requests that are mirrored, but not compared: labelled test traffic.
    pub excludes: Vec<MatchConfig>,
    /// What counts as a difference.
    pub rules: CompareRules,
    /// When there are too many of them.
    pub judge: JudgeConfig,
    /// What is kept of them.
    pub evidence: EvidenceConfig,
    /// What of it nobody must see.
    pub redact: RedactRules,
    /// Where exchanges are written to.
    pub sinks: Vec<SinkConfig>,
}

/// What is kept of divergences, in memory.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct EvidenceConfig {
    /// Clusters of divergences that are kept; those not seen for longest make room.
    pub clusters: usize,
    /// Full samples of each.
    pub samples: usize,
    /// For how long a cluster is kept after it was last seen.
    pub retention: Duration,
    /// Most bytes of all samples.
    pub bytes: u64,
}

impl Default for EvidenceConfig {
    fn default() -> Self {
        Self {
            clusters: 200,
            samples: 3,
            retention: Duration::from_secs(7 * 24 * 60 * 60),
            bytes: 32 * 1024 * 1024,
        }
    }
}

/// Where exchanges are written to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SinkConfig {
    /// Its name, unique within the experiment.
    pub name: String,
    /// Which exchanges.
    pub take: SinkTake,
    /// Where to.
    pub to: SinkPlace,
}

/// Which exchanges a sink takes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum SinkTake {
    /// Those that diverge.
    #[default]
    Divergent,
    /// All that were compared, or could not be.
    All,
}

/// Where a sink writes to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum SinkPlace {
    /// A file of JSON lines.
    File {
        /// Where it is.
        path: PathBuf,
        /// At which size, in bytes, another one is begun.
        max_size: u64,
        /// How many full ones are kept.
        keep: u32,
    },
    /// A Kafka topic, keyed by the number of the exchange.
    Kafka {
        /// Where to ask for the brokers: `host:port`.
        brokers: Vec<String>,
        /// The records' topics.
        topics: KafkaTopics,
    },
}

/// What goes to which topic.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum KafkaTopics {
    /// One record an exchange, with both answers.
    Joined(String),
    /// The answers of live and of the targets apart.
    Apart {
        /// Live's.
        live: String,
        /// The targets'.
        shadow: String,
    },
}

/// What a target is for.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum TargetRole {
    /// A new version.
    #[default]
    Shadow,
    /// A second copy of the live version: how it differs from live is noise.
    Control,
}

/// A value of live's that a target knows by another: what live answered to a login is not what the target did.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SessionConfig {
    /// Where both answers have it.
    pub from: SessionSource,
    /// Where later requests bear it: live's is replaced by the target's.
    pub into: Vec<SessionUse>,
    /// For how long it is known after it was last used.
    pub ttl: Duration,
    /// How many of them are known; those not used for longest are forgotten.
    pub max: usize,
}

/// Where an answer has a value.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum SessionSource {
    /// The value of this header field.
    Header(String),
    /// The value of this cookie, in `set-cookie`.
    Cookie(String),
    /// A string at this JSON path.
    Json(String),
}

impl SessionSource {
    /// The same, made ready to be looked for.
    ///
    /// # Errors
    ///
    /// A name or a path that no answer can have, or a path of more than one place.
    pub fn source(&self) -> Result<Source, SourceError> {
        match self {
            Self::Header(name) => Source::header(name),
            Self::Cookie(name) => Source::cookie(name),
            Self::Json(path) => Source::json(path),
        }
    }
}

/// Where a request bears a value.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum SessionUse {
    /// In the value of this header field, wherever in it: `authorization`.
    Header(String),
    /// The value of this cookie.
    Cookie(String),
    /// The value of this query parameter.
    Query(String),
}
