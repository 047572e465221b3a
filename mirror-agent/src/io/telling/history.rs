//! Enters: verdicts, as they are looked at. Leaves: when they changed, to what, and by which checks.

use std::{collections::VecDeque, time::SystemTime};

use serde::Serialize;

use crate::{
    io::control::time::rfc3339,
    pipeline::{judge::Verdict, reason::VerdictState},
};

/// Changes that are kept of one experiment. A verdict holds under continuous peeking, so it changes a few times in an
/// experiment's life; one that flaps fills this in some minutes and loses its beginning.
const CHANGES: usize = 200;

/// Reasons that are kept with one change.
const REASONS: usize = 8;

/// How the verdicts of one experiment changed.
#[derive(Debug, Default, Serialize)]
pub(super) struct VerdictHistory {
    /// The changes, the oldest first.
    verdicts: VecDeque<VerdictChange>,
    /// Changes that were forgotten for room.
    forgotten: u64,
}

/// A verdict that differs from the one before.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
struct VerdictChange {
    /// Since when, in RFC 3339.
    time: String,
    /// Of which new version.
    target: String,
    /// What it is since then.
    state: VerdictState,
    /// After how many exchanges.
    exchanges: u64,
    /// What decided it, or is missing.
    reasons: Vec<String>,
}

impl VerdictHistory {
    /// Notes the verdict of a target, where it differs from the last. `told` takes secrets out of a
    /// reason, which may name an endpoint.
    pub(super) fn note(
        &mut self,
        now: SystemTime,
        target: &str,
        verdict: &Verdict,
        exchanges: u64,
        told: impl Fn(&str) -> String,
    ) {
        let last = self.verdicts.iter().rev().find(|change| change.target == target);
        if last.is_some_and(|last| last.state == verdict.state) {
            return;
        }
        if self.verdicts.len() >= CHANGES {
            self.verdicts.pop_front();
            self.forgotten = self.forgotten.saturating_add(1);
        }
        self.verdicts.push_back(VerdictChange {
            time: rfc3339(now),
            target: target.to_owned(),
            state: verdict.state,
            exchanges,
            reasons: verdict.reasons.iter().take(REASONS).map(|reason| told(reason)).collect(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noted(states: &[VerdictState]) -> VerdictHistory {
        let mut history = VerdictHistory::default();
        for (exchanges, state) in (0..).zip(states) {
            let reasons = vec!["p95 GET /cust-7".to_owned()];
            let verdict = Verdict { state: *state, reasons, checks: Vec::new() };
            history.note(SystemTime::UNIX_EPOCH, "v2", &verdict, exchanges, |text| {
                text.replace("cust-7", "redacted")
            });
        }
        history
    }

    #[test]
    fn only_changes_are_kept_without_what_is_redacted() {
        use VerdictState::{Fail, NotEnoughData};
        let history = noted(&[NotEnoughData, NotEnoughData, Fail, Fail]);
        let told = serde_json::to_value(&history).unwrap();
        let exchanges: Vec<_> =
            told["verdicts"].as_array().unwrap().iter().map(|change| &change["exchanges"]).collect();
        assert_eq!(exchanges, [0, 2]);
        assert_eq!(told["verdicts"][1]["state"], "fail");
        assert_eq!(told["verdicts"][1]["reasons"][0], "p95 GET /redacted");
        assert_eq!(told["verdicts"][1]["time"], "1970-01-01T00:00:00.000Z");
    }

    #[test]
    fn targets_change_apart() {
        let mut history = noted(&[VerdictState::Pass]);
        let verdict = Verdict { state: VerdictState::Pass, reasons: Vec::new(), checks: Vec::new() };
        history.note(SystemTime::UNIX_EPOCH, "v3", &verdict, 9, str::to_owned);
        assert_eq!(history.verdicts.len(), 2);
    }

    #[test]
    fn verdict_that_flaps_fills_no_memory() {
        let states: Vec<_> = (0..CHANGES + 3)
            .map(|number| if number % 2 == 0 { VerdictState::Pass } else { VerdictState::Fail })
            .collect();
        let history = noted(&states);
        assert_eq!((history.verdicts.len(), history.forgotten), (CHANGES, 3));
        assert_eq!(history.verdicts.back().unwrap().exchanges, 202);
    }
}
