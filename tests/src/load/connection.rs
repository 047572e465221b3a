//! Enters: bytes of answers. Leaves: which request each of them ends.

use std::{collections::VecDeque, net::TcpStream, time::Instant};

use nix::sys::epoll::EpollFlags;

use crate::http::{self, BodyScan};

/// One connection and the requests on it.
pub(super) struct Connection {
    pub(super) stream: Option<TcpStream>,
    pub(super) state: State,
    pub(super) interest: EpollFlags,
    pub(super) output: Vec<u8>,
    pub(super) written: usize,
    /// Requests without an answer: due time, and whether it was a HEAD.
    pub(super) open: VecDeque<(Instant, bool)>,
    pub(super) answer: Answer,
    /// Bytes of an answer's head that came in pieces.
    pub(super) partial: Vec<u8>,
    /// The answer being read asks for the connection's end.
    pub(super) closing: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum State {
    Closed,
    Connecting,
    Open,
}

/// How far an answer has been read.
pub(super) enum Answer {
    Head,
    Body(BodyScan),
}

/// A complete answer.
pub(super) struct Done {
    pub(super) due: Instant,
    pub(super) ok: bool,
}

impl Connection {
    pub(super) fn new() -> Self {
        Self {
            stream: None,
            state: State::Closed,
            interest: EpollFlags::empty(),
            output: Vec::new(),
            written: 0,
            open: VecDeque::new(),
            answer: Answer::Head,
            partial: Vec::new(),
            closing: false,
        }
    }

    pub(super) fn close(&mut self) {
        *self = Self {
            output: std::mem::take(&mut self.output),
            open: std::mem::take(&mut self.open),
            ..Self::new()
        };
        self.output.clear();
    }

    /// Takes bytes of the answer to the oldest request; what it returned ends where `rest` then starts.
    pub(super) fn take_answer(&mut self, rest: &mut &[u8]) -> Option<Done> {
        let &(due, head_only) = self.open.front()?;
        if let Answer::Head = self.answer {
            let head = if self.partial.is_empty()
                && let Some(length) = http::head_len(rest)
            {
                let (head, after) = rest.split_at(length);
                *rest = after;
                head.to_owned()
            } else {
                let before = self.partial.len();
                self.partial.extend_from_slice(rest);
                let Some(length) = http::head_len(&self.partial) else {
                    *rest = &[];
                    return None;
                };
                *rest = &rest[length - before..];
                self.partial.truncate(length);
                std::mem::take(&mut self.partial)
            };
            let code = http::second_word(&head);
            if code == b"100" {
                return self.take_answer(rest);
            }
            let ok = matches!(code, b"200" | b"101" | b"204");
            self.closing |= http::header_has(&head, "connection", "close");
            let scan = BodyScan::new(http::response_framing(&head, head_only));
            if scan.is_done() {
                self.open.pop_front();
                return Some(Done { due, ok });
            }
            self.answer = Answer::Body(scan);
            if !ok {
                self.closing = true;
            }
        }
        if let Answer::Body(scan) = &mut self.answer {
            let used = scan.advance(rest);
            *rest = &rest[used..];
            if !scan.is_done() {
                return None;
            }
            self.answer = Answer::Head;
            self.open.pop_front();
            return Some(Done { due, ok: true });
        }
        None
    }
}
