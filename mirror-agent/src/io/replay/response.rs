//! Enters: what the shadow sends on one connection. Leaves: when its answer is complete, and whether another may follow;
//! the answer itself where somebody waits for it.

use super::kept::Keeping;
use crate::pipeline::{
    Limits, ReplyTo,
    http::{EndEffect, Event, ResponseDecoder},
};

/// Steps over answers, one after the other. What is not asked for is not kept.
#[derive(Debug)]
pub(super) struct Response {
    decoder: ResponseDecoder,
    /// Bytes of the answer under way, interim responses included.
    received: u64,
    is_interim: bool,
    keep_alive: bool,
    /// The head of the answer under way is here, and it is no interim one's.
    has_head: bool,
    status: u16,
}

/// Where the answer stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Progress {
    /// It goes on.
    Partial,
    /// It is complete; `keep_alive` says whether the shadow goes on with the connection.
    Complete { keep_alive: bool, status: u16 },
    /// It was cut off.
    Closed,
    /// It is not an answer that can be stepped over.
    Protocol,
}

impl Response {
    pub(super) fn new() -> Self {
        Self {
            decoder: ResponseDecoder::new(&Limits::default()),
            received: 0,
            is_interim: false,
            keep_alive: false,
            has_head: false,
            status: 0,
        }
    }

    /// Takes what was read, up to the end of an answer. One longer than `limit` bytes is not waited for.
    pub(super) fn handle_input(
        &mut self,
        input: &mut &[u8],
        reply_to: ReplyTo,
        limit: u64,
        mut kept: Option<&mut Keeping>,
    ) -> Progress {
        self.received = self.received.saturating_add(u64::try_from(input.len()).unwrap_or(u64::MAX));
        loop {
            match self.decoder.poll(input, reply_to) {
                Event::Framing(_) => {}
                Event::Start => {
                    if let Some(kept) = &mut kept {
                        kept.begun();
                    }
                }
                Event::Content(bytes) => {
                    if let Some(kept) = &mut kept {
                        kept.content(bytes);
                    }
                }
                Event::Head(head) => {
                    // Upgrades and CONNECT are never replayed, so nobody asked for another protocol.
                    if head.facts.tunnel {
                        if let Some(kept) = &mut kept {
                            kept.upgraded(head.status);
                        }
                        return Progress::Protocol;
                    }
                    self.is_interim = head.facts.interim;
                    self.keep_alive = head.facts.keep_alive;
                    self.has_head = !head.facts.interim;
                    self.status = head.status;
                    if let Some(kept) = kept.as_deref_mut().filter(|_| !head.facts.interim) {
                        kept.head(&head);
                    }
                }
                // RFC 9110 section 15.2: a final response follows.
                Event::End if self.is_interim => {}
                Event::End => {
                    self.received = 0;
                    self.has_head = false;
                    if let Some(kept) = kept {
                        kept.complete();
                    }
                    return Progress::Complete { keep_alive: self.keep_alive, status: self.status };
                }
                Event::Refused(_) => return Progress::Protocol,
                Event::NeedMore if self.received > limit => {
                    // Live's may be as long, and as endless.
                    if let Some(kept) = kept.filter(|_| self.has_head) {
                        kept.too_long();
                    }
                    return Progress::Protocol;
                }
                Event::NeedMore => return Progress::Partial,
            }
        }
    }

    /// Takes the end of the byte stream.
    pub(super) fn handle_end(&mut self, kept: Option<&mut Keeping>) -> Progress {
        match self.decoder.handle_end() {
            EndEffect::Complete => {
                if let Some(kept) = kept {
                    kept.complete();
                }
                Progress::Complete { keep_alive: false, status: self.status }
            }
            EndEffect::Clean | EndEffect::Truncated => Progress::Closed,
        }
    }
}
