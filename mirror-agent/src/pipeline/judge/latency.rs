//! Enters: when answers began and ended. Leaves: how long they take, as quantiles.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    sketch::{Bin, Sketch},
    tally::{Clock, Ring},
};
use crate::pipeline::{
    Answered, Timing,
    reason::{UntimedReason, reasons},
    stats::bump,
};

reasons! {
    /// Whose answer.
    Of {
        /// Live's.
        Live => "live",
        /// The shadow's.
        Shadow => "shadow",
        /// The control's.
        Control => "control",
    }
}

reasons! {
    /// Up to which byte of an answer time is taken.
    Phase {
        /// The first.
        First => "first_byte",
        /// The last.
        Last => "last_byte",
    }
}

/// Of live, shadow and control.
type Sketches = [Sketch; Of::ALL.len()];

/// How long the answers of one endpoint take. Only exchanges count of which the shadow's answer and the one it is
/// held against are timed, so that both stand for the same requests.
#[derive(Clone, Debug, Default)]
pub(super) struct Latency {
    first: Sketches,
    last: Sketches,
    /// Of the last byte, within the window.
    recent: Option<Ring<Sketches>>,
    /// Exchanges that are left out, by [`UntimedReason`].
    pub(super) untimed: [u64; UntimedReason::ALL.len()],
    /// The smallest round trips that were subtracted.
    pub(super) round_trips: [Option<Duration>; Of::ALL.len()],
}

/// The answers to one request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answers<'a> {
    pub(super) live: &'a Answered,
    pub(super) shadow: &'a Answered,
    pub(super) control: Option<&'a Answered>,
    /// Whether the shadow is held against the control.
    pub(super) by_control: bool,
}

impl Answers<'_> {
    pub(super) fn of(&self, of: Of) -> Option<&Answered> {
        match of {
            Of::Live => Some(self.live),
            Of::Shadow => Some(self.shadow),
            Of::Control => self.control,
        }
    }

    /// Whom the shadow is held against.
    pub(super) const fn baseline(&self) -> Of {
        if self.by_control { Of::Control } else { Of::Live }
    }

    fn timing(&self, of: Of) -> Option<Result<Timing, UntimedReason>> {
        self.of(of).and_then(Answered::timing)
    }
}

impl Latency {
    pub(super) fn observe(&mut self, answers: Answers<'_>, clock: Clock) {
        match (answers.timing(Of::Shadow), answers.timing(answers.baseline())) {
            (Some(Ok(_)), Some(Ok(_))) => {}
            (Some(Err(reason)), Some(_)) | (Some(_), Some(Err(reason))) => {
                return bump(&mut self.untimed, reason.index(), 1);
            }
            // There is no answer that could take time.
            (None, _) | (_, None) => return,
        }
        for of in Of::ALL {
            let Some(Ok(timing)) = answers.timing(of) else { continue };
            let at = of.index();
            let (first, last) = (bin(timing.to_first_byte()), bin(timing.to_last_byte()));
            if let (Some(first_sketch), Some(last_sketch)) = (self.first.get_mut(at), self.last.get_mut(at)) {
                first_sketch.add(first);
                last_sketch.add(last);
            }
            if let Some(slot) = clock.slot() {
                let recent = Ring::in_place(&mut self.recent, slot).at(slot);
                if let Some(sketch) = recent.and_then(|sketches| sketches.get_mut(at)) {
                    sketch.add(last);
                }
            }
            if let Some(least) = self.round_trips.get_mut(at) {
                *least = Some(least.map_or(timing.round_trip, |least| least.min(timing.round_trip)));
            }
        }
    }

    pub(super) fn sketch(&self, of: Of, phase: Phase) -> Option<&Sketch> {
        match phase {
            Phase::First => self.first.get(of.index()),
            Phase::Last => self.last.get(of.index()),
        }
    }

    /// What counts for a verdict: times to the last byte, within the window where there is one.
    pub(super) fn current(&self, of: Of, clock: Clock) -> Sketch {
        let Some(slot) = clock.slot() else {
            return self.sketch(of, Phase::Last).cloned().unwrap_or_default();
        };
        let mut sum = Sketch::default();
        for (_, sketches) in self.recent.iter().flat_map(|ring| ring.window(slot)) {
            if let Some(sketch) = sketches.get(of.index()) {
                sum.merge(sketch);
            }
        }
        sum
    }

    /// The same as it travels.
    pub(super) fn portion(&self, clock: Clock) -> LatencyPortion {
        LatencyPortion {
            first: self.first.clone(),
            last: self.last.clone(),
            // Without a window it is all of them.
            recent: clock.slot().map(|_| Of::ALL.map(|of| self.current(of, clock))),
            untimed: self.untimed,
            round_trips: self.round_trips.map(|time| time.map(nanos)),
        }
    }

    /// What has travelled: what was in the window elsewhere is so here at the time of `clock`.
    pub(super) fn of(portion: LatencyPortion, clock: Clock) -> Self {
        let mut recent = None;
        if let (Some(slot), Some(sketches)) = (clock.slot(), portion.recent)
            && let Some(entry) = Ring::in_place(&mut recent, slot).at(slot)
        {
            *entry = sketches;
        }
        Self {
            first: portion.first,
            last: portion.last,
            recent,
            untimed: portion.untimed,
            round_trips: portion.round_trips.map(|time| time.map(Duration::from_nanos)),
        }
    }

    /// Adds what another endpoint took.
    pub(super) fn merge(&mut self, other: &Self) {
        merge(&mut self.first, &other.first);
        merge(&mut self.last, &other.last);
        if let Some(theirs) = &other.recent {
            let slot = theirs.latest();
            let mine = Ring::in_place(&mut self.recent, slot);
            mine.merge(theirs, merge);
        }
        for (index, count) in other.untimed.into_iter().enumerate() {
            bump(&mut self.untimed, index, count);
        }
        for (mine, theirs) in self.round_trips.iter_mut().zip(other.round_trips) {
            *mine = match (*mine, theirs) {
                (Some(mine), Some(theirs)) => Some(mine.min(theirs)),
                (one, None) | (None, one) => one,
            };
        }
    }
}

/// How long the answers of one endpoint take, in a form that adds up.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LatencyPortion {
    first: Sketches,
    last: Sketches,
    recent: Option<Sketches>,
    untimed: [u64; UntimedReason::ALL.len()],
    /// In nanoseconds.
    round_trips: [Option<u64>; Of::ALL.len()],
}

/// Adds the sketches of another place to those of one.
fn merge(mine: &mut Sketches, theirs: &Sketches) {
    mine.iter_mut().zip(theirs).for_each(|(mine, theirs)| mine.merge(theirs));
}

impl LatencyPortion {
    pub(super) fn merge(&mut self, other: &Self) {
        merge(&mut self.first, &other.first);
        merge(&mut self.last, &other.last);
        if let Some(theirs) = &other.recent {
            merge(self.recent.get_or_insert_default(), theirs);
        }
        for (index, count) in other.untimed.into_iter().enumerate() {
            bump(&mut self.untimed, index, count);
        }
        for (mine, theirs) in self.round_trips.iter_mut().zip(other.round_trips) {
            *mine = [*mine, theirs].into_iter().flatten().min();
        }
    }

    /// Bytes of memory that it takes, about.
    pub(super) fn bytes(&self) -> usize {
        let all = self.first.iter().chain(&self.last).chain(self.recent.iter().flatten());
        all.fold(size_of::<Self>(), |sum, sketch| sum.saturating_add(sketch.bytes()))
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn bin(time: Duration) -> Bin {
    Bin::of(time.as_secs_f64())
}
