//! Enters: nothing. Leaves: names, keys and values of the maps and programs that both sides use.

use core::mem::{offset_of, size_of};

use crate::packet::UdpTunnel;

/// Names of the classifier programs. Which one is attached where is the interface's role: `node` takes requests at
/// ingress and responses at egress, `pod` the reverse, `lo` both at ingress.
pub mod program {
    /// Takes segments whose destination port is matched: sent by clients.
    pub const REQUESTS: &str = "mirror_requests";
    /// Takes segments whose source port is matched: sent by servers.
    pub const RESPONSES: &str = "mirror_responses";
    /// Takes either, the destination port first.
    pub const BOTH: &str = "mirror_both";
}

/// Names of the maps.
pub mod map {
    /// Array of [`PORT_WORDS`](super::PORT_WORDS) `u64`: one bit a port, set where the port is matched.
    pub const PORTS: &str = "PORTS";
    /// Array of [`TUNNEL_PORT_WORDS`](super::TUNNEL_PORT_WORDS) `u64`: two bits a UDP port, which say whether packets to
    /// it are those of a tunnel; see [`tunnel_bits`](super::tunnel_bits).
    pub const TUNNEL_PORTS: &str = "TUNNEL_PORTS";
    /// The shape of `PORTS`: set where a replay connection of the agent has this local port.
    pub const OWN_PORTS: &str = "OWN_PORTS";
    /// Hash of [`SocketKey`](super::SocketKey) to `u8`, one of [`own_end`](super::own_end): local ends of the agent's
    /// replay connections; asked only where the bit in `OWN_PORTS` is set.
    pub const OWN_SOCKETS: &str = "OWN_SOCKETS";
    /// Least-recently-used hash of [`Namesake`](super::Namesake) to `u8`: connections seen to be another socket's though
    /// their local end is one of the agent's; asked only where it is.
    pub const NAMESAKES: &str = "NAMESAKES";
    /// The shape of `PORTS`: set where payload that servers of this port send is copied whole; asked only where
    /// [`KernelConfig::copy_responses`](super::KernelConfig::copy_responses) is set.
    pub const ANSWER_PORTS: &str = "ANSWER_PORTS";
    /// Least-recently-used hash of [`UnreadKey`](crate::unread::UnreadKey) to [`UnreadRun`](crate::unread::UnreadRun): what
    /// nobody reads of the answers under way; asked only where a segment's payload would be copied.
    pub const UNREAD: &str = "UNREAD";
    /// Longest-prefix trie of v4-mapped addresses to `u8`: server addresses to match, asked only where
    /// [`KernelConfig::match_addresses`](super::KernelConfig::match_addresses) is set.
    pub const ADDRESSES: &str = "ADDRESSES";
    /// Hash of [`PortKey`](super::PortKey) to [`PortSample`](super::PortSample): of which connections to a live port
    /// segments are copied, asked only where [`KernelConfig::connections`](super::KernelConfig::connections) has
    /// [`ConnectionFlags::SAMPLED`](super::ConnectionFlags::SAMPLED). A port without an entry has all copied.
    pub const SAMPLES: &str = "SAMPLES";
    /// Least-recently-used hash of [`ConnectionKey`](super::ConnectionKey) to `u32`: connections that were shed at their
    /// start, or let go later, with [`KernelConfig::shed_epoch`](super::KernelConfig::shed_epoch) as it was then. The
    /// agent does not touch it.
    pub const SHED: &str = "SHED";
    /// Array of one [`KernelConfig`](super::KernelConfig).
    pub const CONFIG: &str = "CONFIG";
    /// Per-CPU array of [`Counter::COUNT`](crate::Counter::COUNT) `u64`.
    pub const COUNTERS: &str = "COUNTERS";
    /// Array of [`MAX_RINGS`](super::MAX_RINGS) maps: the ring buffer of each capture thread. The agent puts them there;
    /// the first [`KernelConfig::rings`](super::KernelConfig::rings) must be set before a program is attached.
    pub const RINGS: &str = "RINGS";
    /// The ring buffers that go into [`RINGS`]. Each is defined with the smallest size; the agent gives those that it
    /// uses theirs before the object is loaded. A map must stay open until the programs are loaded, which name it
    /// by its descriptor.
    pub const RING: [&str; super::MAX_RINGS as usize] =
        ["RING_0", "RING_1", "RING_2", "RING_3", "RING_4", "RING_5", "RING_6", "RING_7"];
}

/// Words of the port bitmaps: 65,536 ports, 64 a word. Port `p` is bit `p % 64` of word `p / 64`.
pub const PORT_WORDS: u32 = 1024;

/// Packets in fragments that are followed at a time. Where there are more, those not used for longest are forgotten.
pub const MAX_FRAGMENTED_PACKETS: u32 = 4096;

/// Words of the map of tunnel ports: 65,536 ports, 32 a word. Port `p` is the two bits from `p % 32 * 2` on of word
/// `p / 32`.
pub const TUNNEL_PORT_WORDS: u32 = 2048;

/// The word of a port in the map of tunnel ports, and the place of its bits in there.
#[inline(always)]
#[must_use]
pub const fn tunnel_port_place(port: u16) -> (u32, u32) {
    ((port / 32) as u32, (port % 32 * 2) as u32)
}

/// The two bits of a port to which packets of this tunnel go; other ports have 0.
#[inline(always)]
#[must_use]
pub const fn tunnel_bits(tunnel: UdpTunnel) -> u64 {
    match tunnel {
        UdpTunnel::Vxlan => 1,
        UdpTunnel::Geneve => 2,
    }
}

/// The tunnel of a port with these bits.
#[inline(always)]
#[must_use]
pub const fn tunnel_of_bits(bits: u64) -> Option<UdpTunnel> {
    match bits & 3 {
        1 => Some(UdpTunnel::Vxlan),
        2 => Some(UdpTunnel::Geneve),
        _ => None,
    }
}

/// The most ring buffers, hence capture threads, of one agent.
pub const MAX_RINGS: u32 = 8;

/// Entries of the map of own sockets.
pub const MAX_OWN_SOCKETS: u32 = 4096;

/// Connections that are remembered as another socket's. Where there are more, those that were quiet for longest are
/// forgotten, and taken for the agent's until their client next sends.
pub const MAX_NAMESAKES: u32 = 1024;

/// What is known of a replay connection beside its local end: values of [`map::OWN_SOCKETS`].
pub mod own_end {
    /// Nothing: all connections with this local end are taken for the agent's.
    pub const ALONE: u8 = 1;
    /// Its socket bears the agent's mark, and a socket that does not is another's.
    pub const MARKED: u8 = 2;
}

/// Entries of the address trie.
pub const MAX_ADDRESSES: u32 = 1024;

/// Live ports of which connections can be sampled in the kernel program; of more the agent decides alone.
pub const MAX_SAMPLED_PORTS: u32 = 1024;

/// Samples of one port in the kernel program; where there are more the agent decides alone.
pub const MAX_LANES: usize = 4;

/// Connections that are remembered as shed. Where there are more, those that sent nothing for longest are forgotten, and
/// copied from then on, unless they are let go again.
pub const MAX_SHED_CONNECTIONS: u32 = 32_768;

/// The key of the draws by which connections are shed: unlike that of any experiment, so that a sample loses no more
/// than its share. Any number would do.
pub const SHED_KEY: u64 = 0x6d69_7272_6f72_7368;

/// How many bytes of payload a server record carries at most, where it is not copied whole: enough for a status line's version and code
/// (`HTTP/1.1 101`), which tells whether a connection was handed to another protocol.
pub const STATUS_PEEK_BYTES: u32 = 12;

/// The local end of a replay connection.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[repr(C)]
pub struct SocketKey {
    /// The address, v4-mapped for IPv4, in network byte order.
    pub addr: [u8; 16],
    /// The port.
    pub port: u16,
    /// Zero.
    pub reserved: u16,
}

impl SocketKey {
    /// Length of the key in bytes.
    pub const LEN: usize = 20;

    /// The key as it stands in the map.
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        let (addr, rest) = bytes.split_at_mut(self.addr.len());
        addr.copy_from_slice(&self.addr);
        let (port, reserved) = rest.split_at_mut(2);
        port.copy_from_slice(&self.port.to_ne_bytes());
        reserved.copy_from_slice(&self.reserved.to_ne_bytes());
        bytes
    }
}

/// A connection that shares its local end with one of the agent's.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[repr(C)]
pub struct Namesake {
    /// The end that both share.
    pub local: SocketKey,
    /// Where it leads, as the packets say at the hook.
    pub peer: SocketKey,
}

/// The live port of a sample.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[repr(C)]
pub struct PortKey {
    /// The port.
    pub port: u32,
}

/// One experiment's sample of the connections to a port.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[repr(C)]
pub struct SampleLane {
    /// The key of its draws; see [`connection_draw`](crate::sample::connection_draw).
    pub key: u64,
    /// The share that is in it; 0 where the lane is not used.
    pub millionths: u32,
    /// Zero.
    pub reserved: u32,
}

/// The samples of the connections to a port: what is in any of them is copied.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[repr(C)]
pub struct PortSample {
    /// One for each experiment.
    pub lanes: [SampleLane; MAX_LANES],
}

impl PortSample {
    /// Length of the value in words of 64 bits.
    pub const WORDS: usize = 2 * MAX_LANES;

    /// The value as it stands in the map.
    #[must_use]
    pub fn to_words(self) -> [u64; Self::WORDS] {
        let mut words = [0; Self::WORDS];
        for (words, lane) in words.chunks_exact_mut(2).zip(self.lanes) {
            let ([k0, k1, k2, k3], [r0, r1, r2, r3]) =
                (lane.millionths.to_ne_bytes(), lane.reserved.to_ne_bytes());
            words.copy_from_slice(&[lane.key, u64::from_ne_bytes([k0, k1, k2, k3, r0, r1, r2, r3])]);
        }
        words
    }
}

/// A connection that was shed, as seen at one hook.
///
/// Where the server's address is translated between two hooks its port may differ there, too. Each hook then has its own
/// entry: the draw, which goes by the client alone, is the same at both.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[repr(C)]
pub struct ConnectionKey {
    /// The client's address, v4-mapped for IPv4, in network byte order.
    pub client_addr: [u8; 16],
    /// The client's port.
    pub client_port: u16,
    /// The server's port.
    pub server_port: u16,
}

/// Bits of [`KernelConfig::connections`].
pub struct ConnectionFlags;

impl ConnectionFlags {
    /// There are entries in [`map::SAMPLES`].
    pub const SAMPLED: u32 = 1 << 0;
    /// Connections are shed, or some are still left out that were.
    pub const SHED: u32 = 1 << 1;
}

/// What the agent tells the kernel program.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[repr(C)]
pub struct KernelConfig {
    /// Non-zero: matched packets are left alone as if unmatched.
    pub paused: u32,
    /// How many of the rings are in use; 1 to [`MAX_RINGS`], a power of two.
    pub rings: u32,
    /// SO_MARK of the agent's replay sockets; 0 for none.
    pub own_mark: u32,
    /// Non-zero: the server's address must be in the trie.
    pub match_addresses: u32,
    /// Non-zero: payload of server segments is copied whole where their port is in [`map::ANSWER_PORTS`].
    pub copy_responses: u32,
    /// A wake-up of a ring's reader is asked for at most once in so many nanoseconds a CPU. A reader that found
    /// nothing must go on looking for longer than this before it blocks.
    pub wake_interval_ns: u32,
    /// [`ConnectionFlags`]: which of the following, and of the maps of connections, are to be asked at all.
    pub connections: u32,
    /// The share of new connections of which no segment is copied; one that was left out is taken up again once the
    /// share has fallen so far that it would not be.
    pub shed_millionths: u32,
    /// Raised whenever shedding begins: what stands in [`map::SHED`] from before then does not count.
    pub shed_epoch: u32,
    /// The share of the connections that are followed to let go of, each when its client next sends something; at most
    /// `shed_millionths`, by the same draw. One that was let go is taken up again like one that was left out.
    pub let_go_millionths: u32,
}

impl KernelConfig {
    /// Length of the value in words of 32 bits.
    pub const WORDS: usize = 10;

    /// The value as it stands in the map.
    #[must_use]
    pub fn to_words(self) -> [u32; Self::WORDS] {
        let Self { paused, rings, own_mark, match_addresses, copy_responses, wake_interval_ns, .. } = self;
        let Self { connections, shed_millionths, shed_epoch, let_go_millionths, .. } = self;
        [
            paused,
            rings,
            own_mark,
            match_addresses,
            copy_responses,
            wake_interval_ns,
            connections,
            shed_millionths,
            shed_epoch,
            let_go_millionths,
        ]
    }
}

const _: () = {
    assert!(size_of::<SocketKey>() == SocketKey::LEN);
    assert!(offset_of!(SocketKey, port) == 16);
    assert!(size_of::<PortKey>() == 4);
    assert!(size_of::<PortSample>() == PortSample::WORDS * 8);
    assert!(offset_of!(SampleLane, millionths) == 8);
    assert!(size_of::<ConnectionKey>() == 20);
    assert!(size_of::<KernelConfig>() == KernelConfig::WORDS * 4);
    assert!(offset_of!(KernelConfig, shed_epoch) == 32);
    assert!(offset_of!(KernelConfig, let_go_millionths) == 36);
    assert!(offset_of!(KernelConfig, rings) == 4);
    assert!(offset_of!(KernelConfig, wake_interval_ns) == 20);
};

/// The ring for a flow: chosen by the client's address and port alone, which are the same on both sides of the flow and
/// before and after the server's address was translated.
///
/// `rings` is a power of two, at most [`MAX_RINGS`]. Which flow goes where can be foreseen by whoever can choose
/// ports, who gains nothing by it: a ring that is full drops, and says so.
#[inline(always)]
#[must_use]
pub fn ring_index(client_addr: &[u8; 16], client_port: u16, rings: u32) -> u32 {
    let [a0, a1, a2, a3, a4, a5, a6, a7, b0, b1, b2, b3, b4, b5, b6, b7] = *client_addr;
    let folded = u64::from_ne_bytes([a0, a1, a2, a3, a4, a5, a6, a7])
        ^ u64::from_ne_bytes([b0, b1, b2, b3, b4, b5, b6, b7])
        ^ u64::from(client_port) << 32;
    // Fibonacci hashing: 2^64 divided by the golden ratio spreads runs of neighbours over the high bits.
    let [hash, ..] = folded.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
    u32::from(hash) & rings.wrapping_sub(1) & (MAX_RINGS - 1)
}

#[cfg(test)]
mod tests {
    use super::{ring_index, tunnel_bits, tunnel_of_bits, tunnel_port_place};
    use crate::packet::{UdpTunnel, v4_mapped};

    #[test]
    fn tunnel_is_told_by_the_bits_of_its_port() {
        assert_eq!(tunnel_port_place(0), (0, 0));
        assert_eq!(tunnel_port_place(65_535), (2047, 62));
        for tunnel in [UdpTunnel::Vxlan, UdpTunnel::Geneve] {
            assert_eq!(tunnel_of_bits(tunnel_bits(tunnel)), Some(tunnel));
            assert_eq!(tunnel_of_bits(tunnel_bits(tunnel) << 2), None, "the neighbour's");
        }
    }

    #[test]
    fn consecutive_ports_spread_over_the_rings() {
        let mut flows = [0_u32; 8];
        for port in 32_768..33_768 {
            flows[usize::try_from(ring_index(&v4_mapped([192, 0, 2, 1]), port, 8)).unwrap()] += 1;
        }

        assert!(flows.iter().all(|&flows| (75..=175).contains(&flows)), "{flows:?}");
    }

    #[test]
    fn only_rings_in_use_are_chosen() {
        for port in 0..1000 {
            assert_eq!(ring_index(&[7; 16], port, 1), 0);
            assert!(ring_index(&[7; 16], port, 4) < 4);
        }
    }
}
