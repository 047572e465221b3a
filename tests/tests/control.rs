//! Enters: an agent that mirrors, and orders at its control socket. Leaves: what the orders did, and their records.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use anyhow::{Context as _, Result, ensure};
use mirror_tests::{
    agent::program,
    require_agent,
    scenario::{PATIENCE, Scenario, Weight},
};
use serde_json::Value;

fn ctl(socket: &Path, words: &[&str]) -> Result<Output> {
    let program = program().context("no agent")?;
    Ok(Command::new(program).arg("ctl").arg("--socket").arg(socket).args(words).output()?)
}

fn state(socket: &Path) -> Result<Value> {
    let output = ctl(socket, &["--json", "state"])?;
    ensure!(output.status.success(), "{output:?}");
    Ok(serde_json::from_slice(&output.stdout)?)
}

#[test]
fn orders_at_the_socket_are_obeyed_and_recorded() -> Result<()> {
    require_agent!();
    let folder = tempfile::tempdir()?;
    let (socket, log) = (folder.path().join("control.sock"), folder.path().join("audit.log"));
    let (socket_text, log_text) = (socket.to_string_lossy(), log.to_string_lossy());
    let scenario = Scenario::start(
        Weight::Light,
        &["--methods", "all", "--control-socket", &socket_text, "--audit-log", &log_text],
    )?;
    let mut client = scenario.client()?;
    client.ask(b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n")?;
    client.ask(b"POST /secret HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody")?;
    let ledger = scenario.settle()?;
    ensure!(ledger.mirrored == 2, "{ledger}");
    let before = state(&socket)?;
    ensure!(before["capture"]["requests"]["mirrored"] == 2, "{before}");
    ensure!(before["experiments"][0]["targets"][0]["copies"]["mirrored"] == 2, "{before}");
    ensure!(before["paused"] == false, "{before}");

    ensure!(ctl(&socket, &["pause"])?.status.success());
    ensure!(state(&socket)?["paused"] == true);
    client.ask(b"GET /paused HTTP/1.1\r\nHost: a\r\n\r\n")?;
    ensure!(ctl(&socket, &["resume"])?.status.success());
    let mut client = scenario.client()?;
    ensure!(ctl(&socket, &["percent", "default", "0"])?.status.success());
    client.ask(b"GET /unsampled HTTP/1.1\r\nHost: a\r\n\r\n")?;
    // The request of the pause was not seen at all.
    let ledger = scenario.agent.wait_for(PATIENCE, |ledger| ledger.seen >= 3 && ledger.pending == 0)?;
    ensure!(ledger.mirrored == 2 && ledger.skipped_for("sampled") == 1, "{ledger}");
    ensure!(ctl(&socket, &["extend", "default", "24h"])?.status.success());
    ensure!(state(&socket)?["experiments"][0]["expires"] != "never");
    let refused = ctl(&socket, &["percent", "unknown", "5"])?;
    let said = String::from_utf8_lossy(&refused.stderr);
    ensure!(!refused.status.success() && said.contains("there is no experiment `unknown`"), "{refused:?}");
    let page = ctl(&socket, &["state"])?;
    ensure!(String::from_utf8_lossy(&page.stdout).contains("EXPERIMENT"), "{page:?}");

    let metrics = scenario.agent.get("/metrics")?.1;
    for line in
        ["{event=\"copy\"} 1", "{event=\"pause\"} 1", "{event=\"percent\"} 1", "{event=\"refused\"} 1"]
    {
        ensure!(metrics.contains(&format!("mirror_audit_records_total{line}")), "{line}\n{metrics}");
    }
    let Scenario { agent, .. } = scenario;
    agent.stop()?;
    ensure!(!socket.exists(), "the socket is still there");
    let text = fs::read_to_string(&log)?;
    ensure!(!text.contains("secret") && !text.contains("body"), "{text}");
    let records = text.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>()?;
    let events: Vec<_> = records.iter().filter_map(|record| record["event"].as_str()).collect();
    ensure!(events == ["start", "copy", "pause", "resume", "percent", "expiry", "refused", "stop"], "{text}");
    ensure!(records[1]["method"] == "POST" && records[1]["target"] == "shadow", "{text}");
    ensure!(records[2]["who"]["by"] == "socket" && records[2]["who"]["uid"] == 0, "{text}");
    Ok(())
}
