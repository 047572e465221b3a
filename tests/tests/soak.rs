//! Enters: twenty seconds of mixed traffic over bad wires. Leaves: proof that the books are exact; `cargo xtask soak` is longer.

use std::time::Duration;

use anyhow::{Result, ensure};
use mirror_tests::{
    require_agent,
    rng::Rng,
    scenario::{Turn, Weight},
    soak::{self, Options},
};

#[test]
fn books_are_exact_whatever_happens_to_wires_and_shadow() -> Result<()> {
    require_agent!();
    let _turn = Turn::take(Weight::Light)?;
    let seed = Rng::any_seed();
    println!("seed {seed}");
    // Without pauses there is no excuse: live's count has to be the agent's.
    let options =
        Options { duration: Duration::from_secs(20), seed, clients: 6, loss_percent: 2.0, pauses: false };

    let outcome = soak::run(&options, &mut |line| println!("{line}"))?;

    for figure in outcome.figures() {
        println!("{figure}");
    }
    let failed: Vec<_> =
        outcome.checks().into_iter().filter(|(holds, _)| !holds).map(|(_, what)| what).collect();
    ensure!(failed.is_empty(), "did not hold: {failed:#?}");
    Ok(())
}
