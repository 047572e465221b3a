//! Enters: what each flow holds of a message that is not complete. Leaves: the one that gives way where memory is short.
//!
//! Which that is, goes by what it holds and by how long it has gone without a byte, as the product of the two: whoever
//! sends much, or keeps others waiting, pays for it, and a newcomer does not.

use std::collections::HashMap;

use ahash::RandomState;

use crate::pipeline::{
    FlowKey,
    flow::FlowId,
    list::{Linked, Links, List},
};

/// Flows that hold something, by how much, and the one without progress for longest first.
#[derive(Debug)]
pub(super) struct Holders {
    /// Places by flow.
    index: HashMap<FlowId, u32, RandomState>,
    places: Places,
    /// One for each power of two of bytes.
    by_size: [List; SIZES],
    /// Places that nobody has.
    free: List,
    /// Who made progress last: most often the next one, too.
    latest: (FlowId, u32),
    /// How often any of them made progress: the clock by which patience goes.
    progress: u64,
}

#[derive(Debug)]
struct Places(Vec<Holder>);

#[derive(Debug)]
struct Holder {
    links: Links,
    /// The flow, as the flow table knows it.
    flow: FlowKey,
    /// Which of the lists it stands in.
    size: u8,
    /// What `progress` was at its latest.
    since: u64,
}

/// A place that there is not.
const NOWHERE: u32 = u32::MAX;

/// Sizes that are told apart; all beyond are one.
const SIZES: usize = 32;

/// Places that are kept however few are needed, and not charged.
const LEAST: usize = 64;

impl Linked for Places {
    fn links(&mut self, place: u32) -> Option<&mut Links> {
        self.get_mut(place).map(|holder| &mut holder.links)
    }
}

impl Places {
    fn get(&self, place: u32) -> Option<&Holder> {
        self.0.get(usize::try_from(place).ok()?)
    }

    fn get_mut(&mut self, place: u32) -> Option<&mut Holder> {
        self.0.get_mut(usize::try_from(place).ok()?)
    }
}

impl Holders {
    pub(super) fn new() -> Self {
        Self {
            // Whoever could choose the keys would gain nothing: flows are numbered as they come.
            index: HashMap::with_hasher(RandomState::with_seeds(1, 2, 3, 4)),
            places: Places(Vec::new()),
            by_size: [const { List::new() }; SIZES],
            free: List::new(),
            latest: (FlowId(0), NOWHERE),
            progress: 0,
        }
    }

    /// Notes that a flow has got some of a message of which it holds so many bytes, at least one.
    pub(super) fn note(&mut self, id: FlowId, flow: &FlowKey, bytes: usize) {
        let size = bytes.checked_ilog2().and_then(|size| u8::try_from(size).ok()).unwrap_or(0).min(LARGEST);
        self.progress = self.progress.saturating_add(1);
        let since = self.progress;
        let place = match self.latest {
            (latest, place) if latest == id && place != NOWHERE => Some(place),
            _ => self.index.get(&id).copied(),
        };
        let Some(place) = place else {
            self.add(id, Holder { links: Links::default(), flow: *flow, size, since });
            return;
        };
        self.latest = (id, place);
        let Some(holder) = self.places.get_mut(place) else { return };
        holder.since = since;
        let before = std::mem::replace(&mut holder.size, size);
        if before == size {
            if let Some(list) = self.by_size.get_mut(usize::from(size)) {
                list.move_to_back(&mut self.places, place);
            }
        } else {
            self.take(place, before);
            self.put(place, size);
        }
    }

    /// Notes that a flow holds nothing any more.
    pub(super) fn remove(&mut self, id: FlowId) {
        let Some(place) = self.index.remove(&id) else { return };
        self.latest = (FlowId(0), NOWHERE);
        if let Some(size) = self.places.get(place).map(|holder| holder.size) {
            self.take(place, size);
            self.free.push_back(&mut self.places, place);
        }
        if self.index.is_empty() && self.places.0.capacity() > LEAST {
            *self = Self { progress: self.progress, ..Self::new() };
        }
    }

    /// The flow that gives way.
    pub(super) fn first(&self) -> Option<FlowKey> {
        let fronts = (0_u32..).zip(&self.by_size).filter_map(|(size, list)| Some((size, list.front()?)));
        let holders = fronts.filter_map(|(size, place)| Some((size, self.places.get(place)?)));
        let weight = |(size, holder): &(u32, &Holder)| {
            let waited = self.progress.saturating_sub(holder.since);
            u128::from(waited) << *size
        };
        holders.max_by_key(weight).map(|(_, holder)| holder.flow)
    }

    /// Bytes of memory that this takes.
    pub(super) fn memory_bytes(&self) -> usize {
        /// What a place takes in the index, where at least half of the buckets are in use.
        const INDEX_BYTES: usize = 2 * (size_of::<(FlowId, u32)>() + 1);
        let each = size_of::<Holder>().saturating_add(INDEX_BYTES);
        self.places.0.capacity().saturating_sub(LEAST).saturating_mul(each)
    }

    fn add(&mut self, id: FlowId, holder: Holder) {
        let size = holder.size;
        let place = match self.free.front() {
            Some(place) => {
                self.free.unlink(&mut self.places, place);
                if let Some(free) = self.places.get_mut(place) {
                    *free = holder;
                }
                place
            }
            None => {
                let Ok(place) = u32::try_from(self.places.0.len()) else { return };
                if self.places.0.is_empty() {
                    self.places.0.reserve_exact(LEAST);
                }
                self.places.0.push(holder);
                place
            }
        };
        self.index.insert(id, place);
        self.latest = (id, place);
        self.put(place, size);
    }

    fn put(&mut self, place: u32, size: u8) {
        if let Some(list) = self.by_size.get_mut(usize::from(size)) {
            list.push_back(&mut self.places, place);
        }
    }

    fn take(&mut self, place: u32, size: u8) {
        if let Some(list) = self.by_size.get_mut(usize::from(size)) {
            list.unlink(&mut self.places, place);
        }
    }
}

/// The last of the lists.
#[expect(clippy::cast_possible_truncation, reason = "there are 32")]
const LARGEST: u8 = (SIZES - 1) as u8;

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::pipeline::Endpoint;

    #[test]
    fn one_without_progress_for_longest_gives_way() {
        let mut holders = Holders::new();
        for flow in [1, 2, 1] {
            note(&mut holders, flow, 1000);
        }
        assert_eq!(holders.first(), Some(key(2)));
    }

    #[test]
    fn large_one_gives_way_before_a_small_one_that_waits_longer() {
        let mut holders = Holders::new();
        for (flow, bytes) in [(1, 1 << 10), (2, 1 << 20), (3, 1 << 10)] {
            note(&mut holders, flow, bytes);
        }
        assert_eq!(holders.first(), Some(key(2)));
        // As long as it makes progress now and then.
        for _ in 0..5000 {
            note(&mut holders, 3, 1 << 10);
        }
        note(&mut holders, 2, 1 << 20);
        note(&mut holders, 3, 1 << 10);
        assert_eq!(holders.first(), Some(key(1)));
    }

    #[test]
    fn who_holds_nothing_any_more_leaves_no_trace() {
        let mut holders = Holders::new();
        for bytes in [10, 5000] {
            for flow in 0..1000 {
                note(&mut holders, flow, bytes);
            }
        }
        assert!(holders.memory_bytes() > 0);
        for flow in 0..1000 {
            holders.remove(FlowId(flow));
        }
        assert_eq!((holders.first(), holders.memory_bytes()), (None, 0));
        note(&mut holders, 7, 10);
        assert_eq!(holders.first(), Some(key(7)));
    }

    fn note(holders: &mut Holders, flow: u64, bytes: usize) {
        holders.note(FlowId(flow), &key(flow), bytes);
    }

    fn key(flow: u64) -> FlowKey {
        let end = Endpoint { addr: Ipv4Addr::LOCALHOST.to_ipv6_mapped(), port: u16::try_from(flow).unwrap() };
        FlowKey { client: end, server: end, vlan: 0, vni: 0 }
    }
}
