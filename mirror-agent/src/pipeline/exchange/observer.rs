//! Enters: the course of the client's requests. Leaves: what the rest of the flow needs to know of it.

use crate::pipeline::{
    Acked, Timestamp,
    exchange::{
        context::Context,
        quiet::QuietMoments,
        report::{MessageReport, Place},
    },
    message::{ExchangeId, ReplyTo},
};

/// A run of the client's stream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) start: Place,
    pub(crate) at: Timestamp,
    /// How far the sender had received of its peer's stream.
    pub(crate) acked: Acked,
    pub(crate) conflict: bool,
}

/// What the rest of the flow needs to know of requests, for pairing.
pub(crate) trait RequestObserver {
    /// A request begins with `run`, at `offset` of the stream.
    fn begun(&mut self, context: &mut Context, id: ExchangeId, offset: u64, run: &Run<'_>);
    /// Its head is complete.
    fn head(&mut self, id: ExchangeId, reply_to: ReplyTo);
    /// It is over, complete or not.
    fn ended(&mut self, context: &mut Context, id: ExchangeId, report: Option<MessageReport>);
    /// Requests may have passed unseen, or what was taken for one is none.
    fn out_of_step(&mut self, _context: &mut Context) {}
    /// Where requests may begin behind a gap; `None` where only the latest such place counts.
    fn quiet_moments(&self) -> Option<&QuietMoments>;
}
