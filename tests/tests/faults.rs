//! Enters: dead, hanging, rude and slow shadows, a tiny ring, kill -9. Leaves: live unharmed and books that balance.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use mirror_tests::{
    load::{Pace, Plan, Report, Running},
    metrics::Ledger,
    require_agent,
    scenario::{PATIENCE, PORT, Scenario, Stage, Weight},
    server::{Behavior, Record, Server},
    sys::has_tcx,
    traffic::Same,
};

#[test]
fn dead_shadow_costs_only_its_copies() -> Result<()> {
    require_agent!();
    let Stage { live, shadow, net, .. } = Stage::set(Weight::Light, Record::Count)?;
    drop(shadow);
    let arguments = mirror_tests::agent::Arguments::new(PORT, net.shadow.at_v4(PORT));
    let agent = mirror_tests::agent::Agent::start(&net.live, &arguments)?;
    let plan = Plan::new(net.live.at_v4(PORT), Pace::PerSecond(1000.0), Duration::from_secs(2), 16);
    let running = Running::start(&net.client, plan, Same::get())?;
    while !running.is_finished() {
        // Balanced at every scrape.
        agent.ledger()?;
        thread::sleep(Duration::from_millis(50));
    }
    expect_clean(&running.finish()?)?;
    let ledger = agent.wait_for(PATIENCE, |books| books.seen == live.requests() && books.pending == 0)?;
    ensure!(ledger.mirrored == 0 && ledger.all_dropped() == ledger.seen, "{ledger}");
    ensure!(ledger.dropped.contains_key("connect"), "{ledger}");

    let _shadow = Server::start(&net.shadow, PORT, Record::Count)?;
    let plan = Plan { duration: Duration::from_secs(2), ..plan };
    expect_clean(&Running::start(&net.client, plan, Same::get())?.finish()?)?;
    let after = agent.wait_for(PATIENCE, |books| books.seen == live.requests() && books.pending == 0)?;
    ensure!(after.mirrored > 1000, "the agent does not recover: {after}");
    Ok(())
}

#[test]
fn hanging_shadow_fills_the_queue_and_is_dropped() -> Result<()> {
    require_agent!();
    let options = [
        "--response-timeout",
        "500ms",
        "--max-in-flight",
        "8",
        "--queue-requests",
        "64",
        "--queue-timeout",
        "300ms",
    ];
    let scenario = Scenario::with_record(Weight::Light, &options, Record::Count)?;
    scenario.shadow.behave(Behavior::Hang);
    let ledger = load_and_scrape(&scenario, 1000.0, 2)?;
    ensure!(ledger.all_dropped() > 0 && ledger.mirrored > 0, "{ledger}");
    ensure!(ledger.replays.contains_key("timeout"), "{ledger}");
    scenario.shadow.behave(Behavior::Answer);
    // Copies that hang keep their connections until they time out.
    thread::sleep(Duration::from_millis(700));
    expect_recovery(&scenario)
}

#[test]
fn shadow_that_closes_without_an_answer_gets_each_copy_once() -> Result<()> {
    require_agent!();
    let scenario = Scenario::start(Weight::Light, &[])?;
    scenario.shadow.behave(Behavior::CloseUnanswered);
    let ledger = load_and_scrape(&scenario, 500.0, 2)?;
    ensure!(ledger.replays.contains_key("closed"), "{ledger}");
    // Copies with the same identifier would be the same request twice.
    let copies = mirror_tests::scenario::originals(&scenario.shadow.arrived())?;
    ensure!(
        copies.len() as u64 <= ledger.seen && ledger.mirrored >= copies.len() as u64,
        "{} arrived; {ledger}",
        copies.len()
    );
    scenario.shadow.behave(Behavior::Answer);
    expect_recovery(&scenario)
}

#[test]
fn shadow_that_closes_on_accept_harms_nobody() -> Result<()> {
    require_agent!();
    let scenario = Scenario::with_record(Weight::Light, &[], Record::Count)?;
    scenario.shadow.behave(Behavior::CloseOnAccept);
    load_and_scrape(&scenario, 500.0, 2)?;
    scenario.shadow.behave(Behavior::Answer);
    expect_recovery(&scenario)
}

#[test]
fn shadow_that_never_reads_holds_up_only_itself() -> Result<()> {
    require_agent!();
    let options = [
        "--methods",
        "all",
        "--response-timeout",
        "2s",
        "--max-in-flight",
        "4",
        "--max-body",
        "8MiB",
        "--queue-bytes",
        "16MiB",
        // What is tested is the queue behind it.
        "--ring-size",
        "128MiB",
    ];
    let scenario = Scenario::with_record(Weight::Heavy, &options, Record::Count)?;
    scenario.shadow.behave(Behavior::NeverRead);
    let plan = Plan::new(scenario.net.live.at_v4(PORT), Pace::PerSecond(6.0), Duration::from_secs(4), 4);
    let running = Running::start(&scenario.net.client, plan, Same::post(8 << 20))?;
    expect_clean(&running.finish()?)?;
    let live = scenario.live.requests();
    let ledger = scenario.agent.wait_for(2 * PATIENCE, |books| books.seen == live && books.pending == 0)?;
    let dropped = |reason: &str| ledger.dropped.get(reason).copied().unwrap_or(0);
    ensure!(dropped("write") > 0 && dropped("queue_full") > 0, "{ledger}");
    Ok(())
}

#[test]
fn slow_shadow_still_gets_everything() -> Result<()> {
    require_agent!();
    let scenario = Scenario::with_record(Weight::Light, &[], Record::Count)?;
    scenario.shadow.behave(Behavior::Late(50));
    let ledger = load_and_scrape(&scenario, 1000.0, 2)?;
    ensure!(ledger.mirrored == ledger.seen, "{ledger}");
    scenario.expect_at_shadow(ledger.mirrored)
}

#[test]
fn killing_the_agent_under_load_fails_no_live_request() -> Result<()> {
    require_agent!();
    let scenario = Scenario::with_record(Weight::Heavy, &[], Record::Count)?;
    let net = &scenario.net;
    let plan = Plan::new(net.live.at_v4(PORT), Pace::PerSecond(3000.0), Duration::from_secs(3), 32);
    let running = Running::start(&net.client, plan, Same::get())?;
    thread::sleep(Duration::from_millis(1000));
    let Scenario { agent, live, shadow, net, .. } = scenario;
    ensure!(agent.ledger()?.mirrored > 0);
    agent.kill()?;
    // The kernel lets go of TCX links with the process, not long after it. Filters of clsact stay until the next start.
    let deadline = Instant::now() + Duration::from_secs(2);
    while has_tcx()? && net.live.attached_programs()? > 0 {
        ensure!(Instant::now() < deadline, "programs stay attached");
        thread::sleep(Duration::from_millis(10));
    }
    expect_clean(&running.finish()?)?;
    ensure!(live.requests() == 9000 && shadow.requests() > 0);
    Ok(())
}

#[test]
fn tiny_ring_drops_counts_and_recovers() -> Result<()> {
    require_agent!();
    let options = ["--ring-size", "64KiB", "--methods", "all"];
    let scenario = Scenario::with_record(Weight::Heavy, &options, Record::Count)?;
    let net = &scenario.net;
    let plan = Plan::new(net.live.at_v4(PORT), Pace::ClosedLoop, Duration::from_secs(2), 32);
    let running = Running::start(&net.client, plan, Same::post(20_000))?;
    while !running.is_finished() {
        scenario.agent.ledger()?;
        thread::sleep(Duration::from_millis(50));
    }
    expect_clean(&running.finish()?)?;
    // Books close once the flows have: what was being assembled is given up at their end.
    let ledger = scenario.agent.at_rest(PATIENCE)?;
    ensure!(ledger.all_frames_dropped() > 0, "nothing was dropped: {ledger}");
    ensure!(ledger.seen <= scenario.live.requests(), "{ledger}");
    // The last of them may lie in the sockets of a shadow that is slow.
    let start = Instant::now();
    while scenario.shadow.requests() != ledger.mirrored {
        let at_shadow = scenario.shadow.requests();
        ensure!(start.elapsed() < PATIENCE, "{ledger}, {at_shadow} at the shadow");
        thread::sleep(Duration::from_millis(50));
    }
    expect_recovery(&scenario)
}

/// Loads live with small GETs and scrapes all the while; gives the settled books.
fn load_and_scrape(scenario: &Scenario, rate: f64, seconds: u64) -> Result<Ledger> {
    let target = scenario.net.live.at_v4(PORT);
    let plan = Plan::new(target, Pace::PerSecond(rate), Duration::from_secs(seconds), 16);
    let before = scenario.live.requests();
    let running = Running::start(&scenario.net.client, plan, Same::get())?;
    while !running.is_finished() {
        scenario.agent.ledger()?;
        thread::sleep(Duration::from_millis(50));
    }
    let report = running.finish()?;
    expect_clean(&report)?;
    let live = scenario.live.requests();
    ensure!(live == before + report.answered);
    let ledger = scenario.agent.wait_for(PATIENCE, |books| books.seen >= live && books.pending == 0)?;
    ensure!(ledger.seen == live && ledger.all_lost() == 0, "live counts {live}: {ledger}");
    Ok(ledger)
}

/// Asserts that requests one after another on a fresh connection are all mirrored.
fn expect_recovery(scenario: &Scenario) -> Result<()> {
    let before = scenario.agent.ledger()?;
    let at_shadow = scenario.shadow.requests();
    let mut client = scenario.client()?;
    for _ in 0..20 {
        client.ask(b"GET /recovered HTTP/1.1\r\nHost: live\r\n\r\n")?;
        thread::sleep(Duration::from_millis(5));
    }
    let after = scenario
        .agent
        .wait_for(PATIENCE, |books| books.mirrored >= before.mirrored + 20 && books.pending == 0)?;
    ensure!(after.mirrored == before.mirrored + 20, "{before} became {after}");
    scenario.expect_at_shadow(at_shadow + 20)
}

fn expect_clean(report: &Report) -> Result<()> {
    ensure!(report.is_clean(), "live requests failed: {report:?}");
    Ok(())
}
