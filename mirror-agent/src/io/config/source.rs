//! Enters: the path of a configuration file. Leaves: the configuration that it means.

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
    time::SystemTime,
};

use super::{Config, Faults, parse};

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The file cannot be read.
    #[error("read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is larger than any configuration.
    #[error("{}: a configuration file has at most {limit} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The limit in bytes, which is allowed itself.
        limit: u64,
    },
    /// What is in it is no configuration.
    #[error(transparent)]
    Faults(#[from] Faults),
}

/// Reads a configuration file. An experiment that has expired at `now` is a fault; where that is `None`, as for an agent
/// that runs, it may have.
///
/// # Errors
///
/// All variants of [`LoadError`].
pub fn read(path: &Path, now: Option<SystemTime>) -> Result<Config, LoadError> {
    let failed = |source| LoadError::Read { path: path.to_owned(), source };
    let mut text = String::new();
    let file = File::open(path).map_err(failed)?;
    file.take(MAX_FILE_BYTES.saturating_add(1)).read_to_string(&mut text).map_err(failed)?;
    if u64::try_from(text.len()).is_ok_and(|len| len > MAX_FILE_BYTES) {
        return Err(LoadError::TooLarge { path: path.to_owned(), limit: MAX_FILE_BYTES });
    }
    Ok(parse(&text, &path.display().to_string(), now)?)
}

/// A ConfigMap holds no more.
const MAX_FILE_BYTES: u64 = 1024 * 1024;
