//! Enters: records of exchanges. Leaves: files of JSON lines, and topics of Kafka's.
//!
//! Each sink has a bounded queue and a thread of its own: whoever has a record never waits for a disk or a broker. What
//! does not fit, or cannot be written, is counted.

mod file;
#[cfg(feature = "kafka")]
mod kafka;
mod queue;
#[cfg(test)]
mod tests;
mod written;

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, OnceLock, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use tracing::{error, warn};

use self::queue::Queue;
pub use self::{queue::BYTES as SINK_BYTES, written::Written};
use crate::{
    io::{
        config::{SinkConfig, SinkPlace, SinkTake},
        evidence::Record,
        lines::RotatingFile,
    },
    pipeline::reason::{ComparisonResult, SinkResult},
};

/// Why a sink cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SinkError {
    /// Its file cannot be opened.
    #[error("sink {sink}: open {}", path.display())]
    File {
        /// Its name.
        sink: String,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Its file is another's, too: each would begin it anew under the other.
    #[error(
        "sink {sink}: {} is the same file as {}, which another one writes to",
        path.display(),
        other.display()
    )]
    Shared {
        /// Its name.
        sink: String,
        /// The file.
        path: PathBuf,
        /// How the other one names it.
        other: PathBuf,
    },
    /// There is no thread for it.
    #[error("sink {sink}: start its thread")]
    Thread {
        /// Its name.
        sink: String,
        /// What the system said.
        source: io::Error,
    },
    /// This program was built without the client of Kafka's.
    #[error("sink {sink}: this mirror-agent was built without Kafka: build it with `--features kafka`")]
    NoKafka {
        /// Its name.
        sink: String,
    },
}

/// Whether this program can write to such a sink.
///
/// # Errors
///
/// [`SinkError::NoKafka`].
fn check_sink(config: &SinkConfig) -> Result<(), SinkError> {
    match config.to {
        SinkPlace::Kafka { .. } if !cfg!(feature = "kafka") => {
            Err(SinkError::NoKafka { sink: config.name.clone() })
        }
        SinkPlace::File { .. } | SinkPlace::Kafka { .. } => Ok(()),
    }
}

/// Whether such a sink can be written to, as far as that is known before anything is: its file can be opened. One that is not there
/// is made. May take as long as the disk does.
///
/// # Errors
///
/// [`SinkError::File`] and [`SinkError::NoKafka`].
pub fn try_sink(config: &SinkConfig) -> Result<(), SinkError> {
    check_sink(config)?;
    match &config.to {
        SinkPlace::File { path, max_size, keep } => open(&config.name, path, (*max_size, *keep)).map(drop),
        SinkPlace::Kafka { .. } => Ok(()),
    }
}

fn open(sink: &str, path: &Path, (max_size, keep): (u64, u32)) -> Result<RotatingFile, SinkError> {
    RotatingFile::open(path, max_size, keep).map_err(|source| SinkError::File {
        sink: sink.to_owned(),
        path: path.to_owned(),
        source,
    })
}

/// What all sinks of all experiments count; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct SinkLedger(Arc<Mutex<Vec<Weak<SinkBooks>>>>);

/// Whose turn it is to write to a sink: one thread's at a time, where the one before it hangs on a disk.
type WriterTurn = Mutex<()>;

/// What came of the records of one sink.
#[derive(Debug)]
pub struct SinkBooks {
    /// Name of the experiment.
    pub experiment: String,
    /// Name of the sink.
    pub sink: String,
    counts: [AtomicU64; SinkResult::ALL.len()],
    turn: WriterTurn,
}

/// The sinks of one experiment. Where this is dropped, what waits is written, as far as it can be soon.
#[derive(Debug, Default)]
pub struct Sinks {
    sinks: Vec<Sink>,
    /// When they were closed.
    closed_at: OnceLock<Instant>,
}

#[derive(Debug)]
struct Sink {
    take: SinkTake,
    queue: Arc<Queue>,
    books: Arc<SinkBooks>,
    thread: Option<JoinHandle<()>>,
}

impl SinkLedger {
    /// The books of all sinks that are open, by experiment and name.
    #[must_use]
    pub fn books(&self) -> Vec<Arc<SinkBooks>> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|books| books.strong_count() > 0);
        let mut books: Vec<_> = known.iter().filter_map(Weak::upgrade).collect();
        books.sort_by(|one, other| (&one.experiment, &one.sink).cmp(&(&other.experiment, &other.sink)));
        books
    }

    /// The books of a sink: those that are there already, where one of that name is closed only now.
    pub(in crate::io) fn open(&self, experiment: &str, sink: &str) -> Arc<SinkBooks> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_it = |books: &Arc<SinkBooks>| (&*books.experiment, &*books.sink) == (experiment, sink);
        if let Some(books) = known.iter().filter_map(Weak::upgrade).find(is_it) {
            return books;
        }
        let books = Arc::new(SinkBooks {
            experiment: experiment.to_owned(),
            sink: sink.to_owned(),
            counts: Default::default(),
            turn: WriterTurn::default(),
        });
        known.push(Arc::downgrade(&books));
        books
    }
}

impl SinkBooks {
    /// Records so far, in the order of [`SinkResult::ALL`].
    #[must_use]
    pub fn counts(&self) -> [u64; SinkResult::ALL.len()] {
        self.counts.each_ref().map(|count| count.load(Ordering::Relaxed))
    }

    fn count(&self, result: SinkResult, records: u64) {
        if let Some(count) = self.counts.get(result.index()) {
            count.fetch_add(records, Ordering::Relaxed);
        }
    }
}

impl Sinks {
    /// Opens the sinks of an experiment, each with a thread of its own. Brokers are not asked for yet: one that is dead
    /// keeps nothing from starting.
    ///
    /// # Errors
    ///
    /// All variants of [`SinkError`].
    pub fn open(configs: &[SinkConfig], experiment: &str, ledger: &SinkLedger) -> Result<Self, SinkError> {
        let mut sinks = Self::default();
        for config in configs {
            check_sink(config)?;
            let sink = || config.name.clone();
            let queue = Arc::new(Queue::default());
            let books = ledger.open(experiment, &config.name);
            let (taken, written) = (Arc::clone(&queue), Arc::clone(&books));
            let work: Box<dyn FnOnce() + Send> = match &config.to {
                SinkPlace::File { path, max_size, keep } => {
                    let file = open(&config.name, path, (*max_size, *keep))?;
                    Box::new(move || file::write(file, &taken, &written))
                }
                #[cfg(feature = "kafka")]
                SinkPlace::Kafka { brokers, topics } => {
                    let (brokers, topics) = (brokers.clone(), topics.clone());
                    Box::new(move || kafka::write(brokers, &topics, &taken, &written))
                }
                #[cfg(not(feature = "kafka"))]
                SinkPlace::Kafka { .. } => return Err(SinkError::NoKafka { sink: sink() }),
            };
            let thread = thread::Builder::new()
                .name("sink".to_owned())
                .spawn(work)
                .map_err(|source| SinkError::Thread { sink: sink(), source })?;
            sinks.sinks.push(Sink { take: config.take, queue, books, thread: Some(thread) });
        }
        Ok(sinks)
    }

    /// Lets nothing more in, and returns since when that is so: sinks that are closed before any of them is dropped end side by
    /// side.
    pub fn close(&self) -> Instant {
        self.sinks.iter().for_each(|sink| sink.queue.close());
        *self.closed_at.get_or_init(Instant::now)
    }

    /// Whether any of them takes records of exchanges of which this came: then one is to be made.
    #[must_use]
    pub fn want(&self, result: ComparisonResult) -> bool {
        self.sinks.iter().any(|sink| sink.wants(result))
    }

    /// Gives a record to those that take it. Never waits: where too many wait it is dropped, and counted.
    pub fn take(&self, record: &Arc<Record>, result: ComparisonResult) {
        for sink in self.sinks.iter().filter(|sink| sink.wants(result)) {
            if !sink.queue.push(record) {
                sink.books.count(SinkResult::Dropped, 1);
            }
        }
    }
}

impl Sink {
    fn wants(&self, result: ComparisonResult) -> bool {
        match self.take {
            SinkTake::All => true,
            SinkTake::Divergent => result == ComparisonResult::Divergent,
        }
    }
}

impl Drop for Sinks {
    fn drop(&mut self) {
        let until = self.close() + CLOSING_TIME;
        for sink in &mut self.sinks {
            let Some(thread) = sink.thread.take() else { continue };
            // A disk or a broker that hangs must not keep the agent from stopping.
            while !thread.is_finished() && Instant::now() < until {
                thread::sleep(CLOSING_STEP);
            }
            let (experiment, sink) = (&*sink.books.experiment, &*sink.books.sink);
            if !thread.is_finished() {
                warn!(experiment, sink, "A sink does not take what was left to write: it is lost.");
            } else if thread.join().is_err() {
                error!(experiment, sink, "The thread of a sink ended in a panic.");
            }
        }
    }
}

/// How long sinks that are closed may take to write what is left, all together.
const CLOSING_TIME: Duration = Duration::from_secs(2);

/// How often it is looked whether they have.
const CLOSING_STEP: Duration = Duration::from_millis(5);
