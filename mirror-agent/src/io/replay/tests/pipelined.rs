//! Enters: requests of one live connection that wait. Leaves: their copies together, each once and in order whatever the
//! shadow makes of that.

use std::{
    ops::Range,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use super::super::{Queue, ReplayConfig};
use super::{
    harness::{Running, get_of, post},
    server::{Peer, Server},
};
use crate::{
    io::{config::CopyOrder, ledger::ReplayOutcome},
    pipeline::Request,
};

const OK: &[u8] = b"HTTP/1.1 204 N\r\n\r\n";

async fn ordered(server: &Server, adjust: impl FnOnce(&mut ReplayConfig)) -> Running {
    let queue = Queue::default().with_order(CopyOrder::Connection);
    let adjust = |config: &mut ReplayConfig| {
        config.pipeline = 8;
        adjust(config);
    };
    Running::with_queue(server.addr, queue, adjust).await
}

fn requests(numbers: Range<usize>) -> impl Iterator<Item = Request> {
    numbers.map(|number| get_of(1, 1, &number.to_string()))
}

/// The numbers of the requests received, in order.
fn numbers(server: &Server) -> Vec<usize> {
    let number = |request: &String| request.split(' ').nth(1).unwrap()[1..].parse().unwrap();
    server.requests().iter().map(number).collect()
}

/// Reads so many requests before it answers any of them.
async fn answer_together(peer: &mut Peer, count: usize) {
    for _ in 0..count {
        if peer.request().await.is_none() {
            return;
        }
    }
    for _ in 0..count {
        peer.send(OK).await;
    }
}

/// Whether nothing comes for a while.
async fn is_quiet(peer: &mut Peer) -> bool {
    timeout(Duration::from_millis(50), peer.stream.peek(&mut [0])).await.is_err()
}

#[tokio::test]
async fn copies_that_wait_are_written_together_once_one_has_tried_it_out() {
    let server = Server::start(|mut peer| async move {
        for count in [1, 2, 8, 3] {
            answer_together(&mut peer, count).await;
        }
        peer.closed().await;
    })
    .await;
    let mut running = ordered(&server, |_| {}).await;
    running.push(requests(0..1));
    running.ended(ReplayOutcome::Answered, 1).await;
    running.push(requests(1..14));
    running.ended(ReplayOutcome::Answered, 14).await;
    assert_eq!(numbers(&server), (0..14).collect::<Vec<_>>());
    assert!(server.connections().iter().all(|connection| *connection == 0));
    assert_eq!(running.stop().await.0, 14);
}

#[tokio::test]
async fn where_no_order_is_kept_copies_go_together_if_more_wait_than_there_are_places_left() {
    let server = Server::start(|mut peer| async move {
        for count in [1, 2, 8] {
            answer_together(&mut peer, count).await;
        }
        peer.closed().await;
    })
    .await;
    let mut running =
        Running::start(server.addr, |config| (config.in_flight, config.pipeline) = (1, 8)).await;
    running.push(requests(0..1));
    running.ended(ReplayOutcome::Answered, 1).await;
    running.push((1..11).map(|number| get_of(u16::try_from(number).unwrap(), 1, &number.to_string())));
    running.ended(ReplayOutcome::Answered, 11).await;
    assert_eq!(numbers(&server), (0..11).collect::<Vec<_>>());
    assert_eq!(running.stop().await.0, 11);
}

#[tokio::test]
async fn where_no_order_is_kept_copies_take_the_places_that_are_left() {
    let server = Server::start(|mut peer| async move {
        while peer.request().await.is_some() {
            assert!(is_quiet(&mut peer).await);
            peer.send(OK).await;
        }
    })
    .await;
    let mut running =
        Running::start(server.addr, |config| (config.in_flight, config.pipeline) = (4, 8)).await;
    for number in 0..5 {
        running.push((0..3).map(|client| get_of(client, 1, &number.to_string())));
        running.ended(ReplayOutcome::Answered, 3 * (number + 1)).await;
    }
    assert_eq!(running.stop().await.0, 15);
}

#[tokio::test]
async fn what_was_written_behind_an_answer_that_closes_is_sent_again() {
    let server = Server::start(|mut peer| async move {
        for _ in 0..4 {
            if peer.request().await.is_none() {
                return;
            }
            peer.send(OK).await;
        }
        if peer.request().await.is_none() {
            return;
        }
        peer.send(b"HTTP/1.1 204 N\r\nConnection: close\r\n\r\n").await;
        // As servers do that do not want the answer to be lost to a reset.
        drop(peer.stream.shutdown().await);
        peer.closed().await;
    })
    .await;
    let mut running = ordered(&server, |_| {}).await;
    running.push(requests(0..203));
    running.ended(ReplayOutcome::Answered, 203).await;
    assert_eq!(numbers(&server), (0..203).collect::<Vec<_>>());
    let connections = server.connections();
    assert!(connections.iter().enumerate().all(|(at, connection)| *connection == at / 5), "{connections:?}");
    assert_eq!(running.stop().await.0, 203);
}

#[tokio::test]
async fn shadow_that_forgets_what_it_has_read_loses_one_copy() {
    let server = Server::start(|mut peer| async move {
        let mut buffer = [0; 4096];
        loop {
            match peer.stream.read(&mut buffer).await {
                Ok(1..) => peer.send(OK).await,
                _ => return,
            }
        }
    })
    .await;
    let mut running = ordered(&server, |config| config.response_timeout = Duration::from_millis(300)).await;
    running.push(requests(0..1));
    running.ended(ReplayOutcome::Answered, 1).await;
    running.push(requests(1..50));
    running.ended(ReplayOutcome::Timeout, 1).await;
    running.ended(ReplayOutcome::Answered, 49).await;
    assert_eq!(running.stop().await.0, 50);
}

#[tokio::test]
async fn copies_behind_one_that_is_cut_off_are_not_sent_again() {
    let turns = Arc::new(Mutex::new([1, 2, 8].into_iter()));
    let server = Server::start(move |mut peer| {
        let turns = Arc::clone(&turns);
        async move {
            loop {
                let count = turns.lock().unwrap().next();
                match count {
                    Some(8) => {
                        for _ in 0..8 {
                            peer.request().await;
                        }
                        return peer.send(OK).await;
                    }
                    Some(count) => answer_together(&mut peer, count).await,
                    None if peer.request().await.is_none() => return,
                    None => peer.send(OK).await,
                }
            }
        }
    })
    .await;
    let mut running = ordered(&server, |_| {}).await;
    running.push(requests(0..1));
    running.ended(ReplayOutcome::Answered, 1).await;
    running.push(requests(1..20));
    running.ended(ReplayOutcome::Answered, 13).await;
    assert_eq!(running.books.copies.replays(ReplayOutcome::Closed), 7);
    assert_eq!(numbers(&server), (0..20).collect::<Vec<_>>());
    assert_eq!(running.stop().await.0, 20);
}

#[tokio::test]
async fn what_may_change_something_waits_and_is_waited_for() {
    let server = Server::start(|mut peer| async move {
        while peer.request().await.is_some() {
            assert!(is_quiet(&mut peer).await);
            peer.send(OK).await;
        }
    })
    .await;
    let mut running = ordered(&server, |_| {}).await;
    let write = || {
        let mut request = post(3);
        let of = get_of(1, 1, "");
        (request.flow, request.flow_id) = (of.flow, of.flow_id);
        request
    };
    running.push(requests(0..1));
    running.ended(ReplayOutcome::Answered, 1).await;
    running.push([write(), write()].into_iter().chain(requests(1..2)).chain([write()]));
    running.ended(ReplayOutcome::Answered, 5).await;
    assert_eq!(running.stop().await.0, 5);
}

#[tokio::test]
async fn depth_of_one_which_is_the_default_sends_one_after_the_other() {
    let server = Server::start(|mut peer| async move {
        while peer.request().await.is_some() {
            assert!(is_quiet(&mut peer).await);
            peer.send(OK).await;
        }
    })
    .await;
    let queue = Queue::default().with_order(CopyOrder::Connection);
    let mut running = Running::with_queue(server.addr, queue, |_| {}).await;
    running.push(requests(0..10));
    running.ended(ReplayOutcome::Answered, 10).await;
    assert_eq!(running.stop().await.0, 10);
}
