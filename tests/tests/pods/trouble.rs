//! Enters: an API server that is down, slow, wrong or full of rubbish. Leaves: what it told last in force, and said to be old.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use mirror_tests::{
    agent::{Agent, Arguments, output},
    cluster::{Cluster, Stack, Trouble, Wiring, running},
    metrics::Metrics,
    require_agent,
    scenario::PATIENCE,
};
use serde_json::json;

use crate::scene::{ask_until_mirrored, expect_mirrored, pods, promise, until};

#[test]
fn an_api_server_that_is_down_at_the_start_or_later_costs_nothing_but_news() -> Result<()> {
    require_agent!();
    let mut cluster = Cluster::start(Wiring::Calico)?;
    cluster.api.go_down()?;
    let agent = cluster.agent(&cluster.config("", ""))?;
    until(&agent, "failing", |metrics| {
        metrics.value("mirror_pods_watch_errors_total", "reason", "unreachable") > 0.0
    })?;
    let pod = cluster.wire(10)?;
    cluster.tell("shop-0", 0, 10);
    cluster.api.come_up(&cluster.net.live)?;
    ask_until_mirrored(&cluster, &agent, &pod)?;

    cluster.api.go_down()?;
    let (asked, other) = (cluster.api.asked().len(), cluster.wire(11)?);
    cluster.tell("shop-1", 0, 11);
    let aged = until(&agent, "old", |metrics| metrics.sum("mirror_pods_state_age_seconds") > 1.5)?;
    expect_mirrored(&cluster, &agent, &pod)?;
    ensure!(pods(&agent.metrics()?) == 1.0 && agent.get("/readyz")?.0 == 200, "aged {aged:?}");
    // What has changed meanwhile is not remembered either.
    cluster.api.forget();
    cluster.api.come_up(&cluster.net.live)?;
    ask_until_mirrored(&cluster, &agent, &other)?;
    expect_mirrored(&cluster, &agent, &pod)?;
    until(&agent, "young", |metrics| metrics.sum("mirror_pods_state_age_seconds") < 1.0)?;
    ensure!(
        agent.metrics()?.value("mirror_pods_watch_errors_total", "reason", "expired") > 0.0,
        "410 was not met"
    );
    let asked = cluster.api.asked().split_off(asked);
    ensure!(asked.iter().any(|target| !target.contains("watch=true")), "{asked:?}");
    Ok(())
}

#[test]
fn an_api_server_that_was_away_is_not_waited_for_once_it_answers() -> Result<()> {
    require_agent!();
    let mut cluster = Cluster::start(Wiring::Bridge)?;
    let agent = cluster.agent(&cluster.config("", ""))?;
    let pod = cluster.wire(10)?;
    cluster.tell("shop-0", 0, 10);
    ask_until_mirrored(&cluster, &agent, &pod)?;
    cluster.api.go_down()?;
    // For so long that the waits have become long.
    thread::sleep(Duration::from_secs(7));
    let other = cluster.wire(11)?;
    cluster.tell("shop-1", 0, 11);
    // The first that it has to say is that the watch cannot go on.
    cluster.api.forget();
    let asked = cluster.api.asked().len();
    cluster.api.come_up(&cluster.net.live)?;
    let begun = Instant::now();
    while cluster.api.asked().len() == asked {
        ensure!(begun.elapsed() < PATIENCE, "not asked; log: {}", agent.printed("stderr"));
        thread::sleep(Duration::from_millis(5));
    }
    let took = ask_until_mirrored(&cluster, &agent, &other)?;
    ensure!(took < 2 * promise(), "it took {took:?} from its first answer");
    Ok(())
}

#[test]
fn an_api_server_that_misbehaves_is_borne_with_and_what_it_told_last_stays() -> Result<()> {
    require_agent!();
    let cluster = Cluster::start(Wiring::Calico)?;
    let agent = cluster.agent(&cluster.config("", ""))?;
    let pod = cluster.wire(10)?;
    cluster.tell("shop-0", 0, 10);
    ask_until_mirrored(&cluster, &agent, &pod)?;
    for (number, trouble, reason) in [
        (20, Trouble::Status(500), "server"),
        (21, Trouble::Status(403), "forbidden"),
        (22, Trouble::Garbage, "malformed"),
        (23, Trouble::Cut, "cut"),
        (24, Trouble::Gone, "expired"),
    ] {
        let errors = |metrics: &Metrics| metrics.value("mirror_pods_watch_errors_total", "reason", reason);
        let before = errors(&agent.metrics()?);
        cluster.api.make(trouble);
        until(&agent, reason, |metrics| errors(metrics) > before + 1.0)?;
        expect_mirrored(&cluster, &agent, &pod)?;
        let asked = cluster.api.asked().len();
        thread::sleep(Duration::from_millis(500));
        let often = cluster.api.asked().len() - asked;
        ensure!(often < 20, "{trouble:?}: asked {often} times in half a second");

        cluster.api.make(Trouble::None);
        let new = cluster.wire(number)?;
        cluster.tell("shop-1", 0, number);
        ask_until_mirrored(&cluster, &agent, &new)?;
        ensure!(pods(&agent.metrics()?) == 2.0, "{trouble:?}");
        // The list may have told of it. A watch that tells of something ends the waits that became longer.
        cluster.tell("shop-1", 0, number);
    }
    // One that hangs is not told from one that has no news; what it told last stays all the same.
    cluster.api.make(Trouble::Hang);
    until(&agent, "old", |metrics| metrics.sum("mirror_pods_state_age_seconds") > 1.5)?;
    expect_mirrored(&cluster, &agent, &pod)?;
    ensure!(agent.get("/readyz")?.0 == 200, "{}", agent.printed("stderr"));
    // The log is not flooded.
    let lines = agent.printed("stderr").lines().filter(|line| line.contains("API server")).count();
    ensure!(lines < 30, "{lines} lines: {}", agent.printed("stderr"));
    Ok(())
}

#[test]
fn a_slow_api_server_is_only_slow() -> Result<()> {
    require_agent!();
    let cluster = Cluster::start(Wiring::Bridge)?;
    cluster.api.make(Trouble::Slow(700));
    let pod = cluster.wire(10)?;
    cluster.tell("shop-0", 0, 10);
    let agent = cluster.agent(&cluster.config("", ""))?;
    ask_until_mirrored(&cluster, &agent, &pod)?;
    expect_mirrored(&cluster, &agent, &pod)?;
    let errors = agent.metrics()?.sum("mirror_pods_watch_errors_total");
    ensure!(errors == 0.0, "{errors} errors");
    Ok(())
}

#[test]
fn ready_agents_are_counted_for_a_rate_of_all_of_them() -> Result<()> {
    require_agent!();
    let cluster = Cluster::start(Wiring::Calico)?;
    let agent_pod = |name: &str, is_ready: bool| {
        let mut pod = running(name, &Stack::V4.addresses(99));
        pod["metadata"]["namespace"] = json!("mirror");
        pod["metadata"]["labels"] = json!({ "app.kubernetes.io/name": "mirror-agent" });
        pod["spec"]["nodeName"] = json!(name);
        pod["status"]["conditions"][0]["status"] = json!(if is_ready { "True" } else { "False" });
        pod
    };
    let arguments = cluster
        .arguments(&cluster.config("", "agents: 5\n"))?
        .with_variable("POD_NAMESPACE", "mirror")
        .with_variable("AGENT_SELECTOR", "app.kubernetes.io/name=mirror-agent");
    let agent = Agent::start(&cluster.net.live, &arguments)?;
    let agents = |count: f64| until(&agent, "agents", |metrics| metrics.sum("mirror_agents_ready") == count);
    cluster.api.apply(agent_pod("a", true));
    cluster.api.apply(agent_pod("b", true));
    cluster.api.apply(agent_pod("c", false));
    agents(2.0)?;
    cluster.api.apply(agent_pod("c", true));
    agents(3.0)?;
    cluster.api.make(Trouble::Status(500));
    thread::sleep(Duration::from_millis(300));
    agents(3.0)?;
    Ok(())
}

#[test]
fn what_pods_need_is_said_where_it_is_missing_and_a_check_needs_no_api_server() -> Result<()> {
    require_agent!();
    let mut cluster = Cluster::start(Wiring::Calico)?;
    cluster.api.go_down()?;
    let node = &cluster.net.live;
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("mirror.yaml");
    std::fs::write(&file, cluster.config("", ""))?;
    let checked = output(node, &["check", "--config", &file.display().to_string()])?;
    ensure!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));

    let refused = Agent::refuse(node, &Arguments::from_file(&file))?;
    ensure!(!refused.status.success() && refused.stderr.contains("NODE_NAME"), "{}", refused.stderr);
    let nowhere = Arguments::from_file(&file)
        .with_variable("NODE_NAME", "node-1")
        .with_variable("KUBECONFIG", "/nonexistent")
        .with_variable("KUBERNETES_SERVICE_HOST", "");
    let refused = Agent::refuse(node, &nowhere)?;
    ensure!(
        !refused.status.success() && refused.stderr.contains("find the API server"),
        "{}",
        refused.stderr
    );
    Ok(())
}
