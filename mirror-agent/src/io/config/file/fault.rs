//! Enters: what is wrong with a configuration, one by one. Leaves: the list of it, as the user reads it.

use std::fmt;

use super::tree::Step;

/// Where something stands in a file; both count from 1.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Place {
    pub(super) line: u64,
    pub(super) column: u64,
}

/// One thing that is wrong.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Fault {
    place: Place,
    path: String,
    message: String,
}

impl Fault {
    /// Of the file as a whole.
    pub(super) const fn new(place: Place, message: String) -> Self {
        Self { place, path: String::new(), message }
    }

    /// Of one value.
    pub(super) fn of(path: &[Step], place: Place, message: String) -> Self {
        Self { place, path: written(path), message }
    }

    /// The line where it stands, from 1 on.
    #[must_use]
    pub const fn line(&self) -> u64 {
        self.place.line
    }

    /// The keys that lead to it, for instance `experiments[0].targets[1].url`; nothing where it is the whole file.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// What is wrong, and what would be right.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }
}

/// All that was found wrong with a configuration file; never nothing.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Faults {
    file: String,
    faults: Vec<Fault>,
}

impl Faults {
    pub(super) fn new(file: &str, mut faults: Vec<Fault>) -> Self {
        faults.sort_by_key(|fault| fault.place);
        Self { file: file.to_owned(), faults }
    }

    /// Each of them, in the order of the file.
    #[must_use]
    pub fn list(&self) -> &[Fault] {
        &self.faults
    }
}

impl fmt::Display for Faults {
    /// One a line: file, line and column, the keys that lead there, and what is wrong.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, Fault { place, path, message }) in self.faults.iter().enumerate() {
            let end = if number == 0 { "" } else { "\n" };
            write!(f, "{end}{}:{}:{}: ", self.file, place.line, place.column)?;
            if !path.is_empty() {
                write!(f, "{path}: ")?;
            }
            f.write_str(message)?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}

fn written(path: &[Step]) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            Step::Item(index) => text.push_str(&format!("[{index}]")),
            Step::Key(key) => {
                if !text.is_empty() {
                    text.push('.');
                }
                let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
                if key.bytes().all(is_plain) {
                    text.push_str(key);
                } else {
                    // Line feeds and the like must not break the message.
                    text.push_str(&format!("{key:?}"));
                }
            }
        }
    }
    text
}
