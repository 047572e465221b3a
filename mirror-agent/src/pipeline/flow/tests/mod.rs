//! Enters: what a test sends. Leaves: what the handler was told, written down so that a line shows it.

mod assembler;
mod holders;
mod interfaces;
mod interruption;
mod model;
mod properties;
mod table;

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use super::{CloseCause, FlowHandler, FlowId, FlowInfo, FlowTable, Interest};
use crate::pipeline::{
    Acked, Endpoint, FlowKey, GapCause, Limits, Segment, SeqNumber, Side, Span, TcpFlags, Timestamp,
};

const SYN: TcpFlags = TcpFlags::SYN;
const ACK: TcpFlags = TcpFlags::ACK;
const FIN: TcpFlags = TcpFlags::FIN;
const RST: TcpFlags = TcpFlags::RST;
const SYN_ACK: TcpFlags = TcpFlags(SYN.0 | ACK.0);
const FIN_ACK: TcpFlags = TcpFlags(FIN.0 | ACK.0);
const RST_ACK: TcpFlags = TcpFlags(RST.0 | ACK.0);

/// Sequence numbers of the SYNs; the client's stream wraps after some bytes.
const CLIENT_ISN: u32 = u32::MAX - 6;
const SERVER_ISN: u32 = 7_000;

/// What was handed on of one flow.
#[derive(Debug, Default)]
struct Record {
    client: SideRecord,
    server: SideRecord,
    closed: Option<CloseCause>,
}

#[derive(Debug, Default)]
struct SideRecord {
    /// Data as text, gaps as `<3 lost>` or `<3 not copied>`, the end as `.` or `#` for a reset.
    text: String,
    /// The same with `!` before data in conflict, spans separated by `|`, and `@acked` behind data.
    detail: String,
    data: Vec<u8>,
    gaps: Vec<(u64, u64)>,
    /// Places that were handed on with a conflict.
    conflicts: Vec<u64>,
    offset: u64,
    ended: bool,
}

/// A handler that writes everything down and checks the contract of the spans.
#[derive(Debug, Default)]
struct Recorder {
    flows: BTreeMap<FlowId, (FlowInfo, Record)>,
    /// Ignore a flow once its client has sent this many bytes.
    ignore_after: Option<u64>,
}

impl FlowHandler for Recorder {
    type State = FlowId;

    fn open(&mut self, flow: &FlowInfo) -> FlowId {
        assert!(self.flows.insert(flow.id, (*flow, Record::default())).is_none(), "opened twice");
        flow.id
    }

    fn span(&mut self, flow: &FlowInfo, state: &mut FlowId, side: Side, span: Span<'_>) -> Interest {
        assert_eq!(flow.id, *state);
        let (_, record) = self.flows.get_mut(state).unwrap();
        assert_eq!(record.closed, None, "span after close");
        let record = match side {
            Side::Client => &mut record.client,
            Side::Server => &mut record.server,
        };
        record.note(span);
        match self.ignore_after {
            Some(limit) if record.offset >= limit => Interest::Ignore,
            _ => Interest::Continue,
        }
    }

    fn close(&mut self, flow: &FlowInfo, state: FlowId, cause: CloseCause, _: Timestamp) {
        assert_eq!(flow.id, state);
        let (_, record) = self.flows.get_mut(&state).unwrap();
        assert_eq!(record.closed.replace(cause), None, "closed twice");
    }
}

impl SideRecord {
    fn note(&mut self, span: Span<'_>) {
        assert!(!self.ended, "span after the end");
        if !self.detail.is_empty() {
            self.detail.push('|');
        }
        match span {
            Span::Data { bytes, offset, acked, conflict, .. } => {
                assert_eq!(offset, self.offset, "spans are contiguous");
                assert!(!bytes.is_empty());
                if conflict {
                    self.detail.push('!');
                    self.conflicts.extend(offset..offset + bytes.len() as u64);
                }
                let text = String::from_utf8_lossy(bytes);
                self.text.push_str(&text);
                self.detail.push_str(&text);
                if let Some(acked) = acked.offset() {
                    write!(self.detail, "@{acked}").unwrap();
                }
                self.data.extend_from_slice(bytes);
                self.offset += bytes.len() as u64;
            }
            Span::Gap { len, offset, cause, .. } => {
                assert_eq!(offset, self.offset, "spans are contiguous");
                assert_ne!(len, 0);
                let cause_text = match cause {
                    GapCause::Lost => "lost",
                    GapCause::NotCopied => "not copied",
                    GapCause::Unmeasured => "unmeasured",
                };
                let text = format!("<{len} {cause_text}>");
                self.text.push_str(&text);
                self.detail.push_str(&text);
                self.gaps.push((offset, len));
                self.offset += len;
            }
            Span::End { reset, .. } => {
                let text = if reset { "#" } else { "." };
                self.text.push_str(text);
                self.detail.push_str(text);
                self.ended = true;
            }
        }
    }
}

/// A table, its handler, and one connection whose segments are written with offsets instead of sequence numbers.
struct Wire {
    table: FlowTable<FlowId>,
    recorder: Recorder,
    now: Timestamp,
    key: FlowKey,
    /// The interface at which what is sent is seen.
    interface: u32,
    client_isn: u32,
    server_isn: u32,
}

impl Wire {
    /// No segment sent yet.
    fn silent(limits: &Limits) -> Self {
        Self {
            table: FlowTable::new(limits, 42),
            recorder: Recorder::default(),
            now: Timestamp::from_nanos(1_000_000_000),
            key: key(40_000),
            interface: 1,
            client_isn: CLIENT_ISN,
            server_isn: SERVER_ISN,
        }
    }

    /// After the handshake.
    fn connected(limits: &Limits) -> Self {
        let mut wire = Self::silent(limits);
        wire.handshake();
        wire
    }

    fn handshake(&mut self) {
        self.client(-1, 0, b"", SYN);
        self.server(-1, 0, b"", SYN_ACK);
        self.client(0, 0, b"", ACK);
    }

    /// A segment of the client: offset of its first byte (-1 for a SYN) and of what it acknowledges.
    fn client(&mut self, offset: i64, ack: i64, payload: &[u8], flags: TcpFlags) {
        self.send(Side::Client, offset, ack, payload, payload.len(), flags);
    }

    /// A segment of the server.
    fn server(&mut self, offset: i64, ack: i64, payload: &[u8], flags: TcpFlags) {
        self.send(Side::Server, offset, ack, payload, payload.len(), flags);
    }

    fn send(&mut self, side: Side, offset: i64, ack: i64, payload: &[u8], len: usize, flags: TcpFlags) {
        let (own, peer) = match side {
            Side::Client => (self.client_isn, self.server_isn),
            Side::Server => (self.server_isn, self.client_isn),
        };
        let segment = Segment {
            flow: self.key,
            interface: self.interface,
            side,
            at: self.now,
            seq: number(own, offset),
            ack: number(peer, ack),
            flags,
            payload,
            payload_len: u32::try_from(len).unwrap(),
        };
        self.table.handle_segment(&segment, &mut self.recorder);
    }

    /// Lets time pass.
    fn wait(&mut self, duration: Duration) {
        self.now = self.now.after(duration);
        self.table.handle_time(self.now, &mut self.recorder);
    }

    fn interrupt(&mut self) {
        self.table.interrupt(self.now, |_| true, &mut self.recorder);
    }

    fn finish(&mut self) {
        self.table.finish(self.now, &mut self.recorder);
    }

    /// The record of the flow opened last.
    fn record(&self) -> &Record {
        &self.recorder.flows.last_key_value().unwrap().1.1
    }

    /// The client's stream of the flow opened last, as text.
    fn client_text(&self) -> &str {
        &self.record().client.text
    }

    /// The server's stream of the flow opened last, as text.
    fn server_text(&self) -> &str {
        &self.record().server.text
    }

    /// How each flow was closed, in the order of opening.
    fn closings(&self) -> Vec<Option<CloseCause>> {
        self.recorder.flows.values().map(|(_, record)| record.closed).collect()
    }
}

fn key(client_port: u16) -> FlowKey {
    let endpoint = |addr: &str, port| Endpoint::from(std::net::SocketAddr::new(addr.parse().unwrap(), port));
    FlowKey { client: endpoint("10.0.0.1", client_port), server: endpoint("10.0.0.2", 80), vlan: 0, vni: 0 }
}

/// The sequence number of the byte at `offset` of a stream whose SYN has the number `isn`.
fn number(isn: u32, offset: i64) -> SeqNumber {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "modulo 2^32 is what is wanted"
    )]
    SeqNumber(isn.wrapping_add(1).wrapping_add(offset as u32))
}
