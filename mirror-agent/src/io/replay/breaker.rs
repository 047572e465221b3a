//! Enters: how copies to one target ended, and the time. Leaves: whether the next may be sent.
//!
//! Closed, copies flow and their failures are counted. Once the share of failures in the window is too high the breaker
//! opens and nothing flows. After a while one copy is let through, and all depends on it: half-open.

use std::time::Duration;

use crate::{
    io::config::BreakerConfig,
    pipeline::{Timestamp, reason::reasons},
};

reasons! {
    /// Where a circuit breaker stands.
    BreakerState {
        /// Copies flow.
        Closed => "closed",
        /// One copy is under way that tells whether the target is well.
        HalfOpen => "half_open",
        /// Nothing is sent.
        Open => "open",
    }
}

/// Another state than before.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Change {
    pub(super) from: BreakerState,
    pub(super) to: BreakerState,
    /// For how long nothing is sent; zero unless it opens.
    pub(super) open_for: Duration,
}

/// The right to send one copy. Whoever has it says how the copy ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Permit {
    /// The count of changes when it was given: how a copy ends says nothing of a time that is over.
    changes: u64,
}

/// What is known of how copies end.
#[derive(Debug)]
pub(super) struct Breaker {
    config: BreakerConfig,
    phase: Phase,
    window: Window,
    /// Changes of the phase so far.
    changes: u64,
    /// Openings in a row, each too soon after the one before.
    openings: u32,
    /// When it closed last.
    closed_at: Option<Timestamp>,
}

#[derive(Debug)]
enum Phase {
    Closed,
    Open {
        until: Timestamp,
    },
    HalfOpen {
        /// Not once the probe was given up without an end: the next copy is the probe then.
        is_probing: bool,
    },
}

impl Breaker {
    pub(super) fn new(config: BreakerConfig) -> Self {
        Self {
            config,
            phase: Phase::Closed,
            window: Window::new(config.window),
            changes: 0,
            openings: 0,
            closed_at: None,
        }
    }

    pub(super) const fn state(&self) -> BreakerState {
        match self.phase {
            Phase::Closed => BreakerState::Closed,
            Phase::Open { .. } => BreakerState::Open,
            Phase::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }

    /// Whether no copy may be sent at this moment.
    pub(super) fn is_shut(&self, now: Timestamp) -> bool {
        match self.phase {
            Phase::Closed | Phase::HalfOpen { is_probing: false } => false,
            Phase::HalfOpen { is_probing: true } => true,
            Phase::Open { until } => now < until,
        }
    }

    /// Lets a copy through, if it may be sent.
    pub(super) fn ask(&mut self, now: Timestamp) -> Option<(Permit, Option<Change>)> {
        if self.is_shut(now) {
            return None;
        }
        let change = match &mut self.phase {
            Phase::Closed => None,
            Phase::HalfOpen { is_probing } => {
                *is_probing = true;
                None
            }
            Phase::Open { .. } => Some(self.turn(Phase::HalfOpen { is_probing: true }, Duration::ZERO)),
        };
        Some((Permit { changes: self.changes }, change))
    }

    /// Whether a copy that was let through may still be sent.
    pub(super) const fn is_valid(&self, permit: Permit) -> bool {
        self.changes == permit.changes
    }

    /// A copy that was let through has ended.
    pub(super) fn ended(&mut self, permit: Permit, has_failed: bool, now: Timestamp) -> Option<Change> {
        if !self.is_valid(permit) {
            return None;
        }
        match self.phase {
            Phase::Closed => {
                self.window.count(now, has_failed);
                self.window.is_bad(&self.config).then(|| self.open(now))
            }
            Phase::HalfOpen { .. } if has_failed => Some(self.open(now)),
            Phase::HalfOpen { .. } => {
                self.window = Window::new(self.config.window);
                self.closed_at = Some(now);
                Some(self.turn(Phase::Closed, Duration::ZERO))
            }
            Phase::Open { .. } => None,
        }
    }

    /// A copy that was let through was given up, which says nothing of the target.
    pub(super) fn abandoned(&mut self, permit: Permit) {
        if self.is_valid(permit)
            && let Phase::HalfOpen { is_probing } = &mut self.phase
        {
            *is_probing = false;
        }
    }

    /// A copy could not be sent for want of a target. It counts as one that failed.
    pub(super) fn unreachable(&mut self, now: Timestamp) -> Option<Change> {
        if !matches!(self.phase, Phase::Closed) {
            return None;
        }
        self.ended(Permit { changes: self.changes }, true, now)
    }

    fn open(&mut self, now: Timestamp) -> Change {
        // One that was closed for less than the window has not shown that it is well.
        let is_again = match (&self.phase, self.closed_at) {
            (Phase::Closed, None) => false,
            (Phase::Closed, Some(closed_at)) => now.since(closed_at) < self.config.window,
            (Phase::Open { .. } | Phase::HalfOpen { .. }, _) => true,
        };
        self.openings = if is_again { self.openings.saturating_add(1) } else { 0 };
        let open_for = back_off(self.config.open_for, self.openings, now);
        self.turn(Phase::Open { until: now.after(open_for) }, open_for)
    }

    fn turn(&mut self, phase: Phase, open_for: Duration) -> Change {
        let from = self.state();
        self.phase = phase;
        self.changes += 1;
        Change { from, to: self.state(), open_for }
    }
}

/// Doubles with each opening and is drawn out by up to a quarter, so that many agents do not come back in step.
fn back_off(first: Duration, openings: u32, now: Timestamp) -> Duration {
    let full = first.saturating_mul(1 << openings.min(16)).min(LONGEST_OPEN.max(first));
    // The low bits of the clock differ between agents as well as a random number would.
    let jitter = u32::try_from(now.as_nanos() % 1024).unwrap_or(0);
    full + full / 4 * jitter / 1024
}

/// A shadow that was away for hours is found again within minutes, at the price of one failed copy each time.
const LONGEST_OPEN: Duration = Duration::from_secs(300);

/// How the copies of the last while ended.
#[derive(Debug)]
struct Window {
    slot_nanos: u64,
    /// The number of the latest slot of time since the clock's origin.
    latest: u64,
    /// Of each slot, by its number: all copies, and those that failed.
    slots: [(u32, u32); SLOTS],
    all: u32,
    failed: u32,
}

impl Window {
    fn new(length: Duration) -> Self {
        let nanos = u64::try_from(length.as_nanos()).unwrap_or(u64::MAX);
        let slot_nanos = (nanos / SLOTS as u64).max(1);
        Self { slot_nanos, latest: 0, slots: [(0, 0); SLOTS], all: 0, failed: 0 }
    }

    fn count(&mut self, now: Timestamp, has_failed: bool) {
        let number = (now.as_nanos() / self.slot_nanos).max(self.latest);
        for passed in self.latest + 1..=number.min(self.latest + SLOTS as u64) {
            let (all, failed) = std::mem::take(self.slot(passed));
            self.all -= all;
            self.failed -= failed;
        }
        self.latest = number;
        let slot = self.slot(number);
        // A share of hundreds of millions of copies is known well enough.
        if slot.0 < u32::MAX / SLOTS as u32 {
            slot.0 += 1;
            slot.1 += u32::from(has_failed);
            self.all += 1;
            self.failed += u32::from(has_failed);
        }
    }

    fn slot(&mut self, number: u64) -> &mut (u32, u32) {
        let index = usize::try_from(number % SLOTS as u64).unwrap_or(0);
        &mut self.slots[index]
    }

    fn is_bad(&self, config: &BreakerConfig) -> bool {
        let failed = f64::from(self.failed);
        failed > 0.0 && self.all >= config.min_requests && failed >= config.error_ratio * f64::from(self.all)
    }
}

/// The window moves on by these parts of its length.
const SLOTS: usize = 10;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CONFIG: BreakerConfig = BreakerConfig {
        error_ratio: 0.5,
        window: Duration::from_secs(10),
        min_requests: 4,
        open_for: Duration::from_secs(30),
    };

    /// What is done to a breaker, and what is seen of it.
    #[derive(Clone, Copy, Debug)]
    enum Step {
        /// Some milliseconds pass.
        Pass(u64),
        /// Copies are let through and end well.
        Well(u32),
        /// Copies are let through and fail.
        Fail(u32),
        /// Copies are dropped for want of a target.
        Unreachable(u32),
        /// The next copy is let through, and stays under way.
        Probe,
        /// It is not.
        Shut,
        /// That copy ends well, fails, or is given up.
        ProbeWell,
        ProbeFails,
        ProbeGivenUp,
        Expect(BreakerState),
    }

    fn play(steps: &[Step]) {
        use Step::*;
        let mut breaker = Breaker::new(CONFIG);
        // A multiple of 1,024 ns: no jitter.
        let mut now = Timestamp::from_nanos(1_024_000_000_000);
        let mut probe = None;
        for (index, step) in steps.iter().enumerate() {
            let said = format!("step {index}, {step:?}, of {steps:?}");
            match step {
                Pass(millis) => now = now.after(Duration::from_millis(*millis)),
                Well(count) | Fail(count) => {
                    for _ in 0..*count {
                        let (permit, _) = breaker.ask(now).expect(&said);
                        breaker.ended(permit, matches!(step, Fail(_)), now);
                    }
                }
                Unreachable(count) => {
                    for _ in 0..*count {
                        breaker.unreachable(now);
                    }
                }
                Probe => probe = Some(breaker.ask(now).expect(&said).0),
                Shut => assert!(breaker.is_shut(now) && breaker.ask(now).is_none(), "{said}"),
                ProbeWell => {
                    assert!(breaker.ended(probe.take().expect(&said), false, now).is_some(), "{said}")
                }
                ProbeFails => {
                    assert!(breaker.ended(probe.take().expect(&said), true, now).is_some(), "{said}")
                }
                ProbeGivenUp => breaker.abandoned(probe.take().expect(&said)),
                Expect(state) => assert_eq!(breaker.state(), *state, "{said}"),
            }
        }
    }

    #[test]
    fn table_of_transitions() {
        use BreakerState::*;
        use Step::*;
        // Too few to judge by; then just enough, and just bad enough.
        play(&[Fail(3), Expect(Closed), Fail(1), Expect(Open), Shut]);
        play(&[Well(4), Fail(3), Expect(Closed), Fail(1), Expect(Open)]);
        play(&[Fail(2), Well(1), Expect(Closed), Well(1), Expect(Open)]);
        play(&[Unreachable(4), Expect(Open), Unreachable(9), Expect(Open)]);
        // What is older than the window counts no more.
        play(&[Fail(3), Pass(11_000), Fail(3), Expect(Closed)]);
        play(&[Well(90), Pass(5000), Fail(40), Expect(Closed), Pass(6000), Fail(1), Expect(Open)]);
        // Open until it is time; then one probe and no more.
        play(&[Fail(4), Pass(29_999), Shut, Expect(Open), Pass(1), Probe, Expect(HalfOpen), Shut]);
        play(&[Fail(4), Pass(30_000), Probe, ProbeWell, Expect(Closed), Fail(3), Expect(Closed)]);
        play(&[Fail(4), Pass(30_000), Probe, ProbeGivenUp, Expect(HalfOpen), Probe, Shut]);
        // Twice as long each time that it fails again.
        let again = [Fail(4), Pass(30_000), Probe, ProbeFails, Expect(Open), Pass(59_999), Shut, Pass(1)];
        play(&[&again[..], &[Probe, ProbeFails, Pass(119_999), Shut, Pass(1), Probe]].concat());
        // As one that fails soon after it closed; one that was well for a window begins anew.
        let closed = [Fail(4), Pass(30_000), Probe, ProbeWell];
        play(&[&closed[..], &[Fail(4), Expect(Open), Pass(59_999), Shut, Pass(1), Probe]].concat());
        play(
            &[&closed[..], &[Pass(10_000), Fail(4), Expect(Open), Pass(29_999), Shut, Pass(1), Probe]]
                .concat(),
        );
    }

    #[test]
    fn end_of_a_copy_of_another_time_says_nothing() {
        let mut breaker = Breaker::new(CONFIG);
        let now = Timestamp::from_nanos(1024);
        let early: Vec<_> = (0..9).map(|_| breaker.ask(now).unwrap().0).collect();
        for permit in &early[..4] {
            breaker.ended(*permit, true, now);
        }
        assert_eq!(breaker.state(), BreakerState::Open);
        assert_eq!(breaker.ended(early[4], false, now), None);
        let later = now.after(CONFIG.open_for);
        let (probe, change) = breaker.ask(later).unwrap();
        assert_eq!(change.unwrap().to, BreakerState::HalfOpen);
        assert_eq!(breaker.ended(early[5], true, later), None);
        breaker.abandoned(early[6]);
        assert!(breaker.is_shut(later), "the probe is still out");
        assert_eq!(breaker.ended(probe, false, later).unwrap().to, BreakerState::Closed);
        assert_eq!(breaker.ended(early[7], true, later), None);
        assert!(!breaker.is_valid(early[8]) && !breaker.is_valid(probe));
    }

    #[test]
    fn back_off_doubles_to_a_limit_and_is_drawn_out_by_a_quarter_at_most() {
        let first = Duration::from_secs(30);
        for (openings, seconds) in [(0, 30), (1, 60), (3, 240), (4, 300), (40, 300)] {
            let least = Duration::from_secs(seconds);
            for nanos in [0, 1, 700, 1023] {
                let back_off = back_off(first, openings, Timestamp::from_nanos(nanos));
                assert!(back_off >= least && back_off < least * 5 / 4, "{openings}: {back_off:?}");
            }
        }
        assert_eq!(back_off(Duration::from_secs(900), 3, Timestamp::ZERO), Duration::from_secs(900));
    }

    proptest! {
        #[test]
        fn never_more_than_one_probe_and_never_open_below_the_least_number(
            steps in prop::collection::vec((0..5_u8, 0..4_000_u64, any::<bool>()), 1..400),
            min_requests in 0..8_u32,
        ) {
            let config = BreakerConfig { min_requests, open_for: Duration::from_secs(2), ..CONFIG };
            let mut breaker = Breaker::new(config);
            let mut now = Timestamp::from_nanos(5_000_000_000);
            // Those under way, with the state in which each was let through.
            let mut under_way: Vec<(Permit, BreakerState)> = Vec::new();
            // When copies ended that were let through since it last closed.
            let mut ends: Vec<Timestamp> = Vec::new();
            for (action, millis, has_failed) in steps {
                now = now.after(Duration::from_millis(millis / 8));
                let before = breaker.state();
                let change = match action {
                    0 | 1 => {
                        let asked = breaker.ask(now);
                        prop_assert!(asked.is_some() || before != BreakerState::Closed);
                        asked.and_then(|(permit, change)| {
                            under_way.push((permit, breaker.state()));
                            change
                        })
                    }
                    2 | 3 if !under_way.is_empty() => {
                        let (permit, _) = under_way.remove(millis as usize % under_way.len());
                        if breaker.is_valid(permit) && before == BreakerState::Closed {
                            ends.push(now);
                        }
                        breaker.ended(permit, has_failed, now)
                    }
                    4 if !under_way.is_empty() => {
                        let (permit, _) = under_way.remove(millis as usize % under_way.len());
                        breaker.abandoned(permit);
                        None
                    }
                    _ => None,
                };
                if change.is_some_and(|change| change.to == BreakerState::Open) && before == BreakerState::Closed {
                    let recent = ends.iter().filter(|end| now.since(**end) <= config.window).count();
                    prop_assert!(recent >= min_requests as usize, "{recent} of {min_requests}");
                }
                if breaker.state() != before {
                    ends.clear();
                }
                let is_probe = |(permit, state): &&(Permit, BreakerState)| {
                    *state == BreakerState::HalfOpen && breaker.is_valid(*permit)
                };
                prop_assert!(under_way.iter().filter(is_probe).count() <= 1);
                prop_assert_eq!(change.is_some(), breaker.state() != before);
            }
        }
    }
}
