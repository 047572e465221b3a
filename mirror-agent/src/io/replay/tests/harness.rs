//! Enters: a shadow's address and requests. Leaves: a running replay and its books.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{Arc, Mutex, mpsc},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::oneshot,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use super::super::{Gauges, Job, OwnSocketRegistry, Queue, Replay, ReplayConfig, clock, pool::Pool};
use crate::{
    io::{
        compare::OpenExchange,
        ledger::{CopyBooks, DropReason, Ledger, ReplayOutcome},
    },
    pipeline::{
        Endpoint, ExchangeId, FlowKey, ReplyTo, Request, Timestamp,
        flow::FlowId,
        policy::{ExperimentSet, Selection},
    },
};

/// A request with number 7 and nothing special about it.
pub(in crate::io) fn request(raw: &[u8], head_len: usize) -> Request {
    let endpoint = Endpoint::from(SocketAddr::from(([192, 0, 2, 1], 80)));
    Request {
        id: ExchangeId(7),
        selection: Arc::new(Selection { policy: Arc::default(), experiments: ExperimentSet::default() }),
        flow: FlowKey { client: endpoint, server: endpoint, vlan: 0, vni: 0 },
        flow_id: FlowId(0),
        raw: Bytes::copy_from_slice(raw),
        head_len,
        reply_to: ReplyTo::Other,
        keep_alive: true,
        first_byte_at: Timestamp::ZERO,
        last_byte_at: clock::now(),
        has_marker: false,
    }
}

/// `GET /path`.
pub(super) fn get(path: &str) -> Request {
    let raw = format!("GET /{path} HTTP/1.1\r\nHost: a\r\n\r\n");
    request(raw.as_bytes(), raw.len())
}

/// `GET /path` of the live connection `id` of the client with this port.
pub(super) fn get_of(client: u16, id: u64, path: &str) -> Request {
    let mut request = get(path);
    request.flow.client = SocketAddr::from(([192, 0, 2, 9], client)).into();
    request.flow_id = FlowId(id);
    request
}

/// A POST with a body of `len` bytes.
pub(super) fn post(len: usize) -> Request {
    let head = format!("POST / HTTP/1.1\r\ncontent-length: {len}\r\n\r\n");
    request(&[head.as_bytes(), &vec![b'x'; len]].concat(), head.len())
}

/// A ledger for requests made up by tests.
#[derive(Clone)]
pub(in super::super) struct Books {
    pub(super) ledger: Arc<Ledger>,
    pub(super) copies: Arc<CopyBooks>,
}

impl Default for Books {
    fn default() -> Self {
        let ledger = Arc::<Ledger>::default();
        Self { copies: ledger.copies("default", "shadow"), ledger }
    }
}

impl Books {
    pub(in super::super) fn job(&self, request: Request) -> Job {
        Job {
            request,
            ticket: self.ledger.claim(1).ticket(&self.copies),
            pipeline: 0,
            queued_at: clock::now(),
            part: None,
            has_paid: false,
        }
    }

    pub(in super::super) fn dropped(&self, reason: DropReason) -> u64 {
        self.ledger.dropped(reason)
    }

    fn settled(&self) -> u64 {
        let dropped: u64 = DropReason::ALL.iter().map(|reason| self.ledger.dropped(*reason)).sum();
        let skipped: u64 = self.copies.snapshot().skipped.iter().sum();
        self.ledger.mirrored() + dropped + skipped
    }
}

/// A replay that runs beside the test.
pub(super) struct Running {
    pub(super) books: Books,
    pub(super) queue: Arc<Queue>,
    pub(super) gauges: Arc<Gauges>,
    pub(super) pool: Arc<Pool>,
    pub(super) sockets: Arc<Sockets>,
    pushed: u64,
    shutdown: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Running {
    /// Starts a replay to `addr` with patient limits, and with what `adjust` changes.
    pub(super) async fn start(addr: SocketAddr, adjust: impl FnOnce(&mut ReplayConfig)) -> Self {
        Self::with_queue(addr, Queue::default(), adjust).await
    }

    /// The same with a queue of its own.
    pub(super) async fn with_queue(
        addr: SocketAddr,
        queue: Queue,
        adjust: impl FnOnce(&mut ReplayConfig),
    ) -> Self {
        let mut config = ReplayConfig::new(format!("http://{addr}").parse().unwrap(), 1);
        // On a busy machine everything takes long; tests about these limits set them.
        config.queue_age = Duration::from_secs(60);
        config.drain_timeout = Duration::from_secs(8);
        adjust(&mut config);
        let books = Books::default();
        let queue = Arc::new(queue);
        let sockets = Arc::<Sockets>::default();
        let registry = Arc::<Sockets>::clone(&sockets);
        let copies = Arc::clone(&books.copies);
        let replay =
            Replay::prepare(config, Arc::clone(&queue), copies, registry, Arc::new(|_| None)).await.unwrap();
        let gauges = replay.gauges();
        let pool = Arc::clone(&replay.pool);
        let (shutdown, told) = oneshot::channel();
        let task = tokio::spawn(replay.run(async move { drop(told.await) }));
        Self { books, queue, gauges, pool, sockets, pushed: 0, shutdown, task }
    }

    /// Notes that something else has queued so many requests.
    pub(super) const fn pushed_beside(&mut self, count: u64) {
        self.pushed += count;
    }

    pub(super) fn push(&mut self, requests: impl IntoIterator<Item = Request>) {
        let jobs: Vec<Job> = requests.into_iter().map(|request| self.books.job(request)).collect();
        self.pushed += jobs.len() as u64;
        self.queue.push_batch(jobs);
    }

    /// Queues a request whose answer is awaited at the first place of `open`.
    pub(super) fn push_for(&mut self, open: &Arc<OpenExchange>, request: Request) {
        let job = Job { part: Some(open.part(0)), ..self.books.job(request) };
        self.pushed += 1;
        self.queue.push_batch([job]);
    }

    /// Waits until `count` attempts have ended with `outcome`.
    pub(super) async fn ended(&self, outcome: ReplayOutcome, count: u64) {
        self.until(|| self.books.copies.replays(outcome) >= count).await;
        assert_eq!(self.books.copies.replays(outcome), count, "{outcome:?}");
    }

    /// Waits until all requests are settled.
    pub(super) async fn settled(&self) {
        self.until(|| self.books.settled() >= self.pushed).await;
    }

    pub(super) async fn until(&self, is_done: impl Fn() -> bool) {
        let start = Instant::now();
        while !is_done() {
            assert!(start.elapsed() < Duration::from_secs(10), "not in time: {:?}", self.books.ledger);
            sleep(Duration::from_millis(1)).await;
        }
    }

    /// Stops the replay and checks that nothing is left over. Returns requests mirrored.
    pub(super) async fn stop(self) -> (u64, Books) {
        self.shutdown.send(()).unwrap();
        timeout(Duration::from_secs(10), self.task).await.unwrap().unwrap();
        assert_eq!(self.books.settled(), self.pushed, "{:?}", self.books.ledger);
        let copies = self.books.copies.snapshot();
        assert_eq!((copies.copies, copies.pending), (self.pushed, 0), "{copies}");
        let left_out: u64 = copies.dropped.iter().chain(&copies.skipped).sum();
        assert_eq!(copies.copies, copies.mirrored + left_out, "{copies}");
        assert_eq!((self.queue.len(), self.queue.held_bytes()), (0, 0));
        assert_eq!((self.gauges.in_flight(), self.gauges.idle()), (0, 0));
        assert_eq!(self.sockets.open(), 0, "all sockets are closed and struck off");
        (self.books.ledger.mirrored(), self.books)
    }
}

/// The local ends that the replay has registered.
#[derive(Default)]
pub(in super::super) struct Sockets {
    open: Mutex<BTreeSet<SocketAddr>>,
    /// The first connection is announced and nothing is sent on it until there is something to receive.
    pub(super) stall: Mutex<Option<(mpsc::Sender<()>, mpsc::Receiver<()>)>>,
}

impl Sockets {
    pub(in super::super) fn open(&self) -> usize {
        self.open.lock().unwrap().len()
    }

    pub(in super::super) fn contains(&self, addr: SocketAddr) -> bool {
        self.open.lock().unwrap().contains(&addr)
    }
}

impl OwnSocketRegistry for Sockets {
    fn opened(&self, local: SocketAddr, _: bool) {
        assert!(self.open.lock().unwrap().insert(local), "{local} was registered twice");
        if let Some((opened, go)) = self.stall.lock().unwrap().take() {
            opened.send(()).unwrap();
            go.recv().unwrap();
        }
    }

    fn closed(&self, local: SocketAddr) {
        assert!(self.open.lock().unwrap().remove(&local), "{local} was not registered");
    }
}
