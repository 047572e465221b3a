//! Enters: requests as sent and as they arrived. Leaves: which are missing, which are too many.

use std::collections::HashMap;

use sha2::{Digest as _, Sha256};

/// Stands for all bytes of one request.
pub type Digest = [u8; 16];

/// The digest of a request's bytes.
#[must_use]
pub fn digest(request: &[u8]) -> Digest {
    let full = Sha256::digest(request);
    let mut short = Digest::default();
    short.copy_from_slice(&full[..16]);
    short
}

/// How what arrived differs from what was sent.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Difference {
    /// Requests that did not arrive.
    pub missing: u64,
    /// Requests that were never sent so: altered ones.
    pub unknown: u64,
    /// Requests that arrived more often than they were sent.
    pub repeated: u64,
}

impl Difference {
    /// Compares two heaps of requests.
    #[must_use]
    pub fn between(sent: &[Digest], arrived: &[Digest]) -> Self {
        let mut open: HashMap<Digest, i64> = HashMap::with_capacity(sent.len());
        for request in sent {
            *open.entry(*request).or_default() += 1;
        }
        let mut difference = Self::default();
        for request in arrived {
            match open.get_mut(request) {
                Some(left) => *left -= 1,
                None => difference.unknown += 1,
            }
        }
        for left in open.into_values() {
            difference.missing += u64::try_from(left).unwrap_or(0);
            difference.repeated += u64::try_from(-left).unwrap_or(0);
        }
        difference
    }

    /// Whether every request arrived exactly once and unaltered.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn difference_tells_missing_altered_and_repeated_apart() {
        let [one, two, three, four] = [&b"1"[..], b"2", b"3", b"4"].map(digest);
        let difference = Difference::between(&[one, two, three], &[one, one, two, four]);
        assert_eq!(difference, Difference { missing: 1, unknown: 1, repeated: 1 });
    }
}
