//! Enters: the head of a request at the TCP listener. Leaves: whether it may come in.
//!
//! A browser brings requests of any page that it shows. So `Host` has to be an address or `localhost`, for a name of
//! the attacker's may have been made to lead here (DNS rebinding); `Origin`, where there is one, has to be this very
//! listener (RFC 6454 section 7); and the cookie is of the kind that other sites' pages do not send.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use hyper::{
    HeaderMap, StatusCode, Uri,
    header::{AUTHORIZATION, COOKIE, HOST, HeaderName, ORIGIN},
};
use sha2::{Digest, Sha256};

use super::{api::Refusal, invitation::Invitations, token::Token};
use crate::io::audit::Who;

/// Cookies that are good at the same time; one more ends the oldest.
const SESSIONS: usize = 16;

/// How long a cookie is good: a day at work.
const SESSION_TIME: Duration = Duration::from_secs(12 * 60 * 60);

/// Names that always mean this host, as browsers resolve them without asking anybody (RFC 6761 section 6.3).
const LOCAL_NAMES: [&str; 1] = ["localhost"];

/// Decides who may come in through the TCP listener.
#[derive(Debug)]
pub(super) struct Door {
    /// The SHA-256 of the token: neither the length of the token nor how much of it was right can be measured.
    token: [u8; 32],
    /// Cookies belong to a host whatever the port, so their name has to tell agents apart.
    cookie_name: String,
    sessions: Mutex<Vec<Session>>,
    invitations: Invitations,
}

#[derive(Debug)]
struct Session {
    digest: [u8; 32],
    expires: Instant,
}

/// How somebody came in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Pass {
    Token,
    Cookie,
    /// Good for a session, and for nothing else.
    Invitation,
}

impl Pass {
    pub(super) const fn who(self, address: SocketAddr) -> Who {
        match self {
            Self::Token | Self::Invitation => Who::Token { address },
            Self::Cookie => Who::Cookie { address },
        }
    }
}

impl Door {
    pub(super) fn new(token: &Token, port: u16) -> Self {
        Self {
            token: digest(token.as_str().as_bytes()),
            cookie_name: format!("mirror_session_{port}"),
            sessions: Mutex::default(),
            invitations: Invitations::default(),
        }
    }

    /// Lets a request in, or says why not.
    pub(super) fn admit(&self, uri: &Uri, headers: &HeaderMap) -> Result<Pass, Refusal> {
        check_host(uri, headers)?;
        if let Some(token) = bearer(headers) {
            let is_right = is_same(&digest(token.as_bytes()), &self.token);
            return match is_right {
                true => Ok(Pass::Token),
                false if self.invitations.redeem(token) => Ok(Pass::Invitation),
                false => Err(unauthorized("the token is wrong, or the invitation was used or is too old")),
            };
        }
        match self.cookie(headers) {
            Some(cookie) if self.knows(cookie) => Ok(Pass::Cookie),
            Some(_) => {
                Err(unauthorized("the session has ended; exchange the token for another at /v1/session"))
            }
            None => Err(unauthorized("the token is missing: Authorization: Bearer TOKEN")),
        }
    }

    /// A secret that opens one session, once and soon.
    pub(super) fn invite(&self) -> std::io::Result<Token> {
        self.invitations.issue()
    }

    /// A cookie that from now on is as good as the token; the value of `Set-Cookie`.
    pub(super) fn open_session(&self) -> std::io::Result<String> {
        let secret = Token::random()?;
        let mut sessions = self.lock();
        sessions.retain(|session| session.expires > Instant::now());
        if sessions.len() >= SESSIONS {
            sessions.remove(0);
        }
        let expires = Instant::now() + SESSION_TIME;
        sessions.push(Session { digest: digest(secret.as_str().as_bytes()), expires });
        Ok(self.set_cookie(secret.as_str(), SESSION_TIME))
    }

    /// Ends the session of a cookie; the value of `Set-Cookie` that has a browser forget it.
    pub(super) fn close_session(&self, headers: &HeaderMap) -> String {
        if let Some(cookie) = self.cookie(headers) {
            let digest = digest(cookie.as_bytes());
            self.lock().retain(|session| !is_same(&session.digest, &digest));
        }
        self.set_cookie("", Duration::ZERO)
    }

    fn set_cookie(&self, value: &str, age: Duration) -> String {
        // RFC 6265 section 4.1. There is no TLS here, which `Secure` would ask for.
        format!("{}={value}; Path=/; HttpOnly; SameSite=Strict; Max-Age={}", self.cookie_name, age.as_secs())
    }

    /// The value of our cookie.
    fn cookie<'h>(&self, headers: &'h HeaderMap) -> Option<&'h str> {
        let pairs = headers.get_all(COOKIE).into_iter().filter_map(|value| value.to_str().ok());
        pairs
            .flat_map(|line| line.split(';'))
            .filter_map(|pair| pair.trim().split_once('='))
            .find_map(|(name, value)| (name == self.cookie_name).then_some(value))
    }

    fn knows(&self, cookie: &str) -> bool {
        let (digest, now) = (digest(cookie.as_bytes()), Instant::now());
        let sessions = self.lock();
        let is_it = |session: &Session| is_same(&session.digest, &digest) & (session.expires > now);
        sessions.iter().fold(false, |found, session| found | is_it(session))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Session>> {
        // Each change is one step.
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    // RFC 9110 section 11.1: the scheme is written in any case.
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

/// Says why a request must not be looked at, where it must not.
pub(super) fn check_host(uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
    let forbidden = |message: &str| Err(Refusal::new(StatusCode::FORBIDDEN, message));
    if uri.authority().is_some() {
        return forbidden("this is no proxy");
    }
    let Some(host) = only(headers, &HOST) else { return forbidden("there has to be one Host") };
    if !is_local(host) {
        return forbidden("Host has to be an address or localhost");
    }
    if headers.contains_key(ORIGIN) {
        let origin = only(headers, &ORIGIN).and_then(|origin| origin.strip_prefix("http://"));
        if !origin.is_some_and(|origin| origin.eq_ignore_ascii_case(host)) {
            return forbidden("Origin is another site");
        }
    }
    Ok(())
}

/// The value of a header field that stands there once.
fn only<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    let mut values = headers.get_all(name).into_iter();
    let first = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(first)
}

/// Whether a host, with or without port, is an address or a name that cannot be made to mean another host.
fn is_local(host: &str) -> bool {
    if host.parse::<SocketAddr>().is_ok() || host.parse::<IpAddr>().is_ok_and(|addr| addr.is_ipv4()) {
        return true;
    }
    let in_brackets = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    if in_brackets.is_some_and(|host| host.parse::<std::net::Ipv6Addr>().is_ok()) {
        return true;
    }
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.parse::<u16>().is_ok() => name,
        _ => host,
    };
    LOCAL_NAMES.iter().any(|known| name.eq_ignore_ascii_case(known))
}

fn unauthorized(message: &str) -> Refusal {
    Refusal::new(StatusCode::UNAUTHORIZED, message)
}

pub(super) fn digest(secret: &[u8]) -> [u8; 32] {
    Sha256::digest(secret).into()
}

/// Compares all bytes, whichever differ.
pub(super) fn is_same(a: &[u8; 32], b: &[u8; 32]) -> bool {
    let difference = a.iter().zip(b).fold(0, |difference, (a, b)| difference | (a ^ b));
    std::hint::black_box(difference) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    const PORT: u16 = 9478;

    fn door() -> (Door, String) {
        let token = Token::random().unwrap();
        (Door::new(&token, PORT), token.as_str().to_owned())
    }

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    fn admit(door: &Door, lines: &[(&'static str, &str)]) -> Result<Pass, u16> {
        door.admit(&Uri::from_static("/v1/state"), &headers(lines)).map_err(|refusal| refusal.status.as_u16())
    }

    #[test]
    fn token_opens_and_nothing_else_does() {
        let (door, token) = door();
        let host = ("host", "127.0.0.1:9478");
        for (authorization, passes) in [
            (format!("Bearer {token}"), Ok(Pass::Token)),
            (format!("bearer  {token}"), Ok(Pass::Token)),
            (format!("Bearer {}", &token[1..]), Err(401)),
            (format!("Bearer {token}x"), Err(401)),
            (format!("Basic {token}"), Err(401)),
            (token.clone(), Err(401)),
            (String::new(), Err(401)),
        ] {
            assert_eq!(admit(&door, &[host, ("authorization", &authorization)]), passes, "{authorization}");
        }
        assert_eq!(admit(&door, &[host]), Err(401));
    }

    #[test]
    fn host_is_an_address_or_localhost() {
        let (door, token) = door();
        let bearer = format!("Bearer {token}");
        for (host, passes) in [
            ("127.0.0.1:9478", true),
            ("10.1.2.3", true),
            ("[::1]:9478", true),
            ("[::1]", true),
            ("localhost", true),
            ("LOCALHOST:1", true),
            ("evil.example:9478", false),
            ("localhost.evil.example", false),
            ("127.0.0.1.evil.example", false),
            ("", false),
            ("localhost:port", false),
        ] {
            let admitted = admit(&door, &[("host", host), ("authorization", &bearer)]);
            assert_eq!(admitted, if passes { Ok(Pass::Token) } else { Err(403) }, "{host}");
        }
        assert_eq!(admit(&door, &[("authorization", &bearer)]), Err(403));
        let twice = [("host", "localhost"), ("host", "localhost"), ("authorization", &bearer)];
        let twice = twice.iter().fold(HeaderMap::new(), |mut headers, (name, value)| {
            headers.append(*name, value.parse().unwrap());
            headers
        });
        assert!(door.admit(&"/".parse().unwrap(), &twice).is_err());
        let absolute = door.admit(
            &"http://evil.example/v1/state".parse().unwrap(),
            &headers(&[("host", "localhost"), ("authorization", &bearer)]),
        );
        assert_eq!(absolute.unwrap_err().status, StatusCode::FORBIDDEN);
    }

    #[test]
    fn origin_is_absent_or_the_listener_itself() {
        let (door, token) = door();
        let bearer = format!("Bearer {token}");
        for (origin, passes) in [
            ("http://localhost:9478", true),
            ("http://LOCALHOST:9478", true),
            ("http://localhost:9479", false),
            ("http://localhost", false),
            ("https://localhost:9478", false),
            ("http://evil.example", false),
            ("null", false),
            ("", false),
        ] {
            let lines = [("host", "localhost:9478"), ("origin", origin), ("authorization", &bearer)];
            assert_eq!(admit(&door, &lines), if passes { Ok(Pass::Token) } else { Err(403) }, "{origin}");
        }
    }

    #[test]
    fn cookie_is_good_until_its_session_is_closed() {
        let (door, _) = door();
        let set = door.open_session().unwrap();
        assert!(set.contains("; HttpOnly; SameSite=Strict; Max-Age=43200"), "{set}");
        let pair = set.split(';').next().unwrap();
        let cookie = format!("other=1; {pair}");
        let lines = [("host", "localhost:9478"), ("cookie", cookie.as_str())];
        assert_eq!(admit(&door, &lines), Ok(Pass::Cookie));
        let forged = format!("mirror_session_{PORT}=");
        assert_eq!(admit(&door, &[lines[0], ("cookie", &forged)]), Err(401));
        assert!(door.close_session(&headers(&lines)).contains("Max-Age=0"));
        assert_eq!(admit(&door, &lines), Err(401));
    }

    #[test]
    fn sessions_are_bounded_and_the_oldest_goes() {
        let (door, _) = door();
        let cookies: Vec<_> = (0..=SESSIONS).map(|_| door.open_session().unwrap()).collect();
        let is_good = |cookie: &String| {
            let pair = cookie.split(';').next().unwrap();
            admit(&door, &[("host", "localhost"), ("cookie", pair)]).is_ok()
        };
        assert!(!is_good(&cookies[0]));
        assert!(cookies[1..].iter().all(is_good));
    }
}
