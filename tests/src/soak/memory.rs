//! Enters: how much memory the agent held, and when. Leaves: whether that grows.

use std::time::Duration;

/// Samples over less time than this say nothing about growth.
const LEAST_SPAN: Duration = Duration::from_secs(60);

/// Growth that the fitted line may show over the whole watch: what an allocator does on a machine with other work.
const TOLERANCE_BYTES: f64 = 4.0 * 1024.0 * 1024.0;

/// Memory of the agent over time.
#[derive(Clone, Debug, Default)]
pub(super) struct Memory {
    samples: Vec<(Duration, u64)>,
}

/// What the samples after warming up say.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Trend {
    pub(super) samples: usize,
    /// Time between the first and the last.
    pub(super) span: Duration,
    /// The most, in bytes.
    pub(super) most: u64,
    /// Slope of the line through the samples, in bytes a minute.
    pub(super) slope_a_minute: f64,
    /// How much the line rises from the first sample to the last, in bytes.
    pub(super) rise: f64,
}

impl Trend {
    /// Whether memory does not grow; `None` where the watch was too short to tell.
    pub(super) fn is_flat(&self) -> Option<bool> {
        (self.span >= LEAST_SPAN).then_some(self.rise <= TOLERANCE_BYTES)
    }
}

impl Memory {
    pub(super) fn note(&mut self, at: Duration, bytes: u64) {
        self.samples.push((at, bytes));
    }

    /// The line through the samples from `warm` on, by least squares; `None` of fewer than three.
    pub(super) fn trend(&self, warm: Duration) -> Option<Trend> {
        let samples: Vec<_> = self.samples.iter().filter(|(at, _)| *at >= warm).collect();
        let ((first, _), (last, _)) = (samples.first()?, samples.last()?);
        if samples.len() < 3 {
            return None;
        }
        let count = samples.len() as f64;
        let mean_time = samples.iter().map(|(at, _)| at.as_secs_f64()).sum::<f64>() / count;
        let mean_bytes = samples.iter().map(|(_, bytes)| *bytes as f64).sum::<f64>() / count;
        let (mut joint, mut spread) = (0.0, 0.0);
        for (at, bytes) in &samples {
            let time = at.as_secs_f64() - mean_time;
            joint += time * (*bytes as f64 - mean_bytes);
            spread += time * time;
        }
        let slope = if spread > 0.0 { joint / spread } else { 0.0 };
        Some(Trend {
            samples: samples.len(),
            span: *last - *first,
            most: samples.iter().map(|(_, bytes)| *bytes).max().unwrap_or(0),
            slope_a_minute: slope * 60.0,
            rise: slope * (*last - *first).as_secs_f64(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Memory;

    #[test]
    fn growth_is_found_behind_noise_and_after_warming_up() {
        let mut memory = Memory::default();
        for second in 0..120_u64 {
            let warming = if second < 30 { second << 20 } else { 30 << 20 };
            memory.note(Duration::from_secs(second), warming + ((second % 3) << 10));
        }
        let from = |warm| memory.trend(Duration::from_secs(warm)).unwrap();

        assert_eq!((from(30).is_flat(), from(30).samples), (Some(true), 90));
        assert_eq!((from(0).is_flat(), from(100).is_flat()), (Some(false), None));
        assert_eq!(memory.trend(Duration::from_secs(118)), None);
    }
}
