//! Enters: the path of the configuration file. Leaves: its text, at the start, whenever it is another, and when asked for.
//!
//! The file is read again and again rather than watched: only its content tells, also where it is a link that is turned
//! to another file (as a ConfigMap is), or a mount of that file alone, of which nobody is notified.

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{Notify, mpsc},
    task::spawn_blocking,
    time::{MissedTickBehavior, interval, sleep},
};

use crate::io::audit::Who;

/// How often the file is read.
const POLL_INTERVAL: Duration = Duration::from_secs(2);

/// A file that was found changed is read once more after this time: it may have been in the middle of being written.
const SETTLE_TIME: Duration = Duration::from_millis(100);

/// A configuration file holds less. It is as much as a ConfigMap can.
const MAX_BYTES: u64 = 1024 * 1024;

/// What was read.
#[derive(Debug)]
pub(super) struct Reading {
    /// Who asked.
    pub(super) who: Who,
    /// The text.
    pub(super) text: io::Result<String>,
    /// Whether it is the first: it may well be what was loaded at the start.
    pub(super) is_first: bool,
}

/// The way to the task that reads: task --readings--> owner.
#[derive(Debug)]
pub(super) struct Source {
    readings: mpsc::Receiver<Reading>,
    ask: Arc<Notify>,
}

impl Source {
    /// Starts to read.
    pub(super) fn watch(path: PathBuf) -> Self {
        let (reading_tx, readings) = mpsc::channel(1);
        let ask = Arc::<Notify>::default();
        tokio::spawn(watch(path, reading_tx, Arc::clone(&ask)));
        Self { readings, ask }
    }

    /// The next reading.
    pub(super) async fn next(&mut self) -> Option<Reading> {
        self.readings.recv().await
    }

    /// Has the file read now.
    pub(super) fn ask(&self) {
        self.ask.notify_one();
    }
}

async fn watch(path: PathBuf, reading_tx: mpsc::Sender<Reading>, ask: Arc<Notify>) {
    let mut polls = interval(POLL_INTERVAL);
    polls.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut known: Option<String> = None;
    let mut has_failed = false;
    let mut is_first = true;
    loop {
        let is_asked = tokio::select! {
            _ = polls.tick() => false,
            () = ask.notified() => true,
        };
        let mut text = read(&path).await;
        if !is_asked && !is_first {
            if text.as_ref().ok() == known.as_ref() {
                continue;
            }
            sleep(SETTLE_TIME).await;
            let again = read(&path).await;
            if again.as_ref().ok() != text.as_ref().ok() {
                // It is being written; the next look will tell.
                continue;
            }
            text = again;
        }
        // A file that cannot be read is reported once, until it can be read or somebody asks.
        if text.is_err() && has_failed && !is_asked {
            continue;
        }
        has_failed = text.is_err();
        known = text.as_ref().ok().cloned();
        let who = if is_asked { Who::Signal { name: "SIGHUP" } } else { Who::File };
        if reading_tx.send(Reading { who, text, is_first: is_first && !is_asked }).await.is_err() {
            return;
        }
        is_first = false;
    }
}

/// Reads on another thread: a file may be on a network.
async fn read(path: &Path) -> io::Result<String> {
    let path = path.to_owned();
    let read = move || {
        let mut text = String::new();
        File::open(path)?.take(MAX_BYTES + 1).read_to_string(&mut text)?;
        if u64::try_from(text.len()).is_ok_and(|len| len > MAX_BYTES) {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        Ok(text)
    };
    spawn_blocking(read).await.unwrap_or_else(|stopped| Err(io::Error::other(stopped)))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use tokio::time::timeout;

    use super::*;

    async fn next(source: &mut Source) -> Reading {
        timeout(Duration::from_secs(20), source.next()).await.unwrap().unwrap()
    }

    fn directory(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("mirror-steering-{}-{name}", std::process::id()));
        drop(fs::remove_dir_all(&path));
        fs::create_dir_all(&path).unwrap();
        path
    }

    #[tokio::test]
    async fn links_turned_as_in_a_config_map_are_noticed_and_equal_content_is_not() {
        let directory = directory("links");
        for (version, text) in [("1", "a"), ("2", "a"), ("3", "b")] {
            fs::create_dir(directory.join(version)).unwrap();
            fs::write(directory.join(version).join("mirror.yaml"), text).unwrap();
        }
        let turn = |version: &str| {
            let next = directory.join("..next");
            symlink(version, &next).unwrap();
            fs::rename(next, directory.join("..data")).unwrap();
        };
        turn("1");
        let file = directory.join("mirror.yaml");
        symlink("..data/mirror.yaml", &file).unwrap();
        let mut source = Source::watch(file);
        let first = next(&mut source).await;
        assert_eq!((first.text.unwrap().as_str(), first.is_first), ("a", true));
        turn("2");
        assert!(timeout(POLL_INTERVAL * 2, source.next()).await.is_err());
        turn("3");
        let changed = next(&mut source).await;
        assert_eq!((changed.text.unwrap().as_str(), changed.is_first, changed.who), ("b", false, Who::File));
        fs::remove_dir_all(directory).unwrap();
    }

    #[tokio::test]
    async fn a_file_that_is_gone_is_said_once_and_again_when_asked() {
        let directory = directory("gone");
        let file = directory.join("mirror.yaml");
        fs::write(&file, "a").unwrap();
        let mut source = Source::watch(file.clone());
        assert!(next(&mut source).await.text.is_ok());
        fs::remove_file(&file).unwrap();
        assert!(next(&mut source).await.text.is_err());
        assert!(timeout(POLL_INTERVAL * 2, source.next()).await.is_err());
        source.ask();
        let asked = next(&mut source).await;
        assert_eq!((asked.text.is_err(), asked.who), (true, Who::Signal { name: "SIGHUP" }));
        fs::write(&file, "a").unwrap();
        assert_eq!(next(&mut source).await.text.unwrap(), "a");
        fs::remove_dir_all(directory).unwrap();
    }
}
