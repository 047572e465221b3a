//! Enters: connections that pass two interfaces, or each way another one. Leaves: proof that each request is mirrored
//! once.

use std::{
    fs,
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use mirror_tests::{
    agent::{Agent, Arguments},
    client::RawClient,
    digest::Difference,
    frames::{Conversation, Envelope, TAG_Q, flag},
    load::{Pace, Plan, Reuse, Running},
    metrics::Ledger,
    netns::{FilterRule, FilterTool, Topology},
    require_agent,
    scenario::{PATIENCE, PORT, Scenario, Stage, Weight, originals},
    server::Record,
    traffic::{Distinct, Mix, Sent},
};

const GET: &[u8] = b"GET /twice HTTP/1.1\r\nHost: live\r\n\r\n";
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const OBSERVED_TWICE: &str = "mirror_flows_observed_twice_total";
const ONE_SIDED: &str = "mirror_interfaces_one_sided";
/// The node's interface to the client, and that of the pod with the live service.
const UPLINK_AND_VETH: &str = "p1:node,p2:pod";
/// An address of no host, and a port of no service.
const VIRTUAL: ([u8; 4], u16) = ([10, 99, 0, 1], 8081);

#[test]
fn connections_that_are_bridged_from_one_interface_to_another_are_mirrored_once() -> Result<()> {
    require_agent!();
    let scenario = on_the_node(Record::Digest, &[])?;
    mirror(&scenario, scenario.net.live.at_v4(PORT))?;
    ensure!(scenario.agent.metrics()?.sum(OBSERVED_TWICE) == 0.0, "both have the same addresses");
    Ok(())
}

#[test]
fn connections_whose_server_address_is_translated_in_between_are_mirrored_once() -> Result<()> {
    require_agent!();
    let scenario = on_the_node(Record::Digest, &["--port", &VIRTUAL.1.to_string()])?;
    let net = &scenario.net;
    let virtual_address = SocketAddr::from(VIRTUAL);
    let _rule = route_through_the_node(net, virtual_address)?;
    let ledger = mirror(&scenario, virtual_address)?;
    let observed = scenario.agent.metrics()?.sum(OBSERVED_TWICE);
    ensure!(observed == scenario.live.connections() as f64, "{observed} observed twice; {ledger}");
    Ok(())
}

#[test]
fn connections_older_than_the_agent_are_mirrored_once_though_translated() -> Result<()> {
    require_agent!();
    let stage = Stage::set(Weight::Light, Record::Raw)?;
    let virtual_address = SocketAddr::from(VIRTUAL);
    let _rule = route_through_the_node(&stage.net, virtual_address)?;
    let mut clients = Vec::new();
    for _ in 0..10 {
        let mut client = RawClient::connect(&stage.net.client, virtual_address)?;
        client.ask(GET)?;
        clients.push(client);
    }
    let scenario = with_agent_on_the_node(stage, &["--port", &VIRTUAL.1.to_string()])?;
    for _ in 0..5 {
        for client in &mut clients {
            client.ask(GET)?;
        }
    }
    let ledger = scenario.agent.wait_for(PATIENCE, |books| books.seen >= 50 && books.pending == 0)?;
    ensure!(ledger.seen == 50 && ledger.mirrored == 50, "{ledger}");
    scenario.expect_at_shadow(50)
}

#[test]
fn equal_addresses_in_two_vlans_of_one_interface_are_two_connections() -> Result<()> {
    require_agent!();
    let scenario = on_the_node(Record::Raw, &[])?;
    let net = &scenario.net;
    let mut talks = [7, 8, 0]
        .into_iter()
        .map(|vlan| {
            let tags = if vlan == 0 { vec![] } else { vec![(TAG_Q, vlan)] };
            let envelope = Envelope { tags, ..Envelope::default() };
            let client = SocketAddr::from(([10, 77, 0, 1], 20_000));
            let server = SocketAddr::from(([10, 77, 0, 99], PORT));
            Conversation::between((&net.client, client), (&net.live, server), envelope, 1000)
        })
        .collect::<Result<Vec<_>>>()?;
    for talk in &mut talks {
        talk.open()?;
    }
    for talk in &mut talks {
        talk.client_says(flag::ACK | flag::PSH, GET)?;
        talk.server_says(flag::ACK | flag::PSH, ANSWER)?;
    }
    let ledger = scenario.agent.wait_for(PATIENCE, |books| books.seen >= 3 && books.pending == 0)?;
    ensure!(ledger.seen == 3 && ledger.mirrored == 3, "{ledger}");
    scenario.expect_at_shadow(3)?;
    ensure!(originals(&scenario.shadow.arrived())? == [GET; 3]);
    Ok(())
}

#[test]
fn requests_whose_responses_take_another_way_are_mirrored() -> Result<()> {
    require_agent!();
    let stage = Stage::set(Weight::Light, Record::Digest)?;
    answer_by_another_way(&stage.net)?;
    let scenario = stage.with_agent(&["--methods", "all"])?;
    mirror(&scenario, scenario.net.live.at_v4(PORT))?;
    let metrics = scenario.agent.metrics()?;
    ensure!(metrics.value("mirror_frames_captured_total", "side", "server") == 0.0, "responses were seen");
    ensure!(metrics.value("mirror_stream_gap_bytes_total", "side", "client") == 0.0);
    Ok(())
}

#[test]
fn interface_that_shows_responses_only_is_told_of() -> Result<()> {
    require_agent!();
    let stage = Stage::set(Weight::Light, Record::Digest)?;
    answer_by_another_way(&stage.net)?;
    let shadow = format!("http://{}", stage.net.shadow.at_v4(PORT));
    let arguments = Arguments::on("eth0,alt0:node", PORT, &shadow);
    let agent = Agent::start(&stage.net.live, &arguments)?;
    ensure!(agent.metrics()?.sum(ONE_SIDED) == 0.0);
    let plan = Plan::new(stage.net.live.at_v4(PORT), Pace::PerSecond(20.0), Duration::from_secs(12), 4);
    let report = Running::start(&stage.net.client, plan, Distinct::new("get", Mix::Safe, None))?.finish()?;
    ensure!(report.is_clean(), "live requests failed: {report:?}");
    let deadline = Instant::now() + PATIENCE;
    while agent.metrics()?.sum(ONE_SIDED) != 1.0 {
        ensure!(Instant::now() < deadline, "nothing is said of alt0");
        thread::sleep(Duration::from_millis(100));
    }
    let live = stage.live.requests();
    let ledger = agent.wait_for(PATIENCE, |books| books.seen >= live && books.pending == 0)?;
    ensure!(ledger.seen == live && ledger.mirrored == live, "live counts {live}; {ledger}");
    let log = agent.stop()?.stderr;
    let warnings = log.lines().filter(|line| line.contains("requests bypass the hook"));
    let named = warnings.map(|line| line.contains("alt0") && !line.contains("eth0")).collect::<Vec<_>>();
    ensure!(named == [true], "{log}");
    Ok(())
}

/// An agent on the node, which sees what is for the live service at the uplink and at the service's own interface.
fn on_the_node(record: Record, options: &[&str]) -> Result<Scenario> {
    with_agent_on_the_node(Stage::set(Weight::Light, record)?, options)
}

fn with_agent_on_the_node(stage: Stage, options: &[&str]) -> Result<Scenario> {
    let shadow = format!("http://{}", stage.net.shadow.at_v4(PORT));
    let arguments = Arguments::on(UPLINK_AND_VETH, PORT, &shadow).with(&["--methods", "all"]).with(options);
    let agent = Agent::start(&stage.net.hub, &arguments)?;
    Ok(stage.around(agent))
}

/// Lets the node translate `address` to the live service's, and take all packets of those connections.
fn route_through_the_node(net: &Topology, address: SocketAddr) -> Result<FilterRule> {
    net.hub.within(|| {
        fs::write("/proc/sys/net/ipv4/ip_forward", "1")?;
        // The way is longer than it need be, which is the point of it.
        for interface in ["all", "br0"] {
            fs::write(format!("/proc/sys/net/ipv4/conf/{interface}/send_redirects"), "0")?;
        }
        Ok(())
    })?;
    net.client.ip(&format!("route add {}/32 via 10.77.0.254\n", address.ip()))?;
    net.live.ip(&format!("route add {}/32 via 10.77.0.254\n", net.client.v4))?;
    let rule = format!(
        "-p tcp -d {} --dport {} -j DNAT --to-destination {}",
        address.ip(),
        address.port(),
        net.live.at_v4(PORT)
    );
    net.hub.filter(FilterTool::V4, "nat", "PREROUTING", &rule)
}

/// Lets the live service's packets to the client take a link of their own, `alt0`.
fn answer_by_another_way(net: &Topology) -> Result<()> {
    let (live, client) = (&net.live, &net.client);
    live.ip(&format!(
        "link add alt0 address 02:77:00:00:01:02 type veth peer name alt0 address 02:77:00:00:01:01 netns {}\n\
         link set alt0 up\n",
        client.name()
    ))?;
    client.ip("link set alt0 up\n")?;
    client.within(|| {
        for interface in ["all", "alt0"] {
            fs::write(format!("/proc/sys/net/ipv4/conf/{interface}/rp_filter"), "0")?;
        }
        Ok(())
    })?;
    live.ip(&format!(
        "route add {0}/32 dev alt0\nneigh replace {0} lladdr 02:77:00:00:01:01 dev alt0 nud permanent\n",
        client.v4
    ))
}

/// Mirrors requests of all shapes to `target`; expects each at the shadow once, unaltered, and books that balance.
fn mirror(scenario: &Scenario, target: SocketAddr) -> Result<Ledger> {
    let sent = Sent::default();
    let loads = [("post", Mix::Post, 200.0), ("get", Mix::Safe, 200.0), ("big", Mix::Large, 10.0)];
    let running = loads.into_iter().map(|(name, mix, pace)| {
        let plan = Plan::new(target, Pace::PerSecond(pace), Duration::from_secs(2), 8);
        Running::start(&scenario.net.client, plan, Distinct::new(name, mix, Some(&sent)))
    });
    let mut running = running.collect::<Result<Vec<_>>>()?;
    let mut plan = Plan::new(target, Pace::PerSecond(100.0), Duration::from_secs(2), 4);
    plan.reuse = Reuse::PerRequest;
    let source = Distinct::new("close", Mix::GetAndClose, Some(&sent));
    running.push(Running::start(&scenario.net.client, plan, source)?);
    for load in running {
        let report = load.finish()?;
        ensure!(report.is_clean(), "live requests failed: {report:?}");
    }
    let ledger = scenario.settle()?;
    ensure!(ledger.mirrored == ledger.seen && ledger.is_balanced(), "{ledger}");
    let metrics = scenario.agent.metrics()?;
    let names = ["stream_conflicts", "segments_out_of_window", "segments_refused"];
    for name in names.map(|name| format!("mirror_{name}_total")) {
        ensure!(metrics.sum(&name) == 0.0, "{name} {}", metrics.sum(&name));
    }
    ensure!(metrics.sum("mirror_flows_evicted_total") == 0.0);
    let difference = Difference::between(&sent.digests(), &scenario.shadow.digests());
    ensure!(difference.is_none() && scenario.shadow.unmarked() == 0, "{difference:?}; {ledger}");
    Ok(ledger)
}
