//! Enters: a request, and each of its copies. Leaves: both settled, exactly once.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use super::{CopyBooks, DropReason, Ledger, add};
use crate::pipeline::reason::SkipReason;

/// The duty to settle one request, shared by the tickets of its copies.
#[derive(Clone, Debug)]
pub struct Claim(Share);

#[derive(Clone, Debug)]
enum Share {
    /// There is one copy: what becomes of it becomes of the request.
    Sole(Arc<Ledger>),
    Shared(Arc<Settlement>),
}

/// A request of several copies. It is mirrored with the first that is; else, once none is open, dropped if one was, else
/// skipped.
#[derive(Debug)]
struct Settlement {
    ledger: Arc<Ledger>,
    open: AtomicUsize,
    is_mirrored: AtomicBool,
    /// One more than the index of the reason of the first copy that was dropped; 0 for none.
    dropped: AtomicUsize,
    /// The same of the first that was skipped.
    skipped: AtomicUsize,
}

/// What became of a copy.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Mirrored,
    Skipped(SkipReason),
    Dropped(DropReason),
}

impl Claim {
    pub(super) fn new(ledger: &Arc<Ledger>, copies: usize) -> Self {
        let ledger = Arc::clone(ledger);
        Self(if copies == 1 {
            Share::Sole(ledger)
        } else {
            Share::Shared(Arc::new(Settlement {
                ledger,
                open: AtomicUsize::new(copies),
                is_mirrored: AtomicBool::default(),
                dropped: AtomicUsize::default(),
                skipped: AtomicUsize::default(),
            }))
        })
    }

    /// The ticket of one of the copies. There are to be as many as the claim was made for.
    #[must_use]
    pub fn ticket(&self, books: &Arc<CopyBooks>) -> Ticket {
        books.open();
        Ticket(Some((self.clone(), Arc::clone(books))))
    }

    fn settle(&self, fate: Fate) {
        match &self.0 {
            Share::Sole(ledger) => settle_request(ledger, fate),
            Share::Shared(settlement) => settlement.settle(fate),
        }
    }
}

impl Settlement {
    fn settle(&self, fate: Fate) {
        let keep_first = |first: &AtomicUsize, index: usize| {
            // Another copy was first.
            let _known = first.compare_exchange(0, index + 1, Ordering::AcqRel, Ordering::Acquire);
        };
        match fate {
            Fate::Mirrored => {
                if !self.is_mirrored.swap(true, Ordering::AcqRel) {
                    settle_request(&self.ledger, fate);
                }
            }
            Fate::Dropped(reason) => keep_first(&self.dropped, reason.index()),
            Fate::Skipped(reason) => keep_first(&self.skipped, reason.index()),
        }
        if self.open.fetch_sub(1, Ordering::AcqRel) != 1 || self.is_mirrored.load(Ordering::Acquire) {
            return;
        }
        let dropped = self.dropped.load(Ordering::Acquire).checked_sub(1);
        let skipped = self.skipped.load(Ordering::Acquire).checked_sub(1);
        match (dropped, skipped) {
            (Some(index), _) => add(self.ledger.dropped.get(index), 1),
            (None, Some(index)) => add(self.ledger.skipped.get(index), 1),
            (None, None) => {}
        }
    }
}

fn settle_request(ledger: &Ledger, fate: Fate) {
    match fate {
        Fate::Mirrored => add(Some(&ledger.mirrored), 1),
        Fate::Skipped(reason) => add(ledger.skipped.get(reason.index()), 1),
        Fate::Dropped(reason) => add(ledger.dropped.get(reason.index()), 1),
    }
}

/// The duty to settle one copy, and with it its share of the request.
#[derive(Debug)]
pub struct Ticket(Option<(Claim, Arc<CopyBooks>)>);

impl Ticket {
    /// All bytes of the copy were accepted by one socket.
    pub fn mirrored(mut self) {
        self.settle(Fate::Mirrored);
    }

    /// The copy is deliberately not made.
    pub fn skipped(mut self, reason: SkipReason) {
        self.settle(Fate::Skipped(reason));
    }

    /// The copy could not be made.
    pub fn dropped(mut self, reason: DropReason) {
        self.settle(Fate::Dropped(reason));
    }

    fn settle(&mut self, fate: Fate) {
        let Some((claim, books)) = self.0.take() else { return };
        match fate {
            Fate::Mirrored => add(Some(&books.mirrored), 1),
            Fate::Skipped(reason) => add(books.skipped.get(reason.index()), 1),
            Fate::Dropped(reason) => add(books.dropped.get(reason.index()), 1),
        }
        claim.settle(fate);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.settle(Fate::Dropped(DropReason::Shutdown));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::Stats;

    /// A ledger that has seen one request, and the books of two targets.
    fn books() -> (Arc<Ledger>, [Arc<CopyBooks>; 2]) {
        let ledger = Arc::<Ledger>::default();
        ledger.publish(&Stats { seen: 1, ..Stats::default() });
        let books = ["a", "b"].map(|target| ledger.copies("e", target));
        (ledger, books)
    }

    #[test]
    fn request_of_several_copies_is_mirrored_once_by_the_first_that_is() {
        let (ledger, [a, b]) = books();
        let claim = ledger.claim(2);
        let (first, second) = (claim.ticket(&a), claim.ticket(&b));
        first.mirrored();
        let midway = ledger.snapshot();
        assert_eq!((midway.mirrored, midway.pending), (1, 0));
        assert_eq!(midway.copies.iter().map(|copies| copies.pending).collect::<Vec<_>>(), [0, 1]);
        second.mirrored();
        let end = ledger.snapshot();
        assert_eq!((end.mirrored, end.copies.iter().map(|copies| copies.mirrored).sum::<u64>()), (1, 2));
    }

    #[test]
    fn request_is_dropped_if_a_copy_was_and_none_was_mirrored() {
        let (ledger, [a, b]) = books();
        let claim = ledger.claim(2);
        let (first, second) = (claim.ticket(&a), claim.ticket(&b));
        first.skipped(SkipReason::Method);
        assert_eq!(ledger.snapshot().pending, 1);
        second.dropped(DropReason::Connect);
        let end = ledger.snapshot();
        assert_eq!((end.pending, end.dropped[DropReason::Connect.index()]), (0, 1));
        assert_eq!(end.skipped.iter().sum::<u64>(), 0);
    }

    #[test]
    fn ticket_let_go_counts_as_dropped() {
        let (ledger, [a, _]) = books();
        drop(ledger.claim(1).ticket(&a));
        assert_eq!((ledger.dropped(DropReason::Shutdown), ledger.snapshot().pending), (1, 0));
        assert_eq!(a.snapshot().dropped[DropReason::Shutdown.index()], 1);
    }
}
