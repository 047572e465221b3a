//! Enters: positions of experiments. Leaves: the set of them that goes with a request.

use std::sync::Arc;

use super::Policy;

/// Positions in a policy's list of experiments.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ExperimentSet(u128);

impl ExperimentSet {
    /// How many experiments a policy can have.
    pub const CAPACITY: usize = 128;

    /// Adds a position below [`Self::CAPACITY`]; others are left out.
    pub fn insert(&mut self, position: usize) {
        self.0 |= Self::bit(position);
    }

    /// Whether `position` is among them.
    #[must_use]
    pub fn contains(self, position: usize) -> bool {
        self.0 & Self::bit(position) != 0
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The positions that are in either.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The positions that are in both.
    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The positions that are not in `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The positions, in their order.
    pub fn iter(self) -> impl Iterator<Item = usize> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let position = usize::try_from(rest.trailing_zeros()).unwrap_or(Self::CAPACITY);
            rest &= rest.wrapping_sub(1);
            (position < Self::CAPACITY).then_some(position)
        })
    }

    fn bit(position: usize) -> u128 {
        u32::try_from(position).ok().and_then(|position| 1_u128.checked_shl(position)).unwrap_or(0)
    }
}

/// Which experiments of which policy took a request.
#[derive(Debug)]
pub struct Selection {
    /// The policy that was in force when the request's head was complete.
    pub policy: Arc<Policy>,
    /// Those of its experiments that took the request; at least one.
    pub experiments: ExperimentSet,
}

impl Selection {
    /// Whether any of the experiments reads live's answer.
    #[must_use]
    pub fn reads_answer(&self) -> bool {
        !self.experiments.intersection(self.policy.readers).is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::ExperimentSet;

    #[test]
    fn a_set_holds_every_position_that_a_policy_can_have() {
        let mut set = ExperimentSet::default();
        assert!(set.is_empty());
        for position in [0, 63, 64, 127, 128, usize::MAX] {
            set.insert(position);
        }
        assert_eq!(set.iter().collect::<Vec<_>>(), [0, 63, 64, 127]);
        assert!(set.contains(127) && !set.contains(1) && !set.contains(128));
    }

    #[test]
    fn sets_are_joined_and_cut() {
        let of = |positions: &[usize]| {
            let mut set = ExperimentSet::default();
            positions.iter().for_each(|position| set.insert(*position));
            set
        };
        let (some, others) = (of(&[1, 2, 100]), of(&[2, 100, 127]));
        assert_eq!(some.union(others), of(&[1, 2, 100, 127]));
        assert_eq!(some.intersection(others), of(&[2, 100]));
        assert_eq!(some.without(others), of(&[1]));
    }
}
