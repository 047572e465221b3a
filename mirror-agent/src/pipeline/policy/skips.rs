//! Enters: the experiments that left a request aside. Leaves: how often each of them did, and why.

use super::ExperimentSet;
use crate::pipeline::reason::SkipReason;

/// How often each experiment of a policy left a request aside, by its position, and why.
#[derive(Debug, Default)]
pub struct SkipCounts([Counter; SkipReason::ALL.len()]);

/// A binary number for each experiment: a plane holds one digit of all of them, the first the lowest. So a request that
/// a hundred of them leave aside is counted by a few operations.
#[derive(Debug, Default)]
struct Counter {
    planes: Vec<ExperimentSet>,
}

impl SkipCounts {
    /// Counts a request that these left aside for this reason.
    pub fn add(&mut self, experiments: ExperimentSet, reason: SkipReason) {
        if let Some(counter) = self.0.get_mut(reason.index()) {
            counter.add(0, experiments);
        }
    }

    /// Takes over what `other` has counted, which begins at zero again.
    pub fn absorb(&mut self, other: &mut Self) {
        for (counter, other) in self.0.iter_mut().zip(&mut other.0) {
            for (digit, plane) in other.planes.drain(..).enumerate() {
                counter.add(digit, plane);
            }
        }
    }

    /// Tells of each experiment that is not at zero, by its position, and begins at zero again.
    pub fn take(&mut self, mut tell: impl FnMut(usize, &[u64; SkipReason::ALL.len()])) {
        let planes = self.0.iter().flat_map(|counter| &counter.planes);
        let counted = planes.fold(ExperimentSet::default(), |counted, plane| counted.union(*plane));
        for position in counted.iter() {
            tell(position, &self.0.each_ref().map(|counter| counter.of(position)));
        }
        self.0.iter_mut().for_each(|counter| counter.planes.clear());
    }
}

impl Counter {
    /// Adds a one at this digit to the numbers of `carried`.
    fn add(&mut self, digit: usize, mut carried: ExperimentSet) {
        if self.planes.len() < digit {
            self.planes.resize(digit, ExperimentSet::default());
        }
        for plane in self.planes.iter_mut().skip(digit) {
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

    /// The number of the experiment at this position.
    fn of(&self, position: usize) -> u64 {
        let digits = self.planes.iter().rev().map(|plane| u64::from(plane.contains(position)));
        digits.fold(0, |number, digit| (number << 1) | digit)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Counts of all experiments, by position and reason.
    type Sums = Vec<[u64; SkipReason::ALL.len()]>;

    fn taken(counts: &mut SkipCounts) -> Sums {
        let mut sums = vec![[0; SkipReason::ALL.len()]; ExperimentSet::CAPACITY];
        counts.take(|position, skips| sums[position] = *skips);
        sums
    }

    proptest! {
        #[test]
        fn what_is_told_is_what_was_counted_here_or_elsewhere(
            rounds in prop::collection::vec(
                prop::collection::vec((any::<u8>(), 0..3_usize, 1..40_usize), 0..40),
                1..6,
            ),
            taken_after in 0..6_usize,
        ) {
            const REASONS: [SkipReason; 3] = [SkipReason::Unmatched, SkipReason::Method, SkipReason::Sampled];
            let (mut all, mut of_round) = (SkipCounts::default(), SkipCounts::default());
            let mut expected = taken(&mut all);
            for (number, round) in rounds.into_iter().enumerate() {
                for (first, reason, step) in round {
                    let mut experiments = ExperimentSet::default();
                    for position in (usize::from(first)..ExperimentSet::CAPACITY).step_by(step) {
                        experiments.insert(position);
                        expected[position][REASONS[reason].index()] += 1;
                    }
                    of_round.add(experiments, REASONS[reason]);
                }
                all.absorb(&mut of_round);
                prop_assert!(taken(&mut of_round).iter().flatten().all(|count| *count == 0), "counted twice");
                if number == taken_after {
                    prop_assert_eq!(taken(&mut all), std::mem::take(&mut expected));
                    expected = taken(&mut all);
                }
            }
            prop_assert_eq!(taken(&mut all), expected);
        }
    }
}
