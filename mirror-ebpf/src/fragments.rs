//! Enters: the fragments of a packet, one by one. Leaves: each as a segment of its own, once the first is known.
//!
//! What the first fragment said is kept, whatever its ports: of a packet that is not matched the others are then known
//! to be none of ours, and not counted.

use aya_ebpf::btf_maps::LruHashMap;
use aya_ebpf::helpers::bpf_ktime_get_ns;
use aya_ebpf::macros::btf_map;
use mirror_common::maps::MAX_FRAGMENTED_PACKETS;
use mirror_common::packet::{FirstFragment, FragmentKey, MAX_FRAGMENT_AGE_NS, Network, TcpPacket, Unparsed};

use crate::skb::Skb;

/// First fragments of packets of which not all fragments have come.
#[btf_map]
static FIRST_FRAGMENTS: LruHashMap<FragmentKey, Kept, { MAX_FRAGMENTED_PACKETS as usize }> =
    LruHashMap::new();

/// What is kept of a first fragment.
#[repr(C)]
struct Kept {
    /// When it came.
    timestamp_ns: u64,
    first: FirstFragment,
    reserved: u32,
}

/// Finds the part of a segment in a fragment.
#[inline(always)]
pub(crate) fn find_fragment(skb: Skb, network: &Network) -> Result<TcpPacket, Unparsed> {
    let key = network.fragment_key(skb.ifindex());
    // SAFETY: the helper takes nothing and cannot fail.
    let now = unsafe { bpf_ktime_get_ns() };
    if network.fragment_offset == 0 {
        let (packet, first) = FirstFragment::open(&skb, network)?;
        // Where there is no room the other fragments are counted.
        FIRST_FRAGMENTS.insert(key, Kept { timestamp_ns: now, first, reserved: 0 }, 0).ok();
        return Ok(packet);
    }
    let kept = FIRST_FRAGMENTS.get_ptr_mut(key).ok_or(Unparsed::Fragment)?;
    let slot = kept;
    // SAFETY: the slot stays valid while the program runs. The fragments of a packet come one after the other, so that
    // no other processor writes it for the same packet; for another it may be, which is asked below.
    let kept = unsafe { &mut *kept };
    if now.wrapping_sub(kept.timestamp_ns) > MAX_FRAGMENT_AGE_NS {
        return Err(Unparsed::Fragment);
    }
    let packet = kept.first.segment_of(&skb, network)?;
    let is_complete = kept.first.is_complete();
    // In a flood of fragments the slot may have gone to another packet while it was read.
    if FIRST_FRAGMENTS.get_ptr_mut(key) != Some(slot) {
        return Err(Unparsed::Fragment);
    }
    if is_complete {
        FIRST_FRAGMENTS.remove(key).ok();
    }
    Ok(packet)
}
