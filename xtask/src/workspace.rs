//! Enters: the environment that cargo gives its children. Leaves: where the workspace and its parts are.

use std::{
    env,
    ffi::OsStr,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

/// The lowest compiler the workspace builds with, as `Cargo.toml` says it.
pub(crate) const OLDEST_COMPILER: &str = env!("CARGO_PKG_RUST_VERSION");

/// The folder of the workspace.
pub(crate) fn root() -> Result<PathBuf> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().map(Path::to_path_buf).context("find the workspace above the xtask crate")
}

/// The folder that all builds go to. It is handed to every cargo call, so that a setting elsewhere cannot
/// make two chores disagree about it.
pub(crate) fn target_dir() -> Result<PathBuf> {
    let root = root()?;
    Ok(match env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => root.join(dir),
        None => root.join("target"),
    })
}

/// Where `cargo xtask build` leaves the eBPF object; the agent's build script looks here.
pub(crate) fn ebpf_object() -> Result<PathBuf> {
    Ok(target_dir()?.join("bpf/mirror-ebpf.o"))
}

/// A cargo call in the workspace, by the cargo that started this program.
pub(crate) fn cargo(arguments: &[&str]) -> Result<Command> {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root()?).args(arguments).env("CARGO_TARGET_DIR", target_dir()?);
    Ok(command)
}

/// Whether this program may do what only root may.
pub(crate) fn is_root() -> bool {
    // The owner of /proc/self is the effective user of this process.
    std::fs::metadata("/proc/self").is_ok_and(|itself| itself.uid() == 0)
}

/// The first file of this name on the search path. The folders of the system's own programs are looked
/// through too: an ordinary user's path often lacks them.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    search_path().into_iter().map(|dir| dir.join(name)).find(|path| path.is_file())
}

/// The folders that hold programs, each once.
pub(crate) fn search_path() -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut dirs: Vec<PathBuf> = Vec::new();
    let system = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
    for dir in env::split_paths(&path).chain(system.iter().map(PathBuf::from)) {
        if dir.is_absolute() && !dirs.contains(&dir) {
            dirs.push(dir);
        }
    }
    dirs
}

/// The user's home folder.
pub(crate) fn home() -> Option<PathBuf> {
    env::var_os("HOME").filter(|home| home.as_os_str() != OsStr::new("")).map(PathBuf::from)
}

/// The folder for what is costly to have and belongs to no clone; `None` where the user has no home.
pub(crate) fn cache_dir() -> Option<PathBuf> {
    let absolute = |dir: &PathBuf| dir.is_absolute();
    let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(absolute);
    Some(cache.or_else(|| Some(home()?.join(".cache")))?.join("mirror"))
}
