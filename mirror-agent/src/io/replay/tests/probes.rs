//! Enters: targets that lead back to the live service, or do not. Leaves: that no copy is sent before that is known.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use mirror_common::sample::{connection_draw, is_in_share};
use tokio::{net::TcpListener, time::Instant};

use super::{
    super::{Probes, Queue, Refusal, Replay, ReplayConfig},
    harness::{Books, Running, Sockets, get},
    server::Server,
};
use crate::{
    io::{
        capture::PortSample,
        ledger::{DropReason, ReplayOutcome},
    },
    pipeline::{Endpoint, Probe},
};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

/// Has the hook see a probe on its way to a live service.
fn see(probes: &Probes, request: Vec<u8>) {
    let text = String::from_utf8(request).unwrap();
    let (_, id) = text.split_once("x-mirror-id: ").unwrap();
    let id = id.split_once('\r').unwrap().0.as_bytes().to_vec();
    probes.saw(&Probe { id, server: SocketAddr::from(([10, 0, 0, 7], 8080)).into() });
}

/// A live service whose every request is seen by the hook.
async fn live(probes: &Arc<Probes>) -> Server {
    let probes = Arc::clone(probes);
    Server::start(move |mut peer| {
        let probes = Arc::clone(&probes);
        async move {
            while let Some(request) = peer.request().await {
                see(&probes, request);
                peer.send(OK).await;
            }
        }
    })
    .await
}

/// A way to a live service of which the hook takes the connections that are in a sample.
async fn sampled(probes: &Arc<Probes>, key: u64, millionths: u32) -> Server {
    let probes = Arc::clone(probes);
    Server::start(move |mut peer| {
        let probes = Arc::clone(&probes);
        async move {
            let client = Endpoint::from(peer.stream.peer_addr().unwrap());
            let draw = connection_draw(key, client.addr.octets(), client.port);
            while let Some(request) = peer.request().await {
                if is_in_share(draw, millionths) {
                    see(&probes, request);
                }
                peer.send(OK).await;
            }
        }
    })
    .await
}

#[tokio::test]
async fn probe_is_seen_where_a_connection_in_thousands_is() {
    let (key, millionths) = (0x0123_4567_89ab_cdef, 300);
    let probes = Arc::new(Probes::new(|| true));
    let server = sampled(&probes, key, millionths).await;
    probes.set_samples(vec![PortSample { port: 8080, lanes: vec![(key, millionths)] }]);
    let mut replay = prepare(server.addr, &probes).await;
    let mut refusal = None;
    // Somebody else may have the port that was tried.
    for _ in 0..20 {
        refusal = refusal.or(replay.review().await);
    }
    assert_eq!(refusal, Some(Refusal::LeadsBack { target: server.addr }));
}

async fn prepare(addr: SocketAddr, probes: &Arc<Probes>) -> Replay {
    let mut config = ReplayConfig::new(format!("http://{addr}").parse().unwrap(), 1);
    config.probes = Some(Arc::clone(probes));
    Replay::prepare(
        config,
        Arc::new(Queue::default()),
        Books::default().copies,
        Arc::<Sockets>::default(),
        Arc::new(|_| None),
    )
    .await
    .unwrap()
}

#[tokio::test]
async fn target_whose_probe_arrives_at_the_hook_is_refused() {
    let probes = Arc::new(Probes::new(|| true));
    let server = live(&probes).await;
    let refusal = prepare(server.addr, &probes).await.review().await.unwrap();
    assert_eq!(refusal, Refusal::LeadsBack { target: server.addr });
    assert!(refusal.to_string().contains("leads back to the live service"));
    let requests = server.requests();
    assert!(requests[0].starts_with("HEAD / HTTP/1.1"), "{requests:?}");
    assert!(
        requests[0].contains("x-mirror-id: probe-") && requests[0].contains("x-shadow: true"),
        "{requests:?}"
    );
}

#[tokio::test]
async fn target_that_leads_elsewhere_is_accepted_whatever_others_send() {
    let probes = Arc::new(Probes::new(|| true));
    let server = SocketAddr::from(([10, 0, 0, 7], 8080)).into();
    probes.saw(&Probe { id: b"probe-0123456789abcdef".to_vec(), server });
    let server = Server::answering(OK).await;
    let start = Instant::now();
    assert!(prepare(server.addr, &probes).await.review().await.is_none());
    assert!(start.elapsed() < Duration::from_secs(2), "an answer is not waited for longer than it takes");
    // One that takes the probe and never answers is no reason not to start.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    assert!(prepare(silent.local_addr().unwrap(), &probes).await.review().await.is_none());
}

#[tokio::test]
async fn target_is_not_accepted_while_probes_may_be_missed() {
    let probes = Arc::new(Probes::new(|| true));
    let is_flooded = Arc::new(AtomicBool::new(true));
    let (of_hook, flooded) = (Arc::clone(&probes), Arc::clone(&is_flooded));
    let server = Server::start(move |mut peer| {
        let (probes, is_flooded) = (Arc::clone(&of_hook), Arc::clone(&flooded));
        async move {
            while peer.request().await.is_some() {
                if is_flooded.load(Ordering::SeqCst) {
                    probes.missed();
                }
                peer.send(OK).await;
            }
        }
    })
    .await;
    let mut replay = Running::start(server.addr, |config| config.probes = Some(Arc::clone(&probes))).await;
    replay.until(|| server.requests().len() > 1).await;
    replay.push([get("early")]);
    replay.settled().await;
    assert_eq!((replay.books.dropped(DropReason::Connect), replay.gauges.addresses_refused()), (1, 0));
    is_flooded.store(false, Ordering::SeqCst);
    let probed = server.requests().len();
    replay.until(|| server.requests().len() > probed).await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    replay.push([get("late")]);
    replay.ended(ReplayOutcome::Answered, 1).await;
    assert_eq!(replay.stop().await.0, 1);
}

#[tokio::test]
async fn address_that_cannot_be_probed_has_no_copies_until_it_was() {
    let probes = Arc::new(Probes::new(|| true));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    drop(listener);
    let mut replay = Running::start(addr, |config| config.probes = Some(Arc::clone(&probes))).await;
    replay.push([get("early")]);
    replay.settled().await;
    assert_eq!(replay.books.dropped(DropReason::Connect), 1);
    let server = Server::at(addr, OK).await;
    replay.until(|| server.requests().len() == 1).await;
    // Nothing of the failures before holds it up once it is judged.
    tokio::time::sleep(Duration::from_millis(600)).await;
    replay.push([get("late")]);
    replay.ended(ReplayOutcome::Answered, 1).await;
    assert!(server.requests()[0].contains("probe-"), "the probe came first");
    assert_eq!(replay.stop().await.0, 1);
}

#[tokio::test]
async fn address_that_leads_back_is_told_once_and_never_used() {
    let probes = Arc::new(Probes::new(|| true));
    let server = live(&probes).await;
    let mut replay = Running::start(server.addr, |config| {
        config.probes = Some(Arc::clone(&probes));
        config.resolve_interval = Duration::from_millis(20);
    })
    .await;
    replay.until(|| replay.gauges.addresses_refused() == 1).await;
    replay.push([get("secret")]);
    replay.settled().await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(replay.gauges.addresses_refused(), 1);
    assert_eq!(server.requests().len(), 1, "one probe, no copy");
    let (mirrored, books) = replay.stop().await;
    assert_eq!((mirrored, books.dropped(DropReason::Connect)), (0, 1));
}

#[tokio::test]
async fn copies_wait_until_probes_can_be_seen() {
    let is_attached = Arc::new(AtomicBool::new(false));
    let watching = Arc::clone(&is_attached);
    let probes = Arc::new(Probes::new(move || watching.load(Ordering::SeqCst)));
    let server = Server::answering(OK).await;
    let mut replay = Running::start(server.addr, |config| config.probes = Some(Arc::clone(&probes))).await;
    replay.push([get("")]);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!((server.requests().len(), replay.queue.len()), (0, 1));
    assert_eq!(replay.gauges.verdict(), None);
    is_attached.store(true, Ordering::SeqCst);
    replay.ended(ReplayOutcome::Answered, 1).await;
    assert_eq!(replay.gauges.verdict(), Some(None));
    assert!(server.requests()[0].contains("probe-"), "the probe came first");
    assert_eq!(replay.stop().await.0, 1);
}

#[tokio::test]
async fn doubt_holds_copies_back_and_one_that_is_never_settled_ends_with_the_replay() {
    let is_seen = Arc::new(AtomicBool::new(true));
    let watching = Arc::clone(&is_seen);
    let probes = Arc::new(Probes::new(move || watching.load(Ordering::SeqCst)));
    let server = Server::answering(OK).await;
    let mut replay = Running::start(server.addr, |config| {
        config.probes = Some(Arc::clone(&probes));
        config.queue_age = Duration::from_secs(1);
    })
    .await;
    replay.push([get("a")]);
    replay.ended(ReplayOutcome::Answered, 1).await;
    is_seen.store(false, Ordering::SeqCst);
    replay.queue.doubt();
    replay.push([get("b")]);
    // It has not waited for the target for so long.
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert_eq!((server.requests().len(), replay.queue.len()), (2, 1), "a probe and a copy");
    is_seen.store(true, Ordering::SeqCst);
    replay.ended(ReplayOutcome::Answered, 2).await;
    assert!(server.requests()[2].contains("probe-"), "the probe came first");
    is_seen.store(false, Ordering::SeqCst);
    replay.queue.doubt();
    replay.push([get("c")]);
    let start = Instant::now();
    let (mirrored, books) = replay.stop().await;
    assert_eq!((mirrored, books.dropped(DropReason::Connect)), (2, 1));
    assert!(start.elapsed() < Duration::from_secs(4), "nobody waits for what does not come");
}
