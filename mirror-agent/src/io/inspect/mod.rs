//! Enters: a capture file. Leaves: one line of JSON for each exchange in it.

pub mod json;
pub mod order;
mod resets;
pub mod source;

use std::{
    io::{self, Write},
    path::Path,
    time::Duration,
};

use crate::{
    io::file::{CaptureFile, FileError},
    pipeline::{
        Limits, Pipeline, Segment, Timestamp,
        exchange::{Purpose, report::ExchangeReport},
    },
};
use json::JsonLines;
use order::Orderer;
use resets::Resets;
use source::SegmentSource;

/// The stages between segments and exchanges.
pub trait Exchanges {
    /// Takes the next segment. Those of one flow come in the order of capture; the time of one may lie before that
    /// of the segment before it.
    fn handle_segment(&mut self, segment: &Segment<'_>);

    /// There are no more segments: every exchange ends.
    fn handle_end(&mut self);

    /// An exchange that ended.
    fn poll_report(&mut self) -> Option<ExchangeReport>;

    /// The first byte of the exchange that began earliest among those that have not ended; `None` where there is
    /// none.
    fn open_since(&self) -> Option<Timestamp>;
}

/// The pipeline that `run` uses, told to report rather than to hold; resets come to it with a delay.
#[derive(Debug)]
pub struct FilePipeline {
    pipeline: Pipeline,
    resets: Resets,
}

/// Captures of several queues are not in causal order: how long a segment may come after its acknowledgement.
const GAP_PATIENCE: Duration = Duration::from_secs(1);

/// Heads that are too long for `run` are told all the same; servers take 1 MiB at most.
const MAX_HEAD_BYTES: usize = 1024 * 1024;

/// Load generators send some hundred requests before they wait for an answer. More would make one flow that is never
/// answered hold more than a megabyte or two, and each of its requests cost as much as a look at all of them.
const MAX_OUTSTANDING: usize = 1000;

impl FilePipeline {
    /// An empty pipeline.
    #[must_use]
    pub fn new() -> Self {
        // In a file nobody waits for what a gap holds up.
        let limits = Limits {
            gap_patience: GAP_PATIENCE,
            head_bytes: MAX_HEAD_BYTES,
            gap_age: Duration::MAX,
            gap_age_one_sided: Duration::MAX,
            // Nor for a flow that goes on after a pause, however long; a table that is full evicts all the same.
            flow_idle: Duration::MAX,
            flow_doubt: Limits::default().flow_idle,
            outstanding: MAX_OUTSTANDING,
            ..Limits::default()
        };
        // One file at a time, chosen by the user: nobody gains from making its flows collide.
        Self { pipeline: Pipeline::new(Purpose::Inspect, limits, 0), resets: Resets::default() }
    }
}

impl Default for FilePipeline {
    fn default() -> Self {
        Self::new()
    }
}

impl Exchanges for FilePipeline {
    fn handle_segment(&mut self, segment: &Segment<'_>) {
        self.resets.handle_segment(segment, &mut |segment| self.pipeline.handle_segment(segment));
        // There is no clock but the segments.
        self.pipeline.handle_time(self.pipeline.now());
    }

    fn handle_end(&mut self) {
        self.resets.handle_end(&mut |segment| self.pipeline.handle_segment(segment));
        self.pipeline.finish(self.pipeline.now());
    }

    fn poll_report(&mut self) -> Option<ExchangeReport> {
        self.pipeline.poll_report()
    }

    fn open_since(&self) -> Option<Timestamp> {
        self.pipeline.open_since()
    }
}

/// Why the exchanges of a file could not be told, or not all of them.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// The file cannot be read (any further).
    #[error(transparent)]
    File(#[from] FileError),
    /// The output cannot be written.
    #[error("write the exchanges")]
    Write(#[from] io::Error),
}

/// Writes the exchanges of the file at `path` to `out`, in the order of their first bytes, and what was left out of it
/// to `warnings`, a line each. `ports` are those of servers; where there are none, they are found by looking at the
/// bytes. What was found before an error is written all the same.
///
/// # Errors
///
/// `File` and `Write`; that nobody reads the output any further is none.
pub fn run(
    path: &Path,
    ports: Vec<u16>,
    exchanges: &mut impl Exchanges,
    out: impl Write,
    warnings: &mut impl Write,
) -> Result<(), InspectError> {
    match print_exchanges(path, ports, exchanges, out, warnings) {
        Err(InspectError::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        ended => ended,
    }
}

fn print_exchanges(
    path: &Path,
    ports: Vec<u16>,
    exchanges: &mut impl Exchanges,
    out: impl Write,
    warnings: &mut impl Write,
) -> Result<(), InspectError> {
    let mut source = SegmentSource::new(CaptureFile::open(path)?, ports);
    let mut printer = Printer { orderer: Orderer::new(ORDERER_BYTES), lines: JsonLines::new(out) };
    let ended = loop {
        match source.advance(&mut |segment| exchanges.handle_segment(&segment)) {
            Ok(Some(at)) => printer.print_ended(exchanges, Some(at))?,
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    exchanges.handle_end();
    printer.print_ended(exchanges, None)?;
    printer.lines.finish()?;
    for warning in source.warnings() {
        writeln!(warnings, "warning: {}: {warning}", path.display())?;
    }
    if ended.is_ok() && printer.lines.lines() == 0 {
        writeln!(warnings, "warning: {}: no HTTP/1.x message was found", path.display())?;
    }
    Ok(ended?)
}

struct Printer<W: Write> {
    orderer: Orderer,
    lines: JsonLines<W>,
}

impl<W: Write> Printer<W> {
    /// Writes what can be preceded by nothing any more. `at` is the time of the frame read last; `None` at the end of
    /// the file.
    fn print_ended(&mut self, exchanges: &mut impl Exchanges, at: Option<Timestamp>) -> io::Result<()> {
        let settled = at.map(|at| at.before(MAX_DELAY));
        while let Some(report) = exchanges.poll_report() {
            self.orderer.handle_ended(report);
        }
        while let Some(report) =
            self.orderer.poll_ended(|| settled.into_iter().chain(exchanges.open_since()).min())
        {
            self.lines.write(&report)?;
        }
        Ok(())
    }
}

/// How much later than they were captured bytes may be taken for what they are: segments wait for those before them,
/// and for a sign of who is the client. Memory, not this, bounds what is held.
const MAX_DELAY: Duration = Duration::from_secs(60);

/// Some 100,000 exchanges with usual heads, behind one that stays open.
const ORDERER_BYTES: usize = 128 * 1024 * 1024;

#[cfg(test)]
mod tests;
