//! Enters: texts of a file. Leaves: what they mean, or what would be right in their place.

use std::net::{IpAddr, SocketAddr};

use crate::{
    io::config::{HostPolicy, SampleKey},
    pipeline::policy::{Pattern, RuleError},
};
use ipnet::IpNet;

pub(super) fn name(text: &str) -> Result<String, String> {
    let is_name_byte = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if (1..=MAX_NAME_BYTES).contains(&text.len()) && text.bytes().all(is_name_byte) {
        return Ok(text.to_owned());
    }
    Err(format!("{text:?} is not a name; expected 1 to {MAX_NAME_BYTES} of a-z, 0-9 and -"))
}

/// The key or the value of a label, which may be empty. A key may have a DNS name and a slash before it.
pub(super) fn pod_label(text: &str) -> Result<String, String> {
    let is_label_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte);
    if text.len() <= MAX_POD_LABEL_BYTES && text.bytes().all(is_label_byte) {
        return Ok(text.to_owned());
    }
    Err(format!(
        "{text:?} is no part of a label; expected at most {MAX_POD_LABEL_BYTES} of a-z, A-Z, 0-9 and -_./"
    ))
}

/// The name that a container gives a port.
pub(super) fn port_name(text: &str) -> Result<String, String> {
    let is_name_byte = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let is_name = (1..=MAX_PORT_NAME_BYTES).contains(&text.len()) && text.bytes().all(is_name_byte);
    if is_name && text.bytes().any(|byte| byte.is_ascii_lowercase()) {
        return Ok(text.to_owned());
    }
    Err(format!(
        "{text:?} is not the name of a port; expected 1 to {MAX_PORT_NAME_BYTES} of a-z, 0-9 and -, with a letter"
    ))
}

pub(super) fn network(text: &str) -> Result<IpNet, String> {
    text.parse::<IpNet>().or_else(|_error| text.parse::<IpAddr>().map(IpNet::from)).map_err(|_error| {
        format!("{text:?} is neither an address nor a network; expected one such as 10.0.0.0/8 or fd00::/8")
    })
}

pub(super) fn interface(text: &str) -> Result<String, String> {
    #[cfg(feature = "runtime")]
    if let Err(error) = text.parse::<crate::io::capture::role::InterfaceSpec>() {
        return Err(error.to_string());
    }
    if text.is_empty() {
        return Err("expected a name, a pattern such as cali*, or `auto`".to_owned());
    }
    Ok(text.to_owned())
}

pub(super) fn socket(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_error| {
        format!("{text:?} is not an address with a port; expected one such as 127.0.0.1:9477 or [::1]:9477")
    })
}

pub(super) fn path(text: &str) -> Result<String, String> {
    // RFC 9112 section 3.2: a request target holds neither white space nor control characters.
    let is_path = text.starts_with('/') && !text.bytes().any(|byte| byte <= b' ' || byte == 0x7f);
    if is_path && !text.contains(['?', '#']) {
        return Ok(text.to_owned());
    }
    Err(format!(
        "{text:?} is not a path; expected one that begins with / and has no blanks, no query, no fragment"
    ))
}

/// A regular expression that has to find all of what it is held against.
pub(super) fn pattern(text: &str) -> Result<String, String> {
    if text.len() > MAX_PATTERN_BYTES {
        return Err(format!(
            "a regular expression has at most {MAX_PATTERN_BYTES} bytes, this one {}",
            text.len()
        ));
    }
    // Its message is a drawing of several lines, of which the last says what is wrong.
    Pattern::new(text).map(|_| text.to_owned()).map_err(|error| {
        let error = if let RuleError::Pattern { source, .. } = &error {
            source.to_string()
        } else {
            error.to_string()
        };
        format!("not a regular expression: {}", error.lines().last().unwrap_or_default().trim_start())
    })
}

pub(super) fn header_name(text: &str) -> Result<String, String> {
    if !text.is_empty() && text.bytes().all(is_token_byte) {
        return Ok(text.to_owned());
    }
    Err(format!("{text:?} is not the name of a header field; expected letters, digits and !#$%&'*+-.^_`|~"))
}

pub(super) fn header_value(text: &str) -> Result<String, String> {
    // RFC 9110 section 5.5: these are dangerous in a value, whatever the reader makes of them.
    if text.contains(['\r', '\n', '\0']) {
        return Err("the value of a header field is one line: it has no CR, LF or NUL".to_owned());
    }
    Ok(text.to_owned())
}

pub(super) fn method(text: &str) -> Result<String, String> {
    // RFC 9110 section 9.1: a method is a token and case-sensitive; lower case here is almost surely a mistake.
    let is_method_byte = |byte: u8| byte.is_ascii_uppercase() || byte == b'-' || byte == b'_';
    if !text.is_empty() && text.bytes().all(is_method_byte) {
        return Ok(text.to_owned());
    }
    Err(format!("{text:?} is not a method; methods are written in capitals, such as GET"))
}

pub(super) fn hostname(text: &str) -> Result<String, String> {
    let labels = text.strip_prefix("*.").unwrap_or(text);
    if text.parse::<IpAddr>().is_ok() || is_domain(labels) {
        return Ok(text.to_ascii_lowercase());
    }
    Err(format!("{text:?} is not a host; expected a name without a port, or *. and the end of names"))
}

pub(super) fn host(text: &str) -> Result<HostPolicy, String> {
    match text {
        "preserve" => Ok(HostPolicy::Preserve),
        "target" => Ok(HostPolicy::Target),
        _ if is_authority(text) => Ok(HostPolicy::Literal(text.to_owned())),
        _ => Err(format!(
            "{text:?} is not a host; expected `preserve`, `target`, or a host, maybe with a port"
        )),
    }
}

fn is_authority(text: &str) -> bool {
    if text.parse::<SocketAddr>().is_ok() || text.parse::<IpAddr>().is_ok_and(|address| address.is_ipv4()) {
        return true;
    }
    if let Some(address) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return address.parse::<std::net::Ipv6Addr>().is_ok();
    }
    match text.split_once(':') {
        None => is_domain(text),
        Some((host, port)) => {
            let is_port = port.bytes().all(|byte| byte.is_ascii_digit())
                && port.parse().is_ok_and(|port: u16| port > 0);
            is_domain(host) && is_port
        }
    }
}

fn is_domain(text: &str) -> bool {
    let is_label_byte = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let is_label = |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(is_label_byte);
    // RFC 1035 sections 2.3.1 and 2.3.4; underscores are seen in practice.
    text.len() <= 253 && text.strip_suffix('.').unwrap_or(text).split('.').all(is_label)
}

pub(super) fn sample_key(text: &str) -> Result<SampleKey, String> {
    let expected = || {
        format!(
            "{text:?} is not known here; expected `request`, `connection`, `client`, `header:NAME`, `cookie:NAME`, \
             `query:NAME` or `jwt:CLAIM`"
        )
    };
    match text.split_once(':') {
        None => match text {
            "request" => Ok(SampleKey::Request),
            "connection" => Ok(SampleKey::Connection),
            "client" => Ok(SampleKey::Client),
            _ => Err(expected()),
        },
        Some((_, "")) => Err(expected()),
        Some(("header", name)) => header_name(name).map(SampleKey::Header),
        // RFC 6265 section 4.1.1: the name of a cookie is a token.
        Some(("cookie", name)) => header_name(name).map(SampleKey::Cookie),
        Some(("query", name)) => parameter_name(name).map(SampleKey::Query),
        Some(("jwt", claim)) => Ok(SampleKey::Jwt(claim.to_owned())),
        Some(_) => Err(expected()),
    }
}

pub(super) fn write_sample_key(key: &SampleKey) -> String {
    match key {
        SampleKey::Request => "request".to_owned(),
        SampleKey::Connection => "connection".to_owned(),
        SampleKey::Client => "client".to_owned(),
        SampleKey::Header(name) => format!("header:{name}"),
        SampleKey::Cookie(name) => format!("cookie:{name}"),
        SampleKey::Query(name) => format!("query:{name}"),
        SampleKey::Jwt(claim) => format!("jwt:{claim}"),
    }
}

pub(super) fn write_host(host: &HostPolicy) -> String {
    match host {
        HostPolicy::Preserve => "preserve".to_owned(),
        HostPolicy::Target => "target".to_owned(),
        HostPolicy::Literal(host) => host.clone(),
    }
}

pub(super) fn ratio(text: &str) -> Result<f64, String> {
    let percent = text.strip_suffix('%').and_then(|number| number.trim_end().parse::<f64>().ok());
    match percent {
        Some(percent) if percent > 0.0 && percent <= 100.0 => Ok(percent / 100.0),
        _ => Err(format!("{text:?} is not a share; expected more than 0% and at most 100%")),
    }
}

/// A share as it is written.
pub(super) fn write_ratio(ratio: f64) -> String {
    // Without what a float makes of a hundred times a decimal fraction.
    format!("{}%", (ratio * 1e11).round() / 1e9)
}

pub(super) fn part(text: &str) -> Result<f64, String> {
    let percent = text.strip_suffix('%').and_then(|number| number.trim_end().parse::<f64>().ok());
    match percent {
        Some(percent) if (0.0..=100.0).contains(&percent) => Ok(percent / 100.0),
        _ => Err(format!("{text:?} is not a share; expected from 0% to 100%")),
    }
}

/// What begins like a JSON path.
pub(super) fn json_path(text: &str) -> Result<String, String> {
    let is_path = text.strip_prefix('$').is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']));
    if is_path && text.len() <= MAX_PATTERN_BYTES && !text.chars().any(char::is_control) {
        return Ok(text.to_owned());
    }
    Err(format!("{text:?} is not a JSON path; expected one such as $.total or $.items[*].price"))
}

/// A regular expression that is looked for anywhere in a value.
pub(super) fn expression(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Err("an empty regular expression finds nothing everywhere".to_owned());
    }
    pattern(text)
}

/// A template of paths. Placeholders have a name, and are whole elements but for an ending such as `.json`.
pub(super) fn template(text: &str) -> Result<String, String> {
    let is_segment = |segment: &str| match segment.strip_prefix('{').and_then(|rest| rest.split_once('}')) {
        Some((name, ending)) => {
            let is_ending = ending.is_empty() || ending.starts_with('.');
            !name.is_empty() && is_ending && !name.contains('{') && !ending.contains(['{', '}'])
        }
        None => !segment.contains(['{', '}']),
    };
    if path(text).is_ok() && text.split('/').all(is_segment) {
        return Ok(text.to_owned());
    }
    Err(format!(
        "{text:?} is not a template of paths; expected one such as /orders/{{id}} or /files/{{name}}.json"
    ))
}

/// An endpoint as reports call it: one that was learned may have placeholders without a name, and the rest is `other`.
pub(super) fn endpoint(text: &str) -> Result<String, String> {
    let is_endpoint = text == "other"
        || text.split_once(' ').is_some_and(|(name, rest)| method(name).is_ok() && path(rest).is_ok());
    if is_endpoint {
        return Ok(text.to_owned());
    }
    Err(format!("{text:?} is not an endpoint; expected one as in reports, such as `GET /orders/{{id}}`"))
}

pub(super) fn status_class(text: &str) -> Result<u8, String> {
    match text {
        "1xx" => Ok(1),
        "2xx" => Ok(2),
        "3xx" => Ok(3),
        "4xx" => Ok(4),
        "5xx" => Ok(5),
        _ => Err(format!(
            "{text:?} is not a class of status codes; expected `1xx`, `2xx`, `3xx`, `4xx` or `5xx`"
        )),
    }
}

pub(super) fn label(text: &str) -> Result<String, String> {
    if (1..=MAX_LABEL_BYTES).contains(&text.len()) && !text.chars().any(char::is_control) {
        return Ok(text.to_owned());
    }
    Err(format!("expected 1 to {MAX_LABEL_BYTES} bytes of text without control characters"))
}

pub(super) fn broker(text: &str) -> Result<String, String> {
    let has_port = text.rsplit_once(':').is_some_and(|(host, _)| !host.is_empty() && !host.ends_with(':'));
    if has_port && is_authority(text) {
        return Ok(text.to_owned());
    }
    Err(format!("{text:?} is not a broker; expected HOST:PORT, such as kafka:9092"))
}

pub(super) fn topic(text: &str) -> Result<String, String> {
    // What Kafka itself takes.
    let is_topic_byte = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let is_topic = (1..=249).contains(&text.len()) && text.bytes().all(is_topic_byte);
    if is_topic && text != "." && text != ".." {
        return Ok(text.to_owned());
    }
    Err(format!("{text:?} is not a topic; expected 1 to 249 of a-z, A-Z, 0-9, ., _ and -"))
}

pub(super) fn parameter_name(text: &str) -> Result<String, String> {
    if text.is_empty() || text.contains(['\r', '\n', '\0']) {
        return Err("the name of a query parameter is not empty and has no CR, LF or NUL".to_owned());
    }
    Ok(text.to_owned())
}

/// RFC 9110 section 5.6.2.
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// As long as a label of a host name, and of Kubernetes.
const MAX_NAME_BYTES: usize = 63;

/// A prefix of 253 bytes, a slash, and a name of 63.
const MAX_POD_LABEL_BYTES: usize = 317;

/// As long as an IANA service name.
const MAX_PORT_NAME_BYTES: usize = 15;

/// Names of rules and keys that are longer are a mistake.
const MAX_LABEL_BYTES: usize = 256;

/// Longer ones are a mistake.
const MAX_PATTERN_BYTES: usize = 4096;
