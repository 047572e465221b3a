//! Enters: an event. Leaves: its line, as text or as JSON.

use std::{
    error::Error,
    fmt::{self, Write as _},
    time::SystemTime,
};

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value};
use tracing::{
    Event, Level,
    field::{Field, Visit},
};

use super::Colors;
use crate::io::capture::kernel::causes;

/// Bytes of one value that are logged; the rest is cut off. The verifier's log of a refused program is the longest there
/// is, and what matters of it stands at its end, which the error at the agent's end tells whole.
const VALUE_BYTES: usize = 4096;

/// The field that says how many of the same kind were held back.
const SUPPRESSED: &str = "suppressed";

/// An event, read.
#[derive(Clone, Debug)]
pub(super) struct Line {
    time: SystemTime,
    level: Level,
    target: String,
    message: String,
    /// In the order in which they were given.
    fields: Vec<(&'static str, Value)>,
}

impl Line {
    /// Reads an event that happened at `time`.
    pub(super) fn read(event: &Event<'_>, time: SystemTime) -> Self {
        let metadata = event.metadata();
        let target = metadata.target().to_owned();
        let mut line =
            Self { time, level: *metadata.level(), target, message: String::new(), fields: Vec::new() };
        event.record(&mut line);
        line
    }

    /// A line that no event stands for.
    pub(super) fn new(target: &str, level: Level, message: &str, time: SystemTime) -> Self {
        Self { time, level, target: target.to_owned(), message: message.to_owned(), fields: Vec::new() }
    }

    /// Says how many of the same kind were held back since the last that was written.
    pub(super) fn with_suppressed(mut self, count: u64) -> Self {
        match self.fields.iter_mut().find(|(name, _)| *name == SUPPRESSED) {
            // It had counted some itself.
            Some((_, value)) => *value = value.as_u64().unwrap_or(0).saturating_add(count).into(),
            None if count > 0 => self.fields.push((SUPPRESSED, count.into())),
            None => {}
        }
        self
    }

    /// How many of the same kind it says were held back.
    #[cfg(test)]
    pub(super) fn suppressed(&self) -> u64 {
        let mut found = self.values_of(&[SUPPRESSED]);
        found.next().and_then(|(_, value)| value.as_u64()).unwrap_or(0)
    }

    /// The line with one more field.
    #[cfg(test)]
    pub(super) fn with_field(mut self, name: &'static str, value: &str) -> Self {
        self.fields.push((name, value.into()));
        self
    }

    /// Its fields of these names.
    pub(super) fn values_of<'l>(
        &'l self,
        names: &'l [&str],
    ) -> impl Iterator<Item = &'l (&'static str, Value)> {
        self.fields.iter().filter(|(name, _)| names.contains(name))
    }

    /// Appends the line with its line feed.
    pub(super) fn write_text(&self, colors: Colors, out: &mut Vec<u8>) {
        let level = self.level.as_str();
        let (on, off) = match colors {
            Colors::Plain => ("", ""),
            Colors::Terminal => (color(self.level), "\x1b[0m"),
        };
        let mut text = format!("{:.6} {on}{level:>5}{off} {}: ", self.timestamp(), self.target);
        push_printable(&mut text, &self.message);
        for (name, value) in &self.fields {
            text.push(' ');
            text.push_str(name);
            text.push('=');
            match value {
                Value::String(value) if value.is_empty() => text.push_str("\"\""),
                Value::String(value) => push_printable(&mut text, value),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
                    text.push_str(&value.to_string());
                }
            }
        }
        text.push('\n');
        out.extend_from_slice(text.as_bytes());
    }

    /// Appends the line with its line feed.
    pub(super) fn write_json(&self, out: &mut Vec<u8>) {
        #[derive(Serialize)]
        struct Object<'a> {
            time: String,
            level: &'a str,
            target: &'a str,
            message: &'a str,
            fields: Map<String, Value>,
        }

        let fields = self.fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        let object = Object {
            time: format!("{:.6}", self.timestamp()),
            level: self.level.as_str(),
            target: &self.target,
            message: &self.message,
            fields,
        };
        let begin = out.len();
        // Strings and numbers always fit into JSON; half a line would be worse than none.
        if serde_json::to_writer(&mut *out, &object).is_err() {
            out.truncate(begin);
            return;
        }
        out.push(b'\n');
    }

    fn timestamp(&self) -> Timestamp {
        Timestamp::try_from(self.time).unwrap_or_default()
    }

    fn put(&mut self, field: &Field, value: impl Into<Value>) {
        match (field.name(), value.into()) {
            ("message", Value::String(text)) => self.message = text,
            // What comes through the `log` crate, as the kernel program's log does, has its target in a field.
            ("log.target", Value::String(text)) => self.target = text,
            ("log.file" | "log.line" | "log.module_path", _) => {}
            (name, value) => self.fields.push((name, value)),
        }
    }
}

impl Visit for Line {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.record_str(field, &causes(value).join(": "));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut text = Cut::default();
        // An error says that it was cut, which is to be seen.
        write!(text, "{value:?}").unwrap_or_default();
        self.put(field, text.0);
    }
}

/// Text up to [`VALUE_BYTES`], and a sign behind it where there was more.
#[derive(Debug, Default)]
struct Cut(String);

impl fmt::Write for Cut {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let Self(kept) = self;
        let room = VALUE_BYTES.saturating_sub(kept.len());
        if text.len() <= room {
            kept.push_str(text);
            return Ok(());
        }
        if room > 0 {
            kept.push_str(text.get(..text.floor_char_boundary(room)).unwrap_or_default());
            kept.push('…');
        }
        Err(fmt::Error)
    }
}

/// Appends text with what could end the line, or steer a terminal, escaped.
fn push_printable(out: &mut String, text: &str) {
    for symbol in text.chars() {
        if symbol.is_control() {
            out.extend(symbol.escape_default());
        } else {
            out.push(symbol);
        }
    }
}

const fn color(level: Level) -> &'static str {
    match level {
        Level::ERROR => "\x1b[31m",
        Level::WARN => "\x1b[33m",
        Level::INFO => "\x1b[32m",
        Level::DEBUG => "\x1b[34m",
        Level::TRACE => "\x1b[35m",
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn line(fields: &[(&'static str, Value)]) -> Line {
        let mut line = Line::new(
            "mirror_agent::io::x",
            Level::WARN,
            "Something \"odd\".",
            UNIX_EPOCH + Duration::from_millis(1500),
        );
        line.fields = fields.to_vec();
        line
    }

    fn text(line: &Line) -> String {
        let mut out = Vec::new();
        line.write_text(Colors::Plain, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn text_is_one_line_whatever_is_in_its_values() {
        let line = line(&[
            ("error", "a\r\nERROR forged\u{1b}[2J".into()),
            ("records", 3.into()),
            ("name", "".into()),
        ]);
        assert_eq!(
            text(&line),
            "1970-01-01T00:00:01.500000Z  WARN mirror_agent::io::x: Something \"odd\". \
             error=a\\r\\nERROR forged\\u{1b}[2J records=3 name=\"\"\n"
        );
    }

    #[test]
    fn json_is_one_object_a_line_with_its_fields_inside() {
        let mut out = Vec::new();
        line(&[("message", "a\nb".into()), ("share", 0.5.into())]).with_suppressed(4).write_json(&mut out);
        let text = String::from_utf8(out).unwrap();
        assert_eq!((text.lines().count(), text.ends_with('\n')), (1, true));
        let object: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            object,
            serde_json::json!({
                "time": "1970-01-01T00:00:01.500000Z",
                "level": "WARN",
                "target": "mirror_agent::io::x",
                "message": "Something \"odd\".",
                "fields": {"message": "a\nb", "share": 0.5, "suppressed": 4},
            })
        );
    }

    #[test]
    fn long_value_is_cut_between_characters() {
        for length in [VALUE_BYTES - 1, VALUE_BYTES, VALUE_BYTES + 1, 10 * VALUE_BYTES] {
            let mut kept = Cut::default();
            let whole = "é".repeat(length / 2) + &"x".repeat(length % 2);
            assert_eq!(write!(kept, "{whole}").is_ok(), length <= VALUE_BYTES);
            assert!(
                kept.0.len() <= VALUE_BYTES + '…'.len_utf8()
                    && kept.0.ends_with('…') == (length > VALUE_BYTES)
            );
            let before = kept.0.len();
            assert_eq!(write!(kept, "é").is_ok(), length < VALUE_BYTES - 1);
            assert!(kept.0.len() <= before.max(VALUE_BYTES) + '…'.len_utf8());
        }
    }

    #[test]
    fn what_was_counted_elsewhere_already_is_added() {
        let line = line(&[(SUPPRESSED, 3.into())]).with_suppressed(4);
        assert_eq!(line.fields, [(SUPPRESSED, Value::from(7))]);
    }
}
