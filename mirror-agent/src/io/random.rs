//! Enters: nothing. Leaves: a number that no stranger can guess and no other run shares.

use std::hash::{BuildHasher as _, RandomState};

/// A random number: the standard library keys its hasher from the kernel.
pub(super) fn random() -> u64 {
    RandomState::new().hash_one(0)
}
