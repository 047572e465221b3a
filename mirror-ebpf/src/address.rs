//! Enters: a server's address. Leaves: whether it is among those to match.

use aya_ebpf::btf_maps::LpmTrie;
use aya_ebpf::btf_maps::lpm_trie::Key;
use aya_ebpf::macros::btf_map;
use mirror_common::maps::MAX_ADDRESSES;
use mirror_common::packet::Address;

/// [`mirror_common::maps::map::ADDRESSES`].
#[btf_map]
static ADDRESSES: LpmTrie<[u8; 16], u8, { MAX_ADDRESSES as usize }> = LpmTrie::new();

/// The address as it stands in a header. [`Address::to_bytes`] takes it apart byte by byte, of which the compiler makes as
/// many stores.
#[inline(always)]
pub(crate) fn bytes_of(addr: Address) -> [u8; 16] {
    // SAFETY: it is two words, in which the bytes stand in the order of memory.
    unsafe { core::mem::transmute(addr) }
}

/// Whether a prefix in the trie holds the v4-mapped address.
#[inline(always)]
pub(crate) fn is_matched(addr: Address) -> bool {
    ADDRESSES.get(&Key::new(128, bytes_of(addr))).is_some()
}
