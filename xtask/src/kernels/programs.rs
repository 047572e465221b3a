//! Enters: the sources. Leaves: the agent and the tests as programs that need nothing of the machine they run on.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::{
    build::{self, KernelLog},
    child, workspace,
};

/// What is taken along.
#[derive(Debug)]
pub(crate) struct Programs {
    /// The agent.
    pub(crate) agent: PathBuf,
    /// The eBPF object that it carries, for the tests that load it themselves.
    pub(crate) object: PathBuf,
    /// The tests.
    pub(crate) tests: Vec<Test>,
}

/// A program of tests.
#[derive(Clone, Debug)]
pub(crate) struct Test {
    /// Its name, as cargo has it.
    pub(crate) name: String,
    /// The file.
    pub(crate) path: PathBuf,
    /// What it is started with.
    pub(crate) arguments: &'static [&'static str],
}

/// The one target: the kernels' packages are of the same.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Arguments of programs whose tests are not all meant; the others run all of theirs.
const ARGUMENTS: [(&str, &[&str]); 4] = [
    // The pure part of the agent is the same on every kernel.
    ("mirror_agent", &["io::capture", "io::check"]),
    // Emulated, a packet costs what it costs to emulate.
    ("classifier", &["--skip", "cost_of_a_packet_is_printed"]),
    // These hold the agent against the clock, here and below.
    (
        "pods",
        &[
            "--skip",
            "pods_of_both_families_are_followed_by_both_addresses",
            "--skip",
            "pods_of_ipv6_alone_are_followed_however_they_are_wired",
            "--skip",
            "an_experiment_goes_with_its_pod_from_node_to_node",
        ],
    ),
    ("steering", &["--skip", "a_pause_of_one_experiment_is_felt_within_100_ms"]),
];

/// Programs that are left out where none is named, as they would say the same on every kernel: what they are about lies
/// behind the capture.
const BEHIND_THE_CAPTURE: [&str; 17] = [
    "config",
    "control",
    "corpus",
    "documents",
    "fleet",
    "judging",
    "logs",
    "manifest",
    "matching",
    "page",
    "policy",
    "prometheus",
    "rewrite",
    "sessions",
    "shop",
    "targets",
    "telling",
];

/// Likewise, as they hold the agent against the clock, and an emulated processor keeps no pace; or against the memory that it
/// takes as it is shipped, which is not as it is built here.
const ABOUT_FIGURES: [&str; 3] = ["comparing_load", "footprint", "guard"];

/// What is not run where no program is named, and why: a line each.
pub(crate) fn left_out() -> Vec<String> {
    let filters = ARGUMENTS.iter().map(|(name, arguments)| format!("of {name}: {}", arguments.join(" ")));
    [
        format!("the same on every kernel: {}", BEHIND_THE_CAPTURE.join(", ")),
        format!("about figures of a real processor: {}", ABOUT_FIGURES.join(", ")),
    ]
    .into_iter()
    .chain(filters)
    .collect()
}

/// Builds them; `only` names the test programs that are wanted, none means all that are about the kernel.
pub(crate) fn build(only: &[String]) -> Result<Programs> {
    build::object(KernelLog::Off)?;
    // How a pod's interface is found is the kernel's business, too.
    let features = ["--features", "mirror-agent/kube"];
    let all = |arguments: &[&str]| cargo(&[arguments, &features[..]].concat());
    all(&["build", "--package", "mirror-agent", "--bin", "mirror-agent"])?;
    let mut tests = all(&["test", "--no-run", "--package", "mirror-agent", "--lib"])?;
    tests.extend(all(&["test", "--no-run", "--package", "mirror-tests", "--test", "*"])?);
    if let Some(unknown) = only.iter().find(|name| !tests.iter().any(|test| test.name == **name)) {
        let names: Vec<&str> = tests.iter().map(|test| test.name.as_str()).collect();
        bail!("there is no test program {unknown}; there are {}", names.join(", "));
    }
    // Cargo names them as they come out of the compiler.
    tests.sort_by(|one, other| one.name.cmp(&other.name));
    tests.retain(|test| is_wanted(&test.name, only));
    let agent = target_dir()?.join(TARGET).join("release/mirror-agent");
    Ok(Programs { agent, object: workspace::ebpf_object()?, tests })
}

fn is_wanted(name: &str, only: &[String]) -> bool {
    if only.is_empty() {
        !BEHIND_THE_CAPTURE.contains(&name) && !ABOUT_FIGURES.contains(&name)
    } else {
        only.iter().any(|wanted| wanted == name)
    }
}

/// The folder of these builds: their flags differ from the others', and would spoil what those have built.
fn target_dir() -> Result<PathBuf> {
    Ok(workspace::target_dir()?.join("kernels"))
}

/// Builds without what makes a program ready to ship and a build slow; gives the test programs.
fn cargo(arguments: &[&str]) -> Result<Vec<Test>> {
    let mut cargo = workspace::cargo(arguments)?;
    cargo.args(["--locked", "--release", "--target", TARGET, "--message-format", "json-render-diagnostics"]);
    cargo.env("CARGO_TARGET_DIR", target_dir()?);
    cargo.env("CARGO_ENCODED_RUSTFLAGS", "-Ctarget-feature=+crt-static");
    for (setting, value) in
        [("LTO", "off"), ("CODEGEN_UNITS", "16"), ("OPT_LEVEL", "1"), ("STRIP", "debuginfo")]
    {
        cargo.env(format!("CARGO_PROFILE_RELEASE_{setting}"), value);
    }
    cargo.stderr(std::process::Stdio::inherit());
    let output = cargo.output().with_context(|| format!("start `{}`", child::describe(&cargo)))?;
    if !output.status.success() {
        bail!("`{}` ended with {}", child::describe(&cargo), output.status);
    }
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| test_program(line).transpose())
        .collect()
}

/// The test program that a line of cargo's speaks of, if it speaks of one.
fn test_program(line: &str) -> Result<Option<Test>> {
    let message: Value = serde_json::from_str(line).context("read what cargo says")?;
    let is_test = message["profile"]["test"] == Value::Bool(true);
    let (Some(name), Some(path)) = (message["target"]["name"].as_str(), message["executable"].as_str())
    else {
        return Ok(None);
    };
    let arguments = ARGUMENTS.iter().find(|(program, _)| *program == name);
    let arguments = arguments.map_or(&[][..], |(_, arguments)| *arguments);
    Ok(is_test.then(|| Test { name: name.to_owned(), path: Path::new(path).to_path_buf(), arguments }))
}

#[cfg(test)]
mod tests {
    use super::{is_wanted, test_program};

    #[test]
    fn test_programs_are_told_from_what_else_cargo_builds() {
        let line = |test: bool, executable: &str| {
            format!(
                r#"{{"reason":"compiler-artifact","target":{{"name":"roles"}},"profile":{{"test":{test}}},"executable":{executable}}}"#
            )
        };

        let found = test_program(&line(true, r#""/x/roles-1""#)).unwrap().unwrap();
        assert_eq!((found.name.as_str(), found.path.to_str()), ("roles", Some("/x/roles-1")));
        assert!(test_program(&line(false, r#""/x/roles""#)).unwrap().is_none());
        assert!(test_program(&line(true, "null")).unwrap().is_none());
        assert!(test_program(r#"{"reason":"build-finished","success":true}"#).unwrap().is_none());
        assert!(test_program("no JSON").is_err());
    }

    #[test]
    fn programs_about_the_kernel_are_wanted_and_others_by_name() {
        assert!(is_wanted("classifier", &[]) && !is_wanted("page", &[]) && !is_wanted("guard", &[]));
        let only = ["page".to_owned()];
        assert!(is_wanted("page", &only) && !is_wanted("classifier", &only));
    }

    #[test]
    fn every_program_that_is_left_out_is_there() {
        let root = crate::workspace::root().unwrap().join("tests/tests");
        for name in super::BEHIND_THE_CAPTURE.iter().chain(&super::ABOUT_FIGURES) {
            let is_there =
                root.join(format!("{name}.rs")).exists() || root.join(name).join("main.rs").exists();
            assert!(is_there, "{name}");
        }
    }
}
