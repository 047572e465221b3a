//! Enters: an agent that answers. Leaves: how it is at one moment, and how fast that changes.

use std::time::Instant;

use serde_json::Value;

use crate::io::{
    control::{
        Counted, State,
        ctl::{CtlError, PlaceArgs, ask, parse},
    },
    fleet::View,
};

/// What was read at one moment.
#[derive(Clone, Debug)]
pub(super) enum Reading {
    /// One agent, and its report.
    One(Box<State>, Value),
    /// All agents.
    Fleet(Box<View>),
}

/// Asks for how things are.
pub(super) fn read(place: &PlaceArgs, fleet: bool) -> Result<Reading, CtlError> {
    if fleet {
        return Ok(Reading::Fleet(Box::new(parse(&ask::<()>(place, "GET", "/v1/fleet", None)?)?)));
    }
    let state = parse(&ask::<()>(place, "GET", "/v1/state", None)?)?;
    let report = parse(&ask::<()>(place, "GET", "/v1/report", None)?)?;
    Ok(Reading::One(Box::new(state), report))
}

/// The latest two readings.
#[derive(Clone, Debug, Default)]
pub(super) struct Readings {
    before: Option<(Reading, Instant)>,
    latest: Option<(Reading, Instant)>,
}

impl Readings {
    /// Adds one that was read at this time.
    pub(super) fn push(&mut self, reading: Reading, at: Instant) {
        self.before = self.latest.replace((reading, at));
    }

    /// The latest, and when it was read; `None` where there is none.
    pub(super) fn latest(&self) -> Option<(&Reading, Instant)> {
        self.latest.as_ref().map(|(reading, at)| (reading, *at))
    }

    /// The one before it, and the seconds between the two.
    pub(super) fn before(&self) -> Option<(&Reading, f64)> {
        let (before, begun) = self.before.as_ref()?;
        let (_, ended) = self.latest.as_ref()?;
        Some((before, ended.duration_since(*begun).as_secs_f64()))
    }
}

/// How often something happens in a second; nothing is known of an agent that was not there before, or has begun anew.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    pub(super) seconds: f64,
}

impl Pace {
    /// The rate at which a count went from `before` to `after`.
    pub(super) fn of(self, before: Option<u64>, after: u64) -> Option<f64> {
        let grown = after.checked_sub(before?)?;
        (self.seconds > 0.0).then(|| grown as f64 / self.seconds)
    }

    /// The labels that happened most, with their rates.
    pub(super) fn of_labels<'c>(self, before: Option<&Counted>, after: &'c Counted) -> Vec<(&'c str, f64)> {
        let rate = |(label, count): (&'c String, &u64)| {
            let before = before?.get(label).copied().unwrap_or_default();
            Some((label.as_str(), self.of(Some(before), *count)?)).filter(|(_, rate)| *rate > 0.0)
        };
        let mut rates: Vec<_> = after.iter().filter_map(rate).collect();
        rates.sort_by(|(_, one), (_, other)| other.total_cmp(one));
        rates
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_known_of_what_went_on() {
        let pace = Pace { seconds: 2.0 };
        assert_eq!(pace.of(Some(10), 30), Some(10.0));
        assert_eq!(pace.of(None, 30), None);
        assert_eq!(pace.of(Some(30), 10), None, "it has begun anew");
        assert_eq!(Pace { seconds: 0.0 }.of(Some(1), 2), None);
        let counted = |counts: &[(&str, u64)]| -> Counted {
            counts.iter().map(|(label, count)| ((*label).to_owned(), *count)).collect()
        };
        let (before, after) = (counted(&[("a", 1), ("b", 5)]), counted(&[("a", 3), ("b", 5), ("c", 8)]));
        assert_eq!(pace.of_labels(Some(&before), &after), [("c", 4.0), ("a", 1.0)]);
        assert!(pace.of_labels(None, &after).is_empty());
    }
}
