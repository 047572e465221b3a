//! Enters: agents in trouble. Leaves: what they log, and that nobody waits for it.

use std::{
    fs,
    io::{self, PipeWriter, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::fs::symlink,
    path::Path,
    process::Stdio,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use mirror_tests::{
    agent::{Agent, Arguments},
    client::RawClient,
    load::{Pace, Plan, Running},
    netns::Host,
    require_agent,
    scenario::{PATIENCE, PORT, Scenario, Stage, Weight},
    server::Record,
    traffic::Same,
};
use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

/// What must not be found in a log.
const SECRET: &str = "s3cr3t-of-a-client";

const GET: &[u8] = b"GET /life HTTP/1.1\r\nHost: live\r\n\r\n";

#[test]
fn each_line_is_one_json_object_with_time_level_target_message_and_fields() -> Result<()> {
    require_agent!();
    let scenario = Scenario::with_record(
        Weight::Light,
        &["--log-format", "json", "--log-level", "debug"],
        Record::Count,
    )?;
    scenario.client()?.ask(GET)?;
    scenario.settle()?;
    let ended = scenario.agent.stop()?;
    let lines = objects(&ended.stderr)?;
    let messages: Vec<_> = lines.iter().filter_map(|line| line["message"].as_str()).collect();
    for message in
        ["Attached.", "Mirroring.", "Stopping: capture is detached, copies under way are finished."]
    {
        ensure!(messages.contains(&message), "{message} is not in {messages:?}");
    }
    let attached = lines.iter().find(|line| line["message"] == "Attached.").context("no such line")?;
    ensure!(attached["level"] == "INFO" && attached["target"] == "mirror_agent::io::capture::follow");
    ensure!(
        attached["fields"]["interface"] == "eth0" && attached["fields"]["hook"] == "ingress",
        "{attached}"
    );
    Ok(())
}

#[test]
fn why_an_agent_refuses_to_start_is_json_too() -> Result<()> {
    require_agent!();
    let stage = Stage::set(Weight::Light, Record::Count)?;
    let arguments = Arguments::on("nothing0", PORT, "http://192.0.2.1").with(&["--log-format", "json"]);
    let ended = Agent::refuse(&stage.net.live, &arguments)?;
    ensure!(ended.status.code() == Some(1));
    let lines = objects(&ended.stderr)?;
    let last = lines.last().context("nothing is logged")?;
    let error = last["fields"]["error"].as_str().unwrap_or_default();
    ensure!(last["level"] == "ERROR" && error.contains("no interface is named nothing0"), "{last}");
    Ok(())
}

#[test]
fn warning_that_repeats_is_written_once_and_then_with_the_number_held_back() -> Result<()> {
    require_agent!();
    let scenario = Scenario::with_record(Weight::Light, &["--log-format", "json"], Record::Count)?;
    let pid = Pid::from_raw(i32::try_from(scenario.agent.pid())?);
    // There is no file to be read again, which is a warning each time.
    let deadline = Instant::now() + PATIENCE;
    while scenario.agent.metrics()?.sum("mirror_log_lines_held_back_total") < 20.0 {
        ensure!(Instant::now() < deadline, "nothing is held back: {}", scenario.agent.printed("stderr"));
        kill(pid, Signal::SIGHUP)?;
        thread::sleep(Duration::from_millis(5));
    }
    let warnings = |text: &str| -> Result<Vec<Value>> {
        let is_it = |line: &Value| line["message"] == "There is no configuration file to be read again.";
        Ok(objects(text)?.into_iter().filter(is_it).collect())
    };
    let so_far = warnings(&scenario.agent.printed("stderr"))?;
    ensure!(so_far.len() == 1 && so_far[0]["fields"]["suppressed"].is_null(), "{so_far:?}");
    let all = warnings(&scenario.agent.stop()?.stderr)?;
    let suppressed = all.last().and_then(|line| line["fields"]["suppressed"].as_u64());
    // The last is written at the end itself.
    ensure!(all.len() == 2 && suppressed >= Some(19), "{all:?}");
    Ok(())
}

#[test]
fn standard_error_that_nobody_reads_holds_up_nothing() -> Result<()> {
    require_agent!();
    let stage = Stage::set(Weight::Heavy, Record::Count)?;
    let (reader, writer) = io::pipe()?;
    // Not a byte more fits in when the agent starts.
    fill(&writer)?;
    // It says so much that the buffer is full, too: at trace, libraries tell of every packet.
    let arguments = stage.arguments().with(&["--log-level", "trace"]);
    let mut agent = Agent::launch_with(&stage.net.live, &arguments, Some(Stdio::from(writer)))?;
    agent.until_ready()?;
    let scenario = stage.around(agent);
    // What capture threads warn of, in the middle of capturing.
    scenario.client()?.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03not a request at all")?;
    let plan = Plan::new(scenario.net.live.at_v4(PORT), Pace::PerSecond(500.0), Duration::from_secs(2), 8);
    let load = Running::start(&scenario.net.client, plan, Same::get())?;
    // Each is a line at debug: connections that end early.
    let talk = thread::scope(|scope| {
        let chatter = scope.spawn(|| -> Result<()> {
            let deadline = Instant::now() + PATIENCE;
            while scenario.agent.metrics()?.sum("mirror_log_lines_dropped_total") == 0.0 {
                ensure!(Instant::now() < deadline, "the buffer is never full");
                for _ in 0..100 {
                    drop(scenario.agent.get("/not\u{7f}a path"));
                }
            }
            Ok(())
        });
        chatter.join().map_err(|_panic| anyhow::anyhow!("the chatter panicked"))?
    });
    let report = load.finish()?;
    ensure!(report.is_clean(), "{report:?}");
    talk?;
    let ledger = scenario.agent.wait_for(PATIENCE, |books| books.mirrored == 1000 && books.pending == 0)?;
    ensure!(ledger.seen == 1000 && ledger.all_lost() == 0, "{ledger}");
    ensure!(scenario.agent.get("/healthz")?.0 == 200);
    let ended = scenario.agent.stop()?;
    ensure!(ended.status.code() == Some(0) && ended.took < Duration::from_secs(5), "{ended:?}");
    drop(reader);
    Ok(())
}

#[test]
fn no_line_at_info_or_above_holds_anything_of_a_client() -> Result<()> {
    require_agent!();
    let stage = Stage::set(Weight::Light, Record::Count)?;
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("mirror.yaml");
    let shadow = stage.net.other.at_v4(PORT);
    let sink = folder.path().join("sink");
    symlink("/dev/full", &sink)?;
    fs::write(&path, configuration(shadow, &sink))?;
    let _shadow = hostile_shadow(&stage.net.other, shadow)?;
    let agent = Agent::start(&stage.net.live, &Arguments::from_file(&path))?;
    let scenario = stage.around(agent);
    for _ in 0..2 * ANSWERS.len() {
        for request in troubles() {
            let live = scenario.net.live.at_v4(PORT);
            let stream = scenario.net.client.within(|| Ok(TcpStream::connect(live)?))?;
            let mut client = RawClient::over(stream, Duration::from_millis(200))?;
            // Live may refuse it, end the connection, or wait for more.
            if client.send(&request).is_ok() {
                drop(client.read_response(false));
            }
        }
    }
    drop(scenario.agent.get(&format!("/{SECRET}\u{7f}")));
    let ledger = scenario.agent.wait_for(PATIENCE, |books| books.pending == 0 && books.mirrored >= 12)?;
    let metrics = scenario.agent.metrics()?;
    let Scenario { agent, .. } = scenario;
    let ended = agent.stop()?;

    let whole = format!("{}{}", ended.stdout, ended.stderr);
    ensure!(!whole.contains(SECRET), "a secret is in {whole}");
    // It went where something can be said about it.
    ensure!(ledger.lost.len() >= 3 && ledger.replays.len() >= 2, "too little went wrong: {ledger}");
    ensure!(metrics.sum("mirror_comparisons_total") > 0.0, "nothing was compared: {ledger}");
    ensure!(metrics.sum("mirror_audit_records_dropped_total") > 0.0, "the audit log does not fail");
    ensure!(metrics.value("mirror_sink_records_total", "result", "failed") > 0.0, "the sink does not fail");
    for message in ["A matched port carries flows", "Audit records could not be", "Records could not be"] {
        ensure!(whole.contains(message), "{message} is not in {whole}");
    }
    Ok(())
}

/// Compares, with an audit log and a sink that take nothing.
fn configuration(shadow: SocketAddr, sink: &Path) -> String {
    format!(
        "capture: {{ interfaces: [eth0] }}
audit: {{ file: /dev/full }}
experiments:
  - name: default
    expires: never
    ports: [{PORT}]
    matches: [{{ methods: [GET, POST] }}]
    targets:
      - name: shadow
        url: http://{shadow}
        timeout: 1s
        interlock: none
        circuitBreaker: {{ errorRatio: 1, minRequests: 1000 }}
        sessions: [{{ from: {{ cookie: sid }}, into: [{{ cookie: sid }}] }}]
    compare: {{}}
    gate: {{}}
    sinks: [{{ name: full, take: all, file: {{ path: {} }} }}]
",
        sink.display()
    )
}

/// What a shadow may answer; each holds the secret.
const ANSWERS: [&str; 6] = [
    "HTTP/1.1 200 OK\r\nSet-Cookie: sid=s3cr3t-of-a-client\r\nContent-Length: 18\r\n\r\ns3cr3t-of-a-client",
    "HTTP/1.1 s3cr3t-of-a-client\r\n\r\n",
    "s3cr3t-of-a-client",
    "HTTP/1.1 200 OK\r\ns3cr3t-of-a-client\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\ns3cr3t-of-a-client\r\n",
    "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Type: application/json\r\nContent-Length: 18\r\n\r\ns3cr3t-of-a-client",
];

/// A server that gives these answers in turn, each and the end of the connection.
fn hostile_shadow(host: &Host, at: SocketAddr) -> Result<JoinHandle<Result<()>>> {
    let listener = host.within(|| Ok(TcpListener::bind(at)?))?;
    host.spawn("shadow", move || {
        for answer in ANSWERS.iter().cycle() {
            let (mut stream, _) = listener.accept()?;
            // What breaks here is the agent's to tell.
            drop(stream.read(&mut [0; 4096]));
            drop(stream.write_all(answer.as_bytes()));
        }
        Ok(())
    })
}

/// Requests, and what is none, with which something may be wrong; each holds the secret.
fn troubles() -> Vec<Vec<u8>> {
    let with = |text: &str| text.replace("SECRET", SECRET).into_bytes();
    let mut troubles = vec![
        with(
            "GET /SECRET?token=SECRET HTTP/1.1\r\nHost: SECRET\r\nAuthorization: Bearer SECRET\r\nCookie: sid=SECRET\r\n\r\n",
        ),
        with("POST /SECRET HTTP/1.1\r\nHost: live\r\nContent-Length: 19\r\n\r\nSECRET"),
        with("POST / HTTP/1.1\r\nHost: live\r\nContent-Length: 1\r\nContent-Length: SECRET\r\n\r\n"),
        with("POST / HTTP/1.1\r\nHost: live\r\nTransfer-Encoding: chunked\r\n\r\nSECRET\r\nSECRET\r\n\r\n"),
        with("GET /SECRET HTTP/9.9\r\n\r\n"),
        with("GET /SECRET HTTP/1.1\r\nSECRET\r\n\r\n"),
        with("GET /SECRET HTTP/1.1\r\nHost: live\r\nUpgrade: SECRET\r\nConnection: upgrade\r\n\r\n"),
        with("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nSECRET"),
        with("SSH-2.0-SECRET and so on and so on\n"),
        with("GET /SECRET HTTP/1.1\r\nHost: li"),
    ];
    let mut long = with("GET /SECRET HTTP/1.1\r\nHost: live\r\nX-Long: ");
    long.extend(SECRET.as_bytes().iter().copied().cycle().take(200 << 10));
    troubles.push(long);
    troubles
}

/// The lines of a log, each of which has to have all that a line has, and nothing else.
fn objects(log: &str) -> Result<Vec<Value>> {
    log.lines()
        .map(|line| {
            let object: Value = serde_json::from_str(line).with_context(|| format!("no JSON: {line}"))?;
            let keys: Vec<_> = object.as_object().context("no object")?.keys().map(String::as_str).collect();
            ensure!(keys == ["fields", "level", "message", "target", "time"], "{line}");
            let time = object["time"].as_str().unwrap_or_default();
            ensure!(time.len() == "2026-11-21T20:03:05.123456Z".len() && time.ends_with('Z'), "{line}");
            ensure!(object["fields"].is_object(), "{line}");
            Ok(object)
        })
        .collect()
}

/// Writes into a pipe until not a byte more fits in.
fn fill(mut writer: &PipeWriter) -> Result<()> {
    fcntl(writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    for piece in [&[b'\n'; 4096][..], b"\n"] {
        while writer.write(piece).is_ok() {}
    }
    fcntl(writer, FcntlArg::F_SETFL(OFlag::empty()))?;
    Ok(())
}
