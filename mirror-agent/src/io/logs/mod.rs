//! Enters: what happens, as `tracing` events from any thread. Leaves: lines on standard error, written by a thread of
//! their own.
//!
//! Whoever logs puts a line into a bounded buffer and goes on: a standard error that nobody reads holds up no capture. What
//! the buffer does not take is counted. A warning that repeats is written at once, and then at most once a minute with
//! the number of those held back.

mod limit;
mod line;
mod writer;

use std::{
    any::Any,
    panic::{self, PanicHookInfo},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Instant, SystemTime},
};

use clap::ValueEnum;
use tracing::{Event, Level, Subscriber, debug, error};
use tracing_subscriber::{
    EnvFilter,
    layer::{Context, Layer, SubscriberExt as _},
    util::{SubscriberInitExt as _, TryInitError},
};

pub use self::writer::LogWriter;
use self::{
    limit::{Limiter, Ruling},
    line::Line,
    writer::Buffer,
};

/// What a line looks like.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub enum LogFormat {
    /// Time, level, module, message, and fields as `name=value`.
    #[default]
    Text,
    /// One JSON object: `time`, `level`, `target`, `message`, and `fields` as an object.
    Json,
}

/// How lines are told apart by eye.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Colors {
    /// Not at all.
    Plain,
    /// Text has its level in colour.
    Terminal,
}

/// What became of lines that were not written.
#[derive(Debug, Default)]
pub struct LogCounts {
    dropped: AtomicU64,
    held_back: AtomicU64,
}

impl LogCounts {
    /// Lines that nobody took: the buffer was full, or standard error failed.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Warnings and errors that were held back, since the same was said less than a minute before.
    #[must_use]
    pub fn held_back(&self) -> u64 {
        self.held_back.load(Ordering::Relaxed)
    }
}

/// Has everything logged that `filter` lets through, panics too, until the writer is dropped.
///
/// # Errors
///
/// There is a log already.
pub fn start(filter: EnvFilter, format: LogFormat, colors: Colors) -> Result<LogWriter, TryInitError> {
    let counts = Arc::<LogCounts>::default();
    let buffer = Arc::new(Buffer::new(Arc::clone(&counts)));
    let style = Style { format, colors };
    let limiter = Arc::<Limiter>::default();
    let log = Log { style, limiter: Arc::clone(&limiter), buffer: Arc::clone(&buffer) };
    tracing_subscriber::registry().with(filter).with(log).try_init()?;
    panic::set_hook(Box::new(log_panic));
    Ok(LogWriter::start(buffer, limiter, style))
}

/// How a line is written.
#[derive(Clone, Copy, Debug)]
struct Style {
    format: LogFormat,
    colors: Colors,
}

impl Style {
    fn write(self, line: &Line, out: &mut Vec<u8>) {
        match self.format {
            LogFormat::Text => line.write_text(self.colors, out),
            LogFormat::Json => line.write_json(out),
        }
    }
}

/// What `tracing` hands events to.
#[derive(Debug)]
struct Log {
    style: Style,
    limiter: Arc<Limiter>,
    buffer: Arc<Buffer>,
}

impl<S: Subscriber> Layer<S> for Log {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut line = Line::read(event, SystemTime::now());
        if *event.metadata().level() <= Level::WARN {
            match self.limiter.rule(event.metadata().callsite(), line, Instant::now()) {
                Ruling::Write(written) => line = written,
                Ruling::HoldBack => {
                    self.buffer.counts().held_back.fetch_add(1, Ordering::Relaxed);
                    return;
                }
            }
        }
        let mut bytes = Vec::with_capacity(256);
        self.style.write(&line, &mut bytes);
        self.buffer.push(&bytes);
    }
}

/// Says where a panic was. Its text may have been made of what was captured, unless it is a constant.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let location = panic.location().map(ToString::to_string).unwrap_or_default();
    let payload: &dyn Any = panic.payload();
    match payload.downcast_ref::<&'static str>() {
        Some(reason) => error!(location, reason, "A thread panicked."),
        None => error!(location, "A thread panicked; why is told at debug level."),
    }
    if let Some(reason) = payload.downcast_ref::<String>() {
        debug!(location, reason, "A thread panicked.");
    }
}
