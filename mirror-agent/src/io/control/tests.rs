//! Enters: requests at both listeners. Leaves: what a fake agent was told, and what the callers got.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    path::PathBuf,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::{
    Change, ControlError, Counted, ExperimentState, Listeners, Setting, State, Steering, channel,
    ctl::{self, CtlArgs, CtlCommand, CtlError, PlaceArgs},
};
use crate::io::{
    audit::{Audit, Event},
    config::{AuditConfig, ControlConfig, Expiry},
    telling::Telling,
};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// An agent with one experiment, which notes what it is told.
#[derive(Default)]
struct Fake {
    paused: bool,
    percent: f64,
    told: Arc<Mutex<Vec<String>>>,
}

impl Fake {
    fn know(experiment: &str) -> Result<(), ControlError> {
        if experiment == "orders v2" { Ok(()) } else { Err(ControlError::unknown(experiment, ["orders v2"])) }
    }

    fn change(experiment: Option<&str>, before: Setting, after: Setting) -> Vec<Change> {
        let experiment = experiment.map(str::to_owned);
        vec![Change { experiment, owner: Some("team-orders".to_owned()), before, after }]
    }

    fn tell(&self, what: String) {
        self.told.lock().unwrap().push(what);
    }

    fn set_paused(&mut self, experiment: Option<&str>, paused: bool) -> Result<Vec<Change>, ControlError> {
        experiment.map_or(Ok(()), Self::know)?;
        self.tell(format!("paused {experiment:?} {paused}"));
        if self.paused == paused {
            return Ok(Vec::new());
        }
        let before = Setting::Paused(std::mem::replace(&mut self.paused, paused));
        Ok(Self::change(experiment, before, Setting::Paused(paused)))
    }
}

impl Steering for Fake {
    fn state(&mut self) -> State {
        let experiment = ExperimentState {
            name: "orders v2".to_owned(),
            owner: None,
            expires: Expiry::Never,
            expired: false,
            percent: self.percent,
            paused: self.paused,
            changed: Vec::new(),
            targets: Vec::new(),
            comparisons: Counted::new(),
            incomparable: Counted::new(),
            verdict: None,
        };
        State { version: "1.2.3".to_owned(), experiments: vec![experiment], ..State::default() }
    }

    async fn pause(&mut self, experiment: Option<&str>) -> Result<Vec<Change>, ControlError> {
        self.set_paused(experiment, true)
    }

    async fn resume(&mut self, experiment: Option<&str>) -> Result<Vec<Change>, ControlError> {
        self.set_paused(experiment, false)
    }

    async fn set_percent(&mut self, experiment: &str, percent: f64) -> Result<Vec<Change>, ControlError> {
        Self::know(experiment)?;
        if percent == 13.0 {
            return Err(ControlError::Failed("the kernel refuses".into()));
        }
        self.tell(format!("percent {percent}"));
        let before = Setting::Percent(std::mem::replace(&mut self.percent, percent));
        Ok(Self::change(Some(experiment), before, Setting::Percent(percent)))
    }

    async fn set_expiry(&mut self, experiment: &str, expires: Expiry) -> Result<Vec<Change>, ControlError> {
        Self::know(experiment)?;
        self.tell("expiry".to_owned());
        Ok(Self::change(Some(experiment), Setting::Expires(Expiry::Never), Setting::Expires(expires)))
    }
}

/// A fake agent that listens at both places, until it is dropped.
struct Agent {
    folder: tempfile::TempDir,
    tcp: SocketAddr,
    told: Arc<Mutex<Vec<String>>>,
    audit: Audit,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Agent {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let token_file = folder.path().join("token");
        std::fs::write(&token_file, TOKEN).unwrap();
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&token_file, private).unwrap();
        let config = ControlConfig {
            socket: Some(folder.path().join("control.sock")),
            listen: Some("127.0.0.1:0".parse().unwrap()),
            token_file: Some(token_file),
            fleet: None,
        };
        let audit_config =
            AuditConfig { file: Some(folder.path().join("audit.log")), ..AuditConfig::default() };
        let told = Arc::default();
        let mut fake = Fake { told: Arc::clone(&told), ..Fake::default() };
        let (tcp_tx, tcp_rx) = std::sync::mpsc::channel();
        let (stop, mut stopped) = oneshot::channel();
        let thread = thread::spawn(move || {
            runtime().block_on(async {
                let (audit, writer) = Audit::open(&audit_config).unwrap();
                let (control, mut order_rx) = channel(Telling::new().0, Audit::default());
                let listeners = Listeners::start(&config, &control).await.unwrap();
                tcp_tx.send((listeners.tcp.unwrap(), audit.clone())).unwrap();
                loop {
                    tokio::select! {
                        Some(order) = order_rx.recv() => order.obey(&mut fake, &audit).await,
                        _ = &mut stopped => break,
                    }
                }
                listeners.stop().await;
                writer.close();
            });
        });
        let (tcp, audit) = tcp_rx.recv().unwrap();
        Self { folder, tcp, told, audit, stop: Some(stop), thread: Some(thread) }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("control.sock")
    }

    fn ctl(&self, command: CtlCommand, json: bool) -> Result<String, CtlError> {
        let mut out = Vec::new();
        ctl::run(&CtlArgs { place: PlaceArgs::at(self.socket()), json, command }, &mut out)?;
        Ok(String::from_utf8_lossy(&out).into_owned())
    }

    /// Sends a request over TCP; `lines` are header lines, each with its end.
    fn tcp(&self, request_line: &str, lines: &str, body: &str) -> (u16, String) {
        let length = body.len();
        let head = format!(
            "{request_line} HTTP/1.1\r\nConnection: close\r\nContent-Length: {length}\r\n{lines}\r\n"
        );
        exchange(TcpStream::connect(self.tcp).unwrap(), &[head.as_bytes(), body.as_bytes()].concat())
    }

    fn unix(&self, request_line: &str, body: &str) -> (u16, Value) {
        let length = body.len();
        let head = format!(
            "{request_line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
        );
        let stream = UnixStream::connect(self.socket()).unwrap();
        let (status, answer) = exchange(stream, &[head.as_bytes(), body.as_bytes()].concat());
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        (status, serde_json::from_str(body).unwrap())
    }

    fn told(&self) -> Vec<String> {
        self.told.lock().unwrap().clone()
    }

    /// Ends the agent and returns its audit records.
    fn records(mut self) -> Vec<Value> {
        self.end();
        let text = std::fs::read_to_string(self.folder.path().join("audit.log")).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn end(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _gone = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.end();
    }
}

/// Status, and all that was sent back.
fn exchange(mut stream: impl Read + Write, request: &[u8]) -> (u16, String) {
    // A server that refuses need not read to the end.
    let _sent = stream.write_all(request);
    let mut answer = Vec::new();
    let _read = stream.read_to_end(&mut answer);
    let answer = String::from_utf8(answer).unwrap();
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default();
    (status, answer)
}

fn bearer() -> String {
    format!("Host: localhost\r\nAuthorization: Bearer {TOKEN}\r\n")
}

#[test]
fn each_operation_reaches_the_agent_and_the_audit_log() {
    let agent = Agent::start();
    let name = || "orders v2".to_owned();
    let page = agent.ctl(CtlCommand::State, false).unwrap();
    assert!(page.contains("mirror-agent 1.2.3") && page.contains("orders v2"), "{page}");
    let state: State = serde_json::from_str(&agent.ctl(CtlCommand::State, true).unwrap()).unwrap();
    assert_eq!(state.version, "1.2.3");
    let said = agent.ctl(CtlCommand::Pause { experiment: None }, false).unwrap();
    assert_eq!(said, "all experiments: running -> paused\n");
    assert_eq!(agent.ctl(CtlCommand::Pause { experiment: None }, false).unwrap(), "it was so already\n");
    agent.ctl(CtlCommand::Resume { experiment: Some(name()) }, false).unwrap();
    let said = agent.ctl(CtlCommand::Percent { experiment: name(), percent: 2.5 }, false).unwrap();
    assert_eq!(said, "orders v2: 0 percent -> 2.5 percent\n");
    agent.ctl(CtlCommand::Extend { experiment: name(), time: "24h".to_owned() }, false).unwrap();
    assert_eq!(
        agent.told(),
        ["paused None true", "paused None true", "paused Some(\"orders v2\") false", "percent 2.5", "expiry"]
    );
    let records = agent.records();
    let events: Vec<_> = records.iter().map(|record| record["event"].as_str().unwrap()).collect();
    assert_eq!(events, ["pause", "resume", "percent", "expiry"]);
    let percent = &records[2];
    assert_eq!(percent["who"]["by"], "socket");
    assert_eq!(percent["who"]["uid"], json!(rustix::process::getuid().as_raw()));
    assert_eq!(percent["who"]["pid"], json!(std::process::id()));
    assert_eq!((&percent["experiment"], &percent["owner"]), (&json!("orders v2"), &json!("team-orders")));
    assert_eq!((&percent["before"], &percent["after"]), (&json!({"percent": 0.0}), &json!({"percent": 2.5})));
    assert!(percent["time"].as_str().unwrap().ends_with('Z'));
}

#[test]
fn refused_orders_say_why_and_change_nothing() {
    let agent = Agent::start();
    let experiment = || "orders".to_owned();
    let error = agent.ctl(CtlCommand::Percent { experiment: experiment(), percent: 5.0 }, false).unwrap_err();
    assert_eq!(error.to_string(), "there is no experiment `orders`; there are: orders v2");
    for (line, body, status) in [
        ("POST /v1/pause", "{", 400),
        ("POST /v1/pause", r#"{"experiment": 1}"#, 400),
        ("POST /v1/pause", r#"{"all": true}"#, 400),
        ("POST /v1/experiments/orders%20v2/percent", r#"{"percent": 101}"#, 400),
        ("POST /v1/experiments/orders%20v2/percent", r#"{"percent": -1}"#, 400),
        ("POST /v1/experiments/orders%20v2/percent", r#"{"percent": "5"}"#, 400),
        ("POST /v1/experiments/orders%20v2/percent", "", 400),
        ("POST /v1/experiments/orders%20v2/percent", r#"{"percent": 13}"#, 500),
        ("POST /v1/experiments/orders%20v2/expiry", r#"{"expires": "2001-01-01T00:00:00Z"}"#, 400),
        ("POST /v1/experiments/orders%20v2/expiry", r#"{"expires": "soon"}"#, 400),
        ("POST /v1/experiments/none/percent", r#"{"percent": 5}"#, 404),
        ("POST /v1/experiments/%zz/percent", r#"{"percent": 5}"#, 400),
        ("GET /v1/pause", "", 405),
        ("DELETE /v1/state", "", 405),
        ("POST /v1/session", "", 404),
        ("GET /", "", 404),
    ] {
        let (got, answer) = agent.unix(line, body);
        assert_eq!(got, status, "{line} {body}");
        assert!(answer["error"].as_str().is_some_and(|error| !error.is_empty()), "{line} {answer}");
    }
    assert_eq!(agent.told(), Vec::<String>::new());
    let audit = agent.audit.clone();
    let records = agent.records();
    assert_eq!(records.len(), 6);
    assert!(records.iter().all(|record| record["event"] == "refused" && record["error"].is_string()));
    assert_eq!(audit.records()[Event::Refused.index()], 6);
}

#[test]
fn tcp_wants_the_token_and_the_right_host_and_origin() {
    let agent = Agent::start();
    let good = bearer();
    for (lines, status) in [
        (good.clone(), 200),
        (format!("{good}Origin: http://localhost\r\n"), 200),
        (good.replace("Bearer 0", "Bearer 1"), 401),
        ("Host: localhost\r\n".to_owned(), 401),
        (good.replace("localhost", "evil.example"), 403),
        (format!("{good}Origin: http://evil.example\r\n"), 403),
        (good.replace("Host: localhost\r\n", ""), 403),
    ] {
        let (got, answer) = agent.tcp("GET /v1/state", &lines, "");
        assert_eq!(got, status, "{lines}\n{answer}");
        assert_eq!(answer.contains("1.2.3"), status == 200, "{answer}");
        assert!(!answer.contains(TOKEN), "{answer}");
    }
    // Nothing of it was an order.
    assert_eq!(agent.tcp("POST /v1/pause", "Host: localhost\r\n", "").0, 401);
    assert_eq!(agent.told(), Vec::<String>::new());
}

#[test]
fn token_is_exchanged_for_a_cookie() {
    let agent = Agent::start();
    assert_eq!(agent.tcp("POST /v1/session", "Host: localhost\r\n", "").0, 401);
    let (status, answer) = agent.tcp("POST /v1/session", &bearer(), "");
    assert_eq!(status, 200, "{answer}");
    let line = answer.lines().find_map(|line| line.strip_prefix("set-cookie: ")).unwrap();
    assert!(line.contains("HttpOnly") && line.contains("SameSite=Strict"), "{line}");
    let cookie = format!("Host: localhost\r\nCookie: {}\r\n", line.split(';').next().unwrap());
    assert_eq!(agent.tcp("POST /v1/pause", &cookie, "").0, 200);
    let elsewhere = format!("{cookie}Origin: http://evil.example\r\n");
    assert_eq!(agent.tcp("POST /v1/resume", &elsewhere, "").0, 403);
    assert_eq!(agent.tcp("POST /v1/session", &cookie, "").0, 401, "a cookie is not exchanged for another");
    assert_eq!(agent.tcp("DELETE /v1/session", &cookie, "").0, 200);
    assert_eq!(agent.tcp("POST /v1/resume", &cookie, "").0, 401);
    assert_eq!(agent.told(), ["paused None true"]);
    let records = agent.records();
    assert_eq!(records.len(), 1);
    assert_eq!(records[0]["who"]["by"], "cookie");
    assert!(records[0]["who"]["address"].as_str().unwrap().starts_with("127.0.0.1:"));
}

#[test]
fn body_beyond_the_limit_is_refused() {
    let agent = Agent::start();
    let body = "x".repeat(64 * 1024 + 1);
    assert_eq!(agent.unix("POST /v1/pause", &body).0, 413);
    let spaces = format!("{{{}}}", " ".repeat(60 * 1024));
    assert_eq!(agent.unix("POST /v1/pause", &spaces).0, 200);
    let (status, _) = agent.tcp("GET /v1/state", &format!("{}X: {}\r\n", bearer(), "x".repeat(100_000)), "");
    assert!((400..500).contains(&status) || status == 0, "{status}");
}

#[test]
fn slow_clients_are_cut_off_and_do_not_keep_others_out() {
    let agent = Agent::start();
    // As many as are served at once, each with half a head.
    let mut slow: Vec<_> = (0..40)
        .map(|_| {
            let mut stream = TcpStream::connect(agent.tcp).unwrap();
            stream.write_all(b"GET /v1/state HTTP/1.1\r\nHost: local").unwrap();
            stream
        })
        .collect();
    let mut slow_body = UnixStream::connect(agent.socket()).unwrap();
    slow_body.write_all(b"POST /v1/pause HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{").unwrap();
    // The other listener does not mind.
    let started = Instant::now();
    agent.ctl(CtlCommand::State, true).unwrap();
    // Nor does whoever comes behind them at the same one: those that were there first make way.
    assert_eq!(agent.tcp("GET /v1/state", &bearer(), "").0, 200);
    assert!(started.elapsed() < Duration::from_secs(2));
    let deadline = Duration::from_secs(15);
    for stream in &mut slow {
        stream.set_read_timeout(Some(deadline)).unwrap();
        let mut rest = Vec::new();
        let end = stream.read_to_end(&mut rest);
        assert!(end.is_ok() || end.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset));
    }
    assert!(started.elapsed() < 2 * deadline);
    let mut answer = String::new();
    slow_body.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert_eq!(agent.tcp("GET /v1/state", &bearer(), "").0, 200);
    assert_eq!(agent.told(), Vec::<String>::new());
}

#[test]
fn client_without_an_agent_says_where_it_looked() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("control.sock");
    let args = CtlArgs { place: PlaceArgs::at(socket.clone()), json: false, command: CtlCommand::State };
    let error = ctl::run(&args, &mut Vec::new()).unwrap_err().to_string();
    assert!(error.contains(&socket.display().to_string()), "{error}");
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn start(config: &ControlConfig) -> Result<Listeners, String> {
    let (control, _order_rx) = channel(Telling::new().0, Audit::default());
    runtime().block_on(Listeners::start(config, &control)).map_err(|error| format!("{error:#}"))
}

#[test]
fn listener_beyond_loopback_needs_a_token_file() {
    let folder = tempfile::tempdir().unwrap();
    let config = ControlConfig {
        socket: Some(folder.path().join("control.sock")),
        listen: Some("0.0.0.0:0".parse().unwrap()),
        token_file: None,
        fleet: None,
    };
    let error = start(&config).unwrap_err();
    assert!(error.contains("token file"), "{error}");
    let token_file = folder.path().join("token");
    std::fs::write(&token_file, "short").unwrap();
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&token_file, private).unwrap();
    let config = ControlConfig { token_file: Some(token_file), ..config };
    let error = start(&config).unwrap_err();
    assert!(error.contains("at least 32"), "{error}");
}

#[test]
fn token_of_a_run_lies_beside_the_socket() {
    let folder = tempfile::tempdir().unwrap();
    let config = ControlConfig {
        socket: Some(folder.path().join("control.sock")),
        listen: Some("[::1]:0".parse().unwrap()),
        token_file: None,
        fleet: None,
    };
    let listeners = start(&config).unwrap();
    let token = folder.path().join("control.token");
    assert_eq!(std::fs::read_to_string(&token).unwrap().trim().len(), 64);
    assert!(listeners.tcp.is_some_and(|address| address.port() != 0));
    drop(listeners);
    assert!(!token.exists());
}

#[test]
#[cfg(feature = "ui")]
fn page_is_given_to_whoever_asks_but_not_by_another_name() {
    let agent = Agent::start();
    let (status, answer) = agent.tcp("GET /", "Host: localhost\r\n", "");
    assert_eq!(status, 200, "{answer}");
    assert!(answer.contains("content-security-policy: default-src 'none'; script-src 'self'"), "{answer}");
    assert!(!answer.to_ascii_lowercase().contains("set-cookie"), "{answer}");
    assert_eq!(agent.tcp("HEAD /app.js", "Host: 127.0.0.1:1\r\n", "").0, 200);
    assert_eq!(agent.tcp("GET /", "Host: evil.example\r\n", "").0, 403);
    assert_eq!(agent.tcp("GET /", "Host: localhost\r\nOrigin: http://evil.example\r\n", "").0, 403);
    assert_eq!(agent.tcp("GET /other", "Host: localhost\r\n", "").0, 401);
    assert_eq!(agent.unix("GET /app.js", "").0, 404);
}

#[test]
#[cfg(feature = "ui")]
fn invitation_opens_one_session_and_nothing_else() {
    let agent = Agent::start();
    let invite = || {
        let said = agent.ctl(CtlCommand::Open, false).unwrap();
        let (url, hint) = said.trim_end().split_once('\n').unwrap();
        assert_eq!(hint, "opens once, within 5 minutes");
        let (address, secret) = url.split_once("/#invitation=").unwrap();
        assert_eq!(address, format!("http://{}", agent.tcp));
        format!("Host: localhost\r\nAuthorization: Bearer {secret}\r\n")
    };
    let invitation = invite();
    let (status, answer) = agent.tcp("POST /v1/session", &invitation, "");
    assert_eq!(status, 200, "{answer}");
    let line = answer.lines().find_map(|line| line.strip_prefix("set-cookie: ")).unwrap();
    let cookie = format!("Host: localhost\r\nCookie: {}\r\n", line.split(';').next().unwrap());
    assert_eq!(agent.tcp("GET /v1/state", &cookie, "").0, 200);
    assert_eq!(agent.tcp("POST /v1/session", &invitation, "").0, 401, "it was used");
    assert_eq!(agent.tcp("POST /v1/pause", &invite(), "").0, 401, "it steers");
    assert_eq!(agent.tcp("POST /v1/invitations", &bearer(), "").0, 404, "whoever is far away invites others");
    assert_eq!(agent.told(), Vec::<String>::new());
}

#[test]
fn who_has_no_listener_is_told_how_to_get_one() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("control.sock");
    let config = ControlConfig { socket: Some(socket.clone()), ..ControlConfig::default() };
    let (control, _order_rx) = channel(Telling::new().0, Audit::default());
    let args = CtlArgs { place: PlaceArgs::at(socket), json: false, command: CtlCommand::Open };
    let error = runtime().block_on(async {
        let listeners = Listeners::start(&config, &control).await.unwrap();
        let (said_tx, said) = oneshot::channel();
        thread::spawn(move || said_tx.send(ctl::run(&args, &mut Vec::new()).unwrap_err().to_string()));
        let said = said.await.unwrap();
        listeners.stop().await;
        said
    });
    assert!(error.contains("--control-listen"), "{error}");
}
