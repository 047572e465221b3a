//! Enters: values and the rules for them. Leaves: numbers that are the same for values that count as the same.

use std::hash::{BuildHasher as _, Hash, Hasher as _};

use ahash::{AHasher, RandomState};

use super::{
    number::Decimal,
    tree::{Id, Tree, View},
};
use crate::pipeline::compare::{
    ArrayForm, NumberForm,
    path::Progress,
    plan::{Active, Reduced},
};

/// The hashes of the values of one tree, each worked out once: where a value is decides the rules for it.
///
/// Two values with the same hash are taken for the same where elements of arrays are paired; they are compared in full
/// once they are, so that a collision costs a worse report, and never a divergence.
#[derive(Debug)]
pub(super) struct Hashes<'a> {
    tree: &'a Tree,
    active: &'a Active<'a>,
    /// By value; 0 where it is not known. Empty before the first is asked for.
    known: Vec<u64>,
    state: RandomState,
}

/// The hash of any value where differences are ignored.
const IGNORED: u64 = 1;

impl<'a> Hashes<'a> {
    pub(super) fn new(tree: &'a Tree, active: &'a Active<'a>) -> Self {
        Self { tree, active, known: Vec::new(), state: RandomState::with_seeds(5, 6, 7, 8) }
    }

    /// The hash of the value `id` at `at`.
    pub(super) fn of(&mut self, id: Id, at: &Progress) -> u64 {
        if self.known.is_empty() {
            self.known.resize(self.tree.len(), 0);
        }
        let position = usize::try_from(id).unwrap_or(usize::MAX);
        match self.known.get(position) {
            Some(0) | None => {}
            Some(known) => return *known,
        }
        let hash = self.work_out(id, at).max(IGNORED);
        if let Some(known) = self.known.get_mut(position) {
            *known = hash;
        }
        hash
    }

    /// What an element of a table is told by: its field `key`, or all of it where it has none.
    pub(super) fn of_key(&mut self, id: Id, key: &str, at: &Progress) -> u64 {
        let tree = self.tree;
        let value = match tree.view(id) {
            View::Object(members) => members.value_of(key.as_bytes()),
            View::Null | View::Bool(_) | View::Number(_) | View::String(_) | View::Array(_) => None,
        };
        let mut hasher = self.state.build_hasher();
        match value.map(|value| tree.view(value)) {
            Some(View::Number(text)) => (1_u8, self.number(text)).hash(&mut hasher),
            Some(View::String(text)) => (2_u8, text).hash(&mut hasher),
            _ => (3_u8, self.of(id, at)).hash(&mut hasher),
        }
        hasher.finish()
    }

    /// The hashes of what a value is made of, sorted: of an object its members, of anything its type.
    pub(super) fn parts(&mut self, id: Id, at: &Progress) -> Vec<u64> {
        let (tree, active) = (self.tree, self.active);
        let (tag, members) = match tree.view(id) {
            View::Null => (0_u64, None),
            View::Bool(_) => (1, None),
            View::Number(_) => (2, None),
            View::String(_) => (3, None),
            View::Array(_) => (4, None),
            View::Object(members) => (5, Some(members)),
        };
        let mut parts = vec![tag];
        for (key, value) in members.into_iter().flatten() {
            match self.of(value, &active.plan.paths.member(at, key)) {
                IGNORED => {}
                hash => parts.push(self.state.hash_one((key, hash))),
            }
        }
        parts.sort_unstable();
        parts
    }

    fn work_out(&mut self, id: Id, at: &Progress) -> u64 {
        let (tree, active) = (self.tree, self.active);
        let rules = active.at_path(at);
        if active.ignoring(&rules).is_some() {
            return IGNORED;
        }
        let mut hasher = self.state.build_hasher();
        match tree.view(id) {
            View::Null => 0_u8.hash(&mut hasher),
            View::Bool(value) => (1_u8, value).hash(&mut hasher),
            View::Number(text) if rules.is_empty() => (2_u8, self.number(text)).hash(&mut hasher),
            View::Number(text) => {
                2_u8.hash(&mut hasher);
                match active.reduce(&rules, text) {
                    Reduced::Value(text) => self.number(&text).hash(&mut hasher),
                    reduced @ (Reduced::Ignored | Reduced::AnyOf(_)) => hash_reduced(&reduced, &mut hasher),
                }
            }
            View::String(text) => {
                3_u8.hash(&mut hasher);
                hash_reduced(&active.reduce(&rules, text), &mut hasher);
            }
            View::Array(elements) => {
                let matcher = &active.plan.paths;
                let of = elements
                    .iter()
                    .enumerate()
                    .map(|(index, element)| self.of(*element, &matcher.element(at, index)));
                match active.array_form(at) {
                    ArrayForm::Ordered => (4_u8, of.collect::<Vec<_>>()).hash(&mut hasher),
                    ArrayForm::Set | ArrayForm::KeyedBy(_) => {
                        let mut of: Vec<u64> = of.collect();
                        of.sort_unstable();
                        (5_u8, of).hash(&mut hasher);
                    }
                }
            }
            View::Object(members) => {
                6_u8.hash(&mut hasher);
                for (key, value) in members {
                    // A member that is ignored may as well be missing.
                    match self.of(value, &active.plan.paths.member(at, key)) {
                        IGNORED => {}
                        hash => (key, hash).hash(&mut hasher),
                    }
                }
            }
        }
        hasher.finish()
    }

    fn number(&self, text: &[u8]) -> u64 {
        let mut hasher: AHasher = self.state.build_hasher();
        match (self.active.plan.numbers, Decimal::parse(text)) {
            (NumberForm::Value, Some(number)) => number.hash(&mut hasher),
            (NumberForm::Value, None) | (NumberForm::Text, _) => text.hash(&mut hasher),
        }
        hasher.finish()
    }
}

fn hash_reduced(reduced: &Reduced<'_>, hasher: &mut AHasher) {
    match reduced {
        Reduced::Ignored => 0_u8.hash(hasher),
        Reduced::AnyOf(rule) => (1_u8, rule).hash(hasher),
        Reduced::Value(value) => (2_u8, value).hash(hasher),
    }
}
