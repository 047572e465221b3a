//! Enters: configuration files and orders while requests flow. Leaves: what they name changes, and nothing else does.

use std::{
    fs,
    os::unix::fs::symlink,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use mirror_tests::{
    agent::{Agent, Arguments, output},
    load::{Pace, Plan, Report, Running},
    metrics::Metrics,
    netns::Topology,
    require_agent,
    scenario::{PATIENCE, Turn, Weight},
    server::{Record, Server},
    traffic::Same,
};
use tempfile::TempDir;

/// The live ports of the two experiments.
const STEADY: u16 = 8080;
const SIDE: u16 = 8081;

/// The ports of their shadows, and that of one that comes and goes.
const STEADY_SHADOW: u16 = 9000;
const SIDE_SHADOW: u16 = 9001;
const EXTRA_SHADOW: u16 = 9002;

/// Two live services and three shadows.
struct Stage {
    steady: Server,
    side: Server,
    steady_shadow: Server,
    side_shadow: Server,
    extra_shadow: Server,
    net: Topology,
    /// Holds the configuration as a ConfigMap does: a link to a link to a directory.
    directory: TempDir,
    _turn: Turn,
}

impl Stage {
    fn set() -> Result<Self> {
        let turn = Turn::take(Weight::Heavy)?;
        let net = Topology::new()?;
        let stage = Self {
            steady: Server::start(&net.live, STEADY, Record::Count)?,
            side: Server::start(&net.live, SIDE, Record::Count)?,
            steady_shadow: Server::start(&net.shadow, STEADY_SHADOW, Record::Count)?,
            side_shadow: Server::start(&net.shadow, SIDE_SHADOW, Record::Count)?,
            extra_shadow: Server::start(&net.shadow, EXTRA_SHADOW, Record::Count)?,
            net,
            directory: tempfile::tempdir()?,
            _turn: turn,
        };
        symlink("..data/mirror.yaml", stage.file())?;
        Ok(stage)
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("mirror.yaml")
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("control.sock")
    }

    /// Turns the link to another version of the file, in one step.
    fn publish(&self, version: &str, text: &str) -> Result<()> {
        let directory = self.directory.path();
        fs::create_dir(directory.join(version))?;
        fs::write(directory.join(version).join("mirror.yaml"), text)?;
        symlink(version, directory.join("..next"))?;
        fs::rename(directory.join("..next"), directory.join("..data"))?;
        Ok(())
    }

    /// A file with the experiment `steady` and these.
    fn text(&self, others: &[String]) -> String {
        let mut text = format!(
            "capture: {{ interfaces: [eth0] }}\ncontrol: {{ socket: {} }}\nexperiments:\n",
            self.socket().display()
        );
        text += &self.experiment("steady", STEADY, STEADY_SHADOW, "");
        text + &others.concat()
    }

    /// An experiment whose copies wait for longer than a machine is busy.
    fn experiment(&self, name: &str, port: u16, shadow: u16, more: &str) -> String {
        let shadow = self.net.shadow.at_v4(shadow);
        format!(
            "  - name: {name}\n    expires: never\n    ports: [{port}]\n{more}    targets:\n      - {{ name: shadow, \
             url: \"http://{shadow}\", queueTimeout: 60s }}\n"
        )
    }

    fn load(&self, port: u16, per_second: f64, duration: Duration) -> Result<Running> {
        let plan = Plan::new(self.net.live.at_v4(port), Pace::PerSecond(per_second), duration, 4);
        Running::start(&self.net.client, plan, Same::get())
    }

    fn agent(&self) -> Result<Agent> {
        Agent::start(&self.net.live, &Arguments::from_file(&self.file()))
    }

    /// Waits until all is settled; each request of `steady` must have come to its shadow once.
    fn settle(&self, agent: &Agent) -> Result<Metrics> {
        let live = self.steady.requests();
        let end = until(agent, |metrics| {
            let mirrored = metrics.value("mirror_copies_mirrored_total", "experiment", "steady");
            metrics.ledger().pending == 0 && mirrored as u64 >= live
        })?;
        thread::sleep(Duration::from_millis(50));
        let copies = self.steady_shadow.requests();
        ensure!(copies == live, "live counts {live}, its shadow {copies}");
        Ok(end)
    }

    /// Gives an order.
    fn ctl(&self, words: &[&str]) -> Result<String> {
        let socket = self.socket();
        let socket = socket.to_string_lossy();
        let words = [&["ctl", "--socket", &socket], words].concat();
        let output = output(&self.net.live, &words)?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let error = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{words:?}: {said}{error}");
        Ok(said)
    }
}

/// Scrapes until something is so; the books must balance each time.
fn until(agent: &Agent, is_so: impl Fn(&Metrics) -> bool) -> Result<Metrics> {
    let start = Instant::now();
    loop {
        let metrics = agent.metrics()?;
        let ledger = metrics.ledger();
        ensure!(ledger.is_balanced(), "{ledger}");
        for experiment in ["steady", "side", "extra"] {
            let sum = |name: &str| metrics.value(name, "experiment", experiment);
            let settled = ["mirrored_total", "skipped_total", "dropped_total"]
                .map(|what| sum(&format!("mirror_copies_{what}")))
                .iter()
                .sum::<f64>();
            ensure!(sum("mirror_copies_total") == settled + sum("mirror_copies_pending"), "{experiment}");
        }
        if is_so(&metrics) {
            return Ok(metrics);
        }
        ensure!(start.elapsed() < PATIENCE, "not in time: {ledger}; log: {}", agent.printed("stderr"));
        thread::sleep(Duration::from_millis(20));
    }
}

fn reloads(metrics: &Metrics, result: &str) -> f64 {
    metrics.value("mirror_config_reloads_total", "result", result)
}

fn clean(report: &Report) -> Result<()> {
    ensure!(report.is_clean(), "{report:?}");
    Ok(())
}

#[test]
fn an_experiment_that_has_expired_keeps_no_agent_from_starting() -> Result<()> {
    require_agent!();
    let stage = Stage::set()?;
    let ended = stage.experiment("side", SIDE, SIDE_SHADOW, "").replace("never", "2020-01-01T00:00:00Z");
    stage.publish("v1", &stage.text(&[ended]))?;
    let agent = stage.agent()?;
    let second = Duration::from_secs(1);
    for load in [stage.load(STEADY, 100.0, second)?, stage.load(SIDE, 100.0, second)?] {
        clean(&load.finish()?)?;
    }
    let end = stage.settle(&agent)?;
    ensure!(stage.side.requests() > 0 && stage.side_shadow.requests() == 0, "copies for what has ended");
    ensure!(end.value("mirror_copies_total", "experiment", "side") == 0.0);
    ensure!(agent.printed("stderr").contains("The experiment has expired; nothing is mirrored for it."));
    let file = stage.file();
    let check = output(&stage.net.live, &["check", "--config", &file.to_string_lossy()])?;
    ensure!(!check.status.success() && String::from_utf8_lossy(&check.stderr).contains("has expired"));
    Ok(())
}

#[test]
fn reloads_under_load_change_what_the_file_changes_and_nothing_else() -> Result<()> {
    require_agent!();
    let stage = Stage::set()?;
    let side = |more: &str| stage.experiment("side", SIDE, SIDE_SHADOW, more);
    let extra = stage.experiment("extra", STEADY, EXTRA_SHADOW, "");
    stage.publish("v1", &stage.text(&[side("")]))?;
    let agent = stage.agent()?;
    let duration = Duration::from_secs(20);
    let loads = [stage.load(STEADY, 1500.0, duration)?, stage.load(SIDE, 500.0, duration)?];
    until(&agent, |metrics| metrics.value("mirror_copies_mirrored_total", "experiment", "side") > 100.0)?;

    stage.publish("v2", &stage.text(&[side(""), extra]))?;
    let added = until(&agent, |metrics| {
        metrics.value("mirror_copies_mirrored_total", "experiment", "extra") > 100.0
    })?;
    ensure!(reloads(&added, "applied") == 1.0);

    stage.publish("v3", &stage.text(&[side("    sample: { percent: 50 }\n")]))?;
    until(&agent, |metrics| reloads(metrics, "applied") == 2.0)?;
    until(&agent, |metrics| metrics.ledger().skipped_for("sampled") > 50)?;

    stage.publish("bad", "experiments: [")?;
    let rejected = until(&agent, |metrics| reloads(metrics, "rejected") == 1.0)?;
    ensure!(rejected.sum("mirror_config_last_reload_successful") == 0.0);
    ensure!(agent.printed("stderr").contains("the one before it stays in force"));

    // Gone, and its port with it.
    stage.publish("v4", &stage.text(&[]))?;
    let removed = until(&agent, |metrics| reloads(metrics, "applied") == 3.0)?;
    ensure!(removed.sum("mirror_config_last_reload_successful") == 1.0);
    thread::sleep(Duration::from_millis(300));
    let (copied, sent) = (stage.side_shadow.requests(), agent.metrics()?.sum("mirror_requests_seen_total"));
    stage.publish("v5", &stage.text(&[side("")]))?;
    until(&agent, |metrics| reloads(metrics, "applied") == 4.0)?;
    until(&agent, |_| stage.side_shadow.requests() > copied + 50)?;
    ensure!(agent.metrics()?.sum("mirror_requests_seen_total") > sent);

    for load in loads {
        clean(&load.finish()?)?;
    }
    let end = stage.settle(&agent)?;
    ensure!(end.ledger().all_frames_dropped() == 0, "{}", end.ledger());
    println!(
        "steady: live {} and shadow {}; side: live {}, shadow {}; extra: shadow {}; {}",
        stage.steady.requests(),
        stage.steady_shadow.requests(),
        stage.side.requests(),
        stage.side_shadow.requests(),
        stage.extra_shadow.requests(),
        end.ledger()
    );
    let ended = agent.stop()?;
    ensure!(ended.status.success() && ended.printed_figure("pending") == Some(0), "{}", ended.stdout);
    Ok(())
}

#[test]
fn a_pause_of_one_experiment_is_felt_within_100_ms_and_by_no_other() -> Result<()> {
    require_agent!();
    let stage = Stage::set()?;
    stage.publish("v1", &stage.text(&[stage.experiment("side", SIDE, SIDE_SHADOW, "")]))?;
    let agent = stage.agent()?;
    let duration = Duration::from_secs(10);
    let loads = [stage.load(STEADY, 1000.0, duration)?, stage.load(SIDE, 1000.0, duration)?];
    until(&agent, |_| stage.side_shadow.requests() > 500)?;
    let mut felt = Vec::new();
    for _ in 0..3 {
        let ordered = Instant::now();
        let (mut count, mut last) = (stage.side_shadow.requests(), Duration::ZERO);
        stage.ctl(&["pause", "side"])?;
        while ordered.elapsed() < Duration::from_millis(600) {
            let now = stage.side_shadow.requests();
            if now != count {
                (count, last) = (now, ordered.elapsed());
            }
            thread::sleep(Duration::from_millis(1));
        }
        felt.push(last);
        let steady = stage.steady_shadow.requests();
        let paused = until(&agent, |_| stage.steady_shadow.requests() > steady + 100)?;
        ensure!(paused.value("mirror_experiment_paused", "experiment", "side") == 1.0);
        ensure!(paused.value("mirror_experiment_paused", "experiment", "steady") == 0.0);
        ensure!(stage.side_shadow.requests() == count, "nothing came while it was paused");
        stage.ctl(&["resume", "side"])?;
        until(&agent, |_| stage.side_shadow.requests() > count + 100)?;
    }
    println!("the last copies arrived {felt:?} after the orders to pause were begun to be given");
    felt.sort();
    // The start of the client is part of it, and a machine that pauses is no fault of the agent's.
    ensure!(felt[1] < Duration::from_millis(150), "{felt:?}, with the start of the client");
    for load in loads {
        clean(&load.finish()?)?;
    }
    stage.settle(&agent)?;
    Ok(())
}

#[test]
fn an_experiment_ends_at_its_time_and_is_extended() -> Result<()> {
    require_agent!();
    let stage = Stage::set()?;
    stage.publish("v1", &stage.text(&[stage.experiment("side", SIDE, SIDE_SHADOW, "")]))?;
    let agent = stage.agent()?;
    let duration = Duration::from_secs(9);
    let loads = [stage.load(STEADY, 200.0, duration)?, stage.load(SIDE, 200.0, duration)?];
    until(&agent, |_| stage.side_shadow.requests() > 50)?;
    stage.ctl(&["extend", "side", "2s"])?;
    let expiry = agent.metrics()?.value("mirror_experiment_expiry_timestamp_seconds", "experiment", "side");
    ensure!(expiry > 1e9);
    until(&agent, |_| agent.printed("stderr").contains("has reached its end"))?;
    thread::sleep(Duration::from_millis(200));
    let count = stage.side_shadow.requests();
    let steady = stage.steady_shadow.requests();
    until(&agent, |_| stage.steady_shadow.requests() > steady + 50)?;
    ensure!(stage.side_shadow.requests() == count);
    ensure!(stage.ctl(&["state"])?.contains("side"));
    stage.ctl(&["extend", "side", "never"])?;
    until(&agent, |_| stage.side_shadow.requests() > count + 50)?;
    for load in loads {
        clean(&load.finish()?)?;
    }
    stage.settle(&agent)?;
    Ok(())
}
