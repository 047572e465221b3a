//! Enters: what each side of a flow holds out of order. Leaves: which one is to give something up, since memory is short or
//! its time has come.

use std::collections::BTreeMap;

use super::reorder::Reorder;
use crate::pipeline::{segment::Side, time::Timestamp};

/// Sides that hold something out of order, each by the slot of its flow.
#[derive(Debug, Default)]
pub(super) struct Holders {
    /// In the order in which they give up where memory is short.
    by_rank: BTreeMap<(Rank, u64), (u32, Side)>,
    /// Those for which a time will come, by when.
    by_time: BTreeMap<(Timestamp, u64), (u32, Side)>,
    /// How many there were.
    count: u64,
}

/// Who gives up before whom, the least first. Within a rank it is the one that has held something for longest.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Rank(u32);

impl Rank {
    /// That of a flow that holds so many bytes. One that is not proven comes first, of which a stranger can make any number;
    /// then the largest, as powers of two tell them apart.
    pub(super) fn of(is_proven: bool, bytes: usize) -> Self {
        if is_proven { Self(usize::BITS.saturating_sub(bytes.checked_ilog2().unwrap_or(0))) } else { Self(0) }
    }
}

/// Where a side stands among the holders.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Standing {
    /// Its number, in the order in which holding began; 0 until it is given.
    number: u64,
    rank: Rank,
    /// When it is to be asked whether its patience has ended.
    due: Timestamp,
}

/// A time that does not come.
pub(super) const NEVER: Timestamp = Timestamp::from_nanos(u64::MAX);

impl Holders {
    /// Takes note of what `holder`, which stood where `was` says if it held anything, holds from here on: of which rank
    /// that is, and when it is due.
    pub(super) fn note(
        &mut self,
        holder: (u32, Side),
        was: Option<Standing>,
        is: Option<(&mut Reorder, Rank, Timestamp)>,
    ) {
        let Some((held, rank, due)) = is else {
            return self.strike(was);
        };
        let number = match held.standing.number {
            0 => self.count.saturating_add(1),
            number => number,
        };
        let standing = Standing { number, rank, due };
        if was == Some(standing) {
            return;
        }
        self.strike(was);
        self.count = self.count.max(number);
        held.standing = standing;
        self.by_rank.insert((rank, number), holder);
        if due < NEVER {
            self.by_time.insert((due, number), holder);
        }
    }

    /// Who gives something up next where memory is short.
    pub(super) fn first(&self) -> Option<(u32, Side)> {
        self.by_rank.first_key_value().map(|(_, holder)| *holder)
    }

    /// Whose time has come.
    pub(super) fn due(&self, now: Timestamp) -> Vec<(u32, Side)> {
        self.by_time.range(..=(now, u64::MAX)).map(|(_, holder)| *holder).collect()
    }

    fn strike(&mut self, standing: Option<Standing>) {
        if let Some(Standing { number, rank, due }) = standing {
            self.by_rank.remove(&(rank, number));
            self.by_time.remove(&(due, number));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::pipeline::flow::reorder::Awaited;

    const AT: Timestamp = Timestamp::from_nanos(10);
    const PATIENCE: Duration = Duration::from_nanos(5);

    #[test]
    fn gap_without_an_end_is_never_due_until_it_is_acknowledged() {
        let mut held = Reorder::default();
        held.note_fin(5, AT);
        assert_eq!(held.due(PATIENCE, Duration::MAX), NEVER);
        assert_eq!(held.due(PATIENCE, Duration::from_nanos(7)), Timestamp::from_nanos(17));
        held.awaited = Some(Awaited { mark: 3, since: AT, latest: 3 });
        assert_eq!(held.due(PATIENCE, Duration::MAX), AT.after(PATIENCE));
    }

    #[test]
    fn only_those_whose_time_has_come_are_asked() {
        let (mut holders, mut held) = (Holders::default(), Reorder::default());
        let (end, one) = (NEVER.before(PATIENCE), (1, Side::Client));
        holders.note(one, None, Some((&mut held, Rank::of(false, 1), NEVER)));
        assert_eq!((holders.due(end), holders.first()), (vec![], Some(one)));
        let was = Some(held.standing);
        holders.note(one, was, Some((&mut held, Rank::of(true, 1), AT)));
        assert_eq!((holders.due(AT.before(PATIENCE)), holders.due(AT)), (vec![], vec![one]));
        holders.note(one, Some(held.standing), None);
        assert_eq!((holders.due(end), holders.first()), (vec![], None));
    }
}
