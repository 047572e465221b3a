//! Enters: segments made by hand. Leaves: what each stage of the pipeline costs, in time and allocations.

use std::{
    hint::black_box,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use mirror_agent::pipeline::{
    Endpoint, FlowKey, Limits, Pipeline, Policy, Segment, SeqNumber, Side, Span, TcpFlags, Timestamp,
    exchange::Purpose,
    flow::{CloseCause, FlowHandler, FlowInfo, FlowTable, Interest},
    http::{Event, RequestDecoder, RequestHead},
    policy::{Experiment, Methods, PathRule, Rule, SkipCounts, ValueRule},
};
use mirror_tests::{sys::interrupted, traffic::Same};

use crate::{
    report::{Figure, Table},
    sys::allocations,
};

/// Flows that take turns.
const FLOWS: u16 = 64;
/// Requests between two readings of the clock.
const BATCH: u64 = 10_000;
/// Between two requests, in nanoseconds: 20,000 a second.
const INTERVAL_NANOS: u64 = 50_000;
/// Length of the answer that is not copied, in bytes.
const ANSWER_BYTES: u32 = 1_200;

/// Measures each stage for about so long.
pub(crate) fn measure(duration: Duration) -> Result<Table> {
    let mut table = Table::new(
        "micro",
        "Stages of the pipeline, in this process: for one small GET and its answer's record",
        &["stage", "ns", "allocations"],
    );
    let raw = Same::get().0;
    let mut add = |name: &str, batch: &mut dyn FnMut()| -> Result<()> {
        let (nanos, allocated) = repeat(duration, batch)?;
        table.rows.push(vec![name.into(), nanos.into(), allocated.into()]);
        Ok(())
    };

    add("head parse", &mut || {
        for _ in 0..BATCH {
            black_box(RequestHead::parse(black_box(&raw))).ok();
        }
    })?;

    let mut decoder = RequestDecoder::new(&Limits::default());
    add("decode: head and end", &mut || {
        for _ in 0..BATCH {
            let mut input = black_box(&raw[..]);
            while !matches!(black_box(decoder.poll(&mut input)), Event::NeedMore) {}
        }
    })?;

    let mut traffic = Traffic::new(&raw);
    let mut flows = FlowTable::new(&Limits::default(), 1);
    traffic.open(&mut |segment| flows.handle_segment(segment, &mut SpanCounter::default()));
    let mut spans = SpanCounter::default();
    add("segment → span, both sides", &mut || {
        for _ in 0..BATCH {
            traffic.exchange(&mut |segment| flows.handle_segment(segment, &mut spans));
        }
    })?;
    if spans.bytes == 0 {
        bail!("no span was handed on");
    }

    for (name, interfaces) in
        [("a connection, both sides", 1), ("the same, seen at two interfaces under two addresses", 2)]
    {
        let mut traffic = Traffic::new(&raw);
        let mut flows = FlowTable::new(&Limits::default(), 1);
        let (mut spans, mut opened) = (SpanCounter::default(), 0);
        add(name, &mut || {
            for _ in 0..BATCH {
                opened += 1;
                traffic.connection(interfaces, &mut |segment| flows.handle_segment(segment, &mut spans));
            }
            flows.handle_time(Timestamp::from_nanos(traffic.now), &mut spans);
        })?;
        if flows.stats().opened != opened {
            bail!("of {opened} connections {} flows were made", flows.stats().opened);
        }
    }

    let mut sent = 0;
    for (name, others) in [
        ("the whole pipeline", Vec::new()),
        ("the same, behind 99 experiments of 10 rules", others(99, 10)?),
        ("the same, behind one experiment of 1,000 rules", others(1, 1_000)?),
    ] {
        let policy = Policy::new(others.into_iter().chain([Experiment::default()]).collect());
        let mut pipeline = Pipeline::new(Purpose::Replay(Arc::new(policy)), Limits::default(), 1);
        let mut traffic = Traffic::new(&raw);
        traffic.open(&mut |segment| pipeline.handle_segment(segment));
        let mut skips = SkipCounts::default();
        let mut taken = 0;
        sent = 0;
        add(name, &mut || {
            for _ in 0..BATCH {
                traffic.exchange(&mut |segment| pipeline.handle_segment(segment));
                sent += 1;
                while let Some(request) = pipeline.poll_request() {
                    taken += 1;
                    drop(black_box(request));
                }
            }
            black_box(pipeline.take_stats());
            pipeline.move_skips(&mut skips);
        })?;
        if taken != sent {
            bail!("of {sent} requests {taken} came out of the pipeline");
        }
    }
    table.note(format!(
        "Median of batches of {BATCH} (least–most); {FLOWS} keep-alive flows in turn, {} bytes a request. All {sent} requests of \
         the last row came out whole.",
        raw.len()
    ));
    Ok(table)
}

/// Experiments that are about paths and header fields of other requests.
fn others(experiments: usize, rules: usize) -> Result<Vec<Experiment>> {
    let experiment = |number: usize| -> Result<Experiment> {
        let rule = |rule: usize| -> Result<Rule> {
            let path = PathRule::prefix(&format!("/api/{number}/{rule}"))?;
            let value = ValueRule::Exact(rule.to_string().into_bytes().into());
            Ok(Rule::of_methods(Methods::default()).with_path(path).with_field("x-team", value)?)
        };
        let matches = (0..rules).map(rule).collect::<Result<_>>()?;
        Ok(Experiment { matches, ..Experiment::default() })
    };
    (0..experiments).map(experiment).collect()
}

/// Nanoseconds and allocations of one item of a batch.
fn repeat(duration: Duration, batch: &mut dyn FnMut()) -> Result<(Option<Figure>, Option<Figure>)> {
    batch();
    let (mut nanos, mut allocated) = (Vec::new(), Vec::new());
    let start = Instant::now();
    while start.elapsed() < duration {
        if interrupted() {
            bail!("interrupted");
        }
        let (before, began) = (allocations(), Instant::now());
        batch();
        nanos.push(began.elapsed().as_nanos() as f64 / BATCH as f64);
        allocated.push((allocations() - before) as f64 / BATCH as f64);
    }
    Ok((Figure::of(nanos), Figure::of(allocated)))
}

/// A segment of a connection: who sends it, its numbers, flags, what of its payload is copied, and its length.
type Step<'a> = (Side, u32, u32, u8, &'a [u8], u32);

/// What the kernel program would record of clients that take turns.
struct Traffic<'a> {
    raw: &'a [u8],
    /// Sequence numbers of client and server by flow.
    positions: Vec<(u32, u32)>,
    next: u16,
    now: u64,
    /// Connections made.
    connections: u32,
}

impl<'a> Traffic<'a> {
    fn new(raw: &'a [u8]) -> Self {
        Self { raw, positions: vec![(1, 1); usize::from(FLOWS)], next: 0, now: 1, connections: 0 }
    }

    /// The SYNs of both sides of every flow.
    fn open(&self, take: &mut dyn FnMut(&Segment<'_>)) {
        for flow in 0..FLOWS {
            for side in Side::ALL {
                let flags =
                    if side == Side::Client { TcpFlags::SYN.0 } else { TcpFlags::SYN.0 | TcpFlags::ACK.0 };
                take(&Segment {
                    seq: SeqNumber(0),
                    flags: TcpFlags(flags),
                    ..self.segment(flow, side, &[], 0)
                });
            }
        }
    }

    /// A request and the record of its answer on the next flow.
    fn exchange(&mut self, take: &mut dyn FnMut(&Segment<'_>)) {
        let flow = self.next;
        self.next = (self.next + 1) % FLOWS;
        self.now += INTERVAL_NANOS;
        let request_bytes = u32::try_from(self.raw.len()).unwrap_or(0);
        take(&self.segment(flow, Side::Client, self.raw, request_bytes));
        if let Some((client, _)) = self.positions.get_mut(usize::from(flow)) {
            *client = client.wrapping_add(request_bytes);
        }
        take(&self.segment(flow, Side::Server, b"HTTP/1.1 200", ANSWER_BYTES));
        if let Some((_, server)) = self.positions.get_mut(usize::from(flow)) {
            *server = server.wrapping_add(ANSWER_BYTES);
        }
    }

    /// A new connection with a request and the record of its answer, from its SYN to its end, at so many interfaces.
    fn connection(&mut self, interfaces: u32, take: &mut dyn FnMut(&Segment<'_>)) {
        self.now += INTERVAL_NANOS;
        self.connections = self.connections.wrapping_add(1);
        let request_bytes = u32::try_from(self.raw.len()).unwrap_or(0);
        let (request_end, answer_end) = (1 + request_bytes, 1 + ANSWER_BYTES);
        let (syn, ack, fin) = (TcpFlags::SYN.0, TcpFlags::ACK.0, TcpFlags::FIN.0);
        let (client, server) = (Side::Client, Side::Server);
        let segments: [Step<'_>; 6] = [
            (client, 0, 0, syn, &[], 0),
            (server, 0, 1, syn | ack, &[], 0),
            (client, 1, 1, ack, self.raw, request_bytes),
            (server, 1, request_end, ack, b"HTTP/1.1 200", ANSWER_BYTES),
            (client, request_end, answer_end, fin | ack, &[], 0),
            (server, answer_end, request_end + 1, fin | ack, &[], 0),
        ];
        for (side, seq, ack, flags, payload, payload_len) in segments {
            for interface in 0..interfaces {
                let mut segment = self.segment(0, side, payload, payload_len);
                let [_, _, high, low] = self.connections.to_be_bytes();
                let [_, network, ..] = self.connections.to_be_bytes();
                let addr = Ipv4Addr::new(198, 18, network, low);
                segment.flow.client = SocketAddr::from((addr, 10_000 + u16::from(high))).into();
                segment.flow.server.port += u16::try_from(interface).unwrap_or(0);
                let isn = self.connections.wrapping_mul(0x9e37_79b1);
                take(&Segment {
                    interface,
                    seq: SeqNumber(seq.wrapping_add(isn)),
                    ack: SeqNumber(ack.wrapping_add(isn)),
                    flags: TcpFlags(flags),
                    ..segment
                });
            }
        }
    }

    fn segment<'s>(&self, flow: u16, side: Side, payload: &'s [u8], payload_len: u32) -> Segment<'s> {
        let end =
            |host: u8, port: u16| Endpoint::from(SocketAddr::from((Ipv4Addr::new(192, 0, 2, host), port)));
        let (client, server) = self.positions.get(usize::from(flow)).copied().unwrap_or_default();
        let (seq, ack) = if side == Side::Client { (client, server) } else { (server, client) };
        Segment {
            flow: FlowKey { client: end(1, 40_000 + flow), server: end(2, 8_080), vlan: 0, vni: 0 },
            interface: 2,
            side,
            at: Timestamp::from_nanos(self.now),
            seq: SeqNumber(seq),
            ack: SeqNumber(ack),
            flags: TcpFlags::ACK,
            payload,
            payload_len,
        }
    }
}

/// The least that a stage behind the flow table can do.
#[derive(Default)]
struct SpanCounter {
    bytes: u64,
}

impl FlowHandler for SpanCounter {
    type State = ();

    fn open(&mut self, _flow: &FlowInfo) {}

    fn span(&mut self, _flow: &FlowInfo, _state: &mut (), _side: Side, span: Span<'_>) -> Interest {
        if let Span::Data { bytes, .. } = span {
            self.bytes += bytes.len() as u64;
        }
        Interest::Continue
    }

    fn close(&mut self, _flow: &FlowInfo, _state: (), _cause: CloseCause, _at: Timestamp) {}
}
