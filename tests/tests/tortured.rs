//! Enters: shadows that do their worst. Leaves: live as it is without a mirror, memory bounded, books balanced, and the
//! shadow found again once it is well.

use std::{
    fs,
    io::{Read, Write},
    net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use mirror_tests::{
    agent::{Agent, Arguments},
    load::{Pace, Plan, Running},
    netns::{Host, Topology},
    require_agent,
    scenario::{PATIENCE, PORT, Turn, Weight, p99},
    server::{Record, Server},
    slowness::{slowdown, slowed},
    traffic::Same,
};
use socket2::SockRef;

/// How a shadow treats its clients.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Ill {
    Refuses,
    Resets,
    NeverAnswers,
    OneByteASecond,
    Garbage,
    Endless,
    ClosesMidBody,
}

const ALL: [Ill; 7] = [
    Ill::Refuses,
    Ill::Resets,
    Ill::NeverAnswers,
    Ill::OneByteASecond,
    Ill::Garbage,
    Ill::Endless,
    Ill::ClosesMidBody,
];

/// Pairs of runs without and with the mirror, one right after the other, for each kind of shadow. Where the machine is slow, one:
/// each takes so many times longer.
fn pairs() -> usize {
    if slowdown() > 1.0 { 1 } else { 3 }
}

/// Bytes of copies that the agent may hold.
const QUEUE_BYTES: f64 = 4.0 * 1024.0 * 1024.0;

/// The breaker opens for half a second, then for one, and then for two, each longer by a quarter at most. What is added is
/// the time that a probe takes, and that a busy machine takes.
const RECOVERY: Duration = Duration::from_secs(6);

#[test]
fn live_does_not_feel_a_tortured_shadow_which_is_found_again() -> Result<()> {
    require_agent!();
    let _turn = Turn::take(Weight::Heavy)?;
    let net = Topology::new()?;
    let live = Server::start(&net.live, PORT, Record::Count)?;
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("experiments.yaml");
    fs::write(&path, configuration(net.shadow.at_v4(PORT)))?;
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for ill in ALL {
        for pair in 0..pairs() {
            let patient = Patient::start(&net.shadow, ill)?;
            let before = live.requests();
            without.push(p99(&net)?.0);
            let agent = Agent::start(&net.live, &Arguments::from_file(&path))?;
            let between = live.requests();
            with.push(p99(&net)?.0);
            let held = agent.metrics()?.value("mirror_memory_bytes", "pool", "replay");
            ensure!(held <= QUEUE_BYTES, "{ill:?}: {held} bytes are held");
            if pair == 0 {
                let recovery = recover(&net, &agent, patient)?;
                println!("{ill:?}: found again after {recovery:?}, {} MiB", agent.pss()? / 1024 / 1024);
            }
            let seen = live.requests() - between;
            let ledger = agent.wait_for(PATIENCE, |ledger| ledger.seen >= seen && ledger.pending == 0)?;
            ensure!(ledger.seen == seen, "live counts {seen} of {before}, the agent: {ledger}");
            let metrics = agent.metrics()?;
            let [copies, pending, mirrored, dropped] = [
                "mirror_copies_total",
                "mirror_copies_pending",
                "mirror_copies_mirrored_total",
                "mirror_copies_dropped_total",
            ]
            .map(|name| metrics.sum(name));
            ensure!(
                copies == seen as f64 && pending == 0.0 && copies == mirrored + dropped,
                "{ill:?}: {copies} copies, {pending} pending, {mirrored} mirrored, {dropped} dropped"
            );
            ensure!(
                metrics.value("mirror_breaker_changes_total", "to", "open") > 0.0,
                "{ill:?} opens the breaker"
            );
        }
        let figures = |runs: &[Duration]| format!("{:?}", &runs[runs.len() - pairs()..]);
        println!("{ill:?}: live's p99 {} without, {} with the mirror", figures(&without), figures(&with));
    }
    let (without, with) = (median(without), median(with));
    println!(
        "live's p99, median of {} pairs: {without:?} without, {with:?} with the mirror",
        ALL.len() * pairs()
    );
    // Capture shares two processors with the generator and both servers; a live request that waited for the shadow would
    // wait for its timeout, 300 ms.
    ensure!(with < without * 2 + Duration::from_millis(5), "{with:?} with the mirror, {without:?} without");
    Ok(())
}

fn configuration(shadow: SocketAddr) -> String {
    // In which a machine that is slow sees as many requests fail.
    let window = slowed(Duration::from_secs(1)).as_millis();
    format!(
        "capture: {{ interfaces: [eth0], queueMemory: 4Mi }}
experiments:
  - name: torture
    expires: never
    ports: [{PORT}]
    targets:
      - name: patient
        url: http://{shadow}
        connectTimeout: 300ms
        timeout: 300ms
        queueTimeout: 300ms
        limits: {{ maxInFlight: 64, queue: 512, dropPolicy: oldest }}
        circuitBreaker: {{ errorRatio: 0.5, window: {window}ms, minRequests: 20, openFor: 500ms }}
        order: connection
"
    )
}

/// Makes the shadow well and waits until its breaker has closed and copies arrive; gives how long that took.
fn recover(net: &Topology, agent: &Agent, patient: Patient) -> Result<Duration> {
    drop(patient);
    let shadow = Server::start(&net.shadow, PORT, Record::Count)?;
    let start = Instant::now();
    let plan = Plan::new(net.live.at_v4(PORT), Pace::PerSecond(200.0), RECOVERY, 4);
    let running = Running::start(&net.client, plan, Same::get())?;
    let mut recovery = None;
    while !running.is_finished() {
        let is_closed = agent.metrics()?.sum("mirror_breaker_state") == 0.0;
        if recovery.is_none() && is_closed && shadow.requests() > 1 {
            recovery = Some(start.elapsed());
        }
        thread::sleep(Duration::from_millis(5));
    }
    ensure!(running.finish()?.is_clean(), "live does not answer as it should");
    recovery.with_context(|| format!("the breaker does not close: {}", agent.printed("stderr")))
}

fn median(mut runs: Vec<Duration>) -> Duration {
    runs.sort_unstable();
    runs[runs.len() / 2]
}

/// A shadow that is ill; gone, with all its connections, when dropped.
struct Patient {
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Patient {
    fn start(host: &Host, ill: Ill) -> Result<Self> {
        let stop = Arc::<AtomicBool>::default();
        if ill == Ill::Refuses {
            return Ok(Self { stop, thread: None });
        }
        let listener = host.within(|| Ok(TcpListener::bind((Ipv6Addr::UNSPECIFIED, PORT))?))?;
        listener.set_nonblocking(true)?;
        let told = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut victims = Vec::new();
            while !told.load(Ordering::Relaxed) {
                if let Ok((stream, _)) = listener.accept() {
                    let told = Arc::clone(&told);
                    victims.push(thread::spawn(move || drop(torture(stream, ill, &told))));
                } else {
                    thread::sleep(Duration::from_millis(1));
                }
            }
            drop(listener);
            for victim in victims {
                drop(victim.join());
            }
        });
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Patient {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn torture(mut stream: TcpStream, ill: Ill, stop: &AtomicBool) -> Result<()> {
    // Closed with a reset: the port is free at once for the server that takes its place.
    SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    stream.set_nonblocking(false)?;
    stream.set_write_timeout(Some(Duration::from_millis(100)))?;
    let wait = |most: Duration| {
        let start = Instant::now();
        while start.elapsed() < most && !stop.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(5));
        }
    };
    let forever = Duration::from_secs(60);
    match ill {
        Ill::Refuses | Ill::Resets => {}
        Ill::NeverAnswers => wait(forever),
        Ill::OneByteASecond => {
            for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" {
                stream.write_all(&[*byte])?;
                wait(Duration::from_secs(1));
            }
        }
        Ill::Garbage => {
            stream.write_all(b"\x16\x03\x01 garbage \0\r\n\r\n")?;
            wait(forever);
        }
        Ill::Endless => {
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
            while !stop.load(Ordering::Relaxed) {
                stream.write_all(&[b'x'; 16 * 1024])?;
                thread::sleep(Duration::from_millis(1));
            }
        }
        Ill::ClosesMidBody => {
            // Read first: else it would be a reset.
            let mut request = [0; 4096];
            let _len = stream.read(&mut request)?;
            SockRef::from(&stream).set_linger(None)?;
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")?;
        }
    }
    Ok(())
}
