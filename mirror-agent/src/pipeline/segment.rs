//! Enters: what a capture source knows of one TCP segment. Leaves: the value that the flow stage takes.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr, SocketAddr},
};

use crate::pipeline::{seq::SeqNumber, time::Timestamp};

/// A side of a flow.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Side {
    /// The side that opened the connection and sends requests.
    Client,
    /// The side that answers.
    Server,
}

impl Side {
    /// Both sides, the client first.
    pub const ALL: [Self; 2] = [Self::Client, Self::Server];

    /// The label value of this side.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
        }
    }

    /// The other side.
    #[must_use]
    pub const fn peer(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

/// One end of a flow. IPv4 addresses are held v4-mapped.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Endpoint {
    /// The address, v4-mapped for IPv4.
    pub addr: Ipv6Addr,
    /// The TCP port.
    pub port: u16,
}

impl Endpoint {
    /// The same as a socket address, IPv4 written as IPv4.
    #[must_use]
    pub fn to_socket_addr(self) -> SocketAddr {
        SocketAddr::new(self.addr.to_canonical(), self.port)
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(addr: SocketAddr) -> Self {
        let ip = match addr.ip() {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        Self { addr: ip, port: addr.port() }
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.to_socket_addr(), f)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.to_socket_addr(), f)
    }
}

/// What tells one flow from all others.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct FlowKey {
    /// The end that sends requests.
    pub client: Endpoint,
    /// The end that answers.
    pub server: Endpoint,
    /// VLAN identifiers: outer in the low 16 bits, inner in the high 16; 0 for none.
    pub vlan: u32,
    /// Virtual network identifier of an overlay; 0 for none.
    pub vni: u32,
}

/// The flags of a TCP header (RFC 9293 section 3.1), low eight bits.
#[derive(Clone, Copy, Default, Eq, PartialEq)]
pub struct TcpFlags(pub u8);

impl TcpFlags {
    /// No more data from the sender.
    pub const FIN: Self = Self(0x01);
    /// Synchronises sequence numbers.
    pub const SYN: Self = Self(0x02);
    /// Resets the connection.
    pub const RST: Self = Self(0x04);
    /// The acknowledgement number is significant.
    pub const ACK: Self = Self(0x10);
    /// The urgent pointer is significant.
    pub const URG: Self = Self(0x20);

    /// Whether all flags of `other` are set.
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether a segment with these flags is dropped unread by whoever receives it: it neither acknowledges anything, as
    /// every segment within a connection does, nor opens or resets one.
    // RFC 9293 section 3.10.7.4, fifth: "if the ACK bit is off, drop the segment and return".
    #[must_use]
    pub const fn lack_ack(self) -> bool {
        self.0 & (Self::ACK.0 | Self::SYN.0 | Self::RST.0) == 0
    }
}

impl fmt::Debug for TcpFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TcpFlags({:#04x})", self.0)
    }
}

/// One TCP segment, or the part of one that a record carries.
#[derive(Clone, Copy, Debug)]
pub struct Segment<'a> {
    /// The flow it belongs to.
    pub flow: FlowKey,
    /// Index of the interface at which it was seen; 0 for a capture file.
    pub interface: u32,
    /// The side that sent it.
    pub side: Side,
    /// When it was seen.
    pub at: Timestamp,
    /// Sequence number of the first payload byte, or of the SYN where that flag is set.
    pub seq: SeqNumber,
    /// Next sequence number that the sender expects from its peer; meaningful only with [`TcpFlags::ACK`].
    pub ack: SeqNumber,
    /// The TCP flags.
    pub flags: TcpFlags,
    /// The payload that was copied: a prefix of the segment's payload.
    pub payload: &'a [u8],
    /// Length of the whole payload in bytes; at least `payload.len()`. The rest was not copied.
    pub payload_len: u32,
}
