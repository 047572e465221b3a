//! Enters: one job at a time, with those that may follow it at once, and what the shadow sends. Leaves: settled tickets,
//! counted outcomes, and the connection itself for the next job.
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
    task::{Context, Poll, ready},
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
    exchange::{Begun, State},
    held::Held,
    lanes::{Live, Turn},
    pipelining::follower,
    pool::Pool,
    response::{Progress, Response},
    stream::Stream,
};
use crate::{
    io::ledger::{CopyBooks, ReplayOutcome},
    pipeline::Timestamp,
};

/// An open connection to the shadow.
pub(super) struct Connection {
    /// The address that it was opened to.
    pub(super) addr: SocketAddr,
    /// The live connection whose copies alone it carries, where order is kept. Changed while the pool is locked.
    live: Mutex<Option<Live>>,
    /// From when on it takes no further copies.
    retire_at: Option<Timestamp>,
    state: Mutex<State>,
}

impl Connection {
    pub(super) fn new(
        addr: SocketAddr,
        stream: Stream,
        books: &Arc<CopyBooks>,
        live: Option<Live>,
        retire_at: Option<Timestamp>,
    ) -> Self {
        let state = State::new(stream, books);
        Self { addr, live: Mutex::new(live), retire_at, state: Mutex::new(state) }
    }

    /// Writes the copy of a request as far as the socket takes it, and with it those that may follow it at once; the
    /// connection's task sees to the rest. `buffer` is scratch space.
    ///
    /// # Errors
    ///
    /// The job, if the connection has ended.
    pub(super) fn send(
        &self,
        held: Held,
        pool: &Pool,
        now: Timestamp,
        buffer: &mut Vec<u8>,
    ) -> Result<(), Box<Held>> {
        let mut state = self.lock();
        let State { stream: Some(stream), is_over: false, is_stamped, is_proven, .. } = &mut *state else {
            return Err(Box::new(held));
        };
        buffer.clear();
        let body = write_copy(buffer, &held.request, &pool.config, held.pipeline);
        let asked_at = held.part.is_some().then(|| {
            if !*is_stamped {
                stream.stamp_arrivals();
                *is_stamped = true;
            }
            clock::now()
        });
        let head_len = buffer.len();
        // Each with where it ends.
        let mut followers: Vec<(Held, usize)> = Vec::new();
        while *is_proven && buffer.len() < FOLLOWED_BYTES {
            let before = followers.last().map_or(&held, |(follower, _)| follower);
            let Some(follower) = follower(pool, before, followers.len() + 1, now) else { break };
            write_copy(buffer, &follower.request, &pool.config, follower.pipeline);
            followers.push((follower, buffer.len()));
        }
        let written = match stream.try_write(buffer, body.as_deref().unwrap_or_default()) {
            Ok(written) => written,
            // What a TLS session has taken leaves with it, so that those behind could not be taken back; but none of it has left.
            Err(error)
                if error.kind() == io::ErrorKind::WouldBlock
                    && (followers.is_empty() || !stream.has_taken()) =>
            {
                0
            }
            Err(_) => {
                state.refused = Some(held);
                state.wake();
                pool.queue.put_back(followers.into_iter().map(|(follower, _)| follower).collect());
                return Ok(());
            }
        };
        let body = body.unwrap_or_default();
        pool.protection.written(buffer.len() + body.len(), now);
        let (head, mut rest) = buffer.split_at(head_len);
        // What is followed has no more of a body than stands in the buffer.
        let accepted = if followers.is_empty() { written } else { written.min(head_len) };
        state.begin(Begun { held, head, body, accepted, asked_at }, pool, now);
        let mut begins = head_len;
        let mut again = Vec::new();
        for (held, ends) in followers {
            if written <= begins {
                again.push(held);
                continue;
            }
            let (head, behind) = rest.split_at_checked(ends - begins).unwrap_or((rest, &[]));
            let accepted = (written - begins).min(head.len());
            state.begin(Begun { held, head, body: Bytes::new(), accepted, asked_at: None }, pool, now);
            (begins, rest) = (ends, behind);
        }
        pool.queue.put_back(again);
        Ok(())
    }

    /// Whether nothing has come, nor has its end, that its task has not seen; never where that is not known at once.
    pub(super) fn is_silent(&self) -> bool {
        let Ok(state) = self.state.try_lock() else { return false };
        state.stream.as_ref().is_some_and(Stream::is_silent)
    }

    /// Closes the connection as soon as its task runs, if it is idle.
    pub(super) fn retire(&self) {
        let mut state = self.lock();
        state.is_retired = true;
        state.wake();
    }

    /// The live connection whose copies it carries, where order is kept.
    pub(super) fn live(&self) -> Option<Live> {
        *self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Carries the copies of another live connection from here on. Nothing is under way.
    pub(super) fn lend(&self, live: Live) {
        *self.live.lock().unwrap_or_else(PoisonError::into_inner) = Some(live);
    }

    /// Whether it is too old to take a further copy.
    pub(super) fn is_old(&self, now: Timestamp) -> bool {
        self.retire_at.is_some_and(|retire_at| retire_at <= now)
    }

    /// Whether it is too old to take a further copy, or was opened for another live connection.
    pub(super) fn is_outdated(&self, live: Option<&Live>, now: Timestamp) -> bool {
        self.is_old(now) || live.is_some_and(|live| self.live() != Some(*live))
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
                return state.over(Some(held));
            }
            if state.is_retired && state.exchange.is_none() {
                return state.over(None);
            }
            if state.skip_forbidden(self.connection.addr, self.pool) {
                return state.over(None);
            }
            let is_broken = match state.poll_unsent(cx, self.pool) {
                Poll::Ready(Ok(None)) | Poll::Pending => false,
                Poll::Ready(Ok(Some(outcome))) => {
                    state.end(outcome, self.pool, clock::now());
                    state.give_up_behind(outcome, false, self.pool);
                    return state.over(None);
                }
                Poll::Ready(Err(_)) => true,
            };
            // A server that refuses a request answers and closes while the rest is still on its way (RFC 9112 section
            // 9.6): what came before the connection broke can be read, and is the answer.
            if is_broken && !state.may_be_answered() {
                let unwritten = self.broken(&mut state, ReplayOutcome::Write);
                return state.over(unwritten);
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
                        Step::Over => return state.over(None),
                        Step::Free(turn) => {
                            drop((buffer, state));
                            self.pool.free(self.connection, turn);
                            continue;
                        }
                    },
                    Poll::Ready(Err(error)) => {
                        debug!(%error, "A connection to the shadow broke.");
                        self.pool.complaints.hear(&error);
                        let unwritten = self.broken(&mut state, outcome_of(&error));
                        return state.over(unwritten);
                    }
                    Poll::Pending if is_broken => {
                        let unwritten = self.broken(&mut state, ReplayOutcome::Write);
                        return state.over(unwritten);
                    }
                    Poll::Pending => {}
                }
            }
            ready!(alarm.as_mut().poll(cx));
            let now = clock::now();
            if now >= state.deadline {
                state.end(ReplayOutcome::Timeout, self.pool, now);
                state.give_up_behind(ReplayOutcome::Timeout, false, self.pool);
                return state.over(None);
            }
            // No deadline that is set before the alarm goes off can be due before it does, so that setting one
            // costs nothing.
            let wait = state.deadline.since(now).min(self.pool.config.shortest_timeout());
            alarm.as_mut().reset(Instant::now() + wait);
        }
    }

    /// The connection broke.
    fn broken(&self, state: &mut State, outcome: ReplayOutcome) -> Option<Held> {
        let unwritten = state.take_unwritten();
        if unwritten.is_some() {
            state.books.replay_ended(ReplayOutcome::Write, None);
        }
        state.end(outcome, self.pool, clock::now());
        state.give_up_behind(outcome, false, self.pool);
        unwritten
    }

    /// Takes what was read; nothing means that the shadow has closed its side.
    fn handle_input(&mut self, state: &mut State, mut input: &[u8], at: Option<Timestamp>) -> Step {
        let has_ended = input.is_empty();
        loop {
            // Closed while idle, or bytes that nobody asked for: nothing may be sent here any more.
            let Some(exchange) = &mut state.exchange else { return Step::Over };
            let mut kept = exchange.kept.as_deref_mut();
            let progress = if has_ended {
                self.response.handle_end(kept)
            } else {
                if let Some(kept) = &mut kept {
                    kept.came(at);
                }
                let limit = self.pool.config.response_bytes;
                self.response.handle_input(&mut input, exchange.reply_to, limit, kept)
            };
            let (outcome, is_kept_alive) = match progress {
                Progress::Partial => return Step::Again,
                Progress::Complete { keep_alive, status } => {
                    exchange.status = Some(status);
                    (ReplayOutcome::Answered, keep_alive)
                }
                Progress::Closed => (ReplayOutcome::Closed, false),
                Progress::Protocol => (ReplayOutcome::Protocol, false),
            };
            if exchange.unsent.is_some() {
                // The answer came early. The rest of the copy is still owed, but the connection is not used again.
                exchange.early = Some(outcome);
                return Step::Again;
            }
            let is_kept_alive = is_kept_alive && exchange.keep_alive;
            let now = clock::now();
            let turn = state.end(outcome, self.pool, now);
            if !is_kept_alive {
                state.give_up_behind(outcome, outcome == ReplayOutcome::Answered, self.pool);
                return Step::Over;
            }
            if !state.advance(self.pool, now) {
                if !input.is_empty() {
                    return Step::Over;
                }
                state.is_proven = true;
                state.deadline = now.after(self.pool.config.idle_timeout);
                return Step::Free(turn);
            }
            if input.is_empty() {
                return Step::Again;
            }
        }
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

/// Up to here another copy is written with those before it.
const FOLLOWED_BYTES: usize = 16 * 1024;
