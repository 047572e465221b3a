//! Enters: the spans of a flow. Leaves: the same, to the stage after this one, until it wants no more.

use crate::pipeline::{
    reason::EvictReason,
    segment::{FlowKey, Side},
    span::Span,
    time::Timestamp,
};

/// Number of a flow: unique within one table, in the order of opening. A [`FlowKey`] comes again, this does not.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct FlowId(pub u64);

/// What is known of a flow from its first segment on.
#[derive(Clone, Copy, Debug)]
pub struct FlowInfo {
    /// Its number.
    pub id: FlowId,
    /// Its addresses and ports.
    pub key: FlowKey,
    /// No SYN was seen: the streams begin anywhere, also within a message.
    pub adopted: bool,
    /// When its first segment was seen.
    pub opened_at: Timestamp,
}

/// Whether the stage after this one wants more of a flow.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Interest {
    /// It does.
    Continue,
    /// It does not, of neither side: nothing is assembled any more, and `close` is the next call for this flow.
    Ignore,
}

/// Why a flow is closed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CloseCause {
    /// Both sides ended.
    Ended,
    /// The table let go of it.
    Evicted(EvictReason),
    /// The capture ended.
    Finished,
}

/// The stage after this one. For each flow: `open` once, `span` any number of times, `close` once.
pub trait FlowHandler {
    /// What the stage keeps for each flow.
    type State;

    /// A flow opens.
    fn open(&mut self, flow: &FlowInfo) -> Self::State;

    /// The next span of one side. Spans of a side are contiguous and begin at offset 0.
    fn span(&mut self, flow: &FlowInfo, state: &mut Self::State, side: Side, span: Span<'_>) -> Interest;

    /// What is held for this flow, which cannot be handed on yet, is to be let go: others need the memory.
    fn relieve(&mut self, _flow: &FlowInfo, _state: &mut Self::State) -> Interest {
        Interest::Continue
    }

    /// A flow closes. Unless it was ignored, all bytes held for it have been handed on before.
    fn close(&mut self, flow: &FlowInfo, state: Self::State, cause: CloseCause, at: Timestamp);
}

/// The way of spans to the handler, until it wants no more.
pub(super) struct Outlet<'a, H: FlowHandler> {
    handler: &'a mut H,
    flow: &'a FlowInfo,
    state: &'a mut H::State,
    ignored: bool,
}

impl<'a, H: FlowHandler> Outlet<'a, H> {
    pub(super) const fn new(handler: &'a mut H, flow: &'a FlowInfo, state: &'a mut H::State) -> Self {
        Self { handler, flow, state, ignored: false }
    }

    /// Whether the handler has said that it wants no more.
    pub(super) const fn is_ignored(&self) -> bool {
        self.ignored
    }

    /// Has the handler let go of what it holds for the flow.
    pub(super) fn relieve(&mut self) {
        if !self.ignored {
            self.ignored = self.handler.relieve(self.flow, self.state) == Interest::Ignore;
        }
    }

    pub(super) fn hand_on(&mut self, side: Side, span: Span<'_>) {
        if !self.ignored {
            self.ignored = self.handler.span(self.flow, self.state, side, span) == Interest::Ignore;
        }
    }
}
