//! Enters: an experiment of the configuration. Leaves: the same as the pipeline decides by it, or what is wrong with it.

use crate::{
    io::config::{
        ExperimentConfig, MatchConfig, MissingKey, NamedMatch, PathMatch, SampleConfig, SampleKey, ValueMatch,
    },
    pipeline::{
        Endpoint,
        policy::{
            Exclusion, Experiment, ExperimentId, HostRule, Network, PathRule, Pattern, Rule, RuleError,
            Sample, SampleBy, ValueRule, WithoutKey,
        },
    },
};

/// Why an experiment cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// One of the rules that a request must fit.
    #[error("entry {} of matches", index + 1)]
    Matches {
        /// Which, from 0.
        index: usize,
        /// What is wrong with it.
        source: RuleError,
    },
    /// One of the rules that it must not fit.
    #[error("entry {} of excludes", index + 1)]
    Excludes {
        /// Which, from 0.
        index: usize,
        /// What is wrong with it.
        source: RuleError,
    },
    /// One of the rules by which a request is not compared.
    #[error("entry {} of compare.excludes", index + 1)]
    CompareExcludes {
        /// Which, from 0.
        index: usize,
        /// What is wrong with it.
        source: RuleError,
    },
    /// By what is sampled.
    #[error("the key of sample")]
    Sample {
        /// What is wrong with it.
        source: RuleError,
    },
}

/// The experiment as the pipeline decides by it.
///
/// # Errors
///
/// A rule or a sample that no request could be held against.
pub fn compile(id: ExperimentId, config: &ExperimentConfig) -> Result<Experiment, CompileError> {
    let rules = |entries: &[MatchConfig], error: fn(usize, RuleError) -> CompileError| {
        let compiled = entries.iter().enumerate();
        compiled
            .map(|(index, entry)| rule(entry).map_err(|source| error(index, source)))
            .collect::<Result<Vec<_>, _>>()
    };
    Ok(Experiment {
        id,
        ports: config.ports.clone(),
        addresses: config.addresses.iter().map(|net| Network::new(net.addr(), net.prefix_len())).collect(),
        servers: config.pods.as_ref().map(|pods| {
            let mut servers: Vec<_> = pods.servers.iter().copied().map(Endpoint::from).collect();
            servers.sort_unstable();
            servers
        }),
        matches: rules(&config.matches, |index, source| CompileError::Matches { index, source })?,
        excludes: rules(&config.excludes, |index, source| CompileError::Excludes { index, source })?,
        sample: sample(&config.name, &config.sample).map_err(|source| CompileError::Sample { source })?,
        is_paused: false,
        reads_answers: config.reads_answers(),
    })
}

/// What of the requests of an experiment is not compared; `None` where all are.
///
/// # Errors
///
/// A rule that no request could be held against.
pub fn compile_exclusion(config: &ExperimentConfig) -> Result<Option<Exclusion>, CompileError> {
    let entries = config.compare.as_ref().map(|compare| &compare.excludes[..]).unwrap_or_default();
    let compiled = entries
        .iter()
        .enumerate()
        .map(|(index, entry)| rule(entry).map_err(|source| CompileError::CompareExcludes { index, source }));
    let rules = compiled.collect::<Result<Vec<_>, _>>()?;
    Ok((!rules.is_empty()).then(|| Exclusion::new(rules)))
}

fn rule(entry: &MatchConfig) -> Result<Rule, RuleError> {
    let mut rule = Rule::of_methods(entry.methods.clone());
    if let Some(path) = &entry.path {
        rule = rule.with_path(match path {
            PathMatch::Exact(path) => PathRule::exact(path)?,
            PathMatch::PathPrefix(path) => PathRule::prefix(path)?,
            PathMatch::RegularExpression(pattern) => PathRule::pattern(Pattern::new(pattern)?),
        });
    }
    for NamedMatch { name, value: expected } in &entry.headers {
        rule = rule.with_field(name, value(expected)?)?;
    }
    for NamedMatch { name, value: expected } in &entry.query_params {
        rule = rule.with_param(name, value(expected)?)?;
    }
    for host in &entry.hostnames {
        rule = rule.with_host(HostRule::new(host)?);
    }
    Ok(rule)
}

fn value(expected: &ValueMatch) -> Result<ValueRule, RuleError> {
    Ok(match expected {
        ValueMatch::Exact(value) => ValueRule::Exact(value.as_bytes().into()),
        ValueMatch::RegularExpression(pattern) => ValueRule::Pattern(Pattern::new(pattern)?),
        ValueMatch::Present => ValueRule::Present,
    })
}

fn sample(experiment: &str, config: &SampleConfig) -> Result<Sample, RuleError> {
    let by = match &config.by {
        SampleKey::Request => SampleBy::Request,
        SampleKey::Connection => SampleBy::Connection,
        SampleKey::Client => SampleBy::Client,
        SampleKey::Header(name) => SampleBy::Header(name.clone()),
        SampleKey::Cookie(name) => SampleBy::Cookie(name.clone()),
        SampleKey::Query(name) => SampleBy::Query(name.clone()),
        SampleKey::Jwt(claim) => SampleBy::Jwt(claim.clone()),
    };
    let without_key = match config.missing {
        MissingKey::Skip => WithoutKey::Skip,
        MissingKey::Request => WithoutKey::Draw,
    };
    Sample::new(experiment, config.share, &by, without_key)
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::compile;
    use crate::{
        io::config::{
            ExperimentConfig, Expiry, MatchConfig, MissingKey, NamedMatch, PathMatch, PodsConfig,
            SampleConfig, SampleKey, ValueMatch,
        },
        pipeline::{
            Endpoint, FlowKey, Policy,
            http::RequestHead,
            policy::{ExperimentId, MatchedHow, Methods, Share},
            reason::SkipReason,
        },
    };

    fn config(entry: MatchConfig) -> ExperimentConfig {
        ExperimentConfig {
            name: "orders".to_owned(),
            owner: None,
            expires: Expiry::Never,
            ports: vec![8080],
            addresses: vec!["10.0.0.0/8".parse().unwrap(), "2001:db8::/32".parse().unwrap()],
            pods: None,
            matches: vec![entry],
            excludes: Vec::new(),
            sample: SampleConfig::default(),
            targets: Vec::new(),
            compare: None,
        }
    }

    fn named(name: &str, value: ValueMatch) -> Vec<NamedMatch> {
        vec![NamedMatch { name: name.to_owned(), value }]
    }

    fn full() -> ExperimentConfig {
        let mut config = config(MatchConfig {
            path: Some(PathMatch::PathPrefix("/api/orders".to_owned())),
            methods: Methods::Only(vec!["POST".to_owned()]),
            headers: named("X-Beta", ValueMatch::Exact("1".to_owned())),
            query_params: named("q", ValueMatch::Present),
            hostnames: vec!["*.example.com".to_owned()],
        });
        config.excludes = vec![MatchConfig {
            path: Some(PathMatch::RegularExpression("/api/orders/[0-9]+/health".to_owned())),
            ..MatchConfig::of_methods(Methods::All)
        }];
        config
    }

    /// What comes of a request to `server`, and what the experiment itself says.
    fn decide(
        config: &ExperimentConfig,
        server: &str,
        raw: &str,
    ) -> (Result<(), SkipReason>, Option<SkipReason>) {
        let policy = Policy::from(compile(ExperimentId(0), config).unwrap());
        let end = |addr: &str| Endpoint::from(addr.parse::<std::net::SocketAddr>().unwrap());
        let flow = FlowKey { client: end("192.0.2.1:40000"), server: end(server), vlan: 0, vni: 0 };
        let mut skipped = None;
        let head = RequestHead::parse(raw.as_bytes()).unwrap();
        let taken = policy.decide(&flow, &head, 1, |_, reason| skipped = Some(reason));
        (taken.map(|_| ()), skipped)
    }

    const FITTING: &str = "POST /api/orders/7?q HTTP/1.1\r\nhost: eu.example.com:80\r\nx-beta: 1\r\n\r\n";

    #[test]
    fn everything_of_an_entry_must_fit() {
        assert_eq!(decide(&full(), "10.1.2.3:8080", FITTING), (Ok(()), None));
        assert_eq!(decide(&full(), "[2001:db8::1]:8080", FITTING), (Ok(()), None));
        for (part, other) in [
            ("/api/orders/7", "/api/order"),
            ("?q", "?p"),
            ("eu.example.com", "example.com"),
            ("x-beta: 1", "x-beta: 2"),
        ] {
            let reason = SkipReason::Unmatched;
            let raw = FITTING.replace(part, other);
            assert_eq!(decide(&full(), "10.1.2.3:8080", &raw), (Err(reason), Some(reason)), "{other}");
        }
        let reason = SkipReason::Method;
        let raw = FITTING.replace("POST", "PUT");
        assert_eq!(decide(&full(), "10.1.2.3:8080", &raw), (Err(reason), Some(reason)));
        let reason = SkipReason::Excluded;
        let raw = FITTING.replace("/7", "/7/health");
        assert_eq!(decide(&full(), "10.1.2.3:8080", &raw), (Err(reason), Some(reason)));
    }

    #[test]
    fn of_another_server_the_experiment_says_nothing() {
        for server in ["10.1.2.3:8081", "11.1.2.3:8080", "[2001:db9::1]:8080"] {
            assert_eq!(decide(&full(), server, FITTING), (Err(SkipReason::Unmatched), None), "{server}");
        }
    }

    #[test]
    fn of_pods_the_very_pairs_of_address_and_port_count() {
        let mut config = full();
        let of = |servers: &[&str]| {
            let servers = servers.iter().map(|server| server.parse().unwrap()).collect();
            Some(PodsConfig { servers, ..PodsConfig::default() })
        };
        config.pods = of(&["10.1.2.4:9090", "10.1.2.3:8080", "[2001:db8::1]:8080"]);
        for server in ["10.1.2.3:8080", "10.1.2.4:9090", "[2001:db8::1]:8080"] {
            assert_eq!(decide(&config, server, FITTING), (Ok(()), None), "{server}");
        }
        for server in ["10.1.2.3:9090", "10.1.2.4:8080", "10.1.2.5:8080"] {
            assert_eq!(decide(&config, server, FITTING), (Err(SkipReason::Unmatched), None), "{server}");
        }
        config.pods = of(&[]);
        assert_eq!(decide(&config, "10.1.2.3:8080", FITTING), (Err(SkipReason::Unmatched), None));
    }

    #[test]
    fn by_what_is_sampled_is_taken_over() {
        let of = |by, missing| {
            let share = Share::from_percent(0.0).unwrap();
            ExperimentConfig { sample: SampleConfig { share, by, missing }, ..full() }
        };
        let keys = ["header:x", "cookie:x", "query:x", "jwt:x"].map(|key| {
            let (kind, name) = key.split_once(':').unwrap();
            match kind {
                "header" => SampleKey::Header(name.to_owned()),
                "cookie" => SampleKey::Cookie(name.to_owned()),
                "query" => SampleKey::Query(name.to_owned()),
                _ => SampleKey::Jwt(name.to_owned()),
            }
        });
        for by in keys {
            let reason = |missing| decide(&of(by.clone(), missing), "10.1.2.3:8080", FITTING).0.unwrap_err();
            assert_eq!(reason(MissingKey::Skip), SkipReason::NoKey, "{by:?}");
            assert_eq!(reason(MissingKey::Request), SkipReason::Sampled, "{by:?}");
        }
        for by in [SampleKey::Request, SampleKey::Connection, SampleKey::Client] {
            let config = of(by, MissingKey::Skip);
            assert_eq!(decide(&config, "10.1.2.3:8080", FITTING).0, Err(SkipReason::Sampled));
            assert_eq!(compile(ExperimentId(0), &config).unwrap().how(), MatchedHow::Sampled);
        }
        assert_eq!(compile(ExperimentId(0), &full()).unwrap().how(), MatchedHow::Targeted);
    }

    #[test]
    fn what_cannot_be_compiled_is_named() {
        let any = || MatchConfig::of_methods(Methods::All);
        let with_path = |path| MatchConfig { path: Some(path), ..any() };
        for (entry, said) in [
            (with_path(PathMatch::Exact("api".to_owned())), "path \"api\" does not begin with /"),
            (with_path(PathMatch::PathPrefix(String::new())), "path \"\" does not begin with /"),
            (with_path(PathMatch::RegularExpression("(".to_owned())), "\"(\" is not a regular expression"),
            (with_path(PathMatch::RegularExpression("a)|(b".to_owned())), "\"a)|(b\" is not a regular"),
            (with_path(PathMatch::RegularExpression("(a{999}){999}".to_owned())), "that can be used"),
            (MatchConfig { hostnames: vec!["*".to_owned()], ..any() }, "\"*\" is neither a host name"),
            (MatchConfig { hostnames: vec!["a:80".to_owned()], ..any() }, "\"a:80\" is neither a host name"),
            (MatchConfig { headers: named("a b", ValueMatch::Present), ..any() }, "\"a b\" is not a name"),
            (
                MatchConfig {
                    headers: [named("A", ValueMatch::Present), named("a", ValueMatch::Present)].concat(),
                    ..any()
                },
                "\"a\" stands there twice",
            ),
            (MatchConfig { query_params: named("", ValueMatch::Present), ..any() }, "\"\" is not a name"),
        ] {
            let error = compile(ExperimentId(0), &config(entry)).unwrap_err();
            assert_eq!(error.to_string(), "entry 1 of matches");
            let source = error.source().unwrap().to_string();
            assert!(source.starts_with(said) || source.ends_with(said), "{source}");
        }
        let sample = SampleConfig { by: SampleKey::Header("x:y".to_owned()), ..SampleConfig::default() };
        let error = compile(ExperimentId(0), &ExperimentConfig { sample, ..full() }).unwrap_err();
        assert_eq!(error.to_string(), "the key of sample");
    }
}
