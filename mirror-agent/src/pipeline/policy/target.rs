//! Enters: the target of a request, and its Host line. Leaves: path, query and host, as sent.

use crate::pipeline::http::RequestHead;

/// What a request asks for, taken apart (RFC 9112 section 3.2). Nothing is decoded.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Target<'h> {
    /// What stands before the first `?`; `/` where the target has an authority and no path; `*` in asterisk form.
    pub(super) path: &'h [u8],
    /// What stands behind that `?`.
    pub(super) query: Option<&'h [u8]>,
    /// Without port and user, and without a dot at its end; `None` where it is not named, or empty.
    pub(super) host: Option<&'h [u8]>,
}

impl<'h> Target<'h> {
    pub(super) fn new(head: &RequestHead<'h>) -> Self {
        let (rest, authority) = match split_absolute(head.target) {
            // RFC 9112 section 3.2.2: the Host line is then ignored.
            Some((authority, rest)) => (rest, Some(without_user(authority))),
            None => (head.target, head.host),
        };
        let question = rest.iter().position(|byte| *byte == b'?').unwrap_or(rest.len());
        let (path, query) = rest.split_at_checked(question).unwrap_or((rest, &[]));
        Self {
            path: if path.is_empty() { b"/" } else { path },
            query: query.split_first().map(|(_, query)| query),
            host: authority.map(without_port).filter(|host| !host.is_empty()),
        }
    }
}

/// The authority of a target in absolute form, and what follows it.
fn split_absolute(target: &[u8]) -> Option<(&[u8], &[u8])> {
    // The form of nearly all.
    if let [b'/', ..] = target {
        return None;
    }
    let colon = target.iter().position(|byte| *byte == b':')?;
    let (scheme, rest) = target.split_at_checked(colon)?;
    let is_scheme = scheme.first().is_some_and(u8::is_ascii_alphabetic)
        && scheme.iter().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(byte));
    let rest = rest.strip_prefix(b"://").filter(|_| is_scheme)?;
    let end = rest.iter().position(|byte| b"/?#".contains(byte)).unwrap_or(rest.len());
    rest.split_at_checked(end)
}

fn without_user(authority: &[u8]) -> &[u8] {
    authority.rsplit(|byte| *byte == b'@').next().unwrap_or(authority)
}

fn without_port(authority: &[u8]) -> &[u8] {
    let end = if authority.starts_with(b"[") {
        authority.iter().position(|byte| *byte == b']').map(|bracket| bracket.saturating_add(1))
    } else {
        authority.iter().position(|byte| *byte == b':')
    };
    let host = end.and_then(|end| authority.get(..end)).unwrap_or(authority);
    host.strip_suffix(b".").unwrap_or(host)
}
