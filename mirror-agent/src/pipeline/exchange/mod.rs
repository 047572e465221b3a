//! Enters: spans of both sides of each flow. Leaves: requests to replay, reports of exchanges, and counts.

mod builder;
mod client;
mod context;
mod message;
mod observer;
mod pairing;
mod quiet;
pub mod report;
mod trust;

#[cfg(test)]
mod tests;

pub(crate) use context::Context;
pub use context::{PROBE_PREFIX, Probe, Purpose};

use crate::pipeline::{
    ExchangeId, FlowKey, Side, Span, Timestamp,
    exchange::{
        client::ClientSide,
        observer::{RequestObserver, Run},
        pairing::Pairing,
        quiet::QuietMoments,
        report::{MessageReport, Place},
    },
    flow::{CloseCause, FlowHandler, FlowInfo, Interest},
    http::sniff::response_start,
    message::ReplyTo,
    reason::LostReason,
};

/// What the HTTP stage remembers of one flow.
#[derive(Debug)]
pub(crate) struct Connection {
    client: ClientSide,
    server: ServerSide,
}

/// With its entry in the flow table, 200,000 idle flows take less than 64 MiB.
#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<Connection>() <= 152);

/// How the server's side is followed.
#[derive(Debug)]
enum ServerSide {
    /// Its payload is not copied but for the first bytes of a segment that begins a response.
    Peek(NoPairing),
    /// Its payload is there in full.
    Full(Box<Pairing>),
}

/// Requests are not paired with responses.
#[derive(Debug)]
struct NoPairing;

impl RequestObserver for NoPairing {
    fn begun(&mut self, _id: ExchangeId, _offset: u64, _run: &Run<'_>) {}
    fn head(&mut self, _id: ExchangeId, _reply_to: ReplyTo) {}
    fn ended(&mut self, _context: &mut Context, _id: ExchangeId, _report: Option<MessageReport>) {}
    fn quiet_moments(&self) -> Option<&QuietMoments> {
        None
    }
}

impl FlowHandler for Context {
    type State = Connection;

    fn open(&mut self, flow: &FlowInfo) -> Connection {
        Connection {
            client: ClientSide::new(self, flow.adopted),
            server: match self.purpose {
                Purpose::Replay(_) => ServerSide::Peek(NoPairing),
                Purpose::Inspect => ServerSide::Full(Box::new(Pairing::new(self, flow.key, flow.adopted))),
            },
        }
    }

    fn span(&mut self, flow: &FlowInfo, connection: &mut Connection, side: Side, span: Span<'_>) -> Interest {
        self.flow_id = flow.id;
        let Connection { client, server } = connection;
        let interest = match (side, server) {
            (Side::Client, ServerSide::Peek(observer)) => {
                client_span(self, &flow.key, client, observer, span)
            }
            (Side::Client, ServerSide::Full(observer)) => {
                client_span(self, &flow.key, client, observer.as_mut(), span)
            }
            (Side::Server, ServerSide::Peek(observer)) => peek(self, &flow.key, client, observer, span),
            (Side::Server, ServerSide::Full(pairing)) => server_span(self, &flow.key, client, pairing, span),
        };
        // The flow table keeps the state of a flow that nobody wants until it ends: as little as possible.
        if interest == Interest::Ignore
            && let ServerSide::Full(pairing) = &mut connection.server
        {
            pairing.close(self);
            connection.server = ServerSide::Peek(NoPairing);
        }
        interest
    }

    fn close(&mut self, _flow: &FlowInfo, mut connection: Connection, cause: CloseCause, _at: Timestamp) {
        let reason = match cause {
            CloseCause::Ended | CloseCause::Finished => LostReason::Aborted,
            CloseCause::Evicted(_) => LostReason::Evicted,
        };
        match &mut connection.server {
            ServerSide::Peek(observer) => connection.client.close(self, reason, observer),
            ServerSide::Full(pairing) => {
                connection.client.close(self, reason, pairing.as_mut());
                pairing.close(self);
            }
        }
    }
}

fn client_span(
    context: &mut Context,
    flow: &FlowKey,
    client: &mut ClientSide,
    observer: &mut impl RequestObserver,
    span: Span<'_>,
) -> Interest {
    match span {
        Span::Data { bytes, offset, seq, at, acked, conflict } => {
            let run = Run { bytes, start: Place { offset, seq }, at, acked, conflict };
            return client.data(context, flow, run, observer);
        }
        Span::Gap { len, .. } => client.gap(context, len, observer),
        Span::End { .. } => client.end(context, flow, observer),
    }
    Interest::Continue
}

/// Follows a server of which only the first bytes of responses are copied.
fn peek(
    context: &mut Context,
    flow: &FlowKey,
    client: &mut ClientSide,
    observer: &mut NoPairing,
    span: Span<'_>,
) -> Interest {
    if let Span::Data { bytes, acked, .. } = span {
        let (status, acked) = (response_start(bytes), acked.offset());
        client.server_sent(status, acked);
        if let Some(status) = status {
            return client.answered(context, flow, status, acked, observer);
        }
    }
    Interest::Continue
}

fn server_span(
    context: &mut Context,
    flow: &FlowKey,
    client: &mut ClientSide,
    pairing: &mut Pairing,
    span: Span<'_>,
) -> Interest {
    match span {
        Span::Data { bytes, offset, seq, at, acked, conflict } => {
            let status = response_start(bytes);
            client.server_sent(status, acked.offset());
            pairing.server_sent(status, acked.offset());
            let run = Run { bytes, start: Place { offset, seq }, at, acked, conflict };
            if let Some((status, acked)) = pairing.data(context, run) {
                return client.answered(context, flow, status, acked, pairing);
            }
        }
        Span::Gap { len, .. } => pairing.gap(context, len),
        Span::End { reset, .. } => pairing.end(context, !reset),
    }
    Interest::Continue
}
