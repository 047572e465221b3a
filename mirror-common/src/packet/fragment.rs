//! Enters: the fragments of an IP packet with TCP, one by one. Leaves: each as a segment of its own.
//!
//! A fragment is a part of the byte stream like any other. The first says which: it has the TCP header. What comes
//! after it needs no more than that header and the fragment's offset, so no payload is ever put together here. The
//! caller keeps what the first said, by its [`FragmentKey`], for [`MAX_FRAGMENT_AGE_NS`] at most.

use super::{Address, Network, PacketBytes, TcpPacket, Unparsed, protocol, read_tcp, tcp_flag};

/// How long the fragments of a packet may take, in nanoseconds. They are sent together. A receiver waits longer (Linux
/// 30 s, `net.ipv4.ipfrag_time`), but it checks the sum of what it has put together: here an identification that comes
/// again meanwhile (RFC 4963) would give a fragment the place of another packet's.
pub const MAX_FRAGMENT_AGE_NS: u64 = 1_000_000_000;

/// Flags that stand only in the last part of a segment.
const LAST_FLAGS: u8 = tcp_flag::FIN | tcp_flag::RST | tcp_flag::PSH;

/// Which packet a fragment is of (RFC 791 section 3.2, RFC 8200 section 4.5), and in which network.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[repr(C)]
pub struct FragmentKey {
    src: Address,
    dst: Address,
    id: u32,
    vlan: u32,
    vni: u32,
    /// Index of the interface: each sees all fragments of a packet. 0 in a capture file.
    ifindex: u32,
}

/// What the first fragment of a packet said.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(C)]
pub struct FirstFragment {
    seq: u32,
    ack: u32,
    src_port: u16,
    dst_port: u16,
    /// Where the payload begins, in bytes from where the packet's fragments begin.
    data_at: u32,
    /// Bytes of payload of all fragments so far.
    received: u32,
    /// Bytes of payload of the packet; `u32::MAX` until its last fragment has come.
    total: u32,
    flags: u32,
}

impl Network {
    /// Whether this is a fragment of a packet with TCP, or one of which only the first fragment tells.
    #[inline(always)]
    #[must_use]
    pub fn is_tcp_fragment(&self) -> bool {
        self.is_fragment()
            && !matches!(self.protocol, protocol::UDP | protocol::IPV4 | protocol::IPV6 | protocol::GRE)
    }

    /// Which packet this fragment is of, seen at the interface with this index.
    #[inline(always)]
    #[must_use]
    pub fn fragment_key(&self, ifindex: u32) -> FragmentKey {
        FragmentKey {
            src: self.src,
            dst: self.dst,
            id: self.fragment_id,
            vlan: self.layer.vlan,
            vni: self.layer.vni,
            ifindex,
        }
    }
}

impl FirstFragment {
    /// Reads the first fragment of a packet: its segment, and what the others need.
    ///
    /// # Errors
    ///
    /// [`Unparsed::Fragment`] where it does not hold the whole TCP header, which no honest sender does (RFC 1858
    /// section 3), `Truncated` where the capture does not.
    #[inline(always)]
    pub fn open<B: PacketBytes>(bytes: &B, network: &Network) -> Result<(TcpPacket, Self), Unparsed> {
        let mut packet = match read_tcp(bytes, network) {
            Ok(packet) => packet,
            Err(Unparsed::Truncated) => return Err(Unparsed::Truncated),
            Err(_) => return Err(Unparsed::Fragment),
        };
        let first = Self {
            seq: packet.seq,
            ack: packet.ack,
            src_port: packet.src_port,
            dst_port: packet.dst_port,
            data_at: packet.payload_offset.saturating_sub(network.part_at),
            received: packet.payload_len,
            total: u32::MAX,
            flags: u32::from(packet.flags),
        };
        packet.flags &= !LAST_FLAGS;
        Ok((packet, first))
    }

    /// Reads a fragment that is not the first.
    ///
    /// # Errors
    ///
    /// [`Unparsed::Fragment`] where it lies within the TCP header, `Malformed` and `Truncated` where it has no end.
    #[inline(always)]
    pub fn segment_of<B: PacketBytes>(
        &mut self,
        bytes: &B,
        network: &Network,
    ) -> Result<TcpPacket, Unparsed> {
        let Some(offset) = u32::from(network.fragment_offset).checked_sub(self.data_at) else {
            return Err(Unparsed::Fragment);
        };
        if !network.holds(0) {
            return Err(Unparsed::Malformed);
        }
        let Some(payload_len) = bytes.wire_len().min(network.end).checked_sub(network.at) else {
            return Err(Unparsed::Truncated);
        };
        let flags = self.flags as u8;
        // RFC 9293 section 3.4: the SYN takes the number before the first byte.
        let syn = u32::from(flags & tcp_flag::SYN != 0);
        let seq = self.seq.wrapping_add(syn).wrapping_add(offset);
        let mut dropped = tcp_flag::SYN;
        if network.has_more == 0 {
            self.total = offset.saturating_add(payload_len);
        } else {
            dropped |= LAST_FLAGS;
        }
        self.received = self.received.saturating_add(payload_len);
        Ok(TcpPacket {
            src: network.src,
            dst: network.dst,
            src_port: self.src_port,
            dst_port: self.dst_port,
            seq,
            ack: self.ack,
            flags: flags & !dropped,
            payload_offset: network.at,
            payload_len,
            vlan: network.layer.vlan,
            vni: network.layer.vni,
        })
    }

    /// Whether all fragments have come. Then the packet's identification may be used for the next one.
    #[inline(always)]
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.received >= self.total
    }
}
