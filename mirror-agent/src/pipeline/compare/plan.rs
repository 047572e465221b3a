//! Enters: the rules of a configuration. Leaves: the same, checked and ready to be applied, or what is wrong with them.

use std::borrow::Cow;

use regex::bytes::{Regex, RegexBuilder};

use super::{
    Action, ArrayForm, CompareRules, NumberForm, Place, Rule,
    json::Bounds,
    looks,
    path::{Matcher, PathError, Progress},
};
use crate::pipeline::http::is_token_byte;

/// Whose the mistake is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Whose {
    /// The rule of this name.
    Rule(String),
    /// The array rule for this path.
    Array(String),
    /// The field of this path.
    Field(String),
    /// An ignored header field.
    IgnoredHeader(String),
}

impl std::fmt::Display for Whose {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Rule(name) => write!(f, "rule `{name}`"),
            Self::Array(path) => write!(f, "array `{path}`"),
            Self::Field(path) => write!(f, "field `{path}`"),
            Self::IgnoredHeader(name) => write!(f, "ignored header field `{name}`"),
        }
    }
}

/// Why rules cannot be applied.
#[derive(Debug, thiserror::Error)]
pub enum RulesError {
    /// A JSON path that is none.
    #[error("{whose}: `{path}` is no JSON path")]
    Path {
        /// Whose.
        whose: Whose,
        /// As written.
        path: String,
        /// What is wrong with it.
        source: PathError,
    },
    /// A regular expression that is none, or too large.
    #[error("{whose}: `{pattern}` is no regular expression")]
    Pattern {
        /// Whose.
        whose: Whose,
        /// As written.
        pattern: String,
        /// What is wrong with it.
        source: Box<regex::Error>,
    },
    /// A replacement that makes values too long.
    #[error("{whose}: the replacement is longer than {limit} bytes")]
    Replacement {
        /// Whose.
        whose: Whose,
        /// How long it may be.
        limit: usize,
    },
    /// A bound that is negative or no number.
    #[error("{whose}: a tolerance is a number from 0 up")]
    Tolerance {
        /// Whose.
        whose: Whose,
    },
    /// A header field of a name that none can have.
    #[error("{whose}: `{name}` is no name of a header field")]
    Header {
        /// Whose.
        whose: Whose,
        /// As written.
        name: String,
    },
    /// A first digit that no status has.
    #[error("{whose}: there is no status {class}xx")]
    Status {
        /// Whose.
        whose: Whose,
        /// As written.
        class: u8,
    },
    /// A table by a field without a name.
    #[error("{whose}: the field that elements are told apart by has no name")]
    Key {
        /// Whose.
        whose: Whose,
    },
}

impl RulesError {
    /// Of which entry that is wrong.
    #[must_use]
    pub const fn whose(&self) -> &Whose {
        match self {
            Self::Path { whose, .. }
            | Self::Pattern { whose, .. }
            | Self::Replacement { whose, .. }
            | Self::Tolerance { whose }
            | Self::Header { whose, .. }
            | Self::Status { whose, .. }
            | Self::Key { whose } => whose,
        }
    }
}

/// Most bytes of a regular expression once compiled, and again of what is remembered of it while it runs.
const COMPILED_BYTES: usize = 256 * 1024;

/// Longest replacement, in bytes.
const REPLACEMENT_BYTES: usize = 256;

/// By how much replacing may make a value longer, in bytes; beyond it the value is left as it is.
const GROWTH_BYTES: usize = 64 * 1024;

/// Rules, ready to be applied.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) numbers: NumberForm,
    pub(super) content_bytes: usize,
    /// Names in lower case; a last `*` stands for any end.
    ignored_headers: Vec<Vec<u8>>,
    /// Marks are positions in `rules`, and behind those in `arrays`.
    pub(super) paths: Matcher,
    arrays: Vec<ArrayForm>,
    /// Marks are positions of fields.
    pub(super) fields: Matcher,
    pub(super) field_count: usize,
    rules: Vec<Ready>,
}

#[derive(Debug)]
struct Ready {
    endpoint: Option<String>,
    place: ReadyPlace,
    action: ReadyAction,
}

#[derive(Debug)]
enum ReadyPlace {
    /// By the matcher.
    Path,
    /// In lower case.
    Header(Vec<u8>),
    Form(Vec<u8>),
    Text,
    /// The first digit.
    Status(u16),
}

#[derive(Debug)]
enum ReadyAction {
    Ignore,
    Tolerate(Bounds),
    Timestamp,
    Uuid,
    Replace { pattern: Regex, with: Vec<u8> },
}

impl Plan {
    pub(super) fn new(rules: &CompareRules) -> Result<Self, RulesError> {
        let mut paths = Matcher::default();
        let mut ready = Vec::with_capacity(rules.rules.len());
        for (position, rule) in rules.rules.iter().enumerate() {
            ready.push(prepare(rule, position, &mut paths)?);
        }
        for (position, array) in rules.arrays.iter().enumerate() {
            let whose = Whose::Array(array.path.clone());
            if array.form == ArrayForm::KeyedBy(String::new()) {
                return Err(RulesError::Key { whose });
            }
            add(&mut paths, &array.path, ready.len().saturating_add(position), whose)?;
        }
        let mut fields = Matcher::default();
        for (position, field) in rules.fields.iter().enumerate() {
            add(&mut fields, field, position, Whose::Field(field.clone()))?;
        }
        let ignored_headers = rules.ignored_headers.iter().map(|name| {
            let whose = Whose::IgnoredHeader(name.clone());
            // The `*` of a pattern is a byte that names may have.
            header_name(name, whose)
        });
        Ok(Self {
            numbers: rules.numbers,
            content_bytes: rules.content_bytes,
            ignored_headers: ignored_headers.collect::<Result<_, _>>()?,
            paths,
            arrays: rules.arrays.iter().map(|array| array.form.clone()).collect(),
            fields,
            field_count: rules.fields.len(),
            rules: ready,
        })
    }

    /// Whether the configuration leaves out the header field of this name, in lower case.
    pub(super) fn ignores_header(&self, name: &[u8]) -> bool {
        self.ignored_headers.iter().any(|ignored| match ignored.strip_suffix(b"*") {
            Some(begin) => name.starts_with(begin),
            None => name == ignored,
        })
    }

    /// The rules for answers of one endpoint.
    pub(super) fn for_endpoint(&self, endpoint: &str) -> Active<'_> {
        let applies = |rule: &Ready| rule.endpoint.as_deref().is_none_or(|of| of == endpoint);
        Active { plan: self, is_active: self.rules.iter().map(applies).collect() }
    }
}

fn prepare(rule: &Rule, position: usize, paths: &mut Matcher) -> Result<Ready, RulesError> {
    let whose = || Whose::Rule(rule.name.clone());
    let place = match &rule.place {
        Place::Path(path) => {
            add(paths, path, position, whose())?;
            ReadyPlace::Path
        }
        Place::Header(name) => ReadyPlace::Header(rule_header(name, whose())?),
        Place::Form(name) => ReadyPlace::Form(name.as_bytes().to_vec()),
        Place::Text => ReadyPlace::Text,
        Place::Status(class) if (1..=5).contains(&class.0) => ReadyPlace::Status(class.0.into()),
        Place::Status(class) => return Err(RulesError::Status { whose: whose(), class: class.0 }),
    };
    let action = match &rule.action {
        Action::Ignore => ReadyAction::Ignore,
        Action::Tolerate(tolerance) => {
            let bounds = Bounds::new(*tolerance);
            ReadyAction::Tolerate(bounds.ok_or_else(|| RulesError::Tolerance { whose: whose() })?)
        }
        Action::Timestamp => ReadyAction::Timestamp,
        Action::Uuid => ReadyAction::Uuid,
        Action::Replace { pattern, with } if with.len() <= REPLACEMENT_BYTES => {
            let compiled = RegexBuilder::new(pattern)
                .unicode(false)
                .size_limit(COMPILED_BYTES)
                .dfa_size_limit(COMPILED_BYTES)
                .build();
            let pattern = compiled.map_err(|source| RulesError::Pattern {
                whose: whose(),
                pattern: pattern.clone(),
                source: Box::new(source),
            })?;
            ReadyAction::Replace { pattern, with: with.as_bytes().to_vec() }
        }
        Action::Replace { .. } => {
            return Err(RulesError::Replacement { whose: whose(), limit: REPLACEMENT_BYTES });
        }
    };
    Ok(Ready { endpoint: rule.endpoint.clone(), place, action })
}

fn add(matcher: &mut Matcher, path: &str, mark: usize, whose: Whose) -> Result<(), RulesError> {
    matcher.add(path, mark).map_err(|source| RulesError::Path { whose, path: path.to_owned(), source })
}

/// A name in lower case.
fn header_name(name: &str, whose: Whose) -> Result<Vec<u8>, RulesError> {
    if name.is_empty() || !name.bytes().all(is_token_byte) {
        return Err(RulesError::Header { whose, name: name.to_owned() });
    }
    Ok(name.to_ascii_lowercase().into_bytes())
}

/// A name in lower case, or as reports have it where a cookie is meant: `set-cookie:NAME`, `set-cookie:NAME;ATTRIBUTE`.
fn rule_header(name: &str, whose: Whose) -> Result<Vec<u8>, RulesError> {
    const COOKIE: &str = "set-cookie:";
    match name.split_at_checked(COOKIE.len()) {
        Some((begin, cookie)) if begin.eq_ignore_ascii_case(COOKIE) && !cookie.is_empty() => {
            Ok([COOKIE.as_bytes(), cookie.as_bytes()].concat())
        }
        _ => header_name(name, whose),
    }
}

/// The rules that apply to one pair of answers.
#[derive(Debug)]
pub(super) struct Active<'a> {
    pub(super) plan: &'a Plan,
    is_active: Vec<bool>,
}

/// What values are compared as where rules apply: those that are the same this way are the same.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Reduced<'a> {
    /// Any value.
    Ignored,
    /// Any number, any point in time or any UUID, as the position of its rule tells.
    AnyOf(usize),
    /// This one.
    Value(Cow<'a, [u8]>),
}

/// Rules by their positions.
type Positions = Vec<usize>;

impl<'a> Active<'a> {
    fn get(&self, position: usize) -> Option<&'a Ready> {
        let is_active = self.is_active.get(position).copied().unwrap_or(false);
        self.plan.rules.get(position).filter(|_| is_active)
    }

    /// The rules for a place in JSON.
    pub(super) fn at_path(&self, at: &Progress) -> Positions {
        if at.is_done() {
            return Vec::new();
        }
        let marks = self.plan.paths.marks(at);
        let mut positions: Positions = marks.filter(|mark| self.get(*mark).is_some()).collect();
        positions.sort_unstable();
        positions
    }

    /// What the array at a place in JSON is.
    pub(super) fn array_form(&self, at: &Progress) -> &'a ArrayForm {
        let rules = self.plan.rules.len();
        let positions = self.plan.paths.marks(at).filter_map(|mark| mark.checked_sub(rules));
        positions.min().and_then(|first| self.plan.arrays.get(first)).unwrap_or(&ArrayForm::Ordered)
    }

    /// The rules for a header field, its name in lower case, or for a part of one: `set-cookie:session`.
    pub(super) fn at_header(&self, name: &[u8]) -> Positions {
        self.select(|place| match place {
            ReadyPlace::Header(of) => {
                name == of || name.strip_prefix(&**of).is_some_and(|rest| rest.starts_with(b":"))
            }
            ReadyPlace::Path | ReadyPlace::Form(_) | ReadyPlace::Text | ReadyPlace::Status(_) => false,
        })
    }

    /// The rules for a field of a form.
    pub(super) fn at_form(&self, name: &[u8], template: &str) -> Positions {
        self.select(
            |place| matches!(place, ReadyPlace::Form(of) if of == name || of.as_slice() == template.as_bytes()),
        )
    }

    /// The rules for text.
    pub(super) fn at_text(&self) -> Positions {
        self.select(|place| matches!(place, ReadyPlace::Text))
    }

    /// The first rule for answers of live with this status, and whether the status itself counts all the same.
    pub(super) fn at_status(&self, status: u16) -> Option<(usize, bool)> {
        let class = status / 100;
        let position =
            *self.select(|place| matches!(place, ReadyPlace::Status(of) if *of == class)).first()?;
        let keeps_status = !matches!(self.get(position)?.action, ReadyAction::Ignore);
        Some((position, keeps_status))
    }

    fn select(&self, fits: impl Fn(&ReadyPlace) -> bool) -> Positions {
        let rules = self.plan.rules.iter().zip(&self.is_active).enumerate();
        rules.filter(|(_, (rule, is_active))| **is_active && fits(&rule.place)).map(|(at, _)| at).collect()
    }

    /// The first of these rules that takes any difference.
    pub(super) fn ignoring(&self, positions: &[usize]) -> Option<usize> {
        let ignores = |position: &&usize| {
            self.get(**position).is_some_and(|rule| matches!(rule.action, ReadyAction::Ignore))
        };
        positions.iter().find(ignores).copied()
    }

    /// Which of these rules explain together that two values differ; `None` where they do not.
    pub(super) fn explain(&self, positions: &[usize], live: &[u8], other: &[u8]) -> Option<Positions> {
        if let Some(ignoring) = self.ignoring(positions) {
            return Some(vec![ignoring]);
        }
        let (live, mut used) = self.replace(positions, live);
        let (other, used_for_other) = self.replace(positions, other);
        used.extend(used_for_other);
        used.sort_unstable();
        used.dedup();
        if live != other {
            used.push(self.accept(positions, &live, &other)?);
        }
        Some(used)
    }

    /// The first of these rules that takes these two values for the same as they are.
    pub(super) fn accept(&self, positions: &[usize], live: &[u8], other: &[u8]) -> Option<usize> {
        let accepts = |position: &&usize| {
            self.get(**position).is_some_and(|rule| match &rule.action {
                ReadyAction::Tolerate(bounds) => bounds.allow(live, other),
                ReadyAction::Timestamp => looks::is_timestamp(live) && looks::is_timestamp(other),
                ReadyAction::Uuid => looks::is_uuid(live) && looks::is_uuid(other),
                ReadyAction::Ignore | ReadyAction::Replace { .. } => false,
            })
        };
        positions.iter().find(accepts).copied()
    }

    /// What a value is compared as where equal values have to be found among many. A tolerance makes any two numbers the
    /// same here; by how much they differ is looked at once they are paired.
    pub(super) fn reduce<'v>(&self, positions: &[usize], value: &'v [u8]) -> Reduced<'v> {
        if self.ignoring(positions).is_some() {
            return Reduced::Ignored;
        }
        let (value, _) = self.replace(positions, value);
        let takes_any = |position: &&usize| {
            self.get(**position).is_some_and(|rule| match &rule.action {
                ReadyAction::Tolerate(_) => super::json::is_number(&value),
                ReadyAction::Timestamp => looks::is_timestamp(&value),
                ReadyAction::Uuid => looks::is_uuid(&value),
                ReadyAction::Ignore | ReadyAction::Replace { .. } => false,
            })
        };
        match positions.iter().find(takes_any) {
            Some(position) => Reduced::AnyOf(*position),
            None => Reduced::Value(value),
        }
    }

    /// The value once the replacements are made, and the rules that made any.
    pub(super) fn replace<'v>(&self, positions: &[usize], value: &'v [u8]) -> (Cow<'v, [u8]>, Positions) {
        let mut replaced = Cow::Borrowed(value);
        let mut used = Vec::new();
        for position in positions {
            if let Some(Ready { action: ReadyAction::Replace { pattern, with }, .. }) = self.get(*position)
                && let Some(changed) = replace_all(pattern, &replaced, with)
            {
                replaced = Cow::Owned(changed);
                used.push(*position);
            }
        }
        (replaced, used)
    }
}

/// `None` where nothing is found, or the value would grow beyond its bound.
fn replace_all(pattern: &Regex, value: &[u8], with: &[u8]) -> Option<Vec<u8>> {
    let mut replaced = Vec::new();
    let mut end = 0;
    let mut finds = pattern.captures_iter(value).peekable();
    finds.peek()?;
    for find in finds {
        let whole = find.get(0)?;
        replaced.extend_from_slice(value.get(end..whole.start())?);
        find.expand(with, &mut replaced);
        end = whole.end();
        if replaced.len() > value.len().saturating_add(GROWTH_BYTES) {
            return None;
        }
    }
    replaced.extend_from_slice(value.get(end..)?);
    Some(replaced)
}
