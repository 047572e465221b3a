//! Enters: nothing. Leaves: captures made by hand, each with what it proves and the exchanges it holds.
//!
//! Everything is deterministic: the same bytes each time, on every machine.

mod captures;
mod container;
mod evasive;
mod expected;
mod framing;
mod link;
mod odd;
mod overlays;
mod script;
mod semantics;
mod transport;

use std::{fs, path::Path};

use anyhow::{Context as _, Result};

pub use expected::{Content, Exchange, Told};

/// One capture.
#[derive(Debug)]
pub struct Case {
    /// Name of its file, without the ending.
    pub name: &'static str,
    /// What it proves, a sentence.
    pub proves: &'static str,
    /// The capture file.
    pub file: Vec<u8>,
    /// The exchanges in it, in the order of their first bytes.
    pub expected: Vec<Exchange>,
}

/// All cases.
#[must_use]
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    cases.extend(transport::cases());
    cases.extend(framing::cases());
    cases.extend(semantics::cases());
    cases.extend(odd::cases());
    cases.extend(evasive::cases());
    cases.extend(captures::cases());
    cases.extend(overlays::cases());
    cases
}

impl Case {
    /// Name of its file.
    #[must_use]
    pub fn file_name(&self) -> String {
        let is_next_generation = self.file.starts_with(b"\x0a\x0d\x0d\x0a");
        format!("{}.{}", self.name, if is_next_generation { "pcapng" } else { "pcap" })
    }
}

/// Writes all cases, and a README that says what each proves, into `directory`, which is made.
///
/// # Errors
///
/// The directory cannot be made or written to.
pub fn write(directory: &Path) -> Result<()> {
    fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))?;
    for case in cases() {
        let path = directory.join(case.file_name());
        fs::write(&path, &case.file).with_context(|| format!("write {}", path.display()))?;
    }
    let path = directory.join("README.md");
    fs::write(&path, readme()).with_context(|| format!("write {}", path.display()))
}

/// What each case proves, as a page.
#[must_use]
pub fn readme() -> String {
    let mut page = "# The corpus\n\n\
         Captures made by `tests/src/corpus`; `cargo run -p mirror-tests --bin corpus -- DIR` writes them with this\n\
         page into `DIR`. A test holds `mirror-agent inspect` against the exchanges that the generator states,\n\
         and against Wireshark, with `tests/parity/verdicts.json` where Wireshark is wrong.\n\n\
         | capture | what it proves |\n| --- | --- |\n"
        .to_owned();
    page.extend(cases().iter().map(|case| format!("| `{}` | {} |\n", case.file_name(), case.proves)));
    page
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_unique_and_files_are_the_same_each_time() {
        let (first, second) = (cases(), cases());
        let names: HashSet<_> = first.iter().map(|case| case.name).collect();
        assert_eq!(names.len(), first.len());
        assert!(first.iter().zip(&second).all(|(a, b)| a.file == b.file && a.expected == b.expected));
    }

    #[test]
    fn page_in_the_repository_is_that_of_the_generator() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/README.md");
        assert_eq!(fs::read_to_string(path).unwrap(), readme(), "write it with `--bin corpus`");
    }
}
