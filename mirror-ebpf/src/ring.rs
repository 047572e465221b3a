//! Enters: a record. Leaves: the same in a ring buffer, its reader woken if it is time.
//!
//! The helper that reserves room takes constant sizes only, so a record is rounded up to the next of a few. The other
//! one, which takes any size, wants the record put together elsewhere first: to copy 100 bytes twice costs 20 ns more.

use core::ffi::c_void;
use core::ptr;

use aya_ebpf::bindings::BPF_RB_NO_WAKEUP;
use aya_ebpf::btf_maps::{ArrayOfMaps, PerCpuArray, RingBuf};
use aya_ebpf::helpers::{bpf_ringbuf_discard, bpf_ringbuf_reserve, bpf_ringbuf_submit};
use aya_ebpf::macros::btf_map;
use mirror_common::maps::{MAX_RINGS, STATUS_PEEK_BYTES};
use mirror_common::{RecordFlags, RecordHeader};

use crate::scratch::Scratch;
use crate::skb::{Skb, bounded};

/// Payload of the largest record.
pub(crate) const LARGEST_PAYLOAD_BYTES: u32 = payload_bytes(16 * KIB);

/// Sizes of records are said in these, header included. With 16 of them at most, a packet of 64 KiB takes five records, of which
/// the last is small.
const KIB: usize = 1024;

/// The size of a record with the beginning of an answer, or with nothing.
const PEEK_BYTES: usize = (RecordHeader::LEN + STATUS_PEEK_BYTES as usize).next_multiple_of(8);

/// What an answer of HTTP/1 begins with (RFC 9112 section 4): four bytes as the machine reads them, and one.
const STATUS_PREFIX: (u32, u8) = (u32::from_ne_bytes(*b"HTTP"), b'/');
/// Length of that.
const STATUS_PREFIX_BYTES: u32 = 5;

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
        scratch.progress.reset(wake_flags);
        Some(Self { map })
    }

    /// Writes the header in `scratch` with at most [`LARGEST_PAYLOAD_BYTES`] of the packet, `len` bytes at `offset`.
    ///
    /// The payload of a full Ethernet frame takes the fourth size where there are TCP timestamps (1,448 bytes).
    #[inline(always)]
    pub(crate) fn emit(self, skb: Skb, offset: u32, len: u32, scratch: &mut Scratch) {
        if len == 0 {
            self.emit_bare(scratch);
        } else if len <= payload_bytes(KIB / 4) {
            self.emit_rounded::<{ KIB / 4 }>(skb, offset, len, scratch);
        } else if len <= payload_bytes(KIB / 2) {
            self.emit_rounded::<{ KIB / 2 }>(skb, offset, len, scratch);
        } else if len <= payload_bytes(KIB) {
            self.emit_rounded::<KIB>(skb, offset, len, scratch);
        } else if len <= payload_bytes(KIB + KIB / 2) {
            self.emit_rounded::<{ KIB + KIB / 2 }>(skb, offset, len, scratch);
        } else if len <= payload_bytes(4 * KIB) {
            self.emit_rounded::<{ 4 * KIB }>(skb, offset, len, scratch);
        } else {
            self.emit_rounded::<{ 16 * KIB }>(skb, offset, len, scratch);
        }
    }

    /// Writes the header in `scratch` with the largest payload, taken from the packet at `offset`.
    #[inline(always)]
    pub(crate) fn emit_largest(self, skb: Skb, offset: u32, scratch: &mut Scratch) {
        self.emit_rounded::<{ 16 * KIB }>(skb, offset, LARGEST_PAYLOAD_BYTES, scratch);
    }

    /// Writes the header in `scratch` alone.
    #[inline(always)]
    pub(crate) fn emit_bare(self, scratch: &mut Scratch) {
        let Some(record) = self.reserve::<{ RecordHeader::LEN }>(scratch) else { return };
        record.submit(scratch);
    }

    /// Writes the header in `scratch`, which is of a whole segment, with the first bytes of the payload at `offset` if
    /// they begin a status line.
    #[inline(always)]
    pub(crate) fn emit_peek(self, skb: Skb, offset: u32, scratch: &mut Scratch) {
        let Some(record) = self.reserve::<PEEK_BYTES>(scratch) else { return };
        let payload_len = scratch.header.payload_len;
        // Shorter than what tells a status line from others, it is not worth the look.
        if payload_len >= STATUS_PREFIX_BYTES
            && let Some(len) = bounded(payload_len.min(STATUS_PEEK_BYTES), STATUS_PEEK_BYTES)
            && record.load(skb, offset, len)
            && record.starts_with_http()
        {
            scratch.header.captured_len = len;
        }
        if scratch.header.captured_len < payload_len {
            scratch.header.flags = RecordFlags::NOT_COPIED;
        }
        record.submit(scratch);
    }

    #[inline(always)]
    fn emit_rounded<const BYTES: usize>(self, skb: Skb, offset: u32, len: u32, scratch: &mut Scratch) {
        let Some(len) = bounded(len, payload_bytes(BYTES)) else {
            return;
        };
        let Some(record) = self.reserve::<BYTES>(scratch) else { return };
        if record.load(skb, offset, len) {
            record.submit(scratch);
        } else {
            record.discard(scratch);
            scratch.progress.unreadable += 1;
        }
    }

    /// Takes room for a record; notes in `scratch` where there is none.
    #[inline(always)]
    fn reserve<const BYTES: usize>(self, scratch: &mut Scratch) -> Option<Record<BYTES>> {
        // SAFETY: the ring is one; the result is checked.
        let at = unsafe { bpf_ringbuf_reserve(self.map, BYTES as u64, 0) };
        if at.is_null() {
            scratch.progress.full += 1;
            return None;
        }
        Some(Record { at })
    }
}

/// Room for a record of so many bytes, which is to be handed back one way or the other.
struct Record<const BYTES: usize> {
    at: *mut c_void,
}

impl<const BYTES: usize> Record<BYTES> {
    /// Copies `len` bytes of the packet at `offset` to the payload; whether they were there. `len` is [`bounded`] by
    /// [`payload_bytes`] of `BYTES`.
    #[inline(always)]
    fn load(&self, skb: Skb, offset: u32, len: u32) -> bool {
        // SAFETY: `len` is at most what is left after the header, which the verifier checks too.
        unsafe { skb.copy_to(offset, self.payload(), len) }
    }

    /// Whether the payload begins as an answer of HTTP/1 does.
    #[inline(always)]
    fn starts_with_http(&self) -> bool {
        const { assert!(payload_bytes(BYTES) >= STATUS_PREFIX_BYTES) };
        // SAFETY: the payload is long enough, and aligned to eight, as the record and the header are.
        let first = unsafe { self.payload().cast::<u32>().read() };
        // SAFETY: the payload is long enough.
        let last = unsafe { self.payload().add(4) };
        // SAFETY: as before.
        (first, unsafe { last.read() }) == STATUS_PREFIX
    }

    /// Leaves the record to the reader, with the header in `scratch`.
    #[inline(always)]
    fn submit(self, scratch: &mut Scratch) {
        const { assert!(BYTES >= RecordHeader::LEN) };
        // SAFETY: the record is aligned to eight, and at least as long as a header.
        unsafe { write_header(self.at.cast(), &scratch.header) };
        // SAFETY: the record is reserved, and not used after this.
        unsafe { bpf_ringbuf_submit(self.at, take_wake_flags(scratch)) };
    }

    /// Gives the room back.
    #[inline(always)]
    fn discard(self, scratch: &mut Scratch) {
        // SAFETY: as in `submit`.
        unsafe { bpf_ringbuf_discard(self.at, take_wake_flags(scratch)) };
    }

    #[inline(always)]
    fn payload(&self) -> *mut u8 {
        const { assert!(BYTES >= RecordHeader::LEN) };
        // SAFETY: the record is at least as long as a header.
        unsafe { self.at.cast::<u8>().add(RecordHeader::LEN) }
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
