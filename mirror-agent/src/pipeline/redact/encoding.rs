//! Enters: percent-encoded text. Leaves: what it stands for, and the way back.

/// The bytes that percent-encoded text stands for; what is no encoding stays as it is. With `plus_is_space`, as in forms.
pub(super) fn decode_percent(text: &[u8], plus_is_space: bool) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, after @ ..] = rest {
        let (byte, after) = match (first, after) {
            (b'%', [high, low, after @ ..]) => match (digit(*high), digit(*low)) {
                (Some(high), Some(low)) => (high << 4 | low, after),
                _ => (b'%', rest.get(1..).unwrap_or_default()),
            },
            (b'+', after) if plus_is_space => (b' ', after),
            (byte, after) => (*byte, after),
        };
        decoded.push(byte);
        rest = after;
    }
    decoded
}

/// Text as it may stand in a query, a path or a form: all but letters, digits and `-._~/:` is encoded.
pub(super) fn encode_percent(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let mut encoded = String::with_capacity(bytes.len());
    for byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~/:".contains(byte) {
            encoded.push(char::from(*byte));
            continue;
        }
        encoded.push('%');
        for half in [byte >> 4, byte & 0x0f] {
            encoded.push(DIGITS.get(usize::from(half)).copied().map_or('0', char::from));
        }
    }
    encoded
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::{decode_percent, encode_percent};

    #[test]
    fn encodings_are_taken_off_and_put_on() {
        assert_eq!(decode_percent(b"a%20b%c3%A9+%2", false), "a bé+%2".as_bytes());
        assert_eq!(decode_percent(b"%4+%zz%%41", true), b"%4 %zz%A");
        assert_eq!(encode_percent("a b/é".as_bytes()), "a%20b/%C3%A9");
    }
}
