//! Enters: configuration files. Leaves: what they mean, and every error with its line.

mod comparing;
mod pods;
mod schema;

use std::time::{Duration, UNIX_EPOCH};

use super::parse;
use crate::{
    io::config::{
        Config, CopyOrder, DropPolicy, Expiry, HostPolicy, Interlock, MissingKey, PathMatch, Rate, SampleKey,
        ValueMatch,
    },
    pipeline::policy::{Methods, Share},
};

const README: &str = include_str!("../../../../../../README.md");

/// The page about configuration.
const CONFIGURATION: &str = include_str!("../../../../../../docs/configuration.md");

/// The example of the page about configuration.
fn example() -> &'static str {
    let section = CONFIGURATION.split_once("## Experiments").expect("a section").1;
    section.split_once("```yaml\n").expect("an example").1.split_once("```").expect("its end").0
}

fn errors(text: &str) -> Vec<String> {
    let faults = parse(text, "f", Some(UNIX_EPOCH + Duration::from_secs(1_800_000_000))).expect_err(text);
    faults.to_string().lines().map(str::to_owned).collect()
}

/// A file with these lines in its one target, the first of them being the eighth of the file.
fn with_target(lines: &str) -> String {
    format!(
        "capture: {{ interfaces: [lo] }}\nexperiments:\n- name: a\n  expires: never\n  ports: [80]\n  targets:\n  - {{ name: t, \
         url: 'http://a' }}\n{lines}"
    )
}

pub(super) fn minimal() -> String {
    with_target("")
}

fn parsed(text: &str) -> Config {
    parse(text, "f", None).unwrap_or_else(|faults| panic!("{faults}"))
}

#[test]
fn the_example_of_the_readme_means_what_it_says() {
    let config = parsed(example());
    let experiment = &config.experiments[0];
    assert_eq!((experiment.name.as_str(), experiment.owner.as_deref()), ("orders-v2", Some("team-orders")));
    assert_eq!(experiment.expires, Expiry::At(UNIX_EPOCH + Duration::from_secs(1_801_353_600)));
    let entry = &experiment.matches[0];
    assert_eq!(entry.path, Some(PathMatch::PathPrefix("/api/orders".to_owned())));
    assert_eq!(entry.methods, Methods::Only(vec!["GET".to_owned(), "POST".to_owned()]));
    assert_eq!(entry.headers[0].value, ValueMatch::Exact("1".to_owned()));
    assert_eq!(experiment.excludes[0].methods, Methods::All);
    assert_eq!(experiment.sample.share, Share::from_percent(10.0).unwrap());
    assert_eq!(experiment.sample.by, SampleKey::Header("x-user-id".to_owned()));
    assert_eq!(experiment.sample.missing, MissingKey::Skip);
    let target = &experiment.targets[0];
    assert_eq!(target.limits.requests_per_second, Some(Rate::Each(5000.0)));
    assert_eq!((target.limits.bandwidth, target.limits.drop_policy), (Some(50 << 20), DropPolicy::Newest));
    assert_eq!((&target.host, target.order), (&HostPolicy::Preserve, CopyOrder::Connection));
    assert_eq!(target.replace_prefix, [("/api".to_owned(), "/v2/api".to_owned())]);
    assert!(matches!(&target.interlock, Interlock::Probe(probe) if probe.value == "on"));
    assert_eq!(config.guard.cpu, Some(0.1));
}

#[test]
fn overlays_hold_configurations() {
    let overlays = [
        include_str!("../../../../../../deploy/kubernetes/overlays/minimal/config.yaml"),
        include_str!("../../../../../../deploy/kubernetes/overlays/development/config.yaml"),
        include_str!("../../../../../../deploy/kubernetes/overlays/fleet/config.yaml"),
        include_str!("../../../../../../deploy/kubernetes/overlays/pods/config.yaml"),
    ];
    for text in overlays {
        assert_eq!(parsed(text).targets(), 1);
    }
    let comparing = parsed(include_str!("../../../../../../deploy/kubernetes/overlays/compare/config.yaml"));
    assert!(comparing.experiments.iter().all(|experiment| experiment.compare.is_some()));
    assert_eq!(comparing.targets(), 2);
}

#[test]
fn what_is_not_said_is_as_with_flags() {
    let config = parsed(&minimal());
    let (capture, target) = (&config.capture, &config.experiments[0].targets[0]);
    assert_eq!((capture.memory, capture.queue_bytes, capture.max_body), (256 << 20, 32 << 20, 16 << 20));
    assert_eq!((&capture.vxlan_ports[..], &capture.geneve_ports[..]), (&[4789, 8472][..], &[6081][..]));
    assert_eq!((target.limits.max_in_flight, target.limits.queue), (256, 4096));
    assert_eq!((target.timeout, target.connect_timeout), (Duration::from_secs(10), Duration::from_secs(1)));
    assert_eq!(config.experiments[0].matches.len(), 1);
    assert_eq!(config.experiments[0].matches[0].methods, Methods::default());
    assert!(!target.trace_sampled && target.circuit_breaker.is_none());
}

#[test]
fn all_errors_are_told_at_once_each_with_its_line_and_its_keys() {
    let told = errors(
        "capture:\n  interfaces: [eth0]\n  memoryLimit: 25 cups\nexperiments:\n- name: Orders\n  expires: never\n  ports: [80, 0, 70000]\n  \
         adresses: []\n  sample: { percent: 110 }\n  targets:\n  - name: v2\n    name: v3\n    url: nowhere\n- ports: [80]\n  \
         expires: never\n  targets: []\nguard: { cpu: 10 }\n",
    );
    let expected = [
        "f:3:16: capture.memoryLimit: `cups` is not a unit here",
        "f:5:9: experiments[0].name: \"Orders\" is not a name",
        "f:7:15: experiments[0].ports[1]: expected a port from 1 to 65535, found the number 0",
        "f:7:18: experiments[0].ports[2]: expected a port from 1 to 65535, found the number 70000",
        "f:8:3: experiments[0].adresses: unknown key; there are `name`, `owner`, `expires`",
        "f:9:22: experiments[0].sample.percent: expected a number from 0 to 100",
        "f:12:5: experiments[0].targets[0].name: the key is there twice",
        "f:13:10: experiments[0].targets[0].url: \"nowhere\" has no scheme",
        "f:14:3: experiments[1]: the key `name` is missing",
        "f:17:15: guard.cpu: expected a share such as 10%, found the number 10",
    ];
    assert_eq!(told.len(), expected.len(), "{told:#?}");
    for (told, expected) in told.iter().zip(expected) {
        assert!(told.starts_with(expected), "{told} is not {expected}");
    }
}

#[test]
fn values_that_are_wrong_are_refused_where_they_stand() {
    let mut wrong = Vec::new();
    for (from, to, expected) in [
        ("expires: never", "", "experiments[0]: the key `expires` is missing"),
        (
            "expires: never",
            "expires: 2020-01-01T00:00:00Z",
            "experiments[0].expires: the experiment has expired",
        ),
        ("expires: never", "expires: tomorrow", "experiments[0].expires: \"tomorrow\" is no point in time"),
        ("ports: [80]", "ports: []", "experiments[0].ports: there has to be at least one port"),
        ("ports: [80]", "ports: [80.5]", "experiments[0].ports[0]: expected a port"),
        ("ports: [80]", "ports: 80", "experiments[0].ports: expected a list, found the number 80"),
        ("name: a", "name: 'a b'", "experiments[0].name: \"a b\" is not a name"),
        (
            "name: a",
            "name: a\n  matches: [{ methods: [POST] }]",
            "experiments[0].targets[0]: `matches` names methods",
        ),
        (
            "name: a",
            "name: a\n  matches: [{ methods: all }]",
            "experiments[0].targets[0]: `matches` names methods",
        ),
        (
            "name: a",
            "name: a\n  matches: [{ methods: [] }]",
            "experiments[0].matches[0].methods: an empty list",
        ),
        (
            "name: a",
            "name: a\n  matches: [{ methods: [get] }]",
            "experiments[0].matches[0].methods[0]: \"get\" is not",
        ),
        ("name: a", "name: a\n  excludes: [{}]", "experiments[0].excludes[0]: it fits every request"),
        (
            "name: a",
            "name: a\n  matches: [{ path: { type: RegularExpression, value: '(' } }]",
            "experiments[0].matches[0].path.value: not a regular expression",
        ),
        (
            "name: a",
            "name: a\n  matches: [{ path: { type: RegularExpression, value: '(a{999}){999}' } }]",
            "experiments[0].matches[0].path.value: not a regular expression",
        ),
        (
            "name: a",
            "name: a\n  matches: [{ path: { value: api } }]",
            "experiments[0].matches[0].path.value: \"api\" is not",
        ),
        (
            "name: a",
            "name: a\n  matches: [{ headers: [{ name: a b, value: x }] }]",
            "experiments[0].matches[0].headers[0].name",
        ),
        (
            "name: a",
            "name: a\n  matches: [{ headers: [{ name: a }] }]",
            "experiments[0].matches[0].headers[0]: the key `value`",
        ),
        (
            "name: a",
            "name: a\n  matches: [{ hostnames: ['a:80'] }]",
            "experiments[0].matches[0].hostnames[0]: \"a:80\" is not",
        ),
        ("name: a", "name: a\n  sample: { by: user }", "experiments[0].sample.by: \"user\" is not known"),
        (
            "name: a",
            "name: a\n  sample: { percent: .nan }",
            "experiments[0].sample.percent: expected a number",
        ),
        (
            "url: 'http://a'",
            "url: 'http://a', host: 'a b'",
            "experiments[0].targets[0].host: \"a b\" is not a host",
        ),
        (
            "url: 'http://a'",
            "url: 'http://a', timeout: 5",
            "experiments[0].targets[0].timeout: expected a time",
        ),
        (
            "url: 'http://a'",
            "url: 'http://a', headers: { set: { x: \"a\\r\\nb\" } }",
            "experiments[0].targets[0].headers.set.x: the value",
        ),
        (
            "url: 'http://a'",
            "url: 'http://a', headers: { set: { 'a b': c } }",
            "experiments[0].targets[0].headers.set.\"a b\": \"a b\" is not",
        ),
        (
            "url: 'http://a'",
            "url: 'http://a', limits: { maxInFlight: 4097 }",
            "experiments: the copies in flight",
        ),
        (
            "url: 'http://a'",
            "url: 'http://a', limits: { requestsPerSecond: { total: 0 } }",
            "experiments[0].targets[0].limits.requestsPerSecond.total: expected a number",
        ),
        (
            "url: 'http://a'",
            "url: 'http://a', limits: { bandwidth: 0 }",
            "experiments[0].targets[0].limits.bandwidth: nothing could be sent",
        ),
        (
            "url: 'http://a'",
            "url: 'http://a', circuitBreaker: { errorRatio: 1.5 }",
            "experiments[0].targets[0].circuitBreaker.errorRatio: expected",
        ),
        (
            "url: 'http://a'",
            "url: 'http://a', interlock: maybe",
            "experiments[0].targets[0].interlock: expected `none`",
        ),
        (
            "url: 'http://a'",
            "url: 'http://a', interlock: { header: x }",
            "experiments[0].targets[0].interlock: the key `value` is missing",
        ),
        (
            "url: 'http://a'",
            "url: 'http://a', order: time",
            "experiments[0].targets[0].order: \"time\" is not known here; expected `none`, `connection`",
        ),
        (
            "url: 'http://a' }",
            "url: 'http://a' }\n  - { name: t, url: 'http://b' }",
            "experiments[0].targets[1].name: there is another target",
        ),
        ("interfaces: [lo]", "interfaces: [lo], threads: 3", "capture.threads: 3: take 1, 2, 4 or 8"),
        (
            "interfaces: [lo]",
            "interfaces: [lo], memoryLimit: 30Mi, queueMemory: 30Mi",
            "capture.memoryLimit: 31457280 bytes are too few",
        ),
        ("interfaces: [lo]", "interfaces: [lo], maxBody: 33Mi", "capture.maxBody: 34603008 bytes are more"),
        (
            "interfaces: [lo]",
            "interfaces: [lo], ringSize: 5000",
            "capture.ringSize: 5000: take a power of two",
        ),
        (
            "capture:",
            "control: { listen: '0.0.0.0:1' }\ncapture:",
            "control: beyond loopback `listen` needs `tokenFile`",
        ),
        ("capture:", "agents: 0\ncapture:", "agents: expected a number from 1 to 1000000"),
        ("experiments:", "<<: { a: 1 }\nexperiments:", "a: unknown key"),
        ("capture:", "guard: [10%, 90%]\ncapture:", "guard: expected keys with values, found a list"),
        ("capture:", "guard:\ncapture:", "guard: expected keys with values, found nothing"),
        (
            "capture:",
            "control: { socket: 5 }\ncapture:",
            "control.socket: expected a path, found the number 5; put it",
        ),
        (
            "name: a",
            "name: a\n  owner: 5",
            "experiments[0].owner: expected a text, found the number 5; put it",
        ),
        (
            "name: a",
            "name: a\n  compare:",
            "experiments[0].compare: the key has no value: leave it out, or write `{}`",
        ),
        (
            "name: a",
            "name: a\n  compare: true",
            "experiments[0].compare: expected keys with values, found `true`",
        ),
        (
            "url: 'http://a'",
            "url: 'http://a', circuitBreaker: ",
            "experiments[0].targets[0].circuitBreaker: the key has no value",
        ),
        (
            "url: 'http://a'",
            "url: 'http://a', traceSampled: yes",
            "experiments[0].targets[0].traceSampled: expected `true` or `false`, found \"yes\"",
        ),
        (
            "url: 'http://a'",
            "url: 'http://a', limits: [5, 6]",
            "experiments[0].targets[0].limits: expected keys with values",
        ),
    ] {
        let text = minimal().replacen(from, to, 1);
        let told = errors(&text);
        let is_told = |told: &String| {
            told.splitn(4, ':').nth(3).is_some_and(|told| told.trim_start().starts_with(expected))
        };
        if told.len() != 1 || !told.iter().all(is_told) {
            wrong.push((to, told));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn consent_and_proof_both_allow_methods_that_write() {
    for interlock in ["none", "{ header: x, value: y }"] {
        let text = minimal().replace("name: a", "name: a\n  matches: [{ methods: [GET, PUT] }]");
        parsed(&text.replace("url: 'http://a'", &format!("url: 'http://a', interlock: {interlock}")));
    }
}

#[test]
fn expired_experiments_are_refused_only_where_the_time_is_asked_for() {
    let text = minimal().replace("expires: never", "expires: 2020-01-01T00:00:00Z");
    assert!(parse(&text, "f", None).is_ok());
    assert_eq!(errors(&text).len(), 1);
}

#[test]
fn experiments_have_names_of_their_own_and_are_at_most_128() {
    let experiment = |number: usize| {
        format!(
            "- {{ name: e{number}, expires: never, ports: [80], targets: [{{ name: t, url: 'http://a', limits: {{ \
             maxInFlight: 1 }} }}] }}\n"
        )
    };
    let file = |count: usize| {
        let experiments: String = (0..count).map(experiment).collect();
        format!("capture: {{ interfaces: [lo] }}\nexperiments:\n{experiments}")
    };
    assert_eq!(parsed(&file(128)).experiments.len(), 128);
    assert!(errors(&file(129))[0].contains("at most 128 experiments are possible, these are 129"));
    let twice = file(2).replace("e1", "e0");
    assert_eq!(
        errors(&twice),
        ["f:4:11: experiments[1].name: there is another experiment of the name \"e0\""]
    );
}

#[test]
fn a_message_is_one_line_whatever_it_quotes() {
    for url in ["http://[a\\nb", "http://a\\e[31mb", "http://\\u202eab c", &"x".repeat(100_000)] {
        let told = errors(&minimal().replace("'http://a'", &format!("\"{url}\"")));
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].len() < 700 && !told[0].contains('\u{1b}'), "{}", told[0]);
    }
}

#[test]
fn parts_that_repeat_can_be_written_once() {
    let text = minimal().replace(
        "url: 'http://a' }",
        "url: 'http://a', limits: &l { queue: 7 } }\n  - { name: u, url: 'http://b', limits: *l }",
    );
    let targets = &parsed(&text).experiments[0].targets;
    assert_eq!((targets[0].limits.queue, targets[1].limits.queue), (7, 7));
    let text = minimal().replace(
        "- { name: t, url: 'http://a' }",
        "- &t { name: t, url: 'http://a', timeout: 3s }\n  - { <<: *t, name: u }",
    );
    let targets = &parsed(&text).experiments[0].targets;
    assert_eq!((targets[1].name.as_str(), targets[1].timeout), ("u", Duration::from_secs(3)));
}

#[test]
fn header_lines_keep_their_order() {
    let text =
        minimal().replace("url: 'http://a'", "url: 'http://a', headers: { set: { z: '1', a: '2', m: '3' } }");
    let names: Vec<_> =
        parsed(&text).experiments[0].targets[0].headers.set.iter().map(|(name, _)| name.clone()).collect();
    assert_eq!(names, ["z", "a", "m"]);
}

#[test]
fn json_is_read_as_well() {
    let text = r#"{"capture":{"interfaces":["lo"]},"experiments":[{"name":"a","expires":"never","ports":[80],"targets":[{"name":"t","url":"http://a"}]}]}"#;
    assert_eq!(parsed(text).targets(), 1);
}

#[test]
fn what_is_no_yaml_is_told_with_its_line() {
    for (text, line) in [("a: [", 1), ("a: b\n\tc: d", 2), ("a: *b", 1), ("a: 1\n---\nb: 2", 2)] {
        let faults = parse(text, "f", None).expect_err(text);
        assert!(faults.list()[0].line() >= 1 && faults.list()[0].line() <= line + 1, "{faults}");
    }
    assert_eq!(errors("a: *b"), ["f:1:4: alias references unknown anchor"]);
    let second = errors(&format!("{}\n---\na: b\n", minimal()));
    assert!(
        second.len() == 1
            && second[0].ends_with("a second document begins here (`---`): a configuration is one")
    );
    for text in ["", "null", "7", "[]", "text", "\u{feff}", "# nothing"] {
        assert!(parse(text, "f", None).is_err(), "{text}");
    }
}

#[test]
fn bombs_and_endless_lists_of_errors_end_early() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..10 {
        let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
        bomb.push_str(&format!("a{level}: &a{level} [{aliases}]\n"));
    }
    assert!(parse(&bomb, "f", None).is_err());
    // A long text, of which a few lines would make gigabytes.
    let mut long = format!("a0: &a0 {}\n", "x".repeat(60_000));
    for level in 1..5 {
        let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
        long.push_str(&format!("a{level}: &a{level} [{aliases}]\n"));
    }
    assert!(parse(&long, "f", None).is_err());
    assert!(parse(&"[".repeat(100_000), "f", None).is_err());
    assert!(parse(&"a:\n ".repeat(10_000), "f", None).is_err());
    let ports = vec!["0"; 10_000].join(", ");
    let told = errors(&minimal().replace("ports: [80]", &format!("ports: [{ports}]")));
    assert_eq!(told.len(), 50);
}
