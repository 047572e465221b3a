//! Enters: the flags of `run`. Leaves: what to capture and which experiments to run, as one value.

mod args;

use std::{net::SocketAddr, time::Duration};

use ipnet::IpNet;

use crate::{
    io::{cli::Attach, replay::Target},
    pipeline::policy::{Methods, Share},
};

/// All that `run` is told.
#[derive(Clone, Debug)]
pub struct Config {
    /// What to look at, and with how much memory.
    pub capture: CaptureConfig,
    /// What to mirror where.
    pub experiments: Vec<ExperimentConfig>,
    /// How long copies may still take when the agent stops.
    pub drain_timeout: Duration,
}

/// What to look at, and with how much memory. Sizes are in bytes.
#[derive(Clone, Debug)]
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
#[derive(Clone, Debug)]
pub struct ExperimentConfig {
    /// Its name, unique among the experiments.
    pub name: String,
    /// Live ports.
    pub ports: Vec<u16>,
    /// Live addresses; none for any.
    pub addresses: Vec<IpNet>,
    /// Methods to mirror.
    pub methods: Methods,
    /// Share of the requests to mirror.
    pub sample: Share,
    /// Where the copies go; at least one.
    pub targets: Vec<TargetConfig>,
}

/// One endpoint that receives copies, and how it is treated.
#[derive(Clone, Debug)]
pub struct TargetConfig {
    /// Its name, unique within the experiment.
    pub name: String,
    /// Where it is.
    pub url: Target,
    /// How long a connection may take to open.
    pub connect_timeout: Duration,
    /// How long it may take to accept a copy, and then to answer it.
    pub timeout: Duration,
    /// How long a copy may wait for a connection.
    pub queue_timeout: Duration,
    /// Copies that may wait.
    pub queue: usize,
    /// Most copies in flight, which is also the most connections.
    pub max_in_flight: usize,
}

impl Config {
    /// The live ports of all experiments, each once.
    #[must_use]
    pub fn ports(&self) -> Vec<u16> {
        let mut ports: Vec<_> =
            self.experiments.iter().flat_map(|experiment| &experiment.ports).copied().collect();
        ports.sort_unstable();
        ports.dedup();
        ports
    }

    /// The live addresses of all experiments; none where one of them takes any.
    #[must_use]
    pub fn addresses(&self) -> Vec<IpNet> {
        if self.experiments.iter().any(|experiment| experiment.addresses.is_empty()) {
            return Vec::new();
        }
        let mut networks: Vec<_> =
            self.experiments.iter().flat_map(|experiment| &experiment.addresses).copied().collect();
        networks.sort_unstable();
        networks.dedup();
        networks
    }

    /// How many targets there are.
    #[must_use]
    pub fn targets(&self) -> usize {
        self.experiments.iter().map(|experiment| experiment.targets.len()).sum()
    }
}
