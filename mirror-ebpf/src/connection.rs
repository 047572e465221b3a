//! Enters: a matched segment. Leaves: whether its connection is left out: not sampled, or shed.
//!
//! Samples are decided by a draw that every segment of a connection gives anew. Shedding spares connections that are
//! already followed, so it is decided at the client's SYN, and remembered. Only where they take too much are these let
//! go, too: at something that the client sends, which in most connections begins a request.

use aya_ebpf::btf_maps::{HashMap, LruHashMap};
use aya_ebpf::macros::btf_map;
use mirror_common::maps::{
    ConnectionFlags, ConnectionKey, KernelConfig, MAX_SAMPLED_PORTS, MAX_SHED_CONNECTIONS, PortKey,
    PortSample, SHED_KEY,
};
use mirror_common::packet::{TcpPacket, tcp_flag};
use mirror_common::sample::{connection_draw, is_in_share};
use mirror_common::{Counter, RecordSide};

use crate::address::bytes_of;
use crate::config::config;
use crate::counters::count;
use crate::scratch::scratch;

/// [`mirror_common::maps::map::SAMPLES`].
#[btf_map]
static SAMPLES: HashMap<PortKey, PortSample, { MAX_SAMPLED_PORTS as usize }> = HashMap::new();

/// [`mirror_common::maps::map::SHED`].
#[btf_map]
static SHED: LruHashMap<ConnectionKey, u32, { MAX_SHED_CONNECTIONS as usize }> = LruHashMap::new();

/// What becomes of a segment.
#[derive(Clone, Copy, Eq, PartialEq)]
#[repr(u32)]
pub(crate) enum Fate {
    /// It is copied.
    Copied = 0,
    /// It is left out, and so is every other one of its connection.
    LeftOut = 1,
    /// It is left out as the first of a connection that was followed, which the agent is to be told.
    LetGo = 2,
}

/// What becomes of the segment in the scratch, by its connection.
///
/// The scratch must not be referred to across this call.
#[inline(always)]
pub(crate) fn fate(side: RecordSide) -> Fate {
    const LEFT_OUT: u32 = Fate::LeftOut as u32;
    const LET_GO: u32 = Fate::LetGo as u32;
    match mirror_fate(side as u32) {
        LEFT_OUT => Fate::LeftOut,
        LET_GO => Fate::LetGo,
        _ => Fate::Copied,
    }
}

/// The same as a global function, which the verifier walks once (see [`crate::parse`]): what is found here does not
/// multiply the ways through the copying that comes after it.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn mirror_fate(side: u32) -> u32 {
    let Some(config) = config() else { return Fate::Copied as u32 };
    let Some(scratch) = scratch() else { return Fate::Copied as u32 };
    let key = connection_key(&scratch.packet, side);
    let moment = Moment::of(&scratch.packet, side);
    if config.connections & ConnectionFlags::SAMPLED != 0 && is_sampled_out(&key) {
        if moment == Moment::Start {
            count(Counter::SampledOut);
        }
        return Fate::LeftOut as u32;
    }
    if config.connections & ConnectionFlags::SHED == 0 {
        return Fate::Copied as u32;
    }
    let fate = fate_by_shedding(&key, moment, config);
    if fate == Fate::LetGo || (fate == Fate::LeftOut && moment == Moment::Start) {
        count(Counter::Shed);
    }
    fate as u32
}

/// Where in a connection a segment stands, as far as it can be seen from the segment.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Moment {
    /// It opens the connection.
    Start,
    /// The client sends something: here a connection may be let go.
    ClientData,
    /// Any other.
    Other,
}

impl Moment {
    #[inline(always)]
    fn of(packet: &TcpPacket, side: u32) -> Self {
        if side != RecordSide::Client as u32 {
            Self::Other
        } else if opens_connection(packet.flags) {
            Self::Start
        } else if packet.payload_len != 0 {
            Self::ClientData
        } else {
            Self::Other
        }
    }
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

/// What becomes of the segment where connections are shed; decided, and noted, where they start or are let go.
#[inline(always)]
fn fate_by_shedding(key: &ConnectionKey, moment: Moment, config: &KernelConfig) -> Fate {
    let draw = draw(SHED_KEY, key);
    let is_shed = is_in_share(draw, config.shed_millionths);
    if moment == Moment::Start {
        if is_shed {
            // Where there is no room for it the connection is taken up at its next segment.
            SHED.insert(key, config.shed_epoch, 0).ok();
            return Fate::LeftOut;
        }
        SHED.remove(key).ok();
        return Fate::Copied;
    }
    if is_noted(key, config.shed_epoch) {
        if is_shed {
            return Fate::LeftOut;
        }
        // It is taken up for good: shed again, it would lose requests that were seen in part.
        SHED.remove(key).ok();
        return Fate::Copied;
    }
    if moment == Moment::ClientData
        && is_in_share(draw, config.let_go_millionths)
        && SHED.insert(key, config.shed_epoch, 0).is_ok()
    {
        return Fate::LetGo;
    }
    Fate::Copied
}

/// Whether the connection was shed in this epoch, and not taken up since.
#[inline(always)]
fn is_noted(key: &ConnectionKey, epoch: u32) -> bool {
    match SHED.get_ptr(key) {
        // SAFETY: the slot stays valid while the program runs. In a flood of connections it may go to another one
        // meanwhile, which is of the same epoch or of one that does not count.
        Some(noted) => unsafe { noted.read() == epoch },
        None => false,
    }
}

#[inline(always)]
fn draw(draw_key: u64, key: &ConnectionKey) -> u32 {
    connection_draw(draw_key, key.client_addr, key.client_port)
}

/// The connection of a segment that was sent by this side.
#[inline(always)]
fn connection_key(packet: &TcpPacket, side: u32) -> ConnectionKey {
    if side == RecordSide::Client as u32 {
        ConnectionKey {
            client_addr: bytes_of(packet.src),
            client_port: packet.src_port,
            server_port: packet.dst_port,
        }
    } else {
        ConnectionKey {
            client_addr: bytes_of(packet.dst),
            client_port: packet.dst_port,
            server_port: packet.src_port,
        }
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

    use super::{Moment, connection_key, opens_connection};

    #[test]
    fn both_sides_of_a_connection_have_its_key() {
        let request = TcpPacket {
            src: [1; 16].into(),
            dst: [2; 16].into(),
            src_port: 3,
            dst_port: 4,
            ..TcpPacket::default()
        };
        let response = TcpPacket {
            src: [2; 16].into(),
            dst: [1; 16].into(),
            src_port: 4,
            dst_port: 3,
            ..TcpPacket::default()
        };

        let key = connection_key(&request, RecordSide::Client as u32);

        assert_eq!((key.client_addr, key.client_port, key.server_port), ([1; 16], 3, 4));
        assert_eq!(connection_key(&response, RecordSide::Server as u32), key);
    }

    #[test]
    fn a_syn_opens_a_connection_and_its_answer_does_not() {
        assert!(opens_connection(tcp_flag::SYN));
        assert!(!opens_connection(tcp_flag::SYN | tcp_flag::ACK) && !opens_connection(tcp_flag::ACK));
    }

    #[test]
    fn connection_may_be_let_go_where_its_client_sends_something() {
        let moment = |side, flags, payload_len| {
            Moment::of(&TcpPacket { flags, payload_len, ..TcpPacket::default() }, side as u32)
        };

        assert!(moment(RecordSide::Client, tcp_flag::ACK, 1) == Moment::ClientData);
        assert!(moment(RecordSide::Client, tcp_flag::ACK | tcp_flag::FIN, 0) == Moment::Other);
        assert!(moment(RecordSide::Client, tcp_flag::SYN, 1) == Moment::Start, "its data is of the start");
        assert!(moment(RecordSide::Server, tcp_flag::ACK, 1) == Moment::Other);
    }
}
