//! Enters: one record of the ring buffer, as bytes. Leaves: its header and the captured payload.
//!
//! A record is a [`RecordHeader`] followed by [`RecordHeader::captured_len`] bytes of TCP payload and, where the
//! kernel reserved a fixed size, by bytes without meaning. All integers are in the machine's own byte order:
//! writer and reader are the same machine. A segment too large for one record arrives as several, each complete
//! in itself: the sequence number is that of the record's own first byte, SYN stands only in the first and
//! FIN, RST and PSH only in the last.

use core::mem::{offset_of, size_of};

/// The side of the flow that sent the segment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum RecordSide {
    /// Sent by the client: request bytes.
    Client = 0,
    /// Sent by the server: response bytes.
    Server = 1,
}

/// Bits of [`RecordHeader::flags`].
pub struct RecordFlags;

impl RecordFlags {
    /// Payload of this record was left out on purpose: `captured_len` is smaller than `payload_len`.
    pub const NOT_COPIED: u16 = 1 << 0;
    /// The flow is let go: nothing is copied of it from this record's sequence number on, until it is taken up again. The
    /// record stands for no segment; it is of the client's side, without payload and TCP flags.
    pub const LET_GO: u16 = 1 << 1;
}

/// What stands at the start of each record.
///
/// IPv4 addresses are v4-mapped (`::ffff:a.b.c.d`). The fields are ordered so that there is no padding and the
/// flow's identity is one run of bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(C)]
pub struct RecordHeader {
    /// When the packet passed the hook, in nanoseconds of `CLOCK_MONOTONIC`.
    pub timestamp_ns: u64,
    /// Address of the flow's client, in network byte order.
    pub client_addr: [u8; 16],
    /// Address of the flow's server, in network byte order.
    pub server_addr: [u8; 16],
    /// Port of the flow's client.
    pub client_port: u16,
    /// Port of the flow's server.
    pub server_port: u16,
    /// VLAN identifiers: the outer in the low 16 bits, the inner in the high 16; 0 where there is no tag. Of a packet in
    /// a tunnel they are those of its own Ethernet header; where it has none, those of the packet around it.
    pub vlan: u32,
    /// Virtual network identifier: that of VXLAN or Geneve (24 bits), or the key of GRE (32 bits), of the innermost
    /// tunnel that has one; 0 where there is none.
    pub vni: u32,
    /// Index of the interface at which the packet was seen.
    pub ifindex: u32,
    /// Sequence number of the record's first payload byte (of the SYN, where one is set).
    pub seq: u32,
    /// Acknowledgement number; meaningful only where the ACK flag is set.
    pub ack: u32,
    /// Bytes of TCP payload that this record stands for.
    pub payload_len: u32,
    /// Bytes of TCP payload that follow the header.
    pub captured_len: u32,
    /// TCP flags: the low eight bits, FIN = 0x01 up to CWR = 0x80 (RFC 9293 section 3.1).
    pub tcp_flags: u8,
    /// A [`RecordSide`].
    pub side: u8,
    /// Bits of [`RecordFlags`].
    pub flags: u16,
    /// Zero.
    pub reserved: u32,
}

impl RecordHeader {
    /// Length of the header in bytes.
    pub const LEN: usize = 80;

    /// Splits a record into its header and the captured payload.
    ///
    /// `None` where the record is shorter than its header says, or its side is unknown.
    #[must_use]
    pub fn from_bytes(record: &[u8]) -> Option<(Self, &[u8])> {
        let (head, rest) = record.split_first_chunk::<{ Self::LEN }>()?;
        let header = Self {
            timestamp_ns: u64::from_ne_bytes(field(head, offset_of!(Self, timestamp_ns))?),
            client_addr: field(head, offset_of!(Self, client_addr))?,
            server_addr: field(head, offset_of!(Self, server_addr))?,
            client_port: u16::from_ne_bytes(field(head, offset_of!(Self, client_port))?),
            server_port: u16::from_ne_bytes(field(head, offset_of!(Self, server_port))?),
            vlan: u32::from_ne_bytes(field(head, offset_of!(Self, vlan))?),
            vni: u32::from_ne_bytes(field(head, offset_of!(Self, vni))?),
            ifindex: u32::from_ne_bytes(field(head, offset_of!(Self, ifindex))?),
            seq: u32::from_ne_bytes(field(head, offset_of!(Self, seq))?),
            ack: u32::from_ne_bytes(field(head, offset_of!(Self, ack))?),
            payload_len: u32::from_ne_bytes(field(head, offset_of!(Self, payload_len))?),
            captured_len: u32::from_ne_bytes(field(head, offset_of!(Self, captured_len))?),
            tcp_flags: u8::from_ne_bytes(field(head, offset_of!(Self, tcp_flags))?),
            side: u8::from_ne_bytes(field(head, offset_of!(Self, side))?),
            flags: u16::from_ne_bytes(field(head, offset_of!(Self, flags))?),
            reserved: u32::from_ne_bytes(field(head, offset_of!(Self, reserved))?),
        };
        if header.side > RecordSide::Server as u8 || header.captured_len > header.payload_len {
            return None;
        }
        let payload = rest.get(..usize::try_from(header.captured_len).ok()?)?;
        Some((header, payload))
    }
}

/// Copies the `N` bytes at `offset`; the caller's offsets are constants inside the header.
fn field<const N: usize>(head: &[u8; RecordHeader::LEN], offset: usize) -> Option<[u8; N]> {
    head.get(offset..)?.first_chunk::<N>().copied()
}

const _: () = {
    assert!(size_of::<RecordHeader>() == RecordHeader::LEN);
    assert!(offset_of!(RecordHeader, client_addr) == 8);
    assert!(offset_of!(RecordHeader, client_port) == 40);
    assert!(offset_of!(RecordHeader, vlan) == 44);
    assert!(offset_of!(RecordHeader, seq) == 56);
    assert!(offset_of!(RecordHeader, captured_len) == 68);
    assert!(offset_of!(RecordHeader, tcp_flags) == 72);
    assert!(offset_of!(RecordHeader, reserved) == 76);
};
