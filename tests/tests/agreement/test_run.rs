//! Enters: frames, by `BPF_PROG_TEST_RUN`. Leaves: what came of each, held against the model.

use std::time::Instant;

use anyhow::{Result, bail, ensure};
use mirror_common::Counter;
use mirror_common::maps::{KernelConfig, program};
use mirror_common::unread::{UnreadKey, UnreadRun};
use mirror_tests::classifier::{Classifier, Counts, object};
use mirror_tests::frame_gen::FrameGen;

use crate::model::{Fragments, InUserSpace, Passing, Rules, Verdict, in_user_space};
use crate::report::{Disagreement, ENOUGH, Tally};
use crate::{capture, scene};

const PROGRAMS: [&str; 3] = [program::REQUESTS, program::RESPONSES, program::BOTH];

/// What the kernel takes for such a run: a page less what it puts around a frame.
const LONGEST: usize = 3_600;

/// Frames between two configurations.
const ROUND: u64 = 500;

/// Tries at making a frame smaller.
const SHRINKS: usize = 4_000;

/// One frame in so many, at most, holds something that files alone are searched behind: there the parsers of user space
/// are not held against each other.
const MOST_DEEPER: u64 = 7;

#[test]
fn generated_frames_are_seen_alike() -> Result<()> {
    let object = match object() {
        Ok(object) => object,
        Err(reason) => {
            println!("SKIPPED: {reason}");
            return Ok(());
        }
    };
    let frames = scene::frames(15_000)?;
    let seed = scene::seed()?;
    println!("seed {seed}, {frames} frames");
    let captured = capture::frames()?;
    let mut run = Run::new(&object, seed)?;
    let started = Instant::now();

    let tally = run.over(frames, &captured)?;

    let rate = f64::from(u32::try_from(tally.frames)?) / started.elapsed().as_secs_f64();
    println!("{tally}; {rate:.0} frames/s");
    tally.assert_agreement();
    // A run that never met a case says nothing about it.
    ensure!(tally.records > frames / 20, "few frames became records");
    // Captures of somebody's tunnels may hold nothing else.
    ensure!(
        !captured.is_empty() || tally.deeper < tally.frames / MOST_DEEPER,
        "in many frames files were searched deeper"
    );
    for counter in [
        Counter::CopiedClient,
        Counter::CopiedServer,
        Counter::Fragment,
        Counter::Malformed,
        Counter::TooDeep,
        Counter::Own,
        Counter::SampledOut,
        Counter::Unread,
    ] {
        ensure!(tally.count(counter) > frames / 2_000, "{counter:?} hardly occurred");
    }
    Ok(())
}

#[test]
fn gre_with_a_route_that_is_cut_off_is_a_tunnel_to_all() {
    let before = [&[0; 12][..], &[0x81, 0, 0, 5, 8, 0]].concat();
    let ip = [0x45, 0, 1, 29, 0, 5, 0x40, 0, 64, 47, 0, 0, 192, 0, 2, 2, 192, 0, 2, 1];
    for gre in [&[0x73, 0x5e, 0x65, 0x58, 0xd2, 0xb7, 0x35, 0x9b][..], &[0x40, 0, 8, 0, 0, 0, 0, 0, 1]] {
        let frame = [&before, &ip[..], gre].concat();
        let seen = in_user_space(&frame);
        assert!(matches!(seen, InUserSpace::Same), "{gre:02x?}: {seen:?}");
    }
}

struct Run {
    classifier: Classifier,
    rules: Rules,
    fragments: Fragments,
    counts: Counts,
    frames: FrameGen,
    seed: u64,
}

impl Run {
    fn new(object: &[u8], seed: u64) -> Result<Self> {
        let config = KernelConfig { rings: 4, ..KernelConfig::default() };
        let mut classifier = Classifier::load(object, config, 1 << 18)?;
        let rules = scene::tell(&mut classifier)?;
        let counts = classifier.counts()?;
        let fragments = Fragments::default();
        Ok(Self {
            classifier,
            rules,
            fragments,
            counts,
            frames: FrameGen::new(seed, scene::population(2_500)),
            seed,
        })
    }

    /// Runs all captured frames, and `frames` generated ones, some of them made of captured ones.
    fn over(&mut self, frames: u64, captured: &[Vec<u8>]) -> Result<Tally> {
        let mut tally = Tally::default();
        let captured_frames = u64::try_from(captured.len())?;
        for number in 0..frames.saturating_add(captured_frames) {
            if number % ROUND == 0 {
                self.rules.config = scene::any_config(self.frames.rng());
                self.classifier.set_config(self.rules.config)?;
                // There is no telling which ones a full map forgets.
                self.classifier.forget_fragments()?;
                self.fragments.clear();
            }
            let mut bytes = match captured.get(usize::try_from(number)?) {
                Some(frame) => frame.clone(),
                None if !captured.is_empty() && self.frames.rng().percent(30) => {
                    let at = self.frames.rng().below(captured.len());
                    let mut frame = captured[at].clone();
                    self.frames.mutate(&mut frame);
                    frame
                }
                None => self.frames.ethernet(),
            };
            bytes.truncate(LONGEST);
            let rng = self.frames.rng();
            let (name, mark) = (rng.pick(&PROGRAMS), rng.pick(&[0, 0, 0, 0, 7, scene::OWN_MARK]));
            match in_user_space(&bytes) {
                InUserSpace::Same => {}
                InUserSpace::Deeper => tally.deeper += 1,
                InUserSpace::Different(difference) => {
                    bail!("the parsers of user space differ: {difference}\nframe {bytes:02x?}");
                }
            }
            let frame = Passing::ethernet(&bytes, mark);
            self.leave_unread(name, &frame)?;
            let Some(found) = self.pass(name, &frame)? else {
                tally.refused += 1;
                continue;
            };
            tally.note(&found);
            if found != self.rules.verdict(&mut self.fragments, name, &frame) {
                let frame = self.shrunk(name, frame)?;
                tally.disagreements.push(Disagreement {
                    hook: name.to_owned(),
                    seed: self.seed,
                    number,
                    rules: self.rules.clone(),
                    expected: self.rules.verdict(&mut self.fragments, name, &frame),
                    found: self.pass(name, &frame)?.unwrap_or_default(),
                    frame,
                });
                if tally.disagreements.len() >= ENOUGH {
                    break;
                }
            }
        }
        Ok(tally)
    }

    /// Says now and then that nobody reads what the frame carries, or a part of it, or what is near.
    fn leave_unread(&mut self, name: &str, frame: &Passing) -> Result<()> {
        let verdict = self.rules.verdict(&mut self.fragments.clone(), name, frame);
        let Some((_, header, _)) = verdict.records.first().filter(|(_, header, _)| header.side == 1) else {
            return Ok(());
        };
        let rng = self.frames.rng();
        let before = u32::try_from(rng.below(1_500))?;
        let run = UnreadRun { seq: header.seq.wrapping_sub(before), len: u32::try_from(rng.below(9_000))? };
        let unread = rng.percent(50).then_some((UnreadKey::of(header), run));
        self.classifier.set_unread(self.rules.unread.map(|(key, _)| key), unread)?;
        self.rules.unread = unread;
        Ok(())
    }

    /// Sends one frame past the program; `None` where the kernel does not take it.
    fn pass(&mut self, name: &str, frame: &Passing) -> Result<Option<Verdict>> {
        if !self.classifier.run(name, &frame.bytes, frame.mark)? {
            return Ok(None);
        }
        let mut found = scene::drain(&mut self.classifier)?;
        let counts = self.classifier.counts()?;
        found.counts = scene::moved(&self.counts, &counts);
        self.counts = counts;
        Ok(Some(found))
    }

    fn disagrees(&mut self, name: &str, frame: &Passing) -> Result<bool> {
        Ok(self
            .pass(name, frame)?
            .is_some_and(|found| found != self.rules.verdict(&mut self.fragments, name, frame)))
    }

    /// Cuts off and zeroes what the disagreement does not need.
    fn shrunk(&mut self, name: &str, mut frame: Passing) -> Result<Passing> {
        let mut tries = 0;
        let mut cut = frame.bytes.len() / 2;
        while cut > 0 {
            let shorter =
                Passing::ethernet(&frame.bytes[..frame.bytes.len().saturating_sub(cut)], frame.mark);
            if self.disagrees(name, &shorter)? {
                frame = shorter;
            } else {
                cut /= 2;
            }
        }
        for at in 0..frame.bytes.len() {
            tries += 1;
            if tries > SHRINKS {
                break;
            }
            let value = std::mem::take(&mut frame.bytes[at]);
            if value != 0 && !self.disagrees(name, &frame)? {
                frame.bytes[at] = value;
            }
        }
        Ok(frame)
    }
}
