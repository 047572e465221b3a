//! Enters: rules, their tests, dashboards and gates. Leaves: what Prometheus would not accept, or would never fire.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::{
    apt::{self, Mode, Need, Presence},
    child,
    dashboards::{self, RULES},
    manifests::objects,
    workspace,
};

/// Checks rules, dashboards and gates with `promtool`, and all of them against the README and the runbooks.
pub(crate) fn run() -> Result<()> {
    apt::ensure(&needs(), Mode::Act)?;
    dashboards::check()?;

    let dir = workspace::root()?.join("deploy/prometheus");
    child::run(promtool()?.current_dir(&dir).args(["check", "rules"]).args(RULES))?;
    child::run(promtool()?.current_dir(&dir).args(["test", "rules"]).args(TESTS))?;
    let mut expressions = dashboards::expressions();
    expressions.extend(gates()?);
    check_expressions(&expressions)?;

    let mut faults = Vec::new();
    let rules = RULES.map(|name| fs::read_to_string(dir.join(name)).with_context(|| format!("read {name}")));
    let rules = rules.into_iter().collect::<Result<String>>()?;
    let tests = TESTS.map(|name| fs::read_to_string(dir.join(name)).with_context(|| format!("read {name}")));
    let tests = tests.into_iter().collect::<Result<String>>()?;
    let page = fs::read_to_string(workspace::root()?.join("README.md")).context("read README.md")?;

    let names = Names { documented: documented(&page), recorded: values(&rules, "- record: ").collect() };
    expressions.push(without_comments(&rules));
    for expression in &expressions {
        faults.extend(names.unknown(expression).map(|name| format!("there is no metric {name}")));
    }
    let runbooks = workspace::root()?.join("docs/runbooks");
    let alerts: BTreeSet<&str> = values(&rules, "- alert: ").collect();
    for alert in &alerts {
        faults.extend(faults_of(alert, &rules, &tests, &runbooks));
    }
    for name in runbooks_in(&runbooks)?.iter().filter(|name| !alerts.contains(name.as_str())) {
        faults.push(format!("docs/runbooks/{name}.md is about no alert"));
    }
    if !faults.is_empty() {
        bail!("{}", faults.join("; "));
    }
    Ok(())
}

/// What the rules and dashboards are checked with, and what the test of the whole starts.
pub(crate) fn needs() -> [Need; 1] {
    let why = "promtool checks rules and dashboards; a test has the server scrape the agent (Debian also starts it as a \
               service, on port 9090)";
    [Need { package: "prometheus".to_owned(), why, presence: Presence::Program("promtool") }]
}

/// The unit tests of the rules.
const TESTS: [&str; 2] = ["tests/recording.yaml", "tests/alerts.yaml"];

/// What others export: cAdvisor, kube-state-metrics and Prometheus itself.
const FOREIGN: [&str; 6] = [
    "container_cpu_usage_seconds_total",
    "container_memory_working_set_bytes",
    "kube_daemonset_status_desired_number_scheduled",
    "kube_daemonset_status_number_available",
    "kube_pod_container_resource_limits",
    "up",
];

fn promtool() -> Result<Command> {
    let program = workspace::find_program("promtool").context("find promtool")?;
    Ok(Command::new(program))
}

/// What the gates of rollouts ask for. Their variables stand inside quotes, where every word will do.
fn gates() -> Result<Vec<String>> {
    let dir = workspace::root()?.join("deploy/progressive-delivery");
    let mut found = Vec::new();
    for name in ["analysis-template.yaml", "metric-template.yaml"] {
        let text = fs::read_to_string(dir.join(name)).with_context(|| format!("read {name}"))?;
        for object in objects(&text)? {
            let metrics =
                object.pointer("/spec/metrics").and_then(Value::as_array).cloned().unwrap_or_default();
            let asked = metrics.iter().filter_map(|metric| metric.pointer("/provider/prometheus/query"));
            let asked = asked.chain(object.pointer("/spec/query")).filter_map(Value::as_str);
            found.extend(asked.map(str::to_owned));
        }
    }
    Ok(found)
}

/// Has every expression parsed, as if it were a rule.
fn check_expressions(expressions: &[String]) -> Result<()> {
    let rules: Vec<_> = expressions
        .iter()
        .enumerate()
        .map(|(number, expr)| serde_json::json!({ "record": format!("expression:{number}"), "expr": expr }))
        .collect();
    let file = serde_json::json!({ "groups": [{ "name": "expressions", "rules": rules }] });
    let path = workspace::target_dir()?.join("expressions.yaml");
    fs::write(&path, file.to_string()).with_context(|| format!("write {}", path.display()))?;
    child::run(promtool()?.args(["check", "rules"]).arg(&path)).context("check expressions")
}

/// Names that an expression may use.
struct Names<'a> {
    documented: BTreeSet<&'a str>,
    recorded: BTreeSet<&'a str>,
}

impl Names<'_> {
    /// The names in an expression, or in several, that look like metrics and are none.
    fn unknown<'a>(&self, expression: &'a str) -> impl Iterator<Item = &'a str> {
        let is_known = |name: &str| {
            let base = ["_bucket", "_sum", "_count"].iter().find_map(|part| name.strip_suffix(part));
            self.documented.contains(name)
                || base.is_some_and(|base| self.documented.contains(base))
                || self.recorded.contains(name)
                || FOREIGN.contains(&name)
        };
        let words =
            expression.split(|symbol: char| !(symbol.is_ascii_alphanumeric() || "_:".contains(symbol)));
        let looks_like_metric = |word: &&str| {
            let is_recorded = word.contains(':') && !word.starts_with(':') && !word.ends_with(':');
            is_recorded || ["mirror_", "container_", "kube_"].iter().any(|prefix| word.starts_with(prefix))
        };
        let found: BTreeSet<&str> = words.filter(looks_like_metric).filter(|word| !is_known(word)).collect();
        found.into_iter()
    }
}

/// The metrics in the README's table; a unit test of the agent holds that table against what it exports.
fn documented(page: &str) -> BTreeSet<&str> {
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    rows.map(|(name, _)| name).filter(|name| name.starts_with("mirror_")).collect()
}

/// What follows a key at the beginnings of lines.
fn values<'a>(text: &'a str, key: &'static str) -> impl Iterator<Item = &'a str> {
    text.lines().filter_map(move |line| line.trim_start().strip_prefix(key)).map(str::trim)
}

/// The expressions of the rules with what stands around them: only comments and texts for people speak of anything.
fn without_comments(rules: &str) -> String {
    let of_people = ["#", "summary:", "description:", "runbook_url:"];
    let is_kept = |line: &&str| !of_people.iter().any(|start| line.trim_start().starts_with(start));
    rules.lines().filter(is_kept).collect::<Vec<_>>().join("\n")
}

fn faults_of(alert: &str, rules: &str, tests: &str, runbooks: &Path) -> Vec<String> {
    let mut faults = Vec::new();
    let link = format!("/docs/runbooks/{alert}.md");
    if !values(rules, "runbook_url: ").any(|url| url.ends_with(&link)) {
        faults.push(format!("the alert {alert} has no link to its runbook"));
    }
    let runbook = fs::read_to_string(runbooks.join(format!("{alert}.md"))).unwrap_or_default();
    for heading in ["# ", "## Symptom", "## Meaning", "## What to check", "## What to do"] {
        if !runbook.lines().any(|line| line.starts_with(heading)) {
            faults.push(format!("docs/runbooks/{alert}.md has no line `{heading}`"));
        }
    }
    if !tests.contains(&format!("alertname=\"{alert}\"")) {
        faults.push(format!("the alert {alert} is in no unit test"));
    }
    faults
}

fn runbooks_in(dir: &PathBuf) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        names.extend(name.strip_suffix(".md").filter(|name| *name != "README").map(str::to_owned));
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{Names, documented, without_comments};

    const PAGE: &str = "| Metric | Labels |\n| --- | --- |\n| `mirror_a_total` | |\n| `mirror_b_seconds` | `of` |\n\
                          | `--memory` | |\n`mirror_c`\n";

    fn unknown(expression: &str) -> Vec<&str> {
        let recorded = BTreeSet::from(["mirror:a:rate5m"]);
        Names { documented: documented(PAGE), recorded }.unknown(expression).collect()
    }

    #[test]
    fn metrics_of_the_table_and_parts_of_histograms_are_known() {
        assert_eq!(unknown("rate(mirror_a_total[5m]) + mirror_b_seconds_bucket + mirror:a:rate5m"), [""; 0]);
        assert_eq!(unknown("up + kube_pod_container_resource_limits{container=\"mirror-agent\"}"), [""; 0]);
    }

    #[test]
    fn metrics_that_nobody_exports_are_found() {
        assert_eq!(unknown("mirror_c + mirror_a + kube_pod_info"), ["kube_pod_info", "mirror_a", "mirror_c"]);
        assert_eq!(unknown("mirror:a:rate1h"), ["mirror:a:rate1h"]);
    }

    #[test]
    fn what_is_said_to_people_is_no_expression() {
        let rules = "expr: mirror_a\n# mirror_c\n  summary: 'mirror_d'\nannotations:";

        assert_eq!(without_comments(rules), "expr: mirror_a\nannotations:");
    }
}
