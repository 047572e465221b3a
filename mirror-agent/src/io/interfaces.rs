//! Enters: segments, as capture threads see them. Leaves: which interfaces show responses but no requests.
//!
//! Requests may bypass a hook that responses pass: with `bpf_redirect_peer` or netkit they do not pass the host side of
//! a pod's interface. Nothing would be mirrored there and nothing counted, so it is said. The reverse, requests without
//! responses, is what asymmetric routing looks like, and no reason to warn.
//!
//! What counts is the beginning of a response, since one response may go on for hours after its request.

use std::{
    collections::HashMap,
    mem,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tracing::warn;

use crate::{
    io::capture::links,
    pipeline::{Segment, Side, Timestamp},
};

/// Responses must begin for so long without a request between them.
const ONE_SIDED_AFTER: Duration = Duration::from_secs(10);

/// So many at least, where the interface has never shown a request.
const LEAST_ANSWERS: u32 = 2;

/// So many where it has: several slow requests may be answered while nobody asks anything.
const LEAST_ANSWERS_LATER: u32 = 10;

/// How often a thread says what it has seen.
const TALLY_INTERVAL: Duration = Duration::from_secs(1);

/// Interfaces that are remembered. Beyond it, the one without payload for longest is forgotten.
const MAX_INTERFACES: usize = 4096;

/// Interfaces that one warning names.
const MAX_NAMES: usize = 8;

/// What one capture thread has seen since it was last asked.
#[derive(Debug, Default)]
pub struct Tally {
    /// The interface of the latest segment, and what was seen of it.
    latest: u32,
    seen: Seen,
    /// The others.
    others: HashMap<u32, Seen>,
    taken_at: Timestamp,
}

/// What was seen of one interface: requests, and responses that began after the last of them.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    last_request: Option<Timestamp>,
    /// When the first and the last response began.
    answered: Option<(Timestamp, Timestamp)>,
    /// How many responses began.
    answers: u32,
}

impl Seen {
    fn request(&mut self, at: Timestamp) {
        *self = Self { last_request: Some(at), ..Self::default() };
    }

    fn answer(&mut self, at: Timestamp) {
        let (first, _) = self.answered.unwrap_or((at, at));
        self.answered = Some((first, at));
        self.answers = self.answers.saturating_add(1);
    }

    /// Adds what another thread has seen in about the same time.
    fn add(&mut self, other: &Self) {
        let last_request = self.last_request.max(other.last_request);
        let later = |seen: &Self| seen.answered.filter(|(first, _)| Some(*first) > last_request);
        let (own, others) = (later(self), later(other));
        let count = |range: Option<_>, answers: u32| range.map_or(0, |_| answers);
        *self = Self {
            last_request,
            answered: match (own, others) {
                (Some((first, last)), Some((other_first, other_last))) => {
                    Some((first.min(other_first), last.max(other_last)))
                }
                (own, others) => own.or(others),
            },
            answers: count(own, self.answers).saturating_add(count(others, other.answers)),
        };
    }

    /// When there was payload last.
    fn latest(&self) -> Option<Timestamp> {
        self.last_request.max(self.answered.map(|(_, last)| last))
    }

    fn is_one_sided(&self) -> bool {
        let least = if self.last_request.is_none() { LEAST_ANSWERS } else { LEAST_ANSWERS_LATER };
        self.answers >= least
            && self.answered.is_some_and(|(first, last)| last.since(first) >= ONE_SIDED_AFTER)
    }
}

impl Tally {
    /// Takes note of a segment.
    pub fn note(&mut self, segment: &Segment<'_>) {
        // Of the server's side, only the beginning of a response is copied.
        let is_telling = match segment.side {
            Side::Client => segment.payload_len > 0,
            Side::Server => !segment.payload.is_empty(),
        };
        if !is_telling {
            return;
        }
        if segment.interface != self.latest {
            self.turn_to(segment.interface);
        }
        match segment.side {
            Side::Client => self.seen.request(segment.at),
            Side::Server => self.seen.answer(segment.at),
        }
    }

    fn turn_to(&mut self, interface: u32) {
        let next = self.others.remove(&interface).unwrap_or_default();
        let (left, seen) = (mem::replace(&mut self.latest, interface), mem::replace(&mut self.seen, next));
        if seen.latest().is_some() && self.others.len() < MAX_INTERFACES {
            self.others.insert(left, seen);
        }
    }

    /// What was seen, which is forgotten here.
    fn take(&mut self) -> impl Iterator<Item = (u32, Seen)> {
        let latest = (self.latest, mem::take(&mut self.seen));
        mem::take(&mut self.others).into_iter().chain([latest]).filter(|(_, seen)| seen.latest().is_some())
    }
}

/// What all capture threads have seen.
#[derive(Debug, Default)]
pub struct Interfaces(Mutex<HashMap<u32, Shown>>);

/// What is known of one interface.
#[derive(Debug, Default)]
struct Shown {
    seen: Seen,
    is_warned_of: bool,
}

impl Interfaces {
    /// Takes what a thread has seen, once a second, and warns of each interface that shows responses only, once.
    pub fn take(&self, tally: &mut Tally, now: Timestamp) {
        if now.since(tally.taken_at) < TALLY_INTERVAL {
            return;
        }
        tally.taken_at = now;
        let one_sided = self.add(tally);
        if !one_sided.is_empty() {
            let (interfaces, more) = (names(&one_sided), one_sided.len().saturating_sub(MAX_NAMES));
            warn!(
                interfaces,
                more,
                "Responses pass these interfaces, but no requests, so none is mirrored there: requests bypass the hook, \
                 as they do with bpf_redirect_peer (Cilium's default) and netkit. Attach to the node's uplink, or in the \
                 pod's network namespace."
            );
        }
    }

    /// How many interfaces show responses only.
    #[must_use]
    pub fn one_sided(&self) -> usize {
        let shown = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        shown.values().filter(|shown| shown.seen.is_one_sided()).count()
    }

    /// Adds what a thread has seen and gives the interfaces of which nobody has been warned.
    fn add(&self, tally: &mut Tally) -> Vec<u32> {
        let mut interfaces = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut fresh = Vec::new();
        for (index, seen) in tally.take() {
            if interfaces.len() >= MAX_INTERFACES && !interfaces.contains_key(&index) {
                let oldest = interfaces.iter().min_by_key(|(_, shown)| shown.seen.latest());
                if let Some(oldest) = oldest.map(|(index, _)| *index) {
                    interfaces.remove(&oldest);
                }
            }
            let shown = interfaces.entry(index).or_default();
            shown.seen.add(&seen);
            if shown.seen.is_one_sided() && !mem::replace(&mut shown.is_warned_of, true) {
                fresh.push(index);
            }
        }
        fresh
    }
}

/// The names of interfaces, of as many as one warning may name; the index where there is no name.
fn names(indices: &[u32]) -> String {
    // It costs a look at all interfaces, once in an interface's life.
    let links = links::links().unwrap_or_default();
    let name = |index: &u32| {
        let link = links.iter().find(|link| link.index == *index);
        link.map_or_else(|| index.to_string(), |link| link.name.clone())
    };
    indices.iter().take(MAX_NAMES).map(name).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::pipeline::{FlowKey, SeqNumber, TcpFlags};

    /// Requests (`?`) and beginnings of responses (`!`) at an interface, as many as there are signs, a second apart;
    /// `-` is payload within a response.
    fn tally(interface: u32, from: u64, signs: &str) -> Tally {
        let mut tally = Tally::default();
        note(&mut tally, interface, from, signs);
        tally
    }

    fn note(tally: &mut Tally, interface: u32, from: u64, signs: &str) {
        let end = "10.0.0.1:80".parse::<SocketAddr>().unwrap().into();
        for (second, sign) in (from..).zip(signs.chars()) {
            let (side, payload): (_, &[u8]) = match sign {
                '?' => (Side::Client, b"GET / HTTP/1"),
                '!' => (Side::Server, b"HTTP/1.1 200"),
                _ => (Side::Server, b""),
            };
            tally.note(&Segment {
                flow: FlowKey { client: end, server: end, vlan: 0, vni: 0 },
                interface,
                side,
                at: at(second),
                seq: SeqNumber(0),
                ack: SeqNumber(0),
                flags: TcpFlags::ACK,
                payload,
                payload_len: 100,
            });
        }
    }

    fn at(second: u64) -> Timestamp {
        Timestamp::ZERO.after(Duration::from_secs(second))
    }

    #[test]
    fn interface_is_one_sided_after_ten_seconds_of_responses_without_a_request() {
        for (signs, is_one_sided) in [
            ("!!!!!!!!!!!", true),
            ("!!!!!!!!!!", false),
            ("!---------!", true),
            ("!-----------------", false),
            ("!!!!!!!!!!!?", false),
            ("!!!!!?!!!!!!!!!!", false),
            ("!!!!!?!!!!!!!!!!!", true),
            ("?!---------!", false),
            ("?-------------", false),
            ("????????????", false),
        ] {
            let interfaces = Interfaces::default();
            let fresh = interfaces.add(&mut tally(3, 1, signs));
            assert_eq!(
                (fresh.len(), interfaces.one_sided()),
                (usize::from(is_one_sided), usize::from(is_one_sided)),
                "{signs}"
            );
        }
    }

    #[test]
    fn warning_is_given_once_and_the_gauge_goes_back() {
        let interfaces = Interfaces::default();
        assert_eq!(interfaces.add(&mut tally(3, 1, "!!!!!!")), [0; 0]);
        assert_eq!(interfaces.add(&mut tally(3, 7, "!!!!!!")), [3]);
        assert_eq!((interfaces.add(&mut tally(3, 13, "!!")), interfaces.one_sided()), (vec![], 1));
        assert_eq!((interfaces.add(&mut tally(3, 15, "?")), interfaces.one_sided()), (vec![], 0));
        assert_eq!((interfaces.add(&mut tally(3, 16, &"!".repeat(20))), interfaces.one_sided()), (vec![], 1));
    }

    #[test]
    fn requests_that_another_thread_saw_count_for_the_interface() {
        let interfaces = Interfaces::default();
        for second in [1, 6, 11, 16] {
            interfaces.add(&mut tally(3, second, "!!!!!"));
            interfaces.add(&mut tally(3, second + 3, "?"));
            assert_eq!(interfaces.one_sided(), 0);
        }
        let mut both = Tally::default();
        for second in 21..40 {
            note(&mut both, 3, second, "!");
            note(&mut both, 4, second, "?!");
        }
        assert_eq!(interfaces.add(&mut both), [3]);
        assert_eq!(interfaces.one_sided(), 1);
    }

    #[test]
    fn no_more_interfaces_are_remembered_than_allowed_and_the_oldest_goes() {
        let interfaces = Interfaces::default();
        let one = u32::try_from(MAX_INTERFACES).unwrap();
        interfaces.add(&mut tally(one + 1, 1, "?"));
        let mut tally = Tally::default();
        for interface in 1..=one + 9 {
            note(&mut tally, interface, 2, "?");
        }
        interfaces.add(&mut tally);
        let known = interfaces.0.lock().unwrap();
        assert_eq!(known.len(), MAX_INTERFACES);
        drop(known);
        interfaces.add(&mut self::tally(90_000, 3, "?"));
        let known = interfaces.0.lock().unwrap();
        assert!(known.len() == MAX_INTERFACES && known.contains_key(&90_000));
    }
}
