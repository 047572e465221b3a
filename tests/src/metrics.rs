//! Enters: the text of `/metrics`. Leaves: its samples, and the agent's books.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use anyhow::{Context, Result};

/// One scrape.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    samples: Vec<Sample>,
}

#[derive(Clone, Debug)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

impl Metrics {
    /// Parses the text format.
    ///
    /// # Errors
    ///
    /// A line that is neither a comment nor a sample.
    pub fn parse(text: &str) -> Result<Self> {
        let mut samples = Vec::new();
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            samples.push(parse_sample(line).with_context(|| format!("not a sample: {line}"))?);
        }
        Ok(Self { samples })
    }

    /// The sum over all label values of a metric; zero where it has no sample.
    #[must_use]
    pub fn sum(&self, name: &str) -> f64 {
        self.samples.iter().filter(|sample| sample.name == name).map(|sample| sample.value).sum()
    }

    /// The value of a metric with this label; zero where it has no sample.
    #[must_use]
    pub fn value(&self, name: &str, label: &str, value: &str) -> f64 {
        let wanted = |sample: &&Sample| {
            sample.name == name && sample.labels.get(label).is_some_and(|found| found == value)
        };
        self.samples.iter().filter(wanted).map(|sample| sample.value).sum()
    }

    /// The sum over the samples of a metric that have all these labels; zero where there is none.
    #[must_use]
    pub fn labelled(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let has = |sample: &Sample, (label, value): &(&str, &str)| {
            sample.labels.get(*label).is_some_and(|found| found == value)
        };
        let is_wanted =
            |sample: &&Sample| sample.name == name && labels.iter().all(|label| has(sample, label));
        self.samples.iter().filter(is_wanted).map(|sample| sample.value).sum()
    }

    /// Whether the metric has a sample.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.samples.iter().any(|sample| sample.name == name)
    }

    /// The values of a label among the samples of a metric, each once, in the order of the alphabet.
    #[must_use]
    pub fn values_of(&self, name: &str, label: &str) -> Vec<String> {
        let samples = self.samples.iter().filter(|sample| sample.name == name);
        let values: BTreeSet<&String> = samples.filter_map(|sample| sample.labels.get(label)).collect();
        values.into_iter().cloned().collect()
    }

    /// The values of a counter by the value of one label, without the zeros.
    fn by(&self, name: &str, label: &str) -> BTreeMap<String, u64> {
        let mut values = BTreeMap::new();
        for sample in self.samples.iter().filter(|sample| sample.name == name && sample.value > 0.0) {
            *values.entry(sample.labels.get(label).cloned().unwrap_or_default()).or_default() +=
                sample.value as u64;
        }
        values
    }

    /// The books.
    #[must_use]
    pub fn ledger(&self) -> Ledger {
        Ledger {
            seen: self.sum("mirror_requests_seen_total") as u64,
            pending: self.sum("mirror_requests_pending") as i64,
            mirrored: self.sum("mirror_requests_mirrored_total") as u64,
            skipped: self.by("mirror_requests_skipped_total", "reason"),
            dropped: self.by("mirror_requests_dropped_total", "reason"),
            lost: self.by("mirror_requests_lost_total", "reason"),
            replays: self.by("mirror_replays_total", "outcome"),
            frames_dropped: self.by("mirror_frames_dropped_total", "reason"),
        }
    }
}

/// A line such as `name{label="value",…} 1 [timestamp]`. Label values of ours hold neither quotes nor commas.
fn parse_sample(line: &str) -> Option<Sample> {
    let (identity, value) = match line.split_once('}') {
        Some((identity, value)) => (identity, value),
        None => line.split_once(' ')?,
    };
    let (name, labels) = identity.split_once('{').unwrap_or((identity, ""));
    let labels = labels
        .split(',')
        .filter(|label| !label.is_empty())
        .map(|label| {
            let (key, value) = label.split_once('=')?;
            Some((key.to_owned(), value.trim_matches('"').to_owned()))
        })
        .collect::<Option<_>>()?;
    let value = value.split_ascii_whitespace().next()?.parse().ok()?;
    Some(Sample { name: name.to_owned(), labels, value })
}

/// What became of the requests that the agent has seen.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Ledger {
    /// Requests whose first byte was taken as a message start.
    pub seen: u64,
    /// Not yet one of the others.
    pub pending: i64,
    /// All bytes were accepted by one shadow socket.
    pub mirrored: u64,
    /// Deliberately not mirrored, by reason.
    pub skipped: BTreeMap<String, u64>,
    /// Could not be mirrored, by reason.
    pub dropped: BTreeMap<String, u64>,
    /// Damaged, by reason.
    pub lost: BTreeMap<String, u64>,
    /// Attempts, by outcome.
    pub replays: BTreeMap<String, u64>,
    /// Frames that were not captured, by reason.
    pub frames_dropped: BTreeMap<String, u64>,
}

impl Ledger {
    /// Requests that are settled: all but the pending ones.
    #[must_use]
    pub fn settled(&self) -> u64 {
        self.mirrored + total(&self.skipped) + total(&self.dropped) + total(&self.lost)
    }

    /// Whether `seen = pending + mirrored + skipped + dropped + lost`.
    #[must_use]
    pub fn is_balanced(&self) -> bool {
        i64::try_from(self.seen).is_ok_and(|seen| {
            self.pending >= 0
                && i64::try_from(self.settled()).is_ok_and(|settled| seen == settled + self.pending)
        })
    }

    /// Asserts that the books balance.
    ///
    /// # Panics
    ///
    /// They do not.
    pub fn assert_balanced(&self) {
        assert!(self.is_balanced(), "the books do not balance: {self}");
    }

    /// Requests skipped for a reason.
    #[must_use]
    pub fn skipped_for(&self, reason: &str) -> u64 {
        self.skipped.get(reason).copied().unwrap_or(0)
    }

    /// Requests lost for a reason.
    #[must_use]
    pub fn lost_for(&self, reason: &str) -> u64 {
        self.lost.get(reason).copied().unwrap_or(0)
    }

    /// All dropped requests.
    #[must_use]
    pub fn all_dropped(&self) -> u64 {
        total(&self.dropped)
    }

    /// All skipped requests.
    #[must_use]
    pub fn all_skipped(&self) -> u64 {
        total(&self.skipped)
    }

    /// All lost requests.
    #[must_use]
    pub fn all_lost(&self) -> u64 {
        total(&self.lost)
    }

    /// All frames that were not captured.
    #[must_use]
    pub fn all_frames_dropped(&self) -> u64 {
        total(&self.frames_dropped)
    }
}

fn total(reasons: &BTreeMap<String, u64>) -> u64 {
    reasons.values().sum()
}

impl fmt::Display for Ledger {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "seen {} = pending {} + mirrored {} + skipped {}{:?} + dropped {}{:?} + lost {}{:?}; replays {:?}; frames dropped {:?}",
            self.seen,
            self.pending,
            self.mirrored,
            total(&self.skipped),
            self.skipped,
            total(&self.dropped),
            self.dropped,
            total(&self.lost),
            self.lost,
            self.replays,
            self.frames_dropped
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# TYPE mirror_requests_seen counter\nmirror_requests_seen_total 10\n\
        mirror_requests_pending 1\nmirror_requests_mirrored_total 5\n\
        mirror_requests_skipped_total{reason=\"method\"} 3\nmirror_requests_skipped_total{reason=\"sampled\"} 0\n\
        mirror_requests_lost_total{reason=\"gap\"} 1 1700000000\n# EOF\n";

    #[test]
    fn books_are_read_from_the_text() {
        let ledger = Metrics::parse(TEXT).unwrap().ledger();
        assert_eq!((ledger.seen, ledger.pending, ledger.mirrored), (10, 1, 5));
        assert_eq!(ledger.skipped, BTreeMap::from([("method".to_owned(), 3)]));
        assert_eq!(ledger.lost_for("gap"), 1);
        ledger.assert_balanced();
    }

    #[test]
    fn unbalanced_books_are_found_out() {
        let mut ledger = Metrics::parse(TEXT).unwrap().ledger();
        ledger.mirrored += 1;
        assert!(!ledger.is_balanced());
    }
}
