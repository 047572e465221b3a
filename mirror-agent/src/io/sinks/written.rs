//! Enters: the files of sinks, however they are spelled. Leaves: whether each is written to by one of them alone.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use super::{SinkError, try_sink};
use crate::io::config::{SinkConfig, SinkPlace};

/// Files that are written to, by which more than the paths tell whether a sink's is another: two paths lead to one file by a
/// link, by another name of a folder, or from where the agent was started.
#[derive(Debug, Default)]
pub struct Written(Vec<(Identity, PathBuf)>);

/// Device and number of a file.
type Identity = (u64, u64);

impl Written {
    /// Those of others. Any that is not there is nobody's.
    pub fn of(paths: impl IntoIterator<Item = PathBuf>) -> Self {
        Self(paths.into_iter().filter_map(|path| Some((identity(&path)?, path))).collect())
    }

    /// Tries whether a sink can be written to, as [`try_sink`] does, and nobody else writes to its file.
    ///
    /// # Errors
    ///
    /// [`SinkError::Shared`], and those of [`try_sink`].
    pub fn claim(&mut self, config: &SinkConfig) -> Result<(), SinkError> {
        try_sink(config)?;
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

/// `None` for what is no regular file, such as `/dev/stdout`: it is never begun anew, so that several may append to it.
fn identity(path: &Path) -> Option<Identity> {
    let meta = fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
    Some((meta.dev(), meta.ino()))
}
