//! Enters: records of one ring buffer. Leaves: segments whose payload lies in the ring itself, and flows that were let go.

use std::{io, mem, net::Ipv6Addr, os::fd::AsFd, thread, time::Duration};

use aya::maps::{MapData, RingBuf};
use mirror_common::{RecordFlags, RecordHeader, RecordSide};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};

use crate::{
    io::capture::sys::RingPositions,
    pipeline::{Endpoint, FlowKey, Segment, SeqNumber, Side, TcpFlags, Timestamp},
};

/// How long the reader sleeps at most while there is traffic. It adds this much to the lag of a replay.
const LONGEST_SLEEP: Duration = Duration::from_millis(1);

/// How long it sleeps at least, which bounds its own cost to ten thousand rounds a second.
const SHORTEST_SLEEP: Duration = Duration::from_micros(100);

/// Segments with content, and SYNs of clients, that a round is to find: two requests, with the beginnings of their answers. What is found
/// at once is sent at once, and keeps a processor from live for so long; but each round costs a wake-up here and one or two of who
/// sends. Where twelve are found a request takes half of a bare sender's processor time at 10,000 a second, with four nine tenths, with
/// one a fifth more than it. What else opens and ends connections gives nothing to send; a SYN counts, since a copy on a connection of
/// its own is much more work than one on a connection that is kept.
const ROUND_AIM: u32 = 4;

/// So many rounds without a record, and the reader waits for the kernel to wake it. Much longer than the kernel's
/// pause between two wake-ups, so that the first record after the silence always wakes: sleeps are the longest by then.
const IDLE_ROUNDS: u32 = 20;

/// A safety net only: the kernel wakes the reader at the first record. Also the longest time until a reader notices
/// that it is to stop.
const IDLE_WAIT: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// What a record says.
#[derive(Clone, Copy, Debug)]
pub enum Captured<'a> {
    /// A segment, or a part of one.
    Segment(Segment<'a>),
    /// From this moment on nothing is copied of the flow, until it is taken up again.
    LetGo(Timestamp, FlowKey),
}

impl Captured<'_> {
    /// When it was seen.
    #[must_use]
    pub const fn at(&self) -> Timestamp {
        match self {
            Self::Segment(segment) => segment.at,
            Self::LetGo(at, _) => *at,
        }
    }

    /// Whether it is one of those of which a round is to find [`ROUND_AIM`].
    fn is_counted(&self) -> bool {
        let Self::Segment(segment) = self else { return false };
        segment.payload_len > 0 || segment.side == Side::Client && segment.flags.has(TcpFlags::SYN)
    }
}

/// The reading end of one ring.
pub struct RingReader {
    ring: RingBuf<MapData>,
    positions: RingPositions,
    ring_bytes: u32,
    malformed: u64,
    /// What was taken since it last slept, as it counts for [`ROUND_AIM`].
    counted: u32,
    /// How long it sleeps after a round.
    sleep: Duration,
}

impl RingReader {
    /// Takes the ring; `ring_bytes` is its size, `page_bytes` the machine's page size.
    pub(super) fn new(ring: RingBuf<MapData>, ring_bytes: u32, page_bytes: u32) -> io::Result<Self> {
        let page_bytes = usize::try_from(page_bytes).map_err(io::Error::other)?;
        let positions = RingPositions::map(ring.as_fd(), page_bytes)?;
        Ok(Self { ring, positions, ring_bytes, malformed: 0, counted: 0, sleep: LONGEST_SLEEP })
    }

    /// Hands at most `budget` records to `handle_captured` and returns how many were taken, malformed ones included.
    /// Each record's place in the ring is free again when `handle_captured` returns.
    pub fn drain(&mut self, budget: usize, mut handle_captured: impl FnMut(Captured<'_>)) -> usize {
        for taken in 0..budget {
            let Some(record) = self.ring.next() else { return taken };
            match captured(&record) {
                Some(captured) => {
                    self.counted = self.counted.saturating_add(captured.is_counted().into());
                    handle_captured(captured);
                }
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

    /// Waits before the next round, given how many rounds in a row found no record: 1 ms while there is traffic, less where
    /// there was much since the last wait, unless who takes it `is_ahead` of whoever comes behind; else until the kernel wakes
    /// the reader or 100 ms have passed.
    ///
    /// # Errors
    ///
    /// The kernel's, where waiting fails for another reason than a signal.
    pub fn wait(&mut self, idle_rounds: u32, is_ahead: bool) -> io::Result<()> {
        let counted = mem::take(&mut self.counted);
        if idle_rounds < IDLE_ROUNDS {
            self.sleep = if is_ahead { LONGEST_SLEEP } else { next_sleep(self.sleep, counted) };
            thread::sleep(self.sleep);
            return Ok(());
        }
        match poll(&mut [PollFd::new(&self.ring, PollFlags::IN)], Some(&IDLE_WAIT)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// How long to sleep after a round that found so much, given the sleep before it: so long that the next one finds [`ROUND_AIM`] if
/// it comes as it came; at most twice as long as before.
fn next_sleep(last: Duration, counted: u32) -> Duration {
    (last * ROUND_AIM / counted.max(ROUND_AIM / 2)).clamp(SHORTEST_SLEEP, LONGEST_SLEEP)
}

/// Reads one record.
fn captured(record: &[u8]) -> Option<Captured<'_>> {
    let (header, payload) = RecordHeader::from_bytes(record)?;
    let at = Timestamp::from_nanos(header.timestamp_ns);
    let flow = FlowKey {
        client: Endpoint { addr: Ipv6Addr::from(header.client_addr), port: header.client_port },
        server: Endpoint { addr: Ipv6Addr::from(header.server_addr), port: header.server_port },
        vlan: header.vlan,
        vni: header.vni,
    };
    if header.flags & RecordFlags::LET_GO != 0 {
        return Some(Captured::LetGo(at, flow));
    }
    Some(Captured::Segment(Segment {
        flow,
        interface: header.ifindex,
        side: if header.side == RecordSide::Client as u8 { Side::Client } else { Side::Server },
        at,
        seq: SeqNumber(header.seq),
        ack: SeqNumber(header.ack),
        flags: TcpFlags(header.tcp_flags),
        payload,
        payload_len: header.payload_len,
    }))
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use super::*;

    /// Sleeps until they change no more, with so many records a second.
    fn settled(per_second: f64) -> Duration {
        let mut sleep = LONGEST_SLEEP;
        for _ in 0..20 {
            sleep = next_sleep(sleep, (per_second * sleep.as_secs_f64()).round() as u32);
        }
        sleep
    }

    #[test]
    fn rounds_find_few_records_however_fast_they_come() {
        assert_eq!(settled(1_000.0), LONGEST_SLEEP);
        assert_eq!(settled(8_000.0), Duration::from_micros(500));
        assert_eq!(settled(1_000_000.0), SHORTEST_SLEEP);
    }

    #[test]
    fn content_counts_and_a_clients_syn_but_nothing_else_of_opening_and_ending() {
        let is_counted = |side: RecordSide, tcp_flags: u8, payload_len: u32, flags: u16| {
            let mut record = [0; RecordHeader::LEN];
            record[offset_of!(RecordHeader, payload_len)..][..4].copy_from_slice(&payload_len.to_ne_bytes());
            record[offset_of!(RecordHeader, flags)..][..2].copy_from_slice(&flags.to_ne_bytes());
            record[offset_of!(RecordHeader, side)] = side as u8;
            record[offset_of!(RecordHeader, tcp_flags)] = tcp_flags;
            captured(&record).unwrap().is_counted()
        };
        let (client, server) = (RecordSide::Client, RecordSide::Server);

        assert!(is_counted(client, 0x10, 1, 0));
        assert!(is_counted(server, 0x10, 1, RecordFlags::NOT_COPIED), "by its length, copied or not");
        assert!(is_counted(client, 0x02, 0, 0) && !is_counted(server, 0x12, 0, 0));
        assert!(!is_counted(client, 0x11, 0, 0) && !is_counted(client, 0x04, 0, 0));
        assert!(!is_counted(client, 0x10, 0, RecordFlags::LET_GO));
    }

    #[test]
    fn reader_that_is_about_to_block_has_looked_for_longer_than_the_kernel_pauses_between_wake_ups() {
        let mut looked = Duration::ZERO;
        let mut sleep = SHORTEST_SLEEP;
        for _ in 1..IDLE_ROUNDS {
            sleep = next_sleep(sleep, 0);
            looked += sleep;
        }
        assert_eq!(sleep, LONGEST_SLEEP);
        // The pause is one millisecond.
        assert!(looked > Duration::from_millis(10), "{looked:?}");
    }
}
