//! Enters: a matched segment. Leaves: its records in a ring.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use mirror_common::maps::{KernelConfig, STATUS_PEEK_BYTES, ring_index};
use mirror_common::packet::{TcpPacket, tcp_flag};
use mirror_common::{Counter, RecordFlags, RecordHeader, RecordSide};

use crate::counters::count;
use crate::ring::{LARGEST_PAYLOAD_BYTES, Ring, Scratch, scratch};
use crate::skb::{Skb, bounded};

/// Records that a segment is cut into at most. What they hold, 40 times 16,304 bytes, is more than the largest packet
/// that the kernel makes (`GSO_MAX_SIZE`, 512 KiB).
const MAX_RECORDS: u32 = 40;

/// Copies a segment into the ring of its flow.
#[inline(always)]
pub(crate) fn emit(skb: Skb, packet: &TcpPacket, side: RecordSide, config: &KernelConfig) -> Option<()> {
    let scratch = scratch()?;
    // SAFETY: the helper takes nothing and cannot fail.
    let now = unsafe { bpf_ktime_get_ns() };
    scratch.header = header(packet, side, now, skb.ifindex());
    let index = ring_index(&scratch.header.client_addr, scratch.header.client_port, config.rings);
    let Some(mut ring) = Ring::open(index, now, config.wake_interval_ns) else {
        count(Counter::DroppedRingFull);
        return None;
    };
    match side {
        RecordSide::Server if config.copy_responses == 0 => {
            scratch.header.captured_len = peek(skb, packet, scratch);
            if scratch.header.captured_len < packet.payload_len {
                scratch.header.flags = RecordFlags::NOT_COPIED;
            }
            ring.emit_peeked(scratch)?;
        }
        RecordSide::Client | RecordSide::Server => emit_whole(skb, packet, scratch, &mut ring)?,
    }
    count(match side {
        RecordSide::Client => Counter::CopiedClient,
        RecordSide::Server => Counter::CopiedServer,
    });
    Some(())
}

/// The header of a record that stands for the whole segment and carries nothing of it.
#[inline(always)]
fn header(packet: &TcpPacket, side: RecordSide, timestamp_ns: u64, ifindex: u32) -> RecordHeader {
    let (client_addr, server_addr, client_port, server_port) = match side {
        RecordSide::Client => (packet.src, packet.dst, packet.src_port, packet.dst_port),
        RecordSide::Server => (packet.dst, packet.src, packet.dst_port, packet.src_port),
    };
    RecordHeader {
        timestamp_ns,
        client_addr,
        server_addr,
        client_port,
        server_port,
        vlan: packet.vlan,
        vni: packet.vni,
        ifindex,
        seq: packet.seq,
        ack: packet.ack,
        payload_len: packet.payload_len,
        captured_len: 0,
        tcp_flags: packet.flags,
        side: side as u8,
        flags: 0,
        reserved: 0,
    }
}

/// Copies the segment's first bytes to the scratch record if they can be a status line; gives their number.
#[inline(always)]
fn peek(skb: Skb, packet: &TcpPacket, scratch: &mut Scratch) -> u32 {
    let Some(len) = bounded(packet.payload_len.min(STATUS_PEEK_BYTES), STATUS_PEEK_BYTES) else {
        return 0;
    };
    if !scratch.load(skb, packet.payload_offset, len) {
        count(Counter::DroppedUnreadable);
        return 0;
    }
    // What is left of an earlier record may complete the word: `len` decides whether it counts.
    if len < 5 || !scratch.starts_with_http() { 0 } else { len }
}

/// Copies the segment with its payload, in as many records as it takes; `None` where any of it was lost.
#[inline(always)]
fn emit_whole(skb: Skb, packet: &TcpPacket, scratch: &mut Scratch, ring: &mut Ring) -> Option<()> {
    let mut emitted = Some(());
    let mut offset = 0;
    for _ in 0..MAX_RECORDS {
        let left = packet.payload_len.saturating_sub(offset);
        let len = left.min(LARGEST_PAYLOAD_BYTES);
        scratch.header.seq = seq_at(packet, offset);
        scratch.header.payload_len = len;
        scratch.header.captured_len = len;
        scratch.header.tcp_flags = flags_of_part(packet.flags, offset == 0, len == left);
        // A part that does not fit leaves a gap; what comes after it is still worth having.
        if ring.emit(skb, packet.payload_offset.wrapping_add(offset), len, scratch).is_none() {
            emitted = None;
        }
        if len == left {
            return emitted;
        }
        offset += len;
    }
    count(Counter::DroppedTooLong);
    None
}

/// The sequence number of the payload byte at `offset`, or of the SYN before it.
#[inline(always)]
fn seq_at(packet: &TcpPacket, offset: u32) -> u32 {
    if offset == 0 {
        return packet.seq;
    }
    // RFC 9293 section 3.4: the SYN takes the number before the first byte.
    let syn = u32::from(packet.flags & tcp_flag::SYN != 0);
    packet.seq.wrapping_add(syn).wrapping_add(offset)
}

/// The flags of a part of a segment: what opens stands at the first, what ends at the last.
#[inline(always)]
fn flags_of_part(flags: u8, is_first: bool, is_last: bool) -> u8 {
    let mut dropped = 0;
    if !is_first {
        dropped |= tcp_flag::SYN;
    }
    if !is_last {
        dropped |= tcp_flag::FIN | tcp_flag::RST | tcp_flag::PSH;
    }
    flags & !dropped
}

#[cfg(test)]
mod tests {
    use mirror_common::packet::{TcpPacket, tcp_flag};

    use super::{RecordSide, flags_of_part, header, seq_at};

    #[test]
    fn client_is_the_sender_on_one_side_and_the_receiver_on_the_other() {
        let packet =
            TcpPacket { src: [1; 16], dst: [2; 16], src_port: 3, dst_port: 4, ..TcpPacket::default() };
        let of = |side| {
            let header = header(&packet, side, 9, 7);
            (header.client_addr, header.client_port, header.server_addr, header.server_port)
        };

        assert_eq!(of(RecordSide::Client), ([1; 16], 3, [2; 16], 4));
        assert_eq!(of(RecordSide::Server), ([2; 16], 4, [1; 16], 3));
    }

    #[test]
    fn part_after_the_first_counts_the_syn_and_wraps() {
        let at = |flags, offset| seq_at(&TcpPacket { seq: u32::MAX, flags, ..TcpPacket::default() }, offset);

        assert_eq!(at(tcp_flag::ACK, 0), u32::MAX);
        assert_eq!(at(tcp_flag::ACK, 10), 9);
        assert_eq!(at(tcp_flag::SYN, 0), u32::MAX);
        assert_eq!(at(tcp_flag::SYN, 10), 10);
    }

    #[test]
    fn flags_stand_where_they_belong() {
        let all = 0xff;

        assert_eq!(flags_of_part(all, true, true), all);
        assert_eq!(flags_of_part(all, true, false), all & !(tcp_flag::FIN | tcp_flag::RST | tcp_flag::PSH));
        assert_eq!(flags_of_part(all, false, true), all & !tcp_flag::SYN);
    }
}
