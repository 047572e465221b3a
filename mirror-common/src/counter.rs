//! Enters: nothing. Leaves: the counters that the kernel program keeps per CPU, as indices of one array map.

/// Index of a per-CPU counter of the kernel program.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u32)]
pub enum Counter {
    /// Segments of a matched port, sent by the client, that were copied.
    CopiedClient = 0,
    /// Segments of a matched port, sent by the server, of which a record was made.
    CopiedServer = 1,
    /// Records that did not fit into the ring.
    DroppedRingFull = 2,
    /// Segments of which the end was not copied because they are larger than the program can copy.
    DroppedTooLong = 3,
    /// Payload that the kernel refused to hand over.
    DroppedUnreadable = 4,
    /// IP fragments of matched protocols: ports unknown.
    Fragment = 5,
    /// Packets with broken or truncated IP or TCP headers.
    Malformed = 6,
    /// Packets with more extension headers, tags or labels than the program follows.
    TooDeep = 7,
    /// Segments of the agent's own replay connections, left out.
    Own = 8,
    /// Packets in tunnels that are not looked into.
    Tunnel = 9,
    /// Clients' SYNs of connections that are in no sample of their port.
    SampledOut = 10,
    /// Connections that were shed: at their client's SYN, or let go at a later segment of it.
    Shed = 11,
    /// Segments sent by the server of which payload was left out that would have been copied, since nobody reads it.
    Unread = 12,
}

impl Counter {
    /// How many counters there are.
    pub const COUNT: u32 = 13;

    /// All of them, in the order of their indices.
    pub const ALL: [Self; Self::COUNT as usize] = [
        Self::CopiedClient,
        Self::CopiedServer,
        Self::DroppedRingFull,
        Self::DroppedTooLong,
        Self::DroppedUnreadable,
        Self::Fragment,
        Self::Malformed,
        Self::TooDeep,
        Self::Own,
        Self::Tunnel,
        Self::SampledOut,
        Self::Shed,
        Self::Unread,
    ];
}
