//! Enters: lists and watches of pods over HTTP. Leaves: answers as an API server gives them, or whatever trouble it is told
//! to make.

use std::{
    io::{BufRead as _, BufReader, ErrorKind, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::{
    TOKEN,
    query::Query,
    store::{Store, Trouble, status},
};
use crate::netns::Host;

/// An API server's.
const API_PORT: u16 = 6443;

/// How often a watch says that nothing has changed; a real one does once a minute.
const BOOKMARK_INTERVAL: Duration = Duration::from_millis(300);

/// How often a watch looks whether it is to end.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// An API server that knows pods.
#[derive(Debug)]
pub struct ApiServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    listening: Option<Listening>,
}

#[derive(Debug)]
struct Listening {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<()>>,
}

#[derive(Debug)]
struct Shared {
    store: Mutex<Store>,
    changed: Condvar,
    /// What was asked, in its order.
    asked: Mutex<Vec<String>>,
    connections: Mutex<Vec<TcpStream>>,
}

impl Shared {
    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ApiServer {
    /// Starts it on a host, without pods.
    ///
    /// # Errors
    ///
    /// The port cannot be bound.
    pub fn start(host: &Host) -> Result<Self> {
        let shared = Arc::new(Shared {
            store: Mutex::new(Store::new()),
            changed: Condvar::new(),
            asked: Mutex::default(),
            connections: Mutex::default(),
        });
        let mut server = Self { address: host.at_v4(API_PORT), shared, listening: None };
        server.come_up(host)?;
        Ok(server)
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Adds a pod, or changes it.
    pub fn apply(&self, pod: Value) {
        let key = key(&pod["metadata"]);
        self.shared.store().put(&key, Some(pod));
        self.shared.changed.notify_all();
    }

    /// Takes a pod out.
    pub fn delete(&self, namespace: &str, name: &str) {
        self.shared.store().put(&key(&json!({ "namespace": namespace, "name": name })), None);
        self.shared.changed.notify_all();
    }

    /// Makes trouble from here on, also in watches that go on.
    pub fn make(&self, trouble: Trouble) {
        let mut store = self.shared.store();
        if trouble == Trouble::Gone {
            store.forget();
        }
        store.trouble = trouble;
        store.era += 1;
        drop(store);
        self.shared.changed.notify_all();
    }

    /// Forgets what has changed, so that nobody can go on from there.
    pub fn forget(&self) {
        self.shared.store().forget();
    }

    /// Ends it: connections are reset and refused. What it knows it still knows when it comes up again.
    ///
    /// # Errors
    ///
    /// It failed before.
    pub fn go_down(&mut self) -> Result<()> {
        let Some(Listening { stop, thread }) = self.listening.take() else { return Ok(()) };
        stop.store(true, Ordering::Release);
        self.shared.store().era += 1;
        self.shared.changed.notify_all();
        let outcome = thread.join().unwrap_or_else(|_panic| anyhow::bail!("the API server panicked"));
        for connection in lock(&self.shared.connections).drain(..) {
            drop(connection.shutdown(Shutdown::Both));
        }
        outcome
    }

    /// Listens again.
    ///
    /// # Errors
    ///
    /// The port cannot be bound.
    pub fn come_up(&mut self, host: &Host) -> Result<()> {
        let listener = host.within(|| {
            let listener = TcpListener::bind(self.address).context("bind the API server")?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        })?;
        let (stop, shared) = (Arc::<AtomicBool>::default(), Arc::clone(&self.shared));
        let stops = Arc::clone(&stop);
        let thread = thread::Builder::new()
            .name("api-server".to_owned())
            .spawn(move || accept(&listener, &shared, &stops))?;
        self.listening = Some(Listening { stop, thread });
        Ok(())
    }

    /// The targets of the requests so far.
    #[must_use]
    pub fn asked(&self) -> Vec<String> {
        lock(&self.shared.asked).clone()
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        drop(self.go_down());
    }
}

fn key(metadata: &Value) -> String {
    let text = |name: &str| metadata[name].as_str().unwrap_or_default().to_owned();
    format!("{}/{}", text("namespace"), text("name"))
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>, stop: &AtomicBool) -> Result<()> {
    while !stop.load(Ordering::Acquire) {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false)?;
                lock(&shared.connections).push(stream.try_clone()?);
                let shared = Arc::clone(shared);
                // A connection that fails is what clients have to bear with.
                thread::spawn(move || drop(serve(&stream, &shared)));
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(Duration::from_millis(2)),
            Err(error) => return Err(error).context("accept"),
        }
    }
    Ok(())
}

fn serve(stream: &TcpStream, shared: &Shared) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut lines = BufReader::new(stream).lines();
    while let Some(first) = lines.next() {
        let first = first?;
        let mut is_known = false;
        for line in lines.by_ref() {
            let line = line?;
            if line.is_empty() {
                break;
            }
            is_known |= line.to_ascii_lowercase().starts_with("authorization:") && line.ends_with(TOKEN);
        }
        let target = first.split(' ').nth(1).context("a request without a target")?;
        lock(&shared.asked).push(target.to_owned());
        let (trouble, era) = {
            let store = shared.store();
            (store.trouble, store.era)
        };
        match trouble {
            Trouble::Hang => {
                wait_for_end(shared, era);
                return Ok(());
            }
            Trouble::Slow(millis) => thread::sleep(Duration::from_millis(millis.into())),
            Trouble::None | Trouble::Status(_) | Trouble::Gone | Trouble::Garbage | Trouble::Cut => {}
        }
        let query = Query::parse(target);
        match (trouble, query) {
            (Trouble::Status(code), _) => answer(stream, code, &status(code).to_string())?,
            (Trouble::Garbage, _) => answer(stream, 200, "<html>\nnot what you asked for")?,
            _ if !is_known => answer(stream, 401, &status(401).to_string())?,
            (_, None) => answer(stream, 404, &status(404).to_string())?,
            (_, Some(query)) if query.is_watch => watch(stream, shared, &query, era)?,
            (_, Some(query)) => {
                let list = shared.store().list(&query).to_string();
                answer(stream, 200, &list)?;
            }
        }
    }
    Ok(())
}

fn answer(mut stream: &TcpStream, code: u16, body: &str) -> Result<()> {
    let len = body.len();
    let head =
        format!("HTTP/1.1 {code} X\r\ncontent-type: application/json\r\ncontent-length: {len}\r\n\r\n");
    Ok(stream.write_all(format!("{head}{body}").as_bytes())?)
}

/// Streams events, each in two chunks, until the time is over, or the server has other troubles.
fn watch(mut stream: &TcpStream, shared: &Shared, query: &Query, era: u64) -> Result<()> {
    stream.write_all(
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n",
    )?;
    let begun = Instant::now();
    let mut told_at = Instant::now();
    let mut version = query.version;
    loop {
        let (events, now, trouble) = {
            let store = shared.store();
            let (store, _timeout) = shared
                .changed
                .wait_timeout_while(store, LOOK_INTERVAL, |store| {
                    store.version() <= version && store.era == era
                })
                .unwrap_or_else(PoisonError::into_inner);
            if store.era != era && !matches!(store.trouble, Trouble::Gone | Trouble::Cut) {
                // What hangs goes on hanging, all else begins anew.
                if store.trouble == Trouble::Hang {
                    let era = store.era;
                    drop(store);
                    wait_for_end(shared, era);
                }
                return Ok(stream.shutdown(Shutdown::Both)?);
            }
            (store.events(query, version), store.version(), store.trouble)
        };
        if trouble == Trouble::Cut {
            stream.write_all(b"20\r\n{\"type\":\"ADDED\",\"object\":{\"kind\r\n")?;
            return Ok(stream.shutdown(Shutdown::Both)?);
        }
        let Some(events) = events.filter(|_| trouble != Trouble::Gone) else {
            let event = json!({ "type": "ERROR", "object": status(410) });
            chunks(stream, &event)?;
            break;
        };
        for event in &events {
            chunks(stream, event)?;
            told_at = Instant::now();
        }
        version = now;
        if query.wants_bookmarks && told_at.elapsed() >= BOOKMARK_INTERVAL {
            let metadata = json!({ "resourceVersion": version.to_string() });
            chunks(
                stream,
                &json!({ "type": "BOOKMARK", "object": { "kind": "Pod", "metadata": metadata } }),
            )?;
            told_at = Instant::now();
        }
        if query.timeout.is_some_and(|timeout| begun.elapsed() >= timeout) {
            break;
        }
    }
    Ok(stream.write_all(b"0\r\n\r\n")?)
}

/// An event and its line's end, in two chunks that have nothing to do with it.
fn chunks(mut stream: &TcpStream, event: &Value) -> Result<()> {
    let line = format!("{event}\n").into_bytes();
    let (first, second) = line.split_at(line.len() / 2);
    for part in [first, second] {
        stream.write_all(&[format!("{:x}\r\n", part.len()).as_bytes(), part, b"\r\n"].concat())?;
    }
    Ok(())
}

/// Says nothing for as long as the trouble lasts.
fn wait_for_end(shared: &Shared, era: u64) {
    let store = shared.store();
    drop(shared.changed.wait_while(store, |store| store.era == era));
}

fn lock<T>(part: &Mutex<T>) -> MutexGuard<'_, T> {
    part.lock().unwrap_or_else(PoisonError::into_inner)
}
