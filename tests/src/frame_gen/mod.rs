//! Enters: a seed. Leaves: frames as they might come over a wire, sound and unsound, the same for the same seed.
//!
//! Frames are built from the inside out: a TCP segment, in IP, perhaps in a tunnel or two, in Ethernet. Any length,
//! flag or kind may be wrong, now and then; then bytes are flipped or the end is cut off. Checksums are not filled
//! in: nothing that reads these frames looks at them.

mod link;
mod mutate;
mod network;
mod transport;
mod tunnel;

use std::collections::VecDeque;

use crate::rng::Rng;

/// Levels of tunnels, one more than anything follows.
const MAX_DEPTH: u32 = 3;

/// What the frames are to be about.
#[derive(Clone, Debug, Default)]
pub struct Population {
    /// Ports that occur more often than others: those that are matched, and some that are not.
    pub ports: Vec<u16>,
    /// IPv4 addresses of both ends.
    pub v4: Vec<[u8; 4]>,
    /// IPv6 addresses of both ends.
    pub v6: Vec<[u8; 16]>,
    /// Payload of a segment in bytes at most.
    pub max_payload: usize,
}

/// A source of frames without end.
#[derive(Clone, Debug)]
pub struct FrameGen {
    rng: Rng,
    population: Population,
    /// Fragments of a packet of which others were given already.
    fragments: VecDeque<Vec<u8>>,
}

impl FrameGen {
    /// Starts a source.
    #[must_use]
    pub fn new(seed: u64, population: Population) -> Self {
        Self { rng: Rng::new(seed), population, fragments: VecDeque::new() }
    }

    /// The next frame, from its Ethernet header on; perhaps damaged.
    pub fn ethernet(&mut self) -> Vec<u8> {
        if let Some(fragment) = self.fragments.pop_front() {
            return fragment;
        }
        if self.rng.per_mille(20) {
            self.fragments = self.fragmented();
            return self.fragments.pop_front().unwrap_or_default();
        }
        let mut frame = self.link(0);
        self.damage(&mut frame);
        frame
    }

    /// The next packet, from its IP header on; perhaps damaged.
    pub fn ip(&mut self) -> Vec<u8> {
        let (_, mut packet) = self.any_ip(0);
        self.damage(&mut packet);
        packet
    }

    /// A frame that carries one TCP segment in plain IP, sound in every way, with this payload.
    pub fn plain_segment(&mut self, is_v6: bool, payload: &[u8]) -> Vec<u8> {
        let segment = self.plain_tcp(payload);
        let (ether_type, packet) = self.plain_ip(is_v6, &segment);
        let mut frame = self.hardware_addresses();
        frame.extend(ether_type.to_be_bytes());
        frame.extend(packet);
        frame
    }

    /// The generator's own numbers, for choices that belong to the same seed.
    pub fn rng(&mut self) -> &mut Rng {
        &mut self.rng
    }

    /// Damages a frame as [`FrameGen::ethernet`] does, but always.
    pub fn mutate(&mut self, frame: &mut Vec<u8>) {
        self.damage_once(frame);
    }
}

#[cfg(test)]
mod tests {
    use super::{FrameGen, Population};

    fn population() -> Population {
        Population {
            ports: vec![80],
            v4: vec![[192, 0, 2, 1], [192, 0, 2, 2]],
            v6: vec![[0x20; 16]],
            max_payload: 1400,
        }
    }

    #[test]
    fn same_seed_gives_the_same_frames() {
        let frames = |seed| {
            let mut frames = FrameGen::new(seed, population());
            (0..100).map(|_| frames.ethernet()).collect::<Vec<_>>()
        };

        assert_eq!(frames(3), frames(3));
        assert_ne!(frames(3), frames(4));
    }

    #[test]
    fn most_frames_are_sound_and_every_kind_of_trouble_occurs() {
        use mirror_common::packet::{CapturedBytes, Start, Unparsed, parse};

        let mut frames = FrameGen::new(5, population());
        let mut sound = 0;
        let mut reasons: Vec<Unparsed> = Vec::new();
        for _ in 0..5000 {
            let frame = frames.ethernet();
            match parse(&CapturedBytes::whole(&frame), 0, Start::Ethernet, None) {
                Ok(_) => sound += 1,
                Err(reason) if !reasons.contains(&reason) => reasons.push(reason),
                Err(_) => {}
            }
        }

        assert!(sound > 1500, "{sound} of 5000");
        for reason in [
            Unparsed::NotIp,
            Unparsed::NotTcp,
            Unparsed::Fragment,
            Unparsed::Truncated,
            Unparsed::Malformed,
            Unparsed::TooDeep,
        ] {
            assert!(reasons.contains(&reason), "{reason:?} never occurred");
        }
    }
}
