//! Enters: a directory. Leaves: in it, the captures of the corpus and what each proves.

use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;
use mirror_tests::corpus;

/// Writes the corpus of captures.
#[derive(Parser)]
struct Arguments {
    /// Where to; made if it is not there
    directory: PathBuf,
}

fn main() -> Result<()> {
    corpus::write(&Arguments::parse().directory)
}
