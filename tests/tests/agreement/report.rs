//! Enters: what was expected of a frame, and what came. Leaves: the disagreement, so that it can be had again.

use std::fmt::{self, Display, Formatter};

use mirror_common::Counter;

use crate::model::{Passing, Rules, Verdict};

/// Disagreements after which a run has seen enough.
pub(crate) const ENOUGH: usize = 5;

/// A frame about which the two disagree.
pub(crate) struct Disagreement {
    /// Where the frame passed.
    pub(crate) hook: String,
    /// The run's seed.
    pub(crate) seed: u64,
    /// How many frames came before it.
    pub(crate) number: u64,
    /// The frame, made as small as it goes.
    pub(crate) frame: Passing,
    pub(crate) rules: Rules,
    pub(crate) expected: Verdict,
    pub(crate) found: Verdict,
}

impl Display for Disagreement {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { hook, seed, number, frame, rules, expected, found } = self;
        writeln!(f, "frame {number} of seed {seed} at {hook}, {} bytes", frame.bytes.len())?;
        writeln!(f, "  begins with {:?}, offloaded tag {:?}, mark {}", frame.start, frame.tag, frame.mark)?;
        writeln!(f, "  {:?}", rules.config)?;
        writeln!(f, "  expected: {}", said(expected))?;
        writeln!(f, "  found:    {}", said(found))?;
        writeln!(f, "  for text2pcap:")?;
        for (index, row) in frame.bytes.chunks(16).enumerate() {
            let hex: Vec<_> = row.iter().map(|byte| format!("{byte:02x}")).collect();
            writeln!(f, "{:06x} {}", index * 16, hex.join(" "))?;
        }
        writeln!(f, "{:06x}", frame.bytes.len())
    }
}

/// A verdict in words.
fn said(verdict: &Verdict) -> String {
    let counted: Vec<_> = Counter::ALL
        .into_iter()
        .zip(verdict.counts)
        .filter(|(_, count)| *count != 0)
        .map(|(counter, count)| format!("{counter:?} {count}"))
        .collect();
    let mut text = format!("{} records, counted [{}]", verdict.records.len(), counted.join(", "));
    for (ring, header, payload) in &verdict.records {
        text +=
            &format!("\n    ring {ring} {header:?}, {} bytes from {:02x?}", payload.len(), payload.get(..8));
    }
    text
}

/// What came of a run's frames.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) frames: u64,
    /// Frames that the kernel did not let in.
    pub(crate) refused: u64,
    /// Frames that files are searched deeper in than packets.
    pub(crate) deeper: u64,
    pub(crate) records: u64,
    /// Frames that left no trace.
    pub(crate) silent: u64,
    pub(crate) counts: [u64; Counter::COUNT as usize],
    pub(crate) disagreements: Vec<Disagreement>,
}

impl Tally {
    /// Notes what came of one frame.
    pub(crate) fn note(&mut self, found: &Verdict) {
        self.frames += 1;
        self.records += u64::try_from(found.records.len()).unwrap();
        self.silent += u64::from(*found == Verdict::default());
        for (sum, count) in self.counts.iter_mut().zip(found.counts) {
            *sum += count;
        }
    }

    /// How often a counter moved.
    pub(crate) fn count(&self, counter: Counter) -> u64 {
        self.counts[counter as usize]
    }

    /// Fails if there was any disagreement.
    #[track_caller]
    pub(crate) fn assert_agreement(&self) {
        let text: Vec<_> = self.disagreements.iter().map(ToString::to_string).collect();
        assert!(text.is_empty(), "{} disagreements\n{}", text.len(), text.join("\n"));
    }
}

impl Display for Tally {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} frames, {} refused by the kernel, {} deeper in files: {} records",
            self.frames, self.refused, self.deeper, self.records
        )?;
        write!(f, ", {} without a trace", self.silent)?;
        for (counter, count) in Counter::ALL.into_iter().zip(self.counts) {
            write!(f, ", {counter:?} {count}")?;
        }
        write!(f, "; {} disagreements", self.disagreements.len())
    }
}
