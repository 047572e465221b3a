//! Enters: nothing. Leaves: memory that is free, given back to the node. The only unsafe code of the guard.

/// Gives back what the allocator holds and nobody uses. glibc keeps much of it after a burst; other C libraries do not, or
/// cannot be asked to.
pub(super) fn give_back_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes a number, and nothing that is in use.
    unsafe {
        libc::malloc_trim(0);
    }
}
