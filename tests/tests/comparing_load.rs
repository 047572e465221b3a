//! Enters: more to compare than one processor can. Leaves: every copy in its place, and the rest counted as what it is.

use std::{
    fs,
    io::Write as _,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use flate2::{Compression, write::GzEncoder};
use mirror_tests::{
    agent::{Agent, Arguments},
    load::{Pace, Plan, Running},
    metrics::Metrics,
    netns::Topology,
    require_agent,
    scenario::{PATIENCE, PORT, Turn, Weight, expect_requests},
    server::Server,
    traffic::Same,
};

/// What is compared of each answer, in bytes; on the wire it is a hundredth of that.
const CONTENT_BYTES: usize = 700_000;

#[test]
fn comparison_with_too_much_to_do_sheds_it_counted_and_slows_nothing() -> Result<()> {
    require_agent!();
    let _turn = Turn::take(Weight::Heavy)?;
    let net = Topology::new()?;
    let live = Server::fixed(&net.live, PORT, answer("live")?)?;
    let shadow = Server::fixed(&net.shadow, PORT, answer("shadow")?)?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("mirror.yaml");
    let socket = folder.path().join("control.sock");
    fs::write(
        &file,
        format!(
            "capture: {{ interfaces: [eth0] }}\n\
             control: {{ socket: {} }}\n\
             experiments:\n\
             \x20 - name: load\n\
             \x20   expires: never\n\
             \x20   ports: [{PORT}]\n\
             \x20   targets: [{{ name: v2, url: \"http://{}\" }}]\n\
             \x20   compare: {{}}\n",
            socket.display(),
            net.shadow.at_v4(PORT)
        ),
    )?;
    let agent = Agent::start(&net.live, &Arguments::from_file(&file))?;
    let load = |per_second: f64, seconds| -> Result<()> {
        let pace = Pace::PerSecond(per_second);
        let plan = Plan::new(net.live.at_v4(PORT), pace, Duration::from_secs(seconds), 16);
        let report = Running::start(&net.client, plan, Same::get())?.finish()?;
        ensure!(report.is_clean(), "{report:?}");
        Ok(())
    };

    load(1_000.0, 4)?;

    let ledger = agent.wait_for(PATIENCE, |books| books.seen == live.requests() && books.pending == 0)?;
    ensure!(ledger.mirrored == 4_000, "{ledger}");
    expect_requests(&shadow, 4_000)?;
    ensure!(ledger.all_frames_dropped() == 0, "{ledger}");
    let metrics = wait_for_comparisons(&agent, 4_000)?;
    let (divergent, busy) = (compared(&metrics, "divergent"), shed(&metrics));
    println!("of 4000: {divergent} divergent, {busy} shed");
    ensure!(divergent > 0 && busy > 0, "{divergent} divergent, {busy} shed");
    ensure!(divergent + compared(&metrics, "incomparable") == 4_000, "something is equal");

    // It is shed for as long as there is too much, and no longer.
    load(20.0, 1)?;
    let metrics = wait_for_comparisons(&agent, 4_020)?;
    ensure!(compared(&metrics, "divergent") == divergent + 20 && shed(&metrics) == busy, "it still sheds");
    Ok(())
}

/// An answer that is small on the wire and long to compare: gzip of a list in which every element differs by `name`.
fn answer(name: &str) -> Result<Vec<u8>> {
    let mut content = b"{\"items\":[".to_vec();
    while content.len() < CONTENT_BYTES {
        content.extend_from_slice(
            format!("{{\"name\":\"{name}\",\"price\":1.25,\"tags\":[1,2,3]}},").as_bytes(),
        );
    }
    content.extend_from_slice(b"0]}");
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(&content)?;
    let packed = encoder.finish()?;
    let mut answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n",
        packed.len()
    )
    .into_bytes();
    answer.extend_from_slice(&packed);
    Ok(answer)
}

fn compared(metrics: &Metrics, result: &str) -> u64 {
    metrics.value("mirror_comparisons_total", "result", result) as u64
}

fn shed(metrics: &Metrics) -> u64 {
    metrics.value("mirror_comparisons_incomparable_total", "reason", "busy") as u64
}

/// Waits until so many comparisons came to something.
fn wait_for_comparisons(agent: &Agent, expected: u64) -> Result<Metrics> {
    // What is queued takes its time where others need the processors, too.
    let deadline = Instant::now() + 4 * PATIENCE;
    loop {
        let metrics = agent.metrics()?;
        let count = metrics.sum("mirror_comparisons_total") as u64;
        if count >= expected {
            ensure!(count == expected, "{count} comparisons of {expected} exchanges");
            return Ok(metrics);
        }
        ensure!(Instant::now() < deadline, "{count} comparisons of {expected} exchanges");
        thread::sleep(Duration::from_millis(50));
    }
}
