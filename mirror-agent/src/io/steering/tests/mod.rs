//! Enters: configurations, orders and times, and shadows on loopback. Leaves: what goes on and what does not.

mod doubts;
mod pods;

use std::{
    cell::Cell,
    net::SocketAddr,
    sync::{
        MutexGuard,
        atomic::{AtomicU32, AtomicUsize, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    time::{sleep, timeout},
};

use self::pods::Told;
use super::*;
use crate::io::{
    capture::{CounterValues, role::Role},
    compare::Shared,
    config,
    control::{ControlError, Setting, Steering as _},
    experiments::{Common, Lane},
    guard::GuardValues,
    ledger::DropReason,
    metrics::TargetGauges,
    replay::{Job, OwnSocketRegistry, Probes, clock, tests::request},
    telling::Telling,
};

thread_local! {
    /// The wall clock of a test, in seconds since 1970. Each test has a thread of its own.
    static NOW: Cell<u64> = const { Cell::new(1_000_000) };
}

fn at(secs: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(secs)
}

/// A shadow that answers each request after `delay`.
struct Shadow {
    addr: SocketAddr,
    connections: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
}

impl Shadow {
    async fn start(delay: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (connections, requests) = <(Arc<AtomicUsize>, Arc<AtomicUsize>)>::default();
        let (opened, received) = (Arc::clone(&connections), Arc::clone(&requests));
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                opened.fetch_add(1, Ordering::SeqCst);
                let received = Arc::clone(&received);
                tokio::spawn(async move {
                    let mut bytes = Vec::new();
                    while stream.read_buf(&mut bytes).await.is_ok_and(|read| read > 0) {
                        while let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                            bytes.drain(..end + 4);
                            received.fetch_add(1, Ordering::SeqCst);
                            sleep(delay).await;
                            drop(stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await);
                        }
                    }
                });
            }
        });
        Self { addr, connections, requests }
    }

    fn counts(&self) -> (usize, usize) {
        (self.connections.load(Ordering::SeqCst), self.requests.load(Ordering::SeqCst))
    }
}

#[derive(Default)]
struct Sockets;

impl OwnSocketRegistry for Sockets {
    fn opened(&self, _: SocketAddr, _: bool) {}
    fn closed(&self, _: SocketAddr) {}
}

#[derive(Debug)]
struct NoGauges;

impl Gauges for NoGauges {
    fn kernel_counts(&self) -> CounterValues {
        CounterValues::default()
    }
    fn ring_bytes(&self) -> u64 {
        0
    }
    fn targets(&self) -> Vec<TargetGauges> {
        Vec::new()
    }
    fn interfaces_attached(&self) -> [u64; Role::ALL.len()] {
        [1, 0, 0]
    }
    fn interfaces(&self) -> BTreeMap<u32, String> {
        BTreeMap::new()
    }
    fn guard(&self) -> GuardValues {
        GuardValues::default()
    }
}

/// A kernel program of which the tables are kept here.
#[derive(Clone, Default)]
struct FakeTap(Arc<Mutex<(Matched, bool, BTreeSet<u16>)>>);

impl FakeTap {
    fn lock(&self) -> MutexGuard<'_, (Matched, bool, BTreeSet<u16>)> {
        self.0.lock().unwrap()
    }

    fn takes(&self, port: u16) -> bool {
        let tap = self.lock();
        !tap.1 && tap.0.takes("::ffff:10.0.0.1".parse().unwrap(), port)
    }
}

impl Tap for FakeTap {
    fn take_less(&mut self, _: &Matched) -> Result<(), AnyError> {
        Ok(())
    }
    fn take_more(&mut self, matched: &Matched) -> Result<(), AnyError> {
        self.lock().0 = matched.clone();
        Ok(())
    }
    fn set_answer_ports(&mut self, ports: &BTreeSet<u16>) -> Result<(), AnyError> {
        self.lock().2.clone_from(ports);
        Ok(())
    }
    fn set_samples(&mut self, _: &[PortSample]) -> Result<(), AnyError> {
        Ok(())
    }
    fn set_paused(&mut self, is_paused: bool) -> Result<(), AnyError> {
        self.lock().1 = is_paused;
        Ok(())
    }
}

/// Name, port, more lines, and targets with more of theirs.
type ExperimentText<'a> = (&'a str, u16, &'a str, &'a [(&'a str, String)]);

/// A file with these experiments.
fn file(experiments: &[ExperimentText<'_>]) -> String {
    let mut text = "capture: { interfaces: [lo] }\nexperiments:\n".to_owned();
    for (name, port, more, targets) in experiments {
        let expires = if more.contains("expires") { "" } else { "    expires: never\n" };
        text += &format!("  - name: {name}\n{expires}    ports: [{port}]\n{more}    targets:\n");
        for (name, rest) in *targets {
            text += &format!("      - {{ name: {name}, {rest} }}\n");
        }
    }
    text
}

fn url(addr: SocketAddr) -> String {
    format!("url: \"http://{addr}\"")
}

struct Bench {
    helm: Helm,
    told: Told,
    attached: watch::Sender<()>,
    tap: FakeTap,
    ledger: Arc<Ledger>,
    status: Arc<Status>,
}

impl Bench {
    async fn start(text: &str) -> Self {
        Self::with(text, FakeTap::default(), None).await
    }

    /// The same with a kernel program that others know as well, and a hook by which probes may be seen.
    async fn with(text: &str, tap: FakeTap, probes: Option<Arc<Probes>>) -> Self {
        let ledger = Arc::<Ledger>::default();
        let (status, captured) = (Arc::<Status>::default(), Arc::<CapturedCell>::default());
        let is_captured = Arc::clone(&captured);
        let config = config::parse(text, "test", None).unwrap();
        let (told, pods) = Told::new();
        let common = Common {
            ledger: Arc::clone(&ledger),
            registry: Arc::new(Sockets),
            refuse: Arc::new(move |addr| is_captured.load().refuse(addr)),
            own_mark: 0,
            instance: 1,
            drain_timeout: config.drain_timeout,
            audit: Audit::default(),
            agents: Arc::new(AtomicU32::new(1)),
            probes,
            compare: Shared::default(),
        };
        let reader = Reader {
            parse: |text, name| Ok(config::parse(text, name, None)?),
            judge: |_| Ok(()),
            captured: |config| Ok(Captured { ports: config.ports(), ..Captured::default() }),
            now: || at(NOW.get()),
        };
        let attached = watch::Sender::default();
        let helm = Helm::start(Parts {
            config,
            experiments: Experiments::new(common),
            tap: Box::new(tap.clone()),
            captured,
            reader,
            audit: Audit::default(),
            ledger: Arc::clone(&ledger),
            gauges: Arc::new(NoGauges),
            status: Arc::clone(&status),
            teller: Telling::new().0,
            attached: attached.subscribe(),
            pods,
        })
        .await
        .unwrap();
        Self { helm, told, attached, tap, ledger, status }
    }

    fn lane(&self, experiment: &str, target: &str) -> Option<Lane> {
        let mut lanes = self.helm.parts.experiments.lanes();
        let found = lanes.find(|(of, known, _)| of.name == experiment && known.name == target);
        found.map(|(.., lane)| lane.clone())
    }

    fn send(&self, lane: &Lane, count: usize) {
        let raw = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        let job = || Job {
            request: request(raw, raw.len()),
            ticket: self.ledger.claim(1).ticket(&lane.books),
            pipeline: 0,
            queued_at: clock::now(),
            part: None,
            has_paid: false,
        };
        lane.queue.push_batch((0..count).map(|_| job()).collect::<Vec<_>>());
    }

    /// Lets the owner go on until something is so.
    async fn until(&mut self, is_so: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        while !is_so(self) {
            assert!(start.elapsed() < Duration::from_secs(20), "not in time: {:?}", self.ledger.snapshot());
            drop(timeout(Duration::from_millis(5), self.helm.turn()).await);
        }
    }

    /// Offers a file and waits until it is in force or rejected.
    async fn offer(&mut self, text: &str) {
        let before: u64 = self.status.reloads().iter().sum();
        self.helm.read(Reading { who: Who::File, text: Ok(text.to_owned()), is_first: false });
        self.until(|bench| bench.status.reloads().iter().sum::<u64>() > before).await;
    }

    fn mirrored(&self) -> u64 {
        self.ledger.mirrored()
    }
}

#[tokio::test]
async fn unchanged_target_keeps_its_connection_while_its_neighbour_is_replaced() {
    let (a, b, c) = (
        Shadow::start(Duration::ZERO).await,
        Shadow::start(Duration::ZERO).await,
        Shadow::start(Duration::ZERO).await,
    );
    let one = |addr| file(&[("x", 7001, "", &[("a", url(a.addr)), ("b", url(addr))])]);
    let mut bench = Bench::start(&one(b.addr)).await;
    let (kept, gone) = (bench.lane("x", "a").unwrap(), bench.lane("x", "b").unwrap());
    bench.send(&kept, 1);
    bench.send(&gone, 1);
    bench.until(|_| a.counts() == (1, 1) && b.counts() == (1, 1)).await;
    bench.until(|bench| bench.ledger.snapshot().pending == 0 && kept.gauges.idle() == 1).await;
    bench.offer(&one(c.addr)).await;
    assert_eq!(bench.status.reloads(), [1, 0]);
    let replaced = bench.lane("x", "b").unwrap();
    assert!(!Arc::ptr_eq(&gone.queue, &replaced.queue) && Arc::ptr_eq(&gone.books, &replaced.books));
    bench.send(&bench.lane("x", "a").unwrap(), 1);
    bench.send(&gone, 1);
    bench.send(&replaced, 1);
    bench.until(|_| a.counts() == (1, 2) && c.counts() == (1, 1)).await;
    assert_eq!((b.counts(), bench.ledger.dropped(DropReason::Removed)), ((1, 1), 1));
    bench.helm.stop().await;
}

#[tokio::test]
async fn removed_target_drops_what_waits_and_finishes_what_is_in_flight() {
    let slow = Shadow::start(Duration::from_millis(300)).await;
    let limits = format!("{}, limits: {{ maxInFlight: 1 }}", url(slow.addr));
    let mut bench = Bench::start(&file(&[("x", 7001, "", &[("a", limits)])])).await;
    let lane = bench.lane("x", "a").unwrap();
    bench.send(&lane, 3);
    bench.until(|_| slow.counts() == (1, 1)).await;
    bench.offer(&file(&[("y", 7001, "", &[("a", url(slow.addr))])])).await;
    assert_eq!(bench.ledger.dropped(DropReason::Removed), 2);
    bench.until(|_| lane.books.snapshot().replays[0] == 1).await;
    assert_eq!((bench.mirrored(), lane.books.snapshot().pending), (1, 0));
    // Nobody has the books any more after the next change.
    drop(lane);
    bench.until(|bench| Arc::strong_count(&bench.ledger.copies("x", "a")) <= 2).await;
    bench.offer(&file(&[("y", 7002, "", &[("a", url(slow.addr))])])).await;
    let shown = bench.ledger.snapshot().copies;
    assert_eq!(shown.iter().map(|books| &*books.experiment).collect::<Vec<_>>(), ["y"]);
    bench.helm.stop().await;
}

#[tokio::test]
async fn a_file_whose_target_cannot_be_found_is_offered_again_and_taken_once_it_is() {
    let shadow = Shadow::start(Duration::ZERO).await;
    let text = |url: String| file(&[("x", 7001, "", &[("a", url)])]);
    let mut bench = Bench::start(&text(url(shadow.addr))).await;
    bench.offer(&text("url: \"http://nobody.invalid\"".to_owned())).await;
    assert_eq!(bench.status.reloads(), [0, 1]);
    let is_asked = |bench: &Bench| bench.helm.preparing.is_none() && bench.helm.offered_again.is_some();
    // Not found again: nothing that was not said.
    bench.helm.offered_again.as_mut().unwrap().0 = Instant::now();
    bench
        .until(|bench| is_asked(bench) && bench.helm.offered_again.as_ref().unwrap().0 > Instant::now())
        .await;
    assert_eq!((bench.status.reloads(), bench.lane("x", "a").is_some()), ([0, 1], true));
    // The name server knows it meanwhile.
    let (due, again) = bench.helm.offered_again.as_mut().unwrap();
    *due = Instant::now();
    again.config.experiments[0].targets[0].url =
        format!("http://localhost:{}", shadow.addr.port()).parse().unwrap();
    bench.until(|bench| bench.status.reloads() == [1, 1]).await;
    assert!(bench.status.is_last_in_force() && bench.helm.offered_again.is_none());
    // What is read comes before what waits.
    bench.offer(&text("url: \"http://nobody.invalid\"".to_owned())).await;
    bench.offer(&text(url(shadow.addr))).await;
    assert!(bench.helm.offered_again.is_none() && bench.status.is_last_in_force());
    bench.helm.stop().await;
}

#[tokio::test]
async fn a_sink_in_force_that_cannot_be_written_to_any_more_holds_up_no_other_change() {
    let shadow = Shadow::start(Duration::ZERO).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("exchanges");
    let text = |port| {
        let path = path.display();
        let sinks = format!("    compare: {{}}\n    sinks: [{{ name: s, file: {{ path: {path} }} }}]\n");
        file(&[("x", port, &sinks, &[("a", url(shadow.addr))])])
    };
    let mut bench = Bench::start(&text(7001)).await;
    assert!(path.exists());
    drop(folder);
    bench.offer(&text(7002)).await;
    assert_eq!((bench.status.reloads(), bench.status.is_last_in_force()), ([1, 0], true));
    // Nor does one of an experiment that has expired.
    let expired = text(7003)
        .replace("expires: never", "expires: 1970-01-02T00:00:00Z")
        .replace("name: x", "name: y")
        .replace("exchanges", "others");
    let experiment = expired.split_once("experiments:\n").unwrap().1;
    bench.offer(&format!("{}{experiment}", text(7002))).await;
    assert_eq!((bench.status.reloads(), bench.status.is_last_in_force()), ([2, 0], true));
    bench.helm.stop().await;
}

#[tokio::test]
async fn a_sink_that_is_new_writes_to_no_file_of_one_that_stays_whatever_it_is_called() {
    let shadow = Shadow::start(Duration::ZERO).await;
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("x", folder.path().join("y")).unwrap();
    let text = |port, names: &[&str]| {
        let path = folder.path().display();
        let sink = |name| format!("{{ name: {name}, file: {{ path: {path}/{name} }} }}");
        let sinks = names.iter().map(sink).collect::<Vec<_>>().join(", ");
        let more = format!("    compare: {{}}\n    sinks: [{sinks}]\n");
        file(&[("x", port, &more, &[("a", url(shadow.addr))])])
    };
    let mut bench = Bench::start(&text(7001, &["x"])).await;
    bench.offer(&text(7001, &["x", "y"])).await;
    assert_eq!(bench.status.reloads(), [0, 1]);
    bench.offer(&text(7001, &["y"])).await;
    assert_eq!(bench.status.reloads(), [1, 1]);
    bench.helm.stop().await;
}

#[tokio::test]
async fn a_file_that_cannot_be_put_in_force_changes_nothing() {
    let shadow = Shadow::start(Duration::ZERO).await;
    let good = file(&[("x", 7001, "", &[("a", url(shadow.addr))])]);
    let mut bench = Bench::start(&good).await;
    let lane = bench.lane("x", "a").unwrap();
    let port = shadow.addr.port();
    let bad = [
        "experiments: 1".to_owned(),
        // A new experiment captures the port of the target that runs.
        file(&[
            ("x", 7001, "", &[("a", url(shadow.addr))]),
            ("y", port, "", &[("a", "url: \"http://192.0.2.1\"".to_owned())]),
        ]),
        // A new target is on the port that is captured.
        file(&[(
            "x",
            7001,
            "",
            &[("a", url(shadow.addr)), ("b", "url: \"http://127.0.0.1:7001\"".to_owned())],
        )]),
        good.replace("interfaces: [lo]", "interfaces: [lo], threads: 2"),
        // A sink that cannot be written to.
        file(&[(
            "x",
            7001,
            "    compare: {}\n    sinks: [{ name: s, file: { path: /nonexistent/folder/file } }]\n",
            &[("a", url(shadow.addr))],
        )]),
        good.replace("interfaces: [lo]", "interfaces: [lo], ringSize: 1Mi") + "drainTimeout: 9s\n",
    ];
    for (count, text) in (1..).zip(&bad) {
        bench.offer(text).await;
        assert_eq!((bench.status.reloads(), bench.status.is_last_in_force()), ([0, count], false), "{text}");
        assert!(Arc::ptr_eq(&bench.lane("x", "a").unwrap().queue, &lane.queue));
        assert!(bench.tap.takes(7001) && !bench.tap.takes(port));
        assert_eq!(bench.ledger.snapshot().copies.len(), 1, "{text}");
    }
    bench.send(&lane, 1);
    bench.until(|_| shadow.counts() == (1, 1)).await;
    bench.offer(&good).await;
    assert_eq!((bench.status.reloads(), bench.status.is_last_in_force()), ([1, 6], true));
    bench.helm.stop().await;
}

#[tokio::test]
async fn an_experiment_ends_at_its_time_and_goes_on_when_it_is_given_more() {
    let shadow = Shadow::start(Duration::ZERO).await;
    let expires = "    expires: 1970-01-12T13:46:50Z\n";
    let more = format!("{}, limits: {{ maxInFlight: 1 }}", url(shadow.addr));
    let mut bench = Bench::start(&file(&[
        ("ends", 7001, expires, &[("a", more)]),
        ("stays", 7002, "", &[("a", url(shadow.addr))]),
    ]))
    .await;
    assert!(bench.tap.takes(7001));
    assert_eq!(bench.status.experiments()[0].expires, 1_000_010);
    NOW.set(1_000_010);
    bench.until(|bench| bench.lane("ends", "a").is_none()).await;
    assert!(!bench.tap.takes(7001) && bench.tap.takes(7002));
    let state = bench.helm.state();
    assert_eq!(
        state.experiments.iter().map(|experiment| experiment.expired).collect::<Vec<_>>(),
        [true, false]
    );
    NOW.set(5);
    for _ in 0..3 {
        drop(timeout(TICK, bench.helm.turn()).await);
    }
    assert!(bench.lane("ends", "a").is_none(), "the clock was set back");
    let changes = bench.helm.set_expiry("ends", Expiry::At(at(1_000_020))).await.unwrap();
    assert_eq!(changes[0].before, Setting::Expires(Expiry::At(at(1_000_010))));
    bench.until(|bench| bench.lane("ends", "a").is_some()).await;
    assert!(bench.tap.takes(7001));
    bench.send(&bench.lane("ends", "a").unwrap(), 1);
    bench.until(|_| shadow.counts().1 == 1).await;
    bench.helm.stop().await;
}

#[tokio::test]
async fn a_paused_experiment_sends_nothing_more_and_others_go_on() {
    let (slow, other) = (Shadow::start(Duration::from_millis(20)).await, Shadow::start(Duration::ZERO).await);
    let limits = format!("{}, limits: {{ maxInFlight: 2 }}", url(slow.addr));
    let mut bench =
        Bench::start(&file(&[("x", 7001, "", &[("a", limits)]), ("y", 7002, "", &[("a", url(other.addr))])]))
            .await;
    let (x, y) = (bench.lane("x", "a").unwrap(), bench.lane("y", "a").unwrap());
    bench.send(&x, 100);
    bench.until(|_| slow.counts().1 >= 4).await;
    let start = Instant::now();
    let changes = bench.helm.pause(Some("x")).await.unwrap();
    let (took, sent) = (start.elapsed(), bench.mirrored());
    assert_eq!((changes[0].before, changes[0].after), (Setting::Paused(false), Setting::Paused(true)));
    assert!(took < Duration::from_millis(100), "{took:?}");
    assert!(!bench.tap.takes(7001) && bench.tap.takes(7002));
    bench.send(&x, 5);
    bench.send(&y, 3);
    bench.until(|_| other.counts().1 == 3).await;
    sleep(Duration::from_millis(150)).await;
    assert_eq!(bench.mirrored(), sent + 3, "nothing was begun at the paused one");
    assert_eq!(bench.ledger.dropped(DropReason::Paused) + sent, 105);
    assert!(bench.status.experiments()[0].is_paused && !bench.status.experiments()[1].is_paused);
    assert_eq!(bench.helm.pause(Some("x")).await.unwrap(), []);
    bench.helm.resume(Some("x")).await.unwrap();
    assert!(bench.tap.takes(7001));
    bench.send(&x, 1);
    bench.until(|bench| bench.mirrored() == sent + 4).await;
    bench.helm.stop().await;
}

#[tokio::test]
async fn a_pause_of_all_empties_every_queue_and_a_resume_of_all_resumes_those_paused_by_name() {
    let shadow = Shadow::start(Duration::from_millis(20)).await;
    let limits = || format!("{}, limits: {{ maxInFlight: 1 }}", url(shadow.addr));
    let mut bench =
        Bench::start(&file(&[("x", 7001, "", &[("a", limits())]), ("y", 7002, "", &[("a", limits())])]))
            .await;
    bench.helm.pause(Some("y")).await.unwrap();
    let (x, y) = (bench.lane("x", "a").unwrap(), bench.lane("y", "a").unwrap());
    bench.send(&x, 50);
    bench.until(|_| shadow.counts().1 >= 2).await;
    assert_eq!(bench.helm.pause(None).await.unwrap().len(), 1);
    let sent = bench.mirrored();
    assert_eq!((x.queue.len(), bench.tap.takes(7001)), (0, false));
    // A change while all is paused starts nothing.
    bench.helm.set_percent("x", 5.0).await.unwrap();
    bench.send(&x, 1);
    sleep(Duration::from_millis(100)).await;
    assert_eq!((bench.mirrored(), bench.ledger.dropped(DropReason::Paused)), (sent, 51 - sent));
    let resumed = bench.helm.resume(None).await.unwrap();
    assert_eq!(
        resumed.iter().map(|change| change.experiment.as_deref()).collect::<Vec<_>>(),
        [None, Some("y")]
    );
    bench.send(&x, 1);
    bench.send(&y, 1);
    bench.until(|bench| bench.mirrored() == sent + 2).await;
    bench.helm.stop().await;
}

#[tokio::test]
async fn what_was_ordered_survives_a_reload_that_does_not_speak_of_it() {
    let shadow = Shadow::start(Duration::ZERO).await;
    let text = |owner: &str, percent: u8| {
        let more = format!("    owner: {owner}\n    sample: {{ percent: {percent} }}\n");
        file(&[("x", 7001, &more, &[("a", url(shadow.addr))])])
    };
    let mut bench = Bench::start(&text("me", 10)).await;
    bench.helm.set_percent("x", 50.0).await.unwrap();
    bench.helm.pause(Some("x")).await.unwrap();
    bench.offer(&text("you", 10)).await;
    let state = bench.helm.state().experiments.remove(0);
    assert_eq!((state.owner.as_deref(), state.percent, state.paused), (Some("you"), 50.0, true));
    bench.offer(&text("you", 20)).await;
    let state = bench.helm.state().experiments.remove(0);
    assert_eq!((state.percent, state.paused), (20.0, true));
    let unknown = bench.helm.pause(Some("z")).await.unwrap_err();
    assert!(matches!(unknown, ControlError::UnknownExperiment { .. }));
    bench.helm.stop().await;
}
