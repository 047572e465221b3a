//! Enters: what the replay to a target has and knows. Leaves: the same for whoever asks.

use std::{
    net::SocketAddr,
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::{
    Refusal,
    breaker::BreakerState,
    interlock::{Gate, InterlockGauge},
    protection::BreakerGauges,
};

/// Figures of the replay at this moment.
#[derive(Debug, Default)]
pub struct Gauges {
    pub(super) open: AtomicUsize,
    pub(super) idle: AtomicUsize,
    pub(super) limit: AtomicUsize,
    pub(super) addresses: Mutex<Vec<SocketAddr>>,
    pub(super) refused: AtomicUsize,
    pub(super) breaker: BreakerGauges,
    /// `None` where the target need not prove that it is a shadow.
    pub(super) gate: Option<Gate>,
    /// Why it gets no copies, if it does not; once that is known.
    pub(super) verdict: OnceLock<Option<Refusal>>,
}

impl Gauges {
    /// Connections that carry a request or are being opened for one.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        let idle = self.idle();
        self.open.load(Ordering::Relaxed).saturating_sub(idle)
    }

    /// How many may at this moment, which finds itself below what is configured.
    #[must_use]
    pub fn in_flight_limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }

    /// Open connections that wait for the next request.
    #[must_use]
    pub fn idle(&self) -> usize {
        self.idle.load(Ordering::Relaxed)
    }

    /// The addresses of the target, as it was resolved last.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Of the addresses that the target stood for when they were judged last, those that get no copies since they are live's or
    /// lead to it.
    #[must_use]
    pub fn addresses_refused(&self) -> usize {
        self.refused.load(Ordering::Relaxed)
    }

    /// How the interlock stands; `None` where the target has none.
    #[must_use]
    pub fn interlock(&self) -> Option<InterlockGauge> {
        self.gate.as_ref().map(Gate::gauge)
    }

    /// Whether the target was refused when it was judged first, and why; `None` before it was.
    #[must_use]
    pub fn verdict(&self) -> Option<Option<Refusal>> {
        self.verdict.get().copied()
    }

    /// Where the circuit breaker stands; closed where there is none.
    #[must_use]
    pub fn breaker(&self) -> BreakerState {
        self.breaker.state()
    }

    /// How often it has come to stand there, in the order of [`BreakerState::ALL`].
    #[must_use]
    pub fn breaker_changes(&self) -> [u64; BreakerState::ALL.len()] {
        self.breaker.changes()
    }
}
