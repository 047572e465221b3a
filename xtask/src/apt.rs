//! Enters: packages that are needed and why. Leaves: the packages installed, or the line that installs them.

use std::{fmt::Write as _, path::Path, process::Command};

use anyhow::{Result, bail};

use crate::{child, workspace};

/// Something that must be on the machine.
#[derive(Clone, Debug)]
pub(crate) struct Need {
    /// The Debian package that brings it.
    pub(crate) package: String,
    /// What it is for, as the end of a sentence that starts with the package's name.
    pub(crate) why: &'static str,
    /// How to see that it is there, whoever put it there.
    pub(crate) presence: Presence,
}

/// How to see that something is on the machine.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Presence {
    /// A program of this name can be found.
    Program(&'static str),
    /// This file exists.
    File(&'static str),
    /// Only the package manager can tell.
    Package,
}

/// Whether to change the machine or only to say how it would be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Install, build, write.
    Act,
    /// Print the plan.
    DryRun,
}

/// Installs what is missing of `needs`, saying first what and why.
pub(crate) fn ensure(needs: &[Need], mode: Mode) -> Result<()> {
    let missing: Vec<&Need> = needs.iter().filter(|need| !is_present(need)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let mut list = String::new();
    for need in &missing {
        writeln!(list, "  {}: {}", need.package, need.why)?;
    }
    let names: Vec<&str> = missing.iter().map(|need| need.package.as_str()).collect();
    if !is_available() {
        bail!("this is missing, and there is no apt-get to install it (names are Debian's):\n{list}");
    }
    let line = format!("apt-get install --no-install-recommends {}", names.join(" "));
    if mode == Mode::DryRun {
        print!("Would install with apt-get:\n{list}");
        return Ok(());
    }
    if !workspace::is_root() {
        bail!("this is missing:\n{list}Only root can install it. Run as root:\n  {line}");
    }
    print!("Installing with apt-get:\n{list}");
    if names.iter().any(|name| candidate(name).is_none()) {
        refresh()?;
    }
    // --no-remove: a conflict must not cost the user a package.
    let options = ["install", "--yes", "--quiet", "--no-install-recommends", "--no-remove"];
    child::run(apt_get().args(options).args(&names))
}

/// Whether this machine has apt.
pub(crate) fn is_available() -> bool {
    workspace::find_program("apt-get").is_some()
}

/// Fetches the package lists.
pub(crate) fn refresh() -> Result<()> {
    println!("Fetching the package lists with apt-get update, because they lack a package.");
    child::run(apt_get().args(["update", "--quiet"]))
}

/// The version that apt would install, or `None` if it knows no such package.
pub(crate) fn candidate(package: &str) -> Option<String> {
    parse_candidate(&child::answer(apt_cache().args(["policy", package]))?)
}

/// The major version of the LLVM library among everything that `package` depends on.
pub(crate) fn llvm_major_below(package: &str) -> Option<u32> {
    let arguments = ["depends", "--recurse", "--important", package];
    parse_llvm_dependency(&child::answer(apt_cache().args(arguments))?)
}

fn is_present(need: &Need) -> bool {
    match need.presence {
        Presence::Program(name) => workspace::find_program(name).is_some(),
        Presence::File(path) => Path::new(path).exists(),
        Presence::Package => {
            let query = ["--show", "--showformat=${Status}", &need.package];
            child::answer(Command::new("dpkg-query").args(query))
                .is_some_and(|status| status.ends_with(" installed"))
        }
    }
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command
}

/// `apt-cache` with its answers in the language this program reads.
fn apt_cache() -> Command {
    let mut command = Command::new("apt-cache");
    command.env("LC_ALL", "C");
    command
}

fn parse_candidate(policy: &str) -> Option<String> {
    let line = policy.lines().find_map(|line| line.trim().strip_prefix("Candidate:"))?;
    let version = line.trim();
    (version != "(none)").then(|| version.to_owned())
}

fn parse_llvm_dependency(depends: &str) -> Option<u32> {
    depends.split_whitespace().find_map(|word| word.strip_prefix("libllvm")?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::{parse_candidate, parse_llvm_dependency};

    #[test]
    fn candidate_is_read_from_policy() {
        let policy =
            "rustc-web:\n  Installed: (none)\n  Candidate: 1.96.0+dfsg1-1~deb12u2\n  Version table:\n";

        assert_eq!(parse_candidate(policy).as_deref(), Some("1.96.0+dfsg1-1~deb12u2"));
    }

    #[test]
    fn package_without_version_or_unknown_has_no_candidate() {
        assert_eq!(parse_candidate("rustc:\n  Installed: (none)\n  Candidate: (none)\n"), None);
        assert_eq!(parse_candidate(""), None);
    }

    #[test]
    fn llvm_major_is_read_from_dependencies() {
        let depends = "rustc-web\n  Depends: libc6\nlibstd-rust-web-1.96\n  Depends: libllvm22\nlibllvm22\n";

        assert_eq!(parse_llvm_dependency(depends), Some(22));
    }
}
