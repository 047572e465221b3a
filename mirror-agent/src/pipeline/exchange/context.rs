//! Enters: what the sides of all flows have in common. Leaves: numbers, counts, finished requests and reports.

use std::{collections::VecDeque, mem::take, sync::Arc};

use crate::pipeline::{
    Answered, Endpoint, ExchangeId, FlowKey, Limits, Policy, Request, SeqNumber, Stats, Timestamp,
    exchange::{
        holders::Holders,
        open::{Key, OpenExchanges, Part},
        report::ExchangeReport,
    },
    flow::FlowId,
    http::RequestHead,
    policy::{Experiment, Selection, SkipCounts, mix},
    reason::{FlowSkipReason, LostReason, SkipReason},
    stats::bump,
};

/// What a pipeline is run for.
#[derive(Clone, Debug)]
pub enum Purpose {
    /// Requests are held whole and handed out for replay, as far as the policy takes them.
    Replay(Arc<Policy>),
    /// Nothing is held; every exchange is reported.
    Inspect,
}

impl Purpose {
    /// Requests are mirrored as one experiment says.
    #[must_use]
    pub fn replay(experiment: Experiment) -> Self {
        Self::Replay(Arc::new(experiment.into()))
    }
}

/// The state that all flows of one pipeline share.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) purpose: Purpose,
    pub(crate) limits: Limits,
    pub(crate) stats: Stats,
    /// What the experiments of the policy left aside.
    skips: SkipCounts,
    /// The selection made last: the next is most often the same, and then shares it.
    selection: Option<Arc<Selection>>,
    /// Makes the draws of this pipeline others than those of all others.
    seed: u64,
    /// Requests ready for replay.
    requests: VecDeque<Request>,
    /// What is known of how requests were answered, of those that were handed out.
    pub(crate) answers: VecDeque<(ExchangeId, Answered)>,
    /// The request that was handed out last, if its answer is read, and when its last byte was seen.
    asked: Option<(ExchangeId, Timestamp)>,
    /// The flow at hand has requests whose answers are read, and does not pair them.
    pub(crate) misses_answers: bool,
    /// Exchanges that ended, for `inspect`.
    pub(crate) reports: VecDeque<ExchangeReport>,
    /// Exchanges that have begun and are not over, for `inspect`.
    pub(crate) open: OpenExchanges,
    /// Bytes allocated for messages being assembled, and for requests that nobody has taken yet.
    held_bytes: usize,
    /// Flows that hold a message that is not complete.
    holders: Holders,
    /// Requests seen and neither settled nor handed out.
    pub(crate) pending: u64,
    next_id: u64,
    /// What nobody reads of the answers under way.
    unread: VecDeque<Unread>,
    /// Those that arrived.
    probes: VecDeque<Probe>,
    /// More of them arrived than are kept.
    has_dropped_probes: bool,
    /// Of the flow at hand.
    pub(crate) flow_id: FlowId,
}

impl Context {
    pub(crate) fn new(purpose: Purpose, limits: Limits, seed: u64) -> Self {
        let mut context = Self {
            purpose: Purpose::Inspect,
            stats: Stats::default(),
            skips: SkipCounts::default(),
            selection: None,
            seed,
            requests: VecDeque::new(),
            answers: VecDeque::new(),
            asked: None,
            misses_answers: false,
            reports: VecDeque::new(),
            // Nothing else is held of messages then.
            open: OpenExchanges::new(limits.memory_bytes / 2),
            limits,
            held_bytes: 0,
            holders: Holders::new(),
            pending: 0,
            next_id: 0,
            unread: VecDeque::new(),
            probes: VecDeque::new(),
            has_dropped_probes: false,
            flow_id: FlowId(0),
        };
        context.set_purpose(purpose);
        context
    }

    /// Takes another purpose. What was skipped until then has been asked for before.
    pub(crate) fn set_purpose(&mut self, purpose: Purpose) {
        self.skips = SkipCounts::default();
        self.selection = None;
        self.purpose = purpose;
    }

    /// Decides which experiments take a request of `flow`; `Err` holds the reason to skip it.
    pub(crate) fn select(
        &mut self,
        id: ExchangeId,
        flow: &FlowKey,
        head: &RequestHead<'_>,
    ) -> Result<Arc<Selection>, SkipReason> {
        let Self { purpose: Purpose::Replay(policy), skips, selection, seed, .. } = self else {
            return Err(SkipReason::Unmatched);
        };
        let draw = mix(*seed ^ id.0);
        let experiments = policy.decide(flow, head, draw, |left, reason| skips.add(left, reason))?;
        match selection {
            Some(last) if last.experiments == experiments => Ok(Arc::clone(last)),
            _ => {
                let made = Arc::new(Selection { policy: Arc::clone(policy), experiments });
                *selection = Some(Arc::clone(&made));
                Ok(made)
            }
        }
    }

    /// Notes a marked request that may be a probe of the agent's own; whether it is one, whoever sent it knows. Anybody
    /// can send one that looks like it, so only the latest are kept, one for each request.
    pub(crate) fn note_probe(&mut self, flow: &FlowKey, head: &RequestHead<'_>) {
        if matches!(self.purpose, Purpose::Inspect) {
            return;
        }
        let is_mark = |name: &[u8], value| name.eq_ignore_ascii_case(b"x-mirror-id") && is_probe_id(value);
        let Some((_, id)) = head.headers().find(|(name, value)| is_mark(name, value)) else { return };
        if self.probes.len() >= PROBES {
            self.probes.pop_front();
            self.has_dropped_probes = true;
        }
        self.probes.push_back(Probe { id: id.to_vec(), server: flow.server });
    }

    /// The next probe that arrived.
    pub(crate) fn poll_probe(&mut self) -> Option<Probe> {
        self.probes.pop_front()
    }

    /// Whether probes were dropped since this was last asked: then one that was not told of may have arrived.
    pub(crate) fn take_dropped_probes(&mut self) -> bool {
        take(&mut self.has_dropped_probes)
    }

    /// Hands over how often each experiment left a request aside since this was last asked.
    pub(crate) fn move_skips(&mut self, to: &mut SkipCounts) {
        to.absorb(&mut self.skips);
    }

    /// The number of an exchange of which the first byte was seen `at`.
    pub(crate) fn begin(&mut self, at: Timestamp) -> ExchangeId {
        let id = self.next_number();
        if matches!(self.purpose, Purpose::Inspect) {
            self.open.begin((at, id));
        }
        id
    }

    fn next_number(&mut self) -> ExchangeId {
        let id = ExchangeId(self.next_id);
        self.next_id = self.next_id.wrapping_add(1);
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
        self.asked = request.selection.reads_answer().then_some((request.id, request.last_byte_at));
        self.hold(0, ready_bytes(&request));
        self.requests.push_back(request);
    }

    /// The next request that was handed out. From here on it is charged to whoever takes it.
    pub(crate) fn poll_request(&mut self) -> Option<Request> {
        let request = self.requests.pop_front()?;
        self.hold(ready_bytes(&request), 0);
        Some(request)
    }

    /// When the last byte of the request that ended was seen, where it was handed out and its answer is read.
    pub(crate) fn take_asked(&mut self, id: ExchangeId) -> Option<Timestamp> {
        self.asked.take().filter(|(asked, _)| *asked == id).map(|(_, at)| at)
    }

    /// Tells how a request that was handed out was answered.
    pub(crate) fn answer(&mut self, id: ExchangeId, answered: Answered) {
        self.answers.push_back((id, answered));
    }

    /// Tells what nobody reads of a flow's answers.
    pub(crate) fn tell_unread(&mut self, unread: Unread) {
        self.unread.push_back(unread);
    }

    /// What was told of it next.
    pub(crate) fn poll_unread(&mut self) -> Option<Unread> {
        self.unread.pop_front()
    }

    /// Whether the answers of `server` are read.
    pub(crate) fn reads_answers_of(&self, server: &Endpoint) -> bool {
        matches!(&self.purpose, Purpose::Replay(policy) if policy.reads_answers_of(server))
    }

    /// Whether any answers are read.
    pub(crate) fn reads_answers(&self) -> bool {
        matches!(&self.purpose, Purpose::Replay(policy) if policy.reads_answers())
    }

    /// Settles a seen request by a report: `inspect` counts nothing else.
    pub(crate) fn tell(&mut self) {
        self.pending = self.pending.saturating_sub(1);
    }

    /// Keeps a message of an exchange until that is over. What comes after the exchange had to be reported is told apart.
    pub(crate) fn keep(&mut self, key: Key, flow: FlowKey, part: Part) {
        let is_reported = self.open.is_reported(&key);
        let id = if is_reported { self.next_number() } else { key.1 };
        self.open.add(key, id, flow, part, &mut self.reports);
    }

    /// Reports an exchange that is over. One of which not even a head was seen says nothing.
    pub(crate) fn report(&mut self, key: Key) {
        self.reports.extend(self.open.end(key));
    }

    /// Counts what begins like a request and is not taken for one.
    pub(crate) fn note_doubted_start(&mut self) {
        self.stats.starts_doubted = self.stats.starts_doubted.saturating_add(1);
    }

    /// Counts a flow that is not parsed any further.
    pub(crate) fn skip_flow(&mut self, reason: FlowSkipReason) {
        bump(&mut self.stats.flows_skipped, reason.index(), 1);
    }

    /// Whether a message that has `held` bytes may have `more`. Messages may fill half of the memory; the other half is
    /// the flow table's.
    ///
    /// None may have more than is then still free, so the last to come does not take it all.
    pub(crate) fn may_hold(&self, held: usize, more: usize) -> bool {
        let free = self.room().checked_sub(self.held_bytes.saturating_add(more));
        free.is_some_and(|free| held.saturating_add(more) <= free)
    }

    /// Whether so many bytes may be set aside on somebody's word that they will come: where half of the room is free
    /// then, which nobody can miss.
    pub(crate) fn may_set_aside(&self, bytes: usize) -> bool {
        self.held_bytes.saturating_add(bytes) <= self.room() / 2
    }

    /// The flow that is to let go of a message that is not complete: an eighth of the room is kept for whoever comes, so
    /// that requests that never end shut nobody out, however many they are.
    pub(crate) fn who_gives_way(&self) -> Option<FlowKey> {
        let room = self.room();
        if self.held_bytes <= room.saturating_sub(room / 8) { None } else { self.holders.first() }
    }

    /// Notes that the flow at hand, whose key is `flow`, got some of a message of which it holds so many bytes, and that is
    /// not complete.
    pub(crate) fn note_holder(&mut self, flow: &FlowKey, bytes: usize) {
        let before = self.holders.memory_bytes();
        self.holders.note(self.flow_id, flow, bytes);
        self.hold(before, self.holders.memory_bytes());
    }

    /// Notes that the flow at hand holds nothing of a message any more.
    pub(crate) fn strike_holder(&mut self) {
        let before = self.holders.memory_bytes();
        self.holders.remove(self.flow_id);
        self.hold(before, self.holders.memory_bytes());
    }

    /// Bytes that messages may take.
    const fn room(&self) -> usize {
        self.limits.memory_bytes / 2
    }

    /// The same for answers, which must not cost a request: they leave it half of the room for messages.
    pub(crate) fn may_hold_answer(&self, held: usize, more: usize) -> bool {
        self.may_hold(held.max(self.limits.memory_bytes / 4), more)
    }

    /// Notes that an allocation grew from `before` to `after` bytes, or shrank.
    pub(crate) fn hold(&mut self, before: usize, after: usize) {
        self.held_bytes = self.held_bytes.saturating_add(after).saturating_sub(before);
    }

    /// Requests, and answers to requests, that nobody has taken yet.
    pub(crate) fn ready(&self) -> usize {
        self.requests.len().saturating_add(self.answers.len())
    }

    /// Bytes allocated for messages being assembled, and for requests that nobody has taken yet.
    pub(crate) fn held_bytes(&self) -> usize {
        self.held_bytes
    }
}

/// What a request takes that is handed out. One of a few bytes takes many times its length.
fn ready_bytes(request: &Request) -> usize {
    size_of::<Request>().saturating_add(request.raw.len())
}

/// A run of what the server of a flow sends that nobody reads: whoever captures need not copy it, only tell its length.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Unread {
    /// The flow, as its packets say where it was seen first.
    pub flow: FlowKey,
    /// Sequence number of the first byte.
    pub seq: SeqNumber,
    /// Length in bytes; 0 where all that comes is read again.
    pub len: u32,
}

/// A marked request that may be a probe: one by which the agent finds out where a target leads.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Probe {
    /// Its `x-mirror-id`.
    pub id: Vec<u8>,
    /// The server at which it arrived, as its packets said where it was seen first.
    pub server: Endpoint,
}

/// The `x-mirror-id` of a probe: a request that is to show where a target leads.
#[must_use]
pub fn probe_id(number: u64) -> String {
    format!("{PROBE_PREFIX}{number:0PROBE_DIGITS$x}")
}

/// Whether an `x-mirror-id` is one that [`probe_id`] makes.
fn is_probe_id(id: &[u8]) -> bool {
    let is_digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    id.strip_prefix(PROBE_PREFIX.as_bytes())
        .is_some_and(|number| number.len() == PROBE_DIGITS && number.iter().all(is_digit))
}

/// With what it begins.
const PROBE_PREFIX: &str = "probe-";

/// Hexadecimal digits of its number.
const PROBE_DIGITS: usize = 16;

/// Probes that are kept until they are asked for, which is after every record of the ring. One of 64 KiB holds no more,
/// however short; but a byte that comes late can release many others.
const PROBES: usize = 2048;
