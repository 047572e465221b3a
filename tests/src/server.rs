//! Enters: connections of one port. Leaves: answers, and a true record of every request that arrived.
//!
//! One thread and one epoll, so that it can stand on either end of a measurement.

use std::{
    collections::VecDeque,
    io::{self, Read, Write},
    net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use socket2::{Domain, Socket, Type};

pub use crate::answers::JSON;
use crate::{
    answers::{Answer, answer_to, opens_tunnel},
    digest::{Digest, digest},
    http::{self, BodyScan},
    netns::Host,
    sys,
};

/// How much is kept of each request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Record {
    /// Nothing: requests are counted.
    Count,
    /// A digest of the request without the mirror's markers.
    Digest,
    /// All bytes.
    Raw,
}

/// What the server does with requests; may change while it runs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Behavior {
    /// Answers at once.
    Answer,
    /// Answers so many milliseconds late.
    Late(u32),
    /// Reads requests and never answers.
    Hang,
    /// Reads a request and closes without an answer.
    CloseUnanswered,
    /// Closes connections as they come.
    CloseOnAccept,
    /// Accepts and never reads.
    NeverRead,
}

impl Behavior {
    fn to_bits(self) -> u64 {
        match self {
            Self::Answer => 0,
            Self::Late(millis) => 1 | u64::from(millis) << 8,
            Self::Hang => 2,
            Self::CloseUnanswered => 3,
            Self::CloseOnAccept => 4,
            Self::NeverRead => 5,
        }
    }

    fn from_bits(bits: u64) -> Self {
        match bits & 0xff {
            0 => Self::Answer,
            1 => Self::Late(u32::try_from(bits >> 8).unwrap_or(u32::MAX)),
            2 => Self::Hang,
            3 => Self::CloseUnanswered,
            4 => Self::CloseOnAccept,
            _ => Self::NeverRead,
        }
    }
}

/// A request as it arrived.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Arrived {
    /// Which connection it came by, counted from 0.
    pub connection: u64,
    /// Its bytes, head and body.
    pub raw: Vec<u8>,
}

/// Sees every request as it arrived, beside what is recorded.
pub trait Witness: std::fmt::Debug + Send + Sync {
    /// Takes the bytes of a complete request.
    fn see(&self, raw: &[u8]);
}

/// What the server thread and its owner share.
#[derive(Debug)]
struct Shared {
    record: Record,
    witness: Option<Arc<dyn Witness>>,
    /// What every request is answered with, if it is always the same.
    fixed: Option<Vec<u8>>,
    behavior: AtomicU64,
    stop: AtomicBool,
    requests: AtomicU64,
    connections: AtomicU64,
    /// Those among them by which the agent found out where a target leads: one request each.
    probes: AtomicU64,
    tunnelled: AtomicU64,
    cpu_micros: AtomicU64,
    arrived: Mutex<Vec<Arrived>>,
    digests: Mutex<Vec<Digest>>,
    unmarked: AtomicU64,
}

/// A running server; stops when dropped.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Server {
    /// Starts a server on a port of all addresses of the host, IPv4 and IPv6.
    ///
    /// # Errors
    ///
    /// The port cannot be bound.
    pub fn start(host: &Host, port: u16, record: Record) -> Result<Self> {
        Self::launch(host, port, record, None, None)
    }

    /// The same with an answer, head and body, to all requests, which are only counted.
    ///
    /// # Errors
    ///
    /// The port cannot be bound.
    pub fn fixed(host: &Host, port: u16, answer: Vec<u8>) -> Result<Self> {
        Self::launch(host, port, Record::Count, None, Some(answer))
    }

    /// The same with a witness, and requests only counted.
    ///
    /// # Errors
    ///
    /// The port cannot be bound.
    pub fn watched(host: &Host, port: u16, witness: Arc<dyn Witness>) -> Result<Self> {
        Self::launch(host, port, Record::Count, Some(witness), None)
    }

    fn launch(
        host: &Host,
        port: u16,
        record: Record,
        witness: Option<Arc<dyn Witness>>,
        fixed: Option<Vec<u8>>,
    ) -> Result<Self> {
        let listener = host.within(|| listen(port).with_context(|| format!("listen on port {port}")))?;
        let shared = Arc::new(Shared {
            record,
            witness,
            fixed,
            behavior: AtomicU64::new(Behavior::Answer.to_bits()),
            stop: AtomicBool::new(false),
            requests: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            probes: AtomicU64::new(0),
            tunnelled: AtomicU64::new(0),
            cpu_micros: AtomicU64::new(0),
            arrived: Mutex::default(),
            digests: Mutex::default(),
            unmarked: AtomicU64::new(0),
        });
        let theirs = Arc::clone(&shared);
        let thread = host.spawn("server", move || Loop::new(listener, theirs)?.run())?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Changes what is done with requests from here on.
    pub fn behave(&self, behavior: Behavior) {
        self.shared.behavior.store(behavior.to_bits(), Ordering::Relaxed);
    }

    /// Complete requests so far.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::Relaxed)
    }

    /// Connections so far, without those of the agent's [probes](http::is_probe).
    #[must_use]
    pub fn connections(&self) -> u64 {
        let probes = self.shared.probes.load(Ordering::Relaxed);
        self.shared.connections.load(Ordering::Relaxed).saturating_sub(probes)
    }

    /// Bytes that came after an upgrade or CONNECT.
    #[must_use]
    pub fn tunnelled_bytes(&self) -> u64 {
        self.shared.tunnelled.load(Ordering::Relaxed)
    }

    /// CPU time of the server's thread so far, a tenth of a second old at most.
    #[must_use]
    pub fn cpu(&self) -> Duration {
        Duration::from_micros(self.shared.cpu_micros.load(Ordering::Relaxed))
    }

    /// The requests so far, where they are kept.
    #[must_use]
    pub fn arrived(&self) -> Vec<Arrived> {
        lock(&self.shared.arrived).clone()
    }

    /// The digests so far, where they are made.
    #[must_use]
    pub fn digests(&self) -> Vec<Digest> {
        lock(&self.shared.digests).clone()
    }

    /// Requests of which a digest was to be made and that did not carry exactly one of each marker.
    #[must_use]
    pub fn unmarked(&self) -> u64 {
        self.shared.unmarked.load(Ordering::Relaxed)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// What another thread left in the mutex is plain data, whole also after a panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A listening socket for both families.
fn listen(port: u16) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV6, Type::STREAM, None)?;
    socket.set_only_v6(false)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)).into())?;
    socket.listen(4096)?;
    Ok(socket.into())
}

/// The epoll token of the listening socket.
const LISTENER: u64 = u64::MAX;
/// How long the loop sleeps at most: the delay of a stop.
const PATIENCE: Duration = Duration::from_millis(100);

/// The server's thread.
struct Loop {
    listener: TcpListener,
    shared: Arc<Shared>,
    epoll: Epoll,
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
    /// Answers held back: when, to which connection.
    late: VecDeque<(Instant, usize, u64, Answer)>,
    scratch: Vec<u8>,
}

/// One connection.
struct Connection {
    number: u64,
    stream: TcpStream,
    /// Bytes that are not yet part of a complete request.
    input: Vec<u8>,
    phase: Phase,
    output: Vec<u8>,
    written: usize,
    closing: bool,
    wants_write: bool,
}

/// What the next bytes of a connection are.
enum Phase {
    Head,
    /// A body; `scanned` bytes of the input, the head included, are known to be part of the request.
    Body {
        scanned: usize,
        scan: BodyScan,
    },
    /// Another protocol: bytes are sent back.
    Tunnel,
}

impl Loop {
    fn new(listener: TcpListener, shared: Arc<Shared>) -> Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER))?;
        Ok(Self {
            listener,
            shared,
            epoll,
            connections: Vec::new(),
            free: Vec::new(),
            late: VecDeque::new(),
            scratch: vec![0; 256 * 1024],
        })
    }

    fn run(mut self) -> Result<()> {
        let mut events = vec![EpollEvent::empty(); 256];
        let mut accounted = Instant::now();
        while !self.shared.stop.load(Ordering::Relaxed) {
            let due = self.late.front().map(|late| late.0.saturating_duration_since(Instant::now()));
            let ready = sys::epoll_wait(&self.epoll, &mut events, due.unwrap_or(PATIENCE).min(PATIENCE))?;
            for event in events.iter().take(ready) {
                match usize::try_from(event.data()) {
                    Ok(slot) if event.data() != LISTENER => self.serve(slot, event.events()),
                    _ => self.accept(),
                }
            }
            self.send_late();
            if accounted.elapsed() >= PATIENCE {
                accounted = Instant::now();
                let cpu = u64::try_from(sys::thread_cpu()?.as_micros()).unwrap_or(u64::MAX);
                self.shared.cpu_micros.store(cpu, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    fn behavior(&self) -> Behavior {
        Behavior::from_bits(self.shared.behavior.load(Ordering::Relaxed))
    }

    fn accept(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            let number = self.shared.connections.fetch_add(1, Ordering::Relaxed);
            let behavior = self.behavior();
            if behavior == Behavior::CloseOnAccept || stream.set_nonblocking(true).is_err() {
                continue;
            }
            // Without it a late answer's last segment may wait for an acknowledgement.
            drop(stream.set_nodelay(true));
            let slot = self.free.pop().unwrap_or_else(|| {
                self.connections.push(None);
                self.connections.len() - 1
            });
            let interest =
                if behavior == Behavior::NeverRead { EpollFlags::empty() } else { EpollFlags::EPOLLIN };
            if self.epoll.add(&stream, EpollEvent::new(interest, slot as u64)).is_ok() {
                self.connections[slot] = Some(Connection::new(number, stream));
            } else {
                self.free.push(slot);
            }
        }
    }

    fn serve(&mut self, slot: usize, flags: EpollFlags) {
        let Some(mut connection) = self.connections.get_mut(slot).and_then(Option::take) else { return };
        let mut open = true;
        if flags.contains(EpollFlags::EPOLLOUT) {
            open = connection.flush();
        }
        if open && flags.intersects(EpollFlags::EPOLLIN | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR) {
            open = self.read(&mut connection, slot);
        }
        self.put_back(slot, connection, open);
    }

    /// Keeps a connection, with the interest in writability that it needs, or lets it go.
    fn put_back(&mut self, slot: usize, mut connection: Connection, open: bool) {
        let pending = connection.written < connection.output.len();
        if !open || (connection.closing && !pending) {
            self.free.push(slot);
            return;
        }
        if pending != connection.wants_write {
            connection.wants_write = pending;
            let interest =
                if pending { EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT } else { EpollFlags::EPOLLIN };
            if self.epoll.modify(&connection.stream, &mut EpollEvent::new(interest, slot as u64)).is_err() {
                self.free.push(slot);
                return;
            }
        }
        self.connections[slot] = Some(connection);
    }

    /// Reads what is there and answers what is complete; `false` when the connection is over.
    fn read(&mut self, connection: &mut Connection, slot: usize) -> bool {
        loop {
            let read = match connection.stream.read(&mut self.scratch) {
                Ok(0) => return false,
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => return false,
            };
            if matches!(connection.phase, Phase::Tunnel) {
                self.shared.tunnelled.fetch_add(read as u64, Ordering::Relaxed);
                connection.output.extend_from_slice(&self.scratch[..read]);
            } else {
                connection.input.extend_from_slice(&self.scratch[..read]);
                if !self.take_requests(connection, slot) {
                    return false;
                }
            }
            if read < self.scratch.len() {
                break;
            }
        }
        connection.flush()
    }

    /// Answers every complete request of the input; `false` to close at once.
    fn take_requests(&mut self, connection: &mut Connection, slot: usize) -> bool {
        let mut start = 0;
        while let Some(length) = connection.next_request(start) {
            let raw = &connection.input[start..start + length];
            let head = &raw[..http::head_len(raw).unwrap_or(length)];
            self.note(connection.number, raw);
            let behavior = self.behavior();
            let tunnel = opens_tunnel(head);
            let answer = match &self.shared.fixed {
                Some(bytes) => Answer { bytes: bytes.clone(), closing: false },
                None => answer_to(head),
            };
            start += length;
            match behavior {
                Behavior::Answer | Behavior::NeverRead | Behavior::CloseOnAccept => {
                    connection.output.extend_from_slice(&answer.bytes);
                    connection.closing |= answer.closing;
                }
                Behavior::Late(millis) => {
                    let due = Instant::now() + Duration::from_millis(u64::from(millis));
                    self.late.push_back((due, slot, connection.number, answer));
                }
                Behavior::Hang => {}
                Behavior::CloseUnanswered => return false,
            }
            if tunnel && behavior == Behavior::Answer {
                connection.phase = Phase::Tunnel;
                let early = connection.input.split_off(start);
                self.shared.tunnelled.fetch_add(early.len() as u64, Ordering::Relaxed);
                connection.output.extend_from_slice(&early);
                break;
            }
        }
        connection.input.drain(..start);
        true
    }

    /// Counts a request and keeps of it what is to be kept.
    ///
    /// The agent's probe, by which it finds out where a target leads, is answered and nothing else.
    fn note(&self, connection: u64, raw: &[u8]) {
        if http::is_probe(raw) {
            self.shared.probes.fetch_add(1, Ordering::Relaxed);
            return;
        }
        match self.shared.record {
            Record::Count => {}
            Record::Digest => match http::without_markers(raw) {
                Some(marked) => lock(&self.shared.digests).push(digest(&marked.original)),
                None => {
                    self.shared.unmarked.fetch_add(1, Ordering::Relaxed);
                }
            },
            Record::Raw => lock(&self.shared.arrived).push(Arrived { connection, raw: raw.to_vec() }),
        }
        if let Some(witness) = &self.shared.witness {
            witness.see(raw);
        }
        self.shared.requests.fetch_add(1, Ordering::Release);
    }

    fn send_late(&mut self) {
        let now = Instant::now();
        while self.late.front().is_some_and(|late| late.0 <= now) {
            let Some((_, slot, number, answer)) = self.late.pop_front() else { break };
            let Some(mut connection) = self.connections.get_mut(slot).and_then(Option::take) else {
                continue;
            };
            let mut open = true;
            if connection.number == number {
                connection.output.extend_from_slice(&answer.bytes);
                connection.closing |= answer.closing;
                open = connection.flush();
            }
            self.put_back(slot, connection, open);
        }
    }
}

impl Connection {
    fn new(number: u64, stream: TcpStream) -> Self {
        Self {
            number,
            stream,
            input: Vec::new(),
            phase: Phase::Head,
            output: Vec::new(),
            written: 0,
            closing: false,
            wants_write: false,
        }
    }

    /// The length of the request at `start` of the input, once it is complete.
    fn next_request(&mut self, start: usize) -> Option<usize> {
        loop {
            let input = &self.input[start..];
            match &mut self.phase {
                Phase::Head => {
                    let head = http::head_len(input)?;
                    if http::header_has(&input[..head], "expect", "100-continue") {
                        self.output.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
                    }
                    let scan = BodyScan::new(http::request_framing(&input[..head]));
                    self.phase = Phase::Body { scanned: head, scan };
                }
                Phase::Body { scanned, scan } => {
                    *scanned += scan.advance(&input[*scanned..]);
                    if !scan.is_done() {
                        return None;
                    }
                    let length = *scanned;
                    self.phase = Phase::Head;
                    return Some(length);
                }
                Phase::Tunnel => return None,
            }
        }
    }

    /// Writes what can be written; `false` when the connection is over.
    fn flush(&mut self) -> bool {
        while self.written < self.output.len() {
            match self.stream.write(&self.output[self.written..]) {
                Ok(0) => return false,
                Ok(written) => self.written += written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(_) => return false,
            }
        }
        self.output.clear();
        self.written = 0;
        true
    }
}
