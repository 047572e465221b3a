//! Enters: more load than the agent may use processor time for. Leaves: fewer connections captured, and no more harm.
//!
//! What it may use is less where others keep the machine busy: the tests wait for what is to come, however little that is.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use mirror_tests::{
    agent::Agent,
    digest::Difference,
    load::{Pace, Plan, Reuse, Running},
    metrics::Metrics,
    require_agent,
    scenario::{PATIENCE, PORT, Scenario, Stage, Weight},
    server::Record,
    traffic::{Distinct, Mix, Same, Sent},
};

const GET: &[u8] = b"GET /kept HTTP/1.1\r\nHost: live\r\n\r\n";

#[test]
fn agent_that_may_use_little_sheds_new_connections_and_takes_them_up_again() -> Result<()> {
    require_agent!();
    let scenario = Scenario::with_record(Weight::Heavy, &["--guard-cpu", "5%"], Record::Count)?;
    let mut client = scenario.client()?;
    client.ask(GET)?;
    let plan =
        Plan::new(scenario.net.live.at_v4(PORT), Pace::PerSecond(3_000.0), Duration::from_secs(12), 16);
    let plan = Plan { reuse: Reuse::PerRequest, ..plan };
    let load = Running::start(&scenario.net.client, plan, Same::get())?;

    let shedding = wait_for(&scenario, |metrics| capture_ratio(metrics) < 0.7)?;
    ensure!(shedding.sum("mirror_guard_cpu_ratio") > 0.0, "{shedding:?}");
    // A connection from before goes on being mirrored.
    let before = scenario.agent.ledger()?.mirrored;
    client.ask(GET)?;
    scenario.agent.wait_for(PATIENCE, |ledger| ledger.mirrored > before)?;
    let report = load.finish()?;

    ensure!(report.is_clean(), "live was affected: {report:?}");
    let ledger = scenario.agent.at_rest(PATIENCE)?;
    let live = scenario.live.requests();
    let metrics = scenario.agent.metrics()?;
    let shed = metrics.value("mirror_flows_skipped_total", "reason", "shed");
    println!("live {live}, shed {shed}, capture ratio {}: {ledger}", capture_ratio(&metrics));
    ensure!(ledger.seen < live && shed > 0.0, "nothing was shed");
    // A request a connection: what was not seen was shed, but for what was picked up too late.
    ensure!(ledger.seen as f64 + shed >= live as f64, "{shed} shed, live counts {live}: {ledger}");
    ensure!(ledger.mirrored + ledger.all_lost() == ledger.seen, "{ledger}");
    scenario.expect_at_shadow(ledger.mirrored)?;

    let low = capture_ratio(&metrics);
    wait_for(&scenario, |metrics| capture_ratio(metrics) > low + 0.05)?;
    Ok(())
}

#[test]
fn agent_that_may_use_little_lets_go_of_connections_that_do_not_end_and_takes_them_up_again() -> Result<()> {
    require_agent!();
    let options = ["--guard-cpu", "6%", "--methods", "all"];
    let scenario = Scenario::with_record(Weight::Heavy, &options, Record::Digest)?;
    let sent = Sent::default();
    let load = |name, mix, rate, connections| {
        let duration = Duration::from_secs(25);
        let plan = Plan::new(scenario.net.live.at_v4(PORT), Pace::PerSecond(rate), duration, connections);
        Running::start(&scenario.net.client, plan, Distinct::new(name, mix, Some(&sent)))
    };
    let mut kept = (0..8).map(|_| scenario.client()).collect::<Result<Vec<_>>>()?;
    for client in &mut kept {
        client.ask(GET)?;
    }
    scenario.settle()?;
    let loads = [load("small", Mix::Safe, 8_000.0, 24)?, load("large", Mix::Large, 25.0, 8)?];

    let begun = Instant::now();
    wait_for(&scenario, |metrics| metrics.value("mirror_flows_skipped_total", "reason", "shed") > 0.0)?;
    let let_go_after = begun.elapsed();
    // Twice in a row: it stays so.
    for _ in 0..2 {
        wait_for(&scenario, |metrics| (0.01..1.0).contains(&metrics.sum("mirror_guard_cpu_ratio")))?;
        thread::sleep(Duration::from_secs(1));
    }
    let is_under_load = loads.iter().all(|load| !load.is_finished());
    println!("let go after {let_go_after:?}, below the limit after {:?}", begun.elapsed());
    ensure!(is_under_load, "the load ended before the use was below the limit");
    for load in loads {
        let report = load.finish()?;
        ensure!(report.is_clean(), "live was affected: {report:?}");
    }

    let ledger = scenario.agent.at_rest(PATIENCE)?;
    let (requests, metrics) = (sent.digests(), scenario.agent.metrics()?);
    println!(
        "of {} requests on connections that did not end: {ledger}; capture ratio {}",
        requests.len(),
        capture_ratio(&metrics)
    );
    ensure!(ledger.is_balanced() && ledger.seen < scenario.live.requests(), "{ledger}");
    scenario.expect_at_shadow(ledger.mirrored)?;
    let copies = scenario.shadow.digests();
    let mirrored_of_load = ledger.mirrored - kept.len() as u64;
    let difference = Difference::between(&requests, &copies);
    // The requests of the clients that are kept are not among those sent by the load.
    let expected = Difference {
        missing: requests.len() as u64 - mirrored_of_load,
        unknown: kept.len() as u64,
        repeated: 0,
    };
    ensure!(difference == expected, "a request was altered: {difference:?}, expected {expected:?}");

    // All is captured again, and the same connections are mirrored.
    wait_within(Duration::from_secs(120), &scenario.agent, |metrics| capture_ratio(metrics) == 1.0)?;
    let before = scenario.agent.ledger()?;
    for client in &mut kept {
        client.ask(GET)?;
        client.ask(GET)?;
    }
    let mirrored = before.mirrored + 2 * kept.len() as u64;
    let after = scenario.agent.wait_for(PATIENCE, |ledger| ledger.mirrored == mirrored)?;
    ensure!(after.seen - before.seen == after.mirrored - before.mirrored, "{after}");
    Ok(())
}

#[test]
fn agent_whose_memory_fills_sheds_new_connections_and_keeps_what_it_has() -> Result<()> {
    require_agent!();
    let stage = Stage::set(Weight::Heavy, Record::Count)?;
    let given = {
        // What it uses at rest, as a share of what it was given.
        let agent = Agent::start(&stage.net.live, &stage.arguments().with(&["--guard-memory", "50%"]))?;
        wait_until(&agent, |metrics| metrics.sum("mirror_guard_memory_ratio") > 0.0)?
            .sum("mirror_guard_memory_ratio")
            * 0.5
    };
    // At rest it uses two fifths of that; requests that do not end are to bring it over.
    let share = format!("{}%", 100.0 * 2.5 * given);
    let scenario = stage.with_agent(&["--guard-memory", &share, "--methods", "all"])?;
    let mut kept = scenario.client()?;
    kept.ask(GET)?;
    scenario.settle()?;
    let head = format!("POST / HTTP/1.1\r\nHost: live\r\nContent-Length: {}\r\n\r\n", 16 << 20);
    let mut endless = Vec::new();
    for _ in 0..10 {
        let mut client = scenario.client()?;
        client.send(head.as_bytes())?;
        client.send(&vec![b'x'; 10 << 20])?;
        endless.push(client);
    }

    let shedding = wait_for(&scenario, |metrics| capture_ratio(metrics) < 1.0)?;

    println!(
        "at rest {given:.5} of what was given, now {:.2} of two and a half times that, capture ratio {}",
        shedding.sum("mirror_guard_memory_ratio"),
        capture_ratio(&shedding)
    );
    ensure!(shedding.sum("mirror_guard_cpu_ratio") == 0.0, "it is not the processor");
    let plan = Plan::new(scenario.net.live.at_v4(PORT), Pace::PerSecond(100.0), Duration::from_secs(2), 16);
    let plan = Plan { reuse: Reuse::PerRequest, ..plan };
    let report = Running::start(&scenario.net.client, plan, Same::get())?.finish()?;
    ensure!(report.is_clean(), "live was affected: {report:?}");
    let metrics = scenario.agent.metrics()?;
    ensure!(metrics.value("mirror_flows_skipped_total", "reason", "shed") > 0.0, "no connection was shed");
    // A connection from before is followed on.
    let before = scenario.agent.ledger()?.mirrored;
    kept.ask(GET)?;
    scenario.agent.wait_for(PATIENCE, |ledger| ledger.mirrored > before)?;
    drop(endless);
    let ledger = scenario.agent.at_rest(PATIENCE)?;
    println!("{ledger}");
    ensure!(ledger.all_lost() == 10 && ledger.mirrored + 10 == ledger.seen, "{ledger}");
    // It goes as it came, but for the pages of the ring, which are resident from then on.
    let low = capture_ratio(&metrics);
    wait_for(&scenario, |metrics| capture_ratio(metrics) > low)?;
    Ok(())
}

#[test]
fn agent_without_a_guard_captures_everything() -> Result<()> {
    require_agent!();
    let scenario = Scenario::with_record(Weight::Light, &[], Record::Count)?;
    scenario.client()?.ask(b"GET / HTTP/1.1\r\n\r\n")?;
    scenario.settle()?;
    let metrics = scenario.agent.metrics()?;
    ensure!(capture_ratio(&metrics) == 1.0 && metrics.sum("mirror_guard_cpu_ratio") == 0.0, "{metrics:?}");
    Ok(())
}

fn capture_ratio(metrics: &Metrics) -> f64 {
    metrics.sum("mirror_guard_capture_ratio")
}

/// Waits until the agent's metrics are as they should be, and gives them.
fn wait_for(scenario: &Scenario, is_so: impl Fn(&Metrics) -> bool) -> Result<Metrics> {
    wait_until(&scenario.agent, is_so)
}

fn wait_until(agent: &Agent, is_so: impl Fn(&Metrics) -> bool) -> Result<Metrics> {
    wait_within(PATIENCE, agent, is_so)
}

fn wait_within(patience: Duration, agent: &Agent, is_so: impl Fn(&Metrics) -> bool) -> Result<Metrics> {
    let deadline = Instant::now() + patience;
    loop {
        let metrics = agent.metrics()?;
        if is_so(&metrics) {
            return Ok(metrics);
        }
        let memory = metrics.sum("mirror_guard_memory_ratio");
        ensure!(Instant::now() < deadline, "capture ratio {}, memory {memory}", capture_ratio(&metrics));
        thread::sleep(Duration::from_millis(100));
    }
}
