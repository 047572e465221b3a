//! Enters: the context of a TC program. Leaves: bytes and metadata of its packet, read only.
//!
//! All raw access to a packet is here. Direct access is by single machine loads written out, for two reasons: the
//! compiler may not assume an alignment that a driver does not promise, and it may not take the address apart again
//! after the bounds check, which verifiers before 6.12 do not follow.

use core::ffi::c_void;
use core::mem::MaybeUninit;
use core::ptr;

use aya_ebpf::bindings::{__sk_buff, bpf_hdr_start_off, bpf_sock};
use aya_ebpf::helpers::{bpf_skb_load_bytes, bpf_skb_load_bytes_relative};
use mirror_common::packet::PacketBytes;

/// The packet that the program runs for.
#[derive(Clone, Copy)]
pub(crate) struct Skb {
    raw: *mut __sk_buff,
}

/// Reads one field of the context. The verifier wants each as a load of its own size at its own offset.
macro_rules! field {
    ($skb:expr, $field:ident) => {
        // SAFETY: the context of a TC program is valid while the program runs, and every field of it read here is
        // an aligned integer of the kernel's interface.
        unsafe { ptr::read_volatile(&raw const (*$skb.raw).$field) }
    };
}

impl Skb {
    /// Takes the context as the kernel gave it to the entry point.
    #[inline(always)]
    pub(crate) fn new(raw: *mut __sk_buff) -> Self {
        Self { raw }
    }

    /// The context as the kernel gave it.
    #[inline(always)]
    pub(crate) fn raw(self) -> *mut __sk_buff {
        self.raw
    }

    /// The context in the form that logging takes.
    #[cfg(feature = "log")]
    #[inline(always)]
    pub(crate) fn context(self) -> aya_ebpf::programs::TcContext {
        aya_ebpf::programs::TcContext::new(self.raw)
    }

    /// Length of the packet in bytes, in its linear part and beyond.
    #[inline(always)]
    pub(crate) fn len(self) -> u32 {
        field!(self, len)
    }

    /// The socket mark.
    #[inline(always)]
    pub(crate) fn mark(self) -> u32 {
        field!(self, mark)
    }

    /// The socket that the packet belongs to, or null.
    #[inline(always)]
    pub(crate) fn socket(self) -> *mut bpf_sock {
        #[expect(clippy::multiple_unsafe_ops_per_block, reason = "one argument covers both")]
        // SAFETY: as in `field`; the union has one field.
        unsafe {
            ptr::read_volatile(&raw const (*self.raw).__bindgen_anon_2.sk)
        }
    }

    /// Index of the interface.
    #[inline(always)]
    pub(crate) fn ifindex(self) -> u32 {
        field!(self, ifindex)
    }

    /// The EtherType that the stack goes by, in network byte order: that of an inline VLAN tag where there is one.
    #[inline(always)]
    pub(crate) fn protocol_be(self) -> u16 {
        field!(self, protocol) as u16
    }

    /// Control information of a VLAN tag that is not in the bytes.
    #[inline(always)]
    pub(crate) fn offloaded_tag(self) -> Option<u16> {
        if field!(self, vlan_present) == 0 { None } else { Some(field!(self, vlan_tci) as u16) }
    }

    /// The bytes that can be reached without a helper.
    #[inline(always)]
    pub(crate) fn linear(self) -> Linear {
        Linear { data: u64::from(field!(self, data)), end: u64::from(field!(self, data_end)), skb: self }
    }

    /// Copies `len` bytes of the packet at `offset` to `to`; whether they were there.
    ///
    /// # Safety
    ///
    /// `to` is valid for writes of `len` bytes.
    #[inline(always)]
    pub(crate) unsafe fn copy_to(self, offset: u32, to: *mut u8, len: u32) -> bool {
        // SAFETY: the context is valid (see `field`), the caller vouches for `to`.
        unsafe { bpf_skb_load_bytes(self.raw.cast(), offset, to.cast(), len) == 0 }
    }

    /// Whether what the stack takes for the network header is at the packet's first byte.
    ///
    /// No context field and no helper gives its offset, but a helper refuses bytes past the linear part: counted from a
    /// header that comes later, the last byte of the linear part is one of them.
    #[inline(always)]
    pub(crate) fn starts_with_network_header(self) -> bool {
        let linear = self.linear();
        // Hidden: the compiler would make one of the subtractions a complement, which no pointer may have.
        let last = hide(linear.end.wrapping_sub(linear.data)).wrapping_sub(1);
        let mut byte = MaybeUninit::<u8>::uninit();
        // SAFETY: the context is valid (see `field`) and `byte` is as long as is said.
        let result = unsafe {
            bpf_skb_load_bytes_relative(
                self.raw.cast::<c_void>(),
                last as u32,
                byte.as_mut_ptr().cast(),
                1,
                bpf_hdr_start_off::BPF_HDR_START_NET,
            )
        };
        result == 0
    }
}

impl PacketBytes for Skb {
    #[inline(always)]
    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        let mut bytes = MaybeUninit::<Aligned<N>>::uninit();
        // SAFETY: the array is `N` long.
        if unsafe { self.copy_to(offset, bytes.as_mut_ptr().cast(), N as u32) } {
            // SAFETY: the helper has written all of it.
            Some(unsafe { bytes.assume_init() }.0)
        } else {
            None
        }
    }

    #[inline(always)]
    fn wire_len(&self) -> u32 {
        self.len()
    }
}

/// Bytes on the stack of which whole words can be read at once; byte by byte they would not fit into registers.
#[repr(C, align(8))]
struct Aligned<const N: usize>([u8; N]);

/// The linear part of a packet.
#[derive(Clone, Copy)]
pub(crate) struct Linear {
    data: u64,
    end: u64,
    skb: Skb,
}

impl Linear {
    /// The first `N` bytes, from which fields at constant offsets can be read.
    #[inline(always)]
    pub(crate) fn first<const N: u64>(self) -> Option<Checked<N>> {
        if self.data + N > self.end { None } else { Some(Checked { at: self.data }) }
    }
}

impl PacketBytes for Linear {
    #[inline(always)]
    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        // No header starts beyond this; a bound is what makes a variable offset acceptable.
        if offset > 0x0fff {
            return None;
        }
        let at = hide(self.data + u64::from(offset));
        if at + N as u64 > self.end {
            return None;
        }
        const { assert!(matches!(N, 1 | 2 | 4 | 8 | 16 | 20), "as many bytes as loads are written out for") };
        let mut bytes = [0; N];
        #[expect(clippy::multiple_unsafe_ops_per_block, reason = "one argument covers all of them")]
        // SAFETY: the `N` bytes from `at` on end before the linear part does, as checked above, and this program
        // calls no helper that moves them.
        unsafe {
            if N >= 8 {
                bytes[..8].copy_from_slice(&raw::word::<0>(at).to_ne_bytes());
            }
            if N >= 16 {
                bytes[8..16].copy_from_slice(&raw::word::<8>(at).to_ne_bytes());
            }
            match N {
                1 => bytes[0] = raw::byte::<0>(at),
                2 => bytes.copy_from_slice(&raw::half::<0>(at).to_ne_bytes()),
                4 => bytes.copy_from_slice(&raw::quad::<0>(at).to_ne_bytes()),
                20 => bytes[16..].copy_from_slice(&raw::quad::<16>(at).to_ne_bytes()),
                _ => {}
            }
        }
        Some(bytes)
    }

    #[inline(always)]
    fn wire_len(&self) -> u32 {
        self.skb.len()
    }
}

/// `N` bytes of a packet's linear part that are known to be there.
#[derive(Clone, Copy)]
pub(crate) struct Checked<const N: u64> {
    at: u64,
}

impl<const N: u64> Checked<N> {
    /// The byte at `OFFSET`.
    #[inline(always)]
    pub(crate) fn byte<const OFFSET: u64>(self) -> u8 {
        const { assert!(OFFSET < N) };
        // SAFETY: `Linear::first` found `N` bytes at `at`, and `OFFSET` is below `N`.
        unsafe { raw::byte::<OFFSET>(self.at) }
    }

    /// The two bytes at `OFFSET` as they stand, that is in network byte order.
    #[inline(always)]
    pub(crate) fn half_be<const OFFSET: u64>(self) -> u16 {
        const { assert!(OFFSET + 1 < N) };
        // SAFETY: as in `byte`, for two bytes.
        unsafe { raw::half::<OFFSET>(self.at) }
    }
}

/// Keeps the compiler from knowing where a value came from.
#[inline(always)]
pub(crate) fn hide(value: u64) -> u64 {
    #[cfg(target_arch = "bpf")]
    {
        let mut hidden = value;
        // SAFETY: an assignment of a register to itself.
        unsafe {
            core::arch::asm!("{0} = {0}", inout(reg) hidden, options(pure, nomem, nostack, preserves_flags));
        }
        hidden
    }
    #[cfg(not(target_arch = "bpf"))]
    value
}

/// `len` in a form of which every verifier sees that it is 1 to `max`; `None` where it is not.
///
/// Verifiers before 6.12 learn nothing from `len != 0`, and the compiler drops a check that a minimum made earlier has
/// made true. Hence the detour over `len - 1`, out of the compiler's sight.
#[inline(always)]
pub(crate) fn bounded(len: u32, max: u32) -> Option<u32> {
    let less_one = hide(u64::from(len).wrapping_sub(1));
    if less_one >= u64::from(max) { None } else { Some((less_one + 1) as u32) }
}

/// Single loads from memory, of any alignment.
mod raw {
    /// Loads `at + OFFSET`.
    macro_rules! load {
        ($name:ident, $type:ty, $instruction:literal) => {
            /// Loads from `at + OFFSET`.
            ///
            /// # Safety
            ///
            /// It is readable.
            #[inline(always)]
            pub(super) unsafe fn $name<const OFFSET: u64>(at: u64) -> $type {
                #[cfg(target_arch = "bpf")]
                {
                    let value: u64;
                    // SAFETY: the caller's. The load clears the upper bits.
                    unsafe {
                        core::arch::asm!($instruction, out(reg) value, in(reg) at, const OFFSET,
                            options(pure, readonly, nostack, preserves_flags));
                    }
                    value as $type
                }
                #[cfg(not(target_arch = "bpf"))]
                // SAFETY: the caller's.
                unsafe {
                    ((at + OFFSET) as *const $type).read_unaligned()
                }
            }
        };
    }

    load!(byte, u8, "{0} = *(u8 *)({1} + {2})");
    load!(half, u16, "{0} = *(u16 *)({1} + {2})");
    load!(quad, u32, "{0} = *(u32 *)({1} + {2})");
    load!(word, u64, "{0} = *(u64 *)({1} + {2})");
}
