//! Enters: shadows that answer in every way there is, to copies whose answers are awaited. Leaves: the answers, as far as
//! they can be compared.

use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use tokio::time::sleep;

use super::{
    super::{ReplayConfig, clock, kept::Keeping},
    harness::{Running, get, post},
    server::Server,
    tls_server::{Authority, TlsServer},
};
use crate::{
    io::{
        compare::{Budget, Comparing, Exchange, OpenExchange, Shared, tests::comparing},
        config::{ComparisonConfig, TlsConfig},
        ledger::ReplayOutcome,
    },
    pipeline::{
        Answer, Answered, ReplyTo, Request, Timestamp,
        http::ResponseHead,
        reason::{IncomparableReason, UntimedReason},
    },
};

/// A replay of which the answers are awaited.
struct Bench {
    shared: Shared,
    comparing: Arc<Comparing>,
    running: Running,
}

impl Bench {
    async fn start(addr: std::net::SocketAddr, adjust: impl FnOnce(&mut ReplayConfig)) -> Self {
        Self::with(addr, 1000, Shared::default(), adjust).await
    }

    async fn with(
        addr: std::net::SocketAddr,
        content_bytes: usize,
        shared: Shared,
        adjust: impl FnOnce(&mut ReplayConfig),
    ) -> Self {
        let mut config = ComparisonConfig::default();
        config.rules.content_bytes = content_bytes;
        let comparing = comparing(Some(config), &[&[]], &shared);
        Self { shared, comparing, running: Running::start(addr, adjust).await }
    }

    fn push(&mut self, request: Request) {
        let open = OpenExchange::open(&self.comparing, 0, &request).unwrap();
        self.running.push_for(&open, request);
    }

    async fn exchange(&self) -> Exchange {
        for _ in 0..10_000 {
            if let Some(exchange) = self.shared.queue.pop(Duration::ZERO) {
                return exchange;
            }
            sleep(Duration::from_millis(1)).await;
        }
        panic!("no exchange in time: {:?}", self.running.books.ledger);
    }

    async fn ask(&mut self, request: Request) -> Answered {
        self.push(request);
        let Exchange { mut answers, .. } = self.exchange().await;
        answers.remove(0).1
    }

    async fn whole(&mut self, request: Request) -> Answer {
        match self.ask(request).await {
            Answered::Whole(answer) => answer,
            other @ (Answered::Partly { .. } | Answered::Not(_)) => panic!("{other:?}"),
        }
    }

    /// Stops, and checks that nothing is held any more.
    async fn stop(self) -> u64 {
        let (mirrored, _) = self.running.stop().await;
        assert!(self.shared.queue.is_empty());
        assert_eq!(self.shared.budget.used(), 0);
        mirrored
    }
}

fn head() -> Request {
    Request { reply_to: ReplyTo::Head, ..get("head") }
}

/// The status and the reason of an answer that cannot be compared.
fn reason(answered: &Answered) -> (Option<u16>, &'static str) {
    match answered {
        Answered::Whole(answer) => (Some(answer.status), "whole"),
        Answered::Partly { reason, .. } | Answered::Not(reason) => (answered.status(), reason.as_str()),
    }
}

#[tokio::test]
async fn content_is_what_was_meant_however_it_was_framed() {
    for (request, response, content) in [
        (get("a"), "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "hello"),
        (get("a"), "HTTP/1.1 404 N\r\ncontent-length: 0\r\n\r\n", ""),
        (
            get("a"),
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3;x\r\nhel\r\n2\r\nlo\r\n0\r\nT: 1\r\n\r\n",
            "hello",
        ),
        (get("a"), "HTTP/1.1 200 OK\r\n\r\nuntil the end", "until the end"),
        (head(), "HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n", ""),
        (
            get("a"),
            "HTTP/1.1 103 E\r\nlink: x\r\n\r\nHTTP/1.1 100 C\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
            "ok",
        ),
        (get("a"), "HTTP/1.1 204 N\r\n\r\n", ""),
        (get("a"), "HTTP/1.1 304 N\r\ncontent-length: 9\r\n\r\n", ""),
        (
            get("a"),
            "HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 4\r\n\r\n\x1f\x0b\x08\x00",
            "\x1f\x0b\x08\x00",
        ),
    ] {
        let server = Server::start(move |mut peer| async move {
            drop(peer.request().await);
            // In two writes, so that the answer comes in pieces.
            let (first, rest) = response.as_bytes().split_at(response.len() / 2);
            peer.send(first).await;
            sleep(Duration::from_millis(5)).await;
            peer.send(rest).await;
        })
        .await;
        let mut bench = Bench::start(server.addr, |_| {}).await;
        let answer = bench.whole(request).await;
        let status: u16 = response.rsplit("HTTP/1.1 ").next().unwrap()[..3].parse().unwrap();
        let start = response.rfind("HTTP/1.1 ").unwrap();
        let head_len = response[start..].find("\r\n\r\n").unwrap() + 4;
        assert_eq!(answer.status, status);
        assert_eq!(answer.head, response.as_bytes()[start..start + head_len]);
        assert_eq!(answer.content, content.as_bytes(), "{response}");
        let timing = answer.timing.unwrap();
        assert!(timing.asked_at <= timing.first_byte_at && timing.first_byte_at <= timing.last_byte_at);
        assert!(timing.last_byte_at <= clock::now() && timing.round_trip < Duration::from_secs(1));
        drop(answer);
        bench.running.ended(ReplayOutcome::Answered, 1).await;
        assert_eq!(bench.stop().await, 1);
    }
}

#[tokio::test]
async fn answer_that_is_too_long_is_read_to_its_end_and_the_connection_goes_on() {
    let long = "x".repeat(40_000);
    let by_length = format!("HTTP/1.1 201 OK\r\ncontent-length: 40000\r\n\r\n{long}");
    let by_chunks =
        format!("HTTP/1.1 201 OK\r\ntransfer-encoding: chunked\r\n\r\n9c40\r\n{long}\r\n0\r\n\r\n");
    for response in [by_length, by_chunks] {
        let response: &'static [u8] = response.leak().as_bytes();
        let server = Server::answering(response).await;
        for (limit, memory, expected) in
            [(40_000, usize::MAX, "whole"), (20_000, usize::MAX, "too_large"), (40_000, 30_000, "memory")]
        {
            let shared = Shared { queue: Arc::default(), budget: Arc::new(Budget::new(memory)) };
            let mut bench = Bench::with(server.addr, limit, shared, |_| {}).await;
            for _ in 0..2 {
                let answered = bench.ask(get("a")).await;
                assert_eq!(reason(&answered), (Some(201), expected));
                assert!(answered.timing().unwrap().is_ok());
            }
            bench.running.ended(ReplayOutcome::Answered, 2).await;
            assert_eq!(bench.stop().await, 2);
        }
        let connections = server.connections();
        assert_eq!(connections, [0, 0, 1, 1, 2, 2], "each is used again");
    }
}

#[tokio::test]
async fn answer_that_does_not_come_says_how_far_it_came() {
    for (response, expected) in [
        ("", (None, "no_answer")),
        ("HTTP/1.1 200 OK\r\nconte", (None, "no_answer")),
        ("SSH-2.0-x\r\n", (None, "no_answer")),
        ("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc", (Some(200), "aborted")),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc", (Some(200), "aborted")),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", (None, "no_answer")),
        ("HTTP/1.1 101 S\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n", (Some(101), "upgraded")),
    ] {
        let server = Server::start(move |mut peer| async move {
            drop(peer.request().await);
            peer.send(response.as_bytes()).await;
        })
        .await;
        let mut bench = Bench::start(server.addr, |_| {}).await;
        assert_eq!(reason(&bench.ask(get("a")).await), expected, "{response}");
        assert_eq!(bench.stop().await, 1);
    }
}

#[tokio::test]
async fn answer_that_goes_on_for_longer_than_is_waited_for_is_too_large_and_not_missing() {
    for (response, expected) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 9999999\r\n\r\n", (Some(200), "too_large")),
        ("HTTP/1.1 206 P\r\ntransfer-encoding: chunked\r\n\r\nffffff\r\n", (Some(206), "too_large")),
        ("HTTP/1.1 200 OK\r\n\r\n", (Some(200), "too_large")),
        // What comes behind the first chunk is none.
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1000\r\n", (None, "no_answer")),
        ("", (None, "no_answer")),
    ] {
        let server = Server::start(move |mut peer| async move {
            drop(peer.request().await);
            peer.send(b"HTTP/1.1 103 E\r\n\r\n").await;
            peer.send(response.as_bytes()).await;
            peer.send(&b"HTTP/1.1 103 E\r\n\r\n".repeat(50_000)).await;
        })
        .await;
        let mut bench = Bench::start(server.addr, |config| config.response_bytes = 500_000).await;
        let answered = bench.ask(get("a")).await;
        assert_eq!(reason(&answered), expected, "{response}");
        assert!(answered.timing().is_none_or(|timing| timing == Err(UntimedReason::Unknown)));
        bench.running.ended(ReplayOutcome::Protocol, 1).await;
        assert_eq!(bench.stop().await, 1);
    }
}

#[tokio::test]
async fn silent_shadow_gives_no_answer_and_an_absent_one_no_copy() {
    let server = Server::start(|mut peer| async move {
        drop(peer.request().await);
        peer.closed().await;
    })
    .await;
    let mut bench =
        Bench::start(server.addr, |config| config.response_timeout = Duration::from_millis(30)).await;
    assert_eq!(reason(&bench.ask(get("a")).await), (None, "no_answer"));
    bench.stop().await;
    let addr = server.addr;
    drop(server);
    sleep(Duration::from_millis(10)).await;
    let mut bench = Bench::start(addr, |_| {}).await;
    assert_eq!(reason(&bench.ask(get("a")).await), (None, "no_copy"));
    bench.running.queue.pause();
    assert_eq!(reason(&bench.ask(get("a")).await), (None, "no_copy"));
    bench.stop().await;
}

#[tokio::test]
async fn what_is_under_way_when_the_replay_stops_has_no_answer() {
    let server = Server::start(|mut peer| async move {
        drop(peer.request().await);
        peer.closed().await;
    })
    .await;
    let mut bench =
        Bench::start(server.addr, |config| config.drain_timeout = Duration::from_millis(20)).await;
    bench.push(get("a"));
    bench.running.settled().await;
    let Bench { shared, running, .. } = bench;
    assert_eq!(running.stop().await.0, 1);
    let exchange = shared.queue.pop(Duration::ZERO).unwrap();
    assert_eq!(reason(&exchange.answers[0].1), (None, "no_answer"));
    assert!(shared.queue.is_empty());
}

#[tokio::test]
async fn answer_that_comes_before_the_request_has_ended_is_early() {
    let server = Server::start(|mut peer| async move {
        let mut some = [0; 100];
        tokio::io::AsyncReadExt::read_exact(&mut peer.stream, &mut some).await.unwrap();
        peer.send(b"HTTP/1.1 413 T\r\ncontent-length: 3\r\n\r\nbig").await;
        sleep(Duration::from_millis(50)).await;
        peer.closed().await;
    })
    .await;
    let mut bench = Bench::start(server.addr, |_| {}).await;
    let answer = bench.whole(post(16 * 1024 * 1024)).await;
    assert_eq!((answer.status, &answer.content[..]), (413, &b"big"[..]));
    assert_eq!(answer.timing, Err(UntimedReason::Early));
    bench.running.settled().await;
    drop(answer);
    bench.stop().await;
}

#[tokio::test]
async fn answer_that_came_before_its_connection_broke_is_read() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let (go, told) = mpsc::channel();
    let (closed, is_closed) = mpsc::channel();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.read_exact(&mut [0; 100]).unwrap();
        told.recv().unwrap();
        stream.write_all(b"HTTP/1.1 413 T\r\nconnection: close\r\ncontent-length: 3\r\n\r\nbig").unwrap();
        // With bytes unread, which is a reset.
        drop(stream);
        closed.send(()).unwrap();
    });
    let mut bench = Bench::start(addr, |_| {}).await;
    bench.push(post(16 * 1024 * 1024));
    bench.running.until(|| bench.running.gauges.in_flight() == 1).await;
    sleep(Duration::from_millis(50)).await;
    // The replay runs on this thread, too: it finds the answer and the reset at once.
    go.send(()).unwrap();
    is_closed.recv().unwrap();
    let exchange = bench.exchange().await;
    assert_eq!(reason(&exchange.answers[0].1), (Some(413), "whole"));
    drop(exchange);
    bench.running.ended(ReplayOutcome::Write, 1).await;
    assert_eq!(bench.stop().await, 0);
    server.join().unwrap();
}

#[test]
fn answer_that_came_before_the_last_byte_was_handed_over_is_early_though_it_was_read_after() {
    for (came, expected) in [(99, true), (100, false)] {
        let shared = Shared::default();
        let experiment = comparing(Some(ComparisonConfig::default()), &[&[]], &shared);
        let open = OpenExchange::open(&experiment, 0, &post(1)).unwrap();
        let mut keeping = Keeping::new(open.part(0));
        keeping.asked(Timestamp::from_nanos(100));
        keeping.came(Some(Timestamp::from_nanos(came)));
        keeping.begun();
        let head = b"HTTP/1.1 413 T\r\ncontent-length: 0\r\n\r\n";
        keeping.head(&ResponseHead::parse(head, ReplyTo::Other).unwrap());
        keeping.complete();
        keeping.finish(ReplayOutcome::Answered, None);
        drop(open);
        let exchange = shared.queue.pop(Duration::ZERO).unwrap();
        let timing = exchange.answers[0].1.timing().unwrap();
        assert_eq!(timing == Err(UntimedReason::Early), expected, "{came}");
    }
}

#[tokio::test]
async fn time_is_the_kernels_where_the_agent_is_late_to_read() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        for _ in 0..2 {
            let mut request = [0; 2048];
            assert!(stream.read(&mut request).unwrap() > 0);
            thread::sleep(Duration::from_millis(30));
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").unwrap();
        }
    });
    let mut bench = Bench::start(addr, |_| {}).await;
    // The kernel begins to note arrivals in the background.
    bench.whole(get("first")).await;
    bench.push(get("second"));
    bench.running.until(|| bench.running.books.ledger.mirrored() == 2).await;
    thread::sleep(Duration::from_millis(300));
    let exchange = bench.exchange().await;
    let timing = exchange.answers[0].1.timing().unwrap().unwrap();
    let took = timing.to_first_byte();
    assert!(took >= Duration::from_millis(25) && took < Duration::from_millis(250), "{timing:?}");
    drop(exchange);
    bench.stop().await;
    server.join().unwrap();
}

#[tokio::test]
async fn answers_through_tls_are_kept_too() {
    let authority = Authority::new();
    let response = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
    let server = TlsServer::answering("127.0.0.1", authority.server(&["127.0.0.1"]), response);
    let mut bench = Bench::start(server.addr, |config| {
        config.target = format!("https://{}", server.addr).parse().unwrap();
        config.tls = TlsConfig { ca_file: Some(authority.ca_file()), ..TlsConfig::default() };
        config.connect_timeout = Duration::from_secs(10);
    })
    .await;
    for _ in 0..2 {
        let answer = bench.whole(get("a")).await;
        assert_eq!((answer.status, &answer.content[..]), (200, &b"ok"[..]));
        assert!(answer.timing.unwrap().to_last_byte() < Duration::from_secs(10));
    }
    assert_eq!(bench.stop().await, 2);
}

#[tokio::test]
async fn answers_that_nobody_waits_for_pass_between_those_that_are() {
    let server = Server::answering(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    let mut bench = Bench::start(server.addr, |config| config.in_flight = 1).await;
    for number in 1..=20 {
        bench.running.push([get("plain")]);
        let answered = bench.ask(get("kept")).await;
        assert_eq!(reason(&answered), (Some(200), "whole"), "{number}");
        assert!(!matches!(answered, Answered::Not(IncomparableReason::NoAnswer)));
    }
    assert_eq!(server.connections(), vec![0; 40]);
    assert_eq!(bench.stop().await, 40);
}
