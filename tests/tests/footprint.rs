//! Enters: a configuration with everything on, and the worst to compare. Leaves: no more memory than was reckoned.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use mirror_tests::{
    agent::{Agent, Arguments, output},
    load::{Pace, Plan, Running},
    netns::Topology,
    require_agent,
    scenario::{PORT, Turn, Weight},
    server::Server,
    traffic::Same,
};

/// Just what is compared at most.
const CONTENT_BYTES: usize = 1024 * 1024;

#[test]
fn agent_under_load_stays_within_what_check_reckons() -> Result<()> {
    require_agent!();
    let _turn = Turn::take(Weight::Heavy)?;
    let net = Topology::new()?;
    let _live = Server::fixed(&net.live, PORT, answer(b"0"))?;
    let _shadow = Server::fixed(&net.shadow, PORT, answer(b"1"))?;
    let _control = Server::fixed(&net.other, PORT, answer(b"0"))?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("mirror.yaml");
    fs::write(
        &file,
        format!(
            "capture: {{ interfaces: [eth0], memoryLimit: 64Mi, ringSize: 8Mi, threads: 2 }}
experiments:
  - name: all
    expires: never
    ports: [{PORT}]
    matches: [{{ methods: [GET, POST] }}]
    targets:
      - name: shadow
        url: http://{}
        interlock: none
        limits: {{ maxInFlight: 64 }}
        sessions: [{{ from: {{ cookie: sid }}, into: [{{ cookie: sid }}] }}]
    control: {{ url: \"http://{}\", interlock: none, limits: {{ maxInFlight: 64 }} }}
    compare: {{}}
    gate: {{}}
    sinks: [{{ name: all, take: all, file: {{ path: {}, maxSize: 8Mi, keep: 1 }} }}]
",
            net.shadow.at_v4(PORT),
            net.other.at_v4(PORT),
            folder.path().join("exchanges.jsonl").display()
        ),
    )?;
    let reckoned = reckoned(&net, &file.display().to_string())?;
    let agent = Agent::start(&net.live, &Arguments::from_file(&file))?;
    let idle = agent.pss()?;

    let plan = Plan::new(net.live.at_v4(PORT), Pace::PerSecond(60.0), Duration::from_secs(10), 32);
    let load = Running::start(&net.client, plan, Same::post(200_000))?;
    let (mut most, start) = (idle, Instant::now());
    while !load.is_finished() || start.elapsed() < Duration::from_secs(15) {
        most = most.max(agent.pss()?);
        thread::sleep(Duration::from_millis(50));
    }
    let report = load.finish()?;
    let metrics = agent.metrics()?;
    let (rings, compared) =
        (metrics.value("mirror_memory_bytes", "pool", "rings"), metrics.sum("mirror_comparisons_total"));
    println!(
        "reckoned {} MiB; idle {} MiB, most {} MiB with {compared} exchanges; rings {} MiB",
        reckoned >> 20,
        idle >> 20,
        most >> 20,
        rings as u64 >> 20
    );
    ensure!(report.answered > 0 && compared > 0.0, "{report:?}");
    ensure!(most <= reckoned, "{most} bytes, reckoned {reckoned}");
    // What is there from the start is what is reckoned for the program. The rings are mapped, so their pages count, too.
    ensure!(idle <= (16 << 20) + rings as u64, "an idle agent takes {idle} bytes");
    Ok(())
}

/// What `check` says of a configuration, in bytes.
fn reckoned(net: &Topology, file: &str) -> Result<u64> {
    let said = output(&net.live, &["check", "--config", file])?;
    let text = String::from_utf8_lossy(&said.stdout);
    ensure!(said.status.success(), "{text}{}", String::from_utf8_lossy(&said.stderr));
    let sum = text.lines().find_map(|line| line.strip_prefix("memory")).context("no sum")?;
    let mebibytes: u64 = sum.split_ascii_whitespace().next().context("no figure")?.parse()?;
    Ok(mebibytes << 20)
}

/// A list of as many numbers as fit: what takes most memory for its length.
fn answer(number: &[u8]) -> Vec<u8> {
    let mut content = b"[".to_vec();
    while content.len() + 3 < CONTENT_BYTES {
        content.extend_from_slice(number);
        content.push(b',');
    }
    content.extend_from_slice(b"2]");
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nSet-Cookie: sid=abc\r\nContent-Length: {}\r\n\r\n",
        content.len()
    );
    [head.into_bytes(), content].concat()
}
