//! Enters: the agent as the DaemonSet starts it. Leaves: what of it can be reached from where.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use mirror_tests::{
    agent::{Agent, Arguments, output},
    client::RawClient,
    netns::{Host, Topology},
    require_agent,
    scenario::{PATIENCE, PORT, Turn, Weight},
};

const MANIFEST: &str = include_str!("../../deploy/kubernetes/base/daemonset.yaml");

/// Where the page is: the port that the documentation forwards.
const PAGE: u16 = 9478;

/// The arguments of the manifest for a pod that is the live host, with a configuration of its own in `folder`.
fn arguments(net: &Topology, folder: &Path) -> Result<Arguments> {
    let file = folder.join("config.yaml");
    let text = format!(
        "capture: {{ interfaces: [eth0] }}\ncontrol: {{ socket: {} }}\nexperiments:\n  - name: shop\n    expires: never\n    \
         ports: [{PORT}]\n    targets: [{{ name: shadow, url: 'http://{}' }}]\n",
        folder.join("control.sock").display(),
        net.shadow.at_v4(PORT)
    );
    fs::write(&file, text)?;
    let (_, args) = MANIFEST.split_once("          args:\n").context("no args")?;
    let lines = args.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    let words = lines.map_while(|line| line.strip_prefix("- "));
    let given: Vec<String> = words.map(|word| word.replace("$(POD_IP)", &net.live.v4.to_string())).collect();
    let given: Vec<&str> = given.iter().map(String::as_str).collect();
    let rest = given.strip_prefix(&["run", "--config=/etc/mirror/config.yaml"][..]);
    Ok(Arguments::from_file(&file).with(rest.with_context(|| format!("{given:?}"))?))
}

/// The status and the body of what is at a path.
fn get(from: &Host, at: SocketAddr, path: &str, host: &str) -> Result<(String, String)> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    let answer = RawClient::connect(from, at)?.ask(request.as_bytes())?;
    Ok((answer.code(), String::from_utf8_lossy(&answer.body).into_owned()))
}

#[test]
fn page_is_at_the_pods_loopback_and_metrics_at_its_address() -> Result<()> {
    require_agent!();
    let _turn = Turn::take(Weight::Light)?;
    let net = Topology::new()?;
    let (pod, folder) = (&net.live, tempfile::tempdir()?);
    let socket = folder.path().join("control.sock");
    let agent = Agent::launch(pod, &arguments(&net, folder.path())?)?;

    // As Prometheus and the kubelet ask, from another host.
    let (metrics, deadline) = (pod.at_v4(9477), Instant::now() + PATIENCE);
    while !get(&net.client, metrics, "/readyz", "pod").is_ok_and(|(code, _)| code == "200") {
        ensure!(Instant::now() < deadline, "it is not ready: {}", agent.printed("stderr"));
        thread::sleep(Duration::from_millis(20));
    }
    ensure!(get(&net.client, metrics, "/metrics", "pod")?.1.contains("mirror_requests_seen_total"));

    // As `kubectl port-forward` does: it connects to the loopback of the pod's network, which is the node's.
    let page = SocketAddr::from((Ipv4Addr::LOCALHOST, PAGE));
    let (code, body) = get(pod, page, "/", &format!("localhost:{PAGE}"))?;
    ensure!(code == "200" && body.contains("<title>mirror</title>"), "{code} {body}");
    ensure!(get(pod, page, "/v1/state", &format!("localhost:{PAGE}"))?.0 == "401", "it needs no token");
    let opened = output(pod, &["ctl", "--socket", &socket.display().to_string(), "open"])?;
    let address = String::from_utf8_lossy(&opened.stdout).into_owned();
    ensure!(address.starts_with(&format!("http://127.0.0.1:{PAGE}/#invitation=")), "{opened:?}");

    // From nowhere else.
    let from_elsewhere = RawClient::connect(&net.client, pod.at_v4(PAGE));
    ensure!(from_elsewhere.is_err(), "the page is open to the network");
    Ok(())
}

#[test]
fn an_agent_whose_page_finds_its_port_taken_says_so() -> Result<()> {
    require_agent!();
    let _turn = Turn::take(Weight::Light)?;
    let net = Topology::new()?;
    let (node, folder) = (&net.live, tempfile::tempdir()?);
    let taken = node.within(|| Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, PAGE))?))?;
    let refused = Agent::refuse(node, &arguments(&net, folder.path())?)?;
    drop(taken);
    ensure!(!refused.status.success(), "it runs without its page");
    ensure!(refused.stderr.contains("control listener at 127.0.0.1:9478"), "{}", refused.stderr);
    Ok(())
}
