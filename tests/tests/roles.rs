//! Enters: agents beside the live service, on its node, and on its loopback. Leaves: proof that each sees requests once.

use anyhow::{Result, ensure};
use mirror_tests::{
    agent::{Agent, Arguments},
    client::RawClient,
    require_agent,
    scenario::{PATIENCE, PORT, Stage, Weight, expect_requests},
    server::Record,
};

const GET: &[u8] = b"GET /in HTTP/1.1\r\nHost: live\r\n\r\n";

#[test]
fn host_side_of_a_pods_interface_gives_the_pods_requests() -> Result<()> {
    require_agent!();
    let stage = Stage::set(Weight::Light, Record::Raw)?;
    let shadow = format!("http://{}", stage.net.shadow.at_v4(PORT));
    let agent = Agent::start(&stage.net.hub, &Arguments::on("p2", PORT, &shadow))?;
    let mut client = RawClient::connect(&stage.net.client, stage.net.live.at_v4(PORT))?;
    for _ in 0..10 {
        client.ask(GET)?;
    }
    let books = agent.wait_for(PATIENCE, |books| books.mirrored == 10)?;
    ensure!(books.seen == 10, "{books}");
    expect_requests(&stage.shadow, 10)?;
    // What the pod itself asks of others on the same port is none of its requests.
    RawClient::connect(&stage.net.live, stage.net.shadow.at_v4(PORT))?.ask(GET)?;
    client.ask(GET)?;
    let books = agent.wait_for(PATIENCE, |books| books.mirrored == 11)?;
    ensure!(books.seen == 11, "{books}");
    Ok(())
}

#[test]
fn copies_to_a_shadow_on_the_same_node_and_port_are_not_mirrored_again() -> Result<()> {
    require_agent!();
    let stage = Stage::set(Weight::Light, Record::Raw)?;
    let shadow = format!("http://{}", stage.net.shadow.at_v4(PORT));
    let agent = Agent::start(&stage.net.hub, &Arguments::on("p2,p3", PORT, &shadow))?;
    let mut client = RawClient::connect(&stage.net.client, stage.net.live.at_v4(PORT))?;
    for _ in 0..10 {
        client.ask(GET)?;
    }
    let books = agent.wait_for(PATIENCE, |books| books.mirrored == 10 && books.pending == 0)?;
    // The probe, too, passed the hook; that it went where it was sent to is no reason to refuse the shadow.
    ensure!(books.seen == 11 && books.skipped_for("marked") == 1, "{books}");
    expect_requests(&stage.shadow, 10)?;
    ensure!(agent.metrics()?.sum("mirror_frames_own_total") > 0.0, "the copies passed the hook unnoticed");
    Ok(())
}

#[test]
fn loopback_gives_each_request_once() -> Result<()> {
    require_agent!();
    let stage = Stage::set(Weight::Light, Record::Raw)?;
    let shadow = format!("http://{}", stage.net.shadow.at_v4(PORT));
    let agent = Agent::start(&stage.net.live, &Arguments::on("lo", PORT, &shadow))?;
    let mut client = RawClient::connect(&stage.net.live, ([127, 0, 0, 1], PORT).into())?;
    for _ in 0..10 {
        client.ask(GET)?;
    }
    let books = agent.wait_for(PATIENCE, |books| books.mirrored == 10)?;
    ensure!(books.seen == 10, "{books}");
    expect_requests(&stage.shadow, 10)?;
    Ok(())
}

#[test]
fn nothing_is_seen_while_paused_and_connections_are_picked_up_after_it() -> Result<()> {
    require_agent!();
    let scenario = Stage::set(Weight::Light, Record::Raw)?.with_agent(&[])?;
    let agent = &scenario.agent;
    let mut client = scenario.client()?;
    client.ask(GET)?;
    agent.wait_for(PATIENCE, |books| books.mirrored == 1)?;

    agent.pause()?;
    for _ in 0..10 {
        client.ask(GET)?;
    }
    agent.resume()?;
    client.ask(GET)?;
    let books = agent.wait_for(PATIENCE, |books| books.mirrored == 2)?;
    ensure!(books.seen == 2 && books.all_lost() == 0, "{books}");
    scenario.expect_at_shadow(2)
}
