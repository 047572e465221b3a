//! Enters: copies as one connection accepts their bytes, and how they ended. Leaves: settled tickets and counted outcomes.
//!
//! One copy is answered at a time. Behind it there may be others, written before their turn (RFC 9112 section 9.3.2): what
//! becomes of them is known only when those before them are answered, and until then they are held.

use std::{
    collections::VecDeque,
    io, iter, mem,
    net::SocketAddr,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
};

use bytes::Bytes;

use super::{clock, held::Held, kept::Keeping, lanes::Turn, pool::Pool, protection::Pass, stream::Stream};
use crate::{
    io::ledger::{CopyBooks, DropReason, ReplayOutcome},
    pipeline::{ReplyTo, Timestamp, reason::SkipReason},
};

/// A connection as whoever writes and its task see it.
pub(super) struct State {
    /// `None` once the connection's task has ended.
    pub(super) stream: Option<Stream>,
    /// What is under way; `None` while the connection is idle.
    pub(super) exchange: Option<Exchange>,
    /// What was written behind it; all of it but for the end of the last.
    pub(super) behind: VecDeque<Exchange>,
    /// Whether a copy was answered and the connection stayed open.
    pub(super) is_proven: bool,
    /// A job that the socket accepted no byte of: the connection is dead, the job is not.
    pub(super) refused: Option<Held>,
    /// Whether the connection is to be closed though nothing is wrong with it.
    pub(super) is_retired: bool,
    /// Whether its task is done with it: from then on nothing more may be written, by whoever still has it.
    pub(super) is_over: bool,
    /// Whether the kernel was asked to note when bytes arrive.
    pub(super) is_stamped: bool,
    /// When what is under way, or idleness, has taken too long.
    pub(super) deadline: Timestamp,
    /// Of the connection's task.
    pub(super) waker: Option<Waker>,
    pub(super) books: Arc<CopyBooks>,
}

/// A copy, from its first byte to the end of its answer.
pub(super) struct Exchange {
    /// What the socket has not accepted yet; `None` once it has accepted all.
    pub(super) unsent: Option<Unsent>,
    /// The job, of which all was accepted, while it is behind another.
    waiting: Option<Held>,
    /// When the first byte was written, or when its turn came; `None` before.
    started: Option<Timestamp>,
    /// Whether it was written behind another.
    is_pipelined: bool,
    pub(super) reply_to: ReplyTo,
    pub(super) keep_alive: bool,
    /// How reading ended, where it did so before writing.
    pub(super) early: Option<ReplayOutcome>,
    /// Of the answer, once it is complete.
    pub(super) status: Option<u16>,
    pass: Option<Pass>,
    turn: Option<Box<Turn>>,
    /// The answer, where somebody waits for it.
    pub(super) kept: Option<Box<Keeping>>,
}

/// The rest of a copy.
pub(super) struct Unsent {
    held: Held,
    head: Vec<u8>,
    body: Bytes,
    /// Bytes of head and body that were accepted.
    accepted: usize,
}

/// A copy of which the socket has accepted some bytes, or none.
pub(super) struct Begun<'a> {
    /// The job.
    pub(super) held: Held,
    /// Its head, and what is short of its body.
    pub(super) head: &'a [u8],
    /// The rest of its body.
    pub(super) body: Bytes,
    /// Bytes of the two that were accepted.
    pub(super) accepted: usize,
    /// When the last of them was handed over, where somebody waits for the answer.
    pub(super) asked_at: Option<Timestamp>,
}

impl Exchange {
    fn new(held: &mut Held) -> Self {
        Self {
            unsent: None,
            waiting: None,
            started: None,
            is_pipelined: false,
            reply_to: held.request.reply_to,
            keep_alive: held.request.keep_alive,
            early: None,
            status: None,
            pass: held.pass.take(),
            turn: held.turn.take(),
            kept: held.part.take().map(|part| Box::new(Keeping::new(part))),
        }
    }

    /// A byte was accepted.
    fn sent(&mut self) {
        if let Some(kept) = &mut self.kept {
            kept.sent();
        }
    }

    /// All bytes were accepted, the last of them handed over at this time.
    fn asked(&mut self, at: Option<Timestamp>) {
        if let (Some(kept), Some(at)) = (&mut self.kept, at) {
            kept.asked(at);
        }
    }

    /// Gives the job back with all that is its own.
    fn into_held(self) -> Option<Held> {
        let mut held = self.unsent.map(|unsent| unsent.held).or(self.waiting)?;
        (held.pass, held.turn) = (self.pass, self.turn);
        held.part = self.kept.map(|kept| kept.into_part());
        Some(held)
    }
}

impl State {
    pub(super) fn new(stream: Stream, books: &Arc<CopyBooks>) -> Self {
        Self {
            stream: Some(stream),
            exchange: None,
            behind: VecDeque::new(),
            is_proven: false,
            refused: None,
            is_retired: false,
            is_over: false,
            is_stamped: false,
            deadline: clock::now(),
            waker: None,
            books: Arc::clone(books),
        }
    }

    pub(super) fn wake(&self) {
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }

    /// The task is done with the connection, and gives a job back that it did not write a byte of.
    pub(super) fn over(&mut self, unwritten: Option<Held>) -> Poll<Option<Held>> {
        self.is_over = true;
        Poll::Ready(unwritten)
    }

    /// Takes a copy that was begun to be written: the one to be answered next, or one behind it.
    pub(super) fn begin(&mut self, begun: Begun<'_>, pool: &Pool, now: Timestamp) {
        let Begun { mut held, head, body, accepted, asked_at } = begun;
        let mut exchange = Exchange::new(&mut held);
        if accepted > 0 {
            exchange.started = Some(now);
            exchange.sent();
            pool.config.note(&held);
            self.books.replay_lag(now.since(held.request.last_byte_at));
        }
        let is_behind = self.exchange.is_some();
        if accepted < head.len() + body.len() {
            exchange.unsent = Some(Unsent { held, head: head.to_vec(), body, accepted });
            self.deadline = now.after(pool.config.write_timeout);
            self.wake();
        } else {
            exchange.asked(asked_at);
            if is_behind {
                exchange.waiting = Some(held);
            } else {
                held.ticket.mirrored();
                self.deadline = now.after(pool.config.response_timeout);
            }
        }
        if is_behind {
            // The lane's turn ends with the last.
            if let Some(before) = self.behind.back_mut().or(self.exchange.as_mut()) {
                exchange.turn = before.turn.take();
            }
            exchange.is_pipelined = true;
            pool.pipelining.joined();
            self.behind.push_back(exchange);
        } else {
            self.exchange = Some(exchange);
        }
    }

    /// Ends what is under way, and gives the turn back. A request that was not written whole is dropped.
    pub(super) fn end(&mut self, outcome: ReplayOutcome, pool: &Pool, now: Timestamp) -> Option<Box<Turn>> {
        let exchange = self.exchange.take()?;
        let outcome = if exchange.unsent.is_some() { ReplayOutcome::Write } else { outcome };
        if exchange.is_pipelined {
            pool.pipelining.ended(outcome == ReplayOutcome::Answered, now);
        }
        if let Some(pass) = exchange.pass {
            pass.ended(outcome, exchange.status);
        }
        if let Some(unsent) = exchange.unsent {
            unsent.held.drop_for(DropReason::Write);
        }
        if let Some(kept) = exchange.kept {
            kept.finish(outcome, self.stream.as_ref().and_then(Stream::shortest_round_trip));
        }
        let duration = exchange.started.filter(|_| outcome == ReplayOutcome::Answered);
        self.books.replay_ended(outcome, duration.map(|started| now.since(started)));
        exchange.turn
    }

    /// Goes on to the copy behind the one that was answered; whether there is one.
    pub(super) fn advance(&mut self, pool: &Pool, now: Timestamp) -> bool {
        let Some(mut exchange) = self.behind.pop_front() else { return false };
        pool.pipelining.left();
        if let Some(held) = exchange.waiting.take() {
            held.ticket.mirrored();
            self.deadline = now.after(pool.config.response_timeout);
        }
        exchange.started = exchange.started.map(|_| now);
        self.exchange = Some(exchange);
        true
    }

    /// Gives up what was written behind a copy with which the connection has come to an end. What the shadow cannot have
    /// taken in is sent again, and goes first in its lane.
    ///
    /// A server that closes with an answer reads nothing after the request (RFC 9112 section 9.6): then it `is_announced`,
    /// and nothing behind that was taken in.
    pub(super) fn give_up_behind(&mut self, outcome: ReplayOutcome, is_announced: bool, pool: &Pool) {
        if self.behind.is_empty() {
            return;
        }
        let now = clock::now();
        let mut again = Vec::new();
        let mut turn = None;
        for mut exchange in mem::take(&mut self.behind) {
            pool.pipelining.left();
            // The last has it.
            turn = exchange.turn.take();
            if is_announced {
                again.extend(exchange.into_held());
                continue;
            }
            if let Some(held) = exchange.waiting.take() {
                held.ticket.mirrored();
            }
            self.exchange = Some(exchange);
            self.end(outcome, pool, now);
        }
        pool.queue.put_back(again);
        drop(turn);
    }

    /// Takes the job back if no byte of it was accepted and nothing was answered.
    pub(super) fn take_unwritten(&mut self) -> Option<Held> {
        let is_unwritten = |exchange: &mut Exchange| exchange.started.is_none() && exchange.early.is_none();
        self.exchange.take_if(is_unwritten)?.into_held()
    }

    /// Whether the shadow has received something of the copy whose answer comes next, and that has not ended yet.
    pub(super) fn may_be_answered(&self) -> bool {
        self.exchange.as_ref().is_some_and(|exchange| exchange.started.is_some() && exchange.early.is_none())
    }

    /// Gives up a copy that must not be written any more, while nothing of it has been. What a TLS session has taken of it
    /// cannot be taken back, so the connection is over.
    pub(super) fn skip_forbidden(&mut self, addr: SocketAddr, pool: &Pool) -> bool {
        let is_forbidden = |exchange: &mut Exchange| {
            exchange.started.is_none()
                && exchange
                    .unsent
                    .as_ref()
                    .is_some_and(|unsent| !pool.permits(&unsent.held, addr, clock::now()))
        };
        let forbidden = self.exchange.take_if(is_forbidden).and_then(|exchange| exchange.unsent);
        forbidden.map(|unsent| unsent.held.ticket.skipped(SkipReason::Interlock)).is_some()
    }

    /// Goes on writing. Ready once nothing is left to write, with how reading ended if it has ended already.
    pub(super) fn poll_unsent(
        &mut self,
        cx: &mut Context<'_>,
        pool: &Pool,
    ) -> Poll<io::Result<Option<ReplayOutcome>>> {
        let Self { stream: Some(stream), exchange: Some(front), behind, books, deadline, .. } = self else {
            return Poll::Ready(Ok(None));
        };
        if front.started.is_none()
            && let Some(reason) = pool.queue.forbids()
            && let Some(unsent) = front.unsent.take()
        {
            unsent.held.drop_for(reason);
            return Poll::Ready(Err(io::ErrorKind::Interrupted.into()));
        }
        let mut is_first = true;
        let mut early = None;
        for exchange in iter::once(front).chain(behind.back_mut()) {
            while let Some(unsent) = &mut exchange.unsent {
                let head = unsent.head.get(unsent.accepted..).unwrap_or_default();
                let body_start = unsent.accepted.saturating_sub(unsent.head.len());
                let body = unsent.body.get(body_start..).unwrap_or_default();
                let asked_at = exchange.kept.is_some().then(clock::now);
                match ready!(stream.poll_write(cx, head, body)) {
                    Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    Ok(accepted) => unsent.accepted += accepted,
                    Err(error) => return Poll::Ready(Err(error)),
                }
                let now = clock::now();
                if exchange.started.is_none() {
                    exchange.started = Some(now);
                    if let Some(kept) = &mut exchange.kept {
                        kept.sent();
                    }
                    pool.config.note(&unsent.held);
                    books.replay_lag(now.since(unsent.held.request.last_byte_at));
                }
                if unsent.accepted >= unsent.head.len() + unsent.body.len()
                    && let Some(unsent) = exchange.unsent.take()
                {
                    exchange.asked(asked_at);
                    if is_first {
                        unsent.held.ticket.mirrored();
                    } else {
                        exchange.waiting = Some(unsent.held);
                    }
                    *deadline = now.after(pool.config.response_timeout);
                }
            }
            early = early.or(exchange.early);
            is_first = false;
        }
        Poll::Ready(Ok(early))
    }
}

impl Drop for State {
    fn drop(&mut self) {
        for exchange in self.exchange.take().into_iter().chain(mem::take(&mut self.behind)) {
            if let Some(held) = exchange.waiting {
                held.ticket.mirrored();
            }
            self.books.replay_ended(ReplayOutcome::Shutdown, None);
        }
    }
}
