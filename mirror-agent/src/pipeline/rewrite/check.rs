//! Enters: names and values as configured. Leaves: whether they can be written into a head, or why not.

use std::net::Ipv6Addr;

use crate::pipeline::http::{is_text_byte, is_token_byte};

/// Why rules for a rewrite are refused.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RewriteError {
    /// The name of a field is no token (RFC 9110 section 5.1).
    #[error("\"{}\" is not a header name: take letters, digits and -_.!#$%&'*+^`|~", .name.escape_debug())]
    HeaderName {
        /// The name.
        name: String,
    },
    /// The field frames the message or belongs to the connection.
    #[error("header \"{name}\" frames the message or belongs to the connection: a copy keeps it as it is")]
    FramingHeader {
        /// The name.
        name: String,
    },
    /// The field is Host, for which there is a policy.
    #[error("header \"{name}\" is decided by the key `host`: preserve, target, or the host itself")]
    HostHeader {
        /// The name.
        name: String,
    },
    /// The field is one of the mirror's own.
    #[error("header \"{name}\" is reserved: x-shadow and x-mirror-* mark a copy")]
    MarkerHeader {
        /// The name.
        name: String,
    },
    /// The value has a line end, a NUL or another control character.
    #[error("the value of \"{name}\" has a control character in it: \"{}\"", .value.escape_debug())]
    HeaderValue {
        /// The field's name.
        name: String,
        /// The value.
        value: String,
    },
    /// The prefix of a path does not look like one.
    #[error("\"{}\" is not a path prefix: it begins with / and has no ?, # or space", .prefix.escape_debug())]
    Prefix {
        /// The prefix.
        prefix: String,
    },
    /// What is to take the place of a prefix is no path.
    #[error(
        "\"{}\" is not a path: it begins with /, or is empty, and has what is not plain percent-encoded",
        .path.escape_debug()
    )]
    Replacement {
        /// The path.
        path: String,
    },
    /// The name of a query parameter is empty.
    #[error("a query parameter has an empty name")]
    QueryName,
    /// The host is neither a name nor an address.
    #[error("\"{}\" is not a host: write NAME, ADDRESS or [ADDRESS], and :PORT where needed", .host.escape_debug())]
    Host {
        /// What stands in the host's place.
        host: String,
    },
    /// The experiment's name cannot be the value of a marker.
    #[error("the experiment's name \"{}\" has a control character in it", .name.escape_debug())]
    Experiment {
        /// The name.
        name: String,
    },
    /// Something is set or replaced twice.
    #[error("\"{name}\" is set twice")]
    Twice {
        /// The key under which it is.
        key: &'static str,
        /// The name, or the prefix.
        name: String,
    },
    /// More is set than one rewrite can hold.
    #[error("more than {limit} are set")]
    TooMany {
        /// The key under which they are.
        key: &'static str,
        /// The most, inclusive.
        limit: usize,
    },
}

impl RewriteError {
    /// The key in a target's configuration under which the fault is.
    #[must_use]
    pub const fn key(&self) -> &'static str {
        match self {
            Self::HeaderName { .. }
            | Self::FramingHeader { .. }
            | Self::HostHeader { .. }
            | Self::MarkerHeader { .. }
            | Self::HeaderValue { .. } => "headers",
            Self::Prefix { .. } | Self::Replacement { .. } => "rewrite",
            Self::QueryName => "query",
            Self::Host { .. } => "host",
            Self::Experiment { .. } => "name",
            Self::Twice { key, .. } | Self::TooMany { key, .. } => key,
        }
    }
}

/// Whether the field `name` may be removed, set or added.
///
/// # Errors
///
/// [`RewriteError::HeaderName`], [`RewriteError::FramingHeader`], [`RewriteError::HostHeader`] or
/// [`RewriteError::MarkerHeader`].
pub fn check_header_edit(name: &str) -> Result<(), RewriteError> {
    let lower = name.to_ascii_lowercase();
    let name = name.to_owned();
    if name.is_empty() || !name.bytes().all(is_token_byte) {
        Err(RewriteError::HeaderName { name })
    } else if FRAMING.contains(&lower.as_str()) {
        Err(RewriteError::FramingHeader { name })
    } else if lower == "host" {
        Err(RewriteError::HostHeader { name })
    } else if lower == "x-shadow" || lower.starts_with("x-mirror-") {
        Err(RewriteError::MarkerHeader { name })
    } else {
        Ok(())
    }
}

/// Whether `value` may be the value of the field `name`.
///
/// # Errors
///
/// [`RewriteError::HeaderValue`].
pub fn check_header_value(name: &str, value: &str) -> Result<(), RewriteError> {
    if value.bytes().all(is_text_byte) {
        Ok(())
    } else {
        Err(RewriteError::HeaderValue { name: name.to_owned(), value: value.to_owned() })
    }
}

/// Whether `host` may stand in a Host line (RFC 9110 section 7.2): a name, an IPv4 address, or an IPv6 address in
/// brackets, each maybe with a port.
///
/// # Errors
///
/// [`RewriteError::Host`].
pub fn check_host(host: &str) -> Result<(), RewriteError> {
    let is_host = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']').is_some_and(|(address, after)| {
            address.parse::<Ipv6Addr>().is_ok()
                && (after.is_empty() || after.strip_prefix(':').is_some_and(is_port))
        }),
        None => match host.split_once(':') {
            Some((name, port)) => is_name(name) && is_port(port),
            None => is_name(host),
        },
    };
    if is_host { Ok(()) } else { Err(RewriteError::Host { host: host.to_owned() }) }
}

pub(super) fn experiment(name: &str) -> Result<(), RewriteError> {
    if name.bytes().all(is_text_byte) {
        Ok(())
    } else {
        Err(RewriteError::Experiment { name: name.to_owned() })
    }
}

pub(super) fn prefix(prefix: &str) -> Result<(), RewriteError> {
    // Beyond ASCII anything may be met in a live path, so anything may be looked for.
    let is_plain = |byte: u8| byte > b' ' && !matches!(byte, b'?' | b'#' | 0x7f);
    if prefix.starts_with('/') && prefix.bytes().all(is_plain) {
        Ok(())
    } else {
        Err(RewriteError::Prefix { prefix: prefix.to_owned() })
    }
}

pub(super) fn replacement(path: &str) -> Result<(), RewriteError> {
    // RFC 3986 section 3.3: pchar, and the slashes between segments.
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/%".contains(&byte);
    let is_escaped = path.split('%').skip(1).all(|after| {
        matches!(after.as_bytes(), [high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit())
    });
    if (path.is_empty() || path.starts_with('/')) && path.bytes().all(is_plain) && is_escaped {
        Ok(())
    } else {
        Err(RewriteError::Replacement { path: path.to_owned() })
    }
}

pub(super) const fn query_name(name: &str) -> Result<(), RewriteError> {
    if name.is_empty() { Err(RewriteError::QueryName) } else { Ok(()) }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte))
}

fn is_port(port: &str) -> bool {
    // `u16::from_str` would take a leading plus sign.
    port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port != 0)
}

/// Fields that say where the message ends, or that are between one sender and one receiver only (RFC 9110 sections 7.6.1
/// and 10.1.1, RFC 9112 section 6).
const FRAMING: [&str; 7] =
    ["connection", "content-length", "expect", "te", "trailer", "transfer-encoding", "upgrade"];
