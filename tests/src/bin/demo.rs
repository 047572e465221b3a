//! Enters: nothing. Leaves: the whole mirror at work on this machine, watched, counted and checked.
#![expect(clippy::print_stdout, reason = "the table is its purpose")]

use std::{
    io::{IsTerminal, Write, stdout},
    process::ExitCode,
    sync::atomic::Ordering,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use clap::Parser;
use mirror_tests::{
    agent::{Agent, Arguments, program},
    digest::Difference,
    histogram::Snapshot,
    load::{Pace, Plan, Report, Reuse, Running},
    metrics::Ledger,
    netns::{Topology, obstacle},
    nginx::Nginx,
    server::{Record, Server},
    sys,
    traffic::{Distinct, Mix, Sent},
};

/// Three hosts in network namespaces: a load generator, nginx with the mirror beside it, and a shadow. Ends by itself.
#[derive(Parser)]
#[command(name = "cargo xtask demo", bin_name = "cargo xtask demo")]
struct Options {
    /// Seconds of load without the mirror, for comparison.
    #[arg(long, default_value_t = 8)]
    without: u64,
    /// Seconds of load with the mirror.
    #[arg(long, default_value_t = 15)]
    with: u64,
    /// Mirror every method, not only GET, HEAD and OPTIONS; the shadow is a dummy, so nothing is at risk.
    #[arg(long)]
    all_methods: bool,
}

/// The port of the live service and of the shadow.
const PORT: u16 = 8080;

fn main() -> ExitCode {
    let options = Options::parse();
    if let Some(reason) = obstacle() {
        println!("The demo {reason}.");
        return ExitCode::from(2);
    }
    match sys::catch_interrupts().map_err(Into::into).and_then(|()| run(&options)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("The demo failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the demo; says whether every check held. Every way out of it drops the hosts and all that runs on them.
fn run(options: &Options) -> Result<bool> {
    if program().is_none() {
        bail!("no mirror-agent was built: run `cargo xtask build` first, or `cargo xtask demo`");
    }
    println!(
        "Three hosts in network namespaces: client 10.77.0.1, live 10.77.0.2 (nginx, and the mirror beside it),"
    );
    println!(
        "shadow 10.77.0.3. {} s of mixed load without the mirror, then {} s with it.\n",
        options.without, options.with
    );
    let net = Topology::new()?;
    let nginx = Nginx::start(&net.live, PORT, 1)?;
    let shadow = Server::start(&net.shadow, PORT, Record::Digest)?;
    let stage = Stage { net: &net, nginx: &nginx, shadow: &shadow };

    let mut table = Table::default();
    let alone = stage.load("before", Duration::from_secs(options.without), None, &mut table)?;

    let methods: &[&str] = if options.all_methods { &["--methods", "all"] } else { &[] };
    let agent = Agent::start(&net.live, &Arguments::new(PORT, net.shadow.at_v4(PORT)).with(methods))?;
    let mirrored = stage.load("with", Duration::from_secs(options.with), Some(&agent), &mut table)?;
    table.close();

    let ledger = agent.wait_for(Duration::from_secs(10), |books| {
        books.seen >= mirrored.at_live && books.pending == 0 && shadow.requests() >= books.mirrored
    });
    let ledger = match ledger {
        Ok(ledger) => ledger,
        Err(_) => agent.ledger()?,
    };
    // A copy too many would arrive late: it gets a moment to do so.
    thread::sleep(Duration::from_millis(200));
    let agent_cpu = agent.cpu()?.saturating_sub(mirrored.cpu_at_start);
    let ended = agent.stop()?;
    let expected = if options.all_methods {
        [mirrored.safe.digests(), mirrored.unsafe_ones.digests()].concat()
    } else {
        mirrored.safe.digests()
    };
    conclude(&Conclusion {
        alone: &alone,
        mirrored: &mirrored,
        ledger: &ledger,
        agent_cpu,
        expected_skips: if options.all_methods { 0 } else { mirrored.unsafe_ones.digests().len() as u64 },
        difference: Difference::between(&expected, &shadow.digests()),
        unmarked: shadow.unmarked(),
        at_shadow: shadow.requests(),
        stopped_well: ended.status.success(),
    })
}

/// What both phases have in common.
struct Stage<'a> {
    net: &'a Topology,
    nginx: &'a Nginx,
    shadow: &'a Server,
}

/// One phase of load, when it is over.
struct Phase {
    reports: Vec<(&'static str, Report)>,
    latency: Snapshot,
    at_live: u64,
    safe: Sent,
    unsafe_ones: Sent,
    /// CPU time of the agent before the load.
    cpu_at_start: Duration,
}

/// The parts of the mix: name, kind, requests a second, connections, use of connections, pipelining.
const MIX: [(&str, Mix, f64, usize, Reuse, usize); 4] = [
    ("keep-alive", Mix::Safe, 1_500.0, 32, Reuse::KeepAlive, 1),
    ("a connection each", Mix::GetAndClose, 250.0, 16, Reuse::PerRequest, 1),
    ("pipelined by 5", Mix::Safe, 500.0, 4, Reuse::KeepAlive, 5),
    ("POST", Mix::Post, 250.0, 8, Reuse::KeepAlive, 1),
];

impl Stage<'_> {
    /// Runs the mix, over IPv4 and IPv6, and shows a line of the table each second.
    fn load(
        &self,
        phase: &'static str,
        duration: Duration,
        agent: Option<&Agent>,
        table: &mut Table,
    ) -> Result<Phase> {
        let (safe, unsafe_ones) = (Sent::default(), Sent::default());
        let live_before = self.nginx.requests(&self.net.live)?;
        let mut running = Vec::new();
        for (index, (name, mix, rate, connections, reuse, pipeline)) in MIX.into_iter().enumerate() {
            let target = if index % 2 == 0 { self.net.live.at_v4(PORT) } else { self.net.live.at_v6(PORT) };
            let plan =
                Plan { reuse, pipeline, ..Plan::new(target, Pace::PerSecond(rate), duration, connections) };
            let sent = if mix == Mix::Post { &unsafe_ones } else { &safe };
            let source = Distinct::new(&format!("{phase}-{index}"), mix, agent.is_some().then_some(sent));
            running.push((name, Running::start(&self.net.client, plan, source)?));
        }
        let latency = || {
            running
                .iter()
                .fold(Snapshot::default(), |all, (_, load)| all.merged(&load.progress.latency.snapshot()))
        };
        let answered =
            || running.iter().map(|(_, load)| load.progress.answered.load(Ordering::Relaxed)).sum::<u64>();
        // Not counted: the kernel's check of the programs at the agent's start.
        let cpu_at_start = agent.map_or(Ok(Duration::ZERO), Agent::cpu)?;
        let (mut latency_then, mut cpu_then, mut then) = (Snapshot::default(), cpu_at_start, Instant::now());
        while running.iter().any(|(_, load)| !load.is_finished()) {
            while then.elapsed() < Duration::from_secs(1)
                && running.iter().any(|(_, load)| !load.is_finished())
            {
                if sys::interrupted() {
                    bail!("interrupted; everything is taken down again");
                }
                thread::sleep(Duration::from_millis(50));
            }
            let latency_now = latency();
            let cpu_now = agent.map_or(Ok(Duration::ZERO), Agent::cpu)?;
            let recent = latency_now.since(&latency_then);
            table.show(&Row {
                phase,
                at_live: self.nginx.requests(&self.net.live)? - live_before,
                answered: answered(),
                books: agent.map(Agent::ledger).transpose()?,
                at_shadow: self.shadow.requests(),
                cpu_percent: (cpu_now.saturating_sub(cpu_then)).as_secs_f64() * 100.0
                    / then.elapsed().as_secs_f64(),
                p50: recent.percentile(50.0),
                p99: recent.percentile(99.0),
            })?;
            (latency_then, cpu_then, then) = (latency_now, cpu_now, Instant::now());
        }
        let latency = latency();
        let reports =
            running.into_iter().map(|(name, load)| Ok((name, load.finish()?))).collect::<Result<_>>()?;
        let at_live = self.nginx.requests(&self.net.live)? - live_before;
        Ok(Phase { reports, latency, at_live, safe, unsafe_ones, cpu_at_start })
    }
}

/// One second of the demo.
struct Row {
    phase: &'static str,
    at_live: u64,
    answered: u64,
    books: Option<Ledger>,
    at_shadow: u64,
    cpu_percent: f64,
    p50: Duration,
    p99: Duration,
}

/// The live table: one line a phase that is drawn anew on a terminal, one line a second elsewhere.
#[derive(Default)]
struct Table {
    last_phase: &'static str,
}

impl Table {
    fn show(&mut self, row: &Row) -> Result<()> {
        let mut out = stdout();
        if self.last_phase.is_empty() {
            writeln!(out, "{HEADER}")?;
        }
        let figure = |pick: &dyn Fn(&Ledger) -> u64| {
            row.books.as_ref().map_or("-".to_owned(), |books| pick(books).to_string())
        };
        let line = format!(
            "{:<7} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>8} {:>9} {:>9}",
            row.phase,
            row.at_live,
            row.answered,
            figure(&|books| books.seen),
            figure(&|books| books.mirrored),
            row.at_shadow,
            figure(&Ledger::all_skipped),
            figure(&|books| books.all_dropped() + books.all_lost()),
            row.books.as_ref().map_or("-".to_owned(), |_| format!("{:.0} %", row.cpu_percent)),
            format!("{}/{}", row.p50.as_micros(), row.p99.as_micros()),
        );
        if !out.is_terminal() {
            writeln!(out, "{line}")?;
        } else if self.last_phase == row.phase {
            // Back to the start of the line, and clear it.
            write!(out, "\r\x1b[K{line}")?;
        } else {
            write!(out, "{}{line}", if self.last_phase.is_empty() { "" } else { "\n" })?;
        }
        self.last_phase = row.phase;
        Ok(out.flush()?)
    }

    fn close(&self) {
        println!();
    }
}

/// Heads of the columns.
const HEADER: &str = "\
mirror    at live  answered      seen  mirrored at shadow   skipped  dropped agent CPU  live p50/p99
                                                                     or lost              µs";

/// All that the demo's end depends on.
struct Conclusion<'a> {
    alone: &'a Phase,
    mirrored: &'a Phase,
    ledger: &'a Ledger,
    agent_cpu: Duration,
    expected_skips: u64,
    difference: Difference,
    unmarked: u64,
    at_shadow: u64,
    stopped_well: bool,
}

/// Prints the books and every check; says whether all held.
fn conclude(end: &Conclusion<'_>) -> Result<bool> {
    let ledger = end.ledger;
    println!("\nThe books\n  seen     {:>9}", ledger.seen);
    for (name, total, reasons) in [
        ("mirrored", ledger.mirrored, None),
        ("skipped", ledger.all_skipped(), Some(&ledger.skipped)),
        ("dropped", ledger.all_dropped(), Some(&ledger.dropped)),
        ("lost", ledger.all_lost(), Some(&ledger.lost)),
        ("pending", u64::try_from(ledger.pending)?, None),
    ] {
        let reasons = reasons.into_iter().flatten().map(|(reason, count)| format!("{reason} {count}"));
        println!(
            "{}",
            format!("  {name:<8} {total:>9}  {}", reasons.collect::<Vec<_>>().join(", ")).trim_end()
        );
    }
    let (before, after) = (&end.alone.latency, &end.mirrored.latency);
    println!("\nThe live service, as its clients felt it");
    for (name, latency) in [("without the mirror", before), ("with the mirror", after)] {
        let [p50, p99] = [50.0, 99.0].map(|percent| latency.percentile(percent).as_micros());
        println!("  {name:<19} p50 {p50:>6} µs   p99 {p99:>6} µs   {} requests", latency.count());
    }
    let per_thousand = end.agent_cpu.as_secs_f64() * 1e6 / ledger.mirrored.max(1) as f64;
    println!(
        "  the agent used {:.2} s of CPU: {per_thousand:.0} ms for 1,000 mirrored requests\n",
        end.agent_cpu.as_secs_f64()
    );

    let mut all = true;
    let mut check = |holds: bool, what: String| {
        println!("  {} {what}", if holds { "ok  " } else { "FAIL" });
        all &= holds;
    };
    for (name, report) in end.alone.reports.iter().chain(&end.mirrored.reports) {
        if !report.is_clean() {
            check(false, format!("live requests ({name}): {report:?}"));
        }
    }
    let answered = |phase: &Phase| phase.reports.iter().map(|(_, report)| report.answered).sum::<u64>();
    check(
        answered(end.mirrored) == end.mirrored.at_live,
        format!("{} requests answered by live, none failed", answered(end.mirrored)),
    );
    check(
        ledger.is_balanced() && ledger.pending == 0,
        "seen = mirrored + skipped + dropped + lost, nothing pending".to_owned(),
    );
    check(ledger.all_frames_dropped() == 0, format!("{} frames dropped", ledger.all_frames_dropped()));
    check(
        ledger.seen == end.mirrored.at_live,
        format!("seen {} - live's own count {} = 0", ledger.seen, end.mirrored.at_live),
    );
    check(
        ledger.mirrored == end.at_shadow,
        format!("mirrored {} - the shadow's own count {} = 0", ledger.mirrored, end.at_shadow),
    );
    check(ledger.all_dropped() + ledger.all_lost() == 0, "nothing dropped, nothing lost".to_owned());
    check(
        ledger.skipped_for("method") == end.expected_skips && ledger.all_skipped() == end.expected_skips,
        format!("skipped: exactly the {} POSTs", end.expected_skips),
    );
    check(
        end.difference.is_none() && end.unmarked == 0,
        format!(
            "every request at the shadow once, byte for byte, with its markers ({:?}, unmarked {})",
            end.difference, end.unmarked
        ),
    );
    check(end.stopped_well, "the agent drained and ended with status 0".to_owned());
    println!(
        "\n{}",
        if all {
            "Every request that was to be mirrored reached the shadow intact."
        } else {
            "The demo found fault: see FAIL above."
        }
    );
    Ok(all)
}
