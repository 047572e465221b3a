//! Enters: copies from the test's own thread and from others. Leaves: those that an idle connection can take are written
//! before who brought them goes on, and none is sent twice or out of order for it.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use super::super::Queue;
use super::{
    harness::{Running, get, get_of, post},
    server::Server,
};
use crate::io::{config::CopyOrder, ledger::ReplayOutcome};

const OK: &[u8] = b"HTTP/1.1 204 N\r\n\r\n";

#[tokio::test]
async fn a_copy_that_an_idle_connection_can_take_is_written_by_who_brings_it() {
    let server = Server::answering(OK).await;
    let mut running = Running::start(server.addr, |_| {}).await;
    running.push([get("opens")]);
    assert_eq!(running.books.ledger.mirrored(), 0, "a connection is opened by the replay");
    running.ended(ReplayOutcome::Answered, 1).await;
    running.push([get("written")]);
    assert_eq!(running.books.ledger.mirrored(), 2, "nothing else has run since");
    running.push([get("waits")]);
    assert_eq!(running.books.ledger.mirrored(), 2, "the connection is busy");
    running.ended(ReplayOutcome::Answered, 3).await;
    // Longer than capture should be kept from its work.
    running.push([post(300_000)]);
    assert_eq!(running.books.ledger.mirrored(), 3);
    running.ended(ReplayOutcome::Answered, 4).await;
    assert_eq!(running.stop().await.0, 4);
}

#[tokio::test]
async fn a_connection_whose_end_was_not_read_yet_takes_no_copy() {
    const ROUNDS: u64 = 20;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let (close, closing) = mpsc::channel();
    let (closed, is_closed) = mpsc::channel();
    let server = thread::spawn(move || {
        for _ in 0..ROUNDS {
            let (mut peer, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                peer.read_exact(&mut byte).unwrap();
                request.extend(byte);
            }
            peer.write_all(OK).unwrap();
            closing.recv().unwrap();
            drop(peer);
            closed.send(()).unwrap();
        }
    });
    let mut running = Running::start(addr, |_| {}).await;
    for count in 1..=ROUNDS {
        running.push([get("")]);
        assert_eq!(running.books.ledger.mirrored(), count - 1);
        running.ended(ReplayOutcome::Answered, count).await;
        close.send(()).unwrap();
        // The replay's tasks, which are of this thread, see nothing of it.
        is_closed.recv().unwrap();
    }
    server.join().unwrap();
    assert_eq!(running.stop().await.0, ROUNDS);
}

/// Each thread has live connections of its own, as capture threads have.
#[tokio::test]
async fn copies_that_other_threads_bring_are_sent_once_and_each_connections_in_order() {
    const THREADS: u16 = 3;
    const CLIENTS: u16 = 4;
    const EACH: usize = 300;
    for pipeline in [1, 8] {
        // Some connections end after an answer that did not announce it.
        let answers = Arc::<AtomicUsize>::default();
        let server = Server::start(move |mut peer| {
            let answers = Arc::clone(&answers);
            async move {
                while peer.request().await.is_some() {
                    peer.send(OK).await;
                    if answers.fetch_add(1, Ordering::Relaxed) % 97 == 96 {
                        return;
                    }
                }
            }
        })
        .await;
        let queue = Queue::default().with_order(CopyOrder::Connection);
        let mut running = Running::with_queue(server.addr, queue, |config| config.pipeline = pipeline).await;
        let pushed = usize::from(THREADS * CLIENTS) * EACH;
        running.pushed_beside(pushed as u64);
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (queue, books) = (Arc::clone(&running.queue), running.books.clone());
                thread::spawn(move || {
                    for number in 0..EACH {
                        let clients = (0..CLIENTS).map(|client| 1 + thread * CLIENTS + client);
                        let jobs: Vec<_> = clients
                            .map(|client| books.job(get_of(client, 1, &format!("{client}/{number}"))))
                            .collect();
                        queue.push_batch(jobs);
                        // As long as an answer takes, more or less.
                        let until = Instant::now() + Duration::from_micros((number % 7) as u64 * 20);
                        while Instant::now() < until {
                            thread::yield_now();
                        }
                    }
                })
            })
            .collect();
        running.settled().await;
        running.until(|| running.gauges.in_flight() == 0).await;
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        let mut numbers = BTreeMap::<String, Vec<usize>>::new();
        for request in server.requests() {
            let (client, number) = request.split(' ').nth(1).unwrap()[1..].split_once('/').unwrap();
            numbers.entry(client.to_owned()).or_default().push(number.parse().unwrap());
        }
        assert!(numbers.values().all(|numbers| numbers.is_sorted_by(|one, next| one < next)), "{numbers:?}");
        let received: usize = numbers.values().map(Vec::len).sum();
        let (mirrored, books) = running.stop().await;
        let closed = books.copies.replays(ReplayOutcome::Closed);
        println!(
            "{pipeline}: {received} received, {mirrored} mirrored, {closed} on connections that were closing"
        );
        assert_eq!(mirrored, pushed as u64, "there is room for all");
        assert!(received as u64 + closed >= mirrored, "{received} of {mirrored}, {closed} closed");
        assert!(received as u64 <= mirrored);
    }
}
