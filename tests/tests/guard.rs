//! Enters: more load than the agent may use processor time for. Leaves: fewer connections captured, and no more harm.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use mirror_tests::{
    agent::Agent,
    load::{Pace, Plan, Reuse, Running},
    metrics::Metrics,
    require_agent,
    scenario::{PATIENCE, PORT, Scenario, Stage, Weight},
    server::Record,
    traffic::Same,
};

const GET: &[u8] = b"GET /kept HTTP/1.1\r\nHost: live\r\n\r\n";

#[test]
fn agent_that_may_use_little_sheds_new_connections_and_takes_them_up_again() -> Result<()> {
    require_agent!();
    let scenario = Scenario::with_record(Weight::Heavy, &["--guard-cpu", "1%"], Record::Count)?;
    let mut client = scenario.client()?;
    client.ask(GET)?;
    let plan = Plan::new(scenario.net.live.at_v4(PORT), Pace::PerSecond(800.0), Duration::from_secs(12), 16);
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
    let ledger = scenario.agent.wait_for(PATIENCE, |ledger| ledger.pending == 0)?;
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
    let ledger = scenario.agent.wait_for(PATIENCE, |ledger| ledger.pending == 0)?;
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
    let deadline = Instant::now() + PATIENCE;
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
