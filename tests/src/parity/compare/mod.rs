//! Enters: what Wireshark and `inspect` say of one file. Leaves: where they disagree, and what was not compared.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fmt,
    net::SocketAddr,
};

use crate::parity::{
    message::{Body, Message, StartLine, content_length},
    shape::Shape,
};

/// What came of comparing one file.
#[derive(Debug, Default)]
pub struct Comparison {
    /// Requests of which both tell.
    pub requests: u64,
    /// Responses of which both tell.
    pub responses: u64,
    /// Where they differ.
    pub disagreements: Vec<Disagreement>,
    /// What was not compared: how often, by reason.
    pub not_compared: BTreeMap<&'static str, u64>,
}

/// One thing that the two tell differently.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Disagreement {
    /// Sender and receiver.
    pub way: (SocketAddr, SocketAddr),
    /// The same for people.
    pub flow: String,
    /// Bytes of the sender's stream before the message; as `inspect` counts, unless it does not tell of it.
    pub offset: u64,
    /// Sequence number of the message's first byte.
    pub seq: u32,
    /// What Wireshark adds about the place.
    pub place: String,
    /// What they differ in.
    pub what: Aspect,
    /// What the bytes prove about the reason.
    pub shape: Option<Shape>,
    /// What Wireshark says; `None` where it does not tell of the message.
    pub wireshark: Option<String>,
    /// What `inspect` says; `None` likewise.
    pub inspect: Option<String>,
}

/// What two accounts of a message can differ in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Aspect {
    /// One of them does not tell of it.
    Existence,
    /// The method.
    Method,
    /// The request target.
    Target,
    /// The status.
    Status,
    /// A header: its name, its value, its place, or that it is there.
    Header,
    /// Length or hash of the content.
    Body,
}

impl Disagreement {
    /// Whether only `inspect` tells of the message.
    pub(super) fn is_only_ours(&self) -> bool {
        self.what == Aspect::Existence && self.wireshark.is_none()
    }

    /// Whether only Wireshark tells of the message.
    pub(super) fn is_only_theirs(&self) -> bool {
        self.what == Aspect::Existence && self.inspect.is_none()
    }
}

impl Aspect {
    /// The word for it in reports and verdicts.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Existence => "message",
            Self::Method => "method",
            Self::Target => "target",
            Self::Status => "status",
            Self::Header => "header",
            Self::Body => "body",
        }
    }
}

/// What Wireshark tells of one file, by what it waits for. What it tells with more patience counts; the others stand in
/// where it tells nothing of a message, having waited for bytes that are not in the file.
#[derive(Debug, Default)]
pub struct Accounts {
    /// When it waits for late segments and for the end of each message.
    pub whole: Vec<Message>,
    /// When it does not wait for late segments.
    pub present: Vec<Message>,
    /// When it does not wait for the end of a message either.
    pub heads: Vec<Message>,
    /// When it does not wait for the end of a head either, those whose heads are whole.
    pub segments: Vec<Message>,
    /// The others of these.
    pub beginnings: Vec<Message>,
}

impl Comparison {
    /// Counts disagreements as not compared, for this reason.
    pub(super) fn set_aside(&mut self, reason: &'static str, is_meant: impl Fn(&Disagreement) -> bool) {
        let before = self.disagreements.len();
        self.disagreements.retain(|disagreement| !is_meant(disagreement));
        let left_out = before.saturating_sub(self.disagreements.len());
        if left_out > 0 {
            *self.not_compared.entry(reason).or_default() += left_out as u64;
        }
    }
}

/// Whether Wireshark tells of each message of `inspect`.
#[must_use]
pub fn is_covered(wireshark: &[Message], inspect: &[Message]) -> bool {
    let places: HashSet<_> =
        wireshark.iter().map(|message| (message.sender, message.receiver, message.seq)).collect();
    inspect.iter().all(|message| places.contains(&(message.sender, message.receiver, message.seq)))
}

/// Flows of which Wireshark tells nothing in a direction in which `inspect` does: to its port another protocol may
/// belong, or to that of its client.
#[must_use]
pub fn untold_flows(wireshark: &[Message], inspect: &[Message]) -> BTreeSet<Flow> {
    let ways: HashSet<_> = wireshark.iter().map(|message| (message.sender, message.receiver)).collect();
    let is_untold = |message: &&Message| !ways.contains(&(message.sender, message.receiver));
    inspect.iter().filter(is_untold).map(flow).collect()
}

/// Puts what Wireshark told when it was asked `again` in the place of what it told first, in those of `flows` of which
/// it tells more.
pub fn replace_flows(first: &mut Vec<Message>, again: &[Message], flows: &BTreeSet<Flow>) {
    let count = |messages: &[Message]| {
        let mut counts: BTreeMap<Flow, u64> = BTreeMap::new();
        messages.iter().for_each(|message| *counts.entry(flow(message)).or_default() += 1);
        counts
    };
    let (before, after) = (count(first), count(again));
    let better: BTreeSet<Flow> =
        flows.iter().filter(|wanted| after.get(wanted) > before.get(wanted)).copied().collect();
    first.retain(|message| !better.contains(&flow(message)));
    first.extend(again.iter().filter(|message| better.contains(&flow(message))).cloned());
}

/// Both ends of a flow, the lower first.
pub type Flow = (SocketAddr, SocketAddr);

fn flow(message: &Message) -> Flow {
    let (a, b) = (message.sender, message.receiver);
    (a.min(b), a.max(b))
}

/// The flows of which the two tell differently.
#[must_use]
pub fn disputed_flows(comparison: &Comparison) -> BTreeSet<Flow> {
    comparison.disagreements.iter().map(|one| (one.way.0.min(one.way.1), one.way.0.max(one.way.1))).collect()
}

/// Compares the messages that both found in one file.
#[must_use]
pub fn compare(wireshark: &Accounts, inspect: &[Message]) -> Comparison {
    let mut comparison = Comparison::default();
    let mut theirs: Vec<Option<&Message>> = wireshark.whole.iter().map(Some).collect();
    let mut ours: Vec<Option<&Message>> = inspect.iter().map(Some).collect();
    let mut pairs = Vec::new();
    // What begins at the same byte is the same message; where several do, those that are equal first.
    pair_up(&mut theirs, &mut ours, &mut pairs, |a, b| {
        is_at_same_place(a, b) && a.has_head_of(b) && a.body == b.body
    });
    pair_up(&mut theirs, &mut ours, &mut pairs, is_at_same_place);
    // Where Wireshark lost count: the same head in the same direction.
    pair_up(&mut theirs, &mut ours, &mut pairs, |a, b| is_same_way(a, b) && a.has_head_of(b));
    for (theirs, ours) in &pairs {
        comparison.count(ours);
        comparison.compare_heads(theirs, ours);
        comparison.compare_bodies(theirs, ours);
    }
    let is_copy = |ours: &Message| {
        let is_equal = |other: &Message| {
            is_at_same_place(other, ours) && other.has_head_of(ours) && other.body == ours.body
        };
        // Twice in one place is once too often.
        pairs.iter().any(|(_, other)| other.place != ours.place && is_equal(other))
    };
    for ours in &mut ours {
        if ours.is_some_and(is_copy) {
            comparison
                .leave_out("copies of a message in another VLAN or overlay, which Wireshark takes for one");
            *ours = None;
        }
    }
    let is_repeat = |theirs: &Message| {
        let is_equal = |other: &Message| {
            is_at_same_place(other, theirs)
                && stream(other) == stream(theirs)
                && other.start_line == theirs.start_line
                && other.headers == theirs.headers
        };
        pairs.iter().any(|(other, _)| is_equal(other))
    };
    for theirs in &mut theirs {
        if theirs.is_some_and(is_repeat) {
            comparison.leave_out("retransmissions of a message, which Wireshark takes for another one");
            *theirs = None;
        }
    }
    comparison.stand_in(&wireshark.present, &mut ours, Aspect::Body);
    comparison.stand_in(&wireshark.heads, &mut ours, Aspect::Header);
    comparison.stand_in(&wireshark.segments, &mut ours, Aspect::Header);
    comparison.leave_out_begun(&wireshark.beginnings, &mut ours);
    for ours in ours.into_iter().flatten() {
        comparison.note(ours, String::new(), Aspect::Existence, (None, Some(summary(ours))));
    }
    for theirs in theirs.into_iter().flatten() {
        let said = (Some(summary(theirs)), None);
        comparison.note(theirs, theirs.place.clone(), Aspect::Existence, said);
    }
    comparison
}

/// Takes those out of both lists that are a pair, in order.
fn pair_up<'a>(
    theirs: &mut [Option<&'a Message>],
    ours: &mut [Option<&'a Message>],
    pairs: &mut Vec<(&'a Message, &'a Message)>,
    is_pair: impl Fn(&Message, &Message) -> bool,
) {
    for their_slot in theirs.iter_mut() {
        let Some(their) = *their_slot else { continue };
        let found = ours.iter_mut().find(|ours| ours.is_some_and(|ours| is_pair(their, ours)));
        if let Some(our_slot) = found
            && let Some(our) = our_slot.take()
        {
            pairs.push((their, our));
            *their_slot = None;
        }
    }
}

fn is_same_way(a: &Message, b: &Message) -> bool {
    a.sender == b.sender && a.receiver == b.receiver
}

fn is_at_same_place(a: &Message, b: &Message) -> bool {
    a.seq == b.seq && is_same_way(a, b)
}

/// The connection, as Wireshark numbers them: the same ends may have several.
fn stream(message: &Message) -> Option<&str> {
    Some(message.place.split_once(", frame ")?.0)
}

fn summary(message: &Message) -> String {
    let end = if message.complete { "" } else { ", cut short" };
    format!("{} with {} headers, body {}{end}", message.start_line, message.headers.len(), message.body)
}

impl Comparison {
    /// Compares what is left of `ours` with what Wireshark tells with less patience, up to this aspect.
    fn stand_in<'a>(&mut self, theirs: &'a [Message], ours: &mut [Option<&'a Message>], up_to: Aspect) {
        let mut theirs: Vec<Option<&Message>> = theirs.iter().map(Some).collect();
        let mut pairs = Vec::new();
        pair_up(&mut theirs, ours, &mut pairs, is_at_same_place);
        for (theirs, ours) in pairs {
            self.count(ours);
            self.compare_heads(theirs, ours);
            if up_to == Aspect::Body {
                self.compare_bodies(theirs, ours);
            } else if ours.complete {
                self.leave_out(UNJOINED);
            } else {
                self.leave_out(UNJOINED_WITHOUT_END);
            }
        }
    }

    /// Leaves out what is left of `ours` of which Wireshark tells a beginning that is equal.
    fn leave_out_begun<'a>(&mut self, theirs: &'a [Message], ours: &mut [Option<&'a Message>]) {
        let mut theirs: Vec<Option<&Message>> = theirs.iter().map(Some).collect();
        let mut pairs = Vec::new();
        pair_up(&mut theirs, ours, &mut pairs, |theirs, ours| {
            is_at_same_place(theirs, ours)
                && theirs.start_line == ours.start_line
                && ours.headers.starts_with(&theirs.headers)
        });
        pairs.iter().for_each(|_| self.leave_out(UNJOINED_HEAD));
    }

    fn count(&mut self, message: &Message) {
        match message.start_line {
            StartLine::Request { .. } => self.requests += 1,
            StartLine::Response { .. } => self.responses += 1,
        }
    }

    fn leave_out(&mut self, reason: &'static str) {
        *self.not_compared.entry(reason).or_default() += 1;
    }

    fn compare_heads(&mut self, theirs: &Message, ours: &Message) {
        match (&theirs.start_line, &ours.start_line) {
            (
                StartLine::Request { method: their_method, target: their_target },
                StartLine::Request { method, target },
            ) => {
                self.compare_bytes(theirs, ours, Aspect::Method, their_method, method);
                self.compare_bytes(theirs, ours, Aspect::Target, their_target, target);
            }
            (their_line, our_line) => {
                if their_line != our_line {
                    let (their_line, our_line) = (their_line.to_string(), our_line.to_string());
                    self.note_pair(theirs, ours, Aspect::Status, their_line, our_line);
                }
            }
        }
        let longer = theirs.headers.len().max(ours.headers.len());
        for index in 0..longer {
            let (their_field, our_field) = (theirs.headers.get(index), ours.headers.get(index));
            if their_field != our_field {
                self.note_pair(
                    theirs,
                    ours,
                    Aspect::Header,
                    field(index, their_field),
                    field(index, our_field),
                );
                // Where the one has a line more, all behind it differ.
                return;
            }
        }
    }

    fn compare_bytes(&mut self, theirs: &Message, ours: &Message, what: Aspect, a: &[u8], b: &[u8]) {
        if a != b {
            self.note_pair(theirs, ours, what, a.escape_ascii().to_string(), b.escape_ascii().to_string());
        }
    }

    fn compare_bodies(&mut self, theirs: &Message, ours: &Message) {
        match (&theirs.body, &ours.body) {
            (Body::Whole { .. }, Body::Whole { .. }) if theirs.body == ours.body => {}
            // It lost step, and shows no more than the segments that it had put together by then.
            (Body::Whole { len: shown, .. }, Body::Whole { len, .. })
                if theirs.is_short
                    && shown < len
                    && content_length(&theirs.headers).is_none_or(|announced| *len <= announced) =>
            {
                self.leave_out(if ours.complete { UNJOINED } else { UNJOINED_WITHOUT_END });
            }
            (Body::Whole { .. }, Body::Whole { .. }) => {
                self.note_pair(theirs, ours, Aspect::Body, theirs.body.to_string(), ours.body.to_string());
            }
            // It has all of it, having waited for that.
            (Body::Whole { .. }, Body::Damaged { .. }) if theirs.is_in_full() => {
                self.note_pair(theirs, ours, Aspect::Body, theirs.body.to_string(), ours.body.to_string());
            }
            (_, Body::Damaged { .. }) => self.leave_out("bodies with bytes missing from the capture"),
            _ => self.leave_out("bodies that tshark did not print in full"),
        }
    }

    fn note_pair(&mut self, theirs: &Message, ours: &Message, what: Aspect, a: String, b: String) {
        self.note(ours, theirs.place.clone(), what, (Some(a), Some(b)));
    }

    fn note(
        &mut self,
        message: &Message,
        place: String,
        what: Aspect,
        (wireshark, inspect): (Option<String>, Option<String>),
    ) {
        let place = if place.is_empty() { message.place.clone() } else { place };
        self.disagreements.push(Disagreement {
            way: (message.sender, message.receiver),
            flow: message.flow(),
            offset: message.offset,
            seq: message.seq,
            place,
            what,
            shape: None,
            wireshark,
            inspect,
        });
    }
}

const UNJOINED: &str = "bodies that Wireshark does not put together although they have an end";
const UNJOINED_WITHOUT_END: &str = "bodies without an end, which Wireshark does not put together";
const UNJOINED_HEAD: &str = "heads in several segments, of which Wireshark shows the first: a later one is cut by the capture, or missing";

fn field(index: usize, field: Option<&(Vec<u8>, Vec<u8>)>) -> String {
    match field {
        Some((name, value)) => format!("{}. {}: {}", index + 1, name.escape_ascii(), value.escape_ascii()),
        None => format!("only {index} headers"),
    }
}

impl fmt::Display for Disagreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = |said: &Option<String>| said.clone().unwrap_or_else(|| "no such message".to_owned());
        write!(f, "{}, byte {} (seq {})", self.flow, self.offset, self.seq)?;
        if !self.place.is_empty() {
            write!(f, ", {}", self.place)?;
        }
        writeln!(f, ": {}", self.what.as_str())?;
        writeln!(f, "    wireshark: {}", side(&self.wireshark))?;
        write!(f, "    inspect:   {}", side(&self.inspect))
    }
}

#[cfg(test)]
mod tests;
