//! Enters: bytes of answers that are to be held. Leaves: whether there is memory for them.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// The memory for answers, and for the requests that wait for theirs; shared by all experiments.
#[derive(Debug)]
pub struct Budget {
    limit: AtomicUsize,
    used: AtomicUsize,
}

impl Budget {
    /// A budget of so many bytes.
    #[must_use]
    pub const fn new(limit: usize) -> Self {
        Self { limit: AtomicUsize::new(limit), used: AtomicUsize::new(0) }
    }

    /// Changes how many bytes may be held. What is held beyond that stays.
    pub fn set_limit(&self, bytes: usize) {
        self.limit.store(bytes, Ordering::Relaxed);
    }

    /// Bytes that are held.
    #[must_use]
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// A charge of nothing yet.
    #[must_use]
    pub fn charge(self: &Arc<Self>) -> Charge {
        Charge { budget: Arc::clone(self), bytes: 0 }
    }

    fn take(&self, bytes: usize) -> bool {
        let limit = self.limit.load(Ordering::Relaxed);
        let with = |used: usize| used.checked_add(bytes).filter(|sum| *sum <= limit);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, with).is_ok()
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self::new(ANSWER_BYTES)
    }
}

/// Bytes that count as held until this is let go.
#[derive(Debug)]
pub struct Charge {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Charge {
    /// Charges `bytes` more; false, and nothing is charged, where there is no memory for them.
    pub fn grow(&mut self, bytes: usize) -> bool {
        let is_taken = self.budget.take(bytes);
        self.bytes += if is_taken { bytes } else { 0 };
        is_taken
    }

    /// Takes over what another one, of the same budget, has charged.
    pub fn absorb(&mut self, mut other: Self) {
        self.bytes += std::mem::take(&mut other.bytes);
    }

    /// Gives all of it back.
    pub fn clear(&mut self) {
        self.budget.used.fetch_sub(std::mem::take(&mut self.bytes), Ordering::Relaxed);
    }

    /// Bytes that it stands for.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Bytes of answers that are held, unless said otherwise: two thousand exchanges of 16 KiB a side.
pub const ANSWER_BYTES: usize = 64 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_not_charged_and_what_is_let_go_is_given_back() {
        let budget = Arc::new(Budget::new(10));
        let (mut first, mut second) = (budget.charge(), budget.charge());
        assert!(first.grow(6) && !second.grow(5) && second.grow(4) && !first.grow(usize::MAX));
        assert_eq!((first.bytes(), second.bytes(), budget.used()), (6, 4, 10));
        first.absorb(second);
        assert_eq!((first.bytes(), budget.used()), (10, 10));
        first.clear();
        assert!(first.grow(10));
        drop(first);
        assert_eq!(budget.used(), 0);
    }
}
