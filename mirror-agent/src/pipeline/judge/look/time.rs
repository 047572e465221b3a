//! Enters: a text. Leaves: the point in time that it says, in the forms that services answer with.

use crate::pipeline::calendar::{MONTHS, days};

/// Seconds since an origin of its own, for RFC 3339 (`2024-05-31T10:00:00.25+02:00`, with a space for the T, with or
/// without a zone) and for the dates of HTTP (`Fri, 31 May 2024 10:00:00 GMT`). Good for differences only.
pub(super) fn seconds(text: &str) -> Option<u64> {
    if text.len() > 40 || !text.is_ascii() {
        return None;
    }
    let (days, time) = iso(text).or_else(|| http(text))?;
    let mut parts = time.get(..8)?.split(':').map(|part| part.parse::<u64>().ok());
    let (hours, minutes, seconds) = (parts.next()??, parts.next()??, parts.next()??);
    let of_day = hours.checked_mul(3600)?.checked_add(minutes.checked_mul(60)?)?.checked_add(seconds)?;
    let local = days.checked_mul(86_400)?.checked_add(of_day)?;
    match time.get(8..)?.trim_start_matches(|char: char| char == '.' || char.is_ascii_digit()) {
        "" | "Z" | "z" | " GMT" | " UTC" => Some(local),
        zone => {
            let digits: String = zone.chars().filter(char::is_ascii_digit).collect();
            let offset: u64 = digits.get(..2)?.parse().ok()?;
            let offset = offset
                .checked_mul(3600)?
                .checked_add(digits.get(2..4)?.parse::<u64>().ok()?.checked_mul(60)?)?;
            if zone.starts_with('-') { local.checked_add(offset) } else { local.checked_sub(offset) }
        }
    }
}

fn iso(text: &str) -> Option<(u64, &str)> {
    let (date, time) = text.split_at_checked(10)?;
    let time = time.strip_prefix(['T', 't', ' '])?;
    let mut parts = date.splitn(3, '-').map(|part| part.parse::<u64>().ok());
    Some((days(parts.next()??, parts.next()??, parts.next()??)?, time))
}

fn http(text: &str) -> Option<(u64, &str)> {
    let (_, rest) = text.split_once(", ")?;
    let mut parts = rest.splitn(4, ' ');
    let day = parts.next()?.parse().ok()?;
    let name = parts.next()?;
    let month = MONTHS.iter().position(|month| *month == name)?;
    let year = parts.next()?.parse().ok()?;
    Some((days(year, u64::try_from(month).ok()?.checked_add(1)?, day)?, parts.next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_of_the_same_moment_agree() {
        let expected = seconds("2024-03-01T00:30:00Z");
        assert!(expected.is_some());
        for text in [
            "2024-03-01 00:30:00",
            "2024-03-01T00:30:00.123456Z",
            "2024-03-01T02:30:00+02:00",
            "2024-02-29T23:30:00-0100",
            "Fri, 01 Mar 2024 00:30:00 GMT",
        ] {
            assert_eq!(seconds(text), expected, "{text}");
        }
        for text in ["", "2024-03-01", "2024-13-01T00:00:00Z", "12:00:00", "2024-03-01T00:30:00 nowhere", "é"]
        {
            assert_eq!(seconds(text), None, "{text}");
        }
    }
}
