//! Enters: shadows that break off, hang or talk nonsense. Leaves: one settled ticket and one outcome for each request.

use std::{
    io::{Read, Write},
    sync::{Arc, mpsc},
    time::Duration,
};

use socket2::SockRef;
use tokio::{io::AsyncReadExt, net::TcpListener, sync::Notify, time::Instant};

use super::{
    harness::{Running, get, post},
    server::Server,
};
use crate::io::ledger::{DropReason, ReplayOutcome};

#[tokio::test]
async fn connection_closed_while_idle_costs_no_copy() {
    let server = Server::start(|mut peer| async move {
        peer.request().await;
        peer.send(b"HTTP/1.1 204 N\r\n\r\n").await;
    })
    .await;
    let mut running = Running::start(server.addr, |_| {}).await;
    for count in 1..=20 {
        running.push([get("")]);
        running.ended(ReplayOutcome::Answered, count).await;
    }
    assert_eq!(server.connections(), (0..20).collect::<Vec<_>>());
    assert_eq!(running.stop().await.0, 20);
}

#[tokio::test]
async fn copy_whose_connection_is_closed_unanswered_is_not_sent_again() {
    let server = Server::start(|mut peer| async move {
        peer.request().await;
    })
    .await;
    let mut running = Running::start(server.addr, |_| {}).await;
    running.push([get("1"), get("2")]);
    running.ended(ReplayOutcome::Closed, 2).await;
    assert_eq!(server.requests().len(), 2);
    let (mirrored, books) = running.stop().await;
    assert_eq!((mirrored, books.copies.replays(ReplayOutcome::Write)), (2, 0));
}

#[tokio::test]
async fn copy_of_which_no_byte_was_accepted_is_sent_on_a_fresh_connection() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let (opened_tx, opened) = mpsc::channel();
    let (reset, reset_rx) = mpsc::channel();
    let server = std::thread::spawn(move || {
        let (first, _) = listener.accept().unwrap();
        opened.recv().unwrap();
        SockRef::from(&first).set_linger(Some(Duration::ZERO)).unwrap();
        drop(first);
        reset.send(()).unwrap();
        let (mut second, _) = listener.accept().unwrap();
        let mut request = [0; 1024];
        let len = second.read(&mut request).unwrap();
        second.write_all(b"HTTP/1.1 204 N\r\n\r\n").unwrap();
        request[..len].to_vec()
    });
    let mut running = Running::start(addr, |_| {}).await;
    *running.sockets.stall.lock().unwrap() = Some((opened_tx, reset_rx));
    running.push([get("once")]);
    running.ended(ReplayOutcome::Answered, 1).await;
    assert!(server.join().unwrap().starts_with(b"GET /once HTTP/1.1\r\n"));
    let (mirrored, books) = running.stop().await;
    assert_eq!((mirrored, books.copies.replays(ReplayOutcome::Write)), (1, 1));
}

#[tokio::test]
async fn address_that_is_struck_off_while_a_connection_to_it_is_opened_gets_no_copy() {
    let struck_off = Server::answering(b"HTTP/1.1 204 N\r\n\r\n").await;
    let left = Server::answering(b"HTTP/1.1 204 N\r\n\r\n").await;
    let mut running = Running::start(struck_off.addr, |_| {}).await;
    let (opened_tx, opened) = mpsc::channel();
    let (go, told) = mpsc::channel();
    *running.sockets.stall.lock().unwrap() = Some((opened_tx, told));
    let (pool, addr) = (Arc::clone(&running.pool), left.addr);
    let meanwhile = std::thread::spawn(move || {
        opened.recv().unwrap();
        pool.set_addresses(&[addr]);
        go.send(()).unwrap();
    });
    running.push([get("")]);
    running.ended(ReplayOutcome::Answered, 1).await;
    meanwhile.join().unwrap();
    assert_eq!((struck_off.requests().len(), left.requests().len()), (0, 1));
    assert_eq!(running.stop().await.0, 1);
}

#[tokio::test]
async fn dead_port_drops_at_once_and_is_tried_seldom() {
    let addr = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let mut running = Running::start(addr, |_| {}).await;
    let start = Instant::now();
    for _ in 0..50 {
        running.push((0..20).map(|_| get("")));
        running.settled().await;
    }
    assert!(start.elapsed() < Duration::from_secs(3));
    assert_eq!(running.books.dropped(DropReason::Connect), 1000);
    assert!(running.books.copies.replays(ReplayOutcome::Connect) <= 10);
    assert_eq!(running.stop().await.0, 0);
}

#[tokio::test]
async fn shadow_that_comes_back_is_found_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    drop(listener);
    let mut running = Running::start(addr, |_| {}).await;
    running.push([get("")]);
    running.settled().await;
    let listener = TcpListener::bind(addr).await.unwrap();
    tokio::spawn(async move { listener.accept().await.unwrap().0.read_u8().await });
    running.until(|| running.gauges.in_flight() == 0).await;
    while running.books.ledger.mirrored() == 0 {
        running.push([get("")]);
        running.settled().await;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    running.stop().await;
}

#[tokio::test]
async fn hanging_shadow_times_out_and_the_copy_counts_as_mirrored() {
    let server = Server::start(|mut peer| async move { peer.closed().await }).await;
    let mut running =
        Running::start(server.addr, |config| config.response_timeout = Duration::from_millis(20)).await;
    running.push([get("1"), get("2")]);
    running.ended(ReplayOutcome::Timeout, 2).await;
    assert_eq!(running.stop().await.0, 2);
}

#[tokio::test]
async fn shadow_that_does_not_read_drops_for_write() {
    let server = Server::start(|peer| async move {
        tokio::time::sleep(Duration::from_secs(60)).await;
        drop(peer);
    })
    .await;
    let mut running =
        Running::start(server.addr, |config| config.write_timeout = Duration::from_millis(20)).await;
    running.push([post(20 << 20)]);
    running.ended(ReplayOutcome::Write, 1).await;
    assert_eq!(running.books.dropped(DropReason::Write), 1);
    assert_eq!(running.stop().await.0, 0);
}

#[tokio::test]
async fn early_answer_counts_when_the_body_is_taken_all_the_same() {
    let server = Server::start(|mut peer| async move {
        peer.stream.read_u8().await.unwrap();
        peer.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n").await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        peer.closed().await;
    })
    .await;
    let mut running = Running::start(server.addr, |_| {}).await;
    running.push([post(12 << 20)]);
    running.ended(ReplayOutcome::Answered, 1).await;
    running.until(|| running.gauges.in_flight() + running.gauges.idle() == 0).await;
    assert_eq!(running.stop().await.0, 1);
}

#[tokio::test]
async fn early_answer_with_a_close_drops_for_write() {
    let server = Server::start(|mut peer| async move {
        peer.stream.read_u8().await.unwrap();
        peer.send(b"HTTP/1.1 401 U\r\nConnection: close\r\nContent-Length: 0\r\n\r\n").await;
    })
    .await;
    let mut running = Running::start(server.addr, |_| {}).await;
    running.push([post(20 << 20)]);
    running.ended(ReplayOutcome::Write, 1).await;
    assert_eq!(running.books.dropped(DropReason::Write), 1);
    running.stop().await;
}

#[tokio::test]
async fn answer_that_is_no_http_ends_the_connection() {
    for response in [&b"SSH-2.0-OpenSSH_9.2\r\n"[..], b"\0\0\0", b"HTTP/1.1 101 S\r\nUpgrade: x\r\n\r\n"] {
        let server = Server::answering(response).await;
        let mut running = Running::start(server.addr, |_| {}).await;
        running.push([get("")]);
        running.ended(ReplayOutcome::Protocol, 1).await;
        running.until(|| running.sockets.open() == 0).await;
        assert_eq!(running.stop().await.0, 1);
    }
}

#[tokio::test]
async fn endless_answer_is_cut_off() {
    for start in [&b"HTTP/1.1 200 OK\r\n\r\n"[..], b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"] {
        let server = Server::start(move |mut peer| async move {
            peer.request().await;
            peer.send(start).await;
            while tokio::io::AsyncWriteExt::write_all(&mut peer.stream, b"5\r\nendle\r\n").await.is_ok() {}
        })
        .await;
        let mut running = Running::start(server.addr, |config| config.response_bytes = 1 << 20).await;
        running.push([get("")]);
        running.ended(ReplayOutcome::Protocol, 1).await;
        running.stop().await;
    }
}

#[tokio::test]
async fn bytes_nobody_asked_for_end_an_idle_connection() {
    let go = Arc::new(Notify::new());
    let told = Arc::clone(&go);
    let server = Server::start(move |mut peer| {
        let told = Arc::clone(&told);
        async move {
            while peer.request().await.is_some() {
                peer.send(b"HTTP/1.1 204 N\r\n\r\n").await;
                told.notified().await;
                peer.send(b"HTTP/1.1 408 Request Timeout\r\n\r\n").await;
            }
        }
    })
    .await;
    let mut running = Running::start(server.addr, |_| {}).await;
    running.push([get("")]);
    running.ended(ReplayOutcome::Answered, 1).await;
    go.notify_one();
    running.until(|| running.sockets.open() == 0).await;
    running.push([get("")]);
    running.ended(ReplayOutcome::Answered, 2).await;
    assert_eq!(server.connections(), [0, 1]);
    running.stop().await;
}
