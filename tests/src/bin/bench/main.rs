//! Enters: nothing. Leaves: what the mirror costs on this machine, measured, as text, Markdown and JSON.
#![expect(clippy::print_stdout, reason = "the tables are its purpose")]

mod awake;
mod bulk;
mod crowd;
mod kernel;
mod marks;
mod micro;
mod peers;
mod probe;
mod scaling;
mod sys;
mod trial;
mod workloads;
mod yardstick;

use std::{fs, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context, Result, bail};
use clap::{Parser, ValueEnum};
use mirror_tests::{agent, netns::obstacle, nginx::Nginx, report, sys::catch_interrupts};

use crate::{
    peers::PeerOptions,
    probe::Processors,
    report::{Mark, Report, Table},
    trial::Stage,
    workloads::Effort,
};

#[global_allocator]
static ALLOCATOR: sys::CountingAllocator = sys::CountingAllocator;

/// Measures what the mirror costs: three hosts in network namespaces, nginx as live and as shadow, one worker each.
#[derive(Parser)]
#[command(name = "cargo xtask bench", bin_name = "cargo xtask bench")]
struct Options {
    /// A short run: one round of everything, with figures to match
    #[arg(long)]
    quick: bool,
    /// Rounds of each measurement, interleaved; medians are printed
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,
    /// Seconds of each run of load
    #[arg(long, value_name = "N")]
    seconds: Option<u64>,
    /// Only these parts (repeat, or separate by commas)
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    only: Vec<Part>,
    /// Only the stages of the pipeline, in this process: needs neither root nor an agent
    #[arg(long)]
    micro: bool,
    #[command(flatten)]
    peers: PeerOptions,
    /// Writes everything as JSON too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Writes everything as Markdown too
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
}

/// The parts of the bench, in their order.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Part {
    /// The load generator beside wrk
    Yardstick,
    /// The kernel program, packet by packet
    Kernel,
    /// Small GETs at fixed rates and at maximum
    Gets,
    /// The same at fixed rates, while no processor falls asleep
    Awake,
    /// A connection for each request
    Close,
    /// POSTs of 64 KiB and 1 MiB
    Posts,
    /// Eight requests on a connection at a time
    Pipelined,
    /// 10,000 idle connections
    Idle,
    /// Answers compared; 100 experiments of 10 rules
    Experiments,
    /// 1 to 1,000 rules
    Rules,
    /// 100 to 200,000 flows
    Flows,
    /// 1 and 2 capture threads
    Threads,
    /// Shadows that hang or are slow; the guard at 10 %
    Protection,
    /// nginx `mirror`, Envoy where it is installed, and what `--peer` names
    Peers,
    /// Bulk traffic on another port
    Bulk,
    /// 20,000 GETs a second with the agent on one processor
    OneCore,
    /// The rate at which loss begins
    Onset,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("The bench ended early: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the parts. Every way out of it drops the hosts and all that runs on them.
fn run(options: &Options) -> Result<()> {
    catch_interrupts()?;
    let mut report = Report { machine: trial::machine(), ..Report::default() };
    println!("{}", report.machine);
    let before = Processors::read()?;
    let measured = measure(options, &mut report);
    let others = format!(
        "Others kept the processors {:.0} % busy meanwhile; the busier, the less the figures say.",
        Processors::read()?.foreign_since(before)
    );
    println!("\n{others}");
    report.machine = format!("{}. {others}", report.machine);
    if !report.marks.is_empty() {
        print!("{}", report.marks_table().text());
    }
    // What was measured before a failure is worth keeping.
    if let Some(path) = &options.json {
        let text = format!("{:#}\n", report.json());
        fs::write(path, text).with_context(|| format!("write {}", path.display()))?;
    }
    if let Some(path) = &options.markdown {
        fs::write(path, report.markdown()).with_context(|| format!("write {}", path.display()))?;
    }
    measured
}

fn measure(options: &Options, report: &mut Report) -> Result<()> {
    options.peers.check()?;
    let (rounds, seconds) = if options.quick { (1, 1) } else { (3, 3) };
    let effort = Effort {
        duration: Duration::from_secs(options.seconds.unwrap_or(seconds).max(1)),
        rounds: options.rounds.unwrap_or(rounds).max(1),
    };
    if options.micro {
        let table = micro::measure(effort.duration)?;
        show(report, (vec![table], Vec::new()));
        return Ok(());
    }
    if let Some(reason) = obstacle() {
        bail!("the bench {reason}");
    }
    if agent::program().is_none() {
        bail!("no mirror-agent was built: run `cargo xtask build` first, or `cargo xtask bench`");
    }
    if Nginx::program().is_none() {
        bail!("nginx is not installed (package nginx-light)");
    }
    let stage = Stage::set()?;
    let parts = Part::value_variants().iter();
    for part in parts.filter(|part| options.only.is_empty() || options.only.contains(part)) {
        let measured = match part {
            Part::Yardstick => yardstick::measure(&stage, effort),
            Part::Kernel => kernel::measure(if options.quick { 10 } else { 40 }),
            Part::Gets => workloads::gets(&stage, effort),
            Part::Awake => awake::measure(&stage, effort),
            Part::Close => workloads::close(&stage, effort),
            Part::Posts => workloads::posts(&stage, effort),
            Part::Pipelined => workloads::pipelined(&stage, effort),
            Part::Experiments => workloads::experiments(&stage, effort),
            Part::Idle => workloads::idle(&stage, effort),
            Part::Rules => scaling::rules(&stage, effort),
            Part::Flows => scaling::flows(&stage, effort),
            Part::Threads => scaling::threads(&stage, effort),
            Part::Protection => workloads::protection(&stage, effort),
            Part::Peers => peers::measure(&stage, effort, &options.peers),
            Part::Bulk => bulk::measure(&stage, effort),
            Part::OneCore => workloads::one_core(&stage, effort),
            Part::Onset => workloads::onset(&stage, effort),
        };
        show(report, measured.with_context(|| format!("measure {part:?}"))?);
    }
    Ok(())
}

/// Prints what a part has found and keeps it.
fn show(report: &mut Report, (tables, marks): (Vec<Table>, Vec<Mark>)) {
    for table in &tables {
        print!("{}", table.text());
    }
    report.tables.extend(tables);
    report.marks.extend(marks);
}
