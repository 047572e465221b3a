//! Enters: a request. Leaves: the bytes of the answer and how long it takes, without a network or a clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{
    answer::{self, Accepts},
    bugs::{Bug, Bugs, Tally},
    noise::Chance,
    pages::{Kitchen, Request},
};
use crate::http;

/// Which of the two programs it is. They agree but in what does not matter: layout, order of keys, case of field names.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Version {
    /// The old one.
    One,
    /// The new one.
    Two,
}

/// What a server is like.
#[derive(Clone, Copy, Debug)]
pub struct Character {
    /// Which program it runs.
    pub version: Version,
    /// What is wrong with it.
    pub bugs: Bugs,
    /// Where its own chance comes from.
    pub seed: u64,
}

/// The middle of the service times.
pub const SERVICE_TIME: Duration = Duration::from_millis(20);
/// How the service times spread: the standard deviation of their logarithm. The 95th percentile is 25.6 ms.
const SPREAD: f64 = 0.15;
/// From how many standard deviations on an answer is in the slow tail: one in ten is, so the 95th percentile lies within.
const TAIL: f64 = 1.2816;
/// How much longer the tail takes with [`Bug::SlowTail`].
const SLOWDOWN: f64 = 1.2;

/// A shop without its connections.
#[derive(Debug)]
pub struct Program {
    character: Character,
    tally: Tally,
}

impl Program {
    /// A program of this character.
    #[must_use]
    pub fn new(character: Character) -> Self {
        Self { character, tally: Tally::default() }
    }

    /// What it is like.
    #[must_use]
    pub const fn character(&self) -> Character {
        self.character
    }

    /// How many answers a bug has changed so far.
    #[must_use]
    pub fn changed_by(&self, bug: Bug) -> u64 {
        self.tally.of(bug)
    }

    /// How long the answer with this number takes.
    #[must_use]
    pub fn service_time(&self, number: u64) -> Duration {
        let deviation = Chance::new(!self.character.seed, number, UNIX_EPOCH).bell();
        let time = SERVICE_TIME.mul_f64((SPREAD * deviation).exp());
        if deviation > TAIL && self.character.bugs.has(Bug::SlowTail) {
            self.tally.note(Bug::SlowTail);
            return time.mul_f64(SLOWDOWN);
        }
        time
    }

    /// The bytes of the answer to a request, which is the server's one with this number.
    #[must_use]
    pub fn answer(&self, raw: &[u8], number: u64, now: SystemTime) -> Vec<u8> {
        let chance = &mut Chance::new(self.character.seed, number, now);
        let (head, body) = raw.split_at(http::head_len(raw).unwrap_or(raw.len()));
        let [method, target] =
            [http::first_word(head), http::second_word(head)].map(|word| std::str::from_utf8(word));
        let request = Request { method: method.unwrap_or(""), target: target.unwrap_or(""), body };
        let page = Kitchen { bugs: self.character.bugs, tally: &self.tally, chance }.page(request);
        let accepts = http::header_has(head, "accept-encoding", "gzip");
        let accepts = if accepts { Accepts::Gzip } else { Accepts::Plain };
        answer::write(page, self.character.version, accepts, chance)
    }
}
