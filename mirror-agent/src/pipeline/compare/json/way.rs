//! Enters: the steps of a walk, as they are taken and taken back. Leaves: where it is, as text.

use super::{align::Pair, walk::Form};
use crate::pipeline::compare::{PLACE_BYTES, template::push_key};

/// A step of a walk.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step<'a> {
    Key(&'a [u8]),
    /// Positions in live's array and in the other's.
    Index(Pair),
    /// The same of lines.
    Line(Pair),
}

/// How a place is written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Written {
    /// Without indices and keys.
    Templated,
    /// With live's.
    Live,
    /// With the other's.
    Other,
}

/// The way from the root to where a walk is.
#[derive(Debug)]
pub(super) struct Way<'a> {
    form: Form,
    steps: Vec<Step<'a>>,
    /// The path of the first of the steps: each is written once at most, when it is asked for.
    path: String,
    /// Of each of these the length of `path` before it.
    written: Vec<usize>,
}

impl<'a> Way<'a> {
    /// At the root.
    pub(super) fn new(form: Form) -> Self {
        Self { form, steps: Vec::new(), path: ROOT.to_owned(), written: Vec::new() }
    }

    /// Whether the walk is at the array of lines, which is none of the values that paths lead to.
    pub(super) const fn is_lines(&self) -> bool {
        matches!(self.form, Form::Lines) && self.steps.is_empty()
    }

    pub(super) fn push(&mut self, step: Step<'a>) {
        self.steps.push(step);
    }

    pub(super) fn pop(&mut self) {
        self.steps.pop();
        if self.written.len() > self.steps.len()
            && let Some(len) = self.written.pop()
        {
            self.path.truncate(len);
        }
    }

    /// The path, without indices and keys.
    pub(super) fn path(&mut self) -> &str {
        if self.is_lines() {
            return LINES;
        }
        for step in self.steps.get(self.written.len()..).unwrap_or_default() {
            self.written.push(self.path.len());
            push_step(&mut self.path, step, Written::Templated);
        }
        &self.path
    }

    /// The place in live's answer.
    pub(super) fn place(&self) -> String {
        self.write(Written::Live)
    }

    /// The place in the other's answer, where it is another one.
    pub(super) fn other_place(&self) -> Option<String> {
        let is_elsewhere = |step: &Step<'_>| matches!(step, Step::Index(at) | Step::Line(at) if at.0 != at.1);
        self.steps.iter().any(is_elsewhere).then(|| self.write(Written::Other))
    }

    fn write(&self, written: Written) -> String {
        if self.is_lines() {
            return LINES.to_owned();
        }
        let mut place = ROOT.to_owned();
        for step in &self.steps {
            push_step(&mut place, step, written);
        }
        place
    }
}

/// Appends a step, where what is there is not too long already.
fn push_step(path: &mut String, step: &Step<'_>, written: Written) {
    if path.len() > PLACE_BYTES {
        return;
    }
    let index = |at: &Pair| match written {
        Written::Templated => None,
        Written::Live => Some(at.0),
        Written::Other => Some(at.1),
    };
    match step {
        Step::Key(key) => push_key(path, key, written == Written::Templated),
        Step::Index(at) => match index(at) {
            Some(index) => path.push_str(&format!("[{index}]")),
            None => path.push_str("[]"),
        },
        Step::Line(at) => {
            if let Some(line) = index(at) {
                *path = format!("line {}: {ROOT}", line.saturating_add(1));
            }
        }
    }
}

const ROOT: &str = "$";

/// What the array of lines is called.
const LINES: &str = "body";

#[cfg(test)]
mod tests {
    use super::{Form, Step, Way};

    #[test]
    fn path_follows_the_steps_whenever_it_is_asked_for() {
        let mut way = Way::new(Form::Value);
        assert_eq!(way.path(), "$");
        way.push(Step::Key(b"a"));
        way.push(Step::Key(b"17"));
        way.push(Step::Index((1, 2)));
        assert_eq!(way.path(), "$.a.{}[]");
        way.pop();
        way.push(Step::Key(b"b"));
        assert_eq!(way.path(), "$.a.{}.b");
        way.push(Step::Key(b"c"));
        way.pop();
        way.pop();
        way.pop();
        way.push(Step::Index((3, 3)));
        assert_eq!(way.path(), "$.a[]");
        assert_eq!((way.place(), way.other_place()), ("$.a[3]".into(), None));
        way.push(Step::Index((4, 5)));
        assert_eq!((way.place(), way.other_place()), ("$.a[3][4]".into(), Some("$.a[3][5]".into())));
    }

    #[test]
    fn lines_are_values_of_their_own() {
        let mut way = Way::new(Form::Lines);
        assert_eq!((way.place(), way.path()), ("body".into(), "body"));
        way.push(Step::Line((0, 1)));
        way.push(Step::Key(b"a"));
        assert_eq!(way.path(), "$.a");
        assert_eq!((way.place(), way.other_place()), ("line 1: $.a".into(), Some("line 2: $.a".into())));
        way.pop();
        way.pop();
        assert_eq!(way.path(), "body");
    }

    #[test]
    fn long_path_grows_no_further() {
        let mut way = Way::new(Form::Value);
        for _ in 0..1_000 {
            way.push(Step::Key(b"member"));
        }
        assert!(way.path().len() < 600);
        for _ in 0..999 {
            way.pop();
        }
        assert_eq!(way.path(), "$.member");
    }
}
