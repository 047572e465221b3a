//! Enters: two moments at which something expires, and those of the answers that say so. Leaves: whether it lasts as long.

use crate::pipeline::{
    calendar::{MONTHS, days},
    compare::looks,
};

/// What two equal answers may differ by, in seconds: a clock is read once for the moment and once for `date`, which a proxy may
/// write, and both are cut to whole seconds. Nobody lets anything expire so soon that more would matter.
const TOLERANCE: u64 = 10;

/// Whether what `expires` says is the same for two answers with these `dates`, each in seconds of [`seconds`]: the same moment,
/// as long after each answer, or over when it is given. Where a moment or a date cannot be read, it is enough that both look
/// like moments.
pub(super) fn same(expires: [&[u8]; 2], dates: [Option<u64>; 2]) -> bool {
    let [live, other] = expires;
    if live == other {
        return true;
    }
    let (Some(of_live), Some(of_other)) = (seconds(live), seconds(other)) else {
        return looks::is_timestamp(live) && looks::is_timestamp(other);
    };
    let [Some(live_date), Some(other_date)] = dates else { return true };
    if of_live.abs_diff(of_other) <= TOLERANCE {
        return true;
    }
    match (of_live.checked_sub(live_date), of_other.checked_sub(other_date)) {
        (None, None) => true,
        (Some(live), Some(other)) => live.abs_diff(other) <= TOLERANCE,
        _ => false,
    }
}

/// Whether two answers are stale from the same moment on, or from as long after their `dates`, as [`same`] has it. What is no
/// date, such as `0`, is in the past (RFC 9111 section 5.3).
pub(super) fn same_freshness(expires: [&[u8]; 2], dates: [Option<u64>; 2]) -> bool {
    match expires.map(seconds) {
        [None, None] => true,
        [Some(_), Some(_)] => same(expires, dates),
        [Some(moment), None] => dates[0].is_some_and(|date| moment <= date),
        [None, Some(moment)] => dates[1].is_some_and(|date| moment <= date),
    }
}

/// Seconds since an origin of its own, of a date as cookies and header fields have it, in any of its forms (RFC 6265 section
/// 5.1.1, of which RFC 9110 section 5.6.7 is a part): time, day, month and year in this order or with the year at the end.
pub(super) fn seconds(date: &[u8]) -> Option<u64> {
    let date = str::from_utf8(date).ok().filter(|date| date.len() <= LONGEST)?;
    let (mut time, mut day, mut month, mut year) = (None, None, None, None);
    for token in date.split(|char: char| !char.is_ascii_alphanumeric() && char != ':') {
        if token.contains(':') {
            time = time.or_else(|| of_day(token));
        } else if let Ok(number) = token.parse::<u64>() {
            if day.is_none() && token.len() <= 2 {
                day = Some(number);
            } else if year.is_none() && matches!(token.len(), 2 | 4) {
                year = Some(full_year(number, token.len())?);
            }
        } else if month.is_none() {
            month = token
                .get(..3)
                .and_then(|name| MONTHS.iter().position(|month| month.eq_ignore_ascii_case(name)));
        }
    }
    let month = u64::try_from(month?).ok()?.checked_add(1)?;
    days(year?, month, day?)?.checked_mul(86_400)?.checked_add(time?)
}

/// Longer ones are no dates.
const LONGEST: usize = 64;

/// Seconds of `HH:MM:SS`.
fn of_day(time: &str) -> Option<u64> {
    let mut parts = time.split(':').map(|part| part.parse::<u64>().ok());
    let (hours, minutes, seconds) = (parts.next()??, parts.next()??, parts.next()??);
    if hours > 23 || minutes > 59 || seconds > 60 {
        return None;
    }
    hours.checked_mul(3600)?.checked_add(minutes.checked_mul(60)?)?.checked_add(seconds)
}

/// RFC 6265 section 5.1.1, steps 3 and 4: years of two digits are from 1970 to 2069.
const fn full_year(number: u64, digits: usize) -> Option<u64> {
    match (digits, number) {
        (2, 0..=69) => number.checked_add(2000),
        (2, _) => number.checked_add(1900),
        _ => Some(number),
    }
}

#[cfg(test)]
mod tests {
    use super::{same, same_freshness, seconds};

    #[test]
    fn forms_of_a_date_are_the_same_moment() {
        let expected = seconds(b"Sun, 06 Nov 1994 08:49:37 GMT");
        assert!(expected.is_some());
        for date in [
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
            "Sun, 06-Nov-1994 08:49:37 GMT",
            "6 November 1994 08:49:37",
        ] {
            assert_eq!(seconds(date.as_bytes()), expected, "{date}");
        }
        for date in
            ["", "0", "-1", "Sun, 06 Nov 1994", "Sun, 06 Nov 1994 24:00:00 GMT", "1994-11-06T08:49:37Z"]
        {
            assert_eq!(seconds(date.as_bytes()), None, "{date}");
        }
    }

    #[test]
    fn what_counts_is_how_long_it_lasts() {
        let date = |time: &str| format!("Sat, 21 Nov 2026 {time} GMT");
        let gone = "Thu, 01 Jan 1970 00:00:00 GMT";
        for (live, other, live_date, other_date, is_same) in [
            (date("10:00:00"), date("10:00:40"), date("09:00:00"), date("09:00:39"), true),
            (date("10:00:00"), date("10:00:40"), date("09:00:00"), date("09:00:00"), false),
            (date("10:00:00"), date("11:00:00"), date("09:00:00"), date("09:00:00"), false),
            (date("10:00:00"), date("11:00:00"), String::new(), date("09:00:00"), true),
            (date("23:59:59"), date("23:59:59"), date("09:00:00"), date("09:10:00"), true),
            (gone.to_owned(), date("08:00:00"), date("09:00:00"), date("09:00:00"), true),
            (gone.to_owned(), date("10:00:00"), date("09:00:00"), date("09:00:00"), false),
            ("0".to_owned(), date("10:00:00"), date("09:00:00"), date("09:00:00"), false),
            ("1800000000".to_owned(), date("10:00:00"), date("09:00:00"), date("09:00:00"), true),
        ] {
            let dates = [&live_date, &other_date].map(|date| seconds(date.as_bytes()));
            assert_eq!(same([live.as_bytes(), other.as_bytes()], dates), is_same, "{live} {other}");
        }
    }

    #[test]
    fn what_is_no_date_is_in_the_past() {
        let date = |time: &str| format!("Sat, 21 Nov 2026 {time} GMT");
        for (live, other, dates, is_same) in [
            ("0", "-1", ["", ""], true),
            ("0", &date("09:00:00"), ["", &date("09:00:00")], true),
            ("0", &date("09:00:01"), [&date("09:00:01"), &date("09:00:00")], false),
            (&date("08:00:00"), "0", [&date("09:00:00"), ""], true),
            (&date("08:00:00"), "0", ["", &date("09:00:00")], false),
            (&date("09:01:00"), &date("10:01:00"), [&date("09:00:00"), &date("10:00:00")], true),
            (&date("09:01:00"), &date("10:02:00"), [&date("09:00:00"), &date("10:00:00")], false),
        ] {
            let moments = dates.map(|date| seconds(date.as_bytes()));
            assert_eq!(
                same_freshness([live.as_bytes(), other.as_bytes()], moments),
                is_same,
                "{live} {other}"
            );
        }
    }
}
