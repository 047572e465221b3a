//! Enters: invented agents. Leaves: what is told of all of them together, and who is let in.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::fs::PermissionsExt,
    path::Path,
};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{merge::Merger, told::FORMAT, *};
use crate::{
    io::{
        audit::Audit,
        config::{ControlConfig, FleetConfig},
        control::{CopyState, ExperimentState, Listeners, RequestState, State, channel},
        telling::{ExperimentPortion, JudgedPortion, TargetPortion, Telling},
    },
    pipeline::{
        Timestamp,
        judge::{GateConfig, JudgeConfig},
        reason::VerdictState,
    },
};

const NOW: Timestamp = Timestamp::from_nanos(1_000_000_000);

/// An agent that has seen so many requests.
fn agent(number: u64, seen: u64, rules: u64) -> Told {
    let requests = RequestState { seen, mirrored: seen, ..RequestState::default() };
    let mut state = State { uptime_seconds: 1.0, ..State::default() };
    state.capture.requests = requests;
    state.capture.requests.reasons.lost = BTreeMap::from([("gap".to_owned(), number)]);
    state.capture.frames_dropped_by = BTreeMap::from([("ring_full".to_owned(), 10)]);
    state.capture.flows_skipped = BTreeMap::from([("tls".to_owned(), 1)]);
    let copies = CopyState { copies: seen, mirrored: seen, ..CopyState::default() };
    let target = json!({
        "name": "v2", "url": "http://v2", "copies": copies, "queued": 1, "inFlight": 2, "breaker": "closed",
        "interlock": null,
    });
    let experiment: ExperimentState = serde_json::from_value(json!({
        "name": "orders", "owner": "team", "expires": "never", "expired": false, "percent": 1.0,
        "paused": number == 1, "targets": [target], "comparisons": { "equal": seen },
        "incomparable": { "busy": 2 },
    }))
    .unwrap();
    state.experiments = vec![experiment];
    let compared = vec![ExperimentPortion {
        name: "orders".to_owned(),
        rules: serde_json::from_value(json!(rules)).unwrap(),
        targets: vec![TargetPortion { target: "v2".to_owned(), portion: portion(seen) }],
    }];
    let instance = format!("{number:016x}");
    let agent = Identity { instance, node: format!("node-{number}"), ..Identity::own() };
    Told { format: FORMAT, agent, state, compared }
}

/// What a judge knows who has seen so many equal exchanges.
fn portion(equal: u64) -> crate::pipeline::judge::Portion {
    let sketch =
        json!({ "zeros": 0, "first": -500, "bins": [u32::try_from(equal.max(1)).unwrap_or(u32::MAX)] });
    let none = json!({ "zeros": 0, "first": 0, "bins": [] });
    let scope = json!({
        "order": 1, "judged": [equal, 0, 0, 0], "incomparable": vec![0; 14], "divergences": vec![0; 8],
        "compared": [equal, equal], "control_compared": [0, 0], "both": 0, "known": [equal, equal, 0],
        "errors": [0, 0, 0], "pairs": [equal, equal], "only_shadow": [0, 0], "only_baseline": [0, 0],
        "latency": {
            "first": [sketch, sketch, none], "last": [sketch, sketch, none], "recent": null, "untimed": [0, 0, 0],
            "round_trips": [null, null, null],
        },
        "places": {}, "clusters": {},
    });
    let numbers = json!({
        "moments": { "count": 1, "sum": 1, "mean": 1, "squares": 0 },
        "sketch": { "positive": { "zeros": 1, "first": 0, "bins": [] }, "negative": none },
    });
    let difference = json!({ "count": 1, "sum": 0, "mean": 0, "squares": 0 });
    let field = json!({ "live": numbers, "shadow": numbers, "difference": difference });
    serde_json::from_value(json!({ "scopes": { "GET /": scope }, "fields": [field] })).unwrap()
}

fn judged(told: &Told) -> Vec<JudgedPortion> {
    let judge = JudgeConfig {
        gate: Some(GateConfig { p95: None, ..GateConfig::default() }),
        ..JudgeConfig::default()
    };
    let told = told.compared[0].clone();
    vec![JudgedPortion { told, owner: None, judge, has_control: false, fields: vec!["$.total".to_owned()] }]
}

fn merged(agents: &[Told]) -> View {
    let (first, others) = agents.split_first().unwrap();
    let mut merger = Merger::new(first.clone(), judged(first));
    for (number, told) in (1_u16..).zip(others) {
        merger.take(Some(SocketAddr::from(([10, 0, 0, 1], number))), 0.1, told.clone());
    }
    merger.finish(SystemTime::UNIX_EPOCH, NOW)
}

#[test]
fn books_add_up_and_the_verdict_is_that_of_the_sum() {
    let view = merged(&[agent(0, 700, 7), agent(1, 800, 7), agent(2, 900, 7)]);
    assert_eq!((view.known, view.answered), (3, 3));
    assert_eq!(view.capture.requests.seen, 2400);
    assert_eq!(view.capture.requests.reasons.lost["gap"], 3);
    assert_eq!((view.capture.frames_dropped_by["ring_full"], view.capture.flows_skipped["tls"]), (30, 3));
    let [experiment] = &view.experiments[..] else { panic!("{view:?}") };
    assert_eq!((experiment.agents, experiment.paused, experiment.compared_by), (3, 1, 3));
    assert_eq!((experiment.comparisons["equal"], experiment.incomparable["busy"]), (2400, 6));
    let [target] = &experiment.targets[..] else { panic!("{experiment:?}") };
    assert_eq!((target.copies.mirrored, target.queued, target.in_flight), (2400, 3, 6));
    assert_eq!(target.breakers["closed"], 3);
    // None of them alone has the thousand exchanges that the gate asks for.
    assert_eq!((experiment.state, experiment.judged), (Some(VerdictState::Pass), Some(VerdictState::Pass)));
    let summary = target.summary.as_ref().unwrap();
    assert_eq!(summary["exchanges"], 2400);
    let field = &summary["fields"][0];
    assert_eq!((&field["field"], &field["live"]["count"]), (&json!("$.total"), &json!(3)));
    assert_eq!((&field["live"]["sum"], &field["shadow"]["mean"]), (&json!(3.0), &json!(1.0)));
    let alone = merged(&[agent(0, 700, 7)]);
    assert_eq!(alone.experiments[0].state, Some(VerdictState::NotEnoughData));
}

#[test]
fn who_is_missing_makes_a_pass_no_pass_and_is_named() {
    let told = agent(0, 5000, 7);
    let mut merger = Merger::new(told.clone(), judged(&told));
    merger.miss("10.0.0.9:9479".to_owned(), 2.0, Trouble::with(Problem::Timeout, "no answer".to_owned()));
    let view = merger.finish(SystemTime::UNIX_EPOCH, NOW);
    assert_eq!((view.known, view.answered), (2, 1));
    let experiment = &view.experiments[0];
    assert_eq!(experiment.state, Some(VerdictState::NotEnoughData));
    assert_eq!(experiment.judged, Some(VerdictState::Pass));
    assert_eq!(experiment.missing, ["10.0.0.9:9479: timeout, no answer"]);
}

#[test]
fn what_compares_by_other_rules_is_left_out_and_named() {
    let view = merged(&[agent(0, 5000, 7), agent(1, 5000, 8)]);
    let experiment = &view.experiments[0];
    assert_eq!(experiment.targets[0].summary.as_ref().unwrap()["exchanges"], 5000);
    assert_eq!(experiment.left_out[0].agent, "node-1");
    assert_eq!(experiment.left_out[0].reason, LeftOutReason::OtherRules);
    assert_eq!(experiment.state, Some(VerdictState::NotEnoughData));
    // Its books are its books all the same.
    assert_eq!(view.capture.requests.seen, 10_000);
}

#[test]
fn agent_of_two_addresses_is_one_agent() {
    let view = merged(&[agent(0, 10, 7), agent(1, 20, 7), agent(1, 20, 7), agent(0, 10, 7)]);
    assert_eq!((view.known, view.answered, view.capture.requests.seen), (2, 2, 30));
    assert_eq!(view.agents[0].addresses, ["10.0.0.1:3"]);
    assert_eq!(view.agents[1].addresses, ["10.0.0.1:1", "10.0.0.1:2"]);
}

#[test]
fn experiment_that_only_others_compare_is_told_and_not_judged() {
    let mut other = agent(1, 20, 7);
    other.compared[0].name = "carts".to_owned();
    other.state.experiments[0].name = "carts".to_owned();
    let view = merged(&[agent(0, 10, 7), other]);
    let carts = &view.experiments[1];
    assert_eq!((carts.name.as_str(), carts.agents, carts.state), ("carts", 1, None));
    assert_eq!(carts.left_out[0].reason, LeftOutReason::Unknown);
}

#[test]
fn made_up_experiments_are_bounded() {
    let mut merger = Merger::new(agent(0, 10, 7), judged(&agent(0, 10, 7)));
    for number in 1..20_u16 {
        let mut hostile = agent(number.into(), 10, 7);
        let template = hostile.state.experiments[0].clone();
        hostile.state.experiments = (0..200)
            .map(|made_up| ExperimentState { name: format!("x-{number}-{made_up}"), ..template.clone() })
            .collect();
        merger.take(Some(SocketAddr::from(([10, 0, 0, 1], number))), 0.1, hostile);
    }
    let view = merger.finish(SystemTime::UNIX_EPOCH, NOW);
    assert_eq!((view.experiments.len(), view.experiments[0].name.as_str()), (256, "orders"));
}

#[test]
fn numbers_beyond_all_bounds_are_only_wrong() {
    let view = merged(&[agent(0, 10, 7), agent(1, u64::MAX, 7), agent(2, u64::MAX, 7)]);
    assert_eq!(view.capture.requests.seen, u64::MAX);
    assert_eq!(view.experiments[0].targets[0].summary.as_ref().unwrap()["exchanges"], u64::MAX);
}

proptest! {
    #[test]
    fn sums_do_not_depend_on_who_answers_first(seen in prop::collection::vec(0..10_000_u64, 1..6), turn in 0..6_usize) {
        let mut agents: Vec<_> = (0..).zip(&seen).map(|(number, seen)| agent(number, *seen, 7)).collect();
        let sums = |agents: &[Told]| {
            let view = merged(agents);
            let experiments = serde_json::to_value(&view.experiments).unwrap();
            (view.capture, experiments)
        };
        let before = sums(&agents);
        let turn = turn % agents.len();
        agents[..].rotate_left(turn);
        prop_assert_eq!(sums(&agents), before);
    }
}

const TOKEN: &str = "fedcba9876543210fedcba9876543210";
const CONTROL_TOKEN: &str = "0123456789abcdef0123456789abcdef";

fn write_token(folder: &Path, name: &str, token: &str) -> std::path::PathBuf {
    let path = folder.join(name);
    fs::write(&path, token).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path
}

fn ask(address: SocketAddr, line: &str, token: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    let authorization =
        if token.is_empty() { String::new() } else { format!("Authorization: Bearer {token}\r\n") };
    write!(stream, "{line} HTTP/1.1\r\nHost: {address}\r\n{authorization}Connection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    (answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default(), answer)
}

#[test]
fn the_fleets_token_opens_one_door_and_there_one_thing() {
    let folder = tempfile::tempdir().unwrap();
    let config = ControlConfig {
        socket: Some(folder.path().join("control.sock")),
        listen: Some("127.0.0.1:0".parse().unwrap()),
        token_file: Some(write_token(folder.path(), "control", CONTROL_TOKEN)),
        fleet: Some(FleetConfig {
            listen: Some("127.0.0.1:0".parse().unwrap()),
            peers: Vec::new(),
            token_file: write_token(folder.path(), "fleet", TOKEN),
        }),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    // Nobody obeys here, so whoever is let in hears that the agent is stopping.
    let (control, orders) = channel(Telling::new().0, Audit::default());
    drop(orders);
    let listeners = runtime.block_on(Listeners::start(&config, &control)).unwrap();
    let (fleet, control) = (listeners.fleet.unwrap(), listeners.tcp.unwrap());
    for (address, line, token, status) in [
        (fleet, "GET /v1/fleet/self", TOKEN, 503),
        (fleet, "GET /v1/fleet/self", CONTROL_TOKEN, 401),
        (fleet, "GET /v1/fleet/self", "", 401),
        (fleet, "GET /v1/fleet", TOKEN, 404),
        (fleet, "GET /v1/state", TOKEN, 404),
        (fleet, "GET /v1/report", TOKEN, 404),
        (fleet, "POST /v1/pause", TOKEN, 404),
        (fleet, "POST /v1/session", TOKEN, 404),
        (fleet, "POST /v1/fleet/self", TOKEN, 404),
        (control, "GET /v1/fleet/self", TOKEN, 401),
        (control, "GET /v1/state", TOKEN, 401),
        (control, "GET /v1/fleet/self", CONTROL_TOKEN, 503),
        (control, "GET /v1/fleet", CONTROL_TOKEN, 503),
        (control, "POST /v1/fleet", CONTROL_TOKEN, 405),
    ] {
        let asked = runtime.block_on(async { spawn_blocking(move || ask(address, line, token)).await });
        let (got, answer) = asked.unwrap();
        assert_eq!(got, status, "{line} with {token:.3} at {address}: {answer}");
        assert!(!answer.contains(TOKEN) && !answer.contains(CONTROL_TOKEN));
    }
    runtime.block_on(listeners.stop());
}

#[test]
fn agent_without_a_fleet_says_so() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (control, _orders) = channel(Telling::new().0, Audit::default());
    let error = runtime.block_on(control.fleet_view()).unwrap_err();
    assert!(error.to_string().contains("control.fleet"), "{error}");
}

#[test]
fn what_is_told_is_understood_by_the_other_side() {
    let body: Value = serde_json::to_value(agent(3, 10, 7)).unwrap();
    let understood = told::understand(body.to_string().as_bytes()).unwrap();
    assert_eq!(understood, agent_as(understood.agent.clone()));
    fn agent_as(identity: Identity) -> Told {
        Told { agent: identity, ..agent(3, 10, 7) }
    }
}
