//! Enters: the live service's addresses. Leaves: requests over connections of every kind, until told to stop.

use std::{
    net::{SocketAddr, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::Result;

use super::requests::request;
use crate::{client::RawClient, netns::Host, rng::Rng};

/// Longer than TCP needs to get over what happens to the wire here.
const PATIENCE: Duration = Duration::from_secs(40);

/// What the clients and their owner share.
#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    /// The number of the next request.
    next: AtomicU64,
    answered: AtomicU64,
    failed: AtomicU64,
    connections: AtomicU64,
    /// Times when the agent may not have looked: from, to.
    blind: Mutex<Vec<(Instant, Option<Instant>)>>,
    /// Numbers of requests that the agent cannot be held to.
    excused: Mutex<Vec<u64>>,
}

impl Shared {
    /// Whether the agent may have been blind at some time from `from` on, to now.
    fn was_blind_since(&self, from: Instant) -> bool {
        let blind = self.blind.lock().unwrap_or_else(PoisonError::into_inner);
        blind.iter().any(|(_, until)| until.is_none_or(|until| until >= from))
    }
}

/// Clients at work; they stop when dropped.
#[derive(Debug)]
pub(super) struct Clients {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Result<()>>>,
}

impl Clients {
    /// Starts `count` of them on a host.
    pub(super) fn start(host: &Host, targets: [SocketAddr; 2], count: usize, seed: u64) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let mut clients = Self { shared, threads: Vec::new() };
        for index in 0..count {
            let shared = Arc::clone(&clients.shared);
            let rng = Rng::new(seed.rotate_left(17) ^ index as u64);
            let mut client = Client { shared, targets, seed, rng };
            clients.threads.push(host.spawn("client", move || {
                client.run();
                Ok(())
            })?);
        }
        Ok(clients)
    }

    /// Says that from here on the agent may not look.
    pub(super) fn agent_goes_blind(&self) {
        self.lock_blind().push((Instant::now(), None));
    }

    /// Says that the agent looks again.
    pub(super) fn agent_sees_again(&self) {
        if let Some((_, until)) = self.lock_blind().last_mut() {
            *until = Some(Instant::now());
        }
    }

    fn lock_blind(&self) -> std::sync::MutexGuard<'_, Vec<(Instant, Option<Instant>)>> {
        self.shared.blind.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Requests answered so far.
    pub(super) fn answered(&self) -> u64 {
        self.shared.answered.load(Ordering::Relaxed)
    }

    /// Requests without an answer so far.
    pub(super) fn failed(&self) -> u64 {
        self.shared.failed.load(Ordering::Relaxed)
    }

    /// Connections so far.
    pub(super) fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// Lets every client finish what it has begun.
    pub(super) fn finish(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            drop(thread.join());
        }
    }

    /// Numbers of the requests that overlapped with a time when the agent did not look, or were the first on their
    /// connection after one.
    pub(super) fn excused(&self) -> Vec<u64> {
        self.shared.excused.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        self.finish();
    }
}

/// One client.
struct Client {
    shared: Arc<Shared>,
    targets: [SocketAddr; 2],
    seed: u64,
    rng: Rng,
}

impl Client {
    fn run(&mut self) {
        while !self.shared.stop.load(Ordering::Relaxed) {
            let target = self.rng.pick(&[0, 1]);
            // A wire that is down lets no connection through: no request was made.
            let mut known_since = Instant::now();
            let Ok(stream) = TcpStream::connect_timeout(&self.targets[target], PATIENCE) else {
                thread::sleep(Duration::from_millis(100));
                continue;
            };
            let Ok(mut connection) = RawClient::over(stream, PATIENCE) else { continue };
            self.shared.connections.fetch_add(1, Ordering::Relaxed);
            let rounds = if self.rng.percent(20) { 1 } else { self.rng.between(2, 60) };
            let depth = if self.rng.percent(25) { self.rng.between(2, 6) } else { 1 };
            for _ in 0..rounds {
                if self.shared.stop.load(Ordering::Relaxed)
                    || !self.round(&mut connection, depth, &mut known_since)
                {
                    break;
                }
                thread::sleep(Duration::from_millis(self.rng.between(0, 40) as u64));
            }
        }
    }

    /// Sends up to `depth` requests at once and reads their answers; whether the connection goes on.
    ///
    /// `known_since` is from when on the agent knows the connection, if it has looked ever since.
    fn round(&mut self, connection: &mut RawClient, depth: usize, known_since: &mut Instant) -> bool {
        let began = Instant::now();
        let mut requests = Vec::new();
        let mut bytes = Vec::new();
        for _ in 0..depth {
            let number = self.shared.next.fetch_add(1, Ordering::Relaxed);
            let request = request(self.seed, number);
            bytes.extend_from_slice(&request.bytes);
            let closes = request.closes;
            requests.push((number, request));
            // What came after it would not be answered.
            if closes {
                break;
            }
        }
        let mut is_open = connection.send(&bytes).is_ok();
        for (_, request) in &requests {
            is_open = is_open
                && connection.read_response(request.is_head).is_ok_and(|answer| answer.code() == "200");
            let counter = if is_open { &self.shared.answered } else { &self.shared.failed };
            counter.fetch_add(1, Ordering::Relaxed);
        }
        if self.shared.was_blind_since(*known_since) {
            let mut excused = self.shared.excused.lock().unwrap_or_else(PoisonError::into_inner);
            excused.extend(requests.iter().map(|(number, _)| number));
        }
        // A round that it saw from end to end is how the agent gets to know a connection again.
        if !self.shared.was_blind_since(began) {
            *known_since = Instant::now();
        }
        is_open && requests.last().is_none_or(|(_, request)| !request.closes)
    }
}
