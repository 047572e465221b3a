//! Enters: what agents say of themselves, one by one. Leaves: what is told of all of them together.
//!
//! Books and sketches add up, clusters join by their keys, intervals and verdicts are made anew from the sums. Of what is
//! summed the order does not matter.

use std::{net::SocketAddr, time::SystemTime};

use super::{
    told::{FORMAT, Told},
    view::{AgentView, CaptureSum, ExperimentView, LeftOut, LeftOutReason, TargetView, Trouble, View},
};
use crate::{
    io::{
        control::{
            CopyState, Counted, ExperimentState, InterlockState, Reasons, RequestState, State, TargetState,
            time,
        },
        replay::BreakerState,
        telling::JudgedPortion,
    },
    pipeline::{
        Timestamp,
        judge::{Judge, Portion},
        reason::VerdictState,
    },
};

/// Most bytes of what is summed of comparisons; beyond, agents are left out. That of equal agents takes as much as one's,
/// some hundred thousand.
const PORTION_BYTES: usize = 32 * 1024 * 1024;

/// Most experiments that are told of, and targets of each. A configuration has no more, and agents have all the same one;
/// of who makes up more nothing is told.
const MAX_EXPERIMENTS: usize = 256;

/// Sums up what agents say.
#[derive(Debug)]
pub(super) struct Merger {
    agents: Vec<AgentView>,
    capture: CaptureSum,
    experiments: Vec<Sum>,
    portion_bytes: usize,
    own: Vec<JudgedPortion>,
}

/// What is known of one experiment.
#[derive(Debug, Default)]
struct Sum {
    name: String,
    owner: Option<String>,
    agents: u64,
    paused: u64,
    compared_by: u64,
    left_out: Vec<LeftOut>,
    comparisons: Counted,
    incomparable: Counted,
    targets: Vec<TargetSum>,
}

/// What is known of one target.
#[derive(Debug, Default)]
struct TargetSum {
    target: String,
    is_control: bool,
    copies: CopyState,
    queued: u64,
    in_flight: u64,
    breakers: Counted,
    interlocks: Counted,
    replays: Counted,
    portion: Option<Portion>,
}

/// What is known by a name.
trait Named {
    fn named(name: &str) -> Self;
    fn name(&self) -> &str;
}

impl Named for Sum {
    fn named(name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::default() }
    }

    fn name(&self) -> &str {
        &self.name
    }
}

impl Named for TargetSum {
    fn named(name: &str) -> Self {
        Self { target: name.to_owned(), ..Self::default() }
    }

    fn name(&self) -> &str {
        &self.target
    }
}

/// The sum of this name, made if there is none; `None` where there are too many.
fn find_or_add<'s, T: Named>(sums: &'s mut Vec<T>, name: &str) -> Option<&'s mut T> {
    let position = match sums.iter().position(|known| known.name() == name) {
        Some(position) => position,
        None if sums.len() >= MAX_EXPERIMENTS => return None,
        None => {
            sums.push(T::named(name));
            sums.len().saturating_sub(1)
        }
    };
    sums.get_mut(position)
}

impl Merger {
    /// Begins with what the agent that asks says of itself; experiments are judged as it judges them.
    pub(super) fn new(told: Told, own: Vec<JudgedPortion>) -> Self {
        let mut merger = Self {
            agents: Vec::new(),
            capture: CaptureSum::default(),
            experiments: Vec::new(),
            portion_bytes: 0,
            own,
        };
        merger.take(None, 0.0, told);
        merger
    }

    /// Adds what an agent says. One that has said so already, under another address, is not counted twice.
    pub(super) fn take(&mut self, address: Option<SocketAddr>, seconds: f64, told: Told) {
        let Told { agent, state, compared, .. } = told;
        let is_known = |known: &&mut AgentView| {
            known.agent.as_ref().is_some_and(|known| known.instance == agent.instance)
        };
        if let Some(known) = self.agents.iter_mut().find(is_known) {
            known.addresses.extend(address.map(|address| address.to_string()));
            return;
        }
        let name = agent.pod.clone().unwrap_or_else(|| agent.node.clone());
        let view = AgentView {
            addresses: address.iter().map(ToString::to_string).collect(),
            agent: Some(agent),
            seconds,
            ..of_state(&state)
        };
        self.capture.add(&view.capture);
        self.agents.push(view);
        for experiment in &state.experiments {
            if let Some(sum) = self.experiment(&experiment.name) {
                sum.add(experiment);
            }
        }
        for experiment in compared {
            let judged = self.own.iter().find(|own| own.told.name == experiment.name);
            let reason = match judged {
                None => Some(LeftOutReason::Unknown),
                Some(judged) if judged.told.rules != experiment.rules => Some(LeftOutReason::OtherRules),
                Some(_) => None,
            };
            let bytes =
                experiment.targets.iter().map(|target| target.portion.bytes()).fold(0, usize::saturating_add);
            let sum_bytes = self.portion_bytes.saturating_add(bytes);
            let reason = reason.or((sum_bytes > PORTION_BYTES).then_some(LeftOutReason::TooLarge));
            let Some(sum) = self.experiment(&experiment.name) else { continue };
            if let Some(reason) = reason {
                sum.left_out.push(LeftOut { agent: name.clone(), reason });
                continue;
            }
            sum.compared_by += 1;
            for target in &experiment.targets {
                if let Some(sum) = find_or_add(&mut sum.targets, &target.target) {
                    sum.portion.get_or_insert_default().merge(&target.portion);
                }
            }
            // What was added to what is known already takes less than both; now and then it is counted anew.
            self.portion_bytes = if sum_bytes > PORTION_BYTES / 2 { self.bytes() } else { sum_bytes };
        }
    }

    /// Notes an agent that could not be understood, or did not answer.
    pub(super) fn miss(&mut self, address: String, seconds: f64, trouble: Trouble) {
        let view =
            AgentView { addresses: vec![address], trouble: Some(trouble), seconds, ..AgentView::default() };
        self.agents.push(view);
    }

    fn bytes(&self) -> usize {
        let targets = self.experiments.iter().flat_map(|experiment| &experiment.targets);
        targets
            .filter_map(|target| target.portion.as_ref())
            .map(Portion::bytes)
            .fold(0, usize::saturating_add)
    }

    fn experiment(&mut self, name: &str) -> Option<&mut Sum> {
        find_or_add(&mut self.experiments, name)
    }

    /// What is told of all together.
    pub(super) fn finish(mut self, asked: SystemTime, now: Timestamp) -> View {
        // The one that asks comes first, then by where they are.
        if let Some((_, others)) = self.agents.split_first_mut() {
            others.sort_by(|one, other| one.addresses.cmp(&other.addresses));
        }
        let answered = self.agents.iter().filter(|agent| agent.has_answered()).count();
        let missing: Vec<String> = self.agents.iter().filter_map(missing).collect();
        let experiments = std::mem::take(&mut self.experiments);
        let experiments = experiments.into_iter().map(|sum| {
            let judged = self.own.iter().find(|own| own.told.name == sum.name);
            sum.view(judged, &missing, now)
        });
        View {
            format: FORMAT,
            asked: time::rfc3339(asked),
            known: count(self.agents.len()),
            answered: count(answered),
            capture: self.capture,
            experiments: experiments.collect(),
            agents: self.agents,
        }
    }
}

/// How an agent that is missing is told of.
fn missing(agent: &AgentView) -> Option<String> {
    let Trouble { problem, text } = agent.trouble.as_ref()?;
    Some(format!("{}: {}, {text}", agent.addresses.join(", "), problem.as_str()))
}

fn of_state(state: &State) -> AgentView {
    let targets = || state.experiments.iter().flat_map(|experiment| &experiment.targets);
    let capture = &state.capture;
    AgentView {
        uptime_seconds: state.uptime_seconds,
        paused: state.paused,
        capture: CaptureSum {
            interfaces: capture.interfaces,
            frames_captured: capture.frames_captured,
            frames_dropped: capture.frames_dropped,
            frames_dropped_by: capture.frames_dropped_by.clone(),
            flows_skipped: capture.flows_skipped.clone(),
            requests: capture.requests.clone(),
        },
        queued: targets().fold(0, |sum, target| sum.saturating_add(target.queued)),
        in_flight: targets().fold(0, |sum, target| sum.saturating_add(target.in_flight)),
        verdict: worst(state.experiments.iter().map(|experiment| experiment.verdict)),
        ..AgentView::default()
    }
}

/// The worst of the verdicts that there are.
pub(super) fn worst(states: impl Iterator<Item = Option<VerdictState>>) -> Option<VerdictState> {
    let badness = |state: &VerdictState| match state {
        VerdictState::Pass => 0,
        VerdictState::NotEnoughData => 1,
        VerdictState::Fail => 2,
    };
    states.flatten().max_by_key(badness)
}

impl Sum {
    fn add(&mut self, experiment: &ExperimentState) {
        self.owner = self.owner.take().or_else(|| experiment.owner.clone());
        self.agents += 1;
        self.paused += u64::from(experiment.paused);
        add_counted(&mut self.comparisons, &experiment.comparisons);
        add_counted(&mut self.incomparable, &experiment.incomparable);
        for target in &experiment.targets {
            if let Some(sum) = find_or_add(&mut self.targets, &target.name) {
                sum.add(target);
            }
        }
    }

    fn view(
        self,
        judged: Option<&JudgedPortion>,
        agents_missing: &[String],
        now: Timestamp,
    ) -> ExperimentView {
        let mut states = Vec::new();
        let targets = self.targets.into_iter().map(|target| {
            let summary = judged.zip(target.portion.as_ref()).map(|(judged, portion)| {
                Judge::of_portion(&judged.judge, judged.has_control, portion, now).summary(now)
            });
            states.push(
                summary.as_ref().and_then(|summary| summary.verdict.as_ref()).map(|verdict| verdict.state),
            );
            TargetView {
                target: target.target,
                is_control: target.is_control,
                copies: target.copies,
                queued: target.queued,
                in_flight: target.in_flight,
                breakers: target.breakers,
                interlocks: target.interlocks,
                replays: target.replays,
                // Texts, numbers and lists: nothing that JSON cannot hold.
                summary: summary.and_then(|summary| serde_json::to_value(summary).ok()).map(|mut summary| {
                    judged.into_iter().for_each(|judged| judged.name_fields(&mut summary));
                    summary
                }),
                kept: Vec::new(),
            }
        });
        let targets = targets.collect();
        let has_gate = judged.is_some_and(|judged| judged.judge.gate.is_some());
        let verdict = worst(states.into_iter());
        let left_out =
            self.left_out.iter().map(|left_out| format!("{}: {}", left_out.agent, left_out.reason.as_str()));
        let missing: Vec<String> = agents_missing.iter().cloned().chain(left_out).collect();
        ExperimentView {
            name: self.name,
            owner: self.owner,
            agents: self.agents,
            paused: self.paused,
            compared_by: self.compared_by,
            left_out: self.left_out,
            comparisons: self.comparisons,
            incomparable: self.incomparable,
            has_gate,
            has_control: judged.is_some_and(|judged| judged.has_control),
            state: match verdict {
                // What fails for certain does so whatever the others would say.
                Some(VerdictState::Pass) if !missing.is_empty() => Some(VerdictState::NotEnoughData),
                verdict => verdict,
            },
            judged: verdict,
            missing,
            targets,
            rules: Vec::new(),
            arrays: Vec::new(),
        }
    }
}

impl TargetSum {
    fn add(&mut self, target: &TargetState) {
        self.is_control |= target.is_control;
        add_copies(&mut self.copies, &target.copies);
        self.queued = self.queued.saturating_add(target.queued);
        self.in_flight = self.in_flight.saturating_add(target.in_flight);
        add_counted(&mut self.replays, &target.replays);
        let states = [
            (&mut self.breakers, target.breaker.map(BreakerState::as_str)),
            (&mut self.interlocks, target.interlock.map(InterlockState::as_str)),
        ];
        for (agents, state) in states {
            if let Some(state) = state {
                *agents.entry(state.to_owned()).or_default() += 1;
            }
        }
    }
}

impl CaptureSum {
    fn add(&mut self, other: &Self) {
        self.interfaces = self.interfaces.saturating_add(other.interfaces);
        self.frames_captured = self.frames_captured.saturating_add(other.frames_captured);
        self.frames_dropped = self.frames_dropped.saturating_add(other.frames_dropped);
        add_counted(&mut self.frames_dropped_by, &other.frames_dropped_by);
        add_counted(&mut self.flows_skipped, &other.flows_skipped);
        let RequestState { seen, pending, mirrored, skipped, dropped, lost, reasons } = &other.requests;
        let mine = &mut self.requests;
        for (mine, theirs) in [
            (&mut mine.seen, seen),
            (&mut mine.pending, pending),
            (&mut mine.mirrored, mirrored),
            (&mut mine.skipped, skipped),
            (&mut mine.dropped, dropped),
            (&mut mine.lost, lost),
        ] {
            *mine = mine.saturating_add(*theirs);
        }
        add_reasons(&mut mine.reasons, reasons);
    }
}

fn add_copies(mine: &mut CopyState, theirs: &CopyState) {
    let CopyState { copies, pending, mirrored, skipped, dropped, reasons } = theirs;
    for (mine, theirs) in [
        (&mut mine.copies, copies),
        (&mut mine.pending, pending),
        (&mut mine.mirrored, mirrored),
        (&mut mine.skipped, skipped),
        (&mut mine.dropped, dropped),
    ] {
        *mine = mine.saturating_add(*theirs);
    }
    add_reasons(&mut mine.reasons, reasons);
}

fn add_reasons(mine: &mut Reasons, theirs: &Reasons) {
    add_counted(&mut mine.skipped, &theirs.skipped);
    add_counted(&mut mine.dropped, &theirs.dropped);
    add_counted(&mut mine.lost, &theirs.lost);
}

fn add_counted(mine: &mut Counted, theirs: &Counted) {
    for (label, count) in theirs {
        let sum = mine.entry(label.clone()).or_default();
        *sum = sum.saturating_add(*count);
    }
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
