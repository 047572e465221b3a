//! Enters: files and links. Leaves: a cpio archive in the format that the kernel unpacks as its first root (newc).

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::child;

/// An archive that grows.
#[derive(Debug, Default)]
pub(crate) struct Archive {
    bytes: Vec<u8>,
    entries: u32,
    there: BTreeSet<PathBuf>,
}

/// Types and permissions, as in `st_mode`.
const FOLDER: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const LINK: u32 = 0o120_777;

impl Archive {
    /// Adds a folder and those above it; one that is there already is no error.
    pub(crate) fn folder(&mut self, path: &str) -> Result<()> {
        let path = Path::new(path.trim_start_matches('/'));
        let mut above: Vec<&Path> = path.ancestors().filter(|path| !path.as_os_str().is_empty()).collect();
        above.reverse();
        for folder in above {
            if self.there.insert(folder.to_path_buf()) {
                self.entry(&folder.to_string_lossy(), FOLDER, &[])?;
            }
        }
        Ok(())
    }

    /// Adds a file that may be run. The first of a name stays.
    pub(crate) fn file(&mut self, path: &str, content: &[u8]) -> Result<()> {
        self.add(path, PROGRAM, content)
    }

    /// Adds a symbolic link.
    pub(crate) fn link(&mut self, path: &str, target: &str) -> Result<()> {
        self.add(path, LINK, target.as_bytes())
    }

    /// Adds a program of this machine under another path, with the libraries it loads under their own.
    pub(crate) fn program(&mut self, from: &Path, to: &str) -> Result<()> {
        self.file(to, &read(from)?)?;
        // A static program makes ldd fail, and needs nothing.
        let libraries = child::answer(Command::new("ldd").arg(from)).unwrap_or_default();
        for library in libraries.split_ascii_whitespace().filter(|word| word.starts_with('/')) {
            self.file(library, &read(Path::new(library))?)?;
        }
        Ok(())
    }

    /// Ends the archive.
    pub(crate) fn finish(mut self) -> Result<Vec<u8>> {
        self.entry("TRAILER!!!", 0, &[])?;
        Ok(self.bytes)
    }

    fn add(&mut self, path: &str, mode: u32, content: &[u8]) -> Result<()> {
        let path = path.trim_start_matches('/');
        if let Some(parent) = Path::new(path).parent() {
            self.folder(&parent.to_string_lossy())?;
        }
        if self.there.insert(PathBuf::from(path)) {
            self.entry(path, mode, content)?;
        }
        Ok(())
    }

    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) -> Result<()> {
        self.entries += 1;
        let size = u32::try_from(content.len()).with_context(|| format!("{name} is too large"))?;
        let name_size = u32::try_from(name.len() + 1).with_context(|| format!("{name} is too long"))?;
        // Inode, mode, owner, group, links, time, size, four numbers of devices, size of the name, checksum.
        let fields = [self.entries, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
        Ok(())
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::Archive;

    #[test]
    fn entries_are_padded_and_folders_come_before_what_is_in_them() {
        let mut archive = Archive::default();
        archive.file("/a/b", b"xyz").unwrap();
        archive.link("/a/c", "b").unwrap();
        archive.file("/a/b", b"again").unwrap();
        let bytes = archive.finish().unwrap();

        let text = String::from_utf8(bytes).unwrap();
        let starts: Vec<usize> = text.match_indices("070701").map(|(at, _)| at).collect();
        let names: Vec<&str> = starts.iter().map(|at| text[at + 110..].split('\0').next().unwrap()).collect();
        assert_eq!(names, ["a", "a/b", "a/c", "TRAILER!!!"]);
        assert!(starts.iter().all(|at| at % 4 == 0));
        assert!(text.contains("a/b\x00\x00\x00xyz\x00070701"), "{text}");
    }
}
