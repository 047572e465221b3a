//! Enters: templates of paths that a configuration states. Leaves: which of them a path fits.

use std::cmp::Reverse;

/// The templates, the most specific first.
#[derive(Clone, Debug)]
pub(super) struct Patterns(Vec<Pattern>);

#[derive(Clone, Debug)]
struct Pattern {
    text: String,
    segments: Vec<Part>,
    /// Whether it ends with `*`, which any number of segments fits.
    is_open: bool,
}

/// One segment of a template. Declared the most specific first.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Part {
    Word(Vec<u8>),
    /// A value between a beginning and an end: `{id}.json`.
    Value {
        before: Vec<u8>,
        behind: Vec<u8>,
    },
}

impl Part {
    fn of(segment: &str) -> Self {
        let value = || {
            let (before, rest) = segment.split_once('{')?;
            let (_, behind) = rest.split_once('}')?;
            Some(Self::Value { before: before.into(), behind: behind.into() })
        };
        value().unwrap_or_else(|| Self::Word(segment.into()))
    }

    fn fits(&self, segment: &[u8]) -> bool {
        match self {
            Self::Word(word) => word == segment,
            Self::Value { before, behind } => segment
                .strip_prefix(before.as_slice())
                .and_then(|rest| rest.strip_suffix(behind.as_slice()))
                .is_some_and(|value| !value.is_empty()),
        }
    }

    /// How little it leaves open: words before values, long fixed parts before short ones.
    fn rank(&self) -> (bool, Reverse<usize>) {
        match self {
            Self::Word(_) => (false, Reverse(0)),
            Self::Value { before, behind } => (true, Reverse(before.len().saturating_add(behind.len()))),
        }
    }
}

impl Patterns {
    /// Takes templates such as `/orders/{id}`; one that ends with `*` fits whatever follows.
    pub(super) fn new(templates: &[String]) -> Self {
        let mut patterns: Vec<Pattern> = templates.iter().map(|template| Pattern::new(template)).collect();
        patterns.sort_by_cached_key(|pattern| {
            let parts: Vec<_> = pattern.segments.iter().map(Part::rank).collect();
            (pattern.is_open, Reverse(parts.len()), parts)
        });
        Self(patterns)
    }

    /// The first template that fits.
    pub(super) fn find(&self, path: &[&[u8]]) -> Option<&str> {
        self.0.iter().find(|pattern| pattern.fits(path)).map(|pattern| pattern.text.as_str())
    }
}

impl Pattern {
    fn new(template: &str) -> Self {
        let path = template.trim_end_matches('*');
        Self {
            text: template.to_owned(),
            segments: path.split('/').filter(|part| !part.is_empty()).map(Part::of).collect(),
            is_open: path.len() < template.len(),
        }
    }

    fn fits(&self, path: &[&[u8]]) -> bool {
        let fits_in_length =
            if self.is_open { path.len() >= self.segments.len() } else { path.len() == self.segments.len() };
        fits_in_length && self.segments.iter().zip(path).all(|(part, segment)| part.fits(segment))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn most_specific_template_wins() {
        let templates = ["/*", "/orders/{id}", "/orders/latest", "/orders/{id}.json", "/orders/{id}/lines/*"];
        let patterns = Patterns::new(&templates.map(str::to_owned));
        for (path, expected) in [
            (vec!["orders", "17"], "/orders/{id}"),
            (vec!["orders", "latest"], "/orders/latest"),
            (vec!["orders", "17.json"], "/orders/{id}.json"),
            (vec!["orders", "17", "lines"], "/orders/{id}/lines/*"),
            (vec!["orders", "17", "lines", "3"], "/orders/{id}/lines/*"),
            (vec!["else"], "/*"),
        ] {
            let path: Vec<&[u8]> = path.into_iter().map(str::as_bytes).collect();
            assert_eq!(patterns.find(&path), Some(expected));
        }
        assert_eq!(Patterns::new(&["/a".to_owned()]).find(&[b"b".as_slice()]), None);
    }
}
