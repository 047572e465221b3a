//! Enters: the dashboards as they are described here, and the rules in `deploy/prometheus`. Leaves: what is made of
//! them in `deploy`: Grafana's JSON, and the rules as a manifest for the Prometheus operator.

mod debug;
mod executive;
mod on_call;
mod panel;

use std::{fmt::Write as _, fs, path::PathBuf};

use anyhow::{Context as _, Result, bail};

use self::panel::Dashboard;
use crate::workspace;

/// The files of rules in `deploy/prometheus`, in the order in which they are put together.
pub(crate) const RULES: [&str; 2] = ["recording.yaml", "alerts.yaml"];

/// The chore: writes every file anew.
pub(crate) fn run() -> Result<()> {
    for (path, content) in made()? {
        fs::write(&path, content).with_context(|| format!("write {}", path.display()))?;
        println!("Wrote {}", path.display());
    }
    Ok(())
}

/// Fails where a file is not what would be made of its sources.
pub(crate) fn check() -> Result<()> {
    let mut stale = Vec::new();
    for (path, content) in made()? {
        if fs::read_to_string(&path).ok().as_deref() != Some(content.as_str()) {
            stale.push(path.display().to_string());
        }
    }
    if !stale.is_empty() {
        bail!("not what is made of the sources, run `cargo xtask dashboards`: {}", stale.join(", "));
    }
    Ok(())
}

/// The expressions of all dashboards, as Grafana would send them for a reader who has chosen nothing.
pub(crate) fn expressions() -> Vec<String> {
    let without_variables = |expression: &str| {
        VARIABLES.iter().fold(expression.to_owned(), |text, (name, value)| text.replace(name, value))
    };
    all().iter().flat_map(Dashboard::expressions).map(without_variables).collect()
}

/// What stands for each of Grafana's variables, the longer names first.
const VARIABLES: [(&str, &str); 4] = [
    ("$__rate_interval", "5m"),
    ("$shadow_namespace", ".*-shadow"),
    ("$experiment", ".*"),
    ("$instance", ".*"),
];

fn all() -> [Dashboard; 3] {
    [executive::dashboard(), on_call::dashboard(), debug::dashboard()]
}

/// Each file and what is in it.
fn made() -> Result<Vec<(PathBuf, String)>> {
    let deploy = workspace::root()?.join("deploy");
    let mut files = Vec::new();
    for dashboard in all() {
        let mut text = serde_json::to_string_pretty(&dashboard.json()).context("write JSON")?;
        text.push('\n');
        files.push((deploy.join("grafana").join(format!("{}.json", dashboard.name)), text));
    }
    let mut rules = Vec::new();
    for name in RULES {
        let path = deploy.join("prometheus").join(name);
        rules.push(fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?);
    }
    files.push((deploy.join("prometheus/prometheusrule.yaml"), rule_manifest(&rules)?));
    Ok(files)
}

const MANIFEST: &str = "\
# Made by `cargo xtask dashboards` of recording.yaml and alerts.yaml: change those.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: mirror-agent
  namespace: mirror
  labels:
    app.kubernetes.io/name: mirror-agent
    app.kubernetes.io/part-of: mirror
spec:
  groups:
";

/// The groups of all files under one head. They are moved two columns to the right, as they are, with their comments.
fn rule_manifest(files: &[String]) -> Result<String> {
    let mut text = MANIFEST.to_owned();
    for file in files {
        let (_, groups) = file.split_once("\ngroups:\n").context("find `groups:` in a file of rules")?;
        for line in groups.lines() {
            if line.is_empty() {
                text.push('\n');
            } else {
                writeln!(text, "  {line}")?;
            }
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::{expressions, rule_manifest};

    #[test]
    fn rules_are_moved_under_the_manifest_with_their_comments() {
        let files = ["# a\ngroups:\n  - name: a\n\n    # why\n", "# b\ngroups:\n  - name: b\n"];

        let manifest = rule_manifest(&files.map(str::to_owned)).unwrap();

        assert!(manifest.ends_with("  groups:\n    - name: a\n\n      # why\n    - name: b\n"), "{manifest}");
    }

    #[test]
    fn no_expression_keeps_a_variable() {
        for expression in expressions() {
            assert!(!expression.contains('$'), "{expression}");
        }
    }
}
