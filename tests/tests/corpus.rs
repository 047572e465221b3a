//! Enters: the corpus of captures. Leaves: whether `inspect` tells what the generator states, and what Wireshark says.

use std::{path::Path, process::Command};

use anyhow::{Context as _, Result};
use mirror_tests::{
    agent,
    corpus::{self, Exchange},
    parity::{self, verdicts::Verdicts, wireshark},
};

#[test]
fn inspect_tells_what_the_generator_states() -> Result<()> {
    let Some(agent) = agent::program() else {
        println!(
            "SKIPPED: no mirror-agent was built (cargo xtask build), nor does MIRROR_AGENT_BIN name one"
        );
        return Ok(());
    };
    let directory = tempfile::tempdir()?;
    corpus::write(directory.path())?;
    let mut failures = String::new();
    for case in corpus::cases() {
        let told = inspect(&agent, &directory.path().join(case.file_name()))?;
        if told != case.expected {
            failures += &format!("{}: {}\n", case.name, case.proves);
            told.iter().for_each(|exchange| failures += &format!("  told:   {exchange}\n"));
            case.expected.iter().for_each(|exchange| failures += &format!("  stated: {exchange}\n"));
        }
    }
    assert!(failures.is_empty(), "{failures}");
    Ok(())
}

#[test]
fn inspect_agrees_with_wireshark_or_there_is_a_verdict() -> Result<()> {
    let Some(agent) = agent::program() else {
        println!(
            "SKIPPED: no mirror-agent was built (cargo xtask build), nor does MIRROR_AGENT_BIN name one"
        );
        return Ok(());
    };
    if !wireshark::is_there() {
        println!("SKIPPED: no tshark here; cargo xtask test installs it where it may");
        return Ok(());
    }
    let directory = tempfile::tempdir()?;
    corpus::write(directory.path())?;
    let verdicts = Verdicts::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("parity/verdicts.json"))?;
    let mut told = Vec::new();
    let summary = parity::run(directory.path(), &agent, &verdicts, &mut told)?;
    assert!(summary.is_clean(), "{}", String::from_utf8_lossy(&told));
    assert_eq!(summary.files, corpus::cases().len() as u64);
    // Of nearly a thousand messages, what is left out is a tenth: continuations, and what a capture cuts short.
    let told = summary.requests + summary.responses;
    assert!(told > 900 && summary.not_compared < told / 10, "{summary:?}");
    Ok(())
}

fn inspect(agent: &Path, file: &Path) -> Result<Vec<Exchange>> {
    let output = Command::new(agent).arg("inspect").arg(file).output().context("start the agent")?;
    let text = String::from_utf8(output.stdout)?;
    text.lines().map(Exchange::from_line).collect()
}
