//! Enters: nothing. Leaves: the shape of what a file says of a target.

use std::{borrow::Cow, fmt, path::PathBuf, time::Duration};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize,
    de::{self, Deserializer, MapAccess, Visitor, value::MapAccessDeserializer},
};

use super::{
    PROBE_INTERVAL,
    keeping::SessionFile,
    ordered::Ordered,
    values::{
        Count, Depth, ErrorRatio, HeaderName, HeaderValue, Host, ParameterName, PathText, PerSecond, Size,
        Time, Url,
    },
};
use crate::io::config::{CopyOrder, DropPolicy, HostPolicy};

/// One endpoint that receives copies, and how it is treated.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct TargetFile<N> {
    /// Its name, unique within the experiment: 1 to 63 of a-z, 0-9 and -. That of a control may be left out.
    pub(super) name: N,
    /// Where it is: scheme, host and maybe a port, no path.
    pub(super) url: Url,
    /// How it is known to be the right one, where the scheme is https.
    #[serde(default)]
    pub(super) tls: TlsFile,
    /// How long a connection may take to open.
    #[serde(default = "one_second")]
    pub(super) connect_timeout: Time,
    /// How long it may take to accept a copy, and again to answer it.
    #[serde(default = "ten_seconds")]
    pub(super) timeout: Time,
    /// How long a copy may wait for a connection.
    #[serde(default = "one_second")]
    pub(super) queue_timeout: Time,
    /// How much it gets.
    #[serde(default)]
    pub(super) limits: LimitsFile,
    /// What stands in the Host line of a copy: `preserve` what the live client wrote, the `target`'s own host, or this.
    #[serde(default)]
    pub(super) host: Host,
    /// What is changed of the path.
    #[serde(default)]
    pub(super) rewrite: RewriteFile,
    /// What is changed of the header section.
    #[serde(default)]
    pub(super) headers: HeadersFile,
    /// What is changed of the query.
    #[serde(default)]
    pub(super) query: QueryFile,
    /// Whether `traceparent` keeps its sampled flag.
    #[serde(default)]
    pub(super) trace_sampled: bool,
    /// When it is left alone because it fails; never where nothing is said.
    pub(super) circuit_breaker: Option<BreakerFile>,
    /// How it proves that it is a shadow before it gets copies of unsafe methods, or `none`: it need not.
    pub(super) interlock: Option<InterlockFile>,
    /// Whether requests of one live `connection` follow each other on one connection; `none`: in no order. By default
    /// `none`, and `connection` where the experiment compares answers or has sessions.
    pub(super) order: Option<CopyOrder>,
    /// A connection older than this is not used for further copies; any age where nothing is said.
    pub(super) max_connection_age: Option<Time>,
    /// Values of live's that it knows by others.
    #[serde(default)]
    pub(super) sessions: Vec<SessionFile>,
}

/// How a target that speaks TLS is known.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct TlsFile {
    /// PEM file of the authorities to trust, in place of the system's.
    pub(super) ca_file: Option<PathBuf>,
    /// PEM file of the client's certificate, and of those between.
    pub(super) client_certificate: Option<PathBuf>,
    /// PEM file of its key.
    pub(super) client_key: Option<PathBuf>,
    /// The name that the certificate must have, in place of the host.
    pub(super) server_name: Option<String>,
    /// The certificate is not checked at all.
    #[serde(default)]
    pub(super) insecure_skip_verify: bool,
}

/// How much a target gets.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct LimitsFile {
    /// Copies a second: of this agent, or `{ total: N }` of all `agents` together; any where nothing is said.
    pub(super) requests_per_second: Option<RateFile>,
    /// Bytes a second; any where nothing is said.
    pub(super) bandwidth: Option<Size>,
    /// Most copies in flight, which is also the most connections; 4096 of all targets together.
    #[serde(default = "max_in_flight")]
    pub(super) max_in_flight: Count,
    /// Most copies on one connection that are written before the first of them is answered: GET and HEAD, where they wait,
    /// to a target that answers them. Each connection then has as many copies in flight.
    #[serde(default = "pipeline")]
    pub(super) pipeline: Depth,
    /// Copies that may wait for a connection.
    #[serde(default = "queue")]
    pub(super) queue: Count,
    /// What is dropped where more come: the `newest` or the `oldest`.
    #[serde(default)]
    pub(super) drop_policy: DropPolicy,
}

impl Default for LimitsFile {
    fn default() -> Self {
        Self {
            requests_per_second: None,
            bandwidth: None,
            max_in_flight: max_in_flight(),
            pipeline: pipeline(),
            queue: queue(),
            drop_policy: DropPolicy::default(),
        }
    }
}

/// What is changed of the path.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RewriteFile {
    /// Prefixes of paths, and what takes their place; of several the longest that fits.
    #[serde(default)]
    pub(super) replace_prefix: Ordered<PathText, PathText>,
}

/// What is changed of the header section.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct HeadersFile {
    /// Lines that take the place of all of the same name.
    #[serde(default)]
    pub(super) set: Ordered<HeaderName, HeaderValue>,
    /// Lines that are put behind the others.
    #[serde(default)]
    pub(super) add: Ordered<HeaderName, HeaderValue>,
    /// Names of lines that are left out.
    #[serde(default)]
    pub(super) remove: Vec<HeaderName>,
}

/// What is changed of the query.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct QueryFile {
    /// Parameters that take the place of all of the same name.
    #[serde(default)]
    pub(super) set: Ordered<ParameterName, String>,
    /// Names of parameters that are left out.
    #[serde(default)]
    pub(super) remove: Vec<ParameterName>,
}

/// When a target is left alone because it fails.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct BreakerFile {
    /// The share of copies that failed, 0 to 1, from which on it is.
    #[serde(default = "error_ratio")]
    pub(super) error_ratio: ErrorRatio,
    /// The time over which that is taken.
    #[serde(default = "ten_seconds")]
    pub(super) window: Time,
    /// The least copies in that time by which it is judged.
    #[serde(default = "min_requests")]
    pub(super) min_requests: Count,
    /// How long it is left alone at first; longer each time that it fails again.
    #[serde(default = "open_for")]
    pub(super) open_for: Time,
}

/// The probe by which a target proves that it is a shadow.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ProbeFile {
    /// The header field that the answer must have.
    pub(super) header: HeaderName,
    /// Its value.
    pub(super) value: HeaderValue,
    /// The path that is asked for.
    #[serde(default)]
    pub(super) path: PathText,
    /// How often.
    #[serde(default = "probe_interval")]
    pub(super) every: Time,
}

/// A probe, or `none`.
#[derive(Debug)]
pub(super) enum InterlockFile {
    /// It need not prove anything.
    None,
    /// The probe.
    Probe(ProbeFile),
}

impl JsonSchema for InterlockFile {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Interlock".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [{ "const": "none" }, generator.subschema_for::<ProbeFile>()] })
    }
}

/// Copies a second.
#[derive(Debug, JsonSchema)]
#[schemars(untagged)]
pub(super) enum RateFile {
    /// Of this agent.
    Each(PerSecond),
    /// Of all agents together.
    Shared(TotalFile),
}

/// Copies a second of all agents together.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct TotalFile {
    /// The number, divided evenly among `agents`.
    pub(super) total: PerSecond,
}

impl<'de> Deserialize<'de> for InterlockFile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InterlockVisitor;

        impl<'de> Visitor<'de> for InterlockVisitor {
            type Value = InterlockFile;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`none`, or the keys `header` and `value`, and maybe `path` and `every`")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<InterlockFile, E> {
                if text == "none" {
                    return Ok(InterlockFile::None);
                }
                Err(E::invalid_value(de::Unexpected::Str(text), &self))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<InterlockFile, A::Error> {
                ProbeFile::deserialize(MapAccessDeserializer::new(map)).map(InterlockFile::Probe)
            }
        }

        deserializer.deserialize_any(InterlockVisitor)
    }
}

impl<'de> Deserialize<'de> for RateFile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct RateVisitor;

        impl<'de> Visitor<'de> for RateVisitor {
            type Value = RateFile;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of copies a second, or the key `total` with one")
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<RateFile, E> {
                PerSecond::deserialize(de::value::U64Deserializer::new(number)).map(RateFile::Each)
            }

            fn visit_f64<E: de::Error>(self, number: f64) -> Result<RateFile, E> {
                PerSecond::deserialize(de::value::F64Deserializer::new(number)).map(RateFile::Each)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<RateFile, A::Error> {
                TotalFile::deserialize(MapAccessDeserializer::new(map)).map(RateFile::Shared)
            }
        }

        deserializer.deserialize_any(RateVisitor)
    }
}

impl Default for Host {
    fn default() -> Self {
        Self(HostPolicy::Preserve)
    }
}

impl Default for PathText {
    fn default() -> Self {
        Self("/".to_owned())
    }
}

const fn one_second() -> Time {
    Time(Duration::from_secs(1))
}

const fn probe_interval() -> Time {
    Time(PROBE_INTERVAL)
}

const fn ten_seconds() -> Time {
    Time(Duration::from_secs(10))
}

const fn open_for() -> Time {
    Time(Duration::from_secs(30))
}

const fn max_in_flight() -> Count {
    Count(256)
}

const fn pipeline() -> Depth {
    Depth(1)
}

const fn queue() -> Count {
    Count(4096)
}

const fn error_ratio() -> ErrorRatio {
    ErrorRatio(0.5)
}

const fn min_requests() -> Count {
    Count(50)
}
