//! Enters: shadows behind TLS, shadows that must prove to be one, and shadows that are the live service in disguise.
//! Leaves: copies at the right ones alone.

use std::{
    cell::Cell,
    fs,
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use mirror_tests::{
    agent::{Agent, Arguments},
    client::RawClient,
    netns::{FilterRule, FilterTool, Host, Topology},
    relay::relay,
    require_agent,
    scenario::{PATIENCE, PORT, Stage, Weight, p99},
    server::{Record, Server},
};
use tempfile::TempDir;

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: live\r\n\r\n";
const POST: &[u8] = b"POST /write HTTP/1.1\r\nHost: live\r\nContent-Length: 2\r\n\r\nhi";

/// Another port than the live service's, at the shadow's host.
const OTHER_PORT: u16 = 9443;

#[test]
fn copies_reach_a_shadow_that_speaks_tls_if_its_certificate_is_right() -> Result<()> {
    require_agent!();
    if Command::new("openssl").arg("version").output().is_err() {
        println!("SKIPPED: openssl is missing");
        return Ok(());
    }
    let stage = Stage::set(Weight::Light, Record::Count)?;
    let shadow = &stage.net.shadow;
    let certificate =
        Certificate::make(&[shadow.at_v4(0).ip().to_string(), shadow.at_v6(0).ip().to_string()])?;
    let stranger = Certificate::make(&[shadow.at_v4(0).ip().to_string()])?;
    let _server = certificate.serve(shadow)?;
    for address in [shadow.at_v4(OTHER_PORT), shadow.at_v6(OTHER_PORT)] {
        let arguments = Arguments::to_url(PORT, &format!("https://{address}"));
        let trusting = arguments.clone().with(&["--shadow-ca", &certificate.path("cert.pem")]);
        let agent = Agent::start(&stage.net.live, &trusting)?;
        let mut client = RawClient::connect(&stage.net.client, stage.net.live.at_v4(PORT))?;
        for _ in 0..10 {
            client.ask(GET)?;
        }
        let books = agent.wait_for(PATIENCE, |books| books.mirrored == 10)?;
        ensure!(books.seen == 10, "{books}");
        until(|| Ok(agent.metrics()?.value("mirror_replays_total", "outcome", "answered") == 10.0))?;
        agent.stop()?;

        let wary = arguments.clone().with(&["--shadow-ca", &stranger.path("cert.pem")]);
        let agent = Agent::start(&stage.net.live, &wary)?;
        client.ask(GET)?;
        let books = agent.wait_for(PATIENCE, |books| books.seen == 1 && books.pending == 0)?;
        ensure!(books.mirrored == 0 && books.all_dropped() == 1, "{books}");
        ensure!(agent.stop()?.stderr.contains("certificates do not fit"));

        let careless = arguments.with(&["--shadow-insecure-skip-verify"]);
        let agent = Agent::start(&stage.net.live, &careless)?;
        client.ask(GET)?;
        agent.wait_for(PATIENCE, |books| books.mirrored == 1)?;
        ensure!(agent.stop()?.stderr.contains("certificate is not checked"));
    }
    Ok(())
}

#[test]
fn writes_are_copied_only_while_the_shadow_proves_to_be_one() -> Result<()> {
    require_agent!();
    let stage = Stage::set(Weight::Light, Record::Count)?;
    let shadow = ProvingShadow::start(&stage.net.shadow)?;
    let arguments =
        Arguments::to_url(PORT, &format!("http://{}", stage.net.shadow.at_v4(OTHER_PORT))).with(&[
            "--methods",
            "all",
            "--interlock",
            "x-shadow-mode=on",
            "--interlock-path",
            "/mode",
            "--interlock-every",
            "400ms",
        ]);
    let agent = Agent::start(&stage.net.live, &arguments)?;
    let gate = |open: f64| until(|| Ok(agent.metrics()?.sum("mirror_interlock_open") == open));
    let mut client = RawClient::connect(&stage.net.client, stage.net.live.at_v4(PORT))?;
    gate(1.0)?;
    client.ask(POST)?;
    agent.wait_for(PATIENCE, |books| books.mirrored == 1)?;
    shadow.proves.store(false, Ordering::SeqCst);
    gate(0.0)?;
    client.ask(POST)?;
    client.ask(GET)?;
    let books = agent.wait_for(PATIENCE, |books| books.seen == 3 && books.pending == 0)?;
    ensure!(books.mirrored == 2 && books.skipped_for("interlock") == 1, "{books}");
    shadow.proves.store(true, Ordering::SeqCst);
    gate(1.0)?;
    client.ask(POST)?;
    let books = agent.wait_for(PATIENCE, |books| books.mirrored == 3)?;
    ensure!(books.skipped_for("interlock") == 1, "{books}");
    until(|| Ok(shadow.writes.load(Ordering::SeqCst) == 2))
}

#[test]
fn shadow_that_is_a_proxy_to_the_live_service_is_refused() -> Result<()> {
    require_agent!();
    let stage = Stage::set(Weight::Light, Record::Count)?;
    let way = relay(&stage.net.shadow, stage.net.live.at_v4(PORT))?;
    let arguments = Arguments::to_url(PORT, &format!("http://{way}"));
    let ended = Agent::refuse(&stage.net.live, &arguments)?;
    ensure!(!ended.status.success() && ended.stderr.contains("leads back to the live service"), "{ended:?}");
    ensure!(stage.net.live.attached_programs()? == 0, "nothing is left behind");
    // The same way to somebody else is no matter.
    let other = Stage::set(Weight::Light, Record::Count)?;
    let way = relay(&other.net.other, other.net.shadow.at_v4(PORT))?;
    let arguments = Arguments::to_url(PORT, &format!("http://{way}"));
    let agent = Agent::start(&other.net.live, &arguments)?;
    RawClient::connect(&other.net.client, other.net.live.at_v4(PORT))?.ask(GET)?;
    agent.wait_for(PATIENCE, |books| books.mirrored == 1)?;
    Ok(())
}

#[test]
fn service_address_with_the_live_service_behind_it_is_refused() -> Result<()> {
    require_agent!();
    let stage = Stage::set(Weight::Light, Record::Count)?;
    let service = stage.net.shadow.at_v4(OTHER_PORT);
    let _to_live = lead_to_live(&stage.net, service)?;
    let ended = Agent::refuse(&stage.net.live, &Arguments::to_url(PORT, &format!("http://{service}")))?;
    ensure!(!ended.status.success() && ended.stderr.contains("leads back to the live service"), "{ended:?}");
    Ok(())
}

#[test]
fn service_address_that_comes_to_lead_to_the_live_service_is_refused_from_then_on() -> Result<()> {
    require_agent!();
    let stage = Stage::set(Weight::Light, Record::Count)?;
    let shadow = Server::start(&stage.net.shadow, OTHER_PORT, Record::Count)?;
    let service = stage.net.shadow.at_v4(OTHER_PORT);
    let agent = Agent::start(&stage.net.live, &Arguments::to_url(PORT, &format!("http://{service}")))?;
    let mut client = RawClient::connect(&stage.net.client, stage.net.live.at_v4(PORT))?;
    let mut ask = |times: u64| (0..times).try_for_each(|_| client.ask(GET).map(drop));
    ask(5)?;
    agent.wait_for(PATIENCE, |books| books.mirrored == 5)?;

    let _to_live = lead_to_live(&stage.net, service)?;
    let led = Instant::now();
    // It is asked every half a minute.
    while agent.metrics()?.sum("mirror_target_addresses_refused") != 1.0 {
        ensure!(led.elapsed() < Duration::from_secs(40), "copies still go there");
        thread::sleep(Duration::from_millis(100));
    }
    println!("refused after {:?}", led.elapsed());
    ask(5)?;
    let books = agent.wait_for(PATIENCE, |books| books.seen == 11 && books.pending == 0)?;
    ensure!(books.mirrored == 5 && books.all_dropped() == 5, "{books}");
    ensure!(books.skipped_for("marked") == 1, "the probe: {books}");
    ensure!(shadow.requests() == 5 && stage.live.requests() == 10, "a copy came to live");
    Ok(())
}

#[test]
fn shadow_that_changes_its_address_is_followed_unless_it_leads_to_live() -> Result<()> {
    require_agent!();
    let Stage { net, live, shadow, turn: _turn } = Stage::set(Weight::Heavy, Record::Count)?;
    let asked = Cell::new(0);
    let without = [load(&net, &asked)?, load(&net, &asked)?, load(&net, &asked)?];
    let before = live.requests();
    asked.set(0);
    let names = Names::of(&net.live, "shadow.test", net.shadow.at_v4(0).ip())?;
    let moved = Server::start(&net.other, PORT, Record::Count)?;
    let agent = Agent::start(&net.live, &Arguments::to_url(PORT, &format!("http://shadow.test:{PORT}")))?;
    let mut client = RawClient::connect(&net.client, net.live.at_v4(PORT))?;
    let mut ask = |is_over: &dyn Fn() -> Result<bool>| -> Result<()> {
        // Longer than until the name is looked up again though all is well, which is half a minute.
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            client.ask(GET)?;
            asked.set(asked.get() + 1);
            if is_over()? {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "not over in time: {}", agent.ledger()?);
            thread::sleep(Duration::from_millis(100));
        }
    };
    ask(&|| Ok(shadow.requests() > 0))?;

    names.point_to(net.other.at_v4(0).ip())?;
    let at_first = shadow.requests();
    drop(shadow);
    let gone = Instant::now();
    // The first of these while it is nowhere to be found.
    let with = [load(&net, &asked)?, load(&net, &asked)?, load(&net, &asked)?];
    ask(&|| Ok(moved.requests() > 5))?;
    println!("found where it is now after {:?}", gone.elapsed());
    ensure!(gone.elapsed() < Duration::from_secs(20), "a shadow that cannot be reached is not looked for");

    names.point_to(net.live.at_v4(0).ip())?;
    ask(&|| Ok(agent.printed("stderr").contains("captured live endpoints; not used")))?;
    let held = agent.metrics()?.value("mirror_memory_bytes", "pool", "replay");
    ensure!(held < 8.0 * 1024.0 * 1024.0, "{held} bytes are held");
    let books = agent.wait_for(PATIENCE, |books| books.seen == asked.get() && books.pending == 0)?;
    println!("{books}");
    ensure!(books.mirrored >= at_first + moved.requests(), "{books}");
    ensure!(books.mirrored + books.all_dropped() == asked.get(), "{books}");
    ensure!(live.requests() - before == asked.get(), "a copy came to live");
    println!("live's p99: {without:?} without, {with:?} with the mirror");
    let [without, with] = [without, with].map(|mut runs| {
        runs.sort_unstable();
        runs[1]
    });
    // As for the other shadows that do their worst: a live request that waited for the shadow would wait for its timeout.
    ensure!(with < without * 2 + Duration::from_millis(5), "{with:?} with the mirror, {without:?} without");
    Ok(())
}

#[test]
fn a_target_that_is_not_there_yet_keeps_no_other_from_its_copies() -> Result<()> {
    require_agent!();
    let Stage { net, live: _live, shadow, turn: _turn } = Stage::set(Weight::Light, Record::Count)?;
    let late = Server::start(&net.other, PORT, Record::Count)?;
    let names = Names::of(&net.live, "late.test", net.other.at_v4(0).ip())?;
    names.forget()?;
    let folder = TempDir::new()?;
    let path = folder.path().join("experiments.yaml");
    let file = |others: &str| {
        format!(
            "capture: {{ interfaces: [eth0] }}
experiments:
  - name: both
    expires: never
    ports: [{PORT}]
    targets:
      - {{ name: late, url: 'http://late.test:{PORT}' }}
{others}"
        )
    };

    fs::write(&path, file(""))?;
    let ended = Agent::refuse(&net.live, &Arguments::from_file(&path))?;
    ensure!(!ended.status.success() && ended.stderr.contains("cannot resolve"), "{ended:?}");

    fs::write(
        &path,
        file(&format!("      - {{ name: there, url: 'http://{}' }}\n", net.shadow.at_v4(PORT))),
    )?;
    let agent = Agent::start(&net.live, &Arguments::from_file(&path))?;
    let mut client = RawClient::connect(&net.client, net.live.at_v4(PORT))?;
    let mut asked = 0;
    let mut ask = || -> Result<()> {
        asked += 1;
        client.ask(GET)?;
        thread::sleep(Duration::from_millis(20));
        Ok(())
    };
    until(|| {
        ask()?;
        Ok(shadow.requests() > 5)
    })?;
    ensure!(late.requests() == 0, "nobody knows where it is");
    names.point_to(net.other.at_v4(0).ip())?;
    until(|| {
        ask()?;
        Ok(late.requests() > 5)
    })?;
    agent.wait_for(PATIENCE, |books| books.seen == asked && books.pending == 0)?;
    let metrics = agent.metrics()?;
    let of = |name, target| metrics.value(name, "target", target);
    let [mirrored, dropped] = ["mirror_copies_mirrored_total", "mirror_copies_dropped_total"];
    ensure!(of(mirrored, "there") == asked as f64, "{asked} asked, {} there", of(mirrored, "there"));
    ensure!(of(mirrored, "late") == late.requests() as f64, "{} late", of(mirrored, "late"));
    ensure!(of(mirrored, "late") + of(dropped, "late") == asked as f64, "{} dropped", of(dropped, "late"));
    ensure!(agent.printed("stderr").contains("The shadow was found"), "{}", agent.printed("stderr"));
    Ok(())
}

/// The 99th percentile of live's answers; what it takes to know that is added to `asked`.
fn load(net: &Topology, asked: &Cell<u64>) -> Result<Duration> {
    let (p99, requests) = p99(net)?;
    asked.set(asked.get() + requests);
    Ok(p99)
}

/// What the programs of a host take a name for.
struct Names {
    folder: PathBuf,
    name: &'static str,
}

impl Names {
    /// `ip netns exec` puts the files of this folder in the place of those of `/etc`.
    fn of(host: &Host, name: &'static str, address: IpAddr) -> Result<Self> {
        let names = Self { folder: Path::new("/etc/netns").join(host.name()), name };
        fs::create_dir_all(&names.folder)?;
        names.point_to(address)?;
        Ok(names)
    }

    fn point_to(&self, address: IpAddr) -> Result<()> {
        self.say(&format!("{address} {}\n", self.name))
    }

    fn forget(&self) -> Result<()> {
        self.say("")
    }

    /// The file stays the same one: it is mounted.
    fn say(&self, line: &str) -> Result<()> {
        Ok(fs::write(self.folder.join("hosts"), format!("127.0.0.1 localhost\n{line}"))?)
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        // Only this one: other tests may have theirs beside it.
        drop(fs::remove_dir_all(&self.folder));
    }
}

/// From now on new connections to `service`, an address of the shadow's host, come to the live service instead, from that
/// host's own address.
fn lead_to_live(net: &Topology, service: SocketAddr) -> Result<[FilterRule; 2]> {
    let live = net.live.at_v4(PORT);
    let router = &net.shadow;
    router.within(|| Ok(fs::write("/proc/sys/net/ipv4/ip_forward", "1")?))?;
    let there =
        format!("-p tcp -d {} --dport {} -j DNAT --to-destination {live}", service.ip(), service.port());
    let back = format!("-p tcp -d {} --dport {PORT} -j MASQUERADE", live.ip());
    Ok([
        router.filter(FilterTool::V4, "nat", "PREROUTING", &there)?,
        router.filter(FilterTool::V4, "nat", "POSTROUTING", &back)?,
    ])
}

#[test]
fn the_agent_is_no_shadow() -> Result<()> {
    require_agent!();
    let stage = Stage::set(Weight::Light, Record::Count)?;
    let arguments = Arguments::to_url(PORT, "http://127.0.0.1:9477");
    let ended = Agent::refuse(&stage.net.live, &arguments)?;
    ensure!(!ended.status.success() && ended.stderr.contains("is this agent"), "{ended:?}");
    Ok(())
}

fn until(mut is_done: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !is_done()? {
        ensure!(Instant::now() < deadline, "not in time");
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// A certificate that signs itself, with its key, in files.
struct Certificate(TempDir);

impl Certificate {
    fn make(addresses: &[String]) -> Result<Self> {
        let directory = TempDir::new()?;
        let names: Vec<_> = addresses.iter().map(|address| format!("IP:{address}")).collect();
        let made = Command::new("openssl")
            .args(
                "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=shadow -days 2"
                    .split(' '),
            )
            .args(["-addext", &format!("subjectAltName={}", names.join(","))])
            .args(["-addext", "basicConstraints=critical,CA:FALSE"])
            .args(["-keyout", "key.pem", "-out", "cert.pem"])
            .current_dir(directory.path())
            .output()
            .context("run openssl")?;
        ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        Ok(Self(directory))
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    /// A server that answers every GET over TLS.
    fn serve(&self, host: &Host) -> Result<Serving> {
        let port = OTHER_PORT.to_string();
        let child = host
            .command(&program("openssl"))
            .args(["s_server", "-quiet", "-www", "-accept", &port])
            .args(["-cert", &self.path("cert.pem"), "-key", &self.path("key.pem")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let serving = Serving(child);
        let addr = SocketAddr::from(([127, 0, 0, 1], OTHER_PORT));
        until(|| host.within(|| Ok(TcpStream::connect(addr).is_ok())))?;
        Ok(serving)
    }
}

fn program(name: &str) -> PathBuf {
    Path::new(name).to_owned()
}

/// Ended when dropped.
struct Serving(Child);

impl Drop for Serving {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A shadow that says whether it is one, and counts what is written to it.
struct ProvingShadow {
    proves: Arc<AtomicBool>,
    writes: Arc<AtomicU64>,
}

impl ProvingShadow {
    fn start(host: &Host) -> Result<Self> {
        let shadow = Self { proves: Arc::new(AtomicBool::new(true)), writes: Arc::default() };
        let (proves, writes) = (Arc::clone(&shadow.proves), Arc::clone(&shadow.writes));
        let listener = host.within(|| Ok(TcpListener::bind(("0.0.0.0", OTHER_PORT))?))?;
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (proves, writes) = (Arc::clone(&proves), Arc::clone(&writes));
                thread::spawn(move || serve(stream, &proves, &writes));
            }
        });
        Ok(shadow)
    }
}

/// Answers request after request; all of them fit into one read.
fn serve(mut stream: TcpStream, proves: &AtomicBool, writes: &AtomicU64) {
    let mut input = [0; 4096];
    while let Ok(len @ 1..) = stream.read(&mut input) {
        let request = &input[..len];
        writes.fetch_add(u64::from(request.starts_with(b"POST ")), Ordering::SeqCst);
        let proof = if request.starts_with(b"GET /mode ") && proves.load(Ordering::SeqCst) {
            "x-shadow-mode: on\r\n"
        } else {
            ""
        };
        let answer = format!("HTTP/1.1 200 OK\r\n{proof}content-length: 0\r\n\r\n");
        if stream.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}
