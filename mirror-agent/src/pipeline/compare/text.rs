//! Enters: two texts. Leaves: the first of their lines that differ, and whether one has more of them.

use super::{
    MALFORMED_LINE, TEXT_LINE,
    found::{Found, Where},
    plan::Active,
};
use crate::pipeline::reason::DivergenceKind;

/// Where divergences of text are.
const PATH: &str = "text";

/// Compares two texts line by line, a line ending with its line feed. The lines that both begin and end with are the same;
/// of what lies between, the first of each is told, once for all. `is_malformed` says that this was to be JSON: nobody can say
/// then what in a line is a secret, and its place tells that.
pub(super) fn compare(live: &[u8], other: &[u8], is_malformed: bool, active: &Active<'_>, found: &mut Found) {
    if live == other {
        return;
    }
    let rules = active.at_text();
    if let Some(used) = active.explain(&rules, live, other) {
        used.into_iter().for_each(|rule| found.explain(rule, PATH));
        return;
    }
    let ((live, mut used), (other, used_for_other)) =
        (active.replace(&rules, live), active.replace(&rules, other));
    used.extend(used_for_other);
    used.into_iter().for_each(|rule| found.explain(rule, PATH));
    let (live, other) = (lines(&live), lines(&other));
    if live.len() == other.len() {
        compare_lines(&live, &other, is_malformed, (&rules, active), found);
    } else {
        compare_lengths(&live, &other, is_malformed, found);
    }
}

fn lines(text: &[u8]) -> Vec<&[u8]> {
    text.split(|byte| *byte == b'\n').collect()
}

fn compare_lines(
    live: &[&[u8]],
    other: &[&[u8]],
    is_malformed: bool,
    (rules, active): (&[usize], &Active<'_>),
    found: &mut Found,
) {
    for (number, (live, other)) in (1_usize..).zip(live.iter().zip(other)) {
        if live == other {
            continue;
        }
        // What has to be replaced is replaced already.
        match active.accept(rules, live, other) {
            Some(rule) => found.explain(rule, PATH),
            None => {
                let at = at_line(number, is_malformed);
                found.diverge(DivergenceKind::Value, at, Some(live), Some(other));
                return;
            }
        }
    }
}

/// How many lines there are, and, where lines are not only put in or taken out, the first that is another one.
fn compare_lengths(live: &[&[u8]], other: &[&[u8]], is_malformed: bool, found: &mut Found) {
    let shorter = live.len().min(other.len());
    let same = |(live, other): &(&&[u8], &&[u8])| live == other;
    let begin = live.iter().zip(other).take_while(same).count();
    let end = live.iter().rev().zip(other.iter().rev()).take_while(same).count();
    if begin.saturating_add(end) < shorter
        && let (Some(of_live), Some(of_other)) = (live.get(begin), other.get(begin))
    {
        let at = at_line(begin.saturating_add(1), is_malformed);
        found.diverge(DivergenceKind::Value, at, Some(of_live), Some(of_other));
    }
    let (of_live, of_other) = (live.len().to_string(), other.len().to_string());
    let at = at_line(begin.saturating_add(1), false);
    found.diverge(DivergenceKind::Length, at, Some(of_live.as_bytes()), Some(of_other.as_bytes()));
}

fn at_line(number: usize, is_malformed: bool) -> Where {
    let begins = if is_malformed { MALFORMED_LINE } else { TEXT_LINE };
    Where::at(PATH.to_owned(), format!("{begins}{number}"))
}
