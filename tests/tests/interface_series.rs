//! Enters: traffic at an interface that comes and goes. Leaves: its series do, too.

use std::{
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use mirror_tests::{
    metrics::Metrics,
    netns::Host,
    require_agent,
    scenario::{PATIENCE, Scenario, Weight},
    server::Record,
};

const GET: &[u8] = b"GET /counted HTTP/1.1\r\nHost: live\r\n\r\n";

const SEGMENTS: &str = "mirror_interface_segments_total";

#[test]
fn each_interface_has_series_for_as_long_as_it_is_attached() -> Result<()> {
    require_agent!();
    let options = ["--interface", "late*"];
    let scenario = Scenario::with_record(Weight::Light, &options, Record::Count)?;
    let host = &scenario.net.live;
    let before = scenario.agent.metrics()?;
    ensure!(series(&before) == ["eth0", "other"], "{:?}", series(&before));
    ensure!(before.sum(SEGMENTS) == 0.0, "something is counted before there is traffic");

    ip(host, "link add late0 type veth peer name peer0")?;
    ip(host, "link set late0 up")?;
    until(&scenario, |metrics| series(metrics) == ["eth0", "late0", "other"])?;
    let mut client = scenario.client()?;
    for _ in 0..20 {
        client.ask(GET)?;
    }
    scenario.settle()?;
    // What is copied is a request's segment and the beginning of its answer; threads tell of them once a second.
    let at_eth0 =
        |metrics: &Metrics, side| metrics.labelled(SEGMENTS, &[("interface", "eth0"), ("side", side)]);
    until(&scenario, |metrics| at_eth0(metrics, "client") >= 20.0 && at_eth0(metrics, "server") >= 20.0)?;
    let metrics = scenario.agent.metrics()?;
    ensure!(
        metrics.value(SEGMENTS, "interface", "late0") == 0.0
            && metrics.value(SEGMENTS, "interface", "other") == 0.0
    );
    ensure!(metrics.value("mirror_interface_one_sided", "interface", "eth0") == 0.0);

    ip(host, "link delete late0")?;
    until(&scenario, |metrics| series(metrics) == ["eth0", "other"])?;
    ensure!(at_eth0(&scenario.agent.metrics()?, "client") >= 20.0, "another interface's count is gone");
    Ok(())
}

/// The interfaces that have series, in the order of the alphabet.
fn series(metrics: &Metrics) -> Vec<String> {
    metrics.values_of(SEGMENTS, "interface")
}

fn ip(host: &Host, words: &str) -> Result<()> {
    let status = Command::new("ip").args(["-n", host.name()]).args(words.split(' ')).status()?;
    ensure!(status.success(), "ip {words}");
    Ok(())
}

fn until(scenario: &Scenario, is_so: impl Fn(&Metrics) -> bool) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let metrics = scenario.agent.metrics()?;
        if is_so(&metrics) {
            return Ok(());
        }
        ensure!(
            Instant::now() < deadline,
            "series of {:?}: {}",
            series(&metrics),
            scenario.agent.printed("stderr")
        );
        thread::sleep(Duration::from_millis(50));
    }
}
