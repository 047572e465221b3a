//! Enters: traffic that is not a request to the live service. Leaves: proof that nothing of it is taken for one.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use mirror_tests::{
    agent::{Agent, Arguments},
    client::RawClient,
    require_agent,
    scenario::{PORT, Scenario, Stage, Weight, expect_requests},
    server::{Record, Server},
};

const GET: &[u8] = b"GET /out HTTP/1.1\r\nHost: elsewhere\r\n\r\n";

#[test]
fn outbound_calls_beside_the_agent_are_not_mirrored() -> Result<()> {
    require_agent!();
    let scenario = Scenario::start(Weight::Light, &["--methods", "all"])?;
    let net = &scenario.net;
    let other = Server::start(&net.other, PORT, Record::Count)?;
    for target in [net.other.at_v4(PORT), net.other.at_v6(PORT), net.shadow.at_v6(PORT)] {
        let mut client = RawClient::connect(&net.live, target)?;
        for _ in 0..10 {
            client.ask(GET)?;
        }
    }
    ensure!(other.requests() == 20);
    let direct = scenario.shadow.requests();
    // A request to live comes behind them: once it is mirrored, the others would have been.
    scenario.client()?.ask(b"GET /in HTTP/1.1\r\n\r\n")?;
    let ledger = scenario.agent.wait_for(mirror_tests::scenario::PATIENCE, |books| books.mirrored >= 1)?;
    ensure!(ledger.seen == 1, "{ledger}");
    scenario.expect_at_shadow(direct + 1)
}

#[test]
fn addresses_narrow_what_is_mirrored() -> Result<()> {
    require_agent!();
    let stage = Stage::set(Weight::Light, Record::Raw)?;
    let cidr = format!("{}/128", stage.net.live.v6);
    let scenario = stage.with_agent(&["--address", &cidr])?;
    scenario.client()?.ask(GET)?;
    scenario.client_v6()?.ask(GET)?;
    scenario.client()?.ask(GET)?;
    let ledger = scenario.agent.wait_for(mirror_tests::scenario::PATIENCE, |books| books.mirrored >= 1)?;
    ensure!(ledger.seen == 1, "{ledger}");
    scenario.expect_at_shadow(1)
}

#[test]
fn shadow_that_is_a_captured_local_endpoint_is_refused() -> Result<()> {
    require_agent!();
    let stage = Stage::set(Weight::Light, Record::Count)?;
    let live = &stage.net.live;
    for url in [
        format!("http://{}:{PORT}", live.v4),
        format!("http://[{}]:{PORT}", live.v6),
        format!("http://[{}]:{PORT}", live.v4.to_ipv6_mapped()),
        format!("http://127.0.0.1:{PORT}"),
        format!("http://127.9.9.9:{PORT}"),
        format!("http://[::1]:{PORT}"),
        format!("http://[::ffff:127.0.0.1]:{PORT}"),
        format!("http://localhost:{PORT}"),
        format!("http://0.0.0.0:{PORT}"),
    ] {
        let ended = Agent::refuse(live, &Arguments::to_url(PORT, &url))?;
        ensure!(!ended.status.success(), "{url} was accepted");
        let named = [url.trim_start_matches("http://"), "127.0.0.1:8080", "[::1]:8080"];
        ensure!(named.iter().any(|name| ended.stderr.contains(name)), "{url} is not named: {}", ended.stderr);
        ensure!(live.attached_programs()? == 0, "programs stay attached after refusing {url}");
    }
    Ok(())
}

#[test]
fn local_shadow_on_another_port_is_accepted() -> Result<()> {
    require_agent!();
    let stage = Stage::set(Weight::Light, Record::Raw)?;
    let shadow = Server::start(&stage.net.live, 8081, Record::Raw)?;
    let at = SocketAddr::from(([127, 0, 0, 1], 8081));
    let agent = Agent::start(&stage.net.live, &Arguments::new(PORT, at))?;
    RawClient::connect(&stage.net.client, stage.net.live.at_v4(PORT))?.ask(GET)?;
    let ledger = agent.wait_for(mirror_tests::scenario::PATIENCE, |books| books.mirrored == 1)?;
    ensure!(ledger.seen == 1, "{ledger}");
    expect_requests(&shadow, 1)
}

#[test]
fn shadow_is_reached_over_ipv6_too() -> Result<()> {
    require_agent!();
    let stage = Stage::set(Weight::Light, Record::Raw)?;
    let agent = Agent::start(&stage.net.live, &Arguments::new(PORT, stage.net.shadow.at_v6(PORT)))?;
    RawClient::connect(&stage.net.client, stage.net.live.at_v6(PORT))?.ask(GET)?;
    let ledger = agent.wait_for(mirror_tests::scenario::PATIENCE, |books| books.mirrored == 1)?;
    ensure!(ledger.seen == 1, "{ledger}");
    expect_requests(&stage.shadow, 1)
}
