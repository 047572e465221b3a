//! Enters: how many frames, a seed, capture files. Leaves: whether kernel program and file parser agree on them.

use std::{env, path::PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::{
    build::{self, Profile},
    child, setup, workspace,
};

/// The chore: holds the kernel program against the parser of capture files, over many frames.
pub(crate) fn run(frames: u64, seed: Option<u64>, captures: &[PathBuf]) -> Result<()> {
    if !workspace::is_root() {
        bail!("this needs root: it loads eBPF programs and makes network namespaces");
    }
    setup::scene()?;
    build::agent(Profile::Release)?;
    let mut cargo = workspace::cargo(&["test", "--release", "--locked", "--package", "mirror-tests"])?;
    cargo.args(["--test", "agreement", "--", "--nocapture"]);
    cargo.env("MIRROR_AGREE_FRAMES", frames.to_string());
    if let Some(seed) = seed {
        cargo.env("MIRROR_AGREE_SEED", seed.to_string());
    }
    if !captures.is_empty() {
        // The tests run in their own folder.
        let here = env::current_dir().context("find the current folder")?;
        let absolute = captures.iter().map(|path| here.join(path));
        let joined = env::join_paths(absolute).context("a path with a colon cannot be handed on")?;
        cargo.env("MIRROR_AGREE_CAPTURES", joined);
    }
    child::run(&mut cargo)
}
