//! Enters: a steady stream of requests, and targets that may have only so much of it. Leaves: what each of them got.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use mirror_tests::{
    agent::{Agent, Arguments},
    client::RawClient,
    http,
    metrics::Metrics,
    netns::Topology,
    require_agent,
    scenario::{PATIENCE, Turn, Weight},
    server::{Arrived, Behavior, Record, Server},
    slowness::slowdown,
};

const PORT: u16 = 8080;

/// The first of the shadows' ports.
const SHADOWS: u16 = 9000;

/// Live connections, half of them of each IP.
const CONNECTIONS: usize = 8;

/// Requests sent on each of them.
const ROUNDS: usize = 50;

/// From one round to the next: the stream lasts for two seconds, at 200 requests a second.
const STEP: Duration = Duration::from_millis(40);

const REQUESTS: f64 = (CONNECTIONS * ROUNDS) as f64;

/// Keys of the only target of an experiment each.
const TARGETS: [&str; 8] = [
    "limits: { requestsPerSecond: 50 }",
    "limits: { requestsPerSecond: { total: 100 } }",
    "limits: { bandwidth: 10k }",
    "limits: { maxInFlight: 2 }, queueTimeout: 60s",
    "limits: { maxInFlight: 1, queue: 4, dropPolicy: newest }, timeout: 8s, queueTimeout: 60s",
    "limits: { maxInFlight: 1, queue: 4, dropPolicy: oldest }, timeout: 8s, queueTimeout: 60s",
    "order: connection, queueTimeout: 60s",
    "maxConnectionAge: 250ms, limits: { maxInFlight: 1 }, queueTimeout: 60s",
];
const RATE: usize = 0;
const SHARED_RATE: usize = 1;
const BANDWIDTH: usize = 2;
const IN_FLIGHT: usize = 3;
const NEWEST: usize = 4;
const OLDEST: usize = 5;
const ORDER: usize = 6;
const AGE: usize = 7;

#[test]
fn targets_get_no_more_than_they_may_have_over_v4_and_v6() -> Result<()> {
    require_agent!();
    let _turn = Turn::take(Weight::Heavy)?;
    let net = Topology::new()?;
    let _live = Server::start(&net.live, PORT, Record::Count)?;
    let ports = || SHADOWS..SHADOWS + TARGETS.len() as u16;
    let shadows =
        ports().map(|port| Server::start(&net.shadow, port, Record::Raw)).collect::<Result<Vec<_>>>()?;
    shadows[IN_FLIGHT].behave(Behavior::Late(5));
    for hanging in [NEWEST, OLDEST] {
        shadows[hanging].behave(Behavior::Hang);
    }
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("experiments.yaml");
    let addresses = ports()
        .map(|port| if port % 2 == 0 { net.shadow.at_v4(port) } else { net.shadow.at_v6(port) })
        .collect::<Vec<_>>();
    fs::write(&path, configuration(&addresses))?;
    let agent = Agent::start(&net.live, &Arguments::from_file(&path))?;
    let lasted = stream(&net)?;

    let metrics = settled(&agent)?;
    let of = |target: usize| Books::of(&metrics, target);
    // A tenth of a second's worth may go at once after a pause, and one copy is always under way.
    for (target, dropped) in [(RATE, "rate_limited"), (SHARED_RATE, "rate_limited")] {
        let books = of(target);
        let most = 50.0 * (lasted.as_secs_f64() + 0.1) + 5.0 + 1.0;
        ensure!((60.0..=most).contains(&books.mirrored), "{}: {books:?}, at most {most}", TARGETS[target]);
        ensure!(books.dropped_for(&metrics, dropped) == REQUESTS - books.mirrored, "{books:?}");
    }
    let bytes: usize = shadows[BANDWIDTH].arrived().iter().map(|copy| copy.raw.len()).sum();
    let most = 10_000.0 * (lasted.as_secs_f64() + 0.1) + 300.0;
    ensure!((10_000.0..=most).contains(&(bytes as f64)), "{bytes} bytes, at most {most}");
    let books = of(BANDWIDTH);
    ensure!(books.dropped_for(&metrics, "bandwidth") == REQUESTS - books.mirrored, "{books:?}");
    for target in [IN_FLIGHT, ORDER, AGE] {
        let books = of(target);
        ensure!(books.mirrored == REQUESTS, "{}: {books:?}", TARGETS[target]);
    }
    // Of probes only those that were sent are left out.
    ensure!(shadows[IN_FLIGHT].connections() <= 3, "{} connections", shadows[IN_FLIGHT].connections());
    // One was written and hangs, four wait: of the others those that came first, or last, were dropped.
    for target in [NEWEST, OLDEST] {
        let books = of(target);
        ensure!(books.pending == 4.0 && books.mirrored == 1.0, "{}: {books:?}", TARGETS[target]);
        ensure!(books.dropped_for(&metrics, "queue_full") == REQUESTS - 5.0, "{books:?}");
    }
    ordered(&shadows[ORDER])?;
    // A connection lasts for at least nine tenths of its age.
    let connections = shadows[AGE].connections();
    let most = 2.0 + lasted.as_secs_f64() / 0.225 + 1.0;
    ensure!((5.0..=most).contains(&(connections as f64)), "{connections} connections at an age of 250 ms");
    // When the shadows are well again and the copy that hangs was given up, what waited tells which copies were kept. The
    // first one waited too until there was a connection: what came after it may be of the round that followed, or of later
    // ones where the machine is slow.
    let first = 2 * slowdown().ceil() as usize;
    for (target, rounds) in [(NEWEST, 0..first), (OLDEST, ROUNDS - 1..ROUNDS)] {
        shadows[target].behave(Behavior::Answer);
        let deadline = Instant::now() + PATIENCE;
        while shadows[target].requests() < 5 {
            ensure!(Instant::now() < deadline, "{}: what waits is not sent", TARGETS[target]);
            thread::sleep(Duration::from_millis(20));
        }
        for path in paths(&shadows[target])?.iter().skip(1) {
            let round = path
                .rsplit('/')
                .next()
                .and_then(|round| round.parse().ok())
                .context("a path without a round")?;
            ensure!(rounds.contains(&round), "{}: {path} was kept", TARGETS[target]);
        }
    }
    agent.stop()?;
    Ok(())
}

/// The copies of each live connection came by one connection, in order.
fn ordered(shadow: &Server) -> Result<()> {
    let mut connections: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    for (copy, path) in shadow.arrived().iter().zip(paths(shadow)?) {
        connections.entry(copy.connection).or_default().push(path);
    }
    ensure!(connections.len() == CONNECTIONS, "{} connections for {CONNECTIONS}", connections.len());
    let mut met = BTreeSet::new();
    for paths in connections.values() {
        let number = paths[0].split('/').nth(1).unwrap_or_default();
        let expected: Vec<_> = (0..ROUNDS).map(|round| format!("/{number}/{round}")).collect();
        ensure!(*paths == expected, "the order of live connection {number} was not kept: {paths:?}");
        met.insert(number.to_owned());
    }
    ensure!(met.len() == CONNECTIONS, "two live connections shared one");
    Ok(())
}

/// The paths of what arrived, in this order.
fn paths(shadow: &Server) -> Result<Vec<String>> {
    let path = |copy: &Arrived| {
        let original = http::without_markers(&copy.raw).context("a copy without markers")?.original;
        let text = String::from_utf8(original)?;
        Ok(text.split(' ').nth(1).context("a request without a path")?.to_owned())
    };
    shadow.arrived().iter().map(path).collect()
}

/// Sends the stream; gives how long it took.
fn stream(net: &Topology) -> Result<Duration> {
    let targets = [net.live.at_v4(PORT), net.live.at_v6(PORT)];
    let connect = |number: usize| RawClient::connect(&net.client, targets[number % 2]);
    let mut clients = (0..CONNECTIONS).map(connect).collect::<Result<Vec<_>>>()?;
    let start = Instant::now();
    for round in 0..ROUNDS {
        for (number, client) in clients.iter_mut().enumerate() {
            client.ask(format!("GET /{number}/{round} HTTP/1.1\r\nHost: live\r\n\r\n").as_bytes())?;
        }
        let due = STEP * u32::try_from(round + 1)?;
        thread::sleep(due.saturating_sub(start.elapsed()));
    }
    Ok(start.elapsed())
}

/// Waits until every request was seen and its copies are settled, where no shadow hangs.
fn settled(agent: &Agent) -> Result<Metrics> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let metrics = agent.metrics()?;
        let is_settled = |target: usize| {
            let books = Books::of(&metrics, target);
            books.copies == REQUESTS && (books.pending == 0.0 || [NEWEST, OLDEST].contains(&target))
        };
        if (0..TARGETS.len()).all(is_settled) {
            return Ok(metrics);
        }
        ensure!(Instant::now() < deadline, "not settled: {}", agent.ledger()?);
        thread::sleep(Duration::from_millis(20));
    }
}

#[derive(Debug)]
struct Books {
    target: usize,
    copies: f64,
    pending: f64,
    mirrored: f64,
}

impl Books {
    fn of(metrics: &Metrics, target: usize) -> Self {
        let name = experiment(target);
        let count = |metric| metrics.labelled(metric, &[("experiment", name.as_str())]);
        Self {
            target,
            copies: count("mirror_copies_total"),
            pending: count("mirror_copies_pending"),
            mirrored: count("mirror_copies_mirrored_total"),
        }
    }

    fn dropped_for(&self, metrics: &Metrics, reason: &str) -> f64 {
        let labels = [("experiment", &*experiment(self.target)), ("reason", reason)];
        metrics.labelled("mirror_copies_dropped_total", &labels)
    }
}

fn experiment(target: usize) -> String {
    format!("e{target}")
}

/// An experiment for each target. There is a second agent, so that a rate for all of them is halved.
fn configuration(addresses: &[SocketAddr]) -> String {
    let each = addresses.iter().zip(TARGETS).enumerate().map(|(number, (address, keys))| {
        format!(
            "  - name: {}\n    expires: never\n    ports: [{PORT}]\n    targets: [{{ name: t, url: 'http://{address}', {keys} }}]\n",
            experiment(number)
        )
    });
    format!("agents: 2\ncapture: {{ interfaces: [eth0] }}\nexperiments:\n{}", each.collect::<String>())
}
