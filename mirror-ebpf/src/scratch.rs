//! Enters: nothing. Leaves: room for what is too large for the stack of 512 bytes.

use core::ptr;

use aya_ebpf::btf_maps::PerCpuArray;
use aya_ebpf::macros::btf_map;
use mirror_common::RecordHeader;
use mirror_common::packet::{Layer, Network, TcpPacket};

/// The packet and the record that this CPU is at work on.
#[btf_map]
static SCRATCH: PerCpuArray<Scratch, 1> = PerCpuArray::new();

/// A packet, and the header of its record.
#[repr(C)]
pub(crate) struct Scratch {
    // How far parsing is: the steps hand it on to each other.
    pub(crate) layer: Layer,
    pub(crate) network: Network,
    pub(crate) packet: TcpPacket,
    pub(crate) progress: Progress,
    pub(crate) header: RecordHeader,
}

/// How far the copying of a segment is.
///
/// It is here, not in variables, because the verifier does not know what is in a map: of variables it would walk
/// every combination of values that a loop with failures can bring about.
#[repr(C)]
pub(crate) struct Progress {
    /// Flags for the next record.
    pub(crate) wake_flags: u64,
    /// Records that did not fit into the ring.
    pub(crate) full: u64,
    /// Records whose payload the kernel did not hand over.
    pub(crate) unreadable: u64,
    /// Offset in the payload of the next record.
    pub(crate) offset: u32,
}

impl Progress {
    /// At the first record of a segment.
    ///
    /// Word by word: of a plain assignment the compiler makes a call to a loop over bytes.
    #[inline(always)]
    pub(crate) fn reset(&mut self, wake_flags: u64) {
        let Self { wake_flags: flags, full, unreadable, offset } = self;
        *flags = wake_flags;
        *offset = 0;
        for count in [full, unreadable] {
            // SAFETY: a reference is valid for writes.
            unsafe { ptr::from_mut(count).write_volatile(0) };
        }
    }
}

/// The scratch of this CPU.
#[inline(always)]
pub(crate) fn scratch() -> Option<&'static mut Scratch> {
    slot().map(Slot::take)
}

/// Where the scratch of this CPU is.
#[inline(always)]
pub(crate) fn slot() -> Option<Slot> {
    SCRATCH.get_ptr_mut(0).map(|at| Slot { at })
}

/// The place of a scratch, which looking it up once is enough for.
#[derive(Clone, Copy)]
pub(crate) struct Slot {
    at: *mut Scratch,
}

impl Slot {
    /// The scratch.
    #[inline(always)]
    pub(crate) fn take(self) -> &'static mut Scratch {
        // SAFETY: the slot is this CPU's, classifiers run to their end with bottom halves disabled, and no function
        // holds the reference while it calls another that takes one. Any bytes are a valid value.
        unsafe { &mut *self.at }
    }
}
