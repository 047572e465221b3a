//! Enters: the head of a request that bears values of live's, and what a target calls them. Leaves: the head with the
//! target's.
//!
//! It comes before all other edits, which are of the configuration. Only the bytes of a value are changed: neither can
//! the one put in end a line, since it is visible ASCII, nor are others around it read anew.

use super::{
    copier::Copier,
    fields::field_len,
    target::{Parts, decode, encode},
};
use crate::pipeline::http::{find_line_feed, trim_whitespace};

/// Where a request bears a value.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Use {
    /// In the value of this header field, in any case, wherever in it.
    Header(String),
    /// As the value of this cookie.
    Cookie(String),
    /// As the value of this query parameter.
    Query(String),
}

/// What a target calls values of live's, by the rule that they were found with.
pub trait Known {
    /// Whether any of live's values is so long, in bytes: most of what is asked for is not, and this is cheap to say.
    fn has_length(&self, rule: usize, len: usize) -> bool;

    /// The target's value: visible ASCII.
    fn find(&mut self, rule: usize, live: &[u8]) -> Option<&[u8]>;
}

/// What came of a head.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Substituted {
    /// Values that were replaced.
    pub replaced: u64,
    /// Places where a value of live's may stand, and none that is known does.
    pub unknown: u64,
}

/// Appends `head` to `out` with live's values replaced by the target's, at the places that `uses` names, each with its
/// rule. Where nothing is replaced, nothing is appended.
pub fn substitute(
    out: &mut Vec<u8>,
    head: &[u8],
    uses: &[(usize, Use)],
    known: &mut impl Known,
) -> Substituted {
    let start = out.len();
    let done = Substituted::default();
    let mut pass = Pass { copier: Copier::new(out, head), uses, known, done, places_left: MOST_PLACES };
    pass.walk(head);
    let Pass { copier, done, .. } = pass;
    let out = copier.finish();
    if done.replaced == 0 {
        out.truncate(start);
    }
    done
}

struct Pass<'a, K> {
    copier: Copier<'a>,
    uses: &'a [(usize, Use)],
    known: &'a mut K,
    done: Substituted,
    /// Places that may still be tried.
    places_left: usize,
}

impl<K: Known> Pass<'_, K> {
    fn walk(&mut self, head: &[u8]) {
        let line_len = find_line_feed(head).map_or(head.len(), |line_feed| line_feed.saturating_add(1));
        self.request_line(head.get(..line_len).unwrap_or_default());
        let mut start = line_len;
        while let Some(rest) = head.get(start..).filter(|rest| !rest.is_empty()) {
            let end = start.saturating_add(field_len(rest));
            let line = head.get(start..end).unwrap_or(rest);
            if let Some(colon) = line.iter().position(|byte| *byte == b':') {
                let name = trim_whitespace(line.get(..colon).unwrap_or_default());
                let value = Place::of(line, colon.saturating_add(1), line.len()).behind(start);
                self.field(name, value);
            }
            start = end;
        }
    }

    fn request_line(&mut self, line: &[u8]) {
        if !self.uses.iter().any(|(_, place)| matches!(place, Use::Query(_))) {
            return;
        }
        let Some((mut start, end)) = Parts::find(line).and_then(|parts| parts.query) else { return };
        for piece in line.get(start..end).unwrap_or_default().split(|byte| *byte == b'&') {
            if let Some(equals) = piece.iter().position(|byte| *byte == b'=') {
                let (name, rest) = piece.split_at_checked(equals).unwrap_or_default();
                let value = Place {
                    start: start.saturating_add(equals).saturating_add(1),
                    bytes: rest.get(1..).unwrap_or_default(),
                };
                self.parameter(name, value);
            }
            start = start.saturating_add(piece.len()).saturating_add(1);
        }
    }

    fn parameter(&mut self, name: &[u8], value: Place<'_>) {
        let is_meant = |place: &Use| matches!(place, Use::Query(wanted) if decode(name).eq(wanted.bytes()));
        let Some(rules) = self.rules(is_meant) else { return };
        if !self.may_try() {
            return self.miss();
        }
        // As forms are read, and as other readers do who leave the plus alone: a token may be of base64.
        let form: Vec<u8> = decode(value.bytes).collect();
        let plain: Vec<u8> = decode(&with_plus(value.bytes)).collect();
        for rule in rules {
            for text in [&form, &plain] {
                if self.known.has_length(rule, text.len())
                    && let Some(with) = self.known.find(rule, text)
                {
                    let with = String::from_utf8_lossy(with);
                    encode(self.copier.replace(value.start, value.end()), &with);
                    self.done.replaced = self.done.replaced.saturating_add(1);
                    return;
                }
            }
        }
        self.miss();
    }

    fn field(&mut self, name: &[u8], value: Place<'_>) {
        if name.eq_ignore_ascii_case(b"cookie") && self.cookies(value) {
            return;
        }
        let is_meant = |place: &Use| matches!(place, Use::Header(wanted) if wanted.as_bytes().eq_ignore_ascii_case(name));
        if let Some(rules) = self.rules(is_meant) {
            let before = self.done.replaced;
            self.parts(value, &rules);
            if self.done.replaced == before {
                self.miss();
            }
        }
    }

    /// Whether any use is of a cookie that is there.
    fn cookies(&mut self, line: Place<'_>) -> bool {
        let mut is_any = false;
        let mut start = line.start;
        for pair in line.bytes.split(|byte| *byte == b';') {
            if let Some(equals) = pair.iter().position(|byte| *byte == b'=') {
                let name = trim_whitespace(pair.get(..equals).unwrap_or_default());
                let mut value = Place::of(pair, equals.saturating_add(1), pair.len()).behind(start);
                if let [b'"', inner @ .., b'"'] = value.bytes {
                    value = Place { start: value.start.saturating_add(1), bytes: inner };
                }
                is_any |= self.cookie(name, value);
            }
            start = start.saturating_add(pair.len()).saturating_add(1);
        }
        is_any
    }

    /// Whether the cookie is meant by any use.
    fn cookie(&mut self, name: &[u8], value: Place<'_>) -> bool {
        let is_meant = |place: &Use| matches!(place, Use::Cookie(wanted) if wanted.as_bytes() == name);
        let Some(rules) = self.rules(is_meant) else { return false };
        let rules = if self.may_try() { rules } else { Vec::new() };
        for rule in rules {
            if self.known.has_length(rule, value.bytes.len())
                && let Some(with) = self.known.find(rule, value.bytes)
                && with.iter().copied().all(is_cookie_byte)
            {
                self.copier.replace(value.start, value.end()).extend_from_slice(with);
                self.done.replaced = self.done.replaced.saturating_add(1);
                return true;
            }
        }
        self.miss();
        true
    }

    /// Replaces values anywhere in a field: what is known, from where a word may begin to where one may end, the longest
    /// first.
    fn parts(&mut self, value: Place<'_>, rules: &[usize]) {
        let bounds: Vec<usize> = bounds(value.bytes).take(self.places_left).collect();
        self.places_left = self.places_left.saturating_sub(bounds.len());
        let mut from = 0;
        for (number, start) in bounds.iter().copied().enumerate() {
            if start < from {
                continue;
            }
            let ends = bounds.get(number.saturating_add(1)..).unwrap_or_default();
            for end in ends.iter().rev().copied() {
                if self.part(value, start, end, rules) {
                    from = end;
                    break;
                }
            }
        }
    }

    fn part(&mut self, value: Place<'_>, start: usize, end: usize, rules: &[usize]) -> bool {
        let Some(part) = value.bytes.get(start..end) else { return false };
        if part.len() < PART_BYTES && part.len() < value.bytes.len() {
            return false;
        }
        for rule in rules {
            if self.known.has_length(*rule, part.len())
                && let Some(with) = self.known.find(*rule, part)
            {
                let place = |offset: usize| value.start.saturating_add(offset);
                self.copier.replace(place(start), place(end)).extend_from_slice(with);
                self.done.replaced = self.done.replaced.saturating_add(1);
                return true;
            }
        }
        false
    }

    /// The rules whose values may stand at a place; `None` where there are none.
    fn rules(&self, is_meant: impl Fn(&Use) -> bool) -> Option<Vec<usize>> {
        let meant = self.uses.iter().filter(|(_, place)| is_meant(place));
        let rules: Vec<usize> = meant.map(|(rule, _)| *rule).collect();
        (!rules.is_empty()).then_some(rules)
    }

    /// Whether one more place may be tried, which is then one less.
    fn may_try(&mut self) -> bool {
        let left = self.places_left.checked_sub(1);
        self.places_left = left.unwrap_or_default();
        left.is_some()
    }

    fn miss(&mut self) {
        self.done.unknown = self.done.unknown.saturating_add(1);
    }
}

/// Bytes, and where they begin in the head.
#[derive(Clone, Copy)]
struct Place<'a> {
    start: usize,
    bytes: &'a [u8],
}

impl<'a> Place<'a> {
    /// What lies between two places of `line`, without the whitespace and line ends around it.
    fn of(line: &'a [u8], start: usize, end: usize) -> Self {
        let all = line.get(start..end).unwrap_or_default();
        let behind = all.trim_ascii_start();
        let skipped = all.len().saturating_sub(behind.len());
        Self { start: start.saturating_add(skipped), bytes: behind.trim_ascii_end() }
    }

    const fn behind(self, offset: usize) -> Self {
        Self { start: self.start.saturating_add(offset), ..self }
    }

    const fn end(&self) -> usize {
        self.start.saturating_add(self.bytes.len())
    }
}

/// Where words may begin or end: not between two bytes of one word.
fn bounds(value: &[u8]) -> impl Iterator<Item = usize> {
    let is_word =
        |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || b"-_+/".contains(byte));
    let is_bound = move |place: &usize| {
        let before = place.checked_sub(1).and_then(|before| value.get(before));
        !(is_word(before) && is_word(value.get(*place)))
    };
    (0..=value.len()).filter(is_bound)
}

/// The bytes with each plus percent-encoded, so that it stands for itself.
fn with_plus(text: &[u8]) -> Vec<u8> {
    text.iter()
        .flat_map(|byte| if *byte == b'+' { &b"%2B"[..] } else { std::slice::from_ref(byte) })
        .copied()
        .collect()
}

/// RFC 6265 section 4.1.1; visible ASCII already.
const fn is_cookie_byte(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'"' | b',' | b';' | b'\\')
}

/// Shortest value that is looked for within a header field: a shorter one, `1` or `true`, would be met by chance.
const PART_BYTES: usize = 8;

/// Places that are tried in a head: cookies and parameters that are meant, and where in fields that are words may begin or
/// end. A token has few of these, and who sends more, in however many fields, shall not cost more: each is tried with all
/// those behind it, under a lock.
const MOST_PLACES: usize = 128;
