//! Enters: conversations, written down as capture files. Leaves: the lines that `inspect` prints of them.

mod encapsulations;
mod exchanges;
mod framing;
mod printing;
mod resets;

use std::{io::Write, time::Duration};

use etherparse::{PacketBuilder, PacketBuilderStep, TcpHeader};
use serde_json::Value;

use super::{FilePipeline, run};
use crate::pipeline::{Side, TcpFlags};

/// When captures begin, in nanoseconds since the epoch.
const START: u64 = 1_700_000_000_000_000_000;

const CLIENT: usize = Side::Client as usize;
const SERVER: usize = Side::Server as usize;

/// A capture file in the making: connections to one server, a frame each millisecond.
struct Capture {
    link_type: u32,
    now: u64,
    file: Vec<u8>,
}

/// One connection: the next sequence number of each side.
struct Talk {
    port: u16,
    next: [u32; 2],
}

impl Capture {
    fn new(link_type: u32) -> Self {
        let header = [0xa1b2_3c4d, 0x0004_0002, 0, 0, 262_144, link_type];
        Self { link_type, now: START, file: header.map(u32::to_le_bytes).concat() }
    }

    fn ethernet() -> Self {
        Self::new(1)
    }

    /// A connection from its handshake on.
    fn connect(&mut self, port: u16) -> Talk {
        let mut talk = Talk::older(port);
        self.frame(&talk, Side::Client, TcpFlags::SYN, 0, b"");
        talk.next[CLIENT] += 1;
        self.frame(&talk, Side::Server, TcpFlags(0x12), 0, b"");
        talk.next[SERVER] += 1;
        self.frame(&talk, Side::Client, TcpFlags::ACK, 0, b"");
        talk
    }

    fn client(&mut self, talk: &mut Talk, bytes: &[u8]) {
        self.frame(talk, Side::Client, TcpFlags::ACK, 0, bytes);
        talk.skip(Side::Client, bytes.len());
    }

    fn server(&mut self, talk: &mut Talk, bytes: &[u8]) {
        self.frame(talk, Side::Server, TcpFlags::ACK, 0, bytes);
        talk.skip(Side::Server, bytes.len());
    }

    fn fin(&mut self, talk: &mut Talk, side: Side) {
        self.frame(talk, side, TcpFlags(0x11), 0, b"");
        talk.skip(side, 1);
    }

    /// A frame with `payload`, `ahead` bytes from the side's next one.
    fn frame(&mut self, talk: &Talk, side: Side, flags: TcpFlags, ahead: i32, payload: &[u8]) {
        self.now += 1_000_000;
        let seq = talk.next[side as usize].wrapping_add_signed(ahead);
        let ack = talk.next[side.peer() as usize];
        let (client, server) = ([192, 0, 2, 1], [192, 0, 2, 2]);
        let builder = match side {
            Side::Client => PacketBuilder::ipv4(client, server, 64).tcp(talk.port, 80, seq, 1000),
            Side::Server => PacketBuilder::ipv4(server, client, 64).tcp(80, talk.port, seq, 1000),
        };
        let mut frame = link_header(self.link_type);
        with_flags(builder, flags, ack).write(&mut frame, payload).unwrap();
        self.record(&frame);
    }

    fn record(&mut self, frame: &[u8]) {
        let len = u32::try_from(frame.len()).unwrap();
        let [seconds, nanos] =
            [self.now / 1_000_000_000, self.now % 1_000_000_000].map(|part| u32::try_from(part).unwrap());
        self.file.extend([seconds, nanos, len, len].map(u32::to_le_bytes).concat());
        self.file.extend(frame);
    }

    fn pause(&mut self, duration: Duration) {
        self.now += u64::try_from(duration.as_nanos()).unwrap();
    }

    fn text(&self) -> String {
        let (text, warnings) = self.run();
        assert_eq!(warnings, "");
        text
    }

    /// What is printed, and what is warned of.
    fn run(&self) -> (String, String) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&self.file).unwrap();
        let (mut out, mut warnings) = (Vec::new(), Vec::new());
        run(file.path(), vec![], &mut FilePipeline::new(), &mut out, &mut warnings).unwrap();
        (String::from_utf8(out).unwrap(), String::from_utf8(warnings).unwrap())
    }

    fn lines(&self) -> Vec<Value> {
        self.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Each line in short: method and target or `-`, then status, bytes and completeness of the response or `-`.
    fn summary(&self) -> Vec<String> {
        self.lines().iter().map(summary).collect()
    }
}

impl Talk {
    /// A connection that is older than the capture; the client's stream wraps after some bytes.
    const fn older(port: u16) -> Self {
        Self { port, next: [u32::MAX - 20, 5_000] }
    }

    /// Bytes that the capture does not see.
    fn skip(&mut self, side: Side, len: usize) {
        let next = &mut self.next[side as usize];
        *next = next.wrapping_add(u32::try_from(len).unwrap());
    }
}

fn with_flags(
    mut builder: PacketBuilderStep<TcpHeader>,
    flags: TcpFlags,
    ack: u32,
) -> PacketBuilderStep<TcpHeader> {
    if flags.has(TcpFlags::SYN) {
        builder = builder.syn();
    }
    if flags.has(TcpFlags::FIN) {
        builder = builder.fin();
    }
    if flags.has(TcpFlags::RST) {
        builder = builder.rst();
    }
    if flags.has(TcpFlags::ACK) {
        builder = builder.ack(ack);
    }
    builder
}

fn link_header(link_type: u32) -> Vec<u8> {
    match link_type {
        0 => 2_u32.to_le_bytes().to_vec(),
        108 => 2_u32.to_be_bytes().to_vec(),
        1 => [&[0; 12][..], &[8, 0]].concat(),
        113 => [&[0, 0, 0, 1, 0, 6][..], &[0; 8], &[8, 0]].concat(),
        276 => [&[8, 0][..], &[0; 18]].concat(),
        _ => Vec::new(),
    }
}

fn summary(line: &Value) -> String {
    let (request, response) = (&line["request"], &line["response"]);
    let mut text = match (request["method"].as_str(), request["target"].as_str()) {
        (Some(method), Some(target)) => format!("{method} {target}"),
        _ => "-".to_owned(),
    };
    if let Some(reason) = request["refused"].as_str() {
        text.push_str(&format!(" ({reason})"));
    }
    let Some(status) = response["status"].as_u64() else { return text + " > -" };
    let end = if response["complete"] == true { "" } else { " incomplete" };
    format!("{text} > {status} {}{end}", response["body_bytes"])
}
