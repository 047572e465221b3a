//! Enters: the manifests in `deploy`. Leaves: what the Kubernetes schemas do not allow in them.
//!
//! What is validated is what would be applied: every kustomization and the chart, rendered. The schemas come with a
//! Python package, so that nothing is asked of a cluster, or of the network after the packages have been installed once
//! below the target folder. Resources of operators have no schemas there; of them only what is written below is looked at.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::{
    apt::{self, Mode, Need, Presence},
    chart, child,
    tools::Tools,
    workspace,
};

/// The validator and its release, which decides what the newest schemas are.
const PACKAGE: &str = "kubernetes-validate==1.37.0";

/// The Kubernetes releases that the manifests are held against: the newest and the oldest they are written for.
const RELEASES: [&str; 2] = ["1.37.0", "1.29.0"];

/// Manifests that belong to no kustomization, below `deploy`.
const ALONE: [&str; 5] = [
    "prometheus/servicemonitor.yaml",
    "progressive-delivery/analysis-template.yaml",
    "progressive-delivery/rollout.yaml",
    "progressive-delivery/metric-template.yaml",
    "progressive-delivery/canary.yaml",
];

/// The overlay that the chart stands for.
const LIKE_THE_CHART: &str = "kubernetes/overlays/minimal";

/// Checks everything that can be applied strictly: a field that the schema does not know is an error.
pub(crate) fn run() -> Result<()> {
    let deploy = workspace::root()?.join("deploy");
    let tools = Tools::ready()?;
    let mut manifests = Vec::new();
    for dir in kustomizations(&deploy)? {
        let name = dir.strip_prefix(&deploy).unwrap_or(&dir).to_string_lossy().into_owned();
        let rendered = tools.kustomize(&dir)?;
        if name == LIKE_THE_CHART {
            let named = chart::rendered(&tools, &rendered)?;
            manifests.extend(named.into_iter().map(|(name, text)| (name.to_owned(), text)));
        }
        manifests.push((name, rendered));
    }
    for name in ALONE {
        let text = fs::read_to_string(deploy.join(name)).with_context(|| format!("read {name}"))?;
        manifests.push((name.to_owned(), text));
    }
    let mut files = Vec::new();
    for (name, text) in &manifests {
        files.extend(without_operators(name, text)?);
    }
    let validator = validator()?;
    for release in RELEASES {
        let mut validate = Command::new(&validator);
        validate.args(["--quiet", "--strict", "--kubernetes-version", release]).args(&files);
        child::run(&mut validate)?;
    }
    println!("{} renderings and files are valid", manifests.len());
    Ok(())
}

/// The folders below `dir` that hold a kustomization, in order; components are applied by others only.
fn kustomizations(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    if fs::read_to_string(dir.join("kustomization.yaml"))
        .is_ok_and(|text| text.contains("\nkind: Kustomization\n"))
    {
        found.push(dir.to_path_buf());
    }
    for entry in fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(kustomizations(&path)?);
        }
    }
    found.sort();
    Ok(found)
}

/// The documents of a manifest.
pub(crate) fn objects(text: &str) -> Result<Vec<Value>> {
    let all: Vec<Value> = serde_saphyr::from_multiple(text).context("read YAML")?;
    Ok(all.into_iter().filter(|object| !object.is_null()).collect())
}

/// Writes what the schemas are about to a file, and looks at the rest itself. `None` where there is only the rest.
fn without_operators(name: &str, text: &str) -> Result<Option<PathBuf>> {
    let mut documents = String::new();
    for object in objects(text).with_context(|| name.to_owned())? {
        match requirements(&object) {
            Some(required) => {
                for path in required.iter().chain(&["/metadata/name"]) {
                    if object.pointer(path).is_none_or(Value::is_null) {
                        bail!("{name}: the {} has no {path}", object["kind"]);
                    }
                }
            }
            // YAML takes JSON as it is.
            None => documents.push_str(&format!("---\n{object}\n")),
        }
    }
    if documents.is_empty() {
        return Ok(None);
    }
    let dir = workspace::target_dir()?.join("manifests");
    fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
    let path = dir.join(format!("{}.yaml", name.replace(['/', ' ', ','], "-")));
    fs::write(&path, documents).with_context(|| format!("write {}", path.display()))?;
    Ok(Some(path))
}

/// What an operator's resource cannot do without, of what it has here; `None` for resources of Kubernetes itself.
fn requirements(object: &Value) -> Option<&'static [&'static str]> {
    let known: [(&str, &str, &'static [&'static str]); 7] = [
        ("monitoring.coreos.com/v1", "PodMonitor", &["/spec/selector", "/spec/podMetricsEndpoints/0/port"]),
        ("monitoring.coreos.com/v1", "ServiceMonitor", &["/spec/selector", "/spec/endpoints/0/port"]),
        ("monitoring.coreos.com/v1", "PrometheusRule", &["/spec/groups/0/rules/0/expr"]),
        ("argoproj.io/v1alpha1", "AnalysisTemplate", &["/spec/metrics/0/provider/prometheus/query"]),
        (
            "argoproj.io/v1alpha1",
            "Rollout",
            &[
                "/spec/selector",
                "/spec/template",
                "/spec/strategy/canary/steps/1/analysis/templates/0/templateName",
            ],
        ),
        (
            "flagger.app/v1beta1",
            "MetricTemplate",
            &["/spec/provider/type", "/spec/provider/address", "/spec/query"],
        ),
        (
            "flagger.app/v1beta1",
            "Canary",
            &["/spec/targetRef/name", "/spec/analysis/metrics/0/templateRef/name"],
        ),
    ];
    let is_one =
        |(version, kind, _): &(&str, &str, _)| object["apiVersion"] == *version && object["kind"] == *kind;
    known.into_iter().find(is_one).map(|(_, _, required)| required)
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
    use super::{LIKE_THE_CHART, kustomizations, objects, requirements};
    use crate::workspace;

    #[test]
    fn kustomizations_of_the_project_are_found_and_components_are_not() {
        let deploy = workspace::root().unwrap().join("deploy");
        let found = kustomizations(&deploy).unwrap();

        assert!(
            found.contains(&deploy.join(LIKE_THE_CHART)) && found.contains(&deploy.join("kubernetes/base"))
        );
        assert!(!found.contains(&deploy.join("kubernetes/components/privileged")));
    }

    #[test]
    fn resources_of_operators_are_told_from_those_of_kubernetes() {
        let all =
            objects("apiVersion: v1\nkind: Service\n---\napiVersion: flagger.app/v1beta1\nkind: Canary\n")
                .unwrap();

        assert!(requirements(&all[0]).is_none() && requirements(&all[1]).is_some());
    }
}
