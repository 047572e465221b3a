//! Enters: a request, and by what it is sampled. Leaves: whether it is in the sample.
//!
//! What is in does not depend on the machine, the process or the release, so the hash is a fixed one: SipHash-2-4 with
//! the key `mirror-sample-v1`, over the experiment's name, a zero byte, and the bytes of what is sampled by. A request is
//! in where that hash, as a fraction of 2^64, is below the share: whoever is in stays in when the share is raised, and
//! the name makes experiments independent of each other.

use std::{borrow::Cow, hash::Hasher as _};

use mirror_common::sample::{connection_draw, is_in_share};
use siphasher::sip::SipHasher24;

use super::{
    RuleError, Share,
    asked::{Asked, Wanted},
    rule::{field_name, plain_name},
    share::mix,
};

/// What is in a sample or out of it together.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum SampleBy {
    /// Each request for itself.
    #[default]
    Request,
    /// All requests of a connection.
    Connection,
    /// All requests of a client's address.
    Client,
    /// Requests with the same value of this header field.
    Header(String),
    /// Of this cookie.
    Cookie(String),
    /// Of this query parameter.
    Query(String),
    /// Of this claim of the bearer token.
    Jwt(String),
}

/// What happens to a request without the key by which is sampled. An empty value is none.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum WithoutKey {
    /// It is skipped.
    #[default]
    Skip,
    /// It is drawn for itself.
    Draw,
}

/// Why a request is not in a sample.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Refused {
    /// It lacks the key.
    NoKey,
    /// It was drawn, and is not in the share.
    NotDrawn,
}

/// A share of an experiment's requests.
#[derive(Clone, Debug)]
pub struct Sample {
    share: Share,
    by: By,
    without_key: WithoutKey,
    /// Has taken in the experiment's name.
    hasher: SipHasher24,
    /// The name's own hash, which sets this experiment's draws apart.
    salt: u64,
}

/// By what is sampled, with the place of a name where it is found by that.
#[derive(Clone, Debug)]
enum By {
    Request,
    Connection,
    Client,
    Header(Box<[u8]>, usize),
    Cookie(Box<[u8]>, usize),
    Query(Box<[u8]>, usize),
    Jwt(Box<str>),
}

impl Sample {
    /// A sample for the experiment of this name.
    ///
    /// # Errors
    ///
    /// [`RuleError::Name`].
    pub fn new(
        experiment: &str,
        share: Share,
        by: &SampleBy,
        without_key: WithoutKey,
    ) -> Result<Self, RuleError> {
        let by = match by {
            SampleBy::Request => By::Request,
            SampleBy::Connection => By::Connection,
            SampleBy::Client => By::Client,
            SampleBy::Header(name) => By::Header(field_name(name)?, 0),
            SampleBy::Cookie(name) => By::Cookie(plain_name(name)?, 0),
            SampleBy::Query(name) => By::Query(plain_name(name)?, 0),
            SampleBy::Jwt(name) => {
                plain_name(name)?;
                By::Jwt(name.as_str().into())
            }
        };
        Ok(Self { share, by, without_key, ..Self::of_requests(experiment, share) })
    }

    /// A sample of requests, each for itself.
    #[must_use]
    pub fn of_requests(experiment: &str, share: Share) -> Self {
        let hasher = hasher(experiment);
        Self { share, by: By::Request, without_key: WithoutKey::Skip, salt: hasher.finish(), hasher }
    }

    /// The share that is taken.
    #[must_use]
    pub const fn share(&self) -> Share {
        self.share
    }

    /// Finds the places of what it asks for.
    pub(super) fn bind(&mut self, wanted: &mut Wanted) {
        match &mut self.by {
            By::Header(name, place) => *place = wanted.fields.intern(name),
            By::Cookie(name, place) => *place = wanted.cookies.intern(name),
            By::Query(name, place) => *place = wanted.params.intern(name),
            By::Request | By::Connection | By::Client | By::Jwt(_) => {}
        }
    }

    /// Why the request is not in; `None` where it is.
    pub(super) fn refuse(&self, asked: &Asked<'_, '_>) -> Option<Refused> {
        let client = &asked.flow.client;
        let is_in = match &self.by {
            By::Request => self.takes_request(asked),
            By::Connection => {
                let draw = connection_draw(self.salt, client.addr.octets(), client.port);
                is_in_share(draw, self.share.millionths())
            }
            By::Client => self.takes(&client.addr.octets()),
            By::Header(..) | By::Cookie(..) | By::Query(..) | By::Jwt(_) => match self.key(asked) {
                Some(key) if !key.is_empty() => self.takes(&key),
                _ if self.without_key == WithoutKey::Skip => return Some(Refused::NoKey),
                _ => self.takes_request(asked),
            },
        };
        if is_in { None } else { Some(Refused::NotDrawn) }
    }

    fn key<'a>(&self, asked: &'a Asked<'_, '_>) -> Option<Cow<'a, [u8]>> {
        match &self.by {
            By::Header(_, place) => asked.field(*place).map(Cow::Borrowed),
            By::Cookie(_, place) => asked.cookie(*place).map(Cow::Borrowed),
            By::Query(_, place) => asked.param(*place).map(Cow::Borrowed),
            By::Jwt(name) => asked.claim(name),
            By::Request | By::Connection | By::Client => None,
        }
    }

    fn takes(&self, key: &[u8]) -> bool {
        let mut hasher = self.hasher;
        hasher.write(key);
        self.share.takes(hasher.finish())
    }

    fn takes_request(&self, asked: &Asked<'_, '_>) -> bool {
        self.share == Share::ALL || self.share.takes(mix(asked.draw ^ self.salt))
    }
}

/// The key of [`connection_draw`] for the experiment of this name.
#[must_use]
pub fn connection_key(experiment: &str) -> u64 {
    hasher(experiment).finish()
}

fn hasher(experiment: &str) -> SipHasher24 {
    let mut hasher = SipHasher24::new_with_key(b"mirror-sample-v1");
    hasher.write(experiment.as_bytes());
    hasher.write(&[0]);
    hasher
}
