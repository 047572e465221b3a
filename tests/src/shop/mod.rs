//! Enters: connections of one port. Leaves: the answers of a small shop, in one of two versions, with the bugs asked for.
//!
//! What an answer says follows from the request; what two copies of one program never agree on is drawn anew by each
//! server. A thread for each connection: an answer takes some 20 ms, and most of that is waiting.

mod answer;
mod bugs;
mod json;
mod noise;
mod pages;
mod program;
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

pub use self::{
    bugs::{Bug, Bugs},
    noise::Noise,
    program::{Character, Program, SERVICE_TIME, Version},
    shopper::{Place, Shopper},
};
use crate::{
    http::{self, BodyScan},
    netns::Host,
    sys,
};

/// What the server's threads and its owner share.
#[derive(Debug)]
struct Shared {
    program: Program,
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
            program: Program::new(character),
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
        self.shared.program.changed_by(bug)
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
        thread::sleep(self.program.service_time(number));
        // What an answer says of the time is when it left.
        self.program.answer(raw, number, SystemTime::now())
    }
}

#[cfg(test)]
mod tests;
