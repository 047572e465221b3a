//! Enters: a plan. Leaves: HTTP requests at a constant rate, and how long their answers took.
//!
//! Open loop: request k is due at start + k / rate whatever became of the earlier ones, and its latency counts from
//! then, so a stalled server cannot hide behind a generator that waits for it. One thread, one epoll.

mod connection;

use std::{
    collections::VecDeque,
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use socket2::{Domain, Socket, Type};

use self::connection::{Answer, Connection, Done, State};
use crate::{
    histogram::Histogram,
    netns::Host,
    slowness::{slowdown, slowed},
    sys,
};

/// Where requests come from.
pub trait Source: Send {
    /// Appends the request with this number to `out`; says whether it is a HEAD, whose answer has no body.
    fn write(&mut self, number: u64, out: &mut Vec<u8>) -> bool;
}

/// How fast requests come.
#[derive(Clone, Copy, Debug)]
pub enum Pace {
    /// So many a second, whatever happens.
    PerSecond(f64),
    /// The next one on a connection when it has answered the last.
    ClosedLoop,
}

/// How connections are used.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reuse {
    /// All are opened at the start and kept.
    KeepAlive,
    /// A request, then the next connection.
    PerRequest,
}

/// What to send.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// The server.
    pub target: SocketAddr,
    /// How fast.
    pub pace: Pace,
    /// For how long.
    pub duration: Duration,
    /// Answers to requests due earlier than this after the start are left out of the latencies.
    pub warm_up: Duration,
    /// How many connections at once.
    pub connections: usize,
    /// How they are used.
    pub reuse: Reuse,
    /// How many requests are written at once, without waiting for an answer; 1 for none ahead.
    pub pipeline: usize,
}

impl Plan {
    /// A plan for keep-alive connections, without pipelining and warm-up.
    #[must_use]
    pub fn new(target: SocketAddr, pace: Pace, duration: Duration, connections: usize) -> Self {
        Self {
            target,
            pace,
            duration,
            warm_up: Duration::ZERO,
            connections,
            reuse: Reuse::KeepAlive,
            pipeline: 1,
        }
    }
}

/// Figures of a running load, for any thread.
#[derive(Debug, Default)]
pub struct Progress {
    /// Requests handed to a connection.
    pub issued: AtomicU64,
    /// Complete answers.
    pub answered: AtomicU64,
    /// Requests whose connection could not be opened, or broke before the answer was complete.
    pub failed: AtomicU64,
    /// Answers with another status than 200, 101 or 204.
    pub refused: AtomicU64,
    /// From due to answered; unanswered requests count with their age.
    pub latency: Histogram,
}

/// How a load went.
#[derive(Clone, Copy, Debug, Default)]
pub struct Report {
    /// Requests handed to a connection.
    pub issued: u64,
    /// Complete answers.
    pub answered: u64,
    /// Requests that ended in an error.
    pub failed: u64,
    /// Answers with an unexpected status.
    pub refused: u64,
    /// Requests without an answer at the end.
    pub unfinished: u64,
    /// Requests that were due and never handed to a connection.
    pub unsent: u64,
    /// CPU time of the generator's thread.
    pub cpu: Duration,
    /// From the first due time to the last answer.
    pub elapsed: Duration,
}

impl Report {
    /// Whether every planned request was answered as it should be.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.failed == 0
            && self.refused == 0
            && self.unfinished == 0
            && self.unsent == 0
            && self.issued == self.answered
    }

    /// Milliseconds of CPU for 1,000 answered requests.
    #[must_use]
    pub fn cpu_per_thousand(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / (self.answered.max(1) as f64)
    }
}

/// A load that runs on its own thread.
#[derive(Debug)]
pub struct Running {
    /// Its figures so far.
    pub progress: Arc<Progress>,
    thread: JoinHandle<Result<Report>>,
}

impl Running {
    /// Starts a load on a host.
    ///
    /// # Errors
    ///
    /// The thread cannot be started.
    pub fn start(host: &Host, plan: Plan, mut source: impl Source + 'static) -> Result<Self> {
        let progress = Arc::new(Progress::default());
        let theirs = Arc::clone(&progress);
        let thread = host.spawn("load", move || run(&plan, &mut source, &theirs))?;
        Ok(Self { progress, thread })
    }

    /// Whether it has ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits for its end.
    ///
    /// # Errors
    ///
    /// The generator itself failed; failed requests are in the report.
    pub fn finish(self) -> Result<Report> {
        self.thread.join().map_err(|_panic| anyhow!("the load generator panicked"))?
    }
}

/// Runs a load on the calling thread.
///
/// # Errors
///
/// No epoll; failed requests are in the report.
pub fn run(plan: &Plan, source: &mut dyn Source, progress: &Progress) -> Result<Report> {
    sys::precise_timers()?;
    let mut generator = Generator::new(plan, source, progress)?;
    if plan.reuse == Reuse::KeepAlive {
        generator.open_all()?;
    }
    generator.drive()
}

/// How long connections may take to open, and answers to come after the last request was due.
const GRACE: Duration = Duration::from_secs(2);
/// Most bytes read at once.
const READ_BYTES: usize = 64 * 1024;

struct Generator<'a> {
    plan: &'a Plan,
    source: &'a mut dyn Source,
    progress: &'a Progress,
    epoll: Epoll,
    connections: Vec<Connection>,
    /// Connections that may take the next request, in the order in which they became free.
    idle: VecDeque<usize>,
    scratch: Vec<u8>,
    start: Instant,
    number: u64,
    issued: u64,
    finished: u64,
}

impl<'a> Generator<'a> {
    fn new(plan: &'a Plan, source: &'a mut dyn Source, progress: &'a Progress) -> Result<Self> {
        let connections = (0..plan.connections.max(1)).map(|_| Connection::new()).collect::<Vec<_>>();
        Ok(Self {
            plan,
            source,
            progress,
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            idle: (0..connections.len()).collect(),
            connections,
            scratch: vec![0; READ_BYTES],
            start: Instant::now(),
            number: 0,
            issued: 0,
            finished: 0,
        })
    }

    /// Opens every connection before the first request is due.
    fn open_all(&mut self) -> Result<()> {
        for slot in 0..self.connections.len() {
            self.connect(slot);
        }
        let deadline = Instant::now() + slowed(GRACE);
        let mut events = vec![EpollEvent::empty(); 256];
        while Instant::now() < deadline && self.connections.iter().any(|one| one.state == State::Connecting) {
            let ready = sys::epoll_wait(&self.epoll, &mut events, Duration::from_millis(50))?;
            for event in &events[..ready] {
                self.serve(event.data() as usize, event.events());
            }
        }
        Ok(())
    }

    fn drive(&mut self) -> Result<Report> {
        let cpu_before = sys::thread_cpu()?;
        let batch = self.plan.pipeline.max(1) as u64;
        let slowdown = match self.plan.pace {
            Pace::PerSecond(_) => slowdown(),
            Pace::ClosedLoop => 1.0,
        };
        let (duration, grace) = (self.plan.duration.mul_f64(slowdown), slowed(GRACE));
        // Open loop: the time between two batches, and how many there are. A closed loop has neither.
        let (period, batches) = match self.plan.pace {
            Pace::PerSecond(rate) => {
                let per_batch = batch as f64 / rate * slowdown;
                (per_batch, (duration.as_secs_f64() / per_batch).round() as u64)
            }
            Pace::ClosedLoop => (0.0, u64::MAX),
        };
        self.start = Instant::now() + Duration::from_millis(1);
        let end = self.start + duration;
        // What was due in time is sent even if it is late: an open loop does not let requests off.
        let last_start = if period > 0.0 { end + grace / 2 } else { end };
        let mut sent_batches = 0;
        let mut events = vec![EpollEvent::empty(); 256];
        loop {
            let now = Instant::now();
            let due = |number: u64| self.start + Duration::from_secs_f64(period * number as f64);
            let mut next_due = due(sent_batches);
            let mut burst = 0;
            // Answers are read between bursts, so that a generator that is behind does not starve them.
            while now < last_start && sent_batches < batches && next_due <= now && burst < 64 {
                let Some(slot) = self.idle.pop_front() else { break };
                let since = if period > 0.0 { next_due } else { now };
                self.begin(slot, since, batch);
                sent_batches += 1;
                burst += 1;
                next_due = self.start + Duration::from_secs_f64(period * sent_batches as f64);
            }
            let over = now >= last_start || sent_batches >= batches;
            if over && (self.finished >= self.issued || now >= end + grace) {
                break;
            }
            let wait = if over || self.idle.is_empty() {
                Duration::from_millis(20)
            } else {
                next_due.saturating_duration_since(Instant::now()).min(Duration::from_millis(20))
            };
            let ready = sys::epoll_wait(&self.epoll, &mut events, wait)?;
            for event in &events[..ready] {
                self.serve(event.data() as usize, event.events());
            }
        }
        let cpu = sys::thread_cpu()? - cpu_before;
        let mut report = self.report();
        report.cpu = cpu;
        report.elapsed = self.start.elapsed();
        if let Pace::PerSecond(_) = self.plan.pace {
            report.unsent = batches.saturating_sub(sent_batches) * batch;
            for number in sent_batches..batches {
                let due = self.start + Duration::from_secs_f64(period * number as f64);
                for _ in 0..batch {
                    self.progress.latency.observe(due.elapsed());
                }
            }
        }
        Ok(report)
    }

    fn report(&self) -> Report {
        let mut unfinished = 0;
        for (due, _) in self.connections.iter().flat_map(|connection| &connection.open) {
            unfinished += 1;
            self.progress.latency.observe(due.elapsed());
        }
        Report {
            issued: self.issued,
            answered: self.progress.answered.load(Ordering::Relaxed),
            failed: self.progress.failed.load(Ordering::Relaxed),
            refused: self.progress.refused.load(Ordering::Relaxed),
            unfinished,
            ..Report::default()
        }
    }

    /// Puts the next requests on a connection.
    fn begin(&mut self, slot: usize, due: Instant, batch: u64) {
        let Some(connection) = self.connections.get_mut(slot) else { return };
        for _ in 0..batch {
            let head_only = self.source.write(self.number, &mut connection.output);
            connection.open.push_back((due, head_only));
            self.number += 1;
        }
        self.issued += batch;
        self.progress.issued.fetch_add(batch, Ordering::Relaxed);
        match connection.state {
            State::Closed => self.connect(slot),
            State::Connecting => {}
            State::Open => self.flush(slot),
        }
    }

    fn connect(&mut self, slot: usize) {
        let target = self.plan.target;
        let opened = (|| {
            let socket = Socket::new(Domain::for_address(target), Type::STREAM.nonblocking(), None)?;
            socket.set_tcp_nodelay(true)?;
            match socket.connect(&target.into()) {
                Ok(()) => {}
                Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
                Err(error) => return Err(error),
            }
            let stream = TcpStream::from(socket);
            self.epoll.add(&stream, EpollEvent::new(EpollFlags::EPOLLOUT, slot as u64))?;
            io::Result::Ok(stream)
        })();
        let Some(connection) = self.connections.get_mut(slot) else { return };
        match opened {
            Ok(stream) => {
                connection.stream = Some(stream);
                connection.state = State::Connecting;
                connection.interest = EpollFlags::EPOLLOUT;
            }
            Err(_) => self.fail(slot),
        }
    }

    fn serve(&mut self, slot: usize, flags: EpollFlags) {
        let Some(connection) = self.connections.get_mut(slot) else { return };
        if connection.state == State::Connecting {
            let error = connection.stream.as_ref().map(TcpStream::take_error);
            if !matches!(error, Some(Ok(None))) {
                return self.fail(slot);
            }
            connection.state = State::Open;
            return self.flush(slot);
        }
        if flags.contains(EpollFlags::EPOLLOUT) {
            self.flush(slot);
        }
        if flags.intersects(EpollFlags::EPOLLIN | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR) {
            self.read(slot);
        }
    }

    /// Writes what is waiting.
    fn flush(&mut self, slot: usize) {
        let Some(connection) = self.connections.get_mut(slot) else { return };
        let Some(stream) = &mut connection.stream else { return };
        let mut interest = EpollFlags::EPOLLIN;
        while connection.written < connection.output.len() {
            match stream.write(&connection.output[connection.written..]) {
                Ok(written) => connection.written += written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    interest |= EpollFlags::EPOLLOUT;
                    break;
                }
                Err(_) => return self.fail(slot),
            }
        }
        if connection.written == connection.output.len() {
            connection.output.clear();
            connection.written = 0;
        }
        if interest != connection.interest {
            connection.interest = interest;
            if self.epoll.modify(&*stream, &mut EpollEvent::new(interest, slot as u64)).is_err() {
                self.fail(slot);
            }
        }
    }

    fn read(&mut self, slot: usize) {
        loop {
            let Some(connection) = self.connections.get_mut(slot) else { return };
            let Some(stream) = &mut connection.stream else { return };
            let read = match stream.read(&mut self.scratch) {
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => return self.fail(slot),
            };
            if read == 0 {
                return self.handle_end(slot);
            }
            let mut rest = &self.scratch[..read];
            while !rest.is_empty() {
                let Some(done) = connection.take_answer(&mut rest) else { break };
                self.finished += 1;
                note_answer(self.progress, self.start + self.plan.warm_up, &done);
            }
            if connection.open.is_empty() && matches!(connection.answer, Answer::Head) {
                self.release(slot);
            }
            if read < READ_BYTES {
                return;
            }
        }
    }

    /// A connection has answered all its requests.
    fn release(&mut self, slot: usize) {
        let Some(connection) = self.connections.get_mut(slot) else { return };
        if connection.closing || self.plan.reuse == Reuse::PerRequest {
            connection.close();
        }
        self.idle.push_back(slot);
    }

    /// The server has closed its side.
    fn handle_end(&mut self, slot: usize) {
        let Some(connection) = self.connections.get_mut(slot) else { return };
        if connection.open.is_empty() {
            // An idle connection: it stays in the queue and is opened anew when its turn comes.
            return connection.close();
        }
        if connection.open.len() == 1 && matches!(&connection.answer, Answer::Body(scan) if !scan.is_done()) {
            if let Some((due, _)) = connection.open.pop_front() {
                self.finished += 1;
                note_answer(
                    self.progress,
                    self.start + self.plan.warm_up,
                    &Done { due, ok: connection.closing },
                );
            }
            connection.closing = true;
            return self.release(slot);
        }
        self.fail(slot);
    }

    fn fail(&mut self, slot: usize) {
        let Some(connection) = self.connections.get_mut(slot) else { return };
        let was_idle = connection.open.is_empty();
        for (due, _) in connection.open.drain(..) {
            self.finished += 1;
            self.progress.failed.fetch_add(1, Ordering::Relaxed);
            self.progress.latency.observe(due.elapsed());
        }
        connection.close();
        if !was_idle {
            self.idle.push_back(slot);
        }
    }
}

fn note_answer(progress: &Progress, count_from: Instant, done: &Done) {
    progress.answered.fetch_add(1, Ordering::Relaxed);
    if !done.ok {
        progress.refused.fetch_add(1, Ordering::Relaxed);
    }
    if done.due >= count_from {
        progress.latency.observe(done.due.elapsed());
    }
}
