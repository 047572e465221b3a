//! Enters: what changed, who changed it, and which copies were writes. Leaves: a file with one JSON object a line.
//!
//! Records go through a bounded queue to a thread of its own, so that neither capture nor replay ever waits for a
//! disk. What does not fit, or cannot be written, is counted. Nothing of the traffic is written but the method of a
//! copy that was a write, and the number by which the shadow knows it.

mod queue;
mod record;
#[cfg(test)]
mod tests;
mod writer;

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::SystemTime,
};

use serde_json::{Value, json};

pub use self::record::{Event, LossReason, Who};
use self::{
    queue::Queue,
    record::{CopyRecord, Entry, Record},
};
use crate::{
    io::{
        config::AuditConfig,
        control::{Change, Command, ControlError, InterlockState, Setting, time},
        ledger::CopyBooks,
        lines::RotatingFile,
        replay::{self, Observer},
        telling::{AskError, Told},
    },
    pipeline::{Request, http::Method},
};

/// Writes audit records; cheap to clone. Without a file it only counts.
#[derive(Clone, Debug, Default)]
pub struct Audit(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    counters: Counters,
    /// `None` where no file is written.
    queue: Option<Queue>,
}

/// What was recorded and what was lost of it.
#[derive(Debug, Default)]
struct Counters {
    records: [AtomicU64; Event::ALL.len()],
    dropped: [AtomicU64; LossReason::ALL.len()],
}

/// The thread that writes; kept until the end of the run.
#[derive(Debug)]
pub struct AuditWriter {
    audit: Audit,
    thread: Option<JoinHandle<()>>,
}

impl Audit {
    /// Opens the file of the configuration, if it names one, and starts the thread that writes to it.
    ///
    /// # Errors
    ///
    /// The file cannot be opened, or no thread started.
    pub fn open(config: &AuditConfig) -> io::Result<(Self, AuditWriter)> {
        let Some(path) = &config.file else {
            let audit = Self::default();
            return Ok((audit.clone(), AuditWriter { audit, thread: None }));
        };
        let file = RotatingFile::open(path, config.max_size, config.keep)?;
        let audit = Self(Arc::new(Shared { counters: Counters::default(), queue: Some(Queue::default()) }));
        let shared = Arc::clone(&audit.0);
        let thread = thread::Builder::new()
            .name("audit".to_owned())
            .spawn(move || writer::write(file, shared.queue.as_ref(), &shared.counters))?;
        Ok((audit.clone(), AuditWriter { audit, thread: Some(thread) }))
    }

    /// An order was obeyed. One record for each change.
    pub fn obeyed(&self, who: &Who, command: &Command, changes: &[Change]) {
        let Some(event) = Event::of(command) else { return };
        for change in changes {
            self.record(Entry {
                experiment: change.experiment.clone(),
                owner: change.owner.clone(),
                before: Some(setting(change.before)),
                after: Some(setting(change.after)),
                ..Entry::new(event, who)
            });
        }
    }

    /// An order was given and not obeyed.
    pub fn refused(&self, who: &Who, command: &Command, error: &ControlError) {
        let (experiment, wanted) = match command {
            Command::State => return,
            Command::Pause { experiment } => (experiment.clone(), Some(setting(Setting::Paused(true)))),
            Command::Resume { experiment } => (experiment.clone(), Some(setting(Setting::Paused(false)))),
            Command::SetPercent { experiment, percent } => {
                (Some(experiment.clone()), Some(setting(Setting::Percent(*percent))))
            }
            Command::SetExpiry { experiment, expires } => {
                (Some(experiment.clone()), Some(setting(Setting::Expires(*expires))))
            }
        };
        self.record(Entry {
            experiment,
            after: wanted,
            error: Some(error.to_string()),
            ..Entry::new(Event::Refused, who)
        });
    }

    /// The rules by which an experiment compares were changed by hand, or were to be.
    pub fn rules(&self, who: &Who, experiment: &str, told: &Result<Told, AskError>) {
        let entry = match told {
            Ok(Told::Rules { owner, before, after }) => Entry {
                owner: owner.clone(),
                before: Some(json!({ "rules": before })),
                after: Some(json!({ "rules": after.rules })),
                ..Entry::new(Event::Rules, who)
            },
            Ok(Told::Report(_) | Told::Portions(_)) => return,
            Err(error) => Entry { error: Some(error.to_string()), ..Entry::new(Event::Refused, who) },
        };
        self.record(Entry { experiment: Some(experiment.to_owned()), ..entry });
    }

    /// Another configuration is in force: the experiments before and after by their names, and which of those that
    /// stay were changed.
    pub fn reloaded(&self, who: &Who, before: &[String], after: &[String], changed: &[String]) {
        self.record(Entry {
            before: Some(json!({ "experiments": before })),
            after: Some(json!({ "experiments": after, "changed": changed })),
            ..Entry::new(Event::Reload, who)
        });
    }

    /// Another configuration was offered and is not in force, and why.
    pub fn reload_failed(&self, who: &Who, error: &str) {
        self.record(Entry { error: Some(error.to_owned()), ..Entry::new(Event::ReloadFailed, who) });
    }

    /// An experiment reached its end. `expired_at` is the time that it was given.
    pub fn expired(&self, experiment: &str, owner: Option<&str>, expired_at: SystemTime) {
        self.record(Entry {
            experiment: Some(experiment.to_owned()),
            owner: owner.map(str::to_owned),
            before: Some(json!({ "expires": time::rfc3339(expired_at) })),
            after: Some(json!({ "expired": true })),
            ..Entry::new(Event::Expired, &Who::Agent)
        });
    }

    /// The agent began to mirror, or stops.
    pub fn life(&self, event: Event, experiments: &[String]) {
        self.record(Entry {
            after: Some(json!({ "version": env!("CARGO_PKG_VERSION"), "experiments": experiments })),
            ..Entry::new(event, &Who::Agent)
        });
    }

    /// What is recorded of one target.
    #[must_use]
    pub fn of_target(&self, experiment: &str, owner: Option<&str>, target: &str) -> TargetAudit {
        TargetAudit(Some(Arc::new(Subject {
            audit: self.clone(),
            experiment: experiment.to_owned(),
            owner: owner.map(str::to_owned),
            target: target.to_owned(),
        })))
    }

    /// Records so far, in the order of [`Event::ALL`]; written or not.
    #[must_use]
    pub fn records(&self) -> [u64; Event::ALL.len()] {
        self.0.counters.records.each_ref().map(|count| count.load(Ordering::Relaxed))
    }

    /// Records that are not in the file, in the order of [`LossReason::ALL`].
    #[must_use]
    pub fn dropped(&self) -> [u64; LossReason::ALL.len()] {
        self.0.counters.dropped.each_ref().map(|count| count.load(Ordering::Relaxed))
    }

    fn record(&self, entry: Entry) {
        self.push(Record::Entry(Box::new(entry)));
    }

    fn push(&self, record: Record) {
        let Shared { counters, queue } = &*self.0;
        counters.count(record.event());
        if queue.as_ref().is_some_and(|queue| !queue.push(record)) {
            counters.lose(LossReason::QueueFull, 1);
        }
    }
}

impl Counters {
    fn count(&self, event: Event) {
        if let Some(count) = self.records.get(event.index()) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn lose(&self, reason: LossReason, records: u64) {
        if let Some(count) = self.dropped.get(reason.index()) {
            count.fetch_add(records, Ordering::Relaxed);
        }
    }
}

impl AuditWriter {
    /// Writes what is queued and ends the thread.
    pub fn close(mut self) {
        self.finish();
    }

    fn finish(&mut self) {
        if let Some(queue) = &self.audit.0.queue {
            queue.close();
        }
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("The thread of the audit log ended in a panic.");
        }
    }
}

impl Drop for AuditWriter {
    fn drop(&mut self) {
        self.finish();
    }
}

/// Writes the audit records of one target; cheap to clone. The default writes and counts nothing.
#[derive(Clone, Debug, Default)]
pub struct TargetAudit(Option<Arc<Subject>>);

#[derive(Debug)]
struct Subject {
    audit: Audit,
    experiment: String,
    owner: Option<String>,
    target: String,
}

impl Observer for TargetAudit {
    fn handle_event(&self, _target: &CopyBooks, event: replay::Event) {
        match event {
            replay::Event::Breaker { from, to } => self.changed(
                Event::Breaker,
                json!({ "breaker": from.as_str() }),
                json!({ "breaker": to.as_str() }),
            ),
            replay::Event::Interlock { is_open } => {
                let state = |is_open| {
                    let state = if is_open { InterlockState::Proven } else { InterlockState::Unproven };
                    json!({ "interlock": state.as_str() })
                };
                self.changed(Event::Interlock, state(!is_open), state(is_open));
            }
            replay::Event::Refused => {
                self.changed(Event::TargetRefused, json!(null), json!({ "refused": "leads back to live" }));
            }
        }
    }
}

impl TargetAudit {
    /// Writes and counts nothing.
    #[must_use]
    pub const fn none() -> Self {
        Self(None)
    }

    /// The target has accepted a byte of the copy of `request`: recorded if its method is unsafe (RFC 9110 section
    /// 9.2.1). `id` makes its `x-mirror-id`.
    #[inline]
    pub fn accepted(&self, request: &Request, id: impl FnOnce() -> [u8; 38]) {
        if !is_safe(&request.raw)
            && let Some(subject) = &self.0
        {
            let method = request.raw.split(|byte| *byte == b' ').next().unwrap_or_default();
            subject.audit.push(Record::Copy(CopyRecord {
                time: SystemTime::now(),
                subject: Arc::clone(subject),
                id: id(),
                method: Method::from_bytes(method),
            }));
        }
    }

    fn changed(&self, event: Event, before: Value, after: Value) {
        let Some(subject) = &self.0 else { return };
        subject.audit.record(Entry {
            experiment: Some(subject.experiment.clone()),
            owner: subject.owner.clone(),
            target: Some(subject.target.clone()),
            before: Some(before),
            after: Some(after),
            ..Entry::new(event, &Who::Agent)
        });
    }
}

/// Whether the copy of a request that begins like this changes nothing at the shadow. TRACE is safe by the book.
fn is_safe(raw: &[u8]) -> bool {
    [&b"GET "[..], b"HEAD ", b"OPTIONS ", b"TRACE "].iter().any(|method| raw.starts_with(method))
}

fn setting(setting: Setting) -> Value {
    // A map with one entry: nothing that JSON cannot hold.
    serde_json::to_value(setting).unwrap_or_default()
}
