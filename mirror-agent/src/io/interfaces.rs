//! Enters: segments, as capture threads see them. Leaves: how many each interface shows, and which show responses but no
//! requests.
//!
//! Requests may bypass a hook that responses pass: with `bpf_redirect_peer` or netkit they do not pass the host side of
//! a pod's interface. Nothing would be mirrored there and nothing counted, so it is said. The reverse, requests without
//! responses, is what asymmetric routing looks like, and no reason to warn.
//!
//! What counts is the beginning of a response, since one response may go on for hours after its request.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
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

/// Interfaces of which each has series of its own; the others share one. A node of 110 pods, which is the most that
/// Kubernetes plans for, has about as many; what a scrape costs grows with them.
pub const MAX_SERIES: usize = 128;

/// The name under which the others are told.
pub const OTHERS: &str = "other";

/// What one capture thread has seen since it was last asked.
#[derive(Debug, Default)]
pub struct Tally {
    /// The interface of the latest segment, and what was seen of it.
    latest: u32,
    noted: Noted,
    /// The others.
    others: HashMap<u32, Noted>,
    taken_at: Timestamp,
}

/// What was seen of one interface since it was last asked for.
#[derive(Clone, Copy, Debug, Default)]
struct Noted {
    seen: Seen,
    /// Segments, in the order of [`Side::ALL`].
    segments: [u64; Side::ALL.len()],
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

impl Noted {
    fn has_any(&self) -> bool {
        self.segments.iter().any(|count| *count > 0)
    }
}

impl Tally {
    /// Takes note of a segment.
    pub fn note(&mut self, segment: &Segment<'_>) {
        if segment.interface != self.latest {
            self.turn_to(segment.interface);
        }
        if let Some(count) = self.noted.segments.get_mut(segment.side as usize) {
            *count = count.wrapping_add(1);
        }
        // Of the server's side, only the beginning of a response is copied.
        let is_telling = match segment.side {
            Side::Client => segment.payload_len > 0,
            Side::Server => !segment.payload.is_empty(),
        };
        if !is_telling {
            return;
        }
        match segment.side {
            Side::Client => self.noted.seen.request(segment.at),
            Side::Server => self.noted.seen.answer(segment.at),
        }
    }

    fn turn_to(&mut self, interface: u32) {
        let next = self.others.remove(&interface).unwrap_or_default();
        let (left, noted) = (mem::replace(&mut self.latest, interface), mem::replace(&mut self.noted, next));
        if noted.has_any() && self.others.len() < MAX_INTERFACES {
            self.others.insert(left, noted);
        }
    }

    /// What was seen, which is forgotten here.
    fn take(&mut self) -> impl Iterator<Item = (u32, Noted)> {
        let latest = (self.latest, mem::take(&mut self.noted));
        mem::take(&mut self.others).into_iter().chain([latest]).filter(|(_, noted)| noted.has_any())
    }
}

/// What all capture threads have seen.
#[derive(Debug, Default)]
pub struct Interfaces(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    shown: HashMap<u32, Shown>,
    /// Those that have series of their own.
    named: BTreeSet<u32>,
    /// What was seen at the others.
    others: [u64; Side::ALL.len()],
}

/// What is known of one interface.
#[derive(Debug, Default)]
struct Shown {
    seen: Seen,
    is_warned_of: bool,
    segments: [u64; Side::ALL.len()],
}

/// What the metrics say of one interface, or of all that are no more told one by one.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct InterfaceSeries {
    /// Its name, or [`OTHERS`].
    pub name: String,
    /// Segments that were taken from the rings, in the order of [`Side::ALL`].
    pub segments: [u64; Side::ALL.len()],
    /// Whether it shows responses only; `None` for the others.
    pub is_one_sided: Option<bool>,
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
        self.lock().shown.values().filter(|shown| shown.seen.is_one_sided()).count()
    }

    /// The series of the interfaces that are `attached`, by index and name, and of the others. An interface keeps its
    /// series for as long as it is attached; with it they go. The others' count never falls.
    #[must_use]
    pub fn series(&self, attached: &BTreeMap<u32, String>) -> Vec<InterfaceSeries> {
        let mut known = self.lock();
        let Known { shown, named, others } = &mut *known;
        named.retain(|index| {
            let stays = attached.contains_key(index);
            if !stays && let Some(shown) = shown.get_mut(index) {
                // What it has counted goes with its series. To the others it would be a leap.
                shown.segments = Default::default();
            }
            stays
        });
        for (index, name) in attached {
            if named.len() < MAX_SERIES && name != OTHERS {
                named.insert(*index);
            }
        }
        for (_, shown) in shown.iter_mut().filter(|(index, _)| !named.contains(index)) {
            add(others, mem::take(&mut shown.segments));
        }
        let of = |index: &u32| {
            let shown = shown.get(index);
            InterfaceSeries {
                name: attached.get(index).cloned().unwrap_or_default(),
                segments: shown.map(|shown| shown.segments).unwrap_or_default(),
                is_one_sided: Some(shown.is_some_and(|shown| shown.seen.is_one_sided())),
            }
        };
        let last = InterfaceSeries { name: OTHERS.to_owned(), segments: *others, is_one_sided: None };
        let mut names = HashSet::new();
        // For a moment two may have one name: it was given to another, and the look that finds that is still to come.
        named.iter().map(of).chain([last]).filter(|series| names.insert(series.name.clone())).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds what a thread has seen and gives the interfaces of which nobody has been warned.
    fn add(&self, tally: &mut Tally) -> Vec<u32> {
        let mut known = self.lock();
        let Known { shown: interfaces, named, others } = &mut *known;
        let mut fresh = Vec::new();
        for (index, Noted { seen, segments }) in tally.take() {
            if interfaces.len() >= MAX_INTERFACES && !interfaces.contains_key(&index) {
                // Those with series of their own are few, and stay.
                let forgettable = interfaces.iter().filter(|(index, _)| !named.contains(index));
                let oldest = forgettable.min_by_key(|(_, shown)| shown.seen.latest());
                if let Some(oldest) = oldest.map(|(index, _)| *index)
                    && let Some(forgotten) = interfaces.remove(&oldest)
                {
                    add(others, forgotten.segments);
                }
            }
            let shown = interfaces.entry(index).or_default();
            add(&mut shown.segments, segments);
            shown.seen.add(&seen);
            if shown.seen.is_one_sided() && !mem::replace(&mut shown.is_warned_of, true) {
                fresh.push(index);
            }
        }
        fresh
    }
}

fn add(sums: &mut [u64; Side::ALL.len()], counts: [u64; Side::ALL.len()]) {
    for (sum, count) in sums.iter_mut().zip(counts) {
        *sum = sum.wrapping_add(count);
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
        let known = interfaces.lock();
        assert_eq!(known.shown.len(), MAX_INTERFACES);
        drop(known);
        interfaces.add(&mut self::tally(90_000, 3, "?"));
        let known = interfaces.lock();
        assert!(known.shown.len() == MAX_INTERFACES && known.shown.contains_key(&90_000));
    }

    fn attached(indices: impl IntoIterator<Item = u32>) -> BTreeMap<u32, String> {
        indices.into_iter().map(|index| (index, format!("veth{index}"))).collect()
    }

    /// Name and segments of each series that has counted any.
    fn counted(interfaces: &Interfaces, attached: &BTreeMap<u32, String>) -> Vec<(String, [u64; 2])> {
        let series = interfaces.series(attached).into_iter();
        series
            .map(|series| (series.name, series.segments))
            .filter(|(_, segments)| *segments != [0, 0])
            .collect()
    }

    #[test]
    fn series_of_an_interface_come_with_it_and_go_with_it() {
        let interfaces = Interfaces::default();
        let both = attached([3, 4]);
        let zeros = interfaces.series(&both);
        let names: Vec<_> = zeros.iter().map(|series| (&*series.name, series.is_one_sided)).collect();
        assert_eq!(names, [("veth3", Some(false)), ("veth4", Some(false)), (OTHERS, None)]);
        interfaces.add(&mut tally(3, 1, "?!--"));
        interfaces.add(&mut tally(4, 1, "!!!!!!!!!!!"));
        let expected = [("veth3".to_owned(), [1, 3]), ("veth4".to_owned(), [0, 11])];
        assert_eq!(counted(&interfaces, &both), expected);
        assert_eq!(interfaces.series(&both)[1].is_one_sided, Some(true));
        assert_eq!(counted(&interfaces, &attached([4])), expected[1..]);
        // Another of the same index begins anew.
        interfaces.add(&mut tally(3, 20, "?"));
        assert_eq!(counted(&interfaces, &attached([4])), [expected[1].clone(), (OTHERS.to_owned(), [1, 0])]);
        drop(interfaces.series(&both));
        interfaces.add(&mut tally(3, 30, "??"));
        assert_eq!(counted(&interfaces, &both)[0], ("veth3".to_owned(), [2, 0]));
    }

    #[test]
    fn interfaces_beyond_the_bound_are_told_together_and_their_count_never_falls() {
        let interfaces = Interfaces::default();
        let one = u32::try_from(MAX_SERIES).unwrap();
        let many = attached(1..=one + 5);
        assert_eq!(interfaces.series(&many).len(), MAX_SERIES + 1);
        let mut before = 0;
        for round in 0..3_u64 {
            for interface in [1, one, one + 1, one + 5] {
                interfaces.add(&mut tally(interface, 1 + round, "?"));
            }
            let series = interfaces.series(&many);
            assert_eq!(series[0].segments, [round + 1, 0]);
            let others = series[MAX_SERIES].segments[0];
            assert_eq!((others - before, series[MAX_SERIES].name.as_str()), (2, OTHERS));
            before = others;
        }
        // Where one goes, another takes its place, and begins with what it sees from then on.
        let fewer = attached(2..=one + 5);
        let series = interfaces.series(&fewer);
        let last = series.iter().find(|series| series.name == format!("veth{}", one + 1)).unwrap();
        assert_eq!((last.segments, series[MAX_SERIES].segments[0]), ([0, 0], before));
    }
}
