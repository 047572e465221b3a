//! Enters: the two values of a divergence. Leaves: what they look like: something generated, or not.
//!
//! What differs because it was made at random or by the clock looks so on both sides. Looks are part of where a
//! divergence counts: the last bit of a number is noise beside which a wrong fourth decimal of the same number is still
//! found.

mod time;

use super::endpoint::is_uuid;
use crate::pipeline::{
    compare::Divergence,
    reason::{DivergenceKind, reasons},
};

reasons! {
    /// What the two values of a divergence look like.
    Look {
        /// Nothing in particular, or only one side has a value.
        Plain => "plain",
        /// Two numbers.
        Number => "number",
        /// Two numbers that differ in their last bits.
        LastBits => "last_bits",
        /// Two points in time close to each other.
        Timestamp => "timestamp",
        /// Two UUIDs.
        Uuid => "uuid",
        /// The same but for what is numbered, hashed or drawn at random: hosts, tokens, cursors.
        Identifier => "identifier",
        /// The same elements in another order.
        Order => "order",
    }
}

impl Look {
    /// What the values of a divergence look like.
    pub(super) fn of(divergence: &Divergence) -> Self {
        match divergence.kind {
            DivergenceKind::Order => return Self::Order,
            DivergenceKind::Value | DivergenceKind::Header => {}
            DivergenceKind::Type
            | DivergenceKind::Missing
            | DivergenceKind::Extra
            | DivergenceKind::Length
            | DivergenceKind::Status => return Self::Plain,
        }
        match (&divergence.live, &divergence.other) {
            (Some(live), Some(other)) => Self::of_values(unquoted(live), unquoted(other)),
            (_, None) | (None, _) => Self::Plain,
        }
    }

    fn of_values(live: &str, other: &str) -> Self {
        if let (Ok(live), Ok(other)) = (live.parse::<f64>(), other.parse::<f64>()) {
            // Nothing is near to infinity, which stands for a number that went wrong.
            let are_finite = live.is_finite() && other.is_finite();
            return if are_finite { Self::of_numbers(live, other) } else { Self::Plain };
        }
        if is_uuid(live.as_bytes()) && is_uuid(other.as_bytes()) {
            return Self::Uuid;
        }
        if let (Some(live), Some(other)) = (time::seconds(live), time::seconds(other)) {
            return if live.abs_diff(other) <= CLOSE_SECONDS { Self::Timestamp } else { Self::Plain };
        }
        let is_alnum = |byte: u8| byte.is_ascii_alphanumeric();
        let is_wide = |byte: u8| is_alnum(byte) || matches!(byte, b'-' | b'_');
        let is_widest = |byte: u8| is_wide(byte) || matches!(byte, b'+' | b'/' | b'=' | b'.');
        let is_identifier = differ_only_in(live, other, is_alnum, is_hex_run)
            || (is_host(live) && is_host(other) && differ_only_in(live, other, is_alnum, is_numbered))
            || differ_only_in(live, other, is_alnum, is_random)
            || differ_only_in(live, other, is_wide, is_random)
            || differ_only_in(live, other, is_widest, is_random);
        if is_identifier { Self::Identifier } else { Self::Plain }
    }

    fn of_numbers(live: f64, other: f64) -> Self {
        let apart = (live - other).abs();
        if apart <= live.abs().max(other.abs()) * LAST_BITS {
            return Self::LastBits;
        }
        let is_time = EPOCH_UNITS.iter().any(|unit| {
            let now = EPOCH_FROM * unit..EPOCH_TO * unit;
            now.contains(&live) && now.contains(&other) && apart <= CLOSE_SECONDS as f64 * unit
        });
        if is_time { Self::Timestamp } else { Self::Number }
    }
}

/// Largest relative difference of two numbers that are the same but for rounding in another order.
pub(super) const LAST_BITS: f64 = 1e-12;

/// Points in time further apart than this are no noise: an hour is a wrong time zone.
pub(super) const CLOSE_SECONDS: u64 = 600;

/// Seconds since the epoch that are taken for a point in time: 2001 to 2096.
const EPOCH_FROM: f64 = 1e9;
const EPOCH_TO: f64 = 4e9;

/// Seconds, milliseconds, microseconds, nanoseconds.
pub(super) const EPOCH_UNITS: [f64; 4] = [1.0, 1e3, 1e6, 1e9];

/// The value of a JSON string, near enough.
pub(super) fn unquoted(text: &str) -> &str {
    text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text)
}

/// Whether both consist of the same runs of `is_part` with the same between them, but for runs that pass `is_made`, of
/// which there is at least one.
fn differ_only_in(
    live: &str,
    other: &str,
    is_part: impl Fn(u8) -> bool,
    is_made: impl Fn(&str) -> bool,
) -> bool {
    let (mut live, mut other) = (live, other);
    let mut differ = false;
    while !live.is_empty() || !other.is_empty() {
        let split = |text: &str, wants_part: bool| {
            text.bytes().position(|byte| is_part(byte) != wants_part).unwrap_or(text.len())
        };
        let (live_between, live_rest) = live.split_at_checked(split(live, false)).unwrap_or((live, ""));
        let (other_between, other_rest) = other.split_at_checked(split(other, false)).unwrap_or((other, ""));
        if live_between != other_between {
            return false;
        }
        let (live_run, live_rest) = live_rest.split_at_checked(split(live_rest, true)).unwrap_or(("", ""));
        let (other_run, other_rest) =
            other_rest.split_at_checked(split(other_rest, true)).unwrap_or(("", ""));
        if live_run != other_run {
            if !is_made(live_run) || !is_made(other_run) {
                return false;
            }
            differ = true;
        }
        (live, other) = (live_rest, other_rest);
    }
    differ
}

fn is_hex_run(run: &str) -> bool {
    run.len() >= 8 && run.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// What tells instances of a name apart: `3`, `a1`, `7f9c6d`.
fn is_numbered(run: &str) -> bool {
    run.len() <= 12 && run.bytes().any(|byte| byte.is_ascii_digit())
}

/// The name of a host, not a sentence, a number or a price: one word with a letter and something that sets it off.
fn is_host(text: &str) -> bool {
    let is_named = text.bytes().any(|byte| byte.is_ascii_alphabetic());
    let is_address = text.split('.').count() == 4 && text.split('.').all(|part| part.parse::<u8>().is_ok());
    (is_named || is_address)
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b':'))
}

/// Long, and with characters of two classes at least.
fn is_random(run: &str) -> bool {
    let classes = [u8::is_ascii_digit, u8::is_ascii_uppercase, u8::is_ascii_lowercase];
    run.len() >= 12 && classes.iter().filter(|class| run.bytes().any(|byte| class(&byte))).count() >= 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_values_are_told_from_others() {
        for (live, other, expected) in [
            ("0.30000000000000004", "0.3", Look::LastBits),
            ("0.5", "Infinity", Look::Plain),
            ("NaN", "0.5", Look::Plain),
            ("1e400", "1", Look::Plain),
            ("0.10005", "0.1001", Look::Number),
            ("3", "4", Look::Number),
            ("1717150000", "1717150003", Look::Timestamp),
            ("1717150000123", "1717150003456", Look::Timestamp),
            ("1717150000", "1717160000", Look::Number),
            ("\"2024-05-31T10:00:00Z\"", "\"2024-05-31T10:00:01.5Z\"", Look::Timestamp),
            ("\"2024-05-31T10:00:00Z\"", "\"2024-05-31T11:00:00Z\"", Look::Plain),
            ("Fri, 31 May 2024 10:00:00 GMT", "Fri, 31 May 2024 10:00:02 GMT", Look::Timestamp),
            (
                "\"0d4fbb2e-7b7a-4a4e-9a43-3c50c3d2b3a1\"",
                "\"1d4fbb2e-7b7a-4a4e-9a43-3c50c3d2b3a1\"",
                Look::Uuid,
            ),
            ("W/\"9f86d081\"", "W/\"60303ae2\"", Look::Identifier),
            ("sid=9f86d0811; Path=/", "sid=60303ae22; Path=/", Look::Identifier),
            ("sid=9f86d0811; Path=/", "sid=60303ae22; Path=/; Secure", Look::Plain),
            ("\"eyJpZCI6MTIzfQ==\"", "\"eyJpZCI6OTk5fQ==\"", Look::Identifier),
            ("\"aGVsbG8/d29ybGQ+\"", "\"Z29vZGJ5ZS93b3Js\"", Look::Identifier),
            ("req-0d4fbb2e-7b7a-4a4e", "req-1a2bbb2e-9999-4a4e", Look::Identifier),
            ("\"shop-1\"", "\"shop-12\"", Look::Identifier),
            ("10.0.0.4", "10.0.0.17", Look::Identifier),
            ("EUR 12.50", "EUR 12.51", Look::Plain),
            ("\"shipped\"", "\"delivered\"", Look::Plain),
            ("hello world", "hello there", Look::Plain),
            ("é8", "é9", Look::Plain),
            ("true", "false", Look::Plain),
        ] {
            let found = Look::of_values(unquoted(live), unquoted(other));
            assert_eq!(found, expected, "{live} {other}");
            assert_eq!(Look::of_values(unquoted(other), unquoted(live)), expected, "{other} {live}");
        }
    }
}
