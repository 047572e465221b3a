//! Enters: a server's address. Leaves: whether it is among those to match.

use aya_ebpf::btf_maps::LpmTrie;
use aya_ebpf::btf_maps::lpm_trie::Key;
use aya_ebpf::macros::btf_map;
use mirror_common::maps::MAX_ADDRESSES;

/// [`mirror_common::maps::map::ADDRESSES`].
#[btf_map]
static ADDRESSES: LpmTrie<[u8; 16], u8, { MAX_ADDRESSES as usize }> = LpmTrie::new();

/// Whether a prefix in the trie holds the v4-mapped address.
#[inline(always)]
pub(crate) fn is_matched(addr: &[u8; 16]) -> bool {
    ADDRESSES.get(&Key::new(128, *addr)).is_some()
}
