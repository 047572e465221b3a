//! Enters: the flags of `run`. Leaves: the configuration with one experiment and one target that they mean.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};

use super::{
    AuditConfig, CaptureConfig, Config, ControlConfig, CopyOrder, DropPolicy, ExperimentConfig, Expiry,
    GuardConfig, HeaderEdits, HostPolicy, Interlock, LimitsConfig, METRICS_LISTEN, MatchConfig, ProbeConfig,
    QueryEdits, SampleConfig, TargetConfig, TargetRole, TlsConfig, read,
};
use crate::io::cli::RunArgs;

/// Name of the experiment that the command line describes.
pub(super) const EXPERIMENT: &str = "default";

/// Name of its target.
pub(super) const TARGET: &str = "shadow";

/// Where the command line has the agent listen in place of what its file says.
#[derive(Clone, Copy, Debug, Default)]
pub struct Listens {
    /// For metrics and probes.
    pub metrics: Option<SocketAddr>,
    /// For whoever steers it.
    pub control: Option<SocketAddr>,
    /// For other agents, where the file names some.
    pub fleet: Option<SocketAddr>,
}

impl Listens {
    /// What these options say.
    #[must_use]
    pub const fn of(args: &RunArgs) -> Self {
        Self { metrics: args.metrics_listen, control: args.control_listen, fleet: args.fleet_listen }
    }

    /// Puts that in the place of what the file says.
    pub fn apply(self, config: &mut Config) {
        let Self { metrics, control, fleet } = self;
        config.capture.metrics_listen = metrics.unwrap_or(config.capture.metrics_listen);
        config.control.listen = control.or(config.control.listen);
        if let Some(known) = &mut config.control.fleet {
            known.listen = fleet.or(known.listen);
        }
    }
}

impl Config {
    /// The configuration that `run` is to have: that of its file, or else what its flags mean. An experiment may have
    /// expired: it must not keep the others from running when a node starts again.
    ///
    /// # Errors
    ///
    /// Whatever is wrong with them.
    pub fn load(args: &RunArgs) -> Result<Self> {
        let Some(file) = &args.config else { return Self::from_args(args) };
        let mut config = read(file, None)?;
        let listens = Listens::of(args);
        let has_fleet = config.control.fleet.is_some() || listens.fleet.is_none();
        ensure!(has_fleet, "--fleet-listen: the file has no control.fleet");
        listens.apply(&mut config);
        Ok(config)
    }

    /// The configuration that the flags of `run` mean.
    ///
    /// # Errors
    ///
    /// `--shadow` is not a target, or values do not fit together.
    pub fn from_args(args: &RunArgs) -> Result<Self> {
        let shadow = args.shadow.as_deref().context("--shadow is missing")?;
        let url = shadow.parse().with_context(|| format!("--shadow {shadow}"))?;
        let target = TargetConfig {
            name: TARGET.to_owned(),
            url,
            connect_timeout: args.connect_timeout,
            timeout: args.response_timeout,
            queue_timeout: args.queue_timeout,
            limits: LimitsConfig {
                requests_per_second: None,
                bandwidth: None,
                max_in_flight: args.max_in_flight,
                pipeline: args.pipeline.into(),
                queue: args.queue_requests,
                drop_policy: DropPolicy::Newest,
            },
            tls: TlsConfig {
                ca_file: args.shadow_ca.clone(),
                client_certificate: args.shadow_certificate.clone(),
                client_key: args.shadow_key.clone(),
                server_name: args.shadow_server_name.clone(),
                insecure_skip_verify: args.shadow_insecure_skip_verify,
            },
            host: HostPolicy::Preserve,
            replace_prefix: Vec::new(),
            headers: HeaderEdits::default(),
            query: QueryEdits::default(),
            trace_sampled: true,
            circuit_breaker: None,
            // `--methods` is the consent.
            interlock: args.interlock.clone().map_or(Interlock::None, |probe| {
                Interlock::Probe(ProbeConfig {
                    path: args.interlock_path.clone().unwrap_or(probe.path),
                    every: args.interlock_every.unwrap_or(probe.every),
                    ..probe
                })
            }),
            order: CopyOrder::None,
            max_connection_age: None,
            role: TargetRole::Shadow,
            sessions: Vec::new(),
        };
        let experiment = ExperimentConfig {
            name: EXPERIMENT.to_owned(),
            ports: args.ports.clone(),
            addresses: args.addresses.clone(),
            pods: None,
            owner: None,
            expires: Expiry::Never,
            matches: vec![MatchConfig::of_methods(args.methods.clone())],
            excludes: Vec::new(),
            sample: SampleConfig { share: args.sample, ..SampleConfig::default() },
            targets: vec![target],
            compare: None,
        };
        let capture = CaptureConfig {
            interfaces: args.interfaces.clone(),
            attach: args.attach,
            vxlan_ports: args.vxlan_ports.clone(),
            geneve_ports: args.geneve_ports.clone(),
            memory: args.memory,
            queue_bytes: args.queue_bytes(),
            max_body: args.max_body(),
            ring_size: args.ring_size,
            threads: args.capture_threads,
            metrics_listen: args.metrics_listen.unwrap_or(METRICS_LISTEN),
        };
        let config = Self {
            capture,
            experiments: vec![experiment],
            guard: GuardConfig { cpu: args.guard_cpu, memory: args.guard_memory },
            control: ControlConfig {
                socket: args.control_socket.clone(),
                listen: args.control_listen,
                token_file: args.control_token_file.clone(),
                fleet: None,
            },
            audit: AuditConfig { file: args.audit_log.clone(), ..AuditConfig::default() },
            agents: 1,
            drain_timeout: args.drain_timeout,
        };
        let misfits = config.misfits();
        let lines: Vec<_> =
            misfits.iter().map(|(key, message)| format!("{} {message}", key.flag())).collect();
        ensure!(lines.is_empty(), "{}", lines.join("\n"));
        Ok(config)
    }
}
