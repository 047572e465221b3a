//! Enters: disagreements, both accounts, and the bytes that were sent. Leaves: disagreements with the shape that
//! explains them, where the bytes prove it.
//!
//! That Wireshark is known to err somewhere explains nothing. The bytes must be of a known shape, and a reading of them
//! by the standards that is independent of `inspect` must tell what `inspect` does.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use crate::parity::{
    compare::{Aspect, Comparison, Disagreement},
    message::{Message, Paired, StartLine},
    reading::Reading,
    shape::Shape,
    stream::{Stream, Streams},
};

/// Names the shapes of disagreements. `theirs` is Wireshark's most patient account, `ours` what `inspect` tells.
pub(in crate::parity) fn explain(
    comparison: &mut Comparison,
    theirs: &[Message],
    ours: &[Message],
    streams: &Streams,
) {
    let untold: BTreeSet<_> =
        comparison.disagreements.iter().filter(|one| one.is_only_ours()).map(key).collect();
    let mut by_stream: BTreeMap<(SocketAddr, SocketAddr, u64), Vec<&mut Disagreement>> = BTreeMap::new();
    for one in &mut comparison.disagreements {
        let (sender, receiver) = one.way;
        if let Some(number) = streams.find(sender, receiver, one.seq) {
            by_stream.entry((sender, receiver, number)).or_default().push(one);
        }
    }
    for ((sender, receiver, number), disagreements) in by_stream {
        let Some((stream, back)) = streams.both_ways(sender, receiver, number) else { continue };
        let is_of_it = |message: &&Message| {
            (message.sender, message.receiver) == (sender, receiver)
                && streams.find(sender, receiver, message.seq) == Some(number)
        };
        let mut way =
            Way { stream, back, theirs: theirs.iter().filter(is_of_it).collect(), told: Vec::new() };
        way.read(ours.iter().filter(is_of_it), &untold);
        for disagreement in disagreements {
            disagreement.shape = way.shape_of(disagreement);
        }
    }
}

/// Where a disagreement is.
fn key(disagreement: &Disagreement) -> (SocketAddr, SocketAddr, u32) {
    let (sender, receiver) = disagreement.way;
    (sender, receiver, disagreement.seq)
}

/// One direction of a connection.
struct Way<'a> {
    stream: &'a Stream,
    /// The other direction.
    back: Option<&'a Stream>,
    theirs: Vec<&'a Message>,
    /// What `inspect` tells, in order.
    told: Vec<Told<'a>>,
}

/// A message of `inspect`.
struct Told<'a> {
    at: i64,
    message: &'a Message,
    /// Bytes from its first to that of the next one.
    next: Option<usize>,
    /// How the standards read it, where `inspect` reads it likewise.
    reading: Option<Reading>,
    /// Wireshark does not tell of it, for this reason if it is known.
    untold: Option<Option<Shape>>,
}

impl Told<'_> {
    /// What is odd about it but for the words of its start line.
    fn odd(&self) -> Vec<Shape> {
        let Some(reading) = &self.reading else { return Vec::new() };
        let of_line = reading.of_line.iter().filter(|shape| **shape == Shape::BareCarriageReturn);
        let of_content = reading.of_content(self.message, self.next);
        reading.of_fields().iter().copied().chain(of_content).chain(of_line.copied()).collect()
    }

    /// Position behind its last byte.
    fn end(&self) -> Option<i64> {
        let len = self.reading.as_ref()?.len(self.message, self.next)?;
        Some(self.at + i64::try_from(len).ok()?)
    }

    /// Whether the connection belongs to another protocol behind it (RFC 9110 sections 15.2.2 and 9.3.6).
    fn hands_over(&self) -> bool {
        let (method, status) = match (&self.message.start_line, &self.message.paired) {
            (StartLine::Response { status }, Paired::Method(method)) => (method.as_slice(), *status),
            (StartLine::Response { status }, _) => (&b""[..], *status),
            (StartLine::Request { method, .. }, Paired::Status(status)) => (method.as_slice(), *status),
            (StartLine::Request { .. }, _) => return false,
        };
        status == 101 || (method == b"CONNECT" && (200..=299).contains(&status))
    }
}

impl<'a> Way<'a> {
    fn read(
        &mut self,
        messages: impl Iterator<Item = &'a Message>,
        untold: &BTreeSet<(SocketAddr, SocketAddr, u32)>,
    ) {
        let mut placed: Vec<_> =
            messages.map(|message| (self.stream.position(message.seq), message)).collect();
        placed.sort_by_key(|(at, _)| *at);
        for (index, (at, message)) in placed.iter().enumerate() {
            let next_at = placed.get(index + 1).map(|(next, _)| *next);
            let next = next_at.and_then(|next| usize::try_from(next - at).ok());
            let bytes = self.stream.run_from(*at);
            let own = bytes.get(..next.unwrap_or(bytes.len())).unwrap_or(&bytes);
            let mut reading = Reading::of(own, &message.paired);
            // What ends where the next message is believed to begin may break off there, or go on.
            if next.is_some() && reading.as_ref().is_some_and(|reading| reading.len(message, next).is_none())
            {
                reading = Reading::of(&bytes, &message.paired);
            }
            let reading = reading.filter(|reading| reading.is_told_by(message, next));
            self.told.push(Told { at: *at, message, next, reading, untold: None });
            if untold.contains(&(message.sender, message.receiver, message.seq)) {
                let shape = self.shape_of_untold(index);
                self.told[index].untold = Some(shape);
            }
        }
    }

    fn shape_of(&self, disagreement: &Disagreement) -> Option<Shape> {
        let at = self.stream.position(disagreement.seq);
        if disagreement.is_only_theirs() {
            let theirs = self.theirs.iter().find(|message| message.seq == disagreement.seq)?;
            return self.shape_of_invented(at, theirs);
        }
        let told = self.told.iter().find(|told| told.at == at)?;
        let reading = told.reading.as_ref()?;
        let shape = match disagreement.what {
            Aspect::Existence => told.untold.flatten(),
            Aspect::Method | Aspect::Target | Aspect::Status => reading.of_line.first().copied(),
            Aspect::Header => told.odd().into_iter().find(|shape| MISCUT_LINES.contains(shape)),
            Aspect::Body => told.odd().first().copied(),
        };
        shape.or_else(|| {
            let end = told.end().or_else(|| Some(at + i64::try_from(told.next?).ok()?)).unwrap_or(i64::MAX);
            let refused = self.stream.refuses_between(at, end).then_some(Shape::WithoutAck);
            let fin = || self.stream.end_within_segment(at).filter(|fin| *fin < end);
            refused.or_else(|| fin().map(|_| Shape::BehindEnd))
        })
    }

    /// Why Wireshark does not tell of a message of `inspect`.
    fn shape_of_untold(&self, index: usize) -> Option<Shape> {
        let told = self.told.get(index)?;
        let own = told.reading.as_ref()?.of_line.first().copied();
        own.or_else(|| match index.checked_sub(1).and_then(|before| self.told.get(before)) {
            Some(before) => self.shape_of_what_follows(before, told.at),
            None => self.shape_of_first(told.at),
        })
    }

    /// Why Wireshark does not tell of the message at this position, by the one before it.
    fn shape_of_what_follows(&self, before: &Told<'_>, at: i64) -> Option<Shape> {
        before.reading.as_ref()?;
        let odd = before.odd().first().copied();
        match before.end() {
            // Nobody can tell where it begins but by the segments.
            None => odd.filter(|_| self.stream.has_segment_at(at)),
            Some(end) if end == at => {
                let is_given_up = || {
                    let is_marred =
                        |one: &&&Message| one.is_marred && self.stream.position(one.seq) == before.at;
                    self.theirs.iter().any(|one| is_marred(&one)) && !self.stream.has_segment_at(at)
                };
                let is_cut =
                    || self.stream.has_segment_at(at) && self.stream.between(before.at, end).is_none();
                odd.or(before.untold.flatten())
                    .or_else(|| is_given_up().then_some(Shape::GivenUp))
                    .or_else(|| is_cut().then_some(Shape::CutContent))
            }
            Some(end) => self.shape_of_bytes_before(end, at).or(odd),
        }
    }

    /// Why it does not tell of the first message of the stream.
    fn shape_of_first(&self, at: i64) -> Option<Shape> {
        let first = self.stream.first()?;
        if first < at {
            let is_proxy = self.stream.between(first, at).is_some_and(|bytes| is_proxy_header(&bytes));
            return is_proxy.then_some(Shape::ProxyHeader).or_else(|| self.shape_of_bytes_before(first, at));
        }
        if self.stream.has_part_of_word_at(at) {
            return Some(Shape::SplitMethod);
        }
        let back = self.back?;
        let is_http2 = back.run_from(back.first()?).starts_with(b"PRI * HTTP/2.0\r\n\r\n");
        is_http2.then_some(Shape::Http2Preface)
    }

    /// What the bytes between two messages are.
    fn shape_of_bytes_before(&self, from: i64, at: i64) -> Option<Shape> {
        // Where some are missing, those behind the gap.
        let bytes = self.stream.between(self.stream.run_start(at).max(from), at)?;
        if bytes.iter().all(|byte| is_line_end(*byte)) {
            return (!bytes.is_empty()).then_some(Shape::EmptyLinesFirst);
        }
        // Behind such bytes a message is believed at the start of a segment, empty lines before it or not.
        let blank = bytes.iter().rev().take_while(|byte| is_line_end(**byte)).count();
        let starts = (0..=blank).any(|blank| self.stream.has_segment_at(at - blank as i64));
        (starts && !begins_message(&bytes)).then_some(Shape::NoStartLine)
    }

    /// Why `inspect` does not tell of a message of Wireshark's.
    fn shape_of_invented(&self, at: i64, theirs: &Message) -> Option<Shape> {
        // It begins with bytes that nobody took, and `inspect` tells of nothing in their place.
        if self.stream.refuses_between(at, at + 1) && !self.told.iter().any(|told| told.at == at) {
            return Some(Shape::WithoutAck);
        }
        let is_request = matches!(theirs.start_line, StartLine::Request { .. });
        let is_senders_own = self.stream.is_opener();
        let is_receivers = self.back.is_some_and(Stream::is_opener);
        if (is_request && is_receivers && !is_senders_own) || (!is_request && is_senders_own && !is_receivers)
        {
            return Some(Shape::WrongDirection);
        }
        if !self.has_message_at(at) {
            return Some(Shape::NoStartLine);
        }
        let before = self.told.iter().rfind(|told| told.at < at);
        let end = match before {
            Some(before) if before.hands_over() => return Some(Shape::HandOver),
            Some(before) => {
                let reading = before.reading.as_ref()?;
                let odd = before.odd().first().or(reading.of_line.first()).copied();
                match before.end() {
                    Some(end) if end <= at => end,
                    _ => return odd,
                }
            }
            None => self.stream.first()?,
        };
        // It goes on within the segment where nothing begins; `inspect` waits for the next one.
        (end < at && !self.has_message_at(end) && !self.stream.has_segment_at(at))
            .then_some(Shape::NoStartLine)
    }

    /// Whether a start line of HTTP/1 stands at this position.
    fn has_message_at(&self, position: i64) -> bool {
        begins_message(&self.stream.run_from(position))
    }
}

/// Whether `bytes` begin with a whole start line of HTTP/1, empty lines before it or not.
fn begins_message(bytes: &[u8]) -> bool {
    let blank = bytes.iter().take_while(|byte| is_line_end(**byte)).count();
    Reading::of(&bytes[blank..], &Paired::Nothing).is_some()
}

const fn is_line_end(byte: u8) -> bool {
    matches!(byte, b'\r' | b'\n')
}

/// Why Wireshark may cut field lines otherwise.
const MISCUT_LINES: [Shape; 4] =
    [Shape::FoldedField, Shape::LineWithoutColon, Shape::WhiteSpaceBeforeFields, Shape::BareCarriageReturn];

/// Whether these bytes are a header of the PROXY protocol (its sections 2.1 and 2.2) and no more.
fn is_proxy_header(bytes: &[u8]) -> bool {
    if let Some(behind) = bytes.strip_prefix(b"\r\n\r\n\0\r\nQUIT\n") {
        // Version and command, family, then the length of what follows.
        let [_, _, high, low, rest @ ..] = behind else { return false };
        return rest.len() == usize::from(u16::from_be_bytes([*high, *low]));
    }
    bytes.starts_with(b"PROXY ") && bytes.iter().position(|byte| *byte == b'\n') == Some(bytes.len() - 1)
}

#[cfg(test)]
mod tests;
