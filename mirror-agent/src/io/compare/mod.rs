//! Enters: requests of experiments that read answers, live's answer to each, and those of the targets. Leaves: exchanges
//! with all of their answers, in a bounded queue.
//!
//! An [`OpenExchange`] is shared by who waits for an answer: the capture thread for live's ([`Awaiting`]), each copy for
//! its target's ([`Part`]). Who lets go of it last, in whatever way, hands the finished [`Exchange`] on. So each is handed
//! on exactly once, nobody waits for anybody, and a copy that is dropped is an answer, too: that there is none.

mod awaiting;
mod budget;
mod cell;
mod queue;
mod sessions;
#[cfg(test)]
pub(in crate::io) mod tests;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

pub use self::{
    awaiting::{AWAITED_EXCHANGES, Awaiting, LIVE_TIMEOUT},
    budget::{ANSWER_BYTES, Budget, Charge},
    cell::{OpenExchange, Part},
    queue::{CompareQueue, QUEUE_BYTES, QUEUE_EXCHANGES},
    sessions::{STORE_BYTES, SessionGauges, Sessions},
};
use crate::{
    io::config::{ComparisonConfig, TargetRole},
    pipeline::{
        Answered, FlowKey, Request,
        compare::CompareRules,
        http::RequestHead,
        policy::{Exclusion, ExperimentId},
        reason::IncomparableReason,
        rewrite::MIRROR_ID_BYTES,
    },
};

/// What all comparing experiments share.
#[derive(Clone, Debug, Default)]
pub struct Shared {
    /// Where exchanges go.
    pub queue: Arc<CompareQueue>,
    /// The memory for answers.
    pub budget: Arc<Budget>,
}

/// An experiment that reads answers.
#[derive(Debug)]
pub struct Comparing {
    /// Its number.
    pub id: ExperimentId,
    /// Its name.
    pub experiment: String,
    /// Its targets; answers have their positions.
    pub targets: Vec<ComparedTarget>,
    /// How answers are compared; `None` where they are read for sessions alone, and no exchange is handed on.
    pub config: Option<ComparisonConfig>,
    /// What of its requests is not compared.
    excludes: Option<Exclusion>,
    /// The first part of `x-mirror-id`.
    instance: u64,
    shared: Shared,
    /// Exchanges that were given up, by reason.
    shed: [AtomicU64; IncomparableReason::ALL.len()],
}

/// A target of which answers are read.
#[derive(Clone, Debug)]
pub struct ComparedTarget {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub role: TargetRole,
    /// What it knows by other values than live; `None` where it knows nothing so.
    pub sessions: Option<Arc<Sessions>>,
}

impl ComparedTarget {
    fn is_same(&self, other: &Self) -> bool {
        let sessions = |target: &Self| target.sessions.as_ref().map(Arc::as_ptr);
        (&self.name, self.role) == (&other.name, other.role) && sessions(self) == sessions(other)
    }
}

impl Comparing {
    /// An experiment of these targets, in their order. `excludes` are those of `config`, made ready.
    #[must_use]
    pub fn new(
        (id, experiment): (ExperimentId, &str),
        config: Option<ComparisonConfig>,
        excludes: Option<Exclusion>,
        targets: Vec<ComparedTarget>,
        (instance, shared): (u64, Shared),
    ) -> Self {
        Self {
            id,
            experiment: experiment.to_owned(),
            targets,
            config,
            excludes,
            instance,
            shared,
            shed: Default::default(),
        }
    }

    /// Whether it is the same: of this configuration, and with the very same targets.
    #[must_use]
    pub fn is_of(&self, config: Option<&ComparisonConfig>, targets: &[ComparedTarget]) -> bool {
        self.config.as_ref() == config
            && self.targets.len() == targets.len()
            && self.targets.iter().zip(targets).all(|(known, target)| known.is_same(target))
    }

    /// Longest content of an answer that is kept, in bytes, before content codings are removed.
    #[must_use]
    pub fn content_bytes(&self) -> usize {
        let rules = self.config.as_ref().map(|config| config.rules.content_bytes);
        rules.unwrap_or_else(|| CompareRules::default().content_bytes).saturating_add(CODING_BYTES)
    }

    /// The memory for answers.
    #[must_use]
    pub const fn budget(&self) -> &Arc<Budget> {
        &self.shared.budget
    }

    /// Whether the answers to a request are compared; they may be read all the same, for sessions.
    #[must_use]
    pub fn compares(&self, request: &Request) -> bool {
        self.config.is_some()
            && self.excludes.as_ref().is_none_or(|excludes| !is_excluded(excludes, &request.flow, request))
    }

    /// Whether a target has values of its own for live's.
    #[must_use]
    pub fn has_sessions(&self) -> bool {
        self.targets.iter().any(|target| target.sessions.is_some())
    }

    /// Notes that an exchange is not compared, though its answers may be there.
    pub fn note_shed(&self, reason: IncomparableReason) {
        if let Some(count) = self.shed.get(reason.index()) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Exchanges that were given up without being handed on, by [`IncomparableReason`]. It only grows.
    #[must_use]
    pub fn shed(&self) -> [u64; IncomparableReason::ALL.len()] {
        self.shed.each_ref().map(|count| count.load(Ordering::Relaxed))
    }

    /// Hands an exchange on, or counts it.
    fn hand_on(&self, exchange: Exchange) {
        if let Err(refused) = self.shared.queue.push(exchange) {
            self.note_shed(IncomparableReason::Busy);
            drop(refused);
        }
    }
}

/// A request with the answers of live and of all targets.
#[derive(Debug)]
pub struct Exchange {
    /// The experiment.
    pub comparing: Arc<Comparing>,
    /// Its number, as in `x-mirror-id`.
    pub id: [u8; MIRROR_ID_BYTES],
    /// The request as live got it.
    pub request: Request,
    /// Live's answer.
    pub live: Answered,
    /// Those of all targets, each with the target's position in [`Comparing::targets`], in their order.
    pub answers: Vec<(usize, Answered)>,
    charge: Charge,
}

impl Exchange {
    /// Its number as text.
    #[must_use]
    pub fn id_text(&self) -> String {
        String::from_utf8_lossy(&self.id).into_owned()
    }

    /// Bytes that it holds.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.charge.bytes()
    }
}

fn is_excluded(excludes: &Exclusion, flow: &FlowKey, request: &Request) -> bool {
    let head = request.raw.get(..request.head_len).unwrap_or_default();
    RequestHead::parse(head).is_ok_and(|head| excludes.fits(flow, &head))
}

/// By how much content may be longer than its limit while it is coded: what cannot be compressed grows by a little.
const CODING_BYTES: usize = 16 * 1024;
