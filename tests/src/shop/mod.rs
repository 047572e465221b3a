//! Enters: connections of one port. Leaves: the answers of a small shop, in one of two versions, with the bugs asked for.
//!
//! What an answer says follows from the request; what two copies of one program never agree on is drawn anew by each
//! server. A thread for each connection: an answer takes some 20 ms, and most of that is waiting.

mod answer;
mod bugs;
mod json;
mod noise;
mod pages;
mod shopper;

use std::{
    io::{self, Read, Write},
    net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use socket2::{Domain, Socket, Type};

use self::{
    answer::Accepts,
    noise::Chance,
    pages::{Kitchen, Page, Request},
};
pub use self::{
    bugs::{Bug, Bugs, Tally},
    noise::Noise,
    shopper::{Place, Shopper},
};
use crate::{
    http::{self, BodyScan},
    netns::Host,
    sys,
};

/// Which of the two programs it is. They agree but in what does not matter: layout, order of keys, case of field names.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Version {
    /// The old one.
    One,
    /// The new one.
    Two,
}

/// What a server is like.
#[derive(Clone, Copy, Debug)]
pub struct Character {
    /// Which program it runs.
    pub version: Version,
    /// What is wrong with it.
    pub bugs: Bugs,
    /// Where its own chance comes from.
    pub seed: u64,
}

/// The middle of the service times.
pub const SERVICE_TIME: Duration = Duration::from_millis(20);
/// How the service times spread: the standard deviation of their logarithm. The 95th percentile is 25.6 ms.
const SPREAD: f64 = 0.15;
/// From how many standard deviations on an answer is in the slow tail: one in ten is, so the 95th percentile lies within.
const TAIL: f64 = 1.2816;
/// How much longer the tail takes with [`Bug::SlowTail`].
const SLOWDOWN: f64 = 1.2;

/// What the server's threads and its owner share.
#[derive(Debug)]
struct Shared {
    character: Character,
    tally: Tally,
    requests: AtomicU64,
    stop: AtomicBool,
}

/// A running server; stops when dropped.
#[derive(Debug)]
pub struct Shop {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Shop {
    /// Opens on a port of all addresses of the host, IPv4 and IPv6.
    ///
    /// # Errors
    ///
    /// The port cannot be bound.
    pub fn open(host: &Host, port: u16, character: Character) -> Result<Self> {
        let listener = host.within(|| listen(port).with_context(|| format!("listen on port {port}")))?;
        let shared = Arc::new(Shared {
            character,
            tally: Tally::default(),
            requests: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        });
        let theirs = Arc::clone(&shared);
        let thread = host.spawn("shop", move || accept(&listener, &theirs))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Requests answered so far; the agent's probes are none.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::Relaxed)
    }

    /// How many answers a bug has changed so far.
    #[must_use]
    pub fn changed_by(&self, bug: Bug) -> u64 {
        self.shared.tally.of(bug)
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// A listening socket for both families.
fn listen(port: u16) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV6, Type::STREAM, None)?;
    socket.set_only_v6(false)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)).into())?;
    socket.listen(1024)?;
    Ok(socket.into())
}

/// How long a thread waits before it looks whether to stop.
const PATIENCE: Duration = Duration::from_millis(100);

/// Takes connections, each on a thread of its own, until told to stop; then waits for all of them.
fn accept(listener: &TcpListener, shared: &Arc<Shared>) -> Result<()> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    epoll.add(listener, EpollEvent::new(EpollFlags::EPOLLIN, 0))?;
    let mut events = [EpollEvent::empty()];
    let mut threads: Vec<JoinHandle<()>> = Vec::new();
    while !shared.stop.load(Ordering::Relaxed) {
        sys::epoll_wait(&epoll, &mut events, PATIENCE)?;
        while let Ok((stream, _)) = listener.accept() {
            let theirs = Arc::clone(shared);
            let serve = move || drop(Connection::new(stream, &theirs).and_then(Connection::serve));
            threads.push(thread::Builder::new().name("shop".to_owned()).spawn(serve)?);
        }
        threads.retain(|thread| !thread.is_finished());
    }
    for thread in threads {
        drop(thread.join());
    }
    Ok(())
}

/// One connection.
struct Connection<'a> {
    stream: TcpStream,
    shared: &'a Shared,
    input: Vec<u8>,
}

impl<'a> Connection<'a> {
    fn new(stream: TcpStream, shared: &'a Shared) -> io::Result<Self> {
        sys::precise_timers()?;
        stream.set_nonblocking(false)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { stream, shared, input: Vec::new() })
    }

    /// Answers one request after the other.
    fn serve(mut self) -> io::Result<()> {
        while let Some(length) = self.read_request()? {
            let raw = self.input.drain(..length).collect::<Vec<_>>();
            let answer = if http::is_probe(&raw) {
                b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec()
            } else {
                self.shared.answer(&raw)
            };
            self.stream.write_all(&answer)?;
            if http::header_has(&raw, "connection", "close") {
                break;
            }
        }
        Ok(())
    }

    /// Reads until a request is complete, and gives its length; `None` at the end of the connection.
    fn read_request(&mut self) -> io::Result<Option<usize>> {
        let mut scratch = [0; 16 * 1024];
        loop {
            if let Some(head) = http::head_len(&self.input) {
                let mut scan = BodyScan::new(http::request_framing(&self.input[..head]));
                let body = scan.advance(&self.input[head..]);
                if scan.is_done() {
                    return Ok(Some(head + body));
                }
            }
            match self.stream.read(&mut scratch) {
                Ok(0) => return Ok(None),
                Ok(read) => self.input.extend_from_slice(&scratch[..read]),
                Err(error) if is_pause(&error) && !self.shared.stop.load(Ordering::Relaxed) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

fn is_pause(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}

impl Shared {
    /// Takes its time, and answers.
    fn answer(&self, raw: &[u8]) -> Vec<u8> {
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        let mut chance = Chance::new(self.character.seed, number, SystemTime::now());
        thread::sleep(self.service_time(&mut chance));
        // What an answer says of the time is when it left.
        let mut chance = Chance::new(!self.character.seed, number, SystemTime::now());
        self.bytes(raw, &mut chance)
    }

    /// How long an answer takes.
    fn service_time(&self, chance: &mut Chance) -> Duration {
        let deviation = chance.bell();
        let time = SERVICE_TIME.mul_f64((SPREAD * deviation).exp());
        if deviation > TAIL && self.character.bugs.has(Bug::SlowTail) {
            self.tally.note(Bug::SlowTail);
            return time.mul_f64(SLOWDOWN);
        }
        time
    }

    /// The bytes of the answer to a request.
    fn bytes(&self, raw: &[u8], chance: &mut Chance) -> Vec<u8> {
        let page = self.page(raw, chance);
        let accepts = http::header_has(raw, "accept-encoding", "gzip");
        let accepts = if accepts { Accepts::Gzip } else { Accepts::Plain };
        answer::write(page, self.character.version, accepts, chance)
    }

    /// The answer to a request.
    fn page(&self, raw: &[u8], chance: &mut Chance) -> Page {
        let (head, body) = raw.split_at(http::head_len(raw).unwrap_or(raw.len()));
        let [method, target] =
            [http::first_word(head), http::second_word(head)].map(|word| std::str::from_utf8(word));
        let request = Request { method: method.unwrap_or(""), target: target.unwrap_or(""), body };
        Kitchen { bugs: self.character.bugs, tally: &self.tally, chance }.page(request)
    }
}

#[cfg(test)]
mod tests;
