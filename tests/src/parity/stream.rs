//! Enters: a capture file and flows of it. Leaves: the bytes of each of their directions, as they were sent.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    path::Path,
};

use anyhow::Result;

use super::{compare::Flow, markup::hex, wireshark};

/// The directions of flows, by sender, receiver and Wireshark's number of the connection.
#[derive(Debug, Default)]
pub(super) struct Streams(BTreeMap<(SocketAddr, SocketAddr, u64), Stream>);

/// What one end of a connection sent. Positions count from its first byte in the capture.
#[derive(Debug, Default)]
pub(super) struct Stream {
    /// Sequence number of that byte.
    origin: u32,
    segments: BTreeMap<i64, Vec<u8>>,
    /// Where segments lie that the receiver drops, from the first byte to behind the last.
    refused: Vec<(i64, i64)>,
    /// Where FIN stands: behind the last byte. More than one where connections follow under one number.
    fins: BTreeSet<i64>,
    /// It opened the connection.
    is_opener: bool,
}

/// Flows of one file that are looked into. More that differ have the same reason.
const MAX_FLOWS: usize = 1024;

/// How many of them stand in one display filter.
const FLOWS_AT_A_TIME: usize = 64;

/// Longest run of bytes that is handed out.
const MAX_RUN_BYTES: usize = 64 * 1024 * 1024;

/// Bytes of the longest segment.
const MAX_SEGMENT_BYTES: i64 = 65_536;

impl Streams {
    /// Reads those of `flows`, of the first [`MAX_FLOWS`] of them.
    ///
    /// # Errors
    ///
    /// `tshark` cannot be started, or does not print what is expected.
    pub(super) fn of(file: &Path, flows: &BTreeSet<Flow>) -> Result<Self> {
        let flows: Vec<String> = flows
            .iter()
            .take(MAX_FLOWS)
            .map(|(a, b)| format!("(tcp.port == {} && tcp.port == {})", a.port(), b.port()))
            .collect();
        let mut lines = String::new();
        for some in flows.chunks(FLOWS_AT_A_TIME) {
            let filter = format!(
                "(tcp.len > 0 || tcp.flags.syn == 1 || tcp.flags.fin == 1) && ({})",
                some.join(" || ")
            );
            lines += &wireshark::fields(file, &filter, &FIELDS)?;
        }
        Ok(Self::of_lines(&lines))
    }

    /// Reads them from lines of [`FIELDS`].
    pub(super) fn of_lines(text: &str) -> Self {
        let mut streams = Self::default();
        text.lines().filter_map(Segment::parse).for_each(|segment| streams.take(segment));
        streams
    }

    fn take(&mut self, segment: Segment) {
        let Segment { way: (sender, receiver, number), seq, is_syn, is_ack, is_reset, is_fin, payload } =
            segment;
        let stream = self.0.entry((sender, receiver, number)).or_default();
        if is_syn {
            stream.is_opener |= !is_ack;
        }
        let seq = seq.wrapping_add(u32::from(is_syn));
        if is_fin && is_ack && !stream.segments.is_empty() {
            let end = stream.position(seq).saturating_add_unsigned(payload.len() as u64);
            stream.fins.insert(end);
        }
        if payload.is_empty() {
            return;
        }
        if stream.segments.is_empty() && stream.refused.is_empty() {
            stream.origin = seq;
        }
        // RFC 9293 section 3.10.7.4, fifth: "if the ACK bit is off, drop the segment".
        if !(is_syn || is_ack || is_reset) {
            let start = stream.position(seq);
            stream.refused.push((start, start.saturating_add_unsigned(payload.len() as u64)));
            return;
        }
        let known = stream.segments.entry(stream.position(seq)).or_default();
        // What came first stays, as at its receiver.
        if let Some(more) = payload.get(known.len()..) {
            known.extend_from_slice(more);
        }
    }

    /// The number of the connection in which this byte was sent this way.
    pub(super) fn find(&self, sender: SocketAddr, receiver: SocketAddr, seq: u32) -> Option<u64> {
        let ways = self.0.range((sender, receiver, 0)..=(sender, receiver, u64::MAX));
        let mut holding = ways.filter(|(_, stream)| stream.holds(stream.position(seq)));
        holding.next().map(|((_, _, number), _)| *number)
    }

    /// What was sent this way in a connection, and what the other way.
    pub(super) fn both_ways(
        &self,
        sender: SocketAddr,
        receiver: SocketAddr,
        number: u64,
    ) -> Option<(&Stream, Option<&Stream>)> {
        Some((self.0.get(&(sender, receiver, number))?, self.0.get(&(receiver, sender, number))))
    }
}

impl Stream {
    /// Position of the byte with this sequence number.
    pub(super) const fn position(&self, seq: u32) -> i64 {
        seq.wrapping_sub(self.origin).cast_signed() as i64
    }

    /// Whether it is the end that opened the connection.
    pub(super) const fn is_opener(&self) -> bool {
        self.is_opener
    }

    /// Whether a segment begins at this position.
    pub(super) fn has_segment_at(&self, position: i64) -> bool {
        self.segments.contains_key(&position)
    }

    /// Whether the segment at this position holds a part of a word, and no more.
    pub(super) fn has_part_of_word_at(&self, position: i64) -> bool {
        self.segments.get(&position).is_some_and(|bytes| !bytes.contains(&b' '))
    }

    /// Position of the first byte.
    pub(super) fn first(&self) -> Option<i64> {
        self.segments.keys().next().copied()
    }

    /// All bytes from this position on up to one that is missing, or to the end of the stream.
    pub(super) fn run_from(&self, position: i64) -> Vec<u8> {
        let mut run = Vec::new();
        let mut next = position;
        for (start, bytes) in self.segments.range(position.saturating_sub(MAX_SEGMENT_BYTES)..) {
            let Ok(into) = usize::try_from(next - start) else { break };
            if let Some(more) = bytes.get(into..) {
                run.extend_from_slice(more);
                next += more.len() as i64;
            }
            if run.len() > MAX_RUN_BYTES {
                break;
            }
        }
        let end = self.end_within_segment(position);
        if let Some(left) = end.and_then(|end| usize::try_from(end - position).ok()) {
            run.truncate(left);
        }
        run
    }

    /// Position of the first FIN behind this one that a segment has bytes on both sides of (RFC 9293 section 3.4: FIN stands
    /// behind the last byte).
    pub(super) fn end_within_segment(&self, position: i64) -> Option<i64> {
        let is_within = |fin: &i64| {
            let before = self.segments.range(..fin).next_back();
            before.is_some_and(|(start, bytes)| *fin < start.saturating_add_unsigned(bytes.len() as u64))
        };
        self.fins.range(position.saturating_add(1)..).copied().find(is_within)
    }

    /// Where the run of bytes begins that goes on to this position without one missing.
    pub(super) fn run_start(&self, position: i64) -> i64 {
        let mut run = (i64::MIN, i64::MIN);
        for (start, bytes) in self.segments.range(..=position) {
            let end = start.saturating_add_unsigned(bytes.len() as u64);
            run = if *start > run.1 { (*start, end) } else { (run.0, end.max(run.1)) };
        }
        run.0
    }

    /// The bytes between two positions, if all are there.
    pub(super) fn between(&self, from: i64, to: i64) -> Option<Vec<u8>> {
        let len = usize::try_from(to - from).ok()?;
        let mut run = self.run_from(from);
        run.truncate(len);
        (run.len() == len).then_some(run)
    }

    /// Whether a segment that the receiver drops lies in between, with data from the first position or before the other.
    pub(super) fn refuses_between(&self, from: i64, to: i64) -> bool {
        self.refused.iter().any(|(start, end)| *start < to && *end > from)
    }

    fn holds(&self, position: i64) -> bool {
        let around = self.segments.range(position.saturating_sub(MAX_SEGMENT_BYTES)..=position);
        around.into_iter().any(|(start, bytes)| position - start < bytes.len() as i64)
            || self.refuses_between(position, position + 1)
    }
}

/// One with data, SYN or FIN.
#[derive(Debug)]
struct Segment {
    way: (SocketAddr, SocketAddr, u64),
    seq: u32,
    is_syn: bool,
    is_ack: bool,
    is_reset: bool,
    is_fin: bool,
    payload: Vec<u8>,
}

const FIELDS: [&str; 13] = [
    "ip.src",
    "ipv6.src",
    "ip.dst",
    "ipv6.dst",
    "tcp.srcport",
    "tcp.dstport",
    "tcp.stream",
    "tcp.seq_raw",
    "tcp.flags.syn",
    "tcp.flags.ack",
    "tcp.flags.reset",
    "tcp.flags.fin",
    "tcp.payload",
];

impl Segment {
    /// `None` where some of [`FIELDS`] are lacking, as in what an ICMP error quotes.
    fn parse(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.split(',').collect();
        let [src4, src6, dst4, dst6, src_port, dst_port, number, seq, syn, ack, reset, fin, payload] =
            words[..]
        else {
            return None;
        };
        let end = |v4: &str, v6: &str, port: &str| -> Option<SocketAddr> {
            let ip: IpAddr = v4.parse().or_else(|_| v6.parse()).ok()?;
            Some(SocketAddr::new(ip, port.parse().ok()?))
        };
        let is_set = |word: &str| matches!(word, "1" | "True");
        Some(Self {
            way: (end(src4, src6, src_port)?, end(dst4, dst6, dst_port)?, number.parse().ok()?),
            seq: seq.parse().ok()?,
            is_syn: is_set(syn),
            is_ack: is_set(ack),
            is_reset: is_set(reset),
            is_fin: is_set(fin),
            payload: hex(payload)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stream_is_put_together_from_its_segments() {
        let streams = streams(&[
            ("1000", "1", "0", ""),
            ("1001", "0", "1", "6162"),
            ("1005", "0", "1", "6566"),
            ("1003", "0", "1", "636465"),
            ("1009", "0", "1", "7a"),
        ]);
        let number = streams.find(end(1), end(2), 1001).unwrap();
        let (stream, back) = streams.both_ways(end(1), end(2), number).unwrap();
        assert!(stream.is_opener() && back.is_none());
        assert_eq!(stream.run_from(0), b"abcdef");
        assert_eq!(stream.run_from(3), b"def");
        assert_eq!(stream.between(1, 4).unwrap(), b"bcd");
        assert_eq!(stream.between(1, 9), None);
        assert_eq!((stream.run_start(5), stream.run_start(8)), (0, 8));
        assert!(stream.has_segment_at(2) && !stream.has_segment_at(3));
        assert!(streams.find(end(1), end(2), 1007).is_none() && streams.find(end(2), end(1), 1001).is_none());
    }

    #[test]
    fn sequence_numbers_wrap_and_what_came_first_stays() {
        let streams = streams(&[
            ("4294967295", "0", "1", "6162"),
            ("4294967295", "0", "1", "7878637a"),
            ("3", "0", "1", "64"),
        ]);
        let number = streams.find(end(1), end(2), 1).unwrap();
        let (stream, _) = streams.both_ways(end(1), end(2), number).unwrap();
        assert_eq!(stream.first(), Some(0));
        assert_eq!(stream.run_from(0), b"abczd");
    }

    #[test]
    fn segment_without_acknowledgement_is_no_part_of_the_stream() {
        let streams = streams(&[("7", "0", "0", "7878"), ("7", "0", "1", "6162"), ("11", "0", "0", "78")]);
        let number = streams.find(end(1), end(2), 11).unwrap();
        let (stream, _) = streams.both_ways(end(1), end(2), number).unwrap();
        assert_eq!(stream.run_from(0), b"ab");
        assert!(
            stream.refuses_between(1, 2) && !stream.refuses_between(2, 4) && stream.refuses_between(4, 5)
        );
    }

    fn streams(segments: &[(&str, &str, &str, &str)]) -> Streams {
        let line = |(seq, syn, ack, payload): &(&str, &str, &str, &str)| {
            format!("192.0.2.1,,192.0.2.2,,1,2,0,{seq},{syn},{ack},0,0,{payload}\n")
        };
        Streams::of_lines(&segments.iter().map(line).collect::<String>())
    }

    fn end(last: u8) -> SocketAddr {
        ([192, 0, 2, last], u16::from(last)).into()
    }
}
