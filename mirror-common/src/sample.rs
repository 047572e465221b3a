//! Enters: the client's end of a connection. Leaves: whether the connection is in an experiment's sample.
//!
//! The kernel program decides by this at a connection's first segment, the agent by the same for every request of it.
//! The answer is the same on every machine, in every release and after every restart: the numbers here are part of the
//! contract, as a map's layout is.

/// How many millionths are the whole.
pub const WHOLE_MILLIONTHS: u32 = 1_000_000;

/// A number that is uniform over all `u32` and the same for all segments of a connection.
///
/// `key` sets experiments apart: the agent derives it from the experiment's name. `addr` and `port` are the client's,
/// the address IPv4-mapped for IPv4; they are the same on both sides of the flow and before and after the server's
/// address was translated. [`ring_index`](crate::maps::ring_index) takes bits of a hash without a key; here every bit
/// depends on the key, so that a sample is spread over all rings, and one ring is a sample of all connections.
///
/// # Minimum kernel version
///
/// Any: multiplications, shifts and exclusive ors of 64-bit words, without a branch or a loop.
#[inline(always)]
#[must_use]
pub const fn connection_draw(key: u64, addr: [u8; 16], port: u16) -> u32 {
    let [a0, a1, a2, a3, a4, a5, a6, a7, b0, b1, b2, b3, b4, b5, b6, b7] = addr;
    // Little-endian is the kernel program's own order, and costs nothing there.
    let mut hash = mix(key ^ u64::from_le_bytes([a0, a1, a2, a3, a4, a5, a6, a7]));
    hash = mix(hash ^ u64::from_le_bytes([b0, b1, b2, b3, b4, b5, b6, b7]));
    hash = mix(hash ^ port as u64);
    (hash >> 32) as u32
}

/// Whether a draw that is uniform over all `u32` is in a share of so many millionths: 0 takes none,
/// [`WHOLE_MILLIONTHS`] takes all. What is in a share is in every larger one.
#[inline(always)]
#[must_use]
pub const fn is_in_share(draw: u32, millionths: u32) -> bool {
    // Below 2^32 times 2^32 millionths: the product fits.
    (draw as u64).wrapping_mul(WHOLE_MILLIONTHS as u64) >> 32 < millionths as u64
}

/// A bijection of `u64` with good avalanche (the finaliser of `SplitMix64`).
#[inline(always)]
const fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::{WHOLE_MILLIONTHS, connection_draw, is_in_share};
    use crate::{maps::ring_index, packet::v4_mapped};

    const KEY: u64 = 0x0123_4567_89ab_cdef;

    /// Connections of many clients, as load generators and proxies make them: runs of neighbours.
    fn connections() -> impl Iterator<Item = ([u8; 16], u16)> {
        (0..100_u8).flat_map(|host| (0..1000).map(move |port| (v4_mapped([10, 0, 0, host]), 32_768 + port)))
    }

    fn taken(key: u64, millionths: u32) -> usize {
        connections()
            .filter(|(addr, port)| is_in_share(connection_draw(key, *addr, *port), millionths))
            .count()
    }

    #[test]
    fn a_draw_is_the_same_in_every_release() {
        assert_eq!(connection_draw(0, [0; 16], 0), 595_752_380);
        assert_eq!(connection_draw(KEY, v4_mapped([192, 0, 2, 1]), 40_000), 1_219_786_697);
        assert_eq!(connection_draw(KEY, *b"\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01", 1), 634_633_806);
    }

    #[test]
    fn the_sample_is_as_large_as_asked_for() {
        assert_eq!(taken(KEY, 0), 0);
        assert_eq!(taken(KEY, WHOLE_MILLIONTHS), 100_000);
        for (millionths, low, high) in
            [(5_000, 400, 600), (100_000, 9_500, 10_500), (500_000, 49_200, 50_800)]
        {
            let taken = taken(KEY, millionths);
            assert!((low..=high).contains(&taken), "{millionths}: {taken}");
        }
    }

    #[test]
    fn the_ends_of_a_draw_are_in_the_shares_that_they_should_be() {
        assert!(!is_in_share(0, 0) && is_in_share(0, 1));
        assert!(!is_in_share(u32::MAX, WHOLE_MILLIONTHS - 1) && is_in_share(u32::MAX, WHOLE_MILLIONTHS));
    }

    #[test]
    fn every_ring_has_its_part_of_a_sample() {
        let mut rings = [0_u32; 8];
        for (addr, port) in connections() {
            if is_in_share(connection_draw(KEY, addr, port), 100_000) {
                rings[usize::try_from(ring_index(&addr, port, 8)).unwrap()] += 1;
            }
        }
        assert!(rings.iter().all(|&count| (1_050..=1_450).contains(&count)), "{rings:?}");
    }

    #[test]
    fn samples_of_two_keys_are_independent() {
        for other in [KEY ^ 1, KEY.rotate_left(32), !KEY, 0] {
            let is_in = |key, addr, port| is_in_share(connection_draw(key, addr, port), 500_000);
            let both = connections()
                .filter(|(addr, port)| is_in(KEY, *addr, *port) && is_in(other, *addr, *port))
                .count();
            assert!((24_300..=25_700).contains(&both), "{other:x}: {both}");
        }
    }
}
