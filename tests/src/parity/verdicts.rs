//! Enters: a file of verdicts. Leaves: which disagreements are explained, and which verdicts explain nothing.

use std::{cell::Cell, fs, path::Path};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::{compare::Disagreement, shape::Shape};

/// Reasoned judgements on disagreements.
#[derive(Debug, Default)]
pub struct Verdicts {
    verdicts: Vec<Verdict>,
}

/// One judgement, and what it applies to. What is not said applies to all.
#[derive(Debug)]
struct Verdict {
    /// The end of the file's path, its SHA-256, or `*` for any.
    file: String,
    /// `sender > receiver`.
    flow: Option<String>,
    offset: Option<u64>,
    what: Option<String>,
    /// What the bytes have to prove.
    shape: Option<String>,
    /// How many disagreements it explains, if it says so.
    count: Option<u64>,
    reason: String,
    used: Cell<u64>,
}

impl Verdicts {
    /// Reads a file of verdicts: a JSON array of objects with `file` and `verdict`, and where it is narrower `flow`,
    /// `offset`, `what`, `shape` and `count`.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or is not so.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("understand {}", path.display()))
    }

    fn parse(text: &str) -> Result<Self> {
        let list: Vec<Value> = serde_json::from_str(text)?;
        let verdicts = list.iter().map(Verdict::parse).collect::<Result<_>>()?;
        Ok(Self { verdicts })
    }

    /// The reason of the first verdict that applies.
    #[must_use]
    pub fn explain(&self, path: &str, sha256: &str, disagreement: &Disagreement) -> Option<&str> {
        let verdict = self.verdicts.iter().find(|verdict| verdict.applies(path, sha256, disagreement))?;
        verdict.used.set(verdict.used.get() + 1);
        Some(&verdict.reason)
    }

    /// Verdicts that do not fit what was found in the files that were compared, each with how.
    #[must_use]
    pub fn stale(&self, files: &[(String, String)]) -> Vec<String> {
        let is_about = |verdict: &&Verdict| {
            verdict.file != "*" && files.iter().any(|(path, hash)| verdict.is_about(path, hash))
        };
        let stale = self.verdicts.iter().filter(is_about).filter_map(|verdict| {
            let used = verdict.used.get();
            let fits = verdict.count.map_or(used > 0, |count| used == count);
            let wanted = verdict.count.map_or_else(|| "some".to_owned(), |count| count.to_string());
            let name = format!("{}: {}", verdict.file, verdict.reason);
            (!fits).then(|| format!("{name}\n    explains {used} disagreements, should be {wanted}"))
        });
        stale.collect()
    }
}

impl Verdict {
    fn parse(value: &Value) -> Result<Self> {
        let text = |key: &str| value[key].as_str().map(str::to_owned);
        Ok(Self {
            file: text("file").context("a verdict without `file`")?,
            flow: text("flow"),
            offset: value["offset"].as_u64(),
            what: text("what"),
            shape: text("shape"),
            count: value["count"].as_u64(),
            reason: text("verdict").context("a verdict without `verdict`")?,
            used: Cell::new(0),
        })
    }

    fn is_about(&self, path: &str, sha256: &str) -> bool {
        self.file == "*"
            || self.file == sha256
            || path == self.file
            || path.ends_with(&format!("/{}", self.file))
    }

    fn applies(&self, path: &str, sha256: &str, disagreement: &Disagreement) -> bool {
        self.is_about(path, sha256)
            && self.flow.as_ref().is_none_or(|flow| *flow == disagreement.flow)
            && self.offset.is_none_or(|offset| offset == disagreement.offset)
            && self.what.as_ref().is_none_or(|what| what == disagreement.what.as_str())
            && self.shape.as_deref().is_none_or(|shape| disagreement.shape.map(Shape::as_str) == Some(shape))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parity::compare::Aspect;

    #[test]
    fn verdict_applies_to_what_it_names_and_nothing_else() {
        let verdicts = Verdicts::parse(
            r#"[{"file": "a/b.pcap", "flow": "x > y", "offset": 7, "what": "body", "verdict": "so"}]"#,
        )
        .unwrap();
        assert_eq!(verdicts.explain("/c/a/b.pcap", "", &disagreement()), Some("so"));
        assert_eq!(verdicts.explain("/c/xa/b.pcap", "", &disagreement()), None);
        for other in [
            Disagreement { flow: "y > x".to_owned(), ..disagreement() },
            Disagreement { offset: 8, ..disagreement() },
            Disagreement { what: Aspect::Header, ..disagreement() },
        ] {
            assert_eq!(verdicts.explain("/c/a/b.pcap", "", &other), None);
        }
    }

    #[test]
    fn file_can_be_named_by_its_hash() {
        let verdicts = Verdicts::parse(r#"[{"file": "abc", "verdict": "so"}]"#).unwrap();
        assert_eq!(verdicts.explain("x", "abc", &disagreement()), Some("so"));
    }

    #[test]
    fn verdict_that_explains_nothing_is_stale_if_its_file_was_compared() {
        let verdicts = Verdicts::parse(
            r#"[{"file": "a", "verdict": "unused"}, {"file": "b", "verdict": "elsewhere"},
                {"file": "c", "verdict": "used"}, {"file": "d", "count": 2, "verdict": "twice"}]"#,
        )
        .unwrap();
        assert_eq!(verdicts.explain("c", "", &disagreement()), Some("used"));
        assert_eq!(verdicts.explain("d", "", &disagreement()), Some("twice"));
        let files = ["a", "c", "d"].map(|path| (path.to_owned(), String::new()));
        let stale = verdicts.stale(&files).join("\n");
        assert!(stale.contains("a: unused") && stale.contains("d: twice"), "{stale}");
        assert!(!stale.contains("elsewhere") && !stale.contains(": used"), "{stale}");
    }

    #[test]
    fn verdict_on_a_shape_applies_where_the_bytes_prove_it() {
        let verdicts =
            Verdicts::parse(r#"[{"file": "*", "shape": "folded-field", "verdict": "so"}]"#).unwrap();
        let of = |shape| Disagreement { shape, ..disagreement() };
        assert_eq!(verdicts.explain("x", "", &of(Some(Shape::FoldedField))), Some("so"));
        assert_eq!(verdicts.explain("x", "", &of(Some(Shape::SpaceInTarget))), None);
        assert_eq!(verdicts.explain("x", "", &of(None)), None);
    }

    #[test]
    fn verdict_without_a_reason_is_refused() {
        Verdicts::parse(r#"[{"file": "a"}]"#).unwrap_err();
    }

    fn disagreement() -> Disagreement {
        Disagreement {
            way: (([192, 0, 2, 1], 1).into(), ([192, 0, 2, 2], 2).into()),
            flow: "x > y".to_owned(),
            offset: 7,
            seq: 0,
            place: String::new(),
            what: Aspect::Body,
            shape: None,
            wireshark: None,
            inspect: None,
        }
    }
}
