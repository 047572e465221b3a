//! Enters: nothing. Leaves: the bugs that can be seeded, and counts of what they did.

use std::sync::atomic::{AtomicU64, Ordering};

/// A bug of the new version.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Bug {
    /// Halves at the fourth decimal are rounded to the even digit instead of up.
    Rounding,
    /// A field is missing from an order in a hundred, which is 0.3 % of all requests.
    MissingField,
    /// A number became a string, on one endpoint.
    TypeChange,
    /// Two results of a search have changed places, in one search of ten.
    Reordered,
    /// One rare path is answered with an error.
    WrongStatus,
    /// A header field is lost from one product of forty.
    HeaderLost,
    /// The slowest tenth of all answers takes 20 % longer.
    SlowTail,
}

impl Bug {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Rounding,
        Self::MissingField,
        Self::TypeChange,
        Self::Reordered,
        Self::WrongStatus,
        Self::HeaderLost,
        Self::SlowTail,
    ];

    /// Its name in tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rounding => "rounding at the fourth decimal",
            Self::MissingField => "missing field for 0.3 % of requests",
            Self::TypeChange => "number became a string",
            Self::Reordered => "reordered list",
            Self::WrongStatus => "wrong status for one rare path",
            Self::HeaderLost => "header lost",
            Self::SlowTail => "slower by 20 % at p95 only",
        }
    }

    /// How the endpoint that has it begins, and what its paths contain. `None` where it is not in the answers.
    #[must_use]
    pub const fn place(self) -> Option<(&'static str, &'static [&'static str])> {
        match self {
            Self::Rounding => Some(("POST /quotes", &["$.tax", "$.total"])),
            Self::MissingField => Some(("GET /orders/", &["$.delivery.carrier"])),
            Self::TypeChange => Some(("GET /loyalty/", &["$.points"])),
            Self::Reordered => Some(("GET /products/search", &["$.results"])),
            Self::WrongStatus => Some(("GET /shipping/", &["status"])),
            Self::HeaderLost => Some(("GET /products/", &["header:cache-control"])),
            Self::SlowTail => None,
        }
    }

    /// Whether a divergence at this endpoint and templated path is this bug's doing.
    #[must_use]
    pub fn is_at(self, endpoint: &str, path: &str) -> bool {
        self.place().is_some_and(|(place, _)| endpoint.starts_with(place)) && self.is_path(path)
    }

    /// Whether a divergence there may be this bug's doing, though it would not name it: a result that has moved has another
    /// score, and scores are noise besides.
    #[must_use]
    pub fn may_be_at(self, endpoint: &str, path: &str) -> bool {
        let moved = self == Self::Reordered
            && endpoint.starts_with("GET /products/search")
            && path.starts_with("$.results[");
        moved || self.is_at(endpoint, path)
    }

    /// Whether a path names it, at whatever endpoint.
    #[must_use]
    pub fn is_path(self, path: &str) -> bool {
        let Some((_, paths)) = self.place() else { return false };
        // What a list is of may be told instead of the list, but for what is noise there.
        let is_there = |known: &&str| path == *known || path.starts_with(&format!("{known}["));
        paths.iter().any(is_there) && !path.ends_with(".score")
    }

    /// Its place in tables of counts.
    fn index(self) -> usize {
        Self::ALL.iter().position(|bug| *bug == self).unwrap_or(0)
    }
}

/// The bugs that a server has.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Bugs(u8);

impl Bugs {
    /// No bug.
    pub const NONE: Self = Self(0);

    /// Every bug.
    #[must_use]
    pub fn all() -> Self {
        Bug::ALL.into_iter().fold(Self::NONE, Self::with)
    }

    /// These and one more.
    #[must_use]
    pub fn with(self, bug: Bug) -> Self {
        Self(self.0 | 1 << bug.index())
    }

    /// Whether this one is among them.
    #[must_use]
    pub fn has(self, bug: Bug) -> bool {
        self.0 & (1 << bug.index()) != 0
    }
}

/// Answers that bugs have changed.
#[derive(Debug, Default)]
pub(super) struct Tally([AtomicU64; Bug::ALL.len()]);

impl Tally {
    /// Notes that a bug has changed an answer.
    pub(super) fn note(&self, bug: Bug) {
        if let Some(count) = self.0.get(bug.index()) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many answers a bug has changed.
    pub(super) fn of(&self, bug: Bug) -> u64 {
        self.0.get(bug.index()).map_or(0, |count| count.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_hold_what_was_put_in() {
        let bugs = Bugs::NONE.with(Bug::Reordered).with(Bug::SlowTail);
        assert!(bugs.has(Bug::Reordered) && bugs.has(Bug::SlowTail) && !bugs.has(Bug::Rounding));
        assert!(Bug::ALL.into_iter().all(|bug| Bugs::all().has(bug)));
    }

    #[test]
    fn bugs_are_known_by_endpoint_and_path() {
        assert!(Bug::Reordered.is_at("GET /products/search", "$.results"));
        assert!(Bug::Reordered.is_at("GET /products/search", "$.results[].sku"));
        assert!(!Bug::Reordered.is_at("GET /products/search", "$.results[].score"));
        assert!(Bug::Reordered.may_be_at("GET /products/search", "$.results[].score"));
        assert!(Bug::HeaderLost.is_at("GET /products/{sku}", "header:cache-control"));
        assert!(!Bug::MissingField.is_at("GET /orders", "$.delivery.carrier"));
    }
}
