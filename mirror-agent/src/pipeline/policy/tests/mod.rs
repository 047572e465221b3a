//! Enters: heads made by hand and by proptest. Leaves: what policies decide about them.

mod agreeing;
mod keys;
mod matching;
mod sampling;

use std::net::SocketAddr;

use super::*;
use crate::pipeline::{Endpoint, reason::SkipReason};

/// A flow of this client.
fn flow_of(client: &str) -> FlowKey {
    let end = |addr: &str| Endpoint::from(addr.parse::<SocketAddr>().unwrap());
    FlowKey { client: end(client), server: end("192.0.2.2:8080"), vlan: 0, vni: 0 }
}

/// What a policy decides about a head: positions of those that take it.
fn decide(policy: &Policy, head: &str, draw: u64) -> Result<Vec<usize>, SkipReason> {
    decide_bytes(policy, &flow_of("192.0.2.1:40000"), format!("{head}\r\n\r\n").as_bytes(), draw)
}

fn decide_bytes(policy: &Policy, flow: &FlowKey, raw: &[u8], draw: u64) -> Result<Vec<usize>, SkipReason> {
    policy.decide(flow, &head(raw), draw, |_, _| {}).map(|taken| taken.iter().collect())
}

fn head(raw: &[u8]) -> RequestHead<'_> {
    RequestHead::parse(raw).unwrap()
}

fn every() -> Rule {
    Rule::of_methods(Methods::All)
}

fn taking(rule: Rule) -> Policy {
    Experiment { matches: vec![rule], ..Experiment::default() }.into()
}

fn sampling(name: &str, percent: f64, by: &SampleBy, without_key: WithoutKey) -> Policy {
    let share = Share::from_percent(percent).unwrap();
    let sample = Sample::new(name, share, by, without_key).unwrap();
    Experiment { sample, ..Experiment::of_methods(Methods::All) }.into()
}

#[test]
fn only_safe_methods_are_mirrored_unless_asked_for() {
    let policy = Policy::from(Experiment::default());
    assert_eq!(decide(&policy, "GET / HTTP/1.1", 1), Ok(vec![0]));
    assert_eq!(decide(&policy, "POST / HTTP/1.1", 1), Err(SkipReason::Method));
    assert_eq!(decide(&policy, "get / HTTP/1.1", 1), Err(SkipReason::Method));
    assert_eq!(decide(&taking(every()), "POST / HTTP/1.1", 1), Ok(vec![0]));
    assert_eq!(decide(&taking(every()), "get / HTTP/1.1", 1), Ok(vec![0]));
}

#[test]
fn a_paused_experiment_takes_nothing_and_leaves_others_alone() {
    let paused = Experiment { is_paused: true, ..Experiment::default() };
    let policy = Policy::new(vec![paused.clone(), Experiment::default()]);
    assert_eq!(decide(&policy, "GET / HTTP/1.1", 1), Ok(vec![1]));
    assert_eq!(decide(&policy, "POST / HTTP/1.1", 1), Err(SkipReason::Method));
    assert_eq!(decide(&paused.into(), "GET / HTTP/1.1", 1), Err(SkipReason::Paused));
}

#[test]
fn methods_are_told_apart_whether_known_or_not() {
    let named = ["PURGE", "DELETE"].map(String::from).to_vec();
    let policy = taking(Rule::of_methods(Methods::Only(named)));
    for (method, expected) in
        [("PURGE", true), ("DELETE", true), ("purge", false), ("BREW", false), ("GET", false)]
    {
        assert_eq!(decide(&policy, &format!("{method} / HTTP/1.1"), 1).is_ok(), expected, "{method}");
    }
    let none = taking(Rule::of_methods(Methods::Only(Vec::new())));
    assert_eq!(decide(&none, "BREW / HTTP/1.1", 1), Err(SkipReason::Method));
}

#[test]
fn a_copy_is_never_copied_again_whatever_else_it_is() {
    let marked = "CONNECT a:1 HTTP/1.1\r\nx-mirror-id: 1\r\nupgrade: x";
    assert_eq!(decide(&taking(every()), marked, 1), Err(SkipReason::Marked));
    assert_eq!(decide(&Policy::default(), marked, 1), Err(SkipReason::Marked));
}

#[test]
fn the_reason_of_a_request_is_that_of_the_experiment_that_came_closest() {
    let get = || Rule::of_methods(Methods::Only(vec!["GET".to_owned()]));
    let other_path = || get().with_path(PathRule::exact("/other").unwrap());
    let of = |rule: Rule| Experiment { matches: vec![rule], ..Experiment::default() };
    let unmatched = of(other_path());
    let method = of(Rule::of_methods(Methods::Only(vec!["POST".to_owned()])));
    let excluded = Experiment { excludes: vec![every()], ..of(get()) };
    let none = Share::from_percent(0.0).unwrap();
    let by = SampleBy::Header("x".to_owned());
    let no_key =
        Experiment { sample: Sample::new("a", Share::ALL, &by, WithoutKey::Skip).unwrap(), ..of(get()) };
    let sampled = Experiment { sample: Sample::of_requests("b", none), ..of(get()) };
    let elsewhere = Experiment { ports: vec![1], ..of(get()) };
    let in_order = [
        (unmatched, SkipReason::Unmatched),
        (method, SkipReason::Method),
        (excluded, SkipReason::Excluded),
        (no_key, SkipReason::NoKey),
        (sampled, SkipReason::Sampled),
    ];

    let mut experiments = vec![elsewhere];
    assert_eq!(decide(&Policy::new(experiments.clone()), "GET / HTTP/1.1", 1), Err(SkipReason::Unmatched));
    for (count, (experiment, reason)) in in_order.iter().enumerate() {
        // The one that comes closest is neither always the first nor always the last.
        experiments.insert(count % 2, experiment.clone());
        let policy = Policy::new(experiments.clone());
        assert_eq!(decide(&policy, "GET / HTTP/1.1", 1), Err(*reason));
    }
    let policy = Policy::new(in_order.iter().map(|(experiment, _)| experiment.clone()).collect());
    let head = head(b"GET / HTTP/1.1\r\n\r\n");
    let mut told = Vec::new();
    let flow = flow_of("192.0.2.1:40000");
    let mut tell = |left: ExperimentSet, reason| told.push((left.iter().collect::<Vec<_>>(), reason));
    policy.decide(&flow, &head, 1, &mut tell).unwrap_err();
    let expected: Vec<_> =
        in_order.iter().enumerate().map(|(position, (_, reason))| (vec![position], *reason)).collect();
    assert_eq!(told, expected);
}

#[test]
fn an_experiment_of_another_server_neither_takes_nor_skips() {
    let network = |addr: &str, len| Network::new(addr.parse().unwrap(), len);
    for (ports, addresses, expected) in [
        (vec![], vec![], true),
        (vec![80, 8080], vec![], true),
        (vec![80], vec![], false),
        (vec![8080], vec![network("192.0.2.0", 24)], true),
        (vec![8080], vec![network("192.0.2.2", 32)], true),
        (vec![8080], vec![network("192.0.2.3", 32), network("2001:db8::", 32)], false),
        (vec![8080], vec![network("0.0.0.0", 0)], true),
        (vec![8080], vec![network("::", 0)], true),
        (vec![8080], vec![network("::ffff:192.0.2.0", 120)], true),
    ] {
        let experiment = Experiment { ports, addresses, ..Experiment::default() };
        let is_about = decide(&experiment.clone().into(), "GET / HTTP/1.1", 1).is_ok();
        assert_eq!(is_about, expected, "{experiment:?}");
    }
    let v6 = Endpoint::from("[2001:db8::1]:8080".parse::<SocketAddr>().unwrap()).addr;
    assert!(!network("0.0.0.0", 0).contains(v6) && network("2001:db8::", 32).contains(v6));
    assert!(network("2001:db8::1", 128).contains(v6) && !network("2001:db8::2", 128).contains(v6));
    assert!(network("2001:db8::1", 255).contains(v6));
}

#[test]
fn copies_are_targeted_unless_they_are_a_share() {
    let of = |percent| {
        let sample = Sample::of_requests("a", Share::from_percent(percent).unwrap());
        Experiment { sample, ..Experiment::default() }.how().as_str()
    };
    assert_eq!((of(100.0), of(99.9999)), ("targeted", "sampled"));
}
