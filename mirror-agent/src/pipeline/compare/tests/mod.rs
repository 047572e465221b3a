//! Enters: pairs of answers. Leaves: proof that what differs is found, said well, and nothing else.

mod arrays;
mod contents;
mod headers;
mod hostile;
mod properties;
mod rules;

use bytes::Bytes;

use super::{Action, CompareRules, Compared, Comparer, Place, Rule};
use crate::pipeline::{
    answer::Answer,
    reason::{IncomparableReason, UntimedReason},
};

/// An answer by its status, its header lines with `\n` between, and its content.
fn answer(status: u16, lines: &str, content: &[u8]) -> Answer {
    let lines = lines.lines().map(|line| format!("{line}\r\n")).collect::<String>();
    Answer {
        status,
        head: Bytes::from(format!("HTTP/1.1 {status} OK\r\n{lines}\r\n")),
        content: Bytes::copy_from_slice(content),
        timing: Err(UntimedReason::Unknown),
    }
}

fn json(content: &str) -> Answer {
    answer(200, "content-type: application/json", content.as_bytes())
}

fn rule(place: Place, action: Action) -> Rule {
    Rule { name: "rule".to_owned(), place, endpoint: None, action }
}

fn try_compare(rules: &CompareRules, live: &Answer, other: &Answer) -> Result<Compared, IncomparableReason> {
    let comparer = Comparer::new(rules).unwrap_or_else(|error| panic!("{error}"));
    comparer.compare("GET /", &comparer.prepare(live)?, other)
}

fn compare(rules: &CompareRules, live: &Answer, other: &Answer) -> Compared {
    try_compare(rules, live, other).unwrap()
}

/// The divergences, each as `KIND PATH LIVE OTHER`, with `; ` between; `-` where there is nothing.
fn told(compared: &Compared) -> String {
    let told = compared.divergences.iter().map(|divergence| {
        let value = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
        let (live, other) = (value(&divergence.live), value(&divergence.other));
        format!("{} {} {live} {other}", divergence.kind.as_str(), divergence.path)
    });
    told.collect::<Vec<_>>().join("; ")
}

/// What of two JSON texts is told.
fn told_of(rules: &CompareRules, live: &str, other: &str) -> String {
    told(&compare(rules, &json(live), &json(other)))
}

/// The explained differences, as `RULE PATH`, with `; ` between.
fn explained(compared: &Compared) -> String {
    let explained =
        compared.explained.iter().map(|explained| format!("{} {}", explained.rule, explained.path));
    explained.collect::<Vec<_>>().join("; ")
}
