//! Enters: a running agent, and the rules in `deploy`. Leaves: what a real Prometheus server makes of both.

use std::{
    collections::BTreeSet,
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use mirror_tests::{
    agent::{Agent, Arguments},
    netns::Host,
    require_agent,
    scenario::{PATIENCE, PORT, Stage, Weight},
    server::Record,
};
use serde_json::Value;
use tempfile::TempDir;

/// Returns from the test, saying why, where there is no Prometheus.
macro_rules! require_prometheus {
    () => {
        if Command::new("prometheus").arg("--version").output().is_err() {
            println!("SKIPPED: needs the `prometheus` server (package prometheus)");
            return Ok(());
        }
    };
}

/// How the metrics begin that an agent without an interlock, fields to follow and experiments about pods does not export.
const CONFIGURED: [&str; 3] = ["mirror_experiment_pods", "mirror_field_", "mirror_interlock_"];

/// An experiment that has all the others.
fn configuration(shadow: SocketAddr, sink: &Path) -> String {
    format!(
        "capture: {{ interfaces: [eth0] }}
experiments:
  - name: default
    expires: never
    ports: [{PORT}]
    targets:
      - name: shadow
        url: http://{shadow}
        sessions: [{{ from: {{ cookie: sid }}, into: [{{ cookie: sid }}] }}]
    compare: {{}}
    gate: {{}}
    sinks: [{{ name: file, file: {{ path: {} }} }}]
",
        sink.display()
    )
}

#[test]
fn prometheus_scrapes_the_agent_and_evaluates_every_rule() -> Result<()> {
    require_agent!();
    require_prometheus!();
    let stage = Stage::set(Weight::Light, Record::Count)?;
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("mirror.yaml");
    fs::write(&path, configuration(stage.net.shadow.at_v4(PORT), &folder.path().join("exchanges.jsonl")))?;
    let agent = Agent::start(&stage.net.live, &Arguments::from_file(&path))?;
    let scenario = stage.around(agent);
    let prometheus = Prometheus::start(&scenario.net.live)?;
    let target = prometheus.until("/api/v1/targets", |answer| {
        let target = answer.pointer("/data/activeTargets/0")?;
        (target["health"] != "unknown").then(|| target.clone())
    })?;
    ensure!(target["health"] == "up" && target["lastError"] == "", "not scraped: {target}");

    // After the first scrape: what a counter holds then is no rate.
    let mut client = scenario.client()?;
    for number in 0..20 {
        client.ask(format!("GET /{number} HTTP/1.1\r\nHost: live\r\n\r\n").as_bytes())?;
    }
    scenario.settle()?;

    // Rates need two scrapes, and rules a turn after that.
    let ratio = "/api/v1/query?query=mirror:requests_mirrored:ratio_rate5m";
    prometheus.until(ratio, |answer| value(answer).filter(|ratio| (ratio - 1.0).abs() < 1e-9))?;
    let seen = prometheus.ask("/api/v1/query?query=mirror_requests_seen_total")?;
    ensure!(value(&seen) == Some(20.0), "{seen}");

    let rules = prometheus.until("/api/v1/rules", |answer| {
        let groups = answer.pointer("/data/groups")?.as_array()?;
        let rules: Vec<_> = groups.iter().flat_map(|group| group["rules"].as_array()).flatten().collect();
        rules
            .iter()
            .all(|rule| rule["health"] != "unknown")
            .then(|| rules.into_iter().cloned().collect::<Vec<_>>())
    })?;
    ensure!(rules.len() == written_rules()?, "{} rules are loaded", rules.len());
    for rule in &rules {
        ensure!(rule["health"] == "ok", "{} does not work: {}", rule["name"], rule["lastError"]);
        // An agent that is well has nothing to tell, not even for the time that `for` leaves it.
        ensure!(rule["type"] != "alerting" || rule["state"] == "inactive", "{rule}");
    }
    expect_every_metric(&prometheus)
}

/// Every metric of the README's table has arrived, under the name that is written there, but for those of parts that
/// this agent does without.
fn expect_every_metric(prometheus: &Prometheus<'_>) -> Result<()> {
    let names = prometheus.ask("/api/v1/label/__name__/values")?;
    let names: BTreeSet<&str> =
        names["data"].as_array().context("no names")?.iter().filter_map(Value::as_str).collect();
    let page = fs::read_to_string(workspace()?.join("README.md"))?;
    let documented: Vec<_> =
        page.lines().filter_map(|line| line.strip_prefix("| `mirror_")?.split_once('`')).collect();
    ensure!(documented.len() > 30, "the table of metrics is not understood");
    for (rest, _) in documented {
        let name = format!("mirror_{rest}");
        let is_there = names.contains(name.as_str()) || names.contains(format!("{name}_bucket").as_str());
        let is_configured = CONFIGURED.iter().any(|start| name.starts_with(start));
        ensure!(is_there || is_configured, "{name} did not arrive");
    }
    Ok(())
}

/// The value of an answer that is one number.
fn value(answer: &Value) -> Option<f64> {
    answer.pointer("/data/result/0/value/1")?.as_str()?.parse().ok()
}

/// How many rules the files hold.
fn written_rules() -> Result<usize> {
    let mut count = 0;
    for path in rule_files()? {
        let text = fs::read_to_string(path)?;
        count += text.lines().filter(|line| line.trim_start().starts_with("- record:")).count();
        count += text.lines().filter(|line| line.trim_start().starts_with("- alert:")).count();
    }
    Ok(count)
}

fn rule_files() -> Result<[PathBuf; 2]> {
    let dir = workspace()?.join("deploy/prometheus");
    Ok([dir.join("recording.yaml"), dir.join("alerts.yaml")])
}

fn workspace() -> Result<&'static Path> {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the test crate is in no folder")
}

/// A server beside the agent, which it scrapes every second; killed when dropped.
#[derive(Debug)]
struct Prometheus<'a> {
    child: Child,
    host: &'a Host,
    _folder: TempDir,
}

/// Where the server listens, inside its host.
const LISTENER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9090);

impl<'a> Prometheus<'a> {
    fn start(host: &'a Host) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("mirror-prometheus-").tempdir()?;
        let config = folder.path().join("prometheus.json");
        // JSON is YAML.
        let content = serde_json::json!({
            "global": { "scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s" },
            "rule_files": rule_files()?,
            "scrape_configs": [{
                "job_name": "mirror-agent",
                "static_configs": [{ "targets": ["127.0.0.1:9477"] }],
            }],
        });
        fs::write(&config, content.to_string())?;
        let mut command = host.command(Path::new("prometheus"));
        command
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address={LISTENER}"))
            .arg("--log.level=warn");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().context("start prometheus")?;
        Ok(Self { child, host, _folder: folder })
    }

    /// Asks until the answer has what is looked for.
    fn until<T>(&self, path: &str, find: impl Fn(&Value) -> Option<T>) -> Result<T> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = self.ask(path);
            match answer.as_ref().ok().and_then(&find) {
                Some(found) => return Ok(found),
                None if Instant::now() > deadline => bail!("{path} within {PATIENCE:?}: {answer:?}"),
                None => thread::sleep(Duration::from_millis(100)),
            }
        }
    }

    fn ask(&self, path: &str) -> Result<Value> {
        let mut stream =
            self.host.within(|| Ok(TcpStream::connect_timeout(&LISTENER, Duration::from_secs(2))?))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        // HTTP/1.0, or the answer might come in chunks.
        stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: prometheus\r\n\r\n").as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("an answer without a head")?;
        ensure!(head.starts_with("HTTP/1.0 200"), "{path}: {head}");
        serde_json::from_str(body).with_context(|| format!("{path} is no JSON"))
    }
}

impl Drop for Prometheus<'_> {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
