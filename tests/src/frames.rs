//! Enters: what a TCP conversation says. Leaves: its frames on a wire, built by hand, without any stack.
//!
//! For what the kernel at hand cannot make itself: VLAN tags without a VLAN device, sequence numbers at will.

use std::{
    fs::File,
    io::Write,
    net::{IpAddr, SocketAddr},
    thread,
    time::Duration,
};

use anyhow::{Result, bail};

use crate::{netns::Host, overlay, sys};

/// TCP flags.
pub mod flag {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Synchronise sequence numbers.
    pub const SYN: u8 = 0x02;
    /// Push.
    pub const PSH: u8 = 0x08;
    /// The acknowledgement field is significant.
    pub const ACK: u8 = 0x10;
}

/// EtherType of an 802.1Q tag.
pub const TAG_Q: u16 = 0x8100;
/// EtherType of an 802.1ad tag.
pub const TAG_AD: u16 = 0x88a8;

/// A host's wire, for whole frames.
#[derive(Debug)]
pub struct Wire {
    socket: File,
}

impl Wire {
    /// Opens the host's interface.
    ///
    /// # Errors
    ///
    /// No privileges.
    pub fn open(host: &Host) -> Result<Self> {
        let index = host.interface_index()?;
        let socket = host.within(|| Ok(sys::packet_socket(index)?))?;
        Ok(Self { socket: socket.into() })
    }

    /// Sends one frame.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn send(&mut self, frame: &[u8]) -> Result<()> {
        Ok(self.socket.write_all(frame)?)
    }
}

/// What stands around every segment of a conversation.
#[derive(Clone, Debug)]
pub struct Envelope {
    /// EtherType and VLAN identifier of each tag, the outer first.
    pub tags: Vec<(u16, u16)>,
    /// IPv4 options or IPv6 extension headers before TCP, complete and padded; `next_header` names the first of the
    /// latter.
    pub ip_extra: Vec<u8>,
    /// The IPv6 header's next-header field; 6 (TCP) without extension headers.
    pub next_header: u8,
    /// TCP options, padded to four bytes.
    pub tcp_options: Vec<u8>,
    /// UDP port and identifier of the VXLAN tunnel around all of it.
    pub vxlan: Option<(u16, u32)>,
}

impl Default for Envelope {
    fn default() -> Self {
        Self { tags: Vec::new(), ip_extra: Vec::new(), next_header: 6, tcp_options: Vec::new(), vxlan: None }
    }
}

/// One end of a conversation.
#[derive(Clone, Copy, Debug)]
pub struct End {
    /// Hardware address.
    pub mac: [u8; 6],
    /// Address and port; both ends are of one family.
    pub at: SocketAddr,
}

/// What a segment says.
#[derive(Clone, Copy, Debug)]
pub struct Said<'a> {
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// Flags.
    pub flags: u8,
    /// Payload.
    pub payload: &'a [u8],
}

/// Builds a frame from one end to the other.
///
/// # Errors
///
/// The ends are of different families.
pub fn frame(from: End, to: End, envelope: &Envelope, said: &Said<'_>) -> Result<Vec<u8>> {
    let segment = tcp(from, to, envelope, said)?;
    let mut frame = Vec::with_capacity(segment.len() + 100);
    frame.extend_from_slice(&to.mac);
    frame.extend_from_slice(&from.mac);
    for (kind, id) in &envelope.tags {
        frame.extend_from_slice(&kind.to_be_bytes());
        frame.extend_from_slice(&id.to_be_bytes());
    }
    let extra = &envelope.ip_extra;
    match (from.at.ip(), to.at.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            frame.extend_from_slice(&0x0800_u16.to_be_bytes());
            let words = 5 + u8::try_from(extra.len() / 4)?;
            let total = u16::try_from(20 + extra.len() + segment.len())?;
            let mut header = vec![0x40 | words, 0];
            header.extend_from_slice(&total.to_be_bytes());
            // Identification, "don't fragment", TTL, TCP, and room for the checksum.
            header.extend_from_slice(&[0, 1, 0x40, 0, 64, 6, 0, 0]);
            header.extend_from_slice(&source.octets());
            header.extend_from_slice(&destination.octets());
            header.extend_from_slice(extra);
            let checksum = checksum(&[&header]);
            header[10..12].copy_from_slice(&checksum.to_be_bytes());
            frame.extend_from_slice(&header);
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            frame.extend_from_slice(&0x86dd_u16.to_be_bytes());
            frame.extend_from_slice(&[0x60, 0, 0, 0]);
            frame.extend_from_slice(&u16::try_from(extra.len() + segment.len())?.to_be_bytes());
            frame.extend_from_slice(&[envelope.next_header, 64]);
            frame.extend_from_slice(&source.octets());
            frame.extend_from_slice(&destination.octets());
            frame.extend_from_slice(extra);
        }
        _ => bail!("{} and {} are of different families", from.at, to.at),
    }
    frame.extend_from_slice(&segment);
    Ok(match envelope.vxlan {
        Some((port, vni)) => {
            let datagram = overlay::udp(port, &overlay::vxlan(vni, &frame));
            let ip = overlay::ipv4(overlay::protocol::UDP, &datagram);
            [&to.mac[..], &from.mac, &overlay::IPV4.to_be_bytes(), &ip].concat()
        }
        None => frame,
    })
}

fn tcp(from: End, to: End, envelope: &Envelope, said: &Said<'_>) -> Result<Vec<u8>> {
    let header_len = 20 + envelope.tcp_options.len();
    let mut segment = Vec::with_capacity(header_len + said.payload.len());
    segment.extend_from_slice(&from.at.port().to_be_bytes());
    segment.extend_from_slice(&to.at.port().to_be_bytes());
    segment.extend_from_slice(&said.seq.to_be_bytes());
    segment.extend_from_slice(&said.ack.to_be_bytes());
    segment.push(u8::try_from(header_len / 4)? << 4);
    segment.push(said.flags);
    // Window, room for the checksum, urgent pointer.
    segment.extend_from_slice(&[0xff, 0xff, 0, 0, 0, 0]);
    segment.extend_from_slice(&envelope.tcp_options);
    segment.extend_from_slice(said.payload);
    let length = u32::try_from(segment.len())?;
    let octets = |address: IpAddr| match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    // The pseudo-header: RFC 9293 section 3.1, RFC 8200 section 8.1; the same sum for both families.
    let sum = checksum(&[
        &octets(from.at.ip()),
        &octets(to.at.ip()),
        &length.to_be_bytes(),
        &6_u32.to_be_bytes(),
        &segment,
    ]);
    segment[16..18].copy_from_slice(&sum.to_be_bytes());
    Ok(segment)
}

/// The Internet checksum over parts of even length, the last of any length.
pub(crate) fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0_u32;
    for word in parts.iter().flat_map(|part| part.chunks(2)) {
        sum += u32::from(u16::from_be_bytes([word[0], word.get(1).copied().unwrap_or(0)]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// A conversation between a client's wire and a server's.
#[derive(Debug)]
pub struct Conversation {
    client: (Wire, End),
    server: (Wire, End),
    envelope: Envelope,
    client_seq: u32,
    server_seq: u32,
}

impl Conversation {
    /// A conversation between two hosts, in the names of `client` and `server`, which need not be theirs; nothing is
    /// sent yet.
    ///
    /// # Errors
    ///
    /// No privileges.
    pub fn between(
        (client_host, client): (&Host, SocketAddr),
        (server_host, server): (&Host, SocketAddr),
        envelope: Envelope,
        client_seq: u32,
    ) -> Result<Self> {
        Ok(Self {
            client: (Wire::open(client_host)?, End { mac: client_host.mac, at: client }),
            server: (Wire::open(server_host)?, End { mac: server_host.mac, at: server }),
            envelope,
            client_seq,
            server_seq: 1_000_000,
        })
    }

    /// The three segments of the opening.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn open(&mut self) -> Result<()> {
        self.client_says(flag::SYN, b"")?;
        self.server_says(flag::SYN | flag::ACK, b"")?;
        self.client_says(flag::ACK, b"")
    }

    /// A segment from the client.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn client_says(&mut self, flags: u8, payload: &[u8]) -> Result<()> {
        let ack = if flags & flag::ACK == 0 { 0 } else { self.server_seq };
        let said = Said { seq: self.client_seq, ack, flags, payload };
        let bytes = frame(self.client.1, self.server.1, &self.envelope, &said)?;
        self.client_seq = advance(&said)?;
        self.client.0.send(&bytes)?;
        thread::sleep(PASSAGE);
        Ok(())
    }

    /// A segment from the client that starts `back` bytes before the next one would, as a retransmission does.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn client_repeats(&mut self, back: u32, payload: &[u8]) -> Result<()> {
        let next = self.client_seq;
        self.client_seq = next.wrapping_sub(back);
        self.client_says(flag::ACK | flag::PSH, payload)?;
        let beyond = u32::try_from(payload.len())?.saturating_sub(back);
        self.client_seq = next.wrapping_add(beyond);
        Ok(())
    }

    /// Leaves out bytes of the client, as if they had gone another way.
    pub fn client_skips(&mut self, bytes: u32) {
        self.client_seq = self.client_seq.wrapping_add(bytes);
    }

    /// A segment from the server.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn server_says(&mut self, flags: u8, payload: &[u8]) -> Result<()> {
        let said = Said { seq: self.server_seq, ack: self.client_seq, flags, payload };
        let bytes = frame(self.server.1, self.client.1, &self.envelope, &said)?;
        self.server_seq = advance(&said)?;
        self.server.0.send(&bytes)
    }
}

/// Time for what a client sends to come in at the server's host: a softirq sees to that, which may be late. What a server
/// sends goes out at once.
const PASSAGE: Duration = Duration::from_millis(5);

/// The sender's next sequence number.
fn advance(said: &Said<'_>) -> Result<u32> {
    let control = u32::from(said.flags & flag::SYN != 0) + u32::from(said.flags & flag::FIN != 0);
    Ok(said.seq.wrapping_add(u32::try_from(said.payload.len())?).wrapping_add(control))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_sum_to_all_ones() {
        let end = |last: u8, port: u16| End {
            mac: [2, 0, 0, 0, 0, last],
            at: SocketAddr::from(([10, 0, 0, last], port)),
        };
        let said = Said { seq: 7, ack: 9, flags: flag::ACK, payload: b"odd" };
        let bytes = frame(end(1, 4000), end(2, 80), &Envelope::default(), &said).unwrap();
        assert_eq!(checksum(&[&bytes[14..34]]), 0);
        let length = (bytes.len() as u32 - 34).to_be_bytes();
        assert_eq!(checksum(&[&bytes[26..34], &length, &6_u32.to_be_bytes(), &bytes[34..]]), 0);
    }
}
