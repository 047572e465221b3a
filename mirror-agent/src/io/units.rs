//! Enters: sizes, durations and points in time as people write them. Leaves: numbers, and the way back.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use thiserror::Error;

/// What is wrong with a quantity.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum UnitError {
    /// It does not start with a number.
    #[error("`{0}` does not start with a number")]
    NoNumber(String),
    /// There is no unit.
    #[error("`{text}` has no unit; add one of {allowed}")]
    NoUnit {
        /// The quantity as written.
        text: String,
        /// The units that are known.
        allowed: &'static str,
    },
    /// It is nothing.
    #[error("`{0}` is no time at all: nothing could be mirrored")]
    Zero(String),
    /// It is no percentage of anything.
    #[error("`{0}` is not a share: write a number of percent, more than 0 and at most 100, such as 50%")]
    NoPercent(String),
    /// The unit is unknown.
    #[error("`{unit}` is not a unit here; use one of {allowed}")]
    UnknownUnit {
        /// The unit as written.
        unit: String,
        /// The units that are known.
        allowed: &'static str,
    },
    /// It does not fit.
    #[error("`{0}` is too large")]
    TooLarge(String),
}

/// Parses a size in bytes: `4096`, `64Ki`, `16MiB`, `1G`. Units are binary with an `i` (1,024) and decimal without.
///
/// # Errors
///
/// All variants of [`UnitError`].
pub fn parse_size(text: &str) -> Result<u64, UnitError> {
    let (number, unit) = split(text)?;
    let factor: u64 = match unit.strip_suffix('B').unwrap_or(unit) {
        "" => 1,
        "k" | "K" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        _ => {
            return Err(UnitError::UnknownUnit { unit: unit.into(), allowed: "B, k, M, G, Ki, Mi, Gi" });
        }
    };
    number.checked_mul(factor).ok_or_else(|| UnitError::TooLarge(text.into()))
}

/// Parses a share in percent with its sign, such as `50%` or `2.5%`: more than 0 and at most 1.
///
/// # Errors
///
/// [`UnitError::NoPercent`].
pub fn parse_percent(text: &str) -> Result<f64, UnitError> {
    let percent = text.strip_suffix('%').and_then(|number| number.trim_end().parse::<f64>().ok());
    match percent {
        Some(percent) if percent > 0.0 && percent <= 100.0 => Ok(percent / 100.0),
        _ => Err(UnitError::NoPercent(text.into())),
    }
}

/// Parses a duration: `500ms`, `10s`, `2m`, `1h`, `7d`. A unit is required, and more than nothing.
///
/// # Errors
///
/// All variants of [`UnitError`].
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let (number, unit) = split(text)?;
    let millis: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        "" => return Err(UnitError::NoUnit { text: text.into(), allowed: "ms, s, m, h, d" }),
        _ => return Err(UnitError::UnknownUnit { unit: unit.into(), allowed: "ms, s, m, h, d" }),
    };
    if number == 0 {
        return Err(UnitError::Zero(text.into()));
    }
    number.checked_mul(millis).map(Duration::from_millis).ok_or_else(|| UnitError::TooLarge(text.into()))
}

/// Writes a size in bytes with the largest binary unit that leaves no rest.
#[must_use]
pub fn write_size(bytes: u64) -> String {
    let units = [(30, "Gi"), (20, "Mi"), (10, "Ki")];
    let unit = units.into_iter().find(|(shift, _)| bytes != 0 && bytes.is_multiple_of(1_u64 << shift));
    unit.map_or_else(|| bytes.to_string(), |(shift, unit)| format!("{}{unit}", bytes >> shift))
}

/// Writes a duration, to the millisecond, with the largest unit that leaves no rest.
#[must_use]
pub fn write_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")];
    let unit = units.into_iter().find(|(factor, _)| millis != 0 && millis.is_multiple_of(*factor));
    unit.map_or_else(|| format!("{millis}ms"), |(factor, unit)| format!("{}{unit}", millis / factor))
}

/// Parses a point in time of RFC 3339: `2027-01-31T00:00:00Z`, maybe with a fraction of a second, and with an offset such
/// as `+01:00` in place of the `Z`. `None` where it is none, or before 1970.
#[must_use]
pub fn parse_timestamp(text: &str) -> Option<SystemTime> {
    let (date, time) = text.split_once(['T', 't'])?;
    let [year, month, day] = fields(date, '-', [4, 2, 2])?;
    let sign = time.find(['Z', 'z', '+', '-'])?;
    let (time, offset) = time.split_at(sign);
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let [hour, minute, second] = fields(time, ':', [2, 2, 2])?;
    let offset_minutes = match offset.split_at(1) {
        ("Z" | "z", "") => 0,
        (sign, offset) => {
            let [hours, minutes] = fields(offset, ':', [2, 2])?;
            let is_offset = hours <= 23 && minutes <= 59;
            let ahead = i64::from(hours) * 60 + i64::from(minutes);
            is_offset.then_some(if sign == "-" { -ahead } else { ahead })?
        }
    };
    // RFC 3339 section 5.7: a second may be 60, which no clock of a computer knows.
    let is_time = hour <= 23 && minute <= 59 && second <= 60;
    if !is_time || !(1..=12).contains(&month) || !(1..=days_of(year, month)).contains(&day) {
        return None;
    }
    if !(1..=9).contains(&fraction.len()) || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let nanos = format!("{fraction:0<9}").parse().ok()?;
    let minutes = days_before(year, month, day) * 1440 + i64::from(hour) * 60 + i64::from(minute);
    let seconds = (minutes - offset_minutes) * 60 + i64::from(second);
    UNIX_EPOCH.checked_add(Duration::new(u64::try_from(seconds).ok()?, nanos))
}

/// Numbers of exactly so many digits, between separators.
fn fields<const N: usize>(text: &str, separator: char, digits: [usize; N]) -> Option<[u32; N]> {
    let mut numbers = [0; N];
    let mut parts = text.split(separator);
    for (number, digits) in numbers.iter_mut().zip(digits) {
        let part = parts.next()?;
        let is_number = part.len() == digits && part.bytes().all(|byte| byte.is_ascii_digit());
        *number = is_number.then(|| part.parse().ok())??;
    }
    parts.next().is_none().then_some(numbers)
}

const fn is_leap(year: u32) -> bool {
    (year.is_multiple_of(4) && !year.is_multiple_of(100)) || year.is_multiple_of(400)
}

const fn days_of(year: u32, month: u32) -> u32 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from the beginning of 1970 to this date; negative before.
fn days_before(year: u32, month: u32, day: u32) -> i64 {
    let leap_days = |year: i64| year / 4 - year / 100 + year / 400;
    let before = i64::from(year) - 1;
    let of_years = (i64::from(year) - 1970) * 365 + leap_days(before) - leap_days(1969);
    let of_months: i64 = (1..month).map(|month| i64::from(days_of(year, month))).sum();
    of_years + of_months + i64::from(day) - 1
}

fn split(text: &str) -> Result<(u64, &str), UnitError> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    if digits.is_empty() {
        return Err(UnitError::NoNumber(text.into()));
    }
    // Only digits are left, so the one thing that can go wrong is the size.
    let number = digits.parse().map_err(|_error| UnitError::TooLarge(text.into()))?;
    Ok((number, unit.trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_percentages_of_something() {
        assert_eq!((parse_percent("50%"), parse_percent("2.5 %")), (Ok(0.5), Ok(0.025)));
        for text in ["50", "0%", "-1%", "101%", "NaN%", "%", ""] {
            assert_eq!(parse_percent(text), Err(UnitError::NoPercent(text.into())));
        }
    }

    #[test]
    fn sizes_follow_kubernetes_and_people() {
        for (text, bytes) in [
            ("4096", 4096),
            ("64Ki", 65_536),
            ("16MiB", 16 << 20),
            ("16 Mi", 16 << 20),
            ("1G", 1_000_000_000),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "Mi", "-1", "1.5Mi", "16mib", "99999999999G", "99999999999999999999"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn points_in_time_are_those_of_rfc_3339() {
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2027-01-31T00:00:00Z", 1_801_353_600),
            ("2027-01-31t01:00:00+01:00", 1_801_353_600),
            ("2027-01-30T23:30:00-00:30", 1_801_353_600),
            ("2000-02-29T12:34:56Z", 951_827_696),
            ("2100-03-01T00:00:00Z", 4_107_542_400),
            ("9999-12-31T23:59:59Z", 253_402_300_799),
        ] {
            assert_eq!(parse_timestamp(text), Some(UNIX_EPOCH + Duration::from_secs(seconds)), "{text}");
        }
        let half = UNIX_EPOCH + Duration::from_millis(500);
        assert_eq!(parse_timestamp("1970-01-01T00:00:00.5Z"), Some(half));
        for text in [
            "",
            "T",
            "2027-01-31",
            "2027-01-31T00:00Z",
            "2027-01-31T00:00:00",
            "2027-1-31T00:00:00Z",
            "2027-02-29T00:00:00Z",
            "2027-13-01T00:00:00Z",
            "2027-00-01T00:00:00Z",
            "2027-01-31T24:00:00Z",
            "2027-01-31T00:00:00.Z",
            "1969-12-31T23:59:59Z",
            "2027-01-31T00:00:00ZZ",
            "2027-01-31T00:00:00é",
            "2027-01-31T00:00:00+é",
            "tomorrow",
        ] {
            assert_eq!(parse_timestamp(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        for (bytes, text) in
            [(0, "0"), (1000, "1000"), (65_536, "64Ki"), (256 << 20, "256Mi"), (3 << 30, "3Gi")]
        {
            assert_eq!((write_size(bytes).as_str(), parse_size(text)), (text, Ok(bytes)));
        }
        for (millis, text) in [
            (1, "1ms"),
            (1_500, "1500ms"),
            (5_000, "5s"),
            (120_000, "2m"),
            (3_600_000, "1h"),
            (604_800_000, "7d"),
        ] {
            let duration = Duration::from_millis(millis);
            assert_eq!((write_duration(duration).as_str(), parse_duration(text)), (text, Ok(duration)));
        }
    }

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("2m"), Ok(Duration::from_secs(120)));
        assert!(parse_duration("10").is_err());
        assert!(parse_duration("10 years").is_err());
        assert!(parse_duration("0s").is_err());
    }
}
