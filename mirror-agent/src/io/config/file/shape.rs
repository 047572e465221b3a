//! Enters: nothing. Leaves: the shape of a configuration file, from which its reader and its schema are made.
//!
//! The descriptions are the user's: editors show them. What is not said has the default that stands here, and is the
//! same that the flags of `run` have.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    comparison::{CompareFile, GateFile},
    fleet::FleetFile,
    keeping::{RedactFile, SinkFile},
    matching::{MatchFile, SampleFile},
    pods::PodsFile,
    target::TargetFile,
    values::{Count, Expires, Interface, JsonPath, Listen, Name, Network, Port, Ratio, Size, Time},
};
use crate::io::config::{Attach, AuditConfig, METRICS_LISTEN};

/// What mirror-agent copies where.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(title = "Configuration of mirror-agent")]
pub(super) struct File {
    /// What to look at, and with how much memory.
    pub(super) capture: CaptureFile,
    /// What to mirror where, at most 128.
    #[schemars(length(min = 1, max = 128))]
    pub(super) experiments: Vec<ExperimentFile>,
    /// What the agent may take of the node; beyond that it leaves new connections aside.
    #[serde(default)]
    pub(super) guard: GuardFile,
    /// How the agent is steered while it runs.
    #[serde(default)]
    pub(super) control: ControlFile,
    /// What is written down of what was done.
    #[serde(default)]
    pub(super) audit: AuditFile,
    /// How many agents share what is limited for all of them together.
    #[serde(default = "one")]
    pub(super) agents: Count,
    /// How long copies may still take when the agent stops.
    #[serde(default = "drain_timeout")]
    pub(super) drain_timeout: Time,
}

/// What to look at, and with how much memory.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct CaptureFile {
    /// Where to attach: names, patterns such as `cali*`, or `auto`, each maybe with `:node` or `:pod`. At least one,
    /// unless all experiments are about `pods`, whose interfaces are found.
    #[schemars(length(min = 1))]
    #[serde(default)]
    pub(super) interfaces: Vec<Interface>,
    /// How to attach: TCX where the kernel has it and clsact elsewhere, or one of them by force.
    #[serde(default = "attach")]
    pub(super) attach: Attach,
    /// UDP ports to which VXLAN packets go; an empty list: VXLAN is not looked into.
    #[serde(default = "vxlan_ports")]
    pub(super) vxlan_ports: Vec<Port>,
    /// UDP ports to which Geneve packets go; an empty list: Geneve is not looked into.
    #[serde(default = "geneve_ports")]
    pub(super) geneve_ports: Vec<Port>,
    /// For flows, reassembly and bodies, waiting copies included; the rings come on top.
    #[serde(default = "memory_limit")]
    pub(super) memory_limit: Size,
    /// Of that for copies that wait or are being written, shared evenly by all targets; by default 32Mi, or half of
    /// memoryLimit where that is less.
    pub(super) queue_memory: Option<Size>,
    /// Largest request body that is mirrored, as sent; by default 16Mi, or half of a target's part of queueMemory where
    /// that is less.
    pub(super) max_body: Option<Size>,
    /// Size of each ring buffer between kernel and agent: a power of two from 4Ki to 1Gi.
    #[serde(default = "ring_size")]
    pub(super) ring_size: Size,
    /// Threads that capture, each with a ring of its own: 1, 2, 4 or 8.
    #[serde(default = "one")]
    pub(super) threads: Count,
    /// Where /metrics, /healthz and /readyz are served.
    #[serde(default = "metrics_listen")]
    pub(super) metrics_listen: Listen,
}

/// Which requests go to which targets.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ExperimentFile {
    /// Its name, unique: 1 to 63 of a-z, 0-9 and -. It is in metrics, and salts the sample.
    pub(super) name: Name,
    /// Who answers for it; free text.
    pub(super) owner: Option<String>,
    /// When it ends by itself: a point in time such as 2027-01-31T00:00:00Z, or `never`.
    pub(super) expires: Expires,
    /// Live ports whose requests are mirrored; at least one where nothing is said of `pods`.
    #[schemars(length(min = 1))]
    #[serde(default)]
    pub(super) ports: Vec<Port>,
    /// Only requests to these server addresses; any where there is none.
    #[serde(default)]
    pub(super) addresses: Vec<Network>,
    /// The pods of this node whose requests are mirrored, in place of ports and addresses.
    pub(super) pods: Option<PodsFile>,
    /// A request is taken that fits any of these. Where there is none: every GET, HEAD and OPTIONS.
    #[serde(default)]
    pub(super) matches: Vec<MatchFile>,
    /// But not one that fits any of these.
    #[serde(default)]
    pub(super) excludes: Vec<MatchFile>,
    /// The share of those requests that is mirrored.
    #[serde(default)]
    pub(super) sample: SampleFile,
    /// Where the copies go: one copy to each.
    #[schemars(length(min = 1))]
    pub(super) targets: Vec<TargetFile<Name>>,
    /// How the answers of live and of the targets are compared; they are not where nothing is said.
    pub(super) compare: Option<CompareFile>,
    /// A second copy of the live version, which gets the same copies: how it differs from live is noise.
    pub(super) control: Option<TargetFile<Option<Name>>>,
    /// What the targets have to keep to.
    pub(super) gate: Option<GateFile>,
    /// JSON paths of numbers that are followed on both sides.
    #[serde(default)]
    pub(super) fields: Vec<JsonPath>,
    /// What must not be kept or handed on, beside what never is.
    pub(super) redact: Option<RedactFile>,
    /// Where exchanges are written to.
    #[serde(default)]
    pub(super) sinks: Vec<SinkFile>,
}

/// What the agent may take of the node.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct GuardFile {
    /// Of the processors of its control group, or of the node where that has no limit: more than 0%, at most 100%.
    pub(super) cpu: Option<Ratio>,
    /// Of the memory of its control group, or of the node where that has no limit: more than 0%, at most 100%.
    pub(super) memory: Option<Ratio>,
}

/// How the agent is steered while it runs.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ControlFile {
    /// The unix socket for `mirror-agent ctl`.
    pub(super) socket: Option<PathBuf>,
    /// Address and port of a TCP listener, which always needs the token.
    pub(super) listen: Option<Listen>,
    /// The file that holds the token.
    pub(super) token_file: Option<PathBuf>,
    /// The other agents, which together are asked as one.
    pub(super) fleet: Option<FleetFile>,
}

/// What is written down of what was done.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct AuditFile {
    /// Where to: JSON, one record a line.
    pub(super) file: Option<PathBuf>,
    /// At which size another file is begun.
    #[serde(default = "audit_size")]
    pub(super) max_size: Size,
    /// How many full ones are kept.
    #[serde(default = "audit_keep")]
    pub(super) keep: Count,
}

impl Default for AuditFile {
    fn default() -> Self {
        Self { file: None, max_size: audit_size(), keep: audit_keep() }
    }
}

const fn one() -> Count {
    Count(1)
}

const fn attach() -> Attach {
    Attach::Auto
}

fn vxlan_ports() -> Vec<Port> {
    mirror_common::packet::UsualPorts::VXLAN.map(Port).to_vec()
}

fn geneve_ports() -> Vec<Port> {
    mirror_common::packet::UsualPorts::GENEVE.map(Port).to_vec()
}

const fn memory_limit() -> Size {
    Size(256 * 1024 * 1024)
}

const fn ring_size() -> Size {
    Size(16 * 1024 * 1024)
}

const fn metrics_listen() -> Listen {
    Listen(METRICS_LISTEN)
}

const fn drain_timeout() -> Time {
    Time(std::time::Duration::from_secs(5))
}

fn audit_size() -> Size {
    Size(AuditConfig::default().max_size)
}

fn audit_keep() -> Count {
    Count(AuditConfig::default().keep)
}
