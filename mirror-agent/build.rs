//! Enters: the eBPF object that `cargo xtask build` made. Leaves: a copy for the agent to embed, if it is current.

use std::{
    env,
    error::Error,
    fs,
    path::{Path, PathBuf},
    time::SystemTime,
};

fn main() {
    if let Err(error) = prepare() {
        println!("cargo::error={error}");
    }
}

fn prepare() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    if env::var_os("CARGO_FEATURE_RUNTIME").is_none() {
        return Ok(());
    }
    let out_dir = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    let agent = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").ok_or("CARGO_MANIFEST_DIR is not set")?);
    let workspace = agent.parent().ok_or("the agent's folder has no parent")?;

    println!("cargo::rerun-if-env-changed={OVERRIDE}");
    let object = match env::var_os(OVERRIDE) {
        Some(path) => PathBuf::from(path),
        None => current_object(&out_dir, workspace)?,
    };
    println!("cargo::rerun-if-changed={}", object.display());
    let copied = fs::copy(&object, out_dir.join("mirror-ebpf.o"));
    copied.map_err(|error| format!("cannot read the eBPF object {}: {error}", object.display()))?;
    Ok(())
}

/// Names an object built elsewhere; whoever sets it answers for its age.
const OVERRIDE: &str = "MIRROR_EBPF_OBJECT";

/// Where `cargo xtask build` puts the object, from the target folder.
const PLACE: &str = "bpf/mirror-ebpf.o";

/// What the object is made of.
const SOURCES: [&str; 2] = ["mirror-ebpf/src", "mirror-common/src"];

/// The object, if it is there and no source is newer.
fn current_object(out_dir: &Path, workspace: &Path) -> Result<PathBuf, Box<dyn Error>> {
    for sources in SOURCES {
        println!("cargo::rerun-if-changed={}", workspace.join(sources).display());
    }
    // OUT_DIR lies some folders below the target folder; how many depends on cargo's version and on --target.
    let default = workspace.join("target");
    let candidates = out_dir.ancestors().chain([default.as_path()]).map(|dir| dir.join(PLACE));
    let object = candidates.into_iter().find(|path| path.is_file());
    let object = object.ok_or("the eBPF object is missing: run `cargo xtask build`")?;

    let built = fs::metadata(&object)?.modified()?;
    for sources in SOURCES {
        if let Some(newer) = newer_file(&workspace.join(sources), built)? {
            let newer = newer.display();
            return Err(format!("{newer} is newer than the eBPF object: run `cargo xtask build`").into());
        }
    }
    Ok(object)
}

/// A file below `dir` that was changed after `built`.
fn newer_file(dir: &Path, built: SystemTime) -> Result<Option<PathBuf>, Box<dyn Error>> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            if let Some(newer) = newer_file(&path, built)? {
                return Ok(Some(newer));
            }
        } else if entry.metadata()?.modified()? > built {
            return Ok(Some(path));
        }
    }
    Ok(None)
}
