//! Enters: whole lines. Leaves: a file of bounded size, and the ones before it as FILE.1, FILE.2 and so on.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use tracing::warn;

/// Lines that are not in the file, and why.
#[derive(Debug)]
pub(in crate::io) struct Loss {
    pub(in crate::io) records: u64,
    pub(in crate::io) error: io::Error,
}

/// A file that is begun anew when it is full. Where the path is no regular file (`/dev/stdout`) it is only appended to.
#[derive(Debug)]
pub(in crate::io) struct RotatingFile {
    path: PathBuf,
    /// Bytes that a file has at most, but for a single line that is longer.
    max_size: u64,
    /// How many full ones are kept.
    keep: u32,
    open: Open,
}

#[derive(Debug)]
struct Open {
    file: File,
    /// Bytes in it; `None` for no regular file.
    size: Option<u64>,
    /// Device and number of the file, by which it is known to be still there.
    identity: (u64, u64),
}

impl RotatingFile {
    /// Opens the file, which only its owner can read if it does not exist yet.
    pub(in crate::io) fn open(path: &Path, max_size: u64, keep: u32) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), max_size, keep, open: Open::new(path)? })
    }

    /// Takes note that somebody else has written to it.
    pub(in crate::io) fn look_again(&mut self) {
        // Where it cannot be opened now, the next line that is written says so.
        if let Ok(open) = Open::new(&self.path) {
            self.open = open;
        }
    }

    /// Appends lines, each with its end. A line is never divided between two files, and none is left half written.
    pub(in crate::io) fn write_lines(&mut self, mut lines: &[u8]) -> Result<(), Loss> {
        let loss = |lines: &[u8], error| Loss { records: count(lines), error };
        if !lines.is_empty() && self.open.is_moved(&self.path) {
            self.open = Open::new(&self.path).map_err(|error| loss(lines, error))?;
        }
        while !lines.is_empty() {
            let mut room = self.room();
            let mut fitting = whole_lines(lines, room);
            if fitting == 0 && self.open.size != Some(0) {
                self.rotate().map_err(|error| loss(lines, error))?;
                room = self.room();
                fitting = whole_lines(lines, room);
            }
            // A line that is longer than a file may be has one to itself.
            let end = if fitting == 0 { first_line(lines) } else { fitting };
            let (now, later) = lines.split_at(end);
            self.open
                .append(now)
                .map_err(|(written, error)| loss(lines.get(written..).unwrap_or_default(), error))?;
            lines = later;
        }
        Ok(())
    }

    fn room(&self) -> usize {
        let Some(size) = self.open.size else { return usize::MAX };
        usize::try_from(self.max_size.saturating_sub(size)).unwrap_or(usize::MAX)
    }

    /// FILE becomes FILE.1, that becomes FILE.2, and the last one goes.
    fn rotate(&mut self) -> io::Result<()> {
        let numbered = |number: u32| {
            let mut name = OsString::from(&self.path);
            name.push(format!(".{number}"));
            PathBuf::from(name)
        };
        for number in (1..self.keep).rev() {
            match fs::rename(numbered(number), numbered(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    warn!(%error, "A full file could not be renamed.");
                }
                Ok(()) | Err(_) => {}
            }
        }
        if self.keep == 0 {
            fs::remove_file(&self.path)?;
        } else {
            fs::rename(&self.path, numbered(1))?;
        }
        self.open = Open::new(&self.path)?;
        Ok(())
    }
}

impl Open {
    fn new(path: &Path) -> io::Result<Self> {
        // Else a named pipe that nobody reads from would hold up whoever opens it: that is an error, too.
        let nonblocking = OFlags::NONBLOCK.bits().cast_signed();
        let file =
            OpenOptions::new().append(true).create(true).mode(0o600).custom_flags(nonblocking).open(path)?;
        // Whoever writes is a thread that may wait.
        fcntl_setfl(&file, fcntl_getfl(&file)? - OFlags::NONBLOCK)?;
        let meta = file.metadata()?;
        let size = meta.is_file().then_some(meta.len());
        Ok(Self { file, size, identity: (meta.dev(), meta.ino()) })
    }

    /// Whether somebody moved or removed the file, as logrotate does. One that cannot be looked at is still there.
    fn is_moved(&self, path: &Path) -> bool {
        match fs::metadata(path) {
            Ok(meta) => (meta.dev(), meta.ino()) != self.identity,
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        }
    }

    /// Appends; on failure tells how many bytes of whole lines are in the file all the same.
    fn append(&mut self, lines: &[u8]) -> Result<(), (usize, io::Error)> {
        let mut written = 0;
        let failed = loop {
            match self.file.write(lines.get(written..).unwrap_or_default()) {
                Ok(_) if written == lines.len() => break None,
                Ok(0) => break Some(io::ErrorKind::WriteZero.into()),
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Some(error),
            }
            if written == lines.len() {
                break None;
            }
        };
        let Some(error) = failed else {
            self.grow(written);
            return Ok(());
        };
        let whole = whole_lines(lines, written);
        self.grow(whole);
        if whole != written
            && let Some(size) = self.size
        {
            // What was written of a line that does not fit would make it unreadable together with the next one.
            if let Err(error) = self.file.set_len(size) {
                warn!(%error, "Half a record is in the file.");
            }
        }
        Err((whole, error))
    }

    fn grow(&mut self, bytes: usize) {
        self.size = self.size.map(|size| size.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX)));
    }
}

/// Length of the whole lines within the first `limit` bytes.
fn whole_lines(lines: &[u8], limit: usize) -> usize {
    let within = lines.get(..limit).unwrap_or(lines);
    within.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1)
}

/// Length of the first line.
fn first_line(lines: &[u8]) -> usize {
    lines.iter().position(|byte| *byte == b'\n').map_or(lines.len(), |end| end + 1)
}

fn count(lines: &[u8]) -> u64 {
    u64::try_from(lines.iter().filter(|byte| **byte == b'\n').count()).unwrap_or(u64::MAX)
}
