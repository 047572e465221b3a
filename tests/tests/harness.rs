//! Enters: the harness alone, without the agent. Leaves: proof that the yardstick is straight.

use std::{
    sync::atomic::Ordering,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use mirror_tests::{
    client::RawClient,
    load::{Pace, Plan, Reuse, Running},
    netns::{FilterTool, Topology},
    nginx::Nginx,
    require_hosts,
    scenario::{PATIENCE, PORT, Turn, Weight},
    server::{Record, Server},
    traffic::{Distinct, Mix, Same, Sent},
};

#[test]
fn load_and_server_count_alike_in_every_mode() -> Result<()> {
    require_hosts!();
    let _turn = Turn::take(Weight::Light)?;
    let net = Topology::new()?;
    let server = Server::start(&net.live, PORT, Record::Count)?;
    let second = Duration::from_secs(1);
    let mut expected = 0;
    for (mix, reuse, pipeline, target) in [
        (Mix::Safe, Reuse::KeepAlive, 1, net.live.at_v4(PORT)),
        (Mix::GetAndClose, Reuse::PerRequest, 1, net.live.at_v6(PORT)),
        (Mix::Safe, Reuse::KeepAlive, 10, net.live.at_v6(PORT)),
        (Mix::Post, Reuse::KeepAlive, 1, net.live.at_v4(PORT)),
    ] {
        let plan = Plan { reuse, pipeline, ..Plan::new(target, Pace::PerSecond(1000.0), second, 16) };
        let sent = Sent::default();
        let report = Running::start(&net.client, plan, Distinct::new("x", mix, Some(&sent)))?.finish()?;
        expected += 1000;
        ensure!(
            report.is_clean() && report.answered == 1000 && sent.digests().len() == 1000,
            "{mix:?}: {report:?}"
        );
        ensure!(
            server.requests() == expected,
            "{mix:?}: the server counts {}, not {expected}",
            server.requests()
        );
    }
    let plan = Plan::new(net.live.at_v4(PORT), Pace::ClosedLoop, second, 16);
    let report = Running::start(&net.client, plan, Same::get())?.finish()?;
    ensure!(report.failed == 0 && server.requests() == expected + report.issued, "{report:?}");
    Ok(())
}

#[test]
fn nginx_and_load_count_alike() -> Result<()> {
    require_hosts!();
    if Nginx::program().is_none() {
        println!("SKIPPED: nginx is not installed (package nginx-light)");
        return Ok(());
    }
    let _turn = Turn::take(Weight::Light)?;
    let net = Topology::new()?;
    let nginx = Nginx::start(&net.live, PORT, 1)?;
    for pipeline in [1, 5] {
        let before = nginx.requests(&net.live)?;
        let pace = Pace::PerSecond(1000.0);
        let plan = Plan { pipeline, ..Plan::new(net.live.at_v6(PORT), pace, Duration::from_secs(1), 8) };
        let report = Running::start(&net.client, plan, Distinct::new("x", Mix::Safe, None))?.finish()?;
        let counted = nginx.requests(&net.live)? - before;
        ensure!(report.is_clean() && counted == report.answered, "{counted} at nginx, {report:?}");
    }
    Ok(())
}

#[test]
fn dead_server_is_felt_by_the_load() -> Result<()> {
    require_hosts!();
    let _turn = Turn::take(Weight::Light)?;
    let net = Topology::new()?;
    let server = Server::start(&net.live, PORT, Record::Count)?;
    let plan = Plan::new(net.live.at_v4(PORT), Pace::PerSecond(200.0), Duration::from_secs(1), 4);
    let running = Running::start(&net.client, plan, Same::get())?;
    let deadline = Instant::now() + PATIENCE;
    while running.progress.answered.load(Ordering::Relaxed) <= 50 {
        ensure!(Instant::now() < deadline, "the server does not answer");
        thread::sleep(Duration::from_millis(10));
    }
    drop(server);
    let report = running.finish()?;
    ensure!(report.failed > 50 && report.answered > 50, "{report:?}");
    Ok(())
}

#[test]
fn packet_filter_loses_and_doubles_segments() -> Result<()> {
    require_hosts!();
    let _turn = Turn::take(Weight::Light)?;
    let net = Topology::new()?;
    let server = Server::start(&net.live, PORT, Record::Raw)?;
    let mut client = RawClient::connect(&net.client, net.live.at_v4(PORT))?;
    let mut ask = || (0..20).try_for_each(|_| client.ask(b"GET / HTTP/1.1\r\n\r\n").map(drop));
    {
        let rule = "-p tcp --dport 8080 -m statistic --mode nth --every 5 --packet 4 -j DROP";
        let _loss = net.filter_wire(FilterTool::V4, rule)?;
        ask()?;
    }
    let retransmitted = net.client.counter("Tcp", "RetransSegs")?;
    {
        let rule = "-p tcp --dport 8080 -j TEE --gateway 10.77.0.2";
        let _copies = net.client.filter(FilterTool::V4, "mangle", "POSTROUTING", rule)?;
        ask()?;
    }
    let doubled = net.live.counter("TcpExt", "TCPDSACKOldSent")?;
    ensure!(retransmitted > 0 && doubled >= 20, "{retransmitted} retransmitted, {doubled} known twice");
    ensure!(server.requests() == 40 && server.arrived().len() == 40);
    Ok(())
}
