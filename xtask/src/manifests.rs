//! Enters: the manifests in `deploy`. Leaves: what the Kubernetes schemas do not allow in them.
//!
//! The schemas come with a Python package, so that nothing is asked of a cluster or of the network after the package
//! has been installed once, into a virtual environment below the target folder.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::{
    apt::{self, Mode, Need, Presence},
    child, workspace,
};

/// The validator and its release, which decides what the newest schemas are.
const PACKAGE: &str = "kubernetes-validate==1.37.0";

/// The Kubernetes releases that the manifests are held against: the newest and the oldest they are written for.
const RELEASES: [&str; 2] = ["1.37.0", "1.29.0"];

/// Checks every manifest strictly: a field that the schema does not know is an error.
pub(crate) fn run() -> Result<()> {
    let manifests = manifests(&workspace::root()?.join("deploy"))?;
    if manifests.is_empty() {
        bail!("there is no manifest in deploy");
    }
    let validator = validator()?;
    for release in RELEASES {
        let mut validate = Command::new(&validator);
        validate.current_dir(workspace::root()?);
        validate.args(["--strict", "--kubernetes-version", release]).args(&manifests);
        child::run(&mut validate)?;
    }
    Ok(())
}

/// The manifests below `dir`, in order.
fn manifests(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(manifests(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// The validator's program, installed if it is not there.
fn validator() -> Result<PathBuf> {
    let home = workspace::target_dir()?.join("kubernetes-validate");
    let program = home.join("bin/kubernetes-validate");
    // A virtual environment that was moved, or left by an installation that failed, does not start.
    if child::answer(Command::new(&program).arg("--version")).is_some() {
        return Ok(program);
    }
    println!("Installing {PACKAGE} with pip into {}: it holds the Kubernetes schemas.", home.display());
    if child::answer(Command::new("python3").args(["-c", "import ensurepip, venv"])).is_none() {
        apt::ensure(&[python()], Mode::Act)?;
    }
    child::run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&home))?;
    let quick = ["--quiet", "--disable-pip-version-check", "--timeout", "20", "--retries", "1"];
    let mut install = Command::new(home.join("bin/pip"));
    child::run(install.arg("install").args(quick).arg(PACKAGE)).context("install the validator")?;
    Ok(program)
}

fn python() -> Need {
    Need {
        package: "python3-venv".to_owned(),
        why: "the validator of the manifests is a Python package",
        presence: Presence::Package,
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::manifests;
    use crate::workspace;

    #[test]
    fn manifests_of_the_project_are_found_and_nothing_else_is() {
        let found = manifests(&workspace::root().unwrap().join("deploy")).unwrap();

        assert!(found.iter().any(|path| path.ends_with("deploy/daemonset.yaml")));
        assert!(found.iter().all(|path| path.extension() == Some(OsStr::new("yaml"))));
    }
}
