//! Enters: the sources. Leaves: `target/bpf/mirror-ebpf.o`, and the agent that carries it.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::SystemTime,
};

use anyhow::{Context as _, Result, bail};

use crate::{
    apt::Mode,
    child, linker,
    setup::{self, Toolchain},
    workspace,
};

/// How the agent is optimised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Profile {
    /// `target/debug`.
    Debug,
    /// `target/release`.
    Release,
}

/// Whether the kernel program says which packets it leaves out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KernelLog {
    /// It only counts.
    Off,
    /// It logs, at a cost.
    On,
}

/// What the agent takes from the machine on which it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Linkage {
    /// The C library and what belongs to it.
    Dynamic,
    /// Nothing: all of it is in the executable, for images without a C library.
    Static,
}

/// The chore: builds the object and the agent, and says where the agent is.
pub(crate) fn run(profile: Profile, log: KernelLog, linkage: Linkage, features: &[String]) -> Result<()> {
    let agent = agent_with(profile, log, linkage, features)?;
    println!("Built {}", agent.display());
    Ok(())
}

/// Builds the object and the agent as it is tested, with what is deployed that tests drive; the path of the agent's
/// executable.
pub(crate) fn agent(profile: Profile) -> Result<PathBuf> {
    agent_with(profile, KernelLog::Off, Linkage::Dynamic, &[TESTED_FEATURE.to_owned()])
}

/// The feature of the agent that its tests need; Kafka's are in a workspace of their own.
pub(crate) const TESTED_FEATURE: &str = "kube";

fn agent_with(profile: Profile, log: KernelLog, linkage: Linkage, features: &[String]) -> Result<PathBuf> {
    object(log)?;
    let mut cargo = workspace::cargo(&["build", "--locked", "--package", "mirror-agent"])?;
    let mut place = workspace::target_dir()?;
    if linkage == Linkage::Static {
        // Said for a target, or macros and build scripts, which are libraries to be loaded, would be asked for it too.
        let target = host_target()?;
        cargo.args(["--target", &target]).env("RUSTFLAGS", "-Ctarget-feature=+crt-static");
        cargo.env_remove("CARGO_ENCODED_RUSTFLAGS");
        place.push(target);
    }
    if profile == Profile::Release {
        cargo.arg("--release");
    }
    if !features.is_empty() {
        cargo.args(["--features", &features.join(",")]);
    }
    child::run(&mut cargo)?;
    let dir = match profile {
        Profile::Debug => "debug",
        Profile::Release => "release",
    };
    Ok(place.join(dir).join("mirror-agent"))
}

/// The target of this machine, as the compiler calls it.
fn host_target() -> Result<String> {
    let compiler = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let told = child::answer(Command::new(compiler).args(["--print", "host-tuple"]));
    Ok(told.context("ask the compiler for its target")?.trim().to_owned())
}

/// Builds the eBPF object, making the toolchain usable first.
pub(crate) fn object(log: KernelLog) -> Result<()> {
    let toolchain = setup::toolchain(Mode::Act)?.context("make the eBPF toolchain usable")?;
    let started = SystemTime::now();
    let target = if cfg!(target_endian = "big") { "bpfeb-unknown-none" } else { "bpfel-unknown-none" };
    let build_dir = workspace::target_dir()?.join("bpf-build");
    child::run(&mut compile(&toolchain, target, &build_dir, log)?)?;

    let linked = build_dir.join(target).join("release/mirror-ebpf");
    let stripped = build_dir.join("mirror-ebpf.stripped");
    match linker::strip_program(toolchain.compiler.facts.llvm_major) {
        // The kernel reads BTF; DWARF is four fifths of the object and nobody reads it.
        Some(strip) => child::run(Command::new(strip).arg("-g").arg(&linked).arg("-o").arg(&stripped))?,
        None => {
            fs::copy(&linked, &stripped).with_context(|| format!("copy {}", linked.display()))?;
        }
    }
    publish(&stripped, started)
}

/// Puts the object where the agent's build script finds it, dated to the start of its build: a source that is
/// newer than the object was not in it.
fn publish(stripped: &Path, started: SystemTime) -> Result<()> {
    let object = fs::read(stripped).with_context(|| format!("read {}", stripped.display()))?;
    if !is_elf_with_btf(&object) {
        bail!("{} is not an ELF object with BTF: is there a program in it?", stripped.display());
    }
    let place = workspace::ebpf_object()?;
    if fs::read(&place).is_ok_and(|published| published == object) && is_newer_than_sources(&place)? {
        // Untouched, so that cargo does not build the agent anew.
        return Ok(());
    }
    let dir = place.parent().context("find the object's folder")?;
    fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
    let file = fs::File::options().write(true).open(stripped);
    file.and_then(|file| file.set_modified(started))
        .with_context(|| format!("date {}", stripped.display()))?;
    fs::rename(stripped, &place).with_context(|| format!("move the object to {}", place.display()))
}

fn compile(toolchain: &Toolchain, target: &str, build_dir: &Path, log: KernelLog) -> Result<Command> {
    let mut cargo = workspace::cargo(&["build", "--release", "--locked", "--package", "mirror-ebpf"])?;
    if let Some(own) = toolchain.compiler.cargo() {
        cargo = copy_with_program(&cargo, &own);
    }
    cargo.args(["-Z", "build-std=core", "--target", target]);
    if log == KernelLog::On {
        cargo.args(["--features", "log"]);
    }
    cargo.env("CARGO_TARGET_DIR", build_dir).env("RUSTC", toolchain.compiler.rustc());
    // For this call only: build scripts of the agent's crates look for it.
    cargo.env("RUSTC_BOOTSTRAP", "1");
    // A wrapper or rustup's choice of a toolchain belongs to the compiler of the host.
    cargo.env_remove("RUSTC_WRAPPER").env_remove("RUSTC_WORKSPACE_WRAPPER").env_remove("RUSTUP_TOOLCHAIN");

    let mut linker = OsString::from("-Clinker=");
    linker.push(&toolchain.linker);
    // BTF needs both: debug information from the compiler, and the linker told to make BTF of it.
    let architecture = format!("--cfg=bpf_target_arch=\"{}\"", bpf_target_arch(env::consts::ARCH));
    let flags = [linker, "-Cdebuginfo=2".into(), "-Clink-arg=--btf".into(), architecture.into()];
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join(OsStr::new("\u{1f}")));
    Ok(cargo)
}

fn copy_with_program(command: &Command, program: &Path) -> Command {
    let mut copy = Command::new(program);
    copy.args(command.get_args());
    if let Some(dir) = command.get_current_dir() {
        copy.current_dir(dir);
    }
    copy
}

/// What aya-ebpf calls the architecture whose registers a program may read.
fn bpf_target_arch(arch: &str) -> &str {
    if arch.starts_with("riscv64") { "riscv64" } else { arch }
}

/// Whether an object carries type information: the section's name, on its own or as the end of `.rel.BTF`, stands in
/// the table of names.
fn is_elf_with_btf(object: &[u8]) -> bool {
    object.starts_with(b"\x7fELF") && object.windows(5).any(|bytes| bytes == b".BTF\0")
}

fn is_newer_than_sources(object: &Path) -> Result<bool> {
    let built = modified(object)?;
    let mut dirs: Vec<PathBuf> = ["mirror-ebpf/src", "mirror-common/src"]
        .iter()
        .map(|dir| Ok(workspace::root()?.join(dir)))
        .collect::<Result<_>>()?;
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).with_context(|| format!("list {}", dir.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                dirs.push(path);
            } else if modified(&path)? > built {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

fn modified(path: &Path) -> Result<SystemTime> {
    let modified = fs::metadata(path).and_then(|facts| facts.modified());
    modified.with_context(|| format!("read the time of {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::is_elf_with_btf;

    #[test]
    fn object_with_btf_is_recognised_by_its_section_name() {
        assert!(is_elf_with_btf(b"\x7fELF....\0.text\0.rel.BTF\0.BTF.ext\0"));
    }

    #[test]
    fn object_with_btf_extension_alone_is_refused() {
        assert!(!is_elf_with_btf(b"\x7fELF....\0.text\0.BTF.ext\0"));
        assert!(!is_elf_with_btf(b"MZ\0.BTF\0"));
    }
}
