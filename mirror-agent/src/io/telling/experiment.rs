//! Enters: the exchanges of one experiment, and orders about its rules. Leaves: its books and what can be reported of it.

use std::{sync::Arc, time::SystemTime};

use serde_json::Value;
use tracing::error;

use super::{
    ask::{AskError, Installed, RulesTold, Told},
    fields,
    history::VerdictHistory,
    portion::{ExperimentPortion, Fingerprint, JudgedPortion, TargetPortion},
    report::{
        ArrayReport, ClusterEvidence, ClusterReport, ExperimentReport, RuleReport, TargetEvidence,
        TargetReport, Verdicts,
    },
    rules::{REDACTED, array_json, rule_json},
};
use crate::{
    io::{
        compare::{Comparing, Exchange},
        config::{ComparisonConfig, TargetRole},
        control::time,
        evidence::{self, Evidence, Record},
        ledger::{AnswerOf, ComparisonBooks, Ledger, Phase},
        random::random,
        sinks::{SinkLedger, Sinks},
    },
    pipeline::{
        Answered, Timestamp,
        compare::{ArrayRule, CompareRules, Compared, Comparer, Prepared, Rule, RulesError},
        judge::{Judge, OnFail, Remedy, Seen, Summary},
        policy::mix,
        reason::{ComparisonResult, IncomparableReason, VerdictState},
        redact::{RedactError, Redactor},
    },
};

/// Bytes of each content that a sample holds at most.
const SAMPLE_BYTES: usize = 64 * 1024;

/// Why the answers of an experiment cannot be compared.
#[derive(Debug, thiserror::Error)]
pub(super) enum InstallError {
    /// A rule cannot be applied.
    #[error(transparent)]
    Rules(#[from] RulesError),
    /// What is to be redacted cannot be found.
    #[error(transparent)]
    Redact(#[from] RedactError),
}

/// What is known of one experiment.
pub(super) struct Experiment {
    comparing: Arc<Comparing>,
    owner: Option<String>,
    config: ComparisonConfig,
    since: SystemTime,
    books: Arc<ComparisonBooks>,
    comparer: Comparer,
    /// Rules that were accepted or added since the start, behind those of the configuration.
    own_rules: Vec<Rule>,
    /// The same of arrays.
    own_arrays: Vec<ArrayRule>,
    /// How often each rule has explained a difference: those of the configuration, then `own_rules`.
    matched: Vec<u64>,
    shadows: Vec<Shadow>,
    /// Position of the control among the targets.
    control: Option<usize>,
    /// What was shed so far, as far as it is in the books.
    shed: [u64; IncomparableReason::ALL.len()],
    has_failed: bool,
    history: VerdictHistory,
    redactor: Redactor,
    sinks: Sinks,
    /// State of a generator of numbers by which samples are chosen.
    draws: u64,
}

/// A new version, and what is known of it.
struct Shadow {
    position: usize,
    judge: Judge,
    evidence: Evidence,
}

type Comparison = Result<Compared, IncomparableReason>;

impl Experiment {
    /// An experiment that compares from now on. What is `known` of it is kept where it compares the same.
    pub(super) fn install(
        known: Option<Self>,
        installed: Installed,
        (ledger, sink_ledger): (&Ledger, &SinkLedger),
    ) -> Result<Self, InstallError> {
        let Installed { comparing, owner } = installed;
        let config = comparing.config.clone().unwrap_or_default();
        let (mut own_rules, mut own_arrays) = (Vec::new(), Vec::new());
        let mut history = VerdictHistory::default();
        if let Some(mut known) = known {
            known.take_shed();
            if Arc::ptr_eq(&known.comparing, &comparing) {
                return Ok(Self { owner, ..known });
            }
            // What was accepted by hand goes on; the sinks are closed before they are opened again.
            Self { own_rules, own_arrays, history, .. } = known;
        }
        let comparer = Comparer::new(&with(&config.rules, &own_rules, &own_arrays))?;
        let redactor = Redactor::new(&config.redact, [random(), random()])?;
        let sinks = Sinks::open(&config.sinks, &comparing.experiment, sink_ledger).unwrap_or_else(|error| {
            let experiment = &comparing.experiment;
            error!(experiment, error = &error as &dyn std::error::Error, "The sinks are not written to.");
            Sinks::default()
        });
        let has_role = |role| {
            let targets = comparing.targets.iter().enumerate();
            targets.filter(move |(_, target)| target.role == role).map(|(position, _)| position)
        };
        let control = has_role(TargetRole::Control).next();
        let shadow = |position| Shadow {
            position,
            judge: Judge::new(&config.judge, control.is_some()),
            evidence: Evidence::new(config.evidence),
        };
        let shadows = has_role(TargetRole::Shadow).map(shadow).collect();
        let matched = vec![0; config.rules.rules.len() + own_rules.len()];
        let books = ledger.comparisons(&comparing.experiment);
        books.set_gate(config.judge.gate.as_ref());
        Ok(Self {
            owner,
            since: SystemTime::now(),
            books,
            comparer,
            own_rules,
            own_arrays,
            matched,
            shadows,
            control,
            shed: [0; IncomparableReason::ALL.len()],
            has_failed: false,
            history,
            redactor,
            sinks,
            draws: random(),
            config,
            comparing,
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.comparing.experiment
    }

    /// Gives nothing more to the sinks.
    pub(super) fn close_sinks(&self) {
        self.sinks.close();
    }

    /// Whether exchanges of `comparing` are its own.
    pub(super) fn is_of(&self, comparing: &Arc<Comparing>) -> bool {
        Arc::ptr_eq(&self.comparing, comparing)
    }

    /// Compares the answers of an exchange.
    pub(super) fn take(&mut self, exchange: &Exchange) {
        let Exchange { request, live, answers, .. } = exchange;
        let line = request.raw.get(..request.head_len).unwrap_or_default();
        let mut words = line.split(|byte| *byte == b' ');
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let prepared = match live {
            Answered::Whole(answer) => self.comparer.prepare(answer),
            Answered::Partly { reason, .. } | Answered::Not(reason) => Err(*reason),
        };
        let answer_of =
            |position: usize| answers.iter().find(|(of, _)| *of == position).map(|(_, answer)| answer);
        self.time(AnswerOf::Live, live);
        let control = self.control.and_then(answer_of);
        if let Some(control) = control {
            self.time(AnswerOf::Control, control);
        }
        for index in 0..self.shadows.len() {
            let Some(Shadow { position, judge, .. }) = self.shadows.get_mut(index) else { continue };
            let position = *position;
            let Some(shadow) = answer_of(position) else { continue };
            let endpoint = judge.endpoint(method, target);
            let compared = compare(&self.comparer, &endpoint, &prepared, shadow);
            let control =
                control.map(|control| (control, compare(&self.comparer, &endpoint, &prepared, control)));
            let judged = judge.observe(&Seen {
                at: request.first_byte_at,
                endpoint: &endpoint,
                live,
                shadow,
                compared: &compared,
                control: control.as_ref().map(|(answered, compared)| (*answered, compared)),
            });
            self.books.compared(judged.result, judged.reason, 1);
            self.time(AnswerOf::Shadow, shadow);
            self.count(&compared);
            let told = evidence::Told {
                at: SystemTime::now(),
                exchange: &exchange.id_text(),
                experiment: &self.comparing.experiment,
                target: self.comparing.targets.get(position).map_or("", |target| &target.name),
                endpoint: &endpoint,
                request,
                live,
                shadow,
                control: control.as_ref().map(|(answered, _)| *answered),
                compared: &compared,
                result: judged.result,
                reason: judged.reason,
                cluster: judged.cluster.map(|key| key.0),
            };
            keep(self.shadows.get_mut(index), &self.sinks, &self.redactor, &mut self.draws, &told);
        }
    }

    /// Counts where answers differ, and which rules explain it.
    fn count(&mut self, compared: &Comparison) {
        let Ok(compared) = compared else { return };
        compared.divergences.iter().for_each(|divergence| self.books.diverged(divergence.kind));
        for explained in &compared.explained {
            if let Some(matched) = self.matched.get_mut(explained.rule) {
                *matched += 1;
            }
        }
    }

    fn time(&self, of: AnswerOf, answered: &Answered) {
        match answered.timing() {
            Some(Ok(timing)) => {
                self.books.answered(of, Phase::FirstByte, timing.to_first_byte());
                self.books.answered(of, Phase::LastByte, timing.to_last_byte());
            }
            Some(Err(reason)) => self.books.untimed(reason),
            None => {}
        }
    }

    /// Looks at the verdict; true where it has just become one for which the experiment is to be paused.
    pub(super) fn judge(&mut self, now: Timestamp) -> bool {
        self.take_shed();
        for Shadow { evidence, .. } in &mut self.shadows {
            evidence.expire(SystemTime::now());
        }
        let figures = self.shadows.iter().flat_map(|Shadow { position, judge, .. }| {
            let target = self.comparing.targets.get(*position).map_or("", |target| &target.name);
            fields::figures(target, &self.config.rules.fields, &judge.fields())
        });
        self.books.set_fields(figures.collect());
        let Some(gate) = &self.config.judge.gate else {
            self.books.set_verdict(None);
            return false;
        };
        // One that has no targets, since it has ended, has nothing to be judged by.
        let (mut verdict, mut burns) = (VerdictState::Pass, false);
        if self.shadows.is_empty() {
            verdict = VerdictState::NotEnoughData;
        }
        for Shadow { position, judge, .. } in &mut self.shadows {
            let summary = judge.summary(now);
            burns |= summary.burn;
            if let Some(verdict) = &summary.verdict {
                let target = self.comparing.targets.get(*position).map_or("", |target| &target.name);
                let told = |text: &str| self.redactor.place(text);
                self.history.note(SystemTime::now(), target, verdict, summary.whole.exchanges, told);
            }
            verdict =
                worse(verdict, summary.verdict.map_or(VerdictState::NotEnoughData, |verdict| verdict.state));
        }
        self.books.set_verdict(Some(verdict));
        let fails = verdict == VerdictState::Fail && gate.on_fail == OnFail::Pause;
        let is_over = fails || (burns && gate.pause_on_burn);
        let was_over = std::mem::replace(&mut self.has_failed, is_over);
        is_over && !was_over
    }

    /// The experiment could not be paused: it is tried again.
    pub(super) const fn not_paused(&mut self) {
        self.has_failed = false;
    }

    /// Counts an exchange of its own that is not compared any more.
    pub(super) fn give_up(&self) {
        self.books.compared(ComparisonResult::Incomparable, Some(IncomparableReason::Busy), 1);
    }

    /// Counts exchanges that were given up before they came here.
    pub(super) fn take_shed(&mut self) {
        let shed = self.comparing.shed();
        for ((reason, now), before) in IncomparableReason::ALL.iter().zip(shed).zip(self.shed) {
            self.books.compared(ComparisonResult::Incomparable, Some(*reason), now.saturating_sub(before));
        }
        self.shed = shed;
    }

    pub(super) fn report(&mut self, now: Timestamp, samples: bool) -> ExperimentReport {
        let rules = self.config.rules.rules.iter().chain(&self.own_rules).zip(&self.matched).enumerate();
        let rules = rules.map(|(position, (rule, matched))| RuleReport {
            rule: self.told(rule_json(rule)),
            matched: *matched,
            is_own: position >= self.config.rules.rules.len(),
        });
        let rules = rules.collect();
        let arrays = self.config.rules.arrays.iter().chain(&self.own_arrays).enumerate();
        let arrays = arrays.map(|(position, array)| ArrayReport {
            array: self.told(array_json(array)),
            is_own: position >= self.config.rules.arrays.len(),
        });
        let arrays = arrays.collect();
        let targets = self.shadows.iter_mut().map(|Shadow { position, judge, evidence }| {
            let kept = if samples { evidence.clusters() } else { Vec::new() };
            let kept = kept.into_iter().map(|(key, kept)| ClusterReport::new(key, kept)).collect();
            let target = self.comparing.targets.get(*position);
            TargetReport {
                target: target.map(|target| target.name.clone()).unwrap_or_default(),
                summary: without_secrets(&judge.summary(now), &self.config.rules.fields, &self.redactor),
                kept,
            }
        });
        ExperimentReport {
            name: self.comparing.experiment.clone(),
            owner: self.owner.clone(),
            since: time::rfc3339(self.since),
            has_gate: self.config.judge.gate.is_some(),
            has_control: self.control.is_some(),
            targets: targets.collect(),
            rules,
            arrays,
        }
    }

    /// What is kept of one cluster; `None` where nothing is.
    pub(super) fn cluster(&self, number: u64) -> Option<ClusterEvidence> {
        let targets = self.shadows.iter().filter_map(|Shadow { position, evidence, .. }| {
            let kept = evidence.cluster(number)?;
            let target = self.comparing.targets.get(*position).map(|target| target.name.clone());
            Some(TargetEvidence::new(target.unwrap_or_default(), number, kept))
        });
        let targets: Vec<_> = targets.collect();
        let experiment = self.comparing.experiment.clone();
        (!targets.is_empty()).then_some(ClusterEvidence { experiment, targets })
    }

    /// What the verdict was, and since when.
    pub(super) fn verdicts(&self) -> Verdicts<'_> {
        Verdicts {
            experiment: &self.comparing.experiment,
            has_gate: self.config.judge.gate.is_some(),
            history: &self.history,
        }
    }

    /// What is known, in a form that adds up, and without secrets.
    pub(super) fn portion(&mut self, now: Timestamp) -> JudgedPortion {
        let (redactor, targets) = (&self.redactor, &self.comparing.targets);
        let portions = self.shadows.iter_mut().map(|Shadow { position, judge, .. }| TargetPortion {
            target: targets.get(*position).map(|target| target.name.clone()).unwrap_or_default(),
            portion: judge.portion(now).renamed(|name| redactor.place_for_all(name)),
        });
        let has_control = self.control.is_some();
        JudgedPortion {
            told: ExperimentPortion {
                name: self.comparing.experiment.clone(),
                rules: Fingerprint::of(&self.config, &self.own_rules, &self.own_arrays, has_control),
                targets: portions.collect(),
            },
            owner: self.owner.clone(),
            judge: self.config.judge.clone(),
            has_control,
            fields: self.config.rules.fields.iter().map(|path| redactor.place(path)).collect(),
        }
    }

    /// Counts differences as noise that were proposed as such.
    pub(super) fn accept(&mut self, names: Option<&[String]>, now: Timestamp) -> Result<Told, AskError> {
        let before = self.rule_names();
        let proposals = self.shadows.iter_mut().flat_map(|shadow| shadow.judge.proposals(now));
        // Each by its name and by what the report calls it.
        let known: Vec<_> =
            proposals.map(|proposal| (self.redactor.place(&proposal.name), proposal.name)).collect();
        if let Some(unknown) =
            names.into_iter().flatten().find(|name| known.iter().all(|(told, _)| told != *name))
        {
            let known: Vec<_> = known.into_iter().map(|(told, _)| told).collect();
            return Err(AskError::UnknownRule { name: unknown.clone(), known: known.join(", ") });
        }
        let is_wanted = |told: &String| names.is_none_or(|names| names.contains(told));
        let wanted: Vec<String> =
            known.into_iter().filter(|(told, _)| is_wanted(told)).map(|(_, name)| name).collect();
        for Shadow { judge, .. } in &mut self.shadows {
            for proposal in judge.accept(&wanted) {
                match proposal.remedy {
                    Remedy::Rule(rule) if !self.own_rules.iter().any(|known| known.name == rule.name) => {
                        self.own_rules.push(rule);
                    }
                    Remedy::Array(array) if !self.own_arrays.contains(&array) => self.own_arrays.push(array),
                    Remedy::Rule(_) | Remedy::Array(_) => {}
                }
            }
        }
        self.renew(before)
    }

    /// One rule more, or another one of its name.
    pub(super) fn add(&mut self, rule: Rule) -> Result<Told, AskError> {
        let before = self.rule_names();
        let mut rules = self.own_rules.clone();
        rules.retain(|known| known.name != rule.name);
        rules.push(rule);
        Comparer::new(&with(&self.config.rules, &rules, &self.own_arrays))?;
        self.own_rules = rules;
        self.renew(before)
    }

    /// One rule less.
    pub(super) fn remove(&mut self, name: &str) -> Result<Told, AskError> {
        let before = self.rule_names();
        // By its name, or by what it was told as.
        let Some(name) = before.iter().find(|known| *known == name || self.redactor.place(known) == name)
        else {
            let known: Vec<_> = before.iter().map(|known| self.redactor.place(known)).collect();
            return Err(AskError::UnknownRule { name: name.to_owned(), known: known.join(", ") });
        };
        self.own_rules.retain(|rule| rule.name != *name);
        self.own_arrays.retain(|array| array.path != *name);
        self.renew(before)
    }

    fn renew(&mut self, before: Vec<String>) -> Result<Told, AskError> {
        self.comparer = Comparer::new(&with(&self.config.rules, &self.own_rules, &self.own_arrays))?;
        let counts = self.matched.split_off(self.config.rules.rules.len().min(self.matched.len()));
        let count_of = |rule: &Rule| {
            let position = before.iter().position(|name| *name == rule.name)?;
            counts.get(position).copied()
        };
        self.matched.extend(self.own_rules.iter().map(|rule| count_of(rule).unwrap_or_default()));
        let after = RulesTold {
            rules: self.own_rules.iter().map(|rule| self.told(rule_json(rule))).collect(),
            arrays: self.own_arrays.iter().map(|array| self.told(array_json(array))).collect(),
        };
        let before = before.iter().map(|name| self.redactor.place(name)).collect();
        Ok(Told::Rules { owner: self.owner.clone(), before, after })
    }

    /// A rule as it may be told: its path may hold what the user has redacted, and then it says so.
    fn told(&self, rule: Value) -> Value {
        let mut told = rule.clone();
        redact(&mut told, &self.redactor);
        if told != rule
            && let Value::Object(fields) = &mut told
        {
            fields.insert(REDACTED.to_owned(), Value::Bool(true));
        }
        told
    }

    fn rule_names(&self) -> Vec<String> {
        let arrays = self.own_arrays.iter().map(|array| array.path.clone());
        self.own_rules.iter().map(|rule| rule.name.clone()).chain(arrays).collect()
    }
}

fn compare(
    comparer: &Comparer,
    endpoint: &str,
    live: &Result<Prepared, IncomparableReason>,
    other: &Answered,
) -> Comparison {
    let live = live.as_ref().map_err(|reason| *reason)?;
    match other {
        Answered::Whole(other) => comparer.compare(endpoint, live, other),
        Answered::Partly { reason, .. } | Answered::Not(reason) => Err(*reason),
    }
}

fn with(rules: &CompareRules, more: &[Rule], arrays: &[ArrayRule]) -> CompareRules {
    let mut rules = rules.clone();
    rules.rules.extend_from_slice(more);
    for array in arrays {
        if !rules.arrays.iter().any(|known| known.path == array.path) {
            rules.arrays.push(array.clone());
        }
    }
    rules
}

/// The summary as it may be told: what is learned of paths and keys may hold what the user has redacted.
fn without_secrets(summary: &Summary, paths: &[String], redactor: &Redactor) -> Value {
    // Texts, numbers and lists: nothing that JSON cannot hold.
    let mut value = serde_json::to_value(summary).unwrap_or_default();
    fields::name(&mut value, paths);
    redact(&mut value, redactor);
    value
}

fn redact(value: &mut Value, redactor: &Redactor) {
    match value {
        Value::String(text) => *text = redactor.place(text),
        Value::Array(items) => items.iter_mut().for_each(|item| redact(item, redactor)),
        Value::Object(fields) => fields.values_mut().for_each(|field| redact(field, redactor)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Keeps an exchange as evidence, and gives it to the sinks, where they want it.
fn keep(
    shadow: Option<&mut Shadow>,
    sinks: &Sinks,
    redactor: &Redactor,
    draws: &mut u64,
    told: &evidence::Told<'_>,
) {
    let mut record = None;
    let mut recorded =
        || Arc::clone(record.get_or_insert_with(|| Arc::new(Record::new(told, redactor, SAMPLE_BYTES))));
    if let (Some(Shadow { evidence, .. }), Some(cluster)) = (shadow, told.cluster) {
        *draws = draws.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let title = || redactor.place(told.endpoint);
        if let Some(slot) = evidence.observe(cluster, told.at, mix(*draws), title) {
            evidence.keep(slot, recorded());
        }
    }
    if sinks.want(told.result) {
        sinks.take(&recorded(), told.result);
    }
}

/// Of two verdicts the one that is worse.
const fn worse(one: VerdictState, other: VerdictState) -> VerdictState {
    use VerdictState::{Fail, NotEnoughData, Pass};
    match (one, other) {
        (Fail, _) | (_, Fail) => Fail,
        (NotEnoughData, _) | (_, NotEnoughData) => NotEnoughData,
        (Pass, Pass) => Pass,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::pipeline::redact::RedactRules;

    #[test]
    fn summary_is_told_without_what_is_redacted() {
        let rules = RedactRules { patterns: vec!["cust-[0-9]+".to_owned()], ..RedactRules::default() };
        let redactor = Redactor::new(&rules, [1, 2]).unwrap();
        let mut summary = json!({
            "endpoints": [{ "endpoint": "GET /accounts/cust-12345", "exchanges": 3 }],
            "clusters": [{ "paths": ["$.cust-77.balance"] }],
        });
        redact(&mut summary, &redactor);
        let text = summary.to_string();
        assert!(!text.contains("cust-1") && !text.contains("cust-7"), "{text}");
        assert_eq!(summary["endpoints"][0]["exchanges"], 3);
    }
}
