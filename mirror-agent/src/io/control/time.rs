//! Enters: times as people write them. Leaves: times of the wall clock, and back.

use std::time::{Duration, SystemTime};

use jiff::{SignedDuration, Timestamp};

use crate::io::{config::Expiry, units::parse_duration};

/// RFC 3339 in UTC, to the millisecond.
#[must_use]
pub fn rfc3339(time: SystemTime) -> String {
    // A time beyond the year 9999 is that of a broken clock.
    let time = Timestamp::try_from(time).unwrap_or(Timestamp::MAX);
    format!("{time:.3}")
}

/// Parses when an experiment is to end: RFC 3339, a duration from `now` on such as `24h`, or `never`.
///
/// # Errors
///
/// It is none of these.
pub fn parse_expiry(text: &str, now: SystemTime) -> Result<Expiry, String> {
    if text == NEVER {
        return Ok(Expiry::Never);
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(Expiry::At(time.into()));
    }
    let from_now = parse_days(text).or_else(|| parse_duration(text).ok());
    from_now.and_then(|duration| now.checked_add(duration)).filter(is_in_calendar).map(Expiry::At).ok_or_else(
        || {
            format!(
                "`{text}`: expected a time such as 2027-01-31T00:00:00Z, a duration such as 24h or 7d, or `never`"
            )
        },
    )
}

/// Whether the time can be written in RFC 3339.
fn is_in_calendar(time: &SystemTime) -> bool {
    Timestamp::try_from(*time).is_ok()
}

fn parse_days(text: &str) -> Option<Duration> {
    let days: u64 = text.strip_suffix('d')?.parse().ok().filter(|days| *days > 0)?;
    days.checked_mul(24 * 60 * 60).map(Duration::from_secs)
}

/// An expiry as text: RFC 3339, or `never`.
#[must_use]
pub fn expiry_text(expires: Expiry) -> String {
    match expires {
        Expiry::Never => NEVER.to_owned(),
        Expiry::At(time) => rfc3339(time),
    }
}

/// How long it is until `time`, in words: `in 3d 4h`, `12m ago`.
#[must_use]
pub fn from_now(time: SystemTime, now: SystemTime) -> String {
    match time.duration_since(now) {
        Ok(left) => format!("in {}", in_words(left)),
        Err(gone) => format!("{} ago", in_words(gone.duration())),
    }
}

/// A duration by its two largest units.
#[must_use]
pub fn in_words(duration: Duration) -> String {
    let seconds = SignedDuration::try_from(duration).map_or(i64::MAX, |duration| duration.as_secs());
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m {}s", seconds % 60),
        (0, _, _) => format!("{hours}h {minutes}m"),
        _ => format!("{days}d {hours}h"),
    }
}

/// An expiry in JSON: text.
pub(super) mod expiry {
    use std::time::SystemTime;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use super::{Expiry, expiry_text, parse_expiry};

    pub(in crate::io::control) fn serialize<S: Serializer>(
        expires: &Expiry,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&expiry_text(*expires))
    }

    pub(in crate::io::control) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Expiry, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_expiry(&text, SystemTime::now()).map_err(D::Error::custom)
    }
}

const NEVER: &str = "never";

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SystemTime {
        text.parse::<Timestamp>().unwrap().into()
    }

    #[test]
    fn an_expiry_is_a_time_a_duration_or_never() {
        let now = at("2026-11-21T12:00:00Z");
        for (text, meant) in [
            ("2027-01-31T00:00:00Z", "2027-01-31T00:00:00.000Z"),
            ("2027-01-31T01:00:00+01:00", "2027-01-31T00:00:00.000Z"),
            ("24h", "2026-11-22T12:00:00.000Z"),
            ("7d", "2026-11-28T12:00:00.000Z"),
            ("90m", "2026-11-21T13:30:00.000Z"),
            ("never", "never"),
        ] {
            assert_eq!(expiry_text(parse_expiry(text, now).unwrap()), meant, "{text}");
        }
        for text in
            ["", "tomorrow", "24", "0d", "0h", "-1h", "2027-01-31", "99999999999h", "999999999999999999d"]
        {
            assert!(parse_expiry(text, now).is_err(), "{text}");
        }
    }

    #[test]
    fn a_time_is_said_by_its_two_largest_units() {
        let now = at("2026-11-21T12:00:00Z");
        for (time, said) in [
            ("2026-11-24T16:10:00Z", "in 3d 4h"),
            ("2026-11-21T14:10:09Z", "in 2h 10m"),
            ("2026-11-21T12:02:09Z", "in 2m 9s"),
            ("2026-11-21T11:59:59Z", "1s ago"),
        ] {
            assert_eq!(from_now(at(time), now), said);
        }
    }
}
