//! Enters: two values of a header field. Leaves: whether they say the same.

use super::table::{Case, Form};

/// Whether two values of a field of this form say the same; several lines are joined by `, `.
pub(super) fn same(live: &[u8], other: &[u8], form: Form) -> bool {
    match form {
        Form::Single | Form::Expires | Form::SetCookie => live == other,
        Form::List => elements(live) == elements(other),
        Form::Set(case) => set(live, case) == set(other, case),
        Form::Vary => {
            let [live, other] = [live, other].map(|value| {
                let mut set = set(value, Case::Ignored);
                set.retain(|element| !is_coding(element));
                set
            });
            live == other
        }
        Form::MediaType => media_type(live) == media_type(other),
    }
}

fn set(value: &[u8], case: Case) -> Vec<Vec<u8>> {
    let mut set: Vec<Vec<u8>> = elements(value).into_iter().map(|element| folded(element, case)).collect();
    set.sort_unstable();
    set.dedup();
    set
}

/// Whether an answer varies by nothing but its coding, which is not compared: with coding or without it is the same.
pub(super) fn varies_by_coding_alone(vary: &[u8]) -> bool {
    elements(vary).into_iter().all(is_coding)
}

/// Whether an element of `vary` is about the coding.
fn is_coding(element: &[u8]) -> bool {
    element.eq_ignore_ascii_case(b"accept-encoding")
}

/// The elements of a list: what lies between commas outside of quotes and angle brackets, without the whitespace around
/// it, empty ones aside (RFC 9110 section 5.6.1.2; RFC 8288 section 3 for the brackets).
fn elements(value: &[u8]) -> Vec<&[u8]> {
    split(value, b',').into_iter().filter(|element| !element.is_empty()).collect()
}

/// The parts of a value between `separator`, outside of quoted strings (RFC 9110 section 5.6.4).
pub(super) fn split(value: &[u8], separator: u8) -> Vec<&[u8]> {
    let (mut is_quoted, mut is_escaped, mut is_bracketed) = (false, false, false);
    value
        .split(|byte| {
            if is_escaped {
                is_escaped = false;
                return false;
            }
            match byte {
                b'\\' if is_quoted => is_escaped = true,
                b'"' if !is_bracketed => is_quoted = !is_quoted,
                b'<' if !is_quoted => is_bracketed = true,
                b'>' if !is_quoted => is_bracketed = false,
                _ => {}
            }
            *byte == separator && !is_quoted && !is_bracketed
        })
        .map(<[u8]>::trim_ascii)
        .collect()
}

fn folded(element: &[u8], case: Case) -> Vec<u8> {
    match case {
        Case::Counts => element.to_vec(),
        Case::Ignored => element.to_ascii_lowercase(),
        Case::OfName => {
            let end = element.iter().position(|byte| *byte == b'=').unwrap_or(element.len());
            match element.split_at_checked(end) {
                Some((name, value)) => [&name.to_ascii_lowercase(), value].concat(),
                None => element.to_vec(),
            }
        }
    }
}

/// Name and value.
type Parameter = (Vec<u8>, Vec<u8>);

/// Type and parameters of a media type; names in lower case, and the value of `charset`, of which the case does not count
/// either (RFC 9110 sections 8.3.1 and 8.3.2). The boundary of a multipart content is left out: it is drawn anew each time.
fn media_type(value: &[u8]) -> (Vec<u8>, Vec<Parameter>) {
    let mut parts = split(value, b';').into_iter();
    let essence = parts.next().unwrap_or_default().to_ascii_lowercase();
    let parameters = parts.filter_map(|parameter| {
        let at = parameter.iter().position(|byte| *byte == b'=')?;
        let name = parameter.get(..at)?.trim_ascii().to_ascii_lowercase();
        let value = unquoted(parameter.get(at.checked_add(1)?..)?.trim_ascii());
        match name.as_slice() {
            b"boundary" => None,
            b"charset" => Some((name, value.to_ascii_lowercase())),
            _ => Some((name, value)),
        }
    });
    let mut parameters: Vec<_> = parameters.collect();
    parameters.sort_unstable();
    (essence, parameters)
}

/// A parameter of a media type as sent: its name is in lower case.
pub(in crate::pipeline::compare) fn parameter(value: &[u8], name: &[u8]) -> Option<Vec<u8>> {
    split(value, b';').into_iter().skip(1).find_map(|parameter| {
        let at = parameter.iter().position(|byte| *byte == b'=')?;
        let is_it = parameter.get(..at)?.trim_ascii().eq_ignore_ascii_case(name);
        let value = parameter.get(at.checked_add(1)?..)?.trim_ascii();
        is_it.then(|| unquoted(value))
    })
}

/// A value without quotes and backslashes, where it is quoted.
fn unquoted(value: &[u8]) -> Vec<u8> {
    let Some(inside) = value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")) else {
        return value.to_vec();
    };
    let mut is_escaped = false;
    let mut plain = Vec::with_capacity(inside.len());
    for byte in inside {
        if *byte == b'\\' && !is_escaped {
            is_escaped = true;
        } else {
            is_escaped = false;
            plain.push(*byte);
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::{Case, Form, same};

    #[test]
    fn values_are_compared_as_what_they_are() {
        let cases = [
            (Form::Single, "a, b", "a,b", false),
            (Form::Single, "W/\"1\"", "W/\"1\"", true),
            (Form::List, "a, b", "a,,b ,", true),
            (Form::List, "a, b", "b, a", false),
            (Form::List, "</a,b>; rel=x, </c>", "</a,b>; rel=x,</c>", true),
            (Form::List, "\"a,b\", c", "\"a, b\", c", false),
            (Form::Vary, "Accept, Origin", "origin,accept, Accept-Encoding", true),
            (Form::Set(Case::Ignored), "Accept", "Accept, Origin", false),
            (Form::Set(Case::Counts), "GET, HEAD", "HEAD, GET", true),
            (Form::Set(Case::Counts), "GET", "get", false),
            (Form::Set(Case::OfName), "private, MAX-AGE=60", "max-age=60,private", true),
            (Form::Set(Case::OfName), "max-age=60", "max-age=61", false),
            (Form::Set(Case::OfName), "no-cache=\"A, B\"", "no-cache=\"a, b\"", false),
            (Form::MediaType, "text/html; charset=utf-8", "Text/HTML;Charset=\"UTF-8\"", true),
            (Form::MediaType, "text/html; charset=utf-8", "text/html", false),
            (Form::MediaType, "a/b; x=1; y=2", "a/b; y=2; x=1", true),
            (Form::MediaType, "a/b; x=A", "a/b; x=a", false),
            (Form::MediaType, "multipart/mixed; boundary=a", "multipart/mixed; boundary=b", true),
            (Form::MediaType, "a/b; x=\"\\\"\"", "a/b; x=\"\\\"\" ;", true),
        ];

        for (form, live, other, expected) in cases {
            assert_eq!(same(live.as_bytes(), other.as_bytes(), form), expected, "{live} | {other}");
            assert_eq!(same(other.as_bytes(), live.as_bytes(), form), expected, "{other} | {live}");
        }
    }
}
