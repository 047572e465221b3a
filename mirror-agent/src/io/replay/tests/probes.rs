//! Enters: targets that lead back to the live service, or do not. Leaves: that no copy is sent before that is known.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use mirror_common::{
    maps::SHED_KEY,
    sample::{connection_draw, is_in_share},
};
use tokio::{net::TcpListener, time::Instant};

use super::{
    super::{Arrived, Hook, Probes, Queue, Refusal, Replay, ReplayConfig, probe::Ask},
    harness::{Books, Running, Sockets, get},
    server::Server,
};
use crate::{
    io::{
        capture::PortSample,
        ledger::{DropReason, ReplayOutcome},
    },
    pipeline::{Endpoint, Probe, Timestamp},
};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

/// A hook, and what is wrong with it.
#[derive(Default)]
struct Sight {
    is_blind: AtomicBool,
    /// Segments that were overlooked; as many were taken.
    overlooked: AtomicU64,
    shed_millionths: AtomicU32,
    is_behind: AtomicBool,
    pauses: AtomicU64,
}

impl Hook for Arc<Sight> {
    fn is_watching(&self) -> bool {
        !self.is_blind.load(Ordering::SeqCst)
    }

    fn pauses(&self) -> u64 {
        self.pauses.load(Ordering::SeqCst)
    }

    fn arrived(&self) -> Arrived {
        let overlooked = self.overlooked.load(Ordering::SeqCst);
        Arrived { taken: overlooked, overlooked }
    }

    fn shed_millionths(&self) -> u32 {
        self.shed_millionths.load(Ordering::SeqCst)
    }

    fn has_read_until(&self, _at: Timestamp) -> bool {
        !self.is_behind.load(Ordering::SeqCst)
    }
}

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

/// A way to a live service of which the hook takes the connections that `is_taken` picks by their client.
async fn taking(
    probes: &Arc<Probes>,
    is_taken: impl Fn(Endpoint) -> bool + Clone + Send + Sync + 'static,
) -> Server {
    let probes = Arc::clone(probes);
    Server::start(move |mut peer| {
        let (probes, is_taken) = (Arc::clone(&probes), is_taken.clone());
        async move {
            let client = Endpoint::from(peer.stream.peer_addr().unwrap());
            while let Some(request) = peer.request().await {
                if is_taken(client) {
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
    let probes = Arc::new(Probes::new(()));
    let server = taking(&probes, move |client| {
        is_in_share(connection_draw(key, client.addr.octets(), client.port), millionths)
    })
    .await;
    probes.set_samples(vec![PortSample { port: 8080, lanes: vec![(key, millionths)] }]);
    let mut replay = prepare(server.addr, &probes).await;
    let mut refusal = None;
    // Somebody else may have the port that was tried.
    for _ in 0..20 {
        refusal = refusal.or(replay.review(Ask::Open).await);
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
    let probes = Arc::new(Probes::new(()));
    let server = live(&probes).await;
    let refusal = prepare(server.addr, &probes).await.review(Ask::Open).await.unwrap();
    assert_eq!(refusal, Refusal::LeadsBack { target: server.addr });
    assert!(refusal.to_string().contains("leads back to the live service"));
    let requests = server.requests();
    assert!(requests[0].starts_with("HEAD /?probe-"), "{requests:?}");
    assert!(
        requests[0].contains("x-mirror-id: probe-") && requests[0].contains("x-shadow: true"),
        "{requests:?}"
    );
}

#[tokio::test]
async fn target_that_leads_elsewhere_is_accepted_whatever_others_send() {
    let probes = Arc::new(Probes::new(()));
    let server = SocketAddr::from(([10, 0, 0, 7], 8080)).into();
    probes.saw(&Probe { id: b"probe-0123456789abcdef".to_vec(), server });
    let server = Server::answering(OK).await;
    let start = Instant::now();
    assert!(prepare(server.addr, &probes).await.review(Ask::Open).await.is_none());
    assert!(start.elapsed() < Duration::from_secs(2), "an answer is not waited for longer than it takes");
    // One that takes the probe and never answers is no reason not to start.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    assert!(prepare(silent.local_addr().unwrap(), &probes).await.review(Ask::Open).await.is_none());
}

#[tokio::test]
async fn target_is_not_accepted_while_probes_may_be_missed() {
    type Harm = fn(&Sight, &Probes);
    let harms: [(&str, Harm); 5] = [
        ("more look like probes than can be kept", |_, probes| probes.missed()),
        ("the ring is full", |sight, _| sight.overlooked.store(1, Ordering::SeqCst)),
        ("more is shed", |sight, _| sight.shed_millionths.store(1, Ordering::SeqCst)),
        ("capture was paused and resumed", |sight, _| {
            sight.pauses.fetch_add(1, Ordering::SeqCst);
        }),
        ("capture is paused", |sight, _| sight.is_blind.store(true, Ordering::SeqCst)),
    ];
    for (what, harm) in harms {
        let sight = Arc::<Sight>::default();
        let probes = Arc::new(Probes::new(Arc::clone(&sight)));
        let is_harmed = Arc::new(AtomicBool::new(true));
        let (of_hook, harmed, seeing) = (Arc::clone(&probes), Arc::clone(&is_harmed), Arc::clone(&sight));
        let server = Server::start(move |mut peer| {
            let (probes, is_harmed, sight) = (Arc::clone(&of_hook), Arc::clone(&harmed), Arc::clone(&seeing));
            async move {
                while peer.request().await.is_some() {
                    if is_harmed.load(Ordering::SeqCst) {
                        harm(&sight, &probes);
                    }
                    peer.send(OK).await;
                }
            }
        })
        .await;
        let mut replay =
            Running::start(server.addr, |config| config.probes = Some(Arc::clone(&probes))).await;
        replay.until(|| !server.requests().is_empty()).await;
        // Longer than a probe that is not seen is looked for.
        tokio::time::sleep(Duration::from_millis(400)).await;
        replay.push([get("early")]);
        replay.settled().await;
        let refused = replay.gauges.addresses_refused();
        assert_eq!((replay.books.dropped(DropReason::Connect), refused), (1, 0), "{what}");
        is_harmed.store(false, Ordering::SeqCst);
        sight.is_blind.store(false, Ordering::SeqCst);
        let probed = server.requests().len();
        replay.until(|| server.requests().len() > probed).await;
        tokio::time::sleep(Duration::from_millis(600)).await;
        replay.push([get("late")]);
        replay.ended(ReplayOutcome::Answered, 1).await;
        assert_eq!(replay.stop().await.0, 1, "{what}");
    }
}

#[tokio::test]
async fn target_is_accepted_once_so_many_probes_were_not_seen_that_not_all_were_overlooked() {
    let sight = Arc::<Sight>::default();
    let probes = Arc::new(Probes::new(Arc::clone(&sight)));
    let server = Server::start(move |mut peer| {
        let sight = Arc::clone(&sight);
        async move {
            while peer.request().await.is_some() {
                sight.overlooked.fetch_add(1, Ordering::SeqCst);
                peer.send(OK).await;
            }
        }
    })
    .await;
    let mut replay = Running::start(server.addr, |config| {
        config.probes = Some(Arc::clone(&probes));
        config.queue_age = Duration::from_secs(20);
    })
    .await;
    replay.until(|| server.requests().len() == 10).await;
    tokio::time::sleep(Duration::from_millis(400)).await;
    replay.push([get("")]);
    replay.ended(ReplayOutcome::Answered, 1).await;
    assert!(server.requests()[..10].iter().all(|request| request.contains("probe-")));
    assert_eq!((replay.stop().await.0, server.requests().len()), (1, 11));
}

#[tokio::test]
async fn probe_that_is_read_late_is_waited_for() {
    let sight = Arc::<Sight>::default();
    sight.is_behind.store(true, Ordering::SeqCst);
    let probes = Arc::new(Probes::new(Arc::clone(&sight)));
    let (of_hook, seeing) = (Arc::clone(&probes), Arc::clone(&sight));
    let server = Server::start(move |mut peer| {
        let (probes, sight) = (Arc::clone(&of_hook), Arc::clone(&seeing));
        async move {
            while let Some(request) = peer.request().await {
                peer.send(OK).await;
                tokio::time::sleep(Duration::from_millis(700)).await;
                see(&probes, request);
                sight.is_behind.store(false, Ordering::SeqCst);
            }
        }
    })
    .await;
    let refusal = prepare(server.addr, &probes).await.review(Ask::Open).await;
    assert_eq!(refusal, Some(Refusal::LeadsBack { target: server.addr }));
}

#[tokio::test]
async fn probe_comes_from_where_nothing_is_shed() {
    let sight = Arc::<Sight>::default();
    let shed = 950_000;
    sight.shed_millionths.store(shed, Ordering::SeqCst);
    let probes = Arc::new(Probes::new(Arc::clone(&sight)));
    // The hook takes what is not shed.
    let server = taking(&probes, move |client| {
        !is_in_share(connection_draw(SHED_KEY, client.addr.octets(), client.port), shed)
    })
    .await;
    let mut replay = prepare(server.addr, &probes).await;
    let mut refusal = None;
    for _ in 0..20 {
        refusal = refusal.or(replay.review(Ask::Open).await);
    }
    assert_eq!(refusal, Some(Refusal::LeadsBack { target: server.addr }));
}

#[tokio::test]
async fn address_that_cannot_be_probed_has_no_copies_until_it_was() {
    let probes = Arc::new(Probes::new(()));
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
    let probes = Arc::new(Probes::new(()));
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
async fn address_that_comes_to_lead_back_gets_no_copies_from_then_on() {
    let probes = Arc::new(Probes::new(()));
    let leads_back = Arc::new(AtomicBool::default());
    let is_live = Arc::clone(&leads_back);
    let server = taking(&probes, move |_| is_live.load(Ordering::SeqCst)).await;
    let mut replay = Running::start(server.addr, |config| {
        config.probes = Some(Arc::clone(&probes));
        config.resolve_interval = Duration::from_millis(20);
    })
    .await;
    replay.push([get("before")]);
    replay.ended(ReplayOutcome::Answered, 1).await;
    leads_back.store(true, Ordering::SeqCst);
    replay.until(|| replay.gauges.addresses_refused() == 1).await;
    replay.push([get("after")]);
    replay.settled().await;
    // What is behind it may be down at that moment, and back at the next.
    leads_back.store(false, Ordering::SeqCst);
    let asked = server.requests().len();
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(server.requests().len(), asked, "it is not asked again");
    assert!(!server.requests().iter().any(|request| request.contains("/after")));
    let (mirrored, books) = replay.stop().await;
    assert_eq!((mirrored, books.dropped(DropReason::Connect)), (1, 1));
}

#[tokio::test]
async fn address_that_was_accepted_stays_so_while_it_cannot_be_asked_again() {
    let sight = Arc::<Sight>::default();
    let probes = Arc::new(Probes::new(Arc::clone(&sight)));
    let server = Server::answering(OK).await;
    let mut replay = Running::start(server.addr, |config| {
        config.probes = Some(Arc::clone(&probes));
        config.resolve_interval = Duration::from_millis(20);
    })
    .await;
    replay.until(|| server.requests().len() >= 2).await;
    // One that is out says nothing from here on, and those that follow neither.
    sight.pauses.fetch_add(1, Ordering::SeqCst);
    sight.is_blind.store(true, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_millis(600)).await;
    replay.push([get("")]);
    replay.ended(ReplayOutcome::Answered, 1).await;
    assert_eq!(replay.stop().await.0, 1);
}

#[tokio::test]
async fn copies_wait_until_probes_can_be_seen() {
    let sight = Arc::<Sight>::default();
    sight.is_blind.store(true, Ordering::SeqCst);
    let probes = Arc::new(Probes::new(Arc::clone(&sight)));
    let server = Server::answering(OK).await;
    let mut replay = Running::start(server.addr, |config| config.probes = Some(Arc::clone(&probes))).await;
    replay.push([get("")]);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!((server.requests().len(), replay.queue.len()), (0, 1));
    assert_eq!(replay.gauges.verdict(), None);
    sight.is_blind.store(false, Ordering::SeqCst);
    replay.ended(ReplayOutcome::Answered, 1).await;
    assert_eq!(replay.gauges.verdict(), Some(None));
    assert!(server.requests()[0].contains("probe-"), "the probe came first");
    assert_eq!(replay.stop().await.0, 1);
}

#[tokio::test]
async fn doubt_holds_copies_back_and_one_that_is_never_settled_ends_with_the_replay() {
    let sight = Arc::<Sight>::default();
    let probes = Arc::new(Probes::new(Arc::clone(&sight)));
    let server = Server::answering(OK).await;
    let mut replay = Running::start(server.addr, |config| {
        config.probes = Some(Arc::clone(&probes));
        config.queue_age = Duration::from_secs(1);
    })
    .await;
    replay.push([get("a")]);
    replay.ended(ReplayOutcome::Answered, 1).await;
    sight.is_blind.store(true, Ordering::SeqCst);
    replay.queue.doubt();
    replay.push([get("b")]);
    // It has not waited for the target for so long.
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert_eq!((server.requests().len(), replay.queue.len()), (2, 1), "a probe and a copy");
    sight.is_blind.store(false, Ordering::SeqCst);
    replay.ended(ReplayOutcome::Answered, 2).await;
    assert!(server.requests()[2].contains("probe-"), "the probe came first");
    sight.is_blind.store(true, Ordering::SeqCst);
    replay.queue.doubt();
    replay.push([get("c")]);
    let start = Instant::now();
    let (mirrored, books) = replay.stop().await;
    assert_eq!((mirrored, books.dropped(DropReason::Connect)), (2, 1));
    assert!(start.elapsed() < Duration::from_secs(4), "nobody waits for what does not come");
}
