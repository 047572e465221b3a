//! Enters: nothing. Leaves: what the harness itself costs, beside wrk: the yardstick's own measure.
#![expect(clippy::print_stdout, reason = "the figures are its purpose")]

use std::{
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use clap::Parser;
use mirror_tests::{
    agent::cpu_time_of,
    load::{Pace, Plan, Reuse, Running},
    netns::{Topology, obstacle},
    nginx::Nginx,
    server::{Record, Server},
    traffic::Same,
};

/// Measures the load generator and the server.
#[derive(Parser)]
struct Options {
    /// Seconds for each measurement.
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// Connections.
    #[arg(long, default_value_t = 64)]
    connections: usize,
}

fn main() -> Result<()> {
    let options = Options::parse();
    if let Some(reason) = obstacle() {
        println!("SKIPPED: {reason}");
        return Ok(());
    }
    let duration = Duration::from_secs(options.seconds);
    let net = Topology::new()?;
    let nginx = Nginx::start(&net.live, 8080, 1)?;
    let server = Server::start(&net.shadow, 8080, Record::Count)?;
    let targets = [("nginx", net.live.at_v4(8080)), ("own server", net.shadow.at_v4(8080))];
    for (name, target) in targets {
        let started = Instant::now();
        let wrk = wrk(&net, &format!("http://{target}/api/items/4711"), options.connections, duration);
        match wrk {
            Ok((requests, cpu)) => println!(
                "wrk closed loop to {name}: {:.0} req/s, {:.2} ms CPU per 1,000",
                requests as f64 / started.elapsed().as_secs_f64(),
                cpu.as_secs_f64() * 1e6 / requests.max(1) as f64
            ),
            Err(error) => println!("wrk: {error:#}"),
        }
        let rates = [None, Some(5_000.0), Some(10_000.0), Some(20_000.0), Some(40_000.0)];
        for rate in rates {
            let pace = rate.map_or(Pace::ClosedLoop, Pace::PerSecond);
            measure(&net, name, "", Plan::new(target, pace, duration, options.connections), &server)?;
        }
        let plan =
            Plan { reuse: Reuse::PerRequest, ..Plan::new(target, Pace::PerSecond(2_000.0), duration, 64) };
        measure(&net, name, "connection per request, ", plan, &server)?;
        let plan = Plan { reuse: Reuse::PerRequest, ..Plan::new(target, Pace::ClosedLoop, duration, 64) };
        measure(&net, name, "connection per request, ", plan, &server)?;
    }
    drop(nginx);
    Ok(())
}

/// Runs one plan and prints a line.
fn measure(net: &Topology, name: &str, kind: &str, plan: Plan, server: &Server) -> Result<()> {
    let before = (server.requests(), server.cpu());
    let running = Running::start(&net.client, plan, Same::get())?;
    let progress = std::sync::Arc::clone(&running.progress);
    let report = running.finish()?;
    std::thread::sleep(Duration::from_millis(150));
    let served = server.requests() - before.0;
    let latency = progress.latency.snapshot();
    println!(
        "own {kind}{:?} to {name}: {:.0} req/s, {:.2} ms CPU per 1,000, p50 {:?}, p99 {:?}, clean {}; server CPU per 1,000: {:.2} ms",
        plan.pace,
        report.answered as f64 / report.elapsed.as_secs_f64(),
        report.cpu_per_thousand(),
        latency.percentile(50.0),
        latency.percentile(99.0),
        report.is_clean(),
        (server.cpu() - before.1).as_secs_f64() * 1e6 / served.max(1) as f64,
    );
    Ok(())
}

/// Requests and CPU time of one thread of wrk.
fn wrk(net: &Topology, url: &str, connections: usize, duration: Duration) -> Result<(u64, Duration)> {
    let seconds = duration.as_secs();
    let child = net
        .client
        .command(Path::new("wrk"))
        .args(["-t1", &format!("-c{connections}"), &format!("-d{seconds}s"), url])
        .stdout(Stdio::piped())
        .spawn()
        .context("start wrk")?;
    // The CPU time is read shortly before its end and scaled: a process that has ended has none any more.
    let share = 0.9;
    std::thread::sleep(duration.mul_f64(share));
    let cpu = cpu_time_of(child.id())?.div_f64(share);
    let output = child.wait_with_output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find(|line| line.contains("requests in")).context("wrk printed no count")?;
    let requests =
        line.split_ascii_whitespace().next().and_then(|figure| figure.parse().ok()).context("no figure")?;
    Ok((requests, cpu))
}
