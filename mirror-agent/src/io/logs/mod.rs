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

#[cfg(test)]
mod tests {
    use tracing::{info, subscriber::with_default, warn};

    use super::*;

    /// What is logged of it, as JSON without the time.
    fn logged(act: impl FnOnce()) -> Vec<serde_json::Value> {
        let counts = Arc::<LogCounts>::default();
        let buffer = Arc::new(Buffer::new(counts));
        let style = Style { format: LogFormat::Json, colors: Colors::Plain };
        let log = Log { style, limiter: Arc::default(), buffer: Arc::clone(&buffer) };
        with_default(tracing_subscriber::registry().with(log), act);
        let mut bytes = Vec::new();
        buffer.take(&mut bytes, std::time::Duration::ZERO);
        let lines = String::from_utf8(bytes).unwrap();
        lines
            .lines()
            .map(|line| {
                let mut object: serde_json::Value = serde_json::from_str(line).unwrap();
                object.as_object_mut().unwrap().remove("time");
                object
            })
            .collect()
    }

    #[test]
    fn values_of_every_kind_keep_it_and_errors_tell_their_causes() {
        let error = std::io::Error::other("outer");
        let lines = logged(|| {
            info!(target: "t", text = "a", number = 3, real = 0.5, is_so = true, %error, list = ?[1], "Said.");
            info!(target: "t", error = &error as &dyn std::error::Error, "Failed.");
        });
        let fields = serde_json::json!({"text": "a", "number": 3, "real": 0.5, "is_so": true, "error": "outer", "list": "[1]"});
        assert_eq!(
            lines,
            [
                serde_json::json!({"level": "INFO", "target": "t", "message": "Said.", "fields": fields}),
                serde_json::json!({"level": "INFO", "target": "t", "message": "Failed.", "fields": {"error": "outer"}}),
            ]
        );
    }

    #[test]
    fn lines_of_the_kernel_program_have_its_name() {
        let lines =
            logged(|| info!(target: "log", { "log.target" = "mirror_ebpf", "log.line" = 3 }, "Too deep."));
        let line = serde_json::json!({"level": "INFO", "target": "mirror_ebpf", "message": "Too deep.", "fields": {}});
        assert_eq!(lines, [line]);
    }

    #[test]
    fn only_warnings_and_errors_are_held_back() {
        let lines = logged(|| {
            for number in 0..5 {
                warn!(number, target = "shadow", "Again.");
                warn!(number, target = "control", "Again.");
                info!(number, "Again.");
            }
        });
        let count = |level: &str| lines.iter().filter(|line| line["level"] == level).count();
        assert_eq!((count("WARN"), count("INFO")), (2, 5));
    }
}
