//! Enters: segments of any number of flows. Leaves: requests, reports and counts.

use std::sync::Arc;

use crate::pipeline::{
    Answered, ExchangeId, FlowKey, Limits, Policy, Request, Segment, Side, Stats, Timestamp,
    exchange::{Connection, Context, Probe, Purpose, Unread, report::ExchangeReport},
    flow::FlowTable,
    policy::SkipCounts,
    reason::EvictReason,
};

/// The whole path from segment to request, as one plain value: it has no locks, and scale is several of them.
///
/// After each `handle_*` call, `poll_*` is called until it gives `None`. Time only moves forward.
#[derive(Debug)]
pub struct Pipeline {
    flows: FlowTable<Connection>,
    context: Context,
}

impl Pipeline {
    /// An empty pipeline. `seed` keys the hash of the flow table, since addresses are chosen by strangers, and the
    /// draws of samples.
    #[must_use]
    pub fn new(purpose: Purpose, limits: Limits, seed: u64) -> Self {
        Self { flows: FlowTable::new(&limits, seed), context: Context::new(purpose, limits, seed) }
    }

    /// Takes another policy for the requests whose heads are not complete yet. What was counted under the one before
    /// is to be asked for first.
    pub fn set_policy(&mut self, policy: Arc<Policy>) {
        self.context.set_purpose(Purpose::Replay(policy));
    }

    /// Takes another limit for bodies, in bytes, inclusive.
    pub const fn set_body_limit(&mut self, bytes: usize) {
        self.context.limits.body_bytes = bytes;
    }

    /// Takes another limit for the content of answers that are read, in bytes, inclusive.
    pub const fn set_answer_limit(&mut self, bytes: usize) {
        self.context.limits.answer_bytes = bytes;
    }

    /// Adds to `to` how often each experiment, by its position in the policy, left a request aside since this was last
    /// asked.
    pub fn move_skips(&mut self, to: &mut SkipCounts) {
        self.context.move_skips(to);
    }

    /// Takes the next segment in capture order.
    pub fn handle_segment(&mut self, segment: &Segment<'_>) {
        self.flows.handle_segment(segment, &mut self.context);
        self.relieve();
    }

    /// The time of the flow table: the latest that it was told, moved forward by the segments since.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.flows.now()
    }

    /// Takes the time: idle flows are evicted, gaps are given up.
    pub fn handle_time(&mut self, now: Timestamp) {
        self.flows.handle_time(now, &mut self.context);
        self.relieve();
    }

    /// Takes note that capture was interrupted: what is incomplete is lost, and connections go on as ones whose beginning
    /// was not seen. What is sent again of what was seen before is still known as old.
    pub fn interrupt(&mut self, now: Timestamp) {
        self.interrupt_some(now, |_| true);
    }

    /// The same for the flows that `is_affected` names, where the capture of no others was interrupted.
    pub fn interrupt_some(&mut self, now: Timestamp, is_affected: impl FnMut(&FlowKey) -> bool) {
        self.flows.interrupt(now, is_affected, &mut self.context);
        self.relieve();
    }

    /// The same for one flow: the kernel program has let go of it, and copies nothing of it until it takes it up again.
    pub fn let_go(&mut self, at: Timestamp, flow: &FlowKey) {
        self.flows.let_go(at, flow, &mut self.context);
        self.relieve();
    }

    /// Takes the end of the capture: every flow is closed, what is incomplete is lost.
    pub fn finish(&mut self, now: Timestamp) {
        self.flows.finish(now, &mut self.context);
    }

    /// Requests that are whole and to be replayed, and answers to requests, that nobody has asked for yet.
    #[must_use]
    pub fn ready(&self) -> usize {
        self.context.ready()
    }

    /// The next request that is whole and to be replayed.
    pub fn poll_request(&mut self) -> Option<Request> {
        self.context.poll_request()
    }

    /// What is known of how live answered a request. Of each request that was handed out, and that an experiment took
    /// which reads answers, it is told exactly once, and not before [`poll_request`](Self::poll_request) has given `None`
    /// for the segments up to here; in any order.
    pub fn poll_answer(&mut self) -> Option<(ExchangeId, Answered)> {
        self.context.answers.pop_front()
    }

    /// The next probe that arrived: a marked request of the agent's own that is to show where a target leads.
    pub fn poll_probe(&mut self) -> Option<Probe> {
        self.context.poll_probe()
    }

    /// Whether probes were dropped since this was last asked, for being too many: then one that was not told of may have
    /// arrived.
    pub fn take_dropped_probes(&mut self) -> bool {
        self.context.take_dropped_probes()
    }

    /// What nobody reads of the answers under way, in the order in which it is to be put in force.
    pub fn poll_unread(&mut self) -> Option<Unread> {
        self.context.poll_unread()
    }

    /// The next exchange that ended. Only for [`Purpose::Inspect`].
    pub fn poll_report(&mut self) -> Option<ExchangeReport> {
        self.context.reports.pop_front()
    }

    /// First byte of the exchange that began earliest of those not reported yet. Only for [`Purpose::Inspect`].
    #[must_use]
    pub fn open_since(&self) -> Option<Timestamp> {
        self.context.open.first()
    }

    /// What happened since this was last asked.
    pub fn take_stats(&mut self) -> Stats {
        let mut stats = self.context.stats.take();
        let flows = self.flows.take_stats();
        stats.flows_evicted = EvictReason::ALL.map(|reason| flows.evicted(reason));
        stats.flows_observed_twice = flows.observed_twice;
        stats.gap_bytes = Side::ALL.map(|side| flows.side(side).gap_bytes);
        for side in Side::ALL.map(|side| flows.side(side)) {
            stats.conflicts = stats.conflicts.saturating_add(side.conflicts);
            stats.out_of_window = stats.out_of_window.saturating_add(side.out_of_window);
            stats.refused = stats.refused.saturating_add(side.refused);
        }
        stats
    }

    /// Requests seen that are neither settled nor handed out.
    #[must_use]
    pub fn pending(&self) -> u64 {
        self.context.pending
    }

    /// Flows in the table.
    #[must_use]
    pub fn flows(&self) -> usize {
        self.flows.flows()
    }

    /// Bytes held by the flow table with its reordering, and by messages: those being assembled, and
    /// requests that nobody has asked for yet.
    #[must_use]
    pub fn bytes_held(&self) -> (usize, usize) {
        (self.flows.bytes_held(), self.context.held_bytes())
    }

    /// Has incomplete messages give way until there is room again for whoever comes.
    fn relieve(&mut self) {
        while let Some(flow) = self.context.who_gives_way() {
            if !self.flows.relieve(&flow, &mut self.context) {
                return;
            }
        }
    }
}
