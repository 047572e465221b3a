//! Enters: the load generator and wrk. Leaves: whether the bare sender is an honest yardstick.

use std::{path::Path, process::Stdio, thread, time::Duration};

use anyhow::{Context, Result, bail};
use mirror_tests::{
    load::{Pace, Plan, Running},
    sys,
    traffic::Same,
};

use crate::{
    probe::Usage,
    report::{Cell, Figure, Mark, Table},
    trial::{CONNECTIONS, PORT, Stage},
    workloads::Effort,
};

/// The most that our load generator may need, by wrk's CPU.
const MOST: f64 = 1.15;

/// Compares the CPU that both need for the same requests, as fast as they go.
pub(crate) fn measure(stage: &Stage, effort: Effort) -> Result<(Vec<Table>, Vec<Mark>)> {
    let mut table = Table::new(
        "yardstick",
        "The yardstick: CPU of the load generator for 1,000 requests, closed loop, 64 connections",
        &["generator", "CPU ms / 1,000", "req/s"],
    );
    let (mut wrk, mut own) = (Vec::new(), Vec::new());
    for _ in 0..effort.rounds {
        if sys::interrupted() {
            bail!("interrupted");
        }
        match run_wrk(stage, effort.duration) {
            Ok(figures) => wrk.push(figures),
            Err(error) => {
                table.note(format!("Not compared with wrk (package wrk): {error:#}."));
                break;
            }
        }
        let plan = Plan::new(stage.net.live.at_v4(PORT), Pace::ClosedLoop, effort.duration, CONNECTIONS);
        let report = Running::start(&stage.net.client, plan, Same::get())?.finish()?;
        own.push((report.cpu_per_thousand(), report.answered as f64 / report.elapsed.as_secs_f64()));
    }
    let figures = |runs: &[(f64, f64)]| {
        let of = |figure: fn(&(f64, f64)) -> f64| Cell::from(Figure::of(runs.iter().map(figure)));
        [of(|run| run.0), of(|run| run.1)]
    };
    for (name, runs) in [("wrk", &wrk), ("ours", &own)] {
        table.rows.push([Cell::from(name)].into_iter().chain(figures(runs)).collect());
    }
    let ratio = Figure::of(own.iter().zip(&wrk).map(|(own, wrk)| own.0 / wrk.0));
    let mark = ratio.map(|ratio| Mark {
        promise: "the bare sender needs ≤ 1.15 × wrk's CPU".to_owned(),
        found: ratio.to_string(),
        is_kept: ratio.median <= MOST,
    });
    Ok((vec![table], mark.into_iter().collect()))
}

/// CPU milliseconds for 1,000 requests and requests a second of one thread of wrk.
fn run_wrk(stage: &Stage, duration: Duration) -> Result<(f64, f64)> {
    let seconds = duration.as_secs().max(1);
    let url = format!("http://{}/api/items/4711", stage.net.live.at_v4(PORT));
    let mut command = stage.net.client.command(Path::new("wrk"));
    command.args(["-t1", &format!("-c{CONNECTIONS}"), &format!("-d{seconds}s")]);
    command.args(["-H", "Host: live.example", "-H", "User-Agent: load/1", "-H", "Accept: */*", &url]);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    // A process that has ended has no CPU time any more: it is read shortly before and scaled.
    let share = 0.9;
    thread::sleep(Duration::from_secs(seconds).mul_f64(share));
    let cpu = Usage::of(child.id()).map(|usage| usage.cpu.div_f64(share));
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().find(|line| line.contains("requests in")).context("it printed no count")?;
    let requests: f64 = line.split_ascii_whitespace().next().context("no figure")?.parse()?;
    Ok((cpu?.as_secs_f64() * 1e6 / requests.max(1.0), requests / seconds as f64))
}
