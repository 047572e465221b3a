//! Enters: a file's values, each right by itself. Leaves: the configuration that they mean, if they fit together.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::SystemTime,
};

use super::{
    comparing::{Comparison, sessions},
    fault::Fault,
    matching::{HeaderFile, MatchFile, MethodsFile, ParameterFile, PathFile, PathKind, ValueKind},
    pods::pods,
    shape::{AuditFile, CaptureFile, ControlFile, ExperimentFile, File},
    target::{InterlockFile, RateFile, TargetFile},
    tree::{Node, Step},
    words,
};
use crate::{
    io::config::{
        AuditConfig, BreakerConfig, CaptureConfig, Config, ControlConfig, CopyOrder, ExperimentConfig,
        Expiry, FleetConfig, GuardConfig, HeaderEdits, Interlock, Key, LimitsConfig, MatchConfig, NamedMatch,
        PathMatch, ProbeConfig, QueryEdits, Rate, SampleConfig, TargetConfig, TargetRole, TlsConfig,
        ValueMatch, default_max_body, default_queue_bytes,
    },
    pipeline::policy::{ExperimentSet, Methods},
};

/// Makes a configuration of a file. What does not fit is noted; the configuration is of use only where nothing was.
pub(super) fn resolve(
    file: File,
    tree: &Node,
    now: Option<SystemTime>,
    faults: &mut Vec<Fault>,
) -> Option<Config> {
    let File { capture, experiments, guard, control, audit, agents, drain_timeout } = file;
    let written = audit.file.iter().cloned().collect();
    let mut checker = Checker { tree, path: Vec::new(), faults, written };
    let experiments = checker.within("experiments", |checker| {
        let most = ExperimentSet::CAPACITY;
        if experiments.is_empty() {
            checker.fault("there has to be at least one experiment".to_owned());
        } else if experiments.len() > most {
            checker
                .fault(format!("at most {most} experiments are possible, these are {}", experiments.len()));
        }
        let mut names = BTreeSet::new();
        checker.each(experiments, |checker, experiment| {
            checker.unique(&mut names, &experiment.name.0, "experiment");
            self::experiment(experiment, now, checker)
        })
    });
    if capture.interfaces.is_empty() && experiments.iter().any(|experiment| experiment.pods.is_none()) {
        checker.within("capture", |checker| {
            checker.within("interfaces", |checker| {
                checker.fault(
                    "there has to be at least one interface, unless all experiments are about `pods`"
                        .to_owned(),
                );
            });
        });
    }
    let targets = experiments.iter().map(|experiment| experiment.targets.len()).sum();
    let config = Config {
        capture: self::capture(capture, targets),
        experiments,
        guard: GuardConfig { cpu: guard.cpu.map(|ratio| ratio.0), memory: guard.memory.map(|ratio| ratio.0) },
        control: checker.within("control", |checker| self::control(control, checker)),
        audit: self::audit(audit),
        agents: agents.0,
        drain_timeout: drain_timeout.0,
    };
    // Sums of values of which some were left aside say nothing.
    if faults.is_empty() {
        for (key, message) in config.misfits() {
            let path = path_of(key);
            faults.push(Fault::of(&path, tree.nearest(&path).place, &message));
        }
    }
    Some(config)
}

fn path_of(key: Key) -> Vec<Step> {
    key.in_file().split('.').map(|word| Step::Key(word.to_owned())).collect()
}

/// Where in the file the values stand that are looked at, and what was found wrong with them.
pub(super) struct Checker<'c> {
    tree: &'c Node,
    path: Vec<Step>,
    faults: &'c mut Vec<Fault>,
    /// The files that are written to.
    written: BTreeSet<PathBuf>,
}

impl<'c> Checker<'c> {
    /// Of a whole tree.
    pub(super) const fn new(tree: &'c Node, faults: &'c mut Vec<Fault>) -> Self {
        Self { tree, path: Vec::new(), faults, written: BTreeSet::new() }
    }

    pub(super) fn within<T>(&mut self, key: &str, look: impl FnOnce(&mut Self) -> T) -> T {
        self.path.push(Step::Key(key.to_owned()));
        let seen = look(self);
        self.path.pop();
        seen
    }

    /// Looks at each item of the list at the path. Items that were left aside while reading count.
    pub(super) fn each<T, U>(&mut self, items: Vec<T>, mut look: impl FnMut(&mut Self, T) -> U) -> Vec<U> {
        let node = self.tree.at(&self.path);
        let mut indices = node.map(Node::items_left).unwrap_or_default().into_iter();
        let mut seen = Vec::with_capacity(items.len());
        for item in items {
            self.path.push(Step::Item(indices.next().unwrap_or(0)));
            seen.push(look(self, item));
            self.path.pop();
        }
        seen
    }

    /// The item of the list at the path that came as the one of this number.
    pub(super) fn item(&mut self, number: usize, look: impl FnOnce(&mut Self)) {
        let left = self.tree.at(&self.path).map(Node::items_left).unwrap_or_default();
        self.path.push(Step::Item(left.get(number).copied().unwrap_or(number)));
        look(self);
        self.path.pop();
    }

    /// Notes what is wrong with the value at the path, unless a part of it was left aside: then it was judged unseen.
    pub(super) fn fault(&mut self, message: String) {
        let node = self.tree.nearest(&self.path);
        if node.is_whole() {
            self.faults.push(Fault::of(&self.path, node.place, &message));
        }
    }

    /// Whether nobody else writes to that file.
    pub(super) fn claims(&mut self, file: &Path) -> bool {
        self.written.insert(file.to_owned())
    }

    pub(super) fn unique(&mut self, names: &mut BTreeSet<String>, name: &str, what: &str) {
        if !names.insert(name.to_owned()) {
            self.within("name", |checker| {
                checker.fault(format!("there is another {what} of the name {name:?}"))
            });
        }
    }
}

fn capture(file: CaptureFile, targets: usize) -> CaptureConfig {
    let memory = file.memory_limit.0;
    let queue_bytes = file.queue_memory.map_or_else(|| default_queue_bytes(memory), |size| size.0);
    CaptureConfig {
        interfaces: file.interfaces.into_iter().map(|interface| interface.0).collect(),
        attach: file.attach,
        vxlan_ports: file.vxlan_ports.into_iter().map(|port| port.0).collect(),
        geneve_ports: file.geneve_ports.into_iter().map(|port| port.0).collect(),
        memory,
        queue_bytes,
        max_body: file.max_body.map_or_else(|| default_max_body(queue_bytes, targets), |size| size.0),
        ring_size: file.ring_size.0,
        threads: usize::try_from(file.threads.0).unwrap_or(usize::MAX),
        metrics_listen: file.metrics_listen.0,
    }
}

fn control(file: ControlFile, checker: &mut Checker<'_>) -> ControlConfig {
    let ControlFile { socket, listen, token_file, fleet } = file;
    if token_file.is_none() && listen.as_ref().is_some_and(|listen| !listen.0.ip().is_loopback()) {
        checker.fault("beyond loopback `listen` needs `tokenFile`".to_owned());
    }
    let fleet = fleet.map(FleetConfig::from);
    if fleet.as_ref().is_some_and(|fleet| token_file.as_ref() == Some(&fleet.token_file)) {
        checker.fault("`fleet.tokenFile` has to be another than `tokenFile`: it opens less".to_owned());
    }
    ControlConfig { socket, listen: listen.map(|listen| listen.0), token_file, fleet }
}

fn audit(file: AuditFile) -> AuditConfig {
    AuditConfig { file: file.file, max_size: file.max_size.0, keep: file.keep.0 }
}

fn experiment(file: ExperimentFile, now: Option<SystemTime>, checker: &mut Checker<'_>) -> ExperimentConfig {
    if let (Expiry::At(end), Some(now)) = (file.expires.0, now)
        && end <= now
    {
        checker.within("expires", |checker| {
            checker.fault("the experiment has expired: give it a later time, or take it out".to_owned());
        });
    }
    if file.pods.is_none() && file.ports.is_empty() {
        checker.within("ports", |checker| {
            checker.fault("there has to be at least one port, or `pods`".to_owned());
        });
    }
    if file.pods.is_some() && !(file.ports.is_empty() && file.addresses.is_empty()) {
        let key = if file.ports.is_empty() { "addresses" } else { "ports" };
        checker.within(key, |checker| {
            checker.fault(
                "an experiment about `pods` has their addresses, and its ports in `pods.ports`".to_owned(),
            );
        });
    }
    let pods = file.pods.map(|file| checker.within("pods", |checker| pods(file, checker)));
    let mut matches = checker.within("matches", |checker| {
        checker.each(file.matches, |checker, file| match_of(file, Methods::default(), checker))
    });
    if matches.is_empty() {
        matches.push(MatchConfig::of_methods(Methods::default()));
    }
    let excludes = excludes(file.excludes, checker);
    let is_unsafe = matches.iter().any(|entry| !entry.methods.are_safe());
    let has_sessions = file.targets.iter().any(|target| !target.sessions.is_empty())
        || file.control.as_ref().is_some_and(|control| !control.sessions.is_empty());
    let order = if file.compare.is_some() || has_sessions { CopyOrder::Connection } else { CopyOrder::None };
    let mut names = BTreeSet::new();
    let mut targets = checker.within("targets", |checker| {
        if file.targets.is_empty() {
            checker.fault("there has to be at least one target".to_owned());
        }
        checker.each(file.targets, |checker, file| {
            let name = file.name.0.clone();
            checker.unique(&mut names, &name, "target");
            target(file, name, TargetRole::Shadow, is_unsafe, order, checker)
        })
    });
    let has_control = file.control.is_some();
    targets.extend(file.control.map(|file| {
        checker.within("control", |checker| {
            let name = file.name.as_ref().map_or(CONTROL, |name| name.0.as_str()).to_owned();
            checker.unique(&mut names, &name, "target");
            target(file, name, TargetRole::Control, is_unsafe, order, checker)
        })
    }));
    let comparison = Comparison {
        compare: file.compare,
        gate: file.gate,
        fields: file.fields,
        redact: file.redact,
        sinks: file.sinks,
        has_control,
    };
    ExperimentConfig {
        name: file.name.0,
        owner: file.owner,
        expires: file.expires.0,
        ports: file.ports.into_iter().map(|port| port.0).collect(),
        addresses: file.addresses.into_iter().map(|network| network.0).collect(),
        pods,
        matches,
        excludes,
        sample: SampleConfig {
            share: file.sample.percent.0,
            by: file.sample.by.0,
            missing: file.sample.missing,
        },
        targets,
        compare: comparison.resolve(checker),
    }
}

/// Entries of the key `excludes`, which the value at the path has.
pub(super) fn excludes(files: Vec<MatchFile>, checker: &mut Checker<'_>) -> Vec<MatchConfig> {
    checker.within("excludes", |checker| {
        checker.each(files, |checker, file| {
            if file.is_empty() {
                checker.fault("it fits every request: say what is excluded".to_owned());
            }
            match_of(file, Methods::All, checker)
        })
    })
}

fn match_of(file: MatchFile, methods: Methods, checker: &mut Checker<'_>) -> MatchConfig {
    if matches!(&file.methods, Some(MethodsFile::List(list)) if list.is_empty()) {
        checker.within("methods", |checker| {
            checker.fault("an empty list fits no request: leave the key out, or name a method".to_owned());
        });
    }
    let path = checker.within("path", |checker| file.path.and_then(|path| path_match(path, checker)));
    let mut names = BTreeSet::new();
    let headers = checker.within("headers", |checker| {
        checker.each(file.headers, |checker, HeaderFile { name, kind, value }| {
            checker.unique(&mut names, &name.0.to_ascii_lowercase(), "header field");
            NamedMatch { name: name.0, value: value_match(kind, value, checker) }
        })
    });
    let mut names = BTreeSet::new();
    let query_params = checker.within("queryParams", |checker| {
        checker.each(file.query_params, |checker, ParameterFile { name, kind, value }| {
            checker.unique(&mut names, &name.0, "parameter");
            NamedMatch { name: name.0, value: value_match(kind, value, checker) }
        })
    });
    MatchConfig {
        path,
        methods: file.methods.map_or(methods, Methods::from),
        headers,
        query_params,
        hostnames: file.hostnames.into_iter().map(|name| name.0).collect(),
    }
}

fn path_match(PathFile { kind, value }: PathFile, checker: &mut Checker<'_>) -> Option<PathMatch> {
    let checked = match kind {
        PathKind::Exact => words::path(&value).map(PathMatch::Exact),
        PathKind::PathPrefix => words::path(&value).map(PathMatch::PathPrefix),
        PathKind::RegularExpression => words::pattern(&value).map(PathMatch::RegularExpression),
    };
    checked.map_err(|message| checker.within("value", |checker| checker.fault(message))).ok()
}

fn value_match(kind: ValueKind, value: Option<String>, checker: &mut Checker<'_>) -> ValueMatch {
    match (kind, value) {
        (ValueKind::Exact, Some(value)) => ValueMatch::Exact(value),
        (ValueKind::RegularExpression, Some(value)) => {
            if let Err(message) = words::pattern(&value) {
                checker.within("value", |checker| checker.fault(message));
            }
            ValueMatch::RegularExpression(value)
        }
        (ValueKind::Present, None) => ValueMatch::Present,
        (ValueKind::Present, Some(_)) => {
            checker.within("value", |checker| {
                checker.fault("with `type: Present` there is no value".to_owned())
            });
            ValueMatch::Present
        }
        (ValueKind::Exact | ValueKind::RegularExpression, None) => {
            checker.fault("the key `value` is missing; for any value say `type: Present`".to_owned());
            ValueMatch::Present
        }
    }
}

fn target<N>(
    file: TargetFile<N>,
    name: String,
    role: TargetRole,
    is_unsafe: bool,
    order: CopyOrder,
    checker: &mut Checker<'_>,
) -> TargetConfig {
    if is_unsafe && file.interlock.is_none() {
        checker.fault(
            "`matches` names methods that write: the target needs an `interlock` by which it proves that it is a shadow, or \
             `interlock: none` as your word that it need not"
                .to_owned(),
        );
    }
    if file.tls.client_certificate.is_some() != file.tls.client_key.is_some() {
        checker.within("tls", |checker| {
            checker.fault("`clientCertificate` and `clientKey` need each other".to_owned());
        });
    }
    let says_keys = file.tls.ca_file.is_some()
        || file.tls.client_certificate.is_some()
        || file.tls.client_key.is_some()
        || file.tls.server_name.is_some()
        || file.tls.insecure_skip_verify;
    if says_keys && !file.url.0.is_tls() {
        checker.within("tls", |checker| {
            checker.fault("the target does not speak TLS: its `url` begins with http://".to_owned());
        });
    }
    let limits = file.limits;
    if limits.bandwidth.as_ref().is_some_and(|size| size.0 == 0) {
        checker.within("limits", |checker| {
            checker.within("bandwidth", |checker| {
                checker.fault("nothing could be sent: expected 1 byte a second or more".to_owned());
            });
        });
    }
    let target = TargetConfig {
        name,
        url: file.url.0,
        connect_timeout: file.connect_timeout.0,
        timeout: file.timeout.0,
        queue_timeout: file.queue_timeout.0,
        limits: LimitsConfig {
            requests_per_second: limits.requests_per_second.map(|rate| match rate {
                RateFile::Each(number) => Rate::Each(number.0),
                RateFile::Shared(shared) => Rate::Total(shared.total.0),
            }),
            bandwidth: limits.bandwidth.map(|size| size.0),
            max_in_flight: usize::try_from(limits.max_in_flight.0).unwrap_or(usize::MAX),
            pipeline: usize::try_from(limits.pipeline.0).unwrap_or(usize::MAX),
            queue: usize::try_from(limits.queue.0).unwrap_or(usize::MAX),
            drop_policy: limits.drop_policy,
        },
        tls: TlsConfig {
            ca_file: file.tls.ca_file,
            client_certificate: file.tls.client_certificate,
            client_key: file.tls.client_key,
            server_name: file.tls.server_name,
            insecure_skip_verify: file.tls.insecure_skip_verify,
        },
        host: file.host.0,
        replace_prefix: file.rewrite.replace_prefix.0.into_iter().map(|(old, new)| (old.0, new.0)).collect(),
        headers: HeaderEdits {
            set: file.headers.set.0.into_iter().map(|(name, value)| (name.0, value.0)).collect(),
            add: file.headers.add.0.into_iter().map(|(name, value)| (name.0, value.0)).collect(),
            remove: file.headers.remove.into_iter().map(|name| name.0).collect(),
        },
        query: QueryEdits {
            set: file.query.set.0.into_iter().map(|(name, value)| (name.0, value)).collect(),
            remove: file.query.remove.into_iter().map(|name| name.0).collect(),
        },
        trace_sampled: file.trace_sampled,
        circuit_breaker: file.circuit_breaker.map(|breaker| BreakerConfig {
            error_ratio: breaker.error_ratio.0,
            window: breaker.window.0,
            min_requests: breaker.min_requests.0,
            open_for: breaker.open_for.0,
        }),
        interlock: match file.interlock {
            None => Interlock::Unsaid,
            Some(InterlockFile::None) => Interlock::None,
            Some(InterlockFile::Probe(probe)) => Interlock::Probe(ProbeConfig {
                header: probe.header.0,
                value: probe.value.0,
                path: probe.path.0,
                every: probe.every.0,
            }),
        },
        order: file.order.unwrap_or(order),
        max_connection_age: file.max_connection_age.map(|time| time.0),
        role,
        sessions: checker.within("sessions", |checker| sessions(file.sessions, checker)),
    };
    // The name of the experiment is checked where it stands.
    if let Err(error) = target.rewrite("") {
        checker.within(error.key(), |checker| checker.fault(error.to_string()));
    }
    target
}

/// The name of a control that is not said.
const CONTROL: &str = "control";
