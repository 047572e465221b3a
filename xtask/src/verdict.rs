//! Enters: the options of the verdict bench. Leaves: the bench, in this process's place.

use std::ffi::OsString;

use anyhow::Result;

use crate::demo;

/// The chore: seeds bugs and noise, and measures how well the mirror tells them apart.
pub(crate) fn run(args: &[OsString]) -> Result<()> {
    demo::launch("verdict-bench", args)
}
