//! Enters: the pages. Leaves: options, keys, metrics, files and anchors that they name and that are not there.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Component, Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use mirror_tests::agent;
use serde_json::Value;

use crate::page::Page;

/// Words that begin like metrics and are others': two crates, a label, and a directive of nginx.
const NO_METRICS: [&str; 4] = ["mirror_ebpf", "mirror_agent", "mirror_role", "mirror_request_body"];

/// Links that lead to no file, or to no anchor of one, with their places.
pub(crate) fn broken_links(root: &Path, pages: &[Page]) -> Vec<String> {
    let anchors: BTreeMap<_, _> = pages.iter().map(|page| (page.path.clone(), page.anchors())).collect();
    let mut broken = Vec::new();
    for page in pages {
        for (line, link) in page.links() {
            if link.contains("://") {
                continue;
            }
            let (file, anchor) =
                link.split_once('#').map_or((link, None), |(file, anchor)| (file, Some(anchor)));
            let folder = page.path.parent().unwrap_or(Path::new(""));
            let target = if file.is_empty() { page.path.clone() } else { plain(&folder.join(file)) };
            let has_anchor = |anchor: &str| {
                anchors.get(&target).is_some_and(|all| all.iter().any(|known| known == anchor))
            };
            if !root.join(&target).exists() {
                broken.push(format!("{}: there is no {}", page.at(line), target.display()));
            } else if !anchor.is_none_or(has_anchor) {
                broken.push(format!("{}: {} has no {anchor:?}", page.at(line), target.display()));
            }
        }
    }
    broken
}

/// A path without `..`.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        if part == Component::ParentDir {
            plain.pop();
        } else {
            plain.push(part);
        }
    }
    plain
}

/// The keys of the configuration file, by their paths from the root: `experiments.targets.limits.queue`.
#[derive(Debug)]
pub(crate) struct Keys(BTreeSet<String>);

impl Keys {
    /// Asks the agent.
    pub(crate) fn ask() -> Result<Self> {
        let program = agent::program().context("no mirror-agent was built")?;
        let output = Command::new(program).arg("schema").output()?;
        let schema: Value = serde_json::from_slice(&output.stdout).context("read the schema")?;
        let mut keys = BTreeSet::new();
        collect(&schema, &schema, "", &mut keys);
        ensure!(keys.len() > 60, "the schema is not understood: {keys:?}");
        Ok(Self(keys))
    }

    /// Whether a dotted name is no key, though it begins with a key that holds others.
    fn lacks(&self, name: &str) -> bool {
        let first = name.split('.').next().unwrap_or_default();
        let has = |path: &str, part: &str| format!(".{path}.").contains(&format!(".{part}."));
        let holds_others = self.0.iter().any(|path| has(path, first) && !path.ends_with(first));
        holds_others && !self.0.iter().any(|path| has(path, name))
    }

    /// The keys of a piece of YAML that are nowhere in the schema, if its first one is there.
    fn unknown_in(&self, piece: &str) -> Vec<String> {
        let Ok(Value::Object(piece)) = serde_saphyr::from_str::<Value>(piece) else { return Vec::new() };
        let is_key = |name: &String| {
            self.0.iter().any(|path| path.rsplit('.').next().is_some_and(|last| last == name))
        };
        if !piece.keys().any(is_key) {
            return Vec::new();
        }
        piece.keys().filter(|name| !is_key(name)).cloned().collect()
    }
}

fn collect(root: &Value, schema: &Value, prefix: &str, keys: &mut BTreeSet<String>) {
    let inner = schema["$ref"].as_str().and_then(|place| root.pointer(place.trim_start_matches('#')));
    let choices = ["anyOf", "oneOf", "allOf"].iter().filter_map(|name| schema[name].as_array()).flatten();
    let items = Some(&schema["items"]).filter(|items| items.is_object());
    for part in inner.into_iter().chain(choices).chain(items) {
        collect(root, part, prefix, keys);
    }
    for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
        let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        collect(root, inner, &path, keys);
        keys.insert(path);
    }
}

/// What pages may name.
#[derive(Debug)]
pub(crate) struct Names {
    /// Options of the agent and of the chores.
    pub(crate) options: BTreeSet<String>,
    /// Keys of the configuration file.
    pub(crate) keys: Keys,
    /// Metrics, and what recording rules make of them.
    metrics: BTreeSet<String>,
}

impl Names {
    /// Reads the metrics from the README's table, which a unit test of the agent holds against what it exports.
    pub(crate) fn new(root: &Path, options: BTreeSet<String>, keys: Keys) -> Result<Self> {
        let page = fs::read_to_string(root.join("README.md"))?;
        let rows = page.lines().filter_map(|line| line.strip_prefix("| `mirror_")?.split_once('`'));
        let mut metrics: BTreeSet<_> = rows.map(|(rest, _)| format!("mirror_{rest}")).collect();
        ensure!(metrics.len() > 30, "the table of metrics is not understood");
        let rules = fs::read_to_string(root.join("deploy/prometheus/recording.yaml"))?;
        let recorded = rules.lines().filter_map(|line| line.trim_start().strip_prefix("- record: "));
        metrics.extend(recorded.map(str::to_owned));
        Ok(Self { options, keys, metrics })
    }

    /// What a page names in its text and is not there.
    pub(crate) fn unknown(&self, root: &Path, page: &Page) -> Vec<String> {
        let code = page.code();
        let is_theirs = |first: bool| page.is_about_another() && first;
        let theirs: BTreeSet<&str> = code
            .iter()
            .filter(|code| is_theirs(code.is_in_first_column))
            .flat_map(|code| options(&code.text))
            .collect();
        let mut unknown = Vec::new();
        for code in code.iter().filter(|code| !is_theirs(code.is_in_first_column)) {
            let text = code.text.as_str();
            // Whole commands are looked at as such.
            if !text.starts_with(|symbol: char| symbol.is_alphabetic()) || !text.contains(" --") {
                let missing =
                    options(text).filter(|name| !self.options.contains(*name) && !theirs.contains(name));
                unknown.extend(missing.map(|name| format!("{}: the option {name}", page.at(code.line))));
            }
            if text.split('.').count() > 1 && text.split('.').all(is_key_word) && self.keys.lacks(text) {
                unknown.push(format!("{}: the key {text}", page.at(code.line)));
            }
            if text.contains(": ") && !page.is_about_another() {
                let missing = self.keys.unknown_in(text).into_iter();
                unknown
                    .extend(missing.map(|name| format!("{}: the key {name} in {text}", page.at(code.line))));
            }
            unknown.extend(
                self.unknown_metrics(text).map(|name| format!("{}: the metric {name}", page.at(code.line))),
            );
            let is_file = ["deploy/", "docs/"].iter().any(|folder| text.starts_with(folder));
            if is_file && !text.contains(['*', ' ']) && !root.join(text).exists() {
                unknown.push(format!("{}: the file {text}", page.at(code.line)));
            }
        }
        unknown
    }

    /// Words of an expression that look like metrics of ours and are none.
    pub(crate) fn unknown_metrics<'a>(&'a self, text: &'a str) -> impl Iterator<Item = &'a str> + 'a {
        let is_word = |symbol: char| symbol.is_ascii_alphanumeric() || symbol == '_' || symbol == ':';
        text.split(move |symbol: char| !is_word(symbol))
            .map(|word| word.trim_end_matches(':'))
            .filter(|word| word.starts_with("mirror_") || word.starts_with("mirror:"))
            .filter(|word| !NO_METRICS.iter().any(|name| word.starts_with(name)))
            .filter(|word| {
                let series = ["_bucket", "_sum", "_count"].iter().find_map(|end| word.strip_suffix(end));
                // `mirror_interlock_` with a dash or a star behind it is all that begin so.
                let is_start = word.ends_with('_') && self.metrics.iter().any(|name| name.starts_with(word));
                !is_start
                    && !self.metrics.contains(*word)
                    && !series.is_some_and(|name| self.metrics.contains(name))
            })
    }
}

/// The long options among the words.
fn options(text: &str) -> impl Iterator<Item = &str> {
    text.split([' ', '=', ',']).filter(|word| word.len() > 2 && word.starts_with("--"))
}

fn is_key_word(word: &str) -> bool {
    !word.is_empty() && word.chars().all(|symbol| symbol.is_ascii_alphabetic())
}
