//! Enters: what two ends say. Leaves: the frames of it, and what the capture is expected to hold.

use std::net::{Ipv6Addr, SocketAddr};

use super::{
    Case,
    container::{Order, Taped, Unit, pcap},
    expected::{Exchange, Told},
};
use crate::frames::{End, Envelope, Said, flag, frame};

/// A capture in the making: a frame each millisecond.
#[derive(Debug)]
pub(super) struct Script {
    now: u64,
    pub(super) frames: Vec<Taped>,
    pub(super) expected: Vec<Exchange>,
}

/// One end of a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Who {
    Client,
    Server,
}

/// A connection: where each end stands.
#[derive(Clone, Debug)]
pub(super) struct Talk {
    pub(super) client: End,
    pub(super) server: End,
    pub(super) envelope: Envelope,
    pub(super) client_seq: u32,
    pub(super) server_seq: u32,
}

/// When captures begin, in nanoseconds since the epoch.
const START: u64 = 1_700_000_000_000_000_000;

/// Data in flight.
pub(super) const DATA: u8 = flag::ACK | flag::PSH;

/// A refusal, or the end of all.
pub(super) const RST: u8 = 0x04;

/// A request without a body.
pub(super) const GET: &[u8] = b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n";

/// A response with the body `abc`.
pub(super) const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc";

/// A case whose capture is a pcap file of Ethernet frames.
pub(super) fn case(name: &'static str, proves: &'static str, play: impl FnOnce(&mut Script)) -> Case {
    case_in(name, proves, play, |frames| pcap(frames, Unit::Micro, Order::Little))
}

/// A case whose frames become a file by `pack`.
pub(super) fn case_in(
    name: &'static str,
    proves: &'static str,
    play: impl FnOnce(&mut Script),
    pack: impl FnOnce(&[Taped]) -> Vec<u8>,
) -> Case {
    let mut script = Script { now: START, frames: Vec::new(), expected: Vec::new() };
    play(&mut script);
    Case { name, proves, file: pack(&script.frames), expected: script.expected }
}

impl Talk {
    /// A connection from this port of the client to port 80.
    pub(super) fn new(port: u16) -> Self {
        Self::between(([192, 0, 2, 1], port).into(), ([192, 0, 2, 2], 80).into())
    }

    /// A connection over IPv6.
    pub(super) fn over_ipv6() -> Self {
        let end = |last, port| (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last), port).into();
        Self::between(end(1, 4000), end(2, 80))
    }

    /// A connection between these ends.
    pub(super) fn between(client: SocketAddr, server: SocketAddr) -> Self {
        Self {
            client: End { mac: [2, 0, 0, 0, 0, 1], at: client },
            server: End { mac: [2, 0, 0, 0, 0, 2], at: server },
            envelope: Envelope::default(),
            client_seq: 1000,
            server_seq: 5000,
        }
    }

    /// The same with this around each segment.
    pub(super) fn in_envelope(self, envelope: Envelope) -> Self {
        Self { envelope, ..self }
    }

    /// Leaves out bytes of `who`, as if they had gone another way.
    pub(super) fn skip(&mut self, who: Who, bytes: usize) {
        let seq = self.seq_mut(who);
        *seq = seq.wrapping_add(bytes as u32);
    }

    fn seq_mut(&mut self, who: Who) -> &mut u32 {
        match who {
            Who::Client => &mut self.client_seq,
            Who::Server => &mut self.server_seq,
        }
    }
}

impl Script {
    /// A new connection to port 80, its handshake done.
    pub(super) fn connect(&mut self, port: u16) -> Talk {
        self.open(Talk::new(port))
    }

    /// The handshake.
    pub(super) fn open(&mut self, mut talk: Talk) -> Talk {
        self.say(&mut talk, Who::Client, flag::SYN, b"");
        self.say(&mut talk, Who::Server, flag::SYN | flag::ACK, b"");
        self.say(&mut talk, Who::Client, flag::ACK, b"");
        talk
    }

    /// Bytes of the client.
    pub(super) fn client(&mut self, talk: &mut Talk, bytes: impl AsRef<[u8]>) {
        self.say(talk, Who::Client, DATA, bytes.as_ref());
    }

    /// Bytes of the server.
    pub(super) fn server(&mut self, talk: &mut Talk, bytes: impl AsRef<[u8]>) {
        self.say(talk, Who::Server, DATA, bytes.as_ref());
    }

    /// Both ends close, the server first.
    pub(super) fn close(&mut self, talk: &mut Talk) {
        self.say(talk, Who::Server, flag::FIN | flag::ACK, b"");
        self.say(talk, Who::Client, flag::FIN | flag::ACK, b"");
        self.say(talk, Who::Server, flag::ACK, b"");
    }

    /// The next segment of `who`.
    pub(super) fn say(&mut self, talk: &mut Talk, who: Who, flags: u8, payload: &[u8]) {
        self.say_at(talk, who, 0, flags, payload);
        let control = u32::from(flags & flag::SYN != 0) + u32::from(flags & flag::FIN != 0);
        talk.skip(who, payload.len() + control as usize);
    }

    /// A segment of `who` that starts `ahead` bytes from its next one, which stays where it is.
    #[expect(
        clippy::expect_used,
        reason = "cases are written by hand: both ends of a talk are of one family"
    )]
    pub(super) fn say_at(&mut self, talk: &Talk, who: Who, ahead: i32, flags: u8, payload: &[u8]) {
        let (from, to, seq, ack) = match who {
            Who::Client => (talk.client, talk.server, talk.client_seq, talk.server_seq),
            Who::Server => (talk.server, talk.client, talk.server_seq, talk.client_seq),
        };
        let ack = if flags & flag::ACK == 0 { 0 } else { ack };
        let said = Said { seq: seq.wrapping_add_signed(ahead), ack, flags, payload };
        let bytes = frame(from, to, &talk.envelope, &said).expect("ends of one family");
        let wire_len = bytes.len() as u32;
        let at = self.tick();
        self.frames.push(Taped { at, bytes, wire_len, link_type: 1 });
    }

    /// Lets time pass, in milliseconds.
    pub(super) fn pause(&mut self, millis: u64) {
        self.now += millis * 1_000_000;
    }

    fn tick(&mut self) -> u64 {
        self.now += 1_000_000;
        self.now
    }

    /// The capture holds this exchange.
    pub(super) fn expect(&mut self, request: Told, response: Told) {
        self.expected.push(Exchange {
            request: Some(request),
            response: Some(response),
            ..Exchange::default()
        });
    }

    /// The capture holds this exchange, with interim responses.
    pub(super) fn expect_interim(&mut self, request: Told, interim: &[u64], response: Told) {
        self.expect(request, response);
        if let Some(exchange) = self.expected.last_mut() {
            exchange.interim = interim.to_vec();
        }
    }

    /// The capture holds this request without an answer.
    pub(super) fn expect_request(&mut self, request: Told) {
        self.expected.push(Exchange { request: Some(request), ..Exchange::default() });
    }

    /// The capture holds this response without its request.
    pub(super) fn expect_response(&mut self, response: Told) {
        self.expected.push(Exchange { response: Some(response), ..Exchange::default() });
    }

    /// [`GET`] answered by [`OK`] on `talk`, and expected.
    pub(super) fn usual(&mut self, talk: &mut Talk) {
        self.client(talk, GET);
        self.server(talk, OK);
        self.expect_usual();
    }

    /// The capture holds [`GET`] answered by [`OK`].
    pub(super) fn expect_usual(&mut self) {
        self.expect(super::expected::told("GET /a"), super::expected::told("200").body("abc"));
    }
}
