//! Enters: requests, answers and divergences. Leaves: the same as may be kept, without what is a secret.
//!
//! A secret becomes a stamp, `redacted-8f3a1c2b`, whose digits are a keyed hash: equal secrets have equal stamps, so that
//! what is redacted can still be compared, and without the key nobody can try out what a stamp stands for.

mod encoding;
mod head;
mod json;
mod rules;
#[cfg(test)]
mod tests;
mod text;

use std::{hash::Hasher as _, sync::Arc};

use bytes::Bytes;
use regex::bytes::Regex;
use serde::Serialize;
use siphasher::sip::SipHasher13;

pub use self::rules::{HEADERS, KEY_PARTS, KEYS, RedactRules};
use self::{encoding::encode_percent, rules::Names};
use crate::pipeline::{
    Answer, Limits, Request,
    compare::{
        Divergence, MALFORMED_LINE, PLACE_BYTES, TEXT_LINE, VALUE_BYTES,
        decode::decode,
        path::{Matcher, PathError, Progress},
    },
    http::{Event, RequestDecoder, headers},
    reason::{DivergenceKind, IncomparableReason},
};

/// Why rules cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RedactError {
    /// Something is no JSON path.
    #[error("{path:?} is not a JSON path")]
    Path {
        /// What was given.
        path: String,
        /// What is wrong with it.
        source: PathError,
    },
    /// Something is no regular expression.
    #[error("{pattern:?} is not a regular expression")]
    Pattern {
        /// What was given.
        pattern: String,
        /// What is wrong with it.
        source: Box<regex::Error>,
    },
}

/// Takes secrets out of what is to be kept.
#[derive(Clone, Debug)]
pub struct Redactor {
    names: Names,
    paths: Matcher,
    patterns: Vec<Regex>,
    /// Of these patterns the last are the user's.
    has_own_patterns: bool,
    key: [u64; 2],
}

/// A request or an answer, as it may be kept.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct RedactedMessage {
    /// The start line.
    pub line: String,
    /// Names and values of the header section, in its order.
    pub headers: Vec<(String, String)>,
    /// The content, without its codings.
    pub content: RedactedContent,
}

/// The content of a message, as it may be kept.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum RedactedContent {
    /// There is none.
    Empty,
    /// Text.
    Text {
        /// The text.
        text: String,
        /// Whether it is longer.
        is_cut: bool,
    },
    /// It is not kept: nobody can say what in it is a secret.
    Left {
        /// Its length in bytes, as sent.
        bytes: usize,
        /// Equal for equal contents.
        hash: String,
        /// Why.
        reason: LeftReason,
    },
}

/// Why content is not kept.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LeftReason {
    /// It is no text, or of no type that is understood.
    Binary,
    /// It is not what its type says.
    Malformed,
    /// It has a content coding that cannot be taken off.
    Coding,
    /// It is longer than what is looked at.
    TooLarge,
}

impl RedactedMessage {
    /// Bytes that it holds, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let lines = self.headers.iter().map(|(name, value)| name.len().saturating_add(value.len()));
        let content = match &self.content {
            RedactedContent::Empty => 0,
            RedactedContent::Text { text, .. } => text.len(),
            RedactedContent::Left { hash, .. } => hash.len(),
        };
        let each = size_of::<(String, String)>().saturating_mul(self.headers.len());
        lines.fold(self.line.len().saturating_add(content).saturating_add(each), usize::saturating_add)
    }
}

/// What takes the place of a secret.
struct Stamp;

impl Stamp {
    const PREFIX: &'static str = "redacted-";

    /// Whether this is one.
    fn is(value: &[u8]) -> bool {
        value
            .strip_prefix(Self::PREFIX.as_bytes())
            .is_some_and(|digits| digits.len() == 8 && digits.iter().all(u8::is_ascii_hexdigit))
    }
}

impl Redactor {
    /// `key` should be random and stay secret: stamps of one key can be compared.
    ///
    /// # Errors
    ///
    /// All variants of [`RedactError`].
    pub fn new(rules: &RedactRules, key: [u64; 2]) -> Result<Self, RedactError> {
        let mut paths = Matcher::default();
        for path in &rules.paths {
            paths.add(path, 0).map_err(|source| RedactError::Path { path: path.clone(), source })?;
        }
        let failed = |pattern: &str, source| RedactError::Pattern {
            pattern: pattern.to_owned(),
            source: Box::new(source),
        };
        let mut patterns = text::known().map_err(|source| failed("", source))?;
        for pattern in &rules.patterns {
            patterns.push(text::compile(pattern).map_err(|source| failed(pattern, source))?);
        }
        let has_own_patterns = !rules.patterns.is_empty();
        Ok(Self { names: Names::new(rules), paths, patterns, has_own_patterns, key })
    }

    /// A request as captured. Of its content at most `limit` bytes are kept.
    #[must_use]
    pub fn request(&self, request: &Request, limit: usize) -> RedactedMessage {
        let head = request.raw.get(..request.head_len).unwrap_or(&request.raw);
        self.message(head, &content_of(&request.raw), limit)
    }

    /// An answer. Of its content at most `limit` bytes are kept.
    #[must_use]
    pub fn answer(&self, answer: &Answer, limit: usize) -> RedactedMessage {
        self.message(&answer.head, &answer.content, limit)
    }

    /// A message: its head, and its content without the transfer coding. Of that at most `limit` bytes are kept.
    #[must_use]
    pub fn message(&self, head: &[u8], content: &Bytes, limit: usize) -> RedactedMessage {
        let (mut kind, mut codings) = (None, Vec::new());
        for (name, value) in headers(head) {
            if name.eq_ignore_ascii_case(b"content-type") {
                kind = kind.or(Some(value));
            } else if name.eq_ignore_ascii_case(b"content-encoding") {
                if !codings.is_empty() {
                    codings.push(b',');
                }
                codings.extend_from_slice(value);
            }
        }
        RedactedMessage {
            line: self.start_line(head),
            headers: self.fields(head),
            content: self.content(kind, &codings, content, limit),
        }
    }

    /// Content of a type, with codings as `content-encoding` has them. At most `limit` bytes of it are kept.
    #[must_use]
    pub fn content(
        &self,
        kind: Option<&[u8]>,
        codings: &[u8],
        content: &Bytes,
        limit: usize,
    ) -> RedactedContent {
        if content.is_empty() {
            return RedactedContent::Empty;
        }
        let left = |reason| RedactedContent::Left {
            bytes: content.len(),
            hash: format!("{:016x}", self.hash(content)),
            reason,
        };
        let decoded = match decode(content, codings, MAX_CONTENT_BYTES) {
            Ok(decoded) => decoded,
            Err(IncomparableReason::TooLarge | IncomparableReason::DecodedTooLarge) => {
                return left(LeftReason::TooLarge);
            }
            Err(_coding) => return left(LeftReason::Coding),
        };
        match self.decoded(kind, &decoded) {
            Ok(text) => cut(text, limit),
            Err(reason) => left(reason),
        }
    }

    fn decoded(&self, kind: Option<&[u8]>, content: &[u8]) -> Result<String, LeftReason> {
        let json = || self.json(content, &self.paths.start(), 0);
        let is_text = std::str::from_utf8(content).is_ok();
        match ContentKind::of(kind) {
            ContentKind::Json => json().or_else(|| self.json_lines(content)).ok_or(LeftReason::Malformed),
            ContentKind::JsonLines => self.json_lines(content).ok_or(LeftReason::Malformed),
            ContentKind::Form if is_text => Ok(self.pairs(content)),
            // What says that it is text is often JSON.
            ContentKind::Text if is_text => Ok(json().unwrap_or_else(|| self.text(content))),
            ContentKind::Form | ContentKind::Text => Err(LeftReason::Malformed),
            ContentKind::Other => json().ok_or(LeftReason::Binary),
        }
    }

    /// JSON texts, one a line.
    fn json_lines(&self, content: &[u8]) -> Option<String> {
        let mut redacted = String::with_capacity(content.len());
        for line in content.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty()) {
            redacted.push_str(&self.json(line, &self.paths.start(), 0)?);
            redacted.push('\n');
        }
        Some(redacted)
    }

    /// A divergence without what it shows of secrets.
    #[must_use]
    pub fn divergence(&self, divergence: &Divergence) -> Divergence {
        let Divergence { kind, path, place, other_place, live, other } = divergence;
        let shown = |value: &Option<String>, place: &str| {
            let value = value.as_deref()?;
            // What is told of an order is elements, at the place of their array.
            let is_secret = *kind == DivergenceKind::Order && !self.may_show_elements(place);
            Some(if is_secret { self.stamp(value.as_bytes()) } else { self.value_at(place, value) })
        };
        Divergence {
            kind: *kind,
            path: Arc::from(self.place(path)),
            place: self.place(place),
            other_place: other_place.as_deref().map(|place| self.place(place)),
            live: shown(live, place),
            other: shown(other, other_place.as_ref().unwrap_or(place)),
        }
    }

    /// A path or a place of a divergence, an endpoint or the like: patterns may find something in that, too.
    #[must_use]
    pub fn place(&self, place: &str) -> String {
        String::from_utf8_lossy(&self.without_patterns(place.as_bytes())).into_owned()
    }

    /// The same where other agents are told of it: theirs are other keys, so all secrets look the same.
    #[must_use]
    pub fn place_for_all(&self, place: &str) -> String {
        let replacement = |_: &[u8]| Stamp::PREFIX.trim_end_matches('-').as_bytes().to_vec();
        String::from_utf8_lossy(&self.patterns_replaced(place.as_bytes(), replacement)).into_owned()
    }

    /// Whether no path leads to, or below, the elements of an array.
    fn may_show_elements(&self, place: &str) -> bool {
        place.starts_with("header:") || self.steps(place).is_some_and(|progress| progress.is_done())
    }

    /// A value that was found at a place of an answer.
    fn value_at(&self, place: &str, value: &str) -> String {
        let bytes = value.as_bytes();
        // Where it is exactly, and so what names it, is not known.
        if is_cut_place(place) || place.starts_with(MALFORMED_LINE) {
            return self.stamp(bytes);
        }
        // Of a key in PEM or the like, whose first line alone says what it is.
        if place.starts_with(TEXT_LINE) && is_encoded_line(bytes) {
            return self.stamp(bytes);
        }
        if let Some(name) = place.strip_prefix("header:") {
            return self.field_value_at(name, value);
        }
        if let Some(name) = place.strip_prefix("form:")
            && self.is_secret_key(name.as_bytes())
        {
            return self.stamp(bytes);
        }
        let Some(from) = self.steps(place) else { return self.stamp(bytes) };
        if is_cut(value) {
            return self.cut_value(value);
        }
        // A value is written as JSON, or a string as it is.
        if let Some(json) = self.json(bytes, &from, 0) {
            return json;
        }
        // An object is told by its keys, an array by its length: there are no values in that.
        let has_values = value.contains(['"', ':']);
        if has_values && matches!(bytes.trim_ascii_start().first(), Some(b'{' | b'[')) {
            self.stamp(bytes)
        } else {
            self.text(bytes)
        }
    }

    /// A value of a header field, of a cookie `set-cookie:NAME`, or of its attribute `set-cookie:NAME;ATTRIBUTE`.
    fn field_value_at(&self, place: &str, value: &str) -> String {
        let (name, cookie) =
            place.split_once(':').map_or((place, None), |(name, cookie)| (name, Some(cookie)));
        let name = name.split(['[', ' ']).next().unwrap_or(name).as_bytes();
        match cookie {
            Some(cookie) if !cookie.contains(';') => self.stamp(value.as_bytes()),
            None if self.names.has_header(name) => self.field(name, value.as_bytes()),
            Some(_) | None if is_cut(value) => self.cut_value(value),
            Some(_) => self.text(value.as_bytes()),
            None => self.field(name, value.as_bytes()),
        }
    }

    /// What paths lead to a place, as far as it is one in JSON; `None` where a secret is there, or around it.
    fn steps(&self, place: &str) -> Option<Progress> {
        let mut progress = self.paths.start();
        let Some(mut rest) = place.find('$').and_then(|start| place.get(start..)?.strip_prefix('$')) else {
            return Some(Progress::default());
        };
        loop {
            if self.paths.marks(&progress).next().is_some() {
                return None;
            }
            let (step, after) = head::next_step(rest)?;
            match step {
                head::Step::End => return Some(progress),
                head::Step::Key(key) if self.names.has_key(key.as_bytes()) => return None,
                head::Step::Key(key) => progress = self.paths.member(&progress, key.as_bytes()),
                head::Step::Index(index) => progress = self.paths.element(&progress, index),
            }
            rest = after;
        }
    }

    /// A value that is not all there: a secret at its end is not to be recognized.
    fn cut_value(&self, value: &str) -> String {
        let is_json = matches!(value.trim_start().as_bytes().first(), Some(b'{' | b'['));
        let whole = value.rfind([' ', '\t', '\n']).and_then(|end| value.get(..end));
        match whole {
            Some(whole) if !is_json && !self.has_own_patterns => {
                format!("{} {}", self.text(whole.as_bytes()), self.stamp(value.as_bytes()))
            }
            _ => self.stamp(value.as_bytes()),
        }
    }

    fn stamp(&self, secret: &[u8]) -> String {
        format!("{}{:08x}", Stamp::PREFIX, self.hash(secret) >> 32)
    }

    fn hash(&self, bytes: &[u8]) -> u64 {
        let [first, second] = self.key;
        let mut hasher = SipHasher13::new_with_keys(first, second);
        hasher.write(bytes);
        hasher.finish()
    }

    /// Pairs of a form or a query, `key=value` with `&` between. What is no secret stays as it was sent.
    fn pairs(&self, text: &[u8]) -> String {
        let mut redacted = String::with_capacity(text.len());
        for (number, pair) in text.split(|byte| *byte == b'&').enumerate() {
            if number > 0 {
                redacted.push('&');
            }
            let equals = pair.iter().position(|byte| *byte == b'=').unwrap_or(pair.len());
            let (key, rest) = pair.split_at_checked(equals).unwrap_or((pair, &[]));
            redacted.push_str(&self.encoded(key, true));
            let Some((_, value)) = rest.split_first() else { continue };
            redacted.push('=');
            let name = encoding::decode_percent(key, true);
            if self.is_secret_key(&name) && !value.is_empty() {
                redacted.push_str(&self.stamp(&encoding::decode_percent(value, true)));
            } else {
                redacted.push_str(&self.encoded(value, true));
            }
        }
        redacted
    }

    /// Whether a key of a form is that of a secret, or a part of it as in `user[password]`.
    fn is_secret_key(&self, key: &[u8]) -> bool {
        key.split(|byte| matches!(byte, b'[' | b']')).any(|part| self.names.has_key(part))
    }

    /// Percent-encoded text: as it was, unless a secret is in what it stands for.
    fn encoded(&self, text: &[u8], plus_is_space: bool) -> String {
        let decoded = encoding::decode_percent(text, plus_is_space);
        let redacted = self.string(&decoded, 0);
        // JSON in it may be written differently: that is a difference, and harmless.
        if redacted.as_bytes() == decoded {
            String::from_utf8_lossy(&self.without_patterns(text)).into_owned()
        } else {
            encode_percent(redacted.as_bytes())
        }
    }
}

/// Whether a value of a divergence may have been cut: a few bytes less than the limit, for what is no whole character.
fn is_cut(value: &str) -> bool {
    value.len() >= VALUE_BYTES.saturating_sub(8)
}

/// Whether a place may lack its last steps.
fn is_cut_place(place: &str) -> bool {
    place.len() >= PLACE_BYTES.saturating_sub(8)
}

/// Whether a line of text is nothing but a long run of base64 (RFC 4648).
fn is_encoded_line(line: &[u8]) -> bool {
    let line = line.trim_ascii();
    line.len() >= ENCODED_BYTES
        && line
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=' | b'-' | b'_'))
}

/// At most `limit` bytes of a text.
fn cut(mut text: String, limit: usize) -> RedactedContent {
    let is_cut = text.len() > limit;
    if is_cut {
        text.truncate(text.floor_char_boundary(limit));
        text.shrink_to_fit();
    }
    RedactedContent::Text { text, is_cut }
}

/// The content of a request, without its transfer coding.
fn content_of(raw: &Bytes) -> Bytes {
    let limits = Limits { head_bytes: raw.len().saturating_add(1), ..Limits::default() };
    let mut decoder = RequestDecoder::new(&limits);
    let mut rest: &[u8] = raw;
    let mut content = Vec::new();
    loop {
        match decoder.poll(&mut rest) {
            Event::Start | Event::Head(_) | Event::Framing(_) => {}
            Event::Content(bytes) => content.extend_from_slice(bytes),
            Event::NeedMore | Event::End | Event::Refused(_) => return Bytes::from(content),
        }
    }
}

/// What content is, by its media type.
#[derive(Clone, Copy, Debug)]
enum ContentKind {
    Json,
    JsonLines,
    Form,
    Text,
    Other,
}

impl ContentKind {
    fn of(kind: Option<&[u8]>) -> Self {
        let kind = kind.unwrap_or_default().split(|byte| *byte == b';').next().unwrap_or_default();
        let kind = kind.trim_ascii().to_ascii_lowercase();
        match kind.as_slice() {
            b"application/json" | b"text/json" => Self::Json,
            b"application/x-ndjson"
            | b"application/ndjson"
            | b"application/jsonl"
            | b"application/x-jsonlines"
            | b"application/json-seq" => Self::JsonLines,
            b"application/x-www-form-urlencoded" => Self::Form,
            b"application/xml" | b"application/javascript" | b"application/graphql" | b"application/yaml" => {
                Self::Text
            }
            kind if kind.ends_with(b"+json") => Self::Json,
            kind if kind.starts_with(b"text/") || kind.ends_with(b"+xml") => Self::Text,
            _ => Self::Other,
        }
    }
}

/// Words of text are shorter.
const ENCODED_BYTES: usize = 24;

/// Longer content, decoded, is not looked at. What is compared is shorter.
const MAX_CONTENT_BYTES: usize = 16 * 1024 * 1024;
