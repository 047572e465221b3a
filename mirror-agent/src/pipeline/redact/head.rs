//! Enters: heads of messages, and places in JSON. Leaves: what of a head may be kept, and the steps to a place.

use super::Redactor;
use crate::pipeline::http::{headers, unfold};

/// Header fields that hold a URL.
const URLS: [&[u8]; 7] = [
    b"content-location",
    b"location",
    b"referer",
    b"x-forwarded-uri",
    b"x-original-uri",
    b"x-original-url",
    b"x-rewrite-url",
];

/// Header fields whose pairs have names that are no secrets.
const COOKIES: [&[u8]; 2] = [b"cookie", b"set-cookie"];

impl Redactor {
    /// The start line of a head.
    pub(super) fn start_line(&self, head: &[u8]) -> String {
        let line = head.split(|byte| *byte == b'\n').next().unwrap_or_default().trim_ascii_end();
        if line.starts_with(b"HTTP/") {
            return self.text(line);
        }
        // RFC 9112 section 3: method, target and version; a target has no spaces.
        let mut parts = line.splitn(3, |byte| *byte == b' ');
        let (method, target) = (parts.next().unwrap_or_default(), parts.next());
        let method = self.plain(method);
        let Some(target) = target else { return method };
        let target = self.url(target);
        match parts.next() {
            Some(version) => format!("{method} {target} {}", self.plain(version)),
            None => format!("{method} {target}"),
        }
    }

    /// The field lines of a head.
    pub(super) fn fields(&self, head: &[u8]) -> Vec<(String, String)> {
        headers(head).map(|(name, value)| (self.plain(name), self.field(name, &unfold(value)))).collect()
    }

    /// The value of a header field.
    pub(super) fn field(&self, name: &[u8], value: &[u8]) -> String {
        if value.is_empty() {
            return String::new();
        }
        if COOKIES.iter().any(|cookies| name.eq_ignore_ascii_case(cookies)) {
            return self.cookies(name.eq_ignore_ascii_case(b"set-cookie"), value);
        }
        if name.eq_ignore_ascii_case(b"authorization") || name.eq_ignore_ascii_case(b"proxy-authorization") {
            return self.credentials(value);
        }
        if self.names.has_header(name) {
            return self.stamp(value);
        }
        if URLS.iter().any(|url| name.eq_ignore_ascii_case(url)) {
            return self.url(value);
        }
        self.string(value, 0)
    }

    /// RFC 9110 section 11.6.2: the scheme may be known.
    fn credentials(&self, value: &[u8]) -> String {
        let space = value.iter().position(|byte| *byte == b' ');
        let (scheme, rest) = space.and_then(|space| value.split_at_checked(space)).unwrap_or_default();
        let is_scheme =
            (1..=MAX_SCHEME_BYTES).contains(&scheme.len()) && scheme.iter().all(u8::is_ascii_alphabetic);
        let secret = rest.trim_ascii();
        if is_scheme && !secret.is_empty() {
            format!("{} {}", self.plain(scheme), self.stamp(secret))
        } else {
            self.stamp(value)
        }
    }

    /// RFC 6265 sections 4.1.1 and 4.2.1: the names of cookies, and what is said of one behind the first pair, are no
    /// secrets.
    fn cookies(&self, is_set: bool, value: &[u8]) -> String {
        let mut redacted = String::with_capacity(value.len());
        for (number, pair) in value.split(|byte| *byte == b';').enumerate() {
            if number > 0 {
                redacted.push_str("; ");
            }
            let pair = pair.trim_ascii();
            if is_set && number > 0 {
                redacted.push_str(&self.text(pair));
                continue;
            }
            let equals = pair.iter().position(|byte| *byte == b'=');
            match equals.and_then(|equals| pair.split_at_checked(equals)) {
                Some((name, [_, secret @ ..])) if !secret.is_empty() => {
                    redacted.push_str(&self.plain(name));
                    redacted.push('=');
                    redacted.push_str(&self.stamp(secret));
                }
                Some((name, [_])) => {
                    redacted.push_str(&self.plain(name));
                    redacted.push('=');
                }
                _ if pair.is_empty() => {}
                _ => redacted.push_str(&self.stamp(pair)),
            }
        }
        redacted
    }

    /// A URL or a request target: its path is text, its query pairs (RFC 3986 section 3). A fragment may hold what
    /// OAuth puts there.
    fn url(&self, url: &[u8]) -> String {
        let (rest, fragment) = split_at(url, b'#');
        let (path, query) = split_at(rest, b'?');
        let mut redacted = self.encoded(path, false);
        for (mark, pairs) in [('?', query), ('#', fragment)] {
            if let Some(pairs) = pairs {
                redacted.push(mark);
                redacted.push_str(&self.pairs(pairs));
            }
        }
        redacted
    }

    /// What is no value: a name, a method.
    fn plain(&self, text: &[u8]) -> String {
        String::from_utf8_lossy(&self.without_patterns(text)).into_owned()
    }
}

/// A longer word is no scheme of authentication.
const MAX_SCHEME_BYTES: usize = 24;

/// What stands before the mark, and what behind it.
fn split_at(text: &[u8], mark: u8) -> (&[u8], Option<&[u8]>) {
    let end = text.iter().position(|byte| *byte == mark).unwrap_or(text.len());
    let (before, rest) = text.split_at_checked(end).unwrap_or((text, &[]));
    (before, rest.split_first().map(|(_, behind)| behind))
}

/// One step of the place of a divergence.
pub(super) enum Step {
    /// To the member of this key.
    Key(String),
    /// To this element.
    Index(usize),
    /// None: this is the place.
    End,
}

/// The first step of a place, and what follows; `None` where it is not understood.
pub(super) fn next_step(place: &str) -> Option<(Step, &str)> {
    if place.is_empty() {
        return Some((Step::End, place));
    }
    if let Some(rest) = place.strip_prefix('.') {
        let end = rest.find(['.', '[']).unwrap_or(rest.len());
        let (key, after) = rest.split_at_checked(end)?;
        return Some((Step::Key(key.to_owned()), after));
    }
    let rest = place.strip_prefix('[')?;
    if let Some(quote @ ('"' | '\'')) = rest.chars().next() {
        let mut key = String::new();
        let mut chars = rest.char_indices().skip(1);
        while let Some((at, char)) = chars.next() {
            match char {
                '\\' => key.push(chars.next()?.1),
                char if char == quote => {
                    return Some((Step::Key(key), rest.get(at..)?.get(1..)?.strip_prefix(']')?));
                }
                char => key.push(char),
            }
        }
        return None;
    }
    let (inside, after) = rest.split_once(']')?;
    // A table's element by its key, `[id=7]`, is none that a path could name.
    Some((Step::Index(inside.parse().unwrap_or(usize::MAX)), after))
}
