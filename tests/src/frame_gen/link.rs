//! Enters: what a frame carries. Leaves: the frame: Ethernet, tags, and protocols that stand where IP could.

use super::FrameGen;
use crate::frames::{TAG_AD, TAG_Q};

/// A tag's EtherType from before the standard; no parser of ours follows it.
const TAG_OLD: u16 = 0x9100;

impl FrameGen {
    /// An Ethernet frame.
    pub(super) fn link(&mut self, depth: u32) -> Vec<u8> {
        let mut frame = self.hardware_addresses();
        let tags = self.rng.weighted(&[72, 17, 8, 3]);
        for _ in 0..tags {
            let kind = [TAG_Q, TAG_AD, TAG_OLD][self.rng.weighted(&[60, 35, 5])];
            frame.extend(kind.to_be_bytes());
            // Identifier 0 only carries a priority.
            let control = if self.rng.percent(20) { self.rng.half() & 0xf000 } else { self.rng.half() };
            frame.extend(control.to_be_bytes());
        }
        let (ether_type, packet) = self.network(depth);
        frame.extend(ether_type.to_be_bytes());
        frame.extend(packet);
        if self.rng.percent(12) {
            let padding = self.rng.between(1, 46);
            frame.extend(self.rng.bytes(padding));
        }
        frame
    }

    /// Destination and source of a frame.
    pub(super) fn hardware_addresses(&mut self) -> Vec<u8> {
        let mut bytes = self.rng.bytes(12);
        bytes[6] = 2;
        // Mostly one host's; else anything, be it what looks like the start of an IP header.
        bytes[0] = match self.rng.weighted(&[80, 10, 5, 5]) {
            0 => 2,
            1 => self.rng.byte(),
            2 => 0x40 | self.rng.byte() & 0xf,
            _ => 0x60 | self.rng.byte() & 0xf,
        };
        bytes
    }

    /// What follows an EtherType, and the EtherType.
    fn network(&mut self, depth: u32) -> (u16, Vec<u8>) {
        match self.rng.weighted(&[850, 30, 40, 40, 20, 20]) {
            0 => self.any_ip(depth),
            1 => (0x0806, self.rng.bytes(28)),
            2 => {
                let kind = self.rng.pick(&[0x8847, 0x8848]);
                (kind, self.labelled(depth))
            }
            3 => self.point_to_point(depth),
            // A length instead of a type: IEEE 802.3 with LLC and SNAP.
            4 => {
                let (ether_type, packet) = self.any_ip(depth);
                let len = u16::try_from(packet.len() + 8).unwrap_or(1500).min(1500);
                (len, [&[0xaa, 0xaa, 3, 0, 0, 0][..], &ether_type.to_be_bytes(), &packet].concat())
            }
            _ => {
                let len = self.rng.below(100);
                (self.rng.half(), self.rng.bytes(len))
            }
        }
    }

    /// MPLS labels before an IP packet or a frame (RFC 3032 section 2.1, RFC 4448 section 4.6).
    pub(super) fn labelled(&mut self, depth: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        let labels = self.rng.between(1, 4);
        for left in (0..labels).rev() {
            let [a, b, c, _] = self.rng.quad().to_be_bytes();
            let is_bottom = left == 0 && !self.rng.percent(5);
            bytes.extend([a, b, c & 0xfe | u8::from(is_bottom), 64]);
        }
        match self.rng.weighted(&[80, 10, 10]) {
            0 => bytes.extend(self.any_ip(depth).1),
            1 => bytes.extend(self.link(depth + 1)),
            _ => {
                bytes.extend([0; 4]);
                bytes.extend(self.link(depth + 1));
            }
        }
        bytes
    }

    /// PPPoE, discovery or session (RFC 2516 section 4).
    fn point_to_point(&mut self, depth: u32) -> (u16, Vec<u8>) {
        if self.rng.percent(10) {
            return (0x8863, self.rng.bytes(20));
        }
        let (ether_type, packet) = self.any_ip(depth);
        let protocol: u16 = if ether_type == 0x0800 { 0x21 } else { 0x57 };
        let len = u16::try_from(packet.len() + 2).unwrap_or(0);
        let session = self.rng.half();
        let mut bytes = vec![0x11, 0];
        bytes.extend(session.to_be_bytes());
        bytes.extend(len.to_be_bytes());
        bytes.extend(protocol.to_be_bytes());
        bytes.extend(packet);
        (0x8864, bytes)
    }
}
