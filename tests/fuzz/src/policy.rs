//! Enters: the head of a request, and which experiments there are. Leaves: a panic where a decision depends on anything
//! but them, or does not add up.

use std::net::{Ipv6Addr, SocketAddr};

use mirror_agent::pipeline::{
    Endpoint, FlowKey, Policy,
    http::RequestHead,
    policy::{
        Experiment, ExperimentId, ExperimentSet, HostRule, MatchedHow, Methods, Network, PathRule, Pattern,
        Rule, RuleError, Sample, SampleBy, Share, ValueRule, WithoutKey, model,
    },
    reason::SkipReason,
};

use crate::input::Input;

/// Most experiments: beyond eight names values are kept elsewhere.
const MOST_EXPERIMENTS: u8 = 12;

/// Each experiment that is about the server either takes the request or says why not, as the model says; the same
/// experiments built once more decide the same, whatever the draw, where they do not draw.
pub(crate) fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let flow = FlowKey {
        client: Endpoint { addr: Ipv6Addr::from(u128::from(input.long()) << 96), port: input.word() },
        server: SocketAddr::from(([192, 0, 2, 1], 80)).into(),
        vlan: 0,
        vni: 0,
    };
    let count = input.byte() % MOST_EXPERIMENTS;
    let choices: Vec<[u8; 8]> = (0..count).map(|_| std::array::from_fn(|_| input.byte())).collect();
    let build = || choices.iter().zip(0..).map(|(choice, number)| experiment(number, *choice));
    let policy = Policy::new(build().collect());
    let again = Policy::new(build().collect());
    let Ok(head) = RequestHead::parse(input.rest()) else { return };

    let (taken, told) = decide(&policy, &flow, &head, 1);
    let mut modelled = Vec::new();
    let expected =
        model::decide(&policy, &flow, &head, 1, |position, reason| modelled.push((position, reason)));
    assert_eq!((taken, &told), (expected, &modelled), "not what the model says");
    assert_eq!((taken, told.clone()), decide(&again, &flow, &head, 1), "built twice, decided otherwise");
    let others = decide(&again, &flow, &head, u64::MAX);
    let is_drawn =
        choices.iter().any(|choice| choice[0] & 3 == 0 && (choice[1] % 7 == 0 || choice[6] & 1 != 0));
    assert!(is_drawn || (taken, &told) == (others.0, &others.1), "a draw makes a difference");

    let is_never = head.facts.has_mirror_id || head.facts.connect || head.facts.upgrade;
    for (position, choice) in choices.iter().enumerate() {
        let took = taken.is_ok_and(|taken| taken.contains(position));
        let reasons = told.iter().filter(|(at, _)| *at == position).count();
        let is_about = choice[7] & 3 != 3;
        let expected = usize::from(is_about && !is_never);
        assert_eq!(usize::from(took) + reasons, expected, "experiment {position}");
    }
    match taken {
        Ok(taken) => assert!(!taken.is_empty() && !is_never),
        Err(reason) if is_never || told.is_empty() => {
            assert!(is_never != matches!(reason, SkipReason::Unmatched));
        }
        Err(reason) => assert!(told.iter().any(|(_, told)| *told == reason)),
    }
}

type Decision = (Result<ExperimentSet, SkipReason>, Vec<(usize, SkipReason)>);

fn decide(policy: &Policy, flow: &FlowKey, head: &RequestHead<'_>, draw: u64) -> Decision {
    let mut told = Vec::new();
    let taken = policy.decide(flow, head, draw, |experiments, reason| {
        told.extend(experiments.iter().map(|position| (position, reason)));
    });
    told.sort_unstable_by_key(|(position, _)| *position);
    (taken, told)
}

/// An experiment by eight choices.
fn experiment(number: u32, choice: [u8; 8]) -> Experiment {
    let [share, by, matched, of, excluded, what, without_key, server] = choice;
    let share = Share::from_percent([50.0, 0.0, 100.0, 100.0][usize::from(share & 3)]).unwrap_or(Share::ALL);
    let name =
        ["x", "cookie", "host", "authorization", "q", "sub", "a", "X-Y"][usize::from(of & 7)].to_owned();
    let by = match by % 7 {
        0 => SampleBy::Request,
        1 => SampleBy::Connection,
        2 => SampleBy::Client,
        3 => SampleBy::Header(name),
        4 => SampleBy::Cookie(name),
        5 => SampleBy::Query(name),
        _ => SampleBy::Jwt(name),
    };
    let without_key = if without_key & 1 == 0 { WithoutKey::Skip } else { WithoutKey::Draw };
    let fallback = Sample::of_requests("experiment", share);
    let sample = Sample::new("experiment", share, &by, without_key).unwrap_or(fallback);
    let methods = if matched & 0x80 == 0 { Methods::All } else { Methods::default() };
    let any = || Rule::of_methods(methods.clone());
    let matches = [rule(any(), matched, of), rule(any(), of, matched)].into_iter().filter_map(Result::ok);
    let excludes = rule(Rule::of_methods(Methods::All), excluded, what).ok().filter(|_| what & 0x40 != 0);
    let experiment = Experiment {
        id: ExperimentId(number),
        ports: [vec![], vec![80], vec![81, 80], vec![81]][usize::from(server & 3)].clone(),
        addresses: if server & 4 == 0 { Vec::new() } else { vec![Network::new([192, 0, 2, 0].into(), 24)] },
        servers: None,
        matches: matches.collect(),
        excludes: excludes.into_iter().collect(),
        sample,
        is_paused: false,
        reads_answers: false,
    };
    let is_all = experiment.sample.share() == Share::ALL;
    assert_eq!(experiment.how() == MatchedHow::Targeted, is_all);
    experiment
}

/// A rule with one or two things more that it asks for.
fn rule(mut rule: Rule, kinds: u8, of: u8) -> Result<Rule, RuleError> {
    let text = ["/", "/a", "/a/b/", "*", "a=b", "", "1", "/.*|[a-z]+(b|%..)?"][usize::from(of & 7)];
    let value = match of >> 3 & 3 {
        0 => ValueRule::Present,
        1 => ValueRule::Exact(text.as_bytes().into()),
        _ => ValueRule::Pattern(Pattern::new(&format!("{text}.*"))?),
    };
    rule = match kinds & 3 {
        0 => rule,
        1 => rule.with_path(PathRule::exact(text)?),
        2 => rule.with_path(PathRule::prefix(text)?),
        _ => rule.with_path(PathRule::pattern(Pattern::new(text)?)),
    };
    match kinds >> 2 & 7 {
        0 => rule.with_field("x", value),
        1 => rule.with_field("Cookie", value),
        2 => rule.with_param("q", value),
        3 => Ok(rule.with_host(HostRule::new("a")?).with_host(HostRule::new("*.b")?)),
        _ => Ok(rule),
    }
}
