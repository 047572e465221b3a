//! Enters: two versions of a shop. Leaves: equal ones are not called different, and a big bug is called by its name.
//!
//! `cargo xtask verdict-bench` is longer, and looks for small bugs too.

use anyhow::{Context, Result, ensure};
use mirror_tests::{
    require_agent,
    scenario::{Turn, Weight},
    shop::Bug,
    verdict::{self, Case, Options, State},
};

/// Seconds rather than minutes.
const SHORT: Options = Options { requests: 3_000, per_second: 300.0, seed: 1 };

#[test]
fn equal_versions_are_never_failed() -> Result<()> {
    require_agent!();
    let _turn = Turn::take(Weight::Heavy)?;
    let run = verdict::run(Case::EqualControlled, &SHORT, &mut |line| println!("{line}"))?;
    ensure!(run.said.iter().all(|(_, state)| *state != State::Fail), "{:?}", run.said);
    let convicted = run.told.fields.iter().find(|field| field.is_convicted);
    ensure!(convicted.is_none(), "{convicted:?}");
    let [(live, live_sum), (shadow, shadow_sum)] = run.followed;
    println!("$.total of {live} and {shadow} answers, in all {live_sum} and {shadow_sum}");
    ensure!(live > 100 && shadow == live, "{:?}", run.followed);
    // The last bit of some of them is noise.
    ensure!((shadow_sum / live_sum - 1.0).abs() < 1e-6, "{:?}", run.followed);
    Ok(())
}

#[test]
fn big_bug_is_found_and_ranked_first() -> Result<()> {
    require_agent!();
    let _turn = Turn::take(Weight::Heavy)?;
    let run = verdict::run(Case::BuggyControlled, &SHORT, &mut |line| println!("{line}"))?;
    ensure!(run.told.state == State::Fail, "{:?}", run.told);
    let first = run.told.clusters.first().context("no cluster")?;
    // The bug that meets most exchanges by far.
    let is_its = first.paths.iter().any(|path| Bug::TypeChange.is_at(&first.endpoint, path));
    ensure!(is_its, "{first:?}");
    Ok(())
}
