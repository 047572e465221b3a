//! Enters: warnings and errors. Leaves: of those that repeat, the first at once and then one a minute, which says how many
//! were held back.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, Hash, Hasher as _, RandomState},
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::line::Line;

/// How long nothing more is written of a kind after one of it was.
const PERIOD: Duration = Duration::from_secs(60);

/// Kinds that are remembered. Where there are more, those of one place in the program count as one kind; of places there
/// are some hundred.
const KINDS: usize = 256;

/// Fields that tell apart what one place in the program says of one thing from what it says of another. The others, as
/// errors and numbers, may be different each time.
const SUBJECTS: [&str; 9] =
    ["experiment", "hook", "interface", "interfaces", "kind", "path", "sink", "target", "worker"];

/// What is to be done with a line.
#[derive(Debug)]
pub(super) enum Ruling {
    /// It is to be written, as it is here.
    Write(Line),
    /// It is held back.
    HoldBack,
}

/// What was written of late. Its lock is held for a look at one table.
#[derive(Debug, Default)]
pub(super) struct Limiter {
    hasher: RandomState,
    kinds: Mutex<HashMap<u64, Kind>>,
}

/// Lines that say the same of the same thing.
#[derive(Debug)]
struct Kind {
    written_at: Instant,
    held_back: u64,
    /// The last that was held back.
    last: Option<Line>,
}

impl Limiter {
    /// Judges a line of one place in the program.
    pub(super) fn rule(&self, place: impl Hash, line: Line, now: Instant) -> Ruling {
        let mut hasher = self.hasher.build_hasher();
        place.hash(&mut hasher);
        let of_place = hasher.finish();
        line.values_of(&SUBJECTS).for_each(|subject| subject.hash(&mut hasher));
        let of_subject = hasher.finish();

        let mut kinds = self.lock();
        let is_room = kinds.len() < KINDS || kinds.contains_key(&of_subject) || {
            kinds.retain(|_, kind| kind.held_back > 0 || !kind.is_over(now));
            kinds.len() < KINDS
        };
        let key = if is_room { of_subject } else { of_place };
        let kind = kinds.entry(key).or_insert_with(|| Kind::due(now));
        if kind.is_over(now) {
            kind.written_at = now;
            kind.last = None;
            Ruling::Write(line.with_suppressed(mem::take(&mut kind.held_back)))
        } else {
            kind.held_back = kind.held_back.saturating_add(1);
            kind.last = Some(line);
            Ruling::HoldBack
        }
    }

    /// Of each kind of which some were held back, and none came since its minute was over, the last; with how many there
    /// were beside it.
    pub(super) fn overdue(&self, now: Instant) -> Vec<Line> {
        self.take_held(|kind| kind.is_over(now), now)
    }

    /// The same of all kinds, for the end.
    pub(super) fn rest(&self, now: Instant) -> Vec<Line> {
        self.take_held(|_| true, now)
    }

    fn take_held(&self, is_wanted: impl Fn(&Kind) -> bool, now: Instant) -> Vec<Line> {
        let mut kinds = self.lock();
        let wanted = kinds.values_mut().filter(|kind| is_wanted(kind));
        wanted
            .filter_map(|kind| {
                let line = kind.last.take()?;
                kind.written_at = now;
                Some(line.with_suppressed(mem::take(&mut kind.held_back).saturating_sub(1)))
            })
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Kind>> {
        // Whoever panicked in here left a kind as it was or as it was to be.
        self.kinds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kind {
    /// One of which nothing was written yet.
    fn due(now: Instant) -> Self {
        let written_at = now.checked_sub(PERIOD).unwrap_or(now);
        Self { written_at, held_back: 0, last: None }
    }

    fn is_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.written_at) >= PERIOD
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use tracing::Level;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn line(subject: &str) -> Line {
        Line::new("x", Level::WARN, "Something.", SystemTime::UNIX_EPOCH).with_field("target", subject)
    }

    /// What is written of it: how many it says were held back.
    fn written(ruling: Ruling) -> Option<u64> {
        match ruling {
            Ruling::Write(line) => Some(line.suppressed()),
            Ruling::HoldBack => None,
        }
    }

    #[test]
    fn first_is_written_at_once_and_then_one_a_minute_with_the_count() {
        let (limiter, start) = (Limiter::default(), Instant::now());
        let at = |second: u32| written(limiter.rule(1, line("a"), start + second * SECOND));
        assert_eq!([at(0), at(1), at(30), at(59)], [Some(0), None, None, None]);
        assert_eq!([at(60), at(61), at(121)], [Some(3), None, Some(1)]);
        assert_eq!(at(500), Some(0));
    }

    #[test]
    fn other_subjects_and_other_places_are_other_kinds() {
        let (limiter, now) = (Limiter::default(), Instant::now());
        let ruled = [(1, "a"), (1, "b"), (2, "a"), (1, "a")]
            .map(|(place, subject)| written(limiter.rule(place, line(subject), now)));
        assert_eq!(ruled, [Some(0), Some(0), Some(0), None]);
    }

    #[test]
    fn what_was_held_back_is_told_though_nothing_follows() {
        let (limiter, start) = (Limiter::default(), Instant::now());
        for _ in 0..5 {
            limiter.rule(1, line("a"), start);
        }
        assert!(limiter.overdue(start + 59 * SECOND).is_empty());
        let told = limiter.overdue(start + 60 * SECOND);
        // The one that is written, and three beside it.
        assert_eq!(told.iter().map(Line::suppressed).collect::<Vec<_>>(), [3]);
        assert!(limiter.overdue(start + 200 * SECOND).is_empty());
        assert_eq!(written(limiter.rule(1, line("a"), start + 70 * SECOND)), None);
        assert_eq!(limiter.rest(start + 70 * SECOND).len(), 1);
    }

    #[test]
    fn more_subjects_than_are_remembered_count_as_one_and_old_ones_make_room() {
        let (limiter, start) = (Limiter::default(), Instant::now());
        let rule = |subject: usize, second: u32| {
            written(limiter.rule(1, line(&subject.to_string()), start + second * SECOND))
        };
        assert!((0..KINDS).all(|subject| rule(subject, 0) == Some(0)));
        let beyond = (KINDS..KINDS + 1000).filter(|subject| rule(*subject, 1).is_some()).count();
        assert_eq!((beyond, limiter.lock().len()), (1, KINDS + 1));
        assert_eq!(rule(5000, 61), Some(0));
        assert!(limiter.lock().len() <= 2);
    }
}
