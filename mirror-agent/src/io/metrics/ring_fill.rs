//! Enters: how full a ring is, round by round. Leaves: how full it was at most in the last minute, whoever asks how often.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use crate::pipeline::Timestamp;

/// The highest fill of a ring in each slot of the last minute. One thread notes, any number read, and nothing is taken away by
/// reading: two scrapers see the same.
#[derive(Debug, Default)]
pub struct RingFill([AtomicU64; SLOTS]);

/// The length of a slot: the minute is one of at most so much more.
const SLOT: Duration = Duration::from_secs(5);

/// The slots that make the minute. Scrapers come twice a minute at the least, as a rule.
const MINUTE: u64 = 60 / SLOT.as_secs();

/// Those, and the one that goes on.
const SLOTS: usize = 13;

/// The bits of a slot that hold the fill in millionths. Those above are its number, which begins with the machine.
const FILL_BITS: u32 = 20;

impl RingFill {
    /// Notes how full the ring is, 0 to 1.
    pub fn note(&self, ratio: f64, now: Timestamp) {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 1,000,000")]
        let fill = (ratio.clamp(0.0, 1.0) * MILLION) as u64;
        let number = number(now);
        let entry = number << FILL_BITS | fill;
        // An older one in its place has a lower number, so that the later one is the higher as well.
        if let Some(slot) = usize::try_from(number).ok().and_then(|number| self.0.get(number % SLOTS)) {
            slot.fetch_max(entry, Ordering::Relaxed);
        }
    }

    /// The highest that was noted in the last minute, 0 to 1.
    #[must_use]
    pub fn highest(&self, now: Timestamp) -> f64 {
        let oldest = number(now).saturating_sub(MINUTE);
        let entries = self.0.iter().map(|slot| slot.load(Ordering::Relaxed));
        let recent = entries.filter(|entry| entry >> FILL_BITS >= oldest);
        let highest = recent.map(|entry| entry & ((1 << FILL_BITS) - 1)).max().unwrap_or_default();
        f64::from(u32::try_from(highest).unwrap_or_default()) / MILLION
    }
}

const MILLION: f64 = 1e6;

/// Which slot a moment is in, counted from the first.
fn number(at: Timestamp) -> u64 {
    at.since(Timestamp::ZERO).as_secs() / SLOT.as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(secs: u64) -> Timestamp {
        Timestamp::from_nanos(secs * 1_000_000_000)
    }

    #[test]
    fn peak_is_told_for_a_minute_to_whoever_asks() {
        let fill = RingFill::default();
        assert_eq!(fill.highest(at(1_000_000)), 0.0);
        fill.note(0.25, at(1_000_002));
        fill.note(0.75, at(1_000_003));
        fill.note(0.5, at(1_000_004));
        for secs in [4, 4, 30, 60] {
            assert_eq!(fill.highest(at(1_000_000 + secs)), 0.75, "{secs}");
        }
        fill.note(0.125, at(1_000_050));
        assert_eq!(fill.highest(at(1_000_066)), 0.125);
        assert_eq!(fill.highest(at(1_000_200)), 0.0);
    }

    #[test]
    fn full_ring_is_a_fill_of_one_and_nothing_is_more() {
        let fill = RingFill::default();
        fill.note(7.0, at(1));
        assert_eq!(fill.highest(at(1)), 1.0);
    }
}
