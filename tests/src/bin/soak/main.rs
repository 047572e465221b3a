//! Enters: minutes and a seed. Leaves: the mirror, soaked in mixed traffic over bad wires; exit status 0 if all held.
#![expect(clippy::print_stdout, reason = "the figures are its purpose")]

use std::{process::ExitCode, time::Duration};

use anyhow::Result;
use clap::Parser;
use mirror_tests::{
    netns::obstacle,
    rng::Rng,
    soak::{self, Options},
    sys,
};

/// Mixed traffic, lost and doubled segments, flapping wires, a shadow that comes and goes, pauses. Ends by itself.
#[derive(Parser)]
#[command(name = "cargo xtask soak", bin_name = "cargo xtask soak")]
struct Arguments {
    /// Minutes of traffic; fractions are allowed.
    #[arg(long, default_value_t = 5.0)]
    minutes: f64,
    /// Seed of all chance; without it, another each time.
    #[arg(long)]
    seed: Option<u64>,
    /// Clients at work at the same time.
    #[arg(long, default_value_t = 12)]
    clients: usize,
    /// Segments lost, and doubled, at each of several places, in percent.
    #[arg(long, default_value_t = 2.0)]
    loss: f64,
    /// Never pause the agent: then every request has to be seen.
    #[arg(long)]
    no_pauses: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(reason) = obstacle() {
        println!("The soak {reason}.");
        return ExitCode::from(2);
    }
    match sys::catch_interrupts().map_err(Into::into).and_then(|()| run(&arguments)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("The soak failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<bool> {
    let options = Options {
        duration: Duration::try_from_secs_f64(arguments.minutes * 60.0)?,
        seed: arguments.seed.unwrap_or_else(Rng::any_seed),
        clients: arguments.clients,
        loss_percent: arguments.loss,
        pauses: !arguments.no_pauses,
    };
    println!("{} minutes, seed {}", arguments.minutes, options.seed);
    let outcome = soak::run(&options, &mut |line| println!("{line}"))?;
    println!();
    for figure in outcome.figures() {
        println!("  {figure}");
    }
    println!();
    let checks = outcome.checks();
    for (holds, what) in &checks {
        println!("  {} {what}", if *holds { "ok  " } else { "FAIL" });
    }
    Ok(checks.iter().all(|(holds, _)| *holds))
}
