//! Enters: shadows that prove to be one, or cease to. Leaves: copies that could write, only while they do.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::time::{Instant, sleep};

use super::{
    super::{Event, Observer, ReplayConfig},
    harness::{Running, get, post},
    server::Server,
    tls_server::{Authority, TlsServer},
};
use crate::{
    io::{
        config::{Interlock, ProbeConfig, TlsConfig},
        ledger::{CopyBooks, ReplayOutcome},
    },
    pipeline::reason::SkipReason,
};

const EVERY: Duration = Duration::from_millis(400);

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
const PROOF: &[u8] = b"HTTP/1.1 200 OK\r\nX-Shadow-Mode: on\r\ncontent-length: 0\r\n\r\n";

/// Answers to a probe that prove nothing; nothing at all for the empty one.
const LAPSES: [&[u8]; 5] = [
    b"HTTP/1.1 200 OK\r\nx-shadow-mode: off\r\ncontent-length: 0\r\n\r\n",
    OK,
    b"HTTP/1.1 503 U\r\nx-shadow-mode: on\r\ncontent-length: 0\r\n\r\n",
    b"garbage\r\n\r\n",
    b"",
];

/// A shadow that answers probes as the number says: 0 with the proof.
async fn shadow(mode: &Arc<AtomicUsize>) -> Server {
    let mode = Arc::clone(mode);
    Server::start(move |mut peer| {
        let mode = Arc::clone(&mode);
        async move {
            while let Some(request) = peer.request().await {
                if !request.starts_with(b"GET /mode ") {
                    peer.send(OK).await;
                    continue;
                }
                match mode.load(Ordering::SeqCst).checked_sub(1).map(|lapse| LAPSES[lapse]) {
                    None => peer.send(PROOF).await,
                    Some(b"") => sleep(Duration::from_secs(60)).await,
                    Some(answer) => peer.send(answer).await,
                }
            }
        }
    })
    .await
}

fn interlock(config: &mut ReplayConfig) {
    config.interlock = Interlock::Probe(ProbeConfig {
        header: "x-shadow-mode".to_owned(),
        value: "on".to_owned(),
        path: "/mode".to_owned(),
        every: EVERY,
    });
}

fn is_open(replay: &Running) -> bool {
    replay.gauges.interlock().unwrap().is_open
}

fn skipped(replay: &Running) -> u64 {
    replay.books.copies.snapshot().skipped[SkipReason::Interlock.index()]
}

/// All changes told, as text.
#[derive(Debug, Default)]
struct Told(Mutex<Vec<String>>);

impl Observer for Told {
    fn handle_event(&self, target: &CopyBooks, event: Event) {
        self.0.lock().unwrap().push(format!("{}/{} {event:?}", target.experiment(), target.target()));
    }
}

#[tokio::test]
async fn writes_flow_only_while_the_shadow_proves_to_be_one() {
    let mode = Arc::<AtomicUsize>::default();
    let server = shadow(&mode).await;
    let told = Arc::<Told>::default();
    let observer = Arc::<Told>::clone(&told);
    let mut replay = Running::start(server.addr, |config| {
        interlock(config);
        config.observer = Some(observer);
    })
    .await;
    let mut writes = 0;
    for lapse in 1..=LAPSES.len() {
        replay.until(|| is_open(&replay)).await;
        replay.push([post(3), get("")]);
        replay.settled().await;
        writes += 1;
        assert_eq!(skipped(&replay), lapse as u64 - 1);

        let lost = Instant::now();
        mode.store(lapse, Ordering::SeqCst);
        replay.until(|| !is_open(&replay)).await;
        // The probe that finds it out is sent within an interval, and waited for half of one at most.
        assert!(lost.elapsed() < EVERY * 2, "{lapse}: {:?}", lost.elapsed());
        replay.push([post(3), get("")]);
        replay.settled().await;
        assert_eq!(skipped(&replay), lapse as u64);
        mode.store(0, Ordering::SeqCst);
    }
    let count = |prefix: &str| server.requests().iter().filter(|request| request.starts_with(prefix)).count();
    // What is written has yet to be read.
    replay.until(|| count("GET / ") == 2 * LAPSES.len()).await;
    assert_eq!(count("POST / "), writes);
    assert_eq!(
        told.0.lock().unwrap()[..2],
        [true, false].map(|is_open| format!("default/shadow Interlock {{ is_open: {is_open} }}"))
    );
    let changes = replay.gauges.interlock().unwrap().changes;
    assert_eq!(changes, told.0.lock().unwrap().len() as u64);
    replay.stop().await;
}

#[tokio::test]
async fn a_shadow_that_is_down_is_closed_and_the_probes_own_socket_is_known() {
    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut replay = Running::start(unused, interlock).await;
    replay.push([post(3)]);
    replay.settled().await;
    assert_eq!(skipped(&replay), 1);
    assert!(!is_open(&replay));
    replay.stop().await;
}

#[tokio::test]
async fn write_that_waits_for_room_is_not_written_once_the_gate_is_closed() {
    let mode = Arc::<AtomicUsize>::default();
    let server = shadow(&mode).await;
    // No connection can be had while the only one is busy: the write waits in the queue.
    let mut replay = Running::start(server.addr, |config| {
        interlock(config);
        config.in_flight = 1;
        config.response_timeout = Duration::from_secs(1);
    })
    .await;
    replay.until(|| is_open(&replay)).await;
    mode.store(LAPSES.len(), Ordering::SeqCst);
    // This one is not answered, and holds the connection.
    replay.push([get("mode"), post(3)]);
    replay.ended(ReplayOutcome::Timeout, 1).await;
    replay.settled().await;
    assert_eq!(skipped(&replay), 1);
    replay.stop().await;
}

#[tokio::test]
async fn proof_comes_over_tls_as_copies_do() {
    let authority = Authority::new();
    let server = TlsServer::answering("127.0.0.1", authority.server(&["127.0.0.1"]), PROOF);
    let ca_file = Some(authority.ca_file());
    let unused = SocketAddr::from(([127, 0, 0, 1], 1));
    let mut replay = Running::start(unused, |config| {
        interlock(config);
        config.target = format!("https://{}", server.addr).parse().unwrap();
        config.tls = TlsConfig { ca_file, ..TlsConfig::default() };
    })
    .await;
    replay.until(|| is_open(&replay)).await;
    replay.push([post(3)]);
    replay.ended(ReplayOutcome::Answered, 1).await;
    assert_eq!(replay.stop().await.0, 1);
}
