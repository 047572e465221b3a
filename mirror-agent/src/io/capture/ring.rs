//! Enters: records of one ring buffer. Leaves: segments whose payload lies in the ring itself.

use std::{io, net::Ipv6Addr, os::fd::AsFd, thread, time::Duration};

use aya::maps::{MapData, RingBuf};
use mirror_common::{RecordHeader, RecordSide};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};

use crate::{
    io::capture::sys::RingPositions,
    pipeline::{Endpoint, FlowKey, Segment, SeqNumber, Side, TcpFlags, Timestamp},
};

/// How long the reader sleeps while there is traffic. It adds this much to the lag of a replay, and bounds the
/// reader's own cost to a thousand rounds a second.
const BUSY_SLEEP: Duration = Duration::from_millis(1);

/// So many rounds without a record, and the reader waits for the kernel to wake it. Much longer than the kernel's
/// pause between two wake-ups, so that the first record after the silence always wakes.
const IDLE_ROUNDS: u32 = 20;

/// A safety net only: the kernel wakes the reader at the first record. Also the longest time until a reader notices
/// that it is to stop.
const IDLE_WAIT: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// The reading end of one ring.
pub struct RingReader {
    ring: RingBuf<MapData>,
    positions: RingPositions,
    ring_bytes: u32,
    malformed: u64,
}

impl RingReader {
    /// Takes the ring; `ring_bytes` is its size, `page_bytes` the machine's page size.
    pub(super) fn new(ring: RingBuf<MapData>, ring_bytes: u32, page_bytes: u32) -> io::Result<Self> {
        let page_bytes = usize::try_from(page_bytes).map_err(io::Error::other)?;
        let positions = RingPositions::map(ring.as_fd(), page_bytes)?;
        Ok(Self { ring, positions, ring_bytes, malformed: 0 })
    }

    /// Hands at most `budget` records to `handle_segment` and returns how many were taken, malformed ones included.
    /// Each record's place in the ring is free again when `handle_segment` returns.
    pub fn drain(&mut self, budget: usize, mut handle_segment: impl FnMut(Segment<'_>)) -> usize {
        for taken in 0..budget {
            let Some(record) = self.ring.next() else { return taken };
            match segment(&record) {
                Some(segment) => handle_segment(segment),
                None => self.malformed += 1,
            }
        }
        budget
    }

    /// Records that could not be understood. Anything but 0 means that the kernel program is not of this build.
    #[must_use]
    pub const fn malformed(&self) -> u64 {
        self.malformed
    }

    /// How full the ring is, from 0 to 1.
    #[must_use]
    pub fn utilization(&self) -> f64 {
        let used = u32::try_from(self.positions.used_bytes()).unwrap_or(self.ring_bytes);
        f64::from(used.min(self.ring_bytes)) / f64::from(self.ring_bytes)
    }

    /// Waits before the next round, given how many rounds in a row found nothing: 1 ms while there is traffic, else
    /// until the kernel wakes the reader or 100 ms have passed.
    ///
    /// # Errors
    ///
    /// The kernel's, where waiting fails for another reason than a signal.
    pub fn wait(&self, idle_rounds: u32) -> io::Result<()> {
        if idle_rounds < IDLE_ROUNDS {
            thread::sleep(BUSY_SLEEP);
            return Ok(());
        }
        match poll(&mut [PollFd::new(&self.ring, PollFlags::IN)], Some(&IDLE_WAIT)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Reads one record.
fn segment(record: &[u8]) -> Option<Segment<'_>> {
    let (header, payload) = RecordHeader::from_bytes(record)?;
    Some(Segment {
        flow: FlowKey {
            client: Endpoint { addr: Ipv6Addr::from(header.client_addr), port: header.client_port },
            server: Endpoint { addr: Ipv6Addr::from(header.server_addr), port: header.server_port },
            vlan: header.vlan,
            vni: header.vni,
        },
        interface: header.ifindex,
        side: if header.side == RecordSide::Client as u8 { Side::Client } else { Side::Server },
        at: Timestamp::from_nanos(header.timestamp_ns),
        seq: SeqNumber(header.seq),
        ack: SeqNumber(header.ack),
        flags: TcpFlags(header.tcp_flags),
        payload,
        payload_len: header.payload_len,
    })
}
