//! Enters: the text after `--shadow`. Leaves: a scheme, a host and a port, and in time the addresses they stand for.

use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

#[cfg(feature = "runtime")]
use {
    std::time::Duration,
    tokio::{net::lookup_host, time::timeout},
};

/// Why a text is not a target, or a target has no addresses.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TargetError {
    /// There is no scheme in front.
    #[error("\"{text}\" has no scheme: write http://HOST[:PORT] or https://HOST[:PORT]")]
    NoScheme {
        /// What was given.
        text: String,
    },
    /// The scheme is something else.
    #[error("scheme \"{scheme}\" is not supported: write http://HOST[:PORT] or https://HOST[:PORT]")]
    Scheme {
        /// The scheme that was given.
        scheme: String,
    },
    /// There is a name or a password before the host.
    #[error("a target takes no user name or password: credentials travel in the copied requests, if at all")]
    UserInfo,
    /// There is more after the authority than one slash.
    #[error(
        "a target takes no path, query or fragment: a copy keeps the path of its request; leave \"{rest}\" out"
    )]
    Path {
        /// What follows the authority.
        rest: String,
    },
    /// There is no host.
    #[error("the target names no host: write http://HOST[:PORT]")]
    NoHost,
    /// The port is not a number from 1 to 65535.
    #[error("\"{port}\" is not a port: it is a number from 1 to 65535")]
    Port {
        /// What stands in the port's place.
        port: String,
    },
    /// An IPv6 address stands without brackets.
    #[error("an IPv6 address is written in brackets: http://[ADDRESS]:PORT")]
    NoBrackets,
    /// What is in the brackets is not an IPv6 address.
    #[error("\"{address}\" is not an IPv6 address (zones are not supported)")]
    Address {
        /// What stands in the brackets.
        address: String,
    },
    /// The host is neither an IPv4 address nor a name.
    #[error("\"{host}\" is not a host name")]
    Name {
        /// What stands in the host's place.
        host: String,
    },
    /// The name could not be resolved.
    #[error("cannot resolve \"{host}\"")]
    Resolve {
        /// The name.
        host: String,
        /// What the resolver said.
        source: io::Error,
    },
    /// The name stands for no address.
    #[error("\"{host}\" has no address")]
    NoAddress {
        /// The name.
        host: String,
    },
}

/// Where copies go: `http://HOST[:PORT][/]` or `https://HOST[:PORT][/]`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Target {
    scheme: Scheme,
    host: Host,
    port: u16,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Scheme {
    Http,
    Https,
}

impl Scheme {
    /// RFC 9110 sections 4.2.1 and 4.2.2.
    const fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Host {
    Address(IpAddr),
    Name(String),
}

impl Target {
    /// Whether it speaks TLS.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.scheme == Scheme::Https
    }

    /// The host: a name, or an address without brackets.
    #[must_use]
    pub fn host(&self) -> String {
        match &self.host {
            Host::Address(ip) => ip.to_string(),
            Host::Name(name) => name.clone(),
        }
    }

    /// What stands in the Host line of a request to it: the port only where it is not the scheme's.
    #[must_use]
    pub fn authority(&self) -> String {
        let host = match &self.host {
            Host::Address(IpAddr::V6(ip)) => format!("[{ip}]"),
            Host::Address(IpAddr::V4(ip)) => ip.to_string(),
            Host::Name(name) => name.clone(),
        };
        if self.port == self.scheme.default_port() { host } else { format!("{host}:{}", self.port) }
    }

    /// Whether the host is a name, whose addresses may change.
    #[must_use]
    pub fn is_name(&self) -> bool {
        matches!(self.host, Host::Name(_))
    }

    /// The addresses that the target stands for at this moment; never an empty list.
    ///
    /// # Errors
    ///
    /// [`TargetError::Resolve`] and [`TargetError::NoAddress`], both only for names.
    #[cfg(feature = "runtime")]
    pub async fn resolve(&self) -> Result<Vec<SocketAddr>, TargetError> {
        let name = match &self.host {
            Host::Address(ip) => return Ok(vec![SocketAddr::new(*ip, self.port)]),
            Host::Name(name) => name,
        };
        let failed = |source| TargetError::Resolve { host: name.clone(), source };
        let mut addresses: Vec<SocketAddr> = timeout(LOOKUP_TIMEOUT, lookup_host((name.as_str(), self.port)))
            .await
            .map_err(|elapsed| failed(elapsed.into()))?
            .map_err(failed)?
            .collect();
        addresses.sort_unstable();
        addresses.dedup();
        addresses.truncate(MAX_ADDRESSES);
        if addresses.is_empty() {
            return Err(TargetError::NoAddress { host: name.clone() });
        }
        Ok(addresses)
    }
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(TargetError::NoScheme { text: text.to_owned() });
        };
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            _ => return Err(TargetError::Scheme { scheme: scheme.to_owned() }),
        };
        let (authority, rest) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        if authority.contains('@') {
            return Err(TargetError::UserInfo);
        }
        if !matches!(rest, "" | "/") {
            return Err(TargetError::Path { rest: rest.to_owned() });
        }
        let (host, port) = split_authority(authority)?;
        Ok(Self { scheme, host, port: port.map_or(Ok(scheme.default_port()), parse_port)? })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = self.scheme.as_str();
        match &self.host {
            Host::Address(ip) => write!(f, "{scheme}://{}", SocketAddr::new(*ip, self.port)),
            Host::Name(name) => write!(f, "{scheme}://{name}:{}", self.port),
        }
    }
}

fn split_authority(authority: &str) -> Result<(Host, Option<&str>), TargetError> {
    if let Some(rest) = authority.strip_prefix('[') {
        let bad_address = || TargetError::Address { address: rest.to_owned() };
        let (address, after) = rest.split_once(']').ok_or_else(bad_address)?;
        let Ok(ip) = address.parse::<Ipv6Addr>() else {
            return Err(TargetError::Address { address: address.to_owned() });
        };
        return match after.strip_prefix(':') {
            Some(port) => Ok((Host::Address(ip.into()), Some(port))),
            None if after.is_empty() => Ok((Host::Address(ip.into()), None)),
            None => Err(bad_address()),
        };
    }
    let (host, port) = match authority.split_once(':') {
        Some((_, port)) if port.contains(':') => return Err(TargetError::NoBrackets),
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    };
    if host.is_empty() {
        return Err(TargetError::NoHost);
    }
    if let Ok(ip) = host.parse::<Ipv4Addr>() {
        return Ok((Host::Address(ip.into()), port));
    }
    let is_name = host.len() <= MAX_NAME_BYTES
        && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
    if !is_name {
        return Err(TargetError::Name { host: host.to_owned() });
    }
    Ok((Host::Name(host.to_owned()), port))
}

fn parse_port(text: &str) -> Result<u16, TargetError> {
    // `u16::from_str` would take a leading plus sign.
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse::<u16>() {
        Ok(port) if digits && port != 0 => Ok(port),
        _ => Err(TargetError::Port { port: text.to_owned() }),
    }
}

/// RFC 1035 section 2.3.4.
const MAX_NAME_BYTES: usize = 253;

/// More addresses than this add nothing to spreading the load, and the list is walked for every connection.
#[cfg(feature = "runtime")]
const MAX_ADDRESSES: usize = 64;

/// The resolver's own limit is often 30 s; a start that says nothing for so long looks hung.
#[cfg(feature = "runtime")]
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepted_forms_name_host_and_port() {
        for (text, shown) in [
            ("http://10.0.0.7:8080", "http://10.0.0.7:8080"),
            ("http://10.0.0.7", "http://10.0.0.7:80"),
            ("HTTP://shadow/", "http://shadow:80"),
            ("http://my_shadow.svc.cluster.local.:65535/", "http://my_shadow.svc.cluster.local.:65535"),
            ("http://[2001:db8::1]:81", "http://[2001:db8::1]:81"),
            ("http://[::ffff:10.0.0.7]", "http://[::ffff:10.0.0.7]:80"),
            ("https://shadow", "https://shadow:443"),
            ("HTTPS://[::1]:8443/", "https://[::1]:8443"),
        ] {
            assert_eq!(text.parse::<Target>().unwrap().to_string(), shown, "{text}");
        }
    }

    #[test]
    fn host_line_has_the_port_where_it_is_not_the_schemes() {
        for (text, authority) in [
            ("http://10.0.0.7:8080", "10.0.0.7:8080"),
            ("http://10.0.0.7:80", "10.0.0.7"),
            ("http://shadow/", "shadow"),
            ("http://[2001:db8::1]:81", "[2001:db8::1]:81"),
            ("http://[2001:db8::1]", "[2001:db8::1]"),
        ] {
            assert_eq!(text.parse::<Target>().unwrap().authority(), authority, "{text}");
        }
    }

    #[test]
    fn refused_forms_say_why() {
        for (text, why) in [
            ("10.0.0.7:8080", "no scheme"),
            ("ftp://shadow", "scheme \"ftp\""),
            ("http://user:secret@shadow", "no user name or password"),
            ("http://shadow/v2", "leave \"/v2\" out"),
            ("http://shadow?x", "leave \"?x\" out"),
            ("http://", "names no host"),
            ("http://:80", "names no host"),
            ("http://shadow:", "\"\" is not a port"),
            ("http://shadow:0", "\"0\" is not a port"),
            ("http://shadow:+80", "\"+80\" is not a port"),
            ("http://shadow:65536", "\"65536\" is not a port"),
            ("http://2001:db8::1", "in brackets"),
            ("http://[fe80::1%eth0]", "\"fe80::1%eth0\" is not an IPv6 address"),
            ("http://[::1", "not an IPv6 address"),
            ("http://[::1]80", "not an IPv6 address"),
            ("http://sha dow", "\"sha dow\" is not a host name"),
        ] {
            let error = text.parse::<Target>().unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
            assert!(!error.contains("secret"), "a password must not reach the log");
        }
    }

    #[test]
    fn the_authority_names_a_port_that_is_not_the_schemes() {
        for (text, authority) in [
            ("http://shadow:80", "shadow"),
            ("http://shadow:443", "shadow:443"),
            ("https://shadow", "shadow"),
            ("https://[::1]:80", "[::1]:80"),
            ("https://10.0.0.7:443", "10.0.0.7"),
        ] {
            assert_eq!(text.parse::<Target>().unwrap().authority(), authority, "{text}");
        }
    }

    #[tokio::test]
    async fn localhost_resolves_to_loopback_addresses() {
        let target: Target = "http://localhost:81".parse().unwrap();
        let addresses = target.resolve().await.unwrap();
        assert!(addresses.iter().all(|addr| addr.ip().is_loopback() && addr.port() == 81), "{addresses:?}");
    }
}
