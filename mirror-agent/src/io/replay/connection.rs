//! Enters: one job at a time and what the shadow sends. Leaves: settled tickets, counted outcomes, and the
//! connection itself for the next job.
//!
//! Whoever has a job writes it at once ([`Connection::send`]); the connection's own task ([`Connection::drive`]) is
//! woken by what the shadow answers, by a write that has to go on, and by time. So a request costs one write, one read
//! and one wake-up.

use std::{
    future::poll_fn,
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker, ready},
};

use bytes::Bytes;
use tokio::{
    io::ReadBuf,
    time::{Instant, Sleep, sleep_until},
};
use tracing::debug;

use super::{
    clock,
    copy::write_copy,
    kept::Keeping,
    lanes::{Live, Turn},
    pool::Pool,
    protection::Pass,
    queue::Held,
    response::{Progress, Response},
    stream::Stream,
};
use crate::{
    io::ledger::{CopyBooks, DropReason, ReplayOutcome},
    pipeline::{ReplyTo, Timestamp, reason::SkipReason},
};

/// An open connection to the shadow.
pub(super) struct Connection {
    /// The address that it was opened to.
    pub(super) addr: SocketAddr,
    /// The live connection whose copies alone it carries, where order is kept.
    pub(super) live: Option<Live>,
    /// From when on it takes no further copies.
    retire_at: Option<Timestamp>,
    state: Mutex<State>,
}

struct State {
    /// `None` once the connection's task has ended.
    stream: Option<Stream>,
    /// What is under way; `None` while the connection is idle.
    exchange: Option<Exchange>,
    /// A job that the socket accepted no byte of: the connection is dead, the job is not.
    refused: Option<Held>,
    /// Whether the connection is to be closed though nothing is wrong with it.
    is_retired: bool,
    /// Whether the kernel was asked to note when bytes arrive.
    is_stamped: bool,
    /// When what is under way, or idleness, has taken too long.
    deadline: Timestamp,
    /// Of the connection's task.
    waker: Option<Waker>,
    books: Arc<CopyBooks>,
}

struct Exchange {
    /// What the socket has not accepted yet; `None` once it has accepted all.
    unsent: Option<Unsent>,
    /// When the first byte was written; `None` before.
    started: Option<Timestamp>,
    reply_to: ReplyTo,
    keep_alive: bool,
    /// How reading ended, where it did so before writing.
    early: Option<ReplayOutcome>,
    /// Of the answer, once it is complete.
    status: Option<u16>,
    pass: Option<Pass>,
    turn: Option<Box<Turn>>,
    /// The answer, where somebody waits for it.
    kept: Option<Box<Keeping>>,
}

/// The rest of a copy.
struct Unsent {
    held: Held,
    head: Vec<u8>,
    body: Bytes,
    /// Bytes of head and body that were accepted.
    accepted: usize,
}

impl Connection {
    pub(super) fn new(
        addr: SocketAddr,
        stream: Stream,
        books: &Arc<CopyBooks>,
        live: Option<Live>,
        retire_at: Option<Timestamp>,
    ) -> Self {
        let state = State {
            stream: Some(stream),
            exchange: None,
            refused: None,
            is_retired: false,
            is_stamped: false,
            deadline: clock::now(),
            waker: None,
            books: Arc::clone(books),
        };
        Self { addr, live, retire_at, state: Mutex::new(state) }
    }

    /// Writes the copy of a request as far as the socket takes it; the connection's task sees to the rest. `buffer` is
    /// scratch space.
    ///
    /// # Errors
    ///
    /// The job, if the connection has ended.
    pub(super) fn send(
        &self,
        mut held: Held,
        pool: &Pool,
        now: Timestamp,
        buffer: &mut Vec<u8>,
    ) -> Result<(), Box<Held>> {
        let mut state = self.lock();
        let State { stream: Some(stream), is_stamped, .. } = &mut *state else { return Err(Box::new(held)) };
        buffer.clear();
        let body = write_copy(buffer, &held.request, &pool.config, held.pipeline);
        let asked_at = held.part.is_some().then(|| {
            if !*is_stamped {
                stream.stamp_arrivals();
                *is_stamped = true;
            }
            clock::now()
        });
        let accepted = match stream.try_write(buffer, body.as_deref().unwrap_or_default()) {
            Ok(accepted) => accepted,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(_) => {
                state.refused = Some(held);
                state.wake();
                return Ok(());
            }
        };
        let mut exchange = Exchange {
            unsent: None,
            started: None,
            reply_to: held.request.reply_to,
            keep_alive: held.request.keep_alive,
            early: None,
            status: None,
            pass: held.pass.take(),
            turn: held.turn.take(),
            kept: held.part.take().map(|part| Box::new(Keeping::new(part))),
        };
        let len = buffer.len() + body.as_ref().map_or(0, Bytes::len);
        pool.protection.written(len, now);
        if accepted > 0 {
            exchange.started = Some(now);
            exchange.sent();
            pool.config.note(&held);
            state.books.replay_lag(now.since(held.request.last_byte_at));
        }
        if accepted == len {
            exchange.asked(asked_at);
            held.ticket.mirrored();
            state.deadline = now.after(pool.config.response_timeout);
        } else {
            exchange.unsent =
                Some(Unsent { held, head: buffer.clone(), body: body.unwrap_or_default(), accepted });
            state.deadline = now.after(pool.config.write_timeout);
            state.wake();
        }
        state.exchange = Some(exchange);
        Ok(())
    }

    /// Closes the connection as soon as its task runs, if it is idle.
    pub(super) fn retire(&self) {
        let mut state = self.lock();
        state.is_retired = true;
        state.wake();
    }

    pub(super) fn is_retired(&self) -> bool {
        self.lock().is_retired
    }

    /// Whether it is too old to take a further copy, or was opened for another live connection.
    pub(super) fn is_outdated(&self, live: Option<&Live>, now: Timestamp) -> bool {
        self.retire_at.is_some_and(|retire_at| retire_at <= now)
            || live.is_some_and(|_| self.live.as_ref() != live)
    }

    /// Keeps the connection, which carries nothing yet, until `deadline`.
    pub(super) fn rest(&self, deadline: Timestamp) {
        self.lock().deadline = deadline;
    }

    /// Runs the connection until it is closed. Returns a job that it did not write a byte of.
    pub(super) async fn drive(self: &Arc<Self>, pool: &Arc<Pool>) -> Option<Held> {
        let mut task = Task { connection: self, pool, response: Response::new() };
        let mut alarm = pin!(sleep_until(Instant::now()));
        let unwritten = poll_fn(|cx| task.poll(cx, alarm.as_mut())).await;
        drop(task);
        pool.forget(self);
        if let Some(stream) = self.lock().stream.take() {
            stream.close();
        }
        unwritten
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is made of independent parts; none is left half changed where something could panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Exchange {
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
}

impl State {
    fn wake(&self) {
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }

    /// Ends what is under way, and gives the turn back. A request that was not written whole is dropped.
    fn end(&mut self, outcome: ReplayOutcome, now: Timestamp) -> Option<Box<Turn>> {
        let exchange = self.exchange.take()?;
        let outcome = if exchange.unsent.is_some() { ReplayOutcome::Write } else { outcome };
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

    /// Takes the job back if no byte of it was accepted and nothing was answered.
    fn take_unwritten(&mut self) -> Option<Held> {
        let is_unwritten = |exchange: &mut Exchange| exchange.started.is_none() && exchange.early.is_none();
        let Exchange { unsent, pass, turn, kept, .. } = self.exchange.take_if(is_unwritten)?;
        let mut held = unsent?.held;
        (held.pass, held.turn) = (pass, turn);
        held.part = kept.map(|kept| kept.into_part());
        Some(held)
    }

    /// Gives up a copy that must not be written any more, while nothing of it has been. What a TLS session has taken of it
    /// cannot be taken back, so the connection is over.
    fn skip_forbidden(&mut self, addr: SocketAddr, pool: &Pool) -> bool {
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
    fn poll_unsent(&mut self, cx: &mut Context<'_>, pool: &Pool) -> Poll<io::Result<Option<ReplayOutcome>>> {
        let Self { stream: Some(stream), exchange: Some(exchange), books, deadline, .. } = self else {
            return Poll::Ready(Ok(None));
        };
        if exchange.started.is_none()
            && let Some(reason) = pool.queue.forbids()
            && let Some(unsent) = exchange.unsent.take()
        {
            unsent.held.drop_for(reason);
            return Poll::Ready(Err(io::ErrorKind::Interrupted.into()));
        }
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
                unsent.held.ticket.mirrored();
                *deadline = now.after(pool.config.response_timeout);
            }
        }
        Poll::Ready(Ok(exchange.early))
    }
}

impl Drop for State {
    fn drop(&mut self) {
        if self.exchange.take().is_some() {
            self.books.replay_ended(ReplayOutcome::Shutdown, None);
        }
    }
}

/// What a connection's task owns alone.
struct Task<'a> {
    connection: &'a Arc<Connection>,
    pool: &'a Arc<Pool>,
    response: Response,
}

/// What reading means for the task.
enum Step {
    /// There may be more to do at once.
    Again,
    /// The connection is free for the next job, which may be of the lane whose turn this was.
    Free(Option<Box<Turn>>),
    /// The connection is over.
    Over,
}

impl Task<'_> {
    /// Does all there is to do. Ready when the connection is over.
    fn poll(&mut self, cx: &mut Context<'_>, mut alarm: Pin<&mut Sleep>) -> Poll<Option<Held>> {
        loop {
            let mut state = self.connection.lock();
            if !state.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                state.waker = Some(cx.waker().clone());
            }
            if let Some(held) = state.refused.take() {
                state.books.replay_ended(ReplayOutcome::Write, None);
                return Poll::Ready(Some(held));
            }
            if state.is_retired && state.exchange.is_none() {
                return Poll::Ready(None);
            }
            if state.skip_forbidden(self.connection.addr, self.pool) {
                return Poll::Ready(None);
            }
            match state.poll_unsent(cx, self.pool) {
                Poll::Ready(Ok(None)) | Poll::Pending => {}
                Poll::Ready(Ok(Some(outcome))) => {
                    state.end(outcome, clock::now());
                    return Poll::Ready(None);
                }
                Poll::Ready(Err(_)) => {
                    return Poll::Ready(Self::broken(&mut state, ReplayOutcome::Write));
                }
            }
            let has_read_all = state.exchange.as_ref().is_some_and(|exchange| exchange.early.is_some());
            let is_stamped = state.is_stamped;
            if !has_read_all && let Some(stream) = &mut state.stream {
                let mut buffer = self.pool.read_buffer();
                let mut input = ReadBuf::new(&mut buffer);
                let read = if is_stamped {
                    stream.poll_read_stamped(cx, &mut input)
                } else {
                    stream.poll_read(cx, &mut input).map_ok(|()| None)
                };
                match read {
                    Poll::Ready(Ok(at)) => match self.handle_input(&mut state, input.filled(), at) {
                        Step::Again => continue,
                        Step::Over => return Poll::Ready(None),
                        Step::Free(turn) => {
                            drop((buffer, state));
                            self.pool.free(self.connection, turn);
                            continue;
                        }
                    },
                    Poll::Ready(Err(error)) => {
                        debug!(%error, "A connection to the shadow broke.");
                        self.pool.complaints.hear(&error);
                        return Poll::Ready(Self::broken(&mut state, outcome_of(&error)));
                    }
                    Poll::Pending => {}
                }
            }
            ready!(alarm.as_mut().poll(cx));
            let now = clock::now();
            if now >= state.deadline {
                state.end(ReplayOutcome::Timeout, now);
                return Poll::Ready(None);
            }
            // No deadline that is set before the alarm goes off can be due before it does, so that setting one
            // costs nothing.
            let wait = state.deadline.since(now).min(self.pool.config.shortest_timeout());
            alarm.as_mut().reset(Instant::now() + wait);
        }
    }

    /// The connection broke.
    fn broken(state: &mut State, outcome: ReplayOutcome) -> Option<Held> {
        let unwritten = state.take_unwritten();
        if unwritten.is_some() {
            state.books.replay_ended(ReplayOutcome::Write, None);
        }
        state.end(outcome, clock::now());
        unwritten
    }

    /// Takes what was read; nothing means that the shadow has closed its side.
    fn handle_input(&mut self, state: &mut State, input: &[u8], at: Option<Timestamp>) -> Step {
        // Closed while idle, or bytes that nobody asked for: nothing may be sent here any more.
        let Some(exchange) = &mut state.exchange else { return Step::Over };
        let mut kept = exchange.kept.as_deref_mut();
        let progress = if input.is_empty() {
            self.response.handle_end(kept)
        } else {
            if let Some(kept) = &mut kept {
                kept.came(at);
            }
            let limit = self.pool.config.response_bytes;
            self.response.handle_input(input, exchange.reply_to, limit, kept)
        };
        let (outcome, reusable) = match progress {
            Progress::Partial => return Step::Again,
            Progress::Complete { reusable, status } => {
                exchange.status = Some(status);
                (ReplayOutcome::Answered, reusable)
            }
            Progress::Closed => (ReplayOutcome::Closed, false),
            Progress::Protocol => (ReplayOutcome::Protocol, false),
        };
        if exchange.unsent.is_some() {
            // The answer came early. The rest of the copy is still owed, but the connection is not used again.
            exchange.early = Some(outcome);
            return Step::Again;
        }
        let reusable = reusable && exchange.keep_alive;
        let now = clock::now();
        let turn = state.end(outcome, now);
        if !reusable {
            return Step::Over;
        }
        state.deadline = now.after(self.pool.config.idle_timeout);
        Step::Free(turn)
    }
}

/// How an attempt ended whose answer could not be read.
fn outcome_of(error: &io::Error) -> ReplayOutcome {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, InvalidData, UnexpectedEof};
    let kind = error.kind();
    // A reset is what a server sends that closes with bytes unread, or that closed before the copy came; an unexpected
    // end is that of a connection without that of its TLS session.
    if matches!(kind, BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof) {
        ReplayOutcome::Closed
    } else if kind == InvalidData {
        ReplayOutcome::Protocol
    } else {
        ReplayOutcome::Read
    }
}
