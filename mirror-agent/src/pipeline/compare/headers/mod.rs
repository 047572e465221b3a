//! Enters: the heads of two answers. Leaves: the header fields that differ.
//!
//! A field that differs, is missing or is there in addition is one divergence of the kind `header`, at
//! `header:NAME`; a cookie is one at `header:set-cookie:NAME`, an attribute of a cookie one at
//! `header:set-cookie:NAME;ATTRIBUTE`.

mod cookies;
mod expiry;
mod table;
mod values;

use std::collections::BTreeMap;

use self::table::{Form, form, is_excluded};
pub(super) use self::values::parameter;
use super::{
    found::{Found, Where},
    plan::{Active, Plan},
};
use crate::pipeline::{
    http::{headers, unfold},
    reason::DivergenceKind,
};

/// The header fields of an answer that are compared, by their names in lower case, and what tells of its content.
#[derive(Clone, Debug, Default)]
pub(super) struct Fields {
    fields: BTreeMap<Vec<u8>, Vec<Vec<u8>>>,
    /// The values of all `content-encoding` lines with commas between.
    pub(super) content_encoding: Vec<u8>,
    /// The value of the first `content-type` line.
    pub(super) content_type: Vec<u8>,
    /// What the first `date` line says, in seconds of [`expiry::seconds`].
    date: Option<u64>,
}

impl Fields {
    /// Reads a head, status line included.
    pub(super) fn read(head: &[u8], plan: &Plan) -> Self {
        let mut read = Self::default();
        let mut nominated = Vec::new();
        for (name, value) in headers(head) {
            let name = name.to_ascii_lowercase();
            let value = unfold(value);
            match name.as_slice() {
                b"content-encoding" => {
                    read.content_encoding.extend_from_slice(&value);
                    read.content_encoding.push(b',');
                }
                b"content-type" if read.content_type.is_empty() => read.content_type = value.to_vec(),
                b"date" => read.date = read.date.or_else(|| expiry::seconds(&value)),
                b"connection" => {
                    let options = value.split(|byte| *byte == b',');
                    nominated.extend(options.map(|option| option.trim_ascii().to_ascii_lowercase()));
                }
                _ => {}
            }
            if name == b"vary" && values::varies_by_coding_alone(&value) {
                continue;
            }
            if !is_excluded(&name) && !plan.ignores_header(&name) {
                read.fields.entry(name).or_default().push(value.into_owned());
            }
        }
        // What `connection` names is of the connection, too (RFC 9110 section 7.6.1).
        nominated.iter().for_each(|name| {
            read.fields.remove(name);
        });
        read
    }

    /// Whether `cache-control` says for how long the answer is fresh.
    fn have_max_age(&self) -> bool {
        let lines = self.fields.get(&b"cache-control"[..]).into_iter().flatten();
        lines.flat_map(|line| line.split(|byte| *byte == b',')).any(|directive| {
            let name = directive.trim_ascii().get(.."max-age=".len());
            name.is_some_and(|name| name.eq_ignore_ascii_case(b"max-age="))
        })
    }
}

/// Compares the header fields of two answers.
pub(super) fn compare(live: &Fields, other: &Fields, active: &Active<'_>, found: &mut Found) {
    let only_other = other.fields.keys().filter(|name| !live.fields.contains_key(*name));
    for name in live.fields.keys().chain(only_other) {
        let (of_live, of_other) = (live.fields.get(name), other.fields.get(name));
        if of_live == of_other {
            continue;
        }
        let lines = |lines: Option<&Vec<Vec<u8>>>| lines.map(|lines| lines.join(&b", "[..]));
        match form(name) {
            Form::SetCookie => {
                let lines = [of_live, of_other].map(|lines| lines.map_or(&[][..], Vec::as_slice));
                cookies::compare(lines, [live.date, other.date], active, found);
            }
            Form::Expires => {
                // RFC 9111 section 5.3: where there is `max-age`, nothing else counts.
                let is_aged = [live, other].iter().all(|fields| fields.have_max_age());
                let same = |of_live: &[u8], of_other: &[u8]| {
                    is_aged || expiry::same_freshness([of_live, of_other], [live.date, other.date])
                };
                diff(name, (lines(of_live), lines(of_other)), same, active, found);
            }
            form @ (Form::Single | Form::List | Form::Set(_) | Form::Vary | Form::MediaType) => {
                let same = |of_live: &[u8], of_other: &[u8]| values::same(of_live, of_other, form);
                diff(name, (lines(of_live), lines(of_other)), same, active, found);
            }
        }
    }
}

fn diff(
    name: &[u8],
    (live, other): (Option<Vec<u8>>, Option<Vec<u8>>),
    same: impl Fn(&[u8], &[u8]) -> bool,
    active: &Active<'_>,
    found: &mut Found,
) {
    if let (Some(live), Some(other)) = (&live, &other)
        && same(live, other)
    {
        return;
    }
    tell(name, live.as_deref(), other.as_deref(), active, found);
}

/// Tells of a field, a cookie or an attribute that differs, unless a rule explains it.
fn tell(name: &[u8], live: Option<&[u8]>, other: Option<&[u8]>, active: &Active<'_>, found: &mut Found) {
    let rules = active.at_header(name);
    let path = format!("header:{}", super::template::clean(name));
    let used = match (live, other) {
        (Some(live), Some(other)) => active.explain(&rules, live, other),
        _ => active.ignoring(&rules).map(|rule| vec![rule]),
    };
    match used {
        Some(used) => used.into_iter().for_each(|rule| found.explain(rule, &path)),
        None => found.diverge(DivergenceKind::Header, Where::from(path.as_str()), live, other),
    }
}
