//! Enters: what a client's side holds of messages that are not complete. Leaves: the context's account of it, and memory.

use super::ClientSide;
use crate::pipeline::{
    FlowKey,
    exchange::{context::Context, message::OpenRequest, mode::Mode, observer::RequestObserver, trust::Trust},
    flow::Interest,
    reason::LostReason,
};

impl ClientSide {
    /// Lets go of what is held of a message that is not complete, of which others need the memory.
    pub(crate) fn relieve(&mut self, context: &mut Context, observer: &mut impl RequestObserver) -> Interest {
        let mut interest = Interest::Continue;
        if self.waiting_bytes() > 0 {
            interest = self.give_up(context, observer);
        } else if let Some(request) = &mut self.current {
            // Where it ends is known still: its remaining bytes are stepped over.
            request.lose(context, LostReason::Memory);
        }
        // Whatever is left of it: nobody is asked twice before there is progress.
        context.strike_holder();
        interest
    }

    /// Lets go of what is held for bytes that are no request yet: the memory for messages is exhausted.
    pub(super) fn give_up(&mut self, context: &mut Context, observer: &mut impl RequestObserver) -> Interest {
        self.accounted(context, |client, context| {
            if matches!(client.mode, Mode::AwaitAnswer(_)) {
                return client.hand_off(context);
            }
            client.abandon(context, LostReason::Memory, observer);
            client.mode = Mode::resync(Trust::ShapeWhenQuiet);
            Interest::Continue
        })
    }

    /// Acts, and keeps the context's account of [`Self::waiting_bytes`].
    pub(super) fn accounted<T>(
        &mut self,
        context: &mut Context,
        act: impl FnOnce(&mut Self, &mut Context) -> T,
    ) -> T {
        let (before, held_before) = (self.waiting_bytes(), self.bytes_held());
        let result = act(self, context);
        context.hold(before, self.waiting_bytes());
        if held_before > 0 && self.bytes_held() == 0 {
            context.strike_holder();
        }
        result
    }

    /// Has the context know what this side holds of a message that is not complete, after it got some.
    pub(super) fn note(&self, context: &mut Context, flow: &FlowKey) {
        match self.bytes_held() {
            0 => context.strike_holder(),
            bytes => context.note_holder(flow, bytes),
        }
    }

    /// Memory of what is not complete.
    pub(super) fn bytes_held(&self) -> usize {
        self.waiting_bytes().saturating_add(self.request_bytes())
    }

    /// Memory of the request of which the head is complete.
    pub(super) fn request_bytes(&self) -> usize {
        self.current.as_ref().map_or(0, OpenRequest::bytes_held)
    }

    /// Memory of what is no request yet: incomplete heads, openings, bytes that wait for an answer.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.decoder.bytes_held().saturating_add(self.mode.bytes_held())
    }
}
