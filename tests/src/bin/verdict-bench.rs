//! Enters: how many requests, a seed. Leaves: how well the agent tells bugs from noise, as tables; exit status 0 if all held.
#![expect(clippy::print_stdout, reason = "the tables are its purpose")]

use std::{fs, path::PathBuf, process::ExitCode};

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use mirror_tests::{
    agent,
    netns::obstacle,
    report::Report,
    sys,
    verdict::{self, Case, tables},
};

/// Two versions of a shop behind the mirror, equal or with seeded bugs, among ten sources of noise. Ends by itself.
#[derive(Parser)]
#[command(name = "cargo xtask verdict-bench", bin_name = "cargo xtask verdict-bench")]
struct Options {
    /// Requests in each case
    #[arg(long, value_name = "N", default_value_t = 50_000)]
    requests: u64,
    /// Requests a second
    #[arg(long, value_name = "N", default_value_t = 400.0)]
    rate: f64,
    /// Seed of all chance
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Only these cases (repeat, or separate by commas)
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    only: Vec<Named>,
    /// Writes everything as JSON too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Writes everything as Markdown too
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
}

/// The cases, by name.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Named {
    /// Equal versions and a control
    EqualControlled,
    /// Equal versions without a control
    EqualAlone,
    /// A version with every bug and a control
    BuggyControlled,
    /// A version with every bug without a control
    BuggyAlone,
}

impl Named {
    fn case(self) -> Case {
        match self {
            Self::EqualControlled => Case::EqualControlled,
            Self::EqualAlone => Case::EqualAlone,
            Self::BuggyControlled => Case::BuggyControlled,
            Self::BuggyAlone => Case::BuggyAlone,
        }
    }
}

fn main() -> ExitCode {
    let options = Options::parse();
    if let Some(reason) = obstacle() {
        println!("The bench {reason}.");
        return ExitCode::from(2);
    }
    if agent::program().is_none() {
        println!("No mirror-agent was built: run `cargo xtask build` first, or `cargo xtask verdict-bench`.");
        return ExitCode::from(2);
    }
    match sys::catch_interrupts().map_err(Into::into).and_then(|()| run(&options)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("The bench ended early: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<bool> {
    let machine = format!(
        "{} requests a case at {} a second, service time about {} ms, seed {}",
        options.requests,
        options.rate,
        mirror_tests::shop::SERVICE_TIME.as_millis(),
        options.seed
    );
    println!("{machine}");
    let mut report = Report { machine, tables: tables().into(), ..Report::default() };
    let measured = measure(options, &mut report);
    for table in &report.tables {
        print!("{}", table.text());
    }
    print!("{}", report.marks_table().text());
    // What was found before a failure is worth keeping.
    if let Some(path) = &options.json {
        fs::write(path, format!("{:#}\n", report.json()))
            .with_context(|| format!("write {}", path.display()))?;
    }
    if let Some(path) = &options.markdown {
        fs::write(path, report.markdown()).with_context(|| format!("write {}", path.display()))?;
    }
    measured?;
    Ok(report.marks.iter().all(|mark| mark.is_kept))
}

fn measure(options: &Options, report: &mut Report) -> Result<()> {
    let cases = Named::value_variants().iter();
    for named in cases.filter(|named| options.only.is_empty() || options.only.contains(named)) {
        let plan =
            verdict::Options { requests: options.requests, per_second: options.rate, seed: options.seed };
        let case = named.case();
        let run = verdict::run(case, &plan, &mut |line| println!("  {line}"))
            .with_context(|| format!("run the case {}", case.name()))?;
        report.marks.extend(run.marks());
        if let [verdicts, bugs, noise] = &mut report.tables[..] {
            run.add_verdict(verdicts);
            run.add_bugs(bugs);
            run.add_noise(noise);
        }
    }
    Ok(())
}
