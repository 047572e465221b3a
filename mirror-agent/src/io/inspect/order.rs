//! Enters: accounts of exchanges in the order in which they end. Leaves: the same in the order in which they began.

use std::collections::BTreeMap;

use crate::pipeline::{ExchangeId, Timestamp, exchange::report::ExchangeReport};

/// Holds exchanges that ended until no exchange that began earlier is open.
#[derive(Debug)]
pub struct Orderer {
    ended: BTreeMap<(Timestamp, ExchangeId), ExchangeReport>,
    /// Sum of the weights of `ended`.
    bytes: usize,
    max_bytes: usize,
}

impl Orderer {
    /// An orderer that holds about `max_bytes` bytes at most: beyond it the earliest exchange leaves, whatever is
    /// open.
    #[must_use]
    pub const fn new(max_bytes: usize) -> Self {
        Self { ended: BTreeMap::new(), bytes: 0, max_bytes }
    }

    /// Takes an exchange that ended.
    pub fn handle_ended(&mut self, report: ExchangeReport) {
        self.bytes = self.bytes.saturating_add(report.weight());
        self.ended.insert((report.first_byte_at(), report.id), report);
    }

    /// Gives the earliest exchange, if it began before all that are open. `open_since`, asked only where there is
    /// one to give, is the first byte of the open exchange that began earliest; `None` where none is open.
    pub fn poll_ended(&mut self, open_since: impl FnOnce() -> Option<Timestamp>) -> Option<ExchangeReport> {
        let ((began, _), _) = self.ended.first_key_value()?;
        let is_first = open_since().is_none_or(|open| *began < open);
        if !is_first && self.bytes <= self.max_bytes {
            return None;
        }
        let (_, report) = self.ended.pop_first()?;
        self.bytes = self.bytes.saturating_sub(report.weight());
        Some(report)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::inspect::json::tests::exchange;

    #[test]
    fn exchange_waits_for_all_that_began_earlier() {
        let mut orderer = Orderer::new(usize::MAX);
        orderer.handle_ended(exchange(2, 20));
        orderer.handle_ended(exchange(1, 30));
        assert!(orderer.poll_ended(at(10)).is_none());
        assert!(orderer.poll_ended(at(20)).is_none());
        assert_eq!(orderer.poll_ended(at(25)).unwrap().id, ExchangeId(2));
        assert!(orderer.poll_ended(at(25)).is_none());
        orderer.handle_ended(exchange(3, 10));
        assert_eq!(orderer.poll_ended(|| None).unwrap().id, ExchangeId(3));
        assert_eq!(orderer.poll_ended(|| None).unwrap().id, ExchangeId(1));
        assert!(orderer.poll_ended(|| None).is_none());
        assert_eq!(orderer.bytes, 0);
    }

    #[test]
    fn exchanges_with_one_time_leave_by_number() {
        let mut orderer = Orderer::new(usize::MAX);
        orderer.handle_ended(exchange(2, 10));
        orderer.handle_ended(exchange(1, 10));
        assert_eq!(orderer.poll_ended(|| None).unwrap().id, ExchangeId(1));
        assert_eq!(orderer.poll_ended(|| None).unwrap().id, ExchangeId(2));
    }

    #[test]
    fn one_exchange_that_stays_open_does_not_hold_all_others_for_ever() {
        let mut orderer = Orderer::new(10_000);
        let mut left = 0;
        for id in 0..1000 {
            orderer.handle_ended(exchange(id, id + 1));
            left += usize::from(orderer.poll_ended(at(0)).is_some());
        }
        assert!(left > 900);
        assert!(orderer.bytes <= 10_000);
    }

    fn at(nanos: u64) -> impl FnOnce() -> Option<Timestamp> {
        move || Some(Timestamp::from_nanos(nanos))
    }
}
