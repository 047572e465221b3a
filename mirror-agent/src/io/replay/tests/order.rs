//! Enters: requests of several live connections. Leaves: those of each in order, on connections of their own.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use proptest::prelude::*;
use tokio::{sync::Notify, time::sleep};

use super::super::{Queue, ReplayConfig};
use super::{
    harness::{Running, get_of},
    server::Server,
};
use crate::{
    io::{
        config::{CopyOrder, DropPolicy},
        ledger::{DropReason, ReplayOutcome},
    },
    pipeline::Request,
};

const OK: &[u8] = b"HTTP/1.1 204 N\r\n\r\n";

async fn ordered(server: &Server, adjust: impl FnOnce(&mut ReplayConfig)) -> Running {
    Running::with_queue(server.addr, Queue::default().with_order(CopyOrder::Connection), adjust).await
}

/// Requests `from` to `to` of a client.
fn of(client: u16, numbers: std::ops::Range<usize>) -> impl Iterator<Item = Request> {
    numbers.map(move |number| get_of(client, 1, &format!("{client}/{number}")))
}

/// The clients of the requests received, in order, and the numbers of each client's requests.
fn paths(requests: &[String]) -> BTreeMap<u16, Vec<usize>> {
    let mut paths = BTreeMap::<u16, Vec<usize>>::new();
    for request in requests {
        let path = request.split(' ').nth(1).unwrap();
        let (client, number) = path[1..].split_once('/').unwrap();
        paths.entry(client.parse().unwrap()).or_default().push(number.parse().unwrap());
    }
    paths
}

#[tokio::test]
async fn copies_of_a_live_connection_go_one_after_the_other_on_one_connection() {
    let server = Server::answering(OK).await;
    let mut running = ordered(&server, |_| {}).await;
    running.push((0..200).flat_map(|number| (1..6).flat_map(move |client| of(client, number..number + 1))));
    running.ended(ReplayOutcome::Answered, 1000).await;
    let requests = server.requests();
    assert!(paths(&requests).values().all(|numbers| *numbers == (0..200).collect::<Vec<_>>()));
    let mut of_connection = BTreeMap::<usize, Vec<String>>::new();
    for (connection, request) in server.connections().into_iter().zip(requests) {
        of_connection.entry(connection).or_default().push(request);
    }
    assert_eq!(of_connection.len(), 5);
    assert!(of_connection.values().all(|requests| paths(requests).len() == 1));
    assert_eq!(running.stop().await.0, 1000);
}

#[tokio::test]
async fn stalled_lane_does_not_stall_others_and_its_copies_grow_old() {
    let server = Server::start(|mut peer| async move {
        while let Some(request) = peer.request().await {
            if request.starts_with(b"GET /1/") {
                sleep(Duration::from_secs(60)).await;
            }
            peer.send(OK).await;
        }
    })
    .await;
    let mut running = ordered(&server, |config| {
        config.queue_age = Duration::from_secs(1);
        config.drain_timeout = Duration::ZERO;
    })
    .await;
    running.push(of(1, 0..10));
    running.push((0..20).flat_map(|number| (2..5).flat_map(move |client| of(client, number..number + 1))));
    running.ended(ReplayOutcome::Answered, 60).await;
    assert_eq!((running.queue.len(), running.books.dropped(DropReason::InFlight)), (9, 0));
    running.until(|| running.books.dropped(DropReason::InFlight) == 9).await;
    assert_eq!(running.queue.len(), 0);
    assert_eq!(running.stop().await.0, 61);
}

#[tokio::test]
async fn what_a_stalled_lane_holds_counts_against_the_queue() {
    let server = Server::start(|mut peer| async move { peer.closed().await }).await;
    let queue =
        Queue::new(20, 1 << 20).with_order(CopyOrder::Connection).with_drop_policy(DropPolicy::Oldest);
    let mut running =
        Running::with_queue(server.addr, queue, |config| config.drain_timeout = Duration::ZERO).await;
    running.push(of(1, 0..1));
    running.until(|| running.books.ledger.mirrored() == 1).await;
    running.push(of(1, 1..30));
    assert_eq!((running.queue.len(), running.books.dropped(DropReason::QueueFull)), (20, 9));
    running.push(of(2, 0..1));
    running.until(|| running.books.ledger.mirrored() == 2).await;
    assert_eq!((running.queue.len(), running.books.dropped(DropReason::QueueFull)), (19, 10));
    running.stop().await;
}

#[tokio::test]
async fn more_live_connections_than_places_take_turns() {
    let server = Server::answering(OK).await;
    let mut running = ordered(&server, |config| config.in_flight = 3).await;
    for number in 0..20 {
        running.push((1..30).flat_map(|client| of(client, number..number + 1)));
    }
    running.ended(ReplayOutcome::Answered, 580).await;
    let connections = server.connections();
    assert!(connections.iter().all(|connection| *connection < 3), "none is closed for another");
    let paths = paths(&server.requests());
    assert!(paths.len() == 29 && paths.values().all(|numbers| *numbers == (0..20).collect::<Vec<_>>()));
    assert_eq!(running.stop().await.0, 580);
}

#[tokio::test]
async fn where_there_are_no_more_places_the_connection_is_lent_that_has_rested_for_longest() {
    let server = Server::answering(OK).await;
    let mut running = ordered(&server, |config| config.in_flight = 2).await;
    for (count, client) in [1, 2, 2, 1, 3, 1, 3].into_iter().enumerate() {
        running.push(of(client, count..count + 1));
        running.ended(ReplayOutcome::Answered, count as u64 + 1).await;
        running.until(|| running.gauges.in_flight() == 0).await;
    }
    assert_eq!(server.connections(), [0, 1, 1, 0, 1, 0, 1]);
    running.stop().await;
}

#[tokio::test]
async fn where_the_shadow_refuses_further_connections_those_there_are_lent() {
    let server = Server::refusing_after(2, OK).await;
    let mut running = ordered(&server, |_| {}).await;
    for client in 1..3 {
        running.push(of(client, 0..1));
        running.ended(ReplayOutcome::Answered, u64::from(client)).await;
    }
    // The first finds out that there are no more, as does one after each back-off.
    let mut numbers = 0..100;
    while running.books.copies.replays(ReplayOutcome::Answered) < 3 {
        let number = numbers.next().unwrap();
        running.push(of(3, number..number + 1));
        running.settled().await;
        running.until(|| running.gauges.in_flight() == 0).await;
    }
    assert!(running.books.dropped(DropReason::Connect) >= 1);
    assert_eq!(server.connections(), [0, 1, 0], "the one that has rested for longest");
    running.stop().await;
}

#[tokio::test]
async fn later_connection_between_the_same_ends_gets_a_connection_of_its_own() {
    let server = Server::answering(OK).await;
    let mut running = ordered(&server, |_| {}).await;
    for id in 0..3 {
        running.push((0..2).map(|number| get_of(7, id, &format!("7/{number}"))));
    }
    running.ended(ReplayOutcome::Answered, 6).await;
    assert_eq!(server.connections(), [0, 0, 1, 1, 2, 2]);
    assert_eq!(paths(&server.requests())[&7], [0, 1, 0, 1, 0, 1]);
    running.stop().await;
}

#[tokio::test]
async fn shutdown_settles_what_waits_in_lanes() {
    let told = Arc::new(Notify::new());
    let go = Arc::clone(&told);
    let server = Server::start(move |mut peer| {
        let told = Arc::clone(&told);
        async move {
            peer.request().await;
            told.notify_one();
            peer.closed().await;
        }
    })
    .await;
    let mut running = ordered(&server, |config| config.drain_timeout = Duration::from_millis(10)).await;
    running.push(of(1, 0..5));
    go.notified().await;
    let (mirrored, books) = running.stop().await;
    assert_eq!((mirrored, books.dropped(DropReason::Shutdown)), (1, 4));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn order_is_kept_and_nothing_sent_twice_whatever_the_shadow_does(
        // What the shadow does to each request in turn: answers, late, and closes before, after or without.
        acts in prop::collection::vec(0..6_u8, 1..64),
        clients in 1..12_u16,
        in_flight in 1..8_usize,
        pipeline in prop::sample::select(vec![1, 2, 8]),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let acts = Arc::new(Mutex::new(acts.into_iter().cycle()));
            let server = Server::start(move |mut peer| {
                let acts = Arc::clone(&acts);
                async move {
                    loop {
                        let act = acts.lock().unwrap().next().unwrap();
                        if act == 0 || peer.request().await.is_none() {
                            return;
                        }
                        match act {
                            1 => return,
                            2 => return peer.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nx").await,
                            3 => sleep(Duration::from_millis(1)).await,
                            4 => return peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx").await,
                            _ => {}
                        }
                        peer.send(OK).await;
                    }
                }
            })
            .await;
            let mut running = ordered(&server, |config| {
                (config.in_flight, config.pipeline) = (in_flight, pipeline);
            })
            .await;
            for number in 0..12 {
                running.push((1..=clients).flat_map(|client| of(client, number..number + 1)));
                tokio::task::yield_now().await;
            }
            running.settled().await;
            running.until(|| running.gauges.in_flight() == 0).await;
            for (client, numbers) in paths(&server.requests()) {
                assert!(numbers.is_sorted_by(|one, next| one < next), "{client}: {numbers:?}");
            }
            running.stop().await;
        });
    }
}
