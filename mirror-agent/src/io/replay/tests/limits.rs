//! Enters: more than there is room or time for. Leaves: drops with the right reason, and an orderly end.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{Notify, Semaphore},
    time::{Instant, sleep},
};

use super::super::{Queue, Refusal, Replay, ReplayConfig, ReplayError};
use super::{
    harness::{Books, Running, Sockets, get, get_of, post},
    server::Server,
};
use crate::io::{
    config::CopyOrder,
    ledger::{DropReason, ReplayOutcome},
};

#[tokio::test]
async fn connections_never_exceed_the_cap_and_old_requests_are_dropped() {
    let server = Server::start(|mut peer| async move { peer.closed().await }).await;
    let mut running = Running::start(server.addr, |config| {
        config.in_flight = 3;
        config.queue_age = Duration::from_millis(40);
        config.drain_timeout = Duration::ZERO;
    })
    .await;
    running.push((0..10).map(|_| get("")));
    running.settled().await;
    assert_eq!(running.books.dropped(DropReason::InFlight), 7);
    assert_eq!((running.sockets.open(), running.gauges.in_flight()), (3, 3));
    let (mirrored, books) = running.stop().await;
    assert_eq!((mirrored, books.copies.replays(ReplayOutcome::Shutdown)), (3, 3));
}

#[tokio::test]
async fn requests_that_wait_take_the_connections_that_become_free() {
    let server = Server::answering(b"HTTP/1.1 204 N\r\n\r\n").await;
    let mut running = Running::start(server.addr, |config| config.in_flight = 2).await;
    running.push((0..500).map(|number| get(&number.to_string())));
    running.ended(ReplayOutcome::Answered, 500).await;
    assert!(server.connections().iter().all(|number| *number < 2));
    assert_eq!(running.stop().await.0, 500);
}

#[tokio::test]
async fn requests_that_come_at_once_do_not_get_a_connection_each() {
    let server = Server::answering(b"HTTP/1.1 204 N\r\n\r\n").await;
    let mut running = Running::start(server.addr, |config| config.in_flight = 250).await;
    running.push((0..250).map(|number| get(&number.to_string())));
    running.ended(ReplayOutcome::Answered, 250).await;
    let opened = server.connections().iter().max().map_or(0, |last| last + 1);
    assert!((2..=150).contains(&opened), "{opened} connections");
    assert_eq!(running.stop().await.0, 250);
}

#[tokio::test]
async fn shadow_that_hangs_gets_as_many_requests_as_are_allowed() {
    for order in [CopyOrder::None, CopyOrder::Connection] {
        let server = Server::start(|mut peer| async move { peer.closed().await }).await;
        let queue = Queue::default().with_order(order);
        let mut running = Running::with_queue(server.addr, queue, |config| {
            config.in_flight = 100;
            config.drain_timeout = Duration::ZERO;
        })
        .await;
        assert_eq!(running.gauges.in_flight_limit(), 16);
        // Nothing comes after them, and nothing is answered, that would be an occasion to look again.
        running.push((0..120).map(|client| get_of(client, 1, "")));
        running.until(|| running.gauges.in_flight() == 100).await;
        assert_eq!((running.gauges.in_flight_limit(), running.queue.len()), (100, 20));
        assert_eq!(running.stop().await.0, 100);
    }
}

#[tokio::test]
async fn shadow_that_answers_soon_again_gets_fewer_requests_at_once() {
    let go = Arc::new(Semaphore::new(0));
    let told = Arc::clone(&go);
    let server = Server::start(move |mut peer| {
        let told = Arc::clone(&told);
        async move {
            drop(told.acquire().await);
            while peer.request().await.is_some() {
                peer.send(b"HTTP/1.1 204 N\r\n\r\n").await;
            }
        }
    })
    .await;
    let mut running = Running::start(server.addr, |_| {}).await;
    running.push((0..1000).map(|_| get("")));
    running.until(|| running.gauges.in_flight() == 256).await;
    go.add_permits(1);
    let start = Instant::now();
    while running.gauges.in_flight_limit() > 128 {
        assert!(start.elapsed() < Duration::from_secs(10), "{}", running.gauges.in_flight_limit());
        running.push((running.queue.len()..1000).map(|_| get("")));
        sleep(Duration::from_millis(1)).await;
    }
    running.settled().await;
    let (mirrored, books) = running.stop().await;
    assert_eq!(mirrored, books.copies.replays(ReplayOutcome::Answered));
}

#[tokio::test]
async fn idle_connections_are_closed_after_a_while() {
    let server = Server::answering(b"HTTP/1.1 204 N\r\n\r\n").await;
    let mut running =
        Running::start(server.addr, |config| config.idle_timeout = Duration::from_millis(20)).await;
    running.push((0..5).map(|_| get("")));
    running.ended(ReplayOutcome::Answered, 5).await;
    running.until(|| running.sockets.open() == 0 && running.gauges.idle() == 0).await;
    running.stop().await;
}

#[tokio::test]
async fn pause_before_the_first_connection_is_opened_leaves_the_way_open() {
    let server = Server::answering(b"HTTP/1.1 204 N\r\n\r\n").await;
    let mut running = Running::start(server.addr, |_| {}).await;
    running.until(|| !running.gauges.addresses().is_empty()).await;
    running.push([get("paused")]);
    // Nothing of this lets the connection's task run.
    running.pool.pump(1);
    running.queue.pause();
    running.settled().await;
    running.queue.resume();
    running.push([get("sent")]);
    running.ended(ReplayOutcome::Answered, 1).await;
    let (mirrored, books) = running.stop().await;
    assert_eq!((mirrored, books.dropped(DropReason::Paused)), (1, 1));
}

#[tokio::test]
async fn shutdown_lets_requests_under_way_finish() {
    let go = Arc::new(Notify::new());
    let told = Arc::clone(&go);
    let server = Server::start(move |mut peer| {
        let told = Arc::clone(&told);
        async move {
            while peer.request().await.is_some() {
                told.notified().await;
                peer.send(b"HTTP/1.1 204 N\r\n\r\n").await;
            }
        }
    })
    .await;
    let mut running = Running::start(server.addr, |config| config.in_flight = 1).await;
    running.push([get("1"), get("2")]);
    running.until(|| server.requests().len() == 1).await;
    let stopping = tokio::spawn(running.stop());
    tokio::task::yield_now().await;
    go.notify_one();
    while server.requests().len() < 2 && !stopping.is_finished() {
        sleep(Duration::from_millis(1)).await;
    }
    go.notify_one();
    let (mirrored, books) = stopping.await.unwrap();
    assert_eq!((mirrored, books.copies.replays(ReplayOutcome::Answered)), (2, 2));
}

#[tokio::test]
async fn shutdown_settles_what_is_queued_written_half_and_unanswered() {
    let server = Server::start(|mut peer| async move {
        peer.request().await;
        sleep(Duration::from_secs(60)).await;
    })
    .await;
    let mut running = Running::start(server.addr, |config| {
        config.in_flight = 2;
        config.drain_timeout = Duration::from_millis(10);
    })
    .await;
    running.push([get("answerless")]);
    running.until(|| running.books.ledger.mirrored() == 1).await;
    running.push([post(20 << 20)]);
    running.until(|| running.gauges.in_flight() == 2).await;
    running.push((0..5).map(|_| get("queued")));
    let queue = Arc::clone(&running.queue);
    let (mirrored, books) = running.stop().await;
    assert_eq!(books.dropped(DropReason::Shutdown) + mirrored, 7);
    assert!(mirrored <= 2);
    queue.push_batch([books.job(get("late"))]);
    assert_eq!(books.dropped(DropReason::Shutdown) + mirrored, 8);
}

#[tokio::test]
async fn refused_target_does_not_start() {
    let config = ReplayConfig::new("http://127.0.0.1:80".parse().unwrap(), 1);
    let refuse = |target| Some(Refusal::Loopback { target });
    let prepared = Replay::prepare(
        config,
        Arc::new(Queue::default()),
        Books::default().copies,
        Arc::<Sockets>::default(),
        Arc::new(refuse),
    )
    .await;
    assert!(matches!(prepared, Err(ReplayError::Refused(Refusal::Loopback { .. }))));
}

#[tokio::test]
async fn addresses_refused_later_are_not_used() {
    let server = Server::answering(b"HTTP/1.1 204 N\r\n\r\n").await;
    let mut config = ReplayConfig::new(format!("http://{}", server.addr).parse().unwrap(), 1);
    config.resolve_interval = Duration::from_millis(5);
    let (queue, books) = (Arc::new(Queue::default()), Books::default());
    let asked = std::sync::atomic::AtomicBool::new(false);
    let refuse = move |target| {
        asked.swap(true, std::sync::atomic::Ordering::Relaxed).then_some(Refusal::Loopback { target })
    };
    let registry = Arc::<Sockets>::default();
    let copies = Arc::clone(&books.copies);
    let replay =
        Replay::prepare(config, Arc::clone(&queue), copies, registry, Arc::new(refuse)).await.unwrap();
    let task = tokio::spawn(replay.run(std::future::pending()));
    while books.dropped(DropReason::Connect) == 0 {
        assert!(!task.is_finished());
        queue.push_batch([books.job(get(""))]);
        sleep(Duration::from_millis(2)).await;
    }
    task.abort();
}
