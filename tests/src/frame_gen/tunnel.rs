//! Enters: frames and packets. Leaves: the same in a tunnel: VXLAN, Geneve, GRE, ERSPAN, IP in IP, MPLS.

use super::{FrameGen, transport::datagram};

/// EtherType of a whole Ethernet frame in a tunnel.
const TRANSPARENT_ETHERNET: u16 = 0x6558;

impl FrameGen {
    /// What follows an IP header where a tunnel begins, and its protocol number.
    pub(super) fn tunnel(&mut self, depth: u32) -> (u8, Vec<u8>) {
        match self.rng.weighted(&[30, 20, 25, 10, 10, 5]) {
            0 => (17, self.vxlan(depth)),
            1 => (17, self.geneve(depth)),
            2 => (47, self.gre(depth)),
            3 | 4 => {
                let (ether_type, packet) = self.any_ip(depth + 1);
                (if ether_type == 0x0800 { 4 } else { 41 }, packet)
            }
            _ => (137, self.labelled(depth + 1)),
        }
    }

    /// RFC 7348 section 5.
    fn vxlan(&mut self, depth: u32) -> Vec<u8> {
        let flags = if self.rng.percent(95) { 0x08 } else { self.rng.byte() };
        let mut bytes = vec![flags, 0, 0, 0];
        bytes.extend(self.network_identifier());
        bytes.extend(self.link(depth + 1));
        let port = [4789, 8472, 4790][self.rng.weighted(&[60, 35, 5])];
        datagram((self.rng.half(), port), &bytes)
    }

    /// RFC 8926 section 3.4 and 3.5.
    fn geneve(&mut self, depth: u32) -> Vec<u8> {
        let mut options = Vec::new();
        for _ in 0..self.rng.weighted(&[60, 20, 15, 5]) {
            let words = self.rng.below(5);
            options.extend(self.rng.half().to_be_bytes());
            options.extend([self.rng.byte(), u8::try_from(words).unwrap_or(0)]);
            options.extend(self.rng.bytes(4 * words));
        }
        let mut option_words = u8::try_from(options.len() / 4).unwrap_or(0);
        if self.rng.percent(3) {
            option_words = self.rng.byte();
        }
        let (kind, inner) = self.inner(depth, 70);
        let flags = if self.rng.percent(90) { 0 } else { self.rng.byte() };
        let mut bytes = vec![option_words & 0x3f, flags];
        bytes.extend(kind.to_be_bytes());
        bytes.extend(self.network_identifier());
        bytes.extend(options);
        bytes.extend(inner);
        datagram((self.rng.half(), 6081), &bytes)
    }

    /// RFC 2784 section 2, RFC 2890 section 2; ERSPAN types I to III by what follows.
    fn gre(&mut self, depth: u32) -> Vec<u8> {
        let (mut kind, mut inner) = self.inner(depth, 40);
        let mut flags: u16 = 0;
        // Checksum, key, sequence number.
        for bit in [0x8000, 0x2000, 0x1000] {
            if self.rng.percent(25) {
                flags |= bit;
            }
        }
        match self.rng.weighted(&[85, 8, 4, 3]) {
            0 => {}
            1 => {
                kind = self.rng.pick(&[0x88be, 0x22eb]);
                let header = self.rng.pick(&[0_usize, 8, 12]);
                inner = [self.rng.bytes(header), self.link(depth + 1)].concat();
            }
            2 => {
                kind = 0x8847;
                inner = self.labelled(depth + 1);
            }
            // Routing, recursion, version 1 (PPTP).
            _ => flags = self.rng.half(),
        }
        let mut bytes = Vec::new();
        bytes.extend(flags.to_be_bytes());
        bytes.extend(kind.to_be_bytes());
        for bit in [0x8000_u16, 0x2000, 0x1000] {
            if flags & bit != 0 {
                bytes.extend(self.rng.quad().to_be_bytes());
            }
        }
        bytes.extend(inner);
        bytes
    }

    /// A frame, in `percent` of a hundred, or an IP packet; and its EtherType.
    fn inner(&mut self, depth: u32, percent: usize) -> (u16, Vec<u8>) {
        if self.rng.percent(percent) {
            (TRANSPARENT_ETHERNET, self.link(depth + 1))
        } else {
            self.any_ip(depth + 1)
        }
    }

    /// Three bytes of identifier, one reserved.
    fn network_identifier(&mut self) -> [u8; 4] {
        let [a, b, c, _] = self.rng.quad().to_be_bytes();
        [a, b, c, 0]
    }
}
