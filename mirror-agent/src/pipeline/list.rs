//! Enters: slot numbers. Leaves: the same in the order in which they were put in, each removable at once.
//!
//! A doubly linked list whose links live in the slots themselves: no operation allocates or searches.

/// The neighbours of a slot in the one list that it stands in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Links {
    prev: u32,
    next: u32,
}

/// No slot.
const NIL: u32 = u32::MAX;

impl Default for Links {
    fn default() -> Self {
        Self { prev: NIL, next: NIL }
    }
}

/// Slots that carry [`Links`].
pub(super) trait Linked {
    /// The links of `slot`; `None` where there is no such slot.
    fn links(&mut self, slot: u32) -> Option<&mut Links>;
}

/// The two ends of a list.
#[derive(Debug)]
pub(super) struct List {
    head: u32,
    tail: u32,
    len: usize,
}

impl List {
    pub(super) const fn new() -> Self {
        Self { head: NIL, tail: NIL, len: 0 }
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// The slot that was put in first.
    pub(super) const fn front(&self) -> Option<u32> {
        if self.head == NIL { None } else { Some(self.head) }
    }

    /// Puts in a slot that stands in no list.
    pub(super) fn push_back(&mut self, slots: &mut impl Linked, slot: u32) {
        if let Some(links) = slots.links(slot) {
            *links = Links { prev: self.tail, next: NIL };
            match slots.links(self.tail) {
                Some(last) => last.next = slot,
                None => self.head = slot,
            }
            self.tail = slot;
            self.len = self.len.saturating_add(1);
        }
    }

    /// Takes out a slot that stands in this list.
    pub(super) fn unlink(&mut self, slots: &mut impl Linked, slot: u32) {
        if let Some(links) = slots.links(slot) {
            let Links { prev, next } = std::mem::take(links);
            match slots.links(prev) {
                Some(before) => before.next = next,
                None => self.head = next,
            }
            match slots.links(next) {
                Some(behind) => behind.prev = prev,
                None => self.tail = prev,
            }
            self.len = self.len.saturating_sub(1);
        }
    }

    /// Makes `slot`, which stands in this list, the last one.
    pub(super) fn move_to_back(&mut self, slots: &mut impl Linked, slot: u32) {
        if self.tail != slot {
            self.unlink(slots, slot);
            self.push_back(slots, slot);
        }
    }
}
