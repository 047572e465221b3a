//! Enters: values of a report. Leaves: numbers, texts and lists of them; nothing is there where the agent is of another
//! version.

use serde_json::Value;

/// The items of a list.
pub(in crate::io) fn list(value: &Value) -> impl Iterator<Item = &Value> {
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
}
