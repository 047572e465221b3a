//! Enters: names that traffic has made up. Leaves: names of which there are only so many.

use super::looks;

/// Longest name that stands in a path, in bytes.
const NAME_BYTES: usize = 64;

/// Whether a key or a name is one of many, made for what it stands for: an id, a hash, a date, an address. In paths `{}`
/// stands for all of them, or a table by order number would have as many paths as orders.
pub(super) fn is_generated(name: &[u8]) -> bool {
    if name.len() > NAME_BYTES {
        return true;
    }
    let digits = name.iter().filter(|byte| byte.is_ascii_digit()).count();
    let is_hex = name.iter().all(|byte| byte.is_ascii_hexdigit() || *byte == b'-');
    name.contains(&b'@')
        // `42`, `-7`, `10.0`, `2026-11-21`, `12:30`, `+49 30 123`.
        || digits > 0 && name.iter().all(|byte| byte.is_ascii_digit() || b"-+.:/ _".contains(byte))
        || digits > 0 && is_hex && name.len() >= 12
        // `order_00017`, `usr-1234567`.
        || longest_run_of_digits(name) >= 5
        // Tokens: letters and digits mixed, too long for a word.
        || digits >= 4 && name.len() >= 20
        || looks::is_uuid(name)
        || looks::is_timestamp(name)
}

fn longest_run_of_digits(name: &[u8]) -> usize {
    name.split(|byte| !byte.is_ascii_digit()).map(<[u8]>::len).max().unwrap_or(0)
}

/// What of a longer key stands in a place, in bytes.
const SHOWN_BYTES: usize = 128;

/// Appends the step to a member: `.name`, `.{}` where `generated` asks for it, `["a name"]`.
pub(super) fn push_key(path: &mut String, key: &[u8], is_templated: bool) {
    if is_templated && is_generated(key) {
        path.push_str(".{}");
        return;
    }
    let text = String::from_utf8_lossy(key.get(..SHOWN_BYTES).unwrap_or(key));
    if !text.is_empty() && text.chars().all(|char| char.is_alphanumeric() || "_-$@".contains(char)) {
        path.push('.');
        path.push_str(&text);
        return;
    }
    path.push_str("[\"");
    for char in text.chars() {
        match char {
            '"' | '\\' => path.extend(['\\', char]),
            char if char.is_control() => path.push(char::REPLACEMENT_CHARACTER),
            char => path.push(char),
        }
    }
    path.push_str("\"]");
}

/// The name of a form field or a cookie in a path.
pub(super) fn name(name: &[u8]) -> String {
    if is_generated(name) { "{}".to_owned() } else { clean(name) }
}

/// Bytes as text of one line.
pub(super) fn clean(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.chars().map(|char| if char.is_control() { char::REPLACEMENT_CHARACTER } else { char }).collect()
}

#[cfg(test)]
mod tests {
    use super::{is_generated, push_key};

    #[test]
    fn generated_names_are_told_from_words() {
        let generated = [
            "1",
            "42",
            "-17",
            "2026-11-21",
            "2026-11-21T10:00:00Z",
            "6ba7b810-9dad-11d1-80b4-00c04fd430c8",
            "d41d8cd98f00b204e9800998ecf8427e",
            "5f2b9c0e1a7d",
            "order_00017",
            "ada@example.com",
            "eyJhbGciOiJIUzI1NiJ9abc12",
            &"k".repeat(65),
        ];
        let words = [
            "",
            "a",
            "id",
            "price",
            "line2",
            "sha256",
            "utf_8",
            "address_line_1",
            "v1",
            "deadbeefcafe",
            "x-y",
            "é",
        ];

        for name in generated {
            assert!(is_generated(name.as_bytes()), "{name}");
        }
        for name in words {
            assert!(!is_generated(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn keys_become_steps() {
        let step = |key: &str, is_templated| {
            let mut path = "$".to_owned();
            push_key(&mut path, key.as_bytes(), is_templated);
            path
        };

        assert_eq!(step("price", true), "$.price");
        assert_eq!(step("12345", true), "$.{}");
        assert_eq!(step("12345", false), "$.12345");
        assert_eq!(step("a b", true), "$[\"a b\"]");
        assert_eq!(step("a.b", true), "$[\"a.b\"]");
        assert_eq!(step("{}", true), "$[\"{}\"]");
        assert_eq!(step("*", true), "$[\"*\"]");
        assert_eq!(step("", true), "$[\"\"]");
        assert_eq!(step("say \"\\\"", true), "$[\"say \\\"\\\\\\\"\"]");
    }
}
