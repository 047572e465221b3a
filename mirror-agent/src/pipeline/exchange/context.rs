//! Enters: what the sides of all flows have in common. Leaves: numbers, counts, finished requests and reports.

use std::collections::{BTreeSet, VecDeque};

use crate::pipeline::{
    ExchangeId, Limits, Policy, Request, Stats, Timestamp,
    exchange::report::ExchangeReport,
    reason::{FlowSkipReason, LostReason, SkipReason},
    stats::bump,
};

/// What a pipeline is run for.
#[derive(Clone, Debug)]
pub enum Purpose {
    /// Requests are held whole and handed out for replay, as far as the policy takes them.
    Replay(Policy),
    /// Nothing is held; every exchange is reported.
    Inspect,
}

/// The state that all flows of one pipeline share.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) purpose: Purpose,
    pub(crate) limits: Limits,
    pub(crate) stats: Stats,
    /// Requests ready for replay.
    pub(crate) requests: VecDeque<Request>,
    /// Exchanges that ended, for `inspect`.
    pub(crate) reports: VecDeque<ExchangeReport>,
    /// Exchanges that have begun and are not reported yet, with the time of their first byte.
    pub(crate) open: BTreeSet<(Timestamp, ExchangeId)>,
    /// Bytes allocated for messages being assembled.
    held_bytes: usize,
    /// Requests seen and neither settled nor handed out.
    pub(crate) pending: u64,
    next_id: u64,
}

impl Context {
    pub(crate) fn new(purpose: Purpose, limits: Limits) -> Self {
        Self {
            purpose,
            limits,
            stats: Stats::default(),
            requests: VecDeque::new(),
            reports: VecDeque::new(),
            open: BTreeSet::new(),
            held_bytes: 0,
            pending: 0,
            next_id: 0,
        }
    }

    /// The number of an exchange of which the first byte was seen `at`.
    pub(crate) fn begin(&mut self, at: Timestamp) -> ExchangeId {
        let id = ExchangeId(self.next_id);
        self.next_id = self.next_id.wrapping_add(1);
        if matches!(self.purpose, Purpose::Inspect) {
            self.open.insert((at, id));
        }
        id
    }

    /// Counts a request as seen and gives it a number.
    pub(crate) fn see(&mut self, at: Timestamp) -> ExchangeId {
        self.stats.seen = self.stats.seen.saturating_add(1);
        self.pending = self.pending.saturating_add(1);
        self.begin(at)
    }

    /// Settles a seen request as skipped.
    pub(crate) fn skip(&mut self, reason: SkipReason) {
        self.pending = self.pending.saturating_sub(1);
        bump(&mut self.stats.skipped, reason.index(), 1);
    }

    /// Settles a seen request as lost.
    pub(crate) fn lose(&mut self, reason: LostReason) {
        self.pending = self.pending.saturating_sub(1);
        bump(&mut self.stats.lost, reason.index(), 1);
    }

    /// Hands a seen request out; whoever takes it settles it.
    pub(crate) fn hand_out(&mut self, request: Request) {
        self.pending = self.pending.saturating_sub(1);
        self.requests.push_back(request);
    }

    /// Settles a seen request by a report: `inspect` counts nothing else.
    pub(crate) fn tell(&mut self) {
        self.pending = self.pending.saturating_sub(1);
    }

    /// Reports an exchange that began `at` and is over. One of which not even a head was seen says nothing.
    pub(crate) fn report(&mut self, at: Timestamp, report: ExchangeReport) {
        self.open.remove(&(at, report.id));
        if report.request.is_some() || report.response.is_some() || !report.interim.is_empty() {
            self.reports.push_back(report);
        }
    }

    /// Counts a flow that is not parsed any further.
    pub(crate) fn skip_flow(&mut self, reason: FlowSkipReason) {
        bump(&mut self.stats.flows_skipped, reason.index(), 1);
    }

    /// Whether a message that has `held` bytes may have `more`. Messages may fill half of the memory; the other half is
    /// the flow table's.
    ///
    /// None may have more than is then still free. So messages that never end, however many, leave room for ordinary
    /// ones: a thousand of them can take all but a thousandth.
    pub(crate) fn may_hold(&self, held: usize, more: usize) -> bool {
        let free = (self.limits.memory_bytes / 2).checked_sub(self.held_bytes.saturating_add(more));
        free.is_some_and(|free| held.saturating_add(more) <= free)
    }

    /// Notes that an allocation grew from `before` to `after` bytes, or shrank.
    pub(crate) fn hold(&mut self, before: usize, after: usize) {
        self.held_bytes = self.held_bytes.saturating_add(after).saturating_sub(before);
    }

    /// Bytes allocated for messages being assembled.
    pub(crate) fn held_bytes(&self) -> usize {
        self.held_bytes
    }
}
