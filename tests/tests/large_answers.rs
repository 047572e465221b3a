//! Enters: answers far over the limit of what is compared. Leaves: their lengths alone copied, and every one told apart.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use mirror_tests::{
    agent::{Agent, Arguments},
    client::RawClient,
    metrics::Metrics,
    netns::Topology,
    require_agent,
    scenario::{PATIENCE, PORT, Turn, Weight},
    server::Server,
};

/// Of each answer of live; 64 KiB are compared.
const LARGE_BYTES: usize = 64 << 20;

/// Requests of a run.
const REQUESTS: u32 = 12;

/// From one request to the next, where the machine is quick enough.
const PERIOD: Duration = Duration::from_millis(250);

#[test]
fn content_of_answers_over_the_limit_is_not_copied_and_each_is_told_apart() -> Result<()> {
    require_agent!();
    let _turn = Turn::take(Weight::Heavy)?;
    let net = Topology::new()?;
    let live = Server::fixed(&net.live, PORT, answer(LARGE_BYTES))?;
    let _shadow = Server::fixed(&net.shadow, PORT, answer(10))?;

    let (_, [uncompared, uncompared_live]) = run(&net, &live, "")?;
    let (metrics, [compared, compared_live]) = run(&net, &live, "compare: { maxBody: 64Ki }")?;

    let reason = |reason: &str| metrics.value("mirror_comparisons_incomparable_total", "reason", reason);
    ensure!(reason("too_large") as u64 == u64::from(REQUESTS), "{}", reasons(&metrics));
    let (unread, copied) = (
        metrics.sum("mirror_frames_unread_total"),
        metrics.value("mirror_frames_captured_total", "side", "server"),
    );
    println!(
        "{unread} of {copied} frames of answers were left out; CPU of the agent {compared:?}, without comparison {uncompared:?}; \
         of live {compared_live:?}, {uncompared_live:?}"
    );
    // Some megabytes pass before the kernel program has heard of it.
    ensure!(unread > 0.8 * copied, "{unread} of {copied} frames were left out");
    ensure!(metrics.value("mirror_frames_dropped_total", "reason", "ring_full") == 0.0, "the ring was full");
    Ok(())
}

/// Mirrors [`REQUESTS`] requests by an experiment with this line in it: what the agent tells behind the end, and the CPU time
/// of agent and live, which sends through the kernel program.
fn run(net: &Topology, live: &Server, line: &str) -> Result<(Metrics, [Duration; 2])> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("mirror.yaml");
    fs::write(
        &file,
        format!(
            // Half of an answer: what passes before the kernel program has heard fits, on a machine that stands still for a moment too.
            "capture: {{ interfaces: [eth0], ringSize: 32Mi }}\n\
             experiments:\n\
             \x20 - name: large\n\
             \x20   expires: never\n\
             \x20   ports: [{PORT}]\n\
             \x20   targets: [{{ name: v2, url: \"http://{}\" }}]\n\
             \x20   {line}\n",
            net.shadow.at_v4(PORT)
        ),
    )?;
    let agent = Agent::start(&net.live, &Arguments::from_file(&file))?;
    let before = [agent.cpu()?, live.cpu()];

    let mut client = RawClient::connect(&net.client, net.live.at_v4(PORT))?;
    let began = Instant::now();
    for number in 0..REQUESTS {
        thread::sleep((PERIOD * number).saturating_sub(began.elapsed()));
        let answer = client.ask(b"GET / HTTP/1.1\r\nHost: live\r\n\r\n")?;
        ensure!(answer.body.len() == LARGE_BYTES, "{} bytes came", answer.body.len());
    }

    // What the server tells of its CPU time is up to a tenth of a second old.
    thread::sleep(Duration::from_millis(200));
    let requests = u64::from(REQUESTS);
    let books = agent.wait_for(PATIENCE, |books| books.seen == requests && books.pending == 0)?;
    ensure!(books.mirrored == requests, "{books}");
    let expected = if line.is_empty() { 0 } else { requests };
    let deadline = Instant::now() + PATIENCE;
    loop {
        let metrics = agent.metrics()?;
        if metrics.sum("mirror_comparisons_total") as u64 >= expected {
            return Ok((metrics, [agent.cpu()? - before[0], live.cpu() - before[1]]));
        }
        ensure!(Instant::now() < deadline, "not compared in time: {}", reasons(&metrics));
        thread::sleep(Duration::from_millis(50));
    }
}

fn reasons(metrics: &Metrics) -> String {
    ["too_large", "gap", "unpaired", "aborted", "busy"]
        .map(|reason| {
            let count = metrics.value("mirror_comparisons_incomparable_total", "reason", reason);
            format!("{reason} {count}")
        })
        .join(", ")
}

fn answer(body_bytes: usize) -> Vec<u8> {
    let mut answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {body_bytes}\r\n\r\n").into_bytes();
    answer.resize(answer.len() + body_bytes, b'x');
    answer
}
