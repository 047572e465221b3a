//! Enters: what a file says of comparing answers, each value right by itself. Leaves: what it means, if it fits
//! together.

use std::collections::BTreeSet;

use super::{
    comparison::{
        ArrayFile, ArrayWord, CompareFile, GateFile, NormalWord, NumbersFile, OnFailWord, RuleFile,
        ToleranceFile,
    },
    keeping::{
        KafkaFile, RedactFile, SessionFile, SessionFromFile, SessionIntoFile, SinkFile, SinkPathFile,
        TakeWord,
    },
    resolve::{Checker, excludes},
    values::{Count, Expression, HeaderName, JsonPath, Label},
};
use crate::{
    io::config::{
        ComparisonConfig, EvidenceConfig, KafkaTopics, RedactRules, SessionConfig, SessionSource, SessionUse,
        SinkConfig, SinkPlace, SinkTake,
    },
    pipeline::{
        compare::{
            Action, ArrayForm, ArrayRule, CompareRules, Comparer, NumberForm, Place, Rule, StatusClass,
            Tolerance, Whose,
        },
        judge::{GateConfig, JudgeConfig, NoiseThresholds, OnFail},
        redact::{RedactError, Redactor},
        rewrite::check_header_edit,
    },
};

/// The keys of an experiment that mean something only where answers are compared.
pub(super) struct Comparison {
    pub(super) compare: Option<CompareFile>,
    pub(super) gate: Option<GateFile>,
    pub(super) fields: Vec<JsonPath>,
    pub(super) redact: Option<RedactFile>,
    pub(super) sinks: Vec<SinkFile>,
    pub(super) has_control: bool,
}

impl Comparison {
    /// What they mean together; `None` where nothing is compared.
    pub(super) fn resolve(self, checker: &mut Checker<'_>) -> Option<ComparisonConfig> {
        let Self { compare, gate, fields, redact, sinks, has_control } = self;
        let Some(compare) = compare else {
            let said = [
                ("control", has_control),
                ("gate", gate.is_some()),
                ("fields", !fields.is_empty()),
                ("redact", redact.is_some()),
                ("sinks", !sinks.is_empty()),
            ];
            for (key, _) in said.into_iter().filter(|(_, is_said)| *is_said) {
                checker.within(key, |checker| {
                    checker.fault(
                        "the experiment does not compare answers: say how with `compare`, or `compare: {}`"
                            .to_owned(),
                    );
                });
            }
            return None;
        };
        let fields = fields.into_iter().map(|path| path.0).collect();
        let evidence = &compare.evidence;
        let evidence = EvidenceConfig {
            clusters: number(evidence.clusters),
            samples: number(evidence.samples),
            retention: evidence.retention.0,
            bytes: evidence.memory.0,
        };
        let judge = JudgeConfig {
            endpoints: compare.endpoints.iter().map(|template| template.0.clone()).collect(),
            max_endpoints: number(compare.max_endpoints),
            noise: NoiseThresholds { relative: compare.noise.relative.0, absolute: compare.noise.absolute.0 },
            gate: gate.map(|file| self::gate(&file)),
        };
        let (rules, excludes) = checker.within("compare", |checker| rules_of(compare, fields, checker));
        check_rules(&rules, checker);
        let redact = redact.map(self::redact).unwrap_or_default();
        checker.within("redact", |checker| check_redaction(&redact, checker));
        Some(ComparisonConfig {
            excludes,
            rules,
            judge,
            evidence,
            redact,
            sinks: checker.within("sinks", |checker| self::sinks(sinks, checker)),
        })
    }
}

fn rules_of(
    file: CompareFile,
    fields: Vec<String>,
    checker: &mut Checker<'_>,
) -> (CompareRules, Vec<crate::io::config::MatchConfig>) {
    let excludes = excludes(file.excludes, checker);
    let arrays = checker.within("arrays", |checker| {
        let mut paths = BTreeSet::new();
        checker.each(file.arrays, |checker, file| {
            if !paths.insert(file.path.0.clone()) {
                let path = &file.path.0;
                let message = format!("there is another entry for {path:?}");
                checker.within("path", |checker| checker.fault(message));
            }
            array(file, checker)
        })
    });
    let rules = checker.within("rules", |checker| {
        let mut names = BTreeSet::new();
        checker.each(file.rules, |checker, file| rule(file, &mut names, checker))
    });
    let rules = CompareRules {
        ignored_headers: file.ignore_headers.into_iter().map(|name| name.0).collect(),
        numbers: match file.numbers {
            NumbersFile::Value => NumberForm::Value,
            NumbersFile::Text => NumberForm::Text,
        },
        arrays,
        // What could not be read was told.
        rules: rules.into_iter().flatten().collect(),
        fields,
        content_bytes: usize::try_from(file.max_body.0).unwrap_or(usize::MAX),
    };
    (rules, excludes)
}

/// Whether answers can be compared by these rules; told where the first that cannot be used stands.
fn check_rules(rules: &CompareRules, checker: &mut Checker<'_>) {
    let Err(error) = Comparer::new(rules) else { return };
    let (keys, number) = match error.whose() {
        Whose::Rule(name) => (["compare", "rules"], rules.rules.iter().position(|rule| rule.name == *name)),
        Whose::Array(path) => {
            (["compare", "arrays"], rules.arrays.iter().position(|array| array.path == *path))
        }
        Whose::IgnoredHeader(name) => {
            (["compare", "ignoreHeaders"], rules.ignored_headers.iter().position(|ignored| ignored == name))
        }
        Whose::Field(path) => (["", "fields"], rules.fields.iter().position(|field| field == path)),
    };
    let message = whole(&error);
    let [outer, inner] = keys;
    let tell = |checker: &mut Checker<'_>| {
        checker.within(inner, |checker| checker.item(number.unwrap_or(0), |checker| checker.fault(message)));
    };
    if outer.is_empty() { tell(checker) } else { checker.within(outer, tell) }
}

fn check_redaction(rules: &RedactRules, checker: &mut Checker<'_>) {
    let Err(error) = Redactor::new(rules, [0, 0]) else { return };
    let message = whole(&error);
    let (key, number) = match &error {
        RedactError::Path { path, .. } => ("paths", rules.paths.iter().position(|known| known == path)),
        RedactError::Pattern { pattern, .. } => {
            ("patterns", rules.patterns.iter().position(|known| known == pattern))
        }
    };
    checker.within(key, |checker| checker.item(number.unwrap_or(0), |checker| checker.fault(message)));
}

/// An error with its causes.
fn whole(error: &dyn std::error::Error) -> String {
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        // The last line of a drawing says what is wrong.
        let inner_message = inner.to_string();
        message.push_str(": ");
        message.push_str(inner_message.lines().last().unwrap_or_default().trim_start());
        cause = inner.source();
    }
    message
}

fn array(file: ArrayFile, checker: &mut Checker<'_>) -> ArrayRule {
    let form = match (file.form, file.keyed_by) {
        (Some(ArrayWord::Set), None) => ArrayForm::Set,
        (Some(ArrayWord::Ordered), None) => ArrayForm::Ordered,
        (None, Some(Label(field))) => ArrayForm::KeyedBy(field),
        (None, None) | (Some(_), Some(_)) => {
            checker.fault("say what the array is: either `as: set`, or `keyedBy` a field".to_owned());
            ArrayForm::Ordered
        }
    };
    ArrayRule { path: file.path.0, form }
}

pub(super) fn rule(file: RuleFile, names: &mut BTreeSet<String>, checker: &mut Checker<'_>) -> Option<Rule> {
    let place = only_one(
        [
            file.path.map(|path| Place::Path(path.0)),
            file.header.map(|name| Place::Header(name.0)),
            file.form.map(|name| Place::Form(name.0)),
            file.text.map(|_yes| Place::Text),
            file.status.map(|digit| Place::Status(StatusClass(digit.0))),
        ],
        "a rule is for one place: say one of `path`, `header`, `form`, `text` and `status`",
        checker,
    );
    let action = only_one(
        [
            file.ignore.map(|_yes| Action::Ignore),
            file.tolerate.map(|file| Action::Tolerate(tolerance(&file, checker))),
            file.normalize.map(|word| match word {
                NormalWord::Timestamp => Action::Timestamp,
                NormalWord::Uuid => Action::Uuid,
            }),
            file.replace.map(|file| {
                let Expression(pattern) = file.pattern;
                Action::Replace { pattern, with: file.with }
            }),
        ],
        "a rule does one thing: say one of `ignore`, `tolerate`, `normalize` and `replace`",
        checker,
    );
    let (place, action) = (place?, action?);
    if matches!(place, Place::Status(_)) && action != Action::Ignore {
        checker.fault("of a class of status codes there is only `ignore: true`".to_owned());
    }
    let name = match file.name {
        Some(Label(name)) => {
            checker.unique(names, &name, "rule");
            name
        }
        None => free_name(&place, file.endpoint.as_ref().map(|endpoint| endpoint.0.as_str()), names),
    };
    Some(Rule { name, place, endpoint: file.endpoint.map(|endpoint| endpoint.0), action })
}

/// The name of a rule that has none: its place, with a number where that is not the first.
fn free_name(place: &Place, endpoint: Option<&str>, names: &mut BTreeSet<String>) -> String {
    let mut name = match place {
        Place::Path(path) => path.clone(),
        Place::Header(name) => format!("header:{}", name.to_ascii_lowercase()),
        Place::Form(name) => format!("form:{name}"),
        Place::Text => "text".to_owned(),
        Place::Status(StatusClass(digit)) => format!("status:{digit}xx"),
    };
    if let Some(endpoint) = endpoint {
        name = format!("{endpoint} {name}");
    }
    let first = name.clone();
    let mut number = 1_u64;
    while !names.insert(name.clone()) {
        number = number.saturating_add(1);
        name = format!("{first} #{number}");
    }
    name
}

fn tolerance(file: &ToleranceFile, checker: &mut Checker<'_>) -> Tolerance {
    let (absolute, relative) = (file.absolute.map(|by| by.0), file.relative.as_ref().map(|ratio| ratio.0));
    if absolute.is_none() && relative.is_none() {
        checker.within("tolerate", |checker| {
            checker.fault("say by how much numbers may differ: `absolute`, `relative` or both".to_owned());
        });
    }
    Tolerance { absolute: absolute.unwrap_or_default(), relative: relative.unwrap_or_default() }
}

fn gate(file: &GateFile) -> GateConfig {
    GateConfig {
        divergence: file.divergence.0,
        p95: file.p95.0,
        errors: file.errors.0,
        min_samples: u64::from(file.min_samples.0),
        window: file.window.as_ref().map(|time| time.0),
        on_fail: match file.on_fail {
            OnFailWord::Report => OnFail::Report,
            OnFailWord::Pause => OnFail::Pause,
        },
        pause_on_burn: file.pause_on_burn,
    }
}

fn redact(file: RedactFile) -> RedactRules {
    RedactRules {
        headers: file.headers.into_iter().map(|name| name.0).collect(),
        keys: file.keys.into_iter().map(|key| key.0).collect(),
        paths: file.paths.into_iter().map(|path| path.0).collect(),
        patterns: file.patterns.into_iter().map(|pattern| pattern.0).collect(),
    }
}

fn sinks(files: Vec<SinkFile>, checker: &mut Checker<'_>) -> Vec<SinkConfig> {
    let mut names = BTreeSet::new();
    let sinks = checker.each(files, |checker, file| {
        checker.unique(&mut names, &file.name.0, "sink");
        let place = only_one(
            [file.file.map(SinkEntry::File), file.kafka.map(SinkEntry::Kafka)],
            "a sink is one thing: say `file` or `kafka`",
            checker,
        )?;
        let place = match place {
            SinkEntry::File(file) => checker.within("file", |checker| self::file(file, checker)),
            SinkEntry::Kafka(file) => checker.within("kafka", |checker| kafka(file, checker))?,
        };
        let take = match file.take {
            TakeWord::Divergent => SinkTake::Divergent,
            TakeWord::All => SinkTake::All,
        };
        Some(SinkConfig { name: file.name.0, take, to: place })
    });
    sinks.into_iter().flatten().collect()
}

/// What a sink is.
enum SinkEntry {
    File(SinkPathFile),
    Kafka(KafkaFile),
}

fn file(file: SinkPathFile, checker: &mut Checker<'_>) -> SinkPlace {
    if !checker.claims(&file.path) {
        let message = format!("something else is written to {:?} already", file.path.display().to_string());
        checker.within("path", |checker| checker.fault(message));
    }
    SinkPlace::File { path: file.path, max_size: file.max_size.0, keep: file.keep.0 }
}

fn kafka(file: KafkaFile, checker: &mut Checker<'_>) -> Option<SinkPlace> {
    if file.brokers.is_empty() {
        checker.within("brokers", |checker| {
            checker.fault("there has to be at least one broker".to_owned());
        });
    }
    let topics = only_one(
        [
            file.topic.map(|topic| KafkaTopics::Joined(topic.0)),
            file.topics.map(|topics| KafkaTopics::Apart { live: topics.live.0, shadow: topics.shadow.0 }),
        ],
        "say where records go: one `topic`, or two `topics` for live and shadow",
        checker,
    )?;
    Some(SinkPlace::Kafka { brokers: file.brokers.into_iter().map(|broker| broker.0).collect(), topics })
}

/// What a file says of the sessions of a target.
pub(super) fn sessions(files: Vec<SessionFile>, checker: &mut Checker<'_>) -> Vec<SessionConfig> {
    let sessions = checker.each(files, |checker, file| {
        let SessionFromFile { header, cookie, path } = file.from;
        let from = checker.within("from", |checker| {
            only_one(
                [
                    header.map(|name| SessionSource::Header(name.0)),
                    cookie.map(|name| SessionSource::Cookie(name.0)),
                    path.map(|path| SessionSource::Json(path.0)),
                ],
                "a value comes from one place: say one of `header`, `cookie` and `path`",
                checker,
            )
        });
        if let Some(Err(error)) = from.as_ref().map(SessionSource::source) {
            checker.within("from", |checker| checker.fault(error.to_string()));
        }
        let into = checker.within("into", |checker| {
            if file.into.is_empty() {
                checker.fault("say where requests bear the value".to_owned());
            }
            checker.each(file.into, |checker, SessionIntoFile { header, cookie, query }| {
                only_one(
                    [
                        header.map(|HeaderName(name)| {
                            if let Err(error) = check_header_edit(&name) {
                                checker.within("header", |checker| checker.fault(error.to_string()));
                            }
                            SessionUse::Header(name)
                        }),
                        cookie.map(|name| SessionUse::Cookie(name.0)),
                        query.map(|name| SessionUse::Query(name.0)),
                    ],
                    "each entry is one place: say one of `header`, `cookie` and `query`",
                    checker,
                )
            })
        });
        let into = into.into_iter().flatten().collect();
        Some(SessionConfig { from: from?, into, ttl: file.ttl.0, max: number(file.max) })
    });
    sessions.into_iter().flatten().collect()
}

/// The one that is said; a fault where it is none, or more.
fn only_one<T, const N: usize>(said: [Option<T>; N], message: &str, checker: &mut Checker<'_>) -> Option<T> {
    let mut said = said.into_iter().flatten();
    let one = said.next();
    if one.is_none() || said.next().is_some() {
        checker.fault(message.to_owned());
    }
    one
}

fn number(count: Count) -> usize {
    usize::try_from(count.0).unwrap_or(usize::MAX)
}
