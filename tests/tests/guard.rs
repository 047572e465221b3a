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
    server::{Behavior, Record},
    traffic::Same,
};

#[test]
fn agent_that_may_use_little_sheds_new_connections_and_takes_them_up_again() -> Result<()> {
    require_agent!();
    let scenario = Scenario::with_record(Weight::Heavy, &["--guard-cpu", "1%"], Record::Count)?;
    let mut client = scenario.client()?;
    client.ask(b"GET /kept HTTP/1.1\r\n\r\n")?;
    let plan = Plan::new(scenario.net.live.at_v4(PORT), Pace::PerSecond(800.0), Duration::from_secs(12), 16);
    let plan = Plan { reuse: Reuse::PerRequest, ..plan };
    let load = Running::start(&scenario.net.client, plan, Same::get())?;

    let shedding = wait_for(&scenario, |metrics| capture_ratio(metrics) < 0.7)?;
    ensure!(shedding.sum("mirror_guard_cpu_ratio") > 0.0, "{shedding:?}");
    // A connection from before goes on being mirrored.
    let before = scenario.agent.ledger()?.mirrored;
    client.ask(b"GET /kept HTTP/1.1\r\n\r\n")?;
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
    // At rest it uses half of that; bodies that nobody takes are to bring it over.
    let share = format!("{}%", 100.0 * 2.0 * given);
    let bodies =
        ["--guard-memory", &share, "--methods", "all", "--response-timeout", "20s", "--queue-timeout", "20s"];
    let scenario = stage.with_agent(&bodies)?;
    let mut kept = scenario.client()?;
    kept.ask(b"GET /kept HTTP/1.1\r\n\r\n")?;
    scenario.settle()?;
    scenario.shadow.behave(Behavior::Hang);
    let at = scenario.net.live.at_v4(PORT);
    let load = |per_second: f64, seconds, traffic| -> Result<()> {
        let plan = Plan::new(at, Pace::PerSecond(per_second), Duration::from_secs(seconds), 16);
        let plan = Plan { reuse: Reuse::PerRequest, ..plan };
        let report = Running::start(&scenario.net.client, plan, traffic)?.finish()?;
        ensure!(report.is_clean(), "live was affected: {report:?}");
        Ok(())
    };

    load(30.0, 4, Same::post(1 << 20))?;

    let shedding = wait_for(&scenario, |metrics| capture_ratio(metrics) < 1.0)?;
    println!(
        "at rest {given:.4} of what was given, now {:.2} of twice that, capture ratio {}",
        shedding.sum("mirror_guard_memory_ratio"),
        capture_ratio(&shedding)
    );
    ensure!(shedding.sum("mirror_guard_cpu_ratio") == 0.0, "it is not the processor");
    load(100.0, 2, Same::get())?;
    let metrics = scenario.agent.metrics()?;
    ensure!(metrics.value("mirror_flows_skipped_total", "reason", "shed") > 0.0, "no connection was shed");
    // A connection from before is followed on.
    let before = scenario.agent.ledger()?.seen;
    kept.ask(b"GET /kept HTTP/1.1\r\n\r\n")?;
    scenario.agent.wait_for(PATIENCE, |ledger| ledger.seen > before)?;
    scenario.shadow.behave(Behavior::Answer);
    let ledger = scenario.agent.wait_for(PATIENCE, |ledger| ledger.pending == 0)?;
    println!("{ledger}");
    ensure!(ledger.seen < scenario.live.requests(), "nothing was shed");
    ensure!(ledger.mirrored + ledger.all_lost() + ledger.all_dropped() == ledger.seen, "{ledger}");
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
        ensure!(Instant::now() < deadline, "capture ratio {}", capture_ratio(&metrics));
        thread::sleep(Duration::from_millis(100));
    }
}
