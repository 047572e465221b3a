//! Enters: segments of all flows, and the time. Leaves: flows that open and close, and the spans between.
//!
//! One look-up a segment; a second one for those that bear another key than the flow was opened with. Flows stand in
//! lists in the order of their last segment, so eviction takes the first: flows in which one side has shown that it
//! hears the other, and flows in which none has, of which a stranger can make any number. Flows that ended stand in a
//! third one until late duplicates of their segments have died out.

use std::{
    collections::HashMap,
    hash::{BuildHasher, BuildHasherDefault, Hasher},
    mem,
};

use ahash::RandomState;

use super::{
    arrival::{Bounds, Fit},
    clock::Clock,
    entry::{Entry, Hashed, Holding, Phase, Recognised, Slots, Streams, affordable_entries, index_bytes},
    handler::{CloseCause, FlowHandler, FlowId, FlowInfo, Outlet},
    holders::{Holders, Rank},
    sightings::Sightings,
    stats::{FlowStats, bump},
};
use crate::pipeline::{
    limits::Limits,
    list::List,
    reason::EvictReason,
    segment::{Endpoint, FlowKey, Segment, Side, TcpFlags},
    time::Timestamp,
};

/// All flows of one pipeline. `S` is the state that the [`FlowHandler`] keeps for each.
#[derive(Debug)]
pub struct FlowTable<S> {
    hasher: RandomState,
    /// Slots by the keyed hash of the flow key, 64 bits wide: the key itself stands in the entry and is compared.
    index: HashMap<u64, u32, BuildHasherDefault<Hashed>>,
    slots: Slots<S>,
    /// Entries in phase `Open` or `Ignored` that are [proven](Entry::is_proven), the one without a segment for longest
    /// first.
    proven: List,
    /// Those that are not, likewise.
    unproven: List,
    /// Entries in phase `Ended`, in the order in which they ended.
    ended: List,
    /// Entries in phase `Free`.
    free: List,
    /// At which interfaces the flows are seen.
    sightings: Sightings,
    /// Sides that hold something out of order.
    holders: Holders,
    /// Bytes held out of order by all flows.
    held_bytes: usize,
    next_id: u64,
    clock: Clock,
    max_entries: usize,
    /// Most bytes that are held out of order, what is known of interfaces included.
    max_held_bytes: usize,
    limits: Limits,
    bounds: Bounds,
    stats: FlowStats,
}

impl<S> FlowTable<S> {
    /// An empty table. `seed` keys the hash: who does not know it cannot make flows collide.
    #[must_use]
    pub fn new(limits: &Limits, seed: u64) -> Self {
        let quarter = limits.memory_bytes / 4;
        let max_entries = affordable_entries::<S>(limits.flows, quarter);
        Self {
            hasher: RandomState::with_seeds(seed, !seed, seed.rotate_left(32), !seed.rotate_left(32)),
            index: HashMap::default(),
            slots: Slots(Vec::new()),
            proven: List::new(),
            unproven: List::new(),
            ended: List::new(),
            free: List::new(),
            sightings: Sightings::new(max_entries),
            holders: Holders::default(),
            held_bytes: 0,
            next_id: 0,
            clock: Clock::default(),
            max_entries,
            max_held_bytes: quarter,
            limits: limits.clone(),
            bounds: Bounds::from(limits),
            stats: FlowStats::default(),
        }
    }

    /// Takes one segment. Spans and closings that it brings about, also of other flows, go to `handler`.
    pub fn handle_segment<H: FlowHandler<State = S>>(&mut self, segment: &Segment<'_>, handler: &mut H) {
        self.clock.note_segment(segment.at);
        if segment.flags.lack_ack() {
            bump(&mut self.stats.side_mut(segment.side).refused, 1);
            return;
        }
        if self.sightings.is_news(segment.interface) {
            self.note_interface(segment.interface);
        }
        let hash = self.hash(&segment.flow);
        let slot = match self.index.get(&hash).copied() {
            Some(slot) => match self.slots.recognise(slot, segment, &self.clock, &self.bounds) {
                Recognised::Known => slot,
                Recognised::Late => return,
                Recognised::Other => {
                    self.vacate(slot, handler);
                    let Some(slot) = self.find_or_open(hash, segment, handler) else { return };
                    slot
                }
            },
            None => {
                let Some(slot) = self.find_or_open(hash, segment, handler) else { return };
                slot
            }
        };
        let (proves, is_guessed) = match self.slots.get_mut(slot).filter(|entry| !entry.is_proven()) {
            Some(entry) => (entry.is_proven_by(segment), entry.is_guessed(segment)),
            None => (false, false),
        };
        if is_guessed && self.bounds.is_causal() {
            bump(&mut self.stats.side_mut(segment.side).refused, 1);
            return;
        }
        if self.apply(slot, segment, handler) == Fit::Plausible {
            if proves {
                self.note_proven(slot, segment);
            }
            self.touch(slot);
        }
        self.settle(slot, handler);
        self.release_held(handler);
    }

    /// Takes the time: evicts what has been idle for too long. Cheap when nothing is due.
    pub fn handle_time<H: FlowHandler<State = S>>(&mut self, now: Timestamp, handler: &mut H) {
        self.clock.set(now);
        self.ask_holders(handler);
        while let Some(slot) = self.quietest() {
            if self.clock.now().since(self.slots.touched_at(slot)) < self.limits.flow_idle {
                break;
            }
            if self.slots.get_mut(slot).is_some_and(|entry| entry.is_ignored()) {
                // Forgotten, it would be taken for new at its next segment. It is small, and the limit still holds.
                self.touch(slot);
                continue;
            }
            self.close(slot, CloseCause::Evicted(EvictReason::Idle), handler);
        }
        while let Some(slot) = self.ended.front() {
            if self.clock.now().since(self.slots.touched_at(slot)) < self.limits.flow_linger {
                break;
            }
            self.forget(slot);
        }
    }

    /// Closes all flows, the one without a segment for longest first.
    pub fn finish<H: FlowHandler<State = S>>(&mut self, now: Timestamp, handler: &mut H) {
        self.clock.set(now);
        while let Some(slot) = self.quietest() {
            self.close(slot, CloseCause::Finished, handler);
        }
        while let Some(slot) = self.ended.front() {
            self.forget(slot);
        }
    }

    /// Takes note that segments of the flows that `is_affected` names may have passed unseen. Each of them that is
    /// assembled is closed and opened again as one whose beginning was not seen; what is sent again of what it has handed
    /// on is still known as old.
    pub fn interrupt<H: FlowHandler<State = S>>(
        &mut self,
        now: Timestamp,
        mut is_affected: impl FnMut(&FlowKey) -> bool,
        handler: &mut H,
    ) {
        self.clock.set(now);
        for slot in 0..u32::try_from(self.slots.0.len()).unwrap_or(u32::MAX) {
            if !self.slots.get_mut(slot).is_some_and(|entry| entry.is_live() && is_affected(&entry.info.key))
            {
                continue;
            }
            self.interrupt_one(slot, now, handler);
        }
    }

    /// The same for one flow, of which nothing passes from `at` on until it is taken up again; by any key that it is known by.
    pub fn let_go<H: FlowHandler<State = S>>(&mut self, at: Timestamp, key: &FlowKey, handler: &mut H) {
        self.clock.note_segment(at);
        let hash = self.hash(key);
        if let Some(slot) = self.index.get(&hash).copied().or_else(|| self.sightings.flow_of(hash)) {
            self.interrupt_one(slot, at, handler);
        }
    }

    /// Has the handler let go of what it holds for the flow that was opened with `key`. `false` where none is open.
    pub fn relieve<H: FlowHandler<State = S>>(&mut self, key: &FlowKey, handler: &mut H) -> bool {
        let Some(slot) = self.index.get(&self.hash(key)).copied() else { return false };
        self.with_streams(slot, handler, |_, _, _, outlet| outlet.relieve()).is_some()
    }

    fn interrupt_one<H: FlowHandler<State = S>>(&mut self, slot: u32, now: Timestamp, handler: &mut H) {
        self.with_streams(slot, handler, |streams, _, stats, outlet| streams.flush(now, stats, outlet));
        self.settle(slot, handler);
        let id = FlowId(self.next_id);
        let Some(entry) = self.slots.get_mut(slot) else { return };
        let Phase::Open(state) = &mut entry.phase else { return };
        self.next_id = self.next_id.saturating_add(1);
        let info = FlowInfo { id, adopted: true, opened_at: now, ..entry.info };
        let before = mem::replace(state, handler.open(&info));
        handler.close(&entry.info, before, CloseCause::Finished, now);
        entry.info = info;
        entry.streams.interrupt();
    }

    /// The time by which flows become idle and patience ends. It only moves forward: to what [`Self::handle_time`] is
    /// told, and, by small steps, with the segments, whose own times may be wrong in a capture file.
    #[must_use]
    pub const fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Flows that are open.
    #[must_use]
    pub fn flows(&self) -> usize {
        self.proven.len().saturating_add(self.unproven.len())
    }

    /// Bytes of memory that the table takes: entries (not what the handler's states own on the heap), what is known of
    /// interfaces, and all that is held out of order.
    #[must_use]
    pub fn bytes_held(&self) -> usize {
        let entries = self.slots.0.capacity().saturating_mul(size_of::<Entry<S>>());
        entries
            .saturating_add(index_bytes(self.index.capacity()))
            .saturating_add(self.sightings.bytes())
            .saturating_add(self.held_bytes)
    }

    /// Bytes of memory that segments held out of order take; a part of [`Self::bytes_held`].
    #[must_use]
    pub const fn reorder_bytes_held(&self) -> usize {
        self.held_bytes
    }

    /// What was counted so far.
    #[must_use]
    pub const fn stats(&self) -> &FlowStats {
        &self.stats
    }

    /// What was counted since this was last called.
    pub fn take_stats(&mut self) -> FlowStats {
        mem::take(&mut self.stats)
    }

    /// The flow of a segment whose key is not that of one: it may be a flow's second observation, else it may open one.
    #[inline(never)]
    fn find_or_open<H: FlowHandler<State = S>>(
        &mut self,
        hash: u64,
        segment: &Segment<'_>,
        handler: &mut H,
    ) -> Option<u32> {
        if self.sightings.has_several() {
            match self.find_elsewhere(hash, segment) {
                Some((slot, Recognised::Known)) => return Some(slot),
                Some((_, Recognised::Late)) => return None,
                Some((_, Recognised::Other)) | None => {}
            }
        }
        self.open(hash, segment, handler)
    }

    /// The flow of which a segment with an unknown key is a second observation.
    fn find_elsewhere(&mut self, hash: u64, segment: &Segment<'_>) -> Option<(u32, Recognised)> {
        if let Some(slot) = self.sightings.flow_of(hash) {
            match self.slots.recognise_alias(slot, segment) {
                Recognised::Other => self.sightings.part(hash),
                found @ (Recognised::Known | Recognised::Late) => return Some((slot, found)),
            }
        }
        let client = self.client_hash(&segment.flow.client);
        let slot = self
            .sightings
            .candidates(client, segment.interface)
            .find(|slot| self.slots.is_same(*slot, segment, &self.bounds))?;
        if self.sightings.join(slot, hash, segment.interface) {
            self.stats.observed_twice = self.stats.observed_twice.saturating_add(1);
        }
        Some((slot, self.slots.recognise_alias(slot, segment)))
    }

    /// Takes note of an interface. With the second one begins the list of who is seen where.
    #[cold]
    fn note_interface(&mut self, interface: u32) {
        let Some(first) = self.sightings.note_interface(interface) else { return };
        for slot in 0..u32::try_from(self.slots.0.len()).unwrap_or(u32::MAX) {
            if let Some(client) = self.slots.get_mut(slot).and_then(|entry| entry.client()) {
                self.sightings.list(slot, self.client_hash(&client), first);
            }
        }
    }

    /// Opens a flow for a segment of an unknown one, if it is one that opens flows: a SYN, or data. A reset is
    /// neither, whatever else it carries.
    fn open<H: FlowHandler<State = S>>(
        &mut self,
        hash: u64,
        segment: &Segment<'_>,
        handler: &mut H,
    ) -> Option<u32> {
        let begins = segment.flags.has(TcpFlags::SYN) || segment.payload_len > 0;
        if !begins || segment.flags.has(TcpFlags::RST) {
            return None;
        }
        self.make_room(handler);
        let adopted = !segment.flags.has(TcpFlags::SYN);
        let info = FlowInfo { id: FlowId(self.next_id), key: segment.flow, adopted, opened_at: segment.at };
        self.next_id = self.next_id.saturating_add(1);
        self.stats.opened = self.stats.opened.saturating_add(1);
        self.stats.adopted = self.stats.adopted.saturating_add(u64::from(adopted));
        let entry = Entry::new(info, handler.open(&info), self.clock.now());
        let slot = match self.free.front() {
            Some(slot) => {
                self.free.unlink(&mut self.slots, slot);
                *self.slots.get_mut(slot)? = entry;
                slot
            }
            None => self.slots.push(entry, self.max_entries)?,
        };
        self.unproven.push_back(&mut self.slots, slot);
        self.index.insert(hash, slot);
        if self.sightings.has_several() {
            self.sightings.list(slot, self.client_hash(&segment.flow.client), segment.interface);
        }
        Some(slot)
    }

    /// Keeps the number of entries within its limit. Flows that are not proven give way first where they are more than
    /// a quarter: fewer are what every busy server has, and without a place they could not become proven.
    fn make_room<H: FlowHandler<State = S>>(&mut self, handler: &mut H) {
        while self.flows().saturating_add(self.ended.len()) >= self.max_entries {
            let is_flooded = self.unproven.len() > self.max_entries / 4;
            let first = if is_flooded { self.unproven.front() } else { self.quietest() };
            if let Some(slot) = self.ended.front() {
                self.forget(slot);
            } else if let Some(slot) = first {
                self.close(slot, CloseCause::Evicted(EvictReason::Limit), handler);
            } else {
                return;
            }
        }
    }

    /// Applies a segment to its flow.
    fn apply<H: FlowHandler<State = S>>(&mut self, slot: u32, segment: &Segment<'_>, handler: &mut H) -> Fit {
        let now = self.clock.now();
        let assembled = self.with_streams(slot, handler, |streams, bounds, stats, outlet| {
            streams.handle_segment(segment, now, bounds, stats, outlet)
        });
        assembled.unwrap_or_else(|| match self.slots.get_mut(slot) {
            Some(entry) => entry.streams.skim(segment, &self.bounds, &mut self.stats),
            None => Fit::OutOfWindow,
        })
    }

    /// Runs `act` on the streams of a flow that is open, and keeps account of what they hold. `None` where the flow
    /// is ignored or has ended.
    fn with_streams<H: FlowHandler<State = S>, R>(
        &mut self,
        slot: u32,
        handler: &mut H,
        act: impl FnOnce(&mut Streams, &Bounds, &mut FlowStats, &mut Outlet<'_, H>) -> R,
    ) -> Option<R> {
        let entry = self.slots.get_mut(slot)?;
        let Phase::Open(state) = &mut entry.phase else { return None };
        let before = entry.streams.holding();
        let mut outlet = Outlet::new(handler, &entry.info, state);
        let result = act(&mut entry.streams, &self.bounds, &mut self.stats, &mut outlet);
        if outlet.is_ignored() {
            entry.ignore();
        }
        let after = entry.streams.holding();
        if before.is_some() || after.is_some() {
            self.account(slot, before.unwrap_or_default(), after.unwrap_or_default());
        }
        Some(result)
    }

    /// Keeps the sum of what is held and the order of the holders.
    fn account(&mut self, slot: u32, before: Holding, after: Holding) {
        self.held_bytes = self.held_bytes.saturating_sub(before.bytes).saturating_add(after.bytes);
        let Some(entry) = self.slots.get_mut(slot) else { return };
        let rank = Rank::of(entry.is_proven(), after.bytes);
        for side in Side::ALL {
            let held = entry.streams.held_mut(side, &self.bounds).map(|(held, due)| (held, rank, due));
            self.holders.note((slot, side), before.standing(side), held);
        }
    }

    /// Gives up gaps, first those of flows that are not proven, then of those that hold most, until all flows together
    /// hold no more than they may.
    fn release_held<H: FlowHandler<State = S>>(&mut self, handler: &mut H) {
        while self.held_bytes > 0
            && self.held_bytes.saturating_add(self.sightings.bytes()) > self.max_held_bytes
        {
            let Some((slot, side)) = self.holders.first() else { return };
            let now = self.clock.now();
            self.with_streams(slot, handler, |streams, _, stats, outlet| {
                streams.give_up_gap(side, now, stats, outlet);
            });
            self.settle(slot, handler);
        }
    }

    /// Lets each side whose patience with a gap has ended declare it.
    fn ask_holders<H: FlowHandler<State = S>>(&mut self, handler: &mut H) {
        let now = self.clock.now();
        for (slot, side) in self.holders.due(now) {
            self.with_streams(slot, handler, |streams, bounds, stats, outlet| {
                streams.handle_time(side, now, bounds, stats, outlet);
            });
            self.settle(slot, handler);
        }
    }

    /// Of the flows that are open, the one without a segment for longest.
    fn quietest(&self) -> Option<u32> {
        let fronts = [self.proven.front(), self.unproven.front()];
        fronts.into_iter().flatten().min_by_key(|slot| self.slots.touched_at(*slot))
    }

    /// Notes that a flow has just had a segment.
    fn touch(&mut self, slot: u32) {
        if let Some(entry) = self.slots.get_mut(slot) {
            entry.touched_at = self.clock.now();
            let list = if entry.is_proven() { &mut self.proven } else { &mut self.unproven };
            list.move_to_back(&mut self.slots, slot);
        }
    }

    /// Notes that a side of a flow hears the other.
    fn note_proven(&mut self, slot: u32, segment: &Segment<'_>) {
        if let Some(entry) = self.slots.get_mut(slot).filter(|entry| !entry.is_proven()) {
            entry.note_proven(segment);
            if let Some(holding) = entry.streams.holding() {
                self.account(slot, holding, holding);
            }
            self.unproven.unlink(&mut self.slots, slot);
            self.proven.push_back(&mut self.slots, slot);
        }
    }

    /// Closes a flow whose sides have both ended.
    fn settle<H: FlowHandler<State = S>>(&mut self, slot: u32, handler: &mut H) {
        if self.slots.get_mut(slot).is_some_and(|entry| entry.is_live() && entry.streams.are_ended()) {
            self.close(slot, CloseCause::Ended, handler);
        }
    }

    /// Makes way for a new connection between the same ends.
    fn vacate<H: FlowHandler<State = S>>(&mut self, slot: u32, handler: &mut H) {
        let Some(entry) = self.slots.get_mut(slot) else { return };
        if entry.is_live() {
            // Where one side ended, the other did too, or the ends would not have come together again.
            let cause = if entry.streams.is_any_ended() {
                CloseCause::Ended
            } else {
                CloseCause::Evicted(EvictReason::Reused)
            };
            self.close(slot, cause, handler);
        }
        if self.slots.get_mut(slot).is_some_and(|entry| entry.is_ended()) {
            self.forget(slot);
        }
    }

    /// Closes a flow: hands on what is held and gives the state back. An entry of a flow that ended stays, so that
    /// late duplicates are known as such.
    fn close<H: FlowHandler<State = S>>(&mut self, slot: u32, cause: CloseCause, handler: &mut H) {
        let now = self.clock.now();
        self.with_streams(slot, handler, |streams, _, stats, outlet| streams.flush(now, stats, outlet));
        let is_proven = self.slots.get_mut(slot).is_some_and(|entry| entry.is_proven());
        let list = if is_proven { &mut self.proven } else { &mut self.unproven };
        list.unlink(&mut self.slots, slot);
        self.ended.push_back(&mut self.slots, slot);
        if let Some(entry) = self.slots.get_mut(slot) {
            entry.touched_at = now;
            if let Phase::Open(state) | Phase::Ignored(state) = mem::replace(&mut entry.phase, Phase::Ended) {
                handler.close(&entry.info, state, cause, now);
            }
        }
        if let CloseCause::Evicted(reason) = cause {
            self.stats.count_eviction(reason);
        }
        if cause != CloseCause::Ended {
            self.forget(slot);
        }
    }

    /// Frees the entry of a flow that has been closed.
    fn forget(&mut self, slot: u32) {
        self.ended.unlink(&mut self.slots, slot);
        self.free.push_back(&mut self.slots, slot);
        if let Some(entry) = self.slots.get_mut(slot) {
            entry.phase = Phase::Free;
            let key = entry.info.key;
            self.index.remove(&self.hash(&key));
            if self.sightings.has_several() {
                self.sightings.strike(slot, self.client_hash(&key.client));
            }
        }
    }

    /// The hash of a key: three wide words rather than eight fields, because each costs a round of the hash.
    fn hash(&self, key: &FlowKey) -> u64 {
        let FlowKey { client, server, vlan, vni } = *key;
        let ports = (u128::from(client.port) << 16) | u128::from(server.port);
        let networks = (u128::from(vlan) << 32) | u128::from(vni);
        let mut hasher = self.hasher.build_hasher();
        hasher.write_u128(client.addr.to_bits());
        hasher.write_u128(server.addr.to_bits());
        hasher.write_u128((ports << 64) | networks);
        hasher.finish()
    }

    /// The hash of a client's address and port.
    fn client_hash(&self, client: &Endpoint) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        hasher.write_u128(client.addr.to_bits());
        hasher.write_u16(client.port);
        hasher.finish()
    }
}
