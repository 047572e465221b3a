//! Enters: the parts of a running agent. Leaves: what its listener and its replays ask of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use tracing::warn;

use super::lock;
use crate::{
    io::{
        admin::Health,
        capture::{
            CounterValues, Kernel, KernelCounters, Matched, OwnSockets, OwnSocketsError, PortSample,
            follow::Attached, role::Role,
        },
        experiments::{Directory, Lane},
        guard::{GuardGauges, GuardValues},
        metrics::{Gauges, TargetGauges},
        replay::{Arrived, Hook, OwnSocketRegistry, clock},
        steering::{AnyError, Tap},
        worker::{Heartbeat, Orders},
    },
    pipeline::Timestamp,
};

/// The kernel's list of own sockets, shared by the tasks of the replay.
pub(super) struct Registry(Mutex<OwnSockets>);

impl Registry {
    pub(super) const fn new(sockets: OwnSockets) -> Self {
        Self(Mutex::new(sockets))
    }

    fn with(&self, change: impl FnOnce(&mut OwnSockets) -> Result<(), OwnSocketsError>) {
        let mut sockets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = change(&mut sockets) {
            // The mark and the marker headers still tell copies from live requests.
            warn!(%error, "The kernel program could not be told of a replay connection.");
        }
    }
}

impl OwnSocketRegistry for Registry {
    fn opened(&self, local: SocketAddr, is_marked: bool) {
        self.with(|sockets| sockets.insert(local, is_marked));
    }

    fn closed(&self, local: SocketAddr) {
        self.with(|sockets| sockets.remove(local));
    }
}

/// The kernel program, and the capture threads that have to know of its pauses.
pub(super) struct KernelTap {
    pub(super) kernel: Arc<Mutex<Kernel>>,
    pub(super) orders: Arc<Orders>,
}

impl Tap for KernelTap {
    fn take_less(&mut self, matched: &Matched) -> Result<(), AnyError> {
        Ok(lock(&self.kernel).take_less(matched)?)
    }

    fn take_more(&mut self, matched: &Matched) -> Result<(), AnyError> {
        Ok(lock(&self.kernel).take_more(matched)?)
    }

    fn set_samples(&mut self, samples: &[PortSample]) -> Result<(), AnyError> {
        Ok(lock(&self.kernel).set_samples(samples)?)
    }

    fn set_answer_ports(&mut self, ports: &BTreeSet<u16>) -> Result<(), AnyError> {
        Ok(lock(&self.kernel).set_answer_ports(ports)?)
    }

    fn set_paused(&mut self, is_paused: bool) -> Result<(), AnyError> {
        lock(&self.kernel).set_paused(is_paused)?;
        self.orders.set_paused(is_paused);
        Ok(())
    }
}

/// What the metrics ask for.
#[derive(Debug)]
pub(super) struct AgentGauges {
    pub(super) counters: Arc<KernelCounters>,
    pub(super) ring_bytes: u64,
    pub(super) directory: Arc<Directory>,
    pub(super) attached: Arc<Attached>,
    pub(super) guard: Arc<GuardGauges>,
}

impl Gauges for AgentGauges {
    fn kernel_counts(&self) -> CounterValues {
        // The map was made by this process; if it cannot be read, zeros show that something is very wrong.
        self.counters.read().unwrap_or_default()
    }

    fn ring_bytes(&self) -> u64 {
        self.ring_bytes
    }

    fn targets(&self) -> Vec<TargetGauges> {
        let count = |value| u64::try_from(value).unwrap_or(u64::MAX);
        let table = self.directory.table();
        let of_lane = |lane: &Lane| TargetGauges {
            books: Arc::clone(&lane.books),
            queued: count(lane.queue.len()),
            bytes: count(lane.queue.held_bytes()),
            in_flight: count(lane.gauges.in_flight()),
            in_flight_limit: count(lane.gauges.in_flight_limit()),
            addresses_refused: count(lane.gauges.addresses_refused()),
            interlock: lane.gauges.interlock(),
            breaker: lane.gauges.breaker(),
            breaker_changes: lane.gauges.breaker_changes(),
            sessions: lane.sessions.as_ref().map(|sessions| sessions.gauges(clock::now())),
        };
        table.lanes.iter().map(of_lane).collect()
    }

    fn interfaces_attached(&self) -> [u64; Role::ALL.len()] {
        self.attached.counts()
    }

    fn interfaces(&self) -> BTreeMap<u32, String> {
        self.attached.names()
    }

    fn guard(&self) -> GuardValues {
        self.guard.read()
    }
}

/// What probes have to know of the capture.
pub(super) struct OwnHook {
    /// Whether it is attached.
    pub(super) attached: Arc<AtomicBool>,
    pub(super) orders: Arc<Orders>,
    pub(super) counters: Arc<KernelCounters>,
    pub(super) guard: Arc<GuardGauges>,
    pub(super) heartbeats: Vec<Arc<Heartbeat>>,
}

impl Hook for OwnHook {
    fn is_watching(&self) -> bool {
        self.attached.load(Ordering::Acquire) && !self.orders.is_paused()
    }

    fn pauses(&self) -> u64 {
        self.orders.pauses()
    }

    fn arrived(&self) -> Arrived {
        let counts = self.counters.read().unwrap_or_default();
        Arrived { taken: counts.frames_captured(), overlooked: counts.overlooked() }
    }

    fn shed_millionths(&self) -> u32 {
        self.guard.shed_millionths()
    }

    fn has_read_until(&self, at: Timestamp) -> bool {
        self.heartbeats.iter().all(|heartbeat| heartbeat.has_read_until(at))
    }
}

#[derive(Debug)]
pub(super) struct Heartbeats(pub(super) Vec<Arc<Heartbeat>>);

impl Health for Heartbeats {
    fn is_alive(&self) -> bool {
        self.0.iter().all(|heartbeat| heartbeat.is_alive())
    }
}
