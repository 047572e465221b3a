//! Enters: exchanges whose live answer is awaited, and the answers of one capture thread. Leaves: each answer where it
//! belongs.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use super::OpenExchange;
use crate::pipeline::{Answered, ExchangeId, Timestamp, reason::IncomparableReason};

/// The exchanges of one capture thread whose live answer has not come. Bounded by count and by age.
#[derive(Debug)]
pub struct Awaiting {
    limit: usize,
    timeout: Duration,
    open: HashMap<ExchangeId, Vec<Arc<OpenExchange>>>,
    /// In the order in which they were opened; those that are not in `open` any more are over.
    since: VecDeque<(Timestamp, ExchangeId)>,
}

impl Awaiting {
    /// At most `limit` requests, each for `timeout`.
    #[must_use]
    pub fn new(limit: usize, timeout: Duration) -> Self {
        Self { limit, timeout, open: HashMap::new(), since: VecDeque::new() }
    }

    /// Awaits live's answer for an exchange of this number. Several experiments may have opened one each.
    pub fn open(&mut self, id: ExchangeId, exchange: Arc<OpenExchange>, now: Timestamp) {
        if let Some(known) = self.open.get_mut(&id) {
            known.push(exchange);
            return;
        }
        while self.open.len() >= self.limit
            && let Some((_, oldest)) = self.since.pop_front()
        {
            self.answered(oldest, &Answered::Not(IncomparableReason::Busy));
        }
        self.open.insert(id, vec![exchange]);
        self.since.push_back((now, id));
        if self.since.len() > 2 * self.open.len() + SPARE {
            let Self { open, since, .. } = self;
            since.retain(|(_, id)| open.contains_key(id));
        }
    }

    /// Takes live's answer to the request of this number.
    pub fn answered(&mut self, id: ExchangeId, answered: &Answered) {
        for exchange in self.open.remove(&id).into_iter().flatten() {
            exchange.live_answered(answered.clone());
        }
    }

    /// Gives up what has been awaited for too long.
    pub fn expire(&mut self, now: Timestamp) {
        while let Some((at, id)) = self.since.front().copied() {
            let is_over = !self.open.contains_key(&id);
            if !is_over && now.since(at) < self.timeout {
                break;
            }
            self.since.pop_front();
            self.answered(id, &Answered::Not(IncomparableReason::Timeout));
        }
    }

    /// Requests whose answer is awaited.
    #[must_use]
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }
}

impl Default for Awaiting {
    fn default() -> Self {
        Self::new(AWAITED_EXCHANGES, LIVE_TIMEOUT)
    }
}

/// Live answers that a capture thread awaits at most: those of 5,000 requests a second that take three seconds.
pub const AWAITED_EXCHANGES: usize = 16 * 1024;

/// How long live may take to answer, from when the request was complete. A target that takes as long has been given up
/// before.
pub const LIVE_TIMEOUT: Duration = Duration::from_secs(30);

/// Entries that may be over before they are looked for.
const SPARE: usize = 1024;
