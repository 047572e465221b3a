//! Enters: blocks of YAML. Leaves: what the agent has to say against them.
//!
//! A piece is put into a whole file that is right without it, in the place of the keys that it has itself.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, bail, ensure};
use mirror_tests::agent;
use serde_json::Value;

/// A file that is right: keys of the whole, of its experiment, and of the target.
const WHOLE: &str = "capture: { interfaces: [eth0] }";
const EXPERIMENT: [&str; 3] = ["name: example", "expires: never", "ports: [8080]"];
const TARGET: [&str; 2] = ["name: shadow", "url: http://shadow:8080"];

/// Checks a block as its tag says it is to be read.
pub(crate) fn check(tag: &str, text: &str, folder: &Path) -> Result<()> {
    let file = match tag.split(' ').next().unwrap_or_default() {
        "" => text.to_owned(),
        "top" => whole(text, "", ""),
        "experiment" => whole("", text, ""),
        "target" => whole("", "", text),
        "theirs" => return parse(text),
        other => bail!("no test knows YAML of the kind {other:?}"),
    };
    let path = folder.join("config.yaml");
    fs::write(&path, &file)?;
    let program = agent::program().context("no mirror-agent was built")?;
    let output = Command::new(program).args(["check", "--config"]).arg(&path).output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    // All errors are told at once: where there is none but this, the file is right for an agent that has the feature.
    let lacks_feature = |line: &str| line.contains("built with --features");
    let is_right = output.status.success() || !said.is_empty() && said.lines().all(lacks_feature);
    ensure!(is_right, "{said}\n{file}");
    Ok(())
}

/// Whether it is YAML at all.
fn parse(text: &str) -> Result<()> {
    let found: Vec<Value> = serde_saphyr::from_multiple(text)?;
    ensure!(!found.is_empty(), "there is nothing in it");
    Ok(())
}

/// Whether it is JSON: one value, or one a line.
pub(crate) fn parse_json(text: &str) -> Result<()> {
    let values =
        serde_json::Deserializer::from_str(text).into_iter::<Value>().collect::<Result<Vec<_>, _>>()?;
    ensure!(!values.is_empty(), "there is nothing in it");
    Ok(())
}

fn whole(top: &str, experiment: &str, target: &str) -> String {
    let mut file = lines(&[WHOLE], top, "");
    if has(top, "experiments") {
        return file;
    }
    file += "experiments:\n  -\n";
    file += &lines(&EXPERIMENT, experiment, "    ");
    if !has(experiment, "targets") {
        file += "    targets:\n      -\n";
        file += &lines(&TARGET, target, "        ");
    }
    file
}

/// Lines that are there anyway, but those of which the piece has the key; then the piece.
fn lines(usual: &[&str], piece: &str, indent: &str) -> String {
    let usual = usual.iter().copied().filter(|line| !has(piece, line.split(':').next().unwrap_or_default()));
    usual.chain(piece.lines()).map(|line| format!("{indent}{line}\n")).collect()
}

fn has(piece: &str, key: &str) -> bool {
    piece.lines().any(|line| line.strip_prefix(key).is_some_and(|rest| rest.starts_with(':')))
}

#[test]
fn piece_takes_the_place_of_the_keys_that_it_has() {
    assert_eq!(
        whole("", "ports: [80]\nsample: { percent: 1 }\n", "").lines().skip(2).collect::<Vec<_>>(),
        [
            "  -",
            "    name: example",
            "    expires: never",
            "    ports: [80]",
            "    sample: { percent: 1 }",
            "    targets:",
            "      -",
            "        name: shadow",
            "        url: http://shadow:8080"
        ]
    );
}
