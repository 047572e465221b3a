//! Enters: names of header fields and keys. Leaves: whether what stands under them is a secret.

use std::collections::BTreeSet;

/// What must not be kept or handed on, beside what never is: credentials, cookies and fields with well-known names.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct RedactRules {
    /// Header fields, in any case.
    pub headers: Vec<String>,
    /// Keys of JSON objects, forms and queries, in any case, with or without `-` and `_`.
    pub keys: Vec<String>,
    /// JSON paths.
    pub paths: Vec<String>,
    /// Regular expressions; what they find in any value is taken out.
    pub patterns: Vec<String>,
}

/// Header fields whose values are never kept.
pub const HEADERS: [&str; 14] = [
    "authorization",
    "cookie",
    "proxy-authenticate",
    "proxy-authorization",
    "set-cookie",
    "set-cookie2",
    "www-authenticate",
    "x-amz-security-token",
    "x-api-key",
    "x-auth-token",
    "x-csrf-token",
    "x-forwarded-client-cert",
    "x-goog-iap-jwt-assertion",
    "x-xsrf-token",
];

/// Keys whose values are never kept, as `normal` writes them.
pub const KEYS: [&str; 24] = [
    "accesskey",
    "auth",
    "authorization",
    "card",
    "cardno",
    "cardnumber",
    "cookie",
    "creditcard",
    "csrf",
    "cvc",
    "cvv",
    "iban",
    "jsessionid",
    "jwt",
    "otp",
    "pan",
    "phpsessid",
    "pin",
    "pwd",
    "session",
    "sessionid",
    "sid",
    "socialsecuritynumber",
    "ssn",
];

/// Parts of keys whose values are never kept: `accessToken` and `new_password` as well.
pub const KEY_PARTS: [&str; 8] =
    ["apikey", "credential", "passphrase", "passwd", "password", "privatekey", "secret", "token"];

/// A longer key is no name of a field.
const MAX_KEY_BYTES: usize = 128;

/// Which names are those of secrets.
#[derive(Clone, Debug)]
pub(super) struct Names {
    headers: BTreeSet<Vec<u8>>,
    keys: BTreeSet<Vec<u8>>,
}

impl Names {
    pub(super) fn new(rules: &RedactRules) -> Self {
        let headers = rules.headers.iter().map(String::as_str).chain(HEADERS);
        let keys = rules.keys.iter().map(String::as_str).chain(KEYS);
        Self {
            headers: headers.map(|name| name.to_ascii_lowercase().into_bytes()).collect(),
            keys: keys.map(|key| normal(key.as_bytes())).collect(),
        }
    }

    /// Whether the value of a header field is a secret.
    pub(super) fn has_header(&self, name: &[u8]) -> bool {
        self.headers.contains(&name.to_ascii_lowercase()) || self.has_key(name)
    }

    /// Whether the value of a key is a secret.
    pub(super) fn has_key(&self, key: &[u8]) -> bool {
        let key = normal(key);
        if self.keys.contains(&key) {
            return true;
        }
        // A text that only speaks of passwords is no key.
        key.len() <= MAX_KEY_BYTES
            && KEY_PARTS.iter().any(|part| key.windows(part.len()).any(|window| window == part.as_bytes()))
    }
}

/// A key in lower case, without what separates its words.
fn normal(key: &[u8]) -> Vec<u8> {
    let is_kept = |byte: &&u8| !matches!(byte, b'-' | b'_' | b' ' | b'.');
    key.iter().filter(is_kept).map(u8::to_ascii_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::{Names, RedactRules};

    #[test]
    fn names_of_secrets_are_known_in_any_spelling() {
        let rules = RedactRules {
            headers: vec!["X-Customer".to_owned()],
            keys: vec!["tax-id".to_owned()],
            ..RedactRules::default()
        };
        let names = Names::new(&rules);
        for key in [
            "password",
            "Password",
            "new_password",
            "pass_word",
            "accessToken",
            "ACCESS-TOKEN",
            "client_secret",
            "api_key",
            "apiKey",
            "card_number",
            "cvv",
            "SSN",
            "pin",
            "private-key",
            "session",
            "taxId",
            "tax_id",
        ] {
            assert!(names.has_key(key.as_bytes()), "{key}");
        }
        for key in ["", "id", "opinion", "discard", "spinner", "company", "total", "sessions", "author"] {
            assert!(!names.has_key(key.as_bytes()), "{key}");
        }
        for name in ["authorization", "Cookie", "SET-COOKIE", "x-customer", "X-Api-Key", "x-session-token"] {
            assert!(names.has_header(name.as_bytes()), "{name}");
        }
        assert!(!names.has_header(b"content-type") && !names.has_header(b"etag"));
    }
}
