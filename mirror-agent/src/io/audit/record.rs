//! Enters: what happened. Leaves: a line of JSON.

use std::{net::SocketAddr, sync::Arc, time::SystemTime};

use serde::Serialize;
use serde_json::Value;

use super::Subject;
use crate::{
    io::control::{Command, time},
    pipeline::{http::Method, reason::reasons},
};

reasons! {
    /// What is recorded.
    Event {
        /// A circuit breaker opened, half-opened or closed.
        Breaker => "breaker",
        /// A target accepted a copy of an unsafe method, or a part of one.
        Copy => "copy",
        /// An experiment reached its end.
        Expired => "expired",
        /// The expiry of an experiment was changed.
        Expiry => "expiry",
        /// A target proved that it is a shadow, or no longer does.
        Interlock => "interlock",
        /// All or one was paused.
        Pause => "pause",
        /// The share of requests was changed.
        Percent => "percent",
        /// An order was given and not obeyed.
        Refused => "refused",
        /// Another configuration came into force.
        Reload => "reload",
        /// A configuration was offered that is not in force.
        ReloadFailed => "reload_failed",
        /// All or one was resumed.
        Resume => "resume",
        /// The rules by which answers are compared were changed by hand.
        Rules => "rules",
        /// The agent began to mirror.
        Start => "start",
        /// The agent stopped.
        Stop => "stop",
        /// An address of a target leads back to the live service, and gets no copies.
        TargetRefused => "target_refused",
    }
}

reasons! {
    /// Why a record is not in the file.
    LossReason {
        /// More came than can be written.
        QueueFull => "queue_full",
        /// The file could not be written, for instance because the disk is full.
        Write => "write",
    }
}

impl Event {
    /// What a command brings about.
    pub(super) const fn of(command: &Command) -> Option<Self> {
        match command {
            Command::State => None,
            Command::Pause { .. } => Some(Self::Pause),
            Command::Resume { .. } => Some(Self::Resume),
            Command::SetPercent { .. } => Some(Self::Percent),
            Command::SetExpiry { .. } => Some(Self::Expiry),
        }
    }
}

/// Who brought something about.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(tag = "by", rename_all = "snake_case")]
pub enum Who {
    /// The agent itself.
    Agent,
    /// A signal.
    Signal {
        /// Its name, `SIGUSR1`.
        name: &'static str,
    },
    /// The configuration file, which changed.
    File,
    /// A process at the unix socket.
    Socket {
        /// Its user.
        uid: u32,
        /// Its number, as seen from the agent; 0 where it is in a PID namespace that the agent cannot see.
        pid: i32,
    },
    /// Who has the token.
    Token {
        /// From where.
        address: SocketAddr,
    },
    /// Who exchanged the token for a cookie.
    Cookie {
        /// From where.
        address: SocketAddr,
    },
}

/// A record on its way to the file.
#[derive(Debug)]
pub(super) enum Record {
    /// A change.
    Entry(Box<Entry>),
    /// A copy of an unsafe method: there may be many of them.
    Copy(CopyRecord),
}

impl Record {
    pub(super) const fn event(&self) -> Event {
        match self {
            Self::Entry(entry) => entry.event,
            Self::Copy(_) => Event::Copy,
        }
    }

    /// Appends the line.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let written = match self {
            Self::Entry(entry) => {
                let (at, event) = (time::rfc3339(entry.time), entry.event.as_str());
                serde_json::to_writer(&mut *out, &Line { time: at, event, entry: Some(entry), copy: None })
            }
            Self::Copy(copy) => {
                let line = CopyLine {
                    experiment: &copy.subject.experiment,
                    owner: copy.subject.owner.as_deref(),
                    target: &copy.subject.target,
                    id: str::from_utf8(&copy.id).unwrap_or_default(),
                    method: copy.method.as_str(),
                };
                let at = time::rfc3339(copy.time);
                serde_json::to_writer(
                    &mut *out,
                    &Line { time: at, event: Event::Copy.as_str(), entry: None, copy: Some(line) },
                )
            }
        };
        // Strings, numbers and maps with strings as keys: nothing that JSON cannot hold, into memory.
        if let Err(error) = written {
            tracing::error!(%error, "An audit record could not be put into JSON.");
        }
        out.push(b'\n');
    }
}

/// A change, and who made it.
#[derive(Debug, Serialize)]
pub(super) struct Entry {
    #[serde(skip)]
    pub(super) time: SystemTime,
    #[serde(skip)]
    pub(super) event: Event,
    pub(super) who: Who,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) experiment: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) owner: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) target: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) before: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) after: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
}

impl Entry {
    pub(super) fn new(event: Event, who: &Who) -> Self {
        Self {
            time: SystemTime::now(),
            event,
            who: *who,
            experiment: None,
            owner: None,
            target: None,
            before: None,
            after: None,
            error: None,
        }
    }
}

/// A copy of an unsafe method.
#[derive(Debug)]
pub(super) struct CopyRecord {
    pub(super) time: SystemTime,
    pub(super) subject: Arc<Subject>,
    /// Its `x-mirror-id`.
    pub(super) id: [u8; 38],
    pub(super) method: Method,
}

#[derive(Serialize)]
struct Line<'a> {
    time: String,
    event: &'static str,
    #[serde(flatten)]
    entry: Option<&'a Entry>,
    #[serde(flatten)]
    copy: Option<CopyLine<'a>>,
}

#[derive(Serialize)]
struct CopyLine<'a> {
    experiment: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<&'a str>,
    target: &'a str,
    id: &'a str,
    method: &'static str,
}
