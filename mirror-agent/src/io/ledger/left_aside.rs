//! Enters: what experiments left aside, as one capture thread counts it. Leaves: the same in the books of their copies, once
//! somebody reads these.
//!
//! With many experiments most leave a request aside. To count that at each target, request by request, would cost more
//! than to mirror it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use super::CopyBooks;
use crate::pipeline::policy::SkipCounts;

/// What the experiments of one capture thread's policy left aside, and where it is to be counted.
#[derive(Debug, Default)]
pub struct LeftAside(Mutex<Account>);

#[derive(Debug, Default)]
struct Account {
    counts: SkipCounts,
    /// The books of each experiment's targets, by its position in the policy.
    books: Vec<Vec<Arc<CopyBooks>>>,
}

impl LeftAside {
    /// Lets `add` add to the counts, unless they are being read: it is for a thread that must not wait, and comes again.
    pub fn offer(&self, add: impl FnOnce(&mut SkipCounts)) {
        match self.0.try_lock() {
            Ok(mut account) => add(&mut account.counts),
            Err(TryLockError::Poisoned(poisoned)) => add(&mut poisoned.into_inner().counts),
            Err(TryLockError::WouldBlock) => {}
        }
    }

    /// Lets `add` add to the counts.
    pub fn add(&self, add: impl FnOnce(&mut SkipCounts)) {
        add(&mut self.lock().counts);
    }

    /// Puts what was counted so far into the books.
    pub fn settle(&self) {
        self.lock().settle();
    }

    /// The same, and goes on with the experiments of another policy: of each, by its position, the books of its targets.
    pub fn turn(&self, books: Vec<Vec<Arc<CopyBooks>>>) {
        let mut account = self.lock();
        account.settle();
        account.books = books;
    }

    fn lock(&self) -> MutexGuard<'_, Account> {
        // Numbers that add up after each step.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Account {
    fn settle(&mut self) {
        let Self { counts, books } = self;
        counts.take(|position, skips| {
            books.get(position).into_iter().flatten().for_each(|books| books.skip(skips));
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        io::ledger::Ledger,
        pipeline::{policy::ExperimentSet, reason::SkipReason},
    };

    fn leave(counts: &mut SkipCounts, positions: &[usize]) {
        let mut experiments = ExperimentSet::default();
        positions.iter().for_each(|position| experiments.insert(*position));
        counts.add(experiments, SkipReason::Unmatched);
    }

    /// Copies and those skipped, of each target in the order of the books.
    fn shown(ledger: &Ledger) -> Vec<(u64, u64)> {
        let unmatched = SkipReason::Unmatched.index();
        ledger.snapshot().copies.iter().map(|books| (books.copies, books.skipped[unmatched])).collect()
    }

    #[test]
    fn what_was_left_aside_stands_in_the_books_of_every_target_when_they_are_read() {
        let ledger = Ledger::default();
        let [a, b, other] = [("x", "a"), ("x", "b"), ("y", "a")].map(|(e, t)| ledger.copies(e, t));
        let threads = [ledger.left_aside(), ledger.left_aside()];
        for account in &threads {
            account.turn(vec![vec![Arc::clone(&a), Arc::clone(&b)], vec![Arc::clone(&other)]]);
            account.offer(|counts| leave(counts, &[0, 1]));
            account.add(|counts| leave(counts, &[0]));
        }
        assert_eq!(shown(&ledger), [(4, 4), (4, 4), (2, 2)]);
        assert_eq!(shown(&ledger), [(4, 4), (4, 4), (2, 2)]);
        // What was left aside before counts for the experiments that were there then.
        threads[0].add(|counts| leave(counts, &[0]));
        threads[0].turn(vec![vec![other]]);
        threads[0].add(|counts| leave(counts, &[0, 1]));
        assert_eq!(shown(&ledger), [(5, 5), (5, 5), (3, 3)]);
    }

    #[test]
    fn counts_that_are_being_read_are_not_waited_for() {
        let account = LeftAside::default();
        account.add(|_| account.offer(|_| panic!("the counts are taken")));
        let mut is_told = false;
        account.offer(|_| is_told = true);
        assert!(is_told);
    }
}
