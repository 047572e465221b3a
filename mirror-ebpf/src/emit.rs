//! Enters: a matched segment. Leaves: its records in a ring.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use mirror_common::maps::{KernelConfig, ring_index};
use mirror_common::packet::{TcpPacket, tcp_flag};
use mirror_common::{Counter, RecordFlags, RecordHeader, RecordSide};

use crate::address::bytes_of;
use crate::counters::{add, count};
use crate::ports::is_answer_read;
use crate::ring::{LARGEST_PAYLOAD_BYTES, Ring};
use crate::scratch::{Scratch, Slot};
use crate::skb::Skb;
use crate::unread::is_unread;

/// Records that a segment is cut into at most. What they hold, 40 times 16,304 bytes, is more than the largest packet
/// that the kernel makes (`GSO_MAX_SIZE`, 512 KiB).
const MAX_RECORDS: u32 = 40;

/// Copies the segment in `slot` into the ring of its flow.
#[inline(always)]
pub(crate) fn emit(skb: Skb, side: RecordSide, config: &KernelConfig, slot: Slot) -> Option<()> {
    // SAFETY: the helper takes nothing and cannot fail.
    let now = unsafe { bpf_ktime_get_ns() };
    let scratch = slot.take();
    scratch.header = header(&scratch.packet, side, now, skb.ifindex());
    let is_whole = is_whole(side, config, scratch.header.server_port, scratch.header.payload_len);
    let scratch = slot.take();
    let index = ring_index(&scratch.header.client_addr, scratch.header.client_port, config.rings);
    let Some(ring) = Ring::open(index, now, config.wake_interval_ns, scratch) else {
        count(Counter::DroppedRingFull);
        return None;
    };
    if is_whole {
        emit_whole(skb, scratch, ring)?;
    } else {
        ring.emit_peek(skb, scratch.packet.payload_offset, scratch);
    }
    if scratch.progress.full | scratch.progress.unreadable != 0 {
        add(Counter::DroppedRingFull, scratch.progress.full);
        add(Counter::DroppedUnreadable, scratch.progress.unreadable);
        return None;
    }
    count(match side {
        RecordSide::Client => Counter::CopiedClient,
        RecordSide::Server => Counter::CopiedServer,
    });
    Some(())
}

/// Tells the agent that nothing is copied any more of the flow of the segment in `slot`, which its client sent.
///
/// Where that does not fit into the ring, the agent finds out when the connection is taken up: by the bytes between.
#[inline(never)]
pub(crate) fn emit_let_go(skb: Skb, config: &KernelConfig, slot: Slot) -> Option<()> {
    // SAFETY: the helper takes nothing and cannot fail.
    let now = unsafe { bpf_ktime_get_ns() };
    let scratch = slot.take();
    let header = header(&scratch.packet, RecordSide::Client, now, skb.ifindex());
    scratch.header = RecordHeader { payload_len: 0, tcp_flags: 0, flags: RecordFlags::LET_GO, ..header };
    let index = ring_index(&scratch.header.client_addr, scratch.header.client_port, config.rings);
    let Some(ring) = Ring::open(index, now, config.wake_interval_ns, scratch) else {
        count(Counter::DroppedRingFull);
        return None;
    };
    ring.emit_bare(scratch);
    if scratch.progress.full != 0 {
        count(Counter::DroppedRingFull);
    }
    None
}

/// Whether the payload is copied of a segment whose header is in the scratch, which must not be referred to across this call.
#[inline(always)]
fn is_whole(side: RecordSide, config: &KernelConfig, server_port: u16, payload_len: u32) -> bool {
    match side {
        RecordSide::Client => true,
        RecordSide::Server => {
            config.copy_responses != 0 && is_answer_read(server_port) && !is_unread(payload_len)
        }
    }
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
        client_addr: bytes_of(client_addr),
        server_addr: bytes_of(server_addr),
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

/// Copies the segment with its payload, in as many records as it takes; `None` where they were not enough.
///
/// A part that is lost leaves a gap; what comes after it is still worth having.
#[inline(always)]
fn emit_whole(skb: Skb, scratch: &mut Scratch, ring: Ring) -> Option<()> {
    let payload_len = scratch.packet.payload_len;
    let payload_offset = scratch.packet.payload_offset;
    for _ in 0..MAX_RECORDS {
        let offset = scratch.progress.offset;
        let left = payload_len.saturating_sub(offset);
        let is_last = left <= LARGEST_PAYLOAD_BYTES;
        let len = if is_last { left } else { LARGEST_PAYLOAD_BYTES };
        scratch.header.seq = seq_at(&scratch.packet, offset);
        scratch.header.payload_len = len;
        scratch.header.captured_len = len;
        scratch.header.tcp_flags = flags_of_part(scratch.packet.flags, offset == 0, is_last);
        let at = payload_offset.wrapping_add(offset);
        if is_last {
            ring.emit(skb, at, len, scratch);
            return Some(());
        }
        ring.emit_largest(skb, at, scratch);
        scratch.progress.offset = offset + LARGEST_PAYLOAD_BYTES;
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
        let packet = TcpPacket {
            src: [1; 16].into(),
            dst: [2; 16].into(),
            src_port: 3,
            dst_port: 4,
            ..TcpPacket::default()
        };
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
