//! Enters: agents on three hosts, and what pretends to be one. Leaves: what any of them tells of all, and what `top` shows.

use std::{
    fs,
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::Output,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use mirror_tests::{
    agent::{self, Agent, Arguments},
    client::RawClient,
    netns::{Host, Topology},
    require_agent,
    scenario::{PATIENCE, PORT, Turn, Weight},
    server::Server,
    terminal::Terminal,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use tempfile::TempDir;

/// Where agents answer each other.
const FLEET: u16 = 9479;
const TOKEN: &str = "fedcba9876543210fedcba9876543210";

/// Fewer than the gate asks for, and more than half of it.
const REQUESTS: usize = 600;

/// A key of live's that would clear a terminal, name its window, and turn the direction of text.
const HOSTILE_KEY: &str = r"\u001b[2J\u001b]0;owned\u0007\u009bm\u202e";

fn answer(body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}")
        .into_bytes()
}

/// A host with a live service on its loopback and an agent that sees it.
struct Node {
    agent: Option<Agent>,
    _live: Server,
    file: PathBuf,
    socket: PathBuf,
}

impl Node {
    fn start(host: &Host, folder: &TempDir, body: &str, shadow: SocketAddr, peers: &str) -> Result<Self> {
        let live = Server::fixed(host, PORT, answer(body))?;
        let token = folder.path().join("fleet.token");
        fs::write(&token, TOKEN)?;
        fs::set_permissions(&token, fs::Permissions::from_mode(0o600))?;
        let socket = folder.path().join(format!("{}.sock", host.name()));
        let file = folder.path().join(format!("{}.yaml", host.name()));
        let yaml = format!(
            "capture: {{ interfaces: [lo] }}
control: {{ socket: {}, fleet: {{ listen: '{}', peers: {peers}, tokenFile: {} }} }}
experiments:
  - name: shop
    owner: team-shop
    expires: never
    ports: [{PORT}]
    targets: [{{ name: v2, url: 'http://{shadow}' }}]
    compare: {{}}
    gate: {{ divergence: 2%, p95: any, errors: 2%, minSamples: 1000 }}
",
            socket.display(),
            host.at_v4(FLEET),
            token.display()
        );
        fs::write(&file, yaml)?;
        let agent = Some(Agent::start(host, &Arguments::from_file(&file))?);
        Ok(Self { agent, _live: live, file, socket })
    }

    fn agent(&self) -> Result<&Agent> {
        self.agent.as_ref().context("the agent was stopped")
    }

    /// Sends requests to the live service, and waits until all of them are compared.
    fn serve(&self, host: &Host, requests: usize) -> Result<()> {
        let live = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), PORT);
        let mut client = RawClient::connect(host, live)?;
        let before = compared(self.agent()?)?;
        for number in 0..requests {
            client.ask(format!("GET /orders/{number} HTTP/1.1\r\nHost: live\r\n\r\n").as_bytes())?;
        }
        let deadline = Instant::now() + PATIENCE;
        while compared(self.agent()?)? < before + requests as f64 {
            ensure!(
                Instant::now() < deadline,
                "not all of {requests} are compared: {}",
                self.agent()?.ledger()?
            );
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn ask(&self, host: &Host, words: &[&str]) -> Result<Output> {
        let socket = self.socket.to_string_lossy();
        agent::output(host, &[words, &["--socket", &socket]].concat())
    }

    /// What it tells of all agents.
    fn verdict(&self, host: &Host, words: &[&str]) -> Result<(Option<i32>, Value)> {
        let output = self.ask(host, &[&["verdict", "--fleet", "--output", "json"], words].concat())?;
        let told = serde_json::from_slice(&output.stdout).with_context(|| format!("{output:?}"))?;
        Ok((output.status.code(), told))
    }
}

fn compared(agent: &Agent) -> Result<f64> {
    Ok(agent.metrics()?.value("mirror_comparisons_total", "result", "equal")
        + agent.metrics()?.value("mirror_comparisons_total", "result", "divergent"))
}

/// Something that answers every connection in a way of its own, until the test ends.
fn pretend(host: &Host, port: u16, answer: &'static [u8], hangs: bool) -> Result<()> {
    let address = host.at_v4(port);
    let listener = host.within(|| Ok(TcpListener::bind(address)?))?;
    // Ends with the process.
    drop(host.spawn("pretender", move || {
        let mut held = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream?;
            drop(stream.read(&mut [0; 1024]));
            drop(stream.write_all(answer));
            if hangs {
                held.push(stream);
            }
        }
        Ok(())
    })?);
    Ok(())
}

/// The problem that an agent's address has; `None` where it has none.
fn problem<'t>(told: &'t Value, address: &SocketAddr) -> Option<&'t str> {
    let agents = told["agents"].as_array()?;
    let is_it = |agent: &&Value| {
        agent["addresses"].as_array().is_some_and(|all| all.contains(&address.to_string().into()))
    };
    agents.iter().find(is_it)?["trouble"]["problem"].as_str()
}

#[test]
fn any_agent_tells_of_all_and_names_who_is_missing() -> Result<()> {
    require_agent!();
    let _turn = Turn::take(Weight::Light)?;
    let (net, folder) = (Topology::new()?, tempfile::tempdir()?);
    let shadow = Server::fixed(&net.shadow, PORT, answer(r#"{"total":1}"#))?;
    let hosts = [&net.live, &net.other, &net.client];
    let at = hosts.map(|host| host.at_v4(FLEET));
    let strangers = [9481, 9482, 9483, 9484].map(|port| net.shadow.at_v4(port));
    let [hanging, garbage, dead, other_format] = strangers;
    pretend(&net.shadow, hanging.port(), b"", true)?;
    pretend(&net.shadow, garbage.port(), b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{\"format\"", false)?;
    pretend(
        &net.shadow,
        other_format.port(),
        b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n{\"format\":9}",
        false,
    )?;
    // All know the real ones, the first one by a name for all; only the second one knows the strangers.
    let real = format!("['{}', '{}', 'dns:{}']", at[0], at[1], at[2]);
    let all = format!(
        "['{}', '{}', '{}', {}]",
        at[0],
        at[1],
        at[2],
        strangers.map(|at| format!("'{at}'")).join(", ")
    );
    let peers = [&real, &all, &real];
    let mut nodes = Vec::new();
    for (host, peers) in hosts.into_iter().zip(peers) {
        nodes.push(Node::start(host, &folder, r#"{"total":1}"#, net.shadow.at_v4(PORT), peers)?);
    }
    for (node, host) in nodes.iter().zip(hosts) {
        node.serve(host, REQUESTS)?;
    }
    ensure!(shadow.requests() >= 3 * REQUESTS as u64);

    // No agent alone knows enough, all together do.
    let alone = nodes[0].ask(hosts[0], &["verdict"])?;
    ensure!(alone.status.code() == Some(3), "{alone:?}");
    let (status, told) = nodes[0].verdict(hosts[0], &[])?;
    ensure!(status == Some(0) && told["state"] == "pass", "{told:#}");
    let target = &told["experiments"][0]["targets"][0];
    ensure!(target["exchanges"] == 3 * REQUESTS, "{target:#}");
    ensure!(target["copies"]["mirrored"] == 3 * REQUESTS, "{target:#}");
    ensure!(told["agents"].as_array().is_some_and(|agents| agents.len() == 3), "{told:#}");
    let metrics = nodes[0].agent()?.metrics()?;
    ensure!(
        metrics.sum("mirror_fleet_peers_known") == 3.0 && metrics.sum("mirror_fleet_peers_answered") == 3.0
    );
    let page = nodes[0].ask(hosts[0], &["report", "--fleet"])?;
    let page = String::from_utf8_lossy(&page.stdout).into_owned();
    ensure!(page.contains("fleet: 3 of 3 agents answered") && page.contains("GET /orders/{id}"), "{page}");

    // The second one asks strangers, too.
    let asked = Instant::now();
    let (status, told) = nodes[1].verdict(hosts[1], &[])?;
    ensure!(asked.elapsed() < Duration::from_secs(8), "{:?}", asked.elapsed());
    ensure!(status == Some(3) && told["state"] == "not_enough_data", "{told:#}");
    ensure!(told["experiments"][0]["judged"] == "pass", "{told:#}");
    for (address, expected) in
        [(hanging, "timeout"), (garbage, "garbled"), (dead, "unreachable"), (other_format, "other_format")]
    {
        ensure!(problem(&told, &address) == Some(expected), "{address} is to be {expected}: {told:#}");
    }
    ensure!(at.iter().all(|address| problem(&told, address).is_none()), "{told:#}");
    let (status, _) = nodes[1].verdict(hosts[1], &["--ignore-missing"])?;
    ensure!(status == Some(0), "{status:?}");
    let metrics = nodes[1].agent()?.metrics()?;
    ensure!(
        metrics.sum("mirror_fleet_peers_known") == 7.0 && metrics.sum("mirror_fleet_peers_answered") == 3.0
    );
    let text = nodes[1].ask(hosts[1], &["verdict", "--fleet"])?;
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    ensure!(
        text.contains("3 of 7 agents answered") && text.contains(&format!("{dead}: unreachable")),
        "{text}"
    );
    ensure!(text.contains("what answered would pass"), "{text}");

    // `top` into a pipe is one page.
    let top = nodes[1].ask(hosts[1], &["top", "--fleet", "--once"])?;
    let page = String::from_utf8_lossy(&top.stdout).into_owned();
    ensure!(top.status.success() && page.contains("fleet: 3 of 7 agents answered"), "{top:?}");
    ensure!(page.contains("timeout: no answer within 2 s") && page.contains("shop/v2"), "{page}");

    // A real one hangs, and goes on.
    let third = Pid::from_raw(i32::try_from(nodes[2].agent()?.pid())?);
    kill(third, Signal::SIGSTOP)?;
    let hung = nodes[0].verdict(hosts[0], &[]);
    kill(third, Signal::SIGCONT)?;
    let (status, told) = hung?;
    ensure!(status == Some(3) && problem(&told, &at[2]) == Some("timeout"), "{told:#}");
    thread::sleep(Duration::from_millis(1100));
    let (status, told) = nodes[0].verdict(hosts[0], &[])?;
    ensure!(status == Some(0), "{told:#}");

    // It is killed.
    nodes[2].agent.take().context("no agent")?.kill()?;
    thread::sleep(Duration::from_millis(1100));
    let (status, told) = nodes[0].verdict(hosts[0], &[])?;
    ensure!(status == Some(3) && problem(&told, &at[2]) == Some("unreachable"), "{told:#}");
    let (status, told) = nodes[0].verdict(hosts[0], &["--ignore-missing"])?;
    ensure!(
        status == Some(0) && told["experiments"][0]["targets"][0]["exchanges"] == 2 * REQUESTS,
        "{told:#}"
    );

    // One that compares by other rules is not added up.
    let accepted = nodes[1].ask(hosts[1], &["rules", "ignore", "--path", "$.other"])?;
    ensure!(accepted.status.success(), "{accepted:?}");
    thread::sleep(Duration::from_millis(1100));
    let (_, told) = nodes[0].verdict(hosts[0], &[])?;
    let shop = &told["experiments"][0];
    ensure!(shop["left_out"][0]["reason"] == "other_rules", "{told:#}");
    ensure!(shop["targets"][0]["exchanges"] == REQUESTS, "{told:#}");

    // No fleet, no live traffic harmed: all books are balanced.
    for node in &nodes[..2] {
        let ledger = node.agent()?.ledger()?;
        ensure!(ledger.mirrored == REQUESTS as u64 && ledger.pending == 0, "{ledger}");
    }
    Ok(())
}

#[test]
fn a_bug_that_two_agents_see_is_one_cluster_and_fails_whoever_is_missing() -> Result<()> {
    require_agent!();
    let _turn = Turn::take(Weight::Light)?;
    let (net, folder) = (Topology::new()?, tempfile::tempdir()?);
    let _shadow = Server::fixed(&net.shadow, PORT, answer(r#"{"total":"1"}"#))?;
    let nobody = net.shadow.at_v4(9483);
    let hosts = [&net.live, &net.other];
    let peers = format!("['{}', '{}', '{nobody}']", hosts[0].at_v4(FLEET), hosts[1].at_v4(FLEET));
    let mut nodes = Vec::new();
    for host in hosts {
        let node = Node::start(host, &folder, r#"{"total":1}"#, net.shadow.at_v4(PORT), &peers)?;
        node.serve(host, REQUESTS)?;
        nodes.push(node);
    }
    let (status, told) = nodes[0].verdict(hosts[0], &[])?;
    ensure!(status == Some(1) && problem(&told, &nobody) == Some("unreachable"), "{told:#}");
    let clusters =
        told["experiments"][0]["targets"][0]["clusters"].as_array().context("no clusters")?.clone();
    ensure!(clusters.len() == 1 && clusters[0]["count"] == 2 * REQUESTS, "{clusters:#?}");
    // It has the key that it has at home, where the samples are.
    let home = nodes[1].ask(hosts[1], &["report", "--output", "json"])?;
    let home: Value = serde_json::from_slice(&home.stdout)?;
    ensure!(home["targets"][0]["clusters"][0]["key"] == clusters[0]["key"], "{home:#}");
    Ok(())
}

#[test]
fn top_follows_an_agent_on_a_terminal_and_gives_it_back() -> Result<()> {
    require_agent!();
    let _turn = Turn::take(Weight::Light)?;
    let (net, folder) = (Topology::new()?, tempfile::tempdir()?);
    let _shadow = Server::fixed(&net.shadow, PORT, answer(r#"{"total":1}"#))?;
    let host = &net.live;
    let live = format!(r#"{{"total":1,"{HOSTILE_KEY}":1}}"#);
    let mut node = Node::start(host, &folder, &live, net.shadow.at_v4(PORT), "[]")?;
    node.serve(host, 200)?;

    let once = node.ask(host, &["top", "--once", "--interval", "200ms"])?;
    let page = String::from_utf8_lossy(&once.stdout).into_owned();
    ensure!(once.status.success() && page.contains("all: seen 200 = mirrored 200"), "{once:?}");
    ensure!(page.contains("service time: live p50") && page.contains("divergent 200"), "{page}");
    ensure!(!page.contains(['\u{1b}', '\u{7}', '\u{9b}', '\u{202e}']), "{page:?}");
    ensure!(page.contains("]0;owned"), "the key is not shown: {page}");

    let program = agent::program().context("no agent")?;
    let top = |interval: &str| {
        let mut command = host.command(&program);
        command.arg("top").arg("--interval").arg(interval).arg("--socket").arg(&node.socket);
        command
    };
    let mut terminal = Terminal::start(top("200ms"), 80, 24)?;
    let second = Terminal::start(top("10s"), 80, 24)?;
    let fits = |page: &[String], columns: usize, rows: usize| {
        page.len() == rows && page.iter().all(|line| line.chars().count() <= columns)
    };
    let page = terminal.wait_for_text("shop/v2")?;
    ensure!(fits(&page, 80, 24), "{}", page.join("\n"));
    terminal.press("?")?;
    terminal.wait_for_text("choose a target")?;
    terminal.press(" ")?;
    terminal.wait_for_text("EXPERIMENT/TARGET")?;
    terminal.press("\x1b[B\x1b[Ap")?;
    terminal.wait_for_text("pause shop? y/n")?;
    terminal.press("n")?;
    terminal.wait_for_text("q quit")?;
    let paused = |expected: bool| -> Result<()> {
        let state = node.ask(host, &["ctl", "--json", "state"])?;
        let state: Value = serde_json::from_slice(&state.stdout)?;
        ensure!(state["experiments"][0]["paused"] == expected, "{state:#}");
        Ok(())
    };
    paused(false)?;
    terminal.press("p")?;
    terminal.wait_for_text("pause shop? y/n")?;
    terminal.press("y")?;
    terminal
        .wait_for("pause", |page| page.iter().any(|line| line.contains("shop/v2              paused")))?;
    paused(true)?;
    terminal.press("p")?;
    terminal.wait_for_text("resume shop? y/n")?;
    terminal.press("y")?;
    terminal.wait_for("resumption", |page| {
        page.iter().any(|line| line.contains("shop/v2              running"))
    })?;
    paused(false)?;
    terminal.resize(120, 40)?;
    terminal.wait_for("larger page", |page| {
        fits(page, 120, 40) && page.iter().any(|line| line.contains("certain"))
    })?;
    terminal.resize(40, 8)?;
    terminal.wait_for("smaller page", |page| fits(page, 40, 8))?;
    terminal.resize(80, 24)?;

    // The agent is gone, and comes back.
    node.agent.take().context("no agent")?.kill()?;
    let page = terminal.wait_for_text("no answer since")?;
    ensure!(page.iter().any(|line| line.contains("shop/v2")), "what was known stays: {}", page.join("\n"));
    node.agent = Some(Agent::start(host, &Arguments::from_file(&node.file))?);
    terminal.wait_for("an answer", |page| page.iter().any(|line| line.contains("q quit")))?;
    terminal.wait_for_text("all: seen 0 = mirrored 0")?;

    let shown = terminal.shown();
    ensure!(
        !shown.contains("\x1b]") && !shown.contains('\u{7}') && !shown.contains('\u{9b}'),
        "hostile text got through"
    );
    // What `top` itself writes, and nothing else.
    let is_own = |sequence: &str| {
        let own = ["[H", "[K", "[J", "[2J", "[0m", "[1m", "[7m", "[1;31m", "[?1049", "[?25", "[?7"];
        own.iter().any(|own| sequence.starts_with(own))
    };
    ensure!(shown.split('\x1b').skip(1).all(is_own), "a sequence that is not its own");
    ensure!(shown.matches("\x1b[2J").count() == 1, "the screen was cleared by somebody else");
    terminal.press("q")?;
    ensure!(terminal.end()?.success());
    second.signal(Signal::SIGTERM)?;
    ensure!(second.end()?.success());
    Ok(())
}
