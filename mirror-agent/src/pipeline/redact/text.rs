//! Enters: text of any kind. Leaves: the same without what is named as a secret in it, or looks like one.

use std::borrow::Cow;

use regex::bytes::{Regex, RegexBuilder};

use super::{Redactor, Stamp, json::value_len};

/// Most bytes of an expression once compiled, and again of what is remembered of it while it runs.
const COMPILED_BYTES: usize = 1024 * 1024;

/// What is a secret wherever it stands. Each also finds what was cut off before its end.
const PATTERNS: [&str; 5] = [
    // Credentials of HTTP (RFC 7617, RFC 6750), quoted in a text.
    r"(?i)\b(?:bearer|basic)[ +]+[a-z0-9._~+/-]{8,}=*",
    // A JSON web token (RFC 7519).
    r"\beyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)*",
    // A private key (RFC 7468).
    r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----(?:[^-]|-[^-])*(?:-----END [A-Z0-9 ]*-----)?",
    // A key of Amazon's.
    r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b",
    // The user and the password of a URL (RFC 3986 section 3.2.1).
    r#"//[^/\s:@"'<>]*:[^/\s@"'<>]+@"#,
];

/// Compiles an expression that is looked for anywhere.
pub(super) fn compile(expression: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(expression)
        .unicode(false)
        .size_limit(COMPILED_BYTES)
        .dfa_size_limit(COMPILED_BYTES)
        .build()
}

/// What is a secret wherever it stands.
pub(super) fn known() -> Result<Vec<Regex>, regex::Error> {
    PATTERNS.iter().map(|pattern| compile(pattern)).collect()
}

impl Redactor {
    /// Takes out what patterns find.
    pub(super) fn without_patterns<'t>(&self, text: &'t [u8]) -> Cow<'t, [u8]> {
        self.patterns_replaced(text, |found| self.stamp(found).into_bytes())
    }

    /// Puts something else in the place of what patterns find.
    pub(super) fn patterns_replaced<'t>(
        &self,
        text: &'t [u8],
        replacement: impl Fn(&[u8]) -> Vec<u8>,
    ) -> Cow<'t, [u8]> {
        let mut left = Cow::Borrowed(text);
        for pattern in &self.patterns {
            if !pattern.is_match(&left) {
                continue;
            }
            let replaced = pattern.replace_all(&left, |found: &regex::bytes::Captures<'_>| {
                let found = found.get(0).map(|found| found.as_bytes()).unwrap_or_default();
                // What finds nothing hides nothing.
                if found.is_empty() { Vec::new() } else { replacement(found) }
            });
            left = Cow::Owned(replaced.into_owned());
        }
        left
    }

    /// Takes out what patterns find, and the values of keys that name secrets: `key=value`, `"key": "value"`, also where the value
    /// is an object or an array, and of an element of XML all that is in it.
    pub(super) fn text(&self, text: &[u8]) -> String {
        let text = self.without_patterns(text);
        let mut redacted = Vec::with_capacity(text.len());
        let mut rest: &[u8] = &text;
        let mut tag = Tag::None;
        while !rest.is_empty() {
            let start = rest.iter().position(|byte| is_word_byte(*byte)).unwrap_or(rest.len());
            let (before, from_word) = rest.split_at_checked(start).unwrap_or((rest, &[]));
            redacted.extend_from_slice(before);
            let end = from_word.iter().position(|byte| !is_word_byte(*byte)).unwrap_or(from_word.len());
            let (word, after) = from_word.split_at_checked(end).unwrap_or((from_word, &[]));
            redacted.extend_from_slice(word);
            rest = after;
            tag = tag.of_next_word(before);
            if word.is_empty() || !self.names.has_key(word) {
                continue;
            }
            let element = if tag == Tag::Start { element_behind(word, after) } else { None };
            let found = match element {
                Some((attributes, content, after)) => {
                    self.stamp_quoted(attributes, &mut redacted);
                    Some((content, after))
                }
                // What follows an element is not in it.
                None if tag == Tag::End => None,
                None => value_behind(after).map(|(between, value, after)| {
                    redacted.extend_from_slice(between);
                    (value, after)
                }),
            };
            if let Some((value, after)) = found {
                // What a pattern has found stays recognizable.
                if Stamp::is(value) || value.is_empty() {
                    redacted.extend_from_slice(value);
                } else {
                    redacted.extend_from_slice(self.stamp(value).as_bytes());
                }
                rest = after;
            }
        }
        String::from_utf8_lossy(&redacted).into_owned()
    }

    /// The rest of a tag, with stamps for the values of its attributes.
    fn stamp_quoted(&self, mut tag: &[u8], redacted: &mut Vec<u8>) {
        while let Some(at) = tag.iter().position(|byte| matches!(byte, b'"' | b'\'')) {
            let Some((before, [quote, inside @ ..])) = tag.split_at_checked(at) else { break };
            let Some(end) = inside.iter().position(|byte| byte == quote) else { break };
            let (value, after) = inside.split_at_checked(end).unwrap_or((inside, &[]));
            redacted.extend_from_slice(before);
            redacted.push(*quote);
            redacted.extend_from_slice(self.stamp(value).as_bytes());
            redacted.push(*quote);
            tag = after.get(1..).unwrap_or_default();
        }
        redacted.extend_from_slice(tag);
    }
}

/// Where a word stands in XML: at the beginning of which tag, if of any.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Tag {
    None,
    Start,
    End,
}

impl Tag {
    /// The same of the next word, by what lies between the two.
    fn of_next_word(self, between: &[u8]) -> Self {
        match between {
            // The word before is the prefix of a namespace (Namespaces in XML 1.0, section 4).
            b":" => self,
            [.., b'<'] => Self::Start,
            [.., b'<', b'/'] => Self::End,
            _ => Self::None,
        }
    }
}

/// Of an element of XML (Extensible Markup Language 1.0, section 3.1) of this name: the rest of its tag, what is in it, and what
/// follows. `None` where the tag does not end, or the word is but the prefix of its name.
fn element_behind<'t>(name: &[u8], text: &'t [u8]) -> Option<(&'t [u8], &'t [u8], &'t [u8])> {
    if text.first() == Some(&b':') {
        return None;
    }
    let (tag, inside) = text.split_at_checked(tag_len(text)?)?;
    if tag.ends_with(b"/>") {
        return Some((tag, &[], inside));
    }
    let (content, after) = inside.split_at_checked(content_len(inside, name))?;
    Some((tag, content, after))
}

/// Bytes up to the end of a tag, its `>` included. In quotes there may be others.
fn tag_len(text: &[u8]) -> Option<usize> {
    let mut open = None;
    for (at, byte) in text.iter().enumerate() {
        match (open, byte) {
            (None, b'>') => return at.checked_add(1),
            // No tag has one.
            (None, b'<') => return None,
            (None, b'"' | b'\'') => open = Some(*byte),
            (Some(quote), byte) if quote == *byte => open = None,
            _ => {}
        }
    }
    None
}

/// Bytes up to the tag that ends an element of this name; all where it was cut.
fn content_len(inside: &[u8], name: &[u8]) -> usize {
    let mut rest = inside;
    while let Some(tag) = rest.windows(2).position(|two| two == b"</").and_then(|at| rest.get(at..)) {
        let ended = tag.get(2..).unwrap_or_default();
        let end = ended.iter().position(|byte| !is_word_byte(*byte) && *byte != b':').unwrap_or(ended.len());
        let ended_name = ended.get(..end).and_then(|name| name.rsplit(|byte| *byte == b':').next());
        if ended_name == Some(name) {
            return inside.len().saturating_sub(tag.len());
        }
        rest = ended;
    }
    inside.len()
}

/// What stands between a key and its value, the value, and what follows; `None` where the word is no key, or there is
/// no value.
fn value_behind(text: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let mut rest = text;
    // The end of a quoted key, or of one in brackets: `"key":`, `\"key\":`, `user[key]=`.
    while let [b'\\' | b'"' | b'\'' | b']', after @ ..] = rest {
        rest = after;
    }
    rest = rest.trim_ascii_start();
    let (separator, after) = rest.split_first()?;
    let ends: &[u8] = match separator {
        b'=' => b" \t\r\n&;,\"'<>)]}",
        b':' => b"\r\n&;,\"'<>)]}",
        b'>' => b"<",
        _ => return None,
    };
    rest = if *separator == b'>' { after } else { after.trim_ascii_start() };
    // Quotes may be escaped, in JSON within a string.
    let mut quoted = rest;
    while let [b'\\', after @ ..] = quoted {
        quoted = after;
    }
    let value = match quoted {
        [quote @ (b'"' | b'\''), after @ ..] if *separator != b'>' => {
            let escapes = rest.len().saturating_sub(quoted.len());
            rest = after;
            let end = end_of_quoted(after, *quote, escapes);
            after.get(..end)?
        }
        // An object or an array, such as in JSON with something around it; where it does not end, all that there is.
        [b'{' | b'[', ..] if matches!(separator, b':' | b'=') => {
            rest.get(..value_len(rest).unwrap_or(rest.len()))?
        }
        _ => {
            let end = rest.iter().position(|byte| ends.contains(byte)).unwrap_or(rest.len());
            rest.get(..end)?
        }
    };
    let between = text.get(..text.len().checked_sub(rest.len())?)?;
    let after = rest.get(value.len()..)?;
    (!value.is_empty()).then_some((between, value, after))
}

/// Where a quoted value ends whose first quote stands behind so many backslashes.
fn end_of_quoted(text: &[u8], quote: u8, escapes: usize) -> usize {
    let mut backslashes = 0_usize;
    for (at, byte) in text.iter().enumerate() {
        match byte {
            b'\\' => backslashes = backslashes.saturating_add(1),
            byte if *byte == quote && closes(backslashes, escapes) => {
                return at.saturating_sub(backslashes.min(escapes));
            }
            _ => backslashes = 0,
        }
    }
    text.len()
}

/// Whether a quote behind so many backslashes ends what one behind `escapes` of them began. Each level of strings in strings
/// doubles the backslashes and adds one; an even number ends a string further out, and so this one.
const fn closes(mut backslashes: usize, mut escapes: usize) -> bool {
    while escapes > 0 && backslashes % 2 == 1 {
        backslashes /= 2;
        escapes /= 2;
    }
    backslashes.is_multiple_of(2)
}

const fn is_word_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')
}
