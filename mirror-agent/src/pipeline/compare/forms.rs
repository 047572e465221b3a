//! Enters: two form bodies. Leaves: the fields that differ.

use std::collections::BTreeMap;

use super::{
    found::{Found, Where},
    plan::Active,
    template,
};
use crate::pipeline::reason::DivergenceKind;

/// Most fields of a form. Of more, it is compared as text.
const MAX_FIELDS: usize = 10_000;

/// The values of each field, in order, decoded.
pub(super) type Form = BTreeMap<Vec<u8>, Vec<Vec<u8>>>;

/// The fields of a body of the type application/x-www-form-urlencoded; `None` where there are too many.
pub(super) fn parse(body: &[u8]) -> Option<Form> {
    let mut form = Form::new();
    let fields = body.trim_ascii_end().split(|byte| *byte == b'&').filter(|field| !field.is_empty());
    for (count, field) in fields.enumerate() {
        if count >= MAX_FIELDS {
            return None;
        }
        let end = field.iter().position(|byte| *byte == b'=').unwrap_or(field.len());
        let (name, value) = field.split_at_checked(end)?;
        let value = decoded(value.strip_prefix(b"=").unwrap_or(value));
        form.entry(decoded(name)).or_default().push(value);
    }
    Some(form)
}

/// A `+` is a space, `%` and two digits a byte; a `%` without them is itself.
fn decoded(mut text: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    while let Some((first, rest)) = text.split_first() {
        text = rest;
        let byte = match (first, rest) {
            (b'+', _) => b' ',
            (b'%', [high, low, after @ ..]) => match (hex(*high), hex(*low)) {
                (Some(high), Some(low)) => {
                    text = after;
                    high << 4 | low
                }
                _ => b'%',
            },
            _ => *first,
        };
        decoded.push(byte);
    }
    decoded
}

fn hex(digit: u8) -> Option<u8> {
    u8::try_from(char::from(digit).to_digit(16)?).ok()
}

/// Compares two forms field by field, and of a field the values one by one.
pub(super) fn compare(live: &Form, other: &Form, active: &Active<'_>, found: &mut Found) {
    let only_other = other.keys().filter(|name| !live.contains_key(*name));
    for name in live.keys().chain(only_other) {
        let (of_live, of_other) = (live.get(name), other.get(name));
        if of_live == of_other {
            continue;
        }
        let [of_live, of_other] = [of_live, of_other].map(|values| values.map_or(&[][..], Vec::as_slice));
        let template = template::name(name);
        let rules = active.at_form(name, &template);
        let at = Where::at(format!("form:{template}"), format!("form:{}", template::clean(name)));
        for position in 0..of_live.len().max(of_other.len()) {
            let [live, other] = [of_live, of_other].map(|values| values.get(position).map(Vec::as_slice));
            if live == other {
                continue;
            }
            let (used, kind) = match (live, other) {
                (Some(live), Some(other)) => (active.explain(&rules, live, other), DivergenceKind::Value),
                (Some(_), None) => (active.ignoring(&rules).map(|rule| vec![rule]), DivergenceKind::Missing),
                (None, _) => (active.ignoring(&rules).map(|rule| vec![rule]), DivergenceKind::Extra),
            };
            match used {
                Some(used) => used.into_iter().for_each(|rule| found.explain(rule, &at.path)),
                None => found.diverge(kind, at.clone(), live, other),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::decoded;

    #[test]
    fn names_and_values_are_decoded() {
        let cases =
            [("a+b", "a b"), ("%41%2b", "A+"), ("%4", "%4"), ("%zz%", "%zz%"), ("", ""), ("%%41", "%A")];

        for (text, expected) in cases {
            assert_eq!(decoded(text.as_bytes()), expected.as_bytes(), "{text}");
        }
    }
}
