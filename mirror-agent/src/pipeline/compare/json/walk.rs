//! Enters: two trees. Leaves: where they differ, found by one walk through both at once.

use std::{borrow::Cow, cmp::Ordering};

use super::{
    hash::Hashes,
    number::same_value,
    tree::{Id, Members, Tree, View},
    way::{Step, Way},
};
use crate::pipeline::{
    compare::{
        NumberForm,
        found::{Found, Where},
        path::Progress,
        plan::Active,
        template::clean,
    },
    reason::DivergenceKind,
};

/// What the root of a tree is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::pipeline::compare) enum Form {
    /// A value.
    Value,
    /// An array of lines with a value each, to which paths apply.
    Lines,
}

/// Compares two trees of the same form.
pub(in crate::pipeline::compare) fn compare(
    live: &Tree,
    other: &Tree,
    form: Form,
    active: &Active<'_>,
    found: &mut Found,
) {
    let mut walk = Walk {
        live,
        other,
        active,
        found,
        live_hashes: Hashes::new(live, active),
        other_hashes: Hashes::new(other, active),
        way: Way::new(form),
    };
    walk.diff(live.root(), other.root(), &active.plan.paths.start());
}

/// A walk through both trees.
pub(super) struct Walk<'a, 'f> {
    pub(super) live: &'a Tree,
    pub(super) other: &'a Tree,
    pub(super) active: &'a Active<'a>,
    pub(super) found: &'f mut Found,
    pub(super) live_hashes: Hashes<'a>,
    pub(super) other_hashes: Hashes<'a>,
    pub(super) way: Way<'a>,
}

/// Which of the two has a value that the other has not.
#[derive(Clone, Copy, Debug)]
pub(super) enum Only {
    Live,
    Other,
}

impl<'a> Walk<'a, '_> {
    /// Compares two values at the same place.
    pub(super) fn diff(&mut self, live: Id, other: Id, at: &Progress) {
        // What is written alike is alike. This is asked again at each level, but a run of bytes is compared much faster
        // than it is walked through.
        if self.live.source(live) == self.other.source(other) {
            return;
        }
        let is_lines = self.way.is_lines();
        let rules = if is_lines { Vec::new() } else { self.active.at_path(at) };
        if let Some(rule) = self.active.ignoring(&rules) {
            if !self.same(live, other) {
                self.explain(rule);
            }
            return;
        }
        match (self.live.view(live), self.other.view(other)) {
            (View::Null, View::Null) => {}
            (View::Bool(of_live), View::Bool(of_other)) if of_live == of_other => {}
            (View::Number(of_live), View::Number(of_other)) if self.same_number(of_live, of_other) => {}
            (View::String(of_live), View::String(of_other)) if of_live == of_other => {}
            (View::Bool(_), View::Bool(_)) => {
                self.diff_scalars(self.live.source(live), self.other.source(other), &rules);
            }
            (View::Number(of_live), View::Number(of_other))
            | (View::String(of_live), View::String(of_other)) => {
                self.diff_scalars(of_live, of_other, &rules);
            }
            (View::Array(of_live), View::Array(of_other)) => self.diff_arrays(of_live, of_other, at),
            (View::Object(of_live), View::Object(of_other)) => self.diff_objects(of_live, of_other, at),
            _ => {
                let (of_live, of_other) = (self.live, self.other);
                self.diverge(DivergenceKind::Type, || {
                    [Some(json_text(of_live, live)), Some(json_text(of_other, other))]
                });
            }
        }
    }

    fn diff_scalars(&mut self, live: &[u8], other: &[u8], rules: &[usize]) {
        match self.active.explain(rules, live, other) {
            Some(used) => used.into_iter().for_each(|rule| self.explain(rule)),
            None => self.diverge(DivergenceKind::Value, || [Some(live.into()), Some(other.into())]),
        }
    }

    /// Both sides' members are in the order of their keys, so one pass over both pairs them.
    fn diff_objects(&mut self, mut live: Members<'a>, mut other: Members<'a>, at: &Progress) {
        let (mut of_live, mut of_other) = (live.next(), other.next());
        loop {
            let order = match (of_live, of_other) {
                (Some((live_key, _)), Some((other_key, _))) => live_key.cmp(other_key),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (None, None) => return,
            };
            let Some((key, _)) = (if order == Ordering::Greater { of_other } else { of_live }) else {
                return;
            };
            let at = self.active.plan.paths.member(at, key);
            self.way.push(Step::Key(key));
            match (order, of_live, of_other) {
                (Ordering::Equal, Some((_, live)), Some((_, other))) => self.diff(live, other, &at),
                (Ordering::Less, Some((_, live)), _) => _ = self.lack(Only::Live, live, &at),
                (_, _, Some((_, other))) => _ = self.lack(Only::Other, other, &at),
                _ => {}
            }
            self.way.pop();
            if order != Ordering::Greater {
                of_live = live.next();
            }
            if order != Ordering::Less {
                of_other = other.next();
            }
        }
    }

    /// A value that only one side has, at the place where the walk is.
    pub(super) fn lack(&mut self, only: Only, id: Id, at: &Progress) -> Lack {
        if let Some(rule) = self.active.ignoring(&self.active.at_path(at)) {
            self.explain(rule);
            return Lack::Explained;
        }
        let (of_live, of_other) = (self.live, self.other);
        match only {
            Only::Live => self.diverge(DivergenceKind::Missing, || [Some(plain_text(of_live, id)), None]),
            Only::Other => self.diverge(DivergenceKind::Extra, || [None, Some(plain_text(of_other, id))]),
        }
        Lack::Told
    }

    /// Whether two values are the same, rules aside.
    fn same(&self, live: Id, other: Id) -> bool {
        if self.live.source(live) == self.other.source(other) {
            return true;
        }
        match (self.live.view(live), self.other.view(other)) {
            (View::Null, View::Null) => true,
            (View::Bool(of_live), View::Bool(of_other)) => of_live == of_other,
            (View::Number(of_live), View::Number(of_other)) => self.same_number(of_live, of_other),
            (View::String(of_live), View::String(of_other)) => of_live == of_other,
            (View::Array(of_live), View::Array(of_other)) => {
                let mut pairs = of_live.iter().zip(of_other);
                of_live.len() == of_other.len() && pairs.all(|(live, other)| self.same(*live, *other))
            }
            (View::Object(of_live), View::Object(of_other)) => {
                let is_as_long = of_live.member_count() == of_other.member_count();
                is_as_long
                    && of_live
                        .zip(of_other)
                        .all(|((key, live), (other_key, other))| key == other_key && self.same(live, other))
            }
            _ => false,
        }
    }

    fn same_number(&self, live: &[u8], other: &[u8]) -> bool {
        match self.active.plan.numbers {
            NumberForm::Value => same_value(live, other),
            NumberForm::Text => live == other,
        }
    }

    /// Tells that something differs where the walk is. Most of what is found in answers that have little in common is not told:
    /// it need not be written down, and whatever is, only once it is known to be told.
    pub(super) fn diverge<'v>(
        &mut self,
        kind: DivergenceKind,
        values: impl FnOnce() -> [Option<Cow<'v, [u8]>>; 2],
    ) {
        if self.found.is_full() || self.found.is_path_full(kind, self.way.path()) {
            return;
        }
        let path = self.way.path().to_owned();
        let at = Where { path, place: self.way.place(), other_place: self.way.other_place() };
        let [live, other] = values();
        self.found.diverge(kind, at, live.as_deref(), other.as_deref());
    }

    fn explain(&mut self, rule: usize) {
        if !self.found.is_explained_full() {
            self.found.explain(rule, self.way.path());
        }
    }
}

/// What came of a value that only one side has.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Lack {
    /// A rule explains it.
    Explained,
    /// It is a divergence.
    Told,
}

/// Most keys of an object that are told.
const TOLD_KEYS: usize = 16;

/// A value as text: strings without their quotes, objects by their keys alone, arrays by their length. What lies deeper
/// has a path of its own, by which its owner may know that it must not be shown.
pub(super) fn plain_text(tree: &Tree, id: Id) -> Cow<'_, [u8]> {
    match tree.view(id) {
        View::String(text) => Cow::Borrowed(text),
        View::Array(elements) => Cow::Owned(format!("[{} elements]", elements.len()).into_bytes()),
        View::Object(members) => {
            let rest = if members.member_count() > TOLD_KEYS { ", …" } else { "" };
            let keys: Vec<String> = members.take(TOLD_KEYS).map(|(key, _)| clean(key)).collect();
            Cow::Owned(format!("{{{}{rest}}}", keys.join(", ")).into_bytes())
        }
        View::Null | View::Bool(_) | View::Number(_) => Cow::Borrowed(tree.source(id)),
    }
}

/// The same with quotes around strings, where the type is what differs.
fn json_text(tree: &Tree, id: Id) -> Cow<'_, [u8]> {
    match tree.view(id) {
        View::String(_) => Cow::Borrowed(tree.source(id)),
        View::Null | View::Bool(_) | View::Number(_) | View::Array(_) | View::Object(_) => {
            plain_text(tree, id)
        }
    }
}
