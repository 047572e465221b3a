//! Enters: the messages of exchanges, each once it is over. Leaves: reports of exchanges that are over, and earlier of the
//! oldest where those that are open hold too much.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::pipeline::{
    ExchangeId, FlowKey, Timestamp,
    exchange::report::{ExchangeReport, MessageReport},
};

/// The exchanges of all flows that have begun and are not over, for `inspect`.
#[derive(Debug)]
pub(crate) struct OpenExchanges {
    /// Those not reported yet.
    begun: BTreeSet<Key>,
    /// What was seen of them, and of others that were reported before they were over.
    seen: BTreeMap<Key, ExchangeReport>,
    /// How many there are, those that were reported before they were over among them.
    count: usize,
    /// Sum of the weights of `seen`.
    bytes: usize,
    max_bytes: usize,
}

/// When the first byte of an exchange was seen, and its number.
pub(crate) type Key = (Timestamp, ExchangeId);

/// A message of an exchange.
#[derive(Debug)]
pub(crate) enum Part {
    Request(MessageReport),
    Interim(MessageReport),
    Response(MessageReport),
}

impl OpenExchanges {
    /// None, of which there may be as many as take about so many bytes.
    pub(crate) const fn new(max_bytes: usize) -> Self {
        Self { begun: BTreeSet::new(), seen: BTreeMap::new(), count: 0, bytes: 0, max_bytes }
    }

    pub(crate) fn begin(&mut self, key: Key) {
        self.begun.insert(key);
        self.count = self.count.saturating_add(1);
    }

    /// The first byte of the one that began earliest of those not reported yet.
    pub(crate) fn first(&self) -> Option<Timestamp> {
        self.begun.first().map(|(at, _)| *at)
    }

    /// Whether there are so many that no other should wait for its response.
    pub(crate) const fn is_crowded(&self) -> bool {
        self.own_bytes() > self.max_bytes / 2
    }

    /// Whether the exchange was reported, though it is not over.
    pub(crate) fn is_reported(&self, key: &Key) -> bool {
        !self.begun.contains(key)
    }

    /// Takes a message of the exchange `key`, which is reported by the number `id`. Beyond the limit the oldest of all of
    /// which anything was seen are reported as they are.
    pub(crate) fn add(
        &mut self,
        key: Key,
        id: ExchangeId,
        flow: FlowKey,
        part: Part,
        reports: &mut VecDeque<ExchangeReport>,
    ) {
        let report = self.seen.entry(key).or_insert_with(|| {
            let report = ExchangeReport::new(id, flow);
            self.bytes = self.bytes.saturating_add(report.weight());
            report
        });
        let (Part::Request(message) | Part::Interim(message) | Part::Response(message)) = &part;
        let more = message.weight();
        match part {
            Part::Request(message) => report.request = Some(message),
            Part::Response(message) => report.response = Some(message),
            Part::Interim(message) if report.interim.len() < MAX_INTERIM => report.interim.push(message),
            Part::Interim(_) => {
                report.interim_left_out = report.interim_left_out.saturating_add(1);
                return;
            }
        }
        self.bytes = self.bytes.saturating_add(more);
        while self.bytes.saturating_add(self.own_bytes()) > self.max_bytes
            && let Some((key, report)) = self.seen.pop_first()
        {
            self.begun.remove(&key);
            self.bytes = self.bytes.saturating_sub(report.weight());
            reports.push_back(report);
        }
    }

    /// The exchange is over. `None` where nothing was seen of it but what was reported.
    pub(crate) fn end(&mut self, key: Key) -> Option<ExchangeReport> {
        self.begun.remove(&key);
        self.count = self.count.saturating_sub(1);
        let report = self.seen.remove(&key)?;
        self.bytes = self.bytes.saturating_sub(report.weight());
        Some(report)
    }

    /// What they take but for what was seen of them.
    const fn own_bytes(&self) -> usize {
        self.count.saturating_mul(OPEN_BYTES)
    }
}

/// Interim responses of one exchange that are told. Servers send a few; of more there may be any number.
const MAX_INTERIM: usize = 64;

/// About what an open exchange takes, in bytes, with its flow's part: twice what it is, since tables grow by doubling.
const OPEN_BYTES: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exchanges_of_which_nothing_is_seen_count_as_well() {
        let mut open = OpenExchanges::new(1024 * 1024);
        let key = |number: u64| (Timestamp::from_nanos(number), ExchangeId(number));
        let mut begun = 0;
        while !open.is_crowded() {
            open.begin(key(begun));
            begun += 1;
        }
        assert!((2_000..2_100).contains(&begun), "{begun}");
        assert_eq!(open.first(), Some(Timestamp::from_nanos(0)));
        assert!(open.end(key(0)).is_none());
        assert!(!open.is_crowded());
        assert_eq!(open.first(), Some(Timestamp::from_nanos(1)));
    }
}
