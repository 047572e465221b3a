//! Enters: the name of a chore. Leaves: the chore, done, or one message that says why not.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the chores talk to the person who started them"
)]

mod agree;
mod apt;
mod bench;
mod build;
mod chart;
mod child;
mod compiler;
mod dashboards;
mod demo;
mod fuzz;
mod kernels;
mod linker;
mod lint;
mod manifests;
mod parity;
mod prometheus;
mod setup;
mod soak;
mod test;
mod tidy;
mod tools;
mod verdict;
mod workspace;

use std::{ffi::OsString, path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::{Parser, Subcommand, builder::PossibleValuesParser};

use build::{KernelLog, Linkage, Profile};

/// The project's chores.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Makes the eBPF toolchain usable; the other chores call it themselves
    Setup {
        /// Only says what would be done
        #[arg(long)]
        dry_run: bool,
        /// Also installs what the kernel tests, the demo and the bench need
        #[arg(long)]
        all: bool,
    },
    /// Builds the eBPF object and the agent that carries it: target/release/mirror-agent
    Build {
        /// Builds the agent without optimisation: target/debug/mirror-agent
        #[arg(long)]
        debug: bool,
        /// Lets the kernel program log what it leaves out; for diagnosis, with the agent's --log-level debug
        #[arg(long)]
        kernel_log: bool,
        /// Puts the C library into the agent, for images without one: target/TARGET/release/mirror-agent
        #[arg(long = "static")]
        is_static: bool,
        /// Features of the agent that are not there by default: `kafka`, `kube`
        #[arg(long, value_delimiter = ',', value_name = "FEATURE")]
        features: Vec<String>,
    },
    /// Runs the unit, property, pcap and kernel tests; arguments go to `cargo test`
    Test {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Boots Debian's kernels, emulated, and runs the kernel tests inside each
    TestKernels(kernels::Options),
    /// Checks formatting, lints, purity, documentation, dependencies, manifests, alerts and the house rules
    Lint {
        /// Only the checks in whose names this stands, such as `manifests`
        only: Option<String>,
    },
    /// Makes the dashboards, and the manifest of the alerts, from their sources
    Dashboards,
    /// Mirrors real requests between network namespaces and shows the live table
    #[command(disable_help_flag = true)]
    Demo {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Looks for inputs that break what must always hold
    Fuzz {
        /// Seconds of processor time for each target
        #[arg(long, default_value_t = 60)]
        seconds: u64,
        /// Targets at a time
        #[arg(long, default_value_t = 1)]
        jobs: usize,
        /// Adds inputs that reach something new to those in tests/fuzz/corpus
        #[arg(long)]
        minimize: bool,
        /// All where none is named
        #[arg(value_parser = PossibleValuesParser::new(fuzz::TARGETS))]
        targets: Vec<String>,
    },
    /// Measures what the mirror costs
    #[command(disable_help_flag = true)]
    Bench {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Seeds bugs and noise in two versions of a shop, and measures how well the mirror tells them apart
    #[command(disable_help_flag = true)]
    VerdictBench {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Compares what `inspect` and Wireshark find in a directory of captures
    #[command(disable_help_flag = true)]
    Parity {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Holds the kernel program against the parser of capture files: both must say the same of every frame
    Agree {
        /// Frames made and handed to the loaded program, beside those of CAPTURES; one in a hundred of them passes real interfaces
        #[arg(long, default_value_t = 1_000_000)]
        frames: u64,
        /// Seed of the frames; without it, another each time
        #[arg(long)]
        seed: Option<u64>,
        /// Capture files, or folders of them, whose frames are taken too
        captures: Vec<PathBuf>,
    },
    /// Mirrors mixed traffic over bad wires for a while, and balances the books
    #[command(disable_help_flag = true)]
    Soak {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
}

fn main() -> ExitCode {
    let done = match Cli::parse().chore {
        Chore::Setup { dry_run, all } => setup::run(dry_run, all),
        Chore::Build { debug, kernel_log, is_static, features } => build::run(
            if debug { Profile::Debug } else { Profile::Release },
            if kernel_log { KernelLog::On } else { KernelLog::Off },
            if is_static { Linkage::Static } else { Linkage::Dynamic },
            &features,
        ),
        Chore::Test { args } => test::run(&args),
        Chore::TestKernels(options) => kernels::run(&options),
        Chore::Lint { only } => lint::run(only),
        Chore::Dashboards => dashboards::run(),
        Chore::Demo { args } => demo::run(&args),
        Chore::Fuzz { seconds, jobs, minimize, targets } => {
            fuzz::run(&fuzz::Plan { seconds, targets, jobs, minimize })
        }
        Chore::Bench { args } => bench::run(&args),
        Chore::VerdictBench { args } => verdict::run(&args),
        Chore::Parity { args } => parity::run(&args),
        Chore::Agree { frames, seed, captures } => agree::run(frames, seed, &captures),
        Chore::Soak { args } => soak::run(&args),
    };
    exit_code(&done)
}

fn exit_code(done: &Result<()>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
