//! Enters: PDML, Wireshark's XML of dissected frames. Leaves: its tags, one by one.

use std::borrow::Cow;

/// A tag with its attributes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Tag<'a> {
    /// The element's name.
    pub(super) name: &'a str,
    /// What the tag does.
    pub(super) kind: Kind,
    attributes: &'a str,
}

/// What a tag does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    /// Opens an element.
    Open,
    /// Closes one.
    Close,
    /// Opens and closes one.
    Empty,
}

impl<'a> Tag<'a> {
    /// The attribute of this name, entities resolved.
    #[must_use]
    pub(super) fn attribute(&self, name: &str) -> Option<Cow<'a, str>> {
        let mut rest = self.attributes.trim_start();
        while let Some((key, after)) = rest.split_once('=') {
            let quote = after.chars().next().filter(|quote| matches!(quote, '"' | '\''))?;
            let (value, after) = after.get(1..)?.split_once(quote)?;
            if key.trim() == name {
                return Some(unescape(value));
            }
            rest = after.trim_start();
        }
        None
    }

    /// The attribute of this name as a number.
    #[must_use]
    pub(super) fn number(&self, name: &str) -> Option<u64> {
        self.attribute(name)?.parse().ok()
    }

    /// The bytes of the field, which PDML gives in hexadecimal.
    #[must_use]
    pub(super) fn bytes(&self) -> Option<Vec<u8>> {
        hex(&self.attribute("value")?)
    }
}

/// The bytes of a text in hexadecimal.
pub(super) fn hex(text: &str) -> Option<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok()).collect()
}

/// The tags of `document`; text between them, comments and declarations are left out.
pub(super) fn tags(document: &str) -> impl Iterator<Item = Tag<'_>> {
    let mut rest = document;
    std::iter::from_fn(move || {
        loop {
            let start = rest.find('<')?;
            let tag = &rest[start + 1..];
            let end = end_of_tag(tag)?;
            rest = &tag[end + 1..];
            let tag = &tag[..end];
            if tag.starts_with(['?', '!']) {
                continue;
            }
            let (kind, tag) = match (tag.strip_prefix('/'), tag.strip_suffix('/')) {
                (Some(tag), _) => (Kind::Close, tag),
                (None, Some(tag)) => (Kind::Empty, tag),
                (None, None) => (Kind::Open, tag),
            };
            let (name, attributes) = tag.split_once(char::is_whitespace).unwrap_or((tag, ""));
            return Some(Tag { name, kind, attributes });
        }
    })
}

/// Position of the `>` that ends a tag: one in quotes does not.
fn end_of_tag(tag: &str) -> Option<usize> {
    let mut quote = None;
    tag.bytes().position(|byte| {
        match (quote, byte) {
            (None, b'>') => return true,
            (None, b'"' | b'\'') => quote = Some(byte),
            (Some(open), _) if open == byte => quote = None,
            _ => {}
        }
        false
    })
}

fn unescape(text: &str) -> Cow<'_, str> {
    if !text.contains('&') {
        return Cow::Borrowed(text);
    }
    let entities = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&apos;", "'"), ("&amp;", "&")];
    Cow::Owned(entities.iter().fold(text.to_owned(), |text, (entity, plain)| text.replace(entity, plain)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_taken_apart() {
        let document = "<?xml version=\"1.0\"?>\n<!-- a > b -->\n<proto name=\"http\" pos='7'>\n\
                        <field name=\"a\" show=\"x &lt;&amp;gt; > y\nz\" value=\"0aFF\"/></proto>";
        let found: Vec<_> = tags(document).map(|tag| (tag.name, tag.kind)).collect();
        assert_eq!(found, [("proto", Kind::Open), ("field", Kind::Empty), ("proto", Kind::Close)]);
        let tags: Vec<_> = tags(document).collect();
        assert_eq!(tags[0].number("pos"), Some(7));
        assert_eq!(tags[1].attribute("show").as_deref(), Some("x <&gt; > y\nz"));
        assert_eq!(tags[1].bytes(), Some(vec![10, 255]));
        assert_eq!(tags[0].bytes(), None);
    }
}
