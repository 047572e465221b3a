//! Enters: people who shop, over the network. Leaves: proof that the shop answers each of them, and counts what its bugs did.

use std::time::Duration;

use anyhow::{Result, ensure};
use mirror_tests::{
    load::{Pace, Plan, Running},
    netns::Topology,
    require_hosts,
    scenario::{PORT, Turn, Weight},
    shop::{Bug, Bugs, Character, SERVICE_TIME, Shop, Shopper, Version},
};

#[test]
fn shop_answers_every_request_in_its_time_and_counts_its_bugs() -> Result<()> {
    require_hosts!();
    let _turn = Turn::take(Weight::Light)?;
    let net = Topology::new()?;
    let character = Character { version: Version::Two, bugs: Bugs::NONE.with(Bug::TypeChange), seed: 1 };
    let shop = Shop::open(&net.live, PORT, character)?;
    let plan = Plan::new(net.live.at_v4(PORT), Pace::PerSecond(300.0), Duration::from_secs(2), 32);

    let load = Running::start(&net.client, plan, Shopper::new(1))?;
    let progress = std::sync::Arc::clone(&load.progress);
    let report = load.finish()?;

    ensure!(report.answered == 600 && report.failed + report.unfinished == 0, "{report:?}");
    ensure!(shop.requests() == 600, "the shop counts {}", shop.requests());
    // 8 % of the requests are for the endpoint with the bug.
    let changed = shop.changed_by(Bug::TypeChange);
    ensure!((20..80).contains(&changed), "{changed} answers were changed");
    ensure!(shop.changed_by(Bug::Rounding) == 0, "a bug that was not asked for");
    // Above all: a machine that is busy makes it longer, nothing makes it shorter.
    let median = progress.latency.snapshot().percentile(50.0);
    println!("median of the service times {median:?}");
    ensure!(median >= SERVICE_TIME.mul_f64(0.95), "{median:?}");
    Ok(())
}
