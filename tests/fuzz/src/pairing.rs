//! Enters: the course of a connection on which a client asks and a server answers, seen with losses. Leaves: a panic where
//! an answer is paired with another's request, a request is not answered exactly once, or an answer is missing though nothing
//! was lost.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    net::{Ipv4Addr, SocketAddr},
};

use mirror_agent::pipeline::{
    Answered, Endpoint, ExchangeId, FlowKey, Limits, Pipeline, Segment, SeqNumber, Side, TcpFlags, Timestamp,
    exchange::Purpose,
    policy::{Experiment, Methods},
};

use crate::input::Input;

/// Operations looked at.
const MOST_OPERATIONS: usize = 400;

/// How long a client that sends several requests at a time goes on with that after the server was last heard, in
/// nanoseconds.
const BURST_NANOS: u64 = 9_000_000;

const CLIENT: usize = 0;
const SERVER: usize = 1;

/// What both ends do, and what the capture sees of it.
struct World {
    pipeline: Pipeline,
    now: u64,
    server_at: u64,
    /// Sequence number behind what each side has sent.
    sent: [u32; 2],
    /// How much of the server's stream the client has.
    client_has: u32,
    /// Bytes that each side has to send yet.
    unsent: [VecDeque<u8>; 2],
    /// Requests that are not answered, oldest first: their numbers, and how many bytes the client must have sent, of all
    /// its requests, for the server to answer.
    outstanding: VecDeque<(u32, usize)>,
    /// Bytes of all requests so far.
    asked_bytes: usize,
    /// How many bytes of requests there were when each began.
    begins: BTreeSet<usize>,
    next: u32,
    /// How many requests the client sends at a time.
    depth: usize,
    /// Segments pass unseen.
    loses: bool,
    /// The server may answer before a request has ended; else bodies look like requests.
    is_hasty: bool,
    /// Bytes of all answers so far.
    answered_bytes: usize,
    /// How many bytes of answers there are when each has ended.
    ends: Vec<usize>,
    /// The connection was seen from its beginning.
    is_opened: bool,
    /// Requests that were handed out, by number; `None` for what was none.
    asked: HashMap<ExchangeId, Option<u32>>,
    /// Requests that were paired with all of their answers.
    whole: usize,
}

/// An answer may be missing where segments are, but it is never another's. Returns how many there were in full.
pub(crate) fn run(bytes: &[u8]) -> usize {
    let mut input = Input::new(bytes);
    let config = input.byte();
    let mut world = World::new(config);
    let mut left = MOST_OPERATIONS;
    while !input.is_empty() && left > 0 {
        left -= 1;
        world.apply(&mut input);
        world.collect();
    }
    world.finish(config & 0x10 != 0);
    world.whole
}

impl World {
    fn new(config: u8) -> Self {
        let experiment = Experiment { reads_answers: true, ..Experiment::of_methods(Methods::All) };
        // Behind more requests than are followed, answers are missing, too.
        let loses = config & 2 != 0;
        let limits = Limits {
            answer_bytes: 4_000,
            outstanding: if loses { 6 } else { MOST_OPERATIONS },
            ..Limits::default()
        };
        let mut world = Self {
            pipeline: Pipeline::new(Purpose::replay(experiment), limits, 0),
            now: 1,
            server_at: 0,
            sent: [1_000, u32::MAX - 200],
            client_has: u32::MAX - 200,
            unsent: Default::default(),
            outstanding: VecDeque::new(),
            asked_bytes: 0,
            begins: BTreeSet::new(),
            next: 0,
            depth: if config & 1 == 0 { 1 } else { 4 },
            loses,
            is_hasty: config & 8 != 0,
            answered_bytes: 0,
            ends: Vec::new(),
            is_opened: config & 4 == 0,
            asked: HashMap::new(),
            whole: 0,
        };
        if world.is_opened {
            world.segment(CLIENT, 999, TcpFlags::SYN, b"", 0);
            world.segment(SERVER, u32::MAX - 201, TcpFlags(TcpFlags::SYN.0 | TcpFlags::ACK.0), b"", 0);
        }
        world
    }

    fn apply(&mut self, input: &mut Input<'_>) {
        let choice = input.byte();
        self.now += 100_000;
        match choice & 7 {
            0 => self.ask(),
            1 | 2 => self.flush(CLIENT, input),
            3 => self.answer(choice & 0x40 != 0),
            4 | 5 => self.flush(SERVER, input),
            6 => self.client_has = self.sent[SERVER],
            _ => {
                // How long a server takes is anybody's guess; a client that sends several requests at a time waits for
                // their answers before it pauses.
                let is_free = self.depth == 1 || self.is_idle();
                let milliseconds = u64::from(input.byte()) * if is_free { 4 } else { 0 };
                self.now += milliseconds * 1_000_000;
                self.pipeline.handle_time(Timestamp::from_nanos(self.now));
            }
        }
    }

    /// Nothing is outstanding or on its way.
    fn is_idle(&self) -> bool {
        self.outstanding.is_empty() && self.unsent.iter().all(VecDeque::is_empty)
    }

    /// The client would begin another request, so long after the server was last heard that it does not while it waits for an answer.
    fn has_paused(&self) -> bool {
        let sent = self.asked_bytes - self.unsent[CLIENT].len();
        let is_waiting = !self.unsent[SERVER].is_empty()
            || self.outstanding.front().is_some_and(|(_, needed)| *needed <= sent);
        self.begins.contains(&sent) && is_waiting && self.now > self.server_at + BURST_NANOS
    }

    /// The client has another request to send, if it would send one.
    fn ask(&mut self) {
        if self.is_idle() {
            self.client_has = self.sent[SERVER];
        } else if self.outstanding.len() >= self.depth
            || self.depth == 1
            || self.now > self.server_at + BURST_NANOS
        {
            return;
        }
        let number = self.next;
        self.next += 1;
        let raw = match number % 5 {
            0 => {
                let body =
                    if self.is_hasty { "x".repeat(60) } else { "GET /fake HTTP/1.1\r\n\r\n".repeat(4) };
                format!("POST /{number} HTTP/1.1\r\nContent-Length: {}\r\n\r\n{body}", body.len())
            }
            _ if is_head(number) => format!("HEAD /{number} HTTP/1.1\r\n\r\n"),
            _ => format!("GET /{number} HTTP/1.1\r\n\r\n"),
        };
        self.unsent[CLIENT].extend(raw.as_bytes());
        self.begins.insert(self.asked_bytes);
        self.asked_bytes += raw.len();
        let early = if self.is_hasty && raw.starts_with("POST") { 30 } else { 0 };
        self.outstanding.push_back((number, self.asked_bytes - early));
    }

    /// The server has its oldest answer to send.
    fn answer(&mut self, is_announced: bool) {
        let sent = self.asked_bytes - self.unsent[CLIENT].len();
        let Some((number, _)) = self.outstanding.pop_front_if(|(_, needed)| *needed <= sent) else { return };
        let announced = if is_announced { "HTTP/1.1 103 Early Hints\r\n\r\n" } else { "" };
        let raw = format!("{announced}{}", response(number));
        self.answered_bytes += raw.len();
        self.ends.push(self.answered_bytes);
        self.unsent[SERVER].extend(raw.as_bytes());
    }

    /// A side sends a part of what it has to.
    fn flush(&mut self, side: usize, input: &mut Input<'_>) {
        let choice = input.byte();
        // Most often all; sometimes so that the next segment begins with what looks like a message.
        let len = match choice & 0x0f {
            0..=7 => usize::MAX,
            8..=10 => 22,
            11 => 40,
            short => usize::from(short),
        };
        let len = len.min(self.unsent[side].len());
        if len == 0 || side == CLIENT && self.has_paused() {
            return;
        }
        let bytes: Vec<u8> = self.unsent[side].drain(..len).collect();
        let seq = self.sent[side];
        self.sent[side] = seq.wrapping_add(u32::try_from(len).unwrap_or(0));
        if side == SERVER {
            self.server_at = self.now;
        }
        let copied = match choice >> 4 {
            0 if self.loses => return,
            1 if self.loses => len / 2,
            _ => len,
        };
        let times = if choice >> 4 == 2 { 2 } else { 1 };
        for _ in 0..times {
            self.segment(side, seq, TcpFlags::ACK, &bytes[..copied], len);
        }
    }

    fn segment(&mut self, side: usize, seq: u32, flags: TcpFlags, payload: &[u8], len: usize) {
        let end = |host, port| Endpoint::from(SocketAddr::from((Ipv4Addr::new(10, 0, 0, host), port)));
        // What the client sends is seen at the server, which has it.
        let ack = if side == CLIENT { self.client_has } else { self.sent[CLIENT] };
        self.pipeline.handle_segment(&Segment {
            flow: FlowKey { client: end(1, 4_000), server: end(2, 80), vlan: 0, vni: 0 },
            interface: 1,
            side: Side::ALL[side],
            at: Timestamp::from_nanos(self.now),
            seq: SeqNumber(seq),
            ack: SeqNumber(ack),
            flags,
            payload,
            payload_len: u32::try_from(len).unwrap_or(0),
        });
    }

    fn collect(&mut self) {
        while let Some(request) = self.pipeline.poll_request() {
            let line = request.raw.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
            let number = str::from_utf8(line.get(1..).unwrap_or_default()).ok().and_then(|n| n.parse().ok());
            assert!(self.asked.insert(request.id, number).is_none(), "a request is handed out twice");
        }
        while let Some((id, answered)) = self.pipeline.poll_answer() {
            let asked = self.asked.remove(&id);
            assert!(asked.is_some(), "what was not asked is answered, or twice");
            match (answered, asked.flatten()) {
                (Answered::Whole(answer), Some(number)) => {
                    let raw = response(number);
                    assert!(raw.as_bytes().starts_with(&answer.head), "another's answer");
                    assert_eq!(answer.content.len(), content(number).len(), "another's content");
                    assert_eq!(&answer.content[..], content(number).as_bytes());
                    assert_eq!(answer.status, status(number));
                    let timing = answer.timing.ok();
                    assert!(timing.is_none_or(|timing| timing.asked_at <= timing.first_byte_at));
                    self.whole += 1;
                }
                (Answered::Partly { status: told, .. }, Some(number)) => assert_eq!(told, status(number)),
                (answered, _) => assert!(matches!(answered, Answered::Not(_)), "an answer to no request"),
            }
        }
    }

    fn finish(&mut self, is_orderly: bool) {
        if is_orderly {
            for side in [CLIENT, SERVER] {
                self.segment(side, self.sent[side], TcpFlags(TcpFlags::FIN.0 | TcpFlags::ACK.0), b"", 0);
            }
        }
        self.pipeline.finish(Timestamp::from_nanos(self.now));
        self.collect();
        assert!(self.asked.is_empty(), "requests are never answered: {:?}", self.asked);
        assert_eq!(self.pipeline.bytes_held().1, 0, "bytes of messages are held behind the end");
        if !self.loses && self.is_opened && !self.is_hasty {
            let sent = self.answered_bytes - self.unsent[SERVER].len();
            let ended = self.ends.iter().filter(|end| **end <= sent).count();
            assert_eq!(self.whole, ended, "nothing was lost, and an answer is missing");
        }
    }
}

/// Seven in a row are unlike.
fn status(number: u32) -> u16 {
    [200, 201, 202, 204, 203, 404, 500][usize::try_from(number % 7).unwrap_or(0)]
}

fn is_head(number: u32) -> bool {
    number % 11 == 3 && !number.is_multiple_of(5)
}

/// The content of the answer as it is compared.
fn content(number: u32) -> String {
    if is_head(number) || status(number) == 204 {
        return String::new();
    }
    let fake = "HTTP/1.1 200 OK\r\n\r\nfak".repeat(usize::try_from(number % 4).unwrap_or(0));
    format!("{fake}answer to {number}")
}

fn response(number: u32) -> String {
    let (status, content) = (status(number), content(number));
    let head = format!("HTTP/1.1 {status} S\r\nX-Number: {number}\r\n");
    match number % 3 {
        _ if status == 204 => format!("{head}\r\n"),
        // Of a HEAD the length is that of what a GET would get.
        _ if is_head(number) => format!("{head}Content-Length: 77\r\n\r\n"),
        0 => {
            let len = content.len();
            format!("{head}Transfer-Encoding: chunked\r\n\r\n{len:x}\r\n{content}\r\n0\r\n\r\n")
        }
        _ => format!("{head}Content-Length: {}\r\n\r\n{content}", content.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::run;

    #[test]
    fn answers_are_paired_where_nothing_is_lost() {
        // Ask, send it, answer, send that; three times, and orderly ended.
        let exchange = [0, 1, 0x30, 3, 4, 0x30, 6];
        let course = [&[0x10][..], &exchange, &exchange, &exchange].concat();
        assert_eq!(run(&course), 3);
    }
}
