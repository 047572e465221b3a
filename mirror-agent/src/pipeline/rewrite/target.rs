//! Enters: a request line. Leaves: that of the copy, with another path, query or authority.

use super::{
    Rules,
    check::{self, RewriteError},
    copier::Copier,
    fields::{MOST_SET, bits},
};

/// What is changed of the request target.
#[derive(Clone, Debug, Default)]
pub(super) struct TargetEdits {
    /// The longest are first.
    prefixes: Vec<Prefix>,
    remove: Vec<Box<[u8]>>,
    set: Vec<Parameter>,
    /// The host, for targets that name one.
    authority: Option<Box<[u8]>>,
}

/// A prefix that is replaced; both without the slash at their end.
#[derive(Clone, Debug)]
struct Prefix {
    from: Box<[u8]>,
    to: Box<[u8]>,
}

/// A query parameter that is set.
#[derive(Clone, Debug)]
struct Parameter {
    name: Box<[u8]>,
    /// Name and value as they stand in a query.
    text: Box<[u8]>,
    /// Which of the bits says that it was met: one of [`MOST_SET`].
    bit: u64,
}

/// What a query has in one place.
enum Piece<'a> {
    Kept,
    Removed,
    Set(&'a Parameter),
}

impl TargetEdits {
    pub(super) fn new(rules: &Rules<'_>) -> Result<Self, RewriteError> {
        let mut edits = Self::default();
        for (prefix, path) in rules.replace_prefix {
            check::prefix(prefix)?;
            check::replacement(path)?;
            let from: Box<[u8]> = without_slash(prefix).into();
            if edits.prefixes.iter().any(|known| known.from == from) {
                return Err(RewriteError::Twice { key: "rewrite", name: prefix.clone() });
            }
            edits.prefixes.push(Prefix { from, to: without_slash(path).into() });
        }
        edits.prefixes.sort_by_key(|prefix| std::cmp::Reverse(prefix.from.len()));
        for name in rules.remove_query {
            check::query_name(name)?;
            edits.remove.push(name.as_bytes().into());
        }
        if rules.set_query.len() > MOST_SET {
            return Err(RewriteError::TooMany { key: "query", limit: MOST_SET });
        }
        for ((name, value), bit) in rules.set_query.iter().zip(bits()) {
            check::query_name(name)?;
            if edits.set.iter().any(|known| *known.name == *name.as_bytes()) {
                return Err(RewriteError::Twice { key: "query", name: name.clone() });
            }
            let mut text = Vec::new();
            encode(&mut text, name);
            text.push(b'=');
            encode(&mut text, value);
            edits.set.push(Parameter { name: name.as_bytes().into(), text: text.into(), bit });
        }
        edits.authority = rules.host.map(|host| host.as_bytes().into());
        Ok(edits)
    }

    /// Whether all request lines stay as they are.
    pub(super) const fn is_empty(&self) -> bool {
        self.prefixes.is_empty() && self.remove.is_empty() && self.set.is_empty() && self.authority.is_none()
    }

    /// Appends the request line, its end included. A target that has neither path nor query (`*`, or the authority alone)
    /// stays as it is.
    pub(super) fn write(&self, out: &mut Vec<u8>, line: &[u8]) {
        let parts = if self.is_empty() { None } else { Parts::find(line) };
        let mut copier = Copier::new(out, line);
        if let Some(parts) = parts {
            if let (Some((start, end)), Some(authority)) = (parts.authority, &self.authority) {
                copier.replace(start, end).extend_from_slice(authority);
            }
            let path = line.get(parts.path.0..parts.path.1).unwrap_or_default();
            if let Some((prefix_len, to)) = self.replacement(path) {
                let out = copier.replace(parts.path.0, parts.path.0.saturating_add(prefix_len));
                out.extend_from_slice(to);
                if to.is_empty() && path.len() == prefix_len {
                    out.push(b'/');
                }
            }
            if !(self.remove.is_empty() && self.set.is_empty()) {
                let query = parts.query.and_then(|(start, end)| line.get(start..end));
                // The question mark goes with the query.
                self.write_query(copier.replace(parts.path.1, parts.end), query);
            }
        }
        copier.finish();
    }

    /// The length of the prefix of `path` that is replaced, and what takes its place.
    fn replacement(&self, path: &[u8]) -> Option<(usize, &[u8])> {
        let fits = |from: &[u8]| matches!(path.strip_prefix(from), Some([] | [b'/', ..]));
        let Prefix { from, to } = self.prefixes.iter().find(|prefix| fits(&prefix.from))?;
        Some((from.len(), to))
    }

    /// Appends a query with its question mark; `None` is none.
    fn write_query(&self, out: &mut Vec<u8>, query: Option<&[u8]>) {
        let start = out.len();
        let mut set = 0_u64;
        let mut is_removed = false;
        for piece in query.into_iter().flat_map(|query| query.split(|byte| *byte == b'&')) {
            let text = match self.piece(piece) {
                Piece::Kept => piece,
                Piece::Set(parameter) if set & parameter.bit == 0 => {
                    set |= parameter.bit;
                    &parameter.text
                }
                Piece::Set(_) | Piece::Removed => {
                    is_removed = true;
                    continue;
                }
            };
            out.push(if out.len() == start { b'?' } else { b'&' });
            out.extend_from_slice(text);
        }
        let empty = start.saturating_add(1);
        if is_removed && out.len() == empty {
            out.truncate(start);
        }
        for parameter in self.set.iter().filter(|parameter| set & parameter.bit == 0) {
            if out.len() != empty {
                out.push(if out.len() == start { b'?' } else { b'&' });
            }
            out.extend_from_slice(&parameter.text);
        }
    }

    fn piece(&self, piece: &[u8]) -> Piece<'_> {
        let name = piece.split(|byte| *byte == b'=').next().unwrap_or_default();
        if self.remove.iter().any(|removed| decode(name).eq(removed.iter().copied())) {
            return Piece::Removed;
        }
        let is_set = |parameter: &&Parameter| decode(name).eq(parameter.name.iter().copied());
        self.set.iter().find(is_set).map_or(Piece::Kept, Piece::Set)
    }
}

/// Where the parts of a target lie in its request line; ends are exclusive.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parts {
    /// In absolute form only (RFC 9112 section 3.2.2).
    authority: Option<(usize, usize)>,
    /// In absolute form it may be empty, which is the same as `/` (RFC 3986 section 6.2.3).
    path: (usize, usize),
    /// Without the question mark.
    pub(super) query: Option<(usize, usize)>,
    /// Behind the query, or the path where there is none.
    end: usize,
}

impl Parts {
    /// `None` where the target is neither in origin nor in absolute form.
    pub(super) fn find(line: &[u8]) -> Option<Self> {
        let is_space = |byte: &u8| matches!(byte, b' ' | b'\t');
        let line = line.trim_ascii_end();
        let before = line.trim_ascii_start();
        let indent = line.len().checked_sub(before.len())?;
        let method_len = before.iter().position(is_space)?.checked_add(indent)?;
        let (until_version, _) = line.split_at_checked(line.iter().rposition(is_space)?)?;
        let target_end = until_version.trim_ascii_end().len();
        let behind_method = until_version.get(method_len..target_end)?;
        let target = behind_method.trim_ascii_start();
        let start = target_end.checked_sub(target.len())?;
        let (authority, path_start) = if target.starts_with(b"/") {
            (None, start)
        } else {
            let scheme_len = scheme_len(target)?;
            let authority = target.get(scheme_len..)?;
            let authority_len = authority
                .iter()
                .position(|byte| matches!(byte, b'/' | b'?' | b'#'))
                .unwrap_or(authority.len());
            let begin = start.checked_add(scheme_len)?;
            let end = begin.checked_add(authority_len)?;
            (Some((begin, end)), end)
        };
        let hierarchy = line.get(path_start..target_end)?;
        // A fragment has no place in a request, but is met.
        let len = hierarchy.iter().position(|byte| *byte == b'#').unwrap_or(hierarchy.len());
        let end = path_start.checked_add(len)?;
        let mark = hierarchy.get(..len)?.iter().position(|byte| *byte == b'?');
        let path_end = path_start.checked_add(mark.unwrap_or(len))?;
        let query = mark.and_then(|_| Some((path_end.checked_add(1)?, end)));
        Some(Self { authority, path: (path_start, path_end), query, end })
    }
}

/// Length of the scheme with the colon and the slashes behind it (RFC 3986 section 3.1).
fn scheme_len(target: &[u8]) -> Option<usize> {
    let len = target.iter().position(|byte| *byte == b':')?;
    let (scheme, rest) = target.split_at_checked(len)?;
    let (first, others) = scheme.split_first()?;
    let is_scheme = first.is_ascii_alphabetic()
        && others.iter().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(byte));
    (is_scheme && rest.starts_with(b"://")).then(|| len.checked_add(3)).flatten()
}

fn without_slash(path: &str) -> &[u8] {
    path.strip_suffix('/').unwrap_or(path).as_bytes()
}

/// The bytes that a name or value of a query stands for: percent-encoded ones are decoded, `+` is a space, as in forms
/// (WHATWG URL, section 5.1). What only looks percent-encoded stands for itself.
pub(super) fn decode(text: &[u8]) -> impl Iterator<Item = u8> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let (byte, after) = match rest {
            [b'%', high, low, after @ ..] => match (digit(*high), digit(*low)) {
                (Some(high), Some(low)) => (high << 4 | low, after),
                _ => (b'%', rest.get(1..)?),
            },
            [b'+', after @ ..] => (b' ', after),
            [byte, after @ ..] => (*byte, after),
            [] => return None,
        };
        rest = after;
        Some(byte)
    })
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// Appends `text` as it stands in a query, so that no reader can take a byte of it for a separator: anything but what
/// RFC 3986 section 3.4 allows is percent-encoded, and of that `&`, `=`, `+` and `;`, too.
pub(super) fn encode(out: &mut Vec<u8>, text: &str) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~!$'()*,:@/?".contains(&byte) {
            out.push(byte);
        } else {
            out.push(b'%');
            out.extend([byte >> 4, byte & 0xf].iter().filter_map(|digit| DIGITS.get(usize::from(*digit))));
        }
    }
}

const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
