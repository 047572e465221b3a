//! Enters: one segment of a path. Leaves: what it looks like: a word of the interface, or a value.

/// Longest segment that is taken for a word, in bytes.
const WORD_BYTES: usize = 48;

/// The place holder that stands for a segment; `None` where it is a word.
pub(super) fn holder(segment: &[u8]) -> Option<&'static str> {
    if !segment.iter().all(|byte| is_plain(*byte)) {
        return Some(if segment.contains(&b'@') && is_email(segment) { "{email}" } else { "{}" });
    }
    let digits = segment.iter().filter(|byte| byte.is_ascii_digit()).count();
    if digits == segment.len() {
        return Some("{id}");
    }
    if digits == 0 {
        return (segment.len() > WORD_BYTES).then_some("{}");
    }
    if is_uuid(segment) {
        Some("{uuid}")
    } else if is_date(segment) {
        Some("{date}")
    } else if segment.len() >= 8 && segment.iter().all(u8::is_ascii_hexdigit) {
        Some("{hex}")
    } else if is_token(segment, digits) {
        Some("{token}")
    } else {
        (segment.len() > WORD_BYTES).then_some("{}")
    }
}

/// What a word may consist of: RFC 3986 section 2.3 and what else needs no thought.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~' | b':' | b',' | b'*' | b'=')
}

/// Eight, four, four, four and twelve hexadecimal digits: RFC 9562 section 4.
pub(in super::super) fn is_uuid(text: &[u8]) -> bool {
    text.len() == 36
        && text.iter().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

/// `2024-05-31`, whatever follows.
fn is_date(text: &[u8]) -> bool {
    text.len() >= 10
        && text.iter().take(10).enumerate().all(|(at, byte)| match at {
            4 | 7 => *byte == b'-',
            _ => byte.is_ascii_digit(),
        })
}

fn is_email(text: &[u8]) -> bool {
    text.iter().all(|byte| is_plain(*byte) || matches!(byte, b'@' | b'+'))
        && text.split(|byte| *byte == b'@').filter(|part| !part.is_empty()).count() == 2
}

/// Letters of both cases and digits, 16 at least, or 20 with a fifth of them digits: a key, base64 or an identifier
/// of another alphabet.
fn is_token(text: &[u8], digits: usize) -> bool {
    let has_both = text.iter().any(u8::is_ascii_lowercase) && text.iter().any(u8::is_ascii_uppercase);
    (text.len() >= 16 && has_both) || (text.len() >= 20 && digits.saturating_mul(5) >= text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_told_from_words() {
        for (segment, expected) in [
            ("orders", None),
            ("v1", None),
            ("add-to-cart", None),
            ("deadbeef", None),
            ("sku-99", None),
            ("17", Some("{id}")),
            ("0d4fbb2e-7b7a-4a4e-9a43-3c50c3d2b3a1", Some("{uuid}")),
            ("2024-05-31", Some("{date}")),
            ("2024-05-31T10:00:00Z", Some("{date}")),
            ("9f86d081", Some("{hex}")),
            ("eyJhbGciOiJIUzI1NiJ9", Some("{token}")),
            ("01arz3ndektsv4rrffq69g5fav", Some("{token}")),
            ("ann@example.org", Some("{email}")),
            ("a%20b", Some("{}")),
        ] {
            assert_eq!(holder(segment.as_bytes()), expected, "{segment}");
        }
        assert_eq!(holder(&[0xff, 0xfe]), Some("{}"));
        assert_eq!(holder(&[b'a'; 100]), Some("{}"));
    }
}
