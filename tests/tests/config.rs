//! Enters: configuration files. Leaves: at each target the requests that its experiment takes, or every error at once.

use std::{fs, path::PathBuf};

use anyhow::{Result, ensure};
use mirror_tests::{
    agent::{self, Agent, Arguments},
    client::RawClient,
    metrics::Metrics,
    netns::{Host, Topology},
    require_agent,
    scenario::{PATIENCE, Turn, Weight, originals},
    server::{Record, Server},
};
use tempfile::TempDir;

/// The live ports; shadows have others.
const PORTS: [u16; 2] = [8080, 8081];

/// Experiment, target, and the port of its shadow.
const TARGETS: [(&str, &str, u16); 4] =
    [("orders", "v2", 9001), ("orders", "v3", 9002), ("carts", "v2", 9003), ("carts", "next", 9004)];

#[test]
fn each_target_of_two_experiments_gets_exactly_its_requests() -> Result<()> {
    require_agent!();
    let _turn = Turn::take(Weight::Light)?;
    let net = Topology::new()?;
    let live =
        [Server::start(&net.live, PORTS[0], Record::Raw)?, Server::start(&net.live, PORTS[1], Record::Raw)?];
    let shadows = TARGETS.map(|(_, _, port)| Server::start(&net.shadow, port, Record::Raw));
    let shadows = shadows.into_iter().collect::<Result<Vec<_>>>()?;
    let (_folder, path) = file(&two_experiments(&net.shadow))?;
    let agent = Agent::start(&net.live, &Arguments::from_file(&path))?;

    for (port, count) in PORTS.into_iter().zip([30, 20]) {
        let mut client = RawClient::connect(&net.client, net.live.at_v4(port))?;
        for number in 0..count {
            let method = if number % 5 == 0 { "POST" } else { "GET" };
            client.ask(
                format!("{method} /{port}/{number} HTTP/1.1\r\nContent-Length: 2\r\n\r\nab").as_bytes(),
            )?;
        }
    }
    // Those of the first port's experiment are of any method, of the second's GET alone.
    let expected = [30, 30, 16, 16];
    let ledger = agent.wait_for(PATIENCE, |books| {
        books.seen == 50 && books.pending == 0 && shadows.iter().map(Server::requests).eq(expected)
    })?;
    ensure!(ledger.mirrored == 46 && ledger.all_skipped() == 4, "{ledger}");
    for (shadow, (port, expected)) in shadows.iter().zip([(0, 30), (0, 30), (1, 16), (1, 16)]) {
        let sent = live[port].arrived().into_iter().map(|request| request.raw);
        let mut sent: Vec<_> = sent.filter(|raw| port == 0 || raw.starts_with(b"GET")).collect();
        let mut copies = originals(&shadow.arrived())?;
        sent.sort();
        copies.sort();
        ensure!(copies.len() == expected && copies == sent, "a target has others than its requests");
    }
    expect_balanced_copies(&agent.metrics()?, &expected)
}

#[test]
fn a_file_that_is_wrong_is_refused_with_all_its_errors() -> Result<()> {
    require_agent!();
    let _turn = Turn::take(Weight::Light)?;
    let net = Topology::new()?;
    let text = two_experiments(&net.shadow)
        .replace("name: carts", "name: orders")
        .replace("threads: 1", "thread: 1")
        .replace("percent: 100", "percent: 101");
    let (_folder, path) = file(&text)?;
    let name = path.display().to_string();
    for words in [["check", "--config", &name], ["run", "--config", &name]] {
        let output = agent::output(&net.live, &words)?;
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(!output.status.success(), "{told}");
        for (line, part) in [(3, "capture.thread: unknown key"), (9, "sample.percent"), (15, "another")] {
            let is_there =
                told.lines().any(|found| found.contains(&format!("{name}:{line}:")) && found.contains(part));
            ensure!(is_there, "{part} in line {line} is not in\n{told}");
        }
    }
    Ok(())
}

#[test]
fn certificates_that_cannot_be_used_are_refused_before_the_start() -> Result<()> {
    require_agent!();
    let net = Topology::new()?;
    let (folder, path) = file(&two_experiments(&net.shadow))?;
    let text = fs::read_to_string(&path)?;
    let broken = folder.path().join("broken.pem");
    fs::write(&broken, "-----BEGIN CERTIFICATE-----\nno\n-----END CERTIFICATE-----\n")?;
    for (ca, expected) in [
        (folder.path().join("none.pem"), "No such file"),
        (broken, "a certificate authority in"),
        (path.clone(), "there are no certificate authorities"),
    ] {
        let tls = format!("name: v3\n        tls: {{ caFile: {} }}", ca.display());
        fs::write(&path, text.replacen("name: v3", &tls, 1).replace("url: http://", "url: https://"))?;
        let output = agent::output(&net.live, &["check", "--config", &path.display().to_string()])?;
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        let is_told = told.contains("target v3 of experiment orders") && told.contains(expected);
        ensure!(!output.status.success() && is_told, "{expected} is not in\n{told}");
    }
    Ok(())
}

#[test]
fn a_file_and_flags_beside_it_are_a_usage_error() -> Result<()> {
    require_agent!();
    let net = Topology::new()?;
    let output = agent::output(&net.live, &["run", "--config", "a.yaml", "--port", "80"])?;
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.code() == Some(2) && told.contains("cannot be used with"), "{told}");
    Ok(())
}

/// A configuration of [`TARGETS`].
fn two_experiments(shadow: &Host) -> String {
    let url = |index: usize| format!("http://{}", shadow.at_v4(TARGETS[index].2));
    format!(
        "capture:
  interfaces: [eth0]
  threads: 1
experiments:
  - name: orders
    expires: never
    ports: [{}]
    matches: [{{ methods: all }}]
    sample: {{ percent: 100 }}
    targets:
      - {{ name: v2, url: '{}', interlock: none }}
      - name: v3
        url: {}
        interlock: none
  - name: carts
    expires: 2099-01-01T00:00:00Z
    ports: [{}]
    matches: [{{ methods: [GET] }}]
    targets:
      - {{ name: v2, url: '{}' }}
      - {{ name: next, url: '{}' }}
",
        PORTS[0],
        url(0),
        url(1),
        PORTS[1],
        url(2),
        url(3)
    )
}

/// Of the copies for each target there are as many as expected, and all were mirrored.
fn expect_balanced_copies(metrics: &Metrics, expected: &[u64]) -> Result<()> {
    for ((experiment, target, _), expected) in TARGETS.into_iter().zip(expected) {
        let count = |name: &str| {
            let labels = [("experiment", experiment), ("target", target)];
            metrics.labelled(&format!("mirror_copies_{name}"), &labels)
        };
        let (copies, skipped) = (count("total"), count("skipped_total"));
        ensure!(copies == count("pending") + count("mirrored_total") + skipped + count("dropped_total"));
        ensure!(
            count("mirrored_total") == *expected as f64,
            "{experiment}, {target}: of {copies} {skipped} skipped"
        );
    }
    Ok(())
}

fn file(text: &str) -> Result<(TempDir, PathBuf)> {
    let folder = tempfile::Builder::new().prefix("mirror-config-").tempdir()?;
    let path = folder.path().join("config.yaml");
    fs::write(&path, text)?;
    Ok((folder, path))
}
