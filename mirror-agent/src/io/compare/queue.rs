//! Enters: exchanges of which all answers are in, from any thread. Leaves: the same, for the thread that compares them.

use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::Exchange;

/// The bounded queue: capture, replay --exchanges--> compare.
///
/// Its lock is held for a push or a pop, and nothing is freed under it. What does not fit is counted with its experiment
/// and gone: comparing sheds itself, and nobody waits for it.
#[derive(Debug)]
pub struct CompareQueue {
    count_limit: usize,
    bytes_limit: usize,
    waiting: Mutex<Waiting>,
    arrived: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    exchanges: VecDeque<Exchange>,
    bytes: usize,
    /// Whether somebody waits for the next one: waking nobody would still cost a call into the kernel.
    is_awaited: bool,
    is_closed: bool,
}

impl CompareQueue {
    /// An empty queue for at most `count_limit` exchanges, which together hold at most `bytes_limit` bytes.
    #[must_use]
    pub fn new(count_limit: usize, bytes_limit: usize) -> Self {
        Self { count_limit, bytes_limit, waiting: Mutex::default(), arrived: Condvar::new() }
    }

    /// Takes the exchange that came first, waiting for one for `timeout` at most. `None` where none came, or where the
    /// queue is closed and empty.
    #[must_use]
    pub fn pop(&self, timeout: Duration) -> Option<Exchange> {
        let mut waiting = self.lock();
        if waiting.exchanges.is_empty() && !waiting.is_closed && !timeout.is_zero() {
            waiting.is_awaited = true;
            let has_none = |waiting: &mut Waiting| waiting.exchanges.is_empty() && !waiting.is_closed;
            let arrived = self.arrived.wait_timeout_while(waiting, timeout, has_none);
            waiting = arrived.unwrap_or_else(PoisonError::into_inner).0;
            waiting.is_awaited = false;
        }
        let exchange = waiting.exchanges.pop_front()?;
        waiting.bytes = waiting.bytes.saturating_sub(exchange.bytes());
        Some(exchange)
    }

    /// Exchanges that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().exchanges.len()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that they hold.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.lock().bytes
    }

    /// Lets nothing more in.
    pub fn close(&self) {
        self.lock().is_closed = true;
        self.arrived.notify_all();
    }

    /// Whether nothing more comes; what waits may still be taken.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.lock().is_closed
    }

    /// Puts an exchange in, or gives it back where there is no room.
    pub(super) fn push(&self, exchange: Exchange) -> Result<(), Box<Exchange>> {
        let mut waiting = self.lock();
        let bytes = waiting.bytes.saturating_add(exchange.bytes());
        if waiting.is_closed || waiting.exchanges.len() >= self.count_limit || bytes > self.bytes_limit {
            return Err(Box::new(exchange));
        }
        waiting.bytes = bytes;
        waiting.exchanges.push_back(exchange);
        let is_awaited = std::mem::take(&mut waiting.is_awaited);
        drop(waiting);
        if is_awaited {
            self.arrived.notify_one();
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Numbers and a list, changed together in code that cannot panic.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for CompareQueue {
    fn default() -> Self {
        Self::new(QUEUE_EXCHANGES, QUEUE_BYTES)
    }
}

/// Exchanges that may wait to be compared: a twentieth of a second of 20,000 requests a second with small answers, which are
/// compared faster than that; of the largest answers it is what takes a quarter of a minute, and what is told later is of
/// less use than that something was shed.
pub const QUEUE_EXCHANGES: usize = 1024;

/// Bytes that they may hold: half of the memory for answers, so that those that come in have room.
pub const QUEUE_BYTES: usize = super::ANSWER_BYTES / 2;
