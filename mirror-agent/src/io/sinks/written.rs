//! Enters: the files of sinks, however they are spelled. Leaves: whether each is written to by one of them alone.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use super::{SinkError, check_sink, try_sink};
use crate::io::config::{SinkConfig, SinkPlace};

/// Files that are written to, by which more than the paths tell whether a sink's is another: two paths lead to one file by a
/// link, by another name of a folder, or from where the agent was started.
#[derive(Debug, Default)]
pub struct Written(Vec<(Identity, PathBuf)>);

/// What tells a file from others.
#[derive(Debug, Eq, PartialEq)]
enum Identity {
    /// Device and number of one that is there.
    There(u64, u64),
    /// Where one would be made.
    Missing(PathBuf),
}

impl Written {
    /// Those of others. Any that is not there is nobody's.
    pub fn of(paths: impl IntoIterator<Item = PathBuf>) -> Self {
        let there = paths.into_iter().filter(|path| path.exists());
        Self(there.filter_map(|path| Some((identity(&path)?, path))).collect())
    }

    /// Tries whether a sink can be written to, as [`try_sink`] does, and nobody else writes to its file.
    ///
    /// # Errors
    ///
    /// [`SinkError::Shared`], and those of [`try_sink`].
    pub fn claim(&mut self, config: &SinkConfig) -> Result<(), SinkError> {
        try_sink(config)?;
        self.note(config)
    }

    /// Takes a sink's file for it, as far as that can be told without opening it.
    ///
    /// # Errors
    ///
    /// [`SinkError::Shared`] and [`SinkError::NoKafka`].
    pub fn note(&mut self, config: &SinkConfig) -> Result<(), SinkError> {
        check_sink(config)?;
        let SinkPlace::File { path, .. } = &config.to else { return Ok(()) };
        let Some(identity) = identity(path) else { return Ok(()) };
        if let Some((_, other)) = self.0.iter().find(|(known, _)| *known == identity) {
            return Err(SinkError::Shared {
                sink: config.name.clone(),
                path: path.clone(),
                other: other.clone(),
            });
        }
        self.0.push((identity, path.clone()));
        Ok(())
    }
}

/// `None` for what is no regular file, such as `/dev/stdout`, which is never begun anew, so that several may append to it, and for
/// what no file can be made at.
fn identity(path: &Path) -> Option<Identity> {
    match fs::metadata(path) {
        Ok(meta) => meta.is_file().then(|| Identity::There(meta.dev(), meta.ino())),
        Err(_) => {
            let folder =
                path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            Some(Identity::Missing(fs::canonicalize(folder).ok()?.join(path.file_name()?)))
        }
    }
}
