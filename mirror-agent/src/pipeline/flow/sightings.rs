//! Enters: flows as they open and go, each with its interface. Leaves: for a key that belongs to no flow, the flows that
//! may be the same connection as seen at another interface.
//!
//! A connection that passes two attached interfaces bears other addresses, tags or networks at the second where
//! something between them translates, tags or encapsulates. Its client's address and port are the same, unless those
//! are what is translated. So flows are listed by them, the newest first, and a key once recognised is remembered as
//! an **alias** of its flow until the flow is forgotten. Whether a segment is of a flow found here, its numbers must
//! say: that is for the table to decide.
//!
//! All of this is empty until a second interface shows up.

use std::{collections::HashMap, hash::BuildHasherDefault, iter, mem};

use super::entry::{Hashed, index_bytes};

/// No slot, no place, no interface: the kernel's indices are signed.
const NIL: u32 = u32::MAX;

/// Flows of one client's address and port that are looked at, the newest first. A client that uses one port for many
/// servers at once makes no segment dearer than this; the second observation of a connection comes within moments of
/// the first, so that few others lie between.
const MAX_CANDIDATES: usize = 8;

/// Where each flow is seen, and as what.
#[derive(Debug)]
pub(super) struct Sightings {
    /// The interface of the first segment of all, which is that of all flows while there is only one; [`NIL`] before.
    first: u32,
    has_several: bool,
    /// By slot.
    nodes: Vec<Node>,
    /// The newest flow of a client, by the keyed hash of its address and port.
    newest: HashMap<u64, u32, BuildHasherDefault<Hashed>>,
    /// The slot of an alias, by the keyed hash of its key. The key itself is not kept: of 2^64 hashes that nobody can
    /// foresee no two meet.
    slots: HashMap<u64, u32, BuildHasherDefault<Hashed>>,
    /// The aliases of each flow, in lists that begin in its node.
    aliases: Vec<Alias>,
    /// The first of those in `aliases` that stand for nothing.
    free: u32,
    /// Aliases there may be.
    max_aliases: usize,
}

/// What is kept of a flow.
#[derive(Clone, Copy, Debug)]
struct Node {
    /// The interface at which its first segment was seen.
    interface: u32,
    /// Its neighbours among the flows of its client.
    newer: u32,
    older: u32,
    /// Its aliases.
    aliases: u32,
}

impl Node {
    const NONE: Self = Self { interface: 0, newer: NIL, older: NIL, aliases: NIL };
}

/// Another key of a flow.
#[derive(Clone, Copy, Debug)]
struct Alias {
    hash: u64,
    interface: u32,
    next: u32,
}

impl Sightings {
    /// Nothing seen; room for so many aliases.
    pub(super) fn new(max_aliases: usize) -> Self {
        Self {
            first: NIL,
            has_several: false,
            nodes: Vec::new(),
            newest: HashMap::default(),
            slots: HashMap::default(),
            aliases: Vec::new(),
            free: NIL,
            max_aliases,
        }
    }

    /// Whether `interface` is one that [`Self::note_interface`] wants to know of.
    pub(super) const fn is_news(&self, interface: u32) -> bool {
        self.first != interface && !self.has_several
    }

    /// Takes note of an interface. Where it is the second one, gives the first: all flows there are were seen at that
    /// one, and are to be listed.
    pub(super) fn note_interface(&mut self, interface: u32) -> Option<u32> {
        if self.first == NIL {
            self.first = interface;
        }
        self.has_several |= self.first != interface;
        self.has_several.then_some(self.first)
    }

    /// Whether more than one interface was seen.
    pub(super) const fn has_several(&self) -> bool {
        self.has_several
    }

    /// Lists a flow that is not listed.
    pub(super) fn list(&mut self, slot: u32, client: u64, interface: u32) {
        let Ok(idx) = usize::try_from(slot) else { return };
        if self.nodes.len() <= idx {
            self.nodes.resize(idx.saturating_add(1), Node::NONE);
        }
        let older = self.newest.insert(client, slot).unwrap_or(NIL);
        if let Some(node) = self.node_mut(older) {
            node.newer = slot;
        }
        if let Some(node) = self.nodes.get_mut(idx) {
            *node = Node { interface, newer: NIL, older, aliases: NIL };
        }
    }

    /// Strikes a flow that is listed off the list, and its aliases.
    pub(super) fn strike(&mut self, slot: u32, client: u64) {
        let Some(node) = self.node_mut(slot) else { return };
        let Node { newer, older, mut aliases, .. } = mem::replace(node, Node::NONE);
        if let Some(node) = self.node_mut(older) {
            node.newer = newer;
        }
        match self.node_mut(newer) {
            Some(node) => node.older = older,
            None if older == NIL => {
                self.newest.remove(&client);
            }
            None => {
                self.newest.insert(client, older);
            }
        }
        while let Some(hash) = self.alias(aliases).map(|alias| alias.hash) {
            self.slots.remove(&hash);
            aliases = self.release(aliases);
        }
    }

    /// The flow of which a key is an alias.
    pub(super) fn flow_of(&self, key: u64) -> Option<u32> {
        self.slots.get(&key).copied()
    }

    /// The flows of a client that were not seen at `interface` under any key of which something is known, the newest
    /// first.
    pub(super) fn candidates(&self, client: u64, interface: u32) -> impl Iterator<Item = u32> {
        let newest = self.newest.get(&client).copied();
        let older = |slot: &u32| self.node(*slot).map(|node| node.older).filter(|older| *older != NIL);
        iter::successors(newest, older)
            .take(MAX_CANDIDATES)
            .filter(move |slot| !self.is_seen_at(*slot, interface))
    }

    /// Makes a key an alias of a flow. Whether it is the flow's first one.
    pub(super) fn join(&mut self, slot: u32, key: u64, interface: u32) -> bool {
        let Some(next) = self.node(slot).map(|node| node.aliases) else { return false };
        let alias = Alias { hash: key, interface, next };
        let place = if let Some(free) = self.alias(self.free).copied() {
            let place = mem::replace(&mut self.free, free.next);
            if let Some(old) = self.alias_mut(place) {
                *old = alias;
            }
            place
        } else if self.aliases.len() < self.max_aliases
            && let Ok(place) = u32::try_from(self.aliases.len())
        {
            self.aliases.push(alias);
            place
        } else {
            // Its segments find the flow by their numbers, each time.
            return false;
        };
        if let Some(node) = self.node_mut(slot) {
            node.aliases = place;
        }
        self.slots.insert(key, slot);
        next == NIL
    }

    /// Lets a key be no alias any more.
    pub(super) fn part(&mut self, key: u64) {
        let Some(slot) = self.slots.remove(&key) else { return };
        let (mut before, mut place) = (NIL, self.node(slot).map_or(NIL, |node| node.aliases));
        while let Some(Alias { hash, next, .. }) = self.alias(place).copied() {
            if hash != key {
                (before, place) = (place, next);
                continue;
            }
            if let Some(before) = self.alias_mut(before) {
                before.next = next;
            } else if let Some(node) = self.node_mut(slot) {
                node.aliases = next;
            }
            self.release(place);
            return;
        }
    }

    /// Bytes of memory that all this takes.
    pub(super) fn bytes(&self) -> usize {
        let nodes = self.nodes.capacity().saturating_mul(size_of::<Node>());
        let aliases = self.aliases.capacity().saturating_mul(size_of::<Alias>());
        let indices = index_bytes(self.newest.capacity()).saturating_add(index_bytes(self.slots.capacity()));
        nodes.saturating_add(aliases).saturating_add(indices)
    }

    /// Whether a flow is seen at an interface, as far as is known: where it opened, and where it has an alias.
    fn is_seen_at(&self, slot: u32, interface: u32) -> bool {
        let Some(node) = self.node(slot) else { return false };
        let first = self.alias(node.aliases).copied();
        // A flow has one alias an interface at most, or it would not be asked for another.
        let mut aliases = iter::successors(first, |alias| self.alias(alias.next).copied());
        node.interface == interface || aliases.any(|alias| alias.interface == interface)
    }

    /// Frees the place of an alias and gives the next one of its flow.
    fn release(&mut self, place: u32) -> u32 {
        let free = mem::replace(&mut self.free, place);
        match self.alias_mut(place) {
            Some(alias) => mem::replace(&mut alias.next, free),
            None => NIL,
        }
    }

    fn node(&self, slot: u32) -> Option<&Node> {
        self.nodes.get(usize::try_from(slot).ok()?)
    }

    fn node_mut(&mut self, slot: u32) -> Option<&mut Node> {
        self.nodes.get_mut(usize::try_from(slot).ok()?)
    }

    fn alias(&self, place: u32) -> Option<&Alias> {
        self.aliases.get(usize::try_from(place).ok()?)
    }

    fn alias_mut(&mut self, place: u32) -> Option<&mut Alias> {
        self.aliases.get_mut(usize::try_from(place).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Some client.
    const CLIENT: u64 = 77;

    fn seen_at_two() -> Sightings {
        let mut sightings = Sightings::new(4);
        assert_eq!(sightings.note_interface(1), None);
        assert_eq!(sightings.note_interface(1), None);
        assert_eq!(sightings.note_interface(2), Some(1));
        sightings
    }

    fn candidates(sightings: &Sightings, interface: u32) -> Vec<u32> {
        sightings.candidates(CLIENT, interface).collect()
    }

    #[test]
    fn flows_of_a_client_are_found_newest_first_and_not_at_an_interface_that_has_seen_them() {
        let mut sightings = seen_at_two();
        for slot in 0..3 {
            sightings.list(slot, CLIENT, 1 + slot % 2);
        }
        assert_eq!(candidates(&sightings, 3), [2, 1, 0]);
        assert_eq!(candidates(&sightings, 1), [1]);
        assert!(sightings.join(1, 500, 3));
        assert_eq!(candidates(&sightings, 3), [2, 0]);
        assert_eq!(sightings.candidates(CLIENT + 1, 3).count(), 0);
    }

    #[test]
    fn no_more_than_the_newest_are_looked_at() {
        let mut sightings = seen_at_two();
        for slot in 0..100 {
            sightings.list(slot, CLIENT, 1);
        }
        assert_eq!(candidates(&sightings, 2), [99, 98, 97, 96, 95, 94, 93, 92]);
    }

    #[test]
    fn flows_leave_their_list_from_any_place_and_take_their_aliases_along() {
        for order in [[0, 1, 2], [1, 0, 2], [1, 2, 0], [2, 1, 0]] {
            let mut sightings = seen_at_two();
            for slot in 0..3 {
                sightings.list(slot, CLIENT, 1);
                sightings.join(slot, 500 + u64::from(slot), 2);
            }
            let mut left = vec![2, 1, 0];
            for slot in order {
                sightings.strike(slot, CLIENT);
                left.retain(|other| *other != slot);
                assert_eq!(candidates(&sightings, 3), left);
                assert_eq!(sightings.flow_of(500 + u64::from(slot)), None);
            }
            assert!(sightings.newest.is_empty() && sightings.slots.is_empty());
        }
    }

    #[test]
    fn aliases_come_and_go_in_the_same_places_and_no_more_than_allowed() {
        let mut sightings = seen_at_two();
        sightings.list(0, CLIENT, 1);
        for round in 0..10 {
            assert!(sightings.join(0, round, 2));
            assert!(!sightings.join(0, round + 100, 3));
            assert!(!sightings.join(0, round + 200, 4));
            sightings.part(round + 100);
            assert_eq!(sightings.flow_of(round + 100), None);
            assert_eq!((sightings.flow_of(round), sightings.flow_of(round + 200)), (Some(0), Some(0)));
            sightings.part(round + 200);
            sightings.part(round);
            sightings.part(round);
        }
        assert_eq!(sightings.aliases.len(), 3);
        for key in 0..10 {
            sightings.join(0, key, 5);
        }
        assert_eq!((sightings.aliases.len(), sightings.slots.len()), (4, 4));
        assert!(sightings.bytes() > 0);
    }
}
