//! Enters: the head of a request. Leaves: the parts of it that rules ask for, each found once and only when asked.

use std::{borrow::Cow, cell::OnceCell};

use super::{
    methods,
    names::{Names, Values},
    target::Target,
    token::Claims,
};
use crate::pipeline::{
    FlowKey,
    http::{Method, RequestHead},
};

/// A request, as rules ask for it. The lines of the head are walked once, however many rules and names there are.
pub(super) struct Asked<'p, 'h> {
    pub(super) flow: &'h FlowKey,
    pub(super) head: &'h RequestHead<'h>,
    /// Uniform over all `u64`, of this request alone.
    pub(super) draw: u64,
    /// Of the set of methods.
    pub(super) method_bit: u16,
    wanted: &'p Wanted,
    target: OnceCell<Target<'h>>,
    fields: OnceCell<Values<'h>>,
    params: OnceCell<Values<'h>>,
    cookies: OnceCell<Values<'h>>,
    claims: OnceCell<Option<Claims>>,
}

/// What rules of any experiment ask for by name.
#[derive(Clone, Debug, Default)]
pub(super) struct Wanted {
    /// Header fields, in lower case.
    pub(super) fields: Names,
    /// Query parameters.
    pub(super) params: Names,
    /// Cookies.
    pub(super) cookies: Names,
}

impl<'p, 'h> Asked<'p, 'h> {
    pub(super) fn new(wanted: &'p Wanted, flow: &'h FlowKey, head: &'h RequestHead<'h>, draw: u64) -> Self {
        Self {
            flow,
            head,
            draw,
            method_bit: methods::bit(Method::from_bytes(head.method)),
            wanted,
            target: OnceCell::new(),
            fields: OnceCell::new(),
            params: OnceCell::new(),
            cookies: OnceCell::new(),
            claims: OnceCell::new(),
        }
    }

    /// Path, query and host.
    pub(super) fn target(&self) -> &Target<'h> {
        self.target.get_or_init(|| Target::new(self.head))
    }

    /// The value of a header field by its place in [`Wanted::fields`].
    pub(super) fn field(&self, place: usize) -> Option<&[u8]> {
        self.fields().get(place)
    }

    /// The values of all header fields that are asked for.
    pub(super) fn fields(&self) -> &Values<'h> {
        self.fields.get_or_init(|| self.find_fields())
    }

    /// The value of the first query parameter by its place in [`Wanted::params`].
    pub(super) fn param(&self, place: usize) -> Option<&[u8]> {
        self.params().get(place)
    }

    /// The values of all query parameters that are asked for.
    pub(super) fn params(&self) -> &Values<'h> {
        self.params.get_or_init(|| self.find_params())
    }

    /// The value of the first cookie by its place in [`Wanted::cookies`], without quotes around it.
    pub(super) fn cookie(&self, place: usize) -> Option<&[u8]> {
        self.cookies.get_or_init(|| self.find_cookies()).get(place)
    }

    /// A claim of the bearer token, as text.
    pub(super) fn claim(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        let claims = self.claims.get_or_init(|| {
            let mut lines = self.lines_of(b"authorization");
            let line = lines.next()?;
            // Two lines are two claims to be somebody.
            if lines.next().is_some() { None } else { Claims::of_authorization(line) }
        });
        claims.as_ref()?.text(name)
    }

    fn find_fields(&self) -> Values<'h> {
        let names = &self.wanted.fields;
        let mut values = Values::new();
        for (name, value) in self.head.headers() {
            if let Some(place) = names.find_ignoring_case(name) {
                // RFC 9110 section 5.3; cookies hold commas.
                let separator: &[u8] = if name.eq_ignore_ascii_case(b"cookie") { b"; " } else { b"," };
                values.append(place, separator, value);
            }
        }
        values
    }

    fn find_params(&self) -> Values<'h> {
        let names = &self.wanted.params;
        let mut values = Values::new();
        let query = self.target().query.unwrap_or_default();
        for pair in query.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()) {
            let (name, value) = split_at_equals(pair);
            if let Some(place) = names.find(name) {
                values.put(place, value.unwrap_or_default());
            }
        }
        values
    }

    /// RFC 6265 section 4.2.1, each pair read as section 5.2 reads those that servers send: without `=` there is no
    /// name. Clients send one line; of several the first counts first.
    fn find_cookies(&self) -> Values<'h> {
        let names = &self.wanted.cookies;
        let mut values = Values::new();
        for pair in self.lines_of(b"cookie").flat_map(|line| line.split(|byte| *byte == b';')) {
            let (name, value) = split_at_equals(pair);
            if let (Some(place), Some(value)) = (names.find(name.trim_ascii()), value) {
                values.put(place, without_quotes(value.trim_ascii()));
            }
        }
        values
    }

    fn lines_of(&self, wanted: &'static [u8]) -> impl Iterator<Item = &'h [u8]> + use<'h> {
        self.head.headers().filter(move |(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value)
    }
}

/// Name and value; no value where there is no `=`.
fn split_at_equals(pair: &[u8]) -> (&[u8], Option<&[u8]>) {
    let equals = pair.iter().position(|byte| *byte == b'=').unwrap_or(pair.len());
    let (name, rest) = pair.split_at_checked(equals).unwrap_or((pair, &[]));
    (name, rest.split_first().map(|(_, value)| value))
}

fn without_quotes(value: &[u8]) -> &[u8] {
    match value {
        [b'"', inner @ .., b'"'] => inner,
        _ => value,
    }
}
