//! Enters: the experiments that left a request aside. Leaves: how often each of them did, and why.

use std::mem;

use crate::pipeline::{policy::ExperimentSet, reason::SkipReason, stats::bump};

/// How often an experiment left a request aside, by [`SkipReason`].
pub(crate) type Skips = [u64; SkipReason::ALL.len()];

/// The same of each experiment of a policy.
#[derive(Debug, Default)]
pub(crate) struct SkipCounts {
    by_reason: [Counter; SkipReason::ALL.len()],
    /// By the experiment's position in the policy; all zero but while they are told.
    sums: Vec<Skips>,
}

/// A binary number for each experiment: a plane holds one digit of all of them, the first the lowest. So a request that
/// a hundred of them leave aside is counted by a few operations.
#[derive(Debug, Default)]
struct Counter {
    planes: Vec<ExperimentSet>,
}

impl SkipCounts {
    /// Zero for so many experiments.
    pub(crate) fn new(experiments: usize) -> Self {
        Self { sums: vec![Skips::default(); experiments], ..Self::default() }
    }

    /// Counts a request that these left aside for this reason.
    pub(crate) fn add(&mut self, experiments: ExperimentSet, reason: SkipReason) {
        if let Some(counter) = self.by_reason.get_mut(reason.index()) {
            counter.add(experiments);
        }
    }

    /// Tells of each experiment that is not at zero, by its position, and begins at zero again.
    pub(crate) fn take(&mut self, mut tell: impl FnMut(usize, &Skips)) {
        let mut counted = ExperimentSet::default();
        for (reason, counter) in self.by_reason.iter_mut().enumerate() {
            let mut digit: u64 = 1;
            for plane in counter.planes.drain(..) {
                counted = counted.union(plane);
                for position in plane.iter() {
                    if let Some(skips) = self.sums.get_mut(position) {
                        bump(skips, reason, digit);
                    }
                }
                digit = digit.saturating_mul(2);
            }
        }
        for position in counted.iter() {
            if let Some(skips) = self.sums.get_mut(position) {
                tell(position, &mem::take(skips));
            }
        }
    }
}

impl Counter {
    fn add(&mut self, mut carried: ExperimentSet) {
        for plane in &mut self.planes {
            if carried.is_empty() {
                return;
            }
            let full = plane.intersection(carried);
            *plane = plane.union(carried).without(full);
            carried = full;
        }
        if !carried.is_empty() {
            self.planes.push(carried);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_told_is_what_was_counted(
            rounds in prop::collection::vec(prop::collection::vec((any::<u8>(), 0..3_usize, 1..40_usize), 0..30), 1..4),
        ) {
            const REASONS: [SkipReason; 3] = [SkipReason::Unmatched, SkipReason::Method, SkipReason::Sampled];
            let mut counts = SkipCounts::new(ExperimentSet::CAPACITY);
            for round in rounds {
                let mut expected = vec![Skips::default(); ExperimentSet::CAPACITY];
                for (first, reason, step) in round {
                    let mut experiments = ExperimentSet::default();
                    for position in (usize::from(first)..ExperimentSet::CAPACITY).step_by(step) {
                        experiments.insert(position);
                        expected[position][REASONS[reason].index()] += 1;
                    }
                    counts.add(experiments, REASONS[reason]);
                }
                let mut told = vec![Skips::default(); ExperimentSet::CAPACITY];
                counts.take(|position, skips| told[position] = *skips);
                prop_assert_eq!(told, expected);
            }
            counts.take(|position, _| panic!("{position} is told of twice"));
        }
    }
}
