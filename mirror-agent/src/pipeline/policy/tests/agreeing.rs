//! Enters: generated experiments and requests. Leaves: proof that policies decide what the model says.

use proptest::{collection::vec, option, prelude::*, sample::select};

use super::{super::model, *};
use crate::pipeline::policy::experiment::ExperimentId;

/// What a policy decides, and who left the request aside for what, in the order of the experiments.
type Decision = (Result<ExperimentSet, SkipReason>, Vec<(usize, SkipReason)>);

fn by_index(policy: &Policy, flow: &FlowKey, head: &RequestHead<'_>, draw: u64) -> Decision {
    let mut told = Vec::new();
    let taken = policy.decide(flow, head, draw, |experiments, reason| {
        told.extend(experiments.iter().map(|position| (position, reason)));
    });
    told.sort_unstable_by_key(|(position, _)| *position);
    (taken, told)
}

fn by_model(policy: &Policy, flow: &FlowKey, head: &RequestHead<'_>, draw: u64) -> Decision {
    let mut told = Vec::new();
    let taken = model::decide(policy, flow, head, draw, |position, reason| told.push((position, reason)));
    (taken, told)
}

/// Few elements, so that most paths have to do with each other.
fn path() -> impl Strategy<Value = String> {
    let elements = vec(select(vec!["", "a", "b", "ab", "a:b", "%61"]), 1..4);
    elements.prop_map(|elements| elements.iter().map(|element| format!("/{element}")).collect())
}

fn pattern() -> impl Strategy<Value = &'static str> {
    select(vec![
        "/a.*",
        "/(a|ab)/.*",
        "(?i)/A(/B)?",
        "/[ab]+(/.*)?",
        "/[^/]*/b",
        ".*b",
        "",
        "(?m)^/a$",
        "/a{1,3}|/b/.*",
        "[a&&b]",
        r"\A/ab?\z",
    ])
}

fn path_rule() -> impl Strategy<Value = PathRule> {
    prop_oneof![
        path().prop_map(|path| PathRule::exact(&path).unwrap()),
        Just(PathRule::exact("*").unwrap()),
        path().prop_map(|path| PathRule::prefix(&path).unwrap()),
        Just(PathRule::prefix("/").unwrap()),
        pattern().prop_map(|pattern| PathRule::pattern(Pattern::new(pattern).unwrap())),
    ]
}

fn value() -> impl Strategy<Value = String> {
    select(vec!["", "1", "2", "12", "a,b", "a=b"]).prop_map(str::to_owned)
}

fn value_rule() -> impl Strategy<Value = ValueRule> {
    prop_oneof![
        3 => value().prop_map(|value| ValueRule::Exact(value.into_bytes().into())),
        1 => select(vec!["1.*", "", "[12]+"]).prop_map(|text| ValueRule::Pattern(Pattern::new(text).unwrap())),
        1 => Just(ValueRule::Present),
    ]
}

/// More than are held without a search.
fn name() -> impl Strategy<Value = String> {
    (0..12).prop_map(|number| format!("x-{number}"))
}

fn host() -> impl Strategy<Value = &'static str> {
    select(vec!["a", "A.b", "a.b", "c.a.b", "b", "192.0.2.1", "[2001:db8::1]"])
}

fn host_rule() -> impl Strategy<Value = HostRule> {
    (host(), any::<bool>()).prop_map(|(host, is_suffix)| {
        let suffix = HostRule::new(&format!("*.{host}")).ok().filter(|_| is_suffix);
        suffix.unwrap_or_else(|| HostRule::new(host).unwrap())
    })
}

fn methods() -> impl Strategy<Value = Methods> {
    prop_oneof![
        Just(Methods::All),
        Just(Methods::default()),
        vec(select(vec!["GET", "POST", "BREW"]).prop_map(str::to_owned), 0..3).prop_map(Methods::Only),
    ]
}

fn rule() -> impl Strategy<Value = Rule> {
    let values = || vec((name(), value_rule()), 0..2);
    let parts = (methods(), option::of(path_rule()), values(), values(), vec(host_rule(), 0..3));
    // Four in ten ask for a path alone, and two in ten for methods alone: what most are like.
    (parts, 0..10).prop_map(|((methods, path, fields, params, hosts), kind)| {
        let mut rule = Rule::of_methods(methods);
        if let Some(path) = path.filter(|_| kind < 8) {
            rule = rule.with_path(path);
        }
        if kind >= 4 {
            return rule;
        }
        for (name, value) in fields {
            rule = rule.clone().with_field(&name, value).unwrap_or(rule);
        }
        for (name, value) in params {
            rule = rule.clone().with_param(&name, value).unwrap_or(rule);
        }
        hosts.into_iter().fold(rule, Rule::with_host)
    })
}

fn server() -> impl Strategy<Value = Endpoint> {
    let addr = select(vec!["192.0.2.2", "192.0.2.3", "198.51.100.1", "[2001:db8::1]"]);
    (addr, select(vec![80, 8080]))
        .prop_map(|(addr, port)| Endpoint::from(format!("{addr}:{port}").parse::<SocketAddr>().unwrap()))
}

fn network() -> impl Strategy<Value = Network> {
    let network =
        select(vec![("192.0.2.0", 24), ("192.0.2.2", 32), ("0.0.0.0", 0), ("::", 0), ("2001:db8::", 32)]);
    network.prop_map(|(addr, len)| Network::new(addr.parse().unwrap(), len))
}

fn sample() -> impl Strategy<Value = Sample> {
    let by = prop_oneof![
        4 => Just(SampleBy::Request),
        1 => Just(SampleBy::Connection),
        1 => name().prop_map(SampleBy::Header),
        1 => name().prop_map(SampleBy::Query),
    ];
    let percent = select(vec![100.0, 100.0, 50.0, 0.0]);
    (by, percent, any::<bool>()).prop_map(|(by, percent, draws)| {
        let without_key = if draws { WithoutKey::Draw } else { WithoutKey::Skip };
        Sample::new("experiment", Share::from_percent(percent).unwrap(), &by, without_key).unwrap()
    })
}

fn experiment() -> impl Strategy<Value = Experiment> {
    let about =
        (vec(select(vec![80, 8080]), 0..2), vec(network(), 0..2), option::weighted(0.2, vec(server(), 0..3)));
    let rules = (vec(rule(), 0..8), vec(rule(), 0..3));
    (about, rules, sample(), any::<u8>()).prop_map(|(about, (matches, excludes), sample, more)| {
        let (ports, addresses, mut servers) = about;
        servers.iter_mut().for_each(|servers| servers.sort_unstable());
        Experiment {
            id: ExperimentId(0),
            ports,
            addresses,
            servers,
            matches,
            // An experiment that is not told to leave anything out is the usual one.
            excludes: if more % 2 == 0 { excludes } else { Vec::new() },
            sample,
            is_paused: more > 230,
            reads_answers: more % 3 == 0,
        }
    })
}

fn request() -> impl Strategy<Value = String> {
    let query = vec((name(), option::of(value())), 0..4).prop_map(|params| {
        let pair = |(name, value): &(String, Option<String>)| match value {
            Some(value) => format!("{name}={value}"),
            None => name.clone(),
        };
        params.iter().map(pair).collect::<Vec<_>>().join("&")
    });
    let host = || (option::of(host()), select(vec!["", ":80", ".", ".:1"]));
    let fields = vec((name(), value()), 0..4);
    let parts =
        (select(vec!["GET", "GET", "POST", "BREW", "get"]), path(), query, 0..8, host(), host(), fields);
    parts.prop_map(|(method, path, query, form, (authority, _), (host, port), fields)| {
        let target = match (form, authority) {
            (0, _) => "*".to_owned(),
            (1, Some(authority)) => format!("http://{authority}{path}?{query}"),
            (2, Some(authority)) => format!("http://{authority}"),
            _ if query.is_empty() => path,
            _ => format!("{path}?{query}"),
        };
        let mut head = format!("{method} {target} HTTP/1.1\r\n");
        if let Some(host) = host {
            head += &format!("Host: {host}{port}\r\n");
        }
        for (name, value) in fields {
            head += &format!("{}: {value}\r\n", if form % 2 == 0 { name } else { name.to_uppercase() });
        }
        head + "\r\n"
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn the_index_decides_what_rule_after_rule_decides(
        experiments in vec(experiment(), 0..12),
        requests in vec((request(), server(), any::<u64>()), 8),
    ) {
        let policy = Policy::new(experiments);
        for (raw, server, draw) in requests {
            let flow = FlowKey { server, ..flow_of("192.0.2.1:40000") };
            let head = head(raw.as_bytes());
            let expected = by_model(&policy, &flow, &head, draw);
            prop_assert_eq!(by_index(&policy, &flow, &head, draw), expected, "{} {:?}", raw, server);
        }
    }

    #[test]
    fn as_many_experiments_as_there_can_be_decide_alike(
        some in vec(experiment(), 4),
        (raw, server) in (request(), server()),
    ) {
        // More than take something, and each rule as often as no clue is good for.
        let experiments = some.into_iter().cycle().take(ExperimentSet::CAPACITY + 3).collect();
        let policy = Policy::new(experiments);
        let flow = FlowKey { server, ..flow_of("192.0.2.1:40000") };
        let head = head(raw.as_bytes());
        prop_assert_eq!(by_index(&policy, &flow, &head, 1), by_model(&policy, &flow, &head, 1));
    }

    #[test]
    fn the_answers_of_a_server_are_read_where_an_experiment_about_it_reads_them(
        experiments in vec(experiment(), 0..6),
        server in server(),
    ) {
        let policy = Policy::new(experiments.clone());
        let reads = |one: &Experiment| one.reads_answers && !one.is_paused && model::concerns(one, &server);
        prop_assert_eq!(policy.reads_answers_of(&server), experiments.iter().any(reads));
        prop_assert_eq!(policy.reads_answers(), experiments.iter().any(|one| one.reads_answers));
    }
}
