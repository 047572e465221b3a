//! Enters: a matched segment. Leaves: whether its connection is left out: not sampled, or shed.
//!
//! Samples are decided by a draw that every segment of a connection gives anew. Shedding must not touch connections that
//! are already followed, so it is decided at the client's SYN, and remembered.

use aya_ebpf::btf_maps::{HashMap, LruHashMap};
use aya_ebpf::macros::btf_map;
use mirror_common::maps::{
    ConnectionFlags, ConnectionKey, KernelConfig, MAX_SAMPLED_PORTS, MAX_SHED_CONNECTIONS, PortKey,
    PortSample, SHED_KEY,
};
use mirror_common::packet::{TcpPacket, tcp_flag};
use mirror_common::sample::{connection_draw, is_in_share};
use mirror_common::{Counter, RecordSide};

use crate::config::config;
use crate::counters::count;
use crate::scratch::scratch;

/// [`mirror_common::maps::map::SAMPLES`].
#[btf_map]
static SAMPLES: HashMap<PortKey, PortSample, { MAX_SAMPLED_PORTS as usize }> = HashMap::new();

/// [`mirror_common::maps::map::SHED`].
#[btf_map]
static SHED: LruHashMap<ConnectionKey, u32, { MAX_SHED_CONNECTIONS as usize }> = LruHashMap::new();

/// Whether the connection of the segment in the scratch is left out.
///
/// The scratch must not be referred to across this call.
#[inline(always)]
pub(crate) fn is_left_out(side: RecordSide) -> bool {
    mirror_is_left_out(side as u32) != 0
}

/// The same as a global function, which the verifier walks once (see [`crate::parse`]): what is found here does not
/// multiply the ways through the copying that comes after it.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn mirror_is_left_out(side: u32) -> u32 {
    let Some(config) = config() else { return 0 };
    let Some(scratch) = scratch() else { return 0 };
    let key = connection_key(&scratch.packet, side);
    let is_start = side == RecordSide::Client as u32 && opens_connection(scratch.packet.flags);
    let cause = if config.connections & ConnectionFlags::SAMPLED != 0 && is_sampled_out(&key) {
        Counter::SampledOut
    } else if config.connections & ConnectionFlags::SHED != 0 && is_shed(&key, is_start, config) {
        Counter::Shed
    } else {
        return 0;
    };
    if is_start {
        count(cause);
    }
    1
}

/// Whether the connection is in no sample of its port.
#[inline(always)]
fn is_sampled_out(key: &ConnectionKey) -> bool {
    let port = PortKey { port: u32::from(key.server_port) };
    // SAFETY: an entry that the agent replaces meanwhile may be seen half old, half new, which for one segment decides
    // by the one share or the other.
    let Some(sample) = (unsafe { SAMPLES.get(port) }) else { return false };
    for lane in &sample.lanes {
        if lane.millionths != 0 && is_in_share(draw(lane.key, key), lane.millionths) {
            return false;
        }
    }
    true
}

/// Whether the connection is shed; decided, and noted, where it starts.
#[inline(always)]
fn is_shed(key: &ConnectionKey, is_start: bool, config: &KernelConfig) -> bool {
    if !is_start {
        match SHED.get_ptr_mut(key) {
            // SAFETY: the slot stays valid while the program runs. In a flood of connections it may go to another one
            // meanwhile, which is of the same epoch or of one that does not count.
            Some(epoch) if unsafe { epoch.read() } == config.shed_epoch => {}
            _ => return false,
        }
    }
    if is_in_share(draw(SHED_KEY, key), config.shed_millionths) {
        if is_start {
            // Where there is no room for it the connection is taken up at its next segment.
            SHED.insert(key, config.shed_epoch, 0).ok();
        }
        return true;
    }
    // It is taken up for good: shed again, it would lose requests that were seen in part.
    SHED.remove(key).ok();
    false
}

#[inline(always)]
fn draw(draw_key: u64, key: &ConnectionKey) -> u32 {
    connection_draw(draw_key, key.client_addr, key.client_port)
}

/// The connection of a segment that was sent by this side.
#[inline(always)]
fn connection_key(packet: &TcpPacket, side: u32) -> ConnectionKey {
    if side == RecordSide::Client as u32 {
        ConnectionKey { client_addr: packet.src, client_port: packet.src_port, server_port: packet.dst_port }
    } else {
        ConnectionKey { client_addr: packet.dst, client_port: packet.dst_port, server_port: packet.src_port }
    }
}

/// Whether a client's segment with these flags opens a connection (RFC 9293 section 3.5).
#[inline(always)]
fn opens_connection(flags: u8) -> bool {
    flags & (tcp_flag::SYN | tcp_flag::ACK) == tcp_flag::SYN
}

#[cfg(test)]
mod tests {
    use mirror_common::RecordSide;
    use mirror_common::packet::{TcpPacket, tcp_flag};

    use super::{connection_key, opens_connection};

    #[test]
    fn both_sides_of_a_connection_have_its_key() {
        let request =
            TcpPacket { src: [1; 16], dst: [2; 16], src_port: 3, dst_port: 4, ..TcpPacket::default() };
        let response =
            TcpPacket { src: [2; 16], dst: [1; 16], src_port: 4, dst_port: 3, ..TcpPacket::default() };

        let key = connection_key(&request, RecordSide::Client as u32);

        assert_eq!((key.client_addr, key.client_port, key.server_port), ([1; 16], 3, 4));
        assert_eq!(connection_key(&response, RecordSide::Server as u32), key);
    }

    #[test]
    fn a_syn_opens_a_connection_and_its_answer_does_not() {
        assert!(opens_connection(tcp_flag::SYN));
        assert!(!opens_connection(tcp_flag::SYN | tcp_flag::ACK) && !opens_connection(tcp_flag::ACK));
    }
}
