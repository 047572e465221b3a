//! Enters: what came of the comparisons of one experiment. Leaves: counters that may be added up over agents.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use super::{HistogramSnapshot, add, histogram::Histogram, load};
use crate::pipeline::{
    judge::GateConfig,
    reason::{ComparisonResult, DivergenceKind, IncomparableReason, UntimedReason, VerdictState, reasons},
};

reasons! {
    /// Whose answer it is.
    AnswerOf {
        /// The live service's.
        Live => "live",
        /// A new version's.
        Shadow => "shadow",
        /// That of a second copy of the live version.
        Control => "control",
    }
}

reasons! {
    /// Which part of an answer was waited for.
    Phase {
        /// From the last byte of the request to the first of the response.
        FirstByte => "first_byte",
        /// From the last byte of the request to the last of the response.
        LastByte => "last_byte",
    }
}

/// The books of the comparisons of one experiment.
#[derive(Debug)]
pub struct ComparisonBooks {
    experiment: String,
    results: [AtomicU64; ComparisonResult::ALL.len()],
    divergences: [AtomicU64; DivergenceKind::ALL.len()],
    incomparable: [AtomicU64; IncomparableReason::ALL.len()],
    untimed: [AtomicU64; UntimedReason::ALL.len()],
    responses: [[Histogram; Phase::ALL.len()]; AnswerOf::ALL.len()],
    /// One more than the index of the verdict; 0 where there is none.
    verdict: AtomicU64,
    gate: Mutex<Option<GateConfig>>,
    fields: Mutex<Arc<[FieldFigures]>>,
}

/// What is known of a number that is followed in the answers of live and one target.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldFigures {
    /// Name of the target.
    pub target: String,
    /// Where in the answers it stands.
    pub path: String,
    /// Live's numbers.
    pub live: NumberFigures,
    /// The target's.
    pub shadow: NumberFigures,
}

/// Numbers of one side.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NumberFigures {
    /// How many there were.
    pub count: u64,
    /// Their sum.
    pub sum: f64,
    /// Quantiles and their values; none where there are no numbers.
    pub quantiles: Vec<(f64, f64)>,
}

impl ComparisonBooks {
    /// Empty books.
    #[must_use]
    pub fn new(experiment: &str) -> Self {
        Self {
            experiment: experiment.to_owned(),
            results: Default::default(),
            divergences: Default::default(),
            incomparable: Default::default(),
            untimed: Default::default(),
            responses: Default::default(),
            verdict: AtomicU64::default(),
            gate: Mutex::default(),
            fields: Mutex::default(),
        }
    }

    /// Name of the experiment.
    #[must_use]
    pub fn experiment(&self) -> &str {
        &self.experiment
    }

    /// Counts exchanges of which this came; `reason` where there was nothing to compare.
    pub fn compared(&self, result: ComparisonResult, reason: Option<IncomparableReason>, exchanges: u64) {
        add(self.results.get(result.index()), exchanges);
        if let Some(reason) = reason {
            add(self.incomparable.get(reason.index()), exchanges);
        }
    }

    /// Counts a divergence.
    pub fn diverged(&self, kind: DivergenceKind) {
        add(self.divergences.get(kind.index()), 1);
    }

    /// Notes how long an answer took.
    pub fn answered(&self, of: AnswerOf, phase: Phase, took: Duration) {
        if let Some(histogram) = self.responses.get(of.index()).and_then(|of| of.get(phase.index())) {
            histogram.observe(took);
        }
    }

    /// Counts an answer whose time is left out.
    pub fn untimed(&self, reason: UntimedReason) {
        add(self.untimed.get(reason.index()), 1);
    }

    /// Notes the verdict of this moment; `None` where none is asked for.
    pub fn set_verdict(&self, verdict: Option<VerdictState>) {
        let index = verdict.map_or(0, |verdict| verdict.index() + 1);
        self.verdict.store(u64::try_from(index).unwrap_or_default(), Ordering::Relaxed);
    }

    /// Notes by what the verdict is given; `None` where none is asked for.
    pub fn set_gate(&self, gate: Option<&GateConfig>) {
        *self.lock_gate() = gate.cloned();
    }

    fn lock_gate(&self) -> MutexGuard<'_, Option<GateConfig>> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what is known of the numbers that are followed.
    pub fn set_fields(&self, fields: Vec<FieldFigures>) {
        *self.fields.lock().unwrap_or_else(PoisonError::into_inner) = fields.into();
    }

    /// The books at one moment.
    #[must_use]
    pub fn snapshot(&self) -> ComparisonSnapshot {
        let verdict = usize::try_from(self.verdict.load(Ordering::Relaxed)).unwrap_or_default();
        ComparisonSnapshot {
            experiment: self.experiment.clone(),
            results: load(&self.results),
            divergences: load(&self.divergences),
            incomparable: load(&self.incomparable),
            untimed: load(&self.untimed),
            responses: self.responses.each_ref().map(|of| of.each_ref().map(Histogram::snapshot)),
            verdict: verdict.checked_sub(1).and_then(|index| VerdictState::ALL.get(index).copied()),
            gate: self.lock_gate().clone(),
            fields: Arc::clone(&self.fields.lock().unwrap_or_else(PoisonError::into_inner)),
        }
    }
}

/// The books of the comparisons of one experiment at one moment.
#[derive(Clone, Debug)]
pub struct ComparisonSnapshot {
    /// Name of the experiment.
    pub experiment: String,
    /// Exchanges, by [`ComparisonResult`].
    pub results: [u64; ComparisonResult::ALL.len()],
    /// Places at which answers differ, by [`DivergenceKind`].
    pub divergences: [u64; DivergenceKind::ALL.len()],
    /// Exchanges that could not be compared, by [`IncomparableReason`].
    pub incomparable: [u64; IncomparableReason::ALL.len()],
    /// Answers whose time is left out, by [`UntimedReason`].
    pub untimed: [u64; UntimedReason::ALL.len()],
    /// How long answers took, by [`AnswerOf`] and [`Phase`].
    pub responses: [[HistogramSnapshot; Phase::ALL.len()]; AnswerOf::ALL.len()],
    /// The verdict, where one is asked for.
    pub verdict: Option<VerdictState>,
    /// By what it is given, likewise.
    pub gate: Option<GateConfig>,
    /// Numbers that are followed, by target and in the order of the configuration.
    pub fields: Arc<[FieldFigures]>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_what_is_shown() {
        let books = ComparisonBooks::new("shop");
        books.compared(ComparisonResult::Equal, None, 1);
        books.compared(ComparisonResult::Incomparable, Some(IncomparableReason::Gap), 1);
        books.diverged(DivergenceKind::Value);
        books.untimed(UntimedReason::Pipelined);
        books.answered(AnswerOf::Shadow, Phase::LastByte, Duration::from_millis(3));
        let none = books.snapshot();
        assert_eq!(none.verdict, None);
        books.set_verdict(Some(VerdictState::Fail));
        let shown = books.snapshot();
        assert_eq!(shown.results, [1, 0, 0, 1]);
        assert_eq!(shown.incomparable[IncomparableReason::Gap.index()], 1);
        assert_eq!(shown.divergences[DivergenceKind::Value.index()], 1);
        assert_eq!(shown.untimed[UntimedReason::Pipelined.index()], 1);
        let [_, [first, last], _] = &shown.responses;
        let count =
            |histogram: &HistogramSnapshot| -> u64 { histogram.buckets.iter().map(|(_, count)| count).sum() };
        assert_eq!([count(first), count(last)], [0, 1]);
        assert_eq!((shown.verdict, shown.gate), (Some(VerdictState::Fail), None));
        let gate = GateConfig { divergence: 0.25, ..GateConfig::default() };
        books.set_gate(Some(&gate));
        assert_eq!(books.snapshot().gate, Some(gate));
    }
}
