//! Enters: a frame. Leaves: the frame, perhaps cut short, with bits flipped, or made to look like something else.

use super::FrameGen;

impl FrameGen {
    /// Leaves most frames as they are.
    pub(super) fn damage(&mut self, frame: &mut Vec<u8>) {
        if self.rng.percent(25) {
            self.damage_once(frame);
        }
    }

    /// Does one kind of damage.
    pub(super) fn damage_once(&mut self, frame: &mut Vec<u8>) {
        if frame.is_empty() {
            return;
        }
        match self.rng.weighted(&[25, 15, 30, 20, 5, 5]) {
            0 => frame.truncate(self.rng.below(frame.len() + 1)),
            // Among the headers, where it hurts most.
            1 => frame.truncate(self.rng.below(frame.len().min(120) + 1)),
            2 => {
                for _ in 0..self.rng.between(1, 4) {
                    let at = self.rng.below(frame.len().min(150));
                    frame[at] ^= 1 << self.rng.below(8);
                }
            }
            3 => {
                let at = self.rng.below(frame.len().min(150));
                frame[at] = self.rng.pick(&[0, 1, 4, 6, 0x45, 0x60, 0x7f, 0x80, 0xff]);
            }
            4 => {
                let len = self.rng.between(1, 80);
                frame.extend(self.rng.bytes(len));
            }
            _ => mirror_header(frame),
        }
    }
}

/// Makes a frame's first 16 bytes those of its IPv4 header: whoever tells by them where IP begins cannot.
fn mirror_header(frame: &mut [u8]) {
    if frame.get(12..15) != Some(&[8, 0, 0x45]) || frame.len() < 34 {
        return;
    }
    let tos = frame[15];
    // The source address stands where the EtherType would.
    frame[26..30].copy_from_slice(&[8, 0, 0x45, tos]);
    frame.copy_within(14..26, 0);
}

#[cfg(test)]
mod tests {
    use super::mirror_header;

    #[test]
    fn mirrored_header_stands_twice() {
        let mut frame = [[2; 12].to_vec(), vec![8, 0, 0x45, 3], vec![7; 40]].concat();

        mirror_header(&mut frame);

        assert_eq!(frame[..16], frame[14..30]);
        assert_eq!(frame[12..16], [8, 0, 0x45, 3]);
    }
}
