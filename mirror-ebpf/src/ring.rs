//! Enters: a record. Leaves: the same in a ring buffer, its reader woken if it is time.
//!
//! Small payloads are put together in a scratch record and written with their exact length; a helper that reserves
//! room takes constant sizes only, so larger ones are rounded up to the next of a few classes and copied once.

use core::ffi::c_void;
use core::ptr;

use aya_ebpf::bindings::BPF_RB_NO_WAKEUP;
use aya_ebpf::btf_maps::{ArrayOfMaps, PerCpuArray, RingBuf};
use aya_ebpf::helpers::{bpf_ringbuf_discard, bpf_ringbuf_output, bpf_ringbuf_reserve, bpf_ringbuf_submit};
use aya_ebpf::macros::btf_map;
use mirror_common::RecordHeader;
use mirror_common::maps::MAX_RINGS;

use crate::scratch::{Progress, SMALL_PAYLOAD_BYTES, Scratch};
use crate::skb::{Skb, bounded};

/// Payload of the largest record.
pub(crate) const LARGEST_PAYLOAD_BYTES: u32 = payload_bytes(LARGE_BYTES);

/// Sizes of records with rounded payload, header included. With 16 KiB, a packet of 64 KiB takes five records of
/// which the last is small.
const MEDIUM_BYTES: usize = 4096;
const LARGE_BYTES: usize = 16_384;

/// Flags of a record that leaves the reader asleep.
const NO_WAKE_UP: u64 = BPF_RB_NO_WAKEUP as u64;

/// The smallest ring: one page, or what the loader makes of it.
const SMALLEST_RING_BYTES: usize = 4096;

/// [`mirror_common::maps::map::RINGS`].
#[btf_map]
static RINGS: ArrayOfMaps<RingBuf<(), SMALLEST_RING_BYTES>, { MAX_RINGS as usize }> = ArrayOfMaps::new();

/// [`mirror_common::maps::map::RING`]: no more than definitions. The agent gives each its size and puts it into
/// `RINGS`, through which the program reaches it.
macro_rules! rings {
    ($($name:ident),*) => {
        $(
            #[btf_map]
            static $name: RingBuf<(), SMALLEST_RING_BYTES> = RingBuf::new();
        )*
    };
}

rings!(RING_0, RING_1, RING_2, RING_3, RING_4, RING_5, RING_6, RING_7);

/// When this CPU last asked for a wake-up of a ring's reader.
///
/// By ring, too: a wake-up of one reader must not use up that of another, which may be blocked.
#[btf_map]
static WAKES: PerCpuArray<u64, { MAX_RINGS as usize }> = PerCpuArray::new();

/// A ring buffer.
#[derive(Clone, Copy)]
pub(crate) struct Ring {
    map: *mut c_void,
}

impl Ring {
    /// Takes the ring at `index`, and notes in `scratch` how its reader is to be woken; `None` where the agent put none
    /// there.
    ///
    /// A wake-up costs ten times a copy, so each CPU asks for at most one in `wake_interval_ns`. The reader relies on
    /// this: after its last record it must go on looking for longer than that interval before it blocks. A record
    /// that finds it blocked is then the first in longer than the interval on any CPU, and wakes it.
    #[inline(always)]
    pub(crate) fn open(index: u32, now: u64, wake_interval_ns: u32, scratch: &mut Scratch) -> Option<Self> {
        let map = ptr::from_ref(RINGS.get(index)?).cast_mut().cast();
        let last_wake = WAKES.get_ptr_mut(index)?;
        // SAFETY: a per-CPU slot is written by nobody else while the program runs.
        let last_wake = unsafe { &mut *last_wake };
        let mut wake_flags = NO_WAKE_UP;
        if is_wake_due(now, *last_wake, wake_interval_ns) {
            *last_wake = now;
            wake_flags = 0;
        }
        scratch.progress = Progress { wake_flags, full: 0, unreadable: 0, offset: 0 };
        Some(Self { map })
    }

    /// Writes the header in `scratch` with at most [`LARGEST_PAYLOAD_BYTES`] of the packet, `len` bytes at `offset`.
    #[inline(always)]
    pub(crate) fn emit(self, skb: Skb, offset: u32, len: u32, scratch: &mut Scratch) {
        if let Some(len) = bounded(len, SMALL_PAYLOAD_BYTES) {
            if scratch.load(skb, offset, len) {
                self.emit_loaded(len, scratch);
            } else {
                scratch.progress.unreadable += 1;
            }
        } else if len == 0 {
            self.emit_loaded(0, scratch);
        } else if len <= payload_bytes(MEDIUM_BYTES) {
            self.emit_rounded::<MEDIUM_BYTES>(skb, offset, len, scratch);
        } else {
            self.emit_rounded::<LARGE_BYTES>(skb, offset, len, scratch);
        }
    }

    /// Writes the header in `scratch` with the largest payload, taken from the packet at `offset`.
    #[inline(always)]
    pub(crate) fn emit_largest(self, skb: Skb, offset: u32, scratch: &mut Scratch) {
        self.emit_rounded::<LARGE_BYTES>(skb, offset, LARGEST_PAYLOAD_BYTES, scratch);
    }

    /// Writes the record in `scratch`, which holds `len` bytes of payload: 0, or as [`bounded`] gives it.
    #[inline(always)]
    pub(crate) fn emit_loaded(self, len: u32, scratch: &mut Scratch) {
        let size = RecordHeader::LEN as u64 + u64::from(len);
        let flags = take_wake_flags(scratch);
        let record = ptr::from_mut(&mut scratch.header).cast();
        // SAFETY: header and payload are one run of bytes, and `len` is within the payload, which the verifier checks
        // too.
        if unsafe { bpf_ringbuf_output(self.map, record, size, flags) } != 0 {
            scratch.progress.full += 1;
        }
    }

    #[inline(always)]
    fn emit_rounded<const BYTES: usize>(self, skb: Skb, offset: u32, len: u32, scratch: &mut Scratch) {
        let Some(len) = bounded(len, payload_bytes(BYTES)) else {
            return;
        };
        // SAFETY: the ring is one; the result is checked.
        let record = unsafe { bpf_ringbuf_reserve(self.map, BYTES as u64, 0) };
        if record.is_null() {
            scratch.progress.full += 1;
            return;
        }
        let flags = take_wake_flags(scratch);
        // SAFETY: the record is reserved, aligned to eight, and at least as long as a header.
        unsafe { write_header(record.cast(), &scratch.header) };
        // SAFETY: `BYTES` is more than a header.
        let payload = unsafe { record.cast::<u8>().add(RecordHeader::LEN) };
        // SAFETY: `len` is at most what is left after the header.
        if unsafe { skb.copy_to(offset, payload, len) } {
            // SAFETY: the record is reserved, and not used after this.
            unsafe { bpf_ringbuf_submit(record, flags) };
        } else {
            // SAFETY: as above.
            unsafe { bpf_ringbuf_discard(record, flags) };
            scratch.progress.unreadable += 1;
        }
    }
}

/// The flags for a record: the first of a segment may wake the reader, which then finds the others too.
#[inline(always)]
fn take_wake_flags(scratch: &mut Scratch) -> u64 {
    core::mem::replace(&mut scratch.progress.wake_flags, NO_WAKE_UP)
}

/// Copies a header word by word: of a plain assignment the compiler makes a call to a loop over bytes.
///
/// # Safety
///
/// `to` is valid for writes of a header, and aligned to eight.
#[inline(always)]
unsafe fn write_header(to: *mut u64, header: &RecordHeader) {
    let from = ptr::from_ref(header).cast::<u64>();
    let mut at = 0;
    while at < RecordHeader::LEN / 8 {
        // SAFETY: a header is ten words without padding, aligned to eight.
        let word = unsafe { *from.wrapping_add(at) };
        // SAFETY: the caller's.
        unsafe { to.wrapping_add(at).write_volatile(word) };
        at += 1;
    }
}

/// Payload that fits into a record of this size.
const fn payload_bytes(record_bytes: usize) -> u32 {
    (record_bytes - RecordHeader::LEN) as u32
}

/// Whether the last wake-up is longer ago than the interval.
#[inline(always)]
fn is_wake_due(now: u64, last_wake: u64, wake_interval_ns: u32) -> bool {
    now.wrapping_sub(last_wake) > u64::from(wake_interval_ns)
}

#[cfg(test)]
mod tests {
    use super::is_wake_due;

    #[test]
    fn wake_up_is_due_after_the_interval() {
        assert!(is_wake_due(5_000_000, 0, 1_000_000), "first");
        assert!(!is_wake_due(5_000_000, 4_000_000, 1_000_000));
        assert!(is_wake_due(5_000_001, 4_000_000, 1_000_000));
    }
}
