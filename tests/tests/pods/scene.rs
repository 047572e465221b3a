//! Enters: agents and pods. Leaves: what is asked of them, and waited for.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};
use mirror_tests::{
    agent::Agent,
    client::RawClient,
    cluster::{Cluster, Pod},
    metrics::Metrics,
    scenario::PATIENCE,
    slowness::slowed,
};

pub(super) const GET: &[u8] = b"GET /of-a-pod HTTP/1.1\r\nHost: live\r\nConnection: close\r\n\r\n";

/// Within this a change of a pod is to be felt: a second, on machines that are not emulated.
pub(super) fn promise() -> Duration {
    slowed(Duration::from_secs(1))
}

pub(super) fn until(agent: &Agent, what: &str, mut is_so: impl FnMut(&Metrics) -> bool) -> Result<Duration> {
    let start = Instant::now();
    loop {
        if is_so(&agent.metrics()?) {
            return Ok(start.elapsed());
        }
        if start.elapsed() > PATIENCE {
            bail!("not in time: {what}; log: {}", agent.printed("stderr"));
        }
        thread::sleep(Duration::from_millis(10));
    }
}

pub(super) fn pods(metrics: &Metrics) -> f64 {
    metrics.value("mirror_experiment_pods", "experiment", "shop")
}

/// Asks the pod once at each of its addresses.
fn ask(cluster: &Cluster, pod: &Pod) -> Result<()> {
    pod.at.iter().try_for_each(|at| RawClient::connect(&cluster.net.client, *at)?.ask(GET).map(drop))
}

/// Asks the pod over and over until a copy has come of each of its addresses, and returns how long that took.
pub(super) fn ask_until_mirrored(cluster: &Cluster, agent: &Agent, pod: &Pod) -> Result<Duration> {
    let start = Instant::now();
    for at in &pod.at {
        let before = cluster.shadow.requests();
        while cluster.shadow.requests() == before {
            RawClient::connect(&cluster.net.client, *at)?.ask(GET)?;
            if start.elapsed() > PATIENCE {
                bail!(
                    "{pod:?} is not mirrored at {at}: {}; log: {}",
                    agent.ledger()?,
                    agent.printed("stderr")
                );
            }
        }
    }
    Ok(start.elapsed())
}

/// Asserts that what the pod is asked from here on is mirrored, each request once.
pub(super) fn expect_mirrored(cluster: &Cluster, agent: &Agent, pod: &Pod) -> Result<()> {
    let before = agent.at_rest(PATIENCE)?.mirrored;
    for _ in 0..5 {
        ask(cluster, pod)?;
    }
    let asked = 5 * u64::try_from(pod.at.len())?;
    agent.wait_for(PATIENCE, |books| books.mirrored >= before + asked)?;
    let mirrored = agent.at_rest(PATIENCE)?.mirrored - before;
    ensure!(mirrored == asked, "{asked} requests, {mirrored} copies");
    Ok(())
}

/// Asserts that nothing of what the pod is asked from here on is mirrored.
pub(super) fn expect_left_alone(cluster: &Cluster, agent: &Agent, pod: &Pod) -> Result<()> {
    let before = agent.at_rest(PATIENCE)?.mirrored;
    for _ in 0..5 {
        ask(cluster, pod)?;
    }
    let copies = agent.at_rest(PATIENCE)?.mirrored - before;
    ensure!(copies == 0, "{copies} copies of a pod that no experiment is about");
    Ok(())
}
