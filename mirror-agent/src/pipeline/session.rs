//! Enters: an answer, and where a value stands in it. Leaves: the value, if it may be written into a request.
//!
//! What comes from an answer is taken for a value only where it is visible ASCII: nothing of it can end a line, or begin
//! another.

use std::cell::OnceCell;

use bytes::Bytes;
use memchr::{memchr, memmem};
use serde_json::Value;

use crate::pipeline::{
    Answer,
    compare::decode::decode,
    http::{headers, trim_whitespace},
};

/// Why a place in an answer is none.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SourceError {
    /// Empty, or with characters that no name has.
    #[error("{name:?} is not a name")]
    Name {
        /// What it is.
        name: String,
    },
    /// Not the path of one place.
    #[error("{path:?} is not a path like $.data.tokens[0]")]
    Path {
        /// What it is.
        path: String,
    },
}

/// Where an answer has a value.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Source {
    /// The first header field of this name.
    Header(String),
    /// The cookie of this name that is set last.
    Cookie(String),
    /// The string at this place of a JSON document of at most [`JSON_BYTES`].
    Json(Vec<Step>),
}

/// One step of a path.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Step {
    /// To the member of this name.
    Key(String),
    /// To the element of this number, from 0.
    Index(usize),
}

impl Source {
    /// The header field of this name, in any case.
    ///
    /// # Errors
    ///
    /// [`SourceError::Name`].
    pub fn header(name: &str) -> Result<Self, SourceError> {
        token(name).map(Self::Header)
    }

    /// The cookie of this name.
    ///
    /// # Errors
    ///
    /// [`SourceError::Name`].
    pub fn cookie(name: &str) -> Result<Self, SourceError> {
        token(name).map(Self::Cookie)
    }

    /// The place of this path: `$.token`, `$.tokens[0]['access-token']`.
    ///
    /// # Errors
    ///
    /// [`SourceError::Path`].
    pub fn json(path: &str) -> Result<Self, SourceError> {
        let steps = path.strip_prefix('$').and_then(steps).filter(|steps| !steps.is_empty());
        steps.map(Self::Json).ok_or_else(|| SourceError::Path { path: path.to_owned() })
    }

    /// The value that `answer` has there.
    #[must_use]
    pub fn find(&self, answer: &Searched<'_>) -> Option<Vec<u8>> {
        let head = &answer.answer.head;
        let value = match self {
            Self::Header(name) => {
                let mut values = values_of(head, name.as_bytes());
                values.next()?.to_vec()
            }
            Self::Cookie(name) => {
                let set = values_of(head, b"set-cookie");
                set.filter_map(|value| cookie_value(value, name.as_bytes())).last()?.to_vec()
            }
            Self::Json(steps) => {
                let place = steps.iter().try_fold(answer.document(steps)?, |value, step| match step {
                    Step::Key(key) => value.get(key),
                    Step::Index(index) => value.get(index),
                })?;
                place.as_str()?.as_bytes().to_vec()
            }
        };
        is_value(&value).then_some(value)
    }
}

/// An answer in which several values are looked for. Its content is taken off its codings once, and parsed once, and only if
/// it can have one of them.
#[derive(Debug)]
pub struct Searched<'a> {
    answer: &'a Answer,
    content: OnceCell<Option<Bytes>>,
    document: OnceCell<Option<Value>>,
}

impl<'a> Searched<'a> {
    /// Nothing has been looked for yet.
    #[must_use]
    pub const fn new(answer: &'a Answer) -> Self {
        Self { answer, content: OnceCell::new(), document: OnceCell::new() }
    }

    /// The document, if there may be a value at the end of `steps`.
    fn document(&self, steps: &[Step]) -> Option<&Value> {
        let content = self.content.get_or_init(|| self.json()).as_ref()?;
        if !steps.iter().all(|step| may_have(content, step)) {
            return None;
        }
        self.document.get_or_init(|| serde_json::from_slice(content).ok()).as_ref()
    }

    /// The content without its codings, where the answer says that it is JSON or says nothing.
    fn json(&self) -> Option<Bytes> {
        let Answer { head, content, .. } = self.answer;
        let is_json = |kind: &[u8]| kind.to_ascii_lowercase().windows(4).any(|part| part == b"json");
        if !values_of(head, b"content-type").all(is_json) {
            return None;
        }
        let codings = values_of(head, b"content-encoding").collect::<Vec<_>>().join(&b',');
        decode(content, &codings, JSON_BYTES).ok()
    }
}

/// Whether a document can have a member of this name: the name stands in it, or something that may be it, written in another
/// way.
fn may_have(content: &[u8], step: &Step) -> bool {
    let Step::Key(key) = step else { return true };
    memmem::find(content, key.as_bytes()).is_some() || memchr(b'\\', content).is_some()
}

/// The values of the header fields of this name.
fn values_of<'a>(head: &'a [u8], name: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    headers(head).filter(move |(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

/// The value of the cookie that this `set-cookie` sets, if it has that name (RFC 6265 section 5.2).
fn cookie_value<'a>(set_cookie: &'a [u8], wanted: &[u8]) -> Option<&'a [u8]> {
    let pair = set_cookie.split(|byte| *byte == b';').next()?;
    let equals = pair.iter().position(|byte| *byte == b'=')?;
    let (name, rest) = pair.split_at_checked(equals)?;
    let value = trim_whitespace(rest.get(1..)?);
    (trim_whitespace(name) == wanted).then_some(match value {
        [b'"', inner @ .., b'"'] => inner,
        value => value,
    })
}

/// Whether a value may be written into a request.
fn is_value(value: &[u8]) -> bool {
    (1..=VALUE_BYTES).contains(&value.len()) && value.iter().all(u8::is_ascii_graphic)
}

fn token(name: &str) -> Result<String, SourceError> {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || !name.bytes().all(is_token) {
        return Err(SourceError::Name { name: name.to_owned() });
    }
    Ok(name.to_owned())
}

/// The steps of a path behind the `$`.
fn steps(path: &str) -> Option<Vec<Step>> {
    let mut steps = Vec::new();
    let mut rest = path;
    while !rest.is_empty() {
        if let Some(behind) = rest.strip_prefix('.') {
            let len = behind.find(['.', '[']).unwrap_or(behind.len());
            let (key, after) = behind.split_at_checked(len)?;
            if key.is_empty() || key.contains(['*', ' ', ']', '"', '\'']) {
                return None;
            }
            steps.push(Step::Key(key.to_owned()));
            rest = after;
        } else {
            let behind = rest.strip_prefix('[')?;
            let quote = behind.chars().next().filter(|first| matches!(first, '\'' | '"'));
            let (inner, after) = match quote {
                Some(quote) => behind.get(1..)?.split_once(&format!("{quote}]"))?,
                None => behind.split_once(']')?,
            };
            steps.push(match quote {
                Some(_) => Step::Key(inner.to_owned()),
                None => Step::Index(inner.parse().ok()?),
            });
            rest = after;
        }
    }
    Some(steps)
}

/// Longest value that is taken, in bytes: what servers take of a cookie.
pub const VALUE_BYTES: usize = 4096;

/// Longest JSON document that is looked into, in bytes: it is done where answers come in, and answers that hand out a
/// session are short.
pub const JSON_BYTES: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::pipeline::reason::UntimedReason;

    fn found(source: Result<Source, SourceError>, lines: &str, content: &str) -> Option<String> {
        let answer = Answer {
            status: 200,
            head: format!("HTTP/1.1 200 OK\r\n{lines}\r\n").into_bytes().into(),
            content: content.as_bytes().to_vec().into(),
            timing: Err(UntimedReason::Unknown),
        };
        source.unwrap().find(&Searched::new(&answer)).map(|value| String::from_utf8(value).unwrap())
    }

    #[test]
    fn value_is_found_wherever_an_answer_may_have_it() {
        for (source, lines, content, expected) in [
            (Source::header("X-Token"), "x-token:  abc \r\nx-token: d\r\n", "", Some("abc")),
            (Source::header("x-token"), "x-tok: abc\r\n", "", None),
            (Source::cookie("sid"), "Set-Cookie: sid=a=b; Path=/; HttpOnly\r\n", "", Some("a=b")),
            (Source::cookie("sid"), "set-cookie: sid=\"q\"\r\nset-cookie: x=1\r\n", "", Some("q")),
            (Source::cookie("sid"), "set-cookie: sid=1\r\nset-cookie: sid=2\r\n", "", Some("2")),
            (Source::cookie("sid"), "set-cookie: SID=1\r\nset-cookie: sid\r\n", "", None),
            (Source::json("$.token"), "", r#"{"token":"t\u002b"}"#, Some("t+")),
            (Source::json("$.a[1]['b c'].d"), "", r#"{"a":[0,{"b c":{"d":"x"}}]}"#, Some("x")),
            (Source::json("$.token"), "", r#"{"token":7}"#, None),
            (Source::json("$.token"), "", "{", None),
            (Source::json("$.token"), "", r#"{"t\u006fken":"t"}"#, Some("t")),
            (
                Source::json("$.token"),
                "content-type: application/vnd.api+JSON\r\n",
                r#"{"token":"t"}"#,
                Some("t"),
            ),
            (Source::json("$.token"), "content-type: text/html\r\n", r#"{"token":"t"}"#, None),
        ] {
            assert_eq!(
                found(source.clone(), lines, content).as_deref(),
                expected,
                "{source:?} in {lines}{content}"
            );
        }
    }

    #[test]
    fn content_is_looked_into_behind_its_coding() {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        gzip.write_all(br#"{"token":"t"}"#).unwrap();
        let answer = Answer {
            status: 200,
            head: b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\n\r\n".to_vec().into(),
            content: gzip.finish().unwrap().into(),
            timing: Err(UntimedReason::Unknown),
        };
        assert_eq!(Source::json("$.token").unwrap().find(&Searched::new(&answer)).unwrap(), b"t");
    }

    #[test]
    fn content_is_parsed_once_and_only_where_a_name_stands_in_it() {
        let answer = Answer {
            status: 200,
            head: b"HTTP/1.1 200 OK\r\n\r\n".to_vec().into(),
            content: br#"{"a":"1","b":"2"}"#.to_vec().into(),
            timing: Err(UntimedReason::Unknown),
        };
        let searched = Searched::new(&answer);
        assert_eq!(Source::json("$.token").unwrap().find(&searched), None);
        assert!(searched.document.get().is_none(), "it was parsed in vain");
        assert_eq!(Source::json("$.a").unwrap().find(&searched).unwrap(), b"1");
        let parsed = std::ptr::from_ref(searched.document.get().unwrap());
        assert_eq!(Source::json("$.b").unwrap().find(&searched).unwrap(), b"2");
        assert!(std::ptr::eq(parsed, searched.document.get().unwrap()));
    }

    #[test]
    fn value_that_could_end_a_line_or_hide_in_one_is_not_taken() {
        for value in ["", "a\\r\\nx: y", "a\\u0000", "a b", "a\\tb", "\\u007f", "\u{e4}", "\\u00e4"] {
            let content = format!("{{\"token\":\"{value}\"}}");
            assert_eq!(found(Source::json("$.token"), "", &content), None, "{value}");
        }
        let with_len = |len: usize| found(Source::header("x"), &format!("x: {}\r\n", "v".repeat(len)), "");
        assert!(with_len(VALUE_BYTES).is_some());
        assert_eq!(with_len(VALUE_BYTES + 1), None);
        let long = format!("{{\"token\":\"t\",\"x\":\"{}\"}}", "v".repeat(JSON_BYTES));
        assert_eq!(found(Source::json("$.token"), "", &long), None);
    }

    #[test]
    fn path_of_more_than_one_place_is_none() {
        for path in ["", "$", "token", "$.", "$..a", "$.*", "$[*]", "$[-1]", "$.a[", "$['a'", "$.a]", "$a"] {
            assert_eq!(Source::json(path), Err(SourceError::Path { path: path.to_owned() }));
        }
        assert!(Source::header("a b").is_err() && Source::cookie("").is_err());
    }
}
