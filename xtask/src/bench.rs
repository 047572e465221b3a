//! Enters: the bench's options. Leaves: the bench, in this process's place.

use std::ffi::OsString;

use anyhow::Result;

use crate::demo;

/// The chore: measures what the mirror costs.
pub(crate) fn run(args: &[OsString]) -> Result<()> {
    demo::launch("bench", args)
}
