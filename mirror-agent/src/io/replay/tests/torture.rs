//! Enters: shadows that do their worst, and then are well. Leaves: proof that capture never waits, that memory stays
//! bounded, that the books balance, and that a shadow that is well again is found within its breaker's window.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use socket2::SockRef;
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::sleep,
};

use super::super::{BreakerState, Queue};
use super::harness::{Running, get, post};
use crate::io::{
    config::{BreakerConfig, CopyOrder, DropPolicy},
    ledger::DropReason,
};

/// How a shadow treats its clients.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Ill {
    Refuses,
    Resets,
    NeverAnswers,
    Drips,
    Garbage,
    Endless,
    ClosesMidBody,
    Overloaded,
}

const ALL: [Ill; 8] = [
    Ill::Refuses,
    Ill::Resets,
    Ill::NeverAnswers,
    Ill::Drips,
    Ill::Garbage,
    Ill::Endless,
    Ill::ClosesMidBody,
    Ill::Overloaded,
];

const BREAKER: BreakerConfig = BreakerConfig {
    error_ratio: 0.5,
    window: Duration::from_secs(1),
    min_requests: 10,
    open_for: Duration::from_millis(200),
};

const QUEUE_BYTES: usize = 1 << 20;

/// A shadow that is ill until it is told to be well.
struct Patient {
    addr: SocketAddr,
    is_well: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Patient {
    async fn start(ill: Ill) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let is_well = Arc::<AtomicBool>::default();
        let told = Arc::clone(&is_well);
        let task = tokio::spawn(async move {
            let mut listener = Some(listener);
            if ill == Ill::Refuses {
                listener = None;
                while !told.load(Ordering::Relaxed) {
                    sleep(Duration::from_millis(1)).await;
                }
            }
            let listener = match listener {
                Some(listener) => listener,
                None => TcpListener::bind(addr).await.unwrap(),
            };
            while let Ok((stream, _)) = listener.accept().await {
                let is_well = told.load(Ordering::Relaxed);
                tokio::spawn(async move {
                    if is_well { serve(stream).await } else { torture(stream, ill).await }
                });
            }
        });
        Self { addr, is_well, task }
    }
}

impl Drop for Patient {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Answers whatever comes, without reading it as requests: one answer for each end of a head.
async fn serve(mut stream: TcpStream) {
    let (mut reader, mut writer) = stream.split();
    let mut peer = tokio::io::BufReader::new(&mut reader);
    let mut line = Vec::new();
    loop {
        line.clear();
        let Ok(1..) = tokio::io::AsyncBufReadExt::read_until(&mut peer, b'\n', &mut line).await else {
            return;
        };
        if line.ends_with(b"\r\n") && line.len() == 2 {
            drop(writer.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await);
        }
    }
}

async fn torture(mut stream: TcpStream, ill: Ill) {
    match ill {
        Ill::Refuses => {}
        Ill::Resets => SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap(),
        Ill::NeverAnswers => sleep(Duration::from_secs(60)).await,
        Ill::Drips => {
            for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" {
                if stream.write_all(&[*byte]).await.is_err() {
                    return;
                }
                sleep(Duration::from_secs(1)).await;
            }
        }
        Ill::Garbage => {
            drop(stream.write_all(b"\x16\x03\x01 garbage \0\r\n\r\n").await);
            sleep(Duration::from_secs(60)).await;
        }
        Ill::Endless => {
            drop(stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await);
            while stream.write_all(&[b'x'; 16 * 1024]).await.is_ok() {
                tokio::task::yield_now().await;
            }
        }
        Ill::ClosesMidBody => {
            drop(stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf").await);
        }
        Ill::Overloaded => {
            let answer = b"HTTP/1.1 503 S\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            drop(stream.write_all(answer).await);
            sleep(Duration::from_millis(5)).await;
        }
    }
}

/// A thread that queues requests as capture does, and how long that took it.
struct Capture {
    stop: Arc<AtomicBool>,
    pushed: Arc<AtomicU64>,
    longest_nanos: Arc<AtomicU64>,
    most_bytes: Arc<AtomicUsize>,
    thread: thread::JoinHandle<()>,
}

impl Capture {
    fn start(running: &Running) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let (pushed, longest_nanos) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let most_bytes = Arc::<AtomicUsize>::default();
        let (books, queue) = (running.books.clone(), Arc::clone(&running.queue));
        let (is_told, counts, longest, most) =
            (Arc::clone(&stop), Arc::clone(&pushed), Arc::clone(&longest_nanos), Arc::clone(&most_bytes));
        let thread = thread::spawn(move || {
            for round in 0_u64.. {
                if is_told.load(Ordering::Relaxed) {
                    return;
                }
                let client = |mut request: crate::pipeline::Request, number: u64| {
                    let port = 1000 + u16::try_from(number % 12).unwrap();
                    request.flow.client = SocketAddr::from(([192, 0, 2, 7], port)).into();
                    request
                };
                let mut jobs: Vec<_> =
                    (0..9).map(|number| books.job(client(get("x"), round + number))).collect();
                jobs.push(books.job(client(post(10_000), round)));
                let len = jobs.len() as u64;
                let start = Instant::now();
                queue.push_batch(jobs);
                let nanos = u64::try_from(start.elapsed().as_nanos()).unwrap();
                longest.fetch_max(nanos, Ordering::Relaxed);
                most.fetch_max(queue.held_bytes(), Ordering::Relaxed);
                counts.fetch_add(len, Ordering::Relaxed);
                thread::sleep(Duration::from_millis(2));
            }
        });
        Self { stop, pushed, longest_nanos, most_bytes, thread }
    }

    fn stop(self, running: &mut Running) -> (Duration, usize) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
        running.pushed_beside(self.pushed.load(Ordering::Relaxed));
        let longest = Duration::from_nanos(self.longest_nanos.load(Ordering::Relaxed));
        (longest, self.most_bytes.load(Ordering::Relaxed))
    }
}

async fn running(addr: SocketAddr, order: CopyOrder) -> Running {
    let queue = Queue::new(256, QUEUE_BYTES).with_order(order).with_drop_policy(DropPolicy::Oldest);
    Running::with_queue(addr, queue, |config| {
        config.in_flight = 16;
        config.connect_timeout = Duration::from_millis(100);
        config.write_timeout = Duration::from_millis(100);
        config.response_timeout = Duration::from_millis(100);
        config.response_bytes = 1 << 20;
        config.queue_age = Duration::from_millis(200);
        config.circuit_breaker = Some(BREAKER);
    })
    .await
}

#[tokio::test]
async fn tortured_shadows_cost_copies_and_nothing_else_and_are_found_again() {
    torture_all(CopyOrder::None).await;
}

#[tokio::test]
async fn tortured_shadows_are_borne_in_order_too() {
    torture_all(CopyOrder::Connection).await;
}

async fn torture_all(order: CopyOrder) {
    for ill in ALL {
        let patient = Patient::start(ill).await;
        let mut running = running(patient.addr, order).await;
        let capture = Capture::start(&running);
        sleep(Duration::from_millis(500)).await;
        assert!(running.books.dropped(DropReason::Breaker) > 0, "{ill:?}: {:?}", running.books.ledger);
        assert_ne!(running.gauges.breaker_changes(), [0, 0, 0], "{ill:?}");
        patient.is_well.store(true, Ordering::Relaxed);
        let start = Instant::now();
        running.until(|| running.gauges.breaker() == BreakerState::Closed).await;
        let recovery = start.elapsed();
        let mirrored = running.books.ledger.mirrored();
        running.until(|| running.books.ledger.mirrored() > mirrored + 100).await;
        let [closed, half_open, open] = running.gauges.breaker_changes();
        let (longest, most) = capture.stop(&mut running);
        let (mirrored, books) = running.stop().await;
        println!(
            "{order:?} {ill:?}: recovery {recovery:?}, longest push {longest:?}, most held {most} B, opened {open}, \
                 probes {half_open}, closed {closed}, mirrored {mirrored}, dropped for breaker {}, connect {}, write {}",
            books.dropped(DropReason::Breaker),
            books.dropped(DropReason::Connect),
            books.dropped(DropReason::Write),
        );
        assert!(most <= QUEUE_BYTES, "{ill:?}: {most} bytes were held");
        // In 0.5 s it opens three times at most: 0.2 s, 0.4 s, and then 0.8 s, to which a quarter is added. The rest is for
        // a busy machine.
        assert!(recovery < Duration::from_secs(3), "{ill:?}: {recovery:?}");
        assert!(longest < Duration::from_millis(200), "{ill:?}: {longest:?}");
    }
}

#[tokio::test]
async fn shadow_that_changes_its_address_is_followed() {
    for order in [CopyOrder::None, CopyOrder::Connection] {
        let (before, after) = (Patient::start(Ill::Refuses).await, Patient::start(Ill::Resets).await);
        before.is_well.store(true, Ordering::Relaxed);
        after.is_well.store(true, Ordering::Relaxed);
        sleep(Duration::from_millis(20)).await;
        let mut running = running(before.addr, order).await;
        let capture = Capture::start(&running);
        running.until(|| running.books.ledger.mirrored() > 100).await;
        // What a resolution finds; the old address is dead from then on.
        drop(before);
        running.pool.set_addresses(&[after.addr]);
        let start = Instant::now();
        let mirrored = running.books.ledger.mirrored();
        running.until(|| running.books.ledger.mirrored() > mirrored + 100).await;
        println!("{order:?}: 100 copies at the other address after {:?}", start.elapsed());
        let (longest, most) = capture.stop(&mut running);
        assert!(most <= QUEUE_BYTES && longest < Duration::from_millis(200), "{most} {longest:?}");
        running.stop().await;
    }
}
