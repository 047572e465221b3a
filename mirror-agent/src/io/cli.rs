//! Enters: the command line. Leaves: what to do, validated as far as one option can be by itself.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, builder::RangedU64ValueParser};
use ipnet::IpNet;
use mirror_common::packet::UsualPorts;

use crate::{
    io::{
        capture::AgentName,
        config::{Attach, ProbeConfig, default_max_body, default_queue_bytes, parse_interlock},
        control::ctl::CtlArgs,
        logs::LogFormat,
        telling::show::{ReportArgs, RulesArgs, VerdictArgs},
        top::TopArgs,
        units::{parse_duration, parse_percent, parse_size},
    },
    pipeline::policy::{Methods, Share},
};

/// Mirrors live HTTP requests to a shadow service: copied by eBPF, reassembled, replayed byte for byte.
#[derive(Debug, Parser)]
#[command(name = "mirror-agent", version, max_term_width = 110)]
pub struct Cli {
    /// What is logged: error, warn, info, debug, trace, or a filter such as `info,mirror_agent::io=debug`.
    #[arg(long, global = true, default_value = "info", value_name = "FILTER")]
    pub log_level: String,

    /// How it is logged: `text`, or `json` with one object a line.
    #[arg(long, global = true, default_value = "text", value_name = "FORMAT")]
    pub log_format: LogFormat,

    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Mirror requests of matched ports to a shadow until stopped.
    Run(Box<RunArgs>),
    /// Print the HTTP exchanges of a capture file, one JSON object a line.
    Inspect(InspectArgs),
    /// Say what this machine can do: kernel, BTF, privileges, TCX or clsact, and what --interface would mean.
    Check(CheckArgs),
    /// Print the JSON Schema of the configuration file, for editors.
    Schema,
    /// Steer the agent that runs here: see how things are, pause and resume, change a share or an end.
    Ctl(CtlArgs),
    /// Say whether the shadow passes, fails, or cannot be judged yet; the exit status is 0, 1 or 3.
    Verdict(VerdictArgs),
    /// Show how live's answers and the shadow's differ, the likeliest bugs first.
    Report(ReportArgs),
    /// Watch how things are on a terminal.
    Top(TopArgs),
    /// See by which rules answers are compared, and count differences as noise.
    Rules(RulesArgs),
}

/// Options of `run`.
#[derive(Args, Clone, Debug)]
pub struct RunArgs {
    /// Configuration file (YAML), in place of the options below but --name, --metrics-listen, --control-listen and
    /// --fleet-listen: they describe one experiment with one target.
    #[arg(long, value_name = "FILE", conflicts_with_all = OF_ONE_EXPERIMENT)]
    pub config: Option<PathBuf>,

    /// What tells this agent from others that run beside it in the same network namespace on purpose. Of agents of one name,
    /// or without a name, one runs at a time: the next waits until it is gone.
    #[arg(long, value_name = "NAME")]
    pub name: Option<AgentName>,

    /// Interfaces to attach to (repeat, or separate by commas): a name, a pattern such as `cali*` (`*`, `?`, `[a-f]`),
    /// or `auto` for those of the default routes; each maybe with :ROLE. What a pattern or `auto` means is followed as
    /// interfaces come and go. ROLE is `node` (requests arrive
    /// at ingress: an uplink, a pod's own eth0) or `pod` (requests leave at egress: the host side of a pod's veth, a
    /// bridge of pods); without it the role is found from the interface. `lo` needs none.
    #[arg(
        long = "interface",
        short = 'i',
        required_unless_present = "config",
        value_delimiter = ',',
        value_name = "IFACE"
    )]
    pub interfaces: Vec<String>,

    /// Live port whose requests are mirrored (repeat, or separate by commas).
    #[arg(long = "port", short = 'p', required_unless_present = "config", value_delimiter = ',', value_name = "PORT",
          value_parser = clap::value_parser!(u16).range(1..))]
    pub ports: Vec<u16>,

    /// Where the copies go: `http://HOST[:PORT]`, HOST being an IPv4 address, an IPv6 address in brackets, or a name.
    #[arg(long, required_unless_present = "config", value_name = "URL")]
    pub shadow: Option<String>,

    /// PEM file of the authorities to trust for an https shadow. Default: the system's.
    #[arg(long, value_name = "FILE")]
    pub shadow_ca: Option<PathBuf>,

    /// PEM file of the certificate that the agent shows to an https shadow, and of those between; with --shadow-key.
    #[arg(long, value_name = "FILE", requires = "shadow_key")]
    pub shadow_certificate: Option<PathBuf>,

    /// PEM file of its key.
    #[arg(long, value_name = "FILE", requires = "shadow_certificate")]
    pub shadow_key: Option<PathBuf>,

    /// The name that the certificate of an https shadow must have. Default: the host of --shadow.
    #[arg(long, value_name = "NAME")]
    pub shadow_server_name: Option<String>,

    /// The certificate of an https shadow is not checked: whoever stands at its address receives the copies.
    #[arg(long)]
    pub shadow_insecure_skip_verify: bool,

    /// Only requests to these server addresses (repeat, or separate by commas). Default: any address.
    #[arg(long = "address", value_delimiter = ',', value_name = "CIDR", value_parser = parse_cidr)]
    pub addresses: Vec<IpNet>,

    /// UDP ports to which VXLAN packets go: the connections in them are looked at (repeat, or separate by commas). 0:
    /// VXLAN is not looked into.
    #[arg(long = "vxlan-port", default_values_t = UsualPorts::VXLAN, value_delimiter = ',', value_name = "PORT")]
    pub vxlan_ports: Vec<u16>,

    /// UDP ports to which Geneve packets go, likewise. 0: Geneve is not looked into.
    #[arg(long = "geneve-port", default_values_t = UsualPorts::GENEVE, value_delimiter = ',', value_name = "PORT")]
    pub geneve_ports: Vec<u16>,

    /// Methods to mirror, separated by commas, or `all`. A copy of a method other than these defaults is a write
    /// at the shadow: name it only if the shadow can take it.
    #[arg(long, default_value = "GET,HEAD,OPTIONS", value_name = "LIST|all", value_parser = parse_methods)]
    pub methods: Methods,

    /// Header line by which the shadow proves that it is one: it has to be in its answer to a GET of --interlock-path.
    /// Copies of other methods than GET, HEAD and OPTIONS flow only while it is.
    #[arg(long, value_name = "HEADER=VALUE", value_parser = parse_interlock)]
    pub interlock: Option<ProbeConfig>,

    /// What the shadow is asked for by which it proves that it is one. Default: /.
    #[arg(long, value_name = "PATH", requires = "interlock", value_parser = parse_path)]
    pub interlock_path: Option<String>,

    /// How often it is asked. Default: 5s.
    #[arg(long, value_name = "TIME", requires = "interlock", value_parser = parse_duration)]
    pub interlock_every: Option<Duration>,

    /// Share of the requests to mirror, in percent; fractions are allowed.
    #[arg(long, default_value = "100", value_name = "PERCENT", value_parser = parse_share)]
    pub sample: Share,

    /// Largest request body to mirror, as sent (chunk framing included); larger ones are counted as lost{too_large}.
    /// Default: 16MiB, or half of
    /// --queue-bytes where that is less.
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub max_body: Option<u64>,

    /// Memory for flows, reassembly and bodies, waiting copies included. The ring buffers come on top.
    #[arg(long, default_value = "256MiB", value_name = "SIZE", value_parser = parse_size)]
    pub memory: u64,

    /// Size of each ring buffer between kernel and agent; a power of two.
    #[arg(long, default_value = "16MiB", value_name = "SIZE", value_parser = parse_size)]
    pub ring_size: u64,

    /// Capture threads, each with a ring buffer of its own: 1, 2, 4 or 8.
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub capture_threads: usize,

    /// Where /metrics, /healthz and /readyz are served. Default: 127.0.0.1:9477. Beside --config it goes before what the
    /// file says, since it may differ from node to node.
    #[arg(long, value_name = "ADDR")]
    pub metrics_listen: Option<SocketAddr>,

    /// Beside --config: where this agent answers the others, in place of what the file says as control.fleet.listen, since
    /// it may differ from node to node.
    #[arg(long, value_name = "ADDR", requires = "config")]
    pub fleet_listen: Option<SocketAddr>,

    /// Requests that may wait for a connection to the shadow; more are dropped{queue_full}.
    #[arg(long, default_value_t = 4096, value_name = "N", value_parser = counts())]
    pub queue_requests: usize,

    /// Bytes of requests that may wait or be in the middle of being written; more are dropped{queue_full}. Default:
    /// 32MiB, or half of --memory where that is less.
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub queue_bytes: Option<u64>,

    /// How long a request may wait for a connection; then it is dropped{in_flight}.
    #[arg(long, default_value = "1s", value_name = "TIME", value_parser = parse_duration)]
    pub queue_timeout: Duration,

    /// Most copies in flight, which is also the most connections to the shadow.
    #[arg(long, default_value_t = 256, value_name = "N", value_parser = counts())]
    pub max_in_flight: usize,

    /// Most copies on one connection that are written before the first of them is answered: GET and HEAD, where they wait,
    /// to a shadow that answers them. Each connection then has as many copies in flight.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=64))]
    pub pipeline: u8,

    /// How long a connection to the shadow may take to open.
    #[arg(long, default_value = "1s", value_name = "TIME", value_parser = parse_duration)]
    pub connect_timeout: Duration,

    /// How long the shadow may take to accept a copy, and then to answer it.
    #[arg(long, default_value = "10s", value_name = "TIME", value_parser = parse_duration)]
    pub response_timeout: Duration,

    /// How long copies may still take after SIGTERM; those not written by then are dropped{shutdown}.
    #[arg(long, default_value = "5s", value_name = "TIME", value_parser = parse_duration)]
    pub drain_timeout: Duration,

    /// The share of the processors that the agent may use, such as `50%`: of its control group's limit, or of all of
    /// the node's. Before it uses more, it leaves out new connections. Default: not guarded.
    #[arg(long, value_name = "PERCENT", value_parser = parse_percent)]
    pub guard_cpu: Option<f64>,

    /// The share of the memory that may be used, likewise.
    #[arg(long, value_name = "PERCENT", value_parser = parse_percent)]
    pub guard_memory: Option<f64>,

    /// How to attach: TCX where the kernel has it and clsact elsewhere, or one of them by force.
    #[arg(long, default_value = "auto", value_enum)]
    pub attach: Attach,

    /// The unix socket for `mirror-agent ctl`. Default: /run/mirror-agent/control.sock, or none where that cannot be had.
    #[arg(long, value_name = "PATH")]
    pub control_socket: Option<PathBuf>,

    /// Steer over TCP as well; whoever does needs the token. Beyond loopback it needs --control-token-file. Beside --config
    /// it goes before what the file says as control.listen.
    #[arg(long, value_name = "ADDR")]
    pub control_listen: Option<SocketAddr>,

    /// The file with the token for --control-listen: 32 characters or more, not readable by everybody. Default: a token
    /// made at the start, in a file beside the socket. Beside --config: its `control.tokenFile`.
    #[arg(long, value_name = "FILE", requires = "control_listen")]
    pub control_token_file: Option<PathBuf>,

    /// Write down who changed what, and every copy of an unsafe method, as JSON lines.
    #[arg(long, value_name = "FILE")]
    pub audit_log: Option<PathBuf>,
}

impl RunArgs {
    /// Bytes of requests that may wait or be in the middle of being written.
    #[must_use]
    pub fn queue_bytes(&self) -> u64 {
        self.queue_bytes.unwrap_or_else(|| default_queue_bytes(self.memory))
    }

    /// Largest request body to mirror, in bytes.
    #[must_use]
    pub fn max_body(&self) -> u64 {
        self.max_body.unwrap_or_else(|| default_max_body(self.queue_bytes(), 1))
    }
}

/// The options that `--config` takes the place of.
const OF_ONE_EXPERIMENT: [&str; 34] = [
    "interfaces",
    "ports",
    "shadow",
    "shadow_ca",
    "shadow_certificate",
    "shadow_key",
    "shadow_server_name",
    "shadow_insecure_skip_verify",
    "addresses",
    "vxlan_ports",
    "geneve_ports",
    "methods",
    "interlock",
    "interlock_path",
    "interlock_every",
    "sample",
    "max_body",
    "memory",
    "ring_size",
    "capture_threads",
    "queue_requests",
    "queue_bytes",
    "queue_timeout",
    "max_in_flight",
    "pipeline",
    "connect_timeout",
    "response_timeout",
    "drain_timeout",
    "guard_cpu",
    "guard_memory",
    "attach",
    "control_socket",
    "control_token_file",
    "audit_log",
];

/// Numbers of requests and connections: as many as in a configuration file.
fn counts() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..=1_000_000)
}

/// Options of `check`.
#[derive(Args, Clone, Debug)]
pub struct CheckArgs {
    /// Say what is wrong with this configuration file, and look at nothing else. Needs no privileges.
    #[arg(long, value_name = "FILE", conflicts_with = "interfaces")]
    pub config: Option<PathBuf>,

    /// Interfaces as for `run`; each is said with its role, its hooks, and whether requests may bypass it.
    #[arg(long = "interface", short = 'i', value_delimiter = ',', value_name = "IFACE")]
    pub interfaces: Vec<String>,
}

/// Options of `inspect`.
#[derive(Args, Clone, Debug)]
pub struct InspectArgs {
    /// The capture: pcap or pcapng.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,

    /// Server port (repeat, or separate by commas). Default: found by looking at the bytes.
    #[arg(long = "port", short = 'p', value_delimiter = ',', value_name = "PORT")]
    pub ports: Vec<u16>,
}

fn parse_cidr(text: &str) -> Result<IpNet, String> {
    text.parse::<IpNet>()
        .or_else(|_error| text.parse::<std::net::IpAddr>().map(IpNet::from))
        .map_err(|_error| "expected an address or a network such as 10.0.0.0/8 or fd00::/8".into())
}

fn parse_path(text: &str) -> Result<String, String> {
    let is_path = text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic());
    if is_path {
        Ok(text.to_owned())
    } else {
        Err("expected a path that begins with / and has no spaces".into())
    }
}

fn parse_methods(text: &str) -> Result<Methods, String> {
    if text.eq_ignore_ascii_case("all") {
        return Ok(Methods::All);
    }
    let list: Vec<String> = text.split(',').map(|method| method.trim().to_owned()).collect();
    // RFC 9110 section 9.1: a method is a token and case-sensitive; lower case here is almost surely a mistake.
    match list.iter().find(|method| method.is_empty() || !method.bytes().all(is_method_byte)) {
        Some(bad) => Err(format!("`{bad}` is not a method; methods are written in capitals, e.g. GET,POST")),
        None => Ok(Methods::Only(list)),
    }
}

const fn is_method_byte(byte: u8) -> bool {
    byte.is_ascii_uppercase() || byte == b'-' || byte == b'_'
}

fn parse_share(text: &str) -> Result<Share, String> {
    let percent: f64 = text.trim_end_matches('%').parse().map_err(|_error| "expected a number".to_owned())?;
    Share::from_percent(percent).ok_or_else(|| "expected a number from 0 to 100".into())
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, error::ErrorKind};

    use super::*;

    fn run(args: &[&str]) -> Result<RunArgs, clap::Error> {
        let line = ["mirror-agent", "run", "--interface=eth0", "--port=80", "--shadow=http://s"];
        match Cli::try_parse_from(line.iter().chain(args))?.command {
            Command::Run(args) => Ok(*args),
            Command::Inspect(_)
            | Command::Check(_)
            | Command::Schema
            | Command::Ctl(_)
            | Command::Verdict(_)
            | Command::Report(_)
            | Command::Rules(_)
            | Command::Top(_) => panic!("`run` was parsed as another command"),
        }
    }

    #[test]
    fn the_definition_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_file_takes_the_place_of_all_that_describes_an_experiment() {
        let of_file = |args: &[&str]| {
            let line = ["mirror-agent", "run", "--config", "f"].iter().chain(args);
            Cli::try_parse_from(line).map_err(|error| error.kind())
        };
        assert!(of_file(&["--metrics-listen", "[::1]:1", "--log-level", "debug"]).is_ok());
        let command = Cli::command();
        let run = command.find_subcommand("run").unwrap();
        let beside = ["config", "metrics_listen", "fleet_listen", "control_listen", "name", "help"];
        for arg in run.get_arguments().filter(|arg| !beside.contains(&arg.get_id().as_str())) {
            assert!(OF_ONE_EXPERIMENT.contains(&arg.get_id().as_str()), "{} beside --config", arg.get_id());
        }
        assert_eq!(of_file(&["--port", "80"]).unwrap_err(), ErrorKind::ArgumentConflict);
        assert_eq!(of_file(&["--memory", "256MiB"]).unwrap_err(), ErrorKind::ArgumentConflict);
        let nothing = Cli::try_parse_from(["mirror-agent", "run"]).unwrap_err();
        assert_eq!(nothing.kind(), ErrorKind::MissingRequiredArgument);
    }

    #[test]
    fn numbers_that_cannot_work_are_refused() {
        for option in ["--max-in-flight", "--queue-requests"] {
            assert!(run(&[option, "1"]).is_ok() && run(&[option, "1000000"]).is_ok());
            for number in ["0", "1000001", "9999999999999999"] {
                assert_eq!(
                    run(&[option, number]).unwrap_err().kind(),
                    ErrorKind::ValueValidation,
                    "{option}"
                );
            }
        }
    }

    #[test]
    fn an_interlock_is_a_header_line() {
        let probe = run(&["--interlock", "x-shadow-mode=on"]).unwrap().interlock.unwrap();
        assert_eq!(
            (probe.header.as_str(), probe.value.as_str(), probe.path.as_str()),
            ("x-shadow-mode", "on", "/")
        );
        assert!(run(&["--interlock", "x-shadow-mode"]).is_err());
        assert!(run(&["--interlock", "x shadow=on"]).is_err());
    }

    #[test]
    fn lists_are_repeated_or_separated_by_commas() {
        let args = run(&["--interface", "eth1:pod,lo", "--port", "8080,8081", "--address", "10.0.0.0/8,::1"]);
        let args = args.unwrap();
        assert_eq!(args.interfaces, ["eth0", "eth1:pod", "lo"]);
        assert_eq!(args.ports, [80, 8080, 8081]);
        assert_eq!(args.addresses.len(), 2);
    }

    #[test]
    fn tunnel_ports_replace_the_usual_ones() {
        let usual = run(&[]).unwrap();
        assert_eq!((&usual.vxlan_ports[..], &usual.geneve_ports[..]), (&[4789, 8472][..], &[6081][..]));
        let args = run(&["--vxlan-port", "4790,8472", "--geneve-port", "0"]).unwrap();
        assert_eq!((&args.vxlan_ports[..], &args.geneve_ports[..]), (&[4790, 8472][..], &[0][..]));
    }

    #[test]
    fn wrong_values_are_refused_with_the_option_named() {
        for (args, named) in [
            (["--port", "0"], "--port"),
            (["--methods", "get"], "--methods"),
            (["--sample", "101"], "--sample"),
            (["--max-body", "16 cups"], "--max-body"),
            (["--address", "10.0.0.0/33"], "--address"),
            (["--metrics-listen", "9477"], "--metrics-listen"),
        ] {
            let error = run(&args).unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
    }
}
