//! Enters: differences as they are found. Leaves: as many of them as are told, with their paths.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    sync::Arc,
};

use ahash::RandomState;

use super::{Compared, Divergence, Explained, MAX_DIVERGENCES, PLACE_BYTES, VALUE_BYTES};
use crate::pipeline::reason::DivergenceKind;

/// Most divergences of one kind that are told of one path. What is wrong with one element of a list is wrong with all of
/// them, and must not leave out what else there is.
const MAX_OF_A_PATH: usize = 4;

/// Most differences told that rules explain.
const MAX_EXPLAINED: usize = 256;

/// The differences of one pair of answers.
#[derive(Debug)]
pub(super) struct Found {
    compared: Compared,
    paths: HashMap<Arc<str>, usize, RandomState>,
    of_a_path: HashMap<(DivergenceKind, usize), usize, RandomState>,
    explained: HashSet<(usize, usize), RandomState>,
}

/// Where a difference is, with indices and keys and without them.
#[derive(Clone, Debug)]
pub(super) struct Where {
    /// Without.
    pub(super) path: String,
    /// With.
    pub(super) place: String,
    /// With those of the other's answer, where they are others.
    pub(super) other_place: Option<String>,
}

impl Where {
    /// The same place in both answers.
    pub(super) const fn at(path: String, place: String) -> Self {
        Self { path, place, other_place: None }
    }
}

impl From<&str> for Where {
    fn from(path: &str) -> Self {
        Self::at(path.to_owned(), path.to_owned())
    }
}

impl Found {
    pub(super) fn new() -> Self {
        let state = RandomState::with_seeds(1, 2, 3, 4);
        Self {
            compared: Compared::default(),
            paths: HashMap::with_hasher(state.clone()),
            of_a_path: HashMap::with_hasher(state.clone()),
            explained: HashSet::with_hasher(state),
        }
    }

    /// Whether no further divergence is told; that there is one is noted.
    pub(super) fn is_full(&mut self) -> bool {
        let is_full = self.compared.divergences.len() >= MAX_DIVERGENCES;
        self.compared.is_cut |= is_full;
        self.compared.misses_places |= is_full;
        is_full
    }

    /// Whether no further explained difference is told.
    pub(super) const fn is_explained_full(&self) -> bool {
        self.compared.explained.len() >= MAX_EXPLAINED
    }

    /// Whether no further divergence of this kind is told of this path; that there is one is noted.
    pub(super) fn is_path_full(&mut self, kind: DivergenceKind, path: &str) -> bool {
        let number = self.number(&cut_to(path, PLACE_BYTES, "…"));
        let is_full = self.of_a_path.get(&(kind, number)).is_some_and(|count| *count >= MAX_OF_A_PATH);
        self.compared.is_cut |= is_full;
        is_full
    }

    /// Tells of a divergence.
    pub(super) fn diverge(
        &mut self,
        kind: DivergenceKind,
        at: Where,
        live: Option<&[u8]>,
        other: Option<&[u8]>,
    ) {
        let (path, number) = self.intern(&at.path);
        let of_a_path = self.of_a_path.entry((kind, number)).or_default();
        if *of_a_path >= MAX_OF_A_PATH || self.compared.divergences.len() >= MAX_DIVERGENCES {
            self.compared.is_cut = true;
            self.compared.misses_places |= *of_a_path == 0;
            return;
        }
        *of_a_path = of_a_path.saturating_add(1);
        let (live, other) = (live.map(value_text), other.map(value_text));
        let (place, other_place) = (cut(&at.place), at.other_place.as_deref().map(cut));
        self.compared.divergences.push(Divergence { kind, path, place, other_place, live, other });
    }

    /// Tells of a difference that `rule` explains, once for each path.
    pub(super) fn explain(&mut self, rule: usize, path: &str) {
        if self.compared.explained.len() >= MAX_EXPLAINED {
            return;
        }
        let (path, number) = self.intern(path);
        if self.explained.insert((rule, number)) {
            self.compared.explained.push(Explained { rule, path });
        }
    }

    /// All divergences so far, but that of the status if it is kept, are what `rule` explains.
    pub(super) fn explain_all(&mut self, rule: usize, keeps_status: bool) {
        let is_kept = |divergence: &Divergence| keeps_status && divergence.kind == DivergenceKind::Status;
        let (kept, explained) = self.compared.divergences.drain(..).partition(is_kept);
        self.compared.divergences = kept;
        self.compared.is_cut = false;
        self.compared.misses_places = false;
        let explained: Vec<Divergence> = explained;
        for divergence in explained {
            self.explain(rule, &divergence.path);
        }
    }

    pub(super) fn finish(self) -> Compared {
        self.compared
    }

    /// What a path, cut, goes by; that of the next one where it is not known.
    fn number(&self, path: &str) -> usize {
        self.paths.get(path).copied().unwrap_or(self.paths.len())
    }

    fn intern(&mut self, path: &str) -> (Arc<str>, usize) {
        let path = cut_to(path, PLACE_BYTES, "…");
        if let Some((known, number)) = self.paths.get_key_value(&*path) {
            return (Arc::clone(known), *number);
        }
        let (path, number) = (Arc::from(path), self.paths.len());
        // Only paths that are told need a number of their own, and of those there are few.
        if self.paths.len() < MAX_DIVERGENCES.saturating_add(MAX_EXPLAINED) {
            self.paths.insert(Arc::clone(&path), number);
        }
        (path, number)
    }
}

fn cut(place: &str) -> String {
    cut_to(place, PLACE_BYTES, "…").into_owned()
}

/// At most `limit` bytes of a text, whole characters, and `mark` where something is cut off.
fn cut_to<'a>(text: &'a str, limit: usize, mark: &str) -> Cow<'a, str> {
    if text.len() <= limit {
        return Cow::Borrowed(text);
    }
    let end = text.floor_char_boundary(limit.saturating_sub(mark.len()));
    Cow::Owned([text.get(..end).unwrap_or_default(), mark].concat())
}

/// A value as text, cut.
fn value_text(value: &[u8]) -> String {
    // Each byte that is no UTF-8 becomes three.
    let text = String::from_utf8_lossy(value.get(..VALUE_BYTES).unwrap_or(value));
    let mut text = text.into_owned();
    // A character that the cut went through is left out.
    if value.len() > VALUE_BYTES && text.ends_with(char::REPLACEMENT_CHARACTER) {
        text.pop();
    }
    cut_to(&text, VALUE_BYTES, "").into_owned()
}
