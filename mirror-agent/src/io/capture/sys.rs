//! Enters: a ring buffer's file descriptor, a socket, a thread. Leaves: how full the ring is, the socket watched, the
//! thread in a network of its own. The only unsafe code of the capture.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
    ptr::{self, NonNull},
    sync::atomic::{AtomicUsize, Ordering},
};

use netlink_sys::Socket;
use rustix::thread::{UnshareFlags, unshare_unsafe};
use tokio::io::{Interest, unix::AsyncFd};

/// Has the runtime say when `socket` is readable. Must be called within a tokio runtime.
pub(super) fn readable(socket: Socket) -> io::Result<AsyncFd<Socket>> {
    // SAFETY: the value owns its one descriptor, gives out no other, and closes it only when it is dropped.
    Ok(unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?)
}

/// Moves the calling thread into a network namespace of its own, which goes with it.
///
/// # Errors
///
/// The kernel's; `EPERM` without CAP_SYS_ADMIN.
pub(in crate::io) fn enter_new_network() -> io::Result<()> {
    // SAFETY: the table of descriptors, the one thing that must not be unshared carelessly, stays shared.
    Ok(unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?)
}

/// A read-only view of a ring's two positions: the kernel maps the consumer's page at offset 0, the producer's at
/// offset one page, and both begin with the position as an `unsigned long`.
/// <https://github.com/torvalds/linux/blob/v6.12/kernel/bpf/ringbuf.c#L31-L73>
#[derive(Debug)]
pub(super) struct RingPositions {
    consumer: NonNull<AtomicUsize>,
    page_bytes: usize,
}

// SAFETY: the mapping belongs to this value alone and is not bound to a thread; all access is by atomic loads.
unsafe impl Send for RingPositions {}

impl RingPositions {
    /// Maps the positions of the ring buffer `fd`; `page_bytes` is the page size of this machine.
    ///
    /// # Errors
    ///
    /// The kernel's, where `fd` is no ring buffer or there is no memory for the mapping.
    pub(super) fn map(fd: BorrowedFd<'_>, page_bytes: usize) -> io::Result<Self> {
        // SAFETY: a fresh mapping at an address that the kernel chooses touches no memory of ours.
        let address = unsafe {
            libc::mmap(ptr::null_mut(), 2 * page_bytes, libc::PROT_READ, libc::MAP_SHARED, fd.as_raw_fd(), 0)
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let consumer = NonNull::new(address.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { consumer, page_bytes })
    }

    /// Bytes that were reserved by the producers and not yet given back by the reader, headers included.
    pub(super) fn used_bytes(&self) -> usize {
        // SAFETY: the mapping lives as long as `self`, is two pages long and page-aligned.
        let consumer = unsafe { self.consumer.as_ref() };
        // SAFETY: the second page begins `page_bytes` into the same mapping.
        let producer = unsafe { self.consumer.byte_add(self.page_bytes) };
        // SAFETY: as above; a page boundary is aligned for an unsigned long.
        let producer = unsafe { producer.as_ref() };
        // The consumer first: it never passes the producer, so the difference cannot be negative.
        let consumed = consumer.load(Ordering::Acquire);
        producer.load(Ordering::Acquire).wrapping_sub(consumed)
    }
}

/// The page size of this machine in bytes.
pub(super) fn page_bytes() -> u32 {
    // SAFETY: sysconf only reads its argument.
    let answer = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    // POSIX has no error for this name; 4 KiB is what most machines have.
    u32::try_from(answer).ok().filter(|bytes| bytes.is_power_of_two()).unwrap_or(4096)
}

impl Drop for RingPositions {
    fn drop(&mut self) {
        // SAFETY: the range is the one that `map` made, and no reference into it outlives `self`.
        let _ = unsafe { libc::munmap(self.consumer.as_ptr().cast(), 2 * self.page_bytes) };
    }
}
