//! Enters: values of a report. Leaves: numbers, texts and lists of them; nothing is there where the agent is of another
//! version.

use serde_json::Value;

/// The items of a list.
pub(in crate::io) fn list(value: &Value) -> impl Iterator<Item = &Value> + Clone {
    value.as_array().into_iter().flatten()
}

/// A text.
pub(in crate::io) fn text_of(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// How a figure is written.
#[derive(Clone, Copy)]
pub(in crate::io) enum Unit {
    /// A share, in percent.
    Share,
    /// A multiple.
    Times,
    /// Seconds, in milliseconds.
    Seconds,
}

impl Unit {
    /// That of a check.
    pub(in crate::io) fn of_check(name: &str) -> Self {
        if name == "p95" { Self::Times } else { Self::Share }
    }

    /// A number in this unit.
    pub(in crate::io) fn write(self, number: f64) -> String {
        match self {
            Self::Share => format!("{:.2} %", number * 100.0),
            Self::Times => format!("{number:.2} ×"),
            Self::Seconds => format!("{:.1} ms", number * 1000.0),
        }
    }
}

/// A figure with its interval; a dash where there is none.
pub(in crate::io) fn figure(value: &Value, unit: Unit) -> String {
    let Some(point) = value["point"].as_f64() else { return "–".to_owned() };
    let end = |end: &Value| end.as_f64().map_or_else(|| "?".to_owned(), |end| unit.write(end));
    if value["low"].is_null() && value["high"].is_null() {
        return unit.write(point);
    }
    format!("{} ({} to {})", unit.write(point), end(&value["low"]), end(&value["high"]))
}

/// Numbers that are followed on one side: how many, their mean and median.
pub(super) fn numbers(value: &Value) -> String {
    let median = list(&value["quantiles"]).find(|quantile| quantile[0].as_f64() == Some(0.5));
    let [mean, median] = [&value["mean"], median.map_or(&Value::Null, |quantile| &quantile[1])].map(plain);
    format!("mean {mean}, median {median} ({})", count(&value["count"]))
}

/// By how much the means of a number that is followed differ, with the interval where there is one.
pub(super) fn difference(field: &Value) -> String {
    let [low, high] = ["lower", "upper"].map(|end| &field["difference_interval"][end]);
    let point = plain(&field["difference"]);
    if low.is_null() && high.is_null() {
        return point;
    }
    format!("{point} ({} to {})", plain(low), plain(high))
}

/// A number to four digits; a dash where there is none.
fn plain(value: &Value) -> String {
    let Some(number) = value.as_f64() else { return "–".to_owned() };
    if number == 0.0 {
        return "0".to_owned();
    }
    let digits = 3 - number.abs().log10().floor() as i32;
    if (0..=8).contains(&digits) {
        format!("{number:.*}", usize::try_from(digits).unwrap_or(0))
    } else if digits < 0 && number.abs() < 1e15 {
        format!("{number:.0}")
    } else {
        format!("{number:.3e}")
    }
}

/// A whole number with separators.
pub(in crate::io) fn count(value: &Value) -> String {
    let digits = value.as_u64().unwrap_or_default().to_string();
    let mut text = String::new();
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The texts of a list, separated by commas.
pub(in crate::io) fn joined(value: &Value) -> String {
    list(value).map(text_of).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn figures_are_written_in_their_units() {
        let share = json!({ "point": 0.0123, "low": 0.01, "high": null });
        assert_eq!(figure(&share, Unit::Share), "1.23 % (1.00 % to ?)");
        assert_eq!(figure(&json!({ "point": 1.5, "low": null, "high": null }), Unit::Times), "1.50 ×");
        assert_eq!(figure(&json!(null), Unit::Seconds), "–");
        assert_eq!(count(&json!(1_234_567)), "1,234,567");
        assert_eq!(count(&json!(12)), "12");
    }

    #[test]
    fn numbers_are_written_to_four_digits() {
        for (number, text) in [
            (0.0, "0"),
            (1.0, "1.000"),
            (-12.345_67, "-12.35"),
            (0.012_345, "0.01235"),
            (1_234_567.0, "1234567"),
            (1e-9, "1.000e-9"),
            (1e20, "1.000e20"),
        ] {
            assert_eq!(plain(&json!(number)), text);
        }
        let side = json!({ "count": 1001, "mean": 4.5, "quantiles": [[0.05, 1.0], [0.5, 4.0]] });
        assert_eq!(numbers(&side), "mean 4.500, median 4.000 (1,001)");
        let field = json!({ "difference": 0.5, "difference_interval": { "lower": 0.4, "upper": 0.6 } });
        assert_eq!(difference(&field), "0.5000 (0.4000 to 0.6000)");
        assert_eq!(difference(&json!({ "difference": null })), "–");
    }
}
