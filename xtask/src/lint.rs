//! Enters: the sources. Leaves: everything that a reviewer should not have to look for.

use anyhow::{Result, bail};

use crate::{build, child, fuzz, manifests, prometheus, tidy, workspace};

/// The chore: runs every check, or those in whose names `only` stands, also after one has failed, and ends with a count.
pub(crate) fn run(only: Option<String>) -> Result<()> {
    if only.is_none() {
        // The agent embeds the object, so that even its lints need one.
        build::object(build::KernelLog::Off)?;
    }

    let mut report = Report { only: only.unwrap_or_default(), ..Report::default() };
    report.check("formatting", || cargo(&["fmt", "--all", "--check"], None));
    report.check("formatting of the fuzz targets", || {
        let manifest = fuzz::manifest()?;
        cargo(&["fmt", "--check", "--manifest-path", &manifest.to_string_lossy()], None)
    });
    report.check("house rules", tidy::run);
    report.check("lints", || {
        cargo(&["clippy", "--locked", "--workspace", "--all-targets", "--", "-Dwarnings"], None)
    });
    report.check("lints of what is deployed, with its features", || {
        let agent = ["clippy", "--locked", "--package", "mirror-agent", "--all-targets"];
        cargo(&[&agent[..], &["--features", DEPLOYED_FEATURES, "--", "-Dwarnings"]].concat(), None)
    });
    for (what, features) in [
        ("purity: the pipeline builds without the runtime", ""),
        ("the reader of capture files builds with the pipeline alone", "captures"),
        ("the reader of configuration files builds with the pipeline alone", "config"),
    ] {
        report.check(what, || {
            let library =
                ["clippy", "--locked", "--package", "mirror-agent", "--lib", "--no-default-features"];
            cargo(&[&library[..], &["--features", features, "--", "-Dwarnings"]].concat(), None)
        });
    }
    report.check("documentation", || {
        let arguments = ["doc", "--locked", "--workspace", "--no-deps", "--document-private-items"];
        cargo(&arguments, Some(("RUSTDOCFLAGS", "-Dwarnings")))
    });
    if workspace::find_program("cargo-deny").is_some() {
        report.check("dependencies", || cargo(&["deny", "check", "bans", "licenses", "sources"], None));
    } else {
        report.skip("dependencies", "cargo-deny is not installed: cargo install --locked cargo-deny");
    }
    report.check("manifests", manifests::run);
    report.check("alerts and dashboards", prometheus::run);
    report.end()
}

/// What the image is built with beside the defaults.
const DEPLOYED_FEATURES: &str = "kafka,kube";

#[derive(Default)]
struct Report {
    /// What stands in the names of the checks that are run.
    only: String,
    passed: usize,
    failed: Vec<&'static str>,
    skipped: usize,
}

impl Report {
    fn check(&mut self, name: &'static str, check: impl FnOnce() -> Result<()>) {
        if !name.contains(&self.only) {
            return;
        }
        println!("lint: {name}");
        match check() {
            Ok(()) => self.passed += 1,
            Err(error) => {
                eprintln!("lint: {name}: {error:#}");
                self.failed.push(name);
            }
        }
    }

    fn skip(&mut self, name: &'static str, why: &str) {
        if !name.contains(&self.only) {
            return;
        }
        println!("lint: {name}: SKIPPED: {why}");
        self.skipped += 1;
    }

    fn end(self) -> Result<()> {
        println!("\n{} passed, {} failed, {} skipped", self.passed, self.failed.len(), self.skipped);
        if self.passed + self.failed.len() + self.skipped == 0 {
            bail!("there is no check `{}`", self.only);
        }
        if !self.failed.is_empty() {
            bail!("these checks failed: {}", self.failed.join("; "));
        }
        Ok(())
    }
}

fn cargo(arguments: &[&str], environment: Option<(&str, &str)>) -> Result<()> {
    let mut command = workspace::cargo(arguments)?;
    command.envs(environment);
    child::run(&mut command)
}
