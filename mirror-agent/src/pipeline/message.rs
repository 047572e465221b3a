//! Enters: nothing. Leaves: a captured request, whole, as the replay takes it.

use std::sync::Arc;

use bytes::Bytes;

use crate::pipeline::{flow::FlowId, policy::Selection, segment::FlowKey, time::Timestamp};

/// Number of an exchange: unique within one pipeline, in the order of the requests' first bytes.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ExchangeId(pub u64);

/// What of a request decides how its response is framed (RFC 9112 section 6.3).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum ReplyTo {
    /// HEAD: the response never has content.
    Head,
    /// CONNECT: after a 2xx the connection is a tunnel.
    Connect,
    /// Any other method.
    #[default]
    Other,
}

/// A request as captured, held whole.
#[derive(Clone, Debug)]
pub struct Request {
    /// Its number.
    pub id: ExchangeId,
    /// The experiments that took it.
    pub selection: Arc<Selection>,
    /// The flow it came from.
    pub flow: FlowKey,
    /// Head and body exactly as on the wire, chunk framing included.
    pub raw: Bytes,
    /// Length of the head in bytes, the empty line included: `raw[..head_len]` is the head.
    pub head_len: usize,
    /// How the response to it is framed.
    pub reply_to: ReplyTo,
    /// Whether the request leaves the connection open for another one (RFC 9112 section 9.3).
    pub keep_alive: bool,
    /// When the segment with its first byte was seen.
    pub first_byte_at: Timestamp,
    /// When the last of its segments was seen: it was not complete before.
    pub last_byte_at: Timestamp,
    /// Whether its head has lines that only the mirror is to write; see [`super::http::RequestFacts::has_marker`].
    pub has_marker: bool,
    /// Tells the flow from a later one between the same ends; unique within one pipeline.
    pub flow_id: FlowId,
}
