//! Enters: an experiment that samples by connection. Leaves: whole connections mirrored, and the others not looked at.

use std::fs;

use anyhow::{Context, Result, ensure};
use mirror_tests::{
    agent::{Agent, Arguments},
    client::RawClient,
    require_agent,
    scenario::{PATIENCE, PORT, Stage, Weight},
    server::Record,
};

const CONNECTIONS: u64 = 200;
const REQUESTS: u64 = 5;

#[test]
fn connection_is_mirrored_whole_or_left_out_by_the_kernel() -> Result<()> {
    require_agent!();
    let stage = Stage::set(Weight::Light, Record::Count)?;
    let text = format!(
        "capture: {{ interfaces: [eth0] }}
experiments:
  - name: sampled
    expires: never
    ports: [{PORT}]
    sample: {{ percent: 40, by: connection }}
    targets: [{{ name: v2, url: 'http://{}' }}]
",
        stage.net.shadow.at_v4(PORT)
    );
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("config.yaml");
    fs::write(&path, text)?;
    let agent = Agent::start(&stage.net.live, &Arguments::from_file(&path))?;
    let scenario = stage.around(agent);

    for number in 0..CONNECTIONS {
        let v6 = number % 2 == 1;
        let mut client: RawClient = if v6 { scenario.client_v6()? } else { scenario.client()? };
        for _ in 0..REQUESTS {
            client.ask(b"GET /sampled HTTP/1.1\r\n\r\n")?;
        }
    }
    let left_out = scenario.agent.metrics()?.value("mirror_flows_skipped_total", "reason", "sampled") as u64;
    let taken = CONNECTIONS.checked_sub(left_out).context("more were left out than there were")?;
    let mirrored = taken * REQUESTS;
    let ledger = scenario.agent.wait_for(PATIENCE, |ledger| ledger.mirrored >= mirrored)?;
    // Of 200 with a share of 40 %, five standard deviations are 35.
    ensure!(taken.abs_diff(80) < 35, "{taken} of {CONNECTIONS} connections taken: {ledger}");
    ensure!(ledger.seen == mirrored && ledger.mirrored == mirrored, "{taken} connections: {ledger}");
    println!("{taken} of {CONNECTIONS} connections taken, {left_out} left out: {ledger}");
    scenario.expect_at_shadow(mirrored)
}
