//! Enters: the books of the comparisons. Leaves: their metrics.

use std::fmt;

use super::encoder::Encoder;
use crate::{
    io::ledger::{AnswerOf, ComparisonSnapshot, Phase},
    pipeline::reason::{ComparisonResult, DivergenceKind, IncomparableReason, UntimedReason, VerdictState},
};

pub(super) fn encode_comparisons(out: &mut Encoder<'_>, books: &[ComparisonSnapshot]) -> fmt::Result {
    let each = || books.iter().map(|books| (&*books.experiment, books));
    out.experiment_families(
        "comparisons",
        "Exchanges whose answers were to be compared",
        ("result", &ComparisonResult::LABELS),
        each().map(|(experiment, books)| (experiment, &books.results[..])),
    )?;
    out.experiment_families(
        "divergences",
        "Places at which the answers of an exchange differ, and that no rule explains",
        ("kind", &DivergenceKind::LABELS),
        each().map(|(experiment, books)| (experiment, &books.divergences[..])),
    )?;
    out.experiment_families(
        "comparisons_incomparable",
        "Exchanges whose answers could not be compared",
        ("reason", &IncomparableReason::LABELS),
        each().map(|(experiment, books)| (experiment, &books.incomparable[..])),
    )?;
    out.experiment_families(
        "responses_untimed",
        "Answers whose time is left out",
        ("reason", &UntimedReason::LABELS),
        each().map(|(experiment, books)| (experiment, &books.untimed[..])),
    )?;
    let states =
        |verdict: Option<VerdictState>| VerdictState::ALL.map(|state| f64::from(verdict == Some(state)));
    out.experiment_gauges(
        "verdict_state",
        "1 for the verdict of this moment, 0 for the others; all 0 where there is no gate",
        ("state", &VerdictState::LABELS),
        each().map(|(experiment, books)| (experiment, states(books.verdict))),
    )?;
    encode_gates(out, books)?;
    out.histograms(
        "response_seconds",
        "Last byte of the request to first or last byte of the answer, the smallest round trip subtracted, in seconds",
        each().flat_map(|(experiment, books)| {
            AnswerOf::LABELS.iter().zip(&books.responses).flat_map(move |(of, phases)| {
                let phases = Phase::LABELS.iter().zip(phases);
                phases.map(move |(phase, histogram)| {
                    ([("experiment", experiment), ("of", *of), ("phase", *phase)], histogram)
                })
            })
        }),
    )
}

/// By what verdicts are given, for dashboards to draw.
fn encode_gates(out: &mut Encoder<'_>, books: &[ComparisonSnapshot]) -> fmt::Result {
    let gates = || books.iter().filter_map(|books| Some((&*books.experiment, books.gate.as_ref()?)));
    let limits = gates().flat_map(|(experiment, gate)| {
        let limits =
            [("divergence", Some(gate.divergence)), ("p95", gate.p95), ("errors", Some(gate.errors))];
        limits
            .into_iter()
            .filter_map(move |(limit, value)| Some(([("experiment", experiment), ("limit", limit)], value?)))
    });
    out.labelled_gauges(
        "gate_limit_ratio",
        "What the gate allows: share of exchanges that diverge, p95 as a multiple, share of errors beyond those of live",
        limits,
    )?;
    out.labelled_gauges(
        "gate_samples",
        "Exchanges that the gate needs for a verdict",
        gates().map(|(experiment, gate)| ([("experiment", experiment)], gate.min_samples as f64)),
    )
}
