//! Enters: starts, stops, kills and neighbours. Leaves: what is attached, printed and mirrored at each.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use mirror_tests::{
    agent::{self, Agent, Arguments},
    client::RawClient,
    load::{Pace, Plan, Running},
    require_agent,
    scenario::{PATIENCE, PORT, Scenario, Stage, Weight, expect_requests},
    server::{Record, Server},
    sys::has_tcx,
    traffic::Same,
};

const GET: &[u8] = b"GET /life HTTP/1.1\r\nHost: live\r\n\r\n";

#[test]
fn sigterm_drains_detaches_and_prints_the_ledger() -> Result<()> {
    require_agent!();
    let scenario = Scenario::with_record(Weight::Light, &[], Record::Count)?;
    let plan = Plan::new(scenario.net.live.at_v4(PORT), Pace::PerSecond(500.0), Duration::from_secs(1), 8);
    Running::start(&scenario.net.client, plan, Same::get())?.finish()?;
    let mut client = scenario.client()?;
    client.ask(b"POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n")?;
    scenario.settle()?;
    ensure!(scenario.net.live.attached_programs()? > 0, "nothing is attached");
    let Scenario { agent, shadow, net, .. } = scenario;
    let ended = agent.stop()?;
    ensure!(ended.status.code() == Some(0), "{ended:?}");
    ensure!(net.live.attached_programs()? == 0, "programs stay attached");
    for (word, figure) in [("seen", 501), ("mirrored", 500), ("skipped", 1), ("dropped", 0), ("lost", 0)] {
        ensure!(ended.printed_figure(word) == Some(figure), "{word} {figure} is not in {ended:?}");
    }
    expect_requests(&shadow, 500)?;
    // Live goes on as before.
    ensure!(client.ask(GET)?.code() == "200");
    Ok(())
}

#[test]
fn stopping_with_requests_in_flight_still_balances() -> Result<()> {
    require_agent!();
    let scenario = Scenario::with_record(
        Weight::Light,
        &["--drain-timeout", "500ms", "--max-in-flight", "2"],
        Record::Count,
    )?;
    scenario.shadow.behave(mirror_tests::server::Behavior::Hang);
    let mut client = scenario.client()?;
    for _ in 0..20 {
        client.ask(GET)?;
    }
    scenario.agent.wait_for(PATIENCE, |books| books.seen == 20)?;
    let Scenario { agent, .. } = scenario;
    let ended = agent.stop()?;
    ensure!(ended.status.code() == Some(0) && ended.took < Duration::from_secs(5), "{ended:?}");
    let figure = |word| ended.printed_figure(word).unwrap_or(0);
    ensure!(figure("seen") == 20 && figure("mirrored") + figure("dropped") == 20, "{ended:?}");
    Ok(())
}

#[test]
fn connections_older_than_the_agent_are_picked_up() -> Result<()> {
    require_agent!();
    let stage = Stage::set(Weight::Heavy, Record::Count)?;
    let target = stage.net.live.at_v4(PORT);
    let mut clients = (0..1000)
        .map(|_| RawClient::connect(&stage.net.client, target))
        .collect::<Result<Vec<RawClient>>>()?;
    for client in &mut clients {
        client.ask(GET)?;
    }
    // One is in the middle of a request when the agent comes: that one is nobody's, the next is.
    let mut midway = RawClient::connect(&stage.net.client, target)?;
    midway.send(b"POST /half HTTP/1.1\r\nContent-Length: 20\r\n\r\n0123456789")?;
    let scenario = stage.with_agent(&["--methods", "all"])?;
    midway.send(b"0123456789")?;
    midway.read_response(false)?;
    midway.ask(GET)?;
    for client in &mut clients {
        client.ask(GET)?;
    }
    let ledger = scenario.agent.wait_for(PATIENCE, |books| books.mirrored >= 1001 && books.pending == 0)?;
    ensure!(ledger.mirrored == 1001 && ledger.seen == 1001, "{ledger}");
    scenario.expect_at_shadow(1001)
}

#[test]
fn clsact_filters_of_a_killed_agent_are_cleaned_at_the_next_start() -> Result<()> {
    require_agent!();
    let stage = Stage::set(Weight::Light, Record::Count)?;
    let arguments = stage.arguments().with(&["--attach", "clsact"]);
    let host = &stage.net.live;
    // A filter of somebody else, which must outlive all of ours.
    let foreign = "tc -n $0 qdisc add dev eth0 clsact && \
                   tc -n $0 filter add dev eth0 ingress prio 9 protocol all bpf bytecode '1,6 0 0 0'";
    let status = std::process::Command::new("sh").args(["-c", foreign, host.name()]).status()?;
    ensure!(status.success());
    let foreign = host.tc_filters()?;
    let agent = Agent::start(host, &arguments)?;
    ensure!(bpf_filters(&stage)? > 0, "no filter is attached");
    agent.kill()?;
    ensure!(bpf_filters(&stage)? > 0, "filters of clsact outlive a killed process");
    let agent = Agent::start(host, &arguments)?;
    RawClient::connect(&stage.net.client, host.at_v4(PORT))?.ask(GET)?;
    let ledger = agent.wait_for(PATIENCE, |books| books.mirrored == 1)?;
    ensure!(ledger.seen == 1, "a filter left behind copies too: {ledger}");
    let ended = agent.stop()?;
    ensure!(ended.status.code() == Some(0), "{ended:?}");
    ensure!(bpf_filters(&stage)? == 0, "filters stay attached");
    ensure!(host.tc_filters()? == foreign, "a filter of somebody else has changed");
    Ok(())
}

#[test]
fn tcx_is_refused_by_name_where_the_kernel_has_none() -> Result<()> {
    require_agent!();
    if has_tcx()? {
        println!("SKIPPED: this kernel has TCX");
        return Ok(());
    }
    let stage = Stage::set(Weight::Light, Record::Count)?;
    let ended = Agent::refuse(&stage.net.live, &stage.arguments().with(&["--attach", "tcx"]))?;
    ensure!(ended.status.code() == Some(1), "{ended:?}");
    ensure!(ended.stderr.contains("the kernel has no TCX"), "{ended:?}");
    ensure!(stage.net.live.attached_programs()? == 0, "something is attached");
    Ok(())
}

#[test]
fn agent_of_another_name_does_not_disturb_the_first() -> Result<()> {
    require_agent!();
    for attach in ["tcx", "clsact"].into_iter().skip(usize::from(!has_tcx()?)) {
        let stage = Stage::set(Weight::Light, Record::Count)?;
        let host = &stage.net.live;
        let second_shadow = Server::start(&stage.net.other, PORT, Record::Count)?;
        let first = Agent::start(host, &stage.arguments().with(&["--attach", attach]))?;
        let second_arguments = Arguments::new(PORT, stage.net.other.at_v4(PORT));
        let second_arguments = second_arguments.with(&["--attach", attach, "--name", "second"]);
        let second = Agent::start(host, &second_arguments.with_metrics_port(9479))?;
        let mut client = RawClient::connect(&stage.net.client, host.at_v4(PORT))?;
        for _ in 0..50 {
            client.ask(GET)?;
        }
        let books = [&first, &second]
            .map(|agent| agent.wait_for(PATIENCE, |books| books.mirrored == 50 && books.pending == 0));
        for books in books {
            let books = books?;
            ensure!(books.seen == 50, "{attach}: {books}");
        }
        ensure!(second.stop()?.status.code() == Some(0));
        client.ask(GET)?;
        let books = first.wait_for(PATIENCE, |books| books.mirrored == 51)?;
        ensure!(books.seen == 51, "{attach}: {books}");
        expect_requests(&second_shadow, 50)?;
    }
    Ok(())
}

#[test]
fn listener_serves_health_and_every_documented_metric() -> Result<()> {
    require_agent!();
    let scenario = Scenario::with_record(Weight::Light, &[], Record::Count)?;
    scenario.client()?.ask(GET)?;
    scenario.settle()?;
    for path in ["/healthz", "/readyz"] {
        ensure!(scenario.agent.get(path)?.0 == 200, "{path}");
    }
    ensure!(scenario.agent.get("/nothing")?.0 == 404);
    let metrics = scenario.agent.metrics()?;
    for name in [
        "mirror_frames_captured_total",
        "mirror_frames_dropped_total",
        "mirror_flows_active",
        "mirror_flows_evicted_total",
        "mirror_stream_gap_bytes_total",
        "mirror_flows_skipped_total",
        "mirror_requests_seen_total",
        "mirror_requests_mirrored_total",
        "mirror_requests_pending",
        "mirror_requests_skipped_total",
        "mirror_requests_dropped_total",
        "mirror_requests_lost_total",
        "mirror_replays_total",
        "mirror_replay_duration_seconds_count",
        "mirror_ring_utilization_ratio",
        "mirror_replay_lag_seconds_count",
        "mirror_capture_paused",
        "mirror_memory_bytes",
        "mirror_build_info",
    ] {
        ensure!(metrics.has(name), "{name} is missing");
    }
    ensure!(metrics.sum("mirror_replay_lag_seconds_count") == 1.0);
    Ok(())
}

#[test]
fn memory_stays_within_its_bound_under_unfinished_requests() -> Result<()> {
    require_agent!();
    let options = ["--methods", "all", "--memory", "48MiB", "--queue-bytes", "16MiB", "--ring-size", "8MiB"];
    let scenario = Scenario::with_record(Weight::Heavy, &options, Record::Count)?;
    let idle = scenario.agent.pss()?;
    let mut body = b"POST /big HTTP/1.1\r\nContent-Length: 2000000\r\n\r\n".to_vec();
    body.resize(1_000_000, b'x');
    // A hundred megabytes of requests that do not end.
    let mut clients = (0..100).map(|_| scenario.client()).collect::<Result<Vec<RawClient>>>()?;
    for client in &mut clients {
        client.send(&body)?;
        let pss = scenario.agent.pss()?;
        ensure!(pss < idle + (48 << 20) + (16 << 20), "PSS grew from {idle} to {pss}");
    }
    let ledger = scenario.agent.wait_for(PATIENCE, |books| books.seen == 100)?;
    ensure!(ledger.all_lost() > 0, "{ledger}");
    drop(clients);
    let mut client = scenario.client()?;
    client.ask(GET)?;
    let ledger = scenario.agent.wait_for(PATIENCE, |books| books.mirrored == 1 && books.pending == 0)?;
    ensure!(ledger.seen == 101, "{ledger}");
    Ok(())
}

#[test]
fn thousands_of_connections_come_and_go_without_residue() -> Result<()> {
    require_agent!();
    let scenario = Scenario::with_record(Weight::Heavy, &[], Record::Count)?;
    let plan = Plan {
        reuse: mirror_tests::load::Reuse::PerRequest,
        ..Plan::new(scenario.net.live.at_v6(PORT), Pace::PerSecond(1500.0), Duration::from_secs(2), 64)
    };
    let report = Running::start(&scenario.net.client, plan, Same::get())?.finish()?;
    ensure!(report.is_clean(), "{report:?}");
    let ledger = scenario.settle()?;
    ensure!(ledger.mirrored == 3000, "{ledger}");
    let deadline = Instant::now() + Duration::from_secs(15);
    while scenario.agent.metrics()?.sum("mirror_flows_active") > 100.0 {
        ensure!(Instant::now() < deadline, "ended flows stay in the table");
        thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

#[test]
fn check_says_what_the_machine_can_do() -> Result<()> {
    require_agent!();
    let stage = Stage::set(Weight::Light, Record::Count)?;
    let output = agent::output(&stage.net.live, &["check"])?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{text}");
    for word in ["kernel", "btf", "tcx"] {
        ensure!(text.to_ascii_lowercase().contains(word), "{word} is not in {text}");
    }
    Ok(())
}

/// How many filters like the agent's `tc` lists at the live host: those that decide by themselves.
fn bpf_filters(stage: &Stage) -> Result<usize> {
    Ok(stage.net.live.tc_filters()?.lines().filter(|line| line.contains("direct-action")).count())
}
