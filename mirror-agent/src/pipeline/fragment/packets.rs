//! Enters: packets of which fragments have come, but not all. Leaves: those that are too old, or too many.

use std::collections::{BTreeMap, VecDeque};

use mirror_common::packet::FragmentKey;

use super::{MAX_AGE, MAX_PACKETS};
use crate::pipeline::Timestamp;

/// Packets by their keys, [`MAX_PACKETS`] of them at most.
#[derive(Debug)]
pub(super) struct Packets<P> {
    /// Each with when it was opened.
    by_key: BTreeMap<FragmentKey, (Timestamp, P)>,
    /// The same, the earliest first. What has left `by_key` since is still here, for a while.
    opened: VecDeque<(Timestamp, FragmentKey)>,
}

impl<P> Default for Packets<P> {
    fn default() -> Self {
        Self { by_key: BTreeMap::new(), opened: VecDeque::new() }
    }
}

impl<P> Packets<P> {
    pub(super) fn get_mut(&mut self, key: &FragmentKey) -> Option<&mut P> {
        self.by_key.get_mut(key).map(|(_, packet)| packet)
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &P> {
        self.by_key.values().map(|(_, packet)| packet)
    }

    /// Takes a packet out.
    pub(super) fn remove(&mut self, key: &FragmentKey) -> Option<P> {
        self.by_key.remove(key).map(|(_, packet)| packet)
    }

    /// Puts a packet in. Gives those that make way: the one that had its key, and the earliest where there are too many.
    pub(super) fn open(&mut self, at: Timestamp, key: FragmentKey, packet: P) -> Vec<P> {
        let mut gone: Vec<P> = self.remove(&key).into_iter().collect();
        while self.opened.len() >= MAX_PACKETS {
            gone.extend(self.take_earliest());
        }
        self.opened.push_back((at, key));
        self.by_key.insert(key, (at, packet));
        gone
    }

    /// Takes out those of which the fragments have taken too long.
    pub(super) fn take_outdated(&mut self, now: Timestamp) -> Vec<P> {
        let limit = now.before(MAX_AGE);
        let mut gone = Vec::new();
        while self.opened.front().is_some_and(|(opened_at, _)| *opened_at < limit) {
            gone.extend(self.take_earliest());
        }
        gone
    }

    /// Takes out the one that was opened first; `None` where it has left since, or there is none.
    pub(super) fn take_earliest(&mut self) -> Option<P> {
        let (opened_at, key) = self.opened.pop_front()?;
        self.by_key.get(&key).filter(|(at, _)| *at == opened_at)?;
        self.remove(&key)
    }

    /// Whether none was opened of late.
    pub(super) fn is_empty(&self) -> bool {
        self.opened.is_empty()
    }

    /// How many there are, and how many are remembered.
    #[cfg(test)]
    pub(super) fn len(&self) -> (usize, usize) {
        (self.by_key.len(), self.opened.len())
    }
}
