//! Enters: the answers to one request, from several threads, in any order, or that there is none. Leaves: the exchange,
//! once.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Charge, Comparing, Exchange};
use crate::{
    io::replay::{clock, exchange_text},
    pipeline::{Answered, Request, reason::IncomparableReason},
};

/// A request of which answers are awaited. Whoever awaits one shares it, and who lets go last hands the exchange on.
#[derive(Debug)]
pub struct OpenExchange {
    comparing: Arc<Comparing>,
    /// False where the answers are read for sessions alone.
    is_compared: bool,
    pipeline: u16,
    /// `None` once the exchange was handed on.
    request: Option<Request>,
    slots: Mutex<Slots>,
}

/// The lock is held while a value is moved in.
#[derive(Debug)]
struct Slots {
    live: Option<Answered>,
    /// By the position of the target.
    targets: Vec<Option<Answered>>,
    /// For the request and all answers.
    charge: Charge,
}

impl OpenExchange {
    /// Awaits the answers to a request that came from the pipeline of this number. `None` where they are of no use to
    /// the experiment, or where there is no memory for them, which is counted.
    #[must_use]
    pub fn open(comparing: &Arc<Comparing>, pipeline: u16, request: &Request) -> Option<Arc<Self>> {
        let is_compared = comparing.compares(request);
        if !is_compared && !comparing.has_sessions() {
            return None;
        }
        let mut charge = comparing.budget().charge();
        if !charge.grow(request.raw.len().saturating_add(OPEN_BYTES)) {
            if is_compared {
                comparing.note_shed(IncomparableReason::Memory);
            }
            return None;
        }
        let targets = comparing.targets.iter().map(|_| None).collect();
        Some(Arc::new(Self {
            comparing: Arc::clone(comparing),
            is_compared,
            pipeline,
            request: Some(request.clone()),
            slots: Mutex::new(Slots { live: None, targets, charge }),
        }))
    }

    /// Awaits the answer of the target at this position.
    #[must_use]
    pub fn part(self: &Arc<Self>, target: usize) -> Part {
        let target = u16::try_from(target).unwrap_or(u16::MAX);
        Part { cell: Arc::clone(self), target, is_sent: false, is_answered: false }
    }

    /// Takes live's answer. Later ones say nothing.
    pub fn live_answered(&self, answered: Answered) {
        let mut slots = self.lock();
        if slots.live.is_some() {
            return;
        }
        let answered = charged(answered, &mut slots.charge);
        let others = self.comparing.has_sessions().then(|| (answered.clone(), slots.targets.clone()));
        slots.live = Some(answered);
        drop(slots);
        if let Some((live, targets)) = others {
            for (position, answered) in targets.iter().enumerate() {
                self.learn(position, Some(&live), answered.as_ref());
            }
        }
    }

    fn target_answered(&self, target: usize, answered: Answered, charge: Option<Charge>) {
        let has_sessions = self.comparing.targets.get(target).is_some_and(|target| target.sessions.is_some());
        let mut slots = self.lock();
        if let Some(charge) = charge {
            slots.charge.absorb(charge);
        }
        let pair = has_sessions.then(|| (slots.live.clone(), answered.clone()));
        if let Some(slot) = slots.targets.get_mut(target) {
            *slot = Some(answered);
        }
        drop(slots);
        if let Some((live, answered)) = pair {
            self.learn(target, live.as_ref(), Some(&answered));
        }
    }

    /// Remembers what live and a target call the same, where both have answered.
    fn learn(&self, target: usize, live: Option<&Answered>, answered: Option<&Answered>) {
        let sessions = self.comparing.targets.get(target).and_then(|target| target.sessions.as_ref());
        if let (Some(sessions), Some(Answered::Whole(live)), Some(Answered::Whole(answer))) =
            (sessions, live, answered)
        {
            sessions.learn(live, answer, clock::now());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Slots> {
        // Values are moved in whole.
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for OpenExchange {
    fn drop(&mut self) {
        let Some(request) = self.request.take().filter(|_| self.is_compared) else { return };
        let slots = self.slots.get_mut().unwrap_or_else(PoisonError::into_inner);
        let missing = |reason| move || Answered::Not(reason);
        let live = slots.live.take().unwrap_or_else(missing(IncomparableReason::Timeout));
        let answers = slots.targets.drain(..).map(|answer| {
            // Of a target that is being removed there may never have been a copy.
            answer.unwrap_or_else(missing(IncomparableReason::NoCopy))
        });
        let answers = answers.enumerate().collect();
        let charge = std::mem::replace(&mut slots.charge, self.comparing.budget().charge());
        self.comparing.hand_on(Exchange {
            comparing: Arc::clone(&self.comparing),
            id: exchange_text(self.comparing.instance, self.pipeline, request.id),
            request,
            live,
            answers,
            charge,
        });
    }
}

/// The place of one target's answer, in two words: a job without one is no longer for it. Let go without an answer it says that there is none.
#[derive(Debug)]
pub struct Part {
    cell: Arc<OpenExchange>,
    target: u16,
    is_sent: bool,
    is_answered: bool,
}

impl Part {
    /// Notes that a byte of the copy was accepted by a socket: from now on the target has a copy that it does not answer.
    pub const fn sent(&mut self) {
        self.is_sent = true;
    }

    /// Takes the target's answer, and what was charged for it.
    pub fn answered(mut self, answered: Answered, charge: Charge) {
        self.is_answered = true;
        self.cell.target_answered(self.target.into(), answered, Some(charge));
    }

    /// The experiment that it is for.
    #[must_use]
    pub fn comparing(&self) -> &Arc<Comparing> {
        &self.cell.comparing
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.is_answered {
            let reason = if self.is_sent { IncomparableReason::NoAnswer } else { IncomparableReason::NoCopy };
            self.cell.target_answered(self.target.into(), Answered::Not(reason), None);
        }
    }
}

/// Live's answer, if there is memory for it.
fn charged(answered: Answered, charge: &mut Charge) -> Answered {
    match &answered {
        Answered::Whole(answer) if !charge.grow(answer.head.len().saturating_add(answer.content.len())) => {
            Answered::Partly {
                status: answer.status,
                reason: IncomparableReason::Memory,
                timing: answer.timing,
            }
        }
        Answered::Whole(_) | Answered::Partly { .. } | Answered::Not(_) => answered,
    }
}

/// What an exchange takes beside its bytes.
const OPEN_BYTES: usize = 1024;
