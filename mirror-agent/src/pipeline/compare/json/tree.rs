//! Enters: parsed JSON text. Leaves: its values, as a tree that points into the text: nothing rounded and nothing lost.

use bytes::Bytes;

/// A value of a [`Tree`], by its position.
pub(in crate::pipeline::compare) type Id = u32;

/// Parsed JSON text.
///
/// Members of an object are in the order of their keys; of several with the same key the last one counts, as with nearly
/// every parser. Strings are unescaped; a lone surrogate, which is no Unicode, is kept in the three bytes that UTF-8
/// would give it, so that two of them can be told apart.
#[derive(Clone, Debug, Default)]
pub(in crate::pipeline::compare) struct Tree {
    pub(super) source: Bytes,
    /// Strings whose escapes are undone.
    pub(super) aside: Vec<u8>,
    pub(super) values: Vec<Value>,
    pub(super) root: Id,
    pub(super) elements: Vec<Id>,
    pub(super) members: Vec<Member>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Value {
    pub(super) shape: Shape,
    /// In the source.
    pub(super) start: u32,
    pub(super) end: u32,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Shape {
    Null,
    Bool,
    Number,
    String(Text),
    Array { first: u32, end: u32 },
    Object { first: u32, end: u32 },
}

/// A run of bytes of the source, or of those aside.
#[derive(Clone, Copy, Debug)]
pub(super) struct Text {
    pub(super) is_aside: bool,
    pub(super) start: u32,
    pub(super) end: u32,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Member {
    pub(super) key: Text,
    pub(super) value: Id,
}

/// What a value is.
#[derive(Clone, Copy, Debug)]
pub(in crate::pipeline::compare) enum View<'a> {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number as written.
    Number(&'a [u8]),
    /// A string, unescaped.
    String(&'a [u8]),
    /// An array.
    Array(&'a [Id]),
    /// An object.
    Object(Members<'a>),
}

/// The members of an object in the order of their keys, each key once.
#[derive(Clone, Copy, Debug)]
pub(in crate::pipeline::compare) struct Members<'a> {
    tree: &'a Tree,
    rest: &'a [Member],
}

impl<'a> Members<'a> {
    /// The value of the member `key`.
    pub(in crate::pipeline::compare) fn value_of(&self, key: &[u8]) -> Option<Id> {
        let found = self.rest.binary_search_by(|member| self.tree.text(member.key).cmp(key)).ok()?;
        self.rest.get(found).map(|member| member.value)
    }

    /// How many there are.
    pub(in crate::pipeline::compare) const fn member_count(&self) -> usize {
        self.rest.len()
    }
}

impl<'a> Iterator for Members<'a> {
    type Item = (&'a [u8], Id);

    fn next(&mut self) -> Option<Self::Item> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some((self.tree.text(first.key), first.value))
    }
}

impl Tree {
    /// The whole.
    pub(in crate::pipeline::compare) const fn root(&self) -> Id {
        self.root
    }

    /// What `id` is.
    pub(in crate::pipeline::compare) fn view(&self, id: Id) -> View<'_> {
        let Some(value) = self.value(id) else { return View::Null };
        match value.shape {
            Shape::Null => View::Null,
            Shape::Bool => View::Bool(self.source(id).first() == Some(&b't')),
            Shape::Number => View::Number(self.source(id)),
            Shape::String(text) => View::String(self.text(text)),
            Shape::Array { first, end } => View::Array(range(&self.elements, first, end)),
            Shape::Object { first, end } => {
                View::Object(Members { tree: self, rest: range(&self.members, first, end) })
            }
        }
    }

    /// The text of `id` as it stands in the source.
    pub(in crate::pipeline::compare) fn source(&self, id: Id) -> &[u8] {
        self.value(id).map_or(&[], |value| range(&self.source, value.start, value.end))
    }

    /// How many values there are: every [`Id`] is less.
    pub(in crate::pipeline::compare) const fn len(&self) -> usize {
        self.values.len()
    }

    fn value(&self, id: Id) -> Option<&Value> {
        self.values.get(usize::try_from(id).ok()?)
    }

    fn text(&self, text: Text) -> &[u8] {
        range(if text.is_aside { &self.aside } else { &self.source }, text.start, text.end)
    }
}

pub(super) fn range<T>(of: &[T], start: u32, end: u32) -> &[T] {
    let to = |at| usize::try_from(at).unwrap_or(usize::MAX);
    of.get(to(start)..to(end)).unwrap_or_default()
}
