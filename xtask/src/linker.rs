//! Enters: the major version of a compiler's LLVM. Leaves: a bpf-linker that reads that compiler's bitcode.
//!
//! The linker is built once and kept in the user's cache, outside the target folder, so that `cargo clean` and a
//! second clone do not cost it again.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::{
    apt::{self, Mode, Need, Presence},
    child, workspace,
};

/// The release that is built. A newer one may need a newer compiler than the workspace asks for.
const VERSION: &str = "0.13.0";

/// The LLVM majors this release has a feature for.
const LLVM_MAJORS: [u32; 3] = [21, 22, 23];

/// How far a linker for one LLVM major is from being usable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LinkerState {
    /// It is there.
    Ready(PathBuf),
    /// LLVM's development files are under this folder; it can be built.
    Buildable(PathBuf),
    /// LLVM's development files can be installed.
    Installable,
    /// There is one on the search path that does not say which LLVM it has inside, and none can be built.
    Unproven(PathBuf),
    /// Nothing to be done here.
    Impossible,
}

impl LinkerState {
    /// Sorts by what it takes to make it usable.
    pub(crate) fn cost(&self) -> u8 {
        match self {
            Self::Ready(_) => 0,
            Self::Buildable(_) => 1,
            Self::Installable => 2,
            Self::Unproven(_) => 3,
            Self::Impossible => 4,
        }
    }
}

/// Looks what there is for this LLVM major.
pub(crate) fn state(major: u32) -> LinkerState {
    let on_path = workspace::find_program("bpf-linker");
    let buildable = LLVM_MAJORS.contains(&major);
    if let Some(cached) = cached(major).filter(|path| starts(path)) {
        LinkerState::Ready(cached)
    } else if let Some(path) = on_path.clone().filter(|path| linked_llvm_major(path) >= Some(major)) {
        LinkerState::Ready(path)
    } else if let Some(prefix) = llvm_prefix(major).filter(|_| buildable) {
        LinkerState::Buildable(prefix)
    } else if buildable && apt::candidate(&llvm_package(major)).is_some() {
        LinkerState::Installable
    } else if let Some(path) = on_path.filter(|path| starts(path) && linked_llvm_major(path).is_none()) {
        LinkerState::Unproven(path)
    } else {
        LinkerState::Impossible
    }
}

/// What must be installed to build a linker for this LLVM major.
pub(crate) fn needs(major: u32) -> Vec<Need> {
    let mut needs = vec![
        Need {
            package: "zlib1g-dev".to_owned(),
            why: "LLVM links against it",
            presence: Presence::File("/usr/include/zlib.h"),
        },
        Need {
            package: "g++".to_owned(),
            why: "LLVM is C++ and bpf-linker links its standard library",
            presence: Presence::Program("g++"),
        },
    ];
    if llvm_prefix(major).is_none() {
        let why = "bpf-linker is built on the LLVM of the compiler's major version";
        needs.insert(0, Need { package: llvm_package(major), why, presence: Presence::Package });
    }
    needs
}

/// Builds the linker into the cache, or says that it would.
pub(crate) fn build(major: u32, mode: Mode) -> Result<()> {
    let cached = cached(major).context("find a cache folder: neither XDG_CACHE_HOME nor HOME is set")?;
    let what = format!("bpf-linker {VERSION} for LLVM {major} into {}", cached.display());
    if mode == Mode::DryRun {
        println!("Would build {what}.");
        return Ok(());
    }
    println!("Building {what}: it turns the compiler's bitcode into an eBPF object. Once, about a minute.");
    let prefix = llvm_prefix(major).with_context(|| format!("find llvm-config of LLVM {major}"))?;
    let home = cached.parent().and_then(Path::parent).context("find the linker's folder in the cache")?;
    // Built beside its place and renamed: whoever looks at the cache sees a whole linker or none.
    let mut unfinished = home.as_os_str().to_owned();
    unfinished.push(format!(".unfinished-{}", std::process::id()));
    let unfinished = PathBuf::from(unfinished);
    fs::create_dir_all(&unfinished).with_context(|| format!("create {}", unfinished.display()))?;
    let installed = install(major, &prefix, &unfinished).and_then(|()| publish(&unfinished, home));
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished).with_context(|| format!("remove {}", unfinished.display()))?;
    }
    installed?;
    if !starts(&cached) {
        bail!("{} was built but does not start", cached.display());
    }
    Ok(())
}

/// The program beside LLVM that takes debug sections out of an object.
pub(crate) fn strip_program(major: u32) -> Option<PathBuf> {
    let beside = llvm_prefix(major).map(|prefix| prefix.join("bin/llvm-strip")).filter(|path| path.is_file());
    let versioned = || workspace::find_program(&format!("llvm-strip-{major}"));
    beside.or_else(versioned).or_else(|| workspace::find_program("llvm-strip"))
}

fn install(major: u32, prefix: &Path, root: &Path) -> Result<()> {
    let features = format!("llvm-{major}");
    let mut command = workspace::cargo(&["install", "bpf-linker", "--locked", "--no-default-features"])?;
    command.args(["--version", VERSION, "--features", &features, "--no-track", "--root"]).arg(root);
    command.env("LLVM_PREFIX", prefix).env("CARGO_TARGET_DIR", root.join("target"));
    child::run(&mut command)?;
    fs::remove_dir_all(root.join("target")).context("remove the linker's build folder")
}

fn publish(unfinished: &Path, home: &Path) -> Result<()> {
    if home.exists() {
        // A linker that no longer starts, for example because its LLVM was removed.
        fs::remove_dir_all(home).with_context(|| format!("remove {}", home.display()))?;
    }
    fs::rename(unfinished, home).with_context(|| format!("move the linker to {}", home.display()))
}

fn cached(major: u32) -> Option<PathBuf> {
    let name = format!("bpf-linker-{VERSION}-llvm-{major}-{}", env::consts::ARCH);
    Some(workspace::cache_dir()?.join(name).join("bin/bpf-linker"))
}

fn starts(linker: &Path) -> bool {
    linker.is_file() && child::answer(Command::new(linker).arg("--version")).is_some()
}

/// The root folder of an installed LLVM with development files, or `None` if this major is not there.
fn llvm_prefix(major: u32) -> Option<PathBuf> {
    let debian = PathBuf::from(format!("/usr/lib/llvm-{major}/bin/llvm-config"));
    let versioned = workspace::find_program(&format!("llvm-config-{major}"));
    let plain = workspace::find_program("llvm-config");
    [Some(debian), versioned, plain].into_iter().flatten().find_map(|config| {
        let version = child::answer(Command::new(&config).arg("--version"))?;
        let found: u32 = version.split('.').next()?.parse().ok()?;
        let prefix = child::answer(Command::new(&config).arg("--prefix"))?;
        (found == major).then(|| PathBuf::from(prefix.trim()))
    })
}

fn llvm_package(major: u32) -> String {
    format!("llvm-{major}-dev")
}

/// The LLVM major a linker is dynamically linked to, or `None` if it does not start or holds its LLVM inside.
fn linked_llvm_major(linker: &Path) -> Option<u32> {
    if !starts(linker) {
        return None;
    }
    parse_linked_llvm(&child::answer(Command::new("ldd").arg(linker))?)
}

/// Reads the output of `ldd`: `libLLVM.so.22.1` since LLVM 18, `libLLVM-17.so.1` before.
fn parse_linked_llvm(libraries: &str) -> Option<u32> {
    let (_, after) = libraries.split_once("libLLVM")?;
    let digits = after.trim_start_matches(|character: char| !character.is_ascii_digit());
    let end = digits.find(|character: char| !character.is_ascii_digit()).unwrap_or(digits.len());
    digits.get(..end)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::parse_linked_llvm;

    #[test]
    fn llvm_major_is_read_from_both_library_names() {
        assert_eq!(parse_linked_llvm("\tlibLLVM.so.22.1 => /usr/lib/libLLVM.so.22.1 (0x7f)\n"), Some(22));
        assert_eq!(parse_linked_llvm("\tlibLLVM-17.so.1 => /usr/lib/libLLVM-17.so.1 (0x7f)\n"), Some(17));
    }

    #[test]
    fn statically_linked_llvm_has_no_major() {
        assert_eq!(parse_linked_llvm("\tlibc.so.6 => /lib/libc.so.6 (0x7f)\n"), None);
    }
}
