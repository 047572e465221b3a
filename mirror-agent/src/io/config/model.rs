//! Enters: nothing. Leaves: the shape of a configuration, with its defaults.
//!
//! Times are [`Duration`]s, sizes are in bytes. What is written here has been checked as far as one value can be by itself;
//! whether values fit together is for [`Config`] to say.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::{Duration, SystemTime},
};

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ComparisonConfig, PodsConfig, SessionConfig, TargetRole};
use crate::{
    io::target::Target,
    pipeline::policy::{Methods, Share},
};

/// All that `run` is told.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// What to look at, and with how much memory.
    pub capture: CaptureConfig,
    /// What to mirror where.
    pub experiments: Vec<ExperimentConfig>,
    /// What the agent may take of the node.
    pub guard: GuardConfig,
    /// How it is steered while it runs.
    pub control: ControlConfig,
    /// What is written down of it.
    pub audit: AuditConfig,
    /// How many agents share what is limited for all of them together.
    pub agents: u32,
    /// How long copies may still take when the agent stops.
    pub drain_timeout: Duration,
}

/// What to look at, and with how much memory. Sizes are in bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct CaptureConfig {
    /// Names, patterns, or `auto`, each maybe with a role.
    pub interfaces: Vec<String>,
    /// How to attach.
    pub attach: Attach,
    /// UDP ports of VXLAN; 0 alone for none.
    pub vxlan_ports: Vec<u16>,
    /// UDP ports of Geneve; 0 alone for none.
    pub geneve_ports: Vec<u16>,
    /// For flows, reassembly and bodies, waiting copies included.
    pub memory: u64,
    /// Of that for copies that wait or are being written, shared evenly by all targets.
    pub queue_bytes: u64,
    /// Largest body that is mirrored.
    pub max_body: u64,
    /// Size of each ring buffer.
    pub ring_size: u64,
    /// Capture threads.
    pub threads: usize,
    /// Where metrics and probes are served.
    pub metrics_listen: SocketAddr,
}

/// One experiment: which requests go to which targets.
#[derive(Clone, Debug, PartialEq)]
pub struct ExperimentConfig {
    /// Its name, unique among the experiments.
    pub name: String,
    /// Who answers for it; free text.
    pub owner: Option<String>,
    /// When it ends by itself.
    pub expires: Expiry,
    /// Live ports; of an experiment about pods those that were found, maybe none yet.
    pub ports: Vec<u16>,
    /// Live addresses; none for any. Of an experiment about pods those that were found.
    pub addresses: Vec<IpNet>,
    /// The pods that it is about; `None` where it is about ports and addresses.
    pub pods: Option<PodsConfig>,
    /// A request is taken that fits any of these; at least one.
    pub matches: Vec<MatchConfig>,
    /// But not one that fits any of these.
    pub excludes: Vec<MatchConfig>,
    /// The share of those requests that is mirrored.
    pub sample: SampleConfig,
    /// Where the copies go; at least one.
    pub targets: Vec<TargetConfig>,
    /// How answers are compared; `None` where they are not, and live's are not captured.
    pub compare: Option<ComparisonConfig>,
}

impl ExperimentConfig {
    /// Whether live's answers to its requests are read: to be compared, or for the sessions of a target.
    #[must_use]
    pub fn reads_answers(&self) -> bool {
        self.compare.is_some() || self.targets.iter().any(|target| !target.sessions.is_empty())
    }
}

/// When an experiment ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Expiry {
    /// With the agent.
    Never,
    /// At a time of the wall clock.
    At(SystemTime),
}

/// What a request must be like: all that is said.
#[derive(Clone, Debug, PartialEq)]
pub struct MatchConfig {
    /// Its path, without the query; `None` for any.
    pub path: Option<PathMatch>,
    /// Its method. In `excludes` all methods where nothing is said; in `matches` the safe ones.
    pub methods: Methods,
    /// Header fields that it must have, by name.
    pub headers: Vec<NamedMatch>,
    /// Query parameters that it must have, by name.
    pub query_params: Vec<NamedMatch>,
    /// Its host, without the port: a name, or `*.` and a suffix of whole labels; none for any.
    pub hostnames: Vec<String>,
}

impl MatchConfig {
    /// Fits every request with one of these methods.
    #[must_use]
    pub const fn of_methods(methods: Methods) -> Self {
        Self { path: None, methods, headers: Vec::new(), query_params: Vec::new(), hostnames: Vec::new() }
    }
}

/// What a path must be like (Gateway API's `HTTPPathMatch`).
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum PathMatch {
    /// The same, byte for byte.
    Exact(String),
    /// It begins with these path elements: `/api` fits `/api` and `/api/x`, not `/apix`.
    PathPrefix(String),
    /// A regular expression finds it, all of it.
    RegularExpression(String),
}

/// What the value of a header field or a query parameter must be like.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NamedMatch {
    /// The name; of a header field in any case.
    pub name: String,
    /// The value.
    pub value: ValueMatch,
}

/// What a value must be like.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ValueMatch {
    /// The same, byte for byte.
    Exact(String),
    /// A regular expression finds it, all of it.
    RegularExpression(String),
    /// Any.
    Present,
}

/// A share of requests.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SampleConfig {
    /// How many.
    pub share: Share,
    /// What is in or out together.
    pub by: SampleKey,
    /// What happens to a request that has no such key.
    pub missing: MissingKey,
}

impl Default for SampleConfig {
    fn default() -> Self {
        Self { share: Share::ALL, by: SampleKey::Request, missing: MissingKey::Skip }
    }
}

/// What is in a sample or out of it together.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum SampleKey {
    /// Each request for itself.
    Request,
    /// All requests of a connection.
    Connection,
    /// All requests of a client's address.
    Client,
    /// Requests with the same value of this header field.
    Header(String),
    /// Of this cookie.
    Cookie(String),
    /// Of this query parameter.
    Query(String),
    /// Of this claim of the bearer token, which is not verified.
    Jwt(String),
}

/// What happens to a request without the key by which is sampled.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum MissingKey {
    /// It is not mirrored.
    #[default]
    Skip,
    /// It is sampled for itself.
    Request,
}

/// One endpoint that receives copies, and how it is treated.
#[derive(Clone, Debug, PartialEq)]
pub struct TargetConfig {
    /// Its name, unique within the experiment.
    pub name: String,
    /// Where it is.
    pub url: Target,
    /// How it is known to be the right one, where it speaks TLS.
    pub tls: TlsConfig,
    /// How long a connection may take to open.
    pub connect_timeout: Duration,
    /// How long it may take to accept a copy, and then to answer it.
    pub timeout: Duration,
    /// How long a copy may wait for a connection.
    pub queue_timeout: Duration,
    /// How much it gets.
    pub limits: LimitsConfig,
    /// What stands in the Host line of a copy.
    pub host: HostPolicy,
    /// Prefixes of paths, and what takes their place; the longest that fits.
    pub replace_prefix: Vec<(String, String)>,
    /// What is changed of the header section.
    pub headers: HeaderEdits,
    /// What is changed of the query.
    pub query: QueryEdits,
    /// Whether `traceparent` keeps its sampled flag.
    pub trace_sampled: bool,
    /// When it is left alone because it fails.
    pub circuit_breaker: Option<BreakerConfig>,
    /// How it proves that it is a shadow, before it gets copies of unsafe methods.
    pub interlock: Interlock,
    /// What of the order of requests is kept.
    pub order: CopyOrder,
    /// A connection older than this is not used for further copies; `None` for any age.
    pub max_connection_age: Option<Duration>,
    /// What it is for.
    pub role: TargetRole,
    /// Values of live's that it knows by others.
    pub sessions: Vec<SessionConfig>,
}

/// How much a target gets.
#[derive(Clone, Debug, PartialEq)]
pub struct LimitsConfig {
    /// Copies a second; `None` for any.
    pub requests_per_second: Option<Rate>,
    /// Bytes a second; `None` for any.
    pub bandwidth: Option<u64>,
    /// Most copies in flight, which is also the most connections.
    pub max_in_flight: usize,
    /// Most copies on one connection that are written before the first of them is answered.
    pub pipeline: usize,
    /// Copies that may wait.
    pub queue: usize,
    /// What is dropped where more come.
    pub drop_policy: DropPolicy,
}

/// A number of copies a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rate {
    /// From this agent.
    Each(f64),
    /// From all agents together.
    Total(f64),
}

impl Rate {
    /// The number, whoever sends them.
    #[must_use]
    pub const fn value(self) -> f64 {
        match self {
            Self::Each(rate) | Self::Total(rate) => rate,
        }
    }
}

/// What a full queue drops.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum DropPolicy {
    /// The copy that comes.
    #[default]
    Newest,
    /// The copy that has waited for longest.
    Oldest,
}

/// What stands in the Host line of a copy.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum HostPolicy {
    /// What the live client wrote.
    #[default]
    Preserve,
    /// The target's own host, with its port where that is not the scheme's.
    Target,
    /// This.
    Literal(String),
}

/// What is changed of a header section; names in any case.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct HeaderEdits {
    /// Lines that take the place of all of the same name.
    pub set: Vec<(String, String)>,
    /// Lines that are put behind the others.
    pub add: Vec<(String, String)>,
    /// Names of lines that are left out.
    pub remove: Vec<String>,
}

/// What is changed of a query.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct QueryEdits {
    /// Parameters that take the place of all of the same name.
    pub set: Vec<(String, String)>,
    /// Names of parameters that are left out.
    pub remove: Vec<String>,
}

/// When a target is left alone because it fails.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BreakerConfig {
    /// The share of copies that failed, 0 to 1, from which on it is.
    pub error_ratio: f64,
    /// The time over which that is taken.
    pub window: Duration,
    /// The least copies in that time by which it is judged.
    pub min_requests: u32,
    /// How long it is left alone at first; longer each time that it fails again.
    pub open_for: Duration,
}

/// How a target proves that it is a shadow.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Interlock {
    /// Nothing was said.
    #[default]
    Unsaid,
    /// It need not, as the user said in so many words.
    None,
    /// By its answer to a probe.
    Probe(ProbeConfig),
}

/// The probe by which a target proves that it is a shadow.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ProbeConfig {
    /// The header field that the answer must have.
    pub header: String,
    /// Its value.
    pub value: String,
    /// The path that is asked for.
    pub path: String,
    /// How often.
    pub every: Duration,
}

/// What of the order of live requests is kept at a target.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum CopyOrder {
    /// Nothing: copies go to whichever connection is free.
    #[default]
    None,
    /// Those of one live connection follow each other, on one connection.
    Connection,
}

/// How a target that speaks TLS is known.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct TlsConfig {
    /// PEM file of the authorities to trust, in place of the system's.
    pub ca_file: Option<PathBuf>,
    /// PEM file of the client's certificate, and of those between.
    pub client_certificate: Option<PathBuf>,
    /// PEM file of its key.
    pub client_key: Option<PathBuf>,
    /// The name that the certificate must have, in place of the host.
    pub server_name: Option<String>,
    /// The certificate is not checked at all.
    pub insecure_skip_verify: bool,
}

/// What the agent may take of the node; a share of what its control group has, 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct GuardConfig {
    /// Of the processors: of all of the node's where the control group sets no limit.
    pub cpu: Option<f64>,
    /// Of the memory.
    pub memory: Option<f64>,
}

/// How the agent is steered while it runs.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ControlConfig {
    /// The unix socket for `mirror-agent ctl`.
    pub socket: Option<PathBuf>,
    /// The TCP listener, which needs the token.
    pub listen: Option<SocketAddr>,
    /// The file that holds the token.
    pub token_file: Option<PathBuf>,
    /// The other agents, which together are asked as one; `None` where they are not.
    pub fleet: Option<FleetConfig>,
}

/// The agents that are asked together.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FleetConfig {
    /// Where this agent answers the others; `None` where it only asks.
    pub listen: Option<SocketAddr>,
    /// Who is asked; this agent may be among them.
    pub peers: Vec<PeerConfig>,
    /// The file that holds the token which all of them share.
    pub token_file: PathBuf,
}

/// Where other agents are.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum PeerConfig {
    /// One, at the first address of this host and port.
    One(String),
    /// One at each address of this host and port.
    All(String),
}

/// What is written down of the agent.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AuditConfig {
    /// Where to; `None` for nowhere.
    pub file: Option<PathBuf>,
    /// At which size another file is begun.
    pub max_size: u64,
    /// How many full ones are kept.
    pub keep: u32,
}

impl Default for AuditConfig {
    fn default() -> Self {
        Self { file: None, max_size: 64 * 1024 * 1024, keep: 4 }
    }
}

/// How the programs are attached.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[cfg_attr(feature = "runtime", derive(clap::ValueEnum))]
#[serde(rename_all = "camelCase")]
pub enum Attach {
    /// TCX from Linux 6.6 on, else clsact.
    Auto,
    /// TCX links.
    Tcx,
    /// Filters at a clsact qdisc.
    Clsact,
}

/// Where metrics and probes are served, where nothing is said.
pub const METRICS_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9477);
