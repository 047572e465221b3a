//! Enters: the demo's options. Leaves: the demo, in this process's place.

use std::{ffi::OsString, os::unix::process::CommandExt as _};

use anyhow::{Context as _, Result, bail};

use crate::{
    build::{self, Profile},
    child, setup, workspace,
};

/// The chore: mirrors real requests between network namespaces and shows the live table.
pub(crate) fn run(args: &[OsString]) -> Result<()> {
    launch("demo", args)
}

/// Builds the agent and a program of the test crate, and becomes that program: signals reach it and its exit
/// status is ours without anyone in between.
pub(crate) fn launch(program: &str, args: &[OsString]) -> Result<()> {
    if !workspace::is_root() {
        bail!("the {program} needs root: it makes network namespaces and loads eBPF programs");
    }
    setup::scene()?;
    let agent = build::agent(Profile::Release)?;
    let package = ["build", "--release", "--locked", "--package", "mirror-tests", "--bin", program];
    child::run(&mut workspace::cargo(&package)?)?;

    let path = workspace::target_dir()?.join("release").join(program);
    let error = std::process::Command::new(&path).args(args).env("MIRROR_AGENT_BIN", agent).exec();
    Err(error).with_context(|| format!("start {}", path.display()))
}
