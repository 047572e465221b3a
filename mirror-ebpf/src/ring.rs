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
use mirror_common::maps::MAX_RINGS;
use mirror_common::{Counter, RecordHeader};

use crate::counters::count;
use crate::skb::{Skb, bounded};

/// Payload up to which a second copy costs less than the rounding up would: an Ethernet segment.
const SMALL_PAYLOAD_BYTES: u32 = 1456;

/// Payload of the largest record.
pub(crate) const LARGEST_PAYLOAD_BYTES: u32 = payload_bytes(LARGE_BYTES);

/// Sizes of records with rounded payload, header included. With 16 KiB, a packet of 64 KiB takes five records of
/// which the last is small.
const MEDIUM_BYTES: usize = 4096;
const LARGE_BYTES: usize = 16_384;

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

/// The record that this CPU is putting together.
#[btf_map]
static SCRATCH: PerCpuArray<Scratch, 1> = PerCpuArray::new();

/// When this CPU last asked for a wake-up of a ring's reader.
///
/// By ring, too: a wake-up of one reader must not use up that of another, which may be blocked.
#[btf_map]
static WAKES: PerCpuArray<u64, { MAX_RINGS as usize }> = PerCpuArray::new();

/// A record with a small payload.
#[repr(C)]
pub(crate) struct Scratch {
    pub(crate) header: RecordHeader,
    payload: [u8; SMALL_PAYLOAD_BYTES as usize],
}

/// The scratch record of this CPU.
#[inline(always)]
pub(crate) fn scratch() -> Option<&'static mut Scratch> {
    let scratch = SCRATCH.get_ptr_mut(0)?;
    // SAFETY: the slot is this CPU's, classifiers run to their end with bottom halves disabled, and each
    // calls this once, so nobody else refers to it. Any bytes are a valid value.
    Some(unsafe { &mut *scratch })
}

impl Scratch {
    /// Copies `len` bytes of the packet at `offset` to the payload; whether they were there. `len` is
    /// [`bounded`] by the payload's size.
    #[inline(always)]
    pub(crate) fn load(&mut self, skb: Skb, offset: u32, len: u32) -> bool {
        // SAFETY: `len` is within the payload, which the verifier checks too.
        unsafe { skb.copy_to(offset, self.payload.as_mut_ptr(), len) }
    }

    /// Whether the payload begins as an HTTP/1 status line does (RFC 9112 section 4).
    #[inline(always)]
    pub(crate) fn starts_with_http(&self) -> bool {
        self.payload.first_chunk::<5>() == Some(b"HTTP/")
    }
}

/// A ring buffer, and how to wake its reader.
pub(crate) struct Ring {
    map: *mut c_void,
    /// Flags for the next record.
    flags: u64,
}

impl Ring {
    /// Takes the ring at `index`; `None` where the agent put none there.
    ///
    /// A wake-up costs ten times a copy, so each CPU asks for at most one in `wake_interval_ns`. The reader relies on
    /// this: after its last record it must go on looking for longer than that interval before it blocks. A record
    /// that finds it blocked is then the first in longer than the interval on any CPU, and wakes it.
    #[inline(always)]
    pub(crate) fn open(index: u32, now: u64, wake_interval_ns: u32) -> Option<Self> {
        let map = ptr::from_ref(RINGS.get(index)?).cast_mut().cast();
        let last_wake = WAKES.get_ptr_mut(index)?;
        // SAFETY: a per-CPU slot is written by nobody else while the program runs.
        let last_wake = unsafe { &mut *last_wake };
        let flags = if is_wake_due(now, *last_wake, wake_interval_ns) {
            *last_wake = now;
            0
        } else {
            u64::from(BPF_RB_NO_WAKEUP)
        };
        Some(Self { map, flags })
    }

    /// Writes the header in `scratch` with the `len` bytes of the packet at `offset`.
    #[inline(always)]
    pub(crate) fn emit(&mut self, skb: Skb, offset: u32, len: u32, scratch: &mut Scratch) -> Option<()> {
        if let Some(len) = bounded(len, SMALL_PAYLOAD_BYTES) {
            if !scratch.load(skb, offset, len) {
                count(Counter::DroppedUnreadable);
                return None;
            }
            return self.output(scratch, len);
        }
        if len == 0 {
            self.output(scratch, 0)
        } else if len <= payload_bytes(MEDIUM_BYTES) {
            self.emit_rounded::<MEDIUM_BYTES>(skb, offset, len, scratch)
        } else {
            self.emit_rounded::<LARGE_BYTES>(skb, offset, len, scratch)
        }
    }

    /// Writes the record in `scratch`, of whose payload the captured bytes are already there.
    #[inline(always)]
    pub(crate) fn emit_peeked(&mut self, scratch: &mut Scratch) -> Option<()> {
        match bounded(scratch.header.captured_len, SMALL_PAYLOAD_BYTES) {
            Some(len) => self.output(scratch, len),
            None => self.output(scratch, 0),
        }
    }

    #[inline(always)]
    fn output(&mut self, scratch: &mut Scratch, len: u32) -> Option<()> {
        let size = RecordHeader::LEN as u64 + u64::from(len);
        // SAFETY: `len` is within the scratch record's payload, which the verifier checks too; the ring is one.
        let result =
            unsafe { bpf_ringbuf_output(self.map, ptr::from_mut(scratch).cast(), size, self.take_flags()) };
        if result != 0 {
            count(Counter::DroppedRingFull);
            return None;
        }
        Some(())
    }

    #[inline(always)]
    fn emit_rounded<const BYTES: usize>(
        &mut self,
        skb: Skb,
        offset: u32,
        len: u32,
        scratch: &Scratch,
    ) -> Option<()> {
        let len = bounded(len, payload_bytes(BYTES))?;
        // SAFETY: the ring is one; the result is checked.
        let record = unsafe { bpf_ringbuf_reserve(self.map, BYTES as u64, 0) };
        if record.is_null() {
            count(Counter::DroppedRingFull);
            return None;
        }
        let flags = self.take_flags();
        // SAFETY: the record is reserved, aligned to eight, and at least as long as a header.
        unsafe { record.cast::<RecordHeader>().write(scratch.header) };
        // SAFETY: `BYTES` is more than a header.
        let payload = unsafe { record.cast::<u8>().add(RecordHeader::LEN) };
        // SAFETY: `len` is at most what is left after the header.
        if unsafe { skb.copy_to(offset, payload, len) } {
            // SAFETY: the record is reserved, and not used after this.
            unsafe { bpf_ringbuf_submit(record, flags) };
            return Some(());
        }
        // SAFETY: as above.
        unsafe { bpf_ringbuf_discard(record, flags) };
        count(Counter::DroppedUnreadable);
        None
    }

    /// The flags for a record: the first of a segment may wake the reader, which then finds the others too.
    #[inline(always)]
    fn take_flags(&mut self) -> u64 {
        core::mem::replace(&mut self.flags, u64::from(BPF_RB_NO_WAKEUP))
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
