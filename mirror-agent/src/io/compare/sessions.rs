//! Enters: pairs of answers, and heads of copies. Leaves: the heads with the target's sessions in the place of live's.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::{
    io::config::{SessionConfig, SessionUse},
    pipeline::{
        Answer, Timestamp,
        rewrite::{Known, Use, substitute},
        session::{Searched, Source, SourceError},
    },
};

/// What one target knows by other values than live.
#[derive(Debug)]
pub struct Sessions {
    sources: Vec<Source>,
    /// Where requests bear values, each with the position of its source.
    uses: Vec<(usize, Use)>,
    /// By the position of the source. The lock is held while a value is moved in, or while one head is gone through.
    stores: Mutex<Vec<Store>>,
    substitutions: AtomicU64,
    unknown: AtomicU64,
}

/// Figures of one target's sessions.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct SessionGauges {
    /// Values of live's of which the target's is known.
    pub values: u64,
    /// Values that were replaced in copies.
    pub substitutions: u64,
    /// Values in copies of which none is known.
    pub unknown: u64,
}

impl Sessions {
    /// Those of a target with this configuration; `None` where it has none.
    ///
    /// # Errors
    ///
    /// A place in an answer that is none.
    pub fn new(configs: &[SessionConfig]) -> Result<Option<Arc<Self>>, SourceError> {
        if configs.is_empty() {
            return Ok(None);
        }
        let into = |place: &SessionUse| match place {
            SessionUse::Header(name) => Use::Header(name.clone()),
            SessionUse::Cookie(name) => Use::Cookie(name.clone()),
            SessionUse::Query(name) => Use::Query(name.clone()),
        };
        let uses = configs.iter().enumerate();
        let uses = uses.flat_map(|(rule, config)| config.into.iter().map(move |place| (rule, into(place))));
        Ok(Some(Arc::new(Self {
            sources: configs.iter().map(|config| config.from.source()).collect::<Result<_, _>>()?,
            uses: uses.collect(),
            stores: Mutex::new(configs.iter().map(|config| Store::new(config.max, config.ttl)).collect()),
            substitutions: AtomicU64::default(),
            unknown: AtomicU64::default(),
        })))
    }

    /// Remembers what live and the target call the same in their answers to one request.
    pub fn learn(&self, live: &Answer, target: &Answer, now: Timestamp) {
        let (live, target) = (&Searched::new(live), &Searched::new(target));
        for (rule, source) in self.sources.iter().enumerate() {
            let Some(of_live) = source.find(live) else { continue };
            let Some(of_target) = source.find(target) else { continue };
            if let Some(store) = self.lock().get_mut(rule) {
                store.put(of_live, of_target, now);
            }
        }
    }

    /// Appends `head` to `out` with the target's values in the place of live's. Where none is known nothing is appended,
    /// and false returned.
    pub fn substitute(&self, out: &mut Vec<u8>, head: &[u8], now: Timestamp) -> bool {
        let mut looking = Looking { stores: self.lock(), now };
        let done = substitute(out, head, &self.uses, &mut looking);
        drop(looking);
        self.substitutions.fetch_add(done.replaced, Ordering::Relaxed);
        self.unknown.fetch_add(done.unknown, Ordering::Relaxed);
        done.replaced > 0
    }

    /// Its figures.
    #[must_use]
    pub fn gauges(&self, now: Timestamp) -> SessionGauges {
        let values = self.lock().iter_mut().map(|store| store.live_values(now)).sum::<usize>();
        SessionGauges {
            values: u64::try_from(values).unwrap_or(u64::MAX),
            substitutions: self.substitutions.load(Ordering::Relaxed),
            unknown: self.unknown.load(Ordering::Relaxed),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Store>> {
        // The tables of a store are changed together in code that cannot panic.
        self.stores.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The stores while one head is gone through.
struct Looking<'a> {
    stores: MutexGuard<'a, Vec<Store>>,
    now: Timestamp,
}

impl Known for Looking<'_> {
    fn has_length(&self, rule: usize, len: usize) -> bool {
        self.stores.get(rule).is_some_and(|store| store.lengths.contains_key(&len))
    }

    fn find(&mut self, rule: usize, live: &[u8]) -> Option<&[u8]> {
        let now = self.now;
        self.stores.get_mut(rule)?.find(live, now)
    }
}

/// Values of live's, each with the target's. Bounded by count and by bytes: the one that was not used for longest is
/// forgotten.
#[derive(Debug)]
struct Store {
    max: usize,
    ttl: Duration,
    entries: HashMap<Arc<[u8]>, Entry>,
    /// By the number of their last use.
    by_use: BTreeMap<u64, Arc<[u8]>>,
    /// How many of live's values are so long.
    lengths: HashMap<usize, usize>,
    uses: u64,
    /// Of all values.
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    target: Box<[u8]>,
    used_at: Timestamp,
    /// Of its last use.
    number: u64,
}

impl Store {
    fn new(max: usize, ttl: Duration) -> Self {
        Self {
            max,
            ttl,
            entries: HashMap::new(),
            by_use: BTreeMap::new(),
            lengths: HashMap::new(),
            uses: 0,
            bytes: 0,
        }
    }

    fn put(&mut self, live: Vec<u8>, target: Vec<u8>, now: Timestamp) {
        self.expire(now);
        self.forget(&live);
        let bytes = live.len() + target.len();
        while (self.entries.len() >= self.max.max(1) || self.bytes + bytes > STORE_BYTES)
            && let Some((_, oldest)) = self.by_use.pop_first()
        {
            self.forget(&oldest);
        }
        let live: Arc<[u8]> = live.into();
        let number = self.next();
        self.bytes += bytes;
        *self.lengths.entry(live.len()).or_default() += 1;
        self.by_use.insert(number, Arc::clone(&live));
        self.entries.insert(live, Entry { target: target.into(), used_at: now, number });
    }

    fn find(&mut self, live: &[u8], now: Timestamp) -> Option<&[u8]> {
        self.expire(now);
        let number = self.next();
        let entry = self.entries.get_mut(live)?;
        if let Some(live) = self.by_use.remove(&entry.number) {
            self.by_use.insert(number, live);
        }
        (entry.number, entry.used_at) = (number, now);
        Some(&entry.target)
    }

    fn live_values(&mut self, now: Timestamp) -> usize {
        self.expire(now);
        self.entries.len()
    }

    /// Forgets what was not used for too long.
    fn expire(&mut self, now: Timestamp) {
        while let Some((_, oldest)) = self.by_use.first_key_value() {
            if self.entries.get(oldest).is_some_and(|entry| now.since(entry.used_at) <= self.ttl) {
                break;
            }
            let oldest = Arc::clone(oldest);
            self.by_use.pop_first();
            self.forget(&oldest);
        }
    }

    fn forget(&mut self, live: &[u8]) {
        let Some(entry) = self.entries.remove(live) else { return };
        self.by_use.remove(&entry.number);
        self.bytes -= live.len() + entry.target.len();
        if let Some(count) = self.lengths.get_mut(&live.len()) {
            *count -= 1;
            if *count == 0 {
                self.lengths.remove(&live.len());
            }
        }
    }

    const fn next(&mut self) -> u64 {
        self.uses += 1;
        self.uses
    }
}

/// Bytes of all values that are known, at most: a million sessions of 16 bytes each.
pub const STORE_BYTES: usize = 32 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(60);

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_nanos(seconds * 1_000_000_000)
    }

    fn put(store: &mut Store, live: &str, target: &str, seconds: u64) {
        store.put(live.as_bytes().to_vec(), target.as_bytes().to_vec(), at(seconds));
        assert_eq!(store.entries.len(), store.by_use.len());
        assert_eq!(store.entries.len(), store.lengths.values().sum::<usize>());
    }

    fn find(store: &mut Store, live: &str, seconds: u64) -> Option<String> {
        store.find(live.as_bytes(), at(seconds)).map(|value| String::from_utf8_lossy(value).into_owned())
    }

    #[test]
    fn value_that_was_not_used_for_longest_is_forgotten_where_there_are_too_many() {
        let mut store = Store::new(2, TTL);
        put(&mut store, "a", "1", 0);
        put(&mut store, "b", "2", 1);
        assert_eq!(find(&mut store, "a", 2).as_deref(), Some("1"));
        put(&mut store, "c", "3", 3);
        assert_eq!(find(&mut store, "b", 4), None);
        put(&mut store, "a", "4", 5);
        assert_eq!(find(&mut store, "a", 6).as_deref(), Some("4"), "the latest counts");
        assert_eq!(find(&mut store, "c", 6).as_deref(), Some("3"));
    }

    #[test]
    fn value_is_known_for_its_time_from_its_last_use_on() {
        let mut store = Store::new(10, TTL);
        put(&mut store, "a", "1", 0);
        put(&mut store, "b", "2", 0);
        assert_eq!(find(&mut store, "a", 60).as_deref(), Some("1"));
        assert_eq!(find(&mut store, "b", 61), None);
        assert_eq!((store.live_values(at(120)), store.lengths.len()), (1, 1));
        assert_eq!(store.live_values(at(121)), 0);
        assert!(store.lengths.is_empty() && store.by_use.is_empty());
    }

    #[test]
    fn long_values_are_bounded_by_their_bytes() {
        let mut store = Store::new(usize::MAX, TTL);
        let long = |number: usize| format!("{number:0>4096}").into_bytes();
        for number in 0..STORE_BYTES / 8192 + 10 {
            store.put(long(number), long(number), at(0));
        }
        assert_eq!((store.entries.len(), store.bytes), (STORE_BYTES / 8192, STORE_BYTES));
        assert!(store.find(&long(9), at(0)).is_none() && store.find(&long(10), at(0)).is_some());
        store.expire(at(100));
        assert_eq!(store.bytes, 0);
    }
}
