//! Enters: requests of many kinds, and experiments that take some of them. Leaves: at each shadow those that it should
//! have, whichever IP carries them.

use std::{
    collections::BTreeSet,
    fs,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use mirror_tests::{
    agent::{Agent, Arguments},
    client::RawClient,
    metrics::Ledger,
    netns::{Host, Topology},
    require_agent,
    scenario::{PATIENCE, Turn, Weight, originals},
    server::{Record, Server},
};
use tempfile::TempDir;

const PORT: u16 = 8080;

/// The first of the shadows' ports.
const SHADOWS: u16 = 9000;

/// Users whose requests are sampled.
const USERS: usize = 200;

/// Keys of an experiment, and the requests that it takes of [`REQUESTS`].
const MATCHES: [(&str, &[usize]); 12] = [
    ("matches: [{ path: { type: Exact, value: /a/b } }]", &[0, 4]),
    ("matches: [{ path: { type: PathPrefix, value: /a } }]", &[0, 1, 4, 5]),
    ("matches: [{ path: { type: RegularExpression, value: '/a./[0-9]+' } }]", &[3]),
    ("matches: [{ methods: [OPTIONS] }]", &[2]),
    ("matches: [{ headers: [{ name: X-Beta, value: '1' }] }]", &[1]),
    ("matches: [{ headers: [{ name: x-beta, type: RegularExpression, value: '[0-9,]+' }] }]", &[1, 2]),
    ("matches: [{ headers: [{ name: x-beta, type: Present }] }]", &[1, 2, 3]),
    ("matches: [{ queryParams: [{ name: q, value: '1' }] }]", &[4]),
    ("matches: [{ hostnames: ['*.example.com'] }]", &[0, 1, 5]),
    ("matches: [{ hostnames: [example.com], path: { value: /ab } }, { methods: [OPTIONS] }]", &[2, 3]),
    ("excludes: [{ path: { value: /a } }, { headers: [{ name: x-beta, value: x }] }]", &[2]),
    ("addresses: [198.18.255.0/24, '2001:db8:ffff::/48']", &[]),
];

const REQUESTS: [&str; 6] = [
    "GET /a/b HTTP/1.1\r\nHost: x.example.com:8080",
    "GET /a HTTP/1.1\r\nHost: X.Y.Example.com\r\nx-beta: 1",
    "OPTIONS * HTTP/1.1\r\nHost: other\r\nx-beta: 1\r\nX-Beta: 2",
    "GET /ab/77 HTTP/1.1\r\nHost: example.com\r\nx-beta: x",
    "GET /a/b?q=1&q=2 HTTP/1.1\r\nHost: [2001:db8::1]:80",
    "GET http://z.example.com/a/c?q=2 HTTP/1.1\r\nHost: other",
];

#[test]
fn each_experiment_gets_what_it_matches_over_v4_and_v6() -> Result<()> {
    require_agent!();
    let scene = Scene::set(MATCHES.map(|(keys, _)| keys.to_owned()).as_slice())?;
    for target in [scene.net.live.at_v4(PORT), scene.net.live.at_v6(PORT)] {
        let mut client = RawClient::connect(&scene.net.client, target)?;
        for request in REQUESTS {
            client.ask(format!("{request}\r\n\r\n").as_bytes())?;
        }
    }
    let expected: Vec<_> = MATCHES.iter().map(|(_, requests)| requests.len() as u64 * 2).collect();
    scene.settle(&expected)?;
    for ((keys, requests), shadow) in MATCHES.into_iter().zip(&scene.shadows) {
        let mut wanted: Vec<_> =
            requests.iter().flat_map(|request| vec![format!("{}\r\n\r\n", REQUESTS[*request]); 2]).collect();
        let mut copies = texts(shadow)?;
        wanted.sort();
        copies.sort();
        ensure!(copies == wanted, "{keys}: {copies:#?}");
    }
    Ok(())
}

#[test]
fn a_user_is_in_the_sample_or_out_of_it_over_v4_and_v6() -> Result<()> {
    require_agent!();
    let keys = ["header:x-user", "cookie:uid", "query:uid", "jwt:sub"];
    let keys = keys.map(|by| format!("sample: {{ percent: 30, by: '{by}' }}"));
    let scene = Scene::set(&keys)?;
    for target in [scene.net.live.at_v4(PORT), scene.net.live.at_v6(PORT)] {
        let mut client = RawClient::connect(&scene.net.client, target)?;
        for user in 0..USERS {
            client.ask(request_of(user).as_bytes())?;
        }
        // Without any key, and with empty ones.
        client.ask(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")?;
        client
            .ask(b"GET /?uid= HTTP/1.1\r\nx-user:\r\ncookie: uid\r\nauthorization: Bearer a.b.c\r\n\r\n")?;
    }
    let ledger = scene.settle_all(404)?;
    ensure!(ledger.skipped_for("no_key") == 4, "{ledger}");
    for (shadow, by) in scene.shadows.iter().zip(keys) {
        let mut copies = texts(shadow)?;
        copies.sort();
        let members: BTreeSet<_> = copies.iter().cloned().collect();
        let twice: Vec<_> = members.iter().flat_map(|copy| [copy.clone(), copy.clone()]).collect();
        ensure!(copies == twice, "{by}: some user was in over one IP only");
        // Six standard deviations: sqrt(200 * 0.3 * 0.7) is 6.5.
        ensure!((21..=99).contains(&members.len()), "{by}: {} of {USERS} users", members.len());
    }
    Ok(())
}

#[test]
fn requests_without_a_key_are_drawn_where_that_is_said() -> Result<()> {
    require_agent!();
    let keys =
        ["percent: 100, by: 'header:x', missing: request", "percent: 0, by: 'cookie:x', missing: request"];
    let scene = Scene::set(&keys.map(|keys| format!("sample: {{ {keys} }}")))?;
    let mut client = RawClient::connect(&scene.net.client, scene.net.live.at_v6(PORT))?;
    for user in 0..10 {
        client.ask(request_of(user).as_bytes())?;
    }
    scene.settle(&[10, 0])
}

#[test]
fn a_client_or_a_connection_is_in_as_a_whole() -> Result<()> {
    require_agent!();
    let keys = ["client", "connection", "connection"];
    let scene = Scene::set(&keys.map(|by| format!("sample: {{ percent: 50, by: {by} }}")))?;
    let connections = 60;
    for target in [scene.net.live.at_v4(PORT), scene.net.live.at_v6(PORT)] {
        for number in 0..connections {
            let mut client = RawClient::connect(&scene.net.client, target)?;
            for part in ["first", "second"] {
                client.ask(format!("GET /{number}/{part} HTTP/1.1\r\nHost: {target}\r\n\r\n").as_bytes())?;
            }
        }
    }
    let seen = connections * 4;
    scene.settle_all(seen)?;
    let copies = scene.shadows.iter().map(texts).collect::<Result<Vec<_>>>()?;
    // There are two clients: an address of each IP.
    ensure!(copies[0].len().is_multiple_of(120), "{} requests by client", copies[0].len());
    for copies in &copies[1..] {
        let halves = |part: &str| {
            let of_part = copies.iter().filter(|copy| copy.contains(part));
            of_part.map(|copy| copy.replace(part, "")).collect::<BTreeSet<_>>()
        };
        let members = halves("/first");
        ensure!(members == halves("/second"), "a connection was taken in part");
        // Six standard deviations: sqrt(120 / 4) is 5.5.
        ensure!((27..=93).contains(&members.len()), "{} of 120 connections", members.len());
    }
    ensure!(copies[1] != copies[2], "two experiments take the same");
    Ok(())
}

/// A request that names its user in every way there is.
fn request_of(user: usize) -> String {
    // In base64url each claim is of four digits, so that nothing is left over: {"a":1,"sub":"0000"} and a space.
    let payload = base64url(format!("{{\"a\":1,\"sub\":\"{user:04}\"}} ").as_bytes());
    format!(
        "GET /p?x&uid={user} HTTP/1.1\r\nHost: a\r\nX-User: {user}\r\nCookie: a=b; uid=\"{user}\"\r\nAuthorization: Bearer e30.{payload}.c2ln\r\n\r\n"
    )
}

/// RFC 4648 section 5, for whole groups.
fn base64url(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let groups =
        bytes.chunks_exact(3).map(|group| group.iter().fold(0, |all, byte| all << 8 | usize::from(*byte)));
    groups.flat_map(|group| [18, 12, 6, 0].map(|shift| char::from(DIGITS[group >> shift & 63]))).collect()
}

/// A live service, an agent with some experiments, and a shadow for each.
struct Scene {
    agent: Agent,
    shadows: Vec<Server>,
    _live: Server,
    net: Topology,
    _folder: TempDir,
    _turn: Turn,
}

impl Scene {
    /// An experiment with each of these keys.
    fn set(keys: &[String]) -> Result<Self> {
        let turn = Turn::take(Weight::Light)?;
        let net = Topology::new()?;
        let live = Server::start(&net.live, PORT, Record::Count)?;
        let ports = (SHADOWS..).zip(keys);
        let shadows = ports.clone().map(|(port, _)| Server::start(&net.shadow, port, Record::Raw));
        let shadows = shadows.collect::<Result<_>>()?;
        let experiments: String = ports.map(|(port, keys)| experiment(&net.shadow, port, keys)).collect();
        let (folder, path) =
            file(&format!("capture: {{ interfaces: [eth0] }}\nexperiments:\n{experiments}"))?;
        let agent = Agent::start(&net.live, &Arguments::from_file(&path))?;
        Ok(Self { agent, shadows, _live: live, net, _folder: folder, _turn: turn })
    }

    /// Waits until each shadow has so many.
    fn settle(&self, expected: &[u64]) -> Result<()> {
        let counts = || self.shadows.iter().map(Server::requests).collect::<Vec<_>>();
        let waited = self.agent.wait_for(PATIENCE, |books| books.pending == 0 && counts() == expected);
        ensure!(waited.is_ok(), "expected {expected:?}, there are {:?}", counts());
        Ok(())
    }

    /// Waits until so many requests were seen, and each shadow has counted the copies that the agent says it has.
    fn settle_all(&self, seen: u64) -> Result<Ledger> {
        let ledger = self.agent.wait_for(PATIENCE, |books| books.seen == seen && books.pending == 0)?;
        let deadline = Instant::now() + PATIENCE;
        for (port, shadow) in (SHADOWS..).zip(&self.shadows) {
            loop {
                let metrics = self.agent.metrics()?;
                let name = format!("e{port}");
                let count = |metric| metrics.labelled(metric, &[("experiment", name.as_str())]);
                let told = shadow.requests() as f64;
                if count("mirror_copies_pending") == 0.0 && count("mirror_copies_mirrored_total") == told {
                    let (copies, skipped) =
                        (count("mirror_copies_total"), count("mirror_copies_skipped_total"));
                    ensure!(copies == seen as f64 && copies == skipped + told, "{copies} {skipped} {told}");
                    break;
                }
                ensure!(Instant::now() < deadline, "{name} has {told} of its copies");
                thread::sleep(Duration::from_millis(10));
            }
        }
        Ok(ledger)
    }
}

fn experiment(shadow: &Host, port: u16, keys: &str) -> String {
    format!(
        "  - name: e{port}\n    expires: never\n    ports: [{PORT}]\n    {keys}\n    targets: [{{ name: t, url: '{}' }}]\n",
        format_args!(
            "http://{}",
            if port.is_multiple_of(2) { shadow.at_v4(port) } else { shadow.at_v6(port) }
        )
    )
}

fn texts(shadow: &Server) -> Result<Vec<String>> {
    let copies = originals(&shadow.arrived())?;
    Ok(copies.iter().map(|copy| String::from_utf8_lossy(copy).into_owned()).collect())
}

fn file(text: &str) -> Result<(TempDir, PathBuf)> {
    let folder = tempfile::Builder::new().prefix("mirror-matching-").tempdir()?;
    let path = folder.path().join("config.yaml");
    fs::write(&path, text)?;
    Ok((folder, path))
}
