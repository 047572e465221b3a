//! Enters: texts, each with something that belongs to it. Leaves: what belongs to those with which another text begins.

use std::{collections::BTreeMap, iter};

/// Texts in order, each with the longest other one with which it begins: those with which a text begins are found by
/// one search, however many there are.
#[derive(Clone, Debug)]
pub(super) struct Beginnings<T> {
    entries: Vec<Entry<T>>,
}

#[derive(Clone, Debug)]
struct Entry<T> {
    text: Box<[u8]>,
    /// Position of the longest other text with which this one begins.
    within: Option<usize>,
    value: T,
}

impl<T> Beginnings<T> {
    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// What belongs to each text with which `whole` begins, itself included; the longest first.
    pub(super) fn of(&self, whole: &[u8]) -> impl Iterator<Item = &T> {
        // A text between a beginning of `whole` and `whole` has the same beginning. So the last that is not greater has
        // all beginnings of `whole` among its own.
        let greater = self.entries.partition_point(|entry| *entry.text <= *whole);
        let last = greater.checked_sub(1).and_then(|last| self.entries.get(last));
        iter::successors(last, |entry| self.entries.get(entry.within?))
            .filter(|entry| whole.starts_with(&entry.text))
            .map(|entry| &entry.value)
    }
}

impl<T> Default for Beginnings<T> {
    fn default() -> Self {
        Self { entries: Vec::new() }
    }
}

impl<T> From<BTreeMap<Box<[u8]>, T>> for Beginnings<T> {
    fn from(texts: BTreeMap<Box<[u8]>, T>) -> Self {
        let mut entries: Vec<Entry<T>> = Vec::with_capacity(texts.len());
        for (text, value) in texts {
            let mut within = entries.len().checked_sub(1);
            while let Some(entry) = within.and_then(|position| entries.get(position)) {
                if text.starts_with(&entry.text) {
                    break;
                }
                within = entry.within;
            }
            entries.push(Entry { text, within, value });
        }
        Self { entries }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn texts() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(b'a'..=b'c', 0..5)
    }

    proptest! {
        #[test]
        fn every_beginning_is_found_and_nothing_else(
            known in prop::collection::btree_set(texts(), 0..20),
            whole in texts(),
        ) {
            let numbered: BTreeMap<Box<[u8]>, Vec<u8>> =
                known.iter().map(|text| (text.clone().into(), text.clone())).collect();
            let beginnings = Beginnings::from(numbered);
            let found: Vec<_> = beginnings.of(&whole).cloned().collect();
            // The longest first.
            let expected: Vec<_> = known.iter().rev().filter(|text| whole.starts_with(text)).cloned().collect();
            prop_assert_eq!(found, expected);
            prop_assert_eq!(beginnings.is_empty(), known.is_empty());
        }
    }
}
