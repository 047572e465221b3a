//! Enters: well-behaved shadows. Leaves: copies that arrive whole, over few connections.

use std::time::Duration;

use tokio::io::AsyncReadExt;

use super::{
    harness::{Running, get, post, request},
    server::Server,
};
use crate::{
    io::ledger::ReplayOutcome,
    pipeline::{ExchangeId, ReplyTo},
};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[tokio::test]
async fn copies_arrive_byte_for_byte_with_markers_over_one_connection() {
    let server = Server::answering(OK).await;
    let mut running = Running::start(server.addr, |_| {}).await;
    let mut expected = Vec::new();
    for (number, (lines, body)) in [
        ("GET /a%20b?c HTTP/1.1\r\nhOST:a \r\nX: 1\r\nx: 2\r\n", ""),
        ("POST / HTTP/1.1\r\ncontent-length: 3\r\n", "abc"),
        ("OPTIONS * HTTP/1.1\r\nHost: a\r\n", ""),
    ]
    .into_iter()
    .enumerate()
    {
        let raw = format!("{lines}\r\n{body}");
        let mut request = request(raw.as_bytes(), lines.len() + 2);
        request.id = ExchangeId(number as u64 + 0x10);
        running.push([request]);
        running.ended(ReplayOutcome::Answered, number as u64 + 1).await;
        let markers = format!(
            "x-mirror-id: 0000000000000001-0000-000000000000001{number}\r\nx-shadow: true\r\n\
             x-mirror-experiment: default\r\nx-mirror-match: targeted\r\n"
        );
        expected.push(format!("{lines}{markers}\r\n{body}").escape_default().to_string());
    }
    assert_eq!(server.requests(), expected);
    assert_eq!(server.connections(), [0, 0, 0]);
    assert_eq!(running.gauges.idle(), 1);
    assert_eq!(running.stop().await.0, 3);
}

#[tokio::test]
async fn body_of_a_megabyte_arrives_at_a_slow_reader() {
    let server = Server::start(|mut peer| async move {
        tokio::time::sleep(Duration::from_millis(30)).await;
        peer.request().await;
        peer.send(OK).await;
        peer.closed().await;
    })
    .await;
    let mut running = Running::start(server.addr, |_| {}).await;
    // More than the socket buffers take at once.
    running.push([post(1 << 20), post(12 << 20)]);
    running.ended(ReplayOutcome::Answered, 2).await;
    let requests = server.requests();
    let bodies = requests.iter().map(|raw| raw.rsplit("\\r\\n").next().unwrap().len());
    assert_eq!(bodies.sum::<usize>(), 13 << 20);
    assert_eq!(running.stop().await.0, 2);
}

#[tokio::test]
async fn each_framing_of_an_answer_leaves_the_connection_as_it_should() {
    for (name, response, connections) in [
        ("length", &b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"[..], [0, 0]),
        (
            "chunked",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x\r\nok\r\n0\r\nT: 1\r\n\r\n",
            [0, 0],
        ),
        ("no content", b"HTTP/1.1 204 No Content\r\n\r\n", [0, 0]),
        ("interim", b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 E\r\n\r\nHTTP/1.1 204 N\r\n\r\n", [0, 0]),
        ("close", b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", [0, 1]),
        ("old version", b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", [0, 1]),
        ("more than was asked for", b"HTTP/1.1 204 N\r\n\r\nHTTP/1.1 204 N\r\n\r\n", [0, 1]),
    ] {
        let server = Server::answering(response).await;
        let mut running = Running::start(server.addr, |_| {}).await;
        for count in 1..=2 {
            running.push([get(name)]);
            running.ended(ReplayOutcome::Answered, count).await;
        }
        assert_eq!(server.connections(), connections, "{name}");
        assert_eq!(running.stop().await.0, 2, "{name}");
    }
}

#[tokio::test]
async fn answer_that_ends_with_the_connection_is_complete() {
    let server = Server::start(|mut peer| async move {
        peer.request().await;
        peer.send(b"HTTP/1.1 200 OK\r\n\r\nuntil the end").await;
    })
    .await;
    let mut running = Running::start(server.addr, |_| {}).await;
    running.push([get("")]);
    running.ended(ReplayOutcome::Answered, 1).await;
    running.stop().await;
}

#[tokio::test]
async fn answer_to_head_has_no_content() {
    let server = Server::answering(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n").await;
    let mut running = Running::start(server.addr, |_| {}).await;
    for count in 1..=2 {
        let mut request = get("");
        request.reply_to = ReplyTo::Head;
        running.push([request]);
        running.ended(ReplayOutcome::Answered, count).await;
    }
    assert_eq!(server.connections(), [0, 0]);
    running.stop().await;
}

#[tokio::test]
async fn request_that_closes_its_connection_is_the_last_on_it() {
    let server = Server::answering(OK).await;
    let mut running = Running::start(server.addr, |_| {}).await;
    for count in 1..=2 {
        let mut request = get("");
        request.keep_alive = false;
        running.push([request]);
        running.ended(ReplayOutcome::Answered, count).await;
    }
    assert_eq!(server.connections(), [0, 1]);
    running.stop().await;
}

#[tokio::test]
async fn local_end_is_registered_while_the_connection_is_open() {
    let (tx, mut rx) = tokio::sync::mpsc::unbounded_channel();
    let server = Server::start(move |mut peer| {
        let tx = tx.clone();
        async move {
            peer.stream.read_u8().await.unwrap();
            tx.send(peer.stream.peer_addr().unwrap()).unwrap();
            peer.closed().await;
        }
    })
    .await;
    let mut running = Running::start(server.addr, |config| config.drain_timeout = Duration::ZERO).await;
    running.push([get("")]);
    let local = rx.recv().await.unwrap();
    assert!(running.sockets.contains(local));
    running.stop().await;
}
