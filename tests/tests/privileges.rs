//! Enters: an agent with some capabilities and no others, as in a container. Leaves: which of them it needs.

use std::{
    path::Path,
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use mirror_tests::{
    agent,
    client::RawClient,
    require_agent,
    scenario::{PATIENCE, PORT, Stage, Weight},
    server::Record,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// What `deploy/kubernetes/base/daemonset.yaml` adds after it has dropped all.
const NEEDED: [&str; 3] = ["BPF", "NET_ADMIN", "PERFMON"];

/// Returns from the test, saying why, where a process cannot be started with fewer capabilities.
macro_rules! require_setpriv {
    () => {
        if Command::new("setpriv").arg("--version").output().is_err() {
            println!("SKIPPED: needs the `setpriv` tool (package util-linux)");
            return Ok(());
        }
    };
}

#[test]
fn the_manifest_adds_these_and_no_others() {
    let manifest = include_str!("../../deploy/kubernetes/base/daemonset.yaml");
    let (_, added) = manifest.split_once("              add:\n").unwrap();
    let names = added.lines().map_while(|line| line.trim().strip_prefix("- "));
    let names: Vec<_> = names.filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(names, NEEDED);
    assert!(manifest.contains("drop: [ALL]"));
}

#[test]
fn three_capabilities_are_enough() -> Result<()> {
    require_agent!();
    require_setpriv!();
    let stage = Stage::set(Weight::Light, Record::Count)?;
    let mut agent = Running(start(&stage, &NEEDED)?);
    until(|| Ok(stage.net.live.attached_programs()? == 2 || agent.0.try_wait()?.is_some()))?;
    let answer = RawClient::connect(&stage.net.client, stage.net.live.at_v4(PORT))?
        .ask(b"GET /privileged HTTP/1.1\r\nHost: live\r\n\r\n")?;
    ensure!(answer.code() == "200");
    until(|| Ok(stage.shadow.requests() == 1 || agent.0.try_wait()?.is_some()))?;
    let ended = agent.stop()?;
    ensure!(ended.status.success(), "{ended:?}");
    ensure!(String::from_utf8_lossy(&ended.stdout).contains("mirrored 1 "), "{ended:?}");
    Ok(())
}

#[test]
fn each_missing_capability_is_named_before_anything_is_attached() -> Result<()> {
    require_agent!();
    require_setpriv!();
    let stage = Stage::set(Weight::Light, Record::Count)?;
    for missing in NEEDED {
        let rest = NEEDED.into_iter().filter(|name| *name != missing).collect::<Vec<_>>();
        let mut agent = Running(start(&stage, &rest)?);
        until(|| Ok(agent.0.try_wait()?.is_some()))?;
        let ended = agent.stop()?;
        let said = String::from_utf8_lossy(&ended.stderr);
        ensure!(ended.status.code() == Some(1), "{ended:?}");
        ensure!(said.contains(&format!("missing capabilities: {missing};")), "{said}");
        ensure!(stage.net.live.attached_programs()? == 0, "something is attached without {missing}");
    }
    Ok(())
}

#[test]
fn kernel_refuses_the_programs_without_any_one_of_the_three() -> Result<()> {
    require_agent!();
    require_setpriv!();
    let stage = Stage::set(Weight::Light, Record::Count)?;
    for missing in NEEDED {
        let rest = NEEDED.into_iter().filter(|name| *name != missing).collect::<Vec<_>>();
        // `check` asks the kernel whatever the capabilities are.
        let checked = command(&stage, &rest)?.arg("check").output()?;
        let said = String::from_utf8_lossy(&checked.stdout);
        ensure!(!checked.status.success(), "{said}");
        ensure!(said.contains(&format!("no {missing}\n")), "{said}");
        ensure!(said.contains("missing  programs"), "the kernel does not ask for {missing}: {said}");
    }
    let checked = command(&stage, &NEEDED)?.arg("check").output()?;
    ensure!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
    Ok(())
}

/// A child that does not outlive its test.
#[derive(Debug)]
struct Running(Child);

impl Running {
    /// Asks it to stop, if it still runs, and waits for what it has printed.
    fn stop(mut self) -> Result<Output> {
        if self.0.try_wait()?.is_none() {
            kill(Pid::from_raw(i32::try_from(self.0.id())?), Signal::SIGTERM)?;
            until(|| Ok(self.0.try_wait()?.is_some()))?;
        }
        let status = self.0.wait()?;
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        std::io::copy(self.0.stdout.as_mut().context("standard output")?, &mut stdout)?;
        std::io::copy(self.0.stderr.as_mut().context("standard error")?, &mut stderr)?;
        Ok(Output { status, stdout, stderr })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// The agent's program on the live host, as uid 0 with these capabilities only.
fn command(stage: &Stage, capabilities: &[&str]) -> Result<Command> {
    let program = agent::program().context("no mirror-agent was built")?;
    let kept = capabilities.iter().map(|name| format!(",+{}", name.to_ascii_lowercase())).collect::<String>();
    let mut command = stage.net.live.command(Path::new("setpriv"));
    command
        .args(["--inh-caps=-all", "--no-new-privs"])
        .arg(format!("--bounding-set=-all{kept}"))
        .arg(program);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Ok(command)
}

/// Starts an agent that mirrors the live host to the shadow.
fn start(stage: &Stage, capabilities: &[&str]) -> Result<Child> {
    let shadow = format!("http://{}", stage.net.shadow.at_v4(PORT));
    let port = PORT.to_string();
    let mut command = command(stage, capabilities)?;
    command.args(["run", "--interface", "eth0", "--port", &port, "--shadow", &shadow]);
    command.spawn().context("start the agent")
}

/// Waits until a condition holds.
fn until(mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !holds()? {
        if Instant::now() > deadline {
            bail!("not within {PATIENCE:?}");
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}
