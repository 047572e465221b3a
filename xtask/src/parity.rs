//! Enters: the options of the comparison with Wireshark. Leaves: the comparison, in this process's place.

use std::{ffi::OsString, os::unix::process::CommandExt as _, process::Command};

use anyhow::{Context as _, Result};

use crate::{
    apt::{self, Mode, Need, Presence},
    build::{self, Profile},
    child, workspace,
};

/// The chore: compares `inspect` with Wireshark over a directory of captures.
pub(crate) fn run(args: &[OsString]) -> Result<()> {
    apt::ensure(&needs(), Mode::Act)?;
    let agent = build::agent(Profile::Release)?;
    let package = ["build", "--release", "--locked", "--package", "mirror-tests", "--bin", "parity"];
    child::run(&mut workspace::cargo(&package)?)?;
    let path = workspace::target_dir()?.join("release/parity");
    let error = Command::new(&path).args(args).env("MIRROR_AGENT_BIN", agent).exec();
    Err(error).with_context(|| format!("start {}", path.display()))
}

/// What the comparison starts.
pub(crate) fn needs() -> [Need; 1] {
    let why = "Wireshark without a window, the judge of `inspect`";
    [Need { package: "tshark".to_owned(), why, presence: Presence::Program("tshark") }]
}
