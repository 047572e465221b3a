//! Enters: the compilers on the machine. Leaves: the one that can build `core` for the kernel's target.
//!
//! `core` must be built from source, and source and compiler must match exactly: only a compiler with its own
//! sources next to it will do.

use std::{
    cmp::Reverse,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{child, linker::LinkerState, workspace};

/// Where a compiler came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Origin {
    /// The distribution, or somebody by hand.
    System,
    /// A rustup toolchain.
    Rustup,
}

/// A compiler found on the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Compiler {
    /// Its root folder.
    pub(crate) sysroot: PathBuf,
    /// Where it came from.
    pub(crate) origin: Origin,
    /// What it says about itself.
    pub(crate) facts: Facts,
    /// Whether the sources of its libraries lie next to it.
    pub(crate) has_sources: bool,
}

impl Compiler {
    /// The compiler's executable.
    pub(crate) fn rustc(&self) -> PathBuf {
        self.sysroot.join("bin/rustc")
    }

    /// The cargo that goes with it, or `None` if the running one should be used: a distribution's cargo may be
    /// from another release than its compiler.
    pub(crate) fn cargo(&self) -> Option<PathBuf> {
        let cargo = self.sysroot.join("bin/cargo");
        (self.origin == Origin::Rustup && cargo.is_file()).then_some(cargo)
    }

    /// One line for the user.
    pub(crate) fn describe(&self) -> String {
        let Facts { release, llvm_major, .. } = &self.facts;
        format!("rustc {}.{} in {} (LLVM {llvm_major})", release.0, release.1, self.sysroot.display())
    }
}

/// What `rustc -vV` says, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    /// Major and minor version.
    pub(crate) release: (u32, u32),
    /// The major version of its LLVM.
    pub(crate) llvm_major: u32,
}

impl Facts {
    /// Reads the output of `rustc -vV`.
    pub(crate) fn parse(verbose_version: &str) -> Option<Self> {
        let field = |name: &str| {
            verbose_version
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(": ").map(str::trim))
        };
        let release = parse_release(field("release")?)?;
        let llvm_major = field("LLVM version")?.split('.').next()?.parse().ok()?;
        Some(Self { release, llvm_major })
    }
}

/// Major and minor version at the start of a version of any kind (`1.96.0+dfsg1-1`, `1.97.0-nightly`, `1.95`).
pub(crate) fn parse_release(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split(|character: char| !character.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// The lowest version the workspace builds with.
pub(crate) fn oldest() -> (u32, u32) {
    parse_release(workspace::OLDEST_COMPILER).unwrap_or((1, 0))
}

/// The best of the compilers and the state of a linker for it, or `None` if none will do.
///
/// The one that costs least to make usable comes first, then rustup before the system, then the order of
/// `compilers`.
pub(crate) fn choose(
    compilers: &[Compiler],
    oldest: (u32, u32),
    linker: impl Fn(u32) -> LinkerState,
) -> Option<(&Compiler, LinkerState)> {
    compilers
        .iter()
        .filter(|compiler| compiler.has_sources && compiler.facts.release >= oldest)
        .map(|compiler| (compiler, linker(compiler.facts.llvm_major)))
        .filter(|(_, state)| *state != LinkerState::Impossible)
        .min_by_key(|(compiler, state)| (state.cost(), Reverse(compiler.origin)))
}

/// Why a compiler cannot be used, for the message that tells what to install.
pub(crate) fn objection(compiler: &Compiler, oldest: (u32, u32), linker: &LinkerState) -> Option<String> {
    if compiler.facts.release < oldest {
        Some(format!("is older than {}.{}", oldest.0, oldest.1))
    } else if !compiler.has_sources {
        Some("lacks its sources (component rust-src)".to_owned())
    } else if *linker == LinkerState::Impossible {
        let major = compiler.facts.llvm_major;
        Some(format!(
            "has no bpf-linker for LLVM {major}, and there is no llvm-{major}-dev to build one with"
        ))
    } else {
        None
    }
}

/// Asks every compiler that can be found: the ones on the search path, which puts the active toolchain first,
/// then the other toolchains of rustup.
pub(crate) fn installed() -> Vec<Compiler> {
    let toolchains = rustup_toolchains();
    let on_path = workspace::search_path().into_iter().map(|dir| dir.join("rustc"));
    let in_rustup = list(&toolchains).into_iter().map(|toolchain| toolchain.join("bin/rustc"));

    let mut compilers: Vec<Compiler> = Vec::new();
    for rustc in on_path.chain(in_rustup).filter(|path| path.is_file()) {
        // A proxy of rustup answers for the toolchain it stands for.
        let Some(sysroot) = child::answer(Command::new(&rustc).args(["--print", "sysroot"])) else {
            continue;
        };
        let sysroot = PathBuf::from(sysroot.trim());
        if compilers.iter().any(|known| known.sysroot == sysroot) {
            continue;
        }
        let version = child::answer(Command::new(sysroot.join("bin/rustc")).arg("-vV"));
        let Some(facts) = version.as_deref().and_then(Facts::parse) else { continue };
        let origin = if sysroot.starts_with(&toolchains) { Origin::Rustup } else { Origin::System };
        let has_sources = sysroot.join("lib/rustlib/src/rust/library/core/src/lib.rs").is_file();
        compilers.push(Compiler { sysroot, origin, facts, has_sources });
    }
    compilers
}

fn rustup_toolchains() -> PathBuf {
    let home = env::var_os("RUSTUP_HOME").map(PathBuf::from);
    home.or_else(|| Some(workspace::home()?.join(".rustup"))).unwrap_or_default().join("toolchains")
}

fn list(dir: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = fs::read_dir(dir)
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default();
    paths.sort();
    paths
}

#[cfg(test)]
mod tests {
    use super::{Compiler, Facts, Origin, choose, objection, parse_release};
    use crate::linker::LinkerState;

    const VERBOSE: &str = "rustc 1.97.0-nightly (aaaaaaaaa 2026-05-01)\nbinary: rustc\nhost: x86_64-unknown-linux-gnu\n\
                           release: 1.97.0-nightly\nLLVM version: 22.1.4\n";

    #[test]
    fn facts_are_read_from_verbose_version() {
        assert_eq!(Facts::parse(VERBOSE), Some(Facts { release: (1, 97), llvm_major: 22 }));
    }

    #[test]
    fn output_without_llvm_version_gives_no_facts() {
        assert_eq!(Facts::parse("rustc 1.97.0\nrelease: 1.97.0\n"), None);
        assert_eq!(Facts::parse(""), None);
    }

    #[test]
    fn release_is_read_from_versions_of_any_kind() {
        assert_eq!(parse_release("1.96.0+dfsg1-1~deb12u2"), Some((1, 96)));
        assert_eq!(parse_release("1.97.0-nightly"), Some((1, 97)));
        assert_eq!(parse_release("1.95"), Some((1, 95)));
        assert_eq!(parse_release("nightly"), None);
    }

    #[test]
    fn compiler_without_sources_is_never_chosen() {
        let compilers = [compiler("stable", Origin::Rustup, 95, 22, Sources::Absent)];

        assert_eq!(choose(&compilers, (1, 95), ready), None);
    }

    #[test]
    fn compiler_older_than_workspace_is_never_chosen() {
        let compilers = [compiler("usr", Origin::System, 85, 19, Sources::Present)];

        assert_eq!(choose(&compilers, (1, 95), ready), None);
    }

    #[test]
    fn rustup_comes_before_system_at_equal_cost() {
        let compilers = [
            compiler("usr", Origin::System, 96, 22, Sources::Present),
            compiler("nightly", Origin::Rustup, 97, 22, Sources::Present),
        ];

        assert_eq!(chosen(&compilers, ready), Some("nightly"));
    }

    #[test]
    fn first_of_two_equal_toolchains_wins() {
        let compilers = [
            compiler("active", Origin::Rustup, 95, 22, Sources::Present),
            compiler("nightly", Origin::Rustup, 97, 22, Sources::Present),
        ];

        assert_eq!(chosen(&compilers, ready), Some("active"));
    }

    #[test]
    fn ready_linker_beats_rustup_toolchain_that_needs_one_built() {
        let compilers = [
            compiler("nightly", Origin::Rustup, 97, 23, Sources::Present),
            compiler("usr", Origin::System, 96, 22, Sources::Present),
        ];
        let linker = |major| if major == 22 { ready(major) } else { LinkerState::Installable };

        assert_eq!(chosen(&compilers, linker), Some("usr"));
    }

    #[test]
    fn toolchain_whose_llvm_cannot_be_had_is_passed_over() {
        let compilers = [
            compiler("nightly", Origin::Rustup, 99, 24, Sources::Present),
            compiler("usr", Origin::System, 96, 22, Sources::Present),
        ];
        let linker = |major| if major == 22 { LinkerState::Installable } else { LinkerState::Impossible };

        assert_eq!(chosen(&compilers, linker), Some("usr"));
        let why = objection(&compilers[0], (1, 95), &LinkerState::Impossible);
        assert!(why.is_some_and(|why| why.contains("llvm-24-dev")));
    }

    enum Sources {
        Present,
        Absent,
    }

    fn compiler(sysroot: &str, origin: Origin, minor: u32, llvm_major: u32, sources: Sources) -> Compiler {
        let facts = Facts { release: (1, minor), llvm_major };
        Compiler { sysroot: sysroot.into(), origin, facts, has_sources: matches!(sources, Sources::Present) }
    }

    fn ready(_major: u32) -> LinkerState {
        LinkerState::Ready("bpf-linker".into())
    }

    fn chosen(compilers: &[Compiler], linker: impl Fn(u32) -> LinkerState) -> Option<&str> {
        choose(compilers, (1, 95), linker).and_then(|(compiler, _)| compiler.sysroot.to_str())
    }
}
