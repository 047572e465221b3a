//! Enters: the command line. Leaves: an exit status.

use std::{
    io::{self, IsTerminal, Write},
    process::ExitCode,
    time::SystemTime,
};

use anyhow::{Context as _, Error, Result, bail, ensure};
use clap::Parser;
use mirror_agent::io::{
    agent::{self, Surroundings},
    check::{Readiness, check},
    cli::{CheckArgs, Cli, Command},
    config::{self, Config, Listens},
    control::ctl,
    footprint::Footprint,
    inspect::{self, FilePipeline},
    logs::{self, Colors, LogFormat, LogWriter},
    object::EBPF_OBJECT,
    pods::check_pods,
    replay::check_certificates,
    sinks::Written,
    steering::Followed,
    telling::show,
    top,
};
use mirror_agent::pipeline::reason::VerdictState;
use tracing::error;
use tracing_subscriber::{EnvFilter, filter::LevelFilter};

/// Exit status of `verdict` where it cannot be told yet.
const NOT_ENOUGH_DATA: u8 = 3;

/// Exit status of `verdict` where it could not be asked for: that of a command line that is not understood.
const NO_VERDICT: u8 = 2;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let log = match start_log(&cli) {
        Ok(log) => log,
        Err(error) => {
            // Nowhere is left to report that standard error cannot be written.
            drop(writeln!(io::stderr(), "mirror-agent: {error:#}"));
            return ExitCode::FAILURE;
        }
    };
    perform(&cli, &log).unwrap_or_else(|error| {
        match cli.log_format {
            LogFormat::Text => log.print(&format!("mirror-agent: {error:#}\n")),
            LogFormat::Json => error!(error = format!("{error:#}"), "The agent ends."),
        }
        ExitCode::FAILURE
    })
}

fn start_log(cli: &Cli) -> Result<LogWriter> {
    let colors = if io::stderr().is_terminal() { Colors::Terminal } else { Colors::Plain };
    logs::start(log_filter(&cli.log_level)?, cli.log_format, colors).context("start the log")
}

fn perform(cli: &Cli, log: &LogWriter) -> Result<ExitCode> {
    match &cli.command {
        Command::Run(args) => {
            let file = args.config.clone().map(|path| Followed { path, listens: Listens::of(args) });
            let surroundings = Surroundings { file, name: args.name.clone(), log: log.counts() };
            let books = agent::run(&Config::load(args)?, surroundings)?;
            write!(io::stdout(), "{books}").context("print the ledger")?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Inspect(args) => {
            let (out, mut warnings) = (io::stdout().lock(), io::stderr().lock());
            inspect::run(&args.file, args.ports.clone(), &mut FilePipeline::new(), out, &mut warnings)
                .with_context(|| format!("inspect {}", args.file.display()))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Ctl(args) => {
            ctl::run(args, &mut io::stdout())?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Verdict(args) => Ok(match show::verdict(args, &mut io::stdout()) {
            Ok(VerdictState::Pass) => ExitCode::SUCCESS,
            Ok(VerdictState::Fail) => ExitCode::FAILURE,
            Ok(VerdictState::NotEnoughData) => ExitCode::from(NOT_ENOUGH_DATA),
            // Whoever reads the status must not take this for a verdict.
            Err(error) => {
                writeln!(io::stderr(), "mirror-agent: {:#}", Error::from(error))?;
                ExitCode::from(NO_VERDICT)
            }
        }),
        Command::Report(args) => {
            show::report(args, &mut io::stdout())?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Rules(args) => {
            show::rules(args, &mut io::stdout())?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Top(args) => {
            top::run(args)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Schema => {
            let text = serde_json::to_string_pretty(&config::schema()).context("write the schema")?;
            writeln!(io::stdout(), "{text}").context("print the schema")?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Check(CheckArgs { config: Some(file), .. }) => {
            let config = config::read(file, Some(SystemTime::now()))?;
            let unusable = unusable_parts(&config);
            ensure!(unusable.is_empty(), "{}", unusable.join("\nmirror-agent: "));
            let (experiments, targets) = (config.experiments.len(), config.targets());
            let name = file.display();
            writeln!(io::stdout(), "ok       {name}: {experiments} experiments with {targets} targets")
                .and_then(|()| write!(io::stdout(), "{}", Footprint::of(&config)))
                .context("print the findings")?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Check(args) => {
            let specs = args.interfaces.iter().map(|spec| spec.parse()).collect::<Result<Vec<_>, _>>()?;
            match check(EBPF_OBJECT, &specs, &mut io::stdout()).context("print the findings")? {
                Readiness::Ready => Ok(ExitCode::SUCCESS),
                Readiness::NotReady => Ok(ExitCode::FAILURE),
            }
        }
    }
}

/// What a configuration names that this program cannot use: certificates that are none, pods and sinks that it was built
/// without, and files that two sinks would write to.
fn unusable_parts(config: &Config) -> Vec<String> {
    let mut found: Vec<_> = check_pods(config).err().iter().map(ToString::to_string).collect();
    let mut written = Written::default();
    for experiment in &config.experiments {
        for target in &experiment.targets {
            if let Err(error) = check_certificates(&target.url, &target.tls) {
                let error = Error::from(error);
                found.push(format!("target {} of experiment {}: {error:#}", target.name, experiment.name));
            }
        }
        for sink in experiment.compare.iter().flat_map(|compare| &compare.sinks) {
            if let Err(error) = written.note(sink) {
                found.push(format!("experiment {}: {error}", experiment.name));
            }
        }
    }
    found
}

/// The filter of `--log-level`. One word alone has to be a level: as a target it would silence everything else.
fn log_filter(text: &str) -> Result<EnvFilter> {
    let is_word = text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if is_word && text.parse::<LevelFilter>().is_err() {
        bail!(
            "--log-level {text}: expected off, error, warn, info, debug, trace, or a filter such as info,mirror_agent::io=debug"
        );
    }
    EnvFilter::try_new(text).with_context(|| format!("--log-level {text}"))
}
