//! Enters: the soak's options. Leaves: the soak, in this process's place.

use std::ffi::OsString;

use anyhow::Result;

use crate::demo;

/// The chore: mirrors mixed traffic over bad wires for as long as one likes, and balances the books.
pub(crate) fn run(args: &[OsString]) -> Result<()> {
    demo::launch("soak", args)
}
