//! Enters: sizes, durations and shares as people write them. Leaves: numbers.

use std::time::Duration;

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

/// Parses a duration: `500ms`, `10s`, `2m`, `1h`. A unit is required, and more than nothing.
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
        "" => return Err(UnitError::NoUnit { text: text.into(), allowed: "ms, s, m, h" }),
        _ => return Err(UnitError::UnknownUnit { unit: unit.into(), allowed: "ms, s, m, h" }),
    };
    if number == 0 {
        return Err(UnitError::Zero(text.into()));
    }
    number.checked_mul(millis).map(Duration::from_millis).ok_or_else(|| UnitError::TooLarge(text.into()))
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
    fn durations_need_a_unit() {
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("2m"), Ok(Duration::from_secs(120)));
        assert!(parse_duration("10").is_err());
        assert!(parse_duration("10 years").is_err());
        assert!(parse_duration("0s").is_err());
    }
}
