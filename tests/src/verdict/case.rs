//! Enters: a case. Leaves: its run, from the first request to the agent's last word.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tempfile::TempDir;

use super::{
    Case, Options,
    score::Run,
    told::{self, Proposal, State, Told},
};
use crate::{
    agent::{self, Agent, Arguments},
    load::{Pace, Plan, Running},
    metrics::Metrics,
    netns::{Host, Topology},
    scenario::{PATIENCE, PORT},
    shop::{Bug, Bugs, Character, Place, Shop, Shopper, Version},
    sys,
};

/// Connections of the clients. At 20 ms an answer, 400 requests a second keep 8 busy.
const CONNECTIONS: usize = 48;
/// How often the agent is asked for its verdict on the way.
const ASKING: Duration = Duration::from_secs(5);
/// How long the agent may take to have compared everything, after the last request.
const SETTLING: Duration = Duration::from_secs(60);

/// The servers, the agent, and the files between them.
struct Stage {
    live: Shop,
    shadow: Shop,
    _control: Option<Shop>,
    agent: Agent,
    net: Topology,
    folder: TempDir,
}

impl Stage {
    fn set(case: Case, seed: u64) -> Result<Self> {
        let net = Topology::new()?;
        let open = |host: &Host, version, bugs, role: u64| {
            Shop::open(host, PORT, Character { version, bugs, seed: seed.rotate_left(21) ^ role })
        };
        let bugs = if case.is_buggy() { Bugs::all() } else { Bugs::NONE };
        let live = open(&net.live, Version::One, Bugs::NONE, 1)?;
        let shadow = open(&net.shadow, Version::Two, bugs, 2)?;
        let control =
            case.has_control().then(|| open(&net.other, Version::One, Bugs::NONE, 3)).transpose()?;
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("mirror.yaml");
        let control_url = control.is_some().then(|| format!("http://{}", net.other.at_v4(PORT)));
        let shadow_url = format!("http://{}", net.shadow.at_v4(PORT));
        fs::write(&file, configuration(&socket(&folder), &shadow_url, control_url.as_deref()))?;
        let agent = Agent::start(&net.live, &Arguments::from_file(&file))?;
        Ok(Self { live, shadow, _control: control, agent, net, folder })
    }

    /// Runs the agent's program with words and the way to the running one; what it prints is JSON.
    fn ask(&self, words: &[&str]) -> Result<Value> {
        let socket = socket(&self.folder).display().to_string();
        let output = agent::output(&self.net.live, &[words, &["--socket", &socket]].concat())?;
        let printed = String::from_utf8_lossy(&output.stdout);
        serde_json::from_str(&printed).with_context(|| {
            format!(
                "`mirror-agent {}` said {printed}{}",
                words.join(" "),
                String::from_utf8_lossy(&output.stderr)
            )
        })
    }

    /// The agent's verdict.
    fn told(&self) -> Result<Told> {
        Told::parse(&self.ask(&["report", "--output", "json"])?["targets"][0])
    }

    /// Accepts what the agent proposes, and says what that was.
    fn accept(&self) -> Result<Vec<Proposal>> {
        let proposed = told::proposals(&self.ask(&["rules", "list", "--json"])?["proposals"])?;
        let socket = socket(&self.folder).display().to_string();
        let accepted =
            agent::output(&self.net.live, &["rules", "accept", "--proposed", "--socket", &socket])?;
        ensure!(accepted.status.success(), "{}", String::from_utf8_lossy(&accepted.stderr));
        Ok(proposed)
    }
}

fn socket(folder: &TempDir) -> PathBuf {
    folder.path().join("control.sock")
}

/// The number of answers that is followed.
const FOLLOWED: &str = "$.total";

/// What the user of the mirror writes.
fn configuration(socket: &Path, shadow: &str, control: Option<&str>) -> String {
    let socket = socket.display();
    let control = control
        .map_or_else(String::new, |url| format!("    control: {{ url: \"{url}\", interlock: none }}\n"));
    format!(
        "capture: {{ interfaces: [eth0] }}\n\
         control: {{ socket: {socket} }}\n\
         experiments:\n\
         \x20 - name: shop\n\
         \x20   expires: never\n\
         \x20   ports: [{PORT}]\n\
         \x20   matches: [{{ methods: [GET, POST] }}]\n\
         \x20   targets: [{{ name: v2, url: \"{shadow}\", interlock: none }}]\n\
         {control}\
         \x20   compare: {{}}\n\
         \x20   gate: {{ divergence: 1%, p95: 1.1, errors: 0.5%, minSamples: 1000 }}\n\
         \x20   fields: [\"{FOLLOWED}\"]\n"
    )
}

/// Runs a case to its end.
pub(super) fn run(case: Case, options: &Options, say: &mut dyn FnMut(&str)) -> Result<Run> {
    let stage = Stage::set(case, options.seed)?;
    let started = Instant::now();
    let shopper = Shopper::new(options.seed);
    let mut plan = Plan::new(
        stage.net.live.at_v4(PORT),
        Pace::PerSecond(options.per_second),
        Duration::from_secs_f64(options.requests as f64 / options.per_second),
        CONNECTIONS,
    );
    plan.warm_up = Duration::ZERO;
    let load = Running::start(&stage.net.client, plan, shopper)?;
    let mut said = Vec::new();
    let mut accepted = None;
    let mut next = Instant::now() + ASKING;
    while !load.is_finished() {
        if sys::interrupted() {
            bail!("interrupted; everything is taken down again");
        }
        thread::sleep(Duration::from_millis(100));
        let compared = compared(&stage.agent.metrics()?);
        if accepted.is_none() && !case.has_control() && compared >= options.requests / 5 {
            let rules = stage.accept()?;
            say(&format!("{}: {} rules accepted at {compared} exchanges", case.name(), rules.len()));
            accepted = Some(rules);
        }
        if Instant::now() >= next {
            next = Instant::now() + ASKING;
            let state = stage.told()?.state;
            say(&format!("{}: {} at {compared} exchanges", case.name(), state.name()));
            said.push((compared, state));
        }
    }
    let report = load.finish()?;
    ensure!(
        report.failed + report.unfinished + report.unsent == 0,
        "the clients did not get what they asked for: {report:?}"
    );
    let metrics = settle(&stage)?;
    let told = stage.told()?;
    let cpu = stage.agent.cpu()?;
    let took = started.elapsed();
    let followed = followed(&stage)?;
    let met = Bug::ALL.map(|bug| (bug, stage.shadow.changed_by(bug))).to_vec();
    let ended = stage.agent.stop()?;
    ensure!(ended.status.success(), "the agent ended with {}: {}", ended.status, ended.stderr);
    Ok(Run {
        case,
        made: made(shopper, report.issued),
        met,
        said: said.into_iter().chain([(compared(&metrics), told.state)]).collect::<Vec<(u64, State)>>(),
        told,
        accepted: accepted.unwrap_or_default(),
        results: RESULTS.map(|result| (result.to_owned(), result_of(&metrics, result))).to_vec(),
        followed,
        took,
        cpu,
    })
}

/// How often the number that is followed was in an answer, and its sum, of live and of the shadow: as the metrics tell once
/// they tell what the report does.
fn followed(stage: &Stage) -> Result<[(u64, f64); 2]> {
    let report = stage.ask(&["report", "--output", "json"])?;
    let field = &report["targets"][0]["fields"][0];
    ensure!(field["field"] == FOLLOWED, "the report calls it {}", field["field"]);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let metrics = stage.agent.metrics()?;
        let of = ["live", "shadow"].map(|of| {
            let labels = [("field", FOLLOWED), ("of", of)];
            let count = metrics.labelled("mirror_field_values_total", &labels) as u64;
            (count, metrics.labelled("mirror_field_sum", &labels))
        });
        if ["live", "shadow"].iter().zip(of).all(|(side, (count, _))| field[*side]["count"] == count) {
            return Ok(of);
        }
        ensure!(Instant::now() < deadline, "the metrics tell {of:?}, the report {field}");
        thread::sleep(Duration::from_millis(100));
    }
}

/// What a comparison may come to.
const RESULTS: [&str; 4] = ["equal", "noise", "divergent", "incomparable"];

fn result_of(metrics: &Metrics, result: &str) -> u64 {
    metrics.value("mirror_comparisons_total", "result", result) as u64
}

/// Comparisons that came to something.
fn compared(metrics: &Metrics) -> u64 {
    RESULTS.map(|result| result_of(metrics, result)).iter().sum()
}

/// Waits until every request is settled and compared.
fn settle(stage: &Stage) -> Result<Metrics> {
    let deadline = Instant::now() + SETTLING;
    loop {
        let metrics = stage.agent.metrics()?;
        let ledger = metrics.ledger();
        if ledger.seen == stage.live.requests()
            && ledger.pending == 0
            && compared(&metrics) >= ledger.mirrored
        {
            return Ok(metrics);
        }
        if Instant::now() > deadline {
            bail!(
                "not all is compared: live {}, {ledger}, compared {}",
                stage.live.requests(),
                compared(&metrics)
            );
        }
        thread::sleep(Duration::from_millis(100));
    }
}

/// How many requests of each kind were made.
fn made(shopper: Shopper, requests: u64) -> Vec<(Place, u64)> {
    let mut made = Place::MIX.map(|(place, _)| (place, 0)).to_vec();
    for number in 0..requests {
        let (place, _) = shopper.request(number);
        if let Some((_, count)) = made.iter_mut().find(|(found, _)| *found == place) {
            *count += 1;
        }
    }
    made
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configuration_names_a_control_only_where_there_is_one() {
        let socket = Path::new("/run/x.sock");
        assert!(
            configuration(socket, "http://a", Some("http://b"))
                .contains("\n    control: { url: \"http://b\"")
        );
        assert!(!configuration(socket, "http://a", None).contains("    control:"));
    }
}
