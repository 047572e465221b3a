//! Enters: every allocation of this program. Leaves: how many bytes each thread has.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

/// The system's allocator, with an account for each thread.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

thread_local! {
    static BYTES: Cell<isize> = const { Cell::new(0) };
}

/// Bytes that this thread has allocated, less those it has freed.
pub(crate) fn bytes_allocated() -> isize {
    BYTES.with(Cell::get)
}

/// A layout's size fits, by its own promise.
fn account(added: usize, removed: usize) {
    BYTES.with(|bytes| bytes.set(bytes.get() + added.cast_signed() - removed.cast_signed()));
}

// SAFETY: every call is handed to the system's allocator as it came, and nothing here allocates.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        account(layout.size(), 0);
        // SAFETY: the caller keeps the promises that this asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        account(0, layout.size());
        // SAFETY: likewise.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        account(size, layout.size());
        // SAFETY: likewise.
        unsafe { System.realloc(block, layout, size) }
    }
}
