//! Enters: events in slots of time. Leaves: how many there were, in all and within the window.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::pipeline::Timestamp;

/// Slots of a window. A window so reaches back by its length or up to a twelfth less: what is older goes a slot at a time.
pub(super) const SLOTS: usize = 12;

/// Cuts time into slots, where a window is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    slot_nanos: Option<u64>,
    now: u64,
}

impl Clock {
    pub(super) fn new(window: Option<Duration>) -> Self {
        let slots = u128::try_from(SLOTS).unwrap_or(1);
        let slot = |window: Duration| u64::try_from(window.as_nanos().checked_div(slots).unwrap_or(0)).ok();
        Self { slot_nanos: window.and_then(slot).map(|nanos| nanos.max(1)), now: 0 }
    }

    /// Tells the time, which moves only forward: an earlier one changes nothing.
    pub(super) fn advance(&mut self, at: Timestamp) {
        if let Some(nanos) = self.slot_nanos {
            self.now = self.now.max(at.as_nanos().checked_div(nanos).unwrap_or(0));
        }
    }

    /// How many times counting begins within the length of a window: each may be wrong by itself, so they share.
    pub(super) fn starts(self) -> f64 {
        if self.slot_nanos.is_some() { SLOTS as f64 } else { 1.0 }
    }

    /// The slot of the time that was told last; `None` where there is no window.
    pub(super) fn slot(self) -> Option<u64> {
        self.slot_nanos.map(|_| self.now)
    }
}

/// Something for each slot of the window.
#[derive(Clone, Debug)]
pub(super) struct Ring<T> {
    /// The latest slot that was written.
    latest: u64,
    slots: Box<[T; SLOTS]>,
}

impl<T: Default> Ring<T> {
    fn new(slot: u64) -> Self {
        Self { latest: slot, slots: Box::default() }
    }

    /// What is held for this slot, which becomes the latest; what has left the window is let go.
    pub(super) fn at(&mut self, slot: u64) -> Option<&mut T> {
        let slots = self.slots.len();
        let passed = usize::try_from(slot.saturating_sub(self.latest)).unwrap_or(slots).min(slots);
        for back in 0..passed {
            let stale = slot.saturating_sub(u64::try_from(back).unwrap_or(0));
            if let Some(entry) = self.slots.get_mut(index(stale)) {
                *entry = T::default();
            }
        }
        self.latest = self.latest.max(slot);
        self.slots.get_mut(index(slot))
    }

    /// What is held of the window that ends with `slot`, with the slot of each.
    pub(super) fn window(&self, slot: u64) -> impl Iterator<Item = (u64, &T)> {
        let span = u64::try_from(SLOTS).unwrap_or(1);
        let first = self.latest.max(slot).saturating_add(1).saturating_sub(span);
        let kept = self.latest.saturating_add(1).saturating_sub(span);
        (first.max(kept)..=self.latest).filter_map(|slot| Some((slot, self.slots.get(index(slot))?)))
    }

    pub(super) const fn latest(&self) -> u64 {
        self.latest
    }

    /// Adds another ring to this one, slot by slot; the later of the two says what is still in the window.
    pub(super) fn merge(&mut self, other: &Self, add: impl Fn(&mut T, &T)) {
        let latest = self.latest.max(other.latest);
        self.at(latest);
        for (slot, theirs) in other.window(latest) {
            if let Some(mine) = self.slots.get_mut(index(slot)) {
                add(mine, theirs);
            }
        }
    }

    /// The ring in this place, made if there is none.
    pub(super) fn in_place(place: &mut Option<Self>, slot: u64) -> &mut Self {
        place.get_or_insert_with(|| Self::new(slot))
    }
}

fn index(slot: u64) -> usize {
    usize::try_from(slot).unwrap_or(0).checked_rem(SLOTS).unwrap_or(0)
}

/// A count, in all and in the window.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    total: u64,
    recent: Option<Ring<u32>>,
}

impl Tally {
    pub(super) fn add(&mut self, clock: Clock) {
        self.total = self.total.saturating_add(1);
        if let Some(slot) = clock.slot()
            && let Some(count) = Ring::in_place(&mut self.recent, slot).at(slot)
        {
            *count = count.saturating_add(1);
        }
    }

    pub(super) const fn total(&self) -> u64 {
        self.total
    }

    /// What counts for a verdict: that of the window, or all where there is none.
    pub(super) fn current(&self, clock: Clock) -> u64 {
        let Some(slot) = clock.slot() else { return self.total };
        let ring = self.recent.iter().flat_map(|ring| ring.window(slot));
        ring.fold(0, |sum, (_, count)| sum.saturating_add(u64::from(*count)))
    }

    /// The count as it travels.
    pub(super) fn pair(&self, clock: Clock) -> Pair {
        Pair(self.total, self.current(clock))
    }

    /// A count that has travelled: what was in the window elsewhere is so here at the time of `clock`.
    pub(super) fn of(pair: Pair, clock: Clock) -> Self {
        let recent = clock.slot().map(|slot| {
            let mut ring = Ring::new(slot);
            if let Some(count) = ring.at(slot) {
                *count = u32::try_from(pair.1).unwrap_or(u32::MAX);
            }
            ring
        });
        Self { total: pair.0, recent }
    }

    /// Adds another count to this one.
    pub(super) fn merge(&mut self, other: &Self) {
        self.total = self.total.saturating_add(other.total);
        if let Some(theirs) = &other.recent {
            let mine = Ring::in_place(&mut self.recent, theirs.latest);
            mine.merge(theirs, |mine, theirs| *mine = mine.saturating_add(*theirs));
        }
    }
}

/// A count, in all and what counts for a verdict, without the slots: clocks of two machines have nothing in common.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct Pair(pub(super) u64, pub(super) u64);

impl Pair {
    pub(super) const fn add(&mut self, other: Self) {
        self.0 = self.0.saturating_add(other.0);
        self.1 = self.1.saturating_add(other.1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock(at: u64) -> Clock {
        let mut clock = Clock::new(Some(Duration::from_nanos(120)));
        clock.advance(Timestamp::from_nanos(at));
        clock
    }

    #[test]
    fn window_forgets_a_slot_at_a_time() {
        let mut tally = Tally::default();
        for at in [5, 15, 115] {
            tally.add(clock(at));
        }
        assert_eq!(tally.current(clock(119)), 3);
        assert_eq!(tally.current(clock(120)), 2);
        assert_eq!(tally.current(clock(130)), 1);
        assert_eq!(tally.current(clock(1_000)), 0);
        assert_eq!(tally.total(), 3);
    }

    #[test]
    fn slot_that_comes_round_again_begins_at_zero() {
        let mut tally = Tally::default();
        tally.add(clock(5));
        tally.add(clock(125));
        tally.add(clock(500));
        assert_eq!(tally.current(clock(500)), 1);
    }

    #[test]
    fn merged_tallies_keep_their_slots() {
        let (mut early, mut late) = (Tally::default(), Tally::default());
        early.add(clock(5));
        early.add(clock(55));
        late.add(clock(125));
        for (mut one, other) in [(early.clone(), &late), (late.clone(), &early)] {
            one.merge(other);
            assert_eq!((one.total(), one.current(clock(125))), (3, 2));
        }
    }

    #[test]
    fn without_a_window_everything_counts() {
        let mut tally = Tally::default();
        tally.add(Clock::new(None));
        assert_eq!(tally.current(Clock::new(None)), 1);
    }
}
