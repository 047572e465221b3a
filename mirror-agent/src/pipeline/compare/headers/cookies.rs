//! Enters: `set-cookie` lines of two answers. Leaves: the cookies that differ, and their attributes that do.

use std::collections::BTreeMap;

use super::{expiry, tell};
use crate::pipeline::compare::{found::Found, plan::Active, template};

/// A cookie as set.
struct Cookie<'a> {
    value: &'a [u8],
    /// By their names in lower case; without a value where there is none.
    attributes: BTreeMap<Vec<u8>, &'a [u8]>,
}

/// Most cookies that are compared by name. Of more, the rest is left out: browsers keep fewer.
const MAX_COOKIES: usize = 200;

/// The moments of two answers, in seconds of [`expiry::seconds`], where they say them.
type Dates = [Option<u64>; 2];

/// Compares the cookies of live's lines and the other's by their names. Of several with the same name the last counts, as
/// it does to a browser.
pub(super) fn compare(lines: [&[Vec<u8>]; 2], dates: Dates, active: &Active<'_>, found: &mut Found) {
    let [live, other] = lines.map(|lines| {
        lines.iter().filter_map(|line| parse(line)).take(MAX_COOKIES).collect::<BTreeMap<&[u8], Cookie<'_>>>()
    });
    let only_other = other.keys().filter(|name| !live.contains_key(*name));
    for name in live.keys().chain(only_other) {
        let (of_live, of_other) = (live.get(name), other.get(name));
        let path = [b"set-cookie:", template::name(name).as_bytes()].concat();
        let (live_value, other_value) =
            (of_live.map(|cookie| cookie.value), of_other.map(|cookie| cookie.value));
        if live_value != other_value {
            tell(&path, live_value, other_value, active, found);
        }
        if let (Some(of_live), Some(of_other)) = (of_live, of_other) {
            compare_attributes(&path, (of_live, of_other), dates, active, found);
        }
    }
}

fn compare_attributes(
    path: &[u8],
    (live, other): (&Cookie<'_>, &Cookie<'_>),
    dates: Dates,
    active: &Active<'_>,
    found: &mut Found,
) {
    // RFC 6265 section 5.3, step 3: where there is `max-age`, nothing else counts.
    let is_aged = [live, other].iter().all(|cookie| cookie.attributes.contains_key(&b"max-age"[..]));
    let only_other = other.attributes.keys().filter(|name| !live.attributes.contains_key(*name));
    for name in live.attributes.keys().chain(only_other) {
        let (of_live, of_other) = (live.attributes.get(name), other.attributes.get(name));
        let same = match (of_live, of_other) {
            (Some(of_live), Some(of_other)) => match name.as_slice() {
                b"expires" => is_aged || expiry::same([*of_live, *of_other], dates),
                b"samesite" | b"domain" | b"priority" => of_live.eq_ignore_ascii_case(of_other),
                _ => of_live == of_other,
            },
            _ => false,
        };
        if !same {
            let path = [path, b";", template::clean(name).as_bytes()].concat();
            tell(&path, of_live.copied(), of_other.copied(), active, found);
        }
    }
}

/// RFC 6265 section 5.2.
fn parse(line: &[u8]) -> Option<(&[u8], Cookie<'_>)> {
    let mut parts = line.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
    let (name, value) = pair(parts.next()?);
    let attributes = parts.filter(|part| !part.is_empty()).map(|attribute| {
        let (name, value) = pair(attribute);
        (name.to_ascii_lowercase(), value)
    });
    Some((name, Cookie { value, attributes: attributes.collect() }))
}

fn pair(part: &[u8]) -> (&[u8], &[u8]) {
    let end = part.iter().position(|byte| *byte == b'=').unwrap_or(part.len());
    let (name, value) = part.split_at_checked(end).unwrap_or((part, b""));
    (name.trim_ascii(), value.strip_prefix(b"=").unwrap_or(value).trim_ascii())
}
