//! Enters: nothing. Leaves: TCP segments with options and odd data offsets, and what else can follow an IP header.

use super::{FrameGen, MAX_DEPTH, network::protocol};

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;

impl FrameGen {
    /// What follows an IP header, and its protocol number.
    pub(super) fn ip_payload(&mut self, depth: u32) -> (u8, Vec<u8>) {
        if depth < MAX_DEPTH && self.rng.percent(if depth == 0 { 18 } else { 12 }) {
            return self.tunnel(depth);
        }
        match self.rng.weighted(&[880, 50, 30, 40]) {
            0 => (protocol::TCP, self.segment()),
            1 => {
                let ports = self.ports();
                let len = self.rng.below(200);
                let payload = self.rng.bytes(len);
                (17, datagram(ports, &payload))
            }
            2 => {
                let len = self.rng.between(8, 80);
                (self.rng.pick(&[1, 58]), self.rng.bytes(len))
            }
            _ => {
                let len = self.rng.below(80);
                (self.rng.byte(), self.rng.bytes(len))
            }
        }
    }

    /// A TCP segment.
    pub(super) fn segment(&mut self) -> Vec<u8> {
        let payload = self.payload();
        self.segment_of(&payload)
    }

    /// A TCP segment with this payload; its data offset may be wrong (RFC 9293 section 3.1).
    fn segment_of(&mut self, payload: &[u8]) -> Vec<u8> {
        let words = if self.rng.percent(60) { 0 } else { self.rng.between(1, 10) };
        let mut offset = 5 + u8::try_from(words).unwrap_or(0);
        if self.rng.per_mille(15) {
            offset = self.rng.byte() & 0xf;
        }
        let flags = match self.rng.weighted(&[45, 25, 10, 10, 5, 5]) {
            0 => PSH | ACK,
            1 => ACK,
            2 => SYN | self.rng.pick(&[0, ACK]),
            3 => FIN | ACK,
            4 => RST | self.rng.pick(&[0, ACK]),
            _ => self.rng.byte(),
        };
        let mut bytes = self.tcp_header(offset, flags);
        bytes.extend(self.rng.bytes(4 * words));
        bytes.extend(payload);
        bytes
    }

    /// A sound TCP segment without options.
    pub(super) fn plain_tcp(&mut self, payload: &[u8]) -> Vec<u8> {
        [self.tcp_header(5, PSH | ACK), payload.to_vec()].concat()
    }

    fn tcp_header(&mut self, offset: u8, flags: u8) -> Vec<u8> {
        let (src_port, dst_port) = self.ports();
        let mut bytes = Vec::with_capacity(60);
        bytes.extend(src_port.to_be_bytes());
        bytes.extend(dst_port.to_be_bytes());
        bytes.extend(self.rng.word().to_be_bytes());
        bytes.extend([offset << 4, flags, 0xff, 0xff, 0, 0, 0, 0]);
        bytes
    }

    /// Source and destination port.
    pub(super) fn ports(&mut self) -> (u16, u16) {
        let known = self.rng.pick(&self.population.ports);
        let other =
            if self.rng.percent(20) { self.rng.pick(&self.population.ports) } else { self.rng.half() };
        if self.rng.percent(60) { (other, known) } else { (known, other) }
    }

    fn payload(&mut self) -> Vec<u8> {
        let most = self.population.max_payload;
        let len = match self.rng.weighted(&[20, 25, 25, 25, 5]) {
            0 => 0,
            1 => self.rng.between(1, 20),
            2 => self.rng.between(20, 200),
            // About the sizes at which the kernel program changes its way.
            3 => self.rng.between(1_400, 1_500),
            _ => self.rng.between(1, most),
        };
        let mut bytes = self.rng.bytes(len.min(most));
        if self.rng.percent(40) {
            let start: &[u8] =
                self.rng.pick(&[b"HTTP/1.1 101 Switching", b"GET / HTTP/1.1\r\n\r\n", b"HTTP", b"HTTP/"]);
            for (to, from) in bytes.iter_mut().zip(start) {
                *to = *from;
            }
        }
        bytes
    }
}

/// A UDP datagram (RFC 768).
pub(super) fn datagram((src_port, dst_port): (u16, u16), payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(8 + payload.len());
    bytes.extend(src_port.to_be_bytes());
    bytes.extend(dst_port.to_be_bytes());
    bytes.extend(u16::try_from(payload.len() + 8).unwrap_or(0).to_be_bytes());
    bytes.extend([0, 0]);
    bytes.extend(payload);
    bytes
}
