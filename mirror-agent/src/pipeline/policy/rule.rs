//! Enters: what a request must be like. Leaves: whether it is.
//!
//! The words and what they mean are those of Gateway API's `HTTPRouteMatch`; where that leaves a choice, Envoy's is
//! taken. Everything is compared as it was sent: nothing is percent-decoded, no path is normalised.

use std::net::Ipv6Addr;

use super::{
    MethodSet, Methods, Pattern,
    asked::{Asked, Wanted},
    clue::Clue,
};

/// Why a rule is refused.
#[derive(Debug, thiserror::Error)]
pub enum RuleError {
    /// A path that no request can have.
    #[error("path {path:?} does not begin with /")]
    Path {
        /// The path.
        path: String,
    },
    /// No regular expression, or one that is too large.
    #[error("{pattern:?} is not a regular expression that can be used")]
    Pattern {
        /// The expression.
        pattern: String,
        /// What is wrong with it.
        source: Box<regex::Error>,
    },
    /// Not a name, nor `*.` and a name.
    #[error("{host:?} is neither a host name without a port nor *. and such a name")]
    Host {
        /// What it is.
        host: String,
    },
    /// The name of a header field, parameter, cookie or claim is empty, or has characters that none has.
    #[error("{name:?} is not a name")]
    Name {
        /// What it is.
        name: String,
    },
    /// The same header field or query parameter twice in one rule: Gateway API would ignore the second.
    #[error("{name:?} stands there twice")]
    Twice {
        /// Its name.
        name: String,
    },
}

/// What a request must be like: everything that is said.
#[derive(Clone, Debug)]
pub struct Rule {
    path: Option<PathRule>,
    methods: MethodSet,
    fields: Vec<NamedRule>,
    params: Vec<NamedRule>,
    hosts: Vec<HostRule>,
}

impl Rule {
    /// Fits every request with one of these methods.
    #[must_use]
    pub fn of_methods(methods: Methods) -> Self {
        Self {
            path: None,
            methods: methods.into(),
            fields: Vec::new(),
            params: Vec::new(),
            hosts: Vec::new(),
        }
    }

    /// The same, if its path is like that.
    #[must_use]
    pub fn with_path(self, path: PathRule) -> Self {
        Self { path: Some(path), ..self }
    }

    /// The same, if the header field of this name, in any case, is like that. Lines of one name count as one value
    /// with commas between, as RFC 9110 section 5.3 and Envoy read them; those of `cookie` with semicolons.
    ///
    /// # Errors
    ///
    /// [`RuleError::Name`], [`RuleError::Twice`].
    pub fn with_field(mut self, name: &str, value: ValueRule) -> Result<Self, RuleError> {
        let rule = NamedRule::new(field_name(name)?, value);
        push(&mut self.fields, rule, name)?;
        Ok(self)
    }

    /// The same, if the first query parameter of this name is like that. One without `=` has an empty value.
    ///
    /// # Errors
    ///
    /// [`RuleError::Name`], [`RuleError::Twice`].
    pub fn with_param(mut self, name: &str, value: ValueRule) -> Result<Self, RuleError> {
        push(&mut self.params, NamedRule::new(plain_name(name)?, value), name)?;
        Ok(self)
    }

    /// The same, if its host is one of these and of those named before.
    #[must_use]
    pub fn with_host(mut self, host: HostRule) -> Self {
        self.hosts.push(host);
        self
    }

    /// Finds the places of what it asks for.
    pub(super) fn bind(&mut self, wanted: &mut Wanted) {
        for rule in &mut self.fields {
            rule.slot = wanted.fields.intern(&rule.name);
        }
        for rule in &mut self.params {
            rule.slot = wanted.params.intern(&rule.name);
        }
    }

    /// The methods, where it asks for nothing else.
    pub(super) fn methods_alone(&self) -> Option<&MethodSet> {
        let asks_more = self.path.is_some()
            || !(self.hosts.is_empty() && self.fields.is_empty() && self.params.is_empty());
        (!asks_more).then_some(&self.methods)
    }

    /// What it asks for, its methods aside: whatever fits it has at least one clue of each of these lists.
    pub(super) fn clues(&self) -> Vec<Vec<Clue>> {
        let path = self.path.as_ref().and_then(PathRule::beginnings);
        let path = path.map(|texts| texts.into_iter().map(Clue::Path).collect());
        let hosts: Option<Vec<_>> = self.hosts.iter().map(Clue::of_host).collect();
        let hosts = hosts.filter(|hosts| !hosts.is_empty());
        let fields = self.fields.iter().map(|rule| vec![Clue::Field(rule.slot, rule.value.exact())]);
        let params = self.params.iter().map(|rule| vec![Clue::Param(rule.slot, rule.value.exact())]);
        path.into_iter().chain(hosts).chain(fields).chain(params).collect()
    }

    pub(super) fn fits_method(&self, asked: &Asked<'_, '_>) -> bool {
        self.methods.contains(asked.method_bit, asked.head.method)
    }

    /// Whether everything but the method fits.
    pub(super) fn fits_beside_method(&self, asked: &Asked<'_, '_>) -> bool {
        self.path.as_ref().is_none_or(|rule| rule.fits(asked.target().path))
            && (self.hosts.is_empty()
                || asked.target().host.is_some_and(|host| self.hosts.iter().any(|rule| rule.fits(host))))
            && self.fields.iter().all(|rule| rule.value.fits(asked.field(rule.slot)))
            && self.params.iter().all(|rule| rule.value.fits(asked.param(rule.slot)))
    }
}

/// What a path must be like. The path of a request is what stands before the first `?`, as sent; of a target in absolute
/// form, what follows the authority, `/` where nothing does; of `OPTIONS *`, the asterisk.
#[derive(Clone, Debug)]
pub struct PathRule(PathKind);

#[derive(Clone, Debug)]
enum PathKind {
    Exact(Box<[u8]>),
    /// Without a slash at its end; empty for any path.
    Prefix(Box<[u8]>),
    Pattern(Pattern),
}

impl PathRule {
    /// The same, byte for byte.
    ///
    /// # Errors
    ///
    /// [`RuleError::Path`] for anything but an asterisk that does not begin with a slash.
    pub fn exact(path: &str) -> Result<Self, RuleError> {
        if path == "*" || path.starts_with('/') {
            Ok(Self(PathKind::Exact(path.as_bytes().into())))
        } else {
            Err(RuleError::Path { path: path.to_owned() })
        }
    }

    /// Begins with these path elements: `/api` fits `/api`, `/api/` and `/api/x`, not `/apix`. A slash at the end of
    /// the prefix is ignored; `/` fits every path, though not the asterisk of `OPTIONS *`.
    ///
    /// # Errors
    ///
    /// [`RuleError::Path`] where it does not begin with a slash.
    pub fn prefix(path: &str) -> Result<Self, RuleError> {
        if path.starts_with('/') {
            Ok(Self(PathKind::Prefix(path.strip_suffix('/').unwrap_or(path).as_bytes().into())))
        } else {
            Err(RuleError::Path { path: path.to_owned() })
        }
    }

    /// All of it is described by a pattern.
    #[must_use]
    pub const fn pattern(pattern: Pattern) -> Self {
        Self(PathKind::Pattern(pattern))
    }

    /// Texts of which every path that fits begins with one; `None` where that is not known.
    fn beginnings(&self) -> Option<Vec<Box<[u8]>>> {
        match &self.0 {
            PathKind::Exact(exact) => Some(vec![exact.clone()]),
            PathKind::Prefix(prefix) if prefix.is_empty() => Some(vec![(*b"/").into()]),
            PathKind::Prefix(prefix) => Some(vec![prefix.clone()]),
            PathKind::Pattern(pattern) => pattern.beginnings(),
        }
    }

    fn fits(&self, path: &[u8]) -> bool {
        match &self.0 {
            PathKind::Exact(exact) => **exact == *path,
            PathKind::Prefix(prefix) => {
                matches!(path.strip_prefix(&**prefix), Some([] | [b'/', ..]))
            }
            PathKind::Pattern(pattern) => pattern.fits(path),
        }
    }
}

/// What a value must be like; one that is not there fits nothing.
#[derive(Clone, Debug)]
pub enum ValueRule {
    /// The same, byte for byte.
    Exact(Box<[u8]>),
    /// All of it is described by a pattern.
    Pattern(Pattern),
    /// Any, also an empty one.
    Present,
}

impl ValueRule {
    /// The only value that fits, where there is one.
    fn exact(&self) -> Option<Box<[u8]>> {
        match self {
            Self::Exact(exact) => Some(exact.clone()),
            Self::Pattern(_) | Self::Present => None,
        }
    }

    fn fits(&self, value: Option<&[u8]>) -> bool {
        let Some(value) = value else { return false };
        match self {
            Self::Exact(exact) => **exact == *value,
            Self::Pattern(pattern) => pattern.fits(value),
            Self::Present => true,
        }
    }
}

/// A value by its name.
#[derive(Clone, Debug)]
struct NamedRule {
    name: Box<[u8]>,
    value: ValueRule,
    slot: usize,
}

impl NamedRule {
    const fn new(name: Box<[u8]>, value: ValueRule) -> Self {
        Self { name, value, slot: 0 }
    }
}

fn push(rules: &mut Vec<NamedRule>, rule: NamedRule, name: &str) -> Result<(), RuleError> {
    if rules.iter().any(|other| other.name == rule.name) {
        return Err(RuleError::Twice { name: name.to_owned() });
    }
    rules.push(rule);
    Ok(())
}

/// The host that a request must be for. That of a request is what stands in its target, or else in its first Host
/// line: without port and user, and without a dot at its end, in any case.
#[derive(Clone, Debug)]
pub struct HostRule {
    /// In lower case; a suffix with its first dot.
    name: Box<[u8]>,
    is_suffix: bool,
}

impl HostRule {
    /// A name, an address as it is written in requests, IPv6 with or without brackets, or `*.` and a name: any host with one label more, or several.
    ///
    /// # Errors
    ///
    /// [`RuleError::Host`].
    pub fn new(host: &str) -> Result<Self, RuleError> {
        let address = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
        if address.parse::<Ipv6Addr>().is_ok() {
            return Ok(Self { name: format!("[{address}]").into_bytes().into(), is_suffix: false });
        }
        let name = host.strip_prefix('*').unwrap_or(host);
        let is_suffix = name.len() < host.len();
        let rest = if is_suffix { name.strip_prefix('.').unwrap_or_default() } else { name };
        let is_name = rest.split('.').all(|label| {
            !label.is_empty()
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        });
        if is_name {
            Ok(Self { name: name.to_ascii_lowercase().into_bytes().into(), is_suffix })
        } else {
            Err(RuleError::Host { host: host.to_owned() })
        }
    }

    /// With what every host that fits ends, in lower case.
    pub(super) fn ending(&self) -> &[u8] {
        &self.name
    }

    fn fits(&self, host: &[u8]) -> bool {
        if !self.is_suffix {
            return host.eq_ignore_ascii_case(&self.name);
        }
        let Some(labels) = host.len().checked_sub(self.name.len()) else { return false };
        labels > 0 && host.get(labels..).is_some_and(|suffix| suffix.eq_ignore_ascii_case(&self.name))
    }
}

/// The name of a header field, in lower case.
pub(super) fn field_name(name: &str) -> Result<Box<[u8]>, RuleError> {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || !name.bytes().all(is_token) {
        return Err(RuleError::Name { name: name.to_owned() });
    }
    Ok(name.to_ascii_lowercase().into_bytes().into())
}

/// The name of a parameter, cookie or claim.
pub(super) fn plain_name(name: &str) -> Result<Box<[u8]>, RuleError> {
    if name.is_empty() {
        return Err(RuleError::Name { name: name.to_owned() });
    }
    Ok(name.as_bytes().into())
}
