//! Enters: a server's segment of which the payload would be copied. Leaves: whether the agent said that nobody reads it.

use aya_ebpf::btf_maps::LruHashMap;
use aya_ebpf::macros::btf_map;
use mirror_common::Counter;
use mirror_common::unread::{LEAST_UNREAD_SEGMENT, MAX_UNREAD, UnreadKey, UnreadRun};

use crate::counters::count;
use crate::scratch::scratch;

/// [`mirror_common::maps::map::UNREAD`].
#[btf_map]
static UNREAD: LruHashMap<UnreadKey, UnreadRun, { MAX_UNREAD as usize }> = LruHashMap::new();

/// Whether nobody reads the payload of the segment whose header is in the scratch; counted where it is so.
///
/// The scratch must not be referred to across this call.
#[inline(always)]
pub(crate) fn is_unread(payload_len: u32) -> bool {
    payload_len >= LEAST_UNREAD_SEGMENT && mirror_is_unread() != 0
}

/// The same as a global function, which the verifier walks once (see [`crate::parse`]).
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn mirror_is_unread() -> u32 {
    let Some(scratch) = scratch() else { return 0 };
    let header = &scratch.header;
    let Some(run) = UNREAD.get_ptr(UnreadKey::of(header)) else { return 0 };
    // SAFETY: the slot stays valid while the program runs. It may go to another flow meanwhile: if the numbers then happen to
    // fit, the agent finds payload missing, and says so.
    let run = unsafe { run.read() };
    if !run.holds(header.seq, header.payload_len) {
        return 0;
    }
    // Here and not where the record is made, so that older verifiers need not walk that once more for it.
    count(Counter::Unread);
    1
}
