//! Enters: two arrays at the same place. Leaves: where they differ, as sequences, sets or tables.

use std::ops::Range;

use super::{
    align::{Bags, Pair, align, pair_bags},
    alike::{MAX_LOOKED_AT, pair_alike},
    tree::Id,
    walk::{Lack, Only, Walk, plain_text},
    way::Step,
};
use crate::pipeline::{
    compare::{ArrayForm, path::Progress},
    reason::DivergenceKind,
};

impl<'a> Walk<'a, '_> {
    /// Compares two arrays by what the rules say they are.
    pub(super) fn diff_arrays(&mut self, live: &'a [Id], other: &'a [Id], at: &Progress) {
        let form = if self.way.is_lines() { &ArrayForm::Ordered } else { self.active.array_form(at) };
        match form {
            ArrayForm::Ordered => self.diff_sequences(live, other, at),
            ArrayForm::Set => {
                let keys = self.keys(live, other, at, None);
                self.diff_sets(live, other, keys, at);
            }
            ArrayForm::KeyedBy(field) => {
                let keys = self.keys(live, other, at, Some(field));
                self.diff_tables(live, other, keys, at);
            }
        }
    }

    fn diff_sequences(&mut self, live: &'a [Id], other: &'a [Id], at: &Progress) {
        let is_different =
            |(live, other): &(&Id, &Id)| self.live.source(**live) != self.other.source(**other);
        let different = live.iter().zip(other).filter(is_different).take(2).count();
        // One element that differs cannot be in another place: nothing has to be looked for.
        if live.len() == other.len() && different < 2 {
            for index in 0..live.len() {
                self.diff_elements((live, index), (other, index), at);
            }
            return;
        }
        let (live_keys, other_keys) = self.keys(live, other, at, None);
        let alignment = align(&live_keys, &other_keys);
        let without = |keys: &[u64], ranges: Vec<Range<usize>>| -> Vec<(usize, u64)> {
            let positions = ranges.into_iter().flatten();
            positions.filter_map(|position| Some((position, *keys.get(position)?))).collect()
        };
        let (of_live, of_other) = alignment.gaps.iter().cloned().unzip();
        // What is left on both sides alike has another place.
        let moved = pair_bags(without(&live_keys, of_live), without(&other_keys, of_other));
        let mut pairs = alignment.pairs;
        let mut left = Left::default();
        for (of_live, of_other) in alignment.gaps {
            let of_live = of_live.filter(|position| moved.live.binary_search(position).is_ok()).collect();
            let of_other = of_other.filter(|position| moved.other.binary_search(position).is_ok()).collect();
            self.pair_changed((live, of_live), (other, of_other), at, &mut pairs, &mut left);
        }
        if !moved.pairs.is_empty() {
            self.tell_of_order(live, other, (&live_keys, &other_keys));
        }
        pairs.extend(moved.pairs);
        pairs.sort_unstable();
        for (of_live, of_other) in pairs {
            self.diff_elements((live, of_live), (other, of_other), at);
        }
        if self.lack_elements(live, other, &left, at) == Lack::Told && live.len() != other.len() {
            let text = |elements: &[Id]| Some(elements.len().to_string().into_bytes().into());
            self.diverge(DivergenceKind::Length, || [text(live), text(other)]);
        }
    }

    /// Pairs elements, by their positions, of which no two are the same.
    fn pair_changed(
        &mut self,
        (live, mut of_live): (&[Id], Vec<usize>),
        (other, mut of_other): (&[Id], Vec<usize>),
        at: &Progress,
        pairs: &mut Vec<Pair>,
        left: &mut Left,
    ) {
        let looked_at = of_live.len().saturating_mul(of_other.len());
        if (2..=MAX_LOOKED_AT).contains(&looked_at) {
            let mut live_parts = Vec::with_capacity(of_live.len());
            for (index, id) in of_live.iter().filter_map(|index| Some((*index, *live.get(*index)?))) {
                let at = self.element(at, index);
                live_parts.push(self.live_hashes.parts(id, &at));
            }
            let mut other_parts = Vec::with_capacity(of_other.len());
            for (index, id) in of_other.iter().filter_map(|index| Some((*index, *other.get(*index)?))) {
                let at = self.element(at, index);
                other_parts.push(self.other_hashes.parts(id, &at));
            }
            let alike = pair_alike(&live_parts, &other_parts);
            let to_positions = |pair: &Pair| Some((*of_live.get(pair.0)?, *of_other.get(pair.1)?));
            let paired: Vec<Pair> = alike.iter().filter_map(to_positions).collect();
            of_live.retain(|position| !paired.iter().any(|pair| pair.0 == *position));
            of_other.retain(|position| !paired.iter().any(|pair| pair.1 == *position));
            pairs.extend(paired);
        } else {
            let count = of_live.len().min(of_other.len());
            pairs.extend(of_live.drain(..count).zip(of_other.drain(..count)));
        }
        left.live.extend(of_live);
        left.other.extend(of_other);
    }

    /// One divergence for all that is not where it was: the elements of the first index at which the two differ.
    fn tell_of_order(&mut self, live: &'a [Id], other: &'a [Id], keys: (&[u64], &[u64])) {
        let first = keys.0.iter().zip(keys.1).position(|(of_live, of_other)| of_live != of_other);
        let (live_tree, other_tree) = (self.live, self.other);
        let of_live = first.and_then(|at| live.get(at)).map(|id| plain_text(live_tree, *id));
        let of_other = first.and_then(|at| other.get(at)).map(|id| plain_text(other_tree, *id));
        self.diverge(DivergenceKind::Order, || [of_live, of_other]);
    }

    /// What both have in whatever order; what is left is paired as it comes.
    fn diff_sets(&mut self, live: &'a [Id], other: &'a [Id], keys: (Vec<u64>, Vec<u64>), at: &Progress) {
        let mut bags = bags(keys);
        let changed = bags.live.len().min(bags.other.len());
        bags.pairs.extend(bags.live.drain(..changed).zip(bags.other.drain(..changed)));
        self.diff_bags(live, other, bags, at);
    }

    /// Rows by their keys; a row that one side lacks is never another one.
    fn diff_tables(&mut self, live: &'a [Id], other: &'a [Id], keys: (Vec<u64>, Vec<u64>), at: &Progress) {
        self.diff_bags(live, other, bags(keys), at);
    }

    fn diff_bags(&mut self, live: &'a [Id], other: &'a [Id], bags: Bags, at: &Progress) {
        for (of_live, of_other) in bags.pairs {
            self.diff_elements((live, of_live), (other, of_other), at);
        }
        self.lack_elements(live, other, &Left { live: bags.live, other: bags.other }, at);
    }

    /// What the elements of both are told by: the field that `field` names, or all of them.
    fn keys(
        &mut self,
        live: &[Id],
        other: &[Id],
        at: &Progress,
        field: Option<&str>,
    ) -> (Vec<u64>, Vec<u64>) {
        let mut live_keys = Vec::with_capacity(live.len());
        for (index, id) in live.iter().enumerate() {
            let at = self.element(at, index);
            live_keys.push(match field {
                Some(field) => self.live_hashes.of_key(*id, field, &at),
                None => self.live_hashes.of(*id, &at),
            });
        }
        let mut other_keys = Vec::with_capacity(other.len());
        for (index, id) in other.iter().enumerate() {
            let at = self.element(at, index);
            other_keys.push(match field {
                Some(field) => self.other_hashes.of_key(*id, field, &at),
                None => self.other_hashes.of(*id, &at),
            });
        }
        (live_keys, other_keys)
    }

    /// Compares one element of each; rules look at live's index.
    fn diff_elements(&mut self, live: (&'a [Id], usize), other: (&'a [Id], usize), at: &Progress) {
        if let (Some(of_live), Some(of_other)) = (live.0.get(live.1), other.0.get(other.1)) {
            let at = self.element(at, live.1);
            self.step_to((live.1, other.1));
            self.diff(*of_live, *of_other, &at);
            self.way.pop();
        }
    }

    /// Tells of elements that only one side has.
    fn lack_elements(&mut self, live: &'a [Id], other: &'a [Id], left: &Left, at: &Progress) -> Lack {
        let mut came = Lack::Explained;
        let of_live = left.live.iter().map(|index| (Only::Live, live, *index));
        let of_other = left.other.iter().map(|index| (Only::Other, other, *index));
        for (only, of, index) in of_live.chain(of_other) {
            let Some(id) = of.get(index) else { continue };
            let at = self.element(at, index);
            self.step_to((index, index));
            if self.lack(only, *id, &at) == Lack::Told {
                came = Lack::Told;
            }
            self.way.pop();
        }
        came
    }

    /// The rules' progress at the element `index`; a line is a value of its own.
    fn element(&self, at: &Progress, index: usize) -> Progress {
        let matcher = &self.active.plan.paths;
        if self.way.is_lines() { matcher.start() } else { matcher.element(at, index) }
    }

    fn step_to(&mut self, at: Pair) {
        self.way.push(if self.way.is_lines() { Step::Line(at) } else { Step::Index(at) });
    }
}

/// Positions of elements without a partner.
#[derive(Debug, Default)]
struct Left {
    live: Vec<usize>,
    other: Vec<usize>,
}

fn bags((live, other): (Vec<u64>, Vec<u64>)) -> Bags {
    pair_bags(live.into_iter().enumerate(), other.into_iter().enumerate())
}
