//! Enters: changes after which more is captured. Leaves: targets that are judged anew before they get another copy.

use super::*;
use crate::pipeline::Probe;

/// A way that leads to a live service on this node, by an address and a port of its own: what arrives there passes the hook
/// where `port` is captured.
struct Way {
    addr: SocketAddr,
    /// Probes and copies.
    received: Arc<(AtomicUsize, AtomicUsize)>,
}

impl Way {
    async fn start(tap: FakeTap, probes: Arc<Probes>, port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let received = Arc::<(AtomicUsize, AtomicUsize)>::default();
        let counts = Arc::clone(&received);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (tap, probes, counts) = (tap.clone(), Arc::clone(&probes), Arc::clone(&counts));
                tokio::spawn(async move {
                    let mut bytes = Vec::new();
                    while stream.read_buf(&mut bytes).await.is_ok_and(|read| read > 0) {
                        while let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                            let head = String::from_utf8(bytes.drain(..end + 4).collect()).unwrap();
                            let id = head.split_once("x-mirror-id: ").unwrap().1.split_once('\r').unwrap().0;
                            if id.starts_with("probe-") {
                                counts.0.fetch_add(1, Ordering::SeqCst);
                                if tap.takes(port) {
                                    let server = SocketAddr::from(([10, 0, 0, 1], port)).into();
                                    probes.saw(&Probe { id: id.as_bytes().to_vec(), server });
                                }
                            } else {
                                counts.1.fetch_add(1, Ordering::SeqCst);
                            }
                            drop(stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await);
                        }
                    }
                });
            }
        });
        Self { addr, received }
    }

    fn probes(&self) -> usize {
        self.received.0.load(Ordering::SeqCst)
    }

    fn copies(&self) -> usize {
        self.received.1.load(Ordering::SeqCst)
    }
}

#[tokio::test]
async fn a_target_that_goes_on_is_judged_anew_before_its_next_copy_where_more_is_captured() {
    let (tap, probes) = (FakeTap::default(), Arc::new(Probes::new(())));
    let way = |port| Way::start(tap.clone(), Arc::clone(&probes), port);
    let (back, elsewhere) = (way(7002).await, way(7009).await);
    let one = ("x", 7001, "", &[("back", url(back.addr)), ("elsewhere", url(elsewhere.addr))][..]);
    let mut bench = Bench::with(&file(&[one]), tap.clone(), Some(Arc::clone(&probes))).await;
    let lanes = ["back", "elsewhere"].map(|target| bench.lane("x", target).unwrap());
    for lane in &lanes {
        bench.send(lane, 1);
    }
    bench.until(|_| back.copies() == 1 && elsewhere.copies() == 1).await;
    assert_eq!((back.probes(), elsewhere.probes()), (1, 1));
    // The same, and less, change nothing about where they lead.
    bench.helm.set_percent("x", 50.0).await.unwrap();
    bench.helm.pause(Some("x")).await.unwrap();
    sleep(Duration::from_millis(50)).await;
    assert_eq!((back.probes(), elsewhere.probes()), (1, 1));
    bench.helm.resume(Some("x")).await.unwrap();
    bench.until(|_| back.probes() == 2 && elsewhere.probes() == 2).await;
    // Now what is behind one of them is captured.
    let two = ("y", 7002, "", &[("elsewhere", url(elsewhere.addr))][..]);
    bench.offer(&file(&[one, two])).await;
    assert_eq!(bench.status.reloads(), [1, 0]);
    for lane in &lanes {
        bench.send(lane, 1);
    }
    bench.until(|_| lanes[0].gauges.addresses_refused() == 1 && elsewhere.copies() == 2).await;
    bench.until(|bench| bench.ledger.snapshot().pending == 0).await;
    assert_eq!((back.copies(), lanes[1].gauges.addresses_refused()), (1, 0));
    assert_eq!(bench.ledger.dropped(DropReason::Connect), 1);
    bench.helm.stop().await;
}

#[tokio::test]
async fn targets_are_judged_anew_once_other_interfaces_are_attached_to() {
    let (tap, probes) = (FakeTap::default(), Arc::new(Probes::new(())));
    let way = Way::start(tap.clone(), Arc::clone(&probes), 7002).await;
    let text = file(&[("x", 7001, "", &[("a", url(way.addr))])]);
    let mut bench = Bench::with(&text, tap.clone(), Some(probes)).await;
    bench.until(|_| way.probes() == 1).await;
    bench.attached.send_replace(());
    bench.until(|_| way.probes() == 2).await;
    let lane = bench.lane("x", "a").unwrap();
    bench.send(&lane, 1);
    bench.until(|_| way.copies() == 1).await;
    bench.helm.stop().await;
}
