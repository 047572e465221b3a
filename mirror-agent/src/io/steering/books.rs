//! Enters: the ledger and the kernel's counters. Leaves: all books at one moment, with their reasons.

use crate::{
    io::{
        config::TargetRole,
        control::{Books, ComparisonBooks, CopyBooks, Counts, FrameBooks, RequestBooks},
        ledger::{CopySnapshot, DropReason, ReplayOutcome},
        metrics::{Gauges as _, add_left_out, frame_drops, frames_captured},
        steering::Helm,
    },
    pipeline::reason::{ComparisonResult, FlowSkipReason, IncomparableReason, LostReason, SkipReason},
};

impl Helm {
    /// All books, with their reasons.
    pub(super) fn all_books(&self) -> Books {
        let kernel = self.parts.gauges.kernel_counts();
        let books = self.parts.ledger.snapshot();
        let mut flows_skipped = books.flows_skipped;
        add_left_out(&mut flows_skipped, &kernel);
        Books {
            frames: FrameBooks {
                copied: frames_captured(&kernel),
                dropped: frame_drops(&kernel).filter(|(_, count)| *count > 0).collect(),
            },
            flows_skipped: counts(&FlowSkipReason::LABELS, &flows_skipped),
            requests: RequestBooks {
                seen: books.seen,
                pending: books.pending,
                mirrored: books.mirrored,
                skipped: counts(&SkipReason::LABELS, &books.skipped),
                dropped: counts(&DropReason::LABELS, &books.dropped),
                lost: counts(&LostReason::LABELS, &books.lost),
            },
            copies: books.copies.iter().map(|copies| self.copy_books(copies)).collect(),
            comparisons: books
                .comparisons
                .iter()
                .map(|of| ComparisonBooks {
                    experiment: of.experiment.clone(),
                    results: counts(&ComparisonResult::LABELS, &of.results),
                    incomparable: counts(&IncomparableReason::LABELS, &of.incomparable),
                })
                .collect(),
        }
    }

    fn copy_books(&self, books: &CopySnapshot) -> CopyBooks {
        let mut running = self.parts.experiments.running();
        let experiment = running.find(|wanted| wanted.config.name == books.experiment);
        let target = experiment
            .and_then(|wanted| wanted.config.targets.iter().find(|target| target.name == books.target));
        CopyBooks {
            experiment: books.experiment.clone(),
            target: books.target.clone(),
            is_control: target.is_some_and(|target| target.role == TargetRole::Control),
            copies: books.copies,
            pending: books.pending,
            mirrored: books.mirrored,
            skipped: counts(&SkipReason::LABELS, &books.skipped),
            dropped: counts(&DropReason::LABELS, &books.dropped),
            replays: counts(&ReplayOutcome::LABELS, &books.replays),
        }
    }
}

/// The counts that are not zero, by their labels.
fn counts(labels: &[&'static str], counts: &[u64]) -> Counts {
    labels.iter().copied().zip(counts.iter().copied()).filter(|(_, count)| *count > 0).collect()
}
