//! Enters: the segments of paths. Leaves: their templates, by what was seen at each place.

use std::collections::BTreeMap;

use super::shape;

/// Segments of a path that are looked at; what follows is one `*`.
pub(super) const DEPTH: usize = 12;

/// Most places in the tree. The endpoints that are told apart need some two thousand; beyond, what
/// follows a place that is known is one `*`.
pub(super) const MAX_NODES: usize = 4096;

/// Different words at one place from which on they are values if hardly any came twice.
const MANY_WORDS: usize = 60;

/// Different words at one place from which on they are values however often they came.
const TOO_MANY_WORDS: usize = 120;

/// How often a word came that stays one where the others become values, at least.
const OFTEN: u32 = 3;

/// What stands for a value, as [`shape::holder`] tells them.
const HOLDERS: [&str; 7] = ["{}", "{id}", "{uuid}", "{date}", "{hex}", "{token}", "{email}"];

/// The paths that were seen.
#[derive(Clone, Debug, Default)]
pub(super) struct Tree {
    root: Node,
    nodes: usize,
    has_collapsed: bool,
}

#[derive(Clone, Debug, Default)]
struct Node {
    /// What follows: words, and place holders.
    children: BTreeMap<Box<str>, Self>,
    /// How many of them are words.
    words: usize,
    /// How often one of the words was passed.
    passed: u32,
    /// How often this place was.
    visits: u32,
    /// Whether words that are not known are values.
    is_open: bool,
}

impl Tree {
    pub(super) fn take_collapsed(&mut self) -> bool {
        std::mem::take(&mut self.has_collapsed)
    }

    #[cfg(test)]
    pub(super) const fn nodes(&self) -> usize {
        self.nodes
    }

    /// Appends the template of a path, each segment with a slash before it.
    pub(super) fn append_template(&mut self, segments: &[&[u8]], name: &mut String) {
        let mut node = &mut self.root;
        for segment in segments.iter().take(DEPTH) {
            name.push('/');
            let begin = name.len();
            append_segment(segment, name);
            let text = name.get(begin..).unwrap_or_default();
            let is_word = !HOLDERS.contains(&text);
            if is_word && !node.children.contains_key(text) && (node.is_open || node.is_too_wide()) {
                if !node.is_open {
                    self.nodes = self.nodes.saturating_sub(node.collapse());
                    self.has_collapsed = true;
                }
                name.truncate(begin);
                name.push_str("{}");
            }
            let text = name.get(begin..).unwrap_or_default();
            let is_word = !HOLDERS.contains(&text);
            if !node.children.contains_key(text) {
                if self.nodes >= MAX_NODES {
                    name.truncate(begin);
                    name.push('*');
                    return;
                }
                self.nodes = self.nodes.saturating_add(1);
                node.words = node.words.saturating_add(usize::from(is_word));
            }
            node.passed = node.passed.saturating_add(u32::from(is_word));
            node = node.children.entry(Box::from(text)).or_default();
            node.visits = node.visits.saturating_add(1);
        }
        if segments.len() > DEPTH {
            name.push_str("/*");
        }
    }
}

impl Node {
    /// Whether one more word is one too many.
    fn is_too_wide(&self) -> bool {
        let words = u32::try_from(self.words).unwrap_or(u32::MAX);
        let hardly_any_twice = self.passed.saturating_sub(words) < words.checked_div(3).unwrap_or(0);
        self.words >= TOO_MANY_WORDS || (self.words >= MANY_WORDS && hardly_any_twice)
    }

    /// Makes values of the words that are not frequent; returns how many places there are less.
    fn collapse(&mut self) -> usize {
        self.is_open = true;
        let often = OFTEN.max(self.passed.checked_div(60).unwrap_or(0));
        let before = self.size();
        let mut values = Self::default();
        let children = std::mem::take(&mut self.children);
        for (text, child) in children {
            if HOLDERS.contains(&&*text) || child.visits >= often {
                self.children.insert(text, child);
            } else {
                self.words = self.words.saturating_sub(1);
                values.absorb(child);
            }
        }
        if let Some(known) = self.children.remove("{}") {
            values.absorb(known);
        }
        self.children.insert(Box::from("{}"), values);
        before.saturating_sub(self.size())
    }

    fn absorb(&mut self, other: Self) {
        self.visits = self.visits.saturating_add(other.visits);
        self.passed = self.passed.saturating_add(other.passed);
        self.is_open |= other.is_open;
        for (text, child) in other.children {
            if !HOLDERS.contains(&&*text) && !self.children.contains_key(&text) {
                self.words = self.words.saturating_add(1);
            }
            self.children.entry(text).or_default().absorb(child);
        }
    }

    /// How many places there are below.
    fn size(&self) -> usize {
        self.children.values().fold(0, |sum: usize, child| sum.saturating_add(child.size()).saturating_add(1))
    }
}

/// Appends a segment as a template has it: a word as it is, or its place holder.
fn append_segment(segment: &[u8], name: &mut String) {
    // What a template has already, when it is found again.
    let text = std::str::from_utf8(segment).ok();
    let (stem, extension) = match text.and_then(|text| text.rsplit_once('.')) {
        Some((stem, extension)) if is_extension(extension) => (stem.as_bytes(), Some(extension)),
        _ => (segment, None),
    };
    let known = |part: &[u8]| HOLDERS.into_iter().find(|holder| holder.as_bytes() == part);
    if let Some(holder) = known(segment).or_else(|| shape::holder(segment).filter(|_| extension.is_none())) {
        name.push_str(holder);
        return;
    }
    match known(stem).or_else(|| shape::holder(stem)) {
        Some(holder) => {
            name.push_str(holder);
            if let Some(extension) = extension {
                name.push('.');
                name.push_str(extension);
            }
        }
        None => name.push_str(text.unwrap_or("{}")),
    }
}

fn is_extension(text: &str) -> bool {
    (1..=5).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}
