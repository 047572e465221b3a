//! Enters: a value as text. Leaves: whether it looks like a point in time, or like a UUID.

/// Whether `text` is a UUID: hyphenated or not, in braces or behind `urn:uuid:` (RFC 9562 section 4), in any case.
#[must_use]
pub fn is_uuid(text: &[u8]) -> bool {
    let text = text.strip_prefix(b"urn:uuid:").unwrap_or(text);
    let text = text.strip_prefix(b"{").and_then(|text| text.strip_suffix(b"}")).unwrap_or(text);
    match text.len() {
        32 => text.iter().all(u8::is_ascii_hexdigit),
        36 => text.iter().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        }),
        _ => false,
    }
}

/// Whether `text` is a point in time in a common form: a date, with a time or without, as RFC 3339 and ISO 8601 write it
/// (`2026-11-21T10:00:00.5+01:00`, `20261121T100000Z`); a date of HTTP or of mail (`Sat, 21 Nov 2026 10:00:00 GMT`); seconds
/// since 1970 from 2001 to 2100, or milli-, micro- or nanoseconds, with a fraction or without.
#[must_use]
pub fn is_timestamp(text: &[u8]) -> bool {
    is_iso(text) || is_epoch(text) || is_mail_date(text)
}

/// Seconds of 2001-09-09 and of 2100-01-01.
const EPOCH_SECONDS: std::ops::Range<u64> = 1_000_000_000..4_102_444_800;

fn is_epoch(text: &[u8]) -> bool {
    let (whole, fraction) = match text.iter().position(|byte| *byte == b'.') {
        Some(at) => (text.get(..at), at.checked_add(1).and_then(|at| text.get(at..))),
        None => (Some(text), None),
    };
    let is_fraction =
        fraction.is_none_or(|digits| !digits.is_empty() && digits.iter().all(u8::is_ascii_digit));
    let number = whole.filter(|digits| digits.iter().all(u8::is_ascii_digit));
    let number = number.and_then(|digits| str::from_utf8(digits).ok()?.parse::<u64>().ok());
    let is_in = |unit: u64| {
        number.is_some_and(|number| EPOCH_SECONDS.contains(&(number.checked_div(unit).unwrap_or(0))))
    };
    is_fraction && [1, 1_000, 1_000_000, 1_000_000_000].into_iter().any(is_in)
}

/// What is left of a text that is read from its beginning.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    /// Exactly `count` digits of a number within `range`.
    fn number(&mut self, count: usize, range: std::ops::RangeInclusive<u32>) -> Option<()> {
        let (digits, rest) = self.0.split_at_checked(count)?;
        let number = digits.iter().try_fold(0_u32, |number, digit| {
            number.checked_mul(10)?.checked_add(char::from(*digit).to_digit(10)?)
        })?;
        self.0 = rest;
        range.contains(&number).then_some(())
    }

    /// One of these bytes.
    fn one_of(&mut self, bytes: &[u8]) -> Option<()> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        bytes.contains(first).then_some(())
    }

    /// One of these words, in any case.
    fn word(&mut self, words: &[&[u8]]) -> Option<()> {
        let len = words.iter().find_map(|word| {
            let begin = self.0.get(..word.len())?;
            begin.eq_ignore_ascii_case(word).then_some(word.len())
        })?;
        self.0 = self.0.get(len..)?;
        Some(())
    }

    fn skip(&mut self, of: impl Fn(&u8) -> bool) {
        let end = self.0.iter().position(|byte| !of(byte)).unwrap_or(self.0.len());
        self.0 = self.0.get(end..).unwrap_or_default();
    }
}

fn is_iso(text: &[u8]) -> bool {
    read_iso(text, true).or_else(|| read_iso(text, false)).is_some()
}

/// `is_extended`: with hyphens and colons.
fn read_iso(text: &[u8], is_extended: bool) -> Option<()> {
    let mut reader = Reader(text);
    let between = |reader: &mut Reader<'_>, separator: &[u8]| {
        if is_extended { reader.one_of(separator) } else { Some(()) }
    };
    reader.number(4, 1900..=2200)?;
    between(&mut reader, b"-/")?;
    reader.number(2, 1..=12)?;
    between(&mut reader, b"-/")?;
    reader.number(2, 1..=31)?;
    if reader.0.is_empty() {
        return Some(());
    }
    reader.one_of(b"Tt _")?;
    reader.number(2, 0..=24)?;
    between(&mut reader, b":")?;
    reader.number(2, 0..=59)?;
    if matches!(reader.0, [b':' | b'0'..=b'9', ..]) {
        between(&mut reader, b":")?;
        reader.number(2, 0..=60)?;
        if let [b'.' | b',', b'0'..=b'9', rest @ ..] = reader.0 {
            reader.0 = rest;
            reader.skip(u8::is_ascii_digit);
        }
    }
    read_offset(reader)
}

/// Nothing, `Z`, `UTC`, `+01:00`, `+0100`, `+01`; a name in brackets behind it.
fn read_offset(mut reader: Reader<'_>) -> Option<()> {
    if let [b' ', rest @ ..] = reader.0 {
        reader.0 = rest;
    }
    if let [b'+' | b'-', rest @ ..] = reader.0 {
        reader.0 = rest;
        reader.number(2, 0..=23)?;
        if let [b':', rest @ ..] = reader.0 {
            reader.0 = rest;
        }
        if !matches!(reader.0, [] | [b'[', ..]) {
            reader.number(2, 0..=59)?;
        }
    } else if !reader.0.is_empty() {
        reader.word(&[b"Z", b"UTC", b"GMT"])?;
    }
    (reader.0.is_empty() || reader.0.starts_with(b"[") && reader.0.ends_with(b"]")).then_some(())
}

fn is_mail_date(text: &[u8]) -> bool {
    read_mail_date(text).is_some()
}

/// RFC 9110 section 5.6.7, its preferred form, and what RFC 5322 section 3.3 allows beside it.
fn read_mail_date(text: &[u8]) -> Option<()> {
    const DAYS: [&[u8]; 7] = [b"Mon", b"Tue", b"Wed", b"Thu", b"Fri", b"Sat", b"Sun"];
    const MONTHS: [&[u8]; 12] =
        [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];
    let mut reader = Reader(text);
    if reader.word(&DAYS).is_some() {
        reader.one_of(b",")?;
        reader.one_of(b" ")?;
    }
    if reader.number(2, 1..=31).is_none() {
        reader.number(1, 1..=9)?;
    }
    reader.one_of(b" -")?;
    reader.word(&MONTHS)?;
    reader.one_of(b" -")?;
    reader.number(4, 1900..=2200)?;
    reader.one_of(b" ")?;
    reader.number(2, 0..=23)?;
    reader.one_of(b":")?;
    reader.number(2, 0..=59)?;
    reader.one_of(b":")?;
    reader.number(2, 0..=60)?;
    read_offset(reader)
}

#[cfg(test)]
mod tests {
    use super::{is_timestamp, is_uuid};

    #[test]
    fn points_in_time_are_told_from_other_values() {
        let times = [
            "2026-11-21",
            "2026/11/21",
            "20261121",
            "2026-11-21T10:00:00Z",
            "2026-11-21T10:00Z",
            "2026-11-21 10:00:00",
            "2026-11-21T10:00:00.123456789+01:00",
            "2026-11-21T10:00:00,5-0330",
            "2026-11-21T10:00:00+01",
            "2026-11-21 10:00:00 UTC",
            "2026-11-21T10:00:00+01:00[Europe/Berlin]",
            "20261121T100000Z",
            "Sat, 21 Nov 2026 10:00:00 GMT",
            "Sat, 21-Nov-2026 10:00:00 GMT",
            "21 Nov 2026 10:00:00 +0100",
            "1 Nov 2026 10:00:00 +0100",
            "1795255200",
            "1795255200.25",
            "1795255200123",
            "1795255200123456",
            "1795255200123456789",
        ];
        let others = [
            "",
            "42",
            "999999999",
            "5000000000",
            "17952552001",
            "2026-13-21",
            "2026-11-32",
            "2026-11-21T",
            "2026-11-21T25:00:00Z",
            "2026-11-21T10:61:00Z",
            "2026-11-21T10:00:00Zulu",
            "2026-11",
            "1795255200.",
            "1795255200.x",
            "-1795255200",
            "Sat, 21 Nov",
            "Sat",
            "1.2.3",
        ];

        for text in times {
            assert!(is_timestamp(text.as_bytes()), "{text}");
        }
        for text in others {
            assert!(!is_timestamp(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn uuids_are_told_from_other_values() {
        let uuids = [
            "6ba7b810-9dad-11d1-80b4-00c04fd430c8",
            "6BA7B810-9DAD-11D1-80B4-00C04FD430C8",
            "{6ba7b810-9dad-11d1-80b4-00c04fd430c8}",
            "urn:uuid:6ba7b810-9dad-11d1-80b4-00c04fd430c8",
            "6ba7b8109dad11d180b400c04fd430c8",
        ];
        let others =
            ["", "6ba7b810", "6ba7b810-9dad-11d1-80b4-00c04fd430cg", "6ba7b810-9dad-11d1-80b400-c04fd430c8"];

        for text in uuids {
            assert!(is_uuid(text.as_bytes()), "{text}");
        }
        for text in others {
            assert!(!is_uuid(text.as_bytes()), "{text}");
        }
    }
}
