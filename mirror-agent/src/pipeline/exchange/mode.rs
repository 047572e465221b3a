//! Enters: nothing. Leaves: what a client's stream can be taken for, and what is held of it meanwhile.

use crate::pipeline::{
    Timestamp,
    exchange::{
        report::Place,
        trust::{Guess, Heard, Trust},
    },
    limits::boxed_bytes,
    message::ReplyTo,
    reason::FlowSkipReason,
};

/// What the stream is taken for.
#[derive(Debug)]
pub(super) enum Mode {
    /// The first bytes of the connection; held until they can be told apart.
    Opening(Option<Box<Opening>>),
    /// Out of step: bytes are passed over until a message starts.
    Resync { trust: Trust, heard: Heard },
    /// The decoder knows what each byte is.
    InStep,
    /// The same, of an old connection, if that was a request which was taken for one by its shape alone.
    Guess(Guess),
    /// A request for an upgrade, or CONNECT, has ended; what follows is held until it is answered.
    AwaitAnswer(Box<AwaitAnswer>),
    /// Another protocol from the first byte on. A server that does not speak it may say so in HTTP/1.x, so its side is
    /// followed until it shows something else. Only for files.
    Foreign(FlowSkipReason),
    /// Not HTTP any more.
    HandedOff,
}

impl Mode {
    pub(super) const fn resync(trust: Trust) -> Self {
        Self::Resync { trust, heard: Heard::Nothing }
    }

    /// Bytes of memory that are held for it, the allocator's share estimated.
    pub(super) fn bytes_held(&self) -> usize {
        match self {
            Self::Opening(Some(opening)) => boxed_bytes::<Opening>(opening.held.capacity()),
            Self::AwaitAnswer(awaiting) => boxed_bytes::<AwaitAnswer>(awaiting.held.capacity()),
            Self::Opening(None)
            | Self::Foreign(_)
            | Self::Guess(_)
            | Self::HandedOff
            | Self::InStep
            | Self::Resync { .. } => 0,
        }
    }
}

/// Most bytes held while it is not clear what a stream is. A PROXY protocol header is at most 65,551 bytes long in
/// theory and 536 in practice; what is longer is not HTTP.
pub(super) const MAX_OPENING_BYTES: usize = 4096;

/// Most bytes held while the answer to a request for an upgrade is awaited. A client has no reason to send any.
pub(super) const MAX_HELD_BYTES: usize = 64 * 1024;

/// The first bytes of a connection that do not say yet what it is.
#[derive(Debug)]
pub(super) struct Opening {
    pub(super) held: Vec<u8>,
    /// When the first of them was seen.
    pub(super) held_at: Timestamp,
    /// There was contradiction about some of them.
    pub(super) conflict: bool,
}

/// What is behind a request after which the connection may belong to another protocol.
#[derive(Debug)]
pub(super) struct AwaitAnswer {
    /// Where the request ended.
    pub(super) end: Place,
    pub(super) reply_to: ReplyTo,
    pub(super) held: Vec<u8>,
    /// When the first of `held` was seen.
    pub(super) held_at: Timestamp,
    pub(super) has_gap: bool,
    /// The client sends no more.
    pub(super) has_end: bool,
    /// There was contradiction about some of `held`.
    pub(super) conflict: bool,
}

impl AwaitAnswer {
    /// Nothing, yet, behind such a request.
    pub(super) const fn behind(end: Place, reply_to: ReplyTo) -> Self {
        Self {
            end,
            reply_to,
            held: Vec::new(),
            held_at: Timestamp::ZERO,
            has_gap: false,
            has_end: false,
            conflict: false,
        }
    }
}
