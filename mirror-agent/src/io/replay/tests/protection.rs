//! Enters: more copies than a target should get, and targets that fail. Leaves: no more than it should get, counted.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU16, AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio::{
    net::TcpListener,
    time::{Instant, sleep},
};

use super::super::{BreakerState, Event, Observer, Queue, ReplayConfig, clock, protection::Protection};
use super::{
    harness::{Books, Running, get, post},
    server::Server,
};
use crate::io::{
    config::{BreakerConfig, CopyOrder},
    ledger::{CopyBooks, DropReason, ReplayOutcome},
};

const OK: &[u8] = b"HTTP/1.1 204 N\r\n\r\n";

const BREAKER: BreakerConfig = BreakerConfig {
    error_ratio: 0.5,
    window: Duration::from_secs(10),
    min_requests: 10,
    open_for: Duration::from_millis(100),
};

#[derive(Debug, Default)]
struct Events(Mutex<Vec<(String, Event)>>);

impl Observer for Events {
    fn handle_event(&self, target: &CopyBooks, event: Event) {
        self.0.lock().unwrap().push((format!("{}/{}", target.experiment(), target.target()), event));
    }
}

#[test]
fn copy_that_comes_back_from_behind_another_counts_against_the_rate_once() {
    let (books, queue) = (Books::default(), Queue::default());
    let target = "http://192.0.2.1".parse().unwrap();
    // One copy now, and the next one a quarter of an hour later.
    let config = ReplayConfig { requests_per_second: Some(0.001), ..ReplayConfig::new(target, 1) };
    let protection = Arc::new(Protection::new(&config, Arc::clone(&books.copies), Arc::default()));
    queue.push_batch([books.job(get("a")), books.job(get("b"))]);
    let mut held = queue.pop().unwrap();
    protection.admit(&mut held, clock::now()).unwrap();
    queue.put_back(vec![held]);
    let mut held = queue.pop().unwrap();
    protection.let_out(&mut held, 0, clock::now()).unwrap();
    protection.admit(&mut held, clock::now()).unwrap();
    let mut other = queue.pop().unwrap();
    assert_eq!(protection.let_out(&mut other, 0, clock::now()), Err(DropReason::RateLimited));
    assert_eq!(protection.admit(&mut other, clock::now()), Err(DropReason::RateLimited));
}

#[tokio::test]
async fn copies_over_the_rate_are_dropped_at_once_and_open_no_connections() {
    for order in [CopyOrder::None, CopyOrder::Connection] {
        let server = Server::answering(OK).await;
        let queue = Queue::default().with_order(order);
        let mut running =
            Running::with_queue(server.addr, queue, |config| config.requests_per_second = Some(100.0)).await;
        let start = Instant::now();
        for _ in 0..50 {
            running.push((0..10).map(|_| get("")));
            sleep(Duration::from_millis(4)).await;
        }
        running.settled().await;
        let most = 10.0 + start.elapsed().as_secs_f64() * 100.0;
        let mirrored = running.books.ledger.mirrored();
        assert!(mirrored >= 20 && mirrored as f64 <= most, "{mirrored}, at most {most}");
        assert_eq!(running.books.dropped(DropReason::RateLimited), 500 - mirrored);
        assert!(server.connections().iter().all(|number| *number < 10), "{:?}", server.connections());
        running.stop().await;
    }
}

#[tokio::test]
async fn a_rate_that_agents_share_follows_their_number() {
    let server = Server::answering(OK).await;
    let agents = Arc::new(AtomicU32::new(1000));
    let shared = Arc::clone(&agents);
    let mut running = Running::start(server.addr, move |config| {
        config.requests_per_second = Some(1000.0);
        config.shared_by = shared;
    })
    .await;
    running.push((0..50).map(|_| get("")));
    running.settled().await;
    assert_eq!(running.books.ledger.mirrored(), 1, "a thousandth of the rate");
    agents.store(1, Ordering::Relaxed);
    sleep(Duration::from_millis(100)).await;
    running.push((0..50).map(|_| get("")));
    running.settled().await;
    assert_eq!(running.books.ledger.mirrored(), 51);
    running.stop().await;
}

#[tokio::test]
async fn one_copy_a_second_opens_one_connection() {
    let server = Server::answering(OK).await;
    let mut running = Running::start(server.addr, |config| config.requests_per_second = Some(1.0)).await;
    running.push((0..100).map(|_| get("")));
    running.settled().await;
    assert_eq!((running.books.ledger.mirrored(), running.books.dropped(DropReason::RateLimited)), (1, 99));
    assert!(running.sockets.open() <= 1);
    running.stop().await;
}

#[tokio::test]
async fn bandwidth_is_of_bytes_written_and_a_long_copy_is_paid_off() {
    let server = Server::answering(OK).await;
    let mut running = Running::start(server.addr, |config| config.bandwidth = Some(100_000)).await;
    running.push([post(40_000)]);
    running.ended(ReplayOutcome::Answered, 1).await;
    let start = Instant::now();
    running.push((0..10).map(|_| get("")));
    running.settled().await;
    assert_eq!(running.books.dropped(DropReason::Bandwidth), 10);
    while running.books.ledger.mirrored() < 2 {
        running.push([get("")]);
        running.settled().await;
        sleep(Duration::from_millis(5)).await;
    }
    let paid = start.elapsed().as_secs_f64();
    assert!(paid > 0.25, "40,000 bytes less what the bucket held take 0.3 s, not {paid} s");
    running.stop().await;
}

#[tokio::test]
async fn breaker_opens_by_status_drops_what_waits_and_closes_by_one_probe() {
    let status = Arc::new(AtomicU16::new(503));
    let told = Arc::clone(&status);
    let server = Server::start(move |mut peer| {
        let told = Arc::clone(&told);
        async move {
            while peer.request().await.is_some() {
                let status = told.load(Ordering::Relaxed);
                if status == 0 {
                    return sleep(Duration::from_secs(60)).await;
                }
                peer.send(format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n").as_bytes()).await;
            }
        }
    })
    .await;
    let events = Arc::<Events>::default();
    let observer = Arc::clone(&events);
    let mut running = Running::start(server.addr, |config| {
        config.circuit_breaker = Some(BREAKER);
        config.in_flight = 1;
        config.response_timeout = Duration::from_millis(50);
        config.observer = Some(observer);
    })
    .await;
    running.push((0..100).map(|_| get("")));
    running.settled().await;
    assert_eq!((running.books.ledger.mirrored(), running.books.dropped(DropReason::Breaker)), (10, 90));
    assert_eq!(running.gauges.breaker(), BreakerState::Open);
    assert_eq!(server.requests().len(), 10);
    // The probe hangs: nothing else is sent meanwhile, and the breaker opens again.
    status.store(0, Ordering::Relaxed);
    sleep(BREAKER.open_for * 5 / 4).await;
    running.push((0..20).map(|_| get("")));
    running.until(|| running.gauges.breaker() == BreakerState::HalfOpen).await;
    running.push((0..20).map(|_| get("")));
    running.ended(ReplayOutcome::Timeout, 1).await;
    assert_eq!(running.gauges.breaker(), BreakerState::Open);
    assert_eq!((server.requests().len(), running.books.ledger.mirrored()), (11, 11));
    // Well again: 500 is an answer like any other.
    status.store(500, Ordering::Relaxed);
    let start = Instant::now();
    while running.gauges.breaker() != BreakerState::Closed {
        running.push([get("")]);
        running.settled().await;
        sleep(Duration::from_millis(2)).await;
    }
    assert!(start.elapsed() >= BREAKER.open_for * 3 / 2, "it waits for twice as long: {:?}", start.elapsed());
    running.push((0..50).map(|_| get("")));
    running.until(|| running.gauges.in_flight() == 0 && running.queue.is_empty()).await;
    assert_eq!(running.gauges.breaker(), BreakerState::Closed);
    assert_eq!(running.gauges.breaker_changes(), [1, 2, 2]);
    running.stop().await;
    let to = |event: &(String, Event)| {
        let Event::Breaker { to, .. } = event.1 else { panic!("{event:?}") };
        assert_eq!(event.0, "default/shadow");
        to
    };
    let seen: Vec<_> = events.0.lock().unwrap().iter().map(|event| to(event).as_str()).collect();
    assert_eq!(seen, ["open", "half_open", "open", "half_open", "closed"]);
}

#[tokio::test]
async fn breaker_opens_for_a_dead_port_and_is_not_fooled_by_too_few() {
    let addr = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let mut running = Running::start(addr, |config| config.circuit_breaker = Some(BREAKER)).await;
    running.push((0..9).map(|_| get("")));
    running.settled().await;
    assert_eq!(running.gauges.breaker(), BreakerState::Closed);
    running.push((0..50).map(|_| get("")));
    running.settled().await;
    assert_eq!(running.gauges.breaker(), BreakerState::Open);
    assert_eq!(
        (running.books.dropped(DropReason::Connect), running.books.dropped(DropReason::Breaker)),
        (10, 49)
    );
    running.stop().await;
}

#[tokio::test]
async fn probe_that_is_dropped_for_another_reason_leaves_the_way_to_the_next() {
    let server = Server::answering(OK).await;
    let mut running = Running::start(server.addr, |config| {
        config.circuit_breaker = Some(BREAKER);
        config.requests_per_second = Some(20.0);
    })
    .await;
    let protection = Arc::clone(&running.pool.protection);
    (0..10).for_each(|_| protection.unreachable(clock::now()));
    assert_eq!(running.gauges.breaker(), BreakerState::Open);
    sleep(BREAKER.open_for * 5 / 4).await;
    running.push((0..30).map(|_| get("")));
    running.settled().await;
    while running.gauges.breaker() != BreakerState::Closed {
        running.push([get("")]);
        running.settled().await;
        sleep(Duration::from_millis(10)).await;
    }
    running.stop().await;
}

#[tokio::test]
async fn old_connections_take_no_further_copies() {
    for order in [CopyOrder::None, CopyOrder::Connection] {
        let server = Server::answering(OK).await;
        let queue = Queue::default().with_order(order);
        let age = Duration::from_millis(50);
        let mut running =
            Running::with_queue(server.addr, queue, |config| config.max_connection_age = Some(age)).await;
        let start = Instant::now();
        let mut count = 0;
        while start.elapsed() < age * 6 {
            running.push([get("")]);
            count += 1;
            running.ended(ReplayOutcome::Answered, count).await;
        }
        let connections = server.connections().last().unwrap() + 1;
        assert!((2..=7).contains(&connections), "{connections}");
        assert!(running.sockets.open() <= 2);
        running.stop().await;
    }
}
