//! Enters: configuration files that compare. Leaves: what they mean, and every error with its line.

use std::{path::PathBuf, time::Duration};

use super::{errors, minimal, parsed};
use crate::{
    io::config::{
        CopyOrder, KafkaTopics, SessionSource, SessionUse, SinkPlace, SinkTake, TargetRole, ValueMatch,
    },
    pipeline::{
        compare::{Action, ArrayForm, CompareRules, NumberForm, Place, StatusClass},
        judge::{GateConfig, JudgeConfig, OnFail},
    },
};

/// The minimal file with these keys in its experiment.
fn with(keys: &str) -> String {
    minimal().replacen("ports: [80]", &format!("ports: [80]\n  {keys}"), 1)
}

/// The example of the page about configuration.
pub(super) fn example() -> &'static str {
    let section = super::CONFIGURATION.split_once("\n## Comparison\n").expect("a section").1;
    section.split_once("```yaml\n").expect("an example").1.split_once("```").expect("its end").0
}

#[test]
fn the_example_of_a_comparison_means_what_it_says() {
    let config = parsed(example());
    let experiment = &config.experiments[0];
    let compare = experiment.compare.as_ref().unwrap();
    assert_eq!(compare.excludes[0].headers[0].value, ValueMatch::Present);
    let rules = &compare.rules;
    assert_eq!((rules.content_bytes, rules.numbers), (1 << 20, NumberForm::Value));
    assert_eq!(
        (&rules.ignored_headers[..], &rules.fields[..]),
        (&["x-served-by".to_owned()][..], &["$.total".to_owned()][..])
    );
    let forms: Vec<_> = rules.arrays.iter().map(|array| &array.form).collect();
    assert_eq!(forms, [&ArrayForm::Set, &ArrayForm::KeyedBy("id".to_owned())]);
    let names: Vec<_> = rules.rules.iter().map(|rule| rule.name.as_str()).collect();
    assert_eq!(names, ["clock", "$..price", "header:x-node", "GET /orders/{id} $.id", "status:5xx"]);
    assert!(
        matches!(&rules.rules[1].action, Action::Tolerate(by) if by.absolute == 0.01 && by.relative == 0.0)
    );
    let replace = Action::Replace { pattern: "node-[0-9]+".to_owned(), with: "node".to_owned() };
    assert_eq!(
        (&rules.rules[2].place, &rules.rules[2].action),
        (&Place::Header("x-node".to_owned()), &replace)
    );
    assert_eq!(rules.rules[3].endpoint.as_deref(), Some("GET /orders/{id}"));
    assert_eq!(rules.rules[4].place, Place::Status(StatusClass(5)));
    let judge = &compare.judge;
    assert_eq!((&judge.endpoints[..], judge.max_endpoints), (&["/orders/{id}".to_owned()][..], 200));
    assert_eq!(judge.noise, JudgeConfig::default().noise);
    let gate = GateConfig {
        window: Some(Duration::from_secs(3600)),
        on_fail: OnFail::Report,
        ..GateConfig::default()
    };
    assert_eq!(judge.gate, Some(gate));
    assert_eq!(compare.evidence, crate::io::config::EvidenceConfig::default());
    assert_eq!(compare.redact.keys, ["iban"]);
    assert_eq!(compare.sinks[0].take, SinkTake::Divergent);
    let file = SinkPlace::File {
        path: PathBuf::from("/var/log/mirror/exchanges.jsonl"),
        max_size: 64 << 20,
        keep: 4,
    };
    assert_eq!(compare.sinks[0].to, file);
    let [target, control] = &experiment.targets[..] else { panic!("{:?}", experiment.targets) };
    assert_eq!((target.role, target.order), (TargetRole::Shadow, CopyOrder::Connection));
    assert_eq!(
        (control.role, control.name.as_str(), control.order),
        (TargetRole::Control, "control", CopyOrder::Connection)
    );
    let session = &target.sessions[0];
    assert_eq!(
        (&session.from, &session.into[..]),
        (&SessionSource::Cookie("sid".to_owned()), &[SessionUse::Cookie("sid".to_owned())][..])
    );
    assert_eq!((session.ttl, session.max), (Duration::from_secs(1800), 10_000));
}

#[test]
fn a_comparison_of_which_nothing_is_said_has_the_defaults() {
    let config = parsed(&with("compare: {}"));
    let compare = config.experiments[0].compare.as_ref().unwrap();
    assert_eq!((&compare.rules, &compare.judge), (&CompareRules::default(), &JudgeConfig::default()));
    assert!(compare.sinks.is_empty() && compare.redact == Default::default());
    assert!(parsed(&minimal()).experiments[0].compare.is_none());
    let config = parsed(&with("compare: {}\n  gate: {}"));
    assert_eq!(config.experiments[0].compare.as_ref().unwrap().judge.gate, Some(GateConfig::default()));
    let config = parsed(&with("compare: {}\n  gate: { p95: any }"));
    assert_eq!(config.experiments[0].compare.as_ref().unwrap().judge.gate.as_ref().unwrap().p95, None);
}

#[test]
fn endpoints_are_taken_as_reports_and_templates_call_them() {
    for template in ["/orders/{id}", "/files/{name}.json", "/static/*"] {
        let config = parsed(&with(&format!("compare: {{ endpoints: ['{template}'] }}")));
        assert_eq!(config.experiments[0].compare.as_ref().unwrap().judge.endpoints, [template]);
    }
    for endpoint in ["GET /loyalty/{}", "GET /reports/{date}.csv", "other"] {
        let rule = format!("{{ path: $.a, ignore: true, endpoint: '{endpoint}' }}");
        let config = parsed(&with(&format!("compare: {{ rules: [{rule}] }}")));
        let rules = &config.experiments[0].compare.as_ref().unwrap().rules.rules;
        assert_eq!(rules[0].endpoint.as_deref(), Some(endpoint));
    }
}

#[test]
fn both_ways_to_kafka_are_known() {
    let sinks = "[{ name: a, take: all, kafka: { brokers: ['k:9092', '[::1]:9'], topic: mirror } }, { name: b, kafka: { brokers: \
                 ['k:1'], topics: { live: l, shadow: s } } }]";
    let config = parsed(&with(&format!("compare: {{}}\n  sinks: {sinks}")));
    let sinks = &config.experiments[0].compare.as_ref().unwrap().sinks;
    let joined = KafkaTopics::Joined("mirror".to_owned());
    let brokers = vec!["k:9092".to_owned(), "[::1]:9".to_owned()];
    assert_eq!(sinks[0].to, SinkPlace::Kafka { brokers, topics: joined });
    assert!(
        matches!(&sinks[1].to, SinkPlace::Kafka { topics: KafkaTopics::Apart { live, shadow }, .. } if live == "l" && shadow == "s")
    );
}

#[test]
fn order_is_kept_where_answers_depend_on_it_unless_said_otherwise() {
    let order = |text: &str| parsed(text).experiments[0].targets[0].order;
    assert_eq!(order(&minimal()), CopyOrder::None);
    assert_eq!(order(&with("compare: {}")), CopyOrder::Connection);
    let sessions = "url: 'http://a', sessions: [{ from: { header: x }, into: [{ query: y }] }]";
    assert_eq!(order(&minimal().replace("url: 'http://a'", sessions)), CopyOrder::Connection);
    let said = with("compare: {}").replace("url: 'http://a'", "url: 'http://a', order: none");
    assert_eq!(order(&said), CopyOrder::None);
}

#[test]
fn a_control_is_a_target_with_a_name_of_its_own() {
    let config = parsed(&with("compare: {}\n  control: { url: 'http://b', timeout: 3s, name: v1b }"));
    let control = &config.experiments[0].targets[1];
    assert_eq!((control.name.as_str(), control.role, config.targets()), ("v1b", TargetRole::Control, 2));
    assert_eq!(control.timeout, Duration::from_secs(3));
    let told = errors(&with("compare: {}\n  matches: [{ methods: all }]\n  control: { url: 'http://b' }"));
    assert!(
        told.iter().any(|told| told.contains("experiments[0].control: `matches` names methods")),
        "{told:?}"
    );
}

#[test]
fn what_is_wrong_with_a_comparison_is_told_where_it_stands() {
    let mut wrong = Vec::new();
    for (keys, expected) in [
        ("gate: {}", "gate: the experiment does not compare answers"),
        ("control: { url: 'http://b' }", "control: the experiment does not compare answers"),
        ("fields: [$.a]", "fields: the experiment does not compare answers"),
        ("redact: {}", "redact: the experiment does not compare answers"),
        ("sinks: [{ name: a, file: { path: x } }]", "sinks: the experiment does not compare answers"),
        ("compare: { ignoreHeader: [a] }", "compare.ignoreHeader: unknown key; there are `excludes`"),
        ("compare: { excludes: [{}] }", "compare.excludes[0]: it fits every request"),
        ("compare: { maxBody: much }", "compare.maxBody: `much` does not start"),
        (
            "compare: { numbers: exact }",
            "compare.numbers: \"exact\" is not known here; expected `value`, `text`",
        ),
        ("compare: { arrays: [{ path: $.a }] }", "compare.arrays[0]: say what the array is"),
        (
            "compare: { arrays: [{ path: $.a, as: set, keyedBy: id }] }",
            "compare.arrays[0]: say what the array is",
        ),
        (
            "compare: { arrays: [{ path: items, as: set }] }",
            "compare.arrays[0].path: \"items\" is not a JSON path",
        ),
        (
            "compare: { arrays: [{ path: $.a, as: set }, { path: $.a, as: ordered }] }",
            "compare.arrays[1].path: there is another entry",
        ),
        ("compare: { rules: [{ ignore: true }] }", "compare.rules[0]: a rule is for one place"),
        (
            "compare: { rules: [{ path: $.a, text: true, ignore: true }] }",
            "compare.rules[0]: a rule is for one place",
        ),
        ("compare: { rules: [{ path: $.a }] }", "compare.rules[0]: a rule does one thing"),
        (
            "compare: { rules: [{ path: $.a, ignore: true, normalize: uuid }] }",
            "compare.rules[0]: a rule does one thing",
        ),
        ("compare: { rules: [{ path: $.a, ignore: false }] }", "compare.rules[0].ignore: expected `true`"),
        ("compare: { rules: [{ path: $.a, tolerate: {} }] }", "compare.rules[0].tolerate: say by how much"),
        (
            "compare: { rules: [{ path: $.a, tolerate: { absolute: -1 } }] }",
            "compare.rules[0].tolerate.absolute: expected a number from 0",
        ),
        (
            "compare: { rules: [{ path: $.a, tolerate: { relative: 0.1 } }] }",
            "compare.rules[0].tolerate.relative: expected a share such as 10%",
        ),
        (
            "compare: { rules: [{ path: $.a, normalize: date }] }",
            "compare.rules[0].normalize: \"date\" is not known here; expected `timestamp`, `uuid`",
        ),
        (
            "compare: { rules: [{ path: $.a, replace: { pattern: '(', with: a } }] }",
            "compare.rules[0].replace.pattern: not a regular expression",
        ),
        ("compare: { rules: [{ status: 500, ignore: true }] }", "compare.rules[0].status: expected a class"),
        (
            "compare: { rules: [{ status: 6xx, ignore: true }] }",
            "compare.rules[0].status: \"6xx\" is not a class",
        ),
        (
            "compare: { rules: [{ status: 5xx, normalize: uuid }] }",
            "compare.rules[0]: of a class of status codes",
        ),
        (
            "compare: { rules: [{ text: true, ignore: true }, { path: '$.a[1:2]', ignore: true }] }",
            "compare.rules[1]: rule `$.a[1:2]`: `$.a[1:2]` is no JSON path: `[1:2]` is not understood",
        ),
        (
            "compare: { arrays: [{ path: $.a., as: set }] }",
            "compare.arrays[0]: array `$.a.`: `$.a.` is no JSON path",
        ),
        ("compare: {}\n  fields: [$.a, $..]", "fields[1]: field `$..`: `$..` is no JSON path"),
        (
            "compare: {}\n  redact: { paths: ['$[?(@.a)]'] }",
            "redact.paths[0]: \"$[?(@.a)]\" is not a JSON path",
        ),
        (
            "compare: { rules: [{ path: $.a, ignore: true, endpoint: /a }] }",
            "compare.rules[0].endpoint: \"/a\" is not an endpoint",
        ),
        (
            "compare: { rules: [{ name: a, path: $.a, ignore: true }, { name: a, path: $.b, ignore: true }] }",
            "compare.rules[1].name: there is another rule of the name \"a\"",
        ),
        ("compare: { endpoints: ['/a/{}'] }", "compare.endpoints[0]: \"/a/{}\" is not a template"),
        ("compare: { endpoints: ['/a/x{id}'] }", "compare.endpoints[0]: \"/a/x{id}\" is not a template"),
        ("compare: { maxEndpoints: 0 }", "compare.maxEndpoints: expected a number from 1"),
        ("compare: { noise: { relative: 20 } }", "compare.noise.relative: expected a share"),
        ("compare: { noise: { absolute: 101% } }", "compare.noise.absolute: \"101%\" is not a share"),
        ("compare: { evidence: { retention: 7 } }", "compare.evidence.retention: expected a time"),
        ("compare: {}\n  gate: { divergence: 0% }", "gate.divergence: \"0%\" is not a share"),
        ("compare: {}\n  gate: { p95: fast }", "gate.p95: expected a number from 0.1 to 100, or `any`"),
        (
            "compare: {}\n  gate: { onFail: stop }",
            "gate.onFail: \"stop\" is not known here; expected `report`, `pause`",
        ),
        ("compare: {}\n  control: {}", "control: the key `url` is missing"),
        (
            "compare: {}\n  control: { url: 'http://b', name: t }",
            "control.name: there is another target of the name \"t\"",
        ),
        ("compare: {}\n  fields: [total]", "fields[0]: \"total\" is not a JSON path"),
        ("compare: {}\n  redact: { patterns: ['['] }", "redact.patterns[0]: not a regular expression"),
        ("compare: {}\n  redact: { patterns: [''] }", "redact.patterns[0]: an empty regular expression"),
        ("compare: {}\n  redact: { headers: ['a b'] }", "redact.headers[0]: \"a b\" is not the name"),
        ("compare: {}\n  sinks: [{ name: a }]", "sinks[0]: a sink is one thing"),
        (
            "compare: {}\n  sinks: [{ name: a, file: { path: a }, kafka: { brokers: ['k:1'], topic: t } }]",
            "sinks[0]: a sink is one thing",
        ),
        (
            "compare: {}\n  sinks: [{ name: a, file: { path: a } }, { name: a, file: { path: b } }]",
            "sinks[1].name: there is another sink of the name \"a\"",
        ),
        (
            "compare: {}\n  sinks: [{ name: a, file: { path: a } }, { name: b, file: { path: a } }]",
            "sinks[1].file.path: something else is written to \"a\"",
        ),
        (
            "compare: {}\n  sinks: [{ name: a, take: some, file: { path: a } }]",
            "sinks[0].take: \"some\" is not known",
        ),
        (
            "compare: {}\n  sinks: [{ name: a, kafka: { brokers: [], topic: t } }]",
            "sinks[0].kafka.brokers: there has to be at least one broker",
        ),
        (
            "compare: {}\n  sinks: [{ name: a, kafka: { brokers: [k], topic: t } }]",
            "sinks[0].kafka.brokers[0]: \"k\" is not a broker",
        ),
        (
            "compare: {}\n  sinks: [{ name: a, kafka: { brokers: ['k:1'] } }]",
            "sinks[0].kafka: say where records go",
        ),
        (
            "compare: {}\n  sinks: [{ name: a, kafka: { brokers: ['k:1'], topic: 'a b' } }]",
            "sinks[0].kafka.topic: \"a b\" is not a topic",
        ),
    ] {
        let told = errors(&with(keys));
        let expected = format!("experiments[0].{expected}");
        let is_told = |told: &String| {
            told.splitn(4, ':').nth(3).is_some_and(|told| told.trim_start().starts_with(&expected))
        };
        if told.len() != 1 || !told.iter().all(is_told) {
            wrong.push((keys, told));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn what_is_wrong_with_a_session_is_told_where_it_stands() {
    for (session, expected) in [
        ("{ from: {}, into: [{ cookie: a }] }", "from: a value comes from one place"),
        ("{ from: { cookie: a, header: b }, into: [{ cookie: a }] }", "from: a value comes from one place"),
        ("{ from: { cookie: a }, into: [] }", "into: say where requests bear the value"),
        ("{ from: { cookie: a }, into: [{}] }", "into[0]: each entry is one place"),
        ("{ from: { cookie: 'a b' }, into: [{ cookie: a }] }", "from.cookie: \"a b\" is not"),
        ("{ from: { cookie: a }, into: [{ cookie: a }], max: 0 }", "max: expected a number from 1"),
    ] {
        let told =
            errors(&minimal().replace("url: 'http://a'", &format!("url: 'http://a', sessions: [{session}]")));
        let expected = format!("experiments[0].targets[0].sessions[0].{expected}");
        assert!(told.len() == 1 && told[0].contains(&expected), "{session}: {told:?}");
    }
}
