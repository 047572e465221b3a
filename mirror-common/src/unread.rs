//! Enters: a server's segment, and the run of its stream that nobody reads. Leaves: whether its payload can be left out.
//!
//! What a large answer holds beyond the limit of what is compared, or what answers a request that no experiment took, need
//! not be copied: its length is known, so framing survives without it. Only the agent knows where such a run ends.

use core::mem::{offset_of, size_of};

use crate::RecordHeader;

/// A flow, as the headers of its records name it.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[repr(C)]
pub struct UnreadKey {
    /// [`RecordHeader::client_addr`].
    pub client_addr: [u8; 16],
    /// [`RecordHeader::server_addr`].
    pub server_addr: [u8; 16],
    /// [`RecordHeader::client_port`].
    pub client_port: u16,
    /// [`RecordHeader::server_port`].
    pub server_port: u16,
    /// [`RecordHeader::vlan`].
    pub vlan: u32,
    /// [`RecordHeader::vni`].
    pub vni: u32,
}

/// A run of the server's stream.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[repr(C)]
pub struct UnreadRun {
    /// Sequence number of its first byte.
    pub seq: u32,
    /// Its length in bytes; less than half of the space of sequence numbers.
    pub len: u32,
}

/// Payload from which on a segment is worth the question. To copy less costs no more than to ask.
pub const LEAST_UNREAD_SEGMENT: u32 = 1024;

/// Flows of which a run is known. Where there are more, those that were not asked for longest are copied whole again.
pub const MAX_UNREAD: u32 = 8192;

impl UnreadKey {
    /// Length of the key in bytes.
    pub const LEN: usize = 44;

    /// The flow of a record.
    #[inline(always)]
    #[must_use]
    pub const fn of(header: &RecordHeader) -> Self {
        Self {
            client_addr: header.client_addr,
            server_addr: header.server_addr,
            client_port: header.client_port,
            server_port: header.server_port,
            vlan: header.vlan,
            vni: header.vni,
        }
    }

    /// The key as it stands in the map.
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        let ports = [self.client_port, self.server_port].map(u16::to_ne_bytes);
        let networks = [self.vlan, self.vni].map(u32::to_ne_bytes);
        let parts = [&self.client_addr[..], &self.server_addr, ports.as_flattened(), networks.as_flattened()];
        for (to, from) in bytes.iter_mut().zip(parts.into_iter().flatten()) {
            *to = *from;
        }
        bytes
    }
}

impl UnreadRun {
    /// Whether all of `len` bytes from `seq` on lie within the run.
    #[inline(always)]
    #[must_use]
    pub const fn holds(self, seq: u32, len: u32) -> bool {
        let ahead = seq.wrapping_sub(self.seq);
        ahead <= self.len && len <= self.len.wrapping_sub(ahead)
    }

    /// The value as it stands in the map.
    #[must_use]
    pub const fn to_words(self) -> [u32; 2] {
        [self.seq, self.len]
    }
}

const _: () = {
    assert!(size_of::<UnreadKey>() == UnreadKey::LEN);
    assert!(offset_of!(UnreadKey, client_port) == 32);
    assert!(offset_of!(UnreadKey, vlan) == 36);
    assert!(size_of::<UnreadRun>() == 8);
};

#[cfg(test)]
mod tests {
    use super::{UnreadKey, UnreadRun};

    #[test]
    fn only_what_lies_wholly_within_the_run_is_held_by_it() {
        let run = UnreadRun { seq: u32::MAX - 9, len: 100 };

        for (seq, len, is_held) in [
            (u32::MAX - 9, 100, true),
            (u32::MAX - 9, 101, false),
            (u32::MAX - 10, 50, false),
            (0, 90, true),
            (0, 91, false),
            (89, 1, true),
            (90, 0, true),
            (90, 1, false),
            (91, 0, false),
            (5000, u32::MAX, false),
        ] {
            assert_eq!(run.holds(seq, len), is_held, "{len} bytes from {seq} on");
        }
    }

    #[test]
    fn nothing_is_held_by_an_empty_run() {
        assert!(!UnreadRun { seq: 7, len: 0 }.holds(7, 1));
    }

    #[test]
    fn key_is_laid_out_as_the_kernel_has_it() {
        let key = UnreadKey {
            client_addr: [1; 16],
            server_addr: [2; 16],
            client_port: 0x0303,
            server_port: 0x0404,
            vlan: 0x0505_0505,
            vni: 0x0606_0606,
        };
        let bytes = key.to_bytes();

        assert_eq!(bytes[..32], [[1; 16], [2; 16]].concat());
        assert_eq!(bytes[32..], [3, 3, 4, 4, 5, 5, 5, 5, 6, 6, 6, 6]);
    }
}
