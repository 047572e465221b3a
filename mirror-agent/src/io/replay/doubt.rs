//! Enters: that more is captured than was when a target's addresses were judged. Leaves: no copy until they are judged anew.

use std::{
    pin::pin,
    sync::atomic::{AtomicU64, Ordering},
};

use tokio::sync::Notify;

use super::clock;
use crate::pipeline::Timestamp;

/// Whether it has to be found out anew where a target's addresses lead: owner --doubts--> replay. What was no live endpoint
/// then may be one by now.
#[derive(Debug, Default)]
pub(super) struct Doubt {
    /// How often it was raised.
    raised: AtomicU64,
    /// The last of those that is settled; more than were raised where nothing will be judged any more.
    settled: AtomicU64,
    /// When, in nanoseconds of [`clock::now`]; 0 before the first.
    settled_at: AtomicU64,
    is_raised_anew: Notify,
    is_over: Notify,
}

impl Doubt {
    /// Holds back every copy that is not begun until it is settled.
    pub(super) fn raise(&self) {
        self.raised.fetch_add(1, Ordering::AcqRel);
        self.is_raised_anew.notify_one();
    }

    /// Whether copies are held back.
    pub(super) fn is_raised(&self) -> bool {
        self.raised.load(Ordering::Acquire) > self.settled.load(Ordering::Acquire)
    }

    /// Waits until there is one, and tells its number.
    pub(super) async fn raised(&self) -> u64 {
        self.raised_after(self.settled.load(Ordering::Acquire)).await
    }

    /// Waits until there is one after the one of this number, and tells the last one's.
    pub(super) async fn raised_after(&self, number: u64) -> u64 {
        loop {
            let raised = self.raised.load(Ordering::Acquire);
            if raised > number {
                return raised;
            }
            self.is_raised_anew.notified().await;
        }
    }

    /// Settles those up to this number. One that was raised since goes on.
    pub(super) fn settle(&self, number: u64) {
        self.settled_at.store(clock::now().as_nanos(), Ordering::Relaxed);
        self.settled.fetch_max(number, Ordering::AcqRel);
        if !self.is_raised() {
            self.is_over.notify_waiters();
        }
    }

    /// When the last one was settled. What copies have waited for it says nothing of the target.
    pub(super) fn settled_at(&self) -> Timestamp {
        Timestamp::from_nanos(self.settled_at.load(Ordering::Relaxed))
    }

    /// Waits until there is none.
    pub(super) async fn settled(&self) {
        loop {
            let mut over = pin!(self.is_over.notified());
            // From here on it is heard, so that none is missed between the look and the wait.
            over.as_mut().enable();
            if !self.is_raised() {
                return;
            }
            over.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn doubt_that_was_raised_meanwhile_is_not_settled_with_the_one_before() {
        let doubt = Doubt::default();
        assert!(!doubt.is_raised());
        doubt.settled().await;
        doubt.raise();
        let first = doubt.raised().await;
        doubt.raise();
        doubt.settle(first);
        assert!(doubt.is_raised());
        let soon = Duration::from_millis(10);
        assert!(timeout(soon, doubt.settled()).await.is_err());
        assert!(timeout(soon, doubt.raised_after(first + 1)).await.is_err());
        let second = doubt.raised_after(first).await;
        let settle = async { doubt.settle(second) };
        tokio::join!(doubt.settled(), settle);
        assert!(timeout(soon, doubt.raised()).await.is_err());
        doubt.settle(u64::MAX);
        doubt.raise();
        assert!(!doubt.is_raised(), "nothing is judged any more");
    }
}
