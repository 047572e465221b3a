//! Enters: the books of the copies, and what is under way to each target. Leaves: their metrics.

use std::{fmt, sync::Arc};

use super::encoder::{Encoder, Labels};
use crate::{
    io::{
        compare::SessionGauges,
        ledger::{CopyBooks, CopySnapshot, DropReason, ReplayOutcome},
        replay::{BreakerState, InterlockGauge},
    },
    pipeline::reason::SkipReason,
};

/// What waits for one target, and is under way to it.
#[derive(Debug)]
pub struct TargetGauges {
    /// Its books, which have the names.
    pub books: Arc<CopyBooks>,
    /// Copies that wait for a connection.
    pub queued: u64,
    /// Bytes of those and of the ones being written.
    pub bytes: u64,
    /// Copies being written or waiting for their answer.
    pub in_flight: u64,
    /// How many may at this moment.
    pub in_flight_limit: u64,
    /// Of its addresses, those that are refused.
    pub addresses_refused: u64,
    /// How its interlock stands; `None` where it has none.
    pub interlock: Option<InterlockGauge>,
    /// Where its circuit breaker stands.
    pub breaker: BreakerState,
    /// How often it has come to stand there, in the order of [`BreakerState::ALL`].
    pub breaker_changes: [u64; BreakerState::ALL.len()],
    /// What it knows by other values than live; `None` where it has no sessions of its own.
    pub sessions: Option<SessionGauges>,
}

impl TargetGauges {
    fn labels(&self) -> Labels<'_> {
        [("experiment", self.books.experiment()), ("target", self.books.target())]
    }
}

pub(super) fn encode_targets(out: &mut Encoder<'_>, targets: &[TargetGauges]) -> fmt::Result {
    out.target_gauges(
        "replay_queue_requests",
        "Copies waiting for a connection to the target",
        targets.iter().map(|target| (target.labels(), target.queued)),
    )?;
    out.target_gauges(
        "replays_in_flight",
        "Copies being written or waiting for their response",
        targets.iter().map(|target| (target.labels(), target.in_flight)),
    )?;
    out.target_gauges(
        "replays_in_flight_limit",
        "Connections that may carry copies to the target at this moment, found by trial",
        targets.iter().map(|target| (target.labels(), target.in_flight_limit)),
    )?;
    out.target_gauges(
        "target_addresses_refused",
        "Addresses of the target that get no copies, since they are the live service's or lead to it",
        targets.iter().map(|target| (target.labels(), target.addresses_refused)),
    )?;
    let interlocks = || targets.iter().filter_map(|target| Some((target.labels(), target.interlock?)));
    out.target_gauges(
        "interlock_open",
        "1 while an address of the target proves that it is a shadow, else 0",
        interlocks().map(|(labels, state)| (labels, u64::from(state.is_open))),
    )?;
    out.target_counters(
        "interlock_changes",
        "How often the interlock of the target opened or closed",
        interlocks().map(|(labels, state)| (labels, state.changes)),
    )?;
    let sessions = || targets.iter().filter_map(|target| Some((target.labels(), target.sessions?)));
    out.target_gauges(
        "session_values",
        "Session values of live's of which the target's is known",
        sessions().map(|(labels, sessions)| (labels, sessions.values)),
    )?;
    out.target_counters(
        "session_substitutions",
        "Session values of live's in copies that were replaced by the target's",
        sessions().map(|(labels, sessions)| (labels, sessions.substitutions)),
    )?;
    out.target_counters(
        "session_unknown",
        "Places in copies where a session value may stand that were sent as they were: none is known there",
        sessions().map(|(labels, sessions)| (labels, sessions.unknown)),
    )?;
    let index = |target: &TargetGauges| u64::try_from(target.breaker.index()).unwrap_or(u64::MAX);
    out.target_gauges(
        "breaker_state",
        "Where the circuit breaker stands: 0 closed, 1 half-open, 2 open",
        targets.iter().map(|target| (target.labels(), index(target))),
    )?;
    out.target_families(
        "breaker_changes",
        "Changes of the circuit breaker's state, by the state that it came to",
        ("to", &BreakerState::LABELS),
        targets.iter().map(|target| (target.labels(), &target.breaker_changes[..])),
    )
}

pub(super) fn encode_copies(out: &mut Encoder<'_>, books: &[CopySnapshot]) -> fmt::Result {
    let each = || books.iter().map(|copies| (labels(copies), copies));
    out.target_counters(
        "copies",
        "Copies to be made, and those left aside",
        each().map(|(labels, copies)| (labels, copies.copies)),
    )?;
    out.target_gauges(
        "copies_pending",
        "Copies that are none of the others yet",
        each().map(|(labels, copies)| (labels, copies.pending)),
    )?;
    out.target_counters(
        "copies_mirrored",
        "Copies of which all bytes were accepted by a socket of the target",
        each().map(|(labels, copies)| (labels, copies.mirrored)),
    )?;
    out.target_families(
        "copies_skipped",
        "Copies deliberately not made",
        ("reason", &SkipReason::LABELS),
        each().map(|(labels, copies)| (labels, &copies.skipped[..])),
    )?;
    out.target_families(
        "copies_dropped",
        "Copies that could not be made",
        ("reason", &DropReason::LABELS),
        each().map(|(labels, copies)| (labels, &copies.dropped[..])),
    )?;
    out.target_families(
        "replays",
        "Attempts to replay a request, by how they ended",
        ("outcome", &ReplayOutcome::LABELS),
        each().map(|(labels, copies)| (labels, &copies.replays[..])),
    )?;
    out.target_histograms(
        "replay_duration_seconds",
        "First byte written to the target to last byte of its response, in seconds",
        each().map(|(labels, copies)| (labels, &copies.replay_duration)),
    )?;
    out.target_histograms(
        "replay_lag_seconds",
        "Last byte of the live request to first byte written to the target, in seconds",
        each().map(|(labels, copies)| (labels, &copies.replay_lag)),
    )
}

fn labels(copies: &CopySnapshot) -> Labels<'_> {
    [("experiment", &copies.experiment), ("target", &copies.target)]
}
