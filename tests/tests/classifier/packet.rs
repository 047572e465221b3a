//! Enters: what a packet is to hold. Leaves: its bytes.

use mirror_common::packet::tcp_flag;

pub(crate) const CLIENT4: [u8; 4] = [192, 0, 2, 1];
pub(crate) const SERVER4: [u8; 4] = [198, 51, 100, 2];
pub(crate) const CLIENT6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
pub(crate) const SERVER6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];
pub(crate) const CLIENT_PORT: u16 = 40_000;
pub(crate) const SERVER_PORT: u16 = 8080;

pub(crate) const ACK: u8 = tcp_flag::ACK;
pub(crate) const PSH_ACK: u8 = tcp_flag::PSH | tcp_flag::ACK;

/// A TCP packet to be.
#[derive(Clone)]
pub(crate) struct Packet {
    pub(crate) from_client: bool,
    pub(crate) v6: bool,
    pub(crate) tags: Vec<(u16, u16)>,
    pub(crate) ip_options: Vec<u8>,
    pub(crate) extensions: Vec<(u8, Vec<u8>)>,
    pub(crate) tcp_options: Vec<u8>,
    pub(crate) flags: u8,
    pub(crate) payload: Vec<u8>,
    pub(crate) ports: (u16, u16),
    pub(crate) client4: [u8; 4],
}

pub(crate) fn request(flags: u8, payload: &[u8]) -> Packet {
    Packet {
        from_client: true,
        v6: false,
        tags: Vec::new(),
        ip_options: Vec::new(),
        extensions: Vec::new(),
        tcp_options: Vec::new(),
        flags,
        payload: payload.to_vec(),
        ports: (CLIENT_PORT, SERVER_PORT),
        client4: CLIENT4,
    }
}

pub(crate) fn response(flags: u8, payload: &[u8]) -> Packet {
    Packet { from_client: false, ports: (SERVER_PORT, CLIENT_PORT), ..request(flags, payload) }
}

impl Packet {
    pub(crate) fn v6(self) -> Self {
        Self { v6: true, ..self }
    }

    pub(crate) fn ethernet(&self) -> Vec<u8> {
        let mut bytes = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        for (ether_type, id) in &self.tags {
            bytes.extend(ether_type.to_be_bytes());
            bytes.extend(id.to_be_bytes());
        }
        bytes.extend(if self.v6 { [0x86, 0xdd] } else { [8, 0] });
        bytes.extend(self.ip());
        bytes
    }

    pub(crate) fn ip(&self) -> Vec<u8> {
        let tcp = self.tcp();
        let mut bytes = Vec::new();
        if self.v6 {
            let extension_len: usize = self.extensions.iter().map(|(_, bytes)| bytes.len()).sum();
            bytes.extend([0x60, 0, 0, 0]);
            bytes.extend(u16::try_from(extension_len + tcp.len()).unwrap_or(0).to_be_bytes());
            bytes.extend([self.extensions.first().map_or(6, |(kind, _)| *kind), 64]);
            let (src, dst) = if self.from_client { (CLIENT6, SERVER6) } else { (SERVER6, CLIENT6) };
            bytes.extend(src);
            bytes.extend(dst);
            for (at, (_, extension)) in self.extensions.iter().enumerate() {
                bytes.push(self.extensions.get(at + 1).map_or(6, |(kind, _)| *kind));
                bytes.extend(&extension[1..]);
            }
        } else {
            let header_len = 20 + self.ip_options.len();
            bytes.extend([0x40 | u8::try_from(header_len / 4).unwrap(), 0]);
            bytes.extend(u16::try_from(header_len + tcp.len()).unwrap_or(0).to_be_bytes());
            bytes.extend([0, 1, 0x40, 0, 64, 6, 0, 0]);
            let (src, dst) = if self.from_client { (self.client4, SERVER4) } else { (SERVER4, self.client4) };
            bytes.extend(src);
            bytes.extend(dst);
            bytes.extend(&self.ip_options);
        }
        bytes.extend(tcp);
        bytes
    }

    fn tcp(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(self.ports.0.to_be_bytes());
        bytes.extend(self.ports.1.to_be_bytes());
        bytes.extend(1000_u32.to_be_bytes());
        bytes.extend(2000_u32.to_be_bytes());
        bytes.push(u8::try_from((20 + self.tcp_options.len()) / 4).unwrap() << 4);
        bytes.extend([self.flags, 0xff, 0xff, 0, 0, 0, 0]);
        bytes.extend(&self.tcp_options);
        bytes.extend(&self.payload);
        bytes
    }
}
