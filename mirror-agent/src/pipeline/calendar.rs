//! Enters: a date. Leaves: its number, by which dates are subtracted.

/// The months as dates of HTTP and of mail write them (RFC 9110 section 5.6.7).
pub(crate) const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Days since the first of March of the year 0 in the Gregorian calendar, whose leap day so is the last of a year. Good for
/// differences only. `None` for what is no date; a day that the month has not is taken for one of the next.
pub(crate) fn days(year: u64, month: u64, day: u64) -> Option<u64> {
    if !(1..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let (year, month) =
        if month > 2 { (year, month.checked_sub(3)?) } else { (year.checked_sub(1)?, month.checked_add(9)?) };
    let leap = (year / 4).checked_sub(year / 100)?.checked_add(year / 400)?;
    let before = month.checked_mul(153)?.checked_add(2)? / 5;
    year.checked_mul(365)?.checked_add(leap)?.checked_add(before)?.checked_add(day)
}

#[cfg(test)]
mod tests {
    use super::days;

    #[test]
    fn dates_are_as_far_apart_as_they_are() {
        for (earlier, later, apart) in [
            ((1970, 1, 1), (1970, 1, 2), 1),
            ((2024, 2, 28), (2024, 3, 1), 2),
            ((2023, 2, 28), (2023, 3, 1), 1),
            ((1900, 2, 28), (1900, 3, 1), 1),
            ((1970, 1, 1), (2026, 11, 21), 20_778),
        ] {
            let [from, to] = [earlier, later].map(|(year, month, day)| days(year, month, day).unwrap());
            assert_eq!(to - from, apart, "{earlier:?} to {later:?}");
        }
        for (year, month, day) in [(0, 1, 1), (2026, 0, 1), (2026, 13, 1), (2026, 1, 0), (2026, 1, 32)] {
            assert_eq!(days(year, month, day), None);
        }
    }
}
