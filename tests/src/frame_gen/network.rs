//! Enters: what an IP packet carries. Leaves: the packet: IPv4 with options, IPv6 with extension headers, fragments.

use std::collections::VecDeque;

use super::FrameGen;

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;

/// Protocol numbers.
pub(super) mod protocol {
    pub(crate) const HOP_BY_HOP: u8 = 0;
    pub(crate) const TCP: u8 = 6;
    pub(crate) const ROUTING: u8 = 43;
    pub(crate) const FRAGMENT: u8 = 44;
    pub(crate) const AUTHENTICATION: u8 = 51;
    pub(crate) const DESTINATION: u8 = 60;
}

impl FrameGen {
    /// An IP packet of either version, and its EtherType.
    pub(super) fn any_ip(&mut self, depth: u32) -> (u16, Vec<u8>) {
        let (kind, payload) = self.ip_payload(depth);
        let (mut ether_type, packet) = if self.rng.percent(58) {
            (IPV4, self.ipv4(kind, &payload))
        } else {
            (IPV6, self.ipv6(kind, payload))
        };
        if self.rng.per_mille(5) {
            ether_type ^= IPV4 ^ IPV6;
        }
        (ether_type, packet)
    }

    /// A sound packet without options around a TCP segment, and its EtherType.
    pub(super) fn plain_ip(&mut self, is_v6: bool, segment: &[u8]) -> (u16, Vec<u8>) {
        let mut bytes = Vec::with_capacity(segment.len() + 40);
        if is_v6 {
            bytes.extend([0x60, 0, 0, 0]);
            bytes.extend(u16::try_from(segment.len()).unwrap_or(0).to_be_bytes());
            bytes.extend([protocol::TCP, 64]);
            bytes.extend(self.v6_addresses());
        } else {
            bytes.extend([0x45, 0]);
            bytes.extend(u16::try_from(segment.len() + 20).unwrap_or(0).to_be_bytes());
            bytes.extend([0, 1, 0x40, 0, 64, protocol::TCP, 0, 0]);
            bytes.extend(self.v4_addresses());
        }
        bytes.extend(segment);
        (if is_v6 { IPV6 } else { IPV4 }, bytes)
    }

    fn v4_addresses(&mut self) -> Vec<u8> {
        [self.rng.pick(&self.population.v4), self.rng.pick(&self.population.v4)].concat()
    }

    fn v6_addresses(&mut self) -> Vec<u8> {
        [self.rng.pick(&self.population.v6), self.rng.pick(&self.population.v6)].concat()
    }

    /// RFC 791 section 3.1.
    fn ipv4(&mut self, kind: u8, payload: &[u8]) -> Vec<u8> {
        let words = if self.rng.percent(80) { 0 } else { self.rng.between(1, 10) };
        let header_len = 20 + 4 * words;
        let mut first = 0x45 + u8::try_from(words).unwrap_or(0);
        if self.rng.per_mille(15) {
            first = self.rng.byte();
        }
        let len = self.length(header_len + payload.len());
        let fragment = if self.rng.per_mille(30) { self.rng.half() } else { self.rng.pick(&[0, 0x4000]) };
        // Few identifications, so that fragments of one packet may meet.
        let identification = self.rng.half() & 7;
        let mut bytes = vec![first, self.rng.byte()];
        bytes.extend(len.to_be_bytes());
        bytes.extend(identification.to_be_bytes());
        bytes.extend(fragment.to_be_bytes());
        bytes.extend([64, kind, 0, 0]);
        bytes.extend(self.v4_addresses());
        bytes.extend(self.rng.bytes(4 * words));
        bytes.extend(payload);
        bytes
    }

    /// RFC 8200 section 3 and 4.
    fn ipv6(&mut self, kind: u8, mut payload: Vec<u8>) -> Vec<u8> {
        let extensions = match self.rng.weighted(&[70, 20, 10]) {
            0 => 0,
            1 => self.rng.between(1, 2),
            _ => self.rng.between(3, 9),
        };
        let mut next = kind;
        for left in (0..extensions).rev() {
            let kind = match self.rng.weighted(&[20, 20, 25, 15, 15, 5]) {
                // Where it belongs it is the first; elsewhere it is an error that parsers forgive.
                0 if left > 0 => protocol::DESTINATION,
                0 => protocol::HOP_BY_HOP,
                1 => protocol::ROUTING,
                2 => protocol::DESTINATION,
                3 => protocol::FRAGMENT,
                4 => protocol::AUTHENTICATION,
                _ => self.rng.pick(&[0, 50, 59, 135, 139]),
            };
            let header = self.extension(kind, next, payload.len());
            payload = [header, payload].concat();
            next = kind;
        }
        let version = if self.rng.per_mille(10) { self.rng.byte() } else { 0x60 | self.rng.byte() & 0xf };
        let len = self.length(payload.len());
        let mut bytes = vec![version, 0, 0, 0];
        bytes.extend(len.to_be_bytes());
        bytes.extend([next, 64]);
        bytes.extend(self.v6_addresses());
        bytes.extend(payload);
        bytes
    }

    /// An extension header before `following` bytes of payload.
    fn extension(&mut self, kind: u8, next: u8, following: usize) -> Vec<u8> {
        match kind {
            protocol::FRAGMENT => {
                let offset = if self.rng.percent(60) { 0 } else { self.rng.half() };
                let [id, ..] = self.rng.word().to_be_bytes();
                [&[next, 0][..], &offset.to_be_bytes(), &[0, 0, 0, id & 7]].concat()
            }
            protocol::AUTHENTICATION => {
                let words = self.rng.between(1, 8);
                let mut bytes = vec![next, u8::try_from(words + 1).unwrap_or(1)];
                bytes.extend(self.rng.bytes(4 * words + 10));
                bytes
            }
            _ => {
                let units = if self.rng.percent(85) { 0 } else { self.rng.between(1, 4) };
                let mut bytes = self.rng.bytes(8 * units + 8);
                bytes[0] = next;
                bytes[1] = u8::try_from(units).unwrap_or(0);
                if kind == protocol::HOP_BY_HOP && self.rng.percent(30) {
                    // The jumbo option (RFC 2675 section 2), with a length that may even be right.
                    let len = u32::try_from(following + 8).unwrap_or(0);
                    bytes[2..4].copy_from_slice(&[0xc2, 4]);
                    bytes[4..8].copy_from_slice(&len.to_be_bytes());
                }
                bytes
            }
        }
    }

    /// A length field for `len` bytes: mostly right.
    fn length(&mut self, len: usize) -> u16 {
        let len = u16::try_from(len).unwrap_or(0);
        match self.rng.weighted(&[940, 15, 15, 10, 10, 10]) {
            0 => len,
            1 => 0,
            2 => len.saturating_sub(u16::try_from(self.rng.below(60)).unwrap_or(0)),
            3 => len.saturating_add(u16::try_from(self.rng.below(60)).unwrap_or(0)),
            4 => u16::try_from(self.rng.below(64)).unwrap_or(0),
            _ => self.rng.half(),
        }
    }

    /// The frames of a packet that was cut into fragments: in order, reversed, or with one twice or missing.
    pub(super) fn fragmented(&mut self) -> VecDeque<Vec<u8>> {
        let segment = self.segment();
        let piece = 8 * self.rng.between(1, (segment.len() / 16).clamp(1, 100));
        let is_v6 = self.rng.percent(40);
        let addresses = if is_v6 { self.v6_addresses() } else { self.v4_addresses() };
        let identification = self.rng.half();
        let hardware = self.hardware_addresses();
        let mut frames = Vec::new();
        for (index, part) in segment.chunks(piece).enumerate() {
            let units = u16::try_from(index * piece / 8).unwrap_or(0);
            let has_more = (index + 1) * piece < segment.len();
            let mut frame = hardware.clone();
            let len = u16::try_from(part.len()).unwrap_or(0);
            if is_v6 {
                frame.extend(IPV6.to_be_bytes());
                frame.extend([0x60, 0, 0, 0]);
                frame.extend((len + 8).to_be_bytes());
                frame.extend([protocol::FRAGMENT, 64]);
                frame.extend(&addresses);
                frame.extend([protocol::TCP, 0]);
                frame.extend(((units << 3) | u16::from(has_more)).to_be_bytes());
                frame.extend(u32::from(identification).to_be_bytes());
            } else {
                frame.extend(IPV4.to_be_bytes());
                frame.extend([0x45, 0]);
                frame.extend((len + 20).to_be_bytes());
                frame.extend(identification.to_be_bytes());
                frame.extend((units | (u16::from(has_more) << 13)).to_be_bytes());
                frame.extend([64, protocol::TCP, 0, 0]);
                frame.extend(&addresses);
            }
            frame.extend(part);
            frames.push(frame);
        }
        match self.rng.weighted(&[60, 15, 15, 10]) {
            0 => {}
            1 => frames.reverse(),
            2 => {
                let at = self.rng.below(frames.len());
                let again = frames[at].clone();
                frames.push(again);
            }
            _ => drop(frames.remove(self.rng.below(frames.len()))),
        }
        frames.truncate(20);
        frames.into()
    }
}
