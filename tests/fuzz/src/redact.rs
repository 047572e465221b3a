//! Enters: a place for a secret, and what stands around it. Leaves: a panic where the secret is to be seen afterwards.

use std::sync::{Arc, LazyLock};

use mirror_agent::pipeline::{
    compare::Divergence,
    reason::DivergenceKind,
    redact::{RedactRules, RedactedContent, RedactedMessage, Redactor},
};

use crate::input::Input;

/// What must not be seen. A pattern finds it, and it stands under names of secrets.
const SECRET: &str = "zQ7marked0secret9Xk";

/// Finds the secret by a pattern alone.
static BY_PATTERN: LazyLock<Option<Redactor>> = LazyLock::new(|| {
    let rules =
        RedactRules { patterns: vec!["zQ7marked[0-9]secret9Xk".to_owned()], ..RedactRules::default() };
    Redactor::new(&rules, [1, 2]).ok()
});

/// Finds it by its place alone.
static BY_PLACE: LazyLock<Option<Redactor>> = LazyLock::new(|| {
    let rules = RedactRules {
        headers: vec!["x-marked".to_owned()],
        keys: vec!["marked-key".to_owned()],
        paths: vec!["$.by.path".to_owned(), "$.list[*].at".to_owned(), "$..below".to_owned()],
        ..RedactRules::default()
    };
    Redactor::new(&rules, [3, 4]).ok()
});

/// Wherever the rules name a secret, nothing of what is kept shows it.
pub(crate) fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let choice = input.byte();
    let (Some(by_pattern), Some(by_place)) = (&*BY_PATTERN, &*BY_PLACE) else {
        unreachable!("the rules are right")
    };
    if choice & 0x80 != 0 {
        anywhere(by_pattern, choice, input.rest());
    } else {
        named(by_place, choice, &mut input);
    }
}

/// The secret in the middle of anything.
fn anywhere(redactor: &Redactor, choice: u8, around: &[u8]) {
    let (before, after) = around.split_at(around.len() / 2);
    let mut text = before.to_vec();
    text.extend_from_slice(SECRET.as_bytes());
    text.extend_from_slice(after);
    let kind: Option<&[u8]> = match choice % 6 {
        0 => Some(b"application/json"),
        1 => Some(b"application/x-ndjson"),
        2 => Some(b"application/x-www-form-urlencoded"),
        3 => Some(b"text/html"),
        4 => Some(b"image/png"),
        _ => None,
    };
    hides_in_content(&redactor.content(kind, b"", &text.clone().into(), usize::MAX));
    hides_in_message(&redactor.message(&text, &Vec::new().into(), usize::MAX));
    let text = String::from_utf8_lossy(&text).into_owned();
    for place in ["$.a", "header:a", "form:a", "body", &text] {
        hides_in_divergence(redactor, place, &text);
    }
}

/// The secret where it is named: text around it, written as the place asks for it.
fn named(redactor: &Redactor, choice: u8, input: &mut Input<'_>) {
    let style = input.byte();
    let len = usize::from(input.byte() & 0x1f);
    // Without a digit of the secret, however it is written: where no rule names it, it is to be seen.
    let without = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace('9', "");
    let around = without(input.take(len));
    let other = without(input.rest());
    let secret = format!("{around}{SECRET}");
    let value = json(&secret, style);
    let other = json(&other, style);
    let key = ["password", "marked-key", "MarkedKey", "accessToken", "card"][usize::from(style % 5)];
    let form =
        format!("a={}&{}={}&b", percent(&around, style), percent(key, style), percent(&secret, !style));
    let text = match choice % 8 {
        0 => format!("{{{other}: 1, {}: {value}}}", json(key, style)),
        1 => format!("[{{\"x\": {{{}: [{value}, {{\"y\": {value}}}]}}}}, {other}]", json(key, style)),
        2 => format!("{{\"by\": {{{other}: 2, \"path\": {value}}}}}"),
        3 => format!("{{\"list\": [1, {{\"at\": {{\"deep\": {value}}}}}]}}"),
        4 => format!("{{\"a\": [{{\"below\": {value}}}], \"b\": {other}}}"),
        5 => json(&format!("{{{}: {value}}}", json(key, style)), 0),
        6 => form.clone(),
        _ => String::new(),
    };
    let kind: &[u8] =
        if choice % 8 == 6 { b"application/x-www-form-urlencoded" } else { b"application/json" };
    hides_in_content(&redactor.content(Some(kind), b"", &text.into_bytes().into(), usize::MAX));

    let line: String =
        secret.chars().filter(|char| !char.is_control() && !matches!(char, ';' | ',')).collect();
    let fields = ["x-marked", "Authorization", "X-API-Key", "Proxy-Authorization"][usize::from(choice % 4)];
    let head = format!(
        "GET /a?{form} HTTP/1.1\r\n{fields}: {line}\r\nCookie: a={line}; {line}\r\nReferer: http://a/?{form}#{form}\r\n\r\n"
    );
    hides_in_message(&redactor.message(head.as_bytes(), &Vec::new().into(), usize::MAX));
    let answer = format!("HTTP/1.1 302 Found\r\nSet-Cookie: a={line}; Path=/\r\nLocation: /?{form}\r\n\r\n");
    hides_in_message(&redactor.message(answer.as_bytes(), &Vec::new().into(), usize::MAX));
    for place in [
        "$.by.path",
        "$.by.path.x[3]",
        "$.list[7].at",
        "$.x[0].below",
        "$.password.x",
        "header:x-marked",
        "form:token",
    ] {
        hides_in_divergence(redactor, place, &secret);
    }
    for place in ["$.list", "$.x.below", "$"] {
        hides_in_divergence_of(DivergenceKind::Order, redactor, place, &secret);
    }
    hides_in_divergence(redactor, &format!("$.{}.password…", "x".repeat(510)), &secret);
    hides_in_divergence(redactor, "malformed line 2", &secret);
    hides_in_divergence(redactor, "$.by", &format!("{{\"path\": {value}}}"));
    hides_in_divergence(redactor, "$", &format!("{{{}: {value}", json(key, style)));
}

fn hides_in_divergence(redactor: &Redactor, place: &str, value: &str) {
    hides_in_divergence_of(DivergenceKind::Value, redactor, place, value);
}

fn hides_in_divergence_of(kind: DivergenceKind, redactor: &Redactor, place: &str, value: &str) {
    let redacted = redactor.divergence(&Divergence {
        kind,
        path: Arc::from(place),
        place: place.to_owned(),
        other_place: Some(place.to_owned()),
        live: Some(value.to_owned()),
        other: Some(value.to_owned()),
    });
    hides(&redacted.path);
    hides(&redacted.place);
    hides(&redacted.other_place.unwrap_or_default());
    hides(&redacted.live.unwrap_or_default());
    hides(&redacted.other.unwrap_or_default());
}

fn hides_in_message(message: &RedactedMessage) {
    hides(&message.line);
    for (name, value) in &message.headers {
        hides(name);
        hides(value);
    }
    hides_in_content(&message.content);
}

fn hides_in_content(content: &RedactedContent) {
    if let RedactedContent::Text { text, .. } = content {
        hides(text);
    }
}

/// Neither as it is nor percent-encoded. What is written as JSON has no escapes where they need not be.
fn hides(text: &str) {
    assert!(!text.contains(SECRET), "the secret is to be seen: {text:?}");
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let hex = after.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) if *first == b'%' => {
                decoded.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            _ => {
                decoded.push(*first);
                rest = after;
            }
        }
    }
    let is_there = decoded.windows(SECRET.len()).any(|window| window == SECRET.as_bytes());
    assert!(!is_there, "the secret is to be seen, percent-encoded: {text:?}");
}

/// A JSON string, some of its characters escaped.
fn json(text: &str, style: u8) -> String {
    let mut written = String::from("\"");
    for (number, char) in text.chars().enumerate() {
        let is_escaped = char.is_control() || matches!(char, '"' | '\\') || (number as u8 ^ style) & 3 == 3;
        if is_escaped {
            let mut units = [0; 2];
            for unit in char.encode_utf16(&mut units) {
                written.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            written.push(char);
        }
    }
    written.push('"');
    written
}

/// A part of a form, some of its bytes encoded.
fn percent(text: &str, style: u8) -> String {
    let mut written = String::new();
    for (number, byte) in text.bytes().enumerate() {
        if byte.is_ascii_alphanumeric() && (number as u8 ^ style) & 3 != 3 {
            written.push(char::from(byte));
        } else {
            written.push_str(&format!("%{byte:02x}"));
        }
    }
    written
}
