//! Enters: lines, from any thread. Leaves: the same on standard error, from one thread.

use std::{
    io::{self, ErrorKind, Write},
    mem,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, atomic::Ordering},
    thread,
    time::{Duration, Instant, SystemTime},
};

use tracing::Level;

use super::{Limiter, Line, LogCounts, Style};

/// Bytes of lines that may wait: some five thousand, which a program that reads its log late is behind by.
const BUFFER_BYTES: usize = 1 << 20;

/// How often what was held back is looked through.
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);

/// How long a standard error that takes nothing at the moment is left alone. It is only said to be so where somebody made
/// it non-blocking.
const RETRY_INTERVAL: Duration = Duration::from_millis(10);

/// How long the end of the program waits for what is still to be written.
const FLUSH_TIME: Duration = Duration::from_secs(1);

/// Lines that wait for the thread. Its lock is held for the copy of a line, or while everything is taken at once.
#[derive(Debug)]
pub(super) struct Buffer {
    waiting: Mutex<Waiting>,
    changed: Condvar,
    counts: Arc<LogCounts>,
}

#[derive(Debug, Default)]
struct Waiting {
    bytes: Vec<u8>,
    lines: u64,
    is_closed: bool,
    /// The thread has written all there was, and ends.
    is_finished: bool,
}

impl Buffer {
    pub(super) fn new(counts: Arc<LogCounts>) -> Self {
        Self { waiting: Mutex::default(), changed: Condvar::new(), counts }
    }

    pub(super) fn counts(&self) -> &LogCounts {
        &self.counts
    }

    /// Puts a line in, or counts it as dropped where it does not fit. Never waits for whoever reads.
    pub(super) fn push(&self, line: &[u8]) {
        let mut waiting = self.lock();
        let is_full = waiting.bytes.len().saturating_add(line.len()) > BUFFER_BYTES;
        if is_full || waiting.is_finished {
            drop(waiting);
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let is_first = waiting.bytes.is_empty();
        waiting.bytes.extend_from_slice(line);
        waiting.lines = waiting.lines.saturating_add(1);
        drop(waiting);
        if is_first {
            self.changed.notify_all();
        }
    }

    /// Exchanges what waits for the empty `bytes`, as soon as there is something or the patience ends. Gives how many
    /// lines it is, and whether there will be no more.
    pub(super) fn take(&self, bytes: &mut Vec<u8>, patience: Duration) -> (u64, bool) {
        let has_none = |waiting: &mut Waiting| waiting.bytes.is_empty() && !waiting.is_closed;
        let arrived = self.changed.wait_timeout_while(self.lock(), patience, has_none);
        let (mut waiting, _) = arrived.unwrap_or_else(PoisonError::into_inner);
        mem::swap(&mut waiting.bytes, bytes);
        (mem::take(&mut waiting.lines), waiting.is_closed)
    }

    fn finish(&self) {
        self.lock().is_finished = true;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Whoever panicked in here was short of memory for a line; what is there is whole.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The thread that writes. Dropping the value has it write what waits, for a second at most.
#[derive(Debug)]
pub struct LogWriter {
    buffer: Arc<Buffer>,
}

impl LogWriter {
    pub(super) fn start(buffer: Arc<Buffer>, limiter: Arc<Limiter>, style: Style) -> Self {
        let theirs = Arc::clone(&buffer);
        let spawned =
            thread::Builder::new().name("log".into()).spawn(move || write_all(&theirs, &limiter, style));
        if spawned.is_err() {
            // Without a thread nobody would ever take the lines: they are counted as dropped instead of waiting.
            buffer.finish();
        }
        Self { buffer }
    }

    /// What became of lines that were not written.
    #[must_use]
    pub fn counts(&self) -> Arc<LogCounts> {
        Arc::clone(&self.buffer.counts)
    }

    /// Writes text behind the lines that wait, as it is.
    pub fn print(&self, text: &str) {
        self.buffer.push(text.as_bytes());
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        self.buffer.lock().is_closed = true;
        self.buffer.changed.notify_all();
        let waiting = self.buffer.lock();
        let is_busy = |waiting: &mut Waiting| !waiting.is_finished;
        // A thread that is stuck in a write ends with the process.
        drop(self.buffer.changed.wait_timeout_while(waiting, FLUSH_TIME, is_busy));
    }
}

/// Writes until the buffer is closed and empty.
fn write_all(buffer: &Buffer, limiter: &Limiter, style: Style) {
    let mut bytes = Vec::new();
    let mut told = 0;
    let mut sweep_at = Instant::now() + SWEEP_INTERVAL;
    loop {
        let (lines, is_closed) = buffer.take(&mut bytes, SWEEP_INTERVAL);
        let now = Instant::now();
        if is_closed {
            limiter.rest(now).iter().for_each(|line| style.write(line, &mut bytes));
        } else if now >= sweep_at {
            limiter.overdue(now).iter().for_each(|line| style.write(line, &mut bytes));
            sweep_at = now + SWEEP_INTERVAL;
        }
        if write(&mut io::stderr(), &bytes).is_err() {
            buffer.counts.dropped.fetch_add(lines, Ordering::Relaxed);
        }
        bytes.clear();
        let dropped = buffer.counts.dropped();
        if dropped > told {
            let missing = Line::new(
                module_path!(),
                Level::WARN,
                "Lines of the log are missing: they came faster than standard error took them.",
                SystemTime::now(),
            );
            style.write(&missing.with_suppressed(dropped.saturating_sub(told)), &mut bytes);
            if write(&mut io::stderr(), &bytes).is_ok() {
                told = dropped;
            }
            bytes.clear();
        }
        if is_closed {
            return buffer.finish();
        }
    }
}

fn write(out: &mut impl Write, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match out.write(bytes) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(RETRY_INTERVAL),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_counted_and_what_waits_is_taken_whole() {
        let buffer = Buffer::new(Arc::default());
        let line = [b'x'; 1000];
        let fitting = BUFFER_BYTES / line.len();
        for _ in 0..fitting + 7 {
            buffer.push(&line);
        }
        assert_eq!(buffer.counts().dropped(), 7);
        let mut bytes = Vec::new();
        let (lines, is_closed) = buffer.take(&mut bytes, Duration::ZERO);
        assert_eq!((lines, is_closed, bytes.len()), (u64::try_from(fitting).unwrap(), false, fitting * 1000));
        buffer.push(&line);
        assert_eq!(buffer.counts().dropped(), 7);
        buffer.finish();
        buffer.push(&line);
        assert_eq!(buffer.counts().dropped(), 8);
    }

    #[test]
    fn output_that_is_busy_is_tried_again_and_one_that_is_gone_is_not() {
        /// Takes a byte every other time.
        #[derive(Default)]
        struct Slow(Vec<u8>, usize);
        impl Write for Slow {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.1 += 1;
                match (self.1 % 3, bytes.first()) {
                    (0, Some(byte)) => self.0.push(*byte),
                    (1, _) => return Err(ErrorKind::WouldBlock.into()),
                    _ => return Err(ErrorKind::Interrupted.into()),
                }
                Ok(1)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut slow = Slow::default();
        write(&mut slow, b"line").unwrap();
        assert_eq!(slow.0, b"line");
        let mut full: &mut [u8] = &mut [0; 2];
        assert_eq!(write(&mut full, b"line").unwrap_err().kind(), ErrorKind::WriteZero);
    }
}
