//! Enters: requests as they arrive at a server. Leaves: how often each came, and whether every byte was right.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use super::requests::{number_of, request};
use crate::{http, server::Witness};

/// Whether requests carry the mirror's markers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Markers {
    /// They do, exactly one of each.
    Expected,
    /// They are originals.
    None,
}

/// A server's own account: one byte a request, so that it can be long.
#[derive(Debug)]
pub(super) struct Book {
    seed: u64,
    markers: Markers,
    /// How often the request with this number came.
    times: Mutex<Vec<u8>>,
    altered: AtomicU64,
    /// The beginning of the first altered one.
    first_altered: Mutex<Option<String>>,
}

impl Book {
    pub(super) fn new(seed: u64, markers: Markers) -> Self {
        Self {
            seed,
            markers,
            times: Mutex::default(),
            altered: AtomicU64::new(0),
            first_altered: Mutex::default(),
        }
    }

    /// How often each came, by number.
    pub(super) fn times(&self) -> Vec<u8> {
        self.times.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Requests of which a byte was not as it should be.
    pub(super) fn altered(&self) -> u64 {
        self.altered.load(Ordering::Relaxed)
    }

    /// What the first altered request began with, and how it should have.
    pub(super) fn first_altered(&self) -> Option<String> {
        self.first_altered.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn checked(&self, raw: &[u8]) -> Option<usize> {
        let original = match self.markers {
            Markers::None => raw.to_vec(),
            Markers::Expected => http::without_markers(raw)?.original,
        };
        let number = number_of(&original)?;
        (original == request(self.seed, number).bytes).then(|| usize::try_from(number).ok())?
    }
}

impl Witness for Book {
    fn see(&self, raw: &[u8]) {
        let Some(number) = self.checked(raw) else {
            self.altered.fetch_add(1, Ordering::Relaxed);
            let start =
                String::from_utf8_lossy(raw.get(..raw.len().min(400)).unwrap_or_default()).into_owned();
            let mut first = self.first_altered.lock().unwrap_or_else(PoisonError::into_inner);
            first.get_or_insert(start);
            return;
        };
        let mut times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        if times.len() <= number {
            times.resize(number + 1, 0);
        }
        if let Some(count) = times.get_mut(number) {
            *count = count.saturating_add(1);
        }
    }
}
