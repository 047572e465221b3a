//! Enters: segments lost before the hook, lost after it, and doubled. Leaves: each request at the shadow once, whole.

use std::time::Duration;

use anyhow::{Result, ensure};
use mirror_tests::{
    digest::Difference,
    load::{Pace, Plan, Running},
    netns::{FilterRule, FilterTool, Topology},
    require_agent,
    scenario::{PATIENCE, PORT, Scenario, Weight},
    server::Record,
    traffic::{Distinct, Mix, Sent},
};

#[test]
fn loss_before_the_hook_alters_nothing() -> Result<()> {
    require_agent!();
    mirror_through(|net| both(|tool| net.client.filter(tool, "filter", "OUTPUT", &lose(""))))
}

#[test]
fn loss_on_the_wire_alters_nothing() -> Result<()> {
    require_agent!();
    mirror_through(|net| {
        // Only what goes to live: the agent's own SYNs would wait for a second to be repeated, too long to connect.
        both(|tool| match tool {
            FilterTool::V4 => net.filter_wire(tool, &lose(&format!("-d {}", net.live.v4))),
            FilterTool::V6 => net.filter_wire(tool, &lose(&format!("-d {}", net.live.v6))),
        })
    })
}

#[test]
fn loss_after_the_hook_repeats_nothing() -> Result<()> {
    require_agent!();
    mirror_through(|net| both(|tool| net.live.filter(tool, "filter", "INPUT", &lose(""))))
}

#[test]
fn what_is_sent_again_after_a_pause_is_not_mirrored_again() -> Result<()> {
    require_agent!();
    const GET: &[u8] = b"GET /pause HTTP/1.1\r\nHost: live\r\n\r\n";
    let scenario = Scenario::start(Weight::Light, &[])?;
    let mut client = scenario.client()?;
    client.ask(GET)?;
    scenario.agent.wait_for(PATIENCE, |books| books.mirrored == 1)?;
    let drop_all = format!("-p tcp --dport {PORT} -j DROP");
    let rule = scenario.net.live.filter(FilterTool::V4, "filter", "INPUT", &drop_all)?;
    client.send(GET)?;
    scenario.agent.wait_for(PATIENCE, |books| books.mirrored == 2)?;

    scenario.agent.pause()?;
    scenario.agent.resume()?;
    drop(rule);
    client.read_response(false)?;

    client.ask(GET)?;
    scenario.agent.wait_for(PATIENCE, |books| books.mirrored == 3)?;
    scenario.expect_at_shadow(3)?;
    ensure!(scenario.live.requests() == 3, "{} at live", scenario.live.requests());
    Ok(())
}

#[test]
fn doubled_segments_are_replayed_once() -> Result<()> {
    require_agent!();
    mirror_through(|net| {
        let rule = |gateway: String| format!("-p tcp --dport {PORT} -j TEE --gateway {gateway}");
        Ok(vec![
            net.client.filter(FilterTool::V4, "mangle", "POSTROUTING", &rule(net.live.v4.to_string()))?,
            net.client.filter(FilterTool::V6, "mangle", "POSTROUTING", &rule(net.live.v6.to_string()))?,
        ])
    })
}

#[test]
fn loss_on_the_way_back_alters_nothing() -> Result<()> {
    require_agent!();
    let rule = format!("-p tcp --sport {PORT} -m statistic --mode random --probability 0.03 -j DROP");
    mirror_through(|net| both(|tool| net.client.filter(tool, "filter", "INPUT", &rule)))
}

#[test]
fn loss_between_agent_and_shadow_is_repaired_by_the_connection() -> Result<()> {
    require_agent!();
    // Not the SYN: its retransmission comes after a second, which is the patience for a connection to open.
    mirror_through(|net| Ok(vec![net.shadow.filter(FilterTool::V4, "filter", "INPUT", &lose("! --syn"))?]))
}

/// A rule that loses three in a hundred segments to the live port, of those that match.
fn lose(matching: &str) -> String {
    format!("-p tcp --dport {PORT} {matching} -m statistic --mode random --probability 0.03 -j DROP")
}

/// The same rule for both families.
fn both(rule: impl Fn(FilterTool) -> Result<FilterRule>) -> Result<Vec<FilterRule>> {
    Ok(vec![rule(FilterTool::V4)?, rule(FilterTool::V6)?])
}

/// Mirrors a mix of small and large requests while `disturb` is at work; expects each at the shadow once, unaltered.
fn mirror_through(disturb: impl Fn(&Topology) -> Result<Vec<FilterRule>>) -> Result<()> {
    // What comes late while the machine is busy is to come all the same.
    let patient = ["--methods", "all", "--queue-timeout", "60s"];
    let scenario = Scenario::with_record(Weight::Light, &patient, Record::Digest)?;
    let net = &scenario.net;
    let sent = Sent::default();
    {
        let rules = disturb(net)?;
        let plan = |target| Plan::new(target, Pace::PerSecond(300.0), Duration::from_secs(3), 16);
        let loads = [
            (net.live.at_v4(PORT), "v4", Mix::Post),
            (net.live.at_v6(PORT), "v6", Mix::Safe),
            (net.live.at_v4(PORT), "big", Mix::Large),
        ];
        let running = loads
            .into_iter()
            .map(|(target, name, mix)| {
                let mut plan = plan(target);
                if mix == Mix::Large {
                    plan.pace = Pace::PerSecond(10.0);
                }
                Running::start(&net.client, plan, Distinct::new(name, mix, Some(&sent)))
            })
            .collect::<Result<Vec<_>>>()?;
        for load in running {
            let report = load.finish()?;
            ensure!(report.is_clean(), "live requests failed: {report:?}");
        }
        for rule in &rules {
            ensure!(rule.packets()? > 0, "{rule:?} met no packet: nothing was disturbed");
        }
    }
    let ledger = scenario.settle()?;
    ensure!(ledger.mirrored == ledger.seen, "{ledger}");
    let difference = Difference::between(&sent.digests(), &scenario.shadow.digests());
    ensure!(difference.is_none() && scenario.shadow.unmarked() == 0, "{difference:?}; {ledger}");
    Ok(())
}
