//! Enters: pods that come, move and go on nodes wired as network plugins do, and an API server with troubles. Leaves: the
//! requests of those pods mirrored within a second, for as long as they are there, whatever the API server does.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};
use mirror_tests::{
    agent::{Agent, Arguments, output},
    client::RawClient,
    cluster::{Cluster, NAMESPACE, Pod, Trouble, Wiring, address, running},
    metrics::Metrics,
    require_agent,
    scenario::{PATIENCE, PORT},
    server::{Record, Server},
};
use serde_json::json;

const GET: &[u8] = b"GET /of-a-pod HTTP/1.1\r\nHost: live\r\nConnection: close\r\n\r\n";

/// Within this a change of a pod is to be felt.
const PROMISE: Duration = Duration::from_secs(1);

fn until(agent: &Agent, what: &str, mut is_so: impl FnMut(&Metrics) -> bool) -> Result<Duration> {
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

fn pods(metrics: &Metrics) -> f64 {
    metrics.value("mirror_experiment_pods", "experiment", "shop")
}

fn ask(cluster: &Cluster, pod: &Pod) -> Result<()> {
    RawClient::connect(&cluster.net.client, pod.host.at_v4(PORT))?.ask(GET)?;
    Ok(())
}

/// Asks the pod over and over until a copy has come, and returns how long that took.
fn ask_until_mirrored(cluster: &Cluster, agent: &Agent, pod: &Pod) -> Result<Duration> {
    let (start, before) = (Instant::now(), cluster.shadow.requests());
    while cluster.shadow.requests() == before {
        ask(cluster, pod)?;
        if start.elapsed() > PATIENCE {
            bail!("{pod:?} is not mirrored: {}; log: {}", agent.ledger()?, agent.printed("stderr"));
        }
    }
    Ok(start.elapsed())
}

/// How many requests were mirrored when nothing more of what was asked is on its way.
fn mirrored_so_far(agent: &Agent) -> Result<u64> {
    let mut seen = u64::MAX;
    loop {
        let books = agent.wait_for(PATIENCE, |books| books.pending == 0)?;
        if books.seen == seen {
            return Ok(books.mirrored);
        }
        seen = books.seen;
        // Rings are read each millisecond while there is traffic.
        thread::sleep(Duration::from_millis(150));
    }
}

/// Asserts that what the pod is asked from here on is mirrored, each request once.
fn expect_mirrored(cluster: &Cluster, agent: &Agent, pod: &Pod) -> Result<()> {
    let before = mirrored_so_far(agent)?;
    for _ in 0..5 {
        ask(cluster, pod)?;
    }
    agent.wait_for(PATIENCE, |books| books.mirrored >= before + 5)?;
    let mirrored = mirrored_so_far(agent)? - before;
    ensure!(mirrored == 5, "5 requests, {mirrored} copies");
    Ok(())
}

/// Asserts that nothing of what the pod is asked from here on is mirrored.
fn expect_left_alone(cluster: &Cluster, agent: &Agent, pod: &Pod) -> Result<()> {
    let before = mirrored_so_far(agent)?;
    for _ in 0..5 {
        ask(cluster, pod)?;
    }
    let copies = mirrored_so_far(agent)? - before;
    ensure!(copies == 0, "{copies} copies of a pod that no experiment is about");
    Ok(())
}

/// Has pods come, move and go; says how long each took to be felt.
fn follow_pods(wiring: Wiring) -> Result<String> {
    let cluster = Cluster::start(wiring)?;
    let agent = cluster.agent(&cluster.config("", ""))?;
    ensure!(agent.metrics()?.sum("mirror_interfaces_attached") == 0.0, "there is no pod yet");

    let first = cluster.wire(10)?;
    cluster.api.apply(running("shop-0", address(10)));
    let came = ask_until_mirrored(&cluster, &agent, &first)?;
    expect_mirrored(&cluster, &agent, &first)?;
    let attached = cluster.net.live.attached_programs_of(&wiring.interface(10))?;
    ensure!(attached == 2, "{attached} programs at the pod's interface");

    // Another of the same labels on another node, and one of other labels here.
    let second = cluster.wire(11)?;
    let mut elsewhere = running("shop-1", address(11));
    elsewhere["spec"]["nodeName"] = json!("node-2");
    let mut other = running("cart-0", address(11));
    other["metadata"]["labels"]["app"] = json!("cart");
    cluster.api.apply(elsewhere);
    cluster.api.apply(other);
    expect_left_alone(&cluster, &agent, &second)?;

    // The pod is made anew under its name, with another address, as a StatefulSet does.
    cluster.api.delete(NAMESPACE, "shop-0");
    cluster.api.apply(running("shop-0", address(11)));
    let moved = ask_until_mirrored(&cluster, &agent, &second)?;
    expect_left_alone(&cluster, &agent, &first)?;

    cluster.api.delete(NAMESPACE, "shop-0");
    let went = until(&agent, "no pod", |metrics| pods(metrics) == 0.0)?;
    expect_left_alone(&cluster, &agent, &second)?;
    until(&agent, "detached", |metrics| metrics.sum("mirror_interfaces_attached") == 0.0)?;
    for took in [came, moved, went] {
        ensure!(took < PROMISE, "{wiring:?}: {took:?}");
    }
    let books = agent.wait_for(PATIENCE, |books| books.pending == 0)?;
    ensure!(books.all_lost() == 0, "{books}");
    Ok(format!(
        "{wiring:?}: came after {came:?}, had another address after {moved:?}, was gone after {went:?}"
    ))
}

#[test]
fn pods_are_followed_as_calico_wires_them() -> Result<()> {
    require_agent!();
    println!("{}", follow_pods(Wiring::Calico)?);
    Ok(())
}

#[test]
fn pods_are_followed_on_a_bridge() -> Result<()> {
    require_agent!();
    println!("{}", follow_pods(Wiring::Bridge)?);
    Ok(())
}

#[test]
fn pods_are_followed_as_aws_wires_them() -> Result<()> {
    require_agent!();
    println!("{}", follow_pods(Wiring::Aws)?);
    Ok(())
}

#[test]
fn pods_are_followed_as_cilium_wires_them_with_routes_for_endpoints() -> Result<()> {
    require_agent!();
    println!("{}", follow_pods(Wiring::Cilium)?);
    Ok(())
}

#[test]
fn pods_whose_interface_is_not_found_are_seen_where_the_configuration_says() -> Result<()> {
    require_agent!();
    let cluster = Cluster::start(Wiring::Routed)?;
    let agent = cluster.agent(&cluster.config("eth0", ""))?;
    let pod = cluster.wire(10)?;
    cluster.api.apply(running("shop-0", address(10)));
    ask_until_mirrored(&cluster, &agent, &pod)?;
    until(&agent, "missing", |metrics| metrics.sum("mirror_pods_without_interface") == 1.0)?;
    until(&agent, "said", |_| agent.printed("stderr").contains("interfaces of some pods were not found"))?;
    expect_mirrored(&cluster, &agent, &pod)?;
    cluster.api.delete(NAMESPACE, "shop-0");
    until(&agent, "not missing", |metrics| metrics.sum("mirror_pods_without_interface") == 0.0)?;
    Ok(())
}

#[test]
fn a_request_that_passes_the_uplink_and_the_pods_interface_is_mirrored_once() -> Result<()> {
    require_agent!();
    let cluster = Cluster::start(Wiring::Calico)?;
    let agent = cluster.agent(&cluster.config("eth0", ""))?;
    let pod = cluster.wire(10)?;
    cluster.api.apply(running("shop-0", address(10)));
    until(&agent, "both", |metrics| metrics.sum("mirror_interfaces_attached") == 2.0)?;
    expect_mirrored(&cluster, &agent, &pod)
}

#[test]
fn a_pod_on_the_nodes_network_is_seen_at_the_nodes_interface() -> Result<()> {
    require_agent!();
    let cluster = Cluster::start(Wiring::Calico)?;
    let agent = cluster.agent(&cluster.config("eth0", ""))?;
    let node = &cluster.net.live;
    let _server = Server::start(node, PORT, Record::Count)?;
    let mut pod = running("shop-0", node.v4);
    pod["spec"]["hostNetwork"] = json!(true);
    cluster.api.apply(pod);
    until(&agent, "known", |metrics| pods(metrics) == 1.0)?;
    for _ in 0..5 {
        RawClient::connect(&cluster.net.client, node.at_v4(PORT))?.ask(GET)?;
    }
    let books = agent.wait_for(PATIENCE, |books| books.mirrored == 5)?;
    ensure!(agent.metrics()?.sum("mirror_pods_without_interface") == 0.0, "{books}");
    Ok(())
}

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
    cluster.api.apply(running("shop-0", address(10)));
    cluster.api.come_up(&cluster.net.live)?;
    ask_until_mirrored(&cluster, &agent, &pod)?;

    cluster.api.go_down()?;
    let (asked, other) = (cluster.api.asked().len(), cluster.wire(11)?);
    cluster.api.apply(running("shop-1", address(11)));
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
fn an_api_server_that_misbehaves_is_borne_with_and_what_it_told_last_stays() -> Result<()> {
    require_agent!();
    let cluster = Cluster::start(Wiring::Calico)?;
    let agent = cluster.agent(&cluster.config("", ""))?;
    let pod = cluster.wire(10)?;
    cluster.api.apply(running("shop-0", address(10)));
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
        cluster.api.apply(running("shop-1", address(number)));
        ask_until_mirrored(&cluster, &agent, &new)?;
        ensure!(pods(&agent.metrics()?) == 2.0, "{trouble:?}");
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
    cluster.api.apply(running("shop-0", address(10)));
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
        let mut pod = running(name, address(99));
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
