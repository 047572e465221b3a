//! Enters: JSON paths of the user's. Leaves: a matcher that walks along with a value, step by step.

use std::collections::BTreeMap;

/// Why a JSON path is none.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PathError {
    /// It does not begin at the root.
    #[error("a JSON path begins with `$`")]
    NoRoot,
    /// Something between two steps that begins none.
    #[error("`{found}` at byte {at}: a step begins with `.`, `..` or `[`")]
    NoStep {
        /// What is there.
        found: char,
        /// Where.
        at: usize,
    },
    /// A step without a name.
    #[error("a name, `*` or `[` is missing at byte {at}")]
    NoName {
        /// Where it should be.
        at: usize,
    },
    /// A bracket or a quote that is not closed.
    #[error("what is opened at byte {at} is not closed")]
    Open {
        /// Where it is opened.
        at: usize,
    },
    /// What stands in brackets is none of the forms that are understood.
    #[error(
        "`[{inside}]` is not understood: an index from 0 up, `*`, nothing, or a quoted key; no slices and no filters"
    )]
    Bracket {
        /// What is in them.
        inside: String,
    },
    /// More steps than a value that is compared can be deep.
    #[error("more than {limit} steps")]
    TooLong {
        /// How many there may be.
        limit: usize,
    },
}

/// One step of a path.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Step {
    Key(Vec<u8>),
    Index(usize),
    /// `.*`, `[*]`, and as reports write them `.{}` and `[]`.
    Any,
    /// The first half of `..`: this place and all below it.
    Below,
}

/// Most steps of a path: as deep as a value may be nested.
const MAX_STEPS: usize = 128;

/// A JSON path as steps: `$`, `.name`, `.*`, `['name']`, `["name"]`, `[0]`, `[*]`, `..`; `[]` and `.{}`, as reports have
/// them, stand for any.
fn parse(path: &str) -> Result<Vec<Step>, PathError> {
    let mut rest = path.strip_prefix('$').ok_or(PathError::NoRoot)?;
    let at = |rest: &str| path.len().saturating_sub(rest.len());
    let mut steps = Vec::new();
    while let Some(first) = rest.chars().next() {
        if let Some(after) = rest.strip_prefix("..") {
            steps.push(Step::Below);
            rest = after;
            if !rest.starts_with('[') {
                rest = parse_name(rest, &mut steps).ok_or_else(|| PathError::NoName { at: at(rest) })?;
                continue;
            }
        } else if let Some(after) = rest.strip_prefix('.') {
            rest = parse_name(after, &mut steps).ok_or_else(|| PathError::NoName { at: at(after) })?;
            continue;
        }
        let Some(inside) = rest.strip_prefix('[') else {
            return Err(PathError::NoStep { found: first, at: at(rest) });
        };
        let (step, after) = parse_bracket(inside).ok_or_else(|| PathError::Open { at: at(rest) })?;
        steps.push(step?);
        rest = after;
        if steps.len() > MAX_STEPS {
            return Err(PathError::TooLong { limit: MAX_STEPS });
        }
    }
    if steps.len() > MAX_STEPS { Err(PathError::TooLong { limit: MAX_STEPS }) } else { Ok(steps) }
}

/// A name up to the next step; `None` where there is none.
fn parse_name<'a>(rest: &'a str, steps: &mut Vec<Step>) -> Option<&'a str> {
    let end = rest.find(['.', '[']).unwrap_or(rest.len());
    let (name, after) = rest.split_at_checked(end)?;
    steps.push(match name {
        "" => return None,
        "*" | "{}" => Step::Any,
        name => Step::Key(name.as_bytes().to_vec()),
    });
    Some(after)
}

/// What stands in brackets, behind the opening one, and what follows the closing one; `None` where that is missing.
fn parse_bracket(inside: &str) -> Option<(Result<Step, PathError>, &str)> {
    if let Some(quote @ ('\'' | '"')) = inside.chars().next() {
        let mut key = String::new();
        let mut chars = inside.char_indices().skip(1);
        while let Some((at, char)) = chars.next() {
            match char {
                '\\' => key.push(chars.next()?.1),
                char if char == quote => {
                    let after = inside.get(at..)?.get(1..)?;
                    let (between, after) = after.split_once(']')?;
                    let step = if between.trim().is_empty() {
                        Ok(Step::Key(key.into_bytes()))
                    } else {
                        Err(PathError::Bracket { inside: format!("{quote}{key}{quote}{between}") })
                    };
                    return Some((step, after));
                }
                char => key.push(char),
            }
        }
        return None;
    }
    let (inside, after) = inside.split_once(']')?;
    let step = match inside.trim() {
        "" | "*" => Ok(Step::Any),
        digits => match digits.parse() {
            Ok(index) if digits.bytes().all(|byte| byte.is_ascii_digit()) => Ok(Step::Index(index)),
            _ => Err(PathError::Bracket { inside: inside.to_owned() }),
        },
    };
    Some((step, after))
}

/// Many paths as one tree, so that a step costs a look-up, however many of them there are. What a path leads to is
/// marked with a number.
#[derive(Clone, Debug)]
pub(in crate::pipeline) struct Matcher {
    nodes: Vec<Node>,
}

#[derive(Clone, Debug, Default)]
struct Node {
    keys: BTreeMap<Vec<u8>, usize>,
    indices: Vec<(usize, usize)>,
    any: Option<usize>,
    /// Where `..` goes on: a node that stays for all that lies below.
    below: Option<usize>,
    stays: bool,
    marks: Vec<usize>,
}

/// How far the paths have come that lead to a place.
#[derive(Clone, Debug, Default)]
pub(in crate::pipeline) struct Progress(Vec<usize>);

impl Progress {
    /// Whether no path leads here, or any further.
    pub(in crate::pipeline) const fn is_done(&self) -> bool {
        self.0.is_empty()
    }
}

impl Default for Matcher {
    fn default() -> Self {
        Self { nodes: vec![Node::default()] }
    }
}

impl Matcher {
    /// Adds a path that leads to `mark`.
    pub(in crate::pipeline) fn add(&mut self, path: &str, mark: usize) -> Result<(), PathError> {
        let mut at = 0;
        for step in parse(path)? {
            at = self.child(at, step);
        }
        if let Some(node) = self.nodes.get_mut(at) {
            node.marks.push(mark);
        }
        Ok(())
    }

    fn child(&mut self, at: usize, step: Step) -> usize {
        let next = self.nodes.len();
        let Some(node) = self.nodes.get_mut(at) else { return at };
        let stays = step == Step::Below;
        let child = match step {
            Step::Key(key) => *node.keys.entry(key).or_insert(next),
            Step::Index(index) => match node.indices.iter().find(|(of, _)| *of == index) {
                Some((_, child)) => *child,
                None => {
                    node.indices.push((index, next));
                    next
                }
            },
            Step::Any => *node.any.get_or_insert(next),
            Step::Below => *node.below.get_or_insert(next),
        };
        if child == next {
            self.nodes.push(Node { stays, ..Node::default() });
        }
        child
    }

    /// At the root.
    pub(in crate::pipeline) fn start(&self) -> Progress {
        let mut progress = Progress::default();
        if self.nodes.len() > 1 || self.nodes.first().is_some_and(|root| !root.marks.is_empty()) {
            self.enter(0, &mut progress);
        }
        progress
    }

    /// From an object to its member `key`.
    pub(in crate::pipeline) fn member(&self, from: &Progress, key: &[u8]) -> Progress {
        self.step(from, |node| node.keys.get(key).copied())
    }

    /// From an array to its element `index`.
    pub(in crate::pipeline) fn element(&self, from: &Progress, index: usize) -> Progress {
        self.step(from, |node| node.indices.iter().find(|(of, _)| *of == index).map(|(_, child)| *child))
    }

    fn step(&self, from: &Progress, named: impl Fn(&Node) -> Option<usize>) -> Progress {
        let mut to = Progress::default();
        for at in &from.0 {
            let Some(node) = self.nodes.get(*at) else { continue };
            if node.stays {
                self.enter(*at, &mut to);
            }
            named(node).into_iter().chain(node.any).for_each(|child| self.enter(child, &mut to));
        }
        to
    }

    fn enter(&self, at: usize, progress: &mut Progress) {
        let mut at = Some(at);
        while let Some(entered) = at.filter(|at| !progress.0.contains(at)) {
            progress.0.push(entered);
            at = self.nodes.get(entered).and_then(|node| node.below);
        }
    }

    /// The marks of the paths that end here.
    pub(in crate::pipeline) fn marks<'a>(
        &'a self,
        progress: &'a Progress,
    ) -> impl Iterator<Item = usize> + 'a {
        progress.0.iter().filter_map(|at| self.nodes.get(*at)).flat_map(|node| node.marks.iter().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::{Matcher, PathError};

    /// Whether `path` leads to `place`: keys, and indices where they are numbers.
    fn leads(path: &str, place: &[&str]) -> bool {
        let mut matcher = Matcher::default();
        matcher.add(path, 7).unwrap();
        let mut progress = matcher.start();
        for step in place {
            progress = match step.parse() {
                Ok(index) => matcher.element(&progress, index),
                Err(_) => matcher.member(&progress, step.as_bytes()),
            };
        }
        matcher.marks(&progress).any(|mark| mark == 7)
    }

    #[test]
    fn paths_lead_where_they_say() {
        let cases: [(&str, &[&str], bool); 24] = [
            ("$", &[], true),
            ("$", &["a"], false),
            ("$.a", &["a"], true),
            ("$.a", &[], false),
            ("$.a", &["a", "b"], false),
            ("$['a'].b", &["a", "b"], true),
            ("$[\"a b\"]", &["a b"], true),
            ("$['it\\'s']", &["it's"], true),
            ("$['a]']", &["a]"], true),
            ("$.a[*].b", &["a", "3", "b"], true),
            ("$.a[].b", &["a", "3", "b"], true),
            ("$.a[3].b", &["a", "3", "b"], true),
            ("$.a[3].b", &["a", "4", "b"], false),
            ("$.*.b", &["a", "b"], true),
            ("$.{}.b", &["a", "b"], true),
            ("$['{}'].b", &["a", "b"], false),
            ("$..b", &["b"], true),
            ("$..b", &["a", "0", "c", "b"], true),
            ("$..b", &["a", "0", "c"], false),
            ("$..*", &["a", "0"], true),
            ("$..[1]", &["a", "1"], true),
            ("$.a..b.c", &["a", "x", "b", "c"], true),
            ("$.a..b..c", &["a", "b", "b", "x", "c"], true),
            ("$.a..b", &["b"], false),
        ];

        for (path, place, expected) in cases {
            assert_eq!(leads(path, place), expected, "{path} to {place:?}");
        }
    }

    #[test]
    fn what_is_no_path_is_refused() {
        let refused = |path: &str| Matcher::default().add(path, 0).unwrap_err();

        assert_eq!(refused("a.b"), PathError::NoRoot);
        assert_eq!(refused("$a"), PathError::NoStep { found: 'a', at: 1 });
        assert_eq!(refused("$.a."), PathError::NoName { at: 4 });
        assert_eq!(refused("$.."), PathError::NoName { at: 3 });
        assert_eq!(refused("$.a[1"), PathError::Open { at: 3 });
        assert_eq!(refused("$['a]"), PathError::Open { at: 1 });
        for path in ["$[-1]", "$[1:2]", "$[?(@.a)]", "$[1,2]", "$['a','b']", "$[+1]"] {
            assert!(matches!(refused(path), PathError::Bracket { .. }), "{path}");
        }
        assert_eq!(refused(&format!("${}", ".a".repeat(129))), PathError::TooLong { limit: 128 });
    }

    #[test]
    fn each_path_that_leads_to_a_place_marks_it() {
        let mut matcher = Matcher::default();
        for (path, mark) in [("$.a.b", 0), ("$.a.*", 1), ("$..b", 2), ("$.a.b", 3), ("$.b", 4)] {
            matcher.add(path, mark).unwrap();
        }

        let place = matcher.member(&matcher.member(&matcher.start(), b"a"), b"b");

        let mut marks: Vec<usize> = matcher.marks(&place).collect();
        marks.sort_unstable();
        assert_eq!(marks, [0, 1, 2, 3]);
    }
}
