//! Enters: what the flow table hands on. Leaves: for each flow how far it came, or a panic where it breaks its word.

use std::collections::{HashMap, HashSet};

use mirror_agent::pipeline::{
    Side, Span, Timestamp,
    flow::{CloseCause, FlowHandler, FlowId, FlowInfo, Interest},
};

use super::wire::byte_at;

/// The stage behind the table.
#[derive(Debug, Default)]
pub(super) struct Recorder {
    pub(super) records: HashMap<FlowId, Record>,
    /// The connection whose segment is being handled.
    pub(super) current: Current,
    /// Bytes after which a flow is not wanted any more.
    ignore_after: Option<u64>,
    /// Connections of which a segment was forged, or that may have taken over the flow of another one.
    pub(super) tainted: HashSet<u32>,
    /// Sides of connections for which somebody sent other bytes.
    pub(super) contradicted: HashSet<(u32, usize)>,
    open: usize,
}

/// What is known of the segment being handled.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Current {
    pub(super) connection: u32,
    pub(super) side: usize,
    /// Place in the side's byte stream of the segment's first byte.
    pub(super) place: u64,
    /// The sides whose first byte the segment tells by a SYN.
    pub(super) anchors: [bool; 2],
}

/// One flow of the table.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) connection: u32,
    pub(super) sides: [SideRecord; 2],
    is_ignored: bool,
    closed: Option<CloseCause>,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SideRecord {
    /// Its first byte was told by a SYN.
    pub(super) is_anchored: bool,
    /// Place in the side's byte stream at which the flow's stream begins; `None` before its first span.
    pub(super) base: Option<u64>,
    /// Offset of the next span.
    pub(super) offset: u64,
    pub(super) gap_bytes: u64,
    has_ended: bool,
}

impl Recorder {
    pub(super) fn new(ignore_after: Option<u64>) -> Self {
        Self { ignore_after, ..Self::default() }
    }

    pub(super) const fn open_flows(&self) -> usize {
        self.open
    }

    /// The open records of a connection.
    pub(super) fn open_records(&mut self, connection: u32) -> impl Iterator<Item = &mut Record> {
        let records = self.records.values_mut();
        records.filter(move |record| record.closed.is_none() && record.connection == connection)
    }
}

impl FlowHandler for Recorder {
    type State = FlowId;

    fn open(&mut self, flow: &FlowInfo) -> FlowId {
        let record = Record {
            connection: self.current.connection,
            sides: self
                .current
                .anchors
                .map(|is_anchored| SideRecord { is_anchored, ..SideRecord::default() }),
            is_ignored: false,
            closed: None,
        };
        self.open += 1;
        assert!(self.records.insert(flow.id, record).is_none(), "a number is given twice");
        flow.id
    }

    fn span(&mut self, flow: &FlowInfo, state: &mut FlowId, side: Side, span: Span<'_>) -> Interest {
        assert_eq!(*state, flow.id, "the state of another flow");
        let current = self.current;
        let Some(record) = self.records.get_mut(state) else { unreachable!("a span before its flow opened") };
        assert!(record.closed.is_none() && !record.is_ignored, "a span that nobody wants");
        let connection = record.connection;
        let idx = usize::from(side == Side::Server);
        let is_certain =
            !self.tainted.contains(&connection) && !self.contradicted.contains(&(connection, idx));
        let stream = &mut record.sides[idx];
        assert!(!stream.has_ended, "a span behind the end");
        let is_own = current.connection == connection && current.side == idx;
        let base = *stream.base.get_or_insert(if stream.is_anchored || !is_own { 0 } else { current.place });
        match span {
            Span::Data { bytes, offset, conflict, .. } => {
                assert!(!bytes.is_empty());
                assert_eq!(offset, stream.offset, "not contiguous");
                stream.offset += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
                if is_certain {
                    assert!(!conflict, "a contradiction that nobody made");
                    for (place, byte) in (base + offset..).zip(bytes) {
                        assert_eq!(
                            *byte,
                            byte_at(connection, idx, place),
                            "a byte at {place} that was not sent"
                        );
                    }
                }
            }
            Span::Gap { len, offset, .. } => {
                assert!(len > 0);
                assert_eq!(offset, stream.offset, "not contiguous");
                stream.offset += len;
                stream.gap_bytes += len;
            }
            Span::End { .. } => stream.has_ended = true,
        }
        if self.ignore_after.is_some_and(|limit| stream.offset > limit) {
            record.is_ignored = true;
            return Interest::Ignore;
        }
        Interest::Continue
    }

    fn close(&mut self, flow: &FlowInfo, state: FlowId, cause: CloseCause, _at: Timestamp) {
        assert_eq!(state, flow.id, "the state of another flow");
        let record = self.records.get_mut(&state);
        let Some(record) = record else { unreachable!("a flow closes before it opened") };
        self.open -= 1;
        assert!(record.closed.replace(cause).is_none(), "a flow closes twice");
    }
}

impl Record {
    pub(super) const fn is_ignored(&self) -> bool {
        self.is_ignored
    }
}
