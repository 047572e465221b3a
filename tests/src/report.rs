//! Enters: figures. Leaves: tables of them, as text, Markdown and JSON.

use std::fmt;

use serde_json::{Value, json};

/// What a cell of a table holds.
#[derive(Clone, Debug)]
pub enum Cell {
    /// Words.
    Text(String),
    /// A figure: median of the rounds, and the least and the most of them.
    Figure(Figure),
    /// There is no such figure.
    None,
}

/// Median, least and most of a figure over the rounds.
#[derive(Clone, Copy, Debug)]
pub struct Figure {
    /// The value in the middle.
    pub median: f64,
    /// The smallest.
    pub least: f64,
    /// The largest.
    pub most: f64,
}

impl Figure {
    /// Of the values of all rounds; `None` where there are none.
    #[must_use]
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values = values.into_iter().filter(|value| value.is_finite()).collect::<Vec<_>>();
        values.sort_by(f64::total_cmp);
        let (least, most) = (*values.first()?, *values.last()?);
        let upper = *values.get(values.len() / 2)?;
        let lower = *values.get((values.len() - 1) / 2)?;
        Some(Self { median: f64::midpoint(lower, upper), least, most })
    }
}

impl From<f64> for Cell {
    fn from(value: f64) -> Self {
        Self::Figure(Figure { median: value, least: value, most: value })
    }
}

impl From<Figure> for Cell {
    fn from(figure: Figure) -> Self {
        Self::Figure(figure)
    }
}

impl<T: Into<Self>> From<Option<T>> for Cell {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::None, Into::into)
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [median, least, most] = [self.median, self.least, self.most].map(number);
        if least == most {
            formatter.write_str(&median)
        } else {
            write!(formatter, "{median} ({least}–{most})")
        }
    }
}

impl Cell {
    fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::None => "–".to_owned(),
            Self::Figure(figure) => figure.to_string(),
        }
    }

    fn json(&self) -> Value {
        match self {
            Self::Text(text) => json!(text),
            Self::None => Value::Null,
            Self::Figure(Figure { median, least, most }) => {
                json!({ "median": median, "least": least, "most": most })
            }
        }
    }
}

/// Three digits that count or more, without an exponent.
#[must_use]
pub fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 || value == value.trunc() => format!("{value:.0}"),
        size if size >= 0.1 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

/// One table.
#[derive(Debug)]
pub struct Table {
    /// Its name in JSON.
    pub name: &'static str,
    /// What it shows.
    pub title: String,
    /// How it was measured, and what must be known to read it.
    pub notes: Vec<String>,
    /// Heads of the columns, with the unit.
    pub columns: Vec<&'static str>,
    /// The rows, each as long as `columns`.
    pub rows: Vec<Vec<Cell>>,
}

impl Table {
    /// A table without rows.
    #[must_use]
    pub fn new(name: &'static str, title: impl Into<String>, columns: &[&'static str]) -> Self {
        Self { name, title: title.into(), notes: Vec::new(), columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Adds a note.
    pub fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    /// As text for the terminal.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = format!("\n{}\n", self.title);
        let rows = self.rows.iter().map(|row| row.iter().map(Cell::text).collect::<Vec<_>>());
        let head = self.columns.iter().map(|&title| title.to_owned()).collect::<Vec<_>>();
        let lines = [head].into_iter().chain(rows).collect::<Vec<_>>();
        let width = |column| {
            lines
                .iter()
                .filter_map(|line| line.get(column))
                .map(|cell: &String| cell.chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths = (0..self.columns.len()).map(width).collect::<Vec<_>>();
        for (index, line) in lines.iter().enumerate() {
            let cells = line.iter().zip(&widths).map(|(cell, &width)| format!("{cell:<width$}"));
            let line = cells.collect::<Vec<_>>().join("  ");
            text += &format!("  {}\n", line.trim_end());
            if index == 0 {
                let rule = widths.iter().map(|&width| "-".repeat(width)).collect::<Vec<_>>().join("  ");
                text += &format!("  {rule}\n");
            }
        }
        for note in &self.notes {
            text += &format!("  {note}\n");
        }
        text
    }

    fn markdown(&self) -> String {
        let mut text = format!("**{}**\n\n| {} |\n|", self.title, self.columns.join(" | "));
        text += &" --- |".repeat(self.columns.len());
        text.push('\n');
        for row in &self.rows {
            let cells = row.iter().map(|cell| cell.text().replace('|', "\\|")).collect::<Vec<_>>();
            text += &format!("| {} |\n", cells.join(" | "));
        }
        for note in &self.notes {
            text += &format!("\n{note}\n");
        }
        text
    }

    fn json(&self) -> Value {
        let row = |row: &Vec<Cell>| {
            self.columns
                .iter()
                .zip(row)
                .map(|(title, cell)| ((*title).to_owned(), cell.json()))
                .collect::<Value>()
        };
        json!({
            "name": self.name,
            "title": self.title,
            "notes": self.notes,
            "rows": self.rows.iter().map(row).collect::<Vec<_>>(),
        })
    }
}

/// A figure that was promised.
#[derive(Debug)]
pub struct Mark {
    /// What was promised.
    pub promise: String,
    /// What was found.
    pub found: String,
    /// Whether the promise was kept.
    pub is_kept: bool,
}

/// All that a run of the bench found out.
#[derive(Debug, Default)]
pub struct Report {
    /// What the figures hold for.
    pub machine: String,
    /// The tables, in order.
    pub tables: Vec<Table>,
    /// The marks, in order.
    pub marks: Vec<Mark>,
}

impl Report {
    /// The marks as a table.
    #[must_use]
    pub fn marks_table(&self) -> Table {
        let mut table = Table::new("marks", "Marks", &["mark", "found", ""]);
        for mark in &self.marks {
            let verdict = if mark.is_kept { "pass" } else { "FAIL" };
            table.rows.push(vec![mark.promise.as_str().into(), mark.found.as_str().into(), verdict.into()]);
        }
        table
    }

    /// As Markdown.
    #[must_use]
    pub fn markdown(&self) -> String {
        let mut text = format!("{}\n", self.machine);
        let marks = (!self.marks.is_empty()).then(|| self.marks_table());
        for table in self.tables.iter().chain(&marks) {
            text += &format!("\n{}", table.markdown());
        }
        text
    }

    /// As JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        let mark = |mark: &Mark| json!({ "mark": mark.promise, "found": mark.found, "kept": mark.is_kept });
        json!({
            "machine": self.machine,
            "tables": self.tables.iter().map(Table::json).collect::<Vec<_>>(),
            "marks": self.marks.iter().map(mark).collect::<Vec<_>>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_of_an_even_number_of_rounds_lies_between_the_middle_two() {
        let figure = Figure::of([4.0, f64::NAN, 1.0, 2.0, 100.0]).unwrap();
        assert_eq!((figure.median, figure.least, figure.most), (3.0, 1.0, 100.0));
        assert!(Figure::of([]).is_none());
    }

    #[test]
    fn tables_say_the_same_in_every_form() {
        let mut table = Table::new("name", "Title", &["what", "ms"]);
        table.rows.push(vec!["a|b".into(), Figure::of([1.0, 2.5]).into()]);
        table.rows.push(vec!["none".into(), Cell::None]);
        let text = table.text();
        assert!(text.contains("  a|b   1.75 (1–2.50)\n  none  –\n"), "{text}");
        assert!(table.markdown().contains("| a\\|b | 1.75 (1–2.50) |\n| none | – |\n"));
        assert_eq!(table.json()["rows"][0]["ms"]["median"], 1.75);
        assert!(table.json()["rows"][1]["ms"].is_null());
    }
}
