//! Enters: nothing. Leaves: names, keys and values of the maps and programs that both sides use.

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
    /// The same shape: set where a replay connection of the agent has this local port.
    pub const OWN_PORTS: &str = "OWN_PORTS";
    /// Hash of [`SocketKey`](super::SocketKey) to `u8`: local ends of the agent's replay connections; asked only
    /// where the bit in `OWN_PORTS` is set.
    pub const OWN_SOCKETS: &str = "OWN_SOCKETS";
    /// Longest-prefix trie of v4-mapped addresses to `u8`: server addresses to match, asked only where
    /// [`KernelConfig::match_addresses`](super::KernelConfig::match_addresses) is set.
    pub const ADDRESSES: &str = "ADDRESSES";
    /// Array of one [`KernelConfig`](super::KernelConfig).
    pub const CONFIG: &str = "CONFIG";
    /// Per-CPU array of [`Counter::COUNT`](crate::Counter::COUNT) `u64`.
    pub const COUNTERS: &str = "COUNTERS";
    /// Array of ring buffers, one a capture thread.
    pub const RINGS: &str = "RINGS";
}

/// Words of the port bitmaps: 65,536 ports, 64 a word. Port `p` is bit `p % 64` of word `p / 64`.
pub const PORT_WORDS: u32 = 1024;

/// The most ring buffers, hence capture threads, of one agent.
pub const MAX_RINGS: u32 = 8;

/// Entries of the map of own sockets.
pub const MAX_OWN_SOCKETS: u32 = 4096;

/// Entries of the address trie.
pub const MAX_ADDRESSES: u32 = 1024;

/// How many bytes of payload a server record carries at most: enough for a status line's version and code
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
    /// Non-zero: payload of server segments is copied whole.
    pub copy_responses: u32,
    /// A wake-up of the reader is asked for at most once in so many nanoseconds a CPU.
    pub wake_interval_ns: u32,
}
