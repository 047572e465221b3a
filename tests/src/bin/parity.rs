//! Enters: a directory of captures. Leaves: where `inspect` and Wireshark disagree; the exit status says whether
//! anything is unexplained.
#![expect(clippy::print_stderr, reason = "the program talks to the person who started it")]

use std::{
    io::stdout,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, Result};
use clap::Parser;
use mirror_tests::{
    agent,
    parity::{self, verdicts::Verdicts},
};

/// Compares what `mirror-agent inspect` and Wireshark find in captures, message by message.
#[derive(Parser)]
#[command(name = "cargo xtask parity", bin_name = "cargo xtask parity")]
struct Arguments {
    /// Where the captures are, in it or below; or one capture
    directory: PathBuf,
    /// Reasoned verdicts on known disagreements, as JSON
    #[arg(long, value_name = "FILE")]
    verdicts: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<bool> {
    let agent = agent::program().context("no mirror-agent was built (cargo xtask build)")?;
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("parity/verdicts.json");
    let verdicts = Verdicts::read(arguments.verdicts.as_ref().unwrap_or(&own))?;
    let summary = parity::run(&arguments.directory, &agent, &verdicts, &mut stdout().lock())?;
    Ok(summary.is_clean())
}
